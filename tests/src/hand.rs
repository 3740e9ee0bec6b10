//! A peer whose every message the test writes: for what no well-behaved program sends.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::process::eventually;

/// How long a message is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// A number that no other message of this program has.
fn fresh() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A description of one G.711 stream at a port of 127.0.0.1.
#[must_use]
pub fn sdp(port: u16) -> String {
    format!(
        "v=0\r\no=hand 1 {} IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP 8\r\na=rtpmap:8 PCMA/8000\r\n",
        fresh()
    )
}

/// A message that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message(pub String);

impl Message {
    /// All values of a header, in order.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<&str> {
        let head = self.0.split("\r\n\r\n").next().unwrap_or_default();
        let fields = head
            .split("\r\n")
            .filter_map(|line| line.split_once(':'))
            .filter(|(field, _)| field.eq_ignore_ascii_case(name));
        fields.map(|(_, value)| value.trim()).collect()
    }

    /// The first value of a header; empty where there is none.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.all(name).first().copied().unwrap_or_default()
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> &str {
        self.0.split_once("\r\n\r\n").map_or("", |(_, body)| body)
    }

    /// The port of its first audio line.
    ///
    /// # Panics
    /// It has none.
    #[must_use]
    pub fn audio_port(&self) -> u16 {
        let port = self.body().lines().find_map(|line| {
            let port = line.strip_prefix("m=audio ")?.split(' ').next()?;
            port.parse().ok()
        });
        port.unwrap_or_else(|| panic!("no audio in {}", self.0))
    }

    /// Whether its start line begins so: a method, or `SIP/2.0 200`.
    #[must_use]
    pub fn is(&self, start: &str) -> bool {
        self.0.starts_with(start)
    }

    fn cseq(&self) -> u32 {
        let number = self.header("CSeq").split(' ').next().unwrap_or_default();
        number.parse().unwrap_or_default()
    }
}

/// A dialog as this peer sees it.
#[derive(Debug, Clone)]
pub struct Names {
    /// Its Call-ID.
    pub call_id: String,
    /// From of our requests, with our tag.
    pub ours: String,
    /// To of our requests, with the far tag once it is known.
    pub theirs: String,
    /// Request-URI of our requests.
    pub target: String,
    /// CSeq number of our last request.
    pub cseq: u32,
    /// Branch of our last INVITE.
    pub branch: String,
}

impl Names {
    /// Takes the far tag and Contact from a response.
    pub fn learn(&mut self, response: &Message) {
        response.header("To").clone_into(&mut self.theirs);
        let contact = response.header("Contact");
        if let Some(uri) = contact.split(['<', '>']).nth(1) {
            uri.clone_into(&mut self.target);
        }
    }

    /// The dialog that answering this INVITE with [`Hand::respond`] makes.
    #[must_use]
    pub fn of_invite(invite: &Message) -> Self {
        let contact = invite.header("Contact");
        Self {
            call_id: invite.header("Call-ID").to_owned(),
            ours: format!("{};tag=hand", invite.header("To")),
            theirs: invite.header("From").to_owned(),
            target: contact
                .split(['<', '>'])
                .nth(1)
                .unwrap_or_default()
                .to_owned(),
            cseq: 100,
            branch: String::new(),
        }
    }
}

#[derive(Debug)]
enum Link {
    Datagrams(UdpSocket, Cell<u16>),
    Stream(RefCell<TcpStream>, RefCell<Vec<u8>>),
}

/// The peer.
#[derive(Debug)]
pub struct Hand {
    link: Link,
    /// Its own port.
    pub port: u16,
    seen: RefCell<Vec<Message>>,
}

impl Hand {
    fn new(link: Link, port: u16) -> Self {
        Self {
            link,
            port,
            seen: RefCell::default(),
        }
    }

