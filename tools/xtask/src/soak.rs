//! `cargo xtask soak`: the long form of the test that kills processes under load.

use anyhow::Result;
use clap::Args;

use crate::command::{cargo, run as run_command};

/// How long it goes on.
#[derive(Args)]
#[command(after_help = "Example: cargo xtask soak --kills 20 --seed 5")]
pub struct Options {
    /// Kills altogether: half with each writer of segments.
    #[arg(long, default_value_t = 200)]
    kills: u64,
    /// Chooses whom and when; a failed run is repeated with its seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs the test with these numbers.
pub fn run(options: &Options) -> Result<()> {
    let mut test = cargo(&[
        "test",
        "--package",
        "trunkline-tests",
        "--test",
        "soak",
        "--",
        "--nocapture",
        "--test-threads=1",
    ]);
    test.env("SOAK_KILLS", options.kills.div_ceil(2).to_string());
    test.env("SOAK_SEED", options.seed.to_string());
    run_command("soak", &mut test)
}
