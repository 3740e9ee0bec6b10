//! The newcomer takes its place, or the transfer fails.

use trunkline_link::message::{FactKind, Side};
use trunkline_sinks::object::{CallState, EndedBy, Role};
use trunkline_sip::message::Method;
use trunkline_sn3::facts::CallChange;

use super::super::end::reason_header;
use super::super::{B2bua, CatalogWrite, headers, record, session_id};
use crate::api::events::EventKind;
use crate::call::negotiation::Heard;
use crate::call::transfer::{Newcomer, Outcome, Owed, Owes, Party, Purpose, Stage};
use crate::call::{Call, Step};
use crate::clock::Moment;

impl B2bua {
    /// The newcomer is there. If what the party that stays was told does not hold for it, it is
    /// offered the newcomer's media first, so that its refusal still leaves all as it was.
    pub(super) fn welcome(&mut self, call: &mut Call, mut newcomer: Newcomer, now: &Moment) {
        let Some(transfer) = &mut call.transfer else {
            return self.dismiss(call, newcomer, 487, now);
        };
        let (leaving, stays) = (transfer.leaving, transfer.leaving.other());
        if let Some(dialog) = &newcomer.leg.dialog {
            self.dialogs.insert(dialog.id(), (call.key, leaving));
        }
        if newcomer.negotiation.offerer().is_none() {
            if !newcomer.negotiation.must_retell(stays) {
                return self.bridge(call, newcomer, None, now);
            }
            if newcomer.negotiation.offer_again(leaving).is_none() {
                self.dismiss(call, newcomer, 488, now);
                return self.transfer_failed(call, 488, now);
            }
        }
        let address = self.media_address(call, stays);
        let sdp = newcomer.negotiation.write_offer(&call.media, address);
        if let Some(transfer) = &mut call.transfer {
            transfer.stage = Stage::Offering(Box::new(newcomer));
        }
        self.save(call);
        self.offer_ours(call, stays, Purpose::Transfer, sdp.unwrap_or_default(), now);
    }

    /// The party that stays was offered the newcomer's media.
    pub(in crate::b2bua) fn on_transfer_offer(
        &mut self,
        call: &mut Call,
        to: Side,
        outcome: Outcome,
        now: &Moment,
    ) {
        let Some(transfer) = &mut call.transfer else {
            return self.acknowledge_outcome(call, to, &outcome, now);
        };
        let (leaving, stays) = (transfer.leaving, transfer.leaving.other());
        let stage = std::mem::replace(&mut transfer.stage, Stage::Calling { child: 0 });
        let Stage::Offering(mut newcomer) = stage else {
            transfer.stage = stage;
            return self.acknowledge_outcome(call, to, &outcome, now);
        };
        let Outcome::Accepted {
            response,
            client,
            sequence,
        } = outcome
        else {
            let status = outcome.status();
            self.dismiss(call, *newcomer, 488, now);
            if matches!(status, 408 | 481) {
                // Nobody is left to be transferred (RFC 3261 section 12.2.1.2).
                call.leg_mut(stays).over = status == 481;
                self.transfer_failed(call, 480, now);
                return self.end_call_with(call, EndedBy::Us, None, now);
            }
            return self.transfer_failed(call, 488, now);
        };
        self.indication_acknowledged(call, stays, now);
        let address = self.media_address(call, leaving);
        let heard = Heard::parse_for(&response.body, &call.route.codecs).and_then(|answer| {
            let negotiation = &mut newcomer.negotiation;
            match &mut newcomer.owes {
                Owes::Ack { .. } => negotiation.hear_answer(answer),
                Owes::Answer { sdp, .. } => {
                    *sdp = Some(negotiation.answer(answer, &call.media, address, true)?);
                    Ok(())
                }
            }
        });
        match heard {
            Ok(()) => self.bridge(call, *newcomer, Some((client, sequence)), now),
            Err(error) => {
                self.acknowledge_own(call, stays, client, sequence, now);
                self.dismiss(call, *newcomer, error.status(), now);
                self.transfer_failed(call, error.status(), now);
                // It believes that it talks to the newcomer.
                self.realign(call, stays, now);
            }
        }
    }

