//! The sockets of a ring, by slot.
//!
//! ```text
//!   Free --install--> Open --remove, or refused--> Closing --last completion--> Free
//! ```
//! Closing lasts until the receive has ended and every change of the file table has completed.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::GENERATION_MASK;
use crate::device::DeviceError;
use crate::steering::Steered;

/// What empties an entry of the ring's file table.
pub(super) static NO_FILE: RawFd = -1;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Free,
    Open,
    Closing,
}

pub(super) struct Entry {
    pub(super) state: State,
    /// A receive is with the kernel.
    pub(super) armed: bool,
    /// It is to be left unread.
    pub(super) paused: bool,
    /// Control operations with the kernel.
    pub(super) pending: u8,
    /// Counts the sockets that stood here, so that completions of different ones differ.
    pub(super) generation: u32,
    /// Why the slot is being closed, 0 = we were asked to.
    pub(super) errno: i32,
    /// The port whose datagrams are steered to this slot.
    pub(super) steered: Option<Steered>,
    /// Ours until the ring's table holds the file.
    pub(super) socket: Option<OwnedFd>,
}

pub(super) struct Slots {
    pub(super) entries: Box<[Entry]>,
    /// Descriptors being installed: the kernel reads them when it takes the entry.
    files: Box<[RawFd]>,
}

impl Slots {
    pub(super) fn new(count: u32) -> Self {
        let entry = || Entry {
            state: State::Free,
            armed: false,
            paused: false,
            pending: 0,
            generation: 0,
            errno: 0,
            steered: None,
            socket: None,
        };
        Self {
            entries: (0..count).map(|_| entry()).collect(),
            files: vec![NO_FILE; count as usize].into_boxed_slice(),
        }
    }

    /// Whether the slot can be taken.
    pub(super) fn is_free(&self, slot: u32) -> bool {
        let entry = self.entries.get(slot as usize);
        entry.is_some_and(|entry| entry.state == State::Free)
    }

    /// Opens a free slot for a socket about to be installed.
    pub(super) fn take(&mut self, slot: u32, socket: OwnedFd) -> Result<(), DeviceError> {
        let entry = self
            .entries
            .get_mut(slot as usize)
            .ok_or(DeviceError::SlotRange(slot))?;
        if entry.state != State::Free {
            return Err(DeviceError::SlotBusy(slot));
        }
        self.files[slot as usize] = socket.as_raw_fd();
        entry.state = State::Open;
        entry.paused = false;
        entry.generation = (entry.generation + 1) & GENERATION_MASK;
        entry.pending = 1;
        entry.socket = Some(socket);
        Ok(())
    }

    /// Where the kernel finds the descriptor to install.
    pub(super) fn file(&self, slot: u32) -> *const RawFd {
        &raw const self.files[slot as usize]
    }

    /// Keeps what the kernel may still read for good.
    pub(super) fn leak(&mut self) {
        Box::leak(std::mem::take(&mut self.files));
    }
}
