//! Band-limited resampling by any ratio: between sample rates, and by the parts per million that
//! a drifting clock needs.

use std::sync::Arc;

/// Zero crossings of the kernel on each side.
const HALF_WIDTH: usize = 24;
/// Rows of the kernel between two input samples; values in between are interpolated.
const PHASES: usize = 512;
/// Kaiser window: about 90 dB of stop band.
const BETA: f64 = 9.0;
/// Transition band: where the pass band ends, relative to the lower Nyquist frequency.
const PASS: f64 = 0.95;

/// A low-pass kernel, sampled finely.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// `PHASES + 1` rows of `taps` coefficients.
    rows: Vec<f32>,
    taps: usize,
}

impl Kernel {
    /// The kernel from `input_hz` to `output_hz`.
    pub(crate) fn new(input_hz: u32, output_hz: u32) -> Arc<Self> {
        let shrink = f64::from(output_hz.max(1)) / f64::from(input_hz.max(1));
        // Cut-off relative to the input's Nyquist frequency; equal rates keep the whole band.
        let cutoff = if input_hz == output_hz {
            1.0
        } else {
            shrink.min(1.0) * PASS
        };
        let half = (HALF_WIDTH as f64 / shrink.min(1.0)).ceil() as usize;
        let half = half.clamp(HALF_WIDTH, 2_048).next_multiple_of(4);
        let taps = 2 * half;
        let mut rows = Vec::with_capacity((PHASES + 1) * taps);
        for phase in 0..=PHASES {
            let fraction = phase as f64 / PHASES as f64;
            let start = rows.len();
            for tap in 0..taps {
                // Distance from the output's place, which lies between taps half-1 and half.
                let x = tap as f64 - (half as f64 - 1.0) - fraction;
                rows.push((cutoff * sinc(cutoff * x) * kaiser(x / half as f64)) as f32);
            }
            let sum: f32 = rows[start..].iter().sum();
            rows[start..].iter_mut().for_each(|value| *value /= sum);
        }
        Arc::new(Self { rows, taps })
    }

    fn half(&self) -> usize {
        self.taps / 2
    }

    fn apply(&self, input: &[f32], fraction: f64) -> f32 {
        let place = fraction * PHASES as f64;
        let phase = (place as usize).min(PHASES - 1);
        let blend = (place - phase as f64) as f32;
        let low = &self.rows[phase * self.taps..(phase + 1) * self.taps];
        let lower = dot(low, input);
        if blend < 1e-4 {
            return lower;
        }
        let high = &self.rows[(phase + 1) * self.taps..(phase + 2) * self.taps];
        lower + (dot(high, input) - lower) * blend
    }
}

/// Sums in eight lanes, so that the compiler can use vector registers.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; 8];
    for (a, b) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        for lane in 0..8 {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    let rest = a.len() / 8 * 8;
    let tail: f32 = a[rest..].iter().zip(&b[rest..]).map(|(a, b)| a * b).sum();
    lanes.iter().sum::<f32>() + tail
}

fn sinc(x: f64) -> f64 {
    let y = std::f64::consts::PI * x;
    if y.abs() < 1e-9 { 1.0 } else { y.sin() / y }
}

/// The window, up to a factor.
fn kaiser(x: f64) -> f64 {
    if x.abs() >= 1.0 {
        0.0
    } else {
        bessel_i0(BETA * (1.0 - x * x).sqrt())
    }
}

/// The modified Bessel function of order 0, by its power series.
fn bessel_i0(x: f64) -> f64 {
    let (mut term, mut sum) = (1.0, 1.0);
    let square = x * x / 4.0;
    for n in 1..40_i32 {
        term *= square / f64::from(n * n);
        sum += term;
        if term < sum * 1e-12 {
            break;
        }
    }
    sum
}

/// A whole sound at another sample rate.
#[must_use]
pub fn resample(samples: &[i16], input_hz: u32, output_hz: u32) -> Vec<i16> {
    let mut output = Vec::new();
    let step = f64::from(input_hz) / f64::from(output_hz.max(1));
    let mut resampler = Resampler::new(Kernel::new(input_hz, output_hz), step);
    resampler.push(samples, &mut output);
    resampler.finish(&mut output);
    output
}

/// Resamples one contiguous piece of sound. Output sample `n` lies at input sample `n * step`.
#[derive(Debug)]
pub(crate) struct Resampler {
    kernel: Arc<Kernel>,
    /// Input samples an output sample.
    step: f64,
    /// Input from `first` on; begins with half a kernel of silence before sample 0.
    input: Vec<f32>,
    /// Input index of `input[0]`.
    first: i64,
    /// Samples pushed.
    pushed: i64,
    /// Output samples made.
    made: i64,
}

