//! SIP over UDP.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::UdpSocket;
use trunkline_sip::transaction::{FlowId, Path, Transport};

use super::{Incoming, Shared, specific};

/// The largest UDP payload.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// One bound UDP socket and the task that reads it.
pub(super) struct UdpListener {
    pub(super) flow: FlowId,
    /// As bound; may be the unspecified address.
    pub(super) local: SocketAddr,
    socket: Arc<UdpSocket>,
}

impl UdpListener {
    pub(super) async fn bind(address: SocketAddr, shared: Arc<Shared>) -> std::io::Result<Self> {
        let raw = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::DGRAM,
            Some(socket2::Protocol::UDP),
        )?;
        if address.is_ipv6() {
            raw.set_only_v6(true)?;
        }
        raw.set_nonblocking(true)?;
        // Bursts of INVITEs arrive faster than one task wakes up.
        let _ = raw.set_recv_buffer_size(4 << 20);
        raw.bind(&address.into())?;
        let socket = Arc::new(UdpSocket::from_std(raw.into())?);
        let (flow, local) = (shared.flow_id(), socket.local_addr()?);
        tokio::spawn(read(Arc::clone(&socket), flow, local, shared));
        Ok(Self {
            flow,
            local,
            socket,
        })
    }

    /// Sends a datagram; a full socket buffer counts as loss on the way, which SIP's own
    /// retransmissions repair. False when the kernel refuses the destination.
    pub(super) fn send(&self, destination: SocketAddr, bytes: &[u8]) -> bool {
        match self.socket.try_send_to(bytes, destination) {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
        }
    }
}

async fn read(socket: Arc<UdpSocket>, flow: FlowId, local: SocketAddr, shared: Arc<Shared>) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let Ok((length, source)) = socket.recv_from(&mut buffer).await else {
            // ICMP errors of earlier sends surface here; they carry no message.
            continue;
        };
        let bytes = &buffer[..length];
        // Who may ask is judged here; a response is judged by the request it answers.
        if !bytes.starts_with(b"SIP/2.0 ") && !shared.allowed(source) {
            continue;
        }
        // Keepalives (RFC 5626 section 4.4, and the blanks that some equipment sends).
        if bytes.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let local = specific(local, source);
        let path = Path {
            transport: Transport::Udp,
            flow,
            local,
            source,
        };
        let datagram = Incoming::Datagram {
            path,
            bytes: bytes.to_vec(),
        };
        if shared.incoming.send(datagram).await.is_err() {
            return;
        }
    }
}
