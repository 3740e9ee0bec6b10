//! The streams (SSRCs) that one side sends on one m-line: statistics, and how they are renumbered
//! so that a change of source sounds like one stream at the far end.

use std::mem::offset_of;

use trunkline_rtp::sequence::DROPOUT_MAX;
use trunkline_rtp::{Arrival, Clock, Jitter, Observed, RtpHeader, SequenceTracker};

use crate::flow::CACHE_LINE;
use crate::spec::{Codec, Continuity, PayloadSpec, SSRCS_MAX, StreamStats};
use crate::tap::{Live, Tap};

/// No payload type equals it.
const NO_PAYLOAD: u8 = 0xff;
/// The stream is not in the tap's list.
pub(crate) const NOT_TAPPED: u16 = u16::MAX;
/// Silence from which on a larger gap than [`DROPOUT_MAX`] may be an outage.
const OUTAGE_NS: u64 = 10_000_000_000;

/// What is known of a payload type.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Payload {
    pub(crate) to_pt: u8,
    pub(crate) codec: Codec,
    pub(crate) clock: Clock,
    pub(crate) negotiated: bool,
}

impl Payload {
    fn find(payloads: &[PayloadSpec], payload_type: u8) -> Self {
        match payloads.iter().find(|payload| payload.pt == payload_type) {
            Some(found) => Self {
                to_pt: found.to_pt,
                codec: found.codec,
                clock: Clock::new(found.clock_hz),
                negotiated: true,
            },
            None => Self {
                to_pt: payload_type,
                codec: Codec::Other,
                clock: Clock::new(payloads.first().map_or(0, |payload| payload.clock_hz)),
                negotiated: false,
            },
        }
    }
}

/// How a stream is shown to the far end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Numbering {
    pub(crate) ssrc: u32,
    pub(crate) sequence_offset: u16,
    pub(crate) timestamp_offset: u32,
    /// Added to the extended sequence number of reports.
    pub(crate) extended_offset: u32,
    /// Anything differs from what is received.
    pub(crate) changed: bool,
}

impl Numbering {
    fn unchanged(ssrc: u32) -> Self {
        Self {
            ssrc,
            sequence_offset: 0,
            timestamp_offset: 0,
            extended_offset: 0,
            changed: false,
        }
    }

    /// As it is told of a stream that is received as `ssrc_in`.
    pub(crate) fn continuity(&self, ssrc_in: u32) -> Continuity {
        Continuity {
            ssrc_in,
            ssrc_out: self.ssrc,
            sequence_offset: self.sequence_offset,
            timestamp_offset: self.timestamp_offset,
        }
    }

    fn restored(continuity: &Continuity) -> Self {
        Self {
            ssrc: continuity.ssrc_out,
            sequence_offset: continuity.sequence_offset,
            timestamp_offset: continuity.timestamp_offset,
            extended_offset: u32::from(continuity.sequence_offset),
            changed: true,
        }
    }
}

impl Ours {
    /// The numbering that makes `header` the next packet of what the far end knows as ours.
    fn continued_as(&self, now_ns: u64, clock: Clock, header: &RtpHeader) -> Numbering {
        let waited_ns = now_ns.saturating_sub(self.next_ns);
        let timestamp = self
            .next_timestamp
            .wrapping_add(clock.ticks(waited_ns) as u32);
        let next = u32::from(self.sequence).wrapping_add(1);
        let extended_offset = next.wrapping_sub(u32::from(header.sequence));
        Numbering {
            ssrc: self.ssrc,
            sequence_offset: extended_offset as u16,
            timestamp_offset: timestamp.wrapping_sub(header.timestamp),
            extended_offset,
            changed: true,
        }
    }
}

/// The later of two timestamps.
pub(crate) fn later(one: u32, other: u32) -> u32 {
    if one.wrapping_sub(other) < 1 << 31 {
        one
    } else {
        other
    }
}

