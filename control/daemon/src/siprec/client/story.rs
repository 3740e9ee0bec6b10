//! What the recorder of one recording session is told of the call.

use serde::{Deserialize, Serialize};
use trunkline_config::RecorderSettings as Settings;
use trunkline_link::message::Side;
use trunkline_sinks::Timestamp;
use trunkline_sip::message::NameAddr;
use trunkline_siprec::Id;
use trunkline_siprec::describe::{Description, Media};
use trunkline_siprec::metadata::{Metadata, NAMESPACE, NameId, Reason, Strictness, read};
use uuid::Uuid;

use super::sdp::{Line, label};
use super::view::{CallView, Stage};

/// What an id made from a call's stands for.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Party = 1,
    Stream = 2,
}

/// An id that follows from the call's: the same in every recording session of it, also after a failover
/// or a restart.
fn derived(call: Uuid, kind: Kind, index: usize) -> Uuid {
    let mut bytes = *call.as_bytes();
    bytes[14] ^= kind as u8;
    bytes[15] ^= u8::try_from(index).unwrap_or(u8::MAX);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// A call's communication session id in metadata.
pub fn session_id(call: &str) -> Id {
    Id::from_uuid(call_uuid(call))
}

fn call_uuid(call: &str) -> Uuid {
    Uuid::parse_str(call).unwrap_or_default()
}

/// A party as the recorder knows it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Told {
    joined: bool,
    left: bool,
    names: Vec<NameId>,
    /// m-lines that carry what it says.
    lines: Vec<usize>,
}

/// The course of a call as told to one recorder.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Story {
    call: Uuid,
    description: Description,
    parties: Vec<Told>,
    over: bool,
}

impl Story {
    /// Of a call that is recorded from `at` on. The second value says what of the settings is left out
    /// because it is no XML element.
    pub fn new(view: &CallView, settings: &Settings, at: Timestamp) -> (Self, Option<String>) {
        let call = call_uuid(&view.id);
        let group = settings.group.as_deref().and_then(Id::read);
        let (started, at) = (view.started_at.to_string(), at.to_string());
        let mut description = Description::new(group, call, &started, &at);
        description.set_sip_session_ids(view.session_id.clone().into_iter().collect());
        let refused = description
            .add_extensions(
                settings.group_extension.as_deref(),
                settings.session_extension.as_deref(),
            )
            .err();
        let story = Self {
            call,
            description,
            parties: Vec::new(),
            over: false,
        };
        (story, refused.map(|error| error.to_string()))
    }

    /// Takes in how the call is now.
    pub fn update(&mut self, view: &CallView, lines: &[Line], settings: &Settings) {
        let flows = view.stage >= Stage::Early;
        self.parties.resize_with(view.parties.len(), Told::default);
        for (index, party) in view.parties.iter().enumerate() {
            let id = derived(self.call, Kind::Party, index);
            self.introduce(index, party.side, lines, party.from);
            let told = &mut self.parties[index];
            if !told.joined {
                continue;
            }
            let given = match index {
                0 => settings.caller.as_deref(),
                1 => settings.callee.as_deref(),
                _ => None,
            };
            let names = given.and_then(names_of).unwrap_or_else(|| {
                vec![NameId {
                    aor: party.uri.clone(),
                    name: party.name.clone(),
                    language: None,
                }]
            });
            if told.names != names {
                self.description.rename(id, names.clone());
                told.names = names;
            }
            let sent = view.streams.iter().find(|one| one.side == party.side);
            let agreed = sent.map_or(Media::BOTH, |stream| stream.direction);
            let media = Media {
                sends: flows && agreed.sends,
                receives: flows && agreed.receives,
            };
            self.description.set_media(id, media);
            if let (Some(to), false) = (party.to, told.left) {
                told.left = true;
                self.description.leave(id, &to.to_string());
            }
        }
        if let (Some(ended), false) = (view.ended_at, self.over) {
            self.over = true;
            let reason = view.reason.as_ref().map(|(text, cause)| Reason {
                text: text.clone(),
                protocol: Some("SIP".to_owned()),
                cause: Some(cause.to_string()),
            });
            self.description.stop(&ended.to_string(), reason);
        }
    }

