//! AMR and AMR-WB as RTP carries them (RFC 4867): bandwidth-efficient or octet-aligned, with
//! checksums and robust sorting where agreed. Interleaved packets are not supported.

use crate::{CodecError, Decoder, Encoder, Framing};
use codec_core::codecs::amr::{
    AmrCodec, AmrFrameType, AmrPacket, AmrPayloadCodec, AmrPayloadConfig, AmrPayloadFrame,
    AmrVariant,
};
use codec_core::types::{AudioCodec, CodecConfig, CodedFrame, FrameKind, VariableRateCodec};

/// Frames of 20 ms in a payload, at most.
const FRAMES_MAX: usize = 12;
/// Speech bits of the frame types (RFC 4867 tables 1a and 1b, 3GPP TS 26.101 and 26.201); the last
/// one describes silence.
const NARROW_BITS: [usize; 9] = [95, 103, 118, 134, 148, 159, 204, 244, 39];
const WIDE_BITS: [usize; 10] = [132, 177, 253, 285, 317, 365, 397, 461, 477, 40];

const fn name(wide: bool) -> &'static str {
    if wide { "AMR-WB" } else { "AMR" }
}

const fn frame_samples(wide: bool) -> usize {
    if wide { 320 } else { 160 }
}

/// The frames of a payload if it is one of this framing: every bit accounted for.
fn frames(payload: &[u8], wide: bool, framing: Framing) -> Option<usize> {
    let bit = |at: usize| {
        let byte = *payload.get(at / 8)?;
        Some(usize::from(byte >> (7 - at % 8) & 1))
    };
    let (entry, mut at) = if framing.octet_aligned {
        (8, if framing.interleaved { 16 } else { 8 })
    } else {
        (6, 4)
    };
    let (mut speech, mut checksums, mut count) = (0, 0, 0);
    loop {
        let more = bit(at)?;
        let kind = (1..5).try_fold(0, |kind, offset| Some(kind << 1 | bit(at + offset)?))?;
        at += entry;
        count += 1;
        let bits = match (wide, kind) {
            (_, 15) | (true, 14) => 0,
            (false, kind) => *NARROW_BITS.get(kind)?,
            (true, kind) => *WIDE_BITS.get(kind)?,
        };
        speech += if framing.octet_aligned {
            bits.next_multiple_of(8)
        } else {
            bits
        };
        checksums += if framing.checksums && bits > 0 { 8 } else { 0 };
        if count > FRAMES_MAX {
            return None;
        }
        if more == 0 {
            break;
        }
    }
    let bits = at + checksums + speech;
    (bits.div_ceil(8) == payload.len()).then_some(count)
}

/// The framing a payload has: the one agreed, or else the other one, which senders use that say
/// nothing in SDP.
fn framing_of(payload: &[u8], wide: bool, agreed: Framing) -> Option<(Framing, usize)> {
    let other = Framing {
        octet_aligned: !agreed.octet_aligned,
        ..Framing::default()
    };
    [agreed, other]
        .into_iter()
        .find_map(|framing| Some((framing, frames(payload, wide, framing)?)))
}

/// Samples that a payload stands for; `None` when it is none of this codec.
pub(crate) fn samples(payload: &[u8], wide: bool, framing: Framing) -> Option<usize> {
    let (_, count) = framing_of(payload, wide, framing)?;
    Some(count * frame_samples(wide))
}

fn config(wide: bool) -> CodecConfig {
    if wide {
        CodecConfig::amr_wb()
    } else {
        CodecConfig::amr_nb()
    }
}

fn payload_config(wide: bool, framing: Framing) -> AmrPayloadConfig {
    let variant = if wide {
        AmrVariant::WideBand
    } else {
        AmrVariant::NarrowBand
    };
    AmrPayloadConfig {
        octet_aligned: framing.octet_aligned,
        crc: framing.checksums,
        robust_sorting: framing.sorted,
        ..AmrPayloadConfig::bandwidth_efficient(variant)
    }
}

fn start(wide: bool) -> Result<AmrCodec, CodecError> {
    AmrCodec::new(&config(wide)).map_err(|_| CodecError::NotSupported {
        codec: name(wide),
        missing: "the codec did not start",
    })
}

pub(crate) struct AmrDecoder {
    inner: AmrCodec,
    wide: bool,
    framing: Framing,
    /// Mode of the last speech frame: what a lost one is taken to have had.
    mode: u8,
    /// The last frame described silence or said that nothing is sent.
    idle: bool,
}

impl AmrDecoder {
    pub(crate) fn new(wide: bool, framing: Framing) -> Result<Self, CodecError> {
        if framing.interleaved {
            return Err(CodecError::NotSupported {
                codec: name(wide),
                missing: "interleaved packets (RFC 4867 section 4.4.1)",
            });
        }
        Ok(Self {
            inner: start(wide)?,
            wide,
            framing,
            mode: 0,
            idle: false,
        })
    }

    fn coded(&mut self, frame: AmrPayloadFrame) -> CodedFrame {
        let (kind, mode) = match frame.frame_type {
            AmrFrameType::Speech(mode) => {
                self.mode = mode.index();
                (FrameKind::Speech, mode.index())
            }
            AmrFrameType::Sid(_) => (FrameKind::ComfortNoise, self.mode),
            AmrFrameType::NoData => (FrameKind::NoData, self.mode),
            AmrFrameType::SpeechLost => (FrameKind::Lost, self.mode),
        };
        self.idle = matches!(kind, FrameKind::ComfortNoise | FrameKind::NoData);
        CodedFrame {
            kind,
            mode,
            quality_ok: frame.quality_ok,
            data: frame.data,
        }
    }

