//! The ring through which free buffers reach the kernel ("provided buffers"), shared by all
//! receives.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use crate::buffer::{BUFFER_BYTES, Buffer, HEAD_BYTES, Pool};
use crate::device::DeviceError;

/// The group all receives draw from.
pub(super) const GROUP: u16 = 0;

/// See the module. The kernel reads entries up to the published tail and takes them in order.
pub(super) struct BufferRing {
    entries: NonNull<BufRingEntry>,
    layout: Layout,
    mask: u16,
    tail: u16,
    /// Buffers published or about to be, and not taken by the kernel as far as we have seen.
    filled: u32,
    capacity: u32,
}

impl BufferRing {
    /// Allocates and registers a ring of `capacity` entries (a power of two).
    pub(super) fn register(ring: &IoUring, capacity: u32) -> Result<Self, DeviceError> {
        let layout = Layout::from_size_align(capacity as usize * size_of::<BufRingEntry>(), 4096)
            .map_err(|error| DeviceError::Config(error.to_string()))?;
        // SAFETY: the layout's size is not zero.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(entries) = NonNull::new(memory.cast::<BufRingEntry>()) else {
            handle_alloc_error(layout)
        };
        let this = Self {
            entries,
            layout,
            mask: (capacity - 1) as u16,
            tail: 0,
            filled: 0,
            capacity,
        };
        // SAFETY: the memory is page-aligned, holds `capacity` entries, and lives until after the
        // ring has been unregistered (UringDevice::drop).
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                entries.as_ptr() as u64,
                capacity as u16,
                GROUP,
                0,
            )
        }
        .map_err(|source| DeviceError::System {
            what: "register buffer ring",
            source,
        })?;
        Ok(this)
    }

    /// Whether another buffer fits.
    pub(super) fn has_room(&self) -> bool {
        self.filled < self.capacity
    }

    /// Whether the kernel has buffers to take, as far as we have seen.
    pub(super) fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Buffers with the kernel, as far as we have seen.
    pub(super) fn filled(&self) -> u32 {
        self.filled
    }

    /// Puts a buffer in; the kernel sees it after [`publish`](Self::publish).
    pub(super) fn put(&mut self, pool: &Pool, buffer: Buffer) {
        debug_assert!(self.has_room(), "buffer ring overfilled");
        let base = buffer.base();
        let index = pool.lend(buffer);
        // SAFETY: the masked index is within the ring, and has_room says that the kernel has taken
        // what stood there. The first entry's last field is the tail; set_* leave it alone.
        let entry = unsafe {
            &mut *self
                .entries
                .as_ptr()
                .add(usize::from(self.tail & self.mask))
        };
        entry.set_addr(base.as_ptr() as u64);
        entry.set_len((HEAD_BYTES + BUFFER_BYTES) as u32);
        entry.set_bid(index as u16);
        self.tail = self.tail.wrapping_add(1);
        self.filled += 1;
    }

    /// Shows the kernel everything put so far.
    pub(super) fn publish(&self) {
        // SAFETY: the tail's address is within the first entry; the kernel reads it with acquire,
        // pairing with this release, so it sees the entries' contents.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }

    /// Notes that the kernel has taken one.
    pub(super) fn taken(&mut self) {
        self.filled -= 1;
    }

    /// Frees the memory.
    ///
    /// # Safety
    /// The ring was unregistered, or its io_uring instance is gone.
    pub(super) unsafe fn free(&mut self) {
        // SAFETY: allocated in `register` with this layout; the caller vouches for the kernel.
        unsafe { dealloc(self.entries.as_ptr().cast(), self.layout) };
    }
}
