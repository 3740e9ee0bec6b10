//! One frame: a 15-byte prefix, the 17 classic SN3 bytes, the payload, zeros up to a multiple of 8.
//!
//! ```text
//!  0        4        8     9     10         11     12           14        15   16   18      22       30   32
//!  | crc32c | ssrc   | kind| media| marker+pt| flags| seq_cycles | piece   | dir| seq| rtp_ts| wall_ns| len| payload
//!  '------------------------ prefix --------------------------------------' '------- classic SN3 ---------'
//! ```

use std::borrow::Cow;

use crate::layout::{FRAME_ALIGN, FRAME_HEADER, PAYLOAD_MAX, frame_bytes};

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FrameKind {
    /// An RTP packet of an audio m-line: header fields in the frame, payload without CSRC list,
    /// header extension and padding.
    Rtp,
    /// An RTCP datagram, whole, after decryption.
    Rtcp,
    /// JSON [`crate::facts::CallOpen`].
    CallOpen,
    /// JSON [`crate::facts::CallChange`].
    CallChange,
    /// JSON [`crate::facts::CallClose`].
    CallClose,
    /// [`crate::record::DropRecord`].
    Drop,
    /// [`crate::record::PauseRecord`]: capture stops here.
    Pause,
    /// [`crate::record::PauseRecord`]: capture goes on here.
    Resume,
    /// [`crate::record::ClockTriple`].
    Clock,
    /// A free note, UTF-8.
    Mark,
    /// A whole datagram that is not audio: RTP of another m-line, udptl.
    Opaque,
    /// Entries of a segment's directory.
    Directory,
    /// A kind this version does not know.
    Unknown(u8),
}

impl FrameKind {
    /// Highest number a kind may have: `dir` of its frames stays below the export's own 255.
    pub const NUMBER_MAX: u8 = 125;

    /// The number in the file.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Rtp => 0,
            Self::Rtcp => 1,
            Self::CallOpen => 2,
            Self::CallChange => 3,
            Self::CallClose => 4,
            Self::Drop => 5,
            Self::Pause => 6,
            Self::Resume => 7,
            Self::Clock => 8,
            Self::Mark => 9,
            Self::Opaque => 10,
            Self::Directory => 11,
            Self::Unknown(number) => number,
        }
    }

    /// The kind with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Rtp,
            1 => Self::Rtcp,
            2 => Self::CallOpen,
            3 => Self::CallChange,
            4 => Self::CallClose,
            5 => Self::Drop,
            6 => Self::Pause,
            7 => Self::Resume,
            8 => Self::Clock,
            9 => Self::Mark,
            10 => Self::Opaque,
            11 => Self::Directory,
            other => Self::Unknown(other),
        }
    }
}

/// Flags of a frame.
pub mod flags {
    /// The stream's sequence number was already written.
    pub const DUPLICATE: u8 = 1;
    /// Played by us (announcement, tone), not received.
    pub const INJECTED: u8 = 1 << 1;
    /// Arrived encrypted; the payload is the clear text.
    pub const DECRYPTED: u8 = 1 << 2;
    /// Arrived after a later one of its stream.
    pub const LATE: u8 = 1 << 3;
    /// The payload goes on in the next frame of the same kind, side and media.
    pub const MORE: u8 = 1 << 4;
    /// The payload continues that of the frame before it of the same kind, side and media.
    pub const CONTINUED: u8 = 1 << 5;
    /// The payload is empty; one filler byte stands in its place.
    pub const EMPTY: u8 = 1 << 6;
    /// The payload was replaced by silence before it was written.
    pub const MASKED: u8 = 1 << 7;

    /// Flags by which the format stores a payload that does not fit one frame.
    pub const SHAPE: u8 = MORE | CONTINUED | EMPTY;
}

/// Everything in a frame but its payload, as the tap knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead {
    /// Kind.
    pub kind: FrameKind,
    /// 0 = received from the caller, 1 = from whoever is bridged to the caller; 0 where no side is meant.
    pub side: u8,
    /// m-line index.
    pub media: u8,
    /// SSRC as received; 0 where there is none.
    pub ssrc: u32,
    /// Payload type, 0..=127.
    pub pt: u8,
    /// RTP marker bit.
    pub marker: bool,
    /// See [`flags`]; the [`flags::SHAPE`] ones are set by [`pieces`] and [`crate::extent::Appender`].
    pub flags: u8,
    /// RTP sequence number as received.
    pub seq: u16,
    /// How often the stream's sequence numbers have wrapped before this one.
    pub seq_cycles: u16,
    /// RTP timestamp as received.
    pub rtp_ts: u32,
    /// Nanoseconds since the recording's origin.
    pub wall_ns: u64,
}

