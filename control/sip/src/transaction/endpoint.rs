//! The owner of all transactions: what the user calls, and the clock.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::client::{Cancelling, Client, Fallback, ForkAck};
use super::congestion::Streams;
use super::keys::ack_key;
use super::machine::{ClientInput, ClientState, ServerInput, ServerState};
use super::server::{Reply, Server};
use super::types::{
    CancelOutcome, ClientTx, Config, Event, FlowId, SendError, ServerTx, Stats, Target, Transmit,
    TxId,
};
use crate::message::{MAGIC_COOKIE, Method, Request, Response};

/// The transaction layer: owns every transaction, opens no socket, reads no clock.
///
/// After each call take everything from [`poll_transmit`](Endpoint::poll_transmit) and
/// [`poll_event`](Endpoint::poll_event), and call
/// [`handle_timeout`](Endpoint::handle_timeout) at [`poll_timeout`](Endpoint::poll_timeout).
#[derive(Debug)]
pub struct Endpoint {
    pub(super) config: Config,
    pub(super) random: StdRng,
    /// Makes the tags of answers without a transaction the same for each repetition.
    secret: u64,
    last_id: u64,
    /// Boxed, as the servers are: the tables grow by doubling and never shrink.
    pub(super) clients: HashMap<ClientTx, Box<Client>>,
    /// By branch; a CANCEL has its INVITE's branch, hence the flag.
    pub(super) client_index: HashMap<(String, bool), ClientTx>,
    pub(super) servers: HashMap<ServerTx, Box<Server>>,
    pub(super) transaction_index: HashMap<String, ServerTx>,
    pub(super) request_index: HashMap<String, ServerTx>,
    pub(super) ack_index: HashMap<String, ServerTx>,
    pub(super) deadlines: BTreeSet<(Instant, TxId)>,
    pub(super) scheduled: HashMap<TxId, Instant>,
    pub(super) transmits: VecDeque<Transmit>,
    pub(super) events: VecDeque<Event>,
    pub(super) stats: Stats,
    pub(super) streams: Streams,
}

