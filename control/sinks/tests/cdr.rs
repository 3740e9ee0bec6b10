//! Records on disk: numbered, put aside, found again after a crash, and in the catalog once.

use std::path::Path;
use std::time::Duration;
use trunkline_sinks::Timestamp;
use trunkline_sinks::catalog::{Catalog, CatalogThread, CdrFilter};
use trunkline_sinks::cdr::{Cdr, CdrSettings, CdrThread, Journal, RECORDS_FILE, RecordKind};
use trunkline_sinks::object::{EndedBy, new_id};

const PATIENCE: Duration = Duration::from_secs(20);

fn settings(rotate_bytes: u64) -> CdrSettings {
    CdrSettings {
        node: "edge-1".to_owned(),
        rotate_bytes,
        rotate_after: Duration::ZERO,
    }
}

fn open(directory: &Path, rotate_bytes: u64) -> (Journal, Vec<Cdr>) {
    Journal::open(directory, settings(rotate_bytes)).unwrap()
}

fn record(id: &str, kind: RecordKind) -> Cdr {
    Cdr {
        record: kind,
        id: id.to_owned(),
        call_id: format!("call of {id}"),
        sip_call_id: format!("{id}@host"),
        invited_at: Timestamp(1_700_000_000_000),
        ..Cdr::default()
    }
}

fn append(journal: &mut Journal, id: &str, kind: RecordKind) {
    journal.append(&mut [record(id, kind)]).unwrap();
}

/// All lines of all files that hold records, by name.
fn lines(directory: &Path) -> Vec<Cdr> {
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("cdr")
        })
        .collect();
    // cdr-… come before cdr.jsonl.
    files.sort_unstable();
    let texts = files
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap());
    texts
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .map(|line| serde_json::from_str(&line).unwrap())
        .collect()
}

#[test]
fn sequences_have_no_gap_over_rotation_and_restarts() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..6 {
        let (mut journal, _) = open(folder.path(), 5_000);
        for number in 0..20 {
            append(
                &mut journal,
                &format!("{round}-{number}"),
                RecordKind::Final,
            );
        }
    }
    let lines = lines(folder.path());
    let sequences: Vec<u64> = lines.iter().map(|line| line.sequence).collect();
    assert_eq!(sequences, (1..=120).collect::<Vec<u64>>());
    assert!(lines.iter().all(|line| line.node == "edge-1"));
    let files = std::fs::read_dir(folder.path()).unwrap().count();
    assert!(files > 5, "{files} files");
}

#[test]
fn open_legs_are_found_though_their_files_were_taken_away() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, left) = open(folder.path(), 3_000);
    assert!(left.is_empty());
    append(&mut journal, "long", RecordKind::Start);
    append(&mut journal, "long", RecordKind::Answer);
    for number in 0..20 {
        append(&mut journal, &number.to_string(), RecordKind::Start);
        append(&mut journal, &number.to_string(), RecordKind::Final);
    }
    append(&mut journal, "late", RecordKind::Start);
    let last = journal.sequence();
    drop(journal);
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path
            .file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with("cdr-")
        {
            std::fs::remove_file(path).unwrap();
        }
    }
    let (journal, left) = open(folder.path(), 3_000);
    let left: Vec<(&str, RecordKind)> = left
        .iter()
        .map(|one| (one.id.as_str(), one.record))
        .collect();
    assert_eq!(
        left,
        [("late", RecordKind::Start), ("long", RecordKind::Answer)]
    );
    assert_eq!(journal.sequence(), last);
}

#[test]
fn a_torn_line_is_cut_off_wherever_it_was_torn() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path(), 1 << 20);
    append(&mut journal, "a", RecordKind::Start);
    append(&mut journal, "a", RecordKind::Final);
    drop(journal);
    let path = folder.path().join(RECORDS_FILE);
    let whole = std::fs::read(&path).unwrap();
    let second = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for cut in [
        second,
        second + 1,
        (second + whole.len()) / 2,
        whole.len() - 1,
    ] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let (mut journal, left) = open(folder.path(), 1 << 20);
        assert_eq!(left.len(), 1, "cut at {cut}: the final record is not there");
        append(&mut journal, "a", RecordKind::Final);
        let kinds: Vec<(RecordKind, u64)> = lines(folder.path())
            .iter()
            .map(|line| (line.record, line.sequence))
            .collect();
        assert_eq!(kinds, [(RecordKind::Start, 1), (RecordKind::Final, 2)]);
    }
}

#[test]
fn final_records_enter_the_catalog_once_and_a_removed_one_is_filled_again() {
    let folder = tempfile::tempdir().unwrap();
    let (directory, path) = (
        folder.path().join("cdr"),
        folder.path().join("catalog.sqlite"),
    );
    let catalog = CatalogThread::start(Catalog::open(&path).unwrap().0, path.clone()).unwrap();
    let (journal, _) = open(&directory, 4_000);
    let thread = CdrThread::start(journal, catalog.handle()).unwrap();
    let ids: Vec<String> = (0..50).map(|_| new_id()).collect();
    for (number, id) in ids.iter().enumerate() {
        thread.handle().write(record(id, RecordKind::Start));
        thread.handle().write(Cdr {
            ended_by: Some(EndedBy::Caller),
            invited_at: Timestamp(1_700_000_000_000 + i64::try_from(number).unwrap()),
            ..record(id, RecordKind::Final)
        });
    }
    assert!(thread.handle().flush(PATIENCE));
    let all = CdrFilter::default();
    let page = catalog.handle().list_cdrs(&all, None, 20).unwrap();
    assert_eq!(
        (page.items.len(), page.items[0].id.as_str()),
        (20, ids[49].as_str())
    );
    let rest = catalog
        .handle()
        .list_cdrs(&all, page.next.as_ref(), 100)
        .unwrap();
    assert_eq!((rest.items.len(), rest.next), (30, None));
    let of = |call_id: &str| CdrFilter {
        call_id: Some(call_id.to_owned()),
        ..CdrFilter::default()
    };
    let found = catalog
        .handle()
        .list_cdrs(&of(&format!("{}@host", ids[7])), None, 10)
        .unwrap();
    assert_eq!(found.items.len(), 1);
    let filter = CdrFilter {
        from: Some(Timestamp(1_700_000_000_010)),
        to: Some(Timestamp(1_700_000_000_019)),
        ..CdrFilter::default()
    };
    assert_eq!(
        catalog
            .handle()
            .list_cdrs(&filter, None, 100)
            .unwrap()
            .items
            .len(),
        10
    );
    drop(thread);
    drop(catalog);

    for name in ["catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm"] {
        let _ = std::fs::remove_file(folder.path().join(name));
    }
    let (mut catalog, fresh) = Catalog::open(&path).unwrap();
    assert!(fresh);
    for _ in 0..2 {
        let (journal, left) = open(&directory, 4_000);
        assert!(left.is_empty());
        let mut missing = Vec::new();
        let known = catalog.cdr_sequence().unwrap();
        journal
            .finals_after(known, |one| missing.push(one))
            .unwrap();
        catalog.put_cdrs(&missing).unwrap();
        assert_eq!(catalog.list_cdrs(&all, None, 100).unwrap().items.len(), 50);
    }
    assert_eq!(catalog.cdr_sequence().unwrap(), 100);
}
