//! Where a recorder is, and from which address of ours it is reached.

use anyhow::{Context, Result, bail};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::Duration;
use trunkline_sip::message::Uri;
use trunkline_sip::transaction::Transport;

/// How long a refusal by ICMP may take.
const REFUSAL_WAIT: Duration = Duration::from_millis(100);

/// Reads a recorder's URI, for the command line.
pub(super) fn sip_uri(text: &str) -> Result<Uri, String> {
    let uri: Uri = text
        .parse()
        .map_err(|error| format!("no SIP URI ({error}), such as sip:srs.example"))?;
    if !uri.is_sip() {
        return Err("no SIP URI, such as sip:srs.example".to_owned());
    }
    transport(&uri).map_err(|error| error.to_string())?;
    Ok(uri)
}

fn transport(uri: &Uri) -> Result<Transport> {
    if uri.scheme_text().eq_ignore_ascii_case("sips") {
        bail!("sips (TLS) is not supported yet");
    }
    let wanted = uri.param("transport").map(|text| text.to_ascii_lowercase());
    match wanted.as_deref() {
        None | Some("udp") => Ok(Transport::Udp),
        Some("tcp") => Ok(Transport::Tcp),
        Some(other) => bail!("transport={other} is not supported yet: udp or tcp"),
    }
}

/// The transport and address that a URI leads to. A name is looked up as a host: SRV records are not.
pub(super) fn resolve(uri: &Uri) -> Result<(Transport, SocketAddr)> {
    let transport = transport(uri)?;
    let port = uri.port().unwrap_or(5060);
    if let Some(address) = uri.host_ip() {
        return Ok((transport, SocketAddr::new(address, port)));
    }
    let found = (uri.host(), port).to_socket_addrs();
    let mut found = found.with_context(|| format!("{} cannot be looked up", uri.host()))?;
    match found.next() {
        Some(address) => Ok((transport, address)),
        None => bail!("{} has no address", uri.host()),
    }
}

/// Our address on the way to a peer.
pub(super) fn local_towards(peer: SocketAddr) -> Result<IpAddr> {
    let socket = UdpSocket::bind(any_of(peer))?;
    socket
        .connect(peer)
        .with_context(|| format!("no way to {}", peer.ip()))?;
    Ok(socket.local_addr()?.ip())
}

/// Any port of any address of a peer's family.
fn any_of(peer: SocketAddr) -> SocketAddr {
    match peer {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
    }
}

/// Whether nobody listens on a UDP port: an empty datagram draws an ICMP error then.
pub(super) fn is_refused(address: SocketAddr) -> bool {
    let asked = || -> std::io::Result<bool> {
        let socket = UdpSocket::bind(any_of(address))?;
        socket.connect(address)?;
        socket.set_read_timeout(Some(REFUSAL_WAIT))?;
        socket.send(&[])?;
        let answer = socket.recv(&mut [0; 16]);
        Ok(answer.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused))
    };
    asked().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_judged_before_anything_is_sent() {
        for bad in [
            "",
            "srs",
            "http://srs",
            "tel:+49",
            "sip:",
            "sips:srs",
            "sip:srs;transport=tls",
        ] {
            assert!(sip_uri(bad).is_err(), "{bad}");
        }
        let uri = sip_uri("sip:rec@[::1]:5070;transport=TCP").unwrap();
        assert_eq!(
            resolve(&uri).unwrap(),
            (Transport::Tcp, "[::1]:5070".parse().unwrap())
        );
        let uri = sip_uri("sip:127.0.0.1").unwrap();
        assert_eq!(
            resolve(&uri).unwrap(),
            (Transport::Udp, "127.0.0.1:5060".parse().unwrap())
        );
        assert!(resolve(&sip_uri("sip:no.such.host.invalid").unwrap()).is_err());
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        assert!(!is_refused(address));
        let local = local_towards("127.0.0.1:5060".parse().unwrap()).unwrap();
        assert!(local.is_loopback());
    }
}
