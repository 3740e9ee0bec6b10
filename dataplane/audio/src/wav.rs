//! WAV: PCM16 stereo, left = caller, right = callee (or both mixed into one channel), its length
//! known before the first sample.

use crate::render::{Progress, render};
use crate::{AudioError, Plan, PlayCounts};
use std::io::Write;
use trunkline_sn3::Capture;

/// Bytes before the first sample.
const HEADER_BYTES: u64 = 44;
const SAMPLE_BYTES: u16 = 2;

impl Plan {
    /// Length of the WAV file with its header, in bytes.
    #[must_use]
    pub const fn wav_bytes(&self) -> u64 {
        HEADER_BYTES.saturating_add(
            self.samples
                .saturating_mul((self.channels() * SAMPLE_BYTES) as u64),
        )
    }

    /// Bytes that the RIFF header counts.
    pub(crate) fn check_length(&self) -> Result<u32, AudioError> {
        u32::try_from(self.wav_bytes() - 8).map_err(|_| AudioError::TooLong {
            seconds: self.samples / u64::from(self.rate_hz),
            rate_hz: self.rate_hz,
        })
    }

    /// Channels of the WAV: 2, or 1 where both sides are mixed.
    #[must_use]
    pub const fn channels(&self) -> u16 {
        if self.mono { 1 } else { 2 }
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
    let header = header(plan)?;
    output.write_all(&header)?;
    let mut bytes = Vec::new();
    let mut sink = |left: &[i16], right: &[i16]| {
        bytes.clear();
        let pairs = left.iter().zip(right);
        if plan.mono {
            bytes.extend(pairs.flat_map(|(left, right)| left.saturating_add(*right).to_le_bytes()));
        } else {
            bytes.extend(pairs.flat_map(|(left, right)| {
                let [a, b] = left.to_le_bytes();
                let [c, d] = right.to_le_bytes();
                [a, b, c, d]
            }));
        }
        output.write_all(&bytes).map_err(AudioError::from)
    };
    let counts = render(capture, plan, &mut sink, progress)?;
    output.flush()?;
    Ok(counts)
}

fn header(plan: &Plan) -> Result<[u8; HEADER_BYTES as usize], AudioError> {
    let riff = plan.check_length()?;
    let frame = plan.channels() * SAMPLE_BYTES;
    let mut header = [0; HEADER_BYTES as usize];
    header[..4].copy_from_slice(b"RIFF");
    header[4..8].copy_from_slice(&riff.to_le_bytes());
    header[8..16].copy_from_slice(b"WAVEfmt ");
    header[16..20].copy_from_slice(&16_u32.to_le_bytes());
    header[20..22].copy_from_slice(&1_u16.to_le_bytes());
    header[22..24].copy_from_slice(&plan.channels().to_le_bytes());
    header[24..28].copy_from_slice(&plan.rate_hz.to_le_bytes());
    header[28..32].copy_from_slice(&(plan.rate_hz * u32::from(frame)).to_le_bytes());
    header[32..34].copy_from_slice(&frame.to_le_bytes());
    header[34..36].copy_from_slice(&(8 * SAMPLE_BYTES).to_le_bytes());
    header[36..40].copy_from_slice(b"data");
    header[40..].copy_from_slice(&(riff - (HEADER_BYTES as u32 - 8)).to_le_bytes());
    Ok(header)
}
