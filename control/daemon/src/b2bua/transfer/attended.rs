//! Attended transfer: the transferor's REFER names another of its calls through us (Replaces), whose
//! far party takes its place here.

use trunkline_link::message::Side;
use trunkline_sinks::object::{EndedBy, Role};
use trunkline_sip::message::{Method, Response};
use trunkline_sip::transaction::ClientTx;

use super::super::end::reason_header;
use super::super::{B2bua, ClientUse, awareness, headers, session};
use crate::call::negotiation::Heard;
use crate::call::transfer::{Consulting, Newcomer, Owes, Stage};
use crate::call::{Call, Leg, Phase};
use crate::clock::Moment;

impl B2bua {
    /// `transferor` is whose side of the other call is named; the party on its other side is offered
    /// this call's media.
    pub(super) fn consult(
        &mut self,
        call: &mut Call,
        leaving: Side,
        other: u64,
        transferor: Side,
        now: &Moment,
    ) -> Result<Stage, u16> {
        // A dialog of this call itself leads nowhere.
        let mut met = self.calls.remove(&other).ok_or(481_u16)?;
        let side = transferor.other();
        let consulted = self.offer_consulted(call, leaving, &mut met, side, now);
        if consulted.is_ok() {
            (met.consulted_by, met.consulted_side) = (Some(call.key), side);
            self.save(&met);
        }
        self.settle(met, now);
        let (client, sequence, negotiation) = consulted?;
        let purpose = ClientUse::Consultation { call: other, side };
        self.own_client(call, client, purpose);
        Ok(Stage::Consulting(Box::new(Consulting {
            call: other,
            side,
            client,
            sequence,
            negotiation,
        })))
    }

    fn offer_consulted(
        &mut self,
        call: &Call,
        leaving: Side,
        met: &mut Call,
        side: Side,
        now: &Moment,
    ) -> Result<(ClientTx, u32, crate::call::negotiation::Negotiation), u16> {
        // RFC 3891 section 3: an early dialog that we did not begin cannot be replaced.
        if met.phase != Phase::Answered {
            return Err(481);
        }
        let busy = met.exchange.is_some() || met.own_offer.is_some() || met.transfer.is_some();
        if busy || met.negotiation.is_pending() || met.consulted_by.is_some() {
            return Err(491);
        }
        if call.media.interface[leaving as usize] != met.media.interface[side as usize] {
            return Err(488);
        }
        let (mut negotiation, offer) = call
            .negotiation
            .for_newcomer(leaving, Some((&met.negotiation, side)))
            .ok_or(500_u16)?;
        negotiation
            .offer(Side::Caller, offer)
            .map_err(|error| error.status())?;
        let aware = met.leg(side).aware;
        negotiation.indicate(Side::Callee, aware.then(|| self.recorded(call)));
        let media = call.media.for_newcomer(leaving);
        let address = self.media_address(call, leaving);
        let sdp = negotiation.write_offer(&media, address).ok_or(500_u16)?;
        let leg = met.leg_mut(side);
        let dialog = leg.dialog.as_mut().filter(|_| leg.acknowledged);
        let dialog = dialog.ok_or(481_u16)?;
        let mut request = dialog.request(Method::Invite).map_err(|_| 491_u16)?;
        request.headers.set("User-Agent", headers::SERVER);
        request.headers.set("Allow", headers::allow(&call.route));
        awareness::advertise(
            awareness::is_aware(call, leaving.other()),
            &mut request.headers,
        );
        request.set_body("application/sdp", sdp);
        let sequence = dialog.local_seq();
        session::propose(leg, &mut request);
        let target = leg.target();
        let client = self
            .endpoint
            .send_request(now.instant, request, &target)
            .map_err(|_| 500_u16)?;
        Ok((client, sequence, negotiation))
    }

    /// The consulted party answered our re-INVITE.
    pub(in crate::b2bua) fn on_consulted(
        &mut self,
        call: &mut Call,
        tx: ClientTx,
        other: u64,
        side: Side,
        response: Response,
        now: &Moment,
    ) {
        if !response.is_final() {
            return;
        }
        self.clients.remove(&tx);
        self.with_call(other, now, |_, met| {
            let leg = met.leg_mut(side);
            if let Some(dialog) = &mut leg.dialog {
                dialog.handle_response(&response);
            }
            if response.is_success() {
                session::agreed(leg, &response, now);
            }
        });
        let Some(consulting) = take_consulting(call, tx) else {
            // Given up meanwhile.
            self.with_call(other, now, |b2bua, met| {
                b2bua.acknowledge_late(met, tx, side, &response, now);
                b2bua.realign(met, side, now);
            });
            return;
        };
        if !response.is_success() {
            self.release_consulted(&consulting, now);
            return self.transfer_failed(call, response.status, now);
        }
        match self.consulted_newcomer(call, consulting, &response) {
            Ok(newcomer) => self.welcome(call, newcomer, now),
            Err(status) => {
                self.with_call(other, now, |b2bua, met| {
                    b2bua.acknowledge_late(met, tx, side, &response, now);
                    met.consulted_by = None;
                    b2bua.realign(met, side, now);
                });
                self.transfer_failed(call, status, now);
            }
        }
    }

