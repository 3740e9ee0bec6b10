//! Requests inside a dialog on their way to the other side, and what becomes of them.

use std::time::Duration;

use trunkline_link::message::Side;
use trunkline_sip::message::{Headers, Method, Request, Response};
use trunkline_sip::transaction::{ClientTx, ServerTx};

use super::bodies::{self, Received};
use super::dialog::PASSAGES_MAX;
use super::headers;
use super::{B2bua, ClientUse, awareness, session, session_id};
use crate::call::{Call, Passage};
use crate::clock::Moment;

/// The longest that a re-INVITE may be on its way: people may be asked, so as long as a proxy would wait (RFC
/// 3261 section 16.6, timer C).
const REINVITE_PATIENCE: Duration = Duration::from_secs(181);

impl B2bua {
    /// Sends the counterpart of a request to the other side.
    pub(super) fn send_passage(
        &mut self,
        call: &mut Call,
        passage: &mut Passage,
        sdp: Option<String>,
        now: &Moment,
    ) -> Result<(), u16> {
        let hops = passage
            .request
            .headers
            .max_forwards()
            .ok()
            .flatten()
            .unwrap_or(70)
            .min(255);
        if hops == 0 {
            return Err(483);
        }
        let to = passage.from.other();
        let hide = self.hides(call, passage.from, &passage.request.headers);
        let route = std::sync::Arc::clone(&call.route);
        let speaks = awareness::is_aware(call, passage.from);
        let leg = call.leg_mut(to);
        let dialog = leg.dialog.as_mut().ok_or(481_u16)?;
        bodies::take_role(&passage.request.headers, dialog);
        let mut request = dialog
            .request(passage.request.method.clone())
            .map_err(|_| 491_u16)?;
        request.headers.set("Max-Forwards", (hops - 1).to_string());
        headers::cross_request(&passage.request, &mut request, &route);
        if hide {
            headers::remove_identity(&mut request.headers);
        }
        if passage.negotiates || request.method == Method::Update {
            awareness::advertise(speaks, &mut request.headers);
            session::propose(leg, &mut request);
        }
        Received::from(&passage.request).cross_to_request(sdp.as_deref(), &mut request);
        passage.sequence = request.headers.cseq().map_or(0, |cseq| cseq.number);
        let target = leg.target();
        let method = request.method.clone();
        let sent = self.endpoint.send_request(now.instant, request, &target);
        let Ok(client) = sent else {
            if let Some(dialog) = &mut call.leg_mut(to).dialog {
                dialog.request_ended(&method, passage.sequence);
            }
            return Err(500);
        };
        passage.client = Some(client);
        // Other requests have an end of their own (timer F).
        passage.due = (method == Method::Invite).then(|| now.instant + REINVITE_PATIENCE);
        self.own_client(call, client, ClientUse::Passage(to));
        Ok(())
    }

    /// Whether what a side says of who it is must not reach the other: it asks for privacy, or did so when
    /// the call began, and the other is outside the trust domain (RFC 3325 section 7).
    pub(super) fn hides(&self, call: &Call, from: Side, received: &Headers) -> bool {
        let other = call.leg(from.other()).remote.ip();
        let private = call.private[from as usize] || headers::wants_privacy(received);
        private && !self.config.sip.allows(other)
    }

    /// Copies what crosses from a side's response to ours.
    pub(super) fn cross_back(
        &self,
        call: &Call,
        from: Side,
        response: &Response,
        ours: &mut Response,
    ) {
        headers::cross_response(response, ours, &call.route);
        if self.hides(call, from, &response.headers) {
            headers::remove_identity(&mut ours.headers);
        }
    }

