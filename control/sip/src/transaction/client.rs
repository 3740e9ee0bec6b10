//! One client transaction: its machine with the clock and the bytes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::machine::{Action, ClientInput, ClientState, client_invite, client_other};
use super::types::{Target, Timers, Transmit};
use crate::message::{Headers, Method, Request, Response, SessionId};

/// Most 2xx from different forks that are told apart.
const FORKS_MAX: usize = 64;

/// Whether and how an INVITE is being cancelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cancelling {
    No,
    /// Until a provisional comes; the headers to add.
    Waiting(Vec<(String, String)>),
    Sent,
}

/// The acknowledgement of one fork's 2xx, once the user gave it.
#[derive(Clone, Debug)]
pub(crate) struct ForkAck {
    pub(crate) to_tag: String,
    pub(crate) transmit: Option<Transmit>,
}

/// A request that left by a stream, as it is to leave by UDP if there is no stream.
#[derive(Clone, Debug)]
pub(crate) struct Fallback {
    pub(crate) target: Target,
    pub(crate) via: String,
    pub(crate) bytes: Arc<[u8]>,
    /// When the stream was asked for.
    pub(crate) since: Instant,
}

/// A client transaction.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// The request as sent, without its body.
    pub(crate) request: Request,
    pub(crate) branch: String,
    pub(crate) target: Target,
    pub(crate) state: ClientState,
    pub(crate) cancelling: Cancelling,
    /// The layer's own transaction (CANCEL): nothing of it is told.
    pub(crate) internal: bool,
    pub(crate) forks: Vec<ForkAck>,
    /// The request's bytes while they may be sent again, later those of the ACK.
    bytes: Arc<[u8]>,
    resend_at: Option<Instant>,
    resend_interval: Duration,
    expire_at: Option<Instant>,
    timers: Timers,
    fallback: Option<Box<Fallback>>,
}

impl Client {
    /// A transaction whose request leaves now.
    pub(crate) fn new(
        now: Instant,
        mut request: Request,
        branch: String,
        target: Target,
        timers: Timers,
    ) -> Client {
        let bytes: Arc<[u8]> = request.to_bytes().into();
        request.body = Vec::new();
        let reliable = target.transport.is_reliable();
        Client {
            request,
            branch,
            state: ClientState::Started,
            cancelling: Cancelling::No,
            internal: false,
            forks: Vec::new(),
            bytes,
            resend_at: (!reliable).then_some(now + timers.t1),
            resend_interval: timers.t1,
            expire_at: Some(now + timers.timeout()),
            target,
            timers,
            fallback: None,
        }
    }

    pub(crate) fn set_fallback(&mut self, fallback: Option<Fallback>) {
        self.fallback = fallback.map(Box::new);
    }

    pub(crate) fn has_fallback(&self) -> bool {
        self.fallback.is_some()
    }

    /// The other way to send the request, once, while nobody has answered or given it up.
    pub(crate) fn take_fallback(&mut self) -> Option<Fallback> {
        let fallback = self.fallback.take()?;
        let wanted = self.state == ClientState::Started && self.cancelling == Cancelling::No;
        wanted.then_some(*fallback)
    }

    /// The same request by another way, in the same transaction.
    pub(crate) fn send_anew(&mut self, now: Instant, target: Target, via: &str, bytes: Arc<[u8]>) {
        self.request.headers.set("Via", via);
        (self.target, self.bytes) = (target, bytes);
        self.resend_interval = self.timers.t1;
        self.resend_at = (!self.target.transport.is_reliable()).then_some(now + self.timers.t1);
        self.expire_at = Some(now + self.timers.timeout());
    }

    pub(crate) fn is_invite(&self) -> bool {
        self.request.method == Method::Invite
    }

    /// The bytes to send on `SendRequest` and `SendAck`.
    pub(crate) fn bytes(&self) -> Arc<[u8]> {
        self.bytes.clone()
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        match (self.resend_at, self.expire_at) {
            (Some(resend), Some(expire)) => Some(resend.min(expire)),
            (resend, expire) => resend.or(expire),
        }
    }

