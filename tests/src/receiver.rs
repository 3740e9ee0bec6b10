//! A web server that takes webhooks.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;

/// What it got so far.
#[derive(Debug, Clone, Default)]
pub struct Receiver {
    got: Arc<Mutex<Vec<Value>>>,
}

impl Receiver {
    /// Starts one on this port of 127.0.0.1; it runs until the test ends.
    ///
    /// # Panics
    /// The port is taken.
    #[must_use]
    pub fn start(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
        let receiver = Self::default();
        let own = receiver.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let own = own.clone();
                // A client that goes away is no failure of ours.
                std::thread::spawn(move || while own.serve(&stream).is_some() {});
            }
        });
        receiver
    }

    /// The bodies that came, in order.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn got(&self) -> Vec<Value> {
        self.got.lock().expect("free").clone()
    }

    fn serve(&self, mut stream: &TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            match line.trim_end().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.parse().ok()?;
                }
                None if line.trim_end().is_empty() => break,
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let body = serde_json::from_slice(&body).ok()?;
        self.got.lock().expect("free").push(body);
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").ok()
    }
}
