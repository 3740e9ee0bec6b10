//! What the kernel has done: datagrams that came, receives that ended, changes of sockets.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use io_uring::cqueue;

use super::slots::State;
use super::{CONTROL_BYTES, CONTROL_OFFSET, Kind, NAME_OFFSET, SENT_TO_PORT_OFFSET, UringDevice};
use crate::address::{ADDRESS_BYTES, RawAddress};
use crate::buffer::{BUFFER_BYTES, Buffer, HEAD_BYTES};
use crate::device::{Received, is_icmp_error};

impl UringDevice {
    pub(super) fn next_completion(&mut self) -> Option<cqueue::Entry> {
        self.peeked.take().or_else(|| self.ring.completion().next())
    }

    /// Acts on a completion that carries no datagram; hands back one that does.
    #[inline]
    pub(super) fn complete(&mut self, completion: &cqueue::Entry) -> Option<Received> {
        let user_data = completion.user_data();
        let slot = user_data as u32;
        if user_data >> 56 == Kind::Receive as u64 {
            return self.complete_receive(completion, slot);
        }
        self.complete_control(user_data, completion.result());
        None
    }

    #[inline]
    fn complete_receive(&mut self, completion: &cqueue::Entry, slot: u32) -> Option<Received> {
        let (result, flags) = (completion.result(), completion.flags());
        let buffer = cqueue::buffer_select(flags).map(|index| {
            self.buffers.taken();
            // SAFETY: the kernel has taken this buffer from the ring and this completion hands it
            // over, filled.
            unsafe { self.pool.reclaim(u32::from(index)) }
        });
        if !cqueue::more(flags) {
            self.receive_ended(slot, result);
        }
        let mut buffer = buffer?;
        let whole = result >= HEAD_BYTES as i32;
        let slot = match whole {
            true if slot >= self.slots_max => self.sent_to(&buffer),
            _ => Some(slot),
        };
        let open = |slot: &u32| self.slots.entries[*slot as usize].state == State::Open;
        let Some(slot) = slot.filter(open).filter(|_| whole) else {
            self.counters.late += u64::from(whole);
            self.put_back(buffer);
            return None;
        };
        let length = result as usize - HEAD_BYTES;
        let truncated = length >= BUFFER_BYTES;
        // SAFETY: the head is HEAD_BYTES long and belongs to this token; its first fields are what
        // the kernel wrote: name length (u32), two more lengths, flags, then the name.
        let (name_length, name) = unsafe {
            let head = buffer.base().as_ptr().cast_const();
            (
                head.cast::<u32>().read(),
                &*head.add(NAME_OFFSET).cast::<[u8; ADDRESS_BYTES]>(),
            )
        };
        let Some(source) = RawAddress::read(name, name_length as usize) else {
            self.counters.receive_errors += 1;
            self.put_back(buffer);
            return None;
        };
        buffer.set_len(length.min(BUFFER_BYTES));
        self.counters.truncated += u64::from(truncated);
        self.counters.received += 1;
        Some(Received {
            slot,
            truncated,
            source,
            buffer,
        })
    }

    /// The slot that a datagram on a shared socket is for.
    #[inline]
    fn sent_to(&mut self, buffer: &Buffer) -> Option<u32> {
        // SAFETY: the head is HEAD_BYTES long and belongs to this token. The control message's
        // length stands in the second word, what follows is the kernel's or old content.
        let (control_bytes, port) = unsafe {
            let head = buffer.base().as_ptr().cast_const();
            let port = head.add(SENT_TO_PORT_OFFSET).cast::<[u8; 2]>().read();
            (head.cast::<u32>().add(1).read(), u16::from_be_bytes(port))
        };
        self.counters.steered += 1;
        let steering = self.steering.as_ref().ok()?;
        (control_bytes > 0)
            .then(|| steering.slot(port, || sent_to_address(buffer)))
            .flatten()
    }

    /// The kernel ended a slot's multishot receive: start it again where that makes sense.
    #[cold]
    fn receive_ended(&mut self, slot: u32, result: i32) {
        let entry = &mut self.slots.entries[slot as usize];
        entry.armed = false;
        if entry.state == State::Closing {
            self.settle(slot);
            return;
        }
        if entry.paused {
            return;
        }
        match -result {
            libc::ENOBUFS => {
                self.counters.buffers_exhausted += 1;
                self.starved.push(slot);
            }
            errno if is_icmp_error(errno) => {
                self.counters.icmp_errors += 1;
                self.arm(slot);
            }
            // Resumed before the kernel had ended it.
            libc::ECANCELED => self.arm(slot),
            libc::ENOMEM | libc::EINTR | libc::EAGAIN | libc::ENETDOWN => {
                self.counters.receive_errors += 1;
                self.starved.push(slot);
            }
            errno if errno > 0 => {
                self.counters.receive_errors += 1;
                self.fail(slot, errno);
            }
            _ => self.arm(slot),
        }
    }

    #[cold]
    fn complete_control(&mut self, user_data: u64, result: i32) {
        let slot = user_data as u32;
        let kind = user_data >> 56;
        if kind == Kind::Send as u64 {
            // Success is not reported; the send was counted when it was queued.
            self.send_errno = -result;
            self.counters.sent -= 1;
            self.counters.send_failed += 1;
            self.counters.icmp_errors += u64::from(-result == libc::ECONNREFUSED);
        } else if kind == Kind::Doorbell as u64 {
            self.doorbell_rang();
        } else {
            self.slots.entries[slot as usize].pending -= 1;
            if kind == Kind::Install as u64 {
                // The ring's table holds the file now, or never will: our descriptor may go.
                self.slots.entries[slot as usize].socket = None;
                if let (Some(egress), Some(place)) =
                    (&mut self.egress, slot.checked_sub(self.shared_from))
                {
                    egress.is_ready(place as usize, result > 0);
                }
                if result < 1 {
                    self.fail(slot, if result < 0 { -result } else { libc::EBADF });
                }
            }
            self.settle(slot);
        }
    }

    fn doorbell_rang(&mut self) {
        self.rung = true;
        if let Some(doorbell) = &self.doorbell {
            let mut value = 0_u64;
            self.counters.syscalls += 1;
            // SAFETY: reads 8 bytes into a u64; the poll said that they are there.
            unsafe { libc::read(doorbell.as_raw_fd(), (&raw mut value).cast(), 8) };
        }
        self.arm_doorbell();
    }
}

/// The whole address that a datagram on a shared socket was sent to.
#[cold]
fn sent_to_address(buffer: &Buffer) -> Option<SocketAddr> {
    const AT: usize = CONTROL_OFFSET + size_of::<libc::cmsghdr>();
    const _: () = assert!(AT + ADDRESS_BYTES <= CONTROL_OFFSET + CONTROL_BYTES);
    // SAFETY: the head belongs to this token and reaches as far; it holds the kernel's or old
    // content.
    let raw = unsafe {
        let head = buffer.base().as_ptr().cast_const();
        head.add(AT).cast::<[u8; ADDRESS_BYTES]>().read()
    };
    RawAddress::read(&raw, ADDRESS_BYTES)
}
