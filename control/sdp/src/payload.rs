//! Payload types: what they stand for, and which of them a side may send.

use crate::description::Media;
use crate::limits::PAYLOADS_MAX;

/// Codecs the relay tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Anything not named here.
    Other,
    /// G.711 mu-law.
    Pcmu,
    /// G.711 A-law.
    Pcma,
    /// G.722.
    G722,
    /// Opus.
    Opus,
    /// Linear 16-bit PCM.
    L16,
    /// RFC 4733 telephone-event.
    TelephoneEvent,
    /// RFC 3389 comfort noise.
    ComfortNoise,
    /// G.729.
    G729,
    /// GSM full rate.
    Gsm,
}

impl Codec {
    /// From an rtpmap encoding name, any case.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        const NAMES: [(&str, Codec); 10] = [
            ("PCMU", Codec::Pcmu),
            ("PCMA", Codec::Pcma),
            ("G722", Codec::G722),
            ("opus", Codec::Opus),
            ("L16", Codec::L16),
            ("telephone-event", Codec::TelephoneEvent),
            ("CN", Codec::ComfortNoise),
            ("G729", Codec::G729),
            ("G729A", Codec::G729),
            ("GSM", Codec::Gsm),
        ];
        NAMES
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map_or(Self::Other, |(_, codec)| *codec)
    }
}

/// One payload type of an m-line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadType {
    /// 0..=127.
    pub pt: u8,
    /// Codec.
    pub codec: Codec,
    /// Encoding name as in SDP; empty for a dynamic type without rtpmap.
    pub name: String,
    /// RTP clock rate in Hz (8000 for G.722).
    pub clock_hz: u32,
    /// Channels, at least 1.
    pub channels: u8,
    /// Parameters of the fmtp line, empty without one.
    pub fmtp: String,
}

/// Static assignments of RFC 3551 section 6: number, name, clock, channels.
const STATIC: [(u8, &str, u32, u8); 24] = [
    (0, "PCMU", 8000, 1),
    (3, "GSM", 8000, 1),
    (4, "G723", 8000, 1),
    (5, "DVI4", 8000, 1),
    (6, "DVI4", 16000, 1),
    (7, "LPC", 8000, 1),
    (8, "PCMA", 8000, 1),
    (9, "G722", 8000, 1),
    (10, "L16", 44100, 2),
    (11, "L16", 44100, 1),
    (12, "QCELP", 8000, 1),
    (13, "CN", 8000, 1),
    (14, "MPA", 90000, 1),
    (15, "G728", 8000, 1),
    (16, "DVI4", 11025, 1),
    (17, "DVI4", 22050, 1),
    (18, "G729", 8000, 1),
    (25, "CelB", 90000, 1),
    (26, "JPEG", 90000, 1),
    (28, "nv", 90000, 1),
    (31, "H261", 90000, 1),
    (32, "MPV", 90000, 1),
    (33, "MP2T", 90000, 1),
    (34, "H263", 90000, 1),
];

impl PayloadType {
    /// A payload type by its number and the rest of its rtpmap line, if there is one.
    pub(crate) fn new(pt: u8, rtpmap: Option<&str>, fmtp: Option<&str>) -> Self {
        let known = STATIC.iter().find(|(number, ..)| *number == pt);
        let (mut name, mut clock_hz, mut channels) = known
            .map_or((String::new(), 8000, 1), |(_, name, clock, channels)| {
                ((*name).to_owned(), *clock, *channels)
            });
        if let Some(rtpmap) = rtpmap {
            let mut parts = rtpmap.split('/').map(str::trim);
            if let Some(given) = parts.next().filter(|given| !given.is_empty()) {
                given.clone_into(&mut name);
                channels = 1;
            }
            if let Some(clock) = parts.next().and_then(|text| text.parse().ok())
                && clock > 0
            {
                clock_hz = clock;
            }
            if let Some(count) = parts.next().and_then(|text| text.parse().ok())
                && count > 0
            {
                channels = count;
            }
        }
        Self {
            pt,
            codec: Codec::from_name(&name),
            name,
            clock_hz,
            channels,
            fmtp: fmtp.unwrap_or_default().to_owned(),
        }
    }

    /// Whether both stand for the same encoding; unnamed ones only if their numbers agree.
    #[must_use]
    pub fn same_encoding(&self, other: &Self) -> bool {
        if self.name.is_empty() || other.name.is_empty() {
            return self.pt == other.pt && self.name.is_empty() && other.name.is_empty();
        }
        self.name.eq_ignore_ascii_case(&other.name)
            && self.clock_hz == other.clock_hz
            && self.channels == other.channels
    }
}

/// A payload type that a side may send, and what it becomes on the way to the far side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sendable {
    /// As this side sends it.
    pub pt: u8,
    /// As the far side expects it; equal to `pt` when unmapped.
    pub to_pt: u8,
    /// Codec.
    pub codec: Codec,
    /// Encoding name as in SDP.
    pub name: String,
    /// RTP clock rate in Hz.
    pub clock_hz: u32,
    /// Channels.
    pub channels: u8,
    /// The sender's own fmtp for this encoding where it gave one, else the receiver's.
    pub fmtp: String,
}

/// What `sender` may send on an m-line, given what `receiver`, the far side, said it accepts.
///
/// A payload type number belongs to who receives (RFC 3264 section 5.1), and SDP is copied through,
/// so the receiver's numbers pass unchanged. An answerer may number an encoding differently from the
/// offer; a sender that then uses its own number all the same is mapped, where that number is
/// not taken. With only one side known, its numbers are all there is. At most
/// [`PAYLOADS_MAX`] entries, each `pt` once.
#[must_use]
pub fn sendable(sender: Option<&Media>, receiver: Option<&Media>) -> Vec<Sendable> {
    let sender = sender.map_or(&[][..], |media| &media.payloads);
    let Some(receiver) = receiver else {
        return sender
            .iter()
            .take(PAYLOADS_MAX)
            .map(|own| entry(own, own.pt, own))
            .collect();
    };
    let mut list: Vec<Sendable> = Vec::new();
    for wanted in receiver.payloads.iter().take(PAYLOADS_MAX) {
        let own = best_match(sender, wanted).unwrap_or(wanted);
        list.push(entry(wanted, wanted.pt, own));
    }
    for own in sender {
        if list.len() >= PAYLOADS_MAX {
            break;
        }
        if list.iter().any(|known| known.pt == own.pt) {
            continue;
        }
        if let Some(wanted) = receiver
            .payloads
            .iter()
            .find(|wanted| wanted.same_encoding(own))
        {
            list.push(Sendable {
                pt: own.pt,
                ..entry(wanted, wanted.pt, own)
            });
        }
    }
    list
}

/// The sender's entry for an encoding: the same number if it fits, else the first that does.
fn best_match<'a>(sender: &'a [PayloadType], wanted: &PayloadType) -> Option<&'a PayloadType> {
    let fits = |own: &&PayloadType| own.same_encoding(wanted);
    sender
        .iter()
        .filter(fits)
        .find(|own| own.pt == wanted.pt)
        .or_else(|| sender.iter().find(fits))
}

fn entry(wanted: &PayloadType, to_pt: u8, own: &PayloadType) -> Sendable {
    let fmtp = if own.fmtp.is_empty() {
        &wanted.fmtp
    } else {
        &own.fmtp
    };
    Sendable {
        pt: wanted.pt,
        to_pt,
        codec: wanted.codec,
        name: wanted.name.clone(),
        clock_hz: wanted.clock_hz,
        channels: wanted.channels,
        fmtp: fmtp.clone(),
    }
}
