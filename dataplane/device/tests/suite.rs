//! One suite for every device that works on real sockets: loopback, free ports, both families.
#![allow(unsafe_code)]

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use trunkline_device::{
    BUFFER_BYTES, Config, Device, DeviceError, MmsgDevice, Received, SlotEvent, UringDevice,
};

const PATIENCE: Duration = Duration::from_secs(10);
const MILLISECOND: u64 = 1_000_000;

/// A device to test.
trait Open {
    type Opened: Device;

    fn open_with(config: &Config) -> Self::Opened;
}

struct Uring;

impl Open for Uring {
    type Opened = UringDevice;

    fn open_with(config: &Config) -> UringDevice {
        UringDevice::open(config).expect("io_uring device")
    }
}

/// With one receive socket, where that is allowed.
struct Steered;

impl Open for Steered {
    type Opened = UringDevice;

    fn open_with(config: &Config) -> UringDevice {
        let config = Config {
            steer: true,
            doorbell: config
                .doorbell
                .as_ref()
                .map(|bell| bell.try_clone().unwrap()),
            routes: config.routes.clone(),
            ..*config
        };
        let device = UringDevice::open(&config).expect("io_uring device");
        if let Err(reason) = device.steered() {
            println!("not steered: {reason}");
        }
        device
    }
}

struct Mmsg;

impl Open for Mmsg {
    type Opened = MmsgDevice;

    fn open_with(config: &Config) -> MmsgDevice {
        MmsgDevice::open(config).expect("mmsg device")
    }
}

fn small() -> Config {
    Config {
        slots_max: 1024,
        sockets_max: u32::MAX,
        buffers: 256,
        copies: 64,
        batch_max: 64,
        doorbell: None,
        steer: false,
        routes: None,
    }
}

fn bind(v6: bool) -> (UdpSocket, SocketAddr) {
    let socket = if v6 {
        UdpSocket::bind((Ipv6Addr::LOCALHOST, 0))
    } else {
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
    }
    .unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

fn peer() -> (UdpSocket, SocketAddr) {
    let (socket, address) = bind(false);
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    (socket, address)
}

fn install<D: Device>(device: &mut D, slot: u32) -> SocketAddr {
    let (socket, address) = bind(false);
    device.install(slot, socket.into()).unwrap();
    address
}

/// Runs the device until `done` says so; hands every datagram to it.
fn run<D: Device>(device: &mut D, mut done: impl FnMut(&mut D, Option<Received>) -> bool) {
    let start = Instant::now();
    let mut batch = Vec::new();
    loop {
        device.receive(&mut batch);
        let mut finished = false;
        for packet in batch.drain(..) {
            finished |= done(device, Some(packet));
        }
        if finished || done(device, None) {
            return;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "nothing more happens: {:?}",
            device.counters()
        );
        device.park(20 * MILLISECOND);
    }
}

fn wait_closed<D: Device>(device: &mut D, slot: u32) {
    run(device, |device, packet| match packet {
        Some(packet) => {
            assert_ne!(packet.slot, slot, "a datagram for a removed slot");
            device.recycle(packet.buffer);
            false
        }
        None => device.slot_event() == Some(SlotEvent::Closed { slot }),
    });
}

fn echoes_in_place<D: Open>() {
    for (v6, nonblocking) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut device = D::open_with(&small());
        let (socket, address) = bind(v6);
        socket.set_nonblocking(nonblocking).unwrap();
        device.install(7, socket.into()).unwrap();
        let (peer, peer_address) = bind(v6);
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        for text in ["first", "", "third"] {
            peer.send_to(text.as_bytes(), address).unwrap();
            run(&mut device, |device, packet| {
                let Some(mut packet) = packet else {
                    return false;
                };
                assert_eq!((packet.slot, packet.source), (7, peer_address));
                assert_eq!(&*packet.buffer, text.as_bytes());
                assert!(!packet.truncated);
                packet.buffer.make_ascii_uppercase();
                let length = packet.buffer.len();
                packet.buffer.set_len(length + 4);
                packet.buffer[length..].copy_from_slice(b"+tag");
                device.send(7, &packet.source, packet.buffer);
                device.send_copy(7, &peer_address, b"copy");
                device.flush();
                true
            });
            let mut bytes = [0; 64];
            let (length, from) = peer.recv_from(&mut bytes).unwrap();
            assert_eq!(from, address);
            assert_eq!(
                bytes[..length],
                *format!("{}+tag", text.to_uppercase()).as_bytes()
            );
            let length = peer.recv(&mut bytes).unwrap();
            assert_eq!(&bytes[..length], b"copy");
        }
        let counters = device.counters();
        assert_eq!(
            (counters.received, counters.sent, counters.send_failed),
            (3, 6, 0)
        );
    }
}

