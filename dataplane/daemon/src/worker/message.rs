//! What travels between a worker and the cold threads of its process.
//!
//! ```text
//!   conductor ── WorkerCommand ──►┐            ┌── Closed extents ──► recorder
//!   conductor ◄── WorkerEvent ────┤   worker   │
//!                                 └────────────┘◄── ready extents ─── recorder
//! ```
//! All queues are bounded `crossbeam::queue::ArrayQueue`s with one producer and one consumer, and
//! each reader has a [`Bell`] that is rung only while it sleeps. A full command queue is the
//! conductor's to wait for; a full event queue makes the worker hold its reports (never packets).
//! The recorder's queues are described in [`crate::recorder::message`].

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::queue::ArrayQueue;
use trunkline_engine::Source;
use trunkline_link::doorbell::Doorbell;
use trunkline_link::message::{
    Continuity, DigitSend, FactKind, FailReason, ForkState, ForkStream, LegUpdate, MediaKind,
    PlayStart, RecordingPhase, Side, StreamReceipt,
};
use trunkline_sn3::record::ClockTriple;

use crate::recorder::message::CaptureQueues;

/// What a port is opened with.
#[derive(Debug)]
pub enum PortSocket {
    /// Its bound socket, which belongs to the worker from here on.
    Bound(OwnedFd),
    /// None: the device opens the port at this address.
    At(SocketAddr),
}

/// A port on its way into the worker's device.
#[derive(Debug)]
pub struct SocketInstall {
    /// Slot it is to have. The conductor chooses slots below `slots_max` and uses one again only
    /// after [`WorkerEvent::SlotClosed`] or `SlotFailed`.
    pub slot: u32,
    /// The socket, or where the port is.
    pub socket: PortSocket,
}

/// The two sockets of one side of an m-line.
#[derive(Debug)]
pub struct PortInstall {
    /// RTP (or datagrams).
    pub rtp: SocketInstall,
    /// RTCP.
    pub rtcp: SocketInstall,
}

/// One m-line with its sockets.
#[derive(Debug)]
pub struct MediaInstall {
    /// What it carries.
    pub kind: MediaKind,
    /// Sockets by side, caller first.
    pub ports: [PortInstall; 2],
}

/// A session, or the further m-lines of one that is there.
#[derive(Debug)]
pub struct SessionInstall {
    /// Session.
    pub session: u64,
    /// 0 = off.
    pub media_timeout_ms: u32,
    /// Index of the first m-line in `media`: 0 for a new session, else the number it has already.
    pub first_media: u8,
    /// m-lines to add.
    pub media: Vec<MediaInstall>,
}

/// A recording to start.
#[derive(Debug)]
pub struct TapStart {
    /// Session.
    pub session: u64,
    /// Recording number, not 0.
    pub recording: u64,
    /// 0 for a new recording (its origin is the moment at which the worker takes the command), else
    /// the origin of one that goes on.
    pub origin_mono_ns: u64,
    /// First extent ordinal, as in the recorder's `Begin`, which must have been sent before.
    pub first_ordinal: u32,
    /// Both clocks now; the worker moves it to the origin.
    pub clock: ClockTriple,
    /// Call-open fact; left out when empty.
    pub open_fact: Vec<u8>,
}

