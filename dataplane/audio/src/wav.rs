//! WAV, its length known before the first sample: PCM of 16 bits, or G.711 as it is.

use crate::render::{Progress, render};
use crate::{AudioError, Plan, PlayCounts};
use std::io::Write;
use trunkline_codec::{CodecKind, g711};
use trunkline_sn3::Capture;

const FORMAT_PCM: u16 = 1;
const FORMAT_A_LAW: u16 = 6;
const FORMAT_MU_LAW: u16 = 7;
const FORMAT_EXTENSIBLE: u16 = 0xFFFE;
/// What makes a format number a GUID (KSDATAFORMAT_SUBTYPE).
const SUBTYPE_TAIL: [u8; 14] = [0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xAA, 0, 0x38, 0x9B, 0x71];

impl Plan {
    /// Length of the WAV file with its header, in bytes.
    #[must_use]
    pub fn wav_bytes(&self) -> u64 {
        let padded = self.data_bytes().saturating_add(self.data_bytes() % 2);
        self.header_bytes().saturating_add(padded)
    }

    /// Bytes of one sample of one channel.
    fn sample_bytes(&self) -> u16 {
        if self.kept().is_some() { 1 } else { 2 }
    }

    fn data_bytes(&self) -> u64 {
        let frame = u64::from(self.channels() * self.sample_bytes());
        self.samples.saturating_mul(frame)
    }

    /// Length of the format chunk: plain PCM of two channels needs no more than 16 bytes.
    fn format_bytes(&self) -> u64 {
        match (self.kept(), self.channels()) {
            (Some(_), _) => 18,
            (None, 0..=2) => 16,
            (None, _) => 40,
        }
    }

    fn header_bytes(&self) -> u64 {
        // What is not PCM tells its samples in a fact chunk.
        let fact = if self.kept().is_some() { 12 } else { 0 };
        28 + self.format_bytes() + fact
    }

    /// Bytes that the RIFF header counts.
    pub(crate) fn check_length(&self) -> Result<u32, AudioError> {
        u32::try_from(self.wav_bytes() - 8).map_err(|_| AudioError::TooLong {
            seconds: self.samples / u64::from(self.rate_hz),
            rate_hz: self.rate_hz,
        })
    }
}

/// Writes the whole WAV to `output` (no seeking needed), `plan.wav_bytes()` bytes.
/// `progress` is told samples done and in total, several times a minute of sound; false cancels.
///
/// # Errors
/// The sound is longer than a WAV can hold, the output failed, or the callback cancelled.
pub fn write_wav(
    capture: &Capture,
    plan: &Plan,
    output: &mut dyn Write,
    progress: &mut Progress<'_>,
) -> Result<PlayCounts, AudioError> {
    output.write_all(&header(plan)?)?;
    let mut bytes = Vec::new();
    let mut sink = |channels: &[Vec<i16>]| {
        bytes.clear();
        match plan.kept() {
            None => interleave(channels, &mut bytes),
            Some(CodecKind::Pcma) => companded(channels, g711::encode_a_law, &mut bytes),
            Some(_) => companded(channels, g711::encode_mu_law, &mut bytes),
        }
        output.write_all(&bytes).map_err(AudioError::from)
    };
    let counts = render(capture, plan, &mut sink, progress)?;
    if plan.data_bytes() % 2 == 1 {
        output.write_all(&[0])?;
    }
    output.flush()?;
    Ok(counts)
}

fn interleave(channels: &[Vec<i16>], bytes: &mut Vec<u8>) {
    match channels {
        // The everyday case, in a shape that the compiler makes fast.
        [left, right] => bytes.extend(left.iter().zip(right).flat_map(|(left, right)| {
            let [a, b] = left.to_le_bytes();
            let [c, d] = right.to_le_bytes();
            [a, b, c, d]
        })),
        _ => {
            for index in 0..channels.first().map_or(0, Vec::len) {
                bytes.extend(channels.iter().flat_map(|c| c[index].to_le_bytes()));
            }
        }
    }
}

fn companded(channels: &[Vec<i16>], encode: fn(i16) -> u8, bytes: &mut Vec<u8>) {
    for index in 0..channels.first().map_or(0, Vec::len) {
        bytes.extend(channels.iter().map(|channel| encode(channel[index])));
    }
}

fn header(plan: &Plan) -> Result<Vec<u8>, AudioError> {
    let riff = plan.check_length()?;
    let format = match plan.kept() {
        Some(CodecKind::Pcma) => FORMAT_A_LAW,
        Some(_) => FORMAT_MU_LAW,
        None if plan.format_bytes() == 40 => FORMAT_EXTENSIBLE,
        None => FORMAT_PCM,
    };
    let (channels, bits) = (plan.channels(), 8 * plan.sample_bytes());
    let frame = channels * plan.sample_bytes();
    let mut header = b"RIFF".to_vec();
    header.extend(riff.to_le_bytes());
    header.extend(b"WAVEfmt ");
    header.extend((plan.format_bytes() as u32).to_le_bytes());
    header.extend(format.to_le_bytes());
    header.extend(channels.to_le_bytes());
    header.extend(plan.rate_hz.to_le_bytes());
    header.extend((plan.rate_hz * u32::from(frame)).to_le_bytes());
    header.extend(frame.to_le_bytes());
    header.extend(bits.to_le_bytes());
    if format == FORMAT_EXTENSIBLE {
        header.extend(22_u16.to_le_bytes());
        header.extend(bits.to_le_bytes());
        // No channel has a place in the room.
        header.extend(0_u32.to_le_bytes());
        header.extend(FORMAT_PCM.to_le_bytes());
        header.extend(SUBTYPE_TAIL);
    } else if plan.kept().is_some() {
        header.extend(0_u16.to_le_bytes());
        header.extend(b"fact");
        header.extend(4_u32.to_le_bytes());
        header.extend(
            u32::try_from(plan.samples)
                .unwrap_or(u32::MAX)
                .to_le_bytes(),
        );
    }
    header.extend(b"data");
    let data = u32::try_from(plan.data_bytes()).unwrap_or(u32::MAX);
    header.extend(data.to_le_bytes());
    Ok(header)
}
