//! Recording awareness (RFC 7866 section 6.1.2): parties that understand `a=record` are told in every
//! description of ours whether they are recorded, and by a re-INVITE of ours when that changes; what they
//! acknowledge is kept as proof. What parties wish themselves (`a=recordpref`) is in `wishes.rs`.
//!
//! ```text
//! Supported: record-aware ─ note ─► Leg::aware
//! each change of a call ─ settle ─ indicate: what is recorded? ─► the next description, or a re-INVITE now
//! 2xx, ACK ─ indication_acknowledged ─► receipt, fact, or the call's own list
//! ```

mod wishes;

use trunkline_link::message::{FactKind, Side};
use trunkline_sdp::RecordState;
use trunkline_sinks::Timestamp;
use trunkline_sinks::object::{CallState, Indication, IndicationKind, Role};
use trunkline_sip::message::Headers;
use trunkline_sn3::facts::CallChange;

use super::{B2bua, CatalogWrite};
use crate::call::recording::Phase as Capture;
use crate::call::transfer::Purpose;
use crate::call::{Call, Leg, Phase};
use crate::clock::Moment;

pub(super) use wishes::{declines, rests};

/// The option tag of who understands `a=record`.
pub(super) const OPTION: &str = "record-aware";

/// Whether a message says that its sender understands `a=record`.
pub(super) fn is_said(headers: &Headers) -> bool {
    ["Supported", "Require"]
        .iter()
        .any(|name| headers.list_contains(name, OPTION))
}

/// Takes note of what an INVITE, UPDATE or 2xx says of its sender. One that says nothing of what it supports
/// says nothing of this either.
pub(super) fn note(leg: &mut Leg, headers: &Headers) {
    if is_said(headers) || headers.contains("Supported") {
        leg.aware = is_said(headers);
    }
}

/// Whether the party of a side understands `a=record`, so that it needs to hear nothing.
pub(super) fn is_aware(call: &Call, side: Side) -> bool {
    call.leg(side).aware
}

/// We speak for the party behind us: only if that one understands `a=record`, whoever records on the other
/// side may rely on it.
pub(super) fn advertise(aware: bool, headers: &mut Headers) {
    if aware {
        headers.append("Supported", OPTION);
    }
}

/// The same in the INVITE to the callee. A caller that requires it has the callee judge.
pub(super) fn pass(call: &Call, headers: &mut Headers) {
    advertise(is_aware(call, Side::Caller), headers);
    let received = call.invitation.as_ref().map(|one| &one.request.headers);
    if received.is_some_and(|received| received.list_contains("Require", OPTION)) {
        headers.append("Require", OPTION);
    }
}

/// A side in a receipt.
pub(super) const fn role(side: Side) -> Role {
    match side {
        Side::Caller => Role::Caller,
        Side::Callee => Role::Callee,
    }
}

/// What our own capture does. One that is about to begin counts: it is armed before anybody may send.
fn captured(call: &Call) -> RecordState {
    match call.recordings.last().map(|one| one.phase) {
        Some(Capture::Starting | Capture::Running) => RecordState::On,
        Some(Capture::Paused) => RecordState::Paused,
        _ => RecordState::Off,
    }
}

impl B2bua {
    /// Whether a call is recorded, by us or by a recorder that we send it to.
    pub(super) fn recorded(&self, call: &Call) -> RecordState {
        captured(call).or(self.siprec.records(call.key))
    }

    /// What is recorded goes into the next description to each party that understands that.
    pub(super) fn note_recorded(&self, call: &mut Call) {
        for side in Side::BOTH {
            let recorded = is_aware(call, side).then(|| self.recorded(call));
            call.negotiation.indicate(side, recorded);
        }
    }

    /// A description for the caller that has not left yet, with what is recorded now. After a first one
    /// nothing else may be said until the call is answered (RFC 3261 section 13.2.1).
    pub(super) fn retold(&self, call: &mut Call, sdp: Option<String>) -> Option<String> {
        let early = call.invitation.as_ref().and_then(|one| one.early);
        let told = early.is_some() && call.object.state == CallState::Early;
        if told || sdp.is_none() || !is_aware(call, Side::Caller) {
            return sdp;
        }
        self.note_recorded(call);
        call.negotiation.retell(Side::Caller).or(sdp)
    }

