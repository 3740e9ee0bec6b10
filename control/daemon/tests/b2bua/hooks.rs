//! What hooks are told of calls, by the flow that causes it: B2BUA, records, catalog, outbox, sinks.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::common::{World, sdp};
use tempfile::TempDir;
use trunkline_control::api::handle::RecordingAction;
use trunkline_control::b2bua::CatalogWrite;
use trunkline_control::callbacks::{Callbacks, Hooks};
use trunkline_control::ledger::{Told, end_orphan};
use trunkline_hooks::{
    CallMeta, Direction, FinishError, HangupInitiator, HangupMeta, LifecycleSink,
    RecordingArtifact, RecordingResult, RecordingSink, Registry,
};
use trunkline_sinks::catalog::{Catalog, CatalogThread, Storage};
use trunkline_sinks::cdr::{Cdr, CdrSettings, CdrThread, Journal};
use trunkline_sinks::library::{Library, scratch_of};

const ROUTE: &str = "[[route]]\nnext = \"sip:127.0.0.1:5070\"\nrecord = true\ntenant = \"acme\"\n";
const PATIENCE: Duration = Duration::from_secs(20);

/// Writes down what it is told.
#[derive(Default)]
struct Diary {
    lines: Mutex<Vec<String>>,
    metas: Mutex<Vec<CallMeta>>,
    hangups: Mutex<Vec<HangupMeta>>,
    fails_to_finish: bool,
}

