//! Sources that are not accepted yet, with the packets they have sent: if the source is learnt, its
//! first packets are relayed and not lost.

use std::net::SocketAddr;

/// Not a place in the [`Probations`].
pub(crate) const NO_PROBATION: u32 = u32::MAX;
/// Packets in order that make a source accepted.
const PACKETS: usize = 3;
/// Bytes of a packet that can be held; a larger one ends its source's probation.
const HELD_BYTES: usize = 2048;
/// A candidate that sends nothing for so long is forgotten.
const PATIENCE_NS: u64 = 1_000_000_000;

/// One packet held back.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) at_ns: u64,
    length: usize,
    bytes: Box<[u8]>,
}

impl Held {
    /// The buffer and the length of the packet in it.
    pub(crate) fn parts(&mut self) -> (&mut [u8], usize) {
        (&mut self.bytes, self.length)
    }
}

/// One source on probation.
#[derive(Debug)]
struct Candidate {
    source: SocketAddr,
    /// Who waits for it: port slot. Checked whenever a port follows its index.
    slot: u32,
    ssrc: u32,
    next_sequence: u16,
    held: usize,
    last_ns: u64,
    until_ns: u64,
    packets: [Held; PACKETS - 1],
}

/// What came of a packet on probation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Held.
    Held,
    /// It completes the probation; the packets before it are at [`Probations::held`].
    Learnt,
    /// Neither: it is a stranger's.
    Refused,
}

/// All candidates of an engine. Memory is allocated at start.
#[derive(Debug)]
pub(crate) struct Probations {
    candidates: Vec<Candidate>,
    free: Vec<u32>,
}

/// A candidate's packet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Applicant<'a> {
    pub(crate) now_ns: u64,
    pub(crate) slot: u32,
    pub(crate) source: SocketAddr,
    pub(crate) ssrc: u32,
    pub(crate) sequence: u16,
    pub(crate) until_ns: u64,
    pub(crate) packet: &'a [u8],
}

impl Probations {
    pub(crate) fn new(candidates_max: u32) -> Self {
        let nobody = SocketAddr::from(([0, 0, 0, 0], 0));
        let held = || Held {
            at_ns: 0,
            length: 0,
            bytes: vec![0; HELD_BYTES + 64].into_boxed_slice(),
        };
        let candidate = |_| Candidate {
            source: nobody,
            slot: 0,
            ssrc: 0,
            next_sequence: 0,
            held: 0,
            last_ns: 0,
            until_ns: 0,
            packets: [held(), held()],
        };
        Self {
            candidates: (0..candidates_max).map(candidate).collect(),
            free: (0..candidates_max).rev().collect(),
        }
    }

    /// Whether anybody is on probation.
    pub(crate) fn is_idle(&self) -> bool {
        self.free.len() == self.candidates.len()
    }

    /// Takes a packet of a port's candidate. `places` are the port's candidates, changed as they
    /// come and go; packets given up are added to `strangers`.
    pub(crate) fn apply(
        &mut self,
        applicant: &Applicant<'_>,
        places: &mut [u32],
        strangers: &mut u64,
    ) -> Progress {
        let known = places.iter().position(|&place| {
            place != NO_PROBATION && self.candidates[place as usize].source == applicant.source
        });
        let Some(index) = known else {
            return self.admit(applicant, places, strangers);
        };
        let place = places[index];
        let candidate = &mut self.candidates[place as usize];
        let in_order = candidate.ssrc == applicant.ssrc
            && candidate.next_sequence == applicant.sequence
            && applicant.now_ns.saturating_sub(candidate.last_ns) < PATIENCE_NS;
        if !in_order {
            *strangers += candidate.held as u64;
            candidate.held = 0;
        } else if candidate.held == PACKETS - 1 {
            return Progress::Learnt;
        }
        if candidate.hold(applicant) {
            return Progress::Held;
        }
        self.release(&mut places[index], strangers);
        Progress::Refused
    }

