//! Requests too large for UDP (RFC 3261 section 18.1.1).

mod support;

use std::time::{Duration, Instant};

use support::{address, request};
use trunkline_sip::message::{Message, Method, Request, Response, parse_datagram};
use trunkline_sip::transaction::{
    CancelOutcome, Config, Endpoint, Event, FlowId, Path, Target, Transmit, Transport, TxId,
};

fn endpoint(has_stream: bool) -> Endpoint {
    let mut endpoint = Endpoint::new(Config::default());
    endpoint.use_streams(Box::new(move |_| has_stream.then(|| address(0))));
    endpoint
}

fn target() -> Target {
    Target::new(Transport::Udp, Some(FlowId(0)), address(0), address(1))
}

/// An INVITE with so many bytes on the wire.
fn invite_of(bytes: usize) -> Request {
    let mut request = request(Method::Invite, "c1", 1);
    let mut probe = Endpoint::new(Config::default());
    request.set_body("text/plain", "");
    probe
        .send_request(Instant::now(), request.clone(), &target())
        .unwrap();
    let bare = probe.poll_transmit().unwrap().bytes.len();
    // Content-Length gets four digits instead of one.
    request.set_body("text/plain", "x".repeat(bytes - bare - 3));
    request
}

fn sent(endpoint: &mut Endpoint) -> Vec<Transmit> {
    std::iter::from_fn(|| endpoint.poll_transmit()).collect()
}

fn top_via(transmit: &Transmit) -> (String, String) {
    let Ok(Message::Request(request)) = parse_datagram(&transmit.bytes) else {
        panic!("a request")
    };
    let via = request.headers.via().unwrap();
    (via.to_string(), via.branch().unwrap_or_default().to_owned())
}

#[test]
fn a_request_above_1300_bytes_goes_by_tcp_and_a_smaller_one_by_udp() {
    for (bytes, has_stream, transport) in [
        (1500, true, Transport::Tcp),
        (1500, false, Transport::Udp),
        (1200, true, Transport::Udp),
    ] {
        let mut endpoint = endpoint(has_stream);
        endpoint
            .send_request(Instant::now(), invite_of(bytes), &target())
            .unwrap();
        let sent = sent(&mut endpoint);
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].transport, transport, "{bytes} {has_stream}");
        let (via, _) = top_via(&sent[0]);
        assert!(via.contains(transport.via_name()), "{via}");
    }
}

#[test]
fn where_no_connection_can_be_made_the_same_request_goes_by_udp() {
    let mut endpoint = endpoint(true);
    let start = Instant::now();
    let tx = endpoint
        .send_request(start, invite_of(1500), &target())
        .unwrap();
    let by_stream = sent(&mut endpoint).remove(0);
    endpoint.transport_failed(start, TxId::Client(tx));
    assert!(
        endpoint.poll_event().is_none(),
        "nobody is told of a failure"
    );
    let by_datagram = sent(&mut endpoint).remove(0);
    assert_eq!(by_datagram.transport, Transport::Udp);
    let ((_, first), (via, second)) = (top_via(&by_stream), top_via(&by_datagram));
    assert_eq!(first, second, "one transaction");
    assert!(via.contains("SIP/2.0/UDP"), "{via}");
    // It is repeated like any other, acknowledged and cancelled by the way it took.
    endpoint.handle_timeout(start + Duration::from_millis(500));
    assert_eq!(sent(&mut endpoint)[0].bytes, by_datagram.bytes);
    let Ok(Message::Request(request)) = parse_datagram(&by_datagram.bytes) else {
        panic!("a request")
    };
    let path = Path {
        transport: Transport::Udp,
        flow: FlowId(0),
        local: address(0),
        source: address(1),
    };
    let mut ringing = Response::to(&request, 180);
    ringing.set_to_tag("b");
    endpoint.handle_message(start, path, Message::Response(ringing));
    assert_eq!(endpoint.cancel(start, tx, &[]), Ok(CancelOutcome::Sent));
    let cancel = sent(&mut endpoint).remove(0);
    assert_eq!(cancel.transport, Transport::Udp);
    assert_eq!(top_via(&cancel).0, via);
    // A second failure is one; a peer that refuses at once is asked for a connection again.
    endpoint.poll_event();
    let tx = endpoint
        .send_request(start, invite_of(1500), &target())
        .unwrap();
    assert_eq!(sent(&mut endpoint)[0].transport, Transport::Tcp);
    endpoint.transport_failed(start, TxId::Client(tx));
    endpoint.transport_failed(start, TxId::Client(tx));
    let told = endpoint.poll_event();
    assert!(matches!(told, Some(Event::TransportError { tx: lost }) if lost == tx));
}

#[test]
fn a_peer_that_was_waited_for_in_vain_is_not_asked_for_one_for_a_while() {
    let mut endpoint = endpoint(true);
    let start = Instant::now();
    let send = |endpoint: &mut Endpoint, after_s| {
        let at = start + Duration::from_secs(after_s);
        let tx = endpoint.send_request(at, invite_of(1500), &target());
        let transmit = sent(endpoint).remove(0);
        (tx.unwrap(), transmit.transport, transmit.has_fallback)
    };
    let (tx, transport, has_fallback) = send(&mut endpoint, 0);
    assert_eq!((transport, has_fallback), (Transport::Tcp, true));
    let start = start + Duration::from_millis(500);
    endpoint.transport_failed(start, TxId::Client(tx));
    let fallen = sent(&mut endpoint).remove(0);
    assert_eq!(
        (fallen.transport, fallen.has_fallback),
        (Transport::Udp, false)
    );
    assert_eq!(send(&mut endpoint, 299).1, Transport::Udp);
    assert_eq!(send(&mut endpoint, 301).1, Transport::Tcp);
}

#[test]
fn a_request_that_was_given_up_does_not_leave_by_the_other_way() {
    let mut endpoint = endpoint(true);
    let start = Instant::now();
    let tx = endpoint
        .send_request(start, invite_of(1500), &target())
        .unwrap();
    sent(&mut endpoint);
    assert_eq!(endpoint.cancel(start, tx, &[]), Ok(CancelOutcome::Waiting));
    endpoint.transport_failed(start, TxId::Client(tx));
    assert!(sent(&mut endpoint).is_empty());
    let told = endpoint.poll_event();
    assert!(matches!(told, Some(Event::TransportError { tx: lost }) if lost == tx));
}
