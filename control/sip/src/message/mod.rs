//! SIP messages: lossless parsing, typed headers on demand, building and serializing.

mod address;
mod cseq;
mod date;
mod error;
mod header_values;
mod headers;
mod judge;
mod lexer;
mod method;
mod name;
mod params;
mod rsip_compat;
mod session_id;
mod status;
mod stream;
mod text;
mod typed;
mod uri;
mod via;

use std::fmt;

pub use address::{Contact, NameAddr};
pub use cseq::{CSEQ_MAX, CSeq, RAck};
pub use date::SipDate;
pub use error::HeaderError;
pub use header_values::{
    AuthValue, MediaType, Reason, Replaces, SessionExpires, SubscriptionState, TokenParams,
};
pub use headers::{HeaderField, Headers};
pub use judge::{Fault, judge_request, judge_response};
pub use lexer::{MAX_HEADER_BYTES, MAX_HEADER_FIELDS, ParseError, Rejected, parse_datagram};
pub use method::Method;
pub use name::canonical_name;
pub use params::Params;
pub use rsip_compat::RsipError;
pub use session_id::{NIL_SESSION, SessionId};
pub use status::reason_phrase;
pub use stream::{StreamDecoder, StreamItem, StreamLimits};
pub use text::{percent_decode, percent_encode_header, percent_encode_user, quote, unquote};
pub use uri::{Scheme, Uri, bracketed, host_ip};
pub use via::{MAGIC_COOKIE, Via};

pub(crate) use text::decode;

/// A request or a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    Request(Request),
    Response(Response),
}

impl Message {
    pub fn headers(&self) -> &Headers {
        match self {
            Message::Request(request) => &request.headers,
            Message::Response(response) => &response.headers,
        }
    }

    pub fn body(&self) -> &[u8] {
        match self {
            Message::Request(request) => &request.body,
            Message::Response(response) => &response.body,
        }
    }

    /// The message on the wire. An unchanged received message gives its bytes back.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Message::Request(request) => request.to_bytes(),
            Message::Response(response) => response.to_bytes(),
        }
    }
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: Method,
    pub uri: Uri,
    /// The version as received; `SIP/2.0` in any case for requests that were judged good.
    pub version: String,
    pub headers: Headers,
    pub body: Vec<u8>,
    pub(crate) line_ends: LineEnds,
}

impl Request {
    /// A request with nothing but its request line. Via comes from the transaction layer;
    /// Content-Length is set when it is sent.
    pub fn new(method: Method, uri: Uri) -> Request {
        let version = "SIP/2.0".to_owned();
        let (headers, body) = (Headers::new(), Vec::new());
        Request {
            method,
            uri,
            version,
            headers,
            body,
            line_ends: LineEnds::default(),
        }
    }

    /// Adds a header field; for chaining.
    pub fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Request {
        self.headers.append(name, value);
        self
    }

    /// Sets the body and its type, and with it Content-Length.
    pub fn with_body(mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Request {
        self.set_body(content_type, body);
        self
    }

    /// Sets the body and its type, and with it Content-Length.
    pub fn set_body(&mut self, content_type: &str, body: impl Into<Vec<u8>>) {
        set_body(&mut self.headers, &mut self.body, content_type, body.into());
    }

    /// Makes Content-Length say the body's length.
    pub fn set_content_length(&mut self) {
        set_content_length(&mut self.headers, self.body.len());
    }

    /// The request on the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        let line = format!("{} {} {}", self.method, self.uri, self.version);
        serialize(line.as_bytes(), &self.headers, &self.body, self.line_ends)
    }
}

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// 100 to 699.
    pub status: u16,
    /// The reason phrase, bytes as received.
    pub reason: Vec<u8>,
    /// The version as received.
    pub version: String,
    pub headers: Headers,
    pub body: Vec<u8>,
    pub(crate) line_ends: LineEnds,
}

