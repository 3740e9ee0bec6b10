//! SIPREC (RFC 7866): recording sessions, in which calls are recorded to others, and others record to us.
//!
//! [`session`] is how a recording session of either role is shown; [`client`] opens them, [`server`]
//! takes those of others.

pub mod client;
pub mod server;
pub mod session;
