//! Sending datagrams as whole Ethernet frames by packet socket: without the kernel's route lookup,
//! packet filters and neighbour cache, which [`crate::routes`] asks on our behalf.
//!
//! Each slot has a *lane*: the headers of what it sends, ready for the destination it last sent to.
//! A lane is made anew when the destination changes, or anything that [`crate::routes`] told
//! (`epoch`). Until its path is known, and whenever it is not for frames, a port without a socket
//! sends whole IP packets by a raw socket that all ports of its address share: the kernel routes
//! and filters them like any. Where that would not be the same as a datagram's own socket (routes or
//! encryption by port number), or the packet is too long, the slot's own socket sends.

mod headers;
mod paths;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;

use crate::buffer::Buffer;
use crate::routes::{INTERFACES_MAX, Mac, Request, RouteSeat, Update};
use crate::socket::{self, packet_sender};
use headers::{ETHERNET_BYTES, Headers};
pub(crate) use headers::{Origin, PACKET_HEADERS_MAX};
use paths::{NO_PATH, Paths};

/// Largest IP packet that is sent as a frame: what every path carries (RFC 8200 section 5). Larger
/// ones are left to the kernel, which knows the path's MTU and fragments.
const PACKET_BYTES_MAX: usize = 1280;
/// Addresses of ours that have a raw socket, over the device's whole life.
const SENDERS_MAX: usize = 16;
/// Places of all sockets that slots share to send: interfaces, then raw sockets.
pub(crate) const PLACES_MAX: usize = INTERFACES_MAX + SENDERS_MAX;
/// No epoch has this number.
const NEVER: u32 = 0;

/// What a slot sends by. The first two cache lines are all that a packet needs.
#[repr(C, align(64))]
struct Lane {
    headers: Headers,
    /// Place of the socket to send by, or [`BY_SOCKET`].
    place: u8,
    /// Largest IP packet.
    packet_bytes_max: u16,
    to: SocketAddr,
    epoch: u32,
    path: u32,
}

const BY_SOCKET: u8 = u8::MAX;
const _: () = assert!(PLACES_MAX < BY_SOCKET as usize);
const _: () = assert!(size_of::<Lane>() == 128);

impl Lane {
    const EMPTY: Self = Self {
        headers: Headers::EMPTY,
        place: BY_SOCKET,
        packet_bytes_max: 0,
        to: SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)),
        epoch: NEVER,
        path: NO_PATH,
    };
}

/// A frame in front of whose payload the headers stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Place of the socket to send it by.
    pub(crate) place: u8,
    /// Bytes of headers right in front of the datagram.
    pub(crate) header_bytes: usize,
    /// It is an IP packet without Ethernet header, for a raw socket.
    pub(crate) is_packet: bool,
}

/// An address of ours that datagrams are sent from as whole IP packets.
struct Sender {
    address: IpAddr,
    /// What a datagram from there looks like, whatever its port.
    hops: u8,
    traffic_class: u8,
}

/// A socket that slots share to send: to be put at its place; say [`Egress::is_ready`] when it is
/// there.
pub(crate) struct Shared {
    pub(crate) place: u8,
    pub(crate) socket: OwnedFd,
}

/// See the module.
pub(crate) struct Egress {
    seat: RouteSeat,
    lanes: Box<[Lane]>,
    origins: Box<[Option<Origin>]>,
    paths: Paths,
    /// Raw sockets by place.
    senders: Vec<Sender>,
    /// Whether raw sockets do the same as a port's own.
    packets_allowed: bool,
    /// The routes' thread tells of that.
    packets_asked: bool,
    ready: [bool; PLACES_MAX],
    epoch: u32,
}

impl Egress {
    pub(crate) fn new(seat: RouteSeat, slots: u32) -> Self {
        Self {
            paths: Paths::new(seat.clone(), slots),
            seat,
            lanes: (0..slots).map(|_| Lane::EMPTY).collect(),
            origins: (0..slots).map(|_| None).collect(),
            senders: Vec::with_capacity(SENDERS_MAX),
            packets_allowed: false,
            packets_asked: false,
            ready: [false; PLACES_MAX],
            epoch: NEVER + 1,
        }
    }

