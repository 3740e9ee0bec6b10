//! Messages coming in: judged, matched to their transactions, answered where the layer itself
//! can.

use std::time::Instant;

use super::client::ForkAck;
use super::endpoint::Endpoint;
use super::keys::RequestKeys;
use super::machine::{ClientInput, ServerInput, ServerState};
use super::server::{Reply, Server};
use super::types::{Event, Path, ServerTx, TxId};
use crate::message::{
    Message, Method, ParseError, Rejected, Request, Response, judge_request, judge_response,
    parse_datagram,
};

impl Endpoint {
    /// One datagram. Keepalives are ignored, bad requests answered or dropped as RFC 3261
    /// says, everything counted.
    pub fn handle_datagram(&mut self, now: Instant, path: Path, bytes: &[u8]) {
        match parse_datagram(bytes) {
            Ok(message) => self.handle_message(now, path, message),
            Err(rejected) => self.handle_rejected(now, path, &rejected),
        }
    }

    /// A message that did not parse: answered where it can be, else dropped and counted.
    pub fn handle_rejected(&mut self, _now: Instant, path: Path, rejected: &Rejected) {
        if rejected.error == Some(ParseError::Empty) {
            return;
        }
        let Some(mut response) = rejected.response(path.source) else {
            self.stats.malformed_dropped += 1;
            return;
        };
        self.stats.malformed_answered += 1;
        self.send_stateless_response(&path, &mut response);
    }

    /// A message from a stream, or one parsed elsewhere.
    pub fn handle_message(&mut self, now: Instant, path: Path, message: Message) {
        match message {
            Message::Request(request) => self.handle_request(now, path, request),
            Message::Response(response) => self.handle_response(now, path, response),
        }
    }

    fn handle_request(&mut self, now: Instant, path: Path, mut request: Request) {
        if let Err(fault) = judge_request(&request) {
            let (method, headers) = (Some(request.method), request.headers);
            let rejected = Rejected {
                fault,
                error: None,
                method,
                headers,
            };
            self.handle_rejected(now, path, &rejected);
            return;
        }
        if request.headers.note_source(path.source).is_err() {
            self.stats.malformed_dropped += 1;
            return;
        }
        let Ok(keys) = RequestKeys::of(&request) else {
            self.stats.malformed_dropped += 1;
            return;
        };
        match request.method {
            Method::Ack => self.handle_ack(now, path, request, &keys),
            Method::Cancel => self.handle_cancel(path, request, &keys),
            _ => match self.transaction_index.get(&keys.transaction).copied() {
                Some(tx) => self.handle_repeated(now, tx),
                None => self.handle_new(now, path, request, keys),
            },
        }
    }

    fn handle_repeated(&mut self, now: Instant, tx: ServerTx) {
        let Some(server) = self.servers.get_mut(&tx) else {
            return;
        };
        self.stats.repeated_requests += 1;
        let actions = server.step(now, ServerInput::Request);
        self.act_server(now, tx, actions);
    }

    fn handle_new(&mut self, now: Instant, path: Path, request: Request, keys: RequestKeys) {
        let in_dialog = keys.to_tag.is_some();
        let alive = self.clients.len() + self.servers.len();
        let room = self.config.transactions_max * if in_dialog { 2 } else { 1 };
        if alive >= room {
            self.stats.overloaded += 1;
            let mut response = Response::to(&request, 503);
            response
                .headers
                .append("Retry-After", self.config.retry_after_s.to_string());
            self.send_stateless_response(&path, &mut response);
            return;
        }
        if !in_dialog && self.is_merged(&keys) {
            self.stats.merged += 1;
            let mut response = Response::to(&request, 482);
            self.send_stateless_response(&path, &mut response);
            return;
        }
        let Ok(via) = request.headers.via() else {
            return;
        };
        let tx = ServerTx(self.next_id());
        let tag = keys.to_tag.clone().unwrap_or_else(|| self.new_tag());
        self.transaction_index.insert(keys.transaction.clone(), tx);
        self.request_index.insert(keys.request.clone(), tx);
        let (method, reply) = (request.method.clone(), Reply::new(&path, &via));
        let mut server = Server::new(now, method, keys, reply, tag, self.config.timers);
        if server.is_invite() {
            let mut trying = Response::to(&request, 100);
            self.finish(&mut trying);
            server.trying = Some(trying.to_bytes().into());
        }
        self.reschedule(TxId::Server(tx), server.deadline());
        self.servers.insert(tx, Box::new(server));
        self.events.push_back(Event::Request { tx, request, path });
    }

    /// Whether the same request came by another way and is still being handled (RFC 3261
    /// section 8.2.2.2).
    fn is_merged(&self, keys: &RequestKeys) -> bool {
        let earlier = self
            .request_index
            .get(&keys.request)
            .and_then(|tx| self.servers.get(tx));
        earlier.is_some_and(|server| server.keys.to_tag.is_none())
    }

