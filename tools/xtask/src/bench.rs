//! `cargo xtask bench NAME`: builds a benchmark program in release, runs it, keeps its results.
//!
//! The programs are examples of the crate they measure, so that nothing is built for them
//! otherwise. Each takes `--json FILE` and prints its own table.

use anyhow::{Context, Result, bail};

use crate::command::{self, cargo, target_dir, workspace_root};

/// A benchmark: its name, the package and example that is it, and what it shows.
const BENCHES: &[(&str, &str, &str, &str)] = &[
    (
        "relay",
        "trunkline-dataplane",
        "relay_bench",
        "CPU per relayed packet and packets/s, against a bare epoll loop",
    ),
    (
        "convert",
        "trunkline-audio",
        "convert_bench",
        "speed of making a WAV of a recording, in multiples of real time",
    ),
];

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
#[command(after_help = "Example: cargo xtask bench relay -- --rounds 3")]
pub struct Options {
    /// Which one; without a name, the list.
    name: Option<String>,
    /// Passed on to it (`-- --help` shows what it takes).
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Builds and runs one benchmark; its results go to `bench/results/NAME.json`.
pub fn run(options: &Options) -> Result<()> {
    let Some(name) = &options.name else {
        for (name, _, _, what) in BENCHES {
            println!("{name:<10} {what}");
        }
        return Ok(());
    };
    let Some((name, package, example, _)) = BENCHES.iter().find(|bench| bench.0 == name) else {
        let names: Vec<_> = BENCHES.iter().map(|bench| bench.0).collect();
        bail!("no benchmark {name}; there are {}", names.join(", "));
    };
    command::run(
        "build",
        &mut cargo(&[
            "build",
            "--release",
            "--quiet",
            "--package",
            package,
            "--example",
            example,
        ]),
    )?;
    let results = workspace_root().join("bench/results");
    std::fs::create_dir_all(&results).context("bench/results")?;
    let program = target_dir().join("release/examples").join(example);
    let mut command = std::process::Command::new(program);
    command
        .args(&options.arguments)
        .current_dir(workspace_root());
    if !options
        .arguments
        .iter()
        .any(|a| a == "--json" || a == "--help" || a == "-h")
    {
        command
            .arg("--json")
            .arg(results.join(format!("{name}.json")));
    }
    command::run(name, &mut command)
}
