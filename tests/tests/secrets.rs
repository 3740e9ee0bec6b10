//! What must not be kept is looked for everywhere: keys that are masked, and what was said in a pause.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use trunkline_tests::appliance::Setup;
use trunkline_tests::party::{Heard, Party};
use trunkline_tests::pcap::{RtpPacket, noise};
use trunkline_tests::ports::free_port;
use trunkline_tests::process::eventually;
use trunkline_tests::scenario::Scenario;
use trunkline_tests::sipp::{Sipp, SippSetup};
use trunkline_tests::sound::{decode, find};
use trunkline_tests::{Appliance, installed, skip};

/// Masked keys, events to a pipe, the sound of the call to a socket, everything made of a recording.
const TOP: &str = r#"
[recording]
dtmf = "mask"

[[sink]]
kind = "directory"
path = "out"
formats = ["sn3", "wav", "evidence", "json"]

[[sink]]
kind = "pcm"
socket = "asr.sock"
"#;
const KEYS: [u8; 4] = [4, 7, 1, 9];
/// By which a key's packet is known: what follows the key in it.
const TAIL: [u8; 3] = [0x8a, 0x5d, 0xd1];
/// Of a packet said in the pause, so many bytes are looked for.
const PROBE: usize = 24;

/// Noise with a key now and then among it, three packets each.
fn script() -> Vec<RtpPacket> {
    let mut said = noise(8, 900, 11);
    for (index, key) in KEYS.iter().enumerate() {
        for packet in &mut said[40 + 10 * index..43 + 10 * index] {
            packet.payload_type = 101;
            packet.payload = [&[*key][..], &TAIL].concat();
        }
    }
    said
}

fn media(party: &Party) -> String {
    let port = party.port;
    format!(
        "m=audio {port} RTP/AVP 8 101\na=rtpmap:8 PCMA/8000\na=rtpmap:101 telephone-event/8000\n\
         a=fmtp:101 0-15\na=ptime:20\n"
    )
}

/// Keeps what comes over a stream until it ends.
fn keep(mut stream: impl Read + Send + 'static, kept: Arc<Mutex<Vec<u8>>>) {
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            kept.lock().expect("free").extend(&buffer[..length]);
        }
    });
}

/// Everything that a path says, byte for byte.
fn files(folder: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path: PathBuf = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, found);
        } else if path.is_file() {
            let bytes = std::fs::read(&path).expect("a file");
            found.push((path.display().to_string(), bytes));
        }
    }
}

