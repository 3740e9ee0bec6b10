//! Transfers (REFER, Replaces) and dialogs that outlive their process.

use std::time::Duration;

use trunkline_sip::agent::{
    Agent, DialogHandle, EndCause, EventKind, Invite, Snapshot, SubscriptionHandle,
};
use trunkline_sip::message::{Headers, NameAddr, Replaces, percent_decode};

use super::net::{Faults, Net, address, config, faults, none, sdp};

/// Agent 0 (transferee) does what a REFER says and reports the outcome.
struct Transferee {
    subscription: Option<SubscriptionHandle>,
}

impl Transferee {
    fn on_event(&mut self, net: &mut Net, dialog: Option<DialogHandle>, kind: &EventKind) {
        let now = net.now;
        match kind {
            EventKind::Refer {
                request_handle,
                refer_to,
                ..
            } => {
                let subscription = net.agents[0].accept_refer(now, *request_handle).unwrap();
                self.subscription = Some(subscription);
                let mut invite = net.invite(0, address(2));
                invite.uri = refer_to.uri.without_headers();
                let replaces = refer_to.uri.headers();
                let replaces = replaces.iter().find(|(name, _)| name == "Replaces");
                invite.replaces = replaces.map(|(_, value)| {
                    let text = percent_decode(value).into_owned();
                    Replaces::parse(&text).unwrap()
                });
                net.agents[0].call(now, invite, 99).unwrap();
            }
            EventKind::Progress { response, .. } => self.report(net, response.status),
            EventKind::Answered { .. } if dialog.is_some() => self.report(net, 200),
            EventKind::Failed { status, .. } => self.report(net, *status),
            _ => {}
        }
    }

    fn report(&mut self, net: &mut Net, status: u16) {
        if let Some(subscription) = self.subscription {
            let now = net.now;
            let _ = net.agents[0].report(now, subscription, status);
        }
    }
}

/// A blind transfer of agent 0 by agent 1 to agent 2, which answers with this status.
fn blind(seed: u64, status: u16) {
    let mut net = Net::new(3, seed, Faults::default());
    let (caller, callee) = net.established();
    net.faults = faults(seed);
    let to: NameAddr = NameAddr::new("sip:carol@192.0.2.3:5060".parse().unwrap());
    let now = net.now;
    let refer = net.agents[1].refer(now, callee, &to, &none()).unwrap();
    let mut transferee = Transferee { subscription: None };
    let mut course: Vec<Option<u16>> = Vec::new();
    let mut done = 0;
    net.run(150, |net, agent, event| {
        let now = net.now;
        match &event.kind {
            EventKind::Incoming { .. } if agent == 2 => {
                let dialog = event.dialog.unwrap();
                net.agents[2]
                    .ring(now, dialog, 180, false, &none(), None)
                    .unwrap();
                let at = Some(now + Duration::from_secs(2));
                net.agents[2].set_timer(dialog, at).unwrap();
            }
            EventKind::Timer => {
                let dialog = event.dialog.unwrap();
                let third = &mut net.agents[2];
                if status < 300 {
                    third
                        .accept(now, dialog, &none(), Some(sdp(1, "sendrecv")))
                        .unwrap();
                } else {
                    third.reject(now, dialog, status, &none()).unwrap();
                }
            }
            EventKind::ReferProgress {
                subscription,
                status,
                done: last,
            } if agent == 1 => {
                assert_eq!(*subscription, refer);
                course.push(*status);
                done += usize::from(*last);
            }
            kind if agent == 0 => transferee.on_event(net, event.dialog, kind),
            _ => {}
        }
    });
    assert_eq!(done, 1, "seed {seed}: {course:?}\n{}", net.log());
    let known = course.last().copied().flatten();
    assert!(
        known == Some(status) || seed % 4 > 1,
        "seed {seed}: {course:?}\n{}",
        net.log()
    );
    for (agent, dialog) in [(1, callee), (0, caller)] {
        let now = net.now;
        let _ = net.agents[agent].hangup(now, dialog, &none());
        let _ = net.idle(100);
    }
    for dialog in net.agents[0].dialogs() {
        let now = net.now;
        net.agents[0].hangup(now, dialog, &none()).unwrap();
    }
    let _ = net.idle(100);
    for dialog in net.agents[2].dialogs() {
        let now = net.now;
        net.agents[2].hangup(now, dialog, &none()).unwrap();
    }
    net.at_rest();
}

