//! Extents: 16 KiB of one recording's frames, filled by a worker, sealed by the recorder.
//!
//! The worker's half ([`Appender`]) never allocates and never fails for another reason than room.

use crate::chain::{self, LINK_BYTES, Link};
use crate::cipher::{DataKey, TAG_BYTES};
use crate::frame::{self, FrameError, FrameHead, FrameKind, RawFrame, flags};
use crate::layout::{
    EXTENT_HEADER, EXTENT_MAGIC, EXTENT_UNITS_MAX, PAYLOAD_MAX, TRAILER_MAX, UNIT, VERSION,
    frame_bytes,
};

/// Flags of an extent.
pub mod extent_flags {
    /// Complete, with a checksum.
    pub const SEALED: u8 = 1;
    /// Frames and padding are encrypted, an authentication tag follows, see [`crate::cipher`].
    pub const ENCRYPTED: u8 = 1 << 1;
    /// Ends with a link of the recording's hash chain, see [`crate::chain`].
    pub const CHAINED: u8 = 1 << 2;
    /// The recording's last extent.
    pub const LAST: u8 = 1 << 3;
    /// Rescued from the memory of a dead process.
    pub const RECOVERED: u8 = 1 << 4;
    /// Holds entries of the segment's directory.
    pub const DIRECTORY: u8 = 1 << 5;
    /// Its frames were erased on request; zeros follow the header.
    pub const ERASED: u8 = 1 << 6;
}

/// The 64 bytes at the start of an extent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExtentHeader {
    /// Length in units of 4 KiB.
    pub units: u8,
    /// See [`extent_flags`].
    pub flags: u8,
    /// Format version.
    pub version: u16,
    /// Bytes used, this header included.
    pub used: u32,
    /// crc32c of the whole extent without this field; of the header alone when erased.
    pub checksum: u32,
    /// Recording; 0 = the worker's own log.
    pub recording: u64,
    /// Position among the recording's extents, from 0.
    pub ordinal: u32,
    /// Segment of the recording's extent before this one; 0 = none.
    pub prev_segment: u32,
    /// Page (4 KiB unit in the file) where that one starts.
    pub prev_page: u32,
    /// Frames.
    pub frames: u32,
    /// CLOCK_MONOTONIC ns at which the extent was opened.
    pub first_ns: u64,
    /// Capture time from first to last frame, us.
    pub span_us: u32,
    /// Frames of this recording that could not be written to disk between the extent before and this one.
    pub dropped: u32,
    /// Random part of the cipher's nonce; 0 when not encrypted.
    pub nonce: u64,
}

impl ExtentHeader {
    /// The bytes in the file.
    #[must_use]
    pub fn encode(&self) -> [u8; EXTENT_HEADER] {
        let mut bytes = [0u8; EXTENT_HEADER];
        bytes[..4].copy_from_slice(&EXTENT_MAGIC);
        bytes[4] = self.units;
        bytes[5] = self.flags;
        bytes[6..8].copy_from_slice(&self.version.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.used.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.checksum.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.recording.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.ordinal.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.prev_segment.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.prev_page.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.frames.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.first_ns.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.span_us.to_le_bytes());
        bytes[52..56].copy_from_slice(&self.dropped.to_le_bytes());
        bytes[56..].copy_from_slice(&self.nonce.to_le_bytes());
        bytes
    }

    /// Reads a header: `None` without the magic, an unknown version or impossible sizes.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; EXTENT_HEADER] = bytes.first_chunk()?;
        if bytes[..4] != EXTENT_MAGIC {
            return None;
        }
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let single = |at: usize| u32::from(half(at)) | u32::from(half(at + 2)) << 16;
        let double = |at: usize| u64::from(single(at)) | u64::from(single(at + 4)) << 32;
        let header = Self {
            units: bytes[4],
            flags: bytes[5],
            version: half(6),
            used: single(8),
            checksum: single(12),
            recording: double(16),
            ordinal: single(24),
            prev_segment: single(28),
            prev_page: single(32),
            frames: single(36),
            first_ns: double(40),
            span_us: single(48),
            dropped: single(52),
            nonce: double(56),
        };
        let fits = (1..=EXTENT_UNITS_MAX).contains(&header.units)
            && (EXTENT_HEADER..=header.body_end()).contains(&(header.used as usize));
        (header.version == VERSION && fits).then_some(header)
    }

    /// Length of the extent.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.units as usize * UNIT
    }

    /// Where the frames and the zeros behind them end: there the trailer starts.
    #[must_use]
    pub const fn body_end(&self) -> usize {
        self.bytes() - trailer_bytes(self.flags)
    }

    /// A stretch of no recording in which nothing is left after a crash or a refused write.
    #[must_use]
    pub const fn is_lost(&self) -> bool {
        self.recording == 0 && self.has(extent_flags::ERASED)
    }

    /// Whether a flag of [`extent_flags`] is set.
    #[must_use]
    pub const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Bytes of the trailer that an extent with these flags ends with.
