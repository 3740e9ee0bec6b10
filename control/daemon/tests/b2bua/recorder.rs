//! Recording sessions that a client has with us (SRS): alice is the client.

use trunkline_link::message::{Command, FactKind, Side, leg_flags};
use trunkline_sinks::object::{Recording, RecordingState, Role, Verdict};
use trunkline_sip::message::Method;

use super::common::{Fault, World};

pub(super) const ROUTE: &str = "[[route]]\nnext = \"record\"\n";
pub(super) const CONTACT: (&str, &str) = ("Contact", "<sip:alice@127.0.0.1:5080>;+sip.src");
pub(super) const REQUIRE: (&str, &str) = ("Require", "siprec");
pub(super) const MULTIPART: (&str, &str) = ("Content-Type", "multipart/mixed;boundary=b");

/// An offer of one m-line for each of these labels.
pub(super) fn offer(labels: &[&str], direction: &str) -> String {
    let lines: String = labels
        .iter()
        .zip((6000..).step_by(2))
        .map(|(label, port)| {
            format!("m=audio {port} RTP/AVP 0\r\na={direction}\r\na=label:{label}\r\n")
        })
        .collect();
    format!("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n{lines}")
}

/// Metadata in which each of these (user, label) sends its stream.
pub(super) fn metadata(mode: &str, parties: &[(&str, &str)]) -> String {
    let all: String = parties
        .iter()
        .map(|(user, label)| {
            format!(
                "<participant participant_id=\"{user}\"><nameID aor=\"sip:{user}@x\"/></participant>\
                 <stream stream_id=\"s{user}\" session_id=\"cs\"><label>{label}</label></stream>\
                 <participantsessionassoc participant_id=\"{user}\" session_id=\"cs\"/>\
                 <participantstreamassoc participant_id=\"{user}\"><send>s{user}</send></participantstreamassoc>"
            )
        })
        .collect();
    format!(
        "<recording xmlns='urn:ietf:params:xml:ns:recording:1'><datamode>{mode}</datamode>\
         <session session_id=\"cs\"/>{all}</recording>"
    )
}

pub(super) fn multipart(sdp: &str, metadata: &str) -> String {
    format!(
        "--b\r\nContent-Type: application/sdp\r\n\r\n{sdp}\r\n--b\r\n\
         Content-Type: application/rs-metadata+xml\r\n\r\n{metadata}\r\n--b--\r\n"
    )
}

fn begin(world: &mut World, body: &str) -> usize {
    let headers = [CONTACT, REQUIRE, MULTIPART];
    let invite = world.invite_with("sip:srs@127.0.0.1:5060", Some(body), &headers);
    world.run(50);
    invite
}

/// A recording session of two streams.
fn record(world: &mut World) -> usize {
    let parties = [("ann", "1"), ("ben", "2")];
    let body = multipart(
        &offer(&["1", "2"], "sendonly"),
        &metadata("complete", &parties),
    );
    let invite = begin(world, &body);
    assert_eq!(world.alice.statuses(invite), [100, 200]);
    world.alice.ack(invite, world.now());
    world.run(50);
    invite
}

fn end(world: &mut World) -> Recording {
    world.alice.bye(world.now());
    world.run(200);
    assert_eq!(world.alice.bye_status, Some(200));
    assert!(world.b2bua.is_idle(), "the session is over");
    world.written_recording()
}

pub(super) fn people(recording: &Recording) -> Vec<(Role, &str, u8, bool)> {
    let all = recording.participants.iter();
    all.map(|one| (one.role, one.uri.as_str(), one.channel, one.to_ms.is_some()))
        .collect()
}

