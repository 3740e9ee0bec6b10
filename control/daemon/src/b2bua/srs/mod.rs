//! Recording sessions that others open with us (SRS): a call of one leg, whose m-lines are all captured
//! and nothing relayed.
//!
//! ```text
//! INVITE to a route with `next = "record"` ─ judged ─ SessionOpen ─ LegUpdates ─ RecordingStart ─► 200
//! re-INVITE, UPDATE, INFO ─ change.rs ─ media, metadata, pause follow ─► 200
//! BYE, timers, media timeout, hang-up ─ as any call: end.rs
//! ```

mod ask;
mod change;
mod metadata;
mod persist;
mod show;
mod union;

use std::sync::Arc;

use trunkline_config::Route;
use trunkline_link::message::{Command, FactKind, FailReason, Side};
use trunkline_sdp::{Description, SdpError};
use trunkline_sinks::object::{CallState, Role};
use trunkline_sip::dialog::SessionPolicy;
use trunkline_sip::message::{Request, Response, Scheme};
use trunkline_sip::transaction::{Path, ServerTx};
use trunkline_sn3::facts::CallChange;

use super::bodies::refused_body;
use super::invite::Refused;
use super::targets::Groups;
use super::{B2bua, session};
use crate::call::recording::Phase as Capture;
use crate::call::{Call, Phase};
use crate::clock::Moment;
use crate::siprec::server::lines::Lines;
use crate::siprec::server::session::{Carried, carried, sign_of};
use crate::siprec::server::{Session, Step};

pub(super) use persist::is_record;
pub(super) use union::Ended;

/// What we take in a recording session.
pub(super) const ACCEPT: &str = "application/sdp, application/rs-metadata+xml, multipart/mixed";
/// Methods that we take in it.
const ALLOW: &str = "INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE, INFO, MESSAGE";
/// Options that a client may require.
const UNDERSTOOD: [&str; 2] = ["siprec", "timer"];

/// A warning that says why in words.
pub(super) fn warning(why: &str) -> (&'static str, String) {
    let why: String = why.chars().filter(|c| !matches!(c, '"' | '\\')).collect();
    ("Warning", format!("399 trunkline \"{why}\""))
}

fn refused_sdp(error: &SdpError) -> Refused {
    (error.status(), vec![warning(&error.to_string())])
}

/// Options that a request requires and we do not know.
fn unknown_options(request: &Request) -> Vec<String> {
    let mut required = request.headers.list("Require");
    required.retain(|option| {
        !UNDERSTOOD
            .iter()
            .any(|one| one.eq_ignore_ascii_case(option))
    });
    required
}

/// Judges an INVITE in the order of RFC 3261 section 8.2.
pub(super) fn judge(request: &Request) -> Result<(), Refused> {
    if !matches!(request.uri.scheme(), Scheme::Sip | Scheme::Tel) {
        return Err((416, Vec::new()));
    }
    let mut unknown = unknown_options(request);
    unknown.extend(request.headers.list("Proxy-Require"));
    if !unknown.is_empty() {
        return Err((420, vec![("Unsupported", unknown.join(", "))]));
    }
    if let Err(too_small) = SessionPolicy::default().accept(&request.headers) {
        return Err((422, vec![("Min-SE", too_small.min_se.to_string())]));
    }
    if request.headers.contact_uri().is_none() {
        return Err((400, vec![warning("no usable Contact")]));
    }
    Ok(())
}

/// What an INVITE brought, judged.
struct Admitted {
    session: Session,
    /// `None` = we are to make it.
    offer: Option<(String, Description)>,
    metadata: Option<Vec<u8>>,
}

impl B2bua {
    /// The route of an INVITE that our own recorder is to take.
    pub(super) fn recorder_route(&self, request: &Request) -> Option<Arc<Route>> {
        if !self.config.routes.iter().any(|route| route.records_here()) {
            return None;
        }
        self.route(request).filter(|route| route.records_here())
    }

