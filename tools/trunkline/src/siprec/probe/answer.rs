//! A recorder's answer, held against our offer.

use super::offer::LABELS;
use crate::siprec::report::{Finding, Verdict};
use std::net::SocketAddr;
use trunkline_sdp::{Codec, Description, Direction, Media, Protocol};

/// Where the recorder takes a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) rtp: SocketAddr,
    /// 0 = PCMU, 8 = PCMA.
    pub(super) payload_type: u8,
    pub(super) receives: bool,
}

/// An answer judged.
#[derive(Debug)]
pub(super) struct Judged {
    /// Our lines that the recorder takes.
    pub(super) lines: [Option<Line>; 2],
    pub(super) findings: Vec<Finding>,
}

/// Judges the body of an answer to an offer that sends, or pauses.
pub(super) fn judge(content_type: &str, body: &[u8], sends: bool) -> Judged {
    let description = match describe(content_type, body) {
        Ok(description) => description,
        Err(why) => {
            return Judged {
                lines: [None; 2],
                findings: vec![Finding::new("sdp", Verdict::Fail, "RFC 3264 6", why)],
            };
        }
    };
    let media = &description.media;
    let mut findings = vec![lines(media), labels(media)];
    let taken: [Option<Line>; 2] = [0, 1].map(|place| media.get(place).and_then(line));
    findings.push(codecs(media));
    findings.push(directions(media, sends));
    findings.extend(addresses(&taken));
    Judged {
        lines: taken,
        findings,
    }
}

fn describe(content_type: &str, body: &[u8]) -> Result<Description, String> {
    let bodies = trunkline_siprec::multipart::read(content_type, body)
        .map_err(|error| format!("the answer's body: {error}"))?;
    let sdp = bodies.sdp.ok_or("the answer has no session description")?;
    Description::parse(&sdp).map_err(|error| format!("the answer's session description: {error}"))
}

fn lines(media: &[Media]) -> Finding {
    let find = |verdict, text: String| Finding::new("lines", verdict, "RFC 3264 6", text);
    let offered = LABELS.len();
    if media.len() != offered {
        let count = media.len();
        return find(Verdict::Fail, format!("{count} m-lines answer {offered}"));
    }
    let wrong = |one: &Media| one.kind != "audio" || one.protocol != Protocol::Rtp;
    if let Some(at) = media.iter().position(wrong) {
        let (kind, protocol) = (&media[at].kind, &media[at].protocol_text);
        let text = format!(
            "line {} of audio RTP/AVP is answered {kind} {protocol}",
            at + 1
        );
        return find(Verdict::Fail, text);
    }
    match media.iter().position(|one| one.port == 0) {
        Some(at) => find(
            Verdict::Fail,
            format!(
                "line {} is refused (port 0): that party is not recorded",
                at + 1
            ),
        ),
        None => find(Verdict::Pass, format!("all {offered} m-lines are taken")),
    }
}

fn labels(media: &[Media]) -> Finding {
    let find = |verdict, text: String| Finding::new("labels", verdict, "RFC 7866 7.1.1", text);
    let said: Vec<Option<&str>> = media.iter().map(label).collect();
    let given: Vec<&str> = said.iter().copied().flatten().collect();
    if given.is_empty() {
        return find(
            Verdict::Warn,
            "no label is in the answer: some clients need them there".to_owned(),
        );
    }
    let swapped = said.len() == 2 && said[0] == Some(LABELS[1]) && said[1] == Some(LABELS[0]);
    if swapped {
        return find(
            Verdict::Fail,
            format!(
                "swapped: the lines of labels {} and {} are answered {} and {}",
                LABELS[0], LABELS[1], LABELS[1], LABELS[0]
            ),
        );
    }
    for (place, ours) in LABELS.iter().enumerate() {
        match said.get(place).copied().flatten() {
            None => {
                return find(
                    Verdict::Warn,
                    format!("label {ours} is missing in the answer"),
                );
            }
            Some(theirs) if theirs != *ours => {
                return find(
                    Verdict::Fail,
                    format!("label {ours} is answered {theirs:?}"),
                );
            }
            Some(_) => {}
        }
    }
    find(
        Verdict::Pass,
        format!("labels {} come back in their places", LABELS.join(" and ")),
    )
}

fn label(media: &Media) -> Option<&str> {
    let found = media.attributes.iter().find(|one| one.is("label"))?;
    found.value.as_deref()
}

fn line(media: &Media) -> Option<Line> {
    if media.kind != "audio" || media.protocol != Protocol::Rtp {
        return None;
    }
    let payload_type = payload_type(media)?;
    Some(Line {
        rtp: media.rtp_address()?,
        payload_type,
        receives: media.direction().receives(),
    })
}

/// The recorder's first choice of those that we offered.
fn payload_type(media: &Media) -> Option<u8> {
    let ours = |pt: u8, codec: Codec| matches!((pt, codec), (0, Codec::Pcmu) | (8, Codec::Pcma));
    let mut payloads = media.payloads.iter();
    payloads
        .find(|one| ours(one.pt, one.codec))
        .map(|one| one.pt)
}

fn codecs(media: &[Media]) -> Finding {
    let find = |verdict, text: String| Finding::new("codecs", verdict, "RFC 3264 6.1", text);
    for (place, one) in media.iter().enumerate().filter(|(_, one)| one.port != 0) {
        if payload_type(one).is_none() {
            let formats = one.formats.join(" ");
            let text = format!(
                "line {}: none of PCMU (0), PCMA (8) in {formats:?}",
                place + 1
            );
            return find(Verdict::Fail, text);
        }
    }
    let names: Vec<&str> = media
        .iter()
        .map(|one| match payload_type(one) {
            Some(0) => "PCMU",
            Some(_) => "PCMA",
            None => "none",
        })
        .collect();
    find(Verdict::Pass, names.join(", "))
}

