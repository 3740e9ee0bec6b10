//! Our description to one side, made from the far side's.

use std::fmt::Write as _;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::SdpError;
use crate::attribute::{Direction, crosses};
use crate::description::{Description, Media, Protocol, family_name};
use crate::limits::PAYLOADS_MAX;
use crate::record::{RecordState, mark};

/// Our addresses towards the side that is written to.
#[derive(Debug, Clone, Copy)]
pub struct Ours<'a> {
    /// Address for `c=` and `o=`: the advertised one.
    pub address: IpAddr,
    /// RTP port for each m-line; `None` (or missing) = port 0.
    pub ports: &'a [Option<u16>],
    /// What the side is told of recording (`a=record`); `None` where it would not understand that.
    pub record: Option<RecordState>,
}

impl Ours<'_> {
    pub(crate) fn port(&self, line: usize) -> Option<u16> {
        self.ports
            .get(line)
            .copied()
            .flatten()
            .filter(|port| *port != 0)
    }
}

/// Our `o=` towards one side for the life of its dialog: one session id, and a version that rises
/// by one whenever what we say changes (RFC 3264 section 8), and only then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginState {
    session_id: u64,
    version: u64,
    /// Of the last text without its `o=`; 0 before the first.
    fingerprint: u64,
}

impl OriginState {
    /// A new one. `session_id` should be random; it is cut to 62 bits, for some peers read it as
    /// a signed number.
    #[must_use]
    pub const fn new(session_id: u64) -> Self {
        Self {
            session_id: session_id & (u64::MAX >> 2),
            version: 0,
            fingerprint: 0,
        }
    }

    /// The session id in `o=`.
    #[must_use]
    pub const fn session_id(&self) -> u64 {
        self.session_id
    }

    /// The version last written; 0 before the first description.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// A whole description of ours from all of it but `v=` and `o=`.
    pub fn describe(&mut self, address: IpAddr, body: &str) -> String {
        let version = self.advance(body);
        let (id, family) = (self.session_id, family_name(address));
        format!("v=0\r\no=- {id} {version} IN {family} {address}\r\n{body}")
    }

    fn advance(&mut self, body: &str) -> u64 {
        let fingerprint = fingerprint(body);
        if fingerprint != self.fingerprint {
            self.version += 1;
            self.fingerprint = fingerprint;
        }
        self.version
    }
}

/// FNV-1a: stable over builds, for it is kept over restarts.
fn fingerprint(text: &str) -> u64 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash.max(1)
}

/// A description that we send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The body, CRLF line ends.
    pub text: String,
    /// What it says of each m-line.
    pub lines: Vec<WrittenLine>,
}

/// What we say of one m-line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrittenLine {
    /// Our port, 0 = rejected.
    pub port: u16,
    /// The direction we state.
    pub direction: Direction,
    /// Whether we state rtcp-mux. In an answer that settles it; in an offer the other side's
    /// answer does.
    pub rtcp_mux: bool,
}

/// The offer of one side, told to the other as ours.
///
/// m-lines keep order and count; those without a port of ours get port 0. A side that holds by
/// 0.0.0.0 is told as one that does not receive. rtcp-mux is offered when the far side offers it.
pub fn write_offer(offer: &Description, ours: &Ours<'_>, origin: &mut OriginState) -> Written {
    let mut writer = Writer::new(offer, ours.address);
    for (index, media) in offer.media.iter().enumerate() {
        match ours.port(index).filter(|_| media.relay_kind().is_some()) {
            Some(port) => writer.relayed(
                media,
                &media.protocol_text,
                port,
                media.direction(),
                media.rtcp_mux,
            ),
            None => writer.rejected(media),
        }
    }
    writer.finish(ours, origin)
}

/// The answer of one side, told to the side whose `offer` it answers. `ours` are our ports towards
/// the offerer.
///
/// m-lines are those of the offer, in order and count; lines that we did not relay, that the answer
/// rejects, or that do not fit their offer are rejected. Directions are cut to what the offer
/// allows. rtcp-mux is accepted where the offerer offered it.
///
/// # Errors
/// As [`crate::judge_answer`].
pub fn write_answer(
    offer: &Description,
    answer: &Description,
    ours: &Ours<'_>,
    origin: &mut OriginState,
) -> Result<Written, SdpError> {
    crate::judge_answer(answer, offer.media.len())?;
    let mut writer = Writer::new(answer, ours.address);
    for (index, asked) in offer.media.iter().enumerate() {
        let said = answer
            .media
            .get(index)
            .filter(|said| said.relay_kind().is_some() && said.relay_kind() == asked.relay_kind());
        match said.zip(ours.port(index)) {
            Some((said, port)) => {
                let direction = said.direction().and(asked.direction().reversed());
                writer.relayed(said, &asked.protocol_text, port, direction, asked.rtcp_mux);
            }
            None => writer.rejected(asked),
        }
    }
    Ok(writer.finish(ours, origin))
}

