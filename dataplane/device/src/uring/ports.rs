//! Ports and shared sockets come and go: with a socket in the ring's file table, or without one.
//!
//! A port without a socket receives by steering and sends by what [`crate::egress`] has. It gets a
//! socket when something can leave by nothing else, and when steering ends.

use std::io;
use std::net::SocketAddr;

use io_uring::opcode;
use io_uring::types::Fixed;

use super::buffer_ring::GROUP;
use super::slots::{self, State};
use super::{Kind, UringDevice, tag};
use crate::device::{DeviceError, SlotEvent};
use crate::egress::{Egress, Shared};
use crate::socket::media_socket;
use crate::steering::Steering;

/// Ports without a socket that get one in one entry into the kernel.
pub(super) const LATE_SOCKETS_MAX: u32 = 256;

impl UringDevice {
    /// Starts (again) to receive at an open slot.
    pub(super) fn arm(&mut self, slot: u32) {
        let Some(place) = self.slots.place(slot) else {
            return;
        };
        let entry = &mut self.slots.entries[slot as usize];
        entry.armed = true;
        let user_data = tag(Kind::Receive, entry.generation, slot);
        let receive = opcode::RecvMsgMulti::new(Fixed(place), &raw const *self.template, GROUP);
        self.push_control(receive.build().user_data(user_data));
    }

    /// Gives a slot's socket to the ring.
    fn put_file(&mut self, slot: u32) {
        let Some(place) = self.slots.place(slot) else {
            return;
        };
        let generation = self.slots.entries[slot as usize].generation;
        let update = opcode::FilesUpdate::new(self.slots.file(place), 1).offset(place as i32);
        self.push_control(
            update
                .build()
                .user_data(tag(Kind::Install, generation, slot)),
        );
    }

    /// Gives a slot's socket to the ring and starts to receive.
    pub(super) fn begin_receive(&mut self, slot: u32) {
        self.put_file(slot);
        self.arm(slot);
    }

    /// Takes what the routes' thread says.
    #[cold]
    pub(super) fn take_news(&mut self) {
        while let Some(shared) = self.egress.as_mut().and_then(Egress::next_news) {
            self.put_shared(shared);
        }
    }

    /// Takes a socket that slots share to send.
    pub(super) fn put_shared(&mut self, shared: Shared) {
        let slot = self.shared_from + u32::from(shared.place);
        // A slot of our own, taken once.
        if self.slots.take(slot, shared.socket).is_ok() {
            self.put_file(slot);
        }
    }

    /// Opens a port without a socket; false when it needs one.
    pub(super) fn open_bare(&mut self, slot: u32, address: SocketAddr) -> bool {
        let (Ok(_), Some(egress)) = (&self.steering, &mut self.egress) else {
            return false;
        };
        let Ok((origin, shared)) = egress.origin_at(address) else {
            return false;
        };
        if let Some(shared) = shared {
            self.put_shared(shared);
        }
        let steered = self.steering.as_mut().ok();
        let Some(steered) = steered.and_then(|steering| steering.add(slot, address)) else {
            return false;
        };
        // The caller has seen that it is free.
        let opened = self.slots.open(slot);
        debug_assert!(opened.is_ok());
        self.slots.entries[slot as usize].steered = Some(steered);
        if let Some(egress) = &mut self.egress {
            egress.open(slot, Some(origin));
        }
        true
    }

    /// Gives a port without a socket one of its own.
    ///
    /// # Errors
    /// There is none to be had, or not now.
    #[cold]
    pub(super) fn open_late(&mut self, slot: u32) -> Result<(), DeviceError> {
        let what = "bind a media port";
        let busy = || DeviceError::System {
            what,
            source: io::ErrorKind::WouldBlock.into(),
        };
        let steered = self.slots.entries[slot as usize].steered;
        let address = steered.ok_or(DeviceError::SlotEmpty(slot))?.address;
        self.late_sockets = self.late_sockets.checked_sub(1).ok_or_else(busy)?;
        let socket = media_socket(address).map_err(|source| DeviceError::System { what, source });
        let attached = socket.and_then(|socket| self.slots.attach(slot, socket));
        // Where there is none now there is none at once.
        attached.inspect_err(|_| self.late_sockets = 0)?;
        self.put_file(slot);
        Ok(())
    }

    /// Steering has ended: ports without a socket get one, as far as there are any.
    #[cold]
    fn open_all_late(&mut self) {
        for slot in 0..self.slots_max {
            let entry = &self.slots.entries[slot as usize];
            if entry.state != State::Open || self.slots.place(slot).is_some() {
                continue;
            }
            self.late_sockets = 1;
            match self.open_late(slot) {
                Ok(()) => self.arm(slot),
                Err(_) => self.fail(slot, libc::EMFILE),
            }
        }
    }

    /// Asks the kernel to end a slot's receive.
    pub(super) fn cancel_receive(&mut self, slot: u32) {
        let entry = &mut self.slots.entries[slot as usize];
        entry.pending += 1;
        let generation = entry.generation;
        let cancel = opcode::AsyncCancel::new(tag(Kind::Receive, generation, slot));
        self.push_control(
            cancel
                .build()
                .user_data(tag(Kind::Cancel, generation, slot)),
        );
    }

    /// Queues the end of a slot: its receive, then its place in the file table.
    pub(super) fn begin_close(&mut self, slot: u32) {
        let entry = &mut self.slots.entries[slot as usize];
        entry.state = State::Closing;
        if let Some(steered) = entry.steered.take()
            && let Ok(steering) = &mut self.steering
        {
            steering.remove(steered);
        }
        if let Some(egress) = self.egress.as_mut().filter(|_| slot < self.slots_max) {
            egress.close(slot);
        }
        let Some(place) = self.slots.place(slot) else {
            return self.settle(slot);
        };
        let entry = &mut self.slots.entries[slot as usize];
        let generation = entry.generation;
        if entry.armed {
            self.cancel_receive(slot);
        }
        self.slots.entries[slot as usize].pending += 1;
        let update = opcode::FilesUpdate::new(&raw const slots::NO_FILE, 1).offset(place as i32);
        self.push_control(update.build().user_data(tag(Kind::Close, generation, slot)));
    }

    pub(super) fn fail(&mut self, slot: u32, errno: i32) {
        if (self.slots_max..self.shared_from).contains(&slot) && self.steering.is_ok() {
            // Detaches the program: the ports' own sockets take over.
            self.strangers_before += self.steering.as_ref().map_or(0, Steering::strangers);
            self.steering = Err(io::Error::from_raw_os_error(errno).to_string());
            self.open_all_late();
        }
        if self.slots.entries[slot as usize].state == State::Open {
            self.slots.entries[slot as usize].errno = errno;
            self.begin_close(slot);
        }
    }

    /// Frees a closing slot whose last completion has come.
    pub(super) fn settle(&mut self, slot: u32) {
        let entry = &mut self.slots.entries[slot as usize];
        if entry.state == State::Closing && entry.pending == 0 && !entry.armed {
            let errno = std::mem::take(&mut entry.errno);
            self.slots.free(slot);
            if slot >= self.slots_max {
                return;
            }
            self.slot_events.push_back(match errno {
                0 => SlotEvent::Closed { slot },
                errno => SlotEvent::Failed { slot, errno },
            });
        }
    }
}
