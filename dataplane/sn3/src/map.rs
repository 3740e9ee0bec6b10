//! Bytes of files through mappings: to read, and to write segments.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use memmap2::{Advice, Mmap, MmapOptions, MmapRaw};
use nix::errno::Errno;

use crate::layout::UNIT;

/// Bytes to read from.
#[derive(Debug)]
pub enum Bytes {
    /// A mapped file.
    Map(Map),
    /// Memory.
    Memory(Vec<u8>),
    /// A part of a mapped file.
    Part(Mmap, Range<usize>),
}

/// A mapped file, and what of it is known to be readable.
#[derive(Debug)]
pub struct Map {
    map: Mmap,
    /// The bytes last asked for by [`Bytes::readable`]: first and last unit.
    known: AtomicU64,
    /// All of it is read: neighbours are asked for too.
    through: bool,
}

impl Bytes {
    /// Maps a file as long as it is now.
    ///
    /// Segments only grow until they are finished and are never cut below what was written, so a
    /// mapping of one stays valid while it is written on. Erasing punches holes, which read as zeros.
    ///
    /// A pipe is first copied into a file without a name: it can be read only once, and may be
    /// longer than the memory.
    ///
    /// # Errors
    /// Those of opening, copying and mapping; what is neither a file nor a pipe is refused.
    pub fn open(path: &Path) -> io::Result<Self> {
        let kind = std::fs::metadata(path)?.file_type();
        if kind.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if !kind.is_file() && !kind.is_fifo() {
            let why = "neither a file nor a pipe";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let mut file = File::open(path)?;
        if kind.is_fifo() {
            let mut copy = unnamed_file()?;
            io::copy(&mut file, &mut copy)?;
            file = copy;
        }
        if file.metadata()?.len() == 0 {
            return Ok(Self::Memory(Vec::new()));
        }
        // SAFETY: the mapping is read-only and private to this value. The bytes may change under it
        // when another process writes the file; every reader here treats them as untrusted and
        // bounds-checks each access, and no reference outlives the mapping.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Self::Map(Map {
            map,
            known: AtomicU64::new(NOTHING_KNOWN),
            through: false,
        }))
    }

    /// What is not asked for by [`Self::will_read`] is read page by page, and nothing ahead.
    pub(crate) fn read_sparsely(&self) {
        if let Self::Map(own) = self {
            // A hint: without it more is read than is needed.
            let _ = own.map.advise(Advice::Random);
        }
    }

    /// All of it is going to be read, in order.
    pub(crate) fn read_through(&mut self) {
        if let Self::Map(own) = self {
            own.through = true;
            // A hint: without it reading is slower.
            let _ = own.map.advise(Advice::Sequential);
        }
    }

    /// These bytes, once the disk has given them; `None` where they reach beyond the end, or where the
    /// disk cannot read them: to look at them all the same would kill the process.
    pub(crate) fn readable(&self, bytes: Range<usize>) -> Option<&[u8]> {
        let found = self.get(bytes.clone())?;
        match self {
            Self::Map(own) if !found.is_empty() => own.can_read(bytes).then_some(found),
            _ => Some(found),
        }
    }

    /// Reads all of it in order, ahead of those who look at it.
    pub(crate) fn read_ahead(&self) {
        const AHEAD: usize = 8 << 20;
        self.will_read(0..AHEAD);
        for start in (0..self.len()).step_by(WINDOW_READ) {
            self.will_read(start + AHEAD..start + AHEAD + WINDOW_READ);
            if let Self::Map(own) = self {
                // What cannot be read is told to those who ask for it.
                let _ = own.populate(start..start + WINDOW_READ);
            }
        }
    }

    /// These bytes are going to be read: the disk is asked for them at once.
    pub(crate) fn will_read(&self, bytes: Range<usize>) {
        // What the kernel takes of one such hint is limited.
        const STEP: usize = 1 << 20;
        if let Self::Map(own) = self {
            let end = bytes.end.min(own.map.len());
            for start in (bytes.start..end).step_by(STEP) {
                let length = STEP.min(end - start);
                // A hint: without it they are read page by page.
                let _ = own.map.advise_range(Advice::WillNeed, start, length);
            }
        }
    }

    /// Only these bytes of it; none where they reach beyond its end.
    #[must_use]
    pub fn part(self, range: Range<usize>) -> Self {
        match self {
            Self::Map(own) => Self::Part(own.map, range),
            other => Self::Memory(other.get(range).unwrap_or(&[]).to_vec()),
        }
    }
}

/// Bytes asked for at once where all of a file is read.
const WINDOW_READ: usize = 1 << 20;
/// An interval that holds nothing.
const NOTHING_KNOWN: u64 = (u32::MAX as u64) << 32;

