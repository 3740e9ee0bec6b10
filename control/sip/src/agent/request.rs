//! Requests inside dialogs, both ways, and the end by BYE.

use std::time::Instant;

use super::core::Agent;
use super::event::{EndCause, EndedBy, EventKind};
use super::types::{
    AgentError, AttemptHandle, Body, Credentials, DialogHandle, RequestHandle, SentHandle,
    SubscriptionHandle, add_headers,
};
use crate::dialog::{Dialog, DialogError, DialogId, DialogState, Effect, Role, SessionTerms};
use crate::digest::{Challenge, DigestClient, Exchange};
use crate::message::{Headers, Method, Request, Response};
use crate::transaction::{ClientTx, Path, ServerTx};

/// Why a request of ours was sent inside a dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Bye,
    Prack,
    Modify,
    Refer(SubscriptionHandle),
    Notify(SubscriptionHandle),
    User(SentHandle),
}

/// A request of ours that awaits its final response.
#[derive(Clone, Debug)]
pub(super) enum Sent {
    /// The INVITE of an attempt; kept as sent, for the dialogs its answers make.
    Invite {
        attempt: AttemptHandle,
        request: Request,
    },
    InDialog {
        dialog: DialogHandle,
        request: Request,
        purpose: Purpose,
        /// It carries credentials.
        authenticated: bool,
    },
}

/// A request of the peer that the user has to answer.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub(super) dialog: DialogHandle,
    pub(super) request: Request,
    /// What a 2xx agrees on (RFC 4028).
    pub(super) terms: Option<SessionTerms>,
}

impl Open {
    pub(super) fn new(dialog: DialogHandle, request: Request, terms: Option<SessionTerms>) -> Open {
        Open {
            dialog,
            request,
            terms,
        }
    }
}

/// What kind of request the user has to answer.
#[derive(Clone, Debug)]
pub(super) enum Received {
    /// re-INVITE, UPDATE or PRACK.
    Offer(Open),
    Refer(Open),
    Other(Open),
}

impl Received {
    pub(super) fn open(&self) -> &Open {
        let (Received::Offer(open) | Received::Refer(open) | Received::Other(open)) = self;
        open
    }
}

impl<C: Clone + Default> Agent<C> {
    pub(super) fn on_dialog_request(
        &mut self,
        now: Instant,
        tx: ServerTx,
        request: Request,
        path: Path,
    ) {
        let known = DialogId::of_request(&request).and_then(|id| self.by_id.get(&id).copied());
        let Some(handle) = known else {
            return self.reply(now, tx, Response::to(&request, 481));
        };
        let unsupported = self.unsupported(&request);
        let Some(leg) = self.legs.get_mut(&handle) else {
            return;
        };
        if let Err(refusal) = leg.dialog.receive(&request) {
            let mut response = leg.dialog.response(&request, refusal.status);
            if let Some(seconds) = refusal.retry_after_s {
                response.headers.append("Retry-After", seconds.to_string());
            }
            return self.reply(now, tx, response);
        }
        if path.transport.is_reliable() && path.transport == leg.target.transport {
            // The peer may have connected anew.
            leg.target.flow = Some(path.flow);
        }
        if let Some(mut refusal) = unsupported {
            refusal.set_to_tag(leg.dialog.local_tag());
            leg.dialog.sent_response(&request, 420);
            return self.reply(now, tx, refusal);
        }
        leg.note_peer(&request.headers);
        match request.method {
            Method::Invite | Method::Update => self.on_offer(now, handle, tx, request),
            Method::Prack => self.on_prack(now, handle, tx, request),
            Method::Bye => self.on_bye(now, handle, tx, &request),
            Method::Refer => self.on_refer(now, handle, tx, request),
            Method::Notify => self.on_notify(now, handle, tx, &request),
            Method::Options => {
                let mut ok = leg.dialog.response(&request, 200);
                self.add_abilities(&mut ok.headers);
                self.reply(now, tx, ok);
            }
            ref method if self.config.methods.contains(method) => {
                let open = Open::new(handle, request.clone(), None);
                self.received.insert(tx, Received::Other(open));
                let request_handle = RequestHandle(tx.0);
                self.tell(
                    handle,
                    EventKind::Request {
                        request_handle,
                        request,
                    },
                );
            }
            _ => {
                let mut refusal = leg.dialog.response(&request, 405);
                self.add_abilities(&mut refusal.headers);
                self.reply(now, tx, refusal);
            }
        }
    }

