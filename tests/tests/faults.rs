//! Processes that die, a disk that is full, and an orderly end.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use trunkline_tests::api::{check_receipt, number};
use trunkline_tests::appliance::Setup;
use trunkline_tests::binaries::binary;
use trunkline_tests::ports::free_port;
use trunkline_tests::process::{eventually, exists};
use trunkline_tests::rtpgen::{Rtpgen, assert_ok};
use trunkline_tests::sound::is_tone;
use trunkline_tests::{Appliance, classic, is_root, skip};

const TIMEOUT: Duration = Duration::from_secs(60);

fn call(appliance: &Appliance, port: u16, arguments: &[&str]) -> Rtpgen {
    Rtpgen::start(appliance.folder(), appliance.sip_port, port, arguments)
}

fn kill_control_in_mid_call(hangup: &str) {
    let port = free_port();
    let appliance = Appliance::start(&Setup::to_port(port));
    let run = call(
        &appliance,
        port,
        &["--calls", "3", "--duration", "8", "--hangup", hangup],
    );
    let id = appliance.api.wait_for_call("active");
    std::thread::sleep(Duration::from_secs(2));
    appliance.kill_child("trunkline-control");
    eventually("control is back", Duration::from_secs(5), || {
        appliance.is_healthy().then_some(())
    });
    eventually("the call is known again", Duration::from_secs(5), || {
        appliance
            .api
            .calls()
            .iter()
            .any(|call| call["id"] == id.as_str())
            .then_some(())
    });
    let report = run.finish(TIMEOUT);
    assert_ok(&report);
    assert_eq!(
        report["rtp"]["lost"], 0,
        "both go on hearing each other: {}",
        report["rtp"]
    );
    for recording in appliance.api.wait_for_recordings(3) {
        let expected = check_receipt(&recording);
        let call_id = recording["call_id"].as_str().expect("a call");
        let caller = appliance.api.get(&format!("/v1/calls/{call_id}"))["caller"].clone();
        let number_text = caller
            .as_str()
            .expect("a caller")
            .trim_start_matches("caller");
        let result = &report["results"][number_text.parse::<usize>().expect("a number")];
        let sent = ["caller", "callee"].map(|end| number(&result[end], "sent"));
        assert_eq!(expected, sent, "the recording is whole: {recording}");
        assert_eq!(recording["verdict"], "complete", "{recording}");
        let wav = appliance.api.wav(&recording);
        let tone = |end: &str| number(&result[end], "tone_hz") as f64;
        assert!(
            wav.left.len() > 8000 * 7 && wav.left.len() < 8000 * 10,
            "{}",
            wav.left.len()
        );
        assert!(is_tone(&wav.left[4000..56_000], 8000, tone("callee")));
        assert!(is_tone(&wav.right[4000..56_000], 8000, tone("caller")));
    }
    assert_eq!(appliance.api.metric("trunkline_calls_active", ""), 0.0);
}

#[test]
fn control_killed_in_mid_call_and_the_caller_hangs_up() {
    kill_control_in_mid_call("caller");
}

#[test]
fn control_killed_in_mid_call_and_the_callee_hangs_up() {
    kill_control_in_mid_call("callee");
}

#[test]
fn the_dataplane_killed_in_mid_call_is_back_on_the_same_ports() {
    let port = free_port();
    let appliance = Appliance::start(&Setup::to_port(port));
    let run = call(&appliance, port, &["--calls", "2", "--duration", "9"]);
    let _ = appliance.api.wait_for_call("active");
    std::thread::sleep(Duration::from_secs(3));
    // Packets of 20 ms that pass while the kernel takes the old process down, rings and programs with it.
    let dying = (appliance.kill_child("trunkline-dataplane").as_millis() / 20) as u64;
    let report = run.finish(TIMEOUT);
    for result in report["results"].as_array().expect("results") {
        assert_eq!(result["status"], 200, "{result}");
        for end in ["caller", "callee"] {
            let lost = number(&result[end], "lost");
            assert!(
                lost < 100 + dying,
                "back within about a second, but {lost} packets were lost, {dying} of them unavoidable"
            );
            assert!(number(&result[end], "tone_right") > 50, "{result}");
            assert_eq!(number(&result[end], "other_tone_hz"), 0, "{result}");
        }
    }
    for recording in appliance.api.wait_for_recordings(2) {
        check_receipt(&recording);
        assert_eq!(recording["verdict"], "partial", "{recording}");
        let wav = appliance.api.wav(&recording);
        let left = |from_ms: usize, to_ms: usize| &wav.left[from_ms * 8..to_ms * 8];
        let tone = |piece: &[i16]| (40..50).any(|n| is_tone(piece, 8000, f64::from(n) * 10.0));
        assert!(
            tone(left(500, 2000)),
            "what was captured before is readable"
        );
        assert!(tone(left(7000, 8500)), "and what came after");
        for (dir, side) in ["caller", "callee"].into_iter().enumerate() {
            let tally = &recording["receipt"][side];
            let (first, last, captured) = captured_numbers(&appliance, &recording, dir as u8);
            assert_eq!(
                tally["written"], captured,
                "what was captured was counted: {tally}"
            );
            assert_eq!(
                tally["expected"],
                last - first + 1,
                "nothing is missing unsaid: {tally}"
            );
            assert!(
                tally["dropped_by"]["restart"]
                    .as_u64()
                    .is_some_and(|count| count > 0),
                "what came meanwhile was dropped by us: {tally}"
            );
        }
    }
}

