//! What parties wish of recording (`a=recordpref`, RFC 7866), and what a route makes of it.

use trunkline_control::api::handle::RecordingAction;
use trunkline_control::siprec::session::State;
use trunkline_sinks::object::{Recording, RecordingState, Role};

use super::awareness::{accept, alice, call, told};
use super::common::{World, sdp};
use super::siprec::{ONE, answer};

const HONOURS: &str =
    "[[route]]\nnext = \"sip:127.0.0.1:5070\"\nrecordpref = \"honour\"\nrecord = true\n";

fn bob_says() -> String {
    sdp("127.0.0.1", 7000)
}

fn wish(value: &str) -> String {
    format!("{}a=recordpref:{value}\r\n", sdp("127.0.0.1", 6000))
}

/// A call whose caller is aware and says this.
fn with_wish(text: &str, value: &str) -> (World, usize) {
    call(text, (true, &wish(value)), (false, &bob_says()))
}

/// The caller wishes something else; gives what it is told of recording.
fn wishes(world: &mut World, value: &str) -> String {
    let change = world.alice.reinvite(Some(&wish(value)), world.now());
    world.run(50);
    let passed = world.bob.take_invite().expect("the re-INVITE is passed");
    let now = world.now();
    assert!(!String::from_utf8_lossy(&passed.request.body).contains("recordpref"));
    world.bob.respond(&passed, 200, Some(&bob_says()), now);
    world.run(50);
    let answer = world.alice.last_body(change);
    world.alice.ack(change, world.now());
    world.run(50);
    told(&answer).unwrap_or_default().to_owned()
}

fn states(world: &World) -> Vec<RecordingState> {
    let mut all = world.written_recordings();
    all.sort_by(|one, other| one.id.cmp(&other.id));
    all.iter().map(|one| one.state).collect()
}

fn said(recording: &Recording) -> Vec<(Role, &str, bool)> {
    let receipt = recording.receipt.as_ref().unwrap();
    let all = receipt.preferences.iter();
    all.map(|one| (one.side, one.value.as_str(), one.honoured))
        .collect()
}

#[test]
fn wishes_are_ignored_unless_the_route_honours_them() {
    for text in [
        "[[route]]\nnext = \"sip:127.0.0.1:5070\"\nrecord = true\n".to_owned(),
        HONOURS.replace("honour", "ignore"),
    ] {
        for value in ["off", "pause", "on", "nopreference"] {
            let (mut world, caller) = with_wish(&text, value);
            assert_eq!(told(&world.alice.last_body(caller)), Some("on"));
            let other = if value == "off" { "pause" } else { "off" };
            assert_eq!(wishes(&mut world, other), "on");
            world.run(2_000);
            assert_eq!(states(&world), [RecordingState::Recording]);
            let attributes = world.only_call().attributes;
            assert!(attributes.is_empty(), "{attributes:?}");
        }
    }
}

#[test]
fn who_wishes_not_to_be_recorded_from_the_start_is_not() {
    let (mut world, caller) = with_wish(HONOURS, "off");
    assert_eq!(told(&world.alice.last_body(caller)), Some("off"));
    world.run(2_000);
    assert!(states(&world).is_empty() && world.dataplane.recording.is_none());
    let call = world.only_call();
    assert_eq!(call.attributes["recordpref.caller"], "off");
    assert!(!call.recording_expected, "nothing is missing");
    // The operator may all the same.
    world.act(&call.id, RecordingAction::Start).unwrap();
    assert_eq!(told(&accept(&mut world, alice, 6000)), Some("on"));
}

#[test]
fn off_ends_the_recording_and_on_begins_another() {
    let (mut world, caller) = with_wish(HONOURS, "on");
    assert_eq!(told(&world.alice.last_body(caller)), Some("on"));
    assert_eq!(
        wishes(&mut world, "off"),
        "on",
        "it runs until it has stopped"
    );
    assert_eq!(told(&accept(&mut world, alice, 6000)), Some("off"));
    world.run(200);
    assert_eq!(states(&world), [RecordingState::Complete]);
    let first = world.written_recording();
    let expected = [(Role::Caller, "on", true), (Role::Caller, "off", true)];
    assert_eq!(said(&first), expected);
    wishes(&mut world, "on");
    assert_eq!(told(&accept(&mut world, alice, 6000)), Some("on"));
    let complete = RecordingState::Complete;
    assert_eq!(states(&world), [complete, RecordingState::Recording]);
    let events = world.events();
    assert_eq!(
        events
            .iter()
            .filter(|one| **one == "recording.started")
            .count(),
        2
    );
}

#[test]
fn pause_rests_the_recording_until_the_party_wishes_it_on() {
    let (mut world, caller) = with_wish(HONOURS, "nopreference");
    assert_eq!(told(&world.alice.last_body(caller)), Some("on"));
    wishes(&mut world, "pause");
    assert_eq!(told(&accept(&mut world, alice, 6000)), Some("paused"));
    let recording = world.written_recording();
    assert_eq!(recording.state, RecordingState::Paused);
    assert_eq!(recording.pauses[0].by, "caller");
    // To have no wish is not to wish it on.
    assert_eq!(wishes(&mut world, "nopreference"), "paused");
    world.run(2_000);
    assert_eq!(states(&world), [RecordingState::Paused]);
    wishes(&mut world, "on");
    assert_eq!(told(&accept(&mut world, alice, 6000)), Some("on"));
    assert_eq!(states(&world), [RecordingState::Recording]);
    assert!(world.written_recording().pauses[0].to_ms.is_some());
}

