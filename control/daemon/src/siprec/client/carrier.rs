//! Persistent recording sessions (RFC 7866 section 6.1.2): one dialog with a recorder that carries many calls,
//! at once and one after another, and stands when it carries none.
//!
//! A carrier is a recording session without a call. Each call's own session rides on it: it has its ports, its
//! fork and its story, and m-lines of the carrier's; what is to be told of it the carrier tells.
//!
//! ```text
//! carrier   Inviting ─► Standing ── tells for all its riders ──► Standing …
//! rider     Opening ─ ports, seats ─► Inviting ── told ─► Standing ── end: fork stops ─► told ─► Over
//! ```

use std::sync::Arc;

use trunkline_config::Recorder;
use trunkline_link::message::{Command, ForkState};
use trunkline_siprec::metadata::{DataMode, Metadata};
use trunkline_sn3::facts::PayloadFact;

use super::sdp::{Accepted, Offered};
use super::state::{Departure, Host, Phase, RecordingSession, Slot};
use super::view::CallView;
use super::{Client, Context};
use crate::api::events::EventKind;

/// Calls on one carrier; more have sessions of their own.
const RIDERS_MAX: usize = 16;
/// m-lines of one carrier.
const SLOTS_MAX: usize = 64;
/// m-lines that a carrier keeps, inactive, when nobody is heard on them: some recorders refuse a session without.
const KEPT: usize = 2;
/// The port of an inactive m-line behind which nothing is.
const DISCARD_PORT: u16 = 9;

impl RecordingSession {
    /// It carries others.
    pub(super) fn is_carrier(&self) -> bool {
        self.slots.is_some()
    }

    /// Nobody is heard any more on the m-lines of a rider.
    pub(super) fn vacate(&mut self, rider: u64) {
        self.riders.retain(|key| *key != rider);
        for slot in self.slots.iter_mut().flatten() {
            slot.rider = slot.rider.filter(|key| *key != rider);
        }
    }

    /// The place of a line among a carrier's m-lines: a free one of its kind, or a new one.
    fn seat(&mut self, rider: u64, kind: &str) -> Option<usize> {
        let slots = self.slots.as_mut()?;
        let free = |slot: &Slot| slot.rider.is_none() && slot.kind == kind;
        let place = slots.iter().position(free).or_else(|| {
            (slots.len() < SLOTS_MAX).then(|| {
                slots.push(Slot::free(kind));
                slots.len() - 1
            })
        })?;
        slots[place].rider = Some(rider);
        Some(place)
    }

    /// Whether a carrier's description has its m-lines.
    fn is_in(&self, offered: &[Offered]) -> bool {
        self.departs == Departure::No
            && self.lines.iter().any(|line| {
                let open = self.media.open.get(usize::from(line.media));
                let port = open.map(|open| open.ports[line.side() as usize]);
                let offer = offered.get(line.place);
                offer.is_some_and(|offer| offer.port != 0 && Some(offer.port) == port)
            })
    }
}

impl Client {
    /// The carrier that a call's session with this recorder is to ride on; `None` = it has one of its own.
    pub(super) fn carrier_for(
        &mut self,
        view: &CallView,
        recorder: &Arc<Recorder>,
        cx: &mut Context<'_>,
    ) -> Option<u64> {
        let known = self.carriers.get(&recorder.name).copied();
        let known = known.and_then(|key| self.sessions.get(&key));
        if let Some(carrier) = known {
            let same = recorder.persistent || Arc::ptr_eq(&carrier.recorder, recorder);
            let room = carrier.riders.len() < RIDERS_MAX;
            let near = carrier.view.interface == view.interface;
            // What its recorder has not acknowledged may come to nothing.
            let ends = matches!(carrier.phase, Phase::Asked | Phase::Ending | Phase::Over);
            return (same && room && near && !ends).then_some(carrier.key);
        }
        if !recorder.persistent {
            return None;
        }
        let key = self.new_carrier(view.interface, recorder, cx);
        self.with(key, cx, |client, carrier, cx| {
            client.next_round(carrier, cx)
        });
        self.sessions.contains_key(&key).then_some(key)
    }

