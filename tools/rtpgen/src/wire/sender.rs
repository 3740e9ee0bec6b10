//! Sending flows on schedule.
//!
//! Flow `f` sends its packet `n` at `(n * flows + f) * interval`: all flows are spread over a
//! packet time, so what leaves is an even stream and not a burst each 20 ms.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use trunkline_device::packet::{
    FrameSender, SEND_BATCH_MAX, pin_thread, send_datagrams, sleep_exactly,
};

use super::clock::{thread_cpu, unix_ns};
use super::frame::{self, HEAD_BYTES};
use super::report::{FlowResult, FlowsReport, GeneratorReport};
use super::{path, ports, stamp};
use crate::options::{Io, StreamOptions};
use crate::report::Percentiles;
use crate::rtp::{self, HEADER_BYTES};
use crate::tone::{Tone, frequency_hz};

/// The sender rests at least so long between two batches: the bound of a healthy run's jitter.
const TICK: Duration = Duration::from_micros(100);
/// Packets this late are given up: a stall must not become a burst.
const BEHIND_MAX: Duration = Duration::from_millis(50);
/// Time between two sender reports of a flow.
const REPORT: Duration = Duration::from_secs(5);
const BODY_AT: usize = HEAD_BYTES + HEADER_BYTES;

/// Where one flow comes from and goes to.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    /// Source; port 0 = any.
    pub from: SocketAddr,
    /// Destination.
    pub to: SocketAddr,
}

enum Way {
    /// Whole frames.
    Packet(FrameSender),
    /// One socket for all, or one a flow.
    Sockets(Vec<UdpSocket>),
}

struct State {
    flow: Flow,
    /// Headers and payload; plain sockets send it from the RTP header on.
    packet: Vec<u8>,
    tone: Tone,
    ssrc: u32,
    /// RTP clock ticks from one packet to the next.
    step: u64,
    packets: u64,
    result: FlowResult,
    next_report: Duration,
}

/// A sender of flows.
pub struct Sender {
    options: StreamOptions,
    way: Way,
    flows: Vec<State>,
    interval_ns: f64,
    lateness_us: Histogram<u64>,
    sent: Arc<AtomicU64>,
    skipped: u64,
    full: u64,
    first_error: Option<io::Error>,
    elapsed: Duration,
    cpu: Duration,
    interrupted: bool,
}

impl Sender {
    /// Flows to every second port from `options.to` on.
    ///
    /// # Errors
    /// As [`Self::open_flows`], or ports beyond 65,535.
    pub fn open(options: &StreamOptions) -> io::Result<Self> {
        let ports = ports(options.to, options.flows)?;
        let mut flows = Vec::new();
        for (number, port) in ports.into_iter().enumerate() {
            let source = match options.source_port {
                None => 0,
                Some(first) if options.one_source => first,
                Some(first) => u16::try_from(usize::from(first) + 2 * number).map_err(|_| {
                    io::Error::new(io::ErrorKind::InvalidInput, "source ports beyond 65535")
                })?,
            };
            flows.push(Flow {
                from: SocketAddr::new(options.local, source),
                to: SocketAddr::new(options.to.ip(), port),
            });
        }
        Self::open_flows(options, flows)
    }

    /// These flows.
    ///
    /// # Errors
    /// No way to the destination (packet sockets: no neighbour), a source port is taken, or no
    /// flows at all.
    pub fn open_flows(options: &StreamOptions, mut flows: Vec<Flow>) -> io::Result<Self> {
        let invalid = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
        let first = *flows.first().ok_or_else(|| invalid("no flows"))?;
        let (way, macs) = open_way(options, first)?;
        let macs = macs.unwrap_or(frame::Macs {
            from: [0; 6],
            to: [0; 6],
        });
        let way = match way {
            Some(way) => {
                for (number, flow) in flows.iter_mut().enumerate() {
                    if flow.from.port() == 0 {
                        let port = if options.one_source {
                            10_000
                        } else {
                            10_000 + 2 * number
                        };
                        flow.from.set_port(u16::try_from(port).map_err(|_| {
                            invalid("more flows than source ports: use --one-source")
                        })?);
                    }
                }
                way
            }
            None => Way::Sockets(open_sockets(options, &flows)?),
        };
        let count = flows.len() as f64;
        let rate = options
            .rate
            .unwrap_or(flows.len() as f64 * 1000.0 / f64::from(options.ptime_ms));
        let mut histogram =
            Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are constant");
        histogram.auto(true);
        // A faster schedule has a faster clock: timestamps go with the time of sending.
        let step = (f64::from(options.payload.clock_hz()) * count / rate) as u64;
        let states = flows.into_iter().enumerate();
        Ok(Self {
            interval_ns: 1e9 / rate,
            flows: states
                .map(|(number, flow)| State::new(options, macs, number, flow, step))
                .collect(),
            options: options.clone(),
            way,
            lateness_us: histogram,
            sent: Arc::default(),
            skipped: 0,
            full: 0,
            first_error: None,
            elapsed: Duration::ZERO,
            cpu: Duration::ZERO,
            interrupted: false,
        })
    }

