//! One tapped recording: from its frames to both channels.

use std::collections::HashMap;

use trunkline_hooks::RecordingChannel;
use trunkline_link::pool::ExtentMeta;
use trunkline_sn3::extent::walk;
use trunkline_sn3::facts::{CallChange, CallOpen, LegFact, PayloadFact};
use trunkline_sn3::frame::{RawFrame, flags};
use trunkline_sn3::layout::EXTENT_HEADER;
use trunkline_sn3::{FrameHead, FrameKind};

use super::channel::Channel;
use super::{Begin, DELAY_NS, Output};

/// A piece is 20 ms.
const PIECES_PER_SECOND: u32 = 50;
/// A fact in pieces is not followed beyond this.
const FACT_BYTES_MAX: usize = 256 * 1024;

/// A recording's time without its pauses.
#[derive(Debug, Default)]
struct Elapsed {
    /// ns after the recording's origin at which sample 0 is.
    start_ns: u64,
    /// ns after the origin.
    pauses: Vec<(u64, Option<u64>)>,
}

impl Elapsed {
    fn resume(&mut self, at_ns: u64) {
        if let Some((_, to)) = self.pauses.last_mut().filter(|(_, to)| to.is_none()) {
            *to = Some(at_ns);
        }
    }

    fn pause(&mut self, at_ns: u64) {
        if self.pauses.last().is_none_or(|(_, to)| to.is_some()) {
            self.pauses.push((at_ns, None));
        }
    }

    /// ns of sound before a moment.
    fn at(&self, wall_ns: u64) -> u64 {
        let paused = self.pauses.iter().map(|(from, to)| {
            let from = (*from).max(self.start_ns).min(wall_ns);
            let to = to.unwrap_or(u64::MAX).min(wall_ns);
            to.saturating_sub(from)
        });
        let paused: u64 = paused.sum();
        wall_ns.saturating_sub(self.start_ns).saturating_sub(paused)
    }
}

/// See [`super`].
pub(super) struct Tape {
    pub(super) begin: Begin,
    /// The extent being read, and how far.
    ordinal: u32,
    read: usize,
    /// CLOCK_MONOTONIC ns of the recording's origin, once an extent told.
    origin_ns: Option<u64>,
    ends_ns: Option<u64>,
    elapsed: Elapsed,
    payloads: HashMap<(u8, u8, u8), PayloadFact>,
    /// A fact that goes on in the next frame.
    fact: Vec<u8>,
    channels: [Channel; 2],
    pieces: u64,
}

impl Tape {
    pub(super) fn new(begin: Begin) -> Self {
        let channels = [Channel::new(begin.rate_hz), Channel::new(begin.rate_hz)];
        Self {
            begin,
            ordinal: 0,
            read: EXTENT_HEADER,
            origin_ns: None,
            ends_ns: None,
            elapsed: Elapsed::default(),
            payloads: HashMap::new(),
            fact: Vec::new(),
            channels,
            pieces: 0,
        }
    }

    pub(super) fn ends_at(&mut self, mono_ns: u64) {
        self.ends_ns.get_or_insert(mono_ns);
    }

    pub(super) fn is_over(&self, now_ns: u64) -> bool {
        self.ends_ns
            .is_some_and(|end| now_ns >= end.saturating_add(DELAY_NS))
    }

    /// Whether there may be something new in an extent.
    pub(super) fn wants_extent(&self, meta: &ExtentMeta) -> bool {
        meta.ordinal > self.ordinal || (meta.ordinal == self.ordinal && meta.published > self.read)
    }

    /// Reads an extent's new frames. Extents come in order.
    pub(super) fn read_extent(&mut self, meta: &ExtentMeta, bytes: &[u8]) {
        if meta.ordinal > self.ordinal {
            (self.ordinal, self.read) = (meta.ordinal, EXTENT_HEADER);
        }
        let origin_ns = *self.origin_ns.get_or_insert(meta.origin_mono_ns);
        self.elapsed.start_ns = self.begin.from_mono_ns.saturating_sub(origin_ns);
        let used = u32::try_from(bytes.len()).unwrap_or(0);
        let mut frames = walk(bytes, used);
        let mut end = self.read;
        while let Some((at, frame)) = frames.next_at() {
            if at >= self.read {
                self.frame(&frame);
                end = at + frame.bytes;
            }
        }
        self.read = end;
    }

    fn frame(&mut self, frame: &RawFrame<'_>) {
        let head = &frame.head;
        match head.kind {
            FrameKind::Rtp => self.packet(head, frame.payload),
            FrameKind::Pause => self.elapsed.pause(head.wall_ns),
            FrameKind::Resume => self.elapsed.resume(head.wall_ns),
            FrameKind::CallOpen | FrameKind::CallChange => self.take_fact(head, frame.payload),
            _ => {}
        }
    }

    fn take_fact(&mut self, head: &FrameHead, piece: &[u8]) {
        if head.flags & flags::CONTINUED == 0 {
            self.fact.clear();
        }
        if self.fact.len() + piece.len() <= FACT_BYTES_MAX {
            self.fact.extend_from_slice(piece);
        }
        if head.flags & flags::MORE != 0 {
            return;
        }
        let fact = std::mem::take(&mut self.fact);
        let legs: Vec<LegFact> = match head.kind {
            FrameKind::CallOpen => serde_json::from_slice(&fact).map(|open: CallOpen| open.legs),
            _ => serde_json::from_slice(&fact).map(|change: CallChange| change.legs),
        }
        .unwrap_or_default();
        for leg in legs {
            for payload in leg.payloads {
                self.payloads
                    .insert((leg.side, leg.media, payload.pt), payload);
            }
        }
    }

    fn packet(&mut self, head: &FrameHead, payload: &[u8]) {
        let whole = head.flags & (flags::SHAPE | flags::DUPLICATE) == 0;
        let key = (head.side, head.media, head.pt);
        let (true, Some(fact)) = (whole, self.payloads.get(&key)) else {
            return;
        };
        let sounds_at_ns = self.elapsed.at(head.wall_ns);
        if let Some(channel) = self.channels.get_mut(usize::from(head.side)) {
            channel.packet(head, fact, payload, sounds_at_ns);
        }
    }

    /// Lets both channels' sound go up to what is due now.
    pub(super) fn play(&mut self, now_ns: u64, output: &dyn Output) {
        let Some(origin_ns) = self.origin_ns else {
            return;
        };
        let due_ns = now_ns.saturating_sub(DELAY_NS);
        let due_ns = self.ends_ns.map_or(due_ns, |end| due_ns.min(end));
        let elapsed_ns = self.elapsed.at(due_ns.saturating_sub(origin_ns));
        let due = elapsed_ns / (1_000_000_000 / u64::from(PIECES_PER_SECOND));
        let samples = (self.begin.rate_hz / PIECES_PER_SECOND) as usize;
        while self.pieces < due {
            self.pieces += 1;
            let channels = [RecordingChannel::Caller, RecordingChannel::Agent];
            for (channel, name) in self.channels.iter_mut().zip(channels) {
                let piece = channel.take(samples);
                output.pcm(&self.begin.call_id, name, &piece);
            }
        }
    }
}
