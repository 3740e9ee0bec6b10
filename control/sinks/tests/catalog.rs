//! The catalog as the API uses it: stored objects, filters, pages, and writes that wait.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use trunkline_sinks::Timestamp;
use trunkline_sinks::catalog::{
    CallFilter, Catalog, CatalogThread, Cursor, RecordingFilter, Storage,
};
use trunkline_sinks::object::{
    Call, CallState, Participant, Recording, RecordingState, Role, new_id,
};

const PATIENCE: Duration = Duration::from_secs(20);

fn call(started_ms: i64, state: CallState) -> Call {
    let body =
        serde_json::json!({ "id": new_id(), "state": state, "started_at": Timestamp(started_ms) });
    serde_json::from_value(body).unwrap()
}

fn recording(started_ms: i64, caller: &str, callee: &str) -> Recording {
    let party = |role, user: &str, channel| Participant {
        role,
        uri: format!("sip:{user}@192.0.2.1"),
        name: String::new(),
        from_ms: 0,
        to_ms: None,
        channel,
    };
    let body = serde_json::json!({
        "id": new_id(), "call_id": new_id(), "state": "complete", "started_at": Timestamp(started_ms),
    });
    let mut recording: Recording = serde_json::from_value(body).unwrap();
    recording.participants = vec![
        party(Role::Caller, caller, 0),
        party(Role::Callee, callee, 1),
    ];
    recording
}

fn storage(number: u64) -> Storage {
    Storage {
        number,
        last_segment: 1,
        last_page: 5,
        extents: 2,
        bytes: 32768,
    }
}

fn open(path: &Path) -> Catalog {
    Catalog::open(path).unwrap().0
}

fn ids(catalog: &Catalog, filter: &RecordingFilter) -> Vec<String> {
    let page = catalog.list_recordings(filter, None, 1000).unwrap();
    page.items
        .into_iter()
        .map(|recording| recording.id)
        .collect()
}

#[test]
fn objects_come_back_as_they_were_stored() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data/catalog.sqlite");
    let (mut catalog, fresh) = Catalog::open(&path).unwrap();
    assert!(fresh);
    let mut stored = call(1000, CallState::Active);
    stored
        .attributes
        .insert("queue".into(), "sales \u{1f389}".into());
    catalog.put_call(&stored).unwrap();
    let one = recording(1000, "alice", "bob");
    catalog.put_recording(&one, &storage(u64::MAX)).unwrap();
    drop(catalog);
    let (catalog, fresh) = Catalog::open(&path).unwrap();
    assert!(!fresh);
    assert_eq!(catalog.call(&stored.id).unwrap(), Some(stored));
    let found = catalog.recording(&one.id).unwrap().unwrap();
    assert_eq!((found.recording, found.storage), (one, storage(u64::MAX)));
    assert_eq!(catalog.recording("nobody").unwrap(), None);
}

#[test]
fn every_filter_narrows_and_all_together() {
    let folder = tempfile::tempdir().unwrap();
    let mut catalog = open(&folder.path().join("catalog.sqlite"));
    let mut first = recording(1000, "+4930123", "bob");
    first.sip_call_ids = vec!["a@host".into(), "b@host".into()];
    first.session_id = Some("5e551011".into());
    first.tenant = Some("acme".into());
    first.attributes =
        BTreeMap::from([("queue".into(), "sales".into()), ("vip".into(), "1".into())]);
    let mut second = recording(2000, "+4940999", "bob%_");
    second.state = RecordingState::Partial;
    catalog.put_recording(&first, &storage(1)).unwrap();
    catalog.put_recording(&second, &storage(2)).unwrap();
    let found = |filter: RecordingFilter| ids(&catalog, &filter);
    let any = RecordingFilter::default;
    assert_eq!(
        found(any()),
        [second.id.clone(), first.id.clone()],
        "newest first"
    );
    let only = |id: &Recording| vec![id.id.clone()];
    assert_eq!(
        found(RecordingFilter {
            from: Some(Timestamp(1001)),
            ..any()
        }),
        only(&second)
    );
    assert_eq!(
        found(RecordingFilter {
            to: Some(Timestamp(1000)),
            ..any()
        }),
        only(&first)
    );
    assert_eq!(
        found(RecordingFilter {
            party: Some("+4930".into()),
            ..any()
        }),
        only(&first)
    );
    assert_eq!(
        found(RecordingFilter {
            party: Some("+49".into()),
            ..any()
        })
        .len(),
        2
    );
    assert_eq!(
        found(RecordingFilter {
            party: Some("bob%".into()),
            ..any()
        }),
        only(&second)
    );
    assert_eq!(
        found(RecordingFilter {
            party: Some("30".into()),
            ..any()
        })
        .len(),
        0
    );
    for id in ["a@host", "b@host", "5e551011"] {
        assert_eq!(
            found(RecordingFilter {
                call_id: Some(id.into()),
                ..any()
            }),
            only(&first)
        );
    }
    assert_eq!(
        found(RecordingFilter {
            call_id: Some("a@hos".into()),
            ..any()
        })
        .len(),
        0
    );
    assert_eq!(
        found(RecordingFilter {
            tenant: Some("acme".into()),
            ..any()
        }),
        only(&first)
    );
    assert_eq!(
        found(RecordingFilter {
            state: Some(RecordingState::Partial),
            ..any()
        }),
        only(&second)
    );
    let attributes = BTreeMap::from([("queue".into(), "sales".into()), ("vip".into(), "1".into())]);
    assert_eq!(
        found(RecordingFilter {
            attributes,
            ..any()
        }),
        only(&first)
    );
    let attributes = BTreeMap::from([("queue".into(), "sales".into()), ("vip".into(), "2".into())]);
    assert_eq!(
        found(RecordingFilter {
            attributes,
            ..any()
        })
        .len(),
        0
    );
}