#[test]
fn capture_runs_before_the_answer_and_nothing_is_relayed() {
    let mut world = World::new(ROUTE);
    let invite = record(&mut world);
    let answer = world.alice.last_body(invite);
    let lines: Vec<&str> = answer
        .lines()
        .filter(|line| line.contains("=audio") || line.starts_with("a="))
        .collect();
    assert_eq!(
        lines,
        [
            "m=audio 16384 RTP/AVP 0",
            "a=label:1",
            "a=recvonly",
            "m=audio 16386 RTP/AVP 0",
            "a=label:2",
            "a=recvonly"
        ]
    );
    let contact = world.alice.last_header(invite, "Contact").unwrap();
    assert!(contact.ends_with(";+sip.srs"), "{contact}");
    let legs = world.legs();
    for side in Side::BOTH {
        let leg = &legs[&(0, side)];
        assert_eq!(
            leg.flags & leg_flags::MAY_SEND,
            0,
            "nothing is sent to a client"
        );
        assert_ne!(leg.flags & leg_flags::EXPECT_MEDIA, 0);
    }
    assert!(world.live_calls().is_empty(), "it is no call");
    let recording = end(&mut world);
    assert_eq!(recording.state, RecordingState::Complete);
    assert_eq!(recording.verdict, Some(Verdict::Complete));
    assert_eq!(
        people(&recording),
        [
            (Role::Caller, "sip:ann@x", 0, false),
            (Role::Callee, "sip:ben@x", 1, false)
        ]
    );
    assert!(
        world
            .events()
            .iter()
            .all(|event| !event.starts_with("call.")),
        "{:?}",
        world.events()
    );
}

#[test]
fn labels_and_not_the_order_of_lines_say_who_is_left() {
    let mut world = World::new(ROUTE);
    let parties = [("ann", "2"), ("ben", "1")];
    let body = multipart(
        &offer(&["1", "2"], "sendonly"),
        &metadata("complete", &parties),
    );
    let invite = begin(&mut world, &body);
    let answer = world.alice.last_body(invite);
    // Ann is the first party: her line, the second, has the left channel's port.
    let ports: Vec<&str> = answer
        .lines()
        .filter(|line| line.starts_with("m="))
        .collect();
    assert_eq!(
        ports,
        ["m=audio 16386 RTP/AVP 0", "m=audio 16384 RTP/AVP 0"]
    );
    world.alice.ack(invite, world.now());
    world.run(50);
    assert_eq!(world.legs()[&(0, Side::Caller)].rtp.unwrap().port(), 6002);
    let recording = end(&mut world);
    assert_eq!(
        people(&recording),
        [
            (Role::Caller, "sip:ann@x", 0, false),
            (Role::Callee, "sip:ben@x", 1, false)
        ]
    );
}

#[test]
fn broken_metadata_is_kept_aside_and_the_media_is_recorded() {
    let mut world = World::new(ROUTE);
    let body = multipart(&offer(&["1", "2"], "sendonly"), "<recording><unclosed");
    let invite = begin(&mut world, &body);
    assert_eq!(world.alice.statuses(invite), [100, 200]);
    assert!(world.events().contains(&"alarm.raised"));
    world.alice.ack(invite, world.now());
    world.run(50);
    let kept = world
        .dataplane
        .commands
        .iter()
        .any(|command| match command {
            Command::RecordingFact {
                kind: FactKind::CallChange,
                fact,
                ..
            } => String::from_utf8_lossy(fact).contains("unclosed"),
            _ => false,
        });
    assert!(kept, "the document is in the recording as it came");
    // What is understood later is taken.
    let parties = metadata("complete", &[("ann", "1"), ("ben", "2")]);
    let kind = "application/rs-metadata+xml";
    let update = world
        .alice
        .request_with_body(Method::Update, kind, &parties, world.now());
    world.run(50);
    assert_eq!(world.alice.statuses(update), [200]);
    assert!(world.events().contains(&"alarm.cleared"));
    let recording = end(&mut world);
    assert_eq!(recording.verdict, Some(Verdict::Complete));
    assert_eq!(
        people(&recording),
        [
            (Role::Caller, "sip:ann@x", 0, false),
            (Role::Callee, "sip:ben@x", 1, false)
        ]
    );
}

#[test]
fn a_pause_of_the_client_is_one_of_the_recording() {
    let mut world = World::new(ROUTE);
    record(&mut world);
    for (direction, state) in [
        ("inactive", RecordingState::Paused),
        ("sendonly", RecordingState::Recording),
        ("recvonly", RecordingState::Paused),
        ("sendonly", RecordingState::Recording),
    ] {
        world.run(1000);
        let offer = offer(&["1", "2"], direction);
        let again = world.alice.reinvite(Some(&offer), world.now());
        world.run(50);
        assert_eq!(world.alice.statuses(again).last(), Some(&200));
        let wanted = if direction == "sendonly" {
            "a=recvonly"
        } else {
            "a=inactive"
        };
        assert!(world.alice.last_body(again).contains(wanted));
        world.alice.ack(again, world.now());
        world.run(50);
        assert_eq!(world.written_recording().state, state, "after {direction}");
    }
    let recording = end(&mut world);
    assert_eq!(recording.pauses.len(), 2);
    assert!(recording.pauses.iter().all(|pause| pause.by == "client"));
}

