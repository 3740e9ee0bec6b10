//! Re-INVITE and UPDATE: an offer of one side is made to the other, and media follows its answer.

use trunkline_link::message::{FailReason, Side};
use trunkline_sinks::object::{CallState, EndedBy};
use trunkline_sip::message::{Method, Request, Response};
use trunkline_sip::transaction::{ClientTx, ServerTx};

use super::bodies::{self, Received};
use super::headers;
use super::{B2bua, awareness, session, session_id};
use crate::api::events::EventKind;
use crate::call::negotiation::Heard;
use crate::call::{Call, Passage, Phase, Step};
use crate::clock::Moment;

impl B2bua {
    /// A re-INVITE or UPDATE.
    pub(super) fn on_reoffer(
        &mut self,
        call: &mut Call,
        side: Side,
        tx: ServerTx,
        request: Request,
        now: &Moment,
    ) {
        let invite = request.method == Method::Invite;
        let received = Received::from(&request);
        let sdp = received.sdp().map(std::borrow::Cow::into_owned);
        if request.body.is_empty() && !invite {
            // UPDATE without an offer refreshes the session (RFC 4028): ours to answer.
            let mut response = self.dialog_response(call, side, &request, 200);
            session::confirm(call.leg_mut(side), &request, &mut response, now);
            return self.respond(tx, response, now);
        }
        if let Err((status, _)) = received.judge() {
            return self.reply(call, side, tx, &request, status, now);
        }
        if sdp.is_none() && !invite {
            // Metadata of a recording session alone, or a request for it (RFC 7866 section 8).
            return self.pass(call, side, tx, request, false, now);
        }
        if call.exchange.is_some() || call.negotiation.is_pending() || call.own_offer.is_some() {
            // RFC 3261 section 14.2, RFC 3311 section 5.2: the two offers cross in us.
            return self.reply(call, side, tx, &request, 491, now);
        }
        let more = received.has_more();
        let Some(sdp) = sdp else {
            return self.begin_exchange(call, side, tx, request, true, now);
        };
        let offer = match Heard::parse_for(&sdp, &call.route.codecs) {
            Ok(offer) => offer,
            Err(error) => return self.reply(call, side, tx, &request, error.status(), now),
        };
        if !more && call.negotiation.is_refresh(side, &offer) {
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
        awareness::advertise(
            awareness::is_aware(call, side.other()),
            &mut response.headers,
        );
        if let Some(sdp) = call.negotiation.sent(side) {
            response.set_body("application/sdp", sdp);
        }
        session::confirm(call.leg_mut(side), request, &mut response, now);
        self.respond(tx, response, now);
        self.own_server(call, tx);
        if request.method == Method::Invite {
            call.leg_mut(side).unacknowledged = Some(tx);
        }
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
        call.exchange = Some(Box::new(Passage {
            late_offer,
            ..Passage::new(side, tx, request, true)
        }));
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

    pub(super) fn on_reoffer_response(
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
        session_id::share(call);
        self.clients.remove(&tx);
        if let Some(passage) = &mut call.exchange {
            passage.owes_ack = invite && response.is_success();
            passage.due = None;
        }
        if response.is_success() {
            session::agreed(call.leg_mut(from.other()), &response, now);
            self.note_recorded(call);
        }
        if !response.is_success() {
            return self.reoffer_refused(call, response.status, Some(&response), now);
        }
        if late {
            return self.on_late_reoffer(call, response, now);
        }
        self.indication_acknowledged(call, from.other(), now);
        let address = self.media_address(call, from);
        let sdp = Received::from(&response).sdp().unwrap_or_default();
        let answer = Heard::parse_for(&sdp, &call.route.codecs)
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
        let sdp = Received::from(&response).sdp().unwrap_or_default();
        let offered = Heard::parse_for(&sdp, &call.route.codecs)
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
        if let Some(dialog) = &mut call.leg_mut(from).dialog {
            bodies::take_role(&response.headers, dialog);
        }
        let mut ours = self.dialog_response(call, from, &request, response.status);
        self.cross_back(call, from.other(), response, &mut ours);
        ours.headers.set("Allow", headers::allow(&call.route));
        awareness::advertise(awareness::is_aware(call, from.other()), &mut ours.headers);
        if let Some(sdp) = sdp {
            Received::from(response).cross_to_response(Some(&sdp), &mut ours);
        }
        session::confirm(call.leg_mut(from), &request, &mut ours, now);
        self.respond(server, ours, now);
        if request.method == Method::Invite {
            call.leg_mut(from).unacknowledged = Some(server);
        } else {
            // Nothing acknowledges the answer to an UPDATE.
            self.indication_acknowledged(call, from, now);
        }
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
        let sdp = Received::from(ack).sdp().unwrap_or_default();
        let answer = Heard::parse_for(&sdp, &call.route.codecs)
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
        if let Some(passage) = call.exchange.take() {
            self.indication_acknowledged(call, passage.from.other(), now);
        }
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

    pub(super) fn media_changed(&mut self, call: &mut Call, now: &Moment) {
        self.note_codecs(call);
        self.note_hold(call, now);
        self.media_fact(call);
        self.writes
            .push(super::CatalogWrite::Call(call.object.clone()));
        self.save(call);
    }

    /// The far side refused the offer (or never answered): everything stays as it was.
    pub(super) fn reoffer_refused(
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
            self.cross_back(call, passage.from.other(), response, &mut ours);
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

    /// Follows hold: a side that receives nothing has put the other on hold.
    pub(super) fn note_hold(&mut self, call: &mut Call, now: &Moment) {
        // What a recording client only sends is no hold.
        let held = !call.passes_recording
            && Side::BOTH
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
