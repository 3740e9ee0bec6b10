//! A recording's receipt: what of each stream was heard, written, lost and dropped while capture ran.
//!
//! A stream's time is cut into **runs**: from its first packet (or the resume) to its last (or the
//! pause, or a restart of its numbers). Within a run everything between the lowest and the highest
//! sequence number was expected. Packets that belong to no run (a late one from before a resume, a
//! stray) are expected and heard by themselves.

use trunkline_rtp::{Arrival, Clock, Observed};

use crate::actions::Captured;
use crate::flow::CACHE_LINE;
use crate::spec::{DROP_REASONS, DropReason, MEDIA_MAX, STREAMS_MAX, Side, StreamReceipt};
use crate::stream::NOT_TAPPED;

/// Streams listed by their SSRC; the rest of [`STREAMS_MAX`] sums up what exceeds them.
const LISTED_MAX: usize = STREAMS_MAX - 2 * MEDIA_MAX;
/// A longer step between consecutive packets than a second's fifth is a pause of the sender, not
/// their duration.
const STEPS_A_SECOND: u32 = 5;

/// Which stream a packet is of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    pub(crate) side: Side,
    pub(crate) media: u8,
    pub(crate) ssrc: u32,
}

/// A packet to account for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heard {
    pub(crate) observed: Observed,
    /// It is its stream's first.
    pub(crate) first: bool,
    pub(crate) timestamp: u32,
    pub(crate) clock: Clock,
    pub(crate) payload_bytes: usize,
    pub(crate) at_ns: u64,
    pub(crate) outcome: Captured,
}

/// Consecutive numbers of one stream while capture ran. It fills a cache line.
#[derive(Debug, Clone, Copy)]
struct Run {
    clock: Clock,
    first: u64,
    highest: u64,
    /// Distinct packets within.
    heard: u64,
    /// Late packets from before `first` belong to it.
    grows_down: bool,
    timestamp: u32,
    /// Ticks from one packet to the next, as last seen.
    step: u64,
    covered_ticks: u64,
}

const _: () = assert!(size_of::<Option<Run>>() == CACHE_LINE);

impl Run {
    fn start(heard: &Heard, step: u64) -> Self {
        Self {
            clock: heard.clock,
            first: heard.observed.extended,
            highest: heard.observed.extended,
            heard: 1,
            grows_down: heard.first,
            timestamp: heard.timestamp,
            step,
            covered_ticks: 0,
        }
    }

    fn expected(&self) -> u64 {
        self.highest - self.first + 1
    }

    /// Time covered, the last packet included.
    fn covered_ns(&self) -> u64 {
        self.clock.nanoseconds(self.covered_ticks + self.step)
    }

    /// The next packet: the one before it covered the time until it, or one step when some are missing.
    fn extend(&mut self, heard: &Heard, gap: u16) {
        let elapsed = u64::from(heard.timestamp.wrapping_sub(self.timestamp));
        if gap == 0 && elapsed <= u64::from(heard.clock.rate_hz() / STEPS_A_SECOND) {
            self.covered_ticks += elapsed;
            if elapsed > 0 {
                self.step = elapsed;
            }
        } else {
            self.covered_ticks += self.step;
        }
        self.timestamp = heard.timestamp;
        self.highest = heard.observed.extended;
        self.heard += 1;
    }
}

/// A stream's run in progress, with what it adds to the account. It is kept with the stream, so
/// that a packet in order touches nothing else.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Live {
    run: Option<Run>,
    written: u64,
    bytes: u64,
    last_ns: u64,
}

impl Live {
    /// Takes a packet that goes on with the run; false when it is anything else.
    #[inline]
    pub(crate) fn follow(&mut self, heard: &Heard) -> bool {
        let (Some(run), Arrival::Next { gap }) = (&mut self.run, heard.observed.arrival) else {
            return false;
        };
        if heard.outcome != Captured::Written || heard.clock != run.clock {
            return false;
        }
        run.extend(heard, gap);
        self.written += 1;
        self.bytes += heard.payload_bytes as u64;
        self.last_ns = heard.at_ns;
        true
    }
}

