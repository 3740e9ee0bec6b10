//! Finished recordings as sinks and the API read them: the entry, what belongs to it, the frames.

use crate::Timestamp;
use crate::catalog::{CatalogError, CatalogHandle, CdrFilter, StoredCopy, StoredRecording};
use crate::cdr::Cdr;
use crate::object::Call;
use serde_json::Value;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use trunkline_audio::{AudioError, Options, Plan, write_wav};
use trunkline_sn3::evidence::{Evidence, KeyChoice};
use trunkline_sn3::proof::Signer;
use trunkline_sn3::{Capture, CaptureError, Keys};

/// Records of one call that are looked at.
const RECORDS_MAX: usize = 1000;
/// A call's final records follow its recording: they are waited for as long as this.
const RECORDS_PATIENCE: Duration = Duration::from_secs(1);
/// A call that ended longer ago has all the records that it will ever have.
const RECENT_MS: u64 = 10_000;

/// A recording and what belongs to it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The recording, with its place.
    pub stored: StoredRecording,
    /// Its call, where it is known.
    pub call: Option<Call>,
    /// The call's final records, the inbound leg's first.
    pub cdrs: Vec<Cdr>,
}

/// Reads recordings.
#[derive(Debug, Clone)]
pub struct Library {
    /// The entries.
    pub catalog: CatalogHandle,
    /// Where the frames are.
    pub segments: PathBuf,
    /// For archives while they are put together.
    pub scratch: PathBuf,
    /// Decrypt what is encrypted.
    pub keys: Arc<Keys>,
    /// Signs evidence, where a key is configured.
    pub signer: Option<Arc<Signer>>,
}

impl Library {
    /// A recording that is not deleted, with what belongs to it.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn entry(&self, id: &str) -> Result<Option<Entry>, CatalogError> {
        let stored = self.catalog.recording(id)?;
        let Some(stored) = stored.filter(|stored| !stored.is_deleted()) else {
            return Ok(None);
        };
        self.entry_of(stored).map(Some)
    }

    /// What belongs to a recording.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn entry_of(&self, stored: StoredRecording) -> Result<Entry, CatalogError> {
        let call = self.catalog.call(&stored.recording.call_id)?;
        let cdrs = self.records(&stored.recording.call_id, call.as_ref())?;
        Ok(Entry { stored, call, cdrs })
    }

    fn records(&self, call_id: &str, call: Option<&Call>) -> Result<Vec<Cdr>, CatalogError> {
        let ended = call.filter(|call| call.state.is_final());
        let recent = ended.is_some_and(|call| {
            let ended_at = call.ended_at.unwrap_or(call.started_at);
            Timestamp::now().ms_since(ended_at) < RECENT_MS
        });
        let legs = ended.map_or(0, |call| call.legs.len());
        let filter = CdrFilter {
            call_id: Some(call_id.to_owned()),
            ..CdrFilter::default()
        };
        let deadline = Instant::now() + RECORDS_PATIENCE;
        loop {
            let mut records = self.catalog.list_cdrs(&filter, None, RECORDS_MAX)?.items;
            if records.len() >= legs || !recent || Instant::now() >= deadline {
                records.sort_by_key(|record| record.attempt);
                return Ok(records);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether the recording was deleted meanwhile.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn is_gone(&self, id: &str) -> Result<bool, CatalogError> {
        let stored = self.catalog.recording(id)?;
        Ok(stored.is_none_or(|stored| stored.is_deleted()))
    }

    /// Where sinks have put a recording.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn copies(&self, id: &str) -> Result<Vec<StoredCopy>, CatalogError> {
        self.catalog.copies(id)
    }

    /// The frames of a recording; `None` = nothing of it is on disk.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn capture(&self, stored: &StoredRecording) -> Result<Option<Capture>, CaptureError> {
        // While it runs, its last extent is known only as of the latest report: the segments know more.
        let is_final = stored.recording.state.is_final();
        let last = stored.storage.last();
        if is_final && last.is_none() {
            return Ok(None);
        }
        let opened = Capture::open_in_directory_with(
            &self.segments,
            stored.storage.number,
            last.filter(|_| is_final),
            &self.keys,
        );
        match opened {
            Ok(capture) => Ok(Some(capture)),
            Err(CaptureError::NoSuchRecording { .. }) => Ok(None),
            Err(CaptureError::Io { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The evidence archive of a recording, in a file without a name, to be read from its beginning;
    /// gives its length too.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn evidence(
        &self,
        entry: &Entry,
        capture: &Capture,
        key: KeyChoice,
    ) -> io::Result<(File, u64)> {
        let cdrs = (!entry.cdrs.is_empty()).then_some(&entry.cdrs);
        let evidence = Evidence {
            recording: serde_json::to_value(&entry.stored.recording)?,
            call: entry.call.as_ref().map(serde_json::to_value).transpose()?,
            cdr: cdrs.map(serde_json::to_value).transpose()?,
            capture,
            key,
            keys: &self.keys,
            made_at: Timestamp::now().to_string(),
        };
        std::fs::create_dir_all(&self.scratch)?;
        let file = tempfile::tempfile_in(&self.scratch)?;
        let mut file = evidence.write(file, self.signer.as_deref())?;
        let length = file.stream_position()?;
        file.rewind()?;
        Ok((file, length))
    }
}

impl Entry {
    /// Everything that is known, as one object.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub fn to_json(&self) -> serde_json::Result<Value> {
        Ok(serde_json::json!({
            "recording": self.stored.recording,
            "call": self.call,
            "cdrs": self.cdrs,
        }))
    }
}

/// How a recording becomes a WAV. A very long call fits one only at a lower rate than its codec's.
///
/// # Errors
/// It is too long at any rate.
pub fn wav_plan(capture: &Capture) -> Result<Plan, AudioError> {
    let mut result = Plan::new(capture, &Options::default());
    for rate_hz in [16_000, 8_000] {
        if !matches!(result, Err(AudioError::TooLong { .. })) {
            break;
        }
        let options = Options {
            rate_hz: Some(rate_hz),
            ..Options::default()
        };
        result = Plan::new(capture, &options);
    }
    result
}

/// Writes a recording as WAV.
///
/// # Errors
/// Those of `out`; the recording is too long.
pub fn write_wav_of(capture: &Capture, plan: &Plan, out: &mut dyn Write) -> io::Result<()> {
    let written = write_wav(capture, plan, out, &mut |_done, _total| true);
    written.map(drop).map_err(|error| match error {
        AudioError::Io(error) => error,
        error => io::Error::other(error.to_string()),
    })
}

/// A folder for archives while they are put together, in a data directory.
#[must_use]
pub fn scratch_of(data_dir: &Path) -> PathBuf {
    data_dir.join("run/scratch")
}
