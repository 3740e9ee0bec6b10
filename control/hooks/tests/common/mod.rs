//! Sinks that note what they are told, and an outbox in memory.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant, SystemTime};
use trunkline_hooks::{
    CallMeta, Direction, FinishError, HangupInitiator, HangupMeta, LifecycleSink, Outbox,
    OutboxError, RecordingArtifact, RecordingChannel, RecordingRef, RecordingResult, RecordingSink,
    Terminal, TerminalItem,
};

pub const BYE: &str = "bye";
pub const FINISH: &str = "finish";

/// Waits for a condition, generously.
pub fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn meta(call_id: &str) -> CallMeta {
    CallMeta {
        call_id: call_id.to_owned(),
        correlation_id: String::new(),
        direction: Direction::Inbound,
        scenario: String::new(),
        tenant_id: String::new(),
        remote_addr: "192.0.2.1:5060".to_owned(),
        local_ip: "192.0.2.2".to_owned(),
        codec: "PCMU".to_owned(),
        started_at: SystemTime::now(),
        call: "0193e5c2-7a41-7c11-b2a5-1f0e6c9d8a77".to_owned(),
    }
}

fn hangup() -> HangupMeta {
    HangupMeta {
        initiator: HangupInitiator::Remote,
        sip_code: 0,
        reason: String::new(),
        duration: Duration::from_secs(1),
        ended_at: SystemTime::now(),
    }
}

pub fn bye(call_id: &str) -> Terminal {
    Terminal::Bye {
        meta: meta(call_id),
        hangup: hangup(),
        recording: None,
    }
}

pub fn failed(call_id: &str) -> Terminal {
    Terminal::Failed {
        meta: meta(call_id),
        hangup: hangup(),
    }
}

pub fn finish(call_id: &str) -> Terminal {
    Terminal::Finish {
        recording: RecordingRef {
            recording: format!("recording of {call_id}"),
            call_id: call_id.to_owned(),
            codec: "PCMU".to_owned(),
        },
    }
}

/// Notes every callback.
#[derive(Default)]
pub struct Recorder {
    said: Mutex<Vec<String>>,
    wants_pcm: bool,
}

impl Recorder {
    pub fn wanting() -> Self {
        Self {
            wants_pcm: true,
            ..Self::default()
        }
    }

    fn note(&self, text: String) {
        self.said.lock().expect("free").push(text);
    }

    pub fn said(&self) -> Vec<String> {
        self.said.lock().expect("free").clone()
    }
}

impl LifecycleSink for Recorder {
    fn on_ringing(&self, meta: &CallMeta) {
        self.note(format!("ringing {}", meta.call_id));
    }

    fn on_established(&self, meta: &CallMeta) {
        self.note(format!("established {}", meta.call_id));
    }

    fn on_transfer_started(&self, meta: &CallMeta, target_uri: &str) {
        self.note(format!("transfer {} {target_uri}", meta.call_id));
    }

    fn on_bridge_started(&self, inbound_call_id: &str, outbound_call_id: &str) {
        self.note(format!("bridge {inbound_call_id} {outbound_call_id}"));
    }

    fn on_bye(&self, meta: &CallMeta, _hangup: &HangupMeta, recording: &RecordingArtifact) {
        let bytes = recording.payload.len();
        self.note(format!("bye {} payload {bytes}", meta.call_id));
    }

    fn on_failed(&self, meta: &CallMeta, _hangup: &HangupMeta) {
        self.note(format!("failed {}", meta.call_id));
    }
}

impl RecordingSink for Recorder {
    fn begin_recording(&self, meta: &CallMeta, sample_rate: u32, codec: &str) -> bool {
        self.note(format!("begin {} {sample_rate} {codec}", meta.call_id));
        self.wants_pcm
    }

    fn append_pcm(&self, call_id: &str, channel: RecordingChannel, pcm: &[u8]) {
        self.note(format!("pcm {call_id} {channel:?} {}", pcm.len()));
    }

    fn finish_recording(
        &self,
        artifact: &RecordingArtifact,
        deadline: Instant,
    ) -> Result<RecordingResult, FinishError> {
        assert!(deadline > Instant::now());
        let bytes = artifact.payload.len();
        self.note(format!("finish {} payload {bytes}", artifact.call_id));
        Ok(RecordingResult {
            object_key: Some(FINISH.to_owned()),
            ..RecordingResult::default()
        })
    }
}