    /// Packets sent so far, readable while it runs.
    pub fn progress(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.sent)
    }

    /// Sends until the time is over or `stop` is set.
    pub fn run(&mut self, duration: Duration, stop: &AtomicBool) {
        if let Some(core) = self.options.core
            && let Err(error) = pin_thread(core)
        {
            self.first_error.get_or_insert(error);
        }
        sleep_exactly();
        let (begin, cpu) = (Instant::now(), thread_cpu());
        // The schedule's next packet.
        let mut next = 0_u64;
        loop {
            let now = begin.elapsed();
            self.interrupted = stop.load(Ordering::Relaxed);
            if now >= duration || self.interrupted {
                break;
            }
            let due = (now.as_nanos() as f64 / self.interval_ns) as u64 + 1;
            if due <= next {
                let until = Duration::from_nanos((next as f64 * self.interval_ns) as u64);
                std::thread::sleep(until.saturating_sub(now).max(TICK).min(duration - now));
                continue;
            }
            let behind_max = (BEHIND_MAX.as_nanos() as f64 / self.interval_ns) as u64 + 1;
            if due - next > behind_max {
                let skip = due - next - 1;
                self.skipped += skip;
                next += skip;
            }
            let count = (due - next).min(SEND_BATCH_MAX as u64) as usize;
            let first = (next % self.flows.len() as u64) as usize;
            let done = self.send(first, count.min(self.flows.len() - first), now, next);
            next += done as u64;
        }
        self.elapsed += begin.elapsed();
        self.cpu += thread_cpu().saturating_sub(cpu);
    }

    /// Sends the next packet of `count` flows from `first` on; returns how many are done with.
    fn send(&mut self, first: usize, count: usize, now: Duration, schedule: u64) -> usize {
        let options = &self.options;
        let stamp_ns = unix_ns();
        for state in &mut self.flows[first..first + count] {
            state.prepare(options, stamp_ns);
        }
        if options.rtcp {
            self.send_reports(first, count, now, stamp_ns);
        }
        let sent = match &self.way {
            Way::Packet(sender) => {
                let mut frames = [&[][..]; SEND_BATCH_MAX];
                for (frame, state) in frames.iter_mut().zip(&self.flows[first..first + count]) {
                    *frame = &state.packet;
                }
                sender.send(&frames[..count])
            }
            Way::Sockets(sockets) => send_plain(sockets, &self.flows, first, count),
        };
        let done = match sent {
            Ok(sent) => {
                for state in &mut self.flows[first..first + sent] {
                    state.packets += 1;
                    state.result.sent += 1;
                }
                self.sent.fetch_add(sent as u64, Ordering::Relaxed);
                sent
            }
            // No room: the same packets again, so that a gap in the numbers is never our own.
            Err(error) if is_full(&error) => {
                self.full += 1;
                std::thread::sleep(TICK / 2);
                0
            }
            Err(error) => {
                self.flows[first].packets += 1;
                self.flows[first].result.send_errors += 1;
                self.first_error.get_or_insert(error);
                1
            }
        };
        for number in 0..done as u64 {
            let due_ns = (schedule + number) as f64 * self.interval_ns;
            let late_us = (now.as_nanos() as f64 - due_ns) / 1000.0;
            self.lateness_us.saturating_record((late_us as u64).max(1));
        }
        done
    }

    fn send_reports(&mut self, first: usize, count: usize, now: Duration, unix_ns: u64) {
        let mut packet = Vec::new();
        for (index, state) in self.flows.iter_mut().enumerate().skip(first).take(count) {
            if now < state.next_report {
                continue;
            }
            state.next_report = now + REPORT;
            state.write_report(&self.options, unix_ns, &mut packet);
            let sent = match &self.way {
                Way::Packet(sender) => {
                    let mut frame = state.packet[..HEAD_BYTES].to_vec();
                    frame.extend_from_slice(&packet);
                    if let Some(head) = frame.first_chunk_mut() {
                        let ports = [state.flow.from.port(), state.flow.to.port()];
                        for (at, port) in [34, 36].into_iter().zip(ports) {
                            let above = port.saturating_add(1).to_be_bytes();
                            let head: &mut [u8; HEAD_BYTES] = head;
                            head[at..at + 2].copy_from_slice(&above);
                        }
                        frame::set_payload_bytes(head, packet.len());
                    }
                    sender.send(&[&frame]).map(|_| ())
                }
                Way::Sockets(sockets) => {
                    let socket = &sockets[if sockets.len() == 1 { 0 } else { index }];
                    let mut to = state.flow.to;
                    to.set_port(to.port().saturating_add(1));
                    socket.send_to(&packet, to).map(|_| ())
                }
            };
            state.result.rtcp += u64::from(sent.is_ok());
        }
    }

    /// What was sent, and whether the schedule was kept.
    #[must_use]
    pub fn report(&self) -> FlowsReport {
        let seconds = self.elapsed.as_secs_f64().max(1e-9);
        let mut report = FlowsReport {
            elapsed_s: self.elapsed.as_secs_f64(),
            interrupted: self.interrupted,
            first_error: self
                .first_error
                .as_ref()
                .map_or_else(String::new, ToString::to_string),
            send_lateness_ms: Percentiles::milliseconds(&self.lateness_us),
            flows: self
                .flows
                .iter()
                .map(|state| state.result.clone())
                .collect(),
            ..FlowsReport::default()
        };
        report.sum_up();
        let scheduled = 1e9 / self.interval_ns;
        let done = report.sent as f64 / seconds;
        let wanted = scheduled * seconds;
        let kept = (report.sent + report.send_errors) as f64 / wanted.max(1.0);
        let limited = self.skipped > 0 || kept < 0.995 && wanted >= 1000.0;
        report.generator = GeneratorReport {
            io: match self.way {
                Way::Packet(_) => "packet",
                Way::Sockets(_) => "socket",
            },
            scheduled_per_second: scheduled,
            done_per_second: done,
            skipped: self.skipped,
            full: self.full,
            dropped: 0,
            busy: self.cpu.as_secs_f64() / seconds,
            limited,
            proof: format!(
                "{} of the schedule's {scheduled:.0}/s kept ({:.2} %), {} skipped, {} times no room: {}",
                if limited { "only part" } else { "all" },
                kept * 100.0,
                self.skipped,
                self.full,
                if limited {
                    "the generator was the limit"
                } else {
                    "the generator was not the limit"
                }
            ),
        };
        report
    }
}

