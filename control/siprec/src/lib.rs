//! SIPREC (RFC 7865, RFC 7866), sans-IO: recording metadata and what surrounds it on the wire.
//!
//! - [`metadata`]: the model of RFC 7865, its writer, and a reader that takes what real senders send;
//! - [`journal`]: a recording session's metadata as it grows by complete and partial documents, each
//!   revision kept;
//! - [`describe`]: a call told as metadata, document by document (the client's side);
//! - [`binding`]: which participant is heard on which m-line (the server's side);
//! - [`multipart`]: SDP and metadata in one body (RFC 2046, RFC 5621);
//! - [`snapshot`]: a server's request for a full document;
//! - [`detect`]: whether an INVITE opens a recording session.
//!
//! Nothing here opens a socket, reads a clock or panics on what a peer sends: moments come in as
//! RFC 3339 text, ids as UUIDs.
#![forbid(unsafe_code)]

pub mod binding;
pub mod describe;
pub mod detect;
pub mod id;
pub mod journal;
pub mod metadata;
pub mod multipart;
pub mod snapshot;

mod xml;

pub use id::Id;

/// Limits on what is read and kept.
pub mod limits {
    /// Bytes of one metadata document; a longer one is refused unread.
    pub const DOCUMENT_BYTES_MAX: usize = 256 * 1024;
    /// Elements nested in each other.
    pub const DEPTH_MAX: usize = 32;
    /// Elements of one document.
    pub const ELEMENTS_MAX: usize = 4096;
    /// Attributes of one element.
    pub const ATTRIBUTES_MAX: usize = 32;
    /// Bytes of one multipart body.
    pub const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;
    /// Parts of one multipart body, those of nested ones included.
    pub const PARTS_MAX: usize = 16;
    /// Bytes of one part's header.
    pub const PART_HEADER_BYTES_MAX: usize = 4096;
    /// Multiparts nested in each other.
    pub const NESTING_MAX: usize = 3;
    /// Revisions a journal keeps; the oldest partial ones are folded into one when there are more.
    pub const REVISIONS_MAX: usize = 1024;
    /// Things of one kind (participants, streams ...) of one recording session.
    pub const ENTITIES_MAX: usize = 1024;
}
