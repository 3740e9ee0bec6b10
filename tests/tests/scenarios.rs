//! SIPp on both sides, by the book: reliable provisional responses, offers that come late, changes by either
//! side, TCP, media that stops. What each side gets, and what the records say.

use std::time::Duration;

use serde_json::Value;
use trunkline_tests::api::{check_receipt, items};
use trunkline_tests::appliance::Setup;
use trunkline_tests::party::Party;
use trunkline_tests::ports::free_port;
use trunkline_tests::process::eventually;
use trunkline_tests::scenario::{Scenario, audio};
use trunkline_tests::sipp::{Sipp, SippSetup, Transport};
use trunkline_tests::{Appliance, installed, skip};

const TIMEOUT: Duration = Duration::from_secs(20);

fn sipp_is_possible(test: &str) -> bool {
    if !installed("sipp") {
        skip(test, "needs sipp");
    }
    installed("sipp")
}

/// Runs both sides of one call to their end, the callee first; gives what each of them saw.
fn run(
    appliance: &Appliance,
    port: u16,
    transport: Transport,
    (alice, bob): (Scenario, Scenario),
) -> [String; 2] {
    let callee = SippSetup {
        port,
        transport,
        ..SippSetup::new("bob", bob)
    };
    let callee = Sipp::start(appliance.folder(), callee, None, "bob");
    let caller = SippSetup {
        transport,
        ..SippSetup::new("alice", alice)
    };
    let us = Some(appliance.sip_port);
    let caller = Sipp::start(appliance.folder(), caller, us, "bob");
    [caller.finish_with_trace(), callee.finish_with_trace()]
}

/// The final records of the only call.
fn finals(appliance: &Appliance) -> Vec<Value> {
    eventually("both final records", TIMEOUT, || {
        let found = items(&appliance.api.get("/v1/cdrs"));
        (found.len() == 2 && appliance.api.calls().is_empty()).then_some(found)
    })
}

fn answered(appliance: &Appliance, ended_by: &str) {
    for record in finals(appliance) {
        assert_eq!(record["sip_code"], 200, "{record}");
        assert_eq!(record["ended_by"], ended_by, "{record}");
        assert!(record["answered_at"].is_string(), "{record}");
    }
}

#[test]
fn a_reliable_183_is_acknowledged_on_each_leg_and_its_answer_stands() {
    let test = "a_reliable_183_is_acknowledged_on_each_leg_and_its_answer_stands";
    if !sipp_is_possible(test) {
        return;
    }
    let port = free_port();
    let appliance = Appliance::start(&Setup::to_port(port));
    let reliable = "Require: 100rel\nRSeq: 4711\n";
    let bob = Scenario::callee("bob")
        .expect_invite()
        .respond_with("183 Session Progress", reliable, &audio(8))
        .expect_request("PRACK")
        .respond_in_dialog("200 OK", "")
        .respond_to_invite("200 OK", "")
        .expect_request("ACK")
        .expect_request("BYE")
        .respond_in_dialog("200 OK", "");
    let alice = Scenario::caller("alice")
        .invite_with("Supported: 100rel\n", &audio(8))
        .may_get(100)
        .expect_reliable(183)
        .prack()
        .expect(200)
        .expect(200)
        .request("ACK")
        .pause_ms(300)
        .request("BYE")
        .expect(200);
    let [heard, asked] = run(&appliance, port, Transport::Udp, (alice, bob));
    // Its own number on each leg, and never the far side's.
    assert!(asked.contains("RAck: 4711 1 INVITE"), "{asked}");
    assert!(!heard.contains("RSeq: 4711"), "{heard}");
    answered(&appliance, "caller");
}

#[test]
fn a_change_without_an_offer_is_negotiated_by_either_side() {
    let test = "a_change_without_an_offer_is_negotiated_by_either_side";
    if !sipp_is_possible(test) {
        return;
    }
    let port = free_port();
    let appliance = Appliance::start(&Setup::to_port(port));
    // A hold of bob's comes by his offer in the 2xx; it ends by one of his own.
    let held = format!("{}a=sendonly\n", audio(8));
    let holding = format!("{}a=recvonly\n", audio(8));
    let bob = Scenario::callee("bob")
        .expect_invite()
        .respond("200 OK", &audio(8))
        .expect_request("ACK")
        .expect_request("INVITE")
        .respond_in_dialog("200 OK", &held)
        .expect_body("ACK", "a=recvonly")
        .pause_ms(500)
        .reinvite_as_callee(2, &audio(8))
        .may_get(100)
        .expect_response_body(200, "m=audio")
        .acknowledge_as_callee(2)
        .expect_request("BYE")
        .respond_in_dialog("200 OK", "");
    let alice = Scenario::caller("alice")
        .invite(&audio(8))
        .may_get(100)
        .expect(200)
        .request("ACK")
        .pause_ms(200)
        .invite("")
        .may_get(100)
        .expect_response_body(200, "a=sendonly")
        .acknowledge_with(&holding)
        .expect_body("INVITE", "a=sendrecv")
        .respond_in_dialog("200 OK", &audio(8))
        .expect_request("ACK")
        .pause_ms(500)
        .request("BYE")
        .expect(200);
    run(&appliance, port, Transport::Udp, (alice, bob));
    answered(&appliance, "caller");
    let recording = appliance.api.wait_for_recordings(1).remove(0);
    check_receipt(&recording);
}

