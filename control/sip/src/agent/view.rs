//! A dialog as its user sees it.

use std::net::SocketAddr;
use std::time::Instant;

use super::types::Body;
use crate::dialog::{DialogId, Party, Role};

/// How far a dialog is, for its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallState {
    /// An INVITE came; nothing was answered yet.
    Pending,
    Early,
    Confirmed,
    Terminated,
}

/// One end of a dialog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    pub tag: String,
    /// The user part of its address, percent-decoded.
    pub user: String,
    /// Where its signalling is sent to, or comes from.
    pub address: SocketAddr,
    /// The session description in force, or the last one told.
    pub body: Option<Body>,
}

/// When a dialog reached its states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// The INVITE.
    pub started: Instant,
    /// The first provisional response with a tag.
    pub early: Option<Instant>,
    /// The 2xx.
    pub connected: Option<Instant>,
    pub ended: Option<Instant>,
}

/// A dialog as its user sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialogView {
    pub id: DialogId,
    pub state: CallState,
    pub role: Role,
    /// P-Asserted-Identity, else Remote-Party-ID (both only where trusted), else From.
    pub calling: Option<Party>,
    /// P-Called-Party-ID, else To, else the Request-URI.
    pub called: Party,
    pub times: Times,
    pub local: Side,
    pub remote: Side,
}
