use std::net::{IpAddr, Ipv4Addr};

use super::{read, session};
use crate::{
    Description, Direction, MediaPlan, OriginState, Ours, RelayKind, Written, negotiated,
    write_answer, write_offer,
};

const OURS: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 5));

/// Plans and writes an offer with our ports from 20000 on, two a medium.
fn relay(offer: &Description) -> (Written, Vec<Option<u16>>) {
    let mut plan = MediaPlan::default();
    plan.update(offer);
    let ports = plan.ports(offer, &[20000, 20002, 20004, 20006]);
    let written = write_offer(
        offer,
        &Ours {
            address: OURS,
            ports: &ports,
            record: None,
        },
        &mut OriginState::new(77),
    );
    (written, ports)
}

fn answer_through(offer: &str, answer: &str) -> Written {
    let offer = read(&format!("{}{offer}", session("192.0.2.1")));
    let answer = read(&format!("{}{answer}", session("198.51.100.1")));
    let (_, ports) = relay(&offer);
    let ours = Ours {
        address: OURS,
        ports: &ports,
        record: None,
    };
    write_answer(&offer, &answer, &ours, &mut OriginState::new(78)).expect("an answer")
}

#[test]
fn an_offer_comes_out_as_ours() {
    let offer = read(
        "v=0\no=alice 2890844526 2890844526 IN IP4 host.secret.example\ns=Alice's phone\n\
         i=secret\nu=http://secret.example\ne=a@secret.example\nc=IN IP4 192.0.2.1\nb=AS:64\nt=1 2\n\
         a=tool:secret 1.0\na=group:BUNDLE 0\na=ice-ufrag:x\na=ice-lite\n\
         m=audio 49170 RTP/AVP 0 96 101\ni=title\nc=IN IP4 192.0.2.2\nb=TIAS:64000\nb=X-YZ:1\n\
         a=rtpmap:96 opus/48000/2\na=fmtp:96 useinbandfec=1\na=rtpmap:101 telephone-event/8000\n\
         a=fmtp:101 0-16\na=rtpmap:55 stray/8000\na=ptime:20\na=maxptime:60\na=mid:0\na=ssrc:1 cname:x\n\
         a=msid:a b\na=candidate:1 1 UDP 1 192.0.2.2 49170 typ host\na=end-of-candidates\n\
         a=fingerprint:sha-256 AA\na=setup:actpass\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:k\n\
         a=rtcp:49180 IN IP4 192.0.2.2\na=rtcp-mux\na=rtcp-rsize\na=extmap:1 urn:x\na=key-mgmt:mikey x\n\
         a=ice-pwd:y\na=curr:qos local none\na=X-nat:0\na=label:1\na=sendrecv\n",
    );
    let (written, _) = relay(&offer);
    let expected = [
        "v=0",
        "o=- 77 1 IN IP4 203.0.113.5",
        "s=-",
        "c=IN IP4 203.0.113.5",
        "b=AS:64",
        "t=0 0",
        "m=audio 20000 RTP/AVP 0 96 101",
        "b=TIAS:64000",
        "a=rtpmap:96 opus/48000/2",
        "a=fmtp:96 useinbandfec=1",
        "a=rtpmap:101 telephone-event/8000",
        "a=fmtp:101 0-16",
        "a=ptime:20",
        "a=maxptime:60",
        "a=label:1",
        "a=rtcp-mux",
        "a=sendrecv",
        "",
    ];
    assert_eq!(written.text, expected.join("\r\n"));
    assert!(written.lines[0].rtcp_mux);
}

#[test]
fn ipv6_is_written_as_such() {
    let offer = read(&format!("{}m=audio 4000 RTP/AVP 0\n", session("192.0.2.1")));
    let ours = Ours {
        address: "2001:db8::5".parse().expect("an address"),
        ports: &[Some(20000)],
        record: None,
    };
    let text = write_offer(&offer, &ours, &mut OriginState::new(1)).text;
    assert!(text.contains("o=- 1 1 IN IP6 2001:db8::5\r\n"), "{text}");
    assert!(text.contains("\r\nc=IN IP6 2001:db8::5\r\n"), "{text}");
}

