//! Requests inside a dialog: re-INVITE, UPDATE and others are passed to the other side; BYE ends the
//! call.

use trunkline_config::Transfer;
use trunkline_link::message::{FailReason, Side};
use trunkline_sinks::object::{CallState, EndedBy};
use trunkline_sip::dialog::{Dialog, DialogId};
use trunkline_sip::message::{Method, Request, Response};
use trunkline_sip::transaction::{ClientTx, Path, ServerTx};

use super::headers;
use super::{B2bua, ClientUse, session, transfer};
use crate::api::events::EventKind;
use crate::call::negotiation::Heard;
use crate::call::{Call, Passage, Phase, Step};
use crate::clock::Moment;

/// Requests that may be on their way at once in one call.
const PASSAGES_MAX: usize = 16;

impl B2bua {
    pub(super) fn on_dialog_request(
        &mut self,
        call: &mut Call,
        side: Side,
        tx: ServerTx,
        request: Request,
        path: Path,
        now: &Moment,
    ) {
        let id = DialogId::of_request(&request);
        let gone = call.departing.iter().position(|one| {
            let dialog = one.leg.dialog.as_ref();
            dialog.map(Dialog::id) == id
        });
        if let Some(index) = gone {
            return self.on_departing_request(call, index, tx, &request, now);
        }
        if self.on_newcomer_request(call, tx, &request, now)
            || self.on_early_request(call, tx, &request, now)
        {
            return;
        }
        let leg = call.leg_mut(side);
        // A peer that comes back by a new connection or port is answered and reached there.
        (leg.flow, leg.remote, leg.transport) = (Some(path.flow), path.source, path.transport);
        let Some(dialog) = &mut leg.dialog else {
            return self.respond_plain(tx, &request, 481, now);
        };
        if let Err(refusal) = dialog.receive(&request) {
            let mut response = dialog.response(&request, refusal.status);
            if let Some(seconds) = refusal.retry_after_s {
                response.headers.set("Retry-After", seconds.to_string());
            }
            response.set_content_length();
            return self.respond(tx, response, now);
        }
        let ending = call.phase == Phase::Ending;
        let mut required = request.headers.list("Require");
        required.retain(|option| !transfer::understood(&request.method, option));
        if matches!(request.method, Method::Invite | Method::Update) && !ending {
            let policy = call.leg(side).session_policy;
            if let Err(too_small) = policy.accept(&request.headers) {
                let mut response = self.dialog_response(call, side, &request, 422);
                let least = too_small.min_se.to_string();
                response.headers.set("Min-SE", least);
                return self.respond(tx, response, now);
            }
        }
        if !required.is_empty() && request.method != Method::Bye {
            let mut response = self.dialog_response(call, side, &request, 420);
            response.headers.set("Unsupported", required.join(", "));
            return self.respond(tx, response, now);
        }
        let passes_transfer = call.route.transfer == Transfer::Pass;
        match request.method {
            Method::Bye => self.on_bye(call, side, tx, &request, now),
            _ if ending => self.reply(call, side, tx, &request, 481, now),
            Method::Prack => self.on_prack(call, side, tx, &request, now),
            Method::Invite | Method::Update if call.phase != Phase::Answered => {
                self.reply(call, side, tx, &request, 491, now);
            }
            Method::Refer if call.route.transfer == Transfer::Handle => {
                self.on_refer(call, side, tx, &request, now);
            }
            // No subscription of ours is there to be told of.
            Method::Notify if call.route.transfer == Transfer::Handle => {
                self.reply(call, side, tx, &request, 481, now);
            }
            Method::Refer | Method::Notify if !passes_transfer => {
                self.reply(call, side, tx, &request, 405, now);
            }
            Method::Invite
            | Method::Update
            | Method::Info
            | Method::Message
            | Method::Refer
            | Method::Notify
                if side == Side::Callee
                    && !call.leg(Side::Caller).acknowledged
                    && call.waiting.len() < PASSAGES_MAX =>
            {
                // The caller takes none of ours before its ACK.
                self.own_server(call, tx);
                call.waiting.push((tx, request));
            }
            Method::Invite | Method::Update => self.on_reoffer(call, side, tx, request, now),
            Method::Info | Method::Message | Method::Refer | Method::Notify => {
                self.note_info(call, side, &request, now);
                self.pass(call, side, tx, request, false, now);
            }
            Method::Options => {
                let mut response = self.dialog_response(call, side, &request, 200);
                response.headers.set("Allow", headers::allow(&call.route));
                response.headers.set("Accept", "application/sdp");
                self.respond(tx, response, now);
            }
            Method::Other(_) => self.reply(call, side, tx, &request, 501, now),
            _ => self.reply(call, side, tx, &request, 405, now),
        }
    }

