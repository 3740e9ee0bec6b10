//! Offer and answer of a call: what each side said, what we told it, and what that means for the
//! dataplane (RFC 3264). m-lines keep order and count on both legs.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use trunkline_link::message::{CodecId, LegUpdate, MediaKind, MediaOpen, Payload, Side, leg_flags};
use trunkline_sdp::{
    Change, Codec, Description, MediaPlan, Occasion, OriginState, Ours, RelayKind, SdpError,
    compare, judge_offer, negotiated, sendable, write_answer, write_offer,
};
use trunkline_sn3::facts::{LegFact, PayloadFact};

use super::media::Media;

/// A description as received: its bytes for storage, its parsed form for use.
#[derive(Debug, Clone)]
pub struct Heard {
    bytes: Vec<u8>,
    description: Description,
}

impl Heard {
    /// Parses a body.
    pub fn parse(bytes: &[u8]) -> Result<Self, SdpError> {
        Ok(Self {
            bytes: bytes.to_vec(),
            description: Description::parse(bytes)?,
        })
    }

    /// Parses a body, of which only these audio codecs count (all, if none is named).
    pub fn parse_for(bytes: &[u8], codecs: &[String]) -> Result<Self, SdpError> {
        if codecs.is_empty() {
            return Self::parse(bytes);
        }
        Self::parse(&trunkline_sdp::keep_codecs(bytes, codecs)?)
    }

    /// The same, of which only these audio codecs count (all, if none is named).
    pub fn kept(self, codecs: &[String]) -> Result<Self, SdpError> {
        Self::parse_for(&self.bytes, codecs)
    }

    /// Whether this side holds the call.
    pub fn is_held(&self) -> bool {
        self.description.is_held()
    }

    /// The same without the hold that the other side had asked for: where this one only received or
    /// rested in answer to it, it does both again.
    fn resumed(&self) -> Self {
        let text = String::from_utf8_lossy(&self.bytes);
        let lines = text.lines().map(|line| match line.trim_end() {
            "a=recvonly" | "a=inactive" => "a=sendrecv",
            other => other,
        });
        let text: String = lines.flat_map(|line| [line, "\r\n"]).collect();
        Self::parse(text.as_bytes()).unwrap_or_else(|_| self.clone())
    }

    /// The same with as many m-lines as a description sent earlier, the missing ones disabled (RFC
    /// 3264 section 8: m-lines never go away).
    fn padded(&self, earlier: &str) -> Self {
        let Ok(earlier) = Description::parse(earlier.as_bytes()) else {
            return self.clone();
        };
        let mut bytes = self.bytes.clone();
        for media in earlier.media.iter().skip(self.description.media.len()) {
            let formats = media.formats.join(" ");
            let line = format!("m={} 0 {} {formats}\r\n", media.kind, media.protocol_text);
            bytes.extend_from_slice(line.as_bytes());
        }
        Self::parse(&bytes).unwrap_or_else(|_| self.clone())
    }

    /// The first audio line's address family, where it is an address.
    pub fn address(&self) -> Option<IpAddr> {
        self.description
            .media
            .iter()
            .find_map(|media| media.rtp_address())
            .map(|a| a.ip())
    }
}

/// One side's part.
#[derive(Debug, Clone)]
struct Party {
    heard: Option<Heard>,
    origin: OriginState,
    sent: Option<String>,
}

/// An offer on its way, not yet answered.
#[derive(Debug, Clone)]
struct Pending {
    from: Side,
    offer: Heard,
    /// What the far side was told before, for when the offer is refused.
    told_before: Option<String>,
}

/// The offer/answer state of a call.
#[derive(Debug, Clone)]
pub struct Negotiation {
    plan: MediaPlan,
    parties: [Party; 2],
    pending: Option<Pending>,
}

/// What of it survives a restart of control.
#[derive(Debug, Serialize, Deserialize)]
pub struct Saved {
    plan: MediaPlan,
    heard: [Option<String>; 2],
    origins: [OriginState; 2],
    /// Which side offered last: what we told each side follows from it.
    offerer: u8,
}

impl Saved {
    /// The side that offered last.
    pub fn offerer(&self) -> Side {
        if self.offerer == Side::Caller as u8 {
            Side::Caller
        } else {
            Side::Callee
        }
    }
}

