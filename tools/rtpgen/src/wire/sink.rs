//! Receiving flows.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::{Domain, Socket, Type};
use trunkline_device::packet::{FrameReceiver, discard_all, pin_thread};
use trunkline_device::socket_drops;

use super::clock::{thread_cpu, unix_ns};
use super::report::{FlowResult, FlowsReport, GeneratorReport};
use super::{frame, path, ports, stamp};
use crate::options::{Io, SinkOptions};
use crate::receiver::Receiver;
use crate::report::Percentiles;
use crate::rtp;

/// Room for 50 ms of a million packets a second.
const RING_BYTES: usize = 64 << 20;
const RECEIVE_BUFFER_BYTES: usize = 512 * 1024;
/// How often the end of the run is looked for.
const TURN_MS: u16 = 20;

enum Way {
    /// The ring, and the sockets that hold the ports so that nobody is told they are closed.
    Packet {
        receiver: FrameReceiver,
        _ports: Vec<UdpSocket>,
    },
    /// RTP and RTCP in turn.
    Sockets(Epoll, Vec<UdpSocket>),
}

struct Heard {
    receiver: Receiver,
    latency_us: Histogram<u32>,
}

/// What is measured, apart from how it comes in.
struct Flows {
    address: IpAddr,
    first_port: u16,
    flows: Vec<Heard>,
    latency_us: Histogram<u64>,
    received: Arc<AtomicU64>,
}

/// A receiver of flows.
pub struct Sink {
    options: SinkOptions,
    way: Way,
    flows: Flows,
    first_error: Option<io::Error>,
    elapsed: Duration,
    cpu: Duration,
    interrupted: bool,
}

impl Sink {
    /// Listens on every second port from `options.listen` on.
    ///
    /// # Errors
    /// A port is taken, or does not exist; no packet socket where one was asked for.
    pub fn open(options: &SinkOptions) -> io::Result<Self> {
        let ports = ports(options.listen, options.flows)?;
        crate::options::raise_file_limit();
        let histogram =
            || Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are constant");
        let flow = |_: &u16| Heard {
            receiver: Receiver::new(None, None).with_clock(options.clock_hz),
            latency_us: Histogram::new_with_bounds(1, 10_000_000, 1)
                .expect("the bounds are constant"),
        };
        let flows = Flows {
            address: options.listen.ip(),
            first_port: options.listen.port(),
            flows: ports.iter().map(flow).collect(),
            latency_us: histogram(),
            received: Arc::default(),
        };
        Ok(Self {
            way: open_way(options, &ports)?,
            options: options.clone(),
            flows,
            first_error: None,
            elapsed: Duration::ZERO,
            cpu: Duration::ZERO,
            interrupted: false,
        })
    }

    /// RTP packets received so far, readable while it runs.
    pub fn progress(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.flows.received)
    }

    /// Receives until the time is over or `stop` is set.
    pub fn run(&mut self, duration: Option<Duration>, stop: &AtomicBool) {
        if let Some(core) = self.options.core
            && let Err(error) = pin_thread(core)
        {
            self.first_error.get_or_insert(error);
        }
        let (begin, cpu) = (Instant::now(), thread_cpu());
        loop {
            self.interrupted = stop.load(Ordering::Relaxed);
            if self.interrupted || duration.is_some_and(|duration| begin.elapsed() >= duration) {
                break;
            }
            let flows = &mut self.flows;
            let turn = match &mut self.way {
                Way::Packet { receiver, .. } => receiver
                    .receive(TURN_MS, |frame, at_ns| {
                        if let Some((to, payload)) = frame::read(frame)
                            && IpAddr::V4(*to.ip()) == flows.address
                        {
                            flows.take(to.port(), payload, at_ns);
                        }
                    })
                    .map(|_| ()),
                Way::Sockets(epoll, sockets) => receive_plain(epoll, sockets, flows),
            };
            if let Err(error) = turn {
                self.first_error.get_or_insert(error);
                break;
            }
        }
        self.elapsed += begin.elapsed();
        self.cpu += thread_cpu().saturating_sub(cpu);
    }

    /// What was heard, and whether we kept up.
    #[must_use]
    pub fn report(&mut self) -> FlowsReport {
        let seconds = self.elapsed.as_secs_f64().max(1e-9);
        let mut jitter_us: Histogram<u64> =
            Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are constant");
        let mut flows = Vec::with_capacity(self.flows.flows.len());
        for (number, heard) in self.flows.flows.iter().enumerate() {
            let port = self.flows.first_port + 2 * number as u16;
            let result = heard.result(port);
            if result.received > 1 {
                jitter_us.saturating_record(((result.jitter_ms * 1000.0) as u64).max(1));
            }
            flows.push(result);
        }
        let (io, dropped) = match &mut self.way {
            Way::Packet { receiver, .. } => ("packet", receiver.dropped()),
            Way::Sockets(_, sockets) => {
                let drops = |socket: &UdpSocket| socket_drops(socket.as_fd()).unwrap_or(0);
                (
                    "socket",
                    sockets.iter().map(|socket| u64::from(drops(socket))).sum(),
                )
            }
        };
        let mut report = FlowsReport {
            elapsed_s: self.elapsed.as_secs_f64(),
            interrupted: self.interrupted,
            first_error: self
                .first_error
                .as_ref()
                .map_or_else(String::new, ToString::to_string),
            jitter_ms: Percentiles::milliseconds(&jitter_us),
            latency_ms: Percentiles::milliseconds(&self.flows.latency_us),
            flows,
            ..FlowsReport::default()
        };
        report.sum_up();
        report.generator = GeneratorReport {
            io,
            done_per_second: report.received as f64 / seconds,
            dropped,
            busy: self.cpu.as_secs_f64() / seconds,
            limited: dropped > 0,
            proof: format!(
                "{dropped} packets dropped before the sink: {}",
                if dropped > 0 {
                    "the sink was the limit"
                } else {
                    "the sink was not the limit"
                }
            ),
            ..GeneratorReport::default()
        };
        report
    }
}

