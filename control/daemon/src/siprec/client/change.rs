//! What a standing recording session is told: re-INVITEs with the description and the metadata that
//! has changed, and refreshes.

use std::time::Duration;

use trunkline_sdp::Description;
use trunkline_sip::dialog::{Dialog, TimerAction};
use trunkline_sip::message::{Method, Request, Response};
use trunkline_sip::transaction::ClientTx;
use trunkline_siprec::metadata::{Metadata, write};
use trunkline_siprec::multipart;

use super::attempt::acknowledge;
use super::sdp;
use super::setup::{ACCEPT, ALLOW};
use super::state::{Change, Phase, RecordingSession, Step};
use super::{Client, Context, Use};
use crate::api::handle::ActionError;
use crate::b2bua::{headers, session};

/// Until a re-INVITE that cannot be sent now is tried again.
const RETRY: Duration = Duration::from_millis(500);

impl RecordingSession {
    /// The recorder has taken a document.
    pub(super) fn revised(&mut self, at: trunkline_sinks::Timestamp) {
        self.revision += 1;
        self.revised_at = Some(at);
    }

    /// Takes in the recorder's description; one that cannot be read changes nothing.
    pub(super) fn hear(&mut self, sdp: &[u8]) {
        if let Ok(description) = Description::parse(sdp) {
            self.accepted = sdp::read(&description, &self.offered);
            self.heard = String::from_utf8_lossy(sdp).into_owned();
        }
    }

    pub(super) fn dialog(&mut self) -> Option<&mut Dialog> {
        self.leg.as_mut()?.dialog.as_mut()
    }
}

/// Puts a description and a document into a message; without a document the description alone.
pub(super) fn body_of(sdp: &str, document: Option<&Metadata>) -> (String, Vec<u8>) {
    match document {
        Some(document) => multipart::write(sdp.as_bytes(), &write(document), rand::random()),
        None => ("application/sdp".to_owned(), sdp.as_bytes().to_vec()),
    }
}

impl Client {
    /// Tells the recorder what it does not know. One change at a time: what comes meanwhile follows.
    pub(super) fn tell(&mut self, session: &mut RecordingSession, cx: &mut Context<'_>) {
        if session.carrier.is_some() {
            let told = !matches!(session.phase, Phase::Opening | Phase::Over);
            session.asks_carrier |= told && !self.extend(session, cx);
            return;
        }
        if session.phase != Phase::Standing
            || session.change.is_some()
            || session.asked.is_some()
            || !session.view.settled
            || self.extend(session, cx)
        {
            return;
        }
        let offered = self.offered_by(session, false);
        let body = sdp::body(Self::media_address(session, cx), &offered);
        let document = self.document_of(session, session.snapshot_due);
        let resumes = self.resumes(session);
        if body == session.told && document.is_none() && !resumes {
            self.riders_told(session, cx);
            return self.resumed(session, cx);
        }
        let asked = (body.clone(), document.clone());
        if session.refused.as_ref() == Some(&asked) && !session.snapshot_due {
            return;
        }
        let address = Self::media_address(session, cx);
        let text = session.origin.describe(address, &body);
        match self.send_change(session, &text, document.as_ref(), cx) {
            Some((client, sequence)) => {
                session.change = Some(Change {
                    client,
                    sequence,
                    offered,
                    body,
                    document,
                });
            }
            // The recorder's own INVITE is under way, or nothing can be sent now.
            None => session.retry_at = Some(cx.now.instant + RETRY),
        }
    }

    fn send_change(
        &mut self,
        session: &mut RecordingSession,
        text: &str,
        document: Option<&Metadata>,
        cx: &mut Context<'_>,
    ) -> Option<(ClientTx, u32)> {
        let leg = session.leg.as_mut()?;
        let dialog = leg.dialog.as_mut()?;
        let mut request = dialog.request(Method::Invite).ok()?;
        let sequence = dialog.local_seq();
        request.headers.set("User-Agent", headers::SERVER);
        request.headers.set("Require", "siprec");
        request.headers.set("Accept", ACCEPT);
        request.headers.set("Allow", ALLOW);
        session::propose(leg, &mut request);
        let (kind, body) = body_of(text, document);
        request.set_body(&kind, body);
        let target = leg.target();
        match cx.endpoint.send_request(cx.now.instant, request, &target) {
            Ok(client) => {
                self.own_client(session, client, Use::Change);
                Some((client, sequence))
            }
            Err(_) => {
                let dialog = session.dialog()?;
                dialog.request_ended(&Method::Invite, sequence);
                None
            }
        }
    }

