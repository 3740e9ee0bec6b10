#![no_main]
use libfuzzer_sys::fuzz_target;
use trunkline_siprec::journal::Journal;
use trunkline_siprec::metadata::Strictness;
use trunkline_siprec::{multipart, snapshot};

// A body of a recording session: its parts, another description in it, its metadata by both readers.
fuzz_target!(|bytes: &[u8]| {
    let kind = "multipart/mixed;boundary=b";
    let metadata = multipart::read(kind, bytes)
        .ok()
        .and_then(|read| read.metadata);
    let _ = multipart::with_sdp(kind, bytes, b"v=0");
    let _ = multipart::parts("multipart/mixed", bytes);
    let document = metadata.as_deref().unwrap_or(bytes);
    let _ = snapshot::read(document);
    for strictness in [Strictness::Tolerant, Strictness::Strict] {
        let mut journal = Journal::default();
        for cseq in 1..3 {
            let _ = journal.apply(cseq, "2026-11-28T01:02:03Z", document, strictness);
        }
    }
});
