//! The thread of one sink.

use crate::dispatch::Shared;
use crate::outbox::{Terminal, TerminalItem};
use crate::queue::{Passing, Queue};
use crate::registry::{lifecycle_outbox_name, recording_outbox_name};
use crate::{LifecycleSink, NamedSink, RecordingArtifact, RecordingResult, RecordingSink};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
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
    pub(crate) put_off: AtomicU64,
    pub(crate) dead: AtomicU64,
}

/// How a callback went.
enum Outcome {
    Made(Option<RecordingResult>),
    PutOff(String, Duration),
    Dead(String),
    Panicked(String),
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
            let made = self.make_terminals(items);
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

    /// Makes callbacks that end something; gives how many were made. Of the others it is too early.
    fn make_terminals(&mut self, items: Vec<TerminalItem>) -> usize {
        if let Served::Recording(one) = &self.served {
            let threads = one.sink.parallel().min(items.len());
            if threads > 1 {
                let sink = Arc::clone(&one.sink);
                return self.finish_side_by_side(&sink, items, threads);
            }
        }
        let mut made = 0;
        for item in items {
            let outcome = match &self.served {
                Served::Lifecycle(one) => Some(tell_end(&self.shared, &*one.sink, &item)),
                Served::Recording(one) => finish(&self.shared, &*one.sink, &item),
            };
            made += usize::from(self.take_outcome(&item, outcome));
        }
        made
    }

    fn finish_side_by_side(
        &mut self,
        sink: &Arc<dyn RecordingSink>,
        items: Vec<TerminalItem>,
        threads: usize,
    ) -> usize {
        let shared = Arc::clone(&self.shared);
        let waiting = Mutex::new(items.into_iter());
        let next = || {
            let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.next()
        };
        let (outcomes, received) = mpsc::channel();
        std::thread::scope(|scope| {
            for number in 0..threads {
                let (outcomes, next, shared, sink) = (outcomes.clone(), &next, &shared, &**sink);
                let finish_all = move || {
                    while let Some(item) = next() {
                        let outcome = finish(shared, sink, &item);
                        // It is received until the last of us ends.
                        let _ = outcomes.send((item, outcome));
                    }
                };
                let name = format!("finish-{number}");
                let started = std::thread::Builder::new()
                    .name(name)
                    .spawn_scoped(scope, finish_all);
                if let Err(error) = started {
                    // The others take its share; without any, the items wait for the next round.
                    tracing::warn!(%error, "a thread of a sink does not start");
                }
            }
            drop(outcomes);
            let mut made = 0;
            for (item, outcome) in received {
                made += usize::from(self.take_outcome(&item, outcome));
            }
            made
        })
    }

    /// Counts and notes how a callback went, one by one: as little as possible is made twice when the
    /// process is killed.
    fn take_outcome(&mut self, item: &TerminalItem, outcome: Option<Outcome>) -> bool {
        let Some(outcome) = outcome else { return false };
        let counter = match &outcome {
            Outcome::Made(_) => &self.counters.delivered,
            Outcome::PutOff(..) => &self.counters.put_off,
            Outcome::Dead(_) | Outcome::Panicked(_) => &self.counters.dead,
        };
        counter.fetch_add(1, Relaxed);
        match &outcome {
            Outcome::Made(_) => {}
            Outcome::PutOff(why, _) if item.attempts == 0 => {
                tracing::warn!(
                    sink = self.name(),
                    why,
                    "not finished; trying again until it is"
                );
            }
            Outcome::PutOff(..) => {}
            Outcome::Dead(why) => tracing::error!(sink = self.name(), why, "a dead letter"),
            Outcome::Panicked(why) => {
                let _ = self.counted::<()>(Err(why.clone()));
            }
        }
        if let Terminal::Finish { recording } = &item.terminal
            && !matches!(outcome, Outcome::PutOff(..))
        {
            self.wanting.remove(&recording.call_id);
        }
        self.unnoted.push((item.id, outcome));
        self.note_outcomes();
        true
    }

    fn note_outcomes(&mut self) {
        let outbox = &self.shared.outbox;
        let before = self.unnoted.len();
        self.unnoted.retain(|(id, outcome)| {
            let noted = match outcome {
                Outcome::Made(result) => outbox.delivered(*id, result.as_ref()),
                Outcome::PutOff(why, pause) => outbox.later(*id, why, *pause),
                Outcome::Dead(why) | Outcome::Panicked(why) => outbox.dead(*id, why),
            };
            noted.is_err()
        });
        if self.unnoted.len() < before && matches!(self.served, Served::Recording(_)) {
            // A finished recording lets the ends of its call go.
            self.shared.ring();
        }
    }
}

