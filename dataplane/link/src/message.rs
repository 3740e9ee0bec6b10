//! Commands (control to conductor) and events (conductor to control).
//!
//! On the wire a message is a plain-data record: a fixed header, then fields in declaration order,
//! little-endian, lengths before variable parts. Nothing is read in place: a message is copied out
//! of the ring first and then validated field by field, so a hostile writer can cause a
//! decode error and nothing else.

use std::net::{IpAddr, SocketAddr};

/// The two sides of a session. Channel and direction of a capture follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Side {
    /// The party whose INVITE came to us.
    Caller = 0,
    /// Whoever is bridged to the caller now.
    Callee = 1,
}

impl Side {
    /// Both sides, caller first.
    pub const BOTH: [Self; 2] = [Self::Caller, Self::Callee];

    /// The far side.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Caller => Self::Callee,
            Self::Callee => Self::Caller,
        }
    }
}

/// What an m-line carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum MediaKind {
    /// RTP audio, recorded as audio.
    Audio = 0,
    /// RTP that is relayed blind (video); recorded as opaque frames.
    OpaqueRtp = 1,
    /// Datagrams relayed byte for byte (udptl); recorded as opaque frames.
    OpaqueDatagram = 2,
}

/// Codecs the dataplane tells apart, for payload mapping, mute and capture facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CodecId {
    /// Anything not named here.
    Other = 0,
    /// G.711 mu-law.
    Pcmu = 1,
    /// G.711 A-law.
    Pcma = 2,
    /// G.722.
    G722 = 3,
    /// Opus.
    Opus = 4,
    /// Linear 16-bit PCM.
    L16 = 5,
    /// RFC 4733 telephone-event.
    TelephoneEvent = 6,
    /// RFC 3389 comfort noise.
    ComfortNoise = 7,
    /// G.729.
    G729 = 8,
    /// GSM full rate.
    Gsm = 9,
}

/// One payload type that a side may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload {
    /// Payload type as this side sends it, 0..=127.
    pub pt: u8,
    /// Payload type to put on the wire towards the far side, 0..=127; equal to `pt` when unmapped.
    pub to_pt: u8,
    /// Codec.
    pub codec: CodecId,
    /// RTP clock rate in Hz.
    pub clock_hz: u32,
}

/// Requests (or, with fixed ports, restores) a session's ports.
///
/// Sent again for a live session with more `media`, it adds what is missing and answers with all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionOpen {
    /// Session id, chosen by control, unique for the appliance's life.
    pub session: u64,
    /// Index of the interface (in configuration order of (name, address)) for each [`Side`].
    pub interface: [u8; 2],
    /// Media timeout; 0 = off.
    pub media_timeout_ms: u32,
    /// Session whose worker is to have this one too (a fork leads from one to the other); 0 = any.
    pub beside: u64,
    /// One entry an m-line, at most [`crate::limits::MEDIA_MAX`].
    pub media: Vec<MediaOpen>,
}

/// One m-line of a [`SessionOpen`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediaOpen {
    /// What it carries.
    pub kind: MediaKind,
    /// RTP ports wanted for each side, 0 = any. The RTCP port is the next one.
    pub ports: [u16; 2],
}

/// Flags of a [`LegUpdate`].
pub mod leg_flags {
    /// RTP and RTCP share the RTP port towards this side.
    pub const RTCP_MUX: u32 = 1;
    /// Replace this side's payload by the codec's silence before it is relayed.
    pub const MUTE: u32 = 1 << 1;
    /// Learn a source that is neither the SDP's nor the signalling peer's address.
    pub const NAT: u32 = 1 << 2;
    /// Open the 5 s learning window now (each offer or answer does).
    pub const LEARN: u32 = 1 << 3;
    /// This side is expected to send (SDP direction); media timeout applies only then.
    pub const EXPECT_MEDIA: u32 = 1 << 4;
    /// We may send to this side (SDP direction: it receives).
    pub const MAY_SEND: u32 = 1 << 5;
    /// All flags defined.
    pub const ALL: u32 = (1 << 6) - 1;
}

