//! What a recorder missed of a call is sent to it after the call, in a recording session of its own.
//!
//! Such a session is like any other, but that its media comes from the capture here
//! ([`crate::replay`]) instead of the dataplane, and that it ends when all is sent. Its metadata is that of the
//! call while it was missed; the session's `sessionrecordingassoc` tells since and until when.

use std::sync::Arc;

use trunkline_config::{Recorder, Replay};
use trunkline_link::message::Command;
use trunkline_sinks::Timestamp;
use trunkline_siprec::describe::Media;

use super::state::{Phase, RecordingSession};
use super::view::{CallView, Stage};
use super::{Client, Context};
use crate::api::events::{EventKind, Subject};
use crate::replay::{Missed, Order};
use crate::siprec::session::Span;

/// Replays at once; more wait.
const RUNNING_MAX: usize = 8;
/// Replays that may wait.
const WAITING_MAX: usize = 1024;
/// How often all servers are asked before a replay is given up.
pub(super) const ROUNDS_MAX: u32 = 20;
/// Less than that is not worth a session of its own, in milliseconds.
const SHORTEST_MS: u64 = 20;

/// The part of a call that a recorder is to get later.
#[derive(Debug, Clone)]
pub(super) struct Gone {
    recorder: Arc<Recorder>,
    /// The call as it was then.
    view: Arc<CallView>,
    from: Timestamp,
    to: Timestamp,
}

impl RecordingSession {
    /// Notes the gap that has just ended, where the recorder is to get it later.
    pub(super) fn note_gone(&mut self, view: &Arc<CallView>) {
        let is_of_call = self.replay.is_none() && !self.is_carrier();
        if self.recorder.replay != Replay::AfterCall || !is_of_call {
            return;
        }
        let Some((from, to)) = self.gaps.last().and_then(|gap| Some((gap.from, gap.to?))) else {
            return;
        };
        if to.ms_since(from) >= SHORTEST_MS {
            let (recorder, view) = (Arc::clone(&self.recorder), Arc::clone(view));
            self.gone.push(Gone {
                recorder,
                view,
                from,
                to,
            });
        }
    }

    /// Sends a command to whoever has the session's media.
    pub(super) fn command(&self, command: Command, cx: &mut Context<'_>) {
        let request = *cx.next_request;
        *cx.next_request += 1;
        match self.replay {
            None => cx.commands.push((request, command)),
            Some(_) => cx.replays.push(Order::Command { request, command }),
        }
    }
}

impl Client {
    /// A call's recording session is over: what it missed waits for the call's end.
    pub(super) fn keep_gone(&mut self, session: &mut RecordingSession, cx: &mut Context<'_>) {
        let gone = std::mem::take(&mut session.gone);
        match self.calls.get_mut(&session.view.key) {
            Some(call) => call.gone.extend(gone),
            None => self.replay_later(gone, cx),
        }
    }

    /// The call is over: what was missed of it follows.
    pub(super) fn replay_later(&mut self, gone: Vec<Gone>, cx: &mut Context<'_>) {
        for one in gone {
            let captured = one.view.recording.is_some();
            if captured && self.replays.len() < WAITING_MAX {
                self.replays.push_back(one);
                continue;
            }
            let why = match captured {
                true => "too many replays wait",
                false => "there is no recording here",
            };
            let message = format!(
                "recorder {} will not get what it missed of call {}: {why}",
                one.recorder.name, one.view.id
            );
            tracing::warn!("{message}");
            let subject = Subject::Alarm {
                code: "recorder_replay",
                message: &message,
            };
            cx.events
                .publish(EventKind::AlarmRaised, cx.now.utc, &subject);
        }
        self.next_replays(cx);
    }

    /// Begins as many replays as may run.
    pub(super) fn next_replays(&mut self, cx: &mut Context<'_>) {
        let is_replay = |one: &&RecordingSession| one.replay.is_some();
        while self.sessions.values().filter(is_replay).count() < RUNNING_MAX {
            let Some(gone) = self.replays.pop_front() else {
                return;
            };
            self.begin_replay(&gone, cx);
        }
    }

    fn begin_replay(&mut self, gone: &Gone, cx: &mut Context<'_>) {
        let Gone { from, to, .. } = *gone;
        let view = Arc::new(view_then(&gone.view, to));
        let Some(recording) = view.recording.clone() else {
            return;
        };
        let mut session = self.new_session(&view, &gone.recorder, cx);
        session.lines_from_view();
        if session.lines.is_empty() {
            tracing::warn!(recorder = %gone.recorder.name, call = %view.id, "what a recorder missed has no line to be sent on");
            return;
        }
        session.story.recorded(from, to);
        session.replay = Some(Span { from, to });
        let interface = cx.config.interfaces.get(usize::from(view.interface));
        cx.replays.push(Order::Begin(Missed {
            session: session.key,
            recording,
            from,
            to,
            address: interface.map_or(std::net::Ipv4Addr::LOCALHOST.into(), |one| one.address),
        }));
        let key = session.key;
        self.sessions.insert(key, session);
        self.with(key, cx, |client, session, cx| client.update(session, cx));
    }

    /// A replay has sent everything, or cannot.
    pub fn replay_over(&mut self, key: u64, failed: Option<String>, cx: &mut Context<'_>) {
        self.with(key, cx, |client, session, cx| {
            if failed.is_none() {
                session.replayed = true;
                session.why = None;
            } else {
                session.why = failed;
            }
            client.end(session, cx);
        });
    }

    /// The recorder leaves a replay before all is sent: it is not begun again.
    pub(super) fn replay_lost(
        &mut self,
        session: &mut RecordingSession,
        why: &str,
        bye: bool,
        cx: &mut Context<'_>,
    ) {
        session.why = Some(format!("{}: {why}", session.server_name()));
        if bye {
            self.send_stray_bye(session, cx);
        }
        session.phase = Phase::Over;
    }
}

/// The call as a recorder is told of it that missed it until `to`.
fn view_then(view: &CallView, to: Timestamp) -> CallView {
    let mut then = CallView {
        ended_at: None,
        reason: None,
        stage: Stage::Answered,
        settled: true,
        has_ports: true,
        ..view.clone()
    };
    for party in &mut then.parties {
        party.to = party.to.filter(|left| *left < to);
    }
    // Who held whom in the course of it is told by the sound.
    for stream in &mut then.streams {
        stream.direction = Media::BOTH;
    }
    then
}
