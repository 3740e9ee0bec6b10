//! Interarrival jitter (RFC 3550 sections 6.4.1 and A.8).

/// Converts nanoseconds to the units of an RTP clock without a division a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    rate_hz: u32,
    /// `rate / 1e9` as a fraction of 2^64, so that its error stays below a tick for 10^5 years.
    factor: u64,
}

impl Clock {
    /// A clock of `rate_hz`; 0 counts as 8000.
    #[must_use]
    pub const fn new(rate_hz: u32) -> Self {
        let rate_hz = if rate_hz == 0 { 8000 } else { rate_hz };
        // At 1 GHz and above (no such clock exists) the fraction would not fit.
        let rate = if rate_hz > 999_999_999 {
            999_999_999
        } else {
            rate_hz
        };
        Self {
            rate_hz: rate,
            // Rounded up, so that whole ticks come out whole.
            factor: ((rate as u128) << 64).div_ceil(1_000_000_000) as u64,
        }
    }

    /// Ticks a second.
    #[must_use]
    pub const fn rate_hz(&self) -> u32 {
        self.rate_hz
    }

    /// Ticks in `ns`.
    #[inline]
    #[must_use]
    pub const fn ticks(&self, ns: u64) -> u64 {
        ((ns as u128 * self.factor as u128) >> 64) as u64
    }

    /// Nanoseconds of `ticks`.
    #[must_use]
    pub const fn nanoseconds(&self, ticks: u64) -> u64 {
        (ticks as u128 * 1_000_000_000 / self.rate_hz as u128) as u64
    }
}

/// The estimator of A.8, in sixteenths of a timestamp unit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Jitter {
    transit: Option<u32>,
    scaled: u32,
}

impl Jitter {
    /// Takes a packet: its arrival in ticks of its own clock, and its timestamp.
    #[inline]
    pub fn observe(&mut self, arrival_ticks: u64, timestamp: u32) {
        let transit = (arrival_ticks as u32).wrapping_sub(timestamp);
        if let Some(before) = self.transit.replace(transit) {
            let difference = (transit.wrapping_sub(before) as i32).unsigned_abs();
            let settled = (self.scaled + 8) >> 4;
            self.scaled = self.scaled.saturating_add(difference) - settled.min(self.scaled);
        }
    }

    /// Forgets the last transit time, as the source or its clock changed.
    pub fn break_off(&mut self) {
        self.transit = None;
    }

    /// The jitter in timestamp units, as it stands in a report block.
    #[must_use]
    pub fn value(&self) -> u32 {
        self.scaled >> 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_follow_the_clock() {
        for rate in [8000, 16_000, 44_100, 48_000, 90_000] {
            let clock = Clock::new(rate);
            for seconds in [1_u64, 3600, 86_400 * 365] {
                let ticks = clock.ticks(seconds * 1_000_000_000);
                let exact = seconds * u64::from(rate);
                assert!(
                    exact - ticks <= 1,
                    "{rate} Hz after {seconds} s: {ticks} of {exact}"
                );
            }
        }
        assert_eq!(Clock::new(8000).nanoseconds(160), 20_000_000);
        assert_eq!(Clock::new(0).rate_hz(), 8000);
    }

    #[test]
    fn even_arrivals_have_none_and_alternating_ones_converge() {
        let mut even = Jitter::default();
        let mut uneven = Jitter::default();
        for packet in 0..1000_u64 {
            even.observe(packet * 160, (packet * 160) as u32);
            uneven.observe(packet * 160 + (packet % 2) * 80, (packet * 160) as u32);
        }
        assert_eq!(even.value(), 0);
        assert!((78..=81).contains(&uneven.value()), "{}", uneven.value());
    }

    #[test]
    fn a_wrapping_timestamp_is_no_jitter() {
        let mut jitter = Jitter::default();
        for packet in 0..100_u32 {
            jitter.observe(
                u64::from(packet) * 160,
                packet.wrapping_mul(160).wrapping_sub(800),
            );
        }
        assert_eq!(jitter.value(), 0);
    }

    #[test]
    fn wild_timestamps_do_not_overflow() {
        let mut jitter = Jitter::default();
        for packet in 0..10_000_u32 {
            jitter.observe(u64::from(packet), packet.wrapping_mul(0x9E37_79B9));
        }
        assert!(jitter.value() > 0);
    }
}
