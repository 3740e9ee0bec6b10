//! A recording session's media: ports beside the call's, and the fork into them.

use trunkline_link::message::{
    Command, Event, FailReason, ForkState, ForkStream, LegUpdate, MediaKind, MediaOpen, leg_flags,
};

use super::state::{Batch, Phase, RecordingSession, Step};
use super::{Client, Context};
use crate::api::handle::ActionError;
use trunkline_config::RecorderPause;
use trunkline_sinks::Timestamp;

/// An answer of the dataplane that has not come by then does not come.
const LINK_PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);
/// A replay waits for its recording to be whole first.
const REPLAY_PATIENCE: std::time::Duration = std::time::Duration::from_secs(90);
/// RTCP of a recorder that had come and stops for so long tells that it is gone, ns.
const SILENT_NS: u64 = 30_000_000_000;

impl RecordingSession {
    /// The media that its m-lines need, with the ports already known.
    fn wanted_media(&self) -> Vec<MediaOpen> {
        let count = self.lines.iter().map(|line| line.media + 1).max();
        (0..count.unwrap_or(0))
            .map(|media| {
                let mut lines = self.lines.iter().filter(|line| line.media == media);
                let audio = lines.any(|line| line.kind == "audio");
                let known = self.media.open.get(usize::from(media));
                MediaOpen {
                    kind: if audio {
                        MediaKind::Audio
                    } else {
                        MediaKind::OpaqueRtp
                    },
                    ports: known.map_or([0; 2], |open| open.ports),
                }
            })
            .collect()
    }

    /// The state that the fork is to have.
    pub(super) fn wanted_fork(&self) -> ForkState {
        match (self.paused, self.recorder.pause) {
            (false, _) => ForkState::Running,
            (true, RecorderPause::Inactive) => ForkState::Paused,
            (true, RecorderPause::Silence) => ForkState::Silenced,
        }
    }

    /// Where what each side says is to go, as the recorder described it.
    pub(super) fn leg_commands(&mut self) -> Vec<Command> {
        let signalling = self.leg.as_ref().map(|leg| leg.remote.ip()).or(self.peer);
        let lines = self.lines.clone();
        let mut commands = Vec::new();
        for (index, line) in lines.iter().enumerate() {
            let sends = self.offered.get(index).is_some_and(|offered| offered.sends);
            let accepted = self.accepted.get(index).filter(|_| signalling.is_some());
            let mut flags = 0;
            if sends && accepted.is_some_and(|accepted| accepted.receives) {
                flags |= leg_flags::MAY_SEND;
            }
            if accepted.is_some_and(|accepted| accepted.rtcp_mux) {
                flags |= leg_flags::RTCP_MUX;
            }
            let update = LegUpdate {
                session: self.key,
                media: line.media,
                side: line.side(),
                flags,
                rtp: accepted.and_then(|accepted| accepted.rtp),
                rtcp: accepted.and_then(|accepted| accepted.rtcp),
                signalling,
                payloads: accepted.map(|one| one.payloads.clone()).unwrap_or_default(),
                restore: None,
            };
            commands.push(self.media.leg_command(update));
        }
        commands
    }

    /// Forks the call's media, in the state that is wanted, to where the recorder said.
    pub(super) fn fork_commands(&mut self) -> Vec<Command> {
        let (session, target) = (self.view.key, self.key);
        let mut commands = Vec::new();
        if !self.forking {
            self.forking = true;
            self.fork = ForkState::Running;
            commands.push(Command::ForkStart { session, target });
        }
        let state = self.wanted_fork();
        if state != self.fork {
            self.fork = state;
            commands.push(Command::ForkState {
                session,
                target,
                state,
            });
        }
        // Where to is told last: nothing leaves before the fork's state holds.
        commands.extend(self.leg_commands());
        commands
    }
}

impl Client {
    pub(super) fn batch(
        &mut self,
        session: &mut RecordingSession,
        commands: Vec<Command>,
        then: Step,
        cx: &mut Context<'_>,
    ) {
        let id = session.next_batch;
        session.next_batch += 1;
        if commands.is_empty() {
            return self.step(session, then, None, cx);
        }
        session.batches.push(Batch {
            id,
            open: commands.len(),
            failed: None,
            deadline: cx.now.instant
                + match session.replay {
                    None => LINK_PATIENCE,
                    Some(_) => REPLAY_PATIENCE,
                },
            then,
        });
        for command in commands {
            self.requests.insert(*cx.next_request, (session.key, id));
            session.command(command, cx);
        }
    }

    /// The answer to a command; true when it was one of ours.
    pub fn on_link_reply(
        &mut self,
        request: u64,
        failed: Option<FailReason>,
        cx: &mut Context<'_>,
    ) -> bool {
        let Some((key, id)) = self.requests.remove(&request) else {
            return false;
        };
        self.with(key, cx, |client, session, cx| {
            let Some(index) = session.batches.iter().position(|batch| batch.id == id) else {
                return;
            };
            let batch = &mut session.batches[index];
            batch.open -= 1;
            batch.failed = batch.failed.or(failed);
            if batch.open == 0 {
                let batch = session.batches.remove(index);
                client.step(session, batch.then, batch.failed, cx);
            }
        });
        true
    }