fn directions(media: &[Media], sends: bool) -> Finding {
    let find = |verdict, text: String| Finding::new("direction", verdict, "RFC 7866 7.2", text);
    let mut gravest = find(
        Verdict::Pass,
        if sends { "recvonly" } else { "inactive" }.to_owned(),
    );
    for (place, one) in media.iter().enumerate().filter(|(_, one)| one.port != 0) {
        let number = place + 1;
        let judged = match (sends, one.direction()) {
            (true, Direction::RecvOnly) | (false, Direction::Inactive) => continue,
            (true, Direction::Inactive) => find(
                Verdict::Warn,
                format!("line {number} is inactive: it takes nothing yet"),
            ),
            (true, other) => find(
                Verdict::Fail,
                format!(
                    "line {number} is {}, where sendonly is answered recvonly",
                    other.name()
                ),
            ),
            (false, other) => find(
                Verdict::Fail,
                format!(
                    "line {number} is {}, where inactive is answered inactive",
                    other.name()
                ),
            ),
        };
        if judged.verdict > gravest.verdict {
            gravest = judged;
        }
    }
    gravest
}

fn addresses(taken: &[Option<Line>; 2]) -> Option<Finding> {
    let find = |verdict, text: String| Finding::new("ports", verdict, "RFC 3264 6", text);
    let [Some(one), Some(two)] = taken else {
        return None;
    };
    Some(if one.rtp == two.rtp {
        let text = format!(
            "both lines lead to {}: the parties cannot be told apart",
            one.rtp
        );
        find(Verdict::Fail, text)
    } else {
        find(Verdict::Pass, format!("{} and {}", one.rtp, two.rtp))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(first: &str, second: &str) -> String {
        format!(
            "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
             m=audio {first}\r\nm=audio {second}\r\n"
        )
    }

    fn found(body: &str, sends: bool, step: &str) -> (Verdict, String) {
        let judged = judge("application/sdp", body.as_bytes(), sends);
        let one = judged.findings.iter().find(|one| one.step == step);
        let one = one.unwrap_or_else(|| panic!("no {step}: {judged:?}"));
        (one.verdict, one.text.clone())
    }

    const GOOD: [&str; 2] = [
        "4000 RTP/AVP 0\r\na=label:1\r\na=recvonly",
        "4002 RTP/AVP 8 0\r\na=label:2\r\na=recvonly",
    ];

    #[test]
    fn a_good_answer_passes_and_tells_where_to_send() {
        let body = answer(GOOD[0], GOOD[1]);
        let judged = judge("application/sdp", body.as_bytes(), true);
        let all = judged
            .findings
            .iter()
            .all(|one| one.verdict == Verdict::Pass);
        assert!(all && judged.findings.len() == 5, "{judged:?}");
        let [one, two] = judged.lines.map(Option::unwrap);
        assert_eq!(
            (one.rtp, one.payload_type),
            ("192.0.2.1:4000".parse().unwrap(), 0)
        );
        assert_eq!(
            (two.rtp, two.payload_type),
            ("192.0.2.1:4002".parse().unwrap(), 8)
        );
    }

    #[test]
    fn labels_swapped_missing_or_foreign_are_told_apart() {
        let [one, two] = GOOD;
        let swapped = answer(
            &one.replace("label:1", "label:2"),
            &two.replace("label:2", "label:1"),
        );
        let (verdict, text) = found(&swapped, true, "labels");
        assert_eq!(verdict, Verdict::Fail);
        assert!(text.starts_with("swapped"), "{text}");
        let none = answer(
            "4000 RTP/AVP 0\r\na=recvonly",
            "4002 RTP/AVP 0\r\na=recvonly",
        );
        assert_eq!(found(&none, true, "labels").0, Verdict::Warn);
        let half = answer(one, "4002 RTP/AVP 0\r\na=recvonly");
        assert_eq!(found(&half, true, "labels").0, Verdict::Warn);
        let foreign = answer(one, &two.replace("label:2", "label:7"));
        assert_eq!(found(&foreign, true, "labels").0, Verdict::Fail);
    }

    #[test]
    fn refused_lines_directions_and_codecs_are_named() {
        let [one, two] = GOOD;
        assert_eq!(
            found(&answer(one, &two.replace("4002", "0")), true, "lines").0,
            Verdict::Fail
        );
        let more = answer(one, two) + "m=audio 4004 RTP/AVP 0\r\n";
        assert_eq!(found(&more, true, "lines").0, Verdict::Fail);
        let later = answer(one, &two.replace("recvonly", "inactive"));
        assert_eq!(found(&later, true, "direction").0, Verdict::Warn);
        assert_eq!(
            found(&answer(one, two), false, "direction").0,
            Verdict::Fail
        );
        let both = answer(&one.replace("recvonly", "sendrecv"), two);
        assert_eq!(found(&both, true, "direction").0, Verdict::Fail);
        let opus = answer(
            one,
            "4002 RTP/AVP 96\r\na=rtpmap:96 opus/48000/2\r\na=label:2\r\na=recvonly",
        );
        assert_eq!(found(&opus, true, "codecs").0, Verdict::Fail);
        let same = answer(one, &two.replace("4002", "4000"));
        assert_eq!(found(&same, true, "ports").0, Verdict::Fail);
    }

    #[test]
    fn no_description_is_a_failure_of_its_own() {
        for body in ["", "hello", "v=0\r\nm=audio x\r\n"] {
            assert_eq!(found(body, true, "sdp").0, Verdict::Fail, "{body}");
        }
    }
}
