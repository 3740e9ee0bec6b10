//! Any session description: no panic, and what we write of it is read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trunkline_sdp::{
    Change, Description, Occasion, OriginState, Ours, compare, judge_offer, keep_codecs,
    write_answer, write_offer,
};

fuzz_target!(|bytes: &[u8]| {
    let _ = keep_codecs(bytes, &["PCMA".to_owned(), "opus".to_owned()]);
    let Ok(description) = Description::parse(bytes) else { return };
    assert_eq!(compare(&description, &description), Change::None);
    let _ = description.is_held();
    for media in &description.media {
        let _ = (media.direction(), media.rtp_address(), media.rtcp_address(), media.is_held());
    }
    let _ = judge_offer(&description, Occasion::Later);
    let ports: Vec<Option<u16>> = description.media.iter().map(|_| Some(4000)).collect();
    let address = "192.0.2.1".parse().expect("an address");
    let ours = Ours { address, ports: &ports, record: None };
    let mut origin = OriginState::new(1);
    let written = write_offer(&description, &ours, &mut origin).text;
    let again = Description::parse(written.as_bytes()).expect("our own description parses");
    assert_eq!(again.media.len(), description.media.len());
    if let Ok(answer) = write_answer(&description, &again, &ours, &mut origin) {
        Description::parse(answer.text.as_bytes()).expect("our own answer parses");
    }
});