impl Response {
    /// A response to a request: Via, From, To, Call-ID and CSeq (and Timestamp for 100)
    /// copied as RFC 3261 section 8.2.6.2 says. To keeps the tag it has; give one by
    /// [`Response::set_to_tag`].
    pub fn to(request: &Request, status: u16) -> Response {
        let mut headers = Headers::new();
        for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
            headers.copy(&request.headers, name);
        }
        if status == 100 {
            headers.copy(&request.headers, "Timestamp");
        }
        // Whoever asked is the other end; who answers, a dialog knows (RFC 7989 section 7).
        if let Some(asked) = SessionId::of(&request.headers) {
            let answer = SessionId {
                local: NIL_SESSION.to_owned(),
                remote: asked.local,
            };
            headers.append("Session-ID", answer.to_string());
        }
        Response {
            status,
            reason: reason_phrase(status).as_bytes().to_vec(),
            version: "SIP/2.0".to_owned(),
            headers,
            body: Vec::new(),
            line_ends: LineEnds::default(),
        }
    }

    /// Another reason phrase than the usual one.
    pub fn with_reason(mut self, reason: &str) -> Response {
        self.reason = reason
            .bytes()
            .map(|b| if b < b' ' { b' ' } else { b })
            .collect();
        self
    }

    /// Adds a header field; for chaining.
    pub fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Response {
        self.headers.append(name, value);
        self
    }

    /// Sets the body and its type, and with it Content-Length.
    pub fn with_body(mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Response {
        self.set_body(content_type, body);
        self
    }

    /// Sets the body and its type, and with it Content-Length.
    pub fn set_body(&mut self, content_type: &str, body: impl Into<Vec<u8>>) {
        set_body(&mut self.headers, &mut self.body, content_type, body.into());
    }

    /// Makes Content-Length say the body's length.
    pub fn set_content_length(&mut self) {
        set_content_length(&mut self.headers, self.body.len());
    }

    /// Gives To this tag unless it has one (a tag the request brought is never changed).
    pub fn set_to_tag(&mut self, tag: &str) {
        if let Some(to) = self.headers.get("To")
            && let Ok(address) = NameAddr::parse(&to, "To")
            && address.tag().is_none()
        {
            let tagged = format!("{};tag={tag}", to.trim_end_matches([';', ' ', '\t']));
            self.headers.set_first("To", tagged);
        }
    }

    /// The reason phrase as text.
    pub fn reason_text(&self) -> std::borrow::Cow<'_, str> {
        decode(&self.reason)
    }

    pub fn is_provisional(&self) -> bool {
        self.status < 200
    }

    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub fn is_final(&self) -> bool {
        self.status >= 200
    }

    /// The response on the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut line = format!("{} {:03} ", self.version, self.status).into_bytes();
        line.extend_from_slice(&self.reason);
        serialize(&line, &self.headers, &self.body, self.line_ends)
    }
}

/// Which of the two lines that are no header fields ended in a bare line feed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LineEnds {
    pub(crate) start_bare: bool,
    pub(crate) blank_bare: bool,
}

fn line_end(bare: bool) -> &'static [u8] {
    if bare { b"\n" } else { b"\r\n" }
}

fn serialize(line: &[u8], headers: &Headers, body: &[u8], ends: LineEnds) -> Vec<u8> {
    let header_bytes: usize = headers.iter().map(|field| field.line().len()).sum();
    let mut bytes = Vec::with_capacity(line.len() + header_bytes + body.len() + 4);
    bytes.extend_from_slice(line);
    bytes.extend_from_slice(line_end(ends.start_bare));
    for field in headers {
        bytes.extend_from_slice(field.line());
    }
    bytes.extend_from_slice(line_end(ends.blank_bare));
    bytes.extend_from_slice(body);
    bytes
}

fn set_body(headers: &mut Headers, body: &mut Vec<u8>, content_type: &str, new: Vec<u8>) {
    *body = new;
    headers.set("Content-Type", content_type);
    set_content_length(headers, body.len());
}

fn set_content_length(headers: &mut Headers, length: usize) {
    let length = length.to_string();
    let right = headers.count("Content-Length") == 1
        && headers
            .get("Content-Length")
            .is_some_and(|text| text == length);
    if !right {
        headers.set("Content-Length", length);
    }
}

impl fmt::Display for Message {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&decode(&self.to_bytes()))
    }
}