    /// A call has changed: its parties' wishes are done, and who does not know what is recorded now is told.
    pub(super) fn indicate(&mut self, call: &mut Call, now: &Moment) {
        // Of a recording session that passes through, nobody is told.
        if !call.is_shown() || call.passes_recording {
            return;
        }
        self.honour(call, now);
        self.note_recorded(call);
        for side in Side::BOTH {
            let due = call.negotiation.record_due(side);
            let index = side as usize;
            let known = due == call.negotiation.told_of_recording(side)
                || due == call.awareness.refused[index];
            if due.is_some() && !known && may_tell(call, side) {
                self.tell_again(call, side, Purpose::Indicate, now);
                return self.save(call);
            }
        }
    }

    /// A party has acknowledged our last description.
    pub(super) fn indication_acknowledged(&mut self, call: &mut Call, side: Side, now: &Moment) {
        let Some(state) = call.negotiation.told_of_recording(side) else {
            return;
        };
        let index = side as usize;
        let known = call.awareness.acknowledged[index];
        call.awareness.refused[index] = None;
        if known.is_none_or(|(known, _)| known != state) {
            call.awareness.acknowledged[index] = Some((state, now.utc));
            self.note_indication(call, indication(side, state, now.utc, None));
        }
    }

    /// A party refused the re-INVITE that would have told it. The call and the recording go on.
    pub(super) fn indication_refused(
        &mut self,
        call: &mut Call,
        side: Side,
        status: u16,
        now: &Moment,
    ) {
        let Some(state) = call.negotiation.told_of_recording(side) else {
            return;
        };
        tracing::warn!(call = %call.object.id, status, "a party refused to be told of the recording");
        call.awareness.refused[side as usize] = Some(state);
        self.note_indication(call, indication(side, state, now.utc, Some(status)));
    }

    /// A recording has begun: parties that knew before are known to know.
    pub(super) fn note_known(&mut self, call: &mut Call, number: u64) {
        let known = Side::BOTH.map(|side| (side, call.awareness.acknowledged[side as usize]));
        let Some(recording) = call.recording(number) else {
            return;
        };
        for (side, known) in known {
            if let Some((RecordState::On, at)) = known {
                let known = indication(side, RecordState::On, at, None);
                recording.receipt_mut().indicated(known);
            }
        }
    }

    /// A party was told of the recording, or refused to be: it goes into the receipt of the recording that
    /// runs, as a fact into the capture, and into the call's own list where nothing is recorded here.
    pub(super) fn note_indication(&mut self, call: &mut Call, indication: Indication) {
        let mut newest_first = call.recordings.iter_mut().rev();
        let Some(recording) = newest_first.find(|one| one.phase != Capture::Done) else {
            call.object.indicated(indication);
            return self.save(call);
        };
        let change = CallChange {
            reason: "indication".to_owned(),
            indication: serde_json::to_value(&indication).ok(),
            ..CallChange::default()
        };
        recording.receipt_mut().indicated(indication);
        self.writes.push(CatalogWrite::Recording(recording.clone()));
        self.fact_to_live(call, FactKind::CallChange, &change);
        self.save(call);
    }
}

fn indication(side: Side, state: RecordState, at: Timestamp, refused: Option<u16>) -> Indication {
    Indication {
        side: role(side),
        kind: IndicationKind::Record,
        value: state.name().to_owned(),
        at,
        refused,
        duration_ms: None,
        frames: None,
        times: None,
        until: None,
    }
}

/// Whether an offer of ours may go to a side now.
fn may_tell(call: &Call, side: Side) -> bool {
    let leg = call.leg(side);
    let waits = call.invitation.is_some()
        || call.exchange.is_some()
        || call.own_offer.is_some()
        || call.transfer.is_some()
        || call.consulted_by.is_some()
        || call.negotiation.is_pending();
    call.phase == Phase::Answered
        && !waits
        && leg.dialog.is_some()
        && leg.acknowledged
        && leg.unacknowledged.is_none()
        && !leg.over
}
