//! Calls that come in: ringing, reliable provisionals and their PRACK, the answer, CANCEL.

use std::collections::VecDeque;
use std::time::Instant;

use super::core::Agent;
use super::event::{EndCause, EndedBy, EventKind, MediaChange};
use super::leg::{AckDue, IncomingInvite, Leg};
use super::request::{Open, Received};
use super::types::{AgentError, Body, DialogHandle, RequestHandle, add_headers};
use crate::dialog::{Dialog, DialogId, DialogState, Role};
use crate::message::{Headers, Request, Response};
use crate::transaction::{Path, ServerTx, Target};

impl<C: Clone + Default> Agent<C> {
    pub(super) fn on_invite(&mut self, now: Instant, tx: ServerTx, invite: Request, path: Path) {
        if let Some(refusal) = self.unsupported(&invite) {
            return self.reply(now, tx, refusal);
        }
        let terms = match self
            .config
            .session
            .map(|policy| policy.accept(&invite.headers))
        {
            Some(Err(small)) => {
                let refusal = Response::to(&invite, 422).with("Min-SE", small.min_se.to_string());
                return self.reply(now, tx, refusal);
            }
            Some(Ok(terms)) => terms,
            None => None,
        };
        let replaces = match self.replaced(&invite) {
            Ok(replaces) => replaces,
            Err(status) => return self.reply(now, tx, Response::to(&invite, status)),
        };
        let tag = self.endpoint.local_tag(tx).unwrap_or_default().to_owned();
        let Ok(dialog) = Dialog::uas(&invite, &tag, &self.config.contact) else {
            return self.reply(now, tx, Response::to(&invite, 400));
        };
        let target = Target::new(path.transport, Some(path.flow), path.local, path.source);
        let trusted = self.config.trust_identity;
        let mut leg = Leg::new(now, dialog, C::default(), &invite, trusted, target);
        leg.policy = self.config.session;
        leg.invite = Some(IncomingInvite {
            tx,
            request: invite.clone(),
            terms,
            replaces,
            unacknowledged: None,
            offered: false,
            prack_open: false,
            queue: VecDeque::new(),
            answer: None,
        });
        let handle = self.add_leg(leg);
        let request = invite;
        self.tell(handle, EventKind::Incoming { request, replaces });
    }

    /// The dialog that an INVITE with Replaces names, or the status to refuse it with (RFC 3891
    /// section 3).
    fn replaced(&self, invite: &Request) -> Result<Option<DialogHandle>, u16> {
        let named = invite.headers.replaces().map_err(|_| 400_u16)?;
        let Some(replaces) = named else {
            return Ok(None);
        };
        if invite.headers.count("Replaces") > 1 {
            return Err(400);
        }
        let id = DialogId::of_replaces(&replaces);
        let handle = self.by_id.get(&id).copied().ok_or(481_u16)?;
        let leg = self.legs.get(&handle).ok_or(481_u16)?;
        match (leg.dialog.state(), leg.dialog.role()) {
            _ if leg.ended => Err(603),
            (DialogState::Terminated, _) => Err(603),
            (DialogState::Confirmed, _) if replaces.early_only => Err(486),
            (DialogState::Confirmed, _) | (DialogState::Early, Role::Uac) => Ok(Some(handle)),
            // An early dialog that we did not begin can't be taken over.
            (DialogState::Early, Role::Uas) => Err(481),
        }
    }

    /// Answers a call provisionally (101 to 199). `reliable` asks for PRACK (RFC 3262) where
    /// the caller supports it; where it requires it, it is asked for in any case. A reliable
    /// one waits until the one before it is acknowledged; what comes after it waits too.
    ///
    /// # Errors
    /// The dialog is over, or answered; the status is none of these.
    pub fn ring(
        &mut self,
        now: Instant,
        dialog: DialogHandle,
        status: u16,
        reliable: bool,
        headers: &Headers,
        body: Option<Body>,
    ) -> Result<(), AgentError> {
        if !(101..=199).contains(&status) {
            return Err(AgentError::State("a provisional status is 101 to 199"));
        }
        let leg = self.leg_mut(dialog)?;
        let invite = leg.invite.as_ref().filter(|invite| invite.answer.is_none());
        let invite = invite.ok_or(AgentError::State("answered, or not a call to answer"))?;
        let caller = &invite.request.headers;
        let required = caller.list_contains("Require", "100rel");
        let reliable = required || reliable && caller.supports("100rel");
        let mut response = leg.dialog.response(&invite.request, status);
        add_headers(&mut response.headers, headers);
        if let Some(body) = body {
            response.set_body(&body.content_type, body.bytes.clone());
            leg.local_body = Some(body);
        }
        leg.times.early.get_or_insert(now);
        self.add_abilities(&mut response.headers);
        if let Ok(leg) = self.leg_mut(dialog)
            && let Some(invite) = &mut leg.invite
        {
            invite.queue.push_back((response, reliable));
        }
        self.send_waiting(now, dialog)
    }