#[test]
fn a_blind_transfer_tells_its_true_outcome_on_any_network() {
    for seed in 0..24 {
        for status in [200, 486] {
            blind(seed, status);
        }
    }
}

#[test]
fn an_attended_transfer_replaces_the_consultation() {
    let mut net = Net::new(3, 1, Faults::default());
    let (caller, callee) = net.established();
    // Agent 1 consults agent 2.
    let invite = net.invite(1, address(2));
    net.agents[1].call(net.now, invite, 5).unwrap();
    let third = net.incoming(2);
    let now = net.now;
    net.agents[2]
        .accept(now, third, &none(), Some(sdp(1, "sendrecv")))
        .unwrap();
    let consultation = net.until("the consultation", |agent, event| {
        let answered = agent == 1 && matches!(event.kind, EventKind::Answered { .. });
        event.dialog.filter(|_| answered)
    });
    let _ = net.idle(1);
    let to = net.agents[1].refer_to_replacing(consultation).unwrap();
    let now = net.now;
    net.agents[1].refer(now, callee, &to, &none()).unwrap();
    let mut transferee = Transferee { subscription: None };
    let (mut replaced, mut outcome, mut ends) = (None, None, Vec::new());
    net.run(20, |net, agent, event| {
        let now = net.now;
        match &event.kind {
            EventKind::Incoming { replaces, .. } => {
                replaced = *replaces;
                let dialog = event.dialog.unwrap();
                net.agents[2]
                    .accept(now, dialog, &none(), Some(sdp(1, "sendrecv")))
                    .unwrap();
            }
            EventKind::ReferProgress {
                status, done: true, ..
            } => outcome = *status,
            EventKind::Ended(end) => ends.push((agent, end.cause)),
            kind if agent == 0 => transferee.on_event(net, event.dialog, kind),
            _ => {}
        }
    });
    assert_eq!((replaced, outcome), (Some(third), Some(200)));
    assert_eq!(ends, [(2, EndCause::Replaced), (1, EndCause::Hangup)]);
    assert_eq!(
        (net.agents[0].dialogs().len(), net.agents[2].dialogs().len()),
        (2, 1)
    );
    net.agents[1].hangup(net.now, callee, &none()).unwrap();
    let _ = net.idle(1);
    assert!(net.agents[0].view(caller).is_err());
    let last = net.agents[0].dialogs()[0];
    net.finish(0, last);
}

#[test]
fn replaces_for_nothing_is_481_and_early_only_of_an_answered_call_486() {
    let mut net = Net::plain();
    let (caller, callee) = net.established();
    let theirs = net.agents[1].view(callee).unwrap().id;
    let named = Replaces {
        call_id: theirs.call_id.clone(),
        to_tag: theirs.local_tag.clone(),
        from_tag: theirs.remote_tag.clone(),
        early_only: true,
    };
    let unknown = Replaces {
        call_id: "nobody".to_owned(),
        ..named.clone()
    };
    for (replaces, expected) in [(named, 486), (unknown, 481)] {
        let invite = Invite {
            replaces: Some(replaces),
            ..net.invite(0, address(1))
        };
        net.agents[0].call(net.now, invite, 1).unwrap();
        let status = net.until("the refusal", |_, event| match event.kind {
            EventKind::Failed { status, .. } => Some(status),
            _ => None,
        });
        assert_eq!(status, expected);
    }
    net.finish(0, caller);
}

