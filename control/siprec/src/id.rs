//! Ids of sessions, groups, participants and streams.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

/// An id: ours are the base64 of a UUID's 16 bytes (24 characters, RFC 7865 section 6.10), those of
/// others are opaque text and compared as such.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Id(String);

impl Id {
    /// The id as we write a UUID.
    #[must_use]
    pub fn from_uuid(uuid: Uuid) -> Self {
        Self(STANDARD.encode(uuid.as_bytes()))
    }

    /// An id as a peer sent it: white space, which the RFC's own examples break ids with, is left out.
    /// None where nothing remains.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let id: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        (!id.is_empty()).then_some(Self(id))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The UUID in it, where it is base64 of one, `urn:uuid:...` or a plain UUID.
    #[must_use]
    pub fn uuid(&self) -> Option<Uuid> {
        if self.0.len() == 24
            && let Ok(bytes) = STANDARD.decode(&self.0)
        {
            return Uuid::from_slice(&bytes).ok();
        }
        Uuid::parse_str(&self.0).ok()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_24_characters_and_comes_back() {
        let uuid = Uuid::from_u128(0x0191_f2d4_7d1c_7abc_8def_0123_4567_89ab);
        let id = Id::from_uuid(uuid);
        assert_eq!(id.as_str().len(), 24);
        assert_eq!(id.uuid(), Some(uuid));
    }

    #[test]
    fn ids_of_others_are_opaque_but_uuids_in_them_are_found() {
        let uuid = Uuid::from_u128(7);
        for text in [format!("urn:uuid:{uuid}"), uuid.to_string()] {
            assert_eq!(
                Id::read(&text).and_then(|id| id.uuid()),
                Some(uuid),
                "{text}"
            );
        }
        assert_eq!(Id::read("a_leg").map(|id| id.uuid()), Some(None));
        assert_eq!(Id::read(" \n "), None);
        assert_eq!(
            Id::read("AAAA\n  BBBB"),
            Id::read("AAAABBBB"),
            "line breaks inside an id are no part of it"
        );
    }
}
