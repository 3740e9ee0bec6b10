//! Every leg and every attempt has its records, and exactly one of them is the final one.

use std::collections::BTreeMap;

use crate::common::{Fault, World, sdp};
use trunkline_control::ledger::{Told, end_orphan};
use trunkline_sinks::cdr::{Attempt, Cdr, Direction, RecordKind};
use trunkline_sinks::object::{EndedBy, Role};
use trunkline_sip::message::Method;

const ROUTE: &str = "[[route]]\nname = \"out\"\nnext = \"sip:127.0.0.1:5070\"\nrecord = true\n\
                     tenant = \"acme\"\ncapture_headers = [\"X-Queue\"]\n";
const IN_ORDER: &str = "[[route]]\nnext = [\"sip:127.0.0.1:5070\", \"sip:127.0.0.1:5071\"]\n";

pub fn records(world: &World) -> Vec<Cdr> {
    let records = world.told.iter().filter_map(|told| match told {
        Told::Record(record) => Some((**record).clone()),
        _ => None,
    });
    records.collect()
}

fn finals(world: &World) -> Vec<Cdr> {
    let mut finals = records(world);
    finals.retain(|record| record.record == RecordKind::Final);
    finals.sort_by_key(|record| record.attempt);
    finals
}

/// Each leg that began has exactly one final record, and it is its last.
pub fn assert_one_final_a_leg(records: &[Cdr], what: &str) {
    let mut legs = BTreeMap::<&str, Vec<RecordKind>>::new();
    for record in records {
        legs.entry(&record.id).or_default().push(record.record);
    }
    for (leg, kinds) in legs {
        let count = kinds
            .iter()
            .filter(|kind| **kind == RecordKind::Final)
            .count();
        assert_eq!(count, 1, "{what}: {leg}: {kinds:?}");
        assert_eq!(
            kinds.last(),
            Some(&RecordKind::Final),
            "{what}: {leg}: {kinds:?}"
        );
    }
}

#[test]
fn an_answered_call_has_a_record_at_invite_answer_and_end_of_each_leg() {
    let mut world = World::new(ROUTE);
    let headers = [
        ("P-Asserted-Identity", "<sip:+4930@carrier.example>"),
        ("Session-ID", "abc;remote=0"),
        ("X-Queue", "sales"),
    ];
    let offer = sdp("127.0.0.1", 6000);
    let alice = world.invite_with("sip:bob@127.0.0.1:5060", Some(&offer), &headers);
    world.run(50);
    let invite = world.bob.take_invite().unwrap();
    world.run(150);
    world.bob.respond(&invite, 180, None, world.now());
    world.run(800);
    let answer = sdp("127.0.0.1", 7000);
    world.bob.respond(&invite, 200, Some(&answer), world.now());
    world.run(50);
    world.alice.ack(alice, world.now());
    world.run(5000);
    let id = world.only_call().id;
    world.alice.bye(world.now());
    world.run(500);
    let kinds: Vec<(Direction, RecordKind)> = records(&world)
        .iter()
        .map(|record| (record.direction, record.record))
        .collect();
    let (inbound, outbound) = (Direction::Inbound, Direction::Outbound);
    assert_eq!(
        kinds,
        [
            (inbound, RecordKind::Start),
            (outbound, RecordKind::Start),
            (outbound, RecordKind::Answer),
            (inbound, RecordKind::Answer),
            (inbound, RecordKind::Final),
            (outbound, RecordKind::Final),
        ]
    );
    let finals = finals(&world);
    let [caller, callee] = finals.as_slice() else {
        panic!("two legs")
    };
    for one in [caller, callee] {
        assert_eq!(one.call_id, id);
        assert_eq!(
            (one.ended_by, one.sip_code),
            (Some(EndedBy::Caller), Some(200))
        );
        assert_eq!(one.sip_call_id_in, world.alice.call_id);
        assert_eq!(
            one.sip_call_id_out.as_deref(),
            invite.request.headers.call_id().ok().as_deref()
        );
        assert_eq!(
            (one.tenant.as_deref(), one.route.as_deref()),
            (Some("acme"), Some("out"))
        );
        assert_eq!(
            one.asserted_identity.as_deref(),
            Some("<sip:+4930@carrier.example>")
        );
        assert_eq!(one.session_id.as_deref(), Some("abc"));
        assert_eq!(one.attributes["X-Queue"], "sales");
        assert_eq!(one.request_uri_in, "sip:bob@127.0.0.1:5060");
        assert_eq!(
            one.request_uri_out.as_deref(),
            Some("sip:bob@127.0.0.1:5070")
        );
        assert_eq!(one.codec.as_deref(), Some("PCMU"));
        assert_eq!(one.recordings.len(), 1);
        assert_eq!(
            (one.recordings[0].caller.written, one.mos),
            (100, Some(4.4))
        );
        assert!(
            (5000..5200).contains(&one.duration_ms),
            "{}",
            one.duration_ms
        );
        assert!(
            (800..810).contains(&one.ring_ms.unwrap()),
            "{:?}",
            one.ring_ms
        );
        assert!(
            (190..215).contains(&one.post_dial_delay_ms.unwrap()),
            "{:?}",
            one.post_dial_delay_ms
        );
        assert!(one.was_established());
        assert!(one.trunk_in.is_none() && one.trunk_out.is_none());
    }
    assert_eq!(caller.remote, "udp:127.0.0.1:5080");
    assert_eq!(callee.remote, "udp:127.0.0.1:5070");
    assert_eq!((caller.attempt, callee.attempt), (0, 1));
    assert_eq!(caller.id, world.written_call(&id).legs[0].id);
    assert_eq!(callee.id, world.written_call(&id).legs[1].id);
}

