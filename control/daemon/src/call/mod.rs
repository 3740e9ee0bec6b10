//! A call: two legs, their media, their recordings.

pub mod media;
pub mod negotiation;
pub mod recording;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;
use trunkline_config::Route;
use trunkline_link::message::Side;
use trunkline_sinks::object::{self, EndedBy};
use trunkline_sip::dialog::Dialog;
use trunkline_sip::message::{Request, Response, Uri};
use trunkline_sip::transaction::{ClientTx, FlowId, ServerTx, Target, Transport};

use crate::api::handle::ActionError;
use media::Media;
use negotiation::{Heard, Negotiation};
use recording::Recording;

/// Holds that are told apart in one call.
const HOLDS_MAX: usize = 64;

/// Where a call stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The INVITE is in; ports or an address are being asked for.
    Preparing,
    /// The far side has our INVITE.
    Inviting,
    /// The far side accepted; media is being armed for the answer to the caller.
    Answering,
    /// Answered.
    Answered,
    /// Being torn down.
    Ending,
}

/// One side of a call.
#[derive(Debug, Clone)]
pub struct Leg {
    /// The dialog, from the first response that makes one.
    pub dialog: Option<Dialog>,
    /// How its messages travel.
    pub transport: Transport,
    /// The socket or connection in use.
    pub flow: Option<FlowId>,
    /// Our address towards it.
    pub local: SocketAddr,
    /// Where its signalling comes from or goes to.
    pub remote: SocketAddr,
    /// Our Contact towards it.
    pub contact: Uri,
    /// Whether a BYE may go out: the caller's leg waits for the ACK of our 2xx.
    pub acknowledged: bool,
    /// A BYE that waits for that ACK.
    pub bye_waits: bool,
    /// Its Reason.
    pub bye_reason: Option<String>,
    /// Nothing more is expected of it.
    pub over: bool,
}

impl Leg {
    /// The target for an in-dialog request: the next hop where it is an address, else where the
    /// leg's signalling came from.
    pub fn target(&self) -> Target {
        let hop = self.dialog.as_ref().map(|dialog| dialog.next_hop().clone());
        let remote = hop.as_ref().and_then(|hop| {
            let ip = hop.host_ip()?;
            Some(SocketAddr::new(ip, hop.port().unwrap_or(5060)))
        });
        let transport = match hop.as_ref().and_then(|hop| hop.param("transport")) {
            Some(name) if name.eq_ignore_ascii_case("tcp") => Transport::Tcp,
            Some(name) if name.eq_ignore_ascii_case("udp") => Transport::Udp,
            _ => self.transport,
        };
        // A connection that is open is used whatever the Contact says (RFC 5923 in spirit).
        let flow = self.flow.filter(|_| transport == self.transport);
        Target::new(transport, flow, self.local, remote.unwrap_or(self.remote))
    }
}

/// Where one of our INVITEs is to go.
#[derive(Debug, Clone)]
pub struct Destination {
    /// Its Request-URI.
    pub uri: Uri,
    /// Transport.
    pub transport: Transport,
    /// Host name to look up, where the URI has no address.
    pub name: Option<String>,
    /// Port.
    pub port: u16,
    /// The address, once known.
    pub address: Option<SocketAddr>,
}

/// One of our INVITEs for a call.
#[derive(Debug)]
pub struct Branch {
    /// Its transaction.
    pub client: ClientTx,
    /// The INVITE as sent, to build the dialog from.
    pub sent: Request,
    /// How its messages travel; the callee's leg if it wins.
    pub leg: Leg,
    /// A provisional response has come.
    pub proceeding: bool,
    /// We gave up on it: a 2xx is acknowledged and ended by BYE.
    pub cancelled: bool,
    /// It has its final response, or never will.
    pub over: bool,
}

impl Branch {
    /// Whether it may still answer the call.
    pub fn rings(&self) -> bool {
        !self.over && !self.cancelled
    }
}

/// Why the targets tried so far did not answer.
#[derive(Debug)]
pub struct Failure {
    /// Status, as the target or we see it.
    pub status: u16,
    /// The target's response; `None` = found out by ourselves.
    pub response: Option<Response>,
    /// For people.
    pub why: &'static str,
}

