//! Legs of an earlier process: those whose calls go on, and those that ended while nobody looked.

use trunkline_sinks::Timestamp;
use trunkline_sinks::cdr::{Cdr, Direction, RecordKind};
use trunkline_sinks::object::{self, EndedBy};

use super::{Ledger, Legs, fill};
use crate::call::Call;
use crate::clock::Moment;

/// Reason of a leg whose transfer a restart of control cut short.
const INTERRUPTED: &str = "SIP;cause=500;text=\"interrupted\"";

impl Ledger {
    /// A call of an earlier process goes on.
    pub fn resume(&mut self, call: &Call, now: &Moment) {
        let id = call.object.id.as_str();
        let (own, left): (Vec<Cdr>, Vec<Cdr>) = std::mem::take(&mut self.left)
            .into_iter()
            .partition(|leg| leg.call_id == id);
        self.left = left;
        let known = |leg: &object::Leg| own.iter().any(|cdr| cdr.id == leg.id);
        let shown: Vec<&object::Leg> = call
            .shown
            .iter()
            .filter_map(|index| call.object.legs.get(*index))
            .collect();
        // What died before it was written is made of what the call's record says.
        let lost: Vec<Cdr> = call
            .object
            .legs
            .iter()
            .enumerate()
            .filter(|(index, leg)| {
                call.shown.contains(index) && !leg.state.is_final() && !known(leg)
            })
            .map(|(index, leg)| fill::resumed(call, index, leg))
            .collect();
        let mut legs = Legs::default();
        let mut cut_short = Vec::new();
        for mut leg in own.into_iter().chain(lost) {
            if shown.iter().all(|one| one.sip_call_id != leg.sip_call_id) {
                // It was on its way to the call, by a transfer that nobody goes on with.
                legs.outbound = legs.outbound.max(leg.attempt);
                cut_short.push(leg);
                continue;
            }
            // Only confirmed calls come back: both ACKs have passed.
            let live = call.object.legs.iter().any(|one| one.id == leg.id);
            if live && leg.answered_at.is_some() {
                leg.established_at = leg.established_at.or(leg.answered_at);
            }
            if leg.direction == Direction::Inbound {
                legs.failover.clone_from(&leg.failover);
                legs.transfers.clone_from(&leg.transfers);
                legs.open.insert(0, leg);
            } else {
                legs.outbound = legs.outbound.max(leg.attempt);
                legs.open.push(leg);
            }
        }
        if !self.interval.is_zero() {
            let due = now.instant + self.interval;
            legs.interim = Some(due);
            self.due.insert((due, call.key));
        }
        self.calls.insert(call.key, legs);
        for mut leg in cut_short {
            leg.ended_by.get_or_insert(EndedBy::Us);
            leg.ended_at.get_or_insert(now.utc);
            leg.reason.get_or_insert_with(|| INTERRUPTED.to_owned());
            fill::from_call(&mut leg, call);
            leg.note_durations(now.utc);
            self.record(RecordKind::Final, &leg);
        }
    }

    /// Legs of an earlier process that no call goes on with: they ended while nobody looked.
    pub fn orphans(&mut self) -> Vec<Cdr> {
        std::mem::take(&mut self.left)
    }
}

/// Ends a leg that ended while nobody looked; `call` is what the catalog knows of its call, and
/// `last_known` the latest moment at which it is known to have lasted.
pub fn end_orphan(
    leg: &mut Cdr,
    call: Option<&object::Call>,
    recordings: &[object::Recording],
    last_known: Timestamp,
) {
    if let Some(call) = call {
        leg.ended_at = leg.ended_at.or(call.ended_at);
        leg.attributes.clone_from(&call.attributes);
    }
    // Whether the last ACK came, nobody wrote down: an answered leg counts as connected.
    leg.established_at = leg.established_at.or(leg.answered_at);
    fill::take_recordings(leg, recordings.iter());
    leg.end_unknown(last_known);
}
