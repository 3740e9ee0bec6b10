//! One recording of a call: its phases, its receipt, its place on disk.

use serde::{Deserialize, Serialize};
use trunkline_link::message::{RecordingPhase, Side, StreamReceipt};
use trunkline_sinks::Timestamp;
use trunkline_sinks::object::{self, Pause, RecordingState};
use trunkline_sinks::verdict::{StreamCounts, final_state, receipt, verdict};

use crate::clock::Moment;

/// Where a recording stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Asked for; capture is not confirmed.
    Starting,
    /// Capturing.
    Running,
    /// Paused.
    Paused,
    /// Capture ended; facts and extents are on their way to the disk.
    Finishing,
    /// Durable, or given up.
    Done,
}

/// A recording.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Recording {
    /// What the API shows.
    pub object: object::Recording,
    /// Number in the capture format.
    pub number: u64,
    /// Phase.
    pub phase: Phase,
    /// CLOCK_MONOTONIC ns of the start of capture, 0 until confirmed.
    pub origin_mono_ns: u64,
    /// Ordinal of the next extent to be written.
    pub next_ordinal: u32,
    /// Last extent written.
    pub last_segment: u32,
    /// See `last_segment`.
    pub last_page: u32,
    /// Extents written.
    pub extents: u32,
    /// Bytes written.
    pub bytes: u64,
    /// A failure of ours tore a hole that no counter shows.
    pub failure: bool,
    /// Whether the call's end (rather than a `stop`) ended it.
    pub with_call: bool,
    /// Streams of dataplanes that died, whose numbers are final.
    #[serde(skip)]
    earlier: Vec<StreamCounts>,
    #[serde(skip)]
    streams: Vec<StreamCounts>,
    /// Longest time that a side can have covered, once known.
    #[serde(skip)]
    covered_max_ms: Option<u64>,
    /// When the dataplane died under it, CLOCK_MONOTONIC ns.
    #[serde(skip)]
    down_since_ns: Option<u64>,
}

impl Recording {
    /// A recording that is being asked for.
    pub fn new(object: object::Recording, number: u64) -> Self {
        Self {
            object,
            number,
            phase: Phase::Starting,
            origin_mono_ns: 0,
            next_ordinal: 0,
            last_segment: 0,
            last_page: 0,
            extents: 0,
            bytes: 0,
            failure: false,
            with_call: false,
            earlier: Vec::new(),
            streams: Vec::new(),
            covered_max_ms: None,
            down_since_ns: None,
        }
    }

    /// Whether something of it is known to be on disk.
    pub fn is_stored(&self) -> bool {
        self.extents > 0 || self.last_segment > 0
    }

