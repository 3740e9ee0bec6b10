//! Checks a file byte by byte.

use std::collections::BTreeSet;
use std::path::Path;

use crate::capture::{Capture, CaptureError, CaptureFormat, Damage};
use crate::chain::{Follower, Step};
use crate::cipher::is_encrypted;
use crate::extent::extent_flags;
use crate::frame;
use crate::layout::{EXTENT_HEADER, UNIT};
use crate::map::Bytes;
use crate::reader::{ExtentView, Found, SegmentReader, directory_entries};
use crate::recover::link_of;
use crate::segment::DirectoryEntry;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyReport {
    /// Format of the file.
    pub format: CaptureFormat,
    /// Segment number; 0 for blobs.
    pub segment: u32,
    /// Extents, directories and erased ones included.
    pub extents: u64,
    /// Extents erased on request or marked as lost by a recovery: whole, but empty.
    pub erased: u64,
    /// Extents rescued from memory or cut back after a crash.
    pub recovered: u64,
    /// Extents that their recordings' hash chains lead to.
    pub chained: u64,
    /// Encrypted extents.
    pub encrypted: u64,
    /// Good frames.
    pub frames: u64,
    /// Recordings that have extents here.
    pub recordings: BTreeSet<u64>,
    /// The segment has its footer. False for one that is being written.
    pub finished: bool,
    /// Places that are not as they were written, by offset.
    pub damages: Vec<Damage>,
}

impl VerifyReport {
    /// Nothing is damaged.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.damages.is_empty()
    }
}

/// Checks a segment, an exported call or a classic blob.
///
/// # Errors
/// The file cannot be read, or is none of these.
pub fn verify(path: &Path) -> Result<VerifyReport, CaptureError> {
    let bytes = Bytes::open(path).map_err(|cause| CaptureError::Io {
        path: path.to_path_buf(),
        cause,
    })?;
    if SegmentReader::looks_like_segment(&bytes) {
        drop(bytes);
        return Ok(verify_segment(&SegmentReader::open(path)?));
    }
    verify_bytes(bytes, path)
}

/// The same of bytes; `path` is used in messages.
///
/// # Errors
/// The bytes are none of these.
pub fn verify_bytes(bytes: Bytes, path: &Path) -> Result<VerifyReport, CaptureError> {
    if SegmentReader::looks_like_segment(&bytes) {
        return Ok(verify_segment(&SegmentReader::over(bytes, path)?));
    }
    let capture = Capture::over_blob(bytes, path)?;
    Ok(VerifyReport {
        format: capture.format(),
        segment: 0,
        extents: 0,
        erased: 0,
        recovered: 0,
        chained: 0,
        encrypted: 0,
        frames: capture.frames().count() as u64,
        recordings: Some(capture.facts().recording)
            .filter(|&number| number != 0)
            .into_iter()
            .collect(),
        finished: true,
        damages: capture.damages().to_vec(),
    })
}

/// Checks an opened segment.
#[must_use]
pub fn verify_segment(segment: &SegmentReader) -> VerifyReport {
    let mut check = Check {
        segment,
        report: VerifyReport {
            format: CaptureFormat::Segment,
            segment: segment.number(),
            extents: 0,
            erased: 0,
            recovered: 0,
            chained: 0,
            encrypted: 0,
            frames: 0,
            recordings: BTreeSet::new(),
            finished: segment.footer().is_some(),
            damages: Vec::new(),
        },
        held: Vec::new(),
        listed: Vec::new(),
        chains: Follower::default(),
    };
    if segment.header().is_none() {
        check.damage(0, UNIT as u64, "segment header is damaged");
    }
    for found in segment.hop(true) {
        match &found {
            Found::Extent(view) => check.extent(view),
            Found::Damaged { .. } => check.report.damages.push(segment.damage_of(&found)),
        }
    }
    check.directories();
    check.ends();
    check.report.damages.sort_by_key(|damage| damage.offset);
    check.report
}

struct Check<'a> {
    segment: &'a SegmentReader,
    report: VerifyReport,
    held: Vec<DirectoryEntry>,
    listed: Vec<(u32, DirectoryEntry)>,
    chains: Follower,
}

