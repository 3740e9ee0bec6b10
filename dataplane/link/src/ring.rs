//! A single-producer single-consumer ring of variable-length records, for memory that another
//! process shares.
//!
//! Records are copied in and out word by word with relaxed atomics; the cursors order them:
//!
//! ```text
//! producer: write words, store `tail` (release)    consumer: load `tail` (acquire), read words
//! consumer: store `head` (release)                 producer: load `head` (acquire), reuse words
//! ```
//! Each end keeps its own cursor privately and never reads it back, and judges the other's cursor and
//! every length before use: a peer that scribbles causes [`RingError::Corrupt`] and nothing else.
//!
//! Doorbell: before it sleeps, the consumer stores a fresh non-zero `parked`, fences, and looks
//! once more; the producer publishes, fences, and loads `parked`. One of the two sees the other, so
//! no wake-up is lost, and a doorbell is rung once a nap at most.
//!
//! The core is generic over its memory, so that loom checks the very same code.

use std::sync::atomic::Ordering;

/// A 64-bit word that two threads or processes share.
pub trait Word {
    /// Atomic load.
    fn load(&self, order: Ordering) -> u64;
    /// Atomic store.
    fn store(&self, value: u64, order: Ordering);
}

impl Word for std::sync::atomic::AtomicU64 {
    #[inline]
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }

    #[inline]
    fn store(&self, value: u64, order: Ordering) {
        self.store(value, order);
    }
}

/// Where a ring lives. Cursors count words since the ring's creation.
pub trait RingMemory {
    /// Word type.
    type Word: Word;
    /// Words published; written by the producer.
    fn tail(&self) -> &Self::Word;
    /// Records the producer had to drop; written by the producer.
    fn overruns(&self) -> &Self::Word;
    /// Words consumed; written by the consumer.
    fn head(&self) -> &Self::Word;
    /// Non-zero while the consumer sleeps; written by the consumer.
    fn parked(&self) -> &Self::Word;
    /// The ring's words, a power of two.
    fn words(&self) -> &[Self::Word];
    /// A sequentially consistent fence.
    fn fence(&self);
}

/// What can go wrong on a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// No room now.
    #[error("ring is full")]
    Full,
    /// The record can never fit.
    #[error("record is too large")]
    TooLarge,
    /// The peer's cursor or a record's length is impossible. The ring stays unusable.
    #[error("ring is corrupt")]
    Corrupt,
}

/// First word of a record: marker in the upper half, length in bytes in the lower.
const MARKER: u64 = 0x5452_4C4B << 32;

fn words_for(bytes: usize) -> u64 {
    1 + bytes.div_ceil(8) as u64
}

/// The writing end.
#[derive(Debug)]
pub struct Producer<M> {
    memory: M,
    mask: u64,
    bytes_max: usize,
    tail: u64,
    head_seen: u64,
    rung: u64,
    overruns: u64,
    corrupt: bool,
}

impl<M: RingMemory> Producer<M> {
    /// The writing end of a fresh ring (all zero).
    ///
    /// # Panics
    /// When the ring is not a power of two of words that holds a record of `bytes_max`.
    pub fn new(memory: M, bytes_max: usize) -> Self {
        let length = memory.words().len() as u64;
        assert!(length.is_power_of_two() && words_for(bytes_max) <= length);
        Self {
            memory,
            mask: length - 1,
            bytes_max,
            tail: 0,
            head_seen: 0,
            rung: 0,
            overruns: 0,
            corrupt: false,
        }
    }

