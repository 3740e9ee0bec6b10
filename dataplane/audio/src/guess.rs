//! Guessing the codec of packets that nobody described, and catching clocks that were described
//! wrongly, from payload sizes, timestamp steps and capture times.

use trunkline_codec::{CodecKind, Format};

/// Distinct (size, step) pairs remembered of one run.
const PAIRS_MAX: usize = 16;
/// Clock rates that exist.
const CLOCKS: [u32; 9] = [
    8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000,
];

const AMR: [CodecKind; 2] = [CodecKind::Amr, CodecKind::AmrWb];

/// What was seen of one run's packets.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shape {
    pairs: Vec<Pair>,
    last: Option<Last>,
    neighbours: u32,
    /// Neighbours whose timestamp step is what an Opus packet of these bytes covers.
    opus_steps: u32,
    /// The same for AMR and AMR-WB, each bit of whose packets is accounted for.
    amr_steps: [u32; 2],
    wall_sum_ns: i64,
    wall_count: u32,
    packets: u32,
    sizes: Vec<(usize, u32)>,
}

#[derive(Debug, Clone, Copy)]
struct Pair {
    bytes: usize,
    step: i64,
    count: u32,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    sequence: i64,
    ticks: i64,
    wall_ns: i64,
    bytes: usize,
    opus_samples: i64,
}

/// A guess and how it came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Guess {
    pub(crate) format: Format,
    /// Sizes and steps leave PCMU possible, which is then taken without further ado.
    pub(crate) plain: bool,
    /// In words.
    pub(crate) why: String,
}

impl Shape {
    /// Takes note of a packet that is not an event.
    pub(crate) fn add(&mut self, sequence: i64, ticks: i64, wall_ns: i64, payload: &[u8]) {
        self.packets = self.packets.saturating_add(1);
        count_size(&mut self.sizes, payload.len());
        let opus = Format::usual(CodecKind::Opus);
        let next = Last {
            sequence,
            ticks,
            wall_ns,
            bytes: payload.len(),
            opus_samples: opus.samples(payload).unwrap_or(0) as i64,
        };
        if let Some(last) = self.last.replace(next)
            && sequence == last.sequence + 1
            && (1..=480_000).contains(&(ticks - last.ticks))
        {
            self.neighbours += 1;
            let step = ticks - last.ticks;
            self.opus_steps += u32::from(step == last.opus_samples);
            // Payloads with a step for each octet need no guess.
            if step != payload.len() as i64 {
                for (steps, kind) in self.amr_steps.iter_mut().zip(AMR) {
                    let samples = Format::usual(kind).samples(payload);
                    *steps += u32::from(samples == usize::try_from(step).ok());
                }
            }
            self.count_pair(last.bytes, step);
            let elapsed = wall_ns - last.wall_ns;
            if (0..200_000_000).contains(&elapsed) {
                self.wall_sum_ns += elapsed;
                self.wall_count += 1;
            }
        }
    }

    fn count_pair(&mut self, bytes: usize, step: i64) {
        let known = self
            .pairs
            .iter_mut()
            .find(|pair| pair.bytes == bytes && pair.step == step);
        if let Some(pair) = known {
            pair.count += 1;
        } else if self.pairs.len() < PAIRS_MAX {
            self.pairs.push(Pair {
                bytes,
                step,
                count: 1,
            });
        }
    }

    fn commonest(&self) -> Option<Pair> {
        self.pairs.iter().copied().max_by_key(|pair| pair.count)
    }

    /// Packets seen in order: how much the shape is worth.
    pub(crate) fn weight(&self) -> u32 {
        self.neighbours
    }

    pub(crate) fn packets(&self) -> u32 {
        self.packets
    }

    /// The commonest payload length, 0 when there was none.
    pub(crate) fn commonest_bytes(&self) -> usize {
        self.sizes
            .iter()
            .max_by_key(|(_, count)| *count)
            .map_or(0, |(bytes, _)| *bytes)
    }