impl Negotiation {
    /// Nothing said yet. `origins` are random session ids for our `o=` lines.
    pub fn new(origins: [u64; 2]) -> Self {
        let party = |id| Party {
            heard: None,
            origin: OriginState::new(id),
            sent: None,
        };
        Self {
            plan: MediaPlan::default(),
            parties: origins.map(party),
            pending: None,
        }
    }

    /// Takes in an offer. The m-lines to relay are in [`Self::wanted_media`] afterwards.
    pub fn offer(&mut self, from: Side, offer: Heard) -> Result<(), SdpError> {
        let first = self.parties.iter().all(|party| party.heard.is_none());
        judge_offer(
            &offer.description,
            if first {
                Occasion::First
            } else {
                Occasion::Later
            },
        )?;
        self.plan.update(&offer.description);
        let told_before = self.parties[from.other() as usize].sent.clone();
        self.pending = Some(Pending {
            from,
            offer,
            told_before,
        });
        Ok(())
    }

    /// Whether an offer waits for its answer.
    pub fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Who made the offer that waits.
    pub fn offerer(&self) -> Option<Side> {
        self.pending.as_ref().map(|pending| pending.from)
    }

    /// Forgets an offer that was refused: what both sides were told before stands.
    pub fn withdraw(&mut self) {
        if let Some(pending) = self.pending.take()
            && pending.told_before.is_some()
        {
            self.parties[pending.from.other() as usize].sent = pending.told_before;
        }
    }

    /// Whether a description says the same as the side's last one (a session refresh).
    pub fn is_refresh(&self, from: Side, new: &Heard) -> bool {
        self.parties[from as usize]
            .heard
            .as_ref()
            .is_some_and(|old| matches!(compare(&old.description, &new.description), Change::None))
    }

    /// The session's media, with the ports already known.
    pub fn wanted_media(&self, known: &[MediaOpen]) -> Vec<MediaOpen> {
        let kind = |kind| match kind {
            RelayKind::Audio => MediaKind::Audio,
            RelayKind::OpaqueRtp => MediaKind::OpaqueRtp,
            RelayKind::OpaqueDatagram => MediaKind::OpaqueDatagram,
        };
        let media = self.plan.media().iter().enumerate();
        media
            .map(|(index, planned)| MediaOpen {
                kind: kind(planned.kind),
                ports: known.get(index).map_or([0; 2], |open| open.ports),
            })
            .collect()
    }

    /// The pending offer, told to the far side.
    pub fn write_offer(&mut self, media: &Media, address: IpAddr) -> Option<String> {
        let pending = self.pending.as_ref()?;
        let to = pending.from.other();
        let description = &pending.offer.description;
        let ports = ports(&self.plan, description, media, to);
        let ours = Ours {
            address,
            ports: &ports,
        };
        let party = &mut self.parties[to as usize];
        let written = write_offer(description, &ours, &mut party.origin);
        party.sent = Some(written.text.clone());
        Some(written.text)
    }

    /// Takes in the answer to the pending offer: both sides' descriptions are in force from now on.
    /// Returns what the offerer is told. `last` is false for an answer in a provisional response,
    /// which another may replace.
    pub fn answer(
        &mut self,
        answer: Heard,
        media: &Media,
        address: IpAddr,
        last: bool,
    ) -> Result<String, SdpError> {
        let Some(pending) = self.pending.clone() else {
            return Err(SdpError::AnswerMismatch("nothing was offered"));
        };
        let offer = &pending.offer.description;
        let to = pending.from;
        let ports = ports(&self.plan, offer, media, to);
        let ours = Ours {
            address,
            ports: &ports,
        };
        let origin = &mut self.parties[to as usize].origin;
        let written = write_answer(offer, &answer.description, &ours, origin)?;
        self.parties[to as usize].sent = Some(written.text.clone());
        self.parties[to as usize].heard = Some(pending.offer);
        self.parties[to.other() as usize].heard = Some(answer);
        if last {
            self.pending = None;
        }
        Ok(written.text)
    }

    /// The offer was answered in a provisional response and the final one repeats nothing.
    pub fn settle(&mut self) {
        self.pending = None;
    }

    /// The pending offer goes to another target: what an earlier one answered does not hold.
    pub fn reopen(&mut self) {
        if self.pending.is_some() {
            for party in &mut self.parties {
                party.heard = None;
            }
        }
    }

