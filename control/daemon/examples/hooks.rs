//! The control process with hooks of its own: every callback becomes a line of JSON, the sound of
//! calls becomes raw PCM files (16 bit, little-endian, mono).
//!
//! ```sh
//! cargo run -p trunkline-control --example hooks -- --config trunkline.toml
//! ```
//! The dataplane runs beside it with the same file (`trunkline-dataplane --config trunkline.toml`).
//! `HOOKS_DIR` says where lines (`hooks.jsonl`) and sound go; without it the working directory.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use trunkline_config::Config;
use trunkline_control::Appliance;
use trunkline_hooks::{
    CallMeta, FinishError, HangupMeta, LifecycleSink, RecordingArtifact, RecordingChannel,
    RecordingResult, RecordingSink,
};

struct Journal {
    folder: PathBuf,
    lines: Mutex<File>,
}

impl Journal {
    fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("hooks.jsonl");
        let lines = OpenOptions::new().create(true).append(true).open(&path);
        Ok(Self {
            folder: folder.to_owned(),
            lines: Mutex::new(lines.with_context(|| path.display().to_string())?),
        })
    }

    fn note(&self, line: &Value) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = writeln!(lines, "{line}") {
            eprintln!("hooks: a line is lost: {error}");
        }
    }
}

impl LifecycleSink for Journal {
    fn on_ringing(&self, meta: &CallMeta) {
        self.note(&json!({ "on": "ringing", "leg": meta }));
    }

    fn on_established(&self, meta: &CallMeta) {
        self.note(&json!({ "on": "established", "leg": meta }));
    }

    fn on_transfer_started(&self, meta: &CallMeta, target_uri: &str) {
        self.note(&json!({ "on": "transfer_started", "leg": meta, "target": target_uri }));
    }

    fn on_bridge_started(&self, inbound_call_id: &str, outbound_call_id: &str) {
        let ids = json!({ "inbound": inbound_call_id, "outbound": outbound_call_id });
        self.note(&json!({ "on": "bridge_started", "call_ids": ids }));
    }

    fn on_bye(&self, meta: &CallMeta, hangup: &HangupMeta, recording: &RecordingArtifact) {
        let bytes = recording.payload.len();
        self.note(&json!({ "on": "bye", "leg": meta, "hangup": hangup, "bytes": bytes }));
    }

    fn on_failed(&self, meta: &CallMeta, hangup: &HangupMeta) {
        self.note(&json!({ "on": "failed", "leg": meta, "hangup": hangup }));
    }
}

impl RecordingSink for Journal {
    fn begin_recording(&self, meta: &CallMeta, sample_rate: u32, codec: &str) -> bool {
        let sound = json!({ "rate_hz": sample_rate, "codec": codec });
        self.note(&json!({ "on": "begin_recording", "leg": meta, "sound": sound }));
        true
    }

    fn append_pcm(&self, call_id: &str, channel: RecordingChannel, pcm: &[u8]) {
        let safe: String = call_id
            .chars()
            .map(|one| {
                if one.is_ascii_alphanumeric() {
                    one
                } else {
                    '_'
                }
            })
            .collect();
        let path = self.folder.join(format!("{safe}.{channel:?}.pcm"));
        let appended = OpenOptions::new().create(true).append(true).open(&path);
        if let Err(error) = appended.and_then(|mut file| file.write_all(pcm)) {
            eprintln!("hooks: {}: {error}", path.display());
        }
    }

    fn finish_recording(
        &self,
        artifact: &RecordingArtifact,
        _deadline: Instant,
    ) -> Result<RecordingResult, FinishError> {
        let mut begin = [0; 4];
        let read = artifact.payload.read_at(0, &mut begin);
        read.map_err(|error| FinishError::new(error.to_string()))?;
        self.note(&json!({
            "on": "finish_recording",
            "call_id": artifact.call_id,
            "bytes": artifact.payload.len(),
            "begins": String::from_utf8_lossy(&begin),
            "codec": artifact.codec,
            "rate_hz": artifact.sample_rate,
        }));
        Ok(RecordingResult {
            bytes: Some(artifact.payload.len()),
            ..RecordingResult::default()
        })
    }
}

fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let mut arguments = std::env::args().skip(1);
    let config = match (arguments.next().as_deref(), arguments.next()) {
        (Some("--config"), Some(path)) => Config::load(path.as_ref())?,
        (None, None) => Config::default(),
        _ => anyhow::bail!("usage: hooks [--config FILE]"),
    };
    let folder = std::env::var_os("HOOKS_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from);
    let journal = Arc::new(Journal::open(&folder)?);
    Appliance::new(config)
        .lifecycle_sink("journal", journal.clone())?
        .recording_sink("journal", journal)?
        .run()
}
