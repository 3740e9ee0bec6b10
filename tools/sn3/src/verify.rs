//! `sn3 verify`.

use crate::Outcome;
use crate::source::place;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use trunkline_sn3::evidence::{self, EvidenceReport};
use trunkline_sn3::verify::{VerifyReport, verify};
use trunkline_sn3::{Bytes, CaptureFormat, Damage, segment};

#[derive(clap::Args)]
#[command(after_help = "Example: sn3 verify trunkline-data/segments\n\n\
    Erased extents and recovered segments are whole. Damage is named with its byte offset,\n\
    exit code 1.")]
pub(crate) struct Arguments {
    /// Segments, directories of segments, calls' SN3, classic blobs, evidence archives.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The public key that must have signed evidence archives, 64 hexadecimal digits.
    #[arg(long, value_name = "HEX")]
    public_key: Option<String>,
    /// Print the findings as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Outcome> {
    let mut outcome = Outcome::Fine;
    let mut findings = Vec::new();
    for file in expand(&arguments.files)? {
        let checked = if is_evidence(&file) {
            evidence::verify(&file, arguments.public_key.as_deref()).map(Checked::Evidence)
        } else {
            verify(&file).map(Checked::Capture)
        };
        match checked {
            Ok(checked) => {
                if !checked.damages().is_empty() {
                    outcome = Outcome::Flawed;
                }
                if arguments.json {
                    findings.push(checked.as_json(&file));
                } else {
                    checked.print(&file);
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

/// A report of either kind.
enum Checked {
    Capture(VerifyReport),
    Evidence(EvidenceReport),
}

impl Checked {
    fn damages(&self) -> &[Damage] {
        match self {
            Self::Capture(report) => &report.damages,
            Self::Evidence(report) => &report.damages,
        }
    }

    fn print(&self, file: &Path) {
        for damage in self.damages() {
            eprintln!("sn3: {}", place(damage, file));
        }
        let judgement = if self.damages().is_empty() {
            "whole"
        } else {
            "damaged"
        };
        let what = match self {
            Self::Capture(report) => describe(report),
            Self::Evidence(report) => describe_evidence(report),
        };
        say!("{}: {judgement}: {what}", file.display());
    }

    fn as_json(&self, file: &Path) -> serde_json::Value {
        let mut value = match self {
            Self::Capture(report) => as_json(report),
            Self::Evidence(report) => serde_json::json!({
                "format": "evidence",
                "recording_id": report.recording_id,
                "key_withheld": report.key_withheld,
                "chain_head": report.chain_head,
                "signed_by": report.signed_by,
                "receipt_signed_by": report.receipt_signed_by,
                "segment": report.segment.as_ref().map(as_json),
            }),
        };
        value["file"] = file.display().to_string().into();
        value["whole"] = self.damages().is_empty().into();
        value["damages"] = self
            .damages()
            .iter()
            .map(|damage| {
                serde_json::json!({
                    "offset": damage.offset, "length": damage.length, "what": damage.what,
                })
            })
            .collect();
        value
    }
}

fn is_evidence(file: &Path) -> bool {
    // A pipe can be read once only, and what it holds is looked at by whoever reads it.
    file.is_file() && Bytes::open(file).is_ok_and(|bytes| evidence::looks_like_evidence(&bytes))
}

fn describe_evidence(report: &EvidenceReport) -> String {
    let extents = report.segment.as_ref().map_or(0, |segment| segment.extents);
    let chain = match &report.chain_head {
        Some(head) => format!("hash chain ends with {head}"),
        None => "no hash chain".to_owned(),
    };
    let signed = match &report.signed_by {
        Some(key) => format!("signed by {key}"),
        None => "not signed".to_owned(),
    };
    let sealed = match report.key_withheld {
        true => " (encrypted, without their key)",
        false => "",
    };
    format!(
        "evidence of recording {}, {extents} extents{sealed}, {chain}, {signed}",
        report.recording_id
    )
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

fn describe(report: &VerifyReport) -> String {
    if report.format == CaptureFormat::Segment {
        let unfinished = if report.finished {
            ""
        } else {
            ", still being written"
        };
        format!(
            "segment {}, {} extents ({} erased, {} recovered, {} chained), {} frames of {} recordings{unfinished}",
            report.segment,
            report.extents,
            report.erased,
            report.recovered,
            report.chained,
            report.frames,
            report.recordings.len(),
        )
    } else {
        format!("{:?}, {} frames", report.format, report.frames)
    }
}

fn as_json(report: &VerifyReport) -> serde_json::Value {
    serde_json::json!({
        "format": format!("{:?}", report.format).to_lowercase(),
        "segment": report.segment,
        "extents": report.extents,
        "erased": report.erased,
        "recovered": report.recovered,
        "chained": report.chained,
        "frames": report.frames,
        "recordings": report.recordings,
        "finished": report.finished,
    })
}
