//! What control asks for, and what it gets.

use std::net::UdpSocket;

use super::*;
use crate::recorder::DiskDrop;

#[test]
fn a_session_gets_bound_ports_and_gives_them_back_to_rest() {
    let mut rig = Rig::new(4);
    let ports = rig.open(1);
    assert!(ports.iter().all(|port| port.is_multiple_of(2)) && ports[0] != ports[1]);
    for port in [ports[0], ports[0] + 1, ports[1], ports[1] + 1] {
        assert!(
            UdpSocket::bind((rig.address, port)).is_err(),
            "{port} is not bound"
        );
    }
    assert_eq!(rig.ask(open(1, 1)).len(), 1, "asked again: answered again");
    assert_eq!(rig.seen, ["add 1 0"]);

    let closed = rig.ask(Command::SessionClose { session: 1 });
    assert!(matches!(closed.as_slice(), [Event::Done { .. }]));
    assert_eq!(rig.conductor.pools[0].counts().resting, 2);
    drop(UdpSocket::bind((rig.address, ports[0] + 1)).unwrap());
    let next = rig.open(2);
    assert!(
        !next.contains(&ports[0]) && !next.contains(&ports[1]),
        "they rest"
    );
    assert_failed(
        &rig.ask(Command::SessionClose { session: 1 }),
        FailReason::NotFound,
    );
}

#[test]
fn more_media_is_added_to_a_live_session() {
    let mut rig = Rig::new(8);
    let first = rig.open(1);
    let events = rig.ask(open(1, 3));
    let [Event::SessionOpened { ports, .. }] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!((ports.len(), ports[0]), (3, first));
    assert_eq!(rig.seen, ["add 1 0", "add 1 1"]);
    assert_failed(
        &rig.ask(open_with(1, vec![[40_998, 0]])),
        FailReason::Invalid,
    );
    assert!(matches!(
        rig.ask(leg(1, 2, "127.0.0.1:9000")).as_slice(),
        [Event::Done { .. }]
    ));
    assert_failed(&rig.ask(leg(1, 3, "127.0.0.1:9000")), FailReason::NotFound);
    assert_failed(&rig.ask(leg(1, 0, "[::1]:9000")), FailReason::Invalid);
    assert_failed(&rig.ask(leg(2, 0, "127.0.0.1:9000")), FailReason::NotFound);
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let mut rig = Rig::new(4);
    assert_failed(&rig.ask(open(1, 0)), FailReason::Invalid);
    let Command::SessionOpen(mut wrong) = open(1, 1) else {
        unreachable!()
    };
    wrong.interface = [0, 1];
    assert_failed(&rig.ask(Command::SessionOpen(wrong)), FailReason::Invalid);
    assert_failed(
        &rig.ask(open_with(1, vec![[41_001, 0]])),
        FailReason::Invalid,
    );
    assert_failed(&rig.ask(start(1, 1)), FailReason::NotFound);
    rig.open(1);
    assert_failed(&rig.ask(start(1, 0)), FailReason::Invalid);
    let pause = Command::RecordingPause {
        session: 1,
        recording: 9,
    };
    assert_failed(&rig.ask(pause), FailReason::NotFound);
    assert!(matches!(
        rig.ask(Command::Drain).as_slice(),
        [Event::Done { .. }]
    ));
    assert_failed(&rig.ask(open(2, 1)), FailReason::Draining);
    assert_eq!(rig.ask(open(1, 1)).len(), 1, "live sessions go on");
}

#[test]
fn a_fixed_port_is_waited_for_without_holding_up_others() {
    let mut rig = Rig::new(8);
    let foreign = UdpSocket::bind((rig.address, 41_011)).unwrap();
    assert!(rig.ask(open_with(1, vec![[41_010, 41_012]])).is_empty());
    let other = rig.open(2);
    assert!(!other.contains(&41_010));
    rig.pass(500_000_000);
    assert!(rig.events().is_empty());
    drop(foreign);
    rig.pass(20_000_000);
    let events = rig.events();
    let [Event::SessionOpened { ports, .. }] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!(ports[0], [41_010, 41_012]);

    let _foreign = UdpSocket::bind((rig.address, 41_014)).unwrap();
    assert!(rig.ask(open_with(3, vec![[41_014, 0]])).is_empty());
    rig.pass(1_900_000_000);
    assert!(rig.events().is_empty());
    rig.pass(200_000_000);
    assert_failed(&rig.events(), FailReason::PortBusy);
}

#[test]
fn ports_running_short_cut_rests_then_refuse_and_raise_an_alarm() {
    let mut rig = Rig::new(2);
    rig.open(1);
    let events = rig.ask(open(2, 1));
    assert!(events.contains(&Event::Alarm {
        code: AlarmCode::PortsShort,
        active: true
    }));
    assert!(events.iter().any(|event| {
        matches!(
            event,
            Event::Failed {
                reason: FailReason::NoPorts,
                ..
            }
        )
    }));
    rig.ask(Command::SessionClose { session: 1 });
    assert_failed(&rig.ask(open(2, 1)), FailReason::NoPorts);
    rig.pass(2 * SECOND);
    rig.open(2);
    assert_eq!(rig.conductor.pools[0].counts().rests_cut, 2);
    rig.pass(40 * SECOND);
    assert_eq!(
        rig.events(),
        [Event::Alarm {
            code: AlarmCode::PortsShort,
            active: false
        }]
    );
}

