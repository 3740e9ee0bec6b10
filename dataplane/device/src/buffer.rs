//! Owned buffer tokens and the pool they come from.
//!
//! ```text
//! slab:  | head 96 | datagram, at most 2047 of 2048 | tail room 64 | pad 32 |  next buffer ...
//!        ^ 64-byte aligned, 2240 bytes apart (35 cache lines: no power of two, so that
//!          the first lines of buffers spread over all cache sets)
//! ```
//! The head belongs to the device: what the kernel says of a datagram on receive, and on send the
//! destination, or the headers of a frame.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use crate::device::DeviceError;

/// Bytes a datagram may use; one that fills them counts as truncated.
pub const BUFFER_BYTES: usize = 2048;
/// Room behind a full datagram for what a transform appends.
pub const TAIL_ROOM_BYTES: usize = 64;
/// The device's part in front of the datagram.
pub(crate) const HEAD_BYTES: usize = 96;
/// Distance between buffers.
pub(crate) const STRIDE_BYTES: usize = 2240;

const SLAB_ALIGN: usize = 4096;
const _: () = assert!(HEAD_BYTES + BUFFER_BYTES + TAIL_ROOM_BYTES <= STRIDE_BYTES);
const _: () = assert!(STRIDE_BYTES.is_multiple_of(64) && HEAD_BYTES.is_multiple_of(16));

/// An owned piece of the pool's memory holding one datagram. Dereferences to its bytes.
///
/// It is not `Send`: it stays on the worker. Dropping it does not return it to the pool; send it or
/// recycle it.
#[must_use = "send it or recycle it"]
pub struct Buffer {
    base: NonNull<u8>,
    index: u32,
    length: u32,
}

impl Buffer {
    /// Sets the datagram's length in bytes. What lies beyond the received bytes is old content.
    ///
    /// # Panics
    /// More than [`BUFFER_BYTES`] + [`TAIL_ROOM_BYTES`].
    pub fn set_len(&mut self, length: usize) {
        assert!(
            length <= BUFFER_BYTES + TAIL_ROOM_BYTES,
            "datagram longer than its buffer"
        );
        self.length = length as u32;
    }

    /// Start of the whole buffer, its head included.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// The device's part in front of the datagram, and the datagram.
    #[inline]
    pub(crate) fn parts(&mut self) -> (&mut [u8; HEAD_BYTES], &[u8]) {
        // SAFETY: the token owns STRIDE_BYTES initialised bytes at `base`: the head is the first
        // HEAD_BYTES, the datagram lies behind it (see deref), and `&mut self` makes these the
        // only accesses.
        unsafe {
            let head = &mut *self.base.as_ptr().cast();
            let datagram = std::slice::from_raw_parts(self.data(), self.length as usize);
            (head, datagram)
        }
    }

    /// Start of the datagram.
    pub(crate) fn data(&self) -> *mut u8 {
        // SAFETY: HEAD_BYTES is within the STRIDE_BYTES this token owns.
        unsafe { self.base.as_ptr().add(HEAD_BYTES) }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the token owns STRIDE_BYTES initialised bytes at `base` (the slab is allocated
        // zeroed and outlives every token, see Pool::drop); `length` is bounded by set_len.
        unsafe { std::slice::from_raw_parts(self.data(), self.length as usize) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in deref; `&mut self` makes it the only access.
        unsafe { std::slice::from_raw_parts_mut(self.data(), self.length as usize) }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Buffer({}, {} bytes)", self.index, self.length)
    }
}

/// All buffers of a device: one slab, allocated once, and the list of free ones.
pub struct Pool {
    slab: NonNull<u8>,
    layout: Layout,
    count: u32,
    free: Vec<u32>,
    /// Buffers out of the pool: with the worker, or with the kernel.
    taken: u32,
}

impl Pool {
    /// Allocates `count` buffers.
    ///
    /// # Errors
    /// The size does not fit the address space.
    pub fn new(count: u32) -> Result<Self, DeviceError> {
        let layout = (count as usize)
            .checked_mul(STRIDE_BYTES)
            .and_then(|bytes| Layout::from_size_align(bytes.max(STRIDE_BYTES), SLAB_ALIGN).ok())
            .ok_or_else(|| DeviceError::Config(format!("{count} buffers do not fit")))?;
        // SAFETY: the layout's size is not zero.
        let slab = unsafe { alloc_zeroed(layout) };
        let Some(slab) = NonNull::new(slab) else {
            handle_alloc_error(layout)
        };
        Ok(Self {
            slab,
            layout,
            count,
            free: (0..count).rev().collect(),
            taken: 0,
        })
    }

    /// Takes a free buffer, empty; the one given back last comes first, as it is still cached.
    pub fn take(&mut self) -> Option<Buffer> {
        let index = self.free.pop()?;
        self.taken += 1;
        Some(Buffer {
            base: self.base(index),
            index,
            length: 0,
        })
    }

    /// Gives a buffer back.
    pub fn give(&mut self, buffer: Buffer) {
        debug_assert!(
            buffer.base == self.base(buffer.index),
            "a buffer of another pool"
        );
        self.taken -= 1;
        self.free.push(buffer.index);
    }

    /// Buffers free now.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Turns a token into its number, for the time that the kernel owns the buffer.
    pub(crate) fn lend(&self, buffer: Buffer) -> u32 {
        debug_assert!(
            buffer.base == self.base(buffer.index),
            "a buffer of another pool"
        );
        buffer.index
    }

    /// Makes the token of a buffer the kernel has handed back.
    ///
    /// # Safety
    /// `index` was given to [`lend`](Self::lend) and not reclaimed since, and the kernel no longer
    /// touches the buffer.
    pub(crate) unsafe fn reclaim(&self, index: u32) -> Buffer {
        debug_assert!(index < self.count, "no such buffer");
        Buffer {
            base: self.base(index),
            index,
            length: 0,
        }
    }

    /// Counts `count` lent buffers as back, when the kernel has let go of all of them for good.
    pub(crate) fn reclaim_lent(&mut self, count: u32) {
        self.taken -= count;
    }

    /// Start of a buffer by number.
    pub(crate) fn base(&self, index: u32) -> NonNull<u8> {
        assert!(index < self.count, "no such buffer");
        // SAFETY: index < count, so the offset is within the slab.
        unsafe { self.slab.add(index as usize * STRIDE_BYTES) }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // A token that is still out there keeps the memory: it is leaked rather than left dangling.
        if self.taken == 0 {
            // SAFETY: allocated in `new` with this layout, and no token refers to it any more.
            unsafe { dealloc(self.slab.as_ptr(), self.layout) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_grows_into_its_tail_room_and_comes_back() {
        let mut pool = Pool::new(2).unwrap();
        let mut first = pool.take().unwrap();
        let mut second = pool.take().unwrap();
        assert!(pool.take().is_none());
        first.set_len(BUFFER_BYTES + TAIL_ROOM_BYTES);
        first.fill(0xAA);
        second.set_len(4);
        second.copy_from_slice(b"abcd");
        first.set_len(10);
        assert_eq!(&*first, &[0xAA; 10]);
        assert_eq!(&*second, b"abcd");
        pool.give(first);
        pool.give(second);
        assert_eq!(pool.free(), 2);
    }

    #[test]
    fn a_token_may_outlive_its_pool() {
        let mut pool = Pool::new(1).unwrap();
        let mut token = pool.take().unwrap();
        drop(pool);
        token.set_len(3);
        token.copy_from_slice(b"xyz");
        assert_eq!(&*token, b"xyz");
    }
}
