//! The traits that a program implements.
//!
//! Callbacks of one sink come one after another, from a thread of its own; only of
//! `finish_recording` several may be under way, where the sink says so. A callback that panics counts
//! as made: it is not made again, and what it was about is kept as a dead letter.

use crate::{CallMeta, HangupMeta, RecordingArtifact, RecordingChannel, RecordingResult};
use std::time::{Duration, Instant};

/// Learns how calls go. Every method does nothing unless implemented.
pub trait LifecycleSink: Send + Sync {
    /// Once a leg: outbound at the first 180 or 183 received, inbound when we send the first 18x.
    fn on_ringing(&self, meta: &CallMeta) {
        let _ = meta;
    }

    /// Inbound leg: the ACK of our 2xx was received. Outbound leg: the 2xx was received and our ACK
    /// sent.
    fn on_established(&self, meta: &CallMeta) {
        let _ = meta;
    }

    /// Just before the INVITE to a transfer's target leaves; `meta` is the inbound leg.
    fn on_transfer_started(&self, meta: &CallMeta, target_uri: &str) {
        let _ = (meta, target_uri);
    }

    /// Both directions are relayed; again after every transfer, with the new outbound Call-ID.
    fn on_bridge_started(&self, inbound_call_id: &str, outbound_call_id: &str) {
        let _ = (inbound_call_id, outbound_call_id);
    }

    /// Once for each leg that was established. The recording is on the inbound leg, empty on others.
    /// After every `finish_recording` of the call returned or its deadline passed.
    fn on_bye(&self, meta: &CallMeta, hangup: &HangupMeta, recording: &RecordingArtifact) {
        let _ = (meta, hangup, recording);
    }

    /// Once for each leg that was never established, a failed transfer's target too.
    fn on_failed(&self, meta: &CallMeta, hangup: &HangupMeta) {
        let _ = (meta, hangup);
    }
}

/// Why a sink could not finish a recording.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct FinishError {
    /// In words.
    pub why: String,
    /// Trying again would be of no use.
    pub permanent: bool,
}

impl FinishError {
    /// It failed; within the sink's patience it is tried again.
    #[must_use]
    pub fn new(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            permanent: false,
        }
    }

    /// It failed, and would fail again.
    #[must_use]
    pub fn permanent(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            permanent: true,
        }
    }
}

/// Takes recordings.
pub trait RecordingSink: Send + Sync {
    /// At the answer, or where a recording starts later, there. `meta` is the inbound leg,
    /// `sample_rate` that of the PCM to come. False = no PCM of this recording, please; capture goes
    /// on all the same.
    fn begin_recording(&self, meta: &CallMeta, sample_rate: u32, codec: &str) -> bool;

    /// 20 ms of one channel: PCM16 LE, mono. Gaps are filled, so that both channels' sample counts
    /// follow elapsed time; nothing comes while the recording is paused. `call_id` is the inbound
    /// leg's.
    fn append_pcm(&self, call_id: &str, channel: RecordingChannel, pcm: &[u8]) {
        let _ = (call_id, channel, pcm);
    }

    /// Once a recording, until it succeeds or is given up. What is not done by `deadline` holds up
    /// `on_bye` no longer.
    ///
    /// # Errors
    /// The recording is finished again later, for as long as [`Self::patience`] lasts; then, or where
    /// the error is permanent, it goes to the dead letters.
    fn finish_recording(
        &self,
        artifact: &RecordingArtifact,
        deadline: Instant,
    ) -> Result<RecordingResult, FinishError>;

    /// For how long a recording that could not be finished is tried again, with growing pauses. Zero:
    /// it is a dead letter at once.
    fn patience(&self) -> Duration {
        Duration::ZERO
    }

    /// Recordings finished at once, each on a thread of its own.
    fn parallel(&self) -> usize {
        1
    }

    /// False: `begin_recording` and `append_pcm` are never called.
    fn takes_pcm(&self) -> bool {
        true
    }

    /// False: the payload of `finish_recording` is empty, which spares making it.
    fn reads_payload(&self) -> bool {
        true
    }

    /// Pieces of PCM that the sink took and let go itself.
    fn dropped_pcm(&self) -> u64 {
        0
    }
}

/// Learns nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NopLifecycle;

impl LifecycleSink for NopLifecycle {}

/// Wants no PCM and keeps nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NopRecording;

impl RecordingSink for NopRecording {
    fn begin_recording(&self, _meta: &CallMeta, _sample_rate: u32, _codec: &str) -> bool {
        false
    }

    fn takes_pcm(&self) -> bool {
        false
    }

    fn reads_payload(&self) -> bool {
        false
    }

    fn finish_recording(
        &self,
        _artifact: &RecordingArtifact,
        _deadline: Instant,
    ) -> Result<RecordingResult, FinishError> {
        Ok(RecordingResult::default())
    }
}
