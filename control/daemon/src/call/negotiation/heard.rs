//! What a side said.

use std::net::IpAddr;
use std::sync::OnceLock;

use trunkline_sdp::{Description, SdpError};

/// A description as received: its bytes for storage, its parsed form for use.
#[derive(Debug, Clone)]
pub struct Heard {
    pub(super) bytes: Box<[u8]>,
    parsed: OnceLock<Box<Description>>,
}

impl Heard {
    /// Parses a body.
    pub fn parse(bytes: &[u8]) -> Result<Self, SdpError> {
        let description = Description::parse(bytes)?;
        Ok(Self {
            bytes: bytes.into(),
            parsed: OnceLock::from(Box::new(description)),
        })
    }

    /// Its parsed form.
    pub(super) fn description(&self) -> &Description {
        self.parsed.get_or_init(|| {
            let parsed = Description::parse(&self.bytes);
            Box::new(parsed.expect("these bytes were parsed before"))
        })
    }

    /// Keeps the bytes alone: the parsed form, several times as large, is made again when it is asked for.
    pub(super) fn rest(&mut self) {
        self.parsed.take();
    }

    /// Parses a body, of which only these audio codecs count (all, if none is named).
    pub fn parse_for(bytes: &[u8], codecs: &[String]) -> Result<Self, SdpError> {
        if codecs.is_empty() {
            return Self::parse(bytes);
        }
        Self::parse(&trunkline_sdp::keep_codecs(bytes, codecs)?)
    }

    /// The same, of which only these audio codecs count (all, if none is named).
    pub fn kept(self, codecs: &[String]) -> Result<Self, SdpError> {
        Self::parse_for(&self.bytes, codecs)
    }

    /// Whether this side holds the call.
    pub fn is_held(&self) -> bool {
        self.description().is_held()
    }

    /// The parsed form, where the text has a word in it. Nothing of it is kept.
    pub(super) fn if_it_says(&self, word: &str) -> Option<Description> {
        let mut places = self.bytes.windows(word.len());
        let says = places.any(|place| place.eq_ignore_ascii_case(word.as_bytes()));
        says.then(|| Description::parse(&self.bytes).ok())?
    }

    /// The same without the hold that the other side had asked for: where this one only received or
    /// rested in answer to it, it does both again.
    pub(super) fn resumed(&self) -> Self {
        let text = String::from_utf8_lossy(&self.bytes);
        let lines = text.lines().map(|line| match line.trim_end() {
            "a=recvonly" | "a=inactive" => "a=sendrecv",
            other => other,
        });
        let text: String = lines.flat_map(|line| [line, "\r\n"]).collect();
        Self::parse(text.as_bytes()).unwrap_or_else(|_| self.clone())
    }

    /// The same with as many m-lines as a description sent earlier, the missing ones disabled (RFC
    /// 3264 section 8: m-lines never go away).
    pub(super) fn padded(&self, earlier: &str) -> Self {
        let Ok(earlier) = Description::parse(earlier.as_bytes()) else {
            return self.clone();
        };
        let mut bytes = self.bytes.to_vec();
        for media in earlier.media.iter().skip(self.description().media.len()) {
            let formats = media.formats.join(" ");
            let line = format!("m={} 0 {} {formats}\r\n", media.kind, media.protocol_text);
            bytes.extend_from_slice(line.as_bytes());
        }
        Self::parse(&bytes).unwrap_or_else(|_| self.clone())
    }

    /// The first audio line's address family, where it is an address.
    pub fn address(&self) -> Option<IpAddr> {
        self.description()
            .media
            .iter()
            .find_map(|media| media.rtp_address())
            .map(|a| a.ip())
    }
}
