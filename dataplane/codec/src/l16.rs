//! Linear 16-bit PCM, network byte order, channels interleaved (RFC 3551 section 4.5.11).

use crate::{CodecError, Decoder, Encoder};

pub(crate) struct L16Decoder {
    rate_hz: u32,
    channels: usize,
}

impl L16Decoder {
    pub(crate) fn new(rate_hz: u32, channels: u8) -> Self {
        Self {
            rate_hz,
            channels: usize::from(channels),
        }
    }
}

impl Decoder for L16Decoder {
    fn rate_hz(&self) -> u32 {
        self.rate_hz
    }

    fn decode(&mut self, payload: &[u8], output: &mut Vec<i16>) -> Result<usize, CodecError> {
        let frames = payload.chunks_exact(2 * self.channels);
        let count = frames.len();
        if count == 0 {
            return Err(CodecError::Payload {
                codec: "L16",
                bytes: payload.len(),
                reason: "no whole sample",
            });
        }
        let sample = |pair: &[u8]| i16::from_be_bytes([pair[0], pair[1]]);
        if self.channels == 1 {
            output.extend(frames.map(sample));
        } else {
            output.extend(frames.map(|frame| {
                let sum: i32 = frame
                    .chunks_exact(2)
                    .map(|pair| i32::from(sample(pair)))
                    .sum();
                (sum / self.channels as i32) as i16
            }));
        }
        Ok(count)
    }
}

pub(crate) struct L16Encoder {
    rate_hz: u32,
}

impl L16Encoder {
    pub(crate) fn new(rate_hz: u32) -> Self {
        Self { rate_hz }
    }
}

impl Encoder for L16Encoder {
    fn rate_hz(&self) -> u32 {
        self.rate_hz
    }

    fn encode(&mut self, samples: &[i16], output: &mut Vec<u8>) -> Result<usize, CodecError> {
        output.extend(samples.iter().flat_map(|sample| sample.to_be_bytes()));
        Ok(samples.len() * 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_big_endian_and_stereo_is_averaged() {
        let mut output = Vec::new();
        L16Decoder::new(8_000, 1)
            .decode(&[0x01, 0x02, 0xFF, 0xFE], &mut output)
            .unwrap();
        assert_eq!(output, [258, -2]);
        output.clear();
        L16Decoder::new(44_100, 2)
            .decode(&[0, 10, 0, 20], &mut output)
            .unwrap();
        assert_eq!(output, [15]);
        assert!(L16Decoder::new(8_000, 1).decode(&[1], &mut output).is_err());
        let mut payload = Vec::new();
        L16Encoder::new(8_000)
            .encode(&[258, -2], &mut payload)
            .unwrap();
        assert_eq!(payload, [1, 2, 0xFF, 0xFE]);
    }
}
