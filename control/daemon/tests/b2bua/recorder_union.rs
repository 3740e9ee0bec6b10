//! Several recording sessions of one communication session with our recorder: alice is a client, carol its
//! standby, or who takes over from it.

use trunkline_link::message::{Command, FactKind, Side, leg_flags};
use trunkline_sinks::object::{Recording, RecordingState, Role, Verdict};
use trunkline_sip::message::Method;

use super::common::{Agent, US, World};
use super::recorder::{CONTACT, MULTIPART, REQUIRE, ROUTE, metadata, multipart, offer, people};

const PAIR: [(&str, &str); 2] = [("ann", "1"), ("ben", "2")];

fn body(parties: &[(&str, &str)], port: &str) -> String {
    let sdp = offer(&["1", "2"], "sendonly").replace("audio 60", port);
    multipart(&sdp, &metadata("complete", parties))
}

/// An answered session of alice's.
fn first(world: &mut World) -> usize {
    let headers = [CONTACT, REQUIRE, MULTIPART];
    let body = body(&PAIR, "audio 60");
    let invite = world.invite_with("sip:srs@127.0.0.1:5060", Some(&body), &headers);
    world.run(50);
    assert_eq!(world.alice.statuses(invite), [100, 200]);
    world.alice.ack(invite, world.now());
    world.run(50);
    invite
}

/// An answered session of carol's.
fn second(world: &mut World, body: &str) -> usize {
    let contact = ("Contact", "<sip:carol@127.0.0.1:5071>;+sip.src");
    let headers = [contact, REQUIRE, MULTIPART];
    let (to, now) = (US.parse().unwrap(), world.now());
    let uri = "sip:srs@127.0.0.1:5060";
    let invite = world.carol.invite(uri, to, Some(body), &headers, now);
    world.run(100);
    assert_eq!(world.carol.statuses(invite), [100, 200]);
    world.carol.ack(invite, world.now());
    world.run(50);
    invite
}

fn starts(world: &World) -> Vec<(u64, u32)> {
    let commands = world.dataplane.commands.iter();
    commands
        .filter_map(|command| match command {
            Command::RecordingStart(start) => Some((start.recording, start.first_ordinal)),
            _ => None,
        })
        .collect()
}

/// The alternate numbers of all legs told to the recording, by medium.
fn alternates(world: &World) -> Vec<(u64, u64)> {
    let commands = world.dataplane.commands.iter();
    let facts = commands.filter_map(|command| match command {
        Command::RecordingFact {
            kind: FactKind::CallChange,
            fact,
            ..
        } => serde_json::from_slice::<serde_json::Value>(fact).ok(),
        _ => None,
    });
    let legs = facts.flat_map(|fact| fact["legs"].as_array().cloned().unwrap_or_default());
    legs.map(|leg| {
        let number = |name: &str| leg[name].as_u64().unwrap_or(0);
        (number("media"), number("alternate"))
    })
    .collect()
}

fn only(world: &World) -> Recording {
    let all = world.written_recordings();
    assert_eq!(all.len(), 1, "one recording: {all:?}");
    all.into_iter().next().unwrap()
}

#[test]
fn a_standby_is_in_the_recording_of_the_active_one_and_outlives_it() {
    let mut world = World::new(ROUTE);
    first(&mut world);
    // It names the parties the other way round: left stays left.
    let turned = [("ben", "2"), ("ann", "1")];
    let invite = second(&mut world, &body(&turned, "audio 61"));
    let answer = world.carol.last_body(invite);
    assert!(
        answer.contains("m=audio 16388 ") && answer.contains("m=audio 16390 "),
        "ports of a medium of its own in the same session: {answer}"
    );
    let legs = world.legs();
    assert_eq!(legs[&(1, Side::Caller)].rtp.unwrap().port(), 6100);
    assert_eq!(starts(&world).len(), 1);
    assert!(
        alternates(&world).contains(&(1, 1)),
        "{:?}",
        alternates(&world)
    );
    assert_eq!(world.b2bua.siprec_sessions().len(), 2);
    // The active one leaves: nothing ends.
    world.alice.bye(world.now());
    world.run(2000);
    assert_eq!(world.alice.bye_status, Some(200));
    assert_eq!(world.b2bua.siprec_sessions().len(), 1);
    assert_eq!(only(&world).state, RecordingState::Recording);
    assert_eq!(
        world.legs()[&(0, Side::Caller)].flags & leg_flags::EXPECT_MEDIA,
        0
    );
    world.carol.bye(world.now());
    world.run(200);
    assert_eq!(world.carol.bye_status, Some(200));
    assert!(world.b2bua.is_idle() && world.dataplane.closed);
    let recording = only(&world);
    assert_eq!(recording.verdict, Some(Verdict::Complete));
    assert_eq!(
        people(&recording),
        [
            (Role::Caller, "sip:ann@x", 0, false),
            (Role::Callee, "sip:ben@x", 1, false)
        ]
    );
    assert_eq!(recording.sip_call_ids.len(), 2);
}

