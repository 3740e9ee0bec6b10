//! `sn3 wav`.

use crate::output::{Output, interrupted, spare_captures};
use crate::part::Part;
use crate::source::{Opened, Source, complain};
use crate::{Outcome, WrongUsage};
use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::path::{Path, PathBuf};
use trunkline_audio::{
    AudioError, ChannelLayout, Container, Options, Plan, PlayCounts, write_sound,
};
use trunkline_codec::{CodecKind, Format};
use trunkline_sn3::Capture;

/// Shorter calls are done before a bar could be read.
const BAR_FROM_MS: u64 = 300_000;

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  sn3 wav call.sn3 -o call.wav\n  \
    sn3 wav w0-00000001.sn3s --recording 7 -o call.wav\n  \
    sn3 wav old.sn2 --codec G722 --rate 8000 -o old.wav\n\n\
    Everything readable is written. Damage is named with its byte offset, exit code 1; loss,\n\
    duplicates and reordering in the network are no damage.")]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) source: Source,
    /// The file to write: .wav, .flac or .opus; - for the standard output.
    #[arg(short, long, value_name = "OUT.wav")]
    pub(crate) output: PathBuf,
    /// The codec of a capture that does not name it: PCMU, PCMA, G722, opus, L16 …, optionally
    /// with clock rate and channels (L16/16000/1).
    #[arg(long, value_name = "NAME", value_parser = parse_codec)]
    codec: Option<Format>,
    /// Samples a second; otherwise the highest rate of any leg.
    #[arg(long, value_name = "HZ", value_parser = clap::value_parser!(u32).range(4_000..=192_000))]
    rate: Option<u32>,
    /// Put early media in front of the answer.
    #[arg(long)]
    early: bool,
    /// Make telephone events (DTMF) audible as tones.
    #[arg(long)]
    tones: bool,
    /// What the channels hold: both sides, both mixed into one, or one channel for each party.
    #[arg(long, value_name = "LAYOUT", default_value = "stereo", value_parser = parse_layout)]
    channels: ChannelLayout,
    /// The same as --channels mono.
    #[arg(long, conflicts_with = "channels")]
    mono: bool,
    /// Keep G.711 as it is, octet by octet, instead of making PCM of it.
    #[arg(long)]
    keep: bool,
    /// wav, flac or opus; otherwise by the end of the output's name.
    #[arg(long, value_name = "FORMAT", value_parser = parse_container)]
    format: Option<Container>,
    /// Bits a second of Ogg Opus, all channels together.
    #[arg(long, value_name = "BITS", value_parser = clap::value_parser!(u32).range(6_000..=510_000))]
    bitrate: Option<u32>,
    /// Of a directory: only recordings for which this holds (party, call_id, tenant, from, to,
    /// verdict, attr.NAME, as in the API); may be given several times.
    #[arg(long = "where", value_name = "NAME=VALUE", value_parser = crate::query::parse_condition)]
    pub(crate) conditions: Vec<crate::query::Condition>,
    /// Of a directory: recordings converted at once; otherwise one for each core.
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<std::num::NonZeroU16>,
    /// Print what was done as JSON (on the standard output, unless the sound goes there).
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    part: Part,
}

fn parse_layout(text: &str) -> Result<ChannelLayout, String> {
    match text {
        "stereo" => Ok(ChannelLayout::Stereo),
        "mono" => Ok(ChannelLayout::Mono),
        "parties" => Ok(ChannelLayout::Parties),
        _ => Err("choose stereo, mono or parties".to_owned()),
    }
}

fn parse_container(text: &str) -> Result<Container, String> {
    match text {
        "wav" => Ok(Container::Wav),
        "flac" => Ok(Container::Flac),
        "opus" | "ogg" => Ok(Container::OggOpus),
        _ => Err("choose wav, flac or opus".to_owned()),
    }
}

/// `NAME[/CLOCK[/CHANNELS]]`.
pub(crate) fn parse_codec(text: &str) -> Result<Format, String> {
    let mut parts = text.split('/');
    let name = parts.next().unwrap_or_default();
    let number = |part: Option<&str>| match part {
        None => Ok(0_u32),
        Some(part) => part.parse().map_err(|_| format!("{part} is not a number")),
    };
    let clock_hz = number(parts.next())?;
    let channels = u8::try_from(number(parts.next())?).map_err(|_| "too many channels")?;
    let format = Format::from_sdp(name, clock_hz, channels);
    let format = format
        .filter(|format| format.kind.is_sound())
        .ok_or_else(|| {
            let names: Vec<&str> = CodecKind::ALL
                .iter()
                .filter(|kind| kind.is_sound())
                .map(|kind| kind.name())
                .collect();
            format!("no such codec; known are {}", names.join(", "))
        })?;
    format
        .decoder()
        .map(|_| format)
        .map_err(|error| error.to_string())
}

impl Arguments {
    fn options(&self) -> Result<Options> {
        let mut options = Options {
            codec: self.codec,
            rate_hz: self.rate,
            early: self.early,
            tones: self.tones,
            layout: if self.mono {
                ChannelLayout::Mono
            } else {
                self.channels
            },
            keep: self.keep,
            ..Options::default()
        };
        self.part.put_into(&mut options)?;
        Ok(options)
    }

