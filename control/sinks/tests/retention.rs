//! What is deleted by age, by quota, for want of a keeper; and what the audit says of it all.

use std::path::Path;
use std::time::Duration;
use trunkline_hooks::{Outbox, RecordingArtifact, RecordingRef, RecordingResult};
use trunkline_sinks::Timestamp;
use trunkline_sinks::catalog::{
    Catalog, CatalogHandle, CatalogOutbox, CatalogThread, Decision, Mark, Ordered, OutboxSinks,
    RetentionRule, RetentionRules, Storage,
};
use trunkline_sinks::object::{Call, Recording, RecordingState, new_id};

const DAY_MS: i64 = 86_400_000;
const PATIENCE: Duration = Duration::from_secs(20);

struct Place {
    folder: tempfile::TempDir,
    thread: Option<CatalogThread>,
}

impl Place {
    fn new() -> Self {
        let mut place = Self {
            folder: tempfile::tempdir().unwrap(),
            thread: None,
        };
        place.open();
        place
    }

    fn open(&mut self) {
        self.thread = None;
        let path = self.folder.path().join("catalog.sqlite");
        let (catalog, _) = Catalog::open(&path).unwrap();
        self.thread = Some(CatalogThread::start(catalog, path).unwrap());
    }

    fn catalog(&self) -> CatalogHandle {
        self.thread.as_ref().unwrap().handle()
    }

    /// A finished recording of 1000 bytes that ended on this day.
    fn put(&self, number: u64, day: i64, kept: Option<bool>, verdict: &str) -> String {
        self.put_with(
            number,
            day,
            serde_json::json!({"kept": kept, "verdict": verdict}),
        )
    }

    /// One of a tenant and a class; empty = none.
    fn put_of(&self, number: u64, day: i64, tenant: &str, class: &str) -> String {
        let mut more = serde_json::json!({"verdict": "complete"});
        if !tenant.is_empty() {
            more["tenant"] = tenant.into();
        }
        if !class.is_empty() {
            more["attributes"] = serde_json::json!({"class": class});
        }
        self.put_with(number, day, more)
    }

    fn put_with(&self, number: u64, day: i64, more: serde_json::Value) -> String {
        let at = Timestamp(day * DAY_MS);
        let mut body = serde_json::json!({
            "id": new_id(), "call_id": new_id(), "state": "complete", "started_at": at,
            "ended_at": at,
        });
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let recording: Recording = serde_json::from_value(body).unwrap();
        let id = recording.id.clone();
        let storage = Storage {
            number,
            bytes: 1000,
            ..Storage::default()
        };
        assert!(self.catalog().put_recording(recording, storage));
        assert!(self.catalog().flush(PATIENCE));
        id
    }

    fn state(&self, id: &str) -> RecordingState {
        self.catalog()
            .recording(id)
            .unwrap()
            .unwrap()
            .recording
            .state
    }
}

fn now() -> Timestamp {
    Timestamp(100 * DAY_MS)
}

#[test]
fn what_is_old_goes_and_what_is_held_stays() {
    let mut place = Place::new();
    let ids: Vec<String> = (0..5)
        .map(|n| place.put(n + 1, 10 * n as i64 + 50, None, "complete"))
        .collect();
    let catalog = place.catalog();
    catalog.decide(&ids[1], Mark::Held(true)).unwrap();
    let rules = RetentionRules {
        keep_ms: Some(25 * DAY_MS as u64),
        ..RetentionRules::default()
    };
    assert_eq!(
        catalog.expire(&RetentionRules::default(), now()).unwrap(),
        Vec::<String>::new()
    );
    assert_eq!(
        catalog.expire(&rules, now()).unwrap(),
        [ids[0].clone(), ids[2].clone()]
    );
    assert!(catalog.flush(PATIENCE));
    assert_eq!(catalog.expire(&rules, now()).unwrap(), Vec::<String>::new());
    place.open();
    let states = ids
        .iter()
        .map(|id| place.state(id).name())
        .collect::<Vec<_>>();
    assert_eq!(
        states,
        ["deleted", "complete", "deleted", "complete", "complete"]
    );
}

#[test]
fn the_oldest_go_until_the_quota_holds() {
    let place = Place::new();
    let ids: Vec<String> = (0..6)
        .map(|n| place.put(n + 1, 90 + n as i64, None, "complete"))
        .collect();
    let catalog = place.catalog();
    catalog.decide(&ids[0], Mark::Held(true)).unwrap();
    let rules = RetentionRules {
        quota_bytes: Some(4_500),
        ..RetentionRules::default()
    };
    assert_eq!(
        catalog.expire(&rules, now()).unwrap(),
        [ids[1].clone(), ids[2].clone()]
    );
    assert!(catalog.flush(PATIENCE));
    assert_eq!(catalog.expire(&rules, now()).unwrap(), Vec::<String>::new());
}