impl State {
    fn new(
        options: &StreamOptions,
        macs: frame::Macs,
        number: usize,
        flow: Flow,
        step: u64,
    ) -> Self {
        let bytes = options.payload.bytes_max();
        let mut packet = vec![0; BODY_AT + bytes];
        if let (Some(head), SocketAddr::V4(from), SocketAddr::V4(to)) =
            (packet.first_chunk_mut(), flow.from, flow.to)
        {
            frame::write_head(head, macs, from, to, HEADER_BYTES + bytes);
        }
        let mut state = Self {
            flow,
            packet,
            tone: Tone::new(frequency_hz(number as u32)),
            ssrc: rand::random(),
            step,
            packets: 0,
            result: FlowResult {
                port: flow.to.port(),
                ..FlowResult::default()
            },
            next_report: Duration::ZERO,
        };
        let ssrc = state.ssrc.to_be_bytes();
        let rtp = &mut state.packet[HEAD_BYTES..];
        rtp[0] = 0x80;
        rtp[8..12].copy_from_slice(&ssrc);
        state
    }

    /// Makes the next packet in place.
    fn prepare(&mut self, options: &StreamOptions, stamp_ns: u64) {
        let bytes = options.payload.bytes(self.ssrc, self.packets);
        if BODY_AT + bytes != self.packet.len() {
            self.packet.resize(BODY_AT + bytes, 0);
            if let Some(head) = self.packet.first_chunk_mut() {
                frame::set_payload_bytes(head, HEADER_BYTES + bytes);
            }
        }
        let sequence = (self.packets as u16).wrapping_add(self.ssrc as u16);
        let timestamp = self.timestamp(self.packets);
        let rtp = &mut self.packet[HEAD_BYTES..];
        rtp[1] = options.payload.payload_type() | if self.packets == 0 { 0x80 } else { 0 };
        rtp[2..4].copy_from_slice(&sequence.to_be_bytes());
        rtp[4..8].copy_from_slice(&timestamp.to_be_bytes());
        let body = &mut rtp[HEADER_BYTES..];
        for part in body.chunks_mut(crate::tone::PACKET_SAMPLES) {
            part.copy_from_slice(&self.tone.payload(self.packets)[..part.len()]);
        }
        stamp::write(body, stamp_ns);
    }

