//! Recordings by name.

use anyhow::{Context, Result};
use std::path::Path;
use trunkline_sn3::{Capture, SegmentReader, segment};

/// Numbers of the recordings in a directory of segments, in ascending order.
pub(crate) fn recordings_in(directory: &Path) -> Result<Vec<u64>> {
    let segments = segment::list(directory)
        .with_context(|| format!("{}: cannot be listed", directory.display()))?;
    anyhow::ensure!(
        !segments.is_empty(),
        "{}: no segments in there",
        directory.display()
    );
    let mut numbers = Vec::new();
    for (_, path) in segments {
        numbers.extend(SegmentReader::open(&path)?.recordings());
    }
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

/// One line about a recording.
pub(crate) fn line(number: u64, capture: &Capture) -> String {
    let facts = capture.facts();
    let Some(open) = &facts.open else {
        return format!("{number}  (its beginning is lost)");
    };
    let verdict = facts
        .close
        .as_ref()
        .map_or("unfinished", |(_, close)| close.verdict.as_str());
    format!(
        "{number}  {}  {}  {} -> {}  {verdict}",
        open.recording_id, open.started_at, open.caller, open.callee,
    )
}
