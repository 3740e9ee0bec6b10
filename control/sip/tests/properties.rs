//! Properties of parsing and writing, over generated values.

use proptest::prelude::*;
use trunkline_sip::message::{
    Headers, Message, Method, NameAddr, Params, Request, StreamDecoder, StreamItem, Uri,
    parse_datagram, percent_decode, percent_encode_header, percent_encode_user, quote, unquote,
};

fn header_name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[A-Za-z][A-Za-z0-9.!%*_+`'~-]{0,20}",
        "[a-z]",
        Just("Via".into())
    ]
    .prop_filter("Content-Length is framing", |name: &String| {
        !name.eq_ignore_ascii_case("l") && !name.eq_ignore_ascii_case("Content-Length")
    })
}

/// A header line as it can come: odd blanks, folds, bytes of any kind.
fn header_line() -> impl Strategy<Value = Vec<u8>> {
    let blank = "[ \t]{0,3}";
    let text = proptest::collection::vec(
        any::<u8>().prop_filter("no line ends", |byte| !matches!(byte, b'\r' | b'\n')),
        0..30,
    );
    let fold = prop_oneof![Just(""), Just("\r\n  x"), Just("\r\n\t")];
    (header_name(), blank, blank, text, fold).prop_map(|(name, before, after, text, fold)| {
        let mut line = format!("{name}{before}:{after}").into_bytes();
        line.extend(text);
        line.extend(fold.as_bytes());
        line.extend(b"\r\n");
        line
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_headers_and_body_come_back_as_they_were(
        lines in proptest::collection::vec(header_line(), 0..12),
        body in proptest::collection::vec(any::<u8>(), 0..60),
        method in "[A-Z]{1,10}",
    ) {
        let mut bytes = format!("{method} sip:a@b SIP/2.0\r\n").into_bytes();
        lines.iter().for_each(|line| bytes.extend(line));
        bytes.extend(b"\r\n");
        bytes.extend(&body);
        let message = parse_datagram(&bytes).unwrap();
        prop_assert_eq!(message.to_bytes(), bytes);
        prop_assert_eq!(message.headers().len(), lines.len());
        prop_assert_eq!(message.body(), &body[..]);
    }

    #[test]
    fn quoting_and_percent_coding_are_undone(text in "\\PC{0,40}") {
        let (quoted, user, header) =
            (quote(&text), percent_encode_user(&text), percent_encode_header(&text));
        prop_assert_eq!(unquote(&quoted), text.as_str());
        prop_assert_eq!(percent_decode(&user), text.as_str());
        prop_assert_eq!(percent_decode(&header), text.as_str());
    }

    #[test]
    fn an_address_is_read_as_it_was_written(
        display in proptest::option::of("\\PC{1,20}"),
        user in "\\PC{1,20}",
        tag in "[a-zA-Z0-9.]{1,16}",
        value in "[a-z]{1,5}|\"[ a-z;,<>]{0,8}\"",
    ) {
        let uri = Uri::sip(Some(&user), "example.com", Some(5070)).unwrap();
        prop_assert_eq!(uri.user_decoded().unwrap(), user.as_str());
        let mut address = NameAddr::new(uri).with_tag(Some(&tag));
        address.display = display;
        address.params.set("x", Some(&value));
        let read = NameAddr::parse(&address.to_string(), "To").unwrap();
        prop_assert_eq!(read, address);
    }

    #[test]
    fn no_value_of_ours_can_add_a_header(name in "\\PC{1,12}", value in "[\\x00-\\x7f]{0,40}") {
        let mut request = Request::new(Method::Options, "sip:a@b".parse().unwrap());
        request.headers.append("X-First", "1");
        request.headers.append(&format!("X{name}"), &value);
        let Ok(Message::Request(read)) = parse_datagram(&request.to_bytes()) else {
            return Err(TestCaseError::fail("our own message parses"));
        };
        prop_assert_eq!(read.headers.len(), 2);
        prop_assert!(read.body.is_empty());
    }

    #[test]
    fn a_stream_reads_the_same_however_it_is_cut(
        bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..5),
        cuts in proptest::collection::vec(1usize..50, 1..40),
    ) {
        let mut stream = Vec::new();
        for body in &bodies {
            let mut request = Request::new(Method::Message, "sip:a@b".parse().unwrap());
            request.set_body("text/plain", body.clone());
            stream.extend(request.to_bytes());
        }
        let mut decoder = StreamDecoder::default();
        let (mut read, mut rest, mut cuts) = (Vec::new(), &stream[..], cuts.iter().cycle());
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
            rest = tail;
            decoder.push(piece);
            while let Some(item) = decoder.next_item() {
                let StreamItem::Message(message) = item else {
                    return Err(TestCaseError::fail("a message"));
                };
                read.push(message.body().to_vec());
            }
        }
        prop_assert_eq!(read, bodies);
        prop_assert_eq!(decoder.buffered(), 0);
    }
}

#[test]
fn parameters_and_lists_are_public_and_usable() {
    let mut params = Params::default();
    params.set("a", None);
    params.set("b", Some("\"x;y\""));
    assert_eq!(params.to_string(), ";a;b=\"x;y\"");
    assert_eq!(params.unquoted("B").unwrap(), "x;y");
    let mut headers = Headers::new();
    headers.append("Supported", "timer , 100rel,");
    headers.append("k", "replaces");
    assert_eq!(headers.list("Supported"), ["timer", "100rel", "replaces"]);
    assert!(headers.supports("REPLACES"));
}
