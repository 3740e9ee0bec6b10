//! The sinks we ship; first of them the catalog of calls and recordings.
//!
//! The objects in [`object`] are what the catalog stores and the API shows.
#![forbid(unsafe_code)]

pub mod catalog;
pub mod cdr;
pub mod object;
pub mod timestamp;
pub mod verdict;

pub use timestamp::Timestamp;
