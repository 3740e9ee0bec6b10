//! Requests that are too large for UDP go by a stream (RFC 3261 section 18.1.1), and back to UDP where
//! the peer has none.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::client::Fallback;
use super::endpoint::Endpoint;
use super::types::{ClientTx, Target, Transport, TxId};
use crate::message::Request;

/// A larger request may be cut by the network, with the path's MTU unknown.
pub(super) const DATAGRAM_BYTES_MAX: usize = 1300;

/// A peer that refuses a connection sooner than that costs nothing to ask again.
const PROMPT: Duration = Duration::from_millis(200);
/// A peer that let us wait for a connection in vain is not asked for one for so long.
const WITHOUT_STREAM: Duration = Duration::from_secs(300);
/// Such peers that are remembered.
const PEERS_MAX: usize = 4096;

/// Our address for a stream to a destination; `None` = we have none.
pub type StreamLocal = Box<dyn Fn(SocketAddr) -> Option<SocketAddr> + Send>;

/// [`StreamLocal`], where the user gave one, and the peers that let us wait for a connection in vain,
/// until when they are asked for none.
#[derive(Default)]
pub(super) struct Streams {
    local: Option<StreamLocal>,
    without: HashMap<SocketAddr, Instant>,
}

impl Streams {
    fn may_have(&self, peer: SocketAddr, now: Instant) -> bool {
        self.without.get(&peer).is_none_or(|until| *until <= now)
    }

    fn not_had(&mut self, peer: SocketAddr, now: Instant) {
        if self.without.len() >= PEERS_MAX {
            self.without.retain(|_, until| *until > now);
        }
        if self.without.len() < PEERS_MAX {
            self.without.insert(peer, now + WITHOUT_STREAM);
        }
    }
}

impl std::fmt::Debug for Streams {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Streams({})", self.local.is_some())
    }
}

impl Endpoint {
    /// From now on requests above 1,300 bytes leave by TCP where there is an address of ours for it. If
    /// the connection cannot be made, the same request leaves by UDP; if that took a while, so do those to
    /// that peer for five minutes.
    pub fn use_streams(&mut self, local: StreamLocal) {
        self.streams.local = Some(local);
    }

    /// The stream that a request takes instead of the datagram it is too large for.
    pub(super) fn stream_for(
        &self,
        now: Instant,
        request: &Request,
        target: &Target,
    ) -> Option<Target> {
        if target.transport != Transport::Udp {
            return None;
        }
        if !self.streams.may_have(target.remote, now) {
            return None;
        }
        let local = self.streams.local.as_ref()?(target.remote)?;
        // Via is not in it yet.
        let via = target.sent_by.len() + "Via: SIP/2.0/UDP ;branch=;rport\r\n".len() + 64;
        let large = request.to_bytes().len() + via > DATAGRAM_BYTES_MAX;
        large.then(|| Target::new(Transport::Tcp, None, local, target.remote))
    }

    /// The stream could not be had: the request goes by UDP after all. False when it did already, or is
    /// given up.
    pub(super) fn fall_back(&mut self, now: Instant, tx: ClientTx) -> bool {
        let Some(client) = self.clients.get_mut(&tx) else {
            return false;
        };
        let Some(fallback) = client.take_fallback() else {
            return false;
        };
        let Fallback {
            target,
            via,
            bytes,
            since,
        } = fallback;
        if now.saturating_duration_since(since) >= PROMPT {
            self.streams.not_had(target.remote, now);
        }
        client.send_anew(now, target.clone(), &via, Arc::clone(&bytes));
        let deadline = client.deadline();
        self.reschedule(TxId::Client(tx), deadline);
        self.transmit(&target, bytes, Some(TxId::Client(tx)));
        true
    }
}
