//! The first pass: what will be heard when.

use crate::AudioError;
use crate::channels::{Channel, ChannelLayout, Channels};
use crate::content::{Assumed, Content};
use crate::events::TelephoneEvent;
use crate::report::{CodecUse, StreamReport};
use crate::scan::{RunScan, SIDES, Scan, assume, scan};
use crate::segment::Segment;
use trunkline_codec::{CodecKind, Format};
use trunkline_sn3::Capture;
use trunkline_sn3::capture::CaptureFacts;

/// Rates that may be asked for.
const RATES_HZ: std::ops::RangeInclusive<u32> = 4_000..=192_000;
const RATE_WITHOUT_SOUND_HZ: u32 = 8_000;
/// A call's first sound may lie this far before its answer through jitter alone, ns.
const EARLY_START_MAX_NS: i64 = 60_000_000;
/// The same of a classic blob's time 0: a sender of speech may begin with a burst that fills the far
/// end's buffer.
const BURST_START_MAX_NS: i64 = 500_000_000;
/// Layers of one channel; further ones are heard with the last.
const LAYERS_MAX: usize = 8;
/// Concealment and codec delay that may reach back from a packet, ns.
const REACH_NS: i64 = 400_000_000;

/// What is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// The codec of a capture that does not say it itself.
    pub codec: Option<Format>,
    /// Samples a second of the output; without it the highest rate of any leg.
    pub rate_hz: Option<u32>,
    /// Put what was heard before the answer in front.
    pub early: bool,
    /// Make telephone events audible.
    pub tones: bool,
    /// How sides and parties become channels.
    pub layout: ChannelLayout,
    /// Keep G.711 as it is, octet by octet, instead of making PCM of it.
    pub keep: bool,
    /// Leave out what lies before this time, ms after the first sample.
    pub from_ms: u64,
    /// Leave out what lies after this time, ms after the first sample.
    pub to_ms: Option<u64>,
    /// Plan sound of any length, even if no WAV can hold it.
    pub any_length: bool,
}

/// The outcome of the first pass.
#[derive(Debug, Clone)]
pub struct Plan {
    pub(crate) rate_hz: u32,
    pub(crate) samples: u64,
    pub(crate) tones: bool,
    /// Layers of each channel.
    pub(crate) layers: usize,
    /// Output channels in order.
    channels: Channels,
    /// The law that is kept, where sound stays G.711.
    kept: Option<CodecKind>,
    pub(crate) runs: Vec<RunPlan>,
    pub(crate) assumed: Vec<Assumed>,
    /// Pauses of the recording, ns since its origin.
    pub(crate) pauses: Vec<(i64, i64)>,
    /// Time of the first sample, ns since the recording's origin.
    pub(crate) start_ns: i64,
    /// How long after its arrival a packet may still change what was before it, ns.
    pub(crate) lag_ns: i64,
    streams: Vec<StreamReport>,
    events: Vec<TelephoneEvent>,
    notes: Vec<String>,
    nonsense: Option<(u64, u64)>,
}

/// One run, ready to be played.
#[derive(Debug, Clone)]
pub(crate) struct RunPlan {
    pub(crate) side: usize,
    /// Index of its output channel.
    pub(crate) channel: usize,
    /// It is heard where no run of its channel with a lower one is.
    pub(crate) layer: usize,
    pub(crate) segments: Vec<Placed>,
    pub(crate) hold_ns: i64,
    pub(crate) last_ns: i64,
    /// Not to be heard.
    pub(crate) ignored: bool,
}

/// A segment on the output's scale.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placed {
    pub(crate) first_sequence: i64,
    pub(crate) first_ticks: i64,
    pub(crate) clock_hz: u32,
    /// Output sample of `first_ticks`.
    pub(crate) position: i64,
    /// Seconds gained a second of media time by the sender's clock drift.
    pub(crate) slope: f64,
}

impl Placed {
    /// Output sample of a timestamp.
    pub(crate) fn position_of(&self, ticks: i64, rate_hz: u32) -> i64 {
        let clock = i128::from(self.clock_hz.max(1));
        let scaled = i128::from(ticks.saturating_sub(self.first_ticks)) * i128::from(rate_hz);
        let offset = (scaled + clock / 2).div_euclid(clock);
        let offset = offset.clamp(i128::from(i64::MIN / 4), i128::from(i64::MAX / 4)) as i64;
        let drift = if self.slope == 0.0 {
            0
        } else {
            (offset as f64 * self.slope).round() as i64
        };
        self.position.saturating_add(offset).saturating_add(drift)
    }
}

