//! The packet path allocates nothing, whatever arrives.

mod lab;

use std::net::SocketAddr;

use lab::*;
use trunkline_engine::{Actions, Captured, Engine, Event, FrameMeta, Side, TAIL_ROOM_BYTES};

/// Counts and keeps nothing.
#[derive(Default)]
struct Count {
    forwarded: u64,
    copies: u64,
    captured: u64,
    events: u64,
}

impl Actions for Count {
    fn forward(&mut self, _: u32, _: SocketAddr, _: usize) {
        self.forwarded += 1;
    }

    fn forward_copy(&mut self, _: u32, _: SocketAddr, _: &[u8]) {
        self.copies += 1;
    }

    fn capture(&mut self, _: u32, _: &FrameMeta, _: &[u8]) -> Captured {
        self.captured += 1;
        Captured::Written
    }

    fn event(&mut self, _: Event) {
        self.events += 1;
    }
}

/// Packets in a buffer that is there already.
struct Feeder {
    engine: Engine,
    count: Count,
    buffer: Vec<u8>,
    now_ns: u64,
}

impl Feeder {
    fn feed(&mut self, slot: u32, source: SocketAddr, ssrc: u32, sequence: u16) {
        let length = 172;
        self.buffer[0] = 0x80;
        self.buffer[1] = 0;
        self.buffer[2..4].copy_from_slice(&sequence.to_be_bytes());
        self.buffer[4..8].copy_from_slice(&(u32::from(sequence) * 160).to_be_bytes());
        self.buffer[8..12].copy_from_slice(&ssrc.to_be_bytes());
        let Self {
            engine,
            count,
            buffer,
            now_ns,
        } = self;
        engine.handle_packet(*now_ns, slot, source, buffer, length, false, count);
        self.now_ns += MS;
    }
}

#[test]
fn no_packet_costs_an_allocation() {
    let mut lab = Lab::call();
    let mut muted = leg(Side::Callee);
    muted.flags.mute = true;
    muted.payloads[0].to_pt = 8;
    lab.update(&muted);
    lab.engine.start_tap(SESSION, 0).unwrap();
    let mut feeder = Feeder {
        engine: lab.engine,
        count: Count::default(),
        buffer: vec![0x55; 172 + TAIL_ROOM_BYTES],
        now_ns: lab.now_ns,
    };
    let (caller, callee) = (party(Side::Caller), party(Side::Callee));
    let elsewhere = address("192.0.2.1:9");
    let stranger = address("203.0.113.1:1");
    let rtcp = address("192.0.2.1:5005");
    let allocations = allocation_counter::measure(|| {
        // Learnt after three packets, then the advertised one again: two changes of source.
        for sequence in 0..20 {
            feeder.feed(0, elsewhere, 2, sequence);
        }
        for sequence in 0..5000_u16 {
            // Losses, duplicates, late ones, another SSRC now and then, reports, strangers.
            if sequence % 10 != 3 {
                feeder.feed(0, caller, 1 + u32::from(sequence % 500 == 0), sequence);
            }
            feeder.feed(0, caller, 1, sequence & !1);
            feeder.feed(2, callee, 7, sequence ^ 1);
            feeder.feed(0, stranger, 1, sequence);
            feeder.feed(1, rtcp, 1, sequence);
        }
    });
    let Count {
        forwarded,
        copies,
        captured,
        events,
    } = feeder.count;
    assert!(
        forwarded > 10_000 && captured > 10_000,
        "{forwarded} {captured}"
    );
    assert!(copies == 2 && events > 2, "{copies} {events}");
    assert_eq!(allocations.count_total, 0);
}
