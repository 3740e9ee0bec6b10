//! One recording of a call: its phases, its receipt, its place on disk.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trunkline_link::message::{RecordingPhase, Side, StreamReceipt};
use trunkline_sinks::Timestamp;
use trunkline_sinks::object::{self, Pause, RecordingState};
use trunkline_sinks::verdict::{StreamCounts, final_state, receipt, verdict};
use trunkline_sn3::chain::{self, Link};

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

/// What is missing of a recording that should run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quiet {
    /// Capture has not started.
    NotStarted,
    /// Nobody is heard.
    Both,
    /// The caller is not heard.
    Caller,
    /// The callee is not heard.
    Callee,
}

/// Silence after which a side is missed. With the second that receipts come in and the one between two
/// looks it is told within 5 s.
const QUIET_NS: u64 = 2_900_000_000;

/// Gaps of one recording that are told apart.
const GAPS_MAX: usize = 64;

/// When each side was heard last.
#[derive(Debug, Clone, Copy, Default)]
struct Heard {
    written: [u64; 2],
    at_ns: [u64; 2],
    /// Sides whose silence was told; both bits also while the start was.
    told: u8,
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
    /// Link of the last extent in the hash chain; zeros = not known, or not chained.
    #[serde(skip)]
    pub chain_head: Link,
    /// A failure of ours tore a hole that no counter shows.
    pub failure: bool,
    /// Whether the call's end (rather than a `stop`) ended it.
    pub with_call: bool,
    /// The side whose wish is about to pause or resume it.
    #[serde(skip)]
    pub wished_by: Option<Side>,
    /// Only one side is to be heard at all: that it is alone is no fault.
    #[serde(default)]
    pub one_channel: bool,
    /// What SIPREC recorders of the call missed while it ran.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    gaps: Vec<object::Gap>,
    /// It had ended, and goes on in another recording session of the same call.
    #[serde(default)]
    pub continues: bool,
    /// Streams of dataplanes that died, or of sessions that are over, whose numbers are final.
    #[serde(default, with = "super::kept_counts")]
    earlier: Vec<StreamCounts>,
    #[serde(skip)]
    streams: Vec<StreamCounts>,
    /// Longest time that a side can have covered, once known.
    #[serde(skip)]
    covered_max_ms: Option<u64>,
    #[serde(skip)]
    heard: Heard,
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
            chain_head: chain::START,
            failure: false,
            with_call: false,
            wished_by: None,
            one_channel: false,
            gaps: Vec::new(),
            continues: false,
            earlier: Vec::new(),
            streams: Vec::new(),
            covered_max_ms: None,
            heard: Heard::default(),
            down_since_ns: None,
        }
    }

    /// Takes note of who was heard since the last receipt.
    pub fn note_heard(&mut self, now: &Moment) {
        for (index, from_callee) in [false, true].into_iter().enumerate() {
            let of_side = self.earlier.iter().chain(&self.streams);
            let written = of_side
                .filter(|stream| stream.from_callee == from_callee)
                .map(|stream| stream.written)
                .sum();
            if written != self.heard.written[index] {
                self.heard.written[index] = written;
                self.heard.at_ns[index] = now.mono_ns;
                self.heard.told &= !(1 << index);
            }
        }
    }

    /// What it lacks and has not been told yet. `expects_media`: both sides should send now.
    pub fn watch(&mut self, expects_media: bool, now: &Moment) -> Option<Quiet> {
        let runs = matches!(self.phase, Phase::Running | Phase::Starting);
        if !(expects_media && runs) || self.heard.at_ns == [0; 2] {
            self.heard.at_ns = [now.mono_ns; 2];
            self.heard.told = 0;
            return None;
        }
        let quiet = |index: usize| {
            let silent_ns = now.mono_ns.saturating_sub(self.heard.at_ns[index]);
            u8::from(silent_ns >= QUIET_NS) << index
        };
        let sides = quiet(0) | quiet(1);
        if sides & !self.heard.told == 0 {
            return None;
        }
        self.heard.told |= sides;
        Some(match (self.phase, sides) {
            (Phase::Starting, _) => Quiet::NotStarted,
            (_, 1) => Quiet::Caller,
            (_, 2) => Quiet::Callee,
            _ => Quiet::Both,
        })
    }

    /// Whether something of it is known to be on disk.
    pub fn is_stored(&self) -> bool {
        self.extents > 0 || self.last_segment > 0
    }

    /// Whether it still captures or may again.
    pub fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Running | Phase::Paused)
    }

    /// Whether the dataplane confirmed that it captures.
    pub fn is_capturing(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Paused)
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
        self.earlier = merge(std::mem::take(&mut self.earlier));
        self.down_since_ns.get_or_insert(now.mono_ns);
    }

    /// What the dead dataplane captured, counted from the capture itself: what it told last is older
    /// than that.
    pub fn recounted(&mut self, captured: Vec<StreamCounts>) {
        let mut told = std::mem::take(&mut self.earlier);
        let is_in = |all: &[StreamCounts], one: &StreamCounts| all.iter().any(|it| same(it, one));
        if told
            .iter()
            .any(|one| one.ssrc == 0 && !is_in(&captured, one))
        {
            // A sum of many streams, which the capture holds one by one.
            self.earlier = told;
            return;
        }
        for mut stream in captured {
            if self.phase != Phase::Running {
                // What is missed from here on belongs to a pause.
                stream.last_sequence = None;
            }
            match told.iter_mut().find(|known| same(known, &stream)) {
                Some(known) => *known = correct(known, stream),
                None => told.push(stream),
            }
        }
        self.earlier = told;
    }

    /// It had ended, and goes on: what was counted stays.
    pub fn go_on(&mut self) {
        self.earlier.append(&mut self.streams);
        for stream in &mut self.earlier {
            // What was sent to nobody in between is missed by nobody.
            stream.last_sequence = None;
        }
        self.earlier = merge(std::mem::take(&mut self.earlier));
        self.next_ordinal = self.next_ordinal.max(self.extents);
        (self.phase, self.continues) = (Phase::Starting, true);
        (self.with_call, self.covered_max_ms) = (false, None);
        self.object.state = RecordingState::Recording;
        (self.object.ended_at, self.object.verdict) = (None, None);
    }

    /// The recording ended at this moment.
    pub fn ended(&mut self, at: Timestamp, covered_max_ms: Option<u64>) {
        self.object.ended_at = Some(at);
        self.covered_max_ms = covered_max_ms;
        self.refresh(at);
    }

    /// The receipt, for what the parties were told and wish.
    pub fn receipt_mut(&mut self) -> &mut object::Receipt {
        self.object.receipt.get_or_insert_default()
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
            let told = self.object.receipt.take().unwrap_or_default();
            let counted = receipt(&merge(all), self.covered_max_ms);
            self.object.receipt = Some(told.recounted(counted));
        }
        if let Some(receipt) = &mut self.object.receipt {
            receipt.gaps.clone_from(&self.gaps);
        }
    }

    /// A recorder has missed something, or has the call again: the gap as it is now.
    pub fn note_gap(&mut self, gap: object::Gap) {
        let same = |one: &&mut object::Gap| one.recorder == gap.recorder && one.from == gap.from;
        if let Some(known) = self.gaps.iter_mut().find(same) {
            *known = gap;
        } else if self.gaps.len() < GAPS_MAX {
            self.gaps.push(gap);
        }
    }

    /// The verdict as things stand.
    pub fn judge(&mut self) {
        let receipt = self.object.receipt.clone().unwrap_or_default();
        let sides = if self.one_channel { 1 } else { 2 };
        self.object.verdict = Some(verdict(&receipt, self.failure, sides));
    }

    /// Durable: the last word.
    pub fn closed(&mut self, now: Timestamp) {
        self.phase = Phase::Done;
        self.refresh(now);
        self.judge();
        if let Some(receipt) = &mut self.object.receipt {
            receipt.chain = object::Chain::ending_with(&self.chain_head);
        }
        let kept = self.is_stored();
        let verdict = self.object.verdict.unwrap_or(object::Verdict::Partial);
        self.object.state = final_state(verdict, kept);
    }
}

