#![no_main]
use libfuzzer_sys::fuzz_target;
use std::path::Path;
use trunkline_sn3::verify::verify_bytes;
use trunkline_sn3::{Bytes, SegmentReader};

fuzz_target!(|bytes: &[u8]| {
    let path = Path::new("fuzz.sn3s");
    if let Ok(reader) = SegmentReader::over(Bytes::Memory(bytes.to_vec()), path) {
        let recordings = reader.recordings();
        for found in reader.hop(true) {
            let _ = reader.damage_of(&found);
        }
        let report = verify_bytes(Bytes::Memory(bytes.to_vec()), path).expect("a segment");
        assert!(report.damages.len() <= bytes.len());
        assert!(recordings.len() <= bytes.len());
    }
});
