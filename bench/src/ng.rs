//! A client of rtpengine's ng protocol: a cookie and a bencoded dictionary, over UDP.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::bencode::Value;

const TRIES: usize = 10;

/// Asks one rtpengine.
pub struct Client {
    socket: UdpSocket,
    cookie: u64,
}

impl Client {
    /// To the address that `--listen-ng` names.
    ///
    /// # Errors
    /// No socket.
    pub fn new(to: SocketAddr) -> Result<Self> {
        let socket = UdpSocket::bind((to.ip(), 0))?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        Ok(Self { socket, cookie: 0 })
    }

    /// Whether it answers.
    pub fn ping(&mut self) -> bool {
        let ping = Value::Dictionary(vec![("command".to_owned(), "ping".into())]);
        let asked = self.ask_once(&ping);
        matches!(asked, Ok(Some(answer)) if answer.text("result").as_deref() == Some("pong"))
    }

    /// Opens call `number` between two parties; returns the ports that the first and the second
    /// party are to send to.
    ///
    /// # Errors
    /// It does not answer, or says why not.
    pub fn call(
        &mut self,
        number: u64,
        parties: [SocketAddr; 2],
        record: bool,
    ) -> Result<[u16; 2]> {
        let mut ports = [0; 2];
        for (side, command) in ["offer", "answer"].into_iter().enumerate() {
            let mut entries: Vec<(String, Value)> = Vec::new();
            let mut add = |key: &str, value: Value| entries.push((key.to_owned(), value));
            add("command", command.into());
            add("call-id", format!("bench-{number}").as_str().into());
            add("from-tag", format!("caller-{number}").as_str().into());
            if side == 1 {
                add("to-tag", format!("callee-{number}").as_str().into());
            }
            add("sdp", description(parties[side]).as_str().into());
            add("replace", Value::List(vec!["origin".into()]));
            add("ICE", "remove".into());
            if record {
                add("record call", "yes".into());
            }
            let answer = self.ask(&Value::Dictionary(entries))?;
            if answer.text("result").as_deref() != Some("ok") {
                let reason = answer.text("error-reason").unwrap_or_default();
                bail!("rtpengine refuses call {number}: {reason}");
            }
            let sdp = answer.text("sdp").context("an answer without SDP")?;
            // The description goes on to the other party: its port is where that one sends.
            ports[1 - side] = audio_port(&sdp).context("an SDP without audio")?;
        }
        Ok(ports)
    }

    fn ask(&mut self, request: &Value) -> Result<Value> {
        for _ in 0..TRIES {
            if let Some(answer) = self.ask_once(request)? {
                return Ok(answer);
            }
        }
        bail!("rtpengine does not answer")
    }

    fn ask_once(&mut self, request: &Value) -> Result<Option<Value>> {
        self.cookie += 1;
        let cookie = format!("{} ", self.cookie);
        let mut bytes = cookie.clone().into_bytes();
        request.encode(&mut bytes);
        if self.socket.send(&bytes).is_err() {
            // Nobody listens yet.
            return Ok(None);
        }
        let mut buffer = vec![0; 65_536];
        loop {
            let Ok(length) = self.socket.recv(&mut buffer) else {
                return Ok(None);
            };
            // Answers to what was given up on are passed over.
            if let Some(answer) = buffer[..length].strip_prefix(cookie.as_bytes()) {
                return Value::decode(answer).map(Some);
            }
        }
    }
}

/// G.711 at a party's address.
fn description(party: SocketAddr) -> String {
    let family = if matches!(party.ip(), IpAddr::V4(_)) {
        "IP4"
    } else {
        "IP6"
    };
    format!(
        "v=0\r\no=- 1 1 IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na=sendrecv\r\n",
        ip = party.ip(),
        port = party.port(),
    )
}

fn audio_port(sdp: &str) -> Option<u16> {
    let line = sdp.lines().find_map(|line| line.strip_prefix("m=audio "))?;
    line.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers as rtpengine does, with an answer to an earlier question before the right one.
    fn play_rtpengine(socket: &UdpSocket) {
        let mut buffer = [0; 4096];
        for port in [30_002, 30_000] {
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let (cookie, _) = text.split_once(' ').unwrap();
            socket.send_to(b"0 d6:result4:faile", from).unwrap();
            let sdp = format!("v=0\r\nm=audio {port} RTP/AVP 0\r\n");
            let answer = format!("{cookie} d6:result2:ok3:sdp{}:{sdp}e", sdp.len());
            socket.send_to(answer.as_bytes(), from).unwrap();
        }
    }

    #[test]
    fn the_port_in_the_offers_answer_is_for_the_callee() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut client = Client::new(socket.local_addr().unwrap()).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| play_rtpengine(&socket));
            let parties = ["192.0.2.1:4000", "192.0.2.1:4002"].map(|text| text.parse().unwrap());
            assert_eq!(client.call(1, parties, true).unwrap(), [30_000, 30_002]);
        });
    }

    #[test]
    fn nobody_there_is_no_pong() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        drop(socket);
        assert!(!Client::new(address).unwrap().ping());
    }
}
