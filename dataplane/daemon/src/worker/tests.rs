//! The whole worker on the device in memory: datagrams in, datagrams out, frames in extents.

mod bench;
mod flood;

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use trunkline_device::Config;
use trunkline_link::counters::{Counters, WorkerCounter};
use trunkline_link::message::{
    CodecId, DigitSend, DropReason, FactKind, FailReason, MediaKind, RecordingPhase, Side,
    StreamReceipt, leg_flags,
};
use trunkline_sn3::record::{ClockTriple, DropRecord};
use trunkline_sn3::{FrameKind, flags};

use super::Worker;
use super::message::{
    Idle, MediaInstall, PortInstall, SessionInstall, TapStart, WorkerCommand, WorkerConfig,
    WorkerEvent, WorkerQueues,
};
use crate::recorder::message::CaptureQueues;
use bench::*;

#[test]
fn a_call_is_relayed_and_recorded_as_it_came() {
    let mut bench = Bench::recorded(16);
    let origin_ns = bench.now_ns;
    bench.talk(100, 200, 160);
    let sent = bench.net.sent();
    assert_eq!(sent.len(), 400);
    assert!(sent.iter().all(|datagram| match datagram.slot {
        0 => datagram.remote == party(Side::Caller) && datagram.bytes[11] == 2,
        2 => datagram.remote == party(Side::Callee) && datagram.bytes[11] == 1,
        _ => false,
    }));
    let streams = bench.finish();
    assert_eq!(streams.len(), 2);
    for stream in &streams {
        assert_eq!(
            (stream.expected, stream.written, stream.lost),
            (200, 200, 0)
        );
        assert_eq!((stream.bytes, stream.covered_ns), (32_000, 4 * SECOND));
    }
    assert_eq!(bench.finished, [RECORDING]);

    let clock = &bench.frames[0];
    assert_eq!(
        (clock.head.kind, clock.head.wall_ns, clock.ordinal),
        (FrameKind::Clock, 0, 0)
    );
    let clock = ClockTriple::decode(&clock.payload).unwrap();
    assert_eq!((clock.mono_ns, clock.utc_ns), (origin_ns, 6 * SECOND));
    assert_eq!(bench.frames[1].head.kind, FrameKind::CallOpen);
    let packets = bench.packets();
    assert_eq!(packets.len(), 400);
    for (index, found) in packets.iter().enumerate() {
        let sequence = 100 + index as u16 / 2;
        assert_eq!(
            (found.head.side, found.head.seq),
            ((index % 2) as u8, sequence)
        );
        assert_eq!(found.head.wall_ns, u64::from(sequence - 100) * 20 * MS);
        assert_eq!(found.payload, vec![sequence as u8; 160]);
    }
    let ordinals: Vec<u32> = bench.frames.iter().map(|frame| frame.ordinal).collect();
    assert!(
        ordinals.is_sorted() && ordinals.last() == Some(&4),
        "{ordinals:?}"
    );
    assert_eq!(bench.counter(WorkerCounter::RtpPacketsOut), 400);
    assert_eq!(bench.counter(WorkerCounter::CaptureFrames), 402);
    assert_eq!(bench.counter(WorkerCounter::ExtentsFull), 5);
}

#[test]
fn an_extent_is_handed_over_when_it_is_two_seconds_old() {
    let mut bench = Bench::recorded(4);
    bench.talk(0, 5, 160);
    assert!(bench.frames.is_empty());
    let deadline = bench.worker.next_deadline_ns(bench.now_ns);
    assert!(deadline <= 1_002 * SECOND, "a parked worker wakes for it");
    bench.now_ns = 1_002 * SECOND;
    bench.cycle();
    assert_eq!(bench.packets().len(), 10);
    bench.talk(5, 5, 160);
    bench.finish();
    assert_eq!(bench.packets().len(), 20);
    assert_eq!(bench.frames.last().map(|frame| frame.ordinal), Some(1));
}

