//! Doorbells: eventfds that wake a peer that said it sleeps.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

/// One end of a doorbell.
#[derive(Debug)]
pub struct Doorbell(OwnedFd);

impl Doorbell {
    /// A new, silent doorbell.
    ///
    /// # Errors
    /// Those of eventfd.
    pub fn create() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self(OwnedFd::from(EventFd::from_flags(flags)?)))
    }

    /// A doorbell received from a peer.
    #[must_use]
    pub fn from_file(file: OwnedFd) -> Self {
        Self(file)
    }

    /// Rings. A doorbell that was not answered yet stays rung; that is no error.
    pub fn ring(&self) {
        // EAGAIN: the counter is at its top, so the peer will wake anyway. Anything else means that
        // the peer gave us something else than an eventfd; its socket tells whether it lives.
        let _ = nix::unistd::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Silences it. `true`: it had been rung.
    pub fn answer(&self) -> bool {
        let mut count = [0_u8; 8];
        loop {
            match nix::unistd::read(&self.0, &mut count) {
                Ok(8) => return true,
                Err(Errno::EINTR) => {}
                _ => return false,
            }
        }
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
