//! Header field names: case-insensitive, with the compact forms (RFC 3261 section 7.3.3 and
//! the registry). A known name is a small number, so that look-ups compare numbers.

/// Number of a known header name; `OTHER` for all that are not in the table.
pub(crate) type NameId = u8;

/// The id of every name the table doesn't hold.
pub(crate) const OTHER: NameId = u8::MAX;

/// Known names with their compact forms; a name's id is its index here.
const KNOWN: &[(&str, u8)] = &[
    ("Via", b'v'),
    ("From", b'f'),
    ("To", b't'),
    ("Call-ID", b'i'),
    ("CSeq", 0),
    ("Contact", b'm'),
    ("Max-Forwards", 0),
    ("Route", 0),
    ("Record-Route", 0),
    ("Content-Length", b'l'),
    ("Content-Type", b'c'),
    ("Content-Encoding", b'e'),
    ("Content-Disposition", 0),
    ("Supported", b'k'),
    ("Require", 0),
    ("Proxy-Require", 0),
    ("Allow", 0),
    ("Allow-Events", b'u'),
    ("Event", b'o'),
    ("Expires", 0),
    ("Subject", b's'),
    ("Session-Expires", b'x'),
    ("Min-SE", 0),
    ("Refer-To", b'r'),
    ("Referred-By", b'b'),
    ("Replaces", 0),
    ("RSeq", 0),
    ("RAck", 0),
    ("Reason", 0),
    ("Retry-After", 0),
    ("Subscription-State", 0),
    ("Authorization", 0),
    ("Proxy-Authorization", 0),
    ("WWW-Authenticate", 0),
    ("Proxy-Authenticate", 0),
    ("Identity", b'y'),
    ("Identity-Info", b'n'),
    ("Accept-Contact", b'a'),
    ("Reject-Contact", b'j'),
    ("Request-Disposition", b'd'),
    ("Accept", 0),
    ("User-Agent", 0),
    ("Server", 0),
    ("Date", 0),
    ("Warning", 0),
    ("Unsupported", 0),
    ("P-Asserted-Identity", 0),
    ("P-Called-Party-ID", 0),
    ("Remote-Party-ID", 0),
    ("Privacy", 0),
    ("Session-ID", 0),
    ("User-to-User", 0),
    ("Diversion", 0),
    ("History-Info", 0),
    ("Path", 0),
    ("Service-Route", 0),
    ("Min-Expires", 0),
    ("MIME-Version", 0),
    ("Organization", 0),
    ("Timestamp", 0),
];

/// The id of a name in any case or in its compact form.
pub(crate) fn name_id(name: &[u8]) -> NameId {
    if let [letter] = name {
        let letter = letter.to_ascii_lowercase();
        return KNOWN
            .iter()
            .position(|(_, compact)| *compact == letter && letter != 0)
            .map_or(OTHER, |index| index as NameId);
    }
    KNOWN
        .iter()
        .position(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name))
        .map_or(OTHER, |index| index as NameId)
}

/// The long, customary spelling of a known name (`"v"` gives `"Via"`); `None` for others.
pub fn canonical_name(name: &str) -> Option<&'static str> {
    KNOWN
        .get(usize::from(name_id(name.as_bytes())))
        .map(|(long, _)| *long)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compact_forms_and_case_name_the_same_header() {
        assert_eq!(name_id(b"v"), name_id(b"VIA"));
        assert_eq!(name_id(b"I"), name_id(b"call-id"));
        assert_eq!(canonical_name("x"), Some("Session-Expires"));
        assert_eq!(canonical_name("z"), None);
        assert_eq!(canonical_name("X-Whatever"), None);
        assert_eq!(name_id(b"\0"), OTHER);
    }
}
