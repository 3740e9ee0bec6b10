//! How a document is written: RFC 7865, or what came before and beside it.

use crate::xml::Element;
use serde::{Deserialize, Serialize};

/// The family a document's shape belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// RFC 7865: associations as elements of their own.
    Rfc7865,
    /// The drafts before it: ids as `id`/`session`, send and recv inside the participant, `<mode>`.
    Draft,
    /// Root `recording_metadata`, `urn:uuid:` ids.
    Broadworks,
}

impl Dialect {
    /// The dialect of a root element; None if it is no recording metadata at all.
    pub(super) fn of(root: &Element) -> Option<Self> {
        if root.is("recording_metadata") {
            return Some(Self::Broadworks);
        }
        if !root.is("recording") {
            return None;
        }
        let old_ids = root.children.iter().any(|child| {
            ["session", "participant", "stream", "group"]
                .iter()
                .any(|name| child.is(name))
                && child.attribute("id").is_some()
        });
        let embedded = root.children.iter().any(|child| {
            child.is("participant")
                && (child.child("send").is_some() || child.child("recv").is_some())
        });
        Some(if old_ids || embedded {
            Self::Draft
        } else {
            Self::Rfc7865
        })
    }
}
