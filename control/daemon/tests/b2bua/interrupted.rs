//! Transfers that a restart of control cuts short, and calls that know of different numbers of m-lines.

use std::collections::BTreeMap;

use crate::cdr::{assert_one_final_a_leg, records};
use crate::common::{Agent, World, sdp};
use trunkline_link::message::Side;
use trunkline_sinks::cdr::{Cdr, RecordKind};
use trunkline_sinks::object::{CallState, EndedBy};
use trunkline_sip::dialog::parse_sipfrag;
use trunkline_sip::message::Method;

const ROUTES: &str = "[[route]]\nuser = \"carol\"\nnext = \"sip:127.0.0.1:5071\"\n\
                      [[route]]\nuser = \"bob\"\nnext = \"sip:127.0.0.1:5070\"\n";
const TO_CAROL: (&str, &str) = ("Refer-To", "<sip:carol@127.0.0.1:5060>");

fn told(agent: &Agent) -> Vec<u16> {
    let notifies = agent
        .requests
        .iter()
        .filter(|one| one.method == Method::Notify);
    notifies
        .map(|one| parse_sipfrag(&one.body).unwrap())
        .collect()
}

#[test]
fn who_answers_a_call_that_was_being_set_up_when_control_died_is_let_go() {
    let mut world = World::new(ROUTES);
    world.invite("sip:bob@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
    world.run(50);
    let invite = world.bob.take_invite().unwrap();
    world.restart_control();
    world
        .bob
        .respond(&invite, 200, Some(&sdp("127.0.0.1", 7000)), world.now());
    world.run(500);
    assert_eq!((world.bob.acks, world.bob.byes), (1, 1));
}

/// Bob asks that alice be connected to carol, whose telephone rings.
fn referred() -> World {
    let mut world = World::new(ROUTES);
    world.establish();
    world.bob.request(Method::Refer, &[TO_CAROL], world.now());
    world.run(50);
    world
}

#[test]
fn a_transfer_cut_short_while_the_target_rings_has_failed_and_the_parties_talk_on() {
    let mut world = referred();
    let ringing = world.carol.take_invite().unwrap();
    world.restart_control();
    world.run(500);
    assert_eq!(told(&world.bob), [100, 500]);
    // Carol, who takes the call all the same, is let go.
    world
        .carol
        .respond(&ringing, 200, Some(&sdp("127.0.0.1", 7100)), world.now());
    world.run(500);
    assert_eq!((world.carol.acks, world.carol.byes), (1, 1));
    let call = world.only_call();
    assert_eq!(call.state, CallState::Active);
    assert_eq!(call.legs[2].state, CallState::Failed);
    assert!(world.events().contains(&"call.transfer_failed"));
    // Another transfer may follow.
    let again = world.bob.request(Method::Refer, &[TO_CAROL], world.now());
    world.run(50);
    assert_eq!(world.bob.statuses(again), [202]);
    world.alice.bye(world.now());
    world.run(2_000);
    assert_eq!(world.bob.byes, 1);
}

#[test]
fn a_party_that_was_offered_the_newcomers_media_is_told_again_what_holds() {
    let mut world = referred();
    let invite = world.carol.take_invite().unwrap();
    let other = sdp("127.0.0.1", 7100).replace("AVP 0 101", "AVP 8 101");
    let other = other.replace("rtpmap:0 PCMU", "rtpmap:8 PCMA");
    world.carol.respond(&invite, 200, Some(&other), world.now());
    world.run(50);
    let offer = world.alice.take_invite().expect("alice is offered carol's");
    world.restart_control();
    // She takes it, but who would have told her more is gone.
    world
        .alice
        .respond(&offer, 200, Some(&sdp("127.0.0.1", 6000)), world.now());
    world.run(12_000);
    let again = world.alice.take_invite().expect("alice is told of bob");
    let body = String::from_utf8_lossy(&again.request.body).into_owned();
    assert!(body.contains("AVP 0 101"), "{body}");
    world
        .alice
        .respond(&again, 200, Some(&sdp("127.0.0.1", 6000)), world.now());
    world.run(500);
    assert_eq!(told(&world.bob).last(), Some(&500));
    assert_eq!(world.bob.byes, 0);
    let callee = world.legs()[&(0, Side::Callee)].rtp;
    assert_eq!(callee, Some("127.0.0.1:7000".parse().unwrap()));
}

/// The legs that are open by their records.
fn open_legs(world: &World) -> Vec<Cdr> {
    let mut last = BTreeMap::new();
    for record in records(world) {
        last.insert(record.id.clone(), record);
    }
    let open = last.into_values();
    open.filter(|record| record.record != RecordKind::Final)
        .collect()
}

#[test]
fn the_leg_of_a_target_ends_with_its_transfer_when_that_is_cut_short() {
    for answers in [false, true] {
        let mut world = referred();
        let invite = world.carol.take_invite().unwrap();
        let other = sdp("127.0.0.1", 7100).replace("AVP 0 101", "AVP 8 101");
        let other = other.replace("rtpmap:0 PCMU", "rtpmap:8 PCMA");
        let (status, body) = match answers {
            true => (200, Some(other.as_str())),
            false => (180, None),
        };
        world.carol.respond(&invite, status, body, world.now());
        world.run(1_000);
        let left = open_legs(&world);
        assert_eq!(left.len(), 3);
        world.restart_control_with(left);
        world.run(60_000);
        let carol = invite.request.headers.call_id().unwrap();
        let own = records(&world);
        let own: Vec<&Cdr> = own.iter().filter(|one| one.sip_call_id == carol).collect();
        let last = own.last().unwrap();
        assert_eq!(last.record, RecordKind::Final, "at once, not with the call");
        assert_eq!(last.ended_by, Some(EndedBy::Us));
        assert!(last.reason.as_ref().unwrap().contains("interrupted"));
        assert!(!last.was_established());
        assert_eq!(last.sip_code, answers.then_some(200));
        let lasted = if answers { 900..2_000 } else { 0..1 };
        assert!(lasted.contains(&last.duration_ms), "{}", last.duration_ms);
        assert_eq!(world.only_call().state, CallState::Active);
        world.alice.bye(world.now());
        world.run(500);
        assert_one_final_a_leg(&records(&world), "cut short");
    }
}

#[test]
fn a_newcomer_does_not_wait_long_for_a_party_that_puts_us_off() {
    let mut world = referred();
    let invite = world.carol.take_invite().unwrap();
    let other = sdp("127.0.0.1", 7100).replace("AVP 0 101", "AVP 8 101");
    let other = other.replace("rtpmap:0 PCMU", "rtpmap:8 PCMA");
    world.carol.respond(&invite, 200, Some(&other), world.now());
    for _ in 0..95 {
        world.run(100);
        if let Some(offer) = world.alice.take_invite() {
            let later = [("Retry-After", "4")];
            let now = world.now();
            world.alice.respond_with(&offer, 500, None, &later, now);
        }
    }
    assert_eq!(told(&world.bob).last(), Some(&488));
    assert_eq!((world.carol.acks, world.carol.byes), (1, 1));
    assert_eq!(world.only_call().state, CallState::Active);
}

#[test]
fn a_transferor_that_has_left_leaves_nobody_behind_after_a_restart() {
    let mut world = referred();
    world.bob.bye(world.now());
    world.run(50);
    assert_eq!(world.alice.byes, 0);
    world.restart_control();
    world.run(2_000);
    assert_eq!(told(&world.bob), [100, 500]);
    assert_eq!(world.alice.byes, 1);
    assert!(world.b2bua.is_idle());
}

#[test]
fn the_outcome_is_told_by_the_next_control_if_this_one_could_not() {
    let mut world = referred();
    let invite = world.carol.take_invite().unwrap();
    world.bob.deaf = true;
    world
        .carol
        .respond(&invite, 200, Some(&sdp("127.0.0.1", 7100)), world.now());
    world.run(200);
    world.restart_control();
    world.bob.deaf = false;
    world.run(6_000);
    assert_eq!(told(&world.bob).last(), Some(&200));
    assert_eq!((world.bob.byes, world.carol.byes), (1, 0));
    assert_eq!(world.only_call().state, CallState::Active);
}

fn with_video(port: u16) -> String {
    let video = port + 2;
    format!(
        "{}m=video {video} RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n",
        sdp("127.0.0.1", port)
    )
}

fn lines(body: &[u8]) -> usize {
    let text = String::from_utf8_lossy(body);
    text.lines().filter(|line| line.starts_with("m=")).count()
}

#[test]
fn parties_that_know_of_different_numbers_of_media_lines_go_on_after_a_transfer() {
    // Alice talks to bob by voice; dave, bob's other line, to carol with a picture.
    let mut world = World::new(ROUTES);
    world.establish();
    let ours = crate::common::US.parse().unwrap();
    let now = world.now();
    let dave = world.dave.invite(
        "sip:carol@127.0.0.1:5060",
        ours,
        Some(&with_video(8000)),
        &[],
        now,
    );
    world.run(50);
    let invite = world.carol.take_invite().unwrap();
    world
        .carol
        .respond(&invite, 200, Some(&with_video(7100)), world.now());
    world.run(50);
    world.dave.ack(dave, world.now());
    world.run(50);
    let replaces = world.dave.replaces();
    let replaces = replaces.replace(';', "%3B").replace('=', "%3D");
    let to = format!("<sip:carol@127.0.0.1:5060?Replaces={replaces}>");
    world
        .bob
        .request(Method::Refer, &[("Refer-To", &to)], world.now());
    world.run(50);
    let again = world.carol.take_invite().expect("carol is re-invited");
    assert_eq!(lines(&again.request.body), 2);
    let without = with_video(7100).replace("m=video 7102", "m=video 0");
    world
        .carol
        .respond(&again, 200, Some(&without), world.now());
    world.run(500);
    if let Some(told) = world.alice.take_invite() {
        world
            .alice
            .respond(&told, 200, Some(&sdp("127.0.0.1", 6000)), world.now());
        world.run(500);
    }
    assert_eq!(told(&world.bob).last(), Some(&200));
    // Alice holds: of her one line carol is to hear two.
    let held = sdp("127.0.0.1", 6000).replace("sendrecv", "sendonly");
    let hold = world.alice.reinvite(Some(&held), world.now());
    world.run(50);
    let offered = world.carol.take_invite().expect("carol hears of the hold");
    assert_eq!(lines(&offered.request.body), 2);
    let answer = without.replace("sendrecv", "recvonly");
    world
        .carol
        .respond(&offered, 200, Some(&answer), world.now());
    world.run(50);
    assert_eq!(world.alice.statuses(hold).last(), Some(&200));
    let told = world.alice.last_body(hold);
    assert_eq!(lines(told.as_bytes()), 1, "{told}");
    world.alice.ack(hold, world.now());
    world.run(50);
    world.alice.bye(world.now());
    world.run(500);
    assert_eq!(world.carol.byes, 1);
}
