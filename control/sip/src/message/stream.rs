//! Messages out of a byte stream (RFC 3261 section 18.3, keepalives of RFC 5626 section 4.4.1),
//! with limits on what is held.

use super::lexer::{MAX_HEADER_BYTES, ParseError, Rejected, find_head_end, parse_head};
use super::{Message, lexer};

/// Limits of a stream's decoder.
#[derive(Clone, Copy, Debug)]
pub struct StreamLimits {
    /// Most bytes of start line and headers.
    pub header_bytes: usize,
    /// Most bytes of a body.
    pub body_bytes: usize,
}

impl Default for StreamLimits {
    fn default() -> StreamLimits {
        StreamLimits {
            header_bytes: MAX_HEADER_BYTES,
            body_bytes: 256 * 1024,
        }
    }
}

/// What a stream yields.
#[derive(Debug)]
pub enum StreamItem {
    Message(Message),
    /// A double CRLF between messages: answer with one CRLF.
    Ping,
    /// A bad message whose end was known: answer it if it can be answered, and go on.
    Rejected(Rejected),
    /// A bad message whose end is unknown: answer it if it can be answered, then close the
    /// connection. The decoder yields nothing more.
    Broken(Rejected),
}

/// Cuts a stream into messages. Push what was read, then take items until there is none.
#[derive(Debug, Default)]
pub struct StreamDecoder {
    limits: StreamLimits,
    buffer: Vec<u8>,
    /// Start of what is not consumed yet.
    start: usize,
    /// Up to where (from `start`) the end of the headers was looked for in vain.
    scanned: usize,
    /// Bytes of the message whose head was read and whose body is awaited.
    awaited: usize,
    broken: bool,
}

impl StreamDecoder {
    /// A decoder with these limits.
    pub fn new(limits: StreamLimits) -> StreamDecoder {
        StreamDecoder {
            limits,
            ..StreamDecoder::default()
        }
    }

