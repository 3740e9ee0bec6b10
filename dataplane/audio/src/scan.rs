//! The first pass over the frames: shapes, then runs with their segments and statistics.

use crate::content::{Assumed, Content, Contents};
use crate::events::Collector;
use crate::guess::{Guess, Shape};
use crate::router::{Routed, Router, SourceKey, duration_ticks, media_ns};
use crate::segment::{Arrival, LATENESS_MAX_NS, Segment, Tracker};
use trunkline_codec::{CodecKind, Format};
use trunkline_sn3::Capture;

/// Sequence numbers behind the highest in which duplicates are recognised.
const WINDOW: usize = 8_192;
/// Codec changes remembered of one run.
const CODECS_MAX: usize = 256;

/// One run after the first pass.
#[derive(Debug, Clone)]
pub(crate) struct RunScan {
    pub(crate) key: SourceKey,
    pub(crate) segments: Vec<Segment>,
    pub(crate) counts: Counts,
    pub(crate) codecs: Vec<CodecSeen>,
    /// Packets of sound.
    pub(crate) sound: u64,
    /// How long to wait for a packet that was overtaken, ns.
    pub(crate) hold_ns: i64,
}

#[derive(Debug, Clone)]
pub(crate) struct CodecSeen {
    pub(crate) format: Option<Format>,
    pub(crate) content: Content,
    pub(crate) payload_type: Option<u8>,
    pub(crate) from_ns: i64,
    pub(crate) packets: u64,
    pub(crate) assumed: bool,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    pub(crate) distinct: u64,
    pub(crate) duplicates: u64,
    pub(crate) reordered: u64,
    pub(crate) lowest: i64,
    pub(crate) highest: i64,
    pub(crate) first_ns: i64,
    pub(crate) last_ns: i64,
    pub(crate) jitter_ns: f64,
    pub(crate) jitter_max_ns: f64,
}

/// What is assumed where the capture says nothing.
pub(crate) struct Assumptions {
    /// By run.
    pub(crate) runs: Vec<Assumed>,
    /// To be said aloud.
    pub(crate) notes: Vec<String>,
}

/// Reads the capture for payload sizes and timestamp steps, and judges them.
pub(crate) fn assume(capture: &Capture, codec: Option<Format>) -> Assumptions {
    let mut router = Router::new(capture.format(), Vec::new());
    let mut contents = Contents::new(capture.facts());
    let mut shapes: Vec<(Shape, Option<Format>)> = Vec::new();
    for frame in capture.frames().filter(|frame| frame.is_audio()) {
        let Some(routed) = router.route(&frame) else {
            continue;
        };
        if shapes.len() <= routed.run {
            shapes.resize_with(routed.run + 1, Default::default);
        }
        let (shape, declared) = &mut shapes[routed.run];
        match contents.described(&frame) {
            Some(Content::Sound(format)) => {
                if declared.get_or_insert(format).kind == format.kind {
                    shape.add(
                        routed.sequence,
                        routed.ticks,
                        routed.wall_ns,
                        &frame.payload,
                    );
                }
            }
            Some(_) => {}
            None if is_event(&frame.payload) => {}
            None => shape.add(
                routed.sequence,
                routed.ticks,
                routed.wall_ns,
                &frame.payload,
            ),
        }
    }
    judge(router.keys(), &shapes, codec)
}

fn is_event(payload: &[u8]) -> bool {
    payload.is_empty() || trunkline_codec::telephone_event::EventReport::resembles(payload)
}

