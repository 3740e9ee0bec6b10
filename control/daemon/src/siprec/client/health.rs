//! Servers that failed are left alone for a while; those that could not be reached are asked by OPTIONS
//! meanwhile whether they are back.

use std::time::{Duration, Instant};

use trunkline_sip::message::{Method, NameAddr, Request, Uri, bracketed};
use trunkline_sip::transaction::{ClientTx, Target};

use super::setup::ACCEPT;
use super::state::{Phase, RecordingSession, Server};
use super::{Client, Context};
use crate::b2bua::headers;

/// How often a server that could not be reached is asked.
const PROBE: Duration = Duration::from_secs(5);

/// A server that is left alone.
#[derive(Debug)]
pub(super) struct Resting {
    /// Until then.
    pub until: Instant,
    server: Server,
    /// When it is asked next; `None` = it answered, and is not to be asked.
    probe_at: Option<Instant>,
    probe: Option<ClientTx>,
}

impl Resting {
    pub fn new(server: Server, until: Instant, unreached: bool, now: Instant) -> Self {
        Self {
            until,
            server,
            probe_at: unreached.then_some(now + PROBE),
            probe: None,
        }
    }

    fn due(&self) -> Option<Instant> {
        self.probe_at
            .filter(|at| self.probe.is_none() && *at < self.until)
    }
}

impl Client {
    /// When a server is to be asked.
    pub(super) fn next_probe(&self) -> Option<Instant> {
        self.resting.values().filter_map(Resting::due).min()
    }

    /// Asks the servers for which it is time.
    pub(super) fn probe(&mut self, cx: &mut Context<'_>) {
        let now = cx.now.instant;
        for resting in self.resting.values_mut() {
            if resting.due().is_some_and(|due| due <= now) {
                resting.probe_at = Some(now + PROBE);
                resting.probe = send_options(&resting.server, cx);
            }
        }
    }

    /// Whether a transaction is such a question.
    pub(super) fn is_probe(&self, tx: ClientTx) -> bool {
        self.resting.values().any(|one| one.probe == Some(tx))
    }

    /// A question was answered (any answer but 503 is one of a server that is there), or was not.
    pub(super) fn on_probed(&mut self, tx: ClientTx, status: u16, cx: &mut Context<'_>) {
        let found = self
            .resting
            .iter_mut()
            .find(|(_, one)| one.probe == Some(tx));
        let Some((place, resting)) = found else {
            return;
        };
        resting.probe = None;
        resting.probe_at = Some(cx.now.instant + PROBE);
        if matches!(status, 408 | 503) {
            return;
        }
        let place = place.clone();
        self.resting.remove(&place);
        let waits = |session: &&RecordingSession| {
            let mut servers = session.recorder.servers.iter().filter_map(Server::of);
            session.phase == Phase::Lost && servers.any(|server| server.place() == place)
        };
        let waiting: Vec<u64> = self
            .sessions
            .values()
            .filter(waits)
            .map(|one| one.key)
            .collect();
        for key in waiting {
            self.with(key, cx, |client, session, cx| {
                client.next_round(session, cx)
            });
        }
    }
}

fn send_options(server: &Server, cx: &mut Context<'_>) -> Option<ClientTx> {
    let remote = server.address?;
    let (flow, local) = (cx.local_to)(server.transport, remote)?;
    let host = local.ip().to_string();
    let host = bracketed(&host);
    let ours = Uri::sip(None, &host, Some(local.port())).ok()?;
    let tag = cx.endpoint.new_tag();
    let call_id = cx.endpoint.new_call_id(&host);
    let from = NameAddr::new(ours.clone()).with_tag(Some(&tag));
    let uri = server.shown();
    let to = NameAddr::new(uri.without_headers());
    let mut request = Request::new(Method::Options, uri)
        .with("Max-Forwards", "70")
        .with("From", from.to_string())
        .with("To", to.to_string())
        .with("Call-ID", &call_id)
        .with("CSeq", "1 OPTIONS")
        .with("Contact", format!("<{ours}>;+sip.src"))
        .with("Accept", ACCEPT)
        .with("User-Agent", headers::SERVER);
    request.set_content_length();
    let target = Target::new(server.transport, flow, local, remote);
    cx.endpoint
        .send_request(cx.now.instant, request, &target)
        .ok()
}
