//! Segment files on a real disk: by O_DIRECT where the file system takes it, by writes through the
//! page cache, or by stores into a mapping.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, OFlag, fallocate, fcntl};
use nix::sys::statvfs::fstatvfs;

use crate::chain::Link;
use crate::map::Mapped;
use crate::{recover, segment};

/// A file that a segment is written to. Offsets and lengths of writes are whole units.
pub trait SegmentFile {
    /// Writes at an offset; may write less than asked for.
    ///
    /// # Errors
    /// Those of the disk.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Returns when everything written is durable.
    ///
    /// # Errors
    /// Those of the disk.
    fn sync(&mut self) -> io::Result<()>;

    /// Reserves room for later writes from `offset` on: `needed` bytes at least, `wanted` where the
    /// disk has plenty. Says how much it got, 0 where that cannot be told; the file's length stays.
    ///
    /// # Errors
    /// `StorageFull` or `QuotaExceeded`: the disk does not have `needed` bytes.
    fn reserve(&mut self, offset: u64, needed: u64, wanted: u64) -> io::Result<u64>;

    /// Cuts the file to its final length (what was reserved beyond is freed).
    ///
    /// # Errors
    /// Those of the disk.
    fn set_length(&mut self, length: u64) -> io::Result<()>;

    /// Why writes do not bypass the page cache, told once.
    fn take_fallback(&mut self) -> Option<String> {
        None
    }
}

/// Where new segments come from.
pub trait SegmentStore {
    /// The files it makes.
    type File: SegmentFile;

    /// Creates the next segment of a worker's series and returns its number.
    ///
    /// # Errors
    /// Those of the disk.
    fn create(&mut self, worker: u16) -> io::Result<(u32, Self::File)>;

    /// The hash chain's link of an extent that an earlier process wrote; `None` when it has none or
    /// cannot be read.
    fn link_of(&self, segment: u32, page: u32) -> Option<Link>;
}

/// How bytes get into segment files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Way {
    /// Past the page cache, where the file system takes O_DIRECT.
    #[default]
    Direct,
    /// By writes through the page cache.
    Buffered,
    /// By stores into a mapping, where the file system can reserve room for them.
    Mapped,
}

/// Segments in a directory of a real file system.
#[derive(Debug, Clone)]
pub struct DirectoryStore {
    directory: PathBuf,
    way: Way,
}

impl DirectoryStore {
    /// Over a directory, created where it is missing.
    ///
    /// # Errors
    /// Those of creating it.
    pub fn new(directory: &Path, way: Way) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        Ok(Self {
            directory: directory.to_path_buf(),
            way,
        })
    }

    /// The same, through the page cache: for cold tools and recovery.
    ///
    /// # Errors
    /// Those of creating it.
    pub fn buffered(directory: &Path) -> io::Result<Self> {
        Self::new(directory, Way::Buffered)
    }

    /// Where the segments lie.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl SegmentStore for DirectoryStore {
    type File = DiskFile;

    /// The number is the highest existing one plus 1, over all series. Processes that create at the
    /// same time take turns by a lock on the directory.
    fn create(&mut self, worker: u16) -> io::Result<(u32, DiskFile)> {
        let lock = File::open(&self.directory)?;
        lock.lock()?;
        let highest = segment::list(&self.directory)?
            .last()
            .map_or(0, |(number, _)| *number);
        let number = highest.checked_add(1).ok_or(io::ErrorKind::QuotaExceeded)?;
        let path = self.directory.join(segment::file_name(worker, number));
        let file = DiskFile::create(&path, self.way)?;
        // The name is durable before anything that refers to it.
        lock.sync_all()?;
        Ok((number, file))
    }

    fn link_of(&self, segment: u32, page: u32) -> Option<Link> {
        recover::link_of(&self.directory, segment, page)
    }
}

/// A segment file on disk, locked while it is written, so that readers can tell it from a cut one.
#[derive(Debug)]
pub struct DiskFile {
    file: File,
    way: Way,
    /// With [`Way::Mapped`].
    mapped: Mapped,
    fallback: Option<String>,
}

