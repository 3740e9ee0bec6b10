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
