//! What can be wrong with a header's value or a message.

/// A header (or URI) that does not parse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{header}: {why}")]
pub struct HeaderError {
    /// The header's customary name, or "URI".
    pub header: &'static str,
    /// What is wrong, fit for a reason phrase.
    pub why: &'static str,
}

impl HeaderError {
    pub(crate) fn new(header: &'static str, why: &'static str) -> HeaderError {
        HeaderError { header, why }
    }

    pub(crate) fn missing(header: &'static str) -> HeaderError {
        HeaderError {
            header,
            why: "missing",
        }
    }
}
