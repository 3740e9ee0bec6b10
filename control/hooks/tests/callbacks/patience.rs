//! Recordings that a sink cannot finish at once.

use crate::common::{FINISH, Kept, finish, meta, wait_for};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};
use trunkline_hooks::{
    CallMeta, Dispatcher, FinishError, Limits, RecordingArtifact, RecordingResult, RecordingSink,
    Registry,
};

/// Fails so many times, then succeeds.
struct Store {
    failures: AtomicUsize,
    permanent: bool,
    patience: Duration,
    /// Passed by every finish.
    meeting: Option<Barrier>,
}

impl Store {
    fn failing(failures: usize, patience: Duration) -> Self {
        Self {
            failures: AtomicUsize::new(failures),
            permanent: false,
            patience,
            meeting: None,
        }
    }
}

impl RecordingSink for Store {
    fn begin_recording(&self, _meta: &CallMeta, _sample_rate: u32, _codec: &str) -> bool {
        panic!("it takes no PCM");
    }

    fn finish_recording(
        &self,
        artifact: &RecordingArtifact,
        _deadline: Instant,
    ) -> Result<RecordingResult, FinishError> {
        if let Some(meeting) = &self.meeting {
            meeting.wait();
        }
        let left = self.failures.load(SeqCst);
        if left == 0 {
            return Ok(RecordingResult {
                object_key: Some(artifact.recording.clone()),
                ..RecordingResult::default()
            });
        }
        self.failures.store(left - 1, SeqCst);
        Err(FinishError {
            why: "not now".to_owned(),
            permanent: self.permanent,
        })
    }

    fn patience(&self) -> Duration {
        self.patience
    }

    fn parallel(&self) -> usize {
        if self.meeting.is_some() { 3 } else { 1 }
    }

    fn takes_pcm(&self) -> bool {
        false
    }

    fn reads_payload(&self) -> bool {
        false
    }
}

fn start(store: Store, outbox: &Arc<Kept>) -> Dispatcher {
    let mut registry = Registry::empty();
    registry
        .add_recording("store", Arc::new(store))
        .expect("a new name");
    Dispatcher::start(registry, outbox.clone(), Limits::default()).expect("threads")
}

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn what_fails_is_tried_again_with_pauses_that_double() {
    let outbox = Arc::new(Kept::default());
    outbox.add("recording:store", finish("in"));
    let dispatcher = start(Store::failing(3, HOUR), &outbox);
    wait_for("the end", || {
        dispatcher.outbox_changed();
        outbox.pending_count() == 0
    });
    let pauses: Vec<u64> = outbox
        .put_off()
        .iter()
        .map(|(_, pause)| pause.as_secs())
        .collect();
    assert_eq!(pauses, [1, 2, 4]);
    assert_eq!(outbox.results(), [Some("recording of in".to_owned())]);
    let counts = dispatcher.counts();
    assert_eq!((counts[0].put_off, counts[0].delivered), (3, 1));
}

#[test]
fn patience_ends_and_permanent_errors_are_not_tried_again() {
    for (patience, permanent) in [(Duration::ZERO, false), (HOUR, true)] {
        let outbox = Arc::new(Kept::default());
        outbox.add("recording:store", finish("in"));
        let store = Store {
            permanent,
            ..Store::failing(9, patience)
        };
        let dispatcher = start(store, &outbox);
        wait_for("the end", || outbox.pending_count() == 0);
        assert_eq!(outbox.dead_letters(), ["not now"]);
        assert!(outbox.put_off().is_empty());
        assert_eq!(dispatcher.counts()[0].dead, 1);
    }
}

#[test]
fn several_recordings_are_finished_at_once_where_the_sink_says_so() {
    let outbox = Arc::new(Kept::default());
    for call_id in ["a", "b", "c"] {
        outbox.add("recording:store", finish(call_id));
    }
    let store = Store {
        // Passed only by three at once.
        meeting: Some(Barrier::new(3)),
        ..Store::failing(0, HOUR)
    };
    let dispatcher = start(store, &outbox);
    wait_for("all three", || outbox.pending_count() == 0);
    assert_eq!(outbox.log(), vec![format!("made {FINISH}"); 3]);
    drop(dispatcher);
}

#[test]
fn a_sink_that_takes_no_pcm_is_not_asked_for_it() {
    let outbox = Arc::new(Kept::default());
    let dispatcher = start(Store::failing(0, HOUR), &outbox);
    dispatcher.begin_recording(meta("in"), 8000, "PCMU");
    assert!(!dispatcher.wants_pcm("in"));
    outbox.add("recording:store", finish("in"));
    dispatcher.outbox_changed();
    wait_for("the end", || outbox.pending_count() == 0);
    assert_eq!(dispatcher.counts()[0].panics, 0);
}
