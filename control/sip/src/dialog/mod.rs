//! Dialogs (RFC 3261 section 12): what both ends remember, requests built from it, requests
//! and responses judged by it.

mod id;
mod party;
mod refer;
mod reliable;
mod session_id;
mod session_timer;
mod set;
mod state;

pub use id::DialogId;
pub use party::{Party, called_party, calling_party};
pub use refer::{SubscriptionEnd, parse_sipfrag};
pub use reliable::Reliability;
pub use session_timer::{SessionPolicy, SessionTerms, SessionTimer, TimerAction, TooSmall};
pub use set::{DialogSet, Ended};
pub use state::{Dialog, DialogError, DialogState, Effect, Refusal, Role};
