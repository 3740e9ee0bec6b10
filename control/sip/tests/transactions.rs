//! The transaction layer as its user and its peers see it, in virtual time.

mod support;

use std::time::Duration;

use support::{Faults, World, address, answer, invite_text, request};
use trunkline_sip::message::{Message, Method, Response, parse_datagram};
use trunkline_sip::transaction::{
    CancelOutcome, ClientTx, Config, Endpoint, Event, FlowId, Path, SendError, ServerTx, Target,
    Transport,
};

fn parsed(text: &str) -> Message {
    parse_datagram(text.as_bytes()).expect("our own messages parse")
}

fn response_of(text: &str) -> Response {
    match parsed(text) {
        Message::Response(response) => response,
        Message::Request(_) => panic!("a response is expected: {text}"),
    }
}

/// Sends an INVITE from side 0 and waits for it at side 1.
fn invited(world: &mut World) -> (ClientTx, ServerTx, trunkline_sip::message::Request) {
    let target = world.target(0);
    let now = world.now;
    let client = world.ends[0]
        .send_request(now, request(Method::Invite, "c1", 1), &target)
        .unwrap();
    let (server, invite) = world.until(40, |side, event| match event {
        Event::Request { tx, request, .. } if side == 1 => Some((tx, request)),
        _ => None,
    });
    (client, server, invite)
}

fn respond(world: &mut World, tx: ServerTx, response: Response) {
    let now = world.now;
    world.ends[1].respond(now, tx, response).unwrap();
}

#[test]
fn an_unanswered_invite_is_repeated_at_doubling_intervals_until_timer_b() {
    let mut world = World::plain();
    world.drop_first.push(("INVITE".into(), 100));
    let target = world.target(0);
    let now = world.now;
    let tx = world.ends[0]
        .send_request(now, request(Method::Invite, "c1", 1), &target)
        .unwrap();
    let events = world.run(60);
    assert!(matches!(events[..], [(0, Event::Timeout { tx: lost })] if lost == tx));
    let times: Vec<u128> = world.wire.iter().map(|(at, ..)| at.as_millis()).collect();
    assert_eq!(times, [0, 500, 1500, 3500, 7500, 15500, 31500]);
    assert_eq!(world.ends[0].transactions(), (0, 0));
    assert_eq!(world.ends[0].poll_timeout(), None);
}

#[test]
fn an_unanswered_bye_is_repeated_up_to_t2_until_timer_f() {
    let mut world = World::plain();
    world.drop_first.push(("BYE".into(), 100));
    let target = world.target(0);
    let now = world.now;
    world.ends[0]
        .send_request(now, request(Method::Bye, "c1", 1), &target)
        .unwrap();
    let events = world.run(60);
    assert!(matches!(events[..], [(0, Event::Timeout { .. })]));
    let times: Vec<u128> = world.wire.iter().map(|(at, ..)| at.as_millis()).collect();
    assert_eq!(
        times,
        [
            0, 500, 1500, 3500, 7500, 11500, 15500, 19500, 23500, 27500, 31500
        ]
    );
}

#[test]
fn nothing_is_repeated_over_tcp() {
    let mut world = World::new(Transport::Tcp, 1, Faults::default());
    world.drop_first.push(("INVITE".into(), 1));
    let target = world.target(0);
    let now = world.now;
    world.ends[0]
        .send_request(now, request(Method::Invite, "c1", 1), &target)
        .unwrap();
    let events = world.run(60);
    assert!(matches!(events[..], [(0, Event::Timeout { .. })]));
    assert_eq!(world.wire.len(), 1);
}

#[test]
fn a_silent_user_gets_its_100_sent_after_200_ms() {
    let mut world = World::plain();
    let (client, server, invite) = invited(&mut world);
    let (status, at) = world
        .until(1, |side, event| match event {
            Event::Response { tx, response, .. } if side == 0 && tx == client => {
                Some(response.status)
            }
            _ => None,
        })
        .pipe(|status| (status, world.now - world.start));
    assert_eq!((status, at), (100, Duration::from_millis(220)));
    assert_eq!(world.count(0, "INVITE"), 1);
    respond(&mut world, server, answer(&invite, 404));
    world.run(40);
    assert_eq!(world.count(1, "SIP/2.0 404"), 1);
    assert_eq!(world.count(0, "ACK"), 1);
    assert_eq!(world.ends[0].transactions(), (0, 0));
    assert_eq!(world.ends[1].transactions(), (0, 0));
}

