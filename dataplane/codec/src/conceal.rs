//! Concealment of lost packets by repeating pitch periods, after ITU-T G.711 appendix I, at any
//! sample rate.
//!
//! The signal before a loss is continued with its last pitch period (after 10 and 20 ms with the
//! last two and three), faded by a fifth each 10 ms from the second on and silent after 60 ms.
//! The last quarter of a period before the loss and the first samples after it are cross-faded.
//! Where the sound after the loss is known, [`Concealer::fill_between`] continues that backwards
//! in the same way and cross-fades both, which leaves what was received after the loss untouched.

use std::ops::RangeInclusive;

/// Longest loss that is concealed, in ms; what is longer ends in silence.
pub const CONCEAL_MS_MAX: u32 = 60;

/// Keeps the recent past of one stream and continues it on demand.
#[derive(Debug, Clone)]
pub struct Concealer {
    rate_hz: u32,
    /// The past, newest last; at most `2 * keep` samples, of which the last `keep` count.
    history: Vec<i16>,
    keep: usize,
    /// State while a loss goes on.
    loss: Option<Loss>,
}

#[derive(Debug, Clone)]
struct Loss {
    /// One to three pitch periods, cross-faded so that they can be repeated.
    cycle: Vec<f32>,
    /// The last three pitch periods before the loss.
    past: Vec<f32>,
    pitch: usize,
    /// Pitch periods in `cycle`.
    periods: usize,
    /// Where in `cycle` the next sample comes from.
    position: usize,
    /// Samples made so far.
    made: usize,
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
            loss: None,
        }
    }

    /// Samples before a loss that [`Self::begin`] may change: a quarter of the longest period
    /// (3.75 ms). Whoever writes the stream out holds that many back.
    #[must_use]
    pub fn lookback(&self) -> usize {
        (self.rate_hz as usize * 30).div_ceil(8_000)
    }

    /// Forgets the past: what comes next does not continue it.
    pub fn reset(&mut self) {
        self.history.clear();
        self.loss = None;
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

    /// Begins a loss. `tail` is the last [`Self::lookback`] samples before it (or fewer), not yet
    /// heard by anybody: its end is blended into the repetition. Without a past nothing happens
    /// and [`Self::fill`] gives silence.
    pub fn begin(&mut self, tail: &mut [i16]) {
        let past = &self.history[self.history.len().saturating_sub(self.keep)..];
        if past.len() < self.keep {
            self.loss = None;
            return;
        }
        let past: Vec<f32> = past.iter().map(|&sample| f32::from(sample)).collect();
        let pitch = find_pitch(&past, self.rate_hz);
        let mut loss = Loss {
            cycle: Vec::new(),
            past,
            pitch,
            periods: 0,
            position: 0,
            made: 0,
        };
        loss.extend(1);
        let overlap = (pitch / 4).min(tail.len());
        let cycle_end = &loss.cycle[loss.cycle.len() - overlap..];
        let start = tail.len() - overlap;
        for (sample, &blended) in tail[start..].iter_mut().zip(cycle_end) {
            *sample = blended as i16;
        }
        self.loss = Some(loss);
    }

    /// Appends `samples` samples of the loss begun by [`Self::begin`].
    pub fn fill(&mut self, samples: usize, output: &mut Vec<i16>) {
        let unit = self.rate_hz as usize / 100;
        let Some(loss) = &mut self.loss else {
            output.extend(std::iter::repeat_n(0, samples));
            return;
        };
        let start = output.len();
        output.extend((0..samples).map(|_| loss.next(unit)));
        // A second loss soon after this one continues what was heard.
        self.remember(&output[start..]);
    }

    /// Appends `samples` samples between the loss begun by [`Self::begin`] and `next`, the sound
    /// right after it, and ends the loss.
    pub fn fill_between(&mut self, samples: usize, next: &[i16], output: &mut Vec<i16>) {
        let start = output.len();
        let forward_pitch = self.loss.as_ref().map(|loss| loss.pitch);
        self.fill(samples, output);
        self.loss = None;
        let Some(pitch) = forward_pitch else { return };
        let future: Vec<f32> = next
            .iter()
            .take(self.keep)
            .rev()
            .map(|&s| f32::from(s))
            .collect();
        let lags = (pitch * 4 / 5).max(2)..=(pitch * 5 / 4).min(future.len() * 3 / 5);
        if lags.is_empty() {
            return;
        }
        let unit = self.rate_hz as usize / 100;
        let pitch = best_lag(&future, lags, self.rate_hz as usize / 50);
        let mut backward = Loss {
            cycle: Vec::new(),
            past: future,
            pitch,
            periods: 0,
            position: 0,
            made: 0,
        };
        backward.extend(1);
        for (index, sample) in output[start..].iter_mut().enumerate().rev() {
            let weight = (index + 1) as f32 / (samples + 1) as f32;
            let earlier = f32::from(backward.next(unit));
            *sample = (f32::from(*sample) * (1.0 - weight) + earlier * weight) as i16;
        }
    }

    /// Ends a loss: cross-fades the first samples received after it with the repetition.
    /// To be called before they are remembered.
    pub fn recover(&mut self, samples: &mut [i16]) {
        let unit = self.rate_hz as usize / 100;
        let Some(mut loss) = self.loss.take() else {
            return;
        };
        let lost_units = loss.made.div_ceil(unit.max(1));
        // A quarter of a period, and 4 ms more for each further 10 ms lost, at most 10 ms.
        let overlap = (loss.pitch / 4 + lost_units.saturating_sub(1) * unit * 2 / 5).min(unit);
        let overlap = overlap.min(samples.len());
        for (index, sample) in samples[..overlap].iter_mut().enumerate() {
            let weight = (index + 1) as f32 / (overlap + 1) as f32;
            let repeated = f32::from(loss.next(unit));
            *sample = (f32::from(*sample) * weight + repeated * (1.0 - weight)) as i16;
        }
    }
}