#[test]
fn order_and_count_of_m_lines_stay_and_the_unsupported_get_port_0() {
    let offer = read(&format!(
        "{}m=application 4000 TCP/TLS/BFCP *\na=setup:active\nm=audio 4002 RTP/SAVP 0\n\
         a=crypto:1 x inline:y\nm=audio 4004 RTP/AVP 8\nm=video 4006 RTP/AVPF 96\n\
         a=rtpmap:96 H264/90000\na=rtcp-fb:* nack\na=rtcp-fb:96 nack pli\nm=image 4008 udptl t38\n\
         a=T38FaxVersion:0\na=t38faxUdpEC:t38UDPRedundancy\nm=message 4010 TCP/MSRP *\n\
         m=audio 0 RTP/AVP 0\n",
        session("192.0.2.1")
    ));
    let (written, _) = relay(&offer);
    let media: Vec<&str> = written
        .text
        .lines()
        .filter(|line| line.starts_with("m="))
        .collect();
    assert_eq!(
        media,
        [
            "m=application 0 TCP/TLS/BFCP *",
            "m=audio 0 RTP/SAVP 0",
            "m=audio 20000 RTP/AVP 8",
            "m=video 20002 RTP/AVPF 96",
            "m=image 20004 udptl t38",
            "m=message 0 TCP/MSRP *",
            "m=audio 0 RTP/AVP 0",
        ]
    );
    for kept in [
        "a=rtcp-fb:* nack",
        "a=rtcp-fb:96 nack pli",
        "a=T38FaxVersion:0",
        "a=t38faxUdpEC:t38UDPRedundancy",
    ] {
        assert!(written.text.contains(kept), "{kept}");
    }
    assert!(!written.text.contains("crypto") && !written.text.contains("setup"));
}

#[test]
fn of_twenty_m_lines_four_are_relayed_audio_first() {
    let mut text = session("192.0.2.1");
    (0..10).for_each(|n| text += &format!("m=video {} RTP/AVP 96\n", 4000 + 2 * n));
    (0..10).for_each(|n| text += &format!("m=audio {} RTP/AVP 0\n", 5000 + 2 * n));
    let offer = read(&text);
    let (written, ports) = relay(&offer);
    assert_eq!(written.lines.len(), 20);
    assert_eq!(read(&written.text).media.len(), 20);
    let relayed: Vec<usize> = (0..20).filter(|line| ports[*line].is_some()).collect();
    assert_eq!(relayed, [10, 11, 12, 13]);
}

#[test]
fn an_answer_comes_out_as_ours_with_the_offers_lines() {
    let written = answer_through(
        "m=audio 4000 RTP/AVP 0 8 101\na=rtpmap:101 telephone-event/8000\nm=video 4002 RTP/AVP 96\n\
         m=application 9 UDP/BFCP *\n",
        "m=audio 6000 RTP/AVP 8 101\na=rtpmap:101 telephone-event/8000\na=candidate:1\na=ptime:20\n\
         m=video 0 RTP/AVP 96\nm=application 6002 UDP/BFCP *\n",
    );
    let media: Vec<&str> = written
        .text
        .lines()
        .filter(|line| line.starts_with("m="))
        .collect();
    assert_eq!(
        media,
        [
            "m=audio 20000 RTP/AVP 8 101",
            "m=video 0 RTP/AVP 96",
            "m=application 0 UDP/BFCP *"
        ]
    );
    assert!(!written.text.contains("candidate"));
    assert!(written.text.contains("a=ptime:20\r\n"));
    assert!(!written.lines[0].rtcp_mux, "mux was not offered");
}

#[test]
fn rtcp_mux_is_settled_with_each_side_alone() {
    let written = answer_through(
        "m=audio 4000 RTP/AVP 0\na=rtcp-mux\n",
        "m=audio 6000 RTP/AVP 0\n",
    );
    assert!(
        written.lines[0].rtcp_mux,
        "the caller asked, we can, whatever the callee does"
    );
    let written = answer_through(
        "m=audio 4000 RTP/AVP 0\n",
        "m=audio 6000 RTP/AVP 0\na=rtcp-mux\n",
    );
    assert!(!written.lines[0].rtcp_mux, "an answer may not bring up mux");
}

#[test]
fn answers_that_do_not_fit_are_rejected_line_by_line() {
    let written = answer_through(
        "m=audio 4000 RTP/AVP 0\nm=video 4002 RTP/AVP 96\nm=image 4004 udptl t38\n",
        "m=audio 6000 RTP/AVP 0\nm=audio 6002 RTP/AVP 0\n",
    );
    let ports: Vec<u16> = written.lines.iter().map(|line| line.port).collect();
    assert_eq!(ports, [20000, 0, 0]);
    let offer = read(&format!("{}m=audio 4000 RTP/AVP 0\n", session("192.0.2.1")));
    let ours = Ours {
        address: OURS,
        ports: &[Some(20000)],
        record: None,
    };
    let empty = read("v=0\n");
    let error = write_answer(&offer, &empty, &ours, &mut OriginState::new(1)).expect_err("empty");
    assert_eq!(error.status(), 400);
}

