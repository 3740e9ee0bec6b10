//! G.722 at 64 kbit/s (ITU-T G.722): 16000 samples a second from 8000 octets a second.
//!
//! Each octet holds six bits of the lower and two of the higher sub-band, each coded by an
//! adaptive differential quantiser whose predictor has two poles and six zeros. Names of blocks
//! are those of the recommendation. All arithmetic is exact.

use crate::{CodecError, Decoder, Encoder};

/// Quadrature mirror filter (table 11), every other coefficient; the rest is its mirror image.
const QMF: [i32; 12] = [3, -11, 12, 32, -210, 951, 3_876, -805, 362, -156, 53, -11];
/// Inverse quantiser of the lower sub-band with all six bits (table 17).
const LOW_6: [i32; 64] = [
    -136, -136, -136, -136, -24_808, -21_904, -19_008, -16_704, -14_984, -13_512, -12_280, -11_192,
    -10_232, -9_360, -8_576, -7_856, -7_192, -6_576, -6_000, -5_456, -4_944, -4_464, -4_008,
    -3_576, -3_168, -2_776, -2_400, -2_032, -1_688, -1_360, -1_040, -728, 24_808, 21_904, 19_008,
    16_704, 14_984, 13_512, 12_280, 11_192, 10_232, 9_360, 8_576, 7_856, 7_192, 6_576, 6_000,
    5_456, 4_944, 4_464, 4_008, 3_576, 3_168, 2_776, 2_400, 2_032, 1_688, 1_360, 1_040, 728, 432,
    136, -432, -136,
];
/// Inverse quantiser of the lower sub-band with the upper four bits, by which both ends adapt.
const LOW_4: [i32; 16] = [
    0, -20_456, -12_896, -8_968, -6_288, -4_240, -2_584, -1_200, 20_456, 12_896, 8_968, 6_288,
    4_240, 2_584, 1_200, 0,
];
/// Inverse quantiser of the higher sub-band.
const HIGH: [i32; 4] = [-7_408, -1_616, 7_408, 1_616];
/// Scale adaptation of the lower sub-band, by the upper four bits.
const LOW_SCALE: [i32; 16] = [
    -60, 3_042, 1_198, 538, 334, 172, 58, -30, 3_042, 1_198, 538, 334, 172, 58, -30, -60,
];
/// Scale adaptation of the higher sub-band.
const HIGH_SCALE: [i32; 4] = [798, -214, 798, -214];
/// Inverse logarithm of the scale factor (table 21).
const ANTILOG: [i32; 32] = [
    2_048, 2_093, 2_139, 2_186, 2_233, 2_282, 2_332, 2_383, 2_435, 2_489, 2_543, 2_599, 2_656,
    2_714, 2_774, 2_834, 2_896, 2_960, 3_025, 3_091, 3_158, 3_228, 3_298, 3_371, 3_444, 3_520,
    3_597, 3_676, 3_756, 3_838, 3_922, 4_008,
];
/// Decision levels of the lower sub-band's quantiser (table 14).
const LOW_LEVELS: [i32; 29] = [
    35, 72, 110, 150, 190, 233, 276, 323, 370, 422, 473, 530, 587, 650, 714, 786, 858, 940, 1_023,
    1_121, 1_219, 1_339, 1_458, 1_612, 1_765, 1_980, 2_195, 2_557, 2_919,
];
/// Decision level of the higher sub-band's quantiser.
const HIGH_LEVEL: i32 = 564;

/// One sub-band's predictor and scale.
#[derive(Debug, Clone)]
struct Band {
    /// Logarithm of the scale factor, and the factor.
    log_scale: i32,
    scale: i32,
    /// Quantised differences, newest first, and the zeros' coefficients.
    differences: [i32; 6],
    zeros: [i32; 6],
    /// Partial reconstructions and reconstructions, newest first, and the poles' coefficients.
    partial: [i32; 2],
    reconstructed: [i32; 2],
    poles: [i32; 2],
    /// What the zeros predict, and the whole prediction.
    zero_prediction: i32,
    prediction: i32,
}

impl Band {
    fn new(scale: i32) -> Self {
        Self {
            log_scale: 0,
            scale,
            differences: [0; 6],
            zeros: [0; 6],
            partial: [0; 2],
            reconstructed: [0; 2],
            poles: [0; 2],
            zero_prediction: 0,
            prediction: 0,
        }
    }