/// What the two sides of an m-line do once offer and answer are both known: the first side's
/// direction and the second's. Each sends only if the other receives.
#[must_use]
pub fn negotiated(first: &Media, second: &Media) -> (Direction, Direction) {
    let direction = first.direction().and(second.direction().reversed());
    (direction, direction.reversed())
}

/// `b=` modifiers that cross (RFC 8866, RFC 3556, RFC 3890).
const BANDWIDTHS: [&str; 5] = ["CT", "AS", "TIAS", "RS", "RR"];

/// Collects everything after `s=`; `o=` needs to know whether that changed.
pub(crate) struct Writer {
    body: String,
    pub(crate) lines: Vec<WrittenLine>,
}

impl Writer {
    fn new(source: &Description, address: IpAddr) -> Self {
        let mut writer = Self::at(address);
        writer.bandwidths(&source.bandwidths);
        writer.line('t', "0 0");
        writer
    }

    /// Without anything of another description.
    pub(crate) fn bare(address: IpAddr) -> Self {
        let mut writer = Self::at(address);
        writer.line('t', "0 0");
        writer
    }

    fn at(address: IpAddr) -> Self {
        let mut writer = Self {
            body: String::new(),
            lines: Vec::new(),
        };
        writer.line('s', "-");
        writer.line('c', &format!("IN {} {address}", family_name(address)));
        writer
    }

    fn relayed(
        &mut self,
        media: &Media,
        protocol: &str,
        port: u16,
        direction: Direction,
        rtcp_mux: bool,
    ) {
        let is_rtp = media.protocol == Protocol::Rtp;
        let payloads: Vec<u8> = media
            .payloads
            .iter()
            .map(|payload| payload.pt)
            .take(PAYLOADS_MAX)
            .collect();
        let formats: Vec<String> = if is_rtp {
            payloads.iter().map(u8::to_string).collect()
        } else {
            media.formats.clone()
        };
        self.line(
            'm',
            &format!("{} {port} {protocol} {}", media.kind, formats.join(" ")),
        );
        self.bandwidths(&media.bandwidths);
        for attribute in media
            .attributes
            .iter()
            .filter(|one| crosses(one, &payloads))
        {
            match &attribute.value {
                Some(value) => self.line('a', &format!("{}:{value}", attribute.name)),
                None => self.line('a', &attribute.name),
            }
        }
        let rtcp_mux = rtcp_mux && is_rtp;
        if rtcp_mux {
            self.line('a', "rtcp-mux");
        }
        if is_rtp {
            self.line('a', direction.name());
        }
        self.lines.push(WrittenLine {
            port,
            direction,
            rtcp_mux,
        });
    }

    pub(crate) fn rejected(&mut self, media: &Media) {
        let formats = media.formats.join(" ");
        self.line(
            'm',
            &format!("{} 0 {} {formats}", media.kind, media.protocol_text),
        );
        // By it a recording session's metadata names the line, whatever became of that.
        self.repeat(media, &["label"]);
        self.lines.push(WrittenLine {
            port: 0,
            direction: Direction::Inactive,
            rtcp_mux: false,
        });
    }

    /// Writes those attributes of a line that have one of these names, and a value.
    pub(crate) fn repeat(&mut self, media: &Media, names: &[&str]) {
        for attribute in &media.attributes {
            let Some(value) = &attribute.value else {
                continue;
            };
            if names.iter().any(|name| attribute.is(name)) {
                self.line('a', &format!("{}:{value}", attribute.name));
            }
        }
    }

    fn bandwidths(&mut self, bandwidths: &[String]) {
        for bandwidth in bandwidths {
            let Some((modifier, value)) = bandwidth.split_once(':') else {
                continue;
            };
            if BANDWIDTHS.contains(&modifier) && value.trim().parse::<u64>().is_ok() {
                self.line('b', &format!("{modifier}:{}", value.trim()));
            }
        }
    }

    pub(crate) fn line(&mut self, letter: char, value: &str) {
        // Writing to a String cannot fail.
        let _ = write!(self.body, "{letter}={value}\r\n");
    }

    pub(crate) fn finish(self, ours: &Ours<'_>, origin: &mut OriginState) -> Written {
        Written {
            text: origin.describe(ours.address, &mark(&self.body, ours.record)),
            lines: self.lines,
        }
    }
}
