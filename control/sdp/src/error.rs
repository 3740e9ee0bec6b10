//! What can be wrong with a description, and which SIP answer that is.

use crate::Refusal;

/// Why a description cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    /// No byte of it.
    #[error("the session description is empty")]
    Empty,
    /// Larger than [`crate::limits::BYTES_MAX`] or longer than [`crate::limits::TEXT_LINES_MAX`].
    #[error("the session description is too large")]
    TooLarge,
    /// It does not begin with `v=0`, so it is no SDP.
    #[error("not a session description (no v=0)")]
    NotSdp,
    /// A line whose meaning is needed cannot be read.
    #[error("line {line} of the session description is malformed: {what}")]
    Malformed {
        /// Number of the line, from 1.
        line: usize,
        /// What was expected.
        what: &'static str,
    },
    /// More m-lines than [`crate::limits::LINES_MAX`].
    #[error("too many m-lines")]
    TooManyLines,
    /// An m-line in use without any c= that holds for it.
    #[error("m-line {index} has no connection address")]
    NoConnection {
        /// Index of the m-line, from 0.
        index: usize,
    },
    /// No m-line that could be relayed as a call: none at all, no audio, or all disabled.
    #[error("no audio")]
    NoAudio,
    /// There is audio, but none that we can relay.
    #[error("no acceptable audio: {0}")]
    Refused(Refusal),
    /// The answer does not fit its offer.
    #[error("the answer does not fit the offer: {0}")]
    AnswerMismatch(&'static str),
}

impl SdpError {
    /// The SIP status for a request whose body this is: 400 where the body is broken, 413 where it
    /// is too large, 488 where it is well formed but not acceptable.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::Empty
            | Self::NotSdp
            | Self::Malformed { .. }
            | Self::NoConnection { .. }
            | Self::AnswerMismatch(_) => 400,
            Self::TooLarge => 413,
            Self::TooManyLines | Self::NoAudio | Self::Refused(_) => 488,
        }
    }
}
