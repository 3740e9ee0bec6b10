//! A back-to-back user agent with a header policy: each call goes on to one next hop with its
//! own Call-ID, tags and Contact. Everything that happens in one leg is done in the other.
//!
//! `cargo run -p trunkline-sip --example b2bua -- 127.0.0.1:5060 127.0.0.1:5070`

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use trunkline_sip::agent::{
    AgentError, AgentEvent, AttemptHandle, Body, DialogHandle, EventKind, HeaderPolicy, Invite,
    RequestHandle, SentHandle,
};
use trunkline_sip::message::{Headers, Method, NameAddr, Request, Uri};

pub mod common;

use common::UdpAgent;

/// One call: the context of both its dialogs is its number.
struct Call {
    caller: DialogHandle,
    onward: AttemptHandle,
    callee: Option<DialogHandle>,
}

impl Call {
    fn other(&self, dialog: DialogHandle) -> Option<DialogHandle> {
        if dialog == self.caller {
            self.callee
        } else {
            Some(self.caller)
        }
    }
}

struct B2bua<'a> {
    io: &'a mut UdpAgent<u64>,
    next: SocketAddr,
    policy: HeaderPolicy,
    calls: HashMap<u64, Call>,
    /// Offers passed on to a dialog: what to answer with its answer.
    offers: HashMap<DialogHandle, RequestHandle>,
    requests: HashMap<SentHandle, RequestHandle>,
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
    let mut io = UdpAgent::bind(local, "b2bua")?;
    println!("passing calls from {} to {next}", io.local());
    run(&mut io, next, &["X-Internal"], 0)
}

/// Passes calls on until so many have ended; 0 for ever.
pub fn run(
    io: &mut UdpAgent<u64>,
    next: SocketAddr,
    keep_back: &[&str],
    calls: usize,
) -> io::Result<()> {
    let mut b2bua = B2bua {
        io,
        next,
        policy: HeaderPolicy {
            only: None,
            keep_back: keep_back.iter().map(|name| (*name).to_owned()).collect(),
        },
        calls: HashMap::new(),
        offers: HashMap::new(),
        requests: HashMap::new(),
        last: 0,
        ended: 0,
    };
    while calls == 0 || b2bua.ended < calls {
        let Some(event) = b2bua.io.next_event(Duration::from_secs(1))? else {
            continue;
        };
        match b2bua.on_event(event) {
            // One side was faster than the other: its end comes as an event.
            Ok(()) | Err(AgentError::Ended | AgentError::Unknown) => {}
            Err(error) => return Err(io::Error::other(error)),
        }
    }
    // The last answers may have to be repeated.
    while b2bua.io.agent.alive() != [0; 4] {
        if b2bua.io.next_event(Duration::from_secs(1))?.is_none() {
            break;
        }
    }
    Ok(())
}

