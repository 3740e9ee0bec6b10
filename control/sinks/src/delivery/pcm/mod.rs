//! `kind = "pcm"`: the sound of running recordings, each channel over a connection of its own, for
//! speech recognisers.

mod connection;
mod line;

use super::Place;
use super::http::{provide_tls, runtime};
use connection::Peer;
use line::{Line, Start};
use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::runtime::Runtime;
use trunkline_config::{PcmChannel, PcmSink};
use trunkline_hooks::{
    CallMeta, FinishError, RecordingArtifact, RecordingChannel, RecordingResult, RecordingSink,
};

pub(super) struct Pcm {
    place: Place,
    peer: Peer,
    channels: Vec<PcmChannel>,
    /// By the inbound leg's Call-ID.
    calls: Mutex<HashMap<String, Tapped>>,
    dropped: Arc<AtomicU64>,
    /// Taken only when it is dropped.
    runtime: Option<Runtime>,
}

/// A call whose sound goes out.
#[derive(Default)]
struct Tapped {
    lines: Vec<Line>,
    /// Recordings that began and are not finished: a second one may begin before the first is.
    unfinished: usize,
}

impl Pcm {
    pub(super) fn new(settings: &PcmSink, place: Place) -> Result<Self, String> {
        provide_tls();
        Ok(Self {
            place,
            peer: Peer::new(settings.target.clone(), settings.authorities.as_deref())?,
            channels: settings.channels.clone(),
            calls: Mutex::default(),
            dropped: Arc::default(),
            runtime: Some(runtime()?),
        })
    }

    fn calls(&self) -> MutexGuard<'_, HashMap<String, Tapped>> {
        // Every critical section leaves it whole, so a poisoned lock is still good.
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const fn channel_of(channel: RecordingChannel) -> PcmChannel {
    match channel {
        RecordingChannel::Caller => PcmChannel::Caller,
        RecordingChannel::Agent => PcmChannel::Callee,
    }
}

impl RecordingSink for Pcm {
    fn begin_recording(&self, meta: &CallMeta, sample_rate: u32, _codec: &str) -> bool {
        let tenant = self.place.tenant.as_ref();
        let foreign = tenant.is_some_and(|tenant| *tenant != meta.tenant_id);
        let Some(runtime) = self
            .runtime
            .as_ref()
            .filter(|_| !foreign && sample_rate > 0)
        else {
            return false;
        };
        let line = |channel: &PcmChannel| {
            let start = Start::of(meta, *channel, sample_rate);
            let dropped = Arc::clone(&self.dropped);
            Line::begin(runtime.handle(), &self.peer, start, dropped)
        };
        let lines = self.channels.iter().map(line).collect();
        let mut calls = self.calls();
        let tapped = calls.entry(meta.call_id.clone()).or_default();
        tapped.lines = lines;
        tapped.unfinished += 1;
        true
    }

    fn append_pcm(&self, call_id: &str, channel: RecordingChannel, pcm: &[u8]) {
        let mut calls = self.calls();
        let lines = calls.get_mut(call_id).into_iter();
        let lines = lines.flat_map(|tapped| &mut tapped.lines);
        for line in lines.filter(|line| line.channel() == channel_of(channel)) {
            line.append(pcm);
        }
    }

    /// The sound is over: what is on its way still leaves.
    fn finish_recording(
        &self,
        artifact: &RecordingArtifact,
        _deadline: Instant,
    ) -> Result<RecordingResult, FinishError> {
        let mut calls = self.calls();
        if let Some(tapped) = calls.get_mut(&artifact.call_id) {
            tapped.unfinished = tapped.unfinished.saturating_sub(1);
            if tapped.unfinished == 0 {
                calls.remove(&artifact.call_id);
            }
        }
        Ok(RecordingResult::default())
    }

    fn reads_payload(&self) -> bool {
        false
    }

    fn dropped_pcm(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

impl Drop for Pcm {
    fn drop(&mut self) {
        // It may be dropped where blocking is not allowed.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
