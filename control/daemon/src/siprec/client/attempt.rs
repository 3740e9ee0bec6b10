//! What comes of an INVITE to a server: it accepts, refuses, challenges, redirects or says nothing.

use std::time::Duration;

use trunkline_sdp::Description;
use trunkline_sip::dialog::Dialog;
use trunkline_sip::message::{Method, Request, Response};
use trunkline_sip::transaction::{ClientTx, Path, Target};
use trunkline_siprec::multipart;

use super::servers::{REST, redirect};
use super::state::{Attempt, Phase, RecordingSession, Step};
use super::{Client, Context};
use crate::api::events::EventKind;
use crate::b2bua::{headers, session};

impl Client {
    /// The server has said nothing final in time.
    pub(super) fn attempt_silent(&mut self, session: &mut RecordingSession, cx: &mut Context<'_>) {
        self.abandon(session, cx);
        self.rest(session, None, "no answer in time", cx);
        self.next_server(session, cx);
    }

    /// The INVITE under way is given up; its end is seen to without the session.
    pub(super) fn abandon(&mut self, session: &mut RecordingSession, cx: &mut Context<'_>) {
        let Some(attempt) = session.attempt.take() else {
            return;
        };
        self.clients.remove(&attempt.client);
        let _ = cx.endpoint.cancel(cx.now.instant, attempt.client, &[]);
        let target = attempt.leg.target();
        self.abandoned
            .insert(attempt.client, (attempt.request, target));
    }

    /// An answer to an INVITE that was given up: a 2xx gets ACK and BYE.
    pub(super) fn on_late_response(
        &mut self,
        tx: ClientTx,
        response: &Response,
        cx: &mut Context<'_>,
    ) {
        if !response.is_final() {
            return;
        }
        let Some((request, target)) = self.abandoned.remove(&tx) else {
            return;
        };
        if response.is_success() {
            acknowledge_and_end(tx, &request, response, &target, cx);
        }
    }

    pub(super) fn on_invite_response(
        &mut self,
        session: &mut RecordingSession,
        tx: ClientTx,
        response: &Response,
        path: Path,
        cx: &mut Context<'_>,
    ) {
        let Some(attempt) = session.attempt.as_mut().filter(|one| one.client == tx) else {
            // A repetition by another fork of the INVITE.
            return;
        };
        // A large request may have gone by a stream; what follows goes where its Contact says.
        attempt.leg.flow = (path.transport == attempt.leg.transport).then_some(path.flow);
        match response.status {
            ..200 => {}
            200..300 => self.accepted(session, response, cx),
            status => {
                self.clients.remove(&tx);
                self.attempt_failed(session, tx, status, Some(response), cx);
            }
        }
    }

    /// A server accepts: the fork is armed, then its 2xx acknowledged.
    fn accepted(
        &mut self,
        session: &mut RecordingSession,
        response: &Response,
        cx: &mut Context<'_>,
    ) {
        let Some(mut attempt) = session.attempt.take() else {
            return;
        };
        let (tx, request) = (attempt.client, attempt.request.clone());
        let target = attempt.leg.target();
        let kind = response.headers.get("Content-Type").unwrap_or_default();
        let bodies = multipart::read(&kind, &response.body).unwrap_or_default();
        let dialog = Dialog::uac(&request, response);
        let usable = bodies.sdp.filter(|sdp| Description::parse(sdp).is_ok());
        let (Some(answer), Ok(dialog)) = (usable, dialog) else {
            self.clients.remove(&tx);
            acknowledge_and_end(tx, &request, response, &target, cx);
            self.rest(session, Some(REST), "a 2xx without a usable answer", cx);
            return self.next_server(session, cx);
        };
        self.dialogs.insert(dialog.id(), session.key);
        attempt.leg.dialog = Some(dialog);
        session::agreed(&mut attempt.leg, response, cx.now);
        session.leg = Some(attempt.leg.clone());
        session.offered.clone_from(&attempt.offered);
        session.hear(&answer);
        session.phase = Phase::Arming;
        session.attempt = Some(attempt);
        self.arm(session, Step::Armed, cx);
    }

    /// The fork runs.
    pub(super) fn armed(&mut self, session: &mut RecordingSession, cx: &mut Context<'_>) {
        let document = match (session.attempt.take(), session.asked.take()) {
            (Some(attempt), _) => {
                self.clients.remove(&attempt.client);
                acknowledge(session, attempt.client, 1, cx);
                attempt.document
            }
            (None, Some(asked)) => asked.document,
            (None, None) => return,
        };
        if session.phase != Phase::Arming {
            return;
        }
        self.accepted_by(session, &document, cx);
        if let Some(server) = &session.server {
            self.resting.remove(&server.place());
        }
        self.has_server(session, cx);
        self.riders_told(session, cx);
        self.save(session, cx);
        self.update(session, cx);
    }

