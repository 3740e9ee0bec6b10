//! Recording awareness (RFC 7866 section 6.1.2 and 7): who is told that it is recorded, when, and by what.

use trunkline_control::api::handle::RecordingAction;
use trunkline_sinks::object::{Indication, IndicationKind, Recording, Role};
use trunkline_sip::message::Method;

use super::common::{Agent, Fault, Received, World, sdp};
use super::siprec::{ONE, answer};

const ROUTE: &str = "[[route]]\nnext = \"sip:127.0.0.1:5070\"\nrecord = true\n";
const PLAIN: &str = "[[route]]\nnext = \"sip:127.0.0.1:5070\"\n";
const ON_DEMAND: &str = "[[route]]\nnext = \"sip:127.0.0.1:5070\"\nrecord = \"on_demand\"\n";
pub(super) const AWARE: (&str, &str) = ("Supported", "timer, record-aware");
const UNAWARE: (&str, &str) = ("Supported", "timer");

fn option(aware: bool) -> (&'static str, &'static str) {
    if aware { AWARE } else { UNAWARE }
}

fn body(invite: &Received) -> String {
    String::from_utf8(invite.request.body.clone()).unwrap()
}

/// What a description says of recording.
pub(super) fn told(sdp: &str) -> Option<&str> {
    let mut lines = sdp
        .lines()
        .filter_map(|line| line.strip_prefix("a=record:"));
    let first = lines.next();
    assert!(lines.all(|other| Some(other) == first), "{sdp}");
    first
}

fn version(sdp: &str) -> u64 {
    let origin = sdp.lines().find(|line| line.starts_with("o=")).unwrap();
    origin.split(' ').nth(2).unwrap().parse().unwrap()
}

/// A call, answered, before the caller's ACK: the number of the caller's INVITE.
fn answered(world: &mut World, caller: (bool, &str), callee: (bool, &str)) -> usize {
    let headers = [option(caller.0)];
    let alice = world.invite_with("sip:bob@127.0.0.1:5060", Some(caller.1), &headers);
    world.run(50);
    let invite = world.bob.take_invite().expect("an INVITE");
    let now = world.now();
    world
        .bob
        .respond_with(&invite, 200, Some(callee.1), &[option(callee.0)], now);
    world.run(50);
    alice
}

/// The same, acknowledged.
pub(super) fn call(text: &str, caller: (bool, &str), callee: (bool, &str)) -> (World, usize) {
    let mut world = World::new(text);
    let alice = answered(&mut world, caller, callee);
    world.alice.ack(alice, world.now());
    world.run(50);
    (world, alice)
}

fn alice_says() -> String {
    sdp("127.0.0.1", 6000)
}

fn bob_says() -> String {
    sdp("127.0.0.1", 7000)
}

/// A call between two of whom these understand `a=record`.
fn between(text: &str, caller: bool, callee: bool) -> (World, usize) {
    call(text, (caller, &alice_says()), (callee, &bob_says()))
}

/// A party's re-INVITE is answered; what it was told.
pub(super) fn accept(world: &mut World, who: fn(&mut World) -> &mut Agent, port: u16) -> String {
    accept_within(world, who, port, 6_000)
}

fn accept_within(
    world: &mut World,
    who: fn(&mut World) -> &mut Agent,
    port: u16,
    ms: u64,
) -> String {
    let invite = world.until(ms, |world| who(world).take_invite());
    let invite = invite.expect("a re-INVITE");
    let now = world.now();
    let says = sdp("127.0.0.1", port);
    who(world).respond(&invite, 200, Some(&says), now);
    world.run(50);
    body(&invite)
}

pub(super) fn alice(world: &mut World) -> &mut Agent {
    &mut world.alice
}

pub(super) fn bob(world: &mut World) -> &mut Agent {
    &mut world.bob
}

/// Nobody is told anything for a while.
fn all_is_said(world: &mut World) {
    world.run(10_000);
    assert!(world.alice.take_invite().is_none());
    assert!(world.bob.take_invite().is_none());
}

fn of(recording: &Recording) -> Vec<(Role, &str, Option<u16>)> {
    let receipt = recording.receipt.as_ref().unwrap();
    let told = receipt.indications.iter().map(|one: &Indication| {
        assert_eq!(one.kind, IndicationKind::Record);
        (one.side, one.value.as_str(), one.refused)
    });
    told.collect()
}

fn end(world: &mut World) {
    world.alice.bye(world.now());
    world.run(2_000);
    assert!(world.b2bua.is_idle());
}

