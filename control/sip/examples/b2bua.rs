//! A back-to-back user agent with a header policy: each call goes on to one next hop with its
//! own Call-ID, tags and Contact.
//!
//! `cargo run -p trunkline-sip --example b2bua -- 127.0.0.1:5060 127.0.0.1:5070`

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use trunkline_sip::dialog::{Dialog, DialogSet};
use trunkline_sip::message::{Headers, Method, NameAddr, Request, Response, Uri, canonical_name};
use trunkline_sip::transaction::{ClientTx, Event, SendError, ServerTx};

pub mod common;

use common::UdpEndpoint;

/// Headers that belong to a leg, never to a call.
const OF_THE_LEG: &[&str] = &[
    "Via",
    "From",
    "To",
    "Call-ID",
    "CSeq",
    "Contact",
    "Max-Forwards",
    "Route",
    "Record-Route",
    "Require",
    "Supported",
    "RSeq",
    "RAck",
    "Content-Length",
    "Session-Expires",
    "Min-SE",
];

/// Which headers cross from leg to leg: all but the leg's own and those named here.
struct HeaderPolicy {
    keep_back: Vec<String>,
}

impl HeaderPolicy {
    fn copy(&self, from: &Headers, to: &mut Headers) {
        for field in from {
            let name = canonical_name(field.name()).unwrap_or(field.name());
            let stays = OF_THE_LEG.contains(&name)
                || self
                    .keep_back
                    .iter()
                    .any(|kept| kept.eq_ignore_ascii_case(name));
            if !stays {
                to.append(name, field.value());
            }
        }
    }
}

/// Which call and which side a dialog is of: 0 the caller's, 1 the callee's.
type Leg = (u64, usize);

/// A call: both INVITEs until it is answered, then the peers of its two dialogs.
struct Call {
    invite: (ServerTx, Request),
    onward: (ClientTx, Request),
    cancelled: bool,
    peers: [Option<trunkline_sip::dialog::DialogId>; 2],
    remotes: [SocketAddr; 2],
}

struct B2bua<'a> {
    io: &'a mut UdpEndpoint,
    next: SocketAddr,
    policy: HeaderPolicy,
    calls: HashMap<u64, Call>,
    by_client: HashMap<ClientTx, u64>,
    by_server: HashMap<ServerTx, u64>,
    dialogs: DialogSet<Leg>,
    /// Requests passed on inside dialogs: the server transaction to answer.
    passed: HashMap<ClientTx, (ServerTx, Request)>,
    /// CSeq numbers of re-INVITEs passed on whose ACK is due, by the ACK's leg and number.
    acks: HashMap<(Leg, u32), u32>,
    last: u64,
    ended: usize,
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut address = |default: &str| -> io::Result<SocketAddr> {
        arguments
            .next()
            .unwrap_or_else(|| default.to_owned())
            .parse()
            .map_err(io::Error::other)
    };
    let (local, next) = (address("127.0.0.1:5060")?, address("127.0.0.1:5070")?);
    let mut io = UdpEndpoint::bind(local)?;
    println!("passing calls from {} to {next}", io.local());
    run(&mut io, next, &["X-Internal"], 0)
}

/// Passes calls on until so many have ended; 0 for ever.
pub fn run(
    io: &mut UdpEndpoint,
    next: SocketAddr,
    keep_back: &[&str],
    calls: usize,
) -> io::Result<()> {
    let keep_back = keep_back.iter().map(|name| (*name).to_owned()).collect();
    let mut b2bua = B2bua {
        io,
        next,
        policy: HeaderPolicy { keep_back },
        calls: HashMap::new(),
        by_client: HashMap::new(),
        by_server: HashMap::new(),
        dialogs: DialogSet::new(),
        passed: HashMap::new(),
        acks: HashMap::new(),
        last: 0,
        ended: 0,
    };
    while calls == 0 || b2bua.ended < calls {
        if let Some(event) = b2bua.io.next_event(None)? {
            b2bua.on_event(event).map_err(io::Error::other)?;
        }
    }
    b2bua.io.flush();
    Ok(())
}

