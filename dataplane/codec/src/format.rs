//! What SDP says of a payload type, and what follows from it.

use crate::{CodecError, Decoder, Encoder, amr, g711, g722, g729, gsm, l16, opus};

/// Codecs by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CodecKind {
    /// G.711 mu-law.
    Pcmu,
    /// G.711 A-law.
    Pcma,
    /// G.722 at 64 kbit/s.
    G722,
    /// Opus (RFC 6716, RFC 7587).
    Opus,
    /// Linear 16-bit PCM, big-endian (RFC 3551 section 4.5.11).
    L16,
    /// GSM full rate (RFC 3551 section 4.5.8).
    Gsm,
    /// G.729 and its annexes A and B.
    G729,
    /// iLBC (RFC 3952).
    Ilbc,
    /// AMR narrow band (RFC 4867).
    Amr,
    /// AMR wide band (RFC 4867).
    AmrWb,
    /// Telephone events (RFC 4733): never audio.
    TelephoneEvent,
    /// Comfort noise (RFC 3389).
    ComfortNoise,
}

impl CodecKind {
    /// All codecs that have a name in SDP.
    pub const ALL: [Self; 12] = [
        Self::Pcmu,
        Self::Pcma,
        Self::G722,
        Self::Opus,
        Self::L16,
        Self::Gsm,
        Self::G729,
        Self::Ilbc,
        Self::Amr,
        Self::AmrWb,
        Self::TelephoneEvent,
        Self::ComfortNoise,
    ];

    /// The encoding name of SDP.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
            Self::G722 => "G722",
            Self::Opus => "opus",
            Self::L16 => "L16",
            Self::Gsm => "GSM",
            Self::G729 => "G729",
            Self::Ilbc => "iLBC",
            Self::Amr => "AMR",
            Self::AmrWb => "AMR-WB",
            Self::TelephoneEvent => "telephone-event",
            Self::ComfortNoise => "CN",
        }
    }

    /// Finds a codec by its SDP encoding name (case does not matter; `ulaw`, `alaw` and a few
    /// other common spellings are understood).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let lower = name.trim().to_ascii_lowercase();
        Some(match lower.as_str() {
            "pcmu" | "ulaw" | "mulaw" | "mu-law" | "u-law" | "g711u" => Self::Pcmu,
            "pcma" | "alaw" | "a-law" | "g711a" => Self::Pcma,
            "g722" | "g.722" => Self::G722,
            "opus" => Self::Opus,
            "l16" | "pcm" | "linear" => Self::L16,
            "gsm" | "gsm-fr" => Self::Gsm,
            "g729" | "g.729" | "g729a" | "g729b" => Self::G729,
            "ilbc" => Self::Ilbc,
            "amr" | "amr-nb" => Self::Amr,
            "amr-wb" => Self::AmrWb,
            "telephone-event" => Self::TelephoneEvent,
            "cn" => Self::ComfortNoise,
            _ => return None,
        })
    }

    /// The static payload type's codec, RTP clock and channels (RFC 3551 section 6).
    #[must_use]
    pub const fn from_static_payload_type(payload_type: u8) -> Option<Format> {
        let (kind, clock_hz, channels) = match payload_type {
            0 => (Self::Pcmu, 8_000, 1),
            3 => (Self::Gsm, 8_000, 1),
            8 => (Self::Pcma, 8_000, 1),
            9 => (Self::G722, 8_000, 1),
            10 => (Self::L16, 44_100, 2),
            11 => (Self::L16, 44_100, 1),
            13 => (Self::ComfortNoise, 8_000, 1),
            18 => (Self::G729, 8_000, 1),
            _ => return None,
        };
        Some(Format {
            kind,
            clock_hz,
            channels,
            framing: Framing::UNSAID,
        })
    }

    /// Whether payloads of this codec are sound (not events).
    #[must_use]
    pub const fn is_sound(self) -> bool {
        !matches!(self, Self::TelephoneEvent | Self::ComfortNoise)
    }
}

/// A codec with its RTP clock and channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Format {
    /// Codec.
    pub kind: CodecKind,
    /// RTP clock rate in Hz; 8000 for G.722 although it carries 16000 samples a second
    /// (RFC 3551 section 4.5.2), 48000 for Opus whatever it carries (RFC 7587 section 4.1).
    pub clock_hz: u32,
    /// Channels in the payload.
    pub channels: u8,
    /// How frames lie in the payload; matters for AMR and AMR-WB only.
    pub framing: Framing,
}

