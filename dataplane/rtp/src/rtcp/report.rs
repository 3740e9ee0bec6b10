//! Sender and receiver reports (RFC 3550 sections 6.4.1 and 6.4.2).

use super::RtcpHeader;
use crate::{u16_at, u32_at};

/// Bytes of a report block.
pub(super) const BLOCK_BYTES: usize = 24;
/// Bytes of an SR between its SSRC and its report blocks.
const SENDER_INFO_BYTES: usize = 20;

/// SR.
#[derive(Debug, Clone, Copy)]
pub struct SenderReport<'a> {
    body: &'a [u8],
    count: usize,
}

impl<'a> SenderReport<'a> {
    pub(super) fn view(header: &RtcpHeader, body: &'a [u8]) -> Option<Self> {
        let count = usize::from(header.count);
        let fits = body.len() >= 4 + SENDER_INFO_BYTES + BLOCK_BYTES * count;
        fits.then_some(Self { body, count })
    }

    /// SSRC of the sender.
    #[must_use]
    pub fn ssrc(&self) -> u32 {
        u32_at(self.body, 0)
    }

    /// Wall clock as a 32.32 NTP timestamp.
    #[must_use]
    pub fn ntp(&self) -> u64 {
        u64::from(u32_at(self.body, 4)) << 32 | u64::from(u32_at(self.body, 8))
    }

    /// The same moment in units of the stream's timestamps.
    #[must_use]
    pub fn timestamp(&self) -> u32 {
        u32_at(self.body, 12)
    }

    /// Packets sent so far.
    #[must_use]
    pub fn packets(&self) -> u32 {
        u32_at(self.body, 16)
    }

    /// Payload bytes sent so far.
    #[must_use]
    pub fn octets(&self) -> u32 {
        u32_at(self.body, 20)
    }

    /// What the sender reports of others.
    pub fn reports(&self) -> impl Iterator<Item = ReportBlock<'a>> + 'a {
        blocks(&self.body[4 + SENDER_INFO_BYTES..], self.count)
    }
}

/// RR.
#[derive(Debug, Clone, Copy)]
pub struct ReceiverReport<'a> {
    body: &'a [u8],
    count: usize,
}

impl<'a> ReceiverReport<'a> {
    pub(super) fn view(header: &RtcpHeader, body: &'a [u8]) -> Option<Self> {
        let count = usize::from(header.count);
        (body.len() >= 4 + BLOCK_BYTES * count).then_some(Self { body, count })
    }

    /// SSRC of the reporter.
    #[must_use]
    pub fn ssrc(&self) -> u32 {
        u32_at(self.body, 0)
    }

    /// What it reports.
    pub fn reports(&self) -> impl Iterator<Item = ReportBlock<'a>> + 'a {
        blocks(&self.body[4..], self.count)
    }
}

fn blocks<'a>(bytes: &'a [u8], count: usize) -> impl Iterator<Item = ReportBlock<'a>> + 'a {
    bytes
        .as_chunks::<BLOCK_BYTES>()
        .0
        .iter()
        .take(count)
        .map(ReportBlock)
}

/// How one source was received.
#[derive(Debug, Clone, Copy)]
pub struct ReportBlock<'a>(&'a [u8; BLOCK_BYTES]);

impl ReportBlock<'_> {
    /// SSRC of the source reported on.
    #[must_use]
    pub fn ssrc(&self) -> u32 {
        u32_at(self.0, 0)
    }

    /// Fraction lost since the last report, in 256ths.
    #[must_use]
    pub fn fraction_lost(&self) -> u8 {
        self.0[4]
    }

    /// Packets lost so far; negative with duplicates. 24 bits.
    #[must_use]
    pub fn lost(&self) -> i32 {
        (u32_at(self.0, 4) << 8) as i32 >> 8
    }

    /// Highest extended sequence number.
    #[must_use]
    pub fn highest(&self) -> u32 {
        u32_at(self.0, 8)
    }

    /// The lower half of [`Self::highest`].
    #[must_use]
    pub fn highest_sequence(&self) -> u16 {
        u16_at(self.0, 10)
    }

    /// Jitter in timestamp units.
    #[must_use]
    pub fn jitter(&self) -> u32 {
        u32_at(self.0, 12)
    }

    /// Middle 32 bits of the last SR's NTP time, 0 = none.
    #[must_use]
    pub fn last_sr(&self) -> u32 {
        u32_at(self.0, 16)
    }

    /// Time since that SR, in 65,536ths of a second.
    #[must_use]
    pub fn delay_since_last_sr(&self) -> u32 {
        u32_at(self.0, 20)
    }
}
