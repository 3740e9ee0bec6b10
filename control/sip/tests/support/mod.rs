//! Two transaction layers on a network that loses, repeats and reorders by a seed, in virtual
//! time.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use trunkline_sip::message::{Method, Request, Response};
use trunkline_sip::transaction::{
    Config, Endpoint, Event, FlowId, Path, Target, Transmit, Transport,
};

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

/// The network, its clock and two layers: 0 and 1.
pub struct World {
    pub now: Instant,
    pub start: Instant,
    pub ends: [Endpoint; 2],
    pub transport: Transport,
    pub faults: Faults,
    pub random: StdRng,
    in_flight: BTreeMap<(Instant, u64), (usize, Transmit)>,
    sent: u64,
    /// All that left, as (time since start, sender, text).
    pub wire: Vec<(Duration, usize, String)>,
    /// Drops the first so many messages that begin with this text.
    pub drop_first: Vec<(String, usize)>,
}

/// The address of a side.
pub fn address(side: usize) -> SocketAddr {
    format!("192.0.2.{}:5060", side + 1).parse().unwrap()
}

impl World {
    pub fn new(transport: Transport, seed: u64, faults: Faults) -> World {
        let now = Instant::now();
        let end = |side: u64| {
            Endpoint::new(Config {
                seed: Some(seed * 2 + side),
                ..Config::default()
            })
        };
        World {
            now,
            start: now,
            ends: [end(0), end(1)],
            transport,
            faults,
            random: StdRng::seed_from_u64(seed),
            in_flight: BTreeMap::new(),
            sent: 0,
            wire: Vec::new(),
            drop_first: Vec::new(),
        }
    }

    pub fn plain() -> World {
        World::new(Transport::Udp, 1, Faults::default())
    }

    /// The target that reaches the other side.
    pub fn target(&self, from: usize) -> Target {
        Target::new(
            self.transport,
            Some(FlowId(0)),
            address(from),
            address(1 - from),
        )
    }

    /// The path of a message that comes to this side.
    pub fn path(&self, to: usize) -> Path {
        Path {
            transport: self.transport,
            flow: FlowId(0),
            local: address(to),
            source: address(1 - to),
        }
    }

    /// Puts what the layers want to send on the wire.
    pub fn flush(&mut self) {
        for side in 0..2 {
            while let Some(transmit) = self.ends[side].poll_transmit() {
                let text = String::from_utf8_lossy(&transmit.bytes).into_owned();
                self.wire.push((self.now - self.start, side, text.clone()));
                let dropped = self
                    .drop_first
                    .iter_mut()
                    .find(|(start, left)| *left > 0 && text.starts_with(start.as_str()));
                if let Some((_, left)) = dropped {
                    *left -= 1;
                    continue;
                }
                self.launch(1 - side, transmit);
            }
        }
    }

    fn launch(&mut self, to: usize, transmit: Transmit) {
        let reliable = self.transport.is_reliable();
        let hit = |random: &mut StdRng, percent| random.random_range(0..100) < percent;
        if !reliable && hit(&mut self.random, self.faults.loss) {
            return;
        }
        let copies = 1 + u32::from(!reliable && hit(&mut self.random, self.faults.duplicate));
        for _ in 0..copies {
            let jitter = match self.faults.jitter_ms {
                0 => 0,
                _ if reliable => 0,
                most => self.random.random_range(0..=most),
            };
            self.sent += 1;
            let at = self.now + Duration::from_millis(10 + jitter);
            self.in_flight
                .insert((at, self.sent), (to, transmit.clone()));
        }
    }