    /// The clock that the timestamps really tick by, where it is plainly not the declared one
    /// (senders that count G.722 at 16000).
    pub(crate) fn true_clock(&self, declared: &Format) -> Option<u32> {
        let pair = self.commonest()?;
        if pair.count < 10 || pair.count * 2 < self.neighbours {
            return None;
        }
        let samples = match declared.kind {
            // Its packets tell their duration themselves, at 48 kHz.
            CodecKind::Opus => {
                return (self.opus_steps * 2 < self.neighbours)
                    .then(|| self.clock_by_wall(pair))
                    .flatten();
            }
            _ => declared.samples(&vec![0; pair.bytes])? as i64,
        };
        let clock = pair.step * i64::from(declared.rate_hz()) / samples;
        let clock = u32::try_from(clock).ok()?;
        (clock != declared.clock_hz && CLOCKS.contains(&clock)).then_some(clock)
    }

    /// The clock by which `pair`'s step takes as long as packets are apart in time.
    fn clock_by_wall(&self, pair: Pair) -> Option<u32> {
        if self.wall_count < 5 || self.wall_sum_ns == 0 {
            return None;
        }
        let interval_s = self.wall_sum_ns as f64 / f64::from(self.wall_count) / 1e9;
        let clock = pair.step as f64 / interval_s;
        CLOCKS
            .into_iter()
            .find(|&c| (clock / f64::from(c) - 1.0).abs() < 0.15)
    }

    /// The best guess.
    pub(crate) fn guess(&self) -> Guess {
        let Some(pair) = self.commonest() else {
            return self.guess_by_size();
        };
        let (bytes, step) = (pair.bytes as i64, pair.step);
        let make = |kind, clock_hz, plain| Guess {
            format: Format {
                clock_hz,
                ..Format::usual(kind)
            },
            plain,
            why: format!("payloads of {bytes} bytes, timestamp steps of {step}"),
        };
        if bytes == step {
            return make(CodecKind::Pcmu, 8_000, true);
        }
        if self.opus_steps * 5 > self.neighbours * 4 {
            return make(CodecKind::Opus, 48_000, false);
        }
        for (steps, kind) in self.amr_steps.into_iter().zip(AMR) {
            if steps * 5 > self.neighbours * 4 {
                return make(kind, Format::usual(kind).clock_hz, false);
            }
        }
        if bytes == 2 * step {
            return make(
                CodecKind::L16,
                self.clock_by_wall(pair).unwrap_or(8_000),
                false,
            );
        }
        if step == 2 * bytes {
            return make(CodecKind::G722, 16_000, false);
        }
        if bytes % 33 == 0 && step == bytes / 33 * 160 {
            return make(CodecKind::Gsm, 8_000, false);
        }
        if bytes >= 10 && step == bytes / 10 * 80 {
            return make(CodecKind::G729, 8_000, false);
        }
        let ilbc = |frame: i64, samples: i64| bytes % frame == 0 && step == bytes / frame * samples;
        if ilbc(38, 160) || ilbc(50, 240) {
            return make(CodecKind::Ilbc, 8_000, false);
        }
        let varied = self.pairs.iter().any(|other| other.bytes != pair.bytes);
        if varied && step % 120 == 0 {
            return make(CodecKind::Opus, 48_000, false);
        }
        make(CodecKind::Pcmu, 8_000, false)
    }

    /// Without timestamps (SN1, or a single packet) only sizes speak.
    fn guess_by_size(&self) -> Guess {
        let bytes = self.commonest_bytes();
        let alike = self.sizes.len() <= 2;
        let kind = match bytes {
            33 | 66 | 99 => CodecKind::Gsm,
            20 | 10 if alike => CodecKind::G729,
            _ if !alike && !bytes.is_multiple_of(80) => CodecKind::Opus,
            _ => CodecKind::Pcmu,
        };
        Guess {
            format: Format::usual(kind),
            plain: kind == CodecKind::Pcmu,
            why: format!("payloads of {bytes} bytes"),
        }
    }
}

