//! Reliable provisional responses (RFC 3262), each leg by itself: what a target sends reliably gets its
//! PRACK from us; what the caller gets reliably waits for the caller's.

use trunkline_link::message::Side;
use trunkline_sip::dialog::{Dialog, DialogId, Reliability};
use trunkline_sip::message::{Method, Request, Response};
use trunkline_sip::transaction::ServerTx;

use super::{B2bua, headers};
use crate::call::negotiation::Heard;
use crate::call::{Awaited, Call, Phase};
use crate::clock::Moment;

/// Early dialogs of one INVITE of ours that are kept: more forks are not heard before they answer.
const EARLY_MAX: usize = 8;
/// Provisional responses that wait for the caller's PRACK of an earlier one.
const WAITING_MAX: usize = 8;

impl B2bua {
    /// A target's provisional response: true when it is to be handled. A reliable one gets its PRACK, a
    /// repeated one or one out of order is not handled.
    pub(super) fn acknowledge_provisional(
        &mut self,
        call: &mut Call,
        index: usize,
        response: &Response,
        now: &Moment,
    ) -> bool {
        let branch = &mut call.branches[index];
        let Some(tag) = response.headers.to_tag() else {
            return true;
        };
        let known = branch.early.iter().position(|one| one.remote_tag() == tag);
        let place = match known {
            Some(place) => place,
            None => match Dialog::uac(&branch.sent, response) {
                Ok(dialog) if branch.early.len() < EARLY_MAX => {
                    self.dialogs.insert(dialog.id(), (call.key, Side::Callee));
                    branch.early.push(dialog);
                    branch.early.len() - 1
                }
                _ => return true,
            },
        };
        let dialog = &mut branch.early[place];
        match dialog.receive_provisional(response) {
            Reliability::Plain => true,
            Reliability::Repeated | Reliability::OutOfOrder => false,
            Reliability::Acknowledge => {
                if let Ok(mut prack) = dialog.prack(response) {
                    prack.headers.set("User-Agent", headers::SERVER);
                    prack.set_content_length();
                    let mut leg = branch.leg.clone();
                    leg.dialog = Some(dialog.clone());
                    let target = leg.target();
                    let _ = self.endpoint.send_request(now.instant, prack, &target);
                }
                true
            }
        }
    }

    /// The dialog of a target's 2xx: the early one, whose requests have counted on, or a new one.
    pub(super) fn confirmed_dialog(
        &mut self,
        call: &mut Call,
        index: usize,
        response: &Response,
    ) -> Result<Dialog, trunkline_sip::dialog::DialogError> {
        let fresh = Dialog::uac(&call.branches[index].sent, response)?;
        let early = std::mem::take(&mut call.branches[index].early);
        let mut confirmed = None;
        for mut dialog in early {
            if dialog.id() == fresh.id() {
                dialog.handle_response(response);
                confirmed = Some(dialog);
            } else {
                self.dialogs.remove(&dialog.id());
            }
        }
        Ok(confirmed.unwrap_or(fresh))
    }

    /// The early dialogs of a branch that failed are no more.
    pub(super) fn forget_early(&mut self, call: &mut Call, index: usize) {
        for dialog in std::mem::take(&mut call.branches[index].early) {
            self.dialogs.remove(&dialog.id());
        }
    }

    /// A provisional response to the caller, reliably where it can and should be. False when it is to go
    /// as it is.
    pub(super) fn respond_reliably(
        &mut self,
        call: &mut Call,
        response: &Response,
        now: &Moment,
    ) -> bool {
        let Some(invitation) = &mut call.invitation else {
            return false;
        };
        let Some(server) = invitation.server else {
            return false;
        };
        let asked = &invitation.request.headers;
        let has_sdp = !response.body.is_empty();
        let required = asked.list_contains("Require", "100rel");
        if !(required || has_sdp && asked.supports("100rel")) {
            return false;
        }
        if invitation.awaited.is_some() {
            if invitation.provisionals.len() < WAITING_MAX {
                invitation.provisionals.push_back(response.clone());
            }
            return true;
        }
        let sent = self
            .endpoint
            .respond_reliably(now.instant, server, response.clone());
        if let Ok(rseq) = sent {
            invitation.awaited = Some(Awaited { rseq, has_sdp });
        }
        sent.is_ok()
    }

