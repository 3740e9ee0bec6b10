//! The command itself: help, usage errors, reports.

use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::time::Duration;

use assert_cmd::cargo::cargo_bin;

fn rtpgen(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(cargo_bin!("rtpgen"))
        .args(arguments)
        .output()
        .expect("a run");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code().unwrap_or(-1),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn every_command_has_help_with_an_example() {
    for arguments in [
        &["--help"][..],
        &["calls", "--help"],
        &["stream", "--help"],
        &["sink", "--help"],
    ] {
        let (code, help, _) = rtpgen(arguments);
        assert_eq!(code, 0, "{arguments:?}");
        assert!(help.contains("xample"), "{help}");
    }
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for arguments in [
        &[][..],
        &["dance"],
        &["calls"],
        &["calls", "--to", "sip:a@127.0.0.1", "--calls", "0"],
        &["calls", "--to", "sip:a@127.0.0.1", "--rate", "-1"],
        &["calls", "--to", "sip:a@127.0.0.1", "--duration", "soon"],
        &["stream", "--to", "nowhere"],
        &["sink", "--listen", "127.0.0.1:1", "--flows", "0"],
    ] {
        let (code, _, error) = rtpgen(arguments);
        assert_eq!(code, 2, "{arguments:?}");
        assert!(!error.is_empty());
    }
}

#[test]
fn a_run_is_reported_as_json() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let listen = socket.local_addr().expect("an address").to_string();
    drop(socket);
    let to = format!("sip:x@{listen}");
    let (code, json, error) = rtpgen(&[
        "calls",
        "--to",
        &to,
        "--listen",
        &listen,
        "--calls",
        "2",
        "--duration",
        "1",
        "--json",
    ]);
    assert_eq!(code, 0, "{json}{error}");
    let report: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(report["ok"], 2);
    assert_eq!(report["rtp"]["lost"], 0);
    assert_eq!(report["results"].as_array().map(Vec::len), Some(2));
    assert!(
        report["setup_ms"]["p99"]
            .as_f64()
            .is_some_and(|value| value > 0.0)
    );
}

#[test]
fn an_interrupt_ends_the_calls_and_reports_all_the_same() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let listen = socket.local_addr().expect("an address").to_string();
    drop(socket);
    let to = format!("sip:x@{listen}");
    let child = Command::new(cargo_bin!("rtpgen"))
        .args(["calls", "--to", &to, "--listen", &listen, "--calls", "1000"])
        .args(["--rate", "4", "--duration", "600", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("a run");
    std::thread::sleep(Duration::from_secs(3));
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("a signal");
    let output = child.wait_with_output().expect("an end");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["interrupted"], true);
    assert_eq!(report["failed"], 0, "{report}");
    let placed = report["placed"].as_u64().unwrap_or_default();
    assert!((1..1000).contains(&placed), "{placed}");
    assert_eq!(
        report["teardown_ms"]["count"], placed,
        "each call was ended by BYE"
    );
    assert_eq!(output.status.code(), Some(0));
}
