//! The m-lines of a recording session: which of them are captured, each at a place of its own (a medium
//! and a side) of one session of the dataplane, and what we answer.
//!
//! Nothing is relayed, so both sides of a medium are two streams that come in. The first audio line is on
//! the caller's side (the WAV's left), all others on the callee's, as far as there are media for it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use trunkline_link::limits::MEDIA_MAX;
use trunkline_link::message::{LegUpdate, MediaKind, MediaOpen, Payload, Side, leg_flags};
use trunkline_sdp::{
    Codec, Description, Direction, Media, OriginState, Ours, RelayKind, SdpError, negotiated,
    sendable, write_received,
};
use trunkline_siprec::binding::Line;
use trunkline_sn3::facts::{LegFact, PayloadFact};

use crate::call::negotiation::media::codec_id;

/// Where an m-line is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Index of the dataplane session's medium.
    pub media: u8,
    /// Whether on the callee's side of it.
    pub second: bool,
}

impl Place {
    /// The side of the medium.
    #[must_use]
    pub const fn side(self) -> Side {
        if self.second {
            Side::Callee
        } else {
            Side::Caller
        }
    }

    /// The channel of the WAV.
    #[must_use]
    pub const fn channel(self) -> u8 {
        self.second as u8
    }
}

/// The m-lines as agreed.
#[derive(Debug, Clone)]
pub struct Lines {
    /// By m-line; `None` = refused so far.
    places: Vec<Option<Place>>,
    /// Media of the dataplane's session that are ours, and what each carries.
    media: Vec<(u8, RelayKind)>,
    /// Media that nobody uses any more, ours to take.
    spare: Vec<(u8, RelayKind)>,
    /// How many media the dataplane's session has.
    opened: usize,
    /// Its streams are heard where those of sessions with a lower number are not (see [`LegFact`]).
    pub alternate: u8,
    /// The session is over: nothing is expected any more.
    pub gone: bool,
    origin: OriginState,
    offer: Option<(String, Description)>,
    answer: Option<(String, Description)>,
    codecs: Vec<String>,
}

/// An m-line as agreed, for display.
#[derive(Debug)]
pub struct Told {
    /// Its `a=label`.
    pub label: String,
    /// `audio`, `video` ...
    pub kind: String,
    /// Its codec, where it is captured.
    pub codec: Option<String>,
}

/// What of it survives a restart of control.
#[derive(Debug, Serialize, Deserialize)]
pub struct SavedLines {
    places: Vec<Option<Place>>,
    media: Vec<(u8, RelayKind)>,
    alternate: u8,
    gone: bool,
    origin: OriginState,
    offer: String,
    answer: String,
}

/// Codecs that a recording can be turned into sound from.
const PLAYABLE: [Codec; 7] = [
    Codec::Pcmu,
    Codec::Pcma,
    Codec::G722,
    Codec::Opus,
    Codec::L16,
    Codec::G729,
    Codec::Gsm,
];

/// The codecs of an offer of ours: the payload types, then their attributes.
const PROPOSED: &str = "0 8 9 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n\
    a=rtpmap:9 G722/8000\r\na=rtpmap:101 telephone-event/8000\r\n";

impl Lines {
    /// None yet. `codecs` names those that are taken (all, if none is named).
    #[must_use]
    pub fn new(session_id: u64, codecs: &[String]) -> Self {
        Self {
            places: Vec::new(),
            media: Vec::new(),
            spare: Vec::new(),
            opened: 0,
            alternate: 0,
            gone: false,
            origin: OriginState::new(session_id),
            offer: None,
            answer: None,
            codecs: codecs.to_vec(),
        }
    }

    /// What the dataplane's session has beside our media: how many there are, and which are free.
    pub fn within(&mut self, opened: usize, spare: Vec<(u8, RelayKind)>) {
        (self.opened, self.spare) = (opened, spare);
    }

    /// The media that are ours.
    #[must_use]
    pub fn media(&self) -> Vec<(u8, RelayKind)> {
        self.media.clone()
    }

    fn kind_of(&self, place: Place) -> Option<RelayKind> {
        let own = self.media.iter().find(|(media, _)| *media == place.media);
        own.map(|(_, kind)| *kind)
    }

