//! The control process as a library: calls, B2BUA, transports, API.
#![forbid(unsafe_code)]

pub mod api;
mod appliance;
pub mod b2bua;
pub mod call;
pub mod callbacks;
pub mod clock;
pub mod ledger;
pub mod link;
pub mod metrics;
mod packing;
pub mod recovery;
pub mod replay;
mod resolve;
pub mod retention;
pub mod run;
mod secret;
pub mod siprec;
pub mod sounds;
pub mod stores;
pub mod tap;
pub mod trace;
pub mod transport;
pub mod unreachable;

pub use appliance::{Appliance, SinkError};
