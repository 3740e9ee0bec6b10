//! Who is heard on the m-lines of a recording session, as its metadata tells it over time.

use serde::{Deserialize, Serialize};
use trunkline_sinks::Timestamp;
use trunkline_sinks::object::{self, Role};
use trunkline_siprec::Id;
use trunkline_siprec::binding::{Bound, Rule};
use trunkline_siprec::metadata::Metadata;
use trunkline_sn3::facts::ParticipantFact;

use super::lines::Lines;

/// Parties of one recording session that are told apart; more are not taken note of.
const PARTIES_MAX: usize = 256;
/// Characters of an address or a name that are kept.
const TEXT_CHARS_MAX: usize = 256;

/// Somebody who is or was heard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Party {
    /// Its id in the metadata; `None` where only headers tell of it.
    pub id: Option<Id>,
    /// SIP URI, or whatever the sender calls it by.
    pub uri: String,
    /// Display name.
    pub name: String,
    /// Role in the recording.
    pub role: Role,
    /// The m-line, from 0.
    pub line: usize,
    /// The channel of the WAV.
    pub channel: u8,
    /// By which rule it was found on that line; `None` = by headers.
    pub rule: Option<Rule>,
    /// Joined.
    pub from: Timestamp,
    /// Left; `None` = still there.
    pub to: Option<Timestamp>,
}

/// An address and a name from a header, for senders without metadata.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// URI.
    pub uri: String,
    /// Display name.
    pub name: String,
}

/// All of them, in the order of joining.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parties {
    all: Vec<Party>,
}

impl Parties {
    /// Everybody so far.
    #[must_use]
    pub fn all(&self) -> &[Party] {
        &self.all
    }

    /// Who is there and not gone.
    pub fn present(&self) -> impl Iterator<Item = &Party> {
        self.all.iter().filter(|party| party.to.is_none())
    }

    /// All participants of a document, whatever they are heard on.
    #[must_use]
    pub fn named(metadata: &Metadata, now: Timestamp) -> Self {
        let all = metadata.participants.iter().take(PARTIES_MAX);
        let party = |participant: &trunkline_siprec::metadata::Participant| {
            let name = participant.names.first().cloned().unwrap_or_default();
            Party {
                id: Some(participant.id.clone()),
                uri: cut(&name.aor),
                name: cut(name.name.as_deref().unwrap_or_default()),
                role: Role::Caller,
                line: 0,
                channel: 0,
                rule: None,
                from: now,
                to: None,
            }
        };
        Self {
            all: all.map(party).collect(),
        }
    }

    /// Everybody leaves.
    pub fn leave(&mut self, now: Timestamp) {
        for party in &mut self.all {
            party.to.get_or_insert(now);
        }
    }

    /// The channel of a participant that is known already.
    #[must_use]
    pub fn channel_of(&self, id: &Id) -> Option<u8> {
        let known = self
            .all
            .iter()
            .find(|party| party.id.as_ref() == Some(id))?;
        Some(known.channel)
    }

