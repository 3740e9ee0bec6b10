//! Sessions come and go: ports, slots, the worker.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use trunkline_link::counters::ConductorCounter;
use trunkline_link::limits::MEDIA_MAX;
use trunkline_link::message::{AlarmCode, Event, FailReason, MediaKind, SessionOpen};

use super::Conductor;
use super::pending::{ReplyTo, Wanted};
use super::session::{MediaLine, Phase, PortUse, Session};
use super::worker_seat::PairKey;
use crate::ports::{PortPair, TakeError};
use crate::worker::message::{
    MediaInstall, PortInstall, PortSocket, SessionInstall, SocketInstall, WorkerCommand,
};

/// How long a fixed port is tried for: the kernel lets go of a killed process's ports late.
const FIXED_PORT_NS: u64 = 2_000_000_000;
/// Between tries.
pub(super) const RETRY_NS: u64 = 20_000_000;

/// A session, or more m-lines of one, that still lacks ports.
#[derive(Debug)]
pub(super) struct Opening {
    reply: ReplyTo,
    session: u64,
    interface: [u8; 2],
    media_timeout_ms: u32,
    /// Session whose worker it is to have, 0 = any.
    beside: u64,
    /// m-lines that the session has already.
    first_media: usize,
    lines: Vec<OpeningLine>,
    deadline_ns: u64,
}

#[derive(Debug)]
struct OpeningLine {
    kind: MediaKind,
    wanted: [u16; 2],
    pairs: [Option<PortPair>; 2],
}

/// How far an opening got.
enum Filled {
    Ready,
    Waiting,
    Refused(FailReason),
}

impl Conductor {
    /// `SessionOpen`.
    pub(super) fn open_session(&mut self, reply: ReplyTo, open: SessionOpen, now_ns: u64) {
        let first_media = match self.judge_open(&open) {
            Ok(first_media) => first_media,
            Err(reason) => return self.failed(Some(reply), reason, now_ns),
        };
        if let Some(session) = self.sessions.get_mut(&open.session) {
            session.claim();
            if open.media.len() <= first_media {
                // Nothing to add: the answer is what there is.
                return self.tell_opened(Some(reply), open.session, now_ns);
            }
        }
        let lines = open.media[first_media..].iter().map(|line| OpeningLine {
            kind: line.kind,
            wanted: line.ports,
            pairs: [None, None],
        });
        let opening = Opening {
            reply,
            session: open.session,
            interface: open.interface,
            media_timeout_ms: open.media_timeout_ms,
            beside: open.beside,
            first_media,
            lines: lines.collect(),
            deadline_ns: now_ns + FIXED_PORT_NS,
        };
        self.advance_opening(opening, now_ns);
    }

    /// How many of the m-lines are there already, or why the whole is refused.
    fn judge_open(&self, open: &SessionOpen) -> Result<usize, FailReason> {
        if open.media.is_empty() || open.media.len() > MEDIA_MAX {
            return Err(FailReason::Invalid);
        }
        if open
            .interface
            .iter()
            .any(|index| usize::from(*index) >= self.pools.len())
        {
            return Err(FailReason::Invalid);
        }
        if self
            .openings
            .iter()
            .any(|opening| opening.session == open.session)
        {
            return Err(FailReason::WrongState);
        }
        let Some(session) = self.sessions.get(&open.session) else {
            return if self.draining {
                Err(FailReason::Draining)
            } else {
                Ok(0)
            };
        };
        if session.phase != Phase::Live || !session.extension.is_empty() {
            return Err(FailReason::WrongState);
        }
        let same = |(line, asked): (&MediaLine, &trunkline_link::message::MediaOpen)| {
            let ports_agree =
                |side: usize| asked.ports[side] == 0 || asked.ports[side] == line.ports[side].port;
            line.kind == asked.kind && ports_agree(0) && ports_agree(1)
        };
        let agrees =
            session.interface == open.interface && session.media.iter().zip(&open.media).all(same);
        if agrees {
            Ok(session.media.len())
        } else {
            Err(FailReason::Invalid)
        }
    }

