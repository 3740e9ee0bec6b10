//! Offer and answer of a call: what each side said, what we told it, and what that means for the
//! dataplane (RFC 3264). m-lines keep order and count on both legs.

mod heard;
pub(crate) mod media;
mod newcomer;
mod record;
mod saved;

use std::net::IpAddr;

use trunkline_link::message::{MediaKind, MediaOpen, Side};
use trunkline_sdp::{
    Change, Description, MediaPlan, Occasion, OriginState, Ours, RecordState, RelayKind, SdpError,
    compare, judge_offer, write_answer, write_offer,
};

use super::media::Media;
pub use heard::Heard;
pub use saved::Saved;

/// One side's part.
#[derive(Debug, Clone)]
struct Party {
    heard: Option<Heard>,
    origin: OriginState,
    sent: Option<String>,
    /// What is recorded by us, if it is to be told that; `None` = it would not understand.
    record: Option<RecordState>,
}

impl Party {
    fn new(origin: OriginState) -> Self {
        Self {
            heard: None,
            origin,
            sent: None,
            record: None,
        }
    }
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
    pending: Option<Box<Pending>>,
}

impl Negotiation {
    /// Nothing said yet. `origins` are random session ids for our `o=` lines.
    pub fn new(origins: [u64; 2]) -> Self {
        Self {
            plan: MediaPlan::default(),
            parties: origins.map(|id| Party::new(OriginState::new(id))),
            pending: None,
        }
    }

    /// Takes in an offer. The m-lines to relay are in [`Self::wanted_media`] afterwards.
    pub fn offer(&mut self, from: Side, offer: Heard) -> Result<(), SdpError> {
        let first = self.parties.iter().all(|party| party.heard.is_none());
        judge_offer(
            offer.description(),
            if first {
                Occasion::First
            } else {
                Occasion::Later
            },
        )?;
        self.plan.update(offer.description());
        let told_before = self.parties[from.other() as usize].sent.clone();
        self.pending = Some(Box::new(Pending {
            from,
            offer,
            told_before,
        }));
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
            .is_some_and(|old| {
                matches!(compare(old.description(), new.description()), Change::None)
            })
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
        let party = &mut self.parties[to as usize];
        // After a transfer the offerer may know of fewer m-lines than the other side.
        let offer = pending
            .offer
            .padded(party.sent.as_deref().unwrap_or_default());
        let ports = ports(&self.plan, offer.description(), media, to);
        let ours = Ours {
            address,
            ports: &ports,
            record: record::joined(party.record, offer.description()),
        };
        let written = write_offer(offer.description(), &ours, &mut party.origin);
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
        let offer = pending.offer.description();
        let to = pending.from;
        let ports = ports(&self.plan, offer, media, to);
        let ours = Ours {
            address,
            ports: &ports,
            record: record::joined(self.parties[to as usize].record, answer.description()),
        };
        let origin = &mut self.parties[to as usize].origin;
        let written = write_answer(offer, answer.description(), &ours, origin)?;
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

    /// Nothing is being negotiated: only what cannot be made again is kept.
    pub fn rest(&mut self) {
        if self.pending.is_none() {
            let heard = self
                .parties
                .iter_mut()
                .filter_map(|party| party.heard.as_mut());
            heard.for_each(Heard::rest);
        }
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
            return Some(pending.offer.description());
        }
        self.heard(side).map(|heard| heard.description())
    }
}

fn ports(plan: &MediaPlan, offer: &Description, media: &Media, to: Side) -> Vec<Option<u16>> {
    let ours: Vec<u16> = (0..plan.media().len())
        .map(|index| media.port(index, to))
        .collect();
    plan.ports(offer, &ours)
}
