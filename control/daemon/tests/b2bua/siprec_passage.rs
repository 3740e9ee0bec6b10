//! A recording session that a route sends elsewhere: alice is its client, bob the recorder.

use trunkline_link::message::Side;
use trunkline_sinks::object::CallState;
use trunkline_sip::message::{Method, Request};
use trunkline_siprec::{multipart, snapshot};

use super::common::World;

const ROUTE: &str = "[[route]]\nnext = \"sip:127.0.0.1:5070\"\n";
const CONTACT: (&str, &str) = ("Contact", "<sip:alice@127.0.0.1:5080>;+sip.src");
const REQUIRE: (&str, &str) = ("Require", "siprec");
const ACCEPT: (&str, &str) = ("Accept", "application/sdp, application/rs-metadata+xml");
const KIND: &str = "multipart/mixed; boundary=\"b 1\"";
const MIXED: (&str, &str) = ("Content-Type", KIND);
const METADATA: &str = "application/rs-metadata+xml";
/// A document as no writer of ours would write it.
const DOCUMENT: &str =
    "<?xml version='1.0'?>\n\t<recording  xmlns='urn:x'><!-- \u{e9} -->\r\n</recording>\n";

fn offer(version: u32, directions: &str) -> String {
    let line = |port: u16, label: u8| {
        format!("m=audio {port} RTP/AVP 0\r\na={directions}\r\na=label:{label}\r\n")
    };
    format!(
        "v=0\r\no=- 1 {version} IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n{}{}",
        line(6000, 1),
        line(6002, 2)
    )
}

/// The metadata before the description, with a header that says how long that is, and something else.
fn mixed(sdp: &str) -> String {
    format!(
        "\r\n--b 1\r\nContent-Disposition: recording-session\r\nContent-Type: {METADATA}\r\n\r\n{DOCUMENT}\r\n\
         --b 1\r\nContent-Length: {}\r\nContent-Type: application/sdp\r\n\r\n{sdp}\r\n\
         --b 1\r\nContent-Type: application/gtd\r\n\r\nIAM,\r\n",
        sdp.len()
    )
}

/// The description in a request of ours; the rest of its body is what was sent.
fn description(request: &Request, sent: &str) -> String {
    assert_eq!(request.headers.get("Content-Type").unwrap(), KIND);
    let sdp = multipart::read(KIND, &request.body).unwrap().sdp.unwrap();
    let same = multipart::with_sdp(KIND, sent.as_bytes(), &sdp).unwrap();
    assert_eq!(
        String::from_utf8_lossy(&request.body),
        String::from_utf8_lossy(&same)
    );
    String::from_utf8(sdp).unwrap()
}

/// An answered session; gives the body that alice sent and the INVITE that bob got.
fn establish(world: &mut World) -> (String, Request) {
    let body = mixed(&offer(1, "sendonly"));
    let headers = [CONTACT, REQUIRE, ACCEPT, MIXED];
    let alice = world.invite_with("sip:srs@127.0.0.1:5060", Some(&body), &headers);
    world.run(50);
    let invite = world.bob.take_invite().expect("the recorder is asked");
    let answer = offer(1, "recvonly").replace("600", "700");
    let contact = ("Contact", "<sip:bob@127.0.0.1:5070>;+sip.srs");
    let supported = ("Supported", "siprec");
    let now = world.now();
    let as_answer = ("application/sdp", answer.as_str());
    world
        .bob
        .respond_body(&invite, &[contact, supported], as_answer, now);
    world.run(50);
    world.alice.ack(alice, world.now());
    world.run(50);
    let contact = world.alice.last_header(alice, "Contact").unwrap();
    assert!(contact.ends_with(";+sip.srs"), "{contact}");
    let supported = world.alice.last_header(alice, "Supported").unwrap();
    assert!(supported.contains("siprec"), "{supported}");
    let told = world.alice.last_body(alice);
    assert!(
        told.contains("a=label:2") && told.contains("a=recvonly"),
        "{told}"
    );
    (body, invite.request)
}

/// Of the requests that an agent got the last of this method.
fn last(requests: &[Request], method: &Method) -> Request {
    let found = requests.iter().rev().find(|one| one.method == *method);
    found.expect("such a request").clone()
}

#[test]
fn the_invite_crosses_with_all_its_parts_and_signs() {
    let mut world = World::new(ROUTE);
    let (body, invite) = establish(&mut world);
    let header = |name: &str| invite.headers.get(name).unwrap().into_owned();
    assert_eq!(header("Require"), "siprec");
    assert_eq!(header("Accept"), ACCEPT.1);
    assert!(header("Contact").ends_with(";+sip.src"));
    let sdp = description(&invite, &body);
    assert!(
        sdp.contains("m=audio 16386 ") && sdp.contains("a=label:1"),
        "ours is told: {sdp}"
    );
    let legs = world.legs();
    assert_eq!(legs[&(1, Side::Caller)].rtp.unwrap().port(), 6002);
    assert_eq!(legs[&(1, Side::Callee)].rtp.unwrap().port(), 7002);
    // That the recorder sends nothing is no hold.
    assert_eq!(world.only_call().state, CallState::Active);
}