#[test]
fn what_is_recorded_is_what_came_not_what_was_sent() {
    let mut bench = Bench::new(8, 1024);
    bench.set_up();
    let mut muted = leg(Side::Caller);
    muted.flags |= leg_flags::MUTE;
    muted.payloads[0].to_pt = 96;
    bench.update(muted);
    bench.start_recording();
    bench.talk(0, 10, 160);
    let sent = bench.net.sent();
    let to_callee: Vec<_> = sent.iter().filter(|datagram| datagram.slot == 2).collect();
    assert_eq!(to_callee.len(), 10);
    assert!(
        to_callee
            .iter()
            .all(|d| d.bytes[1] == 96 && d.bytes[12..] == [0xff; 160])
    );
    bench.finish();
    let caller: Vec<_> = bench
        .packets()
        .into_iter()
        .filter(|p| p.head.side == 0)
        .collect();
    assert!(
        caller
            .iter()
            .all(|p| p.head.pt == 0 && p.payload[0] == p.head.seq as u8)
    );
}

#[test]
fn masked_keys_are_relayed_and_never_recorded() {
    for masks in [false, true] {
        let mut bench = Bench::new(8, 1024);
        bench.worker.capture.mask_events = masks;
        bench.set_up();
        let mut keys = leg(Side::Caller);
        keys.payloads[0].codec = CodecId::TelephoneEvent;
        bench.update(keys);
        bench.start_recording();
        bench.talk(5, 10, 160);
        let sent = bench.net.sent();
        let to_callee = sent.iter().filter(|datagram| datagram.slot == 2);
        assert!(
            to_callee.clone().count() == 10 && to_callee.clone().all(|d| d.bytes[12] == d.bytes[3])
        );
        let receipts = bench.finish();
        assert!(receipts.iter().all(|stream| stream.written == 10));
        for packet in bench.packets() {
            let masked = packet.head.flags & flags::MASKED != 0;
            assert_eq!(masked, masks && packet.head.side == 0);
            let said = packet
                .payload
                .iter()
                .step_by(4)
                .any(|&event| event == packet.head.seq as u8);
            assert_eq!(said, !masked, "{:?}", packet.payload);
        }
    }
}

#[test]
fn a_digit_of_ours_leaves_and_is_recorded_as_played_and_masked_where_keys_are() {
    for masks in [false, true] {
        let mut bench = Bench::new(8, 1024);
        bench.worker.capture.mask_events = masks;
        bench.set_up();
        bench.start_recording();
        bench.talk(0, 3, 160);
        let digit = DigitSend {
            session: SESSION,
            media: 0,
            to: Side::Callee,
            pt: 97,
            clock_hz: 8000,
            event: 5,
            duration_ms: 60,
            ssrc: 1,
        };
        let answer = bench.ask(|request| WorkerCommand::Dial { request, digit });
        assert!(matches!(answer, WorkerEvent::Done { .. }));
        bench.talk(3, 10, 160);
        let sent = bench.net.sent();
        let keys = sent.iter().filter(|one| one.bytes[1] & 0x7f == 97);
        assert_eq!(keys.clone().count(), 5);
        assert!(keys.clone().all(|one| one.slot == 2 && one.bytes[12] == 5));
        let receipts = bench.finish();
        assert!(
            receipts
                .iter()
                .all(|one| (one.written, one.lost) == (13, 0))
        );
        let played = bench.frames.iter();
        let played = played.filter(|one| one.head.flags & flags::INJECTED != 0);
        assert_eq!(played.clone().count(), 5);
        for frame in played {
            assert_eq!((frame.head.kind, frame.head.side), (FrameKind::Opaque, 0));
            assert_eq!(frame.payload[12], if masks { 255 } else { 5 });
            assert_eq!(frame.head.flags & flags::MASKED != 0, masks);
        }
        assert!(bench.packets().iter().all(|one| one.head.pt != 97));
    }
}

