//! Our parser against the rsip crate's on what both accept.

mod support;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rsip::headers::{ToTypedHeader, UntypedHeader};
use rsip::message::{HasHeaders, HeadersExt};
use sipx_testkit::rfc4475::{self, Expect};
use support::invite_text;
use trunkline_sip::message::{Message, Request, parse_datagram};

/// Compares what both parsers read, and says whether rsip accepted the bytes.
fn compare(bytes: &[u8]) -> bool {
    let Ok(ours) = parse_datagram(bytes) else {
        return false;
    };
    let Ok(theirs) = rsip::SipMessage::try_from(&ours) else {
        return false;
    };
    match (&ours, &theirs) {
        (Message::Request(ours), rsip::SipMessage::Request(theirs)) => {
            assert_eq!(ours.method.as_str(), theirs.method.to_string());
        }
        (Message::Response(ours), rsip::SipMessage::Response(theirs)) => {
            assert_eq!(ours.status, u16::from(theirs.status_code.clone()));
        }
        _ => panic!("request or response?"),
    }
    assert_eq!(ours.headers().len(), theirs.headers().iter().count());
    let headers = ours.headers();
    if let (Ok(ours), Ok(theirs)) = (headers.call_id(), theirs.call_id_header()) {
        assert_eq!(ours, theirs.value());
    }
    if let (Ok(ours), Ok(theirs)) = (headers.cseq(), theirs.cseq_header().map(|h| h.typed()))
        && let Ok(theirs) = theirs
    {
        assert_eq!(ours.number, theirs.seq);
        assert_eq!(ours.method.as_str(), theirs.method.to_string());
    }
    if let (Ok(ours), Ok(Ok(theirs))) = (
        headers.from_address(),
        theirs.from_header().map(|h| h.typed()),
    ) {
        assert_eq!(ours.tag(), theirs.tag().map(|tag| tag.value()));
    }
    if let (Ok(ours), Ok(Ok(theirs))) = (headers.via(), theirs.via_header().map(|h| h.typed())) {
        assert_eq!(ours.branch(), theirs.branch().map(|branch| branch.value()));
    }
    true
}

#[test]
fn both_parsers_agree_on_what_both_accept() {
    let mut both = 0;
    for case in rfc4475::expecting(Expect::ParseOk) {
        both += usize::from(compare(case.bytes));
    }
    assert!(both >= 5, "rsip takes some of the corpus: {both}");
    let mut random = StdRng::seed_from_u64(4);
    for round in 0..2000 {
        let extra = format!(
            "X-Round: {round}\r\nSubject: {}\r\n",
            random.random::<u64>()
        );
        let branch = format!("z9hG4bK{:x}", random.random::<u64>());
        assert!(compare(invite_text(&branch, &extra).as_bytes()));
    }
}

#[test]
fn messages_generated_by_rsip_are_taken() {
    let text = invite_text("z9hG4bK1", "");
    let theirs = rsip::Request::try_from(text.clone()).unwrap();
    let ours = Request::try_from(theirs).unwrap();
    assert_eq!(ours.to_bytes(), text.as_bytes());
}
