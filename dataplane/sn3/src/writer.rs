//! Writes a segment: extents sealed into an aligned batch, batches written back to back, a directory
//! at each checkpoint, a footer at the end.

use std::io;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::chain::{self, Link};
use crate::extent::{ExtentHeader, Seal, extent_flags, seal};
use crate::file::{SegmentFile, SegmentStore};
use crate::layout::{EXTENT_BYTES, EXTENT_UNITS_MAX, UNIT};
use crate::record::ClockTriple;
use crate::recover::lost_extent;
use crate::segment::{
    DirectoryEntry, SegmentFooter, SegmentHeader, directory_extent, directory_parts,
};

/// Bytes written at once at most.
pub const BATCH_BYTES: usize = 1 << 20;
/// Room kept behind the data for directory and footer, so that a segment can be finished on a full disk.
const BEHIND_BYTES: u64 = 64 << 10;
/// Room to reserve ahead of the writes.
const RESERVE_BYTES: u64 = 64 << 20;

/// Memory that O_DIRECT takes.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(4096))]
struct Unit([u8; UNIT]);

const _: () = assert!(size_of::<Unit>() == UNIT);

/// What stays the same over the segments of one process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SegmentOrigin {
    /// Worker whose series it is.
    pub worker: u16,
    /// UTC ns at which this process started.
    pub epoch: u64,
    /// Both clocks now.
    pub clock: ClockTriple,
    /// See [`crate::segment::segment_flags`].
    pub flags: u8,
    /// 0 = none, 1 = AES-256-GCM.
    pub cipher: u8,
}

/// An extent put into the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Staged {
    /// Page it gets.
    pub page: u32,
    /// Its header, sealed.
    pub header: ExtentHeader,
    /// Its link in the recording's hash chain, when it is chained.
    pub link: Option<Link>,
}

/// A segment being written.
#[derive(Debug)]
pub struct SegmentWriter<F> {
    file: F,
    header: SegmentHeader,
    batch: Batch,
    staged: Vec<Staged>,
    unlisted: Vec<DirectoryEntry>,
    directory_page: u32,
    directories: u32,
    footer: SegmentFooter,
    reserved_until: u64,
    /// Bytes that the file may have by now, whole units.
    longest: u64,
    unsynced: bool,
}

/// Units waiting to be written from `page` on.
struct Batch {
    units: Vec<Unit>,
    used: usize,
    page: u32,
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Batch(page {}, {} bytes)", self.page, self.used)
    }
}

impl Batch {
    fn next_page(&self) -> u32 {
        self.page + (self.used / UNIT) as u32
    }

    fn room(&mut self, bytes: usize) -> Option<&mut [u8]> {
        self.units
            .as_mut_slice()
            .as_mut_bytes()
            .get_mut(self.used..self.used + bytes)
    }

    fn bytes(&self) -> &[u8] {
        &self.units.as_slice().as_bytes()[..self.used]
    }

    /// Forgets the first `bytes`, whole units.
    fn advance(&mut self, bytes: usize) {
        let used = self.used;
        self.units
            .as_mut_slice()
            .as_mut_bytes()
            .copy_within(bytes..used, 0);
        self.used -= bytes;
        self.page += (bytes / UNIT) as u32;
    }
}

impl<F: SegmentFile> SegmentWriter<F> {
    /// Starts the next segment of a series. Nothing is written before the first flush.
    ///
    /// # Errors
    /// Those of creating the file.
    pub fn create(
        store: &mut impl SegmentStore<File = F>,
        origin: &SegmentOrigin,
    ) -> io::Result<Self> {
        let (number, file) = store.create(origin.worker)?;
        let header = SegmentHeader {
            number,
            worker: origin.worker,
            epoch: origin.epoch,
            clock: origin.clock,
            flags: origin.flags,
            cipher: origin.cipher,
            ..SegmentHeader::default()
        };
        let mut batch = Batch {
            units: vec![Unit([0; UNIT]); BATCH_BYTES / UNIT],
            used: 0,
            page: 0,
        };
        batch
            .room(UNIT)
            .expect("an empty batch")
            .copy_from_slice(&header.encode());
        batch.used = UNIT;
        Ok(Self {
            file,
            header,
            batch,
            staged: Vec::new(),
            unlisted: Vec::new(),
            directory_page: 0,
            directories: 0,
            footer: SegmentFooter {
                number,
                worker: origin.worker,
                ..SegmentFooter::default()
            },
            reserved_until: 0,
            longest: 0,
            unsynced: false,
        })
    }

    /// Takes up a segment that was left without a footer: `entries` are its extents, of which those in
    /// `unlisted` are in no directory yet, and it goes on at `page`.
    pub(crate) fn resume(file: F, header: SegmentHeader, state: Leftover) -> Self {
        let batch = Batch {
            units: vec![Unit([0; UNIT]); BATCH_BYTES / UNIT],
            used: 0,
            page: state.next_page,
        };
        Self {
            file,
            header,
            batch,
            staged: Vec::new(),
            unlisted: state.unlisted,
            directory_page: state.directory_page,
            directories: state.directories,
            footer: state.totals,
            reserved_until: u64::MAX,
            longest: state.length.next_multiple_of(UNIT as u64),
            unsynced: true,
        }
    }

