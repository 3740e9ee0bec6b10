//! Any datagram: no panic, and what parses comes back as the same bytes when parsed again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trunkline_sip::message::parse_datagram;

fuzz_target!(|bytes: &[u8]| {
    match parse_datagram(bytes) {
        Ok(message) => {
            let written = message.to_bytes();
            let again = parse_datagram(&written).expect("our own bytes parse");
            assert_eq!(again.to_bytes(), written);
        }
        Err(rejected) => {
            let _ = rejected.response("192.0.2.1:5060".parse().expect("an address"));
        }
    }
});
