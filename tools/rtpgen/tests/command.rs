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

/// Interrupts a run after a second; gives its report.
fn interrupted(arguments: &[&str]) -> serde_json::Value {
    let child = Command::new(cargo_bin!("rtpgen"))
        .args(arguments)
        .arg("--json")
        .stdout(Stdio::piped())
        .spawn()
        .expect("a run");
    std::thread::sleep(Duration::from_secs(1));
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("a signal");
    let output = child.wait_with_output().expect("an end");
    serde_json::from_slice(&output.stdout).expect("a report all the same")
}

#[test]
fn flows_to_a_dead_target_and_a_sink_end_by_interrupt_with_their_report() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let dead = socket.local_addr().expect("an address").to_string();
    drop(socket);
    let report = interrupted(&["stream", "--to", &dead, "--duration", "600"]);
    assert_eq!(report["interrupted"], true);
    let count = |name: &str| report[name].as_u64().unwrap_or_default();
    assert!(count("sent") + count("send_errors") > 0, "{report}");
    let report = interrupted(&["sink", "--listen", &dead]);
    assert_eq!(report["interrupted"], true);
    assert_eq!(report["received"], 0);
}

#[test]
fn a_full_socket_buffer_is_counted_and_reported() {
    // A loopback that lets 1 Mbit/s through, in a namespace that ends with the command.
    let slow = "ip link set lo up && tc qdisc add dev lo root tbf rate 1mbit burst 10kb limit 10mb";
    let allowed = Command::new("unshare")
        .args(["--net", "sh", "-c", slow])
        .output()
        .is_ok_and(|output| output.status.success());
    if !allowed {
        eprintln!("SKIPPED a_full_socket_buffer_is_counted_and_reported: needs root, ip and tc");
        return;
    }
    let program = cargo_bin!("rtpgen");
    let stream = "stream --to 127.0.0.1:40000 --one-source --rate 20000 --duration 2 --json";
    let output = Command::new("unshare")
        .args(["--net", "sh", "-c"])
        .arg(format!("{slow} && exec {} {stream}", program.display()))
        .output()
        .expect("a run");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let generator = &report["generator"];
    assert!(generator["full"].as_u64() > Some(0), "{report}");
    assert_eq!(generator["limited"], true, "{report}");
    assert!(report["sent"].as_u64() > Some(0), "{report}");
    // What found no room was offered again, never skipped in its flow's numbers.
    assert_eq!(report["send_errors"], 0, "{report}");
}
