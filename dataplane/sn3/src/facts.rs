//! Facts about a call that travel in its recording as JSON frames (kinds call-open, call-change and
//! call-close), so that a recording explains itself and the catalog can be rebuilt from segments.
//!
//! Unknown fields are ignored by readers; every field has a default.

use serde::{Deserialize, Serialize};

/// One payload type of one side's m-line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PayloadFact {
    /// Payload type as received from that side.
    pub pt: u8,
    /// Encoding name as in SDP (`PCMU`, `opus`, `telephone-event`).
    pub codec: String,
    /// RTP clock rate in Hz (8000 for G.722).
    pub clock_hz: u32,
    /// Channels.
    pub channels: u8,
    /// The fmtp line's parameters, as received.
    pub fmtp: String,
}

/// What one side may send on one m-line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LegFact {
    /// 0 = caller, 1 = callee (the SN3 `dir`).
    pub side: u8,
    /// m-line index.
    pub media: u8,
    /// `audio`, `video`, `image` ...
    pub kind: String,
    /// Packet time in ms agreed in SDP, 0 = not said.
    pub ptime_ms: u16,
    /// Payload types.
    pub payloads: Vec<PayloadFact>,
    /// It carries once more what others of that side do: it is heard where nothing with a lower number is.
    /// 0 = it is heard anyway.
    #[serde(skip_serializing_if = "is_zero")]
    pub alternate: u8,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u8) -> bool {
    *number == 0
}

/// A participant of the recording.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ParticipantFact {
    /// `caller`, `callee`, `transfer`.
    pub role: String,
    /// SIP URI.
    pub uri: String,
    /// Display name.
    pub name: String,
    /// Channel in the WAV: 0 = left, 1 = right.
    pub channel: u8,
    /// When the participant joined and left (RFC 3339 ms, empty = still there).
    pub from: String,
    /// See `from`.
    pub to: String,
}

/// Frame kind call-open: the first frame of every recording.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CallOpen {
    /// API id of the recording (UUIDv7).
    pub recording_id: String,
    /// API id of the call (UUIDv7).
    pub call_id: String,
    /// Tenant, may be empty.
    pub tenant: String,
    /// User parts.
    pub caller: String,
    /// See `caller`.
    pub callee: String,
    /// SIP Call-IDs of the legs, the caller's first.
    pub sip_call_ids: Vec<String>,
    /// RFC 7989 Session-ID, may be empty.
    pub session_id: String,
    /// RFC 3339 ms UTC: INVITE received.
    pub call_started_at: String,
    /// RFC 3339 ms UTC: recording started.
    pub started_at: String,
    /// CLOCK_MONOTONIC ns of the answer (0 = not answered yet). The recording's clock frame gives the
    /// CLOCK_MONOTONIC of its origin, so `answered_mono_ns - origin` is the answer's `wall_ns`.
    pub answered_mono_ns: u64,
    /// RFC 3339 ms UTC of the answer.
    pub answered_at: String,
    /// Participants so far.
    pub participants: Vec<ParticipantFact>,
    /// What the sides may send.
    pub legs: Vec<LegFact>,
    /// Call attributes.
    pub attributes: std::collections::BTreeMap<String, String>,
    /// The recording is to be discarded at its end, unless a change says `kept`.
    pub keep_on_demand: bool,
    /// It is the recording of a recording session (SIPREC) that a client had with us, of which
    /// `call_id` is the id: there is no call of ours.
    pub recording_session: bool,
}

/// Frame kind call-change: only what changed is present; valid from the frame's `wall_ns` on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CallChange {
    /// `answered`, `media`, `hold`, `unhold`, `transfer`, `attributes`, `participants`, `metadata`,
    /// `indication`, `preference`.
    pub reason: String,
    /// The answer, when it came after the recording's start.
    pub answered_mono_ns: Option<u64>,
    /// See `answered_mono_ns`.
    pub answered_at: Option<String>,
    /// All participants, replaced.
    pub participants: Option<Vec<ParticipantFact>>,
    /// Legs that changed, each replaced by (side, media).
    pub legs: Vec<LegFact>,
    /// Call-IDs added.
    pub sip_call_ids: Vec<String>,
    /// Attributes changed.
    pub attributes: std::collections::BTreeMap<String, String>,
    /// Somebody asked to keep a recording that would be discarded.
    pub kept: bool,
    /// Recording metadata (RFC 7865) as it came from the client, or a part of it.
    pub metadata: Option<MetadataFact>,
    /// A party was told of the recording: an entry of the receipt's `indications`.
    pub indication: Option<serde_json::Value>,
    /// A party wishes something of the recording: an entry of the receipt's `preferences`.
    pub preference: Option<serde_json::Value>,
}

/// A metadata document of a recording session, or a part of a long one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MetadataFact {
    /// The recording session that it came in, where there are several in the recording; else empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub session: String,
    /// Its number in the recording session, from 1.
    pub revision: u32,
    /// The CSeq number of the message that brought it.
    pub cseq: u32,
    /// When it came (RFC 3339).
    pub at: String,
    /// Why it was not understood; empty where it was.
    pub quarantined: String,
    /// Which part of the document, from 0.
    pub part: u16,
    /// Of how many.
    pub parts: u16,
    /// The part's text.
    pub text: String,
}

/// Frame kind call-close.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CallClose {
    /// RFC 3339 ms UTC: end of the recording.
    pub ended_at: String,
    /// CLOCK_MONOTONIC ns of that moment.
    pub ended_mono_ns: u64,
    /// `caller`, `callee`, `us`, `unknown`; empty when the recording was stopped in mid-call.
    pub ended_by: String,
    /// complete, degraded, one_way, silent or partial.
    pub verdict: String,
    /// The receipt as the API shows it.
    pub receipt: serde_json::Value,
    /// All participants.
    pub participants: Vec<ParticipantFact>,
}
