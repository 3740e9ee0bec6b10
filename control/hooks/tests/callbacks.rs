//! Every callback reaches every sink, and no sink can harm another.

mod common;
#[path = "callbacks/patience.rs"]
mod patience;

use common::{BYE, FINISH, Kept, Recorder, bye, failed, finish, meta, wait_for};
use std::sync::Arc;
use std::time::{Duration, Instant};
use trunkline_hooks::{
    CallMeta, Dispatcher, FinishError, HangupMeta, LifecycleSink, Limits, NoOutbox, NopRecording,
    RecordingArtifact, RecordingChannel, RecordingResult, RecordingSink, Registry,
};

fn start(registry: Registry, outbox: Arc<Kept>) -> Dispatcher {
    Dispatcher::start(registry, outbox, Limits::default()).expect("threads")
}

fn lifecycle(sinks: &[(&str, Arc<dyn LifecycleSink>)]) -> Registry {
    let mut registry = Registry::empty();
    for (name, sink) in sinks {
        registry
            .add_lifecycle(name, Arc::clone(sink))
            .expect("a new name");
    }
    registry
}

fn recording(sinks: &[(&str, Arc<dyn RecordingSink>)]) -> Registry {
    let mut registry = Registry::empty();
    for (name, sink) in sinks {
        registry
            .add_recording(name, Arc::clone(sink))
            .expect("a new name");
    }
    registry
}

#[test]
fn on_ringing_on_established_and_on_bridge_started_arrive_in_order_everywhere() {
    let (first, second) = (Arc::new(Recorder::default()), Arc::new(Recorder::default()));
    let registry = lifecycle(&[("first", first.clone()), ("second", second.clone())]);
    let dispatcher = start(registry, Arc::default());
    dispatcher.ringing(meta("in"));
    dispatcher.established(meta("in"));
    dispatcher.bridge_started("in", "out");
    for sink in [first, second] {
        wait_for("three callbacks", || sink.said().len() == 3);
        assert_eq!(
            sink.said(),
            ["ringing in", "established in", "bridge in out"]
        );
    }
}

#[test]
fn on_transfer_started_carries_the_inbound_leg_and_the_target() {
    let sink = Arc::new(Recorder::default());
    let dispatcher = start(lifecycle(&[("one", sink.clone())]), Arc::default());
    dispatcher.transfer_started(meta("in"), "sip:agent@example.com");
    wait_for("the callback", || !sink.said().is_empty());
    assert_eq!(sink.said(), ["transfer in sip:agent@example.com"]);
}

#[test]
fn on_bye_and_on_failed_come_from_the_outbox_once_each_and_after_what_was_queued_before() {
    let (sink, outbox) = (Arc::new(Recorder::default()), Arc::new(Kept::default()));
    let dispatcher = start(lifecycle(&[("one", sink.clone())]), outbox.clone());
    dispatcher.established(meta("in"));
    outbox.add("lifecycle:one", bye("in"));
    outbox.add("lifecycle:one", failed("out"));
    dispatcher.outbox_changed();
    wait_for("the ends", || outbox.pending_count() == 0);
    dispatcher.outbox_changed();
    drop(dispatcher);
    assert_eq!(
        sink.said(),
        ["established in", "bye in payload 0", "failed out"]
    );
}

#[test]
fn begin_append_and_finish_follow_each_other() {
    let (sink, outbox) = (Arc::new(Recorder::wanting()), Arc::new(Kept::default()));
    let dispatcher = start(recording(&[("store", sink.clone())]), outbox.clone());
    dispatcher.begin_recording(meta("in"), 8000, "PCMU");
    let call_id: Arc<str> = "in".into();
    dispatcher.append_pcm(&call_id, RecordingChannel::Caller, vec![0; 320].into());
    dispatcher.append_pcm(&call_id, RecordingChannel::Agent, vec![0; 320].into());
    outbox.add("recording:store", finish("in"));
    dispatcher.outbox_changed();
    wait_for("the PCM", || sink.said().len() == 3);
    assert_eq!(
        outbox.pending_count(),
        1,
        "held up until the last PCM is through"
    );
    dispatcher.pcm_done("in");
    wait_for("the finish", || outbox.pending_count() == 0);
    assert_eq!(
        sink.said(),
        [
            "begin in 8000 PCMU",
            "pcm in Caller 320",
            "pcm in Agent 320",
            "finish in payload 0"
        ]
    );
    assert_eq!(outbox.results(), [Some(FINISH.to_owned())]);
}