#[test]
fn a_party_that_takes_anothers_place_is_told_apart() {
    let mut world = World::new(ROUTE);
    record(&mut world);
    world.run(2000);
    // The transfer of RFC 8068 section 3.3.1: the same session, another participant on the line.
    let document = "<recording xmlns='urn:ietf:params:xml:ns:recording:1'><datamode>partial</datamode>\
        <participant participant_id=\"cat\"><nameID aor=\"sip:cat@x\"/></participant>\
        <participantsessionassoc participant_id=\"ben\" session_id=\"cs\">\
        <associate-time>2026-11-28T01:00:00Z</associate-time>\
        <disassociate-time>2026-11-28T01:01:00Z</disassociate-time></participantsessionassoc>\
        <participantstreamassoc participant_id=\"ben\"/>\
        <participantstreamassoc participant_id=\"cat\"><send>sben</send></participantstreamassoc></recording>";
    let body = multipart(&offer(&["1", "2"], "sendonly"), document);
    let kind = "multipart/mixed;boundary=b";
    let again = world
        .alice
        .request_with_body(Method::Invite, kind, &body, world.now());
    world.run(50);
    world.alice.ack(again, world.now());
    world.run(1000);
    let recording = end(&mut world);
    assert_eq!(
        people(&recording),
        [
            (Role::Caller, "sip:ann@x", 0, false),
            (Role::Callee, "sip:ben@x", 1, true),
            (Role::Transfer, "sip:cat@x", 1, false)
        ]
    );
}

#[test]
fn a_line_that_comes_later_gets_ports_and_one_that_cannot_is_refused() {
    let mut world = World::new(ROUTE);
    record(&mut world);
    let more = offer(&["1", "2", "3"], "sendonly") + "m=audio 6010 RTP/SAVP 0\r\na=label:4\r\n";
    let again = world.alice.reinvite(Some(&more), world.now());
    world.run(50);
    let answer = world.alice.last_body(again);
    let lines: Vec<&str> = answer
        .lines()
        .filter(|line| line.starts_with("m="))
        .collect();
    assert_eq!(lines.len(), 4, "{answer}");
    assert!(
        lines[2].starts_with("m=audio 16390 "),
        "a side of the second medium: {answer}"
    );
    assert_eq!(lines[3], "m=audio 0 RTP/SAVP 0");
    assert!(answer.contains("a=label:4"), "{answer}");
    world.alice.ack(again, world.now());
    world.run(50);
    // A fifth, without ports left: refused alone.
    world.dataplane.refuses_ports = true;
    let more = offer(&["1", "2", "3", "5", "6"], "sendonly");
    let again = world.alice.reinvite(Some(&more), world.now());
    world.run(50);
    assert_eq!(world.alice.statuses(again).last(), Some(&200));
    let answer = world.alice.last_body(again);
    let refused = answer
        .lines()
        .filter(|line| line.starts_with("m=audio 0 "))
        .count();
    assert_eq!(refused, 2, "{answer}");
    world.alice.ack(again, world.now());
    world.run(50);
    end(&mut world);
}

#[test]
fn what_is_no_recording_session_is_refused_by_its_own_status() {
    let sdp = offer(&["1"], "sendonly");
    let many = "--b\r\n\r\nx\r\n".repeat(40);
    let secure = sdp.replace("RTP/AVP", "RTP/SAVP");
    for (headers, body, status) in [
        (
            vec![CONTACT, ("Require", "siprec, magic")],
            sdp.as_str(),
            420,
        ),
        (vec![CONTACT, REQUIRE, MULTIPART], "no boundary at all", 400),
        (vec![CONTACT, REQUIRE, MULTIPART], many.as_str(), 400),
        (
            vec![CONTACT, REQUIRE, ("Content-Type", "text/plain")],
            "hello",
            415,
        ),
        (
            vec![CONTACT, REQUIRE],
            "v=0\r\nm=audio x RTP/AVP 0\r\n",
            400,
        ),
        (vec![CONTACT, REQUIRE], secure.as_str(), 488),
        (
            vec![
                CONTACT,
                REQUIRE,
                ("Session-Expires", "20"),
                ("Supported", "timer"),
            ],
            sdp.as_str(),
            422,
        ),
    ] {
        let mut world = World::new(ROUTE);
        let invite = world.invite_with("sip:srs@127.0.0.1:5060", Some(body), &headers);
        world.run(50);
        assert_eq!(
            world.alice.statuses(invite).last(),
            Some(&status),
            "{headers:?} {body}"
        );
        world.run(40_000);
        assert!(world.b2bua.is_idle());
    }
}

