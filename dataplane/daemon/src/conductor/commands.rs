//! What control asks for.

use std::net::SocketAddr;

use trunkline_link::attach::Incoming;
use trunkline_link::counters::ConductorCounter;
use trunkline_link::message::{
    Command, FailReason, LegUpdate, PlayStart, RecordingPhase, RecordingStart,
};
use trunkline_link::monotonic_ns;
use trunkline_sn3::record::ClockTriple;

use super::Conductor;
use super::pending::{ReplyTo, Wanted};
use super::recordings::Recording;
use super::session::Phase;
use crate::recorder::RecorderCommand;
use crate::worker::message::{TapStart, WorkerCommand};

/// Commands taken in one turn.
const COMMANDS_A_TURN: usize = 256;
/// Recordings that are not durable yet, stopped ones included.
const RECORDINGS_MAX: usize = 131_072;

impl Conductor {
    /// Takes commands off the ring. `true`: there may be more. Nothing is taken while a worker or
    /// control itself is far behind: the ring's back-pressure reaches control.
    pub(super) fn take_commands(&mut self, now_ns: u64) -> bool {
        for _ in 0..COMMANDS_A_TURN {
            if self.outbox.is_busy() || self.workers.iter().any(|worker| worker.is_busy()) {
                return false;
            }
            match self.server.poll_command() {
                None => return false,
                Some(Incoming::Command { request, command }) => {
                    self.counters.add(ConductorCounter::Commands, 1);
                    self.on_command(request, command, now_ns);
                }
                Some(Incoming::Malformed { request, error }) => {
                    self.counters.add(ConductorCounter::CommandsMalformed, 1);
                    tracing::warn!(%error, "malformed command");
                    let epoch = self.server.epoch();
                    let reply = request.map(|request| ReplyTo { epoch, request });
                    self.failed(reply, FailReason::Invalid, now_ns);
                }
            }
        }
        true
    }

    fn on_command(&mut self, request: u64, command: Command, now_ns: u64) {
        let reply = ReplyTo {
            epoch: self.server.epoch(),
            request,
        };
        let outcome = match command {
            Command::SessionOpen(open) => {
                self.open_session(reply, open, now_ns);
                Ok(())
            }
            Command::LegUpdate(update) => self.update_leg(reply, update, now_ns),
            Command::SessionRecord { session, record } => {
                self.set_record(reply, session, record, now_ns)
            }
            Command::SessionClose { session } => self.close_session(reply, session, now_ns),
            Command::RecordingStart(start) => self.start_recording(reply, start, now_ns),
            Command::RecordingPause { session, recording } => {
                self.change_phase(reply, session, recording, RecordingPhase::Paused, now_ns)
            }
            Command::RecordingResume { session, recording } => {
                self.change_phase(reply, session, recording, RecordingPhase::Running, now_ns)
            }
            Command::RecordingStop { session, recording } => {
                self.change_phase(reply, session, recording, RecordingPhase::Stopped, now_ns)
            }
            Command::RecordingFact {
                recording,
                kind,
                fact,
                ..
            } => self.known_recording(recording).map(|worker| {
                let request = self.ask(Some(reply), Wanted::Plain, now_ns);
                let fact = WorkerCommand::RecordingFact {
                    request,
                    recording,
                    kind,
                    fact,
                };
                self.workers[worker].send(fact);
            }),
            Command::RecordingFinish { recording, .. } => {
                self.finish_recording(Some(reply), recording, now_ns)
            }
            Command::DigitSend(digit) => self.live_session(digit.session).map(|worker| {
                let request = self.ask(Some(reply), Wanted::Plain, now_ns);
                self.workers[worker].send(WorkerCommand::Dial { request, digit });
            }),
            Command::SourceLoad(piece) => {
                let loaded = self.sources.load(piece);
                if loaded.is_ok() {
                    self.done(Some(reply), now_ns);
                }
                loaded
            }
            Command::PlayStart(start) => self.start_play(reply, start, now_ns),
            Command::PlayStop { session, media, to } => self.live_session(session).map(|worker| {
                let request = self.ask(Some(reply), Wanted::Plain, now_ns);
                self.workers[worker].send(WorkerCommand::PlayStop {
                    request,
                    session,
                    media,
                    to,
                });
            }),
            Command::ForkStart { session, target } => {
                self.fork(reply, session, target, now_ns, |request| {
                    let clock = clock_triple();
                    WorkerCommand::ForkStart {
                        request,
                        session,
                        target,
                        unix_offset_ns: clock.utc_ns.wrapping_sub(clock.mono_ns),
                    }
                })
            }
            Command::ForkState {
                session,
                target,
                state,
            } => self.fork(reply, session, target, now_ns, |request| {
                WorkerCommand::ForkState {
                    request,
                    session,
                    target,
                    state,
                }
            }),
            Command::ForkStop { session, target } => {
                self.fork(reply, session, target, now_ns, |request| {
                    WorkerCommand::ForkStop {
                        request,
                        session,
                        target,
                    }
                })
            }
            Command::Snapshot => {
                self.begin_snapshot(request);
                Ok(())
            }
            Command::Drain => {
                self.draining = true;
                self.done(Some(reply), now_ns);
                Ok(())
            }
        };
        if let Err(reason) = outcome {
            self.failed(Some(reply), reason, now_ns);
        }
    }

