//! Segment files on a real disk: O_DIRECT where the file system takes it, buffered where not.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, OFlag, fallocate, fcntl};
use nix::sys::statvfs::fstatvfs;

use crate::chain::Link;
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

/// Segments in a directory of a real file system.
#[derive(Debug, Clone)]
pub struct DirectoryStore {
    directory: PathBuf,
    direct: bool,
}

impl DirectoryStore {
    /// Over a directory, created where it is missing.
    ///
    /// # Errors
    /// Those of creating it.
    pub fn new(directory: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        Ok(Self {
            directory: directory.to_path_buf(),
            direct: true,
        })
    }

    /// The same, through the page cache: for cold tools and recovery.
    ///
    /// # Errors
    /// Those of creating it.
    pub fn buffered(directory: &Path) -> io::Result<Self> {
        Ok(Self {
            direct: false,
            ..Self::new(directory)?
        })
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
        let file = DiskFile::create(&path, self.direct)?;
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
    direct: bool,
    fallback: Option<String>,
}

impl DiskFile {
    /// Creates a new file.
    ///
    /// # Errors
    /// Those of the file system; `AlreadyExists`.
    pub fn create(path: &Path, direct: bool) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o640);
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
        let direct = direct && fallback.is_none();
        Ok(Self {
            file,
            direct,
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
            direct: false,
            fallback: None,
        })
    }

    /// Whether writes bypass the page cache.
    #[must_use]
    pub const fn is_direct(&self) -> bool {
        self.direct
    }

    fn leave_direct(&mut self, why: &io::Error) -> io::Result<()> {
        let flags = OFlag::from_bits_truncate(fcntl(&self.file, FcntlArg::F_GETFL)?);
        fcntl(
            &self.file,
            FcntlArg::F_SETFL(flags.difference(OFlag::O_DIRECT)),
        )?;
        self.direct = false;
        self.fallback = Some(format!("an O_DIRECT write was refused: {why}"));
        Ok(())
    }
}

impl SegmentFile for DiskFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        match FileExt::write_at(&self.file, bytes, offset) {
            Err(error) if self.direct && error.raw_os_error() == Some(nix::libc::EINVAL) => {
                self.leave_direct(&error)?;
                FileExt::write_at(&self.file, bytes, offset)
            }
            other => other,
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// A sixteenth of what is free at most, so that a small disk is left to others.
    fn reserve(&mut self, offset: u64, needed: u64, wanted: u64) -> io::Result<u64> {
        const STEP: u64 = 1 << 20;
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

    fn set_length(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn take_fallback(&mut self) -> Option<String> {
        self.fallback.take()
    }
}
