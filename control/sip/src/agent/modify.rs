//! Changes of a running session, both ways: re-INVITE, UPDATE, session refresh.

use std::time::{Duration, Instant};

use rand::Rng;
use trunkline_sdp::{Change, Description, compare};

use super::core::Agent;
use super::event::{EndCause, EndedBy, EventKind, MediaChange};
use super::leg::{AckDue, ModifyBy, Unacknowledged, Wish};
use super::request::{Open, Purpose, Received};
use super::types::{AgentError, Body, DialogHandle, RequestHandle, add_headers};
use crate::dialog::{DialogState, SessionPolicy, SessionTerms, TimerAction};
use crate::message::{Headers, Method, Request, Response};
use crate::transaction::ServerTx;

/// Most times a change is tried again after 491 or 500.
const TRIES_MAX: u8 = 8;
/// Longest wait that a peer's Retry-After may ask for.
const RETRY_AFTER_MAX_S: u32 = 10;

impl<C: Clone + Default> Agent<C> {
    /// Changes the session by re-INVITE: hold, unhold, new media; `None` asks the peer for an
    /// offer. One change goes at a time, further ones wait; crossing changes (491) are tried
    /// again after the delay of RFC 3261 section 14.1. Its end comes as
    /// [`EventKind::Modified`] or [`EventKind::ModifyFailed`].
    ///
    /// # Errors
    /// The dialog is over or not answered yet.
    pub fn modify(
        &mut self,
        now: Instant,
        dialog: DialogHandle,
        headers: &Headers,
        body: Option<Body>,
    ) -> Result<(), AgentError> {
        if self.leg(dialog)?.dialog.state() != DialogState::Confirmed {
            return Err(AgentError::State("a re-INVITE comes after the answer"));
        }
        self.wish(now, dialog, ModifyBy::Invite, headers, body)
    }

    /// Changes the session by UPDATE (RFC 3311), in an early dialog too; otherwise as
    /// [`Agent::modify`]. Without a body it refreshes target and session only.
    ///
    /// # Errors
    /// The dialog is over, or its peer takes no UPDATE.
    pub fn update(
        &mut self,
        now: Instant,
        dialog: DialogHandle,
        headers: &Headers,
        body: Option<Body>,
    ) -> Result<(), AgentError> {
        if !self.leg(dialog)?.peer_updates {
            return Err(AgentError::State("the peer takes no UPDATE"));
        }
        self.wish(now, dialog, ModifyBy::Update, headers, body)
    }

    /// Cancels a re-INVITE of ours that is not answered yet.
    ///
    /// # Errors
    /// The dialog is over, or none is under way.
    pub fn cancel_modify(&mut self, now: Instant, dialog: DialogHandle) -> Result<(), AgentError> {
        let leg = self.leg(dialog)?;
        let under_way = leg.modifying.as_ref();
        let (tx, _) = under_way.ok_or(AgentError::State("no re-INVITE is under way"))?;
        self.endpoint.cancel(now, *tx, &[])?;
        Ok(())
    }

    fn wish(
        &mut self,
        now: Instant,
        dialog: DialogHandle,
        by: ModifyBy,
        headers: &Headers,
        body: Option<Body>,
    ) -> Result<(), AgentError> {
        let wish = Wish {
            by,
            body,
            headers: headers.clone(),
            refresh: false,
            tries: 0,
        };
        self.leg_mut(dialog)?.wishes.push_back(wish);
        self.settle(now, dialog);
        Ok(())
    }

