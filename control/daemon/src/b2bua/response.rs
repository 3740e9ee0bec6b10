//! Responses to our requests, and the caller's ACK.

use trunkline_link::message::Side;
use trunkline_sinks::object::{CallState, EndedBy};
use trunkline_sip::message::Response;
use trunkline_sip::transaction::{ClientTx, Path};

use super::bodies::{self, Received};
use super::{B2bua, ClientUse, awareness, headers, session, session_id};
use crate::api::events::EventKind;
use crate::call::negotiation::Heard;
use crate::call::transfer::News;
use crate::call::{Call, Failure, Phase, Step};
use crate::clock::Moment;

impl B2bua {
    pub(super) fn on_response(
        &mut self,
        call: &mut Call,
        tx: ClientTx,
        client: ClientUse,
        response: Response,
        path: Path,
        now: &Moment,
    ) {
        match client {
            ClientUse::Invitation => self.on_invite_response(call, tx, response, path, now),
            ClientUse::Passage(far) => self.on_passage_response(call, tx, far, response, now),
            ClientUse::Notify if response.is_final() => {
                self.on_notify_answered(call, tx, response.status, now);
            }
            ClientUse::Departure if response.is_final() => self.on_departed(call, tx, now),
            ClientUse::Notify | ClientUse::Departure => {}
            ClientUse::OwnOffer(side) => {
                self.on_own_offer_response(call, tx, side, response, now);
            }
            ClientUse::Refresh(side) => self.on_refreshed(call, tx, side, &response, now),
            ClientUse::ClientOffer => self.on_client_offer(call, tx, &response, now),
            ClientUse::Digit(_) => {
                if response.is_final() {
                    self.clients.remove(&tx);
                }
            }
            ClientUse::Consultation { call: other, side } => {
                self.on_consulted(call, tx, other, side, response, now);
            }
            ClientUse::Bye(side) => {
                if response.is_final() {
                    call.leg_mut(side).over = true;
                    self.clients.remove(&tx);
                }
            }
        }
    }

    fn on_invite_response(
        &mut self,
        call: &mut Call,
        tx: ClientTx,
        response: Response,
        path: Path,
        now: &Moment,
    ) {
        let found = call.branches.iter().position(|one| one.client == tx);
        let Some(index) = found else {
            return;
        };
        let branch = &mut call.branches[index];
        // A large INVITE may have gone by a stream, the rest of the dialog goes by the leg's own way.
        if path.transport == branch.leg.transport {
            branch.leg.flow = Some(path.flow);
        }
        branch.proceeding = true;
        self.ledger.heard(call, &response, now);
        match response.status {
            100 => {}
            101..200 => self.on_provisional(call, index, response, now),
            200..300 => self.on_accepted(call, index, response, now),
            _ => self.on_rejected(call, index, response, now),
        }
    }

    fn on_provisional(&mut self, call: &mut Call, index: usize, response: Response, now: &Moment) {
        if !self.acknowledge_provisional(call, index, &response, now) {
            return;
        }
        // A 18x after the 2xx, or after we gave up, says nothing to the caller any more.
        if call.phase != Phase::Inviting || !call.branches[index].rings() {
            return;
        }
        let rings = response.status == 180 && call.object.state == CallState::Setup;
        let has_sdp = Received::from(&response).sdp().is_some();
        let client = call.branches[index].client;
        // The caller hears one target at a time: the first that sends early media.
        let may_play = call.invitation.as_ref().is_some_and(|invitation| {
            let rung = |early| {
                let branch = call.branches.iter().find(|one| one.client == early);
                branch.is_some_and(crate::call::Branch::rings)
            };
            let taken = invitation
                .early
                .is_some_and(|early| early != client && rung(early));
            !invitation.late_offer && !taken
        });
        if rings {
            call.object.state = CallState::Ringing;
            call.object_leg(Side::Callee).state = CallState::Ringing;
            self.publish_call(EventKind::CallRinging, call, now);
            self.report(call, News::Ringing(180));
        }
        // An offer in an unreliable provisional is none (RFC 3261 section 13.2.1).
        if has_sdp && may_play {
            self.adopt(call, index);
            if self
                .take_answer(call, &response, false)
                .is_ok_and(|found| found)
            {
                return self.arm_early(call, client, response, now);
            }
        }
        self.pass_provisional(call, &response, None, now);
    }

    /// Early media: the relay knows the target before the caller hears of it.
    fn arm_early(&mut self, call: &mut Call, client: ClientTx, response: Response, now: &Moment) {
        if let Some(invitation) = &mut call.invitation {
            invitation.early = Some(client);
        }
        if call.transfer_of.is_some() {
            // The party that is to be transferred still hears the other.
            return;
        }
        if self.config.recording.early_media && call.recordings.is_empty() {
            self.start_by_route(call, now);
        }
        let sdp = call.negotiation.sent(Side::Caller).map(str::to_owned);
        let commands = self.leg_commands(call);
        match sdp {
            Some(sdp) => self.batch(call, commands, Step::Early { response, sdp }, now),
            None => self.pass_provisional(call, &response, None, now),
        }
    }

    /// Takes in the SDP answer of a response to the INVITE; false when it has none.
    pub(super) fn take_answer(
        &mut self,
        call: &mut Call,
        response: &Response,
        last: bool,
    ) -> Result<bool, trunkline_sdp::SdpError> {
        let Some(sdp) = Received::from(response).sdp() else {
            return Ok(false);
        };
        let answer = Heard::parse_for(&sdp, &call.route.codecs)?;
        let address = self.media_address(call, Side::Caller);
        call.negotiation
            .answer(answer, &call.media, address, last)?;
        Ok(true)
    }

