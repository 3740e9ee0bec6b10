//! What an [`Agent`](super::Agent) tells its user.

use super::types::{
    AttemptHandle, Body, DialogHandle, HuntHandle, RequestHandle, SentHandle, SubscriptionHandle,
};
use super::view::DialogView;
use crate::message::{NameAddr, Reason, Request, Response};

/// Something happened. The context is a clone of what the user keeps with the dialog or
/// attempt.
#[derive(Clone, Debug)]
pub struct AgentEvent<C> {
    /// The attempt it is about: present for events of calls we place until they are answered.
    pub attempt: Option<AttemptHandle>,
    /// The dialog it is about, once there is one.
    pub dialog: Option<DialogHandle>,
    pub context: C,
    pub kind: EventKind,
}

/// What an offer of the peer changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaChange {
    /// The peer receives nothing any more, judged by each m-line's direction.
    Hold,
    /// The peer receives again.
    Unhold,
    /// Anything else, or a body that is no SDP.
    Other,
    /// There is no offer: the peer asks for ours.
    OfferWanted,
}

/// Who ended a dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedBy {
    Us,
    Peer,
}

/// Why a dialog ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndCause {
    /// By BYE, or an early one by the user's refusal.
    Hangup,
    /// By CANCEL.
    Cancelled,
    /// The INVITE failed with this status.
    Failed(u16),
    /// Another fork of the INVITE answered.
    OtherFork,
    /// It answered when the call was cancelled or another fork had won.
    LateAnswer,
    /// Our 2xx was never acknowledged.
    NoAck,
    /// Our reliable provisional was never acknowledged.
    NoPrack,
    /// The session timer ran out (RFC 4028).
    SessionExpired,
    /// The peer knows the dialog no more (481) or does not answer (408).
    PeerLost,
    /// A call with Replaces took its place.
    Replaced,
}

/// The end of a dialog.
#[derive(Clone, Debug)]
pub struct End {
    pub by: EndedBy,
    pub cause: EndCause,
    /// Reason headers of the peer's BYE or CANCEL (RFC 3326).
    pub reasons: Vec<Reason>,
    /// The dialog as it was in the end.
    pub view: Box<DialogView>,
}

/// The kinds of events.
#[derive(Clone, Debug)]
pub enum EventKind {
    /// A call: ring, accept or reject it. With Replaces: the dialog whose place it takes once
    /// it is accepted.
    Incoming {
        request: Request,
        replaces: Option<DialogHandle>,
    },
    /// A provisional response to our INVITE: without a dialog where it has no To tag.
    Progress {
        response: Response,
        reliable: bool,
        /// It brings an offer: give [`answer_provisional`](super::Agent::answer_provisional).
        answer_wanted: bool,
    },
    /// Our INVITE is answered; the other forks end. Where `acknowledge` says so, give
    /// [`acknowledge`](super::Agent::acknowledge), with the answer where the 2xx has an offer.
    Answered {
        response: Response,
        acknowledge: bool,
    },
    /// Our INVITE failed for good: refused (with its response), unanswered (408), not sent
    /// (503), cancelled.
    Failed {
        status: u16,
        response: Option<Response>,
        cancelled: bool,
    },
    /// No target of a hunt answered: the best failure of its branches, with its response unless
    /// it was our own.
    HuntFailed {
        hunt: HuntHandle,
        status: u16,
        response: Option<Response>,
    },
    /// Our reliable provisional was acknowledged; with the answer where it had our offer.
    ProvisionalAcknowledged { body: Option<Body> },
    /// Our 2xx (of the call, or of a re-INVITE) was acknowledged; with the answer where it had
    /// our offer.
    Acknowledged { body: Option<Body> },
    /// The peer offers something new by re-INVITE, UPDATE or PRACK: give
    /// [`answer`](super::Agent::answer).
    Offer {
        request_handle: RequestHandle,
        request: Request,
        change: MediaChange,
    },
    /// The peer took back an offer that was not answered yet (CANCEL of a re-INVITE), or the
    /// user was too slow: it was answered by the agent.
    OfferGone { request_handle: RequestHandle },
    /// Our re-INVITE or UPDATE was accepted.
    Modified {
        response: Response,
        /// As in [`EventKind::Answered`].
        acknowledge: bool,
    },
    /// Our re-INVITE or UPDATE was refused; all is as it was.
    ModifyFailed {
        status: u16,
        response: Option<Response>,
    },
    /// The session was refreshed without a change.
    Refreshed { by: EndedBy },
    /// Another request of the peer: give [`answer`](super::Agent::answer).
    Request {
        request_handle: RequestHandle,
        request: Request,
    },
    /// The end of a request that the user sent.
    Response {
        sent: SentHandle,
        response: Response,
    },
    /// The peer asks us to call somebody (RFC 3515): give
    /// [`accept_refer`](super::Agent::accept_refer), or refuse it by
    /// [`answer`](super::Agent::answer). Refer-To may carry Replaces in its URI.
    Refer {
        request_handle: RequestHandle,
        request: Request,
        refer_to: NameAddr,
    },
    /// How our REFER goes: `status` is what the new call answered so far. `done`: nothing more
    /// comes; without a status the outcome remains unknown.
    ReferProgress {
        subscription: SubscriptionHandle,
        status: Option<u16>,
        done: bool,
    },
    /// The user's timer of the dialog is due.
    Timer,
    /// The dialog is over.
    Ended(End),
}
