//! Recording sessions that clients have with us, as the API and the events show them.

use trunkline_link::message::Side;
use trunkline_sinks::Timestamp;
use trunkline_sinks::object::Role as LegRole;

use crate::api::events::{EventKind, Subject};
use crate::b2bua::B2bua;
use crate::call::recording::{Phase as Capture, Recording};
use crate::call::{Call, Phase};
use crate::clock::Moment;
use crate::siprec::session::{Role, Session, State, Stream};

/// Sessions that are over and can still be asked for.
const ENDED_MAX: usize = 1000;

impl B2bua {
    /// Those that are not over.
    pub(in crate::b2bua) fn served_sessions(&self) -> impl Iterator<Item = Session> {
        let calls = self.calls.values().filter(|call| !call.announced);
        calls.filter_map(|call| self.shown(call.as_ref()))
    }

    /// One of them, also shortly after its end.
    pub(in crate::b2bua) fn served_session(&self, id: &str) -> Option<Session> {
        let live = self.served_sessions().find(|one| one.id == id);
        live.or_else(|| self.served.iter().rev().find(|one| one.id == id).cloned())
    }

    fn shown(&self, call: &Call) -> Option<Session> {
        let host = call.host.and_then(|host| self.calls.get(&host));
        let holder = host.map_or(call, |host| host.as_ref());
        shown(call, holder.recordings.last())
    }

    /// It was answered.
    pub(super) fn publish_served(&self, call: &Call, now: &Moment) {
        if let Some(session) = self.shown(call) {
            let subject = Subject::Siprec(&session);
            self.events
                .publish(EventKind::SiprecStarted, now.utc, &subject);
        }
    }

    /// Its dialog is over, with or without an answer before.
    pub(in crate::b2bua) fn served_session_over(&mut self, call: &Call, now: &Moment) {
        let Some(session) = self.shown(call) else {
            return;
        };
        let kind = match session.state {
            State::Failed => EventKind::SiprecFailed,
            _ => EventKind::SiprecStopped,
        };
        self.events
            .publish(kind, now.utc, &Subject::Siprec(&session));
        if self.served.len() >= ENDED_MAX {
            self.served.pop_front();
        }
        self.served.push_back(session);
    }
}

fn state(call: &Call) -> State {
    let recording = call.recordings.last();
    let session = call.recording_session.as_ref();
    if session.is_some_and(|session| session.ended_at.is_some()) {
        return State::Ended;
    }
    match call.phase {
        Phase::Ending if call.was_answered() => State::Ended,
        Phase::Ending => State::Failed,
        Phase::Answered if recording.is_some_and(|one| one.phase == Capture::Paused) => {
            State::Paused
        }
        Phase::Answered => State::Active,
        _ => State::Starting,
    }
}

/// `recording`: that which its streams are in.
fn shown(call: &Call, recording: Option<&Recording>) -> Option<Session> {
    let session = call.recording_session.as_ref()?;
    let leg = call.object.legs.first()?;
    let local = call.leg(Side::Caller).local;
    let revised = session.last_revision();
    Some(Session {
        id: call.object.id.clone(),
        role: Role::Server,
        state: state(call),
        instance: call.route.name.clone(),
        server: format!("sip:{local}"),
        peer: Some(leg.peer.clone()),
        call: None,
        call_sip_call_id: None,
        recording: recording
            .map(|one| one.object.id.clone())
            .or_else(|| call.object.recordings.last().cloned()),
        sip_call_id: leg.sip_call_id.clone(),
        session_id: session.communication_session(),
        started_at: call.object.started_at,
        ended_at: session.ended_at.or(call.object.ended_at),
        streams: streams(call, recording),
        revision: session.revision(),
        revised_at: revised.and_then(|one| Timestamp::parse(&one.at).ok()),
        failovers: 0,
        gaps: Vec::new(),
        replay: None,
        within: None,
        why: None,
    })
}

fn streams(call: &Call, recording: Option<&Recording>) -> Vec<Stream> {
    let Some(session) = &call.recording_session else {
        return Vec::new();
    };
    let receipt = recording.map(|one| {
        let mut one = one.clone();
        one.refresh(one.object.ended_at.unwrap_or_else(Timestamp::now));
        one.object.receipt.unwrap_or_default()
    });
    let lines = session.lines.told();
    lines
        .into_iter()
        .enumerate()
        .map(|(index, line)| {
            let place = session.lines.place(index);
            let mut stream = Stream {
                label: line.label,
                media: line.kind,
                participant: (session.parties.present())
                    .find(|party| party.line == index)
                    .map(|party| party.uri.clone()),
                codec: line.codec,
                packets: 0,
                payload_bytes: 0,
                withheld: 0,
            };
            let counted = receipt.iter().flat_map(|receipt| &receipt.streams);
            for one in counted {
                let second = one.side == LegRole::Callee;
                if place.is_some_and(|at| at.media == one.media && at.second == second) {
                    stream.packets += one.tally.written;
                    stream.payload_bytes += one.bytes;
                }
            }
            stream
        })
        .collect()
}
