//! One thread that sends and receives all RTP: sockets, pacing, measuring.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use socket2::{Domain, Socket, Type};
use tokio::sync::oneshot;

use crate::receiver::{Receiver, ReceiverStats};
use crate::rtp;
use crate::tone::{PACKET_SAMPLES, Tone};

/// Time between two packets of a stream.
const PACKET_NS: u64 = 20_000_000;
/// Time between two sender reports.
const REPORT_NS: u64 = 5_000_000_000;
/// Packets whose time of sending is remembered, for the latency at the other end.
const REMEMBERED: usize = 512;
/// Receive buffer of a socket, so that a busy machine does not lose what the network delivered.
const RECEIVE_BUFFER_BYTES: usize = 512 * 1024;

/// Payload type of PCMA (RFC 3551).
const PCMA: u8 = 8;

/// A stream's number.
pub type StreamId = u64;

/// One end of a call's media: where it listens, what it says, what it expects to hear.
#[derive(Debug, Clone)]
pub struct StreamSpec {
    /// Local address.
    pub address: IpAddr,
    /// Local RTP port; `None` = any even one. RTCP is the next.
    pub port: Option<u16>,
    /// The tone to send.
    pub send_hz: u32,
    /// What to send instead of the tone.
    pub sound: Option<std::sync::Arc<Tone>>,
    /// The tone to hear; `None` = anything.
    pub expect_hz: Option<u32>,
    /// The stream whose packets this one hears, if it is in this process.
    pub hears: Option<StreamId>,
    /// Payload type to send.
    pub payload_type: u8,
    /// Payload type to expect; `None` = any.
    pub expect_payload_type: Option<u8>,
    /// Whether to send RTCP sender reports.
    pub rtcp: bool,
}

/// What became of a stream.
#[derive(Debug, Clone, Default)]
pub struct StreamReport {
    /// Packets sent.
    pub sent: u64,
    /// Packets that the kernel would not take.
    pub send_errors: u64,
    /// Sender reports sent.
    pub rtcp_sent: u64,
    /// What was heard.
    pub received: ReceiverStats,
}

/// Distributions over all streams.
#[derive(Debug, Clone)]
pub struct MediaTimes {
    /// Sending to arrival, microseconds.
    pub latency_us: Histogram<u64>,
    /// How late packets left against their schedule, microseconds.
    pub lateness_us: Histogram<u64>,
    /// Jitter of each stream at its end, microseconds.
    pub jitter_us: Histogram<u64>,
}

impl Default for MediaTimes {
    fn default() -> Self {
        let histogram =
            || Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are constant");
        Self {
            latency_us: histogram(),
            lateness_us: histogram(),
            jitter_us: histogram(),
        }
    }
}

enum Request {
    Open(
        StreamId,
        StreamSpec,
        oneshot::Sender<io::Result<SocketAddr>>,
    ),
    Send(StreamId, SocketAddr),
    SendAs(StreamId, u8),
    Quiet(StreamId),
    Close(StreamId, oneshot::Sender<StreamReport>),
    Finish,
}

/// The media thread's handle. Dropping it ends the thread.
#[derive(Debug)]
pub struct Media {
    requests: mpsc::Sender<Request>,
    thread: Mutex<Option<JoinHandle<MediaTimes>>>,
    next_id: AtomicU64,
}

impl Media {
    /// Starts the thread.
    ///
    /// # Errors
    /// The kernel refused an epoll instance or a thread.
    pub fn start() -> io::Result<Self> {
        let (requests, inbox) = mpsc::channel();
        let mut worker = Worker::new(inbox)?;
        let thread = std::thread::Builder::new()
            .name("rtpgen-media".to_owned())
            .spawn(move || {
                worker.run();
                worker.times
            })?;
        Ok(Self {
            requests,
            thread: Mutex::new(Some(thread)),
            next_id: AtomicU64::new(1),
        })
    }

