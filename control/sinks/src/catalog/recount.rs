//! A recording's streams, counted from its own frames: what stands when the dataplane that captured
//! them died before it could tell.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use trunkline_sn3::{Capture, CaptureError, Frame, FrameKind, Keys};

use crate::verdict::StreamCounts;

/// A longer step between two packets of a stream is a restart of its numbers (RFC 3550 appendix A.1).
const STEP_MAX: u16 = 3000;

/// Counts a recording up to its extent `last` (segment, page).
///
/// # Errors
/// The recording cannot be read.
pub fn count_recording(
    segments: &Path,
    recording: u64,
    last: (u32, u32),
    keys: &Keys,
) -> Result<Vec<StreamCounts>, CaptureError> {
    Capture::open_in_directory_with(segments, recording, Some(last), keys)
        .map(|capture| count(&capture))
}

/// Counts a capture's audio streams.
pub(super) fn count(capture: &Capture) -> Vec<StreamCounts> {
    let facts = capture.facts();
    let mut streams = BTreeMap::<(bool, u8, u32), Seen>::new();
    for frame in capture.frames() {
        if frame.kind == FrameKind::Rtp && frame.side <= 1 {
            let paused = facts.pauses.iter();
            let interval = paused
                .filter(|pause| pause.from_ns <= frame.wall_ns)
                .count();
            streams
                .entry((frame.side == 1, frame.media, frame.ssrc.unwrap_or_default()))
                .or_default()
                .take(&frame, interval);
        }
    }
    for (_, drop) in &facts.drops {
        let of_stream = streams.iter_mut().find(|((from_callee, _, ssrc), _)| {
            *from_callee == (drop.side == 1) && (drop.ssrc == 0 || drop.ssrc == *ssrc)
        });
        if let Some((_, seen)) = of_stream {
            seen.dropped.push((drop.reason_name(), drop.count));
        }
    }
    let counts = streams
        .into_iter()
        .map(|((from_callee, media, ssrc), seen)| StreamCounts {
            from_callee,
            media,
            ssrc,
            ..seen.finish()
        });
    counts.collect()
}

/// Numbers that go on without a restart or a pause between.
#[derive(Default)]
struct Run {
    interval: usize,
    highest: i64,
    numbers: BTreeSet<i64>,
}

impl Run {
    /// The packet's place in this run, unless it belongs to another one.
    fn place(&self, sequence: u16, interval: usize) -> Option<i64> {
        let step = sequence.wrapping_sub(self.highest as u16).cast_signed();
        let follows = interval == self.interval && step.unsigned_abs() <= STEP_MAX;
        (follows && !self.numbers.is_empty()).then(|| self.highest + i64::from(step))
    }

    fn expected(&self) -> u64 {
        let ends = self.numbers.first().zip(self.numbers.last());
        ends.map_or(0, |(first, last)| first.abs_diff(*last) + 1)
    }
}

/// What the frames of one stream show.
#[derive(Default)]
struct Seen {
    run: Run,
    /// Of the runs before.
    expected: u64,
    written: u64,
    duplicates: u64,
    reordered: u64,
    bytes: u64,
    first_ns: Option<u64>,
    last_ns: u64,
    first_sequence: Option<u16>,
    dropped: Vec<(&'static str, u64)>,
}

impl Seen {
    fn take(&mut self, frame: &Frame<'_>, interval: usize) {
        let place = self.run.place(frame.seq, interval).unwrap_or_else(|| {
            self.end_run();
            self.run.interval = interval;
            self.run.highest = i64::from(frame.seq);
            self.run.highest
        });
        if !self.run.numbers.insert(place) {
            self.duplicates += 1;
        } else if place < self.run.highest {
            self.reordered += 1;
        }
        self.run.highest = self.run.highest.max(place);
        self.first_sequence.get_or_insert(frame.seq);
        self.first_ns.get_or_insert(frame.wall_ns);
        self.last_ns = frame.wall_ns;
        self.bytes += frame.payload.len() as u64;
    }

    fn end_run(&mut self) {
        self.expected += self.run.expected();
        self.written += self.run.numbers.len() as u64;
        self.run.numbers.clear();
    }

    fn finish(mut self) -> StreamCounts {
        self.end_run();
        let dropped: u64 = self.dropped.iter().map(|(_, count)| count).sum();
        // What is missing was dropped as far as drops are on record, else lost; drops beyond the
        // gaps happened after the last packet that was kept.
        let lost = (self.expected - self.written).saturating_sub(dropped);
        StreamCounts {
            expected: self.written + lost + dropped,
            written: self.written,
            lost,
            dropped: self.dropped,
            duplicates: self.duplicates,
            reordered: self.reordered,
            bytes: self.bytes,
            covered_ms: self.last_ns.saturating_sub(self.first_ns.unwrap_or(0)) / 1_000_000,
            first_sequence: self.first_sequence,
            last_sequence: Some(self.run.highest as u16),
            ..StreamCounts::default()
        }
    }
}
