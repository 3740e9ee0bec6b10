//! The world of a B2BUA test: virtual time, two user agents, a dataplane, a network.

mod agent;
mod dataplane;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use trunkline_config::Config;
use trunkline_control::api::events::EventHub;
use trunkline_control::api::handle::{ActionError, RecordingAction, Request, TransferOrder};
use trunkline_control::b2bua::{B2bua, CatalogWrite};
use trunkline_control::clock::Moment;
use trunkline_control::ledger::Told;
use trunkline_control::metrics::Metrics;
use trunkline_control::replay::{Missed, News, Order};
use trunkline_link::message::{Command, Event, LegUpdate, Side};
use trunkline_sinks::Timestamp;
use trunkline_sinks::cdr::Cdr;
use trunkline_sinks::object::{Call, Recording};
use trunkline_sip::message::{Method, parse_datagram};
use trunkline_sip::transaction::{self, Endpoint, FlowId, Path, Transport};

pub use agent::{Agent, Received};
pub use dataplane::{Dataplane, Fork};

pub const US: &str = "127.0.0.1:5060";

/// What the network does to a datagram.
#[derive(Clone, Copy)]
pub struct Fault {
    pub lose: f64,
    pub repeat: f64,
    pub delay_ms: u64,
}

/// A datagram under way: due, order of sending, from, to, bytes.
type Flight = (Duration, u64, SocketAddr, SocketAddr, Vec<u8>);

pub struct World {
    pub b2bua: B2bua,
    pub alice: Agent,
    pub bob: Agent,
    pub carol: Agent,
    /// Another telephone, for a consultation.
    pub dave: Agent,
    pub dataplane: Dataplane,
    /// What was to be written and told of legs, over restarts too.
    pub told: Vec<Told>,
    /// What was to be stored.
    pub writes: Vec<CatalogWrite>,
    pub config: Arc<Config>,
    hub: EventHub,
    start: Instant,
    elapsed: Duration,
    fault: Fault,
    random: rand::rngs::StdRng,
    wire: BinaryHeap<Reverse<Flight>>,
    sent: u64,
    calls: BTreeMap<String, Call>,
    recordings: BTreeMap<String, Recording>,
    /// How often a recording that nobody kept was to be discarded.
    pub discards: usize,
    /// What was to be sent to recorders after calls, and the commands to it.
    pub replays: Vec<Missed>,
    pub replayed: Vec<Command>,
}

pub fn config(text: &str) -> Config {
    Config::parse(text, "test.toml").unwrap_or_else(|errors| panic!("{errors}"))
}

pub fn sdp(address: &str, port: u16) -> String {
    format!(
        "v=0\r\no=- 1 {port} IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\n\
         a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=sendrecv\r\n"
    )
}

fn new_b2bua(config: &Arc<Config>, hub: &EventHub, seed: u64) -> B2bua {
    let settings = transaction::Config {
        secret: Some(5),
        seed: Some(seed),
        ..transaction::Config::default()
    };
    let calls_max = config.sip.calls_max.unwrap_or(1000);
    B2bua::new(
        Arc::clone(config),
        Endpoint::new(settings),
        Box::new(|transport, _| {
            (transport == Transport::Udp).then(|| (Some(FlowId(1)), US.parse().unwrap()))
        }),
        hub.clone(),
        Arc::new(Metrics::default()),
        calls_max,
    )
}

impl World {
    pub fn new(text: &str) -> Self {
        Self::with_faults(
            text,
            Fault {
                lose: 0.0,
                repeat: 0.0,
                delay_ms: 0,
            },
            1,
        )
    }

    pub fn with_faults(text: &str, fault: Fault, seed: u64) -> Self {
        let config = Arc::new(config(text));
        let hub = EventHub::new();
        let mut world = Self {
            b2bua: new_b2bua(&config, &hub, seed),
            alice: Agent::new("127.0.0.1:5080", "alice", seed + 1000),
            bob: Agent::new("127.0.0.1:5070", "bob", seed + 2000),
            carol: Agent::new("127.0.0.1:5071", "carol", seed + 3000),
            dave: Agent::new("127.0.0.1:5072", "dave", seed + 4000),
            dataplane: Dataplane::default(),
            told: Vec::new(),
            writes: Vec::new(),
            config,
            hub,
            start: Instant::now(),
            elapsed: Duration::ZERO,
            fault,
            random: rand::rngs::StdRng::seed_from_u64(seed),
            wire: BinaryHeap::new(),
            sent: 0,
            calls: BTreeMap::new(),
            recordings: BTreeMap::new(),
            discards: 0,
            replays: Vec::new(),
            replayed: Vec::new(),
        };
        world.b2bua.attached();
        world.flush();
        world
    }

    pub fn now(&self) -> Instant {
        self.start + self.elapsed
    }

