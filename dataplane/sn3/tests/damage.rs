//! Damaged, cut, mutated and hostile files: found, named by offset, and read as far as they go.

mod common;

use std::path::Path;

use common::{Builder, Item, Random, call, extents, one_segment, read_items};
use trunkline_sn3::chain;
use trunkline_sn3::recover::{Finished, Image, Rescue, finish_leftover, rescue};
use trunkline_sn3::sim::{Faults, SimDisk};
use trunkline_sn3::verify::{VerifyReport, verify, verify_segment};
use trunkline_sn3::{Bytes, Capture, Keys, RecordingReader, SegmentReader};

const UNIT: usize = 4096;

fn segment(packets: u16) -> (Vec<u8>, Vec<Item>) {
    let disk = SimDisk::new();
    let items = call(packets, 77);
    one_segment(&disk, &[(3, items.clone())])
        .writer
        .finish(9)
        .expect("finished");
    (disk.bytes(1).expect("written"), items)
}

fn check(bytes: &[u8]) -> Option<VerifyReport> {
    let reader = SegmentReader::over(Bytes::Memory(bytes.to_vec()), Path::new("x")).ok()?;
    Some(verify_segment(&reader))
}

/// Opens bytes as a file of their own.
fn open(directory: &tempfile::TempDir, bytes: &[u8]) -> Option<Capture> {
    let path = directory.path().join("some.file");
    std::fs::write(&path, bytes).expect("written");
    Capture::open(&path).ok()
}

#[test]
fn every_flipped_byte_is_found_and_named() {
    let (mut bytes, items) = segment(24);
    assert!(check(&bytes).expect("a segment").is_whole());
    let directory = tempfile::tempdir().expect("a directory");
    for at in 0..bytes.len() {
        bytes[at] ^= 0x10;
        let report = check(&bytes).expect("still known as a segment");
        assert!(!report.is_whole(), "byte {at}");
        let named = report
            .damages
            .iter()
            .any(|damage| damage.offset as usize <= at && at < damage.offset as usize + 5 * UNIT);
        assert!(named, "byte {at}: {:?}", report.damages);
        // Everything else can still be read: a frame, or the few that a fact is split into, is missing.
        if at % 41 == 0 {
            let capture = open(&directory, &bytes).expect("still readable");
            let read = read_items(&capture);
            assert!(
                read.len() + 1 >= items.len(),
                "byte {at}: {} of {}",
                read.len(),
                items.len()
            );
            assert!(
                read.iter().all(|item| items.contains(item)),
                "byte {at}: nothing is made up"
            );
        }
        bytes[at] ^= 0x10;
    }
}

#[test]
fn a_damaged_frame_is_named_where_it_lies() {
    let (mut bytes, items) = segment(60);
    let payload = &items[40].payload;
    let at = bytes
        .windows(payload.len())
        .position(|window| window == payload)
        .expect("stored as received");
    bytes[at + 100] ^= 1;
    let report = check(&bytes).expect("a segment");
    assert_eq!(report.damages.len(), 1);
    assert_eq!(
        report.damages[0].offset as usize,
        at - 32,
        "the frame's first byte"
    );
    assert!(
        report.damages[0]
            .to_string()
            .starts_with(&format!("byte {}: ", at - 32))
    );
    let directory = tempfile::tempdir().expect("a directory");
    let capture = open(&directory, &bytes).expect("readable");
    assert_eq!(capture.damages()[0].offset as usize, at - 32);
    assert_eq!(read_items(&capture).len(), items.len() - 1);
}

#[test]
fn cuts_at_every_offset_are_read_to_the_cut() {
    let (bytes, items) = segment(60);
    let directory = tempfile::tempdir().expect("a directory");
    let mut most = 0;
    for cut in (0..bytes.len())
        .step_by(37)
        .chain((0..bytes.len()).step_by(UNIT))
    {
        if let Some(report) = check(&bytes[..cut]) {
            assert!(!report.is_whole(), "cut at {cut}");
        }
        if let Some(capture) = open(&directory, &bytes[..cut]) {
            let read = read_items(&capture);
            assert_eq!(read[..], items[..read.len()], "cut at {cut}");
            most = most.max(read.len());
            if read.len() < items.len() {
                assert!(!capture.damages().is_empty(), "cut at {cut}");
            }
        }
    }
    assert_eq!(most, items.len());
}