#[test]
fn an_aware_caller_is_told_by_the_answer_and_an_unaware_callee_never() {
    let mut world = World::new(ROUTE);
    let caller = world.invite_with(
        "sip:bob@127.0.0.1:5060",
        Some(&alice_says()),
        &[("Supported", "Record-Aware")],
    );
    world.run(50);
    let invite = world.bob.take_invite().unwrap();
    assert_eq!(told(&body(&invite)), None);
    assert!(
        invite.request.headers.supports("record-aware"),
        "the callee may rely on the caller being told"
    );
    world
        .bob
        .respond_with(&invite, 200, Some(&bob_says()), &[UNAWARE], world.now());
    world.run(50);
    assert_eq!(told(&world.alice.last_body(caller)), Some("on"));
    let supported = world.alice.last_header(caller, "Supported");
    assert!(!supported.unwrap_or_default().contains("record-aware"));
    let of_now = |world: &World| of(&world.written_recording()).len();
    assert_eq!(of_now(&world), 0, "told, and not acknowledged");
    world.alice.ack(caller, world.now());
    world.run(50);
    assert_eq!(of_now(&world), 1);
    all_is_said(&mut world);
    end(&mut world);
    assert_eq!(of(&world.written_recording()), [(Role::Caller, "on", None)]);
}

#[test]
fn an_aware_callee_is_told_by_a_reinvite_and_an_unaware_caller_never() {
    let (mut world, caller) = between(ROUTE, false, true);
    assert_eq!(told(&world.alice.last_body(caller)), None);
    let supported = world.alice.last_header(caller, "Supported").unwrap();
    assert!(supported.contains("record-aware"), "{supported}");
    let invite = world.bob.take_invite().expect("bob is told");
    assert_eq!(told(&body(&invite)), Some("on"));
    assert!(!invite.request.headers.supports("record-aware"));
    assert_eq!(version(&body(&invite)), 2);
    world.run(500);
    assert!(of(&world.written_recording()).is_empty());
    world
        .bob
        .respond(&invite, 200, Some(&bob_says()), world.now());
    world.run(50);
    assert_eq!(world.bob.acks, 2);
    assert_eq!(of(&world.written_recording()), [(Role::Callee, "on", None)]);
    all_is_said(&mut world);
    end(&mut world);
}

#[test]
fn both_are_told_where_both_understand_and_nobody_where_none_does() {
    let (mut world, caller) = between(ROUTE, true, true);
    assert_eq!(told(&world.alice.last_body(caller)), Some("on"));
    assert_eq!(told(&accept(&mut world, bob, 7000)), Some("on"));
    all_is_said(&mut world);
    end(&mut world);
    let told_both = [(Role::Caller, "on", None), (Role::Callee, "on", None)];
    assert_eq!(of(&world.written_recording()), told_both);

    let (mut world, caller) = between(ROUTE, false, false);
    assert_eq!(told(&world.alice.last_body(caller)), None);
    all_is_said(&mut world);
    end(&mut world);
    let recording = serde_json::to_value(world.written_recording()).unwrap();
    assert!(recording["receipt"].get("indications").is_none());
}

#[test]
fn every_change_of_the_recording_is_told_with_a_version_of_its_own() {
    let (mut world, caller) = between(ON_DEMAND, true, true);
    assert_eq!(told(&world.alice.last_body(caller)), Some("off"));
    let mut versions = [version(&world.alice.last_body(caller)), 1];
    assert_eq!(told(&accept(&mut world, bob, 7000)), Some("off"));
    versions[1] += 1;
    let call = world.only_call().id;
    for (action, state) in [
        (RecordingAction::Start, "on"),
        (RecordingAction::Pause, "paused"),
        (RecordingAction::Resume, "on"),
        (RecordingAction::Stop, "off"),
    ] {
        world.act(&call, action).unwrap();
        for (who, index, port) in [
            (alice as fn(&mut World) -> &mut Agent, 0, 6000),
            (bob, 1, 7000),
        ] {
            let body = accept(&mut world, who, port);
            assert_eq!(told(&body), Some(state));
            versions[index] += 1;
            assert_eq!(version(&body), versions[index]);
        }
    }
    all_is_said(&mut world);
    let recording = world.written_recording();
    let states = ["on", "paused", "on"];
    let both = states.map(|state| [(Role::Caller, state, None), (Role::Callee, state, None)]);
    assert_eq!(of(&recording), both.concat());
    // That it has ended was told when it was closed.
    let indications = world.only_call().indications;
    let values: Vec<&str> = indications.iter().map(|one| one.value.as_str()).collect();
    assert_eq!(values, ["off", "off", "off", "off"]);
    end(&mut world);
}

