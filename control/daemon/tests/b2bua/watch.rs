//! Recordings that lack something while the call runs, and those that are kept on demand only.

use trunkline_control::api::handle::RecordingAction;
use trunkline_link::message::{Command, Event, Side, StreamReceipt};

use crate::common::World;

const KEEP: &str = "[[route]]\nnext = \"sip:127.0.0.1:5070\"\nrecord = \"keep_on_demand\"\n";

/// Session and number of the recording that runs.
fn running(world: &World) -> (u64, u64) {
    let started = world
        .dataplane
        .commands
        .iter()
        .rev()
        .find_map(|command| match command {
            Command::RecordingStart(start) => Some((start.session, start.recording)),
            _ => None,
        });
    started.expect("a recording was asked for")
}

/// The dataplane's report of a second in which both sides have come to these counts.
fn report(world: &mut World, written: [u64; 2]) {
    let (session, recording) = running(world);
    let stream = |side, written| StreamReceipt {
        side,
        media: 0,
        ssrc: 7,
        expected: written,
        written,
        lost: 0,
        dropped: [0; 9],
        duplicates: 0,
        reordered: 0,
        bytes: 0,
        first_ns: 0,
        last_ns: 0,
        covered_ns: 0,
        first_sequence: 1,
    };
    let event = Event::RecordingProgress {
        session,
        recording,
        next_ordinal: 1,
        last_segment: 1,
        last_page: 1,
        streams: vec![
            stream(Side::Caller, written[0]),
            stream(Side::Callee, written[1]),
        ],
    };
    let now = world.moment();
    world.b2bua.on_link_event(event, &now);
}

fn alerts(world: &World) -> usize {
    world
        .events()
        .iter()
        .filter(|kind| **kind == "recording.alert")
        .count()
}

/// A second passes: a report, and the look that follows it.
fn second(world: &mut World, written: [u64; 2]) {
    world.run(1000);
    report(world, written);
    let now = world.moment();
    world.b2bua.watch_recordings(&now);
}

#[test]
fn a_side_that_falls_silent_is_told_within_five_seconds_and_once() {
    let mut world = World::new(super::ROUTE);
    world.establish();
    for n in 1..=5 {
        second(&mut world, [50 * n, 50 * n]);
    }
    assert_eq!(alerts(&world), 0);
    let mut told_after = None;
    for n in 6..=15 {
        second(&mut world, [50 * n, 250]);
        if told_after.is_none() && alerts(&world) > 0 {
            told_after = Some(n - 5);
        }
    }
    assert!(
        told_after.is_some_and(|seconds| seconds <= 5),
        "{told_after:?}"
    );
    assert_eq!(alerts(&world), 1, "{:?}", world.events());
    // Heard again, and lost again: told again. Then both are gone.
    second(&mut world, [800, 300]);
    for n in 0..5 {
        second(&mut world, [850 + n, 300]);
    }
    assert_eq!(alerts(&world), 2);
    for _ in 0..5 {
        second(&mut world, [854, 300]);
    }
    assert_eq!(alerts(&world), 3);
}

#[test]
fn a_paused_recording_misses_nobody() {
    let mut world = World::new(super::ROUTE);
    world.establish();
    second(&mut world, [50, 50]);
    let call = world.only_call().id;
    world.act(&call, RecordingAction::Pause).expect("paused");
    for _ in 0..10 {
        second(&mut world, [50, 50]);
    }
    assert_eq!(alerts(&world), 0);
    world.act(&call, RecordingAction::Resume).expect("resumed");
    for _ in 0..5 {
        second(&mut world, [50, 50]);
    }
    assert_eq!(alerts(&world), 1, "silence counts from the resumption on");
}

#[test]
fn what_nobody_keeps_is_discarded_and_what_is_kept_stays() {
    for keep in [false, true] {
        let mut world = World::new(KEEP);
        world.establish();
        let call = world.only_call();
        assert!(call.recording_expected);
        assert_eq!(world.written_recording().kept, Some(false));
        if keep {
            let kept = world.act(&call.id, RecordingAction::Keep).expect("kept");
            assert_eq!(kept.kept, Some(true));
            world
                .act(&call.id, RecordingAction::Keep)
                .expect("repeated");
        }
        world.run(500);
        world.alice.bye(world.now());
        world.run(500);
        assert!(world.written_recording().state.is_final());
        assert_eq!(world.discards, usize::from(!keep));
    }
}

#[test]
fn a_recording_that_somebody_asked_for_is_kept_anyway() {
    let route = "[[route]]\nnext = \"sip:127.0.0.1:5070\"\nrecord = \"on_demand\"\n";
    let mut world = World::new(route);
    world.establish();
    let call = world.only_call();
    assert!(call.recordings.is_empty() && !call.recording_expected);
    let started = world
        .act(&call.id, RecordingAction::Start)
        .expect("started");
    assert_eq!(started.kept, None);
    assert!(world.only_call().recording_expected);
}
