//! Calls and recordings as the catalog stores them and the API shows them.
//!
//! Field names and values are the API's. What is not known yet is `None` and shown as `null`.

use crate::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A new id: UUIDv7, so that ids sort by their time.
#[must_use]
pub fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$variant_meta])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// All values.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word that stands for it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }

            /// The value that a word stands for.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.name() == name)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.pad(self.name())
            }
        }
    };
}

words! {
    /// States of a call and of its legs.
    CallState {
        /// INVITE in, nothing heard from the far side.
        Setup = "setup",
        /// The far side rings.
        Ringing = "ringing",
        /// Media before the answer.
        Early = "early",
        /// Answered.
        Active = "active",
        /// Answered, on hold.
        Held = "held",
        /// BYE or CANCEL under way.
        Ending = "ending",
        /// Over after an answer.
        Ended = "ended",
        /// Over without an answer.
        Failed = "failed",
    }
}

impl CallState {
    /// Whether the call is over.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Ended | Self::Failed)
    }
}

words! {
    /// Who ended a call.
    EndedBy {
        /// The caller hung up.
        Caller = "caller",
        /// The callee hung up.
        Callee = "callee",
        /// We did: API, timeout, limit, drain.
        Us = "us",
        /// It ended while we were down.
        Unknown = "unknown",
    }
}

words! {
    /// Role of a leg or a participant.
    #[derive(Default)]
    Role {
        /// Whose INVITE came in.
        #[default]
        Caller = "caller",
        /// Whom it was for.
        Callee = "callee",
        /// A transfer's target.
        Transfer = "transfer",
        /// A recording session towards a recorder.
        Recorder = "recorder",
    }
}

words! {
    /// States of a recording.
    RecordingState {
        /// Capture runs.
        Recording = "recording",
        /// Capture rests.
        Paused = "paused",
        /// Capture ended, not all is on disk.
        Finishing = "finishing",
        /// Whole.
        Complete = "complete",
        /// Cut short or torn by a failure of ours.
        Partial = "partial",
        /// Nothing could be kept.
        Failed = "failed",
        /// Its media was deleted.
        Deleted = "deleted",
    }
}

impl RecordingState {
    /// Whether nothing more will change by itself.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(
            self,
            Self::Complete | Self::Partial | Self::Failed | Self::Deleted
        )
    }
}

words! {
    /// The judgement of a finished recording; the first that fits, in this order.
    Verdict {
        /// A failure of ours cut it short or tore a hole.
        Partial = "partial",
        /// Nobody was heard.
        Silent = "silent",
        /// Only one side was heard.
        OneWay = "one_way",
        /// Something was dropped by us, or more than 1 % was lost in the network.
        Degraded = "degraded",
        /// None of these.
        Complete = "complete",
    }
}

/// A call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// UUIDv7.
    pub id: String,
    /// Tenant.
    #[serde(default)]
    pub tenant: Option<String>,
    /// State.
    pub state: CallState,
    /// User part of the caller.
    #[serde(default)]
    pub caller: String,
    /// User part of the callee.
    #[serde(default)]
    pub callee: String,
    /// URI of the caller.
    #[serde(default)]
    pub caller_uri: String,
    /// URI of the callee.
    #[serde(default)]
    pub callee_uri: String,
    /// Call-ID of the caller's leg.
    #[serde(default)]
    pub sip_call_id: String,
    /// RFC 7989 Session-ID.
    #[serde(default)]
    pub session_id: Option<String>,
    /// INVITE in.
    pub started_at: Timestamp,
    /// Our 200 to the caller.
    #[serde(default)]
    pub answered_at: Option<Timestamp>,
    /// The first BYE received or sent, or the final failure.
    #[serde(default)]
    pub ended_at: Option<Timestamp>,
    /// Who ended it.
    #[serde(default)]
    pub ended_by: Option<EndedBy>,
    /// The final SIP status towards the caller.
    #[serde(default)]
    pub sip_code: Option<u16>,
    /// Q.850 cause of a Reason header.
    #[serde(default)]
    pub q850: Option<u8>,
    /// Legs, the caller's first.
    #[serde(default)]
    pub legs: Vec<Leg>,
    /// Ids of its recordings, oldest first.
    #[serde(default)]
    pub recordings: Vec<String>,
    /// Whether it was to be recorded: by its route, or because somebody asked for it.
    #[serde(default)]
    pub recording_expected: bool,
    /// Attributes.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// How the parties were told of recordings by others while none ran here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub indications: Vec<Indication>,
}

