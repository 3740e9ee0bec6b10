//! The typed view of a session description.

use std::net::{IpAddr, SocketAddr};

use crate::SdpError;
use crate::attribute::{Attribute, Direction};
use crate::limits::LINES_MAX;
use crate::lines::{Line, split};
use crate::payload::PayloadType;

/// The `o=` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Username.
    pub username: String,
    /// Session id, a number in theory.
    pub session_id: String,
    /// Session version, a number in theory.
    pub version: String,
    /// Network type, address type and address.
    pub address: String,
}

/// A `c=` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connection {
    /// An address. The unspecified one (`0.0.0.0`, `::`) means "do not send to me".
    Address(IpAddr),
    /// A host name (RFC 8866 allows one); where it is, nobody has looked up.
    Name(String),
}

/// The transport of an m-line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// RTP/AVP or RTP/AVPF over UDP.
    Rtp,
    /// RTP/SAVP, RTP/SAVPF, or DTLS-SRTP.
    Srtp,
    /// udptl (T.38).
    Udptl,
    /// Anything else.
    Other,
}

/// The `a=rtcp` attribute (RFC 3605).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RtcpAttribute {
    /// Port.
    pub port: u16,
    /// Address, where it differs from the RTP address.
    pub address: Option<IpAddr>,
}

/// One m-line with all that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// `audio`, `video`, `image` ..., in lower case.
    pub kind: String,
    /// Port; 0 = rejected or disabled.
    pub port: u16,
    /// Transport.
    pub protocol: Protocol,
    /// Transport as written.
    pub protocol_text: String,
    /// The formats as written, each once.
    pub formats: Vec<String>,
    /// The formats of an RTP m-line as payload types; empty for other transports.
    pub payloads: Vec<PayloadType>,
    /// The connection in force: the m-line's own, else the session's.
    pub connection: Option<Connection>,
    /// The direction as written, on the m-line or for the session; sendrecv when absent.
    pub stated_direction: Direction,
    /// `a=rtcp`.
    pub rtcp: Option<RtcpAttribute>,
    /// `a=rtcp-mux` (or rtcp-mux-only).
    pub rtcp_mux: bool,
    /// `a=ptime` in ms.
    pub ptime_ms: Option<u16>,
    /// `a=maxptime` in ms.
    pub maxptime_ms: Option<u16>,
    /// `b=` lines.
    pub bandwidths: Vec<String>,
    /// `a=` lines in order.
    pub attributes: Vec<Attribute>,
}

/// A session description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// `o=`; absent or malformed ones are tolerated, they are never passed on.
    pub origin: Option<Origin>,
    /// Session-level `c=`.
    pub connection: Option<Connection>,
    /// Session-level direction, the m-lines' default.
    pub direction: Option<Direction>,
    /// Session-level `b=` lines.
    pub bandwidths: Vec<String>,
    /// Session-level `a=` lines in order.
    pub attributes: Vec<Attribute>,
    /// m-lines in order.
    pub media: Vec<Media>,
    /// Every line but `o=`, for [`crate::compare`].
    pub(crate) text_lines: Vec<(char, String)>,
}

impl Description {
    /// Reads a description.
    ///
    /// Tolerated: any line ending, a missing `o=`, `s=` or `t=`, lines in any order within
    /// their section, unknown lines, text that is not UTF-8 (replaced).
    ///
    /// # Errors
    /// See [`SdpError`]; every malformed line whose meaning is needed is one.
    pub fn parse(bytes: &[u8]) -> Result<Self, SdpError> {
        let lines = split(bytes)?;
        if !lines
            .first()
            .is_some_and(|line| line.letter == 'v' && line.value == "0")
        {
            return Err(SdpError::NotSdp);
        }
        let is_media = |line: &Line| line.letter == 'm';
        let first_media = lines.iter().position(is_media).unwrap_or(lines.len());
        if lines.iter().filter(|line| is_media(line)).count() > LINES_MAX {
            return Err(SdpError::TooManyLines);
        }
        let (session, rest) = lines.split_at(first_media);
        let mut description = parse_session(session)?;
        for (index, section) in rest.chunk_by(|_, next| !is_media(next)).enumerate() {
            let media = parse_media(section, &description)?;
            if media.port != 0 && media.connection.is_none() {
                return Err(SdpError::NoConnection { index });
            }
            description.media.push(media);
        }
        description.text_lines = lines
            .into_iter()
            .filter(|line| line.letter != 'o')
            .map(|line| (line.letter, line.value))
            .collect();
        Ok(description)
    }

    /// Whether this side holds the call: it has audio in use, and receives on none of it.
    #[must_use]
    pub fn is_held(&self) -> bool {
        let mut audio = self
            .media
            .iter()
            .filter(|media| media.kind == "audio" && media.port != 0);
        let Some(first) = audio.next() else {
            return false;
        };
        first.is_held() && audio.all(Media::is_held)
    }
}

