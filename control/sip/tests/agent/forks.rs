//! Several dialogs of one INVITE.

use std::time::Duration;

use trunkline_sip::agent::{DialogHandle, EndCause, EventKind, Invite};

use super::net::{FORK, Faults, Net, faults, none, sdp};

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
