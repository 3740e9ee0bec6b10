//! A transfer begins: the target is called.

use trunkline_link::message::Side;
use trunkline_sinks::object::{self, CallState, Role};
use trunkline_sip::dialog::DialogId;
use trunkline_sip::message::{Method, NameAddr, Request, Response};
use trunkline_sip::transaction::{FlowId, Path};

use super::super::{B2bua, ClientUse, Reported, targets};
use super::Referral;
use crate::api::events::EventKind;
use crate::call::negotiation::Heard;
use crate::call::transfer::{Newcomer, News, Owes, Stage, Transfer};
use crate::call::{Call, Invitation, Leg, Phase};
use crate::clock::Moment;

impl B2bua {
    /// `leaving`'s place is to be taken by the referral's target.
    pub(in crate::b2bua) fn begin_transfer(
        &mut self,
        call: &mut Call,
        leaving: Side,
        referral: Referral,
        now: &Moment,
    ) {
        let leg = self.announce_transfer(call, &referral.target.to_string(), now);
        let met = referral
            .replaces
            .as_ref()
            .and_then(|replaces| self.dialogs.get(&DialogId::of_replaces(replaces)).copied());
        let begun = match met {
            Some((other, side)) => self.consult(call, leaving, other, side, now),
            None => self.call_target(call, leaving, leg, &referral, now),
        };
        self.transfer_begun(call, leaving, leg, begun, now);
    }

    pub(super) fn transfer_begun(
        &mut self,
        call: &mut Call,
        leaving: Side,
        leg: usize,
        begun: Result<Stage, u16>,
        now: &Moment,
    ) {
        let (stage, failed) = match begun {
            Ok(stage) => (stage, None),
            Err(status) => (Stage::Calling { child: 0 }, Some(status)),
        };
        call.transfer = Some(Transfer {
            leaving,
            leg,
            stage,
        });
        self.save(call);
        if let Some(status) = failed {
            self.transfer_failed(call, status, now);
        }
    }

    /// Shows the newcomer's leg, and says that a transfer began.
    pub(super) fn announce_transfer(
        &mut self,
        call: &mut Call,
        target: &str,
        now: &Moment,
    ) -> usize {
        self.ledger.transfer_started(call, target, now);
        call.object.legs.push(object::Leg {
            id: object::new_id(),
            role: Role::Transfer,
            sip_call_id: String::new(),
            trunk: None,
            peer: String::new(),
            codec: None,
            state: CallState::Setup,
        });
        self.publish_call(EventKind::CallTransferStarted, call, now);
        call.object.legs.len() - 1
    }

    /// Calls the target through the routes.
    fn call_target(
        &mut self,
        call: &Call,
        leaving: Side,
        leg: usize,
        referral: &Referral,
        now: &Moment,
    ) -> Result<Stage, u16> {
        if self.refuses_calls() {
            return Err(503);
        }
        let stays = call.leg(leaving.other());
        let (negotiation, offer) = call
            .negotiation
            .for_newcomer(leaving, None)
            .ok_or(500_u16)?;
        let request = self
            .transfer_request(call, leaving, referral)
            .ok_or(500_u16)?;
        let route = self.route(&request).ok_or(404_u16)?;
        let offer: Heard = offer.kept(&route.codecs).map_err(|error| error.status())?;
        let path = Path {
            transport: stays.transport,
            flow: stays.flow.unwrap_or(FlowId(0)),
            local: stays.local,
            source: stays.remote,
        };
        let groups = targets::groups(&route, &request, path).map_err(|(status, _)| status)?;
        let mut object = call.object.clone();
        object.legs = vec![object.legs[call.shown[leaving.other() as usize]].clone()];
        object.legs.push(call.object.legs[leg].clone());
        (object.answered_at, object.state) = (None, CallState::Setup);
        let like = |aware| Leg {
            aware,
            ..Leg::new(
                stays.transport,
                stays.flow,
                stays.local,
                stays.remote,
                stays.contact.clone(),
            )
        };
        let key = rand::random::<u64>().max(1);
        let media = call.media.for_newcomer(leaving);
        let mut child = Box::new(Call {
            invitation: Some(Box::new(Invitation::new(None, request, groups, false))),
            offer: Some(offer),
            transfer_of: Some(call.key),
            closed: true,
            ..Call::new(
                key,
                object,
                route,
                [like(stays.aware), like(false)],
                media,
                negotiation,
            )
        });
        self.next_group(&mut child, now);
        self.settle(child, now);
        Ok(Stage::Calling { child: key })
    }

