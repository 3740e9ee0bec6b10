//! Which participants are heard on which m-line, by the surest rule that says so.

use crate::Id;
use crate::metadata::{Dialect, Extension, Metadata, Participant, Stream};
use serde::{Deserialize, Serialize};

/// An m-line of the recording session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    /// Its `a=label`.
    pub label: Option<String>,
}

/// By what a participant was bound to an m-line, the surest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// A participantstreamassoc sends the stream of this label.
    SendAssociation,
    /// The participant itself lists the stream as sent (the drafts before RFC 7865).
    EmbeddedSend,
    /// Receivers only: the one participant that does not receive it.
    NotReceived,
    /// An extension element names the calling or called party.
    Extension,
    /// Streams in the order of their labels, participants in the order written.
    LabelOrder,
    /// m-lines and participants in the order written.
    Order,
}

/// Who is heard on an m-line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// Its place in the SDP, from 0.
    pub line: usize,
    /// Who: none, one, or several where the sender mixes.
    pub participants: Vec<Id>,
    /// By which rule; None where nobody is known.
    pub rule: Option<Rule>,
}

/// What is known of a sender that no document says.
#[derive(Debug, Clone, Copy, Default)]
pub struct Habits {
    /// The sender writes what a participant hears as what it sends.
    pub crossed: bool,
}

/// Binds every m-line.
#[must_use]
pub fn bind(metadata: &Metadata, dialect: Dialect, lines: &[Line], habits: Habits) -> Vec<Bound> {
    let present = present(metadata);
    let mut bound: Vec<Bound> = (0..lines.len())
        .map(|line| Bound {
            line,
            participants: Vec::new(),
            rule: None,
        })
        .collect();
    let sent = match dialect {
        Dialect::Rfc7865 => Rule::SendAssociation,
        Dialect::Draft | Dialect::Broadworks => Rule::EmbeddedSend,
    };
    for (place, line) in lines.iter().enumerate() {
        let streams = streams_of(metadata, line);
        let heard = senders(metadata, &present, &streams, habits);
        if !heard.is_empty() {
            bound[place].participants = heard;
            bound[place].rule = Some(sent);
        } else if let Some(one) = not_receiving(metadata, &present, &streams) {
            bound[place].participants = vec![one];
            bound[place].rule = Some(Rule::NotReceived);
        }
    }
    bind_rest(metadata, &present, lines, &mut bound);
    bound
}

/// Participants that have not left every session they were in.
fn present(metadata: &Metadata) -> Vec<&Participant> {
    metadata
        .participants
        .iter()
        .filter(|participant| {
            let mut times = metadata
                .participant_sessions
                .iter()
                .filter(|one| one.participant == participant.id)
                .peekable();
            times.peek().is_none() || times.any(|one| one.times.until.is_none())
        })
        .collect()
}

/// The streams an m-line carries: BroadWorks puts several on one.
fn streams_of<'a>(metadata: &'a Metadata, line: &Line) -> Vec<&'a Stream> {
    let Some(label) = line.label.as_deref() else {
        return Vec::new();
    };
    metadata
        .streams
        .iter()
        .filter(|stream| stream.label.as_deref() == Some(label))
        .collect()
}

fn senders(
    metadata: &Metadata,
    present: &[&Participant],
    streams: &[&Stream],
    habits: Habits,
) -> Vec<Id> {
    present
        .iter()
        .filter(|participant| {
            metadata.streams_of(&participant.id).is_some_and(|set| {
                let sent = if habits.crossed { &set.recv } else { &set.send };
                sent.iter()
                    .any(|id| streams.iter().any(|stream| stream.id == *id))
            })
        })
        .map(|participant| participant.id.clone())
        .collect()
}

