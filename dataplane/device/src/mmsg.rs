//! The fallback device: epoll says which sockets are ready, `recvmmsg` empties them, `sendmmsg`
//! sends. It needs nothing that a container would block.
//!
//! Readiness is level-triggered: what one turn leaves in a socket is reported again, behind the
//! others, so a flooded socket takes at most [`PER_SOCKET_MAX`] datagrams a turn from the rest.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::address::{ADDRESS_BYTES, RawAddress};
use crate::buffer::{BUFFER_BYTES, Buffer, Pool};
use crate::device::{
    Config, Counters, Device, DeviceError, Received, SlotEvent, Wake, is_icmp_error,
};

/// Datagrams taken from one socket before the next one's turn.
pub const PER_SOCKET_MAX: usize = 8;
/// Datagrams handed to one `sendmmsg`.
const SEND_RUN_MAX: usize = 64;
const DOORBELL: u64 = u64::MAX;

struct Entry {
    socket: Option<OwnedFd>,
    /// It is left unread, and epoll does not know it.
    paused: bool,
    generation: u32,
}

struct Queued {
    slot: u32,
    length: u32,
    address: RawAddress,
    buffer: Buffer,
}

/// Buffers and headers for one `recvmmsg`, pointing at each other, allocated once.
struct ReceiveSet {
    headers: Box<[libc::mmsghdr; PER_SOCKET_MAX]>,
    vectors: Box<[libc::iovec; PER_SOCKET_MAX]>,
    addresses: Box<[RawAddress; PER_SOCKET_MAX]>,
    buffers: [Option<Buffer>; PER_SOCKET_MAX],
}

impl ReceiveSet {
    fn new() -> Self {
        let mut set = Self {
            headers: Box::new([EMPTY_HEADER; PER_SOCKET_MAX]),
            vectors: Box::new([EMPTY_VECTOR; PER_SOCKET_MAX]),
            addresses: Box::new([RawAddress::ZERO; PER_SOCKET_MAX]),
            buffers: [const { None }; PER_SOCKET_MAX],
        };
        for index in 0..PER_SOCKET_MAX {
            let header = &mut set.headers[index].msg_hdr;
            header.msg_name = (&raw mut set.addresses[index]).cast();
            header.msg_iov = &raw mut set.vectors[index];
            header.msg_iovlen = 1;
        }
        set
    }

    /// Puts a buffer into every place that lacks one; returns how many places from the front can
    /// receive.
    fn fill(&mut self, pool: &mut Pool) -> usize {
        for index in 0..PER_SOCKET_MAX {
            if self.buffers[index].is_none() {
                let Some(buffer) = pool.take() else {
                    return index;
                };
                self.vectors[index].iov_base = buffer.data().cast();
                self.vectors[index].iov_len = BUFFER_BYTES;
                self.buffers[index] = Some(buffer);
            }
            self.headers[index].msg_hdr.msg_namelen = ADDRESS_BYTES as u32;
        }
        PER_SOCKET_MAX
    }
}

const EMPTY_VECTOR: libc::iovec = libc::iovec {
    iov_base: std::ptr::null_mut(),
    iov_len: 0,
};
// SAFETY: mmsghdr is plain data for which all zeroes (null pointers, zero lengths) is valid.
const EMPTY_HEADER: libc::mmsghdr = unsafe { std::mem::zeroed() };

/// See the module.
pub struct MmsgDevice {
    epoll: OwnedFd,
    doorbell: Option<OwnedFd>,
    rung: bool,
    slots: Vec<Entry>,
    pool: Pool,
    events: Vec<libc::epoll_event>,
    next_event: usize,
    /// The sockets were asked after the last `receive` began: `park` did it.
    asked: bool,
    receive_set: ReceiveSet,
    queue: Vec<Queued>,
    send_headers: Vec<libc::mmsghdr>,
    send_vectors: Vec<libc::iovec>,
    slot_events: VecDeque<SlotEvent>,
    counters: Counters,
    batch_max: usize,
}

