//! What a UDP socket says of itself.
#![allow(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::address::RawAddress;

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
