//! What we write, read by a program that was written from `docs/sn3.md` alone.

mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::{Item, ORIGIN, call, extents, one_segment};
use trunkline_sn3::cipher::MasterKey;
use trunkline_sn3::extent::Seal;
use trunkline_sn3::file::{DirectoryStore, Way};
use trunkline_sn3::keys::KeyWriter;
use trunkline_sn3::sim::SimDisk;
use trunkline_sn3::writer::SegmentWriter;
use trunkline_sn3::{Capture, Keys, chain};

const MASTER: [u8; 32] = [0x3c; 32];

/// The frames as the program prints them.
fn printed(items: &[Item]) -> String {
    let mut text = String::new();
    for Item { head, payload } in items {
        let fields = [
            u64::from(head.kind.number()),
            u64::from(head.side),
            u64::from(head.media),
            u64::from(head.ssrc),
            u64::from(head.pt),
            u64::from(head.marker),
            u64::from(head.flags),
            u64::from(head.seq),
            u64::from(head.seq_cycles),
            u64::from(head.rtp_ts),
            head.wall_ns,
        ];
        for field in fields {
            text += &format!("{field} ");
        }
        for byte in payload {
            text += &format!("{byte:02x}");
        }
        text += "\n";
    }
    text
}

fn read(arguments: &[&str]) -> Option<Output> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reader.py");
    let output = Command::new("python3")
        .arg(program)
        .args(arguments)
        .output();
    if output.is_err() {
        eprintln!("SKIPPED: python3 is not installed");
    }
    output.ok()
}

/// The program reads these frames and finds no damage.
fn reads(arguments: &[&str], items: &[Item]) {
    let Some(output) = read(arguments) else {
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    let frames = String::from_utf8_lossy(&output.stdout);
    let own = printed(items);
    for (theirs, ours) in frames.lines().zip(own.lines()) {
        assert_eq!(theirs, ours, "{arguments:?}");
    }
    assert_eq!(frames.lines().count(), items.len(), "{arguments:?}");
}

#[test]
fn recordings_are_read_from_finished_and_unfinished_segments() {
    for finished in [true, false] {
        let disk = SimDisk::new();
        let calls = [(3, call(120, 5)), (9, call(40, 6))];
        let mut builder = one_segment(&disk, &calls);
        if finished {
            builder.writer.finish(9).expect("finished");
        }
        let directory = tempfile::tempdir().expect("a directory");
        disk.save(directory.path()).expect("saved");
        let path = directory.path().to_str().expect("a name");
        for (recording, items) in &calls {
            reads(&["segments", path, &recording.to_string()], items);
        }
    }
}

#[test]
fn encrypted_recordings_are_read_with_the_key_file() {
    let items = call(120, 7);
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = DirectoryStore::new(directory.path(), Way::Buffered).expect("a directory");
    let mut writer = SegmentWriter::create(&mut store, &ORIGIN).expect("a segment");
    let master = Keys::new(vec![MasterKey::from_bytes(&MASTER)]);
    let mut keys = KeyWriter::new(directory.path(), master);
    let key = keys.key_of(5, false).expect("a key");
    keys.sync().expect("durable");
    let (mut link, mut place) = (chain::START, (0, 0));
    for (nonce, (extent, used)) in (77..).zip(extents(5, &items)) {
        let asked = Seal {
            used,
            prev_segment: place.0,
            prev_page: place.1,
            previous_link: Some(link),
            encryption: Some((&key, nonce)),
            ..Seal::default()
        };
        let staged = writer.stage(&extent, &asked).expect("an extent");
        link = staged.link.expect("chained");
        place = (writer.number(), staged.page);
    }
    writer.finish(9).expect("finished");
    let key_file = directory.path().join("master.key");
    let digits: String = MASTER.iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::write(&key_file, digits + "\n").expect("written");
    let path = directory.path().to_str().expect("a name");
    let key_file = key_file.to_str().expect("a name");
    reads(&["segments", path, "5", key_file], &items);
}

#[test]
fn exported_calls_are_read() {
    let disk = SimDisk::new();
    let items = call(120, 8);
    let mut builder = one_segment(&disk, &[(3, items.clone())]);
    builder.writer.finish(9).expect("finished");
    let directory = tempfile::tempdir().expect("a directory");
    disk.save(directory.path()).expect("saved");
    let capture = Capture::open_in_directory(directory.path(), 3, None).expect("a recording");
    let path = directory.path().join("call.sn3");
    let file = std::fs::File::create(&path).expect("a file");
    capture.export(file).expect("exported");
    reads(&["classic", path.to_str().expect("a name")], &items);
}

#[test]
fn damage_is_found() {
    let disk = SimDisk::new();
    let mut builder = one_segment(&disk, &[(3, call(60, 9))]);
    builder.writer.finish(9).expect("finished");
    let directory = tempfile::tempdir().expect("a directory");
    disk.save(directory.path()).expect("saved");
    let entry = std::fs::read_dir(directory.path()).expect("listed").next();
    let path = entry.expect("a segment").expect("an entry").path();
    let mut bytes = std::fs::read(&path).expect("read");
    bytes[2 * 4096] ^= 1;
    std::fs::write(&path, bytes).expect("written");
    let path = directory.path().to_str().expect("a name");
    if let Some(output) = read(&["segments", path, "3"]) {
        assert_eq!(output.status.code(), Some(1));
    }
}
