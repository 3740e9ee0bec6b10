//! What of a negotiation survives a restart of control.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use trunkline_link::message::Side;
use trunkline_sdp::{MediaPlan, OriginState, RecordState};

use super::{Heard, Negotiation, Party, Pending};
use crate::call::media::Media;

/// What of it survives a restart of control.
#[derive(Debug, Serialize, Deserialize)]
pub struct Saved {
    plan: MediaPlan,
    heard: [Option<String>; 2],
    origins: [OriginState; 2],
    /// Which side offered last: what we told each side follows from it.
    offerer: u8,
    /// What each side was told of recording.
    #[serde(default)]
    record: [Option<RecordState>; 2],
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
            record: [Side::Caller, Side::Callee].map(|side| self.told_of_recording(side)),
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
        let [first_told, second_told] = saved.record;
        let party = |origin, record| Party {
            record,
            ..Party::new(origin)
        };
        let mut negotiation = Self {
            plan: saved.plan,
            parties: [party(caller, first_told), party(callee, second_told)],
            pending: Some(Box::new(Pending {
                from: offerer,
                offer,
                told_before: None,
            })),
        };
        negotiation.write_offer(media, addresses[offerer.other() as usize])?;
        negotiation
            .answer(answer, media, addresses[offerer as usize], true)
            .ok()?;
        Some(negotiation)
    }
}
