//! Plays one run: packets put in order, decoded, gaps filled, and laid on the track.

use crate::content::Content;
use crate::plan::{Placed, RunPlan};
use crate::resample::Resampler;
use crate::router::media_ns;
use crate::stage::{GAPS_MAX, Gap, Stage};
use std::borrow::Cow;
use std::collections::BTreeMap;
use trunkline_codec::comfort_noise::{Description, Generator};
use trunkline_codec::conceal::Concealer;
use trunkline_codec::g711::{A_LAW, MU_LAW, kept_decoder};
use trunkline_codec::{CodecKind, Decoder, Format};

/// Packets kept while one before them is awaited.
const QUEUE_MAX: usize = 8_192;
/// Gaps up to this length are concealed as a whole, ms.
const CONCEAL_GAP_MS: i64 = 200;
/// Fade inside a longer one at each of its edges, ms.
const FADE_MS: u32 = 10;
/// Kept octets this far off their place (samples) are put right at a packet no louder than that.
const SLIPS: [(i64, u16); 3] = [(160, u16::MAX), (40, 1_000), (8, 100)];

/// A packet waiting for its turn.
pub(crate) struct Packet<'a> {
    pub(crate) sequence: i64,
    pub(crate) ticks: i64,
    pub(crate) wall_ns: i64,
    pub(crate) content: Content,
    pub(crate) payload: Cow<'a, [u8]>,
}

/// Sound that goes on without a break.
struct Stretch {
    segment: usize,
    /// Timestamp of the next sample.
    next_ticks: i64,
    /// Output sample of the next sample to be laid.
    position: i64,
    resampler: Option<Resampler>,
}

struct Voice {
    format: Format,
    decoder: Box<dyn Decoder>,
    concealer: Concealer,
}

struct Noise {
    description: Description,
    /// Output sample from which noise is still to be made.
    position: i64,
}

/// See the module.
pub(crate) struct Player<'a> {
    run: RunPlan,
    queue: BTreeMap<i64, Packet<'a>>,
    /// Sequence number to be played next.
    next_sequence: Option<i64>,
    /// The gap before the next sound is explained by an event or comfort noise.
    explained: bool,
    voice: Option<Voice>,
    stretch: Option<Stretch>,
    /// Samples concealed by the decoder itself, not yet laid.
    pcm: Vec<i16>,
    /// Samples lost before the packet that is about to be decoded.
    hole: usize,
    /// Output sample up to which this run has been heard.
    written_to: i64,
    segment: usize,
    noise: Option<Noise>,
    generator: Generator,
}

impl<'a> Player<'a> {
    pub(crate) fn new(run: RunPlan, seed: u64) -> Self {
        Self {
            run,
            queue: BTreeMap::new(),
            next_sequence: None,
            explained: false,
            voice: None,
            stretch: None,
            pcm: Vec::new(),
            hole: 0,
            written_to: i64::MIN,
            segment: 0,
            noise: None,
            generator: Generator::new(seed),
        }
    }

    /// Takes a packet in capture order.
    pub(crate) fn push(&mut self, packet: Packet<'a>, stage: &mut Stage<'_>) {
        match self.next_sequence {
            Some(next) if packet.sequence == next && self.queue.is_empty() => {
                return self.play(packet, stage);
            }
            Some(next) if packet.sequence < next => {
                stage.counts.surplus += 1;
                return;
            }
            _ => {}
        }
        let (wall_ns, sequence) = (packet.wall_ns, packet.sequence);
        if self.queue.insert(sequence, packet).is_some() {
            stage.counts.surplus += 1;
        }
        self.release(wall_ns, stage);
    }

    /// Plays what needs to wait no longer at `now_ns`.
    fn release(&mut self, now_ns: i64, stage: &mut Stage<'_>) {
        while let Some(first) = self.queue.first_entry() {
            let due = self.next_sequence == Some(*first.key())
                || first.get().wall_ns.saturating_add(self.run.hold_ns) <= now_ns;
            if !due && self.queue.len() <= QUEUE_MAX {
                return;
            }
            if let Some((_, packet)) = self.queue.pop_first() {
                self.play(packet, stage);
            }
        }
    }

