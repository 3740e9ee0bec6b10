//! Seeded calls over a bad network, with strangers about; and engines that are told anything.

mod lab;

use std::collections::HashSet;

use lab::*;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use trunkline_engine::{
    Captured, Codec, DropReason, LegFlags, LegSpec, MediaKind, MediaSpec, PayloadSpec, PortSlots,
    SessionSpec, Side,
};

/// A datagram under way.
struct Travelling {
    arrives_ns: u64,
    side: Side,
    number: u64,
}

/// What a network does to packets, in percent.
struct Faults {
    loss: u32,
    duplication: u32,
    reordering: u32,
    /// Datagrams a spoofer sends for each of a party's.
    spoofed: u32,
}

/// Two minutes of talk from both sides, from `first` on; returns what each side sent.
fn travel(random: &mut StdRng, faults: &Faults, count: u64) -> Vec<Travelling> {
    let mut travelling = Vec::new();
    for number in 0..count {
        for side in Side::BOTH {
            // The first and the last get through, so that both ends are known.
            let edge = number == 0 || number == count - 1;
            if !edge && random.random_range(0..100) < faults.loss {
                continue;
            }
            let sent_ns = 1000 * SECOND + number * 20 * MS;
            let mut push = |delay_ns| {
                travelling.push(Travelling {
                    arrives_ns: sent_ns + delay_ns,
                    side,
                    number,
                });
            };
            let late = !edge && random.random_range(0..100) < faults.reordering;
            push(if late {
                random.random_range(20..200) * MS
            } else {
                0
            });
            if !edge && random.random_range(0..100) < faults.duplication {
                push(random.random_range(1..200) * MS);
            }
        }
    }
    travelling.sort_by_key(|packet| (packet.arrives_ns, packet.number));
    travelling
}

fn simulate(seed: u64, faults: &Faults) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut lab = Lab::call();
    lab.engine.start_tap(SESSION, 1).unwrap();
    let count = 3000;
    let bases = [random.random::<u16>(), random.random()];
    let packet = |side: Side, number: u64| {
        let index = side as usize;
        let mut packet = Rtp::new(100 + index as u32, bases[index].wrapping_add(number as u16));
        packet.timestamp = (number as u32).wrapping_mul(160).wrapping_add(0xffff_f000);
        packet.payload = number.to_be_bytes().repeat(20);
        packet
    };
    let mut sent_by_side = [Vec::new(), Vec::new()];
    let mut heard_by_side = [Vec::new(), Vec::new()];
    let mut spoofed = 0;
    for travelling in travel(&mut random, faults, count) {
        lab.now_ns = lab.now_ns.max(travelling.arrives_ns);
        for _ in 0..faults.spoofed {
            let source = address(&format!("203.0.113.{}:5004", random.random_range(1..255)));
            let slot = random.random_range(0..4);
            let guess = packet(travelling.side, travelling.number);
            assert_eq!(lab.arrive(slot, source, &guess.bytes()), []);
            spoofed += 1;
        }
        let bytes = packet(travelling.side, travelling.number).bytes();
        let side = travelling.side as usize;
        sent_by_side[side].push(bytes.clone());
        let out = lab.arrive(SLOTS[side].rtp, party(travelling.side), &bytes);
        heard_by_side[side].extend(out.into_iter().map(|sent| sent.bytes));
    }
    assert_eq!(
        heard_by_side, sent_by_side,
        "the far end hears exactly what arrived"
    );
    assert_eq!(lab.strangers(), spoofed);
    let receipts = lab.receipts();
    assert_eq!(receipts.len(), 2);
    for receipt in receipts {
        let sent = &sent_by_side[receipt.side as usize];
        let distinct = sent.iter().collect::<HashSet<_>>().len() as u64;
        assert_eq!(receipt.expected, count);
        assert_eq!(receipt.written, distinct);
        assert_eq!(receipt.lost, count - distinct);
        assert_eq!(receipt.duplicates, sent.len() as u64 - distinct);
        let mut stats = Vec::new();
        lab.engine
            .stream_stats(SESSION, 0, receipt.side, &mut stats);
        assert_eq!(stats[0].packets, sent.len() as u64);
        assert_eq!(
            (stats[0].lost, stats[0].duplicates),
            (receipt.lost, receipt.duplicates)
        );
        assert_eq!(stats[0].reordered, receipt.reordered);
    }
    let recorded: Vec<_> = lab
        .log
        .frames
        .iter()
        .map(|(_, frame, _)| frame.duplicate)
        .collect();
    assert_eq!(
        recorded.len(),
        sent_by_side.iter().map(Vec::len).sum::<usize>()
    );
}

