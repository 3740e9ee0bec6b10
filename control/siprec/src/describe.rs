//! A call told to a recorder: a complete document first, then what changed since the last document the
//! recorder accepted.

use crate::Id;
use crate::journal::merge;
use crate::metadata::{
    Association, DataMode, Extension, Group, Metadata, MetadataError, NameId, Participant,
    ParticipantSession, ParticipantStreams, Reason, Session, SessionRecording, Stream, Strictness,
    read,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What the recorder of one recording session is told of the communication sessions on it.
///
/// Moments are RFC 3339 text in UTC with upper-case T and Z (RFC 7865 section 8.7). Changes hold at once;
/// [`Description::partial`] says what the recorder does not know yet, and only [`Description::accepted`]
/// takes a document as known: after a refused re-INVITE the next document holds the change again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Description {
    /// Everything but who sends and receives, which follows from `parties`.
    base: Metadata,
    parties: Vec<Party>,
    group: Option<Id>,
    session: Id,
    told: Option<Metadata>,
}

/// A party and the stream that carries what it says.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Party {
    id: Id,
    streams: Vec<Id>,
    media: Media,
    times: Association,
}

/// A party's media as agreed with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Media {
    /// The party sends.
    pub sends: bool,
    /// The party is sent to.
    pub receives: bool,
}

impl Media {
    /// Both ways.
    pub const BOTH: Self = Self {
        sends: true,
        receives: true,
    };
}

impl Description {
    /// The first session, of a group where one is given, started at `started` and recorded from `at`.
    #[must_use]
    pub fn new(group: Option<Id>, session: Uuid, started: &str, at: &str) -> Self {
        let groups = group.iter().map(|group| Group {
            id: group.clone(),
            times: since(started),
            extensions: Vec::new(),
        });
        let base = Metadata {
            groups: groups.collect(),
            ..Metadata::default()
        };
        let mut description = Self {
            base,
            parties: Vec::new(),
            group,
            session: Id::from_uuid(session),
            told: None,
        };
        description.begin(started, at);
        description
    }

    fn begin(&mut self, started: &str, at: &str) {
        let session = self.session.clone();
        self.base.sessions.push(Session {
            group: self.group.clone(),
            started: Some(started.to_owned()),
            ..Session::new(session.clone())
        });
        self.base.session_recordings.push(SessionRecording {
            session,
            times: since(at),
            extensions: Vec::new(),
        });
    }

    /// The session that goes on.
    #[must_use]
    pub fn session_id(&self) -> &Id {
        &self.session
    }

    fn current(&mut self) -> &mut Session {
        let at = self
            .base
            .sessions
            .iter()
            .position(|one| one.id == self.session);
        &mut self.base.sessions[at.expect("the session that goes on is among all")]
    }

    /// Sets the RFC 7989 Session-IDs of the session's dialogs.
    pub fn set_sip_session_ids(&mut self, ids: Vec<String>) {
        self.current().sip_session_ids = ids;
    }

    /// Adds extension elements to the group, where there is one, and the session that goes on.
    ///
    /// # Errors
    /// A text is not one well-formed XML element with a namespace of its own.
    pub fn add_extensions(
        &mut self,
        group: Option<&str>,
        session: Option<&str>,
    ) -> Result<(), MetadataError> {
        let group = group.map(checked_extension).transpose()?;
        let session = session.map(checked_extension).transpose()?;
        if let Some(known) = self.base.groups.first_mut() {
            known.extensions.extend(group);
        }
        self.current().extensions.extend(session);
        Ok(())
    }

    /// A party joins the session that goes on, or comes back to it; `stream` carries what it says, on the
    /// m-line of `label`.
    pub fn join(&mut self, party: Uuid, names: Vec<NameId>, stream: Uuid, label: &str, at: &str) {
        let (id, stream) = (Id::from_uuid(party), Id::from_uuid(stream));
        upsert_participant(&mut self.base.participants, &id, names);
        self.describe_stream(&stream, label);
        self.enter(&id, at);
        self.parties.retain(|one| one.id != id);
        self.parties.push(Party {
            id,
            streams: vec![stream],
            media: Media::BOTH,
            times: since(at),
        });
    }

