//! `trunkline siprec dialect`: clients of two makers call, and are told with their deviations.

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use trunkline_tests::binaries::binary;
use trunkline_tests::ports::free_port;
use trunkline_tests::process::{Process, eventually};
use trunkline_tests::scenario::Scenario;
use trunkline_tests::sipp::{Sipp, SippSetup, Transport, wait_until_bound};
use trunkline_tests::siprec::{Stream, answered_ports, description};
use trunkline_tests::{installed, skip};

/// Has a client of two streams record to the command, and gives its report.
fn report(headers: &str, kind: &str, body: &dyn Fn(&str) -> String) -> Value {
    let program = binary("trunkline");
    let folder = tempfile::tempdir().expect("a folder");
    let (port, out) = (free_port(), folder.path().join("report"));
    let mut command = Command::new(program);
    command.args(["siprec", "dialect", "--json", "--listen"]);
    command.arg(format!("127.0.0.1:{port}"));
    command.stdout(std::fs::File::create(&out).expect("a file"));
    let mut process = Process::start("trunkline siprec dialect", &mut command);
    wait_until_bound(Transport::Udp, port);
    let streams = [Stream::new("1", 1), Stream::new("2", 2)];
    let sdp = description(1, &[&streams[0], &streams[1]], "sendonly");
    let scenario = Scenario::caller("src")
        .with_body("INVITE", headers, kind, &body(&sdp))
        .may_get(100)
        .expect(200)
        .request("ACK")
        .pause_ms(1800)
        .request("BYE")
        .expect(200);
    let setup = SippSetup::new("src", scenario);
    let sipp = Sipp::start(folder.path(), setup, Some(port), "srs");
    let ports = eventually("the answer", Duration::from_secs(10), || {
        answered_ports(&sipp)
    });
    for (stream, port) in streams.iter().zip(&ports) {
        stream.party.speak_to(*port);
    }
    let trace = sipp.finish_with_trace();
    for line in ["a=label:1", "a=label:2", "a=recvonly", "+sip.srs"] {
        assert!(trace.contains(line), "{line}: {trace}");
    }
    let sent = streams.map(|one| one.party.finish().said.len());
    let status = process.wait(Duration::from_secs(10));
    let text = std::fs::read_to_string(&out).expect("a report");
    assert_eq!(status.code(), Some(0), "{text}");
    let report: Value = serde_json::from_str(&text).expect("JSON");
    let heard = texts(&report, "media");
    for (text, sent) in heard.iter().zip(sent) {
        let count = text
            .split(": ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next());
        let count: usize = count.and_then(|count| count.parse().ok()).unwrap_or(0);
        assert!((20..=sent).contains(&count), "{sent} sent: {heard:?}");
        assert!(text.contains(" packets, 0 lost, 1 sources"), "{heard:?}");
    }
    assert_eq!(heard.len(), 2, "{heard:?}");
    report
}

/// The texts of all findings of a step.
fn texts(report: &Value, step: &str) -> Vec<String> {
    let steps = report["steps"].as_array().expect("steps");
    let of = steps.iter().filter(|one| one["step"] == step);
    of.map(|one| one["text"].as_str().unwrap_or_default().to_owned())
        .collect()
}

fn assert_told(report: &Value, step: &str, words: &str) {
    let found = texts(report, step);
    assert!(
        found.iter().any(|one| one.contains(words)),
        "{step}: {words}: {report:#}"
    );
}

#[test]
fn a_client_of_cisco_cube_is_known_by_its_third_part_and_missing_boundary() {
    if !installed("sipp") {
        return skip("a_client_of_cisco_cube", "needs sipp");
    }
    let body = |sdp: &str| {
        format!(
            "--b1\nContent-Disposition: session;handling=required\nContent-Type: application/sdp\n\n{sdp}\n\
             --b1\nContent-Disposition: recording-session\nContent-Type: application/rs-metadata+xml\n\n\
             <recording xmlns=\"urn:ietf:params:xml:ns:recording:1\"><datamode>complete</datamode>\
             <session session_id=\"cuEeQ0ntEeuAcJ0M8f0Ftw==\"/>\
             <participant participant_id=\"cuEeQ0ntEeuAcZ0M8f0Ftw==\"><nameID aor=\"sip:2000@10.0.0.1\"/></participant>\
             <stream stream_id=\"cuHIy0ntEeuAdJ0M8f0Ftw==\" session_id=\"cuEeQ0ntEeuAcJ0M8f0Ftw==\"><label>1</label></stream>\
             <participant participant_id=\"cuEeQ0ntEeuAcp0M8f0Ftw==\"><nameID aor=\"sip:1000@10.0.0.1\"/></participant>\
             <stream stream_id=\"cuHIy0ntEeuAdZ0M8f0Ftw==\" session_id=\"cuEeQ0ntEeuAcJ0M8f0Ftw==\"><label>2</label></stream>\
             <participantstreamassoc participant_id=\"cuEeQ0ntEeuAcZ0M8f0Ftw==\"><send>cuHIy0ntEeuAdJ0M8f0Ftw==</send></participantstreamassoc>\
             <participantstreamassoc participant_id=\"cuEeQ0ntEeuAcp0M8f0Ftw==\"><send>cuHIy0ntEeuAdZ0M8f0Ftw==</send></participantstreamassoc>\
             </recording>\n--b1\nContent-Type: application/gtd\n\nIAM,\n"
        )
    };
    let report = report(
        "Contact: <sip:src@[local_ip]:[local_port]>;+sip.src\nRequire: siprec\nUser-Agent: Cisco-SIPGateway/IOS-17.6.1a\n",
        "multipart/mixed;boundary=b1",
        &body,
    );
    assert_told(
        &report,
        "family",
        "Cisco CUBE, by its User-Agent; a part of GTD",
    );
    assert_told(&report, "sign", "option siprec and +sip.src");
    assert_told(&report, "body", "no closing boundary");
    assert_told(&report, "body", "a part of application/gtd");
    assert_told(&report, "metadata", "out of order");
    assert_told(
        &report,
        "binding",
        "line 1: sip:2000@10.0.0.1, who sends it",
    );
    assert_told(&report, "message", "BYE");
    assert_eq!(report["result"], "warn");
}

#[test]
fn a_client_of_broadworks_is_known_without_its_name() {
    if !installed("sipp") {
        return skip("a_client_of_broadworks", "needs sipp");
    }
    let body = |sdp: &str| {
        format!(
            "--b2\nContent-Type: application/rs-metadata+xml\nContent-Disposition: recording-session\n\n\
             <recording_metadata xmlns=\"urn:ietf:params:xml:ns:recording\"><dataMode>complete</dataMode>\
             <session id=\"urn:uuid:93f1b6a2-1111-4000-8000-000000000002\"/>\
             <participant id=\"urn:uuid:93f1b6a2-1111-4000-8000-000000000003\" session=\"urn:uuid:93f1b6a2-1111-4000-8000-000000000002\">\
             <nameID aor=\"sip:+1206@as\"/><send>urn:uuid:93f1b6a2-1111-4000-8000-000000000005</send></participant>\
             <participant id=\"urn:uuid:93f1b6a2-1111-4000-8000-000000000004\" session=\"urn:uuid:93f1b6a2-1111-4000-8000-000000000002\">\
             <nameID aor=\"tel:+1207\"/><send>urn:uuid:93f1b6a2-1111-4000-8000-000000000006</send></participant>\
             <stream id=\"urn:uuid:93f1b6a2-1111-4000-8000-000000000005\" session=\"urn:uuid:93f1b6a2-1111-4000-8000-000000000002\"><label>1</label></stream>\
             <stream id=\"urn:uuid:93f1b6a2-1111-4000-8000-000000000006\" session=\"urn:uuid:93f1b6a2-1111-4000-8000-000000000002\"><label>2</label></stream>\
             </recording_metadata>\n--b2\nContent-Type: application/SDP\n\n{sdp}\n--b2--\n"
        )
    };
    let report = report(
        "Contact: <sip:src@[local_ip]:[local_port]>;src\n",
        "multipart/mixed;boundary=b2",
        &body,
    );
    assert_told(
        &report,
        "family",
        "BroadWorks / Webex, by <recording_metadata>",
    );
    assert_told(&report, "sign", "src in Contact, for +sip.src");
    assert_told(&report, "require", "without siprec");
    assert_told(&report, "body", "metadata before the session description");
    assert_told(
        &report,
        "binding",
        "line 2: tel:+1207, by send within the participant",
    );
}

#[test]
fn nobody_who_calls_is_a_failure_that_is_said() {
    let program = binary("trunkline");
    let folder = tempfile::tempdir().expect("a folder");
    let (port, out) = (free_port(), folder.path().join("report"));
    let mut command = Command::new(program);
    command.args(["siprec", "dialect", "--listen"]);
    command.arg(format!("127.0.0.1:{port}"));
    command.stdout(std::fs::File::create(&out).expect("a file"));
    let mut process = Process::start("trunkline siprec dialect", &mut command);
    wait_until_bound(Transport::Udp, port);
    eventually("it says where it listens", Duration::from_secs(5), || {
        let text = std::fs::read_to_string(&out).unwrap_or_default();
        text.contains("waiting for a recording session")
            .then_some(())
    });
    process.signal(Signal::SIGINT);
    assert_eq!(process.wait(Duration::from_secs(10)).code(), Some(1));
    let text = std::fs::read_to_string(&out).expect("a report");
    assert!(text.contains("no INVITE came"), "{text}");
}
