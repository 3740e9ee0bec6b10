//! What recorders have to know of a call, as it is now.

use std::sync::Arc;

use trunkline_config::Recorders;
use trunkline_link::message::Side;
use trunkline_sinks::Timestamp;
use trunkline_siprec::describe::Media;
use trunkline_sn3::facts::PayloadFact;

/// How far a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The INVITE is in.
    Invited,
    /// Media may flow before the answer.
    Early,
    /// Answered.
    Answered,
    /// Over.
    Over,
}

/// A party of a call, with its place in the order of joining.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Party {
    /// Its URI.
    pub uri: String,
    /// Its display name, where one is known.
    pub name: Option<String>,
    /// Whose place it has.
    pub side: Side,
    /// Joined.
    pub from: Timestamp,
    /// Left.
    pub to: Option<Timestamp>,
}

/// What one side sends on one m-line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// Index among the session's media.
    pub media: u8,
    /// The side.
    pub side: Side,
    /// `audio`, `video` ...
    pub kind: String,
    /// Packet time, 0 = not said.
    pub ptime_ms: u16,
    /// What it may send, under the numbers it uses, the codec in use first.
    pub payloads: Vec<PayloadFact>,
    /// What is agreed with it.
    pub direction: Media,
}

impl CallView {
    /// No call: what a recording session stands for that carries none.
    pub(super) fn of_nobody(interface: u8, now: Timestamp) -> Self {
        Self {
            key: 0,
            id: String::new(),
            sip_call_id: String::new(),
            session_id: None,
            recording: None,
            started_at: now,
            ended_at: None,
            reason: None,
            stage: Stage::Answered,
            settled: true,
            emergency: false,
            captured: false,
            declined: false,
            rests: false,
            capture_rests: false,
            interface,
            has_ports: true,
            parties: Vec::new(),
            streams: Vec::new(),
            recorders: Arc::default(),
        }
    }
}

/// A call.
#[derive(Debug, Clone)]
pub struct CallView {
    /// Its session on the link.
    pub key: u64,
    /// Its id.
    pub id: String,
    /// Call-ID of the caller's leg.
    pub sip_call_id: String,
    /// RFC 7989 Session-ID.
    pub session_id: Option<String>,
    /// The recording here, where there is one.
    pub recording: Option<String>,
    /// INVITE in.
    pub started_at: Timestamp,
    /// End, once it is over.
    pub ended_at: Option<Timestamp>,
    /// Why it ended, in the form of RFC 3326.
    pub reason: Option<(String, u16)>,
    /// How far it is.
    pub stage: Stage,
    /// Both descriptions are known and no offer is open.
    pub settled: bool,
    /// It is never ended for want of a recorder.
    pub emergency: bool,
    /// Capture here runs, or may run again.
    pub captured: bool,
    /// A party wishes not to be recorded, and the route honours that: no session begins.
    pub declined: bool,
    /// A party wishes that recording rests, and the route honours that: a session that begins, begins so.
    pub rests: bool,
    /// Capture here is paused.
    pub capture_rests: bool,
    /// Interface of the callee's side, for recorders of its family.
    pub interface: u8,
    /// The session has ports.
    pub has_ports: bool,
    /// Who takes or took part.
    pub parties: Vec<Party>,
    /// What they send.
    pub streams: Vec<Stream>,
    /// What the route says of recorders.
    pub recorders: Arc<Recorders>,
}
