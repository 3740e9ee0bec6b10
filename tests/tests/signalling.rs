//! Calls that do not come about as planned, and what happens within calls.

use std::net::UdpSocket;
use std::path::Path;
use std::time::Duration;

use trunkline_tests::api::check_receipt;
use trunkline_tests::appliance::Setup;
use trunkline_tests::pcap::{noise, write};
use trunkline_tests::ports::free_port;
use trunkline_tests::process::eventually;
use trunkline_tests::rtpgen::{Rtpgen, assert_ok};
use trunkline_tests::scenario::{Scenario, audio};
use trunkline_tests::sipp::{Sipp, SippSetup};
use trunkline_tests::sound::{assert_contains, decode};
use trunkline_tests::{Appliance, installed, is_root, skip};

fn sipp_is_possible(test: &str) -> bool {
    if !installed("sipp") {
        skip(test, "needs sipp");
    }
    installed("sipp")
}

/// Runs a caller alone against an appliance; it must get what it expects.
fn call(appliance: &Appliance, name: &str, scenario: Scenario) {
    let setup = SippSetup::new(name, scenario);
    Sipp::start(appliance.folder(), setup, Some(appliance.sip_port), "bob").finish();
}

/// A caller whose INVITE is refused with this status.
fn refused(media: &str, status: u16) -> Scenario {
    Scenario::caller("alice")
        .invite(media)
        .may_get(100)
        .expect(status)
        .acknowledge_failure()
}

#[test]
fn no_route_is_404() {
    if !sipp_is_possible("no_route_is_404") {
        return;
    }
    let appliance = Appliance::start(&Setup {
        next: String::new(),
        ..Setup::to_port(1)
    });
    call(&appliance, "alice", refused(&audio(8), 404));
    assert!(appliance.api.calls().is_empty());
}

#[test]
fn offers_that_cannot_be_relayed_are_refused() {
    if !sipp_is_possible("offers_that_cannot_be_relayed_are_refused") {
        return;
    }
    let appliance = Appliance::start(&Setup::to_port(free_port()));
    for (name, media, status) in [
        ("secure", "m=audio [media_port] RTP/SAVP 8\n", 488),
        ("video", "m=video [media_port] RTP/AVP 96\n", 488),
        ("disabled", "m=audio 0 RTP/AVP 8\n", 488),
        ("broken", "m=audio lots RTP/AVP 8\n", 400),
    ] {
        call(&appliance, name, refused(media, status));
    }
    assert!(appliance.api.calls().is_empty());
}

#[test]
fn a_busy_callee_is_passed_back() {
    if !sipp_is_possible("a_busy_callee_is_passed_back") {
        return;
    }
    let port = free_port();
    let appliance = Appliance::start(&Setup::to_port(port));
    let busy = Scenario::callee("bob")
        .expect_invite()
        .respond("486 Busy Here", "")
        .expect_request("ACK");
    let busy = SippSetup {
        port,
        ..SippSetup::new("bob", busy)
    };
    let bob = Sipp::start(appliance.folder(), busy, None, "bob");
    call(&appliance, "alice", refused(&audio(8), 486));
    bob.finish();
    let ended = appliance.api.get("/v1/calls?state=ended");
    assert_eq!(ended["items"][0]["sip_code"], 486, "{ended}");
    assert_eq!(ended["items"][0]["state"], "failed", "{ended}");
}

#[test]
fn a_caller_that_gives_up_is_told_487_and_the_callee_cancel() {
    if !sipp_is_possible("a_caller_that_gives_up_is_told_487_and_the_callee_cancel") {
        return;
    }
    let port = free_port();
    let appliance = Appliance::start(&Setup::to_port(port));
    let ringing = Scenario::callee("bob")
        .expect_invite()
        .respond("180 Ringing", "")
        .expect_request("CANCEL")
        .respond("200 OK", "")
        .respond_to_invite("487 Request Terminated", "")
        .expect_request("ACK");
    let ringing = SippSetup {
        port,
        ..SippSetup::new("bob", ringing)
    };
    let bob = Sipp::start(appliance.folder(), ringing, None, "bob");
    let alice = Scenario::caller("alice")
        .invite(&audio(8))
        .may_get(100)
        .expect(180)
        .pause_ms(300)
        .request("CANCEL")
        .expect(200)
        .expect(487)
        .acknowledge_failure();
    call(&appliance, "alice", alice);
    bob.finish();
    eventually("the call is gone", Duration::from_secs(5), || {
        appliance.api.calls().is_empty().then_some(())
    });
    assert_eq!(appliance.api.metric("trunkline_calls_active", ""), 0.0);
}

