//! Transfer: a party asks by REFER (or the operator by the API) that the other one be connected to
//! somebody else. The target is called through the routes like any other, by a call of ours that is
//! shown to nobody; when it answers, it takes the transferor's side of the call, whose media session and
//! recording go on.
//!
//! ```text
//! REFER ─ refer.rs: 202 ─ start.rs: a call to the target ─ NOTIFY 100, 180
//! it answers ─ bridge.rs: must the party that stays be told? ─ own_offer.rs: re-INVITE to it
//! media re-pointed ─ ACKs, NOTIFY 200 ─ notify.rs: BYE to the transferor
//! it fails, or we are restarted (resume.rs) ─ NOTIFY with its status; the parties talk on as before
//! ```

mod attended;
mod bridge;
mod notify;
mod order;
mod refer;
mod replaces;
mod resume;
mod start;

pub(super) use refer::{Referral, understood};
pub(super) use resume::Transfers;
