//! Gathers one recording's extents over segments and iterates over their frames.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use crate::assemble::Pieces;
use crate::capture::{CaptureError, Damage};
use crate::chain::Link;
use crate::cipher::{self, DataKey};
use crate::extent::{ExtentHeader, Walk, extent_flags, walk};
use crate::frame::{self, Frame, FrameKind, RawFrame};
use crate::keys::Keys;
use crate::layout::UNIT;
use crate::reader::{ExtentView, Salvage, SegmentReader};
use crate::record::DropRecord;
use crate::segment::{self, segment_flags};

/// One extent of the recording.
#[derive(Debug, Clone, Copy)]
struct Part {
    segment: usize,
    page: u32,
    header: ExtentHeader,
    whole: bool,
}

/// One recording, ready to be read.
#[derive(Debug)]
pub struct RecordingReader {
    recording: u64,
    segments: Vec<SegmentReader>,
    parts: Vec<Part>,
    damages: Vec<Damage>,
    /// Of an encrypted recording.
    key: Option<DataKey>,
}

impl RecordingReader {
    /// From a directory of segments. `last` is the recording's last (segment, page): its extents are
    /// then read by following the chain backwards, and no other's.
    ///
    /// # Errors
    /// I/O, or no extent of the recording there.
    pub fn in_directory(
        directory: &Path,
        recording: u64,
        last: Option<(u32, u32)>,
        keys: &Keys,
    ) -> Result<Self, CaptureError> {
        let io = |cause| CaptureError::Io {
            path: directory.to_path_buf(),
            cause,
        };
        let listed = segment::list(directory).map_err(io)?;
        Self::in_segments(&listed, directory, recording, last, keys)
    }

    /// The same from a directory that was listed before.
    pub(crate) fn in_segments(
        listed: &[(u32, PathBuf)],
        directory: &Path,
        recording: u64,
        last: Option<(u32, u32)>,
        keys: &Keys,
    ) -> Result<Self, CaptureError> {
        let key = keys.find(directory, recording);
        let key = key.map_err(|cause| CaptureError::Io {
            path: directory.to_path_buf(),
            cause,
        })?;
        if let Some(last) = last
            && let Some(mut reader) = Self::by_chain(listed, recording, last)
        {
            reader.key = key;
            return reader.readable(directory);
        }
        let mut reader = Self::empty(recording);
        reader.key = key;
        for (_, path) in listed {
            // A segment that cannot be opened at all is no reason to lose the others.
            match SegmentReader::open(path) {
                Ok(segment) => reader.add(segment),
                Err(error) => reader.damages.push(Damage {
                    path: path.clone(),
                    offset: 0,
                    length: 0,
                    what: error.to_string(),
                }),
            }
        }
        reader.finish(directory)
    }

    /// From a segment file, with the recording's parts in the segments beside it.
    ///
    /// # Errors
    /// I/O, or no extent of the recording there.
    pub fn in_file(path: &Path, recording: u64, keys: &Keys) -> Result<Self, CaptureError> {
        let mut reader = Self::empty(recording);
        let beside = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let found = keys.find(beside.unwrap_or(Path::new(".")), recording);
        reader.key = found.map_err(|cause| CaptureError::Io {
            path: path.to_path_buf(),
            cause,
        })?;
        reader.add(SegmentReader::open(path)?);
        let complete = reader.parts.iter().all(|part| {
            part.header.prev_segment == 0 || {
                part.header.prev_segment == reader.segments[part.segment].number()
            }
        }) && reader
            .parts
            .iter()
            .any(|part| part.header.has(extent_flags::LAST));
        if !complete
            && segment::parse_file_name(path).is_some()
            && let Some(directory) = path.parent()
        {
            let own = path.file_name();
            for (_, beside) in segment::list(directory).unwrap_or_default() {
                if beside.file_name() != own
                    && let Ok(segment) = SegmentReader::open(&beside)
                {
                    reader.add_beside(segment);
                }
            }
        }
        reader.finish(path)
    }

    /// From one opened segment alone.
    ///
    /// # Errors
    /// No extent of the recording there.
    pub fn in_segment(
        segment: SegmentReader,
        recording: u64,
        keys: &Keys,
    ) -> Result<Self, CaptureError> {
        let path = segment.path().to_path_buf();
        let mut reader = Self::empty(recording);
        reader.key = keys.given();
        reader.add(segment);
        reader.finish(&path)
    }