    /// A party joins with the m-lines of its side, or gets another m-line.
    fn introduce(&mut self, index: usize, side: Side, lines: &[Line], from: Timestamp) {
        let id = derived(self.call, Kind::Party, index);
        for (line, at) in lines
            .iter()
            .enumerate()
            .filter(|(_, one)| one.side() == side)
        {
            let told = &mut self.parties[index];
            if told.lines.contains(&line) {
                continue;
            }
            told.lines.push(line);
            let stream = derived(self.call, Kind::Stream, line);
            if told.joined {
                self.description.add_stream(id, stream, &label(at.place));
            } else {
                told.joined = true;
                let from = from.to_string();
                self.description
                    .join(id, Vec::new(), stream, &label(at.place), &from);
            }
        }
    }

    /// The session is recorded again, by another recording session, after a gap.
    pub fn resume(&mut self, at: Timestamp) {
        self.description.resume_session(&at.to_string());
    }

    /// What is recorded is the time between these two.
    pub fn recorded(&mut self, from: Timestamp, to: Timestamp) {
        self.description.resume_session(&from.to_string());
        self.description.suspend_session(&to.to_string());
    }

    /// The session is recorded no more, though it goes on.
    pub fn suspend(&mut self, at: Timestamp) {
        self.description.suspend_session(&at.to_string());
    }

    /// Everything.
    pub fn complete(&self) -> Metadata {
        self.description.complete()
    }

    /// What the recorder does not know yet.
    pub fn news(&self) -> Option<Metadata> {
        self.description.partial()
    }

    /// The recorder has taken a document.
    pub fn accepted(&mut self, document: &Metadata) {
        self.description.accepted(document);
    }

    /// The address of whoever is heard on an m-line now.
    pub fn speaker(&self, line: usize) -> Option<String> {
        let here = |told: &&Told| !told.left && told.lines.contains(&line);
        let told = self.parties.iter().rfind(here)?;
        told.names.first().map(|name| name.aor.clone())
    }
}

/// Who somebody is, from a name-addr or from XML `<nameID>` elements; `None` where it is neither.
fn names_of(text: &str) -> Option<Vec<NameId>> {
    if !text.trim_start().starts_with("<nameID") {
        let address = NameAddr::parse(text, "caller").ok()?;
        return Some(vec![NameId {
            aor: address.uri.to_string(),
            name: address.display,
            language: None,
        }]);
    }
    let document = format!(
        "<recording xmlns=\"{NAMESPACE}\"><participant participant_id=\"a\">{text}</participant></recording>"
    );
    let reading = read(document.as_bytes(), Strictness::Tolerant).ok()?;
    let names = reading.metadata.participants.into_iter().next()?.names;
    (!names.is_empty()).then_some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_party_may_be_named_by_address_or_by_xml() {
        let by_address = names_of("\"A & B\" <sip:a@example.com>").unwrap();
        let xml = "<nameID aor=\"sip:a@example.com\"><name>A &amp; B</name></nameID>";
        assert_eq!(names_of(xml), Some(by_address));
        assert_eq!(names_of("<nameID"), None);
        assert_eq!(names_of("nobody"), None);
    }

    #[test]
    fn ids_follow_from_the_call() {
        let call = Uuid::from_u128(0x0191_f2d4_7d1c_7abc_8def_0123_4567_89ab);
        let ids = [
            derived(call, Kind::Party, 0),
            derived(call, Kind::Party, 1),
            derived(call, Kind::Stream, 0),
            derived(call, Kind::Stream, 1),
            call,
        ];
        let distinct: std::collections::BTreeSet<Uuid> = ids.into_iter().collect();
        assert_eq!(distinct.len(), ids.len());
        assert_eq!(derived(call, Kind::Party, 1), ids[1]);
    }
}
