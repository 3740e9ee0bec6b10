//! Datagrams sent as whole frames: right headers, the right neighbour, and the socket wherever a
//! frame would not do. In namespaces of the test's own.

mod wire;

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use trunkline_device::packet::FrameReceiver;
use trunkline_device::{Config, Device, Routes, UringDevice};
use wire::{Far, PATIENCE, bind, ip, own_namespace, run, set};

const MILLISECOND: u64 = 1_000_000;

/// A device with one slot, the far namespace, and a peer there.
struct Bench {
    device: UringDevice,
    port: SocketAddr,
    far: Far,
    sent: u32,
    // Ends last.
    _routes: Routes,
}

impl Bench {
    /// `None`, with a word, where it is not allowed.
    fn new(here: &[&str], there: &[&str]) -> Option<Self> {
        if !own_namespace() {
            return None;
        }
        let far = Far::new();
        far.join(0, here, there);
        let (routes, mut seats) =
            Routes::start(1, |allowed| println!("frames: {allowed:?}")).unwrap();
        let config = Config {
            slots_max: 16,
            routes: seats.pop(),
            ..Config::default()
        };
        let mut device = UringDevice::open(&config).unwrap();
        let address = here[0].split('/').next().unwrap();
        let (socket, port) = bind(address);
        device.install(0, socket.into()).unwrap();
        Some(Self {
            device,
            port,
            far,
            sent: 0,
            _routes: routes,
        })
    }

    /// Sends a numbered datagram of `length` bytes.
    fn send(&mut self, to: SocketAddr, length: usize) -> Vec<u8> {
        self.sent += 1;
        let mut bytes = vec![self.sent as u8; length];
        bytes[..4].copy_from_slice(&self.sent.to_be_bytes());
        self.device.send_copy(0, &to, &bytes);
        self.device.park(0);
        // What the routes' thread says is heard here.
        let mut batch = Vec::new();
        self.device.receive(&mut batch);
        for packet in batch {
            self.device.recycle(packet.buffer);
        }
        bytes
    }

    /// Sends one datagram, which must arrive as it is; whether it went as a frame.
    #[track_caller]
    fn pass(&mut self, peer: &UdpSocket, length: usize) -> bool {
        let before = self.device.counters();
        let bytes = self.send(peer.local_addr().unwrap(), length);
        let mut heard = [0; 4096];
        loop {
            let (heard_bytes, from) = peer.recv_from(&mut heard).expect("arrives");
            assert_eq!(from, self.port);
            // Late ones of an earlier try.
            if heard[..4] == bytes[..4] {
                assert_eq!(heard[..heard_bytes], bytes);
                break;
            }
        }
        self.device.counters().framed > before.framed
    }

    /// Sends until datagrams go as frames (or by socket) and arrive. Those that get lost on the
    /// way there do not matter.
    #[track_caller]
    fn until(&mut self, peer: &UdpSocket, frames: bool) {
        let start = Instant::now();
        let to = peer.local_addr().unwrap();
        peer.set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        loop {
            let before = self.device.counters();
            let bytes = self.send(to, 172);
            let framed = self.device.counters().framed > before.framed;
            let mut heard = [0; 4096];
            let arrived = std::iter::from_fn(|| {
                peer.recv_from(&mut heard)
                    .ok()
                    .map(|_| heard[..4] == bytes[..4])
            })
            .any(|same| same);
            if arrived && framed == frames {
                break;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "arrived {arrived}, framed {framed}: {:?}",
                self.device.counters()
            );
        }
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
    }
}

const HERE: [&str; 2] = ["10.77.0.1/24", "fd77::1/64"];
const THERE: [&str; 2] = ["10.77.0.2/24", "fd77::2/64"];