    /// An event of the dataplane; true when it concerns a session of ours.
    pub fn on_link_event(&mut self, event: &Event, cx: &mut Context<'_>) -> bool {
        match event {
            Event::Done { request } => self.on_link_reply(*request, None, cx),
            Event::Failed { request, reason } => self.on_link_reply(*request, Some(*reason), cx),
            Event::SessionOpened {
                request,
                session,
                ports,
                ..
            } if self.sessions.contains_key(session) => {
                let fits = self
                    .sessions
                    .get_mut(session)
                    .is_some_and(|session| session.media.opened(ports));
                self.on_link_reply(*request, (!fits).then_some(FailReason::Internal), cx);
                true
            }
            Event::ForkProgress {
                target,
                heard_ns,
                streams,
                ..
            } => {
                self.with(*target, cx, |client, session, cx| {
                    client.fork_progress(session, *heard_ns, streams, cx);
                });
                true
            }
            Event::SessionEnded { session } if self.sessions.contains_key(session) => {
                self.with(*session, cx, |client, session, cx| {
                    session.forking = false;
                    client.reopen(session, cx);
                });
                true
            }
            Event::EndpointLearned { session, .. } | Event::SourceChanged { session, .. } => {
                self.sessions.contains_key(session)
            }
            _ => false,
        }
    }

    fn fork_progress(
        &mut self,
        session: &mut RecordingSession,
        heard_ns: u64,
        streams: &[ForkStream],
        cx: &mut Context<'_>,
    ) {
        session.streams = streams.to_vec();
        session.heard_ns = session.heard_ns.max(heard_ns);
        let silent = session.heard_ns != 0
            && cx.now.mono_ns.saturating_sub(session.heard_ns) > SILENT_NS
            && session.fork == ForkState::Running
            && session.accepted.iter().any(|line| line.receives);
        if silent && session.phase == Phase::Standing {
            let silent_ms = cx.now.mono_ns.saturating_sub(session.heard_ns) / 1_000_000;
            let heard = cx
                .now
                .utc
                .0
                .saturating_sub(i64::try_from(silent_ms).unwrap_or(0));
            session.gone_since = Some(Timestamp(heard));
            self.lost(session, "its RTCP has stopped", true, cx);
        }
    }

    /// Asks for ports, once the call has some and its media is known.
    pub(super) fn open(&mut self, session: &mut RecordingSession, cx: &mut Context<'_>) {
        let asked = session
            .batches
            .iter()
            .any(|batch| matches!(batch.then, Step::Opened));
        let there = !session.media.open.is_empty();
        if asked || there || session.lines.is_empty() || !session.view.has_ports {
            return;
        }
        session.media.open = session.wanted_media();
        let command = session.media.open_command();
        self.batch(session, vec![command], Step::Opened, cx);
    }

    /// Asks for ports of m-lines that have none; true when it had to.
    pub(super) fn extend(&mut self, session: &mut RecordingSession, cx: &mut Context<'_>) -> bool {
        let pending = session
            .batches
            .iter()
            .any(|batch| matches!(batch.then, Step::Extended));
        let wanted = session.wanted_media();
        if pending || wanted.len() <= session.media.open.len() {
            return pending;
        }
        session.media.open = wanted;
        let (session_id, target) = (session.view.key, session.key);
        let mut commands = vec![session.media.open_command()];
        if session.forking {
            commands.push(Command::ForkStart {
                session: session_id,
                target,
            });
        }
        self.batch(session, commands, Step::Extended, cx);
        true
    }

    /// What the dataplane left unanswered is gone on with: a new dataplane is told all again.
    pub(super) fn expire_batches(&mut self, session: &mut RecordingSession, cx: &mut Context<'_>) {
        let due = |batch: &mut Batch| batch.deadline <= cx.now.instant;
        let expired: Vec<Batch> = session.batches.extract_if(.., due).collect();
        for batch in expired {
            match batch.then {
                Step::Opened => session.media.open.clear(),
                then => self.step(session, then, None, cx),
            }
        }
    }

    /// Arms the fork as the recorder's description says.
    pub(super) fn arm(&mut self, session: &mut RecordingSession, then: Step, cx: &mut Context<'_>) {
        let commands = match session.is_carrier() {
            true => self.riders_fork(session),
            false => session.fork_commands(),
        };
        self.batch(session, commands, then, cx);
    }

    /// Holds the copies back, silences them, or lets them go on.
    pub(super) fn set_fork(
        &mut self,
        session: &mut RecordingSession,
        then: Step,
        cx: &mut Context<'_>,
    ) {
        let state = session.wanted_fork();
        let mut commands = Vec::new();
        if session.forking && state != session.fork {
            session.fork = state;
            commands.push(Command::ForkState {
                session: session.view.key,
                target: session.key,
                state,
            });
        }
        self.batch(session, commands, then, cx);
    }