fn relays_thousands_between_many_slots<D: Open>() {
    const PAIRS: u32 = 200;
    const ROUNDS: u32 = 50;
    let mut device = D::open_with(&small());
    let mut inward = Vec::new();
    for pair in 0..PAIRS {
        inward.push(install(&mut device, pair * 2));
        install(&mut device, pair * 2 + 1);
    }
    let (sender, _) = peer();
    let (sink, sink_address) = peer();
    sink.set_nonblocking(true).unwrap();
    let mut next = vec![0_u32; PAIRS as usize];
    let mut heard = 0;
    let mut bytes = [0; 64];
    for round in 0..ROUNDS {
        for (pair, address) in inward.iter().enumerate() {
            let mut message = [0; 8];
            message[..4].copy_from_slice(&(pair as u32).to_be_bytes());
            message[4..].copy_from_slice(&round.to_be_bytes());
            sender.send_to(&message, address).unwrap();
        }
        let target = (round + 1) * PAIRS;
        run(&mut device, |device, packet| {
            if let Some(packet) = packet {
                let pair = u32::from_be_bytes(packet.buffer[..4].try_into().unwrap());
                assert_eq!(packet.slot, pair * 2);
                device.send(packet.slot + 1, &sink_address, packet.buffer);
                return false;
            }
            device.flush();
            while let Ok(length) = sink.recv(&mut bytes) {
                assert_eq!(length, 8);
                let pair = u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
                assert_eq!(
                    u32::from_be_bytes(bytes[4..8].try_into().unwrap()),
                    next[pair]
                );
                next[pair] += 1;
                heard += 1;
            }
            heard == target
        });
    }
    assert_eq!(device.counters().sent, u64::from(PAIRS * ROUNDS));
    assert_eq!(device.counters().cq_overflow, 0);
}

fn a_slot_is_reused_only_after_its_socket_is_closed<D: Open>() {
    let mut device = D::open_with(&small());
    let (sender, _) = peer();
    let mut address = install(&mut device, 9);
    for round in 0..100_u32 {
        for _ in 0..5 {
            sender.send_to(&round.to_be_bytes(), address).unwrap();
        }
        if round % 2 == 0 {
            run(&mut device, |device, packet| {
                let Some(packet) = packet else { return false };
                assert_eq!(*packet.buffer, round.to_be_bytes());
                device.recycle(packet.buffer);
                true
            });
        }
        device.remove(9).unwrap();
        assert!(matches!(device.remove(9), Err(DeviceError::SlotEmpty(9))));
        wait_closed(&mut device, 9);
        let again = UdpSocket::bind(address).expect("the port is free once the slot is");
        if round % 4 < 2 {
            device.install(9, again.into()).unwrap();
        } else {
            address = install(&mut device, 9);
        }
    }
    let (socket, _) = bind(false);
    assert!(matches!(
        device.install(9, socket.into()),
        Err(DeviceError::SlotBusy(9))
    ));
    let (socket, _) = bind(false);
    assert!(matches!(
        device.install(5000, socket.into()),
        Err(DeviceError::SlotRange(5000))
    ));
}

