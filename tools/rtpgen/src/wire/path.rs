//! Which interface and which neighbour a frame goes to.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use super::frame::Macs;

/// An interface to send from or to receive on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Interface {
    pub(crate) index: u32,
    pub(crate) mac: [u8; 6],
}

/// The interface that has an address; the loopback is none.
pub(crate) fn interface_of(address: IpAddr) -> Option<Interface> {
    let all: Vec<_> = getifaddrs().ok()?.collect();
    let name = all.iter().find_map(|entry| {
        let own = entry.address.as_ref()?.as_sockaddr_in()?.ip();
        let loopback = entry.flags.contains(InterfaceFlags::IFF_LOOPBACK);
        (IpAddr::V4(own) == address && !loopback).then(|| entry.interface_name.clone())
    })?;
    all.iter()
        .filter(|entry| entry.interface_name == name)
        .find_map(|entry| {
            let link = entry.address.as_ref()?.as_link_addr()?;
            Some(Interface {
                index: u32::try_from(link.ifindex()).ok()?,
                mac: link.addr()?,
            })
        })
}

/// The link from `local` to `to`: whom to hand frames to. The neighbour is asked for first.
pub(crate) fn link(local: Ipv4Addr, to: Ipv4Addr) -> io::Result<(Interface, Macs)> {
    let missing = |what: &str| io::Error::new(io::ErrorKind::NotFound, what.to_owned());
    let interface =
        interface_of(local.into()).ok_or_else(|| missing("no interface with that address"))?;
    let hop = next_hop(to).ok_or_else(|| missing("no route"))?;
    for _ in 0..20 {
        if let Some(mac) = neighbour(hop) {
            let macs = Macs {
                from: interface.mac,
                to: mac,
            };
            return Ok((interface, macs));
        }
        // Any datagram makes the kernel ask who has the address; 9 is discard.
        let probe = UdpSocket::bind((local, 0))?;
        let _ = probe.send_to(&[], SocketAddr::new(hop.into(), 9));
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(io::Error::new(
        io::ErrorKind::HostUnreachable,
        format!("{hop} does not answer ARP"),
    ))
}

/// The router on the way to an address, or the address itself (`/proc/net/route`).
fn next_hop(to: Ipv4Addr) -> Option<Ipv4Addr> {
    let text = std::fs::read_to_string("/proc/thread-self/net/route").ok()?;
    let address = |hex: &str| {
        let value = u32::from_str_radix(hex, 16).ok()?;
        Some(Ipv4Addr::from(value.to_ne_bytes()))
    };
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let destination = address(fields.get(1)?)?;
            let gateway = address(fields.get(2)?)?;
            let mask = address(fields.get(7)?)?;
            let fits = to.to_bits() & mask.to_bits() == destination.to_bits();
            fits.then_some((mask.to_bits(), gateway))
        })
        .max_by_key(|(mask, _)| *mask)
        .map(|(_, gateway)| {
            if gateway.is_unspecified() {
                to
            } else {
                gateway
            }
        })
}

fn neighbour(hop: Ipv4Addr) -> Option<[u8; 6]> {
    let text = std::fs::read_to_string("/proc/thread-self/net/arp").ok()?;
    let hop = hop.to_string();
    text.lines().skip(1).find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        // Flag 2: complete.
        let flags = u32::from_str_radix(fields.get(2)?.trim_start_matches("0x"), 16).ok()?;
        if *fields.first()? != hop || flags & 2 == 0 {
            return None;
        }
        let mut mac = [0; 6];
        let mut parts = fields.get(3)?.split(':');
        for byte in &mut mac {
            *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
        }
        Some(mac)
    })
}