#[must_use]
pub const fn trailer_bytes(flags: u8) -> usize {
    if flags & extent_flags::ERASED != 0 {
        return 0;
    }
    let tag = if flags & extent_flags::ENCRYPTED != 0 {
        TAG_BYTES
    } else {
        0
    };
    let link = if flags & extent_flags::CHAINED != 0 {
        LINK_BYTES
    } else {
        0
    };
    tag + link
}

/// Why a frame was not appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The extent is full: close it and open the next one.
    #[error("extent is full")]
    NoRoom,
    /// Would not fit an empty extent either.
    #[error("payload is too long for an extent")]
    TooLong,
}

/// The writing state of an open extent. The worker keeps it beside the extent's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appender {
    used: u32,
    seed: u32,
}

impl Appender {
    /// Starts an extent: writes its open header. `first_ns` is CLOCK_MONOTONIC now.
    ///
    /// # Panics
    /// When `extent` is not 1..=16 whole units long: a broken pool.
    #[must_use]
    pub fn open(extent: &mut [u8], recording: u64, ordinal: u32, first_ns: u64) -> Self {
        let units = extent.len() / UNIT;
        assert!(
            extent.len().is_multiple_of(UNIT) && (1..=EXTENT_UNITS_MAX as usize).contains(&units),
            "an extent is 1 to {EXTENT_UNITS_MAX} units of {UNIT} bytes"
        );
        let header = ExtentHeader {
            units: units as u8,
            version: VERSION,
            used: EXTENT_HEADER as u32,
            recording,
            ordinal,
            first_ns,
            ..ExtentHeader::default()
        };
        extent[..EXTENT_HEADER].copy_from_slice(&header.encode());
        Self {
            used: EXTENT_HEADER as u32,
            seed: frame::seed(recording, ordinal),
        }
    }

    /// Bytes used so far, the header included.
    #[must_use]
    pub const fn used(&self) -> u32 {
        self.used
    }

    /// Whether no frame was appended yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.used as usize == EXTENT_HEADER
    }

    /// Appends a frame and returns the new `used` for the caller to publish.
    ///
    /// An empty payload is flagged, one of over 4,000 bytes split; either all pieces are
    /// appended or none.
    ///
    /// # Errors
    /// See [`AppendError`].
    #[inline]
    pub fn append(
        &mut self,
        extent: &mut [u8],
        head: &FrameHead,
        payload: &[u8],
    ) -> Result<u32, AppendError> {
        let end = extent.len() - TRAILER_MAX;
        let room = extent
            .get_mut(self.used as usize..end)
            .ok_or(AppendError::NoRoom)?;
        if let Some(bytes) = frame::encode(room, self.seed, head, payload) {
            self.used += bytes as u32;
            return Ok(self.used);
        }
        self.append_unusual(extent, head, payload)
    }

    #[cold]
    fn append_unusual(
        &mut self,
        extent: &mut [u8],
        head: &FrameHead,
        payload: &[u8],
    ) -> Result<u32, AppendError> {
        self.append_pieces(
            &mut FrameRoom::new(),
            extent.len(),
            head,
            payload,
            |at, frame| {
                extent[at..at + frame.len()].copy_from_slice(frame);
            },
        )
    }

    /// [`Appender::append`] for an extent of `extent_bytes` that is written by `put`: frames, whole
    /// words long, are made in `room` and given with their offset.
    ///
    /// # Errors
    /// See [`AppendError`].
    #[inline]
    pub fn append_by(
        &mut self,
        room: &mut FrameRoom,
        extent_bytes: usize,
        head: &FrameHead,
        payload: &[u8],
        mut put: impl FnMut(usize, &[u8]),
    ) -> Result<u32, AppendError> {
        let end = extent_bytes - TRAILER_MAX;
        if let Some(bytes) = frame::encode(&mut room.0, self.seed, head, payload)
            && self.used as usize + bytes <= end
        {
            put(self.used as usize, &room.0[..bytes]);
            self.used += bytes as u32;
            return Ok(self.used);
        }
        self.append_pieces(room, extent_bytes, head, payload, put)
    }

    #[cold]
    fn append_pieces(
        &mut self,
        room: &mut FrameRoom,
        extent_bytes: usize,
        head: &FrameHead,
        payload: &[u8],
        mut put: impl FnMut(usize, &[u8]),
    ) -> Result<u32, AppendError> {
        let stored = frame::stored_bytes(payload.len());
        let end = extent_bytes - TRAILER_MAX;
        if stored > end - EXTENT_HEADER {
            return Err(AppendError::TooLong);
        }
        if self.used as usize + stored > end {
            return Err(AppendError::NoRoom);
        }
        for (index, (shape, piece)) in frame::pieces(payload).enumerate() {
            let head = FrameHead {
                flags: head.flags | shape,
                ..*head
            };
            let bytes = frame::encode_piece(&mut room.0, self.seed, &head, index as u8, piece)
                .ok_or(AppendError::NoRoom)?;
            put(self.used as usize, &room.0[..bytes]);
            self.used += bytes as u32;
        }
        Ok(self.used)
    }
}