#[test]
fn directions_cross_and_stay_within_the_offer() {
    use Direction::{Inactive, RecvOnly, SendOnly, SendRecv};
    for (offered, answered, told, first, second) in [
        ("sendrecv", "sendrecv", SendRecv, SendRecv, SendRecv),
        ("sendonly", "recvonly", RecvOnly, SendOnly, RecvOnly),
        ("sendonly", "sendrecv", RecvOnly, SendOnly, RecvOnly),
        ("sendonly", "sendonly", Inactive, Inactive, Inactive),
        ("recvonly", "sendonly", SendOnly, RecvOnly, SendOnly),
        ("sendrecv", "sendonly", SendOnly, RecvOnly, SendOnly),
        ("sendrecv", "inactive", Inactive, Inactive, Inactive),
        ("inactive", "sendrecv", Inactive, Inactive, Inactive),
    ] {
        let offer = format!("m=audio 4000 RTP/AVP 0\na={offered}\n");
        let answer = format!("m=audio 6000 RTP/AVP 0\na={answered}\n");
        let written = answer_through(&offer, &answer);
        assert_eq!(written.lines[0].direction, told, "{offered} {answered}");
        assert!(written.text.ends_with(&format!("a={}\r\n", told.name())));
        let offer = read(&format!("{}{offer}", session("192.0.2.1")));
        let answer = read(&format!("{}{answer}", session("192.0.2.1")));
        assert_eq!(
            negotiated(&offer.media[0], &answer.media[0]),
            (first, second),
            "{offered} {answered}"
        );
    }
}

#[test]
fn a_hold_by_address_is_told_as_a_direction() {
    let offer = read("v=0\nc=IN IP4 0.0.0.0\nm=audio 4000 RTP/AVP 0\n");
    let (written, _) = relay(&offer);
    assert!(written.text.contains("\r\nc=IN IP4 203.0.113.5\r\n"));
    assert!(written.text.ends_with("a=sendonly\r\n"), "{}", written.text);
    assert!(read(&written.text).is_held());
}

#[test]
fn the_version_rises_only_with_a_change() {
    let offer = |lines: &str| read(&format!("{}{lines}", session("192.0.2.1")));
    let ours = Ours {
        address: OURS,
        ports: &[Some(20000)],
        record: None,
    };
    let mut origin = OriginState::new(u64::MAX);
    assert!(origin.session_id() <= i64::MAX as u64);
    let plain = offer("m=audio 4000 RTP/AVP 0\n");
    let first = write_offer(&plain, &ours, &mut origin);
    let again = write_offer(&plain, &ours, &mut origin);
    assert_eq!(first, again);
    assert_eq!(origin.version(), 1);
    // The peer's own port and version are its affair: what we say stays the same.
    write_offer(&offer("m=audio 4444 RTP/AVP 0\n"), &ours, &mut origin);
    assert_eq!(origin.version(), 1);
    write_offer(
        &offer("m=audio 4000 RTP/AVP 0\na=sendonly\n"),
        &ours,
        &mut origin,
    );
    assert_eq!(origin.version(), 2);
    let back = write_offer(&plain, &ours, &mut origin);
    assert_eq!(origin.version(), 3);
    assert_ne!(back.text, first.text);
}

#[test]
fn the_plan_keeps_media_over_re_offers() {
    let offer = |lines: &str| read(&format!("{}{lines}", session("192.0.2.1")));
    let mut plan = MediaPlan::default();
    assert!(plan.update(&offer("m=audio 4000 RTP/AVP 0\n")));
    assert!(!plan.update(&offer("m=audio 4000 RTP/AVP 0\na=sendonly\n")));
    // Fax: audio disabled, an image line added; then back.
    let fax = offer("m=audio 0 RTP/AVP 0\nm=image 4002 udptl t38\n");
    assert!(plan.update(&fax));
    assert_eq!(plan.ports(&fax, &[20000, 20002]), [None, Some(20002)]);
    let back = offer("m=audio 4000 RTP/AVP 0\nm=image 0 udptl t38\n");
    assert!(!plan.update(&back));
    assert_eq!(plan.ports(&back, &[20000, 20002]), [Some(20000), None]);
    // An audio line that becomes an image line in place is another medium.
    let switched = offer("m=image 4000 udptl t38\n");
    assert!(plan.update(&switched));
    assert_eq!(plan.medium(0, RelayKind::OpaqueDatagram), Some(2));
    assert_eq!(plan.medium(0, RelayKind::Audio), Some(0));
    assert_eq!(plan.medium_of(&switched, 0), Some(2));
}

#[test]
fn more_payload_types_than_are_relayed_are_not_told() {
    let numbers: Vec<String> = (96..128).map(|n: u8| n.to_string()).collect();
    let maps: String = (96..128)
        .map(|n| format!("a=rtpmap:{n} X{n}/8000\n"))
        .collect();
    let text = format!(
        "{}m=audio 4000 RTP/AVP {}\n{maps}",
        session("192.0.2.1"),
        numbers.join(" ")
    );
    let (written, _) = relay(&read(&text));
    let told = read(&written.text);
    assert_eq!(told.media[0].payloads.len(), crate::limits::PAYLOADS_MAX);
    assert_eq!(
        written.text.matches("a=rtpmap").count(),
        crate::limits::PAYLOADS_MAX
    );
}
