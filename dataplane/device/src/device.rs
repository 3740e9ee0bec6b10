//! What a worker sees of a device.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use crate::buffer::Buffer;
use crate::routes::RouteSeat;
use crate::socket::media_socket;

/// A received datagram.
#[derive(Debug)]
pub struct Received {
    /// Slot of the socket it came in on.
    pub slot: u32,
    /// The datagram did not fit its buffer: `buffer` holds only its beginning. Judge the source,
    /// then drop it; it is already counted in [`Counters::truncated`].
    pub truncated: bool,
    /// Where it came from (IPv4 on IPv4 sockets, IPv6 on IPv6 sockets).
    pub source: SocketAddr,
    /// The datagram, possibly empty. Send it, or [`Device::recycle`] it.
    pub buffer: Buffer,
}

/// Something that happened to a slot outside the packet path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotEvent {
    /// The socket is really closed (its port can be bound again) and the slot is free.
    Closed {
        /// The slot.
        slot: u32,
    },
    /// The kernel refused the socket; it is closed and the slot is free.
    Failed {
        /// The slot.
        slot: u32,
        /// Operating system error number.
        errno: i32,
    },
}

/// Why [`Device::park`] returned. Several can hold at once; none means the timeout passed or a
/// signal came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wake {
    /// There is something to receive, or a slot event.
    pub packets: bool,
    /// The doorbell was rung since the last `park`.
    pub doorbell: bool,
}

/// Whose datagrams a slot's port is open to; see [`Device::admit`]. Times are nanoseconds of
/// CLOCK_MONOTONIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// Always: these addresses. Port 0 means any port of the host.
    pub sources: [Option<SocketAddr>; 2],
    /// Until this moment: everybody. `u64::MAX` = for good.
    pub closed_from_ns: u64,
    /// When `sources` have been silent for so long, and until one of them is heard after this was
    /// said: everybody. `u64::MAX` = never.
    pub silent_ns: u64,
}

impl Admission {
    /// Open to all.
    pub const EVERYBODY: Self = Self {
        sources: [None; 2],
        closed_from_ns: u64::MAX,
        silent_ns: 0,
    };
}

/// Totals since the device was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams handed to the worker.
    pub received: u64,
    /// Those that came through a socket that all slots share.
    pub steered: u64,
    /// Datagrams thrown away before they reached a socket, as [`Device::admit`] did not let their
    /// sources in.
    pub strangers: u64,
    /// Datagrams the kernel took for sending.
    pub sent: u64,
    /// Those that left as whole frames, past the kernel's own routing.
    pub framed: u64,
    /// Those that left as whole IP packets by a socket that many ports share.
    pub shared: u64,
    /// Datagrams not sent: refused by the kernel, or no buffer for the copy, or an empty slot.
    pub send_failed: u64,
    /// Datagrams that filled their buffer (also in `received`).
    pub truncated: u64,
    /// ICMP errors reported on our sockets (port or host unreachable), on receive or send.
    pub icmp_errors: u64,
    /// Times that receiving stopped for want of free buffers. The datagrams stay in their sockets;
    /// what is lost there is in the sockets' own drop counters.
    pub buffers_exhausted: u64,
    /// Times that the completion queue was full. The kernel keeps the completions.
    pub cq_overflow: u64,
    /// Datagrams that arrived for a slot being removed; dropped.
    pub late: u64,
    /// Other errors on receive.
    pub receive_errors: u64,
    /// Entries into the kernel: what a packet costs besides its own work.
    pub syscalls: u64,
}

/// Why a device or slot could not be had.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The slot number is not below [`Config::slots_max`].
    #[error("slot {0} is out of range")]
    SlotRange(u32),
    /// The slot is in use, or its last completion is still to come.
    #[error("slot {0} is in use")]
    SlotBusy(u32),
    /// The slot holds no socket.
    #[error("slot {0} is empty")]
    SlotEmpty(u32),
    /// The operating system refused.
    #[error("{what}: {source}")]
    System {
        /// What was asked of it.
        what: &'static str,
        /// Its answer.
        source: std::io::Error,
    },
    /// A [`Config`] value does not fit.
    #[error("{0}")]
    Config(String),
}

