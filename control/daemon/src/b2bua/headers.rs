//! Which headers cross from one leg to the other, and the ones that are ours.

use trunkline_config::{HeaderPolicy, Route, Transfer};
use trunkline_sip::message::{Headers, Method, Request, Response, canonical_name};

use super::bodies::{Received, cross_signs};
use crate::call::Farewell;

/// Methods that we take inside a dialog.
pub const ALLOW: &str = "INVITE, ACK, BYE, CANCEL, OPTIONS, PRACK, UPDATE, INFO, MESSAGE";

/// The names under which we show ourselves.
pub const SERVER: &str = concat!("Trunkline/", env!("CARGO_PKG_VERSION"));

/// Reason of the CANCEL to targets that were slower than another (RFC 3326).
pub const ANSWERED_ELSEWHERE: &str = "SIP;cause=200;text=\"Call completed elsewhere\"";

/// Methods that we take inside a dialog of a route.
pub fn allow(route: &Route) -> &'static str {
    match route.transfer {
        Transfer::Pass | Transfer::Handle => {
            "INVITE, ACK, BYE, CANCEL, OPTIONS, PRACK, UPDATE, INFO, MESSAGE, REFER, NOTIFY"
        }
        Transfer::Refuse => ALLOW,
    }
}

/// Copies what crosses under a policy.
fn copy(from: &Headers, to: &mut Headers, policy: &HeaderPolicy) {
    for field in from {
        let name = field.name();
        let name = canonical_name(name).unwrap_or(name);
        // Session-ID names both ends, and is written anew for each leg.
        if policy.crosses(name) && name != "Session-ID" {
            to.append(name, field.value());
        }
    }
}

/// Copies what crosses from a request to ours.
pub fn cross_request(from: &Request, to: &mut Request, route: &Route) {
    copy(&from.headers, &mut to.headers, &route.header_policy);
    if !to.headers.contains("User-Agent") {
        to.headers.set("User-Agent", SERVER);
    }
    match to.method {
        Method::Invite | Method::Update => {
            to.headers.set("Allow", allow(route));
            if route.transfer == Transfer::Handle {
                to.headers.set("Supported", "replaces, norefersub");
            }
        }
        // Passed on as they are: the other party is to act on them.
        Method::Refer => {
            for name in ["Refer-To", "Refer-Sub"] {
                to.headers.copy(&from.headers, name);
            }
        }
        _ => {}
    }
    cross_signs(&from.headers, &mut to.headers);
}

/// What of a BYE crosses beside its Reason, which is kept apart: its headers, and a body as that of a
/// recording session's (RFC 8068).
pub fn farewell(bye: &Request, route: &Route) -> Option<Box<Farewell>> {
    let mut crossing = Headers::new();
    copy(&bye.headers, &mut crossing, &route.header_policy);
    crossing.remove("Reason");
    crossing.remove("User-Agent");
    let mut body = Vec::new();
    if Received::from(bye).has_more() {
        for name in ["Content-Type", "Content-Disposition", "MIME-Version"] {
            crossing.copy(&bye.headers, name);
        }
        body.clone_from(&bye.body);
    }
    let headers = crossing;
    (headers.iter().next().is_some()).then(|| Box::new(Farewell { headers, body }))
}

/// Copies what crosses from a response to ours.
pub fn cross_response(from: &Response, to: &mut Response, route: &Route) {
    copy(&from.headers, &mut to.headers, &route.header_policy);
    cross_signs(&from.headers, &mut to.headers);
    if !to.headers.contains("Server") {
        to.headers.set("Server", SERVER);
    }
}

/// What the route adds to an INVITE.
pub fn set_headers(to: &mut Request, policy: &HeaderPolicy) {
    for (name, value) in &policy.set {
        to.headers.set(name, value);
    }
}

/// Whether a caller asks that its identity stays inside the trust domain (RFC 3323, RFC 3325).
pub fn wants_privacy(headers: &Headers) -> bool {
    let asked = |value: &str| {
        value
            .split([';', ','])
            .any(|one| matches!(one.trim(), "id" | "user" | "header"))
    };
    headers.get_all("Privacy").any(|value| asked(&value))
}

/// Takes out what asserts who a party is, of a message that leaves the trust domain.
pub fn remove_identity(headers: &mut Headers) {
    for name in [
        "P-Asserted-Identity",
        "P-Preferred-Identity",
        "Remote-Party-ID",
        "Diversion",
        "History-Info",
    ] {
        headers.remove(name);
    }
}

/// Takes a caller's identity out of an INVITE that leaves the trust domain.
pub fn make_anonymous(request: &mut Request, tag: &str) {
    remove_identity(&mut request.headers);
    let from = format!("\"Anonymous\" <sip:anonymous@anonymous.invalid>;tag={tag}");
    request.headers.set("From", from);
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
    headers
        .list("Reason")
        .iter()
        .find_map(|reason| q850_of(reason))
}

/// The Q.850 cause of one value of a Reason header.
pub fn q850_of(reason: &str) -> Option<u8> {
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
}
