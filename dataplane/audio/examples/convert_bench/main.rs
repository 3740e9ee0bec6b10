//! How fast and in how much memory a call becomes a WAV, beside ffmpeg and sox with the same
//! payloads: two-way G.711, G.722 and Opus, one hour each, on one core.
//!
//! Every contestant is a process of its own; CPU time is that of the process (user and system),
//! memory the highest anonymous resident set seen every 2 ms (files read by mmap are not in it).

mod inputs;

use clap::Parser;
use inputs::{Codec, Inputs};
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use trunkline_audio::{Options, Plan, write_wav};
use trunkline_codec::Format;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Measures sn3 wav, ffmpeg and sox.
#[derive(Parser)]
#[command(after_help = "Example: cargo xtask bench convert -- --minutes 10")]
struct Arguments {
    /// Length of the calls.
    #[arg(long, default_value_t = 60)]
    minutes: u32,
    /// Runs of each contestant; the fastest counts.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Write the results here.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Convert this capture and do nothing else (what the benchmark starts itself with).
    #[arg(long, num_args = 3, value_names = ["SN3", "WAV", "CODEC"], hide = true)]
    convert: Option<Vec<String>>,
}

/// One contestant's best run.
struct Measured {
    wall: Duration,
    cpu: Duration,
    anonymous_kib: u64,
}

fn main() -> Outcome<()> {
    let arguments = Arguments::parse();
    if let Some([capture, wav, codec]) = arguments.convert.as_deref() {
        return convert(capture.as_ref(), wav.as_ref(), codec);
    }
    let directory = tempfile::tempdir()?;
    let mut rows = Vec::new();
    println!(
        "{:<6} {:<8} {:>12} {:>12} {:>14}",
        "codec", "program", "x real time", "CPU s", "anonymous MiB"
    );
    for codec in [Codec::G711, Codec::G722, Codec::Opus] {
        let inputs = match Inputs::create(codec, arguments.minutes, directory.path()) {
            Ok(inputs) => inputs,
            Err(error) => {
                println!("{:<6} left out: {error}", codec.name());
                continue;
            }
        };
        let contestants = [
            ("sn3", Some(own_command(&inputs)?)),
            ("ffmpeg", Some(inputs.ffmpeg())),
            ("sox", inputs.sox()),
        ];
        for (program, command) in contestants {
            let Some(command) = command else { continue };
            let measured = match best(&command, arguments.rounds) {
                Ok(measured) => measured,
                Err(error) => {
                    println!("{:<6} {program:<8} left out: {error}", codec.name());
                    continue;
                }
            };
            rows.push(row(codec.name(), program, arguments.minutes, &measured));
        }
    }
    if let Some(file) = arguments.json {
        let results =
            json!({ "benchmark": "convert", "minutes": arguments.minutes, "results": rows });
        std::fs::write(file, serde_json::to_string_pretty(&results)? + "\n")?;
    }
    Ok(())
}

/// The contestant of ours.
fn convert(capture: &Path, wav: &Path, codec: &str) -> Outcome<()> {
    let capture = trunkline_sn3::Capture::open(capture)?;
    let options = Options {
        codec: Format::from_sdp(codec, 0, 0),
        ..Options::default()
    };
    let plan = Plan::new(&capture, &options)?;
    let file = std::fs::File::create(wav)?;
    let mut output = std::io::BufWriter::with_capacity(256 * 1024, file);
    write_wav(&capture, &plan, &mut output, &mut |_, _| true)?;
    Ok(())
}

fn own_command(inputs: &Inputs) -> Outcome<Vec<String>> {
    let program = std::env::current_exe()?.display().to_string();
    let [capture, wav] = [&inputs.capture, &inputs.output].map(|path| path.display().to_string());
    let codec = inputs.codec.kind().name().to_owned();
    Ok(vec![program, "--convert".to_owned(), capture, wav, codec])
}

fn row(codec: &str, program: &str, minutes: u32, measured: &Measured) -> Value {
    let seconds = f64::from(minutes) * 60.0;
    let times = seconds / measured.cpu.as_secs_f64().max(1e-9);
    println!(
        "{codec:<6} {program:<8} {times:>12.0} {:>12.2} {:>14.1}",
        measured.cpu.as_secs_f64(),
        measured.anonymous_kib as f64 / 1024.0,
    );
    json!({
        "codec": codec,
        "program": program,
        "times_real_time": times.round(),
        "cpu_s": measured.cpu.as_secs_f64(),
        "wall_s": measured.wall.as_secs_f64(),
        "anonymous_peak_kib": measured.anonymous_kib,
    })
}

fn best(command: &[String], rounds: u32) -> Outcome<Measured> {
    let mut best: Option<Measured> = None;
    for _ in 0..rounds.max(1) {
        let measured = measure(command)?;
        if best.as_ref().is_none_or(|best| measured.cpu < best.cpu) {
            best = Some(measured);
        }
    }
    best.ok_or_else(|| "no rounds".into())
}

fn measure(command: &[String]) -> Outcome<Measured> {
    let before = children_cpu()?;
    let begun = Instant::now();
    let mut child = Command::new(&command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()?;
    let mut anonymous_kib = 0;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        anonymous_kib = anonymous_kib.max(anonymous_of(child.id()));
        std::thread::sleep(Duration::from_millis(2));
    };
    if !status.success() {
        return Err(format!("{} failed: {status}", command[0]).into());
    }
    let wall = begun.elapsed();
    Ok(Measured {
        wall,
        cpu: children_cpu()?.saturating_sub(before),
        anonymous_kib,
    })
}

fn children_cpu() -> Outcome<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let (user, system) = (usage.user_time(), usage.system_time());
    let micros = (user.tv_sec() + system.tv_sec()) * 1_000_000 + user.tv_usec() + system.tv_usec();
    Ok(Duration::from_micros(micros.try_into()?))
}

fn anonymous_of(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}
