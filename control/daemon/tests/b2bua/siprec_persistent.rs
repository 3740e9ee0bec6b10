//! Persistent recording sessions: one dialog with carol for one call after another.

use trunkline_control::api::handle::RecordingAction;
use trunkline_control::siprec::session::{Session, State};
use trunkline_link::message::{ForkState, Side};

use super::common::World;
use super::siprec::{Known, answer, bodies};

/// Calls recorded to carol, or else dave, in one session.
const LASTING: &str = "[[recorder]]\nname = \"main\"\nservers = [\"sip:rec@127.0.0.1:5071\", \"sip:rec@127.0.0.1:5072\"]\n\
                       persistent = true\nasks_from = [\"127.0.0.1\"]\n\
                       [[route]]\nnext = \"sip:127.0.0.1:5070\"\nrecord = true\nrecorders = [\"main\"]\n";

impl World {
    /// The persistent session, and those of calls.
    fn carrier_and_riders(&self) -> (Session, Vec<Session>) {
        let (mut carriers, riders): (Vec<_>, Vec<_>) = self
            .siprec()
            .into_iter()
            .partition(|one| one.call.is_none());
        assert_eq!(carriers.len(), 1, "{carriers:?}");
        (carriers.remove(0), riders)
    }

    /// Carol takes everything that she is told meanwhile; gives offers and documents.
    fn carol_takes_all(&mut self) -> Vec<(String, String)> {
        let mut told = Vec::new();
        while let Some(invite) = self.until(300, |world| world.carol.take_invite()) {
            told.push(bodies(&invite));
            self.recorder_accepts(&invite);
        }
        told
    }
}

#[test]
fn one_session_carries_calls_one_after_another_and_stands_without_any() {
    let mut world = World::new(LASTING);
    world.establish();
    let told = world.carol_takes_all();
    let (first, _) = &told[0];
    assert_eq!(first.matches("a=inactive").count(), 2, "{first}");
    let (with_call, document) = told.last().unwrap();
    assert_eq!(with_call.matches("a=sendonly").count(), 2, "{with_call}");
    assert!(document.contains("sip:alice@"), "{document}");
    let (carrier, riders) = world.carrier_and_riders();
    assert_eq!((carrier.state, riders.len()), (State::Active, 1));
    assert_eq!(riders[0].state, State::Active);
    assert_eq!(riders[0].within.as_ref(), Some(&carrier.id));
    assert_eq!(riders[0].sip_call_id, carrier.sip_call_id);
    assert_eq!(riders[0].server, "sip:rec@127.0.0.1:5071");
    assert!(world.fork().sends(0, Side::Caller) && world.fork().sends(0, Side::Callee));

    world.alice.bye(world.now());
    world.run(50);
    let ended = world.carol_takes_all();
    assert_eq!(world.carol.byes, 0, "the session stands");
    let (offer, document) = &ended[0];
    assert_eq!(offer.matches("a=inactive").count(), 2, "{offer}");
    assert!(document.contains("stop-time"), "{document}");
    let (_, riders) = world.carrier_and_riders();
    assert!(riders.is_empty() && world.dataplane.forks.is_empty());

    (world.alice.dialog, world.bob.dialog) = (None, None);
    world.establish();
    let again = world.carol_takes_all();
    let (offer, _) = &again[0];
    assert_eq!(
        offer.matches("m=audio").count(),
        2,
        "m-lines are used again"
    );
    assert_eq!(offer.matches("a=sendonly").count(), 2, "{offer}");
    let documents: Vec<&str> = [&told, &ended, &again]
        .into_iter()
        .flatten()
        .map(|(_, document)| document.as_str())
        .filter(|document| !document.is_empty())
        .collect();
    let known = Known::default().after(&documents);
    let state = known.state();
    assert_eq!(state.sessions.len(), 2, "two communication sessions");
    let stopped = state.sessions.iter().filter(|one| one.stopped.is_some());
    assert_eq!(stopped.count(), 1);
    assert_eq!(world.carrier_and_riders().0.id, carrier.id);
    assert!(world.fork().sends(0, Side::Caller));
}

#[test]
fn a_rider_rests_and_goes_on_by_itself() {
    let mut world = World::new(LASTING);
    world.establish();
    world.carol_takes_all();
    let call = world.only_call().id;
    let paused = world
        .act_on_recorders(&call, RecordingAction::Pause)
        .unwrap();
    assert_eq!(paused[0].state, State::Paused);
    assert_eq!(world.fork().state, Some(ForkState::Paused));
    let told = world.carol_takes_all();
    assert_eq!(told[0].0.matches("a=inactive").count(), 2, "{}", told[0].0);
    let (reply, mut done) = tokio::sync::oneshot::channel();
    world.api(trunkline_control::api::handle::Request::RecorderOrder {
        call: call.clone(),
        chosen: trunkline_control::siprec::client::Chosen::All,
        order: trunkline_control::api::handle::RecorderOrder::Act {
            action: RecordingAction::Resume,
            recorder: None,
        },
        reply,
    });
    assert!(done.try_recv().is_err(), "carol agrees first");
    assert_eq!(world.fork().state, Some(ForkState::Paused));
    let told = world.carol_takes_all();
    assert_eq!(told[0].0.matches("a=sendonly").count(), 2);
    assert_eq!(done.try_recv().unwrap().unwrap()[0].state, State::Active);
    assert_eq!(world.fork().state, Some(ForkState::Running));
    // A stop ends the call's part in it, and nothing else.
    world.api(trunkline_control::api::handle::Request::RecorderOrder {
        call,
        chosen: trunkline_control::siprec::client::Chosen::All,
        order: trunkline_control::api::handle::RecorderOrder::Act {
            action: RecordingAction::Stop,
            recorder: None,
        },
        reply: tokio::sync::oneshot::channel().0,
    });
    world.carol_takes_all();
    let (carrier, riders) = world.carrier_and_riders();
    assert_eq!((carrier.state, riders.len()), (State::Active, 0));
    assert_eq!((world.carol.byes, world.alice.byes), (0, 0));
}

