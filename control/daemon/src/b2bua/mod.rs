//! The B2BUA: every call of the appliance, sans-IO.
//!
//! Inputs are SIP messages, link events, API requests and time; outputs are SIP transmits (taken from
//! [`B2bua::endpoint`]), link commands, catalog writes and published events. One call's way:
//!
//! ```text
//! INVITE in ─ invite.rs: judged, routed ─ SessionOpen + LegUpdate ─► INVITE out
//! 18x / 2xx ─ response.rs, answer.rs ─ LegUpdate (+ RecordingStart) ─► ACK out, 18x / 2xx to the caller
//! re-INVITE, UPDATE, INFO ─ dialog.rs, reoffer.rs, passage.rs ─ passed to the other side, media updated on its 2xx
//! REFER, Replaces ─ transfer/ ─ somebody else takes a side, by a re-INVITE of ours (own_offer.rs) if need be
//! BYE, CANCEL, hang-up, limits ─ end.rs ─ both legs down, recording finished, session closed
//! ```

mod actions;
mod alerts;
mod answer;
mod asking;
mod awareness;
mod bodies;
mod dialog;
mod digits;
mod end;
mod failover;
pub mod headers;
mod invite;
mod link_events;
mod loops;
mod media_facts;
mod numbers;
mod outgoing;
mod own_offer;
mod passage;
mod persist;
mod record;
mod recorders;
mod reliable;
mod reoffer;
mod response;
pub(crate) mod session;
mod session_id;
mod sounding;
mod sources;
mod srs;
mod targets;
mod transfer;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use trunkline_config::{Config, Sound};
use trunkline_link::message::{Command, Side};
use trunkline_sinks::object;
use trunkline_sip::dialog::DialogId;
use trunkline_sip::message::{Message, Request, Response, Uri, bracketed};
use trunkline_sip::transaction::{ClientTx, Endpoint, Event, FlowId, ServerTx, Transport, TxId};
use trunkline_sn3::proof::Signer;

use crate::api::events::{EventHub, EventKind, Subject};
use crate::call::{Batch, Call, Step};
use crate::clock::Moment;
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::siprec::client::Client;
use crate::sounds::Voices;
use loops::Loops;
use sources::Sources;

pub use link_events::RecoveredPlace;
pub(crate) use numbers::lowest_at;

/// No answer of the dataplane by then is a failure.
const LINK_PATIENCE: Duration = Duration::from_secs(5);
/// A call that is being torn down is over by then, whatever is missing. Longer than a BYE's timer F.
const END_PATIENCE: Duration = Duration::from_secs(40);
/// Transactions that a call remembers; older ones have ended long ago.
const OWNED_MAX: usize = 32;
/// Seconds that a caller is asked to wait when the whole appliance refuses calls.
const RETRY_AFTER_S: &str = "5";

/// What a client transaction of ours is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClientUse {
    /// The INVITE that sets up a call.
    Invitation,
    /// A request passed on towards this side.
    Passage(Side),
    /// A BYE to this side.
    Bye(Side),
    /// A NOTIFY of how a transfer goes.
    Notify,
    /// A BYE to a leg that was transferred away.
    Departure,
    /// A re-INVITE of ours to this side.
    OwnOffer(Side),
    /// An UPDATE of ours that refreshes this side's session.
    Refresh(Side),
    /// A re-INVITE without an offer to a recording client, which refreshes its session.
    ClientOffer,
    /// A digit by INFO to this side.
    Digit(Side),
    /// A re-INVITE to a party of another call, which is to come to this one.
    Consultation {
        /// That call.
        call: u64,
        /// The party's side there.
        side: Side,
    },
}

/// What a call that rings a transfer's target reports.
struct Reported {
    /// The call that is transferred.
    to: u64,
    /// Who reports.
    by: u64,
    /// The target's leg as the API shows it.
    leg: Option<object::Leg>,
    news: crate::call::transfer::News,
}

/// A change for the catalog.
#[derive(Debug, Clone)]
pub enum CatalogWrite {
    /// A call as it is now.
    Call(object::Call),
    /// A recording as it is now, with its place on disk.
    Recording(crate::call::recording::Recording),
    /// A recording that nobody asked to keep has ended: it is to be discarded.
    DiscardUnkept,
}