#[test]
fn a_source_that_is_not_allowed_hears_nothing() {
    let appliance = Appliance::start(&Setup {
        allow: r#"["127.0.0.1/32"]"#,
        ..Setup::to_port(free_port())
    });
    let ask = |from: &str| {
        let socket = UdpSocket::bind((from, 0)).expect("a socket");
        socket
            .set_read_timeout(Some(Duration::from_millis(800)))
            .expect("a timeout");
        let local = socket.local_addr().expect("an address");
        let options = format!(
            "OPTIONS sip:{} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{}\r\n\
             From: <sip:a@{local}>;tag=1\r\nTo: <sip:b@{local}>\r\nCall-ID: {local}\r\n\
             CSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n",
            appliance.sip_port,
            local.port()
        );
        let options = options.replacen("sip:", "sip:127.0.0.1:", 1);
        socket
            .send_to(options.as_bytes(), ("127.0.0.1", appliance.sip_port))
            .expect("sent");
        let mut buffer = [0; 2048];
        socket
            .recv(&mut buffer)
            .ok()
            .map(|length| buffer[..length].to_vec())
    };
    let answer = ask("127.0.0.1").expect("an answer to the allowed source");
    assert!(
        answer.starts_with(b"SIP/2.0 200"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    assert_eq!(ask("127.0.0.2"), None);
}

#[test]
fn above_calls_max_is_503() {
    if !sipp_is_possible("above_calls_max_is_503") {
        return;
    }
    let port = free_port();
    let appliance = Appliance::start(&Setup {
        sip: "calls_max = 1",
        ..Setup::to_port(port)
    });
    let run = Rtpgen::start(
        appliance.folder(),
        appliance.sip_port,
        port,
        &["--calls", "1", "--duration", "4"],
    );
    let _ = appliance.api.wait_for_call("active");
    call(&appliance, "alice", refused(&audio(0), 503));
    assert_ok(&run.finish(Duration::from_secs(20)));
}

#[test]
fn hold_and_its_end_reach_the_other_side() {
    let test = "hold_and_its_end_reach_the_other_side";
    if !sipp_is_possible(test) || !is_root() {
        return skip(test, "needs sipp and root (raw sockets)");
    }
    let port = free_port();
    let appliance = Appliance::start(&Setup::to_port(port));
    let folder = appliance.folder();
    let (first, second) = (folder.join("first.pcap"), folder.join("second.pcap"));
    write(&first, &noise(8, 50, 41));
    write(&second, &noise(8, 50, 42));
    let with = |direction: &str| format!("{}a={direction}\n", audio(8));

    let bob = Scenario::callee("bob")
        .expect_invite()
        .respond("200 OK", &audio(8))
        .expect_request("ACK")
        .expect_body("INVITE", "a=sendonly")
        .respond_in_dialog("200 OK", &with("recvonly"))
        .expect_request("ACK")
        .expect_body("INVITE", "a=sendrecv")
        .respond_in_dialog("200 OK", &with("sendrecv"))
        .expect_request("ACK")
        .expect_request("BYE")
        .respond_in_dialog("200 OK", "");
    let bob = SippSetup {
        port,
        ..SippSetup::new("bob", bob)
    };
    let bob = Sipp::start(folder, bob, None, "bob");
    let alice = Scenario::caller("alice")
        .invite(&audio(8))
        .may_get(100)
        .expect(200)
        .request("ACK")
        .play(&first)
        .pause_ms(1300)
        .invite(&with("sendonly"))
        .may_get(100)
        .expect_response_body(200, "a=recvonly")
        .request("ACK")
        .pause_ms(1500)
        .invite(&with("sendrecv"))
        .may_get(100)
        .expect_response_body(200, "a=sendrecv")
        .request("ACK")
        .play(&second)
        .pause_ms(1300)
        .request("BYE")
        .expect(200);
    let alice = SippSetup::new("alice", alice);
    let alice = Sipp::start(folder, alice, Some(appliance.sip_port), "bob");
    let held = appliance.api.wait_for_call("held");
    let active = appliance.api.wait_for_call("active");
    assert_eq!(held, active);
    alice.finish();
    bob.finish();

    let recording = appliance.api.wait_for_recordings(1).remove(0);
    check_receipt(&recording);
    let wav = appliance.api.wav(&recording);
    let before = assert_contains("before the hold", &wav.left, &decode(&noise(8, 50, 41)));
    let after = assert_contains("after the hold", &wav.left, &decode(&noise(8, 50, 42)));
    let gap = after - (before + 8000);
    assert!(
        (8_000..30_000).contains(&gap),
        "a hold of 1.5 s is silence of its length: {gap}"
    );
    assert!(
        wav.left[before + 8000..after]
            .iter()
            .all(|sample| *sample == 0)
    );
}

#[test]
fn garbage_on_every_port_disturbs_no_call() {
    let port = free_port();
    let appliance = Appliance::start(&Setup::to_port(port));
    let run = Rtpgen::start(
        appliance.folder(),
        appliance.sip_port,
        port,
        &["--calls", "2", "--duration", "5", "--rtcp"],
    );
    let _ = appliance.api.wait_for_call("active");
    let strangers = appliance.api.metric("trunkline_rtp_strangers_total", "");
    let sent = throw_garbage(&appliance);
    let report = run.finish(Duration::from_secs(30));
    assert_ok(&report);
    assert_eq!(report["rtp"]["lost"], 0, "{}", report["rtp"]);
    assert_eq!(report["rtp"]["duplicates"], 0, "{}", report["rtp"]);
    let counted = appliance.api.metric("trunkline_rtp_strangers_total", "") - strangers;
    // Only ports in use have anybody to count.
    assert!(
        counted > 0.0 && counted <= sent as f64,
        "{counted} of {sent} strangers"
    );
    for recording in appliance.api.wait_for_recordings(2) {
        check_receipt(&recording);
        assert_eq!(recording["verdict"], "complete", "{recording}");
    }
    assert!(appliance.is_healthy());
}

/// Sends garbage to the SIP port and all RTP ports; says how much went to the latter.
fn throw_garbage(appliance: &Appliance) -> usize {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let throw = |port: u16, bytes: &[u8]| {
        // A closed port answers by an error on the next send; that is no matter here.
        let _ = socket.send_to(bytes, ("127.0.0.1", port));
    };
    let mut state = 0x1234_5678_9abc_def0_u64;
    let mut random = |length: usize| -> Vec<u8> {
        let next = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        };
        (0..length).map(next).collect()
    };
    let invite =
        b"INVITE sip:b@x SIP/2.0\r\nVia: SIP/2.0/UDP x;branch=z9hG4bKx\r\nCSeq: nine INVITE\r\n";
    let rtp = [&[0x80, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1][..], &[0x55; 160]].concat();
    for length in [0, 1, 3, 11, 12, 20, 200, 1400, 9000, 60_000] {
        throw(appliance.sip_port, &random(length));
    }
    for cut in 0..invite.len() {
        throw(appliance.sip_port, &invite[..cut]);
    }
    let mut sent = 0;
    for port in appliance.rtp_first..appliance.rtp_first + trunkline_tests::ports::RTP_PORTS {
        for length in [0, 1, 11, 12, 100, 1472, 5000, 60_000] {
            throw(port, &random(length));
        }
        throw(port, &rtp);
        throw(port, &rtp[..13]);
        sent += 10;
    }
    sent
}

#[test]
fn a_body_that_is_missing_is_an_offer_that_comes_later() {
    let test = "a_body_that_is_missing_is_an_offer_that_comes_later";
    if !sipp_is_possible(test) || !Path::new("/proc/net/udp").exists() {
        return;
    }
    let port = free_port();
    let appliance = Appliance::start(&Setup::to_port(port));
    let bob = Scenario::callee("bob")
        .expect_invite()
        .respond("200 OK", &audio(8))
        .expect_request("ACK")
        .expect_request("BYE")
        .respond_in_dialog("200 OK", "");
    let bob = SippSetup {
        port,
        ..SippSetup::new("bob", bob)
    };
    let bob = Sipp::start(appliance.folder(), bob, None, "bob");
    let alice = Scenario::caller("alice")
        .invite("")
        .may_get(100)
        .expect_response_body(200, "m=audio")
        .acknowledge_with(&audio(8))
        .pause_ms(500)
        .request("BYE")
        .expect(200);
    call(&appliance, "alice", alice);
    bob.finish();
}