impl Resampler {
    pub(crate) fn new(kernel: Arc<Kernel>, step: f64) -> Self {
        let half = kernel.half();
        Self {
            kernel,
            step,
            input: vec![0.0; half],
            first: -(half as i64),
            pushed: 0,
            made: 0,
        }
    }

    /// Takes input and appends the output that it settles.
    pub(crate) fn push(&mut self, samples: &[i16], output: &mut Vec<i16>) {
        self.input
            .extend(samples.iter().map(|&sample| f32::from(sample)));
        self.pushed += samples.len() as i64;
        self.run(self.pushed - self.kernel.half() as i64, output);
        let keep = self.place().0 - self.kernel.half() as i64;
        let surplus = (keep - self.first).clamp(0, self.input.len() as i64) as usize;
        if surplus > 4_096 {
            self.input.drain(..surplus);
            self.first += surplus as i64;
        }
    }

    /// Appends the rest of the output.
    pub(crate) fn finish(mut self, output: &mut Vec<i16>) {
        let silence = self.input.len() + self.kernel.half() + 1;
        self.input.resize(silence, 0.0);
        self.run(self.pushed, output);
    }

    /// Input sample before the next output sample, and the fraction beyond it.
    fn place(&self) -> (i64, f64) {
        let exact = self.made as f64 * self.step;
        (exact.floor() as i64, exact - exact.floor())
    }

    /// Makes output that lies before input sample `limit`.
    fn run(&mut self, limit: i64, output: &mut Vec<i16>) {
        let half = self.kernel.half() as i64;
        loop {
            let (index, fraction) = self.place();
            if index >= limit {
                return;
            }
            let start = (index - half + 1 - self.first) as usize;
            let Some(window) = self.input.get(start..start + self.kernel.taps) else {
                return;
            };
            let value = self.kernel.apply(window, fraction);
            output.push(value.round().clamp(-32_768.0, 32_767.0) as i16);
            self.made += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(rate_hz: f64, frequency: f64, count: usize) -> Vec<i16> {
        let step = std::f64::consts::TAU * frequency / rate_hz;
        (0..count)
            .map(|n| ((n as f64 * step).sin() * 12_000.0).round() as i16)
            .collect()
    }

    fn by_pieces(input: &[i16], input_hz: u32, output_hz: u32, step: f64) -> Vec<i16> {
        let mut resampler = Resampler::new(Kernel::new(input_hz, output_hz), step);
        let mut output = Vec::new();
        for chunk in input.chunks(157) {
            resampler.push(chunk, &mut output);
        }
        resampler.finish(&mut output);
        output
    }

    fn snr_db(wanted: &[i16], got: &[i16]) -> f64 {
        let middle = 400..wanted.len().min(got.len()) - 400;
        let signal: f64 = wanted[middle.clone()]
            .iter()
            .map(|&s| f64::from(s).powi(2))
            .sum();
        let pairs = wanted[middle.clone()].iter().zip(&got[middle]);
        let noise: f64 = pairs
            .map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2))
            .sum();
        10.0 * (signal / noise.max(1e-9)).log10()
    }

    #[test]
    fn rates_change_without_moving_the_sound() {
        for (from, to) in [
            (8_000, 16_000),
            (8_000, 48_000),
            (16_000, 8_000),
            (48_000, 8_000),
        ] {
            let input = tone(f64::from(from), 1_000.0, from as usize);
            let output = by_pieces(&input, from, to, f64::from(from) / f64::from(to));
            assert_eq!(output, resample(&input, from, to));
            assert_eq!(output.len(), to as usize, "{from} -> {to}");
            let quality = snr_db(&tone(f64::from(to), 1_000.0, to as usize), &output);
            assert!(quality > 60.0, "{from} -> {to}: {quality:.1} dB");
        }
    }

    #[test]
    fn what_the_lower_rate_cannot_carry_is_removed() {
        let output = by_pieces(&tone(48_000.0, 6_000.0, 48_000), 48_000, 8_000, 6.0);
        let loudest = output[400..7_600].iter().map(|s| s.unsigned_abs()).max();
        assert!(loudest < Some(30), "{loudest:?}");
    }

    #[test]
    fn a_drift_is_followed_to_the_end() {
        let input = tone(8_000.0 * 1.000_2, 1_000.0, 80_016);
        let output = by_pieces(&input, 8_000, 8_000, 1.000_2);
        assert!(output.len().abs_diff(80_000) <= 1);
        assert!(snr_db(&tone(8_000.0, 1_000.0, 80_000), &output) > 60.0);
    }
}
