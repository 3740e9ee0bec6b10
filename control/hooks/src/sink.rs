//! The traits that a program implements.
//!
//! Callbacks of one sink come one after another, from a thread of its own. A callback that panics
//! counts as made: it is not made again, and what it was about is kept as a dead letter.

use crate::{CallMeta, HangupMeta, RecordingArtifact, RecordingChannel, RecordingResult};
use std::time::Instant;

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
#[error("{0}")]
pub struct FinishError(pub String);

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

    /// Exactly once a recording. What is not done by `deadline` holds up `on_bye` no longer.
    ///
    /// # Errors
    /// The recording goes to the dead letters.
    fn finish_recording(
        &self,
        artifact: &RecordingArtifact,
        deadline: Instant,
    ) -> Result<RecordingResult, FinishError>;
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

    fn finish_recording(
        &self,
        _artifact: &RecordingArtifact,
        _deadline: Instant,
    ) -> Result<RecordingResult, FinishError> {
        Ok(RecordingResult::default())
    }
}