    pub(super) fn on_change_response(
        &mut self,
        session: &mut RecordingSession,
        tx: ClientTx,
        response: &Response,
        cx: &mut Context<'_>,
    ) {
        if !response.is_final() {
            return;
        }
        self.clients.remove(&tx);
        if let Some(dialog) = session.dialog() {
            dialog.handle_response(response);
        }
        let sequence = response.headers.cseq().map_or(1, |cseq| cseq.number);
        let current = session.change.as_ref().filter(|one| one.client == tx);
        let Some(change) = current else {
            if response.is_success() {
                acknowledge(session, tx, sequence, cx);
            }
            return;
        };
        match response.status {
            200..300 => {
                let kind = response.headers.get("Content-Type").unwrap_or_default();
                let bodies = multipart::read(&kind, &response.body).unwrap_or_default();
                session.offered.clone_from(&change.offered);
                // An answer that cannot be read leaves the media where it was.
                if let Some(answer) = bodies.sdp {
                    session.hear(&answer);
                }
                if let Some(leg) = &mut session.leg {
                    session::agreed(leg, response, cx.now);
                }
                self.arm(session, Step::Changed, cx);
            }
            491 => {
                session.change = None;
                let wait = session
                    .dialog()
                    .map_or(RETRY, |dialog| dialog.glare_delay(&mut rand::rng()));
                session.retry_at = Some(cx.now.instant + wait);
            }
            422 => self.ask_for_longer(session, response, cx),
            500 | 503 if response.headers.contains("Retry-After") => {
                session.change = None;
                let seconds = response.headers.retry_after().ok().flatten().unwrap_or(1);
                let wait = Duration::from_secs(u64::from(seconds.clamp(1, 60)));
                session.retry_at = Some(cx.now.instant + wait);
            }
            408 | 481 => self.change_unanswered(session, tx, response.status, cx),
            status => self.change_refused(session, status, cx),
        }
    }

    /// The recorder finds our session timer too short.
    fn ask_for_longer(
        &mut self,
        session: &mut RecordingSession,
        response: &Response,
        cx: &mut Context<'_>,
    ) {
        session.change = None;
        let leg = session.leg.as_mut();
        let longer = leg.and_then(|leg| {
            let policy = leg.session_policy.after_422(response)?;
            (leg.session_policy, leg.session) = (policy, None);
            Some(())
        });
        match longer {
            Some(()) => session.retry_at = Some(cx.now.instant),
            None => self.change_refused(session, 422, cx),
        }
    }

    /// Everything stays as it was; the recorder is asked again once there is something else to be told.
    fn change_refused(
        &mut self,
        session: &mut RecordingSession,
        status: u16,
        cx: &mut Context<'_>,
    ) {
        let Some(change) = session.change.take() else {
            return;
        };
        tracing::warn!(session = %session.id, status, "a recorder refused a change");
        session.snapshot_due = false;
        session.refused = Some((change.body, change.document));
        let why = format!("the recorder answered {status}");
        self.riders_failed(session, &why, cx);
        self.answer_waiting(session, &Err(ActionError::Unavailable(why)), cx);
        // Another change may have come meanwhile.
        self.tell(session, cx);
    }

    /// The re-INVITE got no answer, or the recorder does not know the session.
    pub(super) fn change_unanswered(
        &mut self,
        session: &mut RecordingSession,
        tx: ClientTx,
        status: u16,
        cx: &mut Context<'_>,
    ) {
        let current = session.change.take_if(|one| one.client == tx);
        if let Some(change) = current {
            if let Some(dialog) = session.dialog() {
                dialog.request_ended(&Method::Invite, change.sequence);
            }
            let why = match status {
                481 => "it knows the session no more",
                503 => "it cannot be reached",
                _ => "it does not answer",
            };
            self.lost(session, why, status != 481, cx);
        }
    }

