//! A transfer: one side of an answered call is given to somebody else while the other stays.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use trunkline_link::message::Side;
use trunkline_sinks::Timestamp;
use trunkline_sinks::object::{self, Role};
use trunkline_sip::dialog::Dialog;
use trunkline_sip::message::{Request, Response};
use trunkline_sip::transaction::{ClientTx, ServerTx};

use super::negotiation::Negotiation;
use super::{Branch, Leg};

/// Somebody who takes or took part in a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Party {
    /// Role.
    pub role: Role,
    /// SIP URI.
    pub uri: String,
    /// Whose place: 0 = the caller's, 1 = the callee's. Also the channel of the WAV.
    pub side: u8,
    /// Joined.
    pub from: Timestamp,
    /// Left; `None` = still there.
    pub to: Option<Timestamp>,
}

impl Party {
    /// The caller and the callee of a new call.
    pub fn first_two(call: &object::Call) -> Vec<Self> {
        let one = |role, uri: &str, side: Side| Self {
            role,
            uri: uri.to_owned(),
            side: side as u8,
            from: call.started_at,
            to: None,
        };
        vec![
            one(Role::Caller, &call.caller_uri, Side::Caller),
            one(Role::Callee, &call.callee_uri, Side::Callee),
        ]
    }
}

/// The subscription that a REFER makes (RFC 3515 section 2.4.4): one NOTIFY at a time.
#[derive(Debug, Clone)]
pub struct Subscription {
    /// CSeq of the REFER, where it is not the dialog's first.
    pub id: Option<u32>,
    /// The dialog for NOTIFY after the peer's BYE, which ends the call but not the subscription
    /// (RFC 5057).
    pub dialog: Option<Dialog>,
    /// The NOTIFY under way.
    pub client: Option<ClientTx>,
    /// The status to be told next.
    pub queued: Option<u16>,
    /// The status told last.
    pub told: u16,
    /// The last status was told, or nobody wants to hear of it.
    pub over: bool,
}

impl Subscription {
    /// A new one, whose first NOTIFY says that we try.
    pub const fn new(id: Option<u32>) -> Self {
        Self {
            id,
            dialog: None,
            client: None,
            queued: Some(100),
            told: 0,
            over: false,
        }
    }
}

/// A leg that was transferred away: it is told the outcome, then ended.
#[derive(Debug)]
pub struct Departing {
    /// The leg.
    pub leg: Leg,
    /// Our BYE.
    pub bye: Option<ClientTx>,
    /// When the BYE goes out whatever was told; `None` once it has.
    pub deadline: Option<Instant>,
}

/// A transfer under way.
#[derive(Debug)]
pub struct Transfer {
    /// The side whose party leaves.
    pub leaving: Side,
    /// The object's leg of the newcomer.
    pub leg: usize,
    /// How far it is.
    pub stage: Stage,
}

/// How far a transfer is.
#[derive(Debug)]
pub enum Stage {
    /// A call of ours rings the target.
    Calling {
        /// Its key.
        child: u64,
    },
    /// The far party of another call is offered this one's media.
    Consulting(Box<Consulting>),
    /// The newcomer is there; the party that stays is offered its media.
    Offering(Box<Newcomer>),
}

/// An attended transfer while the consulted party decides.
#[derive(Debug)]
pub struct Consulting {
    /// The other call.
    pub call: u64,
    /// The consulted party's side there.
    pub side: Side,
    /// Our re-INVITE to it.
    pub client: ClientTx,
    /// Its CSeq number.
    pub sequence: u32,
    /// Offer and answer with it, as if it were the callee.
    pub negotiation: Negotiation,
}

/// Who takes a side of the call.
#[derive(Debug)]
pub struct Newcomer {
    /// Its leg, with a dialog.
    pub leg: Leg,
    /// The call's negotiation as it will be.
    pub negotiation: Negotiation,
    /// What we owe it for its answer or its INVITE.
    pub owes: Owes,
    /// INVITEs of ours that may still be answered.
    pub branches: Vec<Branch>,
    /// Another call that ends when this party has left it: its key, and the party's side there.
    pub from_call: Option<(u64, Side)>,
    /// Its URI.
    pub uri: String,
}

/// What a newcomer's INVITE transaction still needs.
#[derive(Debug)]
pub enum Owes {
    /// An ACK for its 2xx to our INVITE.
    Ack {
        /// The INVITE's transaction.
        client: ClientTx,
        /// CSeq number.
        sequence: u32,
    },
    /// Our 2xx to its INVITE.
    Answer {
        /// The INVITE's transaction.
        server: ServerTx,
        /// The INVITE.
        request: Box<Request>,
        /// SDP for it, once known.
        sdp: Option<String>,
    },
}

/// What is owed once the newcomer's media is armed.
#[derive(Debug)]
pub struct Owed {
    /// The newcomer's side.
    pub side: Side,
    /// To the newcomer.
    pub newcomer: Owes,
    /// ACK for the re-INVITE to the party that stayed: transaction, CSeq number.
    pub stayed: Option<(ClientTx, u32)>,
    /// Another call that the newcomer left.
    pub from_call: Option<u64>,
}

/// What the call that rings a transfer's target has to say.
#[derive(Debug)]
pub enum News {
    /// It rings.
    Ringing(u16),
    /// The target is there.
    Answered(Box<Newcomer>),
    /// Nobody took the call.
    Failed(u16),
}

/// An offer of ours to one side, by re-INVITE.
#[derive(Debug)]
pub struct OwnOffer {
    /// Which side.
    pub to: Side,
    /// What for.
    pub purpose: Purpose,
    /// What is offered.
    pub sdp: String,
    /// Our re-INVITE, while one is under way.
    pub client: Option<ClientTx>,
    /// Its CSeq number.
    pub sequence: u32,
    /// How often it was tried.
    pub tries: u8,
    /// When it is sent again, or given up.
    pub due: Instant,
    /// When it is given up whatever happened.
    pub give_up: Instant,
}

/// What an offer of ours is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A newcomer's media is told to the party that stays.
    Transfer,
    /// What the other side says is told again: it differs from what was told before.
    Realign,
    /// It is told that recording has begun, rests or has ended.
    Indicate,
}

impl Outcome {
    /// Status.
    pub fn status(&self) -> u16 {
        match self {
            Self::Accepted { response, .. } => response.status,
            Self::Refused(status) => *status,
        }
    }
}

/// What an offer of ours came to.
#[derive(Debug)]
pub enum Outcome {
    /// Accepted.
    Accepted {
        /// The 2xx.
        response: Response,
        /// The re-INVITE's transaction.
        client: ClientTx,
        /// CSeq number.
        sequence: u32,
    },
    /// Refused, or not answered.
    Refused(u16),
}
