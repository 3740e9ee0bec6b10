//! What a re-offer changed.

use crate::description::Description;

/// The difference between a side's previous description and its new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The same, `o=` included: a session refresh (RFC 4028 section 7.4).
    None,
    /// The same but for `o=`.
    OriginOnly,
    /// Something else differs.
    Media,
}

/// Compares two descriptions of the same side. `s=`, `t=` and the like count as media: they are
/// not expected to change, and a needless re-offer does no harm while a missed one does.
#[must_use]
pub fn compare(previous: &Description, new: &Description) -> Change {
    if previous.text_lines != new.text_lines {
        Change::Media
    } else if previous.origin == new.origin {
        Change::None
    } else {
        Change::OriginOnly
    }
}
