//! The ports of a ring, by slot, and the places of their sockets in the ring's file table.
//!
//! ```text
//!   Free --install--> Open --remove, or refused--> Closing --last completion--> Free
//! ```
//! Closing lasts until the receive has ended and every change of the file table has completed. A
//! port without a socket has no place, and is closed at once.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::GENERATION_MASK;
use crate::device::DeviceError;
use crate::steering::Steered;

/// What empties an entry of the ring's file table.
pub(super) static NO_FILE: RawFd = -1;
/// The slot has no socket.
const NO_PLACE: u32 = u32::MAX;

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
    /// Where its socket is in the ring's file table, or [`NO_PLACE`].
    place: u32,
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
    /// Descriptors being installed, by place: the kernel reads them when it takes the entry.
    files: Box<[RawFd]>,
    free_places: Vec<u32>,
}

impl Slots {
    /// `places`: those of the file table.
    pub(super) fn new(count: u32, places: u32) -> Self {
        let entry = || Entry {
            state: State::Free,
            armed: false,
            paused: false,
            place: NO_PLACE,
            pending: 0,
            generation: 0,
            errno: 0,
            steered: None,
            socket: None,
        };
        Self {
            entries: (0..count).map(|_| entry()).collect(),
            files: vec![NO_FILE; places as usize].into_boxed_slice(),
            free_places: (0..places).rev().collect(),
        }
    }

    /// Whether the slot can be taken.
    pub(super) fn is_free(&self, slot: u32) -> bool {
        let entry = self.entries.get(slot as usize);
        entry.is_some_and(|entry| entry.state == State::Free)
    }

    /// Opens a free slot.
    pub(super) fn open(&mut self, slot: u32) -> Result<(), DeviceError> {
        let entry = self
            .entries
            .get_mut(slot as usize)
            .ok_or(DeviceError::SlotRange(slot))?;
        if entry.state != State::Free {
            return Err(DeviceError::SlotBusy(slot));
        }
        entry.state = State::Open;
        entry.paused = false;
        entry.generation = (entry.generation + 1) & GENERATION_MASK;
        Ok(())
    }

    /// Gives an open slot without a socket one that is about to be installed.
    pub(super) fn attach(&mut self, slot: u32, socket: OwnedFd) -> Result<(), DeviceError> {
        let place = self.free_places.pop().ok_or_else(|| DeviceError::System {
            what: "a place for a socket in the ring",
            source: io::Error::from_raw_os_error(libc::EMFILE),
        })?;
        self.files[place as usize] = socket.as_raw_fd();
        let entry = &mut self.entries[slot as usize];
        entry.place = place;
        entry.pending += 1;
        entry.socket = Some(socket);
        Ok(())
    }

    /// Opens a free slot for a socket about to be installed.
    pub(super) fn take(&mut self, slot: u32, socket: OwnedFd) -> Result<(), DeviceError> {
        self.open(slot)?;
        self.attach(slot, socket).inspect_err(|_| self.free(slot))
    }

    /// The slot holds nothing any more.
    pub(super) fn free(&mut self, slot: u32) {
        let entry = &mut self.entries[slot as usize];
        entry.state = State::Free;
        if entry.place != NO_PLACE {
            self.free_places.push(entry.place);
            entry.place = NO_PLACE;
        }
    }

    /// The socket's place in the ring's file table.
    #[inline]
    pub(super) fn place(&self, slot: u32) -> Option<u32> {
        let place = self.entries[slot as usize].place;
        (place != NO_PLACE).then_some(place)
    }

    /// Where the kernel finds the descriptor to install at a place.
    pub(super) fn file(&self, place: u32) -> *const RawFd {
        &raw const self.files[place as usize]
    }

    /// Keeps what the kernel may still read for good.
    pub(super) fn leak(&mut self) {
        Box::leak(std::mem::take(&mut self.files));
    }
}
