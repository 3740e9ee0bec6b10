//! A finished recording as sinks get it.

use crate::RecordingRef;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What a payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordingFormat {
    /// The call's SN3.
    Sn3,
    /// PCM16 LE, caller left, agent right.
    StereoPcm,
}

/// The side that a piece of sound is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum RecordingChannel {
    /// The caller.
    Caller = 0,
    /// Whoever is bridged to the caller now.
    Agent = 1,
}

/// The bytes of a recording, read piece by piece: an hour is about 75 MB.
pub trait Payload: Send + Sync {
    /// Length in bytes; 0 = empty.
    fn len(&self) -> u64;

    /// Whether there is nothing in it.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads at an offset; gives how many bytes, 0 at the end.
    ///
    /// # Errors
    /// The bytes cannot be read.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// The file that holds exactly these bytes, where there is one. It may be gone once the callback
    /// has returned.
    fn path(&self) -> Option<&Path>;
}

/// An empty payload.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPayload;

impl Payload for NoPayload {
    fn len(&self) -> u64 {
        0
    }

    fn read_at(&self, _offset: u64, _buffer: &mut [u8]) -> io::Result<usize> {
        Ok(0)
    }

    fn path(&self) -> Option<&Path> {
        None
    }
}

/// A finished recording.
#[derive(Clone)]
pub struct RecordingArtifact {
    /// The recording's id in the API; empty on a leg without one of its own.
    pub recording: String,
    /// Call-ID of the inbound leg.
    pub call_id: String,
    /// What the payload is.
    pub format: RecordingFormat,
    /// The bytes; may be empty.
    pub payload: Arc<dyn Payload>,
    /// Audio codec of the caller's leg.
    pub codec: String,
    /// Samples a second once decoded; 0 when unknown.
    pub sample_rate: u32,
    /// 1, or 2 when stereo; 0 in an empty artifact.
    pub channels: u8,
}

impl RecordingArtifact {
    /// That of a leg without a recording of its own.
    #[must_use]
    pub fn empty(call_id: &str) -> Self {
        Self {
            recording: String::new(),
            call_id: call_id.to_owned(),
            format: RecordingFormat::Sn3,
            payload: Arc::new(NoPayload),
            codec: String::new(),
            sample_rate: 0,
            channels: 0,
        }
    }

    /// That of a recording of which nothing is left, or whose bytes nobody reads.
    #[must_use]
    pub fn without_payload(recording: &RecordingRef) -> Self {
        Self {
            recording: recording.recording.clone(),
            codec: recording.codec.clone(),
            ..Self::empty(&recording.call_id)
        }
    }

    /// Whether it carries nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.payload.is_empty()
    }
}

impl fmt::Debug for RecordingArtifact {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RecordingArtifact")
            .field("recording", &self.recording)
            .field("call_id", &self.call_id)
            .field("format", &self.format)
            .field("payload_bytes", &self.payload.len())
            .field("codec", &self.codec)
            .field("sample_rate", &self.sample_rate)
            .field("channels", &self.channels)
            .finish()
    }
}

/// Where a sink has put a recording; all optional.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecordingResult {
    /// Where it can be fetched.
    pub url: Option<String>,
    /// Its key in an object store.
    pub object_key: Option<String>,
    /// Bytes stored.
    pub bytes: Option<u64>,
}
