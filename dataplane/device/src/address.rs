//! Socket addresses in the kernel's form.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Bytes kept for an address in a buffer's head: a `sockaddr_in6` (28) rounded up.
pub(crate) const ADDRESS_BYTES: usize = 32;

const _: () = assert!(size_of::<libc::sockaddr_in6>() <= ADDRESS_BYTES);
const _: () = assert!(size_of::<libc::sockaddr_in>() <= ADDRESS_BYTES);

/// An address as the kernel reads and writes it.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(crate) struct RawAddress(pub(crate) [u8; ADDRESS_BYTES]);

impl RawAddress {
    pub(crate) const ZERO: Self = Self([0; ADDRESS_BYTES]);

    /// Writes `address`; returns the length the kernel wants to hear.
    pub(crate) fn write(&mut self, address: &SocketAddr) -> u32 {
        let bytes = &mut self.0;
        match address {
            SocketAddr::V4(v4) => {
                bytes[0..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
                bytes[2..4].copy_from_slice(&v4.port().to_be_bytes());
                bytes[4..8].copy_from_slice(&v4.ip().octets());
                bytes[8..16].fill(0);
                size_of::<libc::sockaddr_in>() as u32
            }
            SocketAddr::V6(v6) => {
                bytes[0..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
                bytes[2..4].copy_from_slice(&v6.port().to_be_bytes());
                bytes[4..8].copy_from_slice(&v6.flowinfo().to_ne_bytes());
                bytes[8..24].copy_from_slice(&v6.ip().octets());
                bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                size_of::<libc::sockaddr_in6>() as u32
            }
        }
    }

    /// Reads an address of `length` bytes; `None` when it is neither IPv4 nor IPv6.
    pub(crate) fn read(bytes: &[u8; ADDRESS_BYTES], length: usize) -> Option<SocketAddr> {
        let word = |at: usize| {
            u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let family = i32::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        let port = u16::from_be_bytes([bytes[2], bytes[3]]);
        if family == libc::AF_INET && length >= size_of::<libc::sockaddr_in>() {
            let ip = Ipv4Addr::from_bits(u32::from_be(word(4)));
            return Some(SocketAddr::V4(SocketAddrV4::new(ip, port)));
        }
        if family == libc::AF_INET6 && length >= size_of::<libc::sockaddr_in6>() {
            let mut octets = [0; 16];
            octets.copy_from_slice(&bytes[8..24]);
            let ip = Ipv6Addr::from(octets);
            return Some(SocketAddr::V6(SocketAddrV6::new(
                ip,
                port,
                word(4),
                word(24),
            )));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_kernels_form() {
        for text in [
            "192.0.2.7:5004",
            "127.0.0.1:1",
            "[2001:db8::9]:65535",
            "[::1]:16384",
        ] {
            let address: SocketAddr = text.parse().unwrap();
            let mut raw = RawAddress::ZERO;
            let length = raw.write(&address);
            assert_eq!(RawAddress::read(&raw.0, length as usize), Some(address));
        }
        let scoped = SocketAddr::V6(SocketAddrV6::new("fe80::1".parse().unwrap(), 9, 3, 7));
        let mut raw = RawAddress::ZERO;
        let length = raw.write(&scoped);
        assert_eq!(RawAddress::read(&raw.0, length as usize), Some(scoped));
        assert_eq!(RawAddress::read(&raw.0, 16), None);
        assert_eq!(RawAddress::read(&RawAddress::ZERO.0, 28), None);
    }
}
