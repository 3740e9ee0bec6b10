//! `cargo xtask flood`: the long form of the test that throws mutated messages at the control.

use anyhow::Result;
use clap::Args;

use crate::command::{cargo, run as run_command};

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
    let mut test = cargo(&[
        "test",
        "--package",
        "trunkline-tests",
        "--test",
        "flood",
        "--",
        "--nocapture",
    ]);
    test.env("FLOOD_MESSAGES", options.messages.to_string());
    test.env("FLOOD_PER_SECOND", options.per_second.to_string());
    run_command("flood", &mut test)
}