    /// An INVITE for our recorder.
    pub(super) fn on_recording_invite(
        &mut self,
        tx: ServerTx,
        request: Request,
        path: Path,
        route: Arc<Route>,
        now: &Moment,
    ) {
        match self.admit_recording(&request, &route, path, now) {
            Ok(admitted) => self.open_recording_session(tx, request, path, route, admitted, now),
            Err(refused) => {
                tracing::warn!(from = %path.source, status = refused.0, "a recording session is refused");
                self.refuse(tx, &request, refused, now);
            }
        }
    }

    fn admit_recording(
        &mut self,
        request: &Request,
        route: &Route,
        path: Path,
        now: &Moment,
    ) -> Result<Admitted, Refused> {
        judge(request)?;
        let Carried { sdp, metadata } =
            carried(&request.headers, &request.body).map_err(refused_body)?;
        if sdp.is_none() && metadata.is_none() && !request.body.is_empty() {
            return Err((415, vec![("Accept", ACCEPT.to_owned())]));
        }
        let lines = Lines::new(rand::random(), &route.codecs);
        let offer = sdp.map(|sdp| lines.read(&sdp)).transpose();
        let offer = offer.map_err(|error| refused_sdp(&error))?;
        self.check_limits(request, path, now)?;
        let sign = sign_of(request, metadata.is_some(), true);
        Ok(Admitted {
            session: Session::new(request, sign, lines),
            offer,
            metadata,
        })
    }

    fn open_recording_session(
        &mut self,
        tx: ServerTx,
        request: Request,
        path: Path,
        route: Arc<Route>,
        admitted: Admitted,
        now: &Moment,
    ) {
        let key = rand::random::<u64>().max(1);
        self.respond(tx, Response::to(&request, 100), now);
        let cseq = request.headers.cseq().map_or(0, |cseq| cseq.number);
        let call = self.new_call(key, tx, request, path, route, Groups::new(), None, now);
        let Some(mut call) = call else { return };
        let Admitted {
            session,
            offer,
            metadata,
        } = admitted;
        call.recording_session = Some(Box::new(session));
        call.leg_mut(Side::Callee).over = true;
        call.object.legs.truncate(1);
        call.object.legs[0].role = Role::Recorder;
        if let Some(invitation) = &mut call.invitation {
            invitation.late_offer = false;
        }
        self.own_server(&mut call, tx);
        if let Some(document) = metadata {
            self.take_metadata(&mut call, cseq, &document, now);
        }
        self.ask_recording_ports(&mut call, offer, path, now);
        self.settle(call, now);
    }

    fn ask_recording_ports(
        &mut self,
        call: &mut Call,
        offer: Option<(String, Description)>,
        path: Path,
        now: &Moment,
    ) {
        let mut media = offer.iter().flat_map(|(_, offer)| &offer.media);
        let heard = media.find_map(|media| media.rtp_address());
        let peer = heard.map_or(path.source.ip(), |address| address.ip());
        let [Some(interface), _] = self.interfaces(peer, peer) else {
            let why = "no media interface of the offer's family";
            return self.fail_call(call, 488, why, now);
        };
        call.media.interface = [interface; 2];
        self.join_recording(call, now);
        self.take_lines(call, offer);
        let commands = self.more_ports(call).into_iter().collect();
        let then = crate::call::Step::RecordingSession(Step::Opened);
        self.batch(call, commands, then, now);
    }

    /// Goes on after a batch.
    pub(super) fn recording_session_step(
        &mut self,
        call: &mut Call,
        step: Step,
        failed: Option<FailReason>,
        now: &Moment,
    ) {
        match (step, failed) {
            (Step::Opened, None) => self.arm_lines(call, Step::Armed, Vec::new(), now),
            (Step::Armed, None) => self.record_lines(call, now),
            (Step::Opened | Step::Armed, Some(reason)) => {
                tracing::warn!(session = %call.object.id, ?reason, "no media for a recording session");
                if call.host.is_some() {
                    self.without_ports(call);
                }
                self.fail_call(call, 503, "no media ports", now);
            }
            (Step::Reopened, _) => self.reopened(call, failed, now),
            (Step::Rearmed, _) => self.rearmed(call, failed, now),
        }
    }