/// One stream's account.
#[derive(Debug)]
struct TapStream {
    /// Everything but the run in progress; `lost` and `covered_ns` are of ended intervals.
    total: StreamReceipt,
    /// Missing in runs that ended within the interval.
    missing: u64,
    /// The last run's step, for the next one.
    step: u64,
    /// Not one stream, but all that exceed the list.
    sum: bool,
}

impl TapStream {
    fn new(side: Side, media: u8, ssrc: Option<u32>, heard: &Heard) -> Self {
        let total = StreamReceipt {
            side,
            media,
            ssrc: ssrc.unwrap_or(0),
            expected: 0,
            written: 0,
            lost: 0,
            dropped: [0; DROP_REASONS],
            duplicates: 0,
            reordered: 0,
            bytes: 0,
            first_ns: heard.at_ns,
            last_ns: heard.at_ns,
            covered_ns: 0,
            first_sequence: heard.observed.extended as u16,
        };
        Self {
            total,
            missing: 0,
            step: 0,
            sum: ssrc.is_none(),
        }
    }

    fn is_of(&self, side: Side, media: u8) -> bool {
        self.total.side == side && self.total.media == media
    }

    /// Counts a packet that does not simply follow.
    fn count(&mut self, live: &mut Live, heard: &Heard) {
        self.total.last_ns = self.total.last_ns.max(heard.at_ns);
        if heard.outcome == Captured::Written {
            self.total.bytes += heard.payload_bytes as u64;
        }
        if heard.observed.arrival == Arrival::Duplicate {
            self.total.duplicates += 1;
            return;
        }
        match heard.outcome {
            Captured::Written => self.total.written += 1,
            Captured::Dropped(reason) => self.total.dropped[reason as usize] += 1,
        }
        if self.sum {
            self.total.expected += 1;
            return;
        }
        if let Some(run) = live.run.as_mut().filter(|run| run.clock != heard.clock) {
            self.total.covered_ns += run.covered_ns();
            *run = Run {
                clock: heard.clock,
                covered_ticks: 0,
                step: 0,
                ..*run
            };
            run.timestamp = heard.timestamp;
        }
        match heard.observed.arrival {
            Arrival::Next { gap } => match &mut live.run {
                Some(run) => run.extend(heard, gap),
                None => live.run = Some(Run::start(heard, self.step)),
            },
            Arrival::Restart => {
                self.end_run(live);
                live.run = Some(Run::start(heard, self.step));
            }
            Arrival::Late => {
                self.total.reordered += 1;
                self.count_late(live, heard.observed.extended);
            }
            Arrival::Stray | Arrival::Duplicate => self.total.expected += 1,
        }
    }

    fn count_late(&mut self, live: &mut Live, extended: u64) {
        match &mut live.run {
            Some(run) if extended >= run.first || run.grows_down => {
                run.first = run.first.min(extended);
                run.heard += 1;
                run.covered_ticks += run.step;
            }
            _ => self.total.expected += 1,
        }
    }

    /// Takes over what a run has added, and ends it.
    fn end_run(&mut self, live: &mut Live) {
        let Live {
            run,
            written,
            bytes,
            last_ns,
        } = std::mem::take(live);
        self.total.written += written;
        self.total.bytes += bytes;
        self.total.last_ns = self.total.last_ns.max(last_ns);
        if let Some(run) = run {
            self.total.expected += run.expected();
            self.total.covered_ns += run.covered_ns();
            self.missing += run.expected() - run.heard;
            self.step = run.step;
        }
    }