trait Pipe: Sized {
    fn pipe<T>(self, function: impl FnOnce(Self) -> T) -> T {
        function(self)
    }
}
impl<T> Pipe for T {}

#[test]
fn a_failure_is_repeated_until_its_ack_and_the_ack_is_built_as_the_rfc_says() {
    let mut world = World::plain();
    world.drop_first.push(("ACK".into(), 2));
    let (_, server, invite) = invited(&mut world);
    respond(&mut world, server, answer(&invite, 486));
    let events = world.run(60);
    assert!(
        !events
            .iter()
            .any(|(_, event)| matches!(event, Event::Ack { .. } | Event::NoAck { .. }))
    );
    assert_eq!(world.count(1, "SIP/2.0 486"), 3);
    let invite_via = invite.headers.via().unwrap();
    let ack = world
        .wire
        .iter()
        .find(|(_, _, text)| text.starts_with("ACK"))
        .unwrap();
    let Message::Request(ack) = parsed(&ack.2) else {
        panic!("ACK is a request")
    };
    assert_eq!(ack.headers.via().unwrap().branch(), invite_via.branch());
    assert_eq!(ack.headers.cseq().unwrap().to_string(), "1 ACK");
    assert!(ack.headers.to_tag().is_some());
    assert_eq!(ack.uri, invite.uri);
}

#[test]
fn a_failure_never_acknowledged_is_told_after_64_t1() {
    let mut world = World::plain();
    world.drop_first.push(("ACK".into(), 100));
    let (_, server, invite) = invited(&mut world);
    respond(&mut world, server, answer(&invite, 486));
    let events = world.run(60);
    assert!(events.iter().any(|(side, event)| *side == 1
        && matches!(event, Event::NoAck { tx, status: 486 } if *tx == server)));
    assert_eq!(world.ends[1].transactions(), (0, 0));
}

#[test]
fn a_2xx_is_repeated_until_its_ack_then_rests() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut world = World::new(transport, 1, Faults::default());
        let (client, server, invite) = invited(&mut world);
        respond(&mut world, server, answer(&invite, 200));
        world.run(2);
        assert_eq!(world.count(1, "SIP/2.0 200"), 3, "at 0, 0.5 and 1.5 s");
        let ack = request(Method::Ack, "c1", 1);
        let mut ack = ack;
        ack.headers.set(
            "To",
            response_of(&world.wire.last().unwrap().2)
                .headers
                .get("To")
                .unwrap()
                .as_bytes(),
        );
        let (target, now) = (world.target(0), world.now);
        world.ends[0].send_ack(now, client, ack, &target).unwrap();
        let events = world.run(60);
        let acks = events.iter().filter(|(side, event)| {
            *side == 1 && matches!(event, Event::Ack { invite: Some(tx), .. } if *tx == server)
        });
        assert_eq!(acks.count(), 1);
        assert!(
            !events
                .iter()
                .any(|(_, event)| matches!(event, Event::NoAck { .. }))
        );
        assert_eq!(world.count(1, "SIP/2.0 200"), 3);
        assert_eq!(world.ends[1].transactions(), (0, 0));
    }
}

#[test]
fn a_2xx_never_acknowledged_is_told_so_that_the_call_is_ended() {
    let mut world = World::plain();
    let (_, server, invite) = invited(&mut world);
    respond(&mut world, server, answer(&invite, 200));
    let events = world.run(60);
    let told = events.iter().filter(|(side, event)| {
        *side == 1 && matches!(event, Event::NoAck { tx, status: 200 } if *tx == server)
    });
    assert_eq!(told.count(), 1);
    assert_eq!(world.ends[1].transactions(), (0, 0));
}

