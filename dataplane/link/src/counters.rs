//! Counter pages: one page a thread, written by that thread alone with relaxed stores, read by
//! control (metrics) and the conductor at any time without disturbing the writer.
//!
//! ```text
//! page 0      header: magic, version, workers, pages
//! page 1      conductor
//! page 2      recorder
//! page 3..    workers, in order
//! ```
//! A counter's place is its index in its owner's list below; both processes are built from the same
//! lists, and the version in the header changes with them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::limits::WORKERS_MAX;
use crate::shared_map::{SharedMap, Writers, duplicate};

const PAGE_BYTES: usize = 4096;
const PAGE_COUNTERS: usize = PAGE_BYTES / 8;
const MAGIC: u64 = u64::from_le_bytes(*b"TLCOUNT1");
const CONDUCTOR_PAGE: usize = 1;
const RECORDER_PAGE: usize = 2;
const FIRST_WORKER_PAGE: usize = 3;

/// Declares a list of counters: an enum whose discriminants are places in a page, and their names.
macro_rules! counters {
    ($(#[$meta:meta])* $list:ident { $($(#[$doc:meta])* $variant:ident = $name:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum $list { $($(#[$doc])* $variant,)* }

        impl $list {
            /// All of them, in page order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name shown to readers.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }

        impl Counter for $list {
            fn place(self) -> usize { self as usize }
        }

        const _: () = assert!($list::ALL.len() <= PAGE_COUNTERS);
    };
}

/// A counter's place in its owner's page.
pub trait Counter: Copy {
    /// Index of the 64-bit word.
    fn place(self) -> usize;
}

counters! {
    /// What a worker counts. Gauges are marked; everything else only rises.
    WorkerCounter {
        /// RTP packets received from accepted sources.
        RtpPacketsIn = "rtp_packets_in",
        /// Their bytes, RTP header included.
        RtpBytesIn = "rtp_bytes_in",
        /// RTP packets sent.
        RtpPacketsOut = "rtp_packets_out",
        /// Their bytes.
        RtpBytesOut = "rtp_bytes_out",
        /// RTCP packets (compound) received.
        RtcpPacketsIn = "rtcp_packets_in",
        /// RTCP packets sent.
        RtcpPacketsOut = "rtcp_packets_out",
        /// Opaque datagrams (udptl) received.
        OpaquePacketsIn = "opaque_packets_in",
        /// Opaque datagrams sent.
        OpaquePacketsOut = "opaque_packets_out",
        /// Datagrams from sources not accepted, whatever they hold.
        Strangers = "strangers",
        /// Datagrams cut by the receive buffer.
        Truncated = "truncated",
        /// Datagrams from the accepted source that are neither RTP nor RTCP.
        Malformed = "malformed",
        /// Packets above a port's rate cap.
        RateCap = "rate_cap",
        /// Times that a port was left unread for 100 ms, as more came than a port may ask of us.
        PortsLeftUnread = "ports_left_unread",
        /// Packets with a payload type that was not negotiated.
        UnknownPayload = "unknown_payload",
        /// Datagrams for a slot without a flow (late after close).
        NoFlow = "no_flow",
        /// Packets not relayed because the far side is unknown or may not receive.
        NotSent = "not_sent",
        /// Packets withheld by mute where the codec has no silence.
        MuteWithheld = "mute_withheld",
        /// Packets muted.
        Muted = "muted",
        /// Packets that carried an announcement or a tone of ours.
        Played = "played",
        /// Copies sent to recorders.
        Forked = "forked",
        /// Copies held back: the recorder takes nothing, or not that payload type.
        ForkWithheld = "fork_withheld",
        /// Datagrams of recorders, which go nowhere.
        ForkIn = "fork_in",
        /// Kernel drops on our sockets (SK_MEMINFO_DROPS).
        SocketDrops = "socket_drops",
        /// Receives that found no buffer.
        BufferRing = "buffer_ring",
        /// Completion queue overflows.
        CqOverflow = "cq_overflow",
        /// Sends refused by the kernel.
        SendFailed = "send_failed",
        /// Sources learned that differ from the advertised address.
        Latched = "latched",
        /// Changes of source shown to the far end as one stream.
        SourceChanges = "source_changes",
        /// SSRCs evicted for a fifth one.
        SsrcEvicted = "ssrc_evicted",
        /// Media timeouts.
        MediaTimeouts = "media_timeouts",
        /// Frames captured.
        CaptureFrames = "capture_frames",
        /// Bytes captured, frame headers included.
        CaptureBytes = "capture_bytes",
        /// Packets not captured: kernel drops.
        CaptureDroppedSocket = "capture_dropped_socket",
        /// Packets not captured: no receive buffer.
        CaptureDroppedBufferRing = "capture_dropped_buffer_ring",
        /// Packets not captured: completion queue overflow.
        CaptureDroppedCqOverflow = "capture_dropped_cq_overflow",
        /// Packets not captured: counted as send failures.
        CaptureDroppedSendFailed = "capture_dropped_send_failed",
        /// Packets not captured: no extent ready.
        CaptureDroppedNoExtent = "capture_dropped_no_extent",
        /// Packets not captured: disk.
        CaptureDroppedDisk = "capture_dropped_disk",
        /// Packets not captured: rate cap.
        CaptureDroppedRateCap = "capture_dropped_rate_cap",
        /// Packets not captured: the dataplane was down.
        CaptureDroppedRestart = "capture_dropped_restart",
        /// Packets not captured: a configured limit.
        CaptureDroppedLimit = "capture_dropped_limit",
        /// Sessions (gauge).
        Sessions = "sessions",
        /// Recordings not finished (gauge).
        Recordings = "recordings",
        /// Slots with a socket (gauge).
        Slots = "slots",
        /// Ready extents in hand (gauge).
        ExtentsReady = "extents_ready",
        /// Extents handed to the recorder.
        ExtentsFull = "extents_full",
        /// Duty cycles.
        Cycles = "cycles",
        /// Waits in `park`.
        Parks = "parks",
        /// Commands taken.
        Commands = "commands",
        /// Events that found the queue to the conductor full.
        EventsDropped = "events_dropped",
        /// CLOCK_MONOTONIC ns of the last duty cycle or housekeeping (gauge).
        HeartbeatNs = "heartbeat_ns",
    }
}

impl WorkerCounter {
    /// The capture-drop counter of a reason.
    #[must_use]
    pub const fn capture_dropped(reason: crate::message::DropReason) -> Self {
        use crate::message::DropReason;
        match reason {
            DropReason::Socket => Self::CaptureDroppedSocket,
            DropReason::BufferRing => Self::CaptureDroppedBufferRing,
            DropReason::CqOverflow => Self::CaptureDroppedCqOverflow,
            DropReason::SendFailed => Self::CaptureDroppedSendFailed,
            DropReason::NoExtent => Self::CaptureDroppedNoExtent,
            DropReason::Disk => Self::CaptureDroppedDisk,
            DropReason::RateCap => Self::CaptureDroppedRateCap,
            DropReason::Restart => Self::CaptureDroppedRestart,
            DropReason::Limit => Self::CaptureDroppedLimit,
        }
    }
}

counters! {
    /// What the conductor counts.
    ConductorCounter {
        /// Sessions (gauge).
        Sessions = "sessions",
        /// Sessions opened.
        SessionsOpened = "sessions_opened",
        /// Sessions ended because nobody claimed them.
        SessionsOrphaned = "sessions_orphaned",
        /// Commands taken.
        Commands = "commands",
        /// Commands answered with a failure.
        CommandsFailed = "commands_failed",
        /// Commands that did not decode.
        CommandsMalformed = "commands_malformed",
        /// Events sent.
        Events = "events",
        /// Events dropped because the ring was full (control asks for a snapshot).
        EventsDropped = "events_dropped",
        /// Attaches of a control process.
        Attaches = "attaches",
        /// Peers refused (another user, a wrong hello).
        AttachesRefused = "attaches_refused",
        /// Port pairs in the ranges (gauge).
        PortPairs = "port_pairs",
        /// Pairs that may be taken now (gauge).
        PortPairsFree = "port_pairs_free",
        /// Pairs resting (gauge).
        PortPairsResting = "port_pairs_resting",
        /// Pairs in use (gauge).
        PortPairsUsed = "port_pairs_used",
        /// Pairs taken before their full rest.
        PortRestsCut = "port_rests_cut",
        /// Pairs that could not be bound (held by somebody else).
        PortBindsFailed = "port_binds_failed",
        /// Sessions refused for want of ports.
        PortsRefused = "ports_refused",
        /// Kernel drops on live sockets.
        SocketDrops = "socket_drops",
        /// Limit of open files (gauge).
        FilesMax = "files_max",
        /// Calls with one audio line that fit (gauge).
        CallsMax = "calls_max",
        /// Whether new sessions are refused, 0 or 1 (gauge).
        Draining = "draining",
    }
}

counters! {
    /// What the recorder counts.
    RecorderCounter {
        /// Extents in the pool (gauge).
        ExtentsTotal = "extents_total",
        /// Extents free or ready (gauge).
        ExtentsReady = "extents_ready",
        /// Extents written to segments.
        ExtentsWritten = "extents_written",
        /// Extents lost to the disk.
        ExtentsFailed = "extents_failed",
        /// Bytes written to segments.
        BytesWritten = "bytes_written",
        /// Segments opened.
        SegmentsOpened = "segments_opened",
        /// Failed writes, syncs and allocations.
        WriteErrors = "write_errors",
        /// Recordings closed.
        RecordingsClosed = "recordings_closed",
        /// Whether capture writes fail now, 0 or 1 (gauge).
        CaptureFailing = "capture_failing",
        /// Free bytes of the segments' file system (gauge).
        DiskFreeBytes = "disk_free_bytes",
    }
}

/// A hash of all names: two builds with other lists refuse each other.
const fn lists_version() -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    hash = hash_names_worker(hash);
    let mut at = 0;
    while at < ConductorCounter::ALL.len() {
        hash = hash_name(hash, ConductorCounter::ALL[at].name());
        at += 1;
    }
    at = 0;
    while at < RecorderCounter::ALL.len() {
        hash = hash_name(hash, RecorderCounter::ALL[at].name());
        at += 1;
    }
    hash
}

const fn hash_names_worker(mut hash: u64) -> u64 {
    let mut at = 0;
    while at < WorkerCounter::ALL.len() {
        hash = hash_name(hash, WorkerCounter::ALL[at].name());
        at += 1;
    }
    hash
}

/// FNV-1a, with a separator after each name.
const fn hash_name(mut hash: u64, name: &str) -> u64 {
    let bytes = name.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    (hash ^ 0xff).wrapping_mul(0x0100_0000_01b3)
}

const LISTS_VERSION: u64 = lists_version();

/// The dataplane's counter memory.
#[derive(Debug)]
pub struct Counters {
    map: Arc<SharedMap>,
    file: OwnedFd,
    workers: usize,
}

/// One thread's page: a single writer.
#[derive(Debug)]
pub struct CounterWriter {
    map: Arc<SharedMap>,
    offset: usize,
}

/// The writers of all pages, to be handed to their threads.
#[derive(Debug)]
pub struct CounterWriters {
    /// The conductor's.
    pub conductor: CounterWriter,
    /// The recorder's.
    pub recorder: CounterWriter,
    /// One a worker.
    pub workers: Vec<CounterWriter>,
}

impl Counters {
    /// Creates the pages of `workers` workers.
    ///
    /// # Errors
    /// Those of memfd creation and mapping.
    ///
    /// # Panics
    /// With more than [`WORKERS_MAX`] workers.
    pub fn create(workers: usize) -> io::Result<(Self, CounterWriters)> {
        assert!(workers <= WORKERS_MAX, "too many workers");
        let bytes = (FIRST_WORKER_PAGE + workers) * PAGE_BYTES;
        let (map, file) = SharedMap::create("trunkline-counters", bytes, Writers::CreatorOnly)?;
        let map = Arc::new(map);
        let header = map.view::<AtomicU64>(0, 3);
        header[1].store(LISTS_VERSION, Relaxed);
        header[2].store(workers as u64, Relaxed);
        header[0].store(MAGIC, Relaxed);
        let page = |number: usize| CounterWriter {
            map: map.clone(),
            offset: number * PAGE_BYTES,
        };
        let writers = CounterWriters {
            conductor: page(CONDUCTOR_PAGE),
            recorder: page(RECORDER_PAGE),
            workers: (0..workers)
                .map(|worker| page(FIRST_WORKER_PAGE + worker))
                .collect(),
        };
        Ok((Self { map, file, workers }, writers))
    }

    /// The file to hand to control.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// A reader in this process.
    ///
    /// # Errors
    /// Those of dup.
    pub fn reader(&self) -> io::Result<CounterReader> {
        let file = duplicate(&self.file)?;
        Ok(CounterReader {
            map: self.map.clone(),
            _file: file,
            workers: self.workers,
        })
    }
}

impl CounterWriter {
    /// Adds to a counter. Relaxed load and store: this thread is the only writer.
    #[inline]
    pub fn add(&self, counter: impl Counter, amount: u64) {
        let word = self.word(counter);
        word.store(word.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    /// Sets a gauge.
    #[inline]
    pub fn set(&self, counter: impl Counter, value: u64) {
        self.word(counter).store(value, Relaxed);
    }

    /// Reads back.
    #[must_use]
    #[inline]
    pub fn get(&self, counter: impl Counter) -> u64 {
        self.word(counter).load(Relaxed)
    }

    #[inline]
    fn word(&self, counter: impl Counter) -> &AtomicU64 {
        &self.map.view::<AtomicU64>(self.offset, PAGE_COUNTERS)[counter.place()]
    }
}

/// Reads all pages; read-only in control.
#[derive(Debug)]
pub struct CounterReader {
    map: Arc<SharedMap>,
    /// Kept so that the memory survives the dataplane.
    _file: OwnedFd,
    workers: usize,
}

impl CounterReader {
    /// Maps a received counters file.
    ///
    /// # Errors
    /// `InvalidData` when it is not ours or of another build; those of mmap.
    pub fn open(file: OwnedFd) -> io::Result<Self> {
        let most = (FIRST_WORKER_PAGE + WORKERS_MAX) * PAGE_BYTES;
        let map = SharedMap::open(file.as_fd(), FIRST_WORKER_PAGE * PAGE_BYTES..=most, false)?;
        let header = map.view::<AtomicU64>(0, 3);
        let workers = usize::try_from(header[2].load(Relaxed)).unwrap_or(usize::MAX);
        let expected = workers
            .checked_add(FIRST_WORKER_PAGE)
            .and_then(|p| p.checked_mul(PAGE_BYTES));
        if header[0].load(Relaxed) != MAGIC || header[1].load(Relaxed) != LISTS_VERSION {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "counters of another version",
            ));
        }
        if expected != Some(map.bytes()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "counters of a wrong size",
            ));
        }
        Ok(Self {
            map: Arc::new(map),
            _file: file,
            workers,
        })
    }

    /// Number of workers.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// One worker's counter; 0 for a worker that does not exist.
    #[must_use]
    pub fn worker(&self, worker: usize, counter: WorkerCounter) -> u64 {
        if worker >= self.workers {
            return 0;
        }
        self.word(FIRST_WORKER_PAGE + worker, counter.place())
    }

    /// The sum over all workers.
    #[must_use]
    pub fn workers_total(&self, counter: WorkerCounter) -> u64 {
        (0..self.workers)
            .map(|worker| self.worker(worker, counter))
            .fold(0, u64::wrapping_add)
    }

    /// A counter of the conductor.
    #[must_use]
    pub fn conductor(&self, counter: ConductorCounter) -> u64 {
        self.word(CONDUCTOR_PAGE, counter.place())
    }

    /// A counter of the recorder.
    #[must_use]
    pub fn recorder(&self, counter: RecorderCounter) -> u64 {
        self.word(RECORDER_PAGE, counter.place())
    }

    fn word(&self, page: usize, place: usize) -> u64 {
        self.map.view::<AtomicU64>(page * PAGE_BYTES, PAGE_COUNTERS)[place].load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_thread_counts_is_what_a_reader_sees() {
        let (counters, writers) = Counters::create(2).unwrap();
        let reader = CounterReader::open(duplicate(counters.file()).unwrap()).unwrap();
        writers.workers[0].add(WorkerCounter::RtpPacketsIn, 3);
        writers.workers[1].add(WorkerCounter::RtpPacketsIn, 4);
        writers.workers[1].add(WorkerCounter::RtpPacketsIn, 1);
        writers.conductor.set(ConductorCounter::Sessions, 9);
        writers.recorder.add(RecorderCounter::ExtentsWritten, 2);
        assert_eq!(reader.workers(), 2);
        assert_eq!(reader.worker(1, WorkerCounter::RtpPacketsIn), 5);
        assert_eq!(reader.worker(2, WorkerCounter::RtpPacketsIn), 0);
        assert_eq!(reader.workers_total(WorkerCounter::RtpPacketsIn), 8);
        assert_eq!(reader.conductor(ConductorCounter::Sessions), 9);
        assert_eq!(reader.recorder(RecorderCounter::ExtentsWritten), 2);
        drop(counters);
        drop(writers);
        assert_eq!(reader.worker(1, WorkerCounter::RtpPacketsIn), 5);
    }

    #[test]
    fn a_foreign_file_is_refused() {
        let (_map, file) =
            SharedMap::create("foreign", 4 * PAGE_BYTES, Writers::CreatorOnly).unwrap();
        assert!(CounterReader::open(file).is_err());
    }

    #[test]
    fn names_are_unique_and_drop_reasons_have_their_counter() {
        let names: std::collections::HashSet<_> = WorkerCounter::ALL
            .iter()
            .map(|counter| counter.name())
            .collect();
        assert_eq!(names.len(), WorkerCounter::ALL.len());
        for reason in crate::message::DropReason::ALL {
            let name = WorkerCounter::capture_dropped(reason).name();
            assert_eq!(name, format!("capture_dropped_{}", reason.name()));
        }
    }
}