impl Endpoint {
    /// A layer without transactions.
    pub fn new(config: Config) -> Endpoint {
        let mut random = match config.seed {
            Some(seed) => StdRng::seed_from_u64(seed),
            None => StdRng::from_os_rng(),
        };
        Endpoint {
            secret: config.secret.unwrap_or_else(|| random.random()),
            config,
            random,
            last_id: 0,
            clients: HashMap::new(),
            client_index: HashMap::new(),
            servers: HashMap::new(),
            transaction_index: HashMap::new(),
            request_index: HashMap::new(),
            ack_index: HashMap::new(),
            deadlines: BTreeSet::new(),
            scheduled: HashMap::new(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            stats: Stats::default(),
            streams: Streams::default(),
        }
    }

    /// The next bytes to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`handle_timeout`](Endpoint::handle_timeout) is due next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// What was dropped and answered by the layer itself.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Numbers of client and server transactions alive.
    pub fn transactions(&self) -> (usize, usize) {
        (self.clients.len(), self.servers.len())
    }

    /// A fresh tag for From or To: 64 random bits.
    pub fn new_tag(&mut self) -> String {
        format!("{:016x}", self.random.random::<u64>())
    }

    /// A fresh Call-ID: 128 random bits and the host.
    pub fn new_call_id(&mut self, host: &str) -> String {
        format!("{:032x}@{host}", self.random.random::<u128>())
    }

    /// The To tag that the layer puts into this transaction's responses where the user gives
    /// none: use it as the dialog's local tag.
    pub fn local_tag(&self, tx: ServerTx) -> Option<&str> {
        self.servers.get(&tx).map(|server| server.tag.as_str())
    }

    /// Whether this server transaction still awaits its final response.
    pub fn awaits_response(&self, tx: ServerTx) -> bool {
        let server = self.servers.get(&tx);
        server.is_some_and(|one| matches!(one.state, ServerState::Trying | ServerState::Proceeding))
    }

    /// Sends a request in a new transaction. Via is put on top, Max-Forwards (70) and
    /// Content-Length are added where they are missing.
    ///
    /// # Errors
    /// ACK and CANCEL have their own ways; From, To, Call-ID and a CSeq of the request's
    /// method must be there.
    pub fn send_request(
        &mut self,
        now: Instant,
        request: Request,
        target: &Target,
    ) -> Result<ClientTx, SendError> {
        self.send_marked(now, request, target, "")
    }

    /// The same with a mark at the end of the branch, by which we know the request again should it
    /// come back (RFC 5393 section 4.2). The mark is a token (RFC 3261 section 25.1), or empty.
    ///
    /// # Errors
    /// As for [`Endpoint::send_request`].
    pub fn send_marked(
        &mut self,
        now: Instant,
        mut request: Request,
        target: &Target,
        mark: &str,
    ) -> Result<ClientTx, SendError> {
        if matches!(request.method, Method::Ack | Method::Cancel) {
            return Err(SendError::WrongMethod);
        }
        if self.clients.len() >= self.config.transactions_max * 2 {
            return Err(SendError::TooMany);
        }
        complete(&request)?;
        let stream = self.stream_for(now, &request, target);
        let branch = self.new_branch(mark);
        let fallback = stream.as_ref().map(|_| {
            let mut datagram = request.clone();
            let via = prepare(&mut datagram, target, &branch);
            Fallback {
                target: target.clone(),
                via,
                bytes: datagram.to_bytes().into(),
                since: now,
            }
        });
        let target = stream.unwrap_or_else(|| target.clone());
        prepare(&mut request, &target, &branch);
        let mut client = Client::new(now, request, branch.clone(), target, self.config.timers);
        client.set_fallback(fallback);
        Ok(self.start_client(client, branch, false))
    }

    pub(super) fn start_client(
        &mut self,
        client: Client,
        branch: String,
        cancel: bool,
    ) -> ClientTx {
        let tx = ClientTx(self.next_id());
        let target = client.target.clone();
        let mut transmit = transmit_of(&target, client.bytes(), Some(TxId::Client(tx)));
        transmit.has_fallback = client.has_fallback();
        self.reschedule(TxId::Client(tx), client.deadline());
        self.clients.insert(tx, Box::new(client));
        self.client_index.insert((branch, cancel), tx);
        self.push_transmit(transmit);
        tx
    }

    /// Sends the ACK of a 2xx and keeps it for repeated 2xx of the same fork while the
    /// INVITE's transaction lives. If it lives no more, the ACK is sent once.
    ///
    /// # Errors
    /// Not an ACK, or a header it needs is missing.
    pub fn send_ack(
        &mut self,
        now: Instant,
        tx: ClientTx,
        ack: Request,
        target: &Target,
    ) -> Result<(), SendError> {
        if ack.method != Method::Ack {
            return Err(SendError::WrongMethod);
        }
        let to_tag = ack.headers.to_tag().unwrap_or_default();
        self.send_stateless(now, ack, target)?;
        let sent = self.transmits.back().cloned();
        if let Some(client) = self.clients.get_mut(&tx)
            && let Some((_, fork)) = client.fork(&to_tag)
        {
            *fork = ForkAck {
                to_tag,
                transmit: sent,
            };
        }
        Ok(())
    }

    /// Sends a request without a transaction: the ACK of a 2xx whose transaction is gone.
    ///
    /// # Errors
    /// A header it needs is missing.
    pub fn send_stateless(
        &mut self,
        _now: Instant,
        mut request: Request,
        target: &Target,
    ) -> Result<(), SendError> {
        complete(&request)?;
        let branch = self.new_branch("");
        prepare(&mut request, target, &branch);
        self.transmit(target, request.to_bytes().into(), None);
        Ok(())
    }

    /// Cancels an INVITE: at once when a provisional response has come, else when the first
    /// one comes. `headers` (Reason) are added to the CANCEL. The INVITE's end is still
    /// told: as its final response, or as a timeout 64*T1 after the CANCEL.
    ///
    /// # Errors
    /// Not an INVITE, or it has its final response.
    pub fn cancel(
        &mut self,
        now: Instant,
        tx: ClientTx,
        headers: &[(&str, &str)],
    ) -> Result<CancelOutcome, SendError> {
        let client = self.clients.get_mut(&tx).ok_or(SendError::NoTransaction)?;
        if !client.is_invite() {
            return Err(SendError::WrongMethod);
        }
        if client.cancelling != Cancelling::No {
            return Ok(CancelOutcome::Repeated);
        }
        let owned = headers
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect();
        match client.state {
            ClientState::Started => {
                client.cancelling = Cancelling::Waiting(owned);
                Ok(CancelOutcome::Waiting)
            }
            ClientState::Proceeding => {
                client.cancelling = Cancelling::Waiting(owned);
                self.send_cancel(now, tx);
                Ok(CancelOutcome::Sent)
            }
            _ => Err(SendError::AlreadyFinal),
        }
    }

    /// Sends the CANCEL that waits, if one does.
    pub(super) fn send_cancel(&mut self, now: Instant, tx: ClientTx) {
        let Some(client) = self.clients.get_mut(&tx) else {
            return;
        };
        let Cancelling::Waiting(headers) =
            std::mem::replace(&mut client.cancelling, Cancelling::No)
        else {
            return;
        };
        let request = client.cancel_request(&headers);
        client.cancel_sent(now);
        let (branch, target, deadline) = (
            client.branch.clone(),
            client.target.clone(),
            client.deadline(),
        );
        self.reschedule(TxId::Client(tx), deadline);
        let mut cancel = Client::new(now, request, branch.clone(), target, self.config.timers);
        cancel.internal = true;
        self.start_client(cancel, branch, true);
    }

    /// Answers a request: provisional responses any number of times, a final one once. A To
    /// tag is added where none is; Content-Length is set. A 2xx to an INVITE is repeated until
    /// its ACK comes.
    ///
    /// # Errors
    /// The transaction is gone or has its final response; a provisional other than 100 to
    /// another method than INVITE.
    pub fn respond(
        &mut self,
        now: Instant,
        tx: ServerTx,
        mut response: Response,
    ) -> Result<(), SendError> {
        let server = self.servers.get_mut(&tx).ok_or(SendError::NoTransaction)?;
        if !matches!(server.state, ServerState::Trying | ServerState::Proceeding) {
            return Err(SendError::AlreadyFinal);
        }
        let input = match response.status {
            100..=199 => ServerInput::Provisional,
            200..=299 => ServerInput::Success,
            300..=699 => ServerInput::Failure,
            _ => return Err(SendError::Status),
        };
        if !server.is_invite() && input == ServerInput::Provisional && response.status != 100 {
            return Err(SendError::Provisional);
        }
        if !server.is_invite() && response.status == 408 {
            // Its sender has given up by itself; a late 408 only harms (RFC 4320 section 4.2).
            self.end_server(tx);
            return Ok(());
        }
        if response.status != 100 {
            response.set_to_tag(&server.tag);
        }
        response.set_content_length();
        if response.is_final() && server.is_invite() {
            let headers = &response.headers;
            let cseq = headers.cseq().map_err(|_| SendError::Header("CSeq"))?;
            let call_id = headers
                .call_id()
                .map_err(|_| SendError::Header("Call-ID"))?;
            let (from, to) = (headers.from_tag(), headers.to_tag());
            let key = ack_key(
                &call_id,
                &cseq,
                &from.unwrap_or_default(),
                &to.unwrap_or_default(),
            );
            server.ack_key = Some(key.clone());
            self.ack_index.insert(key, tx);
        }
        server.last = Some((response.status, response.to_bytes().into()));
        let actions = server.step(now, input);
        self.act_server(now, tx, actions);
        Ok(())
    }

    /// Sends a provisional response that the caller has to acknowledge by PRACK (RFC 3262):
    /// Require and RSeq are added, it is repeated until [`Endpoint::acknowledge_reliable`] or
    /// a final response. Gives its RSeq. One at a time: the next waits for the PRACK.
    ///
    /// # Errors
    /// As for [`Endpoint::respond`]; `AlreadyFinal` also while another one is unacknowledged.
    pub fn respond_reliably(
        &mut self,
        now: Instant,
        tx: ServerTx,
        mut response: Response,
    ) -> Result<u32, SendError> {
        let first = self.random.random_range(1..=0x7fff_ffff_u32);
        let server = self.servers.get_mut(&tx).ok_or(SendError::NoTransaction)?;
        if !server.is_invite() || !(101..=199).contains(&response.status) {
            return Err(SendError::Provisional);
        }
        if server.state != ServerState::Proceeding || server.reliable.is_some() {
            return Err(SendError::AlreadyFinal);
        }
        server.rseq = if server.rseq == 0 {
            first
        } else {
            server.rseq.wrapping_add(1).max(1)
        };
        let rseq = server.rseq;
        if !response.headers.list_contains("Require", "100rel") {
            response.headers.append("Require", "100rel");
        }
        response.headers.set("RSeq", rseq.to_string());
        response.set_to_tag(&server.tag);
        response.set_content_length();
        let bytes: Arc<[u8]> = response.to_bytes().into();
        server.start_reliable(now, bytes);
        self.respond(now, tx, response)?;
        Ok(rseq)
    }

    /// The PRACK of this RSeq came (the user answers it 200): no more repetitions. Says
    /// whether it was the one awaited; if not, answer the PRACK 481.
    pub fn acknowledge_reliable(&mut self, tx: ServerTx, rseq: u32) -> bool {
        let Some(server) = self.servers.get_mut(&tx) else {
            return false;
        };
        if server
            .reliable
            .as_ref()
            .is_none_or(|wait| wait.rseq != rseq)
        {
            return false;
        }
        server.reliable = None;
        let deadline = server.deadline();
        self.reschedule(TxId::Server(tx), deadline);
        true
    }

    /// A transmit of this transaction could not be sent.
    pub fn transport_failed(&mut self, now: Instant, origin: TxId) {
        if let TxId::Client(tx) = origin
            && !self.fall_back(now, tx)
            && let Some(client) = self.clients.get_mut(&tx)
        {
            let actions = client.step(now, ClientInput::SendFailed);
            self.act_client(now, tx, actions, None);
        }
    }

    /// A connection is gone: the requests that await their answer on it fail now.
    pub fn flow_closed(&mut self, now: Instant, flow: FlowId, remote: SocketAddr) {
        let on_it = |client: &Client| {
            let target = &client.target;
            let same = target
                .flow
                .map_or(target.remote == remote, |own| own == flow);
            target.transport.is_reliable() && same
        };
        let mut lost: Vec<ClientTx> = self
            .clients
            .iter()
            .filter(|(_, client)| on_it(client))
            .map(|(tx, _)| *tx)
            .collect();
        lost.sort_unstable();
        for tx in lost {
            self.transport_failed(now, TxId::Client(tx));
        }
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// A random number, what the secret makes of it (see [`Endpoint::made`]), and the mark.
    fn new_branch(&mut self, mark: &str) -> String {
        let random = format!("{:016x}", self.random.random::<u64>());
        let proof = self.stateless_tag(&random);
        let dot = if mark.is_empty() { "" } else { "." };
        format!("{MAGIC_COOKIE}{random}{proof}{dot}{mark}")
    }

    /// Whether the request that this response answers was made by this layer, though its transaction may
    /// be long over.
    pub fn made(&self, response: &Response) -> bool {
        let via = response.headers.via();
        let proven = via.as_ref().ok().and_then(|via| {
            let unique = via.branch()?.strip_prefix(MAGIC_COOKIE)?;
            unique.split('.').next()?.split_at_checked(16)
        });
        proven.is_some_and(|(random, proof)| self.stateless_tag(random) == proof)
    }

    pub(super) fn transmit(&mut self, target: &Target, bytes: Arc<[u8]>, origin: Option<TxId>) {
        self.transmits.push_back(transmit_of(target, bytes, origin));
    }

    pub(super) fn reply(&mut self, reply: &Reply, bytes: Arc<[u8]>, origin: Option<TxId>) {
        let Reply {
            transport,
            flow,
            remote,
        } = *reply;
        self.transmits.push_back(Transmit {
            transport,
            flow: Some(flow),
            remote,
            bytes,
            origin,
            has_fallback: false,
        });
    }

    pub(super) fn push_transmit(&mut self, transmit: Transmit) {
        self.transmits.push_back(transmit);
    }

    /// A tag that is the same for each repetition of a request.
    pub(super) fn stateless_tag(&self, key: &str) -> String {
        let mut hasher = DefaultHasher::new();
        (self.secret, key).hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }
}

pub(super) fn transmit_of(target: &Target, bytes: Arc<[u8]>, origin: Option<TxId>) -> Transmit {
    let Target {
        transport,
        flow,
        remote,
        ..
    } = *target;
    Transmit {
        transport,
        flow,
        remote,
        bytes,
        origin,
        has_fallback: false,
    }
}

/// Puts Via on top and completes what may be missing. Gives the Via.
fn prepare(request: &mut Request, target: &Target, branch: &str) -> String {
    let rport = if target.transport.is_reliable() {
        ""
    } else {
        ";rport"
    };
    let via = format!(
        "SIP/2.0/{} {};branch={branch}{rport}",
        target.transport.via_name(),
        target.sent_by
    );
    request.headers.prepend("Via", &via);
    if !request.headers.contains("Max-Forwards") {
        request.headers.append("Max-Forwards", "70");
    }
    request.set_content_length();
    via
}

/// Whether a request of ours has what every request needs.
fn complete(request: &Request) -> Result<(), SendError> {
    let headers = &request.headers;
    headers
        .from_address()
        .map_err(|_| SendError::Header("From"))?;
    headers.to_address().map_err(|_| SendError::Header("To"))?;
    headers
        .call_id()
        .map_err(|_| SendError::Header("Call-ID"))?;
    let cseq = headers.cseq().map_err(|_| SendError::Header("CSeq"))?;
    if cseq.method == request.method {
        Ok(())
    } else {
        Err(SendError::Header("CSeq"))
    }
}