#[test]
fn hostile_names_are_kept_as_text() {
    let mut world = World::new(ROUTE);
    let name =
        "&lt;/participant&gt;\u{202e}&#x1F600;'; DROP TABLE--".to_owned() + &"x".repeat(9000);
    let document = metadata("complete", &[("ann", "1")]).replace(
        "<nameID aor=\"sip:ann@x\"/>",
        &format!("<nameID aor=\"sip:ann@x\"><name>{name}</name></nameID>"),
    );
    let invite = begin(
        &mut world,
        &multipart(&offer(&["1"], "sendonly"), &document),
    );
    assert_eq!(world.alice.statuses(invite), [100, 200]);
    world.alice.ack(invite, world.now());
    world.run(50);
    let recording = end(&mut world);
    let kept = &recording.participants[0].name;
    assert!(
        kept.starts_with("</participant>") && kept.chars().count() <= 256,
        "{kept}"
    );
}

#[test]
fn it_outlives_a_restart_of_control_and_of_the_dataplane() {
    let mut world = World::new(ROUTE);
    record(&mut world);
    world.restart_control();
    assert!(world.live_calls().is_empty());
    let parties = metadata("partial", &[("cat", "2")]);
    let kind = "application/rs-metadata+xml";
    let update = world
        .alice
        .request_with_body(Method::Update, kind, &parties, world.now());
    world.run(50);
    assert_eq!(world.alice.statuses(update), [200]);
    world.restart_dataplane();
    assert!(world.dataplane.recording.is_some(), "capture goes on");
    assert_eq!(world.legs()[&(0, Side::Callee)].rtp.unwrap().port(), 6002);
    let recording = end(&mut world);
    assert_eq!(
        recording.verdict,
        Some(Verdict::Partial),
        "what was lost with the dataplane is said"
    );
    let users: Vec<&str> = recording
        .participants
        .iter()
        .map(|one| one.uri.as_str())
        .collect();
    assert_eq!(users, ["sip:ann@x", "sip:ben@x", "sip:cat@x"]);
}

#[test]
fn a_client_that_dies_ends_its_session() {
    let mut world = World::new(ROUTE);
    let headers = [
        CONTACT,
        REQUIRE,
        ("Supported", "timer"),
        ("Session-Expires", "90;refresher=uac"),
    ];
    let sdp = offer(&["1", "2"], "sendonly");
    let invite = world.invite_with("sip:srs@127.0.0.1:5060", Some(&sdp), &headers);
    world.run(50);
    world.alice.ack(invite, world.now());
    world.run(50);
    world.alice.deaf = true;
    world.run(200_000);
    assert!(
        world.b2bua.is_idle(),
        "nobody refreshes: the session is over"
    );
    let recording = world.written_recording();
    assert!(recording.state.is_final() && recording.ended_at.is_some());
}

#[test]
fn recording_sessions_survive_any_network() {
    for seed in 0..20 {
        let fault = Fault {
            lose: 0.2,
            repeat: 0.15,
            delay_ms: 100,
        };
        let mut world = World::with_faults(ROUTE, fault, seed);
        world.alice.auto_ack = true;
        let parties = [("ann", "1"), ("ben", "2")];
        let body = multipart(
            &offer(&["1", "2"], "sendonly"),
            &metadata("complete", &parties),
        );
        let headers = [CONTACT, REQUIRE, MULTIPART];
        let invite = world.invite_with("sip:srs@127.0.0.1:5060", Some(&body), &headers);
        world
            .until(32_000, |world| {
                world.alice.statuses(invite).contains(&200).then_some(())
            })
            .unwrap_or_else(|| panic!("seed {seed}: no answer"));
        world.run(5_000);
        world.alice.bye(world.now());
        world
            .until(80_000, |world| world.b2bua.is_idle().then_some(()))
            .unwrap_or_else(|| panic!("seed {seed}: the session never ends"));
        assert!(world.written_recording().state.is_final(), "seed {seed}");
    }
}

