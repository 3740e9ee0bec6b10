//! What the negotiation means for the dataplane, the recording's facts and the API.

use std::net::IpAddr;

use trunkline_link::message::{CodecId, LegUpdate, Payload, Side, leg_flags};
use trunkline_sdp::{Codec, Description, Direction, PlannedMedia, RelayKind, negotiated, sendable};
use trunkline_sn3::facts::{LegFact, PayloadFact};

use super::Negotiation;

/// How a side takes telephone-events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Events {
    /// Index of the medium.
    pub media: u8,
    /// Payload type.
    pub pt: u8,
    /// Clock rate, Hz.
    pub clock_hz: u32,
}

/// What a side takes of the other's voice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spoken {
    /// Index of the medium.
    pub media: u8,
    /// Codecs, with the payload types by which the side takes them.
    pub codecs: Vec<(CodecId, u8)>,
    /// Time of a packet.
    pub packet_ms: u16,
}

/// Packet time where SDP says none (RFC 3551 section 4.2), and what is reasonable.
const PACKET_MS: u16 = 20;
const PACKET_MS_RANGE: std::ops::RangeInclusive<u32> = 5..=120;

impl Negotiation {
    /// How a voice is sent towards a side: in the first audio m-line that it has.
    pub fn spoken_to(&self, to: Side) -> Option<Spoken> {
        let mut media = self.plan.media().iter().enumerate();
        media.find_map(|(medium, planned)| {
            let line = |side: Side| self.relayed_line(*planned, side);
            let own = line(to).filter(|own| own.port != 0)?;
            if planned.kind != RelayKind::Audio {
                return None;
            }
            let beside = [Codec::TelephoneEvent, Codec::ComfortNoise];
            let spoken = sendable(line(to.other()), Some(own));
            let spoken = spoken.iter().filter(|one| !beside.contains(&one.codec));
            let packet_ms = own
                .ptime_ms
                .filter(|ms| PACKET_MS_RANGE.contains(&u32::from(*ms)));
            Some(Spoken {
                media: u8::try_from(medium).ok()?,
                codecs: spoken.map(|one| (codec_id(one.codec), one.to_pt)).collect(),
                packet_ms: packet_ms.map_or(PACKET_MS, u16::from),
            })
        })
    }

    /// How telephone-events are sent towards a side: in the first audio m-line that takes them, by the
    /// payload type whose clock is that of the audio beside it.
    pub fn events_of(&self, to: Side) -> Option<Events> {
        let description = self.description(to)?;
        let far = self.description(to.other());
        let media = self.plan.media().iter().enumerate();
        let mut audio = media.filter(|(_, planned)| planned.kind == RelayKind::Audio);
        audio.find_map(|(medium, planned)| {
            let line = description.media.get(planned.line)?;
            let spoken = sendable(far.and_then(|far| far.media.get(planned.line)), Some(line));
            let beside = [Codec::TelephoneEvent, Codec::ComfortNoise];
            let voice = spoken.iter().find(|one| !beside.contains(&one.codec));
            let clock_hz = voice.map_or(8000, |one| one.clock_hz);
            let events = line.payloads.iter();
            let events = events.filter(|one| line.port != 0 && one.codec == Codec::TelephoneEvent);
            let best = events.min_by_key(|one| one.clock_hz != clock_hz)?;
            Some(Events {
                media: u8::try_from(medium).ok()?,
                pt: best.pt,
                clock_hz: best.clock_hz,
            })
        })
    }

    /// Whether a side takes digits by telephone-event.
    pub fn takes_digits(&self, side: Side) -> bool {
        let media = self
            .heard(side)
            .map_or(&[][..], |heard| &heard.description().media);
        let events = |media: &trunkline_sdp::Media| {
            let payloads = media.payloads.iter();
            let found = |one: &trunkline_sdp::PayloadType| one.codec == Codec::TelephoneEvent;
            media.port != 0 && payloads.into_iter().any(found)
        };
        media.iter().any(events)
    }

    /// The name of the first audio codec that a side may send, for display.
    pub fn agreed_codec(&self, side: Side) -> Option<String> {
        let line = self
            .plan
            .media()
            .iter()
            .find(|one| one.kind == RelayKind::Audio)?
            .line;
        let media = |side: Side| self.description(side)?.media.get(line);
        let sendable = sendable(media(side), media(side.other()));
        let voice = |one: &&trunkline_sdp::Sendable| {
            !matches!(one.codec, Codec::TelephoneEvent | Codec::ComfortNoise)
        };
        sendable.iter().find(voice).map(|one| one.name.clone())
    }

    /// How the dataplane has to see a side, one entry a medium.
    pub fn leg_updates(
        &self,
        session: u64,
        side: Side,
        signalling: Option<IpAddr>,
        nat: bool,
    ) -> Vec<LegUpdate> {
        (0..self.plan.media().len())
            .map(|medium| self.leg_update(session, medium, side, signalling, nat))
            .collect()
    }

