//! The I/O that an [`Agent`] needs: one UDP socket, one thread.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use trunkline_sip::agent::{Agent, AgentConfig, AgentEvent, Socket};
use trunkline_sip::message::Uri;
use trunkline_sip::transaction::{FlowId, Path, Target, Transport};

/// An agent on a UDP socket.
pub struct UdpAgent<C> {
    pub agent: Agent<C>,
    socket: UdpSocket,
    local: SocketAddr,
    buffer: Vec<u8>,
}

impl<C: Clone + Default> UdpAgent<C> {
    /// Binds an address (not 0.0.0.0: it is what we write into Via and Contact).
    pub fn bind(address: SocketAddr, user: &str) -> io::Result<UdpAgent<C>> {
        let socket = UdpSocket::bind(address)?;
        let local = socket.local_addr()?;
        let contact = Uri::sip(Some(user), &local.ip().to_string(), Some(local.port()));
        let contact = contact.map_err(io::Error::other)?;
        let way = Socket {
            transport: Transport::Udp,
            flow: Some(FlowId(0)),
            local,
        };
        let agent = Agent::new(AgentConfig::new(contact, way)).map_err(io::Error::other)?;
        Ok(UdpAgent {
            agent,
            socket,
            local,
            buffer: vec![0; 65_536],
        })
    }

    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The way to a peer from our socket.
    pub fn target(&self, remote: SocketAddr) -> Target {
        Target::new(Transport::Udp, Some(FlowId(0)), self.local, remote)
    }

    /// Waits for the next event; `None` after `wait` without one.
    pub fn next_event(&mut self, wait: Duration) -> io::Result<Option<AgentEvent<C>>> {
        let end = Instant::now() + wait;
        loop {
            self.flush();
            if let Some(event) = self.agent.poll_event() {
                return Ok(Some(event));
            }
            let now = Instant::now();
            if end <= now {
                return Ok(None);
            }
            let alarm = self.agent.poll_timeout().map_or(end, |at| at.min(end));
            // A timeout of zero would mean to wait for ever.
            let wait = (alarm - now.min(alarm)).max(Duration::from_millis(1));
            self.socket.set_read_timeout(Some(wait))?;
            match self.socket.recv_from(&mut self.buffer) {
                Ok((length, source)) => {
                    let path = Path {
                        transport: Transport::Udp,
                        flow: FlowId(0),
                        local: self.local,
                        source,
                    };
                    let bytes = &self.buffer[..length];
                    self.agent.handle_datagram(Instant::now(), path, bytes);
                }
                // An ICMP error about an earlier datagram, or the alarm.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock
                            | ErrorKind::TimedOut
                            | ErrorKind::ConnectionRefused
                            | ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(error),
            }
            self.agent.handle_timeout(Instant::now());
        }
    }

    /// Sends what waits to be sent.
    pub fn flush(&mut self) {
        while let Some(transmit) = self.agent.poll_transmit() {
            let sent = self.socket.send_to(&transmit.bytes, transmit.remote);
            if let Some(origin) = transmit.origin.filter(|_| sent.is_err()) {
                self.agent.transport_failed(Instant::now(), origin);
            }
        }
    }
}