impl Failure {
    /// Rank in the choice of what the caller is told, lowest first: a person's 6xx, then the class,
    /// then what we found out ourselves (RFC 3261 section 16.7).
    pub fn rank(&self) -> u16 {
        match (&self.response, self.status) {
            (None, _) => 7,
            (_, 600..) => 0,
            (_, status) => status / 100,
        }
    }
}

/// The caller's INVITE while it has no final response, and what becomes of it.
#[derive(Debug)]
pub struct Invitation {
    /// The caller's transaction.
    pub server: ServerTx,
    /// The caller's INVITE.
    pub request: Request,
    /// Groups of targets not tried yet.
    pub groups: VecDeque<Vec<Destination>>,
    /// The group that is being looked up.
    pub group: Vec<Destination>,
    /// Whether all that failed in this group lets the next be tried.
    pub reroutes: bool,
    /// The best of the failures so far.
    pub failure: Option<Failure>,
    /// The transaction of ours whose 2xx answers the call.
    pub client: Option<ClientTx>,
    /// The caller made no offer: the far side's 2xx does.
    pub late_offer: bool,
    /// The far side's 2xx, until the caller's ACK has come (late offer only).
    pub accepted: Option<Response>,
    /// The transaction whose SDP was passed to the caller in a provisional response.
    pub early: Option<ClientTx>,
}

/// A re-INVITE, UPDATE or other request on its way from one side to the other.
#[derive(Debug)]
pub struct Passage {
    /// Who asked.
    pub from: Side,
    /// The request's transaction.
    pub server: ServerTx,
    /// The request.
    pub request: Request,
    /// Ours to the far side.
    pub client: Option<ClientTx>,
    /// CSeq number of ours.
    pub sequence: u32,
    /// It has an offer, or (INVITE) asks for one.
    pub negotiates: bool,
    /// INVITE without an offer: the far side's 2xx makes it, the ACK answers it.
    pub late_offer: bool,
    /// Late offer: the far side's 2xx was passed on, its ACK waits for the asker's.
    pub awaits_ack: bool,
    /// The far side's 2xx to the INVITE is here and not acknowledged.
    pub owes_ack: bool,
}

/// Commands that were sent to the dataplane together, and what comes after their answers.
#[derive(Debug)]
pub struct Batch {
    /// Identity within the call.
    pub id: u64,
    /// Answers still out.
    pub open: usize,
    /// One was refused.
    pub failed: Option<trunkline_link::message::FailReason>,
    /// No answer until then is a failure.
    pub deadline: Instant,
    /// What comes after.
    pub then: Step,
}

/// The reply that an API action waits for.
pub type ActionReply = oneshot::Sender<Result<object::Recording, ActionError>>;

/// What comes after a batch.
#[derive(Debug)]
pub enum Step {
    /// Ports are there: describe both sides, then go on.
    Describe {
        /// What comes after that.
        then: Box<Step>,
    },
    /// A new dataplane has given the call its ports again: tell it the rest.
    Reinstall,
    /// Send the INVITE to the far side.
    Invite,
    /// Pass on a provisional response with its SDP.
    Early {
        /// The response.
        response: Response,
        /// SDP for the caller.
        sdp: String,
    },
    /// Acknowledge the far side's 2xx and answer the caller.
    Answer {
        /// The response.
        response: Response,
        /// SDP for the caller.
        sdp: Option<String>,
    },
    /// The caller answered in its ACK (late offer): acknowledge the far side.
    LateAnswer {
        /// The far side's 2xx.
        response: Response,
        /// SDP for the far side.
        sdp: Option<String>,
    },
    /// Ports for a re-offer are there: pass the request on.
    Reoffer,
    /// Both sides' media follow the new descriptions: pass the 2xx on.
    Reanswer {
        /// The response.
        response: Response,
        /// SDP for the asker.
        sdp: Option<String>,
    },
    /// The ACK of a late re-offer is armed: pass it on.
    ReofferAcknowledged {
        /// SDP for the side that offered.
        sdp: Option<String>,
    },
    /// A recording's start was asked for.
    RecordingStarted {
        /// Its number.
        number: u64,
        /// Who waits for it.
        reply: Option<ActionReply>,
    },
    /// A recording goes on in a new dataplane.
    Restart {
        /// Its number.
        number: u64,
    },
    /// A recording's pause, resume or stop was asked for.
    RecordingChanged {
        /// Its number.
        number: u64,
        /// Who waits for it.
        reply: Option<ActionReply>,
    },
}