    /// Media follows a change that was accepted: acknowledge it.
    pub(super) fn changed(&mut self, session: &mut RecordingSession, cx: &mut Context<'_>) {
        let Some(change) = session.change.take() else {
            return;
        };
        acknowledge(session, change.client, change.sequence, cx);
        session.told = change.body;
        session.refused = None;
        if let Some(document) = &change.document {
            self.accepted_by(session, document, cx);
            session.snapshot_due = false;
        }
        self.riders_told(session, cx);
        self.save(session, cx);
        if session.phase == Phase::Standing {
            self.tell(session, cx);
        }
    }

    /// What the session's timer asks for.
    pub(super) fn session_timer(&mut self, session: &mut RecordingSession, cx: &mut Context<'_>) {
        if session.phase != Phase::Standing {
            return;
        }
        let now = cx.now.instant;
        let timer = session.leg.as_mut().and_then(|leg| leg.session.as_mut());
        match timer.and_then(|timer| timer.handle_timeout(now)) {
            Some(TimerAction::Refresh) => self.refresh(session, cx),
            Some(TimerAction::Expired) => self.lost(session, "its session expired", true, cx),
            None => {}
        }
    }

    /// UPDATE without an offer where the recorder takes it, else what it was told last.
    fn refresh(&mut self, session: &mut RecordingSession, cx: &mut Context<'_>) {
        let now = cx.now.instant;
        let Some(leg) = &mut session.leg else { return };
        if session.change.is_some() {
            // That re-INVITE refreshes.
            return;
        }
        if !leg.takes_update {
            session.snapshot_due = true;
            return self.tell(session, cx);
        }
        let request = leg
            .dialog
            .as_mut()
            .and_then(|dialog| dialog.request(Method::Update).ok());
        let Some(mut request) = request else {
            if let Some(timer) = &mut leg.session {
                timer.retry(now, RETRY);
            }
            return;
        };
        session::propose(leg, &mut request);
        request.headers.set("User-Agent", headers::SERVER);
        request.set_content_length();
        let target = leg.target();
        if let Ok(client) = cx.endpoint.send_request(now, request, &target) {
            self.own_client(session, client, Use::Refresh);
        }
    }

    pub(super) fn on_refresh_response(
        &mut self,
        session: &mut RecordingSession,
        response: &Response,
        cx: &mut Context<'_>,
    ) {
        if !response.is_final() {
            return;
        }
        if let Some(dialog) = session.dialog() {
            dialog.handle_response(response);
        }
        let Some(leg) = &mut session.leg else { return };
        match response.status {
            200..300 => session::agreed(leg, response, cx.now),
            408 | 481 => self.lost(session, "its session was not refreshed", false, cx),
            405 | 501 => {
                leg.takes_update = false;
                self.refresh(session, cx);
            }
            _ => {
                if let Some(timer) = &mut leg.session {
                    timer.retry(cx.now.instant, Duration::from_secs(2));
                }
            }
        }
    }

    /// A request of the operator's inside the session.
    pub(super) fn send_message(
        &mut self,
        session: &mut RecordingSession,
        method: Method,
        given: &[(String, String)],
        body: &[u8],
        cx: &mut Context<'_>,
    ) -> Option<ClientTx> {
        let leg = session.leg.as_mut()?;
        let mut request: Request = leg.dialog.as_mut()?.request(method).ok()?;
        request.headers.set("User-Agent", headers::SERVER);
        let mut kind = None;
        for (name, value) in given {
            if name.eq_ignore_ascii_case("Content-Type") {
                kind = Some(value.clone());
            } else {
                request.headers.append(name, value);
            }
        }
        match body.is_empty() {
            true => request.set_content_length(),
            false => request.set_body(kind.as_deref().unwrap_or("text/plain"), body),
        }
        let target = leg.target();
        let client = cx
            .endpoint
            .send_request(cx.now.instant, request, &target)
            .ok()?;
        self.own_client(session, client, Use::Message);
        Some(client)
    }
}
