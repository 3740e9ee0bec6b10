//! What the conductor asks for.

use std::collections::hash_map::Entry;

use trunkline_device::{Device, DeviceError};
use trunkline_engine::{DropReason, MEDIA_MAX, MediaSpec, PortSlots, SessionSpec};
use trunkline_link::message::{FailReason, LegUpdate};

use super::message::{
    MediaInstall, PortSocket, SessionInstall, SocketInstall, WorkerCommand, WorkerEvent,
};
use super::translate::{digit_spec, fail_reason, leg, media_kind, play_spec, side, worker_event};
use super::{Session, Worker};

impl<D: Device> Worker<D> {
    /// Takes some commands; gives how many.
    pub(super) fn take_commands(&mut self, now_ns: u64) -> usize {
        let mut taken = 0;
        while taken < self.config.commands_per_cycle
            && let Some(command) = self.queues.commands.pop()
        {
            taken += 1;
            self.on_command(now_ns, command);
        }
        taken
    }

    fn on_command(&mut self, now_ns: u64, command: WorkerCommand) {
        match command {
            WorkerCommand::AddSession { request, install } => {
                let result = self.on_add_session(now_ns, *install);
                self.answer(request, result);
            }
            WorkerCommand::UpdateLeg { request, update } => {
                let result = self.on_update_leg(now_ns, &update);
                self.answer(request, result);
            }
            WorkerCommand::RemoveSession { request, session } => {
                let result = self.on_remove_session(now_ns, session);
                self.answer(request, result);
            }
            WorkerCommand::RecordingStart { request, start } => {
                self.on_recording_start(now_ns, request, *start);
            }
            WorkerCommand::RecordingPause {
                request,
                session,
                recording,
            } => {
                self.on_recording_pause(now_ns, request, session, recording);
            }
            WorkerCommand::RecordingResume {
                request,
                session,
                recording,
            } => {
                self.on_recording_resume(now_ns, request, session, recording);
            }
            WorkerCommand::RecordingStop {
                request,
                session,
                recording,
            } => {
                self.on_recording_stop(now_ns, request, session, recording);
            }
            WorkerCommand::RecordingFact {
                request,
                recording,
                kind,
                fact,
            } => {
                let result = self.on_recording_fact(now_ns, recording, kind, fact);
                self.answer(request, result);
            }
            WorkerCommand::RecordingFinish { request, recording } => {
                let result = self.on_recording_finish(now_ns, recording);
                self.answer(request, result);
            }
            WorkerCommand::Dial { request, digit } => {
                let dialled = self.engine.dial(now_ns, &digit_spec(&digit));
                self.answer(request, dialled.map_err(fail_reason));
            }
            WorkerCommand::Play {
                request,
                start,
                sources,
            } => {
                let playing = self.engine.play(now_ns, &play_spec(&start, &sources));
                self.tell_played();
                self.answer(request, playing.map_err(fail_reason));
            }
            WorkerCommand::PlayStop {
                request,
                session,
                media,
                to,
            } => {
                let stopped = self.engine.stop_play(session, media, side(to));
                self.tell_played();
                self.answer(request, stopped.map_err(fail_reason));
            }
            WorkerCommand::ForkStart {
                request,
                session,
                target,
                unix_offset_ns,
            } => {
                let result = self.on_fork_start(now_ns, session, target, unix_offset_ns);
                self.answer(request, result);
            }
            WorkerCommand::ForkState {
                request,
                session,
                target,
                state,
            } => {
                let result = self.on_fork_state(session, target, state);
                self.answer(request, result);
            }
            WorkerCommand::ForkStop {
                request,
                session,
                target,
            } => {
                let result = self.on_fork_stop(session, target);
                self.answer(request, result);
            }
            WorkerCommand::SocketDrops { slot, rise } => {
                self.totals.socket_drops += rise;
                self.engine.attribute_drops(slot, DropReason::Socket, rise);
            }
            WorkerCommand::ListSilent { silent_ns } => self.on_list_silent(now_ns, silent_ns),
            WorkerCommand::Shutdown => self.on_shutdown(now_ns),
        }
    }

    fn answer(&mut self, request: u64, result: Result<(), FailReason>) {
        self.reports.tell(match result {
            Ok(()) => WorkerEvent::Done { request },
            Err(reason) => WorkerEvent::Failed { request, reason },
        });
    }

    /// Tells what was heard of plays that a command has ended.
    fn tell_played(&mut self) {
        while let Some(event) = self.engine.poll_played() {
            self.reports.tell(worker_event(event));
        }
    }

