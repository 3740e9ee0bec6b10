//! The generator: G.711 packets of many flows at a steady rate, from a few sockets.

use std::net::{IpAddr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use crate::network::pin;

/// RTP header and 20 ms of G.711.
pub const PACKET_BYTES: usize = 172;
/// Time between two bursts.
const TICK: Duration = Duration::from_micros(200);
const BATCH: usize = 64;
const STOP: u8 = 0;
const GO: u8 = 1;

/// What to send next.
struct Order {
    targets: Vec<SocketAddr>,
    rate: Option<u64>,
}

/// Handle of the generator thread.
pub struct Generator {
    /// The address all flows come from.
    pub source: SocketAddr,
    orders: mpsc::Sender<Order>,
    state: Arc<AtomicU8>,
    sent: Arc<AtomicU64>,
    ready: Mutex<mpsc::Receiver<Result<(), String>>>,
}

/// The port all flows come from.
const SOURCE_PORT: u16 = 9000;

/// Starts the thread; `enter` brings it into its namespace.
pub fn start(
    core: usize,
    address: IpAddr,
    enter: impl FnOnce() -> Result<(), String> + Send + 'static,
) -> Generator {
    let (orders, order_receiver) = mpsc::channel::<Order>();
    let (tell_ready, ready) = mpsc::channel();
    let state = Arc::new(AtomicU8::new(STOP));
    let sent = Arc::new(AtomicU64::new(0));
    let (thread_state, thread_sent) = (state.clone(), sent.clone());
    std::thread::spawn(move || {
        let entered = enter();
        let failed = entered.is_err();
        let _ = tell_ready.send(entered);
        if failed {
            return;
        }
        pin(core);
        // SAFETY: takes no pointers: sleeps end on time.
        unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_000, 0, 0, 0) };
        let socket = UdpSocket::bind((address, SOURCE_PORT)).expect("generator's port");
        while let Ok(order) = order_receiver.recv() {
            send_flows(&socket, &order, &thread_state, &thread_sent);
        }
    });
    let source = SocketAddr::new(address, SOURCE_PORT);
    Generator {
        source,
        orders,
        state,
        sent,
        ready: Mutex::new(ready),
    }
}

impl Generator {
    /// Waits until the thread stands in its namespace.
    pub fn wait_ready(&self) -> Result<(), String> {
        let ready = self.ready.lock().map_err(|_| "generator".to_owned())?;
        ready.recv().map_err(|error| error.to_string())?
    }

    /// Begins to send, round the targets, until [`Self::stop`].
    pub fn go(&self, targets: Vec<SocketAddr>, rate: Option<u64>) {
        self.state.store(GO, Ordering::Release);
        let _ = self.orders.send(Order { targets, rate });
    }

    /// Stops sending.
    pub fn stop(&self) {
        self.state.store(STOP, Ordering::Release);
    }

    /// Packets sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }
}

/// All flows' packets and headers, built once; each turn changes sequence and timestamp.
struct Flows {
    packets: Vec<[u8; PACKET_BYTES]>,
    headers: Vec<libc::mmsghdr>,
    _vectors: Vec<libc::iovec>,
    _addresses: Vec<libc::sockaddr_in>,
}

impl Flows {
    fn new(targets: &[SocketAddr]) -> Self {
        let mut packets = vec![[0xD5; PACKET_BYTES]; targets.len()];
        for (flow, packet) in packets.iter_mut().enumerate() {
            packet[..2].copy_from_slice(&[0x80, 8]);
            packet[2..8].fill(0);
            packet[8..12].copy_from_slice(&(flow as u32 + 1).to_be_bytes());
        }
        let mut addresses: Vec<_> = targets.iter().map(raw_address).collect();
        let mut vectors: Vec<_> = packets
            .iter_mut()
            .map(|p| libc::iovec {
                iov_base: p.as_mut_ptr().cast(),
                iov_len: PACKET_BYTES,
            })
            .collect();
        let headers = addresses
            .iter_mut()
            .zip(&mut vectors)
            .map(|(address, vector)| {
                // SAFETY: mmsghdr is plain data for which all zeroes is valid.
                let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
                header.msg_hdr.msg_name = (&raw mut *address).cast();
                header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as u32;
                header.msg_hdr.msg_iov = &raw mut *vector;
                header.msg_hdr.msg_iovlen = 1;
                header
            })
            .collect();
        Self {
            packets,
            headers,
            _vectors: vectors,
            _addresses: addresses,
        }
    }

    fn advance(&mut self, from: usize, to: usize) {
        for packet in &mut self.packets[from..to] {
            let sequence = u16::from_be_bytes([packet[2], packet[3]]).wrapping_add(1);
            packet[2..4].copy_from_slice(&sequence.to_be_bytes());
            let timestamp = u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]]);
            packet[4..8].copy_from_slice(&timestamp.wrapping_add(160).to_be_bytes());
        }
    }
}

fn raw_address(address: &SocketAddr) -> libc::sockaddr_in {
    let SocketAddr::V4(v4) = address else {
        panic!("IPv4 only")
    };
    raw_v4(*v4)
}

pub fn raw_v4(address: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes(address.ip().octets()),
        },
        sin_zero: [0; 8],
    }
}

fn send_flows(socket: &UdpSocket, order: &Order, state: &AtomicU8, sent: &AtomicU64) {
    let mut flows = Flows::new(&order.targets);
    let count = order.targets.len();
    let start = Instant::now();
    let mut total = 0_u64;
    let mut at = 0;
    while state.load(Ordering::Acquire) == GO {
        let mut due = BATCH as u64;
        if let Some(rate) = order.rate {
            let wanted = (start.elapsed().as_nanos() as u64).saturating_mul(rate) / 1_000_000_000;
            due = wanted.saturating_sub(total);
        }
        // Far behind (we were not scheduled): no burst that the schedule never meant.
        if due > 20 * BATCH as u64 {
            total += due - BATCH as u64;
            due = BATCH as u64;
        }
        while due > 0 {
            let run = (due as usize).min(BATCH).min(count - at);
            flows.advance(at, at + run);
            // SAFETY: headers[at..at + run] point into `flows`, whose parts do not move.
            let done = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    flows.headers.as_mut_ptr().add(at),
                    run as u32,
                    0,
                )
            };
            let done = done.max(1) as usize;
            at = (at + done) % count;
            total += done as u64;
            due -= done as u64;
            sent.fetch_add(done as u64, Ordering::Release);
        }
        if order.rate.is_some() {
            let next = TICK * (start.elapsed().as_nanos() / TICK.as_nanos() + 1) as u32;
            std::thread::sleep(next.saturating_sub(start.elapsed()));
        }
    }
}
