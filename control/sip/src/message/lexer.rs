//! The lexer: bytes to a message whose every byte is kept, or a reasoned rejection that still
//! knows enough to answer.

use std::net::SocketAddr;

use super::cseq::{CSeq, number};
use super::error::HeaderError;
use super::headers::{HeaderField, Headers};
use super::judge::Fault;
use super::method::Method;
use super::text::{is_token, is_token_byte, trim};
use super::uri::Uri;
use super::via::Via;
use super::{LineEnds, Message, Request, Response, decode, reason_phrase};

/// Most bytes of a start line and header section.
pub const MAX_HEADER_BYTES: usize = 64 * 1024;

/// Most header fields of a message.
pub const MAX_HEADER_FIELDS: usize = 512;

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Nothing but line ends: a keepalive, no fault.
    #[error("empty")]
    Empty,
    #[error("Malformed Start Line")]
    StartLine,
    #[error("Malformed Request-URI")]
    RequestUri,
    #[error("Malformed Status Code")]
    StatusCode,
    #[error("Malformed Header Field")]
    HeaderSyntax,
    #[error("Header Section Not Terminated")]
    Unterminated,
    #[error("Too Many Header Fields")]
    TooManyFields,
    #[error("Malformed Content-Length")]
    ContentLength,
    #[error("Repeated Content-Length")]
    RepeatedContentLength,
    #[error("Content-Length Larger Than Message")]
    Truncated,
    #[error("Missing Content-Length")]
    MissingContentLength,
    #[error("Message Too Large")]
    TooLarge,
}

/// Bytes that are no good message, with what could be read of them.
#[derive(Clone, Debug)]
pub struct Rejected {
    /// The status and reason to answer with, if it can be answered.
    pub fault: Fault,
    /// What the lexer found; `None` when a judge of complete messages rejected it.
    pub error: Option<ParseError>,
    /// The method, when it was a request.
    pub method: Option<Method>,
    /// The fields that could be read.
    pub headers: Headers,
}

impl Rejected {
    /// The answer to send, or `None` for silence: responses and ACK are never answered, nor is
    /// a request without a readable top Via and CSeq, by which alone its sender could match
    /// an answer. Missing From, To or Call-ID stay missing (RFC 4475 section 3.3.1).
    pub fn response(&self, source: SocketAddr) -> Option<Response> {
        if matches!(self.method, None | Some(Method::Ack)) {
            return None;
        }
        let mut via = self.headers.via().ok()?;
        CSeq::parse(&self.headers.get("CSeq")?)
            .map(|_| ())
            .or_else(|_| readable_cseq(&self.headers))
            .ok()?;
        via.note_source(source);
        let mut headers = Headers::new();
        headers.copy(&self.headers, "Via");
        super::typed::replace_top_via(&mut headers, &via);
        for name in ["From", "To", "Call-ID", "CSeq"] {
            if let Some(value) = self.headers.get_bytes(name) {
                headers.append(name, value);
            }
        }
        let mut response = Response {
            status: self.fault.status,
            reason: reason_phrase(self.fault.status).as_bytes().to_vec(),
            version: "SIP/2.0".to_owned(),
            headers,
            body: Vec::new(),
            line_ends: LineEnds::default(),
        };
        if self.fault.status == 400 {
            response = response.with_reason(&format!("Bad Request ({})", self.fault.reason));
        }
        Some(response)
    }
}

/// A CSeq whose number is out of range is still good enough to be echoed.
fn readable_cseq(headers: &Headers) -> Result<(), HeaderError> {
    let text = headers.get("CSeq").unwrap_or_default();
    let mut words = text.split_ascii_whitespace();
    let digits = words
        .next()
        .is_some_and(|word| word.bytes().all(|b| b.is_ascii_digit()));
    let method = words.next().is_some_and(is_token);
    if digits && method {
        Ok(())
    } else {
        Err(HeaderError::new("CSeq", "unreadable"))
    }
}

/// Parses one datagram: an absent Content-Length means to its end, octets after the body are
/// ignored, a body that is cut short is a fault (RFC 3261 section 18.3).
///
/// # Errors
/// [`Rejected`] with the fault; its `error` is [`ParseError::Empty`] for a keepalive.
pub fn parse_datagram(bytes: &[u8]) -> Result<Message, Rejected> {
    let start = leading_line_ends(bytes);
    let bytes = &bytes[start..];
    if bytes.is_empty() || bytes.iter().all(|byte| *byte == 0) {
        return Err(Rejected::plain(ParseError::Empty));
    }
    let Some(head_end) = find_head_end(bytes, 0) else {
        return Err(reject_unterminated(bytes));
    };
    if head_end > MAX_HEADER_BYTES {
        return Err(parse_head(&bytes[..MAX_HEADER_BYTES]).rejected(ParseError::TooLarge));
    }
    let head = parse_head(&bytes[..head_end]);
    let rest = &bytes[head_end..];
    let body = match head.content_length() {
        Ok(None) => rest,
        Ok(Some(length)) if length <= rest.len() => &rest[..length],
        Ok(Some(_)) => return Err(head.rejected(ParseError::Truncated)),
        Err(error) => return Err(head.rejected(error)),
    };
    head.into_message(body.to_vec())
}

