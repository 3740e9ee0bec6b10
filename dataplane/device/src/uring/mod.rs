//! The io_uring device: one ring, one thread.
//!
//! - Receive: a multishot `recvmsg` a socket, all drawing from one ring of free buffers. It is
//!   armed again whenever the kernel ends it: no buffers, an ICMP error, an empty datagram.
//! - Where kernel and rights allow it one more socket a family receives for all slots
//!   ([`crate::steering`]). A port may then do without a socket: it sends by what
//!   [`crate::egress`] has, and gets a socket when something can leave by nothing else.
//! - Send: one entry a datagram, all of a cycle's handed over in one call. Sends never wait
//!   (`MSG_DONTWAIT`), so the kernel is done with the bytes when it has taken the entry; a
//!   completion comes only for a failure.
//! - Where [`crate::routes`] knows the way, a datagram leaves as a whole frame by the interface's
//!   packet socket ([`crate::egress`]); the entry is the same, so order is kept.
//! - Sockets sit in the ring's own file table. An entry of it is changed by operations on the ring,
//!   in order with sends and receives; a slot is free only after the last completion that names it.
//! - The kernel runs its deferred work when we enter it, and only then
//!   (`SINGLE_ISSUER | DEFER_TASKRUN`): no interrupts by signals, one entry a duty cycle.
//!
//! The completion queue is larger than what can be outstanding; should it overflow all the same,
//! the kernel keeps the completions and the flag is counted.
#![allow(unsafe_code)]

mod buffer_ring;
mod completions;
mod open;
mod ports;
mod slots;
mod system;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::squeue::Flags;
use io_uring::types::{Fd, Fixed};
use io_uring::{IoUring, cqueue, opcode, squeue};

use crate::address::{ADDRESS_BYTES, RawAddress};
use crate::buffer::{BUFFER_BYTES, Buffer, HEAD_BYTES, Pool};
use crate::device::{Admission, Config, Counters, Device, DeviceError, Received, SlotEvent, Wake};
use crate::egress::{self, Egress, Frame, PACKET_HEADERS_MAX};
use crate::socket::{local_address, media_socket};
use crate::steering::Steering;
use buffer_ring::{BufferRing, GROUP};
use ports::LATE_SOCKETS_MAX;
use slots::{Entry, Slots, State};
use system::{RingHandle, Wait};

/// Where the source address begins in a received buffer: behind `struct io_uring_recvmsg_out`.
const NAME_OFFSET: usize = 16;
/// Where the address it was sent to begins, on a socket that all slots share: one control message.
const CONTROL_OFFSET: usize = NAME_OFFSET + ADDRESS_BYTES;
/// A control message with an IPv6 address, rounded up.
const CONTROL_BYTES: usize = 48;
/// The port in it: behind `struct cmsghdr` and the address family.
const SENT_TO_PORT_OFFSET: usize = CONTROL_OFFSET + size_of::<libc::cmsghdr>() + 2;
const _: () = assert!(CONTROL_OFFSET + CONTROL_BYTES == HEAD_BYTES);

/// What a completion is about, the top byte of its user data; slot and generation below it.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Receive = 1,
    Send = 2,
    Install = 3,
    Cancel = 4,
    Close = 5,
    Doorbell = 6,
}

const GENERATION_MASK: u32 = 0x00FF_FFFF;

fn tag(kind: Kind, generation: u32, slot: u32) -> u64 {
    (kind as u64) << 56 | u64::from(generation & GENERATION_MASK) << 32 | u64::from(slot)
}

/// See the module.
pub struct UringDevice {
    ring: IoUring,
    handle: RingHandle,
    buffers: BufferRing,
    pool: Pool,
    slots: Slots,
    /// Slots the worker may use; those of the shared sockets come behind.
    slots_max: u32,
    /// The shared receive sockets, or why there are none.
    steering: Result<Steering, String>,
    /// Strangers counted by a steering that is gone.
    strangers_before: u64,
    /// Sends by sockets that slots share; those have the slots from `shared_from`.
    egress: Option<Egress>,
    shared_from: u32,
    /// Sockets that ports may still get before the next entry into the kernel.
    late_sockets: u32,
    /// Buffers of sends queued since the submission queue was last empty.
    sending: Vec<u32>,
    /// Control entries that found the submission queue full.
    backlog: VecDeque<squeue::Entry>,
    /// Slots whose receive ended for want of buffers.
    starved: Vec<u32>,
    /// A completion taken from the queue by `park` and left to `receive`.
    peeked: Option<cqueue::Entry>,
    doorbell: Option<OwnedFd>,
    rung: bool,
    slot_events: VecDeque<SlotEvent>,
    /// The shape of every receive: room for an address and a control message.
    template: Box<libc::msghdr>,
    counters: Counters,
    /// Error of the last send that failed.
    send_errno: i32,
    batch_max: usize,
}