    /// One that sends datagrams, see [`Self::talk_to`].
    ///
    /// # Panics
    /// There is no socket.
    #[must_use]
    pub fn over_udp() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let port = socket.local_addr().expect("an address").port();
        Self::new(Link::Datagrams(socket, Cell::new(0)), port)
    }

    /// Its datagrams go to this port of 127.0.0.1.
    pub fn talk_to(&self, port: u16) {
        if let Link::Datagrams(_, to) = &self.link {
            to.set(port);
        }
    }

    /// One that has connected to this port of 127.0.0.1.
    ///
    /// # Panics
    /// Nobody listens.
    #[must_use]
    pub fn over_tcp(to: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", to)).expect("a connection");
        Self::on_stream(stream)
    }

    /// One that waits for a connection.
    ///
    /// # Panics
    /// None comes.
    #[must_use]
    pub fn accept(listener: &TcpListener) -> Self {
        listener.set_nonblocking(true).expect("a listener");
        let (stream, _) = eventually("a connection", PATIENCE, || listener.accept().ok());
        stream.set_nonblocking(false).expect("a stream");
        Self::on_stream(stream)
    }

    fn on_stream(stream: TcpStream) -> Self {
        let port = stream.local_addr().expect("an address").port();
        Self::new(Link::Stream(RefCell::new(stream), RefCell::default()), port)
    }

    /// Sends bytes as they are.
    ///
    /// # Panics
    /// They cannot be sent.
    pub fn send(&self, bytes: &[u8]) {
        match &self.link {
            Link::Datagrams(socket, to) => {
                socket
                    .send_to(bytes, ("127.0.0.1", to.get()))
                    .expect("sent");
            }
            Link::Stream(stream, _) => stream.borrow_mut().write_all(bytes).expect("sent"),
        }
    }

    const fn transport(&self) -> &'static str {
        match self.link {
            Link::Datagrams(..) => "UDP",
            Link::Stream(..) => "TCP",
        }
    }

    /// The next message, if one comes in time.
    ///
    /// # Panics
    /// The connection is gone.
    #[must_use]
    pub fn next(&self, within: Duration) -> Option<Message> {
        let deadline = Instant::now() + within;
        match &self.link {
            Link::Datagrams(socket, _) => {
                let mut buffer = vec![0; 65_536];
                let wait = within.max(Duration::from_millis(1));
                socket.set_read_timeout(Some(wait)).expect("a timeout");
                let length = socket.recv(&mut buffer).ok()?;
                let text = String::from_utf8_lossy(&buffer[..length]);
                Some(Message(text.into_owned()))
            }
            Link::Stream(stream, waiting) => loop {
                if let Some(message) = cut_message(&mut waiting.borrow_mut()) {
                    return Some(message);
                }
                let wait = deadline.saturating_duration_since(Instant::now());
                if wait.is_zero() {
                    return None;
                }
                let mut stream = stream.borrow_mut();
                stream.set_read_timeout(Some(wait)).expect("a timeout");
                let mut buffer = [0; 4096];
                match stream.read(&mut buffer) {
                    Ok(0) => panic!("the connection was closed"),
                    Ok(length) => waiting.borrow_mut().extend(&buffer[..length]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                    Err(error) => panic!("the connection broke: {error}"),
                }
            },
        }
    }

    /// Waits for a message that begins so and was not seen before; others are passed over.
    ///
    /// # Panics
    /// None comes.
    pub fn expect(&self, start: &str) -> Message {
        let deadline = Instant::now() + PATIENCE;
        let mut others = Vec::new();
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            let Some(message) = self.next(left) else {
                break;
            };
            if self.seen.borrow().contains(&message) {
                continue;
            }
            self.seen.borrow_mut().push(message.clone());
            if message.is(start) {
                return message;
            }
            others.push(message.0.lines().next().unwrap_or_default().to_owned());
        }
        panic!("no {start:?}, but {others:?}");
    }

    /// The first message that was expected, or passed over, and begins so.
    ///
    /// # Panics
    /// There was none.
    #[must_use]
    pub fn seen(&self, start: &str) -> Message {
        let seen = self.seen.borrow();
        let found = seen.iter().find(|message| message.is(start));
        found.expect("it was seen").clone()
    }

    /// How many messages that begin so come within this time, repetitions among them.
    #[must_use]
    pub fn count(&self, start: &str, within: Duration) -> usize {
        let deadline = Instant::now() + within;
        let mut count = 0;
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            match self.next(left) {
                Some(message) => count += usize::from(message.is(start)),
                None => break,
            }
        }
        count
    }

    /// The text of a request: a Via with this branch, the dialog's names, `headers` as whole lines, a body.
    #[must_use]
    pub fn request(
        &self,
        (method, cseq): (&str, u32),
        names: &Names,
        branch: &str,
        headers: &str,
        body: &str,
    ) -> String {
        let (port, transport) = (self.port, self.transport());
        let Names {
            call_id,
            ours,
            theirs,
            target,
            ..
        } = names;
        let kind = match body {
            "" => "",
            _ => "Content-Type: application/sdp\r\n",
        };
        let parameter = transport.to_lowercase();
        format!(
            "{method} {target} SIP/2.0\r\nVia: SIP/2.0/{transport} 127.0.0.1:{port};branch={branch}\r\n\
             Max-Forwards: 70\r\nFrom: {ours}\r\nTo: {theirs}\r\nCall-ID: {call_id}\r\n\
             CSeq: {cseq} {method}\r\nContact: <sip:hand@127.0.0.1:{port};transport={parameter}>\r\n\
             {headers}{kind}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    /// The names of a call that is about to be placed to a user of this port.
    #[must_use]
    pub fn names(&self, user: &str, to: u16) -> Names {
        let (port, number) = (self.port, fresh());
        Names {
            call_id: format!("hand{number}-{port}"),
            ours: format!("<sip:hand@127.0.0.1:{port}>;tag=h{number}"),
            theirs: format!("<sip:{user}@127.0.0.1:{to}>"),
            target: format!("sip:{user}@127.0.0.1:{to}"),
            cseq: 0,
            branch: String::new(),
        }
    }

    /// Sends a request of the dialog (INVITE also one that begins it).
    pub fn ask(&self, names: &mut Names, method: &str, headers: &str, body: &str) {
        names.cseq += 1;
        let branch = format!("z9hG4bKhand{}", fresh());
        if method == "INVITE" {
            names.branch.clone_from(&branch);
        }
        let text = self.request((method, names.cseq), names, &branch, headers, body);
        self.send(text.as_bytes());
    }

    /// Acknowledges a 2xx to the INVITE of this number.
    pub fn acknowledge(&self, names: &Names, cseq: u32, body: &str) {
        let branch = format!("z9hG4bKhand{}", fresh());
        let text = self.request(("ACK", cseq), names, &branch, "", body);
        self.send(text.as_bytes());
    }

    /// Cancels the INVITE that was sent last.
    pub fn cancel(&self, names: &Names, headers: &str) {
        let text = self.request(("CANCEL", names.cseq), names, &names.branch, headers, "");
        self.send(text.as_bytes());
    }

    /// Answers a request; a To without tag gets ours. `headers` are whole lines.
    pub fn respond(&self, request: &Message, status: &str, headers: &str, body: &str) {
        let contact = format!("Contact: <sip:hand@127.0.0.1:{}>\r\n", self.port);
        self.respond_bare(request, status, &(contact + headers), body);
    }

    /// The same without a Contact.
    pub fn respond_bare(&self, request: &Message, status: &str, headers: &str, body: &str) {
        let mut text = format!("SIP/2.0 {status}\r\n");
        for name in ["Via", "Record-Route"] {
            for value in request.all(name) {
                text += &format!("{name}: {value}\r\n");
            }
        }
        let to = request.header("To");
        let tag = if to.contains(";tag=") {
            ""
        } else {
            ";tag=hand"
        };
        text += &format!(
            "From: {}\r\nTo: {to}{tag}\r\nCall-ID: {}\r\nCSeq: {}\r\n{headers}",
            request.header("From"),
            request.header("Call-ID"),
            request.header("CSeq"),
        );
        if !body.is_empty() {
            text += "Content-Type: application/sdp\r\n";
        }
        text += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
        self.send(text.as_bytes());
    }
}

/// Takes one whole message off a stream's bytes.
fn cut_message(bytes: &mut Vec<u8>) -> Option<Message> {
    // The answer to a keepalive.
    while bytes.starts_with(b"\r\n") {
        bytes.drain(..2);
    }
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let length: usize = Message(text).header("Content-Length").parse().unwrap_or(0);
    if bytes.len() < head + length {
        return None;
    }
    let whole: Vec<u8> = bytes.drain(..head + length).collect();
    Some(Message(String::from_utf8_lossy(&whole).into_owned()))
}

/// A call between two hand-written peers through an appliance at `port`, answered and acknowledged: the
/// caller's and the callee's dialogs.
///
/// # Panics
/// It does not come about.
#[must_use]
pub fn connect(caller: &Hand, callee: &Hand, port: u16) -> (Names, Names) {
    let mut ours = caller.names("bob", port);
    caller.ask(&mut ours, "INVITE", "", &sdp(6000));
    let invite = callee.expect("INVITE");
    callee.respond(&invite, "200 OK", "", &sdp(7000));
    let answer = caller.expect("SIP/2.0 200");
    ours.learn(&answer);
    caller.acknowledge(&ours, answer.cseq(), "");
    callee.expect("ACK");
    (ours, Names::of_invite(&invite))
}