#[test]
fn impossible_lengths_and_sizes_are_survived() {
    let (bytes, _) = segment(60);
    let directory = tempfile::tempdir().expect("a directory");
    // Every 32-bit field of the first extent's header and of its first frame, set to gigabytes.
    for at in (UNIT..UNIT + 64 + 32).chain(bytes.len() - UNIT..bytes.len() - UNIT + 64) {
        for value in [u32::MAX, 0x8000_0000, 0x4000_0000, 0] {
            let mut broken = bytes.clone();
            broken[at..at + 4].copy_from_slice(&value.to_le_bytes());
            let report = check(&broken).expect("a segment");
            assert!(broken == bytes || !report.is_whole(), "{value:#x} at {at}");
            if let Some(capture) = open(&directory, &broken) {
                capture.frames().for_each(drop);
            }
        }
    }
}

#[test]
fn a_lost_extent_is_known_by_name_from_the_directory() {
    let (mut bytes, items) = segment(200);
    let reader =
        SegmentReader::over(Bytes::Memory(bytes.clone()), Path::new("x")).expect("a segment");
    let (entries, _) = reader.index();
    let gone = entries[1];
    let from = gone.page as usize * UNIT;
    bytes[from..from + usize::from(gone.units) * UNIT].fill(0xee);
    let report = check(&bytes).expect("a segment");
    assert!(!report.is_whole());
    let directory = tempfile::tempdir().expect("a directory");
    let capture = open(&directory, &bytes).expect("readable");
    assert!(
        capture
            .damages()
            .iter()
            .any(|damage| damage.offset as usize / UNIT >= from / UNIT
                && damage.what.contains("recording 3, extent 1")),
        "{:?}",
        capture.damages()
    );
    assert!(read_items(&capture).len() < items.len());
}

#[test]
fn mutated_files_of_every_format_never_panic() {
    let (bytes, _) = segment(80);
    let directory = tempfile::tempdir().expect("a directory");
    let capture = open(&directory, &bytes).expect("whole");
    let mut exported = Vec::new();
    capture.export(&mut exported).expect("written");
    let sources = [
        bytes,
        exported.clone(),
        classic(b"SN3", &exported),
        classic(b"SN2", &exported),
        classic(b"SN1", &exported),
    ];
    let mut random = Random(4711);
    for source in &sources {
        for round in 0..400 {
            let mut broken = source.clone();
            for _ in 0..=random.below(8) {
                mutate(&mut broken, &mut random);
            }
            if let Some(report) = check(&broken) {
                assert!(report.damages.len() <= broken.len());
            }
            if let Some(capture) = open(&directory, &broken) {
                let frames = capture.frames().count();
                assert!(frames <= broken.len(), "round {round}");
                let mut out = Vec::new();
                capture.export(&mut out).expect("written");
                let path = directory.path().join("some.file");
                assert!(verify(&path).is_ok());
            }
        }
    }
}