/// Packets missing over a restart of the dataplane, at most; more is a restart of the sender's.
const RESTART_GAP_MAX: u16 = 3000;

fn same(one: &StreamCounts, other: &StreamCounts) -> bool {
    one.from_callee == other.from_callee && one.media == other.media && one.ssrc == other.ssrc
}

/// What was captured of a stream, with the drops that were told of it.
fn correct(told: &StreamCounts, captured: StreamCounts) -> StreamCounts {
    let missing = captured.expected - captured.written;
    let mut dropped = BTreeMap::<&'static str, u64>::new();
    for (reason, count) in &told.dropped {
        *dropped.entry(reason).or_default() += count;
    }
    let mut on_record = BTreeMap::<&'static str, u64>::new();
    for (reason, count) in &captured.dropped {
        *on_record.entry(reason).or_default() += count;
    }
    for (reason, count) in on_record {
        let known = dropped.entry(reason).or_default();
        *known = count.max(*known);
    }
    let by_us: u64 = dropped.values().sum();
    let lost = missing.saturating_sub(by_us);
    let covered_ms = match told.written {
        0 => captured.covered_ms,
        written => told.covered_ms.saturating_mul(captured.written) / written,
    };
    StreamCounts {
        expected: captured.written + lost + by_us,
        lost,
        dropped: dropped.into_iter().collect(),
        covered_ms,
        ..captured
    }
}

