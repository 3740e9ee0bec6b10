//! Who calls and who is called, as the headers of the first INVITE tell it.

use serde::{Deserialize, Serialize};

use crate::message::{NameAddr, Request, Uri};

/// One party of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Party {
    /// The user part or number, percent-decoded; empty when the URI has none.
    pub user: String,
    pub display: Option<String>,
    pub uri: Uri,
    /// Whether the party asked to be withheld (Privacy or Remote-Party-ID).
    pub private: bool,
}

impl Party {
    fn new(address: NameAddr, private: bool) -> Party {
        let user = address.uri.user_decoded().unwrap_or_default().into_owned();
        Party {
            user,
            display: address.display,
            uri: address.uri,
            private,
        }
    }
}

/// The caller: P-Asserted-Identity, else Remote-Party-ID, else From. Whether the first two may
/// be believed is for the caller of this function to know (RFC 3325).
pub fn calling_party(request: &Request, trusted: bool) -> Option<Party> {
    let headers = &request.headers;
    let privacy = headers
        .get("Privacy")
        .unwrap_or_default()
        .to_ascii_lowercase();
    let withheld = privacy
        .split(';')
        .any(|word| matches!(word.trim(), "id" | "user" | "header"));
    if trusted {
        let first = |name| {
            headers
                .addresses(name)
                .ok()
                .and_then(|all| all.into_iter().next())
        };
        if let Some(address) = first("P-Asserted-Identity") {
            return Some(Party::new(address, withheld));
        }
        if let Some(address) = first("Remote-Party-ID") {
            let wish = address.params.get("privacy").unwrap_or("off");
            let private = withheld || !wish.eq_ignore_ascii_case("off");
            return Some(Party::new(address, private));
        }
    }
    headers
        .from_address()
        .ok()
        .map(|address| Party::new(address, withheld))
}

/// Who is called: P-Called-Party-ID, else To, else the Request-URI.
pub fn called_party(request: &Request) -> Party {
    let headers = &request.headers;
    let named = headers.address("P-Called-Party-ID").ok().flatten();
    let address = named.or_else(|| headers.to_address().ok());
    Party::new(
        address.unwrap_or_else(|| NameAddr::new(request.uri.clone())),
        false,
    )
}
