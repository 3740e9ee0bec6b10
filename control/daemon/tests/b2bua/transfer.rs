//! Transfers: what each party hears of them in its signalling, where media goes, and what becomes of
//! the call and its recording, in virtual time.

use crate::cdr;
use crate::common::{Agent, Fault, World, sdp};
use trunkline_control::api::handle::{ActionError, TransferMode, TransferOrder};
use trunkline_link::message::Side;
use trunkline_sinks::object::{CallState, EndedBy, Role};
use trunkline_sip::dialog::parse_sipfrag;
use trunkline_sip::message::Method;

const ROUTES: &str = "[[route]]\nuser = \"carol\"\nnext = \"sip:127.0.0.1:5071\"\nrecord = true\n\
                      [[route]]\nuser = \"bob\"\nnext = \"sip:127.0.0.1:5070\"\nrecord = true\n";
const TO_CAROL: (&str, &str) = ("Refer-To", "<sip:carol@127.0.0.1:5060>");

/// The statuses that NOTIFYs told an agent of, and the state of the last.
fn told(agent: &Agent) -> (Vec<u16>, String) {
    let notifies = agent
        .requests
        .iter()
        .filter(|one| one.method == Method::Notify);
    let mut last = String::new();
    let statuses = notifies
        .map(|notify| {
            assert_eq!(notify.headers.get("Event").as_deref(), Some("refer"));
            last = notify
                .headers
                .get("Subscription-State")
                .unwrap()
                .into_owned();
            parse_sipfrag(&notify.body).unwrap()
        })
        .collect();
    (statuses, last)
}

/// Nothing is left of the calls but one final record for each leg.
fn assert_over(world: &World) {
    assert!(world.b2bua.is_idle());
    cdr::assert_one_final_a_leg(&cdr::records(world), "transfer");
}

fn rtp(world: &World, side: Side) -> Option<std::net::SocketAddr> {
    world.legs()[&(0, side)].rtp
}

#[test]
fn a_blind_transfer_by_the_callee_gives_its_place_to_the_target() {
    let mut world = World::new(ROUTES);
    world.establish();
    let before = world.only_call();
    let refer = world.bob.request(Method::Refer, &[TO_CAROL], world.now());
    world.run(50);
    assert_eq!(world.bob.statuses(refer), [202]);
    let invite = world.carol.take_invite().expect("the target rings");
    let headers = &invite.request.headers;
    assert_eq!(invite.request.uri.as_str(), "sip:carol@127.0.0.1:5071");
    assert!(headers.get("From").unwrap().contains("alice"));
    assert_eq!(
        headers.get("Referred-By").as_deref(),
        Some("<sip:bob@127.0.0.1:5070>")
    );
    let history = headers.get("History-Info").unwrap().into_owned();
    assert!(
        history.contains("sip:bob@127.0.0.1:5060>;index=1"),
        "{history}"
    );
    assert!(
        history.contains("sip:carol@127.0.0.1:5060>;index=1.1"),
        "{history}"
    );
    // Carol's media is to come to the port where bob's came to.
    let told_carol = String::from_utf8_lossy(&invite.request.body).into_owned();
    assert!(
        told_carol.contains("m=audio 16386 RTP/AVP 0 101"),
        "{told_carol}"
    );
    world.carol.respond(&invite, 180, None, world.now());
    world.run(50);
    // The old parties talk on meanwhile.
    assert_eq!(
        rtp(&world, Side::Callee),
        Some("127.0.0.1:7000".parse().unwrap())
    );
    assert_eq!(
        (world.bob.byes, world.only_call().state),
        (0, CallState::Active)
    );
    let answer = sdp("127.0.0.1", 7100);
    world
        .carol
        .respond(&invite, 200, Some(&answer), world.now());
    world.run(200);
    assert_eq!(
        (world.carol.acks, world.bob.byes, world.alice.byes),
        (1, 1, 0)
    );
    let (statuses, state) = told(&world.bob);
    assert_eq!(statuses, [100, 180, 200]);
    assert_eq!(state, "terminated;reason=noresource");
    assert_eq!(
        rtp(&world, Side::Callee),
        Some("127.0.0.1:7100".parse().unwrap())
    );
    assert_eq!(
        rtp(&world, Side::Caller),
        Some("127.0.0.1:6000".parse().unwrap())
    );
    // What alice was told holds: she is not bothered.
    assert!(world.alice.take_invite().is_none());
    let call = world.only_call();
    assert_eq!(
        (call.id.as_str(), call.state),
        (before.id.as_str(), CallState::Active)
    );
    let legs: Vec<(Role, CallState)> = call.legs.iter().map(|leg| (leg.role, leg.state)).collect();
    assert_eq!(
        legs,
        [
            (Role::Caller, CallState::Active),
            (Role::Callee, CallState::Ended),
            (Role::Transfer, CallState::Active),
        ]
    );
    world.run(1_000);
    world.carol.bye(world.now());
    world.run(500);
    assert_eq!((world.carol.bye_status, world.alice.byes), (Some(200), 1));
    assert_over(&world);
    assert!(world.dataplane.closed);
    let call = world.written_call(&before.id);
    assert_eq!(
        (call.state, call.ended_by),
        (CallState::Ended, Some(EndedBy::Callee))
    );
    let events = world.events();
    let at = |name| events.iter().position(|one| *one == name).unwrap();
    assert!(
        at("call.transfer_started")
            < events
                .iter()
                .rposition(|one| *one == "call.bridged")
                .unwrap()
    );
}