impl Call {
    /// A party was told while nothing was recorded here. The newest are kept.
    pub fn indicated(&mut self, indication: Indication) {
        if self.indications.len() >= TOLD_MAX {
            self.indications.remove(0);
        }
        self.indications.push(indication);
    }
}

/// One side of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leg {
    /// UUIDv7.
    pub id: String,
    /// Role.
    pub role: Role,
    /// Call-ID.
    #[serde(default)]
    pub sip_call_id: String,
    /// Trunk.
    #[serde(default)]
    pub trunk: Option<String>,
    /// Signalling peer, `udp:192.0.2.1:5060`.
    #[serde(default)]
    pub peer: String,
    /// Audio codec in use.
    #[serde(default)]
    pub codec: Option<String>,
    /// State.
    pub state: CallState,
}

/// A recording.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recording {
    /// UUIDv7.
    pub id: String,
    /// Its call.
    pub call_id: String,
    /// State.
    pub state: RecordingState,
    /// Start of capture.
    pub started_at: Timestamp,
    /// End of capture.
    #[serde(default)]
    pub ended_at: Option<Timestamp>,
    /// From start to end, or to now while it runs; pauses included.
    #[serde(default)]
    pub duration_ms: u64,
    /// All pauses together.
    #[serde(default)]
    pub paused_ms: u64,
    /// Pauses, in order.
    #[serde(default)]
    pub pauses: Vec<Pause>,
    /// Participants.
    #[serde(default)]
    pub participants: Vec<Participant>,
    /// Judgement, once finished.
    #[serde(default)]
    pub verdict: Option<Verdict>,
    /// Receipt; so far, while it runs.
    #[serde(default)]
    pub receipt: Option<Receipt>,
    /// Tenant.
    #[serde(default)]
    pub tenant: Option<String>,
    /// Call-IDs of all legs.
    #[serde(default)]
    pub sip_call_ids: Vec<String>,
    /// RFC 7989 Session-ID.
    #[serde(default)]
    pub session_id: Option<String>,
    /// Attributes.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// On legal hold: it cannot be deleted.
    #[serde(default)]
    pub held: bool,
    /// Of a recording that is discarded at its end unless somebody asks to keep it: whether that was
    /// asked. `None` = it is kept anyway.
    #[serde(default)]
    pub kept: Option<bool>,
}

/// A pause of a recording, relative to its start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Begin.
    pub from_ms: u64,
    /// End; `None` while it lasts.
    #[serde(default)]
    pub to_ms: Option<u64>,
    /// Who asked for it.
    #[serde(default)]
    pub by: String,
}

/// A participant of a recording; times are relative to its start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Participant {
    /// Role.
    pub role: Role,
    /// SIP URI.
    #[serde(default)]
    pub uri: String,
    /// Display name.
    #[serde(default)]
    pub name: String,
    /// Joined.
    #[serde(default)]
    pub from_ms: u64,
    /// Left; `None` = still there.
    #[serde(default)]
    pub to_ms: Option<u64>,
    /// Channel of the WAV: 0 = left, 1 = right.
    #[serde(default)]
    pub channel: u8,
}

/// Packets accounted for: `expected = written + lost + dropped`, always.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// Distinct sequence numbers between first and last heard while recording ran.
    pub expected: u64,
    /// In the recording.
    pub written: u64,
    /// Lost in the network.
    pub lost: u64,
    /// Dropped by us.
    pub dropped: u64,
    /// Written again, beside `written`.
    pub duplicates: u64,
    /// Arrived after a later one.
    pub reordered: u64,
    /// Answered time covered, pauses and agreed hold left out.
    pub covered_ms: u64,
    /// `dropped` by reason.
    pub dropped_by: BTreeMap<String, u64>,
}

/// One stream of a receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamTally {
    /// Side that sent it: caller or callee.
    pub side: Role,
    /// m-line index.
    #[serde(default)]
    pub media: u8,
    /// SSRC as received.
    pub ssrc: u32,
    /// Payload bytes written.
    #[serde(default)]
    pub bytes: u64,
    /// The packets.
    #[serde(flatten)]
    pub tally: Tally,
}

