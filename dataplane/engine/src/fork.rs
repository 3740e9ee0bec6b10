//! Live copies of what a session's sides send, to a recorder.
//!
//! A fork leads from a session to another one, its *target*: what side S sends on m-line M of the
//! session leaves by side S of m-line M of the target, to where that leg says it receives. So the
//! ports, addresses and payload types towards a recorder are those of an ordinary session, and
//! nothing that a recorder sends comes near the parties. The copies carry the numbering that the
//! far side sees, one continuous stream over changes of source, and our own sender reports.

use std::net::SocketAddr;

use trunkline_rtp::{HeaderMut, RtpHeader};

use crate::actions::Actions;
use crate::counters::Counters;
use crate::flow::Leg;
use crate::ours::HEADER_BYTES;
use crate::silence::silence;
use crate::spec::{Codec, ForkState, ForkStats, PayloadSpec, Side};
use crate::stream::Numbering;

/// Bytes of a packet that silence may take the place of.
const SILENCE_BYTES_MAX: usize = 2048;

/// One fork of one m-line.
#[derive(Debug)]
pub(crate) struct Fork {
    /// Session that it leads to.
    pub(crate) target: u64,
    pub(crate) state: ForkState,
    /// By side.
    pub(crate) ways: [Way; 2],
}

/// What one side's copies go through.
#[derive(Debug)]
pub(crate) struct Way {
    slot: u32,
    rtcp_slot: u32,
    /// Where copies go; `None` while the recorder receives nothing.
    destination: Option<SocketAddr>,
    rtcp_destination: Option<SocketAddr>,
    /// Payload types the recorder takes, as the side sends them. Empty: all, unmapped.
    payloads: Vec<PayloadSpec>,
    packets: u64,
    payload_bytes: u64,
    withheld: u64,
    /// The last copy, for sender reports.
    last: Option<Last>,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    ssrc: u32,
    timestamp: u32,
    at_ns: u64,
    clock_hz: u32,
}

impl Way {
    fn new(leg: &Leg) -> Self {
        let mut way = Self {
            slot: 0,
            rtcp_slot: 0,
            destination: None,
            rtcp_destination: None,
            payloads: Vec::new(),
            packets: 0,
            payload_bytes: 0,
            withheld: 0,
            last: None,
        };
        way.follow(leg);
        way
    }

    /// Takes what the target's leg says now.
    pub(crate) fn follow(&mut self, leg: &Leg) {
        self.slot = leg.slots.rtp;
        self.rtcp_slot = leg.slots.rtcp;
        self.destination = leg.latch.destination().filter(|_| leg.may_send);
        let rtcp = leg.latch.rtcp_destination();
        self.rtcp_destination = rtcp.map(|(address, _)| address);
        if rtcp.is_some_and(|(_, multiplexed)| multiplexed) {
            self.rtcp_slot = leg.slots.rtp;
        }
        self.payloads.clone_from(&leg.payloads);
    }

    fn to_pt(&self, payload_type: u8) -> Option<u8> {
        if self.payloads.is_empty() {
            return Some(payload_type);
        }
        let found = self
            .payloads
            .iter()
            .find(|payload| payload.pt == payload_type);
        found.map(|payload| payload.to_pt)
    }

    /// A sender report and the source's name (RFC 3550 sections 6.4.1, 6.5); its length, 0 when there
    /// is nothing to report.
    fn report(&self, now_ns: u64, unix_offset_ns: u64, out: &mut [u8; REPORT_BYTES]) -> usize {
        let Some(last) = self.last else { return 0 };
        let unix_ns = now_ns.wrapping_add(unix_offset_ns);
        let elapsed = now_ns.saturating_sub(last.at_ns) as u128;
        let ticks = (elapsed * u128::from(last.clock_hz) / 1_000_000_000) as u32;
        let seconds = (unix_ns / 1_000_000_000) as u32;
        let fraction = (((unix_ns % 1_000_000_000) << 32) / 1_000_000_000) as u32;
        let words = [
            0x80c8_0006,
            last.ssrc,
            seconds.wrapping_add(NTP_OFFSET_S),
            fraction,
            last.timestamp.wrapping_add(ticks),
            self.packets as u32,
            self.payload_bytes as u32,
            0x81ca_0000 | ((REPORT_BYTES as u32 - 28) / 4 - 1),
            last.ssrc,
        ];
        for (place, word) in out.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        out[36..].copy_from_slice(CNAME);
        REPORT_BYTES
    }
}

/// Seconds from 1900 to 1970.
const NTP_OFFSET_S: u32 = 2_208_988_800;
/// CNAME item, end of items, padded to a word.
const CNAME: &[u8; 12] = b"\x01\x08trunklin\0\0";
const REPORT_BYTES: usize = 48;

impl Fork {
    pub(crate) fn new(target: u64, legs: &[Leg; 2]) -> Self {
        Self {
            target,
            state: ForkState::Running,
            ways: [Way::new(&legs[0]), Way::new(&legs[1])],
        }
    }