    /// Passes a request that has nothing to do with media.
    pub(super) fn pass(
        &mut self,
        call: &mut Call,
        side: Side,
        tx: ServerTx,
        request: Request,
        negotiates: bool,
        now: &Moment,
    ) {
        let far_ready = call.leg(side.other()).dialog.is_some();
        if !far_ready || call.passages.len() >= PASSAGES_MAX {
            let status = if far_ready { 500 } else { 481 };
            return self.reply(call, side, tx, &request, status, now);
        }
        let mut passage = Passage::new(side, tx, request, negotiates);
        match self.send_passage(call, &mut passage, None, now) {
            Ok(()) => call.passages.push(passage),
            Err(status) => self.reply(call, side, tx, &passage.request, status, now),
        }
        self.save(call);
    }

    pub(super) fn on_passage_response(
        &mut self,
        call: &mut Call,
        tx: ClientTx,
        far: Side,
        response: Response,
        now: &Moment,
    ) {
        let negotiates = call
            .exchange
            .as_ref()
            .is_some_and(|passage| passage.client == Some(tx));
        if negotiates {
            return self.on_reoffer_response(call, tx, response, now);
        }
        let found = call
            .passages
            .iter()
            .position(|passage| passage.client == Some(tx));
        if !response.is_final() {
            return;
        }
        let Some(index) = found else {
            // The call ended meanwhile: a 2xx is acknowledged all the same.
            return self.acknowledge_late(call, tx, far, &response, now);
        };
        self.clients.remove(&tx);
        let passage = call.passages.remove(index);
        let far = passage.from.other();
        if let Some(dialog) = &mut call.leg_mut(far).dialog {
            dialog.handle_response(&response);
        }
        session_id::share(call);
        if self.dial_refused(call, passage.from, &passage.request, response.status) {
            let (from, server) = (passage.from, passage.server);
            return self.reply(call, from, server, &passage.request, 200, now);
        }
        let refreshes = passage.request.method == Method::Update && response.is_success();
        if refreshes {
            session::agreed(call.leg_mut(far), &response, now);
        }
        let mut ours = self.dialog_response(call, passage.from, &passage.request, response.status);
        ours.reason.clone_from(&response.reason);
        self.cross_back(call, far, &response, &mut ours);
        Received::from(&response).cross_to_response(None, &mut ours);
        if refreshes {
            session::confirm(call.leg_mut(passage.from), &passage.request, &mut ours, now);
        }
        self.respond(passage.server, ours, now);
    }

    pub(super) fn acknowledge_late(
        &mut self,
        call: &mut Call,
        tx: ClientTx,
        far: Side,
        response: &Response,
        now: &Moment,
    ) {
        self.clients.remove(&tx);
        let Ok(cseq) = response.headers.cseq() else {
            return;
        };
        let leg = call.leg(far);
        let (target, dialog) = (leg.target(), leg.dialog.as_ref());
        if let (Some(dialog), Method::Invite, true) = (dialog, &cseq.method, response.is_success())
        {
            let mut ack = dialog.ack(cseq.number);
            ack.set_content_length();
            let _ = self.endpoint.send_ack(now.instant, tx, ack, &target);
        }
    }

    pub(super) fn on_passage_failure(
        &mut self,
        call: &mut Call,
        tx: ClientTx,
        status: u16,
        now: &Moment,
    ) {
        let pending = call.exchange.as_deref().into_iter().chain(&call.passages);
        let ended = pending
            .filter(|passage| passage.client == Some(tx))
            .map(|passage| {
                (
                    passage.from.other(),
                    passage.request.method.clone(),
                    passage.sequence,
                )
            })
            .next();
        if let Some((far, method, sequence)) = ended
            && let Some(dialog) = &mut call.leg_mut(far).dialog
        {
            dialog.request_ended(&method, sequence);
        }
        if call
            .exchange
            .as_ref()
            .is_some_and(|passage| passage.client == Some(tx))
        {
            return self.reoffer_refused(call, status, None, now);
        }
        if let Some(index) = call.passages.iter().position(|one| one.client == Some(tx)) {
            let passage = call.passages.remove(index);
            let status = if status == 503 { 500 } else { status };
            self.reply(
                call,
                passage.from,
                passage.server,
                &passage.request,
                status,
                now,
            );
        }
    }
}
