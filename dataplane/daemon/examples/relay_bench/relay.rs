//! The relay under test: its sockets, and one of the variants that works on them.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

use trunkline_bench::bare_loop::{self, Way};
use trunkline_device::{Config, Device, MmsgDevice, RouteSeat, Routes, UringDevice};

use crate::network::{Network, pin};
use crate::worker::{self, Running};

/// All variants, for the command line's default.
pub const VARIANTS: &str = "bare,framed-device,framed,framed-record,steered-device,steered,steered-record,uring-device,uring,uring-record,mmsg-device,mmsg,mmsg-record";

/// What relays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Variant {
    /// The loop to compare with.
    Bare,
    /// A device alone, each packet sent on as it is.
    Device(Io),
    /// The dataplane's worker: judged, counted, rewritten.
    Worker(Io),
    /// The same, and every packet recorded to disk.
    Record(Io),
}

/// Our devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Io {
    /// One receive socket, steered; frames sent by packet socket.
    Framed,
    /// One receive socket, steered.
    Steered,
    /// A socket a port.
    Uring,
    Mmsg,
}

impl Io {
    /// Whether it receives on one socket.
    pub fn steers(self) -> bool {
        matches!(self, Self::Framed | Self::Steered)
    }
}

impl Variant {
    fn io(self) -> Option<Io> {
        match self {
            Self::Bare => None,
            Self::Device(io) | Self::Worker(io) | Self::Record(io) => Some(io),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Device(Io::Framed) => "framed-device",
            Self::Worker(Io::Framed) => "framed",
            Self::Record(Io::Framed) => "framed-record",
            Self::Device(Io::Steered) => "steered-device",
            Self::Worker(Io::Steered) => "steered",
            Self::Record(Io::Steered) => "steered-record",
            Self::Device(Io::Uring) => "uring-device",
            Self::Device(Io::Mmsg) => "mmsg-device",
            Self::Worker(Io::Uring) => "uring",
            Self::Worker(Io::Mmsg) => "mmsg",
            Self::Record(Io::Uring) => "uring-record",
            Self::Record(Io::Mmsg) => "mmsg-record",
        }
    }

    pub fn parse(name: &str) -> Result<Self, String> {
        let ours = |io| [Self::Device(io), Self::Worker(io), Self::Record(io)];
        let mut all = [Io::Framed, Io::Steered, Io::Uring, Io::Mmsg]
            .into_iter()
            .flat_map(ours)
            .chain([Self::Bare]);
        all.find(|variant| variant.name() == name)
            .ok_or_else(|| format!("no variant {name}; there are {VARIANTS}"))
    }
}

/// One run's parameters.
pub struct Setup {
    pub variant: Variant,
    pub flows: u32,
    pub core: usize,
    /// Recordings go below it.
    pub record_to: PathBuf,
}

/// What the relay thread shows while it runs.
#[derive(Default)]
pub struct Progress {
    stop: AtomicBool,
    ready: AtomicBool,
    thread: AtomicI32,
    sent: AtomicU64,
    calls: AtomicU64,
    failed: AtomicU64,
}

impl Progress {
    pub fn publish(&self, sent: u64, calls: u64, failed: u64) {
        self.sent.store(sent, Ordering::Relaxed);
        self.calls.store(calls, Ordering::Relaxed);
        self.failed.store(failed, Ordering::Relaxed);
    }

    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Says that the calling thread is the relay and that it receives.
    pub fn ready(&self) {
        // SAFETY: takes no arguments.
        let thread = unsafe { libc::gettid() };
        self.thread.store(thread, Ordering::Relaxed);
        self.ready.store(true, Ordering::Release);
    }

