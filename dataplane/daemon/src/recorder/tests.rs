//! The recorder on a disk that misbehaves, in virtual time.

mod batches;
mod crash;

use std::path::Path;

use trunkline_link::counters::Counters;
use trunkline_link::doorbell::Doorbell;
use trunkline_link::limits::EXTENT_BYTES;
use trunkline_link::message::Side;
use trunkline_link::pool::Pool;
use trunkline_sn3::cipher::MasterKey;
use trunkline_sn3::extent::Appender;
use trunkline_sn3::sim::{Faults, SimDisk};
use trunkline_sn3::verify::verify;
use trunkline_sn3::{Capture, FrameHead, FrameKind};

use super::*;

const MS: u64 = 1_000_000;
const POOL: usize = 64;

/// A worker that fills extents, and time.
struct Bench {
    recorder: Recorder<SimDisk>,
    queues: CaptureQueues,
    disk: SimDisk,
    notices: Arc<ArrayQueue<RecorderNotice>>,
    commands: Arc<ArrayQueue<RecorderCommand>>,
    directory: tempfile::TempDir,
    now_ns: u64,
    seen: Vec<RecorderNotice>,
}

/// One recording on the worker.
struct Capturing {
    recording: u64,
    ordinal: u32,
    seq: u16,
    open: Option<(Extent, Appender)>,
    /// Frames that found no extent.
    refused: u64,
}

fn bell() -> Arc<Bell> {
    Arc::new(Bell::new(Doorbell::create().expect("an eventfd")))
}

fn bench(change: impl FnOnce(&mut RecorderSettings)) -> Bench {
    let directory = tempfile::tempdir().expect("a directory");
    let mut settings = RecorderSettings::new(directory.path(), POOL, 1);
    change(&mut settings);
    let (_pool, extents) = Pool::create(POOL).expect("a pool");
    let (_counters, writers) = Counters::create(1).expect("counters");
    let queues = CaptureQueues::new(POOL);
    let disk = SimDisk::new();
    let notices = Arc::new(ArrayQueue::new(1024));
    let commands = Arc::new(ArrayQueue::new(16));
    let parts = RecorderParts {
        settings,
        queues: vec![queues.clone()],
        extents,
        commands: commands.clone(),
        notices: notices.clone(),
        bell: bell(),
        conductor_bell: bell(),
        counters: writers.recorder,
    };
    let mut recorder = Recorder::new(parts, disk.clone(), Clocks::default());
    recorder.refill();
    let seen = Vec::new();
    Bench {
        recorder,
        queues,
        disk,
        notices,
        commands,
        directory,
        now_ns: 1_000 * MS,
        seen,
    }
}

impl Bench {
    /// Lets time pass in steps of 10 ms.
    fn pass(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(10) {
            self.now_ns += 10 * MS;
            let _ = self.recorder.turn(self.now_ns);
            while let Some(notice) = self.notices.pop() {
                self.seen.push(notice);
            }
        }
    }

    fn begin(&mut self, recording: u64) -> Capturing {
        let begin = RecorderCommand::Begin {
            session: 100 + recording,
            recording,
            first_ordinal: 0,
            prev_segment: 0,
            prev_page: 0,
        };
        self.commands.push(begin).expect("room");
        Capturing {
            recording,
            ordinal: 0,
            seq: 0,
            open: None,
            refused: 0,
        }
    }

    /// Captures a packet of 160 bytes.
    fn packet(&mut self, on: &mut Capturing) {
        let head = FrameHead {
            side: (on.seq & 1) as u8,
            seq: on.seq,
            ssrc: 7,
            ..FrameHead::note(FrameKind::Rtp, u64::from(on.seq) * 10 * MS)
        };
        on.seq += 1;
        for _ in 0..2 {
            if on.open.is_none() {
                let Some(mut extent) = self.queues.ready.pop() else {
                    break;
                };
                extent.open(0, on.recording, on.ordinal, 0);
                let appender =
                    Appender::open(extent.bytes_mut(), on.recording, on.ordinal, self.now_ns);
                on.ordinal += 1;
                on.open = Some((extent, appender));
            }
            let Some((extent, appender)) = &mut on.open else {
                break;
            };
            if let Ok(used) = appender.append(extent.bytes_mut(), &head, &[on.seq as u8; 160]) {
                extent.publish(used as usize);
                return;
            }
            self.close(on);
        }
        on.refused += 1;
    }