impl Map {
    /// Whether the disk can read these bytes, which are not beyond the end.
    fn can_read(&self, bytes: Range<usize>) -> bool {
        let (first, last) = (bytes.start / UNIT, (bytes.end - 1) / UNIT);
        // One word, and what it says stays true: no order with anything else is needed.
        let known = self.known.load(Ordering::Relaxed);
        if known >> 32 <= first as u64 && last as u64 <= known & 0xffff_ffff {
            return true;
        }
        let windows =
            bytes.start / WINDOW_READ * WINDOW_READ..bytes.end.next_multiple_of(WINDOW_READ);
        let read = match self.through && self.populate(windows.clone()).is_ok() {
            true => windows.start..windows.end.min(self.map.len()),
            false if self.populate(bytes.clone()).is_ok() => bytes,
            false => return false,
        };
        let (first, last) = (read.start / UNIT, (read.end - 1) / UNIT);
        if let (Ok(first), Ok(last)) = (u32::try_from(first), u32::try_from(last)) {
            let known = u64::from(first) << 32 | u64::from(last);
            self.known.store(known, Ordering::Relaxed);
        }
        true
    }

    /// Has the disk give these bytes, as far as the file has them.
    fn populate(&self, bytes: Range<usize>) -> Result<(), Errno> {
        let end = bytes.end.min(self.map.len());
        let length = end.saturating_sub(bytes.start);
        if length == 0 {
            return Ok(());
        }
        loop {
            let read = self
                .map
                .advise_range(Advice::PopulateRead, bytes.start, length);
            match read.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0))) {
                Err(Errno::EINTR) => {}
                Err(error @ (Errno::EFAULT | Errno::EHWPOISON)) => return Err(error),
                // Kernels before 5.14 cannot be asked.
                _ => return Ok(()),
            }
        }
    }
}

/// A file that is gone when it is closed.
fn unnamed_file() -> io::Result<File> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("sn3-{}-{count}.pipe", std::process::id());
    let path = std::env::temp_dir().join(name);
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Map(own) => &own.map,
            Self::Memory(bytes) => bytes,
            // The range was judged when it was made.
            Self::Part(map, range) => map.get(range.clone()).unwrap_or(&[]),
        }
    }
}

/// Bytes of a file that are mapped at once for writing.
const WINDOW_BYTES: u64 = 8 << 20;

/// A file written by stores into a mapping of it, one window at a time.
///
/// A store into a page beyond the file's end, or one that the disk has no room for, would kill the
/// process. So the file is made longer before each write, never beyond it (readers map it as long as
/// it is), and only reserved blocks are written.
#[derive(Debug, Default)]
pub(crate) struct Mapped {
    window: Option<(u64, MmapRaw)>,
    reserved: Range<u64>,
}

impl Mapped {
    /// Blocks are reserved for these bytes of the file.
    pub(crate) fn allow(&mut self, bytes: Range<u64>) {
        if bytes.start <= self.reserved.end && self.reserved.start <= bytes.start {
            self.reserved.end = self.reserved.end.max(bytes.end);
        } else {
            self.reserved = bytes;
        }
    }

    /// Whether a write of so many bytes lies in reserved blocks.
    pub(crate) fn takes(&self, bytes: usize, offset: u64) -> bool {
        self.reserved.start <= offset && offset + bytes as u64 <= self.reserved.end
    }

    /// Writes bytes for which [`Self::takes`] holds, at an offset of whole units.
    ///
    /// # Errors
    /// Those of fstat, ftruncate and mmap; `InvalidInput` when no blocks are reserved.
    pub(crate) fn write(&mut self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let end = offset + bytes.len() as u64;
        if !self.takes(bytes.len(), offset) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if file.metadata()?.len() < end {
            file.set_len(end)?;
        }
        let window = self
            .window
            .take()
            .filter(|(start, map)| *start <= offset && end <= *start + map.len() as u64);
        let (start, map) = match window {
            Some(window) => window,
            None => {
                let length = WINDOW_BYTES.max(bytes.len() as u64) as usize;
                (
                    offset,
                    MmapOptions::new()
                        .offset(offset)
                        .len(length)
                        .map_raw(file)?,
                )
            }
        };
        // SAFETY: the target lies in the mapping (kept because it does, or made for it), which nobody
        // borrows: this value alone has it, and hands out no reference. The file reaches at least to
        // the target's end and is not cut while its writer holds its lock, and its blocks are
        // reserved, so that the stores do not fault. The source is a borrowed slice elsewhere.
        unsafe {
            let target = map.as_mut_ptr().add((offset - start) as usize);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len());
        }
        self.window = Some((start, map));
        Ok(())
    }
}