impl B2bua<'_> {
    fn on_event(&mut self, event: Event) -> Result<(), SendError> {
        match event {
            Event::Request { tx, request, path } => {
                if request.headers.to_tag().is_some() {
                    self.on_dialog_request(tx, request)
                } else if request.method == Method::Invite {
                    self.on_invite(tx, request, path.source)
                } else {
                    let status = if request.method == Method::Options {
                        200
                    } else {
                        405
                    };
                    self.respond(tx, Response::to(&request, status))
                }
            }
            Event::Cancel { invite, cancel } => self.on_cancel(invite, &cancel),
            Event::Ack { request, .. } => self.on_ack(&request),
            Event::Response { tx, response, .. } => self.on_response(tx, response),
            Event::Timeout { tx } => self.on_failure(tx, 408),
            Event::TransportError { tx } => self.on_failure(tx, 503),
            _ => Ok(()),
        }
    }

    fn respond(&mut self, tx: ServerTx, response: Response) -> Result<(), SendError> {
        match self.io.layer.respond(Instant::now(), tx, response) {
            // The caller gave up in the meantime.
            Err(SendError::NoTransaction | SendError::AlreadyFinal) => Ok(()),
            other => other,
        }
    }

    fn contact(&self) -> Uri {
        let local = self.io.local();
        let contact = Uri::sip(None, &local.ip().to_string(), Some(local.port()));
        contact.expect("an address of a socket makes a URI")
    }

    fn on_invite(
        &mut self,
        tx: ServerTx,
        invite: Request,
        source: SocketAddr,
    ) -> Result<(), SendError> {
        let hops = invite.headers.max_forwards().ok().flatten().unwrap_or(70);
        if hops == 0 {
            return self.respond(tx, Response::to(&invite, 483));
        }
        let tag = self.io.layer.local_tag(tx).unwrap_or_default().to_owned();
        let Ok(dialog) = Dialog::uas(&invite, &tag, &self.contact()) else {
            return self.respond(tx, Response::to(&invite, 400));
        };
        self.last += 1;
        let call = self.last;
        let remote = reach(&dialog).unwrap_or(source);
        let caller = self.dialogs.insert(dialog, (call, 0));
        let onward = self.onward(&invite, hops - 1);
        let target = self.io.target(self.next);
        let client = self
            .io
            .layer
            .send_request(Instant::now(), onward.clone(), &target)?;
        self.by_client.insert(client, call);
        self.by_server.insert(tx, call);
        let (invite, onward) = ((tx, invite), (client, onward));
        let peers = [Some(caller), None];
        let remotes = [remote, self.next];
        self.calls.insert(
            call,
            Call {
                invite,
                onward,
                cancelled: false,
                peers,
                remotes,
            },
        );
        Ok(())
    }

    /// The INVITE of the other leg: the caller's user and name, our host, fresh identity.
    fn onward(&mut self, invite: &Request, hops: u32) -> Request {
        let host = self.io.local().ip().to_string();
        let uri = invite
            .uri
            .with_host(&self.next.ip().to_string(), Some(self.next.port()));
        let from = invite.headers.from_address().ok();
        let user = from
            .as_ref()
            .and_then(|from| from.uri.user_decoded())
            .map(|user| user.into_owned());
        let address = Uri::sip(user.as_deref(), &host, None).unwrap_or_else(|_| self.contact());
        let mut ours = NameAddr::new(address);
        ours.display = from.and_then(|from| from.display);
        let ours = ours.with_tag(Some(&self.io.layer.new_tag()));
        let mut onward = Request::new(Method::Invite, uri.clone())
            .with("Max-Forwards", hops.to_string())
            .with("From", ours.to_string())
            .with("To", NameAddr::new(uri).to_string())
            .with("Call-ID", self.io.layer.new_call_id(&host))
            .with("CSeq", "1 INVITE")
            .with("Contact", format!("<{}>", self.contact()));
        self.policy.copy(&invite.headers, &mut onward.headers);
        onward.body.clone_from(&invite.body);
        onward
    }

    fn on_cancel(&mut self, invite: ServerTx, cancel: &Request) -> Result<(), SendError> {
        let call = self
            .by_server
            .get(&invite)
            .and_then(|call| self.calls.get_mut(call));
        let Some(call) = call else { return Ok(()) };
        call.cancelled = true;
        let reason = cancel
            .headers
            .get("Reason")
            .unwrap_or_default()
            .into_owned();
        let headers: &[(&str, &str)] = if reason.is_empty() {
            &[]
        } else {
            &[("Reason", &reason)]
        };
        let client = call.onward.0;
        let refused = Response::to(&call.invite.1, 487);
        let _ = self.io.layer.cancel(Instant::now(), client, headers);
        self.respond(invite, refused)
    }

    fn on_response(&mut self, tx: ClientTx, response: Response) -> Result<(), SendError> {
        let Some(number) = self.by_client.get(&tx).copied() else {
            return self.on_passed_response(tx, response);
        };
        let Some(call) = self.calls.get_mut(&number) else {
            return Ok(());
        };
        if response.is_success() {
            return self.on_answer(number, tx, &response);
        }
        let (server, invite) = (call.invite.0, call.invite.1.clone());
        if response.status == 100 || call.cancelled && !response.is_final() {
            return Ok(());
        }
        let mut back = match call.peers[0].as_ref().and_then(|id| self.dialogs.get(id)) {
            Some((dialog, _)) => dialog.response(&invite, response.status),
            None => Response::to(&invite, response.status),
        };
        self.policy.copy(&response.headers, &mut back.headers);
        back.body.clone_from(&response.body);
        if response.is_final() {
            self.forget(number);
        }
        self.respond(server, back)
    }

    fn on_answer(
        &mut self,
        number: u64,
        tx: ClientTx,
        response: &Response,
    ) -> Result<(), SendError> {
        let Some(call) = self.calls.get_mut(&number) else {
            return Ok(());
        };
        let Ok(mut dialog) = Dialog::uac(&call.onward.1, response) else {
            return self.on_failure(tx, 502);
        };
        let (server, invite) = (call.invite.0, call.invite.1.clone());
        let remote = reach(&dialog).unwrap_or(call.remotes[1]);
        if call.cancelled || call.peers[1].is_some() {
            // The race is lost, or another fork has won: acknowledge, then hang up.
            let ack = dialog.ack(1);
            let target = self.io.target(remote);
            self.io.layer.send_ack(Instant::now(), tx, ack, &target)?;
            if let Ok(bye) = dialog.request(Method::Bye) {
                self.io.layer.send_request(Instant::now(), bye, &target)?;
            }
            if call.cancelled {
                self.forget(number);
            }
            return Ok(());
        }
        call.remotes[1] = remote;
        call.peers[1] = Some(dialog.id());
        // The ACK waits for the caller's, which may carry the answer to a late offer.
        self.acks.insert(
            (
                (number, 0),
                invite.headers.cseq().map_or(1, |cseq| cseq.number),
            ),
            1,
        );
        self.dialogs.insert(dialog, (number, 1));
        let caller = call.peers[0].clone();
        let Some((dialog, _)) = caller.as_ref().and_then(|id| self.dialogs.get_mut(id)) else {
            return Ok(());
        };
        let mut ok = dialog.response(&invite, response.status);
        dialog.sent_response(&invite, response.status);
        self.policy.copy(&response.headers, &mut ok.headers);
        ok.body.clone_from(&response.body);
        self.respond(server, ok)
    }

    fn on_ack(&mut self, ack: &Request) -> Result<(), SendError> {
        let Some((_, leg)) = self.dialogs.of_request(ack) else {
            return Ok(());
        };
        let (number, side) = *leg;
        let cseq = ack.headers.cseq().map_or(0, |cseq| cseq.number);
        let due = self.acks.remove(&((number, side), cseq));
        let (Some(due), Some(call)) = (due, self.calls.get(&number)) else {
            return Ok(());
        };
        let peer = call.peers[1 - side]
            .as_ref()
            .and_then(|id| self.dialogs.get(id));
        let Some((dialog, _)) = peer else {
            return Ok(());
        };
        let mut onward = dialog.ack(due);
        self.policy.copy(&ack.headers, &mut onward.headers);
        onward.body.clone_from(&ack.body);
        let target = self.io.target(call.remotes[1 - side]);
        self.io
            .layer
            .send_ack(Instant::now(), call.onward.0, onward, &target)
    }

    fn on_dialog_request(&mut self, tx: ServerTx, request: Request) -> Result<(), SendError> {
        let Some((dialog, leg)) = self.dialogs.of_request(&request) else {
            return self.respond(tx, Response::to(&request, 481));
        };
        let (number, side) = *leg;
        if let Err(refusal) = dialog.receive(&request) {
            let response = dialog.response(&request, refusal.status);
            return self.respond(tx, response);
        }
        let Some(call) = self.calls.get(&number) else {
            return Ok(());
        };
        let remote = call.remotes[1 - side];
        let peer = call.peers[1 - side].clone();
        let peer = peer.as_ref().and_then(|id| self.dialogs.get_mut(id));
        let Some(Ok(mut onward)) = peer.map(|(dialog, _)| dialog.request(request.method.clone()))
        else {
            return self.respond(tx, Response::to(&request, 491));
        };
        self.policy.copy(&request.headers, &mut onward.headers);
        onward.body.clone_from(&request.body);
        let target = self.io.target(remote);
        let client = self
            .io
            .layer
            .send_request(Instant::now(), onward, &target)?;
        self.passed.insert(client, (tx, request));
        Ok(())
    }

    fn on_passed_response(&mut self, tx: ClientTx, response: Response) -> Result<(), SendError> {
        let Some((dialog, leg)) = self.dialogs.of_response(&response) else {
            return Ok(());
        };
        dialog.handle_response(&response);
        let (number, side) = *leg;
        let cseq = response.headers.cseq().map_or(0, |cseq| cseq.number);
        if !response.is_final() {
            return Ok(());
        }
        let Some((server, request)) = self.passed.remove(&tx) else {
            return Ok(());
        };
        if request.method == Method::Invite && response.is_success() {
            let asked = request.headers.cseq().map_or(0, |cseq| cseq.number);
            self.acks.insert(((number, 1 - side), asked), cseq);
        }
        self.pass_back(server, &request, &response)?;
        if request.method == Method::Bye {
            self.forget(number);
        }
        Ok(())
    }

    fn pass_back(
        &mut self,
        tx: ServerTx,
        request: &Request,
        response: &Response,
    ) -> Result<(), SendError> {
        let Some((dialog, _)) = self.dialogs.of_request(request) else {
            return Ok(());
        };
        let mut back = dialog.response(request, response.status);
        dialog.sent_response(request, response.status);
        self.policy.copy(&response.headers, &mut back.headers);
        back.body.clone_from(&response.body);
        self.respond(tx, back)
    }

    fn on_failure(&mut self, tx: ClientTx, status: u16) -> Result<(), SendError> {
        if let Some((server, request)) = self.passed.remove(&tx) {
            let failure = Response::to(&request, status);
            return self.pass_back(server, &request, &failure);
        }
        let Some(number) = self.by_client.get(&tx).copied() else {
            return Ok(());
        };
        let Some(call) = self.calls.get(&number) else {
            return Ok(());
        };
        let (server, refused) = (call.invite.0, Response::to(&call.invite.1, status));
        self.forget(number);
        self.respond(server, refused)
    }

    fn forget(&mut self, number: u64) {
        let Some(call) = self.calls.remove(&number) else {
            return;
        };
        self.by_client.remove(&call.onward.0);
        self.by_server.remove(&call.invite.0);
        self.acks.retain(|((call, _), _), _| *call != number);
        for id in call.peers.iter().flatten() {
            self.dialogs.remove(id);
        }
        self.ended += 1;
    }
}

/// Where a dialog's requests go, when its next hop is an address.
fn reach(dialog: &Dialog) -> Option<SocketAddr> {
    let hop = dialog.next_hop();
    Some(SocketAddr::new(hop.host_ip()?, hop.port().unwrap_or(5060)))
}
