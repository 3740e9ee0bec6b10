#![no_main]
use libfuzzer_sys::fuzz_target;
use trunkline_rtp::RtpPacket;

fuzz_target!(|bytes: &[u8]| {
    let _ = trunkline_rtp::demultiplex(bytes);
    if let Ok(packet) = RtpPacket::parse(bytes) {
        assert!(packet.payload().len() <= bytes.len());
        let _ = (packet.csrcs().count(), packet.extension(), packet.padding());
        let _ = trunkline_rtp::TelephoneEvent::parse(packet.payload());
    }
});
