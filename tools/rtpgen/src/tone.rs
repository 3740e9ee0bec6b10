//! Tones: each call and direction has its own, so that hearing the right one proves who was heard.
//!
//! Frequencies are multiples of 10 Hz, so a tone repeats every 100 ms: five payloads of 20 ms make
//! it up without a seam, and a window of 800 samples holds whole periods of every one of them.

use trunkline_codec::g711::{A_LAW, MU_LAW, encode_a_law, encode_mu_law};

/// Samples a second.
pub const RATE_HZ: u32 = 8000;
/// Samples of one packet: 20 ms.
pub const PACKET_SAMPLES: usize = 160;
/// Samples after which every tone repeats, and over which tones are told apart: 100 ms.
pub const WINDOW_SAMPLES: usize = 800;
/// The lowest tone.
const LOWEST_HZ: u32 = 400;
/// Distance between tones.
const STEP_HZ: u32 = 10;
/// Number of tones.
pub const TONES: u32 = 300;
/// Peak of the generated sine.
const PEAK: f64 = 8000.0;
/// Packets after which a marked tone repeats: 10 s.
const MARKED_PACKETS: u64 = 500;
/// The part of the level that a mark may take away.
const MARK: f64 = 0.2;
/// Mean square below which a window is silence: about -50 dBm0.
const SILENCE_MEAN_SQUARE: f64 = 75.0 * 75.0;

/// The frequency of the tone with this number; numbers wrap.
#[must_use]
pub fn frequency_hz(number: u32) -> u32 {
    LOWEST_HZ + STEP_HZ * (number % TONES)
}

/// One period of a tone as PCMU (five payloads in a row), or a recording.
#[derive(Debug, Clone)]
pub struct Tone {
    samples: Vec<u8>,
}

impl Tone {
    /// A tone of this frequency (a multiple of 10 Hz).
    #[must_use]
    pub fn new(frequency_hz: u32) -> Self {
        let step = std::f64::consts::TAU * f64::from(frequency_hz) / f64::from(RATE_HZ);
        let sample = |n: usize| encode_mu_law((PEAK * (n as f64 * step).sin()) as i16);
        Self {
            samples: (0..WINDOW_SAMPLES).map(sample).collect(),
        }
    }

    /// A tone of which every packet of 10 s has a level of its own, so that a passage of it is found again
    /// at one place only.
    #[must_use]
    pub fn marked(frequency_hz: u32) -> Self {
        let step = std::f64::consts::TAU * f64::from(frequency_hz) / f64::from(RATE_HZ);
        let level = |packet: u64| {
            let mixed = mix((u64::from(frequency_hz) << 32) | packet) >> 32;
            PEAK * (1.0 - MARK * mixed as f64 / f64::from(u32::MAX))
        };
        let packet = |number: u64| {
            let first = number as usize * PACKET_SAMPLES;
            let sine = move |n: usize| ((first + n) as f64 * step).sin() * level(number);
            (0..PACKET_SAMPLES).map(move |n| encode_mu_law(sine(n) as i16))
        };
        Self {
            samples: (0..MARKED_PACKETS).flat_map(packet).collect(),
        }
    }

    /// A recording (PCMU, 8,000 Hz) as the sound, from its start again at its end.
    #[must_use]
    pub fn of_recording(mut samples: Vec<u8>) -> Self {
        // Whole packets; silence at the end.
        let packets = samples.len().div_ceil(PACKET_SAMPLES).max(1);
        samples.resize(packets * PACKET_SAMPLES, 0xff);
        Self { samples }
    }

    /// The same sound in the other law of G.711: of PCMU as PCMA, or of PCMA as PCMU.
    pub(crate) fn recoded(&self, from_a_law: bool) -> Self {
        let other = |&byte: &u8| match from_a_law {
            true => encode_mu_law(A_LAW[usize::from(byte)]),
            false => encode_a_law(MU_LAW[usize::from(byte)]),
        };
        Self {
            samples: self.samples.iter().map(other).collect(),
        }
    }

