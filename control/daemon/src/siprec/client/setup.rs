//! How a recording session gets a server: INVITEs to its servers in order, until one accepts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use trunkline_config::{Host, Recorder, SipTarget};
use trunkline_link::message::ForkState;
use trunkline_sdp::{Description, OriginState, RecordState};
use trunkline_sip::dialog::{Dialog, SessionPolicy};
use trunkline_sip::message::{Method, NameAddr, Request, Response, Uri, bracketed};
use trunkline_sip::transaction::{ClientTx, Path, Target, Transport};
use trunkline_siprec::metadata::write;
use trunkline_siprec::multipart;

use super::health::Resting;
use super::sdp::{self, Line, Offered};
use super::state::{Attempt, HostName, Phase, RecordingSession, Server, Step};
use super::story::Story;
use super::view::{CallView, Stage};
use super::{Client, Context, Use};
use crate::api::events::EventKind;
use crate::b2bua::Hop;
use crate::b2bua::headers;
use crate::b2bua::session;
use crate::call::Leg;
use crate::call::media::Media;
use crate::siprec::session::Gap;

/// Methods that we take in a recording session.
pub(super) const ALLOW: &str = "INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE, INFO, MESSAGE";
/// Bodies that we take in one.
pub(super) const ACCEPT: &str = "application/sdp, application/rs-metadata+xml, multipart/mixed";
/// A server that failed is left alone for so long, unless it says otherwise.
const REST: Duration = Duration::from_secs(30);
/// The longest that a server may ask to be left alone.
const REST_MAX: Duration = Duration::from_secs(3600);
/// Servers that redirections may add to a round.
const REDIRECTIONS_MAX: usize = 8;
/// Gaps of one session that are told apart.
const GAPS_MAX: usize = 64;

impl Server {
    pub(super) fn of(target: &SipTarget) -> Option<Self> {
        let uri: Uri = target.uri.parse().ok()?;
        let transport = match target.transport {
            trunkline_config::Transport::Udp => Transport::Udp,
            trunkline_config::Transport::Tcp => Transport::Tcp,
        };
        let (name, address) = match &target.host {
            Host::Address(address) => {
                let port = target.port.unwrap_or(5060);
                (None, Some(SocketAddr::new(*address, port)))
            }
            Host::Name(host) => {
                let name = HostName {
                    host: host.clone(),
                    port: target.port,
                    transport: target.names_transport().then_some(transport),
                };
                (Some(name), None)
            }
        };
        Some(Self {
            uri,
            transport,
            name,
            address,
        })
    }
}

impl RecordingSession {
    /// m-lines for all that the call's sides send as RTP; those that are there stay.
    pub(super) fn lines_from_view(&mut self) {
        for stream in &self.view.streams {
            let line = Line {
                media: stream.media,
                side: stream.side as u8,
                kind: stream.kind.clone(),
            };
            let wanted = matches!(stream.kind.as_str(), "audio" | "video");
            if wanted && !self.lines.contains(&line) {
                self.lines.push(line);
            }
        }
    }

    /// The m-lines as the call is now. `reduced`: audio only, one codec beside digits.
    pub(super) fn offer(&self, reduced: bool) -> Vec<Offered> {
        let flows = self.view.stage >= Stage::Early;
        let holds = self.paused && self.recorder.pause == trunkline_config::RecorderPause::Inactive;
        let lines = self.lines.iter().enumerate().map(|(index, line)| {
            let says = self
                .view
                .streams
                .iter()
                .find(|one| one.media == line.media && one.side == line.side());
            let side = line.side() as usize;
            let port = self.media.open.get(usize::from(line.media));
            let port = port.map_or(0, |open| open.ports[side]);
            let mut payloads = says.map(|one| one.payloads.clone()).unwrap_or_default();
            let wanted = &self.recorder.codecs;
            if line.kind == "audio" && !wanted.is_empty() {
                payloads.retain(|one| {
                    is_aside(&one.codec)
                        || wanted
                            .iter()
                            .any(|name| name.eq_ignore_ascii_case(&one.codec))
                });
            }
            drop_repeated(&mut payloads);
            if reduced {
                let mut voices = 0;
                payloads.retain(|one| {
                    let aside = is_aside(&one.codec);
                    voices += usize::from(!aside);
                    aside || voices <= 1
                });
            }
            let used = says.is_some() && payloads.iter().any(|one| !is_aside(&one.codec));
            let used = used && !(reduced && line.kind != "audio");
            Offered {
                kind: line.kind.clone(),
                port: if used { port } else { 0 },
                ptime_ms: says.map_or(0, |one| one.ptime_ms),
                sends: used && flows && !holds,
                payloads: match (payloads.is_empty(), self.offered.get(index)) {
                    (true, Some(before)) => before.payloads.clone(),
                    _ => payloads,
                },
            }
        });
        lines.collect()
    }

