//! One server transaction: its machine with the clock and the bytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::keys::RequestKeys;
use super::machine::{Action, ServerInput, ServerState, server_invite, server_other};
use super::types::{FlowId, Path, Timers, Transport};
use crate::message::{Method, Via};

/// Where answers go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) transport: Transport,
    pub(crate) flow: FlowId,
    pub(crate) remote: SocketAddr,
}

impl Reply {
    /// The way back (RFC 3261 section 18.2.2, RFC 3581): the flow it came by; over UDP to the
    /// source address, and to its port where rport was asked for, else to sent-by's. maddr is
    /// not followed: it would let anybody aim our answers at a third party.
    pub(crate) fn new(path: &Path, via: &Via) -> Reply {
        let port = match path.transport {
            Transport::Udp if via.wants_rport() => path.source.port(),
            _ => via.port.unwrap_or(via.default_port()),
        };
        let remote = SocketAddr::new(path.source.ip(), port);
        Reply {
            transport: path.transport,
            flow: path.flow,
            remote,
        }
    }
}

/// A reliable provisional response that awaits its PRACK (RFC 3262 section 3).
#[derive(Clone, Debug)]
pub(crate) struct Reliable {
    pub(crate) rseq: u32,
    pub(crate) bytes: Arc<[u8]>,
    pub(crate) resend_at: Instant,
    pub(crate) resend_interval: Duration,
    pub(crate) expire_at: Instant,
}

/// A server transaction.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) method: Method,
    pub(crate) keys: RequestKeys,
    /// The key of the ACK, once a final response gave the To tag.
    pub(crate) ack_key: Option<String>,
    pub(crate) reply: Reply,
    /// The tag our responses carry when the user gives none.
    pub(crate) tag: String,
    pub(crate) state: ServerState,
    /// Status and bytes of the last response.
    pub(crate) last: Option<(u16, Arc<[u8]>)>,
    /// The 100 to send if the user is slow.
    pub(crate) trying: Option<Arc<[u8]>>,
    pub(crate) cancelled: bool,
    pub(crate) acked: bool,
    pub(crate) reliable: Option<Reliable>,
    pub(crate) rseq: u32,
    trying_at: Option<Instant>,
    resend_at: Option<Instant>,
    resend_interval: Duration,
    expire_at: Option<Instant>,
    timers: Timers,
}

/// What a server transaction's clock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerTimeout {
    Machine(ServerInput),
    /// The user is slow: send the 100.
    Trying,
    /// Send the reliable provisional again.
    Reliable,
    /// The reliable provisional was never acknowledged.
    NoPrack,
}

impl Server {
    /// A transaction whose request came now.
    pub(crate) fn new(
        now: Instant,
        method: Method,
        keys: RequestKeys,
        reply: Reply,
        tag: String,
        timers: Timers,
    ) -> Server {
        let invite = method == Method::Invite;
        Server {
            method,
            keys,
            ack_key: None,
            reply,
            tag,
            state: if invite {
                ServerState::Proceeding
            } else {
                ServerState::Trying
            },
            last: None,
            trying: None,
            cancelled: false,
            acked: false,
            reliable: None,
            rseq: 0,
            trying_at: invite.then_some(now + timers.trying),
            resend_at: None,
            resend_interval: timers.t1,
            // The sender of another request gives up after 64*T1 (RFC 4320).
            expire_at: (!invite).then_some(now + timers.timeout()),
            timers,
        }
    }

    pub(crate) fn is_invite(&self) -> bool {
        self.method == Method::Invite
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        let reliable = self
            .reliable
            .as_ref()
            .map(|wait| wait.resend_at.min(wait.expire_at));
        [self.trying_at, self.resend_at, self.expire_at, reliable]
            .into_iter()
            .flatten()
            .min()
    }

    /// Advances the machine and sets the timers of the state it comes to.
    pub(crate) fn step(&mut self, now: Instant, input: ServerInput) -> &'static [Action] {
        let before = self.state;
        let table = if self.is_invite() {
            server_invite
        } else {
            server_other
        };
        let (next, actions) = table(before, input);
        self.state = next;
        if next != before {
            self.enter(now, next);
        }
        if matches!(
            input,
            ServerInput::Provisional | ServerInput::Success | ServerInput::Failure
        ) {
            self.trying_at = None;
            self.trying = None;
        }
        actions
    }

    fn enter(&mut self, now: Instant, state: ServerState) {
        let reliable = self.reply.transport.is_reliable();
        match state {
            ServerState::Completed => {
                let wait = if self.is_invite() || !reliable {
                    self.timers.timeout()
                } else {
                    Duration::ZERO
                };
                self.expire_at = Some(now + wait);
                let repeats = self.is_invite() && !reliable;
                self.start_resending(now, repeats);
            }
            ServerState::Confirmed => {
                self.resend_at = None;
                let wait = if reliable {
                    Duration::ZERO
                } else {
                    self.timers.t4
                };
                self.expire_at = Some(now + wait);
            }
            ServerState::Accepted => {
                // A 2xx is repeated over every transport, as hops behind may lose it.
                self.start_resending(now, true);
                self.expire_at = Some(now + self.timers.timeout());
            }
            _ => {}
        }
    }

    fn start_resending(&mut self, now: Instant, repeats: bool) {
        self.reliable = None;
        self.resend_interval = self.timers.t1;
        self.resend_at = repeats.then_some(now + self.timers.t1);
    }

    /// The ACK of our 2xx came: no more repetitions.
    pub(crate) fn acknowledged(&mut self) {
        self.acked = true;
        self.resend_at = None;
        // A repeated INVITE is absorbed from here on (RFC 6026 section 7.1).
        self.last = None;
    }

    /// Starts repeating a reliable provisional.
    pub(crate) fn start_reliable(&mut self, now: Instant, bytes: Arc<[u8]>) {
        self.reliable = Some(Reliable {
            rseq: self.rseq,
            bytes,
            resend_at: now + self.timers.t1,
            resend_interval: self.timers.t1,
            expire_at: now + self.timers.timeout(),
        });
    }

    /// Which timer fired, and its renewal.
    pub(crate) fn timeout(&mut self, now: Instant) -> Option<ServerTimeout> {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.expire_at) {
            self.expire_at = None;
            self.resend_at = None;
            return Some(ServerTimeout::Machine(ServerInput::Expire));
        }
        if due(self.trying_at) {
            self.trying_at = None;
            return Some(ServerTimeout::Trying);
        }
        if due(self.resend_at) {
            self.resend_interval = (self.resend_interval * 2).min(self.timers.t2);
            self.resend_at = Some(now + self.resend_interval);
            return Some(ServerTimeout::Machine(ServerInput::Resend));
        }
        let wait = self.reliable.as_mut()?;
        if wait.expire_at <= now {
            return Some(ServerTimeout::NoPrack);
        }
        if wait.resend_at <= now {
            wait.resend_interval *= 2;
            wait.resend_at = now + wait.resend_interval;
            return Some(ServerTimeout::Reliable);
        }
        None
    }
}
