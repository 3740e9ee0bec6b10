//! The packet path: from a slot to a judged, accepted packet.

use std::net::SocketAddr;

use trunkline_rtp::rtcp::Compound;
use trunkline_rtp::{Multiplexed, RtpHeader, demultiplex};

use crate::actions::{Actions, Event};
use crate::admission::Changed;
use crate::counters::Counters;
use crate::endpoint::canonical;
use crate::engine::{Engine, NEVER};
use crate::flow::{Flow, Leg, NO_FLOW};
use crate::latch::{CANDIDATES, Verdict};
use crate::probation::{Applicant, NO_PROBATION, Probations, Progress};
use crate::relay::{Egress, Relay};
use crate::spec::{DropReason, MediaKind, Side};

/// How often candidates are looked at.
const PROBATION_LOOK_NS: u64 = 250_000_000;

/// What is known of a datagram before its bytes are looked at.
#[derive(Debug, Clone, Copy)]
struct Datagram {
    now_ns: u64,
    slot: u32,
    source: SocketAddr,
    length: usize,
    truncated: bool,
}

/// What a closer look at an unknown source's packet says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Stranger,
    /// Kept; who knows.
    Held,
    /// It continues the stream of the source that fell silent.
    Continues,
    /// The third in order: it and those held are relayed.
    Learnt,
}

impl Engine {
    /// Judges, captures and relays one datagram: the first `length` bytes of `buffer`, which has
    /// [`crate::TAIL_ROOM_BYTES`] more (with less, what needs them fails and is counted).
    /// `truncated`: the datagram was longer than its buffer; it is judged, counted and dropped.
    pub fn handle_packet(
        &mut self,
        now_ns: u64,
        slot: u32,
        source: SocketAddr,
        buffer: &mut [u8],
        length: usize,
        truncated: bool,
        actions: &mut impl Actions,
    ) {
        let Some(port) = self
            .ports
            .get_mut(slot as usize)
            .filter(|port| port.flow != NO_FLOW)
        else {
            self.counters.no_flow += 1;
            return;
        };
        if !port.rates.take_in(now_ns) {
            actions.over_cap(slot);
        }
        let length = length.min(buffer.len());
        let datagram = Datagram {
            now_ns,
            slot,
            source: canonical(source),
            length,
            truncated,
        };
        let (side, rtcp) = (port.side, port.rtcp);
        let flow = &mut self.flows[port.flow as usize];
        let accepted = if rtcp {
            accept_rtcp(flow, side, &datagram, buffer, &mut self.admissions, actions)
        } else {
            match flow.leg(side).latch.judge(now_ns, datagram.source) {
                Verdict::Accepted
                    if flow.leg(side).latch.candidates == [NO_PROBATION; CANDIDATES] =>
                {
                    true
                }
                verdict => {
                    return self.handle_unusual(verdict, &datagram, buffer, actions);
                }
            }
        };
        if !accepted {
            self.counters.strangers += 1;
            return;
        }
        let egress = if datagram.truncated {
            Egress::Dropped(DropReason::Limit)
        } else if port.rates.accept() {
            Egress::InPlace
        } else {
            Egress::Dropped(DropReason::RateCap)
        };
        let Self {
            sessions, counters, ..
        } = self;
        let mut relay = Relay {
            counters,
            sessions,
            actions,
        };
        relay.deliver(flow, side, rtcp, now_ns, buffer, length, egress);
    }

