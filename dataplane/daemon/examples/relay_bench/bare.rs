//! What a sensible person writes first: epoll, `recvmmsg` on each ready socket, `sendmmsg` of what
//! came. No parsing, no accounting, no buffers to hand round.

use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};

use crate::generator::raw_v4;
use crate::relay::Progress;

const EVENTS: usize = 256;
const PER_SOCKET: usize = 8;
const BYTES: usize = 2048;

pub fn relay(inward: &[OwnedFd], outward: &[OwnedFd], far: &[SocketAddr], progress: &Progress) {
    // SAFETY: takes no pointers.
    let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    for (flow, socket) in inward.iter().enumerate() {
        let mut event = libc::epoll_event {
            events: libc::EPOLLIN as u32,
            u64: flow as u64,
        };
        // SAFETY: `event` is valid for the call.
        unsafe {
            libc::epoll_ctl(
                epoll,
                libc::EPOLL_CTL_ADD,
                socket.as_raw_fd(),
                &raw mut event,
            )
        };
    }
    let mut far: Vec<libc::sockaddr_in> = far.iter().map(|far| raw_v4(v4(far))).collect();
    let mut buffers = vec![[0_u8; BYTES]; PER_SOCKET];
    let mut sources = vec![[0_u8; 32]; PER_SOCKET];
    let mut vectors: Vec<libc::iovec> = buffers
        .iter_mut()
        .map(|buffer| libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: BYTES,
        })
        .collect();
    // SAFETY: mmsghdr is plain data for which all zeroes is valid.
    let mut headers: Vec<libc::mmsghdr> = vec![unsafe { std::mem::zeroed() }; PER_SOCKET];
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
    let mut sent = 0_u64;
    let mut calls = 0_u64;
    while !progress.stopped() {
        // SAFETY: `events` has room for EVENTS entries.
        let ready = unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), EVENTS as i32, 20) };
        calls += 1;
        for event in &events[..ready.max(0) as usize] {
            let flow = event.u64 as usize;
            for (at, header) in headers.iter_mut().enumerate() {
                header.msg_hdr.msg_name = sources[at].as_mut_ptr().cast();
                header.msg_hdr.msg_namelen = 32;
                header.msg_hdr.msg_iov = &raw mut vectors[at];
                header.msg_hdr.msg_iovlen = 1;
                vectors[at].iov_len = BYTES;
            }
            // SAFETY: the headers point at live buffers that nothing else touches.
            let count = unsafe {
                libc::recvmmsg(
                    inward[flow].as_raw_fd(),
                    headers.as_mut_ptr(),
                    PER_SOCKET as u32,
                    libc::MSG_DONTWAIT,
                    std::ptr::null_mut(),
                )
            };
            calls += 1;
            let count = count.max(0) as usize;
            if count == 0 {
                continue;
            }
            for (at, header) in headers[..count].iter_mut().enumerate() {
                vectors[at].iov_len = header.msg_len as usize;
                header.msg_hdr.msg_name = (&raw mut far[flow]).cast();
                header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as u32;
            }
            // SAFETY: as above; the addresses are live.
            let done = unsafe {
                libc::sendmmsg(
                    outward[flow].as_raw_fd(),
                    headers.as_mut_ptr(),
                    count as u32,
                    libc::MSG_DONTWAIT,
                )
            };
            calls += 1;
            sent += done.max(0) as u64;
        }
        progress.publish(sent, calls, 0);
    }
    // SAFETY: ours, and not used any more.
    unsafe { libc::close(epoll) };
}

fn v4(address: &SocketAddr) -> SocketAddrV4 {
    match address {
        SocketAddr::V4(v4) => *v4,
        SocketAddr::V6(_) => panic!("IPv4 only"),
    }
}
