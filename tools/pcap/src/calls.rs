//! Calls found in SIP messages: who, when, and which addresses and payload types their SDP names.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use trunkline_sn3::facts::{LegFact, PayloadFact};

/// Calls of one file.
const CALLS_MAX: usize = 100_000;
/// Descriptions of one call.
const DESCRIPTIONS_MAX: usize = 1_000;
/// m-lines of one description.
const MEDIA_MAX: usize = 16;

/// One SIP dialog with audio.
#[derive(Debug, Clone, Default)]
pub struct Call {
    /// Call-ID.
    pub call_id: String,
    /// User part of From.
    pub caller: String,
    /// User part of To.
    pub callee: String,
    /// URI of From.
    pub caller_uri: String,
    /// URI of To.
    pub callee_uri: String,
    /// First INVITE, ns since 1970.
    pub invited_ns: u64,
    /// First 2xx to an INVITE, ns since 1970.
    pub answered_ns: Option<u64>,
    /// First BYE, ns since 1970.
    pub ended_ns: Option<u64>,
    /// `caller` or `callee`.
    pub ended_by: &'static str,
    /// What either side said of its media, in order.
    pub descriptions: Vec<Description>,
    /// Tag of From.
    pub caller_tag: String,
}

/// What one side said of its media at one time.
#[derive(Debug, Clone)]
pub struct Description {
    /// ns since 1970.
    pub utc_ns: u64,
    /// 0 = caller, 1 = callee.
    pub side: u8,
    /// Its audio m-lines.
    pub media: Vec<Media>,
}

/// An audio m-line.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Media {
    /// Position among the m-lines.
    pub index: u8,
    /// Where RTP is wanted; none when the m-line is refused.
    pub endpoint: Option<SocketAddr>,
    /// Where RTCP is wanted, when not beside it.
    pub rtcp: Option<SocketAddr>,
    /// 0 = not said.
    pub ptime_ms: u16,
    /// Payload types.
    pub payloads: Vec<PayloadFact>,
}

/// Collects calls from messages.
#[derive(Debug, Default)]
pub struct Calls {
    /// In order of appearance.
    pub list: Vec<Call>,
    by_id: HashMap<String, usize>,
}

struct Message<'a> {
    first_line: &'a str,
    headers: Vec<(&'a str, &'a str)>,
    body: &'a str,
}

impl<'a> Message<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok().or_else(|| {
            // A body may hold anything; what is before it is text.
            let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
            std::str::from_utf8(&bytes[..end + 4]).ok()
        })?;
        let text = text.trim_start_matches(['\r', '\n']);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let mut lines = head.split("\r\n");
        let first_line = lines.next()?;
        if !first_line.starts_with("SIP/2.0 ") && !first_line.ends_with(" SIP/2.0") {
            return None;
        }
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim(), value.trim()))
            .collect();
        Some(Self {
            first_line,
            headers,
            body,
        })
    }

    fn header(&self, name: &str, compact: &str) -> &'a str {
        let wanted =
            |known: &str| known.eq_ignore_ascii_case(name) || known.eq_ignore_ascii_case(compact);
        let found = self.headers.iter().find(|(known, _)| wanted(known));
        found.map_or("", |(_, value)| value)
    }

    fn status(&self) -> Option<u16> {
        let rest = self.first_line.strip_prefix("SIP/2.0 ")?;
        rest.get(..3)?.parse().ok()
    }
}

fn tag(value: &str) -> &str {
    let parameters = value.rsplit_once('>').map_or(value, |(_, after)| after);
    let tag = parameters
        .split(';')
        .find_map(|parameter| parameter.trim().strip_prefix("tag="));
    tag.unwrap_or("")
}

fn uri(value: &str) -> &str {
    let inner = value.split_once('<').map_or(value, |(_, after)| after);
    inner.split(['>', ';', '?']).next().unwrap_or("").trim()
}

fn user(uri: &str) -> &str {
    let rest = uri.split_once(':').map_or(uri, |(_, after)| after);
    rest.split_once('@').map_or("", |(user, _)| user)
}

