//! The cap on packets a port accepts, and on datagrams it may have read.

/// Packets a second.
pub(crate) const PACKETS_PER_SECOND_MAX: u64 = 20_000;
/// Time over which it is judged.
const WINDOW_NS: u64 = 100_000_000;
/// How long a port over the cap is left unread: its socket fills, and the kernel drops and counts.
pub const UNREAD_NS: u64 = 100_000_000;
const PACKETS_PER_WINDOW: u32 = (PACKETS_PER_SECOND_MAX * WINDOW_NS / 1_000_000_000) as u32;

/// One port's packets in the current window. The window starts with a packet, so an idle port's
/// burst has the whole allowance.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RateCap {
    window_start_ns: u64,
    packets: u32,
}

impl RateCap {
    /// Nothing accepted yet.
    pub(crate) const NEW: Self = Self {
        window_start_ns: 0,
        packets: 0,
    };

    /// Takes a packet; false when it is above the cap.
    #[inline]
    pub(crate) fn allow(&mut self, now_ns: u64) -> bool {
        if now_ns.wrapping_sub(self.window_start_ns) >= WINDOW_NS {
            *self = Self {
                window_start_ns: now_ns,
                packets: 0,
            };
        }
        self.packets = self.packets.saturating_add(1);
        self.packets <= PACKETS_PER_WINDOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(rate: u64, seconds: u64) -> u64 {
        let mut cap = RateCap::NEW;
        let step = 1_000_000_000 / rate;
        (0..rate * seconds)
            .filter(|packet| cap.allow(5_000_000_000 + packet * step))
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
        let mut cap = RateCap::NEW;
        assert!((0..2000).all(|_| cap.allow(1_000_000_000)));
        assert!(!cap.allow(1_000_000_000));
        assert!(cap.allow(1_100_000_000));
    }
}
