//! The RTP packet (RFC 3550 section 5.1).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! |V=2|P|X|  CC   |M|     PT      |       sequence number         |
//! |                           timestamp                           |
//! |                             SSRC                              |
//! |                    CSRC, CC times                             |
//! |   extension profile (if X)    |  length in 32-bit words       |
//! |                    extension, payload, padding (if P)         |
//! ```

use crate::{u16_at, u32_at};

/// Bytes of the fixed header.
pub const HEADER_BYTES: usize = 12;

/// Why bytes are no RTP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RtpError {
    /// Shorter than its header says.
    Short,
    /// Not version 2.
    Version,
    /// The padding count is 0 or reaches into the header.
    Padding,
}

impl std::fmt::Display for RtpError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Short => "shorter than its header says",
            Self::Version => "not RTP version 2",
            Self::Padding => "impossible padding",
        })
    }
}

impl std::error::Error for RtpError {}

/// What the header says, by value, so that the bytes can be changed while it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RtpHeader {
    /// SSRC.
    pub ssrc: u32,
    /// Timestamp.
    pub timestamp: u32,
    /// Sequence number.
    pub sequence: u16,
    /// Payload type, 0..=127.
    pub payload_type: u8,
    /// Marker bit.
    pub marker: bool,
    /// Where the payload starts: after CSRC list and extension.
    payload_start: u16,
    /// Where it ends: before the padding.
    payload_end: u16,
}

impl RtpHeader {
    /// Checks a datagram.
    ///
    /// # Errors
    /// See [`RtpError`]. Datagrams of over 65,535 bytes do not exist and are refused as `Short`.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Self, RtpError> {
        let length = bytes.len();
        if length < HEADER_BYTES || length > usize::from(u16::MAX) {
            return Err(RtpError::Short);
        }
        let first = bytes[0];
        if first >> 6 != 2 {
            return Err(RtpError::Version);
        }
        let mut start = HEADER_BYTES;
        let mut end = length;
        // Nearly every packet has none of CSRC, extension and padding.
        if first & 0x3f != 0 {
            (start, end) = odd_layout(bytes)?;
        }
        Ok(Self {
            ssrc: u32_at(bytes, 8),
            timestamp: u32_at(bytes, 4),
            sequence: u16_at(bytes, 2),
            payload_type: bytes[1] & 0x7f,
            marker: bytes[1] & 0x80 != 0,
            payload_start: start as u16,
            payload_end: end as u16,
        })
    }

    /// Where the payload lies in the datagram.
    #[inline]
    #[must_use]
    pub fn payload(&self) -> std::ops::Range<usize> {
        usize::from(self.payload_start)..usize::from(self.payload_end)
    }
}

/// Payload bounds of a packet with CSRCs, extension or padding.
fn odd_layout(bytes: &[u8]) -> Result<(usize, usize), RtpError> {
    let mut start = HEADER_BYTES + 4 * usize::from(bytes[0] & 0x0f);
    let mut end = bytes.len();
    if bytes[0] & 0x10 != 0 {
        if start + 4 > end {
            return Err(RtpError::Short);
        }
        start += 4 + 4 * usize::from(u16_at(bytes, start + 2));
    }
    if start > end {
        return Err(RtpError::Short);
    }
    if bytes[0] & 0x20 != 0 {
        let padding = usize::from(bytes[end - 1]);
        if padding == 0 || padding > end - start {
            return Err(RtpError::Padding);
        }
        end -= padding;
    }
    Ok((start, end))
}

/// A checked view of a whole packet.
#[derive(Debug, Clone, Copy)]
pub struct RtpPacket<'a> {
    bytes: &'a [u8],
    header: RtpHeader,
}

impl<'a> RtpPacket<'a> {
    /// Checks a datagram.
    ///
    /// # Errors
    /// See [`RtpError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RtpError> {
        Ok(Self {
            bytes,
            header: RtpHeader::parse(bytes)?,
        })
    }

    /// The header's fields.
    #[must_use]
    pub fn header(&self) -> &RtpHeader {
        &self.header
    }

    /// SSRC.
    #[must_use]
    pub fn ssrc(&self) -> u32 {
        self.header.ssrc
    }

    /// Sequence number.
    #[must_use]
    pub fn sequence(&self) -> u16 {
        self.header.sequence
    }

    /// Timestamp.
    #[must_use]
    pub fn timestamp(&self) -> u32 {
        self.header.timestamp
    }

    /// Payload type, 0..=127.
    #[must_use]
    pub fn payload_type(&self) -> u8 {
        self.header.payload_type
    }

    /// Marker bit.
    #[must_use]
    pub fn marker(&self) -> bool {
        self.header.marker
    }

    /// Payload without CSRC list, extension and padding; may be empty.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[self.header.payload()]
    }

    /// Contributing sources.
    pub fn csrcs(&self) -> impl Iterator<Item = u32> + 'a {
        let count = usize::from(self.bytes[0] & 0x0f);
        let bytes = self.bytes;
        (0..count).map(move |index| u32_at(bytes, HEADER_BYTES + 4 * index))
    }

    /// Header extension: its profile word and content.
    #[must_use]
    pub fn extension(&self) -> Option<(u16, &'a [u8])> {
        if self.bytes[0] & 0x10 == 0 {
            return None;
        }
        let at = HEADER_BYTES + 4 * usize::from(self.bytes[0] & 0x0f);
        Some((
            u16_at(self.bytes, at),
            &self.bytes[at + 4..usize::from(self.header.payload_start)],
        ))
    }

    /// Bytes of padding, the count included.
    #[must_use]
    pub fn padding(&self) -> usize {
        self.bytes.len() - usize::from(self.header.payload_end)
    }
}

/// The fixed header of a packet that was checked, for changing it in place.
#[derive(Debug)]
pub struct HeaderMut<'a>(&'a mut [u8; HEADER_BYTES]);

impl<'a> HeaderMut<'a> {
    /// `None` when there are fewer than 12 bytes.
    #[inline]
    #[must_use]
    pub fn of(bytes: &'a mut [u8]) -> Option<Self> {
        bytes.first_chunk_mut().map(Self)
    }

    /// Sets the SSRC.
    #[inline]
    pub fn set_ssrc(&mut self, ssrc: u32) {
        self.0[8..12].copy_from_slice(&ssrc.to_be_bytes());
    }

    /// Sets the timestamp.
    #[inline]
    pub fn set_timestamp(&mut self, timestamp: u32) {
        self.0[4..8].copy_from_slice(&timestamp.to_be_bytes());
    }

    /// Sets the sequence number.
    #[inline]
    pub fn set_sequence(&mut self, sequence: u16) {
        self.0[2..4].copy_from_slice(&sequence.to_be_bytes());
    }

    /// Sets the payload type and leaves the marker. Only the low seven bits count.
    #[inline]
    pub fn set_payload_type(&mut self, payload_type: u8) {
        self.0[1] = self.0[1] & 0x80 | payload_type & 0x7f;
    }

    /// Sets the marker bit.
    #[inline]
    pub fn set_marker(&mut self, marker: bool) {
        self.0[1] = self.0[1] & 0x7f | u8::from(marker) << 7;
    }

    /// Says that no padding follows (when a payload is replaced).
    #[inline]
    pub fn clear_padding(&mut self) {
        self.0[0] &= !0x20;
    }
}
