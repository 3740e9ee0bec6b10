//! A recording session as the API, the events and the metrics show it, in either role.

use serde::Serialize;
use trunkline_sinks::Timestamp;
pub use trunkline_sinks::object::Gap;

/// Which end of a recording session we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// We record a call to somebody else (SRC).
    Client,
    /// Somebody records a call to us (SRS).
    Server,
}

/// Where a recording session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is being set up, or waits until media may flow.
    Starting,
    /// Media is recorded.
    Active,
    /// It was paused by us or by its client.
    Paused,
    /// It stands, and the server takes no media for now.
    Inactive,
    /// No server has it; it is tried again.
    Lost,
    /// It is over.
    Ended,
    /// It came to nothing.
    Failed,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Starting,
        Self::Active,
        Self::Paused,
        Self::Inactive,
        Self::Lost,
        Self::Ended,
        Self::Failed,
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Inactive => "inactive",
            Self::Lost => "lost",
            Self::Ended => "ended",
            Self::Failed => "failed",
        }
    }
}

/// One m-line of a recording session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stream {
    /// Its `a=label`.
    pub label: String,
    /// `audio` or `video`.
    pub media: String,
    /// Who is heard on it: an address of record.
    pub participant: Option<String>,
    /// The codec, where one is agreed.
    pub codec: Option<String>,
    /// Packets sent to the recorder, or received as one.
    pub packets: u64,
    /// Their payload bytes.
    pub payload_bytes: u64,
    /// Packets of the call that the recorder was not sent, because it took none or not their codec.
    pub withheld: u64,
}

/// A part of a call that is sent to its recorder after the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Span {
    /// Since when.
    pub from: Timestamp,
    /// Until when.
    pub to: Timestamp,
}

/// A recording session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Session {
    /// Its id here.
    pub id: String,
    /// Which end we are.
    pub role: Role,
    /// Where it stands.
    pub state: State,
    /// The recorder's name (client), or the route's (server).
    pub instance: String,
    /// The server: whom we record to, or our own address.
    pub server: String,
    /// Who opened the session, for a server.
    pub peer: Option<String>,
    /// Id of the call that is recorded.
    pub call: Option<String>,
    /// Call-ID of the caller's leg of that call.
    pub call_sip_call_id: Option<String>,
    /// The recording that it is kept as here.
    pub recording: Option<String>,
    /// Call-ID of the recording session's dialog.
    pub sip_call_id: String,
    /// The communication session's id in the metadata.
    pub session_id: Option<String>,
    /// Begin.
    pub started_at: Timestamp,
    /// End.
    pub ended_at: Option<Timestamp>,
    /// m-lines in order.
    pub streams: Vec<Stream>,
    /// Documents of metadata so far.
    pub revision: u32,
    /// When the last one was accepted.
    pub revised_at: Option<Timestamp>,
    /// Servers that failed before this one.
    pub failovers: u32,
    /// What it missed.
    pub gaps: Vec<Gap>,
    /// What it sends of a call that is over, which another session missed; `None` = it records a call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay: Option<Span>,
    /// Id of the persistent session that carries it; that one has no `call`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<String>,
    /// Why it failed or is lost, in words.
    pub why: Option<String>,
}