    fn handle_ack(&mut self, now: Instant, path: Path, request: Request, keys: &RequestKeys) {
        let by_branch = self.transaction_index.get(&keys.transaction).copied();
        let by_branch =
            by_branch.filter(|tx| self.servers.get(tx).is_some_and(|one| one.is_invite()));
        let found = by_branch.or_else(|| self.ack_index.get(&keys.dialog).copied());
        let Some(server) = found.and_then(|tx| self.servers.get_mut(&tx)) else {
            // Perhaps a dialog knows it; without a To tag none can.
            if keys.to_tag.is_some() {
                self.events.push_back(Event::Ack {
                    invite: None,
                    request,
                    path,
                });
            }
            return;
        };
        let Some(tx) = found else { return };
        match server.state {
            ServerState::Accepted if !server.acked => {
                server.acknowledged();
                self.events.push_back(Event::Ack {
                    invite: Some(tx),
                    request,
                    path,
                });
                self.settle_server(tx);
            }
            ServerState::Completed => {
                let actions = server.step(now, ServerInput::Ack);
                self.act_server(now, tx, actions);
            }
            _ => self.stats.repeated_acks += 1,
        }
    }

    fn handle_cancel(&mut self, path: Path, request: Request, keys: &RequestKeys) {
        let invite = |tx: &ServerTx| self.servers.get(tx).is_some_and(|one| one.is_invite());
        // An element that rewrites Via on the way changes branch or sent-by; Call-ID, From
        // tag and CSeq still name the INVITE.
        let found = self
            .transaction_index
            .get(&keys.transaction)
            .copied()
            .filter(invite);
        let found = found.or_else(|| {
            self.request_index
                .get(&keys.request)
                .copied()
                .filter(invite)
        });
        let Some((tx, server)) = found.and_then(|tx| Some((tx, self.servers.get_mut(&tx)?))) else {
            self.stats.unmatched_cancels += 1;
            let mut response = Response::to(&request, 481);
            self.send_stateless_response(&path, &mut response);
            return;
        };
        let first = server.state == ServerState::Proceeding && !server.cancelled;
        server.cancelled = true;
        let tag = server.tag.clone();
        let mut response = Response::to(&request, 200);
        response.set_to_tag(&tag);
        self.send_stateless_response(&path, &mut response);
        if first {
            self.events.push_back(Event::Cancel {
                invite: tx,
                cancel: request,
            });
        }
    }

    fn handle_response(&mut self, now: Instant, path: Path, response: Response) {
        if judge_response(&response).is_err() {
            self.stats.malformed_dropped += 1;
            return;
        }
        let headers = &response.headers;
        let (Ok(via), Ok(cseq)) = (headers.via(), headers.cseq()) else {
            return;
        };
        // We are the first to have sent it: a second Via means it went astray (RFC 3261
        // section 8.1.3.3).
        let ours = headers.list("Via").len() == 1;
        let cancel = cseq.method == Method::Cancel;
        let branch = via.branch().unwrap_or("").to_owned();
        let found = self
            .client_index
            .get(&(branch, cancel))
            .copied()
            .filter(|_| ours);
        let found = found.and_then(|tx| {
            let client = self.clients.get_mut(&tx)?;
            (client.request.method == cseq.method).then_some((tx, client))
        });
        let Some((tx, client)) = found else {
            let unmatched = Event::StrayResponse { response, path };
            self.stray(unmatched, cseq.method);
            return;
        };
        let input = match response.status {
            ..=199 => ClientInput::Provisional,
            200..=299 => ClientInput::Success,
            _ => ClientInput::Failure,
        };
        if input == ClientInput::Failure && client.is_invite() {
            client.acknowledge_if_open(&response);
        }
        if input == ClientInput::Success && client.is_invite() {
            let to_tag = response.headers.to_tag().unwrap_or_default();
            match client.fork(&to_tag) {
                Some((true, _)) => {}
                Some((false, ForkAck { transmit, .. })) => {
                    if let Some(ack) = transmit.clone() {
                        self.stats.retransmissions += 1;
                        self.push_transmit(ack);
                    }
                    return;
                }
                None => {
                    self.stats.stray_responses += 1;
                    return;
                }
            }
        }
        let actions = client.step(now, input);
        self.act_client(now, tx, actions, Some((response, path)));
        if input == ClientInput::Provisional {
            self.send_cancel(now, tx);
        }
    }

    fn stray(&mut self, event: Event, method: Method) {
        self.stats.stray_responses += 1;
        if let Event::StrayResponse { response, .. } = &event
            && response.is_success()
            && method == Method::Invite
            && response.headers.list("Via").len() == 1
        {
            self.events.push_back(event);
        }
    }

    /// Sends a response that no transaction keeps; each repetition of the request gets the
    /// same again.
    fn send_stateless_response(&mut self, path: &Path, response: &mut Response) {
        let Ok(via) = response.headers.via() else {
            return;
        };
        let call_id = response
            .headers
            .get("Call-ID")
            .unwrap_or_default()
            .into_owned();
        let tag = self.stateless_tag(&format!("{call_id} {via}"));
        response.set_to_tag(&tag);
        self.finish(response);
        let reply = Reply::new(path, &via);
        self.reply(&reply, response.to_bytes().into(), None);
    }

    fn finish(&self, response: &mut Response) {
        if !self.config.server.is_empty() {
            response.headers.set("Server", &self.config.server);
        }
        response.set_content_length();
    }
}
