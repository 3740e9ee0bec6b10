//! A finished recording as a file of its own, for as long as a sink reads it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use trunkline_codec::Format;
use trunkline_hooks::{OutboxError, Payload, RecordingArtifact, RecordingFormat, RecordingRef};
use trunkline_sinks::library::Library;
use trunkline_sn3::Capture;

/// Makes artifacts.
#[derive(Debug)]
pub(super) struct Maker {
    library: Arc<Library>,
    folder: PathBuf,
    made: AtomicU64,
}

/// An exported capture; the file goes with it.
#[derive(Debug)]
struct Exported {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Payload for Exported {
    fn len(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }
}

impl Drop for Exported {
    fn drop(&mut self) {
        // What cannot be removed now is removed at the next start.
        let _ = fs::remove_file(&self.path);
    }
}

impl Maker {
    /// Copies that a killed process left in the folder are removed.
    pub(super) fn new(library: Arc<Library>, folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        for entry in fs::read_dir(folder)? {
            fs::remove_file(entry?.path())?;
        }
        Ok(Self {
            library,
            folder: folder.to_owned(),
            made: AtomicU64::new(0),
        })
    }

    /// The recording's SN3; empty when nothing of it is left.
    pub(super) fn make(&self, recording: &RecordingRef) -> Result<RecordingArtifact, OutboxError> {
        let exported = self.export(recording);
        let exported = exported.map_err(|error| OutboxError(format!("no artifact: {error}")))?;
        Ok(exported.unwrap_or_else(|| RecordingArtifact::without_payload(recording)))
    }

    fn export(&self, recording: &RecordingRef) -> io::Result<Option<RecordingArtifact>> {
        let catalog = &self.library.catalog;
        let stored = catalog
            .recording(&recording.recording)
            .map_err(io::Error::other)?;
        let Some(stored) = stored.filter(|stored| !stored.is_deleted()) else {
            return Ok(None);
        };
        let capture = self.library.capture(&stored).map_err(io::Error::other)?;
        let Some(capture) = capture else {
            return Ok(None);
        };
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let path = self
            .folder
            .join(format!("{}-{number}.sn3", recording.recording));
        let written = File::create_new(&path).and_then(|file| capture.export(&file));
        let opened = written.and_then(|_| {
            let file = File::open(&path)?;
            let bytes = file.metadata()?.len();
            Ok((file, bytes))
        });
        let (file, bytes) = opened.inspect_err(|_| {
            let _ = fs::remove_file(&path);
        })?;
        let (codec, sample_rate) = sound_of(&capture);
        let payload = Exported { path, file, bytes };
        Ok(Some(RecordingArtifact {
            recording: recording.recording.clone(),
            call_id: recording.call_id.clone(),
            format: RecordingFormat::Sn3,
            payload: Arc::new(payload),
            codec: match recording.codec.as_str() {
                "" => codec,
                known => known.to_owned(),
            },
            sample_rate,
            channels: 2,
        }))
    }
}

/// Codec of the caller's audio, and its sample rate once decoded; empty and 0 when unknown.
fn sound_of(capture: &Capture) -> (String, u32) {
    let facts = capture.facts();
    let leg = facts.leg_at(0, 0, u64::MAX);
    let payload = leg.and_then(|leg| {
        let audio = |codec: &str| !codec.eq_ignore_ascii_case("telephone-event");
        leg.payloads.iter().find(|payload| audio(&payload.codec))
    });
    let Some(payload) = payload else {
        return (String::new(), 0);
    };
    (
        payload.codec.clone(),
        sample_rate_hz(&payload.codec, payload.clock_hz, payload.channels),
    )
}

/// Samples a second of a codec once decoded; 0 when there is no decoder for it.
pub(crate) fn sample_rate_hz(codec: &str, clock_hz: u32, channels: u8) -> u32 {
    let format = Format::from_sdp(codec, clock_hz, channels.max(1));
    let decoder = format.and_then(|format| format.decoder().ok());
    decoder.map_or(0, |decoder| decoder.rate_hz())
}
