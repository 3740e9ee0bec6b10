//! Opus (RFC 6716) as RTP carries it (RFC 7587): decoded to 48 kHz mono, losses by the codec's
//! own concealment and, where the next packet holds it, by in-band FEC.

use crate::{CodecError, Decoder, Encoder};
use ropus::{Application, Channels, DecodeMode};

const RATE_HZ: u32 = 48_000;
/// 120 ms, the longest packet.
const SAMPLES_MAX: usize = 5_760;
/// Concealment works in multiples of 2.5 ms.
const CONCEAL_UNIT: usize = 120;

/// Samples at 48 kHz that a packet covers (RFC 6716 section 3.1), `None` if it is malformed.
pub(crate) fn samples(packet: &[u8]) -> Option<usize> {
    let toc = *packet.first()?;
    let configuration = usize::from(toc >> 3);
    let frame = match configuration {
        0..=11 => [480, 960, 1_920, 2_880][configuration & 3],
        12..=15 => [480, 960][configuration & 1],
        _ => [120, 240, 480, 960][configuration & 3],
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => usize::from(packet.get(1)? & 0x3F),
    };
    let total = frame * frames;
    (1..=SAMPLES_MAX).contains(&total).then_some(total)
}

/// Packets up to this length hold no sound: a table of contents and perhaps an empty frame.
const EMPTY_BYTES_MAX: usize = 2;

/// Whether a packet may hold in-band FEC: SILK or hybrid, where the low band is coded by SILK.
fn may_hold_fec(packet: &[u8]) -> bool {
    packet.first().is_some_and(|toc| toc >> 3 < 16)
}

pub(crate) struct OpusDecoder {
    inner: ropus::Decoder,
    /// Samples of the last packet: the size of a frame that FEC stands for.
    last: usize,
    /// The last packet held no sound (discontinuous transmission).
    idle: bool,
    scratch: Box<[i16; SAMPLES_MAX]>,
}

impl OpusDecoder {
    pub(crate) fn new() -> Result<Self, CodecError> {
        let inner =
            ropus::Decoder::new(RATE_HZ, Channels::Mono).map_err(|_| CodecError::NotSupported {
                codec: "opus",
                missing: "the decoder did not start",
            })?;
        Ok(Self {
            inner,
            last: 960,
            idle: false,
            scratch: Box::new([0; SAMPLES_MAX]),
        })
    }

    fn run(&mut self, packet: &[u8], room: usize, mode: DecodeMode) -> Option<&[i16]> {
        let count = self
            .inner
            .decode(packet, &mut self.scratch[..room], mode)
            .ok()?;
        self.scratch.get(..count)
    }
}

impl Decoder for OpusDecoder {
    fn rate_hz(&self) -> u32 {
        RATE_HZ
    }

    fn decode(&mut self, payload: &[u8], output: &mut Vec<i16>) -> Result<usize, CodecError> {
        let bad = |reason| CodecError::Payload {
            codec: "opus",
            bytes: payload.len(),
            reason,
        };
        samples(payload).ok_or_else(|| bad("not a packet"))?;
        let decoded = self
            .run(payload, SAMPLES_MAX, DecodeMode::Normal)
            .ok_or_else(|| bad("refused by the decoder"))?;
        let count = decoded.len();
        output.extend_from_slice(decoded);
        self.last = count;
        self.idle = payload.len() <= EMPTY_BYTES_MAX;
        Ok(count)
    }

    fn is_idle(&self) -> bool {
        self.idle
    }

    fn idle(&mut self, samples: usize, output: &mut Vec<i16>) -> usize {
        if self.idle {
            self.conceal(samples, None, output)
        } else {
            0
        }
    }