    /// Accepts a call: 2xx with this body (the answer, or our offer where the INVITE had none),
    /// repeated until its ACK comes. It waits for the PRACK of a reliable provisional. A call
    /// that it replaces is hung up.
    ///
    /// # Errors
    /// The dialog is over, or answered.
    pub fn accept(
        &mut self,
        now: Instant,
        dialog: DialogHandle,
        headers: &Headers,
        body: Option<Body>,
    ) -> Result<(), AgentError> {
        let leg = self.leg_mut(dialog)?;
        let invite = leg.invite.as_ref().filter(|invite| invite.answer.is_none());
        let invite = invite.ok_or(AgentError::State("answered, or not a call to answer"))?;
        let mut response = leg.dialog.response(&invite.request, 200);
        add_headers(&mut response.headers, headers);
        if let (Some(policy), Some(terms)) = (leg.policy, invite.terms) {
            let supports = invite.request.headers.supports("timer");
            policy.confirm(&mut response, terms, supports);
        }
        if let Some(body) = body {
            response.set_body(&body.content_type, body.bytes.clone());
            leg.local_body = Some(body);
        }
        self.add_abilities(&mut response.headers);
        if let Ok(leg) = self.leg_mut(dialog)
            && let Some(invite) = &mut leg.invite
        {
            invite.answer = Some(response);
        }
        self.send_waiting(now, dialog)
    }

    /// Refuses a call, or redirects it by a 3xx with Contact among the headers.
    ///
    /// # Errors
    /// The dialog is over, or answered; the status is below 300.
    pub fn reject(
        &mut self,
        now: Instant,
        dialog: DialogHandle,
        status: u16,
        headers: &Headers,
    ) -> Result<(), AgentError> {
        if !(300..=699).contains(&status) {
            return Err(AgentError::State("a refusal's status is 300 to 699"));
        }
        let leg = self.leg_mut(dialog)?;
        let invite = leg.invite.take();
        let invite = invite.ok_or(AgentError::State("answered, or not a call to answer"))?;
        let mut response = leg.dialog.response(&invite.request, status);
        add_headers(&mut response.headers, headers);
        self.endpoint.respond(now, invite.tx, response)?;
        self.end(
            now,
            dialog,
            EndedBy::Us,
            EndCause::Failed(status),
            Vec::new(),
        );
        Ok(())
    }

    /// Sends what no PRACK holds up: provisionals in their order, then the 2xx.
    pub(super) fn send_waiting(
        &mut self,
        now: Instant,
        dialog: DialogHandle,
    ) -> Result<(), AgentError> {
        loop {
            let Some(leg) = self.legs.get_mut(&dialog) else {
                return Ok(());
            };
            let Some(invite) = &mut leg.invite else {
                return Ok(());
            };
            if invite.unacknowledged.is_some() || invite.prack_open {
                return Ok(());
            }
            let tx = invite.tx;
            if let Some((response, reliable)) = invite.queue.pop_front() {
                if reliable {
                    invite.offered = !response.body.is_empty() && invite.request.body.is_empty();
                    let rseq = self.endpoint.respond_reliably(now, tx, response)?;
                    invite.unacknowledged = Some(rseq);
                } else {
                    self.endpoint.respond(now, tx, response)?;
                }
                continue;
            }
            return match invite.answer.take() {
                Some(response) => self.send_answer(now, dialog, response),
                None => Ok(()),
            };
        }
    }

    fn send_answer(
        &mut self,
        now: Instant,
        dialog: DialogHandle,
        response: Response,
    ) -> Result<(), AgentError> {
        let Some(leg) = self.legs.get_mut(&dialog) else {
            return Ok(());
        };
        let Some(invite) = leg.invite.take() else {
            return Ok(());
        };
        leg.dialog.sent_response(&invite.request, response.status);
        leg.times.connected = Some(now);
        let offered =
            invite.request.body.is_empty() && !invite.offered && !response.body.is_empty();
        leg.ack_due = Some(AckDue {
            tx: invite.tx,
            cseq: invite.request.headers.cseq().map_or(0, |cseq| cseq.number),
            offered,
        });
        leg.agreed(now, invite.terms);
        self.endpoint.respond(now, invite.tx, response)?;
        if let Some(replaced) = invite.replaces {
            self.replace(now, replaced);
        }
        self.settle(now, dialog);
        Ok(())
    }

