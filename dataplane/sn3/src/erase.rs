//! Erases recordings: their frames are punched out of the segments, which stay readable for others.
//!
//! An erased extent keeps its header, flagged, so that a hole can be told from damage.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::fcntl::{FallocateFlags, fallocate};

use crate::capture::CaptureError;
use crate::extent::{ExtentHeader, extent_flags};
use crate::keys::erase_keys;
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

/// Erases all extents of these recordings from a directory of segments. May be repeated.
///
/// # Errors
/// A segment could not be read or written, so that extents may be left in it: the others were erased
/// all the same. The error names the first such segment and says how many there are.
pub fn erase_recordings(directory: &Path, recordings: &BTreeSet<u64>) -> io::Result<Erased> {
    // With its key gone, nothing of an encrypted recording can be read wherever a copy of it lies.
    erase_keys(directory, recordings)?;
    let mut erased = Erased::default();
    let mut failed: Option<(io::Error, usize)> = None;
    for (_, path) in list(directory)? {
        if let Err(error) = erase_in_segment(&path, recordings, &mut erased) {
            let named = io::Error::new(error.kind(), format!("{}: {error}", path.display()));
            let (first, count) = failed.take().unwrap_or((named, 0));
            failed = Some((first, count + 1));
        }
    }
    match failed {
        None => Ok(erased),
        Some((error, count)) => Err(io::Error::new(
            error.kind(),
            format!("{count} segments may still hold what is to be erased: {error}"),
        )),
    }
}

fn erase_in_segment(
    path: &Path,
    recordings: &BTreeSet<u64>,
    erased: &mut Erased,
) -> io::Result<()> {
    let reader = match SegmentReader::open(path) {
        Ok(reader) => reader,
        Err(error) => return judge_unreadable(path, error),
    };
    let (entries, _) = reader.index();
    let own: Vec<_> = entries
        .iter()
        .filter(|entry| recordings.contains(&entry.recording))
        .collect();
    if own.is_empty() {
        return Ok(());
    }
    let file = OpenOptions::new().write(true).open(path)?;
    for entry in own {
        erased.bytes += erase_extent(&file, &reader, entry)?;
        erased.extents += 1;
    }
    file.sync_data()?;
    let left = entries
        .iter()
        .any(|entry| !recordings.contains(&entry.recording) && lives(&reader, entry));
    if !left && reader.footer().is_some() {
        std::fs::remove_file(path)?;
        erased.segments_removed += 1;
    }
    Ok(())
}

/// A segment that is gone meanwhile, or that nothing has reached, holds nothing.
fn judge_unreadable(path: &Path, error: CaptureError) -> io::Result<()> {
    match error {
        CaptureError::Io { cause, .. } if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        CaptureError::Io { cause, .. } => Err(cause),
        _ if is_blank(path)? => Ok(()),
        other => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            other.to_string(),
        )),
    }
}

fn is_blank(path: &Path) -> io::Result<bool> {
    let mut file = BufReader::new(File::open(path)?);
    loop {
        let bytes = file.fill_buf()?;
        if bytes.is_empty() {
            return Ok(true);
        }
        if bytes.iter().any(|&byte| byte != 0) {
            return Ok(false);
        }
        let length = bytes.len();
        file.consume(length);
    }
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
