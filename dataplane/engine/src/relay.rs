//! One accepted packet's way: statistics, tap, mute, mapping, renumbering, out.

use std::net::SocketAddr;

use trunkline_rtp::rtcp::Compound;
use trunkline_rtp::rtcp::rewrite::{Heard as HeardAs, Renumbering, Sent, rewrite};
use trunkline_rtp::{Arrival, HeaderMut, RtpHeader};

use crate::actions::{Actions, Captured, Event, FrameKind, FrameMeta};
use crate::counters::Counters;
use crate::flow::{Flow, Leg, NO_TAP, Session};
use crate::fork;
use crate::play::{self, Passing, alter};
use crate::spec::{Codec, Continuity, DropReason, MediaKind, Side};
use crate::stream::{Placed, Stream, StreamTable};
use crate::tap::{Heard, Origin, Tap};

/// How a packet leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Egress {
    /// In the buffer it came in.
    InPlace,
    /// As a copy.
    Copy,
    /// Not at all: it is too many or too long.
    Dropped(DropReason),
}

/// Where a packet belongs.
#[derive(Debug, Clone, Copy)]
struct Place {
    session: u64,
    owner: u32,
    /// See [`Flow::tap`].
    tap: u32,
    media: u8,
    kind: MediaKind,
    side: Side,
}

impl Place {
    #[inline]
    fn of(flow: &Flow, side: Side) -> Self {
        let &Flow {
            session,
            owner,
            tap,
            media,
            kind,
            ..
        } = flow;
        Self {
            session,
            owner,
            tap,
            media,
            kind,
            side,
        }
    }

    /// Inlined, so that a place stays in registers where nothing is played.
    #[inline(always)]
    fn passing<'a>(
        &self,
        at_ns: u64,
        header: &'a RtpHeader,
        index: usize,
        length: usize,
    ) -> Passing<'a> {
        Passing {
            flow: (self.session, self.media),
            side: self.side,
            tap: self.tap,
            at_ns,
            header,
            index,
            length,
        }
    }
}

/// What a packet meets on its way, beside its flow.
pub(crate) struct Relay<'a, A: Actions> {
    pub(crate) counters: &'a mut Counters,
    pub(crate) sessions: &'a mut [Option<Session>],
    pub(crate) actions: &'a mut A,
}

