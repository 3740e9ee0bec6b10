//! The watched paths, and what is known for them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::lookup::{self, Link, Neighbour, Way};
use super::netlink::{Message, Netlink};
use super::seat::{Hop, INTERFACES_MAX, PathId, Request, RouteSeat, Update};
use crate::packet::open_sender;
use crate::socket::{MEDIA_PRIORITY, set_option};

/// Paths asked for anew in one tick, in turn.
const REFRESH_A_TICK: usize = 256;
/// All paths are asked for anew at most so often, however often routes change.
const REFRESH_ALL: Duration = Duration::from_millis(50);

/// What the kernel said, kept until it says otherwise.
pub(super) struct Kernel {
    netlink: Netlink,
    links: HashMap<u32, Option<Link>>,
    neighbours: HashMap<(u32, IpAddr), Neighbour>,
}

impl Kernel {
    pub(super) fn new(netlink: Netlink) -> Self {
        Self {
            netlink,
            links: HashMap::new(),
            neighbours: HashMap::new(),
        }
    }

    fn link(&mut self, interface: u32) -> Option<Link> {
        let netlink = &mut self.netlink;
        *self
            .links
            .entry(interface)
            .or_insert_with(|| lookup::link(netlink, interface))
    }

    fn neighbour(&mut self, interface: u32, of: IpAddr) -> Neighbour {
        let netlink = &mut self.netlink;
        *self
            .neighbours
            .entry((interface, of))
            .or_insert_with(|| lookup::neighbour(netlink, interface, of))
    }
}

struct Path {
    number: u32,
    source: IpAddr,
    destination: IpAddr,
    way: Option<Way>,
    /// What the device knows.
    told: Option<Hop>,
}

struct Device {
    seat: RouteSeat,
    paths: HashMap<u32, Path>,
    /// Interfaces by place, as the device knows them.
    interfaces: Vec<u32>,
    /// It wants to hear [`Update::Packets`], and what it was told last.
    packets_wanted: bool,
    packets_told: bool,
}

/// See the module.
pub(super) struct Table {
    kernel: Kernel,
    devices: Vec<Device>,
    /// Why no frames may be sent at all.
    obstacle: Option<String>,
    /// Raw sockets would get round nothing either.
    packets_allowed: bool,
    /// Routes, interfaces or addresses have changed.
    changed: bool,
    refreshed: Option<Instant>,
    /// Some device does not know what it should: its queue was full.
    behind: bool,
    /// Neighbours have changed, or what is allowed has.
    retell: bool,
    /// Where the round of asking anew goes on: device, place.
    refresh_at: (usize, u32),
}

impl Table {
    pub(super) fn new(kernel: Kernel, seats: Vec<RouteSeat>) -> Self {
        let devices = seats.into_iter().map(|seat| Device {
            seat,
            paths: HashMap::new(),
            interfaces: Vec::new(),
            packets_wanted: false,
            packets_told: false,
        });
        Self {
            kernel,
            devices: devices.collect(),
            obstacle: None,
            packets_allowed: false,
            changed: false,
            refreshed: None,
            behind: false,
            retell: false,
            refresh_at: (0, 0),
        }
    }

    /// Looks whether frames may be sent at all.
    pub(super) fn look_for_obstacle(&mut self) {
        let found = lookup::obstacles(&mut self.kernel.netlink);
        self.retell |= found.to_frames.is_some() != self.obstacle.is_some();
        self.obstacle = found.to_frames;
        self.packets_allowed = !found.to_packets;
    }

    /// Tells the devices that want to hear it whether raw sockets will do.
    pub(super) fn tell_packets(&mut self) {
        let allowed = self.packets_allowed;
        for device in &mut self.devices {
            if device.packets_wanted && device.packets_told != allowed {
                match device.seat.updates.push(Update::Packets { allowed }) {
                    Ok(()) => device.packets_told = allowed,
                    Err(_) => self.behind = true,
                }
            }
        }
    }