    /// Blocks LOGSCL/LOGSCH and SCALEL/SCALEH.
    fn adapt_scale(&mut self, change: i32, most: i32, offset: i32) {
        self.log_scale = (((self.log_scale * 127) >> 7) + change).clamp(0, most);
        let mantissa = ANTILOG[(self.log_scale >> 6 & 31) as usize];
        let shift = offset - (self.log_scale >> 11);
        self.scale = if shift < 0 {
            mantissa << -shift
        } else {
            mantissa >> shift
        } << 2;
    }

    /// Block 4: the predictor takes the quantised difference in.
    fn predict(&mut self, difference: i32) {
        let reconstructed = saturate(self.prediction + difference);
        let partial = saturate(self.zero_prediction + difference);
        self.adapt_poles(partial);
        self.adapt_zeros(difference);
        self.differences.rotate_right(1);
        self.differences[0] = difference;
        self.reconstructed = [reconstructed, self.reconstructed[0]];
        self.partial = [partial, self.partial[0]];
        // FILTEP, FILTEZ, PREDIC.
        let doubled = |value: i32| saturate(value + value);
        let poles = self.poles.iter().zip(&self.reconstructed);
        let pole_sum: i32 = poles.map(|(a, &r)| (a * doubled(r)) >> 15).sum();
        let zeros = self.zeros.iter().zip(&self.differences);
        let zero_sum: i32 = zeros.map(|(b, &d)| (b * doubled(d)) >> 15).sum();
        self.zero_prediction = saturate(zero_sum);
        self.prediction = saturate(saturate(pole_sum) + self.zero_prediction);
    }

    /// UPPOL2, then UPPOL1.
    fn adapt_poles(&mut self, partial: i32) {
        let same = |other: i32| (partial < 0) == (other < 0);
        let [first, second] = self.poles;
        let scaled = saturate(first << 2);
        let pull = if same(self.partial[0]) {
            (-scaled).min(32_767)
        } else {
            scaled
        };
        let push = if same(self.partial[1]) { 128 } else { -128 };
        let new_second = ((pull >> 7) + push + ((second * 32_512) >> 15)).clamp(-12_288, 12_288);
        let push = if same(self.partial[0]) { 192 } else { -192 };
        let bound = 15_360 - new_second;
        let new_first = (push + ((first * 32_640) >> 15)).clamp(-bound, bound);
        self.poles = [new_first, new_second];
    }

    /// UPZERO.
    fn adapt_zeros(&mut self, difference: i32) {
        for (zero, &earlier) in self.zeros.iter_mut().zip(&self.differences) {
            let push = match difference {
                0 => 0,
                _ if (difference < 0) == (earlier < 0) => 128,
                _ => -128,
            };
            *zero = saturate(push + ((*zero * 32_640) >> 15));
        }
    }

    /// Takes a code of the lower sub-band in.
    fn adapt_low(&mut self, code: usize) {
        let coarse = code >> 2;
        let difference = (self.scale * LOW_4[coarse]) >> 15;
        self.adapt_scale(LOW_SCALE[coarse], 18_432, 8);
        self.predict(difference);
    }

    /// Takes a code of the higher sub-band in.
    fn adapt_high(&mut self, code: usize) {
        let difference = (self.scale * HIGH[code]) >> 15;
        self.adapt_scale(HIGH_SCALE[code], 22_528, 10);
        self.predict(difference);
    }
}

fn saturate(value: i32) -> i32 {
    value.clamp(-32_768, 32_767)
}

fn low_band() -> Band {
    Band::new(32)
}

fn high_band() -> Band {
    Band::new(8)
}

/// Octets decoded between two moves of the filter's past.
const BLOCK: usize = 128;
/// Pairs of past that the receiving filter needs.
const PAST: usize = QMF.len() - 1;

pub(crate) struct G722Decoder {
    low: Band,
    high: Band,
    /// Sums and differences of the sub-bands, the newest last.
    sums: [i32; PAST],
    differences: [i32; PAST],
}

impl G722Decoder {
    pub(crate) fn new() -> Self {
        Self {
            low: low_band(),
            high: high_band(),
            sums: [0; PAST],
            differences: [0; PAST],
        }
    }

