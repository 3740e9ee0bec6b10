//! Recordings written to segments come back whole, by chain, by directory and by hopping.

mod common;

use std::collections::BTreeSet;
use std::path::Path;

use common::{Builder, Item, call, extents, one_segment, read_items};
use proptest::prelude::*;
use trunkline_sn3::recover::{self, Finished, Image, Rescue};
use trunkline_sn3::sim::SimDisk;
use trunkline_sn3::verify::verify;
use trunkline_sn3::{
    Bytes, Capture, CaptureError, CaptureFormat, Keys, SegmentDirectory, SegmentReader, erase,
};

fn saved(disk: &SimDisk) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    disk.save(directory.path()).expect("saved");
    directory
}

fn path(directory: &tempfile::TempDir, number: u32) -> std::path::PathBuf {
    directory.path().join(format!("w0-{number:08}.sn3s"))
}

#[test]
fn recordings_come_back_from_a_finished_segment() {
    let disk = SimDisk::new();
    let calls = [(1u64, call(300, 1)), (2, call(120, 2)), (9, call(1, 3))];
    let mut builder = one_segment(&disk, &calls);
    builder.writer.finish(9).expect("finished");
    let directory = saved(&disk);
    let report = verify(&path(&directory, 1)).expect("a segment");
    assert!(report.is_whole() && report.finished, "{:?}", report.damages);
    assert_eq!(
        report.recordings.iter().copied().collect::<Vec<_>>(),
        [1, 2, 9]
    );
    for (recording, items) in &calls {
        let chained = Capture::open_in_directory(
            directory.path(),
            *recording,
            Some(builder.last(*recording)),
        );
        let listed = Capture::open_in_directory(directory.path(), *recording, None);
        let in_file = Capture::open_recording(&path(&directory, 1), *recording);
        for capture in [chained, listed, in_file] {
            let capture = capture.expect("there");
            assert_eq!(&read_items(&capture), items);
            assert!(capture.damages().is_empty(), "{:?}", capture.damages());
            assert_eq!(capture.format(), CaptureFormat::Segment);
        }
    }
    let many = Capture::open(&path(&directory, 1)).expect_err("three recordings");
    assert!(
        matches!(many, CaptureError::ManyRecordings { recordings, .. } if recordings == [1, 2, 9])
    );
    let none = Capture::open_recording(&path(&directory, 1), 77).expect_err("not there");
    assert!(matches!(
        none,
        CaptureError::NoSuchRecording { recording: 77, .. }
    ));
}

#[test]
fn facts_are_gathered() {
    let disk = SimDisk::new();
    one_segment(&disk, &[(5, call(100, 4))])
        .writer
        .finish(9)
        .expect("finished");
    let directory = saved(&disk);
    let capture = Capture::open(&path(&directory, 1)).expect("one recording");
    let facts = capture.facts();
    assert_eq!(facts.recording, 5);
    assert_eq!(
        facts.open.as_ref().map(|open| open.caller.as_str()),
        Some("alice")
    );
    assert_eq!(facts.answered_ns(), Some(1_400_000_000));
    assert_eq!(
        facts
            .close
            .as_ref()
            .map(|(_, close)| close.verdict.as_str()),
        Some("complete")
    );
    assert_eq!(facts.ended_ns(), facts.close.as_ref().map(|(at, _)| *at));
    assert_eq!(facts.pauses.len(), 1);
    assert_eq!(facts.pauses[0].to_ns, Some(1_900_000_000));
    assert_eq!(facts.drops[0].1.reason_name(), "no_extent");
    assert_eq!(
        facts
            .payload_at(0, 0, 0, 1)
            .map(|payload| payload.codec.as_str()),
        Some("PCMU")
    );
    assert_eq!(
        facts.audio_frames,
        [102, 101],
        "duplicates and the empty one count"
    );
}