#[test]
fn a_recording_that_is_kept_on_demand_is_told_as_one() {
    let text = ROUTE.replace("true", "\"keep_on_demand\"");
    let (mut world, caller) = between(&text, true, false);
    assert_eq!(told(&world.alice.last_body(caller)), Some("on"));
    let call = world.only_call().id;
    world.act(&call, RecordingAction::Keep).unwrap();
    all_is_said(&mut world);
}

#[test]
fn who_is_busy_with_an_offer_of_its_own_is_told_later() {
    let (mut world, _) = between(ROUTE, false, true);
    let invite = world.bob.take_invite().unwrap();
    world.bob.respond(&invite, 491, None, world.now());
    let started = world.now();
    assert_eq!(told(&accept(&mut world, bob, 7000)), Some("on"));
    let waited = world.now() - started;
    assert!(
        waited.as_millis() >= 2_100,
        "{waited:?}: the Call-ID is ours"
    );
    end(&mut world);
    assert_eq!(of(&world.written_recording()), [(Role::Callee, "on", None)]);
}

#[test]
fn an_offer_that_crosses_ours_gets_491_and_passes_afterwards() {
    let (mut world, _) = between(ROUTE, true, true);
    let ours = world.bob.take_invite().expect("bob is told");
    let held = alice_says().replace("sendrecv", "sendonly");
    let crossing = world.alice.reinvite(Some(&held), world.now());
    world.run(50);
    assert_eq!(world.alice.statuses(crossing), [491]);
    world
        .bob
        .respond(&ours, 200, Some(&bob_says()), world.now());
    world.run(50);
    let again = world.alice.reinvite(Some(&held), world.now());
    world.run(50);
    let passed = world.bob.take_invite().expect("bob is put on hold");
    assert_eq!(told(&body(&passed)), Some("on"));
    let receives = bob_says().replace("sendrecv", "recvonly");
    world
        .bob
        .respond(&passed, 200, Some(&receives), world.now());
    world.run(50);
    assert_eq!(told(&world.alice.last_body(again)), Some("on"));
    world.alice.ack(again, world.now());
    all_is_said(&mut world);
    end(&mut world);
}

#[test]
fn who_refuses_to_be_told_stays_in_the_call_and_is_told_of_the_next_change() {
    let (mut world, _) = between(ROUTE, false, true);
    let invite = world.bob.take_invite().unwrap();
    world.bob.respond(&invite, 488, None, world.now());
    world.run(50);
    assert_eq!(
        of(&world.written_recording()),
        [(Role::Callee, "on", Some(488))]
    );
    world.run(120_000);
    assert!(world.bob.take_invite().is_none(), "it is not asked again");
    let call = world.only_call().id;
    assert!(world.dataplane.recording.is_some());
    world.act(&call, RecordingAction::Pause).unwrap();
    assert_eq!(told(&accept(&mut world, bob, 7000)), Some("paused"));
    // The version tells the refused offer from this one.
    world.act(&call, RecordingAction::Resume).unwrap();
    assert_eq!(told(&accept(&mut world, bob, 7000)), Some("on"));
    end(&mut world);
    let receipt = world.written_recording();
    let values: Vec<&str> = of(&receipt).iter().map(|one| one.1).collect();
    assert_eq!(values, ["on", "paused", "on"]);
}

#[test]
fn an_acceptance_without_an_answer_is_none_and_does_no_harm() {
    let (mut world, _) = between(ROUTE, false, true);
    let invite = world.bob.take_invite().unwrap();
    world.bob.respond(&invite, 200, None, world.now());
    all_is_said(&mut world);
    assert_eq!(world.bob.acks, 2);
    assert_eq!(
        of(&world.written_recording()),
        [(Role::Callee, "on", Some(488))]
    );
    end(&mut world);
}

