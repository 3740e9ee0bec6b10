//! Calls recorded to SIPREC servers: carol and dave are the recorders.

use trunkline_control::api::handle::{ActionError, RecorderOrder, RecordingAction, Request};
use trunkline_control::siprec::client::Chosen;
use trunkline_control::siprec::session::{Session, State};
use trunkline_link::message::{ForkState, Side};
use trunkline_sip::message::Method;
use trunkline_siprec::journal::Journal;
use trunkline_siprec::metadata::{DataMode, Metadata, Strictness};
use trunkline_siprec::{Id, multipart, snapshot};

use super::common::{Fork, Received, World, sdp};

pub(super) const ONE: &str =
    "[[route]]\nnext = \"sip:127.0.0.1:5070\"\nsrs = [\"sip:rec@127.0.0.1:5071\"]\n";
pub(super) const TWO: &str = "[[route]]\nnext = \"sip:127.0.0.1:5070\"\n\
                   srs = [\"sip:rec@127.0.0.1:5071\", \"sip:rec@127.0.0.1:5072\"]\n";

/// A recorder's answer to `lines` audio m-lines from `port` on.
pub(super) fn answer(port: u16, lines: u16, direction: &str) -> String {
    let mut text =
        "v=0\r\no=- 9 9 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n".to_owned();
    for line in 0..lines {
        let port = port + 2 * line;
        text += &format!(
            "m=audio {port} RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\na=label:{}\r\na={direction}\r\n",
            line + 1
        );
    }
    text
}

/// The SDP and metadata of a recorder's INVITE.
pub(super) fn bodies(invite: &Received) -> (String, String) {
    let kind = invite.request.headers.get("Content-Type").unwrap();
    let bodies = multipart::read(&kind, &invite.request.body).unwrap();
    let text = |bytes: Option<Vec<u8>>| String::from_utf8(bytes.unwrap_or_default()).unwrap();
    (text(bodies.sdp), text(bodies.metadata))
}

/// What a recorder knows after the documents that it was sent.
#[derive(Default)]
pub(super) struct Known {
    journal: Journal,
    cseq: u32,
}

impl Known {
    pub(super) fn take(&mut self, document: &str) -> &Metadata {
        self.cseq += 1;
        let at = "2026-11-28T00:00:00.000Z";
        self.journal
            .apply(self.cseq, at, document.as_bytes(), Strictness::Strict)
            .unwrap_or_else(|why| panic!("{why:?}: {document}"));
        self.journal.state()
    }

    pub(super) fn after(mut self, documents: &[&str]) -> Self {
        for document in documents {
            self.take(document);
        }
        self
    }

    pub(super) fn state(&self) -> &Metadata {
        self.journal.state()
    }

    /// The participant whose address has this user.
    pub(super) fn who(&self, user: &str) -> Id {
        let named = |aor: &str| aor.contains(&format!(":{user}@"));
        let found = self
            .state()
            .participants
            .iter()
            .find(|one| named(&one.names[0].aor));
        found.unwrap_or_else(|| panic!("no {user}")).id.clone()
    }

    pub(super) fn sends(&self, user: &str) -> usize {
        self.state()
            .streams_of(&self.who(user))
            .map_or(0, |one| one.send.len())
    }

    pub(super) fn receives(&self, user: &str) -> usize {
        self.state()
            .streams_of(&self.who(user))
            .map_or(0, |one| one.recv.len())
    }
}

impl World {
    pub(super) fn siprec(&self) -> Vec<Session> {
        self.b2bua.siprec_sessions()
    }

    pub(super) fn only_siprec(&self) -> Session {
        let sessions = self.siprec();
        assert_eq!(sessions.len(), 1, "{sessions:?}");
        sessions.into_iter().next().unwrap()
    }

    pub(super) fn fork(&self) -> &Fork {
        assert_eq!(self.dataplane.forks.len(), 1);
        self.dataplane.forks.values().next().unwrap()
    }

    /// Carol takes what she is asked to record, or told.
    pub(super) fn recorder_accepts(&mut self, invite: &Received) {
        let (taken, now) = (answer(9000, 2, "recvonly"), self.now());
        self.carol.respond(invite, 200, Some(&taken), now);
        self.run(50);
    }

