//! Requests of a recording client inside its session.

use trunkline_link::message::{FailReason, Side};
use trunkline_sip::dialog::DialogId;
use trunkline_sip::message::{Method, Request};
use trunkline_sip::transaction::{Path, ServerTx};

use super::{ACCEPT, ALLOW, mark, refused_sdp, unknown_options};
use crate::b2bua::B2bua;
use crate::b2bua::bodies::refused_body;
use crate::b2bua::invite::Refused;
use crate::call::{Call, Phase};
use crate::clock::Moment;
use crate::siprec::server::Step;
use crate::siprec::server::session::{Carried, Exchange, carried};

impl B2bua {
    pub(in crate::b2bua) fn on_recording_request(
        &mut self,
        call: &mut Call,
        tx: ServerTx,
        request: Request,
        path: Path,
        now: &Moment,
    ) {
        let leg = call.leg_mut(Side::Caller);
        (leg.flow, leg.remote, leg.transport) = (Some(path.flow), path.source, path.transport);
        let Some(dialog) = &mut leg.dialog else {
            return self.respond_plain(tx, &request, 481, now);
        };
        if DialogId::of_request(&request) != Some(dialog.id()) {
            return self.respond_plain(tx, &request, 481, now);
        }
        if let Err(refusal) = dialog.receive(&request) {
            let mut response = dialog.response(&request, refusal.status);
            if let Some(seconds) = refusal.retry_after_s {
                response.headers.set("Retry-After", seconds.to_string());
            }
            response.set_content_length();
            return self.respond(tx, response, now);
        }
        let session = call.recording_session.as_ref();
        let left = session.is_some_and(|session| session.ended_at.is_some());
        let ending = left || call.phase == Phase::Ending;
        let unknown = unknown_options(&request);
        if !unknown.is_empty() && request.method != Method::Bye {
            let refused = (420, vec![("Unsupported", unknown.join(", "))]);
            return self.refuse_in_session(call, tx, &request, refused, now);
        }
        match request.method {
            Method::Bye => {
                // Metadata may come with it (RFC 8068).
                let _ = self.take_carried(call, &request, now);
                if self.outlive_client(call, None, now) {
                    return self.reply(call, Side::Caller, tx, &request, 200, now);
                }
                self.on_bye(call, Side::Caller, tx, &request, now);
            }
            _ if ending => self.reply(call, Side::Caller, tx, &request, 481, now),
            Method::Invite | Method::Update if call.phase != Phase::Answered => {
                self.reply(call, Side::Caller, tx, &request, 491, now);
            }
            Method::Invite | Method::Update => self.on_recording_offer(call, tx, request, now),
            Method::Info | Method::Message => {
                match self.take_carried(call, &request, now) {
                    Ok(_) => self.reply(call, Side::Caller, tx, &request, 200, now),
                    Err(refused) => self.refuse_in_session(call, tx, &request, refused, now),
                }
                self.ask_full_document(call, now);
                self.save(call);
            }
            Method::Options => {
                let mut response = self.dialog_response(call, Side::Caller, &request, 200);
                mark(call, &mut response);
                self.respond(tx, response, now);
            }
            Method::Other(_) => self.reply(call, Side::Caller, tx, &request, 501, now),
            _ => {
                let refused = (405, vec![("Allow", ALLOW.to_owned())]);
                self.refuse_in_session(call, tx, &request, refused, now);
            }
        }
    }

    fn refuse_in_session(
        &mut self,
        call: &mut Call,
        tx: ServerTx,
        request: &Request,
        (status, headers): Refused,
        now: &Moment,
    ) {
        let mut response = self.dialog_response(call, Side::Caller, request, status);
        for (name, value) in headers {
            response.headers.set(name, value);
        }
        self.respond(tx, response, now);
    }

