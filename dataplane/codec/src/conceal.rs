//! Concealment of lost packets by repeating pitch periods, after ITU-T G.711 appendix I, at any
//! sample rate.
//!
//! The signal before a loss is continued with its last pitch period (after 10 and 20 ms with the
//! last two and three), faded by a fifth each 10 ms from the second on and silent after 60 ms.
//! The sound after the loss is continued backwards in the same way, and both are cross-faded.
//!
//! Samples that were received stay as they are: appendix I blends the last quarter of a period
//! before the loss into the repetition, which costs a delay and changes what was heard. Here the
//! step between the last sample received and the repetition is taken out of the repetition, and
//! fades over that quarter inside the loss.

use std::ops::RangeInclusive;

/// Keeps the recent past of one stream and continues it on demand.
#[derive(Debug, Clone)]
pub struct Concealer {
    rate_hz: u32,
    /// The past, newest last; at most `2 * keep` samples, of which the last `keep` count.
    history: Vec<i16>,
    keep: usize,
}

impl Concealer {
    /// A concealer for a stream of `rate_hz` samples a second, with an empty past.
    #[must_use]
    pub fn new(rate_hz: u32) -> Self {
        // 390 samples at 8 kHz: three longest periods and a quarter of one.
        let keep = (rate_hz as usize * 390).div_ceil(8_000);
        Self {
            rate_hz,
            history: Vec::with_capacity(2 * keep),
            keep,
        }
    }

    /// Forgets the past: what comes next does not continue it.
    pub fn reset(&mut self) {
        self.history.clear();
    }

    /// Takes note of samples received.
    pub fn remember(&mut self, samples: &[i16]) {
        let tail = &samples[samples.len().saturating_sub(self.keep)..];
        if self.history.len() + tail.len() > 2 * self.keep {
            let surplus = self
                .history
                .len()
                .saturating_sub(self.keep - tail.len().min(self.keep));
            self.history.drain(..surplus);
        }
        self.history.extend_from_slice(tail);
    }

    /// Appends `samples` samples between what was remembered and `next`, the sound after the loss.
    /// Without a past they fade in towards `next`, without `next` they fade out.
    pub fn fill_between(&mut self, samples: usize, next: &[i16], output: &mut Vec<i16>) {
        let past = &self.history[self.history.len().saturating_sub(self.keep)..];
        let past: Vec<f32> = past.iter().map(|&sample| f32::from(sample)).collect();
        let near_future = &next[..next.len().min(self.keep)];
        let future: Vec<f32> = near_future.iter().rev().map(|&s| f32::from(s)).collect();
        let unit = (self.rate_hz as usize / 100).max(1);
        let pitch = find_pitch(&past, self.rate_hz, None);
        let mut forward = Repetition::new(past, pitch, unit);
        let pitch = find_pitch(&future, self.rate_hz, (pitch > 1).then_some(pitch));
        let mut backward = Repetition::new(future, pitch, unit);

        let start = output.len();
        let weight = |index: usize| (index + 1) as f32 / (samples + 1) as f32;
        let later = (0..samples).map(|index| forward.next() * (1.0 - weight(index)));
        let mut made: Vec<f32> = later.collect();
        for (index, sample) in made.iter_mut().enumerate().rev() {
            *sample += backward.next() * weight(index);
        }
        output.extend(made.into_iter().map(|sample| sample as i16));
        // A second loss soon after this one continues what was heard.
        self.remember(&output[start..]);
    }
}

/// A signal going on beyond its end.
#[derive(Debug, Clone)]
struct Repetition {
    /// One to three pitch periods, cross-faded so that they can be repeated.
    cycle: Vec<f32>,
    /// What is repeated, newest last.
    past: Vec<f32>,
    pitch: usize,
    /// Pitch periods in `cycle`.
    periods: usize,
    /// Where in `cycle` the next sample comes from.
    position: usize,
    /// Samples made so far.
    made: usize,
    /// Samples of 10 ms.
    unit: usize,
    /// From the repetition up to the signal where the one begins and the other ends.
    step: f32,
}