    /// Reads an offer, of which only the codecs that are taken count.
    ///
    /// # Errors
    /// It cannot be read, or nothing of it can be captured.
    pub fn read(&self, bytes: &[u8]) -> Result<(String, Description), SdpError> {
        let kept;
        let bytes = if self.codecs.is_empty() {
            bytes
        } else {
            kept = trunkline_sdp::keep_codecs(bytes, &self.codecs)?;
            &kept
        };
        let description = Description::parse(bytes)?;
        let usable = |media: &Media| media.relay_kind().is_some();
        let idle = description.media.iter().all(|media| media.port == 0);
        let disabled = idle && self.offer.is_some();
        if !(disabled || description.media.iter().any(usable)) {
            let refusals = description.media.iter().filter_map(Media::refusal);
            return Err(refusals
                .max_by_key(|one| *one != trunkline_sdp::Refusal::Disabled)
                .map_or(SdpError::NoAudio, SdpError::Refused));
        }
        Ok((String::from_utf8_lossy(bytes).into_owned(), description))
    }

    /// Takes an offer in: places for lines that have none yet, those in `first` before the others.
    pub fn take(&mut self, offer: (String, Description), first: &[usize]) {
        let count = offer.1.media.len();
        self.places.resize(self.places.len().max(count), None);
        let rest = (0..count).filter(|line| !first.contains(line));
        let order: Vec<usize> = first.iter().copied().chain(rest).collect();
        for audio in [true, false] {
            for &line in &order {
                let kind = offer.1.media.get(line).and_then(Media::relay_kind);
                let Some(kind) = kind.filter(|kind| (*kind == RelayKind::Audio) == audio) else {
                    continue;
                };
                let known = self.places[line];
                if known.is_none_or(|place| self.kind_of(place) != Some(kind)) {
                    self.places[line] = self.free_place(kind);
                }
            }
        }
        self.offer = Some(offer);
    }

    /// A place that no line has: the second side of a medium before the first, so that all but the
    /// first line of a kind are on the same channel.
    fn free_place(&mut self, kind: RelayKind) -> Option<Place> {
        if let Some(place) = self.free_side(kind, true) {
            return Some(place);
        }
        let second = self.media.iter().any(|(_, known)| *known == kind);
        match self.add_medium(kind) {
            Some(media) => Some(Place { media, second }),
            None => self.free_side(kind, false),
        }
    }

    /// A side of the media that are ours and of this kind, which no line has.
    fn free_side(&self, kind: RelayKind, second: bool) -> Option<Place> {
        let own = self.media.iter().filter(|(_, known)| *known == kind);
        own.map(|&(media, _)| Place { media, second })
            .find(|place| !self.places.contains(&Some(*place)))
    }

    /// One more medium, a free one or a new one.
    fn add_medium(&mut self, kind: RelayKind) -> Option<u8> {
        let spare = self.spare.iter().position(|(_, known)| *known == kind);
        let media = match spare {
            Some(index) => self.spare.remove(index).0,
            None if self.opened < MEDIA_MAX => {
                self.opened += 1;
                u8::try_from(self.opened - 1).ok()?
            }
            None => return None,
        };
        self.media.push((media, kind));
        Some(media)
    }

    /// The dataplane session's media with ours among them, the ports that are known already.
    #[must_use]
    pub fn wanted(&self, known: &[MediaOpen]) -> Vec<MediaOpen> {
        let kind = |kind| match kind {
            RelayKind::Audio => MediaKind::Audio,
            RelayKind::OpaqueRtp => MediaKind::OpaqueRtp,
            RelayKind::OpaqueDatagram => MediaKind::OpaqueDatagram,
        };
        let mut wanted = known.to_vec();
        for (index, own) in &self.media {
            if usize::from(*index) == wanted.len() {
                wanted.push(MediaOpen {
                    kind: kind(*own),
                    ports: [0; 2],
                });
            }
        }
        wanted
    }

    /// The client makes no offer: two audio lines are ours to offer.
    pub fn propose(&mut self) {
        let medium = self.add_medium(RelayKind::Audio);
        let place = |second| medium.map(|media| Place { media, second });
        self.places = vec![place(false), place(true)];
    }

    /// Whether the client has still to answer what we offered.
    #[must_use]
    pub fn awaits_answer(&self) -> bool {
        self.offer.is_none() && self.answer.is_some()
    }

    /// The client's answer to what we offered.
    pub fn hear(&mut self, answer: (String, Description)) {
        self.offer = Some(answer);
    }

    /// Our description. To the offer taken last it is the answer: `recvonly` (`inactive` where nothing is
    /// sent), labels as they are, port 0 for lines that have no place. Without one it is our offer.
    ///
    /// # Errors
    /// What was written is no description.
    pub fn write(&mut self, open: &[MediaOpen], address: IpAddr) -> Result<String, SdpError> {
        let Some((_, offer)) = &self.offer else {
            return self.write_proposal(open, address);
        };
        let port = |line: usize| {
            let place = self.place(line)?;
            Some(open.get(usize::from(place.media))?.ports[place.side() as usize])
        };
        let ports: Vec<Option<u16>> = (0..offer.media.len()).map(port).collect();
        let ours = Ours {
            address,
            ports: &ports,
            record: None,
        };
        let written = write_received(offer, &PLAYABLE, &ours, &mut self.origin);
        let description = Description::parse(written.text.as_bytes())?;
        self.answer = Some((written.text.clone(), description));
        Ok(written.text)
    }

