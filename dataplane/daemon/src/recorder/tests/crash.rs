//! A power cut after every single call to the disk: what was reported as durable is there.

use trunkline_sn3::cipher::MasterKey;
use trunkline_sn3::sim::DiskCall;

use super::*;

/// What the recorder said was durable: after so many calls, so many packets of a recording.
#[derive(Debug, Clone, Copy)]
struct Promise {
    calls: usize,
    recording: u64,
    packets: usize,
}

/// Packets in a recording's extents up to a place.
fn packets_until(bench: &Bench, recording: u64, place: (u32, u32), keys: &Keys) -> usize {
    let path = bench.directory.path().join("segments");
    bench.disk.save(&path).expect("saved");
    let capture = Capture::open_in_directory_with(&path, recording, Some(place), keys);
    let capture = capture.expect("what was promised is there");
    let reader = capture.recording().expect("from segments");
    let mut frames = 0;
    for view in reader.extents_in_order() {
        frames += view.header.frames as usize;
        let segment = reader
            .segments()
            .iter()
            .find(|segment| segment.number() == place.0);
        let own = segment.is_some_and(|segment| {
            segment
                .extent_at(place.1)
                .is_ok_and(|last| last.header.ordinal == view.header.ordinal)
        });
        if own {
            break;
        }
    }
    frames
}

/// Records two calls over several segments; gives every promise and the disk's calls.
fn record(keys: &Keys) -> (Vec<Promise>, Vec<DiskCall>, tempfile::TempDir) {
    let given = keys.clone();
    let mut bench = bench(|settings| {
        settings.segment_bytes = 120_000;
        settings.keys = given;
        std::fs::create_dir_all(settings.segments()).expect("a directory");
    });
    let mut calls = [bench.begin(1), bench.begin(2)];
    let mut promises = Vec::new();
    for round in 0..700 {
        for call in &mut calls {
            bench.packet(call);
        }
        if round == 500 {
            bench.finish(&mut calls[0]);
            calls[0] = bench.begin(3);
        }
        bench.pass(10);
        let seen = std::mem::take(&mut bench.seen);
        for notice in seen {
            let (recording, place) = match notice {
                RecorderNotice::Progress {
                    recording,
                    last_segment,
                    last_page,
                    ..
                }
                | RecorderNotice::Closed {
                    recording,
                    last_segment,
                    last_page,
                    ..
                } => (recording, (last_segment, last_page)),
                RecorderNotice::DiskAlarm { .. } => continue,
            };
            if place.0 != 0 {
                promises.push(Promise {
                    calls: bench.disk.log().len(),
                    recording,
                    packets: packets_until(&bench, recording, place, keys),
                });
            }
        }
    }
    let log = bench.disk.log();
    (promises, log, bench.directory)
}

/// A small seeded generator (xorshift64*).
fn picker(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed | 1;
    move |limit| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit.max(1)
    }
}

fn survives(keys: &Keys, rounds: u64) {
    let (promises, log, recorded) = record(keys);
    assert!(promises.len() > 6, "{promises:?}");
    for cut in 1..=log.len() {
        for round in 0..rounds {
            let mut pick = picker(cut as u64 * 1_000 + round + 1);
            let disk = SimDisk::after_power_cut(&log[..cut], &mut pick);
            let directory = tempfile::tempdir().expect("a directory");
            disk.save(directory.path()).expect("saved");
            copy_keys(&recorded, directory.path());
            // A segment whose first unit was torn stays as it is: nothing in it was promised yet.
            recover::finish_leftovers(directory.path(), keys).expect("listed");
            for recording in 1..=3 {
                let promised = promises
                    .iter()
                    .filter(|promise| promise.recording == recording && promise.calls <= cut)
                    .map(|promise| promise.packets)
                    .max();
                let Some(promised) = promised else { continue };
                let capture =
                    Capture::open_in_directory_with(directory.path(), recording, None, keys)
                        .unwrap_or_else(|error| panic!("cut {cut}, round {round}: {error}"));
                let heard = audio(&capture);
                let whole = heard
                    .iter()
                    .zip(0u16..)
                    .take_while(|(one, at)| **one == *at);
                assert!(
                    whole.count() >= promised,
                    "cut {cut}, round {round}: recording {recording} has {} of {promised}",
                    heard.len()
                );
            }
        }
    }
}

fn copy_keys(recorded: &tempfile::TempDir, to: &Path) {
    let segments = recorded.path().join("segments");
    for entry in std::fs::read_dir(segments).expect("listed") {
        let path = entry.expect("an entry").path();
        if path
            .extension()
            .is_some_and(|extension| extension == "sn3k")
        {
            std::fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("copied");
        }
    }
}

#[test]
fn a_power_cut_after_any_write_leaves_every_checkpointed_frame_readable() {
    survives(&Keys::none(), 3);
}

#[test]
fn the_same_holds_for_encrypted_recordings() {
    survives(&Keys::new(vec![MasterKey::from_bytes(&[9; 32])]), 1);
}
