//! Calls recorded to SIPp as a SIPREC server: what the recorder hears of both parties.

use std::time::Duration;

use serde_json::Value;
use trunkline_tests::api::items;
use trunkline_tests::appliance::Setup;
use trunkline_tests::capture::{self, Capture};
use trunkline_tests::classic;
use trunkline_tests::party::Party;
use trunkline_tests::pcap::RtpPacket;
use trunkline_tests::ports::free_port;
use trunkline_tests::process::eventually;
use trunkline_tests::scenario::Scenario;
use trunkline_tests::sipp::{Sipp, SippSetup, Transport};
use trunkline_tests::{Appliance, installed, skip};

/// An appliance whose calls to bob are recorded here and by these servers.
fn appliance(bob: u16, servers: &str) -> Appliance {
    let route =
        format!("[[route]]\nnext = \"sip:127.0.0.1:{bob}\"\nrecord = true\nsrs = [{servers}]\n");
    Appliance::start(&Setup {
        // Tests are few, and so are the bytes.
        sip: Box::leak(route.into_boxed_str()),
        ..Setup::to_port(bob)
    })
}

/// A recorder that takes both parties' streams.
fn recorder(first: &Party, second: &Party) -> Scenario {
    let lines = [first, second].map(|party| party.media());
    let media = format!(
        "{}a=label:1\na=recvonly\n{}a=label:2\na=recvonly\n",
        lines[0], lines[1]
    );
    Scenario::callee("rec")
        .expect_invite()
        .respond("200 OK", &media)
        .expect_request("ACK")
}