    /// Answers the offer taken last, as far as our own description goes, and tells the dataplane.
    fn arm_lines(&mut self, call: &mut Call, then: Step, more: Vec<Command>, now: &Moment) {
        if call.phase == Phase::Ending {
            return;
        }
        let (open, address) = (
            self.open_media(call),
            self.media_address(call, Side::Caller),
        );
        let Some(session) = &mut call.recording_session else {
            return;
        };
        if let Err(error) = session.lines.write(&open, address) {
            return self.fail_call(call, error.status(), &error.to_string(), now);
        }
        let mut commands = self.line_commands(call);
        commands.extend(more);
        self.batch(
            call,
            commands,
            crate::call::Step::RecordingSession(then),
            now,
        );
    }

    /// The lines are armed: capture begins before the answer leaves.
    fn record_lines(&mut self, call: &mut Call, now: &Moment) {
        if call.phase == Phase::Ending {
            return;
        }
        self.follow_metadata(call, now);
        if call.host.is_some() {
            return self.answer_recording_client(call, now);
        }
        self.begin_recording(call, now);
    }

    /// A recording's start was answered by the dataplane: the client's INVITE is answered too.
    pub(super) fn recording_session_started(&mut self, call: &mut Call, now: &Moment) {
        if call.recording_session.is_none() || call.phase != Phase::Preparing {
            return;
        }
        if !call
            .recordings
            .iter()
            .any(|one| one.phase == Capture::Running)
        {
            return self.fail_call(call, 503, "capture cannot be started", now);
        }
        self.answer_recording_client(call, now);
    }

    /// Media and capture are armed: the client's INVITE is answered.
    fn answer_recording_client(&mut self, call: &mut Call, now: &Moment) {
        let answer = call
            .recording_session
            .as_ref()
            .and_then(|session| session.lines.answered().map(str::to_owned));
        let invitation = call
            .invitation
            .as_ref()
            .and_then(|one| Some((one.server?, one.request.clone())));
        let (Some(answer), Some((tx, request))) = (answer, invitation) else {
            return;
        };
        let response = self.recording_response(call, &request, Some(&answer), now);
        self.respond(tx, response, now);
        call.phase = Phase::Answered;
        call.duration_deadline = call
            .route
            .duration_max_s
            .map(|s| now.instant + std::time::Duration::from_secs(u64::from(s)));
        let anew = call.host.is_none() && !call.recordings.iter().any(|one| one.continues);
        if anew {
            call.answered_mono_ns = now.mono_ns;
        }
        call.object.answered_at = Some(now.utc);
        call.object.sip_code = Some(200);
        call.object.state = CallState::Active;
        if anew {
            let change = CallChange {
                reason: "answered".to_owned(),
                answered_mono_ns: Some(now.mono_ns),
                answered_at: Some(now.utc.to_string()),
                ..CallChange::default()
            };
            self.fact_to_live(call, FactKind::CallChange, &change);
        } else {
            self.media_fact(call);
            if call.host.is_none() {
                self.tell_participants(call);
            }
        }
        self.tell_documents(call);
        self.publish_served(call, now);
        if let Some(command) = self.pause_commands(call) {
            self.command(command);
        }
        self.save(call);
    }

    /// Our 2xx to an INVITE or UPDATE of the client.
    fn recording_response(
        &mut self,
        call: &mut Call,
        request: &Request,
        sdp: Option<&str>,
        now: &Moment,
    ) -> Response {
        let mut response = self.dialog_response(call, Side::Caller, request, 200);
        mark(call, &mut response);
        if let Some(sdp) = sdp {
            response.set_body("application/sdp", sdp);
        }
        session::confirm(call.leg_mut(Side::Caller), request, &mut response, now);
        response
    }
}

/// Shows a response to be a recorder's (RFC 7866 section 6.1.2).
fn mark(call: &Call, response: &mut Response) {
    let contact = &call.leg(Side::Caller).contact;
    response
        .headers
        .set("Contact", format!("<{contact}>;+sip.srs"));
    response.headers.set("Allow", ALLOW);
    response.headers.set("Accept", ACCEPT);
    if !response.headers.list_contains("Supported", "siprec") {
        response.headers.append("Supported", "siprec");
    }
}
