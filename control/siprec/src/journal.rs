//! A recording session's metadata as it grows: complete documents replace, partial ones amend
//! (RFC 7865 section 6.1.1), and every document is kept so that any earlier state can be read back.

use crate::Id;
use crate::limits::{ENTITIES_MAX, REVISIONS_MAX};
use crate::metadata::{
    Association, DataMode, Dialect, Group, Metadata, MetadataError, Participant,
    ParticipantSession, Session, SessionRecording, Stream, Strictness, read,
};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// One document as it came.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Revision {
    /// Its number, from 1.
    pub number: u32,
    /// The CSeq number of the message that brought it.
    pub cseq: u32,
    /// When it came, RFC 3339.
    pub at: String,
    /// What became of it.
    pub outcome: Outcome,
    /// The document itself.
    pub document: String,
}

/// What became of a document.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It changed the state.
    Applied {
        /// What it said.
        metadata: Box<Metadata>,
        /// How it was written.
        dialect: Dialect,
        /// Where it deviates from RFC 7865.
        deviations: Vec<String>,
    },
    /// It is kept unread: the state is as before (RFC 7866: bad metadata never stops a recording).
    Quarantined {
        /// Why.
        why: String,
    },
}

/// The state and its history.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Journal {
    revisions: Vec<Revision>,
    state: Metadata,
    /// What was known before the first of them, and the number of the last document until then.
    base: (Metadata, u32),
    /// Documents folded into the first revision because there were too many.
    folded: u32,
}

/// Why a document was quarantined.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Quarantine {
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] MetadataError),
    /// One UUID stands for two different things.
    #[error("the id {id} is a {was} and a {now}")]
    TwoThings {
        /// The id.
        id: Id,
        /// What it was.
        was: &'static str,
        /// What it is now.
        now: &'static str,
    },
    /// More things of one kind than [`ENTITIES_MAX`].
    #[error("more than {ENTITIES_MAX} things of one kind in one recording session")]
    TooMany,
}

impl Journal {
    /// Goes on where another journal ended, whose documents are kept elsewhere: with what was known
    /// after its document of that number.
    #[must_use]
    pub fn resume(state: Metadata, number: u32) -> Self {
        Self {
            revisions: Vec::new(),
            base: (state.clone(), number),
            state,
            folded: 0,
        }
    }

    /// Number of the last document; 0 before the first.
    #[must_use]
    pub fn last_number(&self) -> u32 {
        self.revisions
            .last()
            .map_or(self.base.1, |last| last.number)
    }

    /// Takes a document in. On an error it is kept as quarantined and the state stays.
    ///
    /// # Errors
    /// Why it was quarantined.
    pub fn apply(
        &mut self,
        cseq: u32,
        at: &str,
        document: &[u8],
        strictness: Strictness,
    ) -> Result<(), Quarantine> {
        let judged = read(document, strictness)
            .map_err(Quarantine::from)
            .and_then(|reading| {
                let mut next = self.state.clone();
                merge(&mut next, &reading.metadata);
                one_thing_each(&next)?;
                bounded(&next)?;
                Ok((next, reading))
            });
        let (outcome, result) = match judged {
            Ok((next, reading)) => {
                self.state = next;
                let outcome = Outcome::Applied {
                    metadata: Box::new(reading.metadata),
                    dialect: reading.dialect,
                    deviations: reading.deviations,
                };
                (outcome, Ok(()))
            }
            Err(why) => (
                Outcome::Quarantined {
                    why: why.to_string(),
                },
                Err(why),
            ),
        };
        let number = self.last_number() + 1;
        let kept = &document[..document.len().min(crate::limits::DOCUMENT_BYTES_MAX)];
        self.revisions.push(Revision {
            number,
            cseq,
            at: at.to_owned(),
            outcome,
            document: String::from_utf8_lossy(kept).into_owned(),
        });
        self.fold();
        result
    }

    /// What is known now.
    #[must_use]
    pub fn state(&self) -> &Metadata {
        &self.state
    }

    /// Every document kept, oldest first.
    #[must_use]
    pub fn revisions(&self) -> &[Revision] {
        &self.revisions
    }

    /// Documents that are no longer kept one by one.
    #[must_use]
    pub fn folded(&self) -> u32 {
        self.folded
    }

    /// What was known after the revision of that number; None if it is not kept.
    #[must_use]
    pub fn state_after(&self, number: u32) -> Option<Metadata> {
        self.revisions.iter().find(|one| one.number == number)?;
        let mut state = self.base.0.clone();
        for revision in self.revisions.iter().take_while(|one| one.number <= number) {
            if let Outcome::Applied { metadata, .. } = &revision.outcome {
                merge(&mut state, metadata);
            }
        }
        Some(state)
    }

    /// The oldest two revisions become one when there are too many.
    fn fold(&mut self) {
        if self.revisions.len() <= REVISIONS_MAX {
            return;
        }
        let first = self.revisions.remove(0);
        self.folded += 1;
        let Outcome::Applied {
            metadata: mut base, ..
        } = first.outcome
        else {
            return;
        };
        match &mut self.revisions[0].outcome {
            Outcome::Applied { metadata, .. } => {
                merge(&mut base, metadata);
                base.mode = DataMode::Complete;
                *metadata = base;
            }
            Outcome::Quarantined { .. } => {
                // The quarantined document goes, the state before it stays.
                self.revisions[0].outcome = Outcome::Applied {
                    metadata: base,
                    dialect: Dialect::Rfc7865,
                    deviations: Vec::new(),
                };
            }
        }
    }
}

