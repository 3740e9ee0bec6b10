//! Finishing what a crash left: segments without a footer, not in the page cache, hash-chained.

use std::path::Path;
use std::time::Instant;

use trunkline_sn3::extent::Seal;
use trunkline_sn3::file::{DirectoryStore, Way};
use trunkline_sn3::recover::{Finished, finish_leftovers};
use trunkline_sn3::writer::{SegmentOrigin, SegmentWriter};
use trunkline_sn3::{Keys, chain};

use crate::fill::{Packets, image};
use crate::report::Report;
use crate::store::segment_files;
use crate::{Amounts, Outcome, disk};

const SEGMENT_BYTES: u64 = 256 << 20;
const RECORDINGS: u64 = 500;

pub fn run(amounts: &Amounts, directory: &Path, report: &mut Report) -> Outcome<()> {
    let (mut reads, mut seconds, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..amounts.rounds.min(3) {
        let segments = directory.join(format!("segments-{round}"));
        leave(&segments, amounts.recovery_bytes)?;
        let files = segment_files(&segments)?;
        let bytes: u64 = files
            .iter()
            .filter_map(|path| path.metadata().ok())
            .map(|found| found.len())
            .sum();
        disk::forget(&files)?;
        let read = disk::read_rate(&files)?;
        disk::forget(&files)?;
        let start = Instant::now();
        let results =
            finish_leftovers(&segments, &Keys::none()).map_err(|error| error.to_string())?;
        let taken = start.elapsed().as_secs_f64();
        let whole = |result: &std::io::Result<Finished>| matches!(result, Ok(Finished::Recovered { lost, .. }) if lost.is_empty());
        if results.len() != files.len() || !results.iter().all(|(_, result)| whole(result)) {
            return Err(format!("not recovered: {results:?}"));
        }
        reads.push(read / 1e6);
        seconds.push(taken / (bytes as f64 / 1e9));
        ratios.push(bytes as f64 / taken / read);
        std::fs::remove_dir_all(&segments).map_err(|error| error.to_string())?;
    }
    report.row(
        "recovery",
        "the disk: plain O_DIRECT reads of 1 MiB",
        "MB/s",
        reads,
    );
    report.row("recovery", "recovery", "s/GB", seconds);
    report.row(
        "recovery",
        "recovery against the disk's read rate",
        "x",
        ratios,
    );
    Ok(())
}

/// Segments as a killed recorder leaves them.
fn leave(directory: &Path, bytes: u64) -> Outcome<()> {
    let text = |error: std::io::Error| error.to_string();
    let mut store = DirectoryStore::new(directory, Way::Direct).map_err(text)?;
    let packets = Packets::new();
    let mut room = Vec::new();
    let mut tips = vec![(0u32, 0u32, chain::START, 0u32); RECORDINGS as usize];
    let mut left = bytes;
    while left > 0 {
        let mut writer =
            SegmentWriter::create(&mut store, &SegmentOrigin::default()).map_err(text)?;
        let mut next = 0;
        while writer.length() < SEGMENT_BYTES.min(left) {
            let tip = &mut tips[next];
            let recording = next as u64 + 1;
            let used = image(&mut room, recording, tip.3, &packets);
            let asked = Seal {
                used,
                prev_segment: tip.0,
                prev_page: tip.1,
                previous_link: Some(tip.2),
                ..Seal::default()
            };
            let staged = writer
                .stage(&room, &asked)
                .ok_or("an extent cannot be sealed")?;
            let link = staged.link.unwrap_or(chain::START);
            *tip = (writer.number(), staged.page, link, tip.3 + 1);
            next = (next + 1) % tips.len();
            if !writer.has_room() {
                writer.flush().map_err(text)?;
            }
            if writer.length().is_multiple_of(16 << 20) {
                writer.checkpoint(1_000).map_err(text)?;
            }
        }
        writer.checkpoint(1_000).map_err(text)?;
        left = left.saturating_sub(writer.length());
    }
    Ok(())
}