    /// Brings the run up to date: everything before output sample `horizon` is laid.
    pub(crate) fn settle(&mut self, now_ns: i64, horizon: i64, stage: &mut Stage<'_>) {
        self.release(now_ns, stage);
        let reach = i64::from(stage.plan.rate_hz / 20);
        self.idle_until(horizon + reach, stage);
        if self
            .stretch
            .as_ref()
            .is_some_and(|stretch| stretch.position < horizon + reach)
        {
            self.end_stretch(stage);
        }
        self.make_noise(horizon, stage);
    }

    /// The run is over.
    pub(crate) fn finish(mut self, stage: &mut Stage<'_>) {
        self.release(i64::MAX, stage);
        self.end_stretch(stage);
    }

    /// Whether nothing more can come at `now_ns`.
    pub(crate) fn is_over(&self, now_ns: i64) -> bool {
        self.run.last_ns.saturating_add(self.run.hold_ns) < now_ns
    }

    fn play(&mut self, packet: Packet<'a>, stage: &mut Stage<'_>) {
        let next = self.next_sequence.unwrap_or(packet.sequence);
        let lost = (packet.sequence - next).max(0);
        self.next_sequence = Some(packet.sequence + 1);
        if self.run.ignored {
            return;
        }
        match packet.content {
            Content::Sound(format) => self.play_sound(&packet, format, lost, stage),
            Content::Noise => self.begin_noise(&packet, stage),
            Content::Event => {
                self.explained = true;
                self.noise = None;
            }
            Content::Unknown | Content::Empty => self.explained = true,
        }
    }

    fn play_sound(
        &mut self,
        packet: &Packet<'a>,
        format: Format,
        lost: i64,
        stage: &mut Stage<'_>,
    ) {
        let Some(segment) = self.find_segment(packet.sequence) else {
            return;
        };
        let placed = self.run.segments[segment];
        let position = placed.position_of(packet.ticks, stage.plan.rate_hz);
        self.make_noise(position, stage);
        self.noise = None;
        if !self.tune(format, stage) {
            return;
        }
        let joined = self
            .stretch
            .as_ref()
            .map(|s| s.segment == segment && placed.clock_hz > 0);
        let gap = match (joined, &self.stretch) {
            (Some(true), Some(stretch)) => Some(packet.ticks - stretch.next_ticks),
            _ => None,
        };
        if lost > 0 && !self.explained {
            self.note_gap(position, packet, stage);
        }
        let mut resumed = false;
        match gap {
            Some(0) if self.must_slip(position, packet, stage) => self.end_stretch(stage),
            Some(0) => {}
            Some(gap)
                if gap > 0
                    && lost == 0
                    && !gap_is_paused(gap, packet, &placed, stage)
                    && self.fill_idle(gap, &placed, stage) => {}
            Some(gap) if gap > 0 && lost > 0 && !self.explained => {
                resumed = !self.bridge(gap, packet, &placed, stage);
            }
            Some(_) => self.end_stretch(stage),
            None => self.end_stretch(stage),
        }
        self.explained = false;
        self.decode(packet, &placed, segment, position, resumed, stage);
    }

    /// Takes note of what is missing before the sound at `position`.
    fn note_gap(&self, position: i64, packet: &Packet<'_>, stage: &mut Stage<'_>) {
        let start = self.stretch.as_ref().map_or(self.written_to, |stretch| {
            stretch.position.saturating_add(self.pcm.len() as i64)
        });
        let rate = stage.plan.rate_hz;
        let samples = position.saturating_sub(start);
        let heard = self.run.layer == 0;
        let known = heard && start > i64::MIN && samples > 0 && stage.gaps.len() < GAPS_MAX;
        let from = packet.wall_ns.saturating_sub(media_ns(samples, rate));
        if known && !stage.plan.is_paused(from, packet.wall_ns) {
            stage.gaps.push(Gap {
                channel: self.run.channel,
                position: start,
                samples,
            });
        }
    }