#[test]
fn a_recording_goes_on_over_a_transfer_and_tells_who_took_part_when() {
    let mut world = World::new(ROUTES);
    world.establish();
    world.run(2_000);
    world.bob.request(Method::Refer, &[TO_CAROL], world.now());
    world.run(50);
    let invite = world.carol.take_invite().unwrap();
    let answer = sdp("127.0.0.1", 7100);
    world
        .carol
        .respond(&invite, 200, Some(&answer), world.now());
    world.run(3_000);
    world.alice.bye(world.now());
    world.run(500);
    let recording = world.written_recording();
    let parties: Vec<_> = recording
        .participants
        .iter()
        .map(|one| {
            (
                one.role,
                one.channel,
                one.from_ms / 1000,
                one.to_ms.map(|ms| ms / 1000),
            )
        })
        .collect();
    assert_eq!(
        parties,
        [
            (Role::Caller, 0, 0, None),
            (Role::Callee, 1, 0, Some(2)),
            (Role::Transfer, 1, 2, None),
        ]
    );
    assert_eq!(recording.participants[2].uri, "sip:carol@127.0.0.1:5060");
    assert_eq!(recording.sip_call_ids.len(), 3);
}

#[test]
fn the_caller_may_transfer_too() {
    let mut world = World::new(ROUTES);
    world.establish();
    world.alice.request(Method::Refer, &[TO_CAROL], world.now());
    world.run(50);
    let invite = world.carol.take_invite().unwrap();
    assert!(invite.request.headers.get("From").unwrap().contains("bob"));
    let told_carol = String::from_utf8_lossy(&invite.request.body).into_owned();
    assert!(told_carol.contains("m=audio 16384 "), "{told_carol}");
    let answer = sdp("127.0.0.1", 7100);
    world
        .carol
        .respond(&invite, 200, Some(&answer), world.now());
    world.run(200);
    assert_eq!(told(&world.alice).0, [100, 200]);
    assert_eq!((world.alice.byes, world.bob.byes), (1, 0));
    assert_eq!(
        rtp(&world, Side::Caller),
        Some("127.0.0.1:7100".parse().unwrap())
    );
    world.bob.bye(world.now());
    world.run(500);
    assert_eq!(world.carol.byes, 1);
    assert_over(&world);
}

#[test]
fn a_transfer_that_fails_leaves_all_as_it_was_and_says_why() {
    for (status, tells) in [(486, 486), (603, 603), (503, 500), (404, 404)] {
        let mut world = World::new(ROUTES);
        world.establish();
        world.bob.request(Method::Refer, &[TO_CAROL], world.now());
        world.run(50);
        let invite = world.carol.take_invite().unwrap();
        world.carol.respond(&invite, status, None, world.now());
        world.run(200);
        assert_eq!(told(&world.bob).0, [100, tells]);
        assert_eq!(
            rtp(&world, Side::Callee),
            Some("127.0.0.1:7000".parse().unwrap())
        );
        let call = world.only_call();
        assert_eq!(call.state, CallState::Active);
        assert_eq!(call.legs[2].state, CallState::Failed);
        assert!(world.events().contains(&"call.transfer_failed"));
        // It may be tried again, and the parties may hang up.
        world.bob.request(Method::Refer, &[TO_CAROL], world.now());
        world.run(50);
        assert!(world.carol.take_invite().is_some());
        world.bob.bye(world.now());
        world.run(100);
        world.alice.bye(world.now());
        world.run(500);
        assert_eq!(world.carol.cancels, 1);
        world.run(60_000);
        assert_over(&world);
    }
}

