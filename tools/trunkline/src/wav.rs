//! As much of WAV as is needed to look at a recording.

use anyhow::{Context, Result, bail};
use trunkline_rtpgen::tone::RATE_HZ;

/// The two channels of a WAV: caller, callee.
pub(crate) fn channels(wav: &[u8]) -> Result<[Vec<i16>; 2]> {
    let header = wav.get(..44).context("the WAV is cut")?;
    let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let rate = u32::from_le_bytes([header[24], header[25], header[26], header[27]]);
    if &header[..4] != b"RIFF" || &header[8..12] != b"WAVE" || &header[36..40] != b"data" {
        bail!("what should be a WAV begins otherwise");
    }
    if (half(20), half(22), half(34), rate) != (1, 2, 16, RATE_HZ) {
        bail!("the WAV is not PCM16 stereo at {RATE_HZ} Hz");
    }
    let sample = |bytes: &[u8]| i16::from_le_bytes([bytes[0], bytes[1]]);
    let frames = wav[44..].chunks_exact(4);
    Ok([
        frames.clone().map(sample).collect(),
        frames.map(|frame| sample(&frame[2..])).collect(),
    ])
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A WAV of two channels of the same length.
    pub(crate) fn wav_of(left: &[i16], right: &[i16]) -> Vec<u8> {
        let mut bytes = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x02\0".to_vec();
        bytes.extend(RATE_HZ.to_le_bytes());
        bytes.extend((RATE_HZ * 4).to_le_bytes());
        bytes.extend(b"\x04\0\x10\0data");
        let frames = left.iter().zip(right);
        bytes.extend((frames.len() as u32 * 4).to_le_bytes());
        for (left, right) in frames {
            bytes.extend(left.to_le_bytes());
            bytes.extend(right.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn channels_come_back_and_other_files_are_refused() {
        let bytes = wav_of(&[1, 2, -3], &[4, 5, 6]);
        assert_eq!(channels(&bytes).unwrap(), [vec![1, 2, -3], vec![4, 5, 6]]);
        assert!(channels(&bytes[..40]).is_err(), "cut");
        let text = b"{\"error\": \"something that is no WAV at all, but long enough\"}";
        assert!(channels(text).is_err());
    }
}
