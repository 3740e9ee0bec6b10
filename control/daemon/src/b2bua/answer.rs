//! The answer: the far side's 2xx, ours to the caller, and the ACKs of both.

use std::time::Duration;

use trunkline_link::message::{FactKind, Side};
use trunkline_sinks::object::{CallState, EndedBy};
use trunkline_sip::dialog::{Dialog, DialogId};
use trunkline_sip::message::{Method, Request, Response};
use trunkline_sip::transaction::{Path, ServerTx};
use trunkline_sn3::facts::CallChange;

use super::bodies::Received;
use super::{B2bua, headers, session, session_id};
use crate::api::events::EventKind;
use crate::call::negotiation::Heard;
use crate::call::{Call, Leg, Phase, Step};
use crate::clock::Moment;

/// For so long a 2xx is repeated (RFC 3261 section 13.3.1.4: 64*T1).
const LATE_ANSWER_REPEATS: Duration = Duration::from_secs(32);
/// Late answers that are told from their repetitions.
const LATE_ANSWERS_MAX: usize = 4096;

impl B2bua {
    pub(super) fn on_accepted(
        &mut self,
        call: &mut Call,
        index: usize,
        response: Response,
        now: &Moment,
    ) {
        let branch = &mut call.branches[index];
        let (wanted, tx) = (branch.rings(), branch.client);
        branch.over = true;
        if call.phase != Phase::Inviting || !wanted {
            // Another fork's 2xx, or one that crossed our CANCEL.
            self.refuse_extra(call, index, &response, now);
            return self.note_branches_over(call);
        }
        let mut dialog = match self.confirmed_dialog(call, index, &response) {
            Ok(dialog) => dialog,
            // A 2xx without Contact and the like: no call can be had of it.
            Err(error) => {
                self.refuse_bad(call, index, response, now);
                return self.fail_call(call, 500, &error.to_string(), now);
            }
        };
        let elsewhere = Some(headers::ANSWERED_ELSEWHERE);
        self.cancel_branches(call, elsewhere, |one| one.client != tx, now);
        let early = call.invitation.as_ref().and_then(|one| one.early);
        let other = early.is_some_and(|early| early != tx);
        // What the caller was told of an earlier target stands until it has acknowledged the answer (RFC
        // 6337 section 3.1.1).
        let told = call.negotiation.sent(Side::Caller).map(str::to_owned);
        if other {
            call.negotiation.reopen();
        }
        self.adopt(call, index);
        session::agreed(call.leg_mut(Side::Callee), &response, now);
        if let Some(invitation) = &mut call.invitation {
            invitation.client = Some(tx);
        }
        (call.connect_deadline, call.ring_deadline) = (None, None);
        self.dialogs.insert(dialog.id(), (call.key, Side::Callee));
        session_id::complete(&mut dialog);
        call.leg_mut(Side::Callee).dialog = Some(dialog);
        session_id::share(call);
        call.phase = Phase::Answering;
        let late = call
            .invitation
            .as_ref()
            .is_some_and(|invitation| invitation.late_offer);
        if late {
            return self.on_late_offer(call, response, now);
        }
        match self.take_answer(call, &response, true) {
            Ok(true) => {}
            // The answer was in a provisional response.
            Ok(false) if call.negotiation.heard(Side::Callee).is_some() => {
                call.negotiation.settle();
            }
            Ok(false) => return self.accepted_badly(call, &response, "no SDP answer", now),
            Err(error) => {
                return self.accepted_badly(call, &response, &error.to_string(), now);
            }
        }
        call.offerer = Side::Caller;
        if let Some(told) = told.filter(|_| early.is_some()) {
            call.negotiation.keep_told(Side::Caller, told);
        }
        let sdp = call.negotiation.sent(Side::Caller).map(str::to_owned);
        self.arm_answer(call, response, sdp, now);
    }

    /// Media and recording are armed before the messages that let a party send.
    fn arm_answer(
        &mut self,
        call: &mut Call,
        response: Response,
        sdp: Option<String>,
        now: &Moment,
    ) {
        if call.transfer_of.is_some() {
            return self.hand_over(call, &response, now);
        }
        if call.recordings.is_empty() {
            self.start_by_route(call, now);
        }
        let commands = self.leg_commands(call);
        self.batch(call, commands, Step::Answer { response, sdp }, now);
    }

    /// The far side accepted, but there is no call to be had from it.
    pub(super) fn accepted_badly(
        &mut self,
        call: &mut Call,
        response: &Response,
        why: &str,
        now: &Moment,
    ) {
        self.acknowledge(call, response, None, now);
        self.fail_call(call, 500, why, now);
        self.send_bye(call, Side::Callee, Some(("SIP", 488, why)), now);
    }

