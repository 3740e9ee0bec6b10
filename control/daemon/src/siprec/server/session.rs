//! One recording session in which we are the server: what its messages said, judged without any I/O.

use serde::{Deserialize, Serialize};
use trunkline_link::message::Side;
use trunkline_sdp::Description;
use trunkline_sinks::Timestamp;
use trunkline_sinks::object;
use trunkline_sip::message::{Headers, NameAddr, Request};
use trunkline_sip::transaction::ServerTx;
use trunkline_siprec::binding::{Bound, Habits, Line, bind};
use trunkline_siprec::detect::{Sign, Signs, as_client, as_server};
use trunkline_siprec::journal::{Journal, Outcome, Revision};
use trunkline_siprec::metadata::{Dialect, Metadata, Strictness};
use trunkline_siprec::multipart::{self, Bodies, MultipartError};

use super::lines::{Lines, SavedLines};
use super::parties::{Named, Parties, in_order_of_participants};

/// Attributes of a recording that tell where it comes from.
pub const ATTRIBUTE_SESSION: &str = "siprec.session";
/// See [`ATTRIBUTE_SESSION`].
pub const ATTRIBUTE_GROUP: &str = "siprec.group";
/// See [`ATTRIBUTE_SESSION`].
pub const ATTRIBUTE_CLIENT: &str = "siprec.client";

/// Names the recording of another recording session of the same communication session.
pub const ATTRIBUTE_LINKED: &str = "siprec.linked";

/// A re-INVITE or UPDATE of the client that waits for the dataplane.
#[derive(Debug)]
pub struct Exchange {
    /// Its transaction.
    pub server: ServerTx,
    /// The request.
    pub request: Request,
}

/// A recording session.
#[derive(Debug)]
pub struct Session {
    /// By what it was recognised.
    pub sign: Option<Sign>,
    /// Who sends it, by its own words.
    pub client: String,
    /// Its m-lines.
    pub lines: Lines,
    /// Who is heard.
    pub parties: Parties,
    /// Its metadata.
    pub journal: Journal,
    /// What the client has asked and we have not answered.
    pub exchange: Option<Exchange>,
    /// Documents that were quarantined.
    pub quarantined: u32,
    /// The last document was: an alarm is raised for it.
    pub alarmed: bool,
    /// How often a full document was asked for.
    pub snapshots_asked: u32,
    /// Its client has left, though the recording goes on.
    pub ended_at: Option<Timestamp>,
    dialect: Dialect,
    habits: Habits,
    named: Vec<Named>,
}

/// What of it survives a restart of control.
#[derive(Debug, Serialize, Deserialize)]
pub struct SavedSession {
    sign: Option<Sign>,
    client: String,
    lines: SavedLines,
    parties: Parties,
    metadata: Metadata,
    revision: u32,
    quarantined: u32,
    #[serde(default)]
    ended_at: Option<Timestamp>,
    dialect: Dialect,
    named: Vec<Named>,
}

/// What a message carried.
#[derive(Debug, Default)]
pub struct Carried {
    /// The offer.
    pub sdp: Option<Vec<u8>>,
    /// The metadata.
    pub metadata: Option<Vec<u8>>,
}

/// Takes a message's body apart.
///
/// # Errors
/// See [`MultipartError`].
pub fn carried(headers: &Headers, body: &[u8]) -> Result<Carried, MultipartError> {
    let kind = headers.get("Content-Type").unwrap_or_default();
    let Bodies { sdp, metadata, .. } = multipart::read(&kind, body)?;
    Ok(Carried { sdp, metadata })
}

/// By what an INVITE opens a recording session.
#[must_use]
pub fn sign_of(request: &Request, has_metadata: bool, trusted: bool) -> Option<Sign> {
    with_signs(request, |signs| {
        let signs = Signs {
            has_metadata,
            is_trusted_client: trusted,
            ..*signs
        };
        as_server(&signs, false)
    })
}

/// Whether an INVITE is a recorder's, who wants to record a call of ours.
#[must_use]
pub fn asks_to_record(request: &Request) -> bool {
    with_signs(request, as_client)
}

