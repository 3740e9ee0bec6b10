//! Calls placed and taken, their ends and their races.

use std::time::Duration;

use trunkline_sip::agent::{
    Agent, AgentError, CallState, Credentials, EndCause, EndedBy, EventKind, Invite,
};
use trunkline_sip::dialog::Role;
use trunkline_sip::digest::{Algorithm, Challenge};
use trunkline_sip::message::Method;

use super::net::{Faults, Net, address, config, faults, header, none, sdp};

#[test]
fn a_dialog_tells_who_when_and_what_and_carries_its_context() {
    let mut net = Net::plain();
    net.call(7);
    let callee = net.incoming(1);
    assert_eq!(
        net.agents[1].view(callee).unwrap().state,
        CallState::Pending
    );
    *net.agents[1].context_mut(callee).unwrap() = 8;
    let now = net.now;
    net.agents[1]
        .ring(now, callee, 180, false, &none(), None)
        .unwrap();
    assert_eq!(net.agents[1].view(callee).unwrap().state, CallState::Early);
    let caller = net.until("ringing", |agent, event| {
        assert_eq!((agent, event.context), (0, 7));
        event.dialog
    });
    assert_eq!(net.agents[0].view(caller).unwrap().state, CallState::Early);
    let now = net.now;
    let answer = Some(sdp(5, "sendrecv"));
    net.agents[1]
        .accept(now, callee, &none(), answer.clone())
        .unwrap();
    net.until("the ACK", |_, event| {
        assert_eq!(event.context, if event.attempt.is_some() { 7 } else { 8 });
        matches!(event.kind, EventKind::Acknowledged { .. }).then_some(())
    });
    let (ours, theirs) = (
        net.agents[0].view(caller).unwrap(),
        net.agents[1].view(callee).unwrap(),
    );
    assert_eq!((ours.state, ours.role), (CallState::Confirmed, Role::Uac));
    assert_eq!(
        (theirs.state, theirs.role),
        (CallState::Confirmed, Role::Uas)
    );
    assert_eq!(ours.id, theirs.id.mirrored());
    assert_eq!(
        (ours.local.body, ours.remote.body),
        (theirs.remote.body, answer)
    );
    assert_eq!(theirs.calling.unwrap().user, "alice");
    assert_eq!(
        (theirs.called.user.as_str(), ours.remote.address),
        ("bob", address(1))
    );
    assert!(ours.times.started < ours.times.early.unwrap());
    assert!(ours.times.early.unwrap() < ours.times.connected.unwrap());
    let now = net.now;
    let reason = header("Reason", "Q.850;cause=16;text=\"bye\"");
    net.agents[0].hangup(now, caller, &reason).unwrap();
    let ends = net
        .idle(1)
        .into_iter()
        .filter_map(|(agent, event)| match event.kind {
            EventKind::Ended(end) => Some((agent, event.context, end)),
            _ => None,
        });
    let ends: Vec<_> = ends.collect();
    let [(0, 7, ours), (1, 8, theirs)] = &ends[..] else {
        panic!("{ends:?}");
    };
    assert_eq!((ours.by, ours.cause), (EndedBy::Us, EndCause::Hangup));
    assert_eq!((theirs.by, theirs.cause), (EndedBy::Peer, EndCause::Hangup));
    assert_eq!(theirs.reasons[0].cause, Some(16));
    assert_eq!(theirs.view.state, CallState::Terminated);
    assert!(theirs.view.times.ended.is_some());
    net.at_rest();
}

#[test]
fn a_dialog_used_after_its_end_is_a_typed_error() {
    let mut net = Net::plain();
    let (caller, callee) = net.established();
    net.finish(0, caller);
    let now = net.now;
    let agent = &mut net.agents[1];
    assert_eq!(agent.hangup(now, callee, &none()), Err(AgentError::Ended));
    assert_eq!(
        agent.modify(now, callee, &none(), None),
        Err(AgentError::Ended)
    );
    assert_eq!(agent.view(callee).unwrap_err(), AgentError::Ended);
    let info = agent.request(now, callee, Method::Info, &none(), None);
    assert_eq!(info, Err(AgentError::Ended));
    let mut other = Net::plain();
    assert_eq!(
        other.agents[0].hangup(now, callee, &none()),
        Err(AgentError::Unknown)
    );
}

#[test]
fn the_unspecified_address_is_never_a_contact() {
    for host in ["0.0.0.0", "[::]"] {
        let mut config = config(0, 1);
        config.contact = format!("sip:a@{host}:5060").parse().unwrap();
        assert_eq!(Agent::<u64>::new(config).unwrap_err(), AgentError::Contact);
    }
}

