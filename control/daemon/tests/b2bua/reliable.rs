//! Reliable provisional responses (RFC 3262) and UPDATE before the answer (RFC 3311), each leg by itself.

use crate::common::{Fault, World, sdp};
use trunkline_link::message::Side;
use trunkline_sinks::object::CallState;
use trunkline_sip::message::{Method, Request};

const ROUTE: &str = "[[route]]\nnext = \"sip:127.0.0.1:5070\"\n";
const RELIABLE: [(&str, &str); 2] = [("Require", "100rel"), ("RSeq", "7")];

fn pracks(agent: &crate::common::Agent) -> Vec<&Request> {
    let of = |one: &&Request| one.method == Method::Prack;
    agent.requests.iter().filter(of).collect()
}

#[test]
fn a_targets_reliable_183_is_acknowledged_and_reaches_a_caller_without_100rel_as_a_plain_one() {
    let mut world = World::new(ROUTE);
    let alice = world.invite("sip:bob@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
    world.run(50);
    let invite = world.bob.take_invite().unwrap();
    assert!(invite.request.headers.list_contains("Supported", "100rel"));
    let early = sdp("127.0.0.1", 7000);
    for _ in 0..2 {
        let now = world.now();
        world
            .bob
            .respond_with(&invite, 183, Some(&early), &RELIABLE, now);
        world.run(50);
    }
    let sent = pracks(&world.bob);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].headers.get("RAck").as_deref(), Some("7 1 INVITE"));
    assert_eq!(world.alice.statuses(alice), [100, 183]);
    assert_eq!(world.alice.last_header(alice, "Require"), None);
    assert_eq!(world.alice.last_header(alice, "RSeq"), None);
    let now = world.now();
    world.bob.respond(&invite, 200, None, now);
    world.run(50);
    assert_eq!(world.alice.statuses(alice).last(), Some(&200));
    world.alice.ack(alice, world.now());
    world.run(50);
    world.alice.bye(world.now());
    world.run(200);
    let bye = world.bob.requests.last().unwrap();
    assert_eq!(bye.headers.get("CSeq").as_deref(), Some("3 BYE"));
    assert!(world.b2bua.is_idle());
}

/// A call of a caller that knows 100rel, in which the target has sent early media.
fn early(world: &mut World) -> (usize, crate::common::Received) {
    let offer = sdp("127.0.0.1", 6000);
    let headers = [("Supported", "100rel")];
    let alice = world.invite_with("sip:bob@127.0.0.1:5060", Some(&offer), &headers);
    world.run(50);
    let invite = world.bob.take_invite().unwrap();
    let now = world.now();
    let answer = sdp("127.0.0.1", 7000);
    world.bob.respond(&invite, 183, Some(&answer), now);
    world.run(50);
    (alice, invite)
}

#[test]
fn a_caller_with_100rel_gets_early_media_reliably_and_its_answer_after_its_prack() {
    let mut world = World::new(ROUTE);
    let (alice, invite) = early(&mut world);
    assert_eq!(
        world.alice.last_header(alice, "Require").as_deref(),
        Some("100rel")
    );
    let rseq = world.alice.last_header(alice, "RSeq").unwrap();
    world.run(2_000);
    let repeated = world
        .alice
        .statuses(alice)
        .iter()
        .filter(|one| **one == 183)
        .count();
    assert!(repeated > 1, "it is repeated until acknowledged");
    let now = world.now();
    world
        .bob
        .respond(&invite, 200, Some(&sdp("127.0.0.1", 7000)), now);
    world.run(100);
    assert!(
        !world.alice.statuses(alice).contains(&200),
        "the answer waits"
    );
    let wrong = world
        .alice
        .early_request(alice, Method::Prack, &[("RAck", "99 1 INVITE")], now);
    world.run(50);
    assert_eq!(world.alice.statuses(wrong), [481]);
    let rack = format!("{rseq} 1 INVITE");
    let prack = world
        .alice
        .early_request(alice, Method::Prack, &[("RAck", &rack)], world.now());
    world.run(50);
    assert_eq!(world.alice.statuses(prack), [200]);
    assert!(world.alice.statuses(alice).contains(&200));
    assert_eq!(world.only_call().state, CallState::Active);
}

