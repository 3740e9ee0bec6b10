//! Reads a segment file: by directory, or by hopping from extent to extent and stepping over damage.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::capture::{CaptureError, Damage};
use crate::chain::{self, Link};
use crate::extent::{ExtentHeader, checksum, extent_flags, walk};
use crate::frame::{self, FrameKind, RawFrame};
use crate::layout::{EXTENT_BYTES, EXTENT_HEADER, EXTENT_MAGIC, FRAME_ALIGN, SEGMENT_MAGIC, UNIT};
use crate::map::Bytes;
use crate::segment::{DirectoryEntry, SegmentFooter, SegmentHeader, parse_file_name};

/// An opened segment.
#[derive(Debug)]
pub struct SegmentReader {
    path: PathBuf,
    bytes: Bytes,
    header: Option<SegmentHeader>,
    footer: Option<SegmentFooter>,
    live: bool,
}

/// An extent in place.
#[derive(Debug, Clone, Copy)]
pub struct ExtentView<'a> {
    /// Page where it starts.
    pub page: u32,
    /// Its header.
    pub header: ExtentHeader,
    /// Its bytes as far as the file has them.
    pub bytes: &'a [u8],
}

impl<'a> ExtentView<'a> {
    /// Header, frames and the zeros behind them, without the trailer.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        &self.bytes[..self.header.body_end().min(self.bytes.len())]
    }
}

/// What hopping finds.
#[derive(Debug, Clone)]
pub enum Found<'a> {
    /// An extent whose checksum is right (or was not asked for).
    Extent(ExtentView<'a>),
    /// Bytes that are no whole extent.
    Damaged {
        /// First byte.
        offset: u64,
        /// Bytes up to the next extent or the end.
        length: u64,
        /// The extent that starts there, when its header can be read.
        extent: Option<ExtentView<'a>>,
        /// What is wrong.
        what: &'static str,
    },
}

impl Found<'_> {
    /// Where it starts in the file.
    #[must_use]
    pub fn offset(&self) -> u64 {
        match self {
            Self::Extent(view) => u64::from(view.page) * UNIT as u64,
            Self::Damaged { offset, .. } => *offset,
        }
    }
}