impl UringDevice {
    /// Whether datagrams of all ports come through one socket a family; if not, why.
    ///
    /// # Errors
    /// What kernel or rights do not allow, in words for the log.
    pub fn steered(&self) -> Result<(), &str> {
        self.steering.as_ref().map(drop).map_err(String::as_str)
    }

    /// Whether ports can do without sockets of their own: [`Device::install_port`] opens none then.
    #[must_use]
    pub fn needs_no_sockets(&self) -> bool {
        self.steering.is_ok() && self.egress.is_some()
    }

    /// Queues an entry that must not be lost.
    fn push_control(&mut self, entry: squeue::Entry) {
        // SAFETY: every control entry points only at memory that lives as long as the device: the
        // file table's source array, the receive template.
        if !self.backlog.is_empty() || unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.backlog.push_back(entry);
        }
    }

    fn arm_doorbell(&mut self) {
        if let Some(doorbell) = &self.doorbell {
            let poll = opcode::PollAdd::new(Fd(doorbell.as_raw_fd()), libc::POLLIN as u32);
            self.push_control(poll.build().user_data(tag(Kind::Doorbell, 0, 0)));
        }
    }

    /// Enters the kernel: hands over what is queued, runs its deferred work, waits as told.
    fn enter(&mut self, wait: Wait) {
        if !self.starved.is_empty() && !self.buffers.is_empty() {
            self.arm_starved();
        }
        while let Some(entry) = self.backlog.front() {
            // SAFETY: as in push_control.
            if unsafe { self.ring.submission().push(entry) }.is_err() {
                break;
            }
            self.backlog.pop_front();
        }
        self.late_sockets = LATE_SOCKETS_MAX;
        if let Some(egress) = self.egress.as_ref().filter(|_| !self.sending.is_empty()) {
            egress.note_use();
        }
        self.buffers.publish();
        let mut submission = self.ring.submission();
        self.counters.cq_overflow += u64::from(submission.cq_overflow());
        submission.sync();
        let queued = submission.len() as u32;
        drop(submission);
        self.counters.syscalls += 1;
        // Interruption, a passed timeout and lack of resources all mean: look at what there is and
        // come again. Entries not taken stay queued.
        let wait = if self.backlog.is_empty() {
            wait
        } else {
            Wait::No
        };
        if let Err(error) = self.handle.enter(queued, wait) {
            let errno = error.raw_os_error().unwrap_or(0);
            let passing = [
                libc::EINTR,
                libc::ETIME,
                libc::EAGAIN,
                libc::EBUSY,
                libc::ENOMEM,
            ];
            assert!(passing.contains(&errno), "io_uring_enter failed: {error}");
        }
        if self.ring.submission().is_empty() {
            self.release_sent();
        }
    }

    /// Takes back the buffers of sends the kernel has taken.
    fn release_sent(&mut self) {
        while let Some(index) = self.sending.pop() {
            // SAFETY: `index` was lent in `send`; with MSG_DONTWAIT the kernel copies the bytes
            // while it takes the entry, and every entry has been taken.
            let buffer = unsafe { self.pool.reclaim(index) };
            self.put_back(buffer);
        }
    }

    fn put_back(&mut self, buffer: Buffer) {
        if self.buffers.has_room() {
            self.buffers.put(&self.pool, buffer);
        } else {
            self.pool.give(buffer);
        }
    }

    #[cold]
    fn arm_starved(&mut self) {
        for slot in std::mem::take(&mut self.starved) {
            let entry = &self.slots.entries[slot as usize];
            if entry.state == State::Open && !entry.armed && !entry.paused {
                self.arm(slot);
            }
        }
    }

    /// Takes completions up to the first one with a datagram, which is kept for `receive`.
    fn peek(&mut self) -> bool {
        while self.peeked.is_none() {
            let Some(completion) = self.ring.completion().next() else {
                return false;
            };
            let receive = completion.user_data() >> 56 == Kind::Receive as u64;
            if receive && cqueue::buffer_select(completion.flags()).is_some() {
                self.peeked = Some(completion);
            } else {
                self.complete(&completion);
            }
        }
        true
    }

    /// Whether the kernel has work that an enter would turn into completions.
    fn work_waits(&mut self) -> bool {
        let submission = self.ring.submission();
        submission.taskrun() || submission.cq_overflow()
    }

    /// Whether there is anything to hand to the kernel.
    fn has_queued(&mut self) -> bool {
        let rearm = !self.starved.is_empty() && !self.buffers.is_empty();
        rearm || !self.backlog.is_empty() || !self.ring.submission().is_empty()
    }

    /// Queues a datagram, as a frame where that is known to be right.
    fn push_datagram(&mut self, slot: u32, to: &SocketAddr, buffer: &mut Buffer) -> bool {
        let egress = self.egress.as_mut();
        if let Some(frame) = egress.and_then(|egress| egress.frame(slot, to, buffer)) {
            return self.push_frame(slot, to, buffer, frame);
        }
        if self.slots.place(slot).is_none() && self.open_late(slot).is_err() {
            return false;
        }
        let Some(place) = self.slots.place(slot) else {
            return false;
        };
        let (address, length) = write_address(buffer, to);
        let send = opcode::Send::new(Fixed(place), buffer.data(), buffer.len() as u32)
            .flags(libc::MSG_DONTWAIT)
            .dest_addr(address)
            .dest_addr_len(length);
        self.push_send(slot, send)
    }

    /// Queues a datagram with its headers in front.
    #[inline]
    fn push_frame(
        &mut self,
        slot: u32,
        to: &SocketAddr,
        buffer: &mut Buffer,
        frame: Frame,
    ) -> bool {
        let shared = self.shared_from + u32::from(frame.place);
        let Some(place) = self.slots.place(shared) else {
            return false;
        };
        let bytes = frame.header_bytes + buffer.len();
        // SAFETY: the headers stand in the buffer's head, right in front of the datagram.
        let start = unsafe { buffer.data().sub(frame.header_bytes) };
        let mut send =
            opcode::Send::new(Fixed(place), start, bytes as u32).flags(libc::MSG_DONTWAIT);
        if frame.is_packet {
            const _: () = assert!(ADDRESS_BYTES + PACKET_HEADERS_MAX <= HEAD_BYTES);
            // To a raw socket a port is a protocol.
            let (address, length) = write_address(buffer, &SocketAddr::new(to.ip(), 0));
            send = send.dest_addr(address).dest_addr_len(length);
        }
        let taken = self.push_send(slot, send);
        let counter = if frame.is_packet {
            &mut self.counters.shared
        } else {
            &mut self.counters.framed
        };
        *counter += u64::from(taken);
        taken
    }

    fn push_send(&mut self, slot: u32, send: opcode::Send) -> bool {
        let entry = send
            .build()
            .flags(Flags::SKIP_SUCCESS)
            .user_data(tag(Kind::Send, 0, slot));
        // SAFETY: address and bytes lie in the buffer, which stays out of use until the kernel has
        // taken the entry (release_sent).
        if unsafe { self.ring.submission().push(&entry) }.is_ok() {
            return true;
        }
        self.enter(Wait::No);
        // SAFETY: as above.
        unsafe { self.ring.submission().push(&entry) }.is_ok()
    }
}