#[test]
fn a_pause_holds_at_the_packet() {
    let mut bench = Bench::recorded(8);
    bench.talk(0, 10, 160);
    let (session, recording) = (SESSION, RECORDING);
    let answer = bench.ask(|request| WorkerCommand::RecordingPause {
        request,
        session,
        recording,
    });
    assert_eq!(state(&answer).0, RecordingPhase::Paused);
    let again = bench.ask(|request| WorkerCommand::RecordingPause {
        request,
        session,
        recording,
    });
    assert!(matches!(
        again,
        WorkerEvent::Failed {
            reason: FailReason::WrongState,
            ..
        }
    ));
    bench.talk(10, 10, 160);
    bench.ask(|request| WorkerCommand::RecordingResume {
        request,
        session,
        recording,
    });
    bench.talk(20, 10, 160);
    assert_eq!(bench.net.sent().len(), 60, "relay goes on");
    let streams = bench.finish();
    assert!(
        streams
            .iter()
            .all(|stream| (stream.expected, stream.written) == (20, 20))
    );
    let kinds: Vec<FrameKind> = bench.frames.iter().map(|frame| frame.head.kind).collect();
    let at = |kind| kinds.iter().position(|found| *found == kind).unwrap();
    assert_eq!(at(FrameKind::Pause), 22);
    assert_eq!(at(FrameKind::Resume), 23);
    assert_eq!(bench.packets().len(), 40);
}

#[test]
fn without_extents_relay_goes_on_and_the_hole_is_counted_and_marked() {
    let mut bench = Bench::recorded(1);
    // 16 KiB hold 84 packets or so; the rest of four seconds finds nothing.
    bench.talk(0, 200, 160);
    assert_eq!(bench.net.sent().len(), 400);
    let events = bench.events();
    let short = |events: &[WorkerEvent]| {
        events.iter().rev().find_map(|event| match event {
            WorkerEvent::ExtentsShort { short } => Some(*short),
            _ => None,
        })
    };
    assert_eq!(short(&events), Some(true));
    let written_before = bench.packets().len();
    bench.refill();
    bench.talk(200, 20, 160);
    assert_eq!(short(&bench.events()), Some(false));
    let answer = bench.ask(|request| WorkerCommand::RecordingStop {
        request,
        session: SESSION,
        recording: RECORDING,
    });
    bench.refill();
    let recording = RECORDING;
    bench.ask(|request| WorkerCommand::RecordingFinish { request, recording });
    let streams = state(&answer).1;
    let dropped: u64 = streams
        .iter()
        .map(|stream| stream.dropped[DropReason::NoExtent as usize])
        .sum();
    let written: u64 = streams.iter().map(|stream| stream.written).sum();
    assert!(
        streams
            .iter()
            .all(|stream| stream.expected == 220 && stream.lost == 0)
    );
    assert_eq!(written, bench.packets().len() as u64);
    assert_eq!(written + dropped, 440);
    assert!(
        written_before < 90 && dropped > 300,
        "{written_before} {dropped}"
    );
    let marked: u64 = bench
        .frames
        .iter()
        .filter(|frame| frame.head.kind == FrameKind::Drop)
        .map(|frame| DropRecord::decode(&frame.payload).unwrap())
        .inspect(|record| assert_eq!(record.reason_name(), "no_extent"))
        .map(|record| record.count)
        .sum();
    assert_eq!(marked, dropped);
    assert_eq!(
        bench.counter(WorkerCounter::CaptureDroppedNoExtent),
        dropped
    );
}

