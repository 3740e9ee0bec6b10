//! `cargo xtask bench NAME`: builds a benchmark program in release, runs it, keeps its results.
//!
//! `relay`, `record`, `siprec` and `calls` are the harness (package `trunkline-bench`), which runs our release
//! programs as processes beside others. The rest are examples of the crate they measure, so that
//! nothing is built for them otherwise. Each takes `--json FILE` and prints its own table.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::command::{self, cargo, target_dir, workspace_root};

/// How a benchmark is run.
enum Program {
    /// A subcommand of the harness.
    Harness,
    /// An example of a package.
    Example {
        package: &'static str,
        example: &'static str,
    },
}

struct Bench {
    name: &'static str,
    program: Program,
    what: &'static str,
    /// Part of `all`.
    in_all: bool,
}

const BENCHES: &[Bench] = &[
    Bench {
        name: "relay",
        program: Program::Harness,
        what: "edge of loss, goodput, CPU a packet, latency, memory: ours, rtpengine, a bare loop",
        in_all: true,
    },
    Bench {
        name: "record",
        program: Program::Harness,
        what: "relay and capture: SN3 against rtpengine's pcap",
        in_all: true,
    },
    Bench {
        name: "siprec",
        program: Program::Harness,
        what: "relay with a copy of each packet to a recorder, and with that recorder gone",
        in_all: false,
    },
    Bench {
        name: "calls",
        program: Program::Harness,
        what: "call set-ups a second, latency, CPU and memory a call, beside Kamailio",
        in_all: true,
    },
    Bench {
        name: "convert",
        program: Program::Example {
            package: "trunkline-audio",
            example: "convert_bench",
        },
        what: "speed of making a WAV of a recording, in multiples of real time",
        in_all: true,
    },
    Bench {
        name: "worker",
        program: Program::Example {
            package: "trunkline-dataplane",
            example: "relay_bench",
        },
        what: "our devices and workers one by one: what each step of a packet costs",
        in_all: false,
    },
    Bench {
        name: "capture",
        program: Program::Example {
            package: "trunkline-dataplane",
            example: "capture_cost",
        },
        what: "capture's own cost of a packet, in a worker on a device of memory",
        in_all: false,
    },
    Bench {
        name: "store",
        program: Program::Example {
            package: "trunkline-dataplane",
            example: "store_bench",
        },
        what: "the capture store: append, stalls, MB/s, recovery, extraction, 10,000 calls",
        in_all: false,
    },
];

/// The release programs that the harness starts.
const MEASURED: &[&str] = &["trunkline-dataplane", "trunkline-control"];

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask bench relay --quick\n  cargo xtask bench all --quick\n  cargo xtask bench table\n  \
    cargo xtask bench worker --rounds 3\n  cargo xtask bench relay --help")]
pub struct Options {
    /// Which one, `all`, or `table` (README's tables from the recorded results); without a name,
    /// the list.
    name: Option<String>,
    /// Passed on to it.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Builds and runs one benchmark, or all; results go to `bench/results/NAME.json`.
pub fn run(options: &Options) -> Result<()> {
    match options.name.as_deref() {
        None => {
            for bench in BENCHES {
                println!("{:<10} {}", bench.name, bench.what);
            }
            println!("{:<10} relay, record, calls and convert", "all");
            println!("{:<10} README's tables from bench/results", "table");
            Ok(())
        }
        Some("table") => harness("table", &options.arguments),
        Some("all") => {
            for bench in BENCHES.iter().filter(|bench| bench.in_all) {
                // `--quick` and its like are the harness's.
                let arguments: &[String] = match bench.program {
                    Program::Harness => &options.arguments,
                    Program::Example { .. } => &[],
                };
                run_one(bench, arguments)?;
            }
            Ok(())
        }
        Some(name) => {
            let Some(bench) = BENCHES.iter().find(|bench| bench.name == name) else {
                let names: Vec<_> = BENCHES.iter().map(|bench| bench.name).collect();
                bail!("no benchmark {name}; there are {}", names.join(", "));
            };
            run_one(bench, &options.arguments)
        }
    }
}

fn run_one(bench: &Bench, arguments: &[String]) -> Result<()> {
    let results = workspace_root().join("bench/results");
    std::fs::create_dir_all(&results).context("bench/results")?;
    let mut arguments = arguments.to_vec();
    let own = |argument: &String| ["--json", "--help", "-h"].contains(&argument.as_str());
    if !arguments.iter().any(own) {
        let file = results.join(format!("{}.json", bench.name));
        arguments.extend(["--json".to_owned(), file.display().to_string()]);
    }
    match bench.program {
        Program::Harness => harness(bench.name, &arguments),
        Program::Example { package, example } => {
            build(&["--package", package, "--example", example])?;
            start(
                bench.name,
                target_dir().join("release/examples").join(example),
                &arguments,
            )
        }
    }
}

/// Runs a subcommand of the harness, with what it measures built.
pub fn harness(subcommand: &str, arguments: &[String]) -> Result<()> {
    let mut packages = vec!["--package", "trunkline-bench", "--bins"];
    if subcommand != "table" {
        packages.extend(MEASURED.iter().flat_map(|package| ["--package", package]));
    }
    build(&packages)?;
    let mut all = vec![subcommand.to_owned()];
    all.extend_from_slice(arguments);
    start(
        subcommand,
        target_dir().join("release/trunkline-bench"),
        &all,
    )
}

fn build(what: &[&str]) -> Result<()> {
    let arguments = [&["build", "--release", "--quiet"], what].concat();
    command::run("build", &mut cargo(&arguments))
}

fn start(name: &str, program: PathBuf, arguments: &[String]) -> Result<()> {
    let mut command = std::process::Command::new(program);
    command.args(arguments).current_dir(workspace_root());
    command::run(name, &mut command)
}