    /// A session that carries nobody yet.
    pub(super) fn new_carrier(
        &mut self,
        interface: u8,
        recorder: &Arc<Recorder>,
        cx: &mut Context<'_>,
    ) -> u64 {
        let view = Arc::new(CallView::of_nobody(interface, cx.now.utc));
        let mut carrier = self.new_session(&view, recorder, cx);
        carrier.slots = Some((0..KEPT).map(|_| Slot::free("audio")).collect());
        let key = carrier.key;
        self.carriers.insert(recorder.name.clone(), key);
        self.sessions.insert(key, carrier);
        key
    }

    /// Every m-line has its place: that of its order, or one among a carrier's.
    pub(super) fn seat_lines(&mut self, session: &mut RecordingSession) {
        let Some(carrier) = session.carrier else {
            return;
        };
        let Some(carrier) = self.sessions.get_mut(&carrier) else {
            return;
        };
        for index in session.seated..session.lines.len() {
            let kind = session.lines[index].kind.clone();
            let Some(place) = carrier.seat(session.key, &kind) else {
                tracing::warn!(session = %session.id, "no m-line is left in the persistent recording session");
                session.lines.truncate(index);
                break;
            };
            session.lines[index].place = place;
        }
        session.seated = session.lines.len();
    }

    /// Another recording session takes up what is missed: for its recorder the recording begins anew.
    pub(super) fn begin_anew(&mut self, session: &mut RecordingSession, cx: &Context<'_>) {
        if session.open_gap().is_some() {
            session.story.resume(cx.now.utc);
        }
        for key in &session.riders {
            if let Some(rider) = self.sessions.get_mut(key)
                && rider.open_gap().is_some()
            {
                rider.story.resume(cx.now.utc);
            }
        }
    }

    /// What a session offers now: a carrier for all its riders.
    pub(super) fn offered_by(&self, session: &RecordingSession, reduced: bool) -> Vec<Offered> {
        let Some(slots) = &session.slots else {
            return session.offer(reduced);
        };
        let idle = |(index, slot): (usize, &Slot)| idle(slot, index, session.offered.get(index));
        let mut all: Vec<Offered> = slots.iter().enumerate().map(idle).collect();
        let riders = session
            .riders
            .iter()
            .filter_map(|key| self.sessions.get(key));
        for rider in riders.filter(|one| one.is_told_of() && one.departs == Departure::No) {
            // While an offer is open in the call, it is told of as it was.
            let lines = match rider.view.settled || rider.offered.is_empty() {
                true => rider.offer(reduced),
                false => rider.offered.clone(),
            };
            for (line, offered) in rider.lines.iter().zip(lines) {
                if let Some(place) = all.get_mut(line.place) {
                    *place = offered;
                }
            }
        }
        all
    }

    /// What a session's recorder is to know (`full`), or does not know yet.
    pub(super) fn document_of(
        &mut self,
        session: &RecordingSession,
        full: bool,
    ) -> Option<Metadata> {
        if !session.is_carrier() {
            return match full {
                true => Some(session.story.complete()),
                false => session.story.news(),
            };
        }
        let mut all = Metadata {
            mode: match full {
                true => DataMode::Complete,
                false => DataMode::Partial,
            },
            ..Metadata::default()
        };
        let mut any = full;
        for key in &session.riders {
            let Some(rider) = self.sessions.get_mut(key) else {
                continue;
            };
            if !rider.is_told_of() {
                continue;
            }
            if rider.departs == Departure::Wanted {
                rider.departs = Departure::Told;
            }
            rider.telling = match full {
                true => Some(rider.story.complete()),
                false => rider.story.news(),
            };
            if let Some(document) = rider.telling.clone() {
                any = true;
                append(&mut all, document);
            }
        }
        any.then_some(all)
    }