fn judge(
    keys: &[SourceKey],
    shapes: &[(Shape, Option<Format>)],
    codec: Option<Format>,
) -> Assumptions {
    let undescribed = |index: &usize| shapes[*index].1.is_none() && shapes[*index].0.packets() > 0;
    let side_guess = [0, 1].map(|side| {
        let of_side = (0..shapes.len())
            .filter(|&i| keys[i].side == side)
            .filter(undescribed);
        of_side
            .max_by_key(|&i| shapes[i].0.weight())
            .map(|i| shapes[i].0.guess())
    });
    let mut assumptions = Assumptions {
        runs: Vec::new(),
        notes: Vec::new(),
    };
    for (key, (shape, declared)) in keys.iter().zip(shapes) {
        let side = usize::from(key.side & 1);
        let guess = match &side_guess[side] {
            Some(guess) if shape.weight() < 3 => guess.clone(),
            _ => shape.guess(),
        };
        let mut assumed = Assumed::new(declared.or(codec).unwrap_or(guess.format), shape);
        let countable = matches!(
            assumed.format.kind,
            CodecKind::G722 | CodecKind::Opus | CodecKind::L16
        );
        if countable && let Some(clock_hz) = shape.true_clock(&assumed.format) {
            assumptions.note(format!(
                "{}: {} timestamps tick at {clock_hz} Hz instead of {} Hz",
                SIDES[side],
                assumed.format.kind.name(),
                assumed.format.clock_hz,
            ));
            assumed.clock = Some((assumed.format.kind, clock_hz));
            assumed.format.clock_hz = clock_hz;
        }
        if declared.is_none() && codec.is_none() && shape.packets() > 0 && !guess.plain {
            assumptions.note(describe_guess(side, &guess));
        }
        assumptions.runs.push(assumed);
    }
    assumptions
}

/// Names of the sides.
pub(crate) const SIDES: [&str; 2] = ["caller", "callee"];

fn describe_guess(side: usize, guess: &Guess) -> String {
    format!(
        "{}: the capture does not name the codec; guessed {} at {} Hz from {} (--codec overrides)",
        SIDES[side],
        guess.format.kind.name(),
        guess.format.clock_hz,
        guess.why,
    )
}

impl Assumptions {
    fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }
}

/// The runs of a capture.
pub(crate) struct Scan {
    pub(crate) runs: Vec<RunScan>,
    pub(crate) events: Collector,
    /// Frames whose capture time is nonsense, and the first one's place in the file.
    pub(crate) nonsense: u64,
    pub(crate) nonsense_offset: Option<u64>,
    /// Capture time of the last frame of any kind, ns.
    pub(crate) last_ns: i64,
}

struct Running {
    scan: RunScan,
    tracker: Tracker,
    window: Vec<u64>,
    transit: Option<i64>,
}

/// Reads the capture for placement and statistics.
pub(crate) fn scan(capture: &Capture, assumed: &[Assumed]) -> Scan {
    let formats = assumed.iter().map(|assumed| Some(assumed.format)).collect();
    let mut router = Router::new(capture.format(), formats);
    let mut contents = Contents::new(capture.facts());
    let mut running: Vec<Running> = Vec::new();
    let mut outcome = Scan {
        runs: Vec::new(),
        events: Collector::default(),
        nonsense: 0,
        nonsense_offset: None,
        last_ns: 0,
    };
    for frame in capture.frames().filter(|frame| frame.is_audio()) {
        let Some(routed) = router.route(&frame) else {
            outcome.nonsense += 1;
            outcome.nonsense_offset.get_or_insert(frame.offset);
            continue;
        };
        outcome.last_ns = outcome.last_ns.max(routed.wall_ns);
        let Some(assumed) = assumed.get(routed.run) else {
            continue;
        };
        if running.len() <= routed.run {
            running.push(Running::new(router.keys()[routed.run], &routed));
        }
        let content = contents.of(&frame, assumed);
        let described = frame.pt.is_some() && contents.described(&frame).is_some();
        let run = &mut running[routed.run];
        let fresh = run.count(&routed, frame.payload.len());
        run.note_codec(&routed, content, frame.pt, !described);
        match content {
            Content::Event => outcome.events.add(
                routed.run,
                routed.sequence,
                routed.ticks,
                routed.wall_ns,
                &frame.payload,
            ),
            Content::Sound(format) if fresh => run.place(&routed, &format, &frame.payload),
            _ => {}
        }
    }
    outcome.runs = running.into_iter().map(Running::finish).collect();
    outcome
}

