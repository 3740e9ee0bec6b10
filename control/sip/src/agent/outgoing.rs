//! Calls we place: forks, reliable provisionals, the answer, CANCEL.

use std::collections::VecDeque;
use std::time::Instant;

use super::alarms::Subject;
use super::core::Agent;
use super::event::{EndCause, EndedBy, EventKind};
use super::leg::{Leg, Unacknowledged};
use super::request::{Purpose, Sent};
use super::types::{
    AgentError, AttemptHandle, Body, DialogHandle, HuntHandle, Invite, add_headers,
};
use crate::dialog::{Dialog, DialogId, DialogState, Reliability, SessionPolicy};
use crate::message::{Headers, Method, Request, Response, Uri};
use crate::transaction::{ClientTx, Path, SendError, Target};

/// An INVITE of ours over all its retries.
#[derive(Debug)]
pub(super) struct Attempt<C> {
    pub(super) context: C,
    pub(super) invite: Invite,
    pub(super) from: String,
    pub(super) call_id: String,
    pub(super) cseq: u32,
    pub(super) uri: Uri,
    pub(super) target: Target,
    pub(super) started: Instant,
    /// The transaction whose answers count; those of earlier ones are too late.
    pub(super) tx: ClientTx,
    pub(super) transactions: Vec<ClientTx>,
    pub(super) policy: Option<SessionPolicy>,
    /// Header and value of the credentials in use.
    pub(super) authorization: Option<(&'static str, String)>,
    pub(super) redirects: VecDeque<Uri>,
    pub(super) redirects_left: u8,
    pub(super) cancelled: bool,
    pub(super) winner: Option<DialogHandle>,
    /// It was answered, refused or given up.
    pub(super) finished: bool,
    /// It was cancelled because nobody answered in the user's time.
    pub(super) timed_out: bool,
    pub(super) hunt: Option<HuntHandle>,
}

impl<C: Clone + Default> Agent<C> {
    /// Places a call. Every event of it carries a clone of `context`, until its dialog has one
    /// of its own.
    ///
    /// # Errors
    /// Too many transactions.
    pub fn call(
        &mut self,
        now: Instant,
        invite: Invite,
        context: C,
    ) -> Result<AttemptHandle, AgentError> {
        self.call_as(now, invite, context, None)
    }

    /// Places a call, as a branch of a hunt or by itself.
    pub(super) fn call_as(
        &mut self,
        now: Instant,
        invite: Invite,
        context: C,
        hunt: Option<HuntHandle>,
    ) -> Result<AttemptHandle, AgentError> {
        let tag = self.endpoint.new_tag();
        let handle = AttemptHandle(self.next_number());
        let mut attempt = Attempt {
            context,
            from: invite.from.clone().with_tag(Some(&tag)).to_string(),
            call_id: self.endpoint.new_call_id(&invite.host),
            cseq: 1,
            uri: invite.uri.clone(),
            target: invite.target.clone(),
            started: now,
            tx: ClientTx(0),
            transactions: Vec::new(),
            policy: self.config.session,
            authorization: None,
            redirects: VecDeque::new(),
            redirects_left: invite.redirects_max,
            cancelled: false,
            winner: None,
            finished: false,
            timed_out: false,
            hunt,
            invite,
        };
        let request = self.build_invite(&attempt);
        let tx = self
            .endpoint
            .send_request(now, request.clone(), &attempt.target)?;
        attempt.tx = tx;
        attempt.transactions.push(tx);
        let give_up_at = attempt.invite.ring_timeout.map(|wait| now + wait);
        self.alarms.set(Subject::Attempt(handle), give_up_at);
        self.attempts.insert(handle, attempt);
        self.sent.insert(
            tx,
            Sent::Invite {
                attempt: handle,
                request,
            },
        );
        Ok(handle)
    }

    pub(super) fn build_invite(&self, attempt: &Attempt<C>) -> Request {
        let invite = &attempt.invite;
        let mut request = Request::new(Method::Invite, attempt.uri.clone());
        let headers = &mut request.headers;
        for route in &invite.route {
            headers.append("Route", route);
        }
        headers.append("Max-Forwards", "70");
        headers.append("From", &attempt.from);
        headers.append("To", invite.to.clone().with_tag(None).to_string());
        headers.append("Call-ID", &attempt.call_id);
        headers.append("CSeq", format!("{} INVITE", attempt.cseq));
        headers.append("Contact", format!("<{}>", self.config.contact));
        self.add_abilities(headers);
        if !invite.reliable {
            let supported: Vec<&str> = self.supported();
            let kept: Vec<&str> = supported
                .into_iter()
                .filter(|name| *name != "100rel")
                .collect();
            headers.set("Supported", kept.join(", "));
        }
        if let Some(replaces) = &invite.replaces {
            headers.append("Replaces", replaces.to_string());
            headers.append("Require", "replaces");
        }
        for field in &invite.headers {
            if headers.contains("Max-Forwards") && field.is("Max-Forwards") {
                headers.set("Max-Forwards", field.value());
            }
        }
        let mut extra = invite.headers.clone();
        extra.remove("Max-Forwards");
        add_headers(headers, &extra);
        if let Some((name, value)) = &attempt.authorization {
            headers.set(name, value);
        }
        if let Some(policy) = attempt.policy {
            policy.propose(&mut request, None);
        }
        if let Some(body) = &invite.body {
            request.set_body(&body.content_type, body.bytes.clone());
        }
        request
    }