    /// Totals of both sides of an m-line.
    pub(crate) fn stats(&self, media: u8, out: &mut Vec<ForkStats>) {
        for side in Side::BOTH {
            let way = &self.ways[side as usize];
            out.push(ForkStats {
                media,
                side,
                packets: way.packets,
                payload_bytes: way.payload_bytes,
                withheld: way.withheld,
            });
        }
    }

    /// Sends both sides' reports.
    pub(crate) fn report(&self, now_ns: u64, unix_offset_ns: u64, actions: &mut impl Actions) {
        for way in &self.ways {
            let Some(destination) = way.rtcp_destination else {
                continue;
            };
            let mut bytes = [0; REPORT_BYTES];
            let length = way.report(now_ns, unix_offset_ns, &mut bytes);
            if length > 0 {
                actions.forward_copy(way.rtcp_slot, destination, &bytes[..length]);
            }
        }
    }
}

/// A packet about to be copied: opened, its header read, nothing rewritten yet.
pub(crate) struct Original<'a> {
    pub(crate) at_ns: u64,
    pub(crate) side: Side,
    pub(crate) header: &'a RtpHeader,
    pub(crate) numbering: Numbering,
    pub(crate) codec: crate::spec::Codec,
    pub(crate) clock_hz: u32,
    pub(crate) length: usize,
}

/// Sends a packet's copies. The buffer is as before when it returns.
pub(crate) fn copy(
    forks: &mut [Fork],
    original: &Original<'_>,
    buffer: &mut [u8],
    counters: &mut Counters,
    actions: &mut impl Actions,
) {
    let Some(header_before) = buffer.first_chunk::<HEADER_BYTES>().copied() else {
        return;
    };
    for fork in forks {
        let way = &mut fork.ways[original.side as usize];
        let to_pt = way.to_pt(original.header.payload_type);
        let (Some(destination), Some(to_pt)) = (way.destination, to_pt) else {
            way.withheld += 1;
            counters.fork_withheld += 1;
            continue;
        };
        if fork.state == ForkState::Paused {
            continue;
        }
        let numbering = &original.numbering;
        let header = original.header;
        let timestamp = header.timestamp.wrapping_add(numbering.timestamp_offset);
        if let Some(mut out) = HeaderMut::of(buffer) {
            out.set_payload_type(to_pt);
            out.set_ssrc(numbering.ssrc);
            out.set_sequence(header.sequence.wrapping_add(numbering.sequence_offset));
            out.set_timestamp(timestamp);
        }
        let sent = if fork.state == ForkState::Silenced {
            send_silence(way.slot, destination, original, buffer, actions)
        } else {
            actions.forward_copy(way.slot, destination, &buffer[..original.length]);
            true
        };
        buffer[..HEADER_BYTES].copy_from_slice(&header_before);
        if !sent {
            way.withheld += 1;
            counters.fork_withheld += 1;
            continue;
        }
        way.packets += 1;
        way.payload_bytes += header.payload().len() as u64;
        way.last = Some(Last {
            ssrc: numbering.ssrc,
            timestamp,
            at_ns: original.at_ns,
            clock_hz: original.clock_hz,
        });
        counters.forked += 1;
    }
}

/// Copies a packet of ours that goes into a side's stream: a recorder sees it in its place too, where it
/// takes that codec of that side. The packet is as before when it returns.
#[cold]
pub(crate) fn inject(
    forks: &mut [Fork],
    side: Side,
    codec: Codec,
    packet: &mut [u8],
    counters: &mut Counters,
    actions: &mut impl Actions,
) {
    let Some(payload_type) = packet.get(1).copied() else {
        return;
    };
    for fork in forks {
        let way = &mut fork.ways[side as usize];
        let takes = |one: &&PayloadSpec| one.codec == codec;
        let to_pt = match way.payloads.is_empty() {
            true => Some(payload_type & 0x7f),
            false => way.payloads.iter().find(takes).map(|one| one.to_pt),
        };
        let runs = fork.state == ForkState::Running;
        let (Some(destination), Some(to_pt)) = (way.destination.filter(|_| runs), to_pt) else {
            way.withheld += 1;
            counters.fork_withheld += 1;
            continue;
        };
        packet[1] = payload_type & 0x80 | to_pt;
        actions.forward_copy(way.slot, destination, packet);
        packet[1] = payload_type;
        way.packets += 1;
        way.payload_bytes += (packet.len() - HEADER_BYTES) as u64;
        counters.forked += 1;
    }
}

/// A copy of silence; false where the codec's silence is not known.
#[cold]
fn send_silence(
    slot: u32,
    destination: SocketAddr,
    original: &Original<'_>,
    buffer: &[u8],
    actions: &mut impl Actions,
) -> bool {
    let mut scratch = [0; SILENCE_BYTES_MAX];
    let Some(room) = scratch.get_mut(..original.length) else {
        return false;
    };
    room.copy_from_slice(&buffer[..original.length]);
    match silence(
        original.codec,
        &mut scratch,
        original.header,
        original.length,
    ) {
        Some(length) => {
            actions.forward_copy(slot, destination, &scratch[..length]);
            true
        }
        None => false,
    }
}
