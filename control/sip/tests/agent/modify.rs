//! Changes of a running session: hold, crossing changes, UPDATE, session timers.

use std::time::Duration;

use trunkline_sip::agent::{Body, EndCause, EndedBy, EventKind, MediaChange};
use trunkline_sip::dialog::SessionPolicy;
use trunkline_sip::message::Method;

use super::net::{Faults, Net, config, faults, header, none, sdp};

/// Answers every offer with the matching direction.
fn answer(net: &mut Net, agent: usize, kind: &EventKind) -> Option<MediaChange> {
    let EventKind::Offer {
        request_handle,
        change,
        ..
    } = kind
    else {
        return None;
    };
    let now = net.now;
    let body = Some(sdp(9, "sendrecv"));
    net.agents[agent]
        .answer(now, *request_handle, 200, &none(), body)
        .unwrap();
    Some(*change)
}

#[test]
fn hold_is_seen_by_direction_of_each_line_however_it_is_written() {
    let held = |text: &str| Body::sdp(text.to_owned());
    let lines = |c: &str, direction: &str| {
        held(&format!(
            "v=0\r\no=- 7 2 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 {c}\r\nt=0 0\r\nm=audio 4000 RTP/AVP 8\r\n{direction}"
        ))
    };
    let two = |first: &str, second: &str| {
        held(&format!(
            "v=0\r\no=- 7 2 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
             m=audio 4000 RTP/AVP 8\r\na={first}\r\nm=audio 4002 RTP/AVP 8\r\na={second}\r\n"
        ))
    };
    let cases = [
        (lines("192.0.2.1", "a=sendonly\r\n"), MediaChange::Hold),
        (lines("192.0.2.1", "a=inactive\r\n"), MediaChange::Hold),
        (lines("0.0.0.0", ""), MediaChange::Hold),
        (lines("192.0.2.1", ""), MediaChange::Other),
        (two("sendonly", "sendrecv"), MediaChange::Other),
        (two("sendonly", "inactive"), MediaChange::Hold),
        // The word alone, in another place, says nothing.
        (
            lines("192.0.2.1", "a=x-note:sendonly inactive\r\n"),
            MediaChange::Other,
        ),
    ];
    for (offer, expected) in cases {
        let mut net = Net::plain();
        let (caller, callee) = net.established();
        let now = net.now;
        net.agents[0]
            .modify(now, caller, &none(), Some(offer))
            .unwrap();
        let mut change = None;
        net.run(2, |net, agent, event| {
            change = change.or(answer(net, agent, &event.kind))
        });
        assert_eq!(change, Some(expected));
        if expected == MediaChange::Hold {
            let now = net.now;
            net.agents[0]
                .modify(now, caller, &none(), Some(sdp(3, "sendrecv")))
                .unwrap();
            let mut change = None;
            net.run(2, |net, agent, event| {
                change = change.or(answer(net, agent, &event.kind))
            });
            assert_eq!(change, Some(MediaChange::Unhold));
        }
        net.finish(1, callee);
    }
}

#[test]
fn changes_queue_and_a_refused_one_frees_its_slot() {
    let mut net = Net::plain();
    let (caller, callee) = net.established();
    let now = net.now;
    for version in 2..5 {
        net.agents[0]
            .modify(now, caller, &none(), Some(sdp(version, "sendrecv")))
            .unwrap();
    }
    let mut log = Vec::new();
    net.run(5, |net, _, event| {
        let now = net.now;
        match event.kind {
            EventKind::Offer { request_handle, .. } => {
                let status = if log.is_empty() { 488 } else { 200 };
                let body = (status == 200).then(|| sdp(9, "sendrecv"));
                net.agents[1]
                    .answer(now, request_handle, status, &none(), body)
                    .unwrap();
            }
            EventKind::ModifyFailed { status, .. } => log.push(status),
            EventKind::Modified { response, .. } => log.push(response.status),
            _ => {}
        }
    });
    assert_eq!(log, [488, 200, 200]);
    assert_eq!(
        net.agents[0].view(caller).unwrap().local.body,
        Some(sdp(4, "sendrecv"))
    );
    net.finish(1, callee);
}

