//! A recorder's request for a full document (RFC 7866 section 8.2, disposition `recording-session`).

use crate::metadata::{MEDIA_TYPE, NAMESPACE};
use crate::xml::Element;
use quick_xml::escape::escape;

/// The media type of [`write()`]'s body.
pub const CONTENT_TYPE: &str = MEDIA_TYPE;

/// Writes a request, with a reason for the people who read traces.
#[must_use]
pub fn write(reason: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<requestsnapshot xmlns=\"{NAMESPACE}\">\n  \
         <requestreason xml:lang=\"en\">{}</requestreason>\n</requestsnapshot>\n",
        escape(reason)
    )
}

/// The reason of a request (empty where none is given); None if the body is no such request.
#[must_use]
pub fn read(body: &[u8]) -> Option<String> {
    let root = Element::parse(body).ok()?;
    root.is("requestsnapshot").then(|| {
        root.child("requestreason")
            .and_then(Element::trimmed)
            .unwrap_or_default()
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_comes_back_with_its_reason() {
        assert_eq!(
            read(write("lost <state> & more").as_bytes()).as_deref(),
            Some("lost <state> & more")
        );
    }

    #[test]
    fn prefixes_and_missing_reasons_are_taken_and_other_bodies_are_not() {
        assert_eq!(
            read(b"<r:requestsnapshot xmlns:r='x'/>").as_deref(),
            Some("")
        );
        assert_eq!(read(b"<recording/>"), None);
        assert_eq!(read(b"v=0\r\n"), None);
    }
}
