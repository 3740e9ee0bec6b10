//! How large writes are, and clocks that step.

use trunkline_sn3::sim::DiskCall;

use super::*;

/// Small writes cost a disk as much as large ones.
const LEAST_BYTES: usize = 256 << 10;

#[test]
fn writes_are_large_or_what_a_checkpoint_has() {
    let mut bench = bench(|_| {});
    let mut calls: Vec<_> = (1..=12).map(|recording| bench.begin(recording)).collect();
    for round in 0..600 {
        for call in &mut calls {
            // At four times the rate of a call.
            (0..4).for_each(|_| bench.packet(call));
        }
        if round % 90 == 89 {
            let ended = calls.remove(0);
            bench.finish(&mut { ended });
        }
        bench.pass(10);
    }
    let log = bench.disk.log();
    let mut large = 0;
    for (at, call) in log.iter().enumerate() {
        let DiskCall::Write { bytes, .. } = call else {
            continue;
        };
        if bytes.len() >= LEAST_BYTES {
            large += 1;
            continue;
        }
        assert!(
            matches!(log.get(at + 1), Some(DiskCall::Sync { .. })),
            "{} bytes, and no checkpoint after them",
            bytes.len()
        );
    }
    assert!(large >= 2, "{large} large writes");
}

/// A recorder that starts with these clocks.
fn restarted(directory: &Path, disk: &SimDisk, utc_ns: u64, now_ns: u64) -> Bench {
    let mut bench = bench(|settings| settings.data_dir = directory.to_path_buf());
    bench.now_ns = now_ns;
    bench.disk = disk.clone();
    bench.recorder.shared.store = disk.clone();
    bench.recorder.shared.clocks = Clocks {
        start: ClockTriple {
            mono_ns: now_ns,
            utc_ns,
            sync: 1,
        },
    };
    bench
}

#[test]
fn a_wall_clock_that_steps_back_over_a_restart_misplaces_nothing() {
    const HOUR_NS: u64 = 3_600_000_000_000;
    let directory = tempfile::tempdir().expect("a directory");
    let disk = SimDisk::new();
    let mut first = restarted(directory.path(), &disk, 10 * HOUR_NS, 1_000 * MS);
    let mut call = first.begin(1);
    for _ in 0..500 {
        first.packet(&mut call);
        first.pass(10);
    }
    first.close(&mut call);
    first.pass(1_500);
    let (ordinal, seq, now_ns) = (call.ordinal, call.seq, first.now_ns);
    let last = first.seen.iter().rev().find_map(|notice| match notice {
        RecorderNotice::Progress {
            last_segment,
            last_page,
            ..
        } => Some((*last_segment, *last_page)),
        _ => None,
    });
    let (prev_segment, prev_page) = last.expect("progress");
    drop(first);

    // The clock was an hour fast, and somebody has set it right meanwhile.
    let mut second = restarted(directory.path(), &disk, 9 * HOUR_NS, now_ns);
    let begin = RecorderCommand::Begin {
        session: 101,
        recording: 1,
        first_ordinal: ordinal,
        prev_segment,
        prev_page,
    };
    second.commands.push(begin).expect("room");
    let mut call = Capturing {
        recording: 1,
        ordinal,
        seq,
        open: None,
        refused: 0,
    };
    for _ in 0..500 {
        second.packet(&mut call);
        second.pass(10);
    }
    second.finish(&mut call);
    second.pass(300);
    let (_, place, dropped) = second.closed(1).expect("closed");
    assert_eq!((call.refused, dropped), (0, 0));
    for last in [Some(place), None] {
        let capture = second.read(1, last);
        assert_eq!(audio(&capture), (0..1_000).collect::<Vec<_>>());
        // Without its footer the first segment is only not finished yet.
        let missing = |damage: &trunkline_sn3::Damage| damage.what.contains("missing");
        assert!(
            !capture.damages().iter().any(missing),
            "{:?}",
            capture.damages()
        );
    }
    let segments = second.save().to_path_buf();
    recover::finish_leftovers(&segments, &Keys::none()).expect("listed");
    for number in disk.numbers() {
        let report = verify(&segments.join(format!("w0-{number:08}.sn3s"))).expect("a segment");
        assert!(report.is_whole(), "{:?}", report.damages);
    }
    let capture = Capture::open_in_directory(&segments, 1, None).expect("a recording");
    assert_eq!(audio(&capture), (0..1_000).collect::<Vec<_>>());
}
