//! Transfers with SIPp as every party: what each of them hears, and what is recorded.

use std::time::Duration;

use trunkline_tests::api::check_receipt;
use trunkline_tests::appliance::Setup;
use trunkline_tests::party::Party;
use trunkline_tests::pcap::RtpPacket;
use trunkline_tests::ports::free_port;
use trunkline_tests::process::eventually;
use trunkline_tests::scenario::Scenario;
use trunkline_tests::sipp::{Sipp, SippSetup};
use trunkline_tests::sound::{decode, find};
use trunkline_tests::{Appliance, installed, skip};

/// Packets at the end of a call that are still relayed while the recording is over.
const LAST: usize = 20;
/// Packets at the change of speakers that may sound together.
const SEAM: usize = 2;

/// An appliance that routes carol to one port and everybody else to another.
fn appliance(bob: u16, carol: u16) -> Appliance {
    let route = format!(
        "[[route]]\nname = \"carol\"\nuser = \"carol\"\nnext = \"sip:127.0.0.1:{carol}\"\nrecord = true\n"
    );
    Appliance::start(&Setup {
        // Tests are few, and so are the bytes.
        sip: Box::leak(route.into_boxed_str()),
        ..Setup::to_port(bob)
    })
}

/// Which of a party's packets were heard, by number, in the order of hearing.
fn numbers(heard: &[RtpPacket], said: &[RtpPacket]) -> Vec<usize> {
    let place = |packet: &RtpPacket| said.iter().position(|one| one.payload == packet.payload);
    heard.iter().filter_map(place).collect()
}

/// Asserts that the numbers go up one by one, and gives the first and the last.
fn in_a_row(name: &str, numbers: &[usize]) -> (usize, usize) {
    assert!(numbers.len() > 20, "{name}: {} packets", numbers.len());
    let broken = numbers.windows(2).find(|pair| pair[1] != pair[0] + 1);
    assert!(broken.is_none(), "{name}: {broken:?}");
    (numbers[0], numbers[numbers.len() - 1])
}

