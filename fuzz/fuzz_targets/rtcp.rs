#![no_main]
use libfuzzer_sys::fuzz_target;
use trunkline_rtp::rtcp::rewrite::{Heard, Renumbering, Sent, rewrite};
use trunkline_rtp::rtcp::{Compound, RtcpPacket};

/// Renumbers every stream.
struct All;

impl Renumbering for All {
    fn sent(&self, ssrc: u32) -> Option<Sent> {
        Some(Sent {
            ssrc: ssrc ^ 1,
            timestamp_offset: 77,
        })
    }

    fn heard(&self, ssrc: u32) -> Option<Heard> {
        Some(Heard {
            ssrc: ssrc ^ 2,
            extended_offset: 0x1_0003,
        })
    }
}

fn count(bytes: &[u8]) -> Option<usize> {
    let compound = Compound::parse(bytes).ok()?;
    let mut seen = 0;
    for packet in compound.packets() {
        seen += match packet {
            RtcpPacket::SenderReport(report) => report.reports().count(),
            RtcpPacket::ReceiverReport(report) => report.reports().count(),
            RtcpPacket::SourceDescription(description) => {
                description.chunks().map(|chunk| chunk.items().count()).sum()
            }
            RtcpPacket::Goodbye(bye) => bye.ssrcs().count() + bye.reason().len(),
            RtcpPacket::App(app) => app.data().len() + app.name().len(),
            RtcpPacket::Feedback(feedback) => feedback.information().len(),
            RtcpPacket::Other(_, body) => body.len(),
            RtcpPacket::Malformed(header) => header.bytes,
        };
    }
    assert!(seen <= bytes.len());
    Some(compound.packets().count())
}

fuzz_target!(|bytes: &[u8]| {
    let before = count(bytes);
    let mut renumbered = bytes.to_vec();
    rewrite(&mut renumbered, &All);
    assert_eq!(before, count(&renumbered));
});