    /// An answered call that carol records.
    pub(super) fn recorded(text: &str) -> (Self, String) {
        let mut world = Self::new(text);
        world.establish();
        let invite = world.carol.take_invite().expect("carol is asked to record");
        world.recorder_accepts(&invite);
        assert_eq!(world.only_siprec().state, State::Active);
        (world, bodies(&invite).1)
    }

    pub(super) fn order(
        &mut self,
        call: &str,
        order: RecorderOrder,
    ) -> Result<Vec<Session>, ActionError> {
        let (reply, mut answer) = tokio::sync::oneshot::channel();
        self.api(Request::RecorderOrder {
            call: call.to_owned(),
            chosen: Chosen::All,
            order,
            reply,
        });
        for _ in 0..100 {
            if let Ok(answer) = answer.try_recv() {
                return answer;
            }
            self.run(20);
        }
        panic!("the order is not answered");
    }

    pub(super) fn act_on_recorders(
        &mut self,
        call: &str,
        action: RecordingAction,
    ) -> Result<Vec<Session>, ActionError> {
        self.order(
            call,
            RecorderOrder::Act {
                action,
                recorder: None,
            },
        )
    }
}

#[test]
fn an_answered_call_is_recorded_by_a_server() {
    let mut world = World::new(ONE);
    world.establish();
    let invite = world.carol.take_invite().expect("carol is asked to record");
    let headers = &invite.request.headers;
    assert!(headers.get("Contact").unwrap().ends_with(";+sip.src"));
    assert_eq!(headers.get("Require").as_deref(), Some("siprec"));
    let accept = headers.get("Accept").unwrap();
    assert!(accept.contains("application/sdp") && accept.contains("application/rs-metadata+xml"));
    assert!(
        headers
            .get("Content-Type")
            .unwrap()
            .starts_with("multipart/mixed")
    );
    let (sdp, document) = bodies(&invite);
    assert_eq!(sdp.matches("m=audio").count(), 2, "{sdp}");
    assert_eq!(sdp.matches("a=sendonly").count(), 2, "{sdp}");
    assert!(
        sdp.contains("a=label:1\r\n") && sdp.contains("a=label:2\r\n"),
        "{sdp}"
    );
    assert!(sdp.contains("m=audio 20000 RTP/AVP 0 101"), "{sdp}");
    let mut known = Known::default();
    let told = known.take(&document);
    assert_eq!(told.mode, DataMode::Complete);
    assert_eq!((told.participants.len(), told.streams.len()), (2, 2));
    assert!(
        told.groups.is_empty(),
        "a group is told where one is configured"
    );
    assert_eq!((known.sends("alice"), known.receives("alice")), (1, 1));
    // Nothing leaves before the recorder has said where to.
    assert!(
        world
            .dataplane
            .forks
            .values()
            .all(|fork| fork.state.is_none())
    );

    world.recorder_accepts(&invite);
    assert_eq!(world.carol.acks, 1);
    let fork = world.fork();
    assert!(fork.sends(0, Side::Caller) && fork.sends(0, Side::Callee));
    let rtp = |side| fork.legs[&(0, side)].rtp.unwrap().port();
    assert_eq!((rtp(Side::Caller), rtp(Side::Callee)), (9000, 9002));
    let session = world.only_siprec();
    assert_eq!((session.state, session.revision), (State::Active, 1));
    assert_eq!(session.server, "sip:rec@127.0.0.1:5071");
    assert_eq!(session.streams.len(), 2);
    assert!(world.events().contains(&"siprec.started"));
    let call = world.only_call();
    assert_eq!(
        call.legs.len(),
        3,
        "the recording session is a leg of the call"
    );
    // All is said: nothing more is told.
    world.run(5_000);
    assert!(world.carol.take_invite().is_none());

    world.alice.bye(world.now());
    world.run(500);
    assert_eq!(world.carol.byes, 1);
    let bye = world.carol.requests.last().unwrap();
    assert_eq!(bye.method, Method::Bye);
    let document = String::from_utf8(bye.body.clone()).unwrap();
    let told = known.take(&document);
    assert!(told.sessions[0].stopped.is_some(), "{document}");
    assert!(world.dataplane.forks.is_empty() && world.b2bua.is_idle());
    assert_eq!(
        world
            .events()
            .iter()
            .filter(|one| **one == "siprec.stopped")
            .count(),
        1
    );
}

