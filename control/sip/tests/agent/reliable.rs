//! Reliable provisional responses, and offers and answers that travel in unusual messages.

use std::time::Duration;

use trunkline_sip::agent::{CallState, EndCause, EventKind, Invite};
use trunkline_sip::message::Headers;

use super::net::{Net, address, faults, none, sdp};

/// A call without offer; `reliable` as the caller's ability.
fn late(net: &mut Net) {
    let invite = Invite {
        body: None,
        ..net.invite(0, address(1))
    };
    net.agents[0].call(net.now, invite, 1).unwrap();
}

#[test]
fn a_second_reliable_provisional_waits_for_the_first_ones_prack_and_the_answer_for_both() {
    let mut net = Net::plain();
    net.call(7);
    let callee = net.incoming(1);
    let now = net.now;
    let agent = &mut net.agents[1];
    agent
        .ring(now, callee, 183, true, &none(), Some(sdp(1, "sendrecv")))
        .unwrap();
    agent.ring(now, callee, 180, true, &none(), None).unwrap();
    agent.accept(now, callee, &none(), None).unwrap();
    assert_eq!(agent.view(callee).unwrap().state, CallState::Early);
    let mut seen = Vec::new();
    net.run(2, |_, agent, event| match event.kind {
        EventKind::Progress {
            response,
            reliable: true,
            ..
        } => seen.push(response.status),
        EventKind::Answered { response, .. } => seen.push(response.status),
        EventKind::ProvisionalAcknowledged { body: None } if agent == 1 => seen.push(1),
        _ => {}
    });
    assert_eq!(seen, [183, 1, 180, 1, 200]);
    let rseq = |start: &str| {
        let text = net.last(1, start);
        let line = text.lines().find(|line| line.starts_with("RSeq")).unwrap();
        line["RSeq: ".len()..].parse::<u32>().unwrap()
    };
    assert_eq!(rseq("SIP/2.0 183") + 1, rseq("SIP/2.0 180"));
    net.finish(1, callee);
}

#[test]
fn a_prack_with_an_offer_gets_its_answer_in_the_200() {
    let mut net = Net::plain();
    net.call(7);
    let callee = net.incoming(1);
    // The caller is ours but for its PRACK, which we write.
    net.drop_first.push(("SIP/2.0 183".to_owned(), 1));
    let now = net.now;
    net.agents[1]
        .ring(now, callee, 183, true, &none(), Some(sdp(1, "sendrecv")))
        .unwrap();
    net.flush();
    let response = net.last(1, "SIP/2.0 183");
    let field = |name: &str| {
        let line = response
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap();
        line[name.len() + 2..].to_owned()
    };
    let offer = sdp(2, "sendonly");
    let body = String::from_utf8(offer.bytes.clone()).unwrap();
    let prack = format!(
        "PRACK sip:agent1@192.0.2.2:5060 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKp1\r\n\
         Max-Forwards: 70\r\nFrom: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: 2 PRACK\r\nRAck: {} {}\r\n\
         Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
        field("From"),
        field("To"),
        field("Call-ID"),
        field("RSeq"),
        field("CSeq"),
        body.len()
    );
    assert!(net.inject(0, 1, &prack).is_empty(), "the user answers");
    let offered = net
        .events()
        .into_iter()
        .find_map(|(_, event)| match event.kind {
            EventKind::Offer {
                request_handle,
                request,
                ..
            } => Some((request_handle, request)),
            _ => None,
        });
    let (request, message) = offered.unwrap();
    assert_eq!(message.body, offer.bytes);
    let now = net.now;
    // The answer of the call waits for the answer to the PRACK.
    net.agents[1].accept(now, callee, &none(), None).unwrap();
    assert_eq!(net.agents[1].view(callee).unwrap().state, CallState::Early);
    let answer = Some(sdp(2, "recvonly"));
    net.agents[1]
        .answer(now, request, 200, &none(), answer.clone())
        .unwrap();
    net.flush();
    let ok: Vec<String> = net
        .wire
        .iter()
        .rev()
        .take(2)
        .map(|(_, _, text)| text.clone())
        .collect();
    assert!(
        ok[1].contains("CSeq: 2 PRACK") && ok[1].contains("a=recvonly"),
        "{ok:?}"
    );
    assert!(ok[0].contains("CSeq: 1 INVITE"), "{ok:?}");
    assert_eq!(net.agents[1].view(callee).unwrap().local.body, answer);
}

#[test]
fn a_prack_that_fits_nothing_is_481_and_one_that_never_comes_504() {
    let mut net = Net::plain();
    net.drop_first.push(("PRACK".to_owned(), 1000));
    net.call(7);
    let callee = net.incoming(1);
    let now = net.now;
    net.agents[1]
        .ring(now, callee, 183, true, &none(), None)
        .unwrap();
    let mut end = None;
    let mut status = 0;
    net.run(80, |_, agent, event| match event.kind {
        EventKind::Ended(ended) if agent == 1 => end = Some(ended.cause),
        EventKind::Failed { status: failed, .. } => status = failed,
        _ => {}
    });
    assert_eq!((end, status), (Some(EndCause::NoPrack), 504));
    let stray = net.last(0, "PRACK");
    let refused = net.inject(0, 1, &stray);
    assert!(refused[0].starts_with("SIP/2.0 481"), "{refused:?}");
    net.at_rest();
}

