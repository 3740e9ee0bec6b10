//! What parties hear of their recording: a route's `indication` keys, and the sound of an announcement.

use std::path::{Path, PathBuf};

use toml::de::DeValue;

use crate::ConfigError;
use crate::reader::{Item, Report, Section};

/// Longest announcement, seconds.
const ANNOUNCEMENT_S_MAX: u32 = 60;
/// Sample rates of an announcement, Hz.
const RATES_HZ: [u32; 6] = [8_000, 16_000, 24_000, 32_000, 44_100, 48_000];

/// A tone that comes again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tone {
    /// Its frequency, Hz.
    pub hz: u32,
    /// How long it is.
    pub ms: u32,
    /// From one beginning to the next.
    pub every_s: u32,
}

impl Default for Tone {
    /// The beep of call recorders.
    fn default() -> Self {
        Self {
            hz: 1_400,
            ms: 400,
            every_s: 15,
        }
    }
}

/// What is heard.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Sound {
    /// A tone, for as long as is recorded.
    Tone(Tone),
    /// The sound of a WAV file, once.
    Announcement(PathBuf),
}

/// How it stands to what the other party says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IndicationMode {
    /// In its place.
    #[default]
    Insert,
    /// Added to it where that is G.711, else in its place.
    Mix,
}

/// What a route's parties hear of their recording, those that do not know of it otherwise.
#[derive(Debug, Clone)]
pub struct Indication {
    /// What.
    pub sound: Sound,
    /// Whether the caller, and the callee, is to hear it.
    pub to: [bool; 2],
    /// How.
    pub mode: IndicationMode,
    /// Where the file is named, for complaints.
    place: ConfigError,
}

impl Indication {
    /// What is wrong with its file.
    pub(crate) fn complaint(&self) -> Option<ConfigError> {
        let Sound::Announcement(path) = &self.sound else {
            return None;
        };
        let message = read_announcement(path).err()?;
        Some(ConfigError {
            message,
            ..self.place.clone()
        })
    }
}

/// The sound of an announcement: PCM of 16 bits, mono.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// Samples a second.
    pub rate_hz: u32,
    /// Samples; two channels are one here.
    pub samples: Vec<i16>,
}

/// Reads an announcement.
///
/// # Errors
/// In words: it is not there, is no WAV file of 16-bit PCM, is silent by its length, or too long.
pub fn read_announcement(path: &Path) -> Result<Announcement, String> {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let mut reader = hound::WavReader::open(path).map_err(|error| named(&error))?;
    let spec = reader.spec();
    if spec.sample_format != hound::SampleFormat::Int || spec.bits_per_sample != 16 {
        return Err(named(&"must be PCM of 16 bits"));
    }
    if !(1..=2).contains(&spec.channels) {
        return Err(named(&format!(
            "one or two channels, not {}",
            spec.channels
        )));
    }
    let rate_hz = spec.sample_rate;
    if !RATES_HZ.contains(&rate_hz) {
        let rates = RATES_HZ.map(|rate| rate.to_string()).join(", ");
        return Err(named(&format!("{rate_hz} Hz is not one of {rates}")));
    }
    // What the header says of the length is judged before anything is read.
    if reader.duration() == 0 {
        return Err(named(&"has no sound"));
    }
    if reader.duration() > ANNOUNCEMENT_S_MAX * rate_hz {
        return Err(named(&format!("longer than {ANNOUNCEMENT_S_MAX} s")));
    }
    let samples: Result<Vec<i16>, _> = reader.samples().collect();
    let samples = samples.map_err(|error| named(&error))?;
    let channels = usize::from(spec.channels);
    let mono = samples.chunks_exact(channels).map(|frame| {
        let sum: i32 = frame.iter().map(|&sample| i32::from(sample)).sum();
        (sum / frame.len() as i32) as i16
    });
    Ok(Announcement {
        rate_hz,
        samples: mono.collect(),
    })
}

/// Reads a route's keys about it.
pub(crate) fn read_route(section: &mut Section<'_>, report: &mut Report<'_>) -> Option<Indication> {
    let kind = section.take("indication");
    let file = section.take("announcement");
    let tone = section.take("tone");
    let to = section.take("indication_to");
    let mode = section.take("indication_mode");
    let word = kind.as_ref().and_then(|item| item.string(report));
    let wanted = word.as_ref().map_or("none", |word| word.text);
    // A key that says nothing is a mistake.
    let mut idle = |item: &Option<Item<'_>>, wants: &str| {
        if let Some(item) = item {
            item.complain(report, format!("has no use without indication = {wants}"));
        }
    };
    if wanted != "announcement" {
        idle(&file, "\"announcement\"");
    }
    if wanted != "tone" {
        idle(&tone, "\"tone\"");
    }
    if wanted == "none" {
        idle(&to, "\"tone\" or \"announcement\"");
        idle(&mode, "\"tone\" or \"announcement\"");
    }
    let sound = match wanted {
        "none" => return None,
        "tone" => Sound::Tone(tone.map_or_else(Tone::default, |item| read_tone(&item, report))),
        "announcement" => {
            let path = file.as_ref().and_then(|item| item.string(report));
            let Some(path) = path.filter(|path| !path.text.is_empty()) else {
                let word = word?;
                report.add(word.at, &word.key, "`announcement` must name a WAV file");
                return None;
            };
            Sound::Announcement(PathBuf::from(path.text))
        }
        _ => {
            let words = "is not one of \"none\", \"tone\", \"announcement\"";
            word?.map(report, |word| Err::<(), _>(format!("{word:?} {words}")));
            return None;
        }
    };
    let at = file.as_ref().or(kind.as_ref())?;
    let place = report.place(at.at, &at.key);
    let to = to.and_then(|item| item.string(report));
    let to = to.and_then(|text| {
        text.map(report, |word| match word {
            "both" => Ok([true, true]),
            "caller" => Ok([true, false]),
            "callee" => Ok([false, true]),
            _ => Err(format!(
                "{word:?} is not one of \"both\", \"caller\", \"callee\""
            )),
        })
    });
    let mode = mode.and_then(|item| item.string(report));
    let mode = mode.and_then(|text| {
        text.map(report, |word| match word {
            "insert" => Ok(IndicationMode::Insert),
            "mix" => Ok(IndicationMode::Mix),
            _ => Err(format!("{word:?} is not one of \"insert\", \"mix\"")),
        })
    });
    Some(Indication {
        sound,
        to: to.unwrap_or([true, true]),
        mode: mode.unwrap_or_default(),
        place,
    })
}

fn read_tone(item: &Item<'_>, report: &mut Report<'_>) -> Tone {
    let mut tone = Tone::default();
    let DeValue::Table(table) = item.value.get_ref() else {
        item.complain(
            report,
            "must be a table: { hz = 1400, ms = 400, every_s = 15 }",
        );
        return tone;
    };
    let mut section = Section::new(&item.key, item.at, table);
    let mut number = |key: &str, min, max, into: &mut u32| {
        let value = section.take(key);
        let value = value.and_then(|item| item.integer_u32(report, min, max));
        *into = value.unwrap_or(*into);
    };
    number("hz", 300, 3_400, &mut tone.hz);
    number("ms", 50, 5_000, &mut tone.ms);
    number("every_s", 1, 3_600, &mut tone.every_s);
    section.finish(report);
    if tone.ms >= tone.every_s.saturating_mul(1_000) {
        item.complain(report, "every_s must be longer than the tone itself");
    }
    tone
}