/// A header section that never ends: what lines there are serve for the answer.
fn reject_unterminated(bytes: &[u8]) -> Rejected {
    let end = bytes.len().min(MAX_HEADER_BYTES);
    let error = if bytes.len() > MAX_HEADER_BYTES {
        ParseError::TooLarge
    } else {
        ParseError::Unterminated
    };
    parse_head(&bytes[..end]).rejected(error)
}

/// Length of the line ends before the start line (RFC 3261 section 7.5).
pub(crate) fn leading_line_ends(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .take_while(|byte| matches!(byte, b'\r' | b'\n'))
        .count()
}

/// Index after the blank line that ends the header section, looking from `from` on.
pub(crate) fn find_head_end(bytes: &[u8], from: usize) -> Option<usize> {
    let mut index = from;
    while let Some(found) = bytes[index..].iter().position(|byte| *byte == b'\n') {
        let next = index + found + 1;
        match bytes.get(next..) {
            Some([b'\n', ..]) => return Some(next + 1),
            Some([b'\r', b'\n', ..]) => return Some(next + 2),
            _ => index = next,
        }
    }
    None
}

/// A start line taken apart.
enum Start {
    Request {
        method: Method,
        uri: Uri,
        version: String,
    },
    Response {
        version: String,
        status: u16,
        reason: Vec<u8>,
    },
}

/// A header section that was read as far as it goes.
pub(crate) struct Head {
    start: Result<Start, ParseError>,
    /// The method even where the request line is otherwise bad.
    method: Option<Method>,
    headers: Headers,
    field_error: Option<ParseError>,
    line_ends: LineEnds,
}

impl Head {
    /// The value of Content-Length, `None` when absent.
    pub(crate) fn content_length(&self) -> Result<Option<usize>, ParseError> {
        match self.headers.count("Content-Length") {
            0 => Ok(None),
            1 => {
                let text = self.headers.get("Content-Length").unwrap_or_default();
                let length = number(&text, u32::MAX).ok_or(ParseError::ContentLength)?;
                Ok(Some(length as usize))
            }
            _ => Err(ParseError::RepeatedContentLength),
        }
    }

    /// The fault of the head itself, if any.
    pub(crate) fn error(&self) -> Option<ParseError> {
        self.start.as_ref().err().copied().or(self.field_error)
    }

    pub(crate) fn rejected(self, error: ParseError) -> Rejected {
        let error = self.error().unwrap_or(error);
        let status = match error {
            ParseError::TooLarge | ParseError::TooManyFields => 513,
            _ => 400,
        };
        let fault = Fault {
            status,
            reason: error.to_string(),
        };
        Rejected {
            fault,
            error: Some(error),
            method: self.method,
            headers: self.headers,
        }
    }

    pub(crate) fn into_message(self, body: Vec<u8>) -> Result<Message, Rejected> {
        if let Some(error) = self.error() {
            return Err(self.rejected(error));
        }
        let (headers, line_ends) = (self.headers, self.line_ends);
        match self.start {
            Ok(Start::Request {
                method,
                uri,
                version,
            }) => Ok(Message::Request(Request {
                method,
                uri,
                version,
                headers,
                body,
                line_ends,
            })),
            Ok(Start::Response {
                version,
                status,
                reason,
            }) => Ok(Message::Response(Response {
                status,
                reason,
                version,
                headers,
                body,
                line_ends,
            })),
            Err(error) => Err(Rejected::plain(error)),
        }
    }
}

impl Rejected {
    pub(crate) fn plain(error: ParseError) -> Rejected {
        let fault = Fault {
            status: 400,
            reason: error.to_string(),
        };
        Rejected {
            fault,
            error: Some(error),
            method: None,
            headers: Headers::new(),
        }
    }
}

/// Reads a header section; bad lines are noted and skipped so that an answer can be made.
pub(crate) fn parse_head(bytes: &[u8]) -> Head {
    let mut lines = Lines { bytes, at: 0 };
    let (start_line, start_bare) = lines.next_line().unwrap_or((b"", false));
    let (start, method) = parse_start_line(start_line);
    let mut head = Head {
        start,
        method,
        headers: Headers::new(),
        field_error: None,
        line_ends: LineEnds {
            start_bare,
            blank_bare: false,
        },
    };
    while let Some(raw) = lines.next_field() {
        if matches!(raw, b"\r\n" | b"\n") {
            head.line_ends.blank_bare = raw == b"\n";
            break;
        }
        if head.headers.len() == MAX_HEADER_FIELDS {
            head.field_error = Some(ParseError::TooManyFields);
            break;
        }
        match parse_field(raw) {
            Some(field) => head.headers.push(field),
            None => head.field_error = Some(ParseError::HeaderSyntax),
        }
    }
    head
}

