//! What the recorder knows of each recording that is not closed.

use std::collections::HashMap;

use trunkline_link::message::Side;
use trunkline_sn3::chain::Link;
use trunkline_sn3::extent::StreamCount;

use super::message::{DiskDrop, RecorderNotice};

/// Where a recording has come to: its last extent, and what the next one's link follows from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tip {
    /// Segment of the extent; 0 = none.
    pub segment: u32,
    /// Page in it.
    pub page: u32,
    /// Its link in the hash chain; [`trunkline_sn3::chain::START`] where it has none.
    pub link: Link,
}

/// One recording.
#[derive(Debug, Clone, Default)]
pub(super) struct Track {
    pub session: u64,
    /// Ordinal that follows the last extent seen.
    pub next_ordinal: u32,
    /// Last extent put into a batch: the next one chains to it.
    pub staged: Tip,
    /// Last extent written.
    pub written: Tip,
    /// Last extent durable.
    pub durable: Tip,
    /// Extents written, and their bytes.
    pub extents: u32,
    pub bytes: u64,
    /// Extents seen and neither written nor given up.
    pub pending: u32,
    /// Frames given up since the last extent put into a batch.
    pub dropped: u32,
    /// What the disk refused, by stream.
    pub drops: Vec<DiskDrop>,
    /// The worker has finished it.
    pub finishing: bool,
    /// Something to tell since the last notice.
    pub changed: bool,
}

impl Track {
    /// Counts the packets of an extent that is given up.
    pub fn give_up(&mut self, counts: &[StreamCount], frames: u32) {
        self.dropped = self.dropped.saturating_add(frames);
        self.changed = true;
        for count in counts {
            let side = if count.side == 0 {
                Side::Caller
            } else {
                Side::Callee
            };
            let same = |d: &&mut DiskDrop| {
                d.side == side && d.media == count.media && d.ssrc == count.ssrc
            };
            if let Some(drop) = self.drops.iter_mut().find(same) {
                drop.packets += count.packets;
                drop.duplicates += count.duplicates;
                drop.bytes += count.bytes;
            } else {
                self.drops.push(DiskDrop {
                    side,
                    media: count.media,
                    ssrc: count.ssrc,
                    packets: count.packets,
                    duplicates: count.duplicates,
                    bytes: count.bytes,
                });
            }
        }
    }

    fn progress(&self, recording: u64) -> RecorderNotice {
        RecorderNotice::Progress {
            session: self.session,
            recording,
            next_ordinal: self.next_ordinal,
            last_segment: self.durable.segment,
            last_page: self.durable.page,
            disk_drops: self.drops.clone(),
        }
    }

    fn closed(&self, recording: u64) -> RecorderNotice {
        RecorderNotice::Closed {
            session: self.session,
            recording,
            extents: self.extents,
            last_segment: self.durable.segment,
            last_page: self.durable.page,
            bytes: self.bytes,
            chain_head: self.durable.link,
            disk_drops: self.drops.clone(),
        }
    }
}

/// All recordings that are not closed, by number.
#[derive(Debug, Default)]
pub(super) struct Tracks(HashMap<u64, Track>);

impl Tracks {
    /// A recording starts or goes on.
    pub fn begin(&mut self, session: u64, recording: u64, first_ordinal: u32, prev: Tip) {
        let track = self.0.entry(recording).or_default();
        track.session = session;
        track.next_ordinal = track.next_ordinal.max(first_ordinal);
        if track.extents == 0 && track.pending == 0 {
            (track.staged, track.written, track.durable) = (prev, prev, prev);
        }
    }

    /// A recording, made where it was not announced.
    pub fn of(&mut self, recording: u64) -> &mut Track {
        self.0.entry(recording).or_default()
    }

    /// Everything written of these recordings is durable: gives the notices that follow from it.
    /// What ended and has nothing pending is closed and forgotten.
    pub fn report(&mut self, recordings: &mut Vec<u64>) -> Vec<RecorderNotice> {
        recordings.sort_unstable();
        recordings.dedup();
        let mut notices = Vec::new();
        for recording in recordings.drain(..) {
            // Recording 0 is the worker's own log: nobody waits for it.
            let Some(track) = self.0.get_mut(&recording).filter(|_| recording != 0) else {
                continue;
            };
            track.durable = track.written;
            track.changed = false;
            if track.finishing && track.pending == 0 {
                notices.push(track.closed(recording));
                self.0.remove(&recording);
            } else {
                notices.push(track.progress(recording));
            }
        }
        notices
    }
}
