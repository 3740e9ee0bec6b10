//! The kernel's own count of datagrams that a socket had to drop.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Words that SO_MEMINFO fills (linux/sock_diag.h, SK_MEMINFO_VARS).
const VARIABLES: usize = 9;
/// Place of the drop counter (SK_MEMINFO_DROPS).
const DROPS: usize = 8;

/// Datagrams dropped on a socket since it was made, modulo 2^32: its buffer was full, or a checksum
/// was wrong.
///
/// # Errors
/// Those of getsockopt; `Unsupported` where the kernel tells fewer variables.
#[allow(unsafe_code)]
pub fn socket_drops(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut values = [0_u32; VARIABLES];
    let mut length = size_of_val(&values) as libc::socklen_t;
    // SAFETY: `values` is a live array of `length` bytes, and the kernel writes at most that many.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            values.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    if (length as usize) < size_of_val(&values) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(values[DROPS])
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_flooded_socket_tells_what_it_dropped() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(socket_drops(socket.as_fd()).unwrap(), 0);
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sent = 2_000;
        for _ in 0..sent {
            sender
                .send_to(&[0; 1_000], socket.local_addr().unwrap())
                .unwrap();
        }
        let drops = socket_drops(socket.as_fd()).unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut held = 0;
        while socket.recv(&mut [0; 2_000]).is_ok() {
            held += 1;
        }
        assert!(drops > 0);
        assert_eq!(drops + held, sent);
    }
}
