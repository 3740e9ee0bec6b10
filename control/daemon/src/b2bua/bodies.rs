//! Bodies that carry more than a session description, as those of recording sessions do (RFC 7866 section
//! 9.1): the description is ours on each leg, everything else crosses as it came.

use std::borrow::Cow;

use trunkline_sip::dialog::Dialog;
use trunkline_sip::message::{Headers, Request, Response};
use trunkline_siprec::detect::role_of;
use trunkline_siprec::metadata::{MEDIA_TYPE, MEDIA_TYPE_OLD};
use trunkline_siprec::multipart::{self, MultipartError};

use super::headers::is_sdp;
use super::invite::Refused;

/// Headers that describe a body, beside its type.
const DESCRIBING: [&str; 3] = ["Content-Disposition", "Content-Encoding", "MIME-Version"];
/// What a recording session's messages are known by, and what its recorder has to support.
const SIPREC: &str = "siprec";

/// A message's body as it came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Received<'a> {
    headers: &'a Headers,
    body: &'a [u8],
}

impl<'a> From<&'a Request> for Received<'a> {
    fn from(request: &'a Request) -> Self {
        Self {
            headers: &request.headers,
            body: &request.body,
        }
    }
}

impl<'a> From<&'a Response> for Received<'a> {
    fn from(response: &'a Response) -> Self {
        Self {
            headers: &response.headers,
            body: &response.body,
        }
    }
}

impl<'a> Received<'a> {
    fn kind(&self) -> Cow<'a, str> {
        self.headers.get("Content-Type").unwrap_or_default()
    }

    /// The session description in it, alone or among others.
    pub(super) fn sdp(&self) -> Option<Cow<'a, [u8]>> {
        if self.body.is_empty() {
            return None;
        }
        if is_sdp(self.headers) {
            return Some(Cow::Borrowed(self.body));
        }
        let kind = self.kind();
        if !multipart::is_multipart(&kind) {
            return None;
        }
        multipart::read(&kind, self.body).ok()?.sdp.map(Cow::Owned)
    }

    /// Whether it has parts that cross whatever becomes of the description.
    pub(super) fn has_more(&self) -> bool {
        let kind = self.kind();
        let essence = kind.split(';').next().unwrap_or_default().trim();
        let metadata = [MEDIA_TYPE, MEDIA_TYPE_OLD]
            .iter()
            .any(|known| known.eq_ignore_ascii_case(essence));
        !self.body.is_empty() && (metadata || multipart::is_multipart(&kind))
    }

    /// Whether it can be passed on at all.
    ///
    /// # Errors
    /// How it is refused: it is of another kind, or cannot be taken apart.
    pub(super) fn judge(&self) -> Result<(), Refused> {
        if self.body.is_empty() || is_sdp(self.headers) {
            return Ok(());
        }
        if !self.has_more() {
            return Err((415, vec![("Accept", "application/sdp".to_owned())]));
        }
        multipart::parts(&self.kind(), self.body)
            .map(drop)
            .map_err(refused_body)
    }

    /// Gives a request of ours this body, with our description in place of the one that came.
    pub(super) fn cross_to_request(&self, sdp: Option<&str>, ours: &mut Request) {
        match self.with(sdp) {
            Some((kind, body)) => {
                ours.set_body(&kind, body);
                self.describe(&kind, &mut ours.headers);
            }
            None => ours.set_content_length(),
        }
    }

    /// The same of a response of ours.
    pub(super) fn cross_to_response(&self, sdp: Option<&str>, ours: &mut Response) {
        match self.with(sdp) {
            Some((kind, body)) => {
                ours.set_body(&kind, body);
                self.describe(&kind, &mut ours.headers);
            }
            None => ours.set_content_length(),
        }
    }

    /// Our body and its type; `None` where nothing is left.
    fn with(&self, sdp: Option<&str>) -> Option<(Cow<'a, str>, Vec<u8>)> {
        let kind = self.kind();
        let Some(sdp) = sdp else {
            let crosses = !self.body.is_empty() && !kind.is_empty() && self.sdp().is_none();
            return crosses.then(|| (kind, self.body.to_vec()));
        };
        match multipart::with_sdp(&kind, self.body, sdp.as_bytes()) {
            Some(body) => Some((kind, body)),
            None => Some((Cow::Borrowed("application/sdp"), sdp.as_bytes().to_vec())),
        }
    }

    fn describe(&self, kind: &str, ours: &mut Headers) {
        if kind == self.kind() {
            for name in DESCRIBING {
                ours.copy(self.headers, name);
            }
        }
    }
}

/// How a body that cannot be taken apart is refused.
pub(super) fn refused_body(error: MultipartError) -> Refused {
    let status = match error {
        MultipartError::TooLong(_) => 413,
        _ => 400,
    };
    (status, vec![super::srs::warning(&error.to_string())])
}

/// What of a recording session's signs crosses with a message, whatever the route lets cross: the far side
/// is to know by them what it is.
pub(super) fn cross_signs(from: &Headers, to: &mut Headers) {
    for name in ["Require", "Supported"] {
        if from.list_contains(name, SIPREC) && !to.list_contains(name, SIPREC) {
            to.append(name, SIPREC);
            if !to.contains("Accept") {
                to.copy(from, "Accept");
            }
        }
    }
    if from.list_contains("Unsupported", SIPREC) {
        to.set("Unsupported", SIPREC);
    }
}

/// A party's part in a recording session, as its Contact says it, is ours towards the other.
pub(super) fn take_role(from: &Headers, dialog: &mut Dialog) {
    if let Some(role) = role_in(from) {
        dialog.mark_contact(role);
    }
}

/// The part in a recording session that a Contact says.
pub(super) fn role_in(headers: &Headers) -> Option<&'static str> {
    role_of(&headers.get("Contact")?)
}