    /// The account if the interval ended now; `credit` are our own drops that may explain what is
    /// missing, and is used up.
    fn settled(&self, live: Option<&Live>, credit: &mut [u64; DROP_REASONS]) -> StreamReceipt {
        let mut receipt = self.total;
        let mut missing = self.missing;
        if let Some(live) = live {
            receipt.written += live.written;
            receipt.bytes += live.bytes;
            receipt.last_ns = receipt.last_ns.max(live.last_ns);
        }
        if let Some(run) = live.and_then(|live| live.run.as_ref()) {
            receipt.expected += run.expected();
            receipt.covered_ns += run.covered_ns();
            missing += run.expected() - run.heard;
        }
        for (dropped, credit) in receipt.dropped.iter_mut().zip(credit) {
            let taken = missing.min(*credit);
            *dropped += taken;
            *credit -= taken;
            missing -= taken;
        }
        receipt.lost += missing;
        receipt
    }
}

/// A session's tap.
#[derive(Debug)]
pub(crate) struct Tap {
    running: bool,
    streams: Vec<TapStream>,
    /// Our own drops in this interval that no sequence number is known of, by side and m-line.
    credit: [[[u64; DROP_REASONS]; MEDIA_MAX]; 2],
}

impl Tap {
    /// Running, nothing heard.
    pub(crate) fn new() -> Self {
        Self {
            running: true,
            streams: Vec::with_capacity(8),
            credit: [[[0; DROP_REASONS]; MEDIA_MAX]; 2],
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running
    }

    /// Counts a packet that does not simply follow its stream's run, and gives the stream's place
    /// in the list, to be given back as `place`.
    pub(crate) fn count(
        &mut self,
        origin: Origin,
        place: u16,
        live: &mut Live,
        heard: &Heard,
    ) -> u16 {
        let place = if place == NOT_TAPPED {
            self.find(origin, heard)
        } else {
            place
        };
        self.streams[usize::from(place)].count(live, heard);
        place
    }

    #[cold]
    fn find(&mut self, Origin { side, media, ssrc }: Origin, heard: &Heard) -> u16 {
        let position = |streams: &[TapStream], sum: bool| {
            streams
                .iter()
                .position(|s| s.is_of(side, media) && s.sum == sum && (sum || s.total.ssrc == ssrc))
        };
        if let Some(known) = position(&self.streams, false) {
            return known as u16;
        }
        // Room is kept so that each side's m-line can have its sum.
        let listed = self.streams.iter().filter(|stream| !stream.sum).count();
        if listed < LISTED_MAX {
            self.streams
                .push(TapStream::new(side, media, Some(ssrc), heard));
            return (self.streams.len() - 1) as u16;
        }
        if let Some(sum) = position(&self.streams, true) {
            return sum as u16;
        }
        self.streams.push(TapStream::new(side, media, None, heard));
        (self.streams.len() - 1) as u16
    }

    /// A stream's numbers will not go on.
    pub(crate) fn end_run(&mut self, place: u16, live: &mut Live) {
        if let Some(stream) = self.streams.get_mut(usize::from(place)) {
            stream.end_run(live);
        }
    }

    /// Ends the interval; all runs have ended.
    pub(crate) fn pause(&mut self) {
        for stream in &mut self.streams {
            let credit =
                &mut self.credit[stream.total.side as usize][usize::from(stream.total.media)];
            stream.total = stream.settled(None, credit);
            stream.missing = 0;
        }
        self.running = false;
    }

    /// Starts an interval.
    pub(crate) fn resume(&mut self) {
        self.credit = [[[0; DROP_REASONS]; MEDIA_MAX]; 2];
        self.running = true;
    }

    /// Our own drops on a port of this m-line, of unknown packets.
    pub(crate) fn attribute(&mut self, side: Side, media: u8, reason: DropReason, rise: u64) {
        if self.running {
            self.credit[side as usize][usize::from(media)][reason as usize] += rise;
        }
    }

    /// The receipts if capture ended now; `live` are the runs in progress, by place.
    pub(crate) fn receipts(
        &self,
        live: &[Option<&Live>; STREAMS_MAX],
        out: &mut Vec<StreamReceipt>,
    ) {
        let mut credit = self.credit;
        out.extend(self.streams.iter().zip(live).map(|(stream, live)| {
            let place = (stream.total.side as usize, usize::from(stream.total.media));
            stream.settled(*live, &mut credit[place.0][place.1])
        }));
    }
}
