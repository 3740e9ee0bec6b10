//! Waiting for signals, for children, and for control's word that it is ready.

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What ended a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Woken {
    /// SIGINT or SIGTERM.
    Signal,
    /// Control is ready.
    Ready,
    /// A child changed, or it is time.
    ChildOrTime,
}

/// Blocks the signals it waits for in this thread; children start with none blocked.
#[derive(Debug)]
pub(super) struct Waiter {
    signals: SignalFd,
    socket: UnixDatagram,
    socket_path: PathBuf,
}

impl Waiter {
    pub(super) fn new(socket_path: &Path) -> Result<Self> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGCHLD] {
            set.add(signal);
        }
        set.thread_block().context("blocking signals")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&set, flags).context("signalfd")?;
        // Left behind by an earlier run; the lock says that it is nobody's.
        let _ = std::fs::remove_file(socket_path);
        let named = || socket_path.display().to_string();
        let socket = UnixDatagram::bind(socket_path).with_context(named)?;
        socket.set_nonblocking(true).with_context(named)?;
        Ok(Self {
            signals,
            socket,
            socket_path: socket_path.to_owned(),
        })
    }

    /// Where control sends its word (sd_notify's protocol).
    pub(super) fn socket_path(&self) -> &Path {
        &self.socket_path
    }

    /// Waits until something happens or the deadline is reached.
    pub(super) fn wait(&mut self, deadline: Option<Instant>) -> Result<Woken> {
        loop {
            let timeout = match deadline {
                None => PollTimeout::NONE,
                Some(at) => {
                    // Rounded up, so that a deadline is never found a moment before its time.
                    let left =
                        at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
                    PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
                }
            };
            let mut watched = [
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut watched, timeout) {
                Ok(_) => {}
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => return Err(error).context("poll"),
            }
            return self.take();
        }
    }

    fn take(&mut self) -> Result<Woken> {
        if let Some(signal) = self.signals.read_signal().context("signalfd")? {
            let child = u32::try_from(Signal::SIGCHLD as i32).unwrap_or_default();
            return Ok(if signal.ssi_signo == child {
                Woken::ChildOrTime
            } else {
                Woken::Signal
            });
        }
        let mut word = [0u8; 512];
        if let Ok(length) = self.socket.recv(&mut word)
            && word[..length]
                .split(|byte| *byte == b'\n')
                .any(|line| line == b"READY=1")
        {
            return Ok(Woken::Ready);
        }
        Ok(Woken::ChildOrTime)
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        // Nothing depends on it any more.
        let _ = std::fs::remove_file(&self.socket_path);
    }
}
