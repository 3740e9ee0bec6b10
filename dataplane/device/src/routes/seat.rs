//! What travels between a device and the routes' thread.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

use super::lookup::Mac;
use super::wake::Wake;

/// Pairs of addresses that one device knows ways for at once.
pub(crate) const PATHS_MAX: usize = 1 << 15;
/// Interfaces that one device sends frames from, over its whole life.
pub(crate) const INTERFACES_MAX: usize = 32;
const REQUESTS: usize = 4096;
const UPDATES: usize = 4096;

/// A path by its place in the device's table. The number tells users of one place apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PathId {
    pub(crate) place: u32,
    pub(crate) number: u32,
}

/// From a device.
#[derive(Debug)]
pub(crate) enum Request {
    /// Tell how datagrams from one of our addresses reach another, now and whenever it changes.
    Watch {
        path: PathId,
        source: IpAddr,
        destination: IpAddr,
    },
    /// Nobody uses the path any more.
    Forget { path: PathId },
    /// Tell from now on by [`Update::Packets`].
    Packets,
}

/// The next hop of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hop {
    /// The interface's place: its socket came before by [`Update::Interface`].
    pub(crate) interface: u8,
    /// Ours, on that interface.
    pub(crate) from: Mac,
    /// The neighbour's.
    pub(crate) to: Mac,
    /// Largest IP packet, in bytes.
    pub(crate) mtu: u32,
}

/// To a device.
#[derive(Debug)]
pub(crate) enum Update {
    /// A packet socket that sends from an interface.
    Interface { place: u8, socket: OwnedFd },
    /// Whether whole IP packets by a raw socket take the same way as datagrams.
    Packets { allowed: bool },
    /// Where a path leads; `None`: by the socket's own way.
    Path { path: PathId, hop: Option<Hop> },
}

/// A device's end of what it tells the routes' thread and hears from it
/// ([`Routes`](super::Routes)). Clones share one end: for one device only.
#[derive(Debug, Clone)]
pub struct RouteSeat {
    pub(super) requests: Arc<ArrayQueue<Request>>,
    pub(super) updates: Arc<ArrayQueue<Update>>,
    pub(super) wake: Arc<Wake>,
}

impl RouteSeat {
    pub(super) fn new(wake: Arc<Wake>) -> Self {
        Self {
            requests: Arc::new(ArrayQueue::new(REQUESTS)),
            updates: Arc::new(ArrayQueue::new(UPDATES)),
            wake,
        }
    }

    /// Asks; gives the request back when too many wait.
    pub(crate) fn ask(&self, request: Request) -> Result<(), Request> {
        self.requests.push(request)?;
        self.wake.ring();
        Ok(())
    }

    /// Whether there is something to hear.
    #[inline]
    pub(crate) fn has_news(&self) -> bool {
        !self.updates.is_empty()
    }

    /// The next thing.
    pub(crate) fn next(&self) -> Option<Update> {
        self.updates.pop()
    }

    /// An end whose other end is the test.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self::new(Arc::new(Wake::new().expect("eventfd")))
    }

    #[cfg(test)]
    pub(crate) fn requests(&self) -> &ArrayQueue<Request> {
        &self.requests
    }

    #[cfg(test)]
    pub(crate) fn updates(&self) -> &ArrayQueue<Update> {
        &self.updates
    }
}
