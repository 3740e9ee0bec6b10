//! `sn3 export`.

use crate::Outcome;
use crate::output::Output;
use crate::source::{Opened, Source, complain};
use anyhow::{Context, Result};
use std::path::PathBuf;

#[derive(clap::Args)]
#[command(
    after_help = "Example: sn3 export w0-00000001.sn3s --recording 7 -o call.sn3\n\n\
    Classic readers play the result; everything else travels in frames that they skip."
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: Source,
    /// The SN3 to write; - for the standard output.
    #[arg(short, long, value_name = "OUT.sn3")]
    output: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Outcome> {
    let capture = match arguments.source.open()? {
        Opened::Capture(capture) => capture,
        Opened::Listed(outcome) => return Ok(outcome),
    };
    let damaged = complain(&capture, &arguments.source.file);
    let mut output = Output::create(&arguments.output)?;
    capture
        .export(&mut output)
        .with_context(|| arguments.output.display().to_string())?;
    output.finish()?;
    Ok(if damaged {
        Outcome::Flawed
    } else {
        Outcome::Fine
    })
}
