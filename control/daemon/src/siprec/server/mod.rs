//! The server of recording sessions (SRS, RFC 7866): others record to us.
//!
//! Here is what a recording session is and what its messages mean; the B2BUA's `srs` takes and answers
//! them.

pub mod joined;
pub mod lines;
pub mod parties;
pub mod session;

pub use session::Session;

/// What comes after a batch of commands for a recording session.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// Ports are there: describe the lines.
    Opened,
    /// The lines are armed: record.
    Armed,
    /// Ports for more lines are there, or are not to be had.
    Reopened,
    /// The lines follow the new offer: answer.
    Rearmed,
}
