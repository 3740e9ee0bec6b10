//! The second pass: every run played onto its side's track, the tracks taken off in step.

use crate::AudioError;
use crate::content::Contents;
use crate::feed::Feed;
use crate::plan::{Plan, to_samples};
use crate::player::{Packet, Player};
use crate::stage::{Gap, PlayCounts, Stage};
use crate::track::Layers;
use trunkline_codec::tone;
use trunkline_sn3::Capture;

/// Samples of each channel handed over at once, at most.
const CHUNK: usize = 8_192;
/// A silence of all sides after which the tracks are brought up first, ns.
const SILENCE_NS: i64 = 5_000_000_000;
/// Level of audible telephone events, dBm0.
const TONE_DBM0: f32 = -12.0;

/// Takes the sound in order: as many samples of one channel as of every other.
pub type Sink<'s> = dyn FnMut(&[Vec<i16>]) -> Result<(), AudioError> + 's;

/// Told the samples done and the samples in total; false cancels.
pub type Progress<'p> = dyn FnMut(u64, u64) -> bool + 'p;

/// Plays the capture as planned: `plan.samples()` samples of each channel.
///
/// # Errors
/// What `sink` returns, or [`AudioError::Cancelled`].
pub fn render(
    capture: &Capture,
    plan: &Plan,
    sink: &mut Sink<'_>,
    progress: &mut Progress<'_>,
) -> Result<PlayCounts, AudioError> {
    render_with_gaps(capture, plan, sink, progress).map(|(counts, _)| counts)
}

/// [`render`], and where sound was lost (the first 100,000 such places).
///
/// # Errors
/// Those of [`render`].
pub fn render_with_gaps(
    capture: &Capture,
    plan: &Plan,
    sink: &mut Sink<'_>,
    progress: &mut Progress<'_>,
) -> Result<(PlayCounts, Vec<Gap>), AudioError> {
    let mut contents = Contents::new(capture.facts());
    let mut stage = Stage::new(plan);
    let mut players: Vec<(usize, Player<'_>)> = Vec::new();
    let mut output = Output {
        done: 0,
        channels: vec![Vec::new(); usize::from(plan.channels())],
        next_tone: 0,
    };
    let mut now_ns = i64::MIN;
    let step_ns = 500_000_000;
    let mut next_flush_ns = i64::MIN;
    for (frame, routed) in Feed::new(capture, plan) {
        let Some(assumed) = plan.assumed.get(routed.run) else {
            continue;
        };
        let content = contents.of(&frame, assumed);
        let Some(run) = plan.runs.get(routed.run) else {
            continue;
        };
        let packet = Packet {
            sequence: routed.sequence,
            ticks: routed.ticks,
            wall_ns: routed.wall_ns,
            content,
            payload: frame.payload,
        };
        now_ns = now_ns.max(routed.wall_ns);
        if next_flush_ns != i64::MIN && now_ns >= next_flush_ns.saturating_add(SILENCE_NS) {
            // What follows a silence of all has to find the tracks' windows moved on.
            let horizon = to_samples(now_ns - plan.start_ns - plan.lag_ns, plan.rate_hz);
            advance(&mut players, now_ns, horizon, &mut stage);
            output.flush(horizon, &mut stage, sink)?;
        }
        let index = match players.iter().position(|(index, _)| *index == routed.run) {
            Some(index) => index,
            None => {
                players.push((routed.run, Player::new(run.clone(), routed.run as u64)));
                players.len() - 1
            }
        };
        players[index].1.push(packet, &mut stage);
        if now_ns >= next_flush_ns {
            next_flush_ns = now_ns.saturating_add(step_ns);
            let horizon = to_samples(now_ns - plan.start_ns - plan.lag_ns, plan.rate_hz);
            advance(&mut players, now_ns, horizon, &mut stage);
            output.flush(horizon, &mut stage, sink)?;
            if !progress(output.done, plan.samples) {
                return Err(AudioError::Cancelled);
            }
        }
    }
    for (_, player) in players {
        player.finish(&mut stage);
    }
    output.flush_rest(&mut stage, sink, progress)?;
    stage.counts.misplaced_samples = stage.tracks.iter().map(Layers::misplaced).sum();
    Ok((stage.counts, stage.gaps))
}

/// Brings all runs up to the horizon and lets go of those that are over.
fn advance(
    players: &mut Vec<(usize, Player<'_>)>,
    now_ns: i64,
    horizon: i64,
    stage: &mut Stage<'_>,
) {
    let mut index = 0;
    while index < players.len() {
        if players[index].1.is_over(now_ns) {
            players.swap_remove(index).1.finish(stage);
        } else {
            players[index].1.settle(now_ns, horizon, stage);
            index += 1;
        }
    }
}

struct Output {
    done: u64,
    channels: Vec<Vec<i16>>,
    next_tone: usize,
}

impl Output {
    /// Hands over what lies before the horizon.
    fn flush(
        &mut self,
        horizon: i64,
        stage: &mut Stage<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<(), AudioError> {
        let until = u64::try_from(horizon).unwrap_or(0).min(stage.plan.samples);
        while self.done < until {
            let count = (until - self.done).min(CHUNK as u64) as usize;
            self.add_tones(stage, count);
            for (track, channel) in stage.tracks.iter_mut().zip(&mut self.channels) {
                channel.clear();
                track.take(count, channel);
            }
            sink(&self.channels)?;
            self.done += count as u64;
        }
        Ok(())
    }

    /// Hands over everything that is left, a stretch at a time so that progress is told.
    fn flush_rest(
        &mut self,
        stage: &mut Stage<'_>,
        sink: &mut Sink<'_>,
        progress: &mut Progress<'_>,
    ) -> Result<(), AudioError> {
        let total = stage.plan.samples;
        while self.done < total {
            let until = total.min(self.done + 60 * u64::from(stage.plan.rate_hz));
            self.flush(until as i64, stage, sink)?;
            if !progress(self.done, total) {
                return Err(AudioError::Cancelled);
            }
        }
        Ok(())
    }

    /// From the next tone to the one after it in the same channel, ms: a key ends the one before.
    fn until_next_tone(&self, plan: &Plan) -> u64 {
        let mut events = plan.events()[self.next_tone..].iter();
        let Some(event) = events.next() else { return 0 };
        let mut later = events
            .take_while(|later| later.start_ms < event.start_ms + i64::from(event.duration_ms));
        let next = later.find(|later| later.channel == event.channel);
        next.map_or(u64::MAX, |next| {
            next.start_ms.saturating_sub(event.start_ms).unsigned_abs()
        })
    }

    /// Lays the tones of telephone events that begin in the next `count` samples.
    fn add_tones(&mut self, stage: &mut Stage<'_>, count: usize) {
        if !stage.plan.tones {
            return;
        }
        let rate = stage.plan.rate_hz;
        let end = (self.done + count as u64) as i64;
        while let Some(event) = stage.plan.events().get(self.next_tone) {
            let position = event.start_ms * i64::from(rate) / 1_000;
            if position >= end {
                return;
            }
            let ms = u64::from(event.duration_ms).min(self.until_next_tone(stage.plan));
            let samples = (ms * u64::from(rate) / 1_000) as usize;
            let mut sound = Vec::with_capacity(samples);
            tone::dtmf(event.event, TONE_DBM0, rate, samples, &mut sound);
            stage.tracks[event.channel].add(0, position, &sound);
            self.next_tone += 1;
        }
    }
}
