//! Recording sessions as they are shown and told of.

use std::sync::Arc;

use trunkline_link::message::{ForkState, ForkStream};
use trunkline_sdp::RecordState;
use trunkline_sinks::object::{self, CallState};

use super::sdp::label;
use super::state::{Phase, RecordingSession};
use super::story::session_id;
use super::view::Stage;
use super::{Chosen, Client, Context, ENDED_MAX, Order};
use crate::api::events::{EventKind, Subject};
use crate::siprec::session::{Role, Session, State, Stream};

impl RecordingSession {
    fn state(&self) -> State {
        let takes = self
            .accepted
            .iter()
            .any(|line| line.receives && line.rtp.is_some());
        match self.phase {
            Phase::Opening | Phase::Asked | Phase::Inviting | Phase::Arming => {
                match self.gaps.last() {
                    Some(gap) if gap.to.is_none() => State::Lost,
                    _ => State::Starting,
                }
            }
            Phase::Standing if self.paused => State::Paused,
            Phase::Standing if self.view.stage < Stage::Early => State::Starting,
            Phase::Standing if takes => State::Active,
            Phase::Standing => State::Inactive,
            Phase::Lost => State::Lost,
            Phase::Ending | Phase::Over if self.has_served() => State::Ended,
            Phase::Ending | Phase::Over => State::Failed,
        }
    }

    /// Whether its server records the call.
    pub(super) fn records(&self) -> RecordState {
        match self.state() {
            State::Active if self.forking && self.fork == ForkState::Running => RecordState::On,
            State::Active | State::Paused => RecordState::Paused,
            _ => RecordState::Off,
        }
    }

    /// Somebody recorded by it; of a replay, all of it.
    fn has_served(&self) -> bool {
        self.announced && (self.replay.is_none() || self.replayed)
    }

    /// As the API shows it.
    pub(super) fn shown(&self) -> Session {
        let dialog = self.leg.as_ref().and_then(|leg| leg.dialog.as_ref());
        let invited = self
            .attempt
            .as_ref()
            .and_then(|attempt| attempt.request.headers.call_id().ok());
        let sip_call_id = dialog.map(|dialog| dialog.call_id().to_owned());
        let host = self.host.as_ref();
        let sip_call_id = sip_call_id.or(host.map(|host| host.sip_call_id.clone()));
        let of_call = |text: &String| (!self.is_carrier()).then(|| text.clone());
        Session {
            id: self.id.clone(),
            role: Role::Client,
            state: self.state(),
            instance: self.recorder.name.clone(),
            server: self.server_name(),
            peer: None,
            call: of_call(&self.view.id),
            call_sip_call_id: of_call(&self.view.sip_call_id),
            recording: self.view.recording.clone(),
            sip_call_id: sip_call_id.or(invited).unwrap_or_default(),
            session_id: of_call(&session_id(&self.view.id).to_string()),
            started_at: self.started_at,
            ended_at: self.ended_at,
            streams: self.shown_streams(),
            revision: self.revision,
            revised_at: self.revised_at,
            failovers: self.failovers,
            gaps: self.gaps.clone(),
            replay: self.replay,
            within: host.map(|host| host.id.clone()),
            why: self.why.clone(),
        }
    }

    fn shown_streams(&self) -> Vec<Stream> {
        let lines = self.lines.iter().enumerate();
        lines
            .map(|(index, line)| {
                let of = |one: &&ForkStream| one.media == line.media && one.side == line.side();
                let counted = self.streams.iter().chain(&self.streams_before).filter(of);
                let sum = |count: fn(&ForkStream) -> u64| counted.clone().map(count).sum();
                Stream {
                    label: label(line.place),
                    media: line.kind.clone(),
                    participant: self.story.speaker(index),
                    codec: self.accepted.get(index).and_then(|one| one.codec.clone()),
                    packets: sum(|one| one.packets),
                    payload_bytes: sum(|one| one.payload_bytes),
                    withheld: sum(|one| one.withheld),
                }
            })
            .collect()
    }

    /// What a dataplane that died has sent is kept.
    pub(super) fn keep_counts(&mut self) {
        let counted = std::mem::take(&mut self.streams);
        self.streams_before.extend(counted);
    }

