//! A spectrogram as wide as a picture, made while the sound passes by.

use super::canvas::{Canvas, Colour};
use realfft::{RealFftPlanner, RealToComplex};
use std::collections::VecDeque;
use std::sync::Arc;

/// Frequencies, and rows of the picture.
pub(crate) const BINS: usize = 128;
const WINDOW: usize = 2 * BINS;
/// What is black, dB below full scale.
const FLOOR_DB: f32 = 96.0;

pub(crate) struct Spectrum {
    transform: Arc<dyn RealToComplex<f32>>,
    window: Vec<f32>,
    recent: VecDeque<i16>,
    /// Samples between two transforms.
    hop: usize,
    since: usize,
    position: u64,
    total: u64,
    /// Highest power of each frequency, by column.
    columns: Vec<Option<Box<[f32; BINS]>>>,
}

impl Spectrum {
    pub(crate) fn new(columns: usize, total: u64) -> Self {
        let hop = (total / columns.max(1) as u64).clamp(32, WINDOW as u64);
        let window = (0..WINDOW)
            .map(|n| 0.5 - 0.5 * (std::f32::consts::TAU * n as f32 / WINDOW as f32).cos())
            .collect();
        Self {
            transform: RealFftPlanner::new().plan_fft_forward(WINDOW),
            window,
            recent: VecDeque::from(vec![0; WINDOW]),
            hop: hop as usize,
            since: 0,
            position: 0,
            total: total.max(1),
            columns: vec![None; columns],
        }
    }

    pub(crate) fn take(&mut self, samples: &[i16]) {
        for &sample in samples {
            self.recent.pop_front();
            self.recent.push_back(sample);
            self.position += 1;
            self.since += 1;
            if self.since == self.hop {
                self.since = 0;
                self.analyse();
            }
        }
    }

    fn analyse(&mut self) {
        let centre = self.position.saturating_sub(WINDOW as u64 / 2);
        let column = u128::from(centre) * self.columns.len() as u128 / u128::from(self.total);
        let mut input: Vec<f32> = self
            .recent
            .iter()
            .zip(&self.window)
            .map(|(&sample, weight)| f32::from(sample) / 32_768.0 * weight)
            .collect();
        let mut output = self.transform.make_output_vec();
        if self.transform.process(&mut input, &mut output).is_err() {
            return;
        }
        if let Some(column) = self.columns.get_mut(column as usize) {
            let powers = column.get_or_insert_with(|| Box::new([0.0; BINS]));
            for (power, value) in powers.iter_mut().zip(&output) {
                *power = power.max(value.norm_sqr());
            }
        }
    }

    /// Draws it, low frequencies below.
    pub(crate) fn draw(&self, canvas: &mut Canvas, left: usize, top: usize) {
        let silence = Box::new([0.0; BINS]);
        let mut last = &silence;
        for (index, column) in self.columns.iter().enumerate() {
            last = column.as_ref().unwrap_or(last);
            for (bin, power) in last.iter().enumerate() {
                // A full-scale sine has the power (WINDOW / 4)^2 under this window.
                let full = (WINDOW as f32 / 4.0).powi(2);
                let level = 10.0 * (power / full).max(1e-12).log10();
                let row = top + BINS - 1 - bin;
                let x = left + index;
                canvas.fill(x..x + 1, row..row + 1, colour(1.0 + level / FLOOR_DB));
            }
        }
    }
}

/// From black over violet and orange to light yellow.
fn colour(strength: f32) -> Colour {
    const STOPS: [[f32; 3]; 5] = [
        [0.0, 0.0, 8.0],
        [60.0, 15.0, 110.0],
        [185.0, 55.0, 85.0],
        [250.0, 150.0, 20.0],
        [252.0, 255.0, 190.0],
    ];
    let place = strength.clamp(0.0, 1.0) * (STOPS.len() - 1) as f32;
    let below = (place as usize).min(STOPS.len() - 2);
    let blend = place - below as f32;
    let mix = |n: usize| STOPS[below][n] + (STOPS[below + 1][n] - STOPS[below][n]) * blend;
    [mix(0) as u8, mix(1) as u8, mix(2) as u8]
}