impl Check<'_> {
    fn damage(&mut self, offset: u64, length: u64, what: impl Into<String>) {
        let path = self.segment.path().to_path_buf();
        self.report.damages.push(Damage {
            path,
            offset,
            length,
            what: what.into(),
        });
    }

    fn extent(&mut self, view: &ExtentView<'_>) {
        let header = view.header;
        self.report.extents += 1;
        if header.has(extent_flags::RECOVERED) {
            self.report.recovered += 1;
        }
        if header.recording != 0 {
            self.report.recordings.insert(header.recording);
        }
        if header.has(extent_flags::DIRECTORY) {
            let entries = directory_entries(view).map(|entry| (view.page, entry));
            self.listed.extend(entries);
        } else {
            self.held.push(DirectoryEntry::of(view.page, &header));
        }
        self.chain(view);
        if header.has(extent_flags::ERASED) {
            self.report.erased += 1;
            return;
        }
        if is_encrypted(&header) {
            // Its frames were counted before; checksum and chain cover every byte.
            self.report.encrypted += 1;
            self.report.frames += u64::from(header.frames);
            return;
        }
        let seed = frame::seed(header.recording, header.ordinal);
        let mut at = EXTENT_HEADER;
        let used = header.used as usize;
        while at < used {
            match frame::decode(&view.bytes[at..used], seed) {
                Ok(frame) => {
                    at += frame.bytes;
                    self.report.frames += 1;
                }
                Err(error) => {
                    let offset = u64::from(view.page) * UNIT as u64 + at as u64;
                    self.damage(offset, (used - at) as u64, error.to_string());
                    return;
                }
            }
        }
    }

    /// Its recording's hash chain has to lead to it; what lies in a segment beside is looked up there.
    fn chain(&mut self, view: &ExtentView<'_>) {
        let header = view.header;
        let beside = self.segment.path().parent();
        let before = || {
            let (segment, page) = (header.prev_segment, header.prev_page);
            if segment == self.segment.number() {
                return (page < view.page).then(|| self.segment.link_at(page))?;
            }
            link_of(beside?, segment, page)
        };
        match self.chains.step(view.bytes, &header, before) {
            Step::Follows => self.report.chained += 1,
            Step::NotKnown | Step::Outside => {}
            Step::Broken => {
                let offset = u64::from(view.page) * UNIT as u64;
                let (recording, ordinal) = (header.recording, header.ordinal);
                self.damage(
                    offset,
                    0,
                    format!(
                        "the hash chain of recording {recording} does not lead to its extent {ordinal}: \
                         that or the one before it was changed"
                    ),
                );
            }
        }
    }

    /// Directories have to agree with what is there; what was recovered or erased later may differ.
    fn directories(&mut self) {
        for (directory, entry) in std::mem::take(&mut self.listed) {
            let after = self.held.partition_point(|held| held.page <= entry.page);
            let found = after.checked_sub(1).map(|index| self.held[index]);
            let replaced = found.is_some_and(|held| {
                held.flags & (extent_flags::ERASED | extent_flags::RECOVERED) != 0
                    && entry.page < held.page + u32::from(held.units)
            });
            if found == Some(entry) || replaced {
                continue;
            }
            let offset = u64::from(entry.page) * UNIT as u64;
            let reported = self.report.damages.iter().any(|damage| {
                (offset..offset + u64::from(entry.units) * UNIT as u64).contains(&damage.offset)
            });
            if !reported {
                self.damage(
                    offset,
                    0,
                    format!(
                        "recording {}, extent {}, listed by the directory at byte {}, is not here",
                        entry.recording,
                        entry.ordinal,
                        u64::from(directory) * UNIT as u64
                    ),
                );
            }
        }
    }

    fn ends(&mut self) {
        let length = self.segment.length();
        let Some(footer) = self.segment.footer().copied() else {
            if !self.segment.is_live() {
                self.damage(
                    length,
                    0,
                    "the segment has no footer: it was cut or not finished",
                );
            }
            return;
        };
        let end = (u64::from(footer.page) + 1) * UNIT as u64;
        if length > end {
            self.damage(end, length - end, "bytes behind the footer");
        }
        let lost =
            |held: &&DirectoryEntry| held.recording == 0 && held.flags & extent_flags::ERASED != 0;
        let held = self.held.len() - self.held.iter().filter(lost).count();
        if self.report.damages.is_empty() && footer.extents as usize != held {
            self.damage(
                end - UNIT as u64,
                0,
                format!(
                    "the footer counts {} extents, there are {}",
                    footer.extents, held
                ),
            );
        }
    }
}