#[test]
fn a_good_network_loses_nothing() {
    simulate(
        1,
        &Faults {
            loss: 0,
            duplication: 0,
            reordering: 0,
            spoofed: 0,
        },
    );
}

#[test]
fn bad_networks_and_spoofers_change_nothing_but_the_counts() {
    for seed in 0..12 {
        let faults = Faults {
            loss: seed as u32 % 4 * 3,
            duplication: seed as u32 % 3 * 5,
            reordering: seed as u32 % 5 * 4,
            spoofed: seed as u32 % 2,
        };
        simulate(seed, &faults);
    }
}

/// Something done to an engine.
#[derive(Debug, Clone)]
enum Step {
    Packet {
        slot: u32,
        source: u8,
        bytes: Vec<u8>,
        cut: bool,
    },
    Stream {
        slot: u32,
        source: u8,
        ssrc: u8,
        numbers: Vec<u16>,
        pt: u8,
    },
    Update {
        media: u8,
        callee: bool,
        flags: u8,
        address: u8,
    },
    Tap(u8),
    Drops {
        slot: u32,
        rise: u8,
    },
    Wait(u64),
    Extend,
    Replace,
}

fn step() -> impl Strategy<Value = Step> {
    let slot = 0_u32..10;
    let address = 0_u8..6;
    prop_oneof![
        2 => (slot.clone(), address.clone(), prop::collection::vec(any::<u8>(), 0..80), any::<bool>())
            .prop_map(|(slot, source, bytes, cut)| Step::Packet { slot, source, bytes, cut }),
        8 => (slot.clone(), address.clone(), 0_u8..7, any::<u16>(), 1_u16..30, 0_u8..4)
            .prop_map(|(slot, source, ssrc, first, count, pt)| Step::Stream {
                slot,
                source,
                ssrc,
                numbers: (0..count).map(|n| first.wrapping_add(n / 2 * 2)).collect(),
                pt,
            }),
        3 => (0_u8..3, any::<bool>(), any::<u8>(), 0_u8..7)
            .prop_map(|(media, callee, flags, address)| Step::Update { media, callee, flags, address }),
        2 => (0_u8..4).prop_map(Step::Tap),
        1 => (slot, any::<u8>()).prop_map(|(slot, rise)| Step::Drops { slot, rise }),
        2 => (0_u64..3_000_000_000).prop_map(Step::Wait),
        1 => Just(Step::Extend),
        1 => Just(Step::Replace),
    ]
}

fn place(number: u8) -> std::net::SocketAddr {
    address(match number {
        0 => "192.0.2.1:5004",
        1 => "192.0.2.1:5005",
        2 => "192.0.2.1:9",
        3 => "198.51.100.1:6004",
        4 => "[2001:db8::1]:7",
        _ => "203.0.113.1:1",
    })
}

fn media(index: u32) -> MediaSpec {
    let kinds = [
        MediaKind::Audio,
        MediaKind::OpaqueRtp,
        MediaKind::OpaqueDatagram,
    ];
    let first = index * 4;
    MediaSpec {
        kind: kinds[index as usize],
        slots: [
            PortSlots {
                rtp: first,
                rtcp: first + 1,
            },
            PortSlots {
                rtp: first + 2,
                rtcp: first + 3,
            },
        ],
    }
}