/// How AMR frames lie in a payload (RFC 4867 section 8.1); the default is what SDP means when it
/// says nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Framing {
    /// Every part begins at an octet (`octet-align`), rather than bit by bit.
    pub octet_aligned: bool,
    /// A checksum for each frame (`crc`).
    pub checksums: bool,
    /// Octets sorted by their weight (`robust-sorting`).
    pub sorted: bool,
    /// Frames spread over packets (`interleaving`).
    pub interleaved: bool,
}

impl Framing {
    const UNSAID: Self = Self {
        octet_aligned: false,
        checksums: false,
        sorted: false,
        interleaved: false,
    };

    /// From the parameters of an SDP `fmtp` line.
    #[must_use]
    pub fn of(fmtp: &str) -> Self {
        let mut framing = Self::UNSAID;
        for parameter in fmtp.split([';', ' ']) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, "1"));
            let set = value.trim() != "0";
            match name.trim().to_ascii_lowercase().as_str() {
                "octet-align" => framing.octet_aligned = set,
                "crc" => framing.checksums = set,
                "robust-sorting" => framing.sorted = set,
                "interleaving" => framing.interleaved = set,
                _ => {}
            }
        }
        // Each of these implies it.
        framing.octet_aligned |= framing.checksums | framing.sorted | framing.interleaved;
        framing
    }
}

impl Format {
    /// The codec's usual format: the one meant when only its name is given.
    #[must_use]
    pub const fn usual(kind: CodecKind) -> Self {
        let (clock_hz, channels) = match kind {
            CodecKind::Opus => (48_000, 2),
            CodecKind::AmrWb => (16_000, 1),
            _ => (8_000, 1),
        };
        Self {
            kind,
            clock_hz,
            channels,
            framing: Framing::UNSAID,
        }
    }

    /// The same with the parameters of its SDP `fmtp` line.
    #[must_use]
    pub fn with_parameters(self, fmtp: &str) -> Self {
        Self {
            framing: Framing::of(fmtp),
            ..self
        }
    }

    /// The format of an SDP `rtpmap`; `None` for names this build does not know.
    /// Zero for clock or channels means "not said".
    #[must_use]
    pub fn from_sdp(name: &str, clock_hz: u32, channels: u8) -> Option<Self> {
        let usual = Self::usual(CodecKind::from_name(name)?);
        Some(Self {
            kind: usual.kind,
            clock_hz: if clock_hz == 0 {
                usual.clock_hz
            } else {
                clock_hz
            },
            channels: if channels == 0 {
                usual.channels
            } else {
                channels
            },
            framing: Framing::UNSAID,
        })
    }

    /// Samples a second once decoded.
    #[must_use]
    pub const fn rate_hz(&self) -> u32 {
        match self.kind {
            CodecKind::G722 | CodecKind::AmrWb => 16_000,
            CodecKind::Opus => 48_000,
            CodecKind::L16 | CodecKind::Pcmu | CodecKind::Pcma => self.clock_hz,
            _ => 8_000,
        }
    }

    /// Samples (a channel, at [`Self::rate_hz`]) that the payload stands for, told from its
    /// length or header; `None` when it is no frame of this codec or carries no sound.
    #[must_use]
    pub fn samples(&self, payload: &[u8]) -> Option<usize> {
        let bytes = payload.len();
        let samples = match self.kind {
            CodecKind::Pcmu | CodecKind::Pcma => bytes / usize::from(self.channels.max(1)),
            CodecKind::G722 => bytes * 2,
            CodecKind::L16 => bytes / (2 * usize::from(self.channels.max(1))),
            CodecKind::Opus => opus::samples(payload)?,
            CodecKind::Gsm if bytes.is_multiple_of(33) => bytes / 33 * gsm::FRAME_SAMPLES,
            CodecKind::G729 => g729::samples(bytes)?,
            CodecKind::Amr => amr::samples(payload, false, self.framing)?,
            CodecKind::AmrWb => amr::samples(payload, true, self.framing)?,
            _ => return None,
        };
        (samples > 0).then_some(samples)
    }