#[test]
fn what_is_stored_again_leaves_nothing_of_the_old_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut catalog = open(&folder.path().join("catalog.sqlite"));
    let mut one = recording(1000, "alice", "bob");
    catalog.put_recording(&one, &storage(1)).unwrap();
    one.participants[1].uri = "sip:carol@192.0.2.1".into();
    catalog.put_recording(&one, &storage(1)).unwrap();
    let by_party = |user: &str| {
        ids(
            &catalog,
            &RecordingFilter {
                party: Some(user.into()),
                ..RecordingFilter::default()
            },
        )
        .len()
    };
    assert_eq!(
        (by_party("bob"), by_party("carol"), by_party("alice")),
        (0, 1, 1)
    );
}

#[test]
fn pages_have_every_item_once_even_at_one_moment() {
    let folder = tempfile::tempdir().unwrap();
    let mut catalog = open(&folder.path().join("catalog.sqlite"));
    for number in 1..=23 {
        catalog
            .put_recording(
                &recording(1000 + number / 10, "a", "b"),
                &storage(number.cast_unsigned()),
            )
            .unwrap();
    }
    let all = ids(&catalog, &RecordingFilter::default());
    let mut paged = Vec::new();
    let mut cursor: Option<Cursor> = None;
    loop {
        let page = catalog
            .list_recordings(&RecordingFilter::default(), cursor.as_ref(), 5)
            .unwrap();
        assert!(page.items.len() <= 5);
        paged.extend(page.items.into_iter().map(|recording| recording.id));
        cursor = page.next.map(|next| next.to_string().parse().unwrap());
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(paged, all);
    let exact = catalog
        .list_recordings(&RecordingFilter::default(), None, 23)
        .unwrap();
    assert_eq!((exact.items.len(), exact.next), (23, None));
}

#[test]
fn a_catalog_that_cannot_be_read_is_put_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.sqlite");
    std::fs::write(&path, vec![0x5a; 9000]).unwrap();
    let (catalog, fresh) = Catalog::open(&path).unwrap();
    assert!(fresh);
    assert_eq!(ids(&catalog, &RecordingFilter::default()).len(), 0);
    let kept = std::fs::read_dir(folder.path()).unwrap().filter(|entry| {
        entry
            .as_ref()
            .unwrap()
            .file_name()
            .to_string_lossy()
            .contains(".old")
    });
    assert_eq!(kept.count(), 1);
}

#[test]
fn readers_see_what_was_written_before_it_is_committed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.sqlite");
    let thread = CatalogThread::start(open(&path), path.clone()).unwrap();
    let handle = thread.handle();
    let mut live = call(1000, CallState::Setup);
    let mut one = recording(1000, "alice", "bob");
    for round in 0..50 {
        live.state = if round % 2 == 0 {
            CallState::Active
        } else {
            CallState::Held
        };
        assert!(handle.put_call(live.clone()));
        assert_eq!(handle.call(&live.id).unwrap().unwrap().state, live.state);
        one.duration_ms = round;
        assert!(handle.put_recording(one.clone(), storage(1)));
        assert!(handle.put_storage(Storage {
            bytes: round,
            ..storage(1)
        }));
        let found = handle.recording(&one.id).unwrap().unwrap();
        assert_eq!(
            (found.recording.duration_ms, found.storage.bytes),
            (round, round)
        );
        let listed = handle
            .list_recordings(&RecordingFilter::default(), None, 10)
            .unwrap();
        assert_eq!(
            (listed.items.len(), listed.items[0].duration_ms),
            (1, round)
        );
    }
    live.state = CallState::Ended;
    handle.put_call(live.clone());
    let ended = CallFilter {
        states: vec![CallState::Ended, CallState::Failed],
    };
    assert_eq!(handle.list_calls(&ended, None, 10).unwrap().items.len(), 1);
    assert!(handle.flush(PATIENCE));
    let held = CallFilter {
        states: vec![CallState::Held],
    };
    assert_eq!(handle.list_calls(&held, None, 10).unwrap().items.len(), 0);
    drop(thread);
    let catalog = open(&path);
    assert_eq!(
        catalog.recording(&one.id).unwrap().unwrap().storage.bytes,
        49
    );
    assert_eq!(
        catalog.call(&live.id).unwrap().unwrap().state,
        CallState::Ended
    );
}

#[test]
fn writes_survive_a_catalog_that_is_locked_for_a_while() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.sqlite");
    let thread = CatalogThread::start(open(&path), path.clone()).unwrap();
    let handle = thread.handle();
    let blocker = rusqlite::Connection::open(&path).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    let stored: Vec<Call> = (0..100).map(|at| call(at, CallState::Ended)).collect();
    for call in &stored {
        assert!(handle.put_call(call.clone()));
    }
    assert!(!handle.flush(Duration::from_millis(200)));
    let first = handle.list_calls(&CallFilter::default(), None, 30).unwrap();
    assert_eq!(first.items.len(), 30);
    let rest = handle
        .list_calls(&CallFilter::default(), first.next.as_ref(), 1000)
        .unwrap();
    assert_eq!((rest.items.len(), rest.next), (70, None));
    blocker.execute_batch("COMMIT").unwrap();
    assert!(handle.flush(PATIENCE));
    drop(thread);
    let page = open(&path)
        .list_calls(&CallFilter::default(), None, 1000)
        .unwrap();
    assert_eq!(page.items.len(), 100);
}
