//! A call: two legs, their media, their recordings.

pub mod awareness;
mod invitation;
mod kept_counts;
pub mod media;
pub mod negotiation;
pub mod recording;
pub mod sounding;
pub mod transfer;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;
use trunkline_config::Route;
use trunkline_link::message::Side;
use trunkline_sinks::object::{self, EndedBy};
use trunkline_sip::dialog::{Dialog, SessionPolicy, SessionTimer};
use trunkline_sip::message::{Headers, Request, Response, Uri};
use trunkline_sip::transaction::{ClientTx, FlowId, ServerTx, Target, Transport};

use crate::api::handle::ActionError;
use crate::siprec::server;
use awareness::Awareness;
pub use invitation::{Awaited, Branch, Destination, Failure, HostName, Invitation};
use media::Media;
use negotiation::{Heard, Negotiation};
use recording::Recording;
use sounding::Sounding;
use transfer::{Departing, OwnOffer, Party, Subscription, Transfer};

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

/// What of one side's BYE the other's carries.
#[derive(Debug, Clone)]
pub struct Farewell {
    /// Its headers.
    pub headers: Headers,
    /// Its body, where that crosses.
    pub body: Vec<u8>,
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
    /// What else of the other side's BYE the BYE to this one carries.
    pub farewell: Option<Box<Farewell>>,
    /// Nothing more is expected of it.
    pub over: bool,
    /// What its peer is told of the transfer that it asked for.
    pub subscription: Option<Box<Subscription>>,
    /// Its session timer.
    pub session: Option<SessionTimer>,
    /// What we ask of its session timer.
    pub session_policy: SessionPolicy,
    /// Its peer takes UPDATE.
    pub takes_update: bool,
    /// Nothing says that its peer does not take digits by INFO.
    pub takes_info: bool,
    /// Its peer understands `a=record` (RFC 7866).
    pub aware: bool,
    /// A re-INVITE of its peer's whose 2xx is not acknowledged yet.
    pub unacknowledged: Option<ServerTx>,
}

impl Leg {
    /// A leg without a dialog yet.
    pub fn new(
        transport: Transport,
        flow: Option<FlowId>,
        local: SocketAddr,
        remote: SocketAddr,
        contact: Uri,
    ) -> Self {
        Self {
            dialog: None,
            transport,
            flow,
            local,
            remote,
            contact,
            acknowledged: true,
            bye_waits: false,
            bye_reason: None,
            farewell: None,
            over: false,
            subscription: None,
            session: None,
            session_policy: SessionPolicy::default(),
            takes_update: false,
            takes_info: true,
            aware: false,
            unacknowledged: None,
        }
    }

    /// Whether its peer waits for nothing more from us.
    pub fn is_done(&self) -> bool {
        self.over && self.subscription.as_ref().is_none_or(|one| one.over)
    }

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
    /// No final response of the far side by then: it is asked for by CANCEL.
    pub due: Option<Instant>,
}

impl Passage {
    /// A request of `from`'s that is not sent on yet.
    pub fn new(from: Side, server: ServerTx, request: Request, negotiates: bool) -> Self {
        Self {
            from,
            server,
            request,
            client: None,
            sequence: 0,
            negotiates,
            late_offer: false,
            awaits_ack: false,
            owes_ack: false,
            due: None,
        }
    }