    /// Nothing more goes to the recorder that had the session.
    pub(super) fn disarm(&mut self, session: &mut RecordingSession, cx: &mut Context<'_>) {
        session.accepted.clear();
        self.riders_disarm(session, cx);
        if session.forking {
            for command in session.leg_commands() {
                session.command(command, cx);
            }
        }
    }

    pub(super) fn close(&mut self, session: &mut RecordingSession, cx: &mut Context<'_>) {
        // A replay's thread ends by it, with ports or without.
        if !session.media.open.is_empty() || session.replay.is_some() {
            session.media.open.clear();
            session.forking = false;
            let close = Command::SessionClose {
                session: session.key,
            };
            session.command(close, cx);
        }
    }

    /// Goes on after commands.
    pub(super) fn step(
        &mut self,
        session: &mut RecordingSession,
        step: Step,
        failed: Option<FailReason>,
        cx: &mut Context<'_>,
    ) {
        if let Some(reason) = failed {
            return self.refused(session, step, reason, cx);
        }
        match step {
            Step::Opened => match session.phase {
                Phase::Opening => self.next_round(session, cx),
                Phase::Asked => self.answer_asking(session, cx),
                _ => {}
            },
            Step::Extended => self.tell(session, cx),
            Step::Armed => self.armed(session, cx),
            Step::Changed => self.changed(session, cx),
            Step::Answer(answering) => self.answer(session, *answering, cx),
            Step::Paused => self.paused(session, cx),
            Step::Resumed => self.resumed(session, cx),
            Step::Reinstalled => {
                session.forking = false;
                let commands = session.fork_commands();
                self.batch(session, commands, Step::Nothing, cx);
                self.save(session, cx);
            }
            Step::Stopped => self.stopped(session, cx),
            Step::Nothing => {}
        }
    }

    /// The dataplane refused something.
    fn refused(
        &mut self,
        session: &mut RecordingSession,
        step: Step,
        reason: FailReason,
        cx: &mut Context<'_>,
    ) {
        tracing::warn!(session = %session.id, ?step, ?reason, "the dataplane refused a recording session's media");
        let why = format!("the dataplane refused: {reason:?}");
        match step {
            Step::Opened => {
                session.media.open.clear();
                match session.phase {
                    Phase::Asked => self.asked_in_vain(session, &why, cx),
                    // Why is told by the replay itself.
                    _ if session.replay.is_some() => {}
                    _ => self.no_server(session, &why, cx),
                }
            }
            Step::Armed => {
                self.armed(session, cx);
                self.lost(session, &why, false, cx);
            }
            Step::Changed => self.changed(session, cx),
            Step::Answer(answering) => self.answer(session, *answering, cx),
            Step::Paused | Step::Resumed => {
                self.answer_waiting(session, &Err(ActionError::Unavailable(why)), cx);
            }
            Step::Stopped => self.stopped(session, cx),
            Step::Extended | Step::Reinstalled | Step::Nothing => {}
        }
    }

    /// The dataplane died: the sessions stand, and their media is installed anew with the call's.
    pub fn dataplane_died(&mut self, cx: &mut Context<'_>) {
        let sessions = &self.sessions;
        let is_replay = |key: &u64| sessions.get(key).is_some_and(|one| one.replay.is_some());
        self.requests.retain(|_, (key, _)| is_replay(key));
        let mut keys: Vec<u64> = self.sessions.keys().copied().collect();
        keys.retain(|key| !is_replay(key));
        for key in keys {
            self.with(key, cx, |client, session, cx| {
                session.forking = false;
                session.keep_counts();
                for batch in std::mem::take(&mut session.batches) {
                    match batch.then {
                        Step::Opened => session.media.open.clear(),
                        Step::Armed => client.armed(session, cx),
                        Step::Changed => client.changed(session, cx),
                        Step::Answer(answering) => client.answer(session, *answering, cx),
                        Step::Paused => client.paused(session, cx),
                        Step::Resumed => client.resumed(session, cx),
                        Step::Stopped => client.stopped(session, cx),
                        Step::Extended | Step::Reinstalled | Step::Nothing => {}
                    }
                }
            });
        }
    }

    /// The call's media is in a new dataplane: its recording sessions' follow.
    pub fn reinstall(&mut self, call: u64, cx: &mut Context<'_>) {
        for key in self.of_call(call) {
            self.with(key, cx, |client, session, cx| client.reopen(session, cx));
        }
    }

    fn reopen(&mut self, session: &mut RecordingSession, cx: &mut Context<'_>) {
        let waits = session.phase == Phase::Opening || session.invited.is_some();
        if waits && session.media.open.is_empty() {
            return self.open(session, cx);
        }
        if session.media.open.is_empty() || session.phase == Phase::Ending {
            return;
        }
        let command = session.media.open_command();
        self.batch(session, vec![command], Step::Reinstalled, cx);
    }
}
