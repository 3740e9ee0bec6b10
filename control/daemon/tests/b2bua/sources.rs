//! Limits for one source address, and scanners that are ignored.

use crate::common::{World, sdp};
use trunkline_sip::message::Method;

fn world(limits: &str) -> World {
    World::new(&format!(
        "[sip]\n{limits}\n[[route]]\nuser = \"bob|112\"\nnext = \"sip:127.0.0.1:5070\"\n"
    ))
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