    fn timestamp(&self, packets: u64) -> u32 {
        self.ssrc
            .rotate_left(16)
            .wrapping_add((packets * self.step) as u32)
    }

    fn write_report(&self, options: &StreamOptions, unix_ns: u64, packet: &mut Vec<u8>) {
        let report = rtp::SenderReport {
            ssrc: self.ssrc,
            unix_ns,
            timestamp: self.timestamp(self.packets),
            packets: self.result.sent as u32,
            bytes: (self.result.sent * options.payload.bytes_max() as u64) as u32,
        };
        rtp::write_sender_report(&report, "rtpgen", packet);
    }
}

/// A packet socket where it is wanted and may be had; `None` = plain sockets.
fn open_way(
    options: &StreamOptions,
    first: Flow,
) -> io::Result<(Option<Way>, Option<frame::Macs>)> {
    let (IpAddr::V4(local), IpAddr::V4(to), true) =
        (first.from.ip(), first.to.ip(), options.io != Io::Socket)
    else {
        return match options.io {
            Io::Packet => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "packet sockets are for IPv4 here",
            )),
            _ => Ok((None, None)),
        };
    };
    let opened = path::link(local, to).and_then(|(interface, macs)| {
        FrameSender::open(interface.index).map(|sender| (Some(Way::Packet(sender)), Some(macs)))
    });
    match opened {
        Err(_) if options.io == Io::Auto => Ok((None, None)),
        other => other,
    }
}

fn open_sockets(options: &StreamOptions, flows: &[Flow]) -> io::Result<Vec<UdpSocket>> {
    crate::options::raise_file_limit();
    let count = if options.one_source { 1 } else { flows.len() };
    let open = |flow: &Flow| {
        let socket = UdpSocket::bind(flow.from)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    flows[..count].iter().map(open).collect()
}

fn send_plain(
    sockets: &[UdpSocket],
    flows: &[State],
    first: usize,
    count: usize,
) -> io::Result<usize> {
    let body = |state: &State| -> usize { state.packet.len().min(HEAD_BYTES) };
    if let [socket] = sockets {
        let mut datagrams = [&[][..]; SEND_BATCH_MAX];
        let mut addresses = [flows[first].flow.to; SEND_BATCH_MAX];
        for (at, state) in flows[first..first + count].iter().enumerate() {
            datagrams[at] = &state.packet[body(state)..];
            addresses[at] = state.flow.to;
        }
        return send_datagrams(socket.as_fd(), &datagrams[..count], &addresses[..count]);
    }
    for at in 0..count {
        let state = &flows[first + at];
        let sent = sockets[first + at].send_to(&state.packet[body(state)..], state.flow.to);
        match sent {
            Ok(_) => {}
            Err(error) if at == 0 => return Err(error),
            // What stopped it shows when its turn comes again.
            Err(_) => return Ok(at),
        }
    }
    Ok(count)
}

fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
        || error.raw_os_error() == Some(nix::libc::ENOBUFS)
        || error.kind() == io::ErrorKind::Interrupted
}