    /// Adds bytes as read. Ignored once the stream is broken.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.broken {
            return;
        }
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes held.
    pub fn buffered(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// The next item, `None` when more bytes are needed.
    pub fn next_item(&mut self) -> Option<StreamItem> {
        if self.broken || self.buffered() < self.awaited {
            return None;
        }
        if let Some(item) = self.skip_line_ends() {
            return Some(item);
        }
        let pending = &self.buffer[self.start..];
        if pending.is_empty() {
            return None;
        }
        let Some(head_end) = find_head_end(pending, self.scanned) else {
            if pending.len() > self.limits.header_bytes {
                let end = pending.len().min(MAX_HEADER_BYTES);
                let rejected = parse_head(&pending[..end]).rejected(ParseError::TooLarge);
                return Some(self.broken(rejected));
            }
            // The blank line may straddle the border: three bytes are looked at again.
            self.scanned = pending.len().saturating_sub(3);
            return None;
        };
        if head_end > self.limits.header_bytes {
            let end = head_end.min(MAX_HEADER_BYTES);
            let rejected = parse_head(&pending[..end]).rejected(ParseError::TooLarge);
            return Some(self.broken(rejected));
        }
        // The end stays where it was found while the body is awaited.
        self.scanned = head_end.saturating_sub(3);
        let head = parse_head(&pending[..head_end]);
        let length = match head.content_length() {
            Ok(Some(length)) if length <= self.limits.body_bytes => length,
            Ok(Some(_)) => return Some(self.broken(head.rejected(ParseError::TooLarge))),
            Ok(None) => {
                return Some(self.broken(head.rejected(ParseError::MissingContentLength)));
            }
            Err(error) => return Some(self.broken(head.rejected(error))),
        };
        if pending.len() < head_end + length {
            self.awaited = head_end + length;
            return None;
        }
        let body = pending[head_end..head_end + length].to_vec();
        let item = match head.into_message(body) {
            Ok(message) => StreamItem::Message(message),
            Err(rejected) => StreamItem::Rejected(rejected),
        };
        self.consume(head_end + length);
        Some(item)
    }

    fn broken(&mut self, rejected: Rejected) -> StreamItem {
        self.broken = true;
        self.buffer = Vec::new();
        self.start = 0;
        StreamItem::Broken(rejected)
    }

    fn consume(&mut self, length: usize) {
        self.start += length;
        self.scanned = 0;
        self.awaited = 0;
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        }
    }

    /// Takes line ends between messages; a double one is a ping.
    fn skip_line_ends(&mut self) -> Option<StreamItem> {
        let ends = lexer::leading_line_ends(&self.buffer[self.start..]);
        if ends == 0 {
            return None;
        }
        if self.buffer[self.start..].starts_with(b"\r\n\r\n") {
            self.consume(4);
            return Some(StreamItem::Ping);
        }
        // The beginning of a ping waits for its rest; other line ends are dropped.
        let pending = &self.buffer[self.start..];
        let may_grow = ends == pending.len() && b"\r\n\r\n".starts_with(pending);
        if !may_grow {
            self.consume(ends.min(2));
            return self.skip_line_ends();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: &str = "OPTIONS sip:b@x SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\r\nFrom: <sip:a@x>;tag=1\r\n\
        To: <sip:b@x>\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\n";

    fn items(decoder: &mut StreamDecoder) -> Vec<String> {
        let mut names = Vec::new();
        while let Some(item) = decoder.next_item() {
            names.push(match item {
                StreamItem::Message(message) => format!("message {}", message.body().len()),
                StreamItem::Ping => "ping".into(),
                StreamItem::Rejected(rejected) => format!("rejected {}", rejected.fault.status),
                StreamItem::Broken(rejected) => format!("broken {}", rejected.fault.status),
            });
        }
        names
    }

    #[test]
    fn messages_and_pings_in_any_cutting() {
        let stream = format!(
            "\r\n{OPTIONS}l: 3\r\n\r\nabc\r\n\r\n{OPTIONS}l: 0\r\n\r\n\r\n\r\n\r\n\r\n{OPTIONS}l:2\r\n\r\n\r\n"
        );
        let wanted = [
            "message 3",
            "ping",
            "message 0",
            "ping",
            "ping",
            "message 2",
        ];
        for size in [1, 2, 3, 7, 50, stream.len()] {
            let mut decoder = StreamDecoder::default();
            let mut seen = Vec::new();
            for piece in stream.as_bytes().chunks(size) {
                decoder.push(piece);
                seen.extend(items(&mut decoder));
            }
            assert_eq!(seen, wanted, "pieces of {size}");
            assert_eq!(decoder.buffered(), 0);
        }
    }

    #[test]
    fn a_bad_message_of_known_length_does_not_end_the_stream() {
        let mut decoder = StreamDecoder::default();
        decoder
            .push(format!("{OPTIONS}bad line\r\nl: 3\r\n\r\nabc{OPTIONS}l: 0\r\n\r\n").as_bytes());
        assert_eq!(items(&mut decoder), ["rejected 400", "message 0"]);
    }

    #[test]
    fn unknown_ends_and_limits_break_the_stream() {
        for tail in ["\r\n", "l: -3\r\n\r\n", "l: 1\r\nl: 1\r\n\r\n"] {
            let mut decoder = StreamDecoder::default();
            decoder.push(format!("{OPTIONS}{tail}{OPTIONS}l: 0\r\n\r\n").as_bytes());
            assert_eq!(items(&mut decoder), ["broken 400"], "{tail}");
        }
        let limits = StreamLimits {
            header_bytes: 300,
            body_bytes: 10,
        };
        let mut decoder = StreamDecoder::new(limits);
        decoder.push(format!("{OPTIONS}l: 11\r\n\r\n").as_bytes());
        assert_eq!(items(&mut decoder), ["broken 513"]);
        let mut decoder = StreamDecoder::new(limits);
        for _ in 0..1000 {
            decoder.push(b"X: an endless header section\r\n");
            let _ = decoder.next_item();
        }
        assert_eq!(decoder.buffered(), 0);
    }
}
