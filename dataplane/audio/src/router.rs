//! From frames to runs: which packets belong to one continuous numbering of one source.
//!
//! A run is what one sender numbers on: the same side, m-line and SSRC, its sequence numbers
//! extended over their wraps. Classic blobs have no SSRC, and a transfer changes the numbering
//! without a marker, so a jump that neither sequence nor timestamp explains begins a new run.
//! The outcome depends on the frames alone: both passes route alike.

use std::collections::HashMap;
use trunkline_codec::{Format, telephone_event::EventReport};
use trunkline_sn3::{CaptureFormat, Frame};

/// Runs of one source that late packets may still belong to.
const OPEN_MAX: usize = 4;
/// Runs of one capture; packets beyond belong to none (a hostile file, not a call).
pub(crate) const RUNS_MAX: usize = 65_536;
/// Sequence distances within which two packets may belong to one run (RFC 3550 appendix A.1).
const FORWARD_MAX: i64 = 3_000;
const BACKWARD_MAX: i64 = 1_000;
/// A packet that is later than this is no straggler: its source has begun its numbering again
/// (a file played in a loop), ns.
const STRAGGLER_MAX_NS: i64 = 2_000_000_000;
/// Capture times that jump further than this are damage until the next frame agrees.
const WALL_FORWARD_MAX_NS: i64 = 12 * 3_600 * 1_000_000_000;
const WALL_BACKWARD_MAX_NS: i64 = 60 * 1_000_000_000;
/// Timestamps of SN2 that jump further forward are a change of source, not silence.
const SN2_SILENCE_MAX_NS: i64 = 600 * 1_000_000_000;
const SN2_BACKWARD_MAX_NS: i64 = 10 * 1_000_000_000;

/// Where a packet belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Routed {
    /// Index of the run, in order of first appearance.
    pub(crate) run: usize,
    /// Extended sequence number.
    pub(crate) sequence: i64,
    /// Extended timestamp.
    pub(crate) ticks: i64,
    /// Capture time, ns since the recording's origin (made up where the format has none).
    pub(crate) wall_ns: i64,
}

/// Identity of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SourceKey {
    pub(crate) side: u8,
    pub(crate) media: u8,
    pub(crate) ssrc: Option<u32>,
}

#[derive(Debug, Default)]
struct RunState {
    sequence: i64,
    ticks: i64,
    wall_ns: i64,
    /// Last timestamp step between neighbours.
    step: i64,
    /// Capture time a sequence number, on average.
    interval_ns: i64,
    /// SN2: what is added to media time to get a capture time.
    offset_ns: i64,
}

/// Assigns frames to runs.
#[derive(Debug)]
pub(crate) struct Router {
    format: CaptureFormat,
    /// Formats of the runs where known: only captures without clock need them.
    formats: Vec<Option<Format>>,
    runs: Vec<RunState>,
    keys: Vec<SourceKey>,
    /// Open runs of each source, the last used first.
    open: HashMap<SourceKey, Vec<usize>>,
    last_key: Option<(SourceKey, usize)>,
    wall_ns: Option<i64>,
    suspect_wall_ns: Option<i64>,
    /// End of the sound so far of each side, for captures without clock.
    end_ns: [i64; 2],
}

impl Router {
    pub(crate) fn new(format: CaptureFormat, formats: Vec<Option<Format>>) -> Self {
        Self {
            format,
            formats,
            runs: Vec::new(),
            keys: Vec::new(),
            open: HashMap::new(),
            last_key: None,
            wall_ns: None,
            suspect_wall_ns: None,
            end_ns: [0; 2],
        }
    }

    /// Sources of the runs so far, by run index.
    pub(crate) fn keys(&self) -> &[SourceKey] {
        &self.keys
    }

    /// Where this frame of sound or events belongs; `None` for frames whose capture time is
    /// nonsense, and when there are too many runs.
    pub(crate) fn route(&mut self, frame: &Frame<'_>) -> Option<Routed> {
        let key = SourceKey {
            side: frame.side & 1,
            media: frame.media,
            ssrc: frame.ssrc,
        };
        if !self.format.has_sequence() {
            return self.route_by_order(key, &frame.payload);
        }
        let wall_ns = i64::try_from(frame.wall_ns).unwrap_or(i64::MAX);
        if self.format.has_wall() && !self.wall_is_plausible(wall_ns) {
            return None;
        }
        let routed = match self.find(key, frame.seq, frame.rtp_ts, wall_ns) {
            Some(routed) => routed,
            None => self.begin_run(key, i64::from(frame.seq), i64::from(frame.rtp_ts), wall_ns)?,
        };
        if self.format.has_wall() {
            return Some(routed);
        }
        Some(self.with_made_up_clock(key, routed, &frame.payload))
    }

