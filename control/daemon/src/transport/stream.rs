//! SIP over TCP: listeners, connections, reuse of connections (RFC 3261 section 18).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use trunkline_sip::message::{Message, Method, StreamDecoder, StreamItem, StreamLimits};
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
/// How long a connection stays open on which nothing comes or goes, keep-alives neither.
const IDLE_MAX: Duration = Duration::from_secs(3_600);
/// The same where the peer will say nothing more and awaits answers: longer than a call rings (RFC 3261
/// section 16.6, timer C).
const OWED_MAX: Duration = Duration::from_secs(200);
/// A connection that was idle for so long gives its place to a new one when there is none left.
const IDLE_MIN: Duration = Duration::from_secs(60);
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
    state: Arc<State>,
}

/// What both directions of a connection know.
struct State {
    /// Something came or went last.
    used: Mutex<Instant>,
    /// Requests that came and have no final response yet.
    owed: AtomicUsize,
    answered: Notify,
    /// The peer may still say something.
    open: AtomicBool,
    /// Ends it.
    close: Notify,
}

impl State {
    fn new() -> Self {
        Self {
            used: Mutex::new(Instant::now()),
            owed: AtomicUsize::new(0),
            answered: Notify::new(),
            open: AtomicBool::new(true),
            close: Notify::new(),
        }
    }

