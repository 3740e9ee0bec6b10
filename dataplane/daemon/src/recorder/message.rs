//! What goes between the recorder thread, the workers and the conductor.
//!
//! ```text
//!             ready extents                       begin, wake, stop
//!   worker <----------------- recorder <------------------------------ conductor
//!          ----------------->          ------------------------------>
//!           closed extents,             progress, closed, alarm
//!           finish
//! ```
//! A worker opens a ready extent ([`trunkline_link::pool::Extent::open`] and
//! [`trunkline_sn3::extent::Appender::open`] with the same recording and ordinal), appends,
//! publishes, and sends it back as [`Closed::Extent`] after `set_full` once it is full, 2 s old or
//! its recording ends. Ordinals of a recording count up by one for each extent sent.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use trunkline_link::message::Side;
use trunkline_link::pool::Extent;
use trunkline_sn3::chain::Link;

/// From a worker to the recorder, in order.
#[derive(Debug)]
pub enum Closed {
    /// An extent that the worker writes no more. Recording, ordinal and length are in its metadata.
    Extent(Extent),
    /// The recording's last extent was sent before this: seal, flush and report.
    Finish {
        /// Session, handed back in the notice.
        session: u64,
        /// Recording.
        recording: u64,
    },
}

/// One worker's two queues.
#[derive(Debug, Clone)]
pub struct CaptureQueues {
    /// Extents for the worker to take, touched and free.
    pub ready: Arc<ArrayQueue<Extent>>,
    /// What the worker is done with. Has room for every extent of the pool and as many finishes.
    pub closed: Arc<ArrayQueue<Closed>>,
}

impl CaptureQueues {
    /// Queues for a pool of `extents`.
    #[must_use]
    pub fn new(extents: usize) -> Self {
        Self {
            ready: Arc::new(ArrayQueue::new(extents.max(1))),
            closed: Arc::new(ArrayQueue::new(2 * extents.max(1))),
        }
    }
}

/// From the conductor to the recorder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecorderCommand {
    /// A recording starts on a worker. Must arrive before the worker learns of the recording. A
    /// recording that was not announced is written all the same, as a new one of session 0.
    Begin {
        /// Session, handed back in notices.
        session: u64,
        /// Recording.
        recording: u64,
        /// Ordinal of its first extent.
        first_ordinal: u32,
        /// Last extent written by an earlier dataplane, both 0 = none.
        prev_segment: u32,
        /// See `prev_segment`.
        prev_page: u32,
    },
    /// Write everything, finish all segments and end the thread. Send it after the workers stopped.
    Stop,
}

/// Packets of one stream that the disk refused: distinct ones, duplicates apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskDrop {
    /// Side.
    pub side: Side,
    /// m-line index.
    pub media: u8,
    /// SSRC.
    pub ssrc: u32,
    /// In the receipt: `written -= packets`, `dropped[disk] += packets`.
    pub packets: u64,
    /// In the receipt: `duplicates -= duplicates`.
    pub duplicates: u64,
    /// In the receipt: `bytes -= bytes`.
    pub bytes: u64,
}

/// From the recorder to the conductor. Counts are totals since the recording's begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecorderNotice {
    /// Once a second for each recording that moved on: what is durable.
    Progress {
        /// Session.
        session: u64,
        /// Recording.
        recording: u64,
        /// Ordinal that follows the last extent seen.
        next_ordinal: u32,
        /// Its last durable extent.
        last_segment: u32,
        /// See `last_segment`.
        last_page: u32,
        /// What the disk refused so far.
        disk_drops: Vec<DiskDrop>,
    },
    /// A recording is durable as far as it could be.
    Closed {
        /// Session.
        session: u64,
        /// Recording.
        recording: u64,
        /// Extents written, those of an earlier dataplane not counted.
        extents: u32,
        /// Its last extent; both 0 when none could be written.
        last_segment: u32,
        /// See `last_segment`.
        last_page: u32,
        /// Bytes on disk.
        bytes: u64,
        /// Head of its hash chain; zeros = not chained.
        chain_head: Link,
        /// What the disk refused.
        disk_drops: Vec<DiskDrop>,
    },
    /// The disk began (true) or ceased to refuse writes.
    DiskAlarm {
        /// Refusing.
        active: bool,
    },
}