impl DiskFile {
    /// Creates a new file.
    ///
    /// # Errors
    /// Those of the file system; `AlreadyExists`.
    pub fn create(path: &Path, way: Way) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o640);
        let direct = way == Way::Direct;
        let mut fallback = None;
        let opened = if direct {
            options.custom_flags(OFlag::O_DIRECT.bits()).open(path)
        } else {
            options.open(path)
        };
        let file = match opened {
            Err(error) if direct && error.raw_os_error() == Some(nix::libc::EINVAL) => {
                fallback = Some(format!(
                    "{}: the file system refuses O_DIRECT",
                    path.display()
                ));
                // Some file systems create the file before they refuse.
                let _ = std::fs::remove_file(path);
                options.custom_flags(0).open(path)?
            }
            other => other?,
        };
        file.lock()?;
        let way = if fallback.is_some() {
            Way::Buffered
        } else {
            way
        };
        Ok(Self {
            file,
            way,
            mapped: Mapped::default(),
            fallback,
        })
    }

    /// Opens an existing segment to write behind what it has, through the page cache.
    ///
    /// # Errors
    /// Those of the file system; `WouldBlock` when another process writes it.
    pub fn reopen(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        file.try_lock().map_err(|error| match error {
            std::fs::TryLockError::Error(error) => error,
            std::fs::TryLockError::WouldBlock => io::ErrorKind::WouldBlock.into(),
        })?;
        Ok(Self {
            file,
            way: Way::Buffered,
            mapped: Mapped::default(),
            fallback: None,
        })
    }

    /// How it is written.
    #[must_use]
    pub const fn way(&self) -> Way {
        self.way
    }

    fn leave_direct(&mut self, why: &io::Error) -> io::Result<()> {
        let flags = OFlag::from_bits_truncate(fcntl(&self.file, FcntlArg::F_GETFL)?);
        fcntl(
            &self.file,
            FcntlArg::F_SETFL(flags.difference(OFlag::O_DIRECT)),
        )?;
        self.way = Way::Buffered;
        self.fallback = Some(format!("an O_DIRECT write was refused: {why}"));
        Ok(())
    }

    /// Reserves blocks, see [`SegmentFile::reserve`].
    fn allocate(&self, offset: u64, needed: u64, wanted: u64) -> io::Result<u64> {
        const STEP: u64 = 1 << 20;
        // A sixteenth of what is free at most, so that a small disk is left to others.
        let free = fstatvfs(&self.file).map_or(0, |d| d.blocks_available() * d.fragment_size());
        let plenty = (free / 16).min(wanted) / STEP * STEP;
        for length in [plenty.max(needed), needed] {
            let (Ok(from), Ok(reach)) = (i64::try_from(offset), i64::try_from(length)) else {
                return Ok(0);
            };
            match fallocate(&self.file, FallocateFlags::FALLOC_FL_KEEP_SIZE, from, reach) {
                Ok(()) => return Ok(length),
                Err(Errno::ENOSPC | Errno::EDQUOT) => {}
                // Not every file system can.
                Err(_) => return Ok(0),
            }
        }
        Err(io::ErrorKind::StorageFull.into())
    }
}

impl SegmentFile for DiskFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        match self.way {
            Way::Mapped if self.mapped.takes(bytes.len(), offset) => {
                self.mapped.write(&self.file, bytes, offset)?;
                return Ok(bytes.len());
            }
            Way::Direct | Way::Buffered | Way::Mapped => {}
        }
        match FileExt::write_at(&self.file, bytes, offset) {
            Err(error)
                if self.way == Way::Direct && error.raw_os_error() == Some(nix::libc::EINVAL) =>
            {
                self.leave_direct(&error)?;
                FileExt::write_at(&self.file, bytes, offset)
            }
            other => other,
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        // What was stored into a mapping of the file is part of it.
        self.file.sync_data()
    }

    fn reserve(&mut self, offset: u64, needed: u64, wanted: u64) -> io::Result<u64> {
        let got = self.allocate(offset, needed, wanted)?;
        if self.way == Way::Mapped {
            self.mapped.allow(offset..offset + got);
            if got == 0 {
                // A store into a page that the disk has no room for would kill the process.
                self.way = Way::Buffered;
                self.fallback = Some("the file system reserves no room for a mapping".to_owned());
            }
        }
        Ok(got)
    }

    fn set_length(&mut self, length: u64) -> io::Result<()> {
        self.mapped = Mapped::default();
        self.file.set_len(length)
    }

    fn take_fallback(&mut self) -> Option<String> {
        self.fallback.take()
    }
}