    pub fn moment(&self) -> Moment {
        let ms = i64::try_from(self.elapsed.as_millis()).unwrap();
        Moment {
            instant: self.now(),
            mono_ns: 1_000_000_000 + u64::try_from(self.elapsed.as_nanos()).unwrap(),
            utc: Timestamp(1_700_000_000_000 + ms),
        }
    }

    /// Lets everything happen for some virtual milliseconds.
    pub fn run(&mut self, ms: u64) {
        let end = self.elapsed + Duration::from_millis(ms);
        while self.step(end) {}
        self.elapsed = end;
    }

    /// Runs until something is there, at most for some virtual milliseconds.
    pub fn until<T>(&mut self, ms: u64, mut look: impl FnMut(&mut Self) -> Option<T>) -> Option<T> {
        let end = self.elapsed + Duration::from_millis(ms);
        loop {
            self.flush();
            if let Some(found) = look(self) {
                self.flush();
                return Some(found);
            }
            if !self.step(end) {
                return None;
            }
        }
    }

    fn agents(&mut self) -> [&mut Agent; 4] {
        [
            &mut self.alice,
            &mut self.bob,
            &mut self.carol,
            &mut self.dave,
        ]
    }

    /// The next thing that happens before `end`.
    fn step(&mut self, end: Duration) -> bool {
        self.flush();
        let own = self.b2bua.poll_timeout();
        let agents = self.agents();
        let timers = agents
            .into_iter()
            .filter_map(|one| one.endpoint.poll_timeout());
        let timer = timers.chain(own).min();
        let timer = timer.map(|at| at.saturating_duration_since(self.start));
        let arrival = self.wire.peek().map(|Reverse(first)| first.0);
        let Some(next) = [timer, arrival].into_iter().flatten().min() else {
            return false;
        };
        if next > end {
            return false;
        }
        self.elapsed = self.elapsed.max(next);
        if arrival == Some(next)
            && let Some(Reverse((_, _, from, to, bytes))) = self.wire.pop()
        {
            self.deliver(from, to, &bytes);
        } else {
            let now = self.moment();
            self.b2bua.handle_timeout(&now);
            for agent in self.agents() {
                agent.timeout(now.instant);
            }
        }
        self.flush();
        true
    }

    fn deliver(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let now = self.moment();
        let path = Path {
            transport: Transport::Udp,
            flow: FlowId(1),
            local: to,
            source: from,
        };
        if let Some(agent) = self.agents().into_iter().find(|one| one.address == to) {
            return agent.receive(path, bytes, now.instant);
        }
        if self
            .b2bua
            .ignores(from.ip(), || parse_datagram(bytes).ok(), &now)
        {
            return;
        }
        self.b2bua
            .endpoint
            .handle_datagram(now.instant, path, bytes);
        self.b2bua.handle_sip_events(&now);
    }

    fn flush(&mut self) {
        let now = self.moment();
        let ours: SocketAddr = US.parse().unwrap();
        loop {
            let commands = self.b2bua.take_commands();
            if commands.is_empty() {
                break;
            }
            for event in self.dataplane.take(commands, now.mono_ns) {
                self.b2bua.on_link_event(event, &now);
            }
        }
        self.replay(&now);
        while let Some(transmit) = self.b2bua.endpoint.poll_transmit() {
            self.transmit(ours, transmit.remote, &transmit.bytes);
        }
        let mut sent = Vec::new();
        for agent in self.agents() {
            while let Some(transmit) = agent.endpoint.poll_transmit() {
                sent.push((agent.address, transmit));
            }
        }
        for (from, transmit) in sent {
            self.transmit(from, transmit.remote, &transmit.bytes);
        }
        self.told.extend(self.b2bua.ledger.take());
        for write in self.b2bua.take_writes() {
            self.writes.push(write.clone());
            match write {
                CatalogWrite::Call(call) => {
                    self.calls.insert(call.id.clone(), call);
                }
                CatalogWrite::Recording(recording) => {
                    self.recordings
                        .insert(recording.object.id.clone(), recording.object);
                }
                CatalogWrite::DiscardUnkept => self.discards += 1,
            }
        }
    }

    /// Does as a replay does: it gives ports and obeys.
    fn replay(&mut self, now: &Moment) {
        loop {
            let orders = self.b2bua.take_replays();
            if orders.is_empty() {
                return;
            }
            for order in orders {
                let (request, command) = match order {
                    Order::Begin(missed) => {
                        self.replays.push(missed);
                        continue;
                    }
                    Order::Command { request, command } => (request, command),
                };
                let event = match &command {
                    Command::SessionOpen(open) => Event::SessionOpened {
                        request,
                        session: open.session,
                        worker: 0,
                        ports: vec![[30_000, 30_002]; open.media.len()],
                    },
                    _ => Event::Done { request },
                };
                self.replayed.push(command);
                self.b2bua.on_replay(News::Link(event), now);
            }
        }
    }

