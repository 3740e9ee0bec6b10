//! Small binary payloads of frames that are neither packets nor JSON.

/// Frame kind clock: one moment on both clocks. The first frame of a recording has one with
/// `wall_ns` 0, which makes its `mono_ns` the recording's origin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClockTriple {
    /// CLOCK_MONOTONIC, ns.
    pub mono_ns: u64,
    /// UTC, ns since 1970.
    pub utc_ns: u64,
    /// 0 = not known, 1 = synchronised (adjtimex says so), 2 = not synchronised.
    pub sync: u8,
}

impl ClockTriple {
    /// Bytes of the payload.
    pub const BYTES: usize = 24;

    /// The payload.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0u8; Self::BYTES];
        bytes[..8].copy_from_slice(&self.mono_ns.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.utc_ns.to_le_bytes());
        bytes[16] = self.sync;
        bytes
    }

    /// Reads a payload; `None` when it is too short.
    #[must_use]
    pub fn decode(payload: &[u8]) -> Option<Self> {
        Some(Self {
            mono_ns: u64_at(payload, 0)?,
            utc_ns: u64_at(payload, 8)?,
            sync: *payload.get(16)?,
        })
    }

    /// UTC of a moment of CLOCK_MONOTONIC, both in ns.
    #[must_use]
    pub fn utc_of(&self, mono_ns: u64) -> u64 {
        if mono_ns >= self.mono_ns {
            self.utc_ns.saturating_add(mono_ns - self.mono_ns)
        } else {
            self.utc_ns.saturating_sub(self.mono_ns - mono_ns)
        }
    }
}

/// Frame kind drop: packets that reached us and were not written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DropRecord {
    /// Number of the reason, see [`DropRecord::REASONS`].
    pub reason: u8,
    /// Side whose packets they were; 255 = both or not known.
    pub side: u8,
    /// m-line index; 255 = not known.
    pub media: u8,
    /// SSRC, 0 = not known.
    pub ssrc: u32,
    /// How many.
    pub count: u64,
}

impl DropRecord {
    /// Bytes of the payload.
    pub const BYTES: usize = 16;
    /// Names of the reasons by number.
    pub const REASONS: [&'static str; 9] = [
        "socket",
        "buffer_ring",
        "cq_overflow",
        "send_failed",
        "no_extent",
        "disk",
        "rate_cap",
        "restart",
        "limit",
    ];
    /// Number of `disk`.
    pub const DISK: u8 = 5;

    /// The payload.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0u8; Self::BYTES];
        bytes[0] = self.reason;
        bytes[1] = self.side;
        bytes[2] = self.media;
        bytes[4..8].copy_from_slice(&self.ssrc.to_le_bytes());
        bytes[8..].copy_from_slice(&self.count.to_le_bytes());
        bytes
    }

    /// Reads a payload; `None` when it is too short.
    #[must_use]
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let ssrc: [u8; 4] = payload.get(4..8)?.try_into().ok()?;
        Some(Self {
            reason: payload[0],
            side: payload[1],
            media: payload[2],
            ssrc: u32::from_le_bytes(ssrc),
            count: u64_at(payload, 8)?,
        })
    }

    /// Name of the reason.
    #[must_use]
    pub fn reason_name(&self) -> &'static str {
        Self::REASONS
            .get(usize::from(self.reason))
            .copied()
            .unwrap_or("unknown")
    }
}

/// Frame kinds pause and resume.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PauseRecord {
    /// Who asked: 0 = not known, 1 = the API, 2 = SIPREC, 3 = policy.
    pub by: u8,
}

impl PauseRecord {
    /// Bytes of the payload.
    pub const BYTES: usize = 8;

    /// The payload.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::BYTES] {
        [self.by, 0, 0, 0, 0, 0, 0, 0]
    }

    /// Reads a payload.
    #[must_use]
    pub fn decode(payload: &[u8]) -> Self {
        Self {
            by: payload.first().copied().unwrap_or(0),
        }
    }
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let word: [u8; 8] = bytes.get(at..at + 8)?.try_into().ok()?;
    Some(u64::from_le_bytes(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_their_encoding() {
        let clock = ClockTriple {
            mono_ns: 7,
            utc_ns: u64::MAX,
            sync: 1,
        };
        assert_eq!(ClockTriple::decode(&clock.encode()), Some(clock));
        let drop = DropRecord {
            reason: 5,
            side: 1,
            media: 2,
            ssrc: 0xdead_beef,
            count: 1 << 40,
        };
        assert_eq!(DropRecord::decode(&drop.encode()), Some(drop));
        assert_eq!(drop.reason_name(), "disk");
        assert_eq!(DropRecord::decode(&[0; 15]), None);
        assert_eq!(ClockTriple::decode(&[0; 16]), None);
        let pause = PauseRecord { by: 3 };
        assert_eq!(PauseRecord::decode(&pause.encode()), pause);
    }
}
