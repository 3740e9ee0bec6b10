//! The dataplane's end of the link.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, accept4, bind, connect, listen, recv,
    socket,
};

use super::{LinkError, handshake};
use crate::codec::{self, CodecError};
use crate::doorbell::Doorbell;
use crate::message::{Command, Event};
use crate::region::{Region, RegionRing};
use crate::ring::{Consumer, Producer, RingError};
use crate::shared_map::duplicate;

/// Connections that have not said hello yet; the oldest gives way.
const PENDING_MAX: usize = 8;
const LISTENER_TOKEN: u64 = 0;
const PEER_TOKEN: u64 = 1;
const BELL_TOKEN: u64 = 2;
const FIRST_PENDING_TOKEN: u64 = 3;

/// A message from control.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A valid command.
    Command {
        /// Control's number for it.
        request: u64,
        /// The command.
        command: Command,
    },
    /// Something else; answer `Failed` when there is a request number.
    Malformed {
        /// The request number, when the message is long enough to hold one.
        request: Option<u64>,
        /// What is wrong with it.
        error: CodecError,
    },
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendOutcome {
    /// Control will read it.
    Sent,
    /// No room now.
    Full,
    /// Nobody is attached.
    Detached,
    /// It breaks a limit of the wire format: a bug of the sender.
    Unsendable(CodecError),
}

/// What [`Server::service`] found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    /// A control attached: its epoch and process id.
    pub attached: Option<(u64, u32)>,
    /// The attached control went away (or was replaced, when `attached` is set too).
    pub detached: bool,
    /// Peers refused: another user, another version, a wrong hello.
    pub refused: u32,
}

struct Peer {
    socket: OwnedFd,
    region: Region,
    commands: Consumer<RegionRing>,
    events: Producer<RegionRing>,
    command_bell: Doorbell,
    event_bell: Doorbell,
}

/// Listens for controls and holds the attached one.
pub struct Server {
    listener: OwnedFd,
    readiness: Epoll,
    path: PathBuf,
    counters: OwnedFd,
    pool: OwnedFd,
    pending: Vec<(u64, OwnedFd)>,
    next_token: u64,
    peer: Option<Peer>,
    epoch: u64,
    lost: bool,
    buffer: Vec<u8>,
}

