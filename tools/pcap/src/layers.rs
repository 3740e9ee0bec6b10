//! Link and network layers down to UDP and TCP: Ethernet with VLAN tags, Linux cooked captures, raw IP,
//! BSD loopback; IPv4 and IPv6 with fragments put together.

use crate::capture_file::Record;
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
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Datagrams whose fragments are awaited, and bytes of one.
const PARTIAL_MAX: usize = 256;
const DATAGRAM_MAX: usize = 65_535;
/// Bytes of all fragments of one, overlaps included.
const FRAGMENTS_MAX: usize = 2 * DATAGRAM_MAX;
/// A fragment waits this long for the others, ns.
const FRAGMENT_AGE_NS: u64 = 30_000_000_000;

/// A UDP datagram.
#[derive(Debug, Clone)]
pub struct Datagram<'a> {
    /// See [`Record::utc_ns`].
    pub utc_ns: u64,
    /// Sender.
    pub source: SocketAddr,
    /// Receiver.
    pub destination: SocketAddr,
    /// Its bytes.
    pub payload: Cow<'a, [u8]>,
}

/// A TCP segment.
#[derive(Debug, Clone)]
pub struct Segment<'a> {
    /// See [`Record::utc_ns`].
    pub utc_ns: u64,
    /// Sender.
    pub source: SocketAddr,
    /// Receiver.
    pub destination: SocketAddr,
    /// Sequence number of the payload's first byte (of the SYN, where it begins).
    pub sequence: u32,
    /// SYN.
    pub begins: bool,
    /// FIN or RST.
    pub ends: bool,
    /// Its bytes.
    pub payload: Cow<'a, [u8]>,
}

/// What an IP packet carries.
#[derive(Debug, Clone)]
pub enum Transport<'a> {
    /// UDP.
    Datagram(Datagram<'a>),
    /// TCP.
    Segment(Segment<'a>),
}

#[derive(Debug, PartialEq, Eq, Hash, Clone, Copy)]
struct Key {
    protocol: u8,
    source: IpAddr,
    destination: IpAddr,
    id: u32,
}

#[derive(Debug)]
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
#[derive(Debug, Default)]
pub struct Reassembler {
    partial: HashMap<Key, Partial>,
}

impl Reassembler {
    /// The datagram or segment that this frame completes.
    pub fn take<'a>(&mut self, record: &Record<'a>) -> Option<Transport<'a>> {
        let packet = network(link(record)?)?;
        let key = packet.key;
        let payload = if packet.offset == 0 && !packet.more {
            Cow::Borrowed(packet.payload)
        } else {
            Cow::Owned(self.add(record.utc_ns, packet)?)
        };
        if key.protocol == TCP {
            segment(record.utc_ns, key, payload).map(Transport::Segment)
        } else {
            datagram(record.utc_ns, key, payload).map(Transport::Datagram)
        }
    }

    /// The same of datagrams alone.
    pub fn datagram<'a>(&mut self, record: &Record<'a>) -> Option<Datagram<'a>> {
        match self.take(record)? {
            Transport::Datagram(datagram) => Some(datagram),
            Transport::Segment(_) => None,
        }
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
        if partial
            .parts
            .iter()
            .map(|(_, part)| part.len())
            .sum::<usize>()
            > FRAGMENTS_MAX
        {
            self.partial.remove(&packet.key);
            return None;
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
fn link<'a>(record: &Record<'a>) -> Option<&'a [u8]> {
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
    let protocol = *bytes.get(9)?;
    if header < 20 || ![TCP, UDP].contains(&protocol) {
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
            protocol,
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
        protocol: UDP,
        source: address(8)?,
        destination: address(24)?,
        id: 0,
    };
    let end = (40 + usize::from(word(bytes, 4)?)).min(bytes.len());
    let (mut next, mut at) = (*bytes.get(6)?, 40);
    let (mut offset, mut more) = (0, false);
    loop {
        match next {
            TCP | UDP => break,
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
    key.protocol = next;
    if ![TCP, UDP].contains(&next) {
        return None;
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
    Some(Datagram {
        utc_ns,
        source: SocketAddr::new(key.source, source),
        destination: SocketAddr::new(key.destination, destination),
        payload: part(bytes, 8, end)?,
    })
}

/// RFC 9293 section 3.1.
fn segment(utc_ns: u64, key: Key, bytes: Cow<'_, [u8]>) -> Option<Segment<'_>> {
    let (source, destination) = (word(&bytes, 0)?, word(&bytes, 2)?);
    let sequence = u32::from_be_bytes(bytes.get(4..8)?.try_into().ok()?);
    let header = usize::from(bytes.get(12)? >> 4) * 4;
    let flags = *bytes.get(13)?;
    let end = bytes.len();
    if header < 20 {
        return None;
    }
    Some(Segment {
        utc_ns,
        source: SocketAddr::new(key.source, source),
        destination: SocketAddr::new(key.destination, destination),
        sequence,
        begins: flags & 0x02 != 0,
        ends: flags & 0x05 != 0,
        payload: part(bytes, header, end)?,
    })
}

fn part(bytes: Cow<'_, [u8]>, from: usize, to: usize) -> Option<Cow<'_, [u8]>> {
    Some(match bytes {
        Cow::Borrowed(bytes) => Cow::Borrowed(bytes.get(from..to)?),
        Cow::Owned(bytes) => Cow::Owned(bytes.get(from..to)?.to_vec()),
    })
}
