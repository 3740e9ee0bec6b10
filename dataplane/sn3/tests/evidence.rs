//! Evidence archives: whole as written, and no byte of them can be changed unseen.

mod common;

use std::io::Cursor;
use std::path::PathBuf;

use common::{Builder, call, extents, one_segment, read_items};
use serde_json::json;
use trunkline_sn3::cipher::MasterKey;
use trunkline_sn3::evidence::{Evidence, KeyChoice, verify};
use trunkline_sn3::keys::KeyWriter;
use trunkline_sn3::proof::{Signer, statement};
use trunkline_sn3::sim::SimDisk;
use trunkline_sn3::{Capture, CaptureError, Keys, chain};

struct Archive {
    directory: tempfile::TempDir,
    bytes: Vec<u8>,
    items: Vec<common::Item>,
}

fn archive(packets: u16, signer: Option<&Signer>) -> Archive {
    let disk = SimDisk::new();
    let items = call(packets, 21);
    let mut builder = one_segment(
        &disk,
        &[(8, call(30, 5)), (3, items.clone()), (9, call(9, 6))],
    );
    builder.writer.finish(9).expect("finished");
    let directory = tempfile::tempdir().expect("a directory");
    disk.save(directory.path()).expect("saved");
    let capture =
        Capture::open_in_directory(directory.path(), 3, Some(builder.last(3))).expect("there");
    let mut recording = json!({
        "id": "0193e000-0000-7000-8000-000000000003", "call_id": "c", "verdict": "complete",
        "receipt": {"caller": {"written": packets}, "chain":
            {"algorithm": "blake3", "head": chain::to_hex(&builder.head(3))}},
    });
    if let Some(signer) = signer {
        recording["receipt"]["chain"]["signature"] = signer.sign(&statement(&recording)).into();
        recording["receipt"]["chain"]["public_key"] = signer.public_key().into();
    }
    let evidence = Evidence {
        recording,
        call: Some(json!({"id": "c", "caller": "alice"})),
        cdr: None,
        capture: &capture,
        key: KeyChoice::Withheld,
        keys: &Keys::none(),
        made_at: "2026-11-27T00:00:00.000Z".to_owned(),
    };
    let bytes = evidence
        .write(Cursor::new(Vec::new()), signer)
        .expect("written")
        .into_inner();
    Archive {
        directory,
        bytes,
        items,
    }
}

impl Archive {
    fn save(&self, bytes: &[u8]) -> PathBuf {
        let path = self.directory.path().join("evidence.tar");
        std::fs::write(&path, bytes).expect("written");
        path
    }
}

#[test]
fn an_archive_proves_itself_and_can_be_heard() {
    let signer = Signer::from_secret(&[7; 32]);
    let made = archive(400, Some(&signer));
    let path = made.save(&made.bytes);
    let report = verify(&path, Some(&signer.public_key())).expect("an archive");
    assert!(report.damages.is_empty(), "{:?}", report.damages);
    assert_eq!(report.signed_by, Some(signer.public_key()));
    assert_eq!(report.receipt_signed_by, Some(signer.public_key()));
    let segment = report.segment.expect("a segment");
    assert_eq!(
        segment.recordings.into_iter().collect::<Vec<_>>(),
        [3],
        "nobody else's data"
    );
    let capture = Capture::open(&path).expect("a capture");
    assert_eq!(read_items(&capture), made.items);
    assert!(capture.damages().is_empty());

    let stranger = Signer::from_secret(&[8; 32]).public_key();
    let report = verify(&path, Some(&stranger)).expect("an archive");
    assert!(!report.damages.is_empty(), "signed by somebody else");
}

#[test]
fn any_flipped_byte_is_found_and_named() {
    for signer in [None, Some(Signer::from_secret(&[7; 32]))] {
        let made = archive(40, signer.as_ref());
        let mut bytes = made.bytes.clone();
        for at in (0..bytes.len())
            .step_by(101)
            .chain(0..512)
            .chain(bytes.len() - 1600..bytes.len())
        {
            bytes[at] ^= 0x04;
            let path = made.save(&bytes);
            match verify(&path, None) {
                Ok(report) => {
                    let first = report.damages.first();
                    let named = first.is_some_and(|d| d.offset as usize <= at);
                    let start = first.map_or(0, |d| d.offset as usize);
                    let near = at - start.min(at) < 5 * 4096;
                    assert!(named && near, "byte {at}: {:?}", report.damages);
                }
                // The archive's own magic.
                Err(error) => assert!((257..262).contains(&at), "byte {at}: {error}"),
            }
            bytes[at] ^= 0x04;
        }
    }
}

/// Header and contents of the member at this offset.
fn member(bytes: &[u8], at: usize) -> &[u8] {
    let digits = std::str::from_utf8(&bytes[at + 124..at + 135]).expect("octal digits");
    let length = usize::from_str_radix(digits, 8).expect("a length");
    &bytes[at..at + 512 + length.next_multiple_of(512)]
}

