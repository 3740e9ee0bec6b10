//! Peers whose messages are written by hand: streams cut anywhere, connections that go away, answers that lack
//! what they need. What the other party gets, and what the record says.

use std::time::Duration;

use serde_json::Value;
use trunkline_tests::Appliance;
use trunkline_tests::api::items;
use trunkline_tests::appliance::Setup;
use trunkline_tests::hand::{Hand, Names, connect, sdp};
use trunkline_tests::process::eventually;

const TIMEOUT: Duration = Duration::from_secs(20);

/// An appliance that sends every call to this peer, which talks to it from now on.
fn before(callee: &Hand) -> Appliance {
    let appliance = Appliance::start(&Setup {
        record: "false",
        ..Setup::to_port(callee.port)
    });
    callee.talk_to(appliance.sip_port);
    appliance
}

/// A caller of datagrams.
fn caller(appliance: &Appliance) -> Hand {
    let hand = Hand::over_udp();
    hand.talk_to(appliance.sip_port);
    hand
}

/// The final records, once there are so many; each leg's, with its SIP code and who ended it.
fn finals(appliance: &Appliance, count: usize) -> Vec<(String, u64, String)> {
    let records = eventually("all final records", TIMEOUT, || {
        let found = items(&appliance.api.get("/v1/cdrs"));
        (found.len() == count && appliance.api.calls().is_empty()).then_some(found)
    });
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut rows: Vec<_> = records
        .iter()
        .map(|one| {
            let code = one["sip_code"].as_u64().unwrap_or(0);
            (text(&one["direction"]), code, text(&one["ended_by"]))
        })
        .collect();
    rows.sort();
    rows
}

fn row(direction: &str, code: u64, ended_by: &str) -> (String, u64, String) {
    (direction.to_owned(), code, ended_by.to_owned())
}

fn hang_up(who: &Hand, names: &mut Names, other: &Hand) {
    who.ask(names, "BYE", "", "");
    who.expect("SIP/2.0 200");
    let bye = other.expect("BYE");
    other.respond(&bye, "200 OK", "", "");
}

#[test]
fn a_2xx_without_contact_is_acknowledged_and_ended_and_the_caller_told() {
    let bob = Hand::over_udp();
    let appliance = before(&bob);
    let alice = caller(&appliance);
    let mut names = alice.names("bob", appliance.sip_port);
    alice.ask(&mut names, "INVITE", "", &sdp(6000));
    let invite = bob.expect("INVITE");
    bob.respond_bare(&invite, "200 OK", "", &sdp(7000));
    bob.expect("ACK");
    let bye = bob.expect("BYE");
    bob.respond(&bye, "200 OK", "", "");
    alice.expect("SIP/2.0 500");
    let rows = finals(&appliance, 2);
    assert_eq!(rows[0].1, 500, "{rows:?}");
    // It is there for the next call.
    let (mut ours, _) = connect(&alice, &bob, appliance.sip_port);
    hang_up(&alice, &mut ours, &bob);
}

#[test]
fn a_stream_cut_anywhere_carries_whole_messages() {
    let bob = Hand::over_udp();
    let appliance = before(&bob);
    let alice = Hand::over_tcp(appliance.sip_port);
    let mut names = alice.names("bob", appliance.sip_port);
    names.cseq = 1;
    let offer = sdp(6000);
    let invite = alice.request(("INVITE", 1), &names, "z9hG4bKcut", "", &offer);
    // One byte at a time.
    for byte in invite.as_bytes() {
        alice.send(&[*byte]);
    }
    let invite = bob.expect("INVITE");
    assert!(invite.body().contains("m=audio"), "{}", invite.0);
    bob.respond(&invite, "200 OK", "", &sdp(7000));
    names.learn(&alice.expect("SIP/2.0 200"));
    // An ACK, a keepalive and two requests at once, the last one torn.
    let ack = alice.request(("ACK", 1), &names, "z9hG4bKack", "", "");
    let info = alice.request(("OPTIONS", 2), &names, "z9hG4bKoptions", "", "");
    let bye = alice.request(("BYE", 3), &names, "z9hG4bKbye", "", "");
    let all = format!("{ack}\r\n\r\n{info}{bye}");
    let (first, second) = all.as_bytes().split_at(all.len() - 30);
    alice.send(first);
    bob.expect("ACK");
    alice.expect("SIP/2.0 200");
    alice.send(second);
    let answer = alice.expect("SIP/2.0 200");
    assert!(answer.header("CSeq").contains("BYE"), "{}", answer.0);
    let bye = bob.expect("BYE");
    bob.respond(&bye, "200 OK", "", "");
    let rows = finals(&appliance, 2);
    assert_eq!(
        rows,
        [
            row("inbound", 200, "caller"),
            row("outbound", 200, "caller")
        ]
    );
}

#[test]
fn a_stream_that_cannot_be_framed_ends_and_takes_no_call_with_it() {
    let bob = Hand::over_udp();
    let appliance = before(&bob);
    let alice = Hand::over_tcp(appliance.sip_port);
    let (mut ours, _) = connect(&alice, &bob, appliance.sip_port);
    let stranger = Hand::over_tcp(appliance.sip_port);
    let names = stranger.names("bob", appliance.sip_port);
    let endless = stranger
        .request(("INVITE", 1), &names, "z9hG4bKendless", "", "")
        .replace("Content-Length: 0", "Content-Length: 999999999999");
    stranger.send(endless.as_bytes());
    stranger.expect("SIP/2.0 4");
    hang_up(&alice, &mut ours, &bob);
    let rows = finals(&appliance, 2);
    assert_eq!(
        rows,
        [
            row("inbound", 200, "caller"),
            row("outbound", 200, "caller")
        ]
    );
}

