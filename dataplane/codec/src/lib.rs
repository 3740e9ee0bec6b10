//! Audio codecs behind one small trait: decode, encode, conceal.
//!
//! A [`Format`] is what SDP says of a payload type (name, RTP clock, channels). It knows how much
//! time a payload covers without decoding it, and makes a [`Decoder`] or an [`Encoder`].
//! Everything decodes to 16-bit mono at the format's own sample rate. No I/O, no unsafe.
#![forbid(unsafe_code)]

mod amr;
pub mod comfort_noise;
pub mod conceal;
mod format;
pub mod g711;
mod g722;
mod g729;
mod gsm;
mod l16;
mod opus;
mod quality;
pub mod telephone_event;
pub mod tone;

pub use format::{CodecKind, Format, Framing};
pub use opus::{OpusFileEncoder, opus_frames};
pub use quality::Impairment;

/// Why a payload or a format was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The payload is not a frame of this codec.
    #[error("{codec}: payload of {bytes} bytes is not valid: {reason}")]
    Payload {
        /// Encoding name.
        codec: &'static str,
        /// Payload length.
        bytes: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// This build has no decoder or encoder for the format.
    #[error("{codec}: not supported: {missing}")]
    NotSupported {
        /// Encoding name.
        codec: &'static str,
        /// What is missing.
        missing: &'static str,
    },
    /// The clock rate or channel count makes no sense for the codec.
    #[error("{codec}: clock rate {clock_hz} Hz with {channels} channels is not possible")]
    Shape {
        /// Encoding name.
        codec: &'static str,
        /// RTP clock rate, Hz.
        clock_hz: u32,
        /// Channels.
        channels: u8,
    },
}

/// Turns payloads of one stream, in order, into sound.
pub trait Decoder: Send {
    /// Samples a second of the output.
    fn rate_hz(&self) -> u32;

    /// Appends the payload's samples (mono) and returns how many.
    ///
    /// # Errors
    /// The payload is no frame of this codec; nothing has been appended.
    fn decode(&mut self, payload: &[u8], output: &mut Vec<i16>) -> Result<usize, CodecError>;

    /// Appends up to `samples` samples in place of payloads that never came, by the codec's own
    /// means, and returns how many. `next` is the payload after the loss, which may carry a
    /// coarse copy of the one before it. Codecs without concealment of their own return 0: use
    /// [`conceal::Concealer`].
    fn conceal(&mut self, samples: usize, next: Option<&[u8]>, output: &mut Vec<i16>) -> usize {
        let _ = (samples, next, output);
        0
    }

    /// Whether the last payload began a silence in which the sender may send nothing.
    fn is_idle(&self) -> bool {
        false
    }

    /// Appends up to `samples` samples of the noise that such a silence is described to have, and
    /// returns how many (whole frames only; 0 when [`Self::is_idle`] is false).
    fn idle(&mut self, samples: usize, output: &mut Vec<i16>) -> usize {
        let _ = (samples, output);
        0
    }
}

/// Turns sound (mono, the format's rate) into payloads.
pub trait Encoder: Send {
    /// Samples a second of the input.
    fn rate_hz(&self) -> u32;

    /// Appends one payload holding all of `samples`.
    ///
    /// # Errors
    /// The number of samples is not one this codec can put in a payload.
    fn encode(&mut self, samples: &[i16], output: &mut Vec<u8>) -> Result<usize, CodecError>;
}
