//! The torture messages of RFC 4475 and RFC 5118, judged as the RFCs judge them.

use sipx_testkit::rfc4475::{self, Expect, Fault};
use sipx_testkit::rfc5118;
use trunkline_sip::message::{Message, SipDate, judge_request, judge_response, parse_datagram};

/// Parsing and judging in one: the status a request would be answered with.
fn judged(bytes: &[u8]) -> Result<Message, (u16, String)> {
    let message =
        parse_datagram(bytes).map_err(|rejected| (rejected.fault.status, rejected.fault.reason))?;
    let verdict = match &message {
        Message::Request(request) => judge_request(request),
        Message::Response(response) => judge_response(response),
    };
    verdict.map_err(|fault| (fault.status, fault.reason))?;
    Ok(message)
}

#[test]
fn rfc_4475_messages_are_judged_as_the_rfc_judges_them() {
    for case in rfc4475::classified() {
        let verdict = judged(case.bytes);
        let name = case.name;
        match case.expect {
            Expect::ParseOk => {
                verdict.unwrap_or_else(|fault| panic!("{name} is valid: {fault:?}"));
            }
            // A bad Date spoils nothing but itself (section 3.1.2.12).
            Expect::HeaderErr("Date") => {
                let message = verdict.unwrap_or_else(|fault| panic!("{name}: {fault:?}"));
                let date = message.headers().get("Date").unwrap();
                assert!(SipDate::parse(&date).is_err(), "{name}");
            }
            Expect::ValidateErr(why) if why.contains("505") => {
                assert_eq!(verdict.unwrap_err().0, 505, "{name}");
            }
            Expect::ParseErr(Fault::StartLine | Fault::Framing | Fault::HeaderSyntax)
            | Expect::HeaderErr(_)
            | Expect::ValidateErr(_) => {
                assert_eq!(verdict.expect_err(name).0, 400, "{name}");
            }
            _ => {}
        }
    }
}

#[test]
fn valid_messages_of_rfc_4475_come_back_byte_for_byte() {
    for case in rfc4475::expecting(Expect::ParseOk) {
        let bytes = judged(case.bytes).unwrap().to_bytes();
        // What follows the body in a datagram is no part of the message (section 3.1.1.8).
        assert_eq!(bytes, &case.bytes[..bytes.len()], "{}", case.name);
        assert!(
            bytes.len() == case.bytes.len() || case.name == "dblreq",
            "{}",
            case.name
        );
    }
}

#[test]
fn bad_requests_of_rfc_4475_get_their_answer_and_bad_responses_silence() {
    let source = "192.0.2.99:5060".parse().unwrap();
    let answer = |name: &str| {
        let case = rfc4475::case(name).unwrap();
        parse_datagram(case.bytes)
            .err()
            .and_then(|rejected| rejected.response(source))
    };
    for name in [
        "ncl", "clerr", "mcl01", "ltgtruri", "lwsruri", "lwsstart", "trws", "baddn",
    ] {
        let response = answer(name).unwrap_or_else(|| panic!("{name} is answered"));
        assert_eq!(response.status, 400, "{name}");
        assert!(response.headers.contains("Call-ID"), "{name}");
    }
    assert!(answer("bigcode").is_none(), "a response is never answered");
}

#[test]
fn rfc_5118_messages_are_judged_as_the_rfc_judges_them() {
    for case in rfc5118::classified() {
        let wire = case.wire();
        let verdict = judged(&wire);
        match case.expect {
            Expect::ParseOk => {
                let message =
                    verdict.unwrap_or_else(|fault| panic!("{} is valid: {fault:?}", case.name));
                assert_eq!(message.to_bytes(), &wire[..], "{}", case.name);
                message
                    .headers()
                    .vias()
                    .unwrap_or_else(|error| panic!("{}: {error}", case.name));
            }
            _ => assert_eq!(verdict.unwrap_err().0, 400, "{}", case.name),
        }
    }
}

#[test]
fn ports_and_received_of_rfc_5118_are_read_as_it_says() {
    let message = |name: &str| judged(&rfc5118::case(name).unwrap().wire()).unwrap();
    let uri = |name: &str| match message(name) {
        Message::Request(request) => request.uri,
        Message::Response(_) => panic!("{name} is a request"),
    };
    assert_eq!(uri("port-ambiguous").port(), None);
    assert_eq!(uri("port-unambiguous").port(), Some(5070));
    assert_eq!(uri("port-unambiguous").host(), "[2001:db8::10]");
    for name in [
        "via-received-param-with-delim",
        "via-received-param-no-delim",
    ] {
        let via = message(name).headers().via().unwrap();
        assert_eq!(
            via.received(),
            Some("2001:db8::9:255".parse().unwrap()),
            "{name}"
        );
    }
    let three = message("ipv6-bug-abnf-3-colons").headers().via().unwrap();
    let two = message("ipv6-correct-abnf-2-colons")
        .headers()
        .via()
        .unwrap();
    assert_eq!(
        trunkline_sip::message::host_ip(&three.host),
        trunkline_sip::message::host_ip(&two.host)
    );
}

#[test]
fn typed_values_of_the_tortuous_invite() {
    let Ok(Message::Request(request)) = judged(rfc4475::case("wsinv").unwrap().bytes) else {
        panic!("wsinv is a valid request");
    };
    let headers = &request.headers;
    assert_eq!(headers.vias().unwrap().len(), 3);
    assert_eq!(
        headers.from_address().unwrap().display.as_deref(),
        Some("J Rosenberg \\\"")
    );
    assert_eq!(headers.max_forwards().unwrap(), Some(68));
    assert_eq!(headers.cseq().unwrap().number, 9);
    assert_eq!(headers.get("Subject").unwrap(), "");
    assert_eq!(
        headers.get("newfangledheader").unwrap(),
        "newfangled value continued newfangled value"
    );
    assert_eq!(
        headers.routes().unwrap()[0].uri.host(),
        "services.example.com"
    );
    assert_eq!(
        headers.contact().unwrap().unwrap().params.get("newparam"),
        Some("newvalue")
    );
    assert_eq!(headers.contact().unwrap().unwrap().q_milli(), 330);
}