    fn write_proposal(&mut self, open: &[MediaOpen], address: IpAddr) -> Result<String, SdpError> {
        let family = if address.is_ipv4() { "IP4" } else { "IP6" };
        let mut body = format!("s=-\r\nc=IN {family} {address}\r\nt=0 0\r\n");
        for (label, place) in (1..).zip(self.places.iter().flatten()) {
            let ports = open.get(usize::from(place.media)).map(|open| open.ports);
            let port = ports.map_or(0, |ports| ports[place.side() as usize]);
            body += &format!("m=audio {port} RTP/AVP {PROPOSED}a=recvonly\r\na=label:{label}\r\n");
        }
        let text = self.origin.describe(address, &body);
        let description = Description::parse(text.as_bytes())?;
        self.answer = Some((text.clone(), description));
        Ok(text)
    }

    /// What was answered last.
    #[must_use]
    pub fn answered(&self) -> Option<&str> {
        self.answer.as_ref().map(|(text, _)| text.as_str())
    }

    /// Where an m-line of the offer in force is captured; `None` when it is not.
    #[must_use]
    pub fn place(&self, line: usize) -> Option<Place> {
        let media = self.offer.as_ref()?.1.media.get(line)?;
        let place = (*self.places.get(line)?)?;
        (media.relay_kind() == self.kind_of(place)).then_some(place)
    }

    /// The m-lines of the offer in force, for the binding of participants: labels in order.
    #[must_use]
    pub fn labels(&self) -> Vec<Line> {
        let media = self.offer.iter().flat_map(|(_, offer)| &offer.media);
        // Who answers an offer of ours may leave our labels out.
        let ours = |line: usize| Some(label_line(self.answer.as_ref()?.1.media.get(line)?));
        media
            .enumerate()
            .map(|(line, media)| match label_line(media) {
                Line { label: None } => ours(line).unwrap_or_default(),
                own => own,
            })
            .collect()
    }

    /// The m-line that is captured at a place.
    #[must_use]
    pub fn line_at(&self, media: u8, side: Side) -> Option<usize> {
        (0..self.places.len()).find(|&line| {
            self.place(line)
                .is_some_and(|place| place.media == media && place.side() == side)
        })
    }

    /// Whether the sender sends anything by what is agreed.
    #[must_use]
    pub fn sends(&self) -> bool {
        (0..self.places.len()).any(|line| self.direction(line).sends())
    }

    /// Whether lines on both channels send.
    #[must_use]
    pub fn channels_sent(&self) -> [bool; 2] {
        let mut sent = [false; 2];
        for line in 0..self.places.len() {
            if let Some(place) = self.place(line)
                && self.direction(line).sends()
            {
                sent[usize::from(place.channel())] = true;
            }
        }
        sent
    }

    /// Whether there is audio on both channels, sent now or not.
    #[must_use]
    pub fn has_two_channels(&self) -> bool {
        let audio = |place: &Place| self.kind_of(*place) == Some(RelayKind::Audio);
        let places = self.places.iter().flatten().filter(|place| audio(place));
        places.fold([false; 2], |mut seen, place| {
            seen[usize::from(place.channel())] = true;
            seen
        }) == [true; 2]
    }

    /// What the sender does on an m-line.
    #[must_use]
    pub fn direction(&self, line: usize) -> Direction {
        match self.both(line) {
            Some((own, far)) if self.place(line).is_some() && !self.gone => negotiated(own, far).0,
            _ => Direction::Inactive,
        }
    }

    fn both(&self, line: usize) -> Option<(&Media, &Media)> {
        let offer = &self.offer.as_ref()?.1;
        let answer = &self.answer.as_ref()?.1;
        Some((offer.media.get(line)?, answer.media.get(line)?))
    }

    /// What the dataplane has to know: each line that is captured, and places that are out of use.
    #[must_use]
    pub fn leg_updates(&self, session: u64, signalling: IpAddr, nat: bool) -> Vec<LegUpdate> {
        let mut updates = Vec::new();
        for (line, place) in self.places.iter().enumerate() {
            let Some(place) = place else { continue };
            let used = self.place(line).is_some() && !self.gone;
            let both = self.both(line).filter(|_| used);
            let mut update = LegUpdate {
                session,
                media: place.media,
                side: place.side(),
                flags: 0,
                rtp: None,
                rtcp: None,
                signalling: Some(signalling),
                payloads: Vec::new(),
                restore: None,
            };
            if let Some((own, far)) = both {
                describe(&mut update, own, far, nat);
            }
            updates.push(update);
        }
        updates
    }