#[test]
fn ip4_frames_look_like_the_sockets_datagrams() {
    let Some(mut bench) = Bench::new(&HERE, &THERE) else {
        return;
    };
    let peer = bench.far.bind("10.77.0.2:4000");
    let mut frames = bench
        .far
        .act(|| FrameReceiver::open(interface_number("there0"), 4000, 4000, 1 << 20).unwrap());
    let (mut by_socket, mut framed) = (None, None);
    let mut look = || {
        frames
            .receive(100, |frame, _| {
                let ip = &frame[14..];
                let fragment = ip[6] & 0x3f != 0 || ip[7] != 0;
                if fragment {
                    return;
                }
                // Lengths, identification and checksums differ; the checksums were judged on arrival.
                let same = [&frame[..14], &ip[..2], &ip[6..10], &ip[12..24]].concat();
                let own_way = ip[4..6] != [0, 0];
                *(if own_way { &mut by_socket } else { &mut framed }) = Some(same);
            })
            .unwrap()
    };
    bench.until(&peer, true);
    // What came until then may have filled the receiver.
    while look() > 0 {}
    for length in [4, 5, 172, 173, 500, 1252] {
        assert!(bench.pass(&peer, length), "{length}");
        assert!(!bench.pass(&peer, 1253 + length % 500));
    }
    let start = Instant::now();
    // The receiver hands over what has gathered so far: frames may come with the next time.
    while look() == 0 && start.elapsed() < PATIENCE {}
    let framed = framed.expect("a frame");
    if let Some(by_socket) = by_socket {
        assert_eq!(framed, by_socket);
    }
    assert_eq!(framed[16..20], [0x40, 0, 64, 17]);
}

fn interface_number(name: &str) -> u32 {
    let name = std::ffi::CString::new(name).unwrap();
    // SAFETY: the name is a live C string.
    #[allow(unsafe_code)]
    unsafe {
        libc::if_nametoindex(name.as_ptr())
    }
}

#[test]
fn ip6_goes_as_frames_with_valid_checksums() {
    let here = [HERE[1]];
    let Some(mut bench) = Bench::new(&here, &[THERE[1]]) else {
        return;
    };
    let peer = bench.far.bind("[fd77::2]:4000");
    bench.until(&peer, true);
    for length in [4, 5, 172, 173, 1232] {
        assert!(bench.pass(&peer, length), "{length}");
        assert!(!bench.pass(&peer, 1233 + length % 500));
    }
}

#[test]
fn a_gateway_is_the_neighbour_and_a_new_route_is_followed() {
    let Some(mut bench) = Bench::new(&HERE, &THERE) else {
        return;
    };
    bench.far.join(1, &["10.78.0.1/24"], &["10.78.0.2/24"]);
    bench.far.ip("addr add 198.51.100.7/32 dev lo");
    // The far side answers to our address by its first interface.
    ip("route add 198.51.100.0/24 via 10.77.0.2");
    let peer = bench.far.bind("198.51.100.7:4000");
    bench.until(&peer, true);
    // Both ways lead there: what tells them apart is who still hears after the first is gone.
    ip("route replace 198.51.100.0/24 via 10.78.0.2");
    std::thread::sleep(Duration::from_millis(200));
    bench.far.ip("link set there0 down");
    bench.far.ip("addr add 10.77.0.2/24 dev there1");
    bench.until(&peer, true);
    // Several next hops are the kernel's to choose from.
    ip("route replace 198.51.100.0/24 nexthop via 10.78.0.2 nexthop via 10.78.0.2 weight 2");
    bench.until(&peer, false);
}

#[test]
fn a_neighbour_that_moves_takes_the_audio_along() {
    let Some(mut bench) = Bench::new(&HERE, &THERE) else {
        return;
    };
    let peer = bench.far.bind("10.77.0.2:4000");
    bench.until(&peer, true);
    bench.far.ip("link set there0 address 02:00:00:00:77:02");
    // It speaks, so the kernel hears its new address.
    peer.send_to(b"here", bench.port).unwrap();
    bench.until(&peer, true);
}

#[test]
fn a_neighbour_that_moves_silently_is_found_again() {
    let Some(mut bench) = Bench::new(&HERE, &THERE) else {
        return;
    };
    // The kernel doubts sooner than it usually does.
    set("ipv4/neigh/here0/base_reachable_time_ms", "400");
    set("ipv4/neigh/here0/delay_first_probe_time", "1");
    set("ipv4/neigh/here0/retrans_time_ms", "100");
    let peer = bench.far.bind("10.77.0.2:4000");
    bench.until(&peer, true);
    bench.far.ip("link set there0 arp off");
    bench.far.ip("link set there0 address 02:00:00:00:77:03");
    bench.far.ip("link set there0 arp on");
    bench.until(&peer, true);
}