impl SegmentReader {
    /// Opens a segment.
    ///
    /// # Errors
    /// I/O, or [`CaptureError::NotACapture`] when it does not start as a segment does.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        Self::open_as(path, false)
    }

    /// Opens a segment to read a few extents of it: [`Self::whole_extent`] reads no more than these.
    ///
    /// # Errors
    /// Those of [`Self::open`].
    pub fn open_sparsely(path: &Path) -> Result<Self, CaptureError> {
        Self::open_as(path, true)
    }

    fn open_as(path: &Path, sparsely: bool) -> Result<Self, CaptureError> {
        let io = |cause| CaptureError::Io {
            path: path.to_path_buf(),
            cause,
        };
        if !std::fs::metadata(path).map_err(io)?.is_file() {
            // Its neighbours and its lock could not be looked at.
            let why = "a segment has to be a file";
            return Err(io(std::io::Error::new(
                std::io::ErrorKind::InvalidInput,
                why,
            )));
        }
        let bytes = Bytes::open(path).map_err(io)?;
        if sparsely {
            bytes.read_sparsely();
        }
        let mut reader = Self::over(bytes, path)?;
        reader.live = reader.footer.is_none() && is_locked(path);
        Ok(reader)
    }

    /// Reads a segment from memory; `path` is used in messages.
    ///
    /// # Errors
    /// [`CaptureError::NotACapture`] when it does not start as a segment does.
    pub fn over(bytes: Bytes, path: &Path) -> Result<Self, CaptureError> {
        let unit = |page: usize| {
            let end = bytes.len().min((page + 1) * UNIT);
            bytes.readable(page * UNIT..end).unwrap_or(&[])
        };
        let header = SegmentHeader::decode(unit(0));
        if !unit(0).starts_with(&SEGMENT_MAGIC) && !unit(1).starts_with(&EXTENT_MAGIC) {
            return Err(CaptureError::NotACapture {
                path: path.to_path_buf(),
            });
        }
        let last = (bytes.len() / UNIT).checked_sub(1);
        let footer = last.and_then(|page| {
            SegmentFooter::decode(unit(page)).filter(|footer| footer.page as usize == page)
        });
        Ok(Self {
            path: path.to_path_buf(),
            bytes,
            header,
            footer,
            live: false,
        })
    }

    /// By the first bytes, or by the first extent where these are damaged.
    #[must_use]
    pub fn looks_like_segment(bytes: &[u8]) -> bool {
        bytes.starts_with(&SEGMENT_MAGIC)
            || bytes
                .get(UNIT..UNIT + 4)
                .is_some_and(|magic| magic == EXTENT_MAGIC)
    }

    /// Where it was opened from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its number: the header's, else the file name's, else 0.
    #[must_use]
    pub fn number(&self) -> u32 {
        let named = || parse_file_name(&self.path).map(|(_, number)| number);
        let closed = || self.footer.map(|footer| footer.number);
        self.header
            .map(|header| header.number)
            .or_else(closed)
            .or_else(named)
            .unwrap_or(0)
    }

    /// Its first unit, unless damaged.
    #[must_use]
    pub const fn header(&self) -> Option<&SegmentHeader> {
        self.header.as_ref()
    }

    /// Its last unit, if it was finished.
    #[must_use]
    pub const fn footer(&self) -> Option<&SegmentFooter> {
        self.footer.as_ref()
    }

    /// A process holds it open for writing.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        self.live
    }

    /// Bytes of the file.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Bytes from a page on, as far as the file has them.
    pub(crate) fn raw(&self, page: u32, length: usize) -> &[u8] {
        let at = (page as usize * UNIT).min(self.end());
        let end = (at + length).min(self.end());
        self.bytes.readable(at..end).unwrap_or(&[])
    }

    /// End of the extents: the footer or the file's end.
    fn end(&self) -> usize {
        self.footer
            .map_or(self.bytes.len(), |footer| footer.page as usize * UNIT)
    }

    /// The extent that starts at `page`, whole; `Err` holds what could be read of it.
    ///
    /// # Errors
    /// What is wrong, with the extent where its header can be read.
    pub fn extent_at(
        &self,
        page: u32,
    ) -> Result<ExtentView<'_>, (&'static str, Option<ExtentView<'_>>)> {
        let view = self.view_at(page as usize * UNIT)?;
        if is_whole(&view) {
            Ok(view)
        } else {
            Err(("extent checksum differs", Some(view)))
        }
    }

    /// [`Self::extent_at`], asked of the disk in one piece.
    ///
    /// # Errors
    /// Those of [`Self::extent_at`].
    pub fn whole_extent(
        &self,
        page: u32,
    ) -> Result<ExtentView<'_>, (&'static str, Option<ExtentView<'_>>)> {
        let at = page as usize * UNIT;
        self.bytes.will_read(at..at + EXTENT_BYTES);
        self.extent_at(page)
    }

    /// Reads all of it in order, ahead of those who look at it.
    pub(crate) fn read_ahead(&self) {
        self.bytes.read_ahead();
    }

    /// Whether there is nothing but zeros from an offset on.
    fn is_blank_from(&self, at: usize) -> bool {
        const STEP: usize = 1 << 20;
        (at..self.end()).step_by(STEP).all(|from| {
            let bytes = self.bytes.readable(from..(from + STEP).min(self.end()));
            bytes.is_some_and(|bytes| bytes.iter().all(|&byte| byte == 0))
        })
    }

    /// The hash chain's link of the whole extent at `page`; `None` when there is none.
    #[must_use]
    pub fn link_at(&self, page: u32) -> Option<Link> {
        let view = self.extent_at(page).ok()?;
        chain::stored(view.bytes, &view.header)
    }

    /// The extent at a byte offset by its header alone.
    fn view_at(&self, at: usize) -> Result<ExtentView<'_>, (&'static str, Option<ExtentView<'_>>)> {
        let page = (at / UNIT) as u32;
        let bytes = self.bytes.get(at..self.end()).unwrap_or(&[]);
        let read = |length: usize| self.bytes.readable(at..at + length.min(bytes.len()));
        let unreadable = ("the disk cannot read it", None);
        let first = match bytes.is_empty() {
            true => bytes,
            false => read(UNIT).ok_or(unreadable)?,
        };
        let Some(header) = ExtentHeader::decode(first) else {
            return Err((
                if bytes.len() < UNIT {
                    "extent is cut"
                } else {
                    "no extent header"
                },
                None,
            ));
        };
        let bytes = read(header.bytes()).ok_or(unreadable)?;
        let Some(whole) = bytes.get(..header.bytes()) else {
            return Err((
                "extent is cut",
                Some(ExtentView {
                    page,
                    header,
                    bytes,
                }),
            ));
        };
        let view = ExtentView {
            page,
            header,
            bytes: whole,
        };
        if header.has(extent_flags::SEALED) || header.has(extent_flags::ERASED) {
            Ok(view)
        } else {
            Err(("extent is not sealed", Some(view)))
        }
    }

    /// Whether an extent, whole or damaged, starts behind a damaged place.
    fn goes_on_at(&self, at: usize) -> bool {
        match self.view_at(at) {
            Ok(view) => is_whole(&view) || has_good_frame(&view),
            Err((_, view)) => view.is_some_and(|view| has_good_frame(&view)),
        }
    }

    /// Hops from extent to extent. `deep`: checksums are looked at; else headers are believed, and
    /// only what follows damage is checked.
    pub fn hop(&self, deep: bool) -> Hop<'_> {
        Hop {
            reader: self,
            at: UNIT,
            deep,
        }
    }

    /// Lists the extents (directories left out), with the damage met on the way.
    ///
    /// A finished segment is listed from its directory; else, or where that is damaged, by hopping.
    #[must_use]
    pub fn index(&self) -> (Vec<DirectoryEntry>, Vec<Damage>) {
        if let Some(entries) = self.read_directories() {
            return (entries, Vec::new());
        }
        let (entries, damages) = self.index_by_hopping(false);
        // A damaged header can lead astray: then every checksum is looked at.
        if damages.is_empty() {
            (entries, damages)
        } else {
            self.index_by_hopping(true)
        }
    }

    fn index_by_hopping(&self, deep: bool) -> (Vec<DirectoryEntry>, Vec<Damage>) {
        let mut entries = Vec::new();
        let mut listed = Vec::new();
        let mut damages = Vec::new();
        for found in self.hop(deep) {
            match found {
                Found::Extent(view) if view.header.has(extent_flags::DIRECTORY) => {
                    if is_whole(&view) {
                        listed.extend(directory_entries(&view));
                    }
                }
                Found::Extent(view) => entries.push(DirectoryEntry::of(view.page, &view.header)),
                Found::Damaged {
                    extent: Some(view), ..
                } if has_good_frame(&view) => {
                    entries.push(DirectoryEntry::of(view.page, &view.header));
                }
                Found::Damaged { .. } => damages.push(self.damage_of(&found)),
            }
        }
        // What a directory lists and hopping did not find is damaged, yet known by name.
        listed.retain(|entry: &DirectoryEntry| {
            let after = entries.partition_point(|found| found.page <= entry.page);
            let before = after.checked_sub(1).map(|index| entries[index]);
            before.is_none_or(|found| found.page + u32::from(found.units) <= entry.page)
        });
        entries.extend(listed);
        entries.sort_by_key(|entry| entry.page);
        entries.dedup_by_key(|entry| entry.page);
        (entries, damages)
    }

    /// The recordings that have extents here, in ascending order; the worker's own log is none.
    #[must_use]
    pub fn recordings(&self) -> Vec<u64> {
        let (entries, _) = self.index();
        let mut numbers: Vec<_> = entries
            .iter()
            .map(|entry| entry.recording)
            .filter(|&number| number != 0)
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    /// All entries by the chain of directories from the footer; `None` unless complete and intact.
    fn read_directories(&self) -> Option<Vec<DirectoryEntry>> {
        let footer = self.footer?;
        let mut parts = Vec::new();
        let mut page = footer.directory_page;
        while page != 0 {
            let view = self.extent_at(page).ok()?;
            if !view.header.has(extent_flags::DIRECTORY) || view.header.prev_page >= page {
                return None;
            }
            parts.push(directory_entries(&view).collect::<Vec<_>>());
            page = view.header.prev_page;
        }
        let entries: Vec<_> = parts.into_iter().rev().flatten().collect();
        (entries.len() == footer.extents as usize).then_some(entries)
    }

    /// A damaged place in words, its offset that of the first bad frame where that can be told.
    #[must_use]
    pub fn damage_of(&self, found: &Found<'_>) -> Damage {
        let Found::Damaged {
            offset,
            length,
            extent,
            what,
        } = found
        else {
            return Damage {
                path: self.path.clone(),
                offset: 0,
                length: 0,
                what: String::new(),
            };
        };
        let mut damage = Damage {
            path: self.path.clone(),
            offset: *offset,
            length: *length,
            what: (*what).to_owned(),
        };
        let Some(view) = extent else { return damage };
        let (recording, ordinal) = (view.header.recording, view.header.ordinal);
        let mut good = 0;
        let mut bad = None;
        for item in Salvage::new(view.body(), recording, ordinal) {
            match item {
                Ok(_) => good += 1,
                Err(stretch) => {
                    bad.get_or_insert(stretch);
                }
            }
        }
        match (good, bad) {
            // Not one frame belongs to the header: it cannot be believed.
            (0, _) if view.header.used as usize > EXTENT_HEADER => return damage,
            (_, Some(bad)) => {
                damage.offset = offset + bad.at as u64;
                damage.length = bad.length as u64;
                damage.what = format!("{what}: damaged frame in the extent at byte {offset}");
            }
            (_, None) => {
                damage.length = 0;
                damage.what = format!("{what}: damaged outside its frames");
            }
        }
        damage.what += &format!(" (recording {recording}, extent {ordinal})");
        damage
    }
}