    /// The payload of the packet with this running number.
    #[must_use]
    pub fn payload(&self, packet: u64) -> &[u8] {
        let packets = (self.samples.len() / PACKET_SAMPLES) as u64;
        let start = (packet % packets) as usize * PACKET_SAMPLES;
        &self.samples[start..start + PACKET_SAMPLES]
    }
}

/// A number that tells nothing of its neighbours (the finalizer of SplitMix64).
const fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// What a window of sound is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// The expected tone and next to nothing else.
    Expected,
    /// Another tone of ours.
    Other(u32),
    /// Something, but no single tone.
    Noise,
    /// Nothing.
    Silence,
}

/// Judges a window of [`WINDOW_SAMPLES`] linear samples.
#[must_use]
pub fn judge(window: &[i16], expected_hz: u32) -> Heard {
    let energy: f64 = window.iter().map(|&sample| f64::from(sample).powi(2)).sum();
    if energy < SILENCE_MEAN_SQUARE * window.len() as f64 {
        return Heard::Silence;
    }
    // G.711 leaves well over 99 % of a sine's energy in the sine; a lost or doubled packet does not.
    let dominant = |frequency: u32| energy_at(window, frequency) > 0.95 * energy;
    if dominant(expected_hz) {
        return Heard::Expected;
    }
    (0..TONES)
        .map(frequency_hz)
        .find(|&other| dominant(other))
        .map_or(Heard::Noise, Heard::Other)
}

/// The energy of one frequency (Goertzel), on the scale of the sum of squares.
fn energy_at(window: &[i16], frequency_hz: u32) -> f64 {
    let step = std::f64::consts::TAU * f64::from(frequency_hz) / f64::from(RATE_HZ);
    let coefficient = 2.0 * step.cos();
    let (mut last, mut before) = (0.0, 0.0);
    for &sample in window {
        let next = f64::from(sample) + coefficient * last - before;
        before = last;
        last = next;
    }
    let power = last * last + before * before - coefficient * last * before;
    2.0 * power / window.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(frequency_hz: u32, first_packet: u64) -> Vec<i16> {
        let tone = Tone::new(frequency_hz);
        (first_packet..first_packet + 5)
            .flat_map(|packet| tone.payload(packet).to_vec())
            .map(|byte| MU_LAW[usize::from(byte)])
            .collect()
    }

    #[test]
    fn every_tone_is_told_from_every_other() {
        for number in (0..TONES).step_by(7) {
            let own = frequency_hz(number);
            assert_eq!(judge(&window(own, 3), own), Heard::Expected);
            let other = frequency_hz(number + 1);
            assert_eq!(judge(&window(own, 0), other), Heard::Other(own));
        }
    }

    #[test]
    fn a_marked_tone_is_heard_as_it_and_no_passage_comes_twice() {
        let tone = Tone::marked(410);
        for packet in (0..MARKED_PACKETS).step_by(5) {
            let window: Vec<i16> = (packet..packet + 5)
                .flat_map(|packet| tone.payload(packet).to_vec())
                .map(|byte| MU_LAW[usize::from(byte)])
                .collect();
            assert_eq!(judge(&window, 410), Heard::Expected, "{packet}");
        }
        let pair = |at| [tone.payload(at), tone.payload(at + 1)].concat();
        let mut pairs: Vec<Vec<u8>> = (0..MARKED_PACKETS).map(pair).collect();
        pairs.sort_unstable();
        pairs.dedup();
        assert_eq!(pairs.len() as u64, MARKED_PACKETS);
    }

    #[test]
    fn silence_and_mixtures_are_neither() {
        assert_eq!(judge(&[0; WINDOW_SAMPLES], 500), Heard::Silence);
        let mixed: Vec<i16> = window(500, 0)
            .iter()
            .zip(window(900, 0))
            .map(|(a, b)| a / 2 + b / 2)
            .collect();
        assert_eq!(judge(&mixed, 500), Heard::Noise);
    }

    #[test]
    fn a_missing_packet_spoils_its_window() {
        // 410 Hz does not repeat within 20 ms, so the seam is audible.
        let mut broken = window(410, 0);
        broken.drain(160..320);
        broken.extend_from_slice(&window(410, 0)[..160]);
        assert_ne!(judge(&broken, 410), Heard::Expected);
    }
}