#[test]
fn a_sink_that_wants_no_pcm_gets_none_and_still_finishes() {
    let (sink, outbox) = (Arc::new(Recorder::default()), Arc::new(Kept::default()));
    let dispatcher = start(recording(&[("store", sink.clone())]), outbox.clone());
    dispatcher.begin_recording(meta("in"), 8000, "PCMU");
    wait_for("its answer", || !dispatcher.wants_pcm("in"));
    dispatcher.append_pcm(&"in".into(), RecordingChannel::Caller, vec![0; 320].into());
    outbox.add("recording:store", finish("in"));
    dispatcher.outbox_changed();
    wait_for("the finish", || outbox.pending_count() == 0);
    assert_eq!(sink.said(), ["begin in 8000 PCMU", "finish in payload 0"]);
}

/// Panics over everything.
struct Panicking;

impl LifecycleSink for Panicking {
    fn on_ringing(&self, _meta: &CallMeta) {
        panic!("ringing");
    }

    fn on_bye(&self, _meta: &CallMeta, _hangup: &HangupMeta, _recording: &RecordingArtifact) {
        panic!("bye");
    }
}

#[test]
fn a_panicking_sink_leaves_a_dead_letter_and_harms_no_other() {
    let (good, outbox) = (Arc::new(Recorder::default()), Arc::new(Kept::default()));
    let registry = lifecycle(&[("bad", Arc::new(Panicking)), ("good", good.clone())]);
    let dispatcher = start(registry, outbox.clone());
    for call in ["a", "b"] {
        dispatcher.ringing(meta(call));
        outbox.add("lifecycle:bad", bye(call));
        outbox.add("lifecycle:good", bye(call));
    }
    dispatcher.outbox_changed();
    wait_for("all ends", || outbox.pending_count() == 0);
    assert_eq!(outbox.dead_letters(), ["panicked: bye", "panicked: bye"]);
    wait_for("the good one", || good.said().len() == 4);
    let counts = dispatcher.counts();
    assert_eq!((counts[0].panics, counts[0].dead), (4, 2), "{counts:?}");
    assert_eq!(
        (counts[1].panics, counts[1].delivered),
        (0, 2),
        "{counts:?}"
    );
}

/// Never returns from its first callback until it is let go.
#[derive(Default)]
struct Blocked(std::sync::Mutex<()>);

impl LifecycleSink for Blocked {
    fn on_ringing(&self, _meta: &CallMeta) {
        drop(self.0.lock());
    }
}

#[test]
fn a_blocking_sink_loses_counted_callbacks_of_its_own_only() {
    let (blocked, good) = (Arc::new(Blocked::default()), Arc::new(Recorder::default()));
    let guard = blocked.0.lock().expect("free");
    let limits = Limits {
        callbacks_max: 10,
        ..Limits::default()
    };
    let registry = lifecycle(&[("blocked", blocked.clone()), ("good", good.clone())]);
    let dispatcher = Dispatcher::start(registry, Arc::new(NoOutbox), limits).expect("threads");
    let begin = Instant::now();
    for number in 0..100 {
        dispatcher.ringing(meta("x"));
        wait_for("the good one", || good.said().len() == number + 1);
    }
    assert!(
        begin.elapsed() < Duration::from_secs(30),
        "nobody waits for it"
    );
    let counts = dispatcher.counts();
    assert!(
        (89..=90).contains(&counts[0].dropped_callbacks),
        "{counts:?}"
    );
    assert_eq!(counts[1].dropped_callbacks, 0, "{counts:?}");
    drop(guard);
}

/// Wants PCM and holds the first piece until it is let go.
#[derive(Default)]
struct Slow {
    gate: std::sync::Mutex<()>,
    pieces: std::sync::Mutex<Vec<u8>>,
}

impl RecordingSink for Slow {
    fn begin_recording(&self, _meta: &CallMeta, _sample_rate: u32, _codec: &str) -> bool {
        drop(self.gate.lock());
        true
    }

    fn append_pcm(&self, _call_id: &str, _channel: RecordingChannel, pcm: &[u8]) {
        self.pieces.lock().expect("free").push(pcm[0]);
    }

    fn finish_recording(
        &self,
        _artifact: &RecordingArtifact,
        _deadline: Instant,
    ) -> Result<RecordingResult, FinishError> {
        Err(FinishError::new("the bucket is gone"))
    }
}