    /// A new stream number, so that two ends can be told of each other before they open.
    pub fn new_id(&self) -> StreamId {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Opens a stream: it listens from now on. Returns its RTP address.
    ///
    /// # Errors
    /// No pair of ports, or no file descriptors left.
    pub async fn open(&self, id: StreamId, spec: StreamSpec) -> io::Result<SocketAddr> {
        let (reply, answer) = oneshot::channel();
        self.request(Request::Open(id, spec, reply));
        answer
            .await
            .unwrap_or_else(|_| Err(io::Error::other("the media thread has ended")))
    }

    /// Starts sending, or sends elsewhere from now on.
    pub fn send_to(&self, id: StreamId, destination: SocketAddr) {
        self.request(Request::Send(id, destination));
    }

    /// Sends with another payload type from now on: 8 is PCMA (RFC 3551), any other one PCMU.
    pub fn send_as(&self, id: StreamId, payload_type: u8) {
        self.request(Request::SendAs(id, payload_type));
    }

    /// Stops sending; it goes on listening.
    pub fn quiet(&self, id: StreamId) {
        self.request(Request::Quiet(id));
    }

    /// Ends a stream.
    pub async fn close(&self, id: StreamId) -> StreamReport {
        let (reply, answer) = oneshot::channel();
        self.request(Request::Close(id, reply));
        answer.await.unwrap_or_default()
    }

    /// Ends the thread and returns the distributions; `None` when that was done before.
    pub fn finish(&self) -> Option<MediaTimes> {
        self.request(Request::Finish);
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        thread.and_then(|thread| thread.join().ok())
    }

    fn request(&self, request: Request) {
        // Refused only when the thread has ended; callers then see no answer.
        let _ = self.requests.send(request);
    }
}

struct Stream {
    spec: StreamSpec,
    rtp: UdpSocket,
    rtcp: UdpSocket,
    tone: std::sync::Arc<Tone>,
    destination: Option<SocketAddr>,
    ssrc: u32,
    first_sequence: u16,
    first_timestamp: u32,
    next_ns: u64,
    next_report_ns: u64,
    sent_at: Vec<u64>,
    receiver: Receiver,
    report: StreamReport,
}

/// Requests are looked at this often at least.
const POLL_NS: u64 = 2_000_000;
/// The timer's mark among epoll's events; no stream has number 0.
const TIMER: u64 = 0;

struct Worker {
    inbox: mpsc::Receiver<Request>,
    epoll: Epoll,
    /// Wakes the thread when a packet is due: epoll's own timeout knows only milliseconds.
    timer: TimerFd,
    start: Instant,
    streams: HashMap<StreamId, Stream>,
    /// When each sending stream is due next; entries of ended or moved ones are passed over.
    due: BinaryHeap<Reverse<(u64, StreamId)>>,
    times: MediaTimes,
    packet: Vec<u8>,
}

impl Worker {
    fn new(inbox: mpsc::Receiver<Request>) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        epoll.add(
            &timer,
            EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, TIMER),
        )?;
        Ok(Self {
            inbox,
            epoll,
            timer,
            start: Instant::now(),
            streams: HashMap::new(),
            due: BinaryHeap::new(),
            times: MediaTimes::default(),
            packet: Vec::with_capacity(2048),
        })
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn run(&mut self) {
        let mut events = vec![EpollEvent::empty(); 256];
        loop {
            loop {
                match self.inbox.try_recv() {
                    Ok(Request::Finish) | Err(mpsc::TryRecvError::Disconnected) => return,
                    Ok(request) => self.handle(request),
                    Err(mpsc::TryRecvError::Empty) => break,
                }
            }
            self.send_due();
            self.set_timer();
            let ready = self
                .epoll
                .wait(&mut events, EpollTimeout::NONE)
                .unwrap_or(0);
            for event in &events[..ready] {
                if event.data() != TIMER {
                    self.receive(event.data());
                }
            }
        }
    }

    /// Edge triggered and set anew each turn, so it needs no reading.
    fn set_timer(&self) {
        let now_ns = self.now_ns();
        let wait_ns = self.due.peek().map_or(POLL_NS, |Reverse((due, _))| {
            due.saturating_sub(now_ns).clamp(1, POLL_NS)
        });
        let expiration = Expiration::OneShot(Duration::from_nanos(wait_ns).into());
        // Refused only for values out of range, and these are not.
        let _ = self.timer.set(expiration, TimerSetTimeFlags::empty());
    }