#[test]
fn another_server_takes_up_all_that_a_lost_one_carried() {
    let mut world = World::new(LASTING);
    world.establish();
    world.carol_takes_all();
    let before = world.carrier_and_riders();
    world.carol.bye(world.now());
    world.run(50);
    let invite = world.until(2_000, |world| world.dave.take_invite());
    let invite = invite.expect("dave takes over");
    let (offer, document) = bodies(&invite);
    assert_eq!(offer.matches("a=sendonly").count(), 2, "{offer}");
    assert!(document.contains("complete") && document.contains("sip:bob@"));
    assert!(!world.fork().sends(0, Side::Caller));
    let taken = answer(9100, 2, "recvonly");
    world.dave.respond(&invite, 200, Some(&taken), world.now());
    world.run(50);
    let (carrier, riders) = world.carrier_and_riders();
    assert_eq!((carrier.id, carrier.failovers), (before.0.id, 1));
    assert_eq!(riders[0].id, before.1[0].id);
    assert_eq!(riders[0].state, State::Active);
    assert!(riders[0].gaps[0].to.is_some(), "{:?}", riders[0].gaps);
    let rtp = world.fork().legs[&(0, Side::Caller)].rtp.unwrap();
    assert_eq!(rtp.port(), 9100);
    assert!(world.fork().sends(0, Side::Caller));
    world.alice.bye(world.now());
    world.run(500);
    let receipt = world.written_recording().receipt.unwrap();
    assert_eq!(receipt.gaps.len(), 1);
}

#[test]
fn a_recorder_may_ask_for_all_calls_and_gets_them_as_they_come() {
    let text = LASTING.replace("persistent = true\n", "");
    let mut world = World::new(&text);
    let asks = [
        ("Require", "siprec"),
        ("Contact", "<sip:rec@127.0.0.1:5071>;+sip.srs"),
    ];
    let us = super::common::US.parse().unwrap();
    let now = world.now();
    let sent = world
        .carol
        .invite("sip:all@127.0.0.1:5060", us, None, &asks, now);
    world.run(50);
    assert_eq!(world.carol.statuses(sent), [100, 200]);
    let offer = world.carol.last_body(sent);
    assert_eq!(offer.matches("a=inactive").count(), 2, "{offer}");
    let taken = answer(9000, 2, "recvonly");
    world.carol.ack_with(sent, Some(&taken), world.now());
    world.run(50);
    let second = world
        .carol
        .invite("sip:all@127.0.0.1:5060", us, None, &asks, world.now());
    world.run(50);
    assert_eq!(world.carol.statuses(second), [486]);
    world.establish();
    let told = world.carol_takes_all();
    assert_eq!(told[0].0.matches("a=sendonly").count(), 2, "{}", told[0].0);
    assert!(world.fork().sends(0, Side::Callee));
    let (_, riders) = world.carrier_and_riders();
    assert_eq!(riders[0].state, State::Active);
    // It wants no more: what rode on its session ends, and nobody is asked instead.
    world.carol.bye(world.now());
    world.run(1_000);
    assert!(world.siprec().is_empty(), "{:?}", world.siprec());
    assert!(world.dave.take_invite().is_none());
    assert_eq!(world.alice.byes, 0);
}

#[test]
fn nobody_waits_for_a_persistent_session_at_the_exit() {
    let mut world = World::new(LASTING);
    world.establish();
    world.carol_takes_all();
    world.alice.bye(world.now());
    world.run(50);
    world.carol_takes_all();
    let now = world.moment();
    world.b2bua.end_persistent(&now);
    world.run(200);
    assert_eq!(world.carol.byes, 1);
    assert!(world.b2bua.is_idle());
}

#[test]
fn after_a_restart_calls_are_recorded_in_a_new_persistent_session() {
    let mut world = World::new(LASTING);
    world.establish();
    world.carol_takes_all();
    // Of the dialog of before nobody knows: there will be another one.
    world.carol.dialog = None;
    world.restart_control();
    world.run(100);
    let told = world.carol_takes_all();
    assert!(!told.is_empty());
    let (_, riders) = world.carrier_and_riders();
    assert_eq!(riders[0].state, State::Active);
    assert_eq!(
        world.dataplane.forks.len(),
        1,
        "the fork of before is closed"
    );
}