#[test]
fn a_recording_may_begin_paused() {
    let (mut world, caller) = with_wish(HONOURS, "pause");
    assert_eq!(told(&world.alice.last_body(caller)), Some("paused"));
    world.run(200);
    assert_eq!(states(&world), [RecordingState::Paused]);
    assert_eq!(world.written_recording().pauses.len(), 1);
}

#[test]
fn a_pause_of_the_operators_is_not_ended_by_a_wish() {
    let (mut world, _) = with_wish(HONOURS, "nopreference");
    let call = world.only_call().id;
    world.act(&call, RecordingAction::Pause).unwrap();
    accept(&mut world, alice, 6000);
    assert_eq!(wishes(&mut world, "on"), "paused");
    world.run(2_000);
    let recording = world.written_recording();
    assert_eq!(recording.state, RecordingState::Paused);
    assert_eq!(recording.pauses[0].by, "api");
}

#[test]
fn on_begins_what_the_route_records_on_demand_and_keeps_what_it_would_discard() {
    let on_demand = HONOURS.replace("true", "\"on_demand\"");
    let (mut world, caller) = with_wish(&on_demand, "nopreference");
    assert_eq!(told(&world.alice.last_body(caller)), Some("off"));
    wishes(&mut world, "on");
    assert_eq!(told(&accept(&mut world, alice, 6000)), Some("on"));

    let unkept = HONOURS.replace("true", "\"keep_on_demand\"");
    let (mut world, _) = with_wish(&unkept, "on");
    world.run(200);
    assert_eq!(world.written_recording().kept, Some(true));

    // Where the route records nothing there is nothing to be had.
    let nothing = HONOURS.replace("true", "false");
    let (mut world, caller) = with_wish(&nothing, "on");
    assert_eq!(told(&world.alice.last_body(caller)), Some("off"));
    world.run(2_000);
    assert!(states(&world).is_empty());
}

#[test]
fn of_two_wishes_the_one_for_less_counts() {
    let bob = format!("{}a=recordpref:off\r\n", bob_says());
    let (mut world, caller) = call(HONOURS, (true, &wish("on")), (true, &bob));
    assert_eq!(told(&world.alice.last_body(caller)), Some("off"));
    world.run(6_000);
    assert!(states(&world).is_empty());
    let attributes = world.only_call().attributes;
    assert_eq!(attributes["recordpref.caller"], "on");
    assert_eq!(attributes["recordpref.callee"], "off");
}

#[test]
fn a_required_recording_is_no_partys_to_end() {
    let text = format!("{HONOURS}recorders = [\"local\"]\non_recording_failure = \"hangup\"\n");
    let (mut world, caller) = with_wish(&text, "off");
    assert_eq!(told(&world.alice.last_body(caller)), Some("on"));
    assert_eq!(wishes(&mut world, "pause"), "on");
    world.run(2_000);
    let recording = world.written_recording();
    assert_eq!(recording.state, RecordingState::Recording);
    let refused = [(Role::Caller, "off", false), (Role::Caller, "pause", false)];
    assert_eq!(said(&recording), refused);
}

#[test]
fn recorders_elsewhere_follow_wishes_too() {
    let text = format!("{ONE}recordpref = \"honour\"\n");
    // Not from the start.
    let (mut world, _) = with_wish(&text, "off");
    world.run(2_000);
    assert!(world.carol.take_invite().is_none());
    wishes(&mut world, "on");
    let invite = world.carol.take_invite().expect("carol is asked to record");
    let accepts = answer(9000, 2, "recvonly");
    world
        .carol
        .respond(&invite, 200, Some(&accepts), world.now());
    assert_eq!(told(&accept(&mut world, alice, 6000)), Some("on"));
    wishes(&mut world, "pause");
    assert_eq!(told(&accept(&mut world, alice, 6000)), Some("paused"));
    assert_eq!(world.only_siprec().state, State::Paused);
    let invite = world.carol.take_invite().expect("carol hears of the pause");
    let rests = answer(9000, 2, "inactive");
    world.carol.respond(&invite, 200, Some(&rests), world.now());
    world.run(50);
    wishes(&mut world, "off");
    assert_eq!(told(&accept(&mut world, alice, 6000)), Some("off"));
    world.run(200);
    assert_eq!((world.carol.byes, world.siprec().len()), (1, 0));
    wishes(&mut world, "on");
    assert!(
        world.carol.take_invite().is_some(),
        "a new session: {:?}",
        world.siprec()
    );
}

#[test]
fn a_recorder_that_begins_while_recording_rests_begins_so() {
    let text = format!("{ONE}recordpref = \"honour\"\n");
    let (mut world, _) = with_wish(&text, "pause");
    world.run(500);
    let invite = world.carol.take_invite().expect("carol is asked to record");
    let offer = String::from_utf8_lossy(&invite.request.body).into_owned();
    assert!(offer.contains("a=inactive"), "{offer}");
    assert!(!offer.contains("a=sendonly"), "{offer}");
    let rests = answer(9000, 2, "inactive");
    world.carol.respond(&invite, 200, Some(&rests), world.now());
    world.run(200);
    assert_eq!(world.only_siprec().state, State::Paused);
}

#[test]
fn wishes_outlive_a_restart() {
    let (mut world, _) = with_wish(HONOURS, "off");
    world.restart_control();
    world.run(2_000);
    assert!(states(&world).is_empty());
    wishes(&mut world, "on");
    assert_eq!(told(&accept(&mut world, alice, 6000)), Some("on"));
    world.restart_control();
    world.run(2_000);
    assert_eq!(states(&world), [RecordingState::Recording]);
}
