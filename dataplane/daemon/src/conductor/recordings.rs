//! Recordings that are not durable yet, and their receipts.

use std::collections::HashMap;

use trunkline_link::message::{DropReason, Event, RecordingPhase, StreamReceipt};

use crate::recorder::DiskDrop;

/// A recording that is not finished.
#[derive(Debug)]
pub struct Recording {
    /// Session.
    pub session: u64,
    /// Worker that captures it.
    pub worker: usize,
    /// Its phase.
    pub phase: RecordingPhase,
    /// CLOCK_MONOTONIC ns of its origin.
    pub origin_mono_ns: u64,
    /// Streams as the worker reported them last.
    pub streams: Vec<StreamReceipt>,
    /// Ordinal that its next extent will have.
    pub next_ordinal: u32,
    /// Last durable extent.
    pub last_segment: u32,
    /// See `last_segment`.
    pub last_page: u32,
    /// What the disk refused so far.
    pub disk_drops: Vec<DiskDrop>,
    /// `RecordingFinish` was sent to the worker.
    pub finishing: bool,
    /// When its session went away, CLOCK_MONOTONIC ns.
    pub left_alone: Option<u64>,
}

impl Recording {
    /// One that the worker has not confirmed.
    #[must_use]
    pub fn new(session: u64, worker: usize) -> Self {
        Self {
            session,
            worker,
            phase: RecordingPhase::Running,
            origin_mono_ns: 0,
            streams: Vec::new(),
            next_ordinal: 0,
            last_segment: 0,
            last_page: 0,
            disk_drops: Vec::new(),
            finishing: false,
            left_alone: None,
        }
    }

    /// The worker's receipts with what the disk refused taken out.
    #[must_use]
    pub fn receipts(&self) -> Vec<StreamReceipt> {
        let mut streams = self.streams.clone();
        for drop in &self.disk_drops {
            let known = |stream: &&mut StreamReceipt| {
                stream.side == drop.side && stream.media == drop.media && stream.ssrc == drop.ssrc
            };
            if let Some(stream) = streams.iter_mut().find(known) {
                // The worker may report later than the recorder: never below zero, so that the
                // three parts keep adding up to what is expected.
                let packets = drop.packets.min(stream.written);
                stream.written -= packets;
                stream.dropped[DropReason::Disk as usize] += packets;
                stream.duplicates = stream.duplicates.saturating_sub(drop.duplicates);
                stream.bytes = stream.bytes.saturating_sub(drop.bytes);
            }
        }
        streams
    }

    /// The once-a-second report.
    #[must_use]
    pub fn progress(&self, recording: u64) -> Event {
        Event::RecordingProgress {
            session: self.session,
            recording,
            next_ordinal: self.next_ordinal,
            last_segment: self.last_segment,
            last_page: self.last_page,
            streams: self.receipts(),
        }
    }
}

/// By recording number.
pub type Recordings = HashMap<u64, Recording>;

#[cfg(test)]
mod tests {
    use super::*;
    use trunkline_link::message::Side;

    fn stream(ssrc: u32, written: u64) -> StreamReceipt {
        StreamReceipt {
            side: Side::Caller,
            media: 0,
            ssrc,
            expected: written + 3,
            written,
            lost: 3,
            dropped: [0; 9],
            duplicates: 1,
            reordered: 0,
            bytes: written * 160,
            first_ns: 0,
            last_ns: 0,
            covered_ns: 0,
            first_sequence: 0,
        }
    }

    #[test]
    fn receipts_add_up_whatever_the_disk_refused() {
        let mut recording = Recording::new(1, 0);
        recording.streams = vec![stream(7, 100), stream(8, 10)];
        let drop = |ssrc, packets| DiskDrop {
            side: Side::Caller,
            media: 0,
            ssrc,
            packets,
            duplicates: 4,
            bytes: 160 * packets,
        };
        recording.disk_drops = vec![drop(7, 40), drop(8, 50), drop(9, 1)];
        let receipts = recording.receipts();
        for receipt in &receipts {
            let dropped: u64 = receipt.dropped.iter().sum();
            assert_eq!(receipt.expected, receipt.written + receipt.lost + dropped);
        }
        assert_eq!((receipts[0].written, receipts[0].dropped[5]), (60, 40));
        assert_eq!((receipts[1].written, receipts[1].dropped[5]), (0, 10));
        assert_eq!(receipts[0].bytes, 60 * 160);
    }
}
