//! The control process as a library: calls, B2BUA, transports, API.
#![forbid(unsafe_code)]

pub mod api;
pub mod b2bua;
pub mod call;
pub mod clock;
pub mod link;
pub mod metrics;
pub mod recovery;
pub mod retention;
pub mod run;
pub mod trace;
pub mod transport;