    /// A packet of a source that was not the accepted one, or that has competitors.
    #[cold]
    fn handle_unusual(
        &mut self,
        verdict: Verdict,
        datagram: &Datagram,
        buffer: &mut [u8],
        actions: &mut impl Actions,
    ) {
        let Self {
            ports,
            flows,
            sessions,
            probations,
            counters,
            admissions,
            ..
        } = self;
        let port = &mut ports[datagram.slot as usize];
        let side = port.side;
        let flow = &mut flows[port.flow as usize];
        let look = if verdict == Verdict::Unknown {
            look_closely(flow, side, datagram, buffer, probations, counters)
        } else {
            Look::Continues
        };
        match look {
            Look::Stranger => {
                counters.strangers += 1;
                return;
            }
            Look::Held => {
                self.probation_ns = self.probation_ns.min(datagram.now_ns + PROBATION_LOOK_NS);
                return;
            }
            Look::Continues | Look::Learnt => {}
        }
        let before = flow.leg(side).take_over(verdict, datagram);
        if verdict != Verdict::Accepted {
            let slots = flow.leg(side).slots;
            admissions.note(slots.rtp);
            admissions.note(slots.rtcp);
        }
        if before != Some(datagram.source) {
            tell_learned(flow, side, datagram.source, before, counters, actions);
        }
        let mut relay = Relay {
            counters,
            sessions,
            actions,
        };
        if look == Look::Learnt {
            let places = flow.leg(side).latch.candidates;
            for held in probations.held(&places, datagram.source) {
                let at_ns = held.at_ns;
                let (bytes, length) = held.parts();
                relay.deliver(flow, side, false, at_ns, bytes, length, Egress::Copy);
            }
            probations.forget(&mut flow.leg(side).latch.candidates, datagram.source);
        }
        let candidates = &mut flow.leg(side).latch.candidates;
        probations.release_all(candidates, &mut relay.counters.strangers);
        let egress = if datagram.truncated {
            Egress::Dropped(DropReason::Limit)
        } else if port.rates.accept() {
            Egress::InPlace
        } else {
            Egress::Dropped(DropReason::RateCap)
        };
        relay.deliver(
            flow,
            side,
            false,
            datagram.now_ns,
            buffer,
            datagram.length,
            egress,
        );
    }

    /// Looks at candidates that have run out of time.
    pub(crate) fn expire_probations(&mut self, now_ns: u64) {
        let Self {
            ports,
            flows,
            probations,
            counters,
            ..
        } = self;
        for _ in 0..ports.len() {
            let Some(slot) = probations.expired(now_ns).next() else {
                break;
            };
            let port = &ports[slot as usize];
            let candidates = &mut flows[port.flow as usize].leg(port.side).latch.candidates;
            probations.release_expired(now_ns, candidates, &mut counters.strangers);
        }
        let idle = self.probations.is_idle();
        self.probation_ns = if idle {
            NEVER
        } else {
            now_ns + PROBATION_LOOK_NS
        };
    }
}

impl Leg {
    /// Makes the packet's source the accepted one and gives the one before it.
    fn take_over(&mut self, verdict: Verdict, datagram: &Datagram) -> Option<SocketAddr> {
        let heard_from = self.last_source;
        if verdict == Verdict::Unknown {
            self.latch.accept(datagram.now_ns, datagram.source);
        }
        self.last_source = Some(datagram.source);
        heard_from
    }
}

/// Tells of a new source; packets from it continue the last one's stream.
fn tell_learned(
    flow: &mut Flow,
    side: Side,
    source: SocketAddr,
    before: Option<SocketAddr>,
    counters: &mut Counters,
    actions: &mut impl Actions,
) {
    let (session, media) = (flow.session, flow.media);
    let leg = flow.leg(side);
    if before.is_some() {
        leg.streams.change_source();
    }
    if !leg.latch.is_advertised(source) {
        counters.latched += 1;
    }
    actions.event(Event::EndpointLearned {
        session,
        media,
        side,
        rtcp: false,
        address: source,
    });
}

/// A closer look at a packet of a source that is neither the accepted nor the advertised one.
fn look_closely(
    flow: &mut Flow,
    side: Side,
    datagram: &Datagram,
    buffer: &[u8],
    probations: &mut Probations,
    counters: &mut Counters,
) -> Look {
    let kind = flow.kind;
    let leg = flow.leg(side);
    let packet = &buffer[..datagram.length];
    let now_ns = datagram.now_ns;
    if datagram.truncated {
        return Look::Stranger;
    }
    let (ssrc, sequence) = if kind == MediaKind::OpaqueDatagram {
        // UDPTL (T.38 section 9.1) begins with a sequence number too.
        let Some(number) = packet.first_chunk() else {
            return Look::Stranger;
        };
        (0, u16::from_be_bytes(*number))
    } else {
        if demultiplex(packet) != Multiplexed::Rtp {
            return Look::Stranger;
        }
        let Ok(header) = RtpHeader::parse(packet) else {
            return Look::Stranger;
        };
        let continues = leg.latch.is_silent(now_ns)
            && leg
                .streams
                .current()
                .is_some_and(|current| current.is_continued_by(now_ns, &header));
        if continues {
            return Look::Continues;
        }
        if !leg.negotiated(header.payload_type) {
            return Look::Stranger;
        }
        (header.ssrc, header.sequence)
    };
    if !leg.latch.may_learn(now_ns, datagram.source) {
        return Look::Stranger;
    }
    let applicant = Applicant {
        now_ns,
        slot: datagram.slot,
        source: datagram.source,
        ssrc,
        sequence,
        until_ns: leg.latch.learn_until_ns(),
        packet,
    };
    match probations.apply(
        &applicant,
        &mut leg.latch.candidates,
        &mut counters.strangers,
    ) {
        Progress::Held => Look::Held,
        Progress::Learnt => Look::Learnt,
        Progress::Refused => Look::Stranger,
    }
}