    /// The INVITE of the new call as if the party that stays had sent it to us.
    fn transfer_request(
        &mut self,
        call: &Call,
        leaving: Side,
        referral: &Referral,
    ) -> Option<Request> {
        let stays = call.leg(leaving.other()).dialog.as_ref()?;
        let leaves = call.leg(leaving).dialog.as_ref()?;
        let from = NameAddr::parse(stays.remote_address(), "From").ok()?;
        let from = from.with_tag(Some(&self.endpoint.new_tag()));
        let target = &referral.target;
        let mut request = Request::new(Method::Invite, target.clone())
            .with("Max-Forwards", "70")
            .with("From", from.to_string())
            .with("To", NameAddr::new(target.clone()).to_string())
            .with("Call-ID", stays.call_id())
            .with("CSeq", "1 INVITE");
        if let Some(session) = stays.session_id() {
            request.headers.set("Session-ID", &session.remote);
        }
        let by = NameAddr::parse(leaves.remote_address(), "From").ok();
        let by = by.map(|by| NameAddr::new(by.uri).to_string());
        if let Some(by) = referral.referred_by.clone().or(by) {
            request.headers.set("Referred-By", by);
        }
        // RFC 7044: whom the call was for, and whom it is for now.
        if let Ok(first) = call.object.callee_uri.parse() {
            let first = NameAddr::new(first);
            let next = NameAddr::new(target.clone());
            let history = format!("{first};index=1, {next};index=1.1;mp=1");
            request.headers.set("History-Info", history);
        }
        if call.private[leaving.other() as usize] {
            request.headers.set("Privacy", "id");
        }
        for (name, value) in &referral.added {
            request.headers.append(name, value);
        }
        // A dialog of others: whoever has it judges it.
        if let Some(replaces) = &referral.replaces {
            request.headers.set("Replaces", replaces.to_string());
            request.headers.set("Require", "replaces");
        }
        Some(request)
    }

    /// The target of a transfer answered the call that rings it: it goes to the call it is for.
    pub(in crate::b2bua) fn hand_over(
        &mut self,
        child: &mut Call,
        response: &Response,
        now: &Moment,
    ) {
        let parent = child.transfer_of.filter(|key| self.calls.contains_key(key));
        let client = child.invitation.as_ref().and_then(|one| one.client);
        let (Some(_), Some(client)) = (parent, client) else {
            return self.accepted_badly(child, response, "the call is over", now);
        };
        let newcomer = Newcomer {
            leg: child.leg(Side::Callee).clone(),
            negotiation: child.negotiation.clone(),
            owes: Owes::Ack {
                client,
                sequence: response.headers.cseq().map_or(1, |cseq| cseq.number),
            },
            branches: std::mem::take(&mut child.branches),
            from_call: None,
            uri: child
                .invitation
                .as_ref()
                .map(|one| one.request.uri.to_string())
                .unwrap_or_default(),
        };
        if let (Some(parent), Ok(id)) = (parent, response.headers.call_id()) {
            self.ledger.take_over(child.key, parent, &id);
        }
        self.report(child, News::Answered(Box::new(newcomer)));
        child.phase = Phase::Ending;
        for side in Side::BOTH {
            child.leg_mut(side).over = true;
            child.leg_mut(side).dialog = None;
        }
    }

    /// Tells a call how that to its transfer's target goes. It hears of it once nothing is being done
    /// to it.
    pub(in crate::b2bua) fn report(&mut self, child: &Call, news: News) {
        if let Some(parent) = child.transfer_of {
            self.reports.push(Reported {
                to: parent,
                by: child.key,
                leg: child.object.legs.last().cloned(),
                news,
            });
        }
    }

    /// Passes on what was reported to calls that are not being worked on.
    pub(in crate::b2bua) fn deliver_reports(&mut self, now: &Moment) {
        let ready = |one: &Reported, b2bua: &Self| b2bua.calls.contains_key(&one.to);
        while let Some(index) = self.reports.iter().position(|one| ready(one, self)) {
            let report = self.reports.remove(index);
            self.with_call(report.to, now, |b2bua, call| {
                b2bua.on_news(call, report, now)
            });
        }
    }

    fn on_news(&mut self, call: &mut Call, report: Reported, now: &Moment) {
        let known = call
            .transfer
            .as_ref()
            .filter(|one| matches!(one.stage, Stage::Calling { child } if child == report.by));
        let Some(leg) = known.map(|one| one.leg) else {
            if let News::Answered(newcomer) = report.news {
                self.dismiss(call, *newcomer, 487, now);
            }
            return;
        };
        if let Some(shown) = report.leg {
            call.object.legs[leg] = shown;
        }
        match report.news {
            News::Ringing(status) => self.tell_leaving(call, status, now),
            News::Failed(status) => self.transfer_failed(call, status, now),
            News::Answered(mut newcomer) => {
                for branch in &newcomer.branches {
                    self.own_client(call, branch.client, ClientUse::Invitation);
                }
                let Some(leaving) = call.transfer.as_ref().map(|one| one.leaving) else {
                    return;
                };
                newcomer.negotiation = call
                    .negotiation
                    .with_newcomer(leaving, &newcomer.negotiation);
                self.welcome(call, *newcomer, now);
            }
        }
    }
}