/// Amends or replaces `state` by a document.
pub fn merge(state: &mut Metadata, document: &Metadata) {
    if document.mode == DataMode::Complete {
        *state = Metadata::default();
    }
    state.mode = DataMode::Complete;
    upsert(
        &mut state.groups,
        &document.groups,
        |a, b| a.id == b.id,
        merge_group,
    );
    upsert(
        &mut state.sessions,
        &document.sessions,
        |a, b| a.id == b.id,
        merge_session,
    );
    upsert(
        &mut state.participants,
        &document.participants,
        |a, b| a.id == b.id,
        merge_participant,
    );
    upsert(
        &mut state.streams,
        &document.streams,
        |a, b| a.id == b.id,
        merge_stream,
    );
    upsert(
        &mut state.session_recordings,
        &document.session_recordings,
        |a, b| a.session == b.session,
        merge_session_recording,
    );
    upsert(
        &mut state.participant_sessions,
        &document.participant_sessions,
        |a, b| a.participant == b.participant && a.session == b.session,
        merge_participant_session,
    );
    // A participant's send and receive set is replaced as a whole (RFC 7865 section 6.8).
    upsert(
        &mut state.participant_streams,
        &document.participant_streams,
        |a, b| a.participant == b.participant,
        |old, new| *old = new.clone(),
    );
    for extension in &document.extensions {
        state.extensions.retain(|old| old.name != extension.name);
        state.extensions.push(extension.clone());
    }
    end_stopped(state);
}

fn upsert<T: Clone>(
    known: &mut Vec<T>,
    said: &[T],
    same: impl Fn(&T, &T) -> bool,
    amend: impl Fn(&mut T, &T),
) {
    for new in said {
        match known.iter_mut().find(|old| same(old, new)) {
            Some(old) => amend(old, new),
            None => known.push(new.clone()),
        }
    }
}

fn replace<T: Clone>(old: &mut Option<T>, new: &Option<T>) {
    if new.is_some() {
        old.clone_from(new);
    }
}

fn replace_list<T: Clone>(old: &mut Vec<T>, new: &[T]) {
    if !new.is_empty() {
        *old = new.to_vec();
    }
}

/// A new beginning ends the former end: who comes back is in again.
fn merge_times(old: &mut Association, new: &Association) {
    if new.from.is_some() && new.from != old.from {
        *old = new.clone();
    } else {
        replace(&mut old.until, &new.until);
    }
}

fn merge_group(old: &mut Group, new: &Group) {
    merge_times(&mut old.times, &new.times);
    replace_list(&mut old.extensions, &new.extensions);
}

fn merge_session(old: &mut Session, new: &Session) {
    replace_list(&mut old.sip_session_ids, &new.sip_session_ids);
    replace_list(&mut old.reasons, &new.reasons);
    replace(&mut old.group, &new.group);
    replace(&mut old.started, &new.started);
    replace(&mut old.stopped, &new.stopped);
    replace_list(&mut old.extensions, &new.extensions);
}

fn merge_participant(old: &mut Participant, new: &Participant) {
    replace_list(&mut old.names, &new.names);
    replace_list(&mut old.extensions, &new.extensions);
}

fn merge_stream(old: &mut Stream, new: &Stream) {
    replace(&mut old.session, &new.session);
    replace(&mut old.label, &new.label);
    replace_list(&mut old.extensions, &new.extensions);
}

fn merge_session_recording(old: &mut SessionRecording, new: &SessionRecording) {
    merge_times(&mut old.times, &new.times);
    replace_list(&mut old.extensions, &new.extensions);
}

fn merge_participant_session(old: &mut ParticipantSession, new: &ParticipantSession) {
    merge_times(&mut old.times, &new.times);
    replace_list(&mut old.params, &new.params);
    replace_list(&mut old.extensions, &new.extensions);
}

/// A session's stop-time means that all its participants left.
fn end_stopped(state: &mut Metadata) {
    for session in &state.sessions {
        let Some(stopped) = &session.stopped else {
            continue;
        };
        for one in &mut state.participant_sessions {
            if one.session == session.id && one.times.until.is_none() {
                one.times.until = Some(stopped.clone());
            }
        }
    }
}

/// A UUID is unique: one that stands for two different things is an error (opaque short ids of older
/// senders are scoped to their element and are not judged).
fn one_thing_each(state: &Metadata) -> Result<(), Quarantine> {
    let mut kinds: HashMap<&Id, &'static str> = HashMap::new();
    let all = (state.groups.iter().map(|one| (&one.id, "group")))
        .chain(state.sessions.iter().map(|one| (&one.id, "session")))
        .chain(
            state
                .participants
                .iter()
                .map(|one| (&one.id, "participant")),
        )
        .chain(state.streams.iter().map(|one| (&one.id, "stream")));
    for (id, now) in all {
        if id.uuid().is_none() {
            continue;
        }
        if let Some(was) = kinds.insert(id, now).filter(|was| *was != now) {
            return Err(Quarantine::TwoThings {
                id: id.clone(),
                was,
                now,
            });
        }
    }
    Ok(())
}

fn bounded(state: &Metadata) -> Result<(), Quarantine> {
    let most = [
        state.groups.len(),
        state.sessions.len(),
        state.participants.len(),
        state.streams.len(),
        state.session_recordings.len(),
        state.participant_sessions.len(),
        state.participant_streams.len(),
        state.extensions.len(),
    ]
    .into_iter()
    .max();
    if most > Some(ENTITIES_MAX) {
        return Err(Quarantine::TooMany);
    }
    Ok(())
}