#[test]
fn a_blind_transfer_is_heard_and_recorded_without_a_gap() {
    if !installed("sipp") {
        return skip(
            "a_blind_transfer_is_heard_and_recorded_without_a_gap",
            "needs sipp",
        );
    }
    let (bob_port, carol_port) = (free_port(), free_port());
    let appliance = appliance(bob_port, carol_port);
    let folder = appliance.folder();
    let (alice, bob, carol) = (
        Party::start(900, 1),
        Party::start(900, 2),
        Party::start(900, 3),
    );
    let refer = "Refer-To: <sip:carol@127.0.0.1>\nReferred-By: <sip:bob@127.0.0.1>\n";
    let answering = Scenario::callee("bob")
        .expect_invite()
        .respond("180 Ringing", "")
        .respond("200 OK", &bob.media())
        .expect_request("ACK")
        .pause_ms(2500)
        .request_as_callee("REFER", 1, refer)
        .expect(202)
        .expect_body("NOTIFY", "SIP/2.0 100")
        .respond_in_dialog("200 OK", "")
        .expect_body("NOTIFY", "SIP/2.0 200")
        .respond_in_dialog("200 OK", "")
        .expect_request("BYE")
        .respond_in_dialog("200 OK", "");
    let target = Scenario::callee("carol")
        .expect_invite()
        .respond("200 OK", &carol.media())
        .expect_request("ACK")
        .pause_ms(2500)
        .bye_as_callee()
        .expect(200);
    let calling = Scenario::caller("alice")
        .invite(&alice.media())
        .may_get(100)
        .may_get(180)
        .expect(200)
        .request("ACK")
        .expect_request("BYE")
        .respond_in_dialog("200 OK", "");
    let at = |name, scenario, port| SippSetup {
        port,
        ..SippSetup::new(name, scenario)
    };
    let third = Sipp::start(folder, at("carol", target, carol_port), None, "carol");
    let second = Sipp::start(folder, at("bob", answering, bob_port), None, "bob");
    let first = Sipp::start(
        folder,
        at("alice", calling, 0),
        Some(appliance.sip_port),
        "bob",
    );
    alice.speak_to(alice.port_for(&first));
    bob.speak_to(bob.port_for(&second));
    carol.speak_to(carol.port_for(&third));
    for sipp in [first, second, third] {
        sipp.finish();
    }
    let recording = appliance.api.wait_for_recordings(1).remove(0);
    let (alice, bob, carol) = (alice.finish(), bob.finish(), carol.finish());

    // Alice hears bob up to a point and carol from there, as one stream.
    let by_bob = in_a_row("alice hears bob", &numbers(&alice.heard, &bob.said));
    let by_carol = in_a_row("alice hears carol", &numbers(&alice.heard, &carol.said));
    let steps = alice.heard.windows(2);
    let jumps = steps.filter(|pair| pair[1].sequence != pair[0].sequence.wrapping_add(1));
    assert_eq!(jumps.count(), 0, "alice's stream is torn");
    let sources = alice.heard.iter().map(|packet| packet.ssrc);
    assert_eq!(sources.collect::<std::collections::BTreeSet<_>>().len(), 1);
    in_a_row("bob hears alice", &numbers(&bob.heard, &alice.said));
    let to_carol = in_a_row("carol hears alice", &numbers(&carol.heard, &alice.said));

    // Recorded: alice whole on the left; on the right bob, then carol.
    check_receipt(&recording);
    let wav = appliance.api.wav(&recording);
    let passage = |said: &[RtpPacket], from, to| decode(&said[from..=to]);
    let left = passage(&alice.said, to_carol.0 - 50, to_carol.1 - LAST);
    find(&wav.left, &left).expect("alice goes on without a gap");
    // Where one follows the other, a packet's sound of both may fall together.
    let (end, begin) = (by_bob.1 - SEAM, by_carol.0 + SEAM);
    let before = passage(&bob.said, end - 60, end);
    let before = find(&wav.right, &before).expect("bob on the right");
    let after = passage(&carol.said, begin, by_carol.1 - LAST);
    let after = find(&wav.right, &after).expect("carol on the right");
    assert!(before < after);
    let parties = recording["participants"].as_array().expect("participants");
    let roles: Vec<_> = parties.iter().map(|one| one["role"].as_str()).collect();
    assert_eq!(
        roles,
        [Some("caller"), Some("callee"), Some("transfer")],
        "{recording}"
    );
    assert_eq!(parties[1]["to_ms"], parties[2]["from_ms"], "{recording}");
    assert_eq!(recording["verdict"], "complete", "{recording}");
}

/// The Refer-To header that names the dialog of a SIPp that called: its peer is who is to be joined.
fn refer_to(consulting: &Sipp) -> String {
    let trace = consulting.trace();
    let value = |name: &str| {
        let mut values = trace.lines().filter_map(|line| line.strip_prefix(name));
        let value = values.rfind(|value| name != "To: " || value.contains(";tag="));
        value
            .unwrap_or_else(|| panic!("no {name} in {trace}"))
            .trim()
            .to_owned()
    };
    let tag = |name: &str| {
        let value = value(name);
        value.split(";tag=").nth(1).expect("a tag").to_owned()
    };
    let call_id = value("Call-ID: ").replace('@', "%40");
    let (to, from) = (tag("To: "), tag("From: "));
    format!(
        "Refer-To: <sip:carol@127.0.0.1?Replaces={call_id}%3Bto-tag%3D{to}%3Bfrom-tag%3D{from}>\n\
         Referred-By: <sip:bob@127.0.0.1>\n"
    )
}

