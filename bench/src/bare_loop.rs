//! What a sensible person writes first: epoll, `recvmmsg` on each ready socket, `sendmmsg` of what
//! came. No parsing, no accounting, no sessions.

use std::io::{IoSlice, IoSliceMut};
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg};

const EVENTS: usize = 256;
const PER_SOCKET: usize = 8;
const BYTES: usize = 2048;
/// Between looks at whether to go on.
const WAIT_MS: u8 = 20;

/// Where what comes on one socket goes.
#[derive(Debug, Clone, Copy)]
pub struct Way<'a> {
    /// The socket it comes on.
    pub from: BorrowedFd<'a>,
    /// The socket it leaves by.
    pub by: BorrowedFd<'a>,
    /// To whom.
    pub to: SocketAddrV4,
}

/// What the loop has done.
#[derive(Debug, Clone, Copy, Default)]
pub struct Totals {
    /// Datagrams that the kernel took for sending.
    pub sent: u64,
    /// System calls.
    pub calls: u64,
}

/// Relays as long as `go_on` says so; it is asked after each wait.
///
/// # Errors
/// Those of epoll.
pub fn relay(ways: &[Way<'_>], mut go_on: impl FnMut(Totals) -> bool) -> nix::Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for (place, way) in ways.iter().enumerate() {
        epoll.add(way.from, EpollEvent::new(EpollFlags::EPOLLIN, place as u64))?;
    }
    let mut events = [EpollEvent::empty(); EVENTS];
    let mut batch = Batch {
        received: MultiHeaders::preallocate(PER_SOCKET, None),
        sending: MultiHeaders::preallocate(PER_SOCKET, None),
        buffers: Box::new([[0; BYTES]; PER_SOCKET]),
    };
    let mut totals = Totals::default();
    while go_on(totals) {
        let ready = match epoll.wait(&mut events, EpollTimeout::from(WAIT_MS)) {
            Err(nix::errno::Errno::EINTR) => 0,
            other => other?,
        };
        totals.calls += 1;
        for event in &events[..ready] {
            batch.turn(&ways[event.data() as usize], &mut totals);
        }
    }
    Ok(())
}

struct Batch {
    received: MultiHeaders<SockaddrIn>,
    sending: MultiHeaders<SockaddrIn>,
    buffers: Box<[[u8; BYTES]; PER_SOCKET]>,
}

impl Batch {
    /// Passes on what waits on one socket. A refused packet is lost, as with any relay; the sink
    /// counts it.
    fn turn(&mut self, way: &Way<'_>, totals: &mut Totals) {
        let mut lengths = [0; PER_SOCKET];
        let mut count = 0;
        {
            let mut slices = self
                .buffers
                .each_mut()
                .map(|buffer| [IoSliceMut::new(buffer)]);
            let came = recvmmsg(
                way.from.as_raw_fd(),
                &mut self.received,
                slices.iter_mut(),
                MsgFlags::MSG_DONTWAIT,
                None,
            );
            totals.calls += 1;
            for message in came.into_iter().flatten() {
                lengths[count] = message.bytes;
                count += 1;
            }
        }
        if count == 0 {
            return;
        }
        let mut slices: [[IoSlice<'_>; 1]; PER_SOCKET] = [[IoSlice::new(&[])]; PER_SOCKET];
        for (slice, (buffer, length)) in slices.iter_mut().zip(self.buffers.iter().zip(lengths)) {
            *slice = [IoSlice::new(&buffer[..length])];
        }
        let to = [Some(SockaddrIn::from(way.to)); PER_SOCKET];
        let sent = sendmmsg(
            way.by.as_raw_fd(),
            &mut self.sending,
            &slices[..count],
            &to[..count],
            [],
            MsgFlags::MSG_DONTWAIT,
        );
        totals.calls += 1;
        totals.sent += sent.map_or(0, |sent| sent.count() as u64);
    }
}