impl Repetition {
    fn new(past: Vec<f32>, pitch: usize, unit: usize) -> Self {
        let last = past.last().copied().unwrap_or(0.0);
        let before = past
            .len()
            .checked_sub(pitch + 1)
            .map_or(last, |at| past[at]);
        let mut repetition = Self {
            cycle: Vec::new(),
            past,
            pitch,
            periods: 0,
            position: 0,
            made: 0,
            unit,
            step: last - before,
        };
        repetition.extend(1);
        repetition
    }

    /// Rebuilds the cycle from the last `periods` pitch periods.
    fn extend(&mut self, periods: usize) {
        let quarter = self.pitch / 4;
        let known = self.past.len().saturating_sub(quarter) / self.pitch;
        let length = (self.pitch * periods.min(known).max(1)).min(self.past.len());
        let start = self.past.len() - length;
        self.cycle.clear();
        self.cycle.extend_from_slice(&self.past[start..]);
        // The end of the cycle runs into its beginning: blend it with what preceded the beginning.
        let quarter = quarter.min(start);
        for index in 0..quarter {
            let weight = (index + 1) as f32 / (quarter + 1) as f32;
            let before = self.past[start - quarter + index];
            let end = &mut self.cycle[length - quarter + index];
            *end = *end * (1.0 - weight) + before * weight;
        }
        self.periods = periods;
    }

    fn next(&mut self) -> f32 {
        let units = self.made / self.unit;
        if units >= 6 || self.cycle.is_empty() {
            return 0.0;
        }
        let periods = (units + 1).min(3);
        if periods > self.periods && self.position == 0 {
            self.extend(periods);
        }
        let quarter = self.pitch / 4;
        let left = quarter.saturating_sub(self.made) as f32 / (quarter + 1) as f32;
        let sample = self.cycle[self.position] + self.step * left;
        self.position = (self.position + 1) % self.cycle.len();
        let faded = self.made.saturating_sub(self.unit) as f32 / (5 * self.unit) as f32;
        self.made += 1;
        sample * (1.0 - faded)
    }
}

/// The lag at which the last 20 ms resemble what came before most: of 5 to 15 ms, or near `near`.
/// 1 when there is too little sound to tell.
fn find_pitch(past: &[f32], rate_hz: u32, near: Option<usize>) -> usize {
    let rate = rate_hz as usize;
    let (shortest, longest) = match near {
        None => ((rate / 200).max(2), (rate * 3 / 200).max(3)),
        Some(pitch) => ((pitch * 4 / 5).max(2), pitch * 5 / 4),
    };
    let lags = shortest..=longest.min(past.len() * 3 / 5);
    if lags.is_empty() {
        return 1;
    }
    best_lag(past, lags, rate / 50)
}

