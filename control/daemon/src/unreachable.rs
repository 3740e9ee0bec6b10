//! What the network says of packets that could not be delivered: ICMP errors, whoever of us sent the packet.
//!
//! It takes the right to open raw sockets (`CAP_NET_RAW`). Without it nothing is heard, and that a recorder's
//! media port is closed shows only when its RTCP stops.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::mpsc;

/// The header of an ICMP error, before the packet that it is about.
const ICMP_BYTES: usize = 8;
/// Number of UDP as a protocol.
const UDP: u8 = 17;

/// A UDP packet of ours that was not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Undelivered {
    /// The port that it was sent from.
    pub local_port: u16,
    /// Where it was to go.
    pub remote: SocketAddr,
}

/// Hears from now on; false when that is not allowed. What comes while the receiver is behind is left out.
pub fn listen(heard: &mpsc::Sender<Undelivered>) -> bool {
    let mut hears = false;
    for (domain, protocol, read) in [
        (Domain::IPV4, Protocol::ICMPV4, ipv4 as Parse),
        (Domain::IPV6, Protocol::ICMPV6, ipv6),
    ] {
        let Ok(socket) = Socket::new(domain, Type::RAW, Some(protocol)) else {
            continue;
        };
        let heard = heard.clone();
        let thread = std::thread::Builder::new().name("icmp".to_owned());
        hears |= thread.spawn(move || follow(&socket, read, &heard)).is_ok();
    }
    hears
}

type Parse = fn(&[u8]) -> Option<Undelivered>;

fn follow(mut socket: &Socket, read: Parse, heard: &mpsc::Sender<Undelivered>) {
    let mut buffer = [0; 2048];
    while let Ok(length) = socket.read(&mut buffer) {
        if let Some(undelivered) = read(&buffer[..length])
            && let Err(mpsc::error::TrySendError::Closed(_)) = heard.try_send(undelivered)
        {
            return;
        }
    }
}

/// An IPv4 packet with "destination unreachable": net, host, protocol or port.
fn ipv4(packet: &[u8]) -> Option<Undelivered> {
    let icmp = packet.get(ipv4_header(packet)?..)?;
    if !matches!(icmp.get(..2)?, [3, 0..=3]) {
        return None;
    }
    let sent = icmp.get(ICMP_BYTES..)?;
    if *sent.get(9)? != UDP {
        return None;
    }
    let to: [u8; 4] = sent.get(16..20)?.try_into().ok()?;
    undelivered(sent.get(ipv4_header(sent)?..)?, Ipv4Addr::from(to).into())
}

fn ipv4_header(packet: &[u8]) -> Option<usize> {
    Some(usize::from(packet.first()? & 0x0f) * 4)
}

/// An ICMPv6 "destination unreachable": no route, address or port.
fn ipv6(icmp: &[u8]) -> Option<Undelivered> {
    if !matches!(icmp.get(..2)?, [1, 0 | 3 | 4]) {
        return None;
    }
    let sent = icmp.get(ICMP_BYTES..)?;
    if *sent.get(6)? != UDP {
        return None;
    }
    let to: [u8; 16] = sent.get(24..40)?.try_into().ok()?;
    undelivered(sent.get(40..)?, Ipv6Addr::from(to).into())
}

fn undelivered(udp: &[u8], to: IpAddr) -> Option<Undelivered> {
    let port = |at: usize| Some(u16::from_be_bytes(udp.get(at..at + 2)?.try_into().ok()?));
    Some(Undelivered {
        local_port: port(0)?,
        remote: SocketAddr::new(to, port(2)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From port 4000 to 192.0.2.9:5004, undelivered for this reason.
    fn error(kind: u8, code: u8, protocol: u8) -> Vec<u8> {
        let mut sent = vec![0x45; 20];
        sent[9] = protocol;
        sent[16..20].copy_from_slice(&[192, 0, 2, 9]);
        sent.extend(4000_u16.to_be_bytes());
        sent.extend(5004_u16.to_be_bytes());
        let mut packet = vec![0x45; 20];
        packet.extend([kind, code, 0, 0, 0, 0, 0, 0]);
        packet.extend(sent);
        packet
    }

    #[test]
    fn an_error_names_the_port_and_the_destination() {
        let expected = Undelivered {
            local_port: 4000,
            remote: "192.0.2.9:5004".parse().expect("an address"),
        };
        assert_eq!(ipv4(&error(3, 3, UDP)), Some(expected));
        // "Packet too big", an echo, and what is not about UDP say nothing of a port.
        for other in [error(3, 4, UDP), error(8, 0, UDP), error(3, 3, 6)] {
            assert_eq!(ipv4(&other), None);
        }
        let whole = error(3, 3, UDP);
        for length in 0..whole.len() {
            assert_eq!(ipv4(&whole[..length]), None, "{length} bytes");
        }
    }

    #[test]
    fn an_ipv6_error_names_them_too() {
        let to: Ipv6Addr = "2001:db8::9".parse().expect("an address");
        let mut packet = vec![1, 4, 0, 0, 0, 0, 0, 0];
        let mut sent = vec![0; 40];
        sent[6] = UDP;
        sent[24..40].copy_from_slice(&to.octets());
        sent.extend(4000_u16.to_be_bytes());
        sent.extend(5004_u16.to_be_bytes());
        packet.extend(sent);
        let expected = Undelivered {
            local_port: 4000,
            remote: SocketAddr::new(to.into(), 5004),
        };
        assert_eq!(ipv6(&packet), Some(expected));
        packet[0] = 3;
        assert_eq!(ipv6(&packet), None);
    }
}
