//! SIGTERM and SIGINT as a descriptor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::conductor::StopSignal;

/// The signals that end the process in order. Made before any thread is started, so that all
/// threads have them blocked; a second one, while the end is under way, ends it at once.
#[derive(Debug)]
pub struct EndSignals {
    file: SignalFd,
    set: SigSet,
}

impl EndSignals {
    /// Blocks them and opens the descriptor.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn block() -> io::Result<Self> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGTERM);
        set.add(Signal::SIGINT);
        set.thread_block()?;
        let file = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self { file, set })
    }
}

impl StopSignal for EndSignals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    fn asked(&mut self) -> bool {
        let asked = matches!(self.file.read_signal(), Ok(Some(_)));
        if asked {
            // From now on the default action: an impatient second signal stops us at once.
            let _ = self.set.thread_unblock();
        }
        asked
    }
}
