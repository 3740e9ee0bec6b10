//! Calls and their recording sessions: what recorders have to know of a call, and what a call does for
//! their sake. The sessions themselves are in `siprec`.

use trunkline_link::message::{Event, FactKind, Side};
use trunkline_sinks::object::{self, EndedBy};
use trunkline_sip::dialog::DialogId;
use trunkline_sip::message::{NameAddr, Request, Response};
use trunkline_sip::transaction::{ClientTx, Path, ServerTx};

use super::awareness::{declines, rests};
use super::{B2bua, CatalogWrite};
use crate::api::handle::{ActionError, RecorderOrder, SessionsReply};
use crate::call::recording::Phase as Capture;
use crate::call::{Call, Phase};
use crate::clock::Moment;
use crate::replay::News;
use crate::siprec::client::{CallView, Chosen, Client, Context, Order, Party, Stage, Stream};
use crate::siprec::session::Session;
use crate::unreachable::Undelivered;

impl B2bua {
    /// The client and what it works with.
    pub(super) fn recorders<'a>(&'a mut self, now: &'a Moment) -> (&'a mut Client, Context<'a>) {
        let context = Context {
            config: &self.config,
            endpoint: &mut self.endpoint,
            local_to: &*self.local_to,
            events: &self.events,
            commands: &mut self.commands,
            next_request: &mut self.next_request,
            replays: &mut self.replays,
            lookups: &mut self.lookups,
            now,
        };
        (&mut self.siprec, context)
    }

    /// A call's recorders follow what has become of it.
    pub(super) fn recorders_follow(&mut self, call: &Call, now: &Moment) {
        let wanted = !call.route.recorders.list.is_empty() || self.siprec.knows_call(call.key);
        if !wanted || call.transfer_of.is_some() {
            return;
        }
        let view = self.view(call);
        let (client, mut context) = self.recorders(now);
        client.follow(view, &mut context);
    }

    /// Whether the callee is not to be called before recorders have accepted.
    pub(super) fn recorders_hold(&mut self, call: &Call, now: &Moment) -> bool {
        self.recorders_follow(call, now);
        let (client, mut context) = self.recorders(now);
        client.holds(call.key, &mut context)
    }

    /// What recorders have to know of a call.
    pub(super) fn view(&self, call: &Call) -> CallView {
        let stage = match call.phase {
            Phase::Ending => Stage::Over,
            Phase::Answered => Stage::Answered,
            _ if call.object.state == object::CallState::Early => Stage::Early,
            _ => Stage::Invited,
        };
        let recording = call.recordings.iter().rfind(|one| one.is_live());
        let user = call.object.callee.as_str();
        let emergency = [user, &call.object.callee_uri]
            .iter()
            .any(|target| self.config.sip.is_emergency(target));
        CallView {
            key: call.key,
            id: call.object.id.clone(),
            sip_call_id: call.object.sip_call_id.clone(),
            session_id: call.object.session_id.clone(),
            recording: recording.map(|one| one.object.id.clone()),
            started_at: call.object.started_at,
            ended_at: call.object.ended_at,
            reason: None,
            stage,
            settled: !call.negotiation.is_pending() && call.exchange.is_none(),
            emergency,
            captured: recording.is_some(),
            declined: declines(call),
            rests: rests(call),
            capture_rests: recording.is_some_and(|one| one.phase == Capture::Paused),
            interface: call.media.interface[Side::Callee as usize],
            has_ports: call.media.port(0, Side::Caller) != 0,
            parties: parties(call),
            streams: streams(call),
            recorders: std::sync::Arc::clone(&call.route.recorders),
        }
    }

    pub(super) fn recorder_response(
        &mut self,
        tx: ClientTx,
        response: &Response,
        path: Path,
        now: &Moment,
    ) {
        let (client, mut context) = self.recorders(now);
        client.on_response(tx, response, path, &mut context);
    }

    pub(super) fn recorder_unanswered(&mut self, tx: ClientTx, status: u16, now: &Moment) {
        let (client, mut context) = self.recorders(now);
        client.on_failure(tx, status, &mut context);
    }

    /// A request in a dialog with a recorder; `None` when it was one.
    pub(super) fn recorder_request(
        &mut self,
        tx: ServerTx,
        request: Request,
        path: Path,
        now: &Moment,
    ) -> Option<Request> {
        let id = DialogId::of_request(&request);
        if !id.is_some_and(|id| self.siprec.owns_dialog(&id)) {
            return Some(request);
        }
        let (client, mut context) = self.recorders(now);
        client.on_request(tx, request, path, &mut context);
        None
    }

    pub(super) fn recorder_ack(
        &mut self,
        invite: Option<ServerTx>,
        request: &Request,
        now: &Moment,
    ) -> bool {
        let (client, mut context) = self.recorders(now);
        client.on_ack(invite, request, &mut context)
    }

    pub(super) fn recorder_event(&mut self, event: &Event, now: &Moment) -> bool {
        let (client, mut context) = self.recorders(now);
        client.on_link_event(event, &mut context)
    }

    /// The network says that a packet was not delivered.
    pub fn on_undelivered(&mut self, undelivered: Undelivered, now: &Moment) {
        let (client, mut context) = self.recorders(now);
        client.on_undelivered(undelivered, &mut context);
        self.handle_sip_events(now);
    }

    /// News of what recorders missed and are sent now.
    pub fn on_replay(&mut self, news: News, now: &Moment) {
        match news {
            News::Link(event) => {
                self.recorder_event(&event, now);
            }
            News::Over { session, failed } => {
                let (client, mut context) = self.recorders(now);
                client.replay_over(session, failed, &mut context);
            }
        }
        self.handle_sip_events(now);
    }

    /// Calls do what became necessary for their recorders' sake.
    pub(super) fn deliver_orders(&mut self, now: &Moment) {
        // What an order leads to may lead to others.
        for _ in 0..16 {
            let orders = self.siprec.take_orders();
            if orders.is_empty() {
                return;
            }
            for (key, order) in orders {
                self.with_call(key, now, |b2bua, call| b2bua.carry_out(call, order, now));
            }
        }
    }

    fn carry_out(&mut self, call: &mut Call, order: Order, now: &Moment) {
        match order {
            Order::Proceed if call.phase == Phase::Preparing => self.ring(call, now),
            Order::Refuse(why) => self.fail_call(call, 503, &why, now),
            Order::HangUp(why) if call.phase == Phase::Answered => {
                self.end_call(call, EndedBy::Us, Some(("SIP", 503, &why)), now);
            }
            Order::Proceed | Order::HangUp(_) => {}
            Order::Leg(leg) => {
                let legs = &mut call.object.legs;
                match legs.iter_mut().find(|one| one.id == leg.id) {
                    Some(known) => *known = *leg,
                    None => legs.push(*leg),
                }
                self.writes.push(CatalogWrite::Call(call.object.clone()));
                self.save(call);
            }
            // Its parties are told as the call is put back.
            Order::Recorded => {}
            Order::Gap(gap) => {
                let recording = call.recordings.iter_mut().rfind(|one| one.is_live());
                if let Some(recording) = recording {
                    recording.note_gap(*gap);
                    self.save(call);
                }
            }
            Order::Fact(change) => self.fact_to_live(call, FactKind::CallChange, &*change),
        }
    }

    /// An order of the operator's about a call's recording sessions.
    pub(super) fn recorder_order(
        &mut self,
        call: &str,
        chosen: &Chosen,
        order: RecorderOrder,
        reply: SessionsReply,
        now: &Moment,
    ) {
        let key = self.ids.get(call).copied();
        let Some(call) = key.and_then(|key| self.calls.get(&key)) else {
            let _ = reply.send(Err(ActionError::NotFound));
            return;
        };
        if call.phase != Phase::Answered {
            let why = "the call is not answered, or is ending".to_owned();
            let _ = reply.send(Err(ActionError::WrongState(why)));
            return;
        }
        let (key, view) = (call.key, self.view(call));
        let (client, mut context) = self.recorders(now);
        client.follow(view, &mut context);
        match order {
            RecorderOrder::Act { action, recorder } => {
                client.act(key, action, chosen, recorder, reply, &mut context);
            }
            RecorderOrder::Message {
                method,
                headers,
                body,
            } => client.message(key, chosen, &method, &headers, &body, reply, &mut context),
        }
        self.deliver_orders(now);
    }

    /// Persistent recording sessions that carry no call end: we exit.
    pub fn end_persistent(&mut self, now: &Moment) {
        let (client, mut context) = self.recorders(now);
        client.end_carriers(&mut context);
    }

    /// Recording sessions that are not over, in either role.
    pub fn siprec_sessions(&self) -> Vec<Session> {
        let mut all = self.siprec.list();
        all.extend(self.served_sessions());
        all
    }

    /// A recording session, also shortly after its end.
    pub(super) fn siprec_session(&self, id: &str) -> Option<Session> {
        self.siprec.find(id).or_else(|| self.served_session(id))
    }
}