/// What one side's SDP says of one m-line. Replaces what was known before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegUpdate {
    /// Session.
    pub session: u64,
    /// Index of the m-line among the session's `media`.
    pub media: u8,
    /// Which side this describes.
    pub side: Side,
    /// See [`leg_flags`].
    pub flags: u32,
    /// Where the side says it receives RTP; `None` on c=0.0.0.0 or before its SDP is known.
    pub rtp: Option<SocketAddr>,
    /// Where it says it receives RTCP; `None` = RTP port + 1, or mux.
    pub rtcp: Option<SocketAddr>,
    /// The address its signalling comes from.
    pub signalling: Option<IpAddr>,
    /// Payload types this side may send, at most [`crate::limits::PAYLOADS_MAX`].
    pub payloads: Vec<Payload>,
    /// After the death of a dataplane: what the previous one had learned.
    pub restore: Option<LegRestore>,
}

/// State of a leg's media that outlives a dataplane process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LegRestore {
    /// Learned RTP source.
    pub learned_rtp: Option<SocketAddr>,
    /// Learned RTCP source.
    pub learned_rtcp: Option<SocketAddr>,
    /// The rewriting in force on what this side sends.
    pub continuity: Option<Continuity>,
}

/// How one source is shown to the far end as the continuation of an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Continuity {
    /// SSRC as received.
    pub ssrc_in: u32,
    /// SSRC as sent.
    pub ssrc_out: u32,
    /// Added to the sequence number, modulo 2^16.
    pub sequence_offset: u16,
    /// Added to the timestamp, modulo 2^32.
    pub timestamp_offset: u32,
}

/// Kinds of fact frames; values are SN3 frame kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FactKind {
    /// JSON `trunkline_sn3::facts::CallOpen`.
    CallOpen = 2,
    /// JSON `trunkline_sn3::facts::CallChange`.
    CallChange = 3,
    /// JSON `trunkline_sn3::facts::CallClose`.
    CallClose = 4,
}

/// Starts a recording of a session. Answered by `Done` once capture is armed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordingStart {
    /// Session.
    pub session: u64,
    /// Recording number, unique for the appliance's life, not 0.
    pub recording: u64,
    /// 0 for a new recording; else the CLOCK_MONOTONIC origin (ns) of a recording that goes on
    /// after a dataplane restart.
    pub origin_mono_ns: u64,
    /// First extent ordinal to use (0 for a new recording).
    pub first_ordinal: u32,
    /// Last extent known to be written, to chain to (both 0 = none).
    pub prev_segment: u32,
    /// See `prev_segment`.
    pub prev_page: u32,
    /// Call-open fact (JSON), at most [`crate::limits::FACT_BYTES_MAX`].
    pub open_fact: Vec<u8>,
}

/// A digit to be dialled towards a side by telephone-event packets (RFC 4733).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DigitSend {
    /// Session.
    pub session: u64,
    /// m-line index.
    pub media: u8,
    /// Side that is to hear it.
    pub to: Side,
    /// Payload type by which that side takes telephone-events, 0..=127.
    pub pt: u8,
    /// Its clock rate, Hz.
    pub clock_hz: u32,
    /// Event code, 0 to 15.
    pub event: u8,
    /// How long it lasts.
    pub duration_ms: u16,
    /// SSRC to use where the other side sends nothing that it could be put into.
    pub ssrc: u32,
}

/// A piece of prepared sound, which is kept until its dataplane ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceLoad {
    /// Its number, chosen by control: another sound, another number.
    pub source: u64,
    /// Codec: G.711, G.722 or Opus.
    pub codec: CodecId,
    /// RTP clock rate in Hz.
    pub clock_hz: u32,
    /// Time of one frame, µs.
    pub frame_us: u32,
    /// Frames of the whole sound, at most [`crate::limits::SOURCE_FRAMES_MAX`].
    pub frames_total: u32,
    /// Index of the first frame of this piece; pieces come in order, the first begins anew.
    pub first: u32,
    /// Payloads of G.711 or G.722, or Opus packets of one frame each, all of one configuration.
    pub frames: Vec<Vec<u8>>,
}