/// A time in which one of a call's recorders did not have it though it should have: what the capture here has
/// and that recorder lacks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gap {
    /// The recorder's name.
    pub recorder: String,
    /// The server that was lost, or asked in vain.
    pub server: String,
    /// Why.
    pub reason: String,
    /// Since when.
    pub from: Timestamp,
    /// Until when; `None` = it lasts, or lasted to the end.
    pub to: Option<Timestamp>,
}

words! {
    /// How a party was told that it is recorded.
    IndicationKind {
        /// `a=record` in a description that it acknowledged (RFC 7866).
        Record = "a=record",
        /// A spoken announcement that it was played.
        Announcement = "announcement",
        /// A tone that it was played.
        Tone = "tone",
    }
}

/// One proof that a party was told of the recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Indication {
    /// Which side was told: caller or callee.
    pub side: Role,
    /// How.
    pub kind: IndicationKind,
    /// What: `on`, `off` or `paused`; of sound, which.
    #[serde(default)]
    pub value: String,
    /// When the party acknowledged it, or when the sound began.
    pub at: Timestamp,
    /// The SIP status by which the party refused to be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<u16>,
    /// How long sound was played.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// Packets of the sound that left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frames: Option<u64>,
    /// How often it was played so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// When the last of it was heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// What a party wished of the recording (`a=recordpref`, RFC 7866).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preference {
    /// Which side: caller or callee.
    pub side: Role,
    /// `on`, `off`, `pause` or `nopreference`.
    pub value: String,
    /// When it said so.
    pub at: Timestamp,
    /// Whether the route lets parties decide.
    pub honoured: bool,
}

/// The receipt of a recording.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Receipt {
    /// Sum of the caller's streams.
    pub caller: Tally,
    /// Sum of the callee's streams.
    pub callee: Tally,
    /// Each stream.
    pub streams: Vec<StreamTally>,
    /// What SIPREC recorders of the call missed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
    /// Hash chain over what was written, once all of it is on disk.
    pub chain: Option<Chain>,
    /// How the parties were told of it, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub indications: Vec<Indication>,
    /// What the parties wished, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub preferences: Vec<Preference>,
    /// Further indications and wishes that the receipt has no room for; the recording's facts have them.
    #[serde(skip_serializing_if = "is_zero")]
    pub left_out: u32,
}

/// Indications, and wishes, that a receipt has room for.
const TOLD_MAX: usize = 48;

fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Receipt {
    /// A party was told.
    pub fn indicated(&mut self, indication: Indication) {
        let full = self.indications.len() >= TOLD_MAX;
        match full {
            true => self.left_out += 1,
            false => self.indications.push(indication),
        }
    }

    /// A party wishes something.
    pub fn preferred(&mut self, preference: Preference) {
        let full = self.preferences.len() >= TOLD_MAX;
        match full {
            true => self.left_out += 1,
            false => self.preferences.push(preference),
        }
    }

    /// The same counts again, counted anew: what the parties were told and wished stays.
    pub fn recounted(self, counted: Self) -> Self {
        Self {
            indications: self.indications,
            preferences: self.preferences,
            left_out: self.left_out,
            ..counted
        }
    }
}

/// The hash chain of a recording: one value that stands for every byte of its extents.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Chain {
    /// `blake3`.
    pub algorithm: String,
    /// The last link, hexadecimal.
    pub head: String,
    /// Ed25519 over what [`trunkline_sn3::proof::statement`] takes of the recording, hexadecimal.
    pub signature: Option<String>,
    /// The public key that checks it, hexadecimal.
    pub public_key: Option<String>,
}

impl Chain {
    /// The chain that ends with this link; `None` when it is no link (zeros).
    #[must_use]
    pub fn ending_with(head: &trunkline_sn3::chain::Link) -> Option<Self> {
        (*head != trunkline_sn3::chain::START).then(|| Self {
            algorithm: "blake3".to_owned(),
            head: trunkline_sn3::chain::to_hex(head),
            signature: None,
            public_key: None,
        })
    }
}

impl Recording {
    /// Signs the receipt with the chain's head. Nothing happens where there is no chain.
    pub fn sign(&mut self, signer: &trunkline_sn3::proof::Signer) {
        let Ok(said) = serde_json::to_value(&*self) else {
            return;
        };
        let chain = self
            .receipt
            .as_mut()
            .and_then(|receipt| receipt.chain.as_mut());
        if let Some(chain) = chain {
            chain.signature = Some(signer.sign(&trunkline_sn3::proof::statement(&said)));
            chain.public_key = Some(signer.public_key());
        }
    }
}