    /// What a party says is carried by another stream too (video), on the m-line of `label`. A party that
    /// has not joined changes nothing.
    pub fn add_stream(&mut self, party: Uuid, stream: Uuid, label: &str) {
        let (id, stream) = (Id::from_uuid(party), Id::from_uuid(stream));
        let Some(at) = self.parties.iter().position(|one| one.id == id) else {
            return;
        };
        self.describe_stream(&stream, label);
        let streams = &mut self.parties[at].streams;
        if !streams.contains(&stream) {
            streams.push(stream);
        }
    }

    fn describe_stream(&mut self, stream: &Id, label: &str) {
        let described = Stream {
            id: stream.clone(),
            session: Some(self.session.clone()),
            label: Some(label.to_owned()),
            extensions: Vec::new(),
        };
        match self.base.streams.iter_mut().find(|one| one.id == *stream) {
            Some(known) => *known = described,
            None => self.base.streams.push(described),
        }
    }

    fn enter(&mut self, party: &Id, at: &str) {
        let session = self.session.clone();
        let memberships = &mut self.base.participant_sessions;
        match memberships
            .iter_mut()
            .find(|one| one.participant == *party && one.session == session)
        {
            Some(known) => known.times = since(at),
            None => memberships.push(ParticipantSession {
                participant: party.clone(),
                session,
                times: since(at),
                params: Vec::new(),
                extensions: Vec::new(),
            }),
        }
    }

    /// A party leaves the session that goes on. One that is not in it changes nothing.
    pub fn leave(&mut self, party: Uuid, at: &str) {
        let id = Id::from_uuid(party);
        for one in &mut self.base.participant_sessions {
            if one.participant == id && one.session == self.session {
                one.times.until.get_or_insert_with(|| at.to_owned());
            }
        }
        for one in self.parties.iter_mut().filter(|one| one.id == id) {
            one.times.until.get_or_insert_with(|| at.to_owned());
        }
    }

    /// Sets a party's names and addresses.
    pub fn rename(&mut self, party: Uuid, names: Vec<NameId>) {
        upsert_participant(&mut self.base.participants, &Id::from_uuid(party), names);
    }

    /// Sets what is agreed with a party: hold, or its end.
    pub fn set_media(&mut self, party: Uuid, media: Media) {
        let id = Id::from_uuid(party);
        for one in self.parties.iter_mut().filter(|one| one.id == id) {
            one.media = media;
        }
    }

    /// The recording of the session that goes on stops on this recording session, and starts again with
    /// [`Description::resume_session`]: a gap.
    pub fn suspend_session(&mut self, at: &str) {
        for one in &mut self.base.session_recordings {
            if one.session == self.session {
                one.times.until.get_or_insert_with(|| at.to_owned());
            }
        }
    }

    /// The session that goes on is recorded again, by this or another recording session: nothing is known
    /// to the recorder, so the next document is a complete one.
    pub fn resume_session(&mut self, at: &str) {
        for one in &mut self.base.session_recordings {
            if one.session == self.session {
                one.times = since(at);
            }
        }
        self.told = None;
    }

    /// The session that goes on ends; its participants leave.
    pub fn stop(&mut self, at: &str, reason: Option<Reason>) {
        let session = self.current();
        session.stopped.get_or_insert_with(|| at.to_owned());
        session.reasons.extend(reason);
        self.suspend_session(at);
        for one in &mut self.base.participant_sessions {
            if one.session == self.session {
                one.times.until.get_or_insert_with(|| at.to_owned());
            }
        }
        for one in &mut self.parties {
            one.times.until.get_or_insert_with(|| at.to_owned());
        }
    }

    /// A new session of the same group follows, as after a transfer by REFER (RFC 8068 section 3.3.2).
    pub fn next_session(&mut self, session: Uuid, at: &str) {
        self.session = Id::from_uuid(session);
        self.begin(at, at);
    }