#[test]
fn a_recording_that_never_had_an_extent_still_ends() {
    let mut bench = Bench::recorded(0);
    bench.talk(0, 10, 160);
    let streams = bench.finish();
    assert!(
        streams
            .iter()
            .all(|stream| stream.dropped[DropReason::NoExtent as usize] == 10)
    );
    assert!(
        bench.finished.is_empty(),
        "it waits for an extent for its facts"
    );
    bench.now_ns += 6 * SECOND;
    bench.cycle();
    assert_eq!(bench.finished, [RECORDING]);
    assert_eq!(bench.counter(WorkerCounter::Recordings), 0);
}

#[test]
fn faults_on_the_way_are_told_from_drops_of_ours() {
    let mut bench = Bench::recorded(32);
    let link = trunkline_device::sim::Link {
        loss: 3000,
        duplicate: 2000,
        reorder: 2000,
    };
    bench.talk(0, 3, 160);
    bench.net.set_link(link, 7);
    bench.talk(3, 1000, 160);
    bench.net.settle();
    bench
        .net
        .set_link(trunkline_device::sim::Link::default(), 0);
    bench.talk(1003, 1, 160);
    bench
        .queues
        .commands
        .push(WorkerCommand::SocketDrops { slot: 0, rise: 5 })
        .unwrap();
    let counts = bench.net.link_counts();
    let streams = bench.finish();
    let sum = |count: fn(&StreamReceipt) -> u64| streams.iter().map(count).sum::<u64>();
    assert_eq!(sum(|stream| stream.expected), 2 * 1004);
    let socket = sum(|stream| stream.dropped[DropReason::Socket as usize]);
    assert_eq!(socket, 5, "of those missing from the caller, five are ours");
    assert_eq!(sum(|stream| stream.lost) + socket, counts.lost);
    assert_eq!(sum(|stream| stream.duplicates), counts.duplicated);
    assert_eq!(sum(|stream| stream.written), 2 * 1004 - counts.lost);
    let packets = bench.packets();
    let duplicates = packets
        .iter()
        .filter(|p| p.head.flags & flags::DUPLICATE != 0)
        .count() as u64;
    assert_eq!(duplicates, counts.duplicated);
    assert_eq!(packets.len() as u64, 2 * 1004 - counts.lost + duplicates);
    assert_eq!(bench.counter(WorkerCounter::SocketDrops), 5);
    assert_eq!(bench.counter(WorkerCounter::CaptureDroppedSocket), 5);
}

#[test]
fn what_a_shared_socket_dropped_is_ours_up_to_what_each_stream_lacks() {
    let mut bench = Bench::recorded(32);
    bench.talk(0, 50, 160);
    // The caller lacks eight packets, the callee two; six were dropped on the way to somebody.
    bench.net.drop_shared(6);
    for (side, missing) in [(Side::Caller, 8), (Side::Callee, 2)] {
        let bytes = rtp(1 + side as u32, 50 + missing, &[0x55; 160]);
        bench.net.inject(2 * side as u32, party(side), &bytes);
    }
    bench.cycle();
    let streams = bench.finish();
    for stream in &streams {
        let missing = if stream.side == Side::Caller { 8 } else { 2 };
        let dropped = stream.dropped[DropReason::Socket as usize];
        assert_eq!(stream.expected, 51 + missing, "{stream:?}");
        assert_eq!(dropped, missing.min(6), "{stream:?}");
        assert_eq!(stream.lost, missing - dropped, "{stream:?}");
    }
    assert_eq!(bench.counter(WorkerCounter::SocketDrops), 6);
}

#[test]
fn receipts_are_reported_every_second() {
    let mut bench = Bench::recorded(32);
    bench.talk(0, 170, 160);
    let progress: Vec<u64> = bench
        .events()
        .into_iter()
        .filter_map(|event| match event {
            WorkerEvent::RecordingProgress {
                recording,
                streams,
                next_ordinal,
                ..
            } => {
                assert_eq!(recording, RECORDING);
                assert!(next_ordinal > 0);
                Some(streams.iter().map(|stream| stream.written).sum())
            }
            _ => None,
        })
        .collect();
    assert_eq!(progress, [102, 202, 302]);
}

