//! The classic SN3 of a recording, read by hand.

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassicFrame {
    /// 0 = from the caller, 1 = from the callee, others are no audio.
    pub dir: u8,
    /// RTP sequence number.
    pub sequence: u16,
    /// RTP payload.
    pub payload: Vec<u8>,
}

/// Its frames in order.
///
/// # Panics
/// It is none.
#[must_use]
pub fn frames(blob: &[u8]) -> Vec<ClassicFrame> {
    assert_eq!(&blob[..3], b"SN3");
    let mut frames = Vec::new();
    let mut rest = &blob[3..];
    while rest.len() >= 17 {
        let end = 17 + usize::from(u16::from_le_bytes([rest[15], rest[16]]));
        frames.push(ClassicFrame {
            dir: rest[0],
            sequence: u16::from_le_bytes([rest[1], rest[2]]),
            payload: rest[17..end].to_vec(),
        });
        rest = &rest[end..];
    }
    frames
}
