//! Controls come and go; sessions and recordings outlive them.

use super::*;

#[test]
fn a_new_control_gets_the_sessions_their_records_and_what_was_learned() {
    let mut rig = Rig::new(4);
    let ports = rig.open(1);
    let record = b"dialogs".to_vec();
    rig.ask(Command::SessionRecord {
        session: 1,
        record: record.clone(),
    });
    rig.ask(start(1, 9));
    let address = "127.0.0.9:4000".parse().unwrap();
    let side = Side::Callee;
    rig.report(WorkerEvent::EndpointLearned {
        session: 1,
        media: 0,
        side,
        rtcp: false,
        address,
    });
    rig.turn();
    assert_eq!(rig.events().len(), 1);
    rig.kill_control();
    let closed = RecorderNotice::Closed {
        session: 4,
        recording: 3,
        extents: 0,
        last_segment: 0,
        last_page: 0,
        bytes: 0,
        chain_head: [0; 32],
        disk_drops: Vec::new(),
    };
    rig.recorder.notices.push(closed).unwrap();
    rig.turn();
    rig.attach();
    assert_eq!(rig.control.as_ref().unwrap().epoch(), 2);
    let events = rig.ask(Command::Snapshot);
    let [
        Event::SnapshotSession(session),
        Event::EndpointLearned {
            address: learned, ..
        },
        Event::RecordingClosed { recording: 3, .. },
        Event::SnapshotEnd { request },
    ] = events.as_slice()
    else {
        panic!("{events:?}")
    };
    assert_eq!((session.session, session.recording), (1, 9));
    assert_eq!(
        (session.phase, session.origin_mono_ns),
        (RecordingPhase::Running, 70)
    );
    assert_eq!((&session.record, session.media[0].ports), (&record, ports));
    assert_eq!((*learned, *request), (address, rig.request));
    assert_eq!(
        rig.ask(Command::Snapshot).len(),
        3,
        "what was final is told once"
    );
}

#[test]
fn answers_meant_for_a_dead_control_do_not_reach_the_next_one() {
    let mut rig = Rig::new(4);
    rig.deaf = true;
    assert!(rig.ask(open(1, 1)).is_empty());
    rig.kill_control();
    rig.attach();
    rig.deaf = false;
    rig.turn();
    assert!(rig.events().is_empty());
    assert_eq!(
        rig.ask(Command::Snapshot).len(),
        2,
        "the session itself is there"
    );
}

#[test]
fn sessions_nobody_claims_end_once_silent_and_claimed_ones_do_not() {
    let mut rig = Rig::new(8);
    rig.open(1);
    rig.ask(start(1, 9));
    rig.open(2);
    rig.pass(3600 * SECOND);
    assert!(
        !rig.seen.contains(&"silent?".to_owned()),
        "claimed sessions may be silent"
    );
    rig.kill_control();
    rig.pass(59 * SECOND);
    assert!(!rig.seen.contains(&"silent?".to_owned()));
    for _ in 0..7 {
        rig.pass(SECOND);
    }
    assert!(rig.seen.contains(&"silent?".to_owned()));
    // Session 1 was last heard an hour ago, session 2 thirty seconds ago.
    rig.report(WorkerEvent::SessionSilent {
        session: 1,
        last_packet_ns: START,
    });
    let recent = rig.now_ns - 30 * SECOND;
    rig.report(WorkerEvent::SessionSilent {
        session: 2,
        last_packet_ns: recent,
    });
    rig.turn();
    rig.turn();
    assert!(rig.seen.contains(&"remove 1".to_owned()));
    assert!(
        rig.seen.contains(&"finish 9".to_owned()),
        "its recording is finished"
    );
    assert!(!rig.seen.contains(&"remove 2".to_owned()));
    rig.attach();
    let events = rig.ask(Command::Snapshot);
    assert!(events.contains(&Event::SessionEnded { session: 1 }));
    rig.pass(120 * SECOND);
    rig.report(WorkerEvent::SessionSilent {
        session: 2,
        last_packet_ns: START,
    });
    rig.turn();
    assert!(
        !rig.seen.contains(&"remove 2".to_owned()),
        "claimed by the snapshot"
    );
}

#[test]
fn a_recording_whose_session_was_closed_is_finished_when_control_forgets_it() {
    let mut rig = Rig::new(4);
    rig.open(1);
    rig.ask(start(1, 9));
    rig.ask(Command::SessionClose { session: 1 });
    rig.pass(29 * SECOND);
    assert!(!rig.seen.contains(&"finish 9".to_owned()));
    rig.pass(2 * SECOND);
    assert!(rig.seen.contains(&"finish 9".to_owned()));
}
