//! INVITE with Replaces (RFC 3891): somebody takes the place of one of our peers.

use trunkline_link::message::Side;
use trunkline_sip::dialog::{Dialog, DialogId};
use trunkline_sip::message::{Method, Request};
use trunkline_sip::transaction::{FlowId, Path, ServerTx};

use super::super::end::bye;
use super::super::{B2bua, awareness, headers, session, session_id};
use crate::call::negotiation::Heard;
use crate::call::transfer::{Newcomer, Owes, Stage, Transfer};
use crate::call::{Call, Leg, Phase};
use crate::clock::Moment;

impl B2bua {
    pub(in crate::b2bua) fn on_replacing_invite(
        &mut self,
        tx: ServerTx,
        request: Request,
        path: Path,
        now: &Moment,
    ) {
        let (key, side) = match self.judge_replacing(&request) {
            Ok(found) => found,
            Err(status) => return self.refuse_replacing(tx, &request, path, status, now),
        };
        self.with_call(key, now, |b2bua, call| {
            match b2bua.replacement(call, side, tx, &request, path) {
                Ok(newcomer) => b2bua.replace(call, side, newcomer, tx, now),
                Err(status) => b2bua.refuse_replacing(tx, &request, path, status, now),
            }
        });
    }

    fn refuse_replacing(
        &mut self,
        tx: ServerTx,
        request: &Request,
        path: Path,
        status: u16,
        now: &Moment,
    ) {
        self.ledger.refused(request, path, status, now);
        self.respond_plain(tx, request, status, now);
    }

    /// Whom the INVITE replaces, or why it may not (RFC 3891 section 3).
    fn judge_replacing(&self, request: &Request) -> Result<(u64, Side), u16> {
        if request.headers.count("Replaces") != 1 {
            return Err(400);
        }
        let replaces = request.headers.replaces().map_err(|_| 400_u16)?;
        let replaces = replaces.ok_or(400_u16)?;
        let id = DialogId::of_replaces(&replaces);
        let (key, side) = self.dialogs.get(&id).copied().ok_or(481_u16)?;
        let call = self.calls.get(&key).ok_or(481_u16)?;
        let dialog = call.leg(side).dialog.as_ref();
        if dialog.is_none_or(|dialog| dialog.id() != id) {
            return Err(481);
        }
        match call.phase {
            Phase::Answered => {}
            Phase::Ending => return Err(603),
            // An early dialog that we did not begin.
            _ => return Err(481),
        }
        if replaces.early_only {
            return Err(486);
        }
        if self.refuses_calls() {
            return Err(503);
        }
        let busy = call.exchange.is_some() || call.own_offer.is_some() || call.transfer.is_some();
        if busy || call.negotiation.is_pending() || call.consulted_by.is_some() {
            return Err(491);
        }
        // The newcomer's offer is what the party that stays gets.
        if !headers::has_sdp(&request.headers, &request.body) {
            return Err(488);
        }
        Ok((key, side))
    }

    fn replacement(
        &mut self,
        call: &Call,
        side: Side,
        tx: ServerTx,
        request: &Request,
        path: Path,
    ) -> Result<Newcomer, u16> {
        let mut negotiation = call.negotiation.without(side);
        let offer =
            Heard::parse_for(&request.body, &call.route.codecs).map_err(|error| error.status())?;
        let media = offer.address().unwrap_or(path.source.ip());
        let interface = self.config.interface_for(None, media);
        if interface != Some(usize::from(call.media.interface[side as usize])) {
            return Err(488);
        }
        let aware = awareness::is_said(&request.headers);
        negotiation.indicate(side, aware.then(|| self.recorded(call)));
        negotiation
            .offer(side, offer)
            .map_err(|error| error.status())?;
        let user = request.uri.user_decoded();
        let contact = Self::contact(user.as_deref(), path.transport, path.local).ok_or(400_u16)?;
        let tag = match self.endpoint.local_tag(tx) {
            Some(tag) => tag.to_owned(),
            None => self.endpoint.new_tag(),
        };
        let mut dialog = Dialog::uas(request, &tag, &contact).map_err(|_| 400_u16)?;
        let uuid = session_id::of_caller(&request.headers);
        session_id::begin(&mut dialog, &call.route, &uuid);
        let from = request.headers.from_address().map_err(|_| 400_u16)?;
        let leg = Leg::new(
            path.transport,
            Some(path.flow),
            path.local,
            path.source,
            contact,
        );
        Ok(Newcomer {
            leg: Leg {
                dialog: Some(dialog),
                acknowledged: false,
                aware,
                ..leg
            },
            negotiation,
            owes: Owes::Answer {
                server: tx,
                request: Box::new(request.clone()),
                sdp: None,
            },
            branches: Vec::new(),
            from_call: None,
            uri: from.uri.to_string(),
        })
    }