#[test]
fn a_2xx_to_a_reinvite_is_repeated_until_its_ack_and_without_one_the_call_ends() {
    for lost in [3, 1000] {
        let mut net = Net::plain();
        let (caller, callee) = net.established();
        net.drop_first.push(("ACK".to_owned(), lost));
        let before = net.count(1, "SIP/2.0 200");
        let now = net.now;
        net.agents[0]
            .modify(now, caller, &none(), Some(sdp(2, "sendonly")))
            .unwrap();
        let mut end = None;
        net.run(40, |net, agent, event| {
            answer(net, agent, &event.kind);
            if let EventKind::Ended(ended) = event.kind
                && agent == 1
            {
                end = Some(ended.cause);
            }
        });
        if lost == 3 {
            assert_eq!((end, net.count(1, "SIP/2.0 200") - before), (None, 4));
            net.finish(1, callee);
        } else {
            assert_eq!(end, Some(EndCause::NoAck));
            net.at_rest();
        }
    }
}

#[test]
fn a_reinvite_that_nobody_answers_gets_a_final_response_all_the_same() {
    let mut net = Net::plain();
    let (caller, callee) = net.established();
    let now = net.now;
    net.agents[0]
        .modify(now, caller, &none(), Some(sdp(2, "sendonly")))
        .unwrap();
    let (mut failed, mut gone) = (0, 0);
    net.run(60, |_, _, event| match event.kind {
        EventKind::ModifyFailed { status, .. } => failed = status,
        EventKind::OfferGone { .. } => gone += 1,
        _ => {}
    });
    assert_eq!((failed, gone), (500, 1));
    net.finish(1, callee);
}

#[test]
fn a_cancelled_reinvite_leaves_the_call_as_it_was() {
    let mut net = Net::plain();
    let (caller, callee) = net.established();
    let now = net.now;
    net.agents[0]
        .modify(now, caller, &none(), Some(sdp(2, "sendonly")))
        .unwrap();
    net.until("the offer", |_, event| {
        matches!(event.kind, EventKind::Offer { .. }).then_some(())
    });
    let _ = net.idle(1);
    let now = net.now;
    net.agents[0].cancel_modify(now, caller).unwrap();
    let mut failed = 0;
    net.run(2, |_, _, event| {
        if let EventKind::ModifyFailed { status, .. } = event.kind {
            failed = status;
        }
    });
    assert_eq!(failed, 487);
    assert_eq!(
        net.agents[0].view(caller).unwrap().local.body,
        Some(sdp(1, "sendrecv"))
    );
    net.finish(1, callee);
}

/// Both sides change the session at the same moment, by re-INVITE or UPDATE, on any network:
/// 491, a wait by the owner of the Call-ID, and in the end both changes are made.
#[test]
fn crossing_changes_are_both_made_on_any_network() {
    for seed in 0..80_u64 {
        let mut net = Net::new(2, seed, Faults::default());
        let (caller, callee) = net.established();
        net.faults = faults(seed);
        let now = net.now;
        let by_update = [seed & 4 != 0, seed & 8 != 0];
        for (agent, dialog) in [(0, caller), (1, callee)] {
            let body = Some(sdp(20 + agent as u32, "sendrecv"));
            if by_update[agent] {
                net.agents[agent]
                    .update(now, dialog, &none(), body)
                    .unwrap();
            } else {
                net.agents[agent]
                    .modify(now, dialog, &none(), body)
                    .unwrap();
            }
        }
        let mut modified = [0; 2];
        let mut over = false;
        net.run(100, |net, agent, event| {
            answer(net, agent, &event.kind);
            match event.kind {
                EventKind::Modified { .. } => modified[agent] += 1,
                // Heavy loss may last for 32 s: then the peer counts as gone.
                EventKind::Ended(_) | EventKind::ModifyFailed { .. } => over = true,
                _ => {}
            }
        });
        assert!(modified == [1, 1] || over, "seed {seed}\n{}", net.log());
        assert!(!over || seed % 4 > 1, "seed {seed}\n{}", net.log());
        if seed % 4 == 0 {
            let refused = net.count(0, "SIP/2.0 491") + net.count(1, "SIP/2.0 491");
            assert!(refused >= 1, "seed {seed}\n{}", net.log());
        }
        if net.agents[0].view(caller).is_ok() {
            net.finish(0, caller);
        } else {
            net.at_rest();
        }
    }
}