/// Where a host name leads, to be looked up by the caller of this library (RFC 3263).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    /// The call that waits for it.
    pub call: u64,
    /// Host name.
    pub host: String,
    /// Port, where the URI names one.
    pub port: Option<u16>,
    /// Transport, where the URI names one.
    pub transport: Option<Transport>,
}

/// One place that a host name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// Transport.
    pub transport: Transport,
    /// Address and port.
    pub address: SocketAddr,
}

/// Our addresses towards a destination.
pub type LocalTo = Box<LocalAddresses>;
pub(crate) type LocalAddresses =
    dyn Fn(Transport, SocketAddr) -> Option<(Option<FlowId>, SocketAddr)> + Send + Sync;

/// The B2BUA.
pub struct B2bua {
    config: Arc<Config>,
    /// The transaction layer; its transmits are to be sent by the caller.
    pub endpoint: Endpoint,
    local_to: Arc<LocalAddresses>,
    events: EventHub,
    /// Boxed: they are large, and the table grows by doubling.
    calls: HashMap<u64, Box<Call>>,
    /// How many of them are not over.
    active: usize,
    /// Calls by API id.
    ids: HashMap<String, u64>,
    dialogs: HashMap<DialogId, (u64, Side)>,
    clients: HashMap<ClientTx, (u64, ClientUse)>,
    servers: HashMap<ServerTx, u64>,
    requests: HashMap<u64, (u64, u64)>,
    next_request: u64,
    timers: BTreeSet<(Instant, u64)>,
    commands: Vec<(u64, Command)>,
    writes: Vec<CatalogWrite>,
    lookups: Vec<Lookup>,
    replays: Vec<crate::replay::Order>,
    /// Records of the legs, and what hooks are told.
    pub ledger: Ledger,
    draining: bool,
    dataplane_up: bool,
    alarms: BTreeSet<u16>,
    /// Start of the second in which calls are counted, and how many came in it.
    rate: Option<(Instant, u32)>,
    calls_max: u32,
    /// Sessions that a snapshot has shown so far.
    snapshot: Vec<trunkline_link::message::SnapshotSession>,
    snapshot_request: u64,
    /// Sessions that were there when it was asked for.
    snapshot_of: HashSet<u64>,
    numbers: numbers::RecordingNumbers,
    /// Recordings that a dataplane's death left to be counted, and whether they are closed then.
    recounting: HashMap<u64, bool>,
    /// What was said meanwhile of sessions that are not restored yet.
    unread: Vec<trunkline_link::message::Event>,
    /// For calls that were being worked on when it was reported.
    reports: Vec<Reported>,
    metrics: Arc<Metrics>,
    /// Recording sessions of ours.
    siprec: Client,
    /// Recording sessions that clients had with us and that are over, newest last.
    served: std::collections::VecDeque<crate::siprec::session::Session>,
    /// Recordings of recording sessions that are over, and may go on in others.
    ended_recordings: std::collections::VecDeque<srs::Ended>,
    /// Recordings that are being closed, and the sessions in which they are to go on.
    awaiting_close: Vec<(u64, u64)>,
    /// Signs the receipts of finished recordings.
    signer: Option<Arc<Signer>>,
    loops: Loops,
    sources: Sources,
    /// What parties may hear of their recording, once it is ready.
    sounds: HashMap<Sound, Voices>,
    /// Numbers of the sounds that the dataplane has.
    loaded: HashSet<u64>,
    /// Dialogs of late answers that were sent a BYE, until when they may be repeated.
    late_answers: HashMap<DialogId, Instant>,
}

impl B2bua {
    /// Receipts are signed from now on, or not.
    pub fn sign_with(&mut self, signer: Option<Arc<Signer>>) {
        self.signer = signer;
    }

