//! `trunkline siprec`: recording sessions of a running appliance; a recorder or a client tried out.

mod dialect;
mod net;
mod probe;
mod report;

use crate::operate;
use anyhow::Result;
use std::process::ExitCode;

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(flatten)]
    list: operate::ListOptions,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Try a recorder: a recording session of two tones, and a report of what it makes of it.
    ///
    /// Needs no appliance. Each step passes, is warned of or fails, with the section of the RFC it is
    /// about. Exit code 1 when one fails. Ctrl-C ends the session with BYE, and reports.
    #[command(after_help = "Example: trunkline siprec probe 'sip:srs.example;transport=tcp'")]
    Probe(probe::Options),
    /// Be a recorder for one session, and tell how its client writes: which maker's, with which
    /// deviations, who is bound to which line, and what was heard.
    #[command(after_help = "Example: trunkline siprec dialect --listen 192.0.2.1:5060")]
    Dialect(dialect::Options),
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    match &options.command {
        None => operate::siprec(&options.list),
        Some(Command::Probe(options)) => probe::run(options),
        Some(Command::Dialect(options)) => dialect::run(options),
    }
}