/// Tells a sink how a leg ended.
fn tell_end(shared: &Shared, sink: &dyn LifecycleSink, item: &TerminalItem) -> Outcome {
    let told = match &item.terminal {
        Terminal::Bye {
            meta,
            hangup,
            recording,
        } => {
            let made = recording.as_ref().map(|one| shared.outbox.artifact(one));
            // The leg's end is told all the same.
            let artifact = made.transpose().unwrap_or_else(|error| {
                tracing::warn!(%error, "a leg ends without its recording");
                None
            });
            let artifact = artifact.unwrap_or_else(|| RecordingArtifact::empty(&meta.call_id));
            guarded(|| sink.on_bye(meta, hangup, &artifact))
        }
        Terminal::Failed { meta, hangup } => guarded(|| sink.on_failed(meta, hangup)),
        // Not this kind of sink's: nothing to do.
        Terminal::Finish { .. } => Ok(()),
    };
    told.map_or_else(Outcome::Panicked, |()| Outcome::Made(None))
}

/// Has a sink finish a recording; `None` = its last PCM is still to come.
fn finish(shared: &Shared, sink: &dyn RecordingSink, item: &TerminalItem) -> Option<Outcome> {
    let Terminal::Finish { recording } = &item.terminal else {
        return Some(Outcome::Made(None));
    };
    if sink.takes_pcm() && shared.pcm.holds_up(&recording.call_id, item.since) {
        return None;
    }
    let artifact = match sink.reads_payload() {
        true => shared.outbox.artifact(recording),
        false => Ok(RecordingArtifact::without_payload(recording)),
    };
    let artifact = match artifact {
        Ok(artifact) => artifact,
        Err(error) => return Some(put_off(item, error.0, sink.patience())),
    };
    let deadline = deadline_of(item.since, shared.finish_deadline);
    Some(
        match guarded(|| sink.finish_recording(&artifact, deadline)) {
            Ok(Ok(result)) => Outcome::Made(Some(result)),
            Ok(Err(error)) if error.permanent => Outcome::Dead(error.why),
            Ok(Err(error)) => put_off(item, error.why, sink.patience()),
            Err(why) => Outcome::Panicked(why),
        },
    )
}

/// Pauses between attempts double from a second up to this.
pub const PAUSE_MAX: Duration = Duration::from_secs(300);
/// How many times the pauses that were made a callback's age may be. More is not waiting in a queue but
/// a clock that was set, or a process that did not run: neither uses a sink's patience up.
const AGE_OVER_PAUSES: u32 = 4;

/// The pause after so many failed attempts.
fn pause_after(attempts: u32) -> Duration {
    Duration::from_secs(1_u64 << attempts.min(16)).min(PAUSE_MAX)
}

/// All pauses before an attempt.
fn pauses_before(attempts: u32) -> Duration {
    const DOUBLING: u32 = 9;
    let doubled: Duration = (0..attempts.min(DOUBLING)).map(pause_after).sum();
    doubled + PAUSE_MAX * attempts.saturating_sub(DOUBLING)
}

/// Tries again later, unless the sink's patience ends before.
fn put_off(item: &TerminalItem, why: String, patience: Duration) -> Outcome {
    let pause = pause_after(item.attempts);
    let age = item.since.elapsed().unwrap_or_default();
    let plausible = pauses_before(item.attempts) * AGE_OVER_PAUSES;
    if age.min(plausible) + pause > patience {
        return Outcome::Dead(why);
    }
    Outcome::PutOff(why, pause)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RecordingRef;

    const HOUR: Duration = Duration::from_secs(3600);

    fn item(age: Duration, attempts: u32) -> TerminalItem {
        TerminalItem {
            id: 1,
            since: SystemTime::now() - age,
            attempts,
            terminal: Terminal::Finish {
                recording: RecordingRef {
                    recording: "r".to_owned(),
                    call_id: "c".to_owned(),
                    codec: String::new(),
                },
            },
        }
    }

    fn is_dead(age: Duration, attempts: u32, patience: Duration) -> bool {
        matches!(
            put_off(&item(age, attempts), String::new(), patience),
            Outcome::Dead(_)
        )
    }

    #[test]
    fn patience_is_used_up_by_attempts_and_not_by_a_clock_that_was_set() {
        assert!(is_dead(Duration::ZERO, 0, Duration::ZERO), "not at all");
        assert!(!is_dead(HOUR, 20, 2 * HOUR));
        assert!(is_dead(72 * HOUR, 870, 72 * HOUR));
        // Recorded before the clock was set from 1970, or before the machine was off for years.
        let years = 20 * 365 * 24 * HOUR;
        assert!(!is_dead(years, 0, 72 * HOUR));
        assert!(!is_dead(years, 200, 72 * HOUR));
        assert!(is_dead(years, 230, 72 * HOUR));
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let seconds = |attempts| pause_after(attempts).as_secs();
        assert_eq!([seconds(0), seconds(1), seconds(8)], [1, 2, 256]);
        assert_eq!([seconds(9), seconds(4_000_000_000)], [300, 300]);
        assert_eq!(pauses_before(0), Duration::ZERO);
        assert_eq!(pauses_before(3).as_secs(), 7);
        assert_eq!(pauses_before(11).as_secs(), 511 + 2 * 300);
    }
}
