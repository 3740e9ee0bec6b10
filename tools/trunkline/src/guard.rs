//! Starts a program so that it ends when its starter is killed, however that happens.
//!
//! A process can only ask for this itself, so the starter runs this command, which asks the kernel,
//! looks whether the starter still lives, and becomes the program. What the kernel was asked for
//! outlasts that.

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

/// Name of the hidden command.
pub(crate) const COMMAND: &str = "guarded";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Process id of the starter.
    starter: i32,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    program: Vec<OsString>,
}

/// The command line that runs `program` guarded by this process. It must be spawned by a thread
/// that lives as long as the process: the kernel takes that thread's end for the starter's.
pub(crate) fn command(program: &Path, arguments: &[OsString]) -> Result<Command> {
    let own = std::env::current_exe().context("the own program cannot be found")?;
    let mut command = Command::new(own);
    command
        .arg(COMMAND)
        .arg(std::process::id().to_string())
        .arg(program)
        .args(arguments);
    // A group of its own: Ctrl-C at a terminal then reaches the starter only, which passes it on in order.
    command.process_group(0);
    Ok(command)
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("PR_SET_PDEATHSIG")?;
    // The starter may have died before the kernel was asked.
    if nix::unistd::getppid().as_raw() != options.starter {
        bail!("the process that started this one is gone");
    }
    let (program, arguments) = options.program.split_first().context("no program")?;
    let error = Command::new(program).args(arguments).exec();
    bail!("{}: {error}", Path::new(program).display())
}