/// One SSRC. Fields are in the order of memory: a packet in order needs the first two cache lines, one
/// of the two that say what was seen, and the run in progress where it is recorded.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Stream {
    pub(crate) ssrc: u32,
    /// Index in the tap's list, and the run in progress there (`live`).
    pub(crate) tapped: u16,
    /// Payload type that `payload` was looked up for.
    payload_type: u8,
    /// Its source is no longer the accepted one.
    retired: bool,
    pub(crate) payload: Payload,
    pub(crate) numbering: Numbering,
    /// The timestamp that came with the highest sequence number, and when it first came.
    timestamp: u32,
    timestamp_ns: u64,
    pub(crate) last_ns: u64,
    packets: u64,
    bytes: u64,
    distinct: u64,
    jitter: Jitter,
    tracker: SequenceTracker,
    pub(crate) live: Live,
    first_ns: u64,
    /// Lowest extended number of the run that the tracker follows.
    base: u64,
    /// Expected in earlier runs, and strays.
    expected_before: u64,
    duplicates: u64,
    reordered: u64,
}

const _: () = {
    let tracker = offset_of!(Stream, tracker);
    assert!(tracker + SequenceTracker::NUMBERS_BYTES <= 2 * CACHE_LINE);
    assert!(offset_of!(Stream, live).is_multiple_of(CACHE_LINE));
    assert!(size_of::<Stream>() == Stream::LINES * CACHE_LINE);
};

impl Stream {
    /// Cache lines, and those of a packet that is not recorded.
    pub(crate) const LINES: usize = 6;
    pub(crate) const LINES_UNRECORDED: usize = offset_of!(Self, live) / CACHE_LINE;

    fn new(now_ns: u64, header: &RtpHeader, numbering: Numbering) -> Self {
        let tracker = SequenceTracker::new(header.sequence);
        Self {
            ssrc: header.ssrc,
            payload_type: NO_PAYLOAD,
            payload: Payload::find(&[], header.payload_type),
            numbering,
            tapped: NOT_TAPPED,
            live: Live::default(),
            retired: false,
            base: tracker.highest(),
            tracker,
            jitter: Jitter::default(),
            timestamp: header.timestamp,
            timestamp_ns: now_ns,
            last_ns: now_ns,
            first_ns: now_ns,
            packets: 0,
            bytes: 0,
            expected_before: 0,
            distinct: 0,
            duplicates: 0,
            reordered: 0,
        }
    }

    /// Largest jump ahead that counts as loss now: more than usual after a long silence in which so
    /// many packets would have come at the stream's own pace.
    fn dropout_max(&self, now_ns: u64) -> u16 {
        let silence = now_ns.saturating_sub(self.last_ns);
        if silence < OUTAGE_NS {
            return DROPOUT_MAX;
        }
        let heard_for = self.last_ns.saturating_sub(self.first_ns).max(1);
        let missed = u128::from(silence) * u128::from(self.packets) / u128::from(heard_for);
        (missed * 4 / 3).clamp(u128::from(DROPOUT_MAX), 0x7fff) as u16
    }

    /// Whether a packet from elsewhere goes on where this stream stopped.
    pub(crate) fn is_continued_by(&self, now_ns: u64, header: &RtpHeader) -> bool {
        let ahead = header.sequence.wrapping_sub(self.tracker.highest() as u16);
        header.ssrc == self.ssrc && ahead != 0 && ahead < self.dropout_max(now_ns)
    }

    /// Counts a packet. `first`: it made this stream.
    #[inline]
    fn observe(&mut self, now_ns: u64, header: &RtpHeader, bytes: usize, first: bool) -> Observed {
        self.packets += 1;
        self.bytes += bytes as u64;
        let before = self.tracker.highest();
        let observed = if first {
            Observed {
                arrival: Arrival::Next { gap: 0 },
                extended: before,
            }
        } else {
            self.tracker
                .observe(header.sequence, self.dropout_max(now_ns))
        };
        match observed.arrival {
            Arrival::Next { .. } => {
                self.distinct += 1;
                self.observe_time(now_ns, header);
            }
            Arrival::Late => {
                self.distinct += 1;
                self.reordered += 1;
                self.base = self.base.min(observed.extended);
            }
            Arrival::Duplicate => self.duplicates += 1,
            Arrival::Stray => {
                self.distinct += 1;
                self.expected_before += 1;
            }
            Arrival::Restart => {
                self.distinct += 1;
                self.expected_before += before - self.base + 1;
                self.base = observed.extended;
                self.jitter.break_off();
                self.observe_time(now_ns, header);
            }
        }
        self.last_ns = now_ns;
        observed
    }

    /// Timestamp and jitter of the packet with the highest number.
    #[inline]
    fn observe_time(&mut self, now_ns: u64, header: &RtpHeader) {
        if self.timestamp != header.timestamp {
            self.timestamp = header.timestamp;
            self.timestamp_ns = now_ns;
        }
        // The packets of an event share its timestamp: their transit times say nothing.
        if self.payload.codec != Codec::TelephoneEvent {
            self.jitter
                .observe(self.payload.clock.ticks(now_ns), header.timestamp);
        }
    }