#[test]
fn a_recording_goes_on_over_segments_and_every_way_to_it_works() {
    let disk = SimDisk::new();
    let items = call(400, 6);
    let mut builder = Builder::new(&disk);
    let parts = extents(3, &items);
    let count = parts.len();
    for (index, (extent, used)) in parts.into_iter().enumerate() {
        builder.put(3, &extent, used, index + 1 == count);
        if index % 2 == 1 {
            builder.roll();
        }
    }
    builder.writer.finish(9).expect("finished");
    let directory = saved(&disk);
    assert!(disk.numbers().len() >= 4);
    let by_chain =
        Capture::open_in_directory(directory.path(), 3, Some(builder.last(3))).expect("there");
    assert_eq!(read_items(&by_chain), items);
    let listed = SegmentDirectory::read(directory.path()).expect("listed");
    assert_eq!(listed.recordings().collect::<Vec<_>>(), [3]);
    assert_eq!(read_items(&listed.open(3).expect("there")), items);
    assert!(listed.open(4).is_err());
    let from_the_middle = Capture::open(&path(&directory, 2)).expect("found beside it");
    assert_eq!(read_items(&from_the_middle), items);
    assert!(from_the_middle.damages().is_empty());

    // The chain's end known is not the newest: what came after it is found, too.
    let reader = SegmentReader::open(&path(&directory, 2)).expect("a segment");
    let early = (2, reader.index().0[0].page);
    let from_before = Capture::open_in_directory(directory.path(), 3, Some(early)).expect("there");
    assert_eq!(read_items(&from_before), items);
    assert!(
        from_before.damages().is_empty(),
        "{:?}",
        from_before.damages()
    );

    std::fs::remove_file(path(&directory, 2)).expect("removed");
    let listed = SegmentDirectory::read(directory.path()).expect("listed");
    for holed in [
        Capture::open_in_directory(directory.path(), 3, Some(builder.last(3))).expect("there"),
        listed.open(3).expect("there"),
    ] {
        assert!(
            holed
                .damages()
                .iter()
                .any(|damage| damage.what.contains("extents 2 to 3")),
            "{:?}",
            holed.damages()
        );
        assert!(read_items(&holed).len() < items.len());
    }
}

#[test]
fn an_unfinished_segment_is_read_by_hopping_and_recovery_finishes_it() {
    let disk = SimDisk::new();
    let calls = [(1u64, call(200, 1)), (2, call(200, 2))];
    drop(one_segment(&disk, &calls));
    let directory = saved(&disk);
    let report = verify(&path(&directory, 1)).expect("a segment");
    assert_eq!(
        report.damages.len(),
        1,
        "only that there is no footer: {:?}",
        report.damages
    );
    let capture = Capture::open_recording(&path(&directory, 1), 2).expect("there");
    assert_eq!(read_items(&capture), calls[1].1);
    assert!(
        capture.damages().is_empty(),
        "the recording ended: {:?}",
        capture.damages()
    );

    let results = recover::finish_leftovers(directory.path(), &Keys::none()).expect("listed");
    assert!(matches!(results[0].1, Ok(Finished::Recovered { ref lost, .. }) if lost.is_empty()));
    let report = verify(&path(&directory, 1)).expect("a segment");
    assert!(report.is_whole() && report.finished, "{:?}", report.damages);
    assert!(
        recover::finish_leftovers(directory.path(), &Keys::none())
            .expect("listed")
            .is_empty(),
        "only once"
    );
}

#[test]
fn recovery_after_a_crash_at_any_unit_makes_a_whole_segment() {
    let disk = SimDisk::new();
    drop(one_segment(
        &disk,
        &[(1u64, call(120, 1)), (2, call(90, 2))],
    ));
    let bytes = disk.bytes(1).expect("written");
    let whole_frames = frames_of(&bytes);
    for cut in (0..=bytes.len()).step_by(1024) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = path(&directory, 1);
        std::fs::write(&path, &bytes[..cut]).expect("written");
        let results = recover::finish_leftovers(directory.path(), &Keys::none()).expect("listed");
        match &results[0].1 {
            Ok(Finished::Removed) => assert!(!path.exists() && cut <= 3 * 4096, "cut at {cut}"),
            Ok(Finished::Recovered { .. }) => {
                let report = verify(&path).expect("a segment");
                assert!(
                    report.is_whole() && report.finished,
                    "cut at {cut}: {:?}",
                    report.damages
                );
                let length = path.metadata().expect("there").len() as usize;
                assert!(length >= cut, "cut at {cut}: a mapping of it stays valid");
                assert!(
                    report.frames <= whole_frames + 1,
                    "a directory may have been added"
                );
            }
            other => panic!("cut at {cut}: {other:?}"),
        }
    }
}