    /// A new candidate, in free room or in place of the port's oldest.
    fn admit(
        &mut self,
        applicant: &Applicant<'_>,
        places: &mut [u32],
        strangers: &mut u64,
    ) -> Progress {
        let index = places
            .iter()
            .position(|&place| place == NO_PROBATION)
            .unwrap_or_else(|| {
                let last = |index: &usize| self.candidates[places[*index] as usize].last_ns;
                let oldest = (0..places.len()).min_by_key(last).unwrap_or(0);
                self.release(&mut places[oldest], strangers);
                oldest
            });
        let Some(place) = self.free.pop() else {
            return Progress::Refused;
        };
        let candidate = &mut self.candidates[place as usize];
        candidate.source = applicant.source;
        candidate.slot = applicant.slot;
        candidate.held = 0;
        if candidate.hold(applicant) {
            places[index] = place;
            return Progress::Held;
        }
        self.free.push(place);
        Progress::Refused
    }

    /// The packets held of the candidate of this source, oldest first.
    pub(crate) fn held(&mut self, places: &[u32], source: SocketAddr) -> &mut [Held] {
        let found = places.iter().find(|&&place| {
            place != NO_PROBATION && self.candidates[place as usize].source == source
        });
        match found {
            Some(&place) => {
                let candidate = &mut self.candidates[place as usize];
                &mut candidate.packets[..candidate.held]
            }
            None => &mut [],
        }
    }

    /// Ends the probation of all of a port's candidates; held packets were a stranger's.
    pub(crate) fn release_all(&mut self, places: &mut [u32], strangers: &mut u64) {
        for place in places.iter_mut().filter(|place| **place != NO_PROBATION) {
            self.release(place, strangers);
        }
    }

    /// Ends a learnt source's probation: its packets were relayed.
    pub(crate) fn forget(&mut self, places: &mut [u32], source: SocketAddr) {
        for place in places.iter_mut().filter(|place| **place != NO_PROBATION) {
            if self.candidates[*place as usize].source == source {
                self.candidates[*place as usize].held = 0;
                self.release(place, &mut 0);
            }
        }
    }

    fn release(&mut self, place: &mut u32, strangers: &mut u64) {
        let candidate = &mut self.candidates[*place as usize];
        *strangers += candidate.held as u64;
        candidate.held = 0;
        self.free.push(*place);
        *place = NO_PROBATION;
    }

    /// Slots whose candidate has run out of time; their ports have to [`Self::release_expired`].
    pub(crate) fn expired(&self, now_ns: u64) -> impl Iterator<Item = u32> + '_ {
        self.candidates
            .iter()
            .filter(move |candidate| candidate.held > 0 && candidate.is_expired(now_ns))
            .map(|candidate| candidate.slot)
    }

    /// Ends the probation of a port's candidates that have run out of time.
    pub(crate) fn release_expired(&mut self, now_ns: u64, places: &mut [u32], strangers: &mut u64) {
        for place in places.iter_mut().filter(|place| **place != NO_PROBATION) {
            if self.candidates[*place as usize].is_expired(now_ns) {
                self.release(place, strangers);
            }
        }
    }
}

impl Candidate {
    fn is_expired(&self, now_ns: u64) -> bool {
        now_ns >= self.until_ns || now_ns.saturating_sub(self.last_ns) >= PATIENCE_NS
    }

    /// Keeps a copy; false when it is too large.
    fn hold(&mut self, applicant: &Applicant<'_>) -> bool {
        let length = applicant.packet.len();
        if length > HELD_BYTES {
            return false;
        }
        let held = &mut self.packets[self.held];
        held.at_ns = applicant.now_ns;
        held.length = length;
        held.bytes[..length].copy_from_slice(applicant.packet);
        self.held += 1;
        self.ssrc = applicant.ssrc;
        self.next_sequence = applicant.sequence.wrapping_add(1);
        self.last_ns = applicant.now_ns;
        self.until_ns = applicant.until_ns;
        true
    }
}
