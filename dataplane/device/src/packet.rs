//! Whole Ethernet frames by packet socket (packet(7)): what a load generator needs to reach wire
//! speed. Frames are sent in batches past the queueing discipline, and received from a ring that
//! the kernel fills (TPACKET_V3), so that a packet costs no system call of its own.
#![allow(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::address::RawAddress;

/// Datagrams or frames that one call hands to the kernel.
pub const SEND_BATCH_MAX: usize = 64;
const BLOCK_BYTES: usize = 1 << 18;
const FRAME_BYTES: usize = 2048;
/// A block that is not full is handed over after so long.
const BLOCK_TIMEOUT_MS: u32 = 5;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn set<T>(socket: impl AsFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: `value` is live for the call and its size is passed.
    check(unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    })
    .map(drop)
}

fn open(protocol: u16) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers are passed.
    let socket =
        check(unsafe { libc::socket(libc::AF_PACKET, flags, i32::from(protocol.to_be())) })?;
    // SAFETY: just returned to us, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(socket) })
}

fn bind(socket: &OwnedFd, interface: u32, protocol: u16) -> io::Result<()> {
    // SAFETY: sockaddr_ll is plain data for which all zeroes is valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = interface as i32;
    // SAFETY: `address` is live for the call and its size is passed.
    check(unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    })
    .map(drop)
}

/// A packet socket that receives nothing and holds many frames on their way out, of one interface.
pub(crate) fn open_sender(interface: Option<u32>) -> io::Result<OwnedFd> {
    let socket = open(0)?;
    if let Some(interface) = interface {
        bind(&socket, interface, 0)?;
    }
    // Without the right to more, what is usual has to do.
    let _ = set(&socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &(4 << 20));
    Ok(socket)
}

/// Sends frames from one interface.
#[derive(Debug)]
pub struct FrameSender {
    socket: OwnedFd,
}

impl FrameSender {
    /// Opens the socket on an interface (its index).
    ///
    /// # Errors
    /// Those of the kernel: without CAP_NET_RAW, `PermissionDenied`.
    pub fn open(interface: u32) -> io::Result<Self> {
        let socket = open_sender(Some(interface))?;
        // Only for speed; an interface without it still sends.
        let _ = set(&socket, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, &1_i32);
        Ok(Self { socket })
    }

    /// Hands at most [`SEND_BATCH_MAX`] frames to the kernel; returns how many it took.
    ///
    /// # Errors
    /// Why it did not take the first.
    pub fn send(&self, frames: &[&[u8]]) -> io::Result<usize> {
        send_all(self.socket.as_raw_fd(), frames, None)
    }
}

/// Sends at most [`SEND_BATCH_MAX`] datagrams from a UDP socket in one call, each to its address;
/// returns how many the kernel took.
///
/// # Errors
/// Why it did not take the first.
pub fn send_datagrams(
    socket: BorrowedFd<'_>,
    datagrams: &[&[u8]],
    addresses: &[SocketAddr],
) -> io::Result<usize> {
    send_all(socket.as_raw_fd(), datagrams, Some(addresses))
}

fn send_all(
    socket: libc::c_int,
    datagrams: &[&[u8]],
    addresses: Option<&[SocketAddr]>,
) -> io::Result<usize> {
    let count = datagrams.len().min(SEND_BATCH_MAX);
    let count = addresses.map_or(count, |addresses| count.min(addresses.len()));
    let mut names = [RawAddress::ZERO; SEND_BATCH_MAX];
    // SAFETY: both are plain data for which all zeroes is valid.
    let (mut vectors, mut headers): (
        [libc::iovec; SEND_BATCH_MAX],
        [libc::mmsghdr; SEND_BATCH_MAX],
    ) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    for index in 0..count {
        vectors[index].iov_base = datagrams[index].as_ptr().cast_mut().cast();
        vectors[index].iov_len = datagrams[index].len();
        let header = &mut headers[index].msg_hdr;
        header.msg_iov = &raw mut vectors[index];
        header.msg_iovlen = 1;
        if let Some(addresses) = addresses {
            header.msg_namelen = names[index].write(&addresses[index]);
            header.msg_name = (&raw mut names[index]).cast();
        }
    }
    // SAFETY: the first `count` headers point at vectors, names and datagrams that outlive the
    // call, and the kernel only reads what they point at.
    let sent = unsafe {
        libc::sendmmsg(
            socket,
            headers.as_mut_ptr(),
            count as u32,
            libc::MSG_DONTWAIT,
        )
    };
    check(sent).map(|sent| sent as usize)
}