#[test]
fn a_standby_that_leaves_takes_nothing_along_and_its_media_are_used_again() {
    let mut world = World::new(ROUTE);
    first(&mut world);
    for round in 0..5 {
        world.carol = Agent::new("127.0.0.1:5071", "carol", 900 + round);
        let invite = second(&mut world, &body(&PAIR, "audio 61"));
        let answer = world.carol.last_body(invite);
        assert!(answer.contains("m=audio 16388 "), "round {round}: {answer}");
        world.carol.bye(world.now());
        world.run(100);
        assert_eq!(only(&world).state, RecordingState::Recording);
    }
    assert_eq!(world.legs().len(), 4);
    world.alice.bye(world.now());
    world.run(200);
    assert!(world.b2bua.is_idle());
    assert_eq!(only(&world).verdict, Some(Verdict::Complete));
}

#[test]
fn a_recording_pauses_once_nobody_sends() {
    let mut world = World::new(ROUTE);
    first(&mut world);
    second(&mut world, &body(&PAIR, "audio 61"));
    let pause = |world: &mut World, who: &str, direction: &str| {
        let (sdp, now) = (offer(&["1", "2"], direction), world.now());
        let agent = match who {
            "alice" => &mut world.alice,
            _ => &mut world.carol,
        };
        let again = agent.reinvite(Some(&sdp), now);
        world.run(50);
        let now = world.now();
        let agent = match who {
            "alice" => &mut world.alice,
            _ => &mut world.carol,
        };
        assert_eq!(agent.statuses(again).last(), Some(&200));
        agent.ack(again, now);
        world.run(50);
        only(world).state
    };
    assert_eq!(
        pause(&mut world, "alice", "inactive"),
        RecordingState::Recording
    );
    assert_eq!(
        pause(&mut world, "carol", "inactive"),
        RecordingState::Paused
    );
    assert_eq!(
        pause(&mut world, "carol", "sendonly"),
        RecordingState::Recording
    );
}

#[test]
fn a_client_that_dies_beside_its_standby_loses_nothing() {
    let mut world = World::new(ROUTE);
    let headers = [
        CONTACT,
        REQUIRE,
        MULTIPART,
        ("Supported", "timer"),
        ("Session-Expires", "90;refresher=uac"),
    ];
    let text = body(&PAIR, "audio 60");
    let invite = world.invite_with("sip:srs@127.0.0.1:5060", Some(&text), &headers);
    world.run(50);
    world.alice.ack(invite, world.now());
    world.run(50);
    world.alice.deaf = true;
    second(&mut world, &body(&PAIR, "audio 61"));
    world.run(200_000);
    assert_eq!(
        world.b2bua.siprec_sessions().len(),
        1,
        "the standby's lasts"
    );
    assert_eq!(only(&world).state, RecordingState::Recording);
    world.carol.bye(world.now());
    world.run(40_000);
    assert!(world.b2bua.is_idle());
    assert_eq!(only(&world).state, RecordingState::Complete);
}

