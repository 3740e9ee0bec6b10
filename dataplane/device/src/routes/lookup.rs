//! What the kernel is asked: the route to an address, a neighbour, an interface, and whether
//! anything stands between a socket and the wire that frames of ours would pass by.

use std::io;
use std::net::IpAddr;

use super::netlink::{Attributes, Message, Netlink, put, word};

/// Hardware address of an Ethernet interface.
pub(crate) type Mac = [u8; 6];

/// `struct rtmsg`, `struct ndmsg`, `struct ifinfomsg`, `struct fib_rule_hdr`.
const ROUTE_HEADER_BYTES: usize = 12;
const NEIGHBOUR_HEADER_BYTES: usize = 12;
const LINK_HEADER_BYTES: usize = 16;
const RULE_HEADER_BYTES: usize = 12;

const ROUTE_METRIC_MTU: u16 = 2;
const ROUTE_METRIC_HOP_LIMIT: u16 = 10;
const ROUTE_VIA: u16 = 18;
const ROUTE_ENCAPSULATION: u16 = 22;
/// Answer with the route itself rather than with what a lookup of it chose.
const ROUTE_AS_WRITTEN: u32 = 0x2000;

const LINK_ADDRESS: u16 = 1;
const LINK_MTU: u16 = 4;
const ETHERNET: u16 = 1;

const RULE_PRIORITY: u16 = 6;
const RULE_TABLE: u16 = 15;
const RULE_PROTOCOL: u16 = 22;
const RULE_SOURCE_PORTS: u16 = 23;
const RULE_DESTINATION_PORTS: u16 = 24;
/// What an untouched machine has: priority and table.
const USUAL_RULES: [(u32, u32); 3] = [(0, 255), (32766, 254), (32767, 253)];

const NETFILTER_LIST_TABLES: u16 = 10 << 8 | 1;
const TRANSFORM_LIST_POLICIES: u16 = 0x15;

/// Neighbour states in which the hardware address is good (`NUD_VALID`).
const NEIGHBOUR_VALID: u16 = libc::NUD_PERMANENT
    | libc::NUD_NOARP
    | libc::NUD_REACHABLE
    | libc::NUD_PROBE
    | libc::NUD_STALE
    | libc::NUD_DELAY;

/// Where datagrams to an address leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way {
    /// Interface, by the kernel's number.
    pub(super) interface: u32,
    /// The gateway, or the address itself.
    pub(super) next: IpAddr,
    /// Largest IP packet, in bytes, as far as the route knows; `u32::MAX` = as the interface.
    pub(super) mtu: u32,
}

/// An Ethernet interface that is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) mac: Mac,
    pub(super) mtu: u32,
}

/// What the kernel knows of a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Neighbour {
    /// Where it is, when that is known.
    pub(super) mac: Option<Mac>,
    /// The kernel doubts it and would ask again if it were used.
    pub(super) stale: bool,
}

impl Neighbour {
    pub(super) const UNKNOWN: Self = Self {
        mac: None,
        stale: false,
    };
}

