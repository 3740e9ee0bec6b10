//! Link and network layers down to UDP: Ethernet with VLAN tags, Linux cooked captures, raw IP,
//! BSD loopback; IPv4 and IPv6 with fragments put together.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

const ETHERNET: u32 = 1;
const RAW: [u32; 5] = [12, 14, 101, 228, 229];
const NULL: u32 = 0;
const LOOP: u32 = 108;
const COOKED: u32 = 113;
const COOKED_2: u32 = 276;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86DD;
const VLAN: [u16; 3] = [0x8100, 0x88A8, 0x9100];
const UDP: u8 = 17;
/// Datagrams whose fragments are awaited, and bytes of one.
const PARTIAL_MAX: usize = 1_024;
const DATAGRAM_MAX: usize = 65_535;
/// A fragment waits this long for the others, ns.
const FRAGMENT_AGE_NS: u64 = 30_000_000_000;

/// A UDP datagram.
#[derive(Debug, Clone)]
pub(crate) struct Datagram<'a> {
    pub(crate) utc_ns: u64,
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) payload: Cow<'a, [u8]>,
}

#[derive(PartialEq, Eq, Hash, Clone, Copy)]
struct Key {
    source: IpAddr,
    destination: IpAddr,
    id: u32,
}

struct Partial {
    since_ns: u64,
    parts: Vec<(usize, Vec<u8>)>,
    total: Option<usize>,
}

/// An IP packet's payload, perhaps a fragment.
struct Packet<'a> {
    key: Key,
    offset: usize,
    more: bool,
    payload: &'a [u8],
}

/// Turns frames into datagrams.
#[derive(Default)]
pub(crate) struct Reassembler {
    partial: HashMap<Key, Partial>,
}

impl Reassembler {
    /// The datagram that this frame completes.
    pub(crate) fn take<'a>(&mut self, record: &super::Record<'a>) -> Option<Datagram<'a>> {
        let packet = network(link(record)?)?;
        if packet.offset == 0 && !packet.more {
            let payload = Cow::Borrowed(packet.payload);
            return datagram(record.utc_ns, packet.key, payload);
        }
        let key = packet.key;
        let whole = self.add(record.utc_ns, packet)?;
        datagram(record.utc_ns, key, Cow::Owned(whole))
    }

    fn add(&mut self, now_ns: u64, packet: Packet<'_>) -> Option<Vec<u8>> {
        let end = packet.offset + packet.payload.len();
        if end > DATAGRAM_MAX {
            return None;
        }
        if self.partial.len() >= PARTIAL_MAX && !self.partial.contains_key(&packet.key) {
            self.partial
                .retain(|_, partial| now_ns.saturating_sub(partial.since_ns) < FRAGMENT_AGE_NS);
            if self.partial.len() >= PARTIAL_MAX {
                self.partial.clear();
            }
        }
        let partial = self.partial.entry(packet.key).or_insert(Partial {
            since_ns: now_ns,
            parts: Vec::new(),
            total: None,
        });
        if partial
            .parts
            .iter()
            .all(|(offset, _)| *offset != packet.offset)
        {
            partial.parts.push((packet.offset, packet.payload.to_vec()));
        }
        if !packet.more {
            partial.total = Some(end);
        }
        let total = partial.total?;
        partial.parts.sort_by_key(|(offset, _)| *offset);
        let mut whole = Vec::with_capacity(total);
        for (offset, bytes) in &partial.parts {
            if *offset > whole.len() {
                return None;
            }
            let known = whole.len() - offset;
            whole.extend_from_slice(bytes.get(known..).unwrap_or(&[]));
        }
        if whole.len() < total {
            return None;
        }
        self.partial.remove(&packet.key);
        Some(whole)
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// The IP packet in a frame.
fn link<'a>(record: &super::Record<'a>) -> Option<&'a [u8]> {
    let bytes = record.bytes;
    let (mut kind, mut at) = match record.link_type {
        ETHERNET => (word(bytes, 12)?, 14),
        COOKED => (word(bytes, 14)?, 16),
        COOKED_2 => (word(bytes, 0)?, 20),
        NULL | LOOP => return bytes.get(4..),
        link if RAW.contains(&link) => return Some(bytes),
        _ => return None,
    };
    while VLAN.contains(&kind) {
        kind = word(bytes, at + 2)?;
        at += 4;
    }
    (kind == IPV4 || kind == IPV6)
        .then(|| bytes.get(at..))
        .flatten()
}

fn network(bytes: &[u8]) -> Option<Packet<'_>> {
    match bytes.first()? >> 4 {
        4 => ipv4(bytes),
        6 => ipv6(bytes),
        _ => None,
    }
}

fn ipv4(bytes: &[u8]) -> Option<Packet<'_>> {
    let header = usize::from(bytes[0] & 0x0F) * 4;
    let total = usize::from(word(bytes, 2)?);
    let flags = word(bytes, 6)?;
    if header < 20 || *bytes.get(9)? != UDP {
        return None;
    }
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(IpAddr::from(octets))
    };
    // A length of 0: the sender's card was to fill it in.
    let end = if total == 0 {
        bytes.len()
    } else {
        total.min(bytes.len())
    };
    Some(Packet {
        key: Key {
            source: address(12)?,
            destination: address(16)?,
            id: u32::from(word(bytes, 4)?),
        },
        offset: usize::from(flags & 0x1FFF) * 8,
        more: flags & 0x2000 != 0,
        payload: bytes.get(header..end)?,
    })
}

fn ipv6(bytes: &[u8]) -> Option<Packet<'_>> {
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
        Some(IpAddr::from(octets))
    };
    let mut key = Key {
        source: address(8)?,
        destination: address(24)?,
        id: 0,
    };
    let end = (40 + usize::from(word(bytes, 4)?)).min(bytes.len());
    let (mut next, mut at) = (*bytes.get(6)?, 40);
    let (mut offset, mut more) = (0, false);
    loop {
        match next {
            UDP => break,
            // Hop-by-hop, routing and destination options.
            0 | 43 | 60 => {
                next = *bytes.get(at)?;
                at += 8 + usize::from(*bytes.get(at + 1)?) * 8;
            }
            44 => {
                let field = word(bytes, at + 2)?;
                next = *bytes.get(at)?;
                (offset, more) = (usize::from(field & 0xFFF8), field & 1 != 0);
                key.id = u32::from_be_bytes(bytes.get(at + 4..at + 8)?.try_into().ok()?);
                at += 8;
                if offset > 0 {
                    break;
                }
            }
            _ => return None,
        }
    }
    Some(Packet {
        key,
        offset,
        more,
        payload: bytes.get(at..end)?,
    })
}

fn datagram(utc_ns: u64, key: Key, bytes: Cow<'_, [u8]>) -> Option<Datagram<'_>> {
    let (source, destination) = (word(&bytes, 0)?, word(&bytes, 2)?);
    let length = usize::from(word(&bytes, 4)?);
    // 0 stands for what does not fit 16 bits, or was left to the card.
    let end = if length < 8 {
        bytes.len()
    } else {
        length.min(bytes.len())
    };
    let payload = match bytes {
        Cow::Borrowed(bytes) => Cow::Borrowed(bytes.get(8..end)?),
        Cow::Owned(bytes) => Cow::Owned(bytes.get(8..end)?.to_vec()),
    };
    Some(Datagram {
        utc_ns,
        source: SocketAddr::new(key.source, source),
        destination: SocketAddr::new(key.destination, destination),
        payload,
    })
}