/// Memory for one frame in the making.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub struct FrameRoom([u8; frame_bytes(PAYLOAD_MAX)]);

impl FrameRoom {
    /// Empty.
    #[must_use]
    pub const fn new() -> Self {
        Self([0; frame_bytes(PAYLOAD_MAX)])
    }
}

impl Default for FrameRoom {
    fn default() -> Self {
        Self::new()
    }
}

/// What the recorder adds when it seals.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seal<'a> {
    /// Bytes used, as last published by the worker.
    pub used: u32,
    /// The recording's extent before this one, both 0 = none.
    pub prev_segment: u32,
    /// See `prev_segment`.
    pub prev_page: u32,
    /// Frames that the disk refused since that one.
    pub dropped: u32,
    /// Flags to set beside [`extent_flags::SEALED`].
    pub flags: u8,
    /// The link of the recording's extent before this one ([`chain::START`] for the first): the
    /// extent is chained to it. `None` = not chained.
    pub previous_link: Option<Link>,
    /// The recording's key, and the random part of the extent's nonce: the frames are encrypted.
    pub encryption: Option<(&'a DataKey, u64)>,
}

impl Seal<'_> {
    /// Flags of the sealed extent.
    const fn all_flags(&self) -> u8 {
        let chained = if self.previous_link.is_some() {
            extent_flags::CHAINED
        } else {
            0
        };
        let encrypted = if self.encryption.is_some() {
            extent_flags::ENCRYPTED
        } else {
            0
        };
        self.flags | extent_flags::SEALED | chained | encrypted
    }

    /// Bytes of the sealed extent, whole units.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        (self.used as usize + trailer_bytes(self.all_flags())).next_multiple_of(UNIT)
    }
}

/// Seals an open extent in place and returns its header; it now is `header.bytes()` long:
/// only the units in use are to be written.
///
/// `None` when the extent has no open header, is shorter than [`Seal::bytes`], or `used` is not its
/// frames' end.
pub fn seal(extent: &mut [u8], seal: &Seal<'_>) -> Option<ExtentHeader> {
    let mut header = ExtentHeader::decode(extent)?;
    let used = seal.used as usize;
    if seal.bytes() > extent.len() || header.has(extent_flags::SEALED) {
        return None;
    }
    let mut frames = 0u32;
    let mut first_wall = None;
    let mut last_wall = 0;
    let mut at = EXTENT_HEADER;
    while at < used {
        let frame = frame::decode_unchecked(&extent[at..used]).ok()?;
        first_wall.get_or_insert(frame.head.wall_ns);
        last_wall = frame.head.wall_ns;
        frames += 1;
        at += frame.bytes;
    }
    let span_us = last_wall.saturating_sub(first_wall.unwrap_or(last_wall)) / 1000;
    header.units = (seal.bytes() / UNIT) as u8;
    header.flags = seal.all_flags();
    header.used = seal.used;
    header.prev_segment = seal.prev_segment;
    header.prev_page = seal.prev_page;
    header.frames = frames;
    header.span_us = u32::try_from(span_us).unwrap_or(u32::MAX);
    header.dropped = seal.dropped;
    extent[used..header.bytes()].fill(0);
    header.checksum = 0;
    let extent = &mut extent[..header.bytes()];
    if let Some((key, nonce)) = seal.encryption {
        header.nonce = nonce;
        key.encrypt(extent, &header);
    }
    extent[..EXTENT_HEADER].copy_from_slice(&header.encode());
    if let Some(previous) = &seal.previous_link {
        chain::relink(extent, &mut header, previous);
    } else {
        header.checksum = checksum(extent);
        extent[..EXTENT_HEADER].copy_from_slice(&header.encode());
    }
    Some(header)
}

/// The checksum that belongs into a sealed extent: crc32c of all its bytes but the checksum's own.
#[must_use]
pub fn checksum(extent: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&extent[..12]), &extent[16..])
}