#[test]
fn nobody_there_no_route_and_nobody_answering_are_told_as_they_are() {
    let text = ROUTES.replacen("record = true\n", "record = true\nring_timeout_s = 5\n", 1);
    let mut world = World::new(&text);
    world.establish();
    let nowhere = ("Refer-To", "<sip:dave@127.0.0.1:5060>");
    world.bob.request(Method::Refer, &[nowhere], world.now());
    world.run(100);
    assert_eq!(told(&world.bob).0, [404]);
    world.bob.requests.clear();
    world.bob.request(Method::Refer, &[TO_CAROL], world.now());
    world.run(50);
    let invite = world.carol.take_invite().unwrap();
    world.carol.respond(&invite, 180, None, world.now());
    world.run(6_000);
    assert_eq!(world.carol.cancels, 1);
    let notifies: Vec<_> = world
        .bob
        .requests
        .iter()
        .filter(|one| one.method == Method::Notify)
        .collect();
    let last = notifies.last().unwrap();
    assert_eq!(parse_sipfrag(&last.body), Some(480));
    // The second REFER of a dialog has its number in Event.
    assert!(last.headers.get("Event").unwrap().starts_with("refer;id="));
    assert_eq!(world.only_call().state, CallState::Active);
}

#[test]
fn a_transferor_that_hangs_up_early_does_not_end_the_call() {
    for answers in [true, false] {
        let mut world = World::new(ROUTES);
        world.establish();
        world.bob.request(Method::Refer, &[TO_CAROL], world.now());
        world.run(50);
        let invite = world.carol.take_invite().unwrap();
        world.bob.bye(world.now());
        world.run(50);
        assert_eq!((world.bob.bye_status, world.alice.byes), (Some(200), 0));
        let answer = sdp("127.0.0.1", 7100);
        if answers {
            world
                .carol
                .respond(&invite, 200, Some(&answer), world.now());
            world.run(200);
            assert_eq!((world.alice.byes, world.bob.byes), (0, 0));
            assert_eq!(told(&world.bob).0.last(), Some(&200));
            assert_eq!(
                rtp(&world, Side::Callee),
                Some("127.0.0.1:7100".parse().unwrap())
            );
            world.alice.bye(world.now());
            world.run(500);
            assert_eq!(world.carol.byes, 1);
        } else {
            world.carol.respond(&invite, 486, None, world.now());
            world.run(500);
            assert_eq!(told(&world.bob).0.last(), Some(&486));
            assert_eq!(world.alice.byes, 1);
            assert!(world.alice.last_bye_reason.contains("cause=486"));
        }
        assert_over(&world);
        assert!(world.dataplane.closed);
    }
}

#[test]
fn the_party_that_stays_may_hang_up_while_the_target_rings() {
    let mut world = World::new(ROUTES);
    world.establish();
    world.bob.request(Method::Refer, &[TO_CAROL], world.now());
    world.run(50);
    let invite = world.carol.take_invite().unwrap();
    world.carol.respond(&invite, 180, None, world.now());
    world.run(50);
    world.alice.bye(world.now());
    world.run(500);
    assert_eq!((world.carol.cancels, world.bob.byes), (1, 1));
    assert_eq!(told(&world.bob).0.last(), Some(&487));
    assert_over(&world);
}

#[test]
fn a_held_party_is_taken_out_of_its_hold_by_the_newcomer() {
    let mut world = World::new(ROUTES);
    world.establish();
    hold(&mut world);
    assert_eq!(world.only_call().state, CallState::Held);
    world.bob.request(Method::Refer, &[TO_CAROL], world.now());
    world.run(50);
    let invite = world.carol.take_invite().unwrap();
    let offered = String::from_utf8_lossy(&invite.request.body).into_owned();
    assert!(offered.contains("a=sendrecv"), "{offered}");
    let answer = sdp("127.0.0.1", 7100);
    world
        .carol
        .respond(&invite, 200, Some(&answer), world.now());
    world.run(50);
    // Carol waits for her ACK until alice has taken her media.
    assert_eq!((world.carol.acks, told(&world.bob).0), (0, vec![100]));
    let again = world
        .alice
        .take_invite()
        .expect("alice is told that the hold is over");
    assert!(String::from_utf8_lossy(&again.request.body).contains("a=sendrecv"));
    world
        .alice
        .respond(&again, 200, Some(&sdp("127.0.0.1", 6000)), world.now());
    world.run(200);
    assert_eq!((world.carol.acks, world.alice.acks), (1, 2));
    assert_eq!(told(&world.bob).0, [100, 200]);
    assert_eq!(world.only_call().state, CallState::Active);
    assert!(world.events().contains(&"call.resumed"));
}

