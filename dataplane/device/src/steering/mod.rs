//! One receive socket for all ports of a worker.
//!
//! A program in the kernel's socket lookup (`BPF_PROG_TYPE_SK_LOOKUP`) hands the datagrams of our
//! ports to one socket a family: the kernel wakes and empties one queue instead of thousands. The
//! ports keep their sockets. They send, they hold the port, and they receive whatever the program
//! leaves alone: what came before it knew the port, what comes while the port is left unread, and
//! everything where the kernel or our rights do not allow the program.
//!
//! The program sees only what it is told in a table by port number. Two addresses that use the same
//! number share a place in it: the second keeps its own socket.
#![allow(unsafe_code)]

mod bpf;
mod program;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::address::RawAddress;
use crate::meminfo::socket_drops;

/// Port numbers.
const PORTS: usize = 1 << 16;
/// Receive buffer of a steering socket, in bytes; the kernel doubles it. Some 15,000 datagrams of
/// G.711: the worker may be away for 50 ms at 300,000 a second.
const RECEIVE_BUFFER_BYTES: libc::c_int = 6 << 20;
const NOBODY: u32 = u32::MAX;

/// What the program knows of a port number. In the kernel's memory, mapped.
#[repr(C)]
struct PortEntry {
    /// AF_INET or AF_INET6, 0 = leave this port's datagrams alone.
    family: AtomicU32,
    /// The port's own address in network order, an IPv4 one in the first word.
    address: [AtomicU32; 4],
    reserved: [u32; 3],
}

const _: () = assert!(size_of::<PortEntry>() == 32);

/// A port that is in the table.
#[derive(Clone, Copy)]
pub(crate) struct Steered {
    port: u16,
    family: u16,
}

/// See the module.
pub(crate) struct Steering {
    table: NonNull<PortEntry>,
    /// By family: IPv4, IPv6.
    sockets: [OwnedFd; 2],
    drops: [u32; 2],
    /// Which slot a port number belongs to.
    slots: Box<[u32]>,
    /// Keeps the program attached.
    _link: OwnedFd,
}

impl Steering {
    /// Makes sockets, tables and program, and attaches it to this thread's network namespace.
    pub(crate) fn open() -> Result<Self, (&'static str, io::Error)> {
        let at = |what| move |error| (what, error);
        let four = receive_socket(IpAddr::V4(Ipv4Addr::LOCALHOST)).map_err(at("IPv4 socket"))?;
        // Without IPv6 there are no such datagrams: a second IPv4 socket stands in.
        let six = receive_socket(IpAddr::V6(Ipv6Addr::LOCALHOST))
            .or_else(|_| receive_socket(IpAddr::V4(Ipv4Addr::LOCALHOST)))
            .map_err(at("IPv6 socket"))?;
        let bytes = size_of::<PortEntry>() as u32;
        let ports = bpf::create_map(bpf::MAP_ARRAY, bytes, PORTS as u32, bpf::MAP_MAPPABLE)
            .map_err(at("BPF map"))?;
        let sockets = bpf::create_map(bpf::MAP_SOCKETS, 8, 2, 0).map_err(at("BPF socket map"))?;
        bpf::put_socket(&sockets, 0, &four).map_err(at("BPF socket map"))?;
        bpf::put_socket(&sockets, 1, &six).map_err(at("BPF socket map"))?;
        let code = program::steering(ports.as_raw_fd(), sockets.as_raw_fd());
        let program = bpf::load_socket_lookup(&code).map_err(at("BPF program"))?;
        let table = map_table(&ports).map_err(at("map the BPF map"))?;
        let link = bpf::attach_socket_lookup(&program).inspect_err(|_| unmap_table(table));
        Ok(Self {
            table,
            sockets: [four, six],
            drops: [0; 2],
            slots: vec![NOBODY; PORTS].into_boxed_slice(),
            _link: link.map_err(at("attach the BPF program"))?,
        })
    }

    /// The receive sockets.
    pub(crate) fn sockets(&self) -> io::Result<[OwnedFd; 2]> {
        let [four, six] = &self.sockets;
        Ok([four.try_clone()?, six.try_clone()?])
    }

