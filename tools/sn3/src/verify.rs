//! `sn3 verify`.

use crate::Outcome;
use crate::source::place;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use trunkline_sn3::verify::{VerifyReport, verify};
use trunkline_sn3::{CaptureFormat, segment};

#[derive(clap::Args)]
#[command(after_help = "Example: sn3 verify trunkline-data/segments\n\n\
    Erased extents and recovered segments are whole. Damage is named with its byte offset,\n\
    exit code 1.")]
pub(crate) struct Arguments {
    /// Segments, directories of segments, calls' SN3, classic blobs.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Print the findings as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Outcome> {
    let mut outcome = Outcome::Fine;
    let mut findings = Vec::new();
    for file in expand(&arguments.files)? {
        match verify(&file) {
            Ok(report) => {
                if !report.is_whole() {
                    outcome = Outcome::Flawed;
                }
                if arguments.json {
                    findings.push(as_json(&file, &report));
                } else {
                    print(&file, &report);
                }
            }
            Err(error) => {
                outcome = Outcome::Flawed;
                eprintln!("sn3: {error}");
                findings.push(serde_json::json!({
                    "file": file.display().to_string(), "whole": false, "error": error.to_string(),
                }));
            }
        }
    }
    if arguments.json {
        say!("{}", serde_json::to_string_pretty(&findings)?);
    }
    Ok(outcome)
}

fn expand(files: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut expanded = Vec::new();
    for file in files {
        if file.is_dir() {
            let segments = segment::list(file).with_context(|| file.display().to_string())?;
            anyhow::ensure!(
                !segments.is_empty(),
                "{}: no segments in there",
                file.display()
            );
            expanded.extend(segments.into_iter().map(|(_, path)| path));
        } else {
            expanded.push(file.clone());
        }
    }
    Ok(expanded)
}

fn print(file: &Path, report: &VerifyReport) {
    let what = if report.format == CaptureFormat::Segment {
        let unfinished = if report.finished {
            ""
        } else {
            ", still being written"
        };
        format!(
            "segment {}, {} extents ({} erased, {} recovered), {} frames of {} recordings{unfinished}",
            report.segment,
            report.extents,
            report.erased,
            report.recovered,
            report.frames,
            report.recordings.len(),
        )
    } else {
        format!("{:?}, {} frames", report.format, report.frames)
    };
    for damage in &report.damages {
        eprintln!("sn3: {}", place(damage, file));
    }
    let judgement = if report.is_whole() {
        "whole"
    } else {
        "damaged"
    };
    say!("{}: {judgement}: {what}", file.display());
}

fn as_json(file: &Path, report: &VerifyReport) -> serde_json::Value {
    serde_json::json!({
        "file": file.display().to_string(),
        "whole": report.is_whole(),
        "format": format!("{:?}", report.format).to_lowercase(),
        "segment": report.segment,
        "extents": report.extents,
        "erased": report.erased,
        "recovered": report.recovered,
        "frames": report.frames,
        "recordings": report.recordings,
        "finished": report.finished,
        "damages": report.damages.iter().map(|damage| serde_json::json!({
            "offset": damage.offset, "length": damage.length, "what": damage.what,
        })).collect::<Vec<_>>(),
    })
}