/// Judges the source of a datagram on an RTCP port.
fn accept_rtcp(
    flow: &mut Flow,
    side: Side,
    datagram: &Datagram,
    buffer: &[u8],
    admissions: &mut Changed,
    actions: &mut impl Actions,
) -> bool {
    if flow.kind == MediaKind::OpaqueDatagram {
        return false;
    }
    let valid = || !datagram.truncated && Compound::parse(&buffer[..datagram.length]).is_ok();
    let (session, media) = (flow.session, flow.media);
    let verdict = flow
        .leg(side)
        .latch
        .judge_rtcp(datagram.now_ns, datagram.source, valid);
    if verdict == Some(Verdict::Changed) {
        admissions.note(datagram.slot);
        let address = datagram.source;
        actions.event(Event::EndpointLearned {
            session,
            media,
            side,
            rtcp: true,
            address,
        });
    }
    verdict.is_some()
}

impl<A: Actions> Relay<'_, A> {
    /// Opens an accepted packet and sends it on by what it is.
    #[inline]
    fn deliver(
        &mut self,
        flow: &mut Flow,
        side: Side,
        rtcp_port: bool,
        at_ns: u64,
        buffer: &mut [u8],
        length: usize,
        egress: Egress,
    ) {
        match egress {
            Egress::Dropped(DropReason::RateCap) => self.counters.rate_capped += 1,
            Egress::Dropped(_) => self.counters.truncated += 1,
            Egress::InPlace | Egress::Copy => {}
        }
        let Some(length) = flow.leg(side).transform.open(buffer, length) else {
            self.counters.transform_failed += 1;
            return;
        };
        if !rtcp_port && flow.kind != MediaKind::OpaqueDatagram {
            let packet = &buffer[..length];
            if demultiplex(packet) != Multiplexed::Rtcp || !flow.leg(side).takes_rtcp(packet) {
                if let Ok(header) = RtpHeader::parse(packet) {
                    return self.rtp(flow, side, at_ns, &header, buffer, length, egress);
                }
                return self.deliver_other(flow, side, at_ns, buffer, length, egress);
            }
        }
        self.deliver_unusual(flow, side, at_ns, buffer, length, egress);
    }

    /// RTCP, or a datagram of an m-line without RTP.
    fn deliver_unusual(
        &mut self,
        flow: &mut Flow,
        side: Side,
        at_ns: u64,
        buffer: &mut [u8],
        length: usize,
        egress: Egress,
    ) {
        if flow.kind == MediaKind::OpaqueDatagram {
            return self.deliver_other(flow, side, at_ns, buffer, length, egress);
        }
        if matches!(egress, Egress::Dropped(_)) {
            return;
        }
        if !self.rtcp(flow, side, at_ns, buffer, length) {
            self.counters.malformed += 1;
        }
    }

    /// What is not RTP: relayed where the m-line is opaque.
    #[cold]
    fn deliver_other(
        &mut self,
        flow: &mut Flow,
        side: Side,
        at_ns: u64,
        buffer: &mut [u8],
        length: usize,
        egress: Egress,
    ) {
        if matches!(egress, Egress::Dropped(_)) {
            return;
        }
        if flow.kind == MediaKind::Audio {
            self.counters.malformed += 1;
            return;
        }
        self.opaque(flow, side, at_ns, buffer, length, egress);
    }
}

impl Leg {
    /// Whether what looks like RTCP on the RTP port is: always when multiplexing was agreed, else
    /// unless it may be RTP of a negotiated payload type with the marker set.
    fn takes_rtcp(&self, packet: &[u8]) -> bool {
        self.latch.rtcp_mux || !self.negotiated(packet[1] & 0x7f)
    }
}