    fn on_bye(&mut self, now: Instant, handle: DialogHandle, tx: ServerTx, bye: &Request) {
        let Some(leg) = self.legs.get_mut(&handle) else {
            return;
        };
        let ok = leg.dialog.response(bye, 200);
        leg.dialog.sent_response(bye, 200);
        let ringing = leg.attempt.filter(|_| leg.times.connected.is_none());
        self.reply(now, tx, ok);
        let reasons = bye.headers.reasons().unwrap_or_default();
        self.end(now, handle, EndedBy::Peer, EndCause::Hangup, reasons);
        if let Some(attempt) = ringing {
            // The callee gave up an answer that never reached us.
            let _ = self.cancel(now, attempt, &Headers::new());
        }
    }

    /// Refuses what the peer still awaits in a dialog that is over, with 487 (RFC 3261 section
    /// 15.1.2).
    pub(super) fn refuse_open(&mut self, now: Instant, handle: DialogHandle) {
        let of_it = |received: &Received| received.open().dialog == handle;
        let found = self.received.iter().filter(|(_, received)| of_it(received));
        let mut open: Vec<ServerTx> = found.map(|(tx, _)| *tx).collect();
        open.sort_unstable();
        for tx in open {
            if let Some(received) = self.received.remove(&tx) {
                self.refuse(now, tx, received.open(), 487);
            }
        }
        let Some(leg) = self.legs.get_mut(&handle) else {
            return;
        };
        if let Some(own) = leg.invite.take() {
            let refusal = leg.dialog.response(&own.request, 487);
            self.reply(now, own.tx, refusal);
        }
    }

    /// Answers an open request by itself.
    pub(super) fn refuse(&mut self, now: Instant, tx: ServerTx, open: &Open, status: u16) {
        let Some(leg) = self.legs.get_mut(&open.dialog) else {
            return;
        };
        let response = leg.dialog.response(&open.request, status);
        leg.dialog.sent_response(&open.request, status);
        leg.answer_by.take_if(|(_, waiting)| *waiting == tx);
        self.reply(now, tx, response);
    }

    /// The user was so slow that the sender gave up: nothing can be answered any more, and
    /// nothing waits for it.
    pub(super) fn on_unanswered(&mut self, now: Instant, tx: ServerTx) {
        let Some(received) = self.received.remove(&tx) else {
            return;
        };
        let Open {
            dialog, request, ..
        } = received.open();
        if let Some(leg) = self.legs.get_mut(dialog) {
            leg.dialog.sent_response(request, 408);
            if let Some(invite) = leg
                .invite
                .as_mut()
                .filter(|_| request.method == Method::Prack)
            {
                invite.prack_open = false;
            }
        }
        if matches!(received, Received::Offer(_)) {
            let request_handle = RequestHandle(tx.0);
            self.tell(*dialog, EventKind::OfferGone { request_handle });
        }
        let _ = self.send_waiting(now, *dialog);
        self.settle(now, *dialog);
    }

    /// Answers a request of the peer: INFO, MESSAGE and the like, an offer (with the answer as
    /// body), a REFER that is refused. A provisional status is possible for a re-INVITE only
    /// and leaves it open.
    ///
    /// # Errors
    /// It was answered, or its sender gave up.
    pub fn answer(
        &mut self,
        now: Instant,
        request: RequestHandle,
        status: u16,
        headers: &Headers,
        body: Option<Body>,
    ) -> Result<(), AgentError> {
        let received = self.received_by(request)?.clone();
        let dialog = received.open().dialog;
        let leg = self.leg_mut(dialog)?;
        let mut response = leg.dialog.response(&received.open().request, status);
        add_headers(&mut response.headers, headers);
        if let Some(body) = &body {
            response.set_body(&body.content_type, body.bytes.clone());
        }
        let tx = ServerTx(request.0);
        if status < 200 {
            return self
                .endpoint
                .respond(now, tx, response)
                .map_err(AgentError::Send);
        }
        self.received.remove(&tx);
        match received {
            Received::Offer(open) => self.answer_offer(now, tx, open, response, body),
            Received::Refer(open) | Received::Other(open) => {
                self.leg_mut(dialog)?
                    .dialog
                    .sent_response(&open.request, status);
                self.endpoint.respond(now, tx, response)?;
                Ok(())
            }
        }
    }

    /// Sends a request inside a dialog: INFO, MESSAGE, OPTIONS, NOTIFY of another package or
    /// any other method that has no operation of its own. Its end comes as
    /// [`EventKind::Response`].
    ///
    /// # Errors
    /// The dialog is over; the method has an operation of its own.
    pub fn request(
        &mut self,
        now: Instant,
        dialog: DialogHandle,
        method: Method,
        headers: &Headers,
        body: Option<Body>,
    ) -> Result<SentHandle, AgentError> {
        use Method::{Ack, Bye, Cancel, Invite, Prack, Refer, Update};
        if matches!(method, Ack | Bye | Cancel | Invite | Prack | Refer | Update) {
            return Err(AgentError::Method);
        }
        let sent = SentHandle(self.next_number());
        let mut request = self.leg_mut(dialog)?.dialog.request(method)?;
        add_headers(&mut request.headers, headers);
        if let Some(body) = body {
            request.set_body(&body.content_type, body.bytes);
        }
        self.send(now, dialog, request, Purpose::User(sent))?;
        Ok(sent)
    }