    fn close(&mut self, on: &mut Capturing) {
        if let Some((mut extent, _)) = on.open.take() {
            extent.set_full();
            self.queues
                .closed
                .push(Closed::Extent(extent))
                .expect("room");
        }
    }

    fn finish(&mut self, on: &mut Capturing) {
        self.close(on);
        let (session, recording) = (100 + on.recording, on.recording);
        self.queues
            .closed
            .push(Closed::Finish { session, recording })
            .expect("room");
    }

    fn closed(&self, wanted: u64) -> Option<(u32, (u32, u32), u64)> {
        self.seen.iter().find_map(|notice| match notice {
            RecorderNotice::Closed {
                session,
                recording,
                extents,
                last_segment,
                last_page,
                disk_drops,
                ..
            } if *recording == wanted => {
                assert_eq!(*session, 100 + wanted);
                let dropped = disk_drops.iter().map(|drop| drop.packets).sum();
                Some((*extents, (*last_segment, *last_page), dropped))
            }
            _ => None,
        })
    }

    fn chain_head(&self, wanted: u64) -> chain::Link {
        let head = self.seen.iter().find_map(|notice| match notice {
            RecorderNotice::Closed {
                recording,
                chain_head,
                ..
            } if *recording == wanted => Some(*chain_head),
            _ => None,
        });
        head.expect("closed")
    }

    fn alarms(&self) -> Vec<bool> {
        let alarm = |notice: &RecorderNotice| match notice {
            RecorderNotice::DiskAlarm { active } => Some(*active),
            _ => None,
        };
        self.seen.iter().filter_map(alarm).collect()
    }

    fn save(&self) -> &Path {
        self.disk.save(self.directory.path()).expect("saved");
        self.directory.path()
    }

    fn read(&self, recording: u64, last: Option<(u32, u32)>) -> Capture {
        Capture::open_in_directory(self.save(), recording, last).expect("there")
    }

    /// No extent is lost to the pool.
    fn extents_in_hand(&self) -> usize {
        self.recorder.shared.free.len() + self.recorder.untouched.len() + self.queues.ready.len()
    }
}

fn audio(capture: &Capture) -> Vec<u16> {
    capture
        .frames()
        .filter(|frame| frame.is_audio())
        .map(|frame| frame.seq)
        .collect()
}

#[test]
fn recordings_are_written_closed_and_readable() {
    let mut bench = bench(|_| {});
    let mut calls = [bench.begin(1), bench.begin(2)];
    for round in 0..500 {
        for call in &mut calls {
            bench.packet(call);
        }
        if round % 10 == 9 {
            bench.pass(100);
        }
    }
    bench.finish(&mut calls[0]);
    bench.pass(200);
    let (extents, last, dropped) = bench.closed(1).expect("closed within 200 ms");
    assert!(bench.closed(2).is_none());
    assert_eq!((extents, dropped), (calls[0].ordinal, 0));
    let capture = bench.read(1, Some(last));
    assert_eq!(audio(&capture), (0..500).collect::<Vec<_>>());
    assert!(capture.damages().is_empty() && capture.recording().is_some_and(|r| r.is_ended()));

    bench.finish(&mut calls[1]);
    bench.pass(200);
    assert!(bench.closed(2).is_some() && bench.alarms().is_empty());
    for recording in [1, 2] {
        let capture = bench.read(recording, None);
        let reader = capture.recording().expect("from segments");
        assert_eq!(reader.chain_head(), Some(bench.chain_head(recording)));
    }
    assert_eq!(bench.extents_in_hand(), POOL);
    bench.commands.push(RecorderCommand::Stop).expect("room");
    bench.pass(50);
    let directory = bench.save();
    let report = verify(&directory.join("w0-00000001.sn3s")).expect("a segment");
    assert!(report.is_whole() && report.finished, "{:?}", report.damages);
}

