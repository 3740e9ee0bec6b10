//! Offers that we make by ourselves: a re-INVITE to one side, tried again when it meets another one
//! (RFC 3261 section 14.1).

use std::time::Duration;

use trunkline_link::message::Side;
use trunkline_sinks::object::EndedBy;
use trunkline_sip::dialog::DialogError;
use trunkline_sip::message::{Method, Response};
use trunkline_sip::transaction::ClientTx;

use super::{B2bua, ClientUse, awareness, headers, session};
use crate::call::negotiation::Heard;
use crate::call::transfer::{Outcome, OwnOffer, Purpose};
use crate::call::{Call, Phase, Step};
use crate::clock::Moment;

/// A re-INVITE that is not answered by then is given up.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// For so long a newcomer's 2xx may wait for its ACK while the party that stays is asked.
const TRANSFER_PATIENCE: Duration = Duration::from_secs(9);
/// Until a request of others is out of the way.
const RETRY: Duration = Duration::from_millis(500);
/// The longest wait that a refusal may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(10);
/// So often an offer is tried.
const TRIES_MAX: u8 = 8;

/// When a refused request may be made again, where that is soon.
fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers.get("Retry-After")?;
    let seconds = value.split([';', ' ', '(']).next()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds)).filter(|wait| *wait <= RETRY_AFTER_MAX)
}

impl B2bua {
    /// Offers a description to a side.
    pub(super) fn offer_ours(
        &mut self,
        call: &mut Call,
        to: Side,
        purpose: Purpose,
        sdp: String,
        now: &Moment,
    ) {
        let patience = match purpose {
            Purpose::Transfer => TRANSFER_PATIENCE,
            Purpose::Realign | Purpose::Indicate => {
                (ANSWER_PATIENCE + RETRY_AFTER_MAX) * u32::from(TRIES_MAX)
            }
        };
        call.own_offer = Some(OwnOffer {
            to,
            purpose,
            sdp,
            client: None,
            sequence: 0,
            tries: 0,
            due: now.instant + RETRY,
            give_up: now.instant + patience,
        });
        self.send_own_offer(call, now);
    }

    /// What the other side says is told to this one again.
    pub(super) fn realign(&mut self, call: &mut Call, to: Side, now: &Moment) {
        self.tell_again(call, to, Purpose::Realign, now);
    }

    pub(super) fn tell_again(&mut self, call: &mut Call, to: Side, purpose: Purpose, now: &Moment) {
        if call.own_offer.is_some() || call.phase != Phase::Answered {
            return;
        }
        if call.negotiation.offer_again(to.other()).is_none() {
            return;
        }
        let address = self.media_address(call, to);
        if let Some(sdp) = call.negotiation.write_offer(&call.media, address) {
            self.offer_ours(call, to, purpose, sdp, now);
        }
    }

    fn send_own_offer(&mut self, call: &mut Call, now: &Moment) {
        let Some(offer) = &mut call.own_offer else {
            return;
        };
        let to = offer.to;
        offer.tries += 1;
        if offer.tries > TRIES_MAX || offer.give_up <= now.instant {
            return self.own_offer_ended(call, Outcome::Refused(491), now);
        }
        offer.due = now.instant + RETRY;
        let sdp = offer.sdp.clone();
        let speaks = awareness::is_aware(call, to.other());
        let leg = &mut call.legs[to as usize];
        if call.exchange.is_some() || !leg.acknowledged {
            return;
        }
        let Some(dialog) = &mut leg.dialog else {
            return self.own_offer_ended(call, Outcome::Refused(481), now);
        };
        let mut request = match dialog.request(Method::Invite) {
            Ok(request) => request,
            Err(DialogError::InvitePending) => return,
            Err(_) => return self.own_offer_ended(call, Outcome::Refused(481), now),
        };
        request.headers.set("User-Agent", headers::SERVER);
        request.headers.set("Allow", headers::allow(&call.route));
        awareness::advertise(speaks, &mut request.headers);
        request.set_body("application/sdp", sdp);
        let sequence = dialog.local_seq();
        session::propose(leg, &mut request);
        let target = leg.target();
        let sent = self.endpoint.send_request(now.instant, request, &target);
        let Ok(client) = sent else {
            if let Some(dialog) = &mut call.leg_mut(to).dialog {
                dialog.request_ended(&Method::Invite, sequence);
            }
            return self.own_offer_ended(call, Outcome::Refused(500), now);
        };
        if let Some(offer) = &mut call.own_offer {
            (offer.client, offer.sequence) = (Some(client), sequence);
            offer.due = offer.give_up.min(now.instant + ANSWER_PATIENCE);
        }
        self.own_client(call, client, ClientUse::OwnOffer(to));
    }

    /// It is time to try again, or to give up.
    pub(super) fn own_offer_due(&mut self, call: &mut Call, now: &Moment) {
        let Some(offer) = &call.own_offer else {
            return;
        };
        match offer.client {
            None => self.send_own_offer(call, now),
            Some(client) => {
                let _ = self.endpoint.cancel(now.instant, client, &[]);
                self.own_offer_ended(call, Outcome::Refused(487), now);
            }
        }
    }

