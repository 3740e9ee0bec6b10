//! RTCP: examples by hand, rewriting there and back, and arbitrary bytes.

use proptest::prelude::*;
use trunkline_rtp::rtcp::rewrite::{Heard, Renumbering, Sent, rewrite};
use trunkline_rtp::rtcp::{Compound, FeedbackKind, RtcpError, RtcpPacket};

fn word(value: u32) -> [u8; 4] {
    value.to_be_bytes()
}

/// SR of `ssrc` about `other`, SDES, BYE with a reason, APP, NACK, PLI, XR with a loss RLE block.
fn everything(ssrc: u32, other: u32) -> Vec<u8> {
    let mut bytes = vec![0x81, 200, 0, 12];
    for value in [ssrc, 0xE000_0000, 0x8000_0000, 48_000, 300, 48_000] {
        bytes.extend(word(value));
    }
    for value in [other, 0x40ff_fffe, 0x0002_0005, 33, 44, 55] {
        bytes.extend(word(value));
    }
    bytes.extend([0x81, 202, 0, 3]);
    bytes.extend(word(ssrc));
    bytes.extend([1, 4, b'u', b'@', b'h', b'x', 0, 0]);
    bytes.extend([0x81, 203, 0, 3]);
    bytes.extend(word(ssrc));
    bytes.extend([4, b'd', b'o', b'n', b'e', 0, 0, 0]);
    bytes.extend([0x83, 204, 0, 3]);
    bytes.extend(word(ssrc));
    bytes.extend(*b"NAMEdata");
    bytes.extend([0x81, 205, 0, 3]);
    bytes.extend(word(ssrc));
    bytes.extend(word(other));
    bytes.extend([0, 7, 0, 3]);
    bytes.extend([0x81, 206, 0, 2]);
    bytes.extend(word(ssrc));
    bytes.extend(word(other));
    bytes.extend([0x80, 207, 0, 4]);
    bytes.extend(word(ssrc));
    bytes.extend([1, 0, 0, 2]);
    bytes.extend(word(other));
    bytes.extend([0, 5, 0, 9]);
    bytes
}

