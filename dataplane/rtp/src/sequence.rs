//! Extended sequence numbers (RFC 3550 section A.1), with a memory of what was seen, so that
//! duplicates and late packets are told apart exactly.

/// Sequence numbers remembered behind the highest one.
pub const WINDOW: u64 = 1024;
/// A jump ahead by this much or more is no loss but a restart, once a second packet confirms it.
pub const DROPOUT_MAX: u16 = 3000;
/// A packet seen before and this far behind is a duplicate; further behind it may be a restart.
pub const MISORDER_MAX: u64 = 100;

const WORDS: usize = WINDOW as usize / 64;
/// No 16-bit number equals it.
const NO_CANDIDATE: u32 = 1 << 16;
const CYCLE: u64 = 1 << 16;

/// What a sequence number is, given those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// The highest so far; `gap` numbers were skipped.
    Next {
        /// Numbers skipped.
        gap: u16,
    },
    /// Not seen before, behind the highest.
    Late,
    /// Seen before.
    Duplicate,
    /// Far from everything: the first packet of a restart, or noise.
    Stray,
    /// Follows the last [`Arrival::Stray`] (or a far duplicate): the sender started anew. The
    /// extended number lies in a cycle of its own, above all before.
    Restart,
}

/// What became of one packet's sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observed {
    /// What it is.
    pub arrival: Arrival,
    /// Extended number: cycles in the upper bits, counted from 1, so that packets older than the
    /// first one have a number too.
    pub extended: u64,
}

/// One stream's sequence numbers: first what every packet needs, then what was seen.
#[derive(Debug, Clone)]
#[repr(C)]
pub struct SequenceTracker {
    highest: u64,
    /// Next number of a suspected restart.
    candidate: u32,
    /// Bit `n % WINDOW` tells whether extended number `n` was seen.
    seen: [u64; WORDS],
}

impl SequenceTracker {
    /// Bytes at its beginning that every packet needs.
    pub const NUMBERS_BYTES: usize = std::mem::offset_of!(Self, seen);

    /// Starts with the first packet's number.
    #[must_use]
    pub fn new(first: u16) -> Self {
        let mut tracker = Self {
            highest: CYCLE | u64::from(first),
            candidate: NO_CANDIDATE,
            seen: [0; WORDS],
        };
        tracker.mark(tracker.highest);
        tracker
    }

    /// Highest extended number, cycles counted from 1.
    #[inline]
    #[must_use]
    pub fn highest(&self) -> u64 {
        self.highest
    }

    /// Highest extended number as in a report block: cycles counted from 0, 32 bits.
    #[must_use]
    pub fn highest_reported(&self) -> u32 {
        self.highest.wrapping_sub(CYCLE) as u32
    }

    /// Takes a packet's number. `dropout_max` is [`DROPOUT_MAX`], or more (up to 32767) when so
    /// long a silence went before that so many packets may well have been lost.
    #[inline]
    pub fn observe(&mut self, sequence: u16, dropout_max: u16) -> Observed {
        let ahead = sequence.wrapping_sub(self.highest as u16);
        if ahead != 0 && ahead < dropout_max {
            let extended = self.highest + u64::from(ahead);
            self.advance(extended);
            self.candidate = NO_CANDIDATE;
            return Observed {
                arrival: Arrival::Next { gap: ahead - 1 },
                extended,
            };
        }
        self.observe_behind(sequence)
    }

    /// A number that is not the expected kind: equal, behind, or far away.
    fn observe_behind(&mut self, sequence: u16) -> Observed {
        let behind = u64::from((self.highest as u16).wrapping_sub(sequence));
        let restarted = (self.highest | (CYCLE - 1)) + 1 + u64::from(sequence);
        if behind < WINDOW && behind <= self.highest {
            let extended = self.highest - behind;
            if !self.is_seen(extended) {
                self.mark(extended);
                return Observed {
                    arrival: Arrival::Late,
                    extended,
                };
            }
            if behind <= MISORDER_MAX {
                return Observed {
                    arrival: Arrival::Duplicate,
                    extended,
                };
            }
            if self.candidate != u32::from(sequence) {
                self.candidate = u32::from(sequence.wrapping_add(1));
                return Observed {
                    arrival: Arrival::Duplicate,
                    extended,
                };
            }
            return self.restart(restarted);
        }
        if self.candidate == u32::from(sequence) {
            return self.restart(restarted);
        }
        if self.candidate == u32::from(sequence.wrapping_add(1)) {
            return Observed {
                arrival: Arrival::Duplicate,
                extended: restarted,
            };
        }
        self.candidate = u32::from(sequence.wrapping_add(1));
        Observed {
            arrival: Arrival::Stray,
            extended: restarted,
        }
    }

    fn restart(&mut self, extended: u64) -> Observed {
        self.highest = extended;
        self.candidate = NO_CANDIDATE;
        self.seen = [0; WORDS];
        // The packet before it belongs to the new run and was counted on its arrival.
        self.mark(extended - 1);
        self.mark(extended);
        Observed {
            arrival: Arrival::Restart,
            extended,
        }
    }

    #[inline]
    fn advance(&mut self, to: u64) {
        let gap = to - self.highest - 1;
        if gap >= WINDOW {
            self.seen = [0; WORDS];
        } else {
            for skipped in self.highest + 1..to {
                self.seen[(skipped % WINDOW) as usize / 64] &= !(1 << (skipped % 64));
            }
        }
        self.highest = to;
        self.mark(to);
    }

    #[inline]
    fn mark(&mut self, extended: u64) {
        self.seen[(extended % WINDOW) as usize / 64] |= 1 << (extended % 64);
    }

    fn is_seen(&self, extended: u64) -> bool {
        self.seen[(extended % WINDOW) as usize / 64] & (1 << (extended % 64)) != 0
    }
}