#[test]
fn recovery_keeps_good_frames_of_torn_extents_and_marks_the_rest() {
    let disk = SimDisk::new();
    let items = call(500, 8);
    drop(one_segment(&disk, &[(1, items.clone())]));
    let mut bytes = disk.bytes(1).expect("written");
    // The third extent's third unit never reached the disk.
    let reader =
        SegmentReader::over(Bytes::Memory(bytes.clone()), Path::new("x")).expect("a segment");
    let (entries, _) = reader.index();
    let at = (entries[2].page as usize + 2) * 4096;
    bytes[at..at + 4096].fill(0);
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(path(&directory, 1), &bytes).expect("written");
    let results = recover::finish_leftovers(directory.path(), &Keys::none()).expect("listed");
    let Ok(Finished::Recovered { lost, .. }) = &results[0].1 else {
        panic!("{results:?}")
    };
    assert_eq!(lost.len(), 1);
    let report = verify(&path(&directory, 1)).expect("a segment");
    // The torn one, and those behind it, whose links had to be made anew.
    let recovered = entries.len() as u64 - 2;
    assert!(
        report.is_whole() && report.recovered == recovered,
        "{report:?}"
    );
    let (sealed, held) = (report.chained, report.extents - report.erased);
    assert!(
        sealed >= entries.len() as u64 && sealed < held,
        "all but directories are chained: {report:?}"
    );
    let capture = Capture::open(&path(&directory, 1)).expect("there");
    let read = read_items(&capture);
    assert!(capture.damages().is_empty(), "{:?}", capture.damages());
    let lost_items = items.len() - read.len();
    assert!(
        (20..60).contains(&lost_items),
        "half an extent of audio is lost: {lost_items}"
    );
}

#[test]
fn memory_of_a_dead_process_is_rescued_once_and_chained() {
    let disk = SimDisk::new();
    let items = call(300, 9);
    let parts = extents(4, &items);
    let mut builder = Builder::new(&disk);
    for (extent, used) in &parts[..2] {
        builder.put(4, extent, *used, false);
    }
    builder.writer.finish(1).expect("finished");
    let directory = saved(&disk);
    // One image is on disk already, one is cut in the middle of a frame, one is empty, one is junk.
    let images: Vec<Image> = parts[1..]
        .iter()
        .map(|(bytes, used)| Image {
            worker: 0,
            bytes: bytes[..*used as usize].to_vec(),
        })
        .chain([
            Image {
                worker: 0,
                bytes: vec![0; 16_384],
            },
            Image {
                worker: 3,
                bytes: vec![7; 99],
            },
        ])
        .collect();
    let how = Rescue {
        epoch: 1,
        chained: true,
        ..Rescue::default()
    };
    let rescued = recover::rescue(directory.path(), &images, &how).expect("rescued");
    assert_eq!(rescued.len(), parts.len() - 2);
    assert_eq!(rescued[0].ordinal, 2);
    let report = verify(&path(&directory, 2)).expect("a segment");
    assert!(
        report.is_whole() && report.recovered == rescued.len() as u64,
        "{report:?}"
    );
    assert_eq!(report.chained, rescued.len() as u64, "the chain goes on");
    let last = rescued.last().expect("some");
    let capture = Capture::open_in_directory(directory.path(), 4, Some((last.segment, last.page)))
        .expect("there");
    assert_eq!(read_items(&capture), items);
    assert!(capture.damages().is_empty(), "{:?}", capture.damages());
    let again = recover::rescue(directory.path(), &images, &how).expect("nothing to do");
    assert!(again.is_empty());
}

#[test]
fn the_end_of_what_is_on_disk_is_found_for_recordings_that_go_on() {
    let disk = SimDisk::new();
    let mut builder = Builder::new(&disk);
    for (recording, packets) in [(1u64, 300), (2, 100), (3, 50)] {
        for (extent, used) in extents(recording, &call(packets, recording)) {
            builder.put(recording, &extent, used, false);
        }
        builder.roll();
    }
    builder.put(1, &extents(1, &call(300, 1))[2].0, 64 + 192, false);
    builder.writer.checkpoint(1).expect("durable");
    let directory = saved(&disk);
    let wanted = [1, 3, 9].into();
    let places = recover::last_places(directory.path(), &wanted).expect("looked");
    assert_eq!(
        places.keys().copied().collect::<Vec<_>>(),
        [1, 3],
        "nothing is there of 9"
    );
    assert_eq!((places[&1].segment, places[&1].next_ordinal), (4, 3));
    let (segment, page) = builder.last(3);
    assert_eq!((places[&3].segment, places[&3].page), (segment, page));
}

