//! Recordings by name.

use anyhow::Result;
use std::path::Path;
use trunkline_sn3::{Capture, SegmentDirectory};

/// Looks through a directory of segments.
pub(crate) fn segments_in(path: &Path) -> Result<SegmentDirectory> {
    let directory = SegmentDirectory::read(path)?;
    anyhow::ensure!(
        !directory.is_empty(),
        "{}: no segments in there",
        path.display()
    );
    for error in directory.unreadable() {
        eprintln!("sn3: {error}");
    }
    Ok(directory)
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