#[test]
fn a_call_over_tcp_on_both_sides_is_changed_and_ended_by_the_callee() {
    let test = "a_call_over_tcp_on_both_sides_is_changed_and_ended_by_the_callee";
    if !sipp_is_possible(test) {
        return;
    }
    let port = free_port();
    let appliance = Appliance::start(&Setup {
        next: format!("sip:127.0.0.1:{port};transport=tcp"),
        ..Setup::to_port(port)
    });
    let bob = Scenario::callee("bob")
        .expect_invite()
        .respond("180 Ringing", "")
        .respond("200 OK", &audio(8))
        .expect_request("ACK")
        .expect_body("INVITE", "a=sendonly")
        .respond_in_dialog("200 OK", &format!("{}a=recvonly\n", audio(8)))
        .expect_request("ACK")
        .pause_ms(300)
        .bye_as_callee()
        .expect(200);
    let alice = Scenario::caller("alice")
        .invite(&audio(8))
        .may_get(100)
        .may_get(180)
        .expect(200)
        .request("ACK")
        .pause_ms(200)
        .invite(&format!("{}a=sendonly\n", audio(8)))
        .may_get(100)
        .expect_response_body(200, "a=recvonly")
        .request("ACK")
        .expect_request("BYE")
        .respond_in_dialog("200 OK", "");
    run(&appliance, port, Transport::Tcp, (alice, bob));
    answered(&appliance, "callee");
    for record in finals(&appliance) {
        for address in ["local", "remote"] {
            let address = record[address].as_str().unwrap_or_default();
            assert!(address.starts_with("tcp:"), "{record}");
        }
    }
}

/// Where the appliance wants to hear a party: the port in the SDP that SIPp got from it.
fn port_for(sipp: &Sipp, own: u16) -> u16 {
    eventually("our SDP reaches SIPp", TIMEOUT, || {
        let trace = sipp.trace();
        let mut ports = trace.lines().filter_map(|line| {
            let port = line.strip_prefix("m=audio ")?.split(' ').next()?;
            port.parse::<u16>().ok()
        });
        ports.rfind(|port| *port != own)
    })
}

/// An appliance whose only route gives up silent media after a second.
fn impatient(port: u16) -> Appliance {
    let route =
        format!("[[route]]\nnext = \"sip:127.0.0.1:{port}\"\nrecord = true\nmedia_timeout_s = 1\n");
    Appliance::start(&Setup {
        next: String::new(),
        // Tests are few, and so are the bytes.
        sip: Box::leak(route.into_boxed_str()),
        ..Setup::to_port(port)
    })
}

#[test]
fn media_that_stops_ends_the_call_with_a_reason_on_both_sides() {
    let test = "media_that_stops_ends_the_call_with_a_reason_on_both_sides";
    if !sipp_is_possible(test) {
        return;
    }
    let port = free_port();
    let appliance = impatient(port);
    // Alice falls silent, bob talks on.
    let (quiet, talker) = (Party::start(75, 1), Party::start(1500, 2));
    let bob = Scenario::callee("bob")
        .expect_invite()
        .respond("200 OK", &talker.media())
        .expect_request("ACK")
        .expect_request("BYE")
        .respond_in_dialog("200 OK", "");
    let alice = Scenario::caller("alice")
        .invite(&quiet.media())
        .may_get(100)
        .expect(200)
        .request("ACK")
        .expect_request("BYE")
        .respond_in_dialog("200 OK", "");
    let callee = SippSetup {
        port,
        ..SippSetup::new("bob", bob)
    };
    let callee = Sipp::start(appliance.folder(), callee, None, "bob");
    let us = Some(appliance.sip_port);
    let caller = Sipp::start(
        appliance.folder(),
        SippSetup::new("alice", alice),
        us,
        "bob",
    );
    quiet.speak_to(port_for(&caller, quiet.port));
    talker.speak_to(port_for(&callee, talker.port));
    for trace in [caller.finish_with_trace(), callee.finish_with_trace()] {
        assert!(
            trace.contains("Reason: SIP;cause=480;text=\"no media\""),
            "{trace}"
        );
    }
    let (quiet, talker) = (quiet.finish(), talker.finish());
    assert!(
        quiet.said.len() == 75 && talker.heard.len() >= 70,
        "all that she said was heard"
    );
    for record in finals(&appliance) {
        assert_eq!(record["ended_by"], "us", "{record}");
        let reason = record["reason"].as_str().unwrap_or_default();
        assert!(reason.contains("no media"), "{record}");
    }
    // What was said until then is in the recording.
    let recording = appliance.api.wait_for_recordings(1).remove(0);
    let [caller, callee] = check_receipt(&recording);
    assert!(caller >= 70 && callee > caller, "{recording}");
}

#[test]
fn a_hold_longer_than_the_media_timeout_does_not_end_the_call() {
    let test = "a_hold_longer_than_the_media_timeout_does_not_end_the_call";
    if !sipp_is_possible(test) {
        return;
    }
    let port = free_port();
    let appliance = impatient(port);
    let inactive = format!("{}a=inactive\n", audio(8));
    let bob = Scenario::callee("bob")
        .expect_invite()
        .respond("200 OK", &inactive)
        .expect_request("ACK")
        .expect_request("BYE")
        .respond_in_dialog("200 OK", "");
    let alice = Scenario::caller("alice")
        .invite(&inactive)
        .may_get(100)
        .expect(200)
        .request("ACK")
        .pause_ms(3500)
        .request("BYE")
        .expect(200);
    run(&appliance, port, Transport::Udp, (alice, bob));
    answered(&appliance, "caller");
}