impl FrameHead {
    /// Head of a frame that is not a packet.
    #[must_use]
    pub const fn note(kind: FrameKind, wall_ns: u64) -> Self {
        Self {
            kind,
            side: 0,
            media: 0,
            ssrc: 0,
            pt: 0,
            marker: false,
            flags: 0,
            seq: 0,
            seq_cycles: 0,
            rtp_ts: 0,
            wall_ns,
        }
    }

    /// The classic `dir`: the side for party RTP in one piece, else `2 + 2 * kind + side`, so that
    /// classic readers take the first as audio and skip all others.
    #[must_use]
    pub const fn dir(&self) -> u8 {
        let number = self.kind.number();
        if number == 0 && self.flags & flags::SHAPE == 0 {
            self.side & 1
        } else if number <= FrameKind::NUMBER_MAX {
            2 + 2 * number + (self.side & 1)
        } else {
            254
        }
    }
}

/// A frame as readers give it, whatever the format it came from. A payload that was split is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Kind. In classic blobs: [`FrameKind::Rtp`] for dir 0 and 1.
    pub kind: FrameKind,
    /// 0 = caller, 1 = callee (left and right channel).
    pub side: u8,
    /// m-line index; 0 in classic blobs.
    pub media: u8,
    /// SSRC; `None` in classic blobs.
    pub ssrc: Option<u32>,
    /// Payload type; `None` in classic blobs.
    pub pt: Option<u8>,
    /// RTP marker; false in classic blobs.
    pub marker: bool,
    /// See [`flags`], without the [`flags::SHAPE`] ones.
    pub flags: u8,
    /// RTP sequence number; 0 in SN1.
    pub seq: u16,
    /// Upper half of the extended sequence number; 0 in classic blobs.
    pub seq_cycles: u16,
    /// RTP timestamp; 0 in SN1.
    pub rtp_ts: u32,
    /// Nanoseconds since the recording's origin; 0 in SN1 and SN2.
    pub wall_ns: u64,
    /// The payload; may be empty.
    pub payload: Cow<'a, [u8]>,
    /// Where the frame (its first piece) starts in its file.
    pub offset: u64,
}

impl Frame<'_> {
    /// An RTP packet of an audio m-line.
    #[must_use]
    pub fn is_audio(&self) -> bool {
        self.kind == FrameKind::Rtp
    }
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// It reaches beyond the end of its extent or file.
    #[error("frame is cut")]
    Cut,
    /// Length outside 1..=4000.
    #[error("impossible frame length")]
    Length,
    /// The checksum differs.
    #[error("frame checksum differs")]
    Checksum,
}

/// The pieces in which a payload of any length is stored, with the flags to add to each.
pub fn pieces(payload: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let last = payload.len().div_ceil(PAYLOAD_MAX).saturating_sub(1);
    let empty = payload.is_empty().then_some((flags::EMPTY, &[0u8][..]));
    let parts = payload
        .chunks(PAYLOAD_MAX)
        .enumerate()
        .map(move |(index, part)| {
            let more = if index < last { flags::MORE } else { 0 };
            let continued = if index > 0 { flags::CONTINUED } else { 0 };
            (more | continued, part)
        });
    empty.into_iter().chain(parts)
}

/// Bytes that a payload of this length takes in extents.
#[must_use]
pub const fn stored_bytes(payload: usize) -> usize {
    if payload == 0 {
        return frame_bytes(1);
    }
    let whole = payload / PAYLOAD_MAX;
    let rest = payload % PAYLOAD_MAX;
    whole * frame_bytes(PAYLOAD_MAX) + if rest == 0 { 0 } else { frame_bytes(rest) }
}

/// Checksums are bound to an extent: this stands in place of the checksum while it is computed.
#[must_use]
pub fn seed(recording: u64, ordinal: u32) -> u32 {
    let mut bytes = [0u8; 12];
    bytes[..8].copy_from_slice(&recording.to_le_bytes());
    bytes[8..].copy_from_slice(&ordinal.to_le_bytes());
    crc32c::crc32c(&bytes)
}

/// Writes a frame at the start of `room` and returns its padded length.
///
/// `None` when it does not fit or `payload` is not 1..=4000 bytes long.
#[inline]
pub fn encode(room: &mut [u8], seed: u32, head: &FrameHead, payload: &[u8]) -> Option<usize> {
    encode_piece(room, seed, head, 0, payload)
}