impl Media {
    /// The direction in force: as stated, but a side whose address is the unspecified one does
    /// not receive (the hold of RFC 2543, RFC 3264 section 8.4), and a rejected line is inactive.
    #[must_use]
    pub fn direction(&self) -> Direction {
        if self.port == 0 {
            return Direction::Inactive;
        }
        let receives = !self.has_unspecified_address();
        self.stated_direction.and(Direction::new(true, receives))
    }

    /// Whether this side puts the far side on hold on this m-line: in use, but not received.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.port != 0 && !self.direction().receives()
    }

    /// Where this side receives RTP (or udptl): `None` when rejected, on hold by 0.0.0.0, or when
    /// the address is a name.
    #[must_use]
    pub fn rtp_address(&self) -> Option<SocketAddr> {
        match &self.connection {
            Some(Connection::Address(address)) if self.port != 0 && !address.is_unspecified() => {
                Some(SocketAddr::new(*address, self.port))
            }
            _ => None,
        }
    }

    /// Where this side receives RTCP if that is not simply the RTP port + 1: an explicit
    /// `a=rtcp`. With rtcp-mux agreed the RTP address is the answer instead.
    #[must_use]
    pub fn rtcp_address(&self) -> Option<SocketAddr> {
        let rtp = self.rtp_address()?;
        let rtcp = self.rtcp?;
        let address = rtcp.address.filter(|address| !address.is_unspecified());
        Some(SocketAddr::new(address.unwrap_or(rtp.ip()), rtcp.port))
    }

    /// The number of telephone-event at the given clock, if the side takes it.
    #[must_use]
    pub fn telephone_event(&self, clock_hz: u32) -> Option<u8> {
        self.payloads
            .iter()
            .find(|payload| {
                payload.codec == crate::Codec::TelephoneEvent && payload.clock_hz == clock_hz
            })
            .map(|payload| payload.pt)
    }

    pub(crate) fn has_unspecified_address(&self) -> bool {
        matches!(&self.connection, Some(Connection::Address(address)) if address.is_unspecified())
    }
}

fn parse_session(lines: &[Line]) -> Result<Description, SdpError> {
    let mut description = Description {
        origin: None,
        connection: None,
        direction: None,
        bandwidths: Vec::new(),
        attributes: Vec::new(),
        media: Vec::new(),
        text_lines: Vec::new(),
    };
    for line in lines {
        match line.letter {
            'o' => description.origin = parse_origin(&line.value),
            'c' => description.connection = Some(parse_connection(line)?),
            'b' => description.bandwidths.push(line.value.clone()),
            'a' => {
                let attribute = Attribute::parse(&line.value);
                let direction = Direction::from_attribute(&attribute);
                description.direction = direction.or(description.direction);
                description.attributes.push(attribute);
            }
            _ => {}
        }
    }
    Ok(description)
}

fn parse_origin(value: &str) -> Option<Origin> {
    let mut parts = value.split_whitespace();
    let username = parts.next()?.to_owned();
    let session_id = parts.next()?.to_owned();
    let version = parts.next()?.to_owned();
    let address = parts.collect::<Vec<_>>().join(" ");
    Some(Origin {
        username,
        session_id,
        version,
        address,
    })
}

/// `IN IP4 192.0.2.1`, with the `/ttl` and `/count` of a multicast address cut off.
fn parse_connection(line: &Line) -> Result<Connection, SdpError> {
    let malformed = |what| SdpError::Malformed {
        line: line.number,
        what,
    };
    let mut parts = line.value.split_whitespace();
    let network = parts.next().unwrap_or_default();
    if !network.eq_ignore_ascii_case("IN") {
        return Err(malformed("c= with network type IN"));
    }
    let family = parts.next().unwrap_or_default();
    if !family.eq_ignore_ascii_case("IP4") && !family.eq_ignore_ascii_case("IP6") {
        return Err(malformed("c= with address type IP4 or IP6"));
    }
    let address = parts
        .next()
        .ok_or_else(|| malformed("c= with an address"))?;
    let address = address.split('/').next().unwrap_or_default();
    parse_host(address).ok_or_else(|| malformed("c= with an address"))
}

/// An address, with or without brackets, or a host name.
fn parse_host(text: &str) -> Option<Connection> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Some(Connection::Address(unmapped(address)));
    }
    let name_like = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let numeric = bare.chars().all(|c| c.is_ascii_digit() || c == '.');
    (!bare.is_empty() && bare.chars().all(name_like) && !numeric)
        .then(|| Connection::Name(bare.to_owned()))
}

