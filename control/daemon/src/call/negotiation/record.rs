//! What a call's descriptions say of recording.

use trunkline_link::message::Side;
use trunkline_sdp::{Description, RecordPreference, RecordState, retell, told};

use super::{Heard, Negotiation};

/// What a side is told: that it is recorded, if we or the other side record.
pub(super) fn joined(ours: Option<RecordState>, other: &Description) -> Option<RecordState> {
    let theirs = other.record_state().unwrap_or(RecordState::Off);
    ours.map(|ours| ours.or(theirs))
}

impl Negotiation {
    /// Whether we record, as a side is told from its next description on; nothing, if it would not
    /// understand that.
    pub fn indicate(&mut self, side: Side, ours: Option<RecordState>) {
        self.parties[side as usize].record = ours;
    }

    /// What a side is to know of recording now.
    pub fn record_due(&self, side: Side) -> Option<RecordState> {
        let ours = self.parties[side as usize].record?;
        let said = self.last_said(side.other());
        let said = said.and_then(|said| said.if_it_says("a=record"));
        match said {
            Some(said) => joined(Some(ours), &said),
            None => Some(ours),
        }
    }

    /// What a side was told of recording last.
    pub fn told_of_recording(&self, side: Side) -> Option<RecordState> {
        self.sent(side).and_then(told)
    }

    /// Our last description to a side, which has not left yet, with what is to be told of recording now.
    pub fn retell(&mut self, side: Side) -> Option<String> {
        let due = self.record_due(side);
        let party = &mut self.parties[side as usize];
        let text = retell(party.sent.as_deref()?, due, &mut party.origin);
        party.sent = Some(text.clone());
        Some(text)
    }

    /// What a side wishes of recording.
    pub fn record_preference_of(&self, side: Side) -> RecordPreference {
        let said = self.last_said(side);
        let said = said.and_then(|said| said.if_it_says("a=recordpref"));
        said.map_or(RecordPreference::NoPreference, |said| {
            said.record_preference()
        })
    }

    /// A side's description that is in force, or its first one while that waits for its answer.
    fn last_said(&self, side: Side) -> Option<&Heard> {
        let first = self.pending.as_ref().filter(|one| one.from == side);
        self.heard(side).or(first.map(|one| &one.offer))
    }
}
