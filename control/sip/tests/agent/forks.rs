//! Several dialogs of one INVITE.

use std::time::Duration;

use trunkline_sip::agent::{DialogHandle, EndCause, EventKind, Invite};

use super::net::{FORK, Faults, Net, address, faults, none, sdp};

fn forked(net: &mut Net) {
    let invite = Invite {
        ..net.invite(0, FORK.parse().unwrap())
    };
    net.agents[0].call(net.now, invite, 1).unwrap();
}

#[test]
fn forks_are_dialogs_of_their_own_and_one_of_them_wins() {
    let mut net = Net::new(3, 1, Faults::default());
    forked(&mut net);
    let (first, second) = (net.incoming(1), net.incoming(2));
    let now = net.now;
    net.agents[1]
        .ring(now, first, 183, false, &none(), Some(sdp(1, "sendrecv")))
        .unwrap();
    net.agents[2]
        .ring(now, second, 180, true, &none(), None)
        .unwrap();
    let mut early: Vec<DialogHandle> = Vec::new();
    let mut pracked = false;
    net.run(1, |net, agent, event| match event.kind {
        EventKind::Progress { .. } => early.push(event.dialog.unwrap()),
        EventKind::ProvisionalAcknowledged { .. } => {
            assert_eq!(agent, 2);
            pracked = true;
            let now = net.now;
            net.agents[2]
                .accept(now, second, &none(), Some(sdp(1, "sendrecv")))
                .unwrap();
        }
        EventKind::Ended(end) if agent == 0 => {
            assert_eq!(end.cause, EndCause::OtherFork);
            assert_eq!(event.dialog, Some(early[0]));
        }
        _ => {}
    });
    assert!(pracked && early.len() == 2 && early[0] != early[1]);
    assert_eq!(net.agents[0].dialogs(), [early[1]]);
    let prack = net.last(0, "PRACK");
    assert!(
        prack.starts_with("PRACK sip:agent2@192.0.2.3:5060"),
        "{prack}"
    );
    // The loser answers all the same: ACK, then BYE.
    let now = net.now;
    net.agents[1].accept(now, first, &none(), None).unwrap();
    let ends = net
        .idle(1)
        .into_iter()
        .filter(|(agent, event)| *agent == 1 && matches!(event.kind, EventKind::Ended(_)));
    assert_eq!(ends.count(), 1);
    assert!(net.last(0, "BYE").starts_with("BYE sip:agent1@"));
    assert_eq!(net.agents[0].dialogs().len(), 1);
    net.finish(2, second);
}

#[test]
fn cancel_reaches_every_fork() {
    let mut net = Net::new(3, 1, Faults::default());
    let invite = net.invite(0, FORK.parse().unwrap());
    let attempt = net.agents[0].call(net.now, invite, 1).unwrap();
    for agent in 1..3 {
        let dialog = net.incoming(agent);
        let now = net.now;
        net.agents[agent]
            .ring(now, dialog, 180, false, &none(), None)
            .unwrap();
    }
    let _ = net.idle(1);
    let now = net.now;
    net.agents[0].cancel(now, attempt, &none()).unwrap();
    let events = net.idle(1);
    let cancelled = events.iter().filter(|(_, event)| {
        matches!(&event.kind, EventKind::Ended(end) if end.cause == EndCause::Cancelled)
    });
    assert_eq!(cancelled.count(), 2);
    let failed = events
        .iter()
        .filter(|(_, event)| matches!(event.kind, EventKind::Failed { .. }));
    assert_eq!(failed.count(), 1);
    net.at_rest();
}

/// Both forks answer at random times, with and without reliable provisionals, on any network:
/// one call stays, the other is ended, then all is over.
#[test]
fn of_forks_that_both_answer_one_call_remains_on_any_network() {
    for seed in 0..60_u64 {
        let mut net = Net::new(3, seed, faults(seed));
        forked(&mut net);
        let mut winner = None;
        net.run(200, |net, agent, event| {
            let now = net.now;
            match event.kind {
                EventKind::Incoming { .. } => {
                    let dialog = event.dialog.unwrap();
                    let reliable = (seed / 4 + agent as u64).is_multiple_of(2);
                    net.agents[agent]
                        .ring(now, dialog, 180, reliable, &none(), None)
                        .unwrap();
                    let wait = Duration::from_millis(500 + seed * 37 % 400 * agent as u64);
                    net.agents[agent]
                        .set_timer(dialog, Some(now + wait))
                        .unwrap();
                }
                EventKind::Timer => {
                    let answer = Some(sdp(1, "sendrecv"));
                    let _ = net.agents[agent].accept(now, event.dialog.unwrap(), &none(), answer);
                }
                EventKind::Answered { .. } => {
                    assert!(winner.is_none(), "answered once");
                    winner = event.dialog;
                }
                _ => {}
            }
        });
        let Some(winner) = winner else {
            assert!(seed % 4 > 1, "seed {seed}\n{}", net.log());
            net.at_rest();
            continue;
        };
        assert_eq!(
            net.agents[0].dialogs(),
            [winner],
            "seed {seed}\n{}",
            net.log()
        );
        let left = net.agents[1].dialogs().len() + net.agents[2].dialogs().len();
        assert_eq!(left, 1, "seed {seed}\n{}", net.log());
        net.finish(0, winner);
    }
}