    fn handle(&mut self, request: Request) {
        match request {
            Request::Open(id, spec, reply) => {
                let _ = reply.send(self.open(id, spec));
            }
            Request::Send(id, destination) => {
                let now_ns = self.now_ns();
                let Some(stream) = self.streams.get_mut(&id) else {
                    return;
                };
                if stream.destination.replace(destination).is_none() {
                    stream.next_ns = now_ns.max(stream.next_ns);
                    stream.next_report_ns = now_ns;
                    self.due.push(Reverse((stream.next_ns, id)));
                }
            }
            Request::SendAs(id, payload_type) => {
                if let Some(stream) = self.streams.get_mut(&id) {
                    let was = std::mem::replace(&mut stream.spec.payload_type, payload_type);
                    if (was == PCMA) != (payload_type == PCMA) {
                        stream.tone = std::sync::Arc::new(stream.tone.recoded(was == PCMA));
                    }
                }
            }
            Request::Quiet(id) => {
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.destination = None;
                }
            }
            Request::Close(id, reply) => {
                let mut report = StreamReport::default();
                if let Some(stream) = self.streams.remove(&id) {
                    report = stream.report;
                    report.received = stream.receiver.stats();
                    if report.received.packets > 1 {
                        record(
                            &mut self.times.jitter_us,
                            report.received.jitter_ms * 1000.0,
                        );
                    }
                }
                let _ = reply.send(report);
            }
            Request::Finish => {}
        }
    }

    fn open(&mut self, id: StreamId, spec: StreamSpec) -> io::Result<SocketAddr> {
        let (rtp, rtcp) = bind_pair(spec.address, spec.port)?;
        let address = rtp.local_addr()?;
        for (socket, bit) in [(&rtp, 0), (&rtcp, 1)] {
            self.epoll
                .add(socket, EpollEvent::new(EpollFlags::EPOLLIN, id << 1 | bit))?;
        }
        let receiver = Receiver::new(spec.expect_hz, spec.expect_payload_type);
        let stream = Stream {
            tone: spec
                .sound
                .clone()
                .unwrap_or_else(|| std::sync::Arc::new(Tone::new(spec.send_hz))),
            spec,
            rtp,
            rtcp,
            destination: None,
            ssrc: rand::random(),
            first_sequence: rand::random(),
            first_timestamp: rand::random(),
            next_ns: 0,
            next_report_ns: 0,
            sent_at: vec![0; REMEMBERED],
            receiver,
            report: StreamReport::default(),
        };
        self.streams.insert(id, stream);
        Ok(address)
    }

    fn send_due(&mut self) {
        while let Some(&Reverse((due_ns, id))) = self.due.peek() {
            let now_ns = self.now_ns();
            if due_ns > now_ns {
                return;
            }
            self.due.pop();
            let Some(stream) = self.streams.get_mut(&id) else {
                continue;
            };
            let Some(destination) = stream.destination else {
                continue;
            };
            if stream.next_ns != due_ns {
                continue;
            }
            stream.send_packet(destination, now_ns, &mut self.packet);
            if stream.spec.rtcp && now_ns >= stream.next_report_ns {
                stream.send_report(destination, &mut self.packet);
                stream.next_report_ns = now_ns + REPORT_NS;
            }
            record(
                &mut self.times.lateness_us,
                (now_ns - due_ns) as f64 / 1000.0,
            );
            stream.next_ns += PACKET_NS;
            self.due.push(Reverse((stream.next_ns, id)));
        }
    }

    /// Empties a socket; `data` is the stream's number with the RTCP bit.
    fn receive(&mut self, data: u64) {
        let id = data >> 1;
        let mut buffer = [0_u8; 2048];
        while let Some(stream) = self.streams.get_mut(&id) {
            let socket = if data & 1 == 0 {
                &stream.rtp
            } else {
                &stream.rtcp
            };
            let Ok((length, _)) = socket.recv_from(&mut buffer) else {
                return;
            };
            let now_ns = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
            let packet = &buffer[..length];
            if data & 1 == 1 || rtp::is_rtcp(packet) {
                stream.receiver.handle_rtcp();
                continue;
            }
            let Some((header, payload)) = rtp::parse(packet) else {
                stream.receiver.handle_malformed();
                continue;
            };
            stream.receiver.handle_rtp(header, payload, now_ns);
            let peer = stream.spec.hears.and_then(|peer| self.streams.get(&peer));
            if let Some(sent_ns) = peer.and_then(|peer| peer.sent_at(header.sequence))
                && now_ns >= sent_ns
            {
                record(
                    &mut self.times.latency_us,
                    (now_ns - sent_ns) as f64 / 1000.0,
                );
            }
        }
    }
}