impl Calls {
    /// Takes a message and its time, ns since 1970; what is no SIP is left out.
    pub fn take(&mut self, utc_ns: u64, bytes: &[u8]) {
        let Some(message) = Message::parse(bytes) else {
            return;
        };
        let call_id = message.header("Call-ID", "i");
        let method = message.header("CSeq", "").rsplit(' ').next().unwrap_or("");
        let (from, to) = (message.header("From", "f"), message.header("To", "t"));
        let status = message.status();
        let index = match self.by_id.get(call_id) {
            Some(&index) => index,
            None if method == "INVITE" && status.is_none() && self.list.len() < CALLS_MAX => {
                self.list.push(Call {
                    call_id: call_id.to_owned(),
                    caller: user(uri(from)).to_owned(),
                    callee: user(uri(to)).to_owned(),
                    caller_uri: uri(from).to_owned(),
                    callee_uri: uri(to).to_owned(),
                    invited_ns: utc_ns,
                    caller_tag: tag(from).to_owned(),
                    ..Call::default()
                });
                self.by_id.insert(call_id.to_owned(), self.list.len() - 1);
                self.list.len() - 1
            }
            None => return,
        };
        let call = &mut self.list[index];
        let asked_by_caller = tag(from) == call.caller_tag;
        // Whoever answers is not who asked.
        let side = u8::from(asked_by_caller == status.is_some());
        if method == "INVITE" && status.is_some_and(|s| (200..300).contains(&s)) {
            call.answered_ns.get_or_insert(utc_ns);
        }
        if method == "BYE" && status.is_none() && call.ended_ns.is_none() {
            call.ended_ns = Some(utc_ns);
            call.ended_by = if asked_by_caller { "caller" } else { "callee" };
        }
        call.describe(utc_ns, side, message.body);
    }
}

impl Call {
    fn describe(&mut self, utc_ns: u64, side: u8, body: &str) {
        let media = parse_sdp(body);
        let known = self.descriptions.iter().rfind(|d| d.side == side);
        let news = known.is_none_or(|known| known.media != media);
        if !media.is_empty() && news && self.descriptions.len() < DESCRIPTIONS_MAX {
            self.descriptions.push(Description {
                utc_ns,
                side,
                media,
            });
        }
    }

    /// What each side sends as known at a time. A sender uses the numbers of its receiver, so both
    /// descriptions count, the receiver's first.
    pub fn legs_at(&self, utc_ns: u64) -> Vec<LegFact> {
        let latest = |side: u8| {
            let told = |d: &&Description| d.side == side && d.utc_ns <= utc_ns;
            let first = || self.descriptions.iter().find(|d| d.side == side);
            self.descriptions.iter().rfind(told).or_else(first)
        };
        let mut legs = Vec::new();
        for side in [0, 1] {
            let both = [latest(1 - side), latest(side)];
            for media in both.iter().flatten().flat_map(|d| &d.media) {
                let known = legs
                    .iter_mut()
                    .find(|leg: &&mut LegFact| leg.side == side && leg.media == media.index);
                let leg = match known {
                    Some(leg) => leg,
                    None => {
                        legs.push(LegFact {
                            side,
                            media: media.index,
                            kind: "audio".to_owned(),
                            ptime_ms: media.ptime_ms,
                            payloads: Vec::new(),
                            alternate: 0,
                        });
                        let last = legs.len() - 1;
                        &mut legs[last]
                    }
                };
                for payload in &media.payloads {
                    if leg.payloads.iter().all(|known| known.pt != payload.pt) {
                        leg.payloads.push(payload.clone());
                    }
                }
            }
        }
        legs
    }
}

/// The audio m-lines of a description.
fn parse_sdp(body: &str) -> Vec<Media> {
    let mut session_address: Option<IpAddr> = None;
    let mut media: Vec<(bool, Media)> = Vec::new();
    for line in body.lines() {
        let Some((kind, value)) = line.trim_end().split_once('=') else {
            continue;
        };
        match kind {
            "c" => {
                let address = value.split(' ').nth(2).and_then(|a| a.parse().ok());
                match (media.last_mut(), address) {
                    (Some((_, media)), Some(address)) => {
                        if let Some(endpoint) = &mut media.endpoint {
                            endpoint.set_ip(address);
                        }
                    }
                    (None, address) => session_address = address,
                    _ => {}
                }
            }
            "m" if media.len() < MEDIA_MAX => {
                media.push(media_line(value, media.len() as u8, session_address));
            }
            "a" => {
                if let Some((_, media)) = media.last_mut() {
                    media.attribute(value);
                }
            }
            _ => {}
        }
    }
    let audio = media.into_iter().filter(|(audio, _)| *audio);
    audio.map(|(_, media)| media).collect()
}

