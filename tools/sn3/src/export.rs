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
    /// Print what was written as JSON (unless the SN3 goes to the standard output).
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Outcome> {
    let capture = match arguments.source.open()? {
        Opened::Capture(capture) => capture,
        Opened::Listed(outcome) => return Ok(outcome),
    };
    let file = &arguments.source.file;
    let damaged = complain(&capture, file);
    let mut output = Output::create(&arguments.output, file)?;
    let totals = capture
        .export(&mut output)
        .with_context(|| arguments.output.display().to_string())?;
    output.finish()?;
    if arguments.json && arguments.output.as_os_str() != "-" {
        let text = serde_json::json!({
            "output": arguments.output.display().to_string(),
            "recording": capture.facts().recording,
            "frames": totals.frames,
            "bytes": totals.bytes,
            "damaged": damaged,
        });
        say!("{}", serde_json::to_string_pretty(&text)?);
    }
    Ok(if damaged {
        Outcome::Flawed
    } else {
        Outcome::Fine
    })
}
