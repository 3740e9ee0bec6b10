//! As much of RTP and RTCP as a generator needs (RFC 3550), written apart from the relay's own so
//! that a mistake in one shows against the other.

/// Bytes of an RTP header without extras.
pub const HEADER_BYTES: usize = 12;

/// What a generator looks at in a received RTP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Payload type.
    pub payload_type: u8,
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp.
    pub timestamp: u32,
    /// Source.
    pub ssrc: u32,
}

/// Writes a header and its payload.
pub fn write(header: Header, marker: bool, payload: &[u8], packet: &mut Vec<u8>) {
    packet.clear();
    packet.push(0x80);
    packet.push(header.payload_type | if marker { 0x80 } else { 0 });
    packet.extend_from_slice(&header.sequence.to_be_bytes());
    packet.extend_from_slice(&header.timestamp.to_be_bytes());
    packet.extend_from_slice(&header.ssrc.to_be_bytes());
    packet.extend_from_slice(payload);
}

/// Reads a packet: its header and its payload, or `None` if it is no RTP.
#[must_use]
pub fn parse(packet: &[u8]) -> Option<(Header, &[u8])> {
    let (head, rest) = packet.split_first_chunk::<HEADER_BYTES>()?;
    if head[0] >> 6 != 2 {
        return None;
    }
    let header = Header {
        payload_type: head[1] & 0x7f,
        sequence: u16::from_be_bytes([head[2], head[3]]),
        timestamp: u32::from_be_bytes([head[4], head[5], head[6], head[7]]),
        ssrc: u32::from_be_bytes([head[8], head[9], head[10], head[11]]),
    };
    let mut payload = rest.get(4 * usize::from(head[0] & 0x0f)..)?;
    if head[0] & 0x10 != 0 {
        let words = u16::from_be_bytes([*payload.get(2)?, *payload.get(3)?]);
        payload = payload.get(4 + 4 * usize::from(words)..)?;
    }
    if head[0] & 0x20 != 0 {
        let padding = usize::from(*payload.last()?);
        payload = payload.get(..payload.len().checked_sub(padding)?)?;
    }
    Some((header, payload))
}

/// Whether a datagram on the RTP port is RTCP (RFC 5761 section 4).
#[must_use]
pub fn is_rtcp(packet: &[u8]) -> bool {
    packet.len() >= 8 && packet[0] >> 6 == 2 && (192..=223).contains(&packet[1])
}

/// What a sender says of itself in a report.
#[derive(Debug, Clone, Copy)]
pub struct SenderReport {
    /// Source.
    pub ssrc: u32,
    /// Nanoseconds since 1970.
    pub unix_ns: u64,
    /// RTP timestamp of that moment.
    pub timestamp: u32,
    /// Packets sent.
    pub packets: u32,
    /// Payload bytes sent.
    pub bytes: u32,
}

/// A compound of a sender report and a CNAME.
pub fn write_sender_report(report: &SenderReport, cname: &str, packet: &mut Vec<u8>) {
    const UNIX_TO_NTP_S: u64 = 2_208_988_800;
    let seconds = report.unix_ns / 1_000_000_000 + UNIX_TO_NTP_S;
    let fraction = ((report.unix_ns % 1_000_000_000) << 32) / 1_000_000_000;
    packet.clear();
    packet.extend_from_slice(&[0x80, 200, 0, 6]);
    for word in [
        report.ssrc,
        seconds as u32,
        fraction as u32,
        report.timestamp,
        report.packets,
        report.bytes,
    ] {
        packet.extend_from_slice(&word.to_be_bytes());
    }
    let cname = &cname.as_bytes()[..cname.len().min(200)];
    // SSRC, the item, at least one zero, up to a whole word.
    let words = (4 + 2 + cname.len() + 1).div_ceil(4);
    packet.extend_from_slice(&[0x81, 202, 0, words as u8]);
    packet.extend_from_slice(&report.ssrc.to_be_bytes());
    packet.extend_from_slice(&[1, cname.len() as u8]);
    packet.extend_from_slice(cname);
    packet.resize(28 + 4 + 4 * words, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_comes_back_as_it_was_written() {
        let header = Header {
            payload_type: 8,
            sequence: 65535,
            timestamp: 7,
            ssrc: 0xdead_beef,
        };
        let mut packet = Vec::new();
        write(header, true, &[1, 2, 3], &mut packet);
        assert_eq!(parse(&packet), Some((header, &[1, 2, 3][..])));
        assert!(!is_rtcp(&packet));
        assert_eq!(parse(&packet[..11]), None);
    }

    #[test]
    fn sources_extensions_and_padding_are_no_payload() {
        let mut packet = vec![0x80 | 0x20 | 0x10 | 1, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
        packet.extend_from_slice(&[9, 9, 9, 9]);
        packet.extend_from_slice(&[0xbe, 0xde, 0, 1, 8, 8, 8, 8]);
        packet.extend_from_slice(&[5, 6, 0, 2]);
        assert_eq!(
            parse(&packet).map(|(_, payload)| payload.to_vec()),
            Some(vec![5, 6])
        );
        packet.truncate(20);
        assert_eq!(parse(&packet), None);
    }

    #[test]
    fn reports_are_whole_compounds() {
        let report = SenderReport {
            ssrc: 1,
            unix_ns: 1_500_000_000,
            timestamp: 2,
            packets: 3,
            bytes: 4,
        };
        let mut packet = Vec::new();
        for cname in ["", "a", "abcd", "rtpgen@example"] {
            write_sender_report(&report, cname, &mut packet);
            assert!(is_rtcp(&packet));
            assert_eq!(packet.len() % 4, 0);
            let second = &packet[28..];
            let words = u16::from_be_bytes([second[2], second[3]]);
            assert_eq!(second.len(), 4 + 4 * usize::from(words));
        }
        assert_eq!(packet[12..16], 0x8000_0000_u32.to_be_bytes());
    }
}
