//! What a sensible person writes first: epoll, `recvmmsg` on each ready socket, `sendmmsg` of what
//! came. No parsing, no accounting, no sessions. It runs as a process of its own, as the others do.

use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;

use anyhow::Result;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg};

const EVENTS: usize = 256;
const PER_SOCKET: usize = 8;
const BYTES: usize = 2048;

/// Options of the hidden subcommand `bare`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Our address.
    #[arg(long)]
    address: IpAddr,
    /// Our first port; the two parties of call c send to 4 c and 4 c + 2 above it.
    #[arg(long)]
    port: u16,
    /// The parties' address.
    #[arg(long)]
    parties: Ipv4Addr,
    /// Port of the first caller.
    #[arg(long)]
    callers: u16,
    /// Port of the first callee.
    #[arg(long)]
    callees: u16,
    /// Ports from one call's to the next one's.
    #[arg(long)]
    step: u16,
    /// Calls.
    #[arg(long)]
    calls: u16,
}

/// Relays until it is killed.
///
/// # Errors
/// A port cannot be bound.
pub fn run(options: &Options) -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let sockets = bind(options)?;
    let far: Vec<SockaddrIn> = (0..options.calls)
        .flat_map(|call| {
            [options.callers, options.callees].map(|first| {
                let port = first + call * options.step;
                SockaddrIn::from(SocketAddrV4::new(options.parties, port))
            })
        })
        .collect();
    println!("ready");
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for (flow, socket) in sockets.iter().enumerate() {
        epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, flow as u64))?;
    }
    let mut events = [EpollEvent::empty(); EVENTS];
    let mut relay = Relay {
        received: MultiHeaders::preallocate(PER_SOCKET, None),
        sending: MultiHeaders::preallocate(PER_SOCKET, None),
        buffers: vec![[0; BYTES]; PER_SOCKET],
    };
    loop {
        let ready = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => 0,
            other => other?,
        };
        for event in &events[..ready] {
            let flow = event.data() as usize;
            // Neighbours are the two parties of a call.
            let other = flow ^ 1;
            relay.turn(&sockets[flow], &sockets[other], far[other]);
        }
    }
}

fn bind(options: &Options) -> Result<Vec<UdpSocket>> {
    (0..2 * options.calls)
        .map(|flow| {
            let socket = UdpSocket::bind((options.address, options.port + 2 * flow))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        })
        .collect()
}

struct Relay {
    received: MultiHeaders<SockaddrIn>,
    sending: MultiHeaders<SockaddrIn>,
    buffers: Vec<[u8; BYTES]>,
}

impl Relay {
    /// Passes on what waits on one socket. A refused packet is lost, as with any relay; the sink
    /// counts it.
    fn turn(&mut self, from: &UdpSocket, by: &UdpSocket, to: SockaddrIn) {
        let mut lengths = [0; PER_SOCKET];
        let mut count = 0;
        {
            let mut slices: Vec<[IoSliceMut<'_>; 1]> = Vec::with_capacity(PER_SOCKET);
            slices.extend(
                self.buffers
                    .iter_mut()
                    .map(|buffer| [IoSliceMut::new(buffer)]),
            );
            let flags = MsgFlags::MSG_DONTWAIT;
            let came = recvmmsg(
                from.as_raw_fd(),
                &mut self.received,
                slices.iter_mut(),
                flags,
                None,
            );
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
        let to = [Some(to); PER_SOCKET];
        let _ = sendmmsg(
            by.as_raw_fd(),
            &mut self.sending,
            &slices[..count],
            &to[..count],
            [],
            MsgFlags::MSG_DONTWAIT,
        );
    }
}
