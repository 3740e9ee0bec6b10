//! Telephone events (RFC 4733 section 2.3).
//!
//! ```text
//! |     event     |E|R| volume    |          duration             |
//! ```

use crate::u16_at;

/// One event block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TelephoneEvent {
    /// Event code: 0-9, 10 = `*`, 11 = `#`, 12-15 = A-D, 16 = flash.
    pub event: u8,
    /// The event has ended; its duration is final.
    pub end: bool,
    /// Power level, 0 to 63, in -dBm0.
    pub volume: u8,
    /// Duration so far, in timestamp units.
    pub duration: u16,
}

impl TelephoneEvent {
    /// Bytes of a block.
    pub const BYTES: usize = 4;

    /// Reads the first block of a payload; `None` when it is shorter than one.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let block = payload.first_chunk::<{ Self::BYTES }>()?;
        Some(Self {
            event: block[0],
            end: block[1] & 0x80 != 0,
            volume: block[1] & 0x3f,
            duration: u16_at(block, 2),
        })
    }

    /// All whole blocks of a payload (RFC 4733 section 2.5.1.5 allows several).
    pub fn parse_all(payload: &[u8]) -> impl Iterator<Item = Self> + '_ {
        payload.chunks_exact(Self::BYTES).filter_map(Self::parse)
    }

    /// The block's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let duration = self.duration.to_be_bytes();
        [
            self.event,
            u8::from(self.end) << 7 | self.volume & 0x3f,
            duration[0],
            duration[1],
        ]
    }

    /// The key as dialled, for events 0 to 15.
    #[must_use]
    pub fn digit(&self) -> Option<char> {
        b"0123456789*#ABCD"
            .get(usize::from(self.event))
            .map(|&byte| char::from(byte))
    }
}
