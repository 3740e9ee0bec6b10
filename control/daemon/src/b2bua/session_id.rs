//! Session-ID (RFC 7989): each side hears the other's UUID, and of an end that made none, one that we
//! made for it.

use trunkline_config::Route;
use trunkline_link::message::Side;
use trunkline_sip::dialog::Dialog;
use trunkline_sip::message::{Headers, NIL_SESSION, Request, Response, SessionId};

use crate::call::Call;

/// Whether the route lets UUIDs cross.
fn crosses(route: &Route) -> bool {
    route.header_policy.crosses("Session-ID")
}

/// The UUID of whoever sent an INVITE; one of our making where it says none.
pub(super) fn of_caller(headers: &Headers) -> String {
    SessionId::sender(headers).unwrap_or_else(SessionId::fresh)
}

/// The messages of a dialog whose peer has this UUID; the other end is not known yet. Where UUIDs do not
/// cross there is no end to name, and no Session-ID.
pub(super) fn begin(dialog: &mut Dialog, route: &Route, peer: &str) {
    dialog.set_session_id(crosses(route).then(|| SessionId {
        local: NIL_SESSION.to_owned(),
        remote: peer.to_owned(),
    }));
}

/// The 100 to a caller, which says whose INVITE it answers.
pub(super) fn trying(request: &Request, route: &Route) -> Response {
    let mut trying = Response::to(request, 100);
    if !crosses(route) {
        trying.headers.remove("Session-ID");
    }
    trying
}

/// Names the caller in an INVITE of ours, as `received` names it, else as the call does.
pub(super) fn name_caller(call: &Call, received: &Request, request: &mut Request) {
    let known = || call.object.session_id.clone();
    let caller = SessionId::sender(&received.headers).or_else(known);
    if let Some(local) = caller.filter(|_| crosses(&call.route)) {
        let remote = NIL_SESSION.to_owned();
        let session = SessionId { local, remote };
        request.headers.set("Session-ID", session.to_string());
    }
}

/// An end that answered without a UUID gets one.
pub(super) fn complete(dialog: &mut Dialog) {
    let open = dialog.session_id().filter(|one| one.remote == NIL_SESSION);
    if let Some(open) = open.cloned() {
        let remote = SessionId::fresh();
        dialog.set_session_id(Some(SessionId { remote, ..open }));
    }
}

/// A response of the far side's is about to be passed to the caller.
pub(super) fn speak_for_sender(dialog: &mut Dialog, route: &Route, headers: &Headers) {
    if let Some(sender) = SessionId::sender(headers).filter(|_| crosses(route)) {
        dialog.speak_for(&sender);
    }
}

/// Each side's messages speak for the other.
pub(super) fn share(call: &mut Call) {
    if !crosses(&call.route) {
        return;
    }
    for side in Side::BOTH {
        let other = call.leg(side.other()).dialog.as_ref();
        let uuid = other.and_then(|dialog| Some(dialog.session_id()?.remote.clone()));
        if let (Some(uuid), Some(dialog)) = (uuid, &mut call.leg_mut(side).dialog) {
            dialog.speak_for(&uuid);
        }
    }
}
