//! One channel: packets find their place in time and become samples.

use std::collections::{BTreeMap, HashMap, VecDeque};

use trunkline_codec::{Decoder, Format};
use trunkline_sn3::FrameHead;
use trunkline_sn3::facts::PayloadFact;

/// Sources of one channel that are told apart; the last one heard goes on.
const SOURCES_MAX: usize = 16;
/// Packets that wait for their turn.
const WAITING_MAX: usize = 1024;
/// A timestamp that is further from the clock than this begins anew, ns.
const ANCHOR_TOLERANCE_NS: u64 = 200_000_000;

/// Where a source's timestamps stand in the sound.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    rtp_ts: u32,
    sample: u64,
}

/// A packet that waits for its turn.
#[derive(Debug)]
struct Packet {
    source: (u32, u8),
    payload: Vec<u8>,
}

pub(super) struct Channel {
    rate_hz: u32,
    anchors: HashMap<u32, Anchor>,
    decoders: HashMap<(u32, u8), Option<Box<dyn Decoder>>>,
    /// By sample and extended sequence number.
    waiting: BTreeMap<(u64, u32), Packet>,
    /// Samples from `taken` on.
    sound: VecDeque<i16>,
    taken: u64,
}

impl Channel {
    pub(super) fn new(rate_hz: u32) -> Self {
        Self {
            rate_hz,
            anchors: HashMap::new(),
            decoders: HashMap::new(),
            waiting: BTreeMap::new(),
            sound: VecDeque::new(),
            taken: 0,
        }
    }

    fn samples(&self, ns: u64) -> u64 {
        let samples = u128::from(ns) * u128::from(self.rate_hz) / 1_000_000_000;
        u64::try_from(samples).unwrap_or(u64::MAX)
    }

    /// A packet that came `at_ns` after sample 0.
    pub(super) fn packet(
        &mut self,
        head: &FrameHead,
        fact: &PayloadFact,
        payload: &[u8],
        at_ns: u64,
    ) {
        let source = (head.ssrc, head.pt);
        if !self.decoders.contains_key(&source) {
            if self.decoders.len() >= SOURCES_MAX {
                self.decoders.clear();
                self.anchors.clear();
            }
            let format = Format::from_sdp(&fact.codec, fact.clock_hz, fact.channels.max(1));
            let decoder = format
                .map(|format| format.with_parameters(&fact.fmtp))
                .and_then(|format| format.decoder().ok());
            self.decoders.insert(source, decoder);
        }
        // Keys and comfort noise have no decoder of their own: silence.
        let has_decoder = self.decoders.get(&source).is_some_and(Option::is_some);
        if !has_decoder || self.waiting.len() >= WAITING_MAX {
            return;
        }
        let sample = self.place(head, fact.clock_hz.max(1), at_ns);
        let sequence = (u32::from(head.seq_cycles) << 16) | u32::from(head.seq);
        let packet = Packet {
            source,
            payload: payload.to_vec(),
        };
        self.waiting.insert((sample, sequence), packet);
    }

    /// By its timestamp where that goes on as it should, else by when it came.
    fn place(&mut self, head: &FrameHead, clock_hz: u32, at_ns: u64) -> u64 {
        let by_clock = self.samples(at_ns);
        let anchor = self.anchors.get(&head.ssrc).copied();
        let by_timestamp = anchor.and_then(|anchor| {
            let ticks = i64::from(head.rtp_ts.wrapping_sub(anchor.rtp_ts).cast_signed());
            let samples = ticks * i64::from(self.rate_hz) / i64::from(clock_hz);
            anchor.sample.checked_add_signed(samples)
        });
        let tolerance = self.samples(ANCHOR_TOLERANCE_NS);
        let sample = by_timestamp
            .filter(|sample| sample.abs_diff(by_clock) <= tolerance)
            .unwrap_or(by_clock);
        if anchor.is_none_or(|anchor| sample >= anchor.sample) {
            let rtp_ts = head.rtp_ts;
            self.anchors.insert(head.ssrc, Anchor { rtp_ts, sample });
        }
        sample
    }

    /// The next samples; silence where nothing came.
    pub(super) fn take(&mut self, samples: usize) -> Vec<i16> {
        let end = self.taken + samples as u64;
        while let Some(entry) = self.waiting.first_entry()
            && entry.key().0 < end
        {
            let ((sample, _), packet) = entry.remove_entry();
            self.decode(sample, &packet);
        }
        self.taken = end;
        (0..samples)
            .map(|_| self.sound.pop_front().unwrap_or(0))
            .collect()
    }

    fn decode(&mut self, sample: u64, packet: &Packet) {
        let Some(Some(decoder)) = self.decoders.get_mut(&packet.source) else {
            return;
        };
        let mut decoded = Vec::new();
        let own_rate = decoder.rate_hz();
        if decoder.decode(&packet.payload, &mut decoded).is_err() {
            return;
        }
        let decoded = at_rate(decoded, own_rate, self.rate_hz);
        // What comes too late for its place loses what has left already.
        let late = usize::try_from(self.taken.saturating_sub(sample)).unwrap_or(usize::MAX);
        let Some(rest) = decoded.get(late..) else {
            return;
        };
        let from = usize::try_from(sample.saturating_sub(self.taken)).unwrap_or(0);
        if self.sound.len() < from + rest.len() {
            self.sound.resize(from + rest.len(), 0);
        }
        for (place, value) in self.sound.iter_mut().skip(from).zip(rest) {
            *place = *value;
        }
    }
}

/// Sound at another rate, between its samples by straight lines: what a change of codec in mid-call
/// leaves.
fn at_rate(samples: Vec<i16>, from_hz: u32, to_hz: u32) -> Vec<i16> {
    if from_hz == to_hz || from_hz == 0 || samples.is_empty() {
        return samples;
    }
    let length = samples.len() as u64 * u64::from(to_hz) / u64::from(from_hz);
    let at = |index: u64| {
        let scaled = index * u64::from(from_hz);
        let (whole, part) = (scaled / u64::from(to_hz), scaled % u64::from(to_hz));
        let get = |index: u64| {
            let last = samples.len() - 1;
            i64::from(samples[usize::try_from(index).unwrap_or(last).min(last)])
        };
        let (left, right) = (get(whole), get(whole + 1));
        let value = left + (right - left) * i64::try_from(part).unwrap_or(0) / i64::from(to_hz);
        i16::try_from(value).unwrap_or(0)
    };
    (0..length).map(at).collect()
}