/// Bob puts alice on hold.
fn hold(world: &mut World) {
    let held = sdp("127.0.0.1", 7000).replace("a=sendrecv", "a=inactive");
    let reinvite = world.bob.reinvite(Some(&held), world.now());
    world.run(50);
    let passed = world.alice.take_invite().unwrap();
    let answer = sdp("127.0.0.1", 6000).replace("a=sendrecv", "a=inactive");
    world
        .alice
        .respond(&passed, 200, Some(&answer), world.now());
    world.run(50);
    world.bob.ack(reinvite, world.now());
    world.run(50);
}

#[test]
fn a_party_that_refuses_the_newcomers_media_stays_with_the_old_one() {
    let mut world = World::new(ROUTES);
    let two = sdp("127.0.0.1", 6000).replace("AVP 0 101", "AVP 0 8 101");
    let alice = world.invite("sip:bob@127.0.0.1:5060", Some(&two));
    world.run(50);
    let invite = world.bob.take_invite().unwrap();
    world
        .bob
        .respond(&invite, 200, Some(&sdp("127.0.0.1", 7000)), world.now());
    world.run(50);
    world.alice.ack(alice, world.now());
    world.run(50);
    world.bob.request(Method::Refer, &[TO_CAROL], world.now());
    world.run(50);
    let invite = world.carol.take_invite().unwrap();
    // She takes the codec that alice offered and was never told of.
    let answer = sdp("127.0.0.1", 7100).replace("AVP 0 101", "AVP 8 101");
    world
        .carol
        .respond(&invite, 200, Some(&answer), world.now());
    world.run(50);
    let again = world.alice.take_invite().expect("alice has to be told");
    assert!(String::from_utf8_lossy(&again.request.body).contains("RTP/AVP 8 101"));
    world.alice.respond(&again, 488, None, world.now());
    world.run(200);
    assert_eq!((world.carol.acks, world.carol.byes), (1, 1));
    assert_eq!(told(&world.bob).0, [100, 488]);
    assert_eq!(
        rtp(&world, Side::Callee),
        Some("127.0.0.1:7000".parse().unwrap())
    );
    assert_eq!(world.only_call().state, CallState::Active);
    world.bob.bye(world.now());
    world.run(500);
    assert_eq!(world.alice.byes, 1);
    assert_over(&world);
}

#[test]
fn a_refer_that_cannot_be_followed_is_refused() {
    let mut world = World::new(ROUTES);
    world.establish();
    let cases: [(&[(&str, &str)], u16); 6] = [
        (&[], 400),
        (&[("Refer-To", "<sip:a@b>, <sip:c@d>")], 400),
        (&[("Refer-To", "<mailto:a@b.example>")], 416),
        (&[("Refer-To", "<sip:carol@127.0.0.1;method=BYE>")], 603),
        (&[("Refer-To", "<sip:carol@127.0.0.1?Replaces=abc>")], 400),
        (&[TO_CAROL, ("Require", "foo")], 420),
    ];
    for (headers, status) in cases {
        let refer = world.bob.request(Method::Refer, headers, world.now());
        world.run(100);
        assert_eq!(world.bob.statuses(refer), [status], "{headers:?}");
    }
    assert!(world.carol.take_invite().is_none());
    world.bob.request(Method::Refer, &[TO_CAROL], world.now());
    world.run(50);
    let second = world.bob.request(Method::Refer, &[TO_CAROL], world.now());
    world.run(50);
    assert_eq!(world.bob.statuses(second), [491]);
}

#[test]
fn a_transferor_may_want_to_hear_nothing() {
    let mut world = World::new(ROUTES);
    world.establish();
    let headers = [TO_CAROL, ("Refer-Sub", "false"), ("Require", "norefersub")];
    let refer = world.bob.request(Method::Refer, &headers, world.now());
    world.run(50);
    assert_eq!(
        world.bob.last_header(refer, "Refer-Sub").as_deref(),
        Some("false")
    );
    let invite = world.carol.take_invite().unwrap();
    let answer = sdp("127.0.0.1", 7100);
    world
        .carol
        .respond(&invite, 200, Some(&answer), world.now());
    world.run(200);
    assert!(told(&world.bob).0.is_empty());
    assert_eq!(world.bob.byes, 1);
}

