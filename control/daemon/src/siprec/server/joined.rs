//! Other recording sessions whose streams are in a recording too: a standby's, or the one before a failover.

use serde::{Deserialize, Serialize};
use trunkline_sdp::RelayKind;
use trunkline_sinks::Timestamp;

use super::Session;
use super::parties::Parties;

/// Recording sessions of one recording that are told apart: the dataplane has media for no more at once.
pub const JOINED_MAX: usize = 32;

/// What a recording has to know of another session in it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Joined {
    /// Its key; 0 = it was over when this one began.
    pub key: u64,
    /// Its Call-ID.
    pub sip_call_id: String,
    /// It has not ended.
    pub present: bool,
    /// Channels that it sends on by what is agreed.
    pub sends: [bool; 2],
    /// Its place in the order in which streams of one side are heard.
    pub alternate: u8,
    /// Who is heard in it.
    pub parties: Parties,
    /// Media of the dataplane's session that are its.
    pub media: Vec<(u8, RelayKind)>,
    /// From which a restarted control goes on with it.
    #[serde(default)]
    pub saved: Option<serde_json::Value>,
}

impl Joined {
    /// Takes note of how a session stands.
    pub fn follow(&mut self, session: &Session) {
        self.sends = session.lines.channels_sent();
        self.parties = session.parties.clone();
        self.media = session.lines.media();
    }

    /// The session is over; its parties have left at this moment, unless all is over with it.
    pub fn leave(&mut self, at: Option<Timestamp>) {
        self.present = false;
        self.sends = [false; 2];
        if let Some(at) = at {
            self.parties.leave(at);
        }
    }
}

/// Whether two sessions that name the same communication session mean the same one: somebody takes part in
/// both. There are clients that number their calls and participants anew from 1: an id that could be anybody's
/// says nothing, nor does a caller who hides.
#[must_use]
pub fn is_same(one: &Parties, other: &Parties) -> bool {
    one.all().iter().any(|party| {
        let same = |known: &super::parties::Party| {
            if !known.uri.is_empty() && !party.uri.is_empty() {
                return known.uri == party.uri && !hides(&party.uri);
            }
            let unique = party.id.as_ref().is_some_and(|id| id.uuid().is_some());
            unique && known.id == party.id
        };
        other.all().iter().any(same)
    })
}

/// Whether a URI is that of a caller who hides (RFC 3323 section 4.1.1.3).
fn hides(uri: &str) -> bool {
    uri.contains("anonymous.invalid") || uri.contains(":anonymous@")
}
