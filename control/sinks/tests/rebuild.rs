//! The catalog from segments alone, and the end of what nobody ended.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use support::{Script, write_segment};
use trunkline_sinks::Timestamp;
use trunkline_sinks::catalog::{
    CallFilter, Catalog, CatalogThread, Decision, Mark, OutboxSinks, RecordingFilter, Storage,
    adopt, rebuild, settle,
};
use trunkline_sinks::object::{CallState, EndedBy, RecordingState, Role, Verdict};
use trunkline_sn3::Keys;

const START: Timestamp = Timestamp(1_795_253_400_000);

struct Place {
    folder: tempfile::TempDir,
    catalog: Catalog,
}

impl Place {
    fn new(scripts: &[&[Script]]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let segments = folder.path().join("segments");
        for script in scripts {
            write_segment(&segments, script);
        }
        let catalog = Catalog::open(&folder.path().join("catalog.sqlite"))
            .unwrap()
            .0;
        Self { folder, catalog }
    }

    fn segments(&self) -> std::path::PathBuf {
        self.folder.path().join("segments")
    }
}

#[test]
fn everything_that_was_recorded_is_listed_again() {
    let first = Script::new(7, START, 300);
    let mut second = Script::new(8, Timestamp(START.0 + 5000), 10);
    second.call_id.clone_from(&first.call_id);
    let third = Script::new(9, Timestamp(START.0 + 9000), 10);
    let mut place = Place::new(&[&[first.clone(), second.clone()], &[third]]);
    let segments = place.segments();
    let report = rebuild(&mut place.catalog, &segments, &Keys::none()).unwrap();
    assert_eq!(
        (report.segments, report.recordings, report.calls),
        (2, 3, 2)
    );
    assert_eq!(report.damages, Vec::<String>::new());

    let found = place
        .catalog
        .recording(&first.recording_id)
        .unwrap()
        .unwrap();
    assert_eq!(found.storage.number, 7);
    assert!(
        found.storage.extents > 5 && found.storage.bytes > 90_000,
        "{:?}",
        found.storage
    );
    let recording = found.recording;
    assert_eq!(
        (recording.state, recording.verdict),
        (RecordingState::Complete, Some(Verdict::Complete))
    );
    assert_eq!((recording.started_at, recording.duration_ms), (START, 6000));
    assert_eq!(recording.participants[1].role, Role::Callee);
    let receipt = recording.receipt.unwrap();
    assert_eq!(receipt.caller.written, 300);
    let head = receipt
        .chain
        .expect("the last extent has the chain's head")
        .head;
    assert_eq!(
        (head.len(), head.contains(|c: char| !c.is_ascii_hexdigit())),
        (64, false)
    );
    assert_eq!(recording.sip_call_ids, ["a7@test", "b7@test"]);
    assert_eq!(recording.attributes["queue"], "sales");

    let call = place.catalog.call(&first.call_id).unwrap().unwrap();
    assert_eq!(
        call.recordings,
        [first.recording_id.clone(), second.recording_id]
    );
    assert_eq!(
        (call.state, call.ended_by),
        (CallState::Ended, Some(EndedBy::Callee))
    );
    assert_eq!(call.answered_at, Some(START));
    assert_eq!(call.caller_uri, "sip:alice@192.0.2.1");
    let by_party = RecordingFilter {
        party: Some("+493".into()),
        ..RecordingFilter::default()
    };
    assert_eq!(
        place
            .catalog
            .list_recordings(&by_party, None, 10)
            .unwrap()
            .items
            .len(),
        3
    );
}

