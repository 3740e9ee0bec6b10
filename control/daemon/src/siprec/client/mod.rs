//! The SIPREC client (SRC): calls recorded to others, sans-IO.
//!
//! A recorder of a call has one recording session here, whichever of its servers has it:
//!
//! ```text
//! follow (the call as it is) ─ Opening ─ ports ─► Inviting ── 2xx ─► Arming ─ fork runs ─► Standing
//!                                  ▲                 │ failure, silence: the next server        │
//!                                  └──── Lost ◄──────┴──── no server left ◄── BYE, 481, silence ┘
//! ```
//!
//! Media leaves by a dataplane session of its own beside the call's (`Command::ForkStart`), so nothing
//! that a recorder does or leaves out touches the call, unless the route says so ([`policy`]).

mod actions;
mod asked;
mod attempt;
mod carrier;
mod change;
mod ending;
mod health;
mod incoming;
mod link;
mod loss;
mod offer;
mod persist;
mod policy;
mod replay;
mod sdp;
mod servers;
mod setup;
mod show;
mod state;
mod story;
mod view;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use trunkline_config::{Config, Recorder};
use trunkline_link::message::Command;
use trunkline_sip::dialog::DialogId;
use trunkline_sip::message::{Request, Response};
use trunkline_sip::transaction::{ClientTx, Endpoint, Path, ServerTx, Target};

use crate::api::events::EventHub;
use crate::b2bua::{LocalAddresses, Lookup};
use crate::clock::Moment;
use crate::siprec::session::Session;
use health::Resting;
use policy::CallRecorders;
use replay::Gone;
use state::{Phase, RecordingSession};

pub use actions::{Act, Chosen};
pub use asked::Wanted;
pub use persist::Left;
pub use policy::Order;
pub use view::{CallView, Party, Stage, Stream};

/// Sessions that are over and can still be asked for.
const ENDED_MAX: usize = 512;
/// Transactions that a session remembers.
const OWNED_MAX: usize = 16;
/// A BYE that is not answered by then is forgotten.
const END_PATIENCE: Duration = Duration::from_secs(34);

/// What the client works with.
pub struct Context<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The transaction layer.
    pub endpoint: &'a mut Endpoint,
    /// Our addresses.
    pub local_to: &'a LocalAddresses,
    /// Published events.
    pub events: &'a EventHub,
    /// Commands to the dataplane, with the numbers of their requests.
    pub commands: &'a mut Vec<(u64, Command)>,
    /// The next number.
    pub next_request: &'a mut u64,
    /// What replays are told.
    pub replays: &'a mut Vec<crate::replay::Order>,
    /// Host names to look up, by the session that waits.
    pub lookups: &'a mut Vec<Lookup>,
    /// Now.
    pub now: &'a Moment,
}

/// What a client transaction is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Invite,
    Change,
    Refresh,
    Bye,
    Message,
}

/// All recording sessions of ours.
#[derive(Default)]
pub struct Client {
    sessions: HashMap<u64, RecordingSession>,
    calls: HashMap<u64, CallRecorders>,
    dialogs: HashMap<DialogId, u64>,
    clients: HashMap<ClientTx, (u64, Use)>,
    servers: HashMap<ServerTx, u64>,
    requests: HashMap<u64, (u64, u64)>,
    timers: BTreeSet<(Instant, u64)>,
    /// INVITEs that were given up: a 2xx is acknowledged and ended.
    abandoned: HashMap<ClientTx, (Request, Target)>,
    /// Servers that are left alone until then.
    resting: HashMap<String, Resting>,
    orders: Vec<(u64, Order)>,
    acts: HashMap<u64, Act>,
    next_act: u64,
    /// Persistent sessions, by their recorder.
    carriers: HashMap<String, u64>,
    /// Sessions of an earlier control, by their call, until that is there again.
    left: HashMap<u64, Vec<Left>>,
    /// What recorders missed of calls that are over.
    replays: VecDeque<Gone>,
    ended: VecDeque<Session>,
}

