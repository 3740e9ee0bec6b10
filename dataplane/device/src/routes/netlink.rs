//! Netlink sockets (RFC 3549): requests and their answers, notifications, attributes.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `struct nlmsghdr`: length, type, flags, sequence, port.
const HEADER_BYTES: usize = 16;
/// Larger than what the kernel puts into one datagram of a dump.
const RECEIVE_BYTES: usize = 64 << 10;
/// Longest that an answer may take, in seconds.
const ANSWER_S: libc::time_t = 2;

/// One message: its type and what follows the header.
#[derive(Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) body: &'a [u8],
}

impl<'a> Message<'a> {
    /// A byte of the family's own header.
    pub(super) fn byte(&self, at: usize) -> u8 {
        self.body.get(at).copied().unwrap_or(0)
    }

    /// A 32-bit field of the family's own header.
    pub(super) fn word(&self, at: usize) -> u32 {
        self.body.get(at..).and_then(word).unwrap_or(0)
    }

    /// A 16-bit field of the family's own header.
    pub(super) fn half(&self, at: usize) -> u16 {
        self.body.get(at..).and_then(half).unwrap_or(0)
    }

    /// The attributes behind a header of `header_bytes`.
    pub(super) fn attributes(&self, header_bytes: usize) -> Attributes<'a> {
        Attributes(self.body.get(align(header_bytes)..).unwrap_or_default())
    }
}

/// Attributes (type, value) in their order.
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        const NESTED_AND_ORDER: u16 = 0xc000;
        let length = usize::from(half(self.0)?);
        let kind = half(self.0.get(2..)?)? & !NESTED_AND_ORDER;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(align(length)..).unwrap_or_default();
        Some((kind, value))
    }
}