#[test]
fn a_repeated_2xx_is_acknowledged_again_without_a_second_event() {
    let mut world = World::plain();
    world.drop_first.push(("ACK".into(), 3));
    let (client, server, invite) = invited(&mut world);
    respond(&mut world, server, answer(&invite, 200));
    let response = world.until(2, |_, event| match event {
        Event::Response { response, .. } if response.status == 200 => Some(response),
        _ => None,
    });
    let mut ack = request(Method::Ack, "c1", 1);
    ack.headers
        .set("To", response.headers.get("To").unwrap().as_bytes());
    let (target, now) = (world.target(0), world.now);
    world.ends[0].send_ack(now, client, ack, &target).unwrap();
    let events = world.run(60);
    assert_eq!(world.count(0, "ACK"), 4);
    assert!(events.iter().all(|(side, _)| *side == 1));
    assert!(
        events
            .iter()
            .any(|(_, event)| matches!(event, Event::Ack { .. }))
    );
}

#[test]
fn each_fork_that_answers_is_told_once() {
    let mut world = World::plain();
    let (client, _, invite) = invited(&mut world);
    world.run(1);
    let mut told = Vec::new();
    for tag in ["x", "y", "x", "y"] {
        let mut response = answer(&invite, 200);
        // The copy as the client would see it: its own Via.
        response
            .headers
            .set("Via", invite.headers.via().unwrap().to_string());
        response.set_to_tag(tag);
        for event in world.inject(0, &String::from_utf8(response.to_bytes()).unwrap()) {
            if let Event::Response { tx, response, .. } = event {
                assert_eq!(tx, client);
                told.push(response.headers.to_tag().unwrap());
            }
        }
    }
    assert_eq!(told, ["x", "y"]);
}

#[test]
fn cancel_waits_for_a_provisional_and_carries_its_reason() {
    let mut world = World::plain();
    world.drop_first.push(("INVITE".into(), 1));
    let (target, now) = (world.target(0), world.now);
    let client = world.ends[0]
        .send_request(now, request(Method::Invite, "c1", 1), &target)
        .unwrap();
    let reason = [("Reason", "SIP;cause=200;text=\"Call completed elsewhere\"")];
    assert_eq!(
        world.ends[0].cancel(now, client, &reason),
        Ok(CancelOutcome::Waiting)
    );
    assert_eq!(
        world.ends[0].cancel(now, client, &reason),
        Ok(CancelOutcome::Repeated)
    );
    let (server, invite) = world.until(2, |_, event| match event {
        Event::Request { tx, request, .. } => Some((tx, request)),
        _ => None,
    });
    assert_eq!(world.count(0, "CANCEL"), 0);
    respond(&mut world, server, answer(&invite, 180));
    let cancelled = world.until(2, |_, event| match event {
        Event::Cancel { invite, cancel } => Some((invite, cancel)),
        _ => None,
    });
    assert_eq!(cancelled.0, server);
    assert_eq!(cancelled.1.headers.reasons().unwrap()[0].cause, Some(200));
    assert_eq!(
        cancelled.1.headers.via().unwrap().branch(),
        invite.headers.via().unwrap().branch()
    );
    assert_eq!(cancelled.1.headers.cseq().unwrap().to_string(), "1 CANCEL");
    respond(&mut world, server, answer(&invite, 487));
    let events = world.run(60);
    assert!(events.iter().any(|(side, event)| *side == 0
        && matches!(event, Event::Response { tx, response, .. } if *tx == client && response.status == 487)));
    assert_eq!(
        world.count(1, "SIP/2.0 200"),
        1,
        "the CANCEL was answered by the layer"
    );
    assert_eq!(world.ends[0].transactions(), (0, 0));
}

#[test]
fn a_lost_cancel_is_repeated() {
    let mut world = World::plain();
    world.drop_first.push(("CANCEL".into(), 3));
    let (client, server, invite) = invited(&mut world);
    respond(&mut world, server, answer(&invite, 180));
    world.run(1);
    let now = world.now;
    assert_eq!(
        world.ends[0].cancel(now, client, &[]),
        Ok(CancelOutcome::Sent)
    );
    world.until(10, |_, event| {
        matches!(event, Event::Cancel { .. }).then_some(())
    });
    assert_eq!(world.count(0, "CANCEL"), 4);
}

#[test]
fn a_cancelled_invite_that_never_ends_is_given_up_after_64_t1() {
    let mut world = World::plain();
    let (client, server, invite) = invited(&mut world);
    respond(&mut world, server, answer(&invite, 180));
    world.run(100);
    let now = world.now;
    world.ends[0].cancel(now, client, &[]).unwrap();
    let events = world.run(40);
    assert!(
        events
            .iter()
            .any(|(_, event)| matches!(event, Event::Timeout { tx } if *tx == client))
    );
}