impl Stream {
    fn send_packet(&mut self, destination: SocketAddr, now_ns: u64, packet: &mut Vec<u8>) {
        let number = self.report.sent + self.report.send_errors;
        let header = rtp::Header {
            payload_type: self.spec.payload_type,
            sequence: self.first_sequence.wrapping_add(number as u16),
            timestamp: self.timestamp(number),
            ssrc: self.ssrc,
        };
        rtp::write(header, number == 0, self.tone.payload(number), packet);
        self.sent_at[usize::from(header.sequence) % REMEMBERED] = now_ns;
        match self.rtp.send_to(packet, destination) {
            Ok(_) => self.report.sent += 1,
            Err(_) => self.report.send_errors += 1,
        }
    }

    fn send_report(&mut self, destination: SocketAddr, packet: &mut Vec<u8>) {
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let report = rtp::SenderReport {
            ssrc: self.ssrc,
            unix_ns: u64::try_from(unix.as_nanos()).unwrap_or(u64::MAX),
            timestamp: self.timestamp(self.report.sent),
            packets: self.report.sent as u32,
            bytes: (self.report.sent * PACKET_SAMPLES as u64) as u32,
        };
        rtp::write_sender_report(&report, "rtpgen", packet);
        let port = destination.port().saturating_add(1);
        if self
            .rtcp
            .send_to(packet, SocketAddr::new(destination.ip(), port))
            .is_ok()
        {
            self.report.rtcp_sent += 1;
        }
    }

    fn timestamp(&self, number: u64) -> u32 {
        self.first_timestamp
            .wrapping_add((number * PACKET_SAMPLES as u64) as u32)
    }

    /// When the packet with this sequence number left, while that is remembered.
    fn sent_at(&self, sequence: u16) -> Option<u64> {
        let back = self
            .first_sequence
            .wrapping_add((self.report.sent + self.report.send_errors) as u16)
            .wrapping_sub(sequence);
        (1..=REMEMBERED as u16)
            .contains(&back)
            .then(|| self.sent_at[usize::from(sequence) % REMEMBERED])
    }
}

fn record(histogram: &mut Histogram<u64>, value: f64) {
    histogram.saturating_record((value.round() as u64).max(1));
}

/// A port for RTP, even where it is ours to choose, and the next one for RTCP.
fn bind_pair(address: IpAddr, port: Option<u16>) -> io::Result<(UdpSocket, UdpSocket)> {
    if let Some(port) = port {
        let above = port.checked_add(1).ok_or(io::ErrorKind::InvalidInput)?;
        return Ok((
            bind(SocketAddr::new(address, port))?,
            bind(SocketAddr::new(address, above))?,
        ));
    }
    for _ in 0..200 {
        let rtp = bind(SocketAddr::new(address, 0))?;
        let port = rtp.local_addr()?.port();
        if port % 2 == 1 || port == u16::MAX {
            continue;
        }
        if let Ok(rtcp) = bind(SocketAddr::new(address, port + 1)) {
            return Ok((rtp, rtcp));
        }
    }
    Err(io::Error::new(
        io::ErrorKind::AddrInUse,
        "no free pair of ports",
    ))
}

/// A UDP socket that does not block and has room for bursts.
fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    // As much as the system allows; less is no error.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
    socket.bind(&address.into())?;
    Ok(socket.into())
}