/// Writes where a datagram goes to the beginning of its buffer's head; gives the place, and the
/// length that the kernel wants to hear.
fn write_address(buffer: &Buffer, to: &SocketAddr) -> (*const libc::sockaddr, u32) {
    let mut address = RawAddress::ZERO;
    let length = address.write(to);
    let head = buffer.base().as_ptr().cast::<RawAddress>();
    // SAFETY: the head belongs to this token, is aligned and larger than an address.
    unsafe { head.write(address) };
    (head.cast_const().cast(), length)
}

impl Device for UringDevice {
    fn install(&mut self, slot: u32, socket: OwnedFd) -> Result<(), DeviceError> {
        if slot >= self.slots_max {
            return Err(DeviceError::SlotRange(slot));
        }
        let steered = match &mut self.steering {
            Ok(steering) if self.slots.is_free(slot) => {
                local_address(&socket).and_then(|address| steering.add(slot, address))
            }
            _ => None,
        };
        let origin = self.egress.is_some().then(|| egress::origin(&socket));
        if let Err(error) = self.slots.take(slot, socket) {
            if let (Some(steered), Ok(steering)) = (steered, &mut self.steering) {
                steering.remove(steered);
            }
            return Err(error);
        }
        self.slots.entries[slot as usize].steered = steered;
        if let (Some(egress), Some(origin)) = (&mut self.egress, origin) {
            egress.open(slot, origin);
        }
        self.begin_receive(slot);
        Ok(())
    }

    fn install_port(&mut self, slot: u32, address: SocketAddr) -> Result<(), DeviceError> {
        if slot >= self.slots_max {
            return Err(DeviceError::SlotRange(slot));
        }
        if !self.slots.is_free(slot) {
            return Err(DeviceError::SlotBusy(slot));
        }
        if self.open_bare(slot, address) {
            return Ok(());
        }
        let socket = media_socket(address).map_err(|source| DeviceError::System {
            what: "bind a media port",
            source,
        })?;
        self.install(slot, socket)
    }

