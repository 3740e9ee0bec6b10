//! Comfort noise (RFC 3389): a level, and optionally the colour of the noise.

/// Most reflection coefficients taken from a payload (RFC 3389 section 3.2 allows any number).
const ORDER_MAX: usize = 12;

/// What a comfort-noise payload says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Description {
    /// Noise level in -dBov, 0..=127 (RFC 3389 section 3.1).
    pub level: u8,
    reflection: [f32; ORDER_MAX],
    order: usize,
}

impl Description {
    /// Reads a payload; `None` when it is empty.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let (&level, coefficients) = payload.split_first()?;
        let mut reflection = [0.0; ORDER_MAX];
        let order = coefficients.len().min(ORDER_MAX);
        for (value, &octet) in reflection.iter_mut().zip(coefficients) {
            // Section 3.2: uniformly quantised, 127 stands for 0.
            *value = ((f32::from(octet) - 127.0) / 128.0).clamp(-0.98, 0.98);
        }
        Some(Self {
            level: level & 0x7F,
            reflection,
            order,
        })
    }

    /// What would describe a piece of noise: its level, and its colour by linear prediction.
    #[must_use]
    pub fn of(sound: &[i16]) -> Self {
        let product = |lag: usize| -> f64 {
            let later = sound.get(lag..).unwrap_or(&[]);
            let pairs = sound.iter().zip(later);
            pairs.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
        };
        let energy = product(0);
        let rms = (energy / sound.len().max(1) as f64).sqrt();
        let level = -20.0 * (rms.max(1.0) / 32_768.0).log10();
        let mut reflection = [0.0; ORDER_MAX];
        // Levinson and Durbin, with a little white noise for a matrix that is never singular.
        let mut error = energy * 1.001 + 1.0;
        let mut predictor = [0.0; ORDER_MAX];
        for order in 0..ORDER_MAX {
            let known = predictor[..order].iter().zip((1..=order).rev());
            let sum: f64 = known.map(|(a, lag)| a * product(lag)).sum();
            let k = (-(product(order + 1) + sum) / error).clamp(-0.98, 0.98);
            let before = predictor;
            for index in 0..order {
                predictor[index] += k * before[order - 1 - index];
            }
            predictor[order] = k;
            error *= 1.0 - k * k;
            reflection[order] = k as f32;
        }
        Self {
            level: level.round().clamp(0.0, 127.0) as u8,
            reflection,
            order: ORDER_MAX,
        }
    }

    /// Standard deviation of the noise in 16-bit units: 0 dBov is a square wave of full scale.
    #[must_use]
    pub fn amplitude(&self) -> f32 {
        32_768.0 * 10.0_f32.powf(-f32::from(self.level) / 20.0)
    }
}

/// Makes noise by a description; the same seed gives the same noise.
#[derive(Debug, Clone)]
pub struct Generator {
    state: u64,
    lattice: [f32; ORDER_MAX],
}

impl Generator {
    /// A generator that starts from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            state: seed ^ 0x9E37_79B9_7F4A_7C15,
            lattice: [0.0; ORDER_MAX],
        }
    }

    /// Appends `samples` samples of noise.
    pub fn fill(&mut self, description: &Description, samples: usize, output: &mut Vec<i16>) {
        let order = description.order;
        // A white input through the all-pole lattice comes out louder by 1 / prod(1 - k^2).
        let gain: f32 = description.reflection[..order]
            .iter()
            .map(|k| 1.0 - k * k)
            .product();
        let amplitude = description.amplitude() * gain.sqrt();
        output.extend((0..samples).map(|_| {
            let mut forward = self.gaussian() * amplitude;
            for stage in (0..order).rev() {
                let coefficient = description.reflection[stage];
                forward -= coefficient * self.lattice[stage];
                let backward = self.lattice[stage] + coefficient * forward;
                if stage + 1 < order {
                    self.lattice[stage + 1] = backward;
                }
            }
            if order > 0 {
                self.lattice[0] = forward;
            }
            forward.clamp(-32_768.0, 32_767.0) as i16
        }));
    }

    /// Roughly normal, variance 1: the sum of twelve uniform numbers.
    fn gaussian(&mut self) -> f32 {
        let mut sum = 0_u32;
        for _ in 0..3 {
            self.state = self
                .state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let word = (self.state >> 16) as u32 ^ (self.state >> 45) as u32;
            sum += (word & 0xFF) + (word >> 8 & 0xFF) + (word >> 16 & 0xFF) + (word >> 24);
        }
        (sum as f32 - 12.0 * 127.5) / 256.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level_dbov(samples: &[i16]) -> f64 {
        let power: f64 = samples.iter().map(|&s| f64::from(s).powi(2)).sum::<f64>();
        10.0 * (power / samples.len() as f64 / 32_768.0_f64.powi(2)).log10()
    }

    #[test]
    fn noise_has_the_level_asked_for() {
        for payload in [&[40_u8][..], &[60], &[50, 160, 100, 140]] {
            let description = Description::parse(payload).unwrap();
            let mut noise = Vec::new();
            Generator::new(1).fill(&description, 80_000, &mut noise);
            let error = level_dbov(&noise) + f64::from(payload[0]);
            assert!(error.abs() < 1.5, "{payload:?}: off by {error:.2} dB");
        }
    }

    #[test]
    fn noise_is_described_by_its_level_and_colour() {
        for payload in [&[40_u8][..], &[50, 20, 160], &[60, 230, 140, 100]] {
            let mut noise = Vec::new();
            let described = Description::parse(payload).unwrap();
            Generator::new(1).fill(&described, 8_000, &mut noise);
            let found = Description::of(&noise);
            assert!(
                found.level.abs_diff(payload[0]) <= 1,
                "{payload:?}: {found:?}"
            );
            for (k, wanted) in found.reflection.iter().zip(described.reflection) {
                assert!((k - wanted).abs() < 0.1, "{payload:?}: {found:?}");
            }
        }
        for silence in [&[][..], &[0; 100], &[i16::MIN; 100]] {
            let mut noise = Vec::new();
            Generator::new(1).fill(&Description::of(silence), 100, &mut noise);
            assert_eq!(noise.len(), 100);
        }
    }

    #[test]
    fn an_empty_payload_says_nothing_and_extremes_do_not_overflow() {
        assert_eq!(Description::parse(&[]), None);
        for payload in [&[0; 40][..], &[255; 40], &[0, 255, 0, 255, 0]] {
            let description = Description::parse(payload).unwrap();
            let mut noise = Vec::new();
            Generator::new(7).fill(&description, 8_000, &mut noise);
            assert_eq!(noise.len(), 8_000);
        }
    }
}