impl Diary {
    fn note(&self, line: String) {
        self.lines.lock().unwrap().push(line);
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    fn count(&self, beginning: &str) -> usize {
        let lines = self.lines();
        lines
            .iter()
            .filter(|one| one.starts_with(beginning))
            .count()
    }

    /// Waits until that many lines begin so.
    fn wait(&self, beginning: &str, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.count(beginning) < count {
            assert!(
                Instant::now() < deadline,
                "{count} times {beginning:?}: {:#?}",
                self.lines()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn leg(meta: &CallMeta) -> &'static str {
    match meta.direction {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
    }
}

impl LifecycleSink for Diary {
    fn on_ringing(&self, meta: &CallMeta) {
        self.note(format!("ringing {}", leg(meta)));
    }

    fn on_established(&self, meta: &CallMeta) {
        self.metas.lock().unwrap().push(meta.clone());
        self.note(format!("established {}", leg(meta)));
    }

    fn on_bridge_started(&self, inbound_call_id: &str, outbound_call_id: &str) {
        self.note(format!("bridge {inbound_call_id} {outbound_call_id}"));
    }

    fn on_transfer_started(&self, meta: &CallMeta, target_uri: &str) {
        self.note(format!("transfer {} {target_uri}", leg(meta)));
    }

    fn on_bye(&self, meta: &CallMeta, hangup: &HangupMeta, recording: &RecordingArtifact) {
        assert_eq!(recording.call_id, meta.call_id);
        self.hangups.lock().unwrap().push(hangup.clone());
        self.note(format!("bye {} {}", leg(meta), meta.call_id));
    }

    fn on_failed(&self, meta: &CallMeta, hangup: &HangupMeta) {
        self.hangups.lock().unwrap().push(hangup.clone());
        self.note(format!("failed {} {}", leg(meta), hangup.sip_code));
    }
}

impl RecordingSink for Diary {
    fn begin_recording(&self, meta: &CallMeta, sample_rate: u32, codec: &str) -> bool {
        self.note(format!("begin {} {sample_rate} {codec}", leg(meta)));
        false
    }

    fn finish_recording(
        &self,
        artifact: &RecordingArtifact,
        _deadline: Instant,
    ) -> Result<RecordingResult, FinishError> {
        self.note(format!("finish {}", artifact.call_id));
        match self.fails_to_finish {
            true => Err(FinishError::new("the store is closed")),
            false => Ok(RecordingResult::default()),
        }
    }
}

/// The stores and the sinks of an appliance.
struct Place {
    // The order in which they end.
    cdrs: CdrThread,
    callbacks: Callbacks,
    catalog: CatalogThread,
    left: Vec<Cdr>,
}

impl Place {
    fn open(folder: &Path, diary: &Arc<Diary>) -> Self {
        let mut registry = Registry::empty();
        registry.add_lifecycle("diary", diary.clone()).unwrap();
        registry.add_recording("diary", diary.clone()).unwrap();
        Self::with(folder, registry)
    }

    fn with(folder: &Path, registry: Registry) -> Self {
        let hooks = Hooks {
            registry,
            ..Hooks::default()
        };
        let path = folder.join("catalog.sqlite");
        let (mut catalog, _) = Catalog::open(&path).unwrap();
        let settings = CdrSettings {
            node: "test".to_owned(),
            rotate_bytes: 1 << 30,
            rotate_after: Duration::ZERO,
        };
        let (journal, left) = Journal::open(&folder.join("cdr"), settings).unwrap();
        catalog.set_sinks(hooks.outbox_sinks(&[]));
        let catalog = CatalogThread::start(catalog, path.clone()).unwrap();
        let cdrs = CdrThread::start(journal, catalog.handle()).unwrap();
        let library = Arc::new(Library {
            catalog: catalog.handle(),
            segments: folder.join("segments"),
            scratch: scratch_of(folder),
            keys: Arc::new(trunkline_sn3::Keys::none()),
            signer: None,
        });
        let artifacts = folder.join("artifacts");
        let callbacks = Callbacks::start(hooks, &library, &path, &artifacts).unwrap();
        Self {
            cdrs,
            callbacks,
            catalog,
            left,
        }
    }

    /// Takes on what the world has to say since.
    fn take(&self, world: &mut World) {
        for write in world.writes.drain(..) {
            match write {
                CatalogWrite::DiscardUnkept => {}
                CatalogWrite::Call(call) => {
                    self.catalog.handle().put_call(call);
                }
                CatalogWrite::Recording(recording) => {
                    let storage = Storage {
                        number: recording.number,
                        ..Storage::default()
                    };
                    let catalog = self.catalog.handle();
                    catalog.put_recording(recording.object, storage);
                }
            }
        }
        for told in world.told.drain(..) {
            match told {
                Told::Record(record) => self.cdrs.handle().write(*record),
                other => self.callbacks.tell(other),
            }
        }
    }

    fn flush(&self) {
        assert!(self.cdrs.handle().flush(PATIENCE));
        assert!(self.catalog.handle().flush(PATIENCE));
    }
}

struct Stage {
    world: World,
    place: Place,
    diary: Arc<Diary>,
    folder: TempDir,
}

fn stage(text: &str) -> Stage {
    stage_with(text, Diary::default())
}

fn stage_with(text: &str, diary: Diary) -> Stage {
    let folder = tempfile::tempdir().unwrap();
    let diary = Arc::new(diary);
    Stage {
        world: World::new(text),
        place: Place::open(folder.path(), &diary),
        diary,
        folder,
    }
}

impl Stage {
    fn run(&mut self, ms: u64) {
        self.world.run(ms);
        self.place.take(&mut self.world);
    }

    /// An INVITE of alice's; gives what bob got.
    fn ring(&mut self) -> (usize, crate::common::Received) {
        let offer = sdp("127.0.0.1", 6000);
        let alice = self.world.invite("sip:bob@127.0.0.1:5060", Some(&offer));
        self.run(50);
        (alice, self.world.bob.take_invite().unwrap())
    }

    fn respond(&mut self, invite: &crate::common::Received, status: u16) {
        let answer = sdp("127.0.0.1", 7000);
        let body = (200..300).contains(&status).then_some(answer.as_str());
        let now = self.world.now();
        self.world.bob.respond(invite, status, body, now);
        self.run(50);
    }

    fn establish(&mut self) -> String {
        self.world.establish();
        self.run(10);
        self.world.only_call().id
    }

    fn bye(&mut self) {
        let now = self.world.now();
        self.world.alice.bye(now);
        self.run(500);
        self.place.flush();
    }
}

#[test]
fn on_ringing_fires_once_a_leg_at_the_first_18x() {
    let mut stage = stage(ROUTE);
    let (_, invite) = stage.ring();
    assert_eq!(stage.diary.count("ringing"), 0);
    for status in [180, 183, 180] {
        stage.respond(&invite, status);
    }
    stage.diary.wait("ringing", 2);
    stage.respond(&invite, 200);
    stage.diary.wait("bridge", 1);
    let ringing: Vec<String> = stage.diary.lines().into_iter().take(2).collect();
    assert_eq!(ringing, ["ringing outbound", "ringing inbound"]);
    assert_eq!(stage.diary.count("ringing"), 2);
}

#[test]
fn on_established_fires_outbound_with_our_ack_and_inbound_with_the_callers() {
    let mut stage = stage(ROUTE);
    let (alice, invite) = stage.ring();
    stage.respond(&invite, 200);
    stage.diary.wait("established outbound", 1);
    assert_eq!(stage.diary.count("established inbound"), 0, "no ACK yet");
    let now = stage.world.now();
    stage.world.alice.ack(alice, now);
    stage.run(50);
    stage.diary.wait("established inbound", 1);
    let metas = stage.diary.metas.lock().unwrap().clone();
    let (outbound, inbound) = (&metas[0], &metas[1]);
    assert_eq!(inbound.call_id, stage.world.alice.call_id);
    assert_eq!(inbound.correlation_id, "");
    assert_eq!(outbound.correlation_id, inbound.call_id);
    assert_eq!(
        Some(&outbound.call_id),
        invite.request.headers.call_id().ok().as_ref()
    );
    assert_eq!(outbound.remote_addr, "127.0.0.1:5070");
    assert_eq!(
        (inbound.local_ip.as_str(), inbound.remote_addr.as_str()),
        ("127.0.0.1", "127.0.0.1:5080")
    );
    assert_eq!(
        (inbound.codec.as_str(), inbound.tenant_id.as_str()),
        ("PCMU", "acme")
    );
    assert_eq!(
        (inbound.scenario.as_str(), outbound.scenario.as_str()),
        ("", "")
    );
    assert_eq!(inbound.call, stage.world.only_call().id);
    assert!(inbound.started_at < outbound.started_at + Duration::from_secs(1));
}

#[test]
fn on_bridge_started_fires_with_both_call_ids_once_media_is_confirmed() {
    let mut stage = stage(ROUTE);
    let (_, invite) = stage.ring();
    stage.respond(&invite, 180);
    assert_eq!(stage.diary.count("bridge"), 0);
    stage.respond(&invite, 200);
    stage.diary.wait("bridge", 1);
    let ids = (
        &stage.world.alice.call_id,
        invite.request.headers.call_id().unwrap(),
    );
    stage.diary.wait(&format!("bridge {} {}", ids.0, ids.1), 1);
}

#[test]
fn on_bye_fires_once_for_each_established_leg_after_the_recording_was_finished() {
    let mut stage = stage(ROUTE);
    stage.establish();
    stage.run(3000);
    stage.bye();
    stage.diary.wait("bye", 2);
    let inbound = stage.world.alice.call_id.clone();
    let lines = stage.diary.lines();
    let at = |line: &str| lines.iter().position(|one| one == line);
    let finish = at(&format!("finish {inbound}")).expect("finished");
    assert!(finish < at(&format!("bye inbound {inbound}")).expect("told"));
    let hangups = stage.diary.hangups.lock().unwrap().clone();
    for hangup in &hangups {
        assert_eq!(hangup.initiator, HangupInitiator::Remote);
        assert_eq!(hangup.sip_code, 200);
        assert!(
            (3.0..4.0).contains(&hangup.duration.as_secs_f64()),
            "{hangup:?}"
        );
    }
    assert_eq!(stage.diary.count("failed"), 0);
    assert_eq!(stage.diary.count("finish"), 1);
}

#[test]
fn a_hangup_of_ours_is_local_with_its_reason() {
    let mut stage = stage(&format!("{ROUTE}duration_max_s = 2\n"));
    stage.establish();
    stage.run(3000);
    stage.place.flush();
    stage.diary.wait("bye", 2);
    for hangup in stage.diary.hangups.lock().unwrap().iter() {
        assert_eq!(hangup.initiator, HangupInitiator::Local);
        assert!(hangup.reason.contains("longest duration"), "{hangup:?}");
    }
}

#[test]
fn on_failed_fires_once_for_each_leg_that_was_never_established() {
    let mut stage = stage("[[route]]\nnext = [\"sip:127.0.0.1:5070\", \"sip:127.0.0.1:5071\"]\n");
    let (_, invite) = stage.ring();
    stage.respond(&invite, 503);
    let second = stage.world.carol.take_invite().unwrap();
    let now = stage.world.now();
    stage.world.carol.respond(&second, 486, None, now);
    stage.run(500);
    stage.place.flush();
    stage.diary.wait("failed", 3);
    let mut failed = stage.diary.lines();
    failed.retain(|line| line.starts_with("failed"));
    failed.sort();
    assert_eq!(
        failed,
        [
            "failed inbound 486",
            "failed outbound 486",
            "failed outbound 503"
        ]
    );
    assert_eq!(
        stage.diary.count("bye") + stage.diary.count("established"),
        0
    );
    let hangups = stage.diary.hangups.lock().unwrap().clone();
    assert!(hangups.iter().all(|one| one.duration.is_zero()));
}

#[test]
fn begin_recording_fires_at_the_answer_and_at_a_later_start() {
    let mut stage = stage(ROUTE);
    let (_, invite) = stage.ring();
    stage.respond(&invite, 180);
    assert_eq!(stage.diary.count("begin"), 0);
    stage.respond(&invite, 200);
    stage.diary.wait("begin inbound 8000 PCMU", 1);
    let id = stage.world.only_call().id;
    stage.world.act(&id, RecordingAction::Stop).unwrap();
    stage.run(100);
    stage.diary.wait("finish", 1);
    stage.world.act(&id, RecordingAction::Start).unwrap();
    stage.run(100);
    stage.diary.wait("begin inbound 8000 PCMU", 2);
}

#[test]
fn a_finish_that_fails_is_a_dead_letter_and_on_bye_still_fires() {
    let diary = Diary {
        fails_to_finish: true,
        ..Diary::default()
    };
    let mut stage = stage_with(ROUTE, diary);
    stage.establish();
    stage.bye();
    stage.diary.wait("bye", 2);
    assert_eq!(stage.diary.count("finish"), 1);
    let counts = stage.place.callbacks.counts();
    let dead: u64 = counts.iter().map(|one| one.dead).sum();
    assert_eq!(dead, 1, "{counts:?}");
}

#[test]
fn ends_that_nobody_was_told_of_are_told_by_the_next_process_once() {
    let Stage {
        mut world,
        place,
        folder,
        ..
    } = stage(ROUTE);
    drop(place);
    // Sinks of that name are known, but the process dies before they are told.
    {
        let deaf = Arc::new(Deaf::default());
        let guard = deaf.0.lock().unwrap();
        let mut registry = Registry::empty();
        registry.add_lifecycle("diary", deaf.clone()).unwrap();
        let place = Place::with(folder.path(), registry);
        world.establish();
        world.alice.bye(world.now());
        world.run(500);
        place.take(&mut world);
        place.flush();
        std::mem::forget(place);
        std::mem::forget(guard);
    }
    let diary = Arc::new(Diary::default());
    let place = Place::open(folder.path(), &diary);
    diary.wait("bye", 2);
    place.flush();
    drop(place);
    let again = Arc::new(Diary::default());
    let place = Place::open(folder.path(), &again);
    std::thread::sleep(Duration::from_millis(300));
    drop(place);
    assert!(again.lines().is_empty(), "{:?}", again.lines());
}

/// Never comes back from its first callback.
#[derive(Default)]
struct Deaf(Mutex<()>);

impl LifecycleSink for Deaf {
    fn on_ringing(&self, _meta: &CallMeta) {
        drop(self.0.lock());
    }

    fn on_established(&self, _meta: &CallMeta) {
        drop(self.0.lock());
    }
}

#[test]
fn a_call_that_ended_while_we_were_down_ends_as_unknown() {
    let mut stage = stage(ROUTE);
    stage.establish();
    stage.place.flush();
    stage.diary.wait("established", 2);
    let Stage {
        world,
        place,
        diary,
        folder,
    } = stage;
    drop(place);
    let place = Place::open(folder.path(), &diary);
    assert_eq!(place.left.len(), 2, "both legs are open");
    for mut one in place.left.clone() {
        end_orphan(&mut one, None, &[], world.moment().utc);
        place.cdrs.handle().write(one);
    }
    place.flush();
    diary.wait("bye", 2);
    for hangup in diary.hangups.lock().unwrap().iter() {
        assert_eq!(hangup.initiator, HangupInitiator::Unknown);
    }
}

#[test]
fn sinks_that_block_and_panic_harm_no_call_and_no_other_sink() {
    struct Panicking;
    impl LifecycleSink for Panicking {
        fn on_established(&self, _meta: &CallMeta) {
            panic!("established");
        }
        fn on_bye(&self, _meta: &CallMeta, _hangup: &HangupMeta, _recording: &RecordingArtifact) {
            panic!("bye");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let (diary, deaf) = (Arc::new(Diary::default()), Arc::new(Deaf::default()));
    let guard = deaf.0.lock().unwrap();
    let mut registry = Registry::empty();
    registry.add_lifecycle("deaf", deaf.clone()).unwrap();
    registry
        .add_lifecycle("panicking", Arc::new(Panicking))
        .unwrap();
    registry.add_lifecycle("diary", diary.clone()).unwrap();
    let mut stage = Stage {
        world: World::new(ROUTE),
        place: Place::with(folder.path(), registry),
        diary,
        folder,
    };
    stage.establish();
    stage.bye();
    stage.diary.wait("bye", 2);
    assert!(stage.world.b2bua.is_idle());
    let counts = stage.place.callbacks.counts();
    let of = |name: &str| counts.iter().find(|one| one.sink == name).unwrap();
    assert_eq!(of("lifecycle:diary").delivered, 2);
    assert_eq!(of("lifecycle:deaf").delivered, 0);
    drop(guard);
}
