//! The answer of a party that only receives: a recorder's (RFC 7866 section 7.1.2).

use crate::attribute::Direction;
use crate::description::{Description, Media, Protocol};
use crate::limits::PAYLOADS_MAX;
use crate::payload::{Codec, PayloadType};
use crate::write::{OriginState, Ours, Writer, Written, WrittenLine};

/// Answers an offer as one who receives what is sent and sends nothing: `recvonly`, or `inactive` where the
/// offerer does not send. m-lines keep order, count and `a=label`; those without a port of ours get port 0.
/// Of an audio line those payload types are taken whose codec is in `playable`, with telephone-event and
/// comfort noise; all of them where none is.
#[must_use]
pub fn write_received(
    offer: &Description,
    playable: &[Codec],
    ours: &Ours<'_>,
    origin: &mut OriginState,
) -> Written {
    let mut writer = Writer::bare(ours.address);
    for (index, media) in offer.media.iter().enumerate() {
        match ours.port(index).filter(|_| media.relay_kind().is_some()) {
            Some(port) => receive(&mut writer, media, port, playable),
            None => writer.rejected(media),
        }
    }
    writer.finish(ours, origin)
}

fn receive(writer: &mut Writer, media: &Media, port: u16, playable: &[Codec]) {
    let is_rtp = media.protocol == Protocol::Rtp;
    let payloads = taken(media, playable);
    let formats: Vec<String> = if is_rtp {
        payloads.iter().map(|one| one.pt.to_string()).collect()
    } else {
        media.formats.clone()
    };
    let (kind, protocol) = (&media.kind, &media.protocol_text);
    writer.line(
        'm',
        &format!("{kind} {port} {protocol} {}", formats.join(" ")),
    );
    for attribute in &media.attributes {
        let described = attribute.is("rtpmap") || attribute.is("fmtp");
        let number = attribute.payload_and_rest().map(|(pt, _)| pt);
        if described && payloads.iter().any(|one| Some(one.pt) == number) {
            let value = attribute.value.as_deref().unwrap_or_default();
            writer.line('a', &format!("{}:{value}", attribute.name));
        }
    }
    writer.repeat(media, &["ptime", "maxptime", "label", "mid"]);
    let direction = media.direction().reversed().and(Direction::RecvOnly);
    let rtcp_mux = media.rtcp_mux && is_rtp;
    if rtcp_mux {
        writer.line('a', "rtcp-mux");
    }
    if is_rtp {
        writer.line('a', direction.name());
    }
    writer.lines.push(WrittenLine {
        port,
        direction,
        rtcp_mux,
    });
}

fn taken<'a>(media: &'a Media, playable: &[Codec]) -> Vec<&'a PayloadType> {
    let plays = |one: &&PayloadType| playable.contains(&one.codec);
    let aside =
        |one: &&PayloadType| matches!(one.codec, Codec::TelephoneEvent | Codec::ComfortNoise);
    let all = media.payloads.iter().take(PAYLOADS_MAX);
    if media.kind == "audio" && media.payloads.iter().any(|one| plays(&one)) {
        all.filter(|one| plays(one) || aside(one)).collect()
    } else {
        all.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(offer: &str, ports: &[Option<u16>]) -> Written {
        let offer = Description::parse(offer.as_bytes()).unwrap();
        let ours = Ours {
            address: "192.0.2.9".parse().unwrap(),
            ports,
            record: None,
        };
        let playable = [Codec::Pcmu, Codec::Pcma];
        write_received(&offer, &playable, &ours, &mut OriginState::new(7))
    }

    const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
        m=audio 4000 RTP/AVP 97 8 101\r\na=rtpmap:97 AMR/8000\r\na=fmtp:97 octet-align=1\r\n\
        a=rtpmap:101 telephone-event/8000\r\na=ptime:20\r\na=sendonly\r\na=label:90000000000000001\r\n\
        m=audio 4002 RTP/AVP 97\r\na=rtpmap:97 AMR/8000\r\na=inactive\r\na=label:b\r\n\
        m=text 4004 TCP/MSRP *\r\na=label:c\r\n";

    #[test]
    fn labels_and_lines_are_kept_and_nothing_is_sent() {
        let written = answer(OFFER, &[Some(6000), Some(6002), None]);
        let lines: Vec<&str> = written.text.lines().skip(5).collect();
        assert_eq!(
            lines,
            [
                "m=audio 6000 RTP/AVP 8 101",
                "a=rtpmap:101 telephone-event/8000",
                "a=ptime:20",
                "a=label:90000000000000001",
                "a=recvonly",
                "m=audio 6002 RTP/AVP 97",
                "a=rtpmap:97 AMR/8000",
                "a=label:b",
                "a=inactive",
                "m=text 0 TCP/MSRP *",
                "a=label:c",
            ]
        );
    }

    #[test]
    fn a_sender_on_hold_by_the_old_way_is_still_received() {
        let offer = OFFER
            .replace("c=IN IP4 192.0.2.1", "c=IN IP4 0.0.0.0")
            .replace("a=sendonly", "a=sendrecv");
        let written = answer(&offer, &[Some(6000), Some(6002), None]);
        assert_eq!(written.lines[0].direction, Direction::RecvOnly);
    }
}