/// `::ffff:192.0.2.1` is the IPv4 address.
fn unmapped(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(six) => six.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

fn parse_media(lines: &[Line], session: &Description) -> Result<Media, SdpError> {
    let mut media = parse_media_line(&lines[0])?;
    let mut direction = None;
    for line in &lines[1..] {
        match line.letter {
            'c' => {
                // Several c= lines are layered multicast (RFC 8866 section 5.7): the first is meant.
                let connection = parse_connection(line)?;
                media.connection.get_or_insert(connection);
            }
            'b' => media.bandwidths.push(line.value.clone()),
            'a' => {
                let attribute = Attribute::parse(&line.value);
                direction = Direction::from_attribute(&attribute).or(direction);
                media.attributes.push(attribute);
            }
            _ => {}
        }
    }
    media.stated_direction = direction
        .or(session.direction)
        .unwrap_or(Direction::SendRecv);
    if media.connection.is_none() {
        media.connection = session.connection.clone();
    }
    read_attributes(&mut media);
    Ok(media)
}

/// `audio 49170 RTP/AVP 0 8 101`.
fn parse_media_line(line: &Line) -> Result<Media, SdpError> {
    let malformed = |what| SdpError::Malformed {
        line: line.number,
        what,
    };
    let mut parts = line.value.split_whitespace();
    let kind = parts
        .next()
        .ok_or_else(|| malformed("m= with a media type"))?;
    let port = parts.next().unwrap_or_default();
    let port = port.split('/').next().unwrap_or_default();
    let port: u16 = port
        .parse()
        .map_err(|_| malformed("m= with a port of 0 to 65535"))?;
    let protocol_text = parts
        .next()
        .ok_or_else(|| malformed("m= with a transport"))?;
    let mut formats: Vec<String> = Vec::new();
    for format in parts {
        if !formats.iter().any(|known| known == format) {
            formats.push(format.to_owned());
        }
    }
    if formats.is_empty() {
        return Err(malformed("m= with at least one format"));
    }
    Ok(Media {
        kind: kind.to_ascii_lowercase(),
        port,
        protocol: parse_protocol(protocol_text),
        protocol_text: protocol_text.to_owned(),
        formats,
        payloads: Vec::new(),
        connection: None,
        stated_direction: Direction::SendRecv,
        rtcp: None,
        rtcp_mux: false,
        ptime_ms: None,
        maxptime_ms: None,
        bandwidths: Vec::new(),
        attributes: Vec::new(),
    })
}

fn parse_protocol(text: &str) -> Protocol {
    match text.to_ascii_uppercase().as_str() {
        "RTP/AVP" | "RTP/AVPF" | "UDP/RTP/AVP" | "UDP/RTP/AVPF" => Protocol::Rtp,
        "UDPTL" => Protocol::Udptl,
        other if other.contains("RTP/SAVP") => Protocol::Srtp,
        _ => Protocol::Other,
    }
}

/// What the m-line's attributes say, read into its typed fields.
fn read_attributes(media: &mut Media) {
    let find = |name: &str| media.attributes.iter().find(|attribute| attribute.is(name));
    let value = |name: &str| find(name).and_then(|attribute| attribute.value.as_deref());
    let milliseconds = |name: &str| {
        let whole = value(name)?.split(['.', ' ']).next()?.parse::<u16>().ok()?;
        (1..=1000).contains(&whole).then_some(whole)
    };
    let ptime_ms = milliseconds("ptime");
    let maxptime_ms = milliseconds("maxptime");
    let rtcp = value("rtcp").and_then(parse_rtcp);
    let rtcp_mux = find("rtcp-mux").is_some() || find("rtcp-mux-only").is_some();
    let payloads = match media.protocol {
        Protocol::Rtp | Protocol::Srtp => read_payloads(media),
        Protocol::Udptl | Protocol::Other => Vec::new(),
    };
    (media.ptime_ms, media.maxptime_ms, media.rtcp) = (ptime_ms, maxptime_ms, rtcp);
    (media.rtcp_mux, media.payloads) = (rtcp_mux, payloads);
}

/// `53020` or `53020 IN IP4 192.0.2.1`.
fn parse_rtcp(value: &str) -> Option<RtcpAttribute> {
    let mut parts = value.split_whitespace();
    let port: u16 = parts.next()?.parse().ok()?;
    let address = match parts.nth(2).and_then(parse_host) {
        Some(Connection::Address(address)) => Some(address),
        _ => None,
    };
    (port != 0).then_some(RtcpAttribute { port, address })
}

fn read_payloads(media: &Media) -> Vec<PayloadType> {
    let of = |name: &str, pt: u8| {
        media
            .attributes
            .iter()
            .filter(|attribute| attribute.is(name))
            .filter_map(Attribute::payload_and_rest)
            .find_map(|(number, rest)| (number == pt).then_some(rest))
    };
    let mut payloads: Vec<PayloadType> = Vec::new();
    for pt in media
        .formats
        .iter()
        .filter_map(|format| format.parse::<u8>().ok())
    {
        if pt < 128 && !payloads.iter().any(|known| known.pt == pt) {
            payloads.push(PayloadType::new(pt, of("rtpmap", pt), of("fmtp", pt)));
        }
    }
    payloads
}

/// The address type of SDP for an address.
pub fn family_name(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "IP4",
        IpAddr::V6(_) => "IP6",
    }
}