#[test]
fn an_attended_transfer_joins_whom_was_consulted_and_ends_the_consultation() {
    let test = "an_attended_transfer_joins_whom_was_consulted_and_ends_the_consultation";
    if !installed("sipp") {
        return skip(test, "needs sipp");
    }
    let (bob_port, carol_port) = (free_port(), free_port());
    let appliance = appliance(bob_port, carol_port);
    let folder = appliance.folder();
    let (alice, bob, carol) = (
        Party::start(900, 11),
        Party::start(900, 12),
        Party::start(900, 13),
    );
    // Bob's second line: where it sounds does not matter here.
    let line = Party::start(900, 14);
    let at = |name, scenario, port| SippSetup {
        port,
        ..SippSetup::new(name, scenario)
    };
    let consulted = Scenario::callee("carol")
        .expect_invite()
        .respond("200 OK", &carol.media())
        .expect_request("ACK")
        .expect_body("INVITE", "m=audio")
        .respond_in_dialog("200 OK", &carol.media())
        .expect_request("ACK")
        .pause_ms(2500)
        .bye_as_callee()
        .expect(200);
    let consulting = Scenario::caller("bob")
        .invite(&line.media())
        .may_get(100)
        .expect(200)
        .request("ACK")
        .expect_request("BYE")
        .respond_in_dialog("200 OK", "");
    let us = Some(appliance.sip_port);
    let third = Sipp::start(folder, at("carol", consulted, carol_port), None, "carol");
    let second_line = Sipp::start(folder, at("bob-2", consulting, 0), us, "carol");
    line.speak_to(line.port_for(&second_line));
    let first_port = carol.port_for(&third);
    carol.speak_to(first_port);
    eventually("the consultation stands", Duration::from_secs(10), || {
        let call = appliance.api.calls().pop()?;
        (call["state"] == "active" && second_line.trace().contains("ACK sip:")).then_some(())
    });

    let answering = Scenario::callee("bob")
        .expect_invite()
        .respond("200 OK", &bob.media())
        .expect_request("ACK")
        .pause_ms(2500)
        .request_as_callee("REFER", 1, &refer_to(&second_line))
        .expect(202)
        .expect_body("NOTIFY", "SIP/2.0 100")
        .respond_in_dialog("200 OK", "")
        .expect_body("NOTIFY", "SIP/2.0 200")
        .respond_in_dialog("200 OK", "")
        .expect_request("BYE")
        .respond_in_dialog("200 OK", "");
    let calling = Scenario::caller("alice")
        .invite(&alice.media())
        .may_get(100)
        .expect(200)
        .request("ACK")
        .expect_request("BYE")
        .respond_in_dialog("200 OK", "");
    let second = Sipp::start(folder, at("bob", answering, bob_port), None, "bob");
    let first = Sipp::start(folder, at("alice", calling, 0), us, "bob");
    alice.speak_to(alice.port_for(&first));
    bob.speak_to(bob.port_for(&second));
    // Carol is told by re-INVITE where she is to be heard from now on.
    let joined = eventually(
        "carol is offered the first call",
        Duration::from_secs(10),
        || Some(carol.port_for(&third)).filter(|port| *port != first_port),
    );
    carol.speak_to(joined);
    for sipp in [first, second, second_line, third] {
        sipp.finish();
    }

    let recordings = appliance.api.wait_for_recordings(2);
    let (alice, bob, carol) = (alice.finish(), bob.finish(), carol.finish());
    let _ = line.finish();
    in_a_row("alice hears bob", &numbers(&alice.heard, &bob.said));
    let by_carol = in_a_row("alice hears carol", &numbers(&alice.heard, &carol.said));
    let sources = alice.heard.iter().map(|packet| packet.ssrc);
    assert_eq!(sources.collect::<std::collections::BTreeSet<_>>().len(), 1);
    in_a_row("carol hears alice", &numbers(&carol.heard, &alice.said));

    for recording in &recordings {
        check_receipt(recording);
    }
    // Alice's call goes on in its one recording; the consultation has its own.
    let roles = |recording: &serde_json::Value| -> Vec<String> {
        let parties = recording["participants"].as_array().expect("participants");
        parties
            .iter()
            .map(|one| one["role"].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    let whole = recordings
        .iter()
        .find(|one| roles(one) == ["caller", "callee", "transfer"])
        .unwrap_or_else(|| panic!("no recording of three parties: {recordings:?}"));
    let wav = appliance.api.wav(whole);
    let heard = decode(&carol.said[by_carol.0 + SEAM..=by_carol.1 - LAST]);
    find(&wav.right, &heard).expect("carol on the right of alice's call");
}