#[test]
fn an_update_changes_an_early_session() {
    let mut net = Net::plain();
    net.call(7);
    let callee = net.incoming(1);
    let now = net.now;
    let body = Some(sdp(1, "sendrecv"));
    net.agents[1]
        .ring(now, callee, 183, true, &none(), body)
        .unwrap();
    let caller = net.until("progress", |_, event| event.dialog);
    let _ = net.idle(1);
    let now = net.now;
    net.agents[0]
        .update(now, caller, &none(), Some(sdp(2, "sendonly")))
        .unwrap();
    let (mut change, mut modified) = (None, 0);
    net.run(2, |net, agent, event| {
        change = change.or(answer(net, agent, &event.kind));
        modified += usize::from(matches!(event.kind, EventKind::Modified { .. }));
    });
    assert_eq!((change, modified), (Some(MediaChange::Hold), 1));
    let now = net.now;
    net.agents[1].accept(now, callee, &none(), None).unwrap();
    let _ = net.idle(1);
    net.finish(1, callee);
}

#[test]
fn the_same_offer_again_is_a_refresh_and_answered_without_the_user() {
    let mut net = Net::plain();
    let (caller, callee) = net.established();
    let now = net.now;
    net.agents[0]
        .modify(now, caller, &none(), Some(sdp(1, "sendrecv")))
        .unwrap();
    let events = net.idle(2);
    let refreshed = events.iter().filter(|(agent, event)| {
        *agent == 1 && matches!(event.kind, EventKind::Refreshed { by: EndedBy::Peer })
    });
    assert_eq!(refreshed.count(), 1);
    assert!(
        !events
            .iter()
            .any(|(_, event)| matches!(event.kind, EventKind::Offer { .. }))
    );
    assert!(net.last(1, "SIP/2.0 200").contains("m=audio"));
    net.finish(1, callee);
}

/// Session timers on any network: whoever refreshes, the call lives on for an hour; when
/// refreshes no longer come through it ends on both sides.
#[test]
fn session_timers_keep_a_call_and_end_a_dead_one() {
    for seed in 0..24_u64 {
        let policy = |interval_s, min_s| Some(SessionPolicy { interval_s, min_s });
        let mut configs = [config(0, seed), config(1, seed)];
        // The callee asks for at least 120 s: the caller's 90 s get 422 first.
        configs[0].session = if seed & 4 == 0 {
            policy(90, 90)
        } else {
            policy(600, 90)
        };
        configs[1].session = if seed & 8 == 0 {
            policy(1800, 120)
        } else {
            policy(300, 120)
        };
        let mut net = Net::with(configs.into(), seed, Faults::default());
        let (caller, callee) = net.established();
        assert_eq!(net.count(1, "SIP/2.0 422"), usize::from(seed & 4 == 0));
        net.faults = Faults {
            loss: 10,
            ..faults(seed)
        };
        let mut refreshed = [0; 2];
        net.run(3600, |_, agent, event| {
            if matches!(event.kind, EventKind::Refreshed { .. }) {
                refreshed[agent] += 1;
            }
            assert!(
                !matches!(event.kind, EventKind::Ended(_)),
                "seed {seed} {agent}"
            );
        });
        assert!(
            refreshed[0] >= 10 && refreshed[1] >= 10,
            "seed {seed}: {refreshed:?}"
        );
        // From now on nothing comes through.
        net.faults.loss = 100;
        let mut ends = Vec::new();
        net.run(1000, |_, agent, event| {
            if let EventKind::Ended(end) = event.kind {
                ends.push((agent, end.cause));
            }
        });
        ends.sort_by_key(|(agent, _)| *agent);
        assert_eq!(ends.len(), 2, "{ends:?}");
        for (_, cause) in ends {
            assert!(
                matches!(cause, EndCause::SessionExpired | EndCause::PeerLost),
                "{cause:?}"
            );
        }
        assert!(net.agents[0].view(caller).is_err() && net.agents[1].view(callee).is_err());
        net.at_rest();
    }
}