struct Entry {
    sink: String,
    item: TerminalItem,
    done: bool,
}

#[derive(Default)]
struct State {
    entries: Vec<Entry>,
    results: Vec<Option<String>>,
    dead: Vec<String>,
    put_off: Vec<(String, Duration)>,
    log: Vec<String>,
}

/// An outbox in memory, with the rule that ends wait for finishes.
#[derive(Default)]
pub struct Kept {
    state: Mutex<State>,
    refuses: AtomicBool,
}

impl Kept {
    pub fn add(&self, sink: &str, terminal: Terminal) {
        let mut state = self.state.lock().expect("free");
        let id = i64::try_from(state.entries.len()).expect("few") + 1;
        state.entries.push(Entry {
            sink: sink.to_owned(),
            item: TerminalItem {
                id,
                since: SystemTime::now(),
                attempts: 0,
                terminal,
            },
            done: false,
        });
    }

    pub fn pending_count(&self) -> usize {
        let state = self.state.lock().expect("free");
        state.entries.iter().filter(|one| !one.done).count()
    }

    pub fn results(&self) -> Vec<Option<String>> {
        self.state.lock().expect("free").results.clone()
    }

    pub fn dead_letters(&self) -> Vec<String> {
        self.state.lock().expect("free").dead.clone()
    }

    pub fn put_off(&self) -> Vec<(String, Duration)> {
        self.state.lock().expect("free").put_off.clone()
    }

    pub fn log(&self) -> Vec<String> {
        self.state.lock().expect("free").log.clone()
    }

    pub fn refuse_notes(&self, refuses: bool) {
        self.refuses.store(refuses, SeqCst);
    }

    fn end(&self, id: i64, how: &str) -> Result<std::sync::MutexGuard<'_, State>, OutboxError> {
        if self.refuses.load(SeqCst) {
            return Err(OutboxError("the disk is full".to_owned()));
        }
        let mut state = self.state.lock().expect("free");
        let index = usize::try_from(id).expect("ours") - 1;
        let entry = &mut state.entries[index];
        assert!(!std::mem::replace(&mut entry.done, true), "made once");
        let kind = match entry.item.terminal {
            Terminal::Finish { .. } => FINISH,
            Terminal::Bye { .. } => BYE,
            Terminal::Failed { .. } => "failed",
        };
        state.log.push(format!("{how} {kind}"));
        Ok(state)
    }
}

impl Outbox for Kept {
    fn pending(&self, sink: &str, limit: usize) -> Result<Vec<TerminalItem>, OutboxError> {
        let state = self.state.lock().expect("free");
        let finishing = state
            .entries
            .iter()
            .any(|one| !one.done && matches!(one.item.terminal, Terminal::Finish { .. }));
        let ready = state.entries.iter().filter(|one| {
            let held = finishing && matches!(one.item.terminal, Terminal::Bye { .. });
            one.sink == sink && !one.done && !held
        });
        Ok(ready.take(limit).map(|one| one.item.clone()).collect())
    }

    fn delivered(&self, id: i64, result: Option<&RecordingResult>) -> Result<(), OutboxError> {
        let mut state = self.end(id, "made")?;
        let key = result.and_then(|result| result.object_key.clone());
        state.results.push(key);
        Ok(())
    }

    fn dead(&self, id: i64, why: &str) -> Result<(), OutboxError> {
        let mut state = self.end(id, "dead")?;
        state.dead.push(why.to_owned());
        Ok(())
    }

    fn later(&self, id: i64, why: &str, pause: Duration) -> Result<(), OutboxError> {
        let mut state = self.state.lock().expect("free");
        let entry = &mut state.entries[usize::try_from(id).expect("ours") - 1];
        entry.item.attempts += 1;
        state.put_off.push((why.to_owned(), pause));
        Ok(())
    }

    fn artifact(&self, recording: &RecordingRef) -> Result<RecordingArtifact, OutboxError> {
        Ok(RecordingArtifact::without_payload(recording))
    }
}
