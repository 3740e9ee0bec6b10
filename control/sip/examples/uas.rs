//! A user agent that answers calls and hangs up: rings, answers, and after a while sends BYE.
//!
//! `cargo run -p trunkline-sip --example uas -- 127.0.0.1:5070`

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use trunkline_sip::dialog::{Dialog, DialogId, DialogSet};
use trunkline_sip::message::{Method, Request, Response, Uri};
use trunkline_sip::transaction::{ClientTx, Event, SendError, ServerTx};

pub mod common;

use common::UdpEndpoint;

const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE";

/// How calls are treated.
pub struct Options {
    /// How long to ring.
    pub ring: Duration,
    /// How long to talk before hanging up.
    pub talk: Duration,
    /// Stop after so many calls; 0 for never.
    pub calls: usize,
}

/// What we keep beside each dialog.
#[derive(Default)]
struct Call {
    /// The INVITE to be answered, and when.
    ringing: Option<(ServerTx, Request, Instant)>,
    hangup_at: Option<Instant>,
    bye: Option<ClientTx>,
}

struct Agent<'a> {
    io: &'a mut UdpEndpoint,
    options: &'a Options,
    dialogs: DialogSet<Call>,
    ended: usize,
}

fn main() -> io::Result<()> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:5070".to_owned());
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let mut io = UdpEndpoint::bind(address)?;
    println!("answering on {}", io.local());
    let (ring, talk) = (Duration::from_secs(1), Duration::from_secs(10));
    run(
        &mut io,
        &Options {
            ring,
            talk,
            calls: 0,
        },
    )
    .map(|_| ())
}

/// Answers calls; gives their number when it stops.
pub fn run(io: &mut UdpEndpoint, options: &Options) -> io::Result<usize> {
    let mut agent = Agent {
        io,
        options,
        dialogs: DialogSet::new(),
        ended: 0,
    };
    while options.calls == 0 || agent.ended < options.calls {
        let deadline = agent.next_deadline();
        match agent.io.next_event(deadline)? {
            Some(event) => agent.on_event(event).map_err(io::Error::other)?,
            None => agent
                .on_deadline(Instant::now())
                .map_err(io::Error::other)?,
        }
    }
    agent.io.flush();
    Ok(agent.ended)
}