#[test]
fn every_packet_of_a_compound_is_read() {
    let bytes = everything(11, 22);
    let mut seen = Vec::new();
    for packet in Compound::parse(&bytes).unwrap().packets() {
        match packet {
            RtcpPacket::SenderReport(report) => {
                assert_eq!((report.ssrc(), report.timestamp()), (11, 48_000));
                assert_eq!(report.ntp(), 0xE000_0000_8000_0000);
                assert_eq!((report.packets(), report.octets()), (300, 48_000));
                let block = report.reports().next().unwrap();
                assert_eq!(
                    (block.ssrc(), block.fraction_lost(), block.lost()),
                    (22, 0x40, -2)
                );
                assert_eq!(
                    (block.highest(), block.highest_sequence()),
                    (0x0002_0005, 5)
                );
                assert_eq!((block.jitter(), block.last_sr()), (33, 44));
                assert_eq!(block.delay_since_last_sr(), 55);
                seen.push("sr");
            }
            RtcpPacket::SourceDescription(description) => {
                let chunk = description.chunks().next().unwrap();
                let item = chunk.items().next().unwrap();
                assert_eq!((chunk.ssrc(), item.kind, item.text), (11, 1, &b"u@hx"[..]));
                assert_eq!(chunk.items().count(), 1);
                seen.push("sdes");
            }
            RtcpPacket::Goodbye(bye) => {
                assert_eq!(bye.ssrcs().collect::<Vec<_>>(), [11]);
                assert_eq!(bye.reason(), b"done");
                seen.push("bye");
            }
            RtcpPacket::App(app) => {
                assert_eq!((app.ssrc(), app.subtype()), (11, 3));
                assert_eq!((app.name(), app.data()), (&b"NAME"[..], &b"data"[..]));
                seen.push("app");
            }
            RtcpPacket::Feedback(feedback) => {
                assert_eq!(
                    (feedback.sender(), feedback.media(), feedback.format()),
                    (11, 22, 1)
                );
                seen.push(match feedback.kind() {
                    FeedbackKind::Transport => "nack",
                    FeedbackKind::Payload => "pli",
                });
            }
            RtcpPacket::Other(header, body) => {
                assert_eq!((header.packet_type, body.len()), (207, 16));
                seen.push("xr");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, ["sr", "sdes", "bye", "app", "nack", "pli", "xr"]);
}

#[test]
fn reduced_size_packets_are_fine_and_cut_ones_are_not() {
    let pli = [0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2];
    assert!(Compound::parse(&pli).is_ok());
    assert!(
        Compound::parse(&[0x80, 201, 0, 0]).is_ok(),
        "content is judged apart"
    );
    let whole = everything(1, 2);
    for length in 0..whole.len() {
        if let Ok(compound) = Compound::parse(&whole[..length]) {
            assert!(compound.packets().count() < 7, "only at packet boundaries");
        }
    }
    assert_eq!(Compound::parse(&[]).err(), Some(RtcpError::Short));
    assert_eq!(
        Compound::parse(&[0x80, 0, 0, 0]).err(),
        Some(RtcpError::PacketType)
    );
    assert_eq!(
        Compound::parse(&[0x40, 200, 0, 0]).err(),
        Some(RtcpError::Version)
    );
    assert_eq!(
        Compound::parse(&[0xa0, 201, 0, 1, 0, 0, 0, 5]).err(),
        Some(RtcpError::Padding)
    );
    let short_sr = [0x82, 200, 0, 1, 0, 0, 0, 1];
    let packets: Vec<_> = Compound::parse(&short_sr).unwrap().packets().collect();
    assert!(matches!(packets[..], [RtcpPacket::Malformed(header)] if header.packet_type == 200));
}

struct Numbering;

impl Renumbering for Numbering {
    fn sent(&self, ssrc: u32) -> Option<Sent> {
        (ssrc == 11).then_some(Sent {
            ssrc: 99,
            timestamp_offset: 1000,
        })
    }

    fn heard(&self, ssrc: u32) -> Option<Heard> {
        (ssrc == 22).then_some(Heard {
            ssrc: 77,
            extended_offset: 0x0001_0003,
        })
    }
}

#[test]
fn rewriting_maps_own_streams_forward_and_heard_ones_back() {
    let mut bytes = everything(11, 22);
    rewrite(&mut bytes, &Numbering);
    let mut expected = everything(99, 77);
    expected[16..20].copy_from_slice(&word(49_000));
    // The block's highest extended number, the NACK's packet id, the XR's range.
    expected[36..40].copy_from_slice(&word(0x0001_0002));
    let nack = 52 + 16 + 16 + 16 + 12;
    expected[nack..nack + 2].copy_from_slice(&[0, 4]);
    let range = expected.len() - 4;
    expected[range..].copy_from_slice(&[0, 2, 0, 6]);
    assert_eq!(bytes, expected);
}

#[test]
fn rewriting_leaves_strange_streams_alone() {
    let mut bytes = everything(1, 2);
    rewrite(&mut bytes, &Numbering);
    assert_eq!(bytes, everything(1, 2));
}

#[test]
fn keyframe_and_bitrate_requests_name_streams_in_their_entries() {
    let mut fir = vec![0x84, 206, 0, 4];
    fir.extend([word(11), word(0), word(22), [9, 0, 0, 0]].concat());
    rewrite(&mut fir, &Numbering);
    assert_eq!(fir[4..8], word(99));
    assert_eq!(fir[12..20], [word(77), [9, 0, 0, 0]].concat());
    let mut tmmbr = vec![0x83, 205, 0, 4];
    tmmbr.extend([word(11), word(0), word(22), word(0x1234_5678)].concat());
    rewrite(&mut tmmbr, &Numbering);
    assert_eq!(tmmbr[12..20], [word(77), word(0x1234_5678)].concat());
}

fn look_at_everything(bytes: &[u8]) -> usize {
    let Ok(compound) = Compound::parse(bytes) else {
        return 0;
    };
    let mut seen = 0;
    for packet in compound.packets() {
        seen += match packet {
            RtcpPacket::SenderReport(report) => {
                report.reports().map(|b| b.ssrc() as usize & 1).sum()
            }
            RtcpPacket::ReceiverReport(report) => report.reports().count(),
            RtcpPacket::SourceDescription(description) => description
                .chunks()
                .map(|chunk| chunk.items().count())
                .sum(),
            RtcpPacket::Goodbye(bye) => bye.ssrcs().count() + bye.reason().len(),
            RtcpPacket::App(app) => app.data().len() + app.name().len(),
            RtcpPacket::Feedback(feedback) => feedback.information().len(),
            RtcpPacket::Other(_, body) => body.len(),
            RtcpPacket::Malformed(header) => header.bytes,
        };
    }
    seen
}

proptest! {
    #[test]
    fn random_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        look_at_everything(&bytes);
        rewrite(&mut bytes, &Numbering);
    }

    #[test]
    fn chains_of_random_packets_never_panic_and_keep_their_length(
        packets in prop::collection::vec(
            (0_u8..64, 198_u8..=208, prop::collection::vec(any::<u8>(), 0..60)), 1..6),
    ) {
        let mut bytes = Vec::new();
        for (flags, kind, mut body) in packets {
            body.truncate(body.len() & !3);
            bytes.extend([0x80 | flags, kind, 0, (body.len() / 4) as u8]);
            bytes.extend(body);
        }
        let before = Compound::parse(&bytes).map(|compound| compound.packets().count());
        look_at_everything(&bytes);
        rewrite(&mut bytes, &Numbering);
        let after = Compound::parse(&bytes).map(|compound| compound.packets().count());
        prop_assert_eq!(before, after);
    }
}
