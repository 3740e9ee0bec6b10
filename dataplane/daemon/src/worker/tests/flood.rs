//! More comes to ports than the worker is to drain.

use trunkline_link::counters::WorkerCounter;
use trunkline_link::message::{LegUpdate, Side};

use super::super::message::{SessionInstall, WorkerCommand, WorkerEvent};
use super::bench::*;

#[test]
fn a_flooded_port_is_left_unread_and_other_calls_do_not_notice() {
    let mut bench = Bench::new(8, 1024);
    bench.set_up();
    let stranger: std::net::SocketAddr = "203.0.113.9:9".parse().unwrap();
    // 30,000 a second of strangers to the caller's port, beside an ordinary conversation from the
    // callee's.
    for sequence in 0..50_u16 {
        for _ in 0..600 {
            bench.net.inject(0, stranger, b"flood");
        }
        bench
            .net
            .inject(2, party(Side::Callee), &rtp(2, sequence, &[5; 160]));
        for _ in 0..4 {
            bench.cycle();
        }
        let deadline_ns = bench.worker.next_deadline_ns(bench.now_ns);
        assert!(deadline_ns > bench.now_ns);
        bench.now_ns += 20 * MS;
    }
    let to_caller = bench
        .net
        .sent()
        .iter()
        .filter(|sent| sent.slot == 0)
        .count();
    assert_eq!(to_caller, 50, "the other direction goes on");
    let pauses = bench.counter(WorkerCounter::PortsLeftUnread);
    assert!((4..=8).contains(&pauses), "{pauses}");
    let before = bench.counter(WorkerCounter::Strangers);
    assert!((2_000 * pauses..30_000).contains(&before), "{before}");
    // The flood ends; what its socket held is read, and the caller is heard again.
    for _ in 0..200 {
        bench.now_ns += 20 * MS;
        bench.cycle();
    }
    assert_eq!(bench.counter(WorkerCounter::Strangers), 30_000);
    bench
        .net
        .inject(0, party(Side::Caller), &rtp(1, 9, &[5; 160]));
    bench.cycle();
    assert_eq!(
        bench
            .net
            .sent()
            .iter()
            .filter(|sent| sent.slot == 2)
            .count(),
        1
    );
}

#[test]
fn many_ports_over_the_cap_are_dropped_and_counted_and_other_calls_do_not_notice() {
    const FLOODED: [u32; 4] = [4, 6, 8, 10];
    let mut bench = Bench::recorded(8);
    bench.net.drop_unread();
    for (session, slot) in [(50, 4), (51, 8), (52, 12)] {
        let install = Box::new(SessionInstall {
            session,
            ..install(slot)
        });
        let answer = bench.ask(|request| WorkerCommand::AddSession { request, install });
        assert!(matches!(answer, WorkerEvent::Done { .. }));
        for side in Side::BOTH {
            bench.update(LegUpdate {
                session,
                ..leg(side)
            });
        }
    }
    let stranger = "203.0.113.9:9".parse().unwrap();
    let mut spoken = 0;
    for sequence in 0..50_u16 {
        // 30,000 a second to each flooded port, between ordinary packets of all calls.
        for _ in 0..600 {
            for slot in FLOODED {
                bench.net.inject(slot, stranger, b"flood");
            }
        }
        for slot in [0, 2, 4, 6, 8, 10, 12, 14] {
            let side = if slot % 4 == 0 {
                Side::Caller
            } else {
                Side::Callee
            };
            let packet = rtp(slot, sequence, &[5; 160]);
            bench.net.inject(slot, party(side), &packet);
            spoken += 1;
        }
        for _ in 0..12 {
            bench.cycle();
        }
        bench.now_ns += 20 * MS;
    }
    // What came before a port was left unread is read now.
    for _ in 0..40 {
        bench.now_ns += 20 * MS;
        bench.cycle();
    }
    let sent = bench.net.sent();
    // Each leaves by the other side's slot.
    for slot in [0, 2, 12, 14] {
        let heard = sent.iter().filter(|sent| sent.slot == slot).count();
        assert_eq!(heard, 50, "{slot}");
    }
    let pauses = bench.counter(WorkerCounter::PortsLeftUnread);
    assert!((16..=32).contains(&pauses), "{pauses}");
    // Everything is relayed, a stranger, or dropped.
    let strangers = bench.counter(WorkerCounter::Strangers);
    let dropped = bench.counter(WorkerCounter::SocketDrops);
    let flood = 4 * 50 * 600;
    assert_eq!(sent.len() as u64 + strangers + dropped, spoken + flood);
    assert!(dropped > flood / 4, "{dropped}");
    // The recorded call lacks nothing, and nothing is held against it.
    let stopped = bench.ask(|request| WorkerCommand::RecordingStop {
        request,
        session: SESSION,
        recording: RECORDING,
    });
    let WorkerEvent::RecordingState { streams, .. } = stopped else {
        panic!("{stopped:?}")
    };
    assert_eq!(streams.len(), 2);
    for stream in streams {
        assert_eq!((stream.written, stream.lost), (50, 0));
        assert_eq!(stream.dropped.iter().sum::<u64>(), 0);
    }
}
