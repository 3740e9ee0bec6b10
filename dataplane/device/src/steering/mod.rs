//! One receive socket for all ports of a worker.
//!
//! A program in the kernel's socket lookup (`BPF_PROG_TYPE_SK_LOOKUP`) hands the datagrams of our
//! ports to one socket a family: the kernel wakes and empties one queue instead of thousands. A
//! port needs no socket of its own for that. One that has one receives by it whatever the program
//! leaves alone: what came before it knew the port, and everything where the kernel or our rights
//! do not allow the program.
//!
//! The program sees only what it is told in a table by port number; further addresses that use the
//! same number follow in a chain of at most [`SAME_NUMBER_MAX`]. A port that is closed to strangers
//! ([`Admission`]) has them counted and thrown away there: they cost the worker nothing. So has one
//! that is left unread everything.
#![allow(unsafe_code)]

mod bpf;
mod program;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::device::Admission;
use crate::meminfo::socket_drops;
use crate::packet::discard_all;
use crate::socket::set_option;

/// Port numbers.
const PORTS: usize = 1 << 16;
/// Receive buffer of a steering socket, in bytes; the kernel doubles it. Some 15,000 datagrams of
/// G.711: the worker may be away for 50 ms at 300,000 a second.
const RECEIVE_BUFFER_BYTES: libc::c_int = 6 << 20;
const NOBODY: u32 = u32::MAX;
/// Several addresses use the port number.
const SEVERAL: u32 = u32::MAX - 1;
/// Addresses that may use one port number.
const SAME_NUMBER_MAX: usize = 4;
/// No port number: any will do, none is meant.
const ANY_PORT: u32 = 1 << 16;
const NO_PORT: u32 = 1 << 17;
/// The program's clock may be a tick of the kernel late.
const CLOCK_TICK_NS: u64 = 20_000_000;

/// An address that a port's media comes from.
#[repr(C)]
struct Source {
    /// In network order, an IPv4 one in the first word.
    address: [AtomicU32; 4],
    /// In network order.
    port: AtomicU32,
}

/// What the program knows of a port. In the kernel's memory, mapped.
#[repr(C, align(64))]
struct PortEntry {
    /// AF_INET or AF_INET6, 0 = leave this port's datagrams alone.
    family: AtomicU32,
    /// The entry of another address with the same number, 0 = none.
    next: AtomicU32,
    /// The port's own address, as in [`Source`].
    address: [AtomicU32; 4],
    /// Who is never a stranger.
    sources: [Source; 2],
    /// When everybody else is: see [`Admission`].
    closed_from_ns: AtomicU64,
    silent_ns: AtomicU64,
    /// When the program last saw one of `sources`.
    heard_ns: AtomicU64,
    /// Strangers thrown away at all ports; in the entry of number 0, which is no port.
    strangers: AtomicU64,
    /// Not 0: everything is thrown away.
    unread: AtomicU64,
    /// What was thrown away so.
    dropped: AtomicU64,
}

const _: () = assert!(size_of::<PortEntry>() == 128);

impl PortEntry {
    fn admit(&self, admission: &Admission) {
        // Open while the sources change: a datagram that is judged meanwhile is let through.
        self.closed_from_ns.store(u64::MAX, Ordering::SeqCst);
        for (place, source) in self.sources.iter().zip(admission.sources) {
            let port = match source {
                None => NO_PORT,
                Some(source) if source.port() == 0 => ANY_PORT,
                Some(source) => u32::from(source.port().to_be()),
            };
            place.port.store(NO_PORT, Ordering::SeqCst);
            if let Some(source) = source {
                store_address(&place.address, source.ip());
            }
            place.port.store(port, Ordering::SeqCst);
        }
        self.heard_ns.store(0, Ordering::SeqCst);
        self.silent_ns.store(
            admission.silent_ns.saturating_sub(CLOCK_TICK_NS),
            Ordering::SeqCst,
        );
        self.closed_from_ns.store(
            admission.closed_from_ns.saturating_add(CLOCK_TICK_NS),
            Ordering::SeqCst,
        );
    }
}

fn store_address(words: &[AtomicU32; 4], address: IpAddr) {
    let mut octets = [0; 16];
    match address {
        IpAddr::V4(four) => octets[..4].copy_from_slice(&four.octets()),
        IpAddr::V6(six) => octets.copy_from_slice(&six.octets()),
    }
    for (word, bytes) in words.iter().zip(octets.chunks_exact(4)) {
        let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
        word.store(u32::from_ne_bytes(bytes), Ordering::Relaxed);
    }
}