    /// ACK and BYE for a 2xx that lacks its Contact: they go where the INVITE went.
    fn refuse_bad(&mut self, call: &Call, index: usize, mut response: Response, now: &Moment) {
        let uri = &call.branches[index].sent.uri;
        response.headers.set("Contact", format!("<{uri}>"));
        self.refuse_extra(call, index, &response, now);
    }

    /// A 2xx whose transaction is over. That of a dialog of ours is acknowledged again; any other that an
    /// INVITE of ours led to is acknowledged and ended, as its sender would hold a call with nobody.
    pub(super) fn on_stray_2xx(&mut self, response: &Response, path: Path, now: &Moment) {
        let Ok(cseq) = response.headers.cseq() else {
            return;
        };
        let known = DialogId::of_response(response).and_then(|id| self.dialogs.get(&id).copied());
        if let Some((key, side)) = known {
            let leg = self.calls.get(&key).map(|call| call.leg(side));
            let ack =
                leg.and_then(|leg| Some((leg.dialog.as_ref()?.ack(cseq.number), leg.target())));
            if let Some((ack, target)) = ack {
                let _ = self.endpoint.send_stateless(now.instant, ack, &target);
            }
            return;
        }
        if !self.endpoint.made(response) {
            return;
        }
        let Some(mut dialog) = dialog_of_stray(response) else {
            return;
        };
        let refused = self.refused_before(dialog.id(), now);
        if !refused {
            tracing::info!(source = %path.source, "a late answer to an INVITE is refused");
        }
        let ack = dialog.ack(cseq.number);
        let contact = response.headers.contact_uri();
        let leg = Leg {
            dialog: Some(dialog.clone()),
            ..Leg::new(
                path.transport,
                Some(path.flow),
                path.local,
                path.source,
                contact.unwrap_or(ack.uri.clone()),
            )
        };
        let target = leg.target();
        let _ = self.endpoint.send_stateless(now.instant, ack, &target);
        if let (false, Ok(mut bye)) = (refused, dialog.request(Method::Bye)) {
            bye.headers.set("User-Agent", headers::SERVER);
            bye.set_content_length();
            let _ = self.endpoint.send_request(now.instant, bye, &target);
        }
    }

    /// Whether the BYE of a dialog that nobody wants has left already; if not, it is about to.
    fn refused_before(&mut self, dialog: DialogId, now: &Moment) -> bool {
        let late = &mut self.late_answers;
        late.retain(|_, until| *until > now.instant);
        if late.contains_key(&dialog) {
            return true;
        }
        if late.len() < LATE_ANSWERS_MAX {
            late.insert(dialog, now.instant + LATE_ANSWER_REPEATS);
        }
        false
    }

    /// ACK and BYE for a 2xx that nobody wants.
    fn refuse_extra(&mut self, call: &Call, index: usize, response: &Response, now: &Moment) {
        let branch = &call.branches[index];
        let tx = branch.client;
        let Ok(mut dialog) = Dialog::uac(&branch.sent, response) else {
            return;
        };
        // A PRACK of ours has counted on.
        if let Some(early) = branch.early.iter().find(|one| one.id() == dialog.id()) {
            dialog = early.clone();
            dialog.handle_response(response);
        }
        let known = call.legs.iter().any(|leg| {
            let ours = leg.dialog.as_ref();
            ours.is_some_and(|ours| ours.id() == dialog.id())
        });
        if known {
            return;
        }
        let sequence = response.headers.cseq().map_or(1, |cseq| cseq.number);
        let ack = dialog.ack(sequence);
        let mut leg = branch.leg.clone();
        leg.dialog = Some(dialog.clone());
        let target = leg.target();
        let _ = self.endpoint.send_ack(now.instant, tx, ack, &target);
        let sip_call_id = response.headers.call_id().unwrap_or_default();
        let answers = call.leg(Side::Callee).dialog.is_some()
            && call.object.legs[call.shown[Side::Callee as usize]].sip_call_id == sip_call_id;
        if !answers {
            self.ledger.acknowledged(call, &sip_call_id, now);
            self.ledger
                .leg_over(call, &sip_call_id, EndedBy::Us, None, now);
        }
        if let Ok(mut bye) = dialog.request(Method::Bye) {
            bye.headers.set("User-Agent", headers::SERVER);
            bye.set_content_length();
            let _ = self.endpoint.send_request(now.instant, bye, &target);
        }
    }

