//! The moment a packet was sent, in the first bytes of its payload.

/// Bytes of a stamp; shorter payloads carry none.
pub const STAMP_BYTES: usize = 12;
const MAGIC: [u8; 4] = *b"rtpg";

/// Writes the stamp: ns since 1970.
pub fn write(payload: &mut [u8], unix_ns: u64) {
    if let Some(stamp) = payload.first_chunk_mut::<STAMP_BYTES>() {
        stamp[..4].copy_from_slice(&MAGIC);
        stamp[4..].copy_from_slice(&unix_ns.to_be_bytes());
    }
}

/// Reads it.
#[must_use]
pub fn read(payload: &[u8]) -> Option<u64> {
    let (magic, rest) = payload.split_first_chunk::<4>()?;
    let ns = rest.first_chunk::<8>()?;
    (*magic == MAGIC).then(|| u64::from_be_bytes(*ns))
}