    /// The caller's ACK is here: what waited for it goes on.
    pub(super) fn release_waiting(&mut self, call: &mut Call, now: &Moment) {
        for (tx, request) in std::mem::take(&mut call.waiting) {
            match request.method {
                Method::Invite | Method::Update => {
                    self.on_reoffer(call, Side::Callee, tx, request, now);
                }
                _ => self.pass(call, Side::Callee, tx, request, false, now),
            }
        }
    }

    /// A response inside a dialog.
    pub(super) fn dialog_response(
        &mut self,
        call: &mut Call,
        side: Side,
        request: &Request,
        status: u16,
    ) -> Response {
        let mut response = match &mut call.leg_mut(side).dialog {
            Some(dialog) => {
                let response = dialog.response(request, status);
                dialog.sent_response(request, status);
                response
            }
            None => Response::to(request, status),
        };
        response.headers.set("Server", headers::SERVER);
        if matches!(status, 405 | 501) {
            response.headers.set("Allow", headers::allow(&call.route));
        }
        response.set_content_length();
        response
    }

    pub(super) fn reply(
        &mut self,
        call: &mut Call,
        side: Side,
        tx: ServerTx,
        request: &Request,
        status: u16,
        now: &Moment,
    ) {
        let response = self.dialog_response(call, side, request, status);
        self.respond(tx, response, now);
    }

    fn on_bye(
        &mut self,
        call: &mut Call,
        side: Side,
        tx: ServerTx,
        request: &Request,
        now: &Moment,
    ) {
        let leaves = call
            .transfer
            .as_ref()
            .is_some_and(|one| one.leaving == side);
        if call.phase == Phase::Answered && (leaves || call.consulted_by.is_some()) {
            self.on_transferor_gone(call, side, now);
            return self.reply(call, side, tx, request, 200, now);
        }
        self.reply(call, side, tx, request, 200, now);
        call.leg_mut(side).over = true;
        if let Some(dialog) = &mut call.leg_mut(side).dialog {
            dialog.terminate();
        }
        if call.object.q850.is_none() {
            call.object.q850 = headers::q850(&request.headers);
        }
        let by = match side {
            Side::Caller => EndedBy::Caller,
            Side::Callee => EndedBy::Callee,
        };
        let reason = request
            .headers
            .get("Reason")
            .map(std::borrow::Cow::into_owned);
        self.end_call_with(call, by, reason, now);
    }

    /// A re-INVITE or UPDATE.
    fn on_reoffer(
        &mut self,
        call: &mut Call,
        side: Side,
        tx: ServerTx,
        request: Request,
        now: &Moment,
    ) {
        let invite = request.method == Method::Invite;
        if request.body.is_empty() && !invite {
            // UPDATE without an offer refreshes the session (RFC 4028): ours to answer.
            let mut response = self.dialog_response(call, side, &request, 200);
            session::confirm(call.leg_mut(side), &request, &mut response, now);
            return self.respond(tx, response, now);
        }
        if call.exchange.is_some() || call.negotiation.is_pending() || call.own_offer.is_some() {
            // RFC 3261 section 14.2, RFC 3311 section 5.2: the two offers cross in us.
            return self.reply(call, side, tx, &request, 491, now);
        }
        if request.body.is_empty() {
            return self.begin_exchange(call, side, tx, request, true, now);
        }
        if !headers::is_sdp(&request.headers) {
            return self.reply(call, side, tx, &request, 415, now);
        }
        let offer = match Heard::parse_for(&request.body, &call.route.codecs) {
            Ok(offer) => offer,
            Err(error) => return self.reply(call, side, tx, &request, error.status(), now),
        };
        if call.negotiation.is_refresh(side, &offer) {
            return self.answer_refresh(call, side, tx, &request, now);
        }
        if let Err(error) = call.negotiation.offer(side, offer) {
            return self.reply(call, side, tx, &request, error.status(), now);
        }
        self.begin_exchange(call, side, tx, request, false, now);
    }

