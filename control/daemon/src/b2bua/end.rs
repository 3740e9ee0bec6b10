//! How calls end: CANCEL, BYE, hang-up, timers, failures.

use trunkline_link::message::{Command, Side};
use trunkline_sinks::object::{CallState, EndedBy};
use trunkline_sip::message::{Method, Request, Response};
use trunkline_sip::transaction::{ServerTx, Target};

use super::headers;
use super::{B2bua, ClientUse, END_PATIENCE};
use crate::api::events::EventKind;
use crate::call::recording::Phase as RecordingPhase;
use crate::call::{Call, Leg, Phase};
use crate::clock::Moment;
use crate::metrics::CallResult;

/// Protocol, cause and text of a Reason header (RFC 3326).
pub(super) type Reason<'a> = (&'a str, u16, &'a str);

pub(super) fn reason_header((protocol, cause, text): Reason<'_>) -> String {
    let text: String = text
        .chars()
        .filter(|c| !matches!(c, '"' | '\\' | '\r' | '\n'))
        .collect();
    format!("{protocol};cause={cause};text=\"{text}\"")
}

/// How a call that is over ended, for the metrics.
fn result(call: &Call) -> CallResult {
    match (
        call.was_answered(),
        call.object.ended_by,
        call.object.sip_code,
    ) {
        (true, ..) => CallResult::Answered,
        (_, Some(EndedBy::Caller), _) => CallResult::Cancelled,
        (_, Some(EndedBy::Callee), Some(486 | 600)) => CallResult::Busy,
        (_, Some(EndedBy::Callee), _) => CallResult::Rejected,
        (_, _, Some(480)) => CallResult::NoAnswer,
        (_, _, Some(503)) => CallResult::Refused,
        _ => CallResult::Failed,
    }
}

/// The BYE that ends a leg, and where it goes; what a subscription has still to say is said after it.
pub(super) fn bye(leg: &mut Leg, reason: Option<String>) -> Option<(Request, Target)> {
    let target = leg.target();
    let dialog = leg.dialog.as_mut()?;
    let request = dialog.request(Method::Bye).ok();
    if let Some(subscription) = &mut leg.subscription
        && !subscription.over
    {
        subscription.dialog = Some(dialog.clone());
    }
    dialog.terminate();
    let mut request = request?;
    request.headers.set("User-Agent", headers::SERVER);
    if let Some(reason) = reason {
        request.headers.append("Reason", reason);
    }
    if let Some(farewell) = leg.farewell.take() {
        for field in &farewell.headers {
            request.headers.append(field.name(), field.value());
        }
        request.body = farewell.body;
    }
    request.set_content_length();
    Some((request, target))
}

impl B2bua {
    /// The caller cancelled.
    pub(super) fn on_cancel(
        &mut self,
        call: &mut Call,
        invite: ServerTx,
        cancel: &Request,
        now: &Moment,
    ) {
        let reinvite = call.exchange.as_ref().filter(|one| one.server == invite);
        if let Some(client) = reinvite.and_then(|one| one.client) {
            // Its 487, or a 2xx that was faster, goes back to the asker.
            let _ = self.endpoint.cancel(now.instant, client, &[]);
            return;
        }
        if self.on_replacing_cancelled(call, invite, now) {
            return;
        }
        let reason = cancel
            .headers
            .get("Reason")
            .map(std::borrow::Cow::into_owned);
        call.object.q850 = headers::q850(&cancel.headers).or(call.object.q850);
        self.give_up(call, 487, EndedBy::Caller, reason, None, now);
    }

    /// We end a call that is not answered.
    pub(super) fn fail_call(&mut self, call: &mut Call, status: u16, why: &str, now: &Moment) {
        let reason = reason_header(("SIP", status, why));
        self.give_up(call, status, EndedBy::Us, Some(reason), Some(why), now);
    }

    /// Final response to the caller, CANCEL to the far side.
    fn give_up(
        &mut self,
        call: &mut Call,
        status: u16,
        by: EndedBy,
        reason: Option<String>,
        why: Option<&str>,
        now: &Moment,
    ) {
        if matches!(call.phase, Phase::Answered | Phase::Ending) {
            return;
        }
        self.ledger.ending(call, reason.as_deref());
        self.refuse_caller(call, status, why, now);
        let phase = call.phase;
        self.call_failed(call, status, by, now);
        match phase {
            Phase::Inviting => self.cancel_callee(call, reason, now),
            // The 2xx is in: `answer` acknowledges and ends it.
            Phase::Answering => self.release_answer(call, now),
            _ => self.note_branches_over(call),
        }
    }

