//! The user agent in virtual time.

#[path = "agent/calls.rs"]
mod calls;
#[path = "agent/forks.rs"]
mod forks;
#[path = "agent/modify.rs"]
mod modify;
#[path = "agent/net.rs"]
mod net;
#[path = "agent/reliable.rs"]
mod reliable;
#[path = "agent/transfer.rs"]
mod transfer;
#[path = "agent/traps.rs"]
mod traps;
