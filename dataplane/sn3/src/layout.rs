//! Sizes and magic numbers of the format, in one place and asserted against each other.
//!
//! All numbers are little-endian. `docs/sn3.md` draws what they mean.

/// Unit of segment files: every header, extent and footer starts at and fills a multiple of it.
pub const UNIT: usize = 4096;
/// Bytes of an extent in the pool.
pub const EXTENT_BYTES: usize = 16 * 1024;
/// Most units an extent may have (64 KiB).
pub const EXTENT_UNITS_MAX: u8 = 16;
/// Bytes of an extent's header.
pub const EXTENT_HEADER: usize = 64;
/// Most bytes behind an extent's frames that belong to the recorder: an authentication tag and a link
/// of the hash chain. A worker leaves them free.
pub const TRAILER_MAX: usize = 48;
/// Bytes of a frame before the 17 classic ones.
pub const PREFIX: usize = 15;
/// Bytes of the classic SN3 frame header.
pub const CLASSIC: usize = 17;
/// Bytes of a frame before its payload.
pub const FRAME_HEADER: usize = PREFIX + CLASSIC;
/// Frames are padded to a multiple of this.
pub const FRAME_ALIGN: usize = 8;
/// Longest payload of one frame; what is longer is split. Classic readers stop at more.
pub const PAYLOAD_MAX: usize = 4000;

/// First bytes of a segment file.
pub const SEGMENT_MAGIC: [u8; 4] = *b"SN3S";
/// First bytes of a segment's last unit, once the segment is finished.
pub const FOOTER_MAGIC: [u8; 4] = *b"SN3F";
/// First bytes of an extent.
pub const EXTENT_MAGIC: [u8; 4] = *b"SN3E";
/// First bytes of a classic blob, and of an exported call.
pub const CLASSIC_SN3_MAGIC: [u8; 3] = *b"SN3";
/// Predecessor with sequence numbers and timestamps, without capture times.
pub const CLASSIC_SN2_MAGIC: [u8; 3] = *b"SN2";
/// Predecessor with directions and payloads only.
pub const CLASSIC_SN1_MAGIC: [u8; 3] = *b"SN1";
/// Version of segments and extents written by this crate.
pub const VERSION: u16 = 1;

/// Bytes a frame with this payload takes in an extent.
#[must_use]
pub const fn frame_bytes(payload: usize) -> usize {
    (FRAME_HEADER + payload).next_multiple_of(FRAME_ALIGN)
}

const _: () = assert!(FRAME_HEADER == 32);
const _: () = assert!(EXTENT_BYTES.is_multiple_of(UNIT));
const _: () = assert!(EXTENT_BYTES / UNIT <= EXTENT_UNITS_MAX as usize);
const _: () = assert!(EXTENT_HEADER.is_multiple_of(FRAME_ALIGN));
const _: () = assert!(TRAILER_MAX.is_multiple_of(FRAME_ALIGN));
// Three of the longest frames fit an extent, so a fact of 12 KiB needs one extent or two.
const _: () = assert!(EXTENT_HEADER + 3 * frame_bytes(PAYLOAD_MAX) + TRAILER_MAX <= EXTENT_BYTES);
const _: () = assert!(frame_bytes(160) == 192);