    /// A newcomer is to have `leaving`'s place. It is offered what the side that stays said: the
    /// negotiation with it, of which it is the callee, and that offer. `met` is its negotiation in
    /// another call, and its side there, when it has one.
    pub fn for_newcomer(&self, leaving: Side, met: Option<(&Self, Side)>) -> Option<(Self, Heard)> {
        let stays = self.heard(leaving.other())?;
        let mut offer = match self.heard(leaving) {
            Some(left) if left.is_held() => stays.resumed(),
            _ => stays.clone(),
        };
        let fresh = || Party {
            heard: None,
            origin: OriginState::new(rand::random()),
            sent: None,
        };
        let mut newcomer = fresh();
        if let Some((theirs, side)) = met {
            let known = &theirs.parties[side as usize];
            newcomer.origin = known.origin.clone();
            offer = offer.padded(known.sent.as_deref().unwrap_or_default());
        }
        let negotiation = Self {
            plan: self.plan.clone(),
            parties: [fresh(), newcomer],
            pending: None,
        };
        Some((negotiation, offer))
    }

    /// The call's negotiation once the newcomer of [`Self::for_newcomer`] has a side's place.
    pub fn with_newcomer(&self, side: Side, newcomer: &Self) -> Self {
        let mut next = self.clone();
        next.withdraw();
        next.plan = newcomer.plan.clone();
        next.parties[side as usize] = newcomer.parties[Side::Callee as usize].clone();
        next
    }

    /// The same with a side about which nothing is known yet.
    pub fn without(&self, side: Side) -> Self {
        let mut next = self.clone();
        next.withdraw();
        next.parties[side as usize] = Party {
            heard: None,
            origin: OriginState::new(rand::random()),
            sent: None,
        };
        next
    }

    /// The callee says something else than it answered, before the call is answered; gives what it is
    /// told. The caller is told nothing yet.
    pub fn replace_answer(
        &mut self,
        offer: Heard,
        media: &Media,
        address: IpAddr,
    ) -> Result<String, SdpError> {
        judge_offer(&offer.description, Occasion::Later)?;
        let Some(caller) = self.heard(Side::Caller).cloned() else {
            return Err(SdpError::AnswerMismatch("the caller has said nothing"));
        };
        let ports = ports(&self.plan, &offer.description, media, Side::Callee);
        let ours = Ours {
            address,
            ports: &ports,
        };
        let party = &mut self.parties[Side::Callee as usize];
        let written = write_answer(
            &offer.description,
            &caller.description,
            &ours,
            &mut party.origin,
        )?;
        party.heard = Some(offer);
        party.sent = Some(written.text.clone());
        Ok(written.text)
    }

    /// A side keeps believing what it was told before.
    pub fn keep_told(&mut self, side: Side, told: String) {
        self.parties[side as usize].sent = Some(told);
    }

    /// Whether a side takes digits by telephone-event.
    pub fn takes_digits(&self, side: Side) -> bool {
        let media = self
            .heard(side)
            .map_or(&[][..], |heard| &heard.description.media);
        let events = |media: &trunkline_sdp::Media| {
            let payloads = media.payloads.iter();
            let found = |one: &trunkline_sdp::PayloadType| one.codec == Codec::TelephoneEvent;
            media.port != 0 && payloads.into_iter().any(found)
        };
        media.iter().any(events)
    }

    /// Whether what a side was told no longer says what the other side takes and does.
    pub fn must_retell(&self, to: Side) -> bool {
        let told = self.sent(to).map(str::as_bytes).map(Description::parse);
        let (Some(Ok(told)), Some(own), Some(says)) =
            (told, self.heard(to), self.heard(to.other()))
        else {
            return true;
        };
        let media = self.plan.media().iter();
        media.map(|planned| planned.line).any(|line| {
            let at = |one: &Description| one.media.get(line).filter(|m| m.port != 0).cloned();
            match (at(&told), at(&says.description)) {
                (None, None) => false,
                (Some(told), Some(says)) => {
                    told.direction() != says.direction()
                        || !fits(&told, &says, at(&own.description).as_ref())
                }
                _ => true,
            }
        })
    }

    /// Offers what a side said last to the other side once more.
    pub fn offer_again(&mut self, from: Side) -> Option<()> {
        let offer = self.heard(from)?.clone();
        let told_before = self.sent(from.other()).map(str::to_owned);
        self.pending = Some(Pending {
            from,
            offer,
            told_before,
        });
        Some(())
    }

