//! SIP over UDP and TCP sockets. Bytes in, bytes out: messages are parsed elsewhere.
//!
//! A source outside `sip.allow` is dropped without an answer and counted. Every received datagram or
//! stream message carries the flow it came in on, so that the answer leaves from the same socket.

mod stream;
mod udp;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use tokio::sync::mpsc;
use trunkline_config::Sip;
use trunkline_sip::message::{Message, Rejected};
use trunkline_sip::transaction::{FlowId, Path, Transmit, Transport, TxId};

/// Something that arrived.
#[derive(Debug)]
pub enum Incoming {
    /// A datagram.
    Datagram {
        /// Where it came from.
        path: Path,
        /// Its payload.
        bytes: Vec<u8>,
    },
    /// A message framed out of a stream.
    Message {
        /// Where it came from.
        path: Path,
        /// The message.
        message: Message,
    },
    /// A malformed message of a stream, with what can be answered of it.
    Rejected {
        /// Where it came from.
        path: Path,
        /// What was wrong.
        rejected: Rejected,
    },
    /// A message could not be sent.
    SendFailed {
        /// The transaction it belonged to.
        origin: TxId,
    },
    /// A connection is gone.
    FlowClosed {
        /// Which.
        flow: FlowId,
        /// The peer it led to.
        remote: SocketAddr,
    },
}

/// Counters of what transports refuse.
#[derive(Debug, Default)]
pub struct TransportCounters {
    /// Datagrams and connections from sources outside `sip.allow`.
    pub not_allowed: AtomicU64,
    /// Streams closed because their bytes cannot be framed as SIP.
    pub unframed: AtomicU64,
}

/// Shared by all sockets of a transport.
struct Shared {
    sip: Sip,
    incoming: mpsc::Sender<Incoming>,
    counters: Arc<TransportCounters>,
    next_flow: AtomicU64,
}

impl Shared {
    fn allowed(&self, source: SocketAddr) -> bool {
        let allowed = self.sip.allows(source.ip());
        if !allowed {
            self.counters.not_allowed.fetch_add(1, Ordering::Relaxed);
        }
        allowed
    }

    fn send_failed(&self, origin: Option<TxId>) {
        if let Some(origin) = origin {
            // A full queue means that the core is behind: its own timers will notice the loss.
            let _ = self.incoming.try_send(Incoming::SendFailed { origin });
        }
    }

    fn flow_id(&self) -> FlowId {
        FlowId(self.next_flow.fetch_add(1, Ordering::Relaxed))
    }
}

/// All listening sockets and open connections.
pub struct Transports {
    shared: Arc<Shared>,
    udp: Vec<udp::UdpListener>,
    tcp: Vec<SocketAddr>,
    connections: stream::Connections,
}

impl Transports {
    /// Binds everything that `sip.listen` names. A busy address is an error that names it.
    pub async fn bind(
        config: &Sip,
        incoming: mpsc::Sender<Incoming>,
        counters: Arc<TransportCounters>,
    ) -> Result<Self> {
        let shared = Arc::new(Shared {
            sip: config.clone(),
            incoming,
            counters,
            next_flow: AtomicU64::new(1),
        });
        let connections = stream::Connections::new(Arc::clone(&shared));
        let mut udp = Vec::new();
        let mut tcp = Vec::new();
        for listen in &config.listen {
            match listen.transport {
                trunkline_config::Transport::Udp => {
                    let listener = udp::UdpListener::bind(listen.address, Arc::clone(&shared))
                        .await
                        .with_context(|| {
                            format!("sip.listen: cannot bind udp:{}", listen.address)
                        })?;
                    udp.push(listener);
                }
                trunkline_config::Transport::Tcp => {
                    let address = connections.listen(listen.address).await.with_context(|| {
                        format!("sip.listen: cannot bind tcp:{}", listen.address)
                    })?;
                    tcp.push(address);
                }
            }
        }
        Ok(Self {
            shared,
            udp,
            tcp,
            connections,
        })
    }

    /// Our address towards a destination: what Via and Contact show, and the socket to use where
    /// there is a choice. `None` when nothing listens for that protocol and family.
    pub fn local_to(
        &self,
        transport: Transport,
        destination: SocketAddr,
    ) -> Option<(Option<FlowId>, SocketAddr)> {
        let fits = |local: &SocketAddr| local.is_ipv4() == destination.is_ipv4();
        // A socket on loopback cannot reach further, and one elsewhere should not come from there.
        let best = |local: &SocketAddr| {
            let loopback = destination.ip().is_loopback();
            local.ip().is_unspecified() || local.ip().is_loopback() == loopback
        };
        match transport {
            Transport::Udp => {
                let mut sockets = self.udp.iter().filter(|one| fits(&one.local));
                let found = sockets
                    .clone()
                    .find(|one| best(&one.local))
                    .or_else(|| sockets.next());
                found.map(|one| (Some(one.flow), specific(one.local, destination)))
            }
            Transport::Tcp => {
                let mut listeners = self.tcp.iter().filter(|local| fits(local));
                let found = listeners
                    .clone()
                    .find(|local| best(local))
                    .or_else(|| listeners.next());
                found.map(|local| (None, specific(*local, destination)))
            }
            Transport::Tls => None,
        }
    }

    /// Sends one message. On a stream an open connection of the flow, or one to the destination, is
    /// used; else one is made. A failure comes back as [`Incoming::SendFailed`].
    pub fn send(&self, transmit: Transmit) {
        match transmit.transport {
            Transport::Udp => {
                let fits =
                    |one: &&udp::UdpListener| one.local.is_ipv4() == transmit.remote.is_ipv4();
                let named = self.udp.iter().find(|one| Some(one.flow) == transmit.flow);
                let socket = named.or_else(|| self.udp.iter().find(fits));
                let sent = socket.is_some_and(|one| one.send(transmit.remote, &transmit.bytes));
                if !sent {
                    self.shared.send_failed(transmit.origin);
                }
            }
            Transport::Tcp => self.connections.send(transmit),
            Transport::Tls => self.shared.send_failed(transmit.origin),
        }
    }
}

/// Replaces an unspecified listen address by the address the kernel would use towards `peer`.
fn specific(local: SocketAddr, peer: SocketAddr) -> SocketAddr {
    if !local.ip().is_unspecified() {
        return local;
    }
    let any = if peer.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let found = std::net::UdpSocket::bind(any)
        .and_then(|socket| socket.connect(peer).and_then(|()| socket.local_addr()));
    match found {
        Ok(address) => SocketAddr::new(address.ip(), local.port()),
        Err(_) => local,
    }
}
