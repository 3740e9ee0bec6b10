//! An eventfd that wakes the routes' thread.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use super::netlink::check;

#[derive(Debug)]
pub(super) struct Wake {
    event: OwnedFd,
    /// Rung since the last [`Self::answer`]: once is enough.
    rung: AtomicBool,
    /// The thread is to end.
    pub(super) stop: AtomicBool,
}

impl Wake {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: no pointers are passed.
        let event = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        Ok(Self {
            // SAFETY: just returned to us, owned by nobody else.
            event: unsafe { OwnedFd::from_raw_fd(event) },
            rung: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        })
    }

    /// Wakes the thread, after something was queued for it.
    pub(super) fn ring(&self) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            let one = 1_u64;
            // SAFETY: writes 8 bytes from a live u64. It can only fail when it is rung already.
            unsafe { libc::write(self.event.as_raw_fd(), (&raw const one).cast(), 8) };
        }
    }

    /// Takes the ring, before the queues are looked at.
    pub(super) fn answer(&self) {
        let mut value = 0_u64;
        // SAFETY: reads 8 bytes into a live u64; nothing to read is no harm.
        unsafe { libc::read(self.event.as_raw_fd(), (&raw mut value).cast(), 8) };
        self.rung.store(false, Ordering::SeqCst);
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
