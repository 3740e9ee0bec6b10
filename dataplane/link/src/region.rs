//! The region: what one attach of control to the dataplane shares. A fresh memfd each time.
//!
//! ```text
//! 0        header page   magic, version, epoch, ring sizes, pids, heartbeats
//! 4096     command ring  cursors: 128-byte lines (tail, overruns | head, parked)
//! 8192     event ring    cursors: likewise
//! 12288    command ring  words (1 MiB), control produces, conductor consumes
//! ...      event ring    words (4 MiB), conductor produces, control consumes
//! ```
//! Lines are 128 bytes, because processors fetch lines in pairs. Everything is an atomic; what a peer
//! stores is judged by whoever reads it.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64, fence};

use crate::limits::{COMMAND_RING_BYTES, EVENT_RING_BYTES, MESSAGE_BYTES_MAX};
use crate::ring::{Consumer, Producer, RingMemory};
use crate::shared_map::{SharedMap, SharedPlain, Writers};

/// `TLLINK01`, changed with any incompatible change of this file.
pub const MAGIC: u64 = u64::from_le_bytes(*b"TLLINK01");
/// Version of the messages: changed with any change of message.rs or codec.
pub const VERSION: u32 = 3;

const HEADER_OFFSET: usize = 0;
const COMMAND_CURSORS_OFFSET: usize = 4096;
const EVENT_CURSORS_OFFSET: usize = 8192;
const COMMAND_WORDS_OFFSET: usize = 12288;
const EVENT_WORDS_OFFSET: usize = COMMAND_WORDS_OFFSET + COMMAND_RING_BYTES;
/// The whole region.
pub const REGION_BYTES: usize = EVENT_WORDS_OFFSET + EVENT_RING_BYTES;

/// First page.
#[repr(C)]
struct RegionHeader {
    magic: AtomicU64,
    version: AtomicU32,
    reserved: AtomicU32,
    epoch: AtomicU64,
    command_ring_bytes: AtomicU64,
    event_ring_bytes: AtomicU64,
    dataplane_pid: AtomicU32,
    control_pid: AtomicU32,
    reserved_line: [AtomicU64; 10],
    /// CLOCK_MONOTONIC ns, stored by the conductor.
    dataplane_heartbeat_ns: AtomicU64,
    dataplane_line: [AtomicU64; 15],
    /// CLOCK_MONOTONIC ns, stored by control.
    control_heartbeat_ns: AtomicU64,
    control_line: [AtomicU64; 15],
}

/// The cursors of one ring.
#[repr(C)]
struct RingCursors {
    tail: AtomicU64,
    overruns: AtomicU64,
    producer_line: [AtomicU64; 14],
    head: AtomicU64,
    parked: AtomicU64,
    consumer_line: [AtomicU64; 14],
}

const _: () = assert!(size_of::<RegionHeader>() == 384);
const _: () = assert!(std::mem::offset_of!(RegionHeader, dataplane_heartbeat_ns) == 128);
const _: () = assert!(std::mem::offset_of!(RegionHeader, control_heartbeat_ns) == 256);
const _: () = assert!(size_of::<RingCursors>() == 256);
const _: () = assert!(std::mem::offset_of!(RingCursors, head) == 128);
const _: () = assert!(MESSAGE_BYTES_MAX * 4 <= COMMAND_RING_BYTES);
const _: () = assert!(MESSAGE_BYTES_MAX * 4 <= EVENT_RING_BYTES);
const _: () = assert!(EVENT_WORDS_OFFSET.is_multiple_of(4096));

// SAFETY: repr(C), atomics only, no padding (size asserted).
unsafe impl SharedPlain for RegionHeader {}
// SAFETY: repr(C), atomics only, no padding (size asserted).
unsafe impl SharedPlain for RingCursors {}

/// One ring of the region.
#[derive(Debug)]
pub struct RegionRing {
    map: Arc<SharedMap>,
    cursors_offset: usize,
    words_offset: usize,
    words: usize,
}

impl RegionRing {
    #[inline]
    fn cursors(&self) -> &RingCursors {
        &self.map.view::<RingCursors>(self.cursors_offset, 1)[0]
    }
}

impl RingMemory for RegionRing {
    type Word = AtomicU64;

    fn tail(&self) -> &AtomicU64 {
        &self.cursors().tail
    }

    fn overruns(&self) -> &AtomicU64 {
        &self.cursors().overruns
    }

    fn head(&self) -> &AtomicU64 {
        &self.cursors().head
    }

    fn parked(&self) -> &AtomicU64 {
        &self.cursors().parked
    }

    fn words(&self) -> &[AtomicU64] {
        self.map.view::<AtomicU64>(self.words_offset, self.words)
    }

    fn fence(&self) {
        fence(SeqCst);
    }
}

