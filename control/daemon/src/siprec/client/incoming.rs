//! What a recorder asks for inside a recording session.

use trunkline_sdp::Description;
use trunkline_sip::message::{Method, Request, Response};
use trunkline_sip::transaction::{Path, ServerTx};
use trunkline_siprec::{multipart, snapshot};

use super::change::body_of;
use super::sdp;
use super::setup::{ACCEPT, ALLOW};
use super::state::{Answering, Asked, Phase, RecordingSession, Step};
use super::{Client, Context};
use crate::b2bua::{headers, session};

impl Client {
    pub(super) fn on_dialog_request(
        &mut self,
        session: &mut RecordingSession,
        tx: ServerTx,
        request: Request,
        path: Path,
        cx: &mut Context<'_>,
    ) {
        let Some(leg) = &mut session.leg else { return };
        (leg.flow, leg.remote, leg.transport) = (Some(path.flow), path.source, path.transport);
        let Some(dialog) = &mut leg.dialog else {
            return;
        };
        if let Err(refusal) = dialog.receive(&request) {
            let mut response = dialog.response(&request, refusal.status);
            if let Some(seconds) = refusal.retry_after_s {
                response.headers.set("Retry-After", seconds.to_string());
            }
            response.set_content_length();
            let _ = cx.endpoint.respond(cx.now.instant, tx, response);
            return;
        }
        let mut required = request.headers.list("Require");
        required.retain(|option| !matches!(option.as_str(), "siprec" | "timer"));
        if !required.is_empty() && request.method != Method::Bye {
            let headers = [("Unsupported", required.join(", "))];
            return reply(session, tx, &request, 420, &headers, cx);
        }
        match request.method {
            Method::Bye => {
                reply(session, tx, &request, 200, &[], cx);
                self.recorder_left(session, &request, cx);
            }
            Method::Invite | Method::Update if session.phase != Phase::Standing => {
                // Its own 2xx is being acknowledged, or the session ends.
                reply(session, tx, &request, 491, &[], cx);
            }
            Method::Invite | Method::Update => self.on_offer(session, tx, request, cx),
            Method::Info | Method::Message | Method::Options => {
                let headers = [("Allow", ALLOW.to_owned()), ("Accept", ACCEPT.to_owned())];
                reply(session, tx, &request, 200, &headers, cx);
            }
            Method::Other(_) => {
                let headers = [("Allow", ALLOW.to_owned())];
                reply(session, tx, &request, 501, &headers, cx);
            }
            _ => {
                let headers = [("Allow", ALLOW.to_owned())];
                reply(session, tx, &request, 405, &headers, cx);
            }
        }
    }

    /// A BYE of the recorder's: another server takes the session over, unless it had opened it itself.
    fn recorder_left(
        &mut self,
        session: &mut RecordingSession,
        request: &Request,
        cx: &mut Context<'_>,
    ) {
        let reason = request.headers.get("Reason");
        let why = match &reason {
            Some(reason) => format!(
                "it sent BYE: {}",
                reason.chars().take(80).collect::<String>()
            ),
            None => "it sent BYE".to_owned(),
        };
        if session.by_recorder {
            // It wanted the recording and wants it no more.
            self.leave_dialog(session);
            session.why = Some(why);
            return self.end(session, cx);
        }
        self.lost(session, &why, false, cx);
    }

    /// INVITE or UPDATE: an offer, a wish for one, a snapshot request or a refresh.
    fn on_offer(
        &mut self,
        session: &mut RecordingSession,
        tx: ServerTx,
        request: Request,
        cx: &mut Context<'_>,
    ) {
        let kind = request.headers.get("Content-Type").unwrap_or_default();
        let Ok(bodies) = multipart::read(&kind, &request.body) else {
            let headers = [("Accept", ACCEPT.to_owned())];
            return reply(session, tx, &request, 415, &headers, cx);
        };
        let asks = bodies
            .metadata
            .as_deref()
            .is_some_and(|body| snapshot::read(body).is_some());
        if let (Some(leg), None) = (&session.leg, &bodies.sdp)
            && let Err(small) = leg.session_policy.accept(&request.headers)
        {
            let headers = [("Min-SE", small.min_se.to_string())];
            return reply(session, tx, &request, 422, &headers, cx);
        }
        session.snapshot_due |= asks;
        match (bodies.sdp, &request.method) {
            (Some(sdp), _) => self.on_description(session, tx, request, &sdp, cx),
            (None, Method::Invite) => self.offer_to(session, tx, &request, cx),
            (None, _) => {
                // A snapshot is sent at once, by a request of ours (RFC 7866 section 8.2).
                reply(session, tx, &request, 200, &[], cx);
                self.tell(session, cx);
            }
        }
    }

