use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;

use crate::{
    Change, Description, MediaPlan, Occasion, OriginState, Ours, compare, judge_offer, limits,
    negotiated, sendable, write_answer, write_offer,
};

const OURS: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 5));

/// Lines that peers send, and some that they should not.
fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("a=sendonly".to_owned()),
        Just("a=inactive".to_owned()),
        Just("a=recvonly".to_owned()),
        Just("a=rtcp-mux".to_owned()),
        Just("c=IN IP4 0.0.0.0".to_owned()),
        Just("c=IN IP6 2001:db8::9".to_owned()),
        Just("c=IN IP4 198.51.100.7".to_owned()),
        (0u8..=130, "[A-Za-z0-9-]{0,8}", 0u32..100_000)
            .prop_map(|(pt, name, clock)| format!("a=rtpmap:{pt} {name}/{clock}")),
        (0u8..=130, "[ -~]{0,12}").prop_map(|(pt, text)| format!("a=fmtp:{pt} {text}")),
        "a=(candidate|crypto|ssrc|ice-ufrag|fingerprint|mid|rtcp|msid):[ -~]{0,20}",
        "b=(AS|TIAS|X):[0-9]{0,5}",
        "[a-z]=[ -~]{0,20}",
    ]
}

fn media_line() -> impl Strategy<Value = String> {
    let kinds = prop::sample::select(vec!["audio", "video", "image", "application", "text"]);
    let protocols = prop::sample::select(vec![
        "RTP/AVP",
        "RTP/AVPF",
        "RTP/SAVP",
        "UDP/TLS/RTP/SAVPF",
        "udptl",
        "TCP/MSRP",
    ]);
    let formats = prop::collection::vec(0u8..=130, 1..6);
    (
        kinds,
        prop_oneof![Just(0u16), 1024u16..],
        protocols,
        formats,
    )
        .prop_map(|(kind, port, protocol, formats)| {
            let formats: Vec<String> = formats.iter().map(u8::to_string).collect();
            format!("m={kind} {port} {protocol} {}", formats.join(" "))
        })
}

fn body() -> impl Strategy<Value = String> {
    let section = (media_line(), prop::collection::vec(line(), 0..8))
        .prop_map(|(media, lines)| [vec![media], lines].concat().join("\r\n"));
    prop::collection::vec(section, 0..8).prop_map(|sections| {
        let head = "v=0\r\no=a 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n";
        format!("{head}{}\r\n", sections.join("\r\n"))
    })
}

/// Must never cross, whatever is sent to us.
fn leaks(text: &str) -> bool {
    let secrets = [
        "candidate",
        "crypto",
        "ssrc",
        "ice-",
        "fingerprint",
        "a=mid",
        "a=rtcp:",
        "msid",
        "192.0.2.",
        "198.51.100",
        "2001:db8",
    ];
    // Codec parameters and names are random text here and do cross.
    let random = |line: &str| line.starts_with("a=fmtp:") || line.starts_with("a=rtpmap:");
    text.lines()
        .filter(|line| !random(line))
        .any(|line| secrets.iter().any(|secret| line.contains(secret)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Description::parse(&bytes);
        let mut framed = b"v=0\nc=IN IP4 192.0.2.1\nm=audio 4000 RTP/AVP 0\n".to_vec();
        framed.extend_from_slice(&bytes);
        let _ = Description::parse(&framed);
    }

    #[test]
    fn what_we_write_is_sound(text in body(), cut in 0usize..2000) {
        // Cut bodies either fail to parse or are handled like any other.
        let cut = &text.as_bytes()[..cut.min(text.len())];
        for bytes in [text.as_bytes(), cut] {
            let Ok(offer) = Description::parse(bytes) else { continue };
            let _ = judge_offer(&offer, Occasion::First);
            let mut plan = MediaPlan::default();
            plan.update(&offer);
            prop_assert!(plan.media().len() <= limits::RELAYED_MAX);
            let ports = plan.ports(&offer, &[20000, 20002, 20004, 20006]);
            let ours = Ours { address: OURS, ports: &ports, record: None };
            let mut origin = OriginState::new(9);
            let written = write_offer(&offer, &ours, &mut origin);
            prop_assert!(!leaks(&written.text), "{}", written.text);
            // A second, strict reader takes it too.
            let strict = sdp_types::Session::parse(written.text.as_bytes());
            prop_assert!(strict.is_ok(), "{:?}\n{}", strict.err(), written.text);
            let ours_again = Description::parse(written.text.as_bytes()).expect("our own text");
            prop_assert_eq!(ours_again.media.len(), offer.media.len());
            for (index, media) in ours_again.media.iter().enumerate() {
                prop_assert_eq!(media.port, ports[index].unwrap_or(0));
                prop_assert_eq!(&media.kind, &offer.media[index].kind);
                prop_assert_eq!(&media.protocol_text, &offer.media[index].protocol_text);
                if media.port != 0 {
                    prop_assert_eq!(media.direction().receives() || media.kind == "image" ||
                        media.protocol == crate::Protocol::Udptl,
                        offer.media[index].direction().receives() || media.kind == "image" ||
                        media.protocol == crate::Protocol::Udptl);
                }
            }
            // Writing what we wrote changes nothing but the origin's id.
            let twice = write_offer(&ours_again, &ours, &mut OriginState::new(9));
            prop_assert_eq!(&twice.text, &written.text);
            prop_assert_eq!(compare(&offer, &Description::parse(bytes).expect("again")), Change::None);
        }
    }

    #[test]
    fn answers_always_match_their_offer(offer in body(), answer in body()) {
        let (Ok(offer), Ok(answer)) =
            (Description::parse(offer.as_bytes()), Description::parse(answer.as_bytes())) else {
            return Ok(());
        };
        let mut plan = MediaPlan::default();
        plan.update(&offer);
        let ports = plan.ports(&offer, &[20000, 20002, 20004, 20006]);
        let ours = Ours { address: OURS, ports: &ports, record: None };
        let Ok(written) = write_answer(&offer, &answer, &ours, &mut OriginState::new(9)) else {
            prop_assert!(answer.media.is_empty());
            return Ok(());
        };
        let told = Description::parse(written.text.as_bytes()).expect("our own text");
        prop_assert_eq!(told.media.len(), offer.media.len());
        for (index, media) in told.media.iter().enumerate() {
            prop_assert_eq!(&media.protocol_text, &offer.media[index].protocol_text);
            if offer.media[index].port == 0 {
                prop_assert_eq!(media.port, 0);
            }
            if let Some(said) = answer.media.get(index) {
                let (first, second) = negotiated(&offer.media[index], said);
                prop_assert_eq!(first.sends(), second.receives());
                prop_assert_eq!(first.receives(), second.sends());
                let list = sendable(Some(&offer.media[index]), Some(said));
                prop_assert!(list.len() <= limits::PAYLOADS_MAX);
                let mut numbers: Vec<u8> = list.iter().map(|entry| entry.pt).collect();
                numbers.sort_unstable();
                numbers.dedup();
                prop_assert_eq!(numbers.len(), list.len(), "each number once");
                let accepted = |pt: u8| said.payloads.iter().any(|payload| payload.pt == pt);
                prop_assert!(list.iter().all(|entry| entry.pt < 128 && accepted(entry.to_pt)));
            }
        }
    }
}