    /// The numbering that makes `header` the next packet of what the far end knows as this stream.
    fn continued_as(&self, now_ns: u64, header: &RtpHeader) -> Numbering {
        let highest = self.tracker.highest();
        let next_sequence = (highest as u16)
            .wrapping_add(self.numbering.sequence_offset)
            .wrapping_add(1);
        let shown = self.timestamp.wrapping_add(self.numbering.timestamp_offset);
        let now = self.shown_timestamp(now_ns);
        let next_timestamp = if now == shown {
            now.wrapping_add(1)
        } else {
            now
        };
        let next_extended = self
            .tracker
            .highest_reported()
            .wrapping_add(self.numbering.extended_offset)
            .wrapping_add(1);
        let sequence_offset = next_sequence.wrapping_sub(header.sequence);
        let timestamp_offset = next_timestamp.wrapping_sub(header.timestamp);
        Numbering {
            ssrc: self.numbering.ssrc,
            sequence_offset,
            timestamp_offset,
            extended_offset: next_extended.wrapping_sub(u32::from(header.sequence)),
            changed: true,
        }
    }

    /// The timestamp that the far end would see on a packet of this moment.
    pub(crate) fn shown_timestamp(&self, now_ns: u64) -> u32 {
        let elapsed_ns = now_ns.saturating_sub(self.timestamp_ns);
        self.timestamp
            .wrapping_add(self.numbering.timestamp_offset)
            .wrapping_add(self.payload.clock.ticks(elapsed_ns) as u32)
    }

    /// Whether nothing of a later time was received.
    pub(crate) fn is_newest(&self, header: &RtpHeader) -> bool {
        self.timestamp == header.timestamp
    }

    /// Shows what is received from here on as late enough that `header` is not before `timestamp`.
    pub(crate) fn not_before(&mut self, timestamp: u32, header: &RtpHeader) {
        let numbering = &mut self.numbering;
        let shown = header.timestamp.wrapping_add(numbering.timestamp_offset);
        let missing = later(shown, timestamp).wrapping_sub(shown);
        if missing > 0 {
            numbering.timestamp_offset = numbering.timestamp_offset.wrapping_add(missing);
            numbering.changed = true;
        }
    }

    fn find_payload(&mut self, payloads: &[PayloadSpec], payload_type: u8) {
        let found = Payload::find(payloads, payload_type);
        if found.clock != self.payload.clock {
            self.jitter.break_off();
        }
        self.payload = found;
        self.payload_type = payload_type;
    }
}

/// A packet's place among its side's streams.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placed {
    /// Index of its stream.
    pub(crate) index: usize,
    pub(crate) observed: Observed,
    /// It is its stream's first.
    pub(crate) first: bool,
    /// A stream was renumbered to continue another one.
    pub(crate) changed: Option<Continuity>,
    /// A stream had to give way: see [`StreamTable::take_replaced`].
    pub(crate) replaced: bool,
}

/// A stream that had to give way.
#[derive(Debug)]
pub(crate) struct Replaced {
    pub(crate) tapped: u16,
    pub(crate) live: Live,
    /// Its source was still the accepted one.
    pub(crate) evicted: bool,
}

/// The streams of one side of an m-line, at most [`SSRCS_MAX`]. What a packet needs comes first.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct StreamTable {
    streams: Vec<Stream>,
    /// The one heard last.
    current: u32,
    /// The source has changed: the next packet continues the current stream.
    source_changed: bool,
    restored: Option<Continuity>,
    /// The stream that gave way last.
    replaced: Option<Replaced>,
    /// What we sent in the side's place before it sent anything.
    ours: Option<Ours>,
}

/// A stream of ours, as the far end sees it.
#[derive(Debug, Clone, Copy)]
struct Ours {
    ssrc: u32,
    sequence: u16,
    /// Timestamp of what comes next, and when that is due.
    next_timestamp: u32,
    next_ns: u64,
}

/// Where a packet of ours stands in the stream that the far end hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) ssrc: u32,
    pub(crate) sequence: u16,
}

impl StreamTable {
    /// What a packet needs.
    pub(crate) const HOT_BYTES: usize = offset_of!(Self, source_changed) + 1;