impl MmsgDevice {
    /// Opens the device.
    ///
    /// # Errors
    /// A value of `config` does not fit, or the system refuses an epoll instance.
    pub fn open(config: &Config) -> Result<Self, DeviceError> {
        config.check()?;
        // SAFETY: no pointers are passed.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if epoll < 0 {
            return Err(DeviceError::last("epoll_create1"));
        }
        let doorbell = config.doorbell.as_ref().map(OwnedFd::try_clone).transpose();
        let doorbell = doorbell.map_err(|source| DeviceError::System {
            what: "duplicate the doorbell",
            source,
        })?;
        let device = Self {
            // SAFETY: a descriptor just returned to us and owned by nobody else.
            epoll: unsafe { OwnedFd::from_raw_fd(epoll) },
            doorbell,
            rung: false,
            slots: (0..config.slots_max)
                .map(|_| Entry {
                    socket: None,
                    paused: false,
                    generation: 0,
                })
                .collect(),
            pool: Pool::new(config.buffers + config.copies)?,
            events: Vec::with_capacity(config.batch_max),
            next_event: 0,
            asked: false,
            receive_set: ReceiveSet::new(),
            queue: Vec::with_capacity((config.buffers + config.copies) as usize),
            send_headers: vec![EMPTY_HEADER; SEND_RUN_MAX],
            send_vectors: vec![EMPTY_VECTOR; SEND_RUN_MAX],
            slot_events: VecDeque::with_capacity(config.slots_max as usize),
            counters: Counters::default(),
            batch_max: config.batch_max,
        };
        if let Some(doorbell) = &device.doorbell {
            device.watch(doorbell.as_raw_fd(), DOORBELL)?;
        }
        Ok(device)
    }

    fn watch(&self, descriptor: RawFd, data: u64) -> Result<(), DeviceError> {
        let mut event = libc::epoll_event {
            events: libc::EPOLLIN as u32,
            u64: data,
        };
        // SAFETY: `event` is valid for the call.
        let result = unsafe {
            libc::epoll_ctl(
                self.epoll.as_raw_fd(),
                libc::EPOLL_CTL_ADD,
                descriptor,
                &raw mut event,
            )
        };
        if result < 0 {
            Err(DeviceError::last("epoll_ctl"))
        } else {
            Ok(())
        }
    }

    fn unwatch(&self, descriptor: RawFd) {
        // SAFETY: no event is passed for EPOLL_CTL_DEL.
        unsafe {
            libc::epoll_ctl(
                self.epoll.as_raw_fd(),
                libc::EPOLL_CTL_DEL,
                descriptor,
                std::ptr::null_mut(),
            )
        };
    }

    /// Fetches the sockets that are ready, waiting at most `timeout_ns`.
    fn wait(&mut self, timeout_ns: u64) {
        self.events.clear();
        self.next_event = 0;
        self.counters.syscalls += 1;
        let timeout = libc::timespec {
            tv_sec: (timeout_ns / 1_000_000_000).min(1 << 30) as i64,
            tv_nsec: (timeout_ns % 1_000_000_000) as i64,
        };
        let capacity = self.events.capacity();
        // SAFETY: `events` has room for `capacity` entries and `timeout` is valid for the call.
        let mut count = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.epoll.as_raw_fd(),
                self.events.as_mut_ptr(),
                capacity as libc::c_int,
                &raw const timeout,
                std::ptr::null::<libc::sigset_t>(),
                0_usize,
            )
        };
        if count < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS) {
            let timeout_ms = timeout_ns.div_ceil(1_000_000).min(1 << 30) as libc::c_int;
            // SAFETY: as above.
            count = i64::from(unsafe {
                libc::epoll_wait(
                    self.epoll.as_raw_fd(),
                    self.events.as_mut_ptr(),
                    capacity as libc::c_int,
                    timeout_ms,
                )
            });
        }
        // SAFETY: the kernel initialised `count` entries; an interrupted wait counts as none.
        unsafe { self.events.set_len(count.max(0) as usize) };
        self.take_doorbell();
    }

    /// Reads the doorbell empty and takes it out of the events.
    fn take_doorbell(&mut self) {
        let Some(at) = self.events.iter().position(|event| event.u64 == DOORBELL) else {
            return;
        };
        self.events.swap_remove(at);
        self.rung = true;
        if let Some(doorbell) = &self.doorbell {
            let mut value = 0_u64;
            self.counters.syscalls += 1;
            // SAFETY: reads 8 bytes into a u64. The result does not matter: rung is rung.
            unsafe { libc::read(doorbell.as_raw_fd(), (&raw mut value).cast(), 8) };
        }
    }

    /// Takes what one socket has, at most `limit` datagrams.
    fn receive_from(&mut self, slot: u32, limit: usize, batch: &mut Vec<Received>) -> usize {
        let Some(socket) = &self.slots[slot as usize].socket else {
            return 0;
        };
        let places = self.receive_set.fill(&mut self.pool).min(limit);
        if places == 0 {
            self.counters.buffers_exhausted += 1;
            return 0;
        }
        self.counters.syscalls += 1;
        // SAFETY: the first `places` headers point at live buffers, vectors and addresses that
        // nothing else touches during the call.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.receive_set.headers.as_mut_ptr(),
                places as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        if count < 0 {
            let errno = last_errno();
            if is_icmp_error(errno) {
                self.counters.icmp_errors += 1;
            } else if errno != libc::EAGAIN && errno != libc::EINTR {
                self.counters.receive_errors += 1;
            }
            return 0;
        }
        let mut handed = 0;
        for index in 0..count as usize {
            let header = &self.receive_set.headers[index];
            let length = header.msg_len as usize;
            let name_length = header.msg_hdr.msg_namelen as usize;
            let truncated =
                length >= BUFFER_BYTES || header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
            let source = RawAddress::read(&self.receive_set.addresses[index].0, name_length);
            let Some(source) = source else {
                self.counters.receive_errors += 1;
                continue;
            };
            let Some(mut buffer) = self.receive_set.buffers[index].take() else {
                continue;
            };
            buffer.set_len(length.min(BUFFER_BYTES));
            self.counters.truncated += u64::from(truncated);
            batch.push(Received {
                slot,
                truncated,
                source,
                buffer,
            });
            handed += 1;
        }
        self.counters.received += handed as u64;
        handed
    }

    /// Sends `queue[from..to]`, all from one slot.
    fn send_run(&mut self, from: usize, to: usize) {
        let run = to - from;
        let socket = self
            .slots
            .get(self.queue[from].slot as usize)
            .and_then(|s| s.socket.as_ref());
        let Some(socket) = socket.map(AsRawFd::as_raw_fd) else {
            self.counters.send_failed += run as u64;
            return;
        };
        if run == 1 {
            self.send_one(socket, from);
            return;
        }
        for (at, queued) in self.queue[from..to].iter_mut().enumerate() {
            self.send_vectors[at] = libc::iovec {
                iov_base: queued.buffer.data().cast(),
                iov_len: queued.buffer.len(),
            };
            let header = &mut self.send_headers[at].msg_hdr;
            header.msg_name = (&raw mut queued.address).cast();
            header.msg_namelen = queued.length;
            header.msg_iov = &raw mut self.send_vectors[at];
            header.msg_iovlen = 1;
        }
        let mut done = 0;
        while done < run {
            self.counters.syscalls += 1;
            // SAFETY: headers[done..run] were filled above and point into `queue` and
            // `send_vectors`, which do not move during the call.
            let sent = unsafe {
                libc::sendmmsg(
                    socket,
                    self.send_headers.as_mut_ptr().add(done),
                    (run - done) as u32,
                    libc::MSG_DONTWAIT,
                )
            };
            if sent > 0 {
                self.counters.sent += sent as u64;
                done += sent as usize;
            } else {
                self.count_send_error(last_errno());
                done += 1;
            }
        }
    }

    fn send_one(&mut self, socket: RawFd, at: usize) {
        let queued = &self.queue[at];
        self.counters.syscalls += 1;
        // SAFETY: buffer and address are live for the call, of the lengths given.
        let sent = unsafe {
            libc::sendto(
                socket,
                queued.buffer.data().cast_const().cast(),
                queued.buffer.len(),
                libc::MSG_DONTWAIT,
                (&raw const queued.address).cast(),
                queued.length,
            )
        };
        if sent >= 0 {
            self.counters.sent += 1;
        } else {
            self.count_send_error(last_errno());
        }
    }

    fn count_send_error(&mut self, errno: i32) {
        self.counters.send_failed += 1;
        self.counters.icmp_errors += u64::from(errno == libc::ECONNREFUSED);
    }
}

