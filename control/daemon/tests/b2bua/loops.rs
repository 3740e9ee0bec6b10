//! Loops and spirals (RFC 5393 section 4.2).

use crate::common::{World, sdp};

#[test]
fn an_invite_that_comes_back_unchanged_is_482() {
    let mut world = World::new("[[route]]\nnext = \"sip:127.0.0.1:5060\"\n");
    let alice = world.invite("sip:bob@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
    world.run(500);
    assert_eq!(world.alice.statuses(alice), [100, 482]);
    assert!(world.b2bua.is_idle());
    assert_eq!(world.opened(), 1, "found out on the first return");
}

#[test]
fn one_that_comes_back_changed_goes_on() {
    // The number is rewritten at the first pass, another route takes it at the second.
    let mut world = World::new(
        "[[route]]\nuser = \"1(.*)\"\nrewrite = \"2$1\"\nnext = \"sip:127.0.0.1:5060\"\n\
         [[route]]\nuser = \"2.*\"\nnext = \"sip:127.0.0.1:5070\"\n",
    );
    let alice = world.invite("sip:100@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
    world.run(100);
    let invite = world.bob.take_invite().expect("a spiral is no loop");
    assert_eq!(invite.request.uri.user(), Some("200"));
    let answer = sdp("127.0.0.1", 7000);
    world.bob.respond(&invite, 200, Some(&answer), world.now());
    world.run(100);
    assert_eq!(world.alice.statuses(alice).last(), Some(&200));
}

#[test]
fn a_header_that_routes_look_at_tells_a_spiral_from_a_loop() {
    let mut world = World::new(
        "[[route]]\nheader = { \"X-Pass\" = \"2\" }\nnext = \"sip:127.0.0.1:5070\"\n\
         [[route]]\nnext = \"sip:127.0.0.1:5060\"\n\
         headers = { set = { \"X-Pass\" = \"2\" } }\n",
    );
    world.invite("sip:bob@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
    world.run(100);
    assert!(world.bob.take_invite().is_some());
}
