//! First and last unit of a segment file, its name, and the entries of its directory.

use std::path::{Path, PathBuf};

use crate::extent::{Appender, ExtentHeader, Seal, extent_flags, seal};
use crate::frame::{FrameHead, FrameKind};
use crate::layout::{
    EXTENT_BYTES, EXTENT_HEADER, FOOTER_MAGIC, PAYLOAD_MAX, SEGMENT_MAGIC, TRAILER_MAX, UNIT,
    VERSION, frame_bytes,
};
use crate::record::ClockTriple;

/// Flags of a segment.
pub mod segment_flags {
    /// Written by recovery from a dead process's memory.
    pub const RESCUED: u8 = 1;
    /// Footer written by recovery: what stood beyond it was lost with the process.
    pub const RECOVERED: u8 = 1 << 1;
    /// A copy of one recording's extents: their `prev_segment` and `prev_page` are places elsewhere.
    pub const EXTRACT: u8 = 1 << 2;
}

/// The first unit of a segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Number, unique in the appliance, from 1.
    pub number: u32,
    /// Worker whose series it belongs to.
    pub worker: u16,
    /// UTC ns at which the writing process started: tells runs apart.
    pub epoch: u64,
    /// Both clocks at the segment's start.
    pub clock: ClockTriple,
    /// 0 = not encrypted.
    pub cipher: u8,
    /// See [`segment_flags`].
    pub flags: u8,
    /// Master key that wraps data keys; zeros = none.
    pub key_id: [u8; 16],
}

impl SegmentHeader {
    /// The unit in the file.
    #[must_use]
    pub fn encode(&self) -> [u8; UNIT] {
        let mut unit = start_unit(SEGMENT_MAGIC, self.worker, self.number);
        unit[16..24].copy_from_slice(&self.epoch.to_le_bytes());
        unit[24..48].copy_from_slice(&self.clock.encode());
        unit[48] = self.cipher;
        unit[49] = UNIT.ilog2() as u8;
        unit[50] = self.flags;
        unit[56..72].copy_from_slice(&self.key_id);
        finish_unit(unit)
    }

    /// Reads the unit; `None` when anything in it is damaged or the version is not known.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let unit = checked_unit(bytes, SEGMENT_MAGIC)?;
        let clock = ClockTriple::decode(&unit[24..48])?;
        let mut key_id = [0u8; 16];
        key_id.copy_from_slice(&unit[56..72]);
        (unit[49] == UNIT.ilog2() as u8).then_some(Self {
            number: single(unit, 8),
            worker: single(unit, 6) as u16,
            epoch: double(unit, 16),
            clock,
            cipher: unit[48],
            flags: unit[50],
            key_id,
        })
    }
}

/// The last unit of a finished segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SegmentFooter {
    /// Segment number.
    pub number: u32,
    /// Worker.
    pub worker: u16,
    /// Page of the last directory extent; 0 = none.
    pub directory_page: u32,
    /// Page of this footer.
    pub page: u32,
    /// Extents, directories not counted.
    pub extents: u32,
    /// See [`segment_flags`].
    pub flags: u8,
    /// Their frames.
    pub frames: u64,
    /// Their used bytes.
    pub bytes: u64,
    /// CLOCK_MONOTONIC ns of the first and last extent's opening.
    pub first_ns: u64,
    /// See `first_ns`.
    pub last_ns: u64,
}

impl SegmentFooter {
    /// The unit in the file.
    #[must_use]
    pub fn encode(&self) -> [u8; UNIT] {
        let mut unit = start_unit(FOOTER_MAGIC, self.worker, self.number);
        unit[16..20].copy_from_slice(&self.directory_page.to_le_bytes());
        unit[20..24].copy_from_slice(&self.page.to_le_bytes());
        unit[24..28].copy_from_slice(&self.extents.to_le_bytes());
        unit[28] = self.flags;
        unit[32..40].copy_from_slice(&self.frames.to_le_bytes());
        unit[40..48].copy_from_slice(&self.bytes.to_le_bytes());
        unit[48..56].copy_from_slice(&self.first_ns.to_le_bytes());
        unit[56..64].copy_from_slice(&self.last_ns.to_le_bytes());
        finish_unit(unit)
    }