#[test]
fn hold_and_resumption_are_told_with_the_streams_that_flow() {
    let (mut world, first) = World::recorded(ONE);
    let held = sdp("127.0.0.1", 6000).replace("sendrecv", "sendonly");
    let hold = world.alice.reinvite(Some(&held), world.now());
    world.run(50);
    let invite = world.bob.take_invite().unwrap();
    let receives = sdp("127.0.0.1", 7000).replace("sendrecv", "recvonly");
    world
        .bob
        .respond(&invite, 200, Some(&receives), world.now());
    world.run(50);
    world.alice.ack(hold, world.now());
    world.run(50);
    let told = world.carol.take_invite().expect("carol hears of the hold");
    let (description, second) = bodies(&told);
    assert_eq!(
        description.matches("a=label").count(),
        2,
        "labels ride with their offer"
    );
    world.recorder_accepts(&told);
    let known = Known::default().after(&[&first, &second]);
    assert_eq!((known.sends("alice"), known.receives("alice")), (1, 0));
    assert_eq!((known.sends("bob"), known.receives("bob")), (0, 1));

    let resume = world
        .alice
        .reinvite(Some(&sdp("127.0.0.1", 6000)), world.now());
    world.run(50);
    let invite = world.bob.take_invite().unwrap();
    world
        .bob
        .respond(&invite, 200, Some(&sdp("127.0.0.1", 7000)), world.now());
    world.run(50);
    world.alice.ack(resume, world.now());
    world.run(50);
    let told = world
        .carol
        .take_invite()
        .expect("carol hears of the resumption");
    let third = bodies(&told).1;
    let known = Known::default().after(&[&first, &second, &third]);
    assert_eq!((known.sends("bob"), known.receives("bob")), (1, 1));
}

#[test]
fn a_server_that_fails_or_is_silent_is_followed_by_the_next() {
    for silent in [false, true] {
        let mut world = World::new(TWO);
        world.carol.deaf = silent;
        world.establish();
        if !silent {
            let invite = world.carol.take_invite().unwrap();
            world.carol.respond(&invite, 486, None, world.now());
        }
        let invite = world.until(3_000, |world| world.dave.take_invite());
        let invite = invite.expect("dave is asked when carol does not record");
        world.dave.respond(
            &invite,
            200,
            Some(&answer(9000, 2, "recvonly")),
            world.now(),
        );
        world.run(50);
        let session = world.only_siprec();
        assert_eq!(session.state, State::Active);
        assert_eq!(
            (session.server.as_str(), session.failovers),
            ("sip:rec@127.0.0.1:5072", 1)
        );
    }
}

#[test]
fn packets_stop_before_the_recorder_hears_of_a_pause_and_go_on_after_it_has_agreed() {
    let (mut world, _) = World::recorded(ONE);
    let call = world.only_call().id;
    let paused = world
        .act_on_recorders(&call, RecordingAction::Pause)
        .unwrap();
    assert_eq!(paused[0].state, State::Paused);
    assert_eq!(world.fork().state, Some(ForkState::Paused));
    world.run(50);
    let told = world.carol.take_invite().expect("carol hears of the pause");
    assert_eq!(bodies(&told).0.matches("a=inactive").count(), 2);
    world
        .carol
        .respond(&told, 200, Some(&answer(9000, 2, "inactive")), world.now());
    world.run(50);
    assert_eq!(world.only_siprec().state, State::Paused);
    // Repeating it is fine.
    world
        .act_on_recorders(&call, RecordingAction::Pause)
        .unwrap();

    let (reply, mut done) = tokio::sync::oneshot::channel();
    world.api(Request::RecorderOrder {
        call: call.clone(),
        chosen: Chosen::Named("default".to_owned()),
        order: RecorderOrder::Act {
            action: RecordingAction::Resume,
            recorder: None,
        },
        reply,
    });
    world.run(50);
    let told = world
        .carol
        .take_invite()
        .expect("carol hears of the resumption");
    assert_eq!(bodies(&told).0.matches("a=sendonly").count(), 2);
    assert!(
        !world.fork().sends(0, Side::Caller),
        "not before carol has agreed"
    );
    assert!(done.try_recv().is_err());
    world.recorder_accepts(&told);
    assert!(world.fork().sends(0, Side::Caller));
    assert_eq!(done.try_recv().unwrap().unwrap()[0].state, State::Active);

    let stopped = world
        .act_on_recorders(&call, RecordingAction::Stop)
        .unwrap();
    assert_eq!(stopped[0].state, State::Ended);
    world.run(500);
    assert_eq!(world.carol.byes, 1);
    assert_eq!(world.bob.byes, 0, "the call goes on");
    world
        .act_on_recorders(&call, RecordingAction::Stop)
        .unwrap();
    assert!(
        world
            .act_on_recorders(&call, RecordingAction::Pause)
            .is_err()
    );
}