#[test]
fn the_first_rule_that_fits_decides() {
    let place = Place::new();
    let days = |days: u64| Some(days * DAY_MS as u64);
    let rule = |tenant: &str, class: &str, keep_ms, quota_bytes| RetentionRule {
        tenant: (!tenant.is_empty()).then(|| tenant.to_owned()),
        class: (!class.is_empty()).then(|| class.to_owned()),
        keep_ms,
        quota_bytes,
    };
    let rules = RetentionRules {
        rules: vec![
            rule("acme", "mifid", None, None),
            rule("", "mifid", days(50), None),
            rule("acme", "", None, Some(1_500)),
        ],
        keep_ms: days(20),
        ..RetentionRules::default()
    };
    let forever = place.put_of(1, 1, "acme", "mifid");
    let too_old = place.put_of(2, 40, "other", "mifid");
    let young = place.put_of(3, 60, "", "mifid");
    let over = place.put_of(4, 70, "acme", "");
    let within = place.put_of(5, 71, "acme", "sales");
    let default_old = place.put_of(6, 75, "", "");
    let default_old_too = place.put_of(7, 76, "other", "sales");
    let default_young = place.put_of(8, 90, "", "");
    let deleted = place.catalog().expire(&rules, now()).unwrap();
    assert_eq!(deleted, [too_old, over, default_old, default_old_too]);
    for id in [&forever, &young, &within, &default_young] {
        assert_eq!(place.state(id), RecordingState::Complete);
    }
    // The class may be given or changed later.
    let reclassified = Mark::Attributes([("class".to_owned(), Some("mifid".to_owned()))].into());
    place.catalog().decide(&within, reclassified).unwrap();
    assert!(place.catalog().flush(PATIENCE));
    let all = RetentionRules {
        quota_bytes: Some(3_500),
        ..rules
    };
    let deleted = place.catalog().expire(&all, now()).unwrap();
    assert_eq!(deleted, [forever], "the quota of all knows no tenant");
}

#[test]
fn what_a_sink_has_not_got_yet_is_not_deleted() {
    let mut place = Place::new();
    place.thread = None;
    let path = place.folder.path().join("catalog.sqlite");
    let (mut catalog, _) = Catalog::open(&path).unwrap();
    let keeper = "recording:archive".to_owned();
    catalog.set_sinks(OutboxSinks {
        lifecycle: Vec::new(),
        recording: vec![keeper.clone(), "recording:crm".to_owned()],
    });
    place.thread = Some(CatalogThread::start(catalog, path.clone()).unwrap());
    let id = place.put(1, 10, None, "complete");
    let rules = RetentionRules {
        keep_ms: Some(DAY_MS as u64),
        quota_bytes: Some(500),
        keepers: vec![keeper.clone()],
        ..RetentionRules::default()
    };
    let catalog = place.catalog();
    assert!(catalog.expire(&rules, now()).unwrap().is_empty(), "waiting");
    let make =
        Box::new(|recording: &RecordingRef| Ok(RecordingArtifact::without_payload(recording)));
    let outbox = CatalogOutbox::new(&path, Duration::ZERO, make);
    let item = outbox.pending(&keeper, 10).unwrap().remove(0);
    outbox.dead(item.id, "the bucket is gone").unwrap();
    assert!(
        catalog.expire(&rules, now()).unwrap().is_empty(),
        "a dead letter"
    );
    assert_eq!(catalog.deliver_again(item.id).unwrap(), Ordered::Done);
    let item = outbox.pending(&keeper, 10).unwrap().remove(0);
    let result = RecordingResult::default();
    outbox.delivered(item.id, Some(&result)).unwrap();
    assert_eq!(
        catalog.expire(&rules, now()).unwrap(),
        [id],
        "whoever else waits"
    );
}

#[test]
fn what_nobody_asked_to_keep_is_discarded() {
    let place = Place::new();
    let unkept = place.put(1, 99, Some(false), "complete");
    let kept = place.put(2, 99, Some(true), "complete");
    let plain = place.put(3, 99, None, "complete");
    let catalog = place.catalog();
    assert_eq!(catalog.discard_unkept().unwrap(), 1);
    assert!(catalog.flush(PATIENCE));
    assert_eq!(catalog.discard_unkept().unwrap(), 0);
    let states = [unkept, kept, plain].map(|id| place.state(&id).name());
    assert_eq!(states, ["deleted", "complete", "complete"]);
}

