//! The moment that the core is told with every input.

use std::time::Instant;

use trunkline_sinks::Timestamp;

/// One moment on the three clocks in use.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// For timers.
    pub instant: Instant,
    /// CLOCK_MONOTONIC ns, as the dataplane stamps packets.
    pub mono_ns: u64,
    /// UTC, for people.
    pub utc: Timestamp,
}

impl Moment {
    /// Now.
    pub fn now() -> Self {
        Self {
            instant: Instant::now(),
            mono_ns: monotonic_ns(),
            utc: Timestamp::now(),
        }
    }
}

/// CLOCK_MONOTONIC in ns.
pub fn monotonic_ns() -> u64 {
    let clock = nix::time::ClockId::CLOCK_MONOTONIC;
    nix::time::clock_gettime(clock).map_or(0, |time| {
        let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
        let nanoseconds = u64::try_from(time.tv_nsec()).unwrap_or(0);
        seconds * 1_000_000_000 + nanoseconds
    })
}
