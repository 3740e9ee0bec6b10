//! Feedback (RFC 4585 section 6.1).

use super::{RtcpHeader, packet_type};
use crate::u32_at;

/// Which of the two feedback packet types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedbackKind {
    /// RTPFB: 1 = generic NACK, 3 and 4 = TMMBR and TMMBN, 15 = transport-wide congestion.
    Transport,
    /// PSFB: 1 = PLI, 2 = SLI, 3 = RPSI, 4 = FIR, 15 = application layer (REMB).
    Payload,
}

/// RTPFB or PSFB.
#[derive(Debug, Clone, Copy)]
pub struct Feedback<'a> {
    body: &'a [u8],
    kind: FeedbackKind,
    format: u8,
}

impl<'a> Feedback<'a> {
    pub(super) fn view(header: &RtcpHeader, body: &'a [u8]) -> Option<Self> {
        let kind = match header.packet_type {
            packet_type::TRANSPORT_FEEDBACK => FeedbackKind::Transport,
            _ => FeedbackKind::Payload,
        };
        (body.len() >= 8).then_some(Self {
            body,
            kind,
            format: header.count,
        })
    }

    /// Transport layer or payload-specific.
    #[must_use]
    pub fn kind(&self) -> FeedbackKind {
        self.kind
    }

    /// Message type within the kind.
    #[must_use]
    pub fn format(&self) -> u8 {
        self.format
    }

    /// SSRC of who sends the feedback.
    #[must_use]
    pub fn sender(&self) -> u32 {
        u32_at(self.body, 0)
    }

    /// SSRC of the stream it is about; 0 where the message names it elsewhere.
    #[must_use]
    pub fn media(&self) -> u32 {
        u32_at(self.body, 4)
    }

    /// Feedback control information.
    #[must_use]
    pub fn information(&self) -> &'a [u8] {
        &self.body[8..]
    }
}
