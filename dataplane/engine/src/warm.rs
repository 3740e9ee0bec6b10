//! Touching ahead what packets that are recorded are going to need.
//!
//! Between two packets of a flow lie 20 ms and thousands of other packets, each of which writes its
//! payload to another place: tables and extents have left the caches, and each packet would wait for
//! memory some ten times in a row. When a batch is there, its flows are touched first, all of them:
//! the processor fetches them side by side. Without recordings the tables stay, and touching them
//! does not pay.

use crate::engine::Engine;
use crate::flow::{Leg, NO_FLOW, NO_TAP};

/// What was read, so that it is read, and what to touch next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Warm {
    /// Of no meaning. Hand it to [`std::hint::black_box`].
    pub sum: u64,
    /// Number of the tap that will see the packet.
    pub tap: u32,
}

impl Engine {
    /// Touches what a packet at this slot needs; nothing changes. `None`: it is not recorded.
    #[inline]
    #[must_use]
    pub fn warm(&self, slot: u32) -> Option<Warm> {
        let port = self.ports.get(slot as usize)?;
        if port.flow == NO_FLOW {
            return None;
        }
        let flow = self.flows.get(port.flow as usize)?;
        if flow.tap == NO_TAP {
            return None;
        }
        let [caller, callee] = &flow.legs;
        let (own, far) = match port.side {
            crate::Side::Caller => (caller, callee),
            crate::Side::Callee => (callee, caller),
        };
        let sum = flow.session
            ^ u64::from(flow.media)
            ^ flow.forks.len() as u64
            ^ own.warm_source()
            ^ far.warm_destination();
        Some(Warm { sum, tap: flow.tap })
    }
}

impl Leg {
    fn warm_source(&self) -> u64 {
        let source = self.latch.source.map_or(0, |source| source.port());
        u64::from(source)
            ^ self.latch.heard_ns
            ^ u64::from(self.latch.candidates[0])
            ^ u64::from(self.mute)
            ^ self.payloads.len() as u64
            ^ self.streams.warm()
    }

    fn warm_destination(&self) -> u64 {
        let destination = self.latch.destination().map_or(0, |address| address.port());
        u64::from(destination) ^ u64::from(self.may_send)
    }
}