    fn block(&mut self, octets: &[u8], output: &mut Vec<i16>) {
        let mut sums = [0; PAST + BLOCK];
        let mut differences = [0; PAST + BLOCK];
        sums[..PAST].copy_from_slice(&self.sums);
        differences[..PAST].copy_from_slice(&self.differences);
        for (index, &octet) in octets.iter().enumerate() {
            let (low, high) = self.sub_bands(octet);
            sums[PAST + index] = low + high;
            differences[PAST + index] = low - high;
        }
        self.sums.copy_from_slice(&sums[octets.len()..][..PAST]);
        self.differences
            .copy_from_slice(&differences[octets.len()..][..PAST]);
        let pairs = sums.windows(QMF.len()).zip(differences.windows(QMF.len()));
        output.extend(pairs.take(octets.len()).flat_map(|(sums, differences)| {
            let second: i32 = sums.iter().zip(&QMF).map(|(x, c)| x * c).sum();
            let mirrored = QMF.iter().rev();
            let first: i32 = differences.iter().zip(mirrored).map(|(x, c)| x * c).sum();
            [saturate(first >> 11) as i16, saturate(second >> 11) as i16]
        }));
    }

    /// One sample of each sub-band.
    fn sub_bands(&mut self, octet: u8) -> (i32, i32) {
        let (low_code, high_code) = (usize::from(octet & 0x3F), usize::from(octet >> 6));
        let low = (self.low.prediction + ((self.low.scale * LOW_6[low_code]) >> 15))
            .clamp(-16_384, 16_383);
        self.low.adapt_low(low_code);
        let high = (self.high.prediction + ((self.high.scale * HIGH[high_code]) >> 15))
            .clamp(-16_384, 16_383);
        self.high.adapt_high(high_code);
        (low, high)
    }
}

impl Decoder for G722Decoder {
    fn rate_hz(&self) -> u32 {
        16_000
    }

    fn decode(&mut self, payload: &[u8], output: &mut Vec<i16>) -> Result<usize, CodecError> {
        if payload.is_empty() {
            return Err(CodecError::Payload {
                codec: "G722",
                bytes: 0,
                reason: "empty",
            });
        }
        for octets in payload.chunks(BLOCK) {
            self.block(octets, output);
        }
        Ok(payload.len() * 2)
    }
}

pub(crate) struct G722Encoder {
    low: Band,
    high: Band,
    /// Pairs of input samples, the newest last.
    history: [[i32; 2]; 12],
}

impl G722Encoder {
    pub(crate) fn new() -> Self {
        Self {
            low: low_band(),
            high: high_band(),
            history: [[0; 2]; 12],
        }
    }

    fn pair(&mut self, first: i16, second: i16) -> u8 {
        self.history.copy_within(1.., 0);
        self.history[11] = [i32::from(first), i32::from(second)];
        let (mut odd, mut even) = (0, 0);
        for (index, [first, second]) in self.history.iter().enumerate() {
            odd += first * QMF[index];
            even += second * QMF[11 - index];
        }
        let low_code = self.quantise_low((even + odd) >> 14);
        self.low.adapt_low(low_code);
        let high_code = self.quantise_high((even - odd) >> 14);
        self.high.adapt_high(high_code);
        (high_code << 6 | low_code) as u8
    }

    /// Block QUANTL.
    fn quantise_low(&self, value: i32) -> usize {
        let difference = saturate(value - self.low.prediction);
        let magnitude = if difference < 0 {
            -(difference + 1)
        } else {
            difference
        };
        let level = LOW_LEVELS
            .iter()
            .position(|&level| magnitude < (level * self.low.scale) >> 12)
            .unwrap_or(LOW_LEVELS.len());
        match (difference < 0, level) {
            (true, 0) => 63,
            (true, 1) => 62,
            (true, level) => 33 - level,
            (false, level) => 61 - level,
        }
    }

    /// Block QUANTH.
    fn quantise_high(&self, value: i32) -> usize {
        let difference = saturate(value - self.high.prediction);
        let magnitude = if difference < 0 {
            -(difference + 1)
        } else {
            difference
        };
        let outer = magnitude >= (HIGH_LEVEL * self.high.scale) >> 12;
        match (difference < 0, outer) {
            (true, true) => 0,
            (true, false) => 1,
            (false, true) => 2,
            (false, false) => 3,
        }
    }
}

impl Encoder for G722Encoder {
    fn rate_hz(&self) -> u32 {
        16_000
    }

    fn encode(&mut self, samples: &[i16], output: &mut Vec<u8>) -> Result<usize, CodecError> {
        if samples.is_empty() || !samples.len().is_multiple_of(2) {
            return Err(CodecError::Payload {
                codec: "G722",
                bytes: samples.len() * 2,
                reason: "an even number of samples is needed",
            });
        }
        output.extend(
            samples
                .chunks_exact(2)
                .map(|pair| self.pair(pair[0], pair[1])),
        );
        Ok(samples.len() / 2)
    }
}
