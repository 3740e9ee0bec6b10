//! Any text as the value of each typed header, and as a URI.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trunkline_sip::digest::Challenge;
use trunkline_sip::message::{
    AuthValue, CSeq, MediaType, NameAddr, RAck, Reason, Replaces, SessionExpires, SipDate,
    SubscriptionState, Uri, Via,
};

fuzz_target!(|text: &str| {
    // The lexer hands out no line ends.
    if text.contains(['\r', '\n']) {
        return;
    }
    if let Ok(uri) = text.parse::<Uri>() {
        assert_eq!(uri.as_str(), text);
        let _ = (uri.headers(), uri.param("lr"), uri.host_ip(), uri.user_decoded());
        let _ = uri.with_user(Some("a b")).with_host("::1", Some(5)).with_param("lr", Some(""));
    }
    if let Ok(via) = Via::parse(text) {
        assert_eq!(Via::parse(&via.to_string()), Ok(via));
    }
    if let Ok(address) = NameAddr::parse(text, "To") {
        assert_eq!(NameAddr::parse(&address.to_string(), "To"), Ok(address));
    }
    let _ = (CSeq::parse(text), RAck::parse(text), MediaType::parse(text), Reason::parse(text));
    let _ = (Replaces::parse(text), SessionExpires::parse(text), SipDate::parse(text));
    let _ = SubscriptionState::parse(text);
    for value in AuthValue::parse_all(text).unwrap_or_default() {
        let _ = Challenge::parse(&value);
    }
});
