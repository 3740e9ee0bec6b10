//! One receive socket for all ports: what goes through it and what does not.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use trunkline_device::{Config, Device, Received, SlotEvent, UringDevice};

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

#[test]
fn a_number_used_at_two_addresses_reaches_both_slots() {
    let Some(mut device) = open() else { return };
    let (port, address) = bind("127.0.0.1");
    let second = UdpSocket::bind(("127.0.0.3", address.port())).unwrap();
    let second_address = second.local_addr().unwrap();
    device.install(0, port.into()).unwrap();
    device.install(1, second.into()).unwrap();
    device.park(0);
    let (sender, _) = bind("127.0.0.1");
    for (slot, to) in [(0, address), (1, second_address)] {
        sender.send_to(b"x", to).unwrap();
        let packet = receive(&mut device, 1).remove(0);
        assert_eq!(packet.slot, slot);
        device.recycle(packet.buffer);
    }
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
