//! Peers that break the rules, or stop in the middle: the other party and the next call do not suffer.

use std::collections::BTreeMap;

use trunkline_control::ledger::Told;
use trunkline_sinks::cdr::RecordKind;
use trunkline_sinks::object::{CallState, EndedBy};
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

/// Each leg that has a record has one final one.
fn assert_one_final_record_a_leg(world: &World) {
    let mut finals = BTreeMap::<String, usize>::new();
    for told in &world.told {
        if let Told::Record(record) = told {
            let leg = finals.entry(record.id.clone()).or_default();
            *leg += usize::from(record.record == RecordKind::Final);
        }
    }
    assert!(finals.values().all(|count| *count == 1), "{finals:?}");
}

/// A callee that says 100 to a re-INVITE and then nothing: the asker is answered, and may ask again.
#[test]
fn a_reinvite_that_is_only_ever_tried_gets_a_final_response() {
    let mut world = World::new(ROUTE);
    world.establish();
    let offer = sdp("127.0.0.1", 6002);
    let first = world.alice.reinvite(Some(&offer), world.now());
    world.run(50);
    let invite = world.bob.take_invite().unwrap();
    world.bob.respond(&invite, 100, None, world.now());
    world.run(400_000);
    let last = world.alice.statuses(first).last().copied();
    assert!(last.is_some_and(|status| status >= 400), "{last:?}");
}

/// The asker takes the 2xx of its re-INVITE and never acknowledges it (RFC 3261 section 13.3.1.4).
#[test]
fn a_reinvite_whose_2xx_is_never_acknowledged_ends_the_call() {
    for offer in [Some(sdp("127.0.0.1", 6002)), None] {
        let mut world = World::new(ROUTE);
        world.establish();
        world.alice.reinvite(offer.as_deref(), world.now());
        world.run(50);
        let invite = world.bob.take_invite().unwrap();
        let answer = sdp("127.0.0.1", 7002);
        world.bob.respond(&invite, 200, Some(&answer), world.now());
        world.run(80_000);
        assert_eq!((world.alice.byes, world.bob.byes), (1, 1), "{offer:?}");
        assert!(world.b2bua.is_idle(), "{offer:?}");
        assert_one_final_record_a_leg(&world);
    }
}

/// A 2xx without Contact makes no dialog, but it is acknowledged and ended: its sender holds a call.
#[test]
fn a_2xx_without_contact_fails_the_call_and_is_acknowledged_and_ended() {
    let mut world = World::new(ROUTE);
    let alice = world.invite("sip:bob@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
    world.run(50);
    let invite = world.bob.take_invite().unwrap();
    let mut answer = Response::to(&invite.request, 200);
    answer.set_to_tag("bob");
    answer.set_body("application/sdp", sdp("127.0.0.1", 7000));
    inject(&mut world, &answer.to_bytes());
    world.run(200);
    assert_eq!(world.alice.statuses(alice).last(), Some(&500));
    assert_eq!((world.bob.acks, world.bob.byes), (1, 1));
    world.run(40_000);
    assert!(world.b2bua.is_idle());
    assert_one_final_record_a_leg(&world);
}

/// A 2xx that comes when the transaction is long over is acknowledged and ended all the same.
#[test]
fn a_2xx_after_all_timers_is_acknowledged_and_ended() {
    let mut world = World::new(ROUTE);
    world.bob.ignores_cancel = true;
    let alice = world.invite("sip:bob@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
    world.run(50);
    let invite = world.bob.take_invite().unwrap();
    world.run(1000);
    world.alice.cancel(alice, world.now());
    world.run(100_000);
    assert!(world.b2bua.is_idle());
    let mut answer = Response::to(&invite.request, 200);
    answer.set_to_tag("bob");
    answer.headers.append("Contact", "<sip:bob@127.0.0.1:5070>");
    answer.set_body("application/sdp", sdp("127.0.0.1", 7000));
    inject(&mut world, &answer.to_bytes());
    world.run(200);
    assert_eq!((world.bob.acks, world.bob.byes), (1, 1));
    // Its repetitions are acknowledged, and need no other BYE.
    for _ in 0..3 {
        inject(&mut world, &answer.to_bytes());
        world.run(1_000);
    }
    assert_eq!((world.bob.acks, world.bob.byes), (4, 1));
    world.run(40_000);
    assert_eq!(world.b2bua.endpoint.transactions(), (0, 0));
}

/// Requests beyond what a call may have under way are refused, and the call goes on.
#[test]
fn a_storm_of_requests_in_a_dialog_leaves_the_call_as_it_was() {
    let mut world = World::new(ROUTE);
    world.establish();
    world.bob.deaf = true;
    for _ in 0..500 {
        let now = world.now();
        world
            .alice
            .request(trunkline_sip::message::Method::Info, &[], now);
    }
    world.run(100_000);
    world.bob.deaf = false;
    assert_eq!(world.only_call().state, CallState::Active);
    world.alice.bye(world.now());
    world.run(40_000);
    assert!(world.b2bua.is_idle());
    assert_eq!(world.b2bua.endpoint.transactions(), (0, 0));
}

/// A callee that acknowledges nothing of ours: its BYE stays unanswered and the call still ends.
#[test]
fn a_callee_that_falls_silent_in_mid_call_does_not_hold_the_callers_end() {
    let mut world = World::new(ROUTE);
    world.establish();
    let call = world.only_call();
    world.bob.deaf = true;
    world.alice.bye(world.now());
    world.run(60_000);
    assert_eq!(world.alice.bye_status, Some(200));
    assert!(world.b2bua.is_idle());
    let call = world.written_call(&call.id);
    assert_eq!(call.ended_by, Some(EndedBy::Caller));
    assert_one_final_record_a_leg(&world);
}
