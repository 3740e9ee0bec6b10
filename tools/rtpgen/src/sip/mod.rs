//! The signalling ends: sockets and transactions (agent), what both ends of a dialog keep (dialog),
//! and the bodies they exchange (session).

pub(crate) mod agent;
pub(crate) mod dialog;
pub(crate) mod session;

pub use agent::{Agent, CallEvent, CallEvents};
pub use dialog::Dialog;
