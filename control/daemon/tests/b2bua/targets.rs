//! Where calls go, and what crosses on the way: targets in order and at once, rewriting, header
//! policy, codecs, in virtual time.

use crate::common::{World, sdp};
use trunkline_link::message::{Command, DigitSend, Side};
use trunkline_sinks::object::CallState;
use trunkline_sip::message::Method;

const IN_ORDER: &str = "[[route]]\nnext = [\"sip:127.0.0.1:5070\", \"sip:127.0.0.1:5071\"]\n";
const AT_ONCE: &str = "[[route]]\nnext = [[\"sip:127.0.0.1:5070\", \"sip:127.0.0.1:5071\"]]\n";

fn call(world: &mut World) -> usize {
    let alice = world.invite("sip:bob@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
    world.run(50);
    alice
}

#[test]
fn a_target_that_fails_leads_to_the_next_with_a_fresh_call_id() {
    let mut world = World::new(IN_ORDER);
    let alice = call(&mut world);
    let first = world.bob.take_invite().unwrap();
    assert!(world.carol.take_invite().is_none());
    world.bob.respond(&first, 503, None, world.now());
    world.run(50);
    let second = world.carol.take_invite().expect("the next target rings");
    let (one, other) = (&first.request.headers, &second.request.headers);
    assert_ne!(one.call_id().unwrap(), other.call_id().unwrap());
    assert_ne!(one.from_tag(), other.from_tag());
    assert_eq!(first.request.body, second.request.body);
    let answer = sdp("127.0.0.1", 7001);
    world
        .carol
        .respond(&second, 200, Some(&answer), world.now());
    world.run(50);
    assert_eq!(world.alice.statuses(alice), [100, 200]);
    world.alice.ack(alice, world.now());
    world.run(50);
    let call = world.only_call();
    assert_eq!(call.legs[1].sip_call_id, other.call_id().unwrap());
    assert_eq!(call.legs[1].peer, "udp:127.0.0.1:5071");
    world.alice.bye(world.now());
    world.run(500);
    assert_eq!((world.bob.byes, world.carol.byes), (0, 1));
    assert!(world.b2bua.is_idle() && world.dataplane.closed);
}

#[test]
fn early_media_of_a_target_that_failed_does_not_hold_for_the_next() {
    let mut world = World::new(IN_ORDER);
    let alice = call(&mut world);
    let first = world.bob.take_invite().unwrap();
    world
        .bob
        .respond(&first, 183, Some(&sdp("127.0.0.1", 7000)), world.now());
    world.run(50);
    world.bob.respond(&first, 500, None, world.now());
    world.run(50);
    let second = world.carol.take_invite().unwrap();
    let answer = sdp("127.0.0.1", 7001);
    world
        .carol
        .respond(&second, 200, Some(&answer), world.now());
    world.run(50);
    assert_eq!(world.alice.statuses(alice), [100, 183, 200]);
    let callee = world.legs()[&(0, trunkline_link::message::Side::Callee)].rtp;
    assert_eq!(callee, Some("127.0.0.1:7001".parse().unwrap()));
}

#[test]
fn a_busy_callee_and_a_decline_end_the_call() {
    for status in [486, 603, 404] {
        let mut world = World::new(IN_ORDER);
        let alice = call(&mut world);
        let invite = world.bob.take_invite().unwrap();
        world.bob.respond(&invite, status, None, world.now());
        world.run(500);
        assert_eq!(world.alice.statuses(alice), [100, status]);
        assert!(world.carol.take_invite().is_none());
        assert!(world.b2bua.is_idle());
    }
}

#[test]
fn chosen_codes_reroute() {
    let text = format!("{IN_ORDER}reroute_on = [404]\n");
    let mut world = World::new(&text);
    let alice = call(&mut world);
    let invite = world.bob.take_invite().unwrap();
    world.bob.respond(&invite, 404, None, world.now());
    world.run(50);
    let invite = world.carol.take_invite().unwrap();
    world.carol.respond(&invite, 503, None, world.now());
    world.run(500);
    // Nobody is left: the better of the two refusals is passed, never 503.
    assert_eq!(world.alice.statuses(alice), [100, 404]);
}

#[test]
fn a_dead_target_is_left_after_the_connect_timeout_and_not_left_ringing() {
    let mut world = World::new(IN_ORDER);
    world.bob.deaf = true;
    let alice = call(&mut world);
    world.run(3_800);
    assert!(world.carol.take_invite().is_none());
    world.run(400);
    let invite = world.carol.take_invite().expect("the next after 4 s");
    let answer = sdp("127.0.0.1", 7001);
    world
        .carol
        .respond(&invite, 200, Some(&answer), world.now());
    world.run(50);
    world.alice.ack(alice, world.now());
    // The dead one wakes up, hears a repeated INVITE and answers: it is sent away.
    world.bob.deaf = false;
    world.run(8_000);
    if let Some(invite) = world.bob.take_invite() {
        let late = sdp("127.0.0.1", 7000);
        world.bob.respond(&invite, 200, Some(&late), world.now());
        world.run(1_000);
        assert!(world.bob.cancels == 1 || (world.bob.acks, world.bob.byes) == (1, 1));
    }
    assert_eq!(world.only_call().state, CallState::Active);
}

#[test]
fn all_of_a_group_ring_and_the_fastest_wins() {
    let mut world = World::new(AT_ONCE);
    let alice = call(&mut world);
    let bob = world.bob.take_invite().unwrap();
    let carol = world.carol.take_invite().unwrap();
    world.bob.respond(&bob, 180, None, world.now());
    world.carol.respond(&carol, 180, None, world.now());
    world.run(50);
    let answer = sdp("127.0.0.1", 7001);
    world.carol.respond(&carol, 200, Some(&answer), world.now());
    world.run(50);
    world.alice.ack(alice, world.now());
    world.run(50);
    assert_eq!(world.alice.statuses(alice), [100, 180, 180, 200]);
    assert_eq!((world.bob.cancels, world.carol.acks), (1, 1));
    assert!(world.bob.last_cancel_reason.contains("cause=200"));
    world.alice.bye(world.now());
    world.run(500);
    assert_eq!((world.carol.byes, world.bob.byes), (1, 0));
    assert!(world.b2bua.is_idle());
}

#[test]
fn a_second_answer_is_acknowledged_and_ended() {
    let mut world = World::new(AT_ONCE);
    let alice = call(&mut world);
    let bob = world.bob.take_invite().unwrap();
    let carol = world.carol.take_invite().unwrap();
    world.bob.ignores_cancel = true;
    world.bob.respond(&bob, 180, None, world.now());
    world.run(20);
    let answer = sdp("127.0.0.1", 7001);
    world.carol.respond(&carol, 200, Some(&answer), world.now());
    world.run(50);
    world.alice.ack(alice, world.now());
    world.run(20);
    world
        .bob
        .respond(&bob, 200, Some(&sdp("127.0.0.1", 7000)), world.now());
    world.run(500);
    assert_eq!((world.bob.acks, world.bob.byes), (1, 1));
    assert_eq!(world.only_call().state, CallState::Active);
    assert_eq!(world.carol.byes, 0);
}

#[test]
fn a_real_response_beats_a_silent_target_in_a_fork() {
    let mut world = World::new(AT_ONCE);
    world.carol.deaf = true;
    let alice = call(&mut world);
    let bob = world.bob.take_invite().unwrap();
    world.bob.respond(&bob, 486, None, world.now());
    world.run(10_000);
    assert_eq!(world.alice.statuses(alice), [100, 486]);
}

#[test]
fn a_decline_stops_the_ringing_of_all() {
    let mut world = World::new(AT_ONCE);
    let alice = call(&mut world);
    let bob = world.bob.take_invite().unwrap();
    let carol = world.carol.take_invite().unwrap();
    world.carol.respond(&carol, 180, None, world.now());
    world.run(20);
    world.bob.respond(&bob, 603, None, world.now());
    world.run(500);
    assert_eq!(world.alice.statuses(alice).last(), Some(&603));
    assert_eq!(world.carol.cancels, 1);
    assert!(world.b2bua.is_idle());
}

#[test]
fn a_cancel_reaches_all_that_ring() {
    let mut world = World::new(AT_ONCE);
    let alice = call(&mut world);
    let bob = world.bob.take_invite().unwrap();
    let carol = world.carol.take_invite().unwrap();
    world.bob.respond(&bob, 180, None, world.now());
    world.carol.respond(&carol, 180, None, world.now());
    world.run(20);
    world.alice.cancel(alice, world.now());
    world.run(500);
    assert_eq!((world.bob.cancels, world.carol.cancels), (1, 1));
    assert_eq!(world.alice.statuses(alice).last(), Some(&487));
    assert!(world.b2bua.is_idle() && world.dataplane.closed);
}

#[test]
fn rings_too_long_then_the_next() {
    let text = format!("{IN_ORDER}ring_timeout_s = 10\n");
    let mut world = World::new(&text);
    let alice = call(&mut world);
    let bob = world.bob.take_invite().unwrap();
    world.bob.respond(&bob, 180, None, world.now());
    world.run(10_500);
    assert_eq!(world.bob.cancels, 1);
    let carol = world.carol.take_invite().unwrap();
    world.carol.respond(&carol, 180, None, world.now());
    world.run(11_000);
    assert_eq!(world.carol.cancels, 1);
    assert_eq!(world.alice.statuses(alice).last(), Some(&480));
}

#[test]
fn number_tenant_and_attributes_follow_the_route() {
    let text = "[[route]]\nuser = \"0([1-9][0-9]*)\"\nrewrite = \"+49$1\"\nnext = \"sip:127.0.0.1:5070\"\n\
                tenant = \"acme\"\ncapture_headers = [\"X-Account\", \"X-None\"]\n";
    for uri in ["sip:0301234@127.0.0.1:5060", "tel:030-1234"] {
        let mut world = World::new(text);
        let offer = sdp("127.0.0.1", 6000);
        world.invite_with(uri, Some(&offer), &[("X-Account", "4711")]);
        world.run(50);
        let invite = world.bob.take_invite().unwrap();
        assert_eq!(invite.request.uri.as_str(), "sip:+49301234@127.0.0.1:5070");
        let call = world.only_call();
        assert_eq!(call.tenant.as_deref(), Some("acme"));
        let attributes: Vec<(&str, &str)> = call
            .attributes
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(attributes, [("X-Account", "4711")]);
    }
}

#[test]
fn only_chosen_codecs_cross_both_ways() {
    let text = "[[route]]\nnext = \"sip:127.0.0.1:5070\"\ncodecs = [\"PCMA\"]\n";
    let mut world = World::new(text);
    let two = sdp("127.0.0.1", 6000).replace("AVP 0 101", "AVP 0 8 101");
    let alice = world.invite("sip:bob@127.0.0.1:5060", Some(&two));
    world.run(50);
    let invite = world.bob.take_invite().unwrap();
    let told = String::from_utf8_lossy(&invite.request.body).into_owned();
    assert!(told.contains("RTP/AVP 8 101\r\n"), "{told}");
    let answer = sdp("127.0.0.1", 7000).replace("AVP 0 101", "AVP 8 101");
    world.bob.respond(&invite, 200, Some(&answer), world.now());
    world.run(50);
    assert!(world.alice.last_body(alice).contains("RTP/AVP 8 101\r\n"));

    let mut world = World::new(text);
    let alice = call(&mut world);
    assert_eq!(world.alice.statuses(alice), [488]);
    assert!(world.bob.take_invite().is_none());
}

#[test]
fn headers_cross_by_policy_and_identity_byte_for_byte() {
    let identity =
        "eyJhbGciOiJFUzI1NiJ9..c2ln;info=<https://a.example/c.pem>;alg=ES256;ppt=\"shaken\"";
    let sent = [
        ("Identity", identity),
        ("X-Mine", "1"),
        ("P-Asserted-Identity", "<sip:+4930@a.example>"),
        ("Diversion", "<sip:x@a.example>;reason=unconditional"),
        (
            "Session-ID",
            "ab30317f1a784dc48ff824d0d3715d86;remote=00000000000000000000000000000000",
        ),
        ("User-to-User", "56a390f3d2b7310023a2;encoding=hex"),
    ];
    for (policy, crosses) in [
        ("headers = \"default\"", true),
        ("headers = \"strict\"", false),
        (
            "headers = { preset = \"strict\", pass = [\"X-Mine\"], set = { \"X-Via\" = \"us\" } }",
            true,
        ),
    ] {
        let text = format!("[[route]]\nnext = \"sip:127.0.0.1:5070\"\n{policy}\n");
        let mut world = World::new(&text);
        let offer = sdp("127.0.0.1", 6000);
        world.invite_with("sip:bob@127.0.0.1:5060", Some(&offer), &sent);
        world.run(50);
        let headers = world.bob.take_invite().unwrap().request.headers;
        for (name, value) in sent.iter().filter(|(name, _)| *name != "X-Mine") {
            assert_eq!(headers.get(name).as_deref(), Some(*value), "{policy}");
        }
        assert_eq!(headers.contains("X-Mine"), crosses, "{policy}");
        assert_eq!(headers.contains("X-Via"), policy.contains("X-Via"));
    }
}

#[test]
fn a_private_caller_stays_inside_the_trust_domain() {
    for (allow, hidden) in [("127.0.0.0/8", false), ("127.0.0.1/32", true)] {
        let text =
            format!("[sip]\nallow = [\"{allow}\"]\n[[route]]\nnext = \"sip:127.0.0.2:5070\"\n");
        let mut world = World::new(&text);
        world.bob.address = "127.0.0.2:5070".parse().unwrap();
        let offer = sdp("127.0.0.1", 6000);
        let headers = [
            ("Privacy", "id"),
            ("P-Asserted-Identity", "<sip:+4930@a.example>"),
        ];
        let alice = world.invite_with("sip:bob@127.0.0.1:5060", Some(&offer), &headers);
        world.run(50);
        let invite = world.bob.take_invite().unwrap();
        let text = &invite.request.headers;
        assert_eq!(text.contains("P-Asserted-Identity"), !hidden);
        let from = text.get("From").unwrap().into_owned();
        let contact = text.get("Contact").unwrap().into_owned();
        assert_eq!(from.contains("anonymous.invalid"), hidden, "{from}");
        assert_eq!(contact.contains("alice"), !hidden, "{contact}");
        // Nor does anything later in the call say who calls.
        let answer = sdp("127.0.0.1", 7000);
        world.bob.respond(&invite, 200, Some(&answer), world.now());
        world.run(50);
        world.alice.ack(alice, world.now());
        world.run(50);
        let identity = [
            ("P-Asserted-Identity", "<sip:+4930@a.example>"),
            ("Remote-Party-ID", "<sip:+4930@a.example>"),
        ];
        world.alice.request(Method::Info, &identity, world.now());
        world.run(50);
        world.alice.bye_with(&identity, world.now());
        world.run(500);
        for method in [Method::Info, Method::Bye] {
            let mut requests = world.bob.requests.iter();
            let request = requests.rfind(|one| one.method == method).unwrap();
            for (name, _) in identity {
                let told = request.headers.contains(name);
                assert_eq!(told, !hidden, "{name} of {method}");
            }
        }
    }
}

#[test]
fn a_refer_is_passed_or_refused_by_the_route() {
    for (mode, status) in [("pass", 200), ("refuse", 405)] {
        let text = format!("[[route]]\nnext = \"sip:127.0.0.1:5070\"\ntransfer = \"{mode}\"\n");
        let mut world = World::new(&text);
        world.establish();
        let refer = world.alice.request(
            Method::Refer,
            &[("Refer-To", "<sip:carol@127.0.0.1:5071>")],
            world.now(),
        );
        world.run(100);
        assert_eq!(world.alice.statuses(refer), [status], "{mode}");
        let passed = world
            .bob
            .requests
            .iter()
            .find(|one| one.method == Method::Refer);
        match passed {
            Some(request) => assert_eq!(
                request.headers.get("Refer-To").as_deref(),
                Some("<sip:carol@127.0.0.1:5071>")
            ),
            None => assert_eq!(mode, "refuse"),
        }
        assert_eq!(world.only_call().state, CallState::Active);
    }
}

#[test]
fn a_winner_with_other_codecs_than_the_early_target_is_told_of_after_the_answer() {
    let mut world = World::new(IN_ORDER);
    let two = sdp("127.0.0.1", 6000).replace("AVP 0 101", "AVP 0 8 101");
    let alice = world.invite("sip:bob@127.0.0.1:5060", Some(&two));
    world.run(50);
    let first = world.bob.take_invite().unwrap();
    world
        .bob
        .respond(&first, 183, Some(&sdp("127.0.0.1", 7000)), world.now());
    world.run(50);
    let early = world.alice.last_body(alice);
    world.bob.respond(&first, 500, None, world.now());
    world.run(50);
    let second = world.carol.take_invite().unwrap();
    let answer = sdp("127.0.0.1", 7001).replace("AVP 0 101", "AVP 8 101");
    world
        .carol
        .respond(&second, 200, Some(&answer), world.now());
    world.run(50);
    // One early dialog has one answer; only the dataplane has moved on.
    assert_eq!(world.alice.last_body(alice), early);
    assert!(world.alice.take_invite().is_none());
    world.alice.ack(alice, world.now());
    world.run(50);
    let again = world
        .alice
        .take_invite()
        .expect("a re-INVITE after the answer");
    let told = String::from_utf8_lossy(&again.request.body).into_owned();
    assert!(told.contains("RTP/AVP 8 101"), "{told}");
    let answer = sdp("127.0.0.1", 6000).replace("AVP 0 101", "AVP 8 101");
    world.alice.respond(&again, 200, Some(&answer), world.now());
    world.run(50);
    assert_eq!(
        (world.alice.acks, world.only_call().state),
        (1, CallState::Active)
    );
}

#[test]
fn the_breadth_of_a_request_is_shared_by_those_that_ring_at_once() {
    for (breadth, expected) in [("60", Some("30")), ("2", Some("1")), ("1", None)] {
        let mut world = World::new(AT_ONCE);
        let offer = sdp("127.0.0.1", 6000);
        let headers = [("Max-Breadth", breadth)];
        let alice = world.invite_with("sip:bob@127.0.0.1:5060", Some(&offer), &headers);
        world.run(50);
        match (world.bob.take_invite(), expected) {
            (Some(invite), expected) => {
                let given = invite.request.headers.get("Max-Breadth");
                assert_eq!(given.as_deref(), expected);
            }
            (None, None) => assert_eq!(world.alice.statuses(alice), [440]),
            (None, Some(_)) => panic!("nobody rings"),
        }
    }
}

#[test]
fn digits_are_told_and_reach_a_party_without_telephone_event_by_info() {
    let mut world = World::new(IN_ORDER);
    let alice = call(&mut world);
    let invite = world.bob.take_invite().unwrap();
    let answer = sdp("127.0.0.1", 7000).replace("AVP 0 101", "AVP 0");
    world.bob.respond(&invite, 200, Some(&answer), world.now());
    world.run(50);
    world.alice.ack(alice, world.now());
    world.run(50);
    world.digit(trunkline_link::message::Side::Caller, 11, 160);
    world.run(50);
    let info = world
        .bob
        .requests
        .iter()
        .find(|one| one.method == Method::Info);
    let info = info.expect("bob hears of the digit");
    assert_eq!(info.body, b"Signal=#\r\nDuration=160\r\n");
    let kind = info.headers.get("Content-Type");
    assert_eq!(kind.as_deref(), Some("application/dtmf-relay"));
    // Alice takes telephone-event: what bob dials goes to her as it is.
    world.digit(trunkline_link::message::Side::Callee, 5, 100);
    world.run(50);
    assert!(
        world
            .alice
            .requests
            .iter()
            .all(|one| one.method != Method::Info)
    );
    assert_eq!(
        world.events().iter().filter(|one| **one == "dtmf").count(),
        2
    );
}

fn info(world: &mut World, key: &str) -> u16 {
    let body = format!("Signal={key}\r\nDuration=120\r\n");
    let (kind, now) = ("application/dtmf-relay", world.now());
    let sent = world
        .alice
        .request_with(Method::Info, &[], (kind, &body), now);
    world.run(100);
    *world.alice.statuses(sent).last().unwrap()
}

fn dialled(world: &World) -> Vec<DigitSend> {
    let commands = world.dataplane.commands.iter();
    let digits = commands.filter_map(|command| match command {
        Command::DigitSend(digit) => Some(*digit),
        _ => None,
    });
    digits.collect()
}

#[test]
fn digits_by_info_reach_a_party_that_takes_no_info_as_telephone_events() {
    // Its Allow says so, or its refusal does.
    for says in [true, false] {
        let mut world = World::new(IN_ORDER);
        let alice = call(&mut world);
        let invite = world.bob.take_invite().unwrap();
        let answer = sdp("127.0.0.1", 7000).replace("101", "97");
        let allow = [("Allow", "INVITE, ACK, BYE, CANCEL")];
        let allow = if says { &allow[..] } else { &[] };
        world.bob.info_status = 415;
        let now = world.now();
        world
            .bob
            .respond_with(&invite, 200, Some(&answer), allow, now);
        world.run(50);
        world.alice.ack(alice, world.now());
        world.run(50);
        assert_eq!(info(&mut world, "5"), 200);
        assert_eq!(info(&mut world, "#"), 200);
        let digits = dialled(&world);
        let events: Vec<(u8, u16)> = digits
            .iter()
            .map(|one| (one.event, one.duration_ms))
            .collect();
        assert_eq!(events, [(5, 120), (11, 120)]);
        assert!(digits.iter().all(|one| {
            (one.to, one.media, one.pt, one.clock_hz) == (Side::Callee, 0, 97, 8000)
        }));
        let infos = world.bob.requests.iter();
        let infos = infos.filter(|one| one.method == Method::Info).count();
        assert_eq!(infos, usize::from(!says), "it is asked once at most");
        let told = world.events();
        assert_eq!(told.iter().filter(|one| **one == "dtmf").count(), 2);
    }
}

#[test]
fn a_party_that_takes_info_gets_the_digit_as_it_was_sent() {
    let mut world = World::new(IN_ORDER);
    world.establish();
    assert_eq!(info(&mut world, "5"), 200);
    assert!(dialled(&world).is_empty());
    let info_heard = world.bob.requests.last().unwrap();
    assert_eq!(info_heard.body, b"Signal=5\r\nDuration=120\r\n");
    // A refusal that says nothing of INFO is passed back.
    world.bob.info_status = 500;
    assert_eq!(info(&mut world, "6"), 500);
    assert!(dialled(&world).is_empty());
}

#[test]
fn where_neither_is_taken_the_refusal_is_passed_back() {
    let mut world = World::new(IN_ORDER);
    let alice = call(&mut world);
    let invite = world.bob.take_invite().unwrap();
    let answer = sdp("127.0.0.1", 7000).replace("AVP 0 101", "AVP 0");
    world.bob.info_status = 415;
    world.bob.respond(&invite, 200, Some(&answer), world.now());
    world.run(50);
    world.alice.ack(alice, world.now());
    world.run(50);
    assert_eq!(info(&mut world, "5"), 415);
    assert!(dialled(&world).is_empty());
}
