//! Opening what the user named.

use crate::Outcome;
use crate::listing;
use anyhow::Result;
use std::path::{Path, PathBuf};
use trunkline_sn3::{Capture, CaptureError, Keys};

/// Where the capture is.
#[derive(clap::Args)]
pub(crate) struct Source {
    /// A segment, a directory of segments, a call's SN3, or a classic blob.
    pub(crate) file: PathBuf,
    /// Which recording, where there are several: its number or its API id.
    #[arg(long, value_name = "NUMBER|ID")]
    pub(crate) recording: Option<String>,
    /// The appliance's `recording.key_file`: decrypts encrypted recordings.
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
}

/// What opening led to.
pub(crate) enum Opened {
    Capture(Box<Capture>),
    /// There are several recordings and none was named; they have been listed.
    Listed(Outcome),
}

impl Source {
    /// Opens the capture; where the choice is the user's, lists what there is instead.
    pub(crate) fn open(&self) -> Result<Opened> {
        let keys = Keys::load(self.key_file.as_deref())?;
        if self.file.is_dir() {
            return self.open_directory(&keys);
        }
        let Some(wanted) = &self.recording else {
            return match Capture::open_with(&self.file, &keys) {
                Ok(capture) => Ok(capture.into()),
                Err(CaptureError::ManyRecordings { recordings, .. }) if recordings.is_empty() => {
                    anyhow::bail!("{}: this segment holds no recording", self.file.display())
                }
                Err(CaptureError::ManyRecordings { recordings, .. }) => Ok(self
                    .list(&recordings, |number| {
                        Capture::open_recording_with(&self.file, number, &keys)
                    })),
                Err(error) => Err(error.into()),
            };
        };
        if let Ok(number) = wanted.parse() {
            return Ok(Capture::open_recording_with(&self.file, number, &keys)?.into());
        }
        let numbers = match Capture::open_with(&self.file, &keys) {
            Ok(capture) => vec![capture.facts().recording],
            Err(CaptureError::ManyRecordings { recordings, .. }) => recordings,
            Err(error) => return Err(error.into()),
        };
        self.find(wanted, &numbers, |number| {
            Capture::open_recording_with(&self.file, number, &keys)
        })
    }

    fn open_directory(&self, keys: &Keys) -> Result<Opened> {
        let directory = listing::segments_in(&self.file)?;
        let open = |number| directory.open_with(number, keys);
        if let Some(number) = self
            .recording
            .as_ref()
            .and_then(|wanted| wanted.parse().ok())
        {
            return Ok(open(number)?.into());
        }
        let numbers: Vec<u64> = directory.recordings().collect();
        match &self.recording {
            Some(wanted) => self.find(wanted, &numbers, open),
            None => Ok(self.list(&numbers, open)),
        }
    }

    fn find(
        &self,
        wanted: &str,
        numbers: &[u64],
        open: impl Fn(u64) -> Result<Capture, CaptureError>,
    ) -> Result<Opened> {
        for &number in numbers {
            let capture = open(number)?;
            let id = capture
                .facts()
                .open
                .as_ref()
                .map(|open| open.recording_id.as_str());
            if id.is_some_and(|id| id.eq_ignore_ascii_case(wanted)) {
                return Ok(capture.into());
            }
        }
        anyhow::bail!("{}: no recording with the id {wanted}", self.file.display())
    }

    fn list(&self, numbers: &[u64], open: impl Fn(u64) -> Result<Capture, CaptureError>) -> Opened {
        eprintln!(
            "sn3: {}: {} recordings here, choose one with --recording:",
            self.file.display(),
            numbers.len(),
        );
        for &number in numbers {
            match open(number) {
                Ok(capture) => eprintln!("{}", listing::line(number, &capture)),
                Err(error) => eprintln!("{number}  {error}"),
            }
        }
        Opened::Listed(Outcome::WrongUsage)
    }
}

impl From<Capture> for Opened {
    fn from(capture: Capture) -> Self {
        Self::Capture(Box::new(capture))
    }
}

/// Says each damage aloud; whether there was any.
pub(crate) fn complain(capture: &Capture, file: &Path) -> bool {
    for damage in capture.damages() {
        eprintln!("sn3: {}", place(damage, file));
    }
    !capture.damages().is_empty()
}

/// A damage with its file and byte offset.
pub(crate) fn place(damage: &trunkline_sn3::Damage, file: &Path) -> String {
    let path = if damage.path.as_os_str().is_empty() {
        file
    } else {
        &damage.path
    };
    let skipped = if damage.length > 0 {
        format!(" ({} bytes skipped)", damage.length)
    } else {
        String::new()
    };
    format!(
        "{}: damaged at byte {}: {}{skipped}",
        path.display(),
        damage.offset,
        damage.what
    )
}