fn at(name: &'static str, scenario: Scenario, port: u16) -> SippSetup<'static> {
    SippSetup {
        port,
        ..SippSetup::new(name, scenario)
    }
}

/// Alice calls bob, both with SIPp: they speak for five seconds. Gives her SIPp and his.
fn call(appliance: &Appliance, bob_port: u16, alice: &Party, bob: &Party) -> (Sipp, Sipp) {
    let folder = appliance.folder();
    let answering = Scenario::callee("bob")
        .expect_invite()
        .respond("200 OK", &bob.media())
        .expect_request("ACK")
        .expect_request("BYE")
        .respond_in_dialog("200 OK", "");
    let calling = Scenario::caller("alice")
        .invite(&alice.media())
        .may_get(100)
        .may_get(180)
        .expect(200)
        .request("ACK")
        .pause_ms(5000)
        .request("BYE")
        .expect(200);
    let callee = Sipp::start(folder, at("bob", answering, bob_port), None, "bob");
    let calling = at("alice", calling, 0);
    let caller = Sipp::start(folder, calling, Some(appliance.sip_port), "bob");
    (caller, callee)
}

/// Both begin to speak, as soon as they know where to.
fn speak(caller: &Sipp, callee: &Sipp, alice: &Party, bob: &Party) {
    alice.speak_to(alice.port_for(caller));
    bob.speak_to(bob.port_for(callee));
}

fn sessions(appliance: &Appliance) -> Vec<Value> {
    items(&appliance.api.get("/v1/siprec"))
}

/// What a recorder heard is what was said, in order and without a gap, but for the first packets, which may
/// be older than the recorder's answer.
fn check_heard(name: &str, heard: &[RtpPacket], said: &[RtpPacket]) {
    assert!(heard.len() > 50, "{name}: {} packets", heard.len());
    let first = said.iter().position(|one| one.payload == heard[0].payload);
    let first = first.unwrap_or_else(|| panic!("{name}: the first packet was never said"));
    assert!(
        first < 50,
        "{name}: {first} packets are missing at the start"
    );
    let pairs = heard.iter().zip(&said[first..]);
    let changed = pairs
        .clone()
        .position(|(heard, said)| heard.payload != said.payload);
    assert_eq!(changed, None, "{name}: the sound is torn");
    let sequence = heard
        .windows(2)
        .all(|pair| pair[1].sequence == pair[0].sequence.wrapping_add(1));
    assert!(sequence, "{name}: the numbering is torn");
}

fn is_recorded_over(test: &str, transport: Transport) {
    if !installed("sipp") {
        return skip(test, "needs sipp");
    }
    let (bob_port, recorder_port) = (free_port(), free_port());
    let parameter = match transport {
        Transport::Udp => "",
        Transport::Tcp => ";transport=tcp",
    };
    let appliance = appliance(
        bob_port,
        &format!("\"sip:127.0.0.1:{recorder_port}{parameter}\""),
    );
    let folder = appliance.folder();
    let (alice, bob) = (Party::start(200, 1), Party::start(200, 2));
    let (left, right) = (Party::start(0, 3), Party::start(0, 4));
    let wire = capture::possible().then(|| Capture::start(folder, appliance.rtp_first));
    let taking = recorder(&left, &right)
        .expect_body("BYE", "stop-time")
        .respond_in_dialog("200 OK", "");
    let taking = SippSetup {
        transport,
        ..at("rec", taking, recorder_port)
    };
    let third = Sipp::start(folder, taking, None, "rec");
    let (first, second) = call(&appliance, bob_port, &alice, &bob);
    let id = appliance.api.wait_for_call("active");
    let session = eventually(
        "the recorder takes the call",
        Duration::from_secs(10),
        || {
            sessions(&appliance)
                .into_iter()
                .find(|one| one["state"] == "active")
        },
    );
    assert_eq!(
        (&session["role"], &session["call"]),
        (&"client".into(), &id.into())
    );
    speak(&first, &second, &alice, &bob);
    first.finish();
    second.finish();
    let trace = third.finish_with_trace();
    assert!(
        trace.contains("Require: siprec") && trace.contains("+sip.src"),
        "{trace}"
    );
    assert!(trace.contains("<datamode>complete</datamode>"), "{trace}");

    let id = session["id"].as_str().expect("an id");
    let ended = appliance.api.get(&format!("/v1/siprec/{id}"));
    assert_eq!(ended["state"], "ended", "{ended}");
    let (alice, bob) = (alice.finish(), bob.finish());
    let (left, right) = ((left.port, left.finish()), (right.port, right.finish()));
    for (name, (_, heard), said, stream) in [
        ("alice", &left, &alice.said, 0),
        ("bob", &right, &bob.said, 1),
    ] {
        check_heard(name, &heard.heard, said);
        let told = &ended["streams"][stream];
        assert_eq!(told["packets"], heard.heard.len(), "{ended}");
        assert!(
            told["participant"]
                .as_str()
                .unwrap_or_default()
                .contains(name),
            "{ended}"
        );
    }
    if let Some(wire) = wire.map(Capture::finish) {
        for (name, (port, heard)) in [("alice", &left), ("bob", &right)] {
            let seen: Vec<_> = wire
                .to_port(*port)
                .into_iter()
                .map(|one| one.payload)
                .collect();
            let heard: Vec<_> = heard.heard.iter().map(|one| one.payload.clone()).collect();
            assert_eq!(seen, heard, "{name}: the wire has what the recorder heard");
        }
    }
    let recording = appliance.api.wait_for_recordings(1).remove(0);
    assert_eq!(recording["verdict"], "complete", "{recording}");
}

#[test]
fn a_recorder_over_tcp_hears_both_parties() {
    is_recorded_over("a_recorder_over_tcp_hears_both_parties", Transport::Tcp);
}

#[test]
fn a_recorder_over_udp_hears_both_parties() {
    is_recorded_over("a_recorder_over_udp_hears_both_parties", Transport::Udp);
}

#[test]
fn a_recorder_that_dies_is_followed_by_another_and_the_call_hears_nothing_of_it() {
    let test = "a_recorder_that_dies_is_followed_by_another_and_the_call_hears_nothing_of_it";
    if !installed("sipp") {
        return skip(test, "needs sipp");
    }
    let (bob_port, first_port, second_port) = (free_port(), free_port(), free_port());
    let servers = format!(
        "\"sip:127.0.0.1:{first_port};transport=tcp\", \"sip:127.0.0.1:{second_port};transport=tcp\""
    );
    let appliance = appliance(bob_port, &servers);
    let folder = appliance.folder();
    let (alice, bob) = (Party::start(300, 1), Party::start(300, 2));
    let before = (Party::start(0, 3), Party::start(0, 4));
    let after = (Party::start(0, 5), Party::start(0, 6));
    let leaving = recorder(&before.0, &before.1)
        .pause_ms(1500)
        .bye_as_callee()
        .expect(200);
    let staying = recorder(&after.0, &after.1)
        .expect_request("BYE")
        .respond_in_dialog("200 OK", "");
    let tcp = |setup| SippSetup {
        transport: Transport::Tcp,
        ..setup
    };
    let one = Sipp::start(folder, tcp(at("one", leaving, first_port)), None, "rec");
    let two = Sipp::start(folder, tcp(at("two", staying, second_port)), None, "rec");
    let (caller, callee) = call(&appliance, bob_port, &alice, &bob);
    speak(&caller, &callee, &alice, &bob);
    let session = eventually("another takes over", Duration::from_secs(10), || {
        let taken = |one: &Value| one["state"] == "active" && one["failovers"] == 1;
        sessions(&appliance).into_iter().find(taken)
    });
    assert_eq!(
        session["gaps"].as_array().map(Vec::len),
        Some(1),
        "{session}"
    );
    assert!(session["gaps"][0]["to"].is_string(), "{session}");
    for sipp in [caller, callee, one, two] {
        sipp.finish();
    }
    let recording = appliance.api.wait_for_recordings(1).remove(0);
    assert_eq!(recording["verdict"], "complete", "{recording}");
    let gaps = &recording["receipt"]["gaps"];
    assert_eq!(gaps[0]["to"], session["gaps"][0]["to"], "{gaps}");
    let (alice, bob) = (alice.finish(), bob.finish());
    let heard = before.0.finish().heard.len();
    assert!(heard > 20, "the first heard {heard} packets");
    let heard = after.0.finish().heard;
    let place = |packet: &RtpPacket| {
        alice
            .said
            .iter()
            .position(|one| one.payload == packet.payload)
    };
    let places: Vec<usize> = heard.iter().filter_map(place).collect();
    assert!(places.len() > 20 && places.windows(2).all(|pair| pair[1] == pair[0] + 1));
    // The parties heard each other whole, but for what came before they knew where to speak.
    check_heard("bob", &bob.heard, &alice.said);
    check_heard("alice", &alice.heard, &bob.said);
}

/// What is recorded of both sides, packet by packet.
fn recorded(appliance: &Appliance, recording: &Value) -> [Vec<Vec<u8>>; 2] {
    let frames = classic::frames(&appliance.api.sn3(recording));
    [0, 1].map(|side| {
        let of_side = frames.iter().filter(|frame| frame.dir == side);
        of_side.map(|frame| frame.payload.clone()).collect()
    })
}

#[test]
fn a_recorder_that_was_away_gets_the_whole_call_afterwards() {
    let test = "a_recorder_that_was_away_gets_the_whole_call_afterwards";
    if !installed("sipp") {
        return skip(test, "needs sipp");
    }
    let (bob_port, recorder_port) = (free_port(), free_port());
    let text = format!(
        "[[recorder]]\nname = \"main\"\nservers = [\"sip:127.0.0.1:{recorder_port}\"]\nreplay = \"after_call\"\n\
         [[route]]\nnext = \"sip:127.0.0.1:{bob_port}\"\nrecord = true\nrecorders = [\"main\"]\n"
    );
    let appliance = Appliance::start(&Setup {
        sip: Box::leak(text.into_boxed_str()),
        ..Setup::to_port(bob_port)
    });
    let (alice, bob) = (Party::start(150, 1), Party::start(150, 2));
    let (caller, callee) = call(&appliance, bob_port, &alice, &bob);
    speak(&caller, &callee, &alice, &bob);
    caller.finish();
    callee.finish();
    let ours = appliance.api.wait_for_recordings(1).remove(0);
    assert_eq!(ours["receipt"]["gaps"].as_array().map(Vec::len), Some(1));
    // The recorder comes only now, when all is over: it is our own.
    let recorder = Appliance::start(&Setup {
        next: "record".to_owned(),
        record: "false",
        sip_port: Some(recorder_port),
        ..Setup::to_port(0)
    });
    let theirs = eventually("the recorder has the call", Duration::from_secs(60), || {
        let listed = items(&recorder.api.get("/v1/recordings"));
        // An INVITE that came by TCP and UDP makes a second one, which is ended before anything is said.
        let heard = |one: &Value| one["receipt"]["caller"]["written"].as_u64() > Some(0);
        let whole = |one: &Value| one["state"] == "complete" && heard(one);
        listed.into_iter().find(whole)
    });
    let said = [alice.finish().said.len(), bob.finish().said.len()];
    for (side, said) in ["caller", "callee"].iter().zip(said) {
        let receipt = &theirs["receipt"][side];
        assert_eq!(receipt["written"], said, "{theirs}");
        assert_eq!(receipt["lost"], 0, "{theirs}");
        assert_eq!(ours["receipt"][side]["written"], said, "{ours}");
    }
    let (ours, theirs) = (recorded(&appliance, &ours), recorded(&recorder, &theirs));
    assert!(ours == theirs, "what was sent is what was recorded");
    let session = items(&appliance.api.get("/v1/siprec"));
    assert!(session.is_empty(), "{session:?}");
}