/// Cuts bytes into lines and, with folds joined, into fields.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Lines<'a> {
    /// The next line without its end, and whether that was a bare line feed.
    fn next_line(&mut self) -> Option<(&'a [u8], bool)> {
        let raw = self.next_raw()?;
        let line = raw.strip_suffix(b"\n").unwrap_or(raw);
        match line.strip_suffix(b"\r") {
            Some(line) => Some((line, false)),
            None => Some((line, line.len() < raw.len())),
        }
    }

    fn next_raw(&mut self) -> Option<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        if rest.is_empty() {
            return None;
        }
        let end = rest
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(rest.len(), |at| at + 1);
        self.at += end;
        Some(&rest[..end])
    }

    /// The next line with the lines that continue it.
    fn next_field(&mut self) -> Option<&'a [u8]> {
        let start = self.at;
        let first = self.next_raw()?;
        if matches!(first, b"\r\n" | b"\n") {
            return Some(first);
        }
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t')) {
            self.next_raw();
        }
        Some(&self.bytes[start..self.at])
    }
}

fn parse_field(raw: &[u8]) -> Option<HeaderField> {
    let name_len = raw.iter().position(|byte| !is_token_byte(*byte))?;
    let colon = name_len
        + raw[name_len..]
            .iter()
            .position(|byte| !matches!(byte, b' ' | b'\t'))?;
    if name_len == 0 || raw[colon] != b':' {
        return None;
    }
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
    let value_end = raw
        .iter()
        .rposition(|byte| !blank(byte))
        .map_or(0, |at| at + 1);
    let value_end = value_end.max(colon + 1);
    let value_start = raw[colon + 1..value_end]
        .iter()
        .position(|byte| !blank(byte))
        .unwrap_or(0)
        + colon
        + 1;
    // A carriage return that ends no line would be read differently by different elements.
    let value = &raw[value_start..value_end];
    let stray = |(at, byte): (usize, &u8)| *byte == b'\r' && value.get(at + 1) != Some(&b'\n');
    if value.iter().enumerate().any(stray) {
        return None;
    }
    let mut line = raw.to_vec();
    if !line.ends_with(b"\n") {
        line.extend_from_slice(b"\r\n");
    }
    Some(HeaderField::from_line(
        line,
        name_len,
        value_start,
        value_end,
    ))
}

fn parse_start_line(line: &[u8]) -> (Result<Start, ParseError>, Option<Method>) {
    if line.len() >= 4 && line[..4].eq_ignore_ascii_case(b"SIP/") {
        return (parse_status_line(line), None);
    }
    let text = decode(line);
    let mut words = text.split(' ');
    let method = words.next().filter(|word| is_token(word)).map(Method::from);
    let Some(known) = method.clone() else {
        return (Err(ParseError::StartLine), None);
    };
    let (uri, version) = (words.next(), words.next());
    let start = match (uri, version, words.next()) {
        (Some(uri), Some(version), None) if is_version(version) => match uri.parse() {
            Ok(uri) => Ok(Start::Request {
                method: known,
                uri,
                version: version.to_owned(),
            }),
            Err(_) => Err(ParseError::RequestUri),
        },
        _ => Err(ParseError::StartLine),
    };
    // A line that never names the protocol is no request of SIP, good or bad.
    let sip = text.to_ascii_uppercase().contains("SIP/");
    (start, method.filter(|_| sip))
}

fn parse_status_line(line: &[u8]) -> Result<Start, ParseError> {
    let space = line
        .iter()
        .position(|byte| *byte == b' ')
        .ok_or(ParseError::StartLine)?;
    let version = decode(&line[..space]).into_owned();
    let rest = &line[space + 1..];
    if !is_version(&version) {
        return Err(ParseError::StartLine);
    }
    let code_end = rest
        .iter()
        .position(|byte| *byte == b' ')
        .unwrap_or(rest.len());
    let code = decode(&rest[..code_end]);
    let status = (code.len() == 3).then(|| number(&code, 699)).flatten();
    let status = status
        .filter(|status| *status >= 100)
        .ok_or(ParseError::StatusCode)? as u16;
    let reason = rest.get(code_end + 1..).unwrap_or(b"").to_vec();
    Ok(Start::Response {
        version,
        status,
        reason,
    })
}

