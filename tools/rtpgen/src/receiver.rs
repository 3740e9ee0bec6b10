//! What one end hears: loss, duplicates, order, jitter, and whether it is the right tone.

use trunkline_codec::g711::MU_LAW;

use crate::rtp::Header;
use crate::tone::{Heard, PACKET_SAMPLES, RATE_HZ, WINDOW_SAMPLES, judge};

/// Sequence numbers remembered to tell a duplicate from a late packet.
const REMEMBERED: u64 = 1024;

/// Counts of one received stream.
#[derive(Debug, Clone, Default)]
pub struct ReceiverStats {
    /// Datagrams that were RTP.
    pub packets: u64,
    /// Payload bytes.
    pub bytes: u64,
    /// Sequence numbers between the first and the last, both included.
    pub expected: u64,
    /// Different sequence numbers that came.
    pub distinct: u64,
    /// Packets that came again.
    pub duplicates: u64,
    /// Packets that came after a later one.
    pub reordered: u64,
    /// Times the source (SSRC) changed.
    pub source_changes: u64,
    /// Packets of another payload type than agreed.
    pub wrong_payload_type: u64,
    /// Datagrams that were neither RTP nor RTCP.
    pub malformed: u64,
    /// RTCP datagrams.
    pub rtcp: u64,
    /// Interarrival jitter (RFC 3550 section 6.4.1), ms.
    pub jitter_ms: f64,
    /// Its highest value.
    pub jitter_ms_max: f64,
    /// Windows of 100 ms that held the expected tone, and those that held something else.
    pub windows_right: u64,
    /// See `windows_right`.
    pub windows_wrong: u64,
    /// A tone that was heard instead, 0 = none.
    pub wrong_tone_hz: u32,
    /// Arrival of the first packet, ns.
    pub first_ns: u64,
    /// Arrival of the last packet, ns.
    pub last_ns: u64,
}

/// Measures one stream.
#[derive(Debug)]
pub struct Receiver {
    stats: ReceiverStats,
    clock_hz: u32,
    expected_hz: Option<u32>,
    payload_type: Option<u8>,
    source: Option<u32>,
    /// Extended sequence numbers: the first, the highest, and which of the last came.
    first: u64,
    highest: u64,
    seen: [u64; (REMEMBERED / 64) as usize],
    /// Expected numbers of sources before the present one.
    expected_before: u64,
    transit: Option<i64>,
    /// Samples of the window being collected and the sequence number that would continue it.
    window: Vec<i16>,
    window_next: u64,
}

impl Receiver {
    /// A receiver that expects this tone (PCMU) and payload type, or any.
    #[must_use]
    pub fn new(expected_hz: Option<u32>, payload_type: Option<u8>) -> Self {
        Self {
            stats: ReceiverStats::default(),
            clock_hz: RATE_HZ,
            expected_hz,
            payload_type,
            source: None,
            first: 0,
            highest: 0,
            seen: [0; (REMEMBERED / 64) as usize],
            expected_before: 0,
            transit: None,
            window: Vec::with_capacity(WINDOW_SAMPLES),
            window_next: 0,
        }
    }

    /// Another RTP clock than 8,000 Hz.
    #[must_use]
    pub fn with_clock(mut self, clock_hz: u32) -> Self {
        self.clock_hz = clock_hz;
        self
    }

    /// Counts so far.
    #[must_use]
    pub fn stats(&self) -> ReceiverStats {
        let mut stats = self.stats.clone();
        if self.source.is_some() {
            stats.expected = self.expected_before + (self.highest - self.first + 1);
        }
        stats
    }

    /// Takes in an RTP packet that arrived at `now_ns`.
    pub fn handle_rtp(&mut self, header: Header, payload: &[u8], now_ns: u64) {
        if self.stats.packets == 0 {
            self.stats.first_ns = now_ns;
        }
        self.stats.last_ns = now_ns;
        self.stats.packets += 1;
        self.stats.bytes += payload.len() as u64;
        if self
            .payload_type
            .is_some_and(|expected| expected != header.payload_type)
        {
            self.stats.wrong_payload_type += 1;
        }
        if self.source != Some(header.ssrc) {
            self.change_source(header);
        }
        let Some(extended) = self.count(header.sequence) else {
            return;
        };
        self.measure_jitter(header.timestamp, now_ns);
        self.listen(extended, payload);
    }

    /// Counts an RTCP datagram.
    pub fn handle_rtcp(&mut self) {
        self.stats.rtcp += 1;
    }

    /// Counts a datagram that is neither.
    pub fn handle_malformed(&mut self) {
        self.stats.malformed += 1;
    }

    fn change_source(&mut self, header: Header) {
        if self.source.is_some() {
            self.stats.source_changes += 1;
            self.expected_before += self.highest - self.first + 1;
        }
        self.source = Some(header.ssrc);
        // Room below, for packets that were overtaken by the first one to arrive.
        self.first = (1 << 32) + u64::from(header.sequence);
        self.highest = self.first - 1;
        self.seen = [0; (REMEMBERED / 64) as usize];
        self.transit = None;
        self.window.clear();
    }

