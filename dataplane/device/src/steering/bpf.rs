//! The bpf(2) system call as far as steering needs it: maps, one program, its attachment.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

const MAP_CREATE: libc::c_long = 0;
const MAP_UPDATE: libc::c_long = 2;
const PROGRAM_LOAD: libc::c_long = 5;
const LINK_CREATE: libc::c_long = 28;

/// A map of plain values by number.
pub(super) const MAP_ARRAY: u32 = 2;
/// A map of sockets by number.
pub(super) const MAP_SOCKETS: u32 = 15;
/// The map's memory can be mapped.
pub(super) const MAP_MAPPABLE: u32 = 1 << 10;
const PROGRAM_SOCKET_LOOKUP: u32 = 30;
const ATTACH_SOCKET_LOOKUP: u32 = 36;

/// `union bpf_attr`, as 64-bit words; what a command does not use is zero.
const ATTRIBUTE_WORDS: usize = 18;
type Attribute = [u64; ATTRIBUTE_WORDS];

/// Two 32-bit fields in their order in memory.
fn pair(first: u32, second: u32) -> u64 {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&first.to_ne_bytes());
    bytes[4..].copy_from_slice(&second.to_ne_bytes());
    u64::from_ne_bytes(bytes)
}

fn call(command: libc::c_long, attribute: &Attribute) -> io::Result<RawFd> {
    // SAFETY: the attribute is larger than what any of these commands reads, and the pointers in
    // it are live for the call (the callers' slices and arrays).
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attribute.as_ptr(),
            size_of::<Attribute>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result as RawFd)
    }
}

fn own(descriptor: RawFd) -> OwnedFd {
    // SAFETY: a descriptor just returned to us and owned by nobody else.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// Makes a map with 4-byte keys.
pub(super) fn create_map(
    kind: u32,
    value_bytes: u32,
    entries: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    let mut attribute = [0; ATTRIBUTE_WORDS];
    attribute[0] = pair(kind, 4);
    attribute[1] = pair(value_bytes, entries);
    attribute[2] = pair(flags, 0);
    call(MAP_CREATE, &attribute).map(own)
}

/// Puts a socket into a socket map.
pub(super) fn put_socket(map: &OwnedFd, key: u32, socket: &OwnedFd) -> io::Result<()> {
    let value = socket.as_raw_fd() as u64;
    let mut attribute = [0; ATTRIBUTE_WORDS];
    attribute[0] = pair(map.as_raw_fd() as u32, 0);
    attribute[1] = (&raw const key) as u64;
    attribute[2] = (&raw const value) as u64;
    call(MAP_UPDATE, &attribute).map(drop)
}

/// Loads a program that is asked which socket a datagram is for.
pub(super) fn load_socket_lookup(instructions: &[u64]) -> io::Result<OwnedFd> {
    let licence = c"Apache-2.0";
    let mut attribute = [0; ATTRIBUTE_WORDS];
    attribute[0] = pair(PROGRAM_SOCKET_LOOKUP, instructions.len() as u32);
    attribute[1] = instructions.as_ptr() as u64;
    attribute[2] = licence.as_ptr() as u64;
    attribute[8] = pair(0, ATTACH_SOCKET_LOOKUP);
    call(PROGRAM_LOAD, &attribute).map(own)
}

/// Attaches such a program to the calling thread's network namespace for as long as what this
/// gives is open: a killed process leaves nothing behind.
pub(super) fn attach_socket_lookup(program: &OwnedFd) -> io::Result<OwnedFd> {
    let namespace = std::fs::File::open("/proc/thread-self/ns/net")?;
    let mut attribute = [0; ATTRIBUTE_WORDS];
    attribute[0] = pair(program.as_raw_fd() as u32, namespace.as_raw_fd() as u32);
    attribute[1] = pair(ATTACH_SOCKET_LOOKUP, 0);
    call(LINK_CREATE, &attribute).map(own)
}