/// Receives the frames of UDP over IPv4 that come in on one interface.
#[derive(Debug)]
pub struct FrameReceiver {
    socket: OwnedFd,
    ring: *mut u8,
    blocks: usize,
    next: usize,
    dropped: u64,
}

// SAFETY: the ring belongs to this value alone and is not bound to a thread.
unsafe impl Send for FrameReceiver {}

impl FrameReceiver {
    /// Opens a ring of about `ring_bytes` on an interface (its index). Only UDP over IPv4 to the
    /// ports `first..=last` is kept.
    ///
    /// # Errors
    /// Those of the kernel: without CAP_NET_RAW, `PermissionDenied`.
    pub fn open(interface: u32, first: u16, last: u16, ring_bytes: usize) -> io::Result<Self> {
        let socket = open(0)?;
        let version = 2_i32; // TPACKET_V3
        set(&socket, libc::SOL_PACKET, libc::PACKET_VERSION, &version)?;
        let blocks = (ring_bytes / BLOCK_BYTES).max(4);
        // SAFETY: plain data for which all zeroes is valid.
        let mut request: libc::tpacket_req3 = unsafe { std::mem::zeroed() };
        request.tp_block_size = BLOCK_BYTES as u32;
        request.tp_block_nr = blocks as u32;
        request.tp_frame_size = FRAME_BYTES as u32;
        request.tp_frame_nr = (blocks * BLOCK_BYTES / FRAME_BYTES) as u32;
        request.tp_retire_blk_tov = BLOCK_TIMEOUT_MS;
        set(&socket, libc::SOL_PACKET, libc::PACKET_RX_RING, &request)?;
        filter(&socket, first, last)?;
        // SAFETY: a fresh mapping of the ring that was just made, of exactly its size.
        let ring = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                blocks * BLOCK_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                socket.as_raw_fd(),
                0,
            )
        };
        if ring == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let receiver = Self {
            socket,
            ring: ring.cast(),
            blocks,
            next: 0,
            dropped: 0,
        };
        // Bound last: from here on it receives.
        bind(&receiver.socket, interface, libc::ETH_P_IP as u16)?;
        Ok(receiver)
    }

    /// Waits at most `timeout_ms` for a block, then shows each frame of all blocks that are ready:
    /// the frame and the moment it came, ns since 1970. Returns the number of frames.
    ///
    /// # Errors
    /// Those of poll, except a signal.
    pub fn receive(
        &mut self,
        timeout_ms: u16,
        mut on_frame: impl FnMut(&[u8], u64),
    ) -> io::Result<usize> {
        if !self.is_ready() {
            let mut wait = libc::pollfd {
                fd: self.socket.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: `wait` is live for the call.
            let ready = unsafe { libc::poll(&raw mut wait, 1, i32::from(timeout_ms)) };
            match check(ready) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
        let mut frames = 0;
        for _ in 0..self.blocks {
            if !self.is_ready() {
                break;
            }
            frames += self.read_block(&mut on_frame);
            self.status().store(0, Ordering::Release);
            self.next = (self.next + 1) % self.blocks;
        }
        Ok(frames)
    }

    /// Frames that the kernel had no room for, since the receiver was opened.
    pub fn dropped(&mut self) -> u64 {
        let mut values = [0_u32; 3];
        let mut length = size_of_val(&values) as libc::socklen_t;
        // SAFETY: `values` is live and the kernel writes at most `length` bytes. Reading resets.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                values.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if result == 0 {
            self.dropped += u64::from(values[1]);
        }
        self.dropped
    }

    fn block(&self) -> *mut u8 {
        // SAFETY: `next` is below `blocks`, so this stays within the mapping.
        unsafe { self.ring.add(self.next * BLOCK_BYTES) }
    }

    fn status(&self) -> &AtomicU32 {
        // SAFETY: block_status is the third word of a block's head: within the mapping, aligned,
        // and written by the kernel and us as a whole.
        unsafe { AtomicU32::from_ptr(self.block().add(8).cast()) }
    }

    fn is_ready(&self) -> bool {
        self.status().load(Ordering::Acquire) & libc::TP_STATUS_USER != 0
    }

    fn read_block(&self, on_frame: &mut impl FnMut(&[u8], u64)) -> usize {
        // SAFETY: the status said (acquire) that the block is ours until we give it back, so it is
        // not written meanwhile; it lies within the mapping.
        let block = unsafe { std::slice::from_raw_parts(self.block(), BLOCK_BYTES) };
        let word = |at: usize| {
            let bytes = block
                .get(at..at + 4)
                .and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u32::from_ne_bytes)
        };
        let (frames, mut at) = (word(12) as usize, word(16) as usize);
        for _ in 0..frames {
            // tpacket3_hdr: next_offset, sec, nsec, snaplen, len, status, mac and net (u16 each).
            let (step, captured) = (word(at) as usize, word(at + 12) as usize);
            let at_ns = u64::from(word(at + 4)) * 1_000_000_000 + u64::from(word(at + 8));
            let start = at + (word(at + 24) & 0xffff) as usize;
            if let Some(frame) = block.get(start..start + captured) {
                on_frame(frame, at_ns);
            }
            if step == 0 {
                break;
            }
            at += step;
        }
        frames
    }
}