/// From the conductor. Every command with a `request` is answered by exactly one event with the
/// same `request`: `Done`, `Failed` or `RecordingState`.
#[derive(Debug)]
pub enum WorkerCommand {
    /// Add a session or m-lines. Answer: `Done` (sockets are receiving) or `Failed`; then all its
    /// sockets are closed and each slot is reported closed.
    AddSession {
        request: u64,
        install: Box<SessionInstall>,
    },
    /// Describe a side. Answer: `Done` or `Failed`.
    UpdateLeg {
        request: u64,
        update: Box<LegUpdate>,
    },
    /// End a session and close its sockets. A recording is stopped first and reported by
    /// `RecordingState` with request 0; it still wants its `RecordingFinish`. Answer: `Done`; then
    /// one `SlotClosed` a slot.
    RemoveSession { request: u64, session: u64 },
    /// Start capturing. Answer: `RecordingState` (running).
    RecordingStart { request: u64, start: Box<TapStart> },
    /// Answer: `RecordingState` (paused).
    RecordingPause {
        request: u64,
        session: u64,
        recording: u64,
    },
    /// Answer: `RecordingState` (running).
    RecordingResume {
        request: u64,
        session: u64,
        recording: u64,
    },
    /// Answer: `RecordingState` (stopped), final receipts but for what the disk will refuse.
    RecordingStop {
        request: u64,
        session: u64,
        recording: u64,
    },
    /// Append a fact; works until finished, also after the session is gone. Answer: `Done`.
    RecordingFact {
        request: u64,
        recording: u64,
        kind: FactKind,
        fact: Vec<u8>,
    },
    /// Hand over what is left of a recording (stopped first if it is not). Answer: `Done`; the
    /// recorder then gets [`crate::recorder::message::Closed::Finish`].
    RecordingFinish { request: u64, recording: u64 },
    /// Dial a digit towards a side. Answer: `Done` once it waits for its turn.
    Dial { request: u64, digit: DigitSend },
    /// Play to a side, by prepared sounds in the order of its voices. Answer: `Done`.
    Play {
        request: u64,
        start: Box<PlayStart>,
        sources: Vec<Arc<Source>>,
    },
    /// End what is played to a side. Answer: `Done`, after the last `Played`.
    PlayStop {
        request: u64,
        session: u64,
        media: u8,
        to: Side,
    },
    /// Start a fork, or tell one of new m-lines. `unix_offset_ns`: CLOCK_REALTIME minus
    /// CLOCK_MONOTONIC. Answer: `Done`.
    ForkStart {
        request: u64,
        session: u64,
        target: u64,
        unix_offset_ns: u64,
    },
    /// Change whether a fork's copies leave. Answer: `Done`.
    ForkState {
        request: u64,
        session: u64,
        target: u64,
        state: ForkState,
    },
    /// End a fork. Answer: `Done`.
    ForkStop {
        request: u64,
        session: u64,
        target: u64,
    },
    /// The kernel's drop counter of this slot's socket has risen since the last such command.
    /// Send it ahead of a pause, stop or removal, so that receipts are exact. No answer.
    SocketDrops { slot: u32, rise: u64 },
    /// Report every session that has heard nobody for this long by `SessionSilent`. No answer.
    ListSilent { silent_ns: u64 },
    /// Finish all recordings, close all sockets, end the thread. The last event is `Ended`.
    Shutdown,
}

/// To the conductor.
#[derive(Debug)]
pub enum WorkerEvent {
    /// A command took effect.
    Done { request: u64 },
    /// A command did not.
    Failed { request: u64, reason: FailReason },
    /// A side's media comes from this address.
    EndpointLearned {
        session: u64,
        media: u8,
        side: Side,
        rtcp: bool,
        address: SocketAddr,
    },
    /// A side's source changed.
    SourceChanged {
        session: u64,
        media: u8,
        side: Side,
        continuity: Continuity,
    },
    /// A side has dialled a digit.
    Digit {
        session: u64,
        side: Side,
        event: u8,
        duration_ms: u32,
    },
    /// A side has heard what is played to it.
    Played {
        session: u64,
        media: u8,
        to: Side,
        play: u64,
        from_ns: u64,
        to_ns: u64,
        packets: u32,
        played_ms: u32,
        whole: bool,
    },
    /// A side has been silent for the media timeout.
    MediaTimeout { session: u64, side: Side },
    /// Answer to `ListSilent`: silent since `last_packet_ns` (or since it was added).
    SessionSilent { session: u64, last_packet_ns: u64 },
    /// A recording's phase. `request` 0 = not asked for.
    RecordingState {
        request: u64,
        session: u64,
        recording: u64,
        phase: RecordingPhase,
        /// CLOCK_MONOTONIC ns at which it holds.
        at_mono_ns: u64,
        /// CLOCK_MONOTONIC ns of the recording's origin.
        origin_mono_ns: u64,
        /// Streams so far.
        streams: Vec<StreamReceipt>,
    },
    /// Once a second for each recording that is not stopped. The recorder knows the extents.
    RecordingProgress {
        session: u64,
        recording: u64,
        /// Ordinal that the next extent will have.
        next_ordinal: u32,
        /// Streams so far.
        streams: Vec<StreamReceipt>,
    },
    /// Every 2 s for each fork.
    ForkProgress {
        session: u64,
        target: u64,
        /// When anything last came from the recorder, 0 = never.
        heard_ns: u64,
        streams: Vec<ForkStream>,
    },
    /// A slot's socket is really closed: its port can be bound, the slot used again.
    SlotClosed { slot: u32 },
    /// The kernel refused a slot's socket; it is closed and the slot free.
    SlotFailed { slot: u32, errno: i32 },
    /// Capture finds no ready extent (true), or finds them again (false).
    ExtentsShort { short: bool },
    /// Answer to `Shutdown`; the thread is about to end.
    Ended,
}