    /// The same without a key, to look at extents and never at frames.
    pub(crate) fn sealed(segment: SegmentReader, recording: u64) -> Self {
        let mut reader = Self::empty(recording);
        reader.add(segment);
        reader.order();
        reader
    }

    fn empty(recording: u64) -> Self {
        Self {
            recording,
            segments: Vec::new(),
            parts: Vec::new(),
            damages: Vec::new(),
            key: None,
        }
    }

    fn by_chain(listed: &[(u32, PathBuf)], recording: u64, last: (u32, u32)) -> Option<Self> {
        let mut reader = Self::empty(recording);
        let (mut number, mut page) = last;
        while number != 0 {
            let known = reader
                .segments
                .iter()
                .position(|segment| segment.number() == number);
            let index = match known {
                Some(index) => index,
                None => {
                    let (_, path) = listed.iter().find(|(listed, _)| *listed == number)?;
                    reader
                        .segments
                        .push(SegmentReader::open_sparsely(path).ok()?);
                    reader.segments.len() - 1
                }
            };
            let header = reader.segments[index].whole_extent(page).ok()?.header;
            let descends = reader
                .parts
                .last()
                .is_none_or(|part| header.ordinal < part.header.ordinal);
            if header.recording != recording || !descends {
                return None;
            }
            reader.parts.push(Part {
                segment: index,
                page,
                header,
                whole: true,
            });
            (number, page) = (header.prev_segment, header.prev_page);
        }
        reader.parts.reverse();
        if reader.parts.first()?.header.ordinal != 0 {
            // The chain was broken when the recording went on: what is before it has to be looked for.
            return None;
        }
        if !reader.is_ended() {
            // Behind the last one known there may be more: rescued from memory, or still being written.
            reader.add_behind(listed, last.0);
        }
        reader.parts.sort_by_key(|part| part.header.ordinal);
        reader.parts.dedup_by_key(|part| part.header.ordinal);
        Some(reader)
    }

    /// Adds what segments from `first` on hold behind the chain's end.
    fn add_behind(&mut self, listed: &[(u32, PathBuf)], first: u32) {
        let last = self.parts.last().map(|part| part.header.ordinal);
        for (_, path) in listed.iter().filter(|(number, _)| *number >= first) {
            let Ok(segment) = SegmentReader::open(path) else {
                continue;
            };
            let (parts, damages) = (self.parts.len(), self.damages.len());
            self.add(segment);
            // Damage here is told by the one who reads the segment for its own sake.
            self.damages.truncate(damages);
            let mut index = parts;
            while index < self.parts.len() {
                if self.parts[index].whole && Some(self.parts[index].header.ordinal) > last {
                    index += 1;
                } else {
                    self.parts.remove(index);
                }
            }
        }
    }

    /// Adds a segment's extents of the recording and the damage whose owner is not known to be another.
    fn add(&mut self, segment: SegmentReader) {
        let before = self.parts.len();
        let (entries, damages) = segment.index();
        let index = self.segments.len();
        for entry in entries
            .iter()
            .filter(|entry| entry.recording == self.recording)
        {
            if entry.flags & extent_flags::DIRECTORY != 0 {
                continue;
            }
            match segment.extent_at(entry.page) {
                Ok(view) if view.header.recording == self.recording => {
                    let header = view.header;
                    self.parts.push(Part {
                        segment: index,
                        page: entry.page,
                        header,
                        whole: true,
                    });
                }
                Ok(_) | Err(_) => {
                    let mut header = ExtentHeader {
                        units: entry.units,
                        recording: entry.recording,
                        ordinal: entry.ordinal,
                        flags: entry.flags,
                        ..ExtentHeader::default()
                    };
                    if let Err((_, Some(view))) = segment.extent_at(entry.page)
                        && view.header.recording == self.recording
                        && view.header.ordinal == entry.ordinal
                    {
                        header = view.header;
                    }
                    self.parts.push(Part {
                        segment: index,
                        page: entry.page,
                        header,
                        whole: false,
                    });
                }
            }
        }
        self.damages.extend(damages.into_iter().filter(|damage| {
            let page = (damage.offset / UNIT as u64) as u32;
            let covers = |e: &&segment::DirectoryEntry| {
                (e.page..e.page + u32::from(e.units)).contains(&page)
            };
            // The owner, where a directory knows it, reports the place itself.
            !entries.iter().any(|entry| covers(&entry))
        }));
        if segment.header().is_none() && self.parts.len() > before {
            self.damages.push(Damage {
                path: segment.path().to_path_buf(),
                offset: 0,
                length: UNIT as u64,
                what: "segment header is damaged".to_owned(),
            });
        }
        self.segments.push(segment);
    }

