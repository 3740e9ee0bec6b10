//! Ethernet, IPv4 and UDP headers around an RTP packet.

use std::net::SocketAddrV4;

/// Bytes before the RTP header.
pub(crate) const HEAD_BYTES: usize = 14 + 20 + 8;

/// Two ends of a link.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Macs {
    pub(crate) from: [u8; 6],
    pub(crate) to: [u8; 6],
}

/// Writes the headers of a datagram of `payload_bytes`. The UDP checksum is left out (RFC 768).
pub(crate) fn write_head(
    head: &mut [u8; HEAD_BYTES],
    macs: Macs,
    from: SocketAddrV4,
    to: SocketAddrV4,
    payload_bytes: usize,
) {
    head[..6].copy_from_slice(&macs.to);
    head[6..12].copy_from_slice(&macs.from);
    head[12..14].copy_from_slice(&[8, 0]);
    head[14..34].copy_from_slice(&[
        0x45, 0xb8, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ]);
    head[26..30].copy_from_slice(&from.ip().octets());
    head[30..34].copy_from_slice(&to.ip().octets());
    head[34..36].copy_from_slice(&from.port().to_be_bytes());
    head[36..38].copy_from_slice(&to.port().to_be_bytes());
    head[40..42].fill(0);
    set_payload_bytes(head, payload_bytes);
}

/// Sets the lengths and the IPv4 checksum for another payload.
pub(crate) fn set_payload_bytes(head: &mut [u8; HEAD_BYTES], payload_bytes: usize) {
    head[16..18].copy_from_slice(&((28 + payload_bytes) as u16).to_be_bytes());
    head[38..40].copy_from_slice(&((8 + payload_bytes) as u16).to_be_bytes());
    head[24..26].fill(0);
    let sum: u32 = head[14..34]
        .chunks_exact(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    head[24..26].copy_from_slice(&(!(folded as u16)).to_be_bytes());
}

/// The destination and payload of a received UDP frame (its kind was filtered before).
pub(crate) fn read(frame: &[u8]) -> Option<(SocketAddrV4, &[u8])> {
    let ip = frame.get(14..)?;
    let head = usize::from(ip.first()? & 15) * 4;
    let octets: [u8; 4] = ip.get(16..20)?.try_into().ok()?;
    let udp = ip.get(head..)?;
    let (ports, rest) = udp.split_first_chunk::<8>()?;
    let length = usize::from(u16::from_be_bytes([ports[4], ports[5]]));
    let payload = rest.get(..length.checked_sub(8)?)?;
    let port = u16::from_be_bytes([ports[2], ports[3]]);
    Some((SocketAddrV4::new(octets.into(), port), payload))
}
