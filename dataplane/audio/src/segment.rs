//! Placement: where the packets of one run lie in time.
//!
//! The delay of a packet is its capture time less its media time. Jitter only ever adds to the
//! delay, so its lower envelope is where the sound belongs: one late packet, or a burst after a
//! stall, moves nothing. A run is cut into segments where the envelope itself jumps for good:
//! after a pause with continuous timestamps, when the sender restarts its clock, when the clock
//! rate changes. Within a segment a steady drift of the sender's clock is fitted by a line.

use crate::drift::{Envelope, Line};
use crate::router::media_ns;

/// Delays that differ by less are jitter, ns.
const JUMP_NS: i64 = 40_000_000;
/// A higher delay that lasts this long is there to stay, ns.
const CONFIRM_NS: i64 = 3_000_000_000;
/// A jump in the sender's timestamps is believed after this many packets.
const CONFIRM_PACKETS: u32 = 3;
/// A single packet later than this came after a pause, not after a stall.
const LAST_PACKET_NS: i64 = 500_000_000;
/// So few packets that are no later than this were overtaken; a pause is longer.
const FEW_PACKETS: u32 = 8;
const OVERTAKEN_NS: i64 = 100_000_000;
/// Delays beyond this are not waited for.
pub(crate) const LATENESS_MAX_NS: i64 = 60_000_000_000;
const SEGMENTS_MAX: usize = 100_000;

/// One packet of sound as placement sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) sequence: i64,
    pub(crate) ticks: i64,
    pub(crate) clock_hz: u32,
    pub(crate) wall_ns: i64,
    pub(crate) duration_ns: i64,
}

/// A stretch of a run with one relation between media time and capture time.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    /// First sequence number; the segment reaches to the next one's.
    pub(crate) first_sequence: i64,
    /// Timestamp of its first packet.
    pub(crate) first_ticks: i64,
    /// RTP clock in Hz.
    pub(crate) clock_hz: u32,
    /// Delay as a line over media time.
    pub(crate) delay: Line,
    /// Media time at which its sound ends.
    pub(crate) end_media_ns: i64,
    /// How late packets came, at most, after the time they belong to.
    pub(crate) lateness_ns: i64,
}

impl Segment {
    /// Time since the recording's origin, in ns, at which the sound with this timestamp belongs.
    pub(crate) fn time_ns(&self, ticks: i64) -> i64 {
        let media = media_ns(ticks, self.clock_hz);
        media.saturating_add(self.delay.at(media))
    }

    /// When the segment's sound begins and ends.
    pub(crate) fn span_ns(&self) -> (i64, i64) {
        let end = self.end_media_ns;
        (
            self.time_ns(self.first_ticks),
            end.saturating_add(self.delay.at(end)),
        )
    }
}

/// A segment still growing.
#[derive(Debug, Clone)]
struct Draft {
    first_sequence: i64,
    first_ticks: i64,
    clock_hz: u32,
    envelope: Envelope,
    end_media_ns: i64,
    latest_ns: i64,
}

/// A possible next segment.
#[derive(Debug, Clone)]
struct Candidate {
    draft: Draft,
    /// Begun by a jump of the sender's timestamps rather than by a late packet.
    jump: bool,
    packets: u32,
    first: Arrival,
    first_delay: i64,
    last_delay: i64,
    last_media_ns: i64,
}

/// Cuts a run into segments as its packets come, in capture order.
#[derive(Debug, Default)]
pub(crate) struct Tracker {
    done: Vec<Draft>,
    current: Option<Draft>,
    candidate: Option<Candidate>,
    last: Option<(i64, i64, i64)>,
}

impl Draft {
    fn new(packet: &Arrival, media: i64, delay: i64) -> Self {
        let mut draft = Self {
            first_sequence: packet.sequence,
            first_ticks: packet.ticks,
            clock_hz: packet.clock_hz,
            envelope: Envelope::default(),
            end_media_ns: media,
            latest_ns: delay,
        };
        draft.add(packet, media, delay);
        draft
    }

    fn add(&mut self, packet: &Arrival, media: i64, delay: i64) {
        self.envelope.add(media, delay);
        self.end_media_ns = self.end_media_ns.max(media + packet.duration_ns);
        self.latest_ns = self.latest_ns.max(delay);
    }

    /// Takes a packet that may have been overtaken by the first one.
    fn add_early(&mut self, packet: &Arrival, media: i64, delay: i64) {
        if packet.sequence < self.first_sequence && packet.ticks < self.first_ticks {
            self.first_sequence = packet.sequence;
            self.first_ticks = packet.ticks;
        }
        self.add(packet, media, delay);
    }

    /// How far a delay is from what is usual here.
    fn distance(&self, delay: i64) -> i64 {
        delay.saturating_sub(self.envelope.recent())
    }

