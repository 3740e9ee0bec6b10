//! What becomes of calls and recordings: the catalog, call detail records, and the sinks that finished
//! recordings are delivered to.
//!
//! The objects in [`object`] are what the catalog stores and the API shows.
#![forbid(unsafe_code)]

mod background;
pub mod catalog;
pub mod cdr;
pub mod delivery;
pub mod library;
pub mod object;
pub mod timestamp;
pub mod verdict;

pub use timestamp::Timestamp;