#[test]
fn a_successor_that_did_not_know_the_last_extents_hides_none_of_them() {
    let disk = SimDisk::new();
    let items = call(300, 9);
    let parts = extents(4, &items);
    let mut builder = Builder::new(&disk);
    for (extent, used) in &parts {
        builder.put(4, extent, *used, false);
    }
    builder.roll();
    // It goes on from ordinal 2, which was on disk already.
    let more = call(10, 10);
    let mut late = vec![0u8; 16_384];
    let mut appender = trunkline_sn3::extent::Appender::open(&mut late, 4, 2, 9_000_000);
    for item in &more[2..12] {
        appender
            .append(&mut late, &item.head, &item.payload)
            .expect("room");
    }
    builder.put(4, &late, appender.used(), true);
    builder.writer.finish(1).expect("finished");
    let directory = saved(&disk);
    let capture = Capture::open_in_directory(directory.path(), 4, None).expect("there");
    let read = read_items(&capture);
    assert_eq!(read.len(), items.len() + 10);
    assert_eq!(read[..items.len()], items);
}

#[test]
fn an_erased_recording_is_gone_and_the_segment_is_whole() {
    let disk = SimDisk::new();
    let calls = [(1u64, call(150, 1)), (2, call(150, 2))];
    one_segment(&disk, &calls)
        .writer
        .finish(9)
        .expect("finished");
    let directory = saved(&disk);
    let secret = calls[0]
        .1
        .iter()
        .find(|item| item.payload.len() == 160)
        .expect("audio")
        .payload
        .clone();
    let holds = |path: &Path| {
        let bytes = std::fs::read(path).expect("read");
        bytes.windows(secret.len()).any(|window| window == secret)
    };
    assert!(holds(&path(&directory, 1)));
    let one = |recording| BTreeSet::from([recording]);
    // A segment that cannot be read may hold what is to be erased: that is said, and the rest is done.
    std::fs::write(path(&directory, 2), b"no segment").expect("written");
    let error = erase::erase_recordings(directory.path(), &one(1)).expect_err("not all is erased");
    assert!(error.to_string().contains("w0-00000002.sn3s"), "{error}");
    assert!(!holds(&path(&directory, 1)));
    std::fs::write(path(&directory, 2), b"").expect("written");
    let erased = erase::erase_recordings(directory.path(), &one(1)).expect("erased");
    assert!(erased.extents > 3 && erased.segments_removed == 0);
    assert!(!holds(&path(&directory, 1)));
    let report = verify(&path(&directory, 1)).expect("a segment");
    assert!(
        report.is_whole() && report.erased == u64::from(erased.extents),
        "{report:?}"
    );
    let gone = Capture::open_recording(&path(&directory, 1), 1).expect("its holes are known");
    assert_eq!(gone.frames().count(), 0);
    let other = Capture::open_recording(&path(&directory, 1), 2).expect("there");
    assert_eq!(read_items(&other), calls[1].1);
    let erased = erase::erase_recordings(directory.path(), &one(2)).expect("erased");
    assert_eq!(erased.segments_removed, 1);
    assert!(!path(&directory, 1).exists());
}

#[test]
fn an_exported_call_is_classic_sn3_and_loses_nothing() {
    let disk = SimDisk::new();
    let items = call(250, 11);
    one_segment(&disk, &[(8, items.clone())])
        .writer
        .finish(9)
        .expect("finished");
    let directory = saved(&disk);
    let capture = Capture::open(&path(&directory, 1)).expect("there");
    let mut blob = Vec::new();
    let totals = capture.export(&mut blob).expect("written");
    assert_eq!(totals.bytes as usize, blob.len());

    let audio: Vec<&Item> = items
        .iter()
        .filter(|item| item.head.kind == trunkline_sn3::FrameKind::Rtp && !item.payload.is_empty())
        .collect();
    let classic = classic_reader(&blob);
    assert_eq!(classic.len(), audio.len());
    for (item, (dir, seq, ts, wall, payload)) in audio.iter().zip(&classic) {
        assert_eq!(
            (*dir, *seq, *ts),
            (item.head.side, item.head.seq, item.head.rtp_ts)
        );
        assert_eq!(
            *wall,
            item.head.wall_ns - 1_500_000_000,
            "time starts with the first audio"
        );
        assert_eq!(payload, &item.payload);
    }

    let again = Capture::from_bytes(blob, Path::new("call.sn3")).expect("a blob");
    assert_eq!(again.format(), CaptureFormat::Exported);
    assert_eq!(read_items(&again), items);
    assert_eq!(again.facts(), capture.facts());
    assert!(again.damages().is_empty(), "{:?}", again.damages());
}