impl B2bua<'_> {
    fn on_event(&mut self, event: AgentEvent<u64>) -> Result<(), AgentError> {
        let (now, number) = (Instant::now(), event.context);
        let none = Headers::new();
        if let (EventKind::Incoming { request, .. }, Some(caller)) = (&event.kind, event.dialog) {
            return self.on_call(now, caller, request);
        }
        let Some(call) = self.calls.get_mut(&number) else {
            return Ok(());
        };
        let caller = call.caller;
        let other = event.dialog.and_then(|dialog| call.other(dialog));
        let agent = &mut self.io.agent;
        match event.kind {
            EventKind::Progress { response, .. } => {
                let headers = self.policy.crossing(&response.headers);
                let body = Body::of(&response.headers, &response.body);
                agent.ring(now, caller, response.status, false, &headers, body)
            }
            EventKind::Answered { response, .. } => {
                call.callee = event.dialog;
                let headers = self.policy.crossing(&response.headers);
                let body = Body::of(&response.headers, &response.body);
                agent.accept(now, caller, &headers, body)
            }
            EventKind::Acknowledged { body } | EventKind::ProvisionalAcknowledged { body } => {
                match other.map(|other| agent.acknowledge(now, other, body)) {
                    // The other side's was acknowledged at once.
                    None | Some(Err(AgentError::State(_))) => Ok(()),
                    Some(result) => result,
                }
            }
            EventKind::Failed { status, .. } => {
                let status = if status == 503 { 500 } else { status };
                agent.reject(now, caller, status, &none)
            }
            EventKind::Ended(_) => self.on_end(now, number, event.dialog, other),
            kind => match (event.dialog, other) {
                (Some(dialog), Some(other)) => self.on_talk(now, dialog, other, kind),
                _ => Ok(()),
            },
        }
    }

    fn on_call(
        &mut self,
        now: Instant,
        caller: DialogHandle,
        request: &Request,
    ) -> Result<(), AgentError> {
        let none = Headers::new();
        let hops = request.headers.max_forwards().ok().flatten().unwrap_or(70);
        if hops == 0 {
            return self.io.agent.reject(now, caller, 483, &none);
        }
        let Some(mut invite) = self.onward(request) else {
            return self.io.agent.reject(now, caller, 400, &none);
        };
        invite.headers = self.policy.crossing(&request.headers);
        invite
            .headers
            .append("Max-Forwards", (hops - 1).to_string());
        self.last += 1;
        let number = self.last;
        *self.io.agent.context_mut(caller)? = number;
        let onward = self.io.agent.call(now, invite, number)?;
        let call = Call {
            caller,
            onward,
            callee: None,
        };
        self.calls.insert(number, call);
        Ok(())
    }

    /// The INVITE of the other leg: the caller's user and name, our host, fresh identity.
    fn onward(&self, request: &Request) -> Option<Invite> {
        let uri = request
            .uri
            .with_host(&self.next.ip().to_string(), Some(self.next.port()));
        let caller = request.headers.from_address().ok()?;
        let user = caller.uri.user_decoded();
        let host = self.io.local().ip().to_string();
        let mut from = NameAddr::new(Uri::sip(user.as_deref(), &host, None).ok()?);
        from.display.clone_from(&caller.display);
        Some(Invite {
            body: Body::of(&request.headers, &request.body),
            // The ACK waits for the caller's, which may carry the answer to a late offer.
            acknowledge_later: true,
            // A reliable provisional of the callee would be acknowledged before the caller
            // could answer it.
            reliable: false,
            ..Invite::new(uri, from, self.io.target(self.next))
        })
    }

    fn on_end(
        &mut self,
        now: Instant,
        number: u64,
        dialog: Option<DialogHandle>,
        other: Option<DialogHandle>,
    ) -> Result<(), AgentError> {
        let agent = &mut self.io.agent;
        let Some(call) = self.calls.get(&number) else {
            return Ok(());
        };
        let is_leg = dialog == Some(call.caller) || dialog == call.callee;
        if !is_leg {
            // A fork that lost.
            return Ok(());
        }
        let onward = call.onward;
        self.calls.remove(&number);
        self.ended += 1;
        let none = Headers::new();
        match other {
            Some(other) => agent.hangup(now, other, &none),
            None => agent.cancel(now, onward, &none),
        }
    }

    /// What happens in an answered call is done on the other side.
    fn on_talk(
        &mut self,
        now: Instant,
        dialog: DialogHandle,
        other: DialogHandle,
        kind: EventKind,
    ) -> Result<(), AgentError> {
        let none = Headers::new();
        let agent = &mut self.io.agent;
        match kind {
            EventKind::Offer {
                request_handle,
                request,
                ..
            } => {
                self.offers.insert(other, request_handle);
                let headers = self.policy.crossing(&request.headers);
                let body = Body::of(&request.headers, &request.body);
                let passed = if request.method == Method::Update {
                    agent.update(now, other, &headers, body)
                } else {
                    agent.modify(now, other, &headers, body)
                };
                passed.or_else(|_| agent.answer(now, request_handle, 488, &none, None))
            }
            EventKind::Modified { response, .. } => match self.offers.remove(&dialog) {
                Some(offer) => {
                    let headers = self.policy.crossing(&response.headers);
                    let body = Body::of(&response.headers, &response.body);
                    agent.answer(now, offer, 200, &headers, body)
                }
                None => Ok(()),
            },
            EventKind::ModifyFailed { status, .. } => match self.offers.remove(&dialog) {
                Some(offer) => agent.answer(now, offer, status, &none, None),
                None => Ok(()),
            },
            EventKind::OfferGone { .. } => {
                self.offers.remove(&other);
                agent.cancel_modify(now, other).or(Ok(()))
            }
            EventKind::Request {
                request_handle,
                request,
            } => {
                let headers = self.policy.crossing(&request.headers);
                let body = Body::of(&request.headers, &request.body);
                let sent = agent.request(now, other, request.method, &headers, body)?;
                self.requests.insert(sent, request_handle);
                Ok(())
            }
            EventKind::Response { sent, response } => match self.requests.remove(&sent) {
                Some(request) => {
                    let headers = self.policy.crossing(&response.headers);
                    let body = Body::of(&response.headers, &response.body);
                    agent.answer(now, request, response.status, &headers, body)
                }
                None => Ok(()),
            },
            EventKind::Refer { request_handle, .. } => {
                agent.answer(now, request_handle, 603, &none, None)
            }
            _ => Ok(()),
        }
    }
}
