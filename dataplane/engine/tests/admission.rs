//! Whoever drops what `Admission` calls strangers drops nothing that the engine would have taken.

mod lab;

use std::collections::HashMap;
use std::net::SocketAddr;

use lab::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use trunkline_engine::{Admission, LegFlags, LegRestore, LegSpec, Side};

/// What a filter in front of the engine knows.
#[derive(Default)]
struct Filter {
    ports: HashMap<u32, (Admission, u64)>,
    dropped: u64,
    passed_strangers: u64,
}

impl Filter {
    fn follow(&mut self, lab: &mut Lab) {
        while let Some(admission) = lab.engine.poll_admission() {
            self.ports.insert(admission.slot, (admission, 0));
        }
    }

    fn passes(&mut self, now_ns: u64, slot: u32, source: SocketAddr) -> bool {
        let Some((admission, heard_ns)) = self.ports.get_mut(&slot) else {
            return true;
        };
        let known = |admitted: &SocketAddr| {
            admitted.ip() == source.ip() && [0, source.port()].contains(&admitted.port())
        };
        if admission.sources.iter().flatten().any(known) {
            *heard_ns = now_ns;
            return true;
        }
        now_ns < admission.closed_from_ns || now_ns - *heard_ns >= admission.silent_ns
    }
}

const ADDRESSES: [&str; 6] = [
    "192.0.2.1:5004",
    "192.0.2.1:5005",
    "192.0.2.1:7000",
    "192.0.2.9:5004",
    "198.51.100.1:6004",
    "203.0.113.66:1",
];

fn any_address(random: &mut StdRng) -> SocketAddr {
    address(ADDRESSES[random.random_range(0..ADDRESSES.len())])
}

fn any_leg(random: &mut StdRng, side: Side) -> LegSpec {
    let learned_rtp = random.random_bool(0.1).then(|| any_address(random));
    let learned_rtcp = random.random_bool(0.1).then(|| any_address(random));
    LegSpec {
        flags: LegFlags {
            learn: random.random_bool(0.8),
            nat: random.random_bool(0.3),
            rtcp_mux: random.random_bool(0.2),
            ..leg(side).flags
        },
        rtp: random.random_bool(0.9).then(|| any_address(random)),
        rtcp: random.random_bool(0.3).then(|| any_address(random)),
        signalling: random.random_bool(0.8).then(|| any_address(random).ip()),
        restore: (learned_rtp.is_some() || learned_rtcp.is_some()).then_some(LegRestore {
            learned_rtp,
            learned_rtcp,
            continuity: None,
        }),
        ..leg(side)
    }
}

/// One seeded life of a session: signalling, silence, talk, strangers.
fn live(seed: u64, filter: &mut Filter) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut lab = Lab::call();
    filter.ports.clear();
    let mut streams = [Rtp::new(1, 100), Rtp::new(2, 200), Rtp::new(3, 300)];
    let mut talker = any_address(&mut random);
    for _ in 0..400 {
        filter.follow(&mut lab);
        match random.random_range(0..100) {
            0..4 => {
                let side = Side::BOTH[random.random_range(0..2)];
                let spec = any_leg(&mut random, side);
                lab.update(&spec);
                continue;
            }
            4..8 => lab.wait(random.random_range(0..7000) * MS),
            8..14 => talker = any_address(&mut random),
            _ => {}
        }
        lab.housekeeping_until(lab.now_ns + 20 * MS);
        let source = if random.random_bool(0.7) {
            talker
        } else {
            any_address(&mut random)
        };
        let slot = if random.random_bool(0.8) { 0 } else { 1 };
        let stream = &mut streams[if random.random_bool(0.8) {
            0
        } else {
            random.random_range(0..3)
        }];
        stream.advance();
        let bytes = match random.random_range(0..10) {
            0 => vec![7; random.random_range(0..30)],
            1..3 => sender_report(stream.ssrc, stream.timestamp, 9, 1),
            _ => stream.bytes(),
        };
        let (before, events) = (lab.strangers(), lab.log.events.len());
        let passes = filter.passes(lab.now_ns, slot, source);
        let sent = lab.arrive(slot, source, &bytes);
        let strangers = lab.strangers() - before;
        if passes {
            filter.passed_strangers += strangers;
            continue;
        }
        filter.dropped += 1;
        // Packets on probation may be given up by the way.
        assert!(strangers >= 1, "seed {seed}: {source} at slot {slot}");
        assert!(sent.is_empty(), "seed {seed}: {source} at slot {slot}");
        assert_eq!(lab.log.events.len(), events, "seed {seed}");
    }
}

#[test]
fn nothing_the_engine_takes_is_dropped_before_it() {
    let mut filter = Filter::default();
    for seed in 0..400 {
        live(seed, &mut filter);
    }
    // It is of some use, too.
    let all = filter.dropped + filter.passed_strangers;
    assert!(filter.dropped > all / 4, "{} of {all}", filter.dropped);
}

#[test]
fn a_call_that_talks_is_closed_to_strangers_five_seconds_after_its_signalling() {
    let mut lab = Lab::call();
    let mut filter = Filter::default();
    let mut caller = Rtp::new(1, 1);
    lab.talk(Side::Caller, party(Side::Caller), &mut caller, 10);
    filter.follow(&mut lab);
    assert!(filter.passes(lab.now_ns, 0, party(Side::Caller)));
    assert!(filter.passes(lab.now_ns, 0, address("203.0.113.66:1")));
    lab.wait(5 * SECOND);
    // Not before it is heard once more.
    assert!(filter.passes(lab.now_ns, 0, address("203.0.113.66:1")));
    assert!(filter.passes(lab.now_ns, 0, party(Side::Caller)));
    assert!(!filter.passes(lab.now_ns, 0, address("203.0.113.66:1")));
    // RTCP of the same host is taken from any port, others' is not.
    assert!(filter.passes(lab.now_ns, 1, address("192.0.2.1:40000")));
    assert!(!filter.passes(lab.now_ns, 1, address("203.0.113.66:1")));
    // A second of silence lets another source continue it.
    assert!(filter.passes(lab.now_ns + SECOND, 0, address("203.0.113.66:1")));
    // New signalling opens it again.
    lab.update(&leg(Side::Caller));
    filter.follow(&mut lab);
    assert!(filter.passes(lab.now_ns, 0, address("203.0.113.66:1")));
}
