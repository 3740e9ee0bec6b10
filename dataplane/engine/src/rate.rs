//! The cap on packets a port accepts, and on datagrams it may have read.

/// Packets a second.
pub(crate) const PACKETS_PER_SECOND_MAX: u64 = 20_000;
/// Time over which it is judged.
const WINDOW_NS: u64 = 100_000_000;
/// How long a port over the cap is left unread: its socket fills, and the kernel drops and counts.
pub const UNREAD_NS: u64 = 100_000_000;
const PACKETS_PER_WINDOW: u32 = (PACKETS_PER_SECOND_MAX * WINDOW_NS / 1_000_000_000) as u32;

/// One port's datagrams in the current window. The window starts with a datagram, so an idle port's
/// burst has the whole allowance.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rates {
    window_start_ns: u64,
    /// Of anybody.
    datagrams: u32,
    /// Of its accepted source.
    packets: u32,
}

impl Rates {
    /// Nothing came yet.
    pub(crate) const NEW: Self = Self {
        window_start_ns: 0,
        datagrams: 0,
        packets: 0,
    };

    /// Takes in a datagram of anybody; false when it is above the cap.
    #[inline]
    pub(crate) fn take_in(&mut self, now_ns: u64) -> bool {
        if now_ns.wrapping_sub(self.window_start_ns) >= WINDOW_NS {
            *self = Self {
                window_start_ns: now_ns,
                ..Self::NEW
            };
        }
        self.datagrams = self.datagrams.saturating_add(1);
        self.datagrams <= PACKETS_PER_WINDOW
    }

    /// Takes the datagram that was taken in last for a packet of the accepted source; false when it
    /// is above the cap.
    #[inline]
    pub(crate) fn accept(&mut self) -> bool {
        self.packets = self.packets.saturating_add(1);
        self.packets <= PACKETS_PER_WINDOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(rate: u64, seconds: u64) -> u64 {
        let mut rates = Rates::NEW;
        let step = 1_000_000_000 / rate;
        (0..rate * seconds)
            .filter(|packet| {
                let taken_in = rates.take_in(5_000_000_000 + packet * step);
                assert_eq!(rates.accept(), taken_in);
                taken_in
            })
            .count() as u64
    }

    #[test]
    fn up_to_the_cap_everything_passes_and_no_more_above() {
        assert_eq!(allowed(20_000, 3), 60_000);
        let passed = allowed(50_000, 3);
        assert!((59_000..=60_100).contains(&passed), "{passed}");
    }

    #[test]
    fn a_burst_of_a_stalled_stream_passes() {
        let mut rates = Rates::NEW;
        assert!((0..2000).all(|_| rates.take_in(1_000_000_000) && rates.accept()));
        assert!(!rates.take_in(1_000_000_000) && !rates.accept());
        assert!(rates.take_in(1_100_000_000) && rates.accept());
    }

    #[test]
    fn strangers_use_up_nothing_of_the_accepted_source() {
        let mut rates = Rates::NEW;
        assert!((0..2000).all(|_| rates.take_in(1_000_000_000)));
        assert!(!rates.take_in(1_000_000_000));
        assert!(rates.accept());
    }
}