    /// Whether kept octets have drifted off their place and here is a silence to make up for it.
    fn must_slip(&self, position: i64, packet: &Packet<'_>, stage: &Stage<'_>) -> bool {
        let (Some(law), Some(stretch)) = (stage.plan.kept(), &self.stretch) else {
            return false;
        };
        let off = (position - stretch.position - self.pcm.len() as i64).abs();
        let Some((_, quiet)) = SLIPS.into_iter().find(|(least, _)| off >= *least) else {
            return false;
        };
        let table = if law == CodecKind::Pcma {
            &A_LAW
        } else {
            &MU_LAW
        };
        let loudest = packet
            .payload
            .iter()
            .map(|&octet| table[usize::from(octet)].unsigned_abs())
            .max();
        loudest.unwrap_or(0) <= quiet
    }

    /// Goes on with the noise that the sender described before it fell silent.
    fn fill_idle(&mut self, gap_ticks: i64, placed: &Placed, stage: &mut Stage<'_>) -> bool {
        let (Some(voice), Some(stretch)) = (&mut self.voice, &mut self.stretch) else {
            return false;
        };
        if !voice.decoder.is_idle() {
            return false;
        }
        let rate = voice.decoder.rate_hz();
        let output_rate = i64::from(stage.plan.rate_hz);
        let mut left =
            gap_ticks.saturating_mul(i64::from(rate)) / i64::from(placed.clock_hz.max(1));
        // Nobody hears what lies before the first sample or behind the last.
        let unheard = stretch.position.saturating_neg().max(0) / output_rate;
        let skipped = (unheard * i64::from(rate)).min(left);
        stretch.position += skipped * output_rate / i64::from(rate);
        let heard = (stage.plan.samples as i64).saturating_sub(stretch.position);
        let seconds = (heard.max(0) as u64).div_ceil(output_rate as u64) as i64;
        left = (left - skipped).min(seconds.saturating_mul(i64::from(rate)));
        while left > 0 {
            let samples = left.min(i64::from(rate / 50));
            let made = voice.decoder.idle(samples as usize, &mut self.pcm);
            // Less than a frame is left: not worth a break.
            self.pcm
                .extend(std::iter::repeat_n(0, samples as usize - made));
            left -= samples;
            lay(stretch, &self.pcm, &self.run, stage);
            self.pcm.clear();
        }
        stretch.next_ticks += gap_ticks;
        self.written_to = self.written_to.max(stretch.position);
        true
    }

    /// Goes on with such noise up to an output sample, before it is known how long it lasts.
    fn idle_until(&mut self, horizon: i64, stage: &mut Stage<'_>) {
        let Some(stretch) = &self.stretch else { return };
        let Some(placed) = self.run.segments.get(stretch.segment).copied() else {
            return;
        };
        let rate = i64::from(stage.plan.rate_hz);
        let behind = horizon - stretch.position;
        // Whole frames of 20 ms; nothing can come any more for a little beyond the horizon.
        let frames = (behind * 50 + rate - 1) / rate;
        if frames > 0 && !stage.plan.has_pauses() {
            self.fill_idle(frames * i64::from(placed.clock_hz) / 50, &placed, stage);
        }
    }

    /// Makes sure that the decoder is the format's. False: there is none.
    fn tune(&mut self, format: Format, stage: &mut Stage<'_>) -> bool {
        if self
            .voice
            .as_ref()
            .is_some_and(|voice| voice.format == format)
        {
            return true;
        }
        self.end_stretch(stage);
        let decoder: Option<Box<dyn Decoder>> = match (stage.plan.kept(), format.kind) {
            (Some(CodecKind::Pcmu), CodecKind::Pcmu) => Some(Box::new(kept_decoder(false))),
            _ => format.decoder().ok(),
        };
        self.voice = decoder.map(|decoder| {
            let concealer = Concealer::new(decoder.rate_hz());
            Voice {
                format,
                decoder,
                concealer,
            }
        });
        self.voice.is_some()
    }

