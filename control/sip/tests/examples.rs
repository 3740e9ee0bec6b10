//! The example programs at work on loopback: with each other, and with SIPp.

#![allow(clippy::duplicate_mod)]

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use trunkline_sip::agent::{Body, EventKind, Invite};
use trunkline_sip::message::{NameAddr, Response};

#[allow(dead_code)]
#[path = "../examples/b2bua.rs"]
mod b2bua;
#[allow(dead_code)]
#[path = "../examples/uas.rs"]
mod uas;

use uas::common::UdpAgent;

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// Calls, stays until the other side hangs up; gives the statuses seen and the answer.
fn talk(next: SocketAddr, extra: &[(&str, &str)]) -> (Vec<u16>, Response) {
    let mut io: UdpAgent<()> = UdpAgent::bind(loopback(), "alice").unwrap();
    let uri = format!("sip:bob@{next}").parse().unwrap();
    let from = format!("\"Alice\" <sip:alice@{}>", io.local().ip());
    let mut invite = Invite::new(
        uri,
        NameAddr::parse(&from, "From").unwrap(),
        io.target(next),
    );
    invite.body = Some(Body::sdp(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
         m=audio 4000 RTP/AVP 8 0\r\nm=video 4002 RTP/AVP 34\r\n",
    ));
    for (name, value) in extra {
        invite.headers.append(name, value);
    }
    io.agent.call(Instant::now(), invite, ()).unwrap();
    let (mut statuses, mut answer) = (Vec::new(), None);
    let end = Instant::now() + Duration::from_secs(60);
    while Instant::now() < end {
        let Some(event) = io.next_event(Duration::from_secs(1)).unwrap() else {
            continue;
        };
        match event.kind {
            EventKind::Progress { response, .. } => statuses.push(response.status),
            EventKind::Answered { response, .. } => {
                statuses.push(response.status);
                answer = Some(response);
            }
            EventKind::Ended(_) => {
                io.flush();
                return (statuses, answer.expect("an answer before the end"));
            }
            EventKind::Failed { status, .. } => panic!("failed with {status}"),
            _ => {}
        }
    }
    panic!("the call does not end: {statuses:?}");
}

fn options(calls: usize) -> uas::Options {
    let (ring, talk) = (Duration::from_millis(50), Duration::from_millis(100));
    uas::Options { ring, talk, calls }
}

#[test]
fn the_uas_answers_and_hangs_up() {
    let mut agent = UdpAgent::bind(loopback(), "uas").unwrap();
    let next = agent.local();
    let agent = thread::spawn(move || uas::run(&mut agent, &options(1)).unwrap());
    let (statuses, answer) = talk(next, &[]);
    assert_eq!(statuses, [180, 200]);
    assert!(answer.headers.contains("Session-Expires"));
    let sdp = String::from_utf8(answer.body).unwrap();
    assert!(
        sdp.contains("m=audio 9 RTP/AVP 8 0") && sdp.contains("m=video 0 RTP/AVP 34"),
        "{sdp}"
    );
    assert_eq!(agent.join().unwrap(), 1);
}

#[test]
fn the_b2bua_passes_a_call_on_under_its_own_identity() {
    let mut agent = UdpAgent::bind(loopback(), "uas").unwrap();
    let callee = agent.local();
    let agent = thread::spawn(move || uas::run(&mut agent, &options(1)).unwrap());
    let mut middle = b2bua::common::UdpAgent::bind(loopback(), "b2bua").unwrap();
    let next = middle.local();
    let middle =
        thread::spawn(move || b2bua::run(&mut middle, callee, &["X-Internal"], 1).unwrap());
    let (statuses, answer) = talk(next, &[("X-Internal", "secret"), ("X-Public", "seen")]);
    assert_eq!(statuses, [180, 200]);
    let contact = answer.headers.contact_uri().unwrap();
    assert_eq!(contact.port(), Some(next.port()));
    assert_eq!(agent.join().unwrap(), 1);
    middle.join().unwrap();
}

/// A SIPp that runs a scenario of its own; killed when dropped.
struct Sipp(Child);

impl Sipp {
    /// `None` without SIPp, said aloud.
    fn start(arguments: &[&str]) -> Option<Sipp> {
        let child = Command::new("sipp")
            .args(["-i", "127.0.0.1", "-m", "5", "-nostdin"])
            .args(["-timeout", "40", "-timeout_error"])
            .args(arguments)
            .current_dir(std::env::temp_dir())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        if child.is_err() {
            eprintln!("SKIPPED: sipp is not installed");
        }
        child.ok().map(Sipp)
    }

    fn finish(mut self) {
        let end = Instant::now() + Duration::from_secs(60);
        while Instant::now() < end {
            if let Some(status) = self.0.try_wait().unwrap() {
                assert!(status.success(), "{status}");
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("SIPp does not end");
    }
}

impl Drop for Sipp {
    fn drop(&mut self) {
        // Both fail only when it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_uas_takes_the_calls_of_sipps_uac() {
    let mut agent = UdpAgent::bind(loopback(), "uas").unwrap();
    let next = agent.local().to_string();
    // SIPp's caller hangs up.
    let options = uas::Options {
        ring: Duration::from_millis(50),
        talk: Duration::from_secs(30),
        calls: 5,
    };
    let Some(sipp) = Sipp::start(&["-sn", "uac", "-d", "200", &next]) else {
        return;
    };
    assert_eq!(uas::run(&mut agent, &options).unwrap(), 5);
    sipp.finish();
}

#[test]
fn the_b2bua_stands_between_two_sipps() {
    // SIPp's callee has no port 0: one is taken for it.
    let port = std::net::UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let port = port.to_string();
    let Some(callee) = Sipp::start(&["-sn", "uas", "-p", &port]) else {
        return;
    };
    let mut middle = b2bua::common::UdpAgent::bind(loopback(), "b2bua").unwrap();
    let next = middle.local().to_string();
    let onward = format!("127.0.0.1:{port}").parse().unwrap();
    let Some(caller) = Sipp::start(&["-sn", "uac", "-d", "200", &next]) else {
        return;
    };
    b2bua::run(&mut middle, onward, &[], 5).unwrap();
    caller.finish();
    callee.finish();
}