impl Client {
    /// The call as it is now: sessions begin, change and end by it.
    pub fn follow(&mut self, view: CallView, cx: &mut Context<'_>) {
        for left in self.left.remove(&view.key).unwrap_or_default() {
            self.restore(left, &view, cx);
        }
        let view = Arc::new(view);
        let key = view.key;
        if view.stage == Stage::Over {
            return self.call_over(&view, cx);
        }
        let call = self.calls.entry(key).or_default();
        call.view = Some(Arc::clone(&view));
        let mut due: Vec<Arc<Recorder>> = Vec::new();
        for recorder in &view.recorders.list {
            if policy::is_due(recorder, &view) && call.begun.insert(recorder.name.clone()) {
                due.push(Arc::clone(recorder));
            }
        }
        for recorder in due {
            self.begin(&view, &recorder, cx);
        }
        for session in self.of_call(key) {
            self.with(session, cx, |client, session, cx| {
                session.view = Arc::clone(&view);
                session.last_view = Arc::clone(&view);
                client.update(session, cx);
            });
        }
    }

    fn call_over(&mut self, view: &Arc<CallView>, cx: &mut Context<'_>) {
        for session in self.of_call(view.key) {
            self.with(session, cx, |client, session, cx| {
                session.view = Arc::clone(view);
                client.end(session, cx);
            });
        }
        if let Some(call) = self.calls.remove(&view.key) {
            self.replay_later(call.gone, cx);
        }
    }

    /// The sessions of a call.
    fn of_call(&self, call: u64) -> Vec<u64> {
        self.calls
            .get(&call)
            .map(|call| call.sessions.clone())
            .unwrap_or_default()
    }

    /// Opens a session for a recorder.
    fn begin(
        &mut self,
        view: &Arc<CallView>,
        recorder: &Arc<Recorder>,
        cx: &mut Context<'_>,
    ) -> u64 {
        let carrier = self.carrier_for(view, recorder, cx);
        let mut session = self.new_session(view, recorder, cx);
        let key = session.key;
        session.carrier = carrier;
        session.paused = view.rests;
        if let Some(carrier) = carrier.and_then(|carrier| self.sessions.get_mut(&carrier)) {
            carrier.riders.push(key);
        }
        if let Some(call) = self.calls.get_mut(&view.key) {
            call.sessions.push(key);
            call.dismissed.remove(&recorder.name);
        }
        self.sessions.insert(key, session);
        key
    }

    /// The session takes in how the call is.
    fn update(&mut self, session: &mut RecordingSession, cx: &mut Context<'_>) {
        session.lines_from_view();
        self.seat_lines(session);
        let settings = &session.recorder.settings;
        session
            .story
            .update(&session.view, &session.lines, settings);
        match session.phase {
            Phase::Opening | Phase::Asked => self.open(session, cx),
            Phase::Standing => self.tell(session, cx),
            _ => {}
        }
    }

