//! What an agent keeps of one dialog.

use std::collections::VecDeque;
use std::time::Instant;

use super::types::{AttemptHandle, Body, Credentials, DialogHandle};
use super::view::{CallState, DialogView, Side, Times};
use crate::dialog::{
    Dialog, DialogState, Party, Role, SessionPolicy, SessionTerms, SessionTimer, called_party,
    calling_party,
};
use crate::message::{Headers, Request, Response};
use crate::transaction::{ClientTx, ServerTx, Target};

/// The INVITE that made a dialog of ours as callee, while it awaits its final response.
#[derive(Clone, Debug)]
pub(super) struct IncomingInvite {
    pub(super) tx: ServerTx,
    pub(super) request: Request,
    /// What to agree on with the 2xx (RFC 4028).
    pub(super) terms: Option<SessionTerms>,
    pub(super) replaces: Option<DialogHandle>,
    /// The reliable provisional that awaits its PRACK.
    pub(super) unacknowledged: Option<u32>,
    /// Whether the last reliable provisional carried our offer, which PRACK answers.
    pub(super) offered: bool,
    /// A PRACK with an offer waits for the user's answer.
    pub(super) prack_open: bool,
    /// What waits for the PRACK: provisionals, with whether they are reliable.
    pub(super) queue: VecDeque<(Response, bool)>,
    /// The 2xx, where it has to wait.
    pub(super) answer: Option<Response>,
}

/// A 2xx of ours to an INVITE that awaits its ACK.
#[derive(Clone, Copy, Debug)]
pub(super) struct AckDue {
    pub(super) tx: ServerTx,
    pub(super) cseq: u32,
    /// Whether the 2xx carried our offer, so that nothing new may be offered before the ACK.
    pub(super) offered: bool,
}

/// A 2xx of the peer to an INVITE of ours that the user acknowledges.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unacknowledged {
    pub(super) tx: ClientTx,
    pub(super) cseq: u32,
}

/// How a session is modified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ModifyBy {
    Invite,
    Update,
}

/// A change the user, or the session timer, wants.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) by: ModifyBy,
    pub(super) body: Option<Body>,
    pub(super) headers: Headers,
    /// The session timer's own.
    pub(super) refresh: bool,
    pub(super) tries: u8,
}

/// One dialog.
#[derive(Debug)]
pub(super) struct Leg<C> {
    pub(super) dialog: Dialog,
    pub(super) context: C,
    /// Set while we are the caller and the INVITE's transaction may still tell.
    pub(super) attempt: Option<AttemptHandle>,
    pub(super) target: Target,
    /// The user chose the target.
    pub(super) fixed_target: bool,
    calling: Option<Party>,
    called: Party,
    pub(super) times: Times,
    pub(super) local_body: Option<Body>,
    pub(super) remote_body: Option<Body>,
    pub(super) invite: Option<IncomingInvite>,
    pub(super) ack_due: Option<AckDue>,
    pub(super) unacknowledged: Option<Unacknowledged>,
    /// A reliable provisional with an offer that the user has to answer by PRACK.
    pub(super) prack_wanted: Option<Response>,
    pub(super) wishes: VecDeque<Wish>,
    pub(super) modifying: Option<(ClientTx, Wish)>,
    pub(super) retry_at: Option<Instant>,
    /// The peer's re-INVITE that the user has to answer, and until when.
    pub(super) answer_by: Option<(Instant, ServerTx)>,
    /// A hang-up that waits for the ACK of our 2xx.
    pub(super) hangup: Option<Headers>,
    pub(super) policy: Option<SessionPolicy>,
    pub(super) timer: Option<SessionTimer>,
    /// Whether the peer takes UPDATE.
    pub(super) peer_updates: bool,
    pub(super) credentials: Option<Credentials>,
    pub(super) refers: u32,
    pub(super) user_timer: Option<Instant>,
    /// Requests of ours that await their final response.
    pub(super) in_flight: usize,
    /// Over for the user; kept until nothing is in flight, so that a late 2xx gets its ACK.
    pub(super) ended: bool,
}

