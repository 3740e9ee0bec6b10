//! SIP messages, transactions and dialogs, sans-IO (RFC 3261, RFC 6026).
//!
//! Four layers, none of which opens a socket or reads a clock:
//!
//! - [`message`]: a lossless parser and serializer, typed headers on demand;
//! - [`transaction`]: an [`transaction::Endpoint`] owns all transactions; bytes and `now` go in, bytes to
//!   send, events and the next deadline come out;
//! - [`dialog`]: what both ends of a dialog remember; it builds requests and judges them;
//! - [`agent`]: whole calls as operations and events, over the two before.
//!
//! [`digest`] answers and makes challenges. `examples/uas.rs` shows how they go together.
#![forbid(unsafe_code)]

pub mod agent;
pub mod dialog;
pub mod digest;
pub mod message;
pub mod transaction;