#[test]
fn a_recording_goes_on_in_the_session_that_follows_a_failover() {
    let mut world = World::new(ROUTE);
    first(&mut world);
    world.run(3000);
    world.alice.bye(world.now());
    world.run(200);
    let ended = only(&world);
    assert_eq!(ended.state, RecordingState::Complete);
    world.run(4000);
    second(&mut world, &body(&PAIR, "audio 61"));
    let told = starts(&world);
    assert_eq!(told.len(), 2);
    assert_eq!(told[0].0, told[1].0, "the same recording");
    assert_eq!(told[1].1, 3, "behind what is on disk");
    let goes_on = only(&world);
    assert_eq!(
        (&goes_on.id, goes_on.state),
        (&ended.id, RecordingState::Recording)
    );
    assert_eq!(goes_on.ended_at, None);
    world.run(3000);
    world.carol.bye(world.now());
    world.run(200);
    assert!(world.b2bua.is_idle());
    let recording = only(&world);
    assert_eq!(recording.verdict, Some(Verdict::Complete));
    assert_eq!(recording.started_at, ended.started_at);
    assert!(
        (10_000..11_000).contains(&recording.duration_ms),
        "{recording:?}"
    );
    assert_eq!(people(&recording).len(), 2, "{recording:?}");
    // Both sessions' streams are in the receipt: 100 packets a side and session, under one SSRC each.
    assert_eq!(recording.receipt.unwrap().caller.written, 200);
    assert_eq!(recording.sip_call_ids.len(), 2);
}

#[test]
fn a_failover_while_the_first_is_being_closed_waits_for_it() {
    let mut world = World::new(ROUTE);
    first(&mut world);
    world.run(1000);
    world.alice.bye(world.now());
    let body = body(&PAIR, "audio 61");
    second(&mut world, &body);
    world.run(500);
    assert_eq!(starts(&world).len(), 2);
    world.carol.bye(world.now());
    world.run(200);
    only(&world);
}

#[test]
fn other_calls_and_calls_that_are_over_have_recordings_of_their_own() {
    // The same number, but nobody who takes part in both; and a session that is said to be over.
    for (over, others) in [(false, [("cat", "1"), ("dan", "2")]), (true, PAIR)] {
        let mut world = World::new(ROUTE);
        first(&mut world);
        if over {
            let document = "<recording xmlns='urn:ietf:params:xml:ns:recording:1'><datamode>partial</datamode>\
                <session session_id=\"cs\"><stop-time>2026-11-28T01:01:00Z</stop-time></session></recording>";
            let kind = "application/rs-metadata+xml";
            let now = world.now();
            world
                .alice
                .request_with_body(Method::Update, kind, document, now);
            world.run(50);
        }
        world.alice.bye(world.now());
        world.run(200);
        second(&mut world, &body(&others, "audio 61"));
        world.carol.bye(world.now());
        world.run(200);
        assert_eq!(world.written_recordings().len(), 2, "{over} {others:?}");
    }
}

#[test]
fn a_client_that_numbers_its_parties_anew_is_not_taken_for_another() {
    let mut world = World::new(ROUTE);
    first(&mut world);
    // Ids as in the first one's document, of other people.
    let strangers = body(&PAIR, "audio 61").replace("sip:", "sip:not-");
    second(&mut world, &strangers);
    world.carol.bye(world.now());
    world.alice.bye(world.now());
    world.run(200);
    assert_eq!(world.written_recordings().len(), 2);
}

#[test]
fn active_and_standby_outlive_a_restart_of_control_and_of_the_dataplane() {
    let mut world = World::new(ROUTE);
    first(&mut world);
    second(&mut world, &body(&PAIR, "audio 61"));
    world.restart_control();
    assert_eq!(world.b2bua.siprec_sessions().len(), 2);
    world.restart_dataplane();
    assert_eq!(world.legs()[&(1, Side::Callee)].rtp.unwrap().port(), 6102);
    world.alice.bye(world.now());
    world.run(200);
    world.restart_control();
    let kind = "application/rs-metadata+xml";
    let parties = metadata("partial", &[("cat", "2")]);
    let now = world.now();
    let update = world
        .carol
        .request_with_body(Method::Update, kind, &parties, now);
    world.run(50);
    assert_eq!(world.carol.statuses(update), [200]);
    world.carol.bye(world.now());
    world.run(200);
    assert!(world.b2bua.is_idle());
    let recording = only(&world);
    assert!(recording.state.is_final());
    let users: Vec<&str> = recording
        .participants
        .iter()
        .map(|one| one.uri.as_str())
        .collect();
    assert_eq!(users, ["sip:ann@x", "sip:ben@x", "sip:cat@x"]);
}
