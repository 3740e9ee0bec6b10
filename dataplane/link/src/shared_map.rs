//! Sealed memfds and their mappings: the one place where shared bytes become Rust references.
//!
//! A mapping hands out atomics only. Atomics may change under us at any time, which is exactly what
//! another process does to them; plain references to memory that a peer may write never exist.
#![allow(unsafe_code)]

use std::io;
use std::mem::{align_of, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64};

use memmap2::{MmapOptions, MmapRaw};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;

/// Whether later mappings of a memfd may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writers {
    /// Both processes write (a region with rings).
    Both,
    /// Only the mapping made by the creator writes (counters, extents): sealed with
    /// F_SEAL_FUTURE_WRITE, so that the peer can map it read-only and nothing else.
    CreatorOnly,
}

/// Types that may be viewed in shared memory.
///
/// # Safety
/// Implementors are `repr(C)`, consist of atomics and arrays of atomics only (every bit pattern is a
/// value, all mutation is interior and atomic) and hold no padding that is read.
pub unsafe trait SharedPlain {}

// SAFETY: atomics themselves.
unsafe impl SharedPlain for AtomicU32 {}
// SAFETY: atomics themselves.
unsafe impl SharedPlain for AtomicU64 {}

/// One mapping of one memfd, of a length fixed by seals, unmapped on drop.
#[derive(Debug)]
pub struct SharedMap {
    raw: MmapRaw,
    writable: bool,
}

impl SharedMap {
    /// Creates a memfd of `bytes` zero bytes, maps it read-write and seals it against shrinking,
    /// growing and further sealing.
    ///
    /// # Errors
    /// Those of memfd_create, ftruncate, mmap and fcntl.
    pub fn create(name: &str, bytes: usize, writers: Writers) -> io::Result<(Self, OwnedFd)> {
        let file = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        ftruncate(
            &file,
            i64::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?,
        )?;
        let raw = MmapOptions::new().len(bytes).map_raw(file.as_raw_fd())?;
        let mut seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        if writers == Writers::CreatorOnly {
            seals |= SealFlag::F_SEAL_FUTURE_WRITE;
        }
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        Ok((
            Self {
                raw,
                writable: true,
            },
            file,
        ))
    }

    /// Maps a memfd received from a peer, after checking that its length can no longer change (a
    /// file that shrinks under a mapping would kill its reader with SIGBUS).
    ///
    /// # Errors
    /// `InvalidData` when seals are missing or the length is not in `bytes`; those of fcntl, mmap.
    pub fn open(
        file: BorrowedFd<'_>,
        bytes: std::ops::RangeInclusive<usize>,
        writable: bool,
    ) -> io::Result<Self> {
        let seals = SealFlag::from_bits_truncate(fcntl(file, FcntlArg::F_GET_SEALS)?);
        if !seals.contains(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "memfd is not sealed",
            ));
        }
        let length = nix::sys::stat::fstat(file)?.st_size;
        let length = usize::try_from(length).unwrap_or(0);
        if length == 0 || !bytes.contains(&length) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "memfd has another size",
            ));
        }
        let mut options = MmapOptions::new();
        options.len(length);
        let raw = if writable {
            options.map_raw(file.as_raw_fd())?
        } else {
            options.map_raw_read_only(file.as_raw_fd())?
        };
        Ok(Self { raw, writable })
    }

    /// Length in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.raw.len()
    }

    /// Whether this mapping may be stored to.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// `count` consecutive values of `T` at byte `offset`.
    ///
    /// # Panics
    /// When they do not lie in the mapping, aligned: layouts are fixed at compile time.
    #[must_use]
    pub fn view<T: SharedPlain>(&self, offset: usize, count: usize) -> &[T] {
        let end = count
            .checked_mul(size_of::<T>())
            .and_then(|bytes| bytes.checked_add(offset))
            .expect("layout overflows");
        assert!(end <= self.raw.len(), "layout ends beyond the mapping");
        assert!(
            offset.is_multiple_of(align_of::<T>()),
            "layout is not aligned"
        );
        // SAFETY: in bounds and aligned (just checked; the mapping itself is page-aligned), alive as
        // long as self, and T consists of atomics, so that concurrent writes by anyone are
        // defined. The file cannot shrink (sealed), so no access faults.
        unsafe { std::slice::from_raw_parts(self.raw.as_ptr().add(offset).cast::<T>(), count) }
    }

    /// The start of the mapping, for owners that hand out disjoint ranges themselves.
    pub(crate) fn as_mut_pointer(&self) -> *mut u8 {
        self.raw.as_mut_ptr()
    }
}

/// A second descriptor of the same file.
///
/// # Errors
/// Those of dup.
pub fn duplicate(file: impl AsFd) -> io::Result<OwnedFd> {
    file.as_fd().try_clone_to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    #[test]
    fn a_creator_only_file_cannot_be_mapped_writable_by_a_peer() {
        let (map, file) = SharedMap::create("test", 8192, Writers::CreatorOnly).unwrap();
        map.view::<AtomicU64>(8, 1)[0].store(7, Relaxed);
        assert!(SharedMap::open(file.as_fd(), 1..=1 << 20, true).is_err());
        let reader = SharedMap::open(file.as_fd(), 1..=1 << 20, false).unwrap();
        assert_eq!(reader.view::<AtomicU64>(8, 1)[0].load(Relaxed), 7);
        map.view::<AtomicU64>(8, 1)[0].store(9, Relaxed);
        assert_eq!(reader.view::<AtomicU64>(8, 1)[0].load(Relaxed), 9);
    }

    #[test]
    fn files_that_may_change_their_length_are_refused() {
        let (_map, file) = SharedMap::create("test", 4096, Writers::Both).unwrap();
        assert!(ftruncate(&file, 0).is_err());
        assert!(SharedMap::open(file.as_fd(), 8192..=8192, true).is_err());
        let unsealed =
            memfd_create("test", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).unwrap();
        ftruncate(&unsealed, 4096).unwrap();
        assert!(SharedMap::open(unsealed.as_fd(), 4096..=4096, false).is_err());
    }
}