    /// A session's recorder has taken a document.
    pub(super) fn accepted_by(
        &mut self,
        session: &mut RecordingSession,
        document: &Metadata,
        cx: &Context<'_>,
    ) {
        session.revised(cx.now.utc);
        if !session.is_carrier() {
            return session.story.accepted(document);
        }
        for key in &session.riders {
            if let Some(rider) = self.sessions.get_mut(key)
                && let Some(document) = rider.telling.take()
            {
                rider.story.accepted(&document);
                rider.revised(cx.now.utc);
            }
        }
    }

    /// Whether packets are held back that need not be any more.
    pub(super) fn resumes(&self, session: &RecordingSession) -> bool {
        let held = |one: &RecordingSession| one.fork == ForkState::Paused && !one.paused;
        let mut riders = session
            .riders
            .iter()
            .filter_map(|key| self.sessions.get(key));
        held(session) || riders.any(held)
    }

    /// The forks of a carrier's riders, as the recorder has described itself.
    pub(super) fn riders_fork(&mut self, carrier: &RecordingSession) -> Vec<Command> {
        let mut commands = Vec::new();
        for key in &carrier.riders {
            let Some(rider) = self.sessions.get_mut(key) else {
                continue;
            };
            let ends = rider.phase == Phase::Ending;
            if ends || !rider.is_told_of() || !rider.is_in(&carrier.offered) {
                continue;
            }
            let accepted = |place: usize| carrier.accepted.get(place).cloned();
            let places: Vec<usize> = rider.lines.iter().map(|line| line.place).collect();
            rider.accepted = places
                .iter()
                .map(|place| accepted(*place).unwrap_or_else(Accepted::nothing))
                .collect();
            let offered = places
                .iter()
                .filter_map(|place| carrier.offered.get(*place));
            rider.offered = offered.cloned().collect();
            rider.peer = carrier.leg.as_ref().map(|leg| leg.remote.ip());
            commands.extend(rider.fork_commands());
        }
        commands
    }

    /// Nothing more goes to the recorder for a carrier's riders.
    pub(super) fn riders_disarm(&mut self, carrier: &RecordingSession, cx: &mut Context<'_>) {
        for key in &carrier.riders {
            if let Some(rider) = self.sessions.get_mut(key) {
                rider.accepted.clear();
                rider.peer = None;
                let commands = match rider.forking {
                    true => rider.leg_commands(),
                    false => Vec::new(),
                };
                for command in commands {
                    rider.command(command, cx);
                }
            }
        }
    }

    /// The recorder has agreed to what a carrier told it.
    pub(super) fn riders_told(&mut self, carrier: &mut RecordingSession, cx: &mut Context<'_>) {
        let dialog = carrier.leg.as_ref().and_then(|leg| leg.dialog.as_ref());
        let host = Host {
            id: carrier.id.clone(),
            sip_call_id: dialog
                .map(|one| one.call_id().to_owned())
                .unwrap_or_default(),
        };
        for key in carrier.riders.clone() {
            let (host, server, offered) = (host.clone(), carrier.server.clone(), &carrier.offered);
            self.with(key, cx, |client, rider, cx| {
                if rider.departs == Departure::Told {
                    rider.phase = Phase::Over;
                } else if rider.is_in(offered) {
                    (rider.host, rider.server) = (Some(host), server);
                    client.rider_stands(rider, cx);
                }
            });
            if !self.sessions.contains_key(&key) {
                carrier.vacate(key);
            }
        }
    }

    fn rider_stands(&mut self, rider: &mut RecordingSession, cx: &mut Context<'_>) {
        if rider.phase == Phase::Standing {
            return self.resumed(rider, cx);
        }
        if matches!(rider.phase, Phase::Inviting | Phase::Lost) {
            rider.retry_at = None;
            self.has_server(rider, cx);
        }
    }

    /// Another recording session is needed for all that a carrier carries.
    pub(super) fn riders_lost(
        &mut self,
        carrier: &RecordingSession,
        why: &str,
        cx: &mut Context<'_>,
    ) {
        for key in carrier.riders.clone() {
            self.with(key, cx, |client, rider, cx| match rider.phase {
                Phase::Standing => {
                    rider.phase = Phase::Inviting;
                    rider.lost_since = Some(cx.now.instant);
                    client.begin_gap(rider, cx.now.utc, why);
                }
                Phase::Ending => rider.phase = Phase::Over,
                _ => {}
            });
        }
    }