impl Loss {
    /// Rebuilds the cycle from the last `periods` pitch periods.
    fn extend(&mut self, periods: usize) {
        let quarter = self.pitch / 4;
        let known = (self.past.len() - quarter) / self.pitch;
        let length = self.pitch * periods.min(known).max(1);
        let start = self.past.len() - length;
        self.cycle.clear();
        self.cycle.extend_from_slice(&self.past[start..]);
        // The end of the cycle runs into its beginning: blend it with what preceded the beginning.
        for index in 0..quarter {
            let weight = (index + 1) as f32 / (quarter + 1) as f32;
            let before = self.past[start - quarter + index];
            let end = &mut self.cycle[length - quarter + index];
            *end = *end * (1.0 - weight) + before * weight;
        }
        self.periods = periods;
    }

    fn next(&mut self, unit: usize) -> i16 {
        let units = self.made / unit.max(1);
        if units >= 6 {
            self.made += 1;
            return 0;
        }
        let periods = (units + 1).min(3);
        if periods > self.periods && self.position == 0 {
            self.extend(periods);
        }
        let sample = self.cycle[self.position];
        self.position = (self.position + 1) % self.cycle.len();
        let faded = self.made.saturating_sub(unit) as f32 / (5 * unit.max(1)) as f32;
        self.made += 1;
        (sample * (1.0 - faded)) as i16
    }
}

/// The lag of 5 to 15 ms at which the last 20 ms resemble what came before most.
fn find_pitch(past: &[f32], rate_hz: u32) -> usize {
    let rate = rate_hz as usize;
    let (shortest, longest) = ((rate / 200).max(2), (rate * 3 / 200).max(3));
    best_lag(past, shortest..=longest, rate / 50)
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
            let mut tail = before[before.len() - concealer.lookback()..].to_vec();
            let untouched = tail.clone();
            concealer.begin(&mut tail);
            assert!(snr_db(&untouched, &tail) > 15.0, "the tail is only blended");
            let mut made = Vec::new();
            concealer.fill(frame, &mut made);
            let quality = snr_db(&rest[..frame / 2], &made[..frame / 2]);
            assert!(quality > 12.0, "{rate_hz}: {quality:.1} dB");
            let mut after = rest[frame..2 * frame].to_vec();
            concealer.recover(&mut after);
            assert!(snr_db(&rest[frame..2 * frame], &after) > 10.0);
            assert_eq!(
                after[frame / 2..],
                rest[frame + frame / 2..2 * frame],
                "10 ms at most"
            );
        }
    }

    #[test]
    fn long_losses_fade_to_silence() {
        let mut concealer = Concealer::new(8_000);
        concealer.remember(&voiced(8_000, 800));
        concealer.begin(&mut []);
        let mut made = Vec::new();
        concealer.fill(800, &mut made);
        let peak = |part: &[i16]| part.iter().map(|s| s.unsigned_abs()).max().unwrap_or(0);
        assert!(peak(&made[..80]) > 5_000);
        assert!(peak(&made[320..400]) < peak(&made[..80]));
        assert_eq!(peak(&made[480..]), 0);
    }

    #[test]
    fn without_a_past_there_is_silence() {
        let mut concealer = Concealer::new(8_000);
        concealer.remember(&[1_000; 100]);
        concealer.begin(&mut []);
        let mut made = Vec::new();
        concealer.fill(160, &mut made);
        assert_eq!(made, vec![0; 160]);
        let mut after = vec![5; 160];
        concealer.recover(&mut after);
        assert_eq!(after, vec![5; 160]);
    }
}