    /// Advances the machine and sets the timers of the state it comes to.
    pub(crate) fn step(&mut self, now: Instant, input: ClientInput) -> &'static [Action] {
        let before = self.state;
        let table = if self.is_invite() {
            client_invite
        } else {
            client_other
        };
        let (next, actions) = table(before, input);
        self.state = next;
        if next != before {
            self.enter(now, next);
        }
        if matches!(next, ClientState::Completed | ClientState::Accepted) {
            // Nothing is built of the request any more; there may be many that rest so.
            self.request.headers = Headers::new();
            self.fallback = None;
        }
        actions
    }

    fn enter(&mut self, now: Instant, state: ClientState) {
        let reliable = self.target.transport.is_reliable();
        self.fallback = None;
        match state {
            ClientState::Proceeding if self.is_invite() => {
                self.resend_at = None;
                // Only a CANCEL sent before limits the wait; ringing takes its time.
                if self.cancelling != Cancelling::Sent {
                    self.expire_at = None;
                }
            }
            ClientState::Proceeding => {
                // Timer E runs at T2 from here on.
                self.resend_interval = self.timers.t2;
                self.resend_at = self.resend_at.map(|_| now + self.timers.t2);
            }
            ClientState::Completed => {
                self.resend_at = None;
                let wait = match (reliable, self.is_invite()) {
                    (true, _) => Duration::ZERO,
                    (false, true) => self.timers.d(),
                    (false, false) => self.timers.t4,
                };
                self.expire_at = Some(now + wait);
                if !self.is_invite() {
                    self.bytes = Arc::from(&b""[..]);
                }
            }
            ClientState::Accepted => {
                self.resend_at = None;
                self.expire_at = Some(now + self.timers.timeout());
                self.bytes = Arc::from(&b""[..]);
            }
            ClientState::Started | ClientState::Terminated => {}
        }
    }

    /// Which timer fired, and its renewal.
    pub(crate) fn timeout(&mut self, now: Instant) -> Option<ClientInput> {
        if self.expire_at.is_some_and(|at| at <= now) {
            self.expire_at = None;
            self.resend_at = None;
            return Some(ClientInput::Expire);
        }
        if self.resend_at.is_some_and(|at| at <= now) {
            self.resend_interval *= 2;
            if !self.is_invite() {
                self.resend_interval = self.resend_interval.min(self.timers.t2);
            }
            self.resend_at = Some(now + self.resend_interval);
            return Some(ClientInput::Resend);
        }
        None
    }

    /// Notes that the CANCEL left: from now the end is awaited for 64*T1 (RFC 3261 section
    /// 9.1).
    pub(crate) fn cancel_sent(&mut self, now: Instant) {
        self.cancelling = Cancelling::Sent;
        self.expire_at = Some(now + self.timers.timeout());
    }

    /// The CANCEL of this INVITE (RFC 3261 section 9.1).
    pub(crate) fn cancel_request(&self, headers: &[(String, String)]) -> Request {
        let mut cancel = self.follow_up(Method::Cancel, None);
        for (name, value) in headers {
            cancel.headers.append(name, value);
        }
        cancel.set_content_length();
        cancel
    }

    /// Makes and keeps the ACK of the first failure response (RFC 3261 section 17.1.1.3).
    pub(crate) fn acknowledge_if_open(&mut self, response: &Response) {
        if !matches!(self.state, ClientState::Started | ClientState::Proceeding) {
            return;
        }
        let mut ack = self.follow_up(Method::Ack, Some(response));
        ack.set_content_length();
        self.bytes = ack.to_bytes().into();
    }

    /// A request of the same transaction: same top Via, Request-URI, From, Call-ID, CSeq number
    /// and Route; To of the request or of the response.
    fn follow_up(&self, method: Method, response: Option<&Response>) -> Request {
        let from = &self.request.headers;
        let number = from.cseq().map(|cseq| cseq.number).unwrap_or_default();
        let mut request = Request::new(method.clone(), self.request.uri.clone());
        if let Ok(via) = from.via() {
            request.headers.append("Via", via.to_string());
        }
        request.headers.append("Max-Forwards", "70");
        request.headers.copy(from, "Route");
        request.headers.copy(from, "From");
        request
            .headers
            .copy(response.map_or(from, |response| &response.headers), "To");
        request.headers.copy(from, "Call-ID");
        request.headers.append("CSeq", format!("{number} {method}"));
        if let Some(mut session) = SessionId::of(from) {
            let told = response.and_then(|response| SessionId::sender(&response.headers));
            session.remote = told.unwrap_or(session.remote);
            request.headers.append("Session-ID", session.to_string());
        }
        request
    }

    /// The fork a 2xx belongs to, remembered if it is new. `None` when there are too many.
    pub(crate) fn fork(&mut self, to_tag: &str) -> Option<(bool, &mut ForkAck)> {
        let known = self.forks.iter().position(|fork| fork.to_tag == to_tag);
        let index = match known {
            Some(index) => index,
            None if self.forks.len() < FORKS_MAX => {
                self.forks.push(ForkAck {
                    to_tag: to_tag.to_owned(),
                    transmit: None,
                });
                self.forks.len() - 1
            }
            None => return None,
        };
        Some((known.is_none(), &mut self.forks[index]))
    }
}