    /// The recorder describes where it wants media, or that it wants none.
    fn on_description(
        &mut self,
        session: &mut RecordingSession,
        tx: ServerTx,
        request: Request,
        sdp: &[u8],
        cx: &mut Context<'_>,
    ) {
        let offered = self.offered_by(session, false);
        let refusal = match Description::parse(sdp) {
            // A recorder adds no streams (RFC 7866 section 7.2).
            Ok(offer) if offer.media.len() > offered.len() => Some(488),
            Ok(_) => None,
            Err(error) => Some(error.status()),
        };
        if let Some(status) = refusal {
            return reply(session, tx, &request, status, &[], cx);
        }
        session.offered.clone_from(&offered);
        session.hear(sdp);
        // Our answer: what it takes goes on, the rest is inactive or refused as it refuses it.
        let mut ours = offered;
        for (line, accepted) in ours.iter_mut().zip(&session.accepted) {
            line.sends &= accepted.receives;
            if accepted.rtp.is_none() && accepted.payloads.is_empty() {
                line.port = 0;
            }
            let taken = |pt: u8| accepted.payloads.iter().any(|one| one.pt == pt);
            if line.port != 0 {
                line.payloads.retain(|one| taken(one.pt));
            }
        }
        let address = Self::media_address(session, cx);
        let body = sdp::body(address, &ours);
        let sdp = session.origin.describe(address, &body);
        // It is not told again what it refused itself.
        session.told = sdp::body(address, &session.offered);
        self.own_server(session, tx);
        let answering = Answering {
            server: tx,
            request,
            sdp,
        };
        self.arm(session, Step::Answer(Box::new(answering)), cx);
    }

    /// Media follows the recorder's offer: answer it.
    pub(super) fn answer(
        &mut self,
        session: &mut RecordingSession,
        answering: Answering,
        cx: &mut Context<'_>,
    ) {
        let Answering {
            server,
            request,
            sdp,
        } = answering;
        self.accept(
            session,
            server,
            &request,
            "application/sdp",
            sdp.into_bytes(),
            cx,
        );
        self.save(session, cx);
        self.tell(session, cx);
    }

    /// An INVITE without an offer: ours is in the 2xx, with all that is to be known.
    pub(super) fn offer_to(
        &mut self,
        session: &mut RecordingSession,
        tx: ServerTx,
        request: &Request,
        cx: &mut Context<'_>,
    ) {
        let offered = self.offered_by(session, false);
        let address = Self::media_address(session, cx);
        let body = sdp::body(address, &offered);
        let text = session.origin.describe(address, &body);
        let document = self.document_of(session, true).unwrap_or_default();
        let (kind, bytes) = body_of(&text, Some(&document));
        session.asked = Some(Asked {
            server: tx,
            offered,
            body,
            document,
        });
        self.own_server(session, tx);
        self.accept(session, tx, request, &kind, bytes, cx);
    }

    fn accept(
        &mut self,
        session: &mut RecordingSession,
        tx: ServerTx,
        request: &Request,
        kind: &str,
        body: Vec<u8>,
        cx: &mut Context<'_>,
    ) {
        let Some(leg) = &mut session.leg else { return };
        let Some(dialog) = &mut leg.dialog else {
            return;
        };
        let mut response: Response = dialog.response(request, 200);
        dialog.sent_response(request, 200);
        response.headers.set("Server", headers::SERVER);
        response.headers.set("Allow", ALLOW);
        response.headers.set("Accept", ACCEPT);
        session::confirm(leg, request, &mut response, cx.now);
        response.set_body(kind, body);
        let _ = cx.endpoint.respond(cx.now.instant, tx, response);
    }

    /// The ACK of an INVITE of the recorder's, with its answer where ours was the offer.
    pub(super) fn on_session_ack(
        &mut self,
        session: &mut RecordingSession,
        invite: Option<ServerTx>,
        ack: &Request,
        cx: &mut Context<'_>,
    ) {
        if session.phase == Phase::Asked {
            return self.asking_acknowledged(session, ack, cx);
        }
        let Some(asked) = session
            .asked
            .take_if(|one| Some(one.server) == invite || invite.is_none())
        else {
            return;
        };
        let kind = ack.headers.get("Content-Type").unwrap_or_default();
        let bodies = multipart::read(&kind, &ack.body).unwrap_or_default();
        if let Some(answer) = bodies.sdp {
            session.offered = asked.offered;
            session.hear(&answer);
            session.told = asked.body;
            self.accepted_by(session, &asked.document, cx);
            session.snapshot_due = false;
            self.arm(session, Step::Nothing, cx);
            self.riders_told(session, cx);
        }
        self.save(session, cx);
        self.tell(session, cx);
    }
}

fn reply(
    session: &mut RecordingSession,
    tx: ServerTx,
    request: &Request,
    status: u16,
    given: &[(&str, String)],
    cx: &mut Context<'_>,
) {
    let Some(leg) = &mut session.leg else { return };
    let Some(dialog) = &mut leg.dialog else {
        return;
    };
    let mut response = dialog.response(request, status);
    dialog.sent_response(request, status);
    response.headers.set("Server", headers::SERVER);
    for (name, value) in given {
        response.headers.set(name, value);
    }
    if (200..300).contains(&status) && matches!(request.method, Method::Invite | Method::Update) {
        session::confirm(leg, request, &mut response, cx.now);
    }
    response.set_content_length();
    let _ = cx.endpoint.respond(cx.now.instant, tx, response);
}