#[test]
fn the_session_goes_and_the_recording_still_takes_its_last_fact() {
    let mut bench = Bench::recorded(8);
    bench.talk(0, 10, 160);
    let session = SESSION;
    bench
        .queues
        .commands
        .push(WorkerCommand::RemoveSession {
            request: 500,
            session,
        })
        .unwrap();
    bench.cycle();
    bench.now_ns += MS;
    bench.cycle();
    let events = bench.events();
    let stopped = events.iter().any(|event| {
        matches!(
            event,
            WorkerEvent::RecordingState {
                request: 0,
                phase: RecordingPhase::Stopped,
                ..
            }
        )
    });
    assert!(stopped, "{events:?}");
    let mut slots: Vec<u32> = events
        .iter()
        .filter_map(|event| match event {
            WorkerEvent::SlotClosed { slot } => Some(*slot),
            _ => None,
        })
        .collect();
    slots.sort_unstable();
    assert_eq!(slots, [0, 1, 2, 3]);
    let (recording, kind, fact) = (RECORDING, FactKind::CallClose, vec![b'{'; 9000]);
    bench.ask(|request| WorkerCommand::RecordingFact {
        request,
        recording,
        kind,
        fact,
    });
    bench.ask(|request| WorkerCommand::RecordingFinish { request, recording });
    assert_eq!(bench.finished, [RECORDING]);
    let close: usize = bench
        .frames
        .iter()
        .filter(|frame| frame.head.kind == FrameKind::CallClose)
        .map(|frame| frame.payload.len())
        .sum();
    assert_eq!(close, 9000);
    assert_eq!(bench.counter(WorkerCounter::Slots), 0);
    // The slots can be had again.
    bench.set_up();
    let gone = bench.ask(|request| WorkerCommand::RecordingFinish { request, recording });
    assert!(matches!(
        gone,
        WorkerEvent::Failed {
            reason: FailReason::NotFound,
            ..
        }
    ));
}

#[test]
fn a_session_that_does_not_fit_leaves_nothing_behind() {
    let mut bench = Bench::new(4, 1024);
    bench.set_up();
    // Slots 2 and 3 are taken, 4 and 5 are not.
    let media = MediaInstall {
        kind: MediaKind::Audio,
        ports: [
            PortInstall {
                rtp: socket(4),
                rtcp: socket(5),
            },
            PortInstall {
                rtp: socket(2),
                rtcp: socket(6),
            },
        ],
    };
    let other = SessionInstall {
        session: 42,
        media_timeout_ms: 0,
        first_media: 0,
        media: vec![media],
    };
    let install = Box::new(other);
    let request = 77;
    bench
        .queues
        .commands
        .push(WorkerCommand::AddSession { request, install })
        .unwrap();
    bench.cycle();
    bench.cycle();
    let events = bench.events();
    assert!(events.iter().any(|event| matches!(
        event,
        WorkerEvent::Failed {
            request: 77,
            reason: FailReason::Invalid
        }
    )));
    let mut closed: Vec<u32> = events
        .iter()
        .filter_map(|event| match event {
            WorkerEvent::SlotClosed { slot } => Some(*slot),
            _ => None,
        })
        .collect();
    closed.sort_unstable();
    assert_eq!(closed, [4, 5, 6]);
    bench.talk(0, 2, 160);
    assert_eq!(bench.net.sent().len(), 4, "the call that was there goes on");
    let wrong = Box::new(SessionInstall {
        first_media: 3,
        ..install_second()
    });
    let answer = bench.ask(|request| WorkerCommand::AddSession {
        request,
        install: wrong,
    });
    assert!(matches!(
        answer,
        WorkerEvent::Failed {
            reason: FailReason::Invalid,
            ..
        }
    ));
    let right = Box::new(install_second());
    let answer = bench.ask(|request| WorkerCommand::AddSession {
        request,
        install: right,
    });
    assert!(matches!(answer, WorkerEvent::Done { .. }));
}

