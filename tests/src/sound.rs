//! Comparing sound, sample by sample.

use crate::g711;
use crate::pcap::RtpPacket;

/// The linear samples of packets of PCMU or PCMA, in a row.
///
/// # Panics
/// Another payload type.
#[must_use]
pub fn decode(packets: &[RtpPacket]) -> Vec<i16> {
    let mut samples = Vec::new();
    for packet in packets {
        let decode = match packet.payload_type {
            0 => g711::mu_law,
            8 => g711::a_law,
            other => panic!("payload type {other} is not G.711"),
        };
        samples.extend(packet.payload.iter().map(|&octet| decode(octet)));
    }
    samples
}

/// Where a passage begins in a track.
#[must_use]
pub fn find(track: &[i16], passage: &[i16]) -> Option<usize> {
    let (first, rest) = passage.split_first()?;
    let last = track.len().checked_sub(passage.len())?;
    (0..=last).find(|&at| track[at] == *first && &track[at + 1..at + passage.len()] == rest)
}

/// Asserts that a track holds a passage whole and in one piece, and returns where.
///
/// # Panics
/// It does not; says how much of it there is.
pub fn assert_contains(name: &str, track: &[i16], passage: &[i16]) -> usize {
    if let Some(at) = find(track, passage) {
        return at;
    }
    let chunks: Vec<&[i16]> = passage.chunks_exact(160).collect();
    let places: Vec<Option<usize>> = chunks.iter().map(|chunk| find(track, chunk)).collect();
    let found = places.iter().flatten().count();
    let mut breaks = Vec::new();
    for (number, pair) in places.windows(2).enumerate() {
        let in_a_row = matches!((pair[0], pair[1]), (Some(a), Some(b)) if b == a + 160);
        if !in_a_row && breaks.len() < 10 {
            breaks.push(format!("chunk {number}: {:?}, then {:?}", pair[0], pair[1]));
        }
    }
    panic!(
        "{name}: a passage of {} samples is not in a track of {}: {found} of {} chunks are; {}",
        passage.len(),
        track.len(),
        chunks.len(),
        breaks.join("; ")
    );
}

/// The longest run of exact silence, as (first sample, length).
#[must_use]
pub fn longest_silence(track: &[i16]) -> (usize, usize) {
    let (mut best, mut start) = ((0, 0), 0);
    for (at, sample) in track.iter().chain([&1]).enumerate() {
        if *sample != 0 {
            if at - start > best.1 {
                best = (start, at - start);
            }
            start = at + 1;
        }
    }
    best
}

/// Whether next to all of a piece of sound is one frequency.
#[must_use]
pub fn is_tone(samples: &[i16], rate_hz: u32, frequency_hz: f64) -> bool {
    let step = std::f64::consts::TAU * frequency_hz / f64::from(rate_hz);
    let (mut real, mut imaginary, mut energy) = (0.0, 0.0, 0.0);
    for (n, &sample) in samples.iter().enumerate() {
        let (value, phase) = (f64::from(sample), n as f64 * step);
        real += value * phase.cos();
        imaginary += value * phase.sin();
        energy += value * value;
    }
    let power = 2.0 * (real * real + imaginary * imaginary) / samples.len() as f64;
    energy > 100.0 * 100.0 * samples.len() as f64 && power > 0.9 * energy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passages_and_silence_are_found() {
        let track = [1, 2, 0, 0, 0, 3, 0];
        assert_eq!(find(&track, &[0, 3]), Some(4));
        assert_eq!(find(&track, &[3, 3]), None);
        assert_eq!(longest_silence(&track), (2, 3));
        assert_eq!(longest_silence(&[]), (0, 0));
    }
}