    /// Ends a dialog as its state asks: BYE; a call that rings here is refused with 480, one
    /// that rings there is cancelled with all its forks. A BYE waits for the ACK of our 2xx
    /// (RFC 3261 section 15). `headers` (Reason) go with it.
    ///
    /// # Errors
    /// The dialog is over, or the hang-up is under way.
    pub fn hangup(
        &mut self,
        now: Instant,
        dialog: DialogHandle,
        headers: &Headers,
    ) -> Result<(), AgentError> {
        let leg = self.leg_mut(dialog)?;
        if leg.hangup.is_some() {
            return Err(AgentError::Ended);
        }
        match (leg.dialog.state(), leg.dialog.role(), leg.attempt) {
            (DialogState::Early, Role::Uas, _) => self.reject(now, dialog, 480, headers),
            (DialogState::Early, Role::Uac, Some(attempt)) => self.cancel(now, attempt, headers),
            _ if leg.ack_due.is_some() => {
                leg.hangup = Some(headers.clone());
                Ok(())
            }
            _ => {
                self.send_bye(now, dialog, headers, EndCause::Hangup);
                Ok(())
            }
        }
    }

    /// Acknowledges what is to be acknowledged, sends BYE, and ends the dialog for its user.
    pub(super) fn send_bye(
        &mut self,
        now: Instant,
        dialog: DialogHandle,
        headers: &Headers,
        cause: EndCause,
    ) {
        if self
            .leg(dialog)
            .is_ok_and(|leg| leg.unacknowledged.is_some())
        {
            let _ = self.acknowledge(now, dialog, None);
        }
        let Some(leg) = self.legs.get_mut(&dialog) else {
            return;
        };
        if let Ok(mut bye) = leg.dialog.request(Method::Bye) {
            add_headers(&mut bye.headers, headers);
            let _ = self.send(now, dialog, bye, Purpose::Bye);
        }
        self.end(now, dialog, EndedBy::Us, cause, Vec::new());
    }

    /// Ends a dialog whose place another call took.
    pub(super) fn replace(&mut self, now: Instant, dialog: DialogHandle) {
        let Ok(leg) = self.leg(dialog) else { return };
        match leg
            .attempt
            .filter(|_| leg.dialog.state() == DialogState::Early)
        {
            Some(attempt) => {
                let _ = self.cancel(now, attempt, &Headers::new());
            }
            None => self.send_bye(now, dialog, &Headers::new(), EndCause::Replaced),
        }
    }

    /// Sends a request of a dialog.
    pub(super) fn send(
        &mut self,
        now: Instant,
        dialog: DialogHandle,
        request: Request,
        purpose: Purpose,
    ) -> Result<ClientTx, AgentError> {
        self.send_as(now, dialog, request, purpose, false)
    }

    fn send_as(
        &mut self,
        now: Instant,
        dialog: DialogHandle,
        request: Request,
        purpose: Purpose,
        authenticated: bool,
    ) -> Result<ClientTx, AgentError> {
        let target = self.target_of(dialog)?;
        let tx = self.endpoint.send_request(now, request.clone(), &target)?;
        if let Some(leg) = self.legs.get_mut(&dialog) {
            leg.in_flight += 1;
        }
        self.sent.insert(
            tx,
            Sent::InDialog {
                dialog,
                request,
                purpose,
                authenticated,
            },
        );
        Ok(tx)
    }

    pub(super) fn on_response(
        &mut self,
        now: Instant,
        tx: ClientTx,
        response: Response,
        path: Path,
    ) {
        match self.sent.get(&tx) {
            Some(Sent::Invite { attempt, request }) => {
                let (attempt, request) = (*attempt, request.clone());
                self.on_invite_response(now, tx, attempt, &request, response, Some(path));
            }
            Some(Sent::InDialog { .. }) if response.is_final() => {
                self.on_final(now, tx, response);
            }
            _ => {}
        }
    }

    /// No response at all: 408 and 503 in effect (RFC 3261 section 8.1.3.1).
    pub(super) fn on_no_response(&mut self, now: Instant, tx: ClientTx, status: u16) {
        match self.sent.get(&tx) {
            Some(Sent::Invite { attempt, request }) => {
                let (attempt, request) = (*attempt, request.clone());
                let response = Response::to(&request, status);
                self.on_invite_response(now, tx, attempt, &request, response, None);
            }
            Some(Sent::InDialog { request, .. }) => {
                let response = Response::to(request, status);
                self.on_final(now, tx, response);
            }
            None => {}
        }
    }

