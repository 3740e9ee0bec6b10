//! Recordings of calls: started, paused, stopped, closed.

use trunkline_config::Record;
use trunkline_link::message::{
    Command, FactKind, FailReason, RecordingPhase, RecordingStart, StreamReceipt,
};
use trunkline_sinks::Timestamp;
use trunkline_sinks::object::{self, RecordingState};
use trunkline_sn3::facts::{CallChange, CallClose, CallOpen, ParticipantFact};

use super::awareness::role;
use super::{B2bua, CatalogWrite};
use crate::api::events::{EventKind, Subject};
use crate::call::recording::{Phase, Recording};
use crate::call::{ActionReply, Call, Step};
use crate::clock::Moment;

impl B2bua {
    /// Asks for a recording of the call.
    pub(super) fn start_recording(
        &mut self,
        call: &mut Call,
        reply: Option<ActionReply>,
        now: &Moment,
    ) {
        self.metrics.recording_expected();
        call.object.recording_expected = true;
        let mut recording = new_recording(call, self.numbers.next(now.utc), now);
        let on_condition = call.route.record == Record::KeepOnDemand && reply.is_none();
        recording.object.kept = on_condition.then_some(false);
        let number = recording.number;
        let fact = open_fact(call, &recording);
        call.object.recordings.push(recording.object.id.clone());
        call.recordings.push(recording);
        let command = Command::RecordingStart(RecordingStart {
            session: call.key,
            recording: number,
            origin_mono_ns: 0,
            first_ordinal: 0,
            prev_segment: 0,
            prev_page: 0,
            open_fact: fact,
        });
        self.batch(
            call,
            vec![command],
            Step::RecordingStarted { number, reply },
            now,
        );
    }

    /// The dataplane answered to a start.
    pub(super) fn recording_started(
        &mut self,
        call: &mut Call,
        number: u64,
        failed: Option<FailReason>,
        reply: Option<ActionReply>,
        now: &Moment,
    ) {
        let Some(recording) = call.recording(number) else {
            return;
        };
        if failed.is_some() && recording.continues {
            // What there was of it before stays.
            return self.recording_closed(call, number, now);
        }
        if let Some(reason) = failed {
            if !self.dataplane_up && reply.is_none() && call.phase != crate::call::Phase::Ending {
                // The dataplane died over it: the next one is asked again.
                return;
            }
            let Some(recording) = call.recording(number) else {
                return;
            };
            self.metrics
                .recording_finished(object::Verdict::Partial, &object::Receipt::default());
            recording.phase = Phase::Done;
            recording.object.state = RecordingState::Failed;
            recording.object.ended_at = Some(now.utc);
            recording.object.verdict = Some(object::Verdict::Partial);
            let closed = recording.clone();
            // Who waits for its end does not wait in vain.
            self.recording_session_closed(call, closed, now);
            self.publish_recording(EventKind::RecordingFailed, call, number, now);
            self.alert_missing(call, number, now);
            if let Some(reply) = reply {
                let why = format!("the dataplane refused: {reason:?}");
                let _ = reply.send(Err(crate::api::handle::ActionError::Unavailable(why)));
            }
            return;
        }
        if recording.phase == Phase::Starting {
            recording.phase = Phase::Running;
            if !recording.continues {
                recording.object.started_at = now.utc;
            }
            if recording.origin_mono_ns == 0 {
                recording.origin_mono_ns = now.mono_ns;
            }
        }
        recording.refresh(now.utc);
        let object = recording.object.clone();
        self.note_known(call, number);
        self.publish_recording(EventKind::RecordingStarted, call, number, now);
        self.save(call);
        if let Some(reply) = reply {
            let _ = reply.send(Ok(object));
        }
    }

    /// The dataplane says in which phase a recording is.
    pub(super) fn recording_state(
        &mut self,
        call: &mut Call,
        number: u64,
        phase: RecordingPhase,
        at_mono_ns: u64,
        origin_mono_ns: u64,
        streams: &[StreamReceipt],
        now: &Moment,
    ) {
        let restarts = call
            .batches
            .iter()
            .any(|one| matches!(one.then, Step::Restart { number: other } if other == number));
        let other = match call.recording_session {
            Some(_) => "client",
            None => "api",
        };
        let Some(recording) = call.recording(number) else {
            return;
        };
        if !recording.is_live() {
            return;
        }
        if restarts && recording.phase == Phase::Paused {
            // It goes on paused in the new dataplane: nobody resumed it.
            return;
        }
        let before = recording.phase;
        let by = recording
            .wished_by
            .take()
            .map_or(other, |side| role(side).name());
        recording.confirmed(phase, at_mono_ns, origin_mono_ns, streams, by);
        if before == Phase::Starting {
            // `recording_started` follows with the command's answer.
            if !recording.continues {
                recording.object.started_at = now.utc;
            }
            return;
        }
        recording.refresh(now.utc);
        let kind = match (before, phase) {
            (Phase::Running, RecordingPhase::Paused) => EventKind::RecordingPaused,
            (Phase::Paused, RecordingPhase::Running) => EventKind::RecordingResumed,
            (_, RecordingPhase::Stopped) => {
                return self.recording_stopped(call, number, now);
            }
            _ => return,
        };
        self.publish_recording(kind, call, number, now);
        self.save(call);
    }

