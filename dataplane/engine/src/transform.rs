//! What is done to packets between the wire and the relay, a leg at a time. SRTP will live here.

/// A leg's transform.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum Transform {
    /// Plain RTP.
    #[default]
    Clear,
}

impl Transform {
    /// Turns what came from the wire (the first `length` bytes) into clear text in place and gives
    /// the new length; `None` when it is not authentic.
    #[inline]
    pub(crate) fn open(&mut self, _buffer: &mut [u8], length: usize) -> Option<usize> {
        match self {
            Self::Clear => Some(length),
        }
    }

    /// Turns clear text into what goes on the wire, growing by at most
    /// [`crate::TAIL_ROOM_BYTES`]; `None` when the buffer has no room.
    #[inline]
    pub(crate) fn seal(&mut self, _buffer: &mut [u8], length: usize) -> Option<usize> {
        match self {
            Self::Clear => Some(length),
        }
    }
}