    fn refuse_caller(&mut self, call: &mut Call, status: u16, why: Option<&str>, now: &Moment) {
        let Some(invitation) = &call.invitation else {
            return;
        };
        let Some(server) = invitation.server else {
            return;
        };
        let Some(dialog) = &mut call.legs[Side::Caller as usize].dialog else {
            return;
        };
        let mut response: Response = dialog.response(&invitation.request, status);
        response.headers.set("Server", headers::SERVER);
        if let Some(why) = why {
            response
                .headers
                .append("Reason", reason_header(("SIP", status, why)));
        }
        if status == 503 {
            response.headers.set("Retry-After", super::RETRY_AFTER_S);
        }
        response.set_content_length();
        dialog.sent_response(&invitation.request, status);
        self.respond(server, response, now);
    }

    fn cancel_callee(&mut self, call: &mut Call, reason: Option<String>, now: &Moment) {
        self.cancel_branches(call, reason.as_deref(), |_| true, now);
        self.note_branches_over(call);
    }

    /// A call without an answer is over for the caller.
    pub(super) fn call_failed(&mut self, call: &mut Call, status: u16, by: EndedBy, now: &Moment) {
        call.phase = Phase::Ending;
        call.note_end(by, now.utc);
        call.object.sip_code = Some(status);
        call.object.state = CallState::Ending;
        call.leg_mut(Side::Caller).over = true;
        (
            call.connect_deadline,
            call.ring_deadline,
            call.duration_deadline,
        ) = (None, None, None);
        call.end_deadline = Some(now.instant + END_PATIENCE);
        self.stop_recordings(call, now);
        self.end_joined(call, now);
        self.report(call, crate::call::transfer::News::Failed(status));
    }

    /// Our 2xx was never acknowledged.
    pub(super) fn on_no_ack(&mut self, call: &mut Call, tx: ServerTx, now: &Moment) {
        if call.legs.iter().any(|leg| leg.unacknowledged == Some(tx)) {
            // RFC 3261 sections 13.3.1.4 and 14.2: it may be that the peer never got our answer.
            return self.end_call(call, EndedBy::Us, Some(("SIP", 408, "no ACK")), now);
        }
        let no_ack = Some(("SIP", 408, "no ACK"));
        if !call.leg(Side::Caller).acknowledged && self.outlive_client(call, no_ack, now) {
            return;
        }
        let unanswered = |side: &Side| !call.leg(*side).acknowledged;
        let waiting: Vec<Side> = Side::BOTH.into_iter().filter(unanswered).collect();
        for side in waiting {
            call.leg_mut(side).acknowledged = true;
            if call.phase == Phase::Answered {
                self.end_call(call, EndedBy::Us, Some(("SIP", 408, "no ACK")), now);
            } else if call.leg(side).bye_waits {
                self.send_bye(call, side, Some(("SIP", 408, "no ACK")), now);
            }
        }
    }

    /// We end the call.
    pub(super) fn end_call(
        &mut self,
        call: &mut Call,
        by: EndedBy,
        reason: Option<Reason<'_>>,
        now: &Moment,
    ) {
        if let (EndedBy::Us, Some((_, status, why))) = (by, reason)
            && !call.was_answered()
        {
            return self.fail_call(call, status, why, now);
        }
        self.end_call_with(call, by, reason.map(reason_header), now);
    }

    /// Ends an answered call: BYE to whoever has not sent one.
    pub(super) fn end_call_with(
        &mut self,
        call: &mut Call,
        by: EndedBy,
        reason: Option<String>,
        now: &Moment,
    ) {
        match call.phase {
            Phase::Ending => return,
            Phase::Answered => {}
            // A BYE in an early dialog.
            _ => return self.give_up(call, 487, by, reason, None, now),
        }
        call.phase = Phase::Ending;
        self.ledger.ending(call, reason.as_deref());
        call.note_end(by, now.utc);
        call.object.state = CallState::Ending;
        call.end_hold(now.mono_ns);
        call.duration_deadline = None;
        call.end_deadline = Some(now.instant + END_PATIENCE);
        self.stop_recordings(call, now);
        self.end_joined(call, now);
        self.acknowledge_unanswered(call, now);
        self.answer_pending(call, now);
        call.own_offer = None;
        self.abort_transfer(call, now);
        for side in Side::BOTH {
            self.send_bye_with(call, side, reason.clone(), now);
        }
        self.save(call);
    }

    /// RFC 3261 section 15.1.2: requests that are pending when the dialog ends get 487.
    fn answer_pending(&mut self, call: &mut Call, now: &Moment) {
        call.negotiation.withdraw();
        if call.exchange.as_ref().is_some_and(|one| one.owes_ack) {
            self.acknowledge_reinvite(call, None, now);
        }
        for (tx, request) in std::mem::take(&mut call.waiting) {
            self.reply(call, Side::Callee, tx, &request, 487, now);
        }
        let mut pending = std::mem::take(&mut call.passages);
        // A late offer that awaits its ACK was answered already.
        let exchange = call.exchange.take().filter(|passage| !passage.awaits_ack);
        pending.extend(exchange.map(|passage| *passage));
        for passage in pending {
            self.reply(
                call,
                passage.from,
                passage.server,
                &passage.request,
                487,
                now,
            );
        }
    }