/// What was refused, and how.
type Refusal = (&'static str, io::Error);

/// A port that is in the table.
#[derive(Clone, Copy)]
pub(crate) struct Steered {
    pub(crate) address: SocketAddr,
    entry: u32,
}

struct Owner {
    address: SocketAddr,
    slot: u32,
    entry: u32,
}

/// See the module.
pub(crate) struct Steering {
    table: NonNull<PortEntry>,
    entries: u32,
    /// By family: IPv4, IPv6.
    sockets: [OwnedFd; 2],
    drops: [u32; 2],
    /// Take what is thrown away, by family.
    _discards: [OwnedFd; 2],
    /// Which slot a port number belongs to, or [`SEVERAL`].
    slots: Box<[u32]>,
    /// All steered ports by number.
    owners: HashMap<u16, Vec<Owner>>,
    /// Free entries behind those of the port numbers.
    free: Vec<u32>,
    /// Keeps the program attached.
    _link: OwnedFd,
}

impl Steering {
    /// Makes sockets, tables and program, and attaches it to this thread's network namespace. Room
    /// for the ports of `slots_max` slots.
    pub(crate) fn open(slots_max: u32) -> Result<Self, Refusal> {
        let at = |what| move |error| (what, error);
        let [sockets, discards] = sockets()?;
        let bytes = size_of::<PortEntry>() as u32;
        let entries = PORTS as u32 + slots_max;
        let ports = bpf::create_map(bpf::MAP_ARRAY, bytes, entries, bpf::MAP_MAPPABLE)
            .map_err(at("BPF map"))?;
        let targets = bpf::create_map(bpf::MAP_SOCKETS, 8, 4, 0).map_err(at("BPF socket map"))?;
        for (key, socket) in (0..).zip(sockets.iter().chain(&discards)) {
            bpf::put_socket(&targets, key, socket).map_err(at("BPF socket map"))?;
        }
        let code = program::steering(ports.as_raw_fd(), targets.as_raw_fd());
        let program = bpf::load_socket_lookup(&code).map_err(at("BPF program"))?;
        let table = map_table(&ports, entries).map_err(at("map the BPF map"))?;
        let link = bpf::attach_socket_lookup(&program).inspect_err(|_| unmap_table(table, entries));
        Ok(Self {
            table,
            entries,
            sockets,
            drops: [0; 2],
            _discards: discards,
            slots: vec![NOBODY; PORTS].into_boxed_slice(),
            owners: HashMap::new(),
            free: (PORTS as u32..entries).rev().collect(),
            _link: link.map_err(at("attach the BPF program"))?,
        })
    }

    /// The receive sockets.
    pub(crate) fn sockets(&self) -> io::Result<[OwnedFd; 2]> {
        let [four, six] = &self.sockets;
        Ok([four.try_clone()?, six.try_clone()?])
    }

    /// Steers a port's datagrams to us, on behalf of `slot`, open to everybody. `None`: it is not
    /// one address's port, or too many addresses have the number.
    pub(crate) fn add(&mut self, slot: u32, address: SocketAddr) -> Option<Steered> {
        let scoped = matches!(address, SocketAddr::V6(six) if six.scope_id() != 0);
        if address.ip().is_unspecified() || scoped {
            return None;
        }
        let entry = self.take_entry(slot, address)?;
        let place = self.entry(entry);
        place.admit(&Admission::EVERYBODY);
        place.unread.store(0, Ordering::SeqCst);
        place.dropped.store(0, Ordering::SeqCst);
        store_address(&place.address, address.ip());
        let steered = Steered { address, entry };
        self.turn(steered, true);
        Some(steered)
    }

    /// An entry for one more address of a number: the number's own, else one of the others.
    fn take_entry(&mut self, slot: u32, address: SocketAddr) -> Option<u32> {
        let number = u32::from(address.port());
        let owners = self.owners.entry(address.port()).or_default();
        let entry = if owners.iter().all(|owner| owner.entry != number) {
            number
        } else if owners.len() < SAME_NUMBER_MAX {
            self.free.pop()?
        } else {
            return None;
        };
        owners.push(Owner {
            address,
            slot,
            entry,
        });
        self.link(address.port());
        Some(entry)
    }

    /// Chains the entries of a number's owners, and notes whose the number is.
    fn link(&mut self, number: u16) {
        let owners = self.owners.get(&number).map_or(&[][..], Vec::as_slice);
        self.slots[usize::from(number)] = match owners {
            [] => NOBODY,
            [owner] => owner.slot,
            _ => SEVERAL,
        };
        let first = u32::from(number);
        let others = owners.iter().map(|owner| owner.entry);
        let mut next = 0;
        for entry in others.filter(|entry| *entry != first).chain([first]) {
            self.entry(entry).next.store(next, Ordering::Release);
            next = entry;
        }
    }

    /// Steers a port's datagrams, or leaves them to whom they would have gone.
    fn turn(&self, steered: Steered, on: bool) {
        let family = match steered.address {
            _ if !on => 0,
            SocketAddr::V4(_) => libc::AF_INET,
            SocketAddr::V6(_) => libc::AF_INET6,
        };
        // The address is written before: what the program sees by this store is whole.
        self.entry(steered.entry)
            .family
            .store(family as u32, Ordering::Release);
    }

    /// Whose datagrams are let through to a port.
    pub(crate) fn admit(&self, steered: Steered, admission: &Admission) {
        self.entry(steered.entry).admit(admission);
    }

    /// Throws away and counts everything that comes to a port, or no longer.
    pub(crate) fn leave_unread(&self, steered: Steered, unread: bool) {
        let place = &self.entry(steered.entry).unread;
        place.store(u64::from(unread), Ordering::Release);
    }

    /// What was thrown away while the port was left unread, since the last call.
    pub(crate) fn take_unread_drops(&self, steered: Steered) -> u64 {
        let dropped = &self.entry(steered.entry).dropped;
        match dropped.load(Ordering::Relaxed) {
            0 => 0,
            _ => dropped.swap(0, Ordering::Relaxed),
        }
    }

    /// Strangers thrown away since the program was loaded.
    pub(crate) fn strangers(&self) -> u64 {
        self.entry(0).strangers.load(Ordering::Relaxed)
    }

    /// The port is its slot's no more.
    pub(crate) fn remove(&mut self, steered: Steered) {
        self.turn(steered, false);
        let number = steered.address.port();
        if let Some(owners) = self.owners.get_mut(&number) {
            owners.retain(|owner| owner.entry != steered.entry);
            if owners.is_empty() {
                self.owners.remove(&number);
            }
        }
        self.link(number);
        if steered.entry >= PORTS as u32 {
            self.free.push(steered.entry);
        }
    }

    /// The slot of a port that a datagram was sent to; the whole address is looked at where
    /// several have the number.
    #[inline]
    pub(crate) fn slot(
        &self,
        port: u16,
        address: impl FnOnce() -> Option<SocketAddr>,
    ) -> Option<u32> {
        match self.slots[usize::from(port)] {
            NOBODY => None,
            SEVERAL => {
                let address = address()?;
                let owners = self.owners.get(&port)?;
                let owner = owners.iter().find(|owner| owner.address == address)?;
                Some(owner.slot)
            }
            slot => Some(slot),
        }
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

    fn entry(&self, entry: u32) -> &PortEntry {
        assert!(entry < self.entries, "no such entry");
        // SAFETY: the mapping holds that many entries of plain atomic words, shared with the kernel,
        // and lives as long as self.
        unsafe { self.table.add(entry as usize).as_ref() }
    }
}

impl Drop for Steering {
    fn drop(&mut self) {
        unmap_table(self.table, self.entries);
    }
}

fn map_table(ports: &OwnedFd, entries: u32) -> io::Result<NonNull<PortEntry>> {
    // SAFETY: a new mapping of the map's whole memory, at an address the kernel chooses.
    let table = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            entries as usize * size_of::<PortEntry>(),
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

fn unmap_table(table: NonNull<PortEntry>, entries: u32) {
    // SAFETY: the mapping made by map_table; nobody uses it any more.
    unsafe {
        libc::munmap(
            table.as_ptr().cast(),
            entries as usize * size_of::<PortEntry>(),
        )
    };
}

/// Receive sockets and discard sockets, each by family.
fn sockets() -> Result<[[OwnedFd; 2]; 2], Refusal> {
    let at = |what| move |error| (what, error);
    let by_family = |make: fn(IpAddr) -> io::Result<OwnedFd>| {
        let four = make(Ipv4Addr::LOCALHOST.into()).map_err(at("IPv4 socket"))?;
        // Without IPv6 there are no such datagrams: a second IPv4 socket stands in.
        let six = make(Ipv6Addr::LOCALHOST.into())
            .or_else(|_| make(Ipv4Addr::LOCALHOST.into()))
            .map_err(at("IPv6 socket"))?;
        Ok([four, six])
    };
    Ok([by_family(receive_socket)?, by_family(discard_socket)?])
}

/// A socket that throws away whatever it is given, and answers nobody.
fn discard_socket(address: IpAddr) -> io::Result<OwnedFd> {
    let socket = UdpSocket::bind((address, 0))?;
    discard_all(socket.as_fd())?;
    Ok(socket.into())
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