    fn wall_is_plausible(&mut self, wall_ns: i64) -> bool {
        let near = |reference: i64| {
            let ahead = wall_ns.saturating_sub(reference);
            (-WALL_BACKWARD_MAX_NS..=WALL_FORWARD_MAX_NS).contains(&ahead)
        };
        let plausible = self.wall_ns.map_or(wall_ns <= WALL_FORWARD_MAX_NS, near)
            || self.suspect_wall_ns.is_some_and(near);
        if plausible {
            self.wall_ns = Some(wall_ns);
            self.suspect_wall_ns = None;
        } else {
            self.suspect_wall_ns = Some(wall_ns);
        }
        plausible
    }

    fn find(&mut self, key: SourceKey, seq: u16, rtp_ts: u32, wall_ns: i64) -> Option<Routed> {
        if let Some((last, run)) = self.last_key
            && last == key
            && let Some(routed) = self.runs[run].accept(run, seq, rtp_ts, wall_ns)
        {
            return Some(routed);
        }
        let open = self.open.get_mut(&key)?;
        for index in 0..open.len() {
            let run = open[index];
            if let Some(routed) = self.runs[run].accept(run, seq, rtp_ts, wall_ns) {
                open[..=index].rotate_right(1);
                self.last_key = Some((key, run));
                return Some(routed);
            }
        }
        None
    }

    fn begin_run(&mut self, key: SourceKey, seq: i64, ticks: i64, wall_ns: i64) -> Option<Routed> {
        if self.runs.len() >= RUNS_MAX {
            return None;
        }
        let run = self.runs.len();
        self.runs.push(RunState {
            sequence: seq,
            ticks,
            wall_ns,
            offset_ns: i64::MIN,
            ..RunState::default()
        });
        self.keys.push(key);
        let open = self.open.entry(key).or_default();
        open.insert(0, run);
        open.truncate(OPEN_MAX);
        self.last_key = Some((key, run));
        Some(Routed {
            run,
            sequence: seq,
            ticks,
            wall_ns,
        })
    }

    /// SN1: one run a side, each payload after the one before.
    fn route_by_order(&mut self, key: SourceKey, payload: &[u8]) -> Option<Routed> {
        let routed = match self.open.get(&key).and_then(|open| open.first()).copied() {
            Some(run) => {
                let state = &mut self.runs[run];
                state.sequence += 1;
                Routed {
                    run,
                    sequence: state.sequence,
                    ticks: state.ticks,
                    wall_ns: 0,
                }
            }
            None => self.begin_run(key, 0, 0, 0)?,
        };
        let format = self.formats.get(routed.run).copied().flatten();
        let format = format.unwrap_or(Format::usual(trunkline_codec::CodecKind::Pcmu));
        let wall_ns = media_ns(routed.ticks, format.clock_hz);
        if !EventReport::resembles(payload) {
            self.runs[routed.run].ticks += duration_ticks(&format, payload);
        }
        Some(Routed { wall_ns, ..routed })
    }

    /// SN2: capture times as if every packet had come just in time.
    fn with_made_up_clock(&mut self, key: SourceKey, routed: Routed, payload: &[u8]) -> Routed {
        let Some(format) = self.formats.get(routed.run).copied().flatten() else {
            return Routed {
                wall_ns: 0,
                ..routed
            };
        };
        let end_ns = &mut self.end_ns[usize::from(key.side)];
        let state = &mut self.runs[routed.run];
        let media = media_ns(routed.ticks, format.clock_hz);
        let expected = media.saturating_add(state.offset_ns);
        let jump = expected.saturating_sub(*end_ns);
        if state.offset_ns == i64::MIN
            || !(-SN2_BACKWARD_MAX_NS..SN2_SILENCE_MAX_NS).contains(&jump)
        {
            state.offset_ns = *end_ns - media;
        }
        let wall_ns = media + state.offset_ns;
        let duration = media_ns(duration_ticks(&format, payload), format.clock_hz);
        *end_ns = (*end_ns).max(wall_ns + duration);
        Routed { wall_ns, ..routed }
    }
}

