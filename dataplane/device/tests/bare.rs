//! Ports without sockets of their own: more of them than the process may have files, each with its
//! own address and port on whatever leaves. In namespaces of the tests' own.

mod wire;

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Once;
use std::time::{Duration, Instant};

use trunkline_device::{Config, Device, Received, Routes, SlotEvent, UringDevice};
use wire::{Far, PATIENCE, ip, own_namespace, run};

const MILLISECOND: u64 = 1_000_000;
/// Open files that this process may have.
const FILES: u64 = 400;
const FIRST_PORT: u16 = 10_000;
const HERE: [&str; 2] = ["10.77.0.1", "fd77::1"];
const THERE: [&str; 2] = ["10.77.0.2:4000", "[fd77::2]:4000"];

fn limit_files() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let limit = libc::rlimit {
            rlim_cur: FILES,
            rlim_max: FILES,
        };
        // SAFETY: reads a live value.
        #[allow(unsafe_code)]
        let result = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
        assert_eq!(result, 0);
    });
}

/// A device with many ports and a far party that sends to them.
struct Bench {
    device: UringDevice,
    far: Far,
    // Ends last.
    _routes: Routes,
}

impl Bench {
    /// `None`, with a word, where it is not allowed.
    fn new() -> Option<Self> {
        limit_files();
        if !own_namespace() {
            return None;
        }
        let far = Far::new();
        far.join(
            0,
            &["10.77.0.1/24", "fd77::1/64"],
            &["10.77.0.2/24", "fd77::2/64"],
        );
        let (routes, mut seats) =
            Routes::start(1, |allowed| println!("frames: {allowed:?}")).unwrap();
        let config = Config {
            slots_max: 1 << 14,
            sockets_max: 64,
            routes: seats.pop(),
            ..Config::default()
        };
        let device = UringDevice::open(&config).expect("io_uring");
        if let Err(reason) = device.steered() {
            println!("not tested: {reason}");
            return None;
        }
        assert!(device.needs_no_sockets());
        Some(Self {
            device,
            far,
            _routes: routes,
        })
    }

    /// Opens ports of one address at the slots from `first`.
    fn open(&mut self, first: u32, count: u32, host: &str) -> HashMap<SocketAddr, u32> {
        let ports = (first..first + count).map(|slot| {
            let port = SocketAddr::new(host.parse().unwrap(), FIRST_PORT + slot as u16);
            self.device.install_port(slot, port).unwrap();
            (port, slot)
        });
        ports.collect()
    }

    fn receive(&mut self, wanted: usize) -> Vec<Received> {
        let start = Instant::now();
        let mut batch = Vec::new();
        while batch.len() < wanted {
            self.device.receive(&mut batch);
            let counters = self.device.counters();
            assert!(
                start.elapsed() < PATIENCE,
                "{} of {wanted}: {counters:?}",
                batch.len()
            );
            self.device.park(20 * MILLISECOND);
        }
        batch
    }

    /// The far party sends to each port, and each answers; a few at a time, as sockets hold few.
    #[track_caller]
    fn echo(&mut self, peer: &UdpSocket, ports: &HashMap<SocketAddr, u32>) {
        let far = peer.local_addr().unwrap();
        let all: Vec<_> = ports.iter().collect();
        for some in all.chunks(100) {
            for (port, slot) in some {
                peer.send_to(&[&slot.to_be_bytes()[..], &[7; 168]].concat(), port)
                    .unwrap();
            }
            for packet in self.receive(some.len()) {
                assert_eq!(packet.source, far);
                assert_eq!(packet.buffer[..4], packet.slot.to_be_bytes());
                self.device.send(packet.slot, &far, packet.buffer);
            }
            self.device.flush();
            for _ in some.iter() {
                let mut bytes = [0; 256];
                let (length, from) = peer.recv_from(&mut bytes).expect("an answer");
                assert_eq!(length, 172);
                assert_eq!(bytes[..4], ports[&from].to_be_bytes());
            }
        }
    }

    /// Hears what the routes' thread says, and what has become of ports.
    fn take_news(&mut self) {
        let mut batch = Vec::new();
        self.device.receive(&mut batch);
        assert!(batch.is_empty());
    }

    /// Sends until datagrams go as they should: as frames, or as packets by a raw socket.
    fn until(&mut self, peer: &UdpSocket, slot: u32, frames: bool) {
        let start = Instant::now();
        let far = peer.local_addr().unwrap();
        loop {
            let before = self.device.counters();
            self.device.send_copy(slot, &far, &[9; 172]);
            self.take_news();
            self.device.park(0);
            let now = self.device.counters();
            let [framed, shared] = [now.framed > before.framed, now.shared > before.shared];
            peer.set_read_timeout(Some(Duration::from_millis(20)))
                .unwrap();
            while peer.recv(&mut [0; 256]).is_ok() {}
            peer.set_read_timeout(Some(PATIENCE)).unwrap();
            if [framed, shared] == [frames, !frames] {
                return;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "framed {framed}, shared {shared}"
            );
        }
    }
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn more_ports_than_files_each_send_from_their_own_address_and_port() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    let before = open_files();
    for (host, (there, first)) in HERE.into_iter().zip(THERE.into_iter().zip([0, 2_000])) {
        let ports = bench.open(first, 2_000, host);
        let peer = bench.far.bind(there);
        // As frames; those before the way is known by a raw socket, or by sockets of their own.
        bench.echo(&peer, &ports);
        bench.until(&peer, first, true);
        let counters = bench.device.counters();
        bench.echo(&peer, &ports);
        let framed = bench.device.counters().framed - counters.framed;
        assert_eq!(framed, 2_000, "{host}");
    }
    // Where packet filters are in force everything goes by the kernel's way.
    run("nft", "add table inet trunkline-test");
    for (host, (there, first)) in HERE.into_iter().zip(THERE.into_iter().zip([0, 2_000])) {
        let peer = bench.far.bind(there);
        bench.until(&peer, first, false);
        let ports: HashMap<_, _> = (first..first + 2_000)
            .map(|slot| {
                let port = SocketAddr::new(host.parse().unwrap(), FIRST_PORT + slot as u16);
                (port, slot)
            })
            .collect();
        let counters = bench.device.counters();
        bench.echo(&peer, &ports);
        let shared = bench.device.counters().shared - counters.shared;
        assert_eq!(shared, 2_000, "{host}");
    }
    assert_eq!(bench.device.counters().send_failed, 0);
    assert!(open_files() < before + 200, "{} files", open_files());
}