#[test]
fn a_client_without_an_offer_gets_ours_and_answers_in_its_ack() {
    let mut world = World::new(ROUTE);
    let kind = ("Content-Type", "application/rs-metadata+xml");
    let document = metadata("complete", &[("ann", "1"), ("ben", "2")]);
    let headers = [CONTACT, REQUIRE, kind];
    let invite = world.invite_with("sip:srs@127.0.0.1:5060", Some(&document), &headers);
    world.run(50);
    let ours = world.alice.last_body(invite);
    assert_eq!(ours.matches("a=recvonly").count(), 2, "{ours}");
    let answer = offer(&["1", "2"], "sendonly");
    world.alice.ack_with(invite, Some(&answer), world.now());
    world.run(50);
    let legs = world.legs();
    assert_eq!(legs[&(0, Side::Callee)].rtp.unwrap().port(), 6002);
    assert_ne!(legs[&(0, Side::Caller)].flags & leg_flags::EXPECT_MEDIA, 0);
    let recording = end(&mut world);
    let users: Vec<&str> = (recording.participants.iter())
        .map(|one| one.uri.as_str())
        .collect();
    assert_eq!(users, ["sip:ann@x", "sip:ben@x"]);
}

#[test]
fn an_offer_of_ours_that_nobody_answers_ends_the_session() {
    let mut world = World::new(ROUTE);
    let invite = world.invite_with("sip:srs@127.0.0.1:5060", None, &[CONTACT, REQUIRE]);
    world.run(50);
    world.alice.ack(invite, world.now());
    world.run(500);
    assert_eq!(world.alice.byes, 1);
    assert!(world.b2bua.is_idle());
}

#[test]
fn a_full_document_is_asked_for_after_one_that_was_not_understood() {
    let mut world = World::new(ROUTE);
    let body = multipart(&offer(&["1"], "sendonly"), "<nonsense/>");
    let headers = [
        CONTACT,
        REQUIRE,
        MULTIPART,
        ("Allow", "INVITE, ACK, BYE, UPDATE"),
    ];
    let invite = world.invite_with("sip:srs@127.0.0.1:5060", Some(&body), &headers);
    world.run(50);
    world.alice.refreshes_for = Some(1800);
    world.alice.ack(invite, world.now());
    world.run(200);
    let asked = |world: &World| {
        let updates = world
            .alice
            .requests
            .iter()
            .filter(|one| one.method == Method::Update);
        updates
            .filter(|one| String::from_utf8_lossy(&one.body).contains("requestsnapshot"))
            .count()
    };
    assert_eq!(asked(&world), 1);
    let kind = "application/rs-metadata+xml";
    for _ in 0..9 {
        let now = world.now();
        world
            .alice
            .request_with_body(Method::Update, kind, "<nonsense/>", now);
        world.run(100);
    }
    assert_eq!(asked(&world), 3, "it is not asked for ever");
    end(&mut world);
}

#[test]
fn it_is_listed_while_it_lasts_and_found_afterwards() {
    let mut world = World::new(ROUTE);
    record(&mut world);
    let listed = world.b2bua.siprec_sessions();
    assert_eq!(listed.len(), 1);
    let one = serde_json::to_value(&listed[0]).unwrap();
    assert_eq!(one["role"], "server");
    assert_eq!(one["state"], "active");
    assert_eq!(one["session_id"], "cs");
    assert_eq!(one["revision"], 1);
    assert_eq!(one["streams"][0]["participant"], "sip:ann@x");
    assert_eq!(one["streams"][1]["label"], "2");
    assert_eq!(one["streams"][1]["codec"], "PCMU");
    assert_eq!(one["streams"][1]["packets"], 100);
    let recording = end(&mut world);
    assert_eq!(one["recording"], recording.id);
    assert!(world.b2bua.siprec_sessions().is_empty());
    let events = world.events();
    let own: Vec<&str> = events
        .into_iter()
        .filter(|one| one.starts_with("siprec."))
        .collect();
    assert_eq!(own, ["siprec.started", "siprec.stopped"]);
}

