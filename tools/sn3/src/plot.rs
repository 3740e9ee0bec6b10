//! `sn3 plot`: each channel as waveform and spectrogram in a PNG.

mod canvas;
mod spectrum;

use crate::Outcome;
use crate::output::{Output, interrupted, spare_captures};
use crate::part::Part;
use crate::source::{Opened, Source, complain};
use anyhow::{Context, Result};
use canvas::{Canvas, Colour};
use spectrum::{BINS, Spectrum};
use std::path::PathBuf;
use trunkline_audio::{AudioError, Gap, Options, Plan, render_with_gaps};
use trunkline_codec::Format;

const MARGIN: usize = 8;
const WAVE_HEIGHT: usize = 96;
const STRIP_HEIGHT: usize = WAVE_HEIGHT + MARGIN + BINS + 2 * MARGIN;
const AXIS_HEIGHT: usize = 20;

const BACKGROUND: Colour = [255, 255, 255];
const FRAME: Colour = [200, 200, 200];
const WAVE: Colour = [31, 90, 160];
const LOSS: Colour = [220, 40, 40];
const PAUSE: Colour = [222, 222, 222];
const KEY: Colour = [20, 140, 60];
const TEXT: Colour = [60, 60, 60];

#[derive(clap::Args)]
#[command(after_help = "Example: sn3 plot call.sn3 -o call.png\n\n\
    For each channel, from above: the waveform, and the spectrogram up to half the sample rate.\n\
    Red: lost packets. Grey: the recording was paused. Green: a key was pressed. The axis is in\n\
    minutes and seconds after the first sample.")]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: Source,
    /// The PNG to write; - for the standard output.
    #[arg(short, long, value_name = "OUT.png")]
    output: PathBuf,
    /// Width of the picture in pixels.
    #[arg(long, value_name = "PIXELS", default_value_t = 1_600,
          value_parser = clap::value_parser!(u32).range(200..=16_000))]
    width: u32,
    /// The codec of a capture that does not name it.
    #[arg(long, value_name = "NAME", value_parser = crate::wav::parse_codec)]
    codec: Option<Format>,
    /// Put early media in front of the answer.
    #[arg(long)]
    early: bool,
    #[command(flatten)]
    part: Part,
    /// Print what was marked as JSON (on the standard output, unless the picture goes there).
    #[arg(long)]
    json: bool,
}