/// A mapped region.
#[derive(Debug, Clone)]
pub struct Region {
    map: Arc<SharedMap>,
}

impl Region {
    /// A fresh region (dataplane side).
    ///
    /// # Errors
    /// Those of memfd creation.
    pub fn create(epoch: u64, now_ns: u64) -> io::Result<(Self, OwnedFd)> {
        let (map, file) = SharedMap::create("trunkline-link", REGION_BYTES, Writers::Both)?;
        let region = Self { map: Arc::new(map) };
        let header = region.header();
        header.version.store(VERSION, Relaxed);
        header.epoch.store(epoch, Relaxed);
        header
            .command_ring_bytes
            .store(COMMAND_RING_BYTES as u64, Relaxed);
        header
            .event_ring_bytes
            .store(EVENT_RING_BYTES as u64, Relaxed);
        header.dataplane_pid.store(std::process::id(), Relaxed);
        header.dataplane_heartbeat_ns.store(now_ns, Relaxed);
        header.magic.store(MAGIC, Release);
        Ok((region, file))
    }

    /// A received region (control side).
    ///
    /// # Errors
    /// `InvalidData` when it is not a region of this version.
    pub fn open(file: BorrowedFd<'_>, epoch: u64) -> io::Result<Self> {
        let map = SharedMap::open(file.as_fd(), REGION_BYTES..=REGION_BYTES, true)?;
        let region = Self { map: Arc::new(map) };
        let header = region.header();
        let valid = header.magic.load(Relaxed) == MAGIC
            && header.version.load(Relaxed) == VERSION
            && header.epoch.load(Relaxed) == epoch
            && header.command_ring_bytes.load(Relaxed) == COMMAND_RING_BYTES as u64
            && header.event_ring_bytes.load(Relaxed) == EVENT_RING_BYTES as u64;
        if !valid {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "not a region of this version",
            ));
        }
        header.control_pid.store(std::process::id(), Relaxed);
        Ok(region)
    }

    fn header(&self) -> &RegionHeader {
        &self.map.view::<RegionHeader>(HEADER_OFFSET, 1)[0]
    }

    fn command_ring(&self) -> RegionRing {
        RegionRing {
            map: self.map.clone(),
            cursors_offset: COMMAND_CURSORS_OFFSET,
            words_offset: COMMAND_WORDS_OFFSET,
            words: COMMAND_RING_BYTES / 8,
        }
    }

    fn event_ring(&self) -> RegionRing {
        RegionRing {
            map: self.map.clone(),
            cursors_offset: EVENT_CURSORS_OFFSET,
            words_offset: EVENT_WORDS_OFFSET,
            words: EVENT_RING_BYTES / 8,
        }
    }

    /// Control's ends: (commands out, events in). Once a region.
    #[must_use]
    pub fn control_ends(&self) -> (Producer<RegionRing>, Consumer<RegionRing>) {
        (
            Producer::new(self.command_ring(), MESSAGE_BYTES_MAX),
            Consumer::new(self.event_ring(), MESSAGE_BYTES_MAX),
        )
    }

    /// The conductor's ends: (commands in, events out). Once a region.
    #[must_use]
    pub fn dataplane_ends(&self) -> (Consumer<RegionRing>, Producer<RegionRing>) {
        (
            Consumer::new(self.command_ring(), MESSAGE_BYTES_MAX),
            Producer::new(self.event_ring(), MESSAGE_BYTES_MAX),
        )
    }

    /// Stores the dataplane's heartbeat.
    pub fn beat_dataplane(&self, now_ns: u64) {
        self.header().dataplane_heartbeat_ns.store(now_ns, Relaxed);
    }

    /// Stores control's heartbeat.
    pub fn beat_control(&self, now_ns: u64) {
        self.header().control_heartbeat_ns.store(now_ns, Relaxed);
    }

    /// The dataplane's last heartbeat, CLOCK_MONOTONIC ns, 0 = none yet.
    #[must_use]
    pub fn dataplane_heartbeat_ns(&self) -> u64 {
        self.header().dataplane_heartbeat_ns.load(Relaxed)
    }

    /// Control's last heartbeat.
    #[must_use]
    pub fn control_heartbeat_ns(&self) -> u64 {
        self.header().control_heartbeat_ns.load(Relaxed)
    }

    /// The process that created the region, as it says.
    #[must_use]
    pub fn dataplane_pid(&self) -> u32 {
        self.header().dataplane_pid.load(Relaxed)
    }

    /// All words, for tests that play a hostile peer.
    #[doc(hidden)]
    #[must_use]
    pub fn all_words(&self) -> &[AtomicU64] {
        self.map.view::<AtomicU64>(0, REGION_BYTES / 8)
    }
}
