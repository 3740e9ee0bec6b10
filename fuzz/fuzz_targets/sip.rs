#![no_main]
use libfuzzer_sys::fuzz_target;
use trunkline_pcap::{Calls, Segment, Streams};

// The bytes as the two directions of a TCP connection, cut where its own octets say.
fuzz_target!(|bytes: &[u8]| {
    let mut calls = Calls::default();
    calls.take(1, bytes);
    let mut streams = Streams::default();
    let (mut rest, mut sequence) = (bytes, 0_u32);
    while let [length, offset, payload @ ..] = rest {
        let length = usize::from(*length).min(payload.len());
        let segment = Segment {
            utc_ns: 2,
            source: ([192, 0, 2, 1], u16::from(*offset & 1)).into(),
            destination: ([192, 0, 2, 2], 5_060).into(),
            sequence: sequence.wrapping_add(u32::from(*offset >> 1)),
            begins: *offset == 255,
            ends: *offset == 254,
            payload: payload[..length].into(),
        };
        streams.take(&segment, |message| calls.take(2, message));
        sequence = sequence.wrapping_add(length as u32);
        rest = &payload[length..];
    }
    for call in &calls.list {
        let _ = call.legs_at(2);
    }
});