impl SourceLoad {
    /// Bytes of its frames, their lengths included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.frames.iter().map(|frame| frame.len() + 2).sum()
    }
}

/// How what is played stands to what the other side sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PlayMode {
    /// In its place.
    Insert = 0,
    /// Added to it where that is G.711, else in its place.
    Mix = 1,
}

/// The sound of a play in one codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlayVoice {
    /// Source, which must have been loaded.
    pub source: u64,
    /// Payload type by which the side takes its codec, 0..=127.
    pub pt: u8,
}

/// An announcement or a tone that a side is to hear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlayStart {
    /// Session.
    pub session: u64,
    /// m-line index.
    pub media: u8,
    /// Side that is to hear it.
    pub to: Side,
    /// Control's number for it, told with what was heard.
    pub play: u64,
    /// How it stands to what the other side sends.
    pub mode: PlayMode,
    /// From one beginning to the next; 0 = once.
    pub every_ms: u32,
    /// Time of a packet where the other side sends none, 5 to 120 ms.
    pub packet_ms: u16,
    /// SSRC to use where the other side has sent nothing yet.
    pub ssrc: u32,
    /// The sound by codec, one to [`crate::limits::VOICES_MAX`]; the first where the other side sends
    /// nothing.
    pub voices: Vec<PlayVoice>,
}

/// Commands from control.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Allocate, extend or restore a session. Answer: [`Event::SessionOpened`] or `Failed`.
    SessionOpen(SessionOpen),
    /// Describe one side of one m-line. Answer: `Done` once the worker has it.
    LegUpdate(LegUpdate),
    /// Store control's opaque record with the session (at most 8 KiB), replacing the last.
    SessionRecord { session: u64, record: Vec<u8> },
    /// End a session; its recording, if any, is stopped first. Answer: `Done`.
    SessionClose { session: u64 },
    /// Start a recording.
    RecordingStart(RecordingStart),
    /// Stop capturing at the packet. Answer: `RecordingState` carrying the request.
    RecordingPause { session: u64, recording: u64 },
    /// Capture again. Answer: `RecordingState`.
    RecordingResume { session: u64, recording: u64 },
    /// Stop capturing for good; facts may still be appended until `RecordingFinish`.
    /// Answer: `RecordingState` with the stream receipts.
    RecordingStop { session: u64, recording: u64 },
    /// Append a fact to a recording (running or stopped). Answer: `Done`.
    RecordingFact {
        session: u64,
        recording: u64,
        kind: FactKind,
        fact: Vec<u8>,
    },
    /// Seal and flush. Answer (when durable): `RecordingClosed`.
    RecordingFinish { session: u64, recording: u64 },
    /// Fork a session's media into the legs of another on the same worker (`SessionOpen::beside`): what
    /// side S sends on m-line M leaves by side S of m-line M of `target`, whose `LegUpdate`s say where
    /// to and by which payload types (none = all, unmapped). Again after new m-lines. Answer: `Done`.
    ForkStart { session: u64, target: u64 },
    /// Hold a fork's copies back, silence them, or let them go on. Answer: `Done` once it holds.
    ForkState {
        session: u64,
        target: u64,
        state: ForkState,
    },
    /// End a fork; its target session stays. Either session's end ends it too. Answer: `Done`.
    ForkStop { session: u64, target: u64 },
    /// Dial a digit towards a side, after those that were given before. Answer: `Done` once it waits
    /// for its turn; `NoCapacity` when too many do.
    DigitSend(DigitSend),
    /// Take in a piece of prepared sound. A source that is there whole already stays as it is. Answer:
    /// `Done`; `NoCapacity` when there is no room for it, `Invalid` when it does not fit what came
    /// before, or is no sound that is played.
    SourceLoad(SourceLoad),
    /// Play to a side, in place of what was played before; the same `play` again goes on where it is,
    /// by the voices that are given now. Answer: `Done`; `NotFound` also for a source that is not there
    /// whole. What was heard is told by `Played`.
    PlayStart(PlayStart),
    /// End what is played to a side. Answer: `Done`, after the last `Played`.
    PlayStop { session: u64, media: u8, to: Side },
    /// Send a `SnapshotSession` for every live session, then `SnapshotEnd`.
    Snapshot,
    /// Stop accepting `SessionOpen` for new sessions.
    Drain,
}

