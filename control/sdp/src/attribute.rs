//! `a=` lines: the raw pair, the direction, and which of them may cross to the other leg.

use serde::{Deserialize, Serialize};

/// One `a=` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Name as received.
    pub name: String,
    /// What follows the colon; `None` for a property attribute.
    pub value: Option<String>,
}

impl Attribute {
    pub(crate) fn parse(text: &str) -> Self {
        match text.split_once(':') {
            Some((name, value)) => Self {
                name: name.trim().to_owned(),
                value: Some(value.trim().to_owned()),
            },
            None => Self {
                name: text.trim().to_owned(),
                value: None,
            },
        }
    }

    /// Whether the name is this one (names are case-insensitive in practice).
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// The value's leading payload type and the rest, as in `rtpmap:96 opus/48000/2`.
    pub(crate) fn payload_and_rest(&self) -> Option<(u8, &str)> {
        let value = self.value.as_deref()?;
        let (number, rest) = value.split_once(char::is_whitespace).unwrap_or((value, ""));
        let pt: u8 = number.parse().ok()?;
        (pt < 128).then_some((pt, rest.trim()))
    }
}

/// Media direction as one side states it (RFC 3264 section 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Direction {
    /// Sends and receives; also what an absent attribute means.
    SendRecv,
    /// Only sends.
    SendOnly,
    /// Only receives.
    RecvOnly,
    /// Neither.
    Inactive,
}

impl Direction {
    /// From its two halves.
    #[must_use]
    pub const fn new(sends: bool, receives: bool) -> Self {
        match (sends, receives) {
            (true, true) => Self::SendRecv,
            (true, false) => Self::SendOnly,
            (false, true) => Self::RecvOnly,
            (false, false) => Self::Inactive,
        }
    }

    /// Whether the side that states it sends.
    #[must_use]
    pub const fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    /// Whether the side that states it receives.
    #[must_use]
    pub const fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    /// The same stream seen from the other end.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self::new(self.receives(), self.sends())
    }

    /// What both allow.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self::new(
            self.sends() && other.sends(),
            self.receives() && other.receives(),
        )
    }

    /// The attribute's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    pub(crate) fn from_attribute(attribute: &Attribute) -> Option<Self> {
        if attribute
            .value
            .as_deref()
            .is_some_and(|value| !value.is_empty())
        {
            return None;
        }
        [
            Self::SendRecv,
            Self::SendOnly,
            Self::RecvOnly,
            Self::Inactive,
        ]
        .into_iter()
        .find(|direction| attribute.is(direction.name()))
    }
}

/// Attributes about single payload types: they cross when the payload type does.
const PER_PAYLOAD: [&str; 3] = ["rtpmap", "fmtp", "rtcp-fb"];

/// Attributes of a whole m-line that describe the media itself and hold end to end.
/// What describes transport, security or grouping (ICE, DTLS, crypto, rtcp, BUNDLE, mid, ssrc,
/// msid, candidate ...) is about one hop and never crosses.
const PER_LINE: [&str; 13] = [
    "ptime",
    "maxptime",
    "silenceSupp",
    "ecan",
    "gpmd",
    "framerate",
    "framesize",
    "imageattr",
    "content",
    "label",
    "lang",
    "quality",
    "orient",
];

/// Whether an attribute may cross to the other leg, given the payload types that do.
/// Directions and rtcp-mux are written by us and so are not "crossing".
pub(crate) fn crosses(attribute: &Attribute, payloads: &[u8]) -> bool {
    if PER_PAYLOAD.iter().any(|name| attribute.is(name)) {
        let wildcard = attribute.is("rtcp-fb")
            && attribute
                .value
                .as_deref()
                .is_some_and(|value| value.starts_with("* "));
        return wildcard
            || attribute
                .payload_and_rest()
                .is_some_and(|(pt, _)| payloads.contains(&pt));
    }
    PER_LINE.iter().any(|name| attribute.is(name)) || is_t38(attribute)
}

/// T.38's own attributes (ITU-T T.38 annex D): `T38FaxVersion`, `T38MaxBitRate` ...
fn is_t38(attribute: &Attribute) -> bool {
    attribute
        .name
        .get(..3)
        .is_some_and(|prefix| prefix.eq_ignore_ascii_case("t38"))
        && attribute
            .name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric())
}
