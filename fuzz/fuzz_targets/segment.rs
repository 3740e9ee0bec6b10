#![no_main]
use libfuzzer_sys::fuzz_target;
use std::path::Path;
use trunkline_sn3::{Bytes, SegmentReader};

fuzz_target!(|bytes: &[u8]| {
    let bytes = Bytes::Memory(bytes.to_vec());
    if let Ok(reader) = SegmentReader::over(bytes, Path::new("fuzz.sn3s")) {
        let _ = reader.recordings();
    }
});