#[test]
fn outside_a_dialog_refer_is_forbidden_and_notify_unknown() {
    let mut world = World::new(ROUTES);
    for (method, status) in [
        (Method::Refer, 403),
        (Method::Notify, 481),
        (Method::Subscribe, 405),
    ] {
        let sent = world.outside(method, &[TO_CAROL]);
        world.run(50);
        assert_eq!(world.alice.statuses(sent), [status]);
    }
}

#[test]
fn a_transfer_survives_any_network() {
    for seed in 0..30 {
        let fault = Fault {
            lose: 0.2,
            repeat: 0.15,
            delay_ms: 100,
        };
        let mut world = World::with_faults(ROUTES, fault, seed);
        let alice = world.invite("sip:bob@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
        world.alice.auto_ack = true;
        let invite = world
            .until(20_000, |world| world.bob.take_invite())
            .unwrap();
        let now = world.now();
        world
            .bob
            .respond(&invite, 200, Some(&sdp("127.0.0.1", 7000)), now);
        world
            .until(32_000, |world| {
                world.alice.statuses(alice).contains(&200).then_some(())
            })
            .unwrap();
        world.run(5_000);
        world.bob.request(Method::Refer, &[TO_CAROL], world.now());
        let invite = world.until(20_000, |world| world.carol.take_invite());
        let invite = invite.unwrap_or_else(|| panic!("seed {seed}: carol never rings"));
        let now = world.now();
        world
            .carol
            .respond(&invite, 200, Some(&sdp("127.0.0.1", 7100)), now);
        world
            .until(60_000, |world| (world.bob.byes > 0).then_some(()))
            .unwrap_or_else(|| panic!("seed {seed}: bob is never let go"));
        assert_eq!(
            rtp(&world, Side::Callee),
            Some("127.0.0.1:7100".parse().unwrap())
        );
        world.run(20_000);
        assert!(
            world.carol.acks >= 1 && world.alice.byes == 0,
            "seed {seed}"
        );
        world.alice.bye(world.now());
        world
            .until(60_000, |world| world.b2bua.is_idle().then_some(()))
            .unwrap_or_else(|| panic!("seed {seed}: the call never ends"));
        assert!(
            world.carol.byes >= 1,
            "seed {seed}: carol never hears of the end"
        );
    }
}

/// Alice talks to bob, and dave, bob's other line, to carol.
fn consultation(world: &mut World) {
    world.establish();
    let offer = sdp("127.0.0.1", 8000);
    let ours = crate::common::US.parse().unwrap();
    let now = world.now();
    let dave = world
        .dave
        .invite("sip:carol@127.0.0.1:5060", ours, Some(&offer), &[], now);
    world.run(50);
    let invite = world.carol.take_invite().unwrap();
    world
        .carol
        .respond(&invite, 200, Some(&sdp("127.0.0.1", 7100)), world.now());
    world.run(50);
    world.dave.ack(dave, world.now());
    world.run(50);
}

/// Refer-To with the dialog between dave and us.
fn refer_to(world: &World) -> String {
    format!(
        "<sip:carol@127.0.0.1:5060?Replaces={}>",
        world
            .dave
            .replaces()
            .replace(';', "%3B")
            .replace('=', "%3D")
    )
}

#[test]
fn an_attended_transfer_joins_the_two_parties_and_ends_both_of_the_transferors_legs() {
    let mut world = World::new(ROUTES);
    consultation(&mut world);
    let calls = world.live_calls();
    let to = refer_to(&world);
    let first = calls
        .iter()
        .find(|one| one.callee == "bob")
        .unwrap()
        .id
        .clone();
    let second = calls
        .iter()
        .find(|one| one.callee == "carol")
        .unwrap()
        .id
        .clone();
    world
        .bob
        .request(Method::Refer, &[("Refer-To", &to)], world.now());
    world.run(50);
    // Nobody new is called: carol is offered alice's media by a re-INVITE.
    let again = world.carol.take_invite().expect("carol is re-invited");
    assert!(again.request.headers.to_tag().is_some());
    let offered = String::from_utf8_lossy(&again.request.body).into_owned();
    assert!(offered.contains("m=audio 16386 "), "{offered}");
    world
        .carol
        .respond(&again, 200, Some(&sdp("127.0.0.1", 7100)), world.now());
    world.run(200);
    assert_eq!(told(&world.bob).0, [100, 200]);
    assert_eq!((world.bob.byes, world.dave.byes), (1, 1));
    assert_eq!((world.alice.byes, world.carol.byes), (0, 0));
    assert_eq!(world.carol.acks, 2);
    let call = world.only_call();
    assert_eq!(
        (call.id.as_str(), call.state),
        (first.as_str(), CallState::Active)
    );
    assert_eq!(world.written_call(&second).state, CallState::Ended);
    // The two are one call now.
    world.carol.bye(world.now());
    world.run(500);
    assert_eq!((world.carol.bye_status, world.alice.byes), (Some(200), 1));
    world.run(1_000);
    assert_over(&world);
}

#[test]
fn a_consulted_party_that_refuses_stays_where_it_was() {
    let mut world = World::new(ROUTES);
    consultation(&mut world);
    let to = refer_to(&world);
    world
        .bob
        .request(Method::Refer, &[("Refer-To", &to)], world.now());
    world.run(50);
    let again = world.carol.take_invite().unwrap();
    world.carol.respond(&again, 488, None, world.now());
    world.run(200);
    assert_eq!(told(&world.bob).0, [100, 488]);
    assert_eq!(world.live_calls().len(), 2);
    assert_eq!(
        (world.bob.byes, world.dave.byes, world.carol.byes),
        (0, 0, 0)
    );
    world.dave.bye(world.now());
    world.alice.bye(world.now());
    world.run(1_000);
    assert_eq!((world.carol.byes, world.bob.byes), (1, 1));
    assert_over(&world);
}

#[test]
fn a_transferor_may_leave_its_consultation_before_the_transfer_is_through() {
    for accepts in [true, false] {
        let mut world = World::new(ROUTES);
        consultation(&mut world);
        let to = refer_to(&world);
        world
            .bob
            .request(Method::Refer, &[("Refer-To", &to)], world.now());
        world.run(50);
        let again = world.carol.take_invite().unwrap();
        world.dave.bye(world.now());
        world.run(50);
        assert_eq!(world.carol.byes, 0);
        let answer = sdp("127.0.0.1", 7100);
        let (status, body) = if accepts {
            (200, Some(answer.as_str()))
        } else {
            (488, None)
        };
        world.carol.respond(&again, status, body, world.now());
        world.run(500);
        assert_eq!(world.carol.byes, usize::from(!accepts));
        assert_eq!(world.bob.byes, usize::from(accepts));
        assert_eq!(world.live_calls().len(), 1);
    }
}

#[test]
fn a_refer_that_replaces_nothing_of_ours_is_passed_to_whoever_has_it() {
    let mut world = World::new(ROUTES);
    world.establish();
    let to = "<sip:carol@127.0.0.1:5060?Replaces=abc%3Bto-tag%3D1%3Bfrom-tag%3D2&X-Why=because>";
    world
        .bob
        .request(Method::Refer, &[("Refer-To", to)], world.now());
    world.run(50);
    let headers = world.carol.take_invite().unwrap().request.headers;
    assert_eq!(
        headers.get("Replaces").as_deref(),
        Some("abc;to-tag=1;from-tag=2")
    );
    assert_eq!(headers.get("Require").as_deref(), Some("replaces"));
    assert_eq!(headers.get("X-Why").as_deref(), Some("because"));
}

#[test]
fn an_invite_with_replaces_takes_the_place_of_our_peer() {
    let mut world = World::new(ROUTES);
    world.establish();
    let replaces = world.bob.replaces();
    let now = world.now();
    let ours = crate::common::US.parse().unwrap();
    let headers = [("Replaces", replaces.as_str()), ("Require", "replaces")];
    let offer = sdp("127.0.0.1", 7100);
    let carol = world
        .carol
        .invite("sip:bob@127.0.0.1:5060", ours, Some(&offer), &headers, now);
    world.run(50);
    let again = world
        .alice
        .take_invite()
        .expect("alice is offered carol's media");
    assert!(String::from_utf8_lossy(&again.request.body).contains("m=audio 16384 "));
    world
        .alice
        .respond(&again, 200, Some(&sdp("127.0.0.1", 6000)), world.now());
    world.run(50);
    assert_eq!(world.carol.statuses(carol).last(), Some(&200));
    assert!(world.carol.last_body(carol).contains("m=audio 16386 "));
    world.carol.ack(carol, world.now());
    world.run(200);
    assert_eq!(
        (world.bob.byes, world.alice.byes, world.alice.acks),
        (1, 0, 1)
    );
    assert_eq!(
        rtp(&world, Side::Callee),
        Some("127.0.0.1:7100".parse().unwrap())
    );
    world.alice.bye(world.now());
    world.run(500);
    assert_eq!(world.carol.byes, 1);
    assert_over(&world);
}

#[test]
fn an_invite_with_replaces_that_may_not_is_refused() {
    let mut world = World::new(ROUTES);
    world.establish();
    let known = world.bob.replaces();
    let early = format!("{known};early-only");
    let cases: [(&str, u16); 4] = [
        ("abc;to-tag=1;from-tag=2", 481),
        ("abc", 400),
        (&early, 486),
        (&known, 100),
    ];
    for (replaces, status) in cases {
        let now = world.now();
        let ours = crate::common::US.parse().unwrap();
        let offer = sdp("127.0.0.1", 7100);
        let sent = world.carol.invite(
            "sip:bob@127.0.0.1:5060",
            ours,
            Some(&offer),
            &[("Replaces", replaces)],
            now,
        );
        world.run(500);
        assert_eq!(
            world.carol.statuses(sent).last(),
            Some(&status),
            "{replaces}"
        );
    }
    // The last one is given up before alice has agreed.
    let again = world.alice.take_invite().unwrap();
    world.carol.cancel_last(world.now());
    world.run(100);
    world
        .alice
        .respond(&again, 200, Some(&sdp("127.0.0.1", 6000)), world.now());
    world.run(100);
    assert_eq!(world.bob.byes, 0);
    assert_eq!(
        rtp(&world, Side::Callee),
        Some("127.0.0.1:7000".parse().unwrap())
    );
}

#[test]
fn the_operator_transfers_too() {
    let mut world = World::new(ROUTES);
    world.establish();
    let id = world.only_call().id;
    let order = |leg: &str, target: &str, mode| TransferOrder {
        leg: leg.to_owned(),
        target: target.to_owned(),
        mode,
    };
    for (leg, target, mode) in [
        ("nobody", "sip:carol@127.0.0.1", TransferMode::Blind),
        ("callee", "mailto:a@b.example", TransferMode::Blind),
        ("callee", "no uri at all", TransferMode::Blind),
        ("callee", "0193", TransferMode::Attended),
    ] {
        let refused = world.transfer(&id, order(leg, target, mode));
        assert!(
            matches!(refused, Err(ActionError::Invalid(_))),
            "{leg} {target}"
        );
    }
    let callee = world.only_call().legs[1].id.clone();
    let to_carol = order(&callee, "sip:carol@127.0.0.1", TransferMode::Blind);
    let begun = world.transfer(&id, to_carol.clone()).unwrap();
    assert_eq!(begun.legs[2].role, Role::Transfer);
    let again = world.transfer(&id, to_carol);
    assert!(matches!(again, Err(ActionError::WrongState(_))));
    let invite = world.carol.take_invite().unwrap();
    world
        .carol
        .respond(&invite, 200, Some(&sdp("127.0.0.1", 7100)), world.now());
    world.run(200);
    assert_eq!((world.bob.byes, world.carol.acks), (1, 1));
    assert!(told(&world.bob).0.is_empty());
    assert!(world.bob.last_bye_reason.contains("transferred"));
}

#[test]
fn a_transferred_call_survives_a_restart_of_control() {
    let mut world = World::new(ROUTES);
    world.establish();
    world.bob.request(Method::Refer, &[TO_CAROL], world.now());
    world.run(50);
    let invite = world.carol.take_invite().unwrap();
    world
        .carol
        .respond(&invite, 200, Some(&sdp("127.0.0.1", 7100)), world.now());
    world.run(1_000);
    world.restart_control();
    let call = world.only_call();
    assert_eq!(call.legs.len(), 3);
    world.carol.bye(world.now());
    world.run(500);
    assert_eq!((world.carol.bye_status, world.alice.byes), (Some(200), 1));
    let recording = world.written_recording();
    assert_eq!(recording.participants.len(), 3);
    assert_over(&world);
}
