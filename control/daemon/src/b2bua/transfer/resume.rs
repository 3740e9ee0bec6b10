//! Transfers that a restart of control has cut short: they end, and the transferor hears so.

use serde::{Deserialize, Serialize};
use trunkline_link::message::Side;
use trunkline_sip::dialog::Dialog;

use super::super::B2bua;
use super::super::persist::{SKIPPED_REQUESTS, SavedLeg};
use crate::call::transfer::{Stage, Subscription, Transfer};
use crate::call::{Call, Leg};
use crate::clock::Moment;

/// What the transferor hears of a transfer that we forgot how to go on with.
const INTERRUPTED: u16 = 500;

/// What of a call's transfers is kept.
#[derive(Default, Serialize, Deserialize)]
pub(in crate::b2bua) struct Transfers {
    /// The one under way.
    current: Option<Current>,
    /// Legs that were transferred away and are not over.
    departing: Vec<Subscribed>,
    /// Whom something was offered that may not hold.
    unsure: Option<u8>,
}

#[derive(Serialize, Deserialize)]
struct Current {
    leaving: u8,
    leg: usize,
    notified: Option<Notified>,
}

#[derive(Serialize, Deserialize)]
struct Subscribed {
    leg: SavedLeg,
    notified: Option<Notified>,
}

/// A subscription that has not heard the outcome.
#[derive(Serialize, Deserialize)]
struct Notified {
    id: Option<u32>,
    dialog: Option<Dialog>,
    /// What is to be told next, or was told last.
    status: u16,
}

impl Notified {
    fn of(leg: &Leg) -> Option<Self> {
        let open = leg.subscription.as_ref().filter(|one| !one.over)?;
        Some(Self {
            id: open.id,
            dialog: open.dialog.clone(),
            status: open.queued.unwrap_or(open.told),
        })
    }

    fn restored(self) -> Subscription {
        let dialog = self.dialog.map(|mut dialog| {
            dialog.skip_requests(SKIPPED_REQUESTS);
            dialog
        });
        Subscription {
            dialog,
            queued: Some(self.status),
            ..Subscription::new(self.id)
        }
    }
}

fn side(number: u8) -> Side {
    match number {
        0 => Side::Caller,
        _ => Side::Callee,
    }
}

impl Transfers {
    pub(in crate::b2bua) fn of(call: &Call) -> Self {
        let current = call.transfer.as_ref().map(|one| Current {
            leaving: one.leaving as u8,
            leg: one.leg,
            notified: Notified::of(call.leg(one.leaving)),
        });
        let departing = call.departing.iter().filter_map(|one| {
            let leg = SavedLeg::of(&one.leg)?;
            let notified = Notified::of(&one.leg);
            Some(Subscribed { leg, notified })
        });
        let offered = call.own_offer.as_ref().map(|one| one.to);
        let welcoming = call
            .transfer
            .as_ref()
            .filter(|one| matches!(one.stage, Stage::Offering(_)));
        let consulted = call.consulted_by.map(|_| call.consulted_side);
        let unsure = offered
            .or(welcoming.map(|one| one.leaving.other()))
            .or(consulted);
        Self {
            current,
            departing: departing.collect(),
            unsure: unsure.map(|side| side as u8),
        }
    }

    pub(in crate::b2bua) fn is_empty(&self) -> bool {
        self.current.is_none() && self.departing.is_empty() && self.unsure.is_none()
    }
}

impl B2bua {
    /// A call came back: those that left it hear what they have not heard yet, a transfer under way has
    /// failed, and whoever was offered something else is told again what holds.
    pub(in crate::b2bua) fn resume_transfers(
        &mut self,
        call: &mut Call,
        transfers: Transfers,
        now: &Moment,
    ) {
        for one in transfers.departing {
            let mut leg = one.leg.restored(now);
            leg.subscription = one.notified.map(Notified::restored).map(Box::new);
            let known = leg.dialog.as_ref().map(Dialog::id);
            let gone = Side::Callee;
            self.dialogs.extend(known.map(|id| (id, (call.key, gone))));
            self.depart(call, leg, now);
        }
        if let Some(current) = transfers.current {
            let leaving = side(current.leaving);
            let leg = current.leg.min(call.object.legs.len() - 1);
            call.leg_mut(leaving).subscription =
                current.notified.map(Notified::restored).map(Box::new);
            call.transfer = Some(Transfer {
                leaving,
                leg,
                stage: Stage::Calling { child: 0 },
            });
            self.transfer_failed(call, INTERRUPTED, now);
        }
        if let Some(unsure) = transfers.unsure {
            self.realign(call, side(unsure), now);
        }
        self.tell_subscribers(call, now);
    }
}
