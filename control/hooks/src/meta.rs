//! What callbacks say of a leg.

use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime};

/// Direction of a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The INVITE came to us.
    Inbound,
    /// We sent it.
    Outbound,
}

/// Who ended a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HangupInitiator {
    /// We did: a timeout, the API, draining, a limit.
    Local,
    /// The caller or the callee did.
    Remote,
    /// It ended while we were down.
    Unknown,
}

/// One leg of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallMeta {
    /// The leg's SIP Call-ID.
    pub call_id: String,
    /// On an outbound leg the inbound leg's Call-ID; empty on the inbound leg.
    pub correlation_id: String,
    /// Direction.
    pub direction: Direction,
    /// What the leg is for: empty, `transfer_agent`, `dialout`, `breakout`, `siprec`.
    pub scenario: String,
    /// Tenant; empty = none.
    pub tenant_id: String,
    /// Where the leg's signalling comes from or goes to, ADDRESS:PORT.
    pub remote_addr: String,
    /// Our address towards it.
    pub local_ip: String,
    /// Audio codec agreed; empty before there is one.
    pub codec: String,
    /// INVITE received or sent.
    pub started_at: SystemTime,
    /// The call's id in the API.
    pub call: String,
}

/// How a leg ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HangupMeta {
    /// Who ended it.
    pub initiator: HangupInitiator,
    /// SIP status; 0 = none.
    pub sip_code: u16,
    /// Why, in words.
    pub reason: String,
    /// Answered time; zero when it was never answered.
    pub duration: Duration,
    /// When.
    pub ended_at: SystemTime,
}