#[test]
fn the_audit_lists_every_call_that_lacks_a_complete_recording() {
    let place = Place::new();
    let good = place.put(1, 50, None, "complete");
    let half = place.put(2, 50, None, "one_way");
    let catalog = place.catalog();
    let call = |hour: i64, state: &str, expected: bool, recordings: &[&String]| {
        let body = serde_json::json!({
            "id": new_id(), "state": state, "started_at": Timestamp(50 * DAY_MS + hour * 3_600_000),
            "recordings": recordings, "recording_expected": expected,
        });
        let call: Call = serde_json::from_value(body).unwrap();
        let id = call.id.clone();
        assert!(catalog.put_call(call));
        id
    };
    call(1, "ended", true, &[&good]);
    let one_way = call(2, "ended", true, &[&good, &half]);
    let bare = call(3, "ended", true, &[]);
    call(4, "ended", false, &[]);
    call(5, "active", true, &[]);
    call(30, "ended", true, &[]);
    assert!(catalog.flush(PATIENCE));
    let audit = catalog
        .audit(Timestamp(50 * DAY_MS), Timestamp(51 * DAY_MS))
        .unwrap();
    assert_eq!((audit.expected, audit.complete, audit.pending), (4, 1, 1));
    let listed: Vec<_> = audit
        .exceptions
        .iter()
        .map(|one| {
            (
                one.call_id.clone(),
                one.recording_id.clone(),
                one.why.as_str(),
            )
        })
        .collect();
    assert_eq!(
        listed,
        [
            (one_way, Some(half.clone()), "one_way"),
            (bare, None, "no recording")
        ]
    );
    // A deletion is no exception, whatever was deleted stays judged.
    let stored = catalog.recording(&good).unwrap().unwrap();
    let mark = Mark::Deleted(1, Box::new(stored.recording));
    assert_eq!(catalog.decide(&good, mark).unwrap(), Decision::Done);
    assert!(catalog.flush(PATIENCE));
    let again = catalog
        .audit(Timestamp(50 * DAY_MS), Timestamp(51 * DAY_MS))
        .unwrap();
    assert_eq!(again.exceptions, audit.exceptions);
}

fn lines(folder: &Path) -> usize {
    std::fs::read_to_string(folder.join("marks.jsonl"))
        .unwrap()
        .lines()
        .count()
}

#[test]
fn the_journal_of_decisions_is_compacted_and_still_says_the_same() {
    let mut place = Place::new();
    let id = place.put(1, 50, None, "complete");
    let held = place.put(2, 50, None, "complete");
    let catalog = place.catalog();
    catalog.decide(&held, Mark::Held(true)).unwrap();
    let path = place.folder.path().join("marks.jsonl");
    let line = std::fs::read_to_string(&path).unwrap();
    let more = line.replace(&held, &id) + &line.replace(&held, &id).replace("true", "false");
    place.thread = None;
    drop(catalog);
    std::fs::write(&path, line.clone() + &more.repeat(600)).unwrap();
    place.open();
    assert_eq!(lines(place.folder.path()), 1);
    let held_now = |id: &str| {
        place
            .catalog()
            .recording(id)
            .unwrap()
            .unwrap()
            .recording
            .held
    };
    assert_eq!((held_now(&id), held_now(&held)), (false, true));
    assert_eq!(
        place.catalog().decide(&id, Mark::Held(true)).unwrap(),
        Decision::Done
    );
    assert_eq!(lines(place.folder.path()), 2);
}

#[test]
fn a_hold_outlasts_the_journal_of_decisions() {
    let mut place = Place::new();
    let held = place.put(1, 50, None, "complete");
    let lifted = place.put(2, 50, None, "complete");
    let catalog = place.catalog();
    for id in [&held, &lifted] {
        catalog.decide(id, Mark::Held(true)).unwrap();
    }
    catalog.decide(&lifted, Mark::Held(false)).unwrap();
    assert!(catalog.flush(PATIENCE));
    drop(catalog);
    place.thread = None;
    std::fs::remove_file(place.folder.path().join("marks.jsonl")).unwrap();
    place.open();
    let rules = RetentionRules {
        keep_ms: Some(DAY_MS as u64),
        ..RetentionRules::default()
    };
    let catalog = place.catalog();
    assert_eq!(catalog.expire(&rules, now()).unwrap(), [lifted]);
    let stored = catalog.recording(&held).unwrap().unwrap();
    let mark = Mark::Deleted(1, Box::new(stored.recording));
    assert_eq!(catalog.decide(&held, mark).unwrap(), Decision::Held);
    assert_eq!(
        lines(place.folder.path()),
        2,
        "the hold is in the journal again"
    );
}

#[test]
fn a_clock_that_is_set_back_keeps_no_callback_waiting() {
    let mut place = Place::new();
    place.thread = None;
    let path = place.folder.path().join("catalog.sqlite");
    let (mut catalog, _) = Catalog::open(&path).unwrap();
    let sink = "recording:archive".to_owned();
    catalog.set_sinks(OutboxSinks {
        lifecycle: Vec::new(),
        recording: vec![sink.clone()],
    });
    place.thread = Some(CatalogThread::start(catalog, path.clone()).unwrap());
    for number in 1..=3 {
        place.put(number, 10, None, "complete");
    }
    let make =
        Box::new(|recording: &RecordingRef| Ok(RecordingArtifact::without_payload(recording)));
    let outbox = CatalogOutbox::new(&path, Duration::from_secs(30), make);
    let ids = |outbox: &CatalogOutbox| -> Vec<i64> {
        let items = outbox.pending(&sink, 10).unwrap();
        items.iter().map(|item| item.id).collect()
    };
    let all = ids(&outbox);
    assert_eq!(all.len(), 3);
    outbox
        .later(all[0], "down", Duration::from_secs(200))
        .unwrap();
    assert_eq!(ids(&outbox), all[1..], "put off");
    // As if it had been put off by a clock that was a year ahead.
    let year = Duration::from_secs(365 * 86_400);
    outbox.later(all[1], "down", year).unwrap();
    assert_eq!(ids(&outbox), [all[2], all[1]]);
}
