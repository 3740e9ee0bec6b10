//! User agents on a network that loses, repeats and reorders by a seed, in virtual time. One
//! address is a fork: what is sent there reaches every agent but the first.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use trunkline_sip::agent::{
    Agent, AgentConfig, AgentEvent, AttemptHandle, Body, DialogHandle, EventKind, Invite, Socket,
};
use trunkline_sip::message::{Headers, NameAddr, Uri};
use trunkline_sip::transaction::{Config, FlowId, Path, Target, Transmit, Transport};

pub type Told = AgentEvent<u64>;

/// What the network does to a datagram.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Percent lost.
    pub loss: u32,
    /// Percent delivered twice.
    pub duplicate: u32,
    /// Longest delay beside the fixed 10 ms; later ones overtake earlier ones.
    pub jitter_ms: u64,
}

/// From none to heavy.
pub fn faults(seed: u64) -> Faults {
    match seed % 4 {
        0 => Faults::default(),
        1 => Faults {
            loss: 10,
            duplicate: 10,
            jitter_ms: 50,
        },
        2 => Faults {
            loss: 20,
            duplicate: 20,
            jitter_ms: 300,
        },
        _ => Faults {
            loss: 25,
            duplicate: 0,
            jitter_ms: 900,
        },
    }
}

/// The address of an agent.
pub fn address(agent: usize) -> SocketAddr {
    format!("192.0.2.{}:5060", agent + 1).parse().unwrap()
}

/// The address that leads to all agents but the first.
pub const FORK: &str = "192.0.2.99:5060";

pub fn sdp(version: u32, direction: &str) -> Body {
    Body::sdp(format!(
        "v=0\r\no=- 7 {version} IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
         m=audio 4000 RTP/AVP 8\r\na={direction}\r\n"
    ))
}

pub fn none() -> Headers {
    Headers::new()
}

pub fn header(name: &str, value: &str) -> Headers {
    let mut headers = Headers::new();
    headers.append(name, value);
    headers
}

pub struct Net {
    pub now: Instant,
    pub start: Instant,
    pub agents: Vec<Agent<u64>>,
    pub faults: Faults,
    pub random: StdRng,
    in_flight: BTreeMap<(Instant, u64), (SocketAddr, Transmit)>,
    sent: u64,
    /// All that left, as (time since start, sender, text).
    pub wire: Vec<(Duration, usize, String)>,
    /// Drops the first so many messages that begin so.
    pub drop_first: Vec<(String, usize)>,
}

pub fn config(agent: usize, seed: u64) -> AgentConfig {
    let local = address(agent);
    let contact: Uri = format!("sip:agent{agent}@{local}").parse().unwrap();
    let socket = Socket {
        transport: Transport::Udp,
        flow: Some(FlowId(0)),
        local,
    };
    let mut config = AgentConfig::new(contact, socket);
    config.transaction = Config {
        seed: Some(seed * 8 + agent as u64),
        ..Config::default()
    };
    config
}

impl Net {
    pub fn new(agents: usize, seed: u64, faults: Faults) -> Net {
        let made = (0..agents).map(|agent| config(agent, seed)).collect();
        Net::with(made, seed, faults)
    }

    pub fn with(configs: Vec<AgentConfig>, seed: u64, faults: Faults) -> Net {
        let now = Instant::now();
        let agents = configs
            .into_iter()
            .map(|config| Agent::new(config).unwrap());
        Net {
            now,
            start: now,
            agents: agents.collect(),
            faults,
            random: StdRng::seed_from_u64(seed),
            in_flight: BTreeMap::new(),
            sent: 0,
            wire: Vec::new(),
            drop_first: Vec::new(),
        }
    }

    /// Two agents, nothing lost.
    pub fn plain() -> Net {
        Net::new(2, 1, Faults::default())
    }