    pub(super) fn send_bye(
        &mut self,
        call: &mut Call,
        side: Side,
        reason: Option<Reason<'_>>,
        now: &Moment,
    ) {
        self.send_bye_with(call, side, reason.map(reason_header), now);
    }

    pub(super) fn send_bye_with(
        &mut self,
        call: &mut Call,
        side: Side,
        reason: Option<String>,
        now: &Moment,
    ) {
        let leg = call.leg_mut(side);
        if leg.over {
            return;
        }
        if !leg.acknowledged {
            (leg.bye_waits, leg.bye_reason) = (true, reason);
            return;
        }
        let Some((request, target)) = bye(leg, reason) else {
            leg.over = true;
            return;
        };
        self.send_leg_bye(call, side, request, &target, now);
    }

    pub(super) fn send_leg_bye(
        &mut self,
        call: &mut Call,
        side: Side,
        request: Request,
        target: &Target,
        now: &Moment,
    ) {
        match self.endpoint.send_request(now.instant, request, target) {
            Ok(client) => {
                self.own_client(call, client, ClientUse::Bye(side));
            }
            Err(_) => call.leg_mut(side).over = true,
        }
    }

    /// A deadline of the call has come.
    pub(super) fn call_timeout(&mut self, call: &mut Call, now: &Moment) {
        let due = |deadline: Option<std::time::Instant>| deadline.is_some_and(|d| d <= now.instant);
        self.expire_batches(call, now);
        if due(call.connect_deadline) {
            call.connect_deadline = None;
            self.give_up_silent(call, now);
        }
        if due(call.ring_deadline) {
            call.ring_deadline = None;
            self.give_up_ringing(call, now);
        }
        if due(call.duration_deadline) {
            call.duration_deadline = None;
            self.end_call(
                call,
                EndedBy::Us,
                Some(("SIP", 480, "longest duration reached")),
                now,
            );
        }
        if let Some(client) = call
            .exchange
            .as_mut()
            .and_then(|one| one.take_overdue(now.instant))
        {
            // Its 487, or that there is none, goes back to the asker.
            let reason = [("Reason", "SIP;cause=408;text=\"no final response\"")];
            let _ = self.endpoint.cancel(now.instant, client, &reason);
        }
        if due(call.own_offer.as_ref().map(|offer| offer.due)) {
            self.own_offer_due(call, now);
        }
        self.session_timeouts(call, now);
        if call.departing.iter().any(|one| due(one.deadline)) {
            self.see_off(call, now);
        }
        if due(call.end_deadline) {
            call.end_deadline = None;
            for leg in call.all_legs() {
                (leg.over, leg.subscription) = (true, None);
            }
            self.recounting
                .retain(|number, _| !call.recordings.iter().any(|one| one.number == *number));
            self.abandon_recordings(call, now);
        }
    }

    /// Announces the end once both legs are down; true when nothing is left to wait for.
    pub(super) fn finish_if_over(&mut self, call: &mut Call, now: &Moment) -> bool {
        if call.phase != Phase::Ending || !call.all_legs().all(|leg| leg.is_done()) {
            return false;
        }
        if call.transfer_of.is_some() {
            self.ledger.over(call, now);
            return true;
        }
        if !call.announced && call.recording_session.is_some() {
            call.announced = true;
            self.served_session_over(call, now);
        }
        if !call.announced {
            call.announced = true;
            self.active = self.active.saturating_sub(1);
            if let Some(source) = call.source {
                self.sources.call_over(source);
            }
            let answered = call.was_answered();
            let (state, kind) = if answered {
                (CallState::Ended, EventKind::CallEnded)
            } else {
                (CallState::Failed, EventKind::CallFailed)
            };
            call.object.state = state;
            for leg in &mut call.object.legs {
                if !leg.state.is_final() {
                    leg.state = state;
                }
            }
            self.metrics.call_ended(result(call));
            self.publish_call(kind, call, now);
        }
        if call
            .recordings
            .iter()
            .any(|one| one.phase != RecordingPhase::Done)
        {
            return false;
        }
        self.ledger.over(call, now);
        if !call.closed {
            call.closed = true;
            if !call.media.open.is_empty() {
                self.command(Command::SessionClose { session: call.key });
            }
        }
        true
    }

    /// New calls get 503 from now on.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Ends every call that is still there.
    pub fn end_all(&mut self, now: &Moment) {
        let keys: Vec<u64> = self.calls.keys().copied().collect();
        for key in keys {
            self.with_call(key, now, |b2bua, call| {
                if call.phase == Phase::Answered {
                    b2bua.end_call(call, EndedBy::Us, Some(("SIP", 503, "shutting down")), now);
                } else {
                    b2bua.fail_call(call, 503, "shutting down", now);
                }
            });
        }
    }
}