    pub(super) fn on_prack(
        &mut self,
        now: Instant,
        dialog: DialogHandle,
        tx: ServerTx,
        prack: Request,
    ) {
        let Some(leg) = self.legs.get_mut(&dialog) else {
            return;
        };
        let named = prack.headers.rack().ok();
        let awaited = leg.invite.as_mut().filter(|invite| {
            let cseq = invite.request.headers.cseq().ok();
            let same = |rack: &crate::message::RAck| {
                invite.unacknowledged == Some(rack.rseq) && cseq.as_ref() == Some(&rack.cseq)
            };
            named.as_ref().is_some_and(same)
        });
        let Some(invite) = awaited else {
            let refusal = leg.dialog.response(&prack, 481);
            return self.reply(now, tx, refusal);
        };
        let rseq = invite.unacknowledged.take().unwrap_or_default();
        self.endpoint.acknowledge_reliable(invite.tx, rseq);
        let body = Body::of(&prack.headers, &prack.body);
        if body.is_some() && !invite.offered {
            // Offer and answer are complete: this is a new offer, whose answer goes into the
            // 200 (RFC 3262 section 5).
            invite.prack_open = true;
            let open = Open::new(dialog, prack.clone(), None);
            self.received.insert(tx, Received::Offer(open));
            let (request_handle, change) = (RequestHandle(tx.0), MediaChange::Other);
            let request = prack;
            return self.tell(
                dialog,
                EventKind::Offer {
                    request_handle,
                    request,
                    change,
                },
            );
        }
        let ok = leg.dialog.response(&prack, 200);
        if body.is_some() {
            leg.remote_body.clone_from(&body);
        }
        self.reply(now, tx, ok);
        self.tell(dialog, EventKind::ProvisionalAcknowledged { body });
        let _ = self.send_waiting(now, dialog);
    }

    /// CANCEL of a call, or of a re-INVITE.
    pub(super) fn on_cancel(&mut self, now: Instant, invite: ServerTx, cancel: &Request) {
        if let Some(Received::Offer(open)) = self.received.remove(&invite) {
            self.refuse(now, invite, &open, 487);
            let request_handle = RequestHandle(invite.0);
            self.tell(open.dialog, EventKind::OfferGone { request_handle });
            return self.settle(now, open.dialog);
        }
        let rings = |leg: &&mut Leg<C>| leg.invite.as_ref().is_some_and(|own| own.tx == invite);
        let Some(leg) = self.legs.values_mut().find(rings) else {
            return;
        };
        let Some(own) = leg.invite.take() else {
            return;
        };
        let handle = self.by_id.get(&leg.dialog.id()).copied();
        let refusal = leg.dialog.response(&own.request, 487);
        leg.dialog.sent_response(&own.request, 487);
        self.reply(now, invite, refusal);
        if let Some(handle) = handle {
            let reasons = cancel.headers.reasons().unwrap_or_default();
            self.end(now, handle, EndedBy::Peer, EndCause::Cancelled, reasons);
        }
    }

    pub(super) fn on_ack(&mut self, now: Instant, ack: &Request) {
        let known = DialogId::of_request(ack).and_then(|id| self.by_id.get(&id).copied());
        let Some(handle) = known else { return };
        let Some(leg) = self.legs.get_mut(&handle) else {
            return;
        };
        let cseq = ack.headers.cseq().map_or(0, |cseq| cseq.number);
        if leg.ack_due.take_if(|due| due.cseq == cseq).is_none() {
            return;
        }
        let body = Body::of(&ack.headers, &ack.body);
        if body.is_some() {
            leg.remote_body.clone_from(&body);
        }
        let hangup = leg.hangup.take();
        self.tell(handle, EventKind::Acknowledged { body });
        match hangup {
            Some(headers) => self.send_bye(now, handle, &headers, EndCause::Hangup),
            None => self.settle(now, handle),
        }
    }

    /// Our 2xx was never acknowledged: the call is ended (RFC 3261 section 13.3.1.4).
    pub(super) fn on_no_ack(&mut self, now: Instant, tx: ServerTx) {
        let waits = |leg: &Leg<C>| !leg.ended && leg.ack_due.is_some_and(|due| due.tx == tx);
        let found = self.legs.iter().find(|(_, leg)| waits(leg));
        let Some(handle) = found.map(|(handle, _)| *handle) else {
            return;
        };
        let mut reason = Headers::new();
        reason.append("Reason", "SIP;cause=408;text=\"no ACK\"");
        self.send_bye(now, handle, &reason, EndCause::NoAck);
    }

    /// A reliable provisional was never acknowledged: the call is refused (RFC 3262 section 3).
    pub(super) fn on_no_prack(&mut self, now: Instant, tx: ServerTx) {
        let rings = |leg: &Leg<C>| leg.invite.as_ref().is_some_and(|own| own.tx == tx);
        let found = self.legs.iter_mut().find(|(_, leg)| rings(leg));
        let Some((handle, leg)) = found else { return };
        let handle = *handle;
        let Some(own) = leg.invite.take() else { return };
        let refusal = leg.dialog.response(&own.request, 504);
        self.reply(now, tx, refusal);
        self.end(now, handle, EndedBy::Us, EndCause::NoPrack, Vec::new());
    }
}
