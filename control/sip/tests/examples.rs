//! The example programs at work on loopback: a call through the B2BUA to the user agent that
//! answers and hangs up.

#![allow(clippy::duplicate_mod)]

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use trunkline_sip::dialog::Dialog;
use trunkline_sip::message::{Method, Request, Response};
use trunkline_sip::transaction::Event;

#[allow(dead_code)]
#[path = "../examples/b2bua.rs"]
mod b2bua;
#[allow(dead_code)]
#[path = "../examples/uas.rs"]
mod uas;

/// The caller: a real user agent on its own socket.
struct Caller {
    io: uas::common::UdpEndpoint,
    next: SocketAddr,
    invite: Request,
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

impl Caller {
    fn new(next: SocketAddr, extra: &[(&str, &str)]) -> Caller {
        let mut io = uas::common::UdpEndpoint::bind(loopback()).unwrap();
        let tag = io.layer.new_tag();
        let mut invite = Request::new(Method::Invite, format!("sip:bob@{next}").parse().unwrap())
            .with(
                "From",
                format!("\"Alice\" <sip:alice@{}>;tag={tag}", io.local()),
            )
            .with("To", format!("<sip:bob@{next}>"))
            .with("Call-ID", io.layer.new_call_id("127.0.0.1"))
            .with("CSeq", "1 INVITE")
            .with("Contact", format!("<sip:alice@{}>", io.local()))
            .with_body(
                "application/sdp",
                "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
                 m=audio 4000 RTP/AVP 8 0\r\nm=video 4002 RTP/AVP 34\r\n",
            );
        for (name, value) in extra {
            invite.headers.append(name, value);
        }
        Caller { io, next, invite }
    }

    /// Places the call and stays in it until the other side hangs up; gives the statuses seen
    /// and the answer.
    fn talk(&mut self) -> (Vec<u16>, Response) {
        let target = self.io.target(self.next);
        let now = Instant::now();
        self.io
            .layer
            .send_request(now, self.invite.clone(), &target)
            .unwrap();
        let deadline = Some(now + Duration::from_secs(20));
        let (mut statuses, mut call) = (Vec::new(), None::<(Dialog, Response)>);
        loop {
            let event = self
                .io
                .next_event(deadline)
                .unwrap()
                .expect("the call ends in time");
            match event {
                Event::Response { tx, response, .. } => {
                    statuses.push(response.status);
                    if response.is_success() {
                        let dialog = Dialog::uac(&self.invite, &response).unwrap();
                        let now = Instant::now();
                        self.io
                            .layer
                            .send_ack(now, tx, dialog.ack(1), &target)
                            .unwrap();
                        call = Some((dialog, response));
                    }
                }
                Event::Request { tx, request, .. } => {
                    let (mut dialog, answer) = call.expect("a BYE comes in a call");
                    assert_eq!(request.method, Method::Bye);
                    dialog.receive(&request).unwrap();
                    let ok = dialog.response(&request, 200);
                    self.io.layer.respond(Instant::now(), tx, ok).unwrap();
                    self.io.flush();
                    return (statuses, answer);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

fn options() -> uas::Options {
    let (ring, talk) = (Duration::from_millis(50), Duration::from_millis(100));
    uas::Options {
        ring,
        talk,
        calls: 1,
    }
}

#[test]
fn the_uas_answers_and_hangs_up() {
    let mut agent = uas::common::UdpEndpoint::bind(loopback()).unwrap();
    let next = agent.local();
    let agent = thread::spawn(move || uas::run(&mut agent, &options()).unwrap());
    let (statuses, answer) = Caller::new(next, &[]).talk();
    assert_eq!(statuses, [180, 200]);
    let sdp = String::from_utf8(answer.body).unwrap();
    assert!(
        sdp.contains("m=audio 9 RTP/AVP 8 0") && sdp.contains("m=video 0 RTP/AVP 34"),
        "{sdp}"
    );
    assert_eq!(agent.join().unwrap(), 1);
}

#[test]
fn the_b2bua_passes_a_call_on_under_its_own_identity() {
    let mut agent = uas::common::UdpEndpoint::bind(loopback()).unwrap();
    let callee = agent.local();
    let agent = thread::spawn(move || uas::run(&mut agent, &options()).unwrap());
    let mut middle = b2bua::common::UdpEndpoint::bind(loopback()).unwrap();
    let next = middle.local();
    let middle =
        thread::spawn(move || b2bua::run(&mut middle, callee, &["X-Internal"], 1).unwrap());
    let mut caller = Caller::new(next, &[("X-Internal", "secret"), ("X-Public", "seen")]);
    let (statuses, answer) = caller.talk();
    assert_eq!(statuses.last(), Some(&200));
    assert!(statuses.contains(&180));
    assert_eq!(
        answer.headers.contact_uri().unwrap().port(),
        Some(next.port())
    );
    assert_eq!(answer.headers.call_id(), caller.invite.headers.call_id());
    assert_eq!(agent.join().unwrap(), 1);
    middle.join().unwrap();
}