/// Makes an extent that goes back to the pool unreadable, so that no later recovery takes it for new.
pub fn clear(extent: &mut [u8]) {
    if let Some(header) = extent.get_mut(..EXTENT_HEADER) {
        header.fill(0);
    }
}

/// Distinct packets of one stream in an extent, as a receipt counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamCount {
    /// Side.
    pub side: u8,
    /// m-line.
    pub media: u8,
    /// SSRC.
    pub ssrc: u32,
    /// Frames of kind rtp that are no duplicates.
    pub packets: u64,
    /// Duplicates among the frames.
    pub duplicates: u64,
    /// Their payload bytes, duplicates included.
    pub bytes: u64,
}

/// Counts the packets of an unsealed or sealed extent by stream.
pub fn count_streams(extent: &[u8], used: u32, counts: &mut Vec<StreamCount>) {
    for frame in walk(extent, used) {
        let head = frame.head;
        if head.kind != FrameKind::Rtp {
            continue;
        }
        let found = counts
            .iter()
            .position(|c| c.side == head.side && c.media == head.media && c.ssrc == head.ssrc);
        let index = found.unwrap_or_else(|| {
            counts.push(StreamCount {
                side: head.side,
                media: head.media,
                ssrc: head.ssrc,
                packets: 0,
                duplicates: 0,
                bytes: 0,
            });
            counts.len() - 1
        });
        let count = &mut counts[index];
        if head.flags & flags::EMPTY == 0 {
            count.bytes += frame.payload.len() as u64;
        }
        if head.flags & flags::CONTINUED != 0 {
            continue;
        }
        if head.flags & flags::DUPLICATE != 0 {
            count.duplicates += 1;
        } else {
            count.packets += 1;
        }
    }
}

/// The frames of an extent by their lengths alone, up to the first impossible one.
#[must_use]
pub fn walk(extent: &[u8], used: u32) -> Walk<'_> {
    let end = (used as usize).min(extent.len());
    Walk {
        bytes: &extent[..end],
        at: EXTENT_HEADER,
    }
}

/// See [`walk`].
#[derive(Debug, Clone)]
pub struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Walk<'a> {
    /// The next frame and where it starts in the extent.
    pub fn next_at(&mut self) -> Option<(usize, RawFrame<'a>)> {
        let at = self.at;
        let frame = frame::decode_unchecked(self.bytes.get(at..)?).ok()?;
        self.at += frame.bytes;
        Some((at, frame))
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = RawFrame<'a>;

    fn next(&mut self) -> Option<RawFrame<'a>> {
        self.next_at().map(|(_, frame)| frame)
    }
}

/// How far an unsealed extent's frames are good: the end of the last one before the first bad checksum.
#[must_use]
pub fn good_until(extent: &[u8], header: &ExtentHeader) -> u32 {
    let seed = frame::seed(header.recording, header.ordinal);
    let end = header.bytes().min(extent.len());
    let mut at = EXTENT_HEADER;
    while at < end {
        match frame::decode(&extent[at..end], seed) {
            Ok(frame) => at += frame.bytes,
            Err(FrameError::Cut | FrameError::Length | FrameError::Checksum) => break,
        }
    }
    at as u32
}

