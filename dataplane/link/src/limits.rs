//! Limits on everything that crosses the link or lives in the dataplane, asserted against each other.

/// m-lines of one session that are relayed.
pub const MEDIA_MAX: usize = 4;
/// Payload types of one m-line and side.
pub const PAYLOADS_MAX: usize = 24;
/// SSRCs in use at once in one direction of an m-line (the oldest idle one is evicted).
pub const SSRCS_MAX: usize = 4;
/// Streams listed in one receipt (4 m-lines, 2 sides, SSRCs over the call's life).
pub const STREAMS_MAX: usize = 64;
/// Streams listed of one fork: both sides of each m-line.
pub const FORK_STREAMS_MAX: usize = 2 * MEDIA_MAX;
/// Control's opaque record of a session.
pub const RECORD_BYTES_MAX: usize = 8 * 1024;
/// One fact (JSON); it is split over frames of at most 4,000 bytes.
pub const FACT_BYTES_MAX: usize = 12 * 1024;
/// Frames of one piece of a source, their lengths included.
pub const SOURCE_PIECE_BYTES_MAX: usize = 12 * 1024;
/// One frame of a source.
pub const SOURCE_FRAME_BYTES_MAX: usize = 1_280;
/// Frames of one source: two minutes of 10 ms.
pub const SOURCE_FRAMES_MAX: usize = 12_000;
/// Bytes of one source, and of all sources of a dataplane.
pub const SOURCE_BYTES_MAX: usize = 1 << 20;
/// See [`SOURCE_BYTES_MAX`].
pub const SOURCES_BYTES_MAX: usize = 32 << 20;
/// Sources of which one play may choose by codec.
pub const VOICES_MAX: usize = 4;
/// One message on a ring, header included.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024;
/// Bytes of the command ring and of the event ring, powers of two.
pub const COMMAND_RING_BYTES: usize = 1 << 20;
/// See [`COMMAND_RING_BYTES`].
pub const EVENT_RING_BYTES: usize = 4 << 20;
/// One extent.
pub const EXTENT_BYTES: usize = 16 * 1024;
/// Workers.
pub const WORKERS_MAX: usize = 64;
/// Seconds a freed port rests, and the least it rests when ports run short.
pub const PORT_REST_S: u64 = 30;
/// See [`PORT_REST_S`].
pub const PORT_REST_MIN_S: u64 = 2;
/// Packets per second accepted by one port, judged over at least 100 ms.
pub const PORT_PACKETS_PER_SECOND_MAX: u64 = 20_000;
/// Seconds after which a session that no control claims ends, counted from its last packet.
pub const ORPHAN_SILENCE_S: u64 = 60;

const _: () = assert!(RECORD_BYTES_MAX + 1024 <= MESSAGE_BYTES_MAX);
const _: () = assert!(FACT_BYTES_MAX + 1024 <= MESSAGE_BYTES_MAX);
const _: () = assert!(SOURCE_PIECE_BYTES_MAX + 1024 <= MESSAGE_BYTES_MAX);
const _: () = assert!(SOURCE_FRAME_BYTES_MAX + 2 <= SOURCE_PIECE_BYTES_MAX);
const _: () = assert!(STREAMS_MAX * 160 + 1024 <= MESSAGE_BYTES_MAX);
const _: () = assert!(COMMAND_RING_BYTES.is_power_of_two() && EVENT_RING_BYTES.is_power_of_two());