    fn conceal(&mut self, samples: usize, next: Option<&[u8]>, output: &mut Vec<i16>) -> usize {
        let wanted = samples / CONCEAL_UNIT * CONCEAL_UNIT;
        let fec = next.filter(|packet| may_hold_fec(packet) && self.last <= wanted);
        let fec_samples = if fec.is_some() { self.last } else { 0 };
        let mut made = 0;
        while made + fec_samples < wanted {
            let step = (wanted - fec_samples - made).min(self.last.max(CONCEAL_UNIT));
            let Some(sound) = self.run(&[], step, DecodeMode::Normal) else {
                return made;
            };
            if sound.is_empty() {
                return made;
            }
            made += sound.len();
            output.extend_from_slice(sound);
        }
        if let Some(packet) = fec
            && let Some(sound) = self.run(packet, fec_samples, DecodeMode::Fec)
        {
            made += sound.len();
            output.extend_from_slice(sound);
        }
        made
    }
}

pub(crate) struct OpusEncoder {
    inner: ropus::Encoder,
}

impl OpusEncoder {
    pub(crate) fn new() -> Result<Self, CodecError> {
        let inner = ropus::Encoder::builder(RATE_HZ, Channels::Mono, Application::Voip)
            .build()
            .map_err(|_| CodecError::NotSupported {
                codec: "opus",
                missing: "the encoder did not start",
            })?;
        Ok(Self { inner })
    }
}

impl Encoder for OpusEncoder {
    fn rate_hz(&self) -> u32 {
        RATE_HZ
    }

    fn encode(&mut self, samples: &[i16], output: &mut Vec<u8>) -> Result<usize, CodecError> {
        encode(&mut self.inner, samples, output)
    }
}

/// Makes the packets of a sound file: one or two channels, for music as well as for speech.
pub struct OpusFileEncoder {
    inner: ropus::Encoder,
}

impl OpusFileEncoder {
    /// An encoder of samples at `rate_hz` (8, 12, 16, 24 or 48 kHz).
    ///
    /// # Errors
    /// Opus has no such rate, bit rate or number of channels.
    pub fn new(rate_hz: u32, channels: u16, bits_per_second: u32) -> Result<Self, CodecError> {
        let refused = |missing| CodecError::NotSupported {
            codec: "opus",
            missing,
        };
        let layout = match channels {
            1 => Channels::Mono,
            2 => Channels::Stereo,
            _ => return Err(refused("more than two channels")),
        };
        if !(6_000..=510_000).contains(&bits_per_second) {
            return Err(refused("6,000 to 510,000 bits a second are possible"));
        }
        let rate = ropus::Bitrate::Bits(bits_per_second);
        let inner = ropus::Encoder::builder(rate_hz, layout, Application::Audio)
            .bitrate(rate)
            .build()
            .map_err(|_| refused("the encoder did not start"))?;
        Ok(Self { inner })
    }

    /// Samples of a channel that come out before the first one that was put in.
    #[must_use]
    pub fn lookahead(&self) -> u32 {
        self.inner.lookahead()
    }

    /// Appends the packet of one frame of interleaved samples.
    ///
    /// # Errors
    /// There is no frame of that many samples.
    pub fn encode(&mut self, samples: &[i16], output: &mut Vec<u8>) -> Result<usize, CodecError> {
        encode(&mut self.inner, samples, output)
    }
}

/// Samples at 48 kHz of a frame of [`opus_frames`].
const JOINABLE_SAMPLES: usize = 480;

/// Packets of one mono frame of 10 ms each, all of one configuration, so that they can be joined to
/// packets of any length (RFC 6716 section 3.2). `samples` are at 48 kHz; what they lack of a whole
/// frame is silence.
///
/// # Errors
/// The encoder did not start, or changed its configuration.
pub fn opus_frames(samples: &[i16]) -> Result<Vec<Vec<u8>>, CodecError> {
    let refused = |missing| CodecError::NotSupported {
        codec: "opus",
        missing,
    };
    // CELT alone, so that nothing of what is heard decides about the configuration.
    let delay = Application::RestrictedLowDelay;
    let mut encoder = ropus::Encoder::builder(RATE_HZ, Channels::Mono, delay)
        .bitrate(ropus::Bitrate::Bits(48_000))
        .complexity(5)
        .build()
        .map_err(|_| refused("the encoder did not start"))?;
    let mut frames = Vec::new();
    for chunk in samples.chunks(JOINABLE_SAMPLES) {
        let mut frame = [0; JOINABLE_SAMPLES];
        frame[..chunk.len()].copy_from_slice(chunk);
        let mut packet = Vec::new();
        encode(&mut encoder, &frame, &mut packet)?;
        frames.push(packet);
    }
    let configuration = |packet: &Vec<u8>| packet.first().copied();
    let first = frames.first().and_then(configuration);
    let one_frame = first.is_none_or(|toc| toc & 3 == 0);
    if one_frame && frames.iter().all(|packet| configuration(packet) == first) {
        Ok(frames)
    } else {
        Err(refused("packets of one configuration"))
    }
}