fn last_errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

impl Device for MmsgDevice {
    fn install(&mut self, slot: u32, socket: OwnedFd) -> Result<(), DeviceError> {
        let entry = self
            .slots
            .get_mut(slot as usize)
            .ok_or(DeviceError::SlotRange(slot))?;
        if entry.socket.is_some() {
            return Err(DeviceError::SlotBusy(slot));
        }
        entry.generation = entry.generation.wrapping_add(1);
        let data = u64::from(slot) | (u64::from(entry.generation) << 32);
        self.watch(socket.as_raw_fd(), data)?;
        self.slots[slot as usize].socket = Some(socket);
        Ok(())
    }

    fn remove(&mut self, slot: u32) -> Result<(), DeviceError> {
        self.flush();
        let entry = self
            .slots
            .get_mut(slot as usize)
            .ok_or(DeviceError::SlotRange(slot))?;
        let socket = entry.socket.take().ok_or(DeviceError::SlotEmpty(slot))?;
        let paused = std::mem::take(&mut entry.paused);
        if !paused {
            // A duplicate of the descriptor elsewhere would keep the watch alive: end it here.
            self.unwatch(socket.as_raw_fd());
        }
        drop(socket);
        self.slot_events.push_back(SlotEvent::Closed { slot });
        Ok(())
    }