    /// Options that say nothing about what was named.
    fn check(&self) -> Result<()> {
        let misplaced = |what: &str| Err(WrongUsage(what.to_owned()).into());
        if !self.is_batch() && !self.conditions.is_empty() {
            return misplaced("--where chooses among the recordings of a directory");
        }
        if !self.is_batch() && self.jobs.is_some() {
            return misplaced("--jobs is for the recordings of a directory");
        }
        if self.bitrate.is_some() && self.container() != Container::OggOpus {
            return misplaced("--bitrate is for Ogg Opus");
        }
        self.options().map(drop)
    }

    /// Told by `--format`, else by the name of an output that is a file.
    pub(crate) fn container(&self) -> Container {
        self.format.unwrap_or(if self.is_batch() {
            Container::Wav
        } else {
            Container::of_path(&self.output)
        })
    }

    /// Whether all recordings of a directory are wanted.
    fn is_batch(&self) -> bool {
        let output = self.output.as_os_str().to_string_lossy();
        self.source.file.is_dir()
            && self.source.recording.is_none()
            && (self.output.is_dir() || output.ends_with('/') || !self.conditions.is_empty())
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<Outcome> {
    arguments.check()?;
    if arguments.is_batch() {
        return crate::batch::run(arguments);
    }
    let capture = match arguments.source.open()? {
        Opened::Capture(capture) => capture,
        Opened::Listed(outcome) => return Ok(outcome),
    };
    let file = &arguments.source.file;
    let done = convert(&capture, file, &arguments.output, arguments, false)?;
    if arguments.json && arguments.output.as_os_str() != "-" {
        say!("{}", serde_json::to_string_pretty(&done.summary)?);
    }
    Ok(if done.flawed {
        Outcome::Flawed
    } else {
        Outcome::Fine
    })
}

/// One recording, written.
pub(crate) struct Converted {
    /// Damaged, or something could not be decoded.
    pub(crate) flawed: bool,
    pub(crate) duration_ms: u64,
    pub(crate) summary: serde_json::Value,
}

/// Writes one recording; what is wrong with it is said aloud.
pub(crate) fn convert(
    capture: &Capture,
    file: &Path,
    path: &Path,
    arguments: &Arguments,
    quiet: bool,
) -> Result<Converted> {
    let container = arguments.container();
    spare_captures(path)?;
    let damaged = complain(capture, file);
    let plan = plan_for(capture, arguments.options()?, container)
        .with_context(|| file.display().to_string())?;
    arguments.part.check(&plan, file)?;
    for note in plan.notes() {
        eprintln!("sn3: {}: {note}", file.display());
    }
    if let Some((frames, offset)) = plan.nonsense() {
        eprintln!(
            "sn3: {}: damaged at byte {offset}: impossible capture time ({frames} frames left out)",
            file.display(),
        );
    }
    let mut flawed = damaged || plan.nonsense().is_some() || plan.has_unsupported();
    let mut output = Output::create(path, file)?;
    let bar = if quiet {
        ProgressBar::hidden()
    } else {
        bar(&plan, file)
    };
    let mut progress = |done, _total| {
        bar.set_position(done);
        !interrupted()
    };
    let bitrate = arguments.bitrate;
    let written = write_sound(
        capture,
        &plan,
        container,
        bitrate,
        &mut output,
        &mut progress,
    );
    let counts = match written {
        Err(AudioError::Io(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            flawed = true;
            PlayCounts::default()
        }
        other => {
            let written = other.with_context(|| path.display().to_string())?;
            bar.finish_and_clear();
            output.finish_with(written.patch.as_ref())?;
            written.counts
        }
    };
    if counts.refused > 0 {
        eprintln!(
            "sn3: {}: {} packets were no frames of their codec and are silent",
            file.display(),
            counts.refused,
        );
    }
    Ok(Converted {
        flawed,
        duration_ms: plan.duration_ms(),
        summary: summary(path, &plan, container, &counts, flawed),
    })
}

/// The plan at the rate that the container takes.
fn plan_for(
    capture: &Capture,
    mut options: Options,
    container: Container,
) -> Result<Plan, AudioError> {
    // Only a WAV counts its bytes in 32 bits.
    options.any_length = container != Container::Wav;
    let plan = Plan::new(capture, &options)?;
    let rate_hz = container.rate_for(plan.rate_hz());
    if options.rate_hz.is_some() || rate_hz == plan.rate_hz() {
        return Ok(plan);
    }
    options.rate_hz = Some(rate_hz);
    Plan::new(capture, &options)
}

fn summary(
    output: &Path,
    plan: &Plan,
    container: Container,
    counts: &PlayCounts,
    flawed: bool,
) -> serde_json::Value {
    serde_json::json!({
        "output": output.display().to_string(),
        "format": container.extension(),
        "rate_hz": plan.rate_hz(),
        "samples": plan.samples(),
        "duration_ms": plan.duration_ms(),
        "channels": plan.channel_list().iter().map(|channel| serde_json::json!({
            "party": channel.party, "media": channel.media,
        })).collect::<Vec<_>>(),
        "packets": counts.decoded,
        "concealed": counts.concealed,
        "refused": counts.refused,
        "notes": plan.notes(),
        "damaged": flawed,
    })
}

fn bar(plan: &Plan, file: &Path) -> ProgressBar {
    if plan.duration_ms() < BAR_FROM_MS {
        return ProgressBar::hidden();
    }
    // Drawn only where the standard error is a terminal.
    let bar = ProgressBar::with_draw_target(Some(plan.samples()), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{msg} {wide_bar} {percent}% {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(file.display().to_string());
    bar
}