    /// The same description again: what we said stands.
    fn answer_refresh(
        &mut self,
        call: &mut Call,
        side: Side,
        tx: ServerTx,
        request: &Request,
        now: &Moment,
    ) {
        let mut response = self.dialog_response(call, side, request, 200);
        response.headers.set("Allow", headers::allow(&call.route));
        if let Some(sdp) = call.negotiation.sent(side) {
            response.set_body("application/sdp", sdp);
        }
        session::confirm(call.leg_mut(side), request, &mut response, now);
        self.respond(tx, response, now);
        self.own_server(call, tx);
        self.save(call);
    }

    fn begin_exchange(
        &mut self,
        call: &mut Call,
        side: Side,
        tx: ServerTx,
        request: Request,
        late_offer: bool,
        now: &Moment,
    ) {
        self.own_server(call, tx);
        call.exchange = Some(Passage {
            from: side,
            server: tx,
            request,
            client: None,
            sequence: 0,
            negotiates: true,
            late_offer,
            awaits_ack: false,
            owes_ack: false,
        });
        let wanted = call.negotiation.wanted_media(&call.media.open);
        if wanted.len() > call.media.open.len() {
            call.media.open = wanted;
            let command = call.media.open_command();
            self.batch(call, vec![command], Step::Reoffer, now);
        } else {
            self.reoffer(call, None, now);
        }
    }

