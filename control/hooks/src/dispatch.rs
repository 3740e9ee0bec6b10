//! Brings callbacks to every sink, each on a thread of its own.

use crate::outbox::Outbox;
use crate::queue::{Passing, Queue};
use crate::worker::{Counters, Served, Worker};
use crate::{CallMeta, RecordingChannel, RecordingSink, Registry};
use std::collections::HashMap;
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// What a sink may have waiting.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Callbacks that end nothing; a full queue refuses more, counted.
    pub callbacks_max: usize,
    /// Pieces of PCM, 20 ms each; a full queue drops the oldest, counted.
    pub pcm_max: usize,
    /// How long `on_bye` waits for a recording being finished.
    pub finish_deadline: Duration,
    /// How long the last PCM of a recording is awaited before it is finished without.
    pub pcm_patience: Duration,
    /// How long threads have to end.
    pub stop_patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            callbacks_max: 10_000,
            // A minute of ten calls.
            pcm_max: 60_000,
            finish_deadline: Duration::from_secs(30),
            pcm_patience: Duration::from_secs(5),
            stop_patience: Duration::from_secs(2),
        }
    }
}

/// What one sink's thread has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkCounts {
    /// `lifecycle:NAME` or `recording:NAME`.
    pub sink: String,
    /// Terminal callbacks made.
    pub delivered: u64,
    /// Callbacks refused because too many waited.
    pub dropped_callbacks: u64,
    /// Pieces of PCM dropped, the oldest first.
    pub dropped_pcm: u64,
    /// Callbacks that panicked.
    pub panics: u64,
    /// Recordings that could not be finished and will be tried again.
    pub put_off: u64,
    /// Dead letters.
    pub dead: u64,
}

/// Which recordings still have PCM to come, by Call-ID.
#[derive(Debug, Default)]
pub(crate) struct PcmTable {
    calls: Mutex<HashMap<String, PcmCall>>,
    patience: Duration,
}

#[derive(Debug)]
struct PcmCall {
    /// Sinks that have not answered `begin_recording`.
    unanswered: usize,
    /// Sinks that want it.
    wanted: usize,
}

impl PcmTable {
    fn calls(&self) -> MutexGuard<'_, HashMap<String, PcmCall>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn answered(&self, call_id: &str, wants: bool) {
        if let Some(call) = self.calls().get_mut(call_id) {
            call.unanswered = call.unanswered.saturating_sub(1);
            call.wanted += usize::from(wants);
        }
    }

    /// Whether a recording's end has to wait for its last PCM.
    pub(crate) fn holds_up(&self, call_id: &str, since: SystemTime) -> bool {
        let waited = since.elapsed().unwrap_or_default();
        let mut calls = self.calls();
        if waited >= self.patience {
            calls.remove(call_id);
        }
        calls.get(call_id).is_some_and(|call| call.wanted > 0)
    }
}

/// What all threads share.
pub(crate) struct Shared {
    pub(crate) outbox: Arc<dyn Outbox>,
    pub(crate) pcm: PcmTable,
    pub(crate) finish_deadline: Duration,
    queues: OnceLock<Vec<Arc<Queue>>>,
}

impl Shared {
    /// Has every thread look at the outbox.
    pub(crate) fn ring(&self) {
        for queue in self.queues.get().into_iter().flatten() {
            queue.ring();
        }
    }
}

struct Running {
    name: String,
    queue: Arc<Queue>,
    counters: Arc<Counters>,
    /// Of a sink that takes recordings.
    recording: Option<Arc<dyn RecordingSink>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn takes_pcm(&self) -> bool {
        self.recording.as_ref().is_some_and(|sink| sink.takes_pcm())
    }

    fn dropped_by_sink(&self) -> u64 {
        self.recording.as_ref().map_or(0, |sink| sink.dropped_pcm())
    }
}

/// The running sinks. No method waits for a sink. Dropping it lets sinks finish what they are at,
/// within the limits' patience; what ends something and was not made stays in the outbox.
pub struct Dispatcher {
    sinks: Vec<Running>,
    shared: Arc<Shared>,
    stop_patience: Duration,
}