#[test]
fn progress_tells_what_survives_a_power_cut() {
    let mut bench = bench(|_| {});
    let mut call = bench.begin(1);
    for _ in 0..250 {
        bench.packet(&mut call);
        bench.pass(20);
    }
    let told = bench.seen.iter().rev().find_map(|notice| match notice {
        RecorderNotice::Progress {
            last_segment,
            last_page,
            next_ordinal,
            ..
        } => Some(((*last_segment, *last_page), *next_ordinal)),
        _ => None,
    });
    let (last, next_ordinal) = told.expect("five seconds have passed");
    assert!(next_ordinal >= 2);
    bench.disk.crash();
    let capture = Capture::open_in_directory(bench.save(), 1, None).expect("there");
    let found = capture
        .recording()
        .map(trunkline_sn3::RecordingReader::last)
        .expect("segments");
    assert!((found.0, found.1) >= last, "{found:?} after {last:?}");
    let seqs = audio(&capture);
    assert_eq!(seqs, (0..seqs.len() as u16).collect::<Vec<_>>());
}

#[test]
fn a_full_disk_costs_exactly_what_is_reported() {
    let mut bench = bench(|settings| settings.disk_wait_ns = 500 * MS);
    let mut call = bench.begin(1);
    for n in 0..3_000 {
        match n {
            800 => bench.disk.set_faults(Faults {
                space: Some(45 * 4096),
                ..Faults::default()
            }),
            2_200 => bench.disk.set_faults(Faults::default()),
            _ => {}
        }
        bench.packet(&mut call);
        bench.pass(10);
    }
    bench.finish(&mut call);
    bench.pass(300);
    let (_, last, dropped) = bench.closed(1).expect("closed");
    assert_eq!(bench.alarms(), [true, false]);
    assert!(dropped > 300, "the disk was full for 14 s: {dropped}");
    let capture = bench.read(1, Some(last));
    let seqs = audio(&capture);
    assert_eq!(
        seqs.len() as u64 + dropped + call.refused,
        3_000,
        "nothing is lost silently"
    );
    assert!(capture.damages().is_empty(), "{:?}", capture.damages());
    let marked: u64 = capture
        .facts()
        .drops
        .iter()
        .map(|(_, record)| record.count)
        .sum();
    assert_eq!(marked, dropped, "and it is marked in the recording");
    assert_eq!(bench.extents_in_hand(), POOL);
}

#[test]
fn a_disk_that_stays_full_ends_the_recording_with_its_drops() {
    let mut bench = bench(|settings| settings.disk_wait_ns = 500 * MS);
    bench.disk.set_faults(Faults {
        space: Some(0),
        ..Faults::default()
    });
    let mut call = bench.begin(1);
    for _ in 0..400 {
        bench.packet(&mut call);
        bench.pass(10);
    }
    bench.finish(&mut call);
    bench.pass(1_500);
    let (extents, last, dropped) = bench.closed(1).expect("not kept waiting");
    assert_eq!((extents, last), (0, (0, 0)));
    assert_eq!(dropped + call.refused, 400);
    assert_eq!(bench.extents_in_hand(), POOL);
    let by_side = |wanted: Side| {
        let drops = bench.seen.iter().rev().find_map(|notice| match notice {
            RecorderNotice::Closed { disk_drops, .. } => Some(disk_drops.clone()),
            _ => None,
        });
        drops
            .expect("closed")
            .iter()
            .filter(|drop| drop.side == wanted)
            .map(|d| d.packets)
            .sum()
    };
    let (caller, callee): (u64, u64) = (by_side(Side::Caller), by_side(Side::Callee));
    assert_eq!(caller + callee, dropped);
    assert!(caller.abs_diff(callee) <= 1);
}

#[test]
fn a_short_refusal_costs_nothing() {
    let mut bench = bench(|_| {});
    let mut call = bench.begin(1);
    for n in 0..1_000 {
        match n {
            300 => bench.disk.set_faults(Faults {
                write_errors: true,
                ..Faults::default()
            }),
            400 => bench.disk.set_faults(Faults {
                write_max: Some(9_000),
                ..Faults::default()
            }),
            600 => bench.disk.set_faults(Faults {
                sync_errors: true,
                ..Faults::default()
            }),
            // Longer than from one checkpoint to the next.
            750 => bench.disk.set_faults(Faults::default()),
            _ => {}
        }
        bench.packet(&mut call);
        bench.pass(10);
    }
    bench.finish(&mut call);
    bench.pass(500);
    let (_, last, dropped) = bench.closed(1).expect("closed");
    assert_eq!(dropped + call.refused, 0);
    assert_eq!(bench.alarms(), [true, false, true, false]);
    let capture = bench.read(1, Some(last));
    assert_eq!(audio(&capture), (0..1_000).collect::<Vec<_>>());
    assert!(
        bench.disk.numbers().len() > 1,
        "after EIO another file is used"
    );
    bench.commands.push(RecorderCommand::Stop).expect("room");
    bench.pass(50);
    let directory = bench.save();
    for number in bench.disk.numbers() {
        let report = verify(&directory.join(format!("w0-{number:08}.sn3s"))).expect("a segment");
        assert!(
            report.is_whole() && report.finished,
            "segment {number}: {:?}",
            report.damages
        );
    }
}