    fn touch(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn used(&self) -> Instant {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of what is written: a final response owes nothing any more. One that is repeated
    /// neither.
    fn note_written(&self, bytes: &[u8]) {
        let class = bytes.strip_prefix(b"SIP/2.0 ").and_then(<[u8]>::first);
        if class.is_some_and(|class| (b'2'..=b'6').contains(class)) {
            let less = |owed: usize| Some(owed.saturating_sub(1));
            // It always gives something.
            let _ = self.owed.fetch_update(Relaxed, Relaxed, less);
            self.answered.notify_one();
        }
    }

    /// Returns when every request that came has its final response.
    async fn all_answered(&self) {
        while self.owed.load(Relaxed) > 0 {
            self.answered.notified().await;
        }
    }

    /// Returns when nothing came or went for so long.
    async fn idle(&self, limit: Duration) {
        loop {
            let until = self.used() + limit;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

#[derive(Default)]
struct Table {
    by_flow: HashMap<FlowId, Connection>,
    by_peer: HashMap<SocketAddr, FlowId>,
}

impl Table {
    /// Nothing more comes on a connection: requests of ours find another one.
    fn leave_peer(&mut self, flow: FlowId) {
        if let Some(connection) = self.by_flow.get(&flow) {
            connection.state.open.store(false, Relaxed);
            if self.by_peer.get(&connection.peer) == Some(&flow) {
                self.by_peer.remove(&connection.peer);
            }
        }
    }

    fn remove(&mut self, flow: FlowId) {
        self.leave_peer(flow);
        self.by_flow.remove(&flow);
    }

    /// Whether there is room for one more. Of a full table the connection goes that was idle longest.
    fn make_room(&mut self, now: Instant, connections_max: usize) -> bool {
        if self.by_flow.len() < connections_max {
            return true;
        }
        let used = |(flow, one): (&FlowId, &Connection)| (one.state.used(), *flow);
        // Who waits for an answer of ours keeps its connection.
        let free = |(_, one): &(&FlowId, &Connection)| one.state.owed.load(Relaxed) == 0;
        let Some((used, flow)) = self.by_flow.iter().filter(free).map(used).min() else {
            return false;
        };
        if now.duration_since(used) < IDLE_MIN {
            return false;
        }
        if let Some(connection) = self.by_flow.get(&flow) {
            connection.state.close.notify_one();
        }
        self.remove(flow);
        true
    }
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
        if let Some((flow, state)) = self.register(peer, queue) {
            let path = Path {
                transport: Transport::Tcp,
                flow,
                local,
                source: peer,
            };
            self.serve(stream, path, &state, Vec::new(), messages);
        }
    }

    fn register(
        &self,
        peer: SocketAddr,
        queue: mpsc::Sender<Queued>,
    ) -> Option<(FlowId, Arc<State>)> {
        let mut table = self.lock();
        if !table.make_room(Instant::now(), CONNECTIONS_MAX) {
            return None;
        }
        let flow = self.shared.flow_id();
        let state = Arc::new(State::new());
        let connection = Connection {
            peer,
            queue,
            state: Arc::clone(&state),
        };
        table.by_flow.insert(flow, connection);
        table.by_peer.insert(peer, flow);
        Some((flow, state))
    }

    fn serve(
        &self,
        stream: TcpStream,
        path: Path,
        state: &Arc<State>,
        first: Vec<Queued>,
        messages: mpsc::Receiver<Queued>,
    ) {
        let _ = stream.set_nodelay(true);
        // A peer that vanished is found out some day.
        let _ = socket2::SockRef::from(&stream).set_keepalive(true);
        let (reader, writer) = stream.into_split();
        let (connections, state) = (self.clone(), Arc::clone(state));
        let echo = self
            .lock()
            .by_flow
            .get(&path.flow)
            .map(|one| one.queue.clone());
        tokio::spawn(async move {
            let shared = &connections.shared;
            let reading = read(reader, path, shared, &state, echo);
            let writing = write(writer, first, messages, shared, &state);
            tokio::pin!(reading, writing);
            let half_closed = tokio::select! {
                ended = &mut reading => ended == Ended::ByPeer,
                () = &mut writing => false,
                () = state.idle(IDLE_MAX) => false,
                () = state.close.notified() => false,
            };
            connections.lock().leave_peer(path.flow);
            // What we asked on it is answered no more.
            let closed = Incoming::FlowClosed {
                flow: path.flow,
                remote: path.source,
            };
            let _ = shared.incoming.send(closed).await;
            if half_closed {
                tokio::select! {
                    () = &mut writing => {}
                    () = state.all_answered() => {}
                    () = state.idle(OWED_MAX) => {}
                    () = state.close.notified() => {}
                }
            }
            connections.forget(path.flow);
        });
    }

    fn forget(&self, flow: FlowId) {
        self.lock().remove(flow);
    }

    /// Sends on the flow's connection, or on one to the destination, or on a new one.
    pub(super) fn send(&self, transmit: Transmit) {
        let open = {
            let table = self.lock();
            let answers = transmit.bytes.starts_with(b"SIP/2.0 ");
            let by_flow = transmit
                .flow
                .and_then(|flow| table.by_flow.get(&flow))
                .filter(|one| answers || one.state.open.load(Relaxed));
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
        let Some((flow, state)) = queued.then(|| self.register(remote, queue)).flatten() else {
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
                    connections.serve(stream, path, &state, first, messages);
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

/// Why nothing more is read from a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// The peer says nothing more. It may still listen.
    ByPeer,
    /// It broke, or holds what cannot be framed.
    Broken,
}

/// Reads messages until the peer closes or sends what cannot be framed.
async fn read(
    mut reader: OwnedReadHalf,
    path: Path,
    shared: &Shared,
    state: &State,
    echo: Option<mpsc::Sender<Queued>>,
) -> Ended {
    let mut decoder = StreamDecoder::new(StreamLimits::default());
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = match reader.read(&mut buffer).await {
            Ok(0) => return Ended::ByPeer,
            Err(_) => return Ended::Broken,
            Ok(length) => length,
        };
        state.touch();
        decoder.push(&buffer[..length]);
        while let Some(item) = decoder.next_item() {
            let (incoming, last) = match item {
                StreamItem::Message(message) => {
                    let asks =
                        matches!(&message, Message::Request(one) if one.method != Method::Ack);
                    state.owed.fetch_add(usize::from(asks), Relaxed);
                    (Incoming::Message { path, message }, false)
                }
                StreamItem::Rejected(rejected) => {
                    state.owed.fetch_add(1, Relaxed);
                    (Incoming::Rejected { path, rejected }, false)
                }
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
                return Ended::Broken;
            }
            if last {
                shared
                    .counters
                    .unframed
                    .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                // Leaves the answer the time to go out before the connection closes.
                tokio::time::sleep(CLOSE_PAUSE).await;
                return Ended::Broken;
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
    state: &State,
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
        state.touch();
        state.note_written(&queued.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_full_table_the_one_idle_longest_goes_if_it_was_idle_long_enough() {
        let start = Instant::now();
        let mut table = Table::default();
        for number in 1..=3u16 {
            let (queue, _messages) = mpsc::channel(1);
            let peer = SocketAddr::from(([192, 0, 2, 1], number));
            let state = Arc::new(State::new());
            *state.used.lock().unwrap() = start + Duration::from_secs((10 * number).into());
            let flow = FlowId(number.into());
            table
                .by_flow
                .insert(flow, Connection { peer, queue, state });
            table.by_peer.insert(peer, flow);
        }
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(table.make_room(after(0), 4));
        assert!(!table.make_room(after(69), 3), "all were used just now");
        *table.by_flow[&FlowId(1)].state.used.lock().unwrap() = after(40);
        assert!(!table.make_room(after(79), 3));
        let state = Arc::clone(&table.by_flow[&FlowId(2)].state);
        assert!(table.make_room(after(80), 3));
        let mut left: Vec<u64> = table.by_flow.keys().map(|flow| flow.0).collect();
        left.sort_unstable();
        assert_eq!((left, table.by_peer.len()), (vec![1, 3], 2));
        assert!(!state.open.load(Relaxed));
    }

    #[test]
    fn only_final_responses_answer() {
        let state = State::new();
        state.owed.store(2, Relaxed);
        for (bytes, owed) in [
            ("SIP/2.0 180 Ringing", 2),
            ("BYE sip:a SIP/2.0", 2),
            ("\r\n", 2),
            ("SIP/2.0 200 OK", 1),
            ("SIP/2.0 603 Decline", 0),
            ("SIP/2.0 200 OK", 0),
        ] {
            state.note_written(bytes.as_bytes());
            assert_eq!(state.owed.load(Relaxed), owed, "{bytes}");
        }
    }
}
