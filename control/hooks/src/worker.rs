//! The thread of one sink.

use crate::dispatch::Shared;
use crate::outbox::{Terminal, TerminalItem};
use crate::queue::{Passing, Queue};
use crate::registry::{lifecycle_outbox_name, recording_outbox_name};
use crate::{LifecycleSink, NamedSink, RecordingArtifact, RecordingResult, RecordingSink};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

/// Callbacks taken from the outbox at once.
const BATCH: usize = 64;
/// The outbox is looked at this often without a bell: held-back callbacks become due.
const LOOK: Duration = Duration::from_millis(500);

/// The sink of a thread.
pub(crate) enum Served {
    Lifecycle(NamedSink<dyn LifecycleSink>),
    Recording(NamedSink<dyn RecordingSink>),
}

impl Served {
    /// The name in the outbox.
    pub(crate) fn outbox_name(&self) -> String {
        match self {
            Self::Lifecycle(one) => lifecycle_outbox_name(&one.name),
            Self::Recording(one) => recording_outbox_name(&one.name),
        }
    }
}

/// What a sink's thread counts.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) delivered: AtomicU64,
    pub(crate) panics: AtomicU64,
    pub(crate) dead: AtomicU64,
}

/// How a callback went.
enum Outcome {
    Made(Option<RecordingResult>),
    Dead(String),
}

pub(crate) struct Worker {
    pub(crate) served: Served,
    pub(crate) queue: Arc<Queue>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) shared: Arc<Shared>,
    /// Recordings of which the sink wants PCM, by Call-ID.
    wanting: HashMap<String, bool>,
    /// Outcomes that the outbox could not note yet.
    unnoted: Vec<(i64, Outcome)>,
}