impl Plan {
    /// Reads the capture and decides everything that does not need decoding.
    ///
    /// # Errors
    /// More sound than a WAV can hold, or an impossible option.
    pub fn new(capture: &Capture, options: &Options) -> Result<Self, AudioError> {
        if let Some(rate_hz) = options.rate_hz
            && !RATES_HZ.contains(&rate_hz)
        {
            return Err(AudioError::Option(format!(
                "a rate of {rate_hz} Hz is not possible"
            )));
        }
        let assumptions = assume(capture, options.codec);
        let mut found = scan(capture, &assumptions.runs);
        let facts = capture.facts();
        let answered = facts.answered_ns();
        let early_max_ns = match answered {
            Some(_) => EARLY_START_MAX_NS,
            None => BURST_START_MAX_NS,
        };
        pull_in_first_sounds(&mut found.runs, answered.unwrap_or(0), early_max_ns);
        let begin_ns = start_of(&found.runs, answered.unwrap_or(0), options.early);
        let ended = facts.ended_ns().map(clamp_ns);
        let end_ns = ended.unwrap_or_else(|| end_of(&found.runs)).max(begin_ns);
        let at = |ms: u64| begin_ns.saturating_add(clamp_ns(ms.saturating_mul(1_000_000)));
        let start_ns = at(options.from_ms).min(end_ns);
        let end_ns = options
            .to_ms
            .map_or(end_ns, |to_ms| at(to_ms).min(end_ns))
            .max(start_ns);
        let kept = if options.keep {
            Some(kept_law(&found.runs, options.rate_hz)?)
        } else {
            None
        };
        let rate_hz = options.rate_hz.unwrap_or_else(|| highest_rate(&found.runs));
        let samples = to_samples(end_ns - start_ns, rate_hz).max(0) as u64;
        let mut plan = Self {
            rate_hz,
            samples,
            tones: options.tones,
            layers: 1,
            channels: Channels::new(options.layout, facts),
            kept,
            runs: Vec::new(),
            assumed: assumptions.runs,
            pauses: facts
                .pauses
                .iter()
                .map(|p| (clamp_ns(p.from_ns), p.to_ns.map_or(i64::MAX, clamp_ns)))
                .collect(),
            start_ns,
            lag_ns: REACH_NS,
            streams: Vec::new(),
            events: Vec::new(),
            notes: assumptions.notes,
            nonsense: found.nonsense_offset.map(|offset| (found.nonsense, offset)),
        };
        if !options.any_length {
            plan.check_length()?;
        }
        plan.take_runs(&found, facts);
        if plan.streams.iter().all(|stream| stream.codecs.is_empty()) {
            plan.notes
                .push("there is no audio in this capture".to_owned());
        }
        Ok(plan)
    }

    fn take_runs(&mut self, found: &Scan, facts: &CaptureFacts) {
        let to_ms = |ns: i64| (ns - self.start_ns).div_euclid(1_000_000);
        self.events = found
            .events
            .events
            .iter()
            .map(|event| {
                let run = &found.runs[event.run];
                let (start_ns, clock_hz) = segment_of(&run.segments, event.sequence)
                    .map_or((event.wall_ns, 8_000), |s| {
                        (s.time_ns(event.ticks), s.clock_hz)
                    });
                event.describe(run.key.side, to_ms(start_ns), clock_hz)
            })
            .collect();
        self.events.sort_by_key(|event| event.start_ms);
        let mut hold_max = 0;
        let mut lateness_max = 0;
        for run in &found.runs {
            let ignored = is_stray(run, &found.runs);
            let channel = self
                .channels
                .of(run.key.side, run.key.media, run.counts.first_ns);
            let layer = layer_of(run, facts);
            self.layers = self.layers.max(layer + 1);
            let report = report(run, to_ms, ignored, channel);
            for codec in report.codecs.iter().filter(|codec| !codec.supported) {
                let note = format!(
                    "{}: {} is not supported: no decoder in this build; {} packets stay silent",
                    SIDES[usize::from(run.key.side)],
                    codec.codec,
                    codec.packets,
                );
                self.notes.push(note);
            }
            self.streams.push(report);
            let hold_ns = run.hold_ns + 20_000_000;
            hold_max = hold_max.max(hold_ns);
            let lateness = run.segments.iter().map(|segment| segment.lateness_ns).max();
            lateness_max = lateness_max.max(lateness.unwrap_or(0));
            self.runs.push(RunPlan {
                side: usize::from(run.key.side & 1),
                channel,
                layer,
                segments: run
                    .segments
                    .iter()
                    .map(|segment| self.place(segment))
                    .collect(),
                hold_ns,
                last_ns: run.counts.last_ns,
                ignored,
            });
        }
        self.lag_ns = REACH_NS + hold_max + lateness_max;
        for event in &mut self.events {
            event.channel = self
                .channels
                .of_events(event.side, &self.streams, event.start_ms);
        }
    }