    /// A side's m-line of a planned medium, where it is relayed as such.
    fn relayed_line(&self, planned: PlannedMedia, side: Side) -> Option<&trunkline_sdp::Media> {
        let media = self.description(side)?.media.get(planned.line)?;
        (media.relay_kind() == Some(planned.kind)).then_some(media)
    }

    /// What a side does on a medium, as far as it is known; `None` when neither side has said a thing.
    pub fn direction(&self, medium: usize, side: Side) -> Option<Direction> {
        let planned = *self.plan.media().get(medium)?;
        let line = |side: Side| self.relayed_line(planned, side);
        match (line(side), line(side.other())) {
            (Some(own), Some(far)) => Some(negotiated(own, far).0),
            (Some(own), None) => Some(own.direction()),
            // The far side's offer is out: this side may answer with media before its SDP.
            (None, Some(far)) => Some(far.direction().reversed()),
            (None, None) => None,
        }
    }

    fn leg_update(
        &self,
        session: u64,
        medium: usize,
        side: Side,
        signalling: Option<IpAddr>,
        nat: bool,
    ) -> LegUpdate {
        let planned = self.plan.media()[medium];
        let line = |side: Side| self.relayed_line(planned, side);
        let (own, far) = (line(side), line(side.other()));
        let direction = self.direction(medium, side);
        let mut flags = leg_flags::LEARN;
        if nat {
            flags |= leg_flags::NAT;
        }
        let answered = self.heard(side).is_some() || self.heard(side.other()).is_some();
        if own.is_some_and(|own| own.rtcp_mux) && answered && self.told_mux(side, planned.line) {
            flags |= leg_flags::RTCP_MUX;
        }
        if direction.is_some_and(|direction| direction.sends()) && answered {
            flags |= leg_flags::EXPECT_MEDIA;
        }
        if direction.is_some_and(|direction| direction.receives()) {
            flags |= leg_flags::MAY_SEND;
        }
        let payloads = sendable(own, far);
        LegUpdate {
            session,
            media: u8::try_from(medium).unwrap_or(u8::MAX),
            side,
            flags,
            rtp: own.and_then(|own| own.rtp_address()),
            rtcp: own.and_then(|own| own.rtcp_address()),
            signalling,
            payloads: payloads
                .iter()
                .map(|one| Payload {
                    pt: one.pt,
                    to_pt: one.to_pt,
                    codec: codec_id(one.codec),
                    clock_hz: one.clock_hz,
                })
                .collect(),
            restore: None,
        }
    }

    /// Whether our own description to a side says rtcp-mux on this m-line.
    fn told_mux(&self, side: Side, line: usize) -> bool {
        self.sent(side)
            .and_then(|sent| Description::parse(sent.as_bytes()).ok())
            .and_then(|sent| sent.media.get(line).map(|media| media.rtcp_mux))
            .unwrap_or(false)
    }

    /// What each side may send, for the recording's facts.
    pub fn leg_facts(&self) -> Vec<LegFact> {
        let mut facts = Vec::new();
        for (medium, planned) in self.plan.media().iter().enumerate() {
            for side in Side::BOTH {
                let line = |side: Side| self.description(side)?.media.get(planned.line);
                let (own, far) = (line(side), line(side.other()));
                if own.is_none() && far.is_none() {
                    continue;
                }
                let payloads = sendable(own, far);
                facts.push(LegFact {
                    side: side as u8,
                    media: u8::try_from(medium).unwrap_or(u8::MAX),
                    kind: own
                        .or(far)
                        .map(|media| media.kind.clone())
                        .unwrap_or_default(),
                    ptime_ms: own
                        .and_then(|media| media.ptime_ms)
                        .or_else(|| far.and_then(|media| media.ptime_ms))
                        .unwrap_or(0),
                    alternate: 0,
                    payloads: payloads
                        .into_iter()
                        .map(|one| PayloadFact {
                            pt: one.pt,
                            codec: one.name,
                            clock_hz: one.clock_hz,
                            channels: one.channels,
                            fmtp: one.fmtp,
                        })
                        .collect(),
                });
            }
        }
        facts
    }
}

/// A codec of SDP as the dataplane tells it apart.
pub(crate) fn codec_id(codec: Codec) -> CodecId {
    match codec {
        Codec::Other => CodecId::Other,
        Codec::Pcmu => CodecId::Pcmu,
        Codec::Pcma => CodecId::Pcma,
        Codec::G722 => CodecId::G722,
        Codec::Opus => CodecId::Opus,
        Codec::L16 => CodecId::L16,
        Codec::TelephoneEvent => CodecId::TelephoneEvent,
        Codec::ComfortNoise => CodecId::ComfortNoise,
        Codec::G729 => CodecId::G729,
        Codec::Gsm => CodecId::Gsm,
    }
}
