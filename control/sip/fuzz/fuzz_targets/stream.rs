//! Any stream in any cutting: no panic, and never more held than the limits allow.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trunkline_sip::message::{StreamDecoder, StreamLimits};

fuzz_target!(|bytes: &[u8]| {
    let Some((size, bytes)) = bytes.split_first() else { return };
    let size = usize::from(*size).max(1);
    let limits = StreamLimits { header_bytes: 1024, body_bytes: 1024 };
    let mut decoder = StreamDecoder::new(limits);
    for piece in bytes.chunks(size) {
        decoder.push(piece);
        while decoder.next_item().is_some() {}
        assert!(decoder.buffered() <= 2048 + size);
    }
});
