//! Session-ID (RFC 7989): the UUIDs of a session's two ends, the same through all dialogs that the
//! session is made of.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::headers::Headers;

/// The UUID of an end that is not known.
pub const NIL_SESSION: &str = "00000000000000000000000000000000";
/// A longer identifier is none: a UUID has 32 digits, the identifiers of RFC 7329's time a little more.
const CHARS_MAX: usize = 64;

/// The value of a Session-ID header: whose message it is, then the other end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionId {
    /// UUID of the end whose message it is.
    #[serde(rename = "l")]
    pub local: String,
    /// UUID of the other end; [`NIL_SESSION`] = not known.
    #[serde(rename = "r")]
    pub remote: String,
}

impl SessionId {
    /// Of a message's headers. `None` = it has none, or none that can be read. An identifier without
    /// `remote` (RFC 7329) has an unknown other end.
    pub fn of(headers: &Headers) -> Option<SessionId> {
        let value = headers.get("Session-ID")?;
        let mut parts = value.split(';').map(str::trim);
        let local = parts.next().filter(|text| is_identifier(text))?.to_owned();
        let remote = parts.find_map(|part| {
            let (name, value) = part.split_once('=')?;
            let named = name.trim().eq_ignore_ascii_case("remote");
            Some(value.trim()).filter(|text| named && is_identifier(text))
        });
        let remote = remote.filter(|text| text.len() > 1).unwrap_or(NIL_SESSION);
        Some(SessionId {
            local,
            remote: remote.to_owned(),
        })
    }

    /// A UUID for an end that has not made one itself.
    pub fn fresh() -> String {
        // Version 4, variant 1 (RFC 9562 section 5.4).
        let random: u128 = rand::random();
        let version = random & !(0xf << 76) | 0x4 << 76;
        format!("{:032x}", version & !(0x3 << 62) | 0x2 << 62)
    }

    /// The UUID of whoever sent these headers, where it is told.
    pub fn sender(headers: &Headers) -> Option<String> {
        let local = SessionId::of(headers)?.local;
        (local != NIL_SESSION).then_some(local)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{};remote={}", self.local, self.remote)
    }
}

fn is_identifier(text: &str) -> bool {
    let fits = (1..=CHARS_MAX).contains(&text.len());
    fits && text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Option<(String, String)> {
        let mut headers = Headers::new();
        headers.append("Session-ID", value);
        SessionId::of(&headers).map(|id| (id.local, id.remote))
    }

    #[test]
    fn both_ends_are_read_and_written() {
        let a = "ab30317f1a784dc48ff824d0d3715d86";
        let b = "47755a9de7794ba387653f2099600ef2";
        let both = format!("{a};remote={b}");
        assert_eq!(read(&both), Some((a.to_owned(), b.to_owned())));
        assert_eq!(
            read(&format!("{a} ; x=1 ; Remote = {b}")),
            Some((a.to_owned(), b.to_owned()))
        );
        for alone in [a.to_owned(), format!("{a};remote=")] {
            assert_eq!(
                read(&alone),
                Some((a.to_owned(), NIL_SESSION.to_owned())),
                "{alone}"
            );
        }
        let long = "a".repeat(65);
        for none in ["", ";remote=1", "a b", long.as_str(), "\"x\""] {
            assert_eq!(read(none), None, "{none}");
        }
        let id = SessionId {
            local: a.to_owned(),
            remote: b.to_owned(),
        };
        assert_eq!(id.to_string(), both);
    }

    #[test]
    fn a_fresh_one_is_a_uuid_of_version_4() {
        let (one, other) = (SessionId::fresh(), SessionId::fresh());
        assert_ne!(one, other);
        assert_eq!(one.len(), 32);
        assert_eq!(one.as_bytes()[12], b'4');
        assert!(b"89ab".contains(&one.as_bytes()[16]));
        assert!(is_identifier(&one));
    }
}
