//! One SIP end: a UDP socket, a TCP listener and connections around the transaction layer.
//! Events go to the call they belong to, found by Call-ID.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Notify, mpsc};
use trunkline_sip::message::{Method, Request, Response, StreamDecoder, StreamItem};
use trunkline_sip::transaction::{
    ClientTx, Config, Endpoint, Event, FlowId, Path, SendError, ServerTx, Target, Transmit,
    Transport,
};

/// The UDP socket's flow.
const UDP: FlowId = FlowId(0);

/// What a call is told.
#[derive(Debug)]
pub enum CallEvent {
    /// A response to one of its requests.
    Response(ClientTx, Response),
    /// One of its requests got no response, or could not be sent.
    Failed(ClientTx),
    /// A request of the far end.
    Request(ServerTx, Request),
    /// The far end cancels its INVITE.
    Cancel,
    /// The far end's ACK of a 2xx.
    Ack,
    /// Its 2xx was never acknowledged.
    NoAck,
}

/// A call's inbox.
pub type CallEvents = mpsc::UnboundedReceiver<CallEvent>;

type Sender = mpsc::UnboundedSender<CallEvent>;

/// See the module.
#[derive(Debug)]
pub struct Agent {
    local: SocketAddr,
    udp: UdpSocket,
    inner: Mutex<Inner>,
    timer_changed: Notify,
    last_flow: AtomicU64,
}

#[derive(Debug)]
struct Inner {
    endpoint: Endpoint,
    calls: HashMap<String, Sender>,
    clients: HashMap<ClientTx, Sender>,
    servers: HashMap<ServerTx, Sender>,
    /// New INVITEs, with the inbox made for them.
    incoming: Option<mpsc::UnboundedSender<(ServerTx, Request, CallEvents)>>,
    /// Open TCP connections, and those that we opened by their far end.
    streams: HashMap<FlowId, mpsc::UnboundedSender<Arc<[u8]>>>,
    connected: HashMap<SocketAddr, FlowId>,
}

impl Agent {
    /// Binds the UDP socket, and TCP on the same port when wanted, and starts serving.
    /// New INVITEs go to `incoming`; without it they are refused.
    ///
    /// # Errors
    /// The address cannot be had.
    pub async fn start(
        local: SocketAddr,
        tcp: bool,
        incoming: Option<mpsc::UnboundedSender<(ServerTx, Request, CallEvents)>>,
    ) -> io::Result<Arc<Self>> {
        let udp = UdpSocket::bind(local).await?;
        let local = udp.local_addr()?;
        let listener = match tcp {
            true => Some(TcpListener::bind(local).await?),
            false => None,
        };
        let inner = Inner {
            endpoint: Endpoint::new(Config::default()),
            calls: HashMap::new(),
            clients: HashMap::new(),
            servers: HashMap::new(),
            incoming,
            streams: HashMap::new(),
            connected: HashMap::new(),
        };
        let agent = Arc::new(Self {
            local,
            udp,
            inner: Mutex::new(inner),
            timer_changed: Notify::new(),
            last_flow: AtomicU64::new(UDP.0),
        });
        tokio::spawn(Arc::clone(&agent).serve());
        if let Some(listener) = listener {
            tokio::spawn(Arc::clone(&agent).accept(listener));
        }
        Ok(agent)
    }

    /// The address of the UDP socket (and of TCP).
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// An inbox for a call that starts here.
    pub fn open_call(&self, call_id: &str) -> CallEvents {
        let (sender, events) = mpsc::unbounded_channel();
        self.lock().calls.insert(call_id.to_owned(), sender);
        events
    }

    /// Forgets a call.
    pub fn close_call(&self, call_id: &str) {
        let mut inner = self.lock();
        if let Some(sender) = inner.calls.remove(call_id) {
            inner.clients.retain(|_, own| !own.same_channel(&sender));
            inner.servers.retain(|_, own| !own.same_channel(&sender));
        }
    }

    /// A fresh tag and Call-ID.
    pub fn new_ids(&self) -> (String, String) {
        let mut inner = self.lock();
        let tag = inner.endpoint.new_tag();
        let host = self.local.ip().to_string();
        (tag, inner.endpoint.new_call_id(&host))
    }

    /// Where a request to this address goes, over this transport.
    pub fn target(&self, transport: Transport, remote: SocketAddr) -> Target {
        let flow = (transport == Transport::Udp).then_some(UDP);
        Target::new(transport, flow, self.local, remote)
    }