    fn missing(&mut self, samples: usize, kind: FrameKind, output: &mut Vec<i16>) -> usize {
        let frame = CodedFrame {
            kind,
            mode: self.mode,
            quality_ok: false,
            data: Vec::new(),
        };
        let before = output.len();
        for _ in 0..samples / frame_samples(self.wide) {
            let Ok(sound) = self.inner.decode_frame(&frame) else {
                break;
            };
            output.extend(sound);
        }
        output.len() - before
    }
}

impl Decoder for AmrDecoder {
    fn rate_hz(&self) -> u32 {
        if self.wide { 16_000 } else { 8_000 }
    }

    fn decode(&mut self, payload: &[u8], output: &mut Vec<i16>) -> Result<usize, CodecError> {
        let wide = self.wide;
        let bad = |reason| CodecError::Payload {
            codec: name(wide),
            bytes: payload.len(),
            reason,
        };
        let (framing, _) = framing_of(payload, wide, self.framing)
            .ok_or_else(|| bad("frames and length disagree"))?;
        let unpacked = AmrPayloadCodec::new(payload_config(wide, framing))
            .and_then(|format| format.unpack(payload))
            .map_err(|_| bad("not a packet"))?;
        let before = output.len();
        for frame in unpacked.frames {
            let frame = self.coded(frame);
            let Ok(sound) = self.inner.decode_frame(&frame) else {
                output.truncate(before);
                return Err(bad("refused by the decoder"));
            };
            output.extend(sound);
        }
        Ok(output.len() - before)
    }

    fn conceal(&mut self, samples: usize, _next: Option<&[u8]>, output: &mut Vec<i16>) -> usize {
        self.missing(samples, FrameKind::Lost, output)
    }

    fn is_idle(&self) -> bool {
        self.idle
    }

    fn idle(&mut self, samples: usize, output: &mut Vec<i16>) -> usize {
        if self.idle {
            self.missing(samples, FrameKind::NoData, output)
        } else {
            0
        }
    }
}

pub(crate) struct AmrEncoder {
    inner: AmrCodec,
    wide: bool,
    framing: Framing,
}

impl AmrEncoder {
    pub(crate) fn new(wide: bool, framing: Framing) -> Result<Self, CodecError> {
        Ok(Self {
            inner: start(wide)?,
            wide,
            framing,
        })
    }
}

impl Encoder for AmrEncoder {
    fn rate_hz(&self) -> u32 {
        if self.wide { 16_000 } else { 8_000 }
    }

    fn encode(&mut self, samples: &[i16], output: &mut Vec<u8>) -> Result<usize, CodecError> {
        let bad = CodecError::Payload {
            codec: name(self.wide),
            bytes: samples.len() * 2,
            reason: "one frame of 20 ms is needed",
        };
        let config = payload_config(self.wide, self.framing);
        let mode = self.inner.mode();
        let packed = self.inner.encode(samples).and_then(|data| {
            let frame = AmrPayloadFrame::new(AmrFrameType::Speech(mode), true, data)?;
            AmrPayloadCodec::new(config)?.pack(&AmrPacket::single(frame))
        });
        let payload = packed.map_err(|_| bad)?;
        output.extend_from_slice(&payload);
        Ok(payload.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_told_by_every_bit_of_it() {
        let aligned = Framing {
            octet_aligned: true,
            ..Framing::default()
        };
        let mut octets = vec![0xF0, 0x3C];
        octets.extend([0; 31]);
        assert_eq!(frames(&octets, false, aligned), Some(1), "12.2 kbit/s");
        assert_eq!(frames(&octets, false, Framing::default()), None);
        assert_eq!(samples(&octets, false, Framing::default()), Some(160));
        let mut dense = vec![0xF3, 0xC0];
        dense.extend([0; 30]);
        assert_eq!(frames(&dense, false, Framing::default()), Some(1));
        assert_eq!(frames(&dense[..31], false, Framing::default()), None);
        assert_eq!(samples(&dense, false, aligned), Some(160));
    }

    #[test]
    fn what_was_packed_is_unpacked_in_every_framing() {
        let tone: Vec<i16> = (0..3_200)
            .map(|n| ((n as f64 * 0.17).sin() * 9e3) as i16)
            .collect();
        for wide in [false, true] {
            for framing in [
                Framing::default(),
                Framing::of("octet-align=1"),
                Framing::of("octet-align=1; crc=1"),
                Framing::of("octet-align=1;robust-sorting=1"),
            ] {
                let mut encoder = AmrEncoder::new(wide, framing).unwrap();
                let mut decoder = AmrDecoder::new(wide, framing).unwrap();
                let mut output = Vec::new();
                for frame in tone.chunks(frame_samples(wide)) {
                    let mut payload = Vec::new();
                    encoder.encode(frame, &mut payload).unwrap();
                    assert_eq!(samples(&payload, wide, framing), Some(frame.len()));
                    assert_eq!(decoder.decode(&payload, &mut output), Ok(frame.len()));
                }
                let loudest = output.iter().map(|s| s.unsigned_abs()).max();
                assert!(loudest > Some(4_000), "{wide} {framing:?}: {loudest:?}");
            }
        }
    }
}