/// The first decoder's rules: stop at length 0, above 4000 or a cut frame; skip dir >= 2.
fn classic_reader(blob: &[u8]) -> Vec<(u8, u16, u32, u64, Vec<u8>)> {
    let mut frames = Vec::new();
    assert_eq!(&blob[..3], b"SN3");
    let mut at = 3;
    while at + 17 <= blob.len() {
        let length = usize::from(u16::from_le_bytes([blob[at + 15], blob[at + 16]]));
        if length == 0 || length > 4000 || at + 17 + length > blob.len() {
            break;
        }
        if blob[at] <= 1 {
            frames.push((
                blob[at],
                u16::from_le_bytes([blob[at + 1], blob[at + 2]]),
                u32::from_le_bytes(blob[at + 3..at + 7].try_into().expect("four")),
                u64::from_le_bytes(blob[at + 7..at + 15].try_into().expect("eight")),
                blob[at + 17..at + 17 + length].to_vec(),
            ));
        }
        at += 17 + length;
    }
    assert_eq!(at, blob.len(), "a classic reader reaches the end");
    frames
}

fn frames_of(bytes: &[u8]) -> u64 {
    let reader =
        SegmentReader::over(Bytes::Memory(bytes.to_vec()), Path::new("x")).expect("a segment");
    trunkline_sn3::verify::verify_segment(&reader).frames
}

fn any_item() -> impl Strategy<Value = Item> {
    let head = (
        0u8..13,
        0u8..2,
        0u8..4,
        any::<u32>(),
        0u8..128,
        any::<bool>(),
        any::<u8>(),
    );
    let numbers = (any::<u16>(), any::<u16>(), any::<u32>(), 0u64..1 << 45);
    let payload = prop_oneof![
        4 => proptest::collection::vec(any::<u8>(), 0..300),
        1 => proptest::collection::vec(any::<u8>(), 3_990..9_000),
    ];
    (head, numbers, payload).prop_map(|(head, numbers, payload)| {
        let (kind, side, media, ssrc, pt, marker, flag) = head;
        let (seq, seq_cycles, rtp_ts, wall_ns) = numbers;
        Item {
            head: trunkline_sn3::FrameHead {
                kind: trunkline_sn3::FrameKind::from_number(kind),
                side,
                media,
                ssrc,
                pt,
                marker,
                flags: flag & !trunkline_sn3::flags::SHAPE,
                seq,
                seq_cycles,
                rtp_ts,
                wall_ns,
            },
            payload,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_frames_survive_segment_and_export(
        items in proptest::collection::vec(any_item(), 1..120)
    ) {
        let mut items = items;
        // Capture order is time order; classic readers rely on it.
        items.sort_by_key(|item| item.head.wall_ns);
        let disk = SimDisk::new();
        one_segment(&disk, &[(6, items.clone())]).writer.finish(9).expect("finished");
        let directory = saved(&disk);
        let capture = Capture::open(&path(&directory, 1)).expect("there");
        prop_assert!(capture.damages().is_empty());
        prop_assert_eq!(&read_items(&capture), &items);
        let mut blob = Vec::new();
        capture.export(&mut blob).expect("written");
        let again = Capture::from_bytes(blob, Path::new("call.sn3")).expect("a blob");
        // Any bytes pass; those that stand where facts are expected are told of.
        let whole = |damage: &trunkline_sn3::Damage| damage.what.ends_with("not readable");
        prop_assert!(again.damages().iter().all(whole), "{:?}", again.damages());
        prop_assert_eq!(&read_items(&again), &items);
    }
}
