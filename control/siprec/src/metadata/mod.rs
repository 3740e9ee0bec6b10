//! Recording metadata (RFC 7865): the model, [`write()`] and [`read()`].

mod dialect;
mod model;
mod read;
mod write;

#[cfg(test)]
mod tests;

pub use dialect::Dialect;
pub use model::{
    Association, DataMode, Extension, Group, Metadata, NameId, Participant, ParticipantSession,
    ParticipantStreams, Reason, Session, SessionRecording, Stream,
};
pub use read::{MetadataError, Reading, Strictness, XmlError, read};
pub use write::write;

/// The namespace of RFC 7865.
pub const NAMESPACE: &str = "urn:ietf:params:xml:ns:recording:1";
/// The media type (RFC 9806, formerly RFC 7866 section 13.3).
pub const MEDIA_TYPE: &str = "application/rs-metadata+xml";
/// What some senders still write.
pub const MEDIA_TYPE_OLD: &str = "application/rs-metadata";