    pub fn wait_ready(&self) {
        while !self.ready.load(Ordering::Acquire) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}

enum Inside {
    Loop(std::thread::JoinHandle<()>),
    Worker(Box<Running>),
}

/// A relay that runs.
pub struct Relay {
    pub targets: Vec<SocketAddr>,
    progress: Arc<Progress>,
    inside: Inside,
    /// Ends after the devices that ask it.
    _routes: Option<Routes>,
}

impl Relay {
    /// Binds the sockets and starts the threads; returns when it receives.
    pub fn start(network: &Network, setup: &Setup) -> Result<Self, String> {
        let progress = Arc::new(Progress::default());
        let far = far_addresses(network.far_address, setup.flows);
        let source = network.generator.source;
        let (routes, seat) = match setup.variant.io() {
            Some(Io::Framed) => {
                let (routes, mut seats) = start_routes()?;
                (Some(routes), seats.pop())
            }
            _ => (None, None),
        };
        let (targets, inside) = match setup.variant {
            Variant::Bare | Variant::Device(_) => {
                let (inward, targets) = bind_many(network.relay_address, setup.flows)?;
                let (outward, _) = bind_many(network.relay_address, setup.flows)?;
                let (shared, variant, core) = (progress.clone(), setup.variant, setup.core);
                let thread = std::thread::spawn(move || {
                    pin(core);
                    run_loop(variant, seat, inward, outward, &far, &shared);
                });
                (targets, Inside::Loop(thread))
            }
            Variant::Worker(io) | Variant::Record(io) => {
                let mut groups = Vec::new();
                for _ in 0..4 {
                    groups.push(bind_many(network.relay_address, setup.flows)?);
                }
                let targets = groups[0].1.clone();
                let mut columns: Vec<_> = groups.into_iter().map(|g| g.0.into_iter()).collect();
                let mut next = |column: usize| columns[column].next().expect("as many of each");
                let sockets = (0..setup.flows).map(|_| [next(0), next(1), next(2), next(3)]);
                let sockets = sockets.collect();
                let record_to = matches!(setup.variant, Variant::Record(_))
                    .then(|| worker::record_directory(&setup.record_to));
                let work = worker::Work {
                    sockets,
                    holds: io != Io::Framed,
                    far,
                    source,
                    record_to,
                };
                let running = Running::start(io, seat, setup.core, work, &progress)?;
                (targets, Inside::Worker(Box::new(running)))
            }
        };
        progress.wait_ready();
        worker::favour_recorder();
        Ok(Self {
            targets,
            progress,
            inside,
            _routes: routes,
        })
    }

    /// The relay's thread id.
    pub fn thread_id(&self) -> i32 {
        self.progress.thread.load(Ordering::Acquire)
    }

    /// Packets that left.
    pub fn sent(&self) -> u64 {
        match &self.inside {
            Inside::Loop(_) => self.progress.sent.load(Ordering::Relaxed),
            Inside::Worker(running) => running.sent(),
        }
    }

    /// Entries into the kernel, where they are counted.
    pub fn calls(&self) -> Option<u64> {
        match &self.inside {
            Inside::Loop(_) => Some(self.progress.calls.load(Ordering::Relaxed)),
            Inside::Worker(_) => None,
        }
    }

    /// Packets recorded.
    pub fn captured(&self) -> u64 {
        match &self.inside {
            Inside::Loop(_) => 0,
            Inside::Worker(running) => running.captured(),
        }
    }

    /// Packets that were not sent, or not recorded, by our fault.
    pub fn failed(&self) -> u64 {
        match &self.inside {
            Inside::Loop(_) => self.progress.failed.load(Ordering::Relaxed),
            Inside::Worker(running) => running.failed(),
        }
    }

    /// Takes what it reports.
    pub fn drain(&self) {
        if let Inside::Worker(running) = &self.inside {
            running.drain();
        }
    }

