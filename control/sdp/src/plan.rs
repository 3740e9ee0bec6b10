//! Which m-lines of a call are relayed, and as which medium of the media session.

use serde::{Deserialize, Serialize};

use crate::description::Description;
use crate::limits::RELAYED_MAX;

/// How an m-line is relayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RelayKind {
    /// RTP audio.
    Audio,
    /// Other RTP (video, real-time text): relayed blind.
    OpaqueRtp,
    /// udptl: relayed byte for byte.
    OpaqueDatagram,
}

/// One medium of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedMedia {
    /// The m-line it carries.
    pub line: usize,
    /// How.
    pub kind: RelayKind,
}

/// The assignment of m-lines to the session's media. It only ever grows: ports stay the same
/// over re-offers, and an m-line that is disabled keeps its medium for when it returns.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaPlan {
    media: Vec<PlannedMedia>,
}

impl MediaPlan {
    /// Takes in an offer. Returns `true` when media were added, so that the session needs more
    /// ports. Audio comes first when there are more m-lines than can be relayed.
    pub fn update(&mut self, offer: &Description) -> bool {
        let before = self.media.len();
        let wanted = |audio: bool| {
            offer
                .media
                .iter()
                .enumerate()
                .filter_map(move |(line, media)| {
                    let kind = media.relay_kind()?;
                    ((kind == RelayKind::Audio) == audio).then_some(PlannedMedia { line, kind })
                })
        };
        for planned in wanted(true).chain(wanted(false)) {
            if self.media.len() < RELAYED_MAX && !self.media.contains(&planned) {
                self.media.push(planned);
            }
        }
        self.media.len() > before
    }

    /// The session's media in order: index = medium.
    #[must_use]
    pub fn media(&self) -> &[PlannedMedia] {
        &self.media
    }

    /// The medium that carries an m-line of this kind. An m-line may change its kind
    /// after it was disabled (RFC 3264 section 8.2) and then has one medium for each.
    #[must_use]
    pub fn medium(&self, line: usize, kind: RelayKind) -> Option<usize> {
        self.media
            .iter()
            .position(|planned| *planned == PlannedMedia { line, kind })
    }

    /// The medium that carries an m-line of this description, if it is relayed.
    #[must_use]
    pub fn medium_of(&self, description: &Description, line: usize) -> Option<usize> {
        let kind = description.media.get(line)?.relay_kind()?;
        self.medium(line, kind)
    }

    /// Our port for each m-line of an offer, given our port for each medium; `None` = port 0.
    #[must_use]
    pub fn ports(&self, offer: &Description, media_ports: &[u16]) -> Vec<Option<u16>> {
        (0..offer.media.len())
            .map(|line| {
                let medium = self.medium_of(offer, line)?;
                media_ports.get(medium).copied().filter(|port| *port != 0)
            })
            .collect()
    }
}