#[test]
fn a_pause_by_silence_tells_the_recorder_nothing() {
    let text = "[[recorder]]\nname = \"main\"\nservers = [\"sip:rec@127.0.0.1:5071\"]\n\
                pause = \"silence\"\n[[route]]\nnext = \"sip:127.0.0.1:5070\"\nrecorders = [\"main\"]\n";
    let (mut world, _) = World::recorded(text);
    let call = world.only_call().id;
    world
        .act_on_recorders(&call, RecordingAction::Pause)
        .unwrap();
    assert_eq!(world.fork().state, Some(ForkState::Silenced));
    world.run(2_000);
    assert!(world.carol.take_invite().is_none());
    world
        .act_on_recorders(&call, RecordingAction::Resume)
        .unwrap();
    assert_eq!(world.fork().state, Some(ForkState::Running));
}

#[test]
fn a_recorder_that_leaves_is_answered_and_followed_by_the_next_with_a_gap() {
    let (mut world, first) = World::recorded(TWO);
    let before = world.only_siprec();
    world.carol.bye(world.now());
    world.run(50);
    assert_eq!(
        world.carol.bye_status,
        Some(200),
        "a BYE is no unknown method"
    );
    assert!(
        !world.fork().sends(0, Side::Caller),
        "nothing runs on to who left"
    );
    world.run(1_000);
    let invite = world.dave.take_invite().expect("dave takes over");
    let (_, document) = bodies(&invite);
    let known = Known::default().after(&[&document]);
    let earlier = Known::default().after(&[&first]);
    assert_eq!(known.state().mode, DataMode::Complete);
    assert_eq!(known.state().sessions[0].id, earlier.state().sessions[0].id);
    assert_eq!(known.who("alice"), earlier.who("alice"));
    let since = |known: &Known| known.state().session_recordings[0].times.from.clone();
    assert_ne!(since(&known), since(&earlier), "the recording begins anew");
    world.dave.respond(
        &invite,
        200,
        Some(&answer(9100, 2, "recvonly")),
        world.now(),
    );
    world.run(50);
    let session = world.only_siprec();
    assert_eq!(
        (session.id.as_str(), session.state),
        (before.id.as_str(), State::Active)
    );
    assert_eq!(session.gaps.len(), 1);
    let gap = &session.gaps[0];
    assert!(
        gap.server.contains("5071") && gap.to.unwrap().0 > gap.from.0,
        "{gap:?}"
    );
    assert_eq!(
        world.fork().legs[&(0, Side::Caller)].rtp.unwrap().port(),
        9100
    );
    assert!(world.events().contains(&"siprec.failed_over"));
    assert_eq!((world.alice.byes, world.bob.byes), (0, 0));
}

#[test]
fn what_a_recorder_missed_stands_in_the_receipt_of_the_recording_here() {
    let text = TWO.replace("srs =", "record = true\nsrs =");
    let (mut world, _) = World::recorded(&text);
    world.carol.bye(world.now());
    world.dave.deaf = true;
    world.run(5_000);
    world.alice.bye(world.now());
    world.run(1_000);
    let receipt = world.written_recording().receipt.unwrap();
    assert_eq!(receipt.gaps.len(), 1, "{receipt:?}");
    let gap = &receipt.gaps[0];
    assert_eq!((gap.recorder.as_str(), gap.to), ("default", None));
    assert!(gap.server.contains("5071") && gap.reason.contains("BYE"));

    let (mut world, _) = World::recorded(&text);
    world.carol.bye(world.now());
    world.run(100);
    let invite = world.dave.take_invite().unwrap();
    let taken = answer(9100, 2, "recvonly");
    world.dave.respond(&invite, 200, Some(&taken), world.now());
    world.run(50);
    let gap = world.only_siprec().gaps.remove(0);
    world.alice.bye(world.now());
    world.run(1_000);
    let receipt = world.written_recording().receipt.unwrap();
    assert_eq!(receipt.gaps, [gap]);
    assert!(receipt.gaps[0].to.is_some());
}