#[test]
fn a_2xx_that_crosses_the_cancel_is_told() {
    let mut world = World::plain();
    let (client, server, invite) = invited(&mut world);
    respond(&mut world, server, answer(&invite, 180));
    world.run(1);
    let now = world.now;
    world.ends[0].cancel(now, client, &[]).unwrap();
    respond(&mut world, server, answer(&invite, 200));
    let events = world.run(5);
    assert!(events.iter().any(|(side, event)| *side == 0
        && matches!(event, Event::Response { response, .. } if response.status == 200)));
    assert!(
        !events
            .iter()
            .any(|(_, event)| matches!(event, Event::Cancel { .. }))
    );
    assert_eq!(
        world.ends[0].cancel(world.now, client, &[]),
        Ok(CancelOutcome::Repeated)
    );
}

#[test]
fn a_180_after_the_200_is_not_told() {
    let mut world = World::plain();
    let (client, _, invite) = invited(&mut world);
    let mut seen = Vec::new();
    for status in [180, 200, 180, 183] {
        let mut response = answer(&invite, status);
        response
            .headers
            .set("Via", invite.headers.via().unwrap().to_string());
        response.set_to_tag("x");
        for event in world.inject(0, &String::from_utf8(response.to_bytes()).unwrap()) {
            let Event::Response { tx, response, .. } = event else {
                panic!("{event:?}")
            };
            assert_eq!(tx, client);
            seen.push(response.status);
        }
    }
    assert_eq!(seen, [180, 200]);
}

#[test]
fn after_an_authentication_retry_cancel_hits_only_the_live_invite() {
    let mut world = World::plain();
    let (first, server, invite) = invited(&mut world);
    respond(&mut world, server, answer(&invite, 407));
    world.run(1);
    let now = world.now;
    assert_eq!(
        world.ends[0].cancel(now, first, &[]),
        Err(SendError::AlreadyFinal)
    );
    let target = world.target(0);
    let retry = request(Method::Invite, "c1", 2);
    let second = world.ends[0].send_request(now, retry, &target).unwrap();
    let (server, invite) = world.until(5, |_, event| match event {
        Event::Request { tx, request, .. } => Some((tx, request)),
        _ => None,
    });
    assert_eq!(invite.headers.cseq().unwrap().number, 2);
    respond(&mut world, server, answer(&invite, 180));
    world.run(1);
    let now = world.now;
    world.ends[0].cancel(now, second, &[]).unwrap();
    let cancelled = world.until(5, |_, event| match event {
        Event::Cancel { invite, .. } => Some(invite),
        _ => None,
    });
    assert_eq!(cancelled, server);
    assert_eq!(world.count(0, "CANCEL"), 1);
}

#[test]
fn a_2xx_after_a_failure_is_told_so_that_it_can_be_ended() {
    let mut world = World::plain();
    let (_, _, invite) = invited(&mut world);
    let response = |status: u16, tag: &str| {
        let mut response = answer(&invite, status);
        response
            .headers
            .set("Via", invite.headers.via().unwrap().to_string());
        response.set_to_tag(tag);
        String::from_utf8(response.to_bytes()).unwrap()
    };
    assert!(matches!(
        &world.inject(0, &response(603, "x"))[..],
        [Event::Response { .. }]
    ));
    assert!(matches!(
        &world.inject(0, &response(200, "y"))[..],
        [Event::StrayResponse { .. }]
    ));
}

#[test]
fn a_2xx_that_no_transaction_awaits_is_told_and_other_strays_are_not() {
    let mut world = World::plain();
    let invite = request(Method::Invite, "before-the-restart", 1)
        .with("Via", "SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKold");
    for (status, told) in [(180, 0), (200, 1), (486, 0)] {
        let mut response = answer(&invite, status);
        response.set_to_tag("x");
        let events = world.inject(0, &String::from_utf8(response.to_bytes()).unwrap());
        assert_eq!(events.len(), told, "{status}");
        response
            .headers
            .append("Via", "SIP/2.0/UDP 203.0.113.5;branch=z9hG4bKother");
        let events = world.inject(0, &String::from_utf8(response.to_bytes()).unwrap());
        assert!(events.is_empty(), "a second Via: it went astray");
    }
    assert!(world.taken(0).is_empty());
    assert_eq!(world.ends[0].stats().stray_responses, 6);
}