fn encode(
    encoder: &mut ropus::Encoder,
    samples: &[i16],
    output: &mut Vec<u8>,
) -> Result<usize, CodecError> {
    let mut packet = [0; 4_000];
    let bytes = encoder
        .encode(samples, &mut packet)
        .map_err(|_| CodecError::Payload {
            codec: "opus",
            bytes: samples.len() * 2,
            reason: "2.5, 5, 10, 20, 40 or 60 ms of samples are needed",
        })?;
    output.extend_from_slice(&packet[..bytes]);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packet_durations_follow_the_table_of_contents() {
        assert_eq!(samples(&[]), None);
        assert_eq!(
            samples(&[0x78]),
            Some(960),
            "hybrid full band 20 ms, one frame"
        );
        assert_eq!(samples(&[0x79]), Some(1_920));
        assert_eq!(samples(&[0x18]), Some(2_880), "SILK narrow band 60 ms");
        assert_eq!(samples(&[0xFB, 3]), Some(2_880), "CELT 20 ms, three frames");
        assert_eq!(samples(&[0xFB]), None, "frame count missing");
        assert_eq!(samples(&[0xFB, 63]), None, "longer than 120 ms");
    }

    #[test]
    fn joinable_frames_are_all_of_one_kind_whatever_is_heard() {
        let mut sound: Vec<i16> = (0..48_000)
            .map(|n| ((f64::from(n) * 0.18).sin() * 9e3) as i16)
            .collect();
        sound.extend([0; 24_000]);
        let mut noise = 1_u32;
        sound.extend((0..24_100).map(|_| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (noise >> 17) as i16 - 16_384
        }));
        let frames = opus_frames(&sound).unwrap();
        assert_eq!(frames.len(), 201);
        assert!(frames.iter().all(|frame| samples(frame) == Some(480)));
        let mut decoder = OpusDecoder::new().unwrap();
        let mut heard = Vec::new();
        for frame in &frames[..100] {
            decoder.decode(frame, &mut heard).unwrap();
        }
        let power: f64 = heard.iter().map(|&one| f64::from(one).powi(2)).sum();
        let level = (power / heard.len() as f64).sqrt();
        assert!((5_500.0..7_000.0).contains(&level), "{level}");
    }

    #[test]
    fn concealment_fills_exactly_what_was_lost() {
        let mut encoder = OpusEncoder::new().unwrap();
        let mut decoder = OpusDecoder::new().unwrap();
        let tone: Vec<i16> = (0..960 * 12)
            .map(|n| ((n as f64 * 440.0 * std::f64::consts::TAU / 48_000.0).sin() * 9e3) as i16)
            .collect();
        let packets: Vec<Vec<u8>> = tone
            .chunks(960)
            .map(|frame| {
                let mut packet = Vec::new();
                encoder.encode(frame, &mut packet).unwrap();
                packet
            })
            .collect();
        let mut output = Vec::new();
        for packet in &packets[..9] {
            decoder.decode(packet, &mut output).unwrap();
        }
        let before = output.len();
        assert_eq!(
            decoder.conceal(1_920, Some(&packets[11]), &mut output),
            1_920
        );
        assert_eq!(output.len(), before + 1_920);
        let loudest = output[before..before + 480]
            .iter()
            .map(|s| s.unsigned_abs())
            .max();
        assert!(loudest > Some(2_000), "the tone goes on, {loudest:?}");
        assert_eq!(decoder.decode(&packets[11], &mut output), Ok(960));
    }
}