#[test]
fn recovery_of_mutated_leftovers_makes_whole_segments() {
    let disk = SimDisk::new();
    drop(one_segment(&disk, &[(3, call(80, 77)), (4, call(30, 5))]));
    let leftover = disk.bytes(1).expect("written");
    let directory = tempfile::tempdir().expect("a directory");
    let mut random = Random(1_811);
    let mut recovered = 0;
    let how = Rescue {
        epoch: 1,
        chained: true,
        ..Rescue::default()
    };
    for round in 0..400 {
        let mut broken = leftover.clone();
        for _ in 0..=random.below(5) {
            mutate(&mut broken, &mut random);
        }
        let inside = directory.path().join(format!("{round}"));
        std::fs::create_dir(&inside).expect("created");
        let path = inside.join("w0-00000001.sn3s");
        std::fs::write(&path, &broken).expect("written");
        if let Ok(Finished::Recovered { .. }) = finish_leftover(&path, &Keys::none()) {
            recovered += 1;
            let report = verify(&path).expect("a segment");
            assert!(report.is_whole(), "round {round}: {:?}", report.damages);
        }
        // The same bytes as the memory of the process that died.
        let images: Vec<Image> = broken[UNIT.min(broken.len())..]
            .chunks(4 * UNIT)
            .map(|bytes| Image {
                worker: 1,
                bytes: bytes.to_vec(),
            })
            .collect();
        let rescued = rescue(&inside, &images, &how).expect("rescued");
        for one in &rescued {
            let path = inside.join(format!("w1-{:08}.sn3s", one.segment));
            let report = verify(&path).expect("a segment");
            assert!(report.is_whole(), "round {round}: {:?}", report.damages);
        }
        std::fs::remove_dir_all(&inside).expect("removed");
    }
    assert!(recovered > 100, "{recovered}");
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    if bytes.is_empty() {
        return;
    }
    let at = random.below(bytes.len());
    match random.below(6) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.next() as u8,
        2 => bytes.truncate(at),
        3 => {
            let end = (at + random.below(9000)).min(bytes.len());
            bytes.drain(at..end);
        }
        4 => {
            let end = (at + random.below(9000)).min(bytes.len());
            bytes[at..end].fill(random.next() as u8 * (random.next() as u8 & 1));
        }
        _ => {
            let end = (at + random.below(9000)).min(bytes.len());
            let copy = bytes[at..end].to_vec();
            let to = random.below(bytes.len());
            bytes.splice(to..to, copy);
        }
    }
}

/// Rewrites an exported call as a plain blob of a format.
fn classic(magic: &[u8; 3], exported: &[u8]) -> Vec<u8> {
    let mut blob = magic.to_vec();
    let mut at = 3;
    while at < exported.len() {
        let header = &exported[at..at + 17];
        let length = usize::from(u16::from_le_bytes([header[15], header[16]]));
        if header[0] <= 1 {
            match magic {
                b"SN1" => blob.push(header[0]),
                b"SN2" => blob.extend_from_slice(&header[..7]),
                _ => blob.extend_from_slice(&header[..15]),
            }
            blob.extend_from_slice(&header[15..]);
            blob.extend_from_slice(&exported[at + 17..at + 17 + length]);
        }
        at += 17 + length;
    }
    blob
}

#[test]
fn garbage_and_empty_files_are_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut random = Random(99);
    for length in [0usize, 1, 2, 3, 17, 4096, 20_000] {
        let bytes: Vec<u8> = (0..length).map(|_| random.next() as u8 | 0x80).collect();
        let path = directory.path().join("garbage");
        std::fs::write(&path, &bytes).expect("written");
        let error = Capture::open(&path).expect_err("garbage");
        assert!(error.to_string().contains("byte 0"), "{error}");
        assert!(verify(&path).is_err());
    }
    assert!(
        Capture::open(directory.path()).is_err(),
        "a directory is none"
    );
    assert!(Capture::open(Path::new("/nonexistent/x.sn3")).is_err());
}