    /// Ports are there (or none were needed): the request goes to the other side.
    pub(super) fn reoffer(&mut self, call: &mut Call, failed: Option<FailReason>, now: &Moment) {
        let Some(mut passage) = call.exchange.take() else {
            return;
        };
        let to = passage.from.other();
        if failed.is_some() {
            call.negotiation.withdraw();
            // Without ports there is no medium: the next offer asks again.
            let open = &mut call.media.open;
            open.truncate(open.iter().take_while(|one| one.ports != [0, 0]).count());
            return self.reply(
                call,
                passage.from,
                passage.server,
                &passage.request,
                503,
                now,
            );
        }
        let sdp = if passage.late_offer {
            None
        } else {
            let address = self.media_address(call, to);
            call.negotiation.write_offer(&call.media, address)
        };
        match self.send_passage(call, &mut passage, sdp, now) {
            Ok(()) => call.exchange = Some(passage),
            Err(status) => {
                call.negotiation.withdraw();
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
        self.save(call);
    }

    /// Sends the counterpart of a request to the other side.
    fn send_passage(
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
        let route = std::sync::Arc::clone(&call.route);
        let leg = call.leg_mut(to);
        let dialog = leg.dialog.as_mut().ok_or(481_u16)?;
        let mut request = dialog
            .request(passage.request.method.clone())
            .map_err(|_| 491_u16)?;
        request.headers.set("Max-Forwards", (hops - 1).to_string());
        headers::cross_request(&passage.request, &mut request, &route);
        if passage.negotiates {
            session::propose(leg, &mut request);
        }
        match sdp {
            Some(sdp) => request.set_body("application/sdp", sdp),
            None if passage.negotiates => request.set_content_length(),
            None => {
                let received = &passage.request;
                headers::cross_body(&received.headers, &received.body, &mut request);
                request.set_content_length();
            }
        }
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
        self.own_client(call, client, ClientUse::Passage(to));
        Ok(())
    }

    /// Passes a request that has nothing to do with media.
    fn pass(
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
        let mut passage = Passage {
            from: side,
            server: tx,
            request,
            client: None,
            sequence: 0,
            negotiates,
            late_offer: false,
            awaits_ack: false,
            owes_ack: false,
        };
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
        let mut ours = self.dialog_response(call, passage.from, &passage.request, response.status);
        ours.reason.clone_from(&response.reason);
        headers::cross_response(&response, &mut ours, &call.route);
        if let (Some(kind), false) = (
            response.headers.get("Content-Type"),
            response.body.is_empty(),
        ) {
            ours.set_body(&kind, response.body.clone());
        }
        self.respond(passage.server, ours, now);
    }

    fn on_reoffer_response(
        &mut self,
        call: &mut Call,
        tx: ClientTx,
        response: Response,
        now: &Moment,
    ) {
        if !response.is_final() {
            return;
        }
        let Some(passage) = &call.exchange else {
            return;
        };
        let (from, invite, late) = (
            passage.from,
            passage.request.method == Method::Invite,
            passage.late_offer,
        );
        if let Some(dialog) = &mut call.leg_mut(from.other()).dialog {
            dialog.handle_response(&response);
        }
        self.clients.remove(&tx);
        if let Some(passage) = &mut call.exchange {
            passage.owes_ack = invite && response.is_success();
        }
        if response.is_success() {
            session::agreed(call.leg_mut(from.other()), &response, now);
        }
        if !response.is_success() {
            return self.reoffer_refused(call, response.status, Some(&response), now);
        }
        if late {
            return self.on_late_reoffer(call, response, now);
        }
        let address = self.media_address(call, from);
        let answer = Heard::parse_for(&response.body, &call.route.codecs)
            .and_then(|answer| call.negotiation.answer(answer, &call.media, address, true));
        match answer {
            Ok(sdp) => {
                call.offerer = from;
                let commands = self.leg_commands(call);
                self.batch(
                    call,
                    commands,
                    Step::Reanswer {
                        response,
                        sdp: Some(sdp),
                    },
                    now,
                );
            }
            Err(_) => {
                // The far side thinks that it agreed; its media stays as it was on our side.
                if invite {
                    self.acknowledge_reinvite(call, None, now);
                }
                self.reoffer_refused(call, 500, None, now);
            }
        }
    }

    /// The far side's 2xx to a re-INVITE without offer makes the offer: ports first.
    fn on_late_reoffer(&mut self, call: &mut Call, response: Response, now: &Moment) {
        let Some(passage) = &call.exchange else {
            return;
        };
        let far = passage.from.other();
        let offered = Heard::parse_for(&response.body, &call.route.codecs)
            .and_then(|offer| call.negotiation.offer(far, offer));
        if offered.is_err() {
            self.acknowledge_reinvite(call, None, now);
            return self.reoffer_refused(call, 500, None, now);
        }
        let mut commands = Vec::new();
        let wanted = call.negotiation.wanted_media(&call.media.open);
        if wanted.len() > call.media.open.len() {
            call.media.open = wanted;
            commands.push(call.media.open_command());
        }
        self.batch(
            call,
            commands,
            Step::Reanswer {
                response,
                sdp: None,
            },
            now,
        );
    }

    /// Media follows: the 2xx goes back to the asker.
    pub(super) fn reanswer(
        &mut self,
        call: &mut Call,
        response: &Response,
        sdp: Option<String>,
        now: &Moment,
    ) {
        let Some(passage) = &mut call.exchange else {
            return;
        };
        let (from, late) = (passage.from, passage.late_offer);
        passage.awaits_ack = late;
        let (server, request) = (passage.server, passage.request.clone());
        let sdp = if late {
            let address = self.media_address(call, from);
            call.negotiation.write_offer(&call.media, address)
        } else {
            if request.method == Method::Invite {
                self.acknowledge_reinvite(call, None, now);
            }
            sdp
        };
        let mut ours = self.dialog_response(call, from, &request, response.status);
        headers::cross_response(response, &mut ours, &call.route);
        ours.headers.set("Allow", headers::allow(&call.route));
        if let Some(sdp) = sdp {
            ours.set_body("application/sdp", sdp);
        }
        session::confirm(call.leg_mut(from), &request, &mut ours, now);
        self.respond(server, ours, now);
        if !late {
            call.exchange = None;
            self.media_changed(call, now);
        }
    }

    /// The asker's ACK.
    pub(super) fn on_later_ack(
        &mut self,
        call: &mut Call,
        side: Side,
        ack: &Request,
        now: &Moment,
    ) {
        let waits = call
            .exchange
            .as_ref()
            .is_some_and(|passage| passage.awaits_ack && passage.from == side);
        if !waits {
            return;
        }
        let address = self.media_address(call, side.other());
        let answer = Heard::parse_for(&ack.body, &call.route.codecs)
            .and_then(|answer| call.negotiation.answer(answer, &call.media, address, true));
        match answer {
            Ok(sdp) => {
                call.offerer = side.other();
                let commands = self.leg_commands(call);
                self.batch(
                    call,
                    commands,
                    Step::ReofferAcknowledged { sdp: Some(sdp) },
                    now,
                );
            }
            Err(_) => {
                call.negotiation.withdraw();
                self.acknowledge_reinvite(call, None, now);
                call.exchange = None;
            }
        }
    }

    pub(super) fn reoffer_acknowledged(
        &mut self,
        call: &mut Call,
        sdp: Option<String>,
        now: &Moment,
    ) {
        self.acknowledge_reinvite(call, sdp, now);
        call.exchange = None;
        self.media_changed(call, now);
    }

    /// ACK to the far side for the 2xx of a re-INVITE that we passed.
    pub(super) fn acknowledge_reinvite(
        &mut self,
        call: &mut Call,
        sdp: Option<String>,
        now: &Moment,
    ) {
        let Some(passage) = &mut call.exchange else {
            return;
        };
        passage.owes_ack = false;
        let (Some(client), sequence) = (passage.client, passage.sequence) else {
            return;
        };
        let leg = &mut call.legs[passage.from.other() as usize];
        let target = leg.target();
        let Some(dialog) = &mut leg.dialog else {
            return;
        };
        let mut ack = dialog.ack(sequence);
        match sdp {
            Some(sdp) => ack.set_body("application/sdp", sdp),
            None => ack.set_content_length(),
        }
        let _ = self.endpoint.send_ack(now.instant, client, ack, &target);
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

    pub(super) fn media_changed(&mut self, call: &mut Call, now: &Moment) {
        self.note_codecs(call);
        self.note_hold(call, now);
        self.media_fact(call);
        self.writes
            .push(super::CatalogWrite::Call(call.object.clone()));
        self.save(call);
    }

    /// The far side refused the offer (or never answered): everything stays as it was.
    fn reoffer_refused(
        &mut self,
        call: &mut Call,
        status: u16,
        response: Option<&Response>,
        now: &Moment,
    ) {
        call.negotiation.withdraw();
        let Some(passage) = call.exchange.take() else {
            return;
        };
        let status = if status == 503 { 500 } else { status };
        let mut ours = self.dialog_response(call, passage.from, &passage.request, status);
        if let Some(response) = response {
            headers::cross_response(response, &mut ours, &call.route);
        }
        self.respond(passage.server, ours, now);
        self.save(call);
        // RFC 3261 section 14.1: a dialog that the far side does not know, or that does not answer,
        // is over.
        if matches!(status, 408 | 481) && call.phase == Phase::Answered {
            call.leg_mut(passage.from.other()).over = status == 481;
            self.end_call_with(call, EndedBy::Us, None, now);
        }
    }

    pub(super) fn on_passage_failure(
        &mut self,
        call: &mut Call,
        tx: ClientTx,
        status: u16,
        now: &Moment,
    ) {
        let pending = call.exchange.iter().chain(&call.passages);
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

    /// Follows hold: a side that receives nothing has put the other on hold.
    pub(super) fn note_hold(&mut self, call: &mut Call, now: &Moment) {
        let held = Side::BOTH
            .iter()
            .any(|side| call.negotiation.heard(*side).is_some_and(Heard::is_held));
        match (held, call.held_since_ns) {
            (true, None) => {
                call.held_since_ns = Some(now.mono_ns);
                call.object.state = CallState::Held;
                self.publish_call(EventKind::CallHeld, call, now);
            }
            (false, Some(_)) => {
                call.end_hold(now.mono_ns);
                call.object.state = CallState::Active;
                self.publish_call(EventKind::CallResumed, call, now);
            }
            _ => {}
        }
    }
}
