//! Whether a message that was read may be acted on (RFC 3261 sections 8.1.1, 8.2 and 16.3).

use super::address::NameAddr;
use super::{Method, Request, Response};

/// Headers of which a request has exactly one.
const SINGLE: [&str; 4] = ["From", "To", "Call-ID", "CSeq"];

/// Headers of which a message has at most one (RFC 4475 section 3.3.8).
const AT_MOST_ONE: [&str; 5] = [
    "Max-Forwards",
    "Content-Type",
    "Expires",
    "Event",
    "Session-Expires",
];

/// Why a request is refused before anybody acts on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The status to answer with.
    pub status: u16,
    /// What is wrong, in words.
    pub reason: String,
}

impl Fault {
    fn bad(reason: impl Into<String>) -> Fault {
        Fault {
            status: 400,
            reason: reason.into(),
        }
    }
}

/// Judges a request: version, the five headers every request has, single values, CSeq's
/// method, Max-Forwards, top Via, addresses.
///
/// Max-Forwards may be absent, as in requests of RFC 2543. An unknown scheme, method or
/// extension is for the layer above (416, 405 or 501, 420).
///
/// # Errors
/// The fault to answer with (505 or 400).
pub fn judge_request(request: &Request) -> Result<(), Fault> {
    if !request.version.eq_ignore_ascii_case("SIP/2.0") {
        return Err(Fault {
            status: 505,
            reason: "Version Not Supported".to_owned(),
        });
    }
    let headers = &request.headers;
    let bad = |error: super::HeaderError| Fault::bad(error.to_string());
    for name in SINGLE {
        match headers.count(name) {
            1 => {}
            0 => return Err(Fault::bad(format!("Missing {name}"))),
            _ => return Err(Fault::bad(format!("Repeated {name}"))),
        }
    }
    for name in AT_MOST_ONE {
        if headers.count(name) > 1 {
            return Err(Fault::bad(format!("Repeated {name}")));
        }
    }
    headers.via().map_err(bad)?;
    let cseq = headers.cseq().map_err(bad)?;
    if cseq.method != request.method {
        return Err(Fault::bad("CSeq Method Mismatch"));
    }
    headers.from_address().map_err(bad)?;
    headers.to_address().map_err(bad)?;
    headers.call_id().map_err(bad)?;
    headers.max_forwards().map_err(bad)?;
    headers.contacts().map_err(bad)?;
    if request.uri.headers_text().is_some() {
        return Err(Fault::bad("Request-URI With Headers"));
    }
    judge_dialog_request(request)
}

/// Requests that make a dialog carry exactly one Contact (RFC 3261 section 8.1.1.8).
fn judge_dialog_request(request: &Request) -> Result<(), Fault> {
    let star = |contact: &super::Contact| matches!(contact, super::Contact::Star);
    let contacts = request.headers.contacts().unwrap_or_default();
    if request.method != Method::Register && contacts.iter().any(star) {
        return Err(Fault::bad("Contact * Outside REGISTER"));
    }
    let routes = request.headers.list("Route");
    if routes
        .iter()
        .any(|route| NameAddr::parse(route, "Route").is_err())
    {
        return Err(Fault::bad("Malformed Route"));
    }
    Ok(())
}

/// Judges a response; a bad one is dropped, never answered.
///
/// # Errors
/// The fault, for the counter's name.
pub fn judge_response(response: &Response) -> Result<(), Fault> {
    let headers = &response.headers;
    let bad = |error: super::HeaderError| Fault::bad(error.to_string());
    if !response.version.eq_ignore_ascii_case("SIP/2.0") {
        return Err(Fault::bad("Version Not Supported"));
    }
    for name in SINGLE {
        if headers.count(name) != 1 {
            return Err(Fault::bad(format!("{name} not exactly once")));
        }
    }
    headers.via().map_err(bad)?;
    headers.cseq().map_err(bad)?;
    headers.from_address().map_err(bad)?;
    headers.to_address().map_err(bad)?;
    headers.call_id().map_err(bad)?;
    Ok(())
}
