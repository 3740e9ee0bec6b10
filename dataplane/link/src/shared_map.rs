//! Sealed memfds and their mappings: the one place where shared bytes become Rust references.
//!
//! A mapping hands out atomics only. Atomics may change under us at any time, which is exactly what
//! another process does to them; plain references to memory that a peer may write never exist.
#![allow(unsafe_code)]

use std::io;
use std::mem::{align_of, size_of};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::libc::c_void;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use nix::unistd::ftruncate;

const SMALL_PAGE_BYTES: usize = 4096;
/// Bytes of a large page: mappings start at a multiple of it.
pub const LARGE_PAGE_BYTES: usize = 2 << 20;

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
    start: NonNull<u8>,
    bytes: usize,
    writable: bool,
}

// SAFETY: the mapping belongs to the process, not to a thread; what is handed out of it are atomics,
// and a pointer whose users answer for their stores.
unsafe impl Send for SharedMap {}
// SAFETY: as above.
unsafe impl Sync for SharedMap {}

impl Drop for SharedMap {
    fn drop(&mut self) {
        // SAFETY: the range is what `map` mapped, and no reference into it outlives self.
        // Nothing can be done about an error.
        let _ = unsafe { munmap(self.start.cast::<c_void>(), self.bytes) };
    }
}

/// Maps a file at a multiple of [`LARGE_PAGE_BYTES`].
fn map(file: BorrowedFd<'_>, bytes: usize, writable: bool) -> io::Result<NonNull<u8>> {
    let none = || io::Error::from(io::ErrorKind::InvalidInput);
    let length = NonZeroUsize::new(bytes).ok_or_else(none)?;
    let room = bytes
        .checked_next_multiple_of(LARGE_PAGE_BYTES)
        .and_then(|bytes| bytes.checked_add(LARGE_PAGE_BYTES))
        .and_then(NonZeroUsize::new)
        .ok_or_else(none)?;
    let mut access = ProtFlags::PROT_READ;
    access.set(ProtFlags::PROT_WRITE, writable);
    let reserve = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
    // SAFETY: a new range of addresses that nothing uses; what is not mapped below is given back.
    let reserved = unsafe { mmap_anonymous(None, room, ProtFlags::PROT_NONE, reserve)? };
    let reserved = reserved.cast::<u8>();
    let before = reserved.addr().get().next_multiple_of(LARGE_PAGE_BYTES) - reserved.addr().get();
    // SAFETY: `room` is a large page longer than the file's pages, so both are within it.
    let (start, end) = unsafe {
        let start = reserved.add(before);
        (start, start.add(bytes.next_multiple_of(SMALL_PAGE_BYTES)))
    };
    let behind = room.get() - before - bytes.next_multiple_of(SMALL_PAGE_BYTES);
    for (unused, bytes) in [(reserved, before), (end, behind)] {
        if bytes > 0 {
            // SAFETY: a part of the reserved range on either side of what is mapped below.
            unsafe { munmap(unused.cast::<c_void>(), bytes)? };
        }
    }
    let shared = MapFlags::MAP_SHARED | MapFlags::MAP_FIXED;
    // SAFETY: replaces what is left of the range reserved above. Callers see to it that the file
    // cannot shrink.
    let mapped = unsafe { mmap(Some(start.addr()), length, access, shared, file, 0) };
    mapped.inspect_err(|_| {
        // SAFETY: still reserved, and nothing uses it.
        let _ = unsafe { munmap(start.cast::<c_void>(), bytes) };
    })?;
    Ok(start)
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
        let start = map(file.as_fd(), bytes, true)?;
        let mut seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        if writers == Writers::CreatorOnly {
            seals |= SealFlag::F_SEAL_FUTURE_WRITE;
        }
        let this = Self {
            start,
            bytes,
            writable: true,
        };
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        Ok((this, file))
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
        Ok(Self {
            start: map(file, length, writable)?,
            bytes: length,
            writable,
        })
    }

    /// Length in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
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
        assert!(end <= self.bytes, "layout ends beyond the mapping");
        assert!(
            offset.is_multiple_of(align_of::<T>()),
            "layout is not aligned"
        );
        // SAFETY: in bounds and aligned (just checked; the mapping itself is page-aligned), alive as
        // long as self, and T consists of atomics, so that concurrent writes by anyone are
        // defined. The file cannot shrink (sealed), so no access faults.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(offset).cast::<T>(), count) }
    }

    /// The start of the mapping, for owners that hand out disjoint ranges themselves.
    pub(crate) fn as_mut_pointer(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Has one large page behind these bytes, a whole one of the file, in place of small ones.
    ///
    /// # Errors
    /// The kernel has none, or knows no MADV_COLLAPSE (Linux 6.1).
    pub(crate) fn make_large(&self, offset: usize) -> io::Result<()> {
        if !offset.is_multiple_of(LARGE_PAGE_BYTES) || offset + LARGE_PAGE_BYTES > self.bytes {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: in bounds. Which pages stand behind a mapping changes nothing that can be seen
        // through it.
        let done = unsafe {
            let place = self.start.add(offset).as_ptr().cast::<c_void>();
            libc::madvise(place, LARGE_PAGE_BYTES, libc::MADV_COLLAPSE)
        };
        if done == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
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
