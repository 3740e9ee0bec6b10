//! The capture store: what a frame costs, how long a worker is held up, what the disk has to take, and
//! how fast recordings are found again.
//!
//! Sections, each by itself (`--only`): `append`, `stall`, `sustained`, `recovery`, `extraction`,
//! `calls`. What is shown for a section's rounds is least, median and greatest.

mod append;
mod calls;
mod disk;
mod extraction;
mod fill;
#[path = "../memory_relay/mod.rs"]
mod memory_relay;
mod recovery;
mod report;
mod stall;
mod store;
mod sustained;

use std::path::PathBuf;

use clap::Parser;
use report::Report;

/// What went wrong, in words.
pub type Outcome<T> = Result<T, String>;

/// Measures the capture store.
#[derive(Parser)]
#[command(after_help = "Example: store_bench --quick --only append,stall")]
pub struct Arguments {
    /// Smaller amounts: about two minutes altogether.
    #[arg(long)]
    quick: bool,
    /// The set that a call is extracted from, in gigabytes (1 if quick, else 8; 50 for the long form).
    #[arg(long)]
    set_gb: Option<u64>,
    /// These sections only.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Where segments are written: on the disk to be measured. Without it, beside this program.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Where the results go as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// How much of everything.
pub struct Amounts {
    pub rounds: usize,
    pub append_frames: u64,
    pub stall_s: u64,
    pub sustained_bytes: u64,
    pub recovery_bytes: u64,
    pub set_bytes: u64,
    pub call_s: u64,
    pub calls_packets: u64,
}

impl Amounts {
    fn of(arguments: &Arguments) -> Self {
        let quick = arguments.quick;
        let either = |quick_one: u64, other: u64| if quick { quick_one } else { other };
        Self {
            rounds: either(2, 5) as usize,
            append_frames: either(4_000_000, 20_000_000),
            stall_s: either(4, 15),
            sustained_bytes: either(512 << 20, 2 << 30),
            recovery_bytes: either(512 << 20, 2 << 30),
            set_bytes: arguments.set_gb.unwrap_or(either(1, 8)) << 30,
            call_s: either(600, 3600),
            calls_packets: either(5_000_000, 20_000_000),
        }
    }
}

type Section = fn(&Amounts, &std::path::Path, &mut Report) -> Outcome<()>;

const SECTIONS: &[(&str, Section)] = &[
    ("append", append::run),
    ("stall", stall::run),
    ("sustained", sustained::run),
    ("recovery", recovery::run),
    ("extraction", extraction::run),
    ("calls", calls::run),
];

fn main() {
    if let Err(error) = run(&Arguments::parse()) {
        eprintln!("store_bench: {error}");
        std::process::exit(1);
    }
}

fn run(arguments: &Arguments) -> Outcome<()> {
    let unknown = |name: &&String| !SECTIONS.iter().any(|(known, _)| *known == name.as_str());
    if let Some(name) = arguments.only.iter().find(unknown) {
        return Err(format!("no section {name}"));
    }
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let beside = program.parent().unwrap_or(std::path::Path::new("."));
    let place = arguments.directory.as_deref().unwrap_or(beside);
    let amounts = Amounts::of(arguments);
    let mut report = Report::new(arguments.quick);
    for (name, section) in SECTIONS {
        if !arguments.only.is_empty() && !arguments.only.iter().any(|only| only == name) {
            continue;
        }
        let directory = tempfile::Builder::new()
            .prefix("store-bench-")
            .tempdir_in(place)
            .map_err(|error| format!("{}: {error}", place.display()))?;
        println!("\n{name}");
        section(&amounts, directory.path(), &mut report)
            .map_err(|error| format!("{name}: {error}"))?;
    }
    report.conclude();
    match &arguments.json {
        Some(path) => report.save(path),
        None => Ok(()),
    }
}