    /// Starts the next change if nothing is in its way.
    pub(super) fn start_wish(&mut self, now: Instant, dialog: DialogHandle) {
        let Some(leg) = self.legs.get_mut(&dialog) else {
            return;
        };
        let next = leg.wishes.front().map(|wish| wish.by);
        if !next.is_some_and(|by| leg.may_modify(by)) {
            return;
        }
        let Some(wish) = leg.wishes.pop_front() else {
            return;
        };
        let method = match wish.by {
            ModifyBy::Invite => Method::Invite,
            ModifyBy::Update => Method::Update,
        };
        let Ok(mut request) = leg.dialog.request(method) else {
            return leg.wishes.push_front(wish);
        };
        let (policy, timer) = (leg.policy, leg.timer);
        self.add_abilities(&mut request.headers);
        add_headers(&mut request.headers, &wish.headers);
        if let (Some(policy), Some(timer)) = (policy, timer) {
            policy.propose(&mut request, Some(timer.terms()));
        }
        if let Some(body) = &wish.body {
            request.set_body(&body.content_type, body.bytes.clone());
        }
        let number = request.headers.cseq().map_or(0, |cseq| cseq.number);
        let method = request.method.clone();
        let sent = self.send(now, dialog, request, Purpose::Modify);
        let Some(leg) = self.legs.get_mut(&dialog) else {
            return;
        };
        match sent {
            Ok(tx) => leg.modifying = Some((tx, wish)),
            Err(_) => {
                leg.dialog.request_ended(&method, number);
                self.modify_failed(now, dialog, &wish, 503, None);
            }
        }
    }

    pub(super) fn on_modify_response(
        &mut self,
        now: Instant,
        dialog: DialogHandle,
        tx: crate::transaction::ClientTx,
        response: Response,
    ) {
        let Some(leg) = self.legs.get_mut(&dialog) else {
            return;
        };
        let ours = leg.modifying.take_if(|(waiting, _)| *waiting == tx);
        let Some((_, wish)) = ours else { return };
        let cseq = response.headers.cseq().map_or(0, |cseq| cseq.number);
        if response.is_success() {
            if wish.by == ModifyBy::Invite {
                leg.unacknowledged = Some(Unacknowledged { tx, cseq });
            }
            return self.modified(now, dialog, wish, response);
        }
        if leg.ended {
            return;
        }
        let delay = match response.status {
            491 => Some(leg.dialog.glare_delay(&mut self.random)),
            500 => response
                .headers
                .retry_after()
                .ok()
                .flatten()
                .map(|seconds| Duration::from_secs(u64::from(seconds.min(RETRY_AFTER_MAX_S)))),
            422 => leg.larger_interval(&response).then_some(Duration::ZERO),
            _ => None,
        };
        match delay.filter(|_| wish.tries < TRIES_MAX) {
            Some(delay) => {
                let tries = wish.tries + 1;
                leg.wishes.push_front(Wish { tries, ..wish });
                leg.retry_at = Some(now + delay);
            }
            None => self.modify_failed(now, dialog, &wish, response.status, Some(response)),
        }
    }

    fn modified(&mut self, now: Instant, dialog: DialogHandle, wish: Wish, response: Response) {
        let Some(leg) = self.legs.get_mut(&dialog) else {
            return;
        };
        if leg.ended {
            // A BYE was faster: the 2xx is acknowledged all the same.
            return self.acknowledge_ended(now, dialog);
        }
        if let Some(terms) = SessionPolicy::agreed(&response.headers) {
            leg.agreed(now, Some(terms));
        } else if let Some(timer) = &mut leg.timer {
            let terms = timer.terms();
            timer.refreshed(now, terms);
        }
        let answer = Body::of(&response.headers, &response.body);
        let offered = wish.by == ModifyBy::Invite && wish.body.is_none() && answer.is_some();
        if wish.body.is_some() {
            leg.local_body = wish.body;
        }
        if answer.is_some() {
            leg.remote_body = answer;
        }
        let kind = if wish.refresh {
            EventKind::Refreshed { by: EndedBy::Us }
        } else {
            EventKind::Modified {
                response,
                acknowledge: offered,
            }
        };
        self.tell(dialog, kind);
        if wish.by == ModifyBy::Invite && !offered {
            let _ = self.acknowledge(now, dialog, None);
        }
    }

    fn acknowledge_ended(&mut self, now: Instant, dialog: DialogHandle) {
        let target = self.target_of(dialog);
        let Some(leg) = self.legs.get_mut(&dialog) else {
            return;
        };
        if let (Some(Unacknowledged { tx, cseq }), Ok(target)) = (leg.unacknowledged.take(), target)
        {
            let ack = leg.dialog.ack(cseq);
            let _ = self.endpoint.send_ack(now, tx, ack, &target);
        }
    }