#[test]
fn each_attempt_has_its_record_and_the_next_tells_of_it() {
    let mut world = World::new(IN_ORDER);
    let alice = world.invite("sip:bob@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
    world.run(50);
    let first = world.bob.take_invite().unwrap();
    let reason = [("Reason", "Q.850;cause=41;text=\"no circuit\"")];
    world
        .bob
        .respond_with(&first, 503, None, &reason, world.now());
    world.run(50);
    let second = world.carol.take_invite().unwrap();
    world.carol.respond(&second, 486, None, world.now());
    world.run(500);
    assert_eq!(world.alice.statuses(alice), [100, 486]);
    let finals = finals(&world);
    let [caller, bob, carol] = finals.as_slice() else {
        panic!("one record a leg: {finals:#?}")
    };
    assert_eq!((bob.sip_code, bob.q850), (Some(503), Some(41)));
    assert_eq!(
        bob.reason.as_deref(),
        Some("Q.850;cause=41;text=\"no circuit\"")
    );
    assert_eq!(bob.ended_by, Some(EndedBy::Callee));
    assert!(bob.failover.is_empty());
    let tried = Attempt {
        request_uri: "sip:bob@127.0.0.1:5070".to_owned(),
        sip_call_id: first.request.headers.call_id().unwrap(),
        sip_code: Some(503),
        q850: Some(41),
    };
    assert_eq!(carol.failover, std::slice::from_ref(&tried));
    assert_eq!((carol.attempt, carol.sip_code), (2, Some(486)));
    assert_eq!(caller.sip_code, Some(486));
    assert_eq!(caller.failover.len(), 2);
    assert_eq!(caller.failover[0], tried);
    assert!(
        finals
            .iter()
            .all(|one| !one.was_established() && one.duration_ms == 0)
    );
}

#[test]
fn a_call_that_the_caller_gives_up_says_so_on_both_legs() {
    let mut world = World::new(ROUTE);
    let alice = world.invite("sip:bob@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
    world.run(50);
    let invite = world.bob.take_invite().unwrap();
    world.bob.respond(&invite, 180, None, world.now());
    world.run(50);
    world.alice.cancel(alice, world.now());
    world.run(500);
    for one in finals(&world) {
        assert_eq!(
            (one.ended_by, one.sip_code),
            (Some(EndedBy::Caller), Some(487))
        );
    }
    assert_eq!(finals(&world).len(), 2);
}

#[test]
fn an_invite_that_is_refused_has_a_record_of_its_own() {
    let mut world = World::new("[[route]]\nuser = \"1\"\nnext = \"sip:127.0.0.1:5070\"\n");
    world.invite("sip:bob@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
    world.run(50);
    let finals = finals(&world);
    assert_eq!(finals.len(), 1);
    assert_eq!(
        (finals[0].sip_code, finals[0].ended_by),
        (Some(404), Some(EndedBy::Us))
    );
    assert_eq!(finals[0].sip_call_id, world.alice.call_id);
}

#[test]
fn of_targets_rung_at_once_the_slower_one_is_ended_by_us() {
    let mut world =
        World::new("[[route]]\nnext = [[\"sip:127.0.0.1:5070\", \"sip:127.0.0.1:5071\"]]\n");
    let alice = world.invite("sip:bob@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
    world.run(50);
    let bob = world.bob.take_invite().unwrap();
    let answer = sdp("127.0.0.1", 7000);
    world.bob.respond(&bob, 200, Some(&answer), world.now());
    world.run(100);
    world.alice.ack(alice, world.now());
    world.run(1000);
    let slower = finals(&world);
    assert_eq!(slower.len(), 1, "carol's leg is over already");
    assert_eq!(
        (slower[0].sip_code, slower[0].ended_by),
        (Some(487), Some(EndedBy::Us))
    );
    let reason = slower[0].reason.as_deref().unwrap();
    assert!(reason.contains("Call completed elsewhere"), "{reason}");
    world.alice.bye(world.now());
    world.run(500);
    assert_one_final_a_leg(&records(&world), "at once");
    assert_eq!(finals(&world).len(), 3);
}

#[test]
fn a_long_call_has_interim_records() {
    let mut world = World::new(&format!("{ROUTE}[cdr]\ninterim_minutes = 10\n"));
    world.establish();
    world.run(25 * 60_000);
    let interim: Vec<Cdr> = records(&world)
        .into_iter()
        .filter(|record| record.record == RecordKind::Interim)
        .collect();
    assert_eq!(interim.len(), 4, "two for each leg");
    assert!((599_000..601_000).contains(&interim[0].duration_ms));
    assert!((1_199_000..1_201_000).contains(&interim[3].duration_ms));
    assert!(interim.iter().all(|record| record.ended_at.is_none()));
    world.alice.bye(world.now());
    world.run(500);
    world.run(25 * 60_000);
    assert_one_final_a_leg(&records(&world), "interim");
}

#[test]
fn a_restarted_control_goes_on_with_the_legs_of_live_calls_and_ends_the_others() {
    let mut world = World::new(ROUTE);
    world.establish();
    let open: Vec<Cdr> = {
        let mut latest = BTreeMap::new();
        for record in records(&world) {
            latest.insert(record.id.clone(), record);
        }
        latest.into_values().collect()
    };
    assert_eq!(open.len(), 2);
    let mut stranger = open[0].clone();
    (stranger.id, stranger.call_id) = ("gone".to_owned(), "gone too".to_owned());
    world.restart_control_with(open.iter().cloned().chain([stranger]).collect());
    let mut orphans = world.b2bua.ledger.orphans();
    assert_eq!(orphans.len(), 1, "only the one whose call is gone");
    end_orphan(&mut orphans[0], None, &[], world.moment().utc);
    assert_eq!(orphans[0].ended_by, Some(EndedBy::Unknown));
    assert_eq!(orphans[0].record, RecordKind::Final);
    world.alice.bye(world.now());
    world.run(500);
    assert_one_final_a_leg(&records(&world), "restart");
    let finals = finals(&world);
    assert_eq!(finals.len(), 2);
    assert!(
        finals
            .iter()
            .all(|one| one.ended_by == Some(EndedBy::Caller))
    );
    assert!(finals.iter().all(|one| one.recordings.len() == 1));
    assert_eq!(finals[0].asserted_identity, open[0].asserted_identity);
}

#[test]
fn records_lost_before_the_crash_are_made_of_the_calls_own() {
    let mut world = World::new(ROUTE);
    world.establish();
    world.told.clear();
    world.restart_control_with(Vec::new());
    world.alice.bye(world.now());
    world.run(500);
    let finals = finals(&world);
    assert_eq!(finals.len(), 2);
    assert!(
        finals
            .iter()
            .all(|one| one.was_established() && one.sip_code == Some(200))
    );
    assert_eq!(finals[0].sip_call_id, world.alice.call_id);
}

#[test]
fn whatever_the_network_does_each_leg_ends_once() {
    for seed in 0..30 {
        let fault = Fault {
            lose: 0.3,
            repeat: 0.2,
            delay_ms: 200,
        };
        let text = format!("{IN_ORDER}reroute_on = [408, 503]\n");
        let mut world = World::with_faults(&text, fault, seed);
        let alice = world.invite("sip:bob@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
        world.alice.auto_ack = true;
        if let Some(invite) = world.until(8_000, |world| world.bob.take_invite()) {
            world.bob.respond(&invite, 503, None, world.now());
        }
        if let Some(invite) = world.until(8_000, |world| world.carol.take_invite()) {
            let answer = sdp("127.0.0.1", 7000);
            world
                .carol
                .respond(&invite, 200, Some(&answer), world.now());
        }
        let open = world.alice.statuses(alice).iter().all(|code| *code < 200);
        if seed % 2 == 0 && open {
            world.alice.cancel(alice, world.now());
        }
        let answered = world.until(40_000, |world| {
            world.alice.statuses(alice).contains(&200).then_some(())
        });
        world.run(3_000);
        if answered.is_some() {
            world.alice.bye(world.now());
        }
        world
            .until(120_000, |world| world.b2bua.is_idle().then_some(()))
            .unwrap_or_else(|| panic!("seed {seed}: the call never ends"));
        assert_one_final_a_leg(&records(&world), &format!("seed {seed}"));
    }
}

const NORMAL: &str = "Q.850;cause=16;text=\"Normal call clearing\"";

#[test]
fn the_reason_of_a_bye_crosses_both_ways_and_is_recorded() {
    for caller_ends in [true, false] {
        let mut world = World::new(ROUTE);
        world.establish();
        let (now, reason) = (world.now(), [("Reason", NORMAL)]);
        match caller_ends {
            true => world.alice.request(Method::Bye, &reason, now),
            false => world.bob.request(Method::Bye, &reason, now),
        };
        world.run(500);
        let far = match caller_ends {
            true => &world.bob,
            false => &world.alice,
        };
        assert_eq!(far.last_bye_reason, NORMAL);
        let by = match caller_ends {
            true => EndedBy::Caller,
            false => EndedBy::Callee,
        };
        for one in finals(&world) {
            assert_eq!((one.ended_by, one.q850), (Some(by), Some(16)));
            assert_eq!(one.reason.as_deref(), Some(NORMAL));
        }
    }
}

#[test]
fn the_reason_of_a_cancel_crosses_and_is_recorded() {
    let mut world = World::new(ROUTE);
    let alice = world.invite("sip:bob@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
    world.run(50);
    let invite = world.bob.take_invite().unwrap();
    world.bob.respond(&invite, 180, None, world.now());
    world.run(50);
    let (now, reason) = (world.now(), [("Reason", NORMAL)]);
    world.alice.cancel_with(alice, &reason, now);
    world.run(500);
    assert_eq!(world.bob.last_cancel_reason, NORMAL);
    for one in finals(&world) {
        assert_eq!((one.q850, one.reason.as_deref()), (Some(16), Some(NORMAL)));
    }
    assert_eq!(finals(&world).len(), 2);
}

#[test]
fn a_transfer_is_told_in_the_records_of_all_three_legs() {
    let route = "[[route]]\nuser = \"carol\"\nnext = \"sip:127.0.0.1:5071\"\n\
                 [[route]]\nuser = \"bob\"\nnext = \"sip:127.0.0.1:5070\"\n";
    let mut world = World::new(route);
    world.establish();
    let to_carol = ("Refer-To", "<sip:carol@127.0.0.1:5060>");
    world.bob.request(Method::Refer, &[to_carol], world.now());
    world.run(50);
    let invite = world.carol.take_invite().unwrap();
    let answer = sdp("127.0.0.1", 7100);
    world
        .carol
        .respond(&invite, 200, Some(&answer), world.now());
    world.run(2_000);
    world.carol.bye(world.now());
    world.run(2_000);
    let all = records(&world);
    assert_one_final_a_leg(&all, "transfer");
    let finals = finals(&world);
    assert_eq!(finals.len(), 3);
    let of = |leg: Role| finals.iter().find(|one| one.leg == leg).unwrap();
    let (alice, bob, carol) = (of(Role::Caller), of(Role::Callee), of(Role::Transfer));
    assert_eq!(bob.ended_by, Some(EndedBy::Us));
    assert!(bob.ended_at.unwrap() < carol.ended_at.unwrap());
    assert_eq!(
        (alice.ended_by, carol.ended_by),
        (Some(EndedBy::Callee), Some(EndedBy::Callee))
    );
    assert!(carol.answered_at.is_some() && carol.established_at.is_some());
    for one in [alice, carol] {
        assert_eq!(one.call_id, bob.call_id);
        let [step] = one.transfers.as_slice() else {
            panic!("one transfer: {:?}", one.transfers)
        };
        assert_eq!(step.target, "sip:carol@127.0.0.1:5060");
        assert_eq!(step.sip_call_id, carol.sip_call_id);
        assert_eq!(step.sip_code, Some(200));
    }
    let started = world
        .told
        .iter()
        .any(|told| matches!(told, Told::TransferStarted(_, to) if to.contains("carol")));
    assert!(started);
}

#[test]
fn an_invite_with_replaces_that_comes_to_nothing_has_its_record_and_is_no_attempt_of_the_calls() {
    let mut world = World::new(ROUTE);
    world.establish();
    let ours = crate::common::US.parse().unwrap();
    let known = world.bob.replaces();
    let offer = sdp("127.0.0.1", 7100);
    let replace = |world: &mut World, header: &str, more: &[(&str, &str)]| {
        let mut headers = vec![("Replaces", header)];
        headers.extend(more);
        let now = world.now();
        let carol = &mut world.carol;
        let sent = carol.invite("sip:bob@127.0.0.1", ours, Some(&offer), &headers, now);
        let call_id = carol.call_id_of(sent);
        world.run(100);
        (sent, call_id)
    };
    // It names nobody; it requires what we do not have; we would not hear of its end.
    let (_, nobody) = replace(&mut world, "abc;to-tag=1;from-tag=2", &[]);
    let (_, required) = replace(&mut world, &known, &[("Require", "teleport")]);
    let (sent, dismissed) = replace(&mut world, &known, &[]);
    world.carol.cancel(sent, world.now());
    world.run(500);
    let refused = finals(&world);
    let of = |id: &str| refused.iter().find(|one| one.sip_call_id == id).unwrap();
    for (id, status) in [(&nobody, 481), (&required, 420), (&dismissed, 487)] {
        assert_eq!(of(id).sip_code, Some(status));
        assert_eq!(of(id).direction, Direction::Inbound);
    }
    // Alice, who was asked, stays with bob.
    if let Some(again) = world.alice.take_invite() {
        let answer = sdp("127.0.0.1", 6000);
        world.alice.respond(&again, 200, Some(&answer), world.now());
        world.run(100);
    }
    world.alice.bye(world.now());
    world.run(2_000);
    let ended = finals(&world);
    assert_one_final_a_leg(&records(&world), "replaces");
    assert_eq!(ended.len(), 5);
    assert!(ended.iter().all(|one| one.failover.is_empty()));
}
