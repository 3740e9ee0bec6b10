//! A cold thread that knows how addresses are reached, for devices that send whole frames.
//!
//! ```text
//!   device ── watch (source, destination) ──► routes' thread ◄── requests, notifications ──► kernel
//!   device ◄── next hop, or "by socket" ─────
//! ```
//! A path is for frames where its route is plain (one next hop, no tunnel), leads out of an Ethernet
//! interface that is up, and the kernel knows the neighbour's hardware address; all of them only
//! while nothing on the machine judges outgoing datagrams that frames would get round: packet
//! filters, IPsec policies, routing rules. Everything else is sent by socket, and so is what comes
//! before an answer. The kernel's notifications change paths at once; what it does not notify
//! (path MTU, packet filters) is asked for once a second as long as anything is sent; after a rest
//! from the first datagram on, which goes by what was known before. Raw sockets get round less than frames: a device may
//! use them beside packet filters and routing rules, but not where ports decide or IPsec does.
//!
//! The kernel confirms neighbours that are used. Frames of ours do not count as use: the thread
//! says so in their place, so an address that has moved is noticed as soon as for anybody else.
#![allow(unsafe_code)]

mod lookup;
mod netlink;
mod seat;
mod table;
mod wake;

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::packet::open_sender;
use netlink::Netlink;
use table::{Kernel, Table};
use wake::Wake;

pub(crate) use lookup::Mac;
pub use seat::RouteSeat;
pub(crate) use seat::{Hop, INTERFACES_MAX, PATHS_MAX, PathId, Request, Update};

/// Between looks at what the kernel does not notify.
const TICK: Duration = Duration::from_secs(1);
/// Between looks while a device's queue is full, or routes change all the time.
const SOON: Duration = Duration::from_millis(20);

/// Between looks at nothing: notifications and requests wake the thread.
const IDLE: Duration = Duration::from_secs(60);

/// IPv6 rules and next hops have group numbers beyond what libc names.
const IP6_RULES: u32 = 1 << 18;
const NEXT_HOPS: u32 = 1 << 31;
const GROUPS: u32 = (libc::RTMGRP_LINK
    | libc::RTMGRP_NEIGH
    | libc::RTMGRP_IPV4_IFADDR
    | libc::RTMGRP_IPV4_ROUTE
    | libc::RTMGRP_IPV4_RULE
    | libc::RTMGRP_IPV6_IFADDR
    | libc::RTMGRP_IPV6_ROUTE) as u32
    | IP6_RULES
    | NEXT_HOPS;

/// The thread. It ends when this is dropped; devices then go on by what they know last, so drop it
/// after them.
#[derive(Debug)]
pub struct Routes {
    wake: Arc<Wake>,
    thread: Option<JoinHandle<()>>,
}

impl Routes {
    /// Starts the thread in the calling thread's network namespace, for `devices` devices.
    /// `on_change` is called there whenever frames may be sent (`Ok`) or may not (why), first before
    /// this returns.
    ///
    /// # Errors
    /// What kernel or rights do not allow; frames take CAP_NET_RAW and CAP_NET_ADMIN.
    pub fn start(
        devices: usize,
        on_change: impl Fn(Result<(), &str>) + Send + 'static,
    ) -> io::Result<(Self, Vec<RouteSeat>)> {
        let wake = Arc::new(Wake::new()?);
        let events = Netlink::open(libc::NETLINK_ROUTE, GROUPS)?;
        let requests = Netlink::open(libc::NETLINK_ROUTE, 0)?;
        // To be refused here rather than at the first call.
        let _: OwnedFd = open_sender(None)?;
        let seats: Vec<_> = (0..devices).map(|_| RouteSeat::new(wake.clone())).collect();
        let mut table = Table::new(Kernel::new(requests), seats.clone());
        table.look_for_obstacle();
        on_change(table.obstacle().map_or(Ok(()), Err));
        let thread_wake = wake.clone();
        let thread = std::thread::Builder::new()
            .name("routes".to_owned())
            .spawn(move || run(table, events, &thread_wake, on_change))?;
        let routes = Self {
            wake,
            thread: Some(thread),
        };
        Ok((routes, seats))
    }
}

impl Drop for Routes {
    fn drop(&mut self) {
        self.wake.stop.store(true, Ordering::Release);
        self.wake.ring();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(mut table: Table, mut events: Netlink, wake: &Wake, on_change: impl Fn(Result<(), &str>)) {
    let mut next_tick = Instant::now() + TICK;
    let mut known = table.obstacle().map(str::to_owned);
    while !wake.stop.load(Ordering::Acquire) {
        let wait = if table.is_behind() {
            SOON
        } else if table.is_idle() || table.rests() {
            IDLE
        } else {
            next_tick.saturating_duration_since(Instant::now())
        };
        poll(&events, wake, wait);
        wake.answer();
        // Notifications that were lost: ask for everything.
        if events
            .notified(|message| table.on_notification(message))
            .is_err()
        {
            table.everything_changed();
        }
        let now = Instant::now();
        let first = (table.is_idle() || table.rests()) && table.has_requests();
        let due = now >= next_tick && !table.is_idle() && table.look_for_use();
        if first || due {
            next_tick = now + TICK;
            table.look_for_obstacle();
        }
        if table.obstacle() != known.as_deref() {
            known = table.obstacle().map(str::to_owned);
            on_change(known.as_deref().map_or(Ok(()), Err));
        }
        table.take_requests();
        table.tell_packets();
        if due {
            table.tick();
        }
        table.catch_up(now);
    }
}

fn poll(events: &Netlink, wake: &Wake, wait: Duration) {
    let readable = |file: i32| libc::pollfd {
        fd: file,
        events: libc::POLLIN,
        revents: 0,
    };
    let mut files = [
        readable(events.as_fd().as_raw_fd()),
        readable(wake.as_fd().as_raw_fd()),
    ];
    let wait_ms = wait.as_millis().min(60_000) as libc::c_int + 1;
    // SAFETY: the array is live for the call. Whatever it says, everything is looked at.
    unsafe { libc::poll(files.as_mut_ptr(), files.len() as libc::nfds_t, wait_ms) };
}