    fn modify_failed(
        &mut self,
        now: Instant,
        dialog: DialogHandle,
        wish: &Wish,
        status: u16,
        response: Option<Response>,
    ) {
        if wish.refresh {
            // Tried again until the session's end decides.
            let delay = Duration::from_secs(self.random.random_range(5..=10));
            if let Some(leg) = self.legs.get_mut(&dialog) {
                // Some peers list UPDATE without taking it.
                leg.peer_updates &= wish.by != ModifyBy::Update || !matches!(status, 405 | 501);
                if let Some(timer) = &mut leg.timer {
                    timer.retry(now, delay);
                }
            }
        } else {
            self.tell(dialog, EventKind::ModifyFailed { status, response });
        }
    }

    pub(super) fn on_modify_alarm(&mut self, now: Instant, dialog: DialogHandle) {
        let Some(leg) = self.legs.get_mut(&dialog) else {
            return;
        };
        leg.retry_at.take_if(|at| *at <= now);
        let slow = leg.answer_by.take_if(|(at, _)| *at <= now);
        if let Some((_, tx)) = slow
            && let Some(received) = self.received.remove(&tx)
        {
            self.refuse(now, tx, received.open(), 500);
            let request_handle = RequestHandle(tx.0);
            self.tell(dialog, EventKind::OfferGone { request_handle });
        }
    }

    pub(super) fn on_session_alarm(&mut self, now: Instant, dialog: DialogHandle) {
        let Some(leg) = self.legs.get_mut(&dialog).filter(|leg| !leg.ended) else {
            return;
        };
        match leg
            .timer
            .as_mut()
            .and_then(|timer| timer.handle_timeout(now))
        {
            // A change that waits anyway refreshes as well.
            Some(TimerAction::Refresh) if leg.wishes.is_empty() && leg.modifying.is_none() => {
                let (by, body) = if leg.peer_updates {
                    (ModifyBy::Update, None)
                } else {
                    (ModifyBy::Invite, leg.local_body.clone())
                };
                leg.wishes.push_back(Wish {
                    by,
                    body,
                    headers: Headers::new(),
                    refresh: true,
                    tries: 0,
                });
            }
            Some(TimerAction::Expired) => {
                let mut reason = Headers::new();
                reason.append("Reason", "SIP;cause=408;text=\"session expired\"");
                self.send_bye(now, dialog, &reason, EndCause::SessionExpired);
            }
            _ => {}
        }
    }

    /// A re-INVITE or UPDATE of the peer that its dialog admits.
    pub(super) fn on_offer(
        &mut self,
        now: Instant,
        dialog: DialogHandle,
        tx: ServerTx,
        request: Request,
    ) {
        let Some(leg) = self.legs.get_mut(&dialog) else {
            return;
        };
        let invite = request.method == Method::Invite;
        let body = Body::of(&request.headers, &request.body);
        let terms = match leg.policy.map(|policy| policy.accept(&request.headers)) {
            Some(Err(small)) => {
                let refusal = leg.dialog.response(&request, 422);
                leg.dialog.sent_response(&request, 422);
                let min_se = small.min_se.to_string();
                return self.reply(now, tx, refusal.with("Min-SE", min_se));
            }
            Some(Ok(terms)) => terms,
            None => None,
        };
        // Our own offer still awaits its answer in the ACK, or theirs ours (RFC 5407 section
        // 3.1.5).
        let open = leg.ack_due.is_some_and(|due| due.offered) || leg.unacknowledged.is_some();
        let crossing = open && (invite || body.is_some());
        if crossing {
            let refusal = leg.dialog.response(&request, 491);
            leg.dialog.sent_response(&request, 491);
            return self.reply(now, tx, refusal);
        }
        let unchanged = match (&leg.remote_body, &body) {
            (Some(before), Some(new)) => is_refresh(before, new),
            (_, None) => !invite,
            (None, Some(_)) => false,
        };
        let open = Open::new(dialog, request.clone(), terms);
        let confirmed = leg.dialog.state() == DialogState::Confirmed;
        if unchanged && (confirmed || body.is_none()) && (!invite || leg.local_body.is_some()) {
            let mut ok = leg.dialog.response(&request, 200);
            let answer = leg.local_body.clone().filter(|_| body.is_some());
            if let Some(answer) = &answer {
                ok.set_body(&answer.content_type, answer.bytes.clone());
            }
            let _ = self.answer_offer(now, tx, open, ok, answer);
            return self.tell(dialog, EventKind::Refreshed { by: EndedBy::Peer });
        }
        let change = change_of(leg.remote_body.as_ref(), body.as_ref());
        if invite {
            leg.answer_by = Some((now + self.config.answer_timeout, tx));
        }
        self.received.insert(tx, Received::Offer(open));
        self.arm(dialog);
        let request_handle = RequestHandle(tx.0);
        self.tell(
            dialog,
            EventKind::Offer {
                request_handle,
                request,
                change,
            },
        );
    }

