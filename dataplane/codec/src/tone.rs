//! Tones made of sines, for events that are to be heard.

use crate::telephone_event;

/// Appends a DTMF tone at `level_dbm0` (a full-scale sine is +3.17 dBm0), with ramps of 2 ms so
/// that it neither begins nor ends with a click. Events without frequencies append silence.
pub fn dtmf(event: u8, level_dbm0: f32, rate_hz: u32, samples: usize, output: &mut Vec<i16>) {
    match telephone_event::frequencies(event) {
        // Two sines share the level.
        Some((low, high)) => {
            let frequencies = [f32::from(low), f32::from(high)];
            sines(&frequencies, level_dbm0 - 3.01, rate_hz, samples, output);
        }
        None => output.extend(std::iter::repeat_n(0, samples)),
    }
}

/// Appends a sine at `level_dbm0`, with the same ramps.
pub fn sine(hz: u32, level_dbm0: f32, rate_hz: u32, samples: usize, output: &mut Vec<i16>) {
    sines(&[hz as f32], level_dbm0, rate_hz, samples, output);
}

fn sines(
    frequencies_hz: &[f32],
    level_dbm0: f32,
    rate_hz: u32,
    samples: usize,
    output: &mut Vec<i16>,
) {
    let peak = 32_767.0 * 10.0_f32.powf((level_dbm0 - 3.17) / 20.0);
    let ramp = (rate_hz / 500).max(1) as usize;
    let step = |hz: &f32| std::f32::consts::TAU * hz / rate_hz as f32;
    output.extend((0..samples).map(|n| {
        let edge = (n + 1).min(samples - n).min(ramp) as f32 / ramp as f32;
        let sum: f32 = frequencies_hz
            .iter()
            .map(|hz| (n as f32 * step(hz)).sin())
            .sum();
        (sum * peak * edge).clamp(-32_768.0, 32_767.0) as i16
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn power_at(samples: &[i16], frequency: f64) -> f64 {
        let step = std::f64::consts::TAU * frequency / 8_000.0;
        let (mut real, mut imaginary) = (0.0, 0.0);
        for (n, &sample) in samples.iter().enumerate() {
            real += f64::from(sample) * (n as f64 * step).cos();
            imaginary += f64::from(sample) * (n as f64 * step).sin();
        }
        (real * real + imaginary * imaginary) / samples.len() as f64
    }

    #[test]
    fn a_key_has_its_two_frequencies_and_no_other() {
        let mut tone = Vec::new();
        dtmf(5, -10.0, 8_000, 800, &mut tone);
        let other = power_at(&tone, 941.0).max(power_at(&tone, 1_477.0));
        assert!(power_at(&tone, 770.0) > 100.0 * other);
        assert!(power_at(&tone, 1_336.0) > 100.0 * other);
        assert!(tone[0].unsigned_abs() < 500 && tone[799].unsigned_abs() < 500);
    }

    #[test]
    fn a_sine_has_its_frequency_and_level() {
        let mut tone = Vec::new();
        sine(1_400, 3.17 - 20.0, 8_000, 800, &mut tone);
        assert!(power_at(&tone, 1_400.0) > 100.0 * power_at(&tone, 1_000.0));
        let loudest = tone.iter().map(|sample| sample.unsigned_abs()).max();
        assert!((3_200..=3_277).contains(&loudest.unwrap()), "{loudest:?}");
    }
}
