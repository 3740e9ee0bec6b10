//! Plain calls between independent user agents: what both hear and what is recorded.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use trunkline_tests::api::{check_receipt, number};
use trunkline_tests::appliance::Setup;
use trunkline_tests::baresip::{self, Baresip};
use trunkline_tests::capture::{self, Capture};
use trunkline_tests::pcap::{RtpPacket, noise, read, write};
use trunkline_tests::ports::free_port;
use trunkline_tests::scenario::{Scenario, audio};
use trunkline_tests::sipp::{BUNDLED_PCAP, Sipp, SippSetup, Transport};
use trunkline_tests::sound::{assert_contains, decode};
use trunkline_tests::{Appliance, installed, is_root, skip};

fn sipp_is_possible(test: &str) -> bool {
    let possible = installed("sipp") && is_root() && Path::new(BUNDLED_PCAP).is_file();
    if !possible {
        skip(test, "needs sipp and root (raw sockets)");
    }
    possible
}

fn payloads(packets: &[RtpPacket]) -> Vec<&[u8]> {
    packets
        .iter()
        .map(|packet| packet.payload.as_slice())
        .collect()
}

/// A caller that calls, plays a file, and hangs up.
fn caller(sound: &Path, length_ms: u32) -> Scenario {
    Scenario::caller("alice")
        .invite(&audio(8))
        .may_get(100)
        .may_get(180)
        .expect(200)
        .request("ACK")
        .play(sound)
        .pause_ms(length_ms)
        .request("BYE")
        .expect(200)
}

/// A callee that rings, answers and plays a file.
fn callee(sound: &Path) -> Scenario {
    Scenario::callee("bob")
        .expect_invite()
        .respond("180 Ringing", "")
        .respond("200 OK", &audio(8))
        .expect_request("ACK")
        .play(sound)
}

/// The one recording of the appliance, complete, with all of both sides' packets in it.
fn complete_recording(appliance: &Appliance, expected: [u64; 2]) -> Value {
    let recording = appliance.api.wait_for_recordings(1).remove(0);
    assert_eq!(check_receipt(&recording), expected, "{recording}");
    for side in ["caller", "callee"] {
        let part = &recording["receipt"][side];
        assert_eq!(
            (number(part, "lost"), number(part, "dropped")),
            (0, 0),
            "{part}"
        );
        assert_eq!(number(part, "duplicates"), 0, "{part}");
    }
    assert_eq!(recording["verdict"], "complete", "{recording}");
    assert_eq!(recording["state"], "complete", "{recording}");
    recording
}

#[test]
fn a_call_is_heard_and_recorded_sample_by_sample() {
    let test = "a_call_is_heard_and_recorded_sample_by_sample";
    if !sipp_is_possible(test) {
        return;
    }
    let port = free_port();
    let appliance = Appliance::start(&Setup::to_port(port));
    let folder = appliance.folder();
    let reply = folder.join("reply.pcap");
    write(&reply, &noise(8, 300, 11));
    let wire = capture::possible().then(|| Capture::start(folder, appliance.rtp_first));

    let bob = callee(&reply)
        .expect_request("BYE")
        .respond_in_dialog("200 OK", "");
    let bob = SippSetup {
        port,
        ..SippSetup::new("bob", bob)
    };
    let bob = Sipp::start(folder, bob, None, "bob");
    let alice = SippSetup::new("alice", caller(Path::new(BUNDLED_PCAP), 7600));
    let alice = Sipp::start(folder, alice, Some(appliance.sip_port), "bob");
    let (alice_media, bob_media) = (alice.media_port, bob.media_port);
    let call = appliance.api.wait_for_call("active");
    alice.finish();
    bob.finish();

    let said = read(Path::new(BUNDLED_PCAP));
    let answered = noise(8, 300, 11);
    if let Some(wire) = wire.map(Capture::finish) {
        let heard_by_bob = wire.to_port(bob_media);
        let heard_by_alice = wire.to_port(alice_media);
        assert_eq!(payloads(&heard_by_bob), payloads(&said), "what bob heard");
        assert_eq!(
            payloads(&heard_by_alice),
            payloads(&answered),
            "what alice heard"
        );
        for (sent, heard) in [(&said, &heard_by_bob), (&answered, &heard_by_alice)] {
            let unchanged = |(sent, heard): (&RtpPacket, &RtpPacket)| {
                (sent.sequence, sent.timestamp, sent.ssrc, sent.payload_type)
                    == (
                        heard.sequence,
                        heard.timestamp,
                        heard.ssrc,
                        heard.payload_type,
                    )
            };
            assert!(
                sent.iter().zip(heard).all(unchanged),
                "headers pass unchanged"
            );
        }
    } else {
        skip(
            test,
            "the wire is not watched: needs dumpcap, tshark and root",
        );
    }

    let recording = complete_recording(&appliance, [236, 300]);
    let wav = appliance.api.wav(&recording);
    assert_eq!(wav.rate_hz, 8000);
    assert_eq!(wav.left.len(), wav.right.len());
    let left = assert_contains("the caller, left", &wav.left, &decode(&said));
    let right = assert_contains("the callee, right", &wav.right, &decode(&answered));
    let silent = |samples: &[i16]| samples.iter().all(|sample| *sample == 0);
    assert!(silent(&wav.left[..left]) && silent(&wav.left[left + 236 * 240..]));
    assert!(silent(&wav.right[..right]) && silent(&wav.right[right + 300 * 160..]));

    assert_eq!(recording["call_id"], call.as_str());
    let call = appliance.api.get(&format!("/v1/calls/{call}"));
    assert_eq!(
        (&call["state"], &call["ended_by"]),
        (&"ended".into(), &"caller".into()),
        "{call}"
    );
    assert_eq!(
        (&call["caller"], &call["callee"]),
        (&"alice".into(), &"bob".into()),
        "{call}"
    );
    assert_eq!(call["recordings"][0], recording["id"]);
    let length_ms = wav.left.len() as u64 / 8;
    assert!((7_000..9_500).contains(&length_ms), "{length_ms} ms");
}