    /// Sends a request of a call.
    ///
    /// # Errors
    /// The request is not whole, or there are too many transactions.
    pub fn send(
        self: &Arc<Self>,
        call_id: &str,
        request: Request,
        target: &Target,
    ) -> Result<ClientTx, SendError> {
        self.with(|inner| {
            let tx = inner
                .endpoint
                .send_request(Instant::now(), request, target)?;
            if let Some(sender) = inner.calls.get(call_id) {
                inner.clients.insert(tx, sender.clone());
            }
            Ok(tx)
        })
    }

    /// Sends the ACK of a 2xx.
    ///
    /// # Errors
    /// There was no 2xx.
    pub fn send_ack(
        self: &Arc<Self>,
        tx: ClientTx,
        ack: Request,
        target: &Target,
    ) -> Result<(), SendError> {
        self.with(|inner| inner.endpoint.send_ack(Instant::now(), tx, ack, target))
    }

    /// Cancels an INVITE.
    pub fn cancel(self: &Arc<Self>, tx: ClientTx) {
        // Refused only when its final response is already on its way to the call.
        let _ = self.with(|inner| inner.endpoint.cancel(Instant::now(), tx, &[]));
    }

    /// Answers a request.
    pub fn respond(self: &Arc<Self>, tx: ServerTx, response: Response) {
        // Refused only when the transaction is over, and with it the need of an answer.
        let _ = self.with(|inner| inner.endpoint.respond(Instant::now(), tx, response));
    }