impl Drop for FrameReceiver {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `open`, used by nobody after this.
        unsafe { libc::munmap(self.ring.cast(), self.blocks * BLOCK_BYTES) };
    }
}

/// Keeps incoming, unfragmented UDP over IPv4 to `first..=last` (classic BPF).
fn filter(socket: &OwnedFd, first: u16, last: u16) -> io::Result<()> {
    const DROP: u8 = 9;
    let step = |code: u16, jt: u8, jf: u8, k: u32| libc::sock_filter { code, jt, jf, k };
    let to_drop = |from: u8| DROP - from - 1;
    let mut program = [
        step(0x28, 0, 0, 0xffff_f004),               // ldh pkttype
        step(0x15, to_drop(1), 0, 4),                // outgoing: drop
        step(0x30, 0, 0, 23),                        // ldb protocol
        step(0x15, 0, to_drop(3), 17),               // not UDP: drop
        step(0xb1, 0, 0, 14),                        // ldx header length
        step(0x48, 0, 0, 16),                        // ldh destination port
        step(0x35, 0, to_drop(6), u32::from(first)), // below: drop
        step(0x25, to_drop(7), 0, u32::from(last)),  // above: drop
        step(0x06, 0, 0, 0x4_0000),                  // keep
        step(0x06, 0, 0, 0),                         // drop
    ];
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

/// Keeps the calling thread on one core.
///
/// # Errors
/// The core does not exist or is not ours to use.
pub fn pin_thread(core: usize) -> io::Result<()> {
    // SAFETY: cpu_set_t is plain data; the macro writes within it (it ignores a core beyond), and
    // the call reads it.
    check(unsafe {
        let mut cores: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut cores);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const cores)
    })
    .map(drop)
}

/// Lets the calling thread's sleeps end within a microsecond of their time instead of fifty.
pub fn sleep_exactly() {
    // SAFETY: no pointers are passed.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_000, 0, 0, 0) };
}

/// Makes a UDP socket hold its port and throw away whatever comes: nobody is told that the port is
/// closed, and nothing is queued.
///
/// # Errors
/// Those of setsockopt.
pub fn discard_all(socket: BorrowedFd<'_>) -> io::Result<()> {
    let mut program = [libc::sock_filter {
        code: 0x06, // return 0 bytes
        jt: 0,
        jf: 0,
        k: 0,
    }];
    let program = libc::sock_fprog {
        len: 1,
        filter: program.as_mut_ptr(),
    };
    set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}