    /// Takes in the answer to an offer that nobody waits for but us.
    pub fn hear_answer(&mut self, answer: Heard) -> Result<(), SdpError> {
        let Some(pending) = &self.pending else {
            return Err(SdpError::AnswerMismatch("nothing was offered"));
        };
        let lines = pending.offer.description.media.len();
        trunkline_sdp::judge_answer(&answer.description, lines)?;
        let to = pending.from.other();
        self.parties[to as usize].heard = Some(answer);
        self.pending = None;
        Ok(())
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

    /// What a side said last.
    pub fn heard(&self, side: Side) -> Option<&Heard> {
        self.parties[side as usize].heard.as_ref()
    }

    /// What we told a side last.
    pub fn sent(&self, side: Side) -> Option<&str> {
        self.parties[side as usize].sent.as_deref()
    }

    fn description(&self, side: Side) -> Option<&Description> {
        if let Some(pending) = &self.pending
            && pending.from == side
            && self.heard(side).is_none()
        {
            return Some(&pending.offer.description);
        }
        self.heard(side).map(|heard| &heard.description)
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

    fn leg_update(
        &self,
        session: u64,
        medium: usize,
        side: Side,
        signalling: Option<IpAddr>,
        nat: bool,
    ) -> LegUpdate {
        let planned = self.plan.media()[medium];
        let line = |side: Side| {
            let media = self.description(side)?.media.get(planned.line)?;
            (media.relay_kind() == Some(planned.kind)).then_some(media)
        };
        let (own, far) = (line(side), line(side.other()));
        let direction = match (own, far) {
            (Some(own), Some(far)) => Some(negotiated(own, far).0),
            (Some(own), None) => Some(own.direction()),
            // The far side's offer is out: this side may answer with media before its SDP.
            (None, Some(far)) => Some(far.direction().reversed()),
            (None, None) => None,
        };
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

    /// What has to be kept over a restart, once both sides are known. `offerer` is the side whose
    /// offer was answered last.
    pub fn save(&self, offerer: Side) -> Saved {
        let heard = |party: &Party| {
            party
                .heard
                .as_ref()
                .map(|heard| String::from_utf8_lossy(&heard.bytes).into_owned())
        };
        Saved {
            plan: self.plan.clone(),
            heard: [heard(&self.parties[0]), heard(&self.parties[1])],
            origins: [
                self.parties[0].origin.clone(),
                self.parties[1].origin.clone(),
            ],
            offerer: offerer as u8,
        }
    }

    /// The counterpart of [`Self::save`]: what we told each side is worked out again, and comes out
    /// the same with the same version in `o=`.
    pub fn load(saved: Saved, media: &Media, addresses: [IpAddr; 2]) -> Option<Self> {
        let offerer = saved.offerer();
        let [first, second] = saved.heard;
        let hear = |text: Option<String>| Heard::parse(text?.as_bytes()).ok();
        let (first, second) = (hear(first)?, hear(second)?);
        let (offer, answer) = match offerer {
            Side::Caller => (first, second),
            Side::Callee => (second, first),
        };
        let [caller, callee] = saved.origins;
        let party = |origin| Party {
            heard: None,
            origin,
            sent: None,
        };
        let mut negotiation = Self {
            plan: saved.plan,
            parties: [party(caller), party(callee)],
            pending: Some(Pending {
                from: offerer,
                offer,
                told_before: None,
            }),
        };
        negotiation.write_offer(media, addresses[offerer.other() as usize])?;
        negotiation
            .answer(answer, media, addresses[offerer as usize], true)
            .ok()?;
        Some(negotiation)
    }
}

/// Whether all that a side was told to send is taken by the other: known by its number there, or by
/// the number that the side itself gave it.
fn fits(
    told: &trunkline_sdp::Media,
    says: &trunkline_sdp::Media,
    own: Option<&trunkline_sdp::Media>,
) -> bool {
    let own = own.map_or(&[][..], |own| &own.payloads);
    told.payloads
        .iter()
        .filter(|one| one.codec != Codec::ComfortNoise)
        .all(|one| {
            let same = |other: &trunkline_sdp::PayloadType| other.same_encoding(one);
            let numbered = |other: &trunkline_sdp::PayloadType| other.pt == one.pt && same(other);
            let known = says.payloads.iter().any(numbered) || own.iter().any(numbered);
            known && says.payloads.iter().any(same)
        })
}

fn ports(plan: &MediaPlan, offer: &Description, media: &Media, to: Side) -> Vec<Option<u16>> {
    let ours: Vec<u16> = (0..plan.media().len())
        .map(|index| media.port(index, to))
        .collect();
    plan.ports(offer, &ours)
}

fn codec_id(codec: Codec) -> CodecId {
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
