//! Callbacks that end something, kept until they were made.

use crate::{CallMeta, HangupMeta, RecordingArtifact, RecordingResult};
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime};

/// The outbox cannot be read or written now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("outbox: {0}")]
pub struct OutboxError(pub String);

/// Names a recording whose artifact is made when it is needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingRef {
    /// The recording's id in the API.
    pub recording: String,
    /// Call-ID of its call's inbound leg.
    pub call_id: String,
    /// Audio codec of the caller's leg; empty when unknown.
    #[serde(default)]
    pub codec: String,
}

/// A callback that ends something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "callback", rename_all = "snake_case")]
pub enum Terminal {
    /// `on_bye`.
    Bye {
        /// The leg.
        meta: CallMeta,
        /// Its end.
        hangup: HangupMeta,
        /// The call's last recording, on the inbound leg.
        recording: Option<RecordingRef>,
    },
    /// `on_failed`.
    Failed {
        /// The leg.
        meta: CallMeta,
        /// Its end.
        hangup: HangupMeta,
    },
    /// `finish_recording`.
    Finish {
        /// The recording.
        recording: RecordingRef,
    },
}

/// A callback that waits to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TerminalItem {
    /// Names it towards the outbox; rises.
    pub id: i64,
    /// When it was put there.
    pub since: SystemTime,
    /// How often it was made and failed.
    pub attempts: u32,
    /// The callback.
    pub terminal: Terminal,
}

/// Keeps them. Every method may be called from any thread and may wait for a disk.
pub trait Outbox: Send + Sync {
    /// Callbacks that a sink has not got and that are due: those never tried first, in their order, then
    /// those whose pause was over first. The ends of a call whose recordings are still
    /// being finished by some sink are held back, until the finish deadline has passed.
    ///
    /// # Errors
    /// They cannot be read; they are asked for again.
    fn pending(&self, sink: &str, limit: usize) -> Result<Vec<TerminalItem>, OutboxError>;

    /// The callback was made; `result` is what `finish_recording` gave.
    ///
    /// # Errors
    /// It cannot be noted; this is called again.
    fn delivered(&self, id: i64, result: Option<&RecordingResult>) -> Result<(), OutboxError>;

    /// The callback was made and failed; it is due again after a pause.
    ///
    /// # Errors
    /// It cannot be noted; this is called again.
    fn later(&self, id: i64, why: &str, pause: Duration) -> Result<(), OutboxError>;

    /// The callback was made and failed: a dead letter.
    ///
    /// # Errors
    /// It cannot be noted; this is called again.
    fn dead(&self, id: i64, why: &str) -> Result<(), OutboxError>;

    /// The artifact of a recording; empty when nothing of it is left.
    ///
    /// # Errors
    /// It cannot be made now.
    fn artifact(&self, recording: &RecordingRef) -> Result<RecordingArtifact, OutboxError>;
}

/// Holds nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoOutbox;

impl Outbox for NoOutbox {
    fn pending(&self, _sink: &str, _limit: usize) -> Result<Vec<TerminalItem>, OutboxError> {
        Ok(Vec::new())
    }

    fn delivered(&self, _id: i64, _result: Option<&RecordingResult>) -> Result<(), OutboxError> {
        Ok(())
    }

    fn later(&self, _id: i64, _why: &str, _pause: Duration) -> Result<(), OutboxError> {
        Ok(())
    }

    fn dead(&self, _id: i64, _why: &str) -> Result<(), OutboxError> {
        Ok(())
    }

    fn artifact(&self, recording: &RecordingRef) -> Result<RecordingArtifact, OutboxError> {
        Ok(RecordingArtifact::without_payload(recording))
    }
}
