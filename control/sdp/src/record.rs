//! What descriptions say of recording (RFC 7866 section 7): `a=record`, by which who records tells the
//! others, and `a=recordpref`, by which a party says what it wishes.

use serde::{Deserialize, Serialize};

use crate::attribute::Attribute;
use crate::description::{Description, Media};
use crate::write::OriginState;

/// `a=record`: whether the session is being recorded. Mind the word: `paused` here, `pause` there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordState {
    /// No recording is in progress.
    Off,
    /// A recording is in progress, and rests.
    Paused,
    /// A recording is in progress.
    On,
}

/// `a=recordpref`: what a party wishes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordPreference {
    /// None: also what an absent attribute means.
    #[default]
    NoPreference,
    /// To be recorded.
    On,
    /// That a recording in progress rests.
    Pause,
    /// Not to be recorded.
    Off,
}

impl RecordState {
    /// The attribute's value.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Paused => "paused",
        }
    }

    /// What two who may record say together: it is recorded if either records.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        [Self::On, Self::Paused]
            .into_iter()
            .find(|state| self == *state || other == *state)
            .unwrap_or(Self::Off)
    }

    fn from_value(value: &str) -> Option<Self> {
        [Self::On, Self::Off, Self::Paused]
            .into_iter()
            .find(|state| value.eq_ignore_ascii_case(state.name()))
    }
}

impl RecordPreference {
    /// The attribute's value.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Pause => "pause",
            Self::NoPreference => "nopreference",
        }
    }

    /// What two wishes come to: who wishes less outweighs who wishes more, and who has none counts for
    /// nothing.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        [Self::Off, Self::Pause, Self::On]
            .into_iter()
            .find(|wish| self == *wish || other == *wish)
            .unwrap_or(Self::NoPreference)
    }

    fn from_value(value: &str) -> Option<Self> {
        [Self::On, Self::Off, Self::Pause, Self::NoPreference]
            .into_iter()
            .find(|wish| value.eq_ignore_ascii_case(wish.name()))
    }
}

impl Description {
    /// Whether this side says that it records: `None` where it says nothing of it. A line's own value
    /// counts before the session's; one line that is recorded is enough.
    #[must_use]
    pub fn record_state(&self) -> Option<RecordState> {
        let of_lines = self.said("record", RecordState::from_value);
        of_lines.into_iter().reduce(RecordState::or)
    }

    /// What this side wishes. We record a call as a whole: of lines that wish different things the one
    /// that wishes least counts.
    #[must_use]
    pub fn record_preference(&self) -> RecordPreference {
        let of_lines = self.said("recordpref", RecordPreference::from_value);
        of_lines
            .into_iter()
            .fold(RecordPreference::NoPreference, RecordPreference::with)
    }

    /// What an attribute says of each line that is in use; values that are none count as absent.
    fn said<T: Copy>(&self, name: &str, read: impl Fn(&str) -> Option<T>) -> Vec<T> {
        let find = |attributes: &[Attribute]| {
            let values = attributes.iter().filter(|one| one.is(name));
            let mut values = values.filter_map(|one| read(one.value.as_deref()?));
            values.next()
        };
        let session = find(&self.attributes);
        let used = self.media.iter().filter(|media| media.port != 0);
        let own = |media: &Media| find(&media.attributes).or(session);
        used.filter_map(own).collect()
    }
}

/// The body of a description of ours (all after `o=`) with `a=record` at the end of each audio and video
/// line in use, instead of what stood there; without any when there is nothing to be told.
pub(crate) fn mark(body: &str, state: Option<RecordState>) -> String {
    let mut marked = String::with_capacity(body.len() + 32);
    let mut due = None;
    for line in body.split_inclusive('\n') {
        if line.starts_with("m=") {
            marked.extend(due.take());
            due = state.filter(|_| is_recorded_line(line)).map(attribute);
        }
        if !line.starts_with("a=record:") {
            marked.push_str(line);
        }
    }
    marked.extend(due);
    marked
}

fn attribute(state: RecordState) -> String {
    format!("a=record:{}\r\n", state.name())
}

/// `m=audio 4000 ...`: sound or pictures, and a port.
fn is_recorded_line(line: &str) -> bool {
    let mut parts = line.trim_start_matches("m=").split_whitespace();
    let (kind, port) = (parts.next(), parts.next());
    matches!(kind, Some("audio" | "video")) && port.is_some_and(|port| port != "0")
}

/// What a description of ours told of recording.
#[must_use]
pub fn told(text: &str) -> Option<RecordState> {
    let value = text
        .lines()
        .find_map(|line| line.trim_end().strip_prefix("a=record:"))?;
    RecordState::from_value(value)
}