    /// Takes ports for an opening; installs it, keeps it for later, or refuses it.
    fn advance_opening(&mut self, mut opening: Opening, now_ns: u64) {
        match self.fill(&mut opening, now_ns) {
            Filled::Ready => self.install(opening, now_ns),
            Filled::Waiting if now_ns < opening.deadline_ns => {
                self.openings.push(opening);
                self.next_retry_ns = self.next_retry_ns.min(now_ns + RETRY_NS);
            }
            Filled::Waiting => self.refuse(opening, FailReason::PortBusy, now_ns),
            Filled::Refused(reason) => self.refuse(opening, reason, now_ns),
        }
        self.watch_rests(now_ns);
    }

    fn fill(&mut self, opening: &mut Opening, now_ns: u64) -> Filled {
        let mut waiting = false;
        for line in &mut opening.lines {
            for side in 0..2 {
                if line.pairs[side].is_some() {
                    continue;
                }
                let pool = &mut self.pools[usize::from(opening.interface[side])];
                let taken = match line.wanted[side] {
                    0 => pool.take(now_ns),
                    port => pool.take_fixed(port, now_ns),
                };
                match taken {
                    Ok(pair) => line.pairs[side] = Some(pair),
                    Err(TakeError::Foreign | TakeError::InUse) => waiting = true,
                    Err(TakeError::OutOfRange) => return Filled::Refused(FailReason::Invalid),
                    Err(TakeError::NonePresent) => {
                        self.counters.add(ConductorCounter::PortsRefused, 1);
                        self.rests_cut_ns = now_ns;
                        self.alarm(AlarmCode::PortsShort, true, now_ns);
                        return Filled::Refused(FailReason::NoPorts);
                    }
                    Err(TakeError::System(error)) => {
                        tracing::warn!(%error, "no socket to be had");
                        return Filled::Refused(FailReason::NoCapacity);
                    }
                }
            }
        }
        if waiting {
            Filled::Waiting
        } else {
            Filled::Ready
        }
    }

    /// Alarm when rests are being cut.
    fn watch_rests(&mut self, now_ns: u64) {
        let cut = self.pools.iter().map(|pool| pool.counts().rests_cut).sum();
        if cut != self.rests_cut_seen {
            self.rests_cut_seen = cut;
            self.rests_cut_ns = now_ns;
            self.alarm(AlarmCode::PortsShort, true, now_ns);
        }
    }

    fn refuse(&mut self, opening: Opening, reason: FailReason, now_ns: u64) {
        let reply = opening.reply;
        self.give_back(opening);
        self.failed(Some(reply), reason, now_ns);
    }

    /// Pairs that nobody has heard of need no rest.
    fn give_back(&mut self, opening: Opening) {
        for line in opening.lines {
            for (side, pair) in line.pairs.into_iter().enumerate() {
                if let Some(pair) = pair {
                    self.pools[usize::from(opening.interface[side])].give_back(pair);
                }
            }
        }
    }

    /// Tries again for openings that wait for a port.
    pub(super) fn retry_openings(&mut self, now_ns: u64) {
        self.next_retry_ns = u64::MAX;
        for opening in std::mem::take(&mut self.openings) {
            self.advance_opening(opening, now_ns);
        }
    }

    /// Takes back an opening that still waits. `true`: there was one.
    pub(super) fn cancel_opening(&mut self, session: u64, now_ns: u64) -> bool {
        let waiting = |opening: &Opening| opening.session == session;
        let Some(place) = self.openings.iter().position(waiting) else {
            return false;
        };
        let opening = self.openings.remove(place);
        self.refuse(opening, FailReason::WrongState, now_ns);
        true
    }

    /// Control went away: nobody waits for these any more.
    pub(super) fn cancel_openings(&mut self) {
        for opening in std::mem::take(&mut self.openings) {
            self.give_back(opening);
        }
    }