impl Flows {
    fn take(&mut self, port: u16, packet: &[u8], at_ns: u64) {
        let offset = port.wrapping_sub(self.first_port);
        let Some(heard) = self.flows.get_mut(usize::from(offset / 2)) else {
            return;
        };
        if offset % 2 == 1 || rtp::is_rtcp(packet) {
            heard.receiver.handle_rtcp();
            return;
        }
        let Some((header, payload)) = rtp::parse(packet) else {
            heard.receiver.handle_malformed();
            return;
        };
        self.received.fetch_add(1, Ordering::Relaxed);
        heard.receiver.handle_rtp(header, payload, at_ns);
        // A stamp of another machine's clock would be far off: a minute is no latency.
        if let Some(sent_ns) = stamp::read(payload)
            && let Some(latency_ns) = at_ns.checked_sub(sent_ns)
            && latency_ns < 60_000_000_000
        {
            let latency_us = (latency_ns / 1000).max(1);
            self.latency_us.saturating_record(latency_us);
            heard.latency_us.saturating_record(latency_us);
        }
    }
}

impl Heard {
    fn result(&self, port: u16) -> FlowResult {
        let stats = self.receiver.stats();
        FlowResult {
            port,
            received: stats.packets,
            expected: stats.expected,
            lost: stats.expected - stats.distinct.min(stats.expected),
            duplicates: stats.duplicates,
            reordered: stats.reordered,
            malformed: stats.malformed,
            rtcp: stats.rtcp,
            jitter_ms: stats.jitter_ms,
            latency_ms: Percentiles::milliseconds(&self.latency_us),
            ..FlowResult::default()
        }
    }
}

fn open_way(options: &SinkOptions, ports: &[u16]) -> io::Result<Way> {
    if options.io != Io::Socket {
        match open_packet(options, ports) {
            Err(_) if options.io == Io::Auto => {}
            other => return other,
        }
    }
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let sockets = bind_all(options.listen.ip(), ports, RECEIVE_BUFFER_BYTES)?;
    for (index, socket) in sockets.iter().enumerate() {
        epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;
    }
    Ok(Way::Sockets(epoll, sockets))
}

fn open_packet(options: &SinkOptions, ports: &[u16]) -> io::Result<Way> {
    let (index, own) = match options.interface {
        Some(index) => (index, false),
        None => {
            let interface = path::interface_of(options.listen.ip())
                .ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
            (interface.index, true)
        }
    };
    let last = ports.last().copied().unwrap_or(options.listen.port());
    let last = last.saturating_add(1);
    let sockets = if own {
        bind_all(options.listen.ip(), ports, 4096)?
    } else {
        Vec::new()
    };
    for socket in &sockets {
        discard_all(socket.as_fd())?;
    }
    let receiver = FrameReceiver::open(index, options.listen.port(), last, RING_BYTES)?;
    Ok(Way::Packet {
        receiver,
        _ports: sockets,
    })
}

fn bind_all(address: IpAddr, ports: &[u16], buffer_bytes: usize) -> io::Result<Vec<UdpSocket>> {
    let mut sockets = Vec::with_capacity(2 * ports.len());
    for port in ports {
        for port in [Some(*port), port.checked_add(1)].into_iter().flatten() {
            let address = SocketAddr::new(address, port);
            let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
            socket.set_nonblocking(true)?;
            // As much as the system allows; less is no error.
            let _ = socket.set_recv_buffer_size(buffer_bytes);
            socket
                .bind(&address.into())
                .map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))?;
            sockets.push(socket.into());
        }
    }
    Ok(sockets)
}

fn receive_plain(epoll: &Epoll, sockets: &[UdpSocket], flows: &mut Flows) -> io::Result<()> {
    let mut events = [EpollEvent::empty(); 256];
    let ready = match epoll.wait(&mut events, EpollTimeout::from(TURN_MS)) {
        Err(nix::errno::Errno::EINTR) => 0,
        other => other?,
    };
    let mut buffer = [0_u8; 2048];
    for event in &events[..ready] {
        let index = event.data() as usize;
        let port = flows.first_port.wrapping_add(index as u16);
        // Bounded, so that a flooded port takes no more than its turn.
        for _ in 0..32 {
            let Ok(length) = sockets[index].recv(&mut buffer) else {
                break;
            };
            flows.take(port, &buffer[..length], unix_ns());
        }
    }
    Ok(())
}
