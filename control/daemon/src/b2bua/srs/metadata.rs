//! What a recording client tells of its call: taken in, kept with the recording, shown.

use trunkline_link::message::FactKind;
use trunkline_siprec::journal::{Outcome, Revision};
use trunkline_sn3::facts::{CallChange, MetadataFact};

use crate::api::events::{EventKind, Subject};
use crate::b2bua::record::{participant_facts, sip_call_ids};
use crate::b2bua::{B2bua, CatalogWrite};
use crate::call::Call;
use crate::clock::Moment;
use crate::siprec::server::session::ATTRIBUTE_LINKED;

/// Bytes of a document that one fact holds: escaped for JSON it may be six times as long at worst.
const PART_BYTES_MAX: usize = 1600;

impl B2bua {
    /// Takes a document in. A bad one is kept beside, and an alarm is raised: the media goes on.
    pub(super) fn take_metadata(
        &mut self,
        call: &mut Call,
        cseq: u32,
        document: &[u8],
        now: &Moment,
    ) {
        let id = call.object.id.clone();
        let Some(session) = &mut call.recording_session else {
            return;
        };
        let taken = session.document(cseq, now.utc, document);
        let was_alarmed = std::mem::replace(&mut session.alarmed, taken.is_err());
        let revision = session.last_revision().cloned();
        if let Err(why) = taken {
            tracing::warn!(session = %id, cseq, why, "metadata is quarantined");
            let message = format!("recording session {id}: metadata is quarantined: {why}");
            self.publish_alarm(EventKind::AlarmRaised, &message, now);
        } else if was_alarmed {
            let message = format!("recording session {id}: metadata is understood again");
            self.publish_alarm(EventKind::AlarmCleared, &message, now);
        }
        if let Some(revision) = revision
            && call.was_answered()
        {
            self.tell_document(call, &revision);
        }
    }

    fn publish_alarm(&self, kind: EventKind, message: &str, now: &Moment) {
        let code = "siprec_metadata";
        self.events
            .publish(kind, now.utc, &Subject::Alarm { code, message });
    }

    /// Who is heard now, told to the recording where it has changed.
    pub(super) fn follow_metadata(&mut self, call: &mut Call, now: &Moment) {
        let Some(session) = &mut call.recording_session else {
            return;
        };
        let changed = session.follow(now.utc);
        let before = call.object.attributes.clone();
        session.describe(&mut call.object);
        call.object.legs[0].codec = session.lines.codec();
        if let Some(host) = call.host {
            return self.follow_joined(call, host, now);
        }
        if !changed && call.object.attributes == before {
            return;
        }
        self.tell_participants(call);
    }

    /// The recording is told who takes part now.
    pub(super) fn tell_participants(&mut self, call: &mut Call) {
        let change = CallChange {
            reason: "participants".to_owned(),
            participants: Some(participant_facts(call)),
            sip_call_ids: sip_call_ids(call),
            attributes: call.object.attributes.clone(),
            ..CallChange::default()
        };
        self.fact_to_live(call, FactKind::CallChange, &change);
        self.show_participants(call);
    }

    /// The catalog knows a live recording's participants and attributes as they are.
    fn show_participants(&mut self, call: &mut Call) {
        let Some(number) = call.live_recording().map(|one| one.number) else {
            return;
        };
        crate::b2bua::record::refresh_participants(call, number);
        let attributes = call.object.attributes.clone();
        if let Some(recording) = call.recording(number) {
            recording.object.attributes.extend(attributes);
            let recording = recording.clone();
            self.writes.push(CatalogWrite::Recording(recording));
        }
    }

    /// Another recording session of the same communication session, at the same time (a standby) or
    /// before (its client failed over), is named in this one's recording.
    pub(super) fn link_sessions(&mut self, call: &mut Call) {
        let Some(wanted) =
            (call.recording_session.as_ref()).and_then(|session| session.communication_session())
        else {
            return;
        };
        let live = self.calls.values().filter_map(|other| {
            let session = other.recording_session.as_ref()?.communication_session()?;
            let recording = other.recordings.last()?;
            (session == wanted).then(|| (recording.object.started_at, recording.object.id.clone()))
        });
        let over = self.served.iter().filter_map(|other| {
            let same = other.session_id.as_ref() == Some(&wanted);
            same.then(|| Some((other.started_at, other.recording.clone()?)))?
        });
        if let Some((_, recording)) = live.chain(over).max_by_key(|(at, _)| at.0) {
            let attributes = &mut call.object.attributes;
            attributes.insert(ATTRIBUTE_LINKED.to_owned(), recording);
        }
    }

    /// Documents that came before the recording ran are told to it.
    pub(super) fn tell_documents(&mut self, call: &mut Call) {
        let revisions = call
            .recording_session
            .as_ref()
            .map(|session| session.journal.revisions().to_vec());
        for revision in revisions.unwrap_or_default() {
            self.tell_document(call, &revision);
        }
    }

    /// A document becomes facts of the recording, as many as it needs.
    fn tell_document(&mut self, call: &mut Call, revision: &Revision) {
        let quarantined = match &revision.outcome {
            Outcome::Applied { .. } => String::new(),
            Outcome::Quarantined { why } => why.clone(),
        };
        let several = call.host.is_some() || !call.joined.is_empty();
        let session = if several {
            call.object.id.clone()
        } else {
            String::new()
        };
        let parts = parts(&revision.document);
        let count = u16::try_from(parts.len()).unwrap_or(u16::MAX);
        for (index, text) in (0..count).zip(parts) {
            let change = CallChange {
                reason: "metadata".to_owned(),
                metadata: Some(MetadataFact {
                    session: session.clone(),
                    revision: revision.number,
                    cseq: revision.cseq,
                    at: revision.at.clone(),
                    quarantined: quarantined.clone(),
                    part: index,
                    parts: count,
                    text: text.to_owned(),
                }),
                ..CallChange::default()
            };
            self.fact_to_live(call, FactKind::CallChange, &change);
        }
    }
}

/// A text in pieces of at most [`PART_BYTES_MAX`]; at least one.
fn parts(text: &str) -> Vec<&str> {
    let (mut parts, mut rest) = (Vec::new(), text);
    loop {
        let mut end = rest.len().min(PART_BYTES_MAX);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let (part, after) = rest.split_at(end);
        parts.push(part);
        if after.is_empty() {
            return parts;
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_in_parts_is_whole() {
        let text = "<a>\u{e9}\u{20ac}</a>".repeat(1000);
        let parts = parts(&text);
        assert!(parts.iter().all(|part| part.len() <= PART_BYTES_MAX));
        assert_eq!(parts.concat(), text);
        assert_eq!(super::parts(""), [""]);
    }
}