    pub(super) fn pass_early(
        &mut self,
        call: &mut Call,
        response: &Response,
        sdp: String,
        now: &Moment,
    ) {
        if call.phase != Phase::Inviting {
            return;
        }
        let sdp = self.retold(call, Some(sdp));
        if call.object.state != CallState::Early {
            call.object.state = CallState::Early;
            self.publish_call(EventKind::CallEarly, call, now);
        }
        self.pass_provisional(call, response, sdp, now);
    }

    fn pass_provisional(
        &mut self,
        call: &mut Call,
        response: &Response,
        sdp: Option<String>,
        now: &Moment,
    ) {
        self.answer_caller(call, response.status, Some(response), sdp, now);
    }

    /// A response to the caller's INVITE.
    pub(super) fn answer_caller(
        &mut self,
        call: &mut Call,
        status: u16,
        from: Option<&Response>,
        sdp: Option<String>,
        now: &Moment,
    ) {
        let Some(invitation) = &call.invitation else {
            return;
        };
        let Some(server) = invitation.server else {
            return;
        };
        let callee_aware = awareness::is_aware(call, Side::Callee);
        let Some(dialog) = &mut call.legs[Side::Caller as usize].dialog else {
            return;
        };
        if let Some(from) = from {
            session_id::speak_for_sender(dialog, &call.route, &from.headers);
            if status < 300 {
                bodies::take_role(&from.headers, dialog);
            }
        }
        let mut ours = dialog.response(&invitation.request, status);
        if let Some(from) = from {
            if from.status == status {
                ours.reason.clone_from(&from.reason);
            }
            headers::cross_response(from, &mut ours, &call.route);
        } else {
            ours.headers.set("Server", headers::SERVER);
        }
        let accepted = (200..300).contains(&status);
        if accepted {
            ours.headers.set("Allow", headers::allow(&call.route));
            awareness::advertise(callee_aware, &mut ours.headers);
        }
        match (sdp, from) {
            (Some(sdp), Some(from)) => {
                Received::from(from).cross_to_response(Some(&sdp), &mut ours);
            }
            (Some(sdp), None) => ours.set_body("application/sdp", sdp),
            (None, _) => ours.set_content_length(),
        }
        dialog.sent_response(&invitation.request, status);
        self.ledger.told_caller(call, status, now);
        if accepted {
            let leg = &mut call.legs[Side::Caller as usize];
            session::confirm(leg, &invitation.request, &mut ours, now);
        }
        if status < 200 && self.respond_reliably(call, &ours, now) {
            return;
        }
        self.respond(server, ours, now);
    }

    fn on_rejected(&mut self, call: &mut Call, index: usize, response: Response, now: &Moment) {
        self.forget_early(call, index);
        let branch = &mut call.branches[index];
        let wanted = branch.rings();
        branch.over = true;
        self.clients.remove(&branch.client);
        if call.phase != Phase::Inviting || !wanted {
            return self.note_branches_over(call);
        }
        if response.status == 422 && self.ask_for_longer(call, index, &response, now) {
            return;
        }
        // RFC 3263 section 4.3: a server that is out of service has others beside it.
        if response.status == 503 && self.try_other(call, index, now) {
            return;
        }
        let failure = Failure {
            status: response.status,
            response: Some(response),
            why: "",
        };
        self.branch_failed(call, failure, now);
    }

    /// The caller is told what the best of the targets answered.
    pub(super) fn pass_failure(&mut self, call: &mut Call, response: &Response, now: &Moment) {
        call.object.q850 = headers::q850(&response.headers);
        let reason = response.headers.get("Reason");
        self.ledger.ending(call, reason.as_deref());
        // RFC 3261 section 16.7: a 503 speaks of the far side, not of us. Redirection would lead the
        // caller past us.
        let status = match response.status {
            503 => 500,
            300..400 => 480,
            other => other,
        };
        self.answer_caller(call, status, Some(response), None, now);
        self.call_failed(call, status, EndedBy::Callee, now);
        self.note_branches_over(call);
    }

    /// A request of ours got no answer, or could not be sent.
    pub(super) fn on_client_failure(&mut self, tx: ClientTx, status: u16, now: &Moment) {
        if self.siprec.owns_client(tx) {
            return self.recorder_unanswered(tx, status, now);
        }
        self.with_client(tx, now, |b2bua, call, client| {
            b2bua.clients.remove(&tx);
            match client {
                ClientUse::Invitation => b2bua.branch_unanswered(call, tx, status, now),
                ClientUse::Passage(_) => b2bua.on_passage_failure(call, tx, status, now),
                ClientUse::Bye(side) => call.leg_mut(side).over = true,
                ClientUse::Notify => b2bua.on_notify_answered(call, tx, status, now),
                ClientUse::Departure => b2bua.on_departed(call, tx, now),
                ClientUse::OwnOffer(side) => {
                    b2bua.own_offer_unanswered(call, tx, side, status, now);
                }
                ClientUse::Refresh(side) => b2bua.refresh_unanswered(call, side, 408, now),
                ClientUse::ClientOffer => b2bua.refresh_unanswered(call, Side::Caller, 408, now),
                ClientUse::Digit(_) => {}
                ClientUse::Consultation { .. } => {
                    b2bua.consultation_unanswered(call, tx, status, now);
                }
            }
        });
    }
}