    /// Number of the segment.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.header.number
    }

    /// Bytes of the file once everything staged is written.
    #[must_use]
    pub fn length(&self) -> u64 {
        u64::from(self.batch.next_page()) * UNIT as u64
    }

    /// Extents in the batch, not written yet.
    #[must_use]
    pub fn staged(&self) -> usize {
        self.staged.len()
    }

    /// Whether something is not in a directory or not durable yet.
    #[must_use]
    pub fn needs_checkpoint(&self) -> bool {
        !self.staged.is_empty() || !self.unlisted.is_empty() || self.unsynced
    }

    /// Why writes do not bypass the page cache; told once.
    pub fn take_fallback(&mut self) -> Option<String> {
        self.file.take_fallback()
    }

    /// Whether the batch has room for another extent.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.batch.used + EXTENT_UNITS_MAX as usize * UNIT <= BATCH_BYTES
    }

    /// Copies an open extent into the batch and seals the copy. `None` when there is no room (flush
    /// first) or it is no open extent with `used` bytes of frames.
    pub fn stage(&mut self, extent: &[u8], asked: &Seal<'_>) -> Option<Staged> {
        let page = self.batch.next_page();
        let room = self.batch.room(asked.bytes())?;
        let used = asked.used as usize;
        room[..used].copy_from_slice(extent.get(..used)?);
        room[used..].fill(0);
        let header = seal(room, asked)?;
        let link = chain::stored(room, &header);
        self.batch.used += header.bytes();
        let staged = Staged { page, header, link };
        self.staged.push(staged);
        Some(staged)
    }

    /// Writes the batch. After an error what could not be written is still staged (see
    /// [`SegmentWriter::staged`]): try again, or give it up.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn flush(&mut self) -> io::Result<()> {
        self.flush_before(BEHIND_BYTES)
    }

    /// Writes the batch as far as there is room for it and `behind` bytes more.
    fn flush_before(&mut self, behind: u64) -> io::Result<()> {
        if self.batch.used == 0 {
            return Ok(());
        }
        let wanted = self.batch.used;
        let allowed = self.reserve(behind);
        let (written, error) = self.write_batch(allowed);
        let full = (allowed < wanted).then(|| io::ErrorKind::StorageFull.into());
        self.note_written(if written == wanted {
            written
        } else {
            self.whole_extents(written)
        });
        error.or(full).map_or(Ok(()), Err)
    }

    /// Bytes at the batch's start that are whole extents (or the segment's header) within `written`.
    fn whole_extents(&self, written: usize) -> usize {
        let start = self.batch.page;
        let ends = self
            .staged
            .iter()
            .map(|staged| (staged.page - start) as usize * UNIT + staged.header.bytes());
        let header = (start == 0).then_some(UNIT);
        header
            .into_iter()
            .chain(ends)
            .take_while(|end| *end <= written)
            .last()
            .unwrap_or(0)
    }

    fn note_written(&mut self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.unsynced = true;
        let end = self.batch.page + (bytes / UNIT) as u32;
        let count = self
            .staged
            .iter()
            .take_while(|staged| staged.page < end)
            .count();
        for staged in self.staged.drain(..count) {
            let header = staged.header;
            if header.has(extent_flags::DIRECTORY) {
                continue;
            }
            self.unlisted.push(DirectoryEntry::of(staged.page, &header));
            count_in(&mut self.footer, &header);
        }
        self.batch.advance(bytes);
    }

    /// Bytes of the batch that there is room for.
    fn reserve(&mut self, behind: u64) -> usize {
        let from = u64::from(self.batch.page) * UNIT as u64;
        let mut bytes = self.batch.used;
        while bytes > 0 {
            let needed = bytes as u64 + behind;
            if from + needed <= self.reserved_until {
                break;
            }
            match self.file.reserve(from, needed, RESERVE_BYTES) {
                // Not known: writing will show. Asked again some batches later.
                Ok(0) => self.reserved_until = from + needed + RESERVE_BYTES / 16,
                Ok(got) => self.reserved_until = from + got.max(needed),
                Err(_) => bytes = self.whole_extents(bytes / 2),
            }
        }
        bytes
    }

    /// Writes the first `limit` bytes of the batch; says how many it wrote, and why not all.
    fn write_batch(&mut self, limit: usize) -> (usize, Option<io::Error>) {
        let base = u64::from(self.batch.page) * UNIT as u64;
        self.longest = self.longest.max(base + limit as u64);
        let bytes = &self.batch.bytes()[..limit];
        let mut written = 0;
        let mut stuck = 0;
        while written < bytes.len() {
            match self.file.write_at(&bytes[written..], base + written as u64) {
                Ok(count) if count >= UNIT || written + count == bytes.len() => {
                    // O_DIRECT goes on at a whole unit.
                    let reached = written + count;
                    written = if reached == bytes.len() {
                        reached
                    } else {
                        reached / UNIT * UNIT
                    };
                    stuck = 0;
                }
                Ok(_) if stuck < 3 => stuck += 1,
                Ok(_) => return (written, Some(io::ErrorKind::WriteZero.into())),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (written, Some(error)),
            }
        }
        (written, None)
    }

    /// Gives up what is staged: its place is used by what comes next.
    pub fn discard_staged(&mut self) {
        self.staged.clear();
        self.batch.used = if self.batch.page == 0 { UNIT } else { 0 };
    }

    /// Makes everything durable: data first, then a directory of what is in none yet.
    ///
    /// # Errors
    /// Those of the disk; what was written before the error stays written.
    pub fn checkpoint(&mut self, now_ns: u64) -> io::Result<()> {
        self.checkpoint_data()?;
        self.checkpoint_directory(now_ns)
    }

    /// The first half of a checkpoint: afterwards every extent written can be found by hopping.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn checkpoint_data(&mut self) -> io::Result<()> {
        self.flush()?;
        if self.unsynced {
            self.file.sync()?;
            self.unsynced = false;
        }
        Ok(())
    }

    /// The second half.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn checkpoint_directory(&mut self, now_ns: u64) -> io::Result<()> {
        if self.unlisted.is_empty() {
            return Ok(());
        }
        debug_assert!(self.staged.is_empty(), "data goes before its directory");
        let entries = std::mem::take(&mut self.unlisted);
        let before = (self.directory_page, self.directories);
        match self.write_directories(&entries, now_ns) {
            Ok(()) => {
                self.file.sync()?;
                self.unsynced = false;
                Ok(())
            }
            Err(error) => {
                self.discard_staged();
                (self.directory_page, self.directories) = before;
                self.unlisted = entries;
                Err(error)
            }
        }
    }

    fn write_directories(&mut self, entries: &[DirectoryEntry], now_ns: u64) -> io::Result<()> {
        for part in directory_parts(entries) {
            if !self.has_room() {
                self.flush_before(0)?;
            }
            let page = self.batch.next_page();
            let (number, ordinal) = (self.header.number, self.directories);
            let previous = self.directory_page;
            let room = self.batch.room(EXTENT_BYTES).expect("has_room said so");
            let header = directory_extent(room, part, number, ordinal, previous, now_ns);
            self.batch.used += header.bytes();
            let link = None;
            self.staged.push(Staged { page, header, link });
            self.directory_page = page;
            self.directories += 1;
        }
        self.flush_before(0)
    }

    /// Ends the segment: checkpoint, footer, final length. May be called again after an error.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn finish(&mut self, now_ns: u64) -> io::Result<SegmentFooter> {
        self.checkpoint(now_ns)?;
        self.flush()?;
        self.cover_rest()?;
        let page = self.batch.page;
        self.footer.page = page;
        self.footer.directory_page = self.directory_page;
        let footer = self.footer;
        self.write_now(&footer.encode())?;
        self.file.set_length((u64::from(page) + 1) * UNIT as u64)?;
        self.file.sync()?;
        Ok(footer)
    }

    /// Marks what refused writes left behind the last extent as lost. The file is not cut there,
    /// because others may have mapped it.
    fn cover_rest(&mut self) -> io::Result<()> {
        let end = (self.longest / UNIT as u64) as u32;
        while self.batch.page + 1 < end {
            let units = (end - 1 - self.batch.page).min(u32::from(EXTENT_UNITS_MAX));
            self.write_now(&lost_extent(units as u8))?;
            self.batch.page += units;
        }
        Ok(())
    }

    /// Writes whole units at the batch's page, past the batch, which is empty.
    fn write_now(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.batch
            .room(bytes.len())
            .expect("an empty batch")
            .copy_from_slice(bytes);
        self.batch.used = bytes.len();
        let (_, error) = self.write_batch(bytes.len());
        self.batch.used = 0;
        error.map_or(Ok(()), Err)
    }
}

/// What is known of a segment that was left without a footer.
#[derive(Debug, Default)]
pub(crate) struct Leftover {
    pub(crate) unlisted: Vec<DirectoryEntry>,
    pub(crate) directory_page: u32,
    pub(crate) directories: u32,
    pub(crate) next_page: u32,
    pub(crate) length: u64,
    pub(crate) totals: SegmentFooter,
}

/// Counts an extent in a footer's totals.
pub(crate) fn count_in(footer: &mut SegmentFooter, header: &ExtentHeader) {
    footer.extents += 1;
    footer.frames += u64::from(header.frames);
    footer.bytes += u64::from(header.used);
    if footer.first_ns == 0 {
        footer.first_ns = header.first_ns;
    }
    footer.last_ns = footer.last_ns.max(header.first_ns);
}