/// A description of ours that tells something else of recording than it did, the rest of it as it was;
/// its version rises when that is so.
#[must_use]
pub fn retell(text: &str, state: Option<RecordState>, origin: &mut OriginState) -> String {
    let mut lines = text.splitn(3, "\r\n");
    let (_, ours, body) = (lines.next(), lines.next(), lines.next());
    let address = ours.and_then(|ours| ours.split_whitespace().next_back()?.parse().ok());
    match (address, body) {
        (Some(address), Some(body)) => origin.describe(address, &mark(body, state)),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n";

    fn parse(rest: &str) -> Description {
        Description::parse(format!("{HEAD}{rest}").as_bytes()).expect("a description")
    }

    #[test]
    fn a_line_says_more_than_the_session_and_nonsense_says_nothing() {
        let line = "m=audio 4000 RTP/AVP 0\r\n";
        for (text, state) in [
            (line.to_owned(), None),
            (format!("a=record:on\r\n{line}"), Some(RecordState::On)),
            (
                format!("a=record:on\r\n{line}a=record:paused\r\n"),
                Some(RecordState::Paused),
            ),
            (format!("{line}a=record:OFF\r\n"), Some(RecordState::Off)),
            // `pause` is a wish, no state.
            (format!("{line}a=record:pause\r\n"), None),
            (
                format!("{line}a=record\r\na=record:\r\na=record: \r\n"),
                None,
            ),
            (
                format!("{line}a=record:onx\r\na=record:off\r\n"),
                Some(RecordState::Off),
            ),
            (
                format!("{line}a=record:off\r\n{line}a=record:on\r\n"),
                Some(RecordState::On),
            ),
            // A rejected line says nothing.
            (
                format!("{line}m=audio 0 RTP/AVP 0\r\na=record:on\r\n"),
                None,
            ),
        ] {
            assert_eq!(parse(&text).record_state(), state, "{text}");
        }
    }

    #[test]
    fn of_wishes_the_one_for_less_counts() {
        use RecordPreference as Wish;
        let line = "m=audio 4000 RTP/AVP 0\r\n";
        for (text, wish) in [
            (line.to_owned(), Wish::NoPreference),
            (format!("a=recordpref:off\r\n{line}"), Wish::Off),
            (
                format!("a=recordpref:off\r\n{line}a=recordpref:on\r\n"),
                Wish::On,
            ),
            (format!("{line}a=recordpref:Pause\r\n"), Wish::Pause),
            // `paused` is a state, no wish.
            (format!("{line}a=recordpref:paused\r\n"), Wish::NoPreference),
            (
                format!("{line}a=recordpref:nopreference\r\n"),
                Wish::NoPreference,
            ),
            (
                format!("a=recordpref:on\r\n{line}{line}a=recordpref:off\r\n"),
                Wish::Off,
            ),
            (format!("{line}a=recordpref:on;off\r\n"), Wish::NoPreference),
        ] {
            assert_eq!(parse(&text).record_preference(), wish, "{text}");
        }
    }

    #[test]
    fn each_line_in_use_is_marked_once_and_the_mark_is_taken_off_again() {
        let body = "s=-\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\na=sendrecv\r\nm=audio 0 RTP/AVP 8\r\n\
                    m=image 4002 udptl t38\r\nm=video 4004 RTP/AVP 97\r\na=sendrecv\r\n";
        let marked = mark(body, Some(RecordState::Paused));
        assert_eq!(marked.matches("a=record:paused\r\n").count(), 2);
        assert!(marked.contains("a=sendrecv\r\na=record:paused\r\nm=audio 0"));
        assert_eq!(mark(&marked, Some(RecordState::Paused)), marked);
        assert_eq!(mark(&marked, None), body);
    }

    #[test]
    fn the_version_rises_with_what_is_told_and_only_then() {
        let body = "s=-\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\na=sendrecv\r\n";
        let mut origin = OriginState::new(9);
        let text = origin.describe("192.0.2.9".parse().expect("an address"), body);
        let off = retell(&text, None, &mut origin);
        assert_eq!((&off, origin.version()), (&text, 1));
        let on = retell(&off, Some(RecordState::On), &mut origin);
        assert_eq!((told(&on), origin.version()), (Some(RecordState::On), 2));
        assert!(on.contains("o=- 9 2 IN IP4 192.0.2.9\r\n"), "{on}");
        assert_eq!(retell(&on, Some(RecordState::On), &mut origin), on);
        assert_eq!(told(&off), None);
    }
}
