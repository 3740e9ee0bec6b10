//! Which server a recording session is asked of: in order, without those that have just failed.

use std::net::SocketAddr;
use std::time::Duration;

use trunkline_config::{Host, SipTarget};
use trunkline_sip::message::{Response, Uri};
use trunkline_sip::transaction::Transport;

use super::health::Resting;
use super::replay::ROUNDS_MAX;
use super::state::{HostName, Phase, RecordingSession, Server};
use super::{Client, Context};
use crate::api::events::EventKind;
use crate::b2bua::Hop;

/// A server that failed is left alone for so long, unless it says otherwise.
pub(super) const REST: Duration = Duration::from_secs(30);
/// The longest that a server may ask to be left alone.
const REST_MAX: Duration = Duration::from_secs(3600);
/// Servers that redirections may add to a round.
const REDIRECTIONS_MAX: usize = 8;

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

impl Client {
    /// All servers are to be tried, in order.
    pub(super) fn next_round(&mut self, session: &mut RecordingSession, cx: &mut Context<'_>) {
        if let Some(carrier) = session.carrier {
            let carrier = self.sessions.get(&carrier);
            let down = carrier.filter(|one| one.phase == Phase::Lost);
            if let Some(why) = down.map(|one| one.why.clone().unwrap_or_default()) {
                return self.rider_failed(session, &why, cx);
            }
            session.phase = Phase::Inviting;
            return self.tell(session, cx);
        }
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
    pub(super) fn rest(
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
        session.rounds += 1;
        if session.replay.is_some() && session.rounds >= ROUNDS_MAX {
            session.why = Some(why.to_owned());
            session.phase = Phase::Over;
            return;
        }
        session.phase = Phase::Lost;
        session.why = Some(why.to_owned());
        session.lost_since.get_or_insert(cx.now.instant);
        self.begin_gap(session, session.started_at, why);
        self.riders_failed(session, why, cx);
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

    /// The recorder does not want this call.
    pub(super) fn declined(
        &mut self,
        session: &mut RecordingSession,
        status: u16,
        cx: &mut Context<'_>,
    ) {
        let why = format!("{} declined with {status}", session.server_name());
        session.why = Some(why.clone());
        session.phase = Phase::Over;
        let error = crate::api::handle::ActionError::Unavailable(why);
        self.answer_waiting(session, &Err(error), cx);
    }
}

/// The servers that a redirection names are tried next; false when it names none that can be.
pub(super) fn redirect(session: &mut RecordingSession, response: &Response) -> bool {
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