#[test]
fn few_extents_wait_so_that_the_pool_stays_warm() {
    let mut bench = bench(|settings| settings.waiting_max = 8);
    bench.disk.set_faults(Faults {
        write_errors: true,
        ..Faults::default()
    });
    let mut call = bench.begin(1);
    for _ in 0..85 * 40 {
        bench.packet(&mut call);
        if call.seq.is_multiple_of(10) {
            bench.pass(10);
        }
    }
    assert_eq!(call.refused, 0, "there always was an extent");
    assert!(bench.recorder.shared.waiting <= 8);
}

#[test]
fn segments_roll_by_size_and_a_recording_goes_on() {
    let mut bench = bench(|settings| settings.segment_bytes = 100_000);
    let mut call = bench.begin(1);
    for _ in 0..2_000 {
        bench.packet(&mut call);
        bench.pass(10);
    }
    bench.finish(&mut call);
    bench.pass(300);
    assert!(bench.disk.numbers().len() > 3);
    let (_, last, _) = bench.closed(1).expect("closed");
    assert_eq!(audio(&bench.read(1, Some(last))).len(), 2_000);
    let report = verify(&bench.save().join("w0-00000002.sn3s")).expect("a segment");
    assert!(report.is_whole() && report.finished);
}

#[test]
fn a_recording_that_goes_on_after_a_restart_chains_to_what_was_before() {
    let mut bench = bench(|_| {});
    let begin = RecorderCommand::Begin {
        session: 101,
        recording: 1,
        first_ordinal: 5,
        prev_segment: 77,
        prev_page: 13,
    };
    bench.commands.push(begin).expect("room");
    let mut call = Capturing {
        recording: 1,
        ordinal: 5,
        seq: 0,
        open: None,
        refused: 0,
    };
    bench.packet(&mut call);
    bench.finish(&mut call);
    bench.pass(300);
    assert!(bench.closed(1).is_some());
    let capture = bench.read(1, None);
    assert!(
        capture.damages()[0].what.contains("extents 0 to 4"),
        "{:?}",
        capture.damages()
    );
}

#[test]
fn a_recording_without_a_frame_is_closed_too() {
    let mut bench = bench(|_| {});
    let mut call = bench.begin(3);
    bench.finish(&mut call);
    bench.pass(300);
    let (extents, last, _) = bench.closed(3).expect("closed");
    assert_eq!(extents, 1);
    assert_eq!(bench.read(3, Some(last)).frames().count(), 0);
}