    pub(super) fn settings(&self) -> &trunkline_config::RecorderSettings {
        &self.recorder.settings
    }
}

/// Not a voice: digits, comfort noise.
fn is_aside(codec: &str) -> bool {
    matches!(
        trunkline_sdp::Codec::from_name(codec),
        trunkline_sdp::Codec::TelephoneEvent | trunkline_sdp::Codec::ComfortNoise
    )
}

/// A side may use two numbers for one encoding: each is kept once by number.
fn drop_repeated(payloads: &mut Vec<trunkline_sn3::facts::PayloadFact>) {
    let mut seen = Vec::new();
    payloads.retain(|one| {
        let new = !seen.contains(&one.pt);
        seen.push(one.pt);
        new
    });
}

impl Client {
    pub(super) fn new_session(
        &mut self,
        view: &Arc<CallView>,
        recorder: &Arc<Recorder>,
        cx: &mut Context<'_>,
    ) -> RecordingSession {
        let key = rand::random::<u64>().max(1);
        let (story, refused) = Story::new(view, &recorder.settings, cx.now.utc);
        if let Some(why) = refused {
            tracing::warn!(recorder = %recorder.name, why, "the recorder's extensions are left out");
        }
        let mut media = Media::new(key, [view.interface; 2], 0);
        media.beside = view.key;
        RecordingSession {
            key,
            id: trunkline_sinks::object::new_id(),
            view: Arc::clone(view),
            recorder: Arc::clone(recorder),
            phase: Phase::Opening,
            story,
            lines: Vec::new(),
            media,
            round: recorder.servers.iter().filter_map(Server::of).collect(),
            server: None,
            redirections: 0,
            attempt: None,
            leg: None,
            change: None,
            asked: None,
            heard: String::new(),
            accepted: Vec::new(),
            offered: Vec::new(),
            origin: OriginState::new(rand::random()),
            told: String::new(),
            refused: None,
            snapshot_due: false,
            paused: false,
            fork: ForkState::Running,
            forking: false,
            batches: Vec::new(),
            next_batch: 1,
            waiting: Vec::new(),
            retry_at: None,
            end_deadline: None,
            scheduled: None,
            started_at: cx.now.utc,
            ended_at: None,
            announced: false,
            streams: Vec::new(),
            streams_before: Vec::new(),
            heard_ns: 0,
            revision: 0,
            revised_at: None,
            failovers: 0,
            gaps: Vec::new(),
            why: None,
            lost_since: None,
            recorded: RecordState::Off,
            clients: Vec::new(),
            servers: Vec::new(),
        }
    }

    /// All servers are to be tried, in order.
    pub(super) fn next_round(&mut self, session: &mut RecordingSession, cx: &mut Context<'_>) {
        session.round = session
            .recorder
            .servers
            .iter()
            .filter_map(Server::of)
            .collect();
        session.redirections = 0;
        self.next_server(session, cx);
    }

    /// Tries the next server that is not to be left alone.
    pub(super) fn next_server(&mut self, session: &mut RecordingSession, cx: &mut Context<'_>) {
        session.phase = Phase::Inviting;
        session.retry_at = None;
        while let Some(server) = session.round.pop_front() {
            let rests = self.resting.get(&server.place());
            if rests.is_some_and(|one| one.until > cx.now.instant) {
                continue;
            }
            session.server = Some(server.clone());
            if let (Some(name), None) = (server.name, server.address) {
                cx.lookups.push(crate::b2bua::Lookup {
                    call: session.key,
                    host: name.host,
                    port: name.port,
                    transport: name.transport,
                });
                return;
            }
            match self.invite(session, false, None, cx) {
                Ok(()) => return,
                Err(why) => self.rest(session, None, why, cx),
            }
        }
        let why = session.why.clone();
        let why = why.unwrap_or_else(|| "every server is left alone after a failure".to_owned());
        self.no_server(session, &why, cx);
    }

    /// A name was looked up: its hops are tried in order; none = nobody is there.
    pub fn looked_up(&mut self, key: u64, hops: &[Hop], cx: &mut Context<'_>) {
        self.with(key, cx, |client, session, cx| {
            let waits = session.phase == Phase::Inviting && session.attempt.is_none();
            let Some(server) = session.server.clone().filter(|_| waits) else {
                return;
            };
            for hop in hops.iter().rev() {
                session.round.push_front(Server {
                    transport: hop.transport,
                    address: Some(hop.address),
                    ..server.clone()
                });
            }
            if hops.is_empty() {
                client.rest(session, None, "its name does not resolve", cx);
            }
            client.next_server(session, cx);
        });
    }