#[test]
fn a_recording_that_nobody_closed_becomes_partial_with_a_receipt_that_adds_up() {
    let mut cut = Script::new(3, START, 200);
    cut.closed = false;
    cut.lost = vec![50, 51, 52];
    let live = Script {
        number: 4,
        closed: false,
        ..Script::new(4, START, 5)
    };
    let mut place = Place::new(&[&[cut.clone(), live.clone()]]);
    let segments = place.segments();
    rebuild(&mut place.catalog, &segments, &Keys::none()).unwrap();
    let unfinished = place.catalog.unfinished_recordings().unwrap();
    assert_eq!(unfinished.len(), 2);

    let live_calls = BTreeSet::from([live.call_id.clone()]);
    let settled = settle(
        &mut place.catalog,
        &segments,
        &BTreeSet::from([4]),
        &live_calls,
        &Keys::none(),
    )
    .unwrap();
    assert_eq!(settled.len(), 1);
    let recording = &settled[0].recording;
    assert_eq!(recording.id, cut.recording_id);
    assert_eq!(
        (recording.state, recording.verdict),
        (RecordingState::Partial, Some(Verdict::Partial))
    );
    assert_eq!(recording.duration_ms, 199 * 20);
    let receipt = recording.receipt.as_ref().unwrap();
    assert_eq!(
        (
            receipt.caller.expected,
            receipt.caller.written,
            receipt.caller.lost
        ),
        (200, 197, 3)
    );
    assert_eq!(receipt.callee.written, 200);
    let call = place.catalog.call(&cut.call_id).unwrap().unwrap();
    assert_eq!(
        (call.state, call.ended_by),
        (CallState::Ended, Some(EndedBy::Unknown))
    );
    assert_eq!(call.ended_at, recording.ended_at);
    let call = place.catalog.call(&live.call_id).unwrap().unwrap();
    assert_eq!(call.state, CallState::Active, "still live");
}

#[test]
fn a_recording_of_which_nothing_was_kept_has_failed() {
    let lost = Script::new(5, START, 1);
    let mut place = Place::new(&[&[lost]]);
    let segments = place.segments();
    rebuild(&mut place.catalog, &segments, &Keys::none()).unwrap();
    let mut recording = place
        .catalog
        .list_recordings(&RecordingFilter::default(), None, 1)
        .unwrap()
        .items
        .remove(0);
    recording.id = trunkline_sinks::object::new_id();
    recording.state = RecordingState::Recording;
    let nowhere = Storage {
        number: 6,
        ..Storage::default()
    };
    place.catalog.put_recording(&recording, &nowhere).unwrap();
    let settled = settle(
        &mut place.catalog,
        &segments,
        &BTreeSet::new(),
        &BTreeSet::new(),
        &Keys::none(),
    )
    .unwrap();
    assert_eq!(settled.len(), 1);
    assert_eq!(settled[0].recording.state, RecordingState::Failed);
}

#[test]
fn no_segments_and_foreign_files_are_no_error() {
    let mut place = Place::new(&[]);
    let segments = place.segments();
    assert_eq!(
        rebuild(&mut place.catalog, &segments, &Keys::none())
            .unwrap()
            .recordings,
        0
    );
    std::fs::create_dir_all(&segments).unwrap();
    std::fs::write(segments.join("w0-00000001.sn3s"), b"garbage").unwrap();
    std::fs::write(segments.join("notes.txt"), b"hello").unwrap();
    let report = rebuild(&mut place.catalog, &segments, &Keys::none()).unwrap();
    assert_eq!(
        (report.segments, report.recordings, report.damages.len()),
        (0, 0, 1)
    );
    assert!(
        place
            .catalog
            .list_calls(&CallFilter::default(), None, 10)
            .unwrap()
            .items
            .is_empty()
    );
}

