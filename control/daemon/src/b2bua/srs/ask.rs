//! What we ask of a recording client: a full document, or an offer that refreshes the session.

use trunkline_link::message::Side;
use trunkline_sip::message::{Method, Request, Response};
use trunkline_sip::transaction::ClientTx;
use trunkline_siprec::snapshot;

use crate::b2bua::{B2bua, ClientUse, headers, session};
use crate::call::{Call, Phase};
use crate::clock::Moment;
use crate::siprec::server::session::carried;

/// Documents that a client is asked for in one session.
const SNAPSHOTS_MAX: u32 = 3;

impl B2bua {
    /// Asks for a full document (RFC 7866 section 8.2) where the last one was not understood, of a client
    /// that takes UPDATE.
    pub(super) fn ask_full_document(&mut self, call: &mut Call, now: &Moment) {
        let leg = call.leg(Side::Caller);
        if call.phase != Phase::Answered || !leg.takes_update || !leg.acknowledged {
            return;
        }
        let Some(one) = &call.recording_session else {
            return;
        };
        if !one.alarmed || one.snapshots_asked >= SNAPSHOTS_MAX {
            return;
        }
        // Ours of before may not be answered yet.
        let Some(mut update) = request(call, Method::Update) else {
            return;
        };
        if let Some(one) = &mut call.recording_session {
            one.snapshots_asked += 1;
        }
        let body = snapshot::write("the last document was not understood");
        update.set_body(snapshot::CONTENT_TYPE, body);
        update
            .headers
            .set("Content-Disposition", "recording-session");
        self.ask(call, update, ClientUse::Refresh(Side::Caller), now);
    }

    /// Refreshes the session of a client that does not take UPDATE: a recorder's own INVITE never makes
    /// an offer (RFC 7866 section 7.2).
    pub(in crate::b2bua) fn ask_offer(&mut self, call: &mut Call, now: &Moment) {
        let Some(mut invite) = request(call, Method::Invite) else {
            return session::retry_refresh(call.leg_mut(Side::Caller), now);
        };
        invite.set_content_length();
        self.ask(call, invite, ClientUse::ClientOffer, now);
    }

    fn ask(&mut self, call: &mut Call, request: Request, purpose: ClientUse, now: &Moment) {
        let target = call.leg(Side::Caller).target();
        let (method, cseq) = (request.method.clone(), request.headers.cseq());
        match self.endpoint.send_request(now.instant, request, &target) {
            Ok(client) => self.own_client(call, client, purpose),
            Err(_) => {
                let leg = call.leg_mut(Side::Caller);
                if let (Some(dialog), Ok(cseq)) = (&mut leg.dialog, cseq) {
                    dialog.request_ended(&method, cseq.number);
                }
                session::retry_refresh(leg, now);
            }
        }
    }

    /// The client answers with its offer.
    pub(in crate::b2bua) fn on_client_offer(
        &mut self,
        call: &mut Call,
        tx: ClientTx,
        response: &Response,
        now: &Moment,
    ) {
        if !response.is_final() {
            return;
        }
        self.clients.remove(&tx);
        let leg = call.leg_mut(Side::Caller);
        if let Some(dialog) = &mut leg.dialog {
            dialog.handle_response(response);
        }
        match response.status {
            200..300 => {
                session::agreed(leg, response, now);
                self.answer_in_ack(call, tx, response, now);
            }
            status @ (408 | 481) => self.refresh_unanswered(call, Side::Caller, status, now),
            _ => session::retry_refresh(leg, now),
        }
    }

    fn answer_in_ack(&mut self, call: &mut Call, tx: ClientTx, response: &Response, now: &Moment) {
        let taken = carried(&response.headers, &response.body).unwrap_or_default();
        if let Some(document) = taken.metadata {
            let cseq = response.headers.cseq().map_or(0, |cseq| cseq.number);
            self.take_metadata(call, cseq, &document, now);
        }
        let (open, address) = (
            self.open_media(call),
            self.media_address(call, Side::Caller),
        );
        let Some(one) = &call.recording_session else {
            return;
        };
        if let Some(offer) = taken.sdp.and_then(|sdp| one.lines.read(&sdp).ok()) {
            self.take_lines(call, Some(offer));
            // Lines that are new get no ports in an ACK's time: they are refused.
            if let Some(one) = &mut call.recording_session {
                let _ = one.lines.write(&open, address);
            }
            for command in self.line_commands(call) {
                self.command(command);
            }
        }
        let answer = call
            .recording_session
            .as_ref()
            .and_then(|one| one.lines.answered().map(str::to_owned));
        let sequence = response.headers.cseq().map_or(1, |cseq| cseq.number);
        let target = call.leg(Side::Caller).target();
        if let Some(dialog) = &call.leg(Side::Caller).dialog {
            let mut ack = dialog.ack(sequence);
            match answer {
                Some(sdp) => ack.set_body("application/sdp", sdp),
                None => ack.set_content_length(),
            }
            let _ = self.endpoint.send_ack(now.instant, tx, ack, &target);
        }
        self.follow_metadata(call, now);
        self.save(call);
    }

    /// The ACK of our first 2xx: it answers the offer that was ours where the client made none.
    pub(in crate::b2bua) fn recording_session_acknowledged(
        &mut self,
        call: &mut Call,
        ack: &Request,
        now: &Moment,
    ) {
        let Some(one) = &mut call.recording_session else {
            return;
        };
        if one.lines.awaits_answer() {
            let answer = carried(&ack.headers, &ack.body).unwrap_or_default().sdp;
            let answer = answer.and_then(|sdp| one.lines.read(&sdp).ok());
            let Some(answer) = answer else {
                let reason = ("SIP", 488, "no answer to our offer");
                let by = trunkline_sinks::object::EndedBy::Us;
                return self.end_call(call, by, Some(reason), now);
            };
            one.lines.hear(answer);
            for command in self.line_commands(call) {
                self.command(command);
            }
            self.media_fact(call);
            self.follow_metadata(call, now);
            self.save(call);
        }
        self.ask_full_document(call, now);
    }
}

/// A request of ours to the client.
fn request(call: &mut Call, method: Method) -> Option<Request> {
    let leg = call.leg_mut(Side::Caller);
    let mut request = leg.dialog.as_mut()?.request(method).ok()?;
    session::propose(leg, &mut request);
    request.headers.set("User-Agent", headers::SERVER);
    let contact = format!("<{}>;+sip.srs", leg.contact);
    request.headers.set("Contact", contact);
    Some(request)
}