    /// Adds a neighbour; its damage counts only where it holds parts of the recording.
    fn add_beside(&mut self, segment: SegmentReader) {
        let (parts, damages) = (self.parts.len(), self.damages.len());
        self.add(segment);
        if self.parts.len() == parts {
            self.damages.truncate(damages);
            self.segments.pop();
        }
    }

    fn finish(mut self, path: &Path) -> Result<Self, CaptureError> {
        if self.parts.is_empty() {
            return Err(CaptureError::NoSuchRecording {
                path: path.to_path_buf(),
                recording: self.recording,
            });
        }
        self.order();
        let mut this = self.readable(path)?;
        this.report_gaps();
        this.report_bad_parts();
        this.report_open_end();
        this.damages
            .sort_by(|a, b| (&a.path, a.offset).cmp(&(&b.path, b.offset)));
        Ok(this)
    }

    /// Refuses what is encrypted and cannot be decrypted: no extent without its key.
    fn readable(self, path: &Path) -> Result<Self, CaptureError> {
        if self.key.is_none() && self.is_encrypted() {
            return Err(CaptureError::NoKey {
                path: path.to_path_buf(),
                recording: self.recording,
            });
        }
        Ok(self)
    }

    /// Whether any of its extents is encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.parts
            .iter()
            .any(|part| cipher::is_encrypted(&part.header))
    }

    /// The key of an encrypted recording.
    #[must_use]
    pub const fn data_key(&self) -> Option<&DataKey> {
        self.key.as_ref()
    }

    /// The frames of an encrypted extent in the clear. Of a damaged one they are not proved: their
    /// checksums tell the good ones.
    fn decrypt(&self, view: &ExtentView<'_>, whole: bool) -> Option<Vec<u8>> {
        if !cipher::is_encrypted(&view.header) {
            return None;
        }
        let key = self.key.as_ref()?;
        let proved = if whole {
            key.decrypt(view.bytes, &view.header)
        } else {
            None
        };
        let mut clear = proved.unwrap_or_else(|| key.decrypt_damaged(view.bytes, &view.header));
        clear.truncate(view.header.body_end());
        Some(clear)
    }

    /// Orders the extents. Of two copies of one (written, and rescued from memory as well) the better
    /// one stays. Two extents of one ordinal that were opened at different times are no copies: the
    /// dataplane died and its successor did not know the first; then time decides.
    fn order(&mut self) {
        self.parts.sort_by_key(|part| {
            let header = part.header;
            (
                header.ordinal,
                !part.whole,
                u32::MAX - header.used,
                part.segment,
                part.page,
            )
        });
        let unknown = |part: &Part| !part.whole && part.header.used == 0;
        self.parts.dedup_by(|later, kept| {
            later.header.ordinal == kept.header.ordinal
                && (later.header.first_ns == kept.header.first_ns || unknown(later))
        });
        let ordinals = |pair: &[Part]| pair[0].header.ordinal == pair[1].header.ordinal;
        if self.parts.windows(2).any(ordinals) {
            self.parts.sort_by_key(|part| part.header.first_ns);
        }
    }

    /// Reports extents that the chain knows and that are not here. What the disk refused is no gap:
    /// the chain then leads past it.
    fn report_gaps(&mut self) {
        let mut before: Option<(u32, u32, u32)> = None;
        for part in &self.parts {
            let segment = &self.segments[part.segment];
            let header = part.header;
            let unknown = !part.whole && header.used == 0;
            let prev = (header.prev_segment, header.prev_page);
            let held = before.map_or((0, 0), |(segment, page, _)| (segment, page));
            let next = before.map_or(0, |(_, _, ordinal)| ordinal + 1);
            let copied = segment
                .header()
                .is_some_and(|header| header.flags & segment_flags::EXTRACT != 0);
            let gap = if unknown {
                header.ordinal > next
            } else if copied {
                header.ordinal > next && header.dropped == 0
            } else {
                prev != held && header.ordinal > next
            };
            if gap {
                self.damages.push(Damage {
                    path: segment.path().to_path_buf(),
                    offset: u64::from(part.page) * UNIT as u64,
                    length: 0,
                    what: format!(
                        "extents {next} to {} of recording {} before this place are missing",
                        header.ordinal - 1,
                        self.recording
                    ),
                });
            }
            before = Some((segment.number(), part.page, header.ordinal));
        }
    }

    fn report_bad_parts(&mut self) {
        let mut found = Vec::new();
        for part in self.parts.iter().filter(|part| !part.whole) {
            let segment = &self.segments[part.segment];
            let at = u64::from(part.page) * UNIT as u64;
            let label = format!(
                "recording {}, extent {}",
                self.recording, part.header.ordinal
            );
            let before = found.len();
            let view = self.view(part);
            let mut good = 0;
            let clear = self.decrypt(&view, false);
            let body = clear.as_deref().unwrap_or(view.body());
            for item in Salvage::new(body, self.recording, part.header.ordinal) {
                match item {
                    Ok(_) => good += 1,
                    Err(bad) => found.push(Damage {
                        path: segment.path().to_path_buf(),
                        offset: at + bad.at as u64,
                        length: bad.length as u64,
                        what: format!("damaged frame in the extent at byte {at} ({label})"),
                    }),
                }
            }
            if found.len() == before {
                let what = match good {
                    0 => format!("extent cannot be read ({label})"),
                    _ => format!("extent is damaged outside its frames ({label})"),
                };
                let path = segment.path().to_path_buf();
                found.push(Damage {
                    path,
                    offset: at,
                    length: 0,
                    what,
                });
            }
        }
        self.damages.extend(found);
    }

    /// A segment without a footer that nobody writes was cut, unless the recording ends before.
    fn report_open_end(&mut self) {
        let Some(part) = self.parts.last() else {
            return;
        };
        let segment = &self.segments[part.segment];
        let ended = part.header.has(extent_flags::LAST);
        if !ended && segment.footer().is_none() && !segment.is_live() {
            self.damages.push(Damage {
                path: segment.path().to_path_buf(),
                offset: segment.length(),
                length: 0,
                what: "the segment ends here without a footer and the recording with it".to_owned(),
            });
        }
    }

    fn view(&self, part: &Part) -> ExtentView<'_> {
        let segment = &self.segments[part.segment];
        match segment.extent_at(part.page) {
            Ok(view) | Err((_, Some(view))) => view,
            Err((_, None)) => ExtentView {
                page: part.page,
                header: part.header,
                bytes: segment.raw(part.page, part.header.bytes()),
            },
        }
    }

    /// Its number.
    #[must_use]
    pub const fn recording(&self) -> u64 {
        self.recording
    }

    /// Extents found.
    #[must_use]
    pub fn extents(&self) -> usize {
        self.parts.len()
    }

    /// Extents that were erased on request.
    #[must_use]
    pub fn erased(&self) -> usize {
        self.parts
            .iter()
            .filter(|part| part.header.has(extent_flags::ERASED))
            .count()
    }

    /// Its last extent: (segment, page, ordinal).
    #[must_use]
    pub fn last(&self) -> (u32, u32, u32) {
        self.parts.last().map_or((0, 0, 0), |part| {
            (
                self.segments[part.segment].number(),
                part.page,
                part.header.ordinal,
            )
        })
    }

    /// The segments that hold its extents.
    #[must_use]
    pub fn segments(&self) -> &[SegmentReader] {
        &self.segments
    }

    /// Its extents in order, whole or not.
    pub fn extents_in_order(&self) -> impl Iterator<Item = ExtentView<'_>> {
        self.parts.iter().map(|part| self.view(part))
    }

    /// Head of its hash chain: the link of its last extent; `None` when that has none.
    #[must_use]
    pub fn chain_head(&self) -> Option<Link> {
        let part = self.parts.last().filter(|part| part.whole)?;
        self.segments[part.segment].link_at(part.page)
    }

    /// Whether the last extent is marked as the recording's end.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.parts
            .last()
            .is_some_and(|part| part.header.has(extent_flags::LAST))
    }

    /// What could not be read.
    #[must_use]
    pub fn damages(&self) -> &[Damage] {
        &self.damages
    }

    /// The stored frames in capture order. Split payloads come in pieces. A drop frame is made up
    /// where an extent says that the disk refused frames before it.
    pub fn frames(&self) -> StoredFrames<'_> {
        StoredFrames {
            reader: self,
            next_part: 0,
            current: Current::Nothing,
            base: 0,
        }
    }
}