    /// An empty table; the only allocation there is.
    pub(crate) fn new() -> Self {
        Self {
            streams: Vec::with_capacity(SSRCS_MAX),
            current: 0,
            source_changed: false,
            restored: None,
            replaced: None,
            ours: None,
        }
    }

    /// The stream at `index`, as [`Placed`] says.
    #[inline]
    pub(crate) fn at(&mut self, index: usize) -> &mut Stream {
        &mut self.streams[index]
    }

    /// The stream that had to give way.
    pub(crate) fn take_replaced(&mut self) -> Option<Replaced> {
        self.replaced.take()
    }

    /// All streams.
    pub(crate) fn streams(&self) -> &[Stream] {
        &self.streams
    }

    /// Ends the runs of all streams in the tap.
    pub(crate) fn end_runs(&mut self, tap: &mut Tap) {
        for stream in &mut self.streams {
            tap.end_run(stream.tapped, &mut stream.live);
        }
    }

    /// The stream heard last.
    pub(crate) fn current(&self) -> Option<&Stream> {
        self.streams.get(self.current as usize)
    }

    /// Takes the next number of the current stream for a packet of ours: what is received after it is
    /// counted on. Where nothing was heard yet a stream of ours begins, as `fresh_ssrc`, which the first
    /// that is heard continues.
    pub(crate) fn put_in(&mut self, fresh_ssrc: u32) -> Position {
        if let Some(stream) = self.streams.get_mut(self.current as usize) {
            let numbering = &mut stream.numbering;
            numbering.sequence_offset = numbering.sequence_offset.wrapping_add(1);
            numbering.extended_offset = numbering.extended_offset.wrapping_add(1);
            numbering.changed = true;
            let highest = stream.tracker.highest() as u16;
            return Position {
                ssrc: numbering.ssrc,
                sequence: highest.wrapping_add(numbering.sequence_offset),
            };
        }
        let ours = self.ours.get_or_insert(Ours {
            ssrc: fresh_ssrc,
            sequence: 0,
            next_timestamp: 0,
            next_ns: 0,
        });
        ours.sequence = ours.sequence.wrapping_add(1);
        Position {
            ssrc: ours.ssrc,
            sequence: ours.sequence,
        }
    }

    /// The timestamp of a packet of ours that leaves now and is the first of what it says.
    pub(crate) fn timestamp_now(&self, now_ns: u64, clock: Clock) -> u32 {
        match (self.current(), self.ours) {
            (Some(stream), _) => stream.shown_timestamp(now_ns),
            (None, Some(ours)) => later(clock.ticks(now_ns) as u32, ours.next_timestamp),
            (None, None) => clock.ticks(now_ns) as u32,
        }
    }

    /// What we sent last reaches until this timestamp and moment.
    pub(crate) fn put_in_until(&mut self, next_timestamp: u32, next_ns: u64) {
        if let Some(ours) = &mut self.ours {
            (ours.next_timestamp, ours.next_ns) = (next_timestamp, next_ns);
        }
    }

    /// Packets come from another source from here on.
    pub(crate) fn change_source(&mut self) {
        self.source_changed = !self.streams.is_empty();
    }

    /// The numbering that an earlier dataplane had in force.
    pub(crate) fn restore(&mut self, continuity: Continuity) {
        self.restored = Some(continuity);
    }

    /// Payload types were negotiated anew.
    pub(crate) fn forget_payloads(&mut self) {
        for stream in &mut self.streams {
            stream.payload_type = NO_PAYLOAD;
        }
    }

    /// Counts a packet into its stream, which is made if need be.
    #[inline]
    pub(crate) fn place(
        &mut self,
        now_ns: u64,
        header: &RtpHeader,
        bytes: usize,
        payloads: &[PayloadSpec],
    ) -> Placed {
        let mut placed = Placed {
            index: self.current as usize,
            observed: Observed {
                arrival: Arrival::Stray,
                extended: 0,
            },
            first: false,
            changed: None,
            replaced: false,
        };
        let same = self
            .streams
            .get(self.current as usize)
            .is_some_and(|stream| stream.ssrc == header.ssrc);
        if !same || self.source_changed {
            self.find_or_make(now_ns, header, payloads, &mut placed);
        }
        let stream = &mut self.streams[placed.index];
        if stream.payload_type != header.payload_type {
            stream.find_payload(payloads, header.payload_type);
        }
        placed.observed = stream.observe(now_ns, header, bytes, placed.first);
        placed
    }

