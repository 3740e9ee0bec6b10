//! G.711 mu-law and A-law (ITU-T G.711, values in 16-bit scale).

use crate::{CodecError, Decoder, Encoder};

/// Output value of each mu-law octet: 0xFF -> 0, 0xE7 -> 260, 0xC0 -> 1884, 0x80 -> 32124.
pub static MU_LAW: [i16; 256] = table(Law::Mu);

/// Output value of each A-law octet.
pub static A_LAW: [i16; 256] = table(Law::A);

/// As [`MU_LAW`], but negative zero is -1, so that encoding gives every octet back.
static MU_LAW_KEPT: [i16; 256] = {
    let mut values = MU_LAW;
    values[0x7F] = -1;
    values
};

/// The mu-law octet that stands for silence.
pub const MU_LAW_SILENCE: u8 = 0xFF;

/// The A-law octet that stands for silence.
pub const A_LAW_SILENCE: u8 = 0xD5;

const fn table(law: Law) -> [i16; 256] {
    let mut values = [0; 256];
    let mut octet = 0;
    while octet < 256 {
        values[octet] = match law {
            Law::Mu => mu_law(octet as u8),
            Law::A => a_law(octet as u8),
        };
        octet += 1;
    }
    values
}

#[derive(Clone, Copy)]
enum Law {
    Mu,
    A,
}

const fn mu_law(octet: u8) -> i16 {
    let code = !octet;
    let exponent = (code >> 4) & 7;
    // The leading mantissa bit is implicit; the bias of 33 (in 14-bit units) carries it.
    let magnitude = ((((code & 0x0F) as i16) << 3) + 0x84) << exponent;
    if code & 0x80 != 0 {
        0x84 - magnitude
    } else {
        magnitude - 0x84
    }
}

const fn a_law(octet: u8) -> i16 {
    let code = octet ^ 0x55;
    let exponent = (code >> 4) & 7;
    let mantissa = ((code & 0x0F) as i16) << 4;
    let magnitude = if exponent == 0 {
        mantissa + 8
    } else {
        (mantissa + 0x108) << (exponent - 1)
    };
    if code & 0x80 != 0 {
        magnitude
    } else {
        -magnitude
    }
}

/// The mu-law octet for a sample (decision values of G.711 table 2a).
#[must_use]
pub fn encode_mu_law(sample: i16) -> u8 {
    let magnitude = u32::from(sample.unsigned_abs()).min(32_635) + 0x84;
    let exponent = 24 - magnitude.leading_zeros();
    let code = (exponent << 4) | ((magnitude >> (exponent + 3)) & 0x0F);
    let sign = if sample < 0 { 0x80 } else { 0 };
    !(code as u8 | sign)
}

/// The A-law octet for a sample (decision values of G.711 table 1a).
#[must_use]
pub fn encode_a_law(sample: i16) -> u8 {
    // -1 and 0 lie on either side of the decision value 0.
    let (magnitude, sign) = if sample < 0 {
        (u32::from(!sample as u16), 0)
    } else {
        (sample as u32, 0x80)
    };
    let code = if magnitude < 256 {
        magnitude >> 4
    } else {
        let exponent = 24 - magnitude.leading_zeros();
        (exponent << 4) | ((magnitude >> (exponent + 3)) & 0x0F)
    };
    (code as u8 | sign) ^ 0x55
}

/// Decodes by table lookup; several channels are averaged to one.
pub struct TableDecoder {
    table: &'static [i16; 256],
    rate_hz: u32,
    channels: usize,
    name: &'static str,
}

impl TableDecoder {
    pub(crate) fn mu_law(rate_hz: u32, channels: u8) -> Self {
        Self {
            table: &MU_LAW,
            rate_hz,
            channels: usize::from(channels),
            name: "PCMU",
        }
    }

    pub(crate) fn a_law(rate_hz: u32, channels: u8) -> Self {
        Self {
            table: &A_LAW,
            rate_hz,
            channels: usize::from(channels),
            name: "PCMA",
        }
    }
}

/// A decoder of 8000 Hz mono after which the encoder makes the same octets again: for sound that
/// stays G.711.
#[must_use]
pub fn kept_decoder(a_law: bool) -> TableDecoder {
    let mut decoder = if a_law {
        TableDecoder::a_law(8_000, 1)
    } else {
        TableDecoder::mu_law(8_000, 1)
    };
    if !a_law {
        decoder.table = &MU_LAW_KEPT;
    }
    decoder
}