    /// The tag of our answers to this request.
    pub fn local_tag(&self, tx: ServerTx) -> String {
        self.lock()
            .endpoint
            .local_tag(tx)
            .unwrap_or_default()
            .to_owned()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the transactions, then sends and delivers what came of it.
    fn with<T>(self: &Arc<Self>, work: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.lock();
        let result = work(&mut inner);
        self.settle(&mut inner);
        drop(inner);
        self.timer_changed.notify_one();
        result
    }

    fn settle(self: &Arc<Self>, inner: &mut Inner) {
        loop {
            let mut idle = true;
            while let Some(transmit) = inner.endpoint.poll_transmit() {
                idle = false;
                self.transmit(inner, transmit);
            }
            while let Some(event) = inner.endpoint.poll_event() {
                idle = false;
                inner.deliver(event);
            }
            if idle {
                return;
            }
        }
    }

    fn transmit(self: &Arc<Self>, inner: &mut Inner, transmit: Transmit) {
        let Transmit {
            transport,
            flow,
            remote,
            bytes,
            origin,
            ..
        } = transmit;
        let sent = match transport {
            Transport::Udp => self.udp.try_send_to(&bytes, remote).is_ok(),
            Transport::Tcp => {
                let flow = flow
                    .filter(|flow| inner.streams.contains_key(flow))
                    .or_else(|| inner.connected.get(&remote).copied())
                    .unwrap_or_else(|| self.connect(inner, remote));
                inner
                    .streams
                    .get(&flow)
                    .is_some_and(|stream| stream.send(bytes).is_ok())
            }
            Transport::Tls => false,
        };
        if let Some(origin) = origin.filter(|_| !sent) {
            inner.endpoint.transport_failed(Instant::now(), origin);
        }
    }

    /// Begins a TCP connection; what is sent meanwhile waits in its queue.
    fn connect(self: &Arc<Self>, inner: &mut Inner, remote: SocketAddr) -> FlowId {
        let flow = self.new_flow();
        let (queue, outbox) = mpsc::unbounded_channel();
        inner.streams.insert(flow, queue);
        inner.connected.insert(remote, flow);
        let agent = Arc::clone(self);
        tokio::spawn(async move {
            match tokio::time::timeout(Duration::from_secs(4), TcpStream::connect(remote)).await {
                Ok(Ok(stream)) => agent.serve_stream(stream, flow, remote, outbox).await,
                Ok(Err(_)) | Err(_) => agent.close_flow(flow, remote),
            }
        });
        flow
    }

    fn new_flow(&self) -> FlowId {
        FlowId(self.last_flow.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn close_flow(self: &Arc<Self>, flow: FlowId, remote: SocketAddr) {
        self.with(|inner| {
            inner.streams.remove(&flow);
            if inner.connected.get(&remote) == Some(&flow) {
                inner.connected.remove(&remote);
            }
            inner.endpoint.flow_closed(Instant::now(), flow, remote);
        });
    }

    async fn serve(self: Arc<Self>) {
        let mut buffer = vec![0_u8; 65_536];
        loop {
            let deadline = self.lock().endpoint.poll_timeout();
            let sleep = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                received = self.udp.recv_from(&mut buffer) => {
                    if let Ok((length, source)) = received {
                        let path = self.path(Transport::Udp, UDP, source);
                        self.with(|inner| {
                            inner.endpoint.handle_datagram(Instant::now(), path, &buffer[..length]);
                        });
                    }
                }
                () = sleep => {
                    self.with(|inner| inner.endpoint.handle_timeout(Instant::now()));
                }
                () = self.timer_changed.notified() => {}
            }
        }
    }

    async fn accept(self: Arc<Self>, listener: TcpListener) {
        loop {
            let Ok((stream, remote)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let flow = self.new_flow();
            let (queue, outbox) = mpsc::unbounded_channel();
            self.lock().streams.insert(flow, queue);
            let agent = Arc::clone(&self);
            tokio::spawn(async move { agent.serve_stream(stream, flow, remote, outbox).await });
        }
    }

    async fn serve_stream(
        self: Arc<Self>,
        stream: TcpStream,
        flow: FlowId,
        remote: SocketAddr,
        mut outbox: mpsc::UnboundedReceiver<Arc<[u8]>>,
    ) {
        // Small messages at once: set-up times are measured.
        let _ = stream.set_nodelay(true);
        let (mut reader, mut writer) = stream.into_split();
        let mut decoder = StreamDecoder::default();
        let mut buffer = vec![0_u8; 16_384];
        loop {
            tokio::select! {
                read = reader.read(&mut buffer) => match read {
                    Ok(length) if length > 0 => decoder.push(&buffer[..length]),
                    Ok(_) | Err(_) => break,
                },
                bytes = outbox.recv() => {
                    let Some(bytes) = bytes else { break };
                    if writer.write_all(&bytes).await.is_err() {
                        break;
                    }
                }
            }
            while let Some(item) = decoder.next_item() {
                let path = self.path(Transport::Tcp, flow, remote);
                self.with(|inner| {
                    let now = Instant::now();
                    match item {
                        StreamItem::Message(message) => {
                            inner.endpoint.handle_message(now, path, message);
                        }
                        StreamItem::Rejected(rejected) | StreamItem::Broken(rejected) => {
                            inner.endpoint.handle_rejected(now, path, &rejected);
                        }
                        StreamItem::Ping => {
                            if let Some(stream) = inner.streams.get(&flow) {
                                // A closed queue means a closed connection.
                                let _ = stream.send(b"\r\n"[..].into());
                            }
                        }
                    }
                });
            }
        }
        self.close_flow(flow, remote);
    }

    fn path(&self, transport: Transport, flow: FlowId, source: SocketAddr) -> Path {
        Path {
            transport,
            flow,
            local: self.local,
            source,
        }
    }
}

impl Inner {
    fn deliver(&mut self, event: Event) {
        match event {
            Event::Response { tx, response, .. } => {
                if let Some(call) = self.clients.get(&tx) {
                    let _ = call.send(CallEvent::Response(tx, response));
                }
            }
            Event::Timeout { tx } | Event::TransportError { tx } => {
                if let Some(call) = self.clients.remove(&tx) {
                    let _ = call.send(CallEvent::Failed(tx));
                }
            }
            Event::Request { tx, request, .. } => self.deliver_request(tx, request),
            Event::Cancel { invite, .. } => {
                if let Some(call) = self.servers.get(&invite) {
                    let _ = call.send(CallEvent::Cancel);
                }
            }
            Event::Ack { request, .. } => {
                if let Some(call) = self.call_of(&request) {
                    let _ = call.send(CallEvent::Ack);
                }
            }
            Event::NoAck { tx, .. } => {
                if let Some(call) = self.servers.get(&tx) {
                    let _ = call.send(CallEvent::NoAck);
                }
            }
            Event::NoPrack { .. } | Event::Unanswered { .. } | Event::StrayResponse { .. } => {}
        }
    }

    fn call_of(&self, request: &Request) -> Option<&Sender> {
        self.calls.get(&request.headers.call_id().ok()?)
    }

    fn deliver_request(&mut self, tx: ServerTx, request: Request) {
        if let Some(call) = self.call_of(&request).cloned() {
            self.servers.insert(tx, call.clone());
            let _ = call.send(CallEvent::Request(tx, request));
            return;
        }
        let starts = request.method == Method::Invite && request.headers.to_tag().is_none();
        let status = match (&request.method, &self.incoming, request.headers.call_id()) {
            (Method::Invite, Some(incoming), Ok(call_id)) if starts => {
                let (sender, events) = mpsc::unbounded_channel();
                self.calls.insert(call_id, sender.clone());
                self.servers.insert(tx, sender);
                // Refused only when the run is over.
                let _ = incoming.send((tx, request, events));
                return;
            }
            (Method::Options, ..) => 200,
            _ if starts => 404,
            _ => 481,
        };
        let response = Response::to(&request, status);
        let _ = self.endpoint.respond(Instant::now(), tx, response);
    }
}
