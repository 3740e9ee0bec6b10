//! Transfers that the operator orders by the API.

use trunkline_link::message::Side;
use trunkline_sinks::object;
use trunkline_sip::message::{Scheme, Uri};

use super::super::B2bua;
use super::Referral;
use crate::api::handle::{ActionError, TransferMode, TransferOrder};
use crate::call::{Call, Phase};
use crate::clock::Moment;

impl B2bua {
    /// Begins the transfer; the leg that leaves is hung up once the target is there.
    pub(in crate::b2bua) fn transfer_ordered(
        &mut self,
        call: &mut Call,
        order: &TransferOrder,
        now: &Moment,
    ) -> Result<object::Call, ActionError> {
        let leaving = Side::BOTH
            .into_iter()
            .find(|side| match order.leg.as_str() {
                "caller" => *side == Side::Caller,
                "callee" => *side == Side::Callee,
                id => call.object_leg(*side).id == id,
            });
        let Some(leaving) = leaving else {
            let why = "leg: neither caller nor callee nor the id of a leg that is connected";
            return Err(ActionError::Invalid(why.to_owned()));
        };
        let wrong = |why: &str| Err(ActionError::WrongState(why.to_owned()));
        if call.phase != Phase::Answered || !call.legs.iter().all(|leg| leg.acknowledged) {
            return wrong("the call is not answered, or is ending");
        }
        if call.transfer.is_some() || call.consulted_by.is_some() {
            return wrong("a transfer is under way");
        }
        if !self.may_transfer(call) {
            return wrong("the call was transferred too often");
        }
        match order.mode {
            TransferMode::Blind => {
                let referral = referral(&order.target)?;
                self.begin_transfer(call, leaving, referral, now);
            }
            TransferMode::Attended => {
                let other = self.ids.get(&order.target).copied();
                let other = other.filter(|key| self.calls.contains_key(key));
                let Some(other) = other else {
                    let why = "target: not the id of another live call".to_owned();
                    return Err(ActionError::Invalid(why));
                };
                let leg = self.announce_transfer(call, &order.target, now);
                let begun = self.consult(call, leaving, other, Side::Caller, now);
                self.transfer_begun(call, leaving, leg, begun, now);
            }
        }
        Ok(call.object.clone())
    }
}

fn referral(target: &str) -> Result<Referral, ActionError> {
    let invalid = || {
        let why = "target: no SIP or tel URI (for an attended transfer say so in mode)";
        ActionError::Invalid(why.to_owned())
    };
    let uri: Uri = target.parse().map_err(|_| invalid())?;
    if !matches!(uri.scheme(), Scheme::Sip | Scheme::Tel | Scheme::Urn) {
        return Err(invalid());
    }
    Referral::to(&uri).map_err(|_| invalid())
}