    fn place(&self, segment: &Segment) -> Placed {
        let offset_ns = segment
            .time_ns(segment.first_ticks)
            .saturating_sub(self.start_ns);
        Placed {
            first_sequence: segment.first_sequence,
            first_ticks: segment.first_ticks,
            clock_hz: segment.clock_hz,
            position: to_samples(offset_ns, self.rate_hz),
            slope: segment.delay.slope,
        }
    }

    /// Samples a second of the output.
    #[must_use]
    pub const fn rate_hz(&self) -> u32 {
        self.rate_hz
    }

    /// Channels of the output, in order.
    #[must_use]
    pub fn channel_list(&self) -> &[Channel] {
        &self.channels.list
    }

    /// Number of channels of the output.
    #[must_use]
    pub fn channels(&self) -> u16 {
        self.channels.list.len() as u16
    }

    /// The law of G.711 that is kept, octet by octet.
    #[must_use]
    pub const fn kept(&self) -> Option<CodecKind> {
        self.kept
    }

    /// Pauses of the recording: ms after the first sample, the end where it never went on.
    #[must_use]
    pub fn pauses_ms(&self) -> Vec<(i64, i64)> {
        let ms = |ns: i64| ns.saturating_sub(self.start_ns).div_euclid(1_000_000);
        let end = self.duration_ms() as i64;
        self.pauses
            .iter()
            .map(|&(from, to)| (ms(from), ms(to).min(end)))
            .collect()
    }

    /// Samples of each channel.
    #[must_use]
    pub const fn samples(&self) -> u64 {
        self.samples
    }

    /// Length of the sound in ms.
    #[must_use]
    pub fn duration_ms(&self) -> u64 {
        (u128::from(self.samples) * 1_000 / u128::from(self.rate_hz)) as u64
    }

    /// Time of the first sample, ns since the recording's origin.
    #[must_use]
    pub const fn start_ns(&self) -> i64 {
        self.start_ns
    }

    /// The streams found, in order of appearance.
    #[must_use]
    pub fn streams(&self) -> &[StreamReport] {
        &self.streams
    }

    /// Telephone events in order of time.
    #[must_use]
    pub fn events(&self) -> &[TelephoneEvent] {
        &self.events
    }

    /// What should be said aloud: guesses, clocks that are not what they claim, codecs without decoder.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Whether some sound stays silent because this build has no decoder for it.
    #[must_use]
    pub fn has_unsupported(&self) -> bool {
        self.streams
            .iter()
            .flat_map(|stream| &stream.codecs)
            .any(|codec| !codec.supported)
    }

    /// Frames left out because their capture time is nonsense: how many, and the byte offset of the first.
    #[must_use]
    pub const fn nonsense(&self) -> Option<(u64, u64)> {
        self.nonsense
    }

    pub(crate) fn has_pauses(&self) -> bool {
        !self.pauses.is_empty()
    }

    /// Whether a time span, ns since the recording's origin, touches a pause of the recording.
    pub(crate) fn is_paused(&self, from_ns: i64, to_ns: i64) -> bool {
        self.pauses
            .iter()
            .any(|&(pause, resume)| pause < to_ns && from_ns < resume)
    }
}

/// The segment a sequence number belongs to.
fn segment_of(segments: &[Segment], sequence: i64) -> Option<&Segment> {
    let after = segments.partition_point(|segment| segment.first_sequence <= sequence);
    segments.get(after.saturating_sub(1))
}

pub(crate) fn to_samples(ns: i64, rate_hz: u32) -> i64 {
    let scaled = i128::from(ns) * i128::from(rate_hz);
    (scaled + 500_000_000).div_euclid(1_000_000_000) as i64
}

fn clamp_ns(ns: u64) -> i64 {
    i64::try_from(ns).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
}

/// A first sound that came after the beginning (the answer, else the capture's time 0) but that
/// jitter puts a little before it belongs at the beginning: nothing of it is to be lost. Many
/// senders start with two packets at once, so this is the rule rather than the exception.
fn pull_in_first_sounds(runs: &mut [RunScan], begin_ns: i64, early_max_ns: i64) {
    for side in 0..2 {
        let first = runs
            .iter_mut()
            .filter(|run| run.key.side == side)
            .filter_map(|run| Some((run.counts.first_ns, run.segments.first_mut()?)))
            .min_by_key(|(_, segment)| segment.span_ns().0);
        if let Some((arrived_ns, segment)) = first {
            let early = segment.span_ns().0.saturating_sub(begin_ns);
            if arrived_ns >= begin_ns && (-early_max_ns..0).contains(&early) {
                segment.delay = segment.delay.shifted(-early);
            }
        }
    }
}

fn start_of(runs: &[RunScan], answered_ns: i64, early: bool) -> i64 {
    if !early {
        return answered_ns;
    }
    let first = runs
        .iter()
        .flat_map(|run| &run.segments)
        .map(|segment| segment.span_ns().0)
        .min();
    first
        .unwrap_or(answered_ns)
        .clamp(answered_ns.min(0), answered_ns)
}

