//! `cargo xtask instructions`: what a packet costs in instructions, against what was recorded.
//!
//! valgrind counts exactly and a busy machine does not change it, so this can be a test where time
//! cannot. Each workload runs twice, the second time with twice the packets: the difference is the
//! packets' own.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::command::{self, cargo, exists, target_dir, workspace_root};

/// A count may differ from the recorded one by so much: another compiler, another libc.
const TOLERANCE: f64 = 0.05;
const RECORDED: &str = "bench/instructions.json";

struct Workload {
    /// As recorded.
    name: &'static str,
    example: &'static str,
    arguments: &'static [&'static str],
    /// Given as the last argument; doubled in the second run.
    turns: u32,
    /// Packets of a turn.
    packets: u32,
}

const WORKLOADS: &[Workload] = &[
    Workload {
        name: "engine: relay a packet",
        example: "path_cost",
        arguments: &["relayed"],
        turns: 10,
        packets: 2_000,
    },
    Workload {
        name: "engine: relay and tap a packet",
        example: "path_cost",
        arguments: &["tapped"],
        turns: 10,
        packets: 2_000,
    },
    Workload {
        name: "capture: append a frame",
        example: "append",
        arguments: &[],
        turns: 20_000,
        packets: 1,
    },
];

/// Options of `cargo xtask instructions`.
#[derive(clap::Args)]
#[command(after_help = "Example: cargo xtask instructions --accept")]
pub struct Options {
    /// Record what is counted now as what is right.
    #[arg(long)]
    accept: bool,
}

/// Counts and compares: a step of `cargo xtask ci`.
pub fn check() -> Result<()> {
    println!("== instruction counts");
    run(&Options { accept: false })
}

/// Counts, and compares or records.
pub fn run(options: &Options) -> Result<()> {
    if !exists("valgrind") {
        println!("missing: Debian package valgrind; instructions are not counted");
        return Ok(());
    }
    command::run(
        "build",
        &mut cargo(&[
            "build",
            "--release",
            "--quiet",
            "--package",
            "trunkline-engine",
            "--package",
            "trunkline-sn3",
            "--example",
            "path_cost",
            "--example",
            "append",
        ]),
    )?;
    let mut counted = BTreeMap::new();
    for workload in WORKLOADS {
        let once = count(workload, workload.turns)?;
        let twice = count(workload, 2 * workload.turns)?;
        let packets = f64::from(workload.turns * workload.packets);
        let each = twice.saturating_sub(once) as f64 / packets;
        counted.insert(workload.name.to_owned(), (each * 10.0).round() / 10.0);
    }
    let path = workspace_root().join(RECORDED);
    if options.accept {
        let text = serde_json::to_string_pretty(&counted)? + "\n";
        std::fs::write(&path, text).context(RECORDED)?;
        println!("recorded in {RECORDED}: {counted:?}");
        return Ok(());
    }
    let text = std::fs::read_to_string(&path).context(RECORDED)?;
    let recorded: BTreeMap<String, f64> = serde_json::from_str(&text).context(RECORDED)?;
    compare(&recorded, &counted)
}

fn compare(recorded: &BTreeMap<String, f64>, counted: &BTreeMap<String, f64>) -> Result<()> {
    let mut wrong = Vec::new();
    for (name, count) in counted {
        let Some(before) = recorded.get(name) else {
            wrong.push(format!("{name}: {count} instructions, none recorded"));
            continue;
        };
        let change = count / before - 1.0;
        println!(
            "{name}: {count} instructions, recorded {before} ({:+.1} %)",
            change * 100.0
        );
        if change.abs() > TOLERANCE {
            wrong.push(format!("{name}: {before} recorded, {count} counted"));
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    bail!(
        "instruction counts moved by more than {:.0} %:\n  {}\n\
         If the change is worth it, record it: cargo xtask instructions --accept",
        TOLERANCE * 100.0,
        wrong.join("\n  ")
    )
}

fn count(workload: &Workload, turns: u32) -> Result<u64> {
    let program = target_dir().join("release/examples").join(workload.example);
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(workload.arguments)
        .arg(turns.to_string())
        .stdin(Stdio::null())
        .output()
        .context("valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!(
            "{} under valgrind: {}\n{said}",
            workload.example,
            output.status
        );
    }
    collected(&said).with_context(|| format!("valgrind gave no count:\n{said}"))
}

/// The number in `==1234== Collected : 56789`.
fn collected(said: &str) -> Option<u64> {
    let line = said.lines().find(|line| line.contains("Collected :"))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(of: &[(&str, f64)]) -> BTreeMap<String, f64> {
        of.iter()
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect()
    }

    #[test]
    fn a_moved_count_fails_and_says_how_to_accept_it() {
        let recorded = counts(&[("relay", 500.0), ("append", 200.0)]);
        assert!(compare(&recorded, &counts(&[("relay", 510.0), ("append", 191.0)])).is_ok());
        let error = compare(&recorded, &counts(&[("relay", 600.0)]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("500 recorded, 600 counted"), "{error}");
        assert!(error.contains("--accept"), "{error}");
        assert!(compare(&recorded, &counts(&[("new", 1.0)])).is_err());
    }

    #[test]
    fn valgrinds_count_is_read() {
        let said = "==7== Events    : Ir\n==7== Collected : 123456\n==7== \n";
        assert_eq!(collected(said), Some(123_456));
        assert_eq!(collected("==7== killed"), None);
    }
}
