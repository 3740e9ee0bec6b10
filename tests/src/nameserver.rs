//! A name server with SRV records on loopback; every other name is 127.0.0.1.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Types of records.
const A: u16 = 1;
const SRV: u16 = 33;

/// Name, priority, port, target.
type Service = (String, u16, u16, String);

/// Dropping it ends it.
#[derive(Debug)]
pub struct NameServer {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl NameServer {
    /// Serves these: name, priority, port, target.
    ///
    /// # Panics
    /// There is no socket.
    #[must_use]
    pub fn start(services: &[(&str, u16, u16, &str)]) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let wait = Some(Duration::from_millis(100));
        socket.set_read_timeout(wait).expect("a timeout");
        let address = socket.local_addr().expect("an address");
        let services: Vec<Service> = services
            .iter()
            .map(|(name, priority, port, to)| {
                ((*name).to_owned(), *priority, *port, (*to).to_owned())
            })
            .collect();
        let ended = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 1500];
            while !stop.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                if let Some(answer) = answer(&buffer[..length], &services) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self {
            address,
            ended,
            thread: Some(thread),
        }
    }

    /// Where it is asked.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The answer to a question with one name (RFC 1035 section 4).
fn answer(question: &[u8], services: &[Service]) -> Option<Vec<u8>> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*question.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(question.get(at..at + length)?).to_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes([*question.get(at)?, *question.get(at + 1)?]);
    let asked = question.get(12..at + 4)?;
    let name = labels.join(".");
    let records: Vec<Vec<u8>> = match kind {
        SRV => services
            .iter()
            .filter(|(known, ..)| *known == name)
            .map(|(_, priority, port, to)| service(*priority, *port, to))
            .collect(),
        A if !name.starts_with('_') => vec![vec![127, 0, 0, 1]],
        _ => Vec::new(),
    };
    // Found or not, nothing is wrong with the question.
    let mut out = question.get(..2)?.to_vec();
    out.extend([0x85, 0x80, 0, 1]);
    out.extend(u16::try_from(records.len()).ok()?.to_be_bytes());
    out.extend([0, 0, 0, 0]);
    out.extend(asked);
    for data in records {
        out.extend([0xc0, 12]);
        out.extend(kind.to_be_bytes());
        out.extend([0, 1, 0, 0, 0, 60]);
        out.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
        out.extend(data);
    }
    Some(out)
}

fn service(priority: u16, port: u16, to: &str) -> Vec<u8> {
    let mut data = Vec::new();
    for number in [priority, 0, port] {
        data.extend(number.to_be_bytes());
    }
    for label in to.split('.') {
        data.push(u8::try_from(label.len()).expect("a short label"));
        data.extend(label.as_bytes());
    }
    data.push(0);
    data
}
