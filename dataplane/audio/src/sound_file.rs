//! The kinds of files that sound is written to.

use crate::flac::write_flac;
use crate::ogg_opus::{RATES_HZ, write_ogg_opus};
use crate::render::Progress;
use crate::wav::write_wav;
use crate::{AudioError, Plan, PlayCounts};
use std::io::Write;
use std::path::Path;
use trunkline_sn3::Capture;

/// Bits a second and channel of Ogg Opus when nobody says.
const OPUS_BITS_PER_SECOND: u32 = 24_000;

/// What a file is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// RIFF WAVE, PCM of 16 bits, or G.711 as it is (`Options::keep`).
    Wav,
    /// FLAC.
    Flac,
    /// Opus in Ogg.
    OggOpus,
}

impl Container {
    /// By the end of a file's name; anything unknown is a WAV.
    #[must_use]
    pub fn of_path(path: &Path) -> Self {
        let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        match extension.as_deref() {
            Some("flac") => Self::Flac,
            Some("opus" | "ogg" | "oga") => Self::OggOpus,
            _ => Self::Wav,
        }
    }

    /// The end of its files' names.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Wav => "wav",
            Self::Flac => "flac",
            Self::OggOpus => "opus",
        }
    }

    /// The sample rate to ask for where the sound has `rate_hz` and the user did not say.
    #[must_use]
    pub fn rate_for(self, rate_hz: u32) -> u32 {
        match self {
            Self::Wav | Self::Flac => rate_hz,
            Self::OggOpus => {
                let enough = RATES_HZ.into_iter().find(|&rate| rate >= rate_hz);
                enough.unwrap_or(RATES_HZ[RATES_HZ.len() - 1])
            }
        }
    }
}

/// What writing a file came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Packets played, concealed, refused.
    pub counts: PlayCounts,
    /// Bytes to be put at an offset of the finished file; it is a sound file without them too.
    pub patch: Option<(u64, Vec<u8>)>,
}

/// Writes the whole file to `output`, which need not seek. `opus_bits_per_second` is for all
/// channels together; `progress` is told samples done and in total, and cancels by false.
///
/// # Errors
/// The sound does not fit the container, the output failed, or the callback cancelled.
pub fn write_sound(
    capture: &Capture,
    plan: &Plan,
    container: Container,
    opus_bits_per_second: Option<u32>,
    output: &mut dyn Write,
    progress: &mut Progress<'_>,
) -> Result<Written, AudioError> {
    match container {
        Container::Wav => {
            let counts = write_wav(capture, plan, output, progress)?;
            Ok(Written {
                counts,
                patch: None,
            })
        }
        _ if plan.kept().is_some() => Err(AudioError::Option(
            "G.711 is kept as it is in a WAV only".to_owned(),
        )),
        Container::Flac => write_flac(capture, plan, output, progress),
        Container::OggOpus => {
            let bits =
                opus_bits_per_second.unwrap_or(OPUS_BITS_PER_SECOND * u32::from(plan.channels()));
            write_ogg_opus(capture, plan, bits, output, progress)
        }
    }
}