    /// The far side offers in its 2xx: ports are asked for, then the caller gets the offer.
    fn on_late_offer(&mut self, call: &mut Call, response: Response, now: &Moment) {
        let sdp = Received::from(&response).sdp().unwrap_or_default();
        let offered = Heard::parse_for(&sdp, &call.route.codecs)
            .and_then(|offer| call.negotiation.offer(Side::Callee, offer));
        if let Err(error) = offered {
            return self.accepted_badly(call, &response, &error.to_string(), now);
        }
        call.offerer = Side::Callee;
        call.media.open = call.negotiation.wanted_media(&[]);
        if let Some(invitation) = &mut call.invitation {
            invitation.accepted = Some(response.clone());
        }
        let command = call.media.open_command();
        let then = Box::new(Step::Answer {
            response,
            sdp: None,
        });
        self.batch(call, vec![command], Step::Describe { then }, now);
    }

    /// Media is armed: ACK to the far side, 2xx to the caller. This is the answer.
    pub(super) fn answer(
        &mut self,
        call: &mut Call,
        response: &Response,
        sdp: Option<String>,
        failed: bool,
        now: &Moment,
    ) {
        if call.phase == Phase::Ending {
            // The caller gave up while media was being armed.
            self.acknowledge(call, response, None, now);
            return self.send_bye(call, Side::Callee, None, now);
        }
        if call.phase != Phase::Answering {
            return;
        }
        if !failed && self.holds_answer(call, response, sdp.as_ref()) {
            return;
        }
        let late = call
            .invitation
            .as_ref()
            .is_some_and(|invitation| invitation.accepted.is_some());
        if failed {
            self.acknowledge(call, response, None, now);
            self.fail_call(call, 503, "media cannot be set up", now);
            return self.send_bye(call, Side::Callee, Some(("SIP", 503, "no media")), now);
        }
        let sdp = if late {
            self.start_by_route(call, now);
            self.note_recorded(call);
            let address = self.media_address(call, Side::Caller);
            call.negotiation.write_offer(&call.media, address)
        } else {
            self.acknowledge(call, response, None, now);
            self.retold(call, sdp)
        };
        self.answer_caller(call, response.status, Some(response), sdp, now);
        call.phase = Phase::Answered;
        call.ring_deadline = None;
        call.duration_deadline = call
            .route
            .duration_max_s
            .map(|s| now.instant + std::time::Duration::from_secs(u64::from(s)));
        call.answered_mono_ns = now.mono_ns;
        call.object.answered_at = Some(now.utc);
        call.object.sip_code = Some(response.status);
        call.object.state = CallState::Active;
        for side in Side::BOTH {
            call.object_leg(side).state = CallState::Active;
        }
        self.note_codecs(call);
        self.note_hold(call, now);
        self.publish_call(EventKind::CallAnswered, call, now);
        self.publish_call(EventKind::CallBridged, call, now);
        let change = CallChange {
            reason: "answered".to_owned(),
            answered_mono_ns: Some(now.mono_ns),
            answered_at: Some(now.utc.to_string()),
            ..CallChange::default()
        };
        self.fact_to_live(call, FactKind::CallChange, &change);
        self.save(call);
    }

    /// The far side's 2xx that the caller's ACK was to answer is acknowledged without one.
    pub(super) fn acknowledge_unanswered(&mut self, call: &mut Call, now: &Moment) {
        let accepted = call.invitation.as_mut().and_then(|one| one.accepted.take());
        if let Some(response) = accepted {
            self.acknowledge(call, &response, None, now);
        }
    }

    /// ACK for the far side's 2xx.
    fn acknowledge(
        &mut self,
        call: &mut Call,
        response: &Response,
        sdp: Option<String>,
        now: &Moment,
    ) {
        let client = call
            .invitation
            .as_ref()
            .and_then(|invitation| invitation.client);
        let sequence = response.headers.cseq().map_or(1, |cseq| cseq.number);
        let target = call.leg(Side::Callee).target();
        let leg = call.leg_mut(Side::Callee);
        let (Some(client), Some(dialog)) = (client, &mut leg.dialog) else {
            return;
        };
        let mut ack = dialog.ack(sequence);
        match sdp {
            Some(sdp) => ack.set_body("application/sdp", sdp),
            None => ack.set_content_length(),
        }
        let _ = self.endpoint.send_ack(now.instant, client, ack, &target);
        let sip_call_id = response.headers.call_id().unwrap_or_default();
        self.ledger.acknowledged(call, &sip_call_id, now);
    }