/// Looks at what the headers of a request tell of recording.
fn with_signs<T>(request: &Request, judge: impl FnOnce(&Signs<'_>) -> T) -> T {
    let texts = |names: &[&str]| -> Vec<String> {
        let all = names.iter().flat_map(|name| request.headers.get_all(name));
        all.map(std::borrow::Cow::into_owned).collect()
    };
    let tags = texts(&["Require", "Supported"]);
    let (contacts, accepts) = (texts(&["Contact"]), texts(&["Accept-Contact"]));
    fn slices(list: &[String]) -> Vec<&str> {
        list.iter().map(String::as_str).collect()
    }
    judge(&Signs {
        option_tags: &slices(&tags),
        contacts: &slices(&contacts),
        accept_contacts: &slices(&accepts),
        ..Signs::default()
    })
}

impl Session {
    /// Of an INVITE whose bodies are judged afterwards.
    #[must_use]
    pub fn new(request: &Request, sign: Option<Sign>, lines: Lines) -> Self {
        let header = |name: &str| request.headers.get(name).map(std::borrow::Cow::into_owned);
        let client = header("User-Agent")
            .or_else(|| header("Server"))
            .unwrap_or_default();
        let named = |address: &NameAddr| Named {
            uri: address.uri.to_string(),
            name: address.display.clone().unwrap_or_default(),
        };
        let from = request.headers.from_address().ok();
        let to = request.headers.to_address().ok();
        Self {
            sign,
            lines,
            parties: Parties::default(),
            journal: Journal::default(),
            exchange: None,
            quarantined: 0,
            alarmed: false,
            snapshots_asked: 0,
            ended_at: None,
            dialect: Dialect::Rfc7865,
            habits: habits_of(&client),
            named: [from, to].iter().flatten().map(named).collect(),
            client,
        }
    }

    /// Takes a metadata document in; a bad one is kept beside, with the reason in words.
    ///
    /// # Errors
    /// Why it was quarantined.
    pub fn document(&mut self, cseq: u32, at: Timestamp, document: &[u8]) -> Result<(), String> {
        let taken = self
            .journal
            .apply(cseq, &at.to_string(), document, Strictness::Tolerant);
        if let Some(Outcome::Applied { dialect, .. }) =
            self.journal.revisions().last().map(|last| &last.outcome)
        {
            self.dialect = *dialect;
        }
        taken.map_err(|why| {
            self.quarantined += 1;
            why.to_string()
        })
    }

    /// The last document that came.
    #[must_use]
    pub fn last_revision(&self) -> Option<&Revision> {
        self.journal.revisions().last()
    }

    /// Number of the last document; 0 = none.
    #[must_use]
    pub fn revision(&self) -> u32 {
        self.journal.last_number()
    }

    /// Whether any document was understood.
    #[must_use]
    pub fn knows_metadata(&self) -> bool {
        !self.journal.state().participants.is_empty()
    }

    fn bind(&self, labels: &[Line]) -> Vec<Bound> {
        bind(self.journal.state(), self.dialect, labels, self.habits)
    }

    /// Takes an offer in. Whom `known` has on the right stays there.
    pub fn offer(&mut self, offer: (String, Description), known: &Parties) {
        let bound = self.bind(&super::lines::labels_of(&offer.1));
        let mut order = in_order_of_participants(self.journal.state(), &bound);
        order.sort_by_key(|line| {
            let one = bound.iter().find(|one| one.line == *line);
            let channel = one.and_then(|one| known.channel_of(one.participants.first()?));
            channel.unwrap_or(0)
        });
        self.lines.take(offer, &order);
    }

    /// Works out who is heard now. True when that changed.
    pub fn follow(&mut self, now: Timestamp) -> bool {
        if !self.knows_metadata() {
            return self.parties.name_lines(&self.named, &self.lines, now);
        }
        let bound = self.bind(&self.lines.labels());
        self.parties
            .follow(self.journal.state(), &bound, &self.lines, now)
    }

    /// The first party of a channel that is there, or was.
    fn first_of(&self, channel: u8) -> Option<&super::parties::Party> {
        let of = |one: &&super::parties::Party| one.channel == channel;
        let present = self.parties.present().find(of);
        present.or_else(|| self.parties.all().iter().find(of))
    }

    /// Writes into the call's object who talks to whom, and where it comes from.
    pub fn describe(&self, call: &mut object::Call) {
        let user = |uri: &str| {
            let rest = uri.split_once(':').map_or(uri, |(_, rest)| rest);
            let end = rest.find(['@', ';', '>']).unwrap_or(rest.len());
            rest[..end].to_owned()
        };
        for (channel, user_part, uri) in [
            (0, &mut call.caller, &mut call.caller_uri),
            (1, &mut call.callee, &mut call.callee_uri),
        ] {
            if let Some(party) = self.first_of(channel) {
                (*user_part, *uri) = (user(&party.uri), party.uri.clone());
            }
        }
        let state = self.journal.state();
        let session = state
            .sessions
            .iter()
            .find(|one| one.stopped.is_none())
            .or(state.sessions.last());
        let group = session.and_then(|one| one.group.as_ref());
        let group = group.or(state.groups.last().map(|one| &one.id));
        let mut note = |name: &str, value: Option<String>| {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                let value = value.chars().take(256).collect();
                call.attributes.insert(name.to_owned(), value);
            }
        };
        note(ATTRIBUTE_SESSION, session.map(|one| one.id.to_string()));
        note(ATTRIBUTE_GROUP, group.map(ToString::to_string));
        note(ATTRIBUTE_CLIENT, Some(self.client.clone()));
        // That of the call it records says more than the recording session's own.
        let told = session.and_then(|one| one.sip_session_ids.first());
        if let Some(id) = told.and_then(|id| id.split(';').next()) {
            call.session_id = Some(id.trim().to_owned());
        }
    }

    /// Whether the communication session is said to be over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let sessions = &self.journal.state().sessions;
        !sessions.is_empty() && sessions.iter().all(|one| one.stopped.is_some())
    }

    /// Who is in the documents, before any line is agreed.
    #[must_use]
    pub fn named_parties(&self, now: Timestamp) -> Parties {
        Parties::named(self.journal.state(), now)
    }

    /// The id of the communication session that goes on.
    #[must_use]
    pub fn communication_session(&self) -> Option<String> {
        let state = self.journal.state();
        let going = state.sessions.iter().find(|one| one.stopped.is_none());
        going
            .or(state.sessions.last())
            .map(|one| one.id.to_string())
    }

    /// Which sides are to be heard now, by what is agreed.
    #[must_use]
    pub fn expects(&self, side: Side) -> bool {
        self.lines.channels_sent()[side as usize]
    }

    /// What has to be kept over a restart.
    #[must_use]
    pub fn save(&self) -> Option<SavedSession> {
        Some(SavedSession {
            sign: self.sign,
            client: self.client.clone(),
            lines: self.lines.save()?,
            parties: self.parties.clone(),
            metadata: self.journal.state().clone(),
            revision: self.revision(),
            quarantined: self.quarantined,
            ended_at: self.ended_at,
            dialect: self.dialect,
            named: self.named.clone(),
        })
    }

    /// The counterpart of [`Self::save`]. Documents from before are in the capture.
    #[must_use]
    pub fn load(saved: SavedSession, codecs: &[String]) -> Option<Self> {
        Some(Self {
            sign: saved.sign,
            lines: Lines::load(saved.lines, codecs)?,
            parties: saved.parties,
            journal: Journal::resume(saved.metadata, saved.revision),
            exchange: None,
            quarantined: saved.quarantined,
            alarmed: false,
            snapshots_asked: 0,
            ended_at: saved.ended_at,
            dialect: saved.dialect,
            habits: habits_of(&saved.client),
            named: saved.named,
            client: saved.client,
        })
    }
}

/// What is known of senders that no document says: Ribbon's (formerly Sonus) session border controllers
/// write what a participant hears as what it sends.
fn habits_of(client: &str) -> Habits {
    let client = client.to_ascii_lowercase();
    Habits {
        crossed: ["ribbon", "sonus"].iter().any(|name| client.contains(name)),
    }
}