    /// Capture has ended: the last fact, then everything goes to the disk.
    fn recording_stopped(&mut self, call: &mut Call, number: u64, now: &Moment) {
        let ended_at = call.object.ended_at;
        let covered = call
            .recordings
            .iter()
            .find(|one| one.number == number)
            .map_or(0, |one| coverable_ms(call, one, now));
        let (ended_by, participants) = (call.object.ended_by, participant_facts(call));
        let Some(recording) = call.recording(number) else {
            return;
        };
        let ended_at = ended_at.filter(|_| recording.with_call).unwrap_or(now.utc);
        recording.ended(ended_at, Some(covered));
        recording.judge();
        let fact = CallClose {
            ended_at: ended_at.to_string(),
            ended_mono_ns: now.mono_ns,
            ended_by: match (recording.with_call, ended_by) {
                (true, Some(by)) => by.name().to_owned(),
                _ => String::new(),
            },
            verdict: recording
                .object
                .verdict
                .map(|v| v.name().to_owned())
                .unwrap_or_default(),
            receipt: serde_json::to_value(&recording.object.receipt).unwrap_or_default(),
            participants,
        };
        let session = call.key;
        if let Ok(fact) = serde_json::to_vec(&fact) {
            let kind = FactKind::CallClose;
            self.command(Command::RecordingFact {
                session,
                recording: number,
                kind,
                fact,
            });
        }
        self.command(Command::RecordingFinish {
            session,
            recording: number,
        });
        self.publish_recording(EventKind::RecordingStopped, call, number, now);
        self.save(call);
    }

    /// Everything of a recording is on disk, or was given up.
    pub(super) fn recording_closed(&mut self, call: &mut Call, number: u64, now: &Moment) {
        let signer = self.signer.clone();
        let Some(recording) = call.recording(number) else {
            return;
        };
        if recording.phase == Phase::Done {
            return;
        }
        if recording.object.ended_at.is_none() {
            recording.object.ended_at = Some(now.utc);
        }
        recording.closed(now.utc);
        if let Some(signer) = &signer {
            recording.object.sign(signer);
        }
        let kind = if recording.object.state == RecordingState::Failed {
            EventKind::RecordingFailed
        } else {
            EventKind::RecordingFinished
        };
        if let (Some(verdict), Some(receipt)) =
            (recording.object.verdict, &recording.object.receipt)
        {
            self.metrics.recording_finished(verdict, receipt);
        }
        let discarded = recording.object.kept == Some(false);
        let recording = recording.clone();
        self.recording_session_closed(call, recording, now);
        self.publish_recording(kind, call, number, now);
        if discarded {
            self.writes.push(CatalogWrite::DiscardUnkept);
        }
    }

    /// Keeps a recording that would be discarded at its end.
    pub(super) fn keep_recording(&mut self, call: &mut Call, number: u64) {
        let Some(recording) = call.recording(number) else {
            return;
        };
        if recording.object.kept != Some(false) {
            return;
        }
        recording.object.kept = Some(true);
        self.writes.push(CatalogWrite::Recording(recording.clone()));
        let change = CallChange {
            reason: "kept".to_owned(),
            kept: true,
            ..CallChange::default()
        };
        self.fact_to_live(call, FactKind::CallChange, &change);
        self.save(call);
    }

    /// Pauses, resumes or stops; the reply goes out once it holds at the packet.
    pub(super) fn change_recording(
        &mut self,
        call: &mut Call,
        number: u64,
        phase: RecordingPhase,
        reply: Option<ActionReply>,
        now: &Moment,
    ) {
        if !self.dataplane_up {
            // Nobody is there to carry it out, and nothing captures.
            let down = Some(FailReason::Internal);
            return self.recording_changed(call, number, down, reply, now);
        }
        if phase != RecordingPhase::Running {
            self.hush_all(call);
        }
        let (session, recording) = (call.key, number);
        let command = match phase {
            RecordingPhase::Paused => Command::RecordingPause { session, recording },
            RecordingPhase::Running => Command::RecordingResume { session, recording },
            RecordingPhase::Stopped => Command::RecordingStop { session, recording },
        };
        self.batch(
            call,
            vec![command],
            Step::RecordingChanged { number, reply },
            now,
        );
    }