    /// Publishes one record. `Ok(true)`: the consumer sleeps, ring its doorbell.
    ///
    /// # Errors
    /// `Full` is back-pressure; `TooLarge`; `Corrupt`.
    pub fn push(&mut self, record: &[u8]) -> Result<bool, RingError> {
        if record.len() > self.bytes_max {
            return Err(RingError::TooLarge);
        }
        self.acquire(words_for(record.len()))?;
        let words = self.memory.words();
        let place = |index: u64| &words[(index & self.mask) as usize];
        place(self.tail).store(MARKER | record.len() as u64, Ordering::Relaxed);
        let mut at = self.tail + 1;
        for chunk in record.chunks(8) {
            let mut word = [0_u8; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            place(at).store(u64::from_le_bytes(word), Ordering::Relaxed);
            at += 1;
        }
        self.tail = at;
        // Release: pairs with the acquire load of `tail` in `Consumer::pop`.
        self.memory.tail().store(self.tail, Ordering::Release);
        Ok(self.peer_sleeps())
    }

    /// Makes sure of room, looking at the consumer's cursor only when the last look is not enough.
    fn acquire(&mut self, needed: u64) -> Result<(), RingError> {
        if self.corrupt {
            return Err(RingError::Corrupt);
        }
        let capacity = self.mask + 1;
        if self.tail - self.head_seen + needed <= capacity {
            return Ok(());
        }
        // Acquire: pairs with the release store of `head` in `Consumer::pop`.
        let head = self.memory.head().load(Ordering::Acquire);
        if head < self.head_seen || head > self.tail {
            self.corrupt = true;
            return Err(RingError::Corrupt);
        }
        self.head_seen = head;
        if self.tail - head + needed <= capacity {
            Ok(())
        } else {
            Err(RingError::Full)
        }
    }

    fn peer_sleeps(&mut self) -> bool {
        self.memory.fence();
        let parked = self.memory.parked().load(Ordering::Relaxed);
        let ring = parked != 0 && parked != self.rung;
        if ring {
            self.rung = parked;
        }
        ring
    }

    /// Tells the consumer that a record was dropped. `true`: ring its doorbell.
    pub fn note_overrun(&mut self) -> bool {
        self.overruns += 1;
        self.memory
            .overruns()
            .store(self.overruns, Ordering::Release);
        self.peer_sleeps()
    }
}

/// The reading end.
#[derive(Debug)]
pub struct Consumer<M> {
    memory: M,
    mask: u64,
    bytes_max: usize,
    head: u64,
    tail_seen: u64,
    naps: u64,
    awake: bool,
    overruns_seen: u64,
    corrupt: bool,
}

impl<M: RingMemory> Consumer<M> {
    /// The reading end of a fresh ring (all zero).
    ///
    /// # Panics
    /// As [`Producer::new`].
    pub fn new(memory: M, bytes_max: usize) -> Self {
        let length = memory.words().len() as u64;
        assert!(length.is_power_of_two() && words_for(bytes_max) <= length);
        Self {
            memory,
            mask: length - 1,
            bytes_max,
            head: 0,
            tail_seen: 0,
            naps: 0,
            awake: true,
            overruns_seen: 0,
            corrupt: false,
        }
    }

    /// Copies the oldest record into `out` (replaced). `Ok(false)`: the ring is empty.
    ///
    /// # Errors
    /// `Corrupt`, for ever after.
    pub fn pop(&mut self, out: &mut Vec<u8>) -> Result<bool, RingError> {
        if self.corrupt {
            return Err(RingError::Corrupt);
        }
        if self.head == self.tail_seen && !self.look()? {
            return Ok(false);
        }
        let words = self.memory.words();
        let place = |index: u64| &words[(index & self.mask) as usize];
        let first = place(self.head).load(Ordering::Relaxed);
        let length = (first & 0xFFFF_FFFF) as usize;
        let plausible = first & !0xFFFF_FFFF == MARKER
            && length <= self.bytes_max
            && words_for(length) <= self.tail_seen - self.head;
        if !plausible {
            self.corrupt = true;
            return Err(RingError::Corrupt);
        }
        out.clear();
        for at in 1..words_for(length) {
            let word = place(self.head + at).load(Ordering::Relaxed);
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.truncate(length);
        self.head += words_for(length);
        // Release: pairs with the acquire load of `head` in `Producer::acquire`.
        self.memory.head().store(self.head, Ordering::Release);
        Ok(true)
    }

    /// Looks at the producer's cursor. `Ok(true)`: there is something to pop.
    fn look(&mut self) -> Result<bool, RingError> {
        // Acquire: pairs with the release store of `tail` in `Producer::push`.
        let tail = self.memory.tail().load(Ordering::Acquire);
        if tail < self.tail_seen || tail - self.head > self.mask + 1 {
            self.corrupt = true;
            return Err(RingError::Corrupt);
        }
        self.tail_seen = tail;
        Ok(self.head != tail)
    }

    /// Announces sleep. `Ok(true)`: really empty, the doorbell will ring for the next record.
    /// `Ok(false)`: something came meanwhile, go on popping.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn park(&mut self) -> Result<bool, RingError> {
        if self.corrupt {
            return Err(RingError::Corrupt);
        }
        self.naps += 1;
        self.awake = false;
        self.memory.parked().store(self.naps, Ordering::Relaxed);
        self.memory.fence();
        if self.look()? {
            self.unpark();
            return Ok(false);
        }
        Ok(true)
    }

    /// Awake again: no doorbell needed.
    pub fn unpark(&mut self) {
        if !self.awake {
            self.awake = true;
            self.memory.parked().store(0, Ordering::Relaxed);
        }
    }

    /// Whether the producer dropped records since this was last asked. Ask after [`Self::park`], or
    /// an overrun noted just before it may wait for the next doorbell.
    pub fn take_overrun(&mut self) -> bool {
        let now = self.memory.overruns().load(Ordering::Acquire);
        std::mem::replace(&mut self.overruns_seen, now) != now
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
