//! One call detail record.

use crate::Timestamp;
use crate::object::{Chain, EndedBy, Recording, RecordingState, Role, Tally, Verdict};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Why a record was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordKind {
    /// The leg's INVITE came or is about to leave.
    #[default]
    Start,
    /// It was answered.
    Answer,
    /// It lasts.
    Interim,
    /// It is over. The last record of a leg.
    Final,
}

/// Direction of a leg.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The INVITE came to us.
    #[default]
    Inbound,
    /// We sent it.
    Outbound,
}

/// An attempt to reach somebody that led nowhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attempt {
    /// Where it went.
    pub request_uri: String,
    /// Its Call-ID.
    pub sip_call_id: String,
    /// What became of it.
    pub sip_code: Option<u16>,
    /// Its Q.850 cause.
    pub q850: Option<u8>,
}

/// One transfer of a call.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TransferStep {
    /// When it was asked for.
    pub at: Timestamp,
    /// Where it leads.
    pub target: String,
    /// Call-ID of the leg towards it.
    pub sip_call_id: String,
    /// The target's final status; absent while it is open.
    pub sip_code: Option<u16>,
}

/// A recording of a record's call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CdrRecording {
    /// Its id.
    pub id: String,
    /// Its state when the record was written.
    pub state: RecordingState,
    /// Its verdict, once there is one.
    #[serde(default)]
    pub verdict: Option<Verdict>,
    /// Packets of the caller.
    #[serde(default)]
    pub caller: Tally,
    /// Packets of the callee.
    #[serde(default)]
    pub callee: Tally,
    /// Its hash chain, once all of it is on disk.
    #[serde(default)]
    pub chain: Option<Chain>,
}

impl From<&Recording> for CdrRecording {
    fn from(recording: &Recording) -> Self {
        let receipt = recording.receipt.clone().unwrap_or_default();
        Self {
            id: recording.id.clone(),
            state: recording.state,
            verdict: recording.verdict,
            caller: receipt.caller,
            callee: receipt.callee,
            chain: receipt.chain,
        }
    }
}

/// A call detail record. What is not known (yet) is `None` and written as `null`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cdr {
    /// Why it was written.
    pub record: RecordKind,
    /// The node that wrote it.
    pub node: String,
    /// Rises by one with every record of the node: a gap is a record that is missing.
    pub sequence: u64,
    /// When it was written.
    pub written_at: Timestamp,
    /// The leg, UUIDv7.
    pub id: String,
    /// The call in the API, UUIDv7; empty for an INVITE that was refused before it became a call.
    pub call_id: String,
    /// Role of the leg.
    pub leg: Role,
    /// Direction of the leg.
    pub direction: Direction,
    /// 0 = the leg that came in; the call's outbound legs are counted from 1.
    pub attempt: u32,
    /// What the leg is for: empty, or `transfer_agent`.
    pub scenario: String,
    /// Tenant.
    pub tenant: Option<String>,
    /// Name of the route.
    pub route: Option<String>,
    /// Trunk that the call came in by.
    pub trunk_in: Option<String>,
    /// Trunk that it left by.
    pub trunk_out: Option<String>,
    /// Request-URI of the INVITE that came in.
    pub request_uri_in: String,
    /// Request-URI of the INVITE that went out.
    pub request_uri_out: Option<String>,
    /// URI of the leg's From.
    pub from_uri: String,
    /// URI of the leg's To.
    pub to_uri: String,
    /// P-Asserted-Identity of the leg's INVITE.
    pub asserted_identity: Option<String>,
    /// Call-ID of the leg.
    pub sip_call_id: String,
    /// Call-ID of the leg that came in.
    pub sip_call_id_in: String,
    /// Call-ID of the leg that went out: on an inbound leg, of the one it was connected to last.
    pub sip_call_id_out: Option<String>,
    /// RFC 7989 Session-ID.
    pub session_id: Option<String>,
    /// Our signalling address on the leg, `udp:192.0.2.1:5060`.
    pub local: String,
    /// The peer's.
    pub remote: String,
    /// INVITE received or sent.
    pub invited_at: Timestamp,
    /// First 18x received, or sent to the caller.
    pub progress_at: Option<Timestamp>,
    /// 2xx received, or sent to the caller.
    pub answered_at: Option<Timestamp>,
    /// ACK of that 2xx sent, or received from the caller.
    pub established_at: Option<Timestamp>,
    /// The leg's end: its first BYE, or its final failure.
    pub ended_at: Option<Timestamp>,
    /// From the INVITE to the first 18x or final response.
    pub post_dial_delay_ms: Option<u64>,
    /// From the first 18x to the answer or the end.
    pub ring_ms: Option<u64>,
    /// From the answer to the end.
    pub duration_ms: u64,
    /// Who ended it.
    pub ended_by: Option<EndedBy>,
    /// Final status of the INVITE.
    pub sip_code: Option<u16>,
    /// Q.850 cause.
    pub q850: Option<u8>,
    /// Reason header (RFC 3326) of the end, as received, or as sent when the end was ours.
    pub reason: Option<String>,
    /// Attempts of the call that led nowhere, before this one (on the inbound leg: all).
    pub failover: Vec<Attempt>,
    /// Transfers of the call so far.
    pub transfers: Vec<TransferStep>,
    /// Audio codec in use.
    pub codec: Option<String>,
    /// The call's recordings, with their receipts.
    pub recordings: Vec<CdrRecording>,
    /// Estimated listening quality of what came from this party, 1 to 4.5.
    pub mos: Option<f64>,
    /// The call's attributes.
    pub attributes: BTreeMap<String, String>,
}

impl Cdr {
    /// Whether the leg was connected: it ends by `on_bye`, else by `on_failed`.
    #[must_use]
    pub const fn was_established(&self) -> bool {
        self.established_at.is_some()
    }

    /// Works out the times that follow from moments.
    pub fn note_durations(&mut self, now: Timestamp) {
        let end = self.answered_at.or(self.ended_at);
        self.post_dial_delay_ms = self
            .progress_at
            .or(end)
            .map(|at| at.ms_since(self.invited_at));
        self.ring_ms = self
            .progress_at
            .map(|from| end.unwrap_or(now).ms_since(from));
        self.duration_ms = self
            .answered_at
            .map_or(0, |from| self.ended_at.unwrap_or(now).ms_since(from));
    }

    /// Gives a leg that nobody ended its end: we were down.
    pub fn end_unknown(&mut self, at: Timestamp) {
        self.record = RecordKind::Final;
        self.ended_at.get_or_insert(at.max(self.invited_at));
        self.ended_by.get_or_insert(EndedBy::Unknown);
        self.note_durations(at);
    }

    /// Every Call-ID by which it is found, and its Session-ID.
    pub(crate) fn call_ids(&self) -> impl Iterator<Item = &String> {
        let own = [&self.call_id, &self.sip_call_id, &self.sip_call_id_in];
        own.into_iter()
            .chain(&self.sip_call_id_out)
            .chain(&self.session_id)
            .filter(|id| !id.is_empty())
    }
}