#[test]
fn a_transfer_without_outcome_is_given_up_in_time_on_both_sides() {
    let mut net = Net::plain();
    let (caller, callee) = net.established();
    let to = NameAddr::new("sip:carol@192.0.2.3:5060".parse().unwrap());
    let now = net.now;
    net.agents[1].refer(now, callee, &to, &none()).unwrap();
    let mut last = None;
    net.run(100, |net, _, event| match event.kind {
        EventKind::Refer { request_handle, .. } => {
            let now = net.now;
            net.agents[0].accept_refer(now, request_handle).unwrap();
        }
        EventKind::ReferProgress {
            status, done: true, ..
        } => last = Some(status),
        _ => {}
    });
    assert!(last.is_some(), "told that it is over");
    assert!(net.last(0, "NOTIFY").contains("terminated;reason=timeout"));
    net.finish(0, caller);
}

#[test]
fn a_refused_refer_and_a_stray_notify() {
    let mut net = Net::plain();
    let (caller, callee) = net.established();
    let to = NameAddr::new("sip:carol@192.0.2.3:5060".parse().unwrap());
    let now = net.now;
    net.agents[1].refer(now, callee, &to, &none()).unwrap();
    let mut outcome = None;
    net.run(5, |net, _, event| match event.kind {
        EventKind::Refer { request_handle, .. } => {
            let now = net.now;
            net.agents[0]
                .answer(now, request_handle, 603, &none(), None)
                .unwrap();
        }
        EventKind::ReferProgress {
            status, done: true, ..
        } => outcome = status,
        _ => {}
    });
    assert_eq!(outcome, Some(603));
    let now = net.now;
    let notify = trunkline_sip::message::Method::Notify;
    let mut headers = Headers::new();
    headers.append("Event", "refer");
    headers.append("Subscription-State", "active");
    let sent = net.agents[0]
        .request(now, caller, notify, &headers, None)
        .unwrap();
    let status = net.until("the refusal", |_, event| match &event.kind {
        EventKind::Response {
            sent: own,
            response,
        } if *own == sent => Some(response.status),
        _ => None,
    });
    assert_eq!(status, 481);
    net.finish(0, caller);
}

/// Both agents die and come back from their snapshots: the call is changed and ended as if
/// nothing had been.
#[test]
fn a_restored_call_goes_on() {
    for seed in 0..20_u64 {
        let mut net = Net::new(2, seed, Faults::default());
        let (caller, callee) = net.established();
        let _ = net.idle(10);
        let mut restored = Vec::new();
        for (agent, dialog) in [(0, caller), (1, callee)] {
            let snapshot = net.agents[agent].snapshot(net.now, dialog).unwrap();
            let text = serde_json::to_string(&snapshot).unwrap();
            assert!(text.len() < 4096, "{}", text.len());
            let snapshot: Snapshot = serde_json::from_str(&text).unwrap();
            let mut fresh = Agent::new(config(agent, seed + 1000)).unwrap();
            let handle = fresh
                .restore(net.now, snapshot.clone(), 70 + agent as u64)
                .unwrap();
            assert!(fresh.restore(net.now, snapshot, 0).is_err());
            let (before, after) = (
                net.agents[agent].view(dialog).unwrap(),
                fresh.view(handle).unwrap(),
            );
            assert_eq!((&before.id, before.state), (&after.id, after.state));
            assert_eq!(
                (before.calling, before.called),
                (after.calling, after.called)
            );
            assert_eq!((before.local, before.remote), (after.local, after.remote));
            net.agents[agent] = fresh;
            restored.push(handle);
        }
        net.faults = faults(seed);
        let now = net.now;
        net.agents[0]
            .modify(now, restored[0], &none(), Some(sdp(2, "sendonly")))
            .unwrap();
        let mut modified = None;
        net.run(100, |net, agent, event| {
            assert_eq!(event.context, 70 + agent as u64);
            match event.kind {
                EventKind::Offer { request_handle, .. } => {
                    let now = net.now;
                    let body = Some(sdp(2, "recvonly"));
                    net.agents[1]
                        .answer(now, request_handle, 200, &none(), body)
                        .unwrap();
                }
                EventKind::Modified { .. } => modified = Some(event.context),
                _ => {}
            }
        });
        assert!(
            modified == Some(70) || seed % 4 > 1,
            "seed {seed}\n{}",
            net.log()
        );
        let now = net.now;
        let _ = net.agents[1].hangup(now, restored[1], &none());
        net.at_rest();
    }
}