/// A second m-line for the session.
fn install_second() -> SessionInstall {
    SessionInstall {
        first_media: 1,
        ..install(8)
    }
}

#[test]
fn commands_that_make_no_sense_are_answered() {
    let mut bench = Bench::new(4, 1024);
    let (session, recording) = (SESSION, RECORDING);
    let failed = |event: WorkerEvent| match event {
        WorkerEvent::Failed { reason, .. } => reason,
        other => panic!("{other:?}"),
    };
    let update = Box::new(leg(Side::Caller));
    let no_leg = bench.ask(|request| WorkerCommand::UpdateLeg { request, update });
    assert_eq!(failed(no_leg), FailReason::NotFound);
    let gone = bench.ask(|request| WorkerCommand::RemoveSession { request, session });
    assert_eq!(failed(gone), FailReason::NotFound);
    let stop = bench.ask(|request| WorkerCommand::RecordingStop {
        request,
        session,
        recording,
    });
    assert_eq!(failed(stop), FailReason::NotFound);
    bench.set_up();
    bench.start_recording();
    let start = |recording| {
        Box::new(TapStart {
            session,
            recording,
            origin_mono_ns: 0,
            first_ordinal: 0,
            clock: ClockTriple::default(),
            open_fact: Vec::new(),
        })
    };
    let again = bench.ask(|request| WorkerCommand::RecordingStart {
        request,
        start: start(RECORDING + 1),
    });
    assert_eq!(failed(again), FailReason::WrongState);
    bench.finish();
    let none = bench.ask(|request| WorkerCommand::RecordingStart {
        request,
        start: start(0),
    });
    assert_eq!(failed(none), FailReason::Invalid);
    let stop = bench.ask(|request| WorkerCommand::RecordingStop {
        request,
        session,
        recording,
    });
    assert_eq!(failed(stop), FailReason::NotFound);
}

#[test]
fn a_recording_goes_on_after_a_restart() {
    let mut bench = Bench::new(4, 1024);
    bench.set_up();
    let origin_ns = bench.now_ns - 30 * SECOND;
    let start = Box::new(TapStart {
        session: SESSION,
        recording: RECORDING,
        origin_mono_ns: origin_ns,
        first_ordinal: 12,
        clock: ClockTriple {
            mono_ns: bench.now_ns,
            utc_ns: 77 * SECOND,
            sync: 0,
        },
        open_fact: Vec::new(),
    });
    bench.ask(|request| WorkerCommand::RecordingStart { request, start });
    bench.talk(0, 5, 160);
    bench.finish();
    assert_eq!(bench.frames[0].ordinal, 12);
    assert_eq!(bench.frames[0].head.wall_ns, 30 * SECOND);
    let clock = ClockTriple::decode(&bench.frames[0].payload).unwrap();
    assert_eq!(clock.utc_of(origin_ns), 47 * SECOND);
    assert_eq!(bench.frames[1].head.kind, FrameKind::Rtp);
}

#[test]
fn a_full_event_queue_holds_reports_and_never_packets() {
    let mut bench = Bench::new(4, 2);
    for request in 1..=10 {
        let command = WorkerCommand::RemoveSession {
            request,
            session: 5,
        };
        bench.queues.commands.push(command).unwrap();
    }
    bench.cycle();
    let mut requests = Vec::new();
    for _ in 0..10 {
        for event in bench.events() {
            match event {
                WorkerEvent::Failed { request, .. } => requests.push(request),
                other => panic!("{other:?}"),
            }
        }
        bench.cycle();
    }
    assert_eq!(requests, (1..=10).collect::<Vec<_>>());
}

