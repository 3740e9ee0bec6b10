//! What parties hear of their recording, encoded before anybody hears it: once a sound and codec, on a
//! thread of its own.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use trunkline_audio::resample;
use trunkline_codec::{CodecKind, Format, opus_frames, tone};
use trunkline_config::{Config, Sound, Tone, read_announcement};
use trunkline_link::limits::SOURCE_PIECE_BYTES_MAX;
use trunkline_link::message::{CodecId, Command, SourceLoad};

/// How loud a tone is.
const TONE_DBM0: f32 = -16.0;
/// Frames of G.711 and G.722, and of Opus, µs.
const FRAME_US: u32 = 20_000;
const OPUS_FRAME_US: u32 = 10_000;
/// Codecs that a sound is made in.
const CODECS: [CodecId; 4] = [CodecId::Pcmu, CodecId::Pcma, CodecId::G722, CodecId::Opus];

/// A sound in one codec, as the dataplane takes it.
#[derive(Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Its number: another sound, another number.
    pub source: u64,
    /// Codec.
    pub codec: CodecId,
    clock_hz: u32,
    frame_us: u32,
    frames: Vec<Vec<u8>>,
}

/// A sound in all codecs that it could be made in.
pub type Voices = Vec<Arc<Prepared>>;

impl Prepared {
    fn new(codec: CodecId, frame_us: u32, frames: Vec<Vec<u8>>) -> Self {
        let mut hasher = DefaultHasher::new();
        (codec as u8, frame_us, &frames).hash(&mut hasher);
        Self {
            source: hasher.finish(),
            codec,
            clock_hz: if codec == CodecId::Opus {
                48_000
            } else {
                8_000
            },
            frame_us,
            frames,
        }
    }

    /// The commands that load it.
    pub fn pieces(&self) -> Vec<Command> {
        let mut pieces: Vec<SourceLoad> = Vec::new();
        for (index, frame) in self.frames.iter().enumerate() {
            let room =
                |piece: &SourceLoad| piece.bytes() + frame.len() + 2 <= SOURCE_PIECE_BYTES_MAX;
            if !pieces.last().is_some_and(room) {
                pieces.push(SourceLoad {
                    source: self.source,
                    codec: self.codec,
                    clock_hz: self.clock_hz,
                    frame_us: self.frame_us,
                    frames_total: u32::try_from(self.frames.len()).unwrap_or(u32::MAX),
                    first: u32::try_from(index).unwrap_or(u32::MAX),
                    frames: Vec::new(),
                });
            }
            if let Some(piece) = pieces.last_mut() {
                piece.frames.push(frame.clone());
            }
        }
        pieces.into_iter().map(Command::SourceLoad).collect()
    }

    /// How long it is, in milliseconds.
    pub fn duration_ms(&self) -> u64 {
        self.frames.len() as u64 * u64::from(self.frame_us) / 1_000
    }
}

/// The sounds that a configuration names, each once.
pub fn wanted(config: &Config) -> Vec<Sound> {
    let mut sounds: Vec<Sound> = Vec::new();
    for indication in config
        .routes
        .iter()
        .filter_map(|route| route.indication.as_ref())
    {
        if !sounds.contains(&indication.sound) {
            sounds.push(indication.sound.clone());
        }
    }
    sounds
}

/// Makes a sound in every codec.
///
/// # Errors
/// In words: its file cannot be read, or no codec takes it.
pub fn prepare(sound: &Sound) -> Result<Voices, String> {
    let mut rates = Rates::of(sound)?;
    let mut failed = None;
    let mut voices = Vec::new();
    for codec in CODECS {
        match encode(codec, &mut rates) {
            Ok(prepared) => voices.push(Arc::new(prepared)),
            Err(error) => failed = Some(error.to_string()),
        }
    }
    match (voices.is_empty(), failed) {
        (true, Some(error)) => Err(error),
        _ => Ok(voices),
    }
}