impl<C> Leg<C> {
    /// A leg; `first` is the INVITE that made its dialog, sent or received.
    pub(super) fn new(
        now: Instant,
        dialog: Dialog,
        context: C,
        first: &Request,
        trusted: bool,
        target: Target,
    ) -> Leg<C> {
        let offer = Body::of(&first.headers, &first.body);
        let (local_body, remote_body) = match dialog.role() {
            Role::Uac => (offer, None),
            Role::Uas => (None, offer),
        };
        Leg {
            context,
            attempt: None,
            target,
            fixed_target: false,
            calling: calling_party(first, trusted || dialog.role() == Role::Uac),
            called: called_party(first),
            times: Times {
                started: now,
                early: None,
                connected: None,
                ended: None,
            },
            local_body,
            remote_body,
            invite: None,
            ack_due: None,
            unacknowledged: None,
            prack_wanted: None,
            wishes: VecDeque::new(),
            modifying: None,
            retry_at: None,
            answer_by: None,
            hangup: None,
            policy: None,
            timer: None,
            peer_updates: updates(&first.headers) && dialog.role() == Role::Uas,
            credentials: None,
            refers: 0,
            user_timer: None,
            in_flight: 0,
            ended: false,
            dialog,
        }
    }

    /// A leg from its snapshot's parts.
    pub(super) fn restored(
        dialog: Dialog,
        context: C,
        parties: (Option<Party>, Party),
        times: Times,
        target: Target,
    ) -> Leg<C> {
        let first = Request::new(
            crate::message::Method::Invite,
            dialog.remote_target().clone(),
        );
        let mut leg = Leg::new(times.started, dialog, context, &first, false, target);
        (leg.calling, leg.called) = parties;
        leg.times = times;
        leg
    }

    pub(super) fn parties(&self) -> (&Option<Party>, &Party) {
        (&self.calling, &self.called)
    }

    pub(super) fn view(&self) -> DialogView {
        let id = self.dialog.id();
        let state = match self.dialog.state() {
            _ if self.ended => CallState::Terminated,
            DialogState::Terminated => CallState::Terminated,
            DialogState::Confirmed => CallState::Confirmed,
            DialogState::Early if self.times.early.is_none() => CallState::Pending,
            DialogState::Early => CallState::Early,
        };
        let local = Side {
            tag: id.local_tag.clone(),
            user: user_of(self.dialog.local_address()),
            address: self.local_address(),
            body: self.local_body.clone(),
        };
        let remote = Side {
            tag: id.remote_tag.clone(),
            user: user_of(self.dialog.remote_address()),
            address: self.target.remote,
            body: self.remote_body.clone(),
        };
        DialogView {
            id,
            state,
            role: self.dialog.role(),
            calling: self.calling.clone(),
            called: self.called.clone(),
            times: self.times,
            local,
            remote,
        }
    }

    fn local_address(&self) -> std::net::SocketAddr {
        let text = self.target.sent_by.as_str();
        text.parse().unwrap_or(self.target.remote)
    }

    /// Notes what the peer says it can do.
    pub(super) fn note_peer(&mut self, headers: &Headers) {
        if headers.contains("Allow") {
            self.peer_updates = updates(headers);
        }
    }

    /// When something of this leg is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let session = self.timer.as_ref().and_then(SessionTimer::poll_timeout);
        let answer = self.answer_by.map(|(at, _)| at);
        [session, answer, self.retry_at, self.user_timer]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether a change of the session may begin now.
    pub(super) fn may_modify(&self, by: ModifyBy) -> bool {
        let free = !self.ended
            && self.modifying.is_none()
            && self.retry_at.is_none()
            && self.ack_due.is_none()
            && self.unacknowledged.is_none()
            && self.answer_by.is_none()
            && self.hangup.is_none();
        match by {
            ModifyBy::Invite => {
                free && self.dialog.state() == DialogState::Confirmed
                    && !self.dialog.invite_pending()
            }
            ModifyBy::Update => free,
        }
    }

    /// The session was agreed on anew: the timer runs from here.
    pub(super) fn agreed(&mut self, now: Instant, terms: Option<SessionTerms>) {
        self.timer = terms.map(|terms| SessionTimer::start(now, terms));
    }
}

fn updates(headers: &Headers) -> bool {
    headers.list_contains("Allow", "UPDATE")
}

fn user_of(address: &str) -> String {
    let parsed = crate::message::NameAddr::parse(address, "From").ok();
    let user = parsed.and_then(|address| address.uri.user_decoded().map(|user| user.into_owned()));
    user.unwrap_or_default()
}
