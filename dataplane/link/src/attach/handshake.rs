//! Hello and Welcome, socket addresses and peer credentials.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use nix::cmsg_space;
use nix::fcntl::{OFlag, open};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, getsockopt, recvmsg, sendmsg, sockopt,
};
use nix::sys::stat::Mode;

use super::LinkError;
use crate::region::VERSION;

const HELLO_MAGIC: u64 = u64::from_le_bytes(*b"TLHELLO1");
const WELCOME_MAGIC: u64 = u64::from_le_bytes(*b"TLWELCO1");
const HELLO_BYTES: usize = 16;
const WELCOME_BYTES: usize = 24;
/// Region, counters, extents, command doorbell, event doorbell.
pub(super) const FILES: usize = 5;
/// Longest path that fits a socket address as it is.
const ADDRESS_BYTES_MAX: usize = 100;

/// A socket's path as an address; a path that is too long goes by way of its directory's descriptor,
/// which has to stay open while the address is used.
pub(super) fn address(path: &Path) -> Result<(UnixAddr, Option<OwnedFd>), LinkError> {
    if path.as_os_str().len() <= ADDRESS_BYTES_MAX {
        return Ok((UnixAddr::new(path)?, None));
    }
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(std::io::Error::from(std::io::ErrorKind::InvalidInput).into());
    };
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let directory = open(directory, flags, Mode::empty())?;
    let short = Path::new("/proc/self/fd")
        .join(directory.as_raw_fd().to_string())
        .join(name);
    Ok((UnixAddr::new(&short)?, Some(directory)))
}

/// Refuses a peer that is neither our user nor root.
pub(super) fn check_peer(socket: BorrowedFd<'_>) -> Result<(), LinkError> {
    let peer = getsockopt(&socket, sockopt::PeerCredentials)?.uid();
    let own = nix::unistd::geteuid().as_raw();
    if peer == own || peer == 0 {
        Ok(())
    } else {
        Err(LinkError::ForeignUser(peer))
    }
}

/// Control's first packet.
pub(super) fn send_hello(socket: BorrowedFd<'_>) -> Result<(), LinkError> {
    let mut packet = Vec::with_capacity(HELLO_BYTES);
    packet.extend_from_slice(&HELLO_MAGIC.to_le_bytes());
    packet.extend_from_slice(&VERSION.to_le_bytes());
    packet.extend_from_slice(&std::process::id().to_le_bytes());
    nix::sys::socket::send(socket.as_raw_fd(), &packet, MsgFlags::MSG_NOSIGNAL)?;
    Ok(())
}

/// Reads a Hello that the socket is readable for. `Ok(None)`: nothing yet. Returns control's pid.
pub(super) fn receive_hello(socket: BorrowedFd<'_>) -> Result<Option<u32>, LinkError> {
    let mut packet = [0_u8; HELLO_BYTES + 1];
    let flags = MsgFlags::MSG_DONTWAIT;
    let length = match nix::sys::socket::recv(socket.as_raw_fd(), &mut packet, flags) {
        Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => return Ok(None),
        other => other?,
    };
    if length != HELLO_BYTES || packet[..8] != HELLO_MAGIC.to_le_bytes() {
        return Err(LinkError::Handshake);
    }
    let version = u32::from_le_bytes(packet[8..12].try_into().expect("four bytes"));
    if version != VERSION {
        return Err(LinkError::Version(version));
    }
    Ok(Some(u32::from_le_bytes(
        packet[12..16].try_into().expect("four bytes"),
    )))
}

/// The dataplane's answer; with no files it refuses another version.
pub(super) fn send_welcome(
    socket: BorrowedFd<'_>,
    epoch: u64,
    files: &[RawFd],
) -> Result<(), LinkError> {
    let mut packet = Vec::with_capacity(WELCOME_BYTES);
    packet.extend_from_slice(&WELCOME_MAGIC.to_le_bytes());
    packet.extend_from_slice(&VERSION.to_le_bytes());
    packet.extend_from_slice(&(files.len() as u32).to_le_bytes());
    packet.extend_from_slice(&epoch.to_le_bytes());
    let rights = [ControlMessage::ScmRights(files)];
    let messages: &[ControlMessage<'_>] = if files.is_empty() { &[] } else { &rights };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(&packet)],
        messages,
        flags,
        None,
    )?;
    Ok(())
}

/// Waits for the Welcome (as long as the socket's receive timeout says).
pub(super) fn receive_welcome(
    socket: BorrowedFd<'_>,
) -> Result<(u64, [OwnedFd; FILES]), LinkError> {
    let mut packet = [0_u8; WELCOME_BYTES + 1];
    let mut space = cmsg_space!([RawFd; 2 * FILES]);
    let mut slices = [IoSliceMut::new(&mut packet)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(
        socket.as_fd().as_raw_fd(),
        &mut slices,
        Some(&mut space),
        flags,
    )?;
    let length = message.bytes;
    let mut files = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = control {
            files.extend(received.into_iter().map(owned));
        }
    }
    if length == 0 {
        return Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into());
    }
    if length != WELCOME_BYTES || packet[..8] != WELCOME_MAGIC.to_le_bytes() {
        return Err(LinkError::Handshake);
    }
    let version = u32::from_le_bytes(packet[8..12].try_into().expect("four bytes"));
    if version != VERSION {
        return Err(LinkError::Version(version));
    }
    let epoch = u64::from_le_bytes(packet[16..24].try_into().expect("eight bytes"));
    let files = files.try_into().map_err(|_| LinkError::Handshake)?;
    Ok((epoch, files))
}

/// Takes ownership of a descriptor that recvmsg just installed for us.
#[allow(unsafe_code)]
fn owned(file: RawFd) -> OwnedFd {
    use std::os::fd::FromRawFd;
    // SAFETY: the kernel installed this descriptor for this recvmsg call; nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(file) }
}
