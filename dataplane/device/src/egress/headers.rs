//! Ethernet, IPv4 (RFC 791) or IPv6 (RFC 8200), and UDP (RFC 768) headers in front of a datagram,
//! filled in but for what depends on the datagram: lengths and checksums.

use std::net::{IpAddr, SocketAddr};

use crate::buffer::HEAD_BYTES;
use crate::routes::Mac;

pub(super) const ETHERNET_BYTES: usize = 14;
const IP4_BYTES: usize = 20;
const IP6_BYTES: usize = 40;
const UDP_BYTES: usize = 8;
/// The longest.
pub(super) const HEADERS_MAX: usize = ETHERNET_BYTES + IP6_BYTES + UDP_BYTES;
/// The longest of an IP packet.
pub(crate) const PACKET_HEADERS_MAX: usize = IP6_BYTES + UDP_BYTES;
const UDP: u8 = 17;

const _: () = assert!(HEADERS_MAX <= HEAD_BYTES);

/// What a datagram's own socket would put into its headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The address and port it is bound to.
    pub(super) address: SocketAddr,
    /// TTL or hop limit.
    pub(super) hops: u8,
    /// Type of service or traffic class.
    pub(super) traffic_class: u8,
}

/// Headers of one flow of datagrams.
#[derive(Debug, Clone, Copy)]
pub(super) struct Headers {
    bytes: [u8; HEADERS_MAX],
    length: u8,
    is_ip4: bool,
    /// Of the IPv4 header without its length.
    ip_sum: u32,
    /// Of pseudo-header and UDP header without their lengths.
    udp_sum: u32,
}

impl Headers {
    pub(super) const EMPTY: Self = Self {
        bytes: [0; HEADERS_MAX],
        length: 0,
        is_ip4: true,
        ip_sum: 0,
        udp_sum: 0,
    };

    /// Headers from an origin to an address of the same family, over one Ethernet hop.
    pub(super) fn new(origin: &Origin, to: &SocketAddr, from_mac: Mac, to_mac: Mac) -> Self {
        let mut headers = Self::EMPTY;
        let mut bytes = Vec::with_capacity(HEADERS_MAX);
        bytes.extend(to_mac);
        bytes.extend(from_mac);
        match (origin.address.ip(), to.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                bytes.extend([0x08, 0x00]);
                // Not to be fragmented, so it needs no identification (RFC 6864).
                bytes.extend([0x45, origin.traffic_class, 0, 0, 0, 0, 0x40, 0]);
                bytes.extend([origin.hops, UDP, 0, 0]);
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
                headers.ip_sum = sum(&bytes[ETHERNET_BYTES..]);
                headers.udp_sum = sum(&bytes[ETHERNET_BYTES + 12..]);
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                headers.is_ip4 = false;
                let class = origin.traffic_class;
                bytes.extend([0x86, 0xdd]);
                bytes.extend([0x60 | class >> 4, class << 4, 0, 0, 0, 0, UDP, origin.hops]);
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
                headers.udp_sum = sum(&bytes[ETHERNET_BYTES + 8..]);
            }
            _ => return headers,
        }
        let udp = bytes.len();
        bytes.extend(origin.address.port().to_be_bytes());
        bytes.extend(to.port().to_be_bytes());
        headers.udp_sum += sum(&bytes[udp..]) + u32::from(u16::from(UDP).to_be());
        bytes.extend([0; 4]);
        headers.length = bytes.len() as u8;
        headers.bytes[..bytes.len()].copy_from_slice(&bytes);
        headers
    }

    /// Lets routers and the kernel cut an IPv4 packet that is too long for a link of its way.
    pub(super) fn allow_fragments(&mut self) {
        const FLAGS: usize = ETHERNET_BYTES + 6;
        if self.is_ip4 {
            self.bytes[FLAGS] = 0;
            self.ip_sum = sum(&self.bytes[ETHERNET_BYTES..ETHERNET_BYTES + IP4_BYTES]);
        }
    }

    /// Size of the IP packet that carries a datagram of `payload` bytes.
    pub(super) fn packet_bytes(&self, payload: usize) -> usize {
        usize::from(self.length) - ETHERNET_BYTES + payload
    }

    /// Writes them to the end of `head`, right in front of `payload`; gives their length.
    #[inline]
    pub(super) fn write(&self, head: &mut [u8; HEAD_BYTES], payload: &[u8]) -> usize {
        let length = usize::from(self.length);
        // As long as the longest: what is written too much lies in front and is not sent.
        let start = HEAD_BYTES - HEADERS_MAX;
        let place = &mut head[start..];
        let udp_bytes = (UDP_BYTES + payload.len()) as u16;
        if self.is_ip4 {
            const LENGTH: usize = ETHERNET_BYTES + IP4_BYTES + UDP_BYTES;
            let place = &mut place[HEADERS_MAX - LENGTH..];
            place.copy_from_slice(&self.bytes[..LENGTH]);
            let ip_bytes = (IP4_BYTES as u16 + udp_bytes).to_be();
            let checksum = !fold(self.ip_sum + u32::from(ip_bytes));
            place[16..18].copy_from_slice(&ip_bytes.to_ne_bytes());
            place[24..26].copy_from_slice(&checksum.to_ne_bytes());
        } else {
            place.copy_from_slice(&self.bytes);
            place[18..20].copy_from_slice(&udp_bytes.to_be_bytes());
        }
        let udp_bytes = udp_bytes.to_be();
        let checksum = !fold(self.udp_sum + 2 * u32::from(udp_bytes) + sum(payload));
        // 0 would mean that there is none.
        let checksum = if checksum == 0 { u16::MAX } else { checksum };
        let at = HEADERS_MAX - 4;
        place[at..at + 2].copy_from_slice(&udp_bytes.to_ne_bytes());
        place[at + 2..].copy_from_slice(&checksum.to_ne_bytes());
        length
    }
}