    /// Why no frames may be sent at all.
    pub(super) fn obstacle(&self) -> Option<&str> {
        self.obstacle.as_deref()
    }

    /// Whether no device wants to know anything.
    pub(super) fn is_idle(&self) -> bool {
        let wants_nothing = |device: &Device| device.paths.is_empty() && !device.packets_wanted;
        self.devices.iter().all(wants_nothing)
    }

    /// Whether no device has sent anything for a while.
    pub(super) fn rests(&self) -> bool {
        self.devices.iter().all(|device| device.seat.rests())
    }

    /// Whether any device has sent something since the last look.
    pub(super) fn look_for_use(&self) -> bool {
        // Each is to be looked at.
        let looks = self.devices.iter().map(|device| device.seat.look_for_use());
        looks.fold(false, |any, used| any | used)
    }

    pub(super) fn has_requests(&self) -> bool {
        let mut seats = self.devices.iter().map(|device| &device.seat);
        seats.any(|seat| !seat.requests.is_empty())
    }

    /// Whether there is more to do before the next tick.
    pub(super) fn is_behind(&self) -> bool {
        self.behind || self.changed || self.retell
    }

    pub(super) fn everything_changed(&mut self) {
        self.changed = true;
        self.kernel.links.clear();
        self.kernel.neighbours.clear();
    }

    pub(super) fn on_notification(&mut self, message: Message<'_>) {
        match message.kind {
            libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => {
                let Some((interface, of, neighbour)) = lookup::read_neighbour(message) else {
                    return;
                };
                if let Some(known) = self.kernel.neighbours.get_mut(&(interface, of)) {
                    self.retell |= known.mac != neighbour.mac;
                    *known = neighbour;
                }
            }
            libc::RTM_NEWLINK | libc::RTM_DELLINK => {
                self.kernel.links.clear();
                self.changed = true;
            }
            libc::RTM_NEWRULE | libc::RTM_DELRULE => {
                self.look_for_obstacle();
            }
            // Routes, addresses, next hops.
            _ => self.changed = true,
        }
    }

    pub(super) fn take_requests(&mut self) {
        for device in 0..self.devices.len() {
            while let Some(request) = self.devices[device].seat.requests.pop() {
                match request {
                    Request::Watch {
                        path,
                        source,
                        destination,
                    } => self.watch(device, path, source, destination),
                    Request::Packets => self.devices[device].packets_wanted = true,
                    Request::Forget { path } => {
                        let paths = &mut self.devices[device].paths;
                        if paths.get(&path.place).map(|known| known.number) == Some(path.number) {
                            paths.remove(&path.place);
                        }
                    }
                }
            }
        }
    }

    fn watch(&mut self, device: usize, path: PathId, source: IpAddr, destination: IpAddr) {
        let way = lookup::way(&mut self.kernel.netlink, source, destination);
        let entry = Path {
            number: path.number,
            source,
            destination,
            way,
            told: None,
        };
        self.devices[device].paths.insert(path.place, entry);
        self.tell(device, path.place);
    }

    /// Tells a device of a path when it knows it otherwise.
    fn tell(&mut self, device: usize, place: u32) {
        let Self {
            kernel,
            devices,
            obstacle,
            behind,
            ..
        } = self;
        let Device {
            seat,
            paths,
            interfaces,
            ..
        } = &mut devices[device];
        let Some(path) = paths.get_mut(&place) else {
            return;
        };
        let hop = match path.way.filter(|_| obstacle.is_none()) {
            None => None,
            Some(way) => match hop(kernel, seat, interfaces, way) {
                Ok(hop) => hop,
                Err(Full) => {
                    *behind = true;
                    return;
                }
            },
        };
        if hop == path.told {
            return;
        }
        let number = path.number;
        let update = Update::Path {
            path: PathId { place, number },
            hop,
        };
        match seat.updates.push(update) {
            Ok(()) => path.told = hop,
            Err(_) => *behind = true,
        }
    }