    fn consulted_newcomer(
        &mut self,
        call: &mut Call,
        mut consulting: Box<Consulting>,
        response: &Response,
    ) -> Result<Newcomer, u16> {
        let Some((leaving, shown)) = call.transfer.as_ref().map(|one| (one.leaving, one.leg))
        else {
            return Err(487);
        };
        let answer = Heard::parse_for(&response.body, &call.route.codecs);
        let media = call.media.for_newcomer(leaving);
        let address = self.media_address(call, leaving.other());
        answer
            .and_then(|answer| consulting.negotiation.answer(answer, &media, address, true))
            .map_err(|error| error.status())?;
        let met = self.calls.get_mut(&consulting.call).ok_or(481_u16)?;
        let there = consulting.side;
        let party = met.parties.iter().rfind(|one| one.side == there as u8);
        let uri = party.map(|party| party.uri.clone()).unwrap_or_default();
        let leg = &mut call.object.legs[shown];
        *leg = trunkline_sinks::object::Leg {
            id: leg.id.clone(),
            role: Role::Transfer,
            ..met.object_leg(there).clone()
        };
        Ok(Newcomer {
            leg: met.leg(there).clone(),
            negotiation: call
                .negotiation
                .with_newcomer(leaving, &consulting.negotiation),
            owes: Owes::Ack {
                client: consulting.client,
                sequence: consulting.sequence,
            },
            branches: Vec::new(),
            from_call: Some((consulting.call, there)),
            uri,
        })
    }

    /// Our re-INVITE to the consulted party got no answer.
    pub(in crate::b2bua) fn consultation_unanswered(
        &mut self,
        call: &mut Call,
        tx: ClientTx,
        status: u16,
        now: &Moment,
    ) {
        if let Some(consulting) = take_consulting(call, tx) {
            let (side, sequence) = (consulting.side, consulting.sequence);
            self.with_call(consulting.call, now, |_, met| {
                if let Some(dialog) = &mut met.leg_mut(side).dialog {
                    dialog.request_ended(&Method::Invite, sequence);
                }
            });
            self.release_consulted(&consulting, now);
            self.transfer_failed(call, status, now);
        }
    }

    /// The consultation goes on as it was, without us.
    pub(super) fn release_consulted(&mut self, consulting: &Consulting, now: &Moment) {
        let _ = self.endpoint.cancel(now.instant, consulting.client, &[]);
        self.with_call(consulting.call, now, |b2bua, met| {
            b2bua.consultation_over(met, consulting.side, now);
        });
    }

    /// The consulted party, which had agreed to come here, goes back to its call.
    pub(super) fn return_consulted(&mut self, other: u64, side: Side, leg: Leg, now: &Moment) {
        let id = leg.dialog.as_ref().map(|dialog| dialog.id());
        let there = self.with_call(other, now, |b2bua, met| {
            b2bua
                .dialogs
                .extend(id.clone().map(|id| (id, (other, side))));
            *met.leg_mut(side) = leg;
            b2bua.realign(met, side, now);
            b2bua.consultation_over(met, side, now);
        });
        if let (false, Some(id)) = (there, id) {
            self.dialogs.remove(&id);
        }
    }

    fn consultation_over(&mut self, met: &mut Call, side: Side, now: &Moment) {
        met.consulted_by = None;
        self.save(met);
        if met.leg(Side::Caller).over || met.leg(Side::Callee).over {
            let by = match side {
                Side::Caller => EndedBy::Callee,
                Side::Callee => EndedBy::Caller,
            };
            self.end_call_with(met, by, None, now);
        }
    }

    /// The consulted party is another call's from now on.
    pub(super) fn give_away(&mut self, other: u64, side: Side, now: &Moment) {
        self.with_call(other, now, |_, met| {
            let leg = met.leg_mut(side);
            (leg.dialog, leg.over) = (None, true);
        });
    }

    /// The call that the consulted party has left is over.
    pub(super) fn end_consultation(&mut self, other: u64, now: &Moment) {
        self.with_call(other, now, |b2bua, met| {
            met.consulted_by = None;
            let reason = reason_header(("SIP", 200, "transferred"));
            b2bua.end_call_with(met, EndedBy::Us, Some(reason), now);
        });
    }
}

/// The consultation that this transaction belongs to, if the transfer still waits for it.
fn take_consulting(call: &mut Call, tx: ClientTx) -> Option<Box<Consulting>> {
    let transfer = call.transfer.as_mut()?;
    match std::mem::replace(&mut transfer.stage, Stage::Calling { child: 0 }) {
        Stage::Consulting(consulting) if consulting.client == tx => Some(consulting),
        other => {
            transfer.stage = other;
            None
        }
    }
}