    fn decode(
        &mut self,
        packet: &Packet<'a>,
        placed: &Placed,
        segment: usize,
        position: i64,
        resumed: bool,
        stage: &mut Stage<'_>,
    ) {
        let Some(voice) = &mut self.voice else { return };
        let before = self.pcm.len();
        let Ok(count) = voice.decoder.decode(&packet.payload, &mut self.pcm) else {
            stage.counts.refused += 1;
            // Its time stays silent, like that of a packet lost.
            self.hole = 0;
            self.explained = true;
            self.end_stretch(stage);
            return;
        };
        stage.counts.decoded += 1;
        let rate = voice.decoder.rate_hz();
        let ticks = count as i64 * i64::from(placed.clock_hz) / i64::from(rate.max(1));
        let hole = std::mem::take(&mut self.hole);
        if hole > 0 {
            stage.scratch.clear();
            let next = &self.pcm[before..];
            voice.concealer.fill_between(hole, next, &mut stage.scratch);
            self.pcm.splice(before..before, stage.scratch.drain(..));
        }
        voice.concealer.remember(&self.pcm[before + hole..]);
        let mut start = position;
        if self.stretch.is_none() {
            // Nothing of this run is heard twice: what overlaps was heard already.
            let overlap = self.written_to.saturating_sub(position).max(0);
            let skip = overlap.saturating_mul(i64::from(rate)) / i64::from(stage.plan.rate_hz);
            let skip = usize::try_from(skip).unwrap_or(usize::MAX).min(count);
            self.pcm.drain(before..before + skip);
            start += overlap;
            if skip == count {
                return;
            }
            if resumed {
                start -= self.lead_in(rate, stage);
            }
        }
        let stretch = self
            .stretch
            .get_or_insert_with(|| begin_stretch(placed, segment, rate, start, stage));
        stretch.next_ticks = packet.ticks + ticks;
        lay(stretch, &self.pcm, &self.run, stage);
        self.pcm.clear();
        self.written_to = self.written_to.max(stretch.position);
    }

    /// Puts a fade before the sound that ends a long loss; its length in output samples.
    fn lead_in(&mut self, rate_hz: u32, stage: &mut Stage<'_>) -> i64 {
        stage.scratch.clear();
        Concealer::new(rate_hz).fill_between(fade_samples(rate_hz), &self.pcm, &mut stage.scratch);
        self.pcm.splice(0..0, stage.scratch.drain(..));
        fade_samples(stage.plan.rate_hz) as i64
    }

    /// Fills a gap that loss left. False: it was too long, and the sound begins anew after it.
    fn bridge(
        &mut self,
        gap_ticks: i64,
        packet: &Packet<'a>,
        placed: &Placed,
        stage: &mut Stage<'_>,
    ) -> bool {
        let (Some(voice), Some(stretch)) = (&mut self.voice, &mut self.stretch) else {
            return false;
        };
        let clock = i64::from(placed.clock_hz.max(1));
        let rate = voice.decoder.rate_hz();
        let gap_ms = gap_ticks.saturating_mul(1_000) / clock;
        if gap_is_paused(gap_ticks, packet, placed, stage) {
            self.end_stretch(stage);
            return true;
        }
        stage.counts.concealed += 1;
        if gap_ms > CONCEAL_GAP_MS {
            let concealer = &mut voice.concealer;
            concealer.fill_between(fade_samples(rate), &[], &mut self.pcm);
            concealer.reset();
            self.end_stretch(stage);
            return false;
        }
        let samples = (gap_ticks * i64::from(rate) / clock) as usize;
        let before = self.pcm.len();
        let made = voice
            .decoder
            .conceal(samples, Some(&packet.payload), &mut self.pcm);
        if made == 0 {
            // Filled once the sound after it is decoded.
            self.hole = samples;
        } else {
            self.pcm.resize(before + samples, 0);
        }
        stretch.next_ticks = packet.ticks;
        true
    }

    fn find_segment(&mut self, sequence: i64) -> Option<usize> {
        let segments = &self.run.segments;
        let holds = |index: usize| {
            segments
                .get(index)
                .is_some_and(|s| s.first_sequence <= sequence)
                && segments
                    .get(index + 1)
                    .is_none_or(|s| sequence < s.first_sequence)
        };
        if !holds(self.segment) {
            let after = segments.partition_point(|segment| segment.first_sequence <= sequence);
            self.segment = after.saturating_sub(1);
        }
        (!segments.is_empty()).then_some(self.segment)
    }

