//! Limits for one source address, and scanners that are ignored.

use crate::common::{World, sdp};
use trunkline_sip::message::Method;

fn world(limits: &str) -> World {
    let mut world = World::new(&format!(
        "[sip]\n{limits}\n[[route]]\nuser = \"bob|112\"\nnext = \"sip:127.0.0.2:5070\"\n"
    ));
    world.bob.address = "127.0.0.2:5070".parse().unwrap();
    world
}

/// A call of alice's to somebody; its last status so far.
fn call(world: &mut World, user: &str) -> (usize, u16) {
    let uri = format!("sip:{user}@127.0.0.1:5060");
    let sent = world.invite(&uri, Some(&sdp("127.0.0.1", 6000)));
    world.run(20);
    (sent, *world.alice.statuses(sent).last().unwrap_or(&0))
}

#[test]
fn a_source_has_so_many_calls_at_once_and_no_more() {
    let mut world = world("source_calls_max = 2");
    let calls = [call(&mut world, "bob"), call(&mut world, "bob")];
    assert_eq!(calls.map(|(_, status)| status), [100, 100]);
    let (refused, status) = call(&mut world, "bob");
    assert_eq!(status, 503);
    let response = world.alice.responses(refused).last().unwrap();
    assert!(!response.headers.contains("Retry-After"), "we are not full");
    // Emergency calls are not counted against anybody.
    assert_eq!(call(&mut world, "112").1, 100);
    // When one is over there is room again.
    for invite in std::iter::from_fn(|| world.bob.take_invite()).collect::<Vec<_>>() {
        world.bob.respond(&invite, 486, None, world.now());
    }
    world.run(2_000);
    assert_eq!(call(&mut world, "bob").1, 100);
}

#[test]
fn a_source_has_so_many_new_calls_a_second() {
    let mut world = world("source_calls_per_second_max = 3");
    let statuses: Vec<u16> = (0..5).map(|_| call(&mut world, "bob").1).collect();
    assert_eq!(statuses, [100, 100, 100, 503, 503]);
    world.run(1_000);
    assert_eq!(call(&mut world, "bob").1, 100);
}

#[test]
fn a_scanner_is_ignored_for_a_while_and_nobody_else() {
    let mut world = world("ban_after = 3\nban_window_s = 10\nban_s = 60");
    for _ in 0..2 {
        assert_eq!(call(&mut world, "1000").1, 404);
    }
    world.run(11_000);
    // The window has passed: it begins anew.
    for _ in 0..2 {
        assert_eq!(call(&mut world, "1000").1, 404);
    }
    let register = world.outside(Method::Register, &[]);
    world.run(50);
    assert_eq!(world.alice.statuses(register), [405]);
    assert_eq!(call(&mut world, "bob").1, 0, "it hears nothing");
    assert!(world.bob.take_invite().is_none());
    world.run(61_000);
    assert_eq!(call(&mut world, "bob").1, 100);
}

#[test]
fn whoever_has_calls_is_not_ignored() {
    let mut world = world("ban_after = 2");
    world.establish();
    for _ in 0..5 {
        assert_eq!(call(&mut world, "1000").1, 404);
    }
    world.alice.bye(world.now());
    world.run(500);
    assert_eq!(world.alice.bye_status, Some(200));
}

#[test]
fn without_configuration_nobody_is_limited_or_ignored() {
    let mut world = world("");
    for _ in 0..50 {
        assert_eq!(call(&mut world, "1000").1, 404);
    }
    assert_eq!(call(&mut world, "bob").1, 100);
}

#[test]
fn whom_we_call_is_not_ignored() {
    // A route's target; and somebody at an address of the Request-URI's, while in a call.
    for next in ["sip:127.0.0.2:5070", "request"] {
        let mut world = World::new(&format!(
            "[sip]\nban_after = 2\n[[route]]\nuser = \"bob\"\nnext = \"{next}\"\n"
        ));
        world.bob.address = "127.0.0.2:5070".parse().unwrap();
        let uri = "sip:bob@127.0.0.2:5070";
        let alice = world.invite(uri, Some(&sdp("127.0.0.1", 6000)));
        world.run(50);
        let invite = world.bob.take_invite().unwrap();
        let answer = sdp("127.0.0.1", 7000);
        world.bob.respond(&invite, 200, Some(&answer), world.now());
        world.run(50);
        world.alice.ack(alice, world.now());
        world.run(50);
        let now = world.now();
        let us = crate::common::US.parse().unwrap();
        let senseless: Vec<usize> = (0..5)
            .map(|_| world.bob.outside(Method::Register, us, &[], now))
            .collect();
        world.run(50);
        for sent in senseless {
            assert_eq!(world.bob.statuses(sent), [405], "{next}");
        }
        world.bob.bye(world.now());
        world.run(500);
        assert_eq!(world.bob.bye_status, Some(200), "{next}");
    }
}

#[test]
fn who_is_ignored_is_heard_in_its_calls_and_in_an_emergency() {
    // The only target of the route is alice's host: what she answers there is heard.
    let mut world = World::new(
        "[sip]\nban_after = 2\nban_s = 600\n[[route]]\nuser = \"112|alice\"\nnext = \"request\"\n",
    );
    world.bob.address = "127.0.0.2:5070".parse().unwrap();
    let us = crate::common::US.parse().unwrap();
    let now = world.now();
    for _ in 0..3 {
        world.bob.outside(Method::Register, us, &[], now);
    }
    world.run(50);
    let ignored = world.bob.outside(Method::Options, us, &[], world.now());
    world.run(50);
    assert!(world.bob.statuses(ignored).is_empty());
    // Alice calls it: its responses and its BYE count.
    let alice = world.invite("sip:alice@127.0.0.2:5070", Some(&sdp("127.0.0.1", 6000)));
    world.run(50);
    let invite = world.bob.take_invite().unwrap();
    let answer = sdp("127.0.0.1", 7000);
    world.bob.respond(&invite, 200, Some(&answer), world.now());
    world.run(50);
    assert_eq!(world.alice.statuses(alice).last(), Some(&200));
    world.alice.ack(alice, world.now());
    world.run(50);
    world.bob.bye(world.now());
    world.run(500);
    assert_eq!(world.bob.bye_status, Some(200));
    // It needs help.
    let now = world.now();
    let body = sdp("127.0.0.1", 7000);
    let help = world
        .bob
        .invite("sip:112@127.0.0.1:5071", us, Some(&body), &[], now);
    world.run(50);
    assert_eq!(world.bob.statuses(help), [100]);
    assert!(world.carol.take_invite().is_some());
}