/// The lag among `lags` at which the last samples (`window` of them, where there are so many)
/// resemble what came before most. Looked for coarsely first.
fn best_lag(past: &[f32], lags: RangeInclusive<usize>, window: usize) -> usize {
    let (shortest, longest) = (*lags.start(), *lags.end());
    let window = window.min(past.len() - longest);
    let recent = &past[past.len() - window..];
    let score = |lag: usize, stride: usize| {
        let earlier = &past[past.len() - window - lag..past.len() - lag];
        let (mut product, mut energy) = (0.0_f32, 1.0_f32);
        for (a, b) in recent
            .iter()
            .step_by(stride)
            .zip(earlier.iter().step_by(stride))
        {
            product += a * b;
            energy += b * b;
        }
        product / energy.sqrt()
    };
    let best = |lags: &mut dyn Iterator<Item = usize>, stride: usize| {
        let scored = lags.map(|lag| (lag, score(lag, stride)));
        scored
            .fold((longest, f32::MIN), |best, next| {
                if next.1 > best.1 { next } else { best }
            })
            .0
    };
    // About 40 lags at first.
    let coarse = ((longest - shortest) / 40).max(1);
    let rough = best(&mut (shortest..=longest).step_by(coarse), coarse);
    let near = rough.saturating_sub(coarse - 1).max(shortest)..=(rough + coarse - 1).min(longest);
    best(&mut near.into_iter(), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A voiced sound: harmonics of 130 Hz.
    fn voiced(rate_hz: u32, count: usize) -> Vec<i16> {
        (0..count)
            .map(|n| {
                let phase = std::f64::consts::TAU * 130.0 * n as f64 / f64::from(rate_hz);
                ((phase.sin() + 0.6 * (2.0 * phase).sin() + 0.4 * (5.0 * phase).sin()) * 6_000.0)
                    as i16
            })
            .collect()
    }

    fn snr_db(wanted: &[i16], got: &[i16]) -> f64 {
        let signal: f64 = wanted.iter().map(|&s| f64::from(s).powi(2)).sum();
        let noise: f64 = wanted
            .iter()
            .zip(got)
            .map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2))
            .sum();
        10.0 * (signal / noise.max(1.0)).log10()
    }

    #[test]
    fn a_lost_packet_of_a_voiced_sound_is_continued_in_phase() {
        for rate_hz in [8_000, 16_000, 48_000] {
            let sound = voiced(rate_hz, rate_hz as usize / 4);
            let frame = rate_hz as usize / 50;
            let mut concealer = Concealer::new(rate_hz);
            let (before, rest) = sound.split_at(frame * 5);
            concealer.remember(before);
            let mut made = Vec::new();
            concealer.fill_between(frame, &rest[frame..2 * frame], &mut made);
            assert_eq!(made.len(), frame);
            let quality = snr_db(&rest[..frame], &made);
            assert!(quality > 15.0, "{rate_hz}: {quality:.1} dB");
        }
    }

    /// The greatest step from one sample to the next.
    fn steepest(sound: &[i16]) -> u16 {
        let steps = sound.windows(2).map(|pair| pair[0].abs_diff(pair[1]));
        steps.max().unwrap_or(0)
    }

    #[test]
    fn both_edges_of_a_loss_are_smooth() {
        let sound = voiced(8_000, 4_000);
        let usual = steepest(&sound);
        for at in (400..1_400).step_by(37) {
            for samples in [40, 160, 480, 1_600] {
                let (before, rest) = sound.split_at(at);
                let next = &rest[samples..samples + 160];
                let mut concealer = Concealer::new(8_000);
                concealer.remember(before);
                let mut all = before[at - 20..].to_vec();
                concealer.fill_between(samples, next, &mut all);
                all.extend_from_slice(&next[..20]);
                let found = steepest(&all);
                assert!(
                    found < usual + usual / 2,
                    "{samples} samples at {at}: {found} against {usual}"
                );
            }
        }
    }

    #[test]
    fn without_an_end_the_sound_fades_out_and_without_a_beginning_it_fades_in() {
        let sound = voiced(8_000, 800);
        let mut concealer = Concealer::new(8_000);
        concealer.remember(&sound);
        let mut made = Vec::new();
        concealer.fill_between(800, &[], &mut made);
        let peak = |part: &[i16]| part.iter().map(|s| s.unsigned_abs()).max().unwrap_or(0);
        assert!(peak(&made[..80]) > 5_000);
        assert!(peak(&made[320..400]) < peak(&made[..80]));
        assert_eq!(peak(&made[480..]), 0);
        made.clear();
        concealer.reset();
        concealer.fill_between(80, &sound[..160], &mut made);
        assert!(peak(&made[..8]) < 2_500 && peak(&made[60..]) > 2_500);
        assert!(made[79].abs_diff(sound[0]) < steepest(&sound));
    }

    #[test]
    fn little_sound_or_none_is_no_trouble() {
        let mut concealer = Concealer::new(8_000);
        let mut made = Vec::new();
        concealer.fill_between(160, &[], &mut made);
        assert_eq!(made, vec![0; 160]);
        for count in [1, 2, 5, 30, 67, 100] {
            let mut concealer = Concealer::new(8_000);
            concealer.remember(&vec![1_000; count]);
            made.clear();
            concealer.fill_between(160, &vec![1_000; count], &mut made);
            assert_eq!(made.len(), 160);
            assert!(made[0] > 950 && made[159] > 950, "{count}");
        }
    }
}
