//! The benchmark harness in small: it measures everybody, keeps what it has when it is interrupted,
//! and leaves nothing behind. No number is judged: this machine is busy.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use trunkline_tests::binaries::binary;
use trunkline_tests::process::{Process, eventually};
use trunkline_tests::{installed, skip};

fn possible(test: &str, programs: &[&str]) -> bool {
    let missing = programs.iter().find(|program| !installed(program));
    if let Some(program) = missing {
        skip(test, &format!("needs {program}"));
    }
    missing.is_none()
}

/// Two calls, a few thousand packets a second.
fn start(folder: &Path, bench: &str, arguments: &[&str]) -> Process {
    let log = std::fs::File::create(folder.join("log")).expect("a log");
    let mut command = Command::new(binary("trunkline-bench"));
    command
        .arg(bench)
        .args([
            "--rounds", "1", "--calls", "2", "--many", "60", "--most", "70",
        ])
        .args(["--rate", "2000", "--search-to", "3000"])
        .args(arguments)
        .arg("--json")
        .arg(folder.join("results.json"))
        .arg("--record-to")
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    Process::start("trunkline-bench", &mut command)
}

fn log(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("log")).unwrap_or_default()
}

fn results(folder: &Path) -> Value {
    let text = std::fs::read_to_string(folder.join("results.json"))
        .unwrap_or_else(|error| panic!("no results: {error}\n{}", log(folder)));
    serde_json::from_str(&text).expect("JSON")
}

/// The median of a quantity, whatever the rig.
fn value(results: &Value, who: &str, quantity: &str) -> Option<f64> {
    let series = results["series"].as_array().expect("series");
    let found = series
        .iter()
        .find(|series| series["who"] == who && series["quantity"] == quantity)?;
    found["rounds"][0].as_f64()
}

fn assert_nothing_is_left(process: i32, folder: &Path) {
    let names = std::fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .flatten();
    let left: Vec<_> = names
        .map(|name| name.file_name().to_string_lossy().into_owned())
        .filter(|name| name.contains(&format!("-{process}-")))
        .collect();
    assert_eq!(left, Vec::<String>::new(), "namespaces are left");
    let files = std::fs::read_dir(folder).expect("the folder");
    let directories = files.flatten().filter(|entry| entry.path().is_dir());
    assert_eq!(
        directories.count(),
        0,
        "directories are left in {}",
        folder.display()
    );
}

#[test]
fn everybody_is_measured_and_nothing_is_left() {
    let test = "everybody_is_measured_and_nothing_is_left";
    if !possible(test, &["rtpengine", "ethtool", "ip", "setpriv"]) {
        return;
    }
    for (bench, all) in [
        ("relay", ["trunkline", "rtpengine", "bare loop"]),
        (
            "record",
            ["trunkline", "trunkline + SN3", "rtpengine + pcap"],
        ),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut process = start(folder.path(), bench, &["--window", "0.4"]);
        let status = process.wait(Duration::from_secs(240));
        assert!(status.success(), "{}", log(folder.path()));
        let results = results(folder.path());
        for who in all {
            for quantity in [
                "edge_packets_per_second",
                "cpu_us_per_packet",
                "latency_p99_ms",
            ] {
                let value = value(&results, who, quantity);
                assert!(
                    value.is_some(),
                    "{who} has no {quantity}:\n{}",
                    log(folder.path())
                );
            }
        }
        assert!(folder.path().join("results.png").is_file());
        assert!(
            !results["machine"]["kernel"]
                .as_str()
                .unwrap_or("")
                .is_empty()
        );
        assert_nothing_is_left(process.pid(), folder.path());
    }
}

#[test]
fn an_interrupted_run_keeps_what_it_has_and_cleans_up() {
    let test = "an_interrupted_run_keeps_what_it_has_and_cleans_up";
    if !possible(test, &["rtpengine", "ethtool", "ip", "setpriv"]) {
        return;
    }
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut process = start(folder.path(), "relay", &["--window", "300"]);
        eventually("a window begins", Duration::from_secs(60), || {
            log(folder.path()).contains("round 0").then_some(())
        });
        process.signal(signal);
        let status = process.wait(Duration::from_secs(60));
        assert!(status.success(), "{}", log(folder.path()));
        let notes = results(folder.path())["notes"].to_string();
        assert!(notes.contains("Interrupted"), "{notes}");
        assert_nothing_is_left(process.pid(), folder.path());
    }
}

#[test]
fn calls_are_set_up_through_both_systems() {
    let test = "calls_are_set_up_through_both_systems";
    if !possible(test, &["kamailio", "sipp", "ethtool", "ip", "setpriv"]) {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let small = ["--window", "1", "--calls-to", "30", "--standing", "20"];
    let mut process = start(folder.path(), "calls", &small);
    let status = process.wait(Duration::from_secs(240));
    assert!(status.success(), "{}", log(folder.path()));
    let results = results(folder.path());
    for who in ["trunkline", "kamailio"] {
        let rate = value(&results, who, "setups_per_second");
        assert!(rate > Some(0.0), "{who}: {rate:?}\n{}", log(folder.path()));
    }
    let memory = value(
        &results,
        "trunkline, many calls standing",
        "memory_kib_per_call",
    );
    assert!(memory.is_some(), "{}", log(folder.path()));
    let cpu = value(
        &results,
        "trunkline, many calls standing",
        "cpu_us_per_call",
    );
    assert!(cpu > Some(0.0), "{}", log(folder.path()));
    assert_nothing_is_left(process.pid(), folder.path());
}