impl RunState {
    fn accept(&mut self, run: usize, seq: u16, rtp_ts: u32, wall_ns: i64) -> Option<Routed> {
        let delta = i64::from(seq.wrapping_sub(self.sequence as u16) as i16);
        if !(-BACKWARD_MAX..=FORWARD_MAX).contains(&delta) {
            return None;
        }
        let tick_delta = i64::from(rtp_ts.wrapping_sub(self.ticks as u32) as i32);
        let elapsed_ns = wall_ns.saturating_sub(self.wall_ns);
        let behind_ns = elapsed_ns.saturating_sub(delta.saturating_mul(self.interval_ns));
        if delta < -5 && behind_ns > STRAGGLER_MAX_NS {
            return None;
        }
        // A neighbour may carry any timestamp (a pause, a restarted clock). A distant sequence
        // number belongs only when the timestamp explains it.
        if delta.abs() > 5 {
            let stepped = delta.abs() * self.step.max(160);
            let elapsed_s = elapsed_ns.max(0) / 1_000_000_000;
            let most = stepped + 48_000 * (10 + elapsed_s);
            if tick_delta.signum() != delta.signum() || tick_delta.abs() > most {
                return None;
            }
        }
        let routed = Routed {
            run,
            sequence: self.sequence + delta,
            ticks: self.ticks + tick_delta,
            wall_ns,
        };
        if delta > 0 {
            if delta == 1 && tick_delta > 0 {
                self.step = tick_delta.min(48_000);
            }
            if elapsed_ns / delta < 200_000_000 {
                self.interval_ns += (elapsed_ns / delta - self.interval_ns) / 8;
            }
            self.sequence = routed.sequence;
            self.ticks = routed.ticks;
            self.wall_ns = wall_ns;
        }
        Some(routed)
    }
}

/// Ticks of an RTP clock in ns.
pub(crate) fn media_ns(ticks: i64, clock_hz: u32) -> i64 {
    // Bounded so that sums of a few such times cannot overflow.
    let bound = i128::from(i64::MAX / 8);
    let ns = i128::from(ticks) * 1_000_000_000 / i128::from(clock_hz.max(1));
    ns.clamp(-bound, bound) as i64
}

/// RTP ticks that a payload covers, 0 when it is not a frame of the format.
pub(crate) fn duration_ticks(format: &Format, payload: &[u8]) -> i64 {
    let samples = format.samples(payload).unwrap_or(0) as i64;
    samples * i64::from(format.clock_hz) / i64::from(format.rate_hz().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::Cow;
    use trunkline_sn3::FrameKind;

    fn frame(seq: u16, rtp_ts: u32, wall_ms: u64) -> Frame<'static> {
        Frame {
            kind: FrameKind::Rtp,
            side: 0,
            media: 0,
            ssrc: None,
            pt: None,
            marker: false,
            flags: 0,
            seq,
            seq_cycles: 0,
            rtp_ts,
            wall_ns: wall_ms * 1_000_000,
            payload: Cow::Borrowed(&[0xFF; 160]),
            offset: 0,
        }
    }

    fn route_all(frames: &[(u16, u32, u64)]) -> Vec<Option<(usize, i64, i64)>> {
        let mut router = Router::new(CaptureFormat::Sn3, Vec::new());
        frames
            .iter()
            .map(|&(seq, ts, wall)| router.route(&frame(seq, ts, wall)))
            .map(|routed| routed.map(|routed| (routed.run, routed.sequence, routed.ticks)))
            .collect()
    }

    #[test]
    fn wraps_of_sequence_and_timestamp_stay_in_one_run() {
        let routed = route_all(&[
            (65_534, u32::MAX - 159, 0),
            (65_535, 0, 20),
            (1, 320, 40),
            (0, 160, 41),
        ]);
        let last = 1_i64 << 32;
        assert_eq!(
            routed,
            [
                Some((0, 65_534, last - 160)),
                Some((0, 65_535, last)),
                Some((0, 65_537, last + 320)),
                Some((0, 65_536, last + 160)),
            ]
        );
    }

    #[test]
    fn a_transfer_begins_a_run_and_stragglers_find_theirs() {
        let routed = route_all(&[
            (100, 16_000, 0),
            (101, 16_160, 20),
            (40_000, 900_000, 40),
            (102, 16_320, 45),
            (40_001, 900_160, 60),
        ]);
        let runs: Vec<usize> = routed.iter().map(|routed| routed.unwrap().0).collect();
        assert_eq!(runs, [0, 0, 1, 0, 1]);
    }

    #[test]
    fn a_nearby_sequence_number_with_a_foreign_timestamp_is_another_source() {
        let routed = route_all(&[
            (1_000, 16_000, 0),
            (1_001, 16_160, 20),
            (900, 4_000_000_000, 40),
            (901, 4_000_000_160, 60),
        ]);
        let runs: Vec<usize> = routed.iter().map(|routed| routed.unwrap().0).collect();
        assert_eq!(runs, [0, 0, 1, 1]);
    }

    #[test]
    fn a_capture_time_of_centuries_is_damage() {
        let routed = route_all(&[(1, 0, 0), (2, 160, 1 << 40), (3, 320, 40)]);
        assert_eq!(
            routed.iter().map(Option::is_some).collect::<Vec<_>>(),
            [true, false, true]
        );
    }
}