    /// Everything, as the first document of a recording session and the answer to a snapshot request.
    #[must_use]
    pub fn complete(&self) -> Metadata {
        let mut all = self.base.clone();
        all.participant_streams = self.directions();
        all.mode = DataMode::Complete;
        all
    }

    /// Who sends and receives what: everybody that is in hears all others that send.
    fn directions(&self) -> Vec<ParticipantStreams> {
        let is_in = |party: &Party| party.times.until.is_none();
        let sending: Vec<&Party> = self
            .parties
            .iter()
            .filter(|party| is_in(party) && party.media.sends)
            .collect();
        self.parties
            .iter()
            .map(|party| {
                let sends = is_in(party) && party.media.sends;
                let receives = is_in(party) && party.media.receives;
                ParticipantStreams {
                    participant: party.id.clone(),
                    send: if sends {
                        party.streams.clone()
                    } else {
                        Vec::new()
                    },
                    recv: sending
                        .iter()
                        .filter(|other| receives && other.id != party.id)
                        .flat_map(|other| other.streams.iter().cloned())
                        .collect(),
                    times: party.times.clone(),
                    extensions: Vec::new(),
                }
            })
            .collect()
    }

    /// What the recorder does not know yet. A complete document as long as it has accepted none
    /// (RFC 7865 section 6.1.1: partial only after complete); None if it knows all.
    #[must_use]
    pub fn partial(&self) -> Option<Metadata> {
        let all = self.complete();
        let Some(told) = &self.told else {
            return Some(all);
        };
        let news = Metadata {
            mode: DataMode::Partial,
            groups: unknown(&all.groups, &told.groups),
            sessions: unknown(&all.sessions, &told.sessions),
            participants: unknown(&all.participants, &told.participants),
            streams: unknown(&all.streams, &told.streams),
            session_recordings: unknown(&all.session_recordings, &told.session_recordings),
            participant_sessions: unknown(&all.participant_sessions, &told.participant_sessions),
            participant_streams: unknown(&all.participant_streams, &told.participant_streams),
            extensions: Vec::new(),
        };
        let nothing = Metadata {
            mode: DataMode::Partial,
            ..Metadata::default()
        };
        (news != nothing).then_some(news)
    }

    /// A document for an offer whose m-lines have these labels now: those of streams that have changed are
    /// set first, for a document that names labels is told beside the offer that defines them.
    pub fn relabel(&mut self, labels: &[(Uuid, String)]) {
        for (stream, label) in labels {
            let id = Id::from_uuid(*stream);
            for one in self.base.streams.iter_mut().filter(|one| one.id == id) {
                one.label = Some(label.clone());
            }
        }
    }

    /// The recorder has accepted a document of [`Description::complete`] or [`Description::partial`].
    pub fn accepted(&mut self, document: &Metadata) {
        let told = self.told.get_or_insert_default();
        merge(told, document);
    }
}

fn upsert_participant(participants: &mut Vec<Participant>, id: &Id, names: Vec<NameId>) {
    match participants.iter_mut().find(|one| one.id == *id) {
        Some(known) => known.names = names,
        None => participants.push(Participant {
            id: id.clone(),
            names,
            extensions: Vec::new(),
        }),
    }
}

fn unknown<T: PartialEq + Clone>(all: &[T], told: &[T]) -> Vec<T> {
    all.iter()
        .filter(|one| !told.contains(one))
        .cloned()
        .collect()
}

fn since(at: &str) -> Association {
    Association {
        from: Some(at.to_owned()),
        until: None,
    }
}

/// An extension must not be able to break the document, so it is read as part of one first.
fn checked_extension(text: &str) -> Result<Extension, MetadataError> {
    let document = format!(
        "<recording xmlns=\"{}\">{text}</recording>",
        crate::metadata::NAMESPACE
    );
    let reading = read(document.as_bytes(), Strictness::Tolerant)?;
    let mut found = reading.metadata.extensions;
    match (found.pop(), found.is_empty()) {
        (Some(extension), true) if extension.xml == text.trim() => Ok(extension),
        _ => Err(MetadataError::Deviation(format!(
            "an extension must be one XML element outside the model, which {text:?} is not"
        ))),
    }
}