    /// The extended sequence number of a packet that counts, `None` for a duplicate.
    fn count(&mut self, sequence: u16) -> Option<u64> {
        let difference = sequence.wrapping_sub(self.highest as u16) as i16;
        let extended = self.highest.wrapping_add_signed(i64::from(difference));
        if extended > self.highest {
            for number in (self.highest + 1..=extended).take(REMEMBERED as usize) {
                self.mark(number, false);
            }
            self.highest = extended;
        } else if self.highest - extended >= REMEMBERED || self.is_marked(extended) {
            self.stats.duplicates += 1;
            return None;
        } else {
            self.stats.reordered += 1;
            self.first = self.first.min(extended);
        }
        self.mark(extended, true);
        self.stats.distinct += 1;
        Some(extended)
    }

    fn mark(&mut self, number: u64, present: bool) {
        let bit = 1 << (number % 64);
        let word = &mut self.seen[(number % REMEMBERED / 64) as usize];
        *word = if present { *word | bit } else { *word & !bit };
    }

    fn is_marked(&self, number: u64) -> bool {
        self.seen[(number % REMEMBERED / 64) as usize] >> (number % 64) & 1 == 1
    }

    fn measure_jitter(&mut self, timestamp: u32, now_ns: u64) {
        let arrival = (u128::from(now_ns) * u128::from(self.clock_hz) / 1_000_000_000) as u32;
        let transit = i64::from(arrival.wrapping_sub(timestamp) as i32);
        if let Some(last) = self.transit {
            let difference = i64::from((transit - last) as i32).unsigned_abs() as f64;
            let difference_ms = difference * 1000.0 / f64::from(self.clock_hz);
            self.stats.jitter_ms += (difference_ms - self.stats.jitter_ms) / 16.0;
            self.stats.jitter_ms_max = self.stats.jitter_ms_max.max(self.stats.jitter_ms);
        }
        self.transit = Some(transit);
    }

    /// Collects windows of packets in a row and judges each.
    fn listen(&mut self, extended: u64, payload: &[u8]) {
        let Some(expected_hz) = self.expected_hz else {
            return;
        };
        if payload.len() != PACKET_SAMPLES {
            self.window.clear();
            return;
        }
        if !self.window.is_empty() && extended != self.window_next {
            self.window.clear();
        }
        self.window_next = extended + 1;
        self.window
            .extend(payload.iter().map(|&byte| MU_LAW[usize::from(byte)]));
        if self.window.len() < WINDOW_SAMPLES {
            return;
        }
        match judge(&self.window, expected_hz) {
            Heard::Expected => self.stats.windows_right += 1,
            Heard::Other(other) => {
                self.stats.windows_wrong += 1;
                self.stats.wrong_tone_hz = other;
            }
            Heard::Noise | Heard::Silence => self.stats.windows_wrong += 1,
        }
        self.window.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tone::Tone;

    fn packet(number: u64, ssrc: u32) -> Header {
        Header {
            payload_type: 0,
            sequence: number as u16,
            timestamp: (number * 160) as u32,
            ssrc,
        }
    }

    fn hear(receiver: &mut Receiver, tone: &Tone, numbers: impl IntoIterator<Item = u64>) {
        for (position, number) in numbers.into_iter().enumerate() {
            let now_ns = position as u64 * 20_000_000;
            receiver.handle_rtp(packet(number, 1), tone.payload(number), now_ns);
        }
    }

    #[test]
    fn a_clean_stream_over_the_wrap_has_nothing_to_report() {
        let mut receiver = Receiver::new(Some(700), Some(0));
        hear(&mut receiver, &Tone::new(700), 65_500..65_600);
        let stats = receiver.stats();
        assert_eq!(
            (stats.packets, stats.expected, stats.distinct),
            (100, 100, 100)
        );
        assert_eq!(
            (stats.duplicates, stats.reordered, stats.wrong_payload_type),
            (0, 0, 0)
        );
        assert_eq!((stats.windows_right, stats.windows_wrong), (20, 0));
        assert!(stats.jitter_ms < 0.2, "{}", stats.jitter_ms);
    }

    #[test]
    fn loss_duplicates_and_order_are_told_apart() {
        let mut receiver = Receiver::new(None, None);
        hear(
            &mut receiver,
            &Tone::new(700),
            [10, 11, 11, 14, 13, 14, 16, 9],
        );
        let stats = receiver.stats();
        assert_eq!(stats.packets, 8);
        assert_eq!(stats.expected, 8, "9 to 16");
        assert_eq!(stats.distinct, 6);
        assert_eq!(stats.duplicates, 2);
        assert_eq!(stats.reordered, 2);
    }

    #[test]
    fn the_wrong_tone_is_named() {
        let mut receiver = Receiver::new(Some(700), None);
        hear(&mut receiver, &Tone::new(710), 0..10);
        let stats = receiver.stats();
        assert_eq!(
            (
                stats.windows_right,
                stats.windows_wrong,
                stats.wrong_tone_hz
            ),
            (0, 2, 710)
        );
    }

    #[test]
    fn a_new_source_starts_over_without_loss() {
        let mut receiver = Receiver::new(None, None);
        hear(&mut receiver, &Tone::new(700), 0..10);
        for number in 500..510 {
            receiver.handle_rtp(packet(number, 2), &[0; 160], number);
        }
        let stats = receiver.stats();
        assert_eq!(
            (stats.expected, stats.distinct, stats.source_changes),
            (20, 20, 1)
        );
    }
}