    fn replace(
        &mut self,
        call: &mut Call,
        side: Side,
        newcomer: Newcomer,
        tx: ServerTx,
        now: &Moment,
    ) {
        self.own_server(call, tx);
        let leg = self.announce_transfer(call, &newcomer.uri, now);
        let shown = &mut call.object.legs[leg];
        if let Some(dialog) = &newcomer.leg.dialog {
            dialog.call_id().clone_into(&mut shown.sip_call_id);
        }
        let transport = newcomer.leg.transport.param_name();
        shown.peer = format!("{transport}:{}", newcomer.leg.remote);
        if let Owes::Answer { request, .. } = &newcomer.owes {
            let path = Path {
                transport: newcomer.leg.transport,
                flow: newcomer.leg.flow.unwrap_or(FlowId(0)),
                local: newcomer.leg.local,
                source: newcomer.leg.remote,
            };
            self.ledger.joined(call, leg, request, path, now);
        }
        call.transfer = Some(Transfer {
            leaving: side,
            leg,
            stage: Stage::Calling { child: 0 },
        });
        self.welcome(call, newcomer, now);
    }

    /// The party that stays took the newcomer's offer: the newcomer is answered.
    pub(super) fn answer_replacement(
        &mut self,
        call: &mut Call,
        side: Side,
        server: ServerTx,
        request: &Request,
        sdp: Option<String>,
        now: &Moment,
    ) {
        let mut response = self.dialog_response(call, side, request, 200);
        response.headers.set("Allow", headers::allow(&call.route));
        awareness::advertise(
            awareness::is_aware(call, side.other()),
            &mut response.headers,
        );
        if let Some(sdp) = sdp {
            response.set_body("application/sdp", sdp);
        }
        session::confirm(call.leg_mut(side), request, &mut response, now);
        let sip_call_id = request.headers.call_id().unwrap_or_default();
        self.ledger.told_joining(call, &sip_call_id, 200, now);
        self.respond(server, response, now);
    }

    /// The newcomer gives up before it was answered. False when this transaction is not its.
    pub(in crate::b2bua) fn on_replacing_cancelled(
        &mut self,
        call: &mut Call,
        invite: ServerTx,
        now: &Moment,
    ) -> bool {
        let Some(transfer) = &mut call.transfer else {
            return false;
        };
        match std::mem::replace(&mut transfer.stage, Stage::Calling { child: 0 }) {
            Stage::Offering(newcomer) if matches!(newcomer.owes, Owes::Answer { server, .. } if server == invite) =>
            {
                self.dismiss(call, *newcomer, 487, now);
                self.transfer_failed(call, 487, now);
                true
            }
            other => {
                transfer.stage = other;
                false
            }
        }
    }

    /// A request in the dialog of a newcomer that is not bridged yet. False when there is none.
    pub(in crate::b2bua) fn on_newcomer_request(
        &mut self,
        call: &mut Call,
        tx: ServerTx,
        request: &Request,
        now: &Moment,
    ) -> bool {
        let Some(Stage::Offering(newcomer)) = call.transfer.as_mut().map(|one| &mut one.stage)
        else {
            return false;
        };
        let Some(dialog) = &mut newcomer.leg.dialog else {
            return false;
        };
        if Some(dialog.id()) != DialogId::of_request(request) {
            return false;
        }
        let ends = request.method == Method::Bye;
        let mut response = dialog.response(request, if ends { 200 } else { 491 });
        response.set_content_length();
        if ends {
            dialog.terminate();
            newcomer.leg.over = true;
        }
        self.respond(tx, response, now);
        if ends {
            self.newcomer_gone(call, now);
        }
        true
    }

    fn newcomer_gone(&mut self, call: &mut Call, now: &Moment) {
        let Some(transfer) = &mut call.transfer else {
            return;
        };
        let stage = std::mem::replace(&mut transfer.stage, Stage::Calling { child: 0 });
        if let Stage::Offering(newcomer) = stage {
            self.dismiss(call, *newcomer, 480, now);
        }
        self.transfer_failed(call, 480, now);
    }

    /// The ACK of a newcomer's INVITE. False when this leg waits for none.
    pub(in crate::b2bua) fn on_newcomer_ack(
        &mut self,
        call: &mut Call,
        side: Side,
        now: &Moment,
    ) -> bool {
        let leg = call.leg_mut(side);
        if leg.acknowledged {
            return false;
        }
        leg.acknowledged = true;
        self.indication_acknowledged(call, side, now);
        let leg = call.leg(side);
        let sip_call_id = leg
            .dialog
            .as_ref()
            .map(|dialog| dialog.call_id().to_owned());
        self.ledger
            .acknowledged(call, &sip_call_id.unwrap_or_default(), now);
        let leg = call.leg_mut(side);
        if std::mem::take(&mut leg.bye_waits) {
            let reason = leg.bye_reason.take();
            if let Some((request, target)) = bye(leg, reason) {
                self.send_leg_bye(call, side, request, &target, now);
            }
        }
        if side == Side::Caller {
            self.release_waiting(call, now);
        }
        true
    }
}