/// Whether a fork's copies leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ForkState {
    /// They do.
    Running = 0,
    /// They do not.
    Paused = 1,
    /// They do, with silence for payload.
    Silenced = 2,
}

/// What a fork has sent of one side of one m-line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForkStream {
    /// m-line index.
    pub media: u8,
    /// Side whose packets were copied.
    pub side: Side,
    /// Copies sent.
    pub packets: u64,
    /// Their payload bytes.
    pub payload_bytes: u64,
    /// Packets not copied: the recorder receives nothing, or not this payload type.
    pub withheld: u64,
}

/// Why packets that reached us were not recorded or relayed. Order is part of the wire format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DropReason {
    /// Kernel socket buffer overflow (SK_MEMINFO_DROPS).
    Socket = 0,
    /// No receive buffer.
    BufferRing = 1,
    /// Completion queue overflow.
    CqOverflow = 2,
    /// Send refused by the kernel.
    SendFailed = 3,
    /// No extent ready.
    NoExtent = 4,
    /// The disk refused or was full.
    Disk = 5,
    /// Above the port's packet rate cap.
    RateCap = 6,
    /// The dataplane was down.
    Restart = 7,
    /// A configured limit.
    Limit = 8,
}

impl DropReason {
    /// All reasons, in wire order.
    pub const ALL: [Self; 9] = [
        Self::Socket,
        Self::BufferRing,
        Self::CqOverflow,
        Self::SendFailed,
        Self::NoExtent,
        Self::Disk,
        Self::RateCap,
        Self::Restart,
        Self::Limit,
    ];

    /// The name used in receipts and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::BufferRing => "buffer_ring",
            Self::CqOverflow => "cq_overflow",
            Self::SendFailed => "send_failed",
            Self::NoExtent => "no_extent",
            Self::Disk => "disk",
            Self::RateCap => "rate_cap",
            Self::Restart => "restart",
            Self::Limit => "limit",
        }
    }
}

/// The receipt of one stream (one SSRC, one direction) within a recording.
/// `expected = written + lost + sum(dropped)`, over distinct extended sequence numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamReceipt {
    /// Side that sent it.
    pub side: Side,
    /// m-line index.
    pub media: u8,
    /// SSRC as received.
    pub ssrc: u32,
    /// Distinct sequence numbers between first and last heard while recording ran.
    pub expected: u64,
    /// Distinct ones written.
    pub written: u64,
    /// Lost in the network.
    pub lost: u64,
    /// Dropped by us, by [`DropReason`].
    pub dropped: [u64; 9],
    /// Written again (flagged), beside `written`.
    pub duplicates: u64,
    /// Arrived after a later one.
    pub reordered: u64,
    /// Payload bytes written.
    pub bytes: u64,
    /// First and last arrival, CLOCK_MONOTONIC ns.
    pub first_ns: u64,
    /// See `first_ns`.
    pub last_ns: u64,
    /// Time covered by this stream's packets.
    pub covered_ns: u64,
    /// Sequence number of the packet heard first; of no meaning in the sum of unlisted streams.
    pub first_sequence: u16,
}

/// States of a recording in the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordingPhase {
    /// Capturing.
    Running = 0,
    /// Not capturing, may be resumed.
    Paused = 1,
    /// Capture ended.
    Stopped = 2,
}