/// Agent 0 hunts through agents 1 to 3 in these groups; they do as told: answer, refuse with a
/// status, or ring for ever (0). Gives who answered or the failure.
fn hunt(
    seed: u64,
    groups: &[&[usize]],
    plans: [u16; 3],
    faults: Faults,
) -> (Net, Result<usize, u16>) {
    let mut net = Net::new(4, seed, faults);
    let groups = groups.iter().map(|group| {
        let invites = group.iter().map(|agent| Invite {
            ring_timeout: Some(Duration::from_secs(10)),
            ..net.invite(0, address(*agent))
        });
        invites.collect()
    });
    let groups: Vec<Vec<Invite>> = groups.collect();
    let now = net.now;
    let hunt = net.agents[0].hunt(now, groups, &[408, 500, 503], 9);
    let mut outcome = None;
    net.run(150, |net, agent, event| {
        let now = net.now;
        match event.kind {
            EventKind::Incoming { .. } => {
                let dialog = event.dialog.unwrap();
                let third = &mut net.agents[agent];
                third.ring(now, dialog, 180, false, &none(), None).unwrap();
                let plan = plans[agent - 1];
                if plan > 0 {
                    let wait = Duration::from_millis(100 * agent as u64);
                    third.set_timer(dialog, Some(now + wait)).unwrap();
                }
            }
            EventKind::Timer => {
                let (dialog, third) = (event.dialog.unwrap(), &mut net.agents[agent]);
                match plans[agent - 1] {
                    200 => third
                        .accept(now, dialog, &none(), Some(sdp(1, "sendrecv")))
                        .unwrap(),
                    status => third.reject(now, dialog, status, &none()).unwrap(),
                }
            }
            EventKind::Answered { .. } => {
                assert_eq!(event.context, 9);
                let remote = net.agents[0]
                    .view(event.dialog.unwrap())
                    .unwrap()
                    .remote
                    .address;
                let who = (1..4).find(|agent| address(*agent) == remote);
                assert!(outcome.replace(Ok(who.unwrap())).is_none(), "one outcome");
            }
            EventKind::HuntFailed {
                hunt: own, status, ..
            } => {
                assert_eq!((own, event.context), (hunt, 9));
                assert!(outcome.replace(Err(status)).is_none(), "one outcome");
            }
            _ => {}
        }
    });
    let outcome = outcome.unwrap_or_else(|| panic!("an outcome\n{}", net.log()));
    (net, outcome)
}

#[test]
fn a_hunt_tries_groups_in_order_and_rings_each_at_once() {
    let none_lost = Faults::default();
    let run = |groups: &[&[usize]], plans| hunt(1, groups, plans, none_lost).1;
    // In order; the second answers and the third hears nothing.
    let (net, outcome) = hunt(1, &[&[1], &[2], &[3]], [503, 200, 200], none_lost);
    assert_eq!((outcome, net.count(3, "SIP/2.0")), (Ok(2), 0));
    let call_id = |agent| {
        net.last(agent, "SIP/2.0")
            .lines()
            .find(|line| line.starts_with("Call-ID"))
            .unwrap()
            .to_owned()
    };
    assert_ne!(call_id(1), call_id(2));
    // A busy callee is no reason to try another one.
    assert_eq!(run(&[&[1], &[2]], [486, 200, 0]), Err(486));
    // All at once: the fastest wins, the others are cancelled.
    let (net, outcome) = hunt(1, &[&[1, 2, 3]], [0, 200, 0], none_lost);
    assert_eq!((outcome, net.count(0, "CANCEL")), (Ok(2), 2));
    assert!(net.last(0, "CANCEL").contains("Call completed elsewhere"));
    // Nobody answers in time: left ringing nowhere, and the next group is tried.
    assert_eq!(run(&[&[1], &[2]], [0, 200, 0]), Ok(2));
    // A real response beats our own 408; a 6xx beats and stops everything.
    assert_eq!(run(&[&[1, 2]], [0, 404, 0]), Err(404));
    assert_eq!(run(&[&[1, 2], &[3]], [0, 603, 200]), Err(603));
}

#[test]
fn a_hunt_has_one_outcome_on_any_network() {
    for seed in 0..40_u64 {
        let plans = [
            [200, 200, 200],
            [503, 200, 486],
            [0, 500, 200],
            [486, 603, 0],
        ];
        let groups: &[&[usize]] = if seed & 16 == 0 {
            &[&[1, 2], &[3]]
        } else {
            &[&[1], &[2, 3]]
        };
        let (mut net, outcome) = hunt(seed, groups, plans[(seed / 4 % 4) as usize], faults(seed));
        let dialogs = net.agents[0].dialogs();
        assert_eq!(
            dialogs.len(),
            usize::from(outcome.is_ok()),
            "seed {seed}\n{}",
            net.log()
        );
        match dialogs.first() {
            Some(dialog) => net.finish(0, *dialog),
            None => net.at_rest(),
        }
    }
}

/// The losing fork's PRACK is still unanswered when it answers all the same.
#[test]
fn a_losing_fork_with_a_prack_under_way_is_acknowledged_and_ended() {
    let mut net = Net::new(3, 1, Faults::default());
    forked(&mut net);
    let (first, second) = (net.incoming(1), net.incoming(2));
    let now = net.now;
    net.agents[2]
        .accept(now, second, &none(), Some(sdp(1, "sendrecv")))
        .unwrap();
    net.drop_first.push(("PRACK".to_owned(), 3));
    net.agents[1]
        .ring(now, first, 180, true, &none(), None)
        .unwrap();
    net.agents[1]
        .accept(now, first, &none(), Some(sdp(1, "sendrecv")))
        .unwrap();
    let _ = net.idle(60);
    assert_eq!(
        (net.agents[0].dialogs().len(), net.agents[1].dialogs().len()),
        (1, 0),
        "{}",
        net.log()
    );
    net.finish(2, second);
}