    /// The server that failed is left alone: for so long, or (`None`: it could not be reached) until it
    /// answers an OPTIONS, at most [`REST`].
    fn rest(
        &mut self,
        session: &mut RecordingSession,
        rest: Option<Duration>,
        why: &str,
        cx: &Context<'_>,
    ) {
        let server = session.server_name();
        let place = session.server.as_ref().map(Server::place);
        tracing::warn!(session = %session.id, recorder = %session.recorder.name, server, why, "a SIPREC server failed");
        session.why = Some(format!("{server}: {why}"));
        session.failovers += 1;
        self.resting.retain(|_, one| one.until > cx.now.instant);
        let until = cx.now.instant + rest.unwrap_or(REST).min(REST_MAX);
        if let Some(server) = session.server.clone() {
            let now = cx.now.instant;
            let resting = Resting::new(server, until, rest.is_none(), now);
            self.resting.insert(place.unwrap_or_default(), resting);
        }
    }

    /// No server has the session: it is tried again once the first has rested.
    pub(super) fn no_server(
        &mut self,
        session: &mut RecordingSession,
        why: &str,
        cx: &mut Context<'_>,
    ) {
        session.phase = Phase::Lost;
        session.why = Some(why.to_owned());
        session.lost_since.get_or_insert(cx.now.instant);
        let rests = session.recorder.servers.iter().filter_map(|server| {
            let resting = self.resting.get(&Server::of(server)?.place())?;
            Some(resting.until)
        });
        let soonest = rests.min().unwrap_or(cx.now.instant + REST);
        session.retry_at = Some(soonest.max(cx.now.instant + Duration::from_secs(1)));
        self.publish(EventKind::SiprecFailed, session, cx);
        let error = crate::api::handle::ActionError::Unavailable(why.to_owned());
        self.answer_waiting(session, &Err(error), cx);
    }

    /// Our address towards a server, and the socket.
    fn local_to(
        session: &RecordingSession,
        server: &Server,
        remote: SocketAddr,
        cx: &Context<'_>,
    ) -> Option<(Option<trunkline_sip::transaction::FlowId>, SocketAddr)> {
        let found = (cx.local_to)(server.transport, remote);
        match session.settings().socket {
            Some(socket) => (cx.local_to)(server.transport, socket.address)
                .filter(|(_, local)| local.port() == socket.address.port())
                .or(found),
            None => found,
        }
    }

    /// Sends the INVITE to the session's server.
    fn invite(
        &mut self,
        session: &mut RecordingSession,
        reduced: bool,
        credentials: Option<(&'static str, String)>,
        cx: &mut Context<'_>,
    ) -> Result<(), &'static str> {
        let server = session.server.clone().ok_or("no server")?;
        let remote = server.address.ok_or("no address")?;
        let (flow, local) = Self::local_to(session, &server, remote, cx)
            .ok_or("nothing listens for its transport")?;
        let offered = session.offer(reduced);
        let document = session.story.complete();
        let address = Self::media_address(session, cx);
        let body = sdp::body(address, &offered);
        let mut origin = OriginState::new(rand::random());
        let text = origin.describe(address, &body);
        let (contact, mut request) =
            invitation(session, &server, local, cx).ok_or("the INVITE cannot be built")?;
        let (kind, body_bytes) =
            multipart::write(text.as_bytes(), &write(&document), rand::random());
        if let Some((name, value)) = &credentials {
            request.headers.append(name, value);
        }
        let mut leg = Leg::new(server.transport, flow, local, remote, contact);
        leg.session_policy = SessionPolicy::default();
        session::propose(&leg, &mut request);
        request.set_body(&kind, body_bytes);
        let target = Target::new(server.transport, flow, local, remote);
        let client = cx
            .endpoint
            .send_request(cx.now.instant, request.clone(), &target)
            .map_err(|_| "the INVITE cannot be sent")?;
        self.own_client(session, client, Use::Invite);
        session.origin = origin;
        session.told = body;
        let patience = Duration::from_millis(u64::from(session.recorder.answer_timeout_ms));
        session.attempt = Some(Attempt {
            client,
            request,
            leg,
            deadline: cx.now.instant + patience,
            offered,
            document,
            reduced,
            authenticated: credentials.is_some(),
        });
        Ok(())
    }