    fn merge(&mut self, other: &Self) {
        self.envelope.merge(&other.envelope);
        self.end_media_ns = self.end_media_ns.max(other.end_media_ns);
        self.latest_ns = self.latest_ns.max(other.latest_ns);
    }

    fn finish(self) -> Segment {
        let delay = self.envelope.line();
        let lateness = self.latest_ns.saturating_sub(self.envelope.lowest());
        Segment {
            first_sequence: self.first_sequence,
            first_ticks: self.first_ticks,
            clock_hz: self.clock_hz,
            delay,
            end_media_ns: self.end_media_ns,
            lateness_ns: lateness.clamp(0, LATENESS_MAX_NS),
        }
    }
}

impl Candidate {
    /// Whether its packets were only late: they caught up, or are few and nearly in time.
    fn was_late(&self, current: &Draft) -> bool {
        let late = current.distance(self.first_delay);
        if self.jump {
            return false;
        }
        if self.packets == 1 {
            return late < LAST_PACKET_NS;
        }
        let span = self.last_media_ns - media_ns(self.first.ticks, self.first.clock_hz);
        let caught_up = self.first_delay.saturating_sub(self.last_delay);
        let still_late = current.distance(self.draft.envelope.lowest());
        (caught_up > span / 2 && still_late < late / 2)
            || (self.packets < FEW_PACKETS && late < OVERTAKEN_NS)
    }
}

impl Tracker {
    /// Takes the next packet and returns how much later it came than its neighbours, in ns.
    pub(crate) fn add(&mut self, packet: &Arrival) -> i64 {
        let media = media_ns(packet.ticks, packet.clock_hz);
        let delay = packet.wall_ns.saturating_sub(media);
        let same_clock = self
            .current
            .as_ref()
            .is_some_and(|d| d.clock_hz == packet.clock_hz);
        if !same_clock {
            self.settle();
            self.done.extend(self.current.take());
            self.last = None;
        }
        let jumped = self.timestamp_jumped(packet, media);
        let Some(current) = &mut self.current else {
            self.current = Some(Draft::new(packet, media, delay));
            return 0;
        };
        let deviation = current.distance(delay);
        let Some(candidate) = &mut self.candidate else {
            if packet.sequence < current.first_sequence {
                return self.add_straggler(packet, media, delay);
            }
            if deviation > JUMP_NS || (deviation < -JUMP_NS && jumped) {
                self.open_candidate(packet, media, delay, jumped);
            } else {
                current.add(packet, media, delay);
            }
            return deviation;
        };
        if packet.sequence < candidate.draft.first_sequence {
            let distance = candidate.draft.distance(delay);
            if distance.abs() < deviation.abs() {
                candidate.draft.add_early(packet, media, delay);
                return distance;
            }
            current.add(packet, media, delay);
            return deviation;
        }
        let negative = candidate.first_delay < current.envelope.recent();
        let returned = deviation.abs() <= JUMP_NS || (deviation < -JUMP_NS && !jumped && !negative);
        if returned {
            // A stall that was made up for, or stray timestamps that nobody followed.
            if !candidate.jump {
                current.merge(&candidate.draft);
            }
            self.candidate = None;
            current.add(packet, media, delay);
            return deviation;
        }
        let beyond = candidate.draft.distance(delay);
        if candidate.jump && beyond.abs() > JUMP_NS {
            self.open_candidate(packet, media, delay, true);
        } else if beyond > JUMP_NS {
            self.settle();
            self.open_candidate(packet, media, delay, jumped);
        } else {
            candidate.draft.add(packet, media, delay);
            candidate.packets += 1;
            candidate.last_delay = delay;
            candidate.last_media_ns = media;
            let lasted = packet.wall_ns.saturating_sub(candidate.first.wall_ns) > CONFIRM_NS;
            if lasted || (candidate.jump && candidate.packets >= CONFIRM_PACKETS) {
                self.confirm();
            }
        }
        deviation
    }

    /// The run is over.
    pub(crate) fn finish(mut self) -> Vec<Segment> {
        self.settle();
        self.done.extend(self.current.take());
        let mut segments: Vec<Segment> = self.done.into_iter().map(Draft::finish).collect();
        segments.sort_by_key(|segment| segment.first_sequence);
        segments
    }

    /// Whether the timestamp moved further than the packets in between account for.
    fn timestamp_jumped(&mut self, packet: &Arrival, media: i64) -> bool {
        let Some((sequence, last_media, duration)) = self.last else {
            self.last = Some((packet.sequence, media, packet.duration_ns));
            return false;
        };
        let steps = packet.sequence - sequence;
        if steps <= 0 {
            return false;
        }
        self.last = Some((packet.sequence, media, packet.duration_ns));
        let expected = duration.saturating_mul(steps);
        steps <= 50 && (media - last_media).saturating_sub(expected).abs() > JUMP_NS
    }