    /// Sends the final response to an offer of the peer and keeps what was agreed on.
    pub(super) fn answer_offer(
        &mut self,
        now: Instant,
        tx: ServerTx,
        open: Open,
        mut response: Response,
        body: Option<Body>,
    ) -> Result<(), AgentError> {
        let (dialog, request) = (open.dialog, &open.request);
        self.add_abilities(&mut response.headers);
        let leg = self.leg_mut(dialog)?;
        leg.answer_by.take_if(|(_, waiting)| *waiting == tx);
        leg.dialog.sent_response(request, response.status);
        if response.is_success() {
            let offer = Body::of(&request.headers, &request.body);
            if request.method == Method::Invite {
                leg.ack_due = Some(AckDue {
                    tx,
                    cseq: request.headers.cseq().map_or(0, |cseq| cseq.number),
                    offered: offer.is_none() && body.is_some(),
                });
            }
            if request.method != Method::Prack && leg.dialog.state() == DialogState::Confirmed {
                leg.confirm_terms(now, &mut response, request, open.terms);
            }
            if offer.is_some() {
                leg.remote_body = offer;
            }
            if body.is_some() {
                leg.local_body = body;
            }
        }
        if request.method == Method::Prack
            && let Some(invite) = &mut leg.invite
        {
            invite.prack_open = false;
        }
        self.endpoint.respond(now, tx, response)?;
        if request.method == Method::Prack {
            self.send_waiting(now, dialog)?;
        }
        self.settle(now, dialog);
        Ok(())
    }
}

impl<C> super::leg::Leg<C> {
    /// Takes the Min-SE of a 422 to a refresh; `false` when it helps nothing.
    fn larger_interval(&mut self, response: &Response) -> bool {
        let larger = self.policy.and_then(|policy| policy.after_422(response));
        let (Some(larger), Some(timer)) = (larger, &mut self.timer) else {
            return false;
        };
        self.policy = Some(larger);
        let before = timer.terms();
        let terms = SessionTerms {
            interval_s: larger.interval_s,
            ..before
        };
        // The session itself still ends when it was agreed to.
        *timer = timer.with_terms(terms);
        true
    }

    fn confirm_terms(
        &mut self,
        now: Instant,
        response: &mut Response,
        request: &Request,
        terms: Option<SessionTerms>,
    ) {
        if let (Some(policy), Some(terms)) = (self.policy, terms) {
            policy.confirm(response, terms, request.headers.supports("timer"));
        }
        self.agreed(now, terms);
    }
}

/// Whether a new description is the one before, `o=` included (RFC 4028 section 7.4).
fn is_refresh(before: &Body, new: &Body) -> bool {
    if before.bytes == new.bytes {
        return true;
    }
    let descriptions = (
        Description::parse(&before.bytes),
        Description::parse(&new.bytes),
    );
    let (Ok(before), Ok(new)) = descriptions else {
        return false;
    };
    compare(&before, &new) == Change::None
}

fn change_of(before: Option<&Body>, new: Option<&Body>) -> MediaChange {
    let held = |body: &Body| {
        let description = Description::parse(&body.bytes).ok();
        description.is_some_and(|description| description.is_held())
    };
    let Some(new) = new else {
        return MediaChange::OfferWanted;
    };
    match (before.is_some_and(held), held(new)) {
        (false, true) => MediaChange::Hold,
        (true, false) => MediaChange::Unhold,
        _ => MediaChange::Other,
    }
}
