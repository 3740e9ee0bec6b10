//! Kamailio as a proxy that records routes, on both sides of the appliance, and between two of them.

use trunkline_tests::appliance::Setup;
use trunkline_tests::kamailio::Proxy;
use trunkline_tests::ports::free_port;
use trunkline_tests::scenario::{Scenario, audio};
use trunkline_tests::sipp::{Sipp, SippSetup};
use trunkline_tests::siprec::{
    MULTIPART, Stream, Who, assert_heard, description, metadata, multipart, start, whole,
};
use trunkline_tests::{Appliance, installed, skip};

#[test]
fn a_call_through_a_record_routing_proxy_on_both_sides() {
    let test = "a_call_through_a_record_routing_proxy_on_both_sides";
    if !installed("sipp") || !installed("kamailio") {
        return skip(test, "needs sipp and kamailio");
    }
    let (proxy_port, callee_port) = (free_port(), free_port());
    let appliance = Appliance::start(&Setup::to_port(proxy_port));
    let folder = appliance.folder();
    let proxy = Proxy::start(folder, proxy_port, appliance.sip_port, callee_port);
    let with = |direction: &str| format!("{}a={direction}\n", audio(8));

    let bob = Scenario::callee("bob")
        .expect_invite()
        .respond("180 Ringing", "")
        .respond("200 OK", &audio(8))
        .expect_request("ACK")
        .expect_body("INVITE", "a=sendonly")
        .respond_in_dialog("200 OK", &with("recvonly"))
        .expect_request("ACK")
        .bye_as_callee()
        .expect(200);
    let bob = SippSetup {
        port: callee_port,
        ..SippSetup::new("bob", bob)
    };
    let bob = Sipp::start(folder, bob, None, "bob");
    let alice = Scenario::caller("alice")
        .invite(&audio(8))
        .may_get(100)
        .may_get(180)
        .expect(200)
        .request("ACK")
        .pause_ms(300)
        .invite(&with("sendonly"))
        .may_get(100)
        .expect_response_body(200, "a=recvonly")
        .request("ACK")
        .expect_request("BYE")
        .respond_in_dialog("200 OK", "");
    let alice = SippSetup::new("alice", alice);
    let alice = Sipp::start(folder, alice, Some(proxy_port), "bob");
    // Both peers see the proxy's route in every request inside their dialogs, or the proxy would
    // not have passed it (404).
    let alice_saw = alice.finish_with_trace();
    let bob_saw = bob.finish_with_trace();
    let route = format!("127.0.0.1:{proxy_port};lr");
    for (who, saw) in [("alice", &alice_saw), ("bob", &bob_saw)] {
        assert!(
            saw.contains(&format!("Record-Route: <sip:{route}")),
            "{who}:\n{saw}"
        );
        assert!(!saw.contains("SIP/2.0 404"), "{who}:\n{saw}");
    }
    drop(proxy);
}

#[test]
fn a_recording_session_passes_an_appliance_and_a_proxy_to_the_recorder_of_another() {
    let test = "a_recording_session_passes_an_appliance_and_a_proxy_to_the_recorder_of_another";
    if !installed("sipp") || !installed("kamailio") {
        return skip(test, "needs sipp and kamailio");
    }
    let recorder = Appliance::start(&Setup {
        next: "record".to_owned(),
        record: "false",
        ..Setup::to_port(0)
    });
    let proxy_port = free_port();
    let between = Appliance::start(&Setup {
        record: "false",
        ..Setup::to_port(proxy_port)
    });
    let folder = between.folder();
    let proxy = Proxy::start(folder, proxy_port, between.sip_port, recorder.sip_port);
    let who = |id, aor, name, stream, label| Who {
        id,
        aor,
        name,
        stream,
        label,
    };
    let ann = who("pa", "sip:ann@a.example", "Ann &amp; Co", "sa", "7");
    let ben = who("pb", "sip:ben@b.example", "Ben", "sb", "8");
    let cat = who("pc", "sip:cat@c.example", "Cat", "sb", "8");
    let first = metadata("s1", "g1", &[ann, ben]);
    let then = metadata("s1", "g1", &[ann, cat]);
    let streams = [Stream::new("7", 1), Stream::new("8", 2)];
    let sdp = description(1, &[&streams[0], &streams[1]], "sendonly");
    let contact = "Contact: <sip:src@[local_ip]:[local_port]>;+sip.src\n";
    let scenario = Scenario::caller("src")
        .with_body(
            "INVITE",
            &format!("{contact}Require: siprec\n"),
            MULTIPART,
            &multipart(&sdp, &first),
        )
        .may_get(100)
        .expect(200)
        .request("ACK")
        .pause_ms(1800)
        .with_body(
            "UPDATE",
            &format!("{contact}Content-Disposition: recording-session\n"),
            "application/rs-metadata+xml",
            &then,
        )
        .expect(200)
        .pause_ms(200)
        .request("BYE")
        .expect(200);
    let (sipp, ports) = start(&between, folder, "src", scenario, 2);
    for (stream, port) in streams.iter().zip(&ports) {
        stream.party.speak_to(*port);
    }
    let trace = sipp.finish_with_trace();
    assert!(
        trace.contains(";+sip.srs") && trace.contains("a=label:8"),
        "{trace}"
    );
    let [left, right] = streams.map(|stream| stream.party.finish());
    let (recording, wav) = whole(&recorder);
    assert_heard("left", &wav.left, &left);
    assert_heard("right", &wav.right, &right);
    // What was said of the session is kept as the client wrote it.
    let id = recording["id"].as_str().expect("an id");
    let told = recorder.api.get(&format!("/v1/recordings/{id}/metadata"));
    for (index, document) in [first, then].into_iter().enumerate() {
        let kept = told["items"][index]["document"].as_str().expect("kept");
        // SIPp ends lines as SIP does.
        assert_eq!(kept.replace("\r\n", "\n").trim(), document.trim(), "{told}");
    }
    let people = &recording["participants"];
    assert_eq!(people[1]["uri"], "sip:ben@b.example", "{recording}");
    assert_eq!(people[2]["uri"], "sip:cat@c.example", "{recording}");
    drop(proxy);
}
