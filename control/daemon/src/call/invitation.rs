//! The INVITEs of a call that is not answered yet: the caller's, and ours to its targets.

use std::collections::VecDeque;
use std::net::SocketAddr;

use trunkline_sip::dialog::Dialog;
use trunkline_sip::message::{Headers, Request, Response, Uri};
use trunkline_sip::transaction::{ClientTx, ServerTx, Transport};

use super::Leg;
use crate::b2bua::Hop;

/// Where one of our INVITEs is to go.
#[derive(Debug, Clone)]
pub struct Destination {
    /// Its Request-URI.
    pub uri: Uri,
    /// Transport; once its address is known, that of the hop.
    pub transport: Transport,
    /// The name to look up, where the URI has no address.
    pub name: Option<HostName>,
    /// The address, once known.
    pub address: Option<SocketAddr>,
    /// Where it may be reached when this address fails, in order (RFC 3263 section 4.3).
    pub others: VecDeque<Hop>,
}

impl Destination {
    /// Its name leads here first, then there.
    pub fn take_hop(&mut self, first: Hop, others: &[Hop]) {
        (self.transport, self.address) = (first.transport, Some(first.address));
        self.others = others.iter().copied().collect();
    }

    /// Goes on to the next place; false when there is none.
    pub fn next_hop(&mut self) -> bool {
        let next = self.others.pop_front();
        if let Some(hop) = next {
            (self.transport, self.address) = (hop.transport, Some(hop.address));
        }
        next.is_some()
    }
}

/// A host name in a URI, with what else the URI says of the way to it.
#[derive(Debug, Clone)]
pub struct HostName {
    /// The name.
    pub host: String,
    /// The port, where the URI names one.
    pub port: Option<u16>,
    /// The transport, where the URI names one.
    pub transport: Option<Transport>,
}

/// One of our INVITEs for a call.
#[derive(Debug)]
pub struct Branch {
    /// Its transaction.
    pub client: ClientTx,
    /// The INVITE as sent, to build the dialog from.
    pub sent: Request,
    /// How its messages travel; the callee's leg if it wins.
    pub leg: Leg,
    /// Where it was sent to.
    pub destination: Destination,
    /// Its early dialogs, one a fork.
    pub early: Vec<Dialog>,
    /// A provisional response has come.
    pub proceeding: bool,
    /// We gave up on it: a 2xx is acknowledged and ended by BYE.
    pub cancelled: bool,
    /// It has its final response, or never will.
    pub over: bool,
}

impl Branch {
    /// Keeps of the INVITE what a dialog is made of: for other forks that still answer.
    pub fn rest(&mut self) {
        let names = ["From", "To", "Call-ID", "CSeq", "Contact", "Session-ID"];
        let mut headers = Headers::new();
        for name in names {
            headers.copy(&self.sent.headers, name);
        }
        (self.sent.headers, self.sent.body) = (headers, Vec::new());
    }

    /// Whether it may still answer the call.
    pub fn rings(&self) -> bool {
        !self.over && !self.cancelled
    }
}

/// Why the targets tried so far did not answer.
#[derive(Debug)]
pub struct Failure {
    /// Status, as the target or we see it.
    pub status: u16,
    /// The target's response; `None` = found out by ourselves.
    pub response: Option<Response>,
    /// For people.
    pub why: &'static str,
}

impl Failure {
    /// Rank in the choice of what the caller is told, lowest first: a person's 6xx, then the class,
    /// then what we found out ourselves (RFC 3261 section 16.7).
    pub fn rank(&self) -> u16 {
        match (&self.response, self.status) {
            (None, _) => 7,
            (_, 600..) => 0,
            (_, status) => status / 100,
        }
    }
}

/// The caller's INVITE while it has no final response, and what becomes of it.
#[derive(Debug)]
pub struct Invitation {
    /// The caller's transaction; `None` = it is we who call.
    pub server: Option<ServerTx>,
    /// The caller's INVITE.
    pub request: Request,
    /// Groups of targets not tried yet.
    pub groups: VecDeque<Vec<Destination>>,
    /// The group that is being looked up.
    pub group: Vec<Destination>,
    /// Whether all that failed in this group lets the next be tried.
    pub reroutes: bool,
    /// The best of the failures so far.
    pub failure: Option<Failure>,
    /// The transaction of ours whose 2xx answers the call.
    pub client: Option<ClientTx>,
    /// The caller made no offer: the far side's 2xx does.
    pub late_offer: bool,
    /// The far side's 2xx, until the caller's ACK has come (late offer only).
    pub accepted: Option<Response>,
    /// The transaction whose SDP was passed to the caller in a provisional response.
    pub early: Option<ClientTx>,
    /// The reliable provisional response that the caller has not acknowledged.
    pub awaited: Option<Awaited>,
    /// Those that wait for it.
    pub provisionals: VecDeque<Response>,
    /// The far side's 2xx and the SDP for the caller, which wait for it too.
    pub held: Option<(Response, Option<String>)>,
}

/// A reliable provisional response (RFC 3262) on its way to the caller.
#[derive(Debug)]
pub struct Awaited {
    /// Its number.
    pub rseq: u32,
    /// It carries a description.
    pub has_sdp: bool,
}

impl Invitation {
    /// Of an INVITE whose targets are known and not tried.
    pub fn new(
        server: Option<ServerTx>,
        request: Request,
        groups: VecDeque<Vec<Destination>>,
        late_offer: bool,
    ) -> Self {
        Self {
            server,
            request,
            groups,
            group: Vec::new(),
            reroutes: true,
            failure: None,
            client: None,
            late_offer,
            accepted: None,
            early: None,
            awaited: None,
            provisionals: VecDeque::new(),
            held: None,
        }
    }
}
