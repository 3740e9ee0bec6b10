#![no_main]
use libfuzzer_sys::fuzz_target;
use trunkline_sn3::{Capture, evidence};

// An evidence archive: verified, and heard.
fuzz_target!(|bytes: &[u8]| {
    let _ = evidence::looks_like_evidence(bytes);
    if let Some(range) = evidence::segment_range(bytes) {
        assert!(range.end <= bytes.len());
    }
    let path = std::env::temp_dir().join(format!("fuzz-evidence-{}.tar", std::process::id()));
    std::fs::write(&path, bytes).expect("written");
    let _ = evidence::verify(&path, None);
    if let Ok(capture) = Capture::open(&path) {
        capture.frames().for_each(drop);
    }
});