fn holds(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

struct Call {
    appliance: Appliance,
    alice: Heard,
    bob: Heard,
    /// Numbers of alice's packets that were said in the pause.
    paused: std::ops::Range<usize>,
    /// What passed by: events, and the sound of each channel.
    passed: Vec<(String, Vec<u8>)>,
}

/// A call with keys, by packets and by INFO, and a pause.
fn call() -> Call {
    let port = free_port();
    let appliance = Appliance::start(&Setup {
        top: TOP,
        ..Setup::to_port(port)
    });
    let folder = appliance.folder();
    let recogniser = UnixListener::bind(folder.join("asr.sock")).expect("a socket");
    let (alice, bob) = (Party::saying(script()), Party::start(900, 12));
    let answering = Scenario::callee("bob")
        .expect_invite()
        .respond("200 OK", &media(&bob))
        .expect_request("ACK")
        .expect_request("INFO")
        .respond_in_dialog("200 OK", "")
        .expect_request("BYE")
        .respond_in_dialog("200 OK", "");
    let calling = Scenario::caller("alice")
        .invite(&media(&alice))
        .may_get(100)
        .may_get(180)
        .expect(200)
        .request("ACK")
        .pause_ms(500)
        .press('6')
        .expect(200)
        .pause_ms(6000)
        .request("BYE")
        .expect(200);
    let events = Arc::new(Mutex::new(Vec::new()));
    let address = appliance.api.address();
    let mut stream = TcpStream::connect(&address).expect("the API");
    let request = format!("GET /v1/events HTTP/1.1\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("asked");
    keep(stream, Arc::clone(&events));
    let at = |name, scenario, port| SippSetup {
        port,
        ..SippSetup::new(name, scenario)
    };
    let second = Sipp::start(folder, at("bob", answering, port), None, "bob");
    let first = Sipp::start(
        folder,
        at("alice", calling, 0),
        Some(appliance.sip_port),
        "bob",
    );
    let channels: [Arc<Mutex<Vec<u8>>>; 2] = Default::default();
    alice.speak_to(alice.port_for(&first));
    bob.speak_to(bob.port_for(&second));
    for channel in &channels {
        let (stream, _) = recogniser.accept().expect("a channel");
        keep(stream, Arc::clone(channel));
    }
    let said = |count| {
        eventually("alice speaks on", Duration::from_secs(10), || {
            (alice.said_so_far() >= count).then_some(())
        });
    };
    said(120);
    let id = appliance.api.wait_for_call("active");
    let _ = appliance.api.record(&id, "pause");
    // One may have been on its way.
    let from = alice.said_so_far() + 1;
    said(from + 50);
    let paused = from..alice.said_so_far();
    let _ = appliance.api.record(&id, "resume");
    first.finish();
    second.finish();
    let (alice, bob) = (alice.finish(), bob.finish());
    let _ = appliance.api.wait_for_recordings(1);
    let named =
        |name: &str, bytes: &Mutex<Vec<u8>>| (name.to_owned(), bytes.lock().expect("free").clone());
    let passed = vec![
        named("events", &events),
        named("live sound 0", &channels[0]),
        named("live sound 1", &channels[1]),
    ];
    Call {
        appliance,
        alice,
        bob,
        paused,
        passed,
    }
}

#[test]
fn masked_keys_and_paused_sound_are_nowhere() {
    if !installed("sipp") {
        return skip("masked_keys_and_paused_sound_are_nowhere", "needs sipp");
    }
    let call = call();
    let Call { appliance, .. } = &call;
    let secret = &call.alice.said[call.paused.clone()];
    let reached = |packet: &RtpPacket| {
        call.bob
            .heard
            .iter()
            .any(|one| one.payload == packet.payload)
    };
    assert!(
        secret.len() >= 45 && secret.iter().all(reached),
        "the relay goes on"
    );
    let key = |key: u8| [&[key][..], &TAIL].concat();
    for one in KEYS {
        assert!(
            call.bob
                .heard
                .iter()
                .any(|packet| packet.payload == key(one))
        );
    }

    let recording = appliance.api.wait_for_recordings(1).remove(0);
    let id = recording["id"].as_str().expect("an id");
    let call_id = recording["call_id"].as_str().expect("a call");
    let out = appliance.folder().join("out");
    eventually(
        "the directory sink is done",
        Duration::from_secs(20),
        || {
            let days = std::fs::read_dir(&out).ok()?;
            let mut days = days.filter_map(|day| Some(day.ok()?.path()));
            days.find(|day| day.join(format!("{id}.json")).is_file())
        },
    );
    let mut places = call.passed.clone();
    files(appliance.data_dir(), &mut places);
    files(&out, &mut places);
    places.push(("log".to_owned(), appliance.log().into_bytes()));
    for path in [
        format!("/v1/recordings/{id}"),
        format!("/v1/recordings/{id}/sn3"),
        format!("/v1/recordings/{id}/wav"),
        format!("/v1/recordings/{id}/evidence?key=include"),
        format!("/v1/recordings/{id}/receipt"),
        format!("/v1/calls/{call_id}"),
        format!("/v1/calls/{call_id}/explain"),
        format!("/v1/calls/{call_id}/pcapng"),
        "/v1/cdrs".to_owned(),
        "/v1/deliveries".to_owned(),
        "/metrics".to_owned(),
    ] {
        let (status, body) = appliance.api.try_get(&path).expect("an answer");
        assert_eq!(status, 200, "{path}");
        places.push((path, body));
    }
    let names: Vec<&str> = places.iter().map(|(name, _)| name.as_str()).collect();
    let sources = [
        "/segments/",
        "catalog.sqlite",
        "cdr.jsonl",
        ".evidence.tar",
        "live sound 1",
    ];
    for wanted in sources {
        assert!(names.iter().any(|name| name.contains(wanted)), "{names:#?}");
    }

    let probes: Vec<&[u8]> = secret
        .iter()
        .map(|packet| &packet.payload[..PROBE])
        .collect();
    for (name, bytes) in &places {
        for key_pressed in KEYS {
            assert!(
                !holds(bytes, &key(key_pressed)),
                "key {key_pressed} is in {name}"
            );
        }
        assert!(
            !holds(bytes, b"Signal=6"),
            "the key of the INFO is in {name}"
        );
        // Every packet's first bytes are like no other's: one look for all of them.
        let found = bytes.windows(PROBE).find(|window| probes.contains(window));
        assert!(found.is_none(), "what was said in the pause is in {name}");
    }
    // What was looked for would have been found: so are the packets before the pause, and that keys
    // were pressed.
    let before = &call.alice.said[100].payload;
    let segment = places
        .iter()
        .find(|(name, bytes)| name.contains("/segments/") && holds(bytes, before));
    let (_, segment) = segment.expect("what was said before the pause");
    assert!(holds(segment, &key(255)), "that a key was pressed");
    let events = String::from_utf8_lossy(&call.passed[0].1);
    assert!(events.contains("\"digit\":\"x\""), "{events}");

    // Nor is it heard.
    let heard = decode(&secret[10..13]);
    let wav = appliance.api.wav(&recording);
    assert!(find(&wav.left, &heard).is_none() && find(&wav.right, &heard).is_none());
    assert!(find(&wav.left, &decode(&call.alice.said[100..103])).is_some());
    for (name, bytes) in &call.passed[1..] {
        let start = bytes
            .iter()
            .position(|byte| *byte == b'\n')
            .expect("a start")
            + 1;
        let pairs = bytes[start..].chunks_exact(2);
        let samples: Vec<i16> = pairs
            .map(|pair| i16::from_le_bytes([pair[0], pair[1]]))
            .collect();
        assert!(samples.len() > 8000, "{name}: {} samples", samples.len());
        assert!(find(&samples, &heard).is_none(), "{name}");
    }
}
