//! Copies one recording's extents, byte for byte, into a segment of its own.
//!
//! Links of the hash chain stay right, because no byte of an extent changes. Places of extents before
//! (`prev_segment`, `prev_page`) are those in the appliance, not in the copy; its header says so.

use std::io::{self, Write};

use crate::chain::{self, Follower, Link, Step};
use crate::extent::{ExtentHeader, extent_flags};
use crate::layout::{EXTENT_BYTES, UNIT};
use crate::reader::ExtentView;
use crate::recording::RecordingReader;
use crate::segment::{
    DirectoryEntry, SegmentFooter, SegmentHeader, directory_extent, directory_parts, segment_flags,
};
use crate::writer::count_in;

/// An extent of the copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extracted {
    /// Its ordinal in the recording.
    pub ordinal: u32,
    /// Where it starts in the copy.
    pub offset: u64,
    /// Its length.
    pub bytes: u64,
    /// Its link in the hash chain.
    pub link: Option<Link>,
}

/// Writes the copy.
///
/// # Errors
/// Those of `out`.
pub fn extract(recording: &RecordingReader, out: &mut impl Write) -> io::Result<Vec<Extracted>> {
    let first = recording
        .segments()
        .iter()
        .find_map(|segment| segment.header());
    let header = SegmentHeader {
        number: 0,
        flags: segment_flags::EXTRACT,
        ..first.copied().unwrap_or_default()
    };
    out.write_all(&header.encode())?;
    let mut page = 1;
    let mut footer = SegmentFooter {
        worker: header.worker,
        flags: header.flags,
        ..SegmentFooter::default()
    };
    let mut entries = Vec::new();
    let mut extracted = Vec::new();
    for view in recording.extents_in_order() {
        out.write_all(view.bytes)?;
        entries.push(DirectoryEntry::of(page, &view.header));
        count_in(&mut footer, &view.header);
        extracted.push(Extracted {
            ordinal: view.header.ordinal,
            offset: u64::from(page) * UNIT as u64,
            bytes: view.bytes.len() as u64,
            link: chain::stored(view.bytes, &view.header),
        });
        page += (view.bytes.len() / UNIT) as u32;
    }
    for (index, part) in directory_parts(&entries).enumerate() {
        let mut room = vec![0u8; EXTENT_BYTES];
        let previous = footer.directory_page;
        let listed: ExtentHeader =
            directory_extent(&mut room, part, 0, index as u32, previous, footer.last_ns);
        out.write_all(&room[..listed.bytes()])?;
        footer.directory_page = page;
        page += u32::from(listed.units);
    }
    footer.page = page;
    out.write_all(&footer.encode())?;
    Ok(extracted)
}

/// Follows a recording's whole hash chain: its head, and the extents that it does not lead to (never
/// chained, or changed). Erased extents and whatever follows them cannot be checked.
#[must_use]
pub fn follow(recording: &RecordingReader) -> (Option<Link>, Vec<ExtentView<'_>>) {
    let mut chain = Follower::default();
    let mut broken = Vec::new();
    let mut after_erased = false;
    for view in recording.extents_in_order() {
        let erased = view.header.has(extent_flags::ERASED);
        match chain.step(view.bytes, &view.header, || None) {
            Step::Follows => {}
            Step::NotKnown if after_erased => {}
            Step::Outside if erased => {}
            Step::NotKnown | Step::Outside | Step::Broken => broken.push(view),
        }
        after_erased = erased;
    }
    (chain.head(recording.recording()), broken)
}