#[test]
fn a_cancel_for_nothing_gets_481_and_one_after_the_end_200_without_effect() {
    let mut world = World::plain();
    let cancel = invite_text("z9hG4bKx", "").replace("INVITE", "CANCEL");
    assert!(world.inject(1, &cancel).is_empty());
    assert!(world.taken(1)[0].starts_with("SIP/2.0 481"));
    let events = world.inject(1, &invite_text("z9hG4bKx", ""));
    let [Event::Request { tx, request, .. }] = &events[..] else {
        panic!("{events:?}")
    };
    respond(&mut world, *tx, answer(request, 486));
    world.taken(1);
    assert!(world.inject(1, &cancel).is_empty());
    assert!(world.taken(1)[0].starts_with("SIP/2.0 200"));
}

#[test]
fn a_cancel_whose_top_via_changed_on_the_way_is_still_matched() {
    let mut world = World::plain();
    let events = world.inject(1, &invite_text("z9hG4bKx", ""));
    let [Event::Request { tx, .. }] = &events[..] else {
        panic!("{events:?}")
    };
    let cancel = invite_text("z9hG4bKother", "")
        .replace("INVITE", "CANCEL")
        .replace("192.0.2.1:5060;branch", "198.51.100.7:6000;branch");
    let events = world.inject(1, &cancel);
    assert!(matches!(&events[..], [Event::Cancel { invite, .. }] if invite == tx));
}

#[test]
fn a_stray_ack_is_never_answered() {
    let mut world = World::plain();
    let ack = invite_text("z9hG4bKx", "").replace("INVITE", "ACK");
    assert!(world.inject(1, &ack).is_empty());
    let tagged = ack.replace("To: <sip:bob@192.0.2.2>", "To: <sip:bob@192.0.2.2>;tag=b");
    assert!(matches!(
        &world.inject(1, &tagged)[..],
        [Event::Ack { invite: None, .. }]
    ));
    let bad = ack.replace("CSeq: 1 ACK", "CSeq: 1 INVITE");
    assert!(world.inject(1, &bad).is_empty());
    assert!(world.taken(1).is_empty());
}

#[test]
fn the_same_invite_by_two_ways_is_482() {
    let mut world = World::plain();
    assert_eq!(world.inject(1, &invite_text("z9hG4bKone", "")).len(), 1);
    assert!(world.inject(1, &invite_text("z9hG4bKtwo", "")).is_empty());
    let [text] = &world.taken(1)[..] else {
        panic!("one answer")
    };
    assert!(text.starts_with("SIP/2.0 482"), "{text}");
    assert!(response_of(text).headers.to_tag().is_some());
}

#[test]
fn requests_of_rfc_2543_are_matched_without_a_branch() {
    let mut world = World::plain();
    let invite = invite_text("", "").replace(";branch=;rport", "");
    let events = world.inject(1, &invite);
    let [Event::Request { tx, request, .. }] = &events[..] else {
        panic!("{events:?}")
    };
    assert!(world.inject(1, &invite).is_empty(), "a repetition");
    respond(&mut world, *tx, answer(request, 486));
    let [text] = &world.taken(1)[..] else {
        panic!("one answer")
    };
    let to = response_of(text).headers.get("To").unwrap().into_owned();
    let ack = invite
        .replace("INVITE", "ACK")
        .replace("To: <sip:bob@192.0.2.2>", &format!("To: {to}"));
    assert!(world.inject(1, &ack).is_empty());
    world.now += Duration::from_secs(10);
    let now = world.now;
    world.ends[1].handle_timeout(now);
    assert!(world.taken(1).is_empty(), "acknowledged");
    // The bare cookie identifies nothing either (RFC 4475 section 3.2.1).
    assert_eq!(
        world
            .inject(1, &invite_text("z9hG4bK", "").replace("call-1", "call-2"))
            .len(),
        1
    );
    assert_eq!(
        world
            .inject(1, &invite_text("z9hG4bK", "").replace("call-1", "call-3"))
            .len(),
        1
    );
}

