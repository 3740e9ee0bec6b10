//! Where the fields of a record come from.

use trunkline_codec::CodecKind;
use trunkline_sinks::Timestamp;
use trunkline_sinks::cdr::{Cdr, CdrRecording, Direction};
use trunkline_sinks::object::{self, Recording, Role};
use trunkline_sip::message::{Headers, Request, SessionId};
use trunkline_sip::transaction::Path;
use trunkline_sn3::facts::PayloadFact;

use crate::call::{Call, Leg};
use crate::callbacks::{Sound, sample_rate_hz};

/// The delay that is known to be there: one packet's.
const PACKET_MS: f64 = 20.0;
/// A header's values are cut to so much.
const VALUE_CHARS_MAX: usize = 512;

/// All values of a header in one text; `None` = it is not there.
pub(super) fn joined(headers: &Headers, name: &str) -> Option<String> {
    let values: Vec<String> = headers
        .get_all(name)
        .map(std::borrow::Cow::into_owned)
        .collect();
    let text: String = values.join(", ").chars().take(VALUE_CHARS_MAX).collect();
    (!text.is_empty()).then_some(text)
}

/// What an INVITE says of its leg.
fn from_invite(request: &Request, at: Timestamp) -> Cdr {
    let headers = &request.headers;
    let from = headers.from_address().map(|one| one.uri.to_string());
    let to = headers.to_address().map(|one| one.uri.to_string());
    Cdr {
        from_uri: from.unwrap_or_default(),
        to_uri: to.unwrap_or_default(),
        asserted_identity: joined(headers, "P-Asserted-Identity"),
        sip_call_id: headers.call_id().unwrap_or_default(),
        session_id: SessionId::sender(headers),
        invited_at: at,
        ..Cdr::default()
    }
}

/// The leg of an INVITE that came in.
pub(super) fn inbound(request: &Request, path: Path, at: Timestamp) -> Cdr {
    let transport = path.transport.param_name();
    let leg = from_invite(request, at);
    Cdr {
        leg: Role::Caller,
        direction: Direction::Inbound,
        request_uri_in: request.uri.to_string(),
        sip_call_id_in: leg.sip_call_id.clone(),
        local: format!("{transport}:{}", path.local),
        remote: format!("{transport}:{}", path.source),
        ..leg
    }
}

/// The leg of an INVITE of ours.
pub(super) fn outbound(request: &Request, leg: &Leg, at: Timestamp) -> Cdr {
    let transport = leg.transport.param_name();
    let cdr = from_invite(request, at);
    Cdr {
        leg: Role::Callee,
        direction: Direction::Outbound,
        request_uri_out: Some(request.uri.to_string()),
        sip_call_id_out: Some(cdr.sip_call_id.clone()),
        local: format!("{transport}:{}", leg.local),
        remote: format!("{transport}:{}", leg.remote),
        ..cdr
    }
}

/// What the call says of a leg now.
pub(super) fn from_call(cdr: &mut Cdr, call: &Call) {
    let object = &call.object;
    cdr.call_id.clone_from(&object.id);
    cdr.tenant.clone_from(&object.tenant);
    cdr.route = Some(call.route.name.clone());
    cdr.sip_call_id_in.clone_from(&object.sip_call_id);
    cdr.attributes.clone_from(&object.attributes);
    if cdr.session_id.is_none() {
        cdr.session_id.clone_from(&object.session_id);
    }
    let own = object
        .legs
        .iter()
        .find(|leg| leg.sip_call_id == cdr.sip_call_id);
    if let Some(own) = own {
        cdr.leg = own.role;
        cdr.trunk_in.clone_from(&object.legs[0].trunk);
        if own.codec.is_some() {
            cdr.codec.clone_from(&own.codec);
        }
    }
    if cdr.direction == Direction::Inbound {
        let far = object.legs.get(call.shown[1]);
        let far_id = far.map(|leg| leg.sip_call_id.as_str());
        cdr.sip_call_id_out = far_id.filter(|id| !id.is_empty()).map(str::to_owned);
        cdr.trunk_out = far.and_then(|leg| leg.trunk.clone());
        let winner = call
            .branches
            .iter()
            .find(|one| one.sent.headers.call_id().ok().as_deref() == far_id);
        if let Some(winner) = winner {
            cdr.request_uri_out = Some(winner.sent.uri.to_string());
        }
    }
    take_recordings(cdr, call.recordings.iter().map(|one| &one.object));
}

/// Takes in the call's recordings, and the quality of what they hold of this party.
pub(super) fn take_recordings<'a>(cdr: &mut Cdr, recordings: impl Iterator<Item = &'a Recording>) {
    cdr.recordings = recordings.map(CdrRecording::from).collect();
    let own = |one: &CdrRecording| match cdr.direction {
        Direction::Inbound => (one.caller.expected, one.caller.lost),
        Direction::Outbound => (one.callee.expected, one.callee.lost),
    };
    let sum = |(expected, lost), (more, missing)| (expected + more, lost + missing);
    let (expected, lost) = cdr.recordings.iter().map(own).fold((0, 0), sum);
    let codec = cdr.codec.as_deref().and_then(CodecKind::from_name);
    let impairment = codec.and_then(CodecKind::impairment);
    cdr.mos = impairment.filter(|_| expected > 0).map(|impairment| {
        let percent = lost as f64 * 100.0 / expected as f64;
        (impairment.mos(percent, PACKET_MS) * 100.0).round() / 100.0
    });
}

/// What the PCM of the call's recording will be.
pub(super) fn sound(call: &Call) -> Sound {
    let facts = call.negotiation.leg_facts();
    let audio = facts
        .iter()
        .find(|leg| leg.side == 0 && leg.kind == "audio")
        .and_then(|leg| {
            leg.payloads
                .iter()
                .find(|one| one.codec != "telephone-event")
        });
    let rate = |one: &PayloadFact| sample_rate_hz(&one.codec, one.clock_hz, one.channels);
    let rate_hz = audio.map(rate).filter(|rate| *rate > 0);
    Sound {
        rate_hz: rate_hz.unwrap_or(8000),
        codec: audio.map(|one| one.codec.clone()).unwrap_or_default(),
    }
}

/// A leg of a call that came back, of which no record was found.
pub(super) fn resumed(call: &Call, index: usize, leg: &object::Leg) -> Cdr {
    let object = &call.object;
    let inbound = index == 0;
    let mut cdr = Cdr {
        id: leg.id.clone(),
        leg: leg.role,
        direction: match inbound {
            true => Direction::Inbound,
            false => Direction::Outbound,
        },
        attempt: u32::from(!inbound),
        request_uri_in: object.callee_uri.clone(),
        from_uri: object.caller_uri.clone(),
        to_uri: object.callee_uri.clone(),
        sip_call_id: leg.sip_call_id.clone(),
        sip_call_id_out: (!inbound).then(|| leg.sip_call_id.clone()),
        remote: leg.peer.clone(),
        invited_at: object.started_at,
        answered_at: object.answered_at,
        established_at: object.answered_at,
        sip_code: object.sip_code,
        ..Cdr::default()
    };
    from_call(&mut cdr, call);
    cdr
}