    /// Gives up a call that is not answered yet: CANCEL on the live INVITE, with these headers
    /// (Reason), once a provisional response allows it. An answer that crosses it is
    /// acknowledged and ended by BYE. Its end comes as [`EventKind::Failed`].
    ///
    /// # Errors
    /// The attempt is over, or answered: hang its dialog up.
    pub fn cancel(
        &mut self,
        now: Instant,
        attempt: AttemptHandle,
        headers: &Headers,
    ) -> Result<(), AgentError> {
        let gone = self.gone(attempt.0);
        let own = self.attempts.get_mut(&attempt).ok_or(gone)?;
        if own.finished {
            return Err(AgentError::Ended);
        }
        own.cancelled = true;
        let fields: Vec<(String, String)> = headers
            .iter()
            .map(|field| (field.name().to_owned(), field.text().into_owned()))
            .collect();
        let pairs: Vec<(&str, &str)> = fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        match self.endpoint.cancel(now, own.tx, &pairs) {
            Ok(_) | Err(SendError::AlreadyFinal | SendError::NoTransaction) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The user's context of an attempt, to change; dialogs that it has made keep theirs.
    ///
    /// # Errors
    /// It is over, or never was.
    pub fn attempt_context_mut(&mut self, attempt: AttemptHandle) -> Result<&mut C, AgentError> {
        let gone = self.gone(attempt.0);
        let own = self.attempts.get_mut(&attempt).ok_or(gone)?;
        Ok(&mut own.context)
    }

    /// A response to an INVITE that is no re-INVITE. `path` is missing when it is our own for
    /// want of one.
    pub(super) fn on_invite_response(
        &mut self,
        now: Instant,
        tx: ClientTx,
        handle: AttemptHandle,
        request: &Request,
        response: Response,
        path: Option<Path>,
    ) {
        let Some(attempt) = self.attempts.get(&handle) else {
            return;
        };
        let current = attempt.tx == tx && !attempt.finished;
        match response.status {
            ..=100 => {}
            101..=199 if current && !attempt.cancelled => {
                self.on_progress(now, handle, request, response, path);
            }
            101..=199 => {}
            200..=299 if current && !attempt.cancelled => {
                self.on_answered(now, tx, handle, request, response, path);
            }
            200..=299 => self.on_late_answer(now, tx, handle, request, response),
            _ if current => self.on_refused(now, handle, request, response, path.is_some()),
            _ => {}
        }
    }

    /// The dialog of a fork, made with its first response.
    fn fork(
        &mut self,
        now: Instant,
        handle: AttemptHandle,
        request: &Request,
        response: &Response,
    ) -> Option<(DialogHandle, bool)> {
        let id = DialogId::of_response(response);
        if let Some(known) = id.and_then(|id| self.by_id.get(&id).copied()) {
            let ended = self.legs.get(&known).is_none_or(|leg| leg.ended);
            if !ended || !response.is_success() {
                return Some((known, false));
            }
            // A fork that was over answers all the same: what was in flight in it is moot.
            if let Some(leg) = self.legs.remove(&known) {
                self.by_id.remove(&leg.dialog.id());
            }
            self.alarms.set(Subject::Dialog(known), None);
        }
        let dialog = Dialog::uac(request, response).ok()?;
        let attempt = self.attempts.get(&handle)?;
        let (context, target) = (attempt.context.clone(), attempt.target.clone());
        let mut leg = Leg::new(now, dialog, context, request, true, target);
        leg.attempt = Some(handle);
        leg.times.started = attempt.started;
        leg.policy = attempt.policy;
        leg.credentials.clone_from(&attempt.invite.credentials);
        Some((self.add_leg(leg), true))
    }

    fn on_progress(
        &mut self,
        now: Instant,
        handle: AttemptHandle,
        request: &Request,
        response: Response,
        _path: Option<Path>,
    ) {
        let Some((dialog, new)) = self.fork(now, handle, request, &response) else {
            let kind = EventKind::Progress {
                response,
                reliable: false,
                answer_wanted: false,
            };
            return self.tell_attempt(handle, kind);
        };
        let Some(leg) = self.legs.get_mut(&dialog).filter(|leg| !leg.ended) else {
            return;
        };
        let reliability = leg.dialog.receive_provisional(&response);
        if matches!(reliability, Reliability::Repeated | Reliability::OutOfOrder) {
            return;
        }
        leg.note_peer(&response.headers);
        if !new {
            leg.dialog.handle_response(&response);
        }
        leg.times.early.get_or_insert(now);
        let body = Body::of(&response.headers, &response.body);
        let reliable = reliability == Reliability::Acknowledge;
        let first_body = body.is_some() && leg.remote_body.is_none();
        if body.is_some() {
            leg.remote_body = body;
        }
        let answer_wanted = reliable && first_body && request.body.is_empty();
        if answer_wanted {
            leg.prack_wanted = Some(response.clone());
        } else if reliable && let Ok(prack) = leg.dialog.prack(&response) {
            let _ = self.send(now, dialog, prack, Purpose::Prack);
        }
        self.tell(
            dialog,
            EventKind::Progress {
                response,
                reliable,
                answer_wanted,
            },
        );
        self.settle(now, dialog);
    }

    /// Answers the offer that a reliable provisional brought: the answer goes into its PRACK
    /// (RFC 3262 section 5).
    ///
    /// # Errors
    /// The dialog is over, or nothing awaits an answer.
    pub fn answer_provisional(
        &mut self,
        now: Instant,
        dialog: DialogHandle,
        body: Body,
    ) -> Result<(), AgentError> {
        let leg = self.leg_mut(dialog)?;
        let wanted = leg.prack_wanted.take();
        let response = wanted.ok_or(AgentError::State("no provisional awaits an answer"))?;
        let mut prack = leg.dialog.prack(&response)?;
        prack.set_body(&body.content_type, body.bytes.clone());
        leg.local_body = Some(body);
        self.send(now, dialog, prack, Purpose::Prack)?;
        Ok(())
    }

    fn on_answered(
        &mut self,
        now: Instant,
        tx: ClientTx,
        handle: AttemptHandle,
        request: &Request,
        mut response: Response,
        path: Option<Path>,
    ) {
        let usable = response.headers.contact_uri().is_some();
        if !usable {
            // It is acknowledged and ended all the same, by way of the Request-URI.
            let fallback = format!("<{}>", request.uri);
            response.headers.set("Contact", fallback);
        }
        let Some((dialog, new)) = self.fork(now, handle, request, &response) else {
            return self.fail(now, handle, 502, Some(response));
        };
        let Some(attempt) = self.attempts.get_mut(&handle) else {
            return;
        };
        let (later, hunt) = (attempt.invite.acknowledge_later, attempt.hunt);
        (attempt.winner, attempt.finished) = (Some(dialog), true);
        let Some(leg) = self.legs.get_mut(&dialog) else {
            return;
        };
        if !new {
            leg.dialog.handle_response(&response);
        }
        leg.note_peer(&response.headers);
        leg.times.connected = Some(now);
        if let Some(path) = path.filter(|path| path.transport == leg.target.transport) {
            leg.target.flow = Some(path.flow);
        }
        leg.agreed(now, SessionPolicy::agreed(&response.headers));
        let cseq = request.headers.cseq().map_or(1, |cseq| cseq.number);
        leg.unacknowledged = Some(Unacknowledged { tx, cseq });
        let body = Body::of(&response.headers, &response.body);
        let offered = request.body.is_empty() && leg.remote_body.is_none() && body.is_some();
        if body.is_some() {
            leg.remote_body = body;
        }
        self.end_other_forks(now, handle, dialog);
        self.rest_attempt(now, handle);
        if let Some(hunt) = hunt {
            self.branch_answered(now, hunt, handle);
        }
        if !usable {
            response.headers.remove("Contact");
            let kind = EventKind::Failed {
                status: 502,
                response: Some(response),
                cancelled: false,
            };
            self.tell_attempt(handle, kind);
            return self.send_bye(now, dialog, &Headers::new(), EndCause::Failed(502));
        }
        let acknowledge = later || offered;
        self.tell(
            dialog,
            EventKind::Answered {
                response,
                acknowledge,
            },
        );
        if !acknowledge {
            let _ = self.acknowledge(now, dialog, None);
        }
        self.settle(now, dialog);
    }

    /// Acknowledges the 2xx to our INVITE or re-INVITE, with the answer where it brought an
    /// offer. Only where the event says that the user does.
    ///
    /// # Errors
    /// The dialog is over, or nothing awaits an ACK.
    pub fn acknowledge(
        &mut self,
        now: Instant,
        dialog: DialogHandle,
        body: Option<Body>,
    ) -> Result<(), AgentError> {
        let target = self.target_of(dialog)?;
        let leg = self.leg_mut(dialog)?;
        let wanted = leg.unacknowledged.take();
        let Unacknowledged { tx, cseq } =
            wanted.ok_or(AgentError::State("nothing awaits an ACK"))?;
        let mut ack = leg.dialog.ack(cseq);
        if let Some(body) = body {
            ack.set_body(&body.content_type, body.bytes.clone());
            leg.local_body = Some(body);
        }
        self.endpoint.send_ack(now, tx, ack, &target)?;
        self.settle(now, dialog);
        Ok(())
    }

    /// A 2xx that comes when the call is cancelled, or another fork has won: ACK, then BYE
    /// (RFC 3261 sections 9.1 and 13.2.2.4).
    fn on_late_answer(
        &mut self,
        now: Instant,
        tx: ClientTx,
        handle: AttemptHandle,
        request: &Request,
        response: Response,
    ) {
        let cancelled = self.attempts.get(&handle).is_some_and(|own| !own.finished);
        if let Some((dialog, _)) = self.fork(now, handle, request, &response) {
            let cseq = request.headers.cseq().map_or(1, |cseq| cseq.number);
            let known = self.leg(dialog).is_ok();
            if let Some(leg) = self.legs.get_mut(&dialog).filter(|_| known) {
                leg.dialog.handle_response(&response);
                leg.unacknowledged = Some(Unacknowledged { tx, cseq });
                self.send_bye(now, dialog, &Headers::new(), EndCause::LateAnswer);
            }
        }
        if cancelled {
            self.fail(now, handle, 487, None);
        }
    }

    fn on_refused(
        &mut self,
        now: Instant,
        handle: AttemptHandle,
        request: &Request,
        response: Response,
        received: bool,
    ) {
        // All early dialogs end with it, also where the INVITE is tried again.
        self.end_forks(now, handle, None, EndCause::Failed(response.status));
        if self.try_again(now, handle, request, &response).is_none() {
            let status = response.status;
            self.fail(now, handle, status, received.then_some(response));
        }
    }

    /// The attempt failed for good.
    fn fail(
        &mut self,
        now: Instant,
        handle: AttemptHandle,
        status: u16,
        response: Option<Response>,
    ) {
        self.end_forks(now, handle, None, EndCause::Failed(status));
        let Some(attempt) = self.attempts.get_mut(&handle) else {
            return;
        };
        attempt.finished = true;
        let hunt = attempt.hunt;
        let cancelled = attempt.cancelled && !attempt.timed_out;
        let (status, response) = if attempt.timed_out {
            (408, None)
        } else {
            (status, response)
        };
        let kind = EventKind::Failed {
            status,
            response: response.clone(),
            cancelled,
        };
        self.tell_attempt(handle, kind);
        self.rest_attempt(now, handle);
        if let Some(hunt) = hunt {
            self.branch_failed(now, hunt, handle, status, response);
        }
    }

    fn end_other_forks(&mut self, now: Instant, handle: AttemptHandle, winner: DialogHandle) {
        self.end_forks(now, handle, Some(winner), EndCause::OtherFork);
    }

    fn end_forks(
        &mut self,
        now: Instant,
        handle: AttemptHandle,
        winner: Option<DialogHandle>,
        cause: EndCause,
    ) {
        let early = |leg: &Leg<C>| {
            leg.attempt == Some(handle) && leg.dialog.state() == DialogState::Early && !leg.ended
        };
        let found = self.legs.iter().filter(|(_, leg)| early(leg));
        let mut forks: Vec<DialogHandle> = found.map(|(dialog, _)| *dialog).collect();
        forks.sort_unstable();
        for fork in forks.into_iter().filter(|fork| Some(*fork) != winner) {
            self.end(now, fork, EndedBy::Peer, cause, Vec::new());
        }
    }

    /// Keeps a finished attempt as long as forks may still answer it.
    fn rest_attempt(&mut self, now: Instant, handle: AttemptHandle) {
        let until = now + self.config.transaction.timers.timeout();
        self.alarms.set(Subject::Attempt(handle), Some(until));
    }

    /// The ring timeout of a live attempt, the end of the rest of a finished one.
    pub(super) fn on_attempt_alarm(&mut self, now: Instant, handle: AttemptHandle) {
        match self.attempts.get_mut(&handle) {
            Some(attempt) if !attempt.finished => {
                attempt.timed_out = !attempt.cancelled;
                let mut reason = Headers::new();
                reason.append("Reason", "SIP;cause=408;text=\"no answer\"");
                let _ = self.cancel(now, handle, &reason);
            }
            _ => self.forget_attempt(handle),
        }
    }

    fn forget_attempt(&mut self, handle: AttemptHandle) {
        let Some(attempt) = self.attempts.remove(&handle) else {
            return;
        };
        for tx in attempt.transactions {
            self.sent.remove(&tx);
        }
        if let Some(leg) = attempt.winner.and_then(|winner| self.legs.get_mut(&winner)) {
            leg.attempt = None;
        }
    }
}
