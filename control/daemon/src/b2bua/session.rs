//! Session timers (RFC 4028) of each leg by itself: what is agreed with its peer, refreshed by whoever
//! is to, and the call's end when nobody does.

use std::time::Duration;

use trunkline_link::message::Side;
use trunkline_sinks::object::EndedBy;
use trunkline_sip::dialog::{SessionPolicy, SessionTimer, TimerAction};
use trunkline_sip::message::{Headers, Method, Request, Response};
use trunkline_sip::transaction::ClientTx;

use super::{B2bua, ClientUse, awareness, headers};
use crate::call::{Call, Leg, Phase};
use crate::clock::Moment;

/// Until a refresh that was refused for the moment is tried again, where the peer names no time.
const RETRY: Duration = Duration::from_secs(2);

/// What our 2xx to an INVITE or UPDATE of a leg's peer says of the session's timer.
pub(crate) fn confirm(leg: &mut Leg, request: &Request, response: &mut Response, now: &Moment) {
    note_methods(leg, &request.headers);
    match leg.session_policy.accept(&request.headers) {
        Ok(Some(terms)) => {
            let supported = request.headers.supports("timer");
            leg.session_policy.confirm(response, terms, supported);
            start(leg, Some(terms), now);
        }
        _ => leg.session = None,
    }
}

/// What the peer's 2xx to our INVITE or UPDATE agreed on.
pub(crate) fn agreed(leg: &mut Leg, response: &Response, now: &Moment) {
    note_methods(leg, &response.headers);
    start(leg, SessionPolicy::agreed(&response.headers), now);
}

fn start(leg: &mut Leg, terms: Option<trunkline_sip::dialog::SessionTerms>, now: &Moment) {
    leg.session = terms.map(|terms| SessionTimer::start(now.instant, terms));
}

/// Proposes the leg's timer in a request of ours that refreshes it.
pub(crate) fn propose(leg: &Leg, request: &mut Request) {
    let terms = leg.session.as_ref().map(SessionTimer::terms);
    leg.session_policy.propose(request, terms);
}

fn note_methods(leg: &mut Leg, headers: &Headers) {
    awareness::note(leg, headers);
    if let Some(methods) = headers.allow() {
        leg.takes_update = methods.contains(&Method::Update);
        leg.takes_info = methods.contains(&Method::Info);
    }
}

impl B2bua {
    /// What of the legs' timers is due.
    pub(super) fn session_timeouts(&mut self, call: &mut Call, now: &Moment) {
        for side in Side::BOTH {
            let timer = call.leg_mut(side).session.as_mut();
            match timer.and_then(|timer| timer.handle_timeout(now.instant)) {
                Some(TimerAction::Refresh) => self.refresh_session(call, side, now),
                Some(TimerAction::Expired) => {
                    let reason = ("SIP", 408, "session expired");
                    if self.outlive_client(call, Some(reason), now) {
                        continue;
                    }
                    self.end_call(call, EndedBy::Us, Some(reason), now);
                }
                None => {}
            }
        }
    }

    /// A refresh of ours: UPDATE without an offer where the peer takes it, else a re-INVITE that says
    /// what we said last.
    fn refresh_session(&mut self, call: &mut Call, side: Side, now: &Moment) {
        let busy = call.exchange.is_some() || call.own_offer.is_some();
        if call.phase != Phase::Answered || call.leg(side).over {
            return;
        }
        let leg = call.leg_mut(side);
        if !leg.takes_update {
            if busy || !leg.acknowledged {
                return retry_refresh(leg, now);
            }
            if call.recording_session.is_some() {
                return self.ask_offer(call, now);
            }
            return self.realign(call, side, now);
        }
        let update = leg.dialog.as_mut().and_then(|dialog| {
            let update = dialog.request(Method::Update).ok()?;
            Some((update, dialog.local_seq()))
        });
        let Some((mut update, sequence)) = update else {
            return retry_refresh(leg, now);
        };
        propose(leg, &mut update);
        update.headers.set("User-Agent", headers::SERVER);
        update.set_content_length();
        let target = leg.target();
        match self.endpoint.send_request(now.instant, update, &target) {
            Ok(client) => self.own_client(call, client, ClientUse::Refresh(side)),
            Err(_) => {
                let leg = call.leg_mut(side);
                if let Some(dialog) = &mut leg.dialog {
                    dialog.request_ended(&Method::Update, sequence);
                }
                retry_refresh(leg, now);
            }
        }
    }

    pub(super) fn on_refreshed(
        &mut self,
        call: &mut Call,
        tx: ClientTx,
        side: Side,
        response: &Response,
        now: &Moment,
    ) {
        if !response.is_final() {
            return;
        }
        self.clients.remove(&tx);
        let leg = call.leg_mut(side);
        if let Some(dialog) = &mut leg.dialog {
            dialog.handle_response(response);
        }
        match response.status {
            200..300 => agreed(leg, response, now),
            422 => {
                if let Some(policy) = leg.session_policy.after_422(response) {
                    (leg.session_policy, leg.session) = (policy, None);
                    self.refresh_session(call, side, now);
                }
            }
            // The method is not taken here after all.
            405 | 501 => {
                leg.takes_update = false;
                self.refresh_session(call, side, now);
            }
            408 | 481 => self.refresh_unanswered(call, side, response.status, now),
            _ => retry_refresh(leg, now),
        }
    }

    /// The peer does not know the dialog, or does not answer (RFC 4028 section 10).
    pub(super) fn refresh_unanswered(
        &mut self,
        call: &mut Call,
        side: Side,
        status: u16,
        now: &Moment,
    ) {
        if call.phase == Phase::Answered {
            let reason = ("SIP", 408, "session not refreshed");
            if self.outlive_client(call, Some(reason), now) {
                return;
            }
            call.leg_mut(side).over = status == 481;
            self.end_call(call, EndedBy::Us, Some(reason), now);
        }
    }
}

pub(super) fn retry_refresh(leg: &mut Leg, now: &Moment) {
    let wait = leg
        .dialog
        .as_ref()
        .map_or(RETRY, |dialog| dialog.glare_delay(&mut rand::rng()));
    if let Some(timer) = &mut leg.session {
        timer.retry(now.instant, wait.max(Duration::from_millis(500)));
    }
}