    /// The caller's PRACK.
    pub(super) fn on_prack(
        &mut self,
        call: &mut Call,
        side: Side,
        tx: ServerTx,
        request: &Request,
        now: &Moment,
    ) {
        let rack = request.headers.rack().ok();
        let matched = side == Side::Caller
            && call.invitation.as_mut().is_some_and(|invitation| {
                let cseq = invitation.request.headers.cseq().ok();
                let awaited = invitation.awaited.as_ref().map(|one| one.rseq);
                let ours = rack
                    .filter(|rack| Some(rack.rseq) == awaited && Some(&rack.cseq) == cseq.as_ref());
                let known = ours.is_some_and(|rack| {
                    let server = invitation.server;
                    server.is_some_and(|tx| self.endpoint.acknowledge_reliable(tx, rack.rseq))
                });
                if known {
                    invitation.awaited = None;
                }
                known
            });
        if !matched {
            return self.reply(call, side, tx, request, 481, now);
        }
        // An offer of the caller's before its first one's last answer: not here.
        let status = if request.body.is_empty() { 200 } else { 488 };
        self.reply(call, side, tx, request, status, now);
        let next = call
            .invitation
            .as_mut()
            .and_then(|one| one.provisionals.pop_front());
        if let Some(next) = next {
            self.respond_reliably(call, &next, now);
        }
        self.release_answer(call, now);
    }

    /// Whether the answer to the caller has to wait (RFC 3262 section 3); it is kept then.
    pub(super) fn holds_answer(
        &mut self,
        call: &mut Call,
        response: &Response,
        sdp: Option<&String>,
    ) -> bool {
        let Some(invitation) = &mut call.invitation else {
            return false;
        };
        let waits = invitation.awaited.as_ref().is_some_and(|one| one.has_sdp)
            || invitation
                .provisionals
                .iter()
                .any(|one| !one.body.is_empty());
        if waits {
            invitation.held = Some((response.clone(), sdp.cloned()));
        }
        waits
    }

    /// The answer that waited goes out, or is taken back if the call is over.
    pub(super) fn release_answer(&mut self, call: &mut Call, now: &Moment) {
        let held = call.invitation.as_mut().and_then(|one| one.held.take());
        if let Some((response, sdp)) = held {
            self.answer(call, &response, sdp, false, now);
        }
    }

    /// The caller never acknowledged a reliable response: its INVITE is refused (RFC 3262 section 3).
    pub(super) fn on_no_prack(&mut self, call: &mut Call, now: &Moment) {
        if let Some(invitation) = &mut call.invitation {
            invitation.awaited = None;
            invitation.provisionals.clear();
        }
        if !matches!(call.phase, Phase::Answered | Phase::Ending) {
            self.fail_call(call, 504, "no PRACK", now);
            self.release_answer(call, now);
        }
    }

    /// A request of a target before it has answered. False when the dialog is none of those.
    pub(super) fn on_early_request(
        &mut self,
        call: &mut Call,
        tx: ServerTx,
        request: &Request,
        now: &Moment,
    ) -> bool {
        let id = DialogId::of_request(request);
        let found = call.branches.iter().position(|branch| {
            let mut early = branch.early.iter();
            early.any(|dialog| Some(dialog.id()) == id)
        });
        let Some(index) = found else {
            return false;
        };
        let heard = self.early_offer(call, index, request);
        let branch = &mut call.branches[index];
        let dialog = branch.early.iter_mut().find(|one| Some(one.id()) == id);
        let Some(dialog) = dialog else {
            return false;
        };
        let status = match dialog.receive(request) {
            Err(refusal) => refusal.status,
            Ok(()) if request.method != Method::Update => 481,
            Ok(()) => heard.as_ref().map_or_else(|status| *status, |_| 200),
        };
        let mut response = dialog.response(request, status);
        dialog.sent_response(request, status);
        response.headers.set("Server", headers::SERVER);
        match heard {
            Ok(Some(sdp)) if status == 200 => {
                response.set_body("application/sdp", sdp);
                // Media follows at once; the caller is told after the answer, if it has to be.
                for command in self.leg_commands(call) {
                    self.command(command);
                }
            }
            _ => response.set_content_length(),
        }
        self.respond(tx, response, now);
        true
    }

    /// A target's UPDATE with an offer before its answer (RFC 3311): answered with what the caller said.
    fn early_offer(
        &mut self,
        call: &mut Call,
        index: usize,
        request: &Request,
    ) -> Result<Option<String>, u16> {
        if request.method != Method::Update || request.body.is_empty() {
            return Ok(None);
        }
        if !headers::is_sdp(&request.headers) {
            return Err(415);
        }
        let heard_of = call.invitation.as_ref().and_then(|one| one.early);
        // Only whom the caller hears; an offer to others comes with their answer.
        if call.phase != Phase::Inviting || heard_of != Some(call.branches[index].client) {
            return Err(491);
        }
        let offer =
            Heard::parse_for(&request.body, &call.route.codecs).map_err(|error| error.status())?;
        let address = self.media_address(call, Side::Callee);
        call.negotiation
            .replace_answer(offer, &call.media, address)
            .map(Some)
            .map_err(|error| error.status())
    }
}
