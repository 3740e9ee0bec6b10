//! Packets that we make ourselves on their way to a side: captured as ours, shown to recorders in their
//! place, sealed and sent.

use crate::actions::{Actions, FrameKind, FrameMeta};
use crate::counters::Counters;
use crate::flow::{Flow, Leg, NO_TAP};
use crate::fork;
use crate::spec::{Codec, Side, TAIL_ROOM_BYTES};
use crate::stream::Position;

/// Bytes of a fixed RTP header.
pub(crate) const HEADER_BYTES: usize = 12;

/// The header of a packet of ours.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    pub(crate) position: Position,
    pub(crate) timestamp: u32,
    pub(crate) payload_type: u8,
    pub(crate) marker: bool,
    /// What the payload is.
    pub(crate) codec: Codec,
}

impl Header {
    /// Writes the fixed RTP header to the front of a packet.
    pub(crate) fn write(&self, packet: &mut [u8]) {
        packet[0] = 0x80;
        packet[1] = self.payload_type | u8::from(self.marker) << 7;
        packet[2..4].copy_from_slice(&self.position.sequence.to_be_bytes());
        packet[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        packet[8..HEADER_BYTES].copy_from_slice(&self.position.ssrc.to_be_bytes());
    }

    /// What a recording says of it, as part of what `to` hears of the other side.
    pub(crate) fn frame(&self, to: Side, media: u8, at_ns: u64) -> FrameMeta {
        FrameMeta {
            kind: FrameKind::Injected,
            side: to.other(),
            media,
            ssrc: self.position.ssrc,
            sequence: self.position.sequence,
            sequence_cycles: 0,
            timestamp: self.timestamp,
            payload_type: self.payload_type,
            marker: self.marker,
            duplicate: false,
            late: false,
            telephone_event: self.codec == Codec::TelephoneEvent,
            at_ns,
        }
    }
}

/// Sends a packet to a side: `length` bytes of `packet`, of which the header is written here; behind
/// them there is room for what a transform appends.
pub(crate) fn send(
    flow: &mut Flow,
    to: Side,
    header: &Header,
    packet: &mut [u8],
    length: usize,
    now_ns: u64,
    counters: &mut Counters,
    actions: &mut impl Actions,
) {
    header.write(packet);
    let frame = header.frame(to, flow.media, now_ns);
    capture(flow.tap, &frame, &packet[..length], actions);
    fork::inject(
        &mut flow.forks,
        to.other(),
        header.codec,
        &mut packet[..length],
        counters,
        actions,
    );
    dispatch(flow.leg(to), packet, length, counters, actions);
}

/// Shows a packet of ours to a recording.
pub(crate) fn capture(tap: u32, frame: &FrameMeta, packet: &[u8], actions: &mut impl Actions) {
    if tap != NO_TAP {
        // What is ours is not in the receipt; the worker counts what it drops.
        let _ = actions.capture(tap, frame, packet);
    }
}

/// Seals a packet of ours and sends it to a leg.
pub(crate) fn dispatch(
    far: &mut Leg,
    packet: &mut [u8],
    length: usize,
    counters: &mut Counters,
    actions: &mut impl Actions,
) {
    debug_assert!(packet.len() >= length + TAIL_ROOM_BYTES);
    let Some(destination) = far.latch.destination().filter(|_| far.may_send) else {
        counters.not_sent += 1;
        return;
    };
    let Some(length) = far.transform.seal(packet, length) else {
        counters.transform_failed += 1;
        return;
    };
    counters.rtp_out += 1;
    counters.rtp_bytes_out += length as u64;
    actions.forward_copy(far.slots.rtp, destination, &packet[..length]);
}
