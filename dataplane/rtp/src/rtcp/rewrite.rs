//! Rewriting RTCP in place after the RTP it speaks of was renumbered.
//!
//! Two kinds of fields are touched: those by which the packet's sender speaks of its own streams
//! (mapped as the streams themselves are on their way out), and those by which it speaks of streams
//! it has received (mapped back to what their original sender knows).

use super::report::BLOCK_BYTES;
use super::source::chunk_bytes;
use super::{HEADER_BYTES, RtcpHeader, header, packet_type};
use crate::{put_u32, u16_at, u32_at};

/// A stream of the packet's sender, as others see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// SSRC that others see.
    pub ssrc: u32,
    /// Added to its timestamps.
    pub timestamp_offset: u32,
}

/// A stream that the packet's sender receives, as its original sender knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// The original SSRC.
    pub ssrc: u32,
    /// What was added to the extended sequence number on the way, modulo 2^32.
    pub extended_offset: u32,
}

/// The numbering in force.
pub trait Renumbering {
    /// How the sender's own stream `ssrc` is shown to others; `None` = as it is.
    fn sent(&self, ssrc: u32) -> Option<Sent>;
    /// Where the stream that the sender hears as `ssrc` came from; `None` = unchanged.
    fn heard(&self, ssrc: u32) -> Option<Heard>;
}

/// Rewrites every packet of a datagram that [`super::Compound::parse`] has accepted. Anything that
/// does not fit its header is left as it is.
pub fn rewrite(bytes: &mut [u8], numbering: &impl Renumbering) {
    let mut at = 0;
    while let Ok(found) = header(&bytes[at..]) {
        let end = at + found.bytes - found.padding;
        rewrite_packet(&found, &mut bytes[at + HEADER_BYTES..end], numbering);
        at += found.bytes;
    }
}

fn rewrite_packet(header: &RtcpHeader, body: &mut [u8], numbering: &impl Renumbering) {
    let count = usize::from(header.count);
    match header.packet_type {
        packet_type::SENDER_REPORT if body.len() >= 24 => {
            if let Some(sent) = numbering.sent(u32_at(body, 0)) {
                put_u32(body, 0, sent.ssrc);
                let timestamp = u32_at(body, 12).wrapping_add(sent.timestamp_offset);
                put_u32(body, 12, timestamp);
            }
            rewrite_blocks(&mut body[24..], count, numbering);
        }
        packet_type::RECEIVER_REPORT if body.len() >= 4 => {
            rewrite_sent(body, 0, numbering);
            rewrite_blocks(&mut body[4..], count, numbering);
        }
        packet_type::SOURCE_DESCRIPTION => {
            let mut rest = body;
            for _ in 0..count {
                let Some(bytes) = chunk_bytes(rest) else {
                    return;
                };
                rewrite_sent(rest, 0, numbering);
                rest = &mut rest[bytes..];
            }
        }
        packet_type::GOODBYE if body.len() >= 4 * count => {
            for index in 0..count {
                rewrite_sent(body, 4 * index, numbering);
            }
        }
        packet_type::APP if body.len() >= 4 => rewrite_sent(body, 0, numbering),
        packet_type::TRANSPORT_FEEDBACK | packet_type::PAYLOAD_FEEDBACK if body.len() >= 8 => {
            rewrite_feedback(header, body, numbering);
        }
        packet_type::EXTENDED_REPORT if body.len() >= 4 => {
            rewrite_sent(body, 0, numbering);
            rewrite_extended(&mut body[4..], numbering);
        }
        _ => {}
    }
}

fn rewrite_sent(body: &mut [u8], at: usize, numbering: &impl Renumbering) {
    if let Some(sent) = numbering.sent(u32_at(body, at)) {
        put_u32(body, at, sent.ssrc);
    }
}

/// Maps the SSRC of a received stream back and returns its offset.
fn rewrite_heard(body: &mut [u8], at: usize, numbering: &impl Renumbering) -> u32 {
    let Some(heard) = numbering.heard(u32_at(body, at)) else {
        return 0;
    };
    put_u32(body, at, heard.ssrc);
    heard.extended_offset
}

fn subtract_sequence(body: &mut [u8], at: usize, offset: u32) {
    let sequence = u16_at(body, at).wrapping_sub(offset as u16);
    body[at..at + 2].copy_from_slice(&sequence.to_be_bytes());
}

/// Report blocks of SR and RR.
fn rewrite_blocks(blocks: &mut [u8], count: usize, numbering: &impl Renumbering) {
    for block in blocks
        .as_chunks_mut::<BLOCK_BYTES>()
        .0
        .iter_mut()
        .take(count)
    {
        let offset = rewrite_heard(block, 0, numbering);
        let highest = u32_at(block, 8).wrapping_sub(offset);
        put_u32(block, 8, highest);
    }
}

/// RFC 4585 (NACK), RFC 5104 (TMMBR, TMMBN, FIR).
fn rewrite_feedback(header: &RtcpHeader, body: &mut [u8], numbering: &impl Renumbering) {
    rewrite_sent(body, 0, numbering);
    let offset = rewrite_heard(body, 4, numbering);
    let transport = header.packet_type == packet_type::TRANSPORT_FEEDBACK;
    let entries = body[8..].as_chunks_mut::<4>().0.iter_mut();
    match header.count {
        1 if transport => entries.for_each(|entry| subtract_sequence(entry, 0, offset)),
        3 | 4 if transport => entries.step_by(2).for_each(|entry| {
            rewrite_heard(entry, 0, numbering);
        }),
        4 => entries.step_by(2).for_each(|entry| {
            rewrite_heard(entry, 0, numbering);
        }),
        _ => {}
    }
}

/// Report blocks of an extended report (RFC 3611 section 4) that name streams.
fn rewrite_extended(mut blocks: &mut [u8], numbering: &impl Renumbering) {
    while blocks.len() >= 4 {
        let bytes = 4 + 4 * usize::from(u16_at(blocks, 2));
        let Some((block, rest)) = blocks.split_at_mut_checked(bytes) else {
            return;
        };
        match block[0] {
            // Loss RLE, duplicate RLE, packet receipt times, statistics summary: a stream and a
            // range of its sequence numbers.
            1 | 2 | 3 | 6 if bytes >= 12 => {
                let offset = rewrite_heard(block, 4, numbering);
                subtract_sequence(block, 8, offset);
                subtract_sequence(block, 10, offset);
            }
            // DLRR: streams of those who asked for the time.
            5 => {
                for entry in block[4..].as_chunks_mut::<12>().0 {
                    rewrite_heard(entry, 0, numbering);
                }
            }
            // VoIP metrics.
            7 if bytes >= 8 => {
                rewrite_heard(block, 4, numbering);
            }
            _ => {}
        }
        blocks = rest;
    }
}
