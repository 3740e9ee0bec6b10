//! GSM full rate (GSM 06.10), decoder only: frames of 33 bytes as RTP carries them
//! (RFC 3551 section 4.5.8), 20 ms each. All arithmetic is that of the specification, bit by bit.

use crate::{CodecError, Decoder};

const FRAME_BYTES: usize = 33;
/// Samples of a frame.
pub(crate) const FRAME_SAMPLES: usize = 160;
const SUBFRAME: usize = 40;
/// Upper half of the first byte of every frame.
const SIGNATURE: u8 = 0xD;
/// Longest lag of the long-term filter.
const LAG_MAX: usize = 120;

/// Table 4.1: LAR coding, per coefficient: bits, smallest code, 1/A, B.
const LAR: [(u32, i16, i16, i16); 8] = [
    (6, -32, 13_107, 0),
    (6, -32, 13_107, 0),
    (5, -16, 13_107, 2_048),
    (5, -16, 13_107, -2_560),
    (4, -8, 19_223, 94),
    (4, -8, 17_476, -1_792),
    (3, -4, 31_454, -341),
    (3, -4, 29_708, -1_144),
];
/// Table 4.3b: long-term gain.
const GAIN: [i16; 4] = [3_277, 11_469, 21_299, 32_767];
/// Table 4.6: normalised direct mantissa of the block amplitude.
const MANTISSA: [i16; 8] = [
    18_431, 20_479, 22_527, 24_575, 26_623, 28_671, 30_719, 32_767,
];

pub(crate) struct GsmDecoder {
    /// Log-area ratios of the frame before.
    ratios: [i16; 8],
    /// Reconstructed residual: `LAG_MAX` samples of past, then the subframe being made.
    residual: [i16; LAG_MAX + SUBFRAME],
    lag: usize,
    lattice: [i16; 9],
    deemphasis: i16,
}

impl GsmDecoder {
    pub(crate) fn new() -> Self {
        Self {
            ratios: [0; 8],
            residual: [0; LAG_MAX + SUBFRAME],
            lag: SUBFRAME,
            lattice: [0; 9],
            deemphasis: 0,
        }
    }

    fn frame(&mut self, frame: &[u8], output: &mut Vec<i16>) {
        let mut bits = Bits {
            bytes: frame,
            at: 4,
        };
        let ratios = LAR.map(|(width, smallest, inverse, offset)| {
            let code = (bits.take(width) as i16).wrapping_add(smallest) << 10;
            let scaled = multiply(inverse, code.saturating_sub(offset << 1));
            scaled.saturating_add(scaled)
        });
        let mut excitation = [0; FRAME_SAMPLES];
        for part in excitation.chunks_exact_mut(SUBFRAME) {
            self.subframe(&mut bits, part);
        }
        self.synthesise(&ratios, &mut excitation);
        self.ratios = ratios;
        output.extend(excitation.iter().map(|&sample| {
            self.deemphasis = sample.saturating_add(multiply(self.deemphasis, 28_180));
            self.deemphasis.saturating_add(self.deemphasis) & !7
        }));
    }

    /// Sections 5.3.1 and 5.3.2: the residual of one subframe.
    fn subframe(&mut self, bits: &mut Bits<'_>, output: &mut [i16]) {
        let lag = bits.take(7) as usize;
        let gain = GAIN[bits.take(2) as usize];
        let grid = bits.take(2) as usize;
        let (exponent, mantissa) = block_amplitude(bits.take(6) as i16);
        let shift = 6 - exponent;
        let rounding = if shift > 0 { 1_i16 << (shift - 1) } else { 0 };
        let mut pulses = [0_i16; SUBFRAME];
        for index in 0..13 {
            let code = ((bits.take(3) as i16) * 2 - 7) << 12;
            let value = multiply(MANTISSA[mantissa], code).saturating_add(rounding) >> shift;
            pulses[grid + 3 * index] = value;
        }
        if (SUBFRAME..=LAG_MAX).contains(&lag) {
            self.lag = lag;
        }
        for (index, pulse) in pulses.into_iter().enumerate() {
            let predicted = multiply(gain, self.residual[LAG_MAX + index - self.lag]);
            self.residual[LAG_MAX + index] = pulse.saturating_add(predicted);
        }
        output.copy_from_slice(&self.residual[LAG_MAX..]);
        self.residual.copy_within(SUBFRAME.., 0);
    }