#[test]
fn later_documents_cross_both_ways_alone_or_beside_an_offer() {
    let mut world = World::new(ROUTE);
    establish(&mut world);
    let disposition = ("Content-Disposition", "recording-session");
    for method in [Method::Update, Method::Info] {
        let body = (METADATA, DOCUMENT);
        let now = world.now();
        let sent = world
            .alice
            .request_with(method.clone(), &[CONTACT, disposition], body, now);
        world.run(50);
        assert_eq!(world.alice.statuses(sent), [200], "{method}");
        let got = last(&world.bob.requests, &method);
        assert_eq!(got.body, DOCUMENT.as_bytes());
        assert_eq!(
            got.headers.get("Content-Disposition").unwrap(),
            disposition.1
        );
    }
    let asked = snapshot::write("again");
    let body = (snapshot::CONTENT_TYPE, asked.as_str());
    let now = world.now();
    let sent = world
        .bob
        .request_with(Method::Update, &[disposition], body, now);
    world.run(50);
    assert_eq!(world.bob.statuses(sent), [200]);
    let got = last(&world.alice.requests, &Method::Update);
    assert_eq!(got.body, asked.as_bytes());
    assert!(got.headers.get("Contact").unwrap().ends_with(";+sip.srs"));
    // The same description again is a refresh; with metadata beside it, it is for the recorder.
    let body = mixed(&offer(1, "sendonly"));
    let now = world.now();
    let again = world
        .alice
        .request_with_body(Method::Invite, KIND, &body, now);
    world.run(50);
    let invite = world.bob.take_invite().expect("the recorder is told");
    description(&invite.request, &body);
    let answer = offer(2, "recvonly").replace("600", "700");
    world.bob.respond(&invite, 200, Some(&answer), world.now());
    world.run(50);
    assert_eq!(world.alice.statuses(again).last(), Some(&200));
    world.alice.ack(again, world.now());
    world.run(50);
}

#[test]
fn a_bye_takes_its_document_along() {
    let mut world = World::new(ROUTE);
    establish(&mut world);
    world.alice.bye_body((METADATA, DOCUMENT), world.now());
    world.run(200);
    assert_eq!(world.alice.bye_status, Some(200));
    let bye = last(&world.bob.requests, &Method::Bye);
    assert_eq!(bye.body, DOCUMENT.as_bytes());
    assert_eq!(bye.headers.get("Content-Type").unwrap(), METADATA);
    assert!(world.b2bua.is_idle());
}

#[test]
fn an_offer_asked_for_comes_back_with_what_is_beside_it() {
    let mut world = World::new(ROUTE);
    let headers = [CONTACT, REQUIRE, ("Content-Type", METADATA)];
    let alice = world.invite_with("sip:srs@127.0.0.1:5060", Some(DOCUMENT), &headers);
    world.run(50);
    let invite = world.bob.take_invite().expect("the recorder is asked");
    assert_eq!(invite.request.body, DOCUMENT.as_bytes());
    let body = mixed(&offer(1, "recvonly").replace("600", "700"));
    let now = world.now();
    world.bob.respond_body(&invite, &[], (KIND, &body), now);
    world.run(50);
    let told = world.alice.responses(alice).last().unwrap();
    let read = multipart::read(KIND, &told.body).unwrap();
    assert_eq!(read.metadata.as_deref(), Some(DOCUMENT.as_bytes()));
    let sdp = String::from_utf8(read.sdp.unwrap()).unwrap();
    assert!(sdp.contains("a=label:1") && !sdp.contains("7000"), "{sdp}");
    let answer = offer(1, "sendonly");
    world.alice.ack_with(alice, Some(&answer), world.now());
    world.run(50);
    assert!(world.bob.last_ack_body.contains("a=sendonly"));
}

#[test]
fn a_body_that_cannot_be_taken_apart_is_refused_and_what_the_recorder_lacks_is_told() {
    for (kind, body, status) in [
        (KIND, "no boundary at all".to_owned(), 400),
        (KIND, "--b 1\r\n\r\nx\r\n".repeat(40), 400),
        ("text/plain", "hello".to_owned(), 415),
    ] {
        let mut world = World::new(ROUTE);
        let headers = [CONTACT, REQUIRE, ("Content-Type", kind)];
        let alice = world.invite_with("sip:srs@127.0.0.1:5060", Some(&body), &headers);
        world.run(50);
        assert_eq!(world.alice.statuses(alice).last(), Some(&status), "{kind}");
    }
    let mut world = World::new(ROUTE);
    let body = mixed(&offer(1, "sendonly"));
    let headers = [CONTACT, REQUIRE, MIXED];
    let alice = world.invite_with("sip:srs@127.0.0.1:5060", Some(&body), &headers);
    world.run(50);
    let invite = world.bob.take_invite().unwrap();
    let unsupported = [("Unsupported", "siprec")];
    let now = world.now();
    world
        .bob
        .respond_with(&invite, 420, None, &unsupported, now);
    world.run(50);
    assert_eq!(world.alice.statuses(alice).last(), Some(&420));
    let told = world.alice.last_header(alice, "Unsupported").unwrap();
    assert_eq!(told, "siprec");
}