#[test]
fn deep_nesting_is_put_aside_and_the_media_is_recorded() {
    let mut world = World::new(ROUTE);
    let deep = format!(
        "<recording>{}{}</recording>",
        "<a>".repeat(900),
        "</a>".repeat(900)
    );
    let invite = begin(
        &mut world,
        &multipart(&offer(&["1", "2"], "sendonly"), &deep),
    );
    assert_eq!(world.alice.statuses(invite), [100, 200]);
    assert!(world.events().contains(&"alarm.raised"));
    world.alice.ack(invite, world.now());
    world.run(50);
    assert_eq!(end(&mut world).verdict, Some(Verdict::Complete));
}

#[test]
fn a_document_type_with_entities_is_put_aside() {
    let mut world = World::new(ROUTE);
    let bomb = "<!DOCTYPE r [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;\">]>\
        <recording xmlns='urn:ietf:params:xml:ns:recording:1'>&b;</recording>";
    let invite = begin(&mut world, &multipart(&offer(&["1"], "sendonly"), bomb));
    assert_eq!(world.alice.statuses(invite), [100, 200]);
    assert!(world.events().contains(&"alarm.raised"));
}

#[test]
fn metadata_for_streams_that_never_come_names_nobody_on_the_lines_there_are() {
    let mut world = World::new(ROUTE);
    let parties = [("ann", "1"), ("ben", "2"), ("ghost", "77"), ("shade", "78")];
    let text = metadata("complete", &parties);
    let invite = begin(
        &mut world,
        &multipart(&offer(&["1", "2"], "sendonly"), &text),
    );
    assert_eq!(world.alice.statuses(invite), [100, 200]);
    world.alice.ack(invite, world.now());
    world.run(50);
    let recording = end(&mut world);
    let users: Vec<&str> = recording
        .participants
        .iter()
        .map(|one| one.uri.as_str())
        .collect();
    assert_eq!(users, ["sip:ann@x", "sip:ben@x"]);
    assert_eq!(recording.verdict, Some(Verdict::Complete));
}

#[test]
fn labels_swapped_by_a_later_offer_follow_the_labels() {
    let mut world = World::new(ROUTE);
    record(&mut world);
    world.run(1000);
    // The same lines under each other's labels, with a document that says so.
    let parties = [("ann", "2"), ("ben", "1")];
    let body = multipart(
        &offer(&["1", "2"], "sendonly"),
        &metadata("complete", &parties),
    );
    let kind = "multipart/mixed;boundary=b";
    let again = world
        .alice
        .request_with_body(Method::Invite, kind, &body, world.now());
    world.run(50);
    assert_eq!(world.alice.statuses(again).last(), Some(&200));
    world.alice.ack(again, world.now());
    world.run(1000);
    let recording = end(&mut world);
    let last: Vec<(&str, u8)> = recording
        .participants
        .iter()
        .filter(|one| one.to_ms.is_none())
        .map(|one| (one.uri.as_str(), one.channel))
        .collect();
    assert_eq!(
        last,
        [("sip:ben@x", 0), ("sip:ann@x", 1)],
        "lines stay, names follow"
    );
}

#[test]
fn mime_without_end_or_beginning_is_taken_for_what_is_left_of_it() {
    let mut world = World::new(ROUTE);
    let whole = multipart(
        &offer(&["1"], "sendonly"),
        &metadata("complete", &[("ann", "1")]),
    );
    let cut = whole.strip_suffix("\r\n--b--\r\n").unwrap();
    let invite = begin(&mut world, cut);
    assert_eq!(world.alice.statuses(invite), [100, 200]);
    world.alice.ack(invite, world.now());
    world.run(50);
    assert_eq!(people(&end(&mut world)).len(), 1);
    // Without its first delimiter the description is no part: what is left is metadata, and we offer.
    let mut world = World::new(ROUTE);
    let invite = begin(&mut world, whole.strip_prefix("--b").unwrap());
    assert_eq!(world.alice.statuses(invite), [100, 200]);
    let ours = world.alice.last_body(invite);
    assert_eq!(ours.matches("a=recvonly").count(), 2, "{ours}");
}
