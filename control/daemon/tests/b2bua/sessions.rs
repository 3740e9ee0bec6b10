//! Session timers (RFC 4028) on both legs, each by itself, in virtual time.

use crate::common::{World, sdp};
use trunkline_sinks::object::CallState;
use trunkline_sip::message::Method;

const ROUTE: &str = "[[route]]\nnext = \"sip:127.0.0.1:5070\"\n";

/// An answered call whose callee answers with these headers; what the caller got in its 200.
fn call(
    world: &mut World,
    asked: &[(&str, &str)],
    answered: &[(&str, &str)],
) -> (Option<String>, Option<String>) {
    let offer = sdp("127.0.0.1", 6000);
    let alice = world.invite_with("sip:bob@127.0.0.1:5060", Some(&offer), asked);
    world.run(50);
    let invite = world.bob.take_invite().unwrap();
    assert_eq!(
        invite.request.headers.get("Session-Expires").as_deref(),
        Some("1800")
    );
    assert!(invite.request.headers.list_contains("Supported", "timer"));
    let answer = sdp("127.0.0.1", 7000);
    let now = world.now();
    world
        .bob
        .respond_with(&invite, 200, Some(&answer), answered, now);
    world.run(50);
    world.alice.ack(alice, world.now());
    world.run(50);
    (
        world.alice.last_header(alice, "Session-Expires"),
        world.alice.last_header(alice, "Require"),
    )
}

fn updates(world: &World) -> (usize, usize) {
    let count = |agent: &crate::common::Agent| {
        let of = |one: &&trunkline_sip::message::Request| one.method == Method::Update;
        agent.requests.iter().filter(of).count()
    };
    (count(&world.alice), count(&world.bob))
}

const UPDATES: (&str, &str) = ("Allow", "INVITE, ACK, BYE, UPDATE");

#[test]
fn each_leg_has_its_own_terms_and_we_refresh_where_we_are_to() {
    let mut world = World::new(ROUTE);
    let asked = [
        ("Supported", "timer"),
        ("Session-Expires", "600;refresher=uas"),
        UPDATES,
    ];
    let answered = [
        ("Session-Expires", "300;refresher=uac"),
        ("Require", "timer"),
        UPDATES,
    ];
    let (expires, require) = call(&mut world, &asked, &answered);
    assert_eq!(expires.as_deref(), Some("600;refresher=uas"));
    assert_eq!(require.as_deref(), Some("timer"));
    world.alice.refreshes_for = Some(600);
    world.bob.refreshes_for = Some(300);
    // Towards bob every 150 s, towards alice every 300 s, for as long as it may take.
    world.run(3_610_000);
    let (alice, bob) = updates(&world);
    assert_eq!((alice, bob), (12, 24));
    assert_eq!(world.only_call().state, CallState::Active);
}

#[test]
fn a_peer_that_is_to_refresh_and_does_not_is_hung_up_on() {
    let mut world = World::new(ROUTE);
    let asked = [
        ("Supported", "timer"),
        ("Session-Expires", "200;refresher=uac"),
    ];
    let (expires, _) = call(&mut world, &asked, &[]);
    assert_eq!(expires.as_deref(), Some("200;refresher=uac"));
    world.run(100_000);
    let refresh = world.alice.request(
        Method::Update,
        &[
            ("Supported", "timer"),
            ("Session-Expires", "200;refresher=uac"),
        ],
        world.now(),
    );
    world.run(100);
    assert_eq!(world.alice.statuses(refresh), [200]);
    let confirmed = world.alice.last_header(refresh, "Session-Expires");
    assert_eq!(confirmed.as_deref(), Some("200;refresher=uac"));
    world.run(160_000);
    assert_eq!(world.only_call().state, CallState::Active);
    world.run(10_000);
    assert_eq!((world.alice.byes, world.bob.byes), (1, 1));
    assert!(world.alice.last_bye_reason.contains("session expired"));
    assert!(world.b2bua.is_idle());
}

#[test]
fn too_small_an_interval_is_refused_and_ours_grows_with_the_peers_wish() {
    let mut world = World::new(ROUTE);
    let offer = sdp("127.0.0.1", 6000);
    let small = [("Supported", "timer"), ("Session-Expires", "60")];
    let alice = world.invite_with("sip:bob@127.0.0.1:5060", Some(&offer), &small);
    world.run(50);
    assert_eq!(world.alice.statuses(alice), [422]);
    assert_eq!(
        world.alice.last_header(alice, "Min-SE").as_deref(),
        Some("90")
    );

    let alice = world.invite("sip:bob@127.0.0.1:5060", Some(&offer));
    world.run(50);
    let first = world.bob.take_invite().unwrap();
    let now = world.now();
    world
        .bob
        .respond_with(&first, 422, None, &[("Min-SE", "3600")], now);
    world.run(50);
    let second = world.bob.take_invite().expect("it is tried again");
    let headers = &second.request.headers;
    assert_eq!(headers.get("Session-Expires").as_deref(), Some("3600"));
    assert_eq!(headers.get("Min-SE").as_deref(), Some("3600"));
    // No endless tries; and a CANCEL hits the one that is alive.
    world.alice.cancel(alice, world.now());
    world.bob.respond(&second, 180, None, world.now());
    world.run(500);
    assert_eq!(world.bob.cancels, 1);
    assert!(world.b2bua.is_idle());
}

#[test]
fn a_peer_without_update_is_refreshed_by_what_it_was_told_before() {
    let mut world = World::new(ROUTE);
    let answered = [
        ("Session-Expires", "200;refresher=uac"),
        ("Allow", "INVITE, ACK, BYE"),
    ];
    call(&mut world, &[], &answered);
    world.run(101_000);
    let again = world.bob.take_invite().expect("a re-INVITE refreshes");
    let version = |body: &[u8]| {
        let text = String::from_utf8_lossy(body).into_owned();
        text.lines().nth(1).unwrap().to_owned()
    };
    assert!(version(&again.request.body).split(' ').nth(2) == Some("1"));
    let expires = again.request.headers.get("Session-Expires");
    assert_eq!(expires.as_deref(), Some("200;refresher=uac"));
    let headers = [("Session-Expires", "200;refresher=uac")];
    let answer = sdp("127.0.0.1", 7000);
    let now = world.now();
    world
        .bob
        .respond_with(&again, 200, Some(&answer), &headers, now);
    world.run(100);
    assert_eq!(world.bob.acks, 2);
    world.run(50_000);
    assert_eq!(world.only_call().state, CallState::Active);
}