    /// Those of several sessions of one call, each named once for the time from its first joining to its last
    /// leaving.
    #[must_use]
    pub fn union<'a>(sessions: impl Iterator<Item = &'a Self>) -> Self {
        let mut all: Vec<Party> = Vec::new();
        for session in sessions {
            let before = all.len();
            for party in &session.all {
                let same = |known: &Party| {
                    let named = match (&known.id, &party.id) {
                        (Some(known), Some(id)) => known == id,
                        _ => known.uri == party.uri,
                    };
                    named && known.channel == party.channel
                };
                match all[..before].iter().rposition(same) {
                    Some(index) => {
                        let known = &mut all[index];
                        known.from = known.from.min(party.from);
                        known.to = known.to.zip(party.to).map(|(one, other)| one.max(other));
                    }
                    None if all.len() < PARTIES_MAX => all.push(party.clone()),
                    None => {}
                }
            }
        }
        Self { all }
    }

    /// Takes in who is heard by the metadata as of now. True when something changed.
    pub fn follow(
        &mut self,
        metadata: &Metadata,
        bound: &[Bound],
        lines: &Lines,
        now: Timestamp,
    ) -> bool {
        let mut heard = Vec::new();
        for one in bound {
            let Some(place) = lines.place(one.line) else {
                continue;
            };
            for id in &one.participants {
                let Some(participant) = metadata.participant(id) else {
                    continue;
                };
                let name = participant.names.first().cloned().unwrap_or_default();
                heard.push(Party {
                    id: Some(id.clone()),
                    uri: cut(&name.aor),
                    name: cut(name.name.as_deref().unwrap_or_default()),
                    role: Role::Caller,
                    line: one.line,
                    channel: place.channel(),
                    rule: one.rule,
                    from: now,
                    to: None,
                });
            }
        }
        heard.sort_by_key(|party| (party.channel, party.line));
        self.turn_into(heard, now)
    }

    /// Takes in who is heard by headers alone: the n-th name on the n-th captured line.
    pub fn name_lines(&mut self, named: &[Named], lines: &Lines, now: Timestamp) -> bool {
        let captured = (0..).take(lines.labels().len()).filter_map(|line| {
            let place = lines.place(line)?;
            Some((line, place))
        });
        let heard = captured.enumerate().map(|(index, (line, place))| {
            let named = named.get(index).cloned().unwrap_or_default();
            Party {
                id: None,
                uri: cut(&named.uri),
                name: cut(&named.name),
                role: Role::Caller,
                line,
                channel: place.channel(),
                rule: None,
                from: now,
                to: None,
            }
        });
        self.turn_into(heard.collect(), now)
    }

    /// Those in `heard` are there, the others have left.
    fn turn_into(&mut self, heard: Vec<Party>, now: Timestamp) -> bool {
        let before = self.all.clone();
        let had_ids = self.present().any(|party| party.id.is_some());
        let known_by_id = heard.iter().any(|party| party.id.is_some());
        if had_ids && !known_by_id {
            // A document that names nobody is no news of anybody's leaving a line that goes on.
            return false;
        }
        if !had_ids && known_by_id {
            // Headers told of them before: the metadata knows better, from the start.
            let from = self.present().map(|party| party.from).min();
            self.all.retain(|party| party.to.is_some());
            for mut party in heard {
                party.from = from.unwrap_or(now);
                self.join(party);
            }
            return self.all != before;
        }
        let same = |one: &Party, other: &Party| one.id == other.id && one.line == other.line;
        for party in &mut self.all {
            if party.to.is_none() && !heard.iter().any(|one| same(one, party)) {
                party.to = Some(now);
            }
        }
        for party in heard {
            let known = self
                .all
                .iter_mut()
                .find(|one| one.to.is_none() && same(one, &party));
            match known {
                // The real name comes later where a dummy had to do at first.
                Some(known) => {
                    (known.uri, known.name) = (party.uri, party.name);
                    (known.rule, known.channel) = (party.rule, party.channel);
                }
                None => self.join(party),
            }
        }
        self.all != before
    }

    fn join(&mut self, mut party: Party) {
        if self.all.len() >= PARTIES_MAX {
            return;
        }
        let first_of_channel = !self.all.iter().any(|one| one.channel == party.channel);
        party.role = match (first_of_channel, party.channel) {
            (true, 0) => Role::Caller,
            (true, _) => Role::Callee,
            // Somebody else took the place of one who was there.
            (false, _) if self.all.iter().any(|one| one.line == party.line) => Role::Transfer,
            (false, _) => Role::Callee,
        };
        self.all.push(party);
    }

    /// As participants of a recording that started at this moment.
    #[must_use]
    pub fn shown(&self, started_at: Timestamp) -> Vec<object::Participant> {
        let heard = |party: &&Party| party.to.is_none_or(|left| left.0 > started_at.0);
        self.all
            .iter()
            .filter(heard)
            .map(|party| object::Participant {
                role: party.role,
                uri: party.uri.clone(),
                name: party.name.clone(),
                from_ms: party.from.ms_since(started_at),
                to_ms: party.to.map(|left| left.ms_since(started_at)),
                channel: party.channel,
            })
            .collect()
    }

    /// For the recording's facts; `ended` = when all of it ended.
    #[must_use]
    pub fn facts(&self, ended: Option<Timestamp>) -> Vec<ParticipantFact> {
        let text = |at: Timestamp| at.to_string();
        self.all
            .iter()
            .map(|party| ParticipantFact {
                role: party.role.name().to_owned(),
                uri: party.uri.clone(),
                name: party.name.clone(),
                channel: party.channel,
                from: text(party.from),
                to: party.to.or(ended).map(text).unwrap_or_default(),
            })
            .collect()
    }
}

fn cut(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(TEXT_CHARS_MAX)
        .collect()
}

/// The m-lines whose participants come first: in the order in which the participants are written.
#[must_use]
pub fn in_order_of_participants(metadata: &Metadata, bound: &[Bound]) -> Vec<usize> {
    let rank = |one: &Bound| {
        let first = one.participants.first()?;
        metadata
            .participants
            .iter()
            .position(|participant| participant.id == *first)
    };
    let mut ranked: Vec<(usize, usize)> = bound
        .iter()
        .filter_map(|one| Some((rank(one)?, one.line)))
        .collect();
    ranked.sort_unstable();
    ranked.into_iter().map(|(_, line)| line).collect()
}
