//! RTP packets: examples by hand, and bytes that nobody promised anything about.

use proptest::prelude::*;
use trunkline_rtp::{
    HeaderMut, Multiplexed, RtpError, RtpHeader, RtpPacket, TelephoneEvent, demultiplex,
};

/// Everything a packet may have: one CSRC, a two-word extension, payload `abc`, padding of 4.
fn full() -> Vec<u8> {
    let mut bytes = vec![
        0xb1,
        0x80 | 8,
        0x12,
        0x34,
        0,
        0,
        0,
        160,
        0xde,
        0xad,
        0xbe,
        0xef,
    ];
    bytes.extend([0, 0, 0, 7]);
    bytes.extend([0xbe, 0xde, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8]);
    bytes.extend(*b"abc");
    bytes.extend([0, 0, 0, 4]);
    bytes
}

#[test]
fn every_part_is_found() {
    let bytes = full();
    let packet = RtpPacket::parse(&bytes).unwrap();
    assert_eq!(packet.payload(), b"abc");
    assert_eq!(
        (packet.ssrc(), packet.sequence(), packet.timestamp()),
        (0xdead_beef, 0x1234, 160)
    );
    assert!(packet.marker());
    assert_eq!(packet.payload_type(), 8);
    assert_eq!(packet.csrcs().collect::<Vec<_>>(), [7]);
    assert_eq!(
        packet.extension(),
        Some((0xbede, &[1, 2, 3, 4, 5, 6, 7, 8][..]))
    );
    assert_eq!(packet.padding(), 4);
}

#[test]
fn impossible_packets_are_refused() {
    let whole = full();
    for length in 0..28 {
        assert_eq!(
            RtpPacket::parse(&whole[..length]).err(),
            Some(RtpError::Short),
            "{length}"
        );
    }
    let mut other = whole.clone();
    other[0] = 0x31;
    assert_eq!(RtpPacket::parse(&other).err(), Some(RtpError::Version));
    for padding in [0, 8, 255] {
        let mut other = whole.clone();
        *other.last_mut().unwrap() = padding;
        assert_eq!(
            RtpPacket::parse(&other).err(),
            Some(RtpError::Padding),
            "{padding}"
        );
    }
    let mut all_padding = whole.clone();
    *all_padding.last_mut().unwrap() = 7;
    assert_eq!(RtpPacket::parse(&all_padding).unwrap().payload(), b"");
    assert_eq!(
        RtpPacket::parse(&vec![0x80; 70_000]).err(),
        Some(RtpError::Short)
    );
}

#[test]
fn setters_change_their_field_only() {
    let before = full();
    let mut bytes = before.clone();
    let mut header = HeaderMut::of(&mut bytes).unwrap();
    header.set_ssrc(0x0102_0304);
    header.set_sequence(0xfffe);
    header.set_timestamp(0xfedc_ba98);
    header.set_payload_type(0xff);
    header.set_marker(false);
    let packet = RtpPacket::parse(&bytes).unwrap();
    assert_eq!((packet.ssrc(), packet.sequence()), (0x0102_0304, 0xfffe));
    assert_eq!(
        (packet.timestamp(), packet.payload_type()),
        (0xfedc_ba98, 127)
    );
    assert!(!packet.marker());
    assert_eq!(bytes[0], before[0]);
    assert_eq!(bytes[12..], before[12..]);
    HeaderMut::of(&mut bytes).unwrap().clear_padding();
    assert_eq!(RtpPacket::parse(&bytes).unwrap().padding(), 0);
    assert!(HeaderMut::of(&mut [0; 11]).is_none());
}

#[test]
fn a_shared_port_is_told_apart_by_the_packet_type() {
    assert_eq!(demultiplex(&[0x80, 0]), Multiplexed::Rtp);
    assert_eq!(demultiplex(&[0x80, 0x80 | 101]), Multiplexed::Rtp);
    for kind in 192..=223 {
        assert_eq!(demultiplex(&[0x81, kind]), Multiplexed::Rtcp);
    }
    assert_eq!(demultiplex(&[0x80, 191]), Multiplexed::Rtp);
    assert_eq!(demultiplex(&[0x80, 224]), Multiplexed::Rtp);
    for other in [&[0x00, 0x01][..], &[0x16, 200], &[0x80], &[]] {
        assert_eq!(demultiplex(other), Multiplexed::Other);
    }
}

#[test]
fn events_are_read_as_sent() {
    let event = TelephoneEvent {
        event: 11,
        end: true,
        volume: 10,
        duration: 1600,
    };
    assert_eq!(event.encode(), [11, 0x8a, 0x06, 0x40]);
    assert_eq!(TelephoneEvent::parse(&event.encode()), Some(event));
    assert_eq!(event.digit(), Some('#'));
    assert_eq!(TelephoneEvent::parse(&[1, 2, 3]), None);
    let two = [event.encode(), [1, 0, 0, 80]].concat();
    assert_eq!(
        TelephoneEvent::parse_all(&two)
            .filter_map(|e| e.digit())
            .collect::<String>(),
        "#1"
    );
    assert_eq!(TelephoneEvent { event: 16, ..event }.digit(), None);
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(packet) = RtpPacket::parse(&bytes) {
            let parts = 12 + 4 * packet.csrcs().count()
                + packet.extension().map_or(0, |(_, content)| 4 + content.len())
                + packet.payload().len() + packet.padding();
            prop_assert_eq!(parts, bytes.len());
        }
        let _ = demultiplex(&bytes);
        let _ = TelephoneEvent::parse_all(&bytes).count();
    }

    #[test]
    fn bytes_that_look_like_rtp_never_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 12..120), first in 0x80_u8..=0xbf,
    ) {
        bytes[0] = first;
        if let Ok(header) = RtpHeader::parse(&bytes) {
            prop_assert!(header.payload().end <= bytes.len());
            prop_assert!(bytes.get(header.payload()).is_some());
        }
    }
}
