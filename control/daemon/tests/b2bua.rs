//! Calls through the B2BUA in virtual time: two user agents, a dataplane that answers as the real one
//! does, and a network that may lose, repeat and reorder datagrams by a seed.

#[path = "b2bua/awareness.rs"]
mod awareness;
#[path = "b2bua/cdr.rs"]
mod cdr;
mod common;
#[path = "b2bua/hooks.rs"]
mod hooks;
#[path = "b2bua/hostile.rs"]
mod hostile;
#[path = "b2bua/interrupted.rs"]
mod interrupted;
#[path = "b2bua/loops.rs"]
mod loops;
#[path = "b2bua/names.rs"]
mod names;
#[path = "b2bua/recorder.rs"]
mod recorder;
#[path = "b2bua/recorder_union.rs"]
mod recorder_union;
#[path = "b2bua/reliable.rs"]
mod reliable;
#[path = "b2bua/session_id.rs"]
mod session_id;
#[path = "b2bua/sessions.rs"]
mod sessions;
#[path = "b2bua/siprec.rs"]
mod siprec;
#[path = "b2bua/siprec_asked.rs"]
mod siprec_asked;
#[path = "b2bua/siprec_passage.rs"]
mod siprec_passage;
#[path = "b2bua/siprec_persistent.rs"]
mod siprec_persistent;
#[path = "b2bua/siprec_policy.rs"]
mod siprec_policy;
#[path = "b2bua/siprec_replay.rs"]
mod siprec_replay;
#[path = "b2bua/sounding.rs"]
mod sounding;
#[path = "b2bua/sources.rs"]
mod sources;
#[path = "b2bua/targets.rs"]
mod targets;
#[path = "b2bua/transfer.rs"]
mod transfer;
#[path = "b2bua/traps.rs"]
mod traps;
#[path = "b2bua/watch.rs"]
mod watch;
#[path = "b2bua/wishes.rs"]
mod wishes;

use std::collections::HashMap;

use common::{Fault, World, sdp};
use trunkline_control::api::handle::RecordingAction;
use trunkline_control::b2bua::RecoveredPlace;
use trunkline_link::message::{Command, Event, Side, leg_flags};
use trunkline_sinks::object::{CallState, EndedBy, RecordingState, Verdict};
use trunkline_sinks::verdict::StreamCounts;
use trunkline_sip::message::Response;
use trunkline_sip::transaction::{FlowId, Path, Transport};

const ROUTE: &str = "[[route]]\nnext = \"sip:127.0.0.1:5070\"\nrecord = true\n";