    /// An appliance without calls. `calls_max` is the configured limit or what fits.
    pub fn new(
        config: Arc<Config>,
        mut endpoint: Endpoint,
        local_to: LocalTo,
        events: EventHub,
        metrics: Arc<Metrics>,
        calls_max: u32,
    ) -> Self {
        let ledger = Ledger::new(config.cdr.interim_minutes);
        let local_to: Arc<LocalAddresses> = local_to.into();
        let streams = Arc::clone(&local_to);
        endpoint.use_streams(Box::new(move |remote| {
            streams(Transport::Tcp, remote).map(|(_, local)| local)
        }));
        Self {
            config,
            ledger,
            endpoint,
            local_to,
            events,
            calls: HashMap::new(),
            active: 0,
            ids: HashMap::new(),
            dialogs: HashMap::new(),
            clients: HashMap::new(),
            servers: HashMap::new(),
            requests: HashMap::new(),
            next_request: 1,
            timers: BTreeSet::new(),
            commands: Vec::new(),
            writes: Vec::new(),
            lookups: Vec::new(),
            replays: Vec::new(),
            draining: false,
            dataplane_up: false,
            alarms: BTreeSet::new(),
            rate: None,
            calls_max,
            snapshot: Vec::new(),
            snapshot_request: 0,
            snapshot_of: HashSet::new(),
            numbers: numbers::RecordingNumbers::default(),
            recounting: HashMap::new(),
            unread: Vec::new(),
            reports: Vec::new(),
            metrics,
            siprec: Client::default(),
            served: std::collections::VecDeque::new(),
            ended_recordings: std::collections::VecDeque::new(),
            awaiting_close: Vec::new(),
            signer: None,
            loops: Loops::default(),
            sources: Sources::default(),
            sounds: HashMap::new(),
            loaded: HashSet::new(),
            late_answers: HashMap::new(),
        }
    }

    /// The dataplane says how many calls fit; without a configured limit that is the limit.
    pub fn set_capacity(&mut self, calls: u32) {
        if self.config.sip.calls_max.is_none() {
            self.calls_max = calls;
        }
    }

    /// Commands for the dataplane, in order.
    pub fn take_commands(&mut self) -> Vec<(u64, Command)> {
        std::mem::take(&mut self.commands)
    }

    /// Changes for the catalog, in order.
    pub fn take_writes(&mut self) -> Vec<CatalogWrite> {
        std::mem::take(&mut self.writes)
    }

    /// Host names to look up; answer with [`Self::looked_up`].
    pub fn take_lookups(&mut self) -> Vec<Lookup> {
        std::mem::take(&mut self.lookups)
    }

    /// What replays are told, in order; they answer with [`Self::on_replay`].
    pub fn take_replays(&mut self) -> Vec<crate::replay::Order> {
        std::mem::take(&mut self.replays)
    }

    /// Whether a message of a source is to be dropped; it is counted. `read` gives the message, and is
    /// called for sources that are ignored only.
    pub fn ignores(
        &mut self,
        source: std::net::IpAddr,
        read: impl FnOnce() -> Option<Message>,
        now: &Moment,
    ) -> bool {
        let banned =
            self.config.sip.ban_after.is_some() && self.sources.is_banned(source, now.instant);
        let ignored = banned && !read().is_some_and(|message| self.is_of_a_call(&message));
        if ignored {
            self.metrics.banned_dropped();
        }
        ignored
    }

    /// Calls that are not over.
    pub fn calls_active(&self) -> usize {
        self.active
    }

    /// Whether nothing is left to be done: no call, no recording on its way to the disk.
    pub fn is_idle(&self) -> bool {
        self.calls.is_empty() && self.siprec.is_idle()
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let own = self.timers.first().map(|(due, _)| *due);
        let others = [
            self.endpoint.poll_timeout(),
            self.ledger.poll_timeout(),
            self.siprec.poll_timeout(),
        ];
        others.into_iter().chain([own]).flatten().min()
    }

    /// Lets due timers fire.
    pub fn handle_timeout(&mut self, now: &Moment) {
        self.endpoint.handle_timeout(now.instant);
        self.handle_sip_events(now);
        while let Some((due, key)) = self.timers.first().copied()
            && due <= now.instant
        {
            self.timers.pop_first();
            self.with_call(key, now, |b2bua, call| {
                call.scheduled = None;
                b2bua.call_timeout(call, now);
            });
        }
        let (client, mut context) = self.recorders(now);
        client.handle_timeout(&mut context);
        while let Some(key) = self.ledger.take_due(now) {
            if let Some(call) = self.calls.get(&key) {
                self.ledger.interim(call, now);
            }
        }
        self.handle_sip_events(now);
    }

