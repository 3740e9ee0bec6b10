//! Requests that are too large for UDP go by a stream (RFC 3261 section 18.1.1), and back to UDP where
//! the peer has none.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::client::Fallback;
use super::endpoint::Endpoint;
use super::types::{ClientTx, Target, Transport, TxId};
use crate::message::Request;

/// A larger request may be cut by the network, with the path's MTU unknown.
pub(super) const DATAGRAM_BYTES_MAX: usize = 1300;

/// Our address for a stream to a destination; `None` = we have none.
pub type StreamLocal = Box<dyn Fn(SocketAddr) -> Option<SocketAddr> + Send>;

/// [`StreamLocal`], where the user gave one.
#[derive(Default)]
pub(super) struct Streams(Option<StreamLocal>);

impl std::fmt::Debug for Streams {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Streams({})", self.0.is_some())
    }
}

impl Endpoint {
    /// From now on requests above 1,300 bytes leave by TCP where there is an address of ours for it. If
    /// the connection cannot be made, the same request leaves by UDP.
    pub fn use_streams(&mut self, local: StreamLocal) {
        self.streams = Streams(Some(local));
    }

    /// The stream that a request takes instead of the datagram it is too large for.
    pub(super) fn stream_for(&self, request: &Request, target: &Target) -> Option<Target> {
        if target.transport != Transport::Udp {
            return None;
        }
        let local = self.streams.0.as_ref()?(target.remote)?;
        // Via is not in it yet.
        let via = target.sent_by.len() + "Via: SIP/2.0/UDP ;branch=;rport\r\n".len() + 64;
        let large = request.to_bytes().len() + via > DATAGRAM_BYTES_MAX;
        large.then(|| Target::new(Transport::Tcp, None, local, target.remote))
    }

    /// The stream could not be had: the request goes by UDP after all. False when it did already.
    pub(super) fn fall_back(&mut self, now: Instant, tx: ClientTx) -> bool {
        let Some(client) = self.clients.get_mut(&tx) else {
            return false;
        };
        let Some(Fallback { target, via, bytes }) = client.take_fallback() else {
            return false;
        };
        client.send_anew(now, target.clone(), &via, Arc::clone(&bytes));
        let deadline = client.deadline();
        self.reschedule(TxId::Client(tx), deadline);
        self.transmit(&target, bytes, Some(TxId::Client(tx)));
        true
    }
}
