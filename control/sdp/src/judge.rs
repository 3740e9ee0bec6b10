//! May this be relayed as a call?

use std::fmt;
use std::net::IpAddr;

use crate::SdpError;
use crate::description::{Connection, Description, Media, Protocol};
use crate::plan::RelayKind;

/// Why an m-line is not relayed (it gets port 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Its own port is 0.
    Disabled,
    /// Secure RTP, which is not relayed.
    SecureRtp,
    /// A transport other than RTP over UDP or udptl.
    Transport,
    /// No format of it is a payload type.
    NoPayloads,
    /// A multicast or broadcast address.
    Multicast,
    /// None of the codecs that may cross.
    Codec,
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Disabled => "port 0",
            Self::SecureRtp => "secure RTP is not supported",
            Self::Transport => "the transport is not supported",
            Self::NoPayloads => "no RTP payload type",
            Self::Multicast => "multicast is not supported",
            Self::Codec => "none of the codecs that may cross",
        })
    }
}

impl Media {
    /// Why this m-line is not relayed, if so.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        if self.port == 0 {
            return Some(Refusal::Disabled);
        }
        match self.protocol {
            Protocol::Srtp => return Some(Refusal::SecureRtp),
            Protocol::Other => return Some(Refusal::Transport),
            Protocol::Rtp if self.payloads.is_empty() => return Some(Refusal::NoPayloads),
            Protocol::Rtp | Protocol::Udptl => {}
        }
        match &self.connection {
            Some(Connection::Address(address)) if is_multicast(*address) => {
                Some(Refusal::Multicast)
            }
            _ => None,
        }
    }

    /// How this m-line is relayed; `None` when it is refused.
    #[must_use]
    pub fn relay_kind(&self) -> Option<RelayKind> {
        if self.refusal().is_some() {
            return None;
        }
        Some(match self.protocol {
            Protocol::Udptl => RelayKind::OpaqueDatagram,
            _ if self.kind == "audio" => RelayKind::Audio,
            _ => RelayKind::OpaqueRtp,
        })
    }
}

fn is_multicast(address: IpAddr) -> bool {
    address.is_multicast() || matches!(address, IpAddr::V4(four) if four.is_broadcast())
}

/// When an offer arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// The offer that sets up the call: it must have audio (or fax) that can be relayed.
    First,
    /// A re-offer within the call, which may disable what it likes.
    Later,
}

/// Judges an offer.
///
/// # Errors
/// [`SdpError::NoAudio`] or [`SdpError::Refused`] when there is nothing to relay: on
/// the first offer when neither audio nor udptl is acceptable, on a later one only when m-lines are
/// in use and none of them is acceptable.
pub fn judge_offer(offer: &Description, occasion: Occasion) -> Result<(), SdpError> {
    let carries = |media: &Media| match occasion {
        Occasion::First => {
            matches!(
                media.relay_kind(),
                Some(RelayKind::Audio | RelayKind::OpaqueDatagram)
            )
        }
        Occasion::Later => media.relay_kind().is_some(),
    };
    if offer.media.iter().any(carries) {
        return Ok(());
    }
    if occasion == Occasion::Later && offer.media.iter().all(|media| media.port == 0) {
        return Ok(());
    }
    let audio = |media: &&Media| media.kind == "audio" && media.port != 0;
    match offer.media.iter().filter(audio).find_map(Media::refusal) {
        Some(refusal) => Err(SdpError::Refused(refusal)),
        None => Err(SdpError::NoAudio),
    }
}

/// Judges the answer to an offer that had `lines` m-lines.
///
/// m-lines missing at its end count as rejected: some equipment leaves them out.
///
/// # Errors
/// [`SdpError::AnswerMismatch`] when it has no m-line at all although some were offered.
pub fn judge_answer(answer: &Description, lines: usize) -> Result<(), SdpError> {
    if answer.media.is_empty() && lines > 0 {
        return Err(SdpError::AnswerMismatch("no m-line"));
    }
    Ok(())
}