#[test]
fn a_recording_is_known_to_the_recorder_first_and_ends_with_its_receipt() {
    let mut rig = Rig::new(4);
    rig.open(1);
    let events = rig.ask(start(1, 9));
    assert!(matches!(
        events.as_slice(),
        [
            Event::RecordingState {
                request: 0,
                recording: 9,
                origin_mono_ns: 70,
                ..
            },
            Event::Done { .. }
        ]
    ));
    let begin = rig.recorder.commands.pop().unwrap();
    assert!(matches!(
        begin,
        RecorderCommand::Begin {
            session: 1,
            recording: 9,
            ..
        }
    ));
    assert_failed(&rig.ask(start(1, 10)), FailReason::WrongState);
    let paused = rig.ask(Command::RecordingPause {
        session: 1,
        recording: 9,
    });
    let request = rig.request;
    assert!(matches!(
        paused.as_slice(),
        [Event::RecordingState { request: got, phase: RecordingPhase::Paused, .. }] if *got == request
    ));
    rig.ask(Command::RecordingStop {
        session: 1,
        recording: 9,
    });
    let second = rig.ask(start(1, 10));
    assert!(
        matches!(second.last(), Some(Event::Done { .. })),
        "stop, then start: a second one"
    );
    let fact = Command::RecordingFact {
        session: 1,
        recording: 9,
        kind: FactKind::CallClose,
        fact: b"{}".to_vec(),
    };
    assert!(matches!(
        rig.ask(fact.clone()).as_slice(),
        [Event::Done { .. }]
    ));
    assert!(
        rig.ask(Command::RecordingFinish {
            session: 1,
            recording: 9
        })
        .is_empty()
    );
    assert_failed(&rig.ask(fact), FailReason::WrongState);
    let drop = DiskDrop {
        side: Side::Callee,
        media: 0,
        ssrc: 5,
        packets: 4,
        duplicates: 0,
        bytes: 640,
    };
    let closed = RecorderNotice::Closed {
        session: 1,
        recording: 9,
        extents: 2,
        last_segment: 3,
        last_page: 4,
        bytes: 960,
        chain_head: [8; 32],
        disk_drops: vec![drop],
    };
    rig.recorder.notices.push(closed).unwrap();
    rig.turn();
    let events = rig.events();
    let [
        Event::RecordingClosed {
            streams,
            extents: 2,
            chain_head: [8, ..],
            ..
        },
    ] = events.as_slice()
    else {
        panic!("{events:?}")
    };
    assert_eq!(
        (streams[0].written, streams[0].dropped[5], streams[0].bytes),
        (6, 4, 960)
    );
}

#[test]
fn a_worker_that_does_not_answer_is_an_error_and_its_late_session_goes() {
    let mut rig = Rig::new(4);
    rig.deaf = true;
    assert!(rig.ask(open(1, 1)).is_empty());
    for _ in 0..6 {
        rig.pass(SECOND);
    }
    assert_failed(&rig.events(), FailReason::Internal);
    rig.deaf = false;
    rig.turn();
    assert_eq!(rig.seen, ["add 1 0", "remove 1"]);
    assert!(rig.events().is_empty());
    assert_eq!(rig.conductor.pools[0].counts().used, 0);
}

#[test]
fn a_slow_worker_makes_control_wait_and_nothing_is_lost() {
    let mut rig = Rig::new(4);
    rig.open(1);
    rig.deaf = true;
    let mut sent = 0_u64;
    for _ in 0..3_000 {
        rig.request += 1;
        let command = leg(1, 0, "127.0.0.1:9000");
        if rig
            .control
            .as_mut()
            .unwrap()
            .send(rig.request, &command)
            .is_ok()
        {
            sent += 1;
        }
    }
    rig.turn();
    rig.deaf = false;
    let mut done = 0;
    for _ in 0..200 {
        for worker in &mut rig.conductor.workers {
            worker.flush();
        }
        rig.turn();
        done += rig.events().len() as u64;
    }
    assert_eq!(done, sent);
}

#[test]
fn kernel_drops_are_told_to_the_worker_by_slot() {
    let mut rig = Rig::new(4);
    let ports = rig.open(1);
    let sender = UdpSocket::bind((rig.address, 0)).unwrap();
    for _ in 0..2_000 {
        sender
            .send_to(&[0; 1_000], (rig.address, ports[1]))
            .unwrap();
    }
    rig.pass(SECOND);
    rig.pass(SECOND);
    let drops: Vec<_> = rig
        .seen
        .iter()
        .filter(|seen| seen.contains("SocketDrops"))
        .collect();
    assert_eq!(drops.len(), 1, "one rise, told once: {drops:?}");
    assert!(drops[0].contains("slot: 2"), "{drops:?}");
}
