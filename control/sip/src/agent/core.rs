//! The agent: bytes and time in, bytes and events out, everything dispatched to its dialog.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::alarms::{Alarms, Subject};
use super::event::{AgentEvent, End, EndCause, EndedBy, EventKind};
use super::hunt::Hunt;
use super::leg::Leg;
use super::outgoing::Attempt;
use super::refer::Subscription;
use super::request::{Received, Sent};
use super::types::{
    AgentConfig, AgentError, AttemptHandle, DialogHandle, HuntHandle, RequestHandle,
    SubscriptionHandle,
};
use super::view::DialogView;
use crate::dialog::DialogId;
use crate::message::{Headers, Message, Method, Reason, Rejected, Request, Response, Scheme, Uri};
use crate::transaction::{
    ClientTx, Endpoint, Event, FlowId, Path, ServerTx, Stats, Target, Transmit, Transport, TxId,
};

/// A user agent: places and takes calls, and keeps their dialogs. It opens no socket and reads
/// no clock.
///
/// `C` is the user's own context: it rides on each attempt and dialog, and comes with every
/// event. A call that comes in begins with its default.
///
/// After each call take everything from [`poll_transmit`](Agent::poll_transmit) and
/// [`poll_event`](Agent::poll_event), and call [`handle_timeout`](Agent::handle_timeout) at
/// [`poll_timeout`](Agent::poll_timeout).
#[derive(Debug)]
pub struct Agent<C> {
    pub(super) endpoint: Endpoint,
    pub(super) config: AgentConfig,
    pub(super) random: StdRng,
    last: u64,
    pub(super) legs: HashMap<DialogHandle, Leg<C>>,
    pub(super) by_id: HashMap<DialogId, DialogHandle>,
    pub(super) attempts: HashMap<AttemptHandle, Attempt<C>>,
    pub(super) hunts: HashMap<HuntHandle, Hunt<C>>,
    pub(super) subscriptions: HashMap<SubscriptionHandle, Subscription>,
    pub(super) sent: HashMap<ClientTx, Sent>,
    pub(super) received: HashMap<ServerTx, Received>,
    pub(super) alarms: Alarms,
    events: VecDeque<AgentEvent<C>>,
}

impl<C: Clone + Default> Agent<C> {
    /// An agent without calls.
    ///
    /// # Errors
    /// The Contact is no SIP URI or names the unspecified address (0.0.0.0, ::).
    pub fn new(config: AgentConfig) -> Result<Agent<C>, AgentError> {
        let unspecified = config
            .contact
            .host_ip()
            .is_some_and(|ip| ip.is_unspecified());
        if !config.contact.is_sip() || unspecified {
            return Err(AgentError::Contact);
        }
        let random = match config.transaction.seed {
            Some(seed) => StdRng::seed_from_u64(seed ^ 0x0a6e_0000),
            None => StdRng::from_os_rng(),
        };
        Ok(Agent {
            endpoint: Endpoint::new(config.transaction.clone()),
            config,
            random,
            last: 0,
            legs: HashMap::new(),
            by_id: HashMap::new(),
            attempts: HashMap::new(),
            hunts: HashMap::new(),
            subscriptions: HashMap::new(),
            sent: HashMap::new(),
            received: HashMap::new(),
            alarms: Alarms::default(),
            events: VecDeque::new(),
        })
    }

    /// One datagram (UDP).
    pub fn handle_datagram(&mut self, now: Instant, path: Path, bytes: &[u8]) {
        self.endpoint.handle_datagram(now, path, bytes);
        self.drain(now);
    }

    /// A message from a stream (TCP, TLS).
    pub fn handle_message(&mut self, now: Instant, path: Path, message: Message) {
        self.endpoint.handle_message(now, path, message);
        self.drain(now);
    }

    /// A message from a stream that did not parse: answered where it can be.
    pub fn handle_rejected(&mut self, now: Instant, path: Path, rejected: &Rejected) {
        self.endpoint.handle_rejected(now, path, rejected);
        self.drain(now);
    }

    /// A transmit with this origin could not be sent.
    pub fn transport_failed(&mut self, now: Instant, origin: TxId) {
        self.endpoint.transport_failed(now, origin);
        self.drain(now);
    }

    /// A connection is gone: what awaits its answer on it fails now.
    pub fn flow_closed(&mut self, now: Instant, flow: FlowId, remote: SocketAddr) {
        self.endpoint.flow_closed(now, flow, remote);
        self.drain(now);
    }

