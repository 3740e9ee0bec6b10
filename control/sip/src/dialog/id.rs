//! What names a dialog: Call-ID and both tags, seen from our side.

use serde::{Deserialize, Serialize};

use crate::message::{Replaces, Request, Response};

/// A dialog's identity.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DialogId {
    pub call_id: String,
    pub local_tag: String,
    /// Empty for a peer of RFC 2543 that sends no tag.
    pub remote_tag: String,
}

impl DialogId {
    /// The dialog that a received request belongs to: To carries our tag. `None` when it has
    /// no To tag, and so belongs to none yet.
    pub fn of_request(request: &Request) -> Option<DialogId> {
        let headers = &request.headers;
        Some(DialogId {
            call_id: headers.call_id().ok()?,
            local_tag: headers.to_tag()?,
            remote_tag: headers.from_tag().unwrap_or_default(),
        })
    }

    /// The dialog that a received response belongs to: From carries our tag. `None` when it
    /// has no To tag, as 100 has none.
    pub fn of_response(response: &Response) -> Option<DialogId> {
        let headers = &response.headers;
        Some(DialogId {
            call_id: headers.call_id().ok()?,
            local_tag: headers.from_tag()?,
            remote_tag: headers.to_tag()?,
        })
    }

    /// The dialog of ours that a received Replaces names (RFC 3891 section 3).
    pub fn of_replaces(replaces: &Replaces) -> DialogId {
        DialogId {
            call_id: replaces.call_id.clone(),
            local_tag: replaces.to_tag.clone(),
            remote_tag: replaces.from_tag.clone(),
        }
    }

    /// The Replaces that a third party sends to the peer of this dialog of ours, to take our
    /// place in it.
    pub fn to_replaces(&self) -> Replaces {
        Replaces {
            call_id: self.call_id.clone(),
            to_tag: self.remote_tag.clone(),
            from_tag: self.local_tag.clone(),
            early_only: false,
        }
    }

    /// The same dialog seen by the peer.
    pub fn mirrored(&self) -> DialogId {
        DialogId {
            call_id: self.call_id.clone(),
            local_tag: self.remote_tag.clone(),
            remote_tag: self.local_tag.clone(),
        }
    }
}
