//! One recording session of ours: what is kept of it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use trunkline_config::Recorder;
use trunkline_link::message::{FailReason, ForkState, ForkStream};
use trunkline_sdp::{OriginState, RecordState};
use trunkline_sinks::Timestamp;
use trunkline_sip::message::{Request, Uri};
use trunkline_sip::transaction::{ClientTx, ServerTx, Transport};
use trunkline_siprec::metadata::Metadata;

use super::actions::Waiting;
use super::replay::Gone;
use super::sdp::{Accepted, Line, Offered};
use super::story::Story;
use super::view::CallView;
use crate::call::Leg;
use crate::call::media::Media;
use crate::clock::Moment;
use crate::siprec::session::{Gap, Span};

/// Where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It waits for the call's media to be known, and for ports.
    Opening,
    /// The recorder opens it itself: its INVITE waits for ports, or our 2xx for its ACK.
    Asked,
    /// A server is looked up or has our INVITE.
    Inviting,
    /// A server has accepted; the fork is being armed.
    Arming,
    /// It stands.
    Standing,
    /// No server has it; the next try is at [`RecordingSession::retry_at`].
    Lost,
    /// A BYE is on its way.
    Ending,
    /// Over.
    Over,
}

/// A host name with what the URI says beside it.
#[derive(Debug, Clone)]
pub(super) struct HostName {
    pub host: String,
    pub port: Option<u16>,
    pub transport: Option<Transport>,
}

/// Where a server is.
#[derive(Debug, Clone)]
pub(super) struct Server {
    /// Its URI, which also names it.
    pub uri: Uri,
    pub transport: Transport,
    /// What to look up, where the URI has no address.
    pub name: Option<HostName>,
    /// The address, once known.
    pub address: Option<SocketAddr>,
}

impl Server {
    /// Its URI without the password, which is for us and not for the wire.
    pub fn shown(&self) -> Uri {
        match self.uri.password() {
            Some(_) => self.uri.with_user(self.uri.user_decoded().as_deref()),
            None => self.uri.clone(),
        }
    }

    /// What is left alone when it fails: the server, or the one of its addresses.
    pub fn place(&self) -> String {
        match self.address {
            Some(address) => format!("{} {}:{address}", self.uri, self.transport.param_name()),
            None => self.uri.to_string(),
        }
    }
}

/// Our INVITE to a server.
#[derive(Debug)]
pub(super) struct Attempt {
    pub client: ClientTx,
    pub request: Request,
    pub leg: Leg,
    /// No final answer by then: the next server.
    pub deadline: Instant,
    /// The m-lines in it.
    pub offered: Vec<Offered>,
    pub document: Metadata,
    /// It has less than all, after a 488.
    pub reduced: bool,
    /// It answers a challenge.
    pub authenticated: bool,
}

/// A change of ours to the session, by re-INVITE.
#[derive(Debug)]
pub(super) struct Change {
    pub client: ClientTx,
    pub sequence: u32,
    /// The m-lines in it.
    pub offered: Vec<Offered>,
    pub body: String,
    pub document: Option<Metadata>,
}

/// The recorder's INVITE or UPDATE while media is being armed for our answer.
#[derive(Debug)]
pub(super) struct Answering {
    pub server: ServerTx,
    pub request: Request,
    pub sdp: String,
}

/// An offer of ours in the 2xx to an INVITE without one.
#[derive(Debug)]
pub(super) struct Asked {
    pub server: ServerTx,
    pub offered: Vec<Offered>,
    pub body: String,
    pub document: Metadata,
}

/// The INVITE by which a recorder opens a session, not answered yet.
#[derive(Debug)]
pub(super) struct Invited {
    pub tx: ServerTx,
    pub request: Request,
}

/// An m-line of a persistent session, and the session that is heard on it.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    /// `audio` or `video`.
    pub kind: String,
    pub rider: Option<u64>,
}

impl Slot {
    /// One on which nobody is heard.
    pub fn free(kind: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            rider: None,
        }
    }
}

/// Whether a session leaves the persistent one that carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Departure {
    No,
    /// Its packets have stopped: the recorder is to be told.
    Wanted,
    /// The recorder is being told.
    Told,
}

/// The persistent session that carries one.
#[derive(Debug, Clone)]
pub(super) struct Host {
    pub id: String,
    pub sip_call_id: String,
}

/// What comes after commands to the dataplane.
#[derive(Debug)]
pub(super) enum Step {
    /// Ports are there.
    Opened,
    /// Ports for more m-lines are there.
    Extended,
    /// The fork runs: acknowledge the 2xx.
    Armed,
    /// Media follows the answer to our re-INVITE: acknowledge it.
    Changed,
    /// Media follows the recorder's offer: answer it.
    Answer(Box<Answering>),
    /// The fork holds back or silences: the recorder may be told.
    Paused,
    /// The fork goes on.
    Resumed,
    /// A new dataplane has given the ports again.
    Reinstalled,
    /// The fork has ended: say BYE.
    Stopped,
    /// Nothing.
    Nothing,
}

/// Commands sent together.
#[derive(Debug)]
pub(super) struct Batch {
    pub id: u64,
    pub open: usize,
    pub failed: Option<FailReason>,
    /// No answer until then: it is gone on without.
    pub deadline: Instant,
    pub then: Step,
}

