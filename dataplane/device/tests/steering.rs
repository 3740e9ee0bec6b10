//! One receive socket for all ports: what goes through it and what does not.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use trunkline_device::{Admission, Config, Device, Received, SlotEvent, UringDevice};

const PATIENCE: Duration = Duration::from_secs(10);
const MILLISECOND: u64 = 1_000_000;

/// A steered device; `None`, with a word, where it is not allowed.
fn open() -> Option<UringDevice> {
    let config = Config {
        slots_max: 1024,
        ..Config::default()
    };
    let device = UringDevice::open(&config).expect("io_uring");
    if let Err(reason) = device.steered() {
        println!("not tested: {reason}");
        return None;
    }
    Some(device)
}

fn receive(device: &mut UringDevice, wanted: usize) -> Vec<Received> {
    let start = Instant::now();
    let mut batch = Vec::new();
    loop {
        device.receive(&mut batch);
        if batch.len() >= wanted {
            return batch;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "{} of {wanted}: {:?}",
            batch.len(),
            device.counters()
        );
        device.park(20 * MILLISECOND);
    }
}

fn bind(host: &str) -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind((host, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[test]
fn every_port_of_both_families_comes_through_the_shared_sockets() {
    let Some(mut device) = open() else { return };
    for host in ["127.0.0.1", "::1"] {
        let ports: Vec<_> = (0..200)
            .map(|slot| {
                let (socket, address) = bind(host);
                device.install(slot, socket.into()).unwrap();
                address
            })
            .collect();
        device.park(0);
        let before = device.counters();
        let (sender, sender_address) = bind(host);
        for (slot, port) in ports.iter().enumerate() {
            sender.send_to(&(slot as u32).to_be_bytes(), port).unwrap();
        }
        for packet in receive(&mut device, 200) {
            assert_eq!(packet.source, sender_address);
            assert_eq!(*packet.buffer, packet.slot.to_be_bytes());
            // The answer carries the port's own address.
            device.send(packet.slot, &sender_address, packet.buffer);
        }
        device.flush();
        assert_eq!(device.counters().steered - before.steered, 200);
        sender.set_read_timeout(Some(PATIENCE)).unwrap();
        for _ in 0..200 {
            let mut bytes = [0; 4];
            let (_, from) = sender.recv_from(&mut bytes).unwrap();
            assert_eq!(from, ports[u32::from_be_bytes(bytes) as usize]);
        }
        for slot in 0..200 {
            device.remove(slot).unwrap();
        }
        let mut closed = 0;
        let start = Instant::now();
        while closed < 200 {
            assert!(start.elapsed() < PATIENCE, "{closed} closed");
            receive(&mut device, 0);
            device.park(20 * MILLISECOND);
            while let Some(event) = device.slot_event() {
                assert!(matches!(event, SlotEvent::Closed { .. }), "{event:?}");
                closed += 1;
            }
        }
    }
}

#[test]
fn sockets_that_are_not_ours_keep_their_datagrams() {
    let Some(mut device) = open() else { return };
    let (port, address) = bind("127.0.0.1");
    device.install(0, port.into()).unwrap();
    // The same port number at another address, and a port that is no longer ours.
    let other = UdpSocket::bind(("127.0.0.2", address.port())).unwrap();
    other.set_read_timeout(Some(PATIENCE)).unwrap();
    let (sender, _) = bind("127.0.0.1");
    sender
        .send_to(b"other", other.local_addr().unwrap())
        .unwrap();
    let mut bytes = [0; 16];
    assert_eq!(other.recv(&mut bytes).unwrap(), 5);
    device.remove(0).unwrap();
    let start = Instant::now();
    while device.slot_event().is_none() {
        assert!(start.elapsed() < PATIENCE, "still open");
        receive(&mut device, 0);
        device.park(20 * MILLISECOND);
    }
    let again = loop {
        match UdpSocket::bind(address) {
            Ok(socket) => break socket,
            Err(error) => assert!(start.elapsed() < PATIENCE, "{error}"),
        }
    };
    again.set_read_timeout(Some(PATIENCE)).unwrap();
    sender.send_to(b"again", address).unwrap();
    assert_eq!(again.recv(&mut bytes).unwrap(), 5);
}

/// Asserts that a datagram to `to` comes to `slot`, and says whether it was steered.
#[track_caller]
fn reaches(device: &mut UringDevice, sender: &UdpSocket, to: SocketAddr, slot: u32) -> bool {
    let before = device.counters().steered;
    sender.send_to(b"x", to).unwrap();
    let packet = receive(device, 1).remove(0);
    assert_eq!(packet.slot, slot);
    device.recycle(packet.buffer);
    device.counters().steered > before
}

fn close(device: &mut UringDevice, slot: u32) {
    device.remove(slot).unwrap();
    let start = Instant::now();
    while device.slot_event().is_none() {
        assert!(start.elapsed() < PATIENCE, "still open");
        receive(device, 0);
        device.park(20 * MILLISECOND);
    }
}

#[test]
fn a_number_used_at_several_addresses_is_steered_to_each_slot() {
    let Some(mut device) = open() else { return };
    let (port, address) = bind("127.0.0.1");
    device.install(0, port.into()).unwrap();
    let mut addresses = vec![address];
    for slot in 1..5 {
        let socket = UdpSocket::bind((
            "127.0.0.1".replace(".1", &format!(".1{slot}")),
            address.port(),
        ));
        let socket = socket.unwrap();
        addresses.push(socket.local_addr().unwrap());
        device.install(slot, socket.into()).unwrap();
    }
    device.park(0);
    let (sender, _) = bind("127.0.0.1");
    for (slot, to) in addresses.iter().enumerate() {
        // The fifth is left to its own socket.
        let steered = reaches(&mut device, &sender, *to, slot as u32);
        assert_eq!(steered, slot < 4, "{to}");
    }
    // The chain holds when its first or a middle one goes, and places are used again.
    for gone in [0, 2] {
        close(&mut device, gone);
        for slot in (1..4).filter(|slot| *slot != gone) {
            let to = addresses[slot as usize];
            assert!(
                reaches(&mut device, &sender, to, slot),
                "{slot} after {gone}"
            );
        }
    }
    for slot in [0, 2] {
        let socket = loop {
            if let Ok(socket) = UdpSocket::bind(addresses[slot as usize]) {
                break socket;
            }
        };
        device.install(slot, socket.into()).unwrap();
        device.park(0);
        assert!(reaches(
            &mut device,
            &sender,
            addresses[slot as usize],
            slot
        ));
    }
}

fn now_ns() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the time is written to a live value.
    #[allow(unsafe_code)]
    unsafe {
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now)
    };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

const FOREVER: u64 = u64::MAX;

#[test]
fn a_closed_port_takes_its_sources_and_counts_everybody_else() {
    for host in ["127.0.0.1", "::1"] {
        let Some(mut device) = open() else { return };
        let (port, address) = bind(host);
        device.install(0, port.into()).unwrap();
        device.park(0);
        let (friend, friend_address) = bind(host);
        let (other, other_address) = bind(host);
        let (stranger, _) = bind(host);
        // Open to all as long as nothing is said.
        assert!(reaches(&mut device, &stranger, address, 0));
        let closed = Admission {
            sources: [Some(friend_address), Some(other_address)],
            closed_from_ns: 0,
            silent_ns: FOREVER,
        };
        device.admit(0, &closed);
        // The program's clock may be a tick late.
        std::thread::sleep(Duration::from_millis(50));
        for _ in 0..100 {
            stranger.send_to(b"let me in", address).unwrap();
        }
        assert!(reaches(&mut device, &friend, address, 0));
        assert!(reaches(&mut device, &other, address, 0));
        let counters = device.counters();
        assert_eq!((counters.strangers, counters.received), (100, 3));
        assert_eq!(device.take_shared_drops(), 0);
        // Nobody is told that the port is closed: no ICMP comes back.
        stranger.set_nonblocking(true).unwrap();
        let error = stranger.recv(&mut [0; 16]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
        // Any port of a host.
        let host_only = SocketAddr::new(address.ip(), 0);
        let sources = [None, Some(host_only)];
        device.admit(0, &Admission { sources, ..closed });
        assert!(reaches(&mut device, &stranger, address, 0));
        // A port is open to all again when it is somebody else's.
        device.admit(0, &closed);
        close(&mut device, 0);
        let (port, address) = bind(host);
        device.install(0, port.into()).unwrap();
        device.park(0);
        assert!(reaches(&mut device, &stranger, address, 0));
        assert_eq!(device.counters().strangers, 100);
    }
}

#[test]
fn a_port_opens_while_its_source_is_silent() {
    let Some(mut device) = open() else { return };
    let (port, address) = bind("127.0.0.1");
    device.install(0, port.into()).unwrap();
    device.park(0);
    let (friend, friend_address) = bind("127.0.0.1");
    let (stranger, _) = bind("127.0.0.1");
    let admission = Admission {
        sources: [Some(friend_address), None],
        closed_from_ns: 0,
        silent_ns: 30_000_000_000,
    };
    device.admit(0, &admission);
    // Never heard: whoever comes may continue it.
    assert!(reaches(&mut device, &stranger, address, 0));
    std::thread::sleep(Duration::from_millis(50));
    assert!(reaches(&mut device, &friend, address, 0));
    stranger.send_to(b"x", address).unwrap();
    assert!(reaches(&mut device, &friend, address, 0));
    assert_eq!(device.counters().strangers, 1);
    // Not closed before its time.
    let closed_from_ns = now_ns() + 3_600_000_000_000;
    device.admit(
        0,
        &Admission {
            closed_from_ns,
            ..admission
        },
    );
    assert!(reaches(&mut device, &stranger, address, 0));
}

#[test]
fn a_full_shared_socket_drops_and_tells() {
    let Some(mut device) = open() else { return };
    let (port, address) = bind("127.0.0.1");
    device.install(0, port.into()).unwrap();
    device.park(0);
    let (sender, _) = bind("127.0.0.1");
    let sent = 30_000;
    for _ in 0..sent {
        sender.send_to(&[0; 1_000], address).unwrap();
    }
    let dropped = device.take_shared_drops();
    assert!(dropped > 0);
    assert_eq!(device.take_shared_drops(), 0);
    let mut heard = 0;
    while heard < sent - dropped {
        for packet in receive(&mut device, 1) {
            heard += 1;
            device.recycle(packet.buffer);
        }
    }
    assert_eq!(heard + dropped, sent);
}
