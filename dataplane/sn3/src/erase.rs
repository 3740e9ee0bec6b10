//! Erases a recording: its frames are punched out of the segments, which stay readable for others.
//!
//! An erased extent keeps its header, flagged, so that a hole can be told from damage.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::fcntl::{FallocateFlags, fallocate};

use crate::extent::{ExtentHeader, extent_flags};
use crate::layout::{UNIT, VERSION};
use crate::reader::SegmentReader;
use crate::recover::erased_extent;
use crate::segment::{DirectoryEntry, list};

/// What erasing came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Erased {
    /// Extents erased now.
    pub extents: u32,
    /// Bytes given back.
    pub bytes: u64,
    /// Segments removed because nothing was left in them.
    pub segments_removed: u32,
}

/// Erases all extents of a recording from a directory of segments. May be repeated.
///
/// # Errors
/// Those of the disk; what was erased before stays erased.
pub fn erase_recording(directory: &Path, recording: u64) -> io::Result<Erased> {
    let mut erased = Erased::default();
    for (_, path) in list(directory)? {
        let Ok(reader) = SegmentReader::open(&path) else {
            continue;
        };
        let (entries, _) = reader.index();
        let own: Vec<_> = entries
            .iter()
            .filter(|entry| entry.recording == recording)
            .collect();
        if own.is_empty() {
            continue;
        }
        let file = OpenOptions::new().write(true).open(&path)?;
        for entry in own {
            erased.bytes += erase_extent(&file, &reader, entry)?;
            erased.extents += 1;
        }
        file.sync_data()?;
        let left = entries
            .iter()
            .any(|entry| entry.recording != recording && lives(&reader, entry));
        if !left && reader.footer().is_some() {
            std::fs::remove_file(&path)?;
            erased.segments_removed += 1;
        }
    }
    Ok(erased)
}

fn lives(reader: &SegmentReader, entry: &DirectoryEntry) -> bool {
    reader
        .extent_at(entry.page)
        .map_or(true, |view| !view.header.has(extent_flags::ERASED))
}

/// Replaces an extent by its flagged header and gives the rest of its blocks back.
fn erase_extent(file: &File, reader: &SegmentReader, entry: &DirectoryEntry) -> io::Result<u64> {
    let known = match reader.extent_at(entry.page) {
        Ok(view) => view.header,
        Err(_) => ExtentHeader {
            units: entry.units,
            version: VERSION,
            recording: entry.recording,
            ordinal: entry.ordinal,
            flags: entry.flags,
            ..ExtentHeader::default()
        },
    };
    let bytes = erased_extent(&known);
    let offset = u64::from(entry.page) * UNIT as u64;
    file.write_all_at(&bytes[..UNIT], offset)?;
    let rest = &bytes[UNIT..];
    if rest.is_empty() {
        return Ok(0);
    }
    let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let (from, length) = (offset as i64 + UNIT as i64, rest.len() as i64);
    if fallocate(file, punch, from, length).is_err() {
        file.write_all_at(rest, offset + UNIT as u64)?;
    }
    Ok(rest.len() as u64)
}