fn end_of(runs: &[RunScan]) -> i64 {
    let heard = runs.iter().filter(|run| !is_stray(run, runs));
    heard
        .flat_map(|run| &run.segments)
        .map(|segment| segment.span_ns().1)
        .max()
        .unwrap_or(0)
}

fn highest_rate(runs: &[RunScan]) -> u32 {
    let formats = runs
        .iter()
        .flat_map(|run| &run.codecs)
        .filter_map(|seen| seen.format);
    let rates = formats
        .filter(|format| format.decoder().is_ok())
        .map(|format| format.rate_hz());
    rates.max().unwrap_or(RATE_WITHOUT_SOUND_HZ)
}

/// The one law of G.711 in which all sound is, if it can be kept.
fn kept_law(runs: &[RunScan], rate_hz: Option<u32>) -> Result<CodecKind, AudioError> {
    let refused = |why: String| AudioError::Option(format!("G.711 cannot be kept: {why}"));
    if rate_hz.is_some_and(|rate| rate != 8_000) {
        return Err(refused("its rate is 8000 Hz".to_owned()));
    }
    let mut law = None;
    let heard = runs.iter().filter(|run| !is_stray(run, runs));
    for format in heard.flat_map(|run| &run.codecs).filter_map(|c| c.format) {
        let plain = format.clock_hz == 8_000 && format.channels == 1;
        match (format.kind, law) {
            (kind @ (CodecKind::Pcmu | CodecKind::Pcma), None) if plain => law = Some(kind),
            (kind, Some(known)) if kind == known && plain => {}
            (kind, Some(known)) => {
                let (kind, known) = (kind.name(), known.name());
                return Err(refused(format!("there is {kind} beside {known}")));
            }
            (kind, None) => return Err(refused(format!("the sound is {}", kind.name()))),
        }
    }
    law.ok_or_else(|| refused("there is no sound".to_owned()))
}

/// How many others of its channel a run yields to: those of another recording session of the same call,
/// which carries the same sound.
fn layer_of(run: &RunScan, facts: &CaptureFacts) -> usize {
    let at = u64::try_from(run.counts.last_ns).unwrap_or(0);
    let leg = facts.leg_at(run.key.side, run.key.media, at);
    leg.map_or(0, |leg| usize::from(leg.alternate).min(LAYERS_MAX - 1))
}

/// A packet or two with foreign numbers amid a stream of the same side.
fn is_stray(run: &RunScan, all: &[RunScan]) -> bool {
    run.sound <= 2
        && all.iter().any(|other| {
            other.key.side == run.key.side
                && other.key.media == run.key.media
                && other.key.ssrc == run.key.ssrc
                && other.sound >= 20
                && other.counts.first_ns <= run.counts.first_ns
                && run.counts.last_ns <= other.counts.last_ns
        })
}

fn report(run: &RunScan, to_ms: impl Fn(i64) -> i64, stray: bool, channel: usize) -> StreamReport {
    let counts = &run.counts;
    let expected = (counts.highest - counts.lowest + 1).max(0) as u64;
    let drift = run.segments.iter().map(|segment| segment.delay.slope);
    StreamReport {
        side: run.key.side,
        channel,
        media: run.key.media,
        ssrc: run.key.ssrc,
        packets: counts.packets,
        bytes: counts.bytes,
        expected,
        lost: expected.saturating_sub(counts.distinct),
        duplicates: counts.duplicates,
        reordered: counts.reordered,
        jitter_ms: counts.jitter_ns / 1e6,
        jitter_max_ms: counts.jitter_max_ns / 1e6,
        first_ms: to_ms(counts.first_ns),
        last_ms: to_ms(counts.last_ns),
        codecs: run
            .codecs
            .iter()
            .map(|seen| CodecUse {
                codec: match seen.content {
                    Content::Sound(format) => format.kind.name().to_owned(),
                    Content::Event => "telephone-event".to_owned(),
                    Content::Noise => "CN".to_owned(),
                    Content::Unknown => "unknown".to_owned(),
                    Content::Empty => "empty".to_owned(),
                },
                clock_hz: seen.format.map_or(0, |format| format.clock_hz),
                payload_type: seen.payload_type,
                from_ms: to_ms(seen.from_ns),
                packets: seen.packets,
                supported: match seen.content {
                    Content::Sound(format) => format.decoder().is_ok(),
                    Content::Event | Content::Noise | Content::Empty => true,
                    Content::Unknown => false,
                },
                assumed: seen.assumed,
            })
            .collect(),
        anchors: run.segments.len(),
        drift_ppm: drift
            .max_by(|a, b| a.abs().total_cmp(&b.abs()))
            .unwrap_or(0.0)
            * 1e6,
        stray,
    }
}