/// Calls on any network: answered after ringing, ended by either side.
#[test]
fn calls_converge_on_any_network_whoever_hangs_up() {
    for seed in 0..60 {
        let mut net = Net::new(2, seed, faults(seed));
        let hangs_up = (seed / 4 % 2) as usize;
        net.call(7);
        let mut ends = [0; 2];
        let mut failed = false;
        net.run(300, |net, agent, event| {
            let now = net.now;
            let dialog = event.dialog;
            match event.kind {
                EventKind::Incoming { .. } => {
                    let dialog = dialog.unwrap();
                    net.agents[1]
                        .ring(now, dialog, 180, false, &none(), None)
                        .unwrap();
                    let at = Some(now + Duration::from_secs(3));
                    net.agents[1].set_timer(dialog, at).unwrap();
                }
                EventKind::Timer
                    if agent == 1
                        && net.agents[1].view(dialog.unwrap()).unwrap().state
                            == CallState::Early =>
                {
                    let answer = Some(sdp(1, "sendrecv"));
                    net.agents[1]
                        .accept(now, dialog.unwrap(), &none(), answer)
                        .unwrap();
                    let at = Some(now + Duration::from_secs(5));
                    net.agents[1].set_timer(dialog.unwrap(), at).unwrap();
                }
                EventKind::Answered { acknowledge, .. } => {
                    assert!(!acknowledge);
                    let at = Some(now + Duration::from_secs(5));
                    net.agents[0].set_timer(dialog.unwrap(), at).unwrap();
                }
                EventKind::Timer if agent == hangs_up => {
                    net.agents[agent]
                        .hangup(now, dialog.unwrap(), &none())
                        .unwrap();
                }
                EventKind::Ended(_) => ends[agent] += 1,
                EventKind::Failed { .. } => failed = true,
                _ => {}
            }
        });
        assert!(
            failed || ends == [1, 1],
            "seed {seed}: {ends:?}\n{}",
            net.log()
        );
        assert!(!failed || seed % 4 > 1, "seed {seed}\n{}", net.log());
        net.at_rest();
    }
}

#[test]
fn a_2xx_is_repeated_until_its_ack_and_ends_in_a_bye_with_reason_without_one() {
    let mut net = Net::plain();
    net.drop_first.push(("ACK".to_owned(), 1000));
    net.call(7);
    let callee = net.incoming(1);
    let now = net.now;
    net.agents[1]
        .accept(now, callee, &none(), Some(sdp(1, "sendrecv")))
        .unwrap();
    let end = net.until("the end", |agent, event| match &event.kind {
        EventKind::Ended(end) if agent == 1 => Some(end.cause),
        _ => None,
    });
    assert_eq!(end, EndCause::NoAck);
    assert!(net.now - now >= Duration::from_secs(32));
    assert_eq!(net.count(1, "SIP/2.0 200"), 11);
    net.flush();
    assert!(net.last(1, "BYE").contains("Reason: SIP;cause=408"));
    net.at_rest();
}

#[test]
fn a_hangup_of_the_callee_waits_for_the_ack() {
    let mut net = Net::plain();
    net.drop_first.push(("ACK".to_owned(), 2));
    net.call(7);
    let callee = net.incoming(1);
    let now = net.now;
    net.agents[1]
        .accept(now, callee, &none(), Some(sdp(1, "sendrecv")))
        .unwrap();
    net.agents[1].hangup(now, callee, &none()).unwrap();
    assert_eq!(
        net.agents[1].hangup(now, callee, &none()),
        Err(AgentError::Ended)
    );
    net.at_rest();
    let at = |start: &str, from| {
        let found = net.wire.iter().rev();
        found
            .filter(|(_, who, _)| *who == from)
            .find(|(_, _, text)| text.starts_with(start))
            .unwrap()
            .0
    };
    assert!(at("BYE", 1) > at("ACK", 0), "{}", net.log());
    assert_eq!(net.count(0, "ACK"), 3);
}

#[test]
fn cancel_is_answered_200_and_the_invite_487() {
    let mut net = Net::plain();
    let attempt = net.call(7);
    let callee = net.incoming(1);
    let now = net.now;
    net.agents[1]
        .ring(now, callee, 180, false, &none(), None)
        .unwrap();
    net.until("ringing", |_, event| {
        matches!(event.kind, EventKind::Progress { .. }).then_some(())
    });
    let now = net.now;
    let reason = header("Reason", "SIP;cause=200;text=\"Call completed elsewhere\"");
    net.agents[0].cancel(now, attempt, &reason).unwrap();
    let (mut reasons, mut status) = (0, 0);
    net.run(5, |_, agent, event| match event.kind {
        EventKind::Ended(end) if agent == 1 => {
            assert_eq!(end.cause, EndCause::Cancelled);
            reasons = end.reasons.len();
        }
        EventKind::Failed {
            status: failed,
            cancelled,
            ..
        } => {
            assert!(cancelled);
            status = failed;
        }
        _ => {}
    });
    assert_eq!((reasons, status), (1, 487));
    assert_eq!(
        net.agents[0].cancel(now, attempt, &none()),
        Err(AgentError::Ended)
    );
    net.at_rest();
}

