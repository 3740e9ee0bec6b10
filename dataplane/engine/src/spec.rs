//! What the engine is told of sessions, and what it tells of streams.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::source::Source;

/// m-lines of one session.
pub const MEDIA_MAX: usize = 4;
/// Payload types of one leg.
pub const PAYLOADS_MAX: usize = 24;
/// SSRCs in use at once in one direction of an m-line.
pub const SSRCS_MAX: usize = 4;
/// Streams in one recording's receipt. The last `2 * MEDIA_MAX` places are kept for what a hostile
/// source's flood of SSRCs is summed up in, one a side and m-line, with SSRC 0.
pub const STREAMS_MAX: usize = 64;
/// Room that a buffer has behind its datagram, for what a transform or a mute appends.
pub const TAIL_ROOM_BYTES: usize = 64;
/// Forks of one session.
pub const FORKS_MAX: usize = 4;
/// Number of [`DropReason`]s.
pub const DROP_REASONS: usize = 9;

/// The two sides of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
pub enum MediaKind {
    /// RTP audio: recorded as RTP, counted in receipts.
    Audio,
    /// RTP relayed blind (video): recorded as opaque datagrams.
    OpaqueRtp,
    /// Datagrams relayed byte for byte (udptl): recorded as opaque datagrams.
    OpaqueDatagram,
}

/// Codecs the engine tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Anything not named here; its silence is not known.
    Other,
    /// G.711 mu-law.
    Pcmu,
    /// G.711 A-law.
    Pcma,
    /// G.722.
    G722,
    /// Opus.
    Opus,
    /// Linear 16-bit PCM.
    L16,
    /// RFC 4733 telephone-event.
    TelephoneEvent,
    /// RFC 3389 comfort noise.
    ComfortNoise,
}

/// One payload type that a side may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadSpec {
    /// Payload type as this side sends it, 0..=127.
    pub pt: u8,
    /// Payload type on the wire towards the far side; equal to `pt` when unmapped.
    pub to_pt: u8,
    /// Codec.
    pub codec: Codec,
    /// RTP clock rate in Hz; 0 counts as 8000.
    pub clock_hz: u32,
}

/// The sockets of one side of an m-line, as slots (indexes of the worker's device).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortSlots {
    /// RTP (and RTCP when multiplexed), or the datagrams.
    pub rtp: u32,
    /// RTCP.
    pub rtcp: u32,
}

/// One m-line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediaSpec {
    /// What it carries.
    pub kind: MediaKind,
    /// Slots by [`Side`].
    pub slots: [PortSlots; 2],
}

/// A session. Until [`crate::Engine::update_leg`] describes a side, nobody is accepted on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSpec {
    /// Session id.
    pub session: u64,
    /// Silence after which a side that should send is reported; 0 = never.
    pub media_timeout_ns: u64,
    /// At most [`MEDIA_MAX`] m-lines.
    pub media: Vec<MediaSpec>,
}

/// What an SDP says of a side's m-line, as far as the packet path cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LegFlags {
    /// RTP and RTCP share the RTP port towards this side.
    pub rtcp_mux: bool,
    /// What this side sends is replaced by silence before it is relayed.
    pub mute: bool,
    /// A source at neither the SDP's nor the signalling peer's address may be learnt.
    pub nat: bool,
    /// An offer or answer came: open the learning window.
    pub learn: bool,
    /// This side is expected to send; the media timeout applies only then.
    pub expect_media: bool,
    /// We may send to this side.
    pub may_send: bool,
}

/// One side of one m-line, as its SDP says. Replaces what was known before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegSpec {
    /// Session.
    pub session: u64,
    /// m-line index.
    pub media: u8,
    /// Side.
    pub side: Side,
    /// See [`LegFlags`].
    pub flags: LegFlags,
    /// Where it says it receives RTP.
    pub rtp: Option<SocketAddr>,
    /// Where it says it receives RTCP; `None` = RTP port + 1.
    pub rtcp: Option<SocketAddr>,
    /// Where its signalling comes from.
    pub signalling: Option<IpAddr>,
    /// Payload types it may send, at most [`PAYLOADS_MAX`].
    pub payloads: Vec<PayloadSpec>,
    /// What an earlier dataplane had learned.
    pub restore: Option<LegRestore>,
}

/// State of a leg that outlives a dataplane process.
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

/// Why packets that reached us were not recorded. The numbers are those of the receipts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DropReason {
    /// Kernel socket buffer overflow.
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
    /// A limit of ours (a datagram larger than a buffer).
    Limit = 8,
}