#[test]
fn a_caller_whose_connection_broke_goes_on_by_another() {
    let bob = Hand::over_udp();
    let appliance = before(&bob);
    let first = Hand::over_tcp(appliance.sip_port);
    let (mut ours, _) = connect(&first, &bob, appliance.sip_port);
    drop(first);
    let second = Hand::over_tcp(appliance.sip_port);
    assert_eq!(appliance.api.wait_for_call("active").len(), 36);
    // What comes by the new connection is answered there, and so is what we ask.
    second.ask(&mut ours, "INFO", "", "");
    let info = bob.expect("INFO");
    bob.respond(&info, "200 OK", "", "");
    second.expect("SIP/2.0 200");
    let mut theirs = Names::of_invite(&bob.seen("INVITE"));
    bob.ask(&mut theirs, "BYE", "", "");
    bob.expect("SIP/2.0 200");
    let bye = second.expect("BYE");
    second.respond(&bye, "200 OK", "", "");
    let rows = finals(&appliance, 2);
    assert_eq!(
        rows,
        [
            row("inbound", 200, "callee"),
            row("outbound", 200, "callee")
        ]
    );
}

#[test]
fn a_callee_reached_by_tcp_that_breaks_the_connection_is_called_back() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let appliance = Appliance::start(&Setup {
        next: format!("sip:127.0.0.1:{port};transport=tcp"),
        record: "false",
        ..Setup::to_port(port)
    });
    let alice = caller(&appliance);
    let mut names = alice.names("bob", appliance.sip_port);
    alice.ask(&mut names, "INVITE", "", &sdp(6000));
    let bob = Hand::accept(&listener);
    let invite = bob.expect("INVITE");
    let contact = format!("Contact: <sip:bob@127.0.0.1:{port};transport=tcp>\r\n");
    bob.respond_bare(&invite, "200 OK", &contact, &sdp(7000));
    names.learn(&alice.expect("SIP/2.0 200"));
    alice.acknowledge(&names, 1, "");
    bob.expect("ACK");
    drop(bob);
    // Its end is told by a connection to its Contact.
    alice.ask(&mut names, "BYE", "", "");
    alice.expect("SIP/2.0 200");
    let again = Hand::accept(&listener);
    let bye = again.expect("BYE");
    again.respond_bare(&bye, "200 OK", "", "");
    let rows = finals(&appliance, 2);
    assert_eq!(
        rows,
        [
            row("inbound", 200, "caller"),
            row("outbound", 200, "caller")
        ]
    );
}

#[test]
fn a_cancel_that_crosses_the_answer_leaves_nobody_in_a_call() {
    let bob = Hand::over_udp();
    let appliance = before(&bob);
    let alice = caller(&appliance);
    let mut names = alice.names("bob", appliance.sip_port);
    alice.ask(&mut names, "INVITE", "", &sdp(6000));
    let invite = bob.expect("INVITE");
    bob.respond(&invite, "180 Ringing", "", "");
    alice.expect("SIP/2.0 180");
    alice.cancel(&names, "Reason: Q.850;cause=16\r\n");
    let cancel = bob.expect("CANCEL");
    // The answer had left before the CANCEL came.
    bob.respond(&invite, "200 OK", "", &sdp(7000));
    bob.respond(&cancel, "200 OK", "", "");
    bob.expect("ACK");
    let bye = bob.expect("BYE");
    bob.respond(&bye, "200 OK", "", "");
    let cancelled = alice.expect("SIP/2.0 200");
    assert!(
        cancelled.header("CSeq").contains("CANCEL"),
        "{}",
        cancelled.0
    );
    alice.expect("SIP/2.0 487");
    let rows = finals(&appliance, 2);
    assert_eq!(rows[0], row("inbound", 487, "caller"), "{rows:?}");
    assert_eq!(rows[1].2, "caller", "{rows:?}");
}

#[test]
fn a_cancel_before_any_response_waits_for_the_first_one() {
    let bob = Hand::over_udp();
    let appliance = before(&bob);
    let alice = caller(&appliance);
    let mut names = alice.names("bob", appliance.sip_port);
    alice.ask(&mut names, "INVITE", "", &sdp(6000));
    let invite = bob.expect("INVITE");
    alice.cancel(&names, "");
    alice.expect("SIP/2.0 200");
    alice.expect("SIP/2.0 487");
    // RFC 3261 section 9.1: no CANCEL until a provisional response has come.
    assert_eq!(bob.count("CANCEL", Duration::from_millis(700)), 0);
    bob.respond(&invite, "180 Ringing", "", "");
    let cancel = bob.expect("CANCEL");
    bob.respond(&cancel, "200 OK", "", "");
    bob.respond(&invite, "487 Request Terminated", "", "");
    bob.expect("ACK");
    let rows = finals(&appliance, 2);
    assert_eq!(
        rows,
        [
            row("inbound", 487, "caller"),
            row("outbound", 487, "caller")
        ]
    );
}