    /// Reads the unit; `None` when anything in it is damaged.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let unit = checked_unit(bytes, FOOTER_MAGIC)?;
        Some(Self {
            number: single(unit, 8),
            worker: single(unit, 6) as u16,
            directory_page: single(unit, 16),
            page: single(unit, 20),
            extents: single(unit, 24),
            flags: unit[28],
            frames: double(unit, 32),
            bytes: double(unit, 40),
            first_ns: double(unit, 48),
            last_ns: double(unit, 56),
        })
    }
}

/// One extent as a directory lists it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// Page where it starts.
    pub page: u32,
    /// Its checksum.
    pub checksum: u32,
    /// Recording.
    pub recording: u64,
    /// Ordinal.
    pub ordinal: u32,
    /// Length in units.
    pub units: u8,
    /// See [`extent_flags`].
    pub flags: u8,
}

impl DirectoryEntry {
    /// Bytes of an entry.
    pub const BYTES: usize = 24;

    /// The entry of an extent.
    #[must_use]
    pub const fn of(page: u32, header: &ExtentHeader) -> Self {
        Self {
            page,
            checksum: header.checksum,
            recording: header.recording,
            ordinal: header.ordinal,
            units: header.units,
            flags: header.flags,
        }
    }

    fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0u8; Self::BYTES];
        bytes[..4].copy_from_slice(&self.page.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.checksum.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.recording.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.ordinal.to_le_bytes());
        bytes[20] = self.units;
        bytes[21] = self.flags;
        bytes
    }

    /// The entries in a directory frame's payload.
    pub fn decode_all(payload: &[u8]) -> impl Iterator<Item = Self> + '_ {
        payload.chunks_exact(Self::BYTES).map(|bytes| Self {
            page: single(bytes, 0),
            checksum: single(bytes, 4),
            recording: double(bytes, 8),
            ordinal: single(bytes, 16),
            units: bytes[20],
            flags: bytes[21],
        })
    }
}

/// Entries in one directory frame, and in one directory extent.
const FRAME_ENTRIES: usize = PAYLOAD_MAX / DirectoryEntry::BYTES;
const EXTENT_ENTRIES: usize = FRAME_ENTRIES
    * ((EXTENT_BYTES - EXTENT_HEADER - TRAILER_MAX)
        / frame_bytes(FRAME_ENTRIES * DirectoryEntry::BYTES));

/// Splits entries into what one directory extent holds each.
pub(crate) fn directory_parts(
    entries: &[DirectoryEntry],
) -> impl Iterator<Item = &[DirectoryEntry]> {
    entries.chunks(EXTENT_ENTRIES)
}

/// Builds and seals one directory extent. `previous_page` is that of the directory before, 0 = none.
pub(crate) fn directory_extent(
    extent: &mut [u8],
    entries: &[DirectoryEntry],
    number: u32,
    ordinal: u32,
    previous_page: u32,
    now_ns: u64,
) -> ExtentHeader {
    let mut appender = Appender::open(extent, 0, ordinal, now_ns);
    let mut payload = [0u8; FRAME_ENTRIES * DirectoryEntry::BYTES];
    for part in entries.chunks(FRAME_ENTRIES) {
        for (target, entry) in payload.chunks_exact_mut(DirectoryEntry::BYTES).zip(part) {
            target.copy_from_slice(&entry.encode());
        }
        let bytes = &payload[..part.len() * DirectoryEntry::BYTES];
        appender
            .append(extent, &FrameHead::note(FrameKind::Directory, 0), bytes)
            .expect("a directory extent holds EXTENT_ENTRIES entries");
    }
    let prev_segment = if previous_page == 0 { 0 } else { number };
    let asked = Seal {
        used: appender.used(),
        prev_segment,
        prev_page: previous_page,
        flags: extent_flags::DIRECTORY,
        ..Seal::default()
    };
    seal(extent, &asked).expect("just opened and filled")
}