#[test]
fn who_is_aware_and_what_it_was_told_outlive_a_restart() {
    let (mut world, caller) = between(ROUTE, true, true);
    let told_alice = version(&world.alice.last_body(caller));
    let told_bob = version(&accept(&mut world, bob, 7000));
    world.restart_control();
    all_is_said(&mut world);
    let call = world.only_call().id;
    world.act(&call, RecordingAction::Pause).unwrap();
    let body = accept(&mut world, alice, 6000);
    assert_eq!(
        (told(&body), version(&body)),
        (Some("paused"), told_alice + 1)
    );
    let body = accept(&mut world, bob, 7000);
    assert_eq!(
        (told(&body), version(&body)),
        (Some("paused"), told_bob + 1)
    );
    world.restart_dataplane();
    all_is_said(&mut world);
    world.act(&call, RecordingAction::Resume).unwrap();
    assert_eq!(told(&accept(&mut world, alice, 6000)), Some("on"));
    assert_eq!(told(&accept(&mut world, bob, 7000)), Some("on"));
    end(&mut world);
    assert_eq!(of(&world.written_recording()).len(), 6);
}

#[test]
fn a_restart_while_a_party_is_being_told_tells_it_again() {
    let (mut world, _) = between(ROUTE, false, true);
    let first = world.bob.take_invite().expect("bob is told");
    world.restart_control();
    // Who would have noted his answer is gone.
    world
        .bob
        .respond(&first, 200, Some(&bob_says()), world.now());
    world.run(5_000);
    assert!(of(&world.written_recording()).is_empty());
    assert_eq!(
        told(&accept_within(&mut world, bob, 7000, 20_000)),
        Some("on")
    );
    all_is_said(&mut world);
    assert_eq!(of(&world.written_recording()), [(Role::Callee, "on", None)]);
}

#[test]
fn who_joins_by_transfer_is_told_if_it_understands() {
    for aware in [true, false] {
        let text = "[[route]]\nuser = \"carol\"\nnext = \"sip:127.0.0.1:5071\"\nrecord = true\n\
                    [[route]]\nuser = \"bob\"\nnext = \"sip:127.0.0.1:5070\"\nrecord = true\n";
        let (mut world, _) = between(text, true, !aware);
        if !aware {
            accept(&mut world, bob, 7000);
        }
        let to_carol = ("Refer-To", "<sip:carol@127.0.0.1:5060>");
        world.bob.request(Method::Refer, &[to_carol], world.now());
        world.run(50);
        let invite = world.carol.take_invite().unwrap();
        assert!(invite.request.headers.supports("record-aware"), "alice is");
        assert_eq!(told(&body(&invite)), None);
        let (says, headers) = (sdp("127.0.0.1", 7100), [option(aware)]);
        world
            .carol
            .respond_with(&invite, 200, Some(&says), &headers, world.now());
        world.run(200);
        let again = world.carol.take_invite();
        assert_eq!(again.is_some(), aware);
        if let Some(again) = again {
            assert_eq!(told(&body(&again)), Some("on"));
            world.carol.respond(&again, 200, Some(&says), world.now());
            world.run(50);
        }
        all_is_said(&mut world);
        world.alice.bye(world.now());
        world.run(2_000);
        let recording = world.written_recording();
        let told = of(&recording);
        let both = [(Role::Caller, "on", None), (Role::Callee, "on", None)];
        assert_eq!(told, both, "the callee was bob or is carol: {aware}");
    }
}

#[test]
fn what_the_other_side_says_of_itself_is_passed_on_by_us_alone() {
    let says = |value: &str| format!("{}a=record:{value}\r\n", bob_says());
    for (value, heard) in [
        ("on", "on"),
        ("paused", "paused"),
        ("off", "off"),
        ("pause", "off"),
    ] {
        let (mut world, caller) = call(PLAIN, (true, &alice_says()), (false, &says(value)));
        assert_eq!(told(&world.alice.last_body(caller)), Some(heard));
        // It begins to record, or ends, in mid-call.
        for (value, heard) in [("on", "on"), ("off", "off")] {
            let change = world.bob.reinvite(Some(&says(value)), world.now());
            world.run(50);
            let passed = world.alice.take_invite();
            let Some(passed) = passed else {
                assert_eq!(world.bob.statuses(change), [200], "it has said so before");
                world.bob.ack(change, world.now());
                continue;
            };
            assert_eq!(told(&body(&passed)), Some(heard));
            world
                .alice
                .respond(&passed, 200, Some(&alice_says()), world.now());
            world.run(50);
            assert_eq!(told(&world.bob.last_body(change)), None);
            world.bob.ack(change, world.now());
        }
        all_is_said(&mut world);
        end(&mut world);
    }
    // What an unaware one says never reaches an unaware one.
    let (world, caller) = call(ROUTE, (false, &alice_says()), (false, &says("off")));
    assert_eq!(told(&world.alice.last_body(caller)), None);
    // Linphone's `off` does not deny that we record.
    let (world, caller) = call(ROUTE, (true, &alice_says()), (true, &says("off")));
    assert_eq!(told(&world.alice.last_body(caller)), Some("on"));
}

