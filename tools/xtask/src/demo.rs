//! `cargo demo`: builds the programs and runs `trunkline demo`.

use std::process::Command;

use anyhow::Result;

use crate::command::{cargo, run as run_command, target_dir};

/// Options of `cargo demo`.
#[derive(clap::Args)]
#[command(after_help = "Example: cargo demo")]
pub struct Options {
    /// Passed on to `trunkline demo`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Builds the release programs and runs the demo.
pub fn run(options: &Options) -> Result<()> {
    run_command("building", &mut cargo(&["build", "--release"]))?;
    run_command(
        "demo",
        Command::new(target_dir().join("release/trunkline"))
            .arg("demo")
            .args(&options.arguments),
    )
}