fn running_out_of_buffers_loses_nothing_the_sockets_can_hold<D: Open>() {
    let config = Config {
        buffers: 64,
        copies: 0,
        ..small()
    };
    let mut device = D::open_with(&config);
    let addresses: Vec<_> = (0..4).map(|slot| install(&mut device, slot)).collect();
    let (sender, _) = peer();
    for number in 0..400_u32 {
        sender
            .send_to(&number.to_be_bytes(), addresses[number as usize % 4])
            .unwrap();
    }
    let mut next: Vec<u32> = (0..4).collect();
    for _ in 0..20 {
        let mut held = Vec::new();
        let start = Instant::now();
        while device.counters().buffers_exhausted == 0 && start.elapsed() < PATIENCE {
            device.receive(&mut held);
            device.park(MILLISECOND);
        }
        for packet in held.drain(..) {
            assert_eq!(*packet.buffer, next[packet.slot as usize].to_be_bytes());
            next[packet.slot as usize] += 4;
            device.recycle(packet.buffer);
        }
    }
    assert!(device.counters().buffers_exhausted > 0);
    run(&mut device, |device, packet| {
        if let Some(packet) = packet {
            assert_eq!(*packet.buffer, next[packet.slot as usize].to_be_bytes());
            next[packet.slot as usize] += 4;
            device.recycle(packet.buffer);
        }
        next == [400, 401, 402, 403]
    });
}

fn an_icmp_error_does_not_end_reception<D: Open>() {
    let mut device = D::open_with(&small());
    let (socket, address) = bind(false);
    let (gone, gone_address) = peer();
    socket.connect(gone_address).unwrap();
    device.install(0, socket.into()).unwrap();
    drop(gone);
    device.send_copy(0, &gone_address, b"into the void");
    device.flush();
    run(&mut device, |device, _| device.counters().icmp_errors > 0);
    let back = UdpSocket::bind(gone_address).unwrap();
    back.send_to(b"here again", address).unwrap();
    run(&mut device, |device, packet| {
        packet.is_some_and(|packet| {
            assert_eq!(&*packet.buffer, b"here again");
            device.recycle(packet.buffer);
            true
        })
    });
}

fn what_fills_its_buffer_is_flagged<D: Open>() {
    let mut device = D::open_with(&small());
    let address = install(&mut device, 0);
    let (sender, source) = peer();
    let sizes = [
        1,
        BUFFER_BYTES - 1,
        BUFFER_BYTES,
        BUFFER_BYTES + 1,
        60_000,
        0,
        3,
    ];
    let mut seen = Vec::new();
    for size in sizes {
        sender.send_to(&vec![0x55; size], address).unwrap();
        run(&mut device, |device, packet| {
            let Some(packet) = packet else { return false };
            assert_eq!(packet.source, source);
            assert_eq!(packet.buffer.len(), size.min(BUFFER_BYTES));
            assert!(packet.buffer.iter().all(|byte| *byte == 0x55));
            seen.push(packet.truncated);
            device.recycle(packet.buffer);
            true
        });
    }
    assert_eq!(seen, [false, false, true, true, true, false, false]);
    assert_eq!(device.counters().truncated, 3);
}

fn refused_sends_are_counted_and_their_buffers_come_back<D: Open>() {
    let mut device = D::open_with(&small());
    install(&mut device, 0);
    let v6: SocketAddr = "[::1]:9".parse().unwrap();
    let port_zero: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let (_keep, good) = peer();
    for _ in 0..1000 {
        device.send_copy(0, &v6, b"wrong family");
        device.send_copy(0, &port_zero, b"no port");
        device.send_copy(3, &good, b"empty slot");
        device.send_copy(9999, &good, b"no such slot");
        device.send_copy(0, &good, b"fine");
        device.flush();
    }
    run(&mut device, |device, _| {
        device.counters().send_failed == 4000
    });
    assert_eq!(device.counters().sent, 1000);
    device.send_copy(0, &good, &[0; BUFFER_BYTES + 1]);
    assert_eq!(device.counters().send_failed, 4001);
}

fn sends_queued_before_a_removal_go_out<D: Open>() {
    let mut device = D::open_with(&small());
    let (listener, to) = peer();
    for _ in 0..20 {
        install(&mut device, 0);
        device.send_copy(0, &to, b"goodbye");
        device.remove(0).unwrap();
        wait_closed(&mut device, 0);
        let mut bytes = [0; 16];
        assert_eq!(listener.recv(&mut bytes).unwrap(), 7);
    }
    assert_eq!(device.counters().send_failed, 0);
}