#[test]
fn a_disk_that_refuses_keeps_what_was_written() {
    for space in (1..40u64).map(|units| units * UNIT as u64 + 100) {
        let disk = SimDisk::new();
        disk.set_faults(Faults {
            space: Some(space),
            write_max: Some(10_000),
            ..Faults::default()
        });
        let items = call(300, 5);
        let mut builder = common::Builder::new(&disk);
        let mut refused = 0;
        for (extent, used) in common::extents(3, &items) {
            let seal = trunkline_sn3::extent::Seal {
                used,
                ..Default::default()
            };
            builder.writer.stage(&extent, &seal).expect("room");
            if builder.writer.checkpoint(1).is_err() {
                refused += builder.writer.staged();
                builder.writer.discard_staged();
            }
        }
        assert!(refused > 0);
        let parts = common::extents(3, &items).len();
        let length = disk.bytes(1).expect("written").len();
        // What was written can be finished although the disk is full: room was kept for that.
        let finished = builder.writer.finish(2).is_ok();
        assert!(finished || refused == parts, "space {space}");
        disk.set_faults(Faults::default());
        builder.writer.finish(2).expect("finished");
        let report = check(&disk.bytes(1).expect("written")).expect("a segment");
        assert!(report.is_whole(), "space {space}: {:?}", report.damages);
        assert!(
            disk.bytes(1).expect("written").len() >= length,
            "never cut below a mapping"
        );
        let written = parts - refused;
        let directories = (report.extents - report.erased) as usize - written;
        assert!(directories <= written, "{report:?}");
    }
}

#[test]
fn what_the_disk_cannot_read_is_damage_and_kills_nobody() {
    let (bytes, items) = segment(400);
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("w0-00000001.sn3s");
    std::fs::write(&path, &bytes).expect("written");
    let reader = SegmentReader::open(&path).expect("a segment");
    // A mapping cannot be read behind the file's end, like one of a sector that is gone.
    let readable = bytes.len() / 2 / UNIT * UNIT;
    let file = std::fs::File::options().write(true).open(&path);
    file.and_then(|file| file.set_len(readable as u64))
        .expect("cut");
    let report = verify_segment(&reader);
    let damage = &report.damages[0];
    let (from, to) = (
        damage.offset as usize,
        (damage.offset + damage.length) as usize,
    );
    assert!(from <= readable && readable < to, "{report:?}");
    assert!(damage.what.contains("cannot read"), "{damage:?}");
    let recording = RecordingReader::in_segment(reader, 3, &Keys::none()).expect("the rest of it");
    let read = recording.frames().count();
    assert!(read > items.len() / 4 && read < items.len(), "{read}");
    assert!(!recording.damages().is_empty());
    assert!(finish_leftover(&path, &Keys::none()).is_ok());
}

#[test]
fn a_forged_extent_breaks_the_chain_although_every_checksum_fits() {
    let items = call(400, 5);
    let mut forged = items.clone();
    let changed = forged.iter().position(|item| item.payload.len() == 160);
    forged[changed.expect("audio") + 90].payload[7] ^= 1;
    let (true_disk, forged_disk) = (SimDisk::new(), SimDisk::new());
    let mut honest = Builder::new(&true_disk);
    let mut liar = Builder::new(&forged_disk);
    let parts = extents(3, &items).into_iter().zip(extents(3, &forged));
    let mut forgery = None;
    for (index, ((extent, used), (other, other_used))) in parts.enumerate() {
        let link = if index == 0 {
            chain::START
        } else {
            honest.head(3)
        };
        liar.put_after(3, &other, other_used, false, link);
        honest.put(3, &extent, used, false);
        if liar.head(3) != honest.head(3) {
            forgery.get_or_insert(index);
        }
    }
    honest.writer.finish(9).expect("finished");
    liar.writer.finish(9).expect("finished");
    let whole = check(&true_disk.bytes(1).expect("written")).expect("a segment");
    assert!(whole.is_whole() && whole.chained > 5, "{whole:?}");
    let bytes = forged_disk.bytes(1).expect("written");
    let report = check(&bytes).expect("a segment");
    let reader = SegmentReader::over(Bytes::Memory(bytes), Path::new("x")).expect("a segment");
    let after = reader.index().0[forgery.expect("a changed extent") + 1];
    assert_eq!(report.damages.len(), 1, "{:?}", report.damages);
    assert_eq!(
        report.damages[0].offset,
        u64::from(after.page) * UNIT as u64
    );
    assert!(
        report.damages[0].what.contains("hash chain"),
        "{:?}",
        report.damages
    );
}