    fn open_candidate(&mut self, packet: &Arrival, media: i64, delay: i64, jump: bool) {
        self.candidate = Some(Candidate {
            draft: Draft::new(packet, media, delay),
            jump,
            packets: 1,
            first: *packet,
            first_delay: delay,
            last_delay: delay,
            last_media_ns: media,
        });
    }

    fn confirm(&mut self) {
        let Some(candidate) = self.candidate.take() else {
            return;
        };
        if self.done.len() < SEGMENTS_MAX {
            self.done.extend(self.current.take());
        }
        self.current = Some(candidate.draft);
    }

    /// Takes a packet from before the current segment: one that its first packet overtook, or a
    /// late one of the segment before.
    fn add_straggler(&mut self, packet: &Arrival, media: i64, delay: i64) -> i64 {
        let Some(current) = &mut self.current else {
            return 0;
        };
        let deviation = current.distance(delay);
        match self.done.last_mut() {
            Some(before)
                if before.clock_hz == packet.clock_hz
                    && before.distance(delay).abs() < deviation.abs() =>
            {
                let distance = before.distance(delay);
                before.add(packet, media, delay);
                distance
            }
            _ => {
                current.add_early(packet, media, delay);
                deviation
            }
        }
    }

    /// Decides about a candidate that does not go on.
    fn settle(&mut self) {
        let (Some(candidate), Some(current)) = (&self.candidate, &mut self.current) else {
            return;
        };
        if candidate.was_late(current) {
            current.merge(&candidate.draft);
            self.candidate = None;
        } else {
            self.confirm();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    /// Packets of 20 ms at 8 kHz: (sequence, timestamp in ms, capture time in ms).
    fn segments(packets: impl IntoIterator<Item = (i64, i64, i64)>) -> Vec<(i64, i64)> {
        let mut tracker = Tracker::default();
        for (sequence, media_ms, wall_ms) in packets {
            tracker.add(&Arrival {
                sequence,
                ticks: media_ms * 8,
                clock_hz: 8_000,
                wall_ns: wall_ms * MS,
                duration_ns: 20 * MS,
            });
        }
        let describe = |s: &Segment| (s.first_sequence, s.time_ns(s.first_ticks) / MS);
        tracker.finish().iter().map(describe).collect()
    }

    #[test]
    fn a_plain_run_is_one_segment_at_its_first_arrival() {
        assert_eq!(
            segments((0..500).map(|n| (n, 7_000 + n * 20, 30 + n * 20))),
            [(0, 30)]
        );
    }

    #[test]
    fn a_stall_and_its_burst_move_nothing() {
        let stall = |n: i64| {
            if (100..115).contains(&n) {
                30 + 115 * 20
            } else {
                30 + n * 20
            }
        };
        assert_eq!(segments((0..500).map(|n| (n, n * 20, stall(n)))), [(0, 30)]);
        let at_start = |n: i64| if n < 15 { 330 } else { 30 + n * 20 };
        assert_eq!(
            segments((0..500).map(|n| (n, n * 20, at_start(n)))),
            [(0, 30)]
        );
        let at_end = |n: i64| if n >= 490 { 30 + 500 * 20 } else { 30 + n * 20 };
        assert_eq!(
            segments((0..500).map(|n| (n, n * 20, at_end(n)))),
            [(0, 30)]
        );
    }

    #[test]
    fn a_pause_with_continuous_timestamps_begins_a_segment() {
        let wall =
            |n: i64| n * 20 + if n < 100 { 0 } else { 2_000 } + if n < 150 { 0 } else { 700 };
        let found = segments((0..200).map(|n| (n, n * 20, wall(n))));
        assert_eq!(found, [(0, 0), (100, 4_000), (150, 5_700)]);
    }

    #[test]
    fn a_restarted_clock_begins_a_segment_and_a_stray_timestamp_does_not() {
        let media = |n: i64| if n < 100 { n * 20 } else { 900_000 + n * 20 };
        assert_eq!(
            segments((0..200).map(|n| (n, media(n), n * 20))),
            [(0, 0), (100, 2_000)]
        );
        let stray = |n: i64| if n == 100 { 50_000 } else { n * 20 };
        assert_eq!(segments((0..200).map(|n| (n, stray(n), n * 20))), [(0, 0)]);
    }

    #[test]
    fn silence_that_the_timestamps_count_is_no_break() {
        let time = |n: i64| n * 20 + if n < 100 { 0 } else { 5_000 };
        assert_eq!(
            segments((0..200).map(|n| (n, time(n), time(n) + 10))),
            [(0, 10)]
        );
    }
}