    /// No server has a carrier.
    pub(super) fn riders_failed(
        &mut self,
        carrier: &RecordingSession,
        why: &str,
        cx: &mut Context<'_>,
    ) {
        for key in carrier.riders.clone() {
            self.with(key, cx, |client, rider, cx| {
                if rider.phase == Phase::Inviting {
                    client.rider_failed(rider, why, cx);
                }
            });
        }
    }

    /// What carries a call does not have it, and no other session is tried.
    pub(super) fn rider_failed(
        &mut self,
        rider: &mut RecordingSession,
        why: &str,
        cx: &mut Context<'_>,
    ) {
        rider.phase = Phase::Lost;
        rider.why = Some(why.to_owned());
        rider.lost_since.get_or_insert(cx.now.instant);
        self.begin_gap(rider, rider.started_at, why);
        self.publish(EventKind::SiprecFailed, rider, cx);
        let error = crate::api::handle::ActionError::Unavailable(why.to_owned());
        self.answer_waiting(rider, &Err(error), cx);
    }

    /// A carrier is over, and with it what rides on it.
    pub(super) fn riders_stranded(&mut self, carrier: &RecordingSession, cx: &mut Context<'_>) {
        if self.carriers.get(&carrier.recorder.name) == Some(&carrier.key) {
            self.carriers.remove(&carrier.recorder.name);
        }
        for key in carrier.riders.clone() {
            self.with(key, cx, |client, rider, cx| {
                rider.carrier = None;
                rider.why = carrier.why.clone();
                match rider.phase {
                    Phase::Ending => rider.phase = Phase::Over,
                    _ => client.end(rider, cx),
                }
            });
        }
    }

    /// What a rider asked for while it was being worked on.
    pub(super) fn ask_carrier(&mut self, carrier: u64, lost: Option<String>, cx: &mut Context<'_>) {
        self.with(carrier, cx, |client, carrier, cx| match lost {
            Some(why) => client.lost(carrier, &why, true, cx),
            None => client.tell(carrier, cx),
        });
    }

    /// Carriers without a rider end: we exit.
    pub fn end_carriers(&mut self, cx: &mut Context<'_>) {
        let idle = |one: &&RecordingSession| one.is_carrier() && one.riders.is_empty();
        let keys: Vec<u64> = self
            .sessions
            .values()
            .filter(idle)
            .map(|one| one.key)
            .collect();
        for key in keys {
            self.with(key, cx, |client, session, cx| client.end(session, cx));
        }
    }
}

/// An m-line on which nobody is heard.
fn idle(slot: &Slot, index: usize, before: Option<&Offered>) -> Offered {
    let keeps = index < KEPT;
    let pcm = |pt: u8, name: &str| PayloadFact {
        pt,
        codec: name.to_owned(),
        clock_hz: 8000,
        channels: 1,
        fmtp: String::new(),
    };
    let before = before.map(|one| one.payloads.clone());
    Offered {
        kind: slot.kind.clone(),
        port: if keeps { DISCARD_PORT } else { 0 },
        payloads: match keeps {
            true => vec![pcm(0, "PCMU"), pcm(8, "PCMA")],
            false => before.unwrap_or_default(),
        },
        ptime_ms: 0,
        sends: false,
    }
}

/// Puts what is said of one call beside what is said of others.
fn append(all: &mut Metadata, one: Metadata) {
    for group in one.groups {
        if !all.groups.iter().any(|known| known.id == group.id) {
            all.groups.push(group);
        }
    }
    all.sessions.extend(one.sessions);
    all.participants.extend(one.participants);
    all.streams.extend(one.streams);
    all.session_recordings.extend(one.session_recordings);
    all.participant_sessions.extend(one.participant_sessions);
    all.participant_streams.extend(one.participant_streams);
}
