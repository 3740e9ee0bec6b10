//! The numbers the project set itself, and which values they are judged by.

use crate::calls;
use crate::contestant::Contestant;
use crate::flat::{FEW, MANY, MOST};
use crate::place::Rig;
use crate::results::{Aim, Compared, Results, quantity};
use crate::signalling::System;

const OURS: &str = Contestant::Trunkline.name();
const RECORDING: &str = Contestant::TrunklineRecord.name();
const FORKING: &str = Contestant::TrunklineFork.name();
const FORKING_TO_NOBODY: &str = Contestant::TrunklineForkGone.name();
const RTPENGINE: &str = Contestant::Rtpengine.name();
const PCAP: &str = Contestant::RtpengineRecord.name();
const BARE: &str = Contestant::Bare.name();
const INLINE: &str = Rig::Inline.name();
const ONE_CORE: &str = Rig::OneCore.name();

/// Of plain relay.
const RELAY: &[Compared<'static>] = &[
    Compared {
        name: "relay, goodput at 1.5 x its edge, one-core",
        of: (ONE_CORE, OURS, quantity::OVERLOAD),
        // Once overloaded it does not come back: its best window counts.
        with: (ONE_CORE, RTPENGINE, quantity::BEST),
        aim: Aim::AtLeast(1.6),
    },
    Compared {
        name: "relay, edge of loss, inline",
        of: (INLINE, OURS, quantity::EDGE),
        with: (INLINE, RTPENGINE, quantity::EDGE),
        aim: Aim::AtLeast(1.8),
    },
    Compared {
        name: "relay, CPU a packet, one-core",
        of: (ONE_CORE, OURS, quantity::CPU),
        with: (ONE_CORE, BARE, quantity::CPU),
        aim: Aim::AtMost(0.75),
    },
    Compared {
        name: "latency p99, inline",
        of: (INLINE, OURS, quantity::P99),
        with: (INLINE, RTPENGINE, quantity::P99),
        aim: Aim::AtMost(0.5),
    },
    Compared {
        name: "latency p99, one-core",
        of: (ONE_CORE, OURS, quantity::P99),
        with: (ONE_CORE, RTPENGINE, quantity::P99),
        aim: Aim::AtMost(0.5),
    },
    Compared {
        name: "memory a relayed call",
        of: (INLINE, OURS, quantity::MEMORY),
        with: (INLINE, RTPENGINE, quantity::MEMORY),
        aim: Aim::AtMost(0.5),
    },
    Compared {
        name: "CPU a packet with many flows, one-core",
        of: (ONE_CORE, MANY, quantity::CPU),
        with: (ONE_CORE, FEW, quantity::CPU),
        aim: Aim::AtMost(1.5),
    },
    Compared {
        name: "CPU a packet with the most flows, one-core",
        of: (ONE_CORE, MOST, quantity::CPU),
        with: (ONE_CORE, FEW, quantity::CPU),
        aim: Aim::AtMost(1.5),
    },
];

/// Of relay and capture.
const RECORD: &[Compared<'static>] = &[
    Compared {
        name: "relay and capture, edge of loss, inline",
        of: (INLINE, RECORDING, quantity::EDGE),
        with: (INLINE, PCAP, quantity::EDGE),
        aim: Aim::AtLeast(2.2),
    },
    Compared {
        name: "capture's own CPU, end to end, one-core",
        of: (ONE_CORE, RECORDING, quantity::CPU),
        with: (ONE_CORE, OURS, quantity::CPU),
        aim: Aim::AtMost(1.05),
    },
];

/// Of copies to a recorder (SIPREC), one of each packet: a copy costs at most 0.6 of a relayed packet, and a
/// recorder that is gone changes nothing for the parties.
const SIPREC: &[Compared<'static>] = &[
    Compared {
        name: "CPU a packet with its copy, one-core",
        of: (ONE_CORE, FORKING, quantity::CPU),
        with: (ONE_CORE, OURS, quantity::CPU),
        aim: Aim::AtMost(1.6),
    },
    Compared {
        name: "edge of loss, recorder gone, one-core",
        of: (ONE_CORE, FORKING_TO_NOBODY, quantity::EDGE),
        with: (ONE_CORE, FORKING, quantity::EDGE),
        aim: Aim::AtLeast(0.95),
    },
    Compared {
        name: "latency p99, recorder gone, one-core",
        of: (ONE_CORE, FORKING_TO_NOBODY, quantity::P99),
        with: (ONE_CORE, FORKING, quantity::P99),
        aim: Aim::AtMost(1.5),
    },
];

/// Of call set-ups, against Kamailio and against fewer calls.
const CALLS: &[Compared<'static>] = &[
    Compared {
        name: "call set-ups a second on one core",
        of: (calls::RIG, OURS, quantity::SETUPS),
        with: (calls::RIG, System::Kamailio.name(), quantity::SETUPS),
        aim: Aim::AtLeast(0.5),
    },
    Compared {
        name: "CPU a call with many standing",
        of: (calls::RIG, calls::MANY, quantity::CALL_CPU),
        with: (calls::RIG, calls::FEW, quantity::CALL_CPU),
        aim: Aim::AtMost(1.5),
    },
];

/// Judges what a run measured.
pub fn judge(results: &mut Results) {
    let aims = match results.bench.as_str() {
        "relay" => RELAY,
        "record" => RECORD,
        "siprec" => SIPREC,
        "calls" => CALLS,
        _ => return,
    };
    if results.bench == "calls" {
        let at = (calls::RIG, OURS, quantity::SETUPS);
        results.judge(
            "call set-ups a second on one core",
            at,
            Aim::AtLeast(1_000.0),
        );
        let at = (calls::RIG, calls::MANY, quantity::MEMORY);
        results.judge(
            "control's memory a standing call, KiB",
            at,
            Aim::AtMost(24.0),
        );
    }
    for aim in aims {
        results.compare(*aim);
    }
}