    #[cold]
    fn find_or_make(
        &mut self,
        now_ns: u64,
        header: &RtpHeader,
        payloads: &[PayloadSpec],
        placed: &mut Placed,
    ) {
        if std::mem::take(&mut self.source_changed) {
            return self.continue_current(now_ns, header, placed);
        }
        let known = self
            .streams
            .iter()
            .position(|s| s.ssrc == header.ssrc && !s.retired);
        placed.index = known.unwrap_or_else(|| {
            placed.first = true;
            let ours = self.ours.take().filter(|_| self.streams.is_empty());
            let numbering = match (ours, &self.restored) {
                (Some(ours), _) => {
                    let clock = Payload::find(payloads, header.payload_type).clock;
                    let numbering = ours.continued_as(now_ns, clock, header);
                    placed.changed = Some(numbering.continuity(header.ssrc));
                    numbering
                }
                (None, Some(continuity)) if continuity.ssrc_in == header.ssrc => {
                    Numbering::restored(continuity)
                }
                _ => Numbering::unchanged(header.ssrc),
            };
            self.insert(Stream::new(now_ns, header, numbering), placed)
        });
        self.current = placed.index as u32;
    }

    /// First packet of another source.
    fn continue_current(&mut self, now_ns: u64, header: &RtpHeader, placed: &mut Placed) {
        let current = &self.streams[self.current as usize];
        if current.is_continued_by(now_ns, header) {
            placed.index = self.current as usize;
            return;
        }
        let numbering = current.continued_as(now_ns, header);
        for stream in &mut self.streams {
            stream.retired = true;
        }
        placed.first = true;
        placed.changed = Some(numbering.continuity(header.ssrc));
        placed.index = self.insert(Stream::new(now_ns, header, numbering), placed);
        self.current = placed.index as u32;
    }

    /// Puts a stream in place of a retired one of its SSRC, into free room, or in place of the one
    /// that has been idle longest.
    fn insert(&mut self, stream: Stream, placed: &mut Placed) -> usize {
        let same = self.streams.iter().position(|s| s.ssrc == stream.ssrc);
        if same.is_none() && self.streams.len() < SSRCS_MAX {
            self.streams.push(stream);
            return self.streams.len() - 1;
        }
        let oldest = || {
            (0..self.streams.len())
                .min_by_key(|&index| (!self.streams[index].retired, self.streams[index].last_ns))
        };
        let index = same.or_else(oldest).expect("a full table has streams");
        let old = std::mem::replace(&mut self.streams[index], stream);
        placed.replaced = true;
        self.replaced = Some(Replaced {
            tapped: old.tapped,
            live: old.live,
            evicted: !old.retired,
        });
        index
    }

    /// The live stream that is received as `ssrc`.
    pub(crate) fn received_as(&self, ssrc: u32) -> Option<&Stream> {
        self.streams
            .iter()
            .find(|stream| stream.ssrc == ssrc && !stream.retired)
    }

    /// The live stream that is shown as `ssrc`.
    pub(crate) fn shown_as(&self, ssrc: u32) -> Option<&Stream> {
        self.streams
            .iter()
            .find(|stream| stream.numbering.ssrc == ssrc && !stream.retired)
    }

    /// Whether any stream is shown otherwise than received.
    pub(crate) fn is_renumbered(&self) -> bool {
        self.streams.iter().any(|stream| stream.numbering.changed)
    }

    /// The tap begins or ended: no stream is in its list.
    pub(crate) fn untap(&mut self) {
        for stream in &mut self.streams {
            stream.tapped = NOT_TAPPED;
            stream.live = Live::default();
        }
    }

    /// Appends the statistics of all streams.
    pub(crate) fn stats(&self, out: &mut Vec<StreamStats>) {
        out.extend(self.streams.iter().map(Stream::stats));
    }
}

impl Stream {
    fn stats(&self) -> StreamStats {
        let expected = self.expected_before + self.tracker.highest() - self.base + 1;
        StreamStats {
            ssrc: self.ssrc,
            packets: self.packets,
            bytes: self.bytes,
            lost: expected.saturating_sub(self.distinct),
            duplicates: self.duplicates,
            reordered: self.reordered,
            jitter: self.jitter.value(),
            clock_hz: self.payload.clock.rate_hz(),
            highest: self.tracker.highest_reported(),
            last_ns: self.last_ns,
        }
    }
}
