//! SDP offer and answer (RFC 8866, RFC 3264): parse, judge, rewrite.
//!
//! A relay's work on SDP in the order it is used:
//!
//! 1. [`Description::parse`]: bytes to a typed view, tolerant of what real equipment sends.
//! 2. [`judge_offer`]: may this offer be relayed at all? Errors carry their SIP status
//!    ([`SdpError::status`]).
//! 3. [`MediaPlan::update`]: which m-lines are relayed, and as which medium of the session.
//! 4. [`write_offer`] / [`write_answer`]: the far side's SDP told to this side as ours: own `o=`,
//!    own addresses, own ports, attributes by allow-list.
//! 5. [`sendable`], [`negotiated`], [`Media::rtp_address`] ...: what the media layer has to know.
//! 6. [`compare`], [`Description::is_held`]: what a re-offer changed.
//!
//! m-lines keep order and count on both legs, so an m-line index means the same on either side.
#![forbid(unsafe_code)]

mod attribute;
mod compare;
mod description;
mod error;
mod filter;
mod judge;
mod lines;
mod payload;
mod plan;
mod receive;
mod record;
mod write;

#[cfg(test)]
mod tests;

pub use attribute::{Attribute, Direction};
pub use compare::{Change, compare};
pub use description::{
    Connection, Description, Media, Origin, Protocol, RtcpAttribute, family_name,
};
pub use error::SdpError;
pub use filter::keep_codecs;
pub use judge::{Occasion, Refusal, judge_answer, judge_offer};
pub use payload::{Codec, PayloadType, Sendable, sendable};
pub use plan::{MediaPlan, PlannedMedia, RelayKind};
pub use receive::write_received;
pub use record::{RecordPreference, RecordState, retell, told};
pub use write::{OriginState, Ours, Written, WrittenLine, negotiated, write_answer, write_offer};

/// Limits on what is read and written.
pub mod limits {
    /// Bytes of one description; more is refused.
    pub const BYTES_MAX: usize = 64 * 1024;
    /// m-lines of one description; more is refused.
    pub const LINES_MAX: usize = 64;
    /// Lines of one description; more is refused.
    pub const TEXT_LINES_MAX: usize = 4096;
    /// Media of one session that are relayed; further m-lines get port 0.
    pub const RELAYED_MAX: usize = 4;
    /// Payload types of one m-line that are told to the far side.
    pub const PAYLOADS_MAX: usize = 24;
}