/// See [`RecordingReader::frames`].
#[derive(Debug)]
pub struct StoredFrames<'a> {
    reader: &'a RecordingReader,
    next_part: usize,
    current: Current<'a>,
    base: u64,
}

#[derive(Debug)]
enum Current<'a> {
    Nothing,
    Whole(Walk<'a>),
    Damaged(Salvage<'a>),
    Clear(Clear),
}

/// Frames that were encrypted: the extent in the clear, and where its frames start.
#[derive(Debug)]
struct Clear {
    bytes: Vec<u8>,
    places: std::vec::IntoIter<usize>,
}

impl Clear {
    fn new(bytes: Vec<u8>, header: &ExtentHeader, whole: bool) -> Self {
        let mut places = Vec::new();
        if whole {
            let mut frames = walk(&bytes, header.used);
            while let Some((at, _)) = frames.next_at() {
                places.push(at);
            }
        } else {
            let found = Salvage::new(&bytes, header.recording, header.ordinal);
            places.extend(found.filter_map(|item| Some(item.ok()?.0)));
        }
        Self {
            bytes,
            places: places.into_iter(),
        }
    }

    fn next(&mut self, base: u64) -> Option<(Frame<'static>, u8)> {
        let at = self.places.next()?;
        let raw = frame::decode_unchecked(&self.bytes[at..]).ok()?;
        let payload = Cow::Owned(raw.payload.to_vec());
        Some((frame_of(&raw, payload, base + at as u64), raw.piece))
    }
}

fn frame_of<'a>(raw: &RawFrame<'_>, payload: Cow<'a, [u8]>, offset: u64) -> Frame<'a> {
    let head = raw.head;
    Frame {
        kind: head.kind,
        side: head.side,
        media: head.media,
        ssrc: Some(head.ssrc),
        pt: Some(head.pt),
        marker: head.marker,
        flags: head.flags,
        seq: head.seq,
        seq_cycles: head.seq_cycles,
        rtp_ts: head.rtp_ts,
        wall_ns: head.wall_ns,
        payload,
        offset,
    }
}

impl<'a> StoredFrames<'a> {
    fn next_stored(&mut self) -> Option<(usize, RawFrame<'a>)> {
        match &mut self.current {
            Current::Nothing | Current::Clear(_) => None,
            Current::Whole(frames) => frames.next_at(),
            Current::Damaged(frames) => frames.find_map(Result::ok),
        }
    }

    /// Opens the next extent; gives its made-up drop frame.
    fn open_part(&mut self) -> Option<Option<Frame<'a>>> {
        let part = self.reader.parts.get(self.next_part)?;
        self.next_part += 1;
        let view = self.reader.view(part);
        self.base = u64::from(part.page) * UNIT as u64;
        let clear = self.reader.decrypt(&view, part.whole);
        self.current = if let Some(bytes) = clear {
            Current::Clear(Clear::new(bytes, &view.header, part.whole))
        } else if !part.whole {
            Current::Damaged(Salvage::new(
                view.body(),
                self.reader.recording,
                part.header.ordinal,
            ))
        } else if part.header.has(extent_flags::ERASED) {
            Current::Nothing
        } else {
            Current::Whole(walk(view.bytes, part.header.used))
        };
        if part.header.dropped == 0 {
            return Some(None);
        }
        let record = DropRecord {
            reason: DropRecord::DISK,
            side: u8::MAX,
            media: u8::MAX,
            ssrc: 0,
            count: u64::from(part.header.dropped),
        };
        let bytes = match &self.current {
            Current::Clear(clear) => clear.bytes.as_slice(),
            _ => view.bytes,
        };
        let wall_ns = walk(bytes, part.header.used)
            .next()
            .map_or(0, |f| f.head.wall_ns);
        Some(Some(Frame {
            kind: FrameKind::Drop,
            side: 0,
            media: 0,
            ssrc: Some(0),
            pt: Some(0),
            marker: false,
            flags: 0,
            seq: 0,
            seq_cycles: 0,
            rtp_ts: 0,
            wall_ns,
            payload: Cow::Owned(record.encode().to_vec()),
            offset: self.base,
        }))
    }
}

impl<'a> Pieces<'a> for StoredFrames<'a> {
    fn next_piece(&mut self) -> Option<(Frame<'a>, u8)> {
        loop {
            if let Current::Clear(clear) = &mut self.current
                && let Some(frame) = clear.next(self.base)
            {
                return Some(frame);
            }
            if let Some((at, raw)) = self.next_stored() {
                let payload = Cow::Borrowed(raw.payload);
                return Some((frame_of(&raw, payload, self.base + at as u64), raw.piece));
            }
            if let Some(dropped) = self.open_part()? {
                return Some((dropped, 0));
            }
        }
    }
}

impl<'a> Iterator for StoredFrames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        self.next_piece().map(|(frame, _)| frame)
    }
}
