//! Addresses in one form, so that they can be compared.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

/// IPv4-mapped IPv6 becomes IPv4; a flow label is forgotten, and a scope where it means nothing.
#[inline]
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => address,
        SocketAddr::V6(v6) => canonical_v6(v6),
    }
}

fn canonical_v6(address: SocketAddrV6) -> SocketAddr {
    if let Some(mapped) = address.ip().to_ipv4_mapped() {
        return SocketAddr::new(IpAddr::V4(mapped), address.port());
    }
    let link_local = address.ip().segments()[0] & 0xffc0 == 0xfe80;
    let scope = if link_local { address.scope_id() } else { 0 };
    SocketAddr::V6(SocketAddrV6::new(*address.ip(), address.port(), 0, scope))
}

/// See [`canonical`].
pub(crate) fn canonical_ip(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

/// Whether media can be sent there.
pub(crate) fn is_sendable(address: &SocketAddr) -> bool {
    address.port() != 0 && !address.ip().is_unspecified()
}

/// The next port of the same host, where RTCP is by default.
pub(crate) fn next_port(address: SocketAddr) -> Option<SocketAddr> {
    Some(SocketAddr::new(
        address.ip(),
        address.port().checked_add(1)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_has_one_form() {
        let parse = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(
            canonical(parse("[::ffff:192.0.2.1]:5004")),
            parse("192.0.2.1:5004")
        );
        assert_eq!(
            canonical(parse("[2001:db8::1]:5004")),
            parse("[2001:db8::1]:5004")
        );
        let labelled = SocketAddrV6::new("2001:db8::1".parse().unwrap(), 5004, 77, 3);
        assert_eq!(canonical(labelled.into()), parse("[2001:db8::1]:5004"));
        let scoped = SocketAddrV6::new("fe80::1".parse().unwrap(), 1, 0, 3);
        assert_eq!(canonical(scoped.into()), SocketAddr::V6(scoped));
        assert_eq!(next_port(parse("192.0.2.1:65535")), None);
        assert!(!is_sendable(&parse("0.0.0.0:9")) && !is_sendable(&parse("192.0.2.1:0")));
    }
}