#[test]
fn what_was_decided_outlasts_the_catalog_and_a_torn_journal() {
    let scripts = [Script::new(7, START, 50), Script::new(8, START, 50)];
    let mut place = Place::new(&[&scripts]);
    let [gone, kept] = [&scripts[0].recording_id, &scripts[1].recording_id];
    let segments = place.segments();
    rebuild(&mut place.catalog, &segments, &Keys::none()).unwrap();
    let path = place.folder.path().join("catalog.sqlite");
    let stored = place.catalog.recording(gone).unwrap().unwrap();
    let thread = CatalogThread::start(place.catalog, path.clone()).unwrap();
    let handle = thread.handle();
    let colour = BTreeMap::from([("colour".to_owned(), Some("red".to_owned()))]);
    for mark in [Mark::Held(true), Mark::Attributes(colour)] {
        assert_eq!(handle.decide(kept, mark).unwrap(), Decision::Done);
    }
    let delete = |id: &str| {
        Mark::Deleted(
            7,
            Box::new(handle.recording(id).unwrap().unwrap().recording),
        )
    };
    assert_eq!(handle.decide(kept, delete(kept)).unwrap(), Decision::Held);
    assert_eq!(handle.decide(gone, delete(gone)).unwrap(), Decision::Done);
    assert_eq!(
        handle.decide(gone, delete(gone)).unwrap(),
        Decision::Deleted
    );
    drop(thread);

    // Killed before it was erased, while another mark was being written; the catalog is lost too.
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(place.folder.path().join(format!("catalog.sqlite{suffix}")));
    }
    let journal = place.folder.path().join("marks.jsonl");
    let whole = std::fs::read(&journal).unwrap();
    std::fs::write(&journal, [&whole[..], b"{\"recording\":\"x"].concat()).unwrap();
    let mut catalog = Catalog::open(&path).unwrap().0;
    rebuild(&mut catalog, &segments, &Keys::none()).unwrap();
    let thread = CatalogThread::start(catalog, path.clone()).unwrap();
    assert_eq!(std::fs::read(&journal).unwrap(), whole);
    assert_eq!(thread.handle().erase_deleted(&segments).unwrap(), 1);
    assert_eq!(thread.handle().erase_deleted(&segments).unwrap(), 0);
    drop(thread);

    // Once more without a catalog: nothing in the segments speaks of the deleted one any more.
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(place.folder.path().join(format!("catalog.sqlite{suffix}")));
    }
    let mut catalog = Catalog::open(&path).unwrap().0;
    rebuild(&mut catalog, &segments, &Keys::none()).unwrap();
    let thread = CatalogThread::start(catalog, path).unwrap();
    let found = thread.handle().recording(gone).unwrap().unwrap();
    assert_eq!(found.recording.state, RecordingState::Deleted);
    assert_eq!(found.recording.receipt, stored.recording.receipt);
    assert_eq!(found.recording.participants, stored.recording.participants);
    let filter = RecordingFilter {
        attributes: BTreeMap::from([("colour".to_owned(), "red".to_owned())]),
        ..RecordingFilter::default()
    };
    let listed = thread.handle().list_recordings(&filter, None, 10).unwrap();
    assert_eq!(listed.items.len(), 1);
    assert_eq!((&listed.items[0].id, listed.items[0].held), (kept, true));
}

#[test]
fn what_a_power_cut_took_of_the_catalog_comes_back_from_segments() {
    let mut cut = Script::new(8, START, 50);
    cut.closed = false;
    let scripts = [
        Script::new(7, START, 50),
        cut,
        Script::new(9, START, 50),
        Script::new(10, START, 50),
    ];
    let mut place = Place::new(&[&scripts]);
    let segments = place.segments();
    rebuild(&mut place.catalog, &segments, &Keys::none()).unwrap();
    let before = place.catalog.recording(&scripts[2].recording_id).unwrap();
    let path = place.folder.path().join("catalog.sqlite");
    let connection = rusqlite::Connection::open(path).unwrap();
    for table in ["recordings", "calls"] {
        let lost = format!("DELETE FROM {table} WHERE {table}.id <> ?1");
        let kept = match table {
            "recordings" => &scripts[0].recording_id,
            _ => &scripts[0].call_id,
        };
        connection.execute(&lost, [kept]).unwrap();
    }
    place.catalog.set_sinks(OutboxSinks {
        recording: vec!["recording:archive".to_owned()],
        ..OutboxSinks::default()
    });
    // The fourth is one of ours, that goes on.
    let adopted = adopt(
        &mut place.catalog,
        &segments,
        &|number| number < 10,
        &BTreeSet::new(),
        &|recording| recording.held = recording.id == scripts[1].recording_id,
        &Keys::none(),
    )
    .unwrap();
    let ids: Vec<&str> = adopted.iter().map(|one| &*one.recording.id).collect();
    let expected = [&*scripts[1].recording_id, &*scripts[2].recording_id];
    assert_eq!(ids, expected);
    let partial = place.catalog.recording(expected[0]).unwrap().unwrap();
    assert_eq!(partial.recording.state, RecordingState::Partial);
    assert!(partial.recording.held, "as it was decided");
    assert_eq!(place.catalog.recording(expected[1]).unwrap(), before);
    for script in &scripts[..3] {
        let call = place.catalog.call(&script.call_id).unwrap().unwrap();
        assert!(call.state.is_final());
        assert_eq!(call.recordings, std::slice::from_ref(&script.recording_id));
    }
    let waiting: i64 = connection
        .query_row("SELECT count(*) FROM outbox", [], |row| row.get(0))
        .unwrap();
    assert_eq!(waiting, 2, "a sink gets them");
    let again = adopt(
        &mut place.catalog,
        &segments,
        &|number| number < 10,
        &BTreeSet::new(),
        &|_| {},
        &Keys::none(),
    );
    assert!(again.unwrap().is_empty());
}
