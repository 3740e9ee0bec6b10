use std::net::SocketAddr;

use super::{read, session};
use crate::{
    Change, Codec, Connection, Description, Direction, Occasion, Protocol, Refusal, SdpError,
    compare, judge_offer,
};

fn socket(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

#[test]
fn an_ordinary_offer_is_read() {
    let offer = read(&format!(
        "{}m=audio 49170 RTP/AVP 0 8 96 101\na=rtpmap:96 opus/48000/2\na=fmtp:96 useinbandfec=1\n\
         a=rtpmap:101 telephone-event/8000\na=fmtp:101 0-15\na=ptime:20\na=maxptime:150\n",
        session("192.0.2.1")
    ));
    let audio = &offer.media[0];
    assert_eq!(audio.rtp_address(), Some(socket("192.0.2.1:49170")));
    assert_eq!(audio.rtcp_address(), None);
    assert_eq!(audio.direction(), Direction::SendRecv);
    assert_eq!((audio.ptime_ms, audio.maxptime_ms), (Some(20), Some(150)));
    assert_eq!(audio.telephone_event(8000), Some(101));
    assert_eq!(audio.telephone_event(48000), None);
    let seen: Vec<_> = audio
        .payloads
        .iter()
        .map(|p| (p.pt, p.codec, p.clock_hz, p.channels, p.fmtp.as_str()))
        .collect();
    assert_eq!(
        seen,
        [
            (0, Codec::Pcmu, 8000, 1, ""),
            (8, Codec::Pcma, 8000, 1, ""),
            (96, Codec::Opus, 48000, 2, "useinbandfec=1"),
            (101, Codec::TelephoneEvent, 8000, 1, "0-15"),
        ]
    );
    assert_eq!(judge_offer(&offer, Occasion::First), Ok(()));
}

#[test]
fn static_types_need_no_rtpmap_and_a_given_one_wins() {
    let offer = read(&format!(
        "{}m=audio 4000 RTP/AVP 0 3 8 9 10 11 13 18 97\n\
         a=rtpmap:9 G722/8000\na=rtpmap:8 pcma/8000/1\na=rtpmap:11 X-odd/16000\n",
        session("192.0.2.1")
    ));
    let seen: Vec<_> = offer.media[0]
        .payloads
        .iter()
        .map(|p| (p.pt, p.codec, p.name.as_str(), p.clock_hz, p.channels))
        .collect();
    assert_eq!(
        seen,
        [
            (0, Codec::Pcmu, "PCMU", 8000, 1),
            (3, Codec::Gsm, "GSM", 8000, 1),
            (8, Codec::Pcma, "pcma", 8000, 1),
            (9, Codec::G722, "G722", 8000, 1),
            (10, Codec::L16, "L16", 44100, 2),
            (11, Codec::Other, "X-odd", 16000, 1),
            (13, Codec::ComfortNoise, "CN", 8000, 1),
            (18, Codec::G729, "G729", 8000, 1),
            (97, Codec::Other, "", 8000, 1),
        ]
    );
}

#[test]
fn the_m_lines_own_address_wins_over_the_sessions() {
    let offer = read(&format!(
        "{}m=audio 4000 RTP/AVP 0\nc=IN IP4 198.51.100.7\nm=video 4002 RTP/AVP 96\n",
        session("192.0.2.1")
    ));
    assert_eq!(
        offer.media[0].rtp_address(),
        Some(socket("198.51.100.7:4000"))
    );
    assert_eq!(offer.media[1].rtp_address(), Some(socket("192.0.2.1:4002")));
}

#[test]
fn ipv6_brackets_and_mapped_addresses_are_read() {
    let offer = read(
        "v=0\ns=-\nc=IN IP6 2001:db8::1\nm=audio 4000 RTP/AVP 0\nm=audio 4002 RTP/AVP 0\n\
         c=IN IP6 [2001:db8::2]\nm=audio 4004 RTP/AVP 0\nc=IN IP6 ::ffff:192.0.2.9\n",
    );
    let seen: Vec<_> = offer
        .media
        .iter()
        .map(|media| media.rtp_address())
        .collect();
    assert_eq!(
        seen,
        [
            Some(socket("[2001:db8::1]:4000")),
            Some(socket("[2001:db8::2]:4002")),
            Some(socket("192.0.2.9:4004"))
        ]
    );
}

#[test]
fn rtcp_may_have_its_own_port_and_address() {
    let offer = read(&format!(
        "{}m=audio 4000 RTP/AVP 0\na=rtcp:5001\nm=audio 4002 RTP/AVP 0\n\
         a=rtcp:5003 IN IP4 198.51.100.3\na=rtcp-mux\n",
        session("192.0.2.1")
    ));
    assert_eq!(
        offer.media[0].rtcp_address(),
        Some(socket("192.0.2.1:5001"))
    );
    assert!(!offer.media[0].rtcp_mux);
    assert_eq!(
        offer.media[1].rtcp_address(),
        Some(socket("198.51.100.3:5003"))
    );
    assert!(offer.media[1].rtcp_mux);
}

#[test]
fn every_line_ending_and_missing_lines_are_tolerated() {
    for ending in ["\r\n", "\n", "\r"] {
        let text = [
            "v=0",
            "c=IN IP4 192.0.2.1",
            "",
            "junk",
            "m=audio 4000 RTP/AVP 0",
            "a=sendonly",
        ]
        .join(ending);
        let offer = read(&text);
        assert_eq!(offer.media.len(), 1, "{ending:?}");
        assert_eq!(
            offer.media[0].direction(),
            Direction::SendOnly,
            "{ending:?}"
        );
        assert_eq!(offer.origin, None);
    }
    // Leading blank lines, a byte order mark, blanks around the sign, no final line end.
    read("\r\n v=0\nc=IN IP4 192.0.2.1\n m = audio 4000 RTP/AVP 0");
    read("\u{feff}v=0\nc=IN IP4 192.0.2.1\nm=audio 4000 RTP/AVP 0");
}

#[test]
fn bytes_that_are_not_utf8_do_not_hide_the_media() {
    let offer = Description::parse(
        b"v=0\r\no=J\xf6rg 1 1 IN IP4 192.0.2.1\r\ns=caf\xe9\r\nc=IN IP4 192.0.2.1\r\n\
          m=audio 4000 RTP/AVP 0\r\na=fmtp:0 \xff\xfe\r\n",
    )
    .expect("readable");
    assert_eq!(offer.media[0].rtp_address(), Some(socket("192.0.2.1:4000")));
}

#[test]
fn a_host_name_is_neither_an_address_nor_a_hold() {
    let offer = read("v=0\nc=IN IP4 media.example.com\nm=audio 4000 RTP/AVP 0\n");
    let audio = &offer.media[0];
    assert_eq!(
        audio.connection,
        Some(Connection::Name("media.example.com".to_owned()))
    );
    assert_eq!(audio.rtp_address(), None);
    assert!(!audio.is_held());
}

#[test]
fn hold_is_judged_per_m_line_by_direction_and_by_address() {
    for (lines, held) in [
        ("m=audio 4000 RTP/AVP 0\n", false),
        ("m=audio 4000 RTP/AVP 0\na=sendrecv\n", false),
        ("m=audio 4000 RTP/AVP 0\na=recvonly\n", false),
        ("m=audio 4000 RTP/AVP 0\na=sendonly\n", true),
        ("m=audio 4000 RTP/AVP 0\na=inactive\n", true),
        ("m=audio 4000 RTP/AVP 0\nc=IN IP4 0.0.0.0\n", true),
        ("m=audio 4000 RTP/AVP 0\nc=IN IP6 ::\n", true),
        ("a=sendonly\nm=audio 4000 RTP/AVP 0\n", true),
        ("a=inactive\nm=audio 4000 RTP/AVP 0\na=sendrecv\n", false),
        (
            "m=audio 4000 RTP/AVP 0\na=inactive\nm=audio 4002 RTP/AVP 0\n",
            false,
        ),
        (
            "m=audio 4000 RTP/AVP 0\na=sendonly\nm=video 4002 RTP/AVP 96\n",
            true,
        ),
        ("m=audio 0 RTP/AVP 0\na=sendonly\n", false),
        ("m=audio 4000 RTP/AVP 0\na=inactive-looking\n", false),
        ("m=audio 4000 RTP/AVP 0\na=x-mode:inactive\n", false),
    ] {
        let description = read(&format!("{}{lines}", session("192.0.2.1")));
        assert_eq!(description.is_held(), held, "{lines}");
    }
    let zero = read("v=0\nc=IN IP4 0.0.0.0\nm=audio 4000 RTP/AVP 0\n");
    assert!(zero.is_held());
    assert_eq!(zero.media[0].direction(), Direction::SendOnly);
    assert_eq!(zero.media[0].rtp_address(), None);
}

#[test]
fn offers_without_usable_audio_are_488() {
    let refused = |reason| Err(SdpError::Refused(reason));
    for (lines, expected) in [
        ("", Err(SdpError::NoAudio)),
        ("m=video 4000 RTP/AVP 96\n", Err(SdpError::NoAudio)),
        ("m=application 4000 UDP/BFCP *\n", Err(SdpError::NoAudio)),
        ("m=audio 0 RTP/AVP 0\n", Err(SdpError::NoAudio)),
        ("m=audio 4000 RTP/SAVP 0\n", refused(Refusal::SecureRtp)),
        (
            "m=audio 4000 UDP/TLS/RTP/SAVPF 0\n",
            refused(Refusal::SecureRtp),
        ),
        ("m=audio 4000 TCP/RTP/AVP 0\n", refused(Refusal::Transport)),
        ("m=audio 4000 RTP/AVP x\n", refused(Refusal::NoPayloads)),
        ("m=audio 4000 RTP/AVP 200\n", refused(Refusal::NoPayloads)),
        (
            "m=audio 4000 RTP/AVP 0\nc=IN IP4 224.2.1.1/127/3\n",
            refused(Refusal::Multicast),
        ),
        ("m=audio 4000 RTP/SAVP 0\nm=audio 4002 RTP/AVP 0\n", Ok(())),
        ("m=image 4000 udptl t38\n", Ok(())),
        ("m=audio 4000 RTP/AVP 0\na=inactive\n", Ok(())),
    ] {
        let offer = read(&format!("{}{lines}", session("192.0.2.1")));
        let verdict = judge_offer(&offer, Occasion::First);
        assert_eq!(verdict, expected, "{lines}");
        if let Err(error) = verdict {
            assert_eq!(error.status(), 488);
        }
    }
}

#[test]
fn a_re_offer_may_disable_what_it_likes() {
    for (lines, acceptable) in [
        ("m=audio 0 RTP/AVP 0\n", true),
        ("m=audio 0 RTP/AVP 0\nm=image 4000 udptl t38\n", true),
        ("m=audio 0 RTP/AVP 0\nm=video 4000 RTP/AVP 96\n", true),
        ("m=audio 4000 RTP/SAVP 0\n", false),
    ] {
        let offer = read(&format!("{}{lines}", session("192.0.2.1")));
        assert_eq!(
            judge_offer(&offer, Occasion::Later).is_ok(),
            acceptable,
            "{lines}"
        );
    }
}

#[test]
fn broken_bodies_are_400_and_say_where() {
    let head = "v=0\nc=IN IP4 192.0.2.1\n";
    for (text, expected) in [
        (String::new(), SdpError::Empty),
        ("\r\n \0\r\n".to_owned(), SdpError::Empty),
        ("hello".to_owned(), SdpError::NotSdp),
        ("v=1\nm=audio 1 RTP/AVP 0\n".to_owned(), SdpError::NotSdp),
        ("m=audio 4000 RTP/AVP 0\n".to_owned(), SdpError::NotSdp),
        (
            "v=0\nm=audio 4000 RTP/AVP 0\n".to_owned(),
            SdpError::NoConnection { index: 0 },
        ),
    ] {
        let error = Description::parse(text.as_bytes()).expect_err(&text);
        assert_eq!(error, expected, "{text:?}");
        assert_eq!(error.status(), 400);
    }
    for bad in [
        "m=audio 65536 RTP/AVP 0",
        "m=audio -1 RTP/AVP 0",
        "m=audio x RTP/AVP 0",
        "m=audio 4000 RTP/AVP",
        "m=audio 4000",
        "m=audio",
        "m=",
        "c=IN IP4",
        "c=IN IP4 300.1.1.1",
        "c=IN IP5 1.1.1.1",
        "c=ATM NSAP 1",
        "c=",
    ] {
        let error = Description::parse(format!("{head}{bad}\n").as_bytes()).expect_err(bad);
        assert!(
            matches!(error, SdpError::Malformed { line: 3, .. }),
            "{bad}: {error:?}"
        );
        assert_eq!(error.status(), 400);
    }
    // A disabled line needs no address.
    read("v=0\nm=audio 0 RTP/AVP 0\n");
}

#[test]
fn twenty_m_lines_are_read_and_absurd_numbers_refused() {
    let lines = |count: usize| {
        let mut text = session("192.0.2.1");
        (0..count).for_each(|n| text += &format!("m=audio {} RTP/AVP 0\n", 4000 + 2 * n));
        text
    };
    assert_eq!(read(&lines(20)).media.len(), 20);
    let error = Description::parse(lines(65).as_bytes()).expect_err("too many");
    assert_eq!(
        (error.clone(), error.status()),
        (SdpError::TooManyLines, 488)
    );
    let flood = format!("{}{}", session("192.0.2.1"), "a=x\n".repeat(5000));
    assert_eq!(
        Description::parse(flood.as_bytes()),
        Err(SdpError::TooLarge)
    );
    assert_eq!(
        Description::parse(&vec![b'v'; 70_000]),
        Err(SdpError::TooLarge)
    );
}

#[test]
fn transports_are_told_apart() {
    for (text, expected) in [
        ("RTP/AVP", Protocol::Rtp),
        ("rtp/avpf", Protocol::Rtp),
        ("RTP/SAVP", Protocol::Srtp),
        ("UDP/TLS/RTP/SAVP", Protocol::Srtp),
        ("udptl", Protocol::Udptl),
        ("UDPTL", Protocol::Udptl),
        ("TCP/MSRP", Protocol::Other),
    ] {
        let offer = read(&format!("{}m=audio 4000 {text} 0\n", session("192.0.2.1")));
        assert_eq!(offer.media[0].protocol, expected, "{text}");
    }
}

#[test]
fn a_refresh_is_told_from_a_change() {
    let text = |version: u32, port: u16| {
        format!(
            "v=0\no=a 7 {version} IN IP4 192.0.2.1\nc=IN IP4 192.0.2.1\nm=audio {port} RTP/AVP 0\n"
        )
    };
    let first = read(&text(1, 4000));
    assert_eq!(
        compare(&first, &read(&text(1, 4000).replace('\n', "\r\n"))),
        Change::None
    );
    assert_eq!(compare(&first, &read(&text(2, 4000))), Change::OriginOnly);
    assert_eq!(compare(&first, &read(&text(2, 4002))), Change::Media);
    // An unchanged o= over changed media is a change all the same.
    assert_eq!(compare(&first, &read(&text(1, 4002))), Change::Media);
    assert_eq!(
        compare(&first, &read(&(text(1, 4000) + "a=sendonly\n"))),
        Change::Media
    );
}