#[test]
fn a_member_put_in_beside_the_real_one_is_found() {
    let signer = Signer::from_secret(&[7; 32]);
    let made = archive(40, Some(&signer));
    let end = made.bytes.len() - 1024;
    let mut members = Vec::new();
    let mut at = 0;
    while at < end {
        members.push(at);
        at += member(&made.bytes, at).len();
    }
    assert_eq!(members.len(), 8);
    for at in members {
        let mut forged = member(&made.bytes, at).to_vec();
        let behind_header = forged.len().min(513) - 1;
        forged[behind_header] ^= 1;
        // Unpacked, the last one of a name is what stays.
        let bytes = [&made.bytes[..end], &forged, &[0; 1024]].concat();
        let report = verify(&made.save(&bytes), Some(&signer.public_key())).expect("an archive");
        let told = |damage: &trunkline_sn3::capture::Damage| {
            damage.offset as usize == end + 512 && damage.what.contains("more than once")
        };
        assert!(report.damages.iter().any(told), "{:?}", report.damages);
    }
}

#[test]
fn a_cut_archive_says_so() {
    let made = archive(40, None);
    let mut cut = made.bytes.clone();
    cut.truncate(made.bytes.len() - 1024);
    let report = verify(&made.save(&cut), None).expect("an archive");
    assert!(
        report
            .damages
            .iter()
            .any(|damage| damage.what.contains("cut")),
        "{report:?}"
    );
}

/// An encrypted recording, archived with or without its key.
fn encrypted(key: KeyChoice) -> (tempfile::TempDir, PathBuf, Keys) {
    let directory = tempfile::tempdir().expect("a directory");
    let keys = Keys::new(vec![MasterKey::from_bytes(&[5; 32])]);
    let mut writer = KeyWriter::new(directory.path(), keys.clone());
    let disk = SimDisk::new();
    let mut builder = Builder::new(&disk);
    builder.key = Some(writer.key_of(3, false).expect("a key"));
    writer.sync().expect("durable");
    let items = call(400, 21);
    let extents = extents(3, &items);
    for (index, (extent, used)) in extents.iter().enumerate() {
        builder.put(3, extent, *used, index + 1 == extents.len());
    }
    builder.writer.finish(9).expect("finished");
    disk.save(directory.path()).expect("saved");
    let last = Some(builder.last(3));
    let capture = Capture::open_in_directory_with(directory.path(), 3, last, &keys).expect("there");
    assert_eq!(read_items(&capture), items);
    let head = chain::to_hex(&builder.head(3));
    let evidence = Evidence {
        recording: json!({"id": "r", "receipt": {"chain": {"algorithm": "blake3", "head": head}}}),
        call: None,
        cdr: None,
        capture: &capture,
        key,
        keys: &keys,
        made_at: "2026-11-27T00:00:00.000Z".to_owned(),
    };
    let path = directory.path().join("evidence.tar");
    let file = std::fs::File::create(&path).expect("a file");
    evidence.write(file, None).expect("written");
    (directory, path, keys)
}

#[test]
fn an_encrypted_recording_is_proved_without_its_key_and_read_with_the_master_key() {
    let (_directory, path, keys) = encrypted(KeyChoice::Withheld);
    let report = verify(&path, None).expect("an archive");
    assert!(report.damages.is_empty(), "{:?}", report.damages);
    assert!(report.key_withheld && report.chain_head.is_some());
    let bytes = std::fs::read(&path).expect("there");
    let spoken = call(400, 21).last().expect("a frame").payload.clone();
    let holds = |bytes: &[u8]| bytes.windows(spoken.len()).any(|window| window == spoken);
    assert!(!holds(&bytes), "nothing of it is in the clear");
    assert!(matches!(
        Capture::open(&path),
        Err(CaptureError::NoKey { .. })
    ));
    let stranger = Keys::new(vec![MasterKey::from_bytes(&[6; 32])]);
    assert!(Capture::open_with(&path, &stranger).is_err());
    let capture = Capture::open_with(&path, &keys).expect("the master key unwraps it");
    assert_eq!(read_items(&capture), call(400, 21));
    // A byte of an encrypted frame is missed by nobody.
    let mut flipped = bytes;
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    std::fs::write(&path, flipped).expect("written");
    let report = verify(&path, None).expect("an archive");
    assert!(!report.damages.is_empty());
}

#[test]
fn an_encrypted_recording_is_in_the_clear_where_its_key_is_asked_for() {
    let (_directory, path, _) = encrypted(KeyChoice::Included);
    let report = verify(&path, None).expect("an archive");
    assert!(report.damages.is_empty(), "{:?}", report.damages);
    assert!(!report.key_withheld);
    let capture = Capture::open(&path).expect("its key is in it");
    assert_eq!(read_items(&capture), call(400, 21));
}