    /// Whether it still captures or may again.
    pub fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Running | Phase::Paused)
    }

    /// The dataplane confirms a phase as of `at_mono_ns`.
    pub fn confirmed(
        &mut self,
        phase: RecordingPhase,
        at_mono_ns: u64,
        origin_mono_ns: u64,
        streams: &[StreamReceipt],
        by: &str,
    ) {
        if origin_mono_ns != 0 {
            self.origin_mono_ns = origin_mono_ns;
        }
        self.note_streams(streams);
        let at_ms = at_mono_ns.saturating_sub(self.origin_mono_ns) / 1_000_000;
        match phase {
            RecordingPhase::Running => {
                if self.phase == Phase::Paused {
                    self.end_pause(at_ms);
                }
                self.phase = Phase::Running;
                self.object.state = RecordingState::Recording;
            }
            RecordingPhase::Paused => {
                if self.phase != Phase::Paused {
                    let by = by.to_owned();
                    self.object.pauses.push(Pause {
                        from_ms: at_ms,
                        to_ms: None,
                        by,
                    });
                }
                self.phase = Phase::Paused;
                self.object.state = RecordingState::Paused;
            }
            RecordingPhase::Stopped => {
                self.end_pause(at_ms);
                self.phase = Phase::Finishing;
                self.object.state = RecordingState::Finishing;
            }
        }
    }

    fn end_pause(&mut self, at_ms: u64) {
        if let Some(pause) = self.object.pauses.last_mut()
            && pause.to_ms.is_none()
        {
            pause.to_ms = Some(at_ms.max(pause.from_ms));
        }
    }

    /// Takes in receipts; they replace what this dataplane said before.
    pub fn note_streams(&mut self, streams: &[StreamReceipt]) {
        if !streams.is_empty() || self.streams.is_empty() {
            self.streams = streams.iter().map(counts).collect();
        }
    }

    /// The dataplane died: what it counted last is final, what it had not yet written is open.
    pub fn dataplane_died(&mut self, now: &Moment) {
        self.failure = true;
        self.earlier.append(&mut self.streams);
        self.down_since_ns.get_or_insert(now.mono_ns);
    }

    /// The recording ended at this moment.
    pub fn ended(&mut self, at: Timestamp, covered_max_ms: Option<u64>) {
        self.object.ended_at = Some(at);
        self.covered_max_ms = covered_max_ms;
        self.refresh(at);
    }

    /// Durations, pauses and the receipt as of now.
    pub fn refresh(&mut self, now: Timestamp) {
        let end = self.object.ended_at.unwrap_or(now);
        self.object.duration_ms = end.ms_since(self.object.started_at);
        let duration_ms = self.object.duration_ms;
        let length = |pause: &Pause| {
            pause
                .to_ms
                .unwrap_or(duration_ms)
                .saturating_sub(pause.from_ms)
        };
        self.object.paused_ms = self.object.pauses.iter().map(length).sum();
        let all: Vec<StreamCounts> = self.earlier.iter().chain(&self.streams).cloned().collect();
        // After a restart the last receipt stands until the dataplane says more.
        if !all.is_empty() || self.object.receipt.is_none() {
            self.object.receipt = Some(receipt(&merge(all), self.covered_max_ms));
        }
    }

    /// The verdict as things stand.
    pub fn judge(&mut self) {
        let receipt = self.object.receipt.clone().unwrap_or_default();
        self.object.verdict = Some(verdict(&receipt, self.failure));
    }

    /// Durable: the last word.
    pub fn closed(&mut self, now: Timestamp) {
        self.phase = Phase::Done;
        self.refresh(now);
        self.judge();
        let kept = self.is_stored();
        let verdict = self.object.verdict.unwrap_or(object::Verdict::Partial);
        self.object.state = final_state(verdict, kept);
    }
}

/// One entry for each (side, m-line, SSRC): a stream that went on over a restart is one stream.
fn merge(streams: Vec<StreamCounts>) -> Vec<StreamCounts> {
    let mut merged: Vec<StreamCounts> = Vec::new();
    for stream in streams {
        let same = |known: &&mut StreamCounts| {
            known.from_callee == stream.from_callee
                && known.media == stream.media
                && known.ssrc == stream.ssrc
        };
        match merged.iter_mut().find(same) {
            Some(known) => {
                known.expected += stream.expected;
                known.written += stream.written;
                known.lost += stream.lost;
                known.dropped.extend(stream.dropped);
                known.duplicates += stream.duplicates;
                known.reordered += stream.reordered;
                known.bytes += stream.bytes;
                known.covered_ms += stream.covered_ms;
            }
            None => merged.push(stream),
        }
    }
    merged
}

fn counts(stream: &StreamReceipt) -> StreamCounts {
    use trunkline_link::message::DropReason;
    StreamCounts {
        from_callee: stream.side == Side::Callee,
        media: stream.media,
        ssrc: stream.ssrc,
        expected: stream.expected,
        written: stream.written,
        lost: stream.lost,
        dropped: DropReason::ALL
            .iter()
            .zip(stream.dropped)
            .map(|(reason, count)| (reason.name(), count))
            .collect(),
        duplicates: stream.duplicates,
        reordered: stream.reordered,
        bytes: stream.bytes,
        covered_ms: stream.covered_ns / 1_000_000,
    }
}