    /// What each line may bring, for the recording's facts.
    #[must_use]
    pub fn leg_facts(&self) -> Vec<LegFact> {
        let lines = 0..self.places.len();
        lines
            .filter_map(|line| {
                let (place, (own, far)) = (self.place(line)?, self.both(line)?);
                let payloads = sendable(Some(own), Some(far));
                Some(LegFact {
                    side: place.channel(),
                    media: place.media,
                    kind: own.kind.clone(),
                    ptime_ms: own.ptime_ms.unwrap_or(0),
                    alternate: self.alternate,
                    payloads: payloads
                        .into_iter()
                        .map(|one| PayloadFact {
                            pt: one.pt,
                            codec: one.name,
                            clock_hz: one.clock_hz,
                            channels: one.channels,
                            fmtp: one.fmtp,
                        })
                        .collect(),
                })
            })
            .collect()
    }

    /// The audio codec of the first line, for display.
    #[must_use]
    pub fn codec(&self) -> Option<String> {
        let audio = |line: &usize| {
            self.place(*line)
                .is_some_and(|place| self.kind_of(place) == Some(RelayKind::Audio))
        };
        self.voice((0..self.places.len()).find(audio)?)
    }

    /// The m-lines as agreed, for display.
    #[must_use]
    pub fn told(&self) -> Vec<Told> {
        let offer = self.offer.iter().flat_map(|(_, offer)| &offer.media);
        offer
            .enumerate()
            .map(|(line, media)| Told {
                label: label_line(media).label.unwrap_or_default(),
                kind: media.kind.clone(),
                codec: self.place(line).and_then(|_| self.voice(line)),
            })
            .collect()
    }

    fn voice(&self, line: usize) -> Option<String> {
        let (own, far) = self.both(line)?;
        let voice = |one: &&trunkline_sdp::Sendable| {
            !matches!(one.codec, Codec::TelephoneEvent | Codec::ComfortNoise)
        };
        let list = sendable(Some(own), Some(far));
        list.iter().find(voice).map(|one| one.name.clone())
    }

    /// What has to be kept over a restart, once an offer was answered.
    #[must_use]
    pub fn save(&self) -> Option<SavedLines> {
        Some(SavedLines {
            places: self.places.clone(),
            media: self.media.clone(),
            alternate: self.alternate,
            gone: self.gone,
            origin: self.origin.clone(),
            offer: self.offer.as_ref()?.0.clone(),
            answer: self.answer.as_ref()?.0.clone(),
        })
    }

    /// The counterpart of [`Self::save`].
    #[must_use]
    pub fn load(saved: SavedLines, codecs: &[String]) -> Option<Self> {
        let media = saved.media;
        let sound = |place: &Place| media.iter().any(|(own, _)| *own == place.media);
        if !saved.places.iter().flatten().all(sound) {
            return None;
        }
        let parse = |text: String| {
            let description = Description::parse(text.as_bytes()).ok()?;
            Some((text, description))
        };
        Some(Self {
            places: saved.places,
            media,
            spare: Vec::new(),
            opened: 0,
            alternate: saved.alternate,
            gone: saved.gone,
            origin: saved.origin,
            offer: Some(parse(saved.offer)?),
            answer: Some(parse(saved.answer)?),
            codecs: codecs.to_vec(),
        })
    }
}

/// An m-line's label.
fn label_line(media: &Media) -> Line {
    let label = media.attributes.iter().find(|one| one.is("label"));
    Line {
        label: label.and_then(|one| one.value.clone()),
    }
}

/// The labels of a description that is not in force yet.
#[must_use]
pub fn labels_of(description: &Description) -> Vec<Line> {
    description.media.iter().map(label_line).collect()
}

fn describe(update: &mut LegUpdate, own: &Media, far: &Media, nat: bool) {
    update.flags = leg_flags::LEARN;
    if nat {
        update.flags |= leg_flags::NAT;
    }
    if own.rtcp_mux && far.rtcp_mux {
        update.flags |= leg_flags::RTCP_MUX;
    }
    if negotiated(own, far).0.sends() {
        update.flags |= leg_flags::EXPECT_MEDIA;
    }
    update.rtp = own.rtp_address();
    update.rtcp = own.rtcp_address();
    update.payloads = sendable(Some(own), Some(far))
        .iter()
        .map(|one| Payload {
            pt: one.pt,
            to_pt: one.to_pt,
            codec: codec_id(one.codec),
            clock_hz: one.clock_hz,
        })
        .collect();
}
