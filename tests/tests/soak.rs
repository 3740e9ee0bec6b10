//! Processes killed at random moments under load. The short form is part of `cargo xtask ci`;
//! `cargo xtask soak` makes it two hundred kills (`SOAK_KILLS`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use trunkline_tests::Appliance;
use trunkline_tests::api::{check_receipt, items, number};
use trunkline_tests::appliance::Setup;
use trunkline_tests::binaries::binary;
use trunkline_tests::flood::Random;
use trunkline_tests::ports::free_port;
use trunkline_tests::process::{children, eventually, send_signal};
use trunkline_tests::rtpgen::Rtpgen;

const PATIENCE: Duration = Duration::from_secs(60);
/// Calls beside each few kills.
const CALLS: usize = 4;
const CALL_S: u64 = 5;
const PROCESSES: [&str; 2] = ["trunkline-dataplane", "trunkline-control"];

fn setting(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().expect("a number"))
}

/// Kills a process of the appliance and waits until the appliance takes calls again.
fn kill(appliance: &Appliance, program: &str) {
    let pid = eventually(&format!("{program} runs"), PATIENCE, || {
        children(appliance.pid(), program).first().copied()
    });
    send_signal(pid, Signal::SIGKILL);
    eventually(&format!("another {program} runs"), PATIENCE, || {
        children(appliance.pid(), program)
            .into_iter()
            .find(|other| *other != pid)
    });
    eventually("the appliance is healthy", PATIENCE, || {
        appliance.is_healthy().then_some(())
    });
}

/// All recordings of an appliance, once none changes any more.
fn settled(appliance: &Appliance) -> Vec<Value> {
    let ended = |recording: &Value| {
        ["complete", "partial", "failed"]
            .iter()
            .any(|state| recording["state"] == **state)
    };
    eventually("all calls and recordings have ended", 2 * PATIENCE, || {
        if !appliance.api.calls().is_empty() {
            return None;
        }
        let mut all = Vec::new();
        let mut after = String::new();
        loop {
            let page = appliance
                .api
                .get(&format!("/v1/recordings?limit=1000{after}"));
            all.extend(items(&page));
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => break,
            }
        }
        all.iter().all(ended).then_some(all)
    })
}

/// Distinct packets of a side in a call's classic SN3.
fn captured(blob: &[u8], dir: u8) -> u64 {
    assert_eq!(&blob[..3], b"SN3");
    let mut numbers = BTreeSet::new();
    let mut rest = &blob[3..];
    while rest.len() >= 17 {
        let length = usize::from(u16::from_le_bytes([rest[15], rest[16]]));
        if rest[0] == dir {
            numbers.insert(u16::from_le_bytes([rest[1], rest[2]]));
        }
        rest = &rest[17 + length..];
    }
    numbers.len() as u64
}

/// Every receipt adds up, and what it says was written can be read: that and
/// no more.
fn check(appliance: &Appliance, recordings: &[Value]) -> BTreeMap<String, Vec<i16>> {
    let mut calls = BTreeSet::new();
    let mut sound = BTreeMap::new();
    for recording in recordings {
        let id = recording["id"].as_str().expect("an id").to_owned();
        let call = recording["call_id"].as_str().expect("a call").to_owned();
        assert!(calls.insert(call), "a call has two recordings: {recording}");
        check_receipt(recording);
        if recording["state"] == "failed" {
            continue;
        }
        let blob = appliance.api.sn3(recording);
        for (dir, side) in [(0, "caller"), (1, "callee")] {
            let tally = &recording["receipt"][side];
            let readable = captured(&blob, dir);
            let written = number(tally, "written");
            assert!(
                written == readable,
                "{id}, {side}: {readable} can be read: {recording}"
            );
        }
        let wav = appliance.api.wav(recording);
        let both = wav.left.into_iter().chain(wav.right).collect();
        assert!(
            sound.insert(id, both).is_none(),
            "listed twice: {recording}"
        );
    }
    sound
}

/// Every finished segment is whole.
fn verify(data_dir: &Path) {
    let segments = std::fs::read_dir(data_dir.join("segments")).expect("segments");
    for entry in segments.flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "sn3s") {
            continue;
        }
        let output = Command::new(binary("sn3"))
            .arg("verify")
            .arg(&path)
            .output();
        let output = output.expect("sn3 runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{}: {said}", path.display());
    }
}

fn soak(writer: &str, kills: u64, seed: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    let recording = format!("[recording]\nwriter = \"{writer}\"\nsegment_bytes = 1048576\n");
    let port = free_port();
    let setup = Setup {
        top: Box::leak(recording.into_boxed_str()),
        data_dir: Some(data_dir.clone()),
        ..Setup::to_port(port)
    };
    let mut appliance = Appliance::start(&setup);
    let mut random = Random::new(seed);
    let mut done = 0;
    while done < kills {
        let calls = CALLS.to_string();
        let seconds = CALL_S.to_string();
        let arguments = ["--calls", &calls, "--rate", "4", "--duration", &seconds];
        let run = Rtpgen::start(appliance.folder(), appliance.sip_port, port, &arguments);
        for _ in 0..2.min(kills - done) {
            std::thread::sleep(Duration::from_millis(300 + random.below(2_500) as u64));
            let program = PROCESSES[random.below(2)];
            kill(&appliance, program);
            done += 1;
        }
        // Calls that were being set up or ended at the wrong moment may have failed.
        let _ = run.finish(2 * PATIENCE);
    }
    let recordings = settled(&appliance);
    assert!(
        recordings.len() as u64 >= kills.div_ceil(2),
        "{} recordings of {} runs",
        recordings.len(),
        kills.div_ceil(2)
    );
    let sound = check(&appliance, &recordings);
    assert!(!sound.is_empty());

    appliance.signal(Signal::SIGTERM);
    let status = appliance.wait(PATIENCE);
    assert_eq!(status.code(), Some(0), "{}", appliance.log());
    drop(appliance);
    verify(&data_dir);
    let catalogs = std::fs::read_dir(&data_dir).expect("data").flatten();
    let catalogs = catalogs.filter(|entry| {
        let name = entry.file_name();
        name.to_string_lossy().starts_with("catalog.")
    });
    for (index, catalog) in catalogs.enumerate() {
        if seed.is_multiple_of(2) || index > 0 {
            std::fs::remove_file(catalog.path()).expect("removed");
        } else {
            std::fs::write(catalog.path(), vec![0x55; 100_000]).expect("damaged");
        }
    }
    let again = Appliance::start(&setup);
    let ids = |list: &[Value]| -> BTreeSet<String> {
        let id = |one: &Value| one["id"].as_str().map(str::to_owned);
        list.iter().filter_map(id).collect()
    };
    let rebuilt = settled(&again);
    let heard: BTreeSet<&String> = sound.keys().collect();
    let known = ids(&rebuilt);
    assert!(
        heard.iter().all(|id| known.contains(*id)),
        "every recording with sound is known again"
    );
    for recording in &rebuilt {
        let id = recording["id"].as_str().expect("an id");
        if let Some(before) = sound.get(id) {
            let wav = again.api.wav(recording);
            let now: Vec<i16> = wav.left.into_iter().chain(wav.right).collect();
            assert!(now == *before, "{id} sounds as before: {recording}");
        }
    }
}

#[test]
fn either_process_is_killed_under_load_and_every_receipt_is_true() {
    soak("extent", setting("SOAK_KILLS", 4), setting("SOAK_SEED", 1));
}

#[test]
fn the_same_with_the_mapping_writer() {
    soak("mmap", setting("SOAK_KILLS", 4), setting("SOAK_SEED", 2));
}
