//! Requests inside a dialog: re-INVITE, UPDATE and others are passed to the other side; BYE ends the
//! call.

use trunkline_config::Transfer;
use trunkline_link::message::Side;
use trunkline_sinks::object::EndedBy;
use trunkline_sip::dialog::{Dialog, DialogId};
use trunkline_sip::message::{Method, Request, Response};
use trunkline_sip::transaction::{Path, ServerTx};

use super::headers;
use super::{B2bua, awareness, session_id, transfer};
use crate::call::{Call, Phase};
use crate::clock::Moment;

/// Requests that may be on their way at once in one call.
pub(super) const PASSAGES_MAX: usize = 16;

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
        if call.recording_session.is_some() {
            return self.on_recording_request(call, tx, request, path, now);
        }
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
        session_id::share(call);
        let ending = call.phase == Phase::Ending;
        let mut required = request.headers.list("Require");
        required.retain(|option| !transfer::understood(&request.method, option));
        if matches!(request.method, Method::Invite | Method::Update) && !ending {
            let policy = call.leg(side).session_policy;
            awareness::note(call.leg_mut(side), &request.headers);
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
                let digit = self.note_info(call, side, &request, now);
                if digit.is_some_and(|digit| self.dial_instead(call, side, digit)) {
                    return self.reply(call, side, tx, &request, 200, now);
                }
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

    pub(super) fn on_bye(
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
        let mut farewell = headers::farewell(request, &call.route);
        if self.hides(call, side, &request.headers)
            && let Some(farewell) = &mut farewell
        {
            headers::remove_identity(&mut farewell.headers);
        }
        call.leg_mut(side.other()).farewell = farewell;
        self.end_call_with(call, by, reason, now);
    }
}