    fn on_final(&mut self, now: Instant, tx: ClientTx, response: Response) {
        let Some(Sent::InDialog {
            dialog,
            request,
            purpose,
            authenticated,
        }) = self.sent.remove(&tx)
        else {
            return;
        };
        let Some(leg) = self.legs.get_mut(&dialog) else {
            return;
        };
        leg.in_flight -= 1;
        leg.note_peer(&response.headers);
        let effect = leg.dialog.handle_response(&response);
        let challenged = matches!(response.status, 401 | 407) && !authenticated;
        if challenged
            && self
                .send_again(now, dialog, &request, purpose, &response)
                .is_some()
        {
            return;
        }
        match purpose {
            Purpose::Bye | Purpose::Prack => {}
            Purpose::Modify => self.on_modify_response(now, dialog, tx, response),
            Purpose::Refer(subscription) => self.on_refer_response(now, subscription, &response),
            Purpose::Notify(subscription) => self.on_notify_response(subscription, &response),
            Purpose::User(sent) => self.tell(dialog, EventKind::Response { sent, response }),
        }
        let alive = self.leg(dialog).is_ok();
        if effect == Effect::PeerLost && purpose != Purpose::Bye && alive {
            return self.send_bye(now, dialog, &Headers::new(), EndCause::PeerLost);
        }
        self.settle(now, dialog);
    }

    /// Answers a challenge to a request of a dialog by sending it anew.
    fn send_again(
        &mut self,
        now: Instant,
        dialog: DialogHandle,
        request: &Request,
        purpose: Purpose,
        challenge: &Response,
    ) -> Option<()> {
        let leg = self.legs.get_mut(&dialog)?;
        let credentials = leg.credentials.clone()?;
        // A BYE ended the dialog for us; its own retry is still of it.
        let mut again = if purpose == Purpose::Bye {
            rebuilt_bye(&leg.dialog, request)
        } else {
            rebuilt(&mut leg.dialog, request).ok()?
        };
        authorize(&mut again, challenge, &credentials, &mut self.random)?;
        let tx = self.send_as(now, dialog, again, purpose, true).ok()?;
        if purpose == Purpose::Modify
            && let Some(leg) = self.legs.get_mut(&dialog)
            && let Some((waiting, _)) = &mut leg.modifying
        {
            *waiting = tx;
        }
        Some(())
    }

    pub(super) fn on_dialog_alarm(&mut self, now: Instant, dialog: DialogHandle) {
        let Some(leg) = self.legs.get_mut(&dialog) else {
            return;
        };
        if leg.user_timer.take_if(|at| *at <= now).is_some() {
            self.tell(dialog, EventKind::Timer);
        }
        self.on_modify_alarm(now, dialog);
        self.on_session_alarm(now, dialog);
        self.settle(now, dialog);
    }
}

/// The same request with the dialog's next CSeq.
pub(super) fn rebuilt(dialog: &mut Dialog, request: &Request) -> Result<Request, DialogError> {
    let fresh = dialog.request(request.method.clone())?;
    Ok(with_content_of(fresh, request))
}

/// A BYE of a dialog that has ended by its first one.
fn rebuilt_bye(dialog: &Dialog, request: &Request) -> Request {
    let mut again = request.clone();
    let number = dialog.local_seq() + 1;
    again.headers.remove("Via");
    again.headers.set("CSeq", format!("{number} BYE"));
    again
}

fn with_content_of(mut fresh: Request, request: &Request) -> Request {
    for field in &request.headers {
        let name = field.name();
        if !field.is("Via") && !field.is("Contact") && !fresh.headers.contains(name) {
            fresh.headers.append(name, field.value());
        }
    }
    fresh.body.clone_from(&request.body);
    fresh
}

/// Adds the credentials that a 401 or 407 asks for; `None` when it names no challenge that we
/// can answer.
pub(super) fn authorize(
    request: &mut Request,
    challenged: &Response,
    credentials: &Credentials,
    random: &mut rand::rngs::StdRng,
) -> Option<()> {
    let (asked, given) = match challenged.status {
        401 => ("WWW-Authenticate", "Authorization"),
        _ => ("Proxy-Authenticate", "Proxy-Authorization"),
    };
    let challenge = Challenge::strongest(&challenged.headers, asked)?;
    let Credentials { username, password } = credentials;
    let mut client = DigestClient::new(username, password, challenge, random);
    let (method, uri) = (request.method.to_string(), request.uri.to_string());
    let exchange = Exchange {
        method: &method,
        uri: &uri,
        body: &request.body,
    };
    let value = client.answer(&exchange);
    request.headers.set(given, value);
    Some(())
}
