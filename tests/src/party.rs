//! The media of a party whose signalling another program does: it speaks noise and keeps what it hears.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::pcap::{RtpPacket, noise};
use crate::ports::free_media_port;
use crate::process::eventually;
use crate::sipp::Sipp;

/// One that speaks and listens until it is asked what it heard.
#[derive(Debug)]
pub struct Party {
    /// Where it hears: for its SDP.
    pub port: u16,
    said: Vec<RtpPacket>,
    /// Where to speak to; 0 = nowhere yet.
    towards: Arc<AtomicU16>,
    so_far: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(usize, Vec<RtpPacket>)>,
}

/// What a party said and heard.
#[derive(Debug)]
pub struct Heard {
    /// The packets it sent.
    pub said: Vec<RtpPacket>,
    /// The packets that came, in order.
    pub heard: Vec<RtpPacket>,
}

impl Party {
    /// One that says up to `packets` of 20 ms of PCMA, unlike those of another seed.
    ///
    /// # Panics
    /// There is no port.
    #[must_use]
    pub fn start(packets: u32, seed: u32) -> Self {
        Self::saying(noise(8, packets, seed))
    }

    /// One that says just this, 20 ms apart.
    ///
    /// # Panics
    /// There is no port.
    #[must_use]
    pub fn saying(said: Vec<RtpPacket>) -> Self {
        let port = free_media_port();
        let socket = UdpSocket::bind(("127.0.0.1", port)).expect("the port");
        let (towards, stop) = (
            Arc::new(AtomicU16::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let so_far = Arc::new(AtomicUsize::new(0));
        let (script, count) = (said.clone(), Arc::clone(&so_far));
        let (to, end) = (Arc::clone(&towards), Arc::clone(&stop));
        let thread = std::thread::spawn(move || talk(&socket, &script, &to, &end, &count));
        Self {
            port,
            said,
            towards,
            so_far,
            stop,
            thread,
        }
    }

    /// How many packets it has sent so far.
    #[must_use]
    pub fn said_so_far(&self) -> usize {
        self.so_far.load(Ordering::Relaxed)
    }

    /// The SDP lines after `t=`.
    #[must_use]
    pub fn media(&self) -> String {
        let port = self.port;
        format!("m=audio {port} RTP/AVP 8\na=rtpmap:8 PCMA/8000\na=ptime:20\n")
    }

    /// Where the appliance wants to hear it: the port in the SDP that its SIPp got.
    ///
    /// # Panics
    /// None comes.
    #[must_use]
    pub fn port_for(&self, sipp: &Sipp) -> u16 {
        eventually("our SDP reaches SIPp", Duration::from_secs(10), || {
            let trace = sipp.trace();
            let mut ports = trace.lines().filter_map(|line| {
                let port = line.strip_prefix("m=audio ")?.split(' ').next()?;
                port.parse::<u16>().ok()
            });
            ports.rfind(|port| *port != self.port)
        })
    }

    /// Begins to speak to this port of 127.0.0.1.
    pub fn speak_to(&self, port: u16) {
        self.towards.store(port, Ordering::Relaxed);
    }

    /// Ends it.
    ///
    /// # Panics
    /// It failed.
    #[must_use]
    pub fn finish(self) -> Heard {
        self.stop.store(true, Ordering::Relaxed);
        let (sent, heard) = self.thread.join().expect("a party");
        let mut said = self.said;
        said.truncate(sent);
        Heard { said, heard }
    }
}

fn talk(
    socket: &UdpSocket,
    script: &[RtpPacket],
    towards: &AtomicU16,
    stop: &AtomicBool,
    so_far: &AtomicUsize,
) -> (usize, Vec<RtpPacket>) {
    const PACE: Duration = Duration::from_millis(20);
    let (mut sent, mut heard) = (0, Vec::new());
    let mut due = Instant::now();
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        let wait = due.saturating_duration_since(Instant::now());
        let wait = wait.max(Duration::from_millis(1));
        socket.set_read_timeout(Some(wait)).expect("a timeout");
        if let Ok(length) = socket.recv(&mut buffer) {
            heard.extend(crate::pcap::parse_rtp(&buffer[..length]));
        }
        let port = towards.load(Ordering::Relaxed);
        if Instant::now() < due {
            continue;
        }
        due += PACE;
        if let (Some(packet), true) = (script.get(sent), port != 0) {
            let bytes = crate::pcap::rtp_bytes(packet);
            let _ = socket.send_to(&bytes, ("127.0.0.1", port));
            sent += 1;
            so_far.store(sent, Ordering::Relaxed);
        }
    }
    (sent, heard)
}
