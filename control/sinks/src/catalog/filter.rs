//! What lists are narrowed by, and how they are cut into pages.

use crate::Timestamp;
use crate::cdr::Cdr;
use crate::object::{Call, CallState, Recording, RecordingState};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Narrows a list of recordings; `None` and empty = any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordingFilter {
    /// `started_at` not before.
    pub from: Option<Timestamp>,
    /// `started_at` not after.
    pub to: Option<Timestamp>,
    /// Prefix of a participant's user part.
    pub party: Option<String>,
    /// Call-ID of any leg, or Session-ID.
    pub call_id: Option<String>,
    /// Attributes, all of them.
    pub attributes: BTreeMap<String, String>,
    /// Tenant.
    pub tenant: Option<String>,
    /// State.
    pub state: Option<RecordingState>,
}

/// Narrows a list of calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallFilter {
    /// States; empty = any.
    pub states: Vec<CallState>,
}

/// A place in a list that is ordered newest first: what follows is older than this item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// `started_at` of the item.
    pub started_at: Timestamp,
    /// Its id.
    pub id: String,
}

/// A text that is no cursor of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of this list")]
pub struct NotACursor;

impl fmt::Display for Cursor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.started_at.0, self.id)
    }
}

impl FromStr for Cursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let (ms, id) = text.split_once('.').ok_or(NotACursor)?;
        let started_at = Timestamp(ms.parse().map_err(|_| NotACursor)?);
        uuid::Uuid::try_parse(id).map_err(|_| NotACursor)?;
        Ok(Self {
            started_at,
            id: id.to_owned(),
        })
    }
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// Items, newest first.
    pub items: Vec<T>,
    /// Where the next page begins; `None` = this was the last.
    pub next: Option<Cursor>,
}

/// An item of a list.
pub trait Listed {
    /// Its place.
    fn cursor(&self) -> Cursor;
}

impl Listed for Call {
    fn cursor(&self) -> Cursor {
        Cursor {
            started_at: self.started_at,
            id: self.id.clone(),
        }
    }
}

impl Listed for Recording {
    fn cursor(&self) -> Cursor {
        Cursor {
            started_at: self.started_at,
            id: self.id.clone(),
        }
    }
}

impl Listed for Cdr {
    fn cursor(&self) -> Cursor {
        Cursor {
            started_at: self.invited_at,
            id: self.id.clone(),
        }
    }
}

impl Cursor {
    fn key(&self) -> (Timestamp, &str) {
        (self.started_at, &self.id)
    }

    /// Whether an item at `other` comes on a later page.
    #[must_use]
    pub fn precedes(&self, other: &Self) -> bool {
        other.key() < self.key()
    }
}

impl<T: Listed> Page<T> {
    /// Cuts candidates into a page. They are complete down to at least `limit` items; `more` says
    /// that there are others beyond them.
    pub(super) fn cut(mut items: Vec<T>, limit: usize, more: bool) -> Self {
        items.sort_by(|left, right| right.cursor().key().cmp(&left.cursor().key()));
        let more = more || items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(Listed::cursor);
        Self { items, next }
    }
}

impl Page<Call> {
    /// Cuts calls that are all in memory into the page after a cursor.
    #[must_use]
    pub fn of_calls(calls: Vec<Call>, after: Option<&Cursor>, limit: usize) -> Self {
        let later = |call: &Call| is_after(after, call);
        Self::cut(calls.into_iter().filter(later).collect(), limit, false)
    }
}

/// Whether an item lies on the pages after a cursor.
pub(super) fn is_after(cursor: Option<&Cursor>, item: &impl Listed) -> bool {
    cursor.is_none_or(|cursor| cursor.precedes(&item.cursor()))
}

impl CallFilter {
    pub(super) fn matches(&self, call: &Call) -> bool {
        self.states.is_empty() || self.states.contains(&call.state)
    }
}

impl RecordingFilter {
    /// The same judgement as the catalog's query, for recordings that are not stored yet.
    pub(super) fn matches(&self, recording: &Recording) -> bool {
        self.from.is_none_or(|from| recording.started_at >= from)
            && self.to.is_none_or(|to| recording.started_at <= to)
            && self.state.is_none_or(|state| recording.state == state)
            && self
                .tenant
                .as_ref()
                .is_none_or(|tenant| recording.tenant.as_ref() == Some(tenant))
            && self.party.as_ref().is_none_or(|prefix| {
                party_users(recording)
                    .iter()
                    .any(|user| user.starts_with(prefix))
            })
            && self
                .call_id
                .as_ref()
                .is_none_or(|wanted| call_ids(recording).any(|id| id == wanted))
            && self.attributes.iter().all(|(name, value)| {
                recording
                    .attributes
                    .get(name)
                    .is_some_and(|found| found == value)
            })
    }
}

/// User parts of the parties: of a SIP URI what stands before the @, of a tel: URI the number.
pub(super) fn party_users(recording: &Recording) -> Vec<String> {
    let users = recording
        .participants
        .iter()
        .filter_map(|participant| user_of(&participant.uri));
    let mut users: Vec<String> = users.collect();
    users.sort_unstable();
    users.dedup();
    users
}

/// The user part of a SIP URI, or the number of a tel: URI.
pub(crate) fn user_of(uri: &str) -> Option<String> {
    let uri = uri.trim().trim_start_matches('<').trim_end_matches('>');
    let (scheme, rest) = uri.split_once(':')?;
    let user = match scheme.to_ascii_lowercase().as_str() {
        "sip" | "sips" => rest.rsplit_once('@')?.0,
        "tel" => rest,
        _ => return None,
    };
    let user = user.split([';', ':']).next().unwrap_or_default();
    (!user.is_empty()).then(|| user.replace("%2B", "+").replace("%2b", "+"))
}

pub(super) fn call_ids(recording: &Recording) -> impl Iterator<Item = &String> {
    recording.sip_call_ids.iter().chain(&recording.session_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_survive_their_text_and_others_are_refused() {
        let cursor = Cursor {
            started_at: Timestamp(-5),
            id: crate::object::new_id(),
        };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for text in [
            "",
            "5",
            ".",
            "5.x",
            "x.0193e000-0000-7000-8000-000000000000",
            "5.",
        ] {
            assert_eq!(text.parse::<Cursor>(), Err(NotACursor), "{text}");
        }
    }

    #[test]
    fn users_come_from_every_kind_of_uri() {
        for (uri, user) in [
            ("sip:alice@example.com", Some("alice")),
            ("<sips:%2B4930;npdi@example.com;user=phone>", Some("+4930")),
            ("sip:alice:secret@example.com", Some("alice")),
            ("tel:+49301234;phone-context=x", Some("+49301234")),
            ("sip:example.com", None),
            ("urn:service:sos", None),
            ("", None),
        ] {
            assert_eq!(user_of(uri).as_deref(), user, "{uri}");
        }
    }
}
