//! RTP, RTCP and RFC 4733: checked packet views and sequence arithmetic. No I/O.
//!
//! A view is made once from bytes, with every length checked; its accessors cannot fail.
//! Writing happens in place, through [`HeaderMut`] and [`rtcp::rewrite`].
#![forbid(unsafe_code)]

pub mod demux;
pub mod event;
pub mod jitter;
pub mod packet;
pub mod rtcp;
pub mod sequence;

pub use demux::{Multiplexed, demultiplex};
pub use event::TelephoneEvent;
pub use jitter::{Clock, Jitter};
pub use packet::{HeaderMut, RtpError, RtpHeader, RtpPacket};
pub use sequence::{Arrival, Observed, SequenceTracker};

/// Reads a big-endian number at `at`. The views have checked that it is there.
#[inline]
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// See [`u16_at`].
#[inline]
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Writes a big-endian number at `at`.
#[inline]
pub(crate) fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}