fn encode(codec: CodecId, rates: &mut Rates) -> Result<Prepared, trunkline_codec::CodecError> {
    let kind = match codec {
        CodecId::Pcma => CodecKind::Pcma,
        CodecId::G722 => CodecKind::G722,
        CodecId::Opus => {
            let mut samples = rates.at(48_000).to_vec();
            // What follows the last frame is that frame again: silence.
            samples.resize(samples.len() + 960, 0);
            return Ok(Prepared::new(codec, OPUS_FRAME_US, opus_frames(&samples)?));
        }
        _ => CodecKind::Pcmu,
    };
    let format = Format::usual(kind);
    let mut encoder = format.encoder()?;
    let length = format.rate_hz() as usize * FRAME_US as usize / 1_000_000;
    let mut frames = Vec::new();
    for chunk in rates.at(format.rate_hz()).chunks(length) {
        let mut samples = chunk.to_vec();
        samples.resize(length, 0);
        let mut frame = Vec::new();
        encoder.encode(&samples, &mut frame)?;
        frames.push(frame);
    }
    Ok(Prepared::new(codec, FRAME_US, frames))
}

/// A sound at the rates that codecs want.
struct Rates {
    sound: Original,
    made: HashMap<u32, Vec<i16>>,
}

enum Original {
    Tone(Tone),
    Samples(u32, Vec<i16>),
}

impl Rates {
    fn of(sound: &Sound) -> Result<Self, String> {
        let sound = match sound {
            Sound::Tone(tone) => Original::Tone(*tone),
            Sound::Announcement(path) => {
                let read = read_announcement(path)?;
                Original::Samples(read.rate_hz, read.samples)
            }
        };
        Ok(Self {
            sound,
            made: HashMap::new(),
        })
    }

    fn at(&mut self, rate_hz: u32) -> &[i16] {
        let sound = &self.sound;
        self.made.entry(rate_hz).or_insert_with(|| match sound {
            Original::Tone(wanted) => {
                let mut samples = Vec::new();
                let count = u64::from(rate_hz) * u64::from(wanted.ms) / 1_000;
                let count = usize::try_from(count).unwrap_or(0);
                tone::sine(wanted.hz, TONE_DBM0, rate_hz, count, &mut samples);
                samples
            }
            Original::Samples(known_hz, samples) if *known_hz == rate_hz => samples.clone(),
            Original::Samples(known_hz, samples) => resample(samples, *known_hz, rate_hz),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(ms: u32) -> Sound {
        Sound::Tone(Tone {
            ms,
            ..Tone::default()
        })
    }

    #[test]
    fn a_tone_is_made_in_every_codec_and_loaded_in_pieces() {
        let voices = prepare(&tone(2_010)).unwrap();
        let codecs: Vec<CodecId> = voices.iter().map(|one| one.codec).collect();
        assert_eq!(codecs, CODECS);
        for voice in &voices {
            let long = voice.codec == CodecId::Opus;
            assert_eq!(voice.duration_ms(), if long { 2_030 } else { 2_020 });
            let mut next = 0;
            for command in voice.pieces() {
                let Command::SourceLoad(piece) = command else {
                    panic!("{command:?}")
                };
                assert!(piece.bytes() <= SOURCE_PIECE_BYTES_MAX);
                assert_eq!((piece.source, piece.first), (voice.source, next));
                next += piece.frames.len() as u32;
                assert_eq!(piece.frames_total, voice.frames.len() as u32);
            }
            assert_eq!(next, voice.frames.len() as u32);
        }
        let numbers = |sound: &Sound| -> Vec<u64> {
            prepare(sound)
                .unwrap()
                .iter()
                .map(|one| one.source)
                .collect()
        };
        assert_eq!(numbers(&tone(400)), numbers(&tone(400)));
        assert_ne!(numbers(&tone(400)), numbers(&tone(420)));
    }

    #[test]
    fn a_file_that_cannot_be_read_says_so() {
        let error = prepare(&Sound::Announcement("/nowhere/a.wav".into())).unwrap_err();
        assert!(error.contains("/nowhere/a.wav"), "{error}");
    }
}