/// The receipt of one stream (one SSRC, one direction) within a recording.
/// `expected = written + lost + sum(dropped)`, over distinct extended sequence numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamReceipt {
    /// Side that sent it.
    pub side: Side,
    /// m-line index.
    pub media: u8,
    /// SSRC as received; 0 for the sum of what exceeded [`STREAMS_MAX`].
    pub ssrc: u32,
    /// Distinct sequence numbers between first and last heard while recording ran.
    pub expected: u64,
    /// Distinct ones written.
    pub written: u64,
    /// Lost in the network.
    pub lost: u64,
    /// Dropped by us, by [`DropReason`].
    pub dropped: [u64; DROP_REASONS],
    /// Heard again, beside `written`.
    pub duplicates: u64,
    /// Arrived after a later one.
    pub reordered: u64,
    /// Payload bytes written, duplicates included.
    pub bytes: u64,
    /// First and last arrival, ns.
    pub first_ns: u64,
    /// See `first_ns`.
    pub last_ns: u64,
    /// Time covered by this stream's written packets.
    pub covered_ns: u64,
    /// Sequence number of the packet heard first.
    pub first_sequence: u16,
}

/// RFC 3550 statistics of one live stream as received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamStats {
    /// SSRC as received.
    pub ssrc: u32,
    /// Packets accepted, duplicates included.
    pub packets: u64,
    /// Their bytes, RTP headers included.
    pub bytes: u64,
    /// Sequence numbers expected and never seen.
    pub lost: u64,
    /// Seen again.
    pub duplicates: u64,
    /// Arrived after a later one.
    pub reordered: u64,
    /// Interarrival jitter in timestamp units (RFC 3550 A.8).
    pub jitter: u32,
    /// Clock rate of the last payload type, Hz.
    pub clock_hz: u32,
    /// Highest extended sequence number.
    pub highest: u32,
    /// Last arrival, ns.
    pub last_ns: u64,
}

/// Whether a fork's copies leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForkState {
    /// They do.
    Running,
    /// They do not.
    Paused,
    /// They do, with silence for payload (withheld where the codec's silence is not known).
    Silenced,
}

/// A digit to be dialled towards a side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DigitSpec {
    /// Session.
    pub session: u64,
    /// m-line index.
    pub media: u8,
    /// Side that is to hear it.
    pub to: Side,
    /// Payload type by which that side takes telephone-events, 0..=127.
    pub payload_type: u8,
    /// Its clock rate, Hz; that of the audio beside it (RFC 4733 section 2.2).
    pub clock_hz: u32,
    /// Event code, 0 to 15.
    pub event: u8,
    /// How long it lasts.
    pub duration_ms: u16,
    /// SSRC to use where the other side sends nothing that it could be put into.
    pub ssrc: u32,
}

/// How what is played stands to what the other side sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlayMode {
    /// In its place.
    Insert,
    /// Added to it where that is G.711, else in its place.
    Mix,
}

/// What is to be played in one codec.
#[derive(Debug, Clone)]
pub struct Voice {
    /// Payload type by which the side takes that codec, 0..=127.
    pub payload_type: u8,
    /// The sound.
    pub source: Arc<Source>,
}

/// Something to be played to a side.
#[derive(Debug, Clone)]
pub struct PlaySpec {
    /// Session.
    pub session: u64,
    /// m-line index.
    pub media: u8,
    /// Side that is to hear it.
    pub to: Side,
    /// The caller's number for it, told with what was heard.
    pub play: u64,
    /// How it stands to what the other side sends.
    pub mode: PlayMode,
    /// From one beginning to the next; 0 = once.
    pub every_ns: u64,
    /// Time of a packet where the other side sends none, 5,000 to 120,000 µs.
    pub packet_us: u32,
    /// SSRC to use where the other side has sent nothing yet.
    pub ssrc: u32,
    /// The sound, by codec; the first where the other side's is not known. One to four.
    pub voices: Vec<Voice>,
}

/// What a fork has sent of one side of one m-line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForkStats {
    /// m-line index.
    pub media: u8,
    /// Side whose packets were copied.
    pub side: Side,
    /// Copies sent.
    pub packets: u64,
    /// Their payload bytes.
    pub payload_bytes: u64,
    /// Packets not copied, as the recorder receives nothing or not this payload type.
    pub withheld: u64,
}

/// Sizes of an engine. Tables are allocated at start.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Slots are below this.
    pub slots_max: u32,
    /// Sessions at once.
    pub sessions_max: u32,
    /// Sources on probation at once (each holds two datagrams of at most 2 KiB).
    pub probations_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            slots_max: 4096,
            sessions_max: 1024,
            probations_max: 256,
        }
    }
}

/// Why a change of the tables was refused. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineError {
    /// No such session, m-line or tap.
    NotFound,
    /// The tables are full.
    NoCapacity,
    /// A field is out of range, a slot in use, or an m-line differs from what it was.
    Invalid,
    /// Not in this state (already tapped, not paused ...).
    WrongState,
}

impl std::fmt::Display for EngineError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::NotFound => "no such session, m-line or recording",
            Self::NoCapacity => "the tables are full",
            Self::Invalid => "a field is out of range",
            Self::WrongState => "not in this state",
        })
    }
}

impl std::error::Error for EngineError {}
