//! SIPREC (RFC 7866): recording sessions, in which calls are recorded to others.
//!
//! [`session`] is how a recording session of either role is shown; [`client`] opens them.

pub mod client;
pub mod session;