#[test]
fn a_call_over_tcp_ended_by_the_callee() {
    if !sipp_is_possible("a_call_over_tcp_ended_by_the_callee") {
        return;
    }
    let port = free_port();
    let mut setup = Setup::to_port(port);
    setup.next += ";transport=tcp";
    let appliance = Appliance::start(&setup);
    let folder = appliance.folder();
    let (greeting, reply) = (folder.join("greeting.pcap"), folder.join("reply.pcap"));
    write(&greeting, &noise(8, 100, 21));
    write(&reply, &noise(8, 100, 22));

    let bob = callee(&reply).pause_ms(2600).bye_as_callee().expect(200);
    let bob = SippSetup {
        port,
        transport: Transport::Tcp,
        ..SippSetup::new("bob", bob)
    };
    let bob = Sipp::start(folder, bob, None, "bob");
    let alice = Scenario::caller("alice")
        .invite(&audio(8))
        .may_get(100)
        .may_get(180)
        .expect(200)
        .request("ACK")
        .play(&greeting)
        .expect_request("BYE")
        .respond_in_dialog("200 OK", "");
    let alice = SippSetup {
        transport: Transport::Tcp,
        ..SippSetup::new("alice", alice)
    };
    Sipp::start(folder, alice, Some(appliance.sip_port), "bob").finish();
    bob.finish();

    let recording = complete_recording(&appliance, [100, 100]);
    let wav = appliance.api.wav(&recording);
    assert_contains("the caller, left", &wav.left, &decode(&noise(8, 100, 21)));
    assert_contains("the callee, right", &wav.right, &decode(&noise(8, 100, 22)));
    let id = recording["call_id"].as_str().expect("a call");
    assert_eq!(
        appliance.api.get(&format!("/v1/calls/{id}"))["ended_by"],
        "callee"
    );
}

#[test]
fn two_baresips_hear_each_other_and_are_recorded() {
    if !baresip::possible() {
        return skip(
            "two_baresips_hear_each_other_and_are_recorded",
            "baresip is not installed",
        );
    }
    // Noise of values that the codec keeps exactly, so that it can be found again.
    let (mine, yours) = (decode(&noise(0, 600, 31)), decode(&noise(0, 600, 32)));
    let folder = tempfile::tempdir().expect("a folder");
    let mut bob = Baresip::start(folder.path(), "bob", "PCMU", &yours, None);
    let appliance = Appliance::start(&Setup::to_port(bob.port));
    let uri = format!("sip:bob@127.0.0.1:{}", appliance.sip_port);
    let mut alice = Baresip::start(folder.path(), "alice", "PCMU", &mine, Some(&uri));
    let call = appliance.api.wait_for_call("active");
    std::thread::sleep(Duration::from_secs(4));
    alice.quit();
    let recording = appliance.api.wait_for_recordings(1).remove(0);
    bob.quit();

    // From a moment after the answer, when both have come up, to a moment before the end.
    assert_contains("bob", &bob.heard(), &mine[4000..20_000]);
    assert_contains("alice", &alice.heard(), &yours[4000..20_000]);
    let wav = appliance.api.wav(&recording);
    assert_contains("alice, left", &wav.left, &mine[..24_000]);
    // Bob talks from his 200 on, a moment before ours to Alice; that moment is early media.
    assert_contains("bob, right", &wav.right, &yours[1600..24_000]);
    assert_eq!(recording["call_id"], call.as_str());
    check_receipt(&recording);
    assert_eq!(recording["verdict"], "complete", "{recording}");
    let call = appliance.api.get(&format!("/v1/calls/{call}"));
    assert_eq!(call["caller"], "alice", "{call}");
    assert_eq!(call["ended_by"], "caller", "{call}");
}