impl Dispatcher {
    /// Starts a thread for each sink, in order of registration.
    ///
    /// # Errors
    /// A thread could not be started.
    pub fn start(registry: Registry, outbox: Arc<dyn Outbox>, limits: Limits) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            outbox,
            pcm: PcmTable {
                patience: limits.pcm_patience,
                ..PcmTable::default()
            },
            finish_deadline: limits.finish_deadline,
            queues: OnceLock::new(),
        });
        let registry = registry.working();
        let recording = registry.recording().iter().cloned().map(Served::Recording);
        let lifecycle = registry.lifecycle().iter().cloned().map(Served::Lifecycle);
        let mut sinks = Vec::new();
        for served in lifecycle.chain(recording) {
            sinks.push(start(served, &shared, limits)?);
        }
        let queues = sinks.iter().map(|one| Arc::clone(&one.queue)).collect();
        let _ = shared.queues.set(queues);
        Ok(Self {
            sinks,
            shared,
            stop_patience: limits.stop_patience,
        })
    }

    /// Names of the sinks in the outbox, `lifecycle:NAME` and `recording:NAME`.
    #[must_use]
    pub fn outbox_names(&self) -> Vec<String> {
        self.sinks.iter().map(|one| one.name.clone()).collect()
    }

    fn tell_lifecycle(&self, passing: &Passing) {
        let sinks = self.sinks.iter().filter(|one| one.recording.is_none());
        sinks.for_each(|sink| sink.queue.push(passing.clone()));
    }

    fn tell_recording(&self, passing: &Passing) {
        let sinks = self.sinks.iter().filter(|one| one.takes_pcm());
        sinks.for_each(|sink| sink.queue.push(passing.clone()));
    }

    /// `on_ringing` everywhere.
    pub fn ringing(&self, meta: CallMeta) {
        self.tell_lifecycle(&Passing::Ringing(Arc::new(meta)));
    }

    /// `on_established` everywhere.
    pub fn established(&self, meta: CallMeta) {
        self.tell_lifecycle(&Passing::Established(Arc::new(meta)));
    }

    /// `on_transfer_started` everywhere.
    pub fn transfer_started(&self, inbound: CallMeta, target_uri: &str) {
        let passing = Passing::TransferStarted(Arc::new(inbound), target_uri.into());
        self.tell_lifecycle(&passing);
    }

    /// `on_bridge_started` everywhere.
    pub fn bridge_started(&self, inbound_call_id: &str, outbound_call_id: &str) {
        let passing = Passing::BridgeStarted(inbound_call_id.into(), outbound_call_id.into());
        self.tell_lifecycle(&passing);
    }

    /// `begin_recording` everywhere; what sinks answer, [`Self::wants_pcm`] tells.
    pub fn begin_recording(&self, inbound: CallMeta, sample_rate: u32, codec: &str) {
        let sinks = self.sinks.iter().filter(|one| one.takes_pcm()).count();
        if sinks == 0 {
            return;
        }
        let call = PcmCall {
            unanswered: sinks,
            wanted: 0,
        };
        self.shared
            .pcm
            .calls()
            .insert(inbound.call_id.clone(), call);
        let passing = Passing::Begin {
            meta: Arc::new(inbound),
            sample_rate,
            codec: codec.into(),
        };
        self.tell_recording(&passing);
    }

    /// Whether any sink wants PCM of this call, or has not said yet.
    #[must_use]
    pub fn wants_pcm(&self, call_id: &str) -> bool {
        let calls = self.shared.pcm.calls();
        calls
            .get(call_id)
            .is_some_and(|call| call.wanted > 0 || call.unanswered > 0)
    }

    /// `append_pcm` where it is wanted.
    pub fn append_pcm(&self, call_id: &Arc<str>, channel: RecordingChannel, pcm: Arc<[u8]>) {
        let passing = Passing::Pcm {
            call_id: Arc::clone(call_id),
            channel,
            pcm,
        };
        self.tell_recording(&passing);
    }

    /// No more PCM of this recording will come: it may be finished.
    pub fn pcm_done(&self, call_id: &str) {
        self.shared.pcm.calls().remove(call_id);
        self.shared.ring();
    }

    /// The outbox holds something new.
    pub fn outbox_changed(&self) {
        self.shared.ring();
    }

    /// What each sink's thread has done.
    #[must_use]
    pub fn counts(&self) -> Vec<SinkCounts> {
        let counts = self.sinks.iter().map(|one| {
            let (dropped_callbacks, dropped_pcm) = one.queue.dropped();
            SinkCounts {
                sink: one.name.clone(),
                delivered: one.counters.delivered.load(Relaxed),
                dropped_callbacks,
                dropped_pcm: dropped_pcm + one.dropped_by_sink(),
                panics: one.counters.panics.load(Relaxed),
                put_off: one.counters.put_off.load(Relaxed),
                dead: one.counters.dead.load(Relaxed),
            }
        });
        counts.collect()
    }
}

fn start(served: Served, shared: &Arc<Shared>, limits: Limits) -> io::Result<Running> {
    let name = served.outbox_name();
    let recording = match &served {
        Served::Recording(one) => Some(Arc::clone(&one.sink)),
        Served::Lifecycle(_) => None,
    };
    let queue = Arc::new(Queue::new(limits.callbacks_max, limits.pcm_max));
    let counters = Arc::new(Counters::default());
    let worker = Worker::new(
        served,
        Arc::clone(&queue),
        Arc::clone(&counters),
        Arc::clone(shared),
    );
    let thread = std::thread::Builder::new()
        .name(name.chars().take(15).collect())
        .spawn(move || worker.run())?;
    Ok(Running {
        name,
        queue,
        counters,
        recording,
        thread: Some(thread),
    })
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        for sink in &self.sinks {
            sink.queue.stop();
        }
        let deadline = Instant::now() + self.stop_patience;
        for sink in &mut self.sinks {
            let Some(thread) = sink.thread.take() else {
                continue;
            };
            while !thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            if thread.is_finished() {
                // A panic outside a callback was reported by its own hook.
                let _ = thread.join();
            } else {
                tracing::warn!(sink = sink.name, "a sink does not end; left behind");
            }
        }
    }
}
