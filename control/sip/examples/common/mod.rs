//! The I/O that an [`Endpoint`] needs: one UDP socket, one thread.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use trunkline_sip::transaction::{Config, Endpoint, Event, FlowId, Path, Target, Transport};

/// An endpoint on a UDP socket.
pub struct UdpEndpoint {
    pub layer: Endpoint,
    socket: UdpSocket,
    local: SocketAddr,
    buffer: Vec<u8>,
}

impl UdpEndpoint {
    /// Binds an address (not 0.0.0.0: it is what we write into Via and Contact).
    pub fn bind(address: SocketAddr) -> io::Result<UdpEndpoint> {
        let socket = UdpSocket::bind(address)?;
        let local = socket.local_addr()?;
        let layer = Endpoint::new(Config::default());
        Ok(UdpEndpoint {
            layer,
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

    /// Waits for the next event; `None` when `deadline` comes first.
    pub fn next_event(&mut self, deadline: Option<Instant>) -> io::Result<Option<Event>> {
        loop {
            self.flush();
            if let Some(event) = self.layer.poll_event() {
                return Ok(Some(event));
            }
            let now = Instant::now();
            if deadline.is_some_and(|at| at <= now) {
                return Ok(None);
            }
            let alarm = [self.layer.poll_timeout(), deadline]
                .into_iter()
                .flatten()
                .min();
            // A timeout of zero would mean to wait for ever.
            let wait = alarm.map(|at| (at - now.min(at)).max(Duration::from_millis(1)));
            self.socket.set_read_timeout(wait)?;
            match self.socket.recv_from(&mut self.buffer) {
                Ok((length, source)) => {
                    let (transport, flow, local) = (Transport::Udp, FlowId(0), self.local);
                    let path = Path {
                        transport,
                        flow,
                        local,
                        source,
                    };
                    self.layer
                        .handle_datagram(Instant::now(), path, &self.buffer[..length]);
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
            self.layer.handle_timeout(Instant::now());
        }
    }

    /// Sends what waits to be sent.
    pub fn flush(&mut self) {
        while let Some(transmit) = self.layer.poll_transmit() {
            let failed = self
                .socket
                .send_to(&transmit.bytes, transmit.remote)
                .is_err();
            if let Some(origin) = transmit.origin.filter(|_| failed) {
                self.layer.transport_failed(Instant::now(), origin);
            }
        }
    }
}