impl Worker {
    pub(crate) fn new(
        served: Served,
        queue: Arc<Queue>,
        counters: Arc<Counters>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            served,
            queue,
            counters,
            shared,
            wanting: HashMap::new(),
            unnoted: Vec::new(),
        }
    }

    pub(crate) fn run(mut self) {
        let mut heard = 0;
        loop {
            let woken = self.queue.wait(heard, LOOK);
            heard = woken.bell;
            let items = self.fetch();
            // What was queued before an end is told before it.
            for _ in 0..self.queue.len() {
                let Some(passing) = self.queue.pop() else {
                    break;
                };
                self.make_passing(passing);
            }
            let full = items.len() >= BATCH;
            let mut made = 0;
            for item in items {
                made += usize::from(self.make_terminal(&item));
            }
            self.note_outcomes();
            if full && made > 0 {
                // Another batch waits already.
                heard = heard.wrapping_sub(1);
            } else if woken.stopping && self.queue.len() == 0 {
                return;
            }
        }
    }

    fn name(&self) -> &str {
        match &self.served {
            Served::Lifecycle(one) => &one.name,
            Served::Recording(one) => &one.name,
        }
    }

    fn fetch(&self) -> Vec<TerminalItem> {
        let name = self.served.outbox_name();
        match self.shared.outbox.pending(&name, BATCH) {
            Ok(mut items) => {
                items.retain(|item| !self.unnoted.iter().any(|(id, _)| *id == item.id));
                items
            }
            Err(error) => {
                tracing::warn!(sink = name, %error, "callbacks wait");
                Vec::new()
            }
        }
    }

    fn make_passing(&mut self, passing: Passing) {
        match (&self.served, passing) {
            (Served::Lifecycle(one), passing) => {
                let sink = Arc::clone(&one.sink);
                let made = guarded(|| match &passing {
                    Passing::Ringing(meta) => sink.on_ringing(meta),
                    Passing::Established(meta) => sink.on_established(meta),
                    Passing::TransferStarted(meta, target) => {
                        sink.on_transfer_started(meta, target);
                    }
                    Passing::BridgeStarted(inbound, outbound) => {
                        sink.on_bridge_started(inbound, outbound);
                    }
                    Passing::Begin { .. } | Passing::Pcm { .. } => {}
                });
                let _ = self.counted(made);
            }
            (Served::Recording(one), passing) => {
                let sink = Arc::clone(&one.sink);
                self.make_recording(&*sink, passing);
            }
        }
    }

    fn make_recording(&mut self, sink: &dyn RecordingSink, passing: Passing) {
        match passing {
            Passing::Begin {
                meta,
                sample_rate,
                codec,
            } => {
                let made = guarded(|| sink.begin_recording(&meta, sample_rate, &codec));
                let wants = self.counted(made).unwrap_or(false);
                self.wanting.insert(meta.call_id.clone(), wants);
                self.shared.pcm.answered(&meta.call_id, wants);
            }
            Passing::Pcm {
                call_id,
                channel,
                pcm,
            } if self.wanting.get(&*call_id) == Some(&true) => {
                let made = guarded(|| sink.append_pcm(&call_id, channel, &pcm));
                if self.counted(made).is_none() {
                    // A sink that panics over PCM gets no more of this recording.
                    self.wanting.insert(call_id.to_string(), false);
                }
            }
            _ => {}
        }
    }

    /// Counts a panic.
    fn counted<T>(&self, made: Result<T, String>) -> Option<T> {
        match made {
            Ok(value) => Some(value),
            Err(why) => {
                self.counters.panics.fetch_add(1, Relaxed);
                tracing::error!(sink = self.name(), why, "a sink panicked");
                None
            }
        }
    }

    /// False: the callback has to wait.
    fn make_terminal(&mut self, item: &TerminalItem) -> bool {
        let id = item.id;
        let outcome = match (&self.served, &item.terminal) {
            (
                Served::Lifecycle(one),
                Terminal::Bye {
                    meta,
                    hangup,
                    recording,
                },
            ) => {
                let artifact = match recording {
                    Some(recording) => self.shared.outbox.artifact(recording),
                    None => RecordingArtifact::empty(&meta.call_id),
                };
                guarded(|| one.sink.on_bye(meta, hangup, &artifact)).map(|()| None)
            }
            (Served::Lifecycle(one), Terminal::Failed { meta, hangup }) => {
                guarded(|| one.sink.on_failed(meta, hangup)).map(|()| None)
            }
            (Served::Recording(one), Terminal::Finish { recording }) => {
                if self.shared.pcm.holds_up(&recording.call_id, item.since) {
                    return false;
                }
                let artifact = self.shared.outbox.artifact(recording);
                let deadline = deadline_of(item.since, self.shared.finish_deadline);
                let sink = Arc::clone(&one.sink);
                let made = guarded(|| sink.finish_recording(&artifact, deadline));
                let call_id = recording.call_id.clone();
                self.wanting.remove(&call_id);
                match made {
                    Ok(Ok(result)) => Ok(Some(result)),
                    Ok(Err(error)) => {
                        self.counters.dead.fetch_add(1, Relaxed);
                        self.unnoted.push((id, Outcome::Dead(error.0)));
                        self.note_outcomes();
                        return true;
                    }
                    Err(why) => Err(why),
                }
            }
            // Not this kind of sink's: nothing to do.
            _ => Ok(None),
        };
        match outcome {
            Ok(result) => {
                self.counters.delivered.fetch_add(1, Relaxed);
                self.unnoted.push((id, Outcome::Made(result)));
            }
            Err(why) => {
                let _ = self.counted::<()>(Err(why.clone()));
                self.counters.dead.fetch_add(1, Relaxed);
                self.unnoted.push((id, Outcome::Dead(why)));
            }
        }
        // Noted one by one: as little as possible is made twice when the process is killed.
        self.note_outcomes();
        true
    }

    fn note_outcomes(&mut self) {
        let outbox = &self.shared.outbox;
        let before = self.unnoted.len();
        self.unnoted.retain(|(id, outcome)| {
            let noted = match outcome {
                Outcome::Made(result) => outbox.delivered(*id, result.as_ref()),
                Outcome::Dead(why) => outbox.dead(*id, why),
            };
            noted.is_err()
        });
        if self.unnoted.len() < before && matches!(self.served, Served::Recording(_)) {
            // A finished recording lets the ends of its call go.
            self.shared.ring();
        }
    }
}

/// The moment until which a recording may be finished.
fn deadline_of(since: SystemTime, allowed: Duration) -> Instant {
    let spent = since.elapsed().unwrap_or_default();
    Instant::now() + allowed.saturating_sub(spent)
}

/// Makes a callback; a panic becomes its message.
fn guarded<T>(callback: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(callback)).map_err(|panic| {
        let text = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned());
        format!("panicked: {}", text.unwrap_or_default())
    })
}
