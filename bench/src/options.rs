//! What all benchmarks take, and what each run needs of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use trunkline_rtpgen::wire::interrupted;

use crate::contestant::Stage;
use crate::place::{Place, Rig};
use crate::relay::Effort;
use crate::results::Results;
use crate::{aims, plot, table};

/// Options of every benchmark.
#[derive(Debug, Args)]
pub struct Options {
    /// Rounds of all contestants [default: 3, quick 2]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: Option<u8>,
    /// Shorter windows and fewer rounds: six minutes instead of twenty
    #[arg(long)]
    quick: bool,
    /// Use the loopback even where namespaces could be had
    #[arg(long)]
    loopback: bool,
    /// Only this rig [default: both]
    #[arg(long, value_enum)]
    pub rig: Option<Rig>,
    /// Two-way calls; each is two flows
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub calls: u32,
    /// Two-way calls of the run with many flows
    #[arg(long, default_value_t = 4_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub many: u32,
    /// Two-way calls of the run with the most flows
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub most: u32,
    /// Rate at which CPU a packet is measured, packets/s
    #[arg(long, default_value_t = 100_000.0, value_parser = positive)]
    rate: f64,
    /// Length of a window [default: 3, quick 1.2]
    #[arg(long, value_name = "SECONDS", value_parser = positive)]
    window: Option<f64>,
    /// Highest rate of a search, packets/s
    #[arg(long, default_value_t = 2_000_000.0, value_parser = positive)]
    search_to: f64,
    /// Highest rate of a search for call set-ups, calls/s
    #[arg(long, default_value_t = 20_000.0, value_parser = positive)]
    calls_to: f64,
    /// Idle calls of the run with many standing
    #[arg(long, default_value_t = 4_000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub standing: u32,
    /// Directory on the disk that recordings go to while they are measured
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    record_to: PathBuf,
    /// Where our release programs are [default: beside this one]
    #[arg(long)]
    programs: Option<PathBuf>,
    /// Where the results go as JSON; the plot goes beside it
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value.is_finite() => Ok(value),
        _ => Err("must be a number above 0".to_owned()),
    }
}

/// A run that has its place, and keeps its results even where it is cut short.
pub struct Session {
    /// Where.
    pub place: Place,
    /// Our programs.
    pub programs: PathBuf,
    /// Set by Ctrl-C.
    pub stop: Arc<AtomicBool>,
    /// How long and how often.
    pub effort: Effort,
    /// What is known so far.
    pub results: Results,
    calls: u32,
    record_to: PathBuf,
    json: Option<PathBuf>,
}

impl Options {
    /// Builds the place and checks that all programs are there.
    ///
    /// # Errors
    /// A program is missing.
    pub fn begin(&self, bench: &str, others: &[(&str, &str)]) -> Result<Session> {
        // Programs run in directories of their own: relative paths would lead elsewhere there.
        let absolute =
            |path: &Path| std::fs::canonicalize(path).with_context(|| path.display().to_string());
        let programs = match &self.programs {
            Some(programs) => absolute(programs)?,
            None => own_directory()?,
        };
        check_programs(&programs, others)?;
        let stop = interrupted();
        let effort = Effort {
            rounds: usize::from(self.rounds.unwrap_or(if self.quick { 2 } else { 3 })),
            window: Duration::from_secs_f64(self.window.unwrap_or(if self.quick {
                1.5
            } else {
                3.0
            })),
            rate: self.rate,
            search_to: self.search_to,
            calls_to: self.calls_to,
        };
        let (place, reason) = Place::build(self.loopback)?;
        let mut results = Results::new(bench, String::new());
        results.versions = others
            .iter()
            .filter_map(|(name, _)| version(name))
            .collect();
        if let Some(reason) = reason {
            results.note(format!(
                "Over the loopback ({reason}): sender, relay and sink share all work in the kernel, \
                 only callers send, packets are never frames, and neither rig nor CPU of the kernel is kept apart."
            ));
        }
        eprintln!("{bench}: {}", place.describe());
        Ok(Session {
            place,
            programs,
            stop,
            effort,
            results,
            calls: self.calls,
            record_to: absolute(&self.record_to)?,
            json: self.json.clone(),
        })
    }
}

impl Session {
    /// What contestants are started with.
    #[must_use]
    pub fn stage(&self) -> Stage<'_> {
        Stage {
            place: &self.place,
            calls: self.calls,
            programs: &self.programs,
            record_to: &self.record_to,
        }
    }

    /// Judges, prints, saves and draws what there is.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn finish(mut self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            self.results
                .note("Interrupted: later rounds are missing.".to_owned());
        }
        aims::judge(&mut self.results);
        print!("{}", table::of_run(&self.results));
        if let Some(json) = &self.json {
            self.results.save(json)?;
            plot::draw(&self.results, &json.with_extension("png"))?;
        }
        Ok(())
    }
}

/// Where this program is.
///
/// # Errors
/// The system does not tell.
pub fn own_directory() -> Result<PathBuf> {
    let own = std::env::current_exe().context("our own program")?;
    let directory = own.parent().context("a program without a directory")?;
    Ok(directory.to_owned())
}

fn check_programs(programs: &Path, others: &[(&str, &str)]) -> Result<()> {
    for name in ["trunkline-dataplane", "trunkline-control"] {
        let path = programs.join(name);
        if !path.is_file() {
            bail!("{} is missing: cargo xtask bench builds it", path.display());
        }
    }
    for (program, package) in others {
        if !on_path(program) {
            bail!("{program} is missing: Debian package {package} has it");
        }
    }
    Ok(())
}

/// Whether a program is on the PATH.
#[must_use]
pub fn on_path(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
    })
}

/// What a program says its version is, in its first line.
fn version(program: &str) -> Option<String> {
    let flag = if program == "rtpengine" {
        "--version"
    } else {
        "-v"
    };
    let output = std::process::Command::new(program)
        .arg(flag)
        .output()
        .ok()?;
    let said = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&said).into_owned();
    let line = text.lines().find(|line| line.contains(char::is_numeric))?;
    let number = line
        .split_whitespace()
        .find(|word| word.starts_with(|first: char| first.is_ascii_digit()))?;
    Some(format!("{program} {number}"))
}