/// See [`SegmentReader::hop`].
#[derive(Debug)]
pub struct Hop<'a> {
    reader: &'a SegmentReader,
    at: usize,
    deep: bool,
}

impl<'a> Hop<'a> {
    /// Steps from a damaged place to the next whole extent.
    fn step(&mut self, what: &'static str, extent: Option<ExtentView<'a>>) -> Option<Found<'a>> {
        let from = self.at;
        let end = self.reader.end();
        self.at = from + UNIT;
        while self.at < end && !self.reader.goes_on_at(self.at) {
            self.at += UNIT;
        }
        self.at = self.at.min(end);
        if self.at == end && self.reader.live {
            // The tail of a segment in the making may be half written.
            return None;
        }
        Some(Found::Damaged {
            offset: from as u64,
            length: (self.at - from) as u64,
            extent,
            what,
        })
    }
}

impl<'a> Iterator for Hop<'a> {
    type Item = Found<'a>;

    fn next(&mut self) -> Option<Found<'a>> {
        let end = self.reader.end();
        if self.at >= end {
            return None;
        }
        match self.reader.view_at(self.at) {
            Ok(view) if !self.deep || is_whole(&view) => {
                self.at += view.header.bytes();
                Some(Found::Extent(view))
            }
            Ok(view) => self.step("extent checksum differs", Some(view)),
            Err((what, extent)) => {
                if self.reader.footer.is_none() && self.reader.is_blank_from(self.at) {
                    self.at = end;
                    return None;
                }
                self.step(what, extent)
            }
        }
    }
}

