//! What the machines ask for is done here: messages sent, events raised, alarms set,
//! transactions ended.

use std::collections::HashMap;
use std::time::Instant;

use super::endpoint::{Endpoint, transmit_of};
use super::machine::{Action, ClientInput, ClientState, ServerInput, ServerState};
use super::server::ServerTimeout;
use super::types::{ClientTx, Event, Path, ServerTx, TxId};
use crate::message::{Method, Response};

impl Endpoint {
    /// Does everything that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, id)) = self.deadlines.first().copied() {
            if at > now {
                break;
            }
            match id {
                TxId::Client(tx) => self.client_timeout(now, tx),
                TxId::Server(tx) => self.server_timeout(now, tx),
            }
        }
    }

    fn client_timeout(&mut self, now: Instant, tx: ClientTx) {
        let Some(client) = self.clients.get_mut(&tx) else {
            self.reschedule(TxId::Client(tx), None);
            return;
        };
        let actions = client
            .timeout(now)
            .map_or(&[][..], |input| client.step(now, input));
        self.stats.retransmissions += u64::from(actions.contains(&Action::SendRequest));
        self.act_client(now, tx, actions, None);
    }

    fn server_timeout(&mut self, now: Instant, tx: ServerTx) {
        let Some(server) = self.servers.get_mut(&tx) else {
            self.reschedule(TxId::Server(tx), None);
            return;
        };
        match server.timeout(now) {
            Some(ServerTimeout::Machine(input)) => {
                let actions = server.step(now, input);
                self.stats.retransmissions += u64::from(actions.contains(&Action::SendResponse));
                self.act_server(now, tx, actions);
                return;
            }
            Some(ServerTimeout::Trying) => {
                if let Some(bytes) = server.trying.take() {
                    server.last = Some((100, bytes));
                    self.act_server(now, tx, &[Action::SendResponse]);
                }
            }
            Some(ServerTimeout::Reliable) => {
                let reply = server.reply;
                if let Some(wait) = &server.reliable {
                    let bytes = wait.bytes.clone();
                    self.stats.retransmissions += 1;
                    self.reply(&reply, bytes, Some(TxId::Server(tx)));
                }
            }
            Some(ServerTimeout::NoPrack) => {
                let rseq = server.reliable.take().map_or(0, |wait| wait.rseq);
                self.events.push_back(Event::NoPrack { tx, rseq });
            }
            None => {}
        }
        self.settle_server(tx);
    }

    /// Does what a client machine asked for; `incoming` is the response it was about.
    pub(super) fn act_client(
        &mut self,
        now: Instant,
        tx: ClientTx,
        actions: &[Action],
        incoming: Option<(Response, Path)>,
    ) {
        let Some(client) = self.clients.get_mut(&tx) else {
            return;
        };
        let internal = client.internal;
        let mut incoming = incoming;
        for action in actions {
            match action {
                Action::SendRequest | Action::SendAck => {
                    let (target, bytes) = (client.target.clone(), client.bytes());
                    let origin = Some(TxId::Client(tx));
                    self.transmits
                        .push_back(transmit_of(&target, bytes, origin));
                }
                Action::Deliver => {
                    if let Some((response, path)) = incoming.take().filter(|_| !internal) {
                        self.events
                            .push_back(Event::Response { tx, response, path });
                    }
                }
                Action::DeliverStray => {
                    if let Some((response, path)) = incoming.take() {
                        self.events
                            .push_back(Event::StrayResponse { response, path });
                    }
                }
                Action::Timeout if !internal => self.events.push_back(Event::Timeout { tx }),
                Action::TransportError if !internal => {
                    self.events.push_back(Event::TransportError { tx });
                }
                _ => {}
            }
        }
        // Over reliable transports the last states take no time (timers D, K zero).
        if client.deadline().is_some_and(|at| at <= now) && client.state == ClientState::Completed {
            client.timeout(now);
            client.step(now, ClientInput::Expire);
        }
        if client.state == ClientState::Terminated {
            self.end_client(tx);
        } else {
            let deadline = client.deadline();
            self.reschedule(TxId::Client(tx), deadline);
        }
    }

    /// Does what a server machine asked for.
    pub(super) fn act_server(&mut self, now: Instant, tx: ServerTx, actions: &[Action]) {
        let Some(server) = self.servers.get_mut(&tx) else {
            return;
        };
        let (reply, last, acked) = (server.reply, server.last.clone(), server.acked);
        for action in actions {
            match action {
                Action::SendResponse => {
                    if let Some((_, bytes)) = &last {
                        self.reply(&reply, bytes.clone(), Some(TxId::Server(tx)));
                    }
                }
                Action::NoAck if !acked => {
                    let status = last.as_ref().map_or(0, |(status, _)| *status);
                    self.events.push_back(Event::NoAck { tx, status });
                }
                Action::Unanswered => self.events.push_back(Event::Unanswered { tx }),
                _ => {}
            }
        }
        if let Some(server) = self.servers.get_mut(&tx) {
            let resting = matches!(
                server.state,
                ServerState::Completed | ServerState::Confirmed
            );
            if resting && server.deadline().is_some_and(|at| at <= now) {
                server.timeout(now);
                server.step(now, ServerInput::Expire);
            }
        }
        self.settle_server(tx);
    }

    /// Removes a server transaction that ended, else sets its alarm.
    pub(super) fn settle_server(&mut self, tx: ServerTx) {
        match self.servers.get(&tx) {
            Some(server) if server.state == ServerState::Terminated => self.end_server(tx),
            Some(server) => {
                let deadline = server.deadline();
                self.reschedule(TxId::Server(tx), deadline);
            }
            None => {}
        }
    }

    fn end_client(&mut self, tx: ClientTx) {
        if let Some(client) = self.clients.remove(&tx) {
            let cancel = client.request.method == Method::Cancel;
            self.client_index.remove(&(client.branch, cancel));
        }
        self.reschedule(TxId::Client(tx), None);
    }

    pub(super) fn end_server(&mut self, tx: ServerTx) {
        if let Some(server) = self.servers.remove(&tx) {
            remove_if(&mut self.transaction_index, &server.keys.transaction, tx);
            remove_if(&mut self.request_index, &server.keys.request, tx);
            if let Some(key) = &server.ack_key {
                remove_if(&mut self.ack_index, key, tx);
            }
        }
        self.reschedule(TxId::Server(tx), None);
    }

    pub(super) fn reschedule(&mut self, id: TxId, deadline: Option<Instant>) {
        let before = match deadline {
            Some(at) => self.scheduled.insert(id, at),
            None => self.scheduled.remove(&id),
        };
        if before == deadline {
            return;
        }
        if let Some(at) = before {
            self.deadlines.remove(&(at, id));
        }
        if let Some(at) = deadline {
            self.deadlines.insert((at, id));
        }
    }
}

fn remove_if(index: &mut HashMap<String, ServerTx>, key: &str, tx: ServerTx) {
    if index.get(key) == Some(&tx) {
        index.remove(key);
    }
}