    /// What a port without a socket sends: an origin, and the first time for an address the raw
    /// socket to put at a place.
    ///
    /// # Errors
    /// There is no such socket to be had; the port needs one of its own.
    pub(crate) fn origin_at(&mut self, port: SocketAddr) -> io::Result<(Origin, Option<Shared>)> {
        if port.ip().is_unspecified() || is_scoped(&port) {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        if !self.packets_asked {
            self.packets_asked = self.seat.ask(Request::Packets).is_ok();
        }
        let origin = |sender: &Sender| Origin {
            address: port,
            hops: sender.hops,
            traffic_class: sender.traffic_class,
        };
        if let Some(known) = self.senders.iter().find(|known| known.address == port.ip()) {
            return Ok((origin(known), None));
        }
        if self.senders.len() == SENDERS_MAX {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let socket = packet_sender(port.ip())?;
        let seen = origin_of(&socket, port).ok_or(io::ErrorKind::Unsupported)?;
        self.senders.push(Sender {
            address: port.ip(),
            hops: seen.hops,
            traffic_class: seen.traffic_class,
        });
        let place = (INTERFACES_MAX + self.senders.len() - 1) as u8;
        Ok((seen, Some(Shared { place, socket })))
    }

    /// A port was opened at a slot.
    pub(crate) fn open(&mut self, slot: u32, origin: Option<Origin>) {
        self.origins[slot as usize] = origin;
        self.lanes[slot as usize].epoch = NEVER;
    }

    /// The slot sends no more.
    pub(crate) fn close(&mut self, slot: u32) {
        let lane = std::mem::replace(&mut self.lanes[slot as usize], Lane::EMPTY);
        self.paths.leave(lane.path);
        self.origins[slot as usize] = None;
    }

    /// Whether [`Self::next_news`] has something to do.
    #[inline]
    pub(crate) fn has_news(&self) -> bool {
        self.seat.has_news()
    }

    /// Notes that something was sent.
    #[inline]
    pub(crate) fn note_use(&self) {
        self.seat.note_use();
    }

    /// Takes what the routes' thread says; what the device has to do about it.
    pub(crate) fn next_news(&mut self) -> Option<Shared> {
        while let Some(update) = self.seat.next() {
            match update {
                Update::Interface { place, socket } => {
                    return Some(Shared { place, socket });
                }
                Update::Packets { allowed } => {
                    self.packets_allowed = allowed;
                    self.new_epoch();
                }
                Update::Path { path, hop } => {
                    if self.paths.set(path, hop) {
                        self.new_epoch();
                    }
                }
            }
        }
        None
    }

    /// A shared socket is there, or cannot be.
    pub(crate) fn is_ready(&mut self, place: usize, ready: bool) {
        self.ready[place] = ready;
        self.new_epoch();
    }

    fn new_epoch(&mut self) {
        self.epoch = self.epoch.wrapping_add(1).max(NEVER + 1);
    }

    /// Puts headers in front of a datagram; `None`: its socket is to send it.
    #[inline]
    pub(crate) fn frame(
        &mut self,
        slot: u32,
        to: &SocketAddr,
        buffer: &mut Buffer,
    ) -> Option<Frame> {
        let lane = &self.lanes[slot as usize];
        if lane.epoch != self.epoch || lane.to != *to {
            self.choose(slot, to);
        }
        let lane = &self.lanes[slot as usize];
        let fits = || lane.headers.packet_bytes(buffer.len()) <= usize::from(lane.packet_bytes_max);
        if lane.place == BY_SOCKET || !fits() {
            return None;
        }
        let (head, payload) = buffer.parts();
        let header_bytes = lane.headers.write(head, payload);
        let is_packet = usize::from(lane.place) >= INTERFACES_MAX;
        Some(Frame {
            place: lane.place,
            header_bytes: header_bytes - if is_packet { ETHERNET_BYTES } else { 0 },
            is_packet,
        })
    }

    /// Makes a slot's lane anew.
    #[cold]
    fn choose(&mut self, slot: u32, to: &SocketAddr) {
        let lane = &mut self.lanes[slot as usize];
        let origin = self.origins[slot as usize];
        let origin = origin.filter(|origin| origin.address.is_ipv4() == to.is_ipv4());
        if lane.to.ip() != to.ip() || lane.path == NO_PATH {
            self.paths.leave(lane.path);
            lane.path = match &origin {
                Some(origin) if !is_scoped(to) => self.paths.join(origin.address.ip(), to.ip()),
                _ => NO_PATH,
            };
        }
        lane.to = *to;
        lane.epoch = self.epoch;
        lane.place = BY_SOCKET;
        let hop = self.paths.hop(lane.path);
        let hop = hop.filter(|hop| self.ready[usize::from(hop.interface)]);
        if let (Some(hop), Some(origin)) = (hop, &origin) {
            lane.headers = Headers::new(origin, to, hop.from, hop.to);
            lane.place = hop.interface;
            lane.packet_bytes_max = PACKET_BYTES_MAX.min(hop.mtu as usize) as u16;
        } else if let Some(origin) = origin.filter(|_| self.packets_allowed && !is_scoped(to)) {
            let place = sender(&self.senders, origin.address.ip());
            if let Some(place) = place.filter(|place| self.ready[*place]) {
                lane.headers = Headers::new(&origin, to, Mac::default(), Mac::default());
                lane.headers.allow_fragments();
                lane.place = place as u8;
                lane.packet_bytes_max = PACKET_BYTES_MAX as u16;
            }
        }
    }
}

/// Place of the raw socket of an address.
fn sender(senders: &[Sender], address: IpAddr) -> Option<usize> {
    let place = senders.iter().position(|known| known.address == address)?;
    Some(INTERFACES_MAX + place)
}

/// What a socket's datagrams look like; `None`: not bound to one plain address.
pub(crate) fn origin(from: &OwnedFd) -> Option<Origin> {
    let address = socket::local_address(from)?;
    if address.ip().is_unspecified() || is_scoped(&address) {
        return None;
    }
    origin_of(from, address)
}

/// The same for an address that the socket may send from.
fn origin_of(from: &OwnedFd, address: SocketAddr) -> Option<Origin> {
    let (level, hops, traffic_class) = if address.is_ipv4() {
        (libc::SOL_IP, libc::IP_TTL, libc::IP_TOS)
    } else {
        (libc::SOL_IPV6, libc::IPV6_UNICAST_HOPS, libc::IPV6_TCLASS)
    };
    Some(Origin {
        address,
        hops: u8::try_from(socket::option(from, level, hops)?).ok()?,
        traffic_class: u8::try_from(socket::option(from, level, traffic_class)?).ok()?,
    })
}

/// An address that means something on one link only.
fn is_scoped(address: &SocketAddr) -> bool {
    matches!(address, SocketAddr::V6(six) if six.scope_id() != 0 || six.ip().is_unicast_link_local())
}

#[cfg(test)]
mod tests;