    fn leg_object(&self) -> object::Leg {
        let shown = self.shown();
        let peer = self.leg.as_ref().map(|leg| {
            let transport = leg.transport.param_name();
            format!("{transport}:{}", leg.remote)
        });
        object::Leg {
            id: self.id.clone(),
            role: object::Role::Recorder,
            sip_call_id: shown.sip_call_id,
            trunk: None,
            peer: peer.unwrap_or_default(),
            codec: self.accepted.iter().find_map(|line| line.codec.clone()),
            state: match shown.state {
                State::Starting | State::Lost => CallState::Setup,
                State::Active => CallState::Active,
                State::Paused | State::Inactive => CallState::Held,
                State::Ended => CallState::Ended,
                State::Failed => CallState::Failed,
            },
        }
    }
}

impl Client {
    /// Tells of a session, and shows it as a leg of its call.
    pub(super) fn publish(
        &mut self,
        kind: EventKind,
        session: &RecordingSession,
        cx: &Context<'_>,
    ) {
        let shown = session.shown();
        cx.events
            .publish(kind, cx.now.utc, &Subject::Siprec(&shown));
        let leg = Box::new(session.leg_object());
        self.orders.push((session.view.key, Order::Leg(leg)));
    }

    /// A session is over: it can still be asked for.
    pub(super) fn finish(&mut self, mut session: RecordingSession, cx: &mut Context<'_>) {
        self.release_waiting(&mut session, cx);
        session.ended_at.get_or_insert(cx.now.utc);
        let ended_at = session.view.ended_at.unwrap_or(cx.now.utc);
        if let Some(gap) = session.open_gap() {
            gap.to = Some(ended_at);
            let view = Arc::clone(&session.last_view);
            session.note_gone(&view);
        }
        let kind = if session.has_served() {
            EventKind::SiprecStopped
        } else {
            EventKind::SiprecFailed
        };
        self.publish(kind, &session, cx);
        if self.ended.len() >= ENDED_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back(session.shown());
        let call = session.view.key;
        self.judge(call, cx);
        self.keep_gone(&mut session, cx);
        if session.replay.is_some() {
            self.next_replays(cx);
        }
    }

    pub(super) fn ended_of(&self, call: u64, chosen: &Chosen) -> Vec<Session> {
        let known = self.calls.get(&call).and_then(|call| call.view.as_ref());
        let Some(view) = known else { return Vec::new() };
        let of = |one: &&Session| {
            let named = match chosen {
                Chosen::All => true,
                Chosen::Named(name) => one.instance == *name,
            };
            named && one.call.as_deref() == Some(view.id.as_str())
        };
        self.ended.iter().filter(of).cloned().collect()
    }

    /// Whether a recorder has a call.
    pub fn records(&self, call: u64) -> RecordState {
        let sessions = self.calls.get(&call).map_or(&[][..], |call| &call.sessions);
        let sessions = sessions.iter().filter_map(|key| self.sessions.get(key));
        let states = sessions.map(RecordingSession::records);
        states.fold(RecordState::Off, RecordState::or)
    }

    /// Sessions that are not over.
    pub fn list(&self) -> Vec<Session> {
        self.sessions
            .values()
            .map(RecordingSession::shown)
            .collect()
    }

    /// A session, also shortly after its end.
    pub fn find(&self, id: &str) -> Option<Session> {
        let live = self.sessions.values().find(|one| one.id == id);
        live.map(RecordingSession::shown)
            .or_else(|| self.ended.iter().rfind(|one| one.id == id).cloned())
    }

    /// A recorder refuses what every recording session needs.
    pub(super) fn raise_configuration_alarm(
        &mut self,
        session: &RecordingSession,
        status: u16,
        cx: &Context<'_>,
    ) {
        let message = format!(
            "recorder {}: {} answered {status}: it takes no SIPREC",
            session.recorder.name,
            session.server_name()
        );
        let subject = Subject::Alarm {
            code: "recorder_configuration",
            message: &message,
        };
        cx.events
            .publish(EventKind::AlarmRaised, cx.now.utc, &subject);
    }
}