#[test]
fn a_caller_that_never_acknowledges_is_refused_and_the_target_let_go() {
    for answers in [false, true] {
        let mut world = World::new(ROUTE);
        let (alice, invite) = early(&mut world);
        if answers {
            let now = world.now();
            world
                .bob
                .respond(&invite, 200, Some(&sdp("127.0.0.1", 7000)), now);
        }
        world.run(40_000);
        assert_eq!(world.alice.statuses(alice).last(), Some(&504));
        if answers {
            assert_eq!((world.bob.acks, world.bob.byes), (1, 1));
        } else {
            assert_eq!(world.bob.cancels, 1);
        }
        world.run(40_000);
        assert!(world.b2bua.is_idle());
    }
}

#[test]
fn a_cancel_while_the_answer_waits_ends_both_sides() {
    let mut world = World::new(ROUTE);
    let (alice, invite) = early(&mut world);
    let now = world.now();
    world
        .bob
        .respond(&invite, 200, Some(&sdp("127.0.0.1", 7000)), now);
    world.run(50);
    world.alice.cancel(alice, world.now());
    world.run(500);
    assert_eq!(world.alice.statuses(alice).last(), Some(&487));
    assert_eq!((world.bob.acks, world.bob.byes), (1, 1));
    assert!(world.b2bua.is_idle());
}

#[test]
fn an_update_before_the_answer_moves_media_and_the_caller_is_told_after_it_only_if_it_must() {
    let mut world = World::new(ROUTE);
    let (alice, invite) = early(&mut world);
    let rseq = world.alice.last_header(alice, "RSeq").unwrap();
    let rack = format!("{rseq} 1 INVITE");
    world
        .alice
        .early_request(alice, Method::Prack, &[("RAck", &rack)], world.now());
    world.run(50);
    let moved = sdp("127.0.0.1", 7200).replace("o=- 1", "o=- 2");
    let update = world.bob.update(&moved, world.now());
    world.run(50);
    assert_eq!(world.bob.statuses(update), [200]);
    assert!(world.bob.last_body(update).contains("m=audio 16386 "));
    let callee = world.legs()[&(0, Side::Callee)].rtp;
    assert_eq!(callee, Some("127.0.0.1:7200".parse().unwrap()));
    let now = world.now();
    world.bob.respond(&invite, 200, None, now);
    world.run(50);
    world.alice.ack(alice, world.now());
    world.run(50);
    assert!(world.alice.take_invite().is_none());
    assert_eq!(world.only_call().state, CallState::Active);
}

#[test]
fn reliable_responses_survive_any_network() {
    for seed in 0..30 {
        let fault = Fault {
            lose: 0.2,
            repeat: 0.15,
            delay_ms: 100,
        };
        let mut world = World::with_faults(ROUTE, fault, seed);
        world.alice.auto_ack = true;
        world.alice.auto_prack = true;
        let offer = sdp("127.0.0.1", 6000);
        let headers = [("Supported", "100rel")];
        let alice = world.invite_with("sip:bob@127.0.0.1:5060", Some(&offer), &headers);
        let invite = world
            .until(20_000, |world| world.bob.take_invite())
            .unwrap();
        // Bob repeats by hand what its stack would.
        let early = sdp("127.0.0.1", 7000);
        for _ in 0..60 {
            let now = world.now();
            world
                .bob
                .respond_with(&invite, 183, Some(&early), &RELIABLE, now);
            world.run(500);
            if !pracks(&world.bob).is_empty() {
                break;
            }
        }
        assert!(!pracks(&world.bob).is_empty(), "seed {seed}: no PRACK");
        let now = world.now();
        world.bob.respond(&invite, 200, None, now);
        world
            .until(40_000, |world| {
                world.alice.statuses(alice).contains(&200).then_some(())
            })
            .unwrap_or_else(|| panic!("seed {seed}: no answer"));
        world.run(20_000);
        assert_eq!(world.only_call().state, CallState::Active, "seed {seed}");
    }
}
