//! `systemd-analyze verify` over the units, with the programs that were just built.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{exists, target_dir, workspace_root};

const UNITS: [&str; 2] = ["trunkline-dataplane.service", "trunkline-control.service"];

/// Judges the units. Where systemd is missing it says so.
pub fn verify() -> Result<()> {
    if !exists("systemd-analyze") {
        println!("missing: systemd-analyze (Debian package systemd); the units are not checked");
        return Ok(());
    }
    let folder = target_dir().join("systemd-check");
    std::fs::create_dir_all(&folder).context("a folder for the units")?;
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["verify", "--man=no", "--recursive-errors=yes"]);
    for unit in UNITS {
        analyze.arg(prepared(unit, &folder)?);
    }
    println!("== systemd units");
    let output = analyze.output().context("systemd-analyze cannot start")?;
    let words = String::from_utf8_lossy(&output.stderr);
    eprint!("{words}");
    // Unknown keys are only warned of; a warning about one of ours is an error here.
    let ours = |line: &str| UNITS.iter().any(|unit| line.contains(unit));
    if !output.status.success() || words.lines().any(ours) {
        bail!("systemd units failed ({})", output.status);
    }
    Ok(())
}

/// A copy that starts the built program: verify insists on one that exists.
fn prepared(unit: &str, folder: &Path) -> Result<std::path::PathBuf> {
    let source = workspace_root().join("systemd").join(unit);
    let text = std::fs::read_to_string(&source).with_context(|| source.display().to_string())?;
    let programs = std::path::absolute(target_dir().join("debug"))?;
    let installed = "ExecStart=/usr/bin/";
    anyhow::ensure!(
        text.contains(installed),
        "{unit} starts no installed program"
    );
    let text = text.replace(installed, &format!("ExecStart={}/", programs.display()));
    let copy = folder.join(unit);
    std::fs::write(&copy, text).with_context(|| copy.display().to_string())?;
    Ok(copy)
}
