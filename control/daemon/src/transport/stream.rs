//! SIP over TCP: listeners, connections, reuse of connections (RFC 3261 section 18).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use trunkline_sip::message::{StreamDecoder, StreamItem, StreamLimits};
use trunkline_sip::transaction::{FlowId, Path, Transmit, Transport, TxId};

use super::{Incoming, Shared, specific};

/// Messages queued on one connection; more than that means a peer that does not read.
const QUEUE_MESSAGES_MAX: usize = 256;
/// Connections open at once.
const CONNECTIONS_MAX: usize = 4096;
/// How long making a connection may take; the transaction's own timer is longer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// How long what could leave by UDP as well waits for a connection: less than a caller waits for a sign of
/// the callee's.
const FALLBACK_AFTER: Duration = Duration::from_millis(500);
/// How long a connection stays open after what cannot be framed.
const CLOSE_PAUSE: Duration = Duration::from_millis(200);
/// The wait after a failed `accept` (out of files), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A message that waits to be written.
struct Queued {
    bytes: Arc<[u8]>,
    /// Whom to name when it cannot be.
    origin: Option<TxId>,
    /// Whether it then leaves by another way.
    has_fallback: bool,
}

impl From<Transmit> for Queued {
    fn from(transmit: Transmit) -> Self {
        Self {
            bytes: transmit.bytes,
            origin: transmit.origin,
            has_fallback: transmit.has_fallback,
        }
    }
}

/// The sending end of one connection.
#[derive(Clone)]
struct Connection {
    peer: SocketAddr,
    queue: mpsc::Sender<Queued>,
}

#[derive(Default)]
struct Table {
    by_flow: HashMap<FlowId, Connection>,
    by_peer: HashMap<SocketAddr, FlowId>,
}

/// All TCP connections, inbound and outbound.
#[derive(Clone)]
pub(super) struct Connections {
    shared: Arc<Shared>,
    table: Arc<Mutex<Table>>,
}

impl Connections {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            table: Arc::default(),
        }
    }

    /// Binds a listener and accepts on it; returns the bound address.
    pub(super) async fn listen(&self, address: SocketAddr) -> std::io::Result<SocketAddr> {
        let raw = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::STREAM,
            Some(socket2::Protocol::TCP),
        )?;
        raw.set_reuse_address(true)?;
        if address.is_ipv6() {
            raw.set_only_v6(true)?;
        }
        raw.set_nonblocking(true)?;
        raw.bind(&address.into())?;
        raw.listen(1024)?;
        let listener = TcpListener::from_std(raw.into())?;
        let local = listener.local_addr()?;
        tokio::spawn(self.clone().accept(listener));
        Ok(local)
    }

    async fn accept(self, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    if !self.shared.allowed(peer) {
                        continue;
                    }
                    if let Ok(local) = stream.local_addr() {
                        self.adopt(stream, peer, local);
                    }
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a connected stream into service.
    fn adopt(&self, stream: TcpStream, peer: SocketAddr, local: SocketAddr) {
        let (queue, messages) = mpsc::channel(QUEUE_MESSAGES_MAX);
        if let Some(flow) = self.register(peer, queue) {
            let path = Path {
                transport: Transport::Tcp,
                flow,
                local,
                source: peer,
            };
            self.serve(stream, path, Vec::new(), messages);
        }
    }

    fn register(&self, peer: SocketAddr, queue: mpsc::Sender<Queued>) -> Option<FlowId> {
        let mut table = self.lock();
        if table.by_flow.len() >= CONNECTIONS_MAX {
            return None;
        }
        let flow = self.shared.flow_id();
        table.by_flow.insert(flow, Connection { peer, queue });
        table.by_peer.insert(peer, flow);
        Some(flow)
    }

    fn serve(
        &self,
        stream: TcpStream,
        path: Path,
        first: Vec<Queued>,
        messages: mpsc::Receiver<Queued>,
    ) {
        let _ = stream.set_nodelay(true);
        let (reader, writer) = stream.into_split();
        let connections = self.clone();
        let echo = self
            .lock()
            .by_flow
            .get(&path.flow)
            .map(|one| one.queue.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = read(reader, path, &connections.shared, echo) => {}
                () = write(writer, first, messages, &connections.shared) => {}
            }
            connections.forget(path.flow);
            let closed = Incoming::FlowClosed {
                flow: path.flow,
                remote: path.source,
            };
            let _ = connections.shared.incoming.send(closed).await;
        });
    }

    fn forget(&self, flow: FlowId) {
        let mut table = self.lock();
        if let Some(connection) = table.by_flow.remove(&flow)
            && table.by_peer.get(&connection.peer) == Some(&flow)
        {
            table.by_peer.remove(&connection.peer);
        }
    }

    /// Sends on the flow's connection, or on one to the destination, or on a new one.
    pub(super) fn send(&self, transmit: Transmit) {
        let open = {
            let table = self.lock();
            let by_flow = transmit.flow.and_then(|flow| table.by_flow.get(&flow));
            let by_peer = || {
                let flow = table.by_peer.get(&transmit.remote)?;
                table.by_flow.get(flow)
            };
            by_flow.or_else(by_peer).cloned()
        };
        let origin = transmit.origin;
        match open {
            Some(connection) => {
                if connection.queue.try_send(transmit.into()).is_err() {
                    self.shared.send_failed(origin);
                }
            }
            None => self.connect(transmit),
        }
    }

    /// Opens a connection; what is sent meanwhile queues up behind it.
    fn connect(&self, transmit: Transmit) {
        let (remote, origin) = (transmit.remote, transmit.origin);
        let (queue, mut messages) = mpsc::channel(QUEUE_MESSAGES_MAX);
        let queued = queue.try_send(transmit.into()).is_ok();
        let Some(flow) = queued.then(|| self.register(remote, queue)).flatten() else {
            return self.shared.send_failed(origin);
        };
        let connections = self.clone();
        tokio::spawn(async move {
            let mut first = Vec::new();
            let waiting = connected(remote, &mut first, &mut messages, &connections.shared);
            let connected = tokio::time::timeout(CONNECT_TIMEOUT, waiting).await;
            match connected.ok().flatten() {
                Some(stream) => {
                    let any = specific(unspecified(remote), remote);
                    let local = stream.local_addr().unwrap_or(any);
                    let path = Path {
                        transport: Transport::Tcp,
                        flow,
                        local,
                        source: remote,
                    };
                    connections.serve(stream, path, first, messages);
                }
                None => {
                    connections.forget(flow);
                    fail_all(first, messages, &connections.shared);
                }
            }
        });
    }
}

