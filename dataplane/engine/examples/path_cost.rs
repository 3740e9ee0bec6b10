//! What a packet costs in the engine alone: 2,000 two-way G.711 flows, with and without a tap whose
//! capture copies the payload away.
//!
//! `cargo run --release -p trunkline-engine --example path_cost`
//!
//! `path_cost relayed|tapped ROUNDS` runs one of them alone, for counting its instructions
//! (`cargo xtask instructions`).

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Instant;

use trunkline_engine::{
    Actions, Captured, Codec, Engine, Event, FrameMeta, LegFlags, LegSpec, Limits, MediaKind,
    MediaSpec, PayloadSpec, PortSlots, SessionSpec, Side, TAIL_ROOM_BYTES,
};

const SESSIONS: u32 = 1000;
const ROUNDS: u32 = 500;

struct Sink {
    forwarded: u64,
    memory: Vec<u8>,
    at: usize,
}

impl Actions for Sink {
    fn forward(&mut self, slot: u32, destination: SocketAddr, length: usize) {
        black_box((slot, destination, length));
        self.forwarded += 1;
    }

    fn forward_copy(&mut self, _: u32, _: SocketAddr, _: &[u8]) {}

    fn capture(&mut self, _: u32, frame: &FrameMeta, bytes: &[u8]) -> Captured {
        black_box(frame);
        if self.at + bytes.len() > self.memory.len() {
            self.at = 0;
        }
        self.memory[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
        Captured::Written
    }

    fn event(&mut self, _: Event) {}
}

fn party(side: Side, session: u32) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1 + side as u8], 10_000 + session as u16 * 2))
}

fn prepare(tapped: bool) -> Engine {
    let limits = Limits {
        slots_max: SESSIONS * 4,
        sessions_max: SESSIONS,
        probations_max: 16,
    };
    let mut engine = Engine::new(limits);
    for session in 0..SESSIONS {
        let ports = |side: u32| {
            let rtp = session * 4 + side * 2;
            PortSlots { rtp, rtcp: rtp + 1 }
        };
        let media = vec![MediaSpec {
            kind: MediaKind::Audio,
            slots: [ports(0), ports(1)],
        }];
        let spec = SessionSpec {
            session: u64::from(session),
            media_timeout_ns: 0,
            media,
        };
        engine.add_session(0, &spec).expect("room");
        for side in Side::BOTH {
            let payload = PayloadSpec {
                pt: 0,
                to_pt: 0,
                codec: Codec::Pcmu,
                clock_hz: 8000,
            };
            let spec = LegSpec {
                session: u64::from(session),
                media: 0,
                side,
                flags: LegFlags {
                    may_send: true,
                    learn: true,
                    ..LegFlags::default()
                },
                rtp: Some(party(side, session)),
                rtcp: None,
                signalling: None,
                payloads: vec![payload],
                restore: None,
            };
            engine.update_leg(0, &spec).expect("known");
        }
        if tapped {
            engine
                .start_tap(u64::from(session), session)
                .expect("no tap yet");
        }
    }
    engine
}

fn run(tapped: bool, rounds: u32) {
    let mut engine = prepare(tapped);
    let mut sink = Sink {
        forwarded: 0,
        memory: vec![0; 8 << 20],
        at: 0,
    };
    let mut buffer = vec![0_u8; 172 + TAIL_ROOM_BYTES];
    buffer[0] = 0x80;
    let mut best = f64::MAX;
    for round in 0..rounds {
        let now_ns = 1_000_000_000 + u64::from(round) * 20_000_000;
        buffer[2..4].copy_from_slice(&(round as u16).to_be_bytes());
        buffer[4..8].copy_from_slice(&(round * 160).to_be_bytes());
        let start = Instant::now();
        for session in 0..SESSIONS {
            for side in Side::BOTH {
                let slot = session * 4 + side as u32 * 2;
                let source = party(side, session);
                engine.handle_packet(now_ns, slot, source, &mut buffer, 172, false, &mut sink);
            }
        }
        let each = start.elapsed().as_nanos() as f64 / f64::from(SESSIONS * 2);
        best = best.min(each);
    }
    assert_eq!(sink.forwarded, u64::from(SESSIONS * 2 * rounds));
    println!(
        "{:>9}: {best:.0} ns a packet",
        if tapped { "tapped" } else { "relayed" }
    );
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next(), arguments.next()) {
        (Some(variant), Some(rounds)) => {
            run(
                variant == "tapped",
                rounds.parse().expect("a number of rounds"),
            );
        }
        _ => {
            run(false, ROUNDS);
            run(true, ROUNDS);
        }
    }
}