    /// Takes a session out, lets `act` change it, and puts it back or forgets it.
    fn with<T>(
        &mut self,
        key: u64,
        cx: &mut Context<'_>,
        act: impl FnOnce(&mut Self, &mut RecordingSession, &mut Context<'_>) -> T,
    ) -> Option<T> {
        let mut session = self.sessions.remove(&key)?;
        let result = act(self, &mut session, cx);
        self.settle(session, cx);
        Some(result)
    }

    fn settle(&mut self, mut session: RecordingSession, cx: &mut Context<'_>) {
        if session.is_over() {
            return self.forget(session, cx);
        }
        let due = session.deadline();
        if due != session.scheduled {
            if let Some(old) = session.scheduled {
                self.timers.remove(&(old, session.key));
            }
            if let Some(due) = due {
                self.timers.insert((due, session.key));
            }
            session.scheduled = due;
        }
        let call = session.view.key;
        let recorded = session.records();
        if std::mem::replace(&mut session.recorded, recorded) != recorded {
            self.orders.push((call, Order::Recorded));
        }
        let asks = std::mem::take(&mut session.asks_carrier);
        let gone = session.server_gone.take();
        let carrier = session.carrier.filter(|_| asks || gone.is_some());
        self.sessions.insert(session.key, session);
        self.judge(call, cx);
        if let Some(carrier) = carrier {
            self.ask_carrier(carrier, gone, cx);
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let sessions = self.timers.first().map(|(due, _)| *due);
        let calls = self.calls.values().filter_map(CallRecorders::deadline);
        calls.chain(sessions).chain(self.next_probe()).min()
    }

    /// Lets due timers fire.
    pub fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        while let Some((due, key)) = self.timers.first().copied()
            && due <= cx.now.instant
        {
            self.timers.pop_first();
            self.with(key, cx, |client, session, cx| {
                session.scheduled = None;
                client.session_timeout(session, cx);
            });
        }
        self.grace_timeouts(cx);
        self.probe(cx);
    }

    fn session_timeout(&mut self, session: &mut RecordingSession, cx: &mut Context<'_>) {
        let now = cx.now.instant;
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(session.answer_deadline()) {
            self.attempt_silent(session, cx);
        }
        if due(session.retry_at) {
            session.retry_at = None;
            match session.phase {
                Phase::Lost => self.next_round(session, cx),
                Phase::Standing => self.tell(session, cx),
                _ => {}
            }
        }
        self.expire_batches(session, cx);
        self.session_timer(session, cx);
        if due(session.end_deadline) {
            session.phase = Phase::Over;
        }
    }

    /// Whether a client transaction is one of ours.
    pub fn owns_client(&self, tx: ClientTx) -> bool {
        self.clients.contains_key(&tx) || self.abandoned.contains_key(&tx) || self.is_probe(tx)
    }

    /// A response to a request of ours.
    pub fn on_response(
        &mut self,
        tx: ClientTx,
        response: &Response,
        path: Path,
        cx: &mut Context<'_>,
    ) {
        if self.abandoned.contains_key(&tx) {
            return self.on_late_response(tx, response, cx);
        }
        let Some((key, purpose)) = self.clients.get(&tx).copied() else {
            if response.is_final() {
                self.on_probed(tx, response.status, cx);
            }
            return;
        };
        if response.is_final() && purpose != Use::Invite && purpose != Use::Change {
            self.clients.remove(&tx);
        }
        self.with(key, cx, |client, session, cx| match purpose {
            Use::Invite => client.on_invite_response(session, tx, response, path, cx),
            Use::Change => client.on_change_response(session, tx, response, cx),
            Use::Refresh => client.on_refresh_response(session, response, cx),
            Use::Bye if response.is_final() => session.phase = Phase::Over,
            Use::Message if response.is_final() => {
                client.on_message_answered(session, tx, response.status, cx);
            }
            Use::Bye | Use::Message => {}
        });
    }

    /// A request of ours got no answer (408) or could not be sent (503).
    pub fn on_failure(&mut self, tx: ClientTx, status: u16, cx: &mut Context<'_>) {
        self.abandoned.remove(&tx);
        let Some((key, purpose)) = self.clients.remove(&tx) else {
            self.on_probed(tx, status, cx);
            return;
        };
        self.with(key, cx, |client, session, cx| match purpose {
            Use::Invite => client.attempt_failed(session, tx, status, None, cx),
            Use::Change => client.change_unanswered(session, tx, status, cx),
            Use::Refresh => client.lost(session, "the session was not refreshed", false, cx),
            Use::Bye => session.phase = Phase::Over,
            Use::Message => client.on_message_answered(session, tx, status, cx),
        });
    }

    /// Whether a dialog is one of ours.
    pub fn owns_dialog(&self, id: &DialogId) -> bool {
        self.dialogs.contains_key(id)
    }

    /// A request of a recorder inside a dialog of ours.
    pub fn on_request(&mut self, tx: ServerTx, request: Request, path: Path, cx: &mut Context<'_>) {
        let key = DialogId::of_request(&request).and_then(|id| self.dialogs.get(&id).copied());
        if let Some(key) = key {
            self.with(key, cx, |client, session, cx| {
                client.on_dialog_request(session, tx, request, path, cx);
            });
        }
    }

    /// Whether a server transaction is one of ours.
    pub fn owns_server(&self, tx: ServerTx) -> bool {
        self.servers.contains_key(&tx)
    }

    /// An ACK; true when it belongs to a session of ours.
    pub fn on_ack(
        &mut self,
        invite: Option<ServerTx>,
        request: &Request,
        cx: &mut Context<'_>,
    ) -> bool {
        let by_server = invite.and_then(|tx| self.servers.get(&tx).copied());
        let by_dialog =
            || DialogId::of_request(request).and_then(|id| self.dialogs.get(&id).copied());
        let Some(key) = by_server.or_else(by_dialog) else {
            return false;
        };
        self.with(key, cx, |client, session, cx| {
            client.on_session_ack(session, invite, request, cx);
        });
        true
    }

    /// Our 2xx to a recorder's INVITE was never acknowledged.
    pub fn on_no_ack(&mut self, tx: ServerTx, cx: &mut Context<'_>) {
        if let Some(key) = self.servers.get(&tx).copied() {
            self.with(key, cx, |client, session, cx| {
                client.lost(session, "no ACK", false, cx);
            });
        }
    }

    /// Whether a call has or had recording sessions.
    pub fn knows_call(&self, call: u64) -> bool {
        self.calls.contains_key(&call) || self.left.contains_key(&call)
    }

    /// Whether a session on the link is one of ours.
    pub fn owns_session(&self, key: u64) -> bool {
        self.sessions.contains_key(&key)
    }

    /// Sessions of an earlier control: each goes on with its call.
    pub fn left_behind(&mut self, left: impl Iterator<Item = Left>) {
        for one in left {
            self.left.entry(one.call).or_default().push(one);
        }
    }

    /// Sessions on the link whose calls did not come back.
    pub fn take_unclaimed(&mut self) -> Vec<u64> {
        let left = std::mem::take(&mut self.left);
        left.into_values().flatten().map(|one| one.key()).collect()
    }

    /// Whether a name is looked up for a session of ours.
    pub fn owns_lookup(&self, key: u64) -> bool {
        self.sessions.contains_key(&key)
    }

    /// What was asked of calls meanwhile.
    pub fn take_orders(&mut self) -> Vec<(u64, Order)> {
        std::mem::take(&mut self.orders)
    }

    /// No session is left to be ended.
    pub fn is_idle(&self) -> bool {
        self.sessions.is_empty()
    }

    fn own_client(&mut self, session: &mut RecordingSession, tx: ClientTx, purpose: Use) {
        if session.clients.len() >= OWNED_MAX {
            let known = &self.clients;
            session.clients.retain(|tx| known.contains_key(tx));
        }
        session.clients.push(tx);
        self.clients.insert(tx, (session.key, purpose));
    }

    fn own_server(&mut self, session: &mut RecordingSession, tx: ServerTx) {
        if session.servers.len() >= OWNED_MAX {
            for old in session.servers.drain(..OWNED_MAX / 2) {
                self.servers.remove(&old);
            }
        }
        session.servers.push(tx);
        self.servers.insert(tx, session.key);
    }

    fn forget(&mut self, mut session: RecordingSession, cx: &mut Context<'_>) {
        if let Some(old) = session.scheduled {
            self.timers.remove(&(old, session.key));
        }
        for tx in &session.clients {
            self.clients.remove(tx);
        }
        for tx in &session.servers {
            self.servers.remove(tx);
        }
        self.leave_dialog(&mut session);
        self.riders_stranded(&session, cx);
        let carrier = session.carrier.and_then(|key| self.sessions.get_mut(&key));
        if let Some(carrier) = carrier {
            carrier.vacate(session.key);
        }
        self.requests.retain(|_, (key, _)| *key != session.key);
        self.close(&mut session, cx);
        if let Some(call) = self.calls.get_mut(&session.view.key) {
            call.sessions.retain(|key| *key != session.key);
            call.over(&session);
        }
        self.finish(session, cx);
    }

    fn leave_dialog(&mut self, session: &mut RecordingSession) {
        if let Some(dialog) = session.leg.take().and_then(|leg| leg.dialog) {
            self.dialogs.remove(&dialog.id());
        }
    }
}