#[test]
fn a_party_is_told_of_recorders_elsewhere_as_they_come_and_go() {
    let (mut world, caller) = between(ONE, true, false);
    assert_eq!(told(&world.alice.last_body(caller)), Some("off"));
    let invite = world.carol.take_invite().expect("carol is asked to record");
    let accepts = answer(9000, 2, "recvonly");
    world
        .carol
        .respond(&invite, 200, Some(&accepts), world.now());
    assert_eq!(told(&accept(&mut world, alice, 6000)), Some("on"));
    let call = world.only_call().id;
    world
        .act_on_recorders(&call, RecordingAction::Pause)
        .unwrap();
    assert_eq!(told(&accept(&mut world, alice, 6000)), Some("paused"));
    let invite = world.carol.take_invite().expect("carol hears of the pause");
    let rests = answer(9000, 2, "inactive");
    world.carol.respond(&invite, 200, Some(&rests), world.now());
    world.run(50);
    // The recorder leaves: nobody records.
    world.carol.bye(world.now());
    assert_eq!(told(&accept(&mut world, alice, 6000)), Some("off"));
    let indications = world.only_call().indications;
    let values: Vec<&str> = indications.iter().map(|one| one.value.as_str()).collect();
    assert_eq!(values, ["off", "on", "paused", "off"]);
}

#[test]
fn awareness_follows_what_a_party_says_last() {
    let (mut world, _) = between(ON_DEMAND, true, false);
    let held = alice_says().replace("sendrecv", "sendonly");
    let steps = [
        // A message that says nothing of options says nothing of this one.
        (None, held.clone(), Some("off")),
        (Some(UNAWARE), alice_says(), None),
        (Some(AWARE), held, Some("off")),
    ];
    for (header, offer, expected) in steps {
        let headers: Vec<(&str, &str)> = header.into_iter().collect();
        let offer = ("application/sdp", offer.as_str());
        let now = world.now();
        let change = world
            .alice
            .request_with(Method::Invite, &headers, offer, now);
        world.run(50);
        let passed = world.bob.take_invite().unwrap();
        assert_eq!(told(&body(&passed)), None);
        let aware = passed.request.headers.supports("record-aware");
        assert_eq!(aware, expected.is_some(), "we speak for who is behind us");
        world
            .bob
            .respond(&passed, 200, Some(&bob_says()), world.now());
        world.run(50);
        assert_eq!(told(&world.alice.last_body(change)), expected);
        world.alice.ack(change, world.now());
        world.run(50);
    }
    all_is_said(&mut world);
}

#[test]
fn an_update_makes_a_party_aware_and_its_answer_tells_it() {
    let (mut world, _) = between(ROUTE, false, false);
    // Without an offer it only refreshes the session; what it says of its sender counts all the same.
    world.alice.request(Method::Update, &[AWARE], world.now());
    assert_eq!(told(&accept(&mut world, alice, 6000)), Some("on"));
    all_is_said(&mut world);
    assert_eq!(of(&world.written_recording()), [(Role::Caller, "on", None)]);
}

#[test]
fn who_requires_awareness_has_the_callee_judge() {
    let mut world = World::new(ROUTE);
    let requires = [("Require", "record-aware")];
    let caller = world.invite_with("sip:bob@127.0.0.1:5060", Some(&alice_says()), &requires);
    world.run(50);
    let invite = world.bob.take_invite().expect("it is not refused by us");
    assert!(
        invite
            .request
            .headers
            .list_contains("Require", "record-aware")
    );
    world.bob.respond_with(
        &invite,
        420,
        None,
        &[("Unsupported", "record-aware")],
        world.now(),
    );
    world.run(50);
    assert_eq!(world.alice.statuses(caller).last(), Some(&420));
}