#[test]
fn a_caller_without_100rel_gets_a_plain_provisional() {
    let mut net = Net::plain();
    let invite = Invite {
        reliable: false,
        ..net.invite(0, address(1))
    };
    net.agents[0].call(net.now, invite, 1).unwrap();
    let callee = net.incoming(1);
    let now = net.now;
    net.agents[1]
        .ring(now, callee, 183, true, &none(), None)
        .unwrap();
    let reliable = net.until("progress", |_, event| match &event.kind {
        EventKind::Progress { reliable, .. } => Some(*reliable),
        _ => None,
    });
    assert!(!reliable);
    let text = net.last(1, "SIP/2.0 183");
    assert!(
        !text.contains("Require") && !text.contains("RSeq"),
        "{text}"
    );
    let now = net.now;
    net.agents[1].reject(now, callee, 486, &none()).unwrap();
    net.at_rest();
}

/// Late offer: the offer comes in the 2xx and its answer in the ACK, or, with reliable
/// provisionals, in the 183 and the PRACK. On any network both sides know both bodies.
#[test]
fn late_offers_are_answered_in_ack_or_prack_on_any_network() {
    let (offer, answer) = (sdp(3, "sendrecv"), sdp(4, "sendrecv"));
    for seed in 0..60_u64 {
        let early = (seed / 4).is_multiple_of(2);
        let mut net = Net::new(2, seed, faults(seed));
        late(&mut net);
        let mut calls = [None, None];
        let mut got = None;
        net.run(60, |net, agent, event| {
            let now = net.now;
            match event.kind {
                EventKind::Incoming { .. } => {
                    calls[1] = event.dialog;
                    let dialog = event.dialog.unwrap();
                    if early {
                        let body = Some(offer.clone());
                        net.agents[1]
                            .ring(now, dialog, 183, true, &none(), body)
                            .unwrap();
                    } else {
                        net.agents[1]
                            .accept(now, dialog, &none(), Some(offer.clone()))
                            .unwrap();
                    }
                }
                EventKind::Progress {
                    answer_wanted: true,
                    response,
                    ..
                } => {
                    assert_eq!(response.body, offer.bytes);
                    let dialog = event.dialog.unwrap();
                    net.agents[0]
                        .answer_provisional(now, dialog, answer.clone())
                        .unwrap();
                }
                EventKind::ProvisionalAcknowledged { body } => {
                    got = body;
                    let dialog = event.dialog.unwrap();
                    let at = Some(now + Duration::from_secs(1));
                    net.agents[agent].set_timer(dialog, at).unwrap();
                }
                EventKind::Timer => {
                    net.agents[1]
                        .accept(now, event.dialog.unwrap(), &none(), None)
                        .unwrap();
                }
                EventKind::Answered { acknowledge, .. } => {
                    calls[0] = event.dialog;
                    assert_eq!(acknowledge, !early);
                    if acknowledge {
                        let body = Some(answer.clone());
                        net.agents[0]
                            .acknowledge(now, event.dialog.unwrap(), body)
                            .unwrap();
                    }
                }
                EventKind::Acknowledged { body } if !early => got = body,
                _ => {}
            }
        });
        let [Some(caller), Some(callee)] = calls else {
            assert!(seed % 4 > 1, "seed {seed}\n{}", net.log());
            net.at_rest();
            continue;
        };
        assert_eq!(got.as_ref(), Some(&answer), "seed {seed}\n{}", net.log());
        let (ours, theirs) = (net.agents[0].view(caller), net.agents[1].view(callee));
        let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
        assert_eq!(ours.local.body.as_ref(), Some(&answer));
        assert_eq!(ours.remote.body.as_ref(), Some(&offer));
        assert_eq!(
            (theirs.local.body, theirs.remote.body),
            (ours.remote.body, ours.local.body)
        );
        net.finish(
            (seed % 2) as usize,
            if seed.is_multiple_of(2) {
                caller
            } else {
                callee
            },
        );
    }
}

#[test]
fn a_late_offer_hung_up_before_its_answer_is_acknowledged_first() {
    let mut net = Net::plain();
    late(&mut net);
    let callee = net.incoming(1);
    let now = net.now;
    net.agents[1]
        .accept(now, callee, &none(), Some(sdp(3, "sendrecv")))
        .unwrap();
    let caller = net.until("the answer", |_, event| {
        let answered = matches!(
            event.kind,
            EventKind::Answered {
                acknowledge: true,
                ..
            }
        );
        event.dialog.filter(|_| answered)
    });
    net.finish(0, caller);
    assert_eq!(
        (net.count(0, "ACK"), net.count(0, "BYE")),
        (1, 1),
        "{}",
        net.log()
    );
}

/// Provisionals in a row, all reliable, on any network: each is told once and in order.
#[test]
fn reliable_provisionals_come_in_order_each_once_on_any_network() {
    for seed in 0..60_u64 {
        let mut net = Net::new(2, seed, faults(seed));
        net.call(7);
        let mut seen = Vec::new();
        let mut answered = None;
        net.run(150, |net, _, event| {
            let now = net.now;
            match event.kind {
                EventKind::Incoming { .. } => {
                    let dialog = event.dialog.unwrap();
                    let agent = &mut net.agents[1];
                    for status in [180, 181, 182, 183] {
                        agent
                            .ring(now, dialog, status, true, &Headers::new(), None)
                            .unwrap();
                    }
                    agent
                        .accept(now, dialog, &none(), Some(sdp(1, "sendrecv")))
                        .unwrap();
                }
                EventKind::Progress { response, .. } => seen.push(response.status),
                EventKind::Answered { .. } => answered = event.dialog,
                _ => {}
            }
        });
        match answered {
            Some(caller) => {
                assert_eq!(seen, [180, 181, 182, 183], "seed {seed}\n{}", net.log());
                if net.agents[0].view(caller).is_ok() {
                    net.finish(0, caller);
                }
            }
            None => assert!(seed % 4 > 1, "seed {seed}\n{}", net.log()),
        }
        net.at_rest();
    }
}