#[test]
fn answers_leave_by_the_flow_and_go_where_via_and_source_say() {
    let mut end = Endpoint::new(Config {
        seed: Some(1),
        ..Config::default()
    });
    let now = std::time::Instant::now();
    let mut reply_to = |text: &str, transport| {
        let path = Path {
            transport,
            flow: FlowId(77),
            local: address(1),
            source: "198.51.100.9:40000".parse().unwrap(),
        };
        end.handle_datagram(now, path, text.as_bytes());
        let Some(Event::Request { tx, request, .. }) = end.poll_event() else {
            panic!("request")
        };
        end.respond(now, tx, Response::to(&request, 404)).unwrap();
        let transmit = end.poll_transmit().unwrap();
        assert_eq!(transmit.flow, Some(FlowId(77)));
        (
            transmit.remote.to_string(),
            response_of(&String::from_utf8_lossy(&transmit.bytes)),
        )
    };
    let (remote, response) = reply_to(&invite_text("z9hG4bK1", ""), Transport::Udp);
    assert_eq!(remote, "198.51.100.9:40000");
    let via = response.headers.via().unwrap();
    assert_eq!(via.received(), Some("198.51.100.9".parse().unwrap()));
    assert_eq!(via.rport(), Some(40000));
    let plain = invite_text("z9hG4bK2", "")
        .replace(";rport", "")
        .replace("call-1", "call-2");
    assert_eq!(reply_to(&plain, Transport::Udp).0, "198.51.100.9:5060");
    let maddr = plain
        .replace("call-2", "call-3")
        .replace("bK2", "bK3;maddr=203.0.113.66");
    assert_eq!(reply_to(&maddr, Transport::Udp).0, "198.51.100.9:5060");
    let tcp = invite_text("z9hG4bK4", "")
        .replace("call-1", "call-4")
        .replace("UDP", "TCP");
    assert_eq!(
        reply_to(&tcp, Transport::Tcp).0,
        "198.51.100.9:5060",
        "where to reconnect to"
    );
}

#[test]
fn above_the_limit_new_calls_get_503_and_dialogs_go_on() {
    let config = Config {
        transactions_max: 3,
        seed: Some(1),
        ..Config::default()
    };
    let mut world = World::plain();
    world.ends[1] = Endpoint::new(config);
    for call in 0..3 {
        let text =
            invite_text(&format!("z9hG4bK{call}"), "").replace("call-1", &format!("c{call}"));
        assert_eq!(world.inject(1, &text).len(), 1);
    }
    let fresh = invite_text("z9hG4bKfresh", "").replace("call-1", "fresh");
    for _ in 0..1000 {
        assert!(world.inject(1, &fresh).is_empty());
    }
    let texts = world.taken(1);
    assert_eq!(texts.len(), 1000);
    assert!(texts[0].starts_with("SIP/2.0 503") && texts[0].contains("Retry-After: 5"));
    assert_eq!(texts[0], texts[999], "the same answer for each repetition");
    assert_eq!(world.ends[1].transactions(), (0, 3));
    let bye = fresh
        .replace("INVITE", "BYE")
        .replace("To: <sip:bob@192.0.2.2>", "To: <sip:bob@192.0.2.2>;tag=b");
    assert_eq!(world.inject(1, &bye).len(), 1);
}

#[test]
fn an_unanswered_request_is_given_up_when_its_sender_has() {
    let mut world = World::plain();
    let options = invite_text("z9hG4bKo", "").replace("INVITE", "OPTIONS");
    let events = world.inject(1, &options);
    let [Event::Request { tx, request, .. }] = &events[..] else {
        panic!("{events:?}")
    };
    let events = world.run(40);
    assert!(matches!(events[..], [(1, Event::Unanswered { .. })]));
    let now = world.now;
    assert_eq!(
        world.ends[1].respond(now, *tx, answer(request, 200)),
        Err(SendError::NoTransaction)
    );
    assert_eq!(world.ends[1].transactions(), (0, 0));
}

