//! The handover: how control gets hold of the memory it shares with the dataplane.
//!
//! ```text
//! control                                  dataplane (listens on <data_dir>/run/dataplane.sock)
//!   connect ------------------------------->  peer user checked (SO_PEERCRED)
//!   Hello {magic, version, pid} ----------->
//!   <---------------- Welcome {magic, version, epoch, sizes}
//!                     + region, counters, extents, command doorbell, event doorbell
//!   ... the rings carry everything else; the socket's end tells each side that the other died ...
//! ```
//! A second attach replaces the first: a fresh region, epoch + 1, the old socket closed.

mod client;
mod handshake;
mod server;

pub use client::{ControlLink, SendError};
pub use server::{Incoming, SendOutcome, Server, Service};

use crate::codec::CodecError;
use crate::ring::RingError;

/// What can go wrong between the two ends.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The kernel refused something.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The socket belongs to another user.
    #[error("peer runs as user {0}, which is neither ours nor root")]
    ForeignUser(u32),
    /// The peer is of another build.
    #[error("peer speaks version {0} of the link, this is {ours}", ours = crate::region::VERSION)]
    Version(u32),
    /// The peer sent something that is not a handshake.
    #[error("peer sent no valid handshake")]
    Handshake,
    /// Another dataplane listens already.
    #[error("another dataplane listens on {0}")]
    AlreadyListening(std::path::PathBuf),
    /// A ring is not usable any more.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// A message did not decode; later ones are read as usual.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

impl From<nix::errno::Errno> for LinkError {
    fn from(errno: nix::errno::Errno) -> Self {
        Self::Io(errno.into())
    }
}