/// Entries that a directory extent lists.
pub(crate) fn directory_entries<'a>(
    view: &ExtentView<'a>,
) -> impl Iterator<Item = DirectoryEntry> + use<'a> {
    walk(view.bytes, view.header.used)
        .filter(|frame| frame.head.kind == FrameKind::Directory)
        .flat_map(|frame| DirectoryEntry::decode_all(frame.payload))
}

/// Whether an extent's checksum is right, and nothing is left in an erased one.
#[must_use]
pub fn is_whole(view: &ExtentView<'_>) -> bool {
    if view.bytes.len() < view.header.bytes() {
        return false;
    }
    if view.header.has(extent_flags::ERASED) {
        return checksum(&view.bytes[..EXTENT_HEADER]) == view.header.checksum
            && view.bytes[EXTENT_HEADER..].iter().all(|&byte| byte == 0);
    }
    checksum(view.bytes) == view.header.checksum
}

/// Whether the header of a damaged extent can be believed: a frame is bound to its recording and ordinal.
fn has_good_frame(view: &ExtentView<'_>) -> bool {
    !view.header.has(extent_flags::DIRECTORY)
        && Salvage::new(view.body(), view.header.recording, view.header.ordinal)
            .any(|item| item.is_ok())
}

/// A stretch of a damaged extent that holds no good frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadStretch {
    /// First byte, from the extent's start.
    pub at: usize,
    /// Bytes.
    pub length: usize,
}

/// The good frames of a damaged extent, and the stretches between them.
#[derive(Debug)]
pub struct Salvage<'a> {
    bytes: &'a [u8],
    seed: u32,
    at: usize,
}

impl<'a> Salvage<'a> {
    /// Over what is left of an extent of this recording and ordinal.
    #[must_use]
    pub fn new(extent: &'a [u8], recording: u64, ordinal: u32) -> Self {
        Self {
            bytes: extent,
            seed: frame::seed(recording, ordinal),
            at: EXTENT_HEADER,
        }
    }
}

impl<'a> Iterator for Salvage<'a> {
    type Item = Result<(usize, RawFrame<'a>), BadStretch>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.bytes.get(self.at..)?;
        // Nothing but zeros: the padding behind the last frame.
        let used = rest.iter().rposition(|&byte| byte != 0)? + 1;
        let from = self.at;
        while self.at < from + used {
            if let Ok(frame) = frame::decode(&self.bytes[self.at..], self.seed) {
                if self.at > from {
                    return Some(Err(BadStretch {
                        at: from,
                        length: self.at - from,
                    }));
                }
                self.at += frame.bytes;
                return Some(Ok((from, frame)));
            }
            self.at += FRAME_ALIGN;
        }
        self.at = self.bytes.len();
        Some(Err(BadStretch {
            at: from,
            length: used,
        }))
    }
}

fn is_locked(path: &Path) -> bool {
    let Ok(file) = File::open(path) else {
        return false;
    };
    matches!(
        file.try_lock_shared(),
        Err(std::fs::TryLockError::WouldBlock)
    )
}