/// One channel, as wide as the picture.
struct Strip {
    /// Lowest and highest sample of each column.
    wave: Vec<(i16, i16)>,
    spectrum: Spectrum,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Outcome> {
    let capture = match arguments.source.open()? {
        Opened::Capture(capture) => capture,
        Opened::Listed(outcome) => return Ok(outcome),
    };
    let file = &arguments.source.file;
    spare_captures(&arguments.output)?;
    let damaged = complain(&capture, file);
    let mut options = Options {
        codec: arguments.codec,
        early: arguments.early,
        any_length: true,
        ..Options::default()
    };
    arguments.part.put_into(&mut options)?;
    let plan = Plan::new(&capture, &options).with_context(|| file.display().to_string())?;
    arguments.part.check(&plan, file)?;
    for note in plan.notes() {
        eprintln!("sn3: {}: {note}", file.display());
    }
    let columns = arguments.width as usize - 2 * MARGIN;
    let mut strips: Vec<Strip> = (0..plan.channels())
        .map(|_| Strip {
            wave: vec![(0, 0); columns],
            spectrum: Spectrum::new(columns, plan.samples()),
        })
        .collect();
    let mut position = 0_u64;
    let mut sink = |channels: &[Vec<i16>]| {
        for (strip, samples) in strips.iter_mut().zip(channels) {
            strip.take(samples, position, plan.samples());
        }
        position += channels.first().map_or(0, Vec::len) as u64;
        Ok::<(), AudioError>(())
    };
    let (_, gaps) = render_with_gaps(&capture, &plan, &mut sink, &mut |_, _| !interrupted())?;
    let canvas = draw(&plan, &strips, &gaps, arguments.width as usize);
    let mut output = Output::create(&arguments.output, file)?;
    canvas.write_png(&mut output)?;
    output.finish()?;
    if arguments.json && arguments.output.as_os_str() != "-" {
        say!("{}", serde_json::to_string_pretty(&as_json(&plan, &gaps))?);
    }
    let flawed = damaged || plan.nonsense().is_some() || plan.has_unsupported();
    Ok(if flawed {
        Outcome::Flawed
    } else {
        Outcome::Fine
    })
}

impl Strip {
    fn take(&mut self, samples: &[i16], position: u64, total: u64) {
        let columns = self.wave.len() as u64;
        for (&sample, at) in samples.iter().zip(position..) {
            let column = (u128::from(at) * u128::from(columns) / u128::from(total.max(1))) as usize;
            if let Some((low, high)) = self.wave.get_mut(column) {
                *low = (*low).min(sample);
                *high = (*high).max(sample);
            }
        }
        self.spectrum.take(samples);
    }
}

fn draw(plan: &Plan, strips: &[Strip], gaps: &[Gap], width: usize) -> Canvas {
    let height = strips.len() * STRIP_HEIGHT + AXIS_HEIGHT;
    let mut canvas = Canvas::new(width, height, BACKGROUND);
    let columns = width - 2 * MARGIN;
    let total = plan.samples().max(1);
    let column = |sample: i64| {
        let sample = sample.clamp(0, total as i64) as u128;
        MARGIN + (sample * columns as u128 / u128::from(total)) as usize
    };
    let at_ms = |ms: i64| column(ms.saturating_mul(i64::from(plan.rate_hz())) / 1_000);
    for (index, strip) in strips.iter().enumerate() {
        let top = index * STRIP_HEIGHT + MARGIN;
        for (from, to) in plan.pauses_ms() {
            let (left, right) = (at_ms(from), at_ms(to).max(at_ms(from) + 1));
            canvas.fill(left..right, top..top + WAVE_HEIGHT, PAUSE);
        }
        draw_wave(&mut canvas, strip, top);
        let below = top + WAVE_HEIGHT + MARGIN;
        strip.spectrum.draw(&mut canvas, MARGIN, below);
        for gap in gaps.iter().filter(|gap| gap.channel == index) {
            let left = column(gap.position);
            let right = column(gap.position + gap.samples).max(left + 1);
            canvas.fill(left..right, top..top + 6, LOSS);
            canvas.fill(left..right, below - MARGIN + 2..below - 2, LOSS);
        }
        for event in plan.events().iter().filter(|event| event.channel == index) {
            let left = at_ms(event.start_ms);
            let right = at_ms(event.start_ms + i64::from(event.duration_ms)).max(left + 2);
            canvas.fill(left..right, top + WAVE_HEIGHT - 6..top + WAVE_HEIGHT, KEY);
            let key = event.key.map_or("?".to_owned(), String::from);
            canvas.text(left, top + WAVE_HEIGHT - 20, &key, KEY);
        }
    }
    draw_axis(&mut canvas, plan, strips.len() * STRIP_HEIGHT, &at_ms);
    canvas
}

fn draw_wave(canvas: &mut Canvas, strip: &Strip, top: usize) {
    let half = WAVE_HEIGHT / 2;
    let line = top + half;
    let right = MARGIN + strip.wave.len();
    canvas.fill(MARGIN..right, line..line + 1, FRAME);
    for (index, &(low, high)) in strip.wave.iter().enumerate() {
        let scaled = |sample: i16| (i64::from(sample) * half as i64) / 32_768;
        let from = (line as i64 - scaled(high)) as usize;
        let to = (line as i64 - scaled(low)) as usize + 1;
        canvas.fill(MARGIN + index..MARGIN + index + 1, from..to, WAVE);
    }
}

/// Ticks at a round number of seconds, about one in 120 pixels.
fn draw_axis(canvas: &mut Canvas, plan: &Plan, top: usize, at_ms: &dyn Fn(i64) -> usize) {
    let seconds = plan.duration_ms() / 1_000;
    let wanted = seconds / (canvas.width() as u64 / 120).max(1);
    let steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600];
    let step = steps
        .into_iter()
        .find(|&step| step >= wanted)
        .unwrap_or(wanted.max(1));
    let mut at = 0;
    while at <= seconds {
        let x = at_ms(at as i64 * 1_000);
        canvas.fill(x..x + 1, top..top + 4, TEXT);
        let label = format!("{}:{:02}", at / 60, at % 60);
        // The last one stands before its tick rather than outside the picture.
        let right = canvas.width().saturating_sub(Canvas::text_width(&label));
        canvas.text((x + 3).min(right), top + 3, &label, TEXT);
        at += step;
    }
}

fn as_json(plan: &Plan, gaps: &[Gap]) -> serde_json::Value {
    let ms = |samples: i64| samples as f64 * 1e3 / f64::from(plan.rate_hz());
    serde_json::json!({
        "duration_ms": plan.duration_ms(),
        "rate_hz": plan.rate_hz(),
        "losses": gaps.iter().map(|gap| serde_json::json!({
            "channel": gap.channel,
            "start_ms": ms(gap.position),
            "duration_ms": ms(gap.samples),
        })).collect::<Vec<_>>(),
        "pauses": plan.pauses_ms().iter().map(|(from, to)| serde_json::json!({
            "from_ms": from, "to_ms": to,
        })).collect::<Vec<_>>(),
        "dtmf": plan.events().iter().map(crate::info::event_json).collect::<Vec<_>>(),
    })
}