/// A recording session.
pub(super) struct RecordingSession {
    /// Its session on the link.
    pub key: u64,
    /// Its id for the API.
    pub id: String,
    pub view: Arc<CallView>,
    pub recorder: Arc<Recorder>,
    pub phase: Phase,
    pub story: Story,
    pub lines: Vec<Line>,
    pub media: Media,
    /// Servers not tried in this round.
    pub round: VecDeque<Server>,
    /// The server tried or in use.
    pub server: Option<Server>,
    /// Servers that redirections have added in this round.
    pub redirections: usize,
    pub attempt: Option<Attempt>,
    /// The standing dialog.
    pub leg: Option<Leg>,
    pub change: Option<Change>,
    pub asked: Option<Asked>,
    /// The recorder has opened it.
    pub by_recorder: bool,
    /// Its INVITE that waits for an answer.
    pub invited: Option<Invited>,
    /// The recorder's last description.
    pub heard: String,
    /// What it accepts by it.
    pub accepted: Vec<Accepted>,
    /// The m-lines in force.
    pub offered: Vec<Offered>,
    pub origin: OriginState,
    /// The description in force, without its `o=`.
    pub told: String,
    /// A change that was refused is not asked for again.
    pub refused: Option<(String, Option<Metadata>)>,
    /// A full document was asked for.
    pub snapshot_due: bool,
    /// The fork's state that is wanted.
    pub paused: bool,
    /// The state that the dataplane has been told.
    pub fork: ForkState,
    /// It forks.
    pub forking: bool,
    pub batches: Vec<Batch>,
    pub next_batch: u64,
    /// Who waits for a pause, a resumption, a start or a stop.
    pub waiting: Vec<Waiting>,
    /// When a change is tried again, or the next round of servers begins.
    pub retry_at: Option<Instant>,
    /// After that it is over whatever is missing.
    pub end_deadline: Option<Instant>,
    pub scheduled: Option<Instant>,
    pub started_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    /// `siprec.started` was published.
    pub announced: bool,
    pub streams: Vec<ForkStream>,
    /// Of earlier dataplanes.
    pub streams_before: Vec<ForkStream>,
    /// When the recorder was last heard, CLOCK_MONOTONIC ns, 0 = never.
    pub heard_ns: u64,
    pub revision: u32,
    pub revised_at: Option<Timestamp>,
    pub failovers: u32,
    pub gaps: Vec<Gap>,
    /// m-lines of a persistent session; `None` = it is one of a call.
    pub slots: Option<Vec<Slot>>,
    /// The sessions that a persistent one carries, in the order in which they came.
    pub riders: Vec<u64>,
    /// The persistent session that carries it.
    pub carrier: Option<u64>,
    /// See `carrier`.
    pub host: Option<Host>,
    /// Of its m-lines those that have a place among the carrier's.
    pub seated: usize,
    /// The recorder's address, while the carrier stands.
    pub peer: Option<std::net::IpAddr>,
    /// What the carrier tells of it.
    pub telling: Option<Metadata>,
    pub departs: Departure,
    /// The carrier has something to tell.
    pub asks_carrier: bool,
    /// The carrier's server is gone, and why.
    pub server_gone: Option<String>,
    /// Since when its media is not delivered, by what the network says: first, last, how often.
    pub undelivered: Option<(Moment, Instant, u32)>,
    /// Since when it is known to have been gone, where that is earlier than it was noticed.
    pub gone_since: Option<Timestamp>,
    /// Gaps that are over and are to be sent after the call.
    pub gone: Vec<Gone>,
    /// It is a replay of that.
    pub replay: Option<Span>,
    /// All of it was sent.
    pub replayed: bool,
    /// How often all servers were asked in vain.
    pub rounds: u32,
    /// The call before it was over.
    pub last_view: Arc<CallView>,
    pub why: Option<String>,
    /// A recorder that is required has been lost since.
    pub lost_since: Option<Instant>,
    /// Whether it records the call, as the call was told last.
    pub recorded: RecordState,
    /// Client and server transactions that lead here.
    pub clients: Vec<ClientTx>,
    pub servers: Vec<ServerTx>,
}

impl RecordingSession {
    /// When something is due.
    pub fn deadline(&self) -> Option<Instant> {
        let timer = self.leg.as_ref().and_then(|leg| leg.session.as_ref());
        [
            self.answer_deadline(),
            self.retry_at,
            self.end_deadline,
            timer.and_then(trunkline_sip::dialog::SessionTimer::poll_timeout),
        ]
        .into_iter()
        .flatten()
        .chain(self.batches.iter().map(|batch| batch.deadline))
        .min()
    }

    /// When the server's final answer is due.
    pub fn answer_deadline(&self) -> Option<Instant> {
        let attempt = self.attempt.as_ref()?;
        (self.phase == Phase::Inviting).then_some(attempt.deadline)
    }

    /// Nothing more comes of it.
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// It is one that the carrier tells of: it has its ports and m-lines.
    pub fn is_told_of(&self) -> bool {
        let there = !self.lines.is_empty() && !self.media.open.is_empty();
        there && !matches!(self.phase, Phase::Opening | Phase::Over)
    }

    /// A server has it.
    pub fn stands(&self) -> bool {
        matches!(self.phase, Phase::Arming | Phase::Standing)
    }

    /// The name of the server tried or in use.
    pub fn server_name(&self) -> String {
        let server = self.server.as_ref();
        server
            .map(|server| server.shown().to_string())
            .unwrap_or_default()
    }
}