    fn remove(&mut self, slot: u32) -> Result<(), DeviceError> {
        let entry = self.slots.entries.get(slot as usize);
        let entry = entry
            .filter(|_| slot < self.slots_max)
            .ok_or(DeviceError::SlotRange(slot))?;
        if entry.state != State::Open {
            return Err(DeviceError::SlotEmpty(slot));
        }
        self.begin_close(slot);
        Ok(())
    }

    fn pause(&mut self, slot: u32) -> bool {
        let Some(entry) = self.slots.entries.get_mut(slot as usize) else {
            return false;
        };
        if entry.state != State::Open || entry.paused {
            return false;
        }
        entry.paused = true;
        if let (Some(steered), Ok(steering)) = (entry.steered, &self.steering) {
            steering.leave_unread(steered, true);
        } else if entry.armed {
            self.cancel_receive(slot);
        }
        true
    }

    fn resume(&mut self, slot: u32) {
        let Some(entry) = self.slots.entries.get_mut(slot as usize) else {
            return;
        };
        let ended = entry.state == State::Open && !entry.armed;
        if !std::mem::take(&mut entry.paused) {
            return;
        }
        if let (Some(steered), Ok(steering)) = (entry.steered, &self.steering) {
            steering.leave_unread(steered, false);
        }
        if ended {
            self.arm(slot);
        }
    }

    fn take_unread_drops(&mut self, slot: u32) -> u64 {
        let entry = self.slots.entries.get(slot as usize);
        match (entry.and_then(|entry| entry.steered), &self.steering) {
            (Some(steered), Ok(steering)) => steering.take_unread_drops(steered),
            _ => 0,
        }
    }

    fn admit(&mut self, slot: u32, admission: &Admission) {
        let entry = self.slots.entries.get(slot as usize);
        if let (Some(steered), Ok(steering)) =
            (entry.and_then(|entry| entry.steered), &self.steering)
        {
            steering.admit(steered, admission);
        }
    }

    fn slot_event(&mut self) -> Option<SlotEvent> {
        self.slot_events.pop_front()
    }

    fn receive(&mut self, batch: &mut Vec<Received>) -> usize {
        if self.egress.as_ref().is_some_and(Egress::has_news) {
            self.take_news();
        }
        let mut count = 0;
        let mut entered = false;
        while count < self.batch_max {
            if let Some(completion) = self.next_completion() {
                if let Some(received) = self.complete(&completion) {
                    batch.push(received);
                    count += 1;
                }
            } else if count == 0 && !entered && self.work_waits() {
                entered = true;
                self.enter(Wait::No);
            } else {
                break;
            }
        }
        count
    }

    fn send(&mut self, slot: u32, to: &SocketAddr, mut buffer: Buffer) {
        let open = self
            .slots
            .entries
            .get(slot as usize)
            .is_some_and(|e| e.state == State::Open && slot < self.slots_max);
        if open && self.push_datagram(slot, to, &mut buffer) {
            let index = self.pool.lend(buffer);
            self.sending.push(index);
            self.counters.sent += 1;
        } else {
            self.counters.send_failed += 1;
            self.put_back(buffer);
        }
    }

    fn send_copy(&mut self, slot: u32, to: &SocketAddr, bytes: &[u8]) {
        if bytes.len() > BUFFER_BYTES {
            self.counters.send_failed += 1;
            return;
        }
        if self.pool.free() == 0 {
            self.enter(Wait::No);
        }
        let Some(mut buffer) = self.pool.take() else {
            self.counters.send_failed += 1;
            return;
        };
        buffer.set_len(bytes.len());
        buffer.copy_from_slice(bytes);
        self.send(slot, to, buffer);
    }

    fn recycle(&mut self, buffer: Buffer) {
        self.put_back(buffer);
    }

    fn flush(&mut self) {
        if self.has_queued() {
            self.enter(Wait::No);
        }
    }

    fn park(&mut self, timeout_ns: u64) -> Wake {
        let ready = self.rung || !self.slot_events.is_empty() || self.peek();
        if !ready && timeout_ns > 0 {
            self.enter(Wait::AtMost(timeout_ns));
        } else if self.has_queued() || (!ready && self.work_waits()) {
            self.enter(Wait::No);
        }
        let packets = self.peek();
        Wake {
            packets: packets || !self.slot_events.is_empty(),
            doorbell: std::mem::take(&mut self.rung),
        }
    }

    fn take_shared_drops(&mut self) -> u64 {
        self.steering.as_mut().map_or(0, Steering::take_drops)
    }

    fn counts_unseen(&self) -> bool {
        self.steering.is_ok()
    }

    fn counters(&self) -> Counters {
        let strangers = self.steering.as_ref().map_or(0, Steering::strangers);
        Counters {
            strangers: self.strangers_before + strangers,
            ..self.counters
        }
    }

    fn name(&self) -> &'static str {
        "uring"
    }
}
