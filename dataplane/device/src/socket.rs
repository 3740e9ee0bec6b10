//! What a UDP socket says of itself.
#![allow(unsafe_code)]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use socket2::{Domain, Protocol, Socket, Type};

use crate::address::RawAddress;

/// Receive buffer of one port, in bytes; the kernel doubles it for its own bookkeeping.
const RECEIVE_BUFFER_BYTES: usize = 64 * 1024;
/// Send buffer of a socket that many ports send by.
const SEND_BUFFER_BYTES: libc::c_int = 4 << 20;
/// DSCP EF (RFC 3246) in the upper six bits of TOS and traffic class.
const TRAFFIC_CLASS: u32 = 46 << 2;
/// As the kernel ranks datagrams marked for expedited forwarding (`rt_tos2priority`).
pub(crate) const MEDIA_PRIORITY: libc::c_int = 4;

/// A media port's socket, bound: non-blocking, small receive buffer, expedited forwarding, own
/// family only.
///
/// # Errors
/// Those of the kernel: `AddrInUse` where somebody else has the port.
pub fn media_socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = marked_socket(address.ip(), Type::DGRAM, Protocol::UDP)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// A socket that sends whole IP packets from one address and receives nothing (raw(7),
/// IPPROTO_RAW). The kernel chooses their way as for datagrams of that address.
pub(crate) fn packet_sender(address: IpAddr) -> io::Result<OwnedFd> {
    let protocol = Protocol::from(libc::IPPROTO_RAW);
    let socket = marked_socket(address, Type::RAW, protocol)?;
    socket.bind(&SocketAddr::new(address, 0).into())?;
    let socket = OwnedFd::from(socket);
    // Without the right to more, what is usual has to do.
    for (option, value) in [
        (libc::SO_SNDBUFFORCE, SEND_BUFFER_BYTES),
        (libc::SO_PRIORITY, MEDIA_PRIORITY),
    ] {
        let _ = set_option(&socket, libc::SOL_SOCKET, option, value);
    }
    Ok(socket)
}

fn marked_socket(address: IpAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let domain = Domain::for_address(SocketAddr::new(address, 0));
    let socket = Socket::new(domain, kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_tclass_v6(TRAFFIC_CLASS)?;
    } else {
        socket.set_tos_v4(TRAFFIC_CLASS)?;
    }
    Ok(socket)
}

/// The address and port that a socket is bound to.
pub(crate) fn local_address(socket: &OwnedFd) -> Option<SocketAddr> {
    let mut raw = RawAddress::ZERO;
    let mut length = size_of::<RawAddress>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into the address.
    let result =
        unsafe { libc::getsockname(socket.as_raw_fd(), (&raw mut raw).cast(), &raw mut length) };
    if result != 0 {
        return None;
    }
    RawAddress::read(&raw.0, length as usize)
}

/// Sets an option whose value is a number.
pub(crate) fn set_option(
    socket: &OwnedFd,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the option's value is a live int of the length given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as u32,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// An option whose value is a number.
pub(crate) fn option(
    socket: &OwnedFd,
    level: libc::c_int,
    option: libc::c_int,
) -> Option<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into a live int.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    (result == 0).then_some(value)
}