fn is_version(text: &str) -> bool {
    let number = text
        .get(4..)
        .filter(|_| text[..4].eq_ignore_ascii_case("SIP/"));
    let parts = number.and_then(|number| number.split_once('.'));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    parts.is_some_and(|(major, minor)| digits(major) && digits(minor))
}

/// The top Via element of a header list, as text.
pub(crate) fn top_via(headers: &Headers) -> Result<Via, HeaderError> {
    let text = headers.get("Via").ok_or(HeaderError::missing("Via"))?;
    let end = super::text::find_outside(&text, b',').unwrap_or(text.len());
    Via::parse(trim(&text[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVITE: &str = "INVITE sip:b@x SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@x>;tag=1\r\n\
        To: <sip:b@x>\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\n";

    fn rejected(text: &str) -> Rejected {
        parse_datagram(text.as_bytes()).expect_err("must be rejected")
    }

    #[test]
    fn bytes_come_back_as_they_were() {
        for text in [
            format!("{INVITE}\r\nbody"),
            format!("{INVITE}Subject  :  a\r\n\t  b  \r\nX:\r\nl: 4\r\n\r\nbody"),
            INVITE.replace("\r\n", "\n") + "\n",
            "SIP/2.0 200 \r\nVia: x\r\n\r\n".to_owned(),
            "sip/2.0 486 B\u{fc}sy  here\r\n\r\n".to_owned(),
        ] {
            let message = parse_datagram(text.as_bytes()).unwrap();
            assert_eq!(message.to_bytes(), text.as_bytes());
        }
        let bytes = [INVITE.as_bytes(), b"Subject: M\xfcller\r\n\r\n\xff\x00"].concat();
        let message = parse_datagram(&bytes).unwrap();
        assert_eq!(message.to_bytes(), bytes);
        assert_eq!(message.headers().get("s").unwrap(), "Müller");
    }

    #[test]
    fn datagram_framing() {
        let body_of = |tail: &str| {
            parse_datagram(format!("{INVITE}{tail}").as_bytes())
                .unwrap()
                .body()
                .to_vec()
        };
        assert_eq!(body_of("\r\nto the end"), b"to the end");
        assert_eq!(body_of("Content-Length: 2\r\n\r\nto the end"), b"to");
        for tail in [
            "l: 11\r\n\r\nto the end",
            "l: 1\r\nContent-Length: 1\r\n\r\na",
            "l: -1\r\n\r\n",
            "l: 1 1\r\n\r\na",
            "l:\r\n\r\n",
        ] {
            let rejected = rejected(&format!("{INVITE}{tail}"));
            assert_eq!(rejected.fault.status, 400);
            let response = rejected.response("192.0.2.7:5".parse().unwrap()).unwrap();
            assert_eq!(response.headers.get("Call-ID").unwrap(), "c");
            assert_eq!(
                response.headers.via().unwrap().received(),
                Some("192.0.2.7".parse().unwrap())
            );
        }
    }

    #[test]
    fn what_is_met_with_silence() {
        let source = "192.0.2.7:5".parse().unwrap();
        let silent = |text: String| assert!(rejected(&text).response(source).is_none(), "{text}");
        silent(format!("{}l: -1\r\n\r\n", INVITE.replace("INVITE", "ACK")));
        silent(format!("{}l: -1\r\n\r\n", INVITE.replace("Via", "Vla")));
        silent(format!("{}l: -1\r\n\r\n", INVITE.replace("CSeq", "CSoq")));
        silent("SIP/2.0 4294967301 better\r\nVia: SIP/2.0/UDP h\r\nCSeq: 1 INVITE\r\n\r\n".into());
        silent("GET / HTTP/1.1\r\nVia: SIP/2.0/UDP h\r\nCSeq: 1 GET\r\n\r\n".into());
        assert_eq!(rejected("\r\n\r\n").error, Some(ParseError::Empty));
        assert_eq!(rejected("\0\0\0\0").error, Some(ParseError::Empty));
    }

    #[test]
    fn bad_lines_and_limits() {
        for line in ["no colon here", ": no name", "B@d: name", "X: a\rb"] {
            let rejected = rejected(&format!("{INVITE}{line}\r\n\r\n"));
            assert_eq!(rejected.error, Some(ParseError::HeaderSyntax), "{line}");
        }
        let fold_first = "INVITE sip:b@x SIP/2.0\r\n Via: SIP/2.0/UDP h\r\n\r\n";
        assert_eq!(rejected(fold_first).error, Some(ParseError::HeaderSyntax));
        let many = "X: y\r\n".repeat(MAX_HEADER_FIELDS);
        assert_eq!(rejected(&format!("{INVITE}{many}\r\n")).fault.status, 513);
        assert_eq!(rejected(INVITE).error, Some(ParseError::Unterminated));
    }
}