impl Running {
    fn new(key: SourceKey, routed: &Routed) -> Self {
        let counts = Counts {
            lowest: routed.sequence,
            highest: routed.sequence - 1,
            first_ns: routed.wall_ns,
            last_ns: routed.wall_ns,
            ..Counts::default()
        };
        let scan = RunScan {
            key,
            segments: Vec::new(),
            counts,
            codecs: Vec::new(),
            sound: 0,
            hold_ns: 0,
        };
        Self {
            scan,
            tracker: Tracker::default(),
            window: vec![0; WINDOW / 64],
            transit: None,
        }
    }

    /// Counts a packet; false when it was there before.
    fn count(&mut self, routed: &Routed, bytes: usize) -> bool {
        let counts = &mut self.scan.counts;
        counts.packets += 1;
        counts.bytes += bytes as u64;
        counts.last_ns = counts.last_ns.max(routed.wall_ns);
        let window = WINDOW as i64;
        let place = |sequence: i64| {
            let bit = sequence.rem_euclid(window) as usize;
            (bit / 64, 1_u64 << (bit % 64))
        };
        if routed.sequence > counts.highest {
            let from = (counts.highest + 1).max(routed.sequence - window + 1);
            for sequence in from..routed.sequence {
                let (word, bit) = place(sequence);
                self.window[word] &= !bit;
            }
            counts.highest = routed.sequence;
        } else {
            counts.reordered += 1;
            let (word, bit) = place(routed.sequence);
            let seen = self.window[word] & bit != 0;
            if seen || counts.highest - routed.sequence >= window {
                counts.duplicates += 1;
                counts.reordered -= 1;
                return false;
            }
        }
        let (word, bit) = place(routed.sequence);
        self.window[word] |= bit;
        counts.lowest = counts.lowest.min(routed.sequence);
        counts.distinct += 1;
        true
    }

    fn note_codec(&mut self, routed: &Routed, content: Content, pt: Option<u8>, assumed: bool) {
        let known = &mut self.scan.codecs;
        let same = |seen: &&mut CodecSeen| seen.content == content && seen.payload_type == pt;
        // A payload type that comes back after another one is listed again, events excepted.
        let last_sound = known
            .iter()
            .rposition(|seen| matches!(seen.content, Content::Sound(_)));
        let start = match content {
            Content::Sound(_) => last_sound.unwrap_or(known.len()),
            _ => 0,
        };
        if let Some(seen) = known[start..].iter_mut().find(same) {
            seen.packets += 1;
        } else if known.len() < CODECS_MAX {
            let format = if let Content::Sound(format) = content {
                Some(format)
            } else {
                None
            };
            known.push(CodecSeen {
                format,
                content,
                payload_type: pt,
                from_ns: routed.wall_ns,
                packets: 1,
                assumed,
            });
        }
    }

    fn place(&mut self, routed: &Routed, format: &Format, payload: &[u8]) {
        self.scan.sound += 1;
        let clock_hz = format.clock_hz;
        let late = self.tracker.add(&Arrival {
            sequence: routed.sequence,
            ticks: routed.ticks,
            clock_hz,
            wall_ns: routed.wall_ns,
            duration_ns: media_ns(duration_ticks(format, payload), clock_hz),
        });
        if routed.sequence < self.scan.counts.highest {
            self.scan.hold_ns = self.scan.hold_ns.max(late.min(LATENESS_MAX_NS));
            return;
        }
        let transit = routed.wall_ns - media_ns(routed.ticks, clock_hz);
        if let Some(before) = self.transit.replace(transit) {
            let counts = &mut self.scan.counts;
            let difference = transit.saturating_sub(before).unsigned_abs() as f64;
            // A jump of seconds is a new clock or a pause, not jitter.
            if difference < 2e9 {
                counts.jitter_ns += (difference - counts.jitter_ns) / 16.0;
                counts.jitter_max_ns = counts.jitter_max_ns.max(counts.jitter_ns);
            }
        }
    }

    fn finish(mut self) -> RunScan {
        self.scan.segments = self.tracker.finish();
        self.scan
    }
}