    pub fn invite(&self, from: usize, to: SocketAddr) -> Invite {
        let uri: Uri = format!("sip:bob@{to}").parse().unwrap();
        let ours: Uri = format!("sip:alice@{}", address(from).ip()).parse().unwrap();
        let target = Target::new(Transport::Udp, Some(FlowId(0)), address(from), to);
        Invite {
            body: Some(sdp(1, "sendrecv")),
            ..Invite::new(uri, NameAddr::new(ours), target)
        }
    }

    /// Agent 0 calls agent 1, with this context.
    pub fn call(&mut self, context: u64) -> AttemptHandle {
        let invite = self.invite(0, address(1));
        self.agents[0].call(self.now, invite, context).unwrap()
    }

    pub fn flush(&mut self) {
        for agent in 0..self.agents.len() {
            while let Some(transmit) = self.agents[agent].poll_transmit() {
                let text = String::from_utf8_lossy(&transmit.bytes).into_owned();
                self.wire.push((self.now - self.start, agent, text.clone()));
                let dropped = self
                    .drop_first
                    .iter_mut()
                    .find(|(start, left)| *left > 0 && text.starts_with(start.as_str()));
                match dropped {
                    Some((_, left)) => *left -= 1,
                    None => self.launch(address(agent), transmit),
                }
            }
        }
    }

    fn launch(&mut self, from: SocketAddr, transmit: Transmit) {
        let hit = |random: &mut StdRng, percent| random.random_range(0..100) < percent;
        let fork = transmit.remote == FORK.parse().unwrap();
        let receivers: Vec<SocketAddr> = if fork {
            (1..self.agents.len()).map(address).collect()
        } else {
            vec![transmit.remote]
        };
        for remote in receivers {
            if hit(&mut self.random, self.faults.loss) {
                continue;
            }
            let copies = 1 + u32::from(hit(&mut self.random, self.faults.duplicate));
            for _ in 0..copies {
                let jitter = self.random.random_range(0..=self.faults.jitter_ms);
                self.sent += 1;
                let at = self.now + Duration::from_millis(10 + jitter);
                let transmit = Transmit {
                    remote,
                    ..transmit.clone()
                };
                self.in_flight.insert((at, self.sent), (from, transmit));
            }
        }
    }

    /// Goes on to the next thing that happens before `end`; `None` when nothing does.
    pub fn step(&mut self, end: Instant) -> Option<Vec<(usize, Told)>> {
        self.flush();
        let arrival = self.in_flight.keys().next().map(|(at, _)| *at);
        let alarms = self.agents.iter().filter_map(Agent::poll_timeout).min();
        let next = [arrival, alarms].into_iter().flatten().min();
        let Some(next) = next.filter(|at| *at <= end) else {
            self.now = end;
            return None;
        };
        self.now = self.now.max(next);
        if arrival == Some(next) {
            let (_, (from, transmit)) = self.in_flight.pop_first().unwrap();
            self.deliver(from, transmit.remote, &transmit.bytes);
        } else {
            for agent in &mut self.agents {
                agent.handle_timeout(self.now);
            }
        }
        Some(self.events())
    }

    pub fn deliver(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let Some(agent) = (0..self.agents.len()).find(|agent| address(*agent) == to) else {
            return;
        };
        let path = Path {
            transport: Transport::Udp,
            flow: FlowId(0),
            local: to,
            source: from,
        };
        self.agents[agent].handle_datagram(self.now, path, bytes);
    }

    /// Hands a text to an agent as a datagram from another, and gives what it answers at once.
    pub fn inject(&mut self, from: usize, to: usize, text: &str) -> Vec<String> {
        self.flush();
        self.deliver(address(from), address(to), text.as_bytes());
        let mut answers = Vec::new();
        while let Some(transmit) = self.agents[to].poll_transmit() {
            answers.push(String::from_utf8_lossy(&transmit.bytes).into_owned());
        }
        answers
    }

