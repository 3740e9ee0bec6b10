//! G.729 with annexes A and B (ITU-T G.729): frames of 10 bytes and 10 ms, any number of them in a
//! payload, the last of which may be a 2-byte description of silence (RFC 3551 section 4.5.6).

use crate::comfort_noise::{Description, Generator};
use crate::{CodecError, Decoder, Encoder};
use codec_core::codecs::g729::G729Codec;
use codec_core::types::{AudioCodec, CodecConfig};

/// Samples of a frame.
pub(crate) const FRAME_SAMPLES: usize = 80;
const FRAME_BYTES: usize = 10;
const SILENCE_BYTES: usize = 2;
/// 200 ms: longer packets do not exist.
const FRAMES_MAX: usize = 20;

/// Samples that a payload stands for; `None` when it is none of this codec.
pub(crate) fn samples(bytes: usize) -> Option<usize> {
    let speech = bytes / FRAME_BYTES;
    let silence = match bytes % FRAME_BYTES {
        0 => 0,
        SILENCE_BYTES => 1,
        _ => return None,
    };
    let frames = speech + silence;
    (1..=FRAMES_MAX)
        .contains(&frames)
        .then_some(frames * FRAME_SAMPLES)
}

fn start(config: CodecConfig) -> Result<G729Codec, CodecError> {
    G729Codec::new(config).map_err(|_| CodecError::NotSupported {
        codec: "G729",
        missing: "the codec did not start",
    })
}

pub(crate) struct G729Decoder {
    inner: G729Codec,
    /// Set when the last frame described silence: what is not sent sounds like it.
    silence: Option<Silence>,
}

/// The inner decoder takes 100 ms without a frame for a broken line and falls silent; a described
/// silence may last as long as it likes. What it made until then goes on as noise of the same
/// level and colour.
#[derive(Default)]
struct Silence {
    /// The latest frames of the inner decoder's noise.
    made: Vec<i16>,
    frames: usize,
    noise: Option<(Description, Generator)>,
}

/// Frames without data that the inner decoder surely fills, and how many of them settle first.
const FILLED_FRAMES: usize = 9;
const SETTLING_FRAMES: usize = 4;

impl Silence {
    /// Appends the next frame, where the inner decoder made `sound`.
    fn frame(&mut self, sound: &[i16], output: &mut Vec<i16>) {
        self.frames += 1;
        if self.frames <= FILLED_FRAMES {
            if self.frames > SETTLING_FRAMES {
                self.made.extend_from_slice(sound);
            }
            output.extend_from_slice(sound);
            return;
        }
        let made = &self.made;
        let start = || (Description::of(made), Generator::new(made.len() as u64));
        let (description, generator) = self.noise.get_or_insert_with(start);
        generator.fill(description, FRAME_SAMPLES, output);
    }
}

impl G729Decoder {
    pub(crate) fn new() -> Result<Self, CodecError> {
        Ok(Self {
            inner: start(CodecConfig::g729ba())?,
            silence: None,
        })
    }

    /// Frames in place of ones that did not come: noise after a description of silence, else the
    /// codec's own concealment.
    fn missing(&mut self, samples: usize, output: &mut Vec<i16>) -> usize {
        let before = output.len();
        for _ in 0..samples / FRAME_SAMPLES {
            let Ok(sound) = self.inner.decode(&[]) else {
                break;
            };
            match &mut self.silence {
                Some(silence) => silence.frame(&sound, output),
                None => output.extend(sound),
            }
        }
        output.len() - before
    }
}

impl Decoder for G729Decoder {
    fn rate_hz(&self) -> u32 {
        8_000
    }

    fn decode(&mut self, payload: &[u8], output: &mut Vec<i16>) -> Result<usize, CodecError> {
        let bad = |reason| CodecError::Payload {
            codec: "G729",
            bytes: payload.len(),
            reason,
        };
        samples(payload.len()).ok_or_else(|| bad("no whole frames"))?;
        let before = output.len();
        for frame in payload.chunks(FRAME_BYTES) {
            let Ok(sound) = self.inner.decode(frame) else {
                output.truncate(before);
                return Err(bad("refused by the decoder"));
            };
            output.extend(sound);
            self.silence = (frame.len() == SILENCE_BYTES).then(Silence::default);
        }
        Ok(output.len() - before)
    }

    fn conceal(&mut self, samples: usize, _next: Option<&[u8]>, output: &mut Vec<i16>) -> usize {
        self.missing(samples, output)
    }

    fn is_idle(&self) -> bool {
        self.silence.is_some()
    }

    fn idle(&mut self, samples: usize, output: &mut Vec<i16>) -> usize {
        if self.silence.is_some() {
            self.missing(samples, output)
        } else {
            0
        }
    }
}

pub(crate) struct G729Encoder {
    inner: G729Codec,
}

impl G729Encoder {
    pub(crate) fn new() -> Result<Self, CodecError> {
        Ok(Self {
            inner: start(CodecConfig::g729a())?,
        })
    }
}

impl Encoder for G729Encoder {
    fn rate_hz(&self) -> u32 {
        8_000
    }

    fn encode(&mut self, samples: &[i16], output: &mut Vec<u8>) -> Result<usize, CodecError> {
        let bad = CodecError::Payload {
            codec: "G729",
            bytes: samples.len() * 2,
            reason: "whole frames of 80 samples are needed",
        };
        if samples.is_empty() || !samples.len().is_multiple_of(FRAME_SAMPLES) {
            return Err(bad);
        }
        let before = output.len();
        for frame in samples.chunks(FRAME_SAMPLES) {
            output.extend(self.inner.encode(frame).map_err(|_| bad.clone())?);
        }
        Ok(output.len() - before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_whole_frames_and_perhaps_silence() {
        assert_eq!(samples(10), Some(80));
        assert_eq!(samples(22), Some(240));
        assert_eq!(samples(2), Some(80));
        for bytes in [0, 1, 9, 13, 20 * 10 + 2, 4_000] {
            assert_eq!(samples(bytes), None, "{bytes}");
        }
    }
}