#[test]
fn early_media_says_what_holds_then_and_the_answers_truth_follows() {
    let mut world = World::new(ROUTE);
    let caller = world.invite_with("sip:bob@127.0.0.1:5060", Some(&alice_says()), &[AWARE]);
    world.run(50);
    let invite = world.bob.take_invite().unwrap();
    world
        .bob
        .respond(&invite, 183, Some(&bob_says()), world.now());
    world.run(50);
    assert_eq!(told(&world.alice.last_body(caller)), Some("off"));
    world
        .bob
        .respond(&invite, 200, Some(&bob_says()), world.now());
    world.run(50);
    // One answer, whatever comes after it (RFC 3261 section 13.2.1).
    assert_eq!(told(&world.alice.last_body(caller)), Some("off"));
    world.alice.ack(caller, world.now());
    assert_eq!(told(&accept(&mut world, alice, 6000)), Some("on"));
    end(&mut world);

    let mut world = World::new(&format!("[recording]\nearly_media = true\n{ROUTE}"));
    let caller = world.invite_with("sip:bob@127.0.0.1:5060", Some(&alice_says()), &[AWARE]);
    world.run(50);
    let invite = world.bob.take_invite().unwrap();
    world
        .bob
        .respond(&invite, 183, Some(&bob_says()), world.now());
    world.run(50);
    assert_eq!(told(&world.alice.last_body(caller)), Some("on"));
}

#[test]
fn a_call_whose_callee_offers_tells_both_in_their_turn() {
    let mut world = World::new(ROUTE);
    let caller = world.invite_with("sip:bob@127.0.0.1:5060", None, &[AWARE]);
    world.run(50);
    let invite = world.bob.take_invite().unwrap();
    world
        .bob
        .respond_with(&invite, 200, Some(&bob_says()), &[AWARE], world.now());
    world.run(50);
    assert_eq!(told(&world.alice.last_body(caller)), Some("on"));
    world
        .alice
        .ack_with(caller, Some(&alice_says()), world.now());
    world.run(50);
    assert_eq!(told(&world.bob.last_ack_body), Some("on"));
    all_is_said(&mut world);
    end(&mut world);
    let both = [(Role::Caller, "on", None), (Role::Callee, "on", None)];
    assert_eq!(of(&world.written_recording()), both);
}

#[test]
fn parties_are_told_over_any_network() {
    for seed in 0..25 {
        let fault = Fault {
            lose: 0.2,
            repeat: 0.15,
            delay_ms: 80,
        };
        let mut world = World::with_faults(ROUTE, fault, seed);
        world.alice.auto_ack = true;
        world.invite_with("sip:bob@127.0.0.1:5060", Some(&alice_says()), &[AWARE]);
        let invite = world.until(20_000, |world| world.bob.take_invite());
        let (says, now) = (bob_says(), world.now());
        world
            .bob
            .respond_with(&invite.unwrap(), 200, Some(&says), &[AWARE], now);
        let mut paused = false;
        let done = world.until(180_000, |world| {
            for (who, says) in [
                (alice as fn(&mut World) -> &mut Agent, alice_says()),
                (bob, bob_says()),
            ] {
                if let Some(invite) = who(world).take_invite() {
                    let now = world.now();
                    who(world).respond(&invite, 200, Some(&says), now);
                }
            }
            let recordings = world.written_recordings();
            let values = recordings.first().map(|one| {
                let receipt = one.receipt.clone().unwrap_or_default();
                let told = receipt.indications.into_iter();
                told.map(|one| one.value).collect::<Vec<_>>()
            });
            let values = values.unwrap_or_default();
            if values.len() == 2 && !paused {
                let call = world.live_calls().remove(0).id;
                paused = true;
                world.act(&call, RecordingAction::Pause).unwrap();
            }
            (values == ["on", "on", "paused", "paused"]).then_some(())
        });
        assert!(
            done.is_some(),
            "seed {seed}: {:?}",
            world.written_recordings()
        );
    }
}

#[test]
fn hostile_words_are_no_words() {
    let rubbish = "a=record:on\0\r\na=RECORD:on on\r\na=record:\u{fffd}\r\na=record:onononon\r\n\
                   a=recordpref:\r\na=recordpref:off,on\r\na=recordpref:paused\r\n";
    let says = format!("{}{rubbish}{}", bob_says(), "a=record:x\r\n".repeat(1_000));
    let text = format!("{ROUTE}recordpref = \"honour\"\n");
    let (mut world, caller) = call(&text, (true, &alice_says()), (true, &says));
    assert_eq!(told(&world.alice.last_body(caller)), Some("on"));
    assert_eq!(told(&accept(&mut world, bob, 7000)), Some("on"));
    assert!(world.dataplane.recording.is_some());
    all_is_said(&mut world);
    end(&mut world);
}
