//! Sending datagrams as whole Ethernet frames by packet socket: without the kernel's route lookup,
//! packet filters and neighbour cache, which [`crate::routes`] asks on our behalf.
//!
//! Each slot has a *lane*: the headers of what it sends, ready for the destination it last sent to.
//! A lane is made anew when the destination changes, or anything that [`crate::routes`] told
//! (`epoch`). Until its path is known, and whenever it is not for frames, the slot's own socket
//! sends.

mod headers;
mod paths;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;

use crate::buffer::Buffer;
use crate::routes::{INTERFACES_MAX, RouteSeat, Update};
use crate::socket;
use headers::Headers;
pub(crate) use headers::Origin;
use paths::{NO_PATH, Paths};

/// Largest IP packet that is sent as a frame: what every path carries (RFC 8200 section 5). Larger
/// ones are left to the kernel, which knows the path's MTU and fragments.
const PACKET_BYTES_MAX: usize = 1280;
/// No epoch has this number.
const NEVER: u32 = 0;

/// What a slot sends by. The first two cache lines are all that a packet needs.
#[repr(C, align(64))]
struct Lane {
    headers: Headers,
    /// The interface's place, or [`BY_SOCKET`].
    interface: u8,
    /// Largest IP packet.
    packet_bytes_max: u16,
    to: SocketAddr,
    epoch: u32,
    path: u32,
}

const BY_SOCKET: u8 = u8::MAX;
const _: () = assert!(INTERFACES_MAX < BY_SOCKET as usize);
const _: () = assert!(size_of::<Lane>() == 128);

impl Lane {
    const EMPTY: Self = Self {
        headers: Headers::EMPTY,
        interface: BY_SOCKET,
        packet_bytes_max: 0,
        to: SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)),
        epoch: NEVER,
        path: NO_PATH,
    };
}

/// A frame in front of whose payload the headers stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Place of the interface it leaves from.
    pub(crate) interface: u8,
    /// Bytes of headers right in front of the datagram.
    pub(crate) header_bytes: usize,
}

/// A change that the device has to act on.
pub(crate) enum News {
    /// Put this packet socket at its place, and say [`Egress::interface_ready`] when it is there.
    Interface { place: u8, socket: OwnedFd },
}

/// See the module.
pub(crate) struct Egress {
    seat: RouteSeat,
    lanes: Box<[Lane]>,
    origins: Box<[Option<Origin>]>,
    paths: Paths,
    ready: [bool; INTERFACES_MAX],
    epoch: u32,
}

impl Egress {
    pub(crate) fn new(seat: RouteSeat, slots: u32) -> Self {
        Self {
            paths: Paths::new(seat.clone(), slots),
            seat,
            lanes: (0..slots).map(|_| Lane::EMPTY).collect(),
            origins: (0..slots).map(|_| None).collect(),
            ready: [false; INTERFACES_MAX],
            epoch: NEVER + 1,
        }
    }

    /// A socket was put at a slot.
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

    /// Takes what the routes' thread says; what the device has to do about it.
    pub(crate) fn next_news(&mut self) -> Option<News> {
        while let Some(update) = self.seat.next() {
            match update {
                Update::Interface { place, socket } => {
                    return Some(News::Interface { place, socket });
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

    /// An interface's socket is there, or cannot be.
    pub(crate) fn interface_ready(&mut self, place: usize, ready: bool) {
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
        if lane.interface == BY_SOCKET || !fits() {
            return None;
        }
        let (head, payload) = buffer.parts();
        let header_bytes = lane.headers.write(head, payload);
        Some(Frame {
            interface: lane.interface,
            header_bytes,
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
        lane.interface = BY_SOCKET;
        let hop = self.paths.hop(lane.path);
        let hop = hop.filter(|hop| self.ready[usize::from(hop.interface)]);
        if let (Some(hop), Some(origin)) = (hop, &origin) {
            lane.headers = Headers::new(origin, to, hop.from, hop.to);
            lane.interface = hop.interface;
            lane.packet_bytes_max = PACKET_BYTES_MAX.min(hop.mtu as usize) as u16;
        }
    }
}

/// What a socket's datagrams look like; `None`: not bound to one plain address.
pub(crate) fn origin(from: &OwnedFd) -> Option<Origin> {
    let address = socket::local_address(from)?;
    if address.ip().is_unspecified() || is_scoped(&address) {
        return None;
    }
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