/// A call.
#[derive(Debug)]
pub struct Call {
    /// The session id on the link; our key for it.
    pub key: u64,
    /// What the API shows.
    pub object: object::Call,
    /// The route it took.
    pub route: Arc<Route>,
    /// Phase.
    pub phase: Phase,
    /// The legs, by [`Side`].
    pub legs: [Leg; 2],
    /// Media as told to the dataplane.
    pub media: Media,
    /// Offer and answer.
    pub negotiation: Negotiation,
    /// Whose offer was answered last.
    pub offerer: Side,
    /// The INVITEs, until the call is answered or over.
    pub invitation: Option<Invitation>,
    /// Our INVITEs, oldest first; after the ACK those that may still be answered, without bodies.
    pub branches: Vec<Branch>,
    /// Requests of the callee that wait for the caller's ACK.
    pub waiting: Vec<(ServerTx, Request)>,
    /// The request that is being passed between the sides with an offer, at most one.
    pub exchange: Option<Passage>,
    /// Other requests being passed.
    pub passages: Vec<Passage>,
    /// An offer of the caller that waits for ports.
    pub offer: Option<Heard>,
    /// Batches under way.
    pub batches: Vec<Batch>,
    /// Its recordings, oldest first.
    pub recordings: Vec<Recording>,
    /// CLOCK_MONOTONIC ns of the answer.
    pub answered_mono_ns: u64,
    /// CLOCK_MONOTONIC ns since which it is held.
    pub held_since_ns: Option<u64>,
    /// Holds before that, from and to.
    pub holds: Vec<(u64, u64)>,
    /// No provisional response by then: give up.
    pub connect_deadline: Option<Instant>,
    /// No answer by then: give up.
    pub ring_deadline: Option<Instant>,
    /// The longest it may last.
    pub duration_deadline: Option<Instant>,
    /// After that a call that is being torn down is over, whatever is missing.
    pub end_deadline: Option<Instant>,
    /// The session is closed on the link.
    pub closed: bool,
    /// `call.ended` or `call.failed` was published.
    pub announced: bool,
    /// The moment at which it is due in the timer table.
    pub scheduled: Option<Instant>,
    /// Next batch id.
    pub next_batch: u64,
    /// Client transactions that lead back to this call.
    pub clients: Vec<ClientTx>,
    /// Server transactions that lead back to this call.
    pub servers: Vec<ServerTx>,
}

impl Call {
    /// The leg of a side.
    pub fn leg(&self, side: Side) -> &Leg {
        &self.legs[side as usize]
    }

    /// The leg of a side.
    pub fn leg_mut(&mut self, side: Side) -> &mut Leg {
        &mut self.legs[side as usize]
    }

    /// When something is due.
    pub fn deadline(&self) -> Option<Instant> {
        let batches = self.batches.iter().map(|batch| batch.deadline);
        [
            self.connect_deadline,
            self.ring_deadline,
            self.duration_deadline,
            self.end_deadline,
        ]
        .into_iter()
        .flatten()
        .chain(batches)
        .min()
    }

    /// The recording that captures or may again.
    pub fn live_recording(&mut self) -> Option<&mut Recording> {
        self.recordings
            .iter_mut()
            .rev()
            .find(|recording| recording.is_live())
    }

    /// A recording by its number.
    pub fn recording(&mut self, number: u64) -> Option<&mut Recording> {
        self.recordings
            .iter_mut()
            .find(|recording| recording.number == number)
    }

    /// Whether the call was answered.
    pub fn was_answered(&self) -> bool {
        self.object.answered_at.is_some()
    }

    /// The hold that lasts is over.
    pub fn end_hold(&mut self, now_ns: u64) {
        let Some(since) = self.held_since_ns.take() else {
            return;
        };
        // Holds beyond the limit run into one another: the record has to stay small.
        let full = self.holds.len() >= HOLDS_MAX;
        match self.holds.last_mut() {
            Some(last) if full => last.1 = now_ns,
            _ => self.holds.push((since, now_ns)),
        }
    }

    /// Notes who ended it, once.
    pub fn note_end(&mut self, by: EndedBy, at: trunkline_sinks::Timestamp) {
        if self.object.ended_at.is_none() {
            self.object.ended_at = Some(at);
            self.object.ended_by = Some(by);
        }
    }
}