/// [`encode`] for the piece of a split payload: `piece` counts from 0.
#[inline]
pub fn encode_piece(
    room: &mut [u8],
    seed: u32,
    head: &FrameHead,
    piece: u8,
    payload: &[u8],
) -> Option<usize> {
    if payload.is_empty() || payload.len() > PAYLOAD_MAX {
        return None;
    }
    let end = FRAME_HEADER + payload.len();
    let bytes = end.next_multiple_of(FRAME_ALIGN);
    let frame = room.get_mut(..bytes)?;
    let marker = u64::from(head.marker) << 7;
    let words = [
        u64::from(seed) | u64::from(head.ssrc) << 32,
        u64::from(head.kind.number())
            | u64::from(head.media) << 8
            | (u64::from(head.pt & 0x7f) | marker) << 16
            | u64::from(head.flags) << 24
            | u64::from(head.seq_cycles) << 32
            | u64::from(piece) << 48
            | u64::from(head.dir()) << 56,
        u64::from(head.seq) | u64::from(head.rtp_ts) << 16 | head.wall_ns << 48,
        head.wall_ns >> 16 | (payload.len() as u64) << 48,
    ];
    for (target, word) in frame.chunks_exact_mut(8).zip(words) {
        target.copy_from_slice(&word.to_le_bytes());
    }
    frame[bytes - FRAME_ALIGN..].fill(0);
    frame[FRAME_HEADER..end].copy_from_slice(payload);
    let checksum = u64::from(crc32c::crc32c(frame));
    // As a whole word: who copies words on would wait for one of two halves.
    frame[..8].copy_from_slice(&(checksum | u64::from(head.ssrc) << 32).to_le_bytes());
    Some(bytes)
}

/// A frame in place, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawFrame<'a> {
    /// Everything but the payload, with the shape flags as stored.
    pub head: FrameHead,
    /// Which piece of a split payload it is, from 0.
    pub piece: u8,
    /// The stored payload, 1..=4000 bytes.
    pub payload: &'a [u8],
    /// The bytes that a classic export copies: 17 header bytes and the payload.
    pub classic: &'a [u8],
    /// Padded length.
    pub bytes: usize,
}

/// Reads the frame at the start of `bytes`.
///
/// # Errors
/// See [`FrameError`].
pub fn decode(bytes: &[u8], seed: u32) -> Result<RawFrame<'_>, FrameError> {
    let frame = decode_unchecked(bytes)?;
    let stored = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let computed =
        crc32c::crc32c_append(crc32c::crc32c(&seed.to_le_bytes()), &bytes[4..frame.bytes]);
    if stored == computed {
        Ok(frame)
    } else {
        Err(FrameError::Checksum)
    }
}

/// Reads the frame at the start of `bytes` without looking at its checksum.
///
/// # Errors
/// See [`FrameError`].
pub fn decode_unchecked(bytes: &[u8]) -> Result<RawFrame<'_>, FrameError> {
    let header: &[u8; FRAME_HEADER] = bytes.first_chunk().ok_or(FrameError::Cut)?;
    let word = |at: usize| {
        let mut word = [0u8; 8];
        word.copy_from_slice(&header[at..at + 8]);
        u64::from_le_bytes(word)
    };
    let (first, second, third, fourth) = (word(0), word(8), word(16), word(24));
    let length = (fourth >> 48) as usize;
    if length == 0 || length > PAYLOAD_MAX {
        return Err(FrameError::Length);
    }
    let padded = frame_bytes(length);
    if padded > bytes.len() {
        return Err(FrameError::Cut);
    }
    let kind = FrameKind::from_number(second as u8);
    let dir = (second >> 56) as u8;
    let head = FrameHead {
        kind,
        side: dir & 1,
        media: (second >> 8) as u8,
        ssrc: (first >> 32) as u32,
        pt: (second >> 16) as u8 & 0x7f,
        marker: second >> 23 & 1 == 1,
        flags: (second >> 24) as u8,
        seq: third as u16,
        seq_cycles: (second >> 32) as u16,
        rtp_ts: (third >> 16) as u32,
        wall_ns: third >> 48 | fourth << 16,
    };
    let end = FRAME_HEADER + length;
    Ok(RawFrame {
        head,
        piece: (second >> 48) as u8,
        payload: &bytes[FRAME_HEADER..end],
        classic: &bytes[crate::layout::PREFIX..end],
        bytes: padded,
    })
}