#[test]
fn silent_sessions_are_listed() {
    let mut bench = Bench::new(4, 64);
    bench.set_up();
    bench.talk(0, 5, 160);
    let last_ns = bench.now_ns - 20 * MS;
    bench.events();
    bench.now_ns += 30 * SECOND;
    for (silent_ns, listed) in [(60 * SECOND, None), (30 * SECOND, Some(last_ns))] {
        bench
            .queues
            .commands
            .push(WorkerCommand::ListSilent { silent_ns })
            .unwrap();
        bench.cycle();
        let found = bench.events().into_iter().find_map(|event| match event {
            WorkerEvent::SessionSilent {
                session: SESSION,
                last_packet_ns,
            } => Some(last_packet_ns),
            _ => None,
        });
        assert_eq!(found, listed);
    }
}

#[test]
fn shutting_down_hands_everything_over() {
    let mut bench = Bench::recorded(8);
    bench.talk(0, 10, 160);
    bench.queues.commands.push(WorkerCommand::Shutdown).unwrap();
    bench.cycle();
    assert!(bench.worker.has_ended());
    assert_eq!(bench.packets().len(), 20);
    assert_eq!(bench.finished, [RECORDING]);
    assert!(matches!(bench.events().last(), Some(WorkerEvent::Ended)));
}

#[test]
fn every_buffer_comes_back() {
    let mut bench = Bench::new(1, 1024);
    bench.set_up();
    let free = bench.worker.device.buffers_free();
    for round in 0..3000_u32 {
        let bytes = vec![0x80; (round % 2100) as usize];
        let source = if round % 3 == 0 {
            party(Side::Caller)
        } else {
            party(Side::Callee)
        };
        bench.net.inject(round % 5, source, &bytes);
        if round % 7 == 0 {
            bench.cycle();
        }
    }
    bench.cycle();
    assert_eq!(bench.worker.device.buffers_free(), free);
}

/// CPU time of a thread of this process in ns, by the scheduler's account.
fn cpu_ns(thread: i32) -> u64 {
    let path = format!("/proc/self/task/{thread}/schedstat");
    let text = std::fs::read_to_string(path).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_parked_worker_costs_next_to_nothing_and_still_hears_its_bell() {
    let queues = WorkerQueues {
        commands: Arc::new(ArrayQueue::new(8)),
        events: Arc::new(ArrayQueue::new(8)),
        capture: CaptureQueues::new(4),
        worker_bell: bell(),
        conductor_bell: bell(),
        recorder_bell: bell(),
    };
    let (_pages, mut writers) = Counters::create(1).unwrap();
    let counters = writers.workers.remove(0);
    let doorbell = std::os::fd::AsFd::as_fd(queues.worker_bell.doorbell());
    let doorbell = Some(doorbell.try_clone_to_owned().unwrap());
    let (tell, told) = std::sync::mpsc::channel();
    let ends = queues.clone();
    let thread = std::thread::spawn(move || {
        tell.send(nix::unistd::gettid().as_raw()).unwrap();
        let config = Config {
            slots_max: 16,
            doorbell,
            ..Config::default()
        };
        let settings = WorkerConfig::new(0, Idle::Park, 16);
        match trunkline_device::open(trunkline_device::Backend::Uring, &config).unwrap() {
            trunkline_device::Opened::Uring(device) => {
                Worker::new(settings, device, ends, counters).run().unwrap();
            }
            trunkline_device::Opened::Mmsg { device, .. } => {
                Worker::new(settings, device, ends, counters).run().unwrap();
            }
        }
    });
    let id = told.recv().unwrap();
    let pause = std::time::Duration::from_millis(1000);
    std::thread::sleep(pause);
    let before = cpu_ns(id);
    std::thread::sleep(pause);
    let used = cpu_ns(id) - before;
    assert!(used < 1_000_000, "{used} ns in a second without work");
    queues.commands.push(WorkerCommand::Shutdown).unwrap();
    queues.worker_bell.ring();
    thread.join().unwrap();
    assert!(matches!(queues.events.pop(), Some(WorkerEvent::Ended)));
}