fn parties(call: &Call) -> Vec<Party> {
    let name = |side: Side| {
        let dialog = call.leg(side).dialog.as_ref()?;
        NameAddr::parse(dialog.remote_address(), "To").ok()?.display
    };
    call.parties
        .iter()
        .map(|party| {
            let side = if party.side == Side::Caller as u8 {
                Side::Caller
            } else {
                Side::Callee
            };
            Party {
                uri: party.uri.clone(),
                name: name(side).filter(|_| party.to.is_none()),
                side,
                from: party.from,
                to: party.to,
            }
        })
        .collect()
}

fn streams(call: &Call) -> Vec<Stream> {
    let facts = call.negotiation.leg_facts();
    facts
        .into_iter()
        .map(|fact| {
            let side = if fact.side == Side::Caller as u8 {
                Side::Caller
            } else {
                Side::Callee
            };
            let direction = call.negotiation.direction(usize::from(fact.media), side);
            Stream {
                media: fact.media,
                side,
                kind: fact.kind,
                ptime_ms: fact.ptime_ms,
                payloads: fact.payloads,
                direction: trunkline_siprec::describe::Media {
                    sends: direction.is_none_or(|one| one.sends()),
                    receives: direction.is_none_or(|one| one.receives()),
                },
            }
        })
        .collect()
}