impl Agent<'_> {
    fn next_deadline(&self) -> Option<Instant> {
        let ringing = |call: &Call| call.ringing.as_ref().map(|(_, _, at)| *at);
        let due = |call: &Call| [ringing(call), call.hangup_at].into_iter().flatten().min();
        self.dialogs.iter().filter_map(|(_, call)| due(call)).min()
    }

    fn on_event(&mut self, event: Event) -> Result<(), SendError> {
        match event {
            Event::Request { tx, request, .. } => self.on_request(tx, &request),
            Event::Cancel { invite, .. } => self.on_cancel(invite),
            Event::Ack { request, .. } => {
                let hangup_at = Instant::now() + self.options.talk;
                if let Some((_, call)) = self.dialogs.of_request(&request)
                    && call.bye.is_none()
                {
                    call.hangup_at.get_or_insert(hangup_at);
                }
                Ok(())
            }
            // The caller never acknowledged: the call is ended all the same.
            Event::NoAck { status: 200, .. } => {
                self.on_deadline(Instant::now() + self.options.talk)
            }
            Event::Response { tx, response, .. } if response.is_final() => {
                self.forget_by_bye(tx);
                Ok(())
            }
            Event::Timeout { tx } | Event::TransportError { tx } => {
                self.forget_by_bye(tx);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn on_request(&mut self, tx: ServerTx, request: &Request) -> Result<(), SendError> {
        let now = Instant::now();
        if request.headers.to_tag().is_some() {
            return self.on_dialog_request(tx, request);
        }
        let layer = &mut self.io.layer;
        match request.method {
            Method::Invite => self.on_invite(tx, request),
            Method::Options => {
                layer.respond(now, tx, Response::to(request, 200).with("Allow", ALLOW))
            }
            _ => layer.respond(now, tx, Response::to(request, 405).with("Allow", ALLOW)),
        }
    }

    fn on_invite(&mut self, tx: ServerTx, invite: &Request) -> Result<(), SendError> {
        let now = Instant::now();
        let local = self.io.local();
        let layer = &mut self.io.layer;
        let tag = layer.local_tag(tx).unwrap_or_default().to_owned();
        let contact = Uri::sip(Some("uas"), &local.ip().to_string(), Some(local.port()));
        let made = contact
            .ok()
            .and_then(|contact| Dialog::uas(invite, &tag, &contact).ok());
        let Some(dialog) = made else {
            return layer.respond(now, tx, Response::to(invite, 400));
        };
        layer.respond(now, tx, dialog.response(invite, 180))?;
        let ringing = Some((tx, invite.clone(), now + self.options.ring));
        self.dialogs.insert(
            dialog,
            Call {
                ringing,
                ..Call::default()
            },
        );
        Ok(())
    }

    fn on_dialog_request(&mut self, tx: ServerTx, request: &Request) -> Result<(), SendError> {
        let now = Instant::now();
        let layer = &mut self.io.layer;
        let Some((dialog, _)) = self.dialogs.of_request(request) else {
            return layer.respond(now, tx, Response::to(request, 481));
        };
        if let Err(refusal) = dialog.receive(request) {
            let mut response = dialog.response(request, refusal.status);
            if let Some(seconds) = refusal.retry_after_s {
                response.headers.append("Retry-After", seconds.to_string());
            }
            return layer.respond(now, tx, response);
        }
        let status = match request.method {
            Method::Invite | Method::Bye | Method::Options | Method::Info | Method::Update => 200,
            _ => 405,
        };
        let mut response = dialog.response(request, status);
        if status == 405 {
            response.headers.append("Allow", ALLOW);
        } else if request.method == Method::Invite || !request.body.is_empty() {
            response.set_body(
                "application/sdp",
                answer_sdp(&request.body, self.io.local()),
            );
        }
        let layer = &mut self.io.layer;
        layer.respond(now, tx, response)?;
        dialog.sent_response(request, status);
        if request.method == Method::Bye {
            let id = dialog.id();
            self.dialogs.remove(&id);
            self.ended += 1;
        }
        Ok(())
    }

    fn on_cancel(&mut self, invite: ServerTx) -> Result<(), SendError> {
        let rings = |call: &Call| call.ringing.as_ref().is_some_and(|(tx, ..)| *tx == invite);
        let found = self
            .dialogs
            .iter()
            .find(|(_, call)| rings(call))
            .map(|(dialog, _)| dialog.id());
        let ended = found.and_then(|id| self.dialogs.remove(&id));
        let Some((tx, request, _)) = ended.and_then(|ended| ended.context.ringing) else {
            return Ok(());
        };
        self.ended += 1;
        self.io
            .layer
            .respond(Instant::now(), tx, Response::to(&request, 487))
    }

    /// Answers what has rung and hangs up what has talked long enough.
    fn on_deadline(&mut self, now: Instant) -> Result<(), SendError> {
        let due: Vec<DialogId> = self.dialogs.iter().map(|(dialog, _)| dialog.id()).collect();
        for id in due {
            let local = self.io.local();
            let Some((dialog, call)) = self.dialogs.get_mut(&id) else {
                continue;
            };
            if call.ringing.as_ref().is_some_and(|(_, _, at)| *at <= now)
                && let Some((tx, invite, _)) = call.ringing.take()
            {
                let mut ok = dialog.response(&invite, 200).with("Allow", ALLOW);
                ok.set_body("application/sdp", answer_sdp(&invite.body, local));
                self.io.layer.respond(Instant::now(), tx, ok)?;
                dialog.sent_response(&invite, 200);
            }
            if call.hangup_at.is_some_and(|at| at <= now) {
                call.hangup_at = None;
                if let Ok(bye) = dialog.request(Method::Bye) {
                    let hop = dialog.next_hop();
                    let Some(ip) = hop.host_ip() else { continue };
                    let remote = SocketAddr::new(ip, hop.port().unwrap_or(5060));
                    let target = self.io.target(remote);
                    call.bye = Some(self.io.layer.send_request(Instant::now(), bye, &target)?);
                }
            }
        }
        Ok(())
    }

    fn forget_by_bye(&mut self, tx: ClientTx) {
        let found = self.dialogs.iter().find(|(_, call)| call.bye == Some(tx));
        if let Some(id) = found.map(|(dialog, _)| dialog.id()) {
            self.dialogs.remove(&id);
            self.ended += 1;
        }
    }
}

/// An answer that takes the first audio line, silent on our side, and refuses the others; an
/// offer of one audio line when there is nothing to answer.
fn answer_sdp(offer: &[u8], local: SocketAddr) -> String {
    let family = if local.is_ipv4() { "IP4" } else { "IP6" };
    let ip = local.ip();
    let mut sdp =
        format!("v=0\r\no=- 1 1 IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\n");
    let offer = String::from_utf8_lossy(offer);
    let mut taken = false;
    for line in offer.lines().filter(|line| line.starts_with("m=")) {
        let mut words = line.split(' ');
        let (kind, _port) = (words.next().unwrap_or("m=audio"), words.next());
        let rest: Vec<&str> = words.collect();
        if kind == "m=audio" && !taken {
            taken = true;
            sdp.push_str(&format!("{kind} 9 {}\r\na=inactive\r\n", rest.join(" ")));
        } else {
            sdp.push_str(&format!("{kind} 0 {}\r\n", rest.join(" ")));
        }
    }
    if !offer.contains("m=") {
        sdp.push_str("m=audio 9 RTP/AVP 0\r\na=inactive\r\n");
    }
    sdp
}
