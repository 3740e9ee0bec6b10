//! What goes into and comes out of the transaction layer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::message::{Request, Response, bracketed};

/// A transport protocol of SIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Transport {
    Udp,
    Tcp,
    Tls,
}

impl Transport {
    /// Whether it delivers by itself, so that requests and responses need no repetition.
    pub fn is_reliable(self) -> bool {
        !matches!(self, Transport::Udp)
    }

    /// Its name in Via.
    pub fn via_name(self) -> &'static str {
        match self {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
            Transport::Tls => "TLS",
        }
    }

    /// Its name in a URI's transport parameter.
    pub fn param_name(self) -> &'static str {
        match self {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
        }
    }
}

/// One socket or connection of the caller; the layer only carries it along.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FlowId(pub u64);

/// Where a message came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    pub transport: Transport,
    /// The socket or connection it came in on; answers leave by it.
    pub flow: FlowId,
    /// Our address.
    pub local: SocketAddr,
    /// The sender's address as seen by us.
    pub source: SocketAddr,
}

/// Where to send a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub transport: Transport,
    /// The socket or connection to use; `None` lets the caller's I/O choose or connect.
    pub flow: Option<FlowId>,
    pub remote: SocketAddr,
    /// What we write as sent-by into Via: host or address (IPv6 in brackets) and port.
    pub sent_by: String,
}

impl Target {
    /// A target with our own address as sent-by.
    pub fn new(
        transport: Transport,
        flow: Option<FlowId>,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Target {
        let host = local.ip().to_string();
        let sent_by = format!("{}:{}", bracketed(&host), local.port());
        Target {
            transport,
            flow,
            remote,
            sent_by,
        }
    }
}

/// A client transaction's number, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientTx(pub u64);

/// A server transaction's number, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerTx(pub u64);

/// Which transaction a transmit belongs to, for reporting that it could not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TxId {
    Client(ClientTx),
    Server(ServerTx),
}

/// Bytes to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    pub transport: Transport,
    /// The socket or connection to use. If that connection is gone, or none is given, connect
    /// to `remote`.
    pub flow: Option<FlowId>,
    /// Where to send to (UDP), or to connect to (RFC 3261 sections 18.1.1 and 18.2.2).
    pub remote: SocketAddr,
    pub bytes: Arc<[u8]>,
    /// Whom to name in [`Endpoint::transport_failed`](super::Endpoint::transport_failed).
    pub origin: Option<TxId>,
    /// Reported as failed, it leaves by another way: a connection for it is not worth a long wait.
    pub has_fallback: bool,
}

/// What the layer tells its user.
#[derive(Clone, Debug)]
pub enum Event {
    /// A new request (never ACK or CANCEL): answer it with
    /// [`Endpoint::respond`](super::Endpoint::respond). Its top Via carries received and rport.
    Request {
        tx: ServerTx,
        request: Request,
        path: Path,
    },
    /// The INVITE of this transaction is cancelled: answer it 487 (the CANCEL was answered).
    /// Raised once, and only while the INVITE has no final response.
    Cancel { invite: ServerTx, cancel: Request },
    /// The ACK of a 2xx. `invite` is its transaction while that lives (its 2xx is then
    /// repeated no more); an ACK that fits no transaction comes with `None`, and is to be
    /// ignored unless a dialog knows it. Repetitions are not raised.
    Ack {
        invite: Option<ServerTx>,
        request: Request,
        path: Path,
    },
    /// A response to our request: every provisional, every distinct final. A 2xx to an INVITE
    /// is raised once for each To tag: acknowledge each with
    /// [`Endpoint::send_ack`](super::Endpoint::send_ack), after which repeated ones are
    /// acknowledged by the layer itself.
    Response {
        tx: ClientTx,
        response: Response,
        path: Path,
    },
    /// No final response came in time (408 in effect). The transaction is gone.
    Timeout { tx: ClientTx },
    /// Our request could not be sent (503 in effect). The transaction is gone.
    TransportError { tx: ClientTx },
    /// A final response to an INVITE was never acknowledged in 64*T1: after a 2xx the call is
    /// to be ended by BYE (RFC 3261 section 13.3.1.4).
    NoAck { tx: ServerTx, status: u16 },
    /// A reliable provisional was never acknowledged in 64*T1: reject the INVITE with 5xx
    /// (RFC 3262 section 3).
    NoPrack { tx: ServerTx, rseq: u32 },
    /// A request other than INVITE was left unanswered for so long that its sender gave up;
    /// answering it is no longer possible (RFC 4320).
    Unanswered { tx: ServerTx },
    /// A 2xx to an INVITE that no transaction awaits, as after a restart: a dialog that knows
    /// it acknowledges it, else it is ignored.
    StrayResponse { response: Response, path: Path },
}