const _: () = assert!(frame_bytes(PAYLOAD_MAX) < UNIT);
const _: () =
    assert!(trailer_bytes(extent_flags::ENCRYPTED | extent_flags::CHAINED) == TRAILER_MAX);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::EXTENT_BYTES;

    fn head(seq: u16) -> FrameHead {
        FrameHead {
            kind: FrameKind::Rtp,
            side: 1,
            media: 2,
            ssrc: 0x0102_0304,
            pt: 111,
            marker: true,
            flags: flags::DECRYPTED,
            seq,
            seq_cycles: 9,
            rtp_ts: 0xfedc_ba98,
            wall_ns: 0x1234_5678_9abc_def0,
        }
    }

    #[test]
    fn frames_come_back_as_appended() {
        let mut extent = vec![0xaau8; EXTENT_BYTES];
        let mut appender = Appender::open(&mut extent, 77, 3, 5);
        let payloads: Vec<Vec<u8>> = [1usize, 7, 8, 160, 0, 4000, 4001]
            .iter()
            .map(|&length| (0..length).map(|i| i as u8).collect())
            .collect();
        for (index, payload) in payloads.iter().enumerate() {
            appender
                .append(&mut extent, &head(index as u16), payload)
                .expect("room");
        }
        let header = ExtentHeader::decode(&extent).expect("open header");
        assert_eq!(good_until(&extent, &header), appender.used());
        let frames: Vec<_> = walk(&extent, appender.used()).collect();
        assert_eq!(frames.len(), 8, "the longest took two");
        assert_eq!(frames[0].head, head(0));
        assert_eq!(frames[3].payload, &payloads[3][..]);
        assert_eq!(frames[0].classic[0], 1, "party audio has the side as dir");
        assert_eq!(frames[4].head.flags & flags::SHAPE, flags::EMPTY);
        assert!(frames[4].classic[0] >= 2 && frames[4].payload.len() == 1);
        assert_eq!(frames[6].head.flags & flags::SHAPE, flags::MORE);
        assert_eq!(frames[7].head.flags & flags::SHAPE, flags::CONTINUED);
        assert!(frames[6].classic[0] >= 2 && frames[7].classic[0] >= 2);
    }

    #[test]
    fn a_full_extent_refuses_and_stays_as_it_was() {
        let mut extent = vec![0u8; UNIT];
        let mut appender = Appender::open(&mut extent, 1, 0, 0);
        while appender.append(&mut extent, &head(0), &[5; 160]).is_ok() {}
        assert_eq!(appender.used() as usize, EXTENT_HEADER + 20 * 192);
        assert_eq!(
            appender.append(&mut extent, &head(0), &[5; 160]),
            Err(AppendError::NoRoom)
        );
        assert_eq!(
            appender.append(&mut extent, &head(0), &[5; 5000]),
            Err(AppendError::TooLong)
        );
        let header = ExtentHeader::decode(&extent).expect("header");
        assert_eq!(good_until(&extent, &header), appender.used());
    }

    #[test]
    fn old_frames_of_a_reused_extent_are_not_taken_for_new() {
        let mut extent = vec![0u8; EXTENT_BYTES];
        let mut old = Appender::open(&mut extent, 1, 0, 0);
        while old.append(&mut extent, &head(0), &[5; 160]).is_ok() {}
        let mut new = Appender::open(&mut extent, 1, 1, 0);
        new.append(&mut extent, &head(1), &[6; 160]).expect("room");
        let header = ExtentHeader::decode(&extent).expect("header");
        assert_eq!(good_until(&extent, &header), new.used());
    }

    #[test]
    fn sealing_keeps_only_units_in_use_and_binds_every_byte() {
        let mut extent = vec![0xffu8; EXTENT_BYTES];
        let mut appender = Appender::open(&mut extent, 9, 4, 1000);
        let mut used = 0;
        for seq in 0..30u16 {
            let head = FrameHead {
                wall_ns: u64::from(seq) * 20_000_000,
                ..head(seq)
            };
            used = appender
                .append(&mut extent, &head, &[3; 160])
                .expect("room");
        }
        let asked = Seal {
            used,
            prev_segment: 2,
            prev_page: 5,
            dropped: 7,
            flags: extent_flags::LAST,
            previous_link: Some([9; 32]),
            encryption: None,
        };
        let header = seal(&mut extent, &asked).expect("sealed");
        assert_eq!(
            (header.units, header.frames, header.span_us),
            (2, 30, 580_000)
        );
        assert_eq!(
            (header.prev_segment, header.prev_page, header.dropped),
            (2, 5, 7)
        );
        assert!(header.has(extent_flags::LAST | extent_flags::SEALED));
        assert_eq!(ExtentHeader::decode(&extent), Some(header));
        assert_eq!(checksum(&extent[..header.bytes()]), header.checksum);
        assert!(seal(&mut extent, &asked).is_none(), "only once");
    }

    #[test]
    fn streams_are_counted_as_receipts_count_them() {
        let mut extent = vec![0u8; EXTENT_BYTES];
        let mut appender = Appender::open(&mut extent, 9, 0, 0);
        let mut put = |head: FrameHead, length: usize| {
            appender
                .append(&mut extent, &head, &vec![1; length])
                .expect("room")
        };
        put(head(1), 160);
        put(head(2), 0);
        put(
            FrameHead {
                flags: flags::DUPLICATE,
                ..head(2)
            },
            10,
        );
        put(FrameHead { side: 0, ..head(2) }, 4100);
        let used = put(
            FrameHead {
                kind: FrameKind::Rtcp,
                ..head(0)
            },
            50,
        );
        let mut counts = Vec::new();
        count_streams(&extent, used, &mut counts);
        assert_eq!(counts.len(), 2);
        assert_eq!(
            (counts[0].packets, counts[0].duplicates, counts[0].bytes),
            (2, 1, 170)
        );
        assert_eq!((counts[1].packets, counts[1].bytes), (1, 4100));
    }
}