    /// The worker of a live session, which this control claims by asking.
    fn live_session(&mut self, session: u64) -> Result<usize, FailReason> {
        let entry = self
            .sessions
            .get_mut(&session)
            .ok_or(FailReason::NotFound)?;
        if entry.phase != Phase::Live {
            return Err(FailReason::WrongState);
        }
        entry.claim();
        Ok(entry.worker)
    }

    /// The worker of a recording that is not being finished.
    fn known_recording(&self, recording: u64) -> Result<usize, FailReason> {
        let entry = self
            .recordings
            .get(&recording)
            .ok_or(FailReason::NotFound)?;
        if entry.finishing {
            Err(FailReason::WrongState)
        } else {
            Ok(entry.worker)
        }
    }

    fn update_leg(
        &mut self,
        reply: ReplyTo,
        update: LegUpdate,
        now_ns: u64,
    ) -> Result<(), FailReason> {
        let worker = self.live_session(update.session)?;
        let session = &self.sessions[&update.session];
        if usize::from(update.media) >= session.media.len() {
            return Err(FailReason::NotFound);
        }
        let interface = session.interface[update.side as usize];
        let ours = self.pools[usize::from(interface)].address();
        let restored = update.restore.iter().flat_map(|restore| {
            [restore.learned_rtp, restore.learned_rtcp]
                .into_iter()
                .flatten()
        });
        let mut peers = update.rtp.into_iter().chain(update.rtcp).chain(restored);
        let reachable = |peer: SocketAddr| peer.port() != 0 && peer.is_ipv4() == ours.is_ipv4();
        if !peers.all(reachable) {
            return Err(FailReason::Invalid);
        }
        if let Some(entry) = self.sessions.get_mut(&update.session) {
            entry.learn_restored(&update);
        }
        let request = self.ask(Some(reply), Wanted::Plain, now_ns);
        let update = Box::new(update);
        self.workers[worker].send(WorkerCommand::UpdateLeg { request, update });
        Ok(())
    }

    fn set_record(
        &mut self,
        reply: ReplyTo,
        session: u64,
        record: Vec<u8>,
        now_ns: u64,
    ) -> Result<(), FailReason> {
        let entry = self
            .sessions
            .get_mut(&session)
            .ok_or(FailReason::NotFound)?;
        entry.claim();
        entry.record = record;
        self.done(Some(reply), now_ns);
        Ok(())
    }

    fn close_session(
        &mut self,
        reply: ReplyTo,
        session: u64,
        now_ns: u64,
    ) -> Result<(), FailReason> {
        let cancelled = self.cancel_opening(session, now_ns);
        match self.sessions.get(&session) {
            None if cancelled => self.done(Some(reply), now_ns),
            None => return Err(FailReason::NotFound),
            Some(entry) if entry.phase == Phase::Closing => return Err(FailReason::NotFound),
            Some(_) => self.remove_session(session, Some(reply), now_ns),
        }
        Ok(())
    }

    /// Hands a command about a fork to the worker that has both sessions.
    fn fork(
        &mut self,
        reply: ReplyTo,
        session: u64,
        target: u64,
        now_ns: u64,
        command: impl FnOnce(u64) -> WorkerCommand,
    ) -> Result<(), FailReason> {
        let worker = self.live_session(session)?;
        if self.live_session(target)? != worker {
            return Err(FailReason::Invalid);
        }
        let request = self.ask(Some(reply), Wanted::Plain, now_ns);
        self.workers[worker].send(command(request));
        Ok(())
    }

