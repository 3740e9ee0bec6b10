//! Random and mutated SIP messages from a seed, thrown at a port.

use std::net::UdpSocket;
use std::time::Duration;

/// Numbers from a seed (xorshift), the same on each run.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() >> 16) as usize % end.max(1)
    }
}

/// Well-formed messages to begin with: requests in and outside of dialogs, responses, bodies.
fn seeds(number: u64) -> Vec<String> {
    let head = |method: &str, to: &str| {
        format!(
            "{method} sip:bob@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bK{number};rport\r\n\
             Max-Forwards: 70\r\nFrom: \"A, \\\"B\" <sip:alice@127.0.0.1;user=phone>;tag=f{number}\r\n\
             To: <sip:bob@127.0.0.1>{to}\r\nCall-ID: flood{number}@127.0.0.1\r\nCSeq: 1 {method}\r\n\
             Contact: <sip:alice@127.0.0.1:9>;expires=60\r\n"
        )
    };
    let sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
               m=audio 4000 RTP/AVP 8 101\r\na=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n";
    let offer = format!(
        "Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
        sdp.len()
    );
    let empty = "Content-Length: 0\r\n\r\n";
    let response = |status: &str, method: &str| {
        format!(
            "SIP/2.0 {status}\r\nVia: SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bK{number}\r\n\
             From: <sip:a@127.0.0.1>;tag=x{number}\r\nTo: <sip:b@127.0.0.1>;tag=y\r\n\
             Call-ID: r{number}\r\nCSeq: 1 {method}\r\nContact: <sip:b@127.0.0.1:9>\r\n{empty}"
        )
    };
    vec![
        head("INVITE", "") + &offer,
        head("INVITE", "")
            + "Require: 100rel, x\r\nSupported: timer\r\nSession-Expires: 10\r\n"
            + empty,
        head("INVITE", ";tag=there") + "Replaces: a;to-tag=b;from-tag=c\r\n" + &offer,
        head("OPTIONS", "") + empty,
        head("REGISTER", "")
            + "Authorization: Digest username=\"a\", realm=\"r, s\", nonce=\"n\"\r\n"
            + empty,
        head("BYE", ";tag=t") + "Reason: Q.850;cause=16;text=\"x\"\r\n" + empty,
        head("ACK", ";tag=t") + empty,
        head("CANCEL", "") + empty,
        head("REFER", ";tag=t") + "Refer-To: <sip:c@127.0.0.1?Replaces=a%3Bto-tag%3Db>\r\n" + empty,
        head("PRACK", ";tag=t") + "RAck: 1 1 INVITE\r\n" + empty,
        head("NOTIFY", ";tag=t") + "Event: refer\r\nSubscription-State: active\r\n" + empty,
        head("MESSAGE", "") + "Subject: folded\r\n\tover\r\n  lines\r\nContent-Length: 2\r\n\r\nhi",
        response("200 OK", "INVITE"),
        response("183 Session Progress", "INVITE"),
        response("491 Request Pending", "INVITE"),
    ]
}

/// One message: pure noise, or a good one with a few bytes, lines or numbers changed.
#[must_use]
pub fn message(random: &mut Random, number: u64) -> Vec<u8> {
    if random.below(20) == 0 {
        let length = random.below(1500);
        return (0..length).map(|_| random.below(256) as u8).collect();
    }
    let mut seeds = seeds(number);
    let count = seeds.len();
    let mut bytes = seeds.swap_remove(random.below(count)).into_bytes();
    for _ in 0..random.below(6) {
        mutate(random, &mut bytes);
    }
    bytes.truncate(60_000);
    bytes
}

fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    const TOKENS: &[&[u8]] = &[
        b"\r\n",
        b"\n",
        b":",
        b";",
        b",",
        b"\"",
        b"<",
        b">",
        b"\0",
        b"\xff\xfe",
        b"%00",
        b"4294967296",
        b"-1",
        b"sip:",
        b"tel:+1",
        b"SIP/2.0",
        b" ",
        b"[::1]",
        b"Content-Length: 99999\r\n",
    ];
    let at = random.below(bytes.len().max(1));
    match random.below(7) {
        0 if !bytes.is_empty() => bytes[at] = random.below(256) as u8,
        1 if !bytes.is_empty() => {
            bytes.remove(at);
        }
        2 => bytes.truncate(at),
        3 => {
            let token = TOKENS[random.below(TOKENS.len())];
            bytes.splice(
                at.min(bytes.len())..at.min(bytes.len()),
                token.iter().copied(),
            );
        }
        4 => {
            // A line twice, or many times.
            let lines: Vec<Vec<u8>> = bytes
                .split_inclusive(|byte| *byte == b'\n')
                .map(<[u8]>::to_vec)
                .collect();
            if let Some(line) = lines.get(random.below(lines.len())) {
                let again = line.repeat(1 + random.below(8));
                let place: usize = lines[..random.below(lines.len())]
                    .iter()
                    .map(Vec::len)
                    .sum();
                bytes.splice(place..place, again);
            }
        }
        5 => {
            let end = (at + random.below(40)).min(bytes.len());
            bytes.drain(at.min(end)..end);
        }
        _ => {
            let end = (at + random.below(60)).min(bytes.len());
            let piece = bytes[at.min(end)..end].to_vec();
            let place = random.below(bytes.len().max(1)).min(bytes.len());
            bytes.splice(place..place, piece);
        }
    }
}

/// Sends so many messages to a port of 127.0.0.1, at most `per_second`, and takes the answers in
/// between; says how many answers came.
///
/// # Panics
/// There is no socket.
pub fn throw(port: u16, seed: u64, messages: u64, per_second: u64) -> u64 {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_nonblocking(true).expect("a socket");
    let mut random = Random::new(seed);
    let mut buffer = vec![0; 65_536];
    let mut answers = 0;
    let start = std::time::Instant::now();
    for number in 0..messages {
        let bytes = message(&mut random, seed << 32 | number);
        // A full buffer loses it, as a network would.
        let _ = socket.send_to(&bytes, ("127.0.0.1", port));
        while socket.recv(&mut buffer).is_ok() {
            answers += 1;
        }
        let due = Duration::from_micros(number * 1_000_000 / per_second.max(1));
        if let Some(early) = due.checked_sub(start.elapsed()) {
            std::thread::sleep(early);
        }
    }
    answers
}
