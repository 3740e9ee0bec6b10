//! Who may have something to say to a port, for a device that can turn strangers away before the
//! worker sees them.

use std::net::SocketAddr;

use crate::engine::{Engine, NEVER};
use crate::flow::NO_FLOW;
use crate::latch::{Latch, SILENT_NS};

/// Whose datagrams the engine must see. Every other one is a stranger's, whatever it holds, so
/// whoever drops it instead only has to count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// The port's slot.
    pub slot: u32,
    /// Always: these addresses. Port 0 means any port of the host.
    pub sources: [Option<SocketAddr>; 2],
    /// Until this moment: anybody (a source may be learnt). `u64::MAX` = for good.
    pub closed_from_ns: u64,
    /// After this silence of `sources`, and until one of them is heard after this was told: anybody
    /// (a source may be replaced by one that continues it). `u64::MAX` = never.
    pub silent_ns: u64,
}

/// Slots whose admission has changed, each once.
#[derive(Debug)]
pub(crate) struct Changed {
    slots: Vec<u32>,
    listed: Vec<bool>,
}

impl Changed {
    pub(crate) fn new(slots_max: u32) -> Self {
        Self {
            slots: Vec::with_capacity(slots_max as usize),
            listed: vec![false; slots_max as usize],
        }
    }

    pub(crate) fn note(&mut self, slot: u32) {
        if !std::mem::replace(&mut self.listed[slot as usize], true) {
            self.slots.push(slot);
        }
    }

    fn next(&mut self) -> Option<u32> {
        let slot = self.slots.pop()?;
        self.listed[slot as usize] = false;
        Some(slot)
    }
}

impl Engine {
    /// The next port for which [`Admission`] has changed. Ask until `None` after packets and
    /// commands; a slot's answer is the state now.
    pub fn poll_admission(&mut self) -> Option<Admission> {
        while let Some(slot) = self.admissions.next() {
            let port = self.ports[slot as usize];
            if port.flow != NO_FLOW {
                let latch = &self.flows[port.flow as usize].legs[port.side as usize].latch;
                return Some(if port.rtcp {
                    rtcp(slot, latch)
                } else {
                    rtp(slot, latch)
                });
            }
        }
        None
    }
}

fn rtp(slot: u32, latch: &Latch) -> Admission {
    Admission {
        slot,
        sources: [latch.source, latch.advertised()],
        closed_from_ns: latch.learn_until_ns(),
        silent_ns: latch.source.map_or(NEVER, |_| SILENT_NS),
    }
}

/// RTCP is also taken from any port of the host that RTP comes from.
fn rtcp(slot: u32, latch: &Latch) -> Admission {
    let host = latch.source.map(|source| SocketAddr::new(source.ip(), 0));
    let mut sources = [host, None];
    let mut closed_from_ns = latch.learn_until_ns();
    for other in [latch.advertised_rtcp(), latch.rtcp_source]
        .into_iter()
        .flatten()
    {
        let known = |source: &SocketAddr| {
            source.ip() == other.ip() && [0, other.port()].contains(&source.port())
        };
        if sources.iter().flatten().any(known) {
            continue;
        }
        match sources.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(other),
            // More than there are places for.
            None => closed_from_ns = NEVER,
        }
    }
    Admission {
        slot,
        sources,
        closed_from_ns,
        silent_ns: NEVER,
    }
}
