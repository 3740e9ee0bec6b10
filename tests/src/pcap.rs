//! Classic pcap files of RTP: reading what SIPp brings, writing what it is to play.

use std::path::Path;

/// One RTP packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RtpPacket {
    /// Microseconds since the file's own zero.
    pub time_us: u64,
    /// UDP ports.
    pub source_port: u16,
    /// See `source_port`.
    pub destination_port: u16,
    /// Payload type.
    pub payload_type: u8,
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp.
    pub timestamp: u32,
    /// Source.
    pub ssrc: u32,
    /// Payload.
    pub payload: Vec<u8>,
}

/// Reads a little-endian microsecond pcap of UDP over IPv4 over Ethernet; other packets are
/// passed over.
///
/// # Panics
/// It is not such a file.
#[must_use]
pub fn read(path: &Path) -> Vec<RtpPacket> {
    let bytes = std::fs::read(path).expect("a readable file");
    assert_eq!(
        bytes[..4],
        0xa1b2_c3d4_u32.to_le_bytes(),
        "{} is another pcap",
        path.display()
    );
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    assert_eq!(word(20), 1, "Ethernet");
    let (mut packets, mut at) = (Vec::new(), 24);
    while at + 16 <= bytes.len() {
        let time_us = u64::from(word(at)) * 1_000_000 + u64::from(word(at + 4));
        let length = word(at + 8) as usize;
        let frame = &bytes[at + 16..at + 16 + length];
        packets.extend(parse_frame(time_us, frame));
        at += 16 + length;
    }
    packets
}

fn parse_frame(time_us: u64, frame: &[u8]) -> Option<RtpPacket> {
    let ip = frame.get(14..)?;
    if frame[12..14] != [8, 0] || ip.first()? >> 4 != 4 || *ip.get(9)? != 17 {
        return None;
    }
    let udp = ip.get(4 * usize::from(ip[0] & 15)..)?;
    let length = usize::from(u16::from_be_bytes([*udp.get(4)?, *udp.get(5)?]));
    let short = |bytes: &[u8]| u16::from_be_bytes([bytes[0], bytes[1]]);
    Some(RtpPacket {
        time_us,
        source_port: short(udp),
        destination_port: short(&udp[2..]),
        ..parse_rtp(udp.get(8..length)?)?
    })
}

/// A datagram of RTP; times and ports are 0.
#[must_use]
pub fn parse_rtp(rtp: &[u8]) -> Option<RtpPacket> {
    if rtp.len() < 12 || rtp[0] != 0x80 {
        return None;
    }
    let short = |bytes: &[u8]| u16::from_be_bytes([bytes[0], bytes[1]]);
    let long = |bytes: &[u8]| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    Some(RtpPacket {
        time_us: 0,
        source_port: 0,
        destination_port: 0,
        payload_type: rtp[1] & 0x7f,
        sequence: short(&rtp[2..]),
        timestamp: long(&rtp[4..]),
        ssrc: long(&rtp[8..]),
        payload: rtp[12..].to_vec(),
    })
}

/// Writes a pcap that SIPp can play.
///
/// # Panics
/// The file cannot be written.
pub fn write(path: &Path, packets: &[RtpPacket]) {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&0xa1b2_c3d4_u32.to_le_bytes());
    bytes.extend_from_slice(&[
        2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 1, 0, 0, 0,
    ]);
    for packet in packets {
        let frame = frame(packet);
        let length = u32::try_from(frame.len()).expect("a short frame");
        for word in [
            u32::try_from(packet.time_us / 1_000_000).expect("a short file"),
            (packet.time_us % 1_000_000) as u32,
            length,
            length,
        ] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(&frame);
    }
    std::fs::write(path, bytes).expect("a writable file");
}

/// A packet as a datagram.
#[must_use]
pub fn rtp_bytes(packet: &RtpPacket) -> Vec<u8> {
    let mut bytes = vec![0x80, packet.payload_type];
    bytes.extend_from_slice(&packet.sequence.to_be_bytes());
    bytes.extend_from_slice(&packet.timestamp.to_be_bytes());
    bytes.extend_from_slice(&packet.ssrc.to_be_bytes());
    bytes.extend_from_slice(&packet.payload);
    bytes
}

fn frame(packet: &RtpPacket) -> Vec<u8> {
    let rtp_length = u16::try_from(12 + packet.payload.len()).expect("a short payload");
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
    frame.extend_from_slice(&(28 + rtp_length).to_be_bytes());
    frame.extend_from_slice(&[0, 0, 0, 0, 64, 17, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1]);
    frame.extend_from_slice(&packet.source_port.to_be_bytes());
    frame.extend_from_slice(&packet.destination_port.to_be_bytes());
    frame.extend_from_slice(&(8 + rtp_length).to_be_bytes());
    frame.extend_from_slice(&[0, 0]);
    frame.extend_from_slice(&rtp_bytes(packet));
    frame
}

/// Speech-like noise as 20 ms packets of G.711: no packet is like another, so that each is found
/// again wherever it went.
#[must_use]
pub fn noise(payload_type: u8, packets: u32, seed: u32) -> Vec<RtpPacket> {
    let mut state = u64::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut octet = move || {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // Any octet but the two that sound the same as another one of the code.
        match (state >> 32) as u8 {
            0x7f | 0xff => 0x35,
            other => other,
        }
    };
    (0..packets)
        .map(|number| RtpPacket {
            time_us: u64::from(number) * 20_000,
            source_port: 6000,
            destination_port: 6000,
            payload_type,
            sequence: (seed as u16).wrapping_add(number as u16),
            timestamp: seed.wrapping_add(number * 160),
            ssrc: 0x1000_0000 + seed,
            payload: (0..160).map(|_| octet()).collect(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("noise.pcap");
        let packets = noise(8, 5, 7);
        write(&path, &packets);
        assert_eq!(read(&path), packets);
    }
}