#[test]
fn rules_of_rfc_4320_and_of_finality() {
    let mut world = World::plain();
    let now = world.now;
    let events = world.inject(1, &invite_text("z9hG4bKo", "").replace("INVITE", "OPTIONS"));
    let [Event::Request { tx, request, .. }] = &events[..] else {
        panic!("{events:?}")
    };
    let end = &mut world.ends[1];
    assert_eq!(
        end.respond(now, *tx, answer(request, 180)),
        Err(SendError::Provisional)
    );
    assert_eq!(
        end.respond(now, *tx, answer(request, 700)),
        Err(SendError::Status)
    );
    end.respond(now, *tx, answer(request, 200)).unwrap();
    assert_eq!(
        end.respond(now, *tx, answer(request, 200)),
        Err(SendError::AlreadyFinal)
    );
    assert_eq!(world.taken(1).len(), 1);
    let events = world.inject(1, &invite_text("z9hG4bKp", "").replace("INVITE", "INFO"));
    let [Event::Request { tx, request, .. }] = &events[..] else {
        panic!("{events:?}")
    };
    world.ends[1]
        .respond(now, *tx, answer(request, 408))
        .unwrap();
    assert!(world.taken(1).is_empty(), "a late 408 is kept back");
}

#[test]
fn a_lost_connection_fails_its_requests_at_once() {
    let mut world = World::new(Transport::Tcp, 1, Faults::default());
    let (target, now) = (world.target(0), world.now);
    let tx = world.ends[0]
        .send_request(now, request(Method::Options, "c1", 1), &target)
        .unwrap();
    let unbound = Target {
        flow: None,
        ..target
    };
    let other = world.ends[0]
        .send_request(now, request(Method::Options, "c2", 1), &unbound)
        .unwrap();
    world.ends[0].flow_closed(now, FlowId(9), "203.0.113.1:5060".parse().unwrap());
    assert!(world.ends[0].poll_event().is_none());
    world.ends[0].flow_closed(now, FlowId(0), address(1));
    for wanted in [tx, other] {
        assert!(
            matches!(world.ends[0].poll_event(), Some(Event::TransportError { tx }) if tx == wanted)
        );
    }
    assert_eq!(world.ends[0].transactions(), (0, 0));
}

#[test]
fn a_reliable_provisional_is_repeated_until_its_prack() {
    let mut world = World::plain();
    let (_, server, invite) = invited(&mut world);
    let now = world.now;
    let rseq = world.ends[1]
        .respond_reliably(now, server, answer(&invite, 183))
        .unwrap();
    assert_eq!(
        world.ends[1].respond_reliably(now, server, answer(&invite, 183)),
        Err(SendError::AlreadyFinal),
        "one at a time"
    );
    world.run(2);
    assert_eq!(world.count(1, "SIP/2.0 183"), 3);
    assert!(!world.ends[1].acknowledge_reliable(server, rseq + 1));
    assert!(world.ends[1].acknowledge_reliable(server, rseq));
    assert!(!world.ends[1].acknowledge_reliable(server, rseq));
    let now = world.now;
    assert_eq!(
        world.ends[1].respond_reliably(now, server, answer(&invite, 183)),
        Ok(rseq + 1)
    );
    let events = world.run(40);
    assert!(
        events.iter().any(
            |(_, event)| matches!(event, Event::NoPrack { rseq: lost, .. } if *lost == rseq + 1)
        )
    );
}

#[test]
fn malformed_requests_are_answered_or_dropped_and_counted() {
    let mut world = World::plain();
    let bad = invite_text("z9hG4bKx", "").replace("Content-Length: 0", "Content-Length: -1");
    assert!(world.inject(1, &bad).is_empty());
    assert!(world.taken(1)[0].starts_with("SIP/2.0 400 Bad Request (Malformed Content-Length)"));
    assert!(
        world
            .inject(
                1,
                &invite_text("z9hG4bKy", "").replace("SIP/2.0\r\nVia", "SIP/7.0\r\nVia")
            )
            .is_empty()
    );
    assert!(world.taken(1)[0].starts_with("SIP/2.0 505"));
    assert!(world.inject(1, "complete nonsense\r\n\r\n").is_empty());
    assert!(world.inject(1, "\r\n\r\n").is_empty());
    assert!(world.taken(1).is_empty());
    let stats = world.ends[1].stats();
    assert_eq!((stats.malformed_answered, stats.malformed_dropped), (2, 1));
}