    pub(super) fn media_address(session: &RecordingSession, cx: &Context<'_>) -> std::net::IpAddr {
        let index = usize::from(session.media.interface[0]);
        let ours = cx.config.interfaces.get(index);
        let ours = ours.map_or(std::net::Ipv4Addr::LOCALHOST.into(), |one| one.advertised());
        session.settings().media_address.unwrap_or(ours)
    }

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
        let Some(attempt) = session.attempt.take() else {
            return;
        };
        self.clients.remove(&attempt.client);
        acknowledge(session, attempt.client, 1, cx);
        if session.phase != Phase::Arming {
            return;
        }
        session.phase = Phase::Standing;
        session.story.accepted(&attempt.document);
        session.revised(cx.now.utc);
        session.lost_since = None;
        session.why = None;
        session.refused = None;
        if let Some(server) = &session.server {
            self.resting.remove(&server.place());
        }
        if let Some(gap) = session.gaps.last_mut() {
            gap.to.get_or_insert(cx.now.utc);
        }
        let kind = if session.announced {
            EventKind::SiprecFailedOver
        } else {
            EventKind::SiprecStarted
        };
        session.announced = true;
        self.publish(kind, session, cx);
        self.answer_waiting(session, &Ok(()), cx);
        self.save(session, cx);
        self.update(session, cx);
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

    /// The recorder does not want this call.
    fn declined(&mut self, session: &mut RecordingSession, status: u16, cx: &mut Context<'_>) {
        let why = format!("{} declined with {status}", session.server_name());
        session.why = Some(why.clone());
        session.phase = Phase::Over;
        let error = crate::api::handle::ActionError::Unavailable(why);
        self.answer_waiting(session, &Err(error), cx);
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

    /// The server that had the session is lost: another one takes it over, after a gap.
    pub(super) fn lost(
        &mut self,
        session: &mut RecordingSession,
        why: &str,
        bye: bool,
        cx: &mut Context<'_>,
    ) {
        if session.phase == Phase::Ending {
            session.phase = Phase::Over;
            return;
        }
        if !matches!(session.phase, Phase::Standing | Phase::Arming) {
            return;
        }
        let server = session.server_name();
        self.disarm(session, cx);
        if bye {
            self.send_stray_bye(session, cx);
        }
        self.leave_dialog(session);
        session.change = None;
        session.asked = None;
        session.lost_since = Some(cx.now.instant);
        if session.gaps.len() < GAPS_MAX {
            session.gaps.push(Gap {
                from: cx.now.utc,
                to: None,
                server,
                reason: why.to_owned(),
            });
        }
        self.tell_gap(session, why, cx);
        // One that said itself that it goes is not asked whether it is there.
        self.rest(session, (!bye).then_some(REST), why, cx);
        session.story.resume(cx.now.utc);
        self.next_round(session, cx);
    }
}

/// The INVITE without its body, and our Contact in it.
fn invitation(
    session: &RecordingSession,
    server: &Server,
    local: SocketAddr,
    cx: &mut Context<'_>,
) -> Option<(Uri, Request)> {
    let host = local.ip().to_string();
    let host = bracketed(&host);
    let ours = Uri::sip(None, &host, Some(local.port())).ok()?;
    let contact = match server.transport {
        Transport::Udp => ours.clone(),
        other => ours.with_param("transport", Some(other.param_name())),
    };
    let settings = session.settings();
    let given = |text: &Option<String>| text.as_ref().and_then(|text| text.parse::<Uri>().ok());
    let tag = cx.endpoint.new_tag();
    let from = given(&settings.from_uri).unwrap_or(ours);
    let from = NameAddr::new(from).with_tag(Some(&tag));
    let request_uri = server.shown();
    let to = given(&settings.to_uri).unwrap_or_else(|| request_uri.without_headers());
    let call_id = cx.endpoint.new_call_id(&host);
    let mut request = Request::new(Method::Invite, request_uri)
        .with("Max-Forwards", "70")
        .with("From", from.to_string())
        .with("To", NameAddr::new(to).to_string())
        .with("Call-ID", &call_id)
        .with("CSeq", "1 INVITE")
        .with("Contact", format!("<{contact}>;+sip.src"))
        .with("Require", "siprec")
        .with("Accept", ACCEPT)
        .with("Allow", ALLOW)
        .with("User-Agent", headers::SERVER);
    for (name, value) in &settings.headers {
        request.headers.append(name, value);
    }
    Some((contact, request))
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

/// The servers that a redirection names are tried next; false when it names none that can be.
fn redirect(session: &mut RecordingSession, response: &Response) -> bool {
    let contacts = response.headers.contacts().unwrap_or_default();
    let mut found = Vec::new();
    for contact in contacts {
        let trunkline_sip::message::Contact::Address(address) = contact else {
            continue;
        };
        let target = SipTarget::parse(address.uri.without_headers().as_str());
        found.extend(target.ok().as_ref().and_then(Server::of));
    }
    found.truncate(REDIRECTIONS_MAX.saturating_sub(session.redirections));
    session.redirections += found.len();
    let any = !found.is_empty();
    for server in found.into_iter().rev() {
        session.round.push_front(server);
    }
    any
}