fn count_size(sizes: &mut Vec<(usize, u32)>, bytes: usize) {
    if let Some((_, count)) = sizes.iter_mut().find(|(size, _)| *size == bytes) {
        *count = count.saturating_add(1);
    } else if sizes.len() < PAIRS_MAX {
        sizes.push((bytes, 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guess(
        packets: impl Iterator<Item = (Vec<u8>, i64)>,
        interval_ms: i64,
    ) -> (CodecKind, u32, bool) {
        let mut shape = Shape::default();
        let mut ticks = 1_000;
        for (n, (payload, step)) in packets.enumerate() {
            shape.add(
                n as i64,
                ticks,
                n as i64 * interval_ms * 1_000_000,
                &payload,
            );
            ticks += step;
        }
        let guess = shape.guess();
        (guess.format.kind, guess.format.clock_hz, guess.plain)
    }

    #[test]
    fn sizes_and_steps_tell_codecs_apart() {
        let same = |bytes: usize, step: i64| (0..50).map(move |_| (vec![0x55; bytes], step));
        assert_eq!(guess(same(160, 160), 20), (CodecKind::Pcmu, 8_000, true));
        assert_eq!(guess(same(80, 80), 10), (CodecKind::Pcmu, 8_000, true));
        assert_eq!(guess(same(320, 160), 20), (CodecKind::L16, 8_000, false));
        assert_eq!(guess(same(640, 320), 20), (CodecKind::L16, 16_000, false));
        assert_eq!(guess(same(160, 320), 20), (CodecKind::G722, 16_000, false));
        assert_eq!(guess(same(33, 160), 20), (CodecKind::Gsm, 8_000, false));
        assert_eq!(guess(same(20, 160), 20), (CodecKind::G729, 8_000, false));
        assert_eq!(guess(same(38, 160), 20), (CodecKind::Ilbc, 8_000, false));
        assert_eq!(guess(same(50, 240), 30), (CodecKind::Ilbc, 8_000, false));
        let opus = (0..50).map(|n| (vec![0x78; 60 + n % 7], 960));
        assert_eq!(guess(opus, 20), (CodecKind::Opus, 48_000, false));
    }

    #[test]
    fn amr_is_told_by_every_bit_of_its_packets() {
        // Octet-aligned at 12.2 kbit/s (as long as GSM), without alignment at 12.2 and 7.4 (as long as
        // two frames of G.729), AMR-WB at 12.65.
        for (head, bytes, step, clock_hz, kind) in [
            ([0xF0, 0x3C], 33, 160, 8_000, CodecKind::Amr),
            ([0xF3, 0xC0], 32, 160, 8_000, CodecKind::Amr),
            ([0xF2, 0x40], 20, 160, 8_000, CodecKind::Amr),
            ([0xF0, 0x14], 34, 320, 16_000, CodecKind::AmrWb),
        ] {
            let packets = (0..50).map(|n: u8| {
                let mut payload: Vec<u8> = (0..bytes).map(|at| at ^ n).collect();
                payload[0] = head[0];
                payload[1] = payload[1] & 0x3F | head[1];
                if clock_hz == 16_000 || bytes == 33 {
                    payload[1] = head[1];
                }
                (payload, step)
            });
            assert_eq!(guess(packets, 20), (kind, clock_hz, false), "{bytes} bytes");
        }
        let noise = |bytes: u32| {
            (0..50_u32).map(move |n| {
                let octet = |at: u32| {
                    (n * 7_919 + at * 104_729)
                        .wrapping_mul(2_654_435_761)
                        .to_be_bytes()[0]
                };
                let mut payload: Vec<u8> = (0..bytes).map(octet).collect();
                payload[0] |= if bytes == 33 { 0xD0 } else { 0 };
                (payload, 160)
            })
        };
        assert_eq!(guess(noise(33), 20), (CodecKind::Gsm, 8_000, false));
        assert_eq!(guess(noise(20), 20), (CodecKind::G729, 8_000, false));
    }

    #[test]
    fn a_g722_clock_of_16000_is_noticed() {
        let mut shape = Shape::default();
        for n in 0..50 {
            shape.add(n, n * 320, n * 20_000_000, &[0; 160]);
        }
        let declared = Format::usual(CodecKind::G722);
        assert_eq!(shape.true_clock(&declared), Some(16_000));
        let mut right = Shape::default();
        for n in 0..50 {
            right.add(n, n * 160, n * 20_000_000, &[0; 160]);
        }
        assert_eq!(right.true_clock(&declared), None);
    }
}
