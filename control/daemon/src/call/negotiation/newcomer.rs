//! Somebody else takes a side, or a side is told something that the other did not just say.

use std::net::IpAddr;

use trunkline_link::message::Side;
use trunkline_sdp::{
    Codec, Description, Occasion, OriginState, Ours, SdpError, judge_offer, write_answer,
};

use super::{Heard, Negotiation, Party, Pending, ports, record};
use crate::call::media::Media;

impl Negotiation {
    /// A newcomer is to have `leaving`'s place. It is offered what the side that stays said: the
    /// negotiation with it, of which it is the callee, and that offer. `met` is its negotiation in
    /// another call, and its side there, when it has one.
    pub fn for_newcomer(&self, leaving: Side, met: Option<(&Self, Side)>) -> Option<(Self, Heard)> {
        let stays = self.heard(leaving.other())?;
        let mut offer = match self.heard(leaving) {
            Some(left) if left.is_held() => stays.resumed(),
            _ => stays.clone(),
        };
        let fresh = || Party::new(OriginState::new(rand::random()));
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
        next.parties[side as usize] = Party::new(OriginState::new(rand::random()));
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
        judge_offer(offer.description(), Occasion::Later)?;
        let Some(caller) = self.heard(Side::Caller).cloned() else {
            return Err(SdpError::AnswerMismatch("the caller has said nothing"));
        };
        let ports = ports(&self.plan, offer.description(), media, Side::Callee);
        let ours = Ours {
            address,
            ports: &ports,
            record: record::joined(
                self.parties[Side::Callee as usize].record,
                caller.description(),
            ),
        };
        let party = &mut self.parties[Side::Callee as usize];
        let written = write_answer(
            offer.description(),
            caller.description(),
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
            match (at(&told), at(says.description())) {
                (None, None) => false,
                (Some(told), Some(says)) => {
                    told.direction() != says.direction()
                        || !fits(&told, &says, at(own.description()).as_ref())
                }
                _ => true,
            }
        })
    }

    /// Offers what a side said last to the other side once more.
    pub fn offer_again(&mut self, from: Side) -> Option<()> {
        let offer = self.heard(from)?.clone();
        let told_before = self.sent(from.other()).map(str::to_owned);
        self.pending = Some(Box::new(Pending {
            from,
            offer,
            told_before,
        }));
        Some(())
    }

    /// Takes in the answer to an offer that nobody waits for but us.
    pub fn hear_answer(&mut self, answer: Heard) -> Result<(), SdpError> {
        let Some(pending) = &self.pending else {
            return Err(SdpError::AnswerMismatch("nothing was offered"));
        };
        let lines = pending.offer.description().media.len();
        trunkline_sdp::judge_answer(answer.description(), lines)?;
        let to = pending.from.other();
        self.parties[to as usize].heard = Some(answer);
        self.pending = None;
        Ok(())
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