/// A connection, unless nothing is left that would wait for it. What has another way to leave is reported
/// as failed after a while; the rest is gathered in `first`.
async fn connected(
    remote: SocketAddr,
    first: &mut Vec<Queued>,
    messages: &mut mpsc::Receiver<Queued>,
    shared: &Shared,
) -> Option<TcpStream> {
    let connecting = TcpStream::connect(remote);
    tokio::pin!(connecting);
    loop {
        tokio::select! {
            stream = &mut connecting => return stream.ok(),
            () = tokio::time::sleep(FALLBACK_AFTER) => {}
        }
        while let Ok(queued) = messages.try_recv() {
            match queued.has_fallback {
                true => shared.send_failed(queued.origin),
                false => first.push(queued),
            }
        }
        if first.is_empty() {
            return None;
        }
    }
}

fn unspecified(peer: SocketAddr) -> SocketAddr {
    use std::net::{Ipv4Addr, Ipv6Addr};
    match peer {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    }
}

/// Reports every message that was queued for a connection that never came to be.
fn fail_all(first: Vec<Queued>, mut messages: mpsc::Receiver<Queued>, shared: &Shared) {
    messages.close();
    let queued = std::iter::from_fn(|| messages.try_recv().ok());
    for one in first.into_iter().chain(queued) {
        shared.send_failed(one.origin);
    }
}

/// Reads messages until the peer closes or sends what cannot be framed.
async fn read(
    mut reader: OwnedReadHalf,
    path: Path,
    shared: &Shared,
    echo: Option<mpsc::Sender<Queued>>,
) {
    let mut decoder = StreamDecoder::new(StreamLimits::default());
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = match reader.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(length) => length,
        };
        decoder.push(&buffer[..length]);
        while let Some(item) = decoder.next_item() {
            let (incoming, last) = match item {
                StreamItem::Message(message) => (Incoming::Message { path, message }, false),
                StreamItem::Rejected(rejected) => (Incoming::Rejected { path, rejected }, false),
                StreamItem::Broken(rejected) => (Incoming::Rejected { path, rejected }, true),
                // RFC 5626 section 4.4.1: a double CRLF is answered by a single one.
                StreamItem::Ping => {
                    if let Some(queue) = &echo {
                        let _ = queue.try_send(Queued {
                            bytes: Arc::from(&b"\r\n"[..]),
                            origin: None,
                            has_fallback: false,
                        });
                    }
                    continue;
                }
            };
            if shared.incoming.send(incoming).await.is_err() {
                return;
            }
            if last {
                shared
                    .counters
                    .unframed
                    .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                // Leaves the answer the time to go out before the connection closes.
                tokio::time::sleep(CLOSE_PAUSE).await;
                return;
            }
        }
    }
}

/// Writes queued messages until the connection breaks.
async fn write(
    mut writer: OwnedWriteHalf,
    first: Vec<Queued>,
    mut messages: mpsc::Receiver<Queued>,
    shared: &Shared,
) {
    let mut first = first.into_iter();
    loop {
        let queued = match first.next() {
            Some(queued) => queued,
            None => match messages.recv().await {
                Some(queued) => queued,
                None => return,
            },
        };
        if writer.write_all(&queued.bytes).await.is_err() {
            shared.send_failed(queued.origin);
            return fail_all(first.collect(), messages, shared);
        }
    }
}
