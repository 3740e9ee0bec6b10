//! Telling RTP, RTCP and other protocols on one port apart (RFC 5761 section 4, RFC 7983 section 7).

/// What a datagram on a multiplexed port is, by its first two bytes alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Multiplexed {
    /// RTP.
    Rtp,
    /// RTCP: packet types 192 to 223.
    Rtcp,
    /// STUN, DTLS or nothing known.
    Other,
}

/// Judges by version and, for RTCP, the packet type, which no RTP payload type with marker may look
/// like: payload types 64 to 95 are not to be negotiated on a multiplexed port.
#[inline]
#[must_use]
pub fn demultiplex(bytes: &[u8]) -> Multiplexed {
    match bytes {
        [first, second, ..] if first >> 6 == 2 => {
            if (192..=223).contains(second) {
                Multiplexed::Rtcp
            } else {
                Multiplexed::Rtp
            }
        }
        _ => Multiplexed::Other,
    }
}
