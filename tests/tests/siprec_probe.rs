//! `trunkline siprec probe` against our own recorder, one that swaps labels, one that refuses, and nobody.

use std::process::{Command, Output};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use trunkline_tests::appliance::Setup;
use trunkline_tests::binaries::binary;
use trunkline_tests::party::Party;
use trunkline_tests::ports::free_port;
use trunkline_tests::process::Process;
use trunkline_tests::scenario::Scenario;
use trunkline_tests::sipp::{Sipp, SippSetup};
use trunkline_tests::{Appliance, installed, skip};

fn probe(arguments: &[&str]) -> (Option<i32>, Value) {
    let output = run(arguments);
    let text = String::from_utf8_lossy(&output.stdout);
    let report = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text} {:?}", output.stderr));
    (output.status.code(), report)
}

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(binary("trunkline"));
    command.args(["siprec", "probe", "--seconds", "1"]);
    command.args(arguments).output().expect("trunkline runs")
}

/// Result and text of a step.
fn step<'a>(report: &'a Value, name: &str) -> (&'a str, &'a str) {
    let steps = report["steps"].as_array().expect("steps");
    let found = steps.iter().find(|one| one["step"] == name);
    let found = found.unwrap_or_else(|| panic!("no step {name}: {report:#}"));
    let text = |field: &str| found[field].as_str().unwrap_or_default();
    (text("result"), text("text"))
}

fn recorder() -> Appliance {
    Appliance::start(&Setup {
        next: "record".to_owned(),
        record: "false",
        ..Setup::to_port(0)
    })
}

#[test]
fn our_own_recorder_passes_over_udp_and_tcp_with_each_tone_on_its_channel() {
    let appliance = recorder();
    let api = format!("http://{}", appliance.api.address());
    for transport in ["", ";transport=tcp"] {
        let uri = format!("sip:rec@127.0.0.1:{}{transport}", appliance.sip_port);
        let (code, report) = probe(&[&uri, "--json", "--api", &api]);
        assert_eq!(code, Some(0), "{report:#}");
        for name in [
            "reachable",
            "invite",
            "contact",
            "lines",
            "labels",
            "codecs",
            "direction",
            "ports",
            "pause",
            "resume",
            "metadata",
            "bye",
            "recording",
            "packets",
            "channels",
        ] {
            assert_eq!(step(&report, name).0, "pass", "{name}: {report:#}");
        }
        let id = step(&report, "recording")
            .1
            .split(':')
            .next()
            .unwrap_or_default();
        let recording = appliance.api.get(&format!("/v1/recordings/{id}"));
        let pauses = recording["pauses"].as_array().map(Vec::len);
        assert_eq!(pauses, Some(1), "the pause arrived: {recording}");
        let told = appliance.api.get(&format!("/v1/recordings/{id}/metadata"));
        assert!(told.to_string().contains("Renamed probe"), "{told}");
    }
}

/// Two lines with these labels in this order.
fn lines(parties: [&Party; 2], labels: [&str; 2], direction: &str) -> String {
    let line = |at: usize| {
        format!(
            "{}a=label:{}\na={direction}\n",
            parties[at].media(),
            labels[at]
        )
    };
    line(0) + &line(1)
}