    /// Steers a bound port's datagrams to us, on behalf of `slot`. `None`: it
    /// is not one address's port, or another address has the number.
    pub(crate) fn add(&mut self, slot: u32, socket: &OwnedFd) -> Option<Steered> {
        let address = local_address(socket)?;
        let scoped = matches!(address, SocketAddr::V6(six) if six.scope_id() != 0);
        let port = address.port();
        if address.ip().is_unspecified() || scoped || self.slots[usize::from(port)] != NOBODY {
            return None;
        }
        self.slots[usize::from(port)] = slot;
        let mut octets = [0; 16];
        match address.ip() {
            IpAddr::V4(four) => octets[..4].copy_from_slice(&four.octets()),
            IpAddr::V6(six) => octets.copy_from_slice(&six.octets()),
        }
        for (word, bytes) in self.entry(port).address.iter().zip(octets.chunks_exact(4)) {
            let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
            word.store(u32::from_ne_bytes(bytes), Ordering::Relaxed);
        }
        let family = if address.is_ipv6() {
            libc::AF_INET6
        } else {
            libc::AF_INET
        };
        let steered = Steered {
            port,
            family: family as u16,
        };
        self.turn(steered, true);
        Some(steered)
    }

    /// Steers a port's datagrams, or leaves them to its own socket.
    pub(crate) fn turn(&self, steered: Steered, on: bool) {
        let family = if on { u32::from(steered.family) } else { 0 };
        // The address is written before: what the program sees by this store is whole.
        self.entry(steered.port)
            .family
            .store(family, Ordering::Release);
    }

    /// The port is its slot's no more.
    pub(crate) fn remove(&mut self, steered: Steered) {
        self.turn(steered, false);
        self.slots[usize::from(steered.port)] = NOBODY;
    }

    /// The slot of a port that a datagram was sent to.
    #[inline]
    pub(crate) fn slot(&self, port: u16) -> Option<u32> {
        let slot = self.slots[usize::from(port)];
        (slot != NOBODY).then_some(slot)
    }

    /// Datagrams the kernel dropped on the receive sockets since the last call.
    pub(crate) fn take_drops(&mut self) -> u64 {
        let mut rise = 0;
        for (socket, before) in self.sockets.iter().zip(&mut self.drops) {
            let now = socket_drops(socket.as_fd()).unwrap_or(*before);
            rise += u64::from(now.wrapping_sub(std::mem::replace(before, now)));
        }
        rise
    }

    fn entry(&self, port: u16) -> &PortEntry {
        // SAFETY: the mapping holds PORTS entries of plain atomic words, shared with the kernel, and
        // lives as long as self.
        unsafe { self.table.add(usize::from(port)).as_ref() }
    }
}

impl Drop for Steering {
    fn drop(&mut self) {
        unmap_table(self.table);
    }
}

fn map_table(ports: &OwnedFd) -> io::Result<NonNull<PortEntry>> {
    // SAFETY: a new mapping of the map's whole memory, at an address the kernel chooses.
    let table = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            PORTS * size_of::<PortEntry>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_POPULATE,
            ports.as_raw_fd(),
            0,
        )
    };
    if table == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(table.cast()).ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

fn unmap_table(table: NonNull<PortEntry>) {
    // SAFETY: the mapping made by map_table; nobody uses it any more.
    unsafe { libc::munmap(table.as_ptr().cast(), PORTS * size_of::<PortEntry>()) };
}

/// A socket that is bound to a port of its own on the loopback, and told where each datagram was
/// sent to.
fn receive_socket(address: IpAddr) -> io::Result<OwnedFd> {
    let socket = UdpSocket::bind((address, 0))?;
    socket.set_nonblocking(true)?;
    let (level, option) = if address.is_ipv6() {
        (libc::SOL_IPV6, libc::IPV6_RECVORIGDSTADDR)
    } else {
        (libc::SOL_IP, libc::IP_RECVORIGDSTADDR)
    };
    let socket = OwnedFd::from(socket);
    set_option(&socket, level, option, 1)?;
    set_option(
        &socket,
        libc::SOL_SOCKET,
        libc::SO_RCVBUFFORCE,
        RECEIVE_BUFFER_BYTES,
    )?;
    Ok(socket)
}

fn set_option(socket: &OwnedFd, level: i32, option: i32, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the option's value is a live int of the length given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as u32,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn local_address(socket: &OwnedFd) -> Option<SocketAddr> {
    let mut raw = RawAddress::ZERO;
    let mut length = size_of::<RawAddress>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into the address.
    let result =
        unsafe { libc::getsockname(socket.as_raw_fd(), (&raw mut raw).cast(), &raw mut length) };
    if result != 0 {
        return None;
    }
    RawAddress::read(&raw.0, length as usize)
}
