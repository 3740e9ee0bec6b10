//! What recorders missed of calls is sent to them afterwards.

use trunkline_control::replay::News;
use trunkline_control::siprec::session::State;
use trunkline_link::message::{Command, Side, leg_flags};

use super::common::World;
use super::siprec::{Known, answer, bodies};

/// Calls recorded here and by carol, or else dave, who get later what they missed.
const LATER: &str = "[[recorder]]\nname = \"main\"\nservers = [\"sip:rec@127.0.0.1:5071\", \"sip:rec@127.0.0.1:5072\"]\n\
                     replay = \"after_call\"\n[[route]]\nnext = \"sip:127.0.0.1:5070\"\nrecord = true\n\
                     recorders = [\"main\"]\n";

impl World {
    /// What was missed is sent.
    fn replay_ends(&mut self, failed: Option<&str>) {
        let session = self.replays.last().unwrap().session;
        let failed = failed.map(str::to_owned);
        let now = self.moment();
        self.b2bua.on_replay(News::Over { session, failed }, &now);
        self.run(500);
    }

    /// Whether what a side said leaves for the recorder that a replay goes to.
    fn replays_to(&self, side: Side) -> Option<u16> {
        let mut aims = self.replayed.iter().filter_map(|command| match command {
            Command::LegUpdate(update) if update.side == side => Some(update),
            _ => None,
        });
        let aim = aims.next_back()?;
        let started = |command: &Command| matches!(command, Command::ForkStart { .. });
        let starts = self.replayed.iter().any(started);
        let may = aim.flags & leg_flags::MAY_SEND != 0;
        aim.rtp.filter(|_| may && starts).map(|to| to.port())
    }
}

#[test]
fn a_call_that_no_recorder_took_is_sent_to_one_when_it_is_back() {
    let mut world = World::new(LATER);
    (world.carol.deaf, world.dave.deaf) = (true, true);
    world.establish();
    world.run(20_000);
    let call = world.only_call();
    let recording = call.recordings[0].clone();
    world.alice.bye(world.now());
    world.run(1_000);
    world.carol.deaf = false;
    let invite = world.until(40_000, |world| world.carol.take_invite());
    let invite = invite.expect("carol gets the call later");
    let missed = world.replays[0].clone();
    assert_eq!((world.replays.len(), &missed.recording), (1, &recording));
    assert!(missed.to.ms_since(missed.from) >= 20_000, "{missed:?}");
    let (offer, document) = bodies(&invite);
    assert!(offer.contains("m=audio 30000 ") && offer.contains("m=audio 30002 "));
    assert_eq!(offer.matches("a=sendonly").count(), 2, "{offer}");
    let mut known = Known::default();
    let told = known.take(&document);
    let times = told.session_recordings[0].times.clone();
    assert_eq!(times.from, Some(missed.from.to_string()));
    assert_eq!(times.until, Some(missed.to.to_string()));
    assert_eq!((known.sends("alice"), known.receives("alice")), (1, 1));
    world.recorder_accepts(&invite);
    assert_eq!(world.replays_to(Side::Caller), Some(9000));
    assert_eq!(world.replays_to(Side::Callee), Some(9002));
    let session = world.only_siprec();
    assert_eq!(
        (session.state, session.call),
        (State::Active, Some(call.id))
    );
    assert_eq!(session.replay.unwrap().from, missed.from);

    world.replay_ends(None);
    assert_eq!(world.carol.byes, 1);
    let stopped = |one: &&&str| **one == "siprec.stopped";
    assert_eq!(world.events().iter().filter(stopped).count(), 1);
    assert!(world.b2bua.is_idle());
    let closed = |one: &Command| matches!(one, Command::SessionClose { .. });
    assert!(world.replayed.iter().any(closed), "its sockets are closed");
}

#[test]
fn a_gap_in_mid_call_is_sent_after_the_call_and_never_into_the_live_session() {
    let (mut world, _) = World::recorded(LATER);
    world.dave.deaf = true;
    world.carol.bye(world.now());
    world.run(6_000);
    world.dave.deaf = false;
    let invite = world.until(60_000, |world| world.dave.take_invite());
    let invite = invite.expect("dave takes the call up");
    let taken = answer(9100, 2, "recvonly");
    world.dave.respond(&invite, 200, Some(&taken), world.now());
    world.run(1_000);
    let gap = world.only_siprec().gaps.remove(0);
    assert!(world.replays.is_empty(), "the call goes on");
    world.alice.bye(world.now());
    world.run(500);
    assert_eq!(world.dave.byes, 1);
    let missed = world.replays[0].clone();
    assert_eq!((missed.from, Some(missed.to)), (gap.from, gap.to));
    assert_eq!(world.replays.len(), 1);
    // The recorder's servers are asked in order, as for a call.
    let invite = world.until(60_000, |world| world.carol.take_invite());
    world.recorder_accepts(&invite.expect("carol gets it"));
    world.replay_ends(Some("the disk is gone"));
    assert!(world.events().contains(&"siprec.failed"));
    assert!(world.b2bua.is_idle());
}

#[test]
fn a_replay_that_nobody_takes_is_given_up_and_one_without_a_recording_raises_an_alarm() {
    let mut world = World::new(LATER);
    (world.carol.deaf, world.dave.deaf) = (true, true);
    world.establish();
    world.run(3_000);
    world.alice.bye(world.now());
    world.run(3_600_000);
    assert_eq!(world.replays.len(), 1);
    assert!(world.siprec().is_empty() && world.b2bua.is_idle());

    let mut world = World::new(&LATER.replace("record = true", "record = false"));
    (world.carol.deaf, world.dave.deaf) = (true, true);
    world.establish();
    world.run(3_000);
    world.alice.bye(world.now());
    world.run(60_000);
    assert!(world.replays.is_empty() && world.b2bua.is_idle());
    assert!(world.events().contains(&"alarm.raised"));
}

#[test]
fn a_recorder_without_replay_gets_nothing_later() {
    let mut world = World::new(&LATER.replace("after_call", "off"));
    (world.carol.deaf, world.dave.deaf) = (true, true);
    world.establish();
    world.run(3_000);
    world.alice.bye(world.now());
    world.run(60_000);
    assert!(world.replays.is_empty() && world.b2bua.is_idle());
}
