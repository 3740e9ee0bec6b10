//! A directory of segments, looked through once for all the recordings in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::capture::{Capture, CaptureError};
use crate::keys::Keys;
use crate::reader::SegmentReader;
use crate::recording::RecordingReader;
use crate::segment;

/// Which recordings lie in a directory of segments, and where each of them ends.
#[derive(Debug)]
pub struct SegmentDirectory {
    path: PathBuf,
    segments: Vec<(u32, PathBuf)>,
    last: BTreeMap<u64, LastExtent>,
    unreadable: Vec<CaptureError>,
}

/// A recording's last extent.
#[derive(Debug, Clone, Copy)]
struct LastExtent {
    ordinal: u32,
    segment: u32,
    page: u32,
}

impl SegmentDirectory {
    /// Looks at the directory of each segment (the extents of those without).
    ///
    /// # Errors
    /// The directory cannot be listed. A segment that cannot be opened is no reason to lose the
    /// others: see [`Self::unreadable`].
    pub fn read(path: &Path) -> Result<Self, CaptureError> {
        let segments = segment::list(path).map_err(|cause| CaptureError::Io {
            path: path.to_path_buf(),
            cause,
        })?;
        let mut last: BTreeMap<u64, LastExtent> = BTreeMap::new();
        let mut unreadable = Vec::new();
        for (number, file) in &segments {
            let reader = match SegmentReader::open(file) {
                Ok(reader) => reader,
                Err(error) => {
                    unreadable.push(error);
                    continue;
                }
            };
            let (entries, _) = reader.index();
            for entry in entries.iter().filter(|entry| entry.recording != 0) {
                let found = LastExtent {
                    ordinal: entry.ordinal,
                    segment: *number,
                    page: entry.page,
                };
                let known = last.entry(entry.recording).or_insert(found);
                if known.ordinal <= found.ordinal {
                    *known = found;
                }
            }
        }
        Ok(Self {
            path: path.to_path_buf(),
            segments,
            last,
            unreadable,
        })
    }

    /// Whether there is no segment in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Numbers of the recordings, in ascending order.
    pub fn recordings(&self) -> impl Iterator<Item = u64> + '_ {
        self.last.keys().copied()
    }

    /// Why segments could not be looked at.
    #[must_use]
    pub fn unreadable(&self) -> &[CaptureError] {
        &self.unreadable
    }

    /// Opens a recording. Only its own extents are read, unless its chain is damaged.
    ///
    /// # Errors
    /// See [`CaptureError`].
    pub fn open(&self, recording: u64) -> Result<Capture, CaptureError> {
        self.open_with(recording, &Keys::none())
    }

    /// [`Self::open`] of what may be encrypted.
    ///
    /// # Errors
    /// See [`CaptureError`].
    pub fn open_with(&self, recording: u64, keys: &Keys) -> Result<Capture, CaptureError> {
        let last = self.last.get(&recording);
        let last = last.map(|extent| (extent.segment, extent.page));
        let (segments, path) = (&self.segments, &self.path);
        let reader = RecordingReader::in_segments(segments, path, recording, last, keys)?;
        Ok(Capture::over_recording(reader))
    }
}
