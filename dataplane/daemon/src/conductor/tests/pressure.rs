//! Long lists, slow readers, and anything in any order.

use super::*;

#[test]
fn a_large_snapshot_is_told_as_fast_as_it_is_read() {
    let mut rig = Rig::new(16);
    for session in 1..=8 {
        rig.open(session);
        let record = vec![session as u8; 8192];
        rig.ask(Command::SessionRecord { session, record });
    }
    // More than the event ring and the outbox hold together, asked for without reading.
    let asked = 300;
    for _ in 0..asked {
        rig.request += 1;
        rig.control
            .as_mut()
            .unwrap()
            .send(rig.request, &Command::Snapshot)
            .unwrap();
    }
    rig.turn();
    let (mut sessions, mut ends) = (0, 0);
    while ends < asked {
        rig.turn();
        let events = rig.events();
        assert!(!events.is_empty(), "stuck after {sessions} sessions");
        for event in events {
            match event {
                Event::SnapshotSession(session) => {
                    assert_eq!(session.record, vec![session.session as u8; 8192]);
                    sessions += 1;
                }
                Event::SnapshotEnd { .. } => ends += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(sessions, asked * 8);
    assert!(
        !rig.control.as_mut().unwrap().take_overrun(),
        "nothing was dropped"
    );
}

#[test]
fn a_control_that_does_not_read_loses_events_and_is_told_so() {
    let mut rig = Rig::new(4);
    rig.open(1);
    let address: std::net::SocketAddr = "127.0.0.9:4000".parse().unwrap();
    let event = || WorkerEvent::EndpointLearned {
        session: 1,
        media: 0,
        side: Side::Caller,
        rtcp: false,
        address,
    };
    for _ in 0..2_000 {
        for _ in 0..60 {
            rig.report(event());
        }
        rig.turn();
    }
    assert!(rig.conductor.outbox.dropped > 0);
    while !rig.events().is_empty() {
        rig.turn();
    }
    assert!(rig.control.as_mut().unwrap().take_overrun());
    assert_eq!(
        rig.ask(Command::Snapshot).len(),
        3,
        "and a snapshot puts it right"
    );
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit
    }
}

fn random_command(random: &mut Random) -> Command {
    let session = random.below(4);
    let recording = random.below(4);
    match random.below(12) {
        0..=2 => {
            let ports = [0, 41_000 + random.below(40) as u16];
            let port = |random: &mut Random| ports[usize::from(random.below(4) == 0)];
            let media = (0..random.below(3))
                .map(|_| [port(random), port(random)])
                .collect();
            open_with(session, media)
        }
        3 => leg(session, random.below(3) as u8, "127.0.0.1:9000"),
        4 => Command::SessionClose { session },
        5 | 6 => start(session, recording),
        7 => Command::RecordingPause { session, recording },
        8 => Command::RecordingStop { session, recording },
        9 => Command::RecordingFinish { session, recording },
        10 => Command::Snapshot,
        _ => Command::SessionRecord {
            session,
            record: vec![0; random.below(9) as usize],
        },
    }
}

#[test]
fn whatever_control_asks_in_whatever_order_no_port_and_no_slot_is_lost() {
    let mut rig = Rig::new(16);
    let mut random = Random(7);
    for _ in 0..3_000 {
        let command = random_command(&mut random);
        rig.request += 1;
        let _ = rig.control.as_mut().unwrap().send(rig.request, &command);
        rig.deaf = random.below(3) == 0;
        rig.turn();
        rig.events();
        while rig.recorder.commands.pop().is_some() {}
        match random.below(40) {
            0 => rig.pass(SECOND),
            1 => rig.pass(6 * SECOND),
            2 => {
                rig.kill_control();
                rig.attach();
            }
            _ => {}
        }
    }
    rig.deaf = false;
    for session in 0..4 {
        rig.ask(Command::SessionClose { session });
    }
    for _ in 0..4 {
        rig.pass(3 * SECOND);
    }
    assert!(rig.conductor.sessions.is_empty() && rig.conductor.openings.is_empty());
    assert!(rig.conductor.half_closed.is_empty());
    assert_eq!(rig.conductor.workers[0].slots_free(), 64);
    assert_eq!(rig.conductor.workers[0].sessions, 0);
    assert_eq!(rig.conductor.pools[0].counts().used, 0);
}

#[test]
fn recording_starts_wait_for_extents_and_not_for_ever() {
    let mut rig = Rig::new(16);
    for session in 1..=6 {
        rig.open(session);
    }
    let taken: Vec<_> = std::iter::from_fn(|| rig.queues.capture.ready.pop()).collect();
    rig.queues
        .capture
        .ready
        .push(taken.into_iter().next().unwrap())
        .unwrap();
    for session in 1..=3 {
        rig.request += 1;
        let start = start(session, session);
        rig.control
            .as_mut()
            .unwrap()
            .send(rig.request, &start)
            .unwrap();
    }
    rig.deaf = true;
    rig.turn();
    rig.deaf = false;
    rig.work();
    assert!(
        rig.seen.ends_with(&["start 1".to_owned()]),
        "one extent, one start: {:?}",
        rig.seen
    );
    // The worker's answer came, and the queue holds an extent again (the fake worker takes none).
    rig.turn();
    rig.turn();
    assert!(rig.seen.contains(&"start 3".to_owned()), "{:?}", rig.seen);

    rig.events();
    rig.queues.capture.ready.pop();
    assert!(rig.ask(start(4, 4)).is_empty());
    rig.pass(99_000_000);
    assert!(rig.events().is_empty());
    rig.pass(1_000_000);
    assert!(
        matches!(rig.events().last(), Some(Event::Done { .. })),
        "an empty pool stops no call"
    );
    assert!(
        !rig.ask(start(5, 5)).is_empty(),
        "nor is it waited for again"
    );
}
