//! A document from XML. Elements are found by name whatever their prefix, namespace, order and case.

use super::model::*;
use super::{Dialect, NAMESPACE};
use crate::Id;
use crate::limits::ENTITIES_MAX;
use crate::xml::Element;
pub use crate::xml::XmlError;

/// How much a document may deviate from RFC 7865.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Strictness {
    /// Everything that can be understood is; deviations are noted.
    #[default]
    Tolerant,
    /// The first deviation is an error.
    Strict,
}

/// Why a document is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// It is no XML we read.
    #[error(transparent)]
    Xml(#[from] XmlError),
    /// Its root element is no recording.
    #[error("the root element is <{0}>, not <recording>")]
    Root(String),
    /// More things of one kind than [`ENTITIES_MAX`].
    #[error("more than {ENTITIES_MAX} <{0}> elements")]
    TooMany(&'static str),
    /// A deviation from RFC 7865, with [`Strictness::Strict`].
    #[error("deviates from RFC 7865: {0}")]
    Deviation(String),
}

/// A document and how it was written.
#[derive(Debug, Clone)]
pub struct Reading {
    /// What it says.
    pub metadata: Metadata,
    /// Its dialect.
    pub dialect: Dialect,
    /// Deviations from RFC 7865, in words, in the order met.
    pub deviations: Vec<String>,
}

/// Reads a document.
///
/// # Errors
/// See [`MetadataError`]; a deviation only with [`Strictness::Strict`].
pub fn read(bytes: &[u8], strictness: Strictness) -> Result<Reading, MetadataError> {
    let root = Element::parse(bytes)?;
    let dialect = Dialect::of(&root).ok_or_else(|| MetadataError::Root(root.name.clone()))?;
    let mut reader = MetadataReader {
        metadata: Metadata::default(),
        deviations: Vec::new(),
    };
    reader.root(&root, dialect);
    let MetadataReader {
        metadata,
        deviations,
    } = reader;
    bound(&metadata)?;
    match (strictness, deviations.first()) {
        (Strictness::Strict, Some(first)) => Err(MetadataError::Deviation(first.clone())),
        _ => Ok(Reading {
            metadata,
            dialect,
            deviations,
        }),
    }
}

fn bound(metadata: &Metadata) -> Result<(), MetadataError> {
    for (name, count) in [
        ("group", metadata.groups.len()),
        ("session", metadata.sessions.len()),
        ("participant", metadata.participants.len()),
        ("stream", metadata.streams.len()),
        ("sessionrecordingassoc", metadata.session_recordings.len()),
        (
            "participantsessionassoc",
            metadata.participant_sessions.len(),
        ),
        ("participantstreamassoc", metadata.participant_streams.len()),
    ] {
        if count > ENTITIES_MAX {
            return Err(MetadataError::TooMany(name));
        }
    }
    Ok(())
}

/// The schema's order of the root's children.
const ORDER: [&str; 8] = [
    "datamode",
    "group",
    "session",
    "participant",
    "stream",
    "sessionrecordingassoc",
    "participantsessionassoc",
    "participantstreamassoc",
];

struct MetadataReader {
    metadata: Metadata,
    deviations: Vec<String>,
}

impl MetadataReader {
    fn deviate(&mut self, what: impl Into<String>) {
        if self.deviations.len() < 64 {
            self.deviations.push(what.into());
        }
    }

    fn root(&mut self, root: &Element, dialect: Dialect) {
        if dialect != Dialect::Rfc7865 {
            self.deviate(format!("the {dialect:?} form of the document"));
        }
        match root
            .attributes
            .iter()
            .find(|(_, value)| value.starts_with("urn:ietf:params:xml:ns:recording"))
        {
            Some((_, namespace)) if namespace == NAMESPACE => {}
            Some((_, namespace)) => self.deviate(format!("the namespace {namespace}")),
            None => self.deviate("no namespace of recording metadata"),
        }
        let mut furthest = 0;
        for child in &root.children {
            let place = ORDER.iter().position(|name| child.is(name));
            match place {
                Some(place) if place < furthest => {
                    self.deviate(format!("<{}> out of order", child.name));
                }
                Some(place) => furthest = place,
                None => furthest = ORDER.len(),
            }
            self.root_child(child, place);
        }
    }

    fn root_child(&mut self, child: &Element, place: Option<usize>) {
        match place.map(|place| ORDER[place]) {
            Some("datamode") => self.mode(child),
            Some("group") => self.group(child),
            Some("session") => self.session(child),
            Some("participant") => self.participant(child),
            Some("stream") => self.stream(child),
            Some("sessionrecordingassoc") => self.session_recording(child),
            Some("participantsessionassoc") => self.participant_session(child),
            Some("participantstreamassoc") => self.participant_streams(child),
            _ => self.metadata.extensions.push(extension(child)),
        }
    }

    fn mode(&mut self, element: &Element) {
        if element.name != "datamode" {
            self.deviate(format!("<{}> for <datamode>", element.name));
        }
        match element.trimmed() {
            Some(word) if word.eq_ignore_ascii_case("partial") => {
                self.metadata.mode = DataMode::Partial;
            }
            Some(word) if word.eq_ignore_ascii_case("complete") => {}
            other => self.deviate(format!("the datamode {:?}", other.unwrap_or_default())),
        }
    }

    /// The id of an element, by the first of the names it is written under.
    fn id(&mut self, element: &Element, names: &[&'static str]) -> Option<Id> {
        for (place, name) in names.iter().enumerate() {
            if let Some(id) = element.attribute(name).and_then(Id::read) {
                if place > 0 {
                    self.deviate(format!("{name} of <{}>, for {}", element.name, names[0]));
                } else if id.uuid().is_none() || id.as_str().len() != 24 {
                    self.deviate(format!("{name} {id} is no base64 of a UUID"));
                }
                return Some(id);
            }
        }
        self.deviate(format!("<{}> without {}", element.name, names[0]));
        None
    }

    fn times(&mut self, element: &Element) -> Association {
        Association {
            from: self.time(element, "associate-time"),
            until: self.time(element, "disassociate-time"),
        }
    }

    fn time(&mut self, element: &Element, name: &str) -> Option<String> {
        let text = element.child(name)?.trimmed()?;
        if !is_rfc3339_utc_or_offset(text) {
            self.deviate(format!("the {name} {text:?} is no RFC 3339 moment"));
        }
        Some(text.to_owned())
    }

    fn group(&mut self, element: &Element) {
        let Some(id) = self.id(element, &["group_id", "id"]) else {
            return;
        };
        let times = self.times(element);
        self.metadata.groups.push(Group {
            id,
            times,
            extensions: extensions(element, &TIMES),
        });
    }

    fn session(&mut self, element: &Element) {
        let Some(id) = self.id(element, &["session_id", "id"]) else {
            return;
        };
        let (started, stopped) = (
            self.time(element, "start-time"),
            self.time(element, "stop-time"),
        );
        let texts =
            |name: &'static str| element.children.iter().filter(move |child| child.is(name));
        let session = Session {
            sip_session_ids: texts("sipSessionID")
                .filter_map(|one| one.trimmed().map(str::to_owned))
                .collect(),
            reasons: texts("reason")
                .map(|one| Reason {
                    text: one.trimmed().unwrap_or_default().to_owned(),
                    protocol: one.attribute("protocol").map(str::to_owned),
                    cause: one.attribute("cause").map(str::to_owned),
                })
                .collect(),
            group: element
                .child("group-ref")
                .or_else(|| element.child("group"))
                .and_then(|one| Id::read(&one.text)),
            // The drafts put the session's times into associate-time.
            started: started.or_else(|| self.time(element, "associate-time")),
            stopped: stopped.or_else(|| self.time(element, "disassociate-time")),
            extensions: extensions(
                element,
                &[
                    "sipSessionID",
                    "reason",
                    "group-ref",
                    "group",
                    "start-time",
                    "stop-time",
                    "associate-time",
                    "disassociate-time",
                ],
            ),
            id,
        };
        self.metadata.sessions.push(session);
    }

    fn participant(&mut self, element: &Element) {
        let Some(id) = self.id(element, &["participant_id", "id"]) else {
            return;
        };
        let names: Vec<NameId> = names(element);
        if names.is_empty() {
            self.deviate(format!("participant {id} without a nameID"));
        }
        self.embedded(element, &id);
        self.metadata.participants.push(Participant {
            id,
            names,
            extensions: extensions(
                element,
                &[
                    "nameID",
                    "aor",
                    "name",
                    "send",
                    "recv",
                    "associate-time",
                    "disassociate-time",
                ],
            ),
        });
    }

    /// Associations that the drafts keep inside the participant.
    fn embedded(&mut self, element: &Element, participant: &Id) {
        let times = self.times(element);
        if let Some(session) = element
            .attribute("session")
            .or_else(|| element.attribute("session_id"))
            .and_then(Id::read)
        {
            self.metadata.participant_sessions.push(ParticipantSession {
                participant: participant.clone(),
                session,
                times: times.clone(),
                params: Vec::new(),
                extensions: Vec::new(),
            });
        }
        let (send, recv) = (ids(element, "send"), ids(element, "recv"));
        if !send.is_empty() || !recv.is_empty() {
            self.metadata.participant_streams.push(ParticipantStreams {
                participant: participant.clone(),
                send,
                recv,
                times,
                extensions: Vec::new(),
            });
        }
    }

    fn stream(&mut self, element: &Element) {
        let label = element
            .child("label")
            .and_then(Element::trimmed)
            .map(str::to_owned);
        // A stream that has only a label is known by it: some senders leave the id empty.
        let id = match self.id(element, &["stream_id", "id"]) {
            Some(id) => id,
            None => match label.as_deref().and_then(Id::read) {
                Some(id) => id,
                None => return,
            },
        };
        self.metadata.streams.push(Stream {
            id,
            session: element
                .attribute("session_id")
                .or_else(|| element.attribute("session"))
                .and_then(Id::read),
            label,
            extensions: extensions(
                element,
                &["label", "mode", "associate-time", "disassociate-time"],
            ),
        });
    }

    fn session_recording(&mut self, element: &Element) {
        let Some(session) = self.id(element, &["session_id", "session"]) else {
            return;
        };
        let times = self.times(element);
        self.metadata.session_recordings.push(SessionRecording {
            session,
            times,
            extensions: extensions(element, &TIMES),
        });
    }

    fn participant_session(&mut self, element: &Element) {
        let participant = self.id(element, &["participant_id", "participant"]);
        let session = self.id(element, &["session_id", "session"]);
        let (Some(participant), Some(session)) = (participant, session) else {
            return;
        };
        let times = self.times(element);
        let params = element
            .children
            .iter()
            .filter(|child| child.is("param"))
            .filter_map(|param| {
                Some((
                    param.attribute("pname")?.to_owned(),
                    param.attribute("pval")?.to_owned(),
                ))
            })
            .collect();
        self.metadata.participant_sessions.push(ParticipantSession {
            participant,
            session,
            times,
            params,
            extensions: extensions(element, &["associate-time", "disassociate-time", "param"]),
        });
    }

    fn participant_streams(&mut self, element: &Element) {
        let Some(participant) = self.id(element, &["participant_id", "participant"]) else {
            return;
        };
        let times = self.times(element);
        self.metadata.participant_streams.push(ParticipantStreams {
            participant,
            send: ids(element, "send"),
            recv: ids(element, "recv"),
            times,
            extensions: extensions(
                element,
                &["send", "recv", "associate-time", "disassociate-time"],
            ),
        });
    }
}

const TIMES: [&str; 2] = ["associate-time", "disassociate-time"];

fn ids(element: &Element, name: &str) -> Vec<Id> {
    element
        .children
        .iter()
        .filter(|child| child.is(name))
        .filter_map(|child| Id::read(&child.text))
        .collect()
}

/// The names of a participant: `<nameID aor>`, or `<aor>` and `<name>` of the drafts beside or in it.
fn names(element: &Element) -> Vec<NameId> {
    let of = |holder: &Element| {
        let aor = holder
            .attribute("aor")
            .map(str::trim)
            .filter(|aor| !aor.is_empty())
            .or_else(|| holder.child("aor").and_then(Element::trimmed));
        let name = holder.child("name");
        NameId {
            aor: aor.unwrap_or_default().to_owned(),
            name: name.and_then(Element::trimmed).map(str::to_owned),
            language: name
                .and_then(|name| name.attribute("lang"))
                .map(str::to_owned),
        }
    };
    let mut found: Vec<NameId> = element
        .children
        .iter()
        .filter(|child| child.is("nameID"))
        .map(of)
        .collect();
    if found.is_empty() {
        found.push(of(element));
    }
    found.retain(|name| !name.aor.is_empty() || name.name.is_some());
    found
}

fn extension(element: &Element) -> Extension {
    Extension {
        name: element.name.clone(),
        xml: element.source.clone(),
        text: element.deep_text(),
    }
}

fn extensions(element: &Element, known: &[&str]) -> Vec<Extension> {
    element
        .children
        .iter()
        .filter(|child| !known.iter().any(|name| child.is(name)))
        .map(extension)
        .collect()
}

/// Whether a text has RFC 3339's shape with upper-case T and a zone, as RFC 7865 section 8.7 wants it.
fn is_rfc3339_utc_or_offset(text: &str) -> bool {
    let shape = |part: &str, pattern: &str| {
        part.len() == pattern.len()
            && part
                .bytes()
                .zip(pattern.bytes())
                .all(|(byte, wanted)| match wanted {
                    b'0' => byte.is_ascii_digit(),
                    _ => byte == wanted,
                })
    };
    let Some((date, time)) = text.split_once('T') else {
        return false;
    };
    let Some(zone) = time.find(['Z', '+', '-']) else {
        return false;
    };
    let (clock, zone) = time.split_at(zone);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    shape(date, "0000-00-00")
        && shape(clock, "00:00:00")
        && !fraction.is_empty()
        && fraction.bytes().all(|byte| byte.is_ascii_digit())
        && (zone == "Z" || shape(&zone[1..], "00:00"))
}