    /// Takes a request's metadata in and gives its offer.
    fn take_carried(
        &mut self,
        call: &mut Call,
        request: &Request,
        now: &Moment,
    ) -> Result<Option<Vec<u8>>, Refused> {
        let Carried { sdp, metadata } =
            carried(&request.headers, &request.body).map_err(refused_body)?;
        if let Some(document) = &metadata {
            let cseq = request.headers.cseq().map_or(0, |cseq| cseq.number);
            self.take_metadata(call, cseq, document, now);
            // Labels of an offer beside it are those of the new lines: bound when it is taken.
            if sdp.is_none() {
                self.follow_metadata(call, now);
            }
        }
        let negotiates = matches!(request.method, Method::Invite | Method::Update);
        if negotiates && sdp.is_none() && metadata.is_none() && !request.body.is_empty() {
            return Err((415, vec![("Accept", ACCEPT.to_owned())]));
        }
        Ok(sdp)
    }

    /// A re-INVITE or UPDATE: metadata, an offer, both, or a mere refresh.
    fn on_recording_offer(
        &mut self,
        call: &mut Call,
        tx: ServerTx,
        request: Request,
        now: &Moment,
    ) {
        let policy = call.leg(Side::Caller).session_policy;
        if let Err(too_small) = policy.accept(&request.headers) {
            let refused = (422, vec![("Min-SE", too_small.min_se.to_string())]);
            return self.refuse_in_session(call, tx, &request, refused, now);
        }
        if call
            .recording_session
            .as_ref()
            .is_some_and(|one| one.exchange.is_some())
        {
            return self.reply(call, Side::Caller, tx, &request, 491, now);
        }
        let sdp = match self.take_carried(call, &request, now) {
            Ok(sdp) => sdp,
            Err(refused) => return self.refuse_in_session(call, tx, &request, refused, now),
        };
        self.own_server(call, tx);
        let Some(session) = &mut call.recording_session else {
            return;
        };
        let Some(sdp) = sdp else {
            // Without an offer an INVITE is told what stands, an UPDATE nothing.
            let stands = session.lines.answered().map(str::to_owned);
            let told = stands.filter(|_| request.method == Method::Invite);
            let response = self.recording_response(call, &request, told.as_deref(), now);
            self.respond(tx, response, now);
            self.ask_full_document(call, now);
            return self.save(call);
        };
        let offer = match session.lines.read(&sdp) {
            Ok(offer) => offer,
            Err(error) => {
                let refused = refused_sdp(&error);
                return self.refuse_in_session(call, tx, &request, refused, now);
            }
        };
        session.exchange = Some(Exchange {
            server: tx,
            request,
        });
        self.take_lines(call, Some(offer));
        match self.more_ports(call) {
            Some(command) => {
                let then = crate::call::Step::RecordingSession(Step::Reopened);
                self.batch(call, vec![command], then, now);
            }
            None => self.reopened(call, None, now),
        }
    }

    /// Ports are there; lines that got none are refused.
    pub(super) fn reopened(&mut self, call: &mut Call, failed: Option<FailReason>, now: &Moment) {
        if failed.is_some() {
            self.without_ports(call);
        }
        // Whether the client sends follows from the answer that is about to be written.
        let (open, address) = (
            self.open_media(call),
            self.media_address(call, Side::Caller),
        );
        if let Some(session) = &mut call.recording_session {
            let _ = session.lines.write(&open, address);
        }
        let more = self.pause_commands(call).into_iter().collect();
        self.arm_lines(call, Step::Rearmed, more, now);
    }

    /// The dataplane follows the offer: it is answered.
    pub(super) fn rearmed(&mut self, call: &mut Call, failed: Option<FailReason>, now: &Moment) {
        let Some(session) = &mut call.recording_session else {
            return;
        };
        let Some(exchange) = session.exchange.take() else {
            return;
        };
        if call.phase == Phase::Ending {
            return self.reply(
                call,
                Side::Caller,
                exchange.server,
                &exchange.request,
                487,
                now,
            );
        }
        if let Some(reason) = failed {
            // Media of before goes on; the client may ask again.
            tracing::warn!(session = %call.object.id, ?reason, "a recording session's media cannot follow");
            return self.reply(
                call,
                Side::Caller,
                exchange.server,
                &exchange.request,
                500,
                now,
            );
        }
        let answer = session.lines.answered().map(str::to_owned);
        let response = self.recording_response(call, &exchange.request, answer.as_deref(), now);
        self.respond(exchange.server, response, now);
        self.media_fact(call);
        self.follow_metadata(call, now);
        self.ask_full_document(call, now);
        self.save(call);
    }
}