    /// The call ends, and its recordings with it.
    pub(super) fn stop_recordings(&mut self, call: &mut Call, now: &Moment) {
        let live: Vec<u64> = call
            .recordings
            .iter()
            .filter(|one| one.is_live())
            .map(|one| one.number)
            .collect();
        for number in live {
            if let Some(recording) = call.recording(number) {
                recording.with_call = true;
            }
            self.change_recording(call, number, RecordingPhase::Stopped, None, now);
        }
    }

    /// Nothing more will be heard of the call's recordings.
    pub(super) fn abandon_recordings(&mut self, call: &mut Call, now: &Moment) {
        let open: Vec<u64> = call
            .recordings
            .iter()
            .filter(|one| one.phase != Phase::Done)
            .map(|one| one.number)
            .collect();
        for number in open {
            self.abandon_recording(call, number, now);
        }
    }

    /// What is there of a recording is all that will be: it is closed, once a dead dataplane's capture
    /// of it is counted.
    fn abandon_recording(&mut self, call: &mut Call, number: u64, now: &Moment) {
        let ended_at = call.object.ended_at.unwrap_or(now.utc);
        let Some(recording) = call.recording(number) else {
            return;
        };
        recording.failure = true;
        match self.recounting.get_mut(&number) {
            Some(closes) => {
                *closes = true;
                recording.phase = Phase::Finishing;
                recording.object.ended_at.get_or_insert(ended_at);
            }
            None => self.recording_closed(call, number, now),
        }
    }

    pub(super) fn publish_recording(
        &mut self,
        kind: EventKind,
        call: &mut Call,
        number: u64,
        now: &Moment,
    ) {
        refresh_participants(call, number);
        let Some(recording) = call.recording(number) else {
            return;
        };
        let recording = recording.clone();
        match kind {
            EventKind::RecordingStarted if call.was_answered() => {
                self.ledger.recording_begun(call, &recording);
            }
            EventKind::RecordingStopped
            | EventKind::RecordingFinished
            | EventKind::RecordingFailed => self.ledger.recording_ended(number, now),
            _ => {}
        }
        self.events
            .publish(kind, now.utc, &Subject::Recording(&recording.object));
        self.writes.push(CatalogWrite::Recording(recording));
    }
}

/// Answered time while a recording ran, pauses and holds left out (each moment once).
fn coverable_ms(call: &Call, recording: &Recording, now: &Moment) -> u64 {
    if !call.was_answered() {
        return 0;
    }
    let origin = recording.origin_mono_ns;
    let (start, end) = (call.answered_mono_ns.max(origin), now.mono_ns);
    let pauses = recording.object.pauses.iter().map(|pause| {
        let at = |ms: u64| origin.saturating_add(ms.saturating_mul(1_000_000));
        (at(pause.from_ms), pause.to_ms.map_or(end, at))
    });
    let lasting = call.held_since_ns.map(|since| (since, end));
    let mut out: Vec<(u64, u64)> = pauses
        .chain(call.holds.iter().copied())
        .chain(lasting)
        .collect();
    out.sort_unstable();
    let (mut position, mut covered) = (start, 0);
    for (from, to) in out {
        covered += from.min(end).saturating_sub(position);
        position = position.max(to);
    }
    (covered + end.saturating_sub(position)) / 1_000_000
}

fn new_recording(call: &Call, number: u64, now: &Moment) -> Recording {
    let object = object::Recording {
        held: false,
        id: object::new_id(),
        call_id: call.object.id.clone(),
        state: RecordingState::Recording,
        started_at: now.utc,
        ended_at: None,
        duration_ms: 0,
        paused_ms: 0,
        pauses: Vec::new(),
        participants: participants(call, now.utc),
        verdict: None,
        receipt: None,
        tenant: call.object.tenant.clone(),
        sip_call_ids: sip_call_ids(call),
        session_id: call.object.session_id.clone(),
        attributes: call.object.attributes.clone(),
        kept: None,
    };
    let one_channel = call
        .recording_session
        .as_ref()
        .is_some_and(|session| !session.lines.has_two_channels());
    let mut recording = Recording::new(object, number);
    recording.one_channel = one_channel;
    recording
}

pub(super) fn sip_call_ids(call: &Call) -> Vec<String> {
    let own = call.object.legs.iter().map(|leg| &leg.sip_call_id);
    let joined = call.joined.iter().map(|one| &one.sip_call_id);
    own.chain(joined).cloned().collect()
}