    /// A server has the session, for the first time or again.
    pub(super) fn has_server(&mut self, session: &mut RecordingSession, cx: &mut Context<'_>) {
        session.phase = Phase::Standing;
        session.lost_since = None;
        session.why = None;
        session.refused = None;
        self.end_gap(session, cx.now.utc);
        let kind = if session.announced {
            EventKind::SiprecFailedOver
        } else {
            EventKind::SiprecStarted
        };
        session.announced = true;
        self.publish(kind, session, cx);
        self.answer_waiting(session, &Ok(()), cx);
    }

    /// The INVITE came to nothing.
    pub(super) fn attempt_failed(
        &mut self,
        session: &mut RecordingSession,
        tx: ClientTx,
        status: u16,
        response: Option<&Response>,
        cx: &mut Context<'_>,
    ) {
        let Some(attempt) = session.attempt.take_if(|one| one.client == tx) else {
            return;
        };
        if session.phase != Phase::Inviting {
            return;
        }
        let declines = |pattern: &trunkline_config::Pattern| pattern.is_match(&status.to_string());
        let retried = match (status, response) {
            (401 | 407, Some(response)) if !attempt.authenticated => {
                self.authenticate(session, &attempt, status, response, cx)
            }
            (488, _) if !attempt.reduced => self.invite(session, true, None, cx).is_ok(),
            (300..=399, Some(response)) => redirect(session, response),
            _ => false,
        };
        if session.attempt.is_some() {
            return;
        }
        if !retried
            && session
                .recorder
                .skip_failover
                .as_ref()
                .is_some_and(declines)
        {
            return self.declined(session, status, cx);
        }
        if matches!(status, 415 | 420) {
            self.raise_configuration_alarm(session, status, cx);
        }
        let asked = response.and_then(|response| response.headers.retry_after().ok().flatten());
        let rest = match (status, asked) {
            (503, Some(seconds)) => Duration::from_secs(u64::from(seconds)),
            _ => REST,
        };
        if !retried {
            let rest = response.map(|_| rest);
            self.rest(session, rest, &format!("answered {status}"), cx);
        }
        self.next_server(session, cx);
    }

    /// Answers a challenge with the user and password of the server's URI; false when it has none.
    fn authenticate(
        &mut self,
        session: &mut RecordingSession,
        attempt: &Attempt,
        status: u16,
        response: &Response,
        cx: &mut Context<'_>,
    ) -> bool {
        use trunkline_sip::digest::{Challenge, DigestClient, Exchange};
        let (challenge, header) = match status {
            401 => ("WWW-Authenticate", "Authorization"),
            _ => ("Proxy-Authenticate", "Proxy-Authorization"),
        };
        let Some(challenge) = Challenge::strongest(&response.headers, challenge) else {
            return false;
        };
        let uri = session.server.as_ref().map(|server| server.uri.clone());
        let given = uri.as_ref().and_then(|uri| {
            let user = uri.user_decoded()?.into_owned();
            Some((user, uri.password()?.to_owned()))
        });
        let Some((user, password)) = given else {
            return false;
        };
        let mut client = DigestClient::new(&user, &password, challenge, &mut rand::rng());
        let exchange = Exchange {
            method: "INVITE",
            uri: attempt.request.uri.as_str(),
            body: &[],
        };
        let value = client.answer(&exchange);
        self.invite(session, attempt.reduced, Some((header, value)), cx)
            .is_ok()
    }
}

/// ACK for the 2xx of our INVITE with this CSeq number.
pub(super) fn acknowledge(
    session: &RecordingSession,
    tx: ClientTx,
    sequence: u32,
    cx: &mut Context<'_>,
) {
    let Some(leg) = &session.leg else { return };
    if let Some(dialog) = &leg.dialog {
        let mut ack = dialog.ack(sequence);
        ack.set_content_length();
        let _ = cx.endpoint.send_ack(cx.now.instant, tx, ack, &leg.target());
    }
}

/// ACK and BYE for a 2xx that is not wanted.
fn acknowledge_and_end(
    tx: ClientTx,
    request: &Request,
    response: &Response,
    target: &Target,
    cx: &mut Context<'_>,
) {
    let Ok(mut dialog) = Dialog::uac(request, response) else {
        return;
    };
    let sequence = response.headers.cseq().map_or(1, |cseq| cseq.number);
    let mut ack = dialog.ack(sequence);
    ack.set_content_length();
    let _ = cx.endpoint.send_ack(cx.now.instant, tx, ack, target);
    if let Ok(mut bye) = dialog.request(Method::Bye) {
        bye.headers.set("User-Agent", headers::SERVER);
        bye.set_content_length();
        let _ = cx.endpoint.send_request(cx.now.instant, bye, target);
    }
}