impl Server {
    /// Listens on `path` (its directory is made when missing), replacing a stale socket file.
    ///
    /// # Errors
    /// `AlreadyListening` when somebody answers there; `Io`.
    pub fn listen(
        path: &Path,
        counters: BorrowedFd<'_>,
        pool: BorrowedFd<'_>,
    ) -> Result<Self, LinkError> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        remove_stale(path)?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let listener = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        let (address, _directory) = handshake::address(path)?;
        bind(listener.as_raw_fd(), &address)?;
        let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(path, owner_only)?;
        listen(&listener, Backlog::new(8)?)?;
        let readiness = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        readiness.add(
            &listener,
            EpollEvent::new(EpollFlags::EPOLLIN, LISTENER_TOKEN),
        )?;
        Ok(Self {
            listener,
            readiness,
            path: path.to_owned(),
            counters: duplicate(counters)?,
            pool: duplicate(pool)?,
            pending: Vec::new(),
            next_token: FIRST_PENDING_TOKEN,
            peer: None,
            epoch: 0,
            lost: false,
            buffer: Vec::new(),
        })
    }

    /// Whether a control is attached.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.peer.is_some()
    }

    /// Counts attaches, from 1; 0 before the first.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Handles connections, hellos and ends. Call when [`Self::as_fd`] is readable; never blocks.
    ///
    /// # Errors
    /// Those of the kernel on our own descriptors.
    pub fn service(&mut self, now_ns: u64) -> Result<Service, LinkError> {
        let mut report = Service::default();
        let mut ready = [EpollEvent::empty(); 16];
        let count = match self.readiness.wait(&mut ready, EpollTimeout::ZERO) {
            Err(Errno::EINTR) => 0,
            other => other?,
        };
        for event in &ready[..count] {
            match event.data() {
                LISTENER_TOKEN => self.accept(&mut report)?,
                PEER_TOKEN => self.check_peer_lives(),
                BELL_TOKEN => {
                    if let Some(peer) = &mut self.peer {
                        peer.command_bell.answer();
                        peer.commands.unpark();
                    }
                }
                token => self.greet(token, now_ns, &mut report),
            }
        }
        report.detached |= std::mem::take(&mut self.lost);
        Ok(report)
    }

    fn accept(&mut self, report: &mut Service) -> Result<(), LinkError> {
        loop {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let socket = match accept4(self.listener.as_raw_fd(), flags) {
                Ok(socket) => owned(socket),
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR | Errno::ECONNABORTED) => continue,
                // Out of descriptors: the connection waits in the backlog.
                Err(Errno::EMFILE | Errno::ENFILE) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            if handshake::check_peer(socket.as_fd()).is_err() {
                report.refused += 1;
                continue;
            }
            if self.pending.len() == PENDING_MAX {
                self.pending.remove(0);
                report.refused += 1;
            }
            let token = self.next_token;
            self.next_token += 1;
            self.readiness
                .add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, token))?;
            self.pending.push((token, socket));
        }
    }

    /// A pending connection is readable: its hello makes it the peer.
    fn greet(&mut self, token: u64, now_ns: u64, report: &mut Service) {
        let Some(place) = self
            .pending
            .iter()
            .position(|(pending, _)| *pending == token)
        else {
            return;
        };
        let control_pid = match handshake::receive_hello(self.pending[place].1.as_fd()) {
            Ok(None) => return,
            Ok(Some(pid)) => pid,
            Err(error) => {
                let (_, socket) = self.pending.remove(place);
                if matches!(error, LinkError::Version(_)) {
                    // Our version, without files, so that the peer can name the difference.
                    let _ = handshake::send_welcome(socket.as_fd(), 0, &[]);
                }
                report.refused += 1;
                return;
            }
        };
        let (_, socket) = self.pending.remove(place);
        match self.attach(socket, now_ns) {
            Ok(peer) => {
                report.detached |= self.peer.replace(peer).is_some();
                report.attached = Some((self.epoch, control_pid));
            }
            Err(_) => report.refused += 1,
        }
    }

    fn attach(&mut self, socket: OwnedFd, now_ns: u64) -> Result<Peer, LinkError> {
        let epoch = self.epoch + 1;
        let (region, file) = Region::create(epoch, now_ns)?;
        let (commands, events) = region.dataplane_ends();
        let (command_bell, event_bell) = (Doorbell::create()?, Doorbell::create()?);
        let mut peer = Peer {
            socket,
            region,
            commands,
            events,
            command_bell,
            event_bell,
        };
        // Asleep from the start, so that the first command rings.
        peer.commands.park()?;
        let files = [
            file.as_raw_fd(),
            self.counters.as_raw_fd(),
            self.pool.as_raw_fd(),
            peer.command_bell.as_fd().as_raw_fd(),
            peer.event_bell.as_fd().as_raw_fd(),
        ];
        handshake::send_welcome(peer.socket.as_fd(), epoch, &files)?;
        let mut event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP, PEER_TOKEN);
        self.readiness.modify(&peer.socket, &mut event)?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, BELL_TOKEN);
        self.readiness.add(&peer.command_bell, event)?;
        self.epoch = epoch;
        Ok(peer)
    }

    /// The peer's socket is readable: its end, or chatter that nobody should send.
    fn check_peer_lives(&mut self) {
        let Some(peer) = &self.peer else { return };
        let mut byte = [0_u8; 1];
        let read = recv(peer.socket.as_raw_fd(), &mut byte, MsgFlags::MSG_DONTWAIT);
        if !matches!(read, Err(Errno::EAGAIN | Errno::EINTR)) {
            self.drop_peer();
        }
    }

    /// Ends the attachment; the peer sees its socket close and may attach anew.
    pub fn drop_peer(&mut self) {
        self.lost |= self.peer.take().is_some();
    }

    /// The next message of control. A ring that is corrupt ends the attachment (reported by the next
    /// [`Self::service`]).
    pub fn poll_command(&mut self) -> Option<Incoming> {
        let peer = self.peer.as_mut()?;
        match peer.commands.pop(&mut self.buffer) {
            Ok(false) => return None,
            Ok(true) => {}
            Err(_) => {
                self.drop_peer();
                return None;
            }
        }
        Some(match codec::decode_command(&self.buffer) {
            Ok((request, command)) => Incoming::Command { request, command },
            Err(error) => Incoming::Malformed {
                request: codec::peek_request(&self.buffer),
                error,
            },
        })
    }

    /// Before sleeping on [`Self::as_fd`]. `false`: do not sleep, there is work.
    pub fn prepare_wait(&mut self) -> bool {
        if let Some(peer) = self.peer.as_mut() {
            match peer.commands.park() {
                Ok(empty) => return empty && !self.lost,
                Err(_) => self.drop_peer(),
            }
        }
        !self.lost
    }

    /// Sends an event.
    pub fn send_event(&mut self, event: &Event) -> SendOutcome {
        let Some(peer) = self.peer.as_mut() else {
            return SendOutcome::Detached;
        };
        if let Err(error) = codec::encode_event(event, &mut self.buffer) {
            return SendOutcome::Unsendable(error);
        }
        match peer.events.push(&self.buffer) {
            Ok(asleep) => {
                if asleep {
                    peer.event_bell.ring();
                }
                SendOutcome::Sent
            }
            Err(RingError::Full) => SendOutcome::Full,
            Err(RingError::TooLarge) => SendOutcome::Unsendable(CodecError::TooLarge),
            Err(RingError::Corrupt) => {
                self.drop_peer();
                SendOutcome::Detached
            }
        }
    }

    /// Tells control that an event was dropped, so that it asks for a snapshot.
    pub fn note_overrun(&mut self) {
        if let Some(peer) = self.peer.as_mut()
            && peer.events.note_overrun()
        {
            peer.event_bell.ring();
        }
    }

    /// Stores the dataplane's heartbeat.
    pub fn beat(&self, now_ns: u64) {
        if let Some(peer) = &self.peer {
            peer.region.beat_dataplane(now_ns);
        }
    }

    /// Control's last heartbeat, CLOCK_MONOTONIC ns; `None` when nobody is attached.
    #[must_use]
    pub fn control_heartbeat_ns(&self) -> Option<u64> {
        self.peer
            .as_ref()
            .map(|peer| peer.region.control_heartbeat_ns())
    }
}

impl AsFd for Server {
    /// Readable on a connection, a hello, the command doorbell or the peer's end.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.readiness.0.as_fd()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Removes a socket file that nobody answers on.
fn remove_stale(path: &Path) -> Result<(), LinkError> {
    if !path.exists() {
        return Ok(());
    }
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let probe = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    let (address, _directory) = handshake::address(path)?;
    match connect(probe.as_raw_fd(), &address) {
        Ok(()) | Err(Errno::EAGAIN) => Err(LinkError::AlreadyListening(path.to_owned())),
        Err(_) => Ok(std::fs::remove_file(path)?),
    }
}

/// Takes ownership of a descriptor that accept just returned.
#[allow(unsafe_code)]
fn owned(file: i32) -> OwnedFd {
    // SAFETY: accept4 returned this descriptor to us alone.
    unsafe { OwnedFd::from_raw_fd(file) }
}