/// A doorbell that costs its ringer a system call only while the other side sleeps.
///
/// The sleeper calls [`Bell::about_to_sleep`], looks at its queues once more, sleeps on the doorbell
/// if they are empty, and calls [`Bell::awake`] afterwards. The ringer pushes first, then rings.
#[derive(Debug)]
pub struct Bell {
    doorbell: Doorbell,
    asleep: AtomicBool,
}

impl Bell {
    /// A bell around an eventfd.
    #[must_use]
    pub fn new(doorbell: Doorbell) -> Self {
        Self {
            doorbell,
            asleep: AtomicBool::new(false),
        }
    }

    /// Rings if the other side sleeps or is about to. Call after the push.
    pub fn ring(&self) {
        // SeqCst with the swap in `about_to_sleep`: either the sleeper sees the push, or we see it asleep.
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::SeqCst) {
            self.doorbell.ring();
        }
    }

    /// Says that a sleep follows. Look at the queues after this and before sleeping.
    pub fn about_to_sleep(&self) {
        self.asleep.swap(true, Ordering::SeqCst);
        std::sync::atomic::fence(Ordering::SeqCst);
    }

    /// Says that the sleep is over (or did not take place).
    pub fn awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// The doorbell to wait on; answer it after a wait.
    #[must_use]
    pub fn doorbell(&self) -> &Doorbell {
        &self.doorbell
    }
}

/// A worker's ends of its queues. The other threads hold clones of the same `Arc`s.
#[derive(Debug, Clone)]
pub struct WorkerQueues {
    /// Conductor to worker.
    pub commands: Arc<ArrayQueue<WorkerCommand>>,
    /// Worker to conductor.
    pub events: Arc<ArrayQueue<WorkerEvent>>,
    /// Extents from and to the recorder.
    pub capture: CaptureQueues,
    /// Wakes this worker. Its eventfd is a duplicate of the one given to the device.
    pub worker_bell: Arc<Bell>,
    /// Wakes the conductor (one for all workers).
    pub conductor_bell: Arc<Bell>,
    /// Wakes the recorder (one for all workers).
    pub recorder_bell: Arc<Bell>,
}

/// How a worker waits when nothing flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idle {
    /// Block in the device until a packet, the doorbell or a deadline.
    Park,
    /// Keep polling.
    Spin,
}

/// What a worker is told at its start.
#[derive(Debug, Clone, Copy)]
pub struct WorkerConfig {
    /// Its number.
    pub worker: u16,
    /// How it waits.
    pub idle: Idle,
    /// Slots of its device.
    pub slots_max: u32,
    /// Sessions at once.
    pub sessions_max: u32,
    /// Commands taken in one duty cycle.
    pub commands_per_cycle: usize,
    /// Age at which an open extent is handed over, ns.
    pub extent_age_ns: u64,
    /// Keys that are pressed are not recorded.
    pub mask_events: bool,
}

impl WorkerConfig {
    /// The usual values for a device of `slots_max` slots.
    #[must_use]
    pub fn new(worker: u16, idle: Idle, slots_max: u32) -> Self {
        Self {
            worker,
            idle,
            slots_max,
            sessions_max: (slots_max / 4).max(1),
            commands_per_cycle: 32,
            extent_age_ns: 2_000_000_000,
            mask_events: false,
        }
    }
}