fn media_line(value: &str, index: u8, session: Option<IpAddr>) -> (bool, Media) {
    let mut parts = value.split(' ');
    let audio = parts.next() == Some("audio");
    let port = parts
        .next()
        .and_then(|port| port.split('/').next()?.parse().ok());
    let port = port.filter(|&port: &u16| port > 0);
    let mut media = Media {
        index,
        // The address may follow on a line of its own.
        endpoint: port
            .map(|port| SocketAddr::new(session.unwrap_or(IpAddr::from([0, 0, 0, 0])), port)),
        ..Media::default()
    };
    for pt in parts
        .skip(1)
        .filter_map(|pt| pt.parse::<u8>().ok())
        .take(64)
    {
        let format = trunkline_codec::CodecKind::from_static_payload_type(pt);
        media.payloads.push(PayloadFact {
            pt,
            codec: format.map_or(String::new(), |f| f.kind.name().to_owned()),
            clock_hz: format.map_or(0, |f| f.clock_hz),
            channels: format.map_or(1, |f| f.channels),
            fmtp: String::new(),
        });
    }
    (audio, media)
}

impl Media {
    fn attribute(&mut self, value: &str) {
        let (name, value) = value.split_once(':').unwrap_or((value, ""));
        let (first, rest) = value.split_once(' ').unwrap_or((value, ""));
        let payload = |media: &mut Self| -> Option<usize> {
            let pt: u8 = first.parse().ok()?;
            media.payloads.iter().position(|payload| payload.pt == pt)
        };
        match name {
            "rtpmap" => {
                if let Some(index) = payload(self) {
                    set_format(&mut self.payloads[index], rest);
                }
            }
            "fmtp" => {
                if let Some(index) = payload(self) {
                    rest.clone_into(&mut self.payloads[index].fmtp);
                }
            }
            "ptime" => self.ptime_ms = first.parse().unwrap_or(0),
            "rtcp" => {
                let port = first.parse().ok();
                self.rtcp = self.endpoint.zip(port).map(|(endpoint, port)| {
                    let address = rest.split(' ').nth(2).and_then(|a| a.parse().ok());
                    SocketAddr::new(address.unwrap_or(endpoint.ip()), port)
                });
            }
            _ => {}
        }
    }
}

/// `NAME/CLOCK[/CHANNELS]`.
pub fn set_format(payload: &mut PayloadFact, text: &str) {
    let mut parts = text.trim().split('/');
    parts.next().unwrap_or("").clone_into(&mut payload.codec);
    let clock = parts.next().and_then(|clock| clock.parse().ok());
    payload.clock_hz = clock.unwrap_or(8_000);
    let channels = parts.next().and_then(|channels| channels.parse().ok());
    payload.channels = channels.unwrap_or(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_audio_of_a_description_is_found_with_its_own_address() {
        let media = parse_sdp(
            "v=0\r\no=- 1 1 IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
             m=video 4000 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n\
             m=audio 5000/2 RTP/AVP 8 111 101\r\nc=IN IP6 2001:db8::1\r\n\
             a=rtpmap:111 opus/48000/2\r\na=fmtp:111 useinbandfec=1\r\na=ptime:20\r\n",
        );
        assert_eq!(media.len(), 1);
        let audio = &media[0];
        assert_eq!((audio.index, audio.ptime_ms), (1, 20));
        assert_eq!(audio.endpoint, "[2001:db8::1]:5000".parse().ok());
        assert_eq!(audio.payloads[0].codec, "PCMA");
        let opus = &audio.payloads[1];
        assert_eq!(
            (opus.codec.as_str(), opus.clock_hz, opus.channels),
            ("opus", 48_000, 2)
        );
        assert_eq!(opus.fmtp, "useinbandfec=1");
    }

    #[test]
    fn anything_is_survived() {
        for text in [
            "",
            "m=",
            "m=audio",
            "m=audio x RTP/AVP y",
            "a=rtpmap:",
            "c=IN IP4",
            "=\n==",
        ] {
            let _ = parse_sdp(text);
        }
        assert_eq!(tag("<sip:a@b;tag=no>;x=1;tag=yes"), "yes");
        assert_eq!(user(uri("\"A\" <sip:+49@b;user=phone>;tag=1")), "+49");
    }
}