fn what_is_no_socket_is_refused<D: Open>() {
    let mut device = D::open_with(&small());
    let file = std::fs::File::open("/dev/null").unwrap();
    if device.install(4, file.into()).is_ok() {
        run(&mut device, |device, _| {
            matches!(device.slot_event(), Some(SlotEvent::Failed { slot: 4, .. }))
        });
    }
    let address = install(&mut device, 4);
    let (sender, _) = peer();
    sender.send_to(b"works", address).unwrap();
    run(&mut device, |device, packet| {
        packet.map(|packet| device.recycle(packet.buffer)).is_some()
    });
}

fn eventfd() -> OwnedFd {
    // SAFETY: eventfd takes no pointers and returns a descriptor that is ours alone.
    unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK)) }
}

fn ring(doorbell: &OwnedFd) {
    // SAFETY: writes the 8 bytes of a live u64.
    let written = unsafe { libc::write(doorbell.as_raw_fd(), (&raw const ONE).cast(), 8) };
    assert_eq!(written, 8);
}

static ONE: u64 = 1;

fn the_doorbell_ends_a_park<D: Open>() {
    let doorbell = eventfd();
    let config = Config {
        doorbell: Some(doorbell.try_clone().unwrap()),
        ..small()
    };
    let mut device = D::open_with(&config);
    let address = install(&mut device, 0);
    device.park(10 * MILLISECOND);
    for round in 0..20 {
        let bell = doorbell.try_clone().unwrap();
        let bell_ringer = std::thread::spawn(move || {
            if round % 2 == 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
            ring(&bell);
        });
        let start = Instant::now();
        while !device.park(5_000 * MILLISECOND).doorbell {
            assert!(start.elapsed() < PATIENCE);
        }
        bell_ringer.join().unwrap();
    }
    assert_eq!(device.park(MILLISECOND), trunkline_device::Wake::default());
    let (sender, _) = peer();
    sender.send_to(b"x", address).unwrap();
    ring(&doorbell);
    let (mut rung, mut heard) = (false, false);
    let mut batch = Vec::new();
    while !(rung && heard) {
        rung |= device.park(5_000 * MILLISECOND).doorbell;
        heard |= device.receive(&mut batch) > 0;
    }
    batch
        .drain(..)
        .for_each(|packet| device.recycle(packet.buffer));
}

fn a_park_lasts_to_its_deadline_and_costs_nothing<D: Open>() {
    let mut device = D::open_with(&small());
    install(&mut device, 0);
    device.park(MILLISECOND);
    let before = thread_cpu_ns();
    let start = Instant::now();
    for _ in 0..10 {
        let wake = device.park(30 * MILLISECOND);
        assert_eq!(wake, trunkline_device::Wake::default());
    }
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert!(
        thread_cpu_ns() - before < 50 * MILLISECOND,
        "a park that burns CPU"
    );
}

fn a_spinning_worker_hears_everything<D: Open>() {
    let doorbell = eventfd();
    let config = Config {
        doorbell: Some(doorbell.try_clone().unwrap()),
        buffers: 64,
        ..small()
    };
    let mut device = D::open_with(&config);
    let address = install(&mut device, 0);
    let (sender, _) = peer();
    for round in 0..50_u32 {
        for number in 0..5_u32 {
            sender
                .send_to(&(round * 5 + number).to_be_bytes(), address)
                .unwrap();
        }
        if round % 10 == 9 {
            ring(&doorbell);
        }
        let (mut heard, mut rung) = (0, round % 10 != 9);
        let start = Instant::now();
        let mut batch = Vec::new();
        while heard < 5 || !rung {
            device.receive(&mut batch);
            for packet in batch.drain(..) {
                assert_eq!(*packet.buffer, (round * 5 + heard).to_be_bytes());
                heard += 1;
                device.recycle(packet.buffer);
            }
            rung |= device.park(0).doorbell;
            assert!(start.elapsed() < PATIENCE);
        }
    }
    let calls = device.counters().syscalls;
    for _ in 0..1000 {
        device.receive(&mut Vec::new());
        device.park(0);
    }
    assert!(device.name() != "uring" || device.counters().syscalls < calls + 10);
}

fn thread_cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

