//! Our descriptions in a recording session: one `sendonly` m-line for each direction of the call's media.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use trunkline_link::message::{CodecId, Payload, Side};
use trunkline_sdp::{Codec, Description, Media, Protocol, family_name};
use trunkline_sn3::facts::PayloadFact;

/// What one m-line of a recording session carries. m-lines never go away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Index among the call's media.
    pub media: u8,
    /// The side that is heard on it: 0 = caller's, 1 = callee's.
    pub side: u8,
    /// `audio` or `video`.
    pub kind: String,
    /// Its place among the m-lines of the description.
    pub place: usize,
}

impl Line {
    /// The side that is heard on it.
    pub fn side(&self) -> Side {
        if self.side == Side::Caller as u8 {
            Side::Caller
        } else {
            Side::Callee
        }
    }
}

/// The label of an m-line by its place.
pub fn label(index: usize) -> String {
    (index + 1).to_string()
}

/// How an m-line is described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// `audio` or `video`.
    pub kind: String,
    /// Our RTP port; 0 = not in use.
    pub port: u16,
    /// Payload types, the codec in use first.
    pub payloads: Vec<PayloadFact>,
    /// Packet time, 0 = not said.
    pub ptime_ms: u16,
    /// We send on it; else it is inactive.
    pub sends: bool,
}

/// All of a description but its `o=` line.
pub fn body(address: IpAddr, lines: &[Offered]) -> String {
    let mut text = format!(
        "s=-\r\nc=IN {} {address}\r\nt=0 0\r\n",
        family_name(address)
    );
    for (index, line) in lines.iter().enumerate() {
        let formats: Vec<String> = line.payloads.iter().map(|one| one.pt.to_string()).collect();
        let formats = match formats.is_empty() {
            true => "0".to_owned(),
            false => formats.join(" "),
        };
        // Writing to a String cannot fail.
        let _ = write!(text, "m={} {} RTP/AVP {formats}\r\n", line.kind, line.port);
        let _ = write!(text, "a=label:{}\r\n", label(index));
        if line.port == 0 {
            continue;
        }
        for payload in line.payloads.iter().filter(|one| !one.codec.is_empty()) {
            let _ = write!(
                text,
                "a=rtpmap:{} {}/{}",
                payload.pt, payload.codec, payload.clock_hz
            );
            if payload.channels > 1 {
                let _ = write!(text, "/{}", payload.channels);
            }
            text.push_str("\r\n");
            if !payload.fmtp.is_empty() {
                let _ = write!(text, "a=fmtp:{} {}\r\n", payload.pt, payload.fmtp);
            }
        }
        if line.ptime_ms > 0 {
            let _ = write!(text, "a=ptime:{}\r\n", line.ptime_ms);
        }
        text.push_str(if line.sends {
            "a=sendonly\r\n"
        } else {
            "a=inactive\r\n"
        });
    }
    text
}

/// What a recorder says of one m-line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Where it receives RTP; `None` = nowhere now.
    pub rtp: Option<SocketAddr>,
    /// Where it receives RTCP, where that is said.
    pub rtcp: Option<SocketAddr>,
    /// RTP and RTCP share a port.
    pub rtcp_mux: bool,
    /// It takes media now.
    pub receives: bool,
    /// Payload types as the call uses them, with those it wants to see.
    pub payloads: Vec<Payload>,
    /// Name of the codec in use.
    pub codec: Option<String>,
}

impl Accepted {
    /// A line that is refused.
    pub const fn nothing() -> Self {
        Self {
            rtp: None,
            rtcp: None,
            rtcp_mux: false,
            receives: false,
            payloads: Vec::new(),
            codec: None,
        }
    }
}

/// What a recorder's description says of our m-lines.
pub fn read(description: &Description, ours: &[Offered]) -> Vec<Accepted> {
    ours.iter()
        .enumerate()
        .map(|(index, offered)| {
            description
                .media
                .get(index)
                .filter(|media| media.kind == offered.kind && offered.port != 0)
                .map_or_else(Accepted::nothing, |media| accepted(media, offered))
        })
        .collect()
}

fn accepted(media: &Media, offered: &Offered) -> Accepted {
    if media.protocol != Protocol::Rtp || media.port == 0 {
        return Accepted::nothing();
    }
    let mut payloads = Vec::new();
    let mut codec = None;
    for ours in &offered.payloads {
        let same = |theirs: &&trunkline_sdp::PayloadType| {
            let unnamed = ours.codec.is_empty() && theirs.pt == ours.pt;
            unnamed
                || (theirs.name.eq_ignore_ascii_case(&ours.codec)
                    && theirs.clock_hz == ours.clock_hz
                    && theirs.channels == ours.channels.max(1))
        };
        let mut found = media.payloads.iter().filter(same);
        let theirs = found.clone().find(|theirs| theirs.pt == ours.pt);
        let Some(theirs) = theirs.or_else(|| found.next()) else {
            continue;
        };
        let kind = Codec::from_name(&ours.codec);
        if codec.is_none() && !matches!(kind, Codec::TelephoneEvent | Codec::ComfortNoise) {
            codec = Some(ours.codec.clone());
        }
        payloads.push(Payload {
            pt: ours.pt,
            to_pt: theirs.pt,
            codec: codec_id(kind),
            clock_hz: ours.clock_hz,
        });
    }
    Accepted {
        rtp: media.rtp_address().filter(|_| !payloads.is_empty()),
        rtcp: media.rtcp_address(),
        rtcp_mux: media.rtcp_mux,
        receives: media.direction().receives(),
        payloads,
        codec,
    }
}

fn codec_id(codec: Codec) -> CodecId {
    crate::call::negotiation::media::codec_id(codec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pcmu(pt: u8) -> PayloadFact {
        PayloadFact {
            pt,
            codec: "PCMU".to_owned(),
            clock_hz: 8000,
            channels: 1,
            fmtp: String::new(),
        }
    }

    fn offered() -> Vec<Offered> {
        let line = Offered {
            kind: "audio".to_owned(),
            port: 20_000,
            payloads: vec![pcmu(0)],
            ptime_ms: 20,
            sends: true,
        };
        vec![
            line.clone(),
            Offered {
                port: 20_002,
                ..line
            },
        ]
    }

    #[test]
    fn lines_have_labels_and_are_sendonly() {
        let text = body("192.0.2.1".parse().unwrap(), &offered());
        let parsed = Description::parse(format!("v=0\r\n{text}").as_bytes()).unwrap();
        assert_eq!(parsed.media.len(), 2);
        assert!(text.contains("a=label:1\r\n") && text.contains("a=label:2\r\n"));
        assert_eq!(text.matches("a=sendonly").count(), 2);
    }

    #[test]
    fn an_answer_with_other_numbers_is_mapped_and_missing_lines_are_refused() {
        let answer = "v=0\r\ns=-\r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\nm=audio 4000 RTP/AVP 97\r\n\
                      a=rtpmap:97 PCMU/8000\r\na=recvonly\r\n";
        let answer = Description::parse(answer.as_bytes()).unwrap();
        let said = read(&answer, &offered());
        assert_eq!((said[0].payloads[0].pt, said[0].payloads[0].to_pt), (0, 97));
        assert_eq!(said[0].rtp, Some("192.0.2.9:4000".parse().unwrap()));
        assert!(said[0].receives);
        assert_eq!(said[1], Accepted::nothing());
    }
}