    /// Goes on to the next thing that happens before `end` and returns the events of it;
    /// `None` when nothing does (the clock is then at `end`).
    pub fn step(&mut self, end: Instant) -> Option<Vec<(usize, Event)>> {
        self.flush();
        let arrival = self.in_flight.keys().next().map(|(at, _)| *at);
        let alarms = self.ends.iter().filter_map(Endpoint::poll_timeout).min();
        let next = [arrival, alarms]
            .into_iter()
            .flatten()
            .min()
            .filter(|at| *at <= end);
        let Some(next) = next else {
            self.now = end;
            return None;
        };
        self.now = self.now.max(next);
        if arrival == Some(next) {
            let (_, (to, transmit)) = self.in_flight.pop_first().unwrap();
            let path = self.path(to);
            self.ends[to].handle_datagram(self.now, path, &transmit.bytes);
        } else {
            for side in 0..2 {
                self.ends[side].handle_timeout(self.now);
            }
        }
        Some(self.events())
    }

    /// The events that wait.
    pub fn events(&mut self) -> Vec<(usize, Event)> {
        let mut events = Vec::new();
        for side in 0..2 {
            while let Some(event) = self.ends[side].poll_event() {
                events.push((side, event));
            }
        }
        events
    }

    /// Runs for a while and returns all events.
    pub fn run(&mut self, seconds: u64) -> Vec<(usize, Event)> {
        let end = self.now + Duration::from_secs(seconds);
        let mut events = Vec::new();
        while let Some(more) = self.step(end) {
            events.extend(more);
        }
        events
    }

    /// Runs until an event that `pick` takes; panics after `seconds`.
    pub fn until<T>(&mut self, seconds: u64, mut pick: impl FnMut(usize, Event) -> Option<T>) -> T {
        let end = self.now + Duration::from_secs(seconds);
        loop {
            let events = self.step(end).expect("the event must come in time");
            for (side, event) in events {
                if let Some(found) = pick(side, event) {
                    return found;
                }
            }
        }
    }

    /// Hands a text to a side as a datagram from the other.
    pub fn inject(&mut self, to: usize, text: &str) -> Vec<Event> {
        let path = self.path(to);
        self.ends[to].handle_datagram(self.now, path, text.as_bytes());
        let mut events = Vec::new();
        while let Some(event) = self.ends[to].poll_event() {
            events.push(event);
        }
        events
    }

    /// What a side sends now, as texts; it does not reach the wire.
    pub fn taken(&mut self, side: usize) -> Vec<String> {
        let mut texts = Vec::new();
        while let Some(transmit) = self.ends[side].poll_transmit() {
            texts.push(String::from_utf8_lossy(&transmit.bytes).into_owned());
        }
        texts
    }

    /// Number of messages that left a side and begin so.
    pub fn count(&self, side: usize, start: &str) -> usize {
        self.wire
            .iter()
            .filter(|(_, from, text)| *from == side && text.starts_with(start))
            .count()
    }
}

/// A request outside a dialog from side 0 to side 1.
pub fn request(method: Method, call_id: &str, cseq: u32) -> Request {
    Request::new(method.clone(), "sip:bob@192.0.2.2".parse().unwrap())
        .with("From", "\"Alice\" <sip:alice@192.0.2.1>;tag=a1")
        .with("To", "<sip:bob@192.0.2.2>")
        .with("Call-ID", call_id)
        .with("CSeq", format!("{cseq} {method}"))
        .with("Contact", "<sip:alice@192.0.2.1:5060>")
}

/// An INVITE as another element would send it, as text.
pub fn invite_text(branch: &str, extra: &str) -> String {
    format!(
        "INVITE sip:bob@192.0.2.2 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch={branch};rport\r\n\
         Max-Forwards: 70\r\nFrom: <sip:alice@192.0.2.1>;tag=a1\r\nTo: <sip:bob@192.0.2.2>\r\n\
         Call-ID: call-1\r\nCSeq: 1 INVITE\r\nContact: <sip:alice@192.0.2.1:5060>\r\n{extra}Content-Length: 0\r\n\r\n"
    )
}

/// A response with a Contact of side 1.
pub fn answer(request: &Request, status: u16) -> Response {
    Response::to(request, status).with("Contact", "<sip:bob@192.0.2.2:5060>")
}