    pub fn events(&mut self) -> Vec<(usize, Told)> {
        let mut events = Vec::new();
        for (index, agent) in self.agents.iter_mut().enumerate() {
            while let Some(event) = agent.poll_event() {
                events.push((index, event));
            }
        }
        events
    }

    /// Runs for a while with the users' behaviour.
    pub fn run(&mut self, seconds: u64, mut user: impl FnMut(&mut Net, usize, Told)) {
        let end = self.now + Duration::from_secs(seconds);
        while let Some(events) = self.step(end) {
            for (agent, event) in events {
                user(self, agent, event);
            }
        }
    }

    /// Runs for a while and gives all events.
    pub fn idle(&mut self, seconds: u64) -> Vec<(usize, Told)> {
        let mut all = Vec::new();
        self.run(seconds, |_, agent, event| all.push((agent, event)));
        all
    }

    /// Runs until an event that `pick` takes.
    pub fn until<T>(&mut self, what: &str, mut pick: impl FnMut(usize, &Told) -> Option<T>) -> T {
        let end = self.now + Duration::from_secs(100);
        loop {
            let Some(events) = self.step(end) else {
                panic!("{what} must come; on the wire:\n{}", self.log());
            };
            for (agent, event) in &events {
                if let Some(found) = pick(*agent, event) {
                    return found;
                }
            }
        }
    }

    /// Waits for a call at an agent.
    pub fn incoming(&mut self, at: usize) -> DialogHandle {
        self.until("the call", |agent, event| {
            let incoming = matches!(event.kind, EventKind::Incoming { .. });
            event.dialog.filter(|_| incoming && agent == at)
        })
    }

    /// An established call of agent 0 to agent 1: both dialogs.
    pub fn established(&mut self) -> (DialogHandle, DialogHandle) {
        self.call(7);
        let callee = self.incoming(1);
        let now = self.now;
        let answer = Some(sdp(1, "sendrecv"));
        self.agents[1].accept(now, callee, &none(), answer).unwrap();
        let caller = self.until("the answer", |_, event| {
            let answered = matches!(event.kind, EventKind::Answered { .. });
            event.dialog.filter(|_| answered)
        });
        self.until("the ACK", |_, event| {
            matches!(event.kind, EventKind::Acknowledged { .. }).then_some(())
        });
        (caller, callee)
    }

    /// Hangs up and sees both sides at rest.
    pub fn finish(&mut self, agent: usize, dialog: DialogHandle) {
        let now = self.now;
        self.agents[agent].hangup(now, dialog, &none()).unwrap();
        self.at_rest();
    }

    /// After some time nothing is alive anywhere.
    pub fn at_rest(&mut self) {
        let _ = self.idle(200);
        for (index, agent) in self.agents.iter().enumerate() {
            assert_eq!(agent.alive(), [0; 4], "agent {index}:\n{}", self.log());
            assert_eq!(agent.poll_timeout(), None, "agent {index}");
        }
    }

    /// Number of messages that left an agent and begin so.
    pub fn count(&self, agent: usize, start: &str) -> usize {
        let sent = self.wire.iter();
        sent.filter(|(_, from, text)| *from == agent && text.starts_with(start))
            .count()
    }

    /// The last message of an agent that begins so.
    pub fn last(&self, agent: usize, start: &str) -> String {
        let sent = self.wire.iter().rev();
        let found = sent
            .filter(|(_, from, _)| *from == agent)
            .find(|(_, _, text)| text.starts_with(start));
        let (_, _, text) = found.unwrap_or_else(|| panic!("{start}:\n{}", self.log()));
        text.clone()
    }

    /// The wire, a line a message.
    pub fn log(&self) -> String {
        let mut log = String::new();
        for (at, from, text) in &self.wire {
            let first = text.lines().next().unwrap_or_default();
            let cseq = text.lines().find(|line| line.starts_with("CSeq"));
            log.push_str(&format!(
                "{at:>9.3?} {from} {first} {}\n",
                cseq.unwrap_or("")
            ));
        }
        log
    }
}
