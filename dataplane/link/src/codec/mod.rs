//! The wire format of messages: fixed-width little-endian fields in declaration order, lengths
//! before variable parts, a tag byte before options and addresses.
//!
//! ```text
//! 0   kind u16 | 0 u16 | 0 u32     8   request u64 (0 in events that answer nothing)     16  fields
//! ```
//! Decoding accepts exactly what encoding produces: unknown kinds and enum values, booleans other
//! than 0 and 1, counts above their limit, reserved bytes and trailing bytes are errors.

mod command;
mod event;
mod parts;
mod play;
mod wire;

pub use command::{decode_command, encode_command};
pub use event::{decode_event, encode_event};

/// Why a message is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// It ends inside a field.
    #[error("message is cut")]
    Cut,
    /// Bytes follow its last field.
    #[error("message has trailing bytes")]
    Trailing,
    /// A field holds a value that does not exist.
    #[error("message has an invalid {0}")]
    Invalid(&'static str),
    /// A list or a part is longer than its limit.
    #[error("message is too large")]
    TooLarge,
}

/// The request number of a message whose fields may be invalid.
#[must_use]
pub fn peek_request(message: &[u8]) -> Option<u64> {
    message
        .get(8..16)
        .map(|bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
}

#[cfg(test)]
mod tests;