/// Timers of RFC 3261 table 4; all others follow from these.
#[derive(Clone, Copy, Debug)]
pub struct Timers {
    /// Round-trip time estimate, 500 ms.
    pub t1: Duration,
    /// Longest interval between repetitions, 4 s.
    pub t2: Duration,
    /// Longest life of a message in the network, 5 s.
    pub t4: Duration,
    /// How long an INVITE waits for a provisional of its user before the layer sends 100,
    /// 200 ms.
    pub trying: Duration,
}

impl Timers {
    /// Timers B, F, H, J, L, M: 64*T1.
    pub fn timeout(&self) -> Duration {
        self.t1 * 64
    }

    /// Timer D: at least 32 s over unreliable transports.
    pub fn d(&self) -> Duration {
        self.timeout()
    }
}

impl Default for Timers {
    fn default() -> Timers {
        Timers {
            t1: Duration::from_millis(500),
            t2: Duration::from_secs(4),
            t4: Duration::from_secs(5),
            trying: Duration::from_millis(200),
        }
    }
}

/// Settings of an [`Endpoint`](super::Endpoint).
#[derive(Clone, Debug)]
pub struct Config {
    pub timers: Timers,
    /// Most transactions at once. Above it a new request outside a dialog gets 503; requests
    /// inside one (with a To tag) have the same number again for themselves.
    pub transactions_max: usize,
    /// The Retry-After of that 503, in seconds.
    pub retry_after_s: u32,
    /// Value of the Server header of responses the layer makes itself; none when empty.
    pub server: String,
    /// By which requests of ours are known again ([`Endpoint::made`](super::Endpoint::made)); the same
    /// over restarts, if those of a former life are to be. `None` makes one.
    pub secret: Option<u64>,
    /// Seed of branches and tags; `None` takes the system's randomness.
    pub seed: Option<u64>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            timers: Timers::default(),
            transactions_max: 100_000,
            retry_after_s: 5,
            server: String::new(),
            secret: None,
            seed: None,
        }
    }
}

/// Why a call into the layer was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    #[error("no such transaction (ended or never there)")]
    NoTransaction,
    #[error("the transaction is past that: a final response was sent or received")]
    AlreadyFinal,
    #[error("ACK and CANCEL are not sent this way")]
    WrongMethod,
    #[error("too many transactions")]
    TooMany,
    #[error("a provisional response other than 100 to a request that is no INVITE (RFC 4320)")]
    Provisional,
    #[error("a status that is none")]
    Status,
    #[error("the message lacks a header it needs: {0}")]
    Header(&'static str),
}

/// What became of a request to cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelOutcome {
    /// The CANCEL was sent.
    Sent,
    /// It will be sent when the first provisional response comes (RFC 3261 section 9.1).
    Waiting,
    /// It was asked for before.
    Repeated,
}

/// Counters of what the layer dropped or answered by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Messages that are none and were met with silence.
    pub malformed_dropped: u64,
    /// Malformed requests answered 400, 505 or 513.
    pub malformed_answered: u64,
    /// Responses that fit no transaction.
    pub stray_responses: u64,
    /// ACKs that were repetitions.
    pub repeated_acks: u64,
    /// Repeated requests answered by repeating the response.
    pub repeated_requests: u64,
    /// CANCELs answered 481.
    pub unmatched_cancels: u64,
    /// Requests answered 482 because they came twice by different ways.
    pub merged: u64,
    /// Requests answered 503 for want of room.
    pub overloaded: u64,
    /// Messages sent again by timers.
    pub retransmissions: u64,
}