    fn on_add_session(&mut self, now_ns: u64, install: SessionInstall) -> Result<(), FailReason> {
        let known = self.sessions.get(&install.session);
        let mut media = known.map_or_else(Vec::new, |session| session.media.clone());
        let media_timeout_ns = known.map_or_else(
            || u64::from(install.media_timeout_ms) * 1_000_000,
            |session| session.media_timeout_ns,
        );
        let fits = media.len() == usize::from(install.first_media)
            && media.len() + install.media.len() <= MEDIA_MAX;
        media.extend(install.media.iter().map(media_spec));
        let sockets = install.media.into_iter().flat_map(sockets);
        if !fits {
            self.refuse_sockets(sockets);
            return Err(FailReason::Invalid);
        }
        let installed = self.install_sockets(sockets)?;
        let spec = SessionSpec {
            session: install.session,
            media_timeout_ns,
            media,
        };
        if let Err(error) = self.engine.add_session(now_ns, &spec) {
            self.remove_slots(&installed);
            return Err(fail_reason(error));
        }
        match self.sessions.entry(install.session) {
            Entry::Occupied(mut session) => session.get_mut().media = spec.media,
            Entry::Vacant(place) => {
                place.insert(Session {
                    media_timeout_ns,
                    media: spec.media,
                    recording: None,
                });
            }
        }
        Ok(())
    }

    /// Gives sockets to the device: all or none. What is not installed is closed and reported.
    fn install_sockets(
        &mut self,
        mut sockets: impl Iterator<Item = SocketInstall>,
    ) -> Result<Vec<u32>, FailReason> {
        let mut installed = Vec::with_capacity(4);
        while let Some(SocketInstall { slot, socket }) = sockets.next() {
            let installed_now = match socket {
                PortSocket::Bound(socket) => self.device.install(slot, socket),
                PortSocket::At(address) => self.device.install_port(slot, address),
            };
            if let Err(error) = installed_now {
                // A slot that is in use, or none at all, is not free because of this.
                if !matches!(error, DeviceError::SlotBusy(_) | DeviceError::SlotRange(_)) {
                    self.reports.tell(WorkerEvent::SlotClosed { slot });
                }
                self.refuse_sockets(sockets);
                self.remove_slots(&installed);
                return Err(match error {
                    DeviceError::SlotBusy(_) | DeviceError::SlotRange(_) => FailReason::Invalid,
                    _ => FailReason::NoCapacity,
                });
            }
            self.totals.slots += 1;
            installed.push(slot);
        }
        Ok(installed)
    }

    fn refuse_sockets(&mut self, sockets: impl Iterator<Item = SocketInstall>) {
        for SocketInstall { slot, socket } in sockets {
            drop(socket);
            self.reports.tell(WorkerEvent::SlotClosed { slot });
        }
    }

    /// Closes sockets; each is reported when it is.
    fn remove_slots(&mut self, slots: &[u32]) {
        for &slot in slots {
            if self.device.remove(slot).is_err() {
                // It failed before and was reported then.
                continue;
            }
        }
    }

    fn on_update_leg(&mut self, now_ns: u64, update: &LegUpdate) -> Result<(), FailReason> {
        self.engine
            .update_leg(now_ns, &leg(update))
            .map_err(fail_reason)
    }

    fn on_remove_session(&mut self, now_ns: u64, session: u64) -> Result<(), FailReason> {
        let recording = self
            .sessions
            .get(&session)
            .ok_or(FailReason::NotFound)?
            .recording;
        self.take_unread_drops();
        if let Some(recording) = recording {
            self.on_recording_stop(now_ns, 0, session, recording);
        }
        self.tell_forks_of(session);
        self.engine.remove_session(session).map_err(fail_reason)?;
        self.tell_played();
        if let Some(session) = self.sessions.remove(&session) {
            for ports in session.media.iter().flat_map(|media| media.slots) {
                self.remove_slots(&[ports.rtp, ports.rtcp]);
            }
        }
        Ok(())
    }

    fn on_list_silent(&mut self, now_ns: u64, silent_ns: u64) {
        let Self {
            engine, reports, ..
        } = self;
        engine.for_each_session(|session, last_packet_ns| {
            if now_ns.saturating_sub(last_packet_ns) >= silent_ns {
                reports.tell(WorkerEvent::SessionSilent {
                    session,
                    last_packet_ns,
                });
            }
        });
    }

    fn on_shutdown(&mut self, now_ns: u64) {
        let sessions: Vec<u64> = self.sessions.keys().copied().collect();
        for session in sessions {
            // Every key is a session that the engine has.
            let _ = self.on_remove_session(now_ns, session);
        }
        let recordings: Vec<u64> = self.recordings.keys().copied().collect();
        for recording in recordings {
            let _ = self.on_recording_finish(now_ns, recording);
        }
        self.capture.shut_down();
        self.device.flush();
        self.ending = true;
    }
}

fn media_spec(media: &MediaInstall) -> MediaSpec {
    let slots = media.ports.each_ref().map(|port| PortSlots {
        rtp: port.rtp.slot,
        rtcp: port.rtcp.slot,
    });
    MediaSpec {
        kind: media_kind(media.kind),
        slots,
    }
}

fn sockets(media: MediaInstall) -> impl Iterator<Item = SocketInstall> {
    media
        .ports
        .into_iter()
        .flat_map(|port| [port.rtp, port.rtcp])
}