#[test]
fn pcm_that_a_sink_cannot_take_drops_the_oldest_and_counts() {
    let sink = Arc::new(Slow::default());
    let guard = sink.gate.lock().expect("free");
    let limits = Limits {
        pcm_max: 4,
        ..Limits::default()
    };
    let registry = recording(&[("slow", sink.clone())]);
    let dispatcher = Dispatcher::start(registry, Arc::new(NoOutbox), limits).expect("threads");
    dispatcher.begin_recording(meta("in"), 8000, "PCMU");
    for number in 0..10 {
        dispatcher.append_pcm(&"in".into(), RecordingChannel::Caller, vec![number].into());
    }
    drop(guard);
    wait_for("the rest", || sink.pieces.lock().expect("free").len() == 4);
    assert_eq!(*sink.pieces.lock().expect("free"), [6, 7, 8, 9]);
    assert_eq!(dispatcher.counts()[0].dropped_pcm, 6);
}

#[test]
fn a_finish_that_fails_is_a_dead_letter_and_on_bye_still_fires() {
    let (sink, outbox) = (Arc::new(Recorder::default()), Arc::new(Kept::default()));
    let mut registry = lifecycle(&[("one", sink.clone())]);
    registry
        .add_recording("slow", Arc::new(Slow::default()))
        .expect("a new name");
    outbox.add("recording:slow", finish("in"));
    outbox.add("lifecycle:one", bye("in"));
    let dispatcher = start(registry, outbox.clone());
    wait_for("both", || outbox.pending_count() == 0);
    assert_eq!(outbox.dead_letters(), ["the bucket is gone"]);
    assert_eq!(sink.said(), ["bye in payload 0"]);
    assert_eq!(
        outbox.log(),
        [format!("dead {FINISH}"), format!("made {BYE}")]
    );
    drop(dispatcher);
}

#[test]
fn what_was_not_made_is_made_by_the_next_process() {
    let outbox = Arc::new(Kept::default());
    outbox.add("lifecycle:one", bye("in"));
    let sink = Arc::new(Recorder::default());
    let dispatcher = start(lifecycle(&[("other", sink.clone())]), outbox.clone());
    dispatcher.outbox_changed();
    drop(dispatcher);
    assert_eq!(outbox.pending_count(), 1, "nobody of that name was there");
    let dispatcher = start(lifecycle(&[("one", sink.clone())]), outbox.clone());
    wait_for("the end", || outbox.pending_count() == 0);
    drop(dispatcher);
    assert_eq!(sink.said(), ["bye in payload 0"]);
}

#[test]
fn an_outbox_that_cannot_note_does_not_have_a_callback_made_twice() {
    let (sink, outbox) = (Arc::new(Recorder::default()), Arc::new(Kept::default()));
    outbox.refuse_notes(true);
    outbox.add("lifecycle:one", bye("in"));
    let dispatcher = start(lifecycle(&[("one", sink.clone())]), outbox.clone());
    wait_for("the callback", || sink.said().len() == 1);
    for _ in 0..20 {
        dispatcher.outbox_changed();
        std::thread::sleep(Duration::from_millis(5));
    }
    outbox.refuse_notes(false);
    dispatcher.outbox_changed();
    wait_for("the note", || outbox.pending_count() == 0);
    assert_eq!(sink.said(), ["bye in payload 0"]);
}

#[test]
fn the_default_registry_does_nothing_and_names_are_unique() {
    let mut registry = Registry::default();
    assert_eq!(
        (registry.lifecycle().len(), registry.recording().len()),
        (1, 1)
    );
    let dispatcher = start(registry.clone(), Arc::default());
    assert!(
        dispatcher.outbox_names().is_empty(),
        "no thread for a no-op"
    );
    dispatcher.begin_recording(meta("in"), 8000, "PCMU");
    assert!(!dispatcher.wants_pcm("in"));
    registry
        .add_recording("a", Arc::new(NopRecording))
        .expect("a new name");
    assert!(registry.add_recording("a", Arc::new(NopRecording)).is_err());
    assert!(registry.add_recording("", Arc::new(NopRecording)).is_err());
    let nop = NopRecording;
    assert!(!nop.begin_recording(&meta("in"), 8000, "PCMU"));
    let empty = RecordingArtifact::empty("in");
    assert_eq!(
        nop.finish_recording(&empty, Instant::now()),
        Ok(RecordingResult::default())
    );
}