    fn transmit(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let copies = if self.random.random_bool(self.fault.repeat) {
            2
        } else {
            1
        };
        for _ in 0..copies {
            if self.random.random_bool(self.fault.lose) {
                continue;
            }
            let delay =
                Duration::from_millis(1 + self.random.random_range(0..=self.fault.delay_ms));
            self.sent += 1;
            self.wire.push(Reverse((
                self.elapsed + delay,
                self.sent,
                from,
                to,
                bytes.to_vec(),
            )));
        }
    }

    pub fn invite(&mut self, uri: &str, sdp: Option<&str>) -> usize {
        self.invite_with(uri, sdp, &[])
    }

    pub fn invite_with(&mut self, uri: &str, sdp: Option<&str>, headers: &[(&str, &str)]) -> usize {
        let now = self.now();
        self.alice
            .invite(uri, US.parse().unwrap(), sdp, headers, now)
    }

    /// A request of alice's outside any dialog.
    pub fn outside(&mut self, method: Method, headers: &[(&str, &str)]) -> usize {
        let now = self.now();
        self.alice
            .outside(method, US.parse().unwrap(), headers, now)
    }

    /// An answered call between the two.
    pub fn establish(&mut self) {
        let alice = self.invite("sip:bob@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
        self.run(50);
        let invite = self.bob.take_invite().expect("an INVITE");
        let now = self.now();
        self.bob
            .respond(&invite, 200, Some(&sdp("127.0.0.1", 7000)), now);
        self.run(50);
        let now = self.now();
        self.alice.ack(alice, now);
        self.run(50);
    }

    pub fn live_calls(&mut self) -> Vec<Call> {
        let (reply, mut answer) = tokio::sync::oneshot::channel();
        let now = self.moment();
        self.b2bua.on_api_request(Request::Calls { reply }, &now);
        answer.try_recv().unwrap()
    }

    pub fn only_call(&mut self) -> Call {
        let calls = self.live_calls();
        assert_eq!(calls.len(), 1);
        calls.into_iter().next().unwrap()
    }

    pub fn written_call(&self, id: &str) -> Call {
        self.calls[id].clone()
    }

    pub fn written_recording(&self) -> Recording {
        assert_eq!(self.recordings.len(), 1);
        self.recordings.values().next().unwrap().clone()
    }

    pub fn written_recordings(&self) -> Vec<Recording> {
        self.recordings.values().cloned().collect()
    }

    /// How many sessions were opened in the dataplane.
    pub fn opened(&self) -> usize {
        let opens = self.dataplane.commands.iter();
        opens
            .filter(|one| matches!(one, Command::SessionOpen(_)))
            .count()
    }

    pub fn legs(&self) -> BTreeMap<(u8, Side), LegUpdate> {
        self.dataplane.legs.clone()
    }

    pub fn events(&self) -> Vec<&'static str> {
        self.hub
            .after(0, 1000)
            .iter()
            .map(|event| event.kind.name())
            .collect()
    }

    /// The dataplane heard a digit in the only call.
    pub fn digit(&mut self, side: Side, event: u8, duration_ms: u32) {
        let now = self.moment();
        let digit = Event::Digit {
            session: self.dataplane.session(),
            side,
            event,
            duration_ms,
        };
        self.b2bua.on_link_event(digit, &now);
    }

    /// An order of the operator's to transfer a call.
    pub fn transfer(&mut self, call: &str, order: TransferOrder) -> Result<Call, ActionError> {
        let (reply, mut answer) = tokio::sync::oneshot::channel();
        let now = self.moment();
        let call = call.to_owned();
        let request = Request::Transfer { call, order, reply };
        self.b2bua.on_api_request(request, &now);
        self.run(50);
        answer.try_recv().expect("the order is answered")
    }

    pub fn api(&mut self, request: Request) {
        let now = self.moment();
        self.b2bua.on_api_request(request, &now);
        self.run(20);
    }

    pub fn act(&mut self, call: &str, action: RecordingAction) -> Result<Recording, ActionError> {
        let (reply, mut answer) = tokio::sync::oneshot::channel();
        let now = self.moment();
        let call = call.to_owned();
        self.b2bua.on_api_request(
            Request::RecordingAction {
                call,
                action,
                reply,
            },
            &now,
        );
        self.run(20);
        answer.try_recv().expect("the action is answered")
    }

    /// Control dies and a new one attaches.
    pub fn restart_control(&mut self) {
        self.restart_control_with(Vec::new());
    }

    /// The same, with the legs that the records say are open.
    pub fn restart_control_with(&mut self, left: Vec<Cdr>) {
        self.b2bua = new_b2bua(&self.config, &self.hub, 77);
        self.b2bua.ledger.set_left(left);
        self.b2bua.attached();
        self.run(10);
    }

    /// The dataplane dies and a new one is attached.
    pub fn restart_dataplane(&mut self) {
        let now = self.moment();
        self.dataplane = Dataplane::default();
        self.b2bua.dataplane_died(&now);
        self.b2bua
            .recovered(&std::collections::HashMap::new(), &now);
        self.b2bua.attached();
        self.run(10);
    }
}