    /// All ports are there: slots, descriptors, the worker.
    fn install(&mut self, opening: Opening, now_ns: u64) {
        let known = self.sessions.get(&opening.session);
        let live = known.is_some_and(|session| session.phase == Phase::Live);
        if live != (opening.first_media > 0) {
            // The session went away (or came) while ports were waited for.
            return self.refuse(opening, FailReason::WrongState, now_ns);
        }
        let known = known.map(|session| session.worker);
        let neighbour = self.sessions.get(&opening.beside);
        let neighbour = neighbour.map(|session| session.worker);
        let worker = known.or(neighbour).unwrap_or_else(|| self.least_loaded());
        let (reply, session, first_media) = (opening.reply, opening.session, opening.first_media);
        if self.workers[worker].slots_free() < opening.lines.len() * 4 {
            return self.refuse(opening, FailReason::NoCapacity, now_ns);
        }
        let copies = match duplicate_all(&opening) {
            Ok(copies) => copies,
            Err(error) => {
                tracing::warn!(%error, "no descriptor to be had");
                return self.refuse(opening, FailReason::NoCapacity, now_ns);
            }
        };
        let (interface, media_timeout_ms) = (opening.interface, opening.media_timeout_ms);
        let (lines, media) = self.seat(worker, opening, copies);
        let wanted = if known.is_some() {
            Wanted::Extension { session }
        } else {
            self.workers[worker].sessions += 1;
            self.sessions
                .insert(session, Session::new(session, worker, interface));
            Wanted::Session { session }
        };
        let entry = self
            .sessions
            .get_mut(&session)
            .expect("just looked up or inserted");
        entry.extension = lines;
        let request = self.ask(Some(reply), wanted, now_ns);
        let install = SessionInstall {
            session,
            media_timeout_ms,
            first_media: first_media as u8,
            media,
        };
        let install = Box::new(install);
        self.workers[worker].send(WorkerCommand::AddSession { request, install });
    }

    /// Gives each socket its slot: what we keep, and what the worker gets.
    fn seat(
        &mut self,
        worker: usize,
        opening: Opening,
        copies: Vec<Option<[OwnedFd; 2]>>,
    ) -> (Vec<MediaLine>, Vec<MediaInstall>) {
        let mut copies = copies.into_iter();
        let (mut kept, mut given) = (Vec::new(), Vec::new());
        for line in opening.lines {
            let mut side = 0;
            let sides = line.pairs.map(|pair| {
                let pair = pair.expect("a filled opening has all pairs");
                let address = self.pools[usize::from(opening.interface[side])].address();
                let owner = PairKey {
                    interface: opening.interface[side],
                    port: pair.port,
                };
                side += 1;
                let slots = self.workers[worker]
                    .take_slots(owner)
                    .expect("counted before");
                let files = copies.next().expect("one copy a pair");
                let drops = files
                    .as_ref()
                    .map_or([0; 2], |files| files.each_ref().map(read_drops));
                let sockets = match pair.sockets {
                    Some(sockets) => sockets.map(PortSocket::Bound),
                    None => [pair.port, pair.port + 1]
                        .map(|port| PortSocket::At(SocketAddr::new(address, port))),
                };
                let [rtp, rtcp] = sockets;
                let [rtp, rtcp] = [(slots[0], rtp), (slots[1], rtcp)]
                    .map(|(slot, socket)| SocketInstall { slot, socket });
                (
                    PortUse {
                        port: pair.port,
                        slots,
                        files,
                        drops,
                    },
                    PortInstall { rtp, rtcp },
                )
            });
            let [(caller, caller_install), (callee, callee_install)] = sides;
            kept.push(MediaLine {
                kind: line.kind,
                ports: [caller, callee],
            });
            given.push(MediaInstall {
                kind: line.kind,
                ports: [caller_install, callee_install],
            });
        }
        (kept, given)
    }

    fn least_loaded(&self) -> usize {
        let load = |worker: &usize| self.workers[*worker].sessions;
        (0..self.workers.len())
            .min_by_key(load)
            .expect("there is a worker")
    }

    /// The worker has confirmed a session or its extension.
    pub(super) fn opened(&mut self, reply: Option<ReplyTo>, session: u64, now_ns: u64) {
        let Some(entry) = self.sessions.get_mut(&session) else {
            return;
        };
        if entry.phase == Phase::Closing {
            return self.failed(reply, FailReason::WrongState, now_ns);
        }
        let extension = std::mem::take(&mut entry.extension);
        entry.media.extend(extension);
        if entry.phase == Phase::Installing {
            entry.phase = Phase::Live;
            self.counters.add(ConductorCounter::SessionsOpened, 1);
        }
        self.tell_opened(reply, session, now_ns);
    }