fn a_flooded_socket_does_not_starve_the_others<D: Open>() {
    let mut device = D::open_with(&small());
    let addresses: Vec<_> = (0..3).map(|slot| install(&mut device, slot)).collect();
    let (sender, _) = peer();
    for _ in 0..150 {
        sender.send_to(b"flood", addresses[0]).unwrap();
    }
    sender.send_to(b"one", addresses[1]).unwrap();
    sender.send_to(b"two", addresses[2]).unwrap();
    let mut order = Vec::new();
    run(&mut device, |device, packet| {
        if let Some(packet) = packet {
            order.push(packet.slot);
            device.recycle(packet.buffer);
        }
        order.len() == 152
    });
    assert!(
        order.iter().position(|slot| *slot == 1) < Some(151),
        "starved: {order:?}"
    );
}

fn a_paused_slot_is_left_unread_until_it_is_resumed<D: Open>() {
    let mut device = D::open_with(&small());
    let paused = install(&mut device, 0);
    let other = install(&mut device, 1);
    let (sender, sender_address) = peer();
    assert!(!device.pause(5), "an empty slot");
    for turn in 0..3_u8 {
        assert!(device.pause(0));
        assert!(!device.pause(0));
        // The kernel learns of it with the next entry.
        device.park(MILLISECOND);
        sender.send_to(&[turn], paused).unwrap();
        sender.send_to(&[turn], other).unwrap();
        run(&mut device, |device, packet| {
            let Some(packet) = packet else { return false };
            assert_eq!(packet.slot, 1);
            device.recycle(packet.buffer);
            true
        });
        device.send_copy(0, &sender_address, b"sends go on");
        device.flush();
        sender.recv(&mut [0; 64]).unwrap();
        device.resume(0);
        device.resume(0);
        // What came meanwhile waited, or was dropped and counted.
        if device.take_unread_drops(0) == 1 {
            sender.send_to(&[turn], paused).unwrap();
        }
        run(&mut device, |device, packet| {
            let Some(packet) = packet else { return false };
            assert_eq!((packet.slot, packet.buffer[0]), (0, turn));
            device.recycle(packet.buffer);
            true
        });
    }
    // Resumed at once, before the kernel has ended anything.
    device.pause(0);
    device.resume(0);
    sender.send_to(b"heard", paused).unwrap();
    run(&mut device, |device, packet| {
        packet.is_some_and(|packet| {
            device.recycle(packet.buffer);
            true
        })
    });
    device.pause(0);
    device.remove(0).unwrap();
    wait_closed(&mut device, 0);
    assert_eq!(device.counters().receive_errors, 0);
    let again = install(&mut device, 0);
    sender.send_to(b"a new socket is read", again).unwrap();
    run(&mut device, |device, packet| {
        packet.is_some_and(|packet| {
            device.recycle(packet.buffer);
            true
        })
    });
}

fn a_dropped_device_frees_its_ports<D: Open>() {
    let mut device = D::open_with(&small());
    let addresses: Vec<_> = (0..50).map(|slot| install(&mut device, slot)).collect();
    device.park(MILLISECOND);
    drop(device);
    let start = Instant::now();
    for address in addresses {
        while UdpSocket::bind(address).is_err() {
            assert!(start.elapsed() < PATIENCE, "port still bound");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

macro_rules! suite {
    ($($case:ident),* $(,)?) => {
        mod uring {
            $(#[test] fn $case() { super::$case::<super::Uring>(); })*
        }
        mod steered {
            $(#[test] fn $case() { super::$case::<super::Steered>(); })*
        }
        mod mmsg {
            $(#[test] fn $case() { super::$case::<super::Mmsg>(); })*
        }
    };
}

suite!(
    echoes_in_place,
    relays_thousands_between_many_slots,
    a_slot_is_reused_only_after_its_socket_is_closed,
    running_out_of_buffers_loses_nothing_the_sockets_can_hold,
    an_icmp_error_does_not_end_reception,
    what_fills_its_buffer_is_flagged,
    refused_sends_are_counted_and_their_buffers_come_back,
    sends_queued_before_a_removal_go_out,
    what_is_no_socket_is_refused,
    the_doorbell_ends_a_park,
    a_park_lasts_to_its_deadline_and_costs_nothing,
    a_spinning_worker_hears_everything,
    a_flooded_socket_does_not_starve_the_others,
    a_paused_slot_is_left_unread_until_it_is_resumed,
    a_dropped_device_frees_its_ports,
);