impl<A: Actions> Relay<'_, A> {
    /// An RTP packet of `side`, opened, header checked.
    #[inline]
    pub(crate) fn rtp(
        &mut self,
        flow: &mut Flow,
        side: Side,
        at_ns: u64,
        header: &RtpHeader,
        buffer: &mut [u8],
        length: usize,
        egress: Egress,
    ) {
        if flow.is_fork_target {
            self.counters.fork_in += 1;
            return;
        }
        let place = Place::of(flow, side);
        let (own, _) = flow.pair(side);
        let placed = own.streams.place(at_ns, header, length, &own.payloads);
        if placed.replaced || placed.changed.is_some() {
            self.tell_renumbering(&place, &mut own.streams, placed.changed);
        }
        if own.streams.at(placed.index).payload.codec == Codec::TelephoneEvent {
            self.tell_digit(&place, own, placed.index, header, &buffer[..length]);
        }
        if place.tap != NO_TAP {
            let packet = &buffer[..length];
            if place.kind == MediaKind::Audio {
                self.capture_rtp(&place, own, at_ns, header, &placed, packet, egress);
            } else if !matches!(egress, Egress::Dropped(_)) {
                let mut frame = opaque_frame(side, place.media, at_ns);
                describe(&mut frame, header, &placed);
                self.capture(place.tap, &frame, packet);
            }
        }
        if matches!(egress, Egress::Dropped(_)) {
            return;
        }
        self.counters.rtp_in += 1;
        self.counters.rtp_bytes_in += length as u64;
        if !flow.forks.is_empty() {
            self.copy_to_forks(flow, side, at_ns, header, placed.index, buffer, length);
        }
        let (own, far) = flow.pair(side);
        self.forward_rtp(
            &place,
            own,
            far,
            at_ns,
            header,
            placed.index,
            buffer,
            length,
            egress,
        );
    }

    /// Copies to recorders, before mute and mapping.
    fn copy_to_forks(
        &mut self,
        flow: &mut Flow,
        side: Side,
        at_ns: u64,
        header: &RtpHeader,
        index: usize,
        buffer: &mut [u8],
        length: usize,
    ) {
        let stream = flow.leg(side).streams.at(index);
        let original = fork::Original {
            at_ns,
            side,
            header,
            numbering: stream.numbering,
            codec: stream.payload.codec,
            clock_hz: stream.payload.clock.rate_hz(),
            length,
        };
        fork::copy(
            &mut flow.forks,
            &original,
            buffer,
            self.counters,
            self.actions,
        );
    }

    #[inline]
    fn forward_rtp(
        &mut self,
        place: &Place,
        own: &mut Leg,
        far: &mut Leg,
        at_ns: u64,
        header: &RtpHeader,
        index: usize,
        buffer: &mut [u8],
        mut length: usize,
        egress: Egress,
    ) {
        let stream = own.streams.at(index);
        let payload = stream.payload;
        if !payload.negotiated {
            self.counters.unknown_payload += 1;
        }
        let Some(destination) = far.latch.destination().filter(|_| far.may_send) else {
            self.counters.not_sent += 1;
            return;
        };
        let mut plays = false;
        if own.altered {
            let passing = place.passing(at_ns, header, index, length);
            let altered = alter(&passing, own, far, buffer, self.counters, self.actions);
            let Some(altered) = altered else { return };
            (length, plays) = altered;
        }
        let numbering = own.streams.at(index).numbering;
        if (payload.to_pt != header.payload_type || numbering.changed)
            && let Some(mut out) = HeaderMut::of(buffer)
        {
            out.set_payload_type(payload.to_pt);
            out.set_ssrc(numbering.ssrc);
            out.set_sequence(header.sequence.wrapping_add(numbering.sequence_offset));
            out.set_timestamp(header.timestamp.wrapping_add(numbering.timestamp_offset));
        }
        if plays {
            let passing = place.passing(at_ns, header, index, length);
            let shown = play::shown(&passing, own.streams.at(index));
            play::capture(&passing, &shown, &buffer[..length], self.actions);
        }
        let Some(length) = far.transform.seal(buffer, length) else {
            self.counters.transform_failed += 1;
            return;
        };
        self.counters.rtp_out += 1;
        self.counters.rtp_bytes_out += length as u64;
        self.send(far.slots.rtp, destination, buffer, length, egress);
    }

    #[inline]
    fn send(
        &mut self,
        slot: u32,
        destination: SocketAddr,
        buffer: &[u8],
        length: usize,
        egress: Egress,
    ) {
        match egress {
            Egress::InPlace => self.actions.forward(slot, destination, length),
            Egress::Copy => self
                .actions
                .forward_copy(slot, destination, &buffer[..length]),
            Egress::Dropped(_) => {}
        }
    }

    #[cold]
    fn tell_digit(
        &mut self,
        place: &Place,
        own: &mut Leg,
        index: usize,
        header: &RtpHeader,
        packet: &[u8],
    ) {
        let Some(dialled) = own.digits.observe(header, &packet[header.payload()]) else {
            return;
        };
        let clock_hz = own.streams.at(index).payload.clock.rate_hz().max(1);
        let duration_ms = u64::from(dialled.duration) * 1000 / u64::from(clock_hz);
        self.actions.event(Event::Digit {
            session: place.session,
            side: place.side,
            event: dialled.event,
            duration_ms: u32::try_from(duration_ms).unwrap_or(u32::MAX),
        });
    }

    #[cold]
    fn tell_renumbering(
        &mut self,
        place: &Place,
        streams: &mut StreamTable,
        changed: Option<Continuity>,
    ) {
        let Place {
            session,
            media,
            side,
            ..
        } = *place;
        if let Some(mut replaced) = streams.take_replaced() {
            self.counters.ssrc_evicted += u64::from(replaced.evicted);
            if let Some(tap) = self.tap(place.owner) {
                tap.end_run(replaced.tapped, &mut replaced.live);
            }
        }
        if let Some(continuity) = changed {
            self.counters.source_changes += 1;
            self.actions.event(Event::SourceChanged {
                session,
                media,
                side,
                continuity,
            });
        }
    }

    /// The tap of a session.
    fn tap(&mut self, owner: u32) -> Option<&mut Tap> {
        self.sessions[owner as usize].as_mut()?.tap.as_deref_mut()
    }

    /// Audio into the recording and its receipt.
    #[inline]
    fn capture_rtp(
        &mut self,
        place: &Place,
        own: &mut Leg,
        at_ns: u64,
        header: &RtpHeader,
        placed: &Placed,
        packet: &[u8],
        egress: Egress,
    ) {
        let payload = &packet[header.payload()];
        let outcome = if let Egress::Dropped(reason) = egress {
            Captured::Dropped(reason)
        } else {
            let blank = opaque_frame(place.side, place.media, at_ns);
            let codec = own.streams.at(placed.index).payload.codec;
            let mut frame = FrameMeta {
                kind: FrameKind::Rtp,
                telephone_event: codec == Codec::TelephoneEvent,
                ..blank
            };
            describe(&mut frame, header, placed);
            self.actions.capture(place.tap, &frame, payload)
        };
        let stream = own.streams.at(placed.index);
        let heard = Heard {
            observed: placed.observed,
            first: placed.first,
            timestamp: header.timestamp,
            clock: stream.payload.clock,
            payload_bytes: payload.len(),
            at_ns,
            outcome,
        };
        if !stream.live.follow(&heard) {
            self.account(place, stream, &heard);
        }
    }

    /// A packet that does not simply follow its stream's run.
    fn account(&mut self, place: &Place, stream: &mut Stream, heard: &Heard) {
        if let Some(tap) = self.tap(place.owner) {
            let origin = Origin {
                side: place.side,
                media: place.media,
                ssrc: stream.ssrc,
            };
            stream.tapped = tap.count(origin, stream.tapped, &mut stream.live, heard);
        }
    }

    fn capture(&mut self, tap: u32, frame: &FrameMeta, bytes: &[u8]) {
        if tap != NO_TAP {
            // What is no audio is not in the receipt; the worker counts what it drops.
            let _ = self.actions.capture(tap, frame, bytes);
        }
    }

    /// RTCP of `side`, opened. False when it is none.
    pub(crate) fn rtcp(
        &mut self,
        flow: &mut Flow,
        side: Side,
        at_ns: u64,
        buffer: &mut [u8],
        length: usize,
    ) -> bool {
        if Compound::parse(&buffer[..length]).is_err() {
            return false;
        }
        if flow.is_fork_target {
            self.counters.fork_in += 1;
            return true;
        }
        self.counters.rtcp_in += 1;
        if flow.tap != NO_TAP {
            let mut frame = opaque_frame(side, flow.media, at_ns);
            frame.kind = FrameKind::Rtcp;
            frame.ssrc = buffer[..length]
                .get(4..8)
                .and_then(|bytes| bytes.try_into().ok())
                .map_or(0, u32::from_be_bytes);
            self.capture(flow.tap, &frame, &buffer[..length]);
        }
        let (own, far) = flow.pair(side);
        if own.streams.is_renumbered() || far.streams.is_renumbered() {
            let numbers = Numbers {
                own: &own.streams,
                far: &far.streams,
            };
            rewrite(&mut buffer[..length], &numbers);
        }
        let Some((destination, multiplexed)) = far.latch.rtcp_destination() else {
            self.counters.not_sent += 1;
            return true;
        };
        let Some(length) = far.transform.seal(buffer, length) else {
            self.counters.transform_failed += 1;
            return true;
        };
        let slot = if multiplexed {
            far.slots.rtp
        } else {
            far.slots.rtcp
        };
        self.counters.rtcp_out += 1;
        self.actions.forward(slot, destination, length);
        true
    }

    /// A datagram of `side` that is relayed as it is.
    pub(crate) fn opaque(
        &mut self,
        flow: &mut Flow,
        side: Side,
        at_ns: u64,
        buffer: &mut [u8],
        length: usize,
        egress: Egress,
    ) {
        if flow.is_fork_target {
            self.counters.fork_in += 1;
            return;
        }
        self.counters.opaque_in += 1;
        let frame = opaque_frame(side, flow.media, at_ns);
        self.capture(flow.tap, &frame, &buffer[..length]);
        let (_, far) = flow.pair(side);
        let Some(destination) = far.latch.destination().filter(|_| far.may_send) else {
            self.counters.not_sent += 1;
            return;
        };
        let Some(length) = far.transform.seal(buffer, length) else {
            self.counters.transform_failed += 1;
            return;
        };
        self.counters.opaque_out += 1;
        self.send(far.slots.rtp, destination, buffer, length, egress);
    }
}

