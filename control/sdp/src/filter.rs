//! Which audio codecs cross: those of a list, with what goes beside any of them.

use crate::description::{Description, Protocol};
use crate::payload::Codec;
use crate::{Refusal, SdpError};

/// A description in which audio m-lines name only these codecs (encoding names, any case).
/// telephone-event and comfort noise stay; a line without any of them is disabled (port 0). An
/// empty list changes nothing.
///
/// # Errors
/// The description cannot be read, or no audio line in use is left.
pub fn keep_codecs(body: &[u8], codecs: &[String]) -> Result<Vec<u8>, SdpError> {
    let description = Description::parse(body)?;
    let in_use = |media: &&crate::Media| {
        media.kind == "audio" && media.protocol == Protocol::Rtp && media.port != 0
    };
    if codecs.is_empty() || !description.media.iter().any(|media| in_use(&media)) {
        return Ok(body.to_vec());
    }
    let mut kept_any = false;
    let mut text = Vec::with_capacity(body.len());
    let mut lines = description.media.iter();
    for line in body.split_inclusive(|byte| *byte == b'\n') {
        let media = line.starts_with(b"m=").then(|| lines.next()).flatten();
        let Some(media) = media.filter(in_use) else {
            text.extend_from_slice(line);
            continue;
        };
        let named = |name: &str| codecs.iter().any(|codec| codec.eq_ignore_ascii_case(name));
        let beside = |codec| matches!(codec, Codec::TelephoneEvent | Codec::ComfortNoise);
        let kept: Vec<String> = media
            .payloads
            .iter()
            .filter(|one| named(&one.name) || beside(one.codec))
            .map(|one| one.pt.to_string())
            .collect();
        let voice = media.payloads.iter().any(|one| named(&one.name));
        kept_any |= voice;
        let (port, formats) = match voice {
            true => (media.port, kept),
            false => (0, media.formats.clone()),
        };
        let formats = formats.join(" ");
        text.extend_from_slice(
            format!("m=audio {port} {} {formats}\r\n", media.protocol_text).as_bytes(),
        );
    }
    if !kept_any {
        return Err(SdpError::Refused(Refusal::Codec));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
        m=audio 4000 RTP/AVP 0 8 96 101\r\na=rtpmap:96 opus/48000/2\r\n\
        a=rtpmap:101 telephone-event/8000\r\nm=video 4002 RTP/AVP 97\r\na=rtpmap:97 H264/90000\r\n";

    fn kept(codecs: &[&str]) -> Result<String, SdpError> {
        let codecs: Vec<String> = codecs.iter().map(ToString::to_string).collect();
        keep_codecs(OFFER.as_bytes(), &codecs).map(|text| String::from_utf8(text).unwrap())
    }

    #[test]
    fn only_named_codecs_stay_and_digits_stay_with_them() {
        let text = kept(&["pcma", "OPUS"]).unwrap();
        assert!(text.contains("m=audio 4000 RTP/AVP 8 96 101\r\n"), "{text}");
        assert!(text.contains("m=video 4002 RTP/AVP 97\r\n"), "{text}");
        assert_eq!(kept(&[]).unwrap(), OFFER);
    }

    #[test]
    fn an_offer_without_any_of_them_is_not_acceptable() {
        assert_eq!(kept(&["G722"]).unwrap_err().status(), 488);
    }
}