/// Where nobody is said to send but all others receive, the one that does not is heard.
fn not_receiving(metadata: &Metadata, present: &[&Participant], streams: &[&Stream]) -> Option<Id> {
    if streams.is_empty() || present.len() < 2 {
        return None;
    }
    let receives = |participant: &&&Participant| {
        metadata.streams_of(&participant.id).is_some_and(|set| {
            set.recv
                .iter()
                .any(|id| streams.iter().any(|stream| stream.id == *id))
        })
    };
    let mut others = present.iter().filter(|one| !receives(one));
    let one = others.next()?;
    others.next().is_none().then(|| one.id.clone())
}

/// m-lines nothing was said of: to those participants that are on no line yet.
fn bind_rest(metadata: &Metadata, present: &[&Participant], lines: &[Line], bound: &mut [Bound]) {
    let taken: Vec<Id> = bound
        .iter()
        .flat_map(|one| one.participants.clone())
        .collect();
    let mut free: Vec<&Participant> = present
        .iter()
        .copied()
        .filter(|participant| !taken.contains(&participant.id))
        .collect();
    let mut open: Vec<usize> = (0..bound.len())
        .filter(|&at| bound[at].rule.is_none())
        .collect();
    if open.is_empty() || free.is_empty() {
        return;
    }
    // One line for everybody: the sender mixes.
    if lines.len() == 1 && free.len() > 1 {
        bound[0].participants = free.iter().map(|one| one.id.clone()).collect();
        bound[0].rule = Some(Rule::Order);
        return;
    }
    let labelled = open.iter().all(|&at| lines[at].label.is_some());
    if labelled {
        open.sort_by_key(|&at| label_key(lines[at].label.as_deref().unwrap_or_default()));
    }
    let called = by_extension(metadata, &free);
    let rule = if called.is_some() {
        Rule::Extension
    } else if labelled {
        Rule::LabelOrder
    } else {
        Rule::Order
    };
    if let Some(calling) = called {
        free.sort_by_key(|participant| participant.id != calling);
    }
    for (at, participant) in open.into_iter().zip(free) {
        bound[at].participants = vec![participant.id.clone()];
        bound[at].rule = Some(rule);
    }
}

/// Numeric labels by value, others by text after them.
fn label_key(label: &str) -> (u8, u128, String) {
    match label.parse::<u128>() {
        Ok(number) => (0, number, String::new()),
        Err(_) => (1, 0, label.to_owned()),
    }
}

/// The calling party as an extension names it: `callingParty` with an address, a `true` in the
/// participant, or `callData` that holds one.
fn by_extension(metadata: &Metadata, free: &[&Participant]) -> Option<Id> {
    let calling = |extensions: &[Extension]| {
        extensions
            .iter()
            .find(|one| one.name.eq_ignore_ascii_case("callingParty"))
            .map(|one| one.text.trim().to_owned())
    };
    for participant in free {
        if calling(&participant.extensions)
            .is_some_and(|text| text.is_empty() || text.eq_ignore_ascii_case("true"))
        {
            return Some(participant.id.clone());
        }
    }
    let everywhere = metadata
        .sessions
        .iter()
        .flat_map(|session| &session.extensions)
        .chain(&metadata.extensions)
        .chain(metadata.groups.iter().flat_map(|group| &group.extensions));
    for extension in everywhere {
        let names_caller = ["callingParty", "callData"]
            .iter()
            .any(|name| extension.name.eq_ignore_ascii_case(name));
        if !names_caller {
            continue;
        }
        // The first address in it that is a participant's.
        let at = |participant: &&&Participant| {
            participant
                .names
                .iter()
                .filter_map(|name| extension.text.find(user_of(&name.aor)?))
                .min()
        };
        if let Some(first) = free.iter().filter(|one| at(one).is_some()).min_by_key(at) {
            return Some(first.id.clone());
        }
    }
    None
}

/// The user part of an address, or the address.
fn user_of(aor: &str) -> Option<&str> {
    let rest = aor.split_once(':').map_or(aor, |(_, rest)| rest);
    let user = rest.split(['@', ';']).next().unwrap_or(rest).trim();
    (!user.is_empty()).then_some(user)
}
