//! Parties who do not understand `a=record` hear a tone: it is in what they get, in no recording of what
//! was said, and the receipt counts it.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::Value;
use trunkline_tests::api::{check_receipt, items, number};
use trunkline_tests::appliance::Setup;
use trunkline_tests::binaries::binary;
use trunkline_tests::party::{Heard, Party};
use trunkline_tests::ports::free_port;
use trunkline_tests::process::eventually;
use trunkline_tests::scenario::Scenario;
use trunkline_tests::sipp::{Sipp, SippSetup};
use trunkline_tests::sound::{assert_contains, decode, is_tone};
use trunkline_tests::{Appliance, installed, skip};

const RECORD: &str = "true\nindication = \"tone\"\ntone = { hz = 1400, ms = 400, every_s = 2 }";

/// Who speaks and listens beside a SIPp that calls or is called.
struct Talk {
    appliance: Appliance,
    parties: [Party; 2],
    peers: [Sipp; 2],
}

/// An answered call in which both speak.
fn talk() -> Talk {
    let bob_port = free_port();
    let appliance = Appliance::start(&Setup {
        record: RECORD,
        ..Setup::to_port(bob_port)
    });
    let parties = [Party::start(1_500, 1), Party::start(1_500, 2)];
    let answering = Scenario::callee("bob")
        .expect_invite()
        .respond("200 OK", &parties[1].media())
        .expect_request("ACK")
        .expect_request("BYE")
        .respond_in_dialog("200 OK", "");
    let calling = Scenario::caller("alice")
        .invite(&parties[0].media())
        .may_get(100)
        .may_get(180)
        .expect(200)
        .request("ACK")
        .expect_request("BYE")
        .respond_in_dialog("200 OK", "");
    let folder = appliance.folder();
    let called = SippSetup {
        port: bob_port,
        ..SippSetup::new("bob", answering)
    };
    let called = Sipp::start(folder, called, None, "bob");
    let target = Some(appliance.sip_port);
    let calling = Sipp::start(folder, SippSetup::new("alice", calling), target, "bob");
    let peers = [calling, called];
    for (party, peer) in parties.iter().zip(&peers) {
        party.speak_to(party.port_for(peer));
    }
    Talk {
        appliance,
        parties,
        peers,
    }
}

fn indications(recording: &Value) -> Vec<Value> {
    let told = recording["receipt"]["indications"].as_array();
    told.cloned().unwrap_or_default()
}

#[test]
fn both_parties_hear_the_tone_and_their_speech_is_recorded_without_it() {
    if !installed("sipp") {
        return skip("indication", "needs sipp");
    }
    let Talk {
        appliance,
        parties,
        peers,
    } = talk();
    let call = appliance.api.wait_for_call("active");
    eventually("both hear the tone twice", Duration::from_secs(30), || {
        let recordings = items(&appliance.api.get("/v1/recordings"));
        let told = recordings.first().map(indications).unwrap_or_default();
        let twice = |one: &Value| one["times"].as_u64() >= Some(2);
        (told.len() == 2 && told.iter().all(twice)).then_some(())
    });
    assert_eq!(appliance.api.delete(&format!("/v1/calls/{call}")), 202);
    let [alice, bob] = parties.map(Party::finish);
    for peer in peers {
        peer.finish();
    }
    let recording = appliance.api.wait_for_recordings(1).remove(0);
    let told = indications(&recording);
    assert_eq!(told.len(), 2, "{told:?}");
    for (heard, by, side) in [(&alice, &bob, "caller"), (&bob, &alice, "callee")] {
        let proof = told.iter().find(|one| one["side"] == side).expect(side);
        assert_eq!(
            (&proof["kind"], &proof["value"]),
            (&"tone".into(), &"1400 Hz".into())
        );
        let tones = tones_of(heard, by);
        assert_eq!(
            tones.iter().sum::<usize>() as u64,
            number(proof, "frames"),
            "{side}"
        );
        assert_eq!(
            tones.len() as u64,
            number(proof, "times"),
            "{side}: {tones:?}"
        );
    }
    check_receipt(&recording);
    // What each said is there, whole, where the other heard a tone in its place.
    let wav = appliance.api.wav(&recording);
    for (side, party, track) in [("caller", &alice, &wav.left), ("callee", &bob, &wav.right)] {
        let receipt = &recording["receipt"][side];
        assert_eq!(
            (number(receipt, "lost"), number(receipt, "dropped")),
            (0, 0),
            "{receipt}"
        );
        let written = usize::try_from(number(receipt, "written")).expect("a count");
        let said = decode(&party.said[20..written - 20]);
        assert_contains(side, track, &said);
    }
    let file = appliance.folder().join("call.sn3");
    std::fs::write(&file, appliance.api.sn3(&recording)).expect("a file");
    assert_listed(&file, &told);
}

/// How many packets each tone took that a party heard. Whatever else it heard was said by the other one,
/// and all of it is one stream.
fn tones_of(party: &Heard, other: &Heard) -> Vec<usize> {
    let said: HashSet<&[u8]> = other
        .said
        .iter()
        .map(|one| one.payload.as_slice())
        .collect();
    let mut tones: Vec<usize> = Vec::new();
    let (mut before, mut whole) = (false, 0);
    for packet in &party.heard {
        let tone = !said.contains(packet.payload.as_slice());
        if tone {
            match tones.last_mut() {
                Some(frames) if before => *frames += 1,
                _ => tones.push(1),
            }
        }
        before = tone;
        // Where speech began within the tone, its last packet is of both.
        let samples = decode(std::slice::from_ref(packet));
        whole += usize::from(is_tone(&samples, 8_000, 1_400.0));
    }
    let frames: usize = tones.iter().sum();
    assert!(
        whole <= frames && frames <= whole + tones.len(),
        "{whole} {tones:?}"
    );
    for pair in party.heard.windows(2) {
        assert_eq!(pair[1].ssrc, pair[0].ssrc);
        assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1));
        let step = pair[1].timestamp.wrapping_sub(pair[0].timestamp);
        assert!((160..80_000).contains(&step), "{step}");
    }
    tones
}

/// `sn3 info` tells what was played apart from what was said.
fn assert_listed(file: &std::path::Path, told: &[Value]) {
    let output = std::process::Command::new(binary("sn3"))
        .args(["info", "--json"])
        .arg(file)
        .output()
        .expect("sn3");
    assert!(output.status.success(), "{output:?}");
    let info: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let played = info["played"].as_array().expect("a list");
    for proof in told {
        let mut runs = played.iter().filter(|one| one["to"] == proof["side"]);
        let packets = runs.clone().map(|one| number(one, "packets")).sum::<u64>();
        assert_eq!(packets, number(proof, "frames"), "{info}");
        assert!(runs.all(|one| one["codec"] == "PCMA"), "{info}");
    }
    for stream in info["streams"].as_array().expect("a list") {
        assert_eq!(
            (number(stream, "lost"), number(stream, "reordered")),
            (0, 0),
            "{info}"
        );
    }
}