    /// Section 5.3.3: the short-term lattice, its coefficients interpolated between frames.
    fn synthesise(&mut self, ratios: &[i16; 8], samples: &mut [i16; FRAME_SAMPLES]) {
        let pairs = || self.ratios.iter().zip(ratios);
        let mix = |weigh: fn(i16, i16) -> i16| {
            let mut reflection = [0; 8];
            for (value, (&before, &now)) in reflection.iter_mut().zip(pairs()) {
                *value = reflection_of(weigh(before, now));
            }
            reflection
        };
        let stretches = [
            (
                0..13,
                mix(|a, b| (a >> 2).saturating_add(b >> 2).saturating_add(a >> 1)),
            ),
            (13..27, mix(|a, b| (a >> 1).saturating_add(b >> 1))),
            (
                27..40,
                mix(|a, b| (a >> 2).saturating_add(b >> 2).saturating_add(b >> 1)),
            ),
            (40..FRAME_SAMPLES, mix(|_, b| b)),
        ];
        for (range, reflection) in stretches {
            for sample in &mut samples[range] {
                let mut value = *sample;
                for stage in (0..8).rev() {
                    value = value.saturating_sub(multiply(reflection[stage], self.lattice[stage]));
                    self.lattice[stage + 1] =
                        self.lattice[stage].saturating_add(multiply(reflection[stage], value));
                }
                self.lattice[0] = value;
                *sample = value;
            }
        }
    }
}

impl Decoder for GsmDecoder {
    fn rate_hz(&self) -> u32 {
        8_000
    }

    fn decode(&mut self, payload: &[u8], output: &mut Vec<i16>) -> Result<usize, CodecError> {
        let bad = |reason| CodecError::Payload {
            codec: "GSM",
            bytes: payload.len(),
            reason,
        };
        if payload.is_empty() || !payload.len().is_multiple_of(FRAME_BYTES) {
            return Err(bad("not a multiple of 33 bytes"));
        }
        let frames = payload.chunks_exact(FRAME_BYTES);
        if frames.clone().any(|frame| frame[0] >> 4 != SIGNATURE) {
            return Err(bad("no frame signature"));
        }
        let count = frames.len() * FRAME_SAMPLES;
        frames.for_each(|frame| self.frame(frame, output));
        Ok(count)
    }
}

/// Section 5.2.15: exponent and mantissa of a coded block amplitude.
fn block_amplitude(code: i16) -> (i16, usize) {
    let mut exponent = if code > 15 { (code >> 3) - 1 } else { 0 };
    let mut mantissa = code - (exponent << 3);
    if mantissa == 0 {
        return (-4, 7);
    }
    while mantissa <= 7 {
        mantissa = mantissa << 1 | 1;
        exponent -= 1;
    }
    (exponent, (mantissa - 8) as usize)
}

/// Section 5.2.9.2: a log-area ratio as a reflection coefficient.
fn reflection_of(ratio: i16) -> i16 {
    let magnitude = ratio.saturating_abs();
    let value = if magnitude < 11_059 {
        magnitude << 1
    } else if magnitude < 20_070 {
        magnitude + 11_059
    } else {
        (magnitude >> 2).saturating_add(26_112)
    };
    if ratio < 0 { -value } else { value }
}

/// Multiplication of fractions with rounding.
fn multiply(a: i16, b: i16) -> i16 {
    if a == i16::MIN && b == i16::MIN {
        return i16::MAX;
    }
    ((i32::from(a) * i32::from(b) + 16_384) >> 15) as i16
}

/// Reads bits, the highest of each byte first.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: u32) -> u16 {
        (0..count).fold(0, |value, _| {
            let bit = self.bytes[self.at / 8] >> (7 - self.at % 8) & 1;
            self.at += 1;
            value << 1 | u16::from(bit)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_frame_is_refused_and_any_frame_is_survived() {
        let mut decoder = GsmDecoder::new();
        let mut output = Vec::new();
        assert!(decoder.decode(&[0xD0; 32], &mut output).is_err());
        assert!(decoder.decode(&[0x10; 33], &mut output).is_err());
        let mut state = 1_u32;
        for _ in 0..2_000 {
            let mut frame = [0_u8; 33];
            for byte in &mut frame {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *byte = (state >> 24) as u8;
            }
            frame[0] = 0xD0 | frame[0] & 0xF;
            assert_eq!(decoder.decode(&frame, &mut output), Ok(160));
        }
    }
}
