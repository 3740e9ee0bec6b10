//! Free ports on loopback.

use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

/// RTP ports of one appliance; enough for a few calls with their rests.
pub const RTP_PORTS: u16 = 120;

/// A port free for UDP and TCP on 127.0.0.1, from the ephemeral range.
///
/// # Panics
/// There is none.
#[must_use]
pub fn free_port() -> u16 {
    for _ in 0..100 {
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a UDP socket");
        let port = udp.local_addr().expect("an address").port();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}

/// An even port whose four upper neighbours are free too: RTP, RTCP and room for a second stream.
///
/// # Panics
/// There is none.
#[must_use]
pub fn free_media_port() -> u16 {
    (0..100)
        .map(|_| free_port() & !1)
        .find(|port| (0..4).all(|above| UdpSocket::bind(("127.0.0.1", port + above)).is_ok()))
        .expect("free media ports")
}

/// The first of [`RTP_PORTS`] free ports below the ephemeral range; no two calls give the same.
///
/// # Panics
/// There is none.
#[must_use]
pub fn free_rtp_range() -> u16 {
    const FIRST: u32 = 10_000;
    const BLOCKS: u32 = (32_000 - FIRST) / RTP_PORTS as u32;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..BLOCKS {
        let number = NEXT
            .fetch_add(1, Ordering::Relaxed)
            .wrapping_add(std::process::id() * 7);
        let first = u16::try_from(FIRST + number % BLOCKS * u32::from(RTP_PORTS));
        let first = first.expect("below 32,000");
        let free = |port| UdpSocket::bind(("127.0.0.1", port)).is_ok();
        if (first..first + RTP_PORTS).all(free) {
            return first;
        }
    }
    panic!("no free range of ports");
}