    fn tell_opened(&mut self, reply: Option<ReplyTo>, session: u64, now_ns: u64) {
        let (Some(reply), Some(entry)) = (reply, self.sessions.get(&session)) else {
            return;
        };
        if self.listens(reply) {
            let (request, worker) = (reply.request, entry.worker as u16);
            let ports = entry.ports();
            self.tell(
                Event::SessionOpened {
                    request,
                    session,
                    worker,
                    ports,
                },
                now_ns,
            );
        }
    }

    /// The worker refused a session or its extension; it reports each slot closed by itself.
    pub(super) fn not_opened(&mut self, session: u64) {
        let Some(entry) = self.sessions.get_mut(&session) else {
            return;
        };
        entry.extension.clear();
        if entry.phase == Phase::Installing {
            self.forget_session(session);
        }
    }

    /// Takes a session down: last drop counters first, then the worker, then our descriptors.
    pub(super) fn remove_session(&mut self, session: u64, reply: Option<ReplyTo>, now_ns: u64) {
        self.report_drops(session);
        let request = self.ask(reply, Wanted::Removal { session }, now_ns);
        let Some(entry) = self.sessions.get_mut(&session) else {
            return;
        };
        entry.phase = Phase::Closing;
        entry.media.clear();
        entry.extension.clear();
        self.workers[entry.worker].send(WorkerCommand::RemoveSession { request, session });
        for recording in self
            .recordings
            .values_mut()
            .filter(|known| known.session == session)
        {
            recording.left_alone.get_or_insert(now_ns);
        }
    }

    /// The session is gone from its worker.
    pub(super) fn forget_session(&mut self, session: u64) {
        if let Some(entry) = self.sessions.remove(&session) {
            self.workers[entry.worker].sessions -= 1;
        }
    }

    /// A slot's socket is closed. A pair rests from the moment when both are.
    pub(super) fn slot_closed(&mut self, worker: usize, slot: u32, now_ns: u64) {
        let Some(owner) = self.workers[worker].free_slot(slot) else {
            return;
        };
        if self.half_closed.remove(&owner).is_none() {
            self.half_closed.insert(owner, ());
        } else if let Some(pool) = self.pools.get_mut(usize::from(owner.interface)) {
            pool.release(owner.port, now_ns);
        }
    }

    /// Tells the worker what the kernel dropped on a session's sockets since the last look.
    pub(super) fn report_drops(&mut self, session: u64) {
        let Some(entry) = self.sessions.get_mut(&session) else {
            return;
        };
        let worker = &mut self.workers[entry.worker];
        for port in entry.media.iter_mut().flat_map(|line| &mut line.ports) {
            let Some(files) = &port.files else { continue };
            for (half, file) in files.iter().enumerate() {
                let now = read_drops(file);
                let rise = now.wrapping_sub(std::mem::replace(&mut port.drops[half], now));
                if rise > 0 {
                    self.counters
                        .add(ConductorCounter::SocketDrops, u64::from(rise));
                    let slot = port.slots[half];
                    worker.send(WorkerCommand::SocketDrops {
                        slot,
                        rise: u64::from(rise),
                    });
                }
            }
        }
    }
}

fn duplicate_all(opening: &Opening) -> std::io::Result<Vec<Option<[OwnedFd; 2]>>> {
    let pairs = opening
        .lines
        .iter()
        .flat_map(|line| line.pairs.iter().flatten());
    pairs
        .map(|pair| match &pair.sockets {
            Some([rtp, rtcp]) => Ok(Some([rtp.try_clone()?, rtcp.try_clone()?])),
            None => Ok(None),
        })
        .collect()
}

/// The kernel's drop counter; where it cannot be read nothing was dropped as far as we know.
fn read_drops(file: &OwnedFd) -> u32 {
    trunkline_device::socket_drops(file.as_fd()).unwrap_or(0)
}