/// Who took part since a recording began, in the order of joining.
fn participants(call: &Call, started_at: Timestamp) -> Vec<object::Participant> {
    if let Some(heard) = call.heard_parties() {
        return heard.shown(started_at);
    }
    call.parties
        .iter()
        .filter(|party| party.to.is_none_or(|left| left.0 > started_at.0))
        .map(|party| object::Participant {
            role: party.role,
            uri: party.uri.clone(),
            name: String::new(),
            from_ms: party.from.ms_since(started_at),
            to_ms: party.to.map(|left| left.ms_since(started_at)),
            channel: party.side,
        })
        .collect()
}

/// Notes who takes part in a recording.
pub(super) fn refresh_participants(call: &mut Call, number: u64) {
    let started_at = call.recording(number).map(|one| one.object.started_at);
    let Some(started_at) = started_at else {
        return;
    };
    let (participants, ids) = (participants(call, started_at), sip_call_ids(call));
    if let Some(recording) = call.recording(number) {
        recording.object.participants = participants;
        recording.object.sip_call_ids = ids;
    }
}

/// Everybody who took part in the call, for its recordings' facts.
pub(super) fn participant_facts(call: &Call) -> Vec<ParticipantFact> {
    let ended = call.object.ended_at;
    if let Some(heard) = call.heard_parties() {
        return heard.facts(ended);
    }
    let text = |at: Timestamp| at.to_string();
    call.parties
        .iter()
        .map(|party| ParticipantFact {
            role: party.role.name().to_owned(),
            uri: party.uri.clone(),
            name: String::new(),
            channel: party.side,
            from: text(party.from),
            to: party.to.or(ended).map(text).unwrap_or_default(),
        })
        .collect()
}

pub(super) fn open_fact(call: &Call, recording: &Recording) -> Vec<u8> {
    let fact = CallOpen {
        recording_id: recording.object.id.clone(),
        call_id: call.object.id.clone(),
        tenant: call.object.tenant.clone().unwrap_or_default(),
        caller: call.object.caller.clone(),
        callee: call.object.callee.clone(),
        sip_call_ids: sip_call_ids(call),
        session_id: call.object.session_id.clone().unwrap_or_default(),
        call_started_at: call.object.started_at.to_string(),
        started_at: recording.object.started_at.to_string(),
        answered_mono_ns: call.answered_mono_ns,
        answered_at: call
            .object
            .answered_at
            .map(|at| at.to_string())
            .unwrap_or_default(),
        participants: participant_facts(call),
        legs: call.leg_facts(),
        recording_session: call.recording_session.is_some(),
        attributes: call.object.attributes.clone(),
        keep_on_demand: recording.object.kept == Some(false),
    };
    serde_json::to_vec(&fact).unwrap_or_default()
}

impl B2bua {
    /// The answer to a pause, resume or stop.
    pub(super) fn recording_changed(
        &mut self,
        call: &mut Call,
        number: u64,
        failed: Option<FailReason>,
        reply: Option<ActionReply>,
        now: &Moment,
    ) {
        let ending = call.phase == crate::call::Phase::Ending;
        let Some(recording) = call.recording(number) else {
            return;
        };
        recording.refresh(now.utc);
        let object = recording.object.clone();
        // A stop that the dataplane could not carry out has nothing left to stop.
        if failed.is_some() && recording.with_call && recording.is_live() && ending {
            self.abandon_recording(call, number, now);
        }
        let Some(reply) = reply else { return };
        let _ = reply.send(match failed {
            None => Ok(object),
            Some(FailReason::WrongState) => Err(crate::api::handle::ActionError::WrongState(
                format!("the recording is {}", object.state),
            )),
            Some(reason) => Err(crate::api::handle::ActionError::Unavailable(format!(
                "the dataplane refused: {reason:?}"
            ))),
        });
    }

    /// The answer to the start of a recording that goes on in a new dataplane.
    pub(super) fn recording_restarted(
        &mut self,
        call: &mut Call,
        number: u64,
        failed: Option<FailReason>,
        now: &Moment,
    ) {
        // Over a dataplane that died it is asked for again with the next one.
        if failed.is_some() && self.dataplane_up {
            self.recording_closed(call, number, now);
        }
    }

    /// The call-open fact of a recording that goes on.
    pub(super) fn restart_fact(&self, call: &mut Call) -> Vec<u8> {
        let Some(recording) = call.live_recording().map(|recording| recording.clone()) else {
            return Vec::new();
        };
        open_fact(call, &recording)
    }
}