fn update(media: u8, callee: bool, bits: u8, place_number: u8) -> LegSpec {
    let bit = |n: u8| bits >> n & 1 == 1;
    let side = if callee { Side::Callee } else { Side::Caller };
    let payload = |pt, codec| PayloadSpec {
        pt,
        to_pt: pt ^ u8::from(bit(6)),
        codec,
        clock_hz: 8000,
    };
    LegSpec {
        media,
        flags: LegFlags {
            rtcp_mux: bit(0),
            mute: bit(1),
            nat: bit(2),
            learn: bit(3),
            expect_media: bit(4),
            may_send: bit(5),
        },
        rtp: (place_number < 6).then(|| place(place_number)),
        payloads: vec![
            payload(0, Codec::Pcmu),
            payload(1, Codec::Opus),
            payload(2, Codec::Other),
        ],
        ..leg(side)
    }
}

struct Anything {
    lab: Lab,
    media: u32,
    arrived: u64,
}

impl Anything {
    fn take(&mut self, step: Step) {
        let lab = &mut self.lab;
        match step {
            Step::Packet {
                slot,
                source,
                bytes,
                cut,
            } => {
                lab.arrive_cut(slot, place(source), &bytes, cut);
                self.arrived += 1;
            }
            Step::Stream {
                slot,
                source,
                ssrc,
                numbers,
                pt,
            } => {
                for number in numbers {
                    let packet = Rtp {
                        pt,
                        ..Rtp::new(u32::from(ssrc), number)
                    };
                    lab.arrive(slot, place(source), &packet.bytes());
                    lab.wait(20 * MS);
                    self.arrived += 1;
                }
            }
            Step::Update {
                media,
                callee,
                flags,
                address,
            } => {
                let _ = lab
                    .engine
                    .update_leg(lab.now_ns, &update(media, callee, flags, address));
            }
            Step::Tap(0) => {
                let _ = lab.engine.start_tap(SESSION, 1);
            }
            Step::Tap(1) => {
                let _ = lab.engine.pause_tap(SESSION);
            }
            Step::Tap(2) => {
                let _ = lab.engine.resume_tap(SESSION);
                lab.log.refusals = vec![Captured::Dropped(DropReason::NoExtent); 3];
            }
            Step::Tap(_) => {
                let mut receipts = Vec::new();
                if lab.engine.stop_tap(SESSION, &mut receipts).is_ok() {
                    receipts.iter().for_each(assert_adds_up);
                }
            }
            Step::Drops { slot, rise } => {
                lab.engine
                    .attribute_drops(slot, DropReason::Socket, u64::from(rise));
            }
            Step::Wait(ns) => lab.housekeeping_until(lab.now_ns + ns),
            Step::Extend => {
                self.media = (self.media + 1).min(3);
                self.add();
            }
            Step::Replace => {
                lab.engine.remove_session(SESSION).unwrap();
                self.media = 1;
                self.add();
            }
        }
    }

    fn add(&mut self) {
        let media = (0..self.media).map(media).collect();
        let spec = SessionSpec {
            session: SESSION,
            media_timeout_ns: SECOND,
            media,
        };
        self.lab.engine.add_session(self.lab.now_ns, &spec).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn whatever_an_engine_is_told_every_datagram_is_counted_once_and_receipts_add_up(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut lab = Lab::bare(MediaKind::Audio);
        lab.engine.remove_session(SESSION).unwrap();
        let mut anything = Anything { lab, media: 1, arrived: 0 };
        anything.add();
        for step in steps {
            anything.take(step);
            let mut receipts = Vec::new();
            anything.lab.engine.tap_receipts(SESSION, &mut receipts);
            receipts.iter().for_each(assert_adds_up);
        }
        let lab = &mut anything.lab;
        // Candidates are counted once they are given up.
        lab.engine.remove_session(SESSION).unwrap();
        let counters = *lab.engine.counters();
        let counted = counters.rtp_in + counters.rtcp_in + counters.opaque_in + counters.strangers
            + counters.malformed + counters.rate_capped + counters.truncated + counters.no_flow;
        prop_assert_eq!(counted, anything.arrived);
        let left = counters.rtp_out + counters.rtcp_out + counters.opaque_out;
        prop_assert_eq!(left, lab.log.sent.len() as u64);
        prop_assert_eq!(
            counters.rtp_in + counters.rtcp_in + counters.opaque_in,
            left + counters.not_sent + counters.mute_withheld
        );
    }
}
