//! Strangers in masses: calls do not notice, and every datagram is counted.

mod common;

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{Call, Control, Dataplane, PATIENCE};
use trunkline_link::counters::{ConductorCounter, WorkerCounter};

/// Sources may be learnt for so long after signalling; strangers are looked at until then.
const LEARNING: Duration = Duration::from_millis(5_200);

/// Somebody who sends to all ports as fast as the machine lets him.
struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<()>,
}

/// Of other hosts than the parties.
const STRANGE: [&str; 2] = ["127.0.0.66:0", "127.0.0.67:0"];

impl Flood {
    fn start(from: &'static [&'static str], ports: Vec<SocketAddr>, pause: Duration) -> Self {
        let (stop, sent) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (stopped, count) = (stop.clone(), sent.clone());
        let thread = std::thread::spawn(move || {
            let bind = |address: &&str| UdpSocket::bind(address).unwrap();
            let sockets: Vec<_> = from.iter().map(bind).collect();
            // Looks like RTP of a codec in use.
            let mut packet = vec![0x80, 0, 0, 1, 0, 0, 0, 1, 6, 6, 6, 6];
            packet.resize(172, 0x55);
            for round in 0_u16.. {
                packet[2..4].copy_from_slice(&round.to_be_bytes());
                for port in &ports {
                    for socket in &sockets {
                        if socket.send_to(&packet, port).is_ok() {
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                std::thread::sleep(pause);
            }
        });
        Self { stop, sent, thread }
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Ends it; how many datagrams it sent.
    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.sent.load(Ordering::Relaxed)
    }
}

fn worker(control: &Control, counter: WorkerCounter) -> u64 {
    control.link.counters().workers_total(counter)
}

fn open_calls(dataplane: &Dataplane, control: &mut Control, count: u64) -> Vec<Call> {
    (1..=count)
        .map(|session| Call::open(control, dataplane.address, session, [0, 0]))
        .collect()
}

/// RTP and RTCP ports of all calls.
fn ports(calls: &[Call]) -> Vec<SocketAddr> {
    let rtp = calls.iter().flat_map(|call| call.ours);
    rtp.flat_map(|port| [port, SocketAddr::new(port.ip(), port.port() + 1)])
        .collect()
}

/// Waits until everything the flood sent is counted: as strangers, or as dropped on a socket.
#[track_caller]
fn wait_counted(control: &Control, flood: u64) -> [u64; 2] {
    let start = Instant::now();
    loop {
        let strangers = worker(control, WorkerCounter::Strangers);
        let drops = worker(control, WorkerCounter::SocketDrops);
        let conductor = control.link.counters();
        let swept = conductor.conductor(ConductorCounter::SocketDrops);
        if strangers + drops.max(swept) >= flood {
            return [strangers, drops.max(swept)];
        }
        assert!(
            start.elapsed() < PATIENCE,
            "{strangers} strangers, {drops} dropped of {flood}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_flood_of_strangers_over_live_ports_costs_calls_nothing_and_is_counted() {
    let mut dataplane = Dataplane::start("uring", 40);
    let mut control = dataplane.attach();
    let mut calls = open_calls(&dataplane, &mut control, 20);
    calls.iter_mut().for_each(|call| call.talk(3));
    let steered = dataplane.log().contains("steered by BPF");
    std::thread::sleep(LEARNING);
    // A call whose parties pause is open to whoever continues them.
    calls.iter_mut().for_each(|call| call.talk(3));
    let pause = if steered {
        Duration::ZERO
    } else {
        Duration::from_millis(20)
    };
    let flood = Flood::start(
        &["127.0.0.1:0", STRANGE[0], STRANGE[1]],
        ports(&calls),
        pause,
    );
    let wanted = if steered { 30_000 } else { 1_000 };
    let start = Instant::now();
    while flood.sent() < wanted || start.elapsed() < Duration::from_secs(1) {
        // Every packet must arrive: a lost one would be waited for in vain.
        calls.iter_mut().for_each(|call| call.talk(1));
        assert!(start.elapsed() < PATIENCE, "{} sent", flood.sent());
    }
    let sent = flood.end();
    let [strangers, dropped] = wait_counted(&control, sent);
    assert_eq!(strangers + dropped, sent);
    if steered {
        assert_eq!(dropped, 0);
        assert_eq!(worker(&control, WorkerCounter::PortsLeftUnread), 0);
    }
    calls.iter_mut().for_each(|call| call.talk(3));
}

#[test]
fn a_flood_while_sources_may_be_learnt_is_counted_and_the_calls_live() {
    let mut dataplane = Dataplane::start("uring", 41);
    let mut control = dataplane.attach();
    let mut calls = open_calls(&dataplane, &mut control, 4);
    let flood = Flood::start(&STRANGE, ports(&calls), Duration::from_micros(200));
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(1_500) {
        std::thread::sleep(Duration::from_millis(50));
    }
    let sent = flood.end();
    wait_counted(&control, sent / 2);
    // The advertised addresses are taken all the same.
    for call in &mut calls {
        call.talk(5);
    }
    let strangers = worker(&control, WorkerCounter::Strangers);
    assert!(strangers > 0 && strangers <= sent, "{strangers} of {sent}");
}

/// Calls that talk at once, at a rate of their own.
struct Traffic {
    calls: Vec<Call>,
    /// By call and side: the sequence number that is heard next.
    next: Vec<[Option<u16>; 2]>,
    sent: u64,
    heard: u64,
}

/// Packets under way at once: what the parties' sockets hold however late they are read.
const UNDER_WAY_MAX: u64 = 4_000;

impl Traffic {
    fn new(calls: Vec<Call>) -> Self {
        for party in calls.iter().flat_map(|call| &call.parties) {
            party.socket.set_nonblocking(true).unwrap();
        }
        Self {
            next: vec![[None; 2]; calls.len()],
            calls,
            sent: 0,
            heard: 0,
        }
    }

    /// Sends and hears at `rate` packets a second, as far as the machine takes it, while `goes_on`.
    fn run(&mut self, rate: u64, mut goes_on: impl FnMut() -> bool) {
        let (start, before) = (Instant::now(), self.sent);
        while goes_on() {
            let due = before + start.elapsed().as_micros() as u64 * rate / 1_000_000;
            while self.sent < due && self.sent - self.heard < UNDER_WAY_MAX {
                self.say();
            }
            self.hear();
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    /// The next flow in turn sends a packet.
    fn say(&mut self) {
        let flows = 2 * self.calls.len() as u64;
        let flow = (self.sent % flows) as usize;
        let call = &mut self.calls[flow / 2];
        let party = &mut call.parties[flow % 2];
        let packet = party.packet();
        party.socket.send_to(&packet, call.ours[flow % 2]).unwrap();
        self.sent += 1;
    }

    /// Takes what has come: in order, whole, from the right port.
    fn hear(&mut self) {
        let mut bytes = [0; 2_000];
        for (call, next) in self.calls.iter().zip(&mut self.next) {
            for (side, next) in next.iter_mut().enumerate() {
                while let Ok((length, from)) = call.parties[side].socket.recv_from(&mut bytes) {
                    let sequence = u16::from_be_bytes([bytes[2], bytes[3]]);
                    assert_eq!((length, from), (172, call.ours[side]));
                    assert_eq!(next.unwrap_or(sequence), sequence, "one was lost");
                    *next = Some(sequence.wrapping_add(1));
                    self.heard += 1;
                }
            }
        }
    }

    /// Waits until everything said is heard.
    fn settle(&mut self) {
        let start = Instant::now();
        while self.heard < self.sent {
            assert!(
                start.elapsed() < PATIENCE,
                "{} of {}",
                self.heard,
                self.sent
            );
            self.hear();
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Run time of the process's worker, ns.
fn worker_ns(process: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let worker = tasks.flatten().map(|task| task.path()).find(|task| {
        let name = std::fs::read_to_string(task.join("comm")).unwrap_or_default();
        name.trim() == "worker-0"
    });
    let times = std::fs::read_to_string(worker.unwrap().join("schedstat")).unwrap();
    times.split_whitespace().next().unwrap().parse().unwrap()
}

/// Looks for the rate at which the worker has some 30 % to do, as far as this machine and the test
/// beside it get.
fn rate_for_30_percent(traffic: &mut Traffic, process: u32) -> (u64, f64) {
    const LOOK: Duration = Duration::from_millis(200);
    let mut found = (5_000, 0.0);
    for rate in [5_000, 10_000, 20_000, 40_000, 80_000, 120_000] {
        let (start, before, sent) = (Instant::now(), worker_ns(process), traffic.sent);
        traffic.run(rate, || start.elapsed() < LOOK);
        let elapsed = start.elapsed().as_secs_f64();
        let load = (worker_ns(process) - before) as f64 / 1e9 / elapsed;
        let reached = (traffic.sent - sent) as f64 / elapsed;
        found = (rate, load);
        // The machine does not get further.
        if load >= 0.3 || reached < 0.8 * rate as f64 {
            break;
        }
    }
    traffic.settle();
    found
}

#[test]
fn a_worker_at_30_percent_of_its_load_loses_nothing_to_a_flood_of_strangers() {
    let mut dataplane = Dataplane::start("uring", 42);
    let mut control = dataplane.attach();
    let mut calls = open_calls(&dataplane, &mut control, 20);
    if !dataplane.log().contains("steered by BPF") {
        println!("not tested: strangers come through to the worker here");
        return;
    }
    calls.iter_mut().for_each(|call| call.talk(3));
    std::thread::sleep(LEARNING);
    let ports = ports(&calls);
    let mut traffic = Traffic::new(calls);
    let (rate, load) = rate_for_30_percent(&mut traffic, dataplane.pid());
    // Some 100,000 a second, where the machine gets so far.
    let flood = Flood::start(
        &["127.0.0.1:0", STRANGE[0], STRANGE[1]],
        ports,
        Duration::from_millis(1),
    );
    let start = Instant::now();
    let said = traffic.sent;
    traffic.run(rate, || {
        assert!(start.elapsed() < PATIENCE, "{} sent", flood.sent());
        flood.sent() < 100_000
    });
    let elapsed = start.elapsed().as_secs_f64();
    let sent = flood.end();
    traffic.settle();
    println!(
        "load {:.0} %: {:.0} packets/s beside {:.0} strangers/s",
        load * 100.0,
        (traffic.sent - said) as f64 / elapsed,
        sent as f64 / elapsed
    );
    let [strangers, dropped] = wait_counted(&control, sent);
    assert_eq!((strangers, dropped), (sent, 0));
    assert_eq!(worker(&control, WorkerCounter::PortsLeftUnread), 0);
}