    fn end_stretch(&mut self, stage: &mut Stage<'_>) {
        if let Some(mut stretch) = self.stretch.take() {
            lay(&mut stretch, &self.pcm, &self.run, stage);
            if let Some(resampler) = stretch.resampler.take() {
                stage.scratch.clear();
                resampler.finish(&mut stage.scratch);
                stage.tracks[self.run.channel].add(
                    self.run.layer,
                    stretch.position,
                    &stage.scratch,
                );
                stretch.position += stage.scratch.len() as i64;
            }
            self.written_to = self.written_to.max(stretch.position);
        }
        self.pcm.clear();
    }

    fn begin_noise(&mut self, packet: &Packet<'a>, stage: &mut Stage<'_>) {
        self.explained = true;
        let Some(segment) = self.find_segment(packet.sequence) else {
            return;
        };
        let position = self.run.segments[segment].position_of(packet.ticks, stage.plan.rate_hz);
        self.make_noise(position, stage);
        self.end_stretch(stage);
        let position = position.max(self.written_to);
        self.noise = Description::parse(&packet.payload).map(|description| Noise {
            description,
            position,
        });
    }

    /// Lays comfort noise up to an output sample, where some is due.
    fn make_noise(&mut self, until: i64, stage: &mut Stage<'_>) {
        let Some(noise) = &mut self.noise else { return };
        let rate = i64::from(stage.plan.rate_hz);
        let until = until.min(stage.plan.samples as i64);
        // Nobody hears what lies before the first sample.
        noise.position = noise.position.max(0);
        while noise.position < until {
            let count = (until - noise.position).min(rate / 10);
            stage.scratch.clear();
            self.generator
                .fill(&noise.description, count as usize, &mut stage.scratch);
            let time = |sample: i64| {
                stage.plan.start_ns + (i128::from(sample) * 1_000_000_000 / i128::from(rate)) as i64
            };
            if !stage
                .plan
                .is_paused(time(noise.position), time(noise.position + count))
            {
                stage.tracks[self.run.channel].add(self.run.layer, noise.position, &stage.scratch);
            }
            noise.position += count;
            self.written_to = self.written_to.max(noise.position);
        }
    }
}

fn begin_stretch(
    placed: &Placed,
    segment: usize,
    rate: u32,
    position: i64,
    stage: &mut Stage<'_>,
) -> Stretch {
    let output = stage.plan.rate_hz;
    // Octets that are kept cannot be resampled: their drift is made up for by slips.
    let direct = rate == output && (placed.slope == 0.0 || stage.plan.kept().is_some());
    let resampler = (!direct).then(|| {
        let step = f64::from(rate) / f64::from(output) / (1.0 + placed.slope);
        Resampler::new(stage.kernels.get(rate, output), step)
    });
    Stretch {
        segment,
        next_ticks: 0,
        position,
        resampler,
    }
}

/// Whether the recording was paused while a gap before a packet lasted.
fn gap_is_paused(gap_ticks: i64, packet: &Packet<'_>, placed: &Placed, stage: &Stage<'_>) -> bool {
    let gap_ns = media_ns(gap_ticks, placed.clock_hz).saturating_add(100_000_000);
    let from = packet.wall_ns.saturating_sub(gap_ns);
    stage.plan.is_paused(from, packet.wall_ns)
}

/// Lays samples of the codec's rate at the stretch's end.
fn lay(stretch: &mut Stretch, samples: &[i16], run: &RunPlan, stage: &mut Stage<'_>) {
    match &mut stretch.resampler {
        None => {
            stage.tracks[run.channel].add(run.layer, stretch.position, samples);
            stretch.position += samples.len() as i64;
        }
        Some(resampler) => {
            stage.scratch.clear();
            resampler.push(samples, &mut stage.scratch);
            stage.tracks[run.channel].add(run.layer, stretch.position, &stage.scratch);
            stretch.position += stage.scratch.len() as i64;
        }
    }
}

/// Samples of the fade at an edge of a long loss.
fn fade_samples(rate_hz: u32) -> usize {
    (rate_hz / 1_000 * FADE_MS) as usize
}