    /// Ends the threads and waits for the sockets to be closed.
    pub fn stop(self) -> Result<(), String> {
        self.progress.stop.store(true, Ordering::Relaxed);
        match self.inside {
            Inside::Loop(thread) => thread
                .join()
                .map_err(|_| "the relay thread panicked".to_owned()),
            Inside::Worker(running) => running.stop(),
        }
    }
}

fn start_routes() -> Result<(Routes, Vec<RouteSeat>), String> {
    let log = |allowed: Result<(), &str>| {
        if let Err(reason) = allowed {
            eprintln!("no frames: {reason}");
        }
    };
    Routes::start(1, log).map_err(|error| error.to_string())
}

fn run_loop(
    variant: Variant,
    routes: Option<RouteSeat>,
    inward: Vec<OwnedFd>,
    outward: Vec<OwnedFd>,
    far: &[SocketAddr],
    progress: &Progress,
) {
    let config = Config {
        slots_max: 2 * far.len() as u32,
        steer: variant.io().is_some_and(Io::steers),
        routes,
        ..Config::default()
    };
    match variant {
        Variant::Device(Io::Uring | Io::Steered | Io::Framed) => {
            let device = UringDevice::open(&config).expect("io_uring");
            forward(device, inward, outward, far, progress);
        }
        Variant::Device(Io::Mmsg) => {
            let device = MmsgDevice::open(&config).expect("epoll");
            forward(device, inward, outward, far, progress);
        }
        Variant::Bare | Variant::Worker(_) | Variant::Record(_) => {
            progress.ready();
            bare(&inward, &outward, far, progress);
        }
    }
}

/// The device alone: every packet is sent on as it is. Flow `n` comes in on slot `2n` and leaves
/// from slot `2n + 1`.
fn forward<D: Device>(
    mut device: D,
    inward: Vec<OwnedFd>,
    outward: Vec<OwnedFd>,
    far: &[SocketAddr],
    progress: &Progress,
) {
    for (flow, (inward, outward)) in inward.into_iter().zip(outward).enumerate() {
        device.install(flow as u32 * 2, inward).expect("slot");
        device.install(flow as u32 * 2 + 1, outward).expect("slot");
    }
    device.park(0);
    progress.ready();
    let mut batch = Vec::with_capacity(256);
    while !progress.stopped() {
        device.receive(&mut batch);
        for packet in batch.drain(..) {
            let far = &far[packet.slot as usize / 2];
            device.send(packet.slot + 1, far, packet.buffer);
        }
        device.park(20_000_000);
        let counters = device.counters();
        progress.publish(counters.sent, counters.syscalls, counters.send_failed);
    }
}

/// The loop to compare with.
fn bare(inward: &[OwnedFd], outward: &[OwnedFd], far: &[SocketAddr], progress: &Progress) {
    let sockets = inward.iter().zip(outward);
    let ways = sockets.zip(far).filter_map(|((from, by), far)| match far {
        SocketAddr::V4(to) => Some(Way {
            from: from.as_fd(),
            by: by.as_fd(),
            to: *to,
        }),
        SocketAddr::V6(_) => None,
    });
    let ways: Vec<_> = ways.collect();
    let go_on = |totals: bare_loop::Totals| {
        progress.publish(totals.sent, totals.calls, 0);
        !progress.stopped()
    };
    bare_loop::relay(&ways, go_on).expect("epoll");
}

/// Sockets as the conductor binds them, and their addresses.
fn bind_many(address: IpAddr, count: u32) -> Result<(Vec<OwnedFd>, Vec<SocketAddr>), String> {
    let mut sockets = Vec::new();
    let mut addresses = Vec::new();
    for _ in 0..count {
        let socket = UdpSocket::bind((address, 0)).map_err(|error| error.to_string())?;
        let bytes: libc::c_int = 64 * 1024;
        // SAFETY: the option's value is a live int.
        unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVBUF,
                (&raw const bytes).cast(),
                size_of::<libc::c_int>() as u32,
            )
        };
        addresses.push(socket.local_addr().map_err(|error| error.to_string())?);
        sockets.push(socket.into());
    }
    Ok((sockets, addresses))
}

fn far_addresses(far: IpAddr, flows: u32) -> Vec<SocketAddr> {
    (0..flows)
        .map(|flow| SocketAddr::new(far, 20_000 + (flow % 20_000) as u16))
        .collect()
}