impl Decoder for TableDecoder {
    fn rate_hz(&self) -> u32 {
        self.rate_hz
    }

    fn decode(&mut self, payload: &[u8], output: &mut Vec<i16>) -> Result<usize, CodecError> {
        if payload.len() < self.channels {
            return Err(CodecError::Payload {
                codec: self.name,
                bytes: payload.len(),
                reason: "no whole sample",
            });
        }
        if self.channels == 1 {
            output.extend(payload.iter().map(|&octet| self.table[usize::from(octet)]));
            return Ok(payload.len());
        }
        let frames = payload.chunks_exact(self.channels);
        let count = frames.len();
        output.extend(frames.map(|frame| {
            let sum: i32 = frame
                .iter()
                .map(|&o| i32::from(self.table[usize::from(o)]))
                .sum();
            (sum / self.channels as i32) as i16
        }));
        Ok(count)
    }
}

/// Encodes G.711, any number of samples a payload.
pub struct G711Encoder {
    encode: fn(i16) -> u8,
    rate_hz: u32,
}

impl G711Encoder {
    pub(crate) fn mu_law(rate_hz: u32) -> Self {
        Self {
            encode: encode_mu_law,
            rate_hz,
        }
    }

    pub(crate) fn a_law(rate_hz: u32) -> Self {
        Self {
            encode: encode_a_law,
            rate_hz,
        }
    }
}

impl Encoder for G711Encoder {
    fn rate_hz(&self) -> u32 {
        self.rate_hz
    }

    fn encode(&mut self, samples: &[i16], output: &mut Vec<u8>) -> Result<usize, CodecError> {
        output.extend(samples.iter().map(|&sample| (self.encode)(sample)));
        Ok(samples.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mu_law_has_the_itu_values() {
        for (octet, value) in [
            (0xFF, 0),
            (0x7F, 0),
            (0xFE, 8),
            (0xE7, 260),
            (0xC0, 1_884),
            (0x80, 32_124),
            (0x00, -32_124),
            (0x67, -260),
        ] {
            assert_eq!(MU_LAW[octet], value, "octet {octet:#04x}");
        }
    }

    #[test]
    fn a_law_has_the_itu_values() {
        for (octet, value) in [
            (0xD5, 8),
            (0x55, -8),
            (0xAA, 32_256),
            (0x2A, -32_256),
            (0xC5, 264),
            (0x80, 5_504),
        ] {
            assert_eq!(A_LAW[octet], value, "octet {octet:#04x}");
        }
    }

    #[test]
    fn every_octet_survives_decoding_and_encoding() {
        for octet in 0..=255_u8 {
            let again = encode_mu_law(MU_LAW[usize::from(octet)]);
            // Negative zero of mu-law is encoded as positive zero.
            assert_eq!(again, if octet == 0x7F { 0xFF } else { octet });
            assert_eq!(encode_a_law(A_LAW[usize::from(octet)]), octet);
            assert_eq!(encode_mu_law(MU_LAW_KEPT[usize::from(octet)]), octet);
        }
    }

    #[test]
    fn quantisation_error_stays_within_half_a_step() {
        for sample in i16::MIN..=i16::MAX {
            let clipped = i32::from(sample).clamp(-32_635, 32_635);
            let mu = i32::from(MU_LAW[usize::from(encode_mu_law(sample))]);
            assert!(
                (mu - clipped).abs() <= 4 + clipped.abs() / 30,
                "{sample} -> {mu}"
            );
            let a = i32::from(A_LAW[usize::from(encode_a_law(sample))]);
            let clipped = i32::from(sample).clamp(-32_767, 32_767);
            assert!(
                (a - clipped).abs() <= 8 + clipped.abs() / 30,
                "{sample} -> {a}"
            );
        }
    }

    #[test]
    fn an_empty_payload_is_an_error_and_stereo_is_averaged() {
        let mut output = Vec::new();
        assert!(
            TableDecoder::mu_law(8_000, 1)
                .decode(&[], &mut output)
                .is_err()
        );
        let count = TableDecoder::mu_law(8_000, 2)
            .decode(&[0xE7, 0xFF], &mut output)
            .unwrap();
        assert_eq!((count, output.as_slice()), (1, [130].as_slice()));
    }
}