/// CANCEL and answer cross at every distance, on any network: either 487 on both sides, or the
/// late 200 gets ACK and BYE; never a call that stays up.
#[test]
fn cancel_races_end_in_487_or_in_ack_and_bye() {
    let (mut refused, mut late) = (0, 0);
    for seed in 0..120_u64 {
        let mut net = Net::new(2, seed, faults(seed / 2));
        let attempt = net.call(7);
        let mut ended = false;
        let cancel_at = Duration::from_millis(seed % 30 * 5);
        let mut cancelled = false;
        let mut callee = None;
        net.run(1, |_, agent, event| {
            if agent == 1 && matches!(event.kind, EventKind::Incoming { .. }) {
                callee = event.dialog;
            }
        });
        let Some(callee) = callee else { continue };
        let base = net.now;
        let mut answered = false;
        for tick in 0..40_u64 {
            let now = net.now;
            let passed = now - base;
            if !cancelled && passed >= cancel_at {
                cancelled = true;
                net.agents[0].cancel(now, attempt, &none()).unwrap();
            }
            if !answered && tick == 12 {
                answered = true;
                let _ = net.agents[1].accept(now, callee, &none(), Some(sdp(1, "sendrecv")));
            }
            let end = now + Duration::from_millis(5);
            while let Some(events) = net.step(end) {
                for (agent, event) in events {
                    ended |= agent == 0
                        && matches!(
                            event.kind,
                            EventKind::Failed {
                                cancelled: true,
                                ..
                            }
                        );
                    assert!(
                        !(cancelled && matches!(event.kind, EventKind::Answered { .. })),
                        "seed {seed}"
                    );
                    if matches!(event.kind, EventKind::Answered { .. }) {
                        // The answer was there first: the user hangs up instead.
                        cancelled = true;
                        ended = true;
                        let now = net.now;
                        net.agents[0]
                            .hangup(now, event.dialog.unwrap(), &none())
                            .unwrap();
                    }
                }
            }
        }
        for (agent, event) in net.idle(150) {
            ended |= agent == 0
                && matches!(
                    event.kind,
                    EventKind::Failed {
                        cancelled: true,
                        ..
                    }
                );
        }
        assert!(ended, "seed {seed}\n{}", net.log());
        match net.count(0, "BYE") {
            0 => refused += 1,
            _ => {
                assert!(net.count(0, "ACK") > 0, "{}", net.log());
                late += 1;
            }
        }
        net.at_rest();
    }
    assert!(refused > 5 && late > 5, "{refused} {late}");
}

#[test]
fn a_call_that_nobody_answers_fails_with_408_and_a_silent_cancel_ends_too() {
    let mut net = Net::plain();
    let invite = net.invite(0, "192.0.2.77:5060".parse().unwrap());
    let attempt = net.agents[0].call(net.now, invite, 1).unwrap();
    net.agents[0].cancel(net.now, attempt, &none()).unwrap();
    let events = net.idle(40);
    let failed = events.iter().any(|(_, event)| {
        matches!(
            event.kind,
            EventKind::Failed {
                status: 408,
                cancelled: true,
                ..
            }
        )
    });
    assert!(failed, "{events:?}");
    assert_eq!(net.count(0, "CANCEL"), 0, "no CANCEL before a provisional");
    net.at_rest();
}

#[test]
fn a_200_without_contact_is_an_error_and_is_still_acknowledged_and_ended() {
    let mut net = Net::plain();
    let invite = net.invite(0, "192.0.2.2:5060".parse().unwrap());
    net.agents[0].call(net.now, invite, 1).unwrap();
    net.flush();
    let sent = net.last(0, "INVITE");
    let field = |name: &str| {
        sent.lines()
            .find(|line| line.starts_with(name))
            .unwrap()
            .to_owned()
    };
    let answer = format!(
        "SIP/2.0 200 OK\r\n{}\r\n{}\r\n{};tag=x\r\n{}\r\n{}\r\nContent-Length: 0\r\n\r\n",
        field("Via"),
        field("From"),
        field("To"),
        field("Call-ID"),
        field("CSeq")
    );
    let sent = net.inject(1, 0, &answer);
    assert!(
        sent[0].starts_with("ACK sip:bob@192.0.2.2:5060"),
        "{sent:?}"
    );
    assert!(
        sent[1].starts_with("BYE sip:bob@192.0.2.2:5060"),
        "{sent:?}"
    );
    let failed = net
        .events()
        .iter()
        .any(|(_, event)| matches!(event.kind, EventKind::Failed { status: 502, .. }));
    assert!(failed);
}