#[test]
fn a_server_whose_media_port_is_closed_for_a_second_is_lost() {
    use trunkline_control::unreachable::Undelivered;
    let (mut world, _) = World::recorded(TWO);
    let local_port = world.fork().media[0].ports[Side::Caller as usize];
    let remote = world.fork().legs[&(0, Side::Caller)].rtp.unwrap();
    let tell = |world: &mut World, local_port| {
        let now = world.moment();
        let undelivered = Undelivered { local_port, remote };
        world.b2bua.on_undelivered(undelivered, &now);
        world.run(300);
    };
    // One packet, now and then, or from another port than ours, means nothing.
    for _ in 0..5 {
        tell(&mut world, local_port);
        world.run(6_000);
    }
    for _ in 0..10 {
        tell(&mut world, local_port + 40);
    }
    assert!(world.dave.take_invite().is_none());
    let since = world.moment().utc;
    for _ in 0..5 {
        tell(&mut world, local_port);
    }
    let invite = world.dave.take_invite().expect("dave takes over");
    let taken = answer(9100, 2, "recvonly");
    world.dave.respond(&invite, 200, Some(&taken), world.now());
    world.run(50);
    let gap = world.only_siprec().gaps.remove(0);
    assert!(gap.reason.contains("ICMP"), "{gap:?}");
    assert_eq!(gap.from, since, "it was gone before that was noticed");
}

#[test]
fn a_server_that_failed_is_not_dropped_for_good() {
    let mut world = World::new(ONE);
    world.establish();
    let invite = world.carol.take_invite().unwrap();
    world
        .carol
        .respond_with(&invite, 503, None, &[("Retry-After", "7")], world.now());
    world.run(100);
    assert_eq!(world.only_siprec().state, State::Lost);
    assert!(world.events().contains(&"siprec.failed"));
    world.run(6_000);
    assert!(
        world.carol.take_invite().is_none(),
        "it rests as long as it asked"
    );
    let invite = world.until(2_000, |world| world.carol.take_invite());
    let invite = invite.expect("it is tried again");
    world.recorder_accepts(&invite);
    assert_eq!(world.only_siprec().state, State::Active);
    assert!(world.events().contains(&"siprec.started"));
}

#[test]
fn a_decline_named_by_skip_failover_asks_no_other_server() {
    let text = "[[recorder]]\nname = \"main\"\nservers = [\"sip:127.0.0.1:5071\", \"sip:127.0.0.1:5072\"]\n\
                skip_failover = \"^6\"\n[[route]]\nnext = \"sip:127.0.0.1:5070\"\nrecorders = [\"main\"]\n";
    let mut world = World::new(text);
    world.establish();
    let invite = world.carol.take_invite().unwrap();
    world.carol.respond(&invite, 603, None, world.now());
    world.run(60_000);
    assert!(world.dave.take_invite().is_none() && world.carol.take_invite().is_none());
    assert!(world.siprec().is_empty());
    assert_eq!(
        world.only_call().state,
        trunkline_sinks::object::CallState::Active
    );
}

#[test]
fn a_late_acceptance_is_acknowledged_and_ended() {
    let mut world = World::new(TWO);
    world.carol.ignores_cancel = true;
    world.establish();
    let late = world.carol.take_invite().unwrap();
    world.carol.respond(&late, 100, None, world.now());
    world.run(2_100);
    let invite = world
        .dave
        .take_invite()
        .expect("a 100 does not extend the wait");
    world.dave.respond(
        &invite,
        200,
        Some(&answer(9100, 2, "recvonly")),
        world.now(),
    );
    world
        .carol
        .respond(&late, 200, Some(&answer(9000, 2, "recvonly")), world.now());
    world.run(500);
    assert_eq!((world.carol.acks, world.carol.byes), (1, 1));
    assert_eq!(world.only_siprec().server, "sip:rec@127.0.0.1:5072");
}