#[test]
fn the_thread_writes_to_a_real_directory() {
    let directory = tempfile::tempdir().expect("a directory");
    let (_pool, extents) = Pool::create(POOL).expect("a pool");
    let (_counters, writers) = Counters::create(1).expect("counters");
    let queues = CaptureQueues::new(POOL);
    let notices = Arc::new(ArrayQueue::new(64));
    let commands = Arc::new(ArrayQueue::new(16));
    let recorder_bell = bell();
    let settings = RecorderSettings::new(directory.path(), POOL, 1);
    let segments = settings.segments();
    let thread = spawn(RecorderParts {
        settings,
        queues: vec![queues.clone()],
        extents,
        commands: commands.clone(),
        notices: notices.clone(),
        bell: recorder_bell.clone(),
        conductor_bell: bell(),
        counters: writers.recorder,
    })
    .expect("started");
    let mut extent = queues.ready.pop().expect("warm before the thread runs");
    assert_eq!(extent.bytes().len(), EXTENT_BYTES);
    extent.open(0, 9, 0, 0);
    let mut appender = Appender::open(extent.bytes_mut(), 9, 0, 1);
    let used = appender
        .append(
            extent.bytes_mut(),
            &FrameHead::note(FrameKind::Mark, 0),
            b"hello",
        )
        .expect("room");
    extent.publish(used as usize);
    extent.set_full();
    queues.closed.push(Closed::Extent(extent)).expect("room");
    queues
        .closed
        .push(Closed::Finish {
            session: 1,
            recording: 9,
        })
        .expect("room");
    recorder_bell.ring();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    let last = loop {
        assert!(
            std::time::Instant::now() < deadline,
            "the recording is closed in time"
        );
        match notices.pop() {
            Some(RecorderNotice::Closed {
                last_segment,
                last_page,
                ..
            }) => {
                break (last_segment, last_page);
            }
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let live = verify(&segments.join("w0-00000001.sn3s")).expect("a segment");
    assert!(
        live.is_whole() && !live.finished,
        "a segment being written is not damaged"
    );
    let capture = Capture::open_in_directory(&segments, 9, Some(last)).expect("there");
    assert_eq!(
        capture
            .frames()
            .next()
            .map(|frame| frame.payload.into_owned()),
        Some(b"hello".to_vec())
    );
    commands.push(RecorderCommand::Stop).expect("room");
    recorder_bell.ring();
    thread.join().expect("ended");
    let report = verify(&segments.join("w0-00000001.sn3s")).expect("a segment");
    assert!(report.is_whole() && report.finished, "{:?}", report.damages);
}

#[test]
fn encrypted_recordings_are_read_with_their_key_only_and_gone_without_it() {
    let keys = Keys::new(vec![MasterKey::from_bytes(&[5; 32])]);
    let given = keys.clone();
    let mut bench = bench(|settings| {
        settings.keys = given;
        std::fs::create_dir_all(settings.segments()).expect("a directory");
    });
    let mut calls = [bench.begin(1), bench.begin(2)];
    for _ in 0..400 {
        for call in &mut calls {
            bench.packet(call);
        }
        bench.pass(10);
    }
    for call in &mut calls {
        bench.finish(call);
    }
    bench.pass(300);
    let (_, last, dropped) = bench.closed(1).expect("closed");
    assert_eq!(dropped, 0);
    let segments = bench.directory.path().join("segments");
    bench.disk.save(&segments).expect("saved");
    let payload = [7u8; 160];
    for (_, path) in trunkline_sn3::segment::list(&segments).expect("listed") {
        let bytes = std::fs::read(&path).expect("read");
        assert!(
            !bytes.windows(160).any(|window| window == payload),
            "audio in the clear"
        );
        let report = verify(&path).expect("a segment");
        // It is still being written: nothing but its footer is missing.
        let missing = report.damages.iter().map(|damage| damage.what.as_str());
        assert!(
            missing.clone().all(|what| what.contains("no footer")),
            "{report:?}"
        );
        assert!(report.encrypted > 5, "{report:?}");
        assert_eq!(report.chained, report.encrypted);
    }
    let open = |keys: &Keys, last| Capture::open_in_directory_with(&segments, 1, last, keys);
    for last in [Some(last), None] {
        let capture = open(&keys, last).expect("its key is there");
        assert_eq!(audio(&capture), (0..400).collect::<Vec<_>>());
        assert!(capture.damages().is_empty());
        let frame = capture
            .frames()
            .find(|frame| frame.seq == 6)
            .expect("a frame");
        assert_eq!(*frame.payload, payload);
    }
    let other = Keys::new(vec![MasterKey::from_bytes(&[6; 32])]);
    for wrong in [Keys::none(), other] {
        let refused = open(&wrong, None);
        assert!(matches!(
            refused,
            Err(trunkline_sn3::CaptureError::NoKey { recording: 1, .. })
        ));
    }
    // A damaged byte costs one frame, not the extent.
    let path = segments.join("w0-00000001.sn3s");
    let whole = std::fs::read(&path).expect("read");
    let mut bytes = whole.clone();
    bytes[4096 + 5000] ^= 1;
    std::fs::write(&path, &bytes).expect("written");
    let damaged: usize = [1, 2]
        .map(|recording| {
            let capture = Capture::open_in_directory_with(&segments, recording, None, &keys);
            400 - audio(&capture.expect("readable")).len()
        })
        .iter()
        .sum();
    assert_eq!(damaged, 1);
    std::fs::write(&path, &whole).expect("written");
    let one = std::collections::BTreeSet::from([1]);
    trunkline_sn3::erase::erase_recordings(&segments, &one).expect("erased");
    let gone = open(&keys, None).expect("its holes are known");
    assert_eq!(gone.frames().count(), 0);
    assert!(keys.find(&segments, 1).expect("read").is_none());
    assert!(keys.find(&segments, 2).expect("read").is_some());
}