    /// Does everything that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.endpoint.handle_timeout(now);
        self.drain(now);
        while let Some(subject) = self.alarms.due(now) {
            match subject {
                Subject::Dialog(dialog) => self.on_dialog_alarm(now, dialog),
                Subject::Attempt(attempt) => self.on_attempt_alarm(now, attempt),
                Subject::Subscription(subscription) => self.on_refer_alarm(now, subscription),
            }
        }
    }

    /// The next bytes to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.endpoint.poll_transmit()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<AgentEvent<C>> {
        self.events.pop_front()
    }

    /// When [`handle_timeout`](Agent::handle_timeout) is due next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let alarms = [self.endpoint.poll_timeout(), self.alarms.next()];
        alarms.into_iter().flatten().min()
    }

    /// What the transaction layer dropped and answered by itself.
    pub fn stats(&self) -> Stats {
        self.endpoint.stats()
    }

    /// Everything alive: dialogs (those that await their last answers included), attempts,
    /// subscriptions, and transactions of both sides. All zero when nothing goes on.
    pub fn alive(&self) -> [usize; 4] {
        let (clients, servers) = self.endpoint.transactions();
        let (dialogs, attempts) = (self.legs.len(), self.attempts.len());
        [
            dialogs,
            attempts,
            self.subscriptions.len(),
            clients + servers,
        ]
    }

    /// All dialogs that are not over, in the order they began.
    pub fn dialogs(&self) -> Vec<DialogHandle> {
        let alive = self.legs.iter().filter(|(_, leg)| !leg.ended);
        let mut handles: Vec<DialogHandle> = alive.map(|(handle, _)| *handle).collect();
        handles.sort_unstable();
        handles
    }

    /// A dialog as it is now.
    ///
    /// # Errors
    /// It has ended, or never was.
    pub fn view(&self, dialog: DialogHandle) -> Result<DialogView, AgentError> {
        self.leg(dialog).map(Leg::view)
    }

    /// The user's context of a dialog.
    ///
    /// # Errors
    /// It has ended, or never was.
    pub fn context(&self, dialog: DialogHandle) -> Result<&C, AgentError> {
        self.leg(dialog).map(|leg| &leg.context)
    }

    /// The user's context of a dialog, to change.
    ///
    /// # Errors
    /// It has ended, or never was.
    pub fn context_mut(&mut self, dialog: DialogHandle) -> Result<&mut C, AgentError> {
        self.leg_mut(dialog).map(|leg| &mut leg.context)
    }

    /// Sends the dialog's requests there from now on, as after a DNS look-up of its next hop.
    ///
    /// # Errors
    /// It has ended, or never was.
    pub fn set_target(&mut self, dialog: DialogHandle, target: Target) -> Result<(), AgentError> {
        let leg = self.leg_mut(dialog)?;
        (leg.target, leg.fixed_target) = (target, true);
        Ok(())
    }

    /// Sets or clears the dialog's timer; its event is [`EventKind::Timer`].
    ///
    /// # Errors
    /// It has ended, or never was.
    pub fn set_timer(
        &mut self,
        dialog: DialogHandle,
        at: Option<Instant>,
    ) -> Result<(), AgentError> {
        self.leg_mut(dialog)?.user_timer = at;
        self.arm(dialog);
        Ok(())
    }

    fn drain(&mut self, now: Instant) {
        while let Some(event) = self.endpoint.poll_event() {
            self.on_event(now, event);
        }
    }

    fn on_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Request { tx, request, path } => self.on_request(now, tx, request, path),
            Event::Cancel { invite, cancel } => self.on_cancel(now, invite, &cancel),
            Event::Ack { request, .. } => self.on_ack(now, &request),
            Event::Response { tx, response, path } => self.on_response(now, tx, response, path),
            Event::Timeout { tx } => self.on_no_response(now, tx, 408),
            Event::TransportError { tx } => self.on_no_response(now, tx, 503),
            Event::NoAck { tx, status } if status < 300 => self.on_no_ack(now, tx),
            Event::NoAck { .. } => {}
            Event::NoPrack { tx, .. } => self.on_no_prack(now, tx),
            Event::Unanswered { tx } => self.on_unanswered(now, tx),
            Event::StrayResponse { response, .. } => self.on_stray(now, &response),
        }
    }

    fn on_request(&mut self, now: Instant, tx: ServerTx, request: Request, path: Path) {
        if request.headers.to_tag().is_some() {
            return self.on_dialog_request(now, tx, request, path);
        }
        match request.method {
            Method::Invite => self.on_invite(now, tx, request, path),
            Method::Options => {
                let mut ok = Response::to(&request, 200).with("Accept", "application/sdp");
                self.add_abilities(&mut ok.headers);
                self.reply(now, tx, ok);
            }
            _ => {
                let mut refusal = Response::to(&request, 405);
                self.add_abilities(&mut refusal.headers);
                self.reply(now, tx, refusal);
            }
        }
    }

    /// A 2xx that no transaction awaits, as after a restart: its dialog acknowledges it.
    fn on_stray(&mut self, now: Instant, response: &Response) {
        let known = DialogId::of_response(response).and_then(|id| self.by_id.get(&id).copied());
        let (Some(handle), Ok(cseq)) = (known, response.headers.cseq()) else {
            return;
        };
        let Some(leg) = self.legs.get(&handle) else {
            return;
        };
        let ack = leg.dialog.ack(cseq.number);
        if let Ok(target) = self.target_of(handle) {
            let _ = self.endpoint.send_stateless(now, ack, &target);
        }
    }

    /// Answers; a transaction that is gone meanwhile needs no answer.
    pub(super) fn reply(&mut self, now: Instant, tx: ServerTx, response: Response) {
        let _ = self.endpoint.respond(now, tx, response);
    }

    pub(super) fn next_number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Ended or Unknown, for a number that leads to nothing.
    pub(super) fn gone(&self, number: u64) -> AgentError {
        if (1..=self.last).contains(&number) {
            AgentError::Ended
        } else {
            AgentError::Unknown
        }
    }

    pub(super) fn leg(&self, dialog: DialogHandle) -> Result<&Leg<C>, AgentError> {
        let leg = self.legs.get(&dialog).filter(|leg| !leg.ended);
        leg.ok_or_else(|| self.gone(dialog.0))
    }

    pub(super) fn leg_mut(&mut self, dialog: DialogHandle) -> Result<&mut Leg<C>, AgentError> {
        let gone = self.gone(dialog.0);
        let leg = self.legs.get_mut(&dialog).filter(|leg| !leg.ended);
        leg.ok_or(gone)
    }

    pub(super) fn add_leg(&mut self, leg: Leg<C>) -> DialogHandle {
        let handle = DialogHandle(self.next_number());
        self.by_id.insert(leg.dialog.id(), handle);
        self.legs.insert(handle, leg);
        handle
    }

    /// Raises an event of a dialog.
    pub(super) fn tell(&mut self, dialog: DialogHandle, kind: EventKind) {
        if let Some(leg) = self.legs.get(&dialog) {
            let (attempt, context) = (leg.attempt, leg.context.clone());
            let dialog = Some(dialog);
            self.events.push_back(AgentEvent {
                attempt,
                dialog,
                context,
                kind,
            });
        }
    }

    /// Raises an event of an attempt without a dialog.
    pub(super) fn tell_attempt(&mut self, attempt: AttemptHandle, kind: EventKind) {
        if let Some(context) = self
            .attempts
            .get(&attempt)
            .map(|attempt| attempt.context.clone())
        {
            self.events.push_back(AgentEvent {
                attempt: Some(attempt),
                dialog: None,
                context,
                kind,
            });
        }
    }

    /// Raises an event of a hunt.
    pub(super) fn tell_hunt(&mut self, context: C, kind: EventKind) {
        self.events.push_back(AgentEvent {
            attempt: None,
            dialog: None,
            context,
            kind,
        });
    }

    /// Ends a dialog for its user: what the peer asked and nobody answered is answered, the
    /// event is raised; the rest is forgotten with the last answer in flight.
    pub(super) fn end(
        &mut self,
        now: Instant,
        dialog: DialogHandle,
        by: EndedBy,
        cause: EndCause,
        reasons: Vec<Reason>,
    ) {
        let Some(leg) = self.legs.get_mut(&dialog).filter(|leg| !leg.ended) else {
            return;
        };
        leg.ended = true;
        leg.dialog.terminate();
        leg.times.ended = Some(now);
        leg.timer = None;
        leg.wishes.clear();
        (leg.retry_at, leg.answer_by, leg.user_timer) = (None, None, None);
        let view = Box::new(leg.view());
        self.refuse_open(now, dialog);
        self.end_subscriptions(dialog);
        self.tell(
            dialog,
            EventKind::Ended(End {
                by,
                cause,
                reasons,
                view,
            }),
        );
        self.settle(now, dialog);
    }

    /// Begins what may begin now, sets the alarm, and forgets a dialog that is quite over.
    pub(super) fn settle(&mut self, now: Instant, dialog: DialogHandle) {
        self.start_wish(now, dialog);
        self.arm(dialog);
        let over = |leg: &Leg<C>| leg.ended && leg.in_flight == 0;
        if self.legs.get(&dialog).is_some_and(over)
            && let Some(leg) = self.legs.remove(&dialog)
        {
            self.by_id.remove(&leg.dialog.id());
        }
    }

    pub(super) fn arm(&mut self, dialog: DialogHandle) {
        let deadline = self.legs.get(&dialog).and_then(Leg::deadline);
        self.alarms.set(Subject::Dialog(dialog), deadline);
    }

    /// Where the dialog's next request goes: the first route or the peer's Contact where it is
    /// an address, else where it was sent before.
    pub(super) fn target_of(&self, dialog: DialogHandle) -> Result<Target, AgentError> {
        let leg = self.legs.get(&dialog).ok_or_else(|| self.gone(dialog.0))?;
        if leg.fixed_target {
            return Ok(leg.target.clone());
        }
        let hop = leg.dialog.next_hop();
        match self.target_for(&hop) {
            Some(mut target) => {
                // A connection that the dialog has is used again.
                if target.transport == leg.target.transport && target.transport.is_reliable() {
                    target.flow = leg.target.flow;
                }
                Ok(target)
            }
            None => Ok(leg.target.clone()),
        }
    }

    /// The target that a URI with an address in it leads to.
    pub(super) fn target_for(&self, uri: &Uri) -> Option<Target> {
        let named = uri.param("transport").map(|name| name.to_ascii_lowercase());
        let transport = match named.as_deref() {
            _ if uri.scheme() == Scheme::Sips => Transport::Tls,
            Some("tcp") => Transport::Tcp,
            Some("tls") => Transport::Tls,
            _ => Transport::Udp,
        };
        let default_port = if transport == Transport::Tls {
            5061
        } else {
            5060
        };
        let remote = SocketAddr::new(uri.host_ip()?, uri.port().unwrap_or(default_port));
        let serves = |local: SocketAddr| local.is_ipv4() == remote.is_ipv4();
        let sockets = &self.config.sockets;
        let socket = sockets
            .iter()
            .find(|socket| socket.transport == transport && serves(socket.local))?;
        let (flow, local) = (socket.flow, socket.local);
        Some(Target::new(transport, flow, local, remote))
    }

    /// Allow and Supported, as in all that says what we can do.
    pub(super) fn add_abilities(&self, headers: &mut Headers) {
        let own = "INVITE, ACK, CANCEL, BYE, PRACK, UPDATE, OPTIONS, REFER, NOTIFY";
        let mut allow = own.to_owned();
        for method in &self.config.methods {
            allow.push_str(", ");
            allow.push_str(method.as_str());
        }
        headers.set("Allow", allow);
        headers.set("Supported", self.supported().join(", "));
    }

    pub(super) fn supported(&self) -> Vec<&'static str> {
        let timer = self.config.session.is_some().then_some("timer");
        ["100rel", "replaces"].into_iter().chain(timer).collect()
    }

    /// The answer to a Require that names what we can't do (RFC 3261 section 8.2.2.3).
    pub(super) fn unsupported(&self, request: &Request) -> Option<Response> {
        let supported = self.supported();
        let unknown = |option: &String| {
            let known = |name: &&str| name.eq_ignore_ascii_case(option);
            !supported.iter().any(known)
        };
        let bad: Vec<String> = request
            .headers
            .require()
            .into_iter()
            .filter(unknown)
            .collect();
        (!bad.is_empty()).then(|| Response::to(request, 420).with("Unsupported", bad.join(", ")))
    }

    /// The dialog of a request that the user has to answer.
    pub(super) fn received_by(&self, handle: RequestHandle) -> Result<&Received, AgentError> {
        let received = self.received.get(&ServerTx(handle.0));
        received.ok_or(AgentError::Ended)
    }
}