#[test]
fn a_challenged_call_is_placed_again_with_credentials_and_cancel_hits_the_live_invite() {
    let mut net = Net::plain();
    let invite = Invite {
        credentials: Some(Credentials {
            username: "alice".to_owned(),
            password: "secret".to_owned(),
        }),
        ..net.invite(0, address(1))
    };
    let attempt = net.agents[0].call(net.now, invite, 1).unwrap();
    let first = net.incoming(1);
    let now = net.now;
    let challenge = Challenge::new("a, b", Algorithm::Sha256, &mut net.random).to_header();
    let asked = header("WWW-Authenticate", &challenge);
    net.agents[1].reject(now, first, 401, &asked).unwrap();
    let second = net.incoming(1);
    let invite = net.last(0, "INVITE");
    assert!(
        invite.contains("CSeq: 2 INVITE") && invite.contains("algorithm=SHA-256"),
        "{invite}"
    );
    assert!(invite.contains("realm=\"a, b\""), "{invite}");
    let now = net.now;
    net.agents[1]
        .ring(now, second, 180, false, &none(), None)
        .unwrap();
    net.until("ringing", |_, event| {
        matches!(event.kind, EventKind::Progress { .. }).then_some(())
    });
    let now = net.now;
    net.agents[0].cancel(now, attempt, &none()).unwrap();
    net.at_rest();
    assert!(net.last(0, "CANCEL").contains("CSeq: 2 CANCEL"));
    assert_eq!(net.count(0, "CANCEL"), 1);
}

#[test]
fn redirections_are_followed_as_often_as_allowed() {
    for (allowed, reached) in [(0, false), (1, true)] {
        let mut net = Net::new(3, 1, Faults::default());
        let invite = Invite {
            redirects_max: allowed,
            ..net.invite(0, address(1))
        };
        net.agents[0].call(net.now, invite, 1).unwrap();
        let first = net.incoming(1);
        let now = net.now;
        let to = header("Contact", "<sip:carol@192.0.2.3:5060>");
        net.agents[1].reject(now, first, 302, &to).unwrap();
        let events = net.idle(5);
        let came = events
            .iter()
            .any(|(agent, event)| *agent == 2 && matches!(event.kind, EventKind::Incoming { .. }));
        let failed = events
            .iter()
            .any(|(_, event)| matches!(event.kind, EventKind::Failed { status: 302, .. }));
        assert_eq!((came, failed), (reached, !reached));
    }
}

#[test]
fn unknown_extensions_and_methods_are_refused_with_what_we_can() {
    let mut net = Net::plain();
    let head = |method: &str, extra: &str| {
        format!(
            "{method} sip:bob@192.0.2.2 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK{method}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:a@192.0.2.1>;tag=1\r\nTo: <sip:b@192.0.2.2>\r\nCall-ID: {method}\r\n\
         CSeq: 1 {method}\r\nContact: <sip:a@192.0.2.1>\r\n{extra}Content-Length: 0\r\n\r\n"
        )
    };
    let refused = net.inject(0, 1, &head("INVITE", "Require: 100rel, telepathy\r\n"));
    assert!(refused[0].starts_with("SIP/2.0 420") && refused[0].contains("Unsupported: telepathy"));
    let refused = net.inject(0, 1, &head("PUBLISH", ""));
    assert!(refused[0].starts_with("SIP/2.0 405") && refused[0].contains("Allow: INVITE"));
    let ok = net.inject(0, 1, &head("OPTIONS", ""));
    assert!(
        ok[0].starts_with("SIP/2.0 200") && ok[0].contains("Supported: 100rel, replaces, timer")
    );
}

#[test]
fn crossed_byes_end_both_sides_and_none_is_met_with_silence() {
    let mut net = Net::plain();
    let (caller, callee) = net.established();
    let now = net.now;
    net.agents[0].hangup(now, caller, &none()).unwrap();
    net.agents[1].hangup(now, callee, &none()).unwrap();
    let ends = net
        .idle(1)
        .into_iter()
        .filter(|(_, event)| matches!(event.kind, EventKind::Ended(_)));
    assert_eq!(ends.count(), 2);
    assert_eq!(
        (net.count(0, "SIP/2.0 481"), net.count(1, "SIP/2.0 481")),
        (1, 1)
    );
    net.at_rest();
}