#[test]
fn an_interface_may_go_down_and_come_back() {
    let Some(mut bench) = Bench::new(&HERE, &THERE) else {
        return;
    };
    let peer = bench.far.bind("10.77.0.2:4000");
    bench.until(&peer, true);
    ip("link set here0 down");
    std::thread::sleep(Duration::from_millis(200));
    let failed = bench.device.counters().send_failed;
    let start = Instant::now();
    while bench.device.counters().send_failed == failed {
        bench.send("10.77.0.2:4000".parse().unwrap(), 172);
        assert!(start.elapsed() < PATIENCE, "nothing is refused");
    }
    ip("link set here0 up");
    bench.until(&peer, true);
}

#[test]
fn what_the_interface_cannot_carry_goes_by_socket() {
    let Some(mut bench) = Bench::new(&HERE, &THERE) else {
        return;
    };
    let peer = bench.far.bind("10.77.0.2:4000");
    bench.until(&peer, true);
    ip("link set here0 mtu 600");
    std::thread::sleep(Duration::from_millis(200));
    bench.until(&peer, true);
    // In fragments.
    assert!(!bench.pass(&peer, 1_000));
    assert!(bench.pass(&peer, 572));
    ip("route add 10.77.0.2/32 dev here0 mtu 576");
    std::thread::sleep(Duration::from_millis(200));
    bench.until(&peer, true);
    assert!(!bench.pass(&peer, 572));
    assert!(bench.pass(&peer, 548));
}

#[test]
fn packet_filters_and_routing_rules_hold_for_what_we_send() {
    let Some(mut bench) = Bench::new(&HERE, &THERE) else {
        return;
    };
    let peer = bench.far.bind("10.77.0.2:4000");
    bench.until(&peer, true);
    ip("rule add to 10.99.0.0/16 lookup 100");
    bench.until(&peer, false);
    ip("rule del to 10.99.0.0/16 lookup 100");
    bench.until(&peer, true);
    run("nft", "add table ip trunkline-test");
    bench.until(&peer, false);
    run("nft", "delete table ip trunkline-test");
    bench.until(&peer, true);
    ip("xfrm policy add src 10.99.0.0/16 dst 10.98.0.0/16 dir out tmpl proto esp mode tunnel");
    bench.until(&peer, false);
}

#[test]
fn our_own_addresses_are_reached_by_socket() {
    let Some(mut bench) = Bench::new(&HERE, &THERE) else {
        return;
    };
    for host in ["10.77.0.1", "127.0.0.1"] {
        let (peer, _) = bind(host);
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        for _ in 0..20 {
            // From 10.77.0.1 to the loopback: the kernel carries that, too.
            assert!(!bench.pass(&peer, 172));
        }
    }
}

#[test]
fn an_address_that_nobody_has_is_left_to_the_kernel() {
    let Some(mut bench) = Bench::new(&HERE, &THERE) else {
        return;
    };
    for _ in 0..20 {
        bench.send("10.77.0.99:4000".parse().unwrap(), 172);
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(bench.device.counters().framed, 0);
    bench.device.park(MILLISECOND);
    // Once it is there, it is a neighbour like any other.
    bench.far.ip("addr add 10.77.0.99/24 dev there0");
    let peer = bench.far.bind("10.77.0.99:4000");
    bench.until(&peer, true);
}

#[test]
fn slots_come_and_go_without_leaving_paths() {
    let Some(mut bench) = Bench::new(&HERE, &THERE) else {
        return;
    };
    let peer = bench.far.bind("10.77.0.2:4000");
    for _ in 0..3 {
        bench.until(&peer, true);
        bench.device.remove(0).unwrap();
        let start = Instant::now();
        while bench.device.slot_event().is_none() {
            assert!(start.elapsed() < PATIENCE);
            bench.device.park(MILLISECOND);
        }
        let (socket, port) = bind("10.77.0.1");
        bench.device.install(0, socket.into()).unwrap();
        bench.port = port;
    }
}