/// One's complement sum (RFC 1071) of 16-bit words as they lie in memory, folded to less than
/// 2^17. An odd byte at the end counts as the first of a word.
#[inline]
fn sum(bytes: &[u8]) -> u32 {
    let mut total = 0_u64;
    let mut words = bytes.chunks_exact(4);
    for word in &mut words {
        total += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
    }
    let mut last = [0; 4];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    total += u64::from(u32::from_ne_bytes(last));
    let total = (total >> 32) + (total & 0xffff_ffff);
    let total = (total >> 32) + (total & 0xffff_ffff);
    (total >> 16) as u32 + (total & 0xffff) as u32
}

fn fold(total: u32) -> u16 {
    let total = (total >> 16) + (total & 0xffff);
    ((total >> 16) + (total & 0xffff)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The checksum of bytes that hold a right one is 0, whatever they are (RFC 1071).
    fn checks(parts: &[&[u8]]) -> bool {
        fold(parts.iter().map(|part| sum(part)).sum()) == u16::MAX
    }

    fn frame(source: &str, to: &str, payload: &[u8]) -> Vec<u8> {
        let origin = Origin {
            address: source.parse().unwrap(),
            hops: 64,
            traffic_class: 0xb8,
        };
        let to: SocketAddr = to.parse().unwrap();
        let headers = Headers::new(&origin, &to, [2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let mut head = [0xAA; HEAD_BYTES];
        let length = headers.write(&mut head, payload);
        assert_eq!(
            headers.packet_bytes(payload.len()),
            length - 14 + payload.len()
        );
        let mut frame = head[HEAD_BYTES - length..].to_vec();
        frame.extend(payload);
        frame
    }

    #[test]
    fn ip4_headers_are_right_for_every_length() {
        for length in 0..400 {
            let payload: Vec<u8> = (0..length).map(|at| (at * 7 + length) as u8).collect();
            let frame = frame("192.0.2.1:5004", "198.51.100.9:40001", &payload);
            let (ip, udp) = (&frame[14..34], &frame[34..]);
            assert_eq!(frame[12..14], [8, 0]);
            assert_eq!(ip[..2], [0x45, 0xb8]);
            assert_eq!(u16::from_be_bytes([ip[2], ip[3]]), 28 + length);
            assert_eq!(ip[4..10], [0, 0, 0x40, 0, 64, 17]);
            assert!(checks(&[ip]));
            assert_eq!(udp[..6], [0x13, 0x8c, 0x9c, 0x41, udp[4], udp[5]]);
            let pseudo = [0, 17, udp[4], udp[5]];
            assert_eq!(u16::from_be_bytes([udp[4], udp[5]]), 8 + length);
            assert!(checks(&[&ip[12..20], &pseudo, udp]), "{length}");
        }
    }

    #[test]
    fn ip6_headers_are_right_for_every_length() {
        for length in 0..400 {
            let payload: Vec<u8> = (0..length).map(|at| (at * 5 + length) as u8).collect();
            let frame = frame("[2001:db8::1]:5004", "[2001:db8::2:9]:40001", &payload);
            let (ip, udp) = (&frame[14..54], &frame[54..]);
            assert_eq!(frame[12..14], [0x86, 0xdd]);
            assert_eq!(ip[..4], [0x6b, 0x80, 0, 0]);
            assert_eq!(u16::from_be_bytes([ip[4], ip[5]]), 8 + length);
            assert_eq!(ip[6..8], [17, 64]);
            let pseudo = [0, 17, udp[4], udp[5]];
            assert!(checks(&[&ip[8..40], &pseudo, udp]), "{length}");
        }
    }

    #[test]
    fn a_checksum_of_zero_is_sent_as_all_ones() {
        // Find a payload whose sum comes out as zero by trying the last word.
        let found = (0..=u16::MAX).find_map(|word| {
            let frame = frame("192.0.2.1:5004", "198.51.100.9:40001", &word.to_be_bytes());
            (frame[40..42] == [0xff, 0xff]).then_some(frame)
        });
        let frame = found.expect("one of all words");
        let pseudo = [0, 17, frame[38], frame[39]];
        assert!(checks(&[&frame[26..34], &pseudo, &frame[34..]]));
    }
}