    /// Works off what the transaction layer has to say; call it after every input to it.
    pub fn handle_sip_events(&mut self, now: &Moment) {
        while let Some(event) = self.endpoint.poll_event() {
            match event {
                Event::Request { tx, request, path } => self.on_request(tx, request, path, now),
                Event::Cancel { invite, .. } if self.siprec.owns_server(invite) => {
                    let (client, mut context) = self.recorders(now);
                    client.on_cancel(invite, &mut context);
                }
                Event::Cancel { invite, cancel } => {
                    self.with_server(invite, now, |b2bua, call| {
                        b2bua.on_cancel(call, invite, &cancel, now)
                    });
                }
                Event::Ack {
                    invite, request, ..
                } => self.on_ack(invite, &request, now),
                Event::Response { tx, response, path } if self.siprec.owns_client(tx) => {
                    self.recorder_response(tx, &response, path, now);
                }
                Event::Response { tx, response, path } => {
                    self.with_client(tx, now, |b2bua, call, client| {
                        b2bua.on_response(call, tx, client, response, path, now);
                    });
                }
                Event::Timeout { tx } => self.on_client_failure(tx, 408, now),
                Event::TransportError { tx } => self.on_client_failure(tx, 503, now),
                // Only a 2xx without ACK ends the call: a refusal needs nothing more.
                Event::NoAck { tx, .. } if self.siprec.owns_server(tx) => {
                    let (client, mut context) = self.recorders(now);
                    client.on_no_ack(tx, &mut context);
                }
                Event::NoAck { tx, status } if (200..300).contains(&status) => {
                    self.with_server(tx, now, |b2bua, call| b2bua.on_no_ack(call, tx, now));
                }
                Event::NoAck { .. } => {}
                Event::NoPrack { tx, .. } => {
                    self.with_server(tx, now, |b2bua, call| b2bua.on_no_prack(call, now));
                }
                Event::StrayResponse { response, path } => self.on_stray_2xx(&response, path, now),
                Event::Unanswered { tx } => {
                    self.servers.remove(&tx);
                }
            }
        }
        self.deliver_orders(now);
    }

    /// Takes a call out, lets `act` change it, and puts it back or forgets it when it is over.
    fn with_call(
        &mut self,
        key: u64,
        now: &Moment,
        act: impl FnOnce(&mut Self, &mut Call),
    ) -> bool {
        let Some(mut call) = self.calls.remove(&key) else {
            return false;
        };
        act(self, &mut call);
        self.settle(call, now);
        true
    }

    /// Puts a call back (or forgets it) with its timer set.
    fn settle(&mut self, mut call: Box<Call>, now: &Moment) {
        self.indicate(&mut call, now);
        self.sound(&mut call, now);
        if self.finish_if_over(&mut call, now) {
            self.recorders_follow(&call, now);
            self.forget(&call);
            return self.deliver_reports(now);
        }
        self.recorders_follow(&call, now);
        let due = call.deadline();
        if due != call.scheduled {
            if let Some(old) = call.scheduled {
                self.timers.remove(&(old, call.key));
            }
            if let Some(due) = due {
                self.timers.insert((due, call.key));
            }
            call.scheduled = due;
        }
        self.calls.insert(call.key, call);
        self.deliver_reports(now);
    }

    fn forget(&mut self, call: &Call) {
        if let Some(old) = call.scheduled {
            self.timers.remove(&(old, call.key));
        }
        if call.transfer_of.is_none() {
            self.ids.remove(&call.object.id);
        }
        let departing = call.departing.iter().map(|one| &one.leg);
        for dialog in call
            .legs
            .iter()
            .chain(departing)
            .filter_map(|leg| leg.dialog.as_ref())
        {
            self.dialogs.remove(&dialog.id());
        }
        for dialog in call.branches.iter().flat_map(|branch| &branch.early) {
            self.dialogs.remove(&dialog.id());
        }
        self.reports.retain(|one| one.to != call.key);
        for server in &call.servers {
            self.servers.remove(server);
        }
        for client in &call.clients {
            self.clients.remove(client);
        }
    }

    /// Events of this transaction concern the call.
    fn own_client(&mut self, call: &mut Call, client: ClientTx, purpose: ClientUse) {
        // Only those that still lead here are kept: a long call has many.
        if call.clients.len() >= OWNED_MAX {
            call.clients
                .retain(|known| self.clients.contains_key(known));
        }
        call.clients.push(client);
        self.clients.insert(client, (call.key, purpose));
    }