#[test]
fn requests_in_a_dialog_reach_the_user_and_come_back_answered() {
    let mut net = Net::plain();
    let (caller, callee) = net.established();
    let now = net.now;
    let body = Some(Body {
        content_type: "application/dtmf-relay".to_owned(),
        bytes: b"Signal=5\r\n".to_vec(),
    });
    let sent = net.agents[0]
        .request(now, caller, Method::Info, &header("X-One", "1"), body)
        .unwrap();
    let unknown = net.agents[0]
        .request(now, caller, Method::Publish, &none(), None)
        .unwrap();
    let options = net.agents[0]
        .request(now, caller, Method::Options, &none(), None)
        .unwrap();
    let mut ended = Vec::new();
    net.run(2, |net, _, event| match event.kind {
        EventKind::Request {
            request_handle,
            request,
        } => {
            assert_eq!(request.headers.get("X-One").unwrap(), "1");
            assert_eq!(request.body, b"Signal=5\r\n");
            let now = net.now;
            net.agents[1]
                .answer(now, request_handle, 200, &header("X-Two", "2"), None)
                .unwrap();
        }
        EventKind::Response { sent, response } => ended.push((sent, response.status)),
        _ => {}
    });
    ended.sort_unstable();
    assert_eq!(ended, [(sent, 200), (unknown, 405), (options, 200)]);
    net.finish(1, callee);
}

#[test]
fn what_is_open_when_a_bye_comes_is_answered_487() {
    let mut net = Net::plain();
    let (caller, _) = net.established();
    let now = net.now;
    net.agents[0]
        .modify(now, caller, &none(), Some(sdp(2, "sendonly")))
        .unwrap();
    net.until("the offer", |_, event| {
        matches!(event.kind, EventKind::Offer { .. }).then_some(())
    });
    let now = net.now;
    net.agents[0].hangup(now, caller, &none()).unwrap();
    net.at_rest();
    assert_eq!(net.count(1, "SIP/2.0 487"), 1, "{}", net.log());
    assert_eq!(net.count(0, "ACK"), 2, "{}", net.log());
}

#[test]
fn a_2xx_to_a_reinvite_that_crosses_our_bye_is_acknowledged() {
    let mut net = Net::plain();
    let (caller, callee) = net.established();
    let now = net.now;
    net.agents[1]
        .modify(now, callee, &none(), Some(sdp(2, "sendonly")))
        .unwrap();
    let offer = net.until("the offer", |_, event| match &event.kind {
        EventKind::Offer { request_handle, .. } => Some(*request_handle),
        _ => None,
    });
    let now = net.now;
    net.agents[0]
        .answer(now, offer, 200, &none(), Some(sdp(3, "recvonly")))
        .unwrap();
    net.agents[1].hangup(now, callee, &none()).unwrap();
    net.run(Duration::from_secs(2).as_secs(), |_, _, _| {});
    assert_eq!(net.count(1, "ACK"), 1, "{}", net.log());
    assert!(net.agents[0].view(caller).is_err());
    net.at_rest();
}

#[test]
fn an_update_that_nobody_answers_holds_up_no_other() {
    let mut net = Net::plain();
    let (caller, callee) = net.established();
    let now = net.now;
    net.agents[0]
        .update(now, caller, &none(), Some(sdp(2, "sendonly")))
        .unwrap();
    let mut gone = 0;
    net.run(31, |_, _, event| {
        gone += usize::from(matches!(event.kind, EventKind::OfferGone { .. }))
    });
    assert_eq!(gone, 0);
    // Its sender gives up; as the peer seems gone it ends the call.
    net.drop_first.push(("BYE".to_owned(), 1));
    let mut end = None;
    net.run(10, |_, agent, event| match event.kind {
        EventKind::OfferGone { .. } => gone += 1,
        EventKind::Ended(ended) if agent == 0 => end = Some(ended.cause),
        _ => {}
    });
    assert_eq!((gone, end), (1, Some(EndCause::PeerLost)));
    assert!(net.agents[1].view(callee).is_err());
    net.at_rest();
}
