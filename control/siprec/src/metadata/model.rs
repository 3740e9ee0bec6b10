//! RFC 7865's model. Moments are RFC 3339 text: written by us in UTC, kept as sent when read.

use crate::Id;
use serde::{Deserialize, Serialize};

/// One metadata document.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// Whether it replaces or amends what is known.
    pub mode: DataMode,
    /// Groups of communication sessions.
    pub groups: Vec<Group>,
    /// Communication sessions.
    pub sessions: Vec<Session>,
    /// Participants.
    pub participants: Vec<Participant>,
    /// Media streams of the recording session.
    pub streams: Vec<Stream>,
    /// When a communication session was on this recording session.
    pub session_recordings: Vec<SessionRecording>,
    /// When a participant was in a communication session.
    pub participant_sessions: Vec<ParticipantSession>,
    /// Which streams a participant sends and receives.
    pub participant_streams: Vec<ParticipantStreams>,
    /// Elements the model does not know.
    pub extensions: Vec<Extension>,
}

/// Complete or partial (RFC 7865 section 6.1.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataMode {
    /// Replaces everything known.
    #[default]
    Complete,
    /// Adds to and changes what is known.
    Partial,
}

/// When something began and ceased to belong to something else.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Association {
    /// From then on.
    pub from: Option<String>,
    /// Until then.
    pub until: Option<String>,
}

/// An element outside the model, as XML text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    /// Its name without prefix.
    pub name: String,
    /// The element as written, tags included.
    pub xml: String,
    /// The text within, tags left out.
    pub text: String,
}

/// A communication session group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its id.
    pub id: Id,
    /// Since when, until when.
    pub times: Association,
    /// Extensions.
    pub extensions: Vec<Extension>,
}

/// A communication session: what the two or more parties have with each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its id.
    pub id: Id,
    /// RFC 7989 Session-IDs (not Call-IDs) of its dialogs.
    pub sip_session_ids: Vec<String>,
    /// Why it ended, in the form of RFC 3326.
    pub reasons: Vec<Reason>,
    /// The group it belongs to.
    pub group: Option<Id>,
    /// Start.
    pub started: Option<String>,
    /// End; from then on no participant is in it.
    pub stopped: Option<String>,
    /// Extensions.
    pub extensions: Vec<Extension>,
}

impl Session {
    /// A session of which only the id is known.
    #[must_use]
    pub fn new(id: Id) -> Self {
        Self {
            id,
            sip_session_ids: Vec::new(),
            reasons: Vec::new(),
            group: None,
            started: None,
            stopped: None,
            extensions: Vec::new(),
        }
    }
}

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// The text, such as `Call Transferred`.
    pub text: String,
    /// The Reason protocol, `SIP` or `Q.850`.
    pub protocol: Option<String>,
    /// Its cause number.
    pub cause: Option<String>,
}

/// A party.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Participant {
    /// Its id.
    pub id: Id,
    /// Its addresses and names.
    pub names: Vec<NameId>,
    /// Extensions.
    pub extensions: Vec<Extension>,
}

/// An address of record with the name that goes with it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameId {
    /// The address, usually a SIP or tel URI; some senders leave out the scheme.
    pub aor: String,
    /// The display name.
    pub name: Option<String>,
    /// The language of the name.
    pub language: Option<String>,
}

/// A media stream of the recording session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// Its id.
    pub id: Id,
    /// The session it belongs to.
    pub session: Option<Id>,
    /// The `a=label` of the m-line that carries it in the SDP of the same message.
    pub label: Option<String>,
    /// Extensions.
    pub extensions: Vec<Extension>,
}

/// A communication session's time on the recording session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecording {
    /// The session.
    pub session: Id,
    /// Since when, until when.
    pub times: Association,
    /// Extensions.
    pub extensions: Vec<Extension>,
}

/// A participant's time in a communication session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParticipantSession {
    /// Who.
    pub participant: Id,
    /// In which session.
    pub session: Id,
    /// Since when, until when.
    pub times: Association,
    /// Contact parameters (RFC 3840) as `(name, value)`.
    pub params: Vec<(String, String)>,
    /// Extensions.
    pub extensions: Vec<Extension>,
}

/// What a participant sends and receives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParticipantStreams {
    /// Who.
    pub participant: Id,
    /// Streams it sends.
    pub send: Vec<Id>,
    /// Streams it receives.
    pub recv: Vec<Id>,
    /// Since when, until when.
    pub times: Association,
    /// Extensions.
    pub extensions: Vec<Extension>,
}

impl Metadata {
    /// The stream of an id.
    #[must_use]
    pub fn stream(&self, id: &Id) -> Option<&Stream> {
        self.streams.iter().find(|stream| stream.id == *id)
    }

    /// The participant of an id.
    #[must_use]
    pub fn participant(&self, id: &Id) -> Option<&Participant> {
        self.participants.iter().find(|one| one.id == *id)
    }

    /// The session of an id.
    #[must_use]
    pub fn session(&self, id: &Id) -> Option<&Session> {
        self.sessions.iter().find(|session| session.id == *id)
    }

    /// What a participant sends and receives.
    #[must_use]
    pub fn streams_of(&self, participant: &Id) -> Option<&ParticipantStreams> {
        self.participant_streams
            .iter()
            .find(|one| one.participant == *participant)
    }
}