    /// Ours to the far side, once when no final response has come in time.
    pub fn take_overdue(&mut self, now: Instant) -> Option<ClientTx> {
        self.due.take_if(|due| *due <= now)?;
        self.client
    }
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
    /// The newcomer's media is armed: it is bridged.
    Transferred {
        /// What is owed to the newcomer, and to the party that stayed.
        owed: Box<transfer::Owed>,
    },
    /// A party took what we offered by ourselves: acknowledge it.
    Realigned {
        /// Which party.
        side: Side,
        /// Our re-INVITE.
        client: ClientTx,
        /// Its CSeq number.
        sequence: u32,
    },
    /// A recording session that a client has with us.
    RecordingSession(server::Step),
    /// A recording's start was asked for.
    RecordingStarted {
        /// Its number.
        number: u64,
        /// Who waits for it.
        reply: Option<ActionReply>,
    },
    /// A side is to hear of its recording.
    Sounding {
        /// Which side.
        side: Side,
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
    pub invitation: Option<Box<Invitation>>,
    /// Our INVITEs, oldest first; after the ACK those that may still be answered, without bodies.
    pub branches: Vec<Branch>,
    /// Requests of the callee that wait for the caller's ACK.
    pub waiting: Vec<(ServerTx, Request)>,
    /// The request that is being passed between the sides with an offer, at most one.
    pub exchange: Option<Box<Passage>>,
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
    /// Who takes part, in the order of joining, with those that left.
    pub parties: Vec<Party>,
    /// Which of the object's legs each side has.
    pub shown: [usize; 2],
    /// The transfer under way.
    pub transfer: Option<Transfer>,
    /// The call whose transfer this one rings the target of. Such a call is shown to nobody.
    pub transfer_of: Option<u64>,
    /// It is no call but a recording session that a client has with us: one leg, nothing relayed.
    pub recording_session: Option<Box<server::Session>>,
    /// The recording session in whose recording this one's streams are.
    pub host: Option<u64>,
    /// The other recording sessions whose streams are in this one's recording.
    pub joined: Vec<server::joined::Joined>,
    /// Legs that were transferred away and are not over.
    pub departing: Vec<Departing>,
    /// What we offer a side by ourselves, at most one at a time.
    pub own_offer: Option<OwnOffer>,
    /// The call whose attended transfer is about to take a party of this one.
    pub consulted_by: Option<u64>,
    /// Which side that party has here.
    pub consulted_side: Side,
    /// How many targets are rung at once.
    pub at_once: usize,
    /// Whose limits it counts against.
    pub source: Option<std::net::IpAddr>,
    /// What its parties know and wish of its recording.
    pub awareness: Awareness,
    /// What each side hears of it.
    pub sounding: [Sounding; 2],
    /// Which sides asked that their identity stays in the trust domain.
    pub private: [bool; 2],
    /// It is a recording session between two others: that one side only receives is no hold.
    pub passes_recording: bool,
}

impl Call {
    /// A call in the phase [`Phase::Preparing`], of which nothing else is known.
    pub fn new(
        key: u64,
        object: object::Call,
        route: Arc<Route>,
        legs: [Leg; 2],
        media: Media,
        negotiation: Negotiation,
    ) -> Self {
        let parties = Party::first_two(&object);
        Self {
            key,
            object,
            route,
            phase: Phase::Preparing,
            legs,
            media,
            negotiation,
            offerer: Side::Caller,
            invitation: None,
            branches: Vec::new(),
            waiting: Vec::new(),
            exchange: None,
            passages: Vec::new(),
            offer: None,
            batches: Vec::new(),
            recordings: Vec::new(),
            answered_mono_ns: 0,
            held_since_ns: None,
            holds: Vec::new(),
            connect_deadline: None,
            ring_deadline: None,
            duration_deadline: None,
            end_deadline: None,
            closed: false,
            announced: false,
            scheduled: None,
            next_batch: 1,
            clients: Vec::new(),
            servers: Vec::new(),
            parties,
            shown: [0, 1],
            transfer: None,
            transfer_of: None,
            recording_session: None,
            host: None,
            joined: Vec::new(),
            departing: Vec::new(),
            own_offer: None,
            consulted_by: None,
            consulted_side: Side::Callee,
            at_once: 1,
            source: None,
            awareness: Awareness::default(),
            sounding: Default::default(),
            private: [false; 2],
            passes_recording: false,
        }
    }

    /// Whether it is a call that people know of.
    pub fn is_shown(&self) -> bool {
        self.transfer_of.is_none() && self.recording_session.is_none()
    }

    /// What each side may send, for the recording's facts.
    pub fn leg_facts(&self) -> Vec<trunkline_sn3::facts::LegFact> {
        match &self.recording_session {
            Some(session) => session.lines.leg_facts(),
            None => self.negotiation.leg_facts(),
        }
    }

    /// Who is heard in a recording session and in those that have joined its recording.
    pub fn heard_parties(&self) -> Option<server::parties::Parties> {
        let own = &self.recording_session.as_ref()?.parties;
        let earlier = self.joined.iter().filter(|one| one.key == 0);
        let others = self.joined.iter().filter(|one| one.key != 0);
        let all = earlier.map(|one| &one.parties).chain([own]);
        let all = all.chain(others.map(|one| &one.parties));
        Some(server::parties::Parties::union(all))
    }

    /// Which channels somebody sends on, in any recording session of the recording.
    pub fn channels_sent(&self) -> Option<[bool; 2]> {
        let own = self.recording_session.as_ref()?.lines.channels_sent();
        let joined = self.joined.iter().map(|one| one.sends);
        Some(joined.fold(own, |sum, one| [sum[0] || one[0], sum[1] || one[1]]))
    }

    /// What the API shows of a side's leg.
    pub fn object_leg(&mut self, side: Side) -> &mut object::Leg {
        let index = self.shown[side as usize].min(self.object.legs.len() - 1);
        &mut self.object.legs[index]
    }

    /// All legs: both sides', then those that are leaving.
    pub fn all_legs(&mut self) -> impl Iterator<Item = &mut Leg> {
        let departing = self.departing.iter_mut().map(|one| &mut one.leg);
        self.legs.iter_mut().chain(departing)
    }

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
        let departing = self.departing.iter().filter_map(|one| one.deadline);
        let sessions = self.legs.iter().filter(|leg| !leg.over);
        let sessions = sessions.filter_map(|leg| leg.session.as_ref()?.poll_timeout());
        [
            self.connect_deadline,
            self.ring_deadline,
            self.duration_deadline,
            self.end_deadline,
            self.own_offer.as_ref().map(|offer| offer.due),
            self.exchange.as_ref().and_then(|passage| passage.due),
        ]
        .into_iter()
        .flatten()
        .chain(batches)
        .chain(departing)
        .chain(sessions)
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
