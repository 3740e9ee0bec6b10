//! What travels between a device and the routes' thread.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

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

/// Whether a device sends: only then has the routes' thread to look again and again.
#[derive(Debug, Default)]
pub(super) struct Usage(AtomicU8);

impl Usage {
    /// Nothing was sent for a whole tick, and nobody looks.
    const RESTS: u8 = 0;
    /// Nothing was sent since the last look.
    const UNUSED: u8 = 1;
    const USED: u8 = 2;

    /// Notes that something was sent. True: nobody looks, so the thread is to be woken.
    #[inline]
    fn note(&self) -> bool {
        // Mostly a load: the line is written once a tick.
        self.0.load(Ordering::Relaxed) != Self::USED
            && self.0.swap(Self::USED, Ordering::AcqRel) == Self::RESTS
    }

    /// Whether anything was sent since the last look; when not since the one before it either, the
    /// thread may rest.
    fn look(&self) -> bool {
        let step = |from, to| {
            let (done, failed) = (Ordering::AcqRel, Ordering::Acquire);
            self.0.compare_exchange(from, to, done, failed)
        };
        step(Self::USED, Self::UNUSED).is_ok() || step(Self::UNUSED, Self::RESTS) == Err(Self::USED)
    }

    fn rests(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::RESTS
    }
}

/// A device's end of what it tells the routes' thread and hears from it
/// ([`Routes`](super::Routes)). Clones share one end: for one device only.
#[derive(Debug, Clone)]
pub struct RouteSeat {
    pub(super) requests: Arc<ArrayQueue<Request>>,
    pub(super) updates: Arc<ArrayQueue<Update>>,
    pub(super) wake: Arc<Wake>,
    usage: Arc<Usage>,
}

impl RouteSeat {
    pub(super) fn new(wake: Arc<Wake>) -> Self {
        Self {
            requests: Arc::new(ArrayQueue::new(REQUESTS)),
            updates: Arc::new(ArrayQueue::new(UPDATES)),
            wake,
            usage: Arc::default(),
        }
    }

    /// Notes that the device has sent something.
    #[inline]
    pub(crate) fn note_use(&self) {
        if self.usage.note() {
            self.wake.ring();
        }
    }

    /// Whether the device has sent anything since the last look; see [`Self::rests`].
    pub(super) fn look_for_use(&self) -> bool {
        self.usage.look()
    }

    /// Whether the device has sent nothing between the last two looks, or since the last one.
    pub(super) fn rests(&self) -> bool {
        self.usage.rests()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sends_is_looked_after_and_who_does_not_is_left_alone() {
        let usage = Usage::default();
        assert!(usage.rests() && !usage.look());
        assert!(usage.note(), "the thread has to be woken");
        assert!(!usage.note() && !usage.rests());
        assert!(usage.look());
        assert!(!usage.rests(), "it may send again at once");
        assert!(!usage.note(), "it is looked after still");
        assert!(usage.look());
        assert!(!usage.look());
        assert!(usage.rests() && usage.note());
    }
}