#[test]
fn a_call_is_answered_recorded_and_ended_by_the_caller() {
    let mut world = World::new(ROUTE);
    let alice = world.invite("sip:bob@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
    world.run(50);
    let invite = world.bob.take_invite().expect("bob's phone rings");
    let told = String::from_utf8(invite.request.body.clone()).unwrap();
    assert!(told.contains("m=audio 16386 RTP/AVP 0 101"), "{told}");
    assert!(!told.contains("6000"), "alice's port crosses: {told}");
    assert_ne!(
        invite.request.headers.call_id().unwrap(),
        world.alice.call_id
    );
    assert_eq!(invite.request.headers.max_forwards().unwrap(), Some(69));
    world.bob.respond(&invite, 180, None, world.now());
    world.run(50);
    assert_eq!(world.alice.statuses(alice), [100, 180]);
    world
        .bob
        .respond(&invite, 200, Some(&sdp("127.0.0.1", 7000)), world.now());
    world.run(200);
    assert_eq!(world.alice.statuses(alice).last(), Some(&200));
    let answer = world.alice.last_body(alice);
    assert!(answer.contains("m=audio 16384 RTP/AVP 0 101"), "{answer}");
    assert_eq!(world.bob.acks, 1);
    let call = world.only_call();
    assert_eq!(call.state, CallState::Active);
    // The relay knows both parties before either may send.
    let legs = world.legs();
    assert_eq!(
        legs[&(0, Side::Caller)].rtp,
        Some("127.0.0.1:6000".parse().unwrap())
    );
    assert_eq!(
        legs[&(0, Side::Callee)].rtp,
        Some("127.0.0.1:7000".parse().unwrap())
    );
    assert!(world.dataplane.recording.is_some());

    world.alice.ack(alice, world.now());
    world.run(1000);
    world.alice.bye(world.now());
    world.run(200);
    assert_eq!(world.bob.byes, 1);
    assert_eq!(world.alice.bye_status, Some(200));
    let call = world.written_call(&call.id);
    assert_eq!(call.state, CallState::Ended);
    assert_eq!(call.ended_by, Some(EndedBy::Caller));
    let recording = world.written_recording();
    assert_eq!(recording.state, RecordingState::Complete);
    assert_eq!(recording.verdict, Some(Verdict::Complete));
    assert!(world.dataplane.closed && world.b2bua.is_idle());
    // Whether the recording or the far side's 200 to BYE is first, is open.
    let mut events = world.events();
    events[6..].sort_unstable();
    assert_eq!(
        events,
        [
            "call.started",
            "call.ringing",
            "recording.started",
            "call.answered",
            "call.bridged",
            "recording.stopped",
            "call.ended",
            "recording.finished",
        ]
    );
}

#[test]
fn calls_survive_any_network() {
    for seed in 0..40 {
        let fault = Fault {
            lose: 0.25,
            repeat: 0.15,
            delay_ms: 120,
        };
        let mut world = World::with_faults(ROUTE, fault, seed);
        let alice = world.invite("sip:bob@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
        let invite = world.until(20_000, |world| world.bob.take_invite());
        world.bob.respond(
            &invite.unwrap(),
            200,
            Some(&sdp("127.0.0.1", 7000)),
            world.now(),
        );
        world.alice.auto_ack = true;
        world
            .until(32_000, |world| {
                world.alice.statuses(alice).contains(&200).then_some(())
            })
            .unwrap();
        world.run(5_000);
        world.alice.bye(world.now());
        world
            .until(60_000, |world| world.b2bua.is_idle().then_some(()))
            .unwrap_or_else(|| panic!("seed {seed}: the call never ends"));
        assert!(
            world.bob.byes >= 1,
            "seed {seed}: bob never hears of the end"
        );
    }
}

#[test]
fn a_cancel_reaches_the_far_side_and_the_caller_gets_487() {
    let mut world = World::new(ROUTE);
    let alice = world.invite("sip:bob@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
    world.run(50);
    let invite = world.bob.take_invite().unwrap();
    world.bob.respond(&invite, 180, None, world.now());
    world.run(50);
    world.alice.cancel(alice, world.now());
    world.run(500);
    assert_eq!(world.alice.statuses(alice).last(), Some(&487));
    assert_eq!(world.bob.cancels, 1);
    assert!(world.b2bua.is_idle() && world.dataplane.closed);
}

#[test]
fn an_answer_that_crosses_the_cancel_is_acknowledged_and_ended() {
    let mut world = World::new(ROUTE);
    let alice = world.invite("sip:bob@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
    world.run(50);
    let invite = world.bob.take_invite().unwrap();
    world.bob.ignores_cancel = true;
    world.bob.respond(&invite, 180, None, world.now());
    world.run(50);
    world.alice.cancel(alice, world.now());
    world.run(10);
    world
        .bob
        .respond(&invite, 200, Some(&sdp("127.0.0.1", 7000)), world.now());
    world.run(1000);
    assert_eq!(world.alice.statuses(alice).last(), Some(&487));
    assert_eq!((world.bob.acks, world.bob.byes), (1, 1));
    assert!(world.b2bua.is_idle());
}

#[test]
fn failures_are_passed_back_and_503_becomes_500() {
    for (theirs, ours) in [
        (486, 486),
        (603, 603),
        (404, 404),
        (503, 500),
        (302, 480),
        (401, 401),
    ] {
        let mut world = World::new(ROUTE);
        let alice = world.invite("sip:bob@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
        world.run(50);
        let invite = world.bob.take_invite().unwrap();
        let headers = [("WWW-Authenticate", "Digest realm=\"pbx\", nonce=\"a,b\"")];
        world
            .bob
            .respond_with(&invite, theirs, None, &headers, world.now());
        world.run(200);
        assert_eq!(world.alice.statuses(alice).last(), Some(&ours));
        let challenge = world.alice.last_header(alice, "WWW-Authenticate");
        assert_eq!(
            challenge.as_deref(),
            Some("Digest realm=\"pbx\", nonce=\"a,b\"")
        );
        assert!(world.b2bua.is_idle());
    }
}

#[test]
fn hold_is_passed_on_and_shown() {
    let mut world = World::new(ROUTE);
    world.establish();
    let held = sdp("127.0.0.1", 6000).replace("a=sendrecv", "a=sendonly");
    let reinvite = world.alice.reinvite(Some(&held), world.now());
    world.run(50);
    let passed = world
        .bob
        .take_invite()
        .expect("the re-INVITE travels as one");
    assert!(String::from_utf8_lossy(&passed.request.body).contains("a=sendonly"));
    let answer = sdp("127.0.0.1", 7000).replace("a=sendrecv", "a=recvonly");
    world.bob.respond(&passed, 200, Some(&answer), world.now());
    world.run(100);
    assert_eq!(world.alice.statuses(reinvite).last(), Some(&200));
    assert!(world.alice.last_body(reinvite).contains("a=recvonly"));
    world.alice.ack(reinvite, world.now());
    world.run(50);
    assert_eq!(world.bob.acks, 2);
    assert_eq!(world.only_call().state, CallState::Held);
    let caller = world.legs()[&(0, Side::Caller)].clone();
    assert_eq!(
        caller.flags & leg_flags::MAY_SEND,
        0,
        "a sender-only party gets no media"
    );
    let again = world
        .alice
        .reinvite(Some(&sdp("127.0.0.1", 6000)), world.now());
    world.run(50);
    let passed = world.bob.take_invite().unwrap();
    world
        .bob
        .respond(&passed, 200, Some(&sdp("127.0.0.1", 7000)), world.now());
    world.run(50);
    world.alice.ack(again, world.now());
    world.run(50);
    assert_eq!(world.only_call().state, CallState::Active);
}

#[test]
fn a_refused_reinvite_leaves_media_as_it_was() {
    let mut world = World::new(ROUTE);
    world.establish();
    let moved = world
        .alice
        .reinvite(Some(&sdp("127.0.0.1", 6100)), world.now());
    world.run(50);
    let passed = world.bob.take_invite().unwrap();
    world.bob.respond(&passed, 488, None, world.now());
    world.run(100);
    assert_eq!(world.alice.statuses(moved).last(), Some(&488));
    assert_eq!(
        world.legs()[&(0, Side::Caller)].rtp,
        Some("127.0.0.1:6000".parse().unwrap())
    );
    assert_eq!(world.only_call().state, CallState::Active);
}

#[test]
fn a_late_offer_is_negotiated_through_the_ack() {
    let mut world = World::new(ROUTE);
    let alice = world.invite("sip:bob@127.0.0.1:5060", None);
    world.run(50);
    let invite = world.bob.take_invite().unwrap();
    assert!(invite.request.body.is_empty());
    world
        .bob
        .respond(&invite, 200, Some(&sdp("127.0.0.1", 7000)), world.now());
    world.run(50);
    let offer = world.alice.last_body(alice);
    assert!(offer.contains("m=audio 16384 "), "{offer}");
    assert_eq!(world.bob.acks, 0, "bob's ACK carries alice's answer");
    world
        .alice
        .ack_with(alice, Some(&sdp("127.0.0.1", 6000)), world.now());
    world.run(50);
    assert_eq!(world.bob.acks, 1);
    assert!(
        world.bob.last_ack_body.contains("m=audio 16386 "),
        "{}",
        world.bob.last_ack_body
    );
    assert_eq!(
        world.legs()[&(0, Side::Caller)].rtp,
        Some("127.0.0.1:6000".parse().unwrap())
    );
}

#[test]
fn nobody_there_and_nobody_answering() {
    let mut world = World::new(ROUTE);
    world.bob.deaf = true;
    let alice = world.invite("sip:bob@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
    world.run(4_500);
    assert_eq!(world.alice.statuses(alice).last(), Some(&408));
    let text = format!("{ROUTE}ring_timeout_s = 10\n");
    let mut world = World::new(&text);
    let alice = world.invite("sip:bob@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
    world.run(50);
    let invite = world.bob.take_invite().unwrap();
    world.bob.respond(&invite, 180, None, world.now());
    world.run(10_500);
    assert_eq!(world.alice.statuses(alice).last(), Some(&480));
    assert_eq!(world.bob.cancels, 1);
}

/// Request-URI, body, headers, and the status it gets.
type Refused<'a> = (&'a str, Option<String>, &'a [(&'a str, &'a str)], u16);

#[test]
fn what_is_not_acceptable_is_refused_with_its_own_status() {
    let text = "[sip]\ncalls_max = 1\n[[route]]\nuser = \"1.*\"\nnext = \"sip:127.0.0.1:5070\"\n";
    let cases: [Refused<'_>; 11] = [
        (
            "sip:200@127.0.0.1:5060",
            Some(sdp("127.0.0.1", 6000)),
            &[],
            404,
        ),
        (
            "sip:100@127.0.0.1:5060",
            Some("garbage".to_owned()),
            &[],
            400,
        ),
        (
            "sip:100@127.0.0.1:5060",
            Some(sdp("127.0.0.1", 0)),
            &[],
            488,
        ),
        (
            "sip:100@127.0.0.1:5060",
            Some(sdp("127.0.0.1", 6000).replace("m=audio 6000 RTP/AVP", "m=audio 6000 RTP/SAVP")),
            &[],
            488,
        ),
        (
            "sip:100@127.0.0.1:5060",
            Some(sdp("127.0.0.1", 6000).replace("c=IN IP4 127.0.0.1", "c=IN IP6 ::1")),
            &[],
            488,
        ),
        (
            "sip:100@127.0.0.1:5060",
            Some(sdp("127.0.0.1", 6000)),
            &[("Contact", "*")],
            400,
        ),
        (
            "sip:100@127.0.0.1:5060",
            Some(sdp("127.0.0.1", 6000)),
            &[("Require", "foo")],
            420,
        ),
        (
            "sip:100@127.0.0.1:5060",
            Some(sdp("127.0.0.1", 6000)),
            &[("Max-Forwards", "0")],
            483,
        ),
        ("mailto:a@b.example", Some(sdp("127.0.0.1", 6000)), &[], 416),
        (
            "sip:100@127.0.0.1:5060",
            Some(sdp("127.0.0.1", 6000)),
            &[("Content-Type", "text/plain")],
            415,
        ),
        (
            "sip:100@127.0.0.1:5060",
            Some(sdp("127.0.0.1", 6000)),
            &[],
            100,
        ),
    ];
    for (uri, body, headers, expected) in cases {
        let mut world = World::new(text);
        let alice = world.invite_with(uri, body.as_deref(), headers);
        world.run(100);
        assert_eq!(
            world.alice.statuses(alice).last(),
            Some(&expected),
            "{uri} {headers:?}"
        );
    }
    let mut world = World::new(text);
    let first = world.invite("sip:100@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
    let second = world.invite("sip:100@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6002)));
    world.run(100);
    assert_eq!(world.alice.statuses(first), [100]);
    assert_eq!(world.alice.statuses(second), [503]);
}

#[test]
fn the_dataplane_refuses_or_is_absent() {
    let mut world = World::new(ROUTE);
    world.dataplane.refuses_ports = true;
    let alice = world.invite("sip:bob@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
    world.run(100);
    assert_eq!(world.alice.statuses(alice).last(), Some(&503));
    let mut world = World::new(ROUTE);
    let now = world.moment();
    world.b2bua.dataplane_died(&now);
    let alice = world.invite("sip:bob@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
    world.run(100);
    assert_eq!(world.alice.statuses(alice).last(), Some(&503));
}

#[test]
fn pause_resume_and_stop_hold_when_they_are_answered() {
    let mut world = World::new(ROUTE);
    world.establish();
    let id = world.only_call().id;
    let paused = world.act(&id, RecordingAction::Pause).unwrap();
    assert_eq!(paused.state, RecordingState::Paused);
    assert_eq!(paused.pauses.len(), 1);
    world.run(2_000);
    assert!(world.act(&id, RecordingAction::Start).is_err());
    let running = world.act(&id, RecordingAction::Resume).unwrap();
    assert_eq!(running.state, RecordingState::Recording);
    assert!(
        (1_990..2_100).contains(&running.paused_ms),
        "{}",
        running.paused_ms
    );
    let stopped = world.act(&id, RecordingAction::Stop).unwrap();
    assert_eq!(
        world.act(&id, RecordingAction::Stop).unwrap().id,
        stopped.id
    );
    let second = world.act(&id, RecordingAction::Start).unwrap();
    assert_ne!(second.id, stopped.id);
}

#[test]
fn a_restarted_control_knows_its_calls() {
    let mut world = World::new(ROUTE);
    world.establish();
    let before = world.only_call();
    world.restart_control();
    let after = world.only_call();
    assert_eq!(
        (after.id.as_str(), after.state),
        (before.id.as_str(), CallState::Active)
    );
    let now = world.now();
    world.bob.bye(now);
    world.run(500);
    assert_eq!(world.bob.bye_status, Some(200));
    assert_eq!(world.alice.byes, 1);
    let call = world.written_call(&before.id);
    assert_eq!(call.ended_by, Some(EndedBy::Callee));
    assert_eq!(world.written_recording().state, RecordingState::Complete);
}

#[test]
fn a_new_dataplane_gets_every_call_on_the_same_ports() {
    let mut world = World::new(ROUTE);
    world.establish();
    let ports = world.dataplane.ports.clone();
    let recording = world.dataplane.recording;
    world.restart_dataplane();
    assert_eq!(world.dataplane.ports, ports);
    assert_eq!(world.dataplane.recording, recording);
    assert!(world.dataplane.commands.iter().any(|command| matches!(
        command,
        Command::RecordingStart(start) if start.origin_mono_ns != 0
    )));
    let now = world.now();
    world.alice.bye(now);
    world.run(500);
    let recording = world.written_recording();
    assert_eq!(recording.verdict, Some(Verdict::Partial));
    assert_eq!(recording.state, RecordingState::Partial);
}

#[test]
fn draining_refuses_new_calls_and_ends_the_others() {
    let mut world = World::new(ROUTE);
    world.establish();
    world.b2bua.drain();
    let refused = world.invite("sip:bob@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6010)));
    world.run(100);
    assert_eq!(world.alice.statuses(refused).last(), Some(&503));
    let now = world.moment();
    world.b2bua.end_all(&now);
    world.run(500);
    assert_eq!((world.alice.byes, world.bob.byes), (1, 1));
    assert!(world.b2bua.is_idle());
}

#[test]
fn crossing_byes_are_both_answered() {
    let mut world = World::new(ROUTE);
    world.establish();
    let now = world.now();
    world.alice.bye(now);
    world.bob.bye(now);
    world.run(1_000);
    assert_eq!(world.alice.bye_status, Some(200));
    assert!(matches!(world.bob.bye_status, Some(200 | 481)));
    assert!(world.b2bua.is_idle());
}

#[test]
fn a_call_longer_than_its_limit_is_ended() {
    let mut world = World::new(&format!("{ROUTE}duration_max_s = 60\n"));
    world.establish();
    world.run(61_000);
    assert_eq!((world.alice.byes, world.bob.byes), (1, 1));
}

#[test]
fn a_refusal_without_ack_does_not_end_the_call() {
    let mut world = World::new(ROUTE);
    world.establish();
    world
        .alice
        .reinvite(Some(&sdp("127.0.0.1", 6002)), world.now());
    world.run(20);
    let invite = world.bob.take_invite().unwrap();
    world.alice.deaf = true;
    world.bob.respond(&invite, 488, None, world.now());
    world.run(60_000);
    assert_eq!(world.only_call().state, CallState::Active);
    assert_eq!(world.bob.byes, 0);
}

#[test]
fn a_second_fork_that_answers_late_is_acknowledged_and_ended() {
    let mut world = World::new(ROUTE);
    let alice = world.invite("sip:bob@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
    world.run(50);
    let invite = world.bob.take_invite().unwrap();
    world
        .bob
        .respond(&invite, 200, Some(&sdp("127.0.0.1", 7000)), world.now());
    world.run(50);
    world.alice.ack(alice, world.now());
    world.run(50);
    let acks = world.bob.acks;
    let mut other = Response::to(&invite.request, 200);
    other.set_to_tag("another-fork");
    other
        .headers
        .append("Contact", "<sip:bob@127.0.0.1:5070;fork=2>");
    other.set_body("application/sdp", sdp("127.0.0.1", 7100));
    let path = Path {
        transport: Transport::Udp,
        flow: FlowId(1),
        local: common::US.parse().unwrap(),
        source: world.bob.address,
    };
    let now = world.moment();
    world
        .b2bua
        .endpoint
        .handle_datagram(now.instant, path, &other.to_bytes());
    world.b2bua.handle_sip_events(&now);
    world.run(50);
    assert_eq!((world.bob.acks, world.bob.byes), (acks + 1, 1));
    assert_eq!(world.only_call().state, CallState::Active);
}

#[test]
fn what_the_callee_asks_waits_for_the_callers_ack() {
    let mut world = World::new(ROUTE);
    let alice = world.invite("sip:bob@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
    world.run(50);
    let invite = world.bob.take_invite().unwrap();
    world
        .bob
        .respond(&invite, 200, Some(&sdp("127.0.0.1", 7000)), world.now());
    world.run(50);
    world
        .bob
        .reinvite(Some(&sdp("127.0.0.1", 7002)), world.now());
    world.run(100);
    assert!(world.alice.take_invite().is_none());
    world.alice.ack(alice, world.now());
    world.run(100);
    assert!(world.alice.take_invite().is_some());
}

#[test]
fn a_cancelled_reinvite_is_cancelled_on_the_other_side() {
    let mut world = World::new(ROUTE);
    world.establish();
    let again = world
        .alice
        .reinvite(Some(&sdp("127.0.0.1", 6002)), world.now());
    world.run(500);
    world.alice.cancel(again, world.now());
    world.run(500);
    assert_eq!(world.bob.cancels, 1);
    assert_eq!(world.alice.statuses(again).last(), Some(&487));
    assert_eq!(world.only_call().state, CallState::Active);
}

#[test]
fn a_late_offer_that_is_never_answered_is_acknowledged_before_its_end() {
    let mut world = World::new(ROUTE);
    world.invite("sip:bob@127.0.0.1:5060", None);
    world.run(50);
    let invite = world.bob.take_invite().unwrap();
    world
        .bob
        .respond(&invite, 200, Some(&sdp("127.0.0.1", 7000)), world.now());
    world.run(1000);
    assert_eq!(world.bob.acks, 0);
    world.run(70_000);
    assert_eq!((world.bob.acks, world.bob.byes), (1, 1));
    assert!(world.b2bua.is_idle());
}

#[test]
fn an_earlier_hold_takes_nothing_from_a_second_recording() {
    let mut world = World::new(ROUTE);
    world.establish();
    let call = world.only_call().id;
    for (ours, theirs) in [("sendonly", "recvonly"), ("sendrecv", "sendrecv")] {
        let offer = sdp("127.0.0.1", 6000).replace("sendrecv", ours);
        let offer = offer.replace("o=- 1", &format!("o=- {}", ours.len()));
        let again = world.alice.reinvite(Some(&offer), world.now());
        world.run(20);
        let invite = world.bob.take_invite().unwrap();
        let answer = sdp("127.0.0.1", 7000).replace("sendrecv", theirs);
        world.bob.respond(&invite, 200, Some(&answer), world.now());
        world.run(20);
        world.alice.ack(again, world.now());
        world.run(10_000);
    }
    world.act(&call, RecordingAction::Stop).unwrap();
    world.act(&call, RecordingAction::Start).unwrap();
    world.run(5_000);
    world.alice.bye(world.now());
    world.run(200);
    let recordings = world.written_recordings();
    assert_eq!(recordings.len(), 2);
    for recording in recordings {
        let receipt = recording.receipt.unwrap();
        assert_eq!(receipt.caller.covered_ms, 2000);
    }
}

#[test]
fn a_recording_that_ended_while_control_was_away_keeps_its_receipt() {
    let mut world = World::new(ROUTE);
    world.establish();
    let call = world.only_call().id;
    world.dataplane.holds_closed = true;
    world.act(&call, RecordingAction::Stop).unwrap();
    world.restart_control();
    let recording = world.written_recording();
    assert_eq!(recording.state, RecordingState::Complete);
    assert_eq!(recording.verdict, Some(Verdict::Complete));
    assert_eq!(recording.receipt.unwrap().caller.written, 100);
    world.alice.bye(world.now());
    world.run(200);
    assert!(world.b2bua.is_idle());
}

#[test]
fn a_recording_that_ends_as_the_dataplane_dies_is_told_by_what_was_captured() {
    let mut world = World::new(ROUTE);
    world.establish();
    let (live, _) = world.b2bua.live();
    let number = *live.first().unwrap();
    let now = world.moment();
    world.dataplane = common::Dataplane::default();
    world.b2bua.dataplane_died(&now);
    world.alice.bye(world.now());
    world.run(200);
    let place = RecoveredPlace {
        next_ordinal: 1,
        last_segment: 1,
        last_page: 1,
        chain_head: [7; 32],
    };
    let now = world.moment();
    world
        .b2bua
        .recovered(&HashMap::from([(number, place)]), &now);
    world.run(200);
    assert_eq!(world.written_recording().verdict, None);
    let captured = [false, true].map(|from_callee| StreamCounts {
        from_callee,
        ssrc: 7 + u32::from(from_callee),
        expected: 160,
        written: 160,
        ..StreamCounts::default()
    });
    let now = world.moment();
    world.b2bua.recounted(number, &captured, &now);
    world.run(200);
    let recording = world.written_recording();
    assert_eq!(recording.verdict, Some(Verdict::Partial));
    assert_eq!(recording.state, RecordingState::Partial);
    assert_eq!(recording.receipt.unwrap().caller.written, 160);
    assert!(world.b2bua.is_idle());
}

#[test]
fn a_dataplane_that_dies_twice_loses_no_call() {
    let mut world = World::new(ROUTE);
    world.establish();
    let call = world.only_call().id;
    let now = world.moment();
    world.dataplane = common::Dataplane::default();
    world.b2bua.dataplane_died(&now);
    world
        .b2bua
        .recovered(&std::collections::HashMap::new(), &now);
    // Nothing captures, so that nothing can be paused; the call's media must come back all the same.
    assert!(world.act(&call, RecordingAction::Pause).is_err());
    world.b2bua.attached();
    let (request, _) = world.b2bua.take_commands().pop().unwrap();
    world
        .b2bua
        .on_link_event(Event::SnapshotEnd { request }, &now);
    assert!(!world.b2bua.take_commands().is_empty());
    world.restart_dataplane();
    assert_eq!(world.only_call().state, CallState::Active);
    assert_eq!(world.legs().len(), 2);
    assert!(world.dataplane.recording.is_some());
    world.run(20_000);
    world.alice.bye(world.now());
    world.run(200);
    assert_eq!(world.bob.byes, 1);
    let recording = world.written_recording();
    assert_eq!(recording.verdict, Some(Verdict::Partial));
    assert!(world.b2bua.is_idle());
}

#[test]
fn a_hang_up_before_the_ack_waits_for_it_and_says_why() {
    let mut world = World::new("[[route]]\nnext = \"sip:127.0.0.1:5070\"\nduration_max_s = 1\n");
    let alice = world.invite("sip:bob@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
    world.run(50);
    let invite = world.bob.take_invite().unwrap();
    world
        .bob
        .respond(&invite, 200, Some(&sdp("127.0.0.1", 7000)), world.now());
    world.run(2000);
    assert_eq!((world.alice.byes, world.bob.byes), (0, 1));
    world.alice.ack(alice, world.now());
    world.run(200);
    assert_eq!(world.alice.byes, 1);
    assert!(world.alice.last_bye_reason.contains("longest duration"));
    assert!(world.b2bua.is_idle());
}