    pub(super) fn on_ack(&mut self, invite: Option<ServerTx>, request: &Request, now: &Moment) {
        if self.recorder_ack(invite, request, now) {
            return;
        }
        let by_server = invite.and_then(|tx| self.servers.get(&tx).copied());
        let by_dialog = || {
            let id = DialogId::of_request(request)?;
            self.dialogs.get(&id).map(|(key, _)| *key)
        };
        let side = DialogId::of_request(request)
            .and_then(|id| self.dialogs.get(&id).map(|(_, side)| *side));
        let Some(key) = by_server.or_else(by_dialog) else {
            return;
        };
        self.with_call(key, now, |b2bua, call| {
            let first = call
                .invitation
                .as_ref()
                .is_some_and(|one| one.server.is_some() && one.server == invite);
            for side in Side::BOTH {
                let leg = call.leg_mut(side);
                if invite.is_some() && leg.unacknowledged == invite {
                    leg.unacknowledged = None;
                    b2bua.indication_acknowledged(call, side, now);
                }
            }
            if first {
                b2bua.on_first_ack(call, request, now);
            } else if let Some(side) = side
                && !b2bua.on_newcomer_ack(call, side, now)
            {
                b2bua.on_later_ack(call, side, request, now);
            }
        });
    }

    /// The ACK of the 2xx that answered the call.
    fn on_first_ack(&mut self, call: &mut Call, request: &Request, now: &Moment) {
        self.ledger
            .acknowledged(call, &call.object.sip_call_id, now);
        self.indication_acknowledged(call, Side::Caller, now);
        let leg = call.leg_mut(Side::Caller);
        leg.acknowledged = true;
        let (waits, reason) = (std::mem::take(&mut leg.bye_waits), leg.bye_reason.take());
        let invitation = call.invitation.take();
        let winner = invitation.as_ref().and_then(|one| one.client);
        let rang_early = invitation.as_ref().is_some_and(|one| one.early.is_some());
        // What other forks of them still answer is to be refused.
        for dialog in call.branches.iter().flat_map(|branch| &branch.early) {
            self.dialogs.remove(&dialog.id());
        }
        call.branches
            .retain(|one| !one.over || Some(one.client) == winner);
        for branch in &mut call.branches {
            branch.rest();
        }
        if let Some(response) = invitation.as_ref().and_then(|one| one.accepted.clone()) {
            call.invitation = invitation;
            self.on_late_answer(call, response, request, now);
        } else {
            // The answer was saved; since then nothing has changed that outlives us.
            call.negotiation.rest();
        }
        if waits {
            self.send_bye_with(call, Side::Caller, reason, now);
        }
        let settled = call.invitation.is_none() && !call.negotiation.is_pending();
        if rang_early && settled && call.negotiation.must_retell(Side::Caller) {
            self.realign(call, Side::Caller, now);
        }
        self.recording_session_acknowledged(call, request, now);
        self.release_waiting(call, now);
    }

    /// The caller's ACK answers the far side's offer.
    fn on_late_answer(&mut self, call: &mut Call, response: Response, ack: &Request, now: &Moment) {
        let address = self.media_address(call, Side::Callee);
        let sdp = Received::from(ack).sdp().unwrap_or_default();
        let answer = Heard::parse_for(&sdp, &call.route.codecs)
            .and_then(|answer| call.negotiation.answer(answer, &call.media, address, true));
        match answer {
            Ok(sdp) => {
                let commands = self.leg_commands(call);
                self.note_codecs(call);
                self.note_hold(call, now);
                self.media_fact(call);
                self.batch(
                    call,
                    commands,
                    Step::LateAnswer {
                        response,
                        sdp: Some(sdp),
                    },
                    now,
                );
            }
            Err(error) => {
                self.acknowledge(call, &response, None, now);
                call.invitation = None;
                self.end_call(
                    call,
                    EndedBy::Us,
                    Some(("SIP", 488, &error.to_string())),
                    now,
                );
            }
        }
    }

    pub(super) fn late_answer(
        &mut self,
        call: &mut Call,
        response: &Response,
        sdp: Option<String>,
        now: &Moment,
    ) {
        self.acknowledge(call, response, sdp, now);
        call.invitation = None;
        // Nothing acknowledges an ACK.
        self.indication_acknowledged(call, Side::Callee, now);
        self.save(call);
    }
}

/// The dialog that a 2xx makes, by what it says itself of the INVITE.
fn dialog_of_stray(response: &Response) -> Option<Dialog> {
    let headers = &response.headers;
    let mut invite = Request::new(Method::Invite, headers.contact_uri()?);
    for name in ["From", "To", "Call-ID", "CSeq", "Contact"] {
        invite.headers.copy(headers, name);
    }
    Dialog::uac(&invite, response).ok()
}
