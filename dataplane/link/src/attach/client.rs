//! Control's end of the link.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, connect, recv, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use super::{LinkError, handshake};
use crate::codec::{self, CodecError};
use crate::counters::CounterReader;
use crate::doorbell::Doorbell;
use crate::message::{Command, Event};
use crate::pool::PoolReader;
use crate::region::{Region, RegionRing};
use crate::ring::{Consumer, Producer, RingError};

/// Seconds to wait for the dataplane's answer to a connect.
const HANDSHAKE_TIMEOUT_S: i64 = 2;

/// Why a command was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The ring is full: try again soon.
    #[error("command ring is full")]
    Full,
    /// The link is dead: connect anew.
    #[error("the dataplane is gone")]
    Dead,
    /// The command breaks a limit of the wire format.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// An attachment to a dataplane. Dropping it detaches; the dataplane goes on.
#[derive(Debug)]
pub struct ControlLink {
    socket: OwnedFd,
    /// Readable when the event doorbell rang or the dataplane died.
    readiness: Epoll,
    region: Region,
    commands: Producer<RegionRing>,
    events: Consumer<RegionRing>,
    command_bell: Doorbell,
    event_bell: Doorbell,
    counters: Arc<CounterReader>,
    pool: Arc<PoolReader>,
    epoch: u64,
    buffer: Vec<u8>,
    dead: bool,
}

impl ControlLink {
    /// Attaches to the dataplane that listens on `path`, replacing any other control.
    ///
    /// # Errors
    /// `Io` (NotFound, ConnectionRefused: no dataplane there; try again every 20 ms),
    /// `ForeignUser`, `Version`, `Handshake`.
    pub fn connect(path: &Path) -> Result<Self, LinkError> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        let timeout = TimeVal::new(HANDSHAKE_TIMEOUT_S, 0);
        setsockopt(&socket, sockopt::ReceiveTimeout, &timeout)?;
        setsockopt(&socket, sockopt::SendTimeout, &timeout)?;
        let (address, _directory) = handshake::address(path)?;
        connect(socket.as_raw_fd(), &address)?;
        handshake::check_peer(socket.as_fd())?;
        handshake::send_hello(socket.as_fd())?;
        let (epoch, files) = handshake::receive_welcome(socket.as_fd())?;
        let [region, counters, pool, command_bell, event_bell] = files;
        let region = Region::open(region.as_fd(), epoch)?;
        let (commands, events) = region.control_ends();
        let event_bell = Doorbell::from_file(event_bell);
        let readiness = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        readiness.add(&event_bell, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        readiness.add(
            &socket,
            EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP, 1),
        )?;
        Ok(Self {
            socket,
            readiness,
            region,
            commands,
            events,
            command_bell: Doorbell::from_file(command_bell),
            event_bell,
            counters: Arc::new(CounterReader::open(counters)?),
            pool: Arc::new(PoolReader::open(pool)?),
            epoch,
            buffer: Vec::new(),
            dead: false,
        })
    }

    /// Counts the attaches of this dataplane process, from 1.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The dataplane's process id, as it says.
    #[must_use]
    pub fn dataplane_pid(&self) -> u32 {
        self.region.dataplane_pid()
    }

    /// Sends a command. Its answer carries `request` (any number but 0, chosen by control).
    ///
    /// # Errors
    /// See [`SendError`]; nothing was sent then.
    pub fn send(&mut self, request: u64, command: &Command) -> Result<(), SendError> {
        if self.dead {
            return Err(SendError::Dead);
        }
        codec::encode_command(request, command, &mut self.buffer)?;
        match self.commands.push(&self.buffer) {
            Ok(true) => self.command_bell.ring(),
            Ok(false) => {}
            Err(RingError::Full) => return Err(SendError::Full),
            Err(RingError::TooLarge) => return Err(CodecError::TooLarge.into()),
            Err(RingError::Corrupt) => {
                self.dead = true;
                return Err(SendError::Dead);
            }
        }
        Ok(())
    }

    /// The next event; `Ok(None)`: none now, and [`Self::event_fd`] becomes readable for the next.
    ///
    /// # Errors
    /// `Ring`: the link is dead. `Codec`: this event did not decode, later ones may.
    pub fn poll_event(&mut self) -> Result<Option<Event>, LinkError> {
        if self.dead {
            return Err(RingError::Corrupt.into());
        }
        loop {
            match self.events.pop(&mut self.buffer) {
                Ok(true) => return Ok(Some(codec::decode_event(&self.buffer)?)),
                Ok(false) => {}
                Err(error) => return Err(self.died(error)),
            }
            self.event_bell.answer();
            match self.events.park() {
                Ok(true) => return Ok(None),
                Ok(false) => {}
                Err(error) => return Err(self.died(error)),
            }
        }
    }

    fn died(&mut self, error: RingError) -> LinkError {
        self.dead = true;
        error.into()
    }

    /// Whether the dataplane dropped events since this was last asked: send `Command::Snapshot`.
    /// Ask after `poll_event` returned `None`.
    pub fn take_overrun(&mut self) -> bool {
        self.events.take_overrun()
    }

    /// Readable when events wait or the dataplane died. For `AsyncFd` with read interest; read
    /// events until `None`, then clear the readiness.
    #[must_use]
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.readiness.0.as_fd()
    }

    /// Whether the dataplane still holds its end. `false` for ever after the first time.
    pub fn is_alive(&mut self) -> bool {
        if self.dead {
            return false;
        }
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_PEEK;
        let mut byte = [0_u8; 1];
        let alive = matches!(
            recv(self.socket.as_raw_fd(), &mut byte, flags),
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR)
        );
        self.dead = !alive;
        alive
    }

    /// Stores control's heartbeat (about once a second).
    pub fn beat(&self, now_ns: u64) {
        self.region.beat_control(now_ns);
    }

    /// The conductor's last heartbeat, CLOCK_MONOTONIC ns.
    #[must_use]
    pub fn dataplane_heartbeat_ns(&self) -> u64 {
        self.region.dataplane_heartbeat_ns()
    }

    /// The dataplane's counters, read-only. Stays readable after its death.
    #[must_use]
    pub fn counters(&self) -> Arc<CounterReader> {
        self.counters.clone()
    }

    /// The dataplane's extents, read-only. Keep it: it is how a killed dataplane's captured
    /// packets are recovered.
    #[must_use]
    pub fn pool(&self) -> Arc<PoolReader> {
        self.pool.clone()
    }

    /// The region, for tests that play a hostile peer.
    #[doc(hidden)]
    #[must_use]
    pub fn region(&self) -> &Region {
        &self.region
    }
}

impl AsFd for ControlLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event_fd()
    }
}

impl std::os::fd::AsRawFd for ControlLink {
    fn as_raw_fd(&self) -> i32 {
        self.event_fd().as_raw_fd()
    }
}