    fn pause(&mut self, slot: u32) -> bool {
        let Some(entry) = self.slots.get_mut(slot as usize) else {
            return false;
        };
        let Some(socket) = entry.socket.as_ref().map(AsRawFd::as_raw_fd) else {
            return false;
        };
        if std::mem::replace(&mut entry.paused, true) {
            return false;
        }
        // What epoll has said of it already is of a generation before.
        entry.generation = entry.generation.wrapping_add(1);
        self.unwatch(socket);
        true
    }

    fn resume(&mut self, slot: u32) {
        let Some(entry) = self.slots.get_mut(slot as usize) else {
            return;
        };
        let Some(socket) = entry.socket.as_ref().map(AsRawFd::as_raw_fd) else {
            return;
        };
        if !std::mem::take(&mut entry.paused) {
            return;
        }
        let data = u64::from(slot) | (u64::from(entry.generation) << 32);
        if let Err(error) = self.watch(socket, data) {
            let errno = match error {
                DeviceError::System { source, .. } => source.raw_os_error().unwrap_or(0),
                _ => 0,
            };
            self.slots[slot as usize].socket = None;
            self.slot_events
                .push_back(SlotEvent::Failed { slot, errno });
        }
    }

    fn slot_event(&mut self) -> Option<SlotEvent> {
        self.slot_events.pop_front()
    }

    fn receive(&mut self, batch: &mut Vec<Received>) -> usize {
        if self.next_event == self.events.len() && !self.asked {
            self.wait(0);
        }
        self.asked = false;
        let mut count = 0;
        while count < self.batch_max && self.next_event < self.events.len() {
            let data = self.events[self.next_event].u64;
            self.next_event += 1;
            let (slot, generation) = (data as u32, (data >> 32) as u32);
            if self.slots[slot as usize].generation == generation {
                let limit = self.batch_max - count;
                count += self.receive_from(slot, limit, batch);
            }
        }
        count
    }

    fn send(&mut self, slot: u32, to: &SocketAddr, buffer: Buffer) {
        let mut address = RawAddress::ZERO;
        let length = address.write(to);
        self.queue.push(Queued {
            slot,
            length,
            address,
            buffer,
        });
    }

    fn send_copy(&mut self, slot: u32, to: &SocketAddr, bytes: &[u8]) {
        if bytes.len() > BUFFER_BYTES {
            self.counters.send_failed += 1;
            return;
        }
        if self.pool.free() == 0 {
            self.flush();
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
        self.pool.give(buffer);
    }

    fn flush(&mut self) {
        let mut from = 0;
        while from < self.queue.len() {
            let slot = self.queue[from].slot;
            let run = self.queue[from..].iter().take(SEND_RUN_MAX);
            let to = from + run.take_while(|queued| queued.slot == slot).count();
            self.send_run(from, to);
            from = to;
        }
        for queued in self.queue.drain(..) {
            self.pool.give(queued.buffer);
        }
    }

    fn park(&mut self, timeout_ns: u64) -> Wake {
        self.flush();
        if self.next_event == self.events.len() {
            let hurry = self.rung || !self.slot_events.is_empty();
            self.wait(if hurry { 0 } else { timeout_ns });
            self.asked = true;
        }
        Wake {
            packets: self.next_event < self.events.len() || !self.slot_events.is_empty(),
            doorbell: std::mem::take(&mut self.rung),
        }
    }

    fn counters(&self) -> Counters {
        self.counters
    }

    fn name(&self) -> &'static str {
        "mmsg"
    }
}

impl Drop for MmsgDevice {
    fn drop(&mut self) {
        for queued in self.queue.drain(..) {
            self.pool.give(queued.buffer);
        }
        for buffer in self.receive_set.buffers.iter_mut().filter_map(Option::take) {
            self.pool.give(buffer);
        }
    }
}