    pub(super) fn on_own_offer_response(
        &mut self,
        call: &mut Call,
        tx: ClientTx,
        to: Side,
        response: Response,
        now: &Moment,
    ) {
        if !response.is_final() {
            return;
        }
        if let Some(dialog) = &mut call.leg_mut(to).dialog {
            dialog.handle_response(&response);
        }
        let current = call.own_offer.as_mut().filter(|one| one.client == Some(tx));
        let Some(offer) = current else {
            // Given up meanwhile: a 2xx is acknowledged, and what it agreed to is taken back.
            let accepted = response.is_success();
            self.acknowledge_late(call, tx, to, &response, now);
            if accepted {
                self.realign(call, to, now);
            }
            return;
        };
        self.clients.remove(&tx);
        let dialog = call.legs[to as usize].dialog.as_ref();
        let wait = match response.status {
            491 => Some(dialog.map_or(RETRY, |dialog| dialog.glare_delay(&mut rand::rng()))),
            // It has an INVITE to answer first (RFC 3261 section 14.2): of ours, from before a restart.
            500 => retry_after(&response).map(|wait| wait.max(RETRY)),
            _ => None,
        };
        // Who would be asked too late is not asked again.
        if let Some(wait) = wait.filter(|wait| now.instant + *wait < offer.give_up) {
            (offer.client, offer.due) = (None, now.instant + wait);
            return;
        }
        if response.is_success() {
            session::agreed(&mut call.legs[to as usize], &response, now);
        }
        let outcome = if response.is_success() {
            Outcome::Accepted {
                client: tx,
                sequence: offer.sequence,
                response,
            }
        } else {
            Outcome::Refused(response.status)
        };
        self.own_offer_ended(call, outcome, now);
    }

    /// The re-INVITE got no answer, or could not be sent.
    pub(super) fn own_offer_unanswered(
        &mut self,
        call: &mut Call,
        tx: ClientTx,
        to: Side,
        status: u16,
        now: &Moment,
    ) {
        let Some(offer) = call.own_offer.as_ref().filter(|one| one.client == Some(tx)) else {
            return;
        };
        let sequence = offer.sequence;
        if let Some(dialog) = &mut call.leg_mut(to).dialog {
            dialog.request_ended(&Method::Invite, sequence);
        }
        self.own_offer_ended(call, Outcome::Refused(status), now);
    }

    fn own_offer_ended(&mut self, call: &mut Call, outcome: Outcome, now: &Moment) {
        let Some(offer) = call.own_offer.take() else {
            return;
        };
        match offer.purpose {
            Purpose::Transfer => self.on_transfer_offer(call, offer.to, outcome, now),
            Purpose::Realign | Purpose::Indicate => {
                self.on_realigned(call, offer.to, offer.purpose, outcome, now);
            }
        }
    }

    fn on_realigned(
        &mut self,
        call: &mut Call,
        to: Side,
        purpose: Purpose,
        outcome: Outcome,
        now: &Moment,
    ) {
        let Outcome::Accepted {
            response,
            client,
            sequence,
        } = outcome
        else {
            self.offer_refused(call, to, purpose, outcome.status(), now);
            if matches!(outcome.status(), 408 | 481) && call.phase == Phase::Answered {
                call.leg_mut(to).over = outcome.status() == 481;
                self.end_call_with(call, EndedBy::Us, None, now);
            }
            return;
        };
        let answer = Heard::parse_for(&response.body, &call.route.codecs)
            .and_then(|answer| call.negotiation.hear_answer(answer));
        if answer.is_err() {
            self.offer_refused(call, to, purpose, 488, now);
            return self.acknowledge_own(call, to, client, sequence, now);
        }
        self.indication_acknowledged(call, to, now);
        call.offerer = to.other();
        let commands = self.leg_commands(call);
        let then = Step::Realigned {
            side: to,
            client,
            sequence,
        };
        self.batch(call, commands, then, now);
    }

    /// What was told before stands.
    fn offer_refused(
        &mut self,
        call: &mut Call,
        to: Side,
        purpose: Purpose,
        status: u16,
        now: &Moment,
    ) {
        if purpose == Purpose::Indicate {
            self.indication_refused(call, to, status, now);
        }
        call.negotiation.withdraw();
    }

    /// Media follows what a side agreed to.
    pub(super) fn realigned(
        &mut self,
        call: &mut Call,
        side: Side,
        client: ClientTx,
        sequence: u32,
        now: &Moment,
    ) {
        self.acknowledge_own(call, side, client, sequence, now);
        self.media_changed(call, now);
    }

    /// ACK without a body to a side for the 2xx to an INVITE of ours.
    pub(super) fn acknowledge_own(
        &mut self,
        call: &mut Call,
        side: Side,
        client: ClientTx,
        sequence: u32,
        now: &Moment,
    ) {
        let leg = call.leg(side);
        let target = leg.target();
        if let Some(dialog) = &leg.dialog {
            let mut ack = dialog.ack(sequence);
            ack.set_content_length();
            let _ = self.endpoint.send_ack(now.instant, client, ack, &target);
        }
    }

    /// ACK for an acceptance that nobody waits for any more.
    pub(super) fn acknowledge_outcome(
        &mut self,
        call: &mut Call,
        side: Side,
        outcome: &Outcome,
        now: &Moment,
    ) {
        if let Outcome::Accepted {
            client, sequence, ..
        } = outcome
        {
            self.acknowledge_own(call, side, *client, *sequence, now);
            self.realign(call, side, now);
        }
    }
}