impl DeviceError {
    pub(crate) fn last(what: &'static str) -> Self {
        Self::System {
            what,
            source: std::io::Error::last_os_error(),
        }
    }
}

/// An ICMP error about something sent earlier, reported on a later receive or send.
pub(crate) fn is_icmp_error(errno: i32) -> bool {
    matches!(
        errno,
        libc::ECONNREFUSED
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::EHOSTDOWN
            | libc::EPROTO
    )
}

/// Sizes of a device. All memory is allocated when it is opened.
#[derive(Debug)]
pub struct Config {
    /// Ports open at once.
    pub slots_max: u32,
    /// Sockets held at once, below RLIMIT_NOFILE ([`UringDevice`](crate::UringDevice) only).
    pub sockets_max: u32,
    /// Receive buffers, a power of two, 64..=32768.
    pub buffers: u32,
    /// Further buffers, for copies being sent.
    pub copies: u32,
    /// Datagrams handed over by one [`Device::receive`].
    pub batch_max: usize,
    /// An eventfd that ends [`Device::park`] when written to; the device duplicates it, and reads
    /// it empty.
    pub doorbell: Option<OwnedFd>,
    /// Receive on one socket for all ports, steered by a program in the kernel, where kernel and
    /// rights allow it ([`UringDevice`](crate::UringDevice) only).
    pub steer: bool,
    /// Send whole frames by packet socket where this end of a [`Routes`](crate::Routes) thread
    /// says how ([`UringDevice`](crate::UringDevice) only).
    pub routes: Option<RouteSeat>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            slots_max: 4096,
            sockets_max: u32::MAX,
            buffers: 2048,
            copies: 512,
            batch_max: 256,
            doorbell: None,
            steer: true,
            routes: None,
        }
    }
}

impl Config {
    pub(crate) fn check(&self) -> Result<(), DeviceError> {
        if !self.buffers.is_power_of_two() || !(64..=32768).contains(&self.buffers) {
            return Err(DeviceError::Config(format!(
                "buffers = {}: a power of two from 64 to 32768 is needed",
                self.buffers
            )));
        }
        if self.copies > 16384 || self.slots_max == 0 || self.slots_max > 1 << 20 {
            return Err(DeviceError::Config(
                "copies or slots_max out of range".to_owned(),
            ));
        }
        if !(1..=4096).contains(&self.batch_max) {
            return Err(DeviceError::Config(
                "batch_max must be from 1 to 4096".to_owned(),
            ));
        }
        Ok(())
    }
}

/// A packet device. It belongs to the thread that opened it.
///
/// One duty cycle: [`receive`](Self::receive), then [`send`](Self::send) or
/// [`recycle`](Self::recycle) each packet, commands ([`install`](Self::install),
/// [`remove`](Self::remove)), [`slot_event`](Self::slot_event), and [`park`](Self::park), with
/// timeout 0 where there is more to do. `park` also sends what is queued: the whole cycle enters
/// the kernel once. Call [`flush`](Self::flush) only before something slow, or where the worker
/// spins without parking.
pub trait Device {
    /// Puts a bound UDP socket at a free slot and begins to receive from it. The socket belongs to
    /// the device from here on; datagrams that are waiting in it already are delivered. If the
    /// kernel refuses later, [`SlotEvent::Failed`] says so.
    ///
    /// # Errors
    /// The slot is out of range or not free, or the socket is refused; the socket is closed.
    fn install(&mut self, slot: u32, socket: OwnedFd) -> Result<(), DeviceError>;