#[test]
fn packet_filters_hold_for_ports_without_sockets() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    bench.open(0, 1, HERE[0]);
    let peer = bench.far.bind(THERE[0]);
    bench.until(&peer, 0, true);
    run("nft", "add table ip trunkline-test");
    run(
        "nft",
        "add chain ip trunkline-test out { type filter hook output priority 0 ; }",
    );
    bench.until(&peer, 0, false);
    run(
        "nft",
        "add rule ip trunkline-test out udp sport 10000 udp dport 4000 drop",
    );
    peer.set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    while peer.recv(&mut [0; 256]).is_ok() {}
    bench
        .device
        .send_copy(0, &THERE[0].parse().unwrap(), &[1; 172]);
    bench.device.flush();
    assert!(peer.recv(&mut [0; 256]).is_err());
}

#[test]
fn what_no_shared_socket_can_send_leaves_by_a_socket_of_its_own() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    let ports = bench.open(0, 3, HERE[0]);
    let peer = bench.far.bind(THERE[0]);
    bench.until(&peer, 0, true);
    let by_slot: HashMap<_, _> = ports.iter().map(|(port, slot)| (*slot, *port)).collect();
    let far = peer.local_addr().unwrap();
    // Longer than every path carries.
    for slot in [1, 1, 2] {
        bench.device.send_copy(slot, &far, &[slot as u8; 1_400]);
        bench.device.flush();
        let mut bytes = [0; 2_048];
        let (length, from) = peer.recv_from(&mut bytes).expect("arrives");
        assert_eq!(
            (length, from, bytes[0]),
            (1_400, by_slot[&slot], slot as u8)
        );
    }
    // Its datagrams still come through the shared socket.
    let steered = bench.device.counters().steered;
    bench.echo(&peer, &ports);
    assert_eq!(bench.device.counters().steered - steered, 3);
    // IPsec may look at ports.
    ip("xfrm policy add src 10.99.0.0/16 dst 10.98.0.0/16 dir out tmpl proto esp mode tunnel");
    let start = Instant::now();
    loop {
        let before = bench.device.counters();
        bench.echo(&peer, &ports);
        let now = bench.device.counters();
        if (now.framed, now.shared) == (before.framed, before.shared) {
            break;
        }
        assert!(start.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(20));
    }
    // A port is closed with and without a socket, and can be had again.
    for slot in 0..3 {
        bench.device.remove(slot).unwrap();
    }
    let mut closed = 0;
    while closed < 3 {
        assert!(start.elapsed() < PATIENCE, "{closed} closed");
        bench.take_news();
        bench.device.park(20 * MILLISECOND);
        while let Some(event) = bench.device.slot_event() {
            assert!(matches!(event, SlotEvent::Closed { .. }), "{event:?}");
            closed += 1;
        }
    }
    let ports = bench.open(0, 3, HERE[0]);
    bench.echo(&peer, &ports);
}

#[test]
fn a_port_left_unread_drops_and_counts_what_comes_and_no_other_does() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    let ports = bench.open(0, 2, HERE[0]);
    let peer = bench.far.bind(THERE[0]);
    bench.until(&peer, 0, true);
    assert!(bench.device.pause(0));
    assert!(!bench.device.pause(0));
    let unread = SocketAddr::new(HERE[0].parse().unwrap(), FIRST_PORT);
    for _ in 0..500 {
        peer.send_to(&[0; 172], unread).unwrap();
    }
    let others: HashMap<_, _> = ports.iter().map(|(port, slot)| (*port, *slot)).collect();
    let other = others.iter().filter(|(_, slot)| **slot == 1);
    bench.echo(&peer, &other.map(|(port, slot)| (*port, *slot)).collect());
    assert_eq!(bench.device.take_unread_drops(0), 500);
    assert_eq!(bench.device.take_unread_drops(0), 0);
    assert_eq!(bench.device.take_unread_drops(1), 0);
    bench.device.resume(0);
    bench.echo(&peer, &ports);
    assert_eq!(bench.device.take_unread_drops(0), 0);
}

#[test]
fn whoever_binds_a_port_of_ours_gets_nothing_of_it() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    let ports = bench.open(0, 2, HERE[0]);
    let peer = bench.far.bind(THERE[0]);
    bench.until(&peer, 0, true);
    let port = (HERE[0], FIRST_PORT + 1);
    let other = UdpSocket::bind(port).unwrap();
    bench.echo(&peer, &ports);
    other.set_nonblocking(true).unwrap();
    assert!(other.recv(&mut [0; 16]).is_err());
    // Once it is closed, the kernel says so to whoever still sends.
    drop(other);
    bench.device.remove(1).unwrap();
    assert_eq!(
        bench.device.slot_event(),
        Some(SlotEvent::Closed { slot: 1 })
    );
    peer.connect(port).unwrap();
    peer.send(b"late").unwrap();
    let error = peer.recv(&mut [0; 16]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}