/// One entry for each (side, m-line, SSRC): a stream that went on over a restart is one stream, and
/// what it sent meanwhile was dropped by us.
fn merge(streams: Vec<StreamCounts>) -> Vec<StreamCounts> {
    let mut merged: Vec<StreamCounts> = Vec::new();
    for stream in streams {
        match merged.iter_mut().find(|known| same(known, &stream)) {
            Some(known) => {
                let ends = known.last_sequence.zip(stream.first_sequence);
                let gap = ends.map_or(0, |(last, first)| first.wrapping_sub(last).wrapping_sub(1));
                if gap <= RESTART_GAP_MAX {
                    known.expected += u64::from(gap);
                    known.dropped.push(("restart", u64::from(gap)));
                }
                known.last_sequence = stream.last_sequence;
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
        first_sequence: (stream.ssrc != 0).then_some(stream.first_sequence),
        last_sequence: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(first_sequence: u16, expected: u64, socket_drops: u64, lost: u64) -> StreamReceipt {
        let mut dropped = [0; 9];
        dropped[0] = socket_drops;
        let written = expected - socket_drops - lost;
        StreamReceipt {
            side: Side::Caller,
            media: 0,
            ssrc: 7,
            expected,
            written,
            lost,
            dropped,
            duplicates: 0,
            reordered: 0,
            bytes: written * 160,
            first_ns: 0,
            last_ns: 0,
            covered_ns: written * 20_000_000,
            first_sequence,
        }
    }

    fn captured(written: u64, missing: u64, last_sequence: u16) -> StreamCounts {
        StreamCounts {
            ssrc: 7,
            expected: written + missing,
            written,
            lost: missing,
            bytes: written * 160,
            last_sequence: Some(last_sequence),
            ..StreamCounts::default()
        }
    }

    fn recording() -> Recording {
        let object = serde_json::json!({
            "id": "r", "call_id": "c", "state": "recording",
            "started_at": "2026-11-25T09:00:00.000Z", "ended_at": null, "duration_ms": 0,
            "paused_ms": 0, "pauses": [], "participants": [], "verdict": null, "receipt": null,
            "tenant": null, "sip_call_ids": [], "session_id": null, "attributes": {},
        });
        let object = serde_json::from_value(object).expect("a recording");
        let mut recording = Recording::new(object, 1);
        recording.phase = Phase::Running;
        recording
    }

    fn moment() -> Moment {
        Moment::now()
    }

    fn caller(recording: &mut Recording) -> object::Tally {
        recording.refresh(moment().utc);
        recording.object.receipt.clone().expect("a receipt").caller
    }

    #[test]
    fn what_a_dead_dataplane_captured_but_did_not_tell_is_counted() {
        let mut recording = recording();
        // Numbers 65500 to 65519 were told of, three of them dropped and one lost; the capture goes
        // on to 13, and four more are missing.
        recording.note_streams(&[stream(65_500, 20, 3, 1)]);
        recording.dataplane_died(&moment());
        recording.recounted(vec![captured(42, 8, 13)]);
        // The next dataplane heard number 20 first.
        recording.note_streams(&[stream(20, 10, 0, 0)]);
        let tally = caller(&mut recording);
        assert_eq!((tally.expected, tally.written), (66, 52));
        assert_eq!((tally.lost, tally.dropped), (5, 9));
        assert_eq!(tally.dropped_by["restart"], 6);
        assert_eq!(tally.covered_ms, 42 * 20 + 200);
    }

    #[test]
    fn a_second_death_keeps_the_first_ones_drops() {
        let mut recording = recording();
        recording.note_streams(&[stream(0, 50, 0, 0)]);
        recording.dataplane_died(&moment());
        recording.recounted(vec![captured(60, 0, 59)]);
        recording.note_streams(&[stream(65, 10, 0, 0)]);
        recording.dataplane_died(&moment());
        // All of it: 0 to 59, and 65 to 84.
        recording.recounted(vec![captured(80, 5, 84)]);
        recording.note_streams(&[stream(90, 10, 0, 0)]);
        let tally = caller(&mut recording);
        assert_eq!((tally.expected, tally.written, tally.lost), (100, 90, 0));
        assert_eq!(tally.dropped_by["restart"], 10);
    }

    #[test]
    fn what_a_dead_dataplane_counted_outlives_us() {
        let mut recording = recording();
        recording.note_streams(&[stream(65_500, 20, 3, 1)]);
        recording.dataplane_died(&moment());
        recording.recounted(vec![captured(42, 8, 13)]);
        let json = serde_json::to_vec(&recording).expect("JSON");
        let mut again: Recording = serde_json::from_slice(&json).expect("as written");
        for one in [&mut recording, &mut again] {
            one.note_streams(&[stream(20, 10, 0, 0)]);
        }
        let tally = caller(&mut again);
        assert_eq!((tally.expected, tally.written), (66, 52));
        assert_eq!(tally.dropped_by["restart"], 6);
        assert_eq!(tally, caller(&mut recording));
    }

    #[test]
    fn packets_not_captured_in_a_pause_are_not_missing_over_a_restart() {
        let mut recording = recording();
        recording.note_streams(&[stream(0, 50, 0, 0)]);
        recording.phase = Phase::Paused;
        recording.dataplane_died(&moment());
        recording.recounted(vec![captured(50, 0, 49)]);
        recording.note_streams(&[stream(500, 10, 0, 0)]);
        let tally = caller(&mut recording);
        assert_eq!((tally.expected, tally.written), (60, 60));
    }
}
