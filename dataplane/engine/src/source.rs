//! Sound that was prepared for one codec before anybody plays it.

use crate::silence::{OPUS_UNIT_US, opus_units};
use crate::spec::{Codec, EngineError};

/// Time of one octet of G.711 and of G.722, µs.
const OCTET_US: u64 = 125;
/// Longest packet of Opus (RFC 6716 section 3.2), µs.
const OPUS_PACKET_US_MAX: u64 = 120_000;
/// Longest frame that Opus can describe (RFC 6716 section 3.2.1), bytes.
const OPUS_FRAME_BYTES_MAX: usize = 1275;

/// How octets of G.711 become samples and samples octets, for mixing.
#[derive(Debug, Clone, Copy)]
pub struct Companding {
    /// The sample of each octet.
    pub expand: &'static [i16; 256],
    /// The octet of a sample.
    pub compress: fn(i16) -> u8,
}

/// Prepared sound in one codec, shared by all that play it.
#[derive(Debug)]
pub struct Source {
    codec: Codec,
    clock_hz: u32,
    frame_us: u64,
    bytes: Vec<u8>,
    /// Where each frame ends among the bytes.
    ends: Vec<u32>,
    companding: Option<Companding>,
}

impl Source {
    /// Sound made of frames of `frame_us` each: payloads of G.711 or G.722, or Opus packets of one
    /// frame each, all of one configuration. `companding` lets G.711 be mixed.
    ///
    /// # Errors
    /// `Invalid`: a codec that is not played, no frame at all, or one of another length.
    pub fn new<'a>(
        codec: Codec,
        clock_hz: u32,
        frame_us: u32,
        frames: impl IntoIterator<Item = &'a [u8]>,
        companding: Option<Companding>,
    ) -> Result<Self, EngineError> {
        let mut source = Self {
            codec,
            clock_hz,
            frame_us: u64::from(frame_us),
            bytes: Vec::new(),
            ends: Vec::new(),
            companding: companding.filter(|_| matches!(codec, Codec::Pcmu | Codec::Pcma)),
        };
        for frame in frames {
            if !source.fits(frame) {
                return Err(EngineError::Invalid);
            }
            source.bytes.extend_from_slice(frame);
            let end = u32::try_from(source.bytes.len()).map_err(|_| EngineError::Invalid)?;
            source.ends.push(end);
        }
        let clock = match codec {
            Codec::Opus => 48_000,
            _ => 8_000,
        };
        if source.ends.is_empty() || clock_hz != clock {
            return Err(EngineError::Invalid);
        }
        Ok(source)
    }

    /// Whether this can be its next frame.
    fn fits(&self, frame: &[u8]) -> bool {
        match self.codec {
            Codec::Pcmu | Codec::Pcma | Codec::G722 => {
                !frame.is_empty() && frame.len() as u64 * OCTET_US == self.frame_us
            }
            Codec::Opus => {
                let first = self.bytes.first().or(frame.first());
                let one = frame.first().is_some_and(|toc| toc & 3 == 0);
                one && first == frame.first()
                    && frame.len() <= 1 + OPUS_FRAME_BYTES_MAX
                    && opus_units(frame).map(|units| units as u64 * OPUS_UNIT_US)
                        == Some(self.frame_us)
            }
            _ => false,
        }
    }

    /// Its codec.
    #[must_use]
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Its RTP clock rate, Hz.
    #[must_use]
    pub fn clock_hz(&self) -> u32 {
        self.clock_hz
    }

    /// Time of one frame, µs.
    pub(crate) fn frame_us(&self) -> u64 {
        self.frame_us
    }

    /// How long it is, µs.
    #[must_use]
    pub fn duration_us(&self) -> u64 {
        self.ends.len() as u64 * self.frame_us
    }

    /// Whether it can be mixed into what passes.
    #[must_use]
    pub fn mixes(&self) -> bool {
        self.companding.is_some()
    }

    /// Bytes that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len() + self.ends.len() * size_of::<u32>()
    }

    /// Time that a payload of its codec covers, µs.
    pub(crate) fn payload_us(&self, payload: &[u8]) -> Option<u64> {
        match self.codec {
            Codec::Opus => Some(opus_units(payload)? as u64 * OPUS_UNIT_US),
            _ => Some(payload.len() as u64 * OCTET_US).filter(|&us| us > 0),
        }
    }

    /// Puts it in place of a payload of G.711 or G.722, as far as it reaches.
    pub(crate) fn replace(&self, at_us: u64, payload: &mut [u8]) {
        let ours = self.octets(at_us, payload.len());
        payload[..ours.len()].copy_from_slice(ours);
    }

    /// Adds it to a payload of G.711, where it [mixes](Self::mixes).
    pub(crate) fn mix(&self, at_us: u64, payload: &mut [u8]) {
        let Some(Companding { expand, compress }) = self.companding else {
            return;
        };
        for (octet, &ours) in payload.iter_mut().zip(self.octets(at_us, usize::MAX)) {
            let sum = expand[usize::from(*octet)].saturating_add(expand[usize::from(ours)]);
            *octet = compress(sum);
        }
    }

    fn octets(&self, at_us: u64, length_max: usize) -> &[u8] {
        let start = usize::try_from(at_us / OCTET_US).unwrap_or(usize::MAX);
        let rest = self.bytes.get(start..).unwrap_or_default();
        &rest[..rest.len().min(length_max)]
    }

    /// Writes a payload of `duration_us` and gives its length; `None` where there is none of that
    /// duration, or no room. Behind its end follows silence: its last frame.
    pub(crate) fn payload(&self, at_us: u64, duration_us: u64, out: &mut [u8]) -> Option<usize> {
        if self.codec == Codec::Opus {
            return self.opus_packet(at_us, duration_us, out);
        }
        let length = usize::try_from(duration_us / OCTET_US).ok()?;
        let out = out.get_mut(..length)?;
        let ours = self.octets(at_us, length);
        out[..ours.len()].copy_from_slice(ours);
        out[ours.len()..].fill(crate::silence::octet_of(self.codec)?);
        Some(length)
    }

    fn frame(&self, index: usize) -> &[u8] {
        let index = index.min(self.ends.len() - 1);
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start as usize..self.ends[index] as usize]
    }

    /// A packet of one frame as it is, or of several (RFC 6716 section 3.2.5, code 3 with lengths).
    fn opus_packet(&self, at_us: u64, duration_us: u64, out: &mut [u8]) -> Option<usize> {
        let first = usize::try_from(at_us / self.frame_us).ok()?;
        let count = usize::try_from(duration_us / self.frame_us).ok()?;
        let whole = duration_us.is_multiple_of(self.frame_us);
        if count == 0 || !whole || duration_us > OPUS_PACKET_US_MAX {
            return None;
        }
        let mut used = 0;
        let mut put = |bytes: &[u8]| {
            out.get_mut(used..used + bytes.len())?
                .copy_from_slice(bytes);
            used += bytes.len();
            Some(())
        };
        if count == 1 {
            put(self.frame(first))?;
            return Some(used);
        }
        put(&[self.bytes[0] | 3, 0x80 | u8::try_from(count).ok()?])?;
        for index in first..first + count - 1 {
            let length = self.frame(index).len() - 1;
            match u8::try_from(length) {
                Ok(short @ 0..=251) => put(&[short])?,
                _ => {
                    let low = 252 | (length & 3) as u8;
                    let rest = u8::try_from((length - usize::from(low)) / 4).ok()?;
                    put(&[low, rest])?;
                }
            }
        }
        for index in first..first + count {
            put(&self.frame(index)[1..])?;
        }
        Some(used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(codec: Codec, clock_hz: u32, frame_us: u32, frames: &[&[u8]]) -> Option<Source> {
        Source::new(codec, clock_hz, frame_us, frames.iter().copied(), None).ok()
    }

    #[test]
    fn what_is_no_sound_of_its_codec_is_refused() {
        let one: &[u8] = &[1; 160];
        assert!(source(Codec::Pcmu, 8_000, 20_000, &[one]).is_some());
        assert!(source(Codec::Pcmu, 8_000, 20_000, &[]).is_none());
        assert!(source(Codec::Pcmu, 16_000, 20_000, &[one]).is_none());
        assert!(source(Codec::Pcmu, 8_000, 10_000, &[one]).is_none());
        assert!(source(Codec::Other, 8_000, 20_000, &[one]).is_none());
        // CELT 20 ms; one of another configuration; two frames; none.
        assert!(source(Codec::Opus, 48_000, 20_000, &[&[0xf8, 1]]).is_some());
        assert!(source(Codec::Opus, 48_000, 20_000, &[&[0xf8, 1], &[0xf0, 1]]).is_none());
        assert!(source(Codec::Opus, 48_000, 20_000, &[&[0xf9, 1, 2]]).is_none());
        assert!(source(Codec::Opus, 48_000, 20_000, &[&[]]).is_none());
    }

    #[test]
    fn octets_are_taken_from_anywhere_in_any_number() {
        let bytes: Vec<u8> = (0..160).collect();
        let source = source(Codec::Pcma, 8_000, 20_000, &[&bytes]).unwrap();
        assert_eq!(source.duration_us(), 20_000);
        let mut out = [0; 400];
        assert_eq!(source.payload(10_000, 15_000, &mut out), Some(120));
        assert_eq!(out[..80], bytes[80..]);
        assert_eq!(out[80..120], [0xd5; 40], "silence follows");
        let mut heard = [9; 100];
        source.replace(10_000, &mut heard);
        assert_eq!(heard[..80], bytes[80..]);
        assert_eq!(heard[80..], [9; 20], "what was said goes on");
        assert_eq!(source.payload(0, 60_000, &mut [0; 100]), None, "no room");
    }

    #[test]
    fn frames_of_opus_are_joined_to_packets_of_any_length() {
        let long = [vec![0xf0], vec![7; 300]].concat();
        let frames: [&[u8]; 3] = [&[0xf0, 1, 2], &long, &[0xf0, 5]];
        let source = source(Codec::Opus, 48_000, 10_000, &frames).unwrap();
        let mut out = [0; 1000];
        assert_eq!(source.payload(0, 10_000, &mut out), Some(3));
        assert_eq!(out[..3], [0xf0, 1, 2]);
        // 300 = 4 * 12 + 252.
        let length = source.payload(0, 30_000, &mut out).unwrap();
        assert_eq!(out[..5], [0xf3, 0x83, 2, 252, 12]);
        assert_eq!(length, 5 + 2 + 300 + 1);
        assert_eq!(opus_units(&out), Some(12));
        // Behind the end its last frame goes on.
        assert_eq!(source.payload(20_000, 20_000, &mut out), Some(5));
        assert_eq!(out[..5], [0xf3, 0x82, 1, 5, 5]);
        assert_eq!(source.payload(0, 15_000, &mut out), None);
        assert_eq!(source.payload(0, 130_000, &mut out), None);
    }
}