pub(super) fn word(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn half(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// Appends an attribute to a request.
pub(super) fn put(request: &mut Vec<u8>, kind: u16, value: &[u8]) {
    request.extend(((4 + value.len()) as u16).to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(value);
    request.resize(align(request.len()), 0);
}

/// A netlink socket of one family.
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens one in the calling thread's network namespace. With `groups` it is for
    /// notifications and never waits, else for requests.
    pub(super) fn open(family: libc::c_int, groups: u32) -> io::Result<Self> {
        let wait = if groups == 0 { 0 } else { libc::SOCK_NONBLOCK };
        let flags = libc::SOCK_RAW | libc::SOCK_CLOEXEC | wait;
        // SAFETY: no pointers are passed.
        let socket = check(unsafe { libc::socket(libc::AF_NETLINK, flags, family) })?;
        // SAFETY: just returned to us, owned by nobody else.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        // SAFETY: sockaddr_nl is plain data for which all zeroes is valid.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as u16;
        address.nl_groups = groups;
        // SAFETY: `address` is live for the call and its size is passed.
        check(unsafe {
            libc::bind(
                socket.as_raw_fd(),
                (&raw const address).cast(),
                size_of_val(&address) as libc::socklen_t,
            )
        })?;
        let timeout = libc::timeval {
            tv_sec: ANSWER_S,
            tv_usec: 0,
        };
        // SAFETY: `timeout` is live for the call and its size is passed.
        check(unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVTIMEO,
                (&raw const timeout).cast(),
                size_of_val(&timeout) as libc::socklen_t,
            )
        })?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: vec![0; RECEIVE_BYTES],
        })
    }

    /// Sends a request and hands over each message of the answer.
    ///
    /// # Errors
    /// What the kernel answers, or that it does not.
    pub(super) fn ask(
        &mut self,
        kind: u16,
        flags: libc::c_int,
        body: &[u8],
        mut on_message: impl FnMut(Message<'_>),
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let flags = (flags | libc::NLM_F_REQUEST) as u16;
        let mut request = Vec::with_capacity(HEADER_BYTES + body.len());
        request.extend(((HEADER_BYTES + body.len()) as u32).to_ne_bytes());
        request.extend(kind.to_ne_bytes());
        request.extend(flags.to_ne_bytes());
        request.extend(self.sequence.to_ne_bytes());
        request.extend([0; 4]);
        request.extend(body);
        // SAFETY: the request is live for the call and its length is passed.
        let sent = unsafe {
            libc::send(
                self.socket.as_raw_fd(),
                request.as_ptr().cast(),
                request.len(),
                0,
            )
        };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        let whole = flags & (libc::NLM_F_DUMP | libc::NLM_F_ACK) as u16 == 0;
        loop {
            let length = self.receive()?;
            let (mut done, mut failed) = (false, 0);
            for (sequence, message) in messages(&self.buffer[..length]) {
                // What an earlier request that timed out is answered late.
                if sequence != self.sequence {
                    continue;
                }
                match i32::from(message.kind) {
                    libc::NLMSG_DONE => done = true,
                    libc::NLMSG_ERROR => {
                        done = true;
                        failed = message.word(0).cast_signed();
                    }
                    _ => {
                        on_message(message);
                        done |= whole;
                    }
                }
            }
            if failed != 0 {
                return Err(io::Error::from_raw_os_error(-failed));
            }
            if done {
                return Ok(());
            }
        }
    }

    /// Hands over the notifications that have come.
    ///
    /// # Errors
    /// `ENOBUFS`: some were lost.
    pub(super) fn notified(&mut self, mut on_message: impl FnMut(Message<'_>)) -> io::Result<()> {
        loop {
            match self.receive() {
                Ok(length) => {
                    for (_, message) in messages(&self.buffer[..length]) {
                        on_message(message);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn receive(&mut self) -> io::Result<usize> {
        loop {
            // SAFETY: the buffer is live for the call and its length is passed.
            let length = unsafe {
                libc::recv(
                    self.socket.as_raw_fd(),
                    self.buffer.as_mut_ptr().cast(),
                    self.buffer.len(),
                    0,
                )
            };
            if length >= 0 {
                return Ok((length as usize).min(self.buffer.len()));
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The messages of a datagram, with their sequence numbers.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u32, Message<'_>)> {
    std::iter::from_fn(move || {
        let length = word(bytes)? as usize;
        let body = bytes.get(HEADER_BYTES..length)?;
        let (kind, sequence) = (half(&bytes[4..])?, word(&bytes[8..])?);
        bytes = bytes.get(align(length)..).unwrap_or_default();
        Some((sequence, Message { kind, body }))
    })
}

pub(super) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_end_where_they_are_broken() {
        let mut bytes = Vec::new();
        put(&mut bytes, 3, b"eth0\0");
        put(&mut bytes, 0x8000 | 7, &[1, 2, 3, 4]);
        bytes.extend([200, 0, 9, 0, 1]);
        let read: Vec<_> = Attributes(&bytes).collect();
        assert_eq!(read, [(3, &b"eth0\0"[..]), (7, &[1, 2, 3, 4][..])]);
        assert_eq!(Attributes(&[2, 0, 1, 0]).next(), None);
        assert_eq!(messages(&[255; 40]).count(), 0);
    }

    #[test]
    fn the_loopback_interface_is_found_by_number() {
        let mut netlink = Netlink::open(libc::NETLINK_ROUTE, 0).unwrap();
        let mut names = Vec::new();
        netlink
            .ask(libc::RTM_GETLINK, libc::NLM_F_DUMP, &[0; 16], |message| {
                for (kind, value) in message.attributes(16) {
                    if kind == libc::IFLA_IFNAME {
                        names.push(String::from_utf8_lossy(value).into_owned());
                    }
                }
            })
            .unwrap();
        assert!(names.contains(&"lo\0".to_owned()), "{names:?}");
        let mut nobody = vec![0; 16];
        nobody[4..8].copy_from_slice(&i32::MAX.to_ne_bytes());
        let error = netlink
            .ask(libc::RTM_GETLINK, 0, &nobody, |_| ())
            .unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }
}
