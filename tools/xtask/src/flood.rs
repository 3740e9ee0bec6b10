//! `cargo xtask flood`: the long form of the test that throws mutated messages at the control, against the
//! release programs.

use anyhow::Result;
use clap::Args;

use crate::command::{cargo, run as run_command, target_dir};

/// The programs that run.
const PROGRAMS: [&str; 4] = [
    "trunkline",
    "trunkline-control",
    "trunkline-dataplane",
    "trunkline-rtpgen",
];

/// How much to throw.
#[derive(Args)]
pub struct Options {
    /// Messages altogether.
    #[arg(long, default_value_t = 1_000_000)]
    messages: u64,
    /// Messages a second.
    #[arg(long, default_value_t = 8_000)]
    per_second: u64,
}

/// Runs the test with these numbers.
pub fn run(options: &Options) -> Result<()> {
    let mut build = cargo(&["build", "--release", "--quiet", "--bins"]);
    for package in PROGRAMS {
        build.args(["--package", package]);
    }
    run_command("programs", &mut build)?;
    let mut test = cargo(&[
        "test",
        "--package",
        "trunkline-tests",
        "--test",
        "flood",
        "--",
        "--nocapture",
    ]);
    test.env("TRUNKLINE_BIN_DIR", target_dir().join("release"));
    test.env("FLOOD_MESSAGES", options.messages.to_string());
    test.env("FLOOD_PER_SECOND", options.per_second.to_string());
    run_command("flood", &mut test)
}