#[test]
fn a_snapshot_request_is_answered_by_a_full_document() {
    let (mut world, _) = World::recorded(ONE);
    let body = snapshot::write("lost it");
    let update = world.carol.request_with(
        Method::Update,
        &[],
        (snapshot::CONTENT_TYPE, &body),
        world.now(),
    );
    world.run(50);
    assert_eq!(world.carol.statuses(update), [200]);
    let told = world
        .carol
        .take_invite()
        .expect("a snapshot follows at once");
    let known = Known::default().after(&[&bodies(&told).1]);
    assert_eq!(known.state().mode, DataMode::Complete);
    assert_eq!(known.state().participants.len(), 2);
    world
        .carol
        .respond(&told, 200, Some(&answer(9000, 2, "recvonly")), world.now());
    world.run(5_000);
    assert!(world.carol.take_invite().is_none(), "once");
}

#[test]
fn a_recorder_may_rest_move_and_refuse_lines_but_add_none() {
    let (mut world, _) = World::recorded(ONE);
    let rest = world
        .carol
        .reinvite(Some(&answer(9000, 2, "inactive")), world.now());
    world.run(50);
    assert_eq!(world.carol.statuses(rest), [200]);
    let said = world.carol.last_body(rest);
    assert_eq!(said.matches("a=inactive").count(), 2, "{said}");
    assert!(
        said.contains("a=label:1") && said.contains("a=label:2"),
        "{said}"
    );
    assert!(
        world
            .carol
            .last_header(rest, "Contact")
            .unwrap()
            .contains("+sip.src")
    );
    world.carol.ack(rest, world.now());
    world.run(50);
    assert!(!world.fork().sends(0, Side::Caller));
    assert_eq!(world.only_siprec().state, State::Inactive);

    let moved = world
        .carol
        .reinvite(Some(&answer(9500, 2, "recvonly")), world.now());
    world.run(50);
    assert_eq!(world.carol.statuses(moved), [200]);
    world.carol.ack(moved, world.now());
    world.run(50);
    assert!(world.fork().sends(0, Side::Callee));
    assert_eq!(
        world.fork().legs[&(0, Side::Callee)].rtp.unwrap().port(),
        9502
    );

    let refused = answer(9500, 2, "recvonly").replace("m=audio 9502", "m=audio 0");
    let one = world.carol.reinvite(Some(&refused), world.now());
    world.run(50);
    assert_eq!(world.carol.statuses(one), [200]);
    assert!(world.carol.last_body(one).contains("m=audio 0 "));
    world.carol.ack(one, world.now());
    world.run(50);
    assert!(world.fork().sends(0, Side::Caller) && !world.fork().sends(0, Side::Callee));

    let more = world
        .carol
        .reinvite(Some(&answer(9500, 3, "recvonly")), world.now());
    world.run(50);
    assert_eq!(world.carol.statuses(more), [488]);
    assert!(
        world.fork().sends(0, Side::Caller),
        "what was agreed stands"
    );
}

#[test]
fn an_offerless_invite_of_the_recorder_gets_our_offer_with_metadata() {
    let (mut world, _) = World::recorded(ONE);
    let asked = world.carol.reinvite(None, world.now());
    world.run(50);
    assert_eq!(world.carol.statuses(asked), [200]);
    let kind = world.carol.last_header(asked, "Content-Type").unwrap();
    let body = world.carol.last_body(asked);
    let found = multipart::read(&kind, body.as_bytes()).unwrap();
    assert!(
        String::from_utf8(found.sdp.unwrap())
            .unwrap()
            .contains("a=sendonly")
    );
    Known::default().take(&String::from_utf8(found.metadata.unwrap()).unwrap());
    world
        .carol
        .ack_with(asked, Some(&answer(9700, 2, "recvonly")), world.now());
    world.run(50);
    assert_eq!(
        world.fork().legs[&(0, Side::Caller)].rtp.unwrap().port(),
        9700
    );
}

