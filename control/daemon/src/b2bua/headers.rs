//! Which headers cross from one leg to the other, and the ones that are ours.

use trunkline_sip::message::{Headers, Method, Request, Response, canonical_name};

/// Methods that we take inside a dialog.
pub const ALLOW: &str = "INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE, INFO, MESSAGE";

/// The names under which we show ourselves.
pub const SERVER: &str = concat!("Trunkline/", env!("CARGO_PKG_VERSION"));

/// Headers that belong to one leg, one hop or one body, or that promise what only the other side
/// could keep. Everything else crosses.
const NEVER: &[&str] = &[
    "Via",
    "From",
    "To",
    "Call-ID",
    "CSeq",
    "Contact",
    "Content-Length",
    "Content-Type",
    "Content-Disposition",
    "Content-Encoding",
    "Max-Forwards",
    "Route",
    "Record-Route",
    "Path",
    "Service-Route",
    "Supported",
    "Require",
    "Proxy-Require",
    "Unsupported",
    "Allow",
    "Allow-Events",
    "Session-Expires",
    "Min-SE",
    "RSeq",
    "RAck",
    "Replaces",
    "Refer-To",
    "Refer-Sub",
    "User-Agent",
    "Server",
    "Timestamp",
    "Retry-After",
    "Warning",
    "Security-Client",
    "Security-Server",
    "Security-Verify",
];

/// Copies what crosses.
fn copy(from: &Headers, to: &mut Headers) {
    for field in from {
        let name = field.name();
        if !NEVER.iter().any(|never| field.is(never)) {
            to.append(canonical_name(name).unwrap_or(name), field.value());
        }
    }
}

/// Copies what crosses from a request to ours.
pub fn cross_request(from: &Request, to: &mut Request) {
    copy(&from.headers, &mut to.headers);
    to.headers.set("User-Agent", SERVER);
    if matches!(to.method, Method::Invite | Method::Update) {
        to.headers.set("Allow", ALLOW);
    }
}

/// Copies what crosses from a response to ours.
pub fn cross_response(from: &Response, to: &mut Response) {
    copy(&from.headers, &mut to.headers);
    to.headers.set("Server", SERVER);
}

/// Copies a body that is not SDP, with its type.
pub fn cross_body(from: &Headers, body: &[u8], to: &mut Request) {
    if let (Some(kind), false) = (from.get("Content-Type"), body.is_empty()) {
        to.set_body(&kind, body);
        for name in ["Content-Disposition", "Content-Encoding"] {
            to.headers.copy(from, name);
        }
    }
}

/// Whether a message carries SDP.
pub fn has_sdp(headers: &Headers, body: &[u8]) -> bool {
    !body.is_empty() && is_sdp(headers)
}

/// Whether a message says that its body is SDP.
pub fn is_sdp(headers: &Headers) -> bool {
    headers.get("Content-Type").is_some_and(|kind| {
        let essence = kind.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("application/sdp")
    })
}

/// The Q.850 cause of a message's Reason header (RFC 3326).
pub fn q850(headers: &Headers) -> Option<u8> {
    headers.list("Reason").iter().find_map(|reason| {
        let mut parts = reason.split(';').map(str::trim);
        if !parts.next()?.eq_ignore_ascii_case("Q.850") {
            return None;
        }
        parts.find_map(|part| {
            let (name, value) = part.split_once('=')?;
            name.trim()
                .eq_ignore_ascii_case("cause")
                .then(|| value.trim().parse().ok())?
        })
    })
}