#[test]
fn a_recorder_that_swaps_labels_is_told_from_a_good_one() {
    let test = "a_recorder_that_swaps_labels_is_told_from_a_good_one";
    if !installed("sipp") {
        return skip(test, "needs sipp");
    }
    // Built before anybody waits for it.
    let _ = binary("trunkline");
    let folder = tempfile::tempdir().expect("a folder");
    let parties = [Party::start(0, 1), Party::start(0, 2)];
    let media = |direction: &str| lines([&parties[0], &parties[1]], ["2", "1"], direction);
    let port = free_port();
    let scenario = Scenario::callee("rec")
        .expect_request("OPTIONS")
        .respond("200 OK", "")
        .expect_invite()
        .respond("200 OK", &media("recvonly"))
        .expect_request("ACK")
        .expect_body("INVITE", "a=inactive")
        .respond_in_dialog("200 OK", &media("inactive"))
        .expect_request("ACK")
        .expect_body("INVITE", "a=sendonly")
        .respond_in_dialog("200 OK", &media("recvonly"))
        .expect_request("ACK")
        .expect_body("UPDATE", "Renamed probe")
        .respond_in_dialog("200 OK", "")
        .expect_body("BYE", "stop-time")
        .respond_in_dialog("200 OK", "");
    let setup = SippSetup {
        port,
        ..SippSetup::new("rec", scenario)
    };
    let sipp = Sipp::start(folder.path(), setup, None, "rec");
    let uri = format!("sip:rec@127.0.0.1:{port}");
    let (code, report) = probe(&[&uri, "--json"]);
    assert_eq!(code, Some(1), "{report:#}");
    let (result, text) = step(&report, "labels");
    assert_eq!(result, "fail", "{report:#}");
    assert!(text.starts_with("swapped"), "{text}");
    assert_eq!(step(&report, "contact").0, "warn", "{report:#}");
    assert_eq!(step(&report, "lines").0, "pass", "{report:#}");
    assert_eq!(step(&report, "bye").0, "pass", "{report:#}");
    sipp.finish();
    for party in parties {
        let heard = party.finish().heard.len();
        assert!(heard > 50, "each line got its tone: {heard} packets");
    }
}

#[test]
fn refusals_dead_hosts_and_bad_addresses_are_clear() {
    let appliance = Appliance::start(&Setup {
        next: String::new(),
        ..Setup::to_port(0)
    });
    // There is no route at all.
    let uri = format!("sip:rec@127.0.0.1:{}", appliance.sip_port);
    let (code, report) = probe(&[&uri, "--json"]);
    assert_eq!(code, Some(1), "{report:#}");
    let (result, text) = step(&report, "invite");
    assert_eq!(result, "fail");
    assert!(text.contains("404") || text.contains("420"), "{text}");
    let nobody = format!("sip:127.0.0.1:{};transport=tcp", free_port());
    let (code, report) = probe(&[&nobody, "--json"]);
    assert_eq!(code, Some(1), "{report:#}");
    assert_eq!(step(&report, "reachable").0, "fail", "{report:#}");
    // By UDP silence is all there is to see.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let uri = format!("sip:{}", silent.local_addr().expect("an address"));
    let (code, report) = probe(&[&uri, "--json", "--timeout-ms", "300"]);
    assert_eq!(code, Some(1), "{report:#}");
    assert!(
        step(&report, "invite").1.contains("no final answer"),
        "{report:#}"
    );
    let (code, report) = probe(&["sip:no.such.host.invalid", "--json"]);
    assert_eq!(code, Some(1), "{report:#}");
    assert!(
        step(&report, "reachable")
            .1
            .contains("no.such.host.invalid"),
        "{report:#}"
    );
    for bad in ["srs", "http://srs", "sip:srs;transport=carrier-pigeon"] {
        let output = run(&[bad]);
        assert_eq!(output.status.code(), Some(2), "{bad}");
        assert!(!output.stderr.is_empty(), "{bad}");
    }
}

#[test]
fn an_interrupt_ends_the_session_with_bye_and_a_report() {
    let appliance = recorder();
    let folder = appliance.folder();
    let (out, uri) = (
        folder.join("probe"),
        format!("sip:rec@127.0.0.1:{}", appliance.sip_port),
    );
    let mut command = Command::new(binary("trunkline"));
    command.args(["siprec", "probe", "--seconds", "60", &uri]);
    command.stdout(std::fs::File::create(&out).expect("a file"));
    let mut process = Process::start("trunkline siprec probe", &mut command);
    trunkline_tests::process::eventually("a session stands", Duration::from_secs(10), || {
        let list = appliance.api.get("/v1/siprec");
        (list["items"][0]["state"] == "active").then_some(())
    });
    process.signal(Signal::SIGINT);
    let status = process.wait(Duration::from_secs(10));
    assert_eq!(status.code(), Some(1));
    let text = std::fs::read_to_string(&out).expect("a report");
    for word in ["FAIL  probe", "PASS  bye", "PASS  labels", "fail: "] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let recording = appliance.api.wait_for_recordings(1).remove(0);
    assert_eq!(recording["state"], "complete", "{recording}");
}
