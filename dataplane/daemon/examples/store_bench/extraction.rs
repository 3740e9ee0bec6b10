//! Cutting one long call out of a large set whose files are not in the page cache.

use std::path::Path;
use std::time::Instant;

use trunkline_sn3::Capture;
use trunkline_sn3::chain;
use trunkline_sn3::extent::{Seal, extent_flags};
use trunkline_sn3::file::{DirectoryStore, DiskFile, Way};
use trunkline_sn3::writer::{SegmentOrigin, SegmentWriter};

use crate::fill::{Packets, image};
use crate::report::Report;
use crate::store::segment_files;
use crate::{Amounts, Outcome, disk};

const SEGMENT_BYTES: u64 = 256 << 20;
/// Frames of an extent, at 100 frames a second.
const EXTENT_S: f64 = 0.84;
const WANTED: u64 = 1;

pub fn run(amounts: &Amounts, directory: &Path, report: &mut Report) -> Outcome<()> {
    let mut set = Set::new(directory)?;
    let wanted = (amounts.call_s as f64 / EXTENT_S) as u64;
    let extents = (amounts.set_bytes >> 14).max(wanted);
    let step = extents / wanted;
    for index in 0..wanted {
        set.put(WANTED, index + 1 == wanted)?;
        for other in 1..step {
            set.put(WANTED + 1 + (index * step + other) % 997, false)?;
        }
    }
    let (last, own) = (set.tips[WANTED as usize], set.own_bytes);
    set.finish()?;
    let files = segment_files(directory)?;
    let (mut ratios, mut seconds, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..amounts.rounds.min(3) {
        disk::forget(&files)?;
        let before = disk::bytes_read()?;
        let start = Instant::now();
        let capture = Capture::open_in_directory(directory, WANTED, Some((last.0, last.1)))
            .map_err(|error| error.to_string())?;
        let mut out = Counted(0);
        capture
            .export(&mut out)
            .map_err(|error| error.to_string())?;
        seconds.push(start.elapsed().as_secs_f64());
        let read = (disk::bytes_read()? - before) as f64;
        if out.0 * 10 < own * 8 || !capture.damages().is_empty() {
            return Err(format!("{} of {own} bytes came out", out.0));
        }
        ratios.push(read / own as f64);
        bytes.push(read / 1e6);
    }
    let set_gb = files.len() as f64 * SEGMENT_BYTES as f64 / 1e9;
    report.row("extraction", "the set", "GB", vec![set_gb]);
    report.row("extraction", "the call", "s", vec![amounts.call_s as f64]);
    report.row(
        "extraction",
        "the call's extents",
        "MB",
        vec![own as f64 / 1e6],
    );
    report.row("extraction", "read from the disk", "MB", bytes);
    report.row("extraction", "time", "s", seconds);
    report.row("extraction", "bytes read over the call's own", "x", ratios);
    Ok(())
}

struct Counted(u64);

impl std::io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Recordings side by side in many segments.
struct Set {
    store: DirectoryStore,
    writer: SegmentWriter<DiskFile>,
    packets: Packets,
    room: Vec<u8>,
    tips: Vec<(u32, u32, chain::Link, u32)>,
    own_bytes: u64,
}

impl Set {
    fn new(directory: &Path) -> Outcome<Self> {
        let mut store =
            DirectoryStore::new(directory, Way::Direct).map_err(|error| error.to_string())?;
        let writer = SegmentWriter::create(&mut store, &SegmentOrigin::default())
            .map_err(|error| error.to_string())?;
        Ok(Self {
            store,
            writer,
            packets: Packets::new(),
            room: Vec::new(),
            tips: vec![(0, 0, chain::START, 0); 1_000],
            own_bytes: 0,
        })
    }

    /// Appends an extent of a recording, maybe its last.
    fn put(&mut self, recording: u64, last: bool) -> Outcome<()> {
        let text = |error: std::io::Error| error.to_string();
        if self.writer.length() >= SEGMENT_BYTES {
            self.writer.finish(1_000).map_err(text)?;
            self.writer =
                SegmentWriter::create(&mut self.store, &SegmentOrigin::default()).map_err(text)?;
        }
        if !self.writer.has_room() {
            self.writer.flush().map_err(text)?;
        }
        let tip = &mut self.tips[recording as usize];
        let used = image(&mut self.room, recording, tip.3, &self.packets);
        let asked = Seal {
            used,
            prev_segment: tip.0,
            prev_page: tip.1,
            previous_link: Some(tip.2),
            flags: if last { extent_flags::LAST } else { 0 },
            ..Seal::default()
        };
        let staged = self
            .writer
            .stage(&self.room, &asked)
            .ok_or("an extent cannot be sealed")?;
        let link = staged.link.unwrap_or(chain::START);
        *tip = (self.writer.number(), staged.page, link, tip.3 + 1);
        if recording == WANTED {
            self.own_bytes += staged.header.bytes() as u64;
        }
        Ok(())
    }

    fn finish(mut self) -> Outcome<()> {
        self.writer
            .finish(1_000)
            .map(drop)
            .map_err(|error| error.to_string())
    }
}
