//! The two system calls that the io-uring crate does not do with a registered ring descriptor kept
//! over the ring's life.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use io_uring::IoUring;

const REGISTER_RING_FDS: libc::c_uint = 20;
const ENTER_GETEVENTS: libc::c_uint = 1;
const ENTER_EXT_ARG: libc::c_uint = 8;
const ENTER_REGISTERED_RING: libc::c_uint = 16;
const ENTER_NO_IOWAIT: libc::c_uint = 128;

#[repr(C)]
struct ResourceUpdate {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// `struct io_uring_getevents_arg`.
#[repr(C)]
struct GetEventsArgument {
    signal_mask: u64,
    signal_mask_bytes: u32,
    minimum_wait_us: u32,
    timeout: u64,
}

/// `struct __kernel_timespec`.
#[repr(C)]
struct Timeout {
    seconds: i64,
    nanoseconds: i64,
}

/// How long an enter may wait.
#[derive(Clone, Copy)]
pub(super) enum Wait {
    /// Not at all: run what is due and return.
    No,
    /// Until a completion is there, at most this many nanoseconds.
    AtMost(u64),
}

/// A ring as `io_uring_enter` wants it named.
#[derive(Clone, Copy)]
pub(super) struct RingHandle {
    number: RawFd,
    flags: libc::c_uint,
    wait_flags: libc::c_uint,
}

impl RingHandle {
    /// Registers the ring's descriptor with this thread, which spares a lookup a call; where that
    /// is refused the plain descriptor does.
    pub(super) fn register(ring: &IoUring) -> Self {
        // A parked worker is idle, not waiting for a disk: say so where the kernel knows how.
        let no_iowait = ring.params().is_feature_no_iowait();
        let wait_flags = ENTER_EXT_ARG | if no_iowait { ENTER_NO_IOWAIT } else { 0 };
        let ring = ring.as_raw_fd();
        let mut update = ResourceUpdate {
            offset: u32::MAX,
            reserved: 0,
            data: ring as u64,
        };
        // SAFETY: one valid update record, written back by the kernel during the call.
        let registered = unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                ring,
                REGISTER_RING_FDS,
                &raw mut update,
                1 as libc::c_uint,
            )
        };
        if registered == 1 {
            Self {
                number: update.offset as RawFd,
                flags: ENTER_REGISTERED_RING,
                wait_flags,
            }
        } else {
            Self {
                number: ring,
                flags: 0,
                wait_flags,
            }
        }
    }

    /// Submits up to `submit` entries, runs deferred work, and waits as told. Returns how many
    /// entries were taken.
    pub(super) fn enter(self, submit: u32, wait: Wait) -> io::Result<u32> {
        let result = match wait {
            // SAFETY: no pointers are passed.
            Wait::No => unsafe {
                libc::syscall(
                    libc::SYS_io_uring_enter,
                    self.number,
                    submit,
                    0 as libc::c_uint,
                    ENTER_GETEVENTS | self.flags,
                    std::ptr::null::<u8>(),
                    0_usize,
                )
            },
            Wait::AtMost(timeout_ns) => {
                let timeout = Timeout {
                    seconds: (timeout_ns / 1_000_000_000).min(1 << 30) as i64,
                    nanoseconds: (timeout_ns % 1_000_000_000) as i64,
                };
                let argument = GetEventsArgument {
                    signal_mask: 0,
                    signal_mask_bytes: 0,
                    minimum_wait_us: 0,
                    timeout: (&raw const timeout) as u64,
                };
                // SAFETY: argument and timeout are live for the call and of the size given.
                unsafe {
                    libc::syscall(
                        libc::SYS_io_uring_enter,
                        self.number,
                        submit,
                        1 as libc::c_uint,
                        ENTER_GETEVENTS | self.wait_flags | self.flags,
                        &raw const argument,
                        size_of::<GetEventsArgument>(),
                    )
                }
            }
        };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(result as u32)
        }
    }
}