/// A frame without RTP fields.
fn opaque_frame(side: Side, media: u8, at_ns: u64) -> FrameMeta {
    FrameMeta {
        kind: FrameKind::Opaque,
        side,
        media,
        ssrc: 0,
        sequence: 0,
        sequence_cycles: 0,
        timestamp: 0,
        payload_type: 0,
        marker: false,
        duplicate: false,
        late: false,
        telephone_event: false,
        at_ns,
    }
}

#[inline]
fn describe(frame: &mut FrameMeta, header: &RtpHeader, placed: &Placed) {
    frame.ssrc = header.ssrc;
    frame.sequence = header.sequence;
    frame.sequence_cycles = (placed.observed.extended >> 16) as u16;
    frame.timestamp = header.timestamp;
    frame.payload_type = header.payload_type;
    frame.marker = header.marker;
    frame.duplicate = placed.observed.arrival == Arrival::Duplicate;
    frame.late = placed.observed.arrival == Arrival::Late;
}

/// The numbering in force between two legs, for RTCP.
struct Numbers<'a> {
    /// Streams of who sent the RTCP.
    own: &'a StreamTable,
    /// Streams it hears.
    far: &'a StreamTable,
}

impl Renumbering for Numbers<'_> {
    fn sent(&self, ssrc: u32) -> Option<Sent> {
        let numbering = self.own.received_as(ssrc)?.numbering;
        numbering.changed.then_some(Sent {
            ssrc: numbering.ssrc,
            timestamp_offset: numbering.timestamp_offset,
        })
    }

    fn heard(&self, ssrc: u32) -> Option<HeardAs> {
        let stream = self.far.shown_as(ssrc)?;
        stream.numbering.changed.then_some(HeardAs {
            ssrc: stream.ssrc,
            extended_offset: stream.numbering.extended_offset,
        })
    }
}
