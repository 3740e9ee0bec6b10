//! How a recording session begins: the INVITE to its server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use trunkline_config::Recorder;
use trunkline_link::message::ForkState;
use trunkline_sdp::{OriginState, RecordState};
use trunkline_sip::dialog::SessionPolicy;
use trunkline_sip::message::{Method, NameAddr, Request, Uri, bracketed};
use trunkline_sip::transaction::{Target, Transport};
use trunkline_siprec::metadata::write;
use trunkline_siprec::multipart;

use super::sdp;
use super::state::{Attempt, Departure, Phase, RecordingSession, Server};
use super::story::Story;
use super::view::CallView;
use super::{Client, Context, Use};
use crate::b2bua::headers;
use crate::b2bua::session;
use crate::call::Leg;
use crate::call::media::Media;

/// Methods that we take in a recording session.
pub(super) const ALLOW: &str = "INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE, INFO, MESSAGE";
/// Bodies that we take in one.
pub(super) const ACCEPT: &str = "application/sdp, application/rs-metadata+xml, multipart/mixed";

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
            by_recorder: false,
            invited: None,
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
            slots: None,
            riders: Vec::new(),
            carrier: None,
            host: None,
            seated: 0,
            peer: None,
            telling: None,
            departs: Departure::No,
            asks_carrier: false,
            server_gone: None,
            undelivered: None,
            gone_since: None,
            gone: Vec::new(),
            replay: None,
            replayed: false,
            rounds: 0,
            last_view: Arc::clone(view),
            why: None,
            lost_since: None,
            recorded: RecordState::Off,
            clients: Vec::new(),
            servers: Vec::new(),
        }
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
    pub(super) fn invite(
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
        let offered = self.offered_by(session, reduced);
        self.begin_anew(session, cx);
        let document = self.document_of(session, true).unwrap_or_default();
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
}

/// A URI of nobody in particular at an address.
pub(super) fn address_uri(transport: Transport, address: SocketAddr) -> Option<Uri> {
    let host = address.ip().to_string();
    let uri = Uri::sip(None, &bracketed(&host), Some(address.port())).ok()?;
    Some(match transport {
        Transport::Udp => uri,
        other => uri.with_param("transport", Some(other.param_name())),
    })
}

/// The INVITE without its body, and our Contact in it.
fn invitation(
    session: &RecordingSession,
    server: &Server,
    local: SocketAddr,
    cx: &mut Context<'_>,
) -> Option<(Uri, Request)> {
    let contact = address_uri(server.transport, local)?;
    let ours = contact.with_param("transport", None);
    let settings = session.settings();
    let given = |text: &Option<String>| text.as_ref().and_then(|text| text.parse::<Uri>().ok());
    let tag = cx.endpoint.new_tag();
    let from = given(&settings.from_uri).unwrap_or(ours);
    let from = NameAddr::new(from).with_tag(Some(&tag));
    let request_uri = server.shown();
    let to = given(&settings.to_uri).unwrap_or_else(|| request_uri.without_headers());
    let host = local.ip().to_string();
    let call_id = cx.endpoint.new_call_id(&bracketed(&host));
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