/// Why a command failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum FailReason {
    /// No such session, m-line or recording.
    NotFound = 1,
    /// Out of ports.
    NoPorts = 2,
    /// Out of sessions, files or another limit.
    NoCapacity = 3,
    /// A field's value is not acceptable.
    Invalid = 4,
    /// Not in this state (already recording, not paused ...).
    WrongState = 5,
    /// The fixed port wanted cannot be bound.
    PortBusy = 6,
    /// Draining.
    Draining = 7,
    /// The worker did not answer.
    Internal = 8,
}

/// Conditions that operators are told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum AlarmCode {
    /// Segment writes fail (disk full or I/O error).
    CaptureDisk = 1,
    /// No ready extents.
    CaptureNoExtent = 2,
    /// Ports run short; rests are being cut.
    PortsShort = 3,
}

/// A live session in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotSession {
    /// Session.
    pub session: u64,
    /// The ports in use, RTP port of each side for each m-line, with what was asked.
    pub media: Vec<MediaOpen>,
    /// Interfaces.
    pub interface: [u8; 2],
    /// Running or stopped-but-unfinished recording, 0 = none.
    pub recording: u64,
    /// Its phase; meaningless when `recording` is 0.
    pub phase: RecordingPhase,
    /// Its origin, CLOCK_MONOTONIC ns.
    pub origin_mono_ns: u64,
    /// Control's opaque record.
    pub record: Vec<u8>,
}

/// Events to control.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A command took effect.
    Done { request: u64 },
    /// A command did not.
    Failed { request: u64, reason: FailReason },
    /// A session's ports: the RTP port of each side for each m-line.
    SessionOpened {
        request: u64,
        session: u64,
        worker: u16,
        ports: Vec<[u16; 2]>,
    },
    /// A side's media now comes from this address.
    EndpointLearned {
        session: u64,
        media: u8,
        side: Side,
        rtcp: bool,
        address: SocketAddr,
    },
    /// A side's source changed; the far end sees one continuous stream.
    SourceChanged {
        session: u64,
        media: u8,
        side: Side,
        continuity: Continuity,
    },
    /// A side has dialled a digit by telephone-event packets: its code (RFC 4733) and length.
    Digit {
        session: u64,
        side: Side,
        event: u8,
        duration_ms: u32,
    },
    /// A side has been silent for the media timeout.
    MediaTimeout { session: u64, side: Side },
    /// A session that nobody claimed has ended.
    SessionEnded { session: u64 },
    /// A recording's phase changed. `request` 0 = not asked for.
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
    /// Once a second for each running recording: receipts and the place of its last written extent.
    RecordingProgress {
        session: u64,
        recording: u64,
        next_ordinal: u32,
        last_segment: u32,
        last_page: u32,
        streams: Vec<StreamReceipt>,
    },
    /// A recording is durable. Receipts include what the disk refused.
    RecordingClosed {
        session: u64,
        recording: u64,
        extents: u32,
        last_segment: u32,
        last_page: u32,
        bytes: u64,
        /// Head of the hash chain over its extents (BLAKE3); zeros = not chained.
        chain_head: [u8; 32],
        streams: Vec<StreamReceipt>,
    },
    /// Every 2 s for each fork: what it has sent, and when anything last came from the recorder
    /// (CLOCK_MONOTONIC ns, 0 = never).
    ForkProgress {
        session: u64,
        target: u64,
        heard_ns: u64,
        streams: Vec<ForkStream>,
    },
    /// A side has heard what is played to it: all of it, or until it was ended. Told for each time that
    /// it is repeated.
    Played {
        session: u64,
        media: u8,
        to: Side,
        play: u64,
        /// First and last packet that carried it, CLOCK_MONOTONIC ns.
        from_mono_ns: u64,
        /// See `from_mono_ns`.
        to_mono_ns: u64,
        /// Packets that carried it.
        packets: u32,
        /// How much of it.
        played_ms: u32,
        /// All of it.
        whole: bool,
    },
    /// A condition began or ended.
    Alarm { code: AlarmCode, active: bool },
    /// One session of a snapshot.
    SnapshotSession(SnapshotSession),
    /// All sessions were sent; `request` is that of the `Snapshot` command.
    SnapshotEnd { request: u64 },
}