    /// Opens a port at a free slot without a socket of its own where the device can do so, else by
    /// [`install`](Self::install) of a socket bound here. Nobody else should be able to get the port:
    /// the address must be ours, and the number out of the range that the kernel gives away.
    ///
    /// # Errors
    /// The slot is out of range or not free, or the kernel refuses the port.
    fn install_port(&mut self, slot: u32, address: SocketAddr) -> Result<(), DeviceError> {
        let socket = media_socket(address).map_err(|source| DeviceError::System {
            what: "bind a media port",
            source,
        })?;
        self.install(slot, socket)
    }

    /// Stops receiving at once and closes the socket. The slot is free, and the port really closed,
    /// once [`SlotEvent::Closed`] has been seen. Sends queued before still go out.
    ///
    /// # Errors
    /// The slot is out of range or holds no socket.
    fn remove(&mut self, slot: u32) -> Result<(), DeviceError>;

    /// Leaves a slot's port unread until [`resume`](Self::resume): what comes is dropped and counted,
    /// by [`take_unread_drops`](Self::take_unread_drops) where the ports share a socket, else by the
    /// kernel once the port's own socket is full. Sends go on. False when the slot holds no socket or
    /// is paused already. Datagrams that were taken from the socket before are still delivered.
    fn pause(&mut self, slot: u32) -> bool;

    /// Reads a paused slot's port again; nothing when it is not paused.
    fn resume(&mut self, slot: u32);

    /// Datagrams dropped at a slot's port while it was paused, since the last call; what its own
    /// socket dropped is not among them ([`socket_drops`](crate::socket_drops)).
    fn take_unread_drops(&mut self, _slot: u32) -> u64 {
        0
    }

    /// Says whom a slot's port is open to from now on; a port just installed is open to all. The
    /// device may throw away what comes from others, where it can do so for less than it costs to
    /// hand it over, and counts it; what comes all the same is the worker's to judge. Only addresses
    /// are looked at, never what a datagram holds.
    fn admit(&mut self, _slot: u32, _admission: &Admission) {}

    /// The next thing that happened to a slot. Ask until `None` once a cycle.
    fn slot_event(&mut self) -> Option<SlotEvent>;

    /// Appends what has arrived to `batch`, at most [`Config::batch_max`] datagrams, and says how
    /// many. Does not wait. Order is kept within a slot, except around `install`, when a shared
    /// socket and the slot's own may both hold datagrams of it.
    fn receive(&mut self, batch: &mut Vec<Received>) -> usize;

    /// Queues a datagram to be sent from a slot; it goes out with [`flush`](Self::flush) at the
    /// latest, in the order queued. The buffer returns to the device.
    fn send(&mut self, slot: u32, to: &SocketAddr, buffer: Buffer);

    /// Like [`send`](Self::send) for bytes that are copied, at most [`crate::BUFFER_BYTES`].
    fn send_copy(&mut self, slot: u32, to: &SocketAddr, bytes: &[u8]);

    /// Gives back a buffer that is not sent. A buffer that is neither sent nor recycled is lost to
    /// the device for good.
    fn recycle(&mut self, buffer: Buffer);

    /// Hands everything queued to the kernel.
    fn flush(&mut self);

    /// Flushes, then waits until a datagram, the doorbell, or the timeout. Returns at once when
    /// something is already there.
    fn park(&mut self, timeout_ns: u64) -> Wake;

    /// Datagrams that the kernel dropped, since the last call, on sockets that several slots share:
    /// nobody can say whose they were.
    fn take_shared_drops(&mut self) -> u64 {
        0
    }

    /// Whether the kernel throws away and counts datagrams that never reach the device, so that
    /// [`counters`](Self::counters) rise although nothing wakes it.
    fn counts_unseen(&self) -> bool {
        false
    }

    /// Totals.
    fn counters(&self) -> Counters;

    /// The backend's name, as in the configuration.
    fn name(&self) -> &'static str;
}