/// Name of a segment file.
#[must_use]
pub fn file_name(worker: u16, number: u32) -> String {
    format!("w{worker}-{number:08}.sn3s")
}

/// Worker and number in a segment's file name.
#[must_use]
pub fn parse_file_name(path: &Path) -> Option<(u16, u32)> {
    let name = path.file_name()?.to_str()?;
    let (worker, number) = name
        .strip_prefix('w')?
        .strip_suffix(".sn3s")?
        .split_once('-')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(worker) || !digits(number) || number.len() < 8 {
        return None;
    }
    Some((worker.parse().ok()?, number.parse().ok()?))
}

/// The segments of a directory, by number.
///
/// # Errors
/// Those of reading the directory.
pub fn list(directory: &Path) -> std::io::Result<Vec<(u32, PathBuf)>> {
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if let Some((_, number)) = parse_file_name(&path) {
            segments.push((number, path));
        }
    }
    segments.sort();
    Ok(segments)
}

fn start_unit(magic: [u8; 4], worker: u16, number: u32) -> [u8; UNIT] {
    let mut unit = [0u8; UNIT];
    unit[..4].copy_from_slice(&magic);
    unit[4..6].copy_from_slice(&VERSION.to_le_bytes());
    unit[6..8].copy_from_slice(&worker.to_le_bytes());
    unit[8..12].copy_from_slice(&number.to_le_bytes());
    unit
}

fn finish_unit(mut unit: [u8; UNIT]) -> [u8; UNIT] {
    let checksum = crate::extent::checksum(&unit);
    unit[12..16].copy_from_slice(&checksum.to_le_bytes());
    unit
}

fn checked_unit(bytes: &[u8], magic: [u8; 4]) -> Option<&[u8]> {
    let unit = bytes.get(..UNIT)?;
    let sound = unit[..4] == magic
        && unit[4..6] == VERSION.to_le_bytes()
        && crate::extent::checksum(unit) == single(unit, 12);
    sound.then_some(unit)
}

fn single(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn double(bytes: &[u8], at: usize) -> u64 {
    u64::from(single(bytes, at)) | u64::from(single(bytes, at + 4)) << 32
}

// The header carries its clock triple in bytes 24 to 48, before the cipher suite.
const _: () = assert!(24 + ClockTriple::BYTES == 48);
const _: () = assert!(FRAME_ENTRIES * DirectoryEntry::BYTES <= PAYLOAD_MAX);
const _: () = assert!(EXTENT_ENTRIES >= 600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_and_last_unit_survive_and_a_flipped_byte_does_not() {
        let header = SegmentHeader {
            number: 7,
            worker: 3,
            epoch: 99,
            clock: ClockTriple {
                mono_ns: 1,
                utc_ns: 2,
                sync: 1,
            },
            key_id: [9; 16],
            ..SegmentHeader::default()
        };
        let mut unit = header.encode();
        assert_eq!(SegmentHeader::decode(&unit), Some(header));
        let footer = SegmentFooter {
            number: 7,
            worker: 3,
            page: 12,
            frames: 1 << 40,
            ..Default::default()
        };
        assert_eq!(SegmentFooter::decode(&footer.encode()), Some(footer));
        for at in 0..UNIT {
            unit[at] ^= 1;
            assert_eq!(SegmentHeader::decode(&unit), None, "byte {at}");
            unit[at] ^= 1;
        }
    }

    #[test]
    fn names_are_read_back() {
        assert_eq!(file_name(2, 31), "w2-00000031.sn3s");
        assert_eq!(
            parse_file_name(Path::new("/a/w2-00000031.sn3s")),
            Some((2, 31))
        );
        assert_eq!(parse_file_name(Path::new("w2-0000003x.sn3s")), None);
        assert_eq!(parse_file_name(Path::new("w-00000031.sn3s")), None);
        assert_eq!(parse_file_name(Path::new("w2-00000031.sn3s.tmp")), None);
    }
}