    /// The newcomer has the leaving side's place from now on; `stayed` is the re-INVITE to the other
    /// party that is to be acknowledged.
    fn bridge(
        &mut self,
        call: &mut Call,
        newcomer: Newcomer,
        stayed: Option<(trunkline_sip::transaction::ClientTx, u32)>,
        now: &Moment,
    ) {
        let Some(transfer) = call.transfer.take() else {
            return self.dismiss(call, newcomer, 487, now);
        };
        let side = transfer.leaving;
        let answered = matches!(newcomer.owes, Owes::Answer { .. });
        call.offerer = match (answered, stayed) {
            (false, None) => side.other(),
            _ => side,
        };
        let mut left = std::mem::replace(call.leg_mut(side), newcomer.leg);
        let by = match (left.over, side) {
            (false, _) => EndedBy::Us,
            (true, Side::Caller) => EndedBy::Caller,
            (true, Side::Callee) => EndedBy::Callee,
        };
        let sip_call_id = call.object_leg(side).sip_call_id.clone();
        let reason = Some("SIP;cause=200;text=\"transferred\"").filter(|_| !left.over);
        self.ledger.leg_over(call, &sip_call_id, by, reason, now);
        session_id::share(call);
        self.tell(&mut left, 200);
        self.depart(call, left, now);
        call.negotiation = newcomer.negotiation;
        call.branches.extend(newcomer.branches);
        let ends = call.object_leg(side);
        ends.state = CallState::Ended;
        call.shown[side as usize] = transfer.leg;
        let sip_call_id = call.object_leg(side).sip_call_id.clone();
        if let Some((other, there)) = newcomer.from_call {
            let id = self.ledger.take_over(other, call.key, &sip_call_id);
            if let Some(id) = id {
                call.object_leg(side).id = id;
            }
            self.give_away(other, there, now);
        }
        self.ledger.transfer_ended(call, &sip_call_id, 200);
        change_party(call, side, newcomer.uri, now);
        let owed = Box::new(Owed {
            side,
            newcomer: newcomer.owes,
            stayed,
            from_call: newcomer.from_call.map(|(key, _)| key),
        });
        let commands = self.leg_commands(call);
        self.batch(call, commands, Step::Transferred { owed }, now);
    }

    /// Media is re-pointed: whoever waits is answered, the transferor is told and let go.
    pub(in crate::b2bua) fn transferred(&mut self, call: &mut Call, owed: Owed, now: &Moment) {
        let side = owed.side;
        let acknowledged = matches!(owed.newcomer, Owes::Ack { .. });
        match owed.newcomer {
            Owes::Ack { client, sequence } => {
                self.acknowledge_own(call, side, client, sequence, now);
            }
            Owes::Answer {
                server,
                request,
                sdp,
            } => self.answer_replacement(call, side, server, &request, sdp, now),
        }
        if let Some((client, sequence)) = owed.stayed {
            self.acknowledge_own(call, side.other(), client, sequence, now);
        }
        if let Some(other) = owed.from_call {
            self.end_consultation(other, now);
        }
        if acknowledged {
            let id = call.object_leg(side).sip_call_id.clone();
            self.ledger.acknowledged(call, &id, now);
        }
        if acknowledged {
            self.indication_acknowledged(call, side, now);
        }
        call.object_leg(side).state = CallState::Active;
        self.note_codecs(call);
        self.note_hold(call, now);
        self.publish_call(EventKind::CallBridged, call, now);
        let change = CallChange {
            reason: "transfer".to_owned(),
            participants: Some(record::participant_facts(call)),
            legs: call.negotiation.leg_facts(),
            sip_call_ids: vec![call.object_leg(side).sip_call_id.clone()],
            ..CallChange::default()
        };
        self.fact_to_live(call, FactKind::CallChange, &change);
        self.note_participants(call);
        self.tell_subscribers(call, now);
        self.save(call);
    }

    /// The catalog learns who takes part in the running recording.
    fn note_participants(&mut self, call: &mut Call) {
        let Some(number) = call.live_recording().map(|one| one.number) else {
            return;
        };
        record::refresh_participants(call, number);
        if let Some(recording) = call.recording(number) {
            self.writes.push(CatalogWrite::Recording(recording.clone()));
        }
    }