fn family(address: IpAddr) -> u8 {
    (if address.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    }) as u8
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(four) => four.octets().to_vec(),
        IpAddr::V6(six) => six.octets().to_vec(),
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(four.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// What one answer to a route request says; `None`: not for frames.
#[derive(Clone, Copy)]
struct Answer {
    interface: u32,
    gateway: Option<IpAddr>,
    mtu: u32,
}

fn read_route(message: Message<'_>) -> Option<Answer> {
    if message.byte(7) != libc::RTN_UNICAST {
        return None;
    }
    let (mut interface, mut gateway, mut mtu) = (None, None, u32::MAX);
    for (kind, value) in message.attributes(ROUTE_HEADER_BYTES) {
        match kind {
            libc::RTA_OIF => interface = word(value),
            libc::RTA_GATEWAY => gateway = Some(address(value)?),
            // Several next hops are chosen from by flow; the others need more than Ethernet.
            libc::RTA_MULTIPATH | ROUTE_VIA | ROUTE_ENCAPSULATION => return None,
            libc::RTA_METRICS => {
                for (metric, value) in Attributes(value) {
                    match metric {
                        ROUTE_METRIC_MTU => mtu = word(value)?,
                        ROUTE_METRIC_HOP_LIMIT => return None,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(Answer {
        interface: interface?,
        gateway,
        mtu,
    })
}

/// The way from one of our addresses to another's, `None` where it is not one Ethernet neighbour.
pub(super) fn way(netlink: &mut Netlink, source: IpAddr, destination: IpAddr) -> Option<Way> {
    if source.is_ipv4() != destination.is_ipv4() {
        return None;
    }
    let mut ask = |flags: u32| {
        let bits = if source.is_ipv4() { 32 } else { 128 };
        let mut body = vec![family(destination), bits, bits, 0, 0, 0, 0, 0];
        body.extend(flags.to_ne_bytes());
        put(&mut body, libc::RTA_DST, &octets(destination));
        put(&mut body, libc::RTA_SRC, &octets(source));
        let mut answer = None;
        netlink
            .ask(libc::RTM_GETROUTE, 0, &body, |message| {
                answer = read_route(message);
            })
            .ok()?;
        answer
    };
    // The first says whether the route is plain, the second what holds for this destination.
    let written = ask(ROUTE_AS_WRITTEN)?;
    let chosen = ask(0)?;
    (written.interface == chosen.interface).then(|| Way {
        interface: chosen.interface,
        next: chosen.gateway.unwrap_or(destination),
        mtu: chosen.mtu.min(written.mtu),
    })
}

/// An interface, `None` where it is not Ethernet, or down.
pub(super) fn link(netlink: &mut Netlink, interface: u32) -> Option<Link> {
    const WANTED: u32 = (libc::IFF_UP | libc::IFF_LOWER_UP) as u32;
    const UNWANTED: u32 = (libc::IFF_LOOPBACK | libc::IFF_NOARP | libc::IFF_POINTOPOINT) as u32;
    let mut body = [0; LINK_HEADER_BYTES];
    body[4..8].copy_from_slice(&interface.to_ne_bytes());
    let mut found = None;
    netlink
        .ask(libc::RTM_GETLINK, 0, &body, |message| {
            let (kind, flags) = (message.half(2), message.word(8));
            if kind != ETHERNET || flags & (WANTED | UNWANTED) != WANTED {
                return;
            }
            let (mut mac, mut mtu) = (None, None);
            for (kind, value) in message.attributes(LINK_HEADER_BYTES) {
                match kind {
                    LINK_ADDRESS => mac = Mac::try_from(value).ok(),
                    LINK_MTU => mtu = word(value),
                    _ => {}
                }
            }
            found = mac.zip(mtu).map(|(mac, mtu)| Link { mac, mtu });
        })
        .ok()?;
    found
}

/// Whom a notification is about (interface and address), and what is known of it now.
pub(super) fn read_neighbour(message: Message<'_>) -> Option<(u32, IpAddr, Neighbour)> {
    let (interface, state) = (message.word(4), message.half(8));
    let (mut of, mut mac) = (None, None);
    for (kind, value) in message.attributes(NEIGHBOUR_HEADER_BYTES) {
        match kind {
            libc::NDA_DST => of = address(value),
            libc::NDA_LLADDR => mac = Mac::try_from(value).ok(),
            _ => {}
        }
    }
    let there = message.kind == libc::RTM_NEWNEIGH && state & NEIGHBOUR_VALID != 0;
    let neighbour = Neighbour {
        mac: mac.filter(|_| there),
        stale: state & libc::NUD_STALE != 0,
    };
    Some((interface, of?, neighbour))
}

fn neighbour_body(interface: u32, of: IpAddr, flags: u8) -> Vec<u8> {
    let mut body = vec![family(of), 0, 0, 0];
    body.extend(interface.to_ne_bytes());
    body.extend(libc::NUD_NONE.to_ne_bytes());
    body.extend([flags, 0]);
    put(&mut body, libc::NDA_DST, &octets(of));
    body
}

/// What the kernel knows of a neighbour now.
pub(super) fn neighbour(netlink: &mut Netlink, interface: u32, of: IpAddr) -> Neighbour {
    let body = neighbour_body(interface, of, 0);
    let mut found = Neighbour::UNKNOWN;
    // An error means that there is no such neighbour.
    let _ = netlink.ask(libc::RTM_GETNEIGH, 0, &body, |message| {
        if let Some((.., neighbour)) = read_neighbour(message) {
            found = neighbour;
        }
    });
    found
}

/// Has the kernel behave as if it had just sent to a neighbour: one that it doubts is asked.
pub(super) fn use_neighbour(netlink: &mut Netlink, interface: u32, of: IpAddr) {
    let body = neighbour_body(interface, of, libc::NTF_USE);
    // One that is gone meanwhile is told of by notification.
    let _ = netlink.ask(libc::RTM_NEWNEIGH, libc::NLM_F_ACK, &body, |_| ());
}

/// What sends of ours would get round although it holds for datagrams.
pub(super) struct Obstacles {
    /// Why there may be no frames: packet filters, encryption, routes by more than addresses.
    pub(super) to_frames: Option<String>,
    /// Whether there may be no IP packets by raw socket either: encryption, or routes by protocol or
    /// port.
    pub(super) to_packets: bool,
}

/// Looks for all of them.
pub(super) fn obstacles(netlink: &mut Netlink) -> Obstacles {
    let rules = rules(netlink);
    let policies = has_any(libc::NETLINK_XFRM, TRANSFORM_LIST_POLICIES, &[]);
    let by_port = !matches!(&rules, Ok(rules) if !rules.by_port);
    let to_packets = by_port || !matches!(policies, Ok(false));
    Obstacles {
        to_frames: to_frames(rules, policies),
        to_packets,
    }
}

fn to_frames(rules: io::Result<Rules>, policies: io::Result<bool>) -> Option<String> {
    match rules {
        Ok(rules) if !rules.unusual => {}
        Ok(_) => return Some("there are routing rules (ip rule)".to_owned()),
        Err(error) => return Some(format!("cannot read routing rules: {error}")),
    }
    let tables = has_any(libc::NETLINK_NETFILTER, NETFILTER_LIST_TABLES, &[0; 4]);
    for (found, what) in [
        (tables, "nftables has tables"),
        (policies, "there are IPsec policies"),
    ] {
        match found {
            Ok(false) => {}
            Ok(true) => return Some(what.to_owned()),
            Err(error) => return Some(format!("cannot tell whether {what}: {error}")),
        }
    }
    for file in ["ip_tables_names", "ip6_tables_names"] {
        match std::fs::read_to_string(format!("/proc/thread-self/net/{file}")) {
            Ok(names) if names.trim().is_empty() => {}
            Ok(_) => return Some("iptables has tables".to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Some(format!("cannot tell whether iptables has tables: {error}")),
        }
    }
    None
}

/// What routing rules look at.
#[derive(Default)]
struct Rules {
    /// At more than an untouched machine's.
    unusual: bool,
    /// At the protocol or ports.
    by_port: bool,
}

fn rules(netlink: &mut Netlink) -> io::Result<Rules> {
    let mut found = Rules::default();
    for family in [libc::AF_INET, libc::AF_INET6] {
        rules_of(netlink, family as u8, &mut found)?;
    }
    Ok(found)
}

fn rules_of(netlink: &mut Netlink, family: u8, found: &mut Rules) -> io::Result<()> {
    const TO_TABLE: u8 = 1;
    let mut body = [0; RULE_HEADER_BYTES];
    body[0] = family;
    let asked = netlink.ask(libc::RTM_GETRULE, libc::NLM_F_DUMP, &body, |message| {
        let (mut priority, mut table) = (0, u32::from(message.byte(4)));
        for (kind, value) in message.attributes(RULE_HEADER_BYTES) {
            match kind {
                RULE_PRIORITY => priority = word(value).unwrap_or(u32::MAX),
                RULE_TABLE => table = word(value).unwrap_or(u32::MAX),
                RULE_PROTOCOL | RULE_SOURCE_PORTS | RULE_DESTINATION_PORTS => found.by_port = true,
                _ => {}
            }
        }
        // Source and destination lengths, type of service: 0 = for everything.
        let for_all = message.body.get(1..4) == Some(&[0; 3]);
        let usual = USUAL_RULES.contains(&(priority, table));
        found.unusual |= !for_all || !usual || message.byte(7) != TO_TABLE;
    });
    match asked {
        // A kernel without them, or without the family.
        Err(error) if !is_absent(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Whether a list of another netlink family holds anything.
fn has_any(family: libc::c_int, kind: u16, body: &[u8]) -> io::Result<bool> {
    let mut any = false;
    let asked = Netlink::open(family, 0)
        .and_then(|mut netlink| netlink.ask(kind, libc::NLM_F_DUMP, body, |_| any = true));
    match asked {
        Ok(()) => Ok(any),
        Err(error) if is_absent(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The kernel does not have what was asked for.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EPROTONOSUPPORT
                | libc::EAFNOSUPPORT
                | libc::EOPNOTSUPP
                | libc::EINVAL
                | libc::ENOENT
        )
    )
}
