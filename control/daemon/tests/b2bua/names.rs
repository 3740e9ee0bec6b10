//! Targets that are host names: what is asked, and what happens when an address fails (RFC 3263).

use crate::cdr;
use crate::common::{World, sdp};
use trunkline_control::b2bua::{Hop, Lookup};
use trunkline_sinks::cdr::RecordKind;
use trunkline_sip::transaction::Transport;

const NAMED: &str = "[[route]]\nnext = \"sip:carrier.example\"\n";

fn udp(address: &str) -> Hop {
    Hop {
        transport: Transport::Udp,
        address: address.parse().unwrap(),
    }
}

/// Alice calls; the name leads to these.
fn call(world: &mut World, hops: &[Hop]) -> (usize, Lookup) {
    let alice = world.invite("sip:bob@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
    world.run(50);
    let asked = world.b2bua.take_lookups();
    assert_eq!(asked.len(), 1);
    let now = world.moment();
    world.b2bua.looked_up(asked[0].call, hops, &now);
    world.run(50);
    (alice, asked[0].clone())
}

#[test]
fn what_the_uri_says_of_the_way_is_asked_with_the_name() {
    let tcp = Some(Transport::Tcp);
    for (uri, port, transport) in [
        ("sip:carrier.example", None, None),
        ("sip:carrier.example:5080", Some(5080), None),
        ("sip:carrier.example;transport=tcp", None, tcp),
        ("sip:carrier.example:5080;transport=tcp", Some(5080), tcp),
    ] {
        let mut world = World::new(&format!("[[route]]\nnext = \"{uri}\"\n"));
        let (_, asked) = call(&mut world, &[udp("127.0.0.1:5070")]);
        assert_eq!(asked.host, "carrier.example");
        assert_eq!((asked.port, asked.transport), (port, transport), "{uri}");
        let invite = world.bob.take_invite().unwrap();
        let asked_for = invite.request.uri.to_string();
        assert_eq!(asked_for, uri.replace("sip:", "sip:bob@"));
    }
}

#[test]
fn a_server_that_is_out_of_service_leads_to_the_next_address() {
    let mut world = World::new(NAMED);
    let hops = [udp("127.0.0.1:5070"), udp("127.0.0.1:5071")];
    let (alice, _) = call(&mut world, &hops);
    let first = world.bob.take_invite().unwrap();
    assert!(world.carol.take_invite().is_none());
    world.bob.respond(&first, 503, None, world.now());
    world.run(50);
    let second = world.carol.take_invite().expect("the next address");
    assert_ne!(
        first.request.headers.call_id().unwrap(),
        second.request.headers.call_id().unwrap()
    );
    let answer = sdp("127.0.0.1", 7100);
    world
        .carol
        .respond(&second, 200, Some(&answer), world.now());
    world.run(50);
    assert_eq!(world.alice.statuses(alice), [100, 200]);
    world.alice.ack(alice, world.now());
    world.run(50);
    world.alice.bye(world.now());
    world.run(500);
    let records = cdr::records(&world);
    cdr::assert_one_final_a_leg(&records, "two addresses");
    let caller = records
        .iter()
        .find(|one| one.record == RecordKind::Final && one.attempt == 0)
        .unwrap();
    assert_eq!(caller.failover.len(), 1);
    assert_eq!(caller.failover[0].sip_code, Some(503));
}

#[test]
fn a_silent_address_is_left_after_the_connect_timeout() {
    let mut world = World::new(NAMED);
    world.bob.deaf = true;
    let hops = [udp("127.0.0.1:5070"), udp("127.0.0.1:5071")];
    let (alice, _) = call(&mut world, &hops);
    world.run(3_800);
    assert!(world.carol.take_invite().is_none());
    world.run(400);
    let invite = world.carol.take_invite().expect("the next after 4 s");
    let answer = sdp("127.0.0.1", 7100);
    world
        .carol
        .respond(&invite, 200, Some(&answer), world.now());
    world.run(50);
    assert_eq!(world.alice.statuses(alice), [100, 200]);
}

#[test]
fn a_refusal_is_the_targets_word_at_whatever_address() {
    let mut world = World::new(NAMED);
    let hops = [udp("127.0.0.1:5070"), udp("127.0.0.1:5071")];
    let (alice, _) = call(&mut world, &hops);
    let invite = world.bob.take_invite().unwrap();
    world.bob.respond(&invite, 486, None, world.now());
    world.run(500);
    assert!(world.carol.take_invite().is_none());
    assert_eq!(world.alice.statuses(alice), [100, 486]);
}

#[test]
fn an_address_that_cannot_be_sent_to_is_passed_over() {
    // Nothing of ours speaks TCP in this world.
    let mut world = World::new(NAMED);
    let stream = Hop {
        transport: Transport::Tcp,
        ..udp("127.0.0.1:5070")
    };
    let (_, _) = call(&mut world, &[stream, udp("127.0.0.1:5071")]);
    assert!(world.bob.take_invite().is_none());
    assert!(world.carol.take_invite().is_some());
}

#[test]
fn a_name_that_leads_nowhere_fails_the_call_and_all_addresses_down_too() {
    let mut world = World::new(NAMED);
    let (alice, _) = call(&mut world, &[]);
    world.run(500);
    assert_eq!(world.alice.statuses(alice), [100, 500]);
    assert!(world.b2bua.is_idle());
    let mut world = World::new(NAMED);
    let hops = [udp("127.0.0.1:5070"), udp("127.0.0.1:5071")];
    let (alice, _) = call(&mut world, &hops);
    for agent in [0, 1] {
        let one = [&mut world.bob, &mut world.carol].into_iter().nth(agent);
        let invite = one.unwrap().take_invite().unwrap();
        let now = world.now();
        let one = [&mut world.bob, &mut world.carol].into_iter().nth(agent);
        one.unwrap().respond(&invite, 503, None, now);
        world.run(100);
    }
    world.run(500);
    assert_eq!(world.alice.statuses(alice), [100, 500]);
    assert!(world.b2bua.is_idle());
}