    /// A decoder in its initial state.
    ///
    /// # Errors
    /// No decoder for this codec in this build, or an impossible clock or channel count.
    pub fn decoder(&self) -> Result<Box<dyn Decoder>, CodecError> {
        self.check_shape()?;
        Ok(match self.kind {
            CodecKind::Pcmu => Box::new(g711::TableDecoder::mu_law(self.clock_hz, self.channels)),
            CodecKind::Pcma => Box::new(g711::TableDecoder::a_law(self.clock_hz, self.channels)),
            CodecKind::L16 => Box::new(l16::L16Decoder::new(self.clock_hz, self.channels)),
            CodecKind::G722 => Box::new(g722::G722Decoder::new()),
            CodecKind::Opus => Box::new(opus::OpusDecoder::new()?),
            CodecKind::Gsm => Box::new(gsm::GsmDecoder::new()),
            CodecKind::G729 => Box::new(g729::G729Decoder::new()?),
            CodecKind::Amr => Box::new(amr::AmrDecoder::new(false, self.framing)?),
            CodecKind::AmrWb => Box::new(amr::AmrDecoder::new(true, self.framing)?),
            _ => return Err(self.not_supported()),
        })
    }

    /// An encoder in its initial state (mono).
    ///
    /// # Errors
    /// No encoder for this codec in this build, or an impossible clock or channel count.
    pub fn encoder(&self) -> Result<Box<dyn Encoder>, CodecError> {
        self.check_shape()?;
        Ok(match self.kind {
            CodecKind::Pcmu => Box::new(g711::G711Encoder::mu_law(self.clock_hz)),
            CodecKind::Pcma => Box::new(g711::G711Encoder::a_law(self.clock_hz)),
            CodecKind::L16 => Box::new(l16::L16Encoder::new(self.clock_hz)),
            CodecKind::G722 => Box::new(g722::G722Encoder::new()),
            CodecKind::Opus => Box::new(opus::OpusEncoder::new()?),
            CodecKind::G729 => Box::new(g729::G729Encoder::new()?),
            CodecKind::Amr => Box::new(amr::AmrEncoder::new(false, self.framing)?),
            CodecKind::AmrWb => Box::new(amr::AmrEncoder::new(true, self.framing)?),
            _ => return Err(self.not_supported()),
        })
    }

    fn check_shape(&self) -> Result<(), CodecError> {
        let many = !matches!(
            self.kind,
            CodecKind::G729 | CodecKind::Gsm | CodecKind::Amr | CodecKind::AmrWb | CodecKind::G722
        );
        let channels_max = if many { 8 } else { 1 };
        if (1_000..=192_000).contains(&self.clock_hz) && (1..=channels_max).contains(&self.channels)
        {
            return Ok(());
        }
        Err(CodecError::Shape {
            codec: self.kind.name(),
            clock_hz: self.clock_hz,
            channels: self.channels,
        })
    }

    fn not_supported(&self) -> CodecError {
        let missing = match self.kind {
            CodecKind::TelephoneEvent => "telephone events are listed, not decoded as audio",
            CodecKind::ComfortNoise => "comfort noise is made by comfort_noise::Generator",
            CodecKind::Ilbc => "a decoder of RFC 3951 under a licence that this project can take",
            _ => "no implementation in this build",
        };
        CodecError::NotSupported {
            codec: self.kind.name(),
            missing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_codec() {
        for kind in CodecKind::ALL {
            assert_eq!(CodecKind::from_name(kind.name()), Some(kind));
        }
        assert_eq!(CodecKind::from_name("VP8"), None);
    }

    #[test]
    fn g722_has_twice_as_many_samples_as_clock_ticks() {
        let format = Format::from_sdp("G722", 8_000, 1).unwrap();
        assert_eq!((format.clock_hz, format.rate_hz()), (8_000, 16_000));
        assert_eq!(format.samples(&[0; 160]), Some(320));
    }

    #[test]
    fn impossible_shapes_are_errors() {
        for (clock_hz, channels) in [(0, 1), (8_000, 0), (1_000_000, 1), (8_000, 200)] {
            let format = Format {
                kind: CodecKind::L16,
                clock_hz,
                channels,
                ..Format::usual(CodecKind::L16)
            };
            assert!(matches!(format.decoder(), Err(CodecError::Shape { .. })));
        }
    }
}