/// First and last sequence number of a side's audio in the classic SN3 of a recording, and how many
/// distinct ones it holds.
fn captured_numbers(appliance: &Appliance, recording: &Value, dir: u8) -> (u64, u64, u64) {
    let mut numbers = BTreeSet::<u64>::new();
    for frame in classic::frames(&appliance.api.sn3(recording)) {
        if frame.dir == dir {
            let low = u64::from(frame.sequence);
            // A call of seconds wraps once at most.
            let wraps = numbers
                .last()
                .is_some_and(|highest| highest % 65_536 > low + 32_768);
            let cycles = numbers.last().map_or(0, |highest| highest / 65_536) + u64::from(wraps);
            numbers.insert(cycles * 65_536 + low);
        }
    }
    let ends = numbers.first().zip(numbers.last()).expect("audio");
    (*ends.0, *ends.1, numbers.len() as u64)
}

#[test]
fn trunkline_up_killed_takes_its_children_along() {
    let appliance = Appliance::start(&Setup::to_port(free_port()));
    let children = [
        appliance.child("trunkline-control"),
        appliance.child("trunkline-dataplane"),
    ];
    appliance.signal(Signal::SIGKILL);
    eventually("the children are gone", Duration::from_secs(5), || {
        children.iter().all(|child| !exists(*child)).then_some(())
    });
}

#[test]
fn an_orderly_end_hangs_up_seals_and_exits_0() {
    let port = free_port();
    let setup = Setup {
        top: "drain_timeout_s = 2",
        ..Setup::to_port(port)
    };
    let mut appliance = Appliance::start(&setup);
    let run = call(&appliance, port, &["--calls", "2", "--duration", "30"]);
    let _ = appliance.api.wait_for_call("active");
    std::thread::sleep(Duration::from_secs(2));
    appliance.signal(Signal::SIGTERM);
    let begin = Instant::now();
    let late = Rtpgen::start(
        &appliance.folder().join("data"),
        appliance.sip_port,
        free_port(),
        &["--calls", "1", "--duration", "1", "--answer-timeout", "2"],
    );
    let late = late.finish(TIMEOUT);
    assert_eq!(late["results"][0]["status"], 503, "{late}");
    let report = run.finish(TIMEOUT);
    for result in report["results"].as_array().expect("results") {
        assert_eq!(result["ended_by"], "far end", "we hang up: {result}");
    }
    let status = appliance.wait(Duration::from_secs(20));
    assert_eq!(status.code(), Some(0), "{}", appliance.log());
    assert!(
        begin.elapsed() >= Duration::from_secs(2),
        "live calls have drain_timeout_s"
    );
    let segments = segments(appliance.data_dir());
    assert!(!segments.is_empty());
    for segment in segments {
        let output = Command::new(binary("sn3"))
            .arg("verify")
            .arg(&segment)
            .output();
        let output = output.expect("sn3 runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{}: {said}",
            segment.display()
        );
    }
}

/// The segment files of an appliance.
fn segments(data_dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(data_dir.join("segments")) else {
        return Vec::new();
    };
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"SN3S")))
        .collect()
}

/// A small disk, unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(folder: &Path, megabytes: u32) -> Option<Self> {
        let path = folder.join("disk");
        std::fs::create_dir(&path).ok()?;
        let size = format!("size={megabytes}m");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(&path)
            .status();
        status
            .is_ok_and(|status| status.success())
            .then_some(Self(path))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Still busy for a moment while the appliance's processes go.
        for _ in 0..40 {
            let done = Command::new("umount")
                .arg(&self.0)
                .stderr(Stdio::null())
                .status();
            if done.is_ok_and(|status| status.success()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
fn a_full_disk_in_mid_call_stops_neither_the_relay_nor_the_call() {
    let test = "a_full_disk_in_mid_call_stops_neither_the_relay_nor_the_call";
    let folder = tempfile::tempdir().expect("a folder");
    let disk = if is_root() {
        Disk::mount(folder.path(), 24)
    } else {
        None
    };
    let Some(disk) = disk else {
        return skip(test, "needs root, to mount a small tmpfs");
    };
    let port = free_port();
    let data_dir = disk.0.join("data");
    let appliance = Appliance::start(&Setup {
        data_dir: Some(data_dir),
        ..Setup::to_port(port)
    });
    // Enough of them to use up what the recorder has reserved beforehand.
    let run = call(
        &appliance,
        port,
        &["--calls", "20", "--rate", "20", "--duration", "12"],
    );
    let _ = appliance.api.wait_for_call("active");
    std::thread::sleep(Duration::from_secs(3));
    fill(&disk.0);
    let report = run.finish(TIMEOUT);
    assert_ok(&report);
    assert_eq!(
        report["rtp"]["lost"], 0,
        "the relay goes on: {}",
        report["rtp"]
    );
    for recording in appliance.api.wait_for_recordings(20) {
        check_receipt(&recording);
        assert_eq!(recording["verdict"], "partial", "{recording}");
        let dropped = |side: &str| recording["receipt"][side]["dropped_by"]["disk"].as_u64();
        assert!(dropped("caller").unwrap_or(0) > 0, "{recording}");
        let call_id = recording["call_id"].as_str().expect("a call");
        let ended: Value = appliance.api.get(&format!("/v1/calls/{call_id}"));
        assert_eq!(
            (&ended["state"], &ended["ended_by"]),
            (&"ended".into(), &"caller".into())
        );
    }
    assert!(
        appliance
            .api
            .metric("trunkline_capture_dropped_total", "disk")
            > 0.0,
        "the metric rises"
    );
    drop(appliance);
}

/// Takes all room that is left.
fn fill(disk: &Path) {
    let mut file = std::fs::File::create(disk.join("filler")).expect("a file");
    let block = vec![0_u8; 64 * 1024];
    while std::io::Write::write_all(&mut file, &block).is_ok() {}
}
