//! RTCP (RFC 3550 section 6), reduced-size packets included (RFC 5506).
//!
//! A [`Compound`] checks the chain of headers of a datagram. Each [`RtcpPacket`] in it is a view
//! whose counts were checked against its length; one whose content does not match its header is
//! [`RtcpPacket::Malformed`] and hides nothing of the others.

mod feedback;
mod report;
pub mod rewrite;
mod source;

pub use feedback::{Feedback, FeedbackKind};
pub use report::{ReceiverReport, ReportBlock, SenderReport};
pub use source::{App, Goodbye, SdesChunk, SdesItem, SourceDescription};

use crate::u16_at;

/// Packet types.
pub mod packet_type {
    /// Sender report.
    pub const SENDER_REPORT: u8 = 200;
    /// Receiver report.
    pub const RECEIVER_REPORT: u8 = 201;
    /// Source description.
    pub const SOURCE_DESCRIPTION: u8 = 202;
    /// BYE.
    pub const GOODBYE: u8 = 203;
    /// Application-defined.
    pub const APP: u8 = 204;
    /// Transport layer feedback (RFC 4585).
    pub const TRANSPORT_FEEDBACK: u8 = 205;
    /// Payload-specific feedback (RFC 4585).
    pub const PAYLOAD_FEEDBACK: u8 = 206;
    /// Extended reports (RFC 3611).
    pub const EXTENDED_REPORT: u8 = 207;
}

/// Bytes of the common header.
pub const HEADER_BYTES: usize = 4;

/// Why a datagram is no RTCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RtcpError {
    /// Shorter than a header, or than its headers say.
    Short,
    /// A header that is not of version 2.
    Version,
    /// A packet type outside 192 to 223.
    PacketType,
    /// An impossible padding count.
    Padding,
}

impl std::fmt::Display for RtcpError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Short => "shorter than its headers say",
            Self::Version => "not RTCP version 2",
            Self::PacketType => "not an RTCP packet type",
            Self::Padding => "impossible padding",
        })
    }
}

impl std::error::Error for RtcpError {}

/// The common header and where its packet lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RtcpHeader {
    /// Report or source count, or the format of feedback.
    pub count: u8,
    /// See [`packet_type`].
    pub packet_type: u8,
    /// Bytes of the packet, header and padding included.
    pub bytes: usize,
    /// Bytes of padding at its end.
    pub padding: usize,
}

/// Reads the header at the start of `bytes` and checks that its packet is all there.
fn header(bytes: &[u8]) -> Result<RtcpHeader, RtcpError> {
    if bytes.len() < HEADER_BYTES {
        return Err(RtcpError::Short);
    }
    if bytes[0] >> 6 != 2 {
        return Err(RtcpError::Version);
    }
    if !(192..=223).contains(&bytes[1]) {
        return Err(RtcpError::PacketType);
    }
    let length = HEADER_BYTES + 4 * usize::from(u16_at(bytes, 2));
    if length > bytes.len() {
        return Err(RtcpError::Short);
    }
    let mut padding = 0;
    if bytes[0] & 0x20 != 0 {
        padding = usize::from(bytes[length - 1]);
        if padding == 0 || padding > length - HEADER_BYTES {
            return Err(RtcpError::Padding);
        }
    }
    Ok(RtcpHeader {
        count: bytes[0] & 0x1f,
        packet_type: bytes[1],
        bytes: length,
        padding,
    })
}

/// A datagram of one or more RTCP packets, checked.
#[derive(Debug, Clone, Copy)]
pub struct Compound<'a>(&'a [u8]);

impl<'a> Compound<'a> {
    /// Checks that the datagram is a gapless chain of packets. Neither the order nor the padding
    /// rules of full compound packets are asked for: reduced-size ones are fine.
    ///
    /// # Errors
    /// See [`RtcpError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RtcpError> {
        let mut at = 0;
        loop {
            at += header(&bytes[at..])?.bytes;
            if at == bytes.len() {
                return Ok(Self(bytes));
            }
        }
    }

    /// The packets, in order.
    pub fn packets(&self) -> impl Iterator<Item = RtcpPacket<'a>> + 'a {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let header = header(rest).ok()?;
            let (packet, after) = rest.split_at(header.bytes);
            rest = after;
            Some(RtcpPacket::view(header, packet))
        })
    }
}

/// One packet of a compound.
#[derive(Debug, Clone, Copy)]
pub enum RtcpPacket<'a> {
    /// SR.
    SenderReport(SenderReport<'a>),
    /// RR.
    ReceiverReport(ReceiverReport<'a>),
    /// SDES.
    SourceDescription(SourceDescription<'a>),
    /// BYE.
    Goodbye(Goodbye<'a>),
    /// APP.
    App(App<'a>),
    /// RTPFB or PSFB.
    Feedback(Feedback<'a>),
    /// A type not looked into (extended reports and others): its header and body.
    Other(RtcpHeader, &'a [u8]),
    /// A known type whose content does not fit its header.
    Malformed(RtcpHeader),
}

impl<'a> RtcpPacket<'a> {
    fn view(header: RtcpHeader, packet: &'a [u8]) -> Self {
        use packet_type as kind;
        let body = &packet[HEADER_BYTES..header.bytes - header.padding];
        let view = match header.packet_type {
            kind::SENDER_REPORT => SenderReport::view(&header, body).map(Self::SenderReport),
            kind::RECEIVER_REPORT => ReceiverReport::view(&header, body).map(Self::ReceiverReport),
            kind::SOURCE_DESCRIPTION => {
                SourceDescription::view(&header, body).map(Self::SourceDescription)
            }
            kind::GOODBYE => Goodbye::view(&header, body).map(Self::Goodbye),
            kind::APP => App::view(&header, body).map(Self::App),
            kind::TRANSPORT_FEEDBACK | kind::PAYLOAD_FEEDBACK => {
                Feedback::view(&header, body).map(Self::Feedback)
            }
            _ => Some(Self::Other(header, body)),
        };
        view.unwrap_or(Self::Malformed(header))
    }
}