    /// Hands prepared sounds to the worker of a session that is to play them.
    fn start_play(
        &mut self,
        reply: ReplyTo,
        start: PlayStart,
        now_ns: u64,
    ) -> Result<(), FailReason> {
        let worker = self.live_session(start.session)?;
        let sources = self.sources.of(&start).ok_or(FailReason::NotFound)?;
        let request = self.ask(Some(reply), Wanted::Plain, now_ns);
        self.workers[worker].send(WorkerCommand::Play {
            request,
            start: Box::new(start),
            sources,
        });
        Ok(())
    }

    fn start_recording(
        &mut self,
        reply: ReplyTo,
        start: RecordingStart,
        now_ns: u64,
    ) -> Result<(), FailReason> {
        let worker = self.live_session(start.session)?;
        let (session, recording) = (start.session, start.recording);
        if recording == 0 {
            return Err(FailReason::Invalid);
        }
        let current = self.sessions[&session].recording;
        let runs = self
            .recordings
            .get(&current)
            .is_some_and(|known| known.phase != RecordingPhase::Stopped && !known.finishing);
        if self.recordings.len() >= RECORDINGS_MAX {
            return Err(FailReason::NoCapacity);
        }
        if runs || self.recordings.contains_key(&recording) {
            return Err(FailReason::WrongState);
        }
        // The recorder must know of it before the worker does.
        let begin = RecorderCommand::Begin {
            session,
            recording,
            first_ordinal: start.first_ordinal,
            prev_segment: start.prev_segment,
            prev_page: start.prev_page,
        };
        self.recorder
            .commands
            .push(begin)
            .map_err(|_| FailReason::NoCapacity)?;
        self.recorder.bell.ring();
        self.recordings
            .insert(recording, Recording::new(session, worker));
        if let Some(entry) = self.sessions.get_mut(&session) {
            entry.recording = recording;
        }
        // What was dropped before is not this recording's.
        self.report_drops(session);
        let request = self.ask(Some(reply), Wanted::RecordingStart { recording }, now_ns);
        let start = TapStart {
            session,
            recording,
            origin_mono_ns: start.origin_mono_ns,
            first_ordinal: start.first_ordinal,
            clock: clock_triple(),
            open_fact: start.open_fact,
        };
        let start = Box::new(start);
        self.workers[worker].send(WorkerCommand::RecordingStart { request, start });
        Ok(())
    }

    fn change_phase(
        &mut self,
        reply: ReplyTo,
        session: u64,
        recording: u64,
        phase: RecordingPhase,
        now_ns: u64,
    ) -> Result<(), FailReason> {
        let worker = self.known_recording(recording)?;
        if self.recordings[&recording].session != session {
            return Err(FailReason::NotFound);
        }
        // Drops of the time until now belong to the interval that ends.
        self.report_drops(session);
        let request = self.ask(Some(reply), Wanted::RecordingPhase, now_ns);
        self.workers[worker].send(match phase {
            RecordingPhase::Running => WorkerCommand::RecordingResume {
                request,
                session,
                recording,
            },
            RecordingPhase::Paused => WorkerCommand::RecordingPause {
                request,
                session,
                recording,
            },
            RecordingPhase::Stopped => WorkerCommand::RecordingStop {
                request,
                session,
                recording,
            },
        });
        Ok(())
    }

    /// Lets a recording end; the recorder reports when it is durable.
    pub(super) fn finish_recording(
        &mut self,
        reply: Option<ReplyTo>,
        recording: u64,
        now_ns: u64,
    ) -> Result<(), FailReason> {
        let worker = self.known_recording(recording)?;
        let session = self.recordings[&recording].session;
        self.report_drops(session);
        let request = self.ask(reply, Wanted::RecordingFinish { recording }, now_ns);
        self.workers[worker].send(WorkerCommand::RecordingFinish { request, recording });
        if let Some(entry) = self.recordings.get_mut(&recording) {
            entry.finishing = true;
        }
        Ok(())
    }
}

/// Both clocks now.
fn clock_triple() -> ClockTriple {
    let utc = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    // Left by systemd-timesyncd and chrony's units once the clock is synchronised.
    let synchronised = std::path::Path::new("/run/systemd/timesync/synchronized").exists();
    ClockTriple {
        mono_ns: monotonic_ns().unwrap_or(0),
        utc_ns: utc.map_or(0, |since| {
            u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
        }),
        sync: u8::from(synchronised),
    }
}
