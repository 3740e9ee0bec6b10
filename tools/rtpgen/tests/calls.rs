//! Calls from the calling end straight to the answering end, without anything between.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use trunkline_rtpgen::{CallsOptions, Hangup, Report, run_calls};

/// A port for SIP that is free for UDP and, in all likelihood, for TCP.
fn free_port() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.local_addr().expect("an address")
}

fn options(listen: SocketAddr, transport: &str) -> CallsOptions {
    CallsOptions {
        to: format!("sip:callee{{n}}@{listen}{transport}"),
        listen: Some(listen),
        calls: 4,
        rate: 20.0,
        duration: Duration::from_secs(2),
        ring: Duration::from_millis(100),
        hangup: Hangup::Alternate,
        rtcp: true,
        watch_interrupt: false,
        ..CallsOptions::default()
    }
}

fn assert_all_heard(report: &Report) {
    let text = report.to_text();
    assert!(report.is_ok(), "{text}");
    assert_eq!(
        (report.placed, report.answered, report.ok, report.failed),
        (4, 4, 4, 0),
        "{text}"
    );
    assert_eq!(report.rtp.lost, 0, "{text}");
    assert_eq!(report.rtp.wrong_ends, 0);
    assert_eq!(report.rtp.rtcp, 8, "one sender report from each end");
    assert_eq!((report.setup_ms.count, report.teardown_ms.count), (4, 4));
    assert!(report.latency_ms.count >= report.rtp.received * 9 / 10);
    for call in &report.results {
        let (caller, callee) = (call.caller.as_ref(), call.callee.as_ref());
        let (caller, callee) = caller.zip(callee).expect("both ends");
        assert!(caller.received > 50 && caller.received == callee.sent);
        assert!(callee.received > 50 && callee.received == caller.sent);
        assert!(caller.tone_hz != callee.tone_hz && caller.tone_right > 10);
        assert!(call.ringing_ms > 0.0 && call.setup_ms >= 100.0);
        assert_eq!(
            call.ended_by,
            if call.call % 2 == 1 {
                "callee"
            } else {
                "caller"
            }
        );
    }
}

#[test]
fn both_ends_hear_each_other_over_udp() {
    assert_all_heard(&run_calls(options(free_port(), "")).expect("a run"));
}

#[test]
fn both_ends_hear_each_other_over_tcp() {
    assert_all_heard(&run_calls(options(free_port(), ";transport=tcp")).expect("a run"));
}

#[test]
fn calls_to_nobody_fail_and_are_reported() {
    let nobody = free_port();
    let report = run_calls(CallsOptions {
        to: format!("sip:x@{nobody}"),
        calls: 2,
        answer_timeout: Duration::from_millis(500),
        watch_interrupt: false,
        ..CallsOptions::default()
    });
    // The INVITEs are cancelled, and given up when nothing ever comes back.
    let report = report.expect("a run");
    assert_eq!((report.placed, report.answered, report.failed), (2, 0, 2));
    assert!(!report.is_ok());
    assert!(
        report
            .results
            .iter()
            .all(|call| !call.failure.is_empty() && call.status == 0)
    );
}

#[test]
fn options_that_make_no_sense_are_errors() {
    for (to, rate) in [
        ("http://x", 1.0),
        ("sip:a@example.com", 1.0),
        ("sip:a@127.0.0.1", 0.0),
    ] {
        let options = CallsOptions {
            to: to.to_owned(),
            rate,
            ..CallsOptions::default()
        };
        assert!(run_calls(options).is_err(), "{to}");
    }
}
