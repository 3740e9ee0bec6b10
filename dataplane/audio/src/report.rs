//! What the first pass found, for people: streams, codecs, losses.

use trunkline_codec::CodecKind;

/// One codec of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodecUse {
    /// Encoding name, or `unknown`.
    pub codec: String,
    /// RTP clock the timestamps really tick by, Hz.
    pub clock_hz: u32,
    /// Payload type, where the capture has them.
    pub payload_type: Option<u8>,
    /// First packet, ms after the first sample of the output.
    pub from_ms: i64,
    /// Packets.
    pub packets: u64,
    /// There is a decoder for it.
    pub supported: bool,
    /// The capture does not name it: it was guessed or given.
    pub assumed: bool,
}

/// One run of packets: a source with continuous numbering.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamReport {
    /// 0 = caller (left), 1 = callee (right).
    pub side: u8,
    /// Channel of the output in which it is heard.
    pub channel: usize,
    /// m-line index.
    pub media: u8,
    /// SSRC, where the capture has them.
    pub ssrc: Option<u32>,
    /// Packets captured, duplicates included.
    pub packets: u64,
    /// Payload bytes captured.
    pub bytes: u64,
    /// Distinct sequence numbers between the first and the last.
    pub expected: u64,
    /// Of those, the ones never captured.
    pub lost: u64,
    /// Packets captured again.
    pub duplicates: u64,
    /// Packets that came after a later one.
    pub reordered: u64,
    /// Interarrival jitter (RFC 3550 section 6.4.1) at the end, in ms; 0 without capture times.
    pub jitter_ms: f64,
    /// The highest that jitter ever was, in ms.
    pub jitter_max_ms: f64,
    /// First and last packet, ms after the first sample of the output.
    pub first_ms: i64,
    /// See `first_ms`.
    pub last_ms: i64,
    /// Codecs in order of appearance.
    pub codecs: Vec<CodecUse>,
    /// How often the sound had to be anchored in time.
    pub anchors: usize,
    /// The sender's clock against ours in parts per million, where it plainly drifts.
    pub drift_ppm: f64,
    /// A stray packet or two among another stream's: not heard.
    pub stray: bool,
}

impl StreamReport {
    /// Lost packets in per cent.
    #[must_use]
    pub fn loss_percent(&self) -> f64 {
        if self.expected == 0 {
            return 0.0;
        }
        self.lost as f64 * 100.0 / self.expected as f64
    }

    /// Listening quality from 1 to 4.5, estimated from loss and jitter for the codec that most
    /// packets have; see [`trunkline_codec::Impairment`]. `None` where that codec is not rated.
    #[must_use]
    pub fn mos(&self) -> Option<f64> {
        let (codec, _) = self
            .codecs
            .iter()
            .filter_map(|seen| Some((CodecKind::from_name(&seen.codec)?, seen.packets)))
            .filter(|(kind, _)| kind.is_sound())
            .max_by_key(|(_, packets)| *packets)?;
        // A packet of 20 ms, and a jitter buffer of twice the jitter.
        let delay_ms = 20.0 + 2.0 * self.jitter_ms;
        Some(codec.impairment()?.mos(self.loss_percent(), delay_ms))
    }
}