    /// Once a second: what the kernel does not notify, and neighbours it would like to ask.
    pub(super) fn tick(&mut self) {
        let mut left = REFRESH_A_TICK;
        let (mut device, mut from) = self.refresh_at;
        while left > 0 && device < self.devices.len() {
            let places = self.devices[device].paths.keys().copied();
            let mut places: Vec<_> = places.filter(|place| *place >= from).collect();
            places.sort_unstable();
            places.truncate(left);
            left -= places.len();
            from = places.last().map_or(0, |last| last + 1);
            for place in &places {
                self.refresh(device, *place);
            }
            if places.is_empty() {
                device += 1;
            }
        }
        self.refresh_at = if device < self.devices.len() {
            (device, from)
        } else {
            (0, 0)
        };
        self.use_stale_neighbours();
    }

    fn refresh(&mut self, device: usize, place: u32) {
        if let Some(path) = self.devices[device].paths.get_mut(&place) {
            path.way = lookup::way(&mut self.kernel.netlink, path.source, path.destination);
            self.tell(device, place);
        }
    }

    /// Uses the neighbours that frames are sent to, and forgets those that none are.
    fn use_stale_neighbours(&mut self) {
        let paths = self.devices.iter().flat_map(|device| device.paths.values());
        let ways = paths.filter_map(|path| path.way);
        let used: std::collections::HashSet<_> =
            ways.map(|way| (way.interface, way.next)).collect();
        let Kernel {
            netlink,
            neighbours,
            ..
        } = &mut self.kernel;
        neighbours.retain(|key, _| used.contains(key));
        for (&(interface, of), neighbour) in neighbours {
            if neighbour.stale {
                lookup::use_neighbour(netlink, interface, of);
            }
        }
    }

    /// Brings the devices up to date.
    pub(super) fn catch_up(&mut self, now: Instant) {
        let rested = |at: Instant| now.duration_since(at) >= REFRESH_ALL;
        if self.changed && self.refreshed.is_none_or(rested) {
            self.changed = false;
            self.refreshed = Some(now);
            for device in 0..self.devices.len() {
                for place in self.places(device) {
                    self.refresh(device, place);
                }
            }
        }
        if std::mem::take(&mut self.behind) | std::mem::take(&mut self.retell) {
            for device in 0..self.devices.len() {
                for place in self.places(device) {
                    self.tell(device, place);
                }
            }
        }
    }

    fn places(&self, device: usize) -> Vec<u32> {
        self.devices[device].paths.keys().copied().collect()
    }
}

/// The device's queue is full.
struct Full;

/// The next hop of a way, with the interface's socket handed over before; `None`: by socket.
fn hop(
    kernel: &mut Kernel,
    seat: &RouteSeat,
    interfaces: &mut Vec<u32>,
    way: Way,
) -> Result<Option<Hop>, Full> {
    let Some(link) = kernel.link(way.interface) else {
        return Ok(None);
    };
    let Some(to) = kernel.neighbour(way.interface, way.next).mac else {
        return Ok(None);
    };
    let mut known = interfaces.iter();
    let interface = match known.position(|interface| *interface == way.interface) {
        Some(place) => place,
        None if interfaces.len() == INTERFACES_MAX => return Ok(None),
        None => {
            let Ok(socket) = open_sender(Some(way.interface)) else {
                return Ok(None);
            };
            // Where it is refused frames queue like anything else.
            let _ = set_option(&socket, libc::SOL_SOCKET, libc::SO_PRIORITY, MEDIA_PRIORITY);
            let place = interfaces.len();
            let update = Update::Interface {
                place: place as u8,
                socket,
            };
            seat.updates.push(update).map_err(|_| Full)?;
            interfaces.push(way.interface);
            place
        }
    };
    Ok(Some(Hop {
        interface: interface as u8,
        from: link.mac,
        to,
        mtu: link.mtu.min(way.mtu),
    }))
}