    /// Events of this transaction concern the call.
    fn own_server(&mut self, call: &mut Call, server: ServerTx) {
        if call.servers.len() >= OWNED_MAX {
            let old = call.servers.len() / 2;
            for server in call.servers.drain(..old) {
                self.servers.remove(&server);
            }
        }
        call.servers.push(server);
        self.servers.insert(server, call.key);
    }

    fn with_server(
        &mut self,
        tx: ServerTx,
        now: &Moment,
        act: impl FnOnce(&mut Self, &mut Call),
    ) -> bool {
        match self.servers.get(&tx).copied() {
            Some(key) => self.with_call(key, now, act),
            None => false,
        }
    }

    fn with_client(
        &mut self,
        tx: ClientTx,
        now: &Moment,
        act: impl FnOnce(&mut Self, &mut Call, ClientUse),
    ) -> bool {
        match self.clients.get(&tx).copied() {
            Some((key, client)) => self.with_call(key, now, |b2bua, call| act(b2bua, call, client)),
            None => false,
        }
    }

    /// Answers a request; a transaction that is gone needs no answer.
    fn respond(&mut self, tx: ServerTx, response: Response, now: &Moment) {
        let _ = self.endpoint.respond(now.instant, tx, response);
    }

    /// Answers a request outside a dialog, with a To tag of ours.
    fn respond_plain(&mut self, tx: ServerTx, request: &Request, status: u16, now: &Moment) {
        self.respond_with(tx, request, status, &[], now);
    }

    fn respond_with(
        &mut self,
        tx: ServerTx,
        request: &Request,
        status: u16,
        headers: &[(&str, &str)],
        now: &Moment,
    ) {
        let mut response = Response::to(request, status).with("Server", headers::SERVER);
        response.set_to_tag(&self.endpoint.new_tag());
        for (name, value) in headers {
            response.headers.append(name, value);
        }
        self.respond(tx, response, now);
    }

    /// Sends commands whose answers lead to `then`. An empty batch leads there at once.
    fn batch(&mut self, call: &mut Call, commands: Vec<Command>, then: Step, now: &Moment) {
        let id = call.next_batch;
        call.next_batch += 1;
        let batch = Batch {
            id,
            open: commands.len(),
            failed: None,
            deadline: now.instant + LINK_PATIENCE,
            then,
        };
        if commands.is_empty() {
            return self.step(call, batch.then, None, now);
        }
        call.batches.push(batch);
        for command in commands {
            let request = self.next_request;
            self.next_request += 1;
            self.requests.insert(request, (call.key, id));
            self.commands.push((request, command));
        }
    }

    /// Sends commands whose answers do not matter.
    fn command(&mut self, command: Command) {
        let request = self.next_request;
        self.next_request += 1;
        self.commands.push((request, command));
    }

    fn publish_call(&mut self, kind: EventKind, call: &Call, now: &Moment) {
        if !call.is_shown() {
            // It is a leg of the call that it rings for, or no call.
            return;
        }
        self.events
            .publish(kind, now.utc, &Subject::Call(&call.object));
        self.writes.push(CatalogWrite::Call(call.object.clone()));
        match kind {
            EventKind::CallBridged => self.ledger.bridged(call),
            // One that captures early media begins for hooks at the answer.
            EventKind::CallAnswered => {
                for recording in call.recordings.iter().filter(|one| one.is_capturing()) {
                    self.ledger.recording_begun(call, recording);
                }
            }
            _ => {}
        }
    }

    /// The transport failed to send what belonged to this transaction.
    pub fn transport_failed(&mut self, origin: TxId, now: &Moment) {
        self.endpoint.transport_failed(now.instant, origin);
        self.handle_sip_events(now);
    }

    /// Our Contact on a leg.
    fn contact(user: Option<&str>, transport: Transport, local: SocketAddr) -> Option<Uri> {
        let host = local.ip().to_string();
        let uri = Uri::sip(user, &bracketed(&host), Some(local.port())).ok()?;
        Some(match transport {
            Transport::Udp => uri,
            other => uri.with_param("transport", Some(other.param_name())),
        })
    }
}
