//! Numbers of recordings in the capture format.

use trunkline_sinks::Timestamp;

/// Bits of a number below its milliseconds.
const CHANCE_BITS: u32 = 20;

/// The lowest number of a recording that begins at this moment or later.
pub(crate) fn lowest_at(now: Timestamp) -> u64 {
    u64::try_from(now.0).unwrap_or(0) << CHANCE_BITS
}

/// Gives them out: unique over the appliance's life, and rising with time. Milliseconds, then chance, so
/// that none of another process is met; always behind the one before, so that none of another call is.
#[derive(Debug, Default)]
pub(super) struct RecordingNumbers {
    last: u64,
}

impl RecordingNumbers {
    /// The next one.
    pub(super) fn next(&mut self, now: Timestamp) -> u64 {
        let chance = rand::random::<u32>() >> (u32::BITS - CHANCE_BITS);
        let number = lowest_at(now) | u64::from(chance);
        self.last = number.max(self.last + 1);
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_recordings_have_one_number_whatever_the_clock_says() {
        let mut numbers = RecordingNumbers::default();
        let mut last = 0;
        // More in a millisecond than chance keeps apart, and a clock that goes back.
        for step in 0..50_000 {
            let number = numbers.next(Timestamp(1_764_295_805_000 - step / 10_000));
            assert!(number > last);
            last = number;
        }
        assert!(last >> CHANCE_BITS <= 1_764_295_805_001);
        assert!(RecordingNumbers::default().next(Timestamp(-5)) > 0);
    }
}
