//! Fetching ahead what packets are going to need.
//!
//! Between two packets of a flow lie 20 ms and thousands of other packets: what is kept of it has
//! left the caches, and each packet would wait for memory some ten times in a row. When a batch is
//! there, what its packets need is fetched first, in passes, because each says where the next one's is:
//! so the processor fetches it side by side. Of few packets without recordings nothing is waited for that
//! long: fetching does not pay then.

use crate::engine::Engine;
use crate::flow::{CACHE_LINE, Flow, Leg, NO_FLOW, NO_TAP};
use crate::spec::Side;
use crate::stream::Stream;

impl Engine {
    /// First pass: gives `fetch` where the flow of a slot lies.
    #[inline]
    pub fn fetch_flow(&self, slot: u32, fetch: impl Fn(*const u8)) {
        let Some((flow, side)) = self.flow_of(slot) else {
            return;
        };
        let (own, far) = flow.ordered(side);
        fetch(place_of(flow));
        fetch(place_of(&own.latch.source));
        fetch(place_of(&own.altered));
        fetch(place_of(&far.latch.destination));
    }

    /// Second pass: gives `fetch` where the slot's stream lies, and the number of the tap that sees it;
    /// `None` where it is not recorded.
    #[inline]
    #[must_use]
    pub fn fetch_stream(&self, slot: u32, fetch: impl Fn(*const u8)) -> Option<u32> {
        let (flow, side) = self.flow_of(slot)?;
        let recorded = flow.tap != NO_TAP;
        if let Some(stream) = flow.ordered(side).0.streams.current() {
            let start = place_of(stream);
            let lines = if recorded {
                Stream::LINES
            } else {
                Stream::LINES_UNRECORDED
            };
            for line in 0..lines {
                fetch(start.wrapping_add(line * CACHE_LINE));
            }
        }
        recorded.then_some(flow.tap)
    }

    #[inline]
    fn flow_of(&self, slot: u32) -> Option<(&Flow, Side)> {
        let port = self.ports.get(slot as usize)?;
        if port.flow == NO_FLOW {
            return None;
        }
        Some((self.flows.get(port.flow as usize)?, port.side))
    }
}

impl Flow {
    /// The legs, `side`'s own first.
    #[inline]
    fn ordered(&self, side: Side) -> (&Leg, &Leg) {
        let [caller, callee] = &self.legs;
        match side {
            Side::Caller => (caller, callee),
            Side::Callee => (callee, caller),
        }
    }
}

fn place_of<T>(value: &T) -> *const u8 {
    std::ptr::from_ref(value).cast()
}