    /// The transfer came to nothing: the parties are as they were.
    pub(in crate::b2bua) fn transfer_failed(&mut self, call: &mut Call, status: u16, now: &Moment) {
        let Some(transfer) = call.transfer.take() else {
            return;
        };
        let status = status.max(300);
        let shown = &mut call.object.legs[transfer.leg];
        shown.state = CallState::Failed;
        let sip_call_id = shown.sip_call_id.clone();
        self.ledger.transfer_ended(call, &sip_call_id, status);
        self.publish_call(EventKind::CallTransferFailed, call, now);
        self.tell(call.leg_mut(transfer.leaving), status);
        self.tell_subscribers(call, now);
        self.save(call);
        if call.leg(transfer.leaving).over {
            // The transferor has left: nobody is there to be talked to.
            let by = match transfer.leaving {
                Side::Caller => EndedBy::Caller,
                Side::Callee => EndedBy::Callee,
            };
            let reason = reason_header(("SIP", status, "the transfer failed"));
            self.end_call_with(call, by, Some(reason), now);
        }
    }

    /// The call ends over a transfer.
    pub(in crate::b2bua) fn abort_transfer(&mut self, call: &mut Call, now: &Moment) {
        let Some(transfer) = call.transfer.take() else {
            return;
        };
        call.object.legs[transfer.leg].state = CallState::Failed;
        let sip_call_id = call.object.legs[transfer.leg].sip_call_id.clone();
        self.ledger.transfer_ended(call, &sip_call_id, 487);
        self.publish_call(EventKind::CallTransferFailed, call, now);
        self.tell(call.leg_mut(transfer.leaving), 487);
        self.tell_subscribers(call, now);
        match transfer.stage {
            Stage::Calling { child } => {
                self.with_call(child, now, |b2bua, child| {
                    b2bua.fail_call(child, 487, "the call is over", now);
                });
            }
            Stage::Consulting(consulting) => self.release_consulted(&consulting, now),
            Stage::Offering(newcomer) => self.dismiss(call, *newcomer, 487, now),
        }
    }

    /// A newcomer that cannot have the place is sent away.
    pub(super) fn dismiss(
        &mut self,
        call: &mut Call,
        mut newcomer: Newcomer,
        status: u16,
        now: &Moment,
    ) {
        call.branches.append(&mut newcomer.branches);
        let Some(dialog) = &mut newcomer.leg.dialog else {
            return;
        };
        if newcomer.from_call.is_none() {
            self.dialogs.remove(&dialog.id());
        }
        let sip_call_id = dialog.call_id().to_owned();
        match newcomer.owes {
            Owes::Ack { .. } if newcomer.from_call.is_some() => {}
            Owes::Ack { .. } => {
                let us = EndedBy::Us;
                self.ledger.leg_over(call, &sip_call_id, us, None, now);
            }
            Owes::Answer { .. } => self.ledger.told_joining(call, &sip_call_id, status, now),
        }
        let target = newcomer.leg.target();
        let Some(dialog) = &mut newcomer.leg.dialog else {
            return;
        };
        match newcomer.owes {
            Owes::Ack { client, sequence } => {
                let mut ack = dialog.ack(sequence);
                ack.set_content_length();
                let _ = self.endpoint.send_ack(now.instant, client, ack, &target);
                if let Some((other, side)) = newcomer.from_call {
                    return self.return_consulted(other, side, newcomer.leg, now);
                }
                if newcomer.leg.over {
                    return;
                }
                if let Ok(bye) = dialog.request(Method::Bye) {
                    let reason = reason_header(("SIP", status, "the transfer failed"));
                    let mut bye = bye
                        .with("User-Agent", headers::SERVER)
                        .with("Reason", reason);
                    bye.set_content_length();
                    let _ = self.endpoint.send_request(now.instant, bye, &target);
                }
            }
            Owes::Answer {
                server, request, ..
            } => {
                let mut response = dialog.response(&request, status);
                response.headers.set("Server", headers::SERVER);
                response.set_content_length();
                self.respond(server, response, now);
            }
        }
    }
}

/// The party of a side is another one now.
fn change_party(call: &mut Call, side: Side, uri: String, now: &Moment) {
    let left = call
        .parties
        .iter_mut()
        .filter(|one| one.side == side as u8 && one.to.is_none());
    for party in left {
        party.to = Some(now.utc);
    }
    call.private[side as usize] = false;
    call.awareness.forget(side);
    // Who joins has heard nothing; the sound begins anew.
    call.sounding[side as usize].play = 0;
    call.parties.push(Party {
        role: Role::Transfer,
        uri,
        side: side as u8,
        from: now.utc,
        to: None,
    });
}