#[test]
fn a_refused_change_leaves_the_state_right_and_is_told_with_the_next_one() {
    let (mut world, first) = World::recorded(ONE);
    let hold = |world: &mut World, direction: &str, answer: &str| {
        let offer = sdp("127.0.0.1", 6000).replace("sendrecv", direction);
        let sent = world.alice.reinvite(Some(&offer), world.now());
        world.run(50);
        let invite = world.bob.take_invite().unwrap();
        let said = sdp("127.0.0.1", 7000).replace("sendrecv", answer);
        world.bob.respond(&invite, 200, Some(&said), world.now());
        world.run(50);
        world.alice.ack(sent, world.now());
        world.run(50);
    };
    hold(&mut world, "sendonly", "recvonly");
    let told = world.carol.take_invite().unwrap();
    world.carol.respond(&told, 500, None, world.now());
    world.run(5_000);
    assert!(
        world.carol.take_invite().is_none(),
        "the same is not asked again"
    );
    assert!(
        world.fork().sends(0, Side::Caller),
        "media is as agreed before"
    );
    assert_eq!(world.only_siprec().revision, 1);
    hold(&mut world, "inactive", "inactive");
    let told = world.carol.take_invite().expect("the next change is told");
    let known = Known::default().after(&[&first, &bodies(&told).1]);
    assert_eq!((known.sends("alice"), known.receives("bob")), (0, 0));
}

#[test]
fn glare_is_tried_again() {
    let (mut world, _) = World::recorded(ONE);
    let call = world.only_call().id;
    world
        .act_on_recorders(&call, RecordingAction::Pause)
        .unwrap();
    world.run(50);
    let told = world.carol.take_invite().unwrap();
    world.carol.respond(&told, 491, None, world.now());
    let again = world.until(5_000, |world| world.carol.take_invite());
    assert!(
        bodies(&again.expect("it is tried again"))
            .0
            .contains("a=inactive")
    );
}

#[test]
fn hostile_names_stay_text() {
    let mut world = World::new(ONE);
    let from = [(
        "From",
        "\"</name>&'>]]><evil/>\" <sip:a&b'c@127.0.0.1>;tag=x1",
    )];
    let alice = world.invite_with(
        "sip:bob@127.0.0.1:5060",
        Some(&sdp("127.0.0.1", 6000)),
        &from,
    );
    world.run(50);
    let invite = world.bob.take_invite().unwrap();
    world
        .bob
        .respond(&invite, 200, Some(&sdp("127.0.0.1", 7000)), world.now());
    world.run(50);
    world.alice.ack(alice, world.now());
    world.run(50);
    let (_, document) = bodies(&world.carol.take_invite().unwrap());
    let mut known = Known::default();
    let told = known.take(&document);
    let caller = &told.participants[0].names[0];
    assert_eq!(caller.aor, "sip:a&b'c@127.0.0.1");
    assert_eq!(caller.name.as_deref(), Some("</name>&'>]]><evil/>"));
    assert!(told.extensions.is_empty() && told.participants[0].extensions.is_empty());
}

#[test]
fn a_call_goes_on_whatever_its_recorders_do() {
    for seed in 0..20 {
        let fault = super::common::Fault {
            lose: 0.25,
            repeat: 0.15,
            delay_ms: 120,
        };
        let mut world = World::with_faults(TWO, fault, seed);
        world.alice.auto_ack = true;
        let alice = world.invite("sip:bob@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
        let invite = world
            .until(20_000, |world| world.bob.take_invite())
            .unwrap();
        world
            .bob
            .respond(&invite, 200, Some(&sdp("127.0.0.1", 7000)), world.now());
        world
            .until(32_000, |world| {
                world.alice.statuses(alice).contains(&200).then_some(())
            })
            .unwrap();
        if let Some(invite) = world.until(20_000, |world| world.carol.take_invite()) {
            world.carol.respond(
                &invite,
                200,
                Some(&answer(9000, 2, "recvonly")),
                world.now(),
            );
        }
        world.run(3_000);
        if let Some(invite) = world.dave.take_invite() {
            world.dave.respond(
                &invite,
                200,
                Some(&answer(9100, 2, "recvonly")),
                world.now(),
            );
        }
        world.run(10_000);
        assert_eq!((world.alice.byes, world.bob.byes), (0, 0), "seed {seed}");
        world.alice.bye(world.now());
        world
            .until(90_000, |world| world.b2bua.is_idle().then_some(()))
            .unwrap_or_else(|| panic!("seed {seed}: something never ends"));
        assert!(world.dataplane.forks.is_empty(), "seed {seed}");
    }
}
