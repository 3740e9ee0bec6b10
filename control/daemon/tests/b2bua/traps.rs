//! Traps that other B2BUAs fell into, each by its name.

use trunkline_sinks::object::CallState;
use trunkline_sip::message::Response;
use trunkline_sip::transaction::{FlowId, Path, Transport};

use super::ROUTE;
use super::common::{US, World, sdp};

/// Hands a text to the B2BUA as a datagram of the callee's.
fn inject(world: &mut World, text: &[u8]) {
    let path = Path {
        transport: Transport::Udp,
        flow: FlowId(1),
        local: US.parse().unwrap(),
        source: world.bob.address,
    };
    let now = world.moment();
    world
        .b2bua
        .endpoint
        .handle_datagram(now.instant, path, text);
    world.b2bua.handle_sip_events(&now);
}

#[test]
fn a_lost_invite_to_the_callee_is_repeated() {
    let mut world = World::new(ROUTE);
    world.bob.deaf = true;
    let alice = world.invite("sip:bob@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
    world.run(1600);
    assert!(world.bob.take_invite().is_none());
    world.bob.deaf = false;
    world.run(2500);
    let invite = world.bob.take_invite().expect("the INVITE again");
    world.bob.respond(&invite, 486, None, world.now());
    world.run(500);
    assert_eq!(world.alice.statuses(alice).last(), Some(&486));
}

#[test]
fn a_lost_cancel_and_a_lost_bye_to_the_callee_are_repeated() {
    let mut world = World::new(ROUTE);
    let alice = world.invite("sip:bob@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
    world.run(50);
    let invite = world.bob.take_invite().unwrap();
    world.bob.respond(&invite, 180, None, world.now());
    world.run(50);
    world.bob.deaf = true;
    world.alice.cancel(alice, world.now());
    world.run(1200);
    assert_eq!(world.bob.cancels, 0);
    world.bob.deaf = false;
    world.run(4000);
    assert_eq!(world.bob.cancels, 1);
    assert!(world.b2bua.is_idle());

    let mut world = World::new(ROUTE);
    world.establish();
    world.bob.deaf = true;
    world.alice.bye(world.now());
    world.run(1200);
    world.bob.deaf = false;
    world.run(4000);
    assert_eq!(world.bob.byes, 1);
    assert!(world.b2bua.is_idle());
}

#[test]
fn the_callers_2xx_is_repeated_until_its_ack() {
    let mut world = World::new(ROUTE);
    let alice = world.invite("sip:bob@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
    world.run(50);
    let invite = world.bob.take_invite().unwrap();
    world.alice.deaf = true;
    let answer = sdp("127.0.0.1", 7000);
    world.bob.respond(&invite, 200, Some(&answer), world.now());
    world.run(3000);
    world.alice.deaf = false;
    world.run(5000);
    assert_eq!(world.alice.statuses(alice).last(), Some(&200));
    world.alice.ack(alice, world.now());
    world.run(40_000);
    assert_eq!(world.only_call().state, CallState::Active);
}

#[test]
fn the_2xx_of_a_passed_reinvite_is_repeated_until_its_ack() {
    let mut world = World::new(ROUTE);
    world.establish();
    let again = world
        .alice
        .reinvite(Some(&sdp("127.0.0.1", 6002)), world.now());
    world.run(50);
    let invite = world.bob.take_invite().unwrap();
    world.alice.deaf = true;
    let answer = sdp("127.0.0.1", 7002);
    world.bob.respond(&invite, 200, Some(&answer), world.now());
    world.run(3000);
    world.alice.deaf = false;
    world.run(5000);
    assert_eq!(world.alice.statuses(again).last(), Some(&200));
    world.alice.ack(again, world.now());
    world.run(40_000);
    assert_eq!(world.only_call().state, CallState::Active);
    assert_eq!((world.alice.byes, world.bob.byes), (0, 0));
}

#[test]
fn a_reinvite_whose_far_side_is_silent_gets_a_final_response() {
    let mut world = World::new(ROUTE);
    world.establish();
    world.bob.deaf = true;
    let again = world
        .alice
        .reinvite(Some(&sdp("127.0.0.1", 6002)), world.now());
    world.run(40_000);
    let last = world.alice.statuses(again).last().copied();
    assert!(last.is_some_and(|status| status >= 400), "{last:?}");
}

#[test]
fn a_180_after_the_200_is_not_passed_on() {
    let mut world = World::new(ROUTE);
    let alice = world.invite("sip:bob@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
    world.run(50);
    let invite = world.bob.take_invite().unwrap();
    let answer = sdp("127.0.0.1", 7000);
    world.bob.respond(&invite, 200, Some(&answer), world.now());
    world.run(50);
    let mut late = Response::to(&invite.request, 180);
    late.set_to_tag("late");
    late.headers.append("Contact", "<sip:bob@127.0.0.1:5070>");
    inject(&mut world, &late.to_bytes());
    world.run(50);
    assert_eq!(world.alice.statuses(alice).last(), Some(&200));
}

#[test]
fn a_stray_ack_is_never_answered() {
    let mut world = World::new(ROUTE);
    world.establish();
    let ack = "ACK sip:x@127.0.0.1:5060 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5070;branch=z9hG4bKstray\r\n\
               Max-Forwards: 70\r\nFrom: <sip:b@127.0.0.1>;tag=b\r\nTo: <sip:a@127.0.0.1>;tag=nobody\r\n\
               Call-ID: nothing\r\nCSeq: 7 ACK\r\nContent-Length: 0\r\n\r\n";
    inject(&mut world, ack.as_bytes());
    assert!(world.b2bua.endpoint.poll_transmit().is_none());
    assert_eq!(world.only_call().state, CallState::Active);
}

#[test]
fn require_100rel_of_a_callee_does_not_reach_a_caller_without_it() {
    let mut world = World::new(ROUTE);
    let alice = world.invite("sip:bob@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
    world.run(50);
    let invite = world.bob.take_invite().unwrap();
    let reliable = [("Require", "100rel"), ("RSeq", "4711")];
    let early = sdp("127.0.0.1", 7000);
    world
        .bob
        .respond_with(&invite, 183, Some(&early), &reliable, world.now());
    world.run(100);
    assert_eq!(world.alice.statuses(alice).last(), Some(&183));
    assert_eq!(world.alice.last_header(alice, "Require"), None);
    assert_eq!(world.alice.last_header(alice, "RSeq"), None);
}

#[test]
fn the_far_legs_invite_is_clean() {
    let mut world = World::new(ROUTE);
    world.invite("sip:bob@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
    world.run(50);
    let invite = world.bob.take_invite().unwrap().request;
    let headers = &invite.headers;
    assert_eq!(headers.max_forwards().unwrap(), Some(69));
    let to = headers.get("To").unwrap();
    assert!(
        to.matches(":50").count() <= 1 && !to.contains("tag="),
        "{to}"
    );
    let from = headers.get("From").unwrap();
    assert!(
        from.contains("\"A\" <sip:alice@") && !from.contains("5080"),
        "{from}"
    );
    let text = String::from_utf8(invite.to_bytes()).unwrap();
    assert!(
        !text.contains("0.0.0.0") && !text.contains(&world.alice.call_id),
        "{text}"
    );
    assert_eq!(headers.count("Via"), 1);
    assert_eq!(headers.count("Record-Route"), 0);
}

#[test]
fn changes_of_both_sides_at_once_are_491_and_leave_the_call_as_it_was() {
    let mut world = World::new(ROUTE);
    world.establish();
    let ours = world
        .alice
        .reinvite(Some(&sdp("127.0.0.1", 6002)), world.now());
    let theirs = world
        .bob
        .reinvite(Some(&sdp("127.0.0.1", 7002)), world.now());
    world.run(500);
    let statuses = [
        world.alice.statuses(ours).last().copied(),
        world.bob.statuses(theirs).last().copied(),
    ];
    assert!(statuses.contains(&Some(491)), "{statuses:?}");
    assert_eq!(world.only_call().state, CallState::Active);
    world.alice.bye(world.now());
    world.run(40_000);
    assert_eq!(world.bob.byes, 1);
    assert!(world.b2bua.is_idle());
}
