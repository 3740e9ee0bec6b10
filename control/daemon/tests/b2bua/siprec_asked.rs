//! Recording sessions that the recorder (carol) opens itself.

use trunkline_control::siprec::session::State;
use trunkline_link::message::Side;
use trunkline_siprec::metadata::{DataMode, Metadata};
use trunkline_siprec::multipart;

use super::common::{World, sdp};
use super::siprec::{Known, answer, bodies};

const ASKS: [(&str, &str); 2] = [
    ("Require", "siprec"),
    ("Contact", "<sip:rec@127.0.0.1:5071>;+sip.srs"),
];

/// Carol may ask for calls; the route records to nobody by itself.
fn asking(source: &str) -> String {
    format!(
        "[[recorder]]\nname = \"main\"\nservers = [\"sip:rec@127.0.0.1:5071\", \"sip:rec@127.0.0.1:5072\"]\n\
         asks_from = [\"{source}\"]\n[[route]]\nnext = \"sip:127.0.0.1:5070\"\nrecord = true\n"
    )
}

impl World {
    /// Carol's INVITE for what is named by a user part.
    fn carol_asks(&mut self, user: &str, body: Option<&str>) -> usize {
        let uri = format!("sip:{user}@127.0.0.1:5060");
        let now = self.now();
        let us = super::common::US.parse().unwrap();
        let sent = self.carol.invite(&uri, us, body, &ASKS, now);
        self.run(50);
        sent
    }

    /// The offer and the document in our 200 to carol's INVITE.
    fn given(&self, sent: usize) -> (String, Metadata) {
        let kind = self.carol.last_header(sent, "Content-Type").unwrap();
        let body = self.carol.last_body(sent);
        let bodies = multipart::read(&kind, body.as_bytes()).unwrap();
        let text = |part: Option<Vec<u8>>| String::from_utf8(part.unwrap()).unwrap();
        let (offer, document) = (text(bodies.sdp), text(bodies.metadata));
        let known = Known::default().after(&[&document]);
        (offer, known.state().clone())
    }

    /// An answered call that carol has asked for and records.
    fn asked(text: &str) -> (Self, String, usize) {
        let mut world = Self::new(text);
        world.establish();
        let call = world.only_call().id;
        let sent = world.carol_asks(&call, None);
        let now = world.now();
        let taken = answer(9000, 2, "recvonly");
        world.carol.ack_with(sent, Some(&taken), now);
        world.run(50);
        (world, call, sent)
    }
}

#[test]
fn a_recorder_that_may_ask_gets_our_offer_and_answers_in_its_ack() {
    let mut world = World::new(&asking("127.0.0.1"));
    world.establish();
    let call = world.only_call().id;
    let sent = world.carol_asks(&call, None);
    assert_eq!(world.carol.statuses(sent), [100, 200]);
    let contact = world.carol.last_header(sent, "Contact").unwrap();
    assert!(contact.ends_with(";+sip.src"), "{contact}");
    let (offer, document) = world.given(sent);
    assert_eq!(offer.matches("a=sendonly").count(), 2, "{offer}");
    assert_eq!(document.mode, DataMode::Complete);
    assert_eq!(document.participants.len(), 2);
    // Nothing leaves before the recorder has said where to.
    let mut forks = world.dataplane.forks.values();
    assert!(forks.all(|fork| fork.state.is_none()));
    let now = world.now();
    world
        .carol
        .ack_with(sent, Some(&answer(9000, 2, "recvonly")), now);
    world.run(50);
    let session = world.only_siprec();
    assert_eq!((session.state, session.revision), (State::Active, 1));
    assert_eq!(
        (session.instance.as_str(), session.server.as_str()),
        ("main", "sip:rec@127.0.0.1:5071")
    );
    assert!(world.fork().sends(0, Side::Caller) && world.fork().sends(0, Side::Callee));
    assert_eq!(
        world.carol_asks(&call, None),
        sent + 1,
        "a second one is refused"
    );
    assert_eq!(world.carol.statuses(sent + 1), [486]);

    // What changes is told in the dialog that it opened.
    let held = sdp("127.0.0.1", 6000).replace("sendrecv", "sendonly");
    world.alice.reinvite(Some(&held), world.now());
    world.run(50);
    let invite = world.bob.take_invite().unwrap();
    let receives = sdp("127.0.0.1", 7000).replace("sendrecv", "recvonly");
    world
        .bob
        .respond(&invite, 200, Some(&receives), world.now());
    world.run(50);
    let told = world.carol.take_invite().expect("carol hears of the hold");
    assert!(bodies(&told).1.contains("partial"));
    let contact = told.request.headers.get("Contact").unwrap();
    assert!(contact.ends_with(";+sip.src"), "{contact}");
    world.recorder_accepts(&told);

    world.alice.bye(world.now());
    world.run(500);
    assert_eq!(world.carol.byes, 1);
    assert!(world.b2bua.is_idle() && world.dataplane.forks.is_empty());
}

#[test]
fn a_call_is_named_by_its_session_id_or_call_id_too() {
    for by_session in [true, false] {
        let mut world = World::new(&asking("127.0.0.0/8"));
        world.establish();
        let call = world.only_call();
        let name = match by_session {
            true => call.session_id.unwrap(),
            false => call.sip_call_id.replace('@', "%40"),
        };
        let sent = world.carol_asks(&name, None);
        assert_eq!(world.carol.statuses(sent), [100, 200], "{name}");
    }
}

#[test]
fn who_may_not_ask_or_asks_wrongly_is_refused_and_learns_nothing() {
    let mut world = World::new(&asking("192.0.2.0/24"));
    world.establish();
    let call = world.only_call().id;
    for user in [call.as_str(), "nobody"] {
        let sent = world.carol_asks(user, None);
        assert_eq!(world.carol.statuses(sent), [403], "{user}");
    }
    let mut world = World::new(&asking("127.0.0.1"));
    let sent = world.carol_asks("nobody", None);
    assert_eq!(world.carol.statuses(sent), [404]);
    let sent = world.carol_asks("nobody", Some(&answer(9000, 2, "recvonly")));
    assert_eq!(world.carol.statuses(sent), [488]);
    world.invite("sip:bob@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
    world.run(50);
    let ringing = world.only_call().id;
    let sent = world.carol_asks(&ringing, None);
    assert_eq!(world.carol.statuses(sent), [480]);
    assert!(world.siprec().is_empty());
}

#[test]
fn an_ack_without_an_answer_ends_the_session_and_not_the_call() {
    let mut world = World::new(&asking("127.0.0.1"));
    world.establish();
    let call = world.only_call().id;
    let sent = world.carol_asks(&call, None);
    world.carol.ack(sent, world.now());
    world.run(500);
    assert_eq!((world.carol.byes, world.alice.byes), (1, 0));
    assert!(world.siprec().is_empty() && world.dataplane.forks.is_empty());
    // Nobody else is asked to record what one recorder wanted and did not take.
    assert!(world.dave.take_invite().is_none());
    // Without any ACK it ends too.
    let sent = world.carol_asks(&call, None);
    assert_eq!(world.carol.statuses(sent).last(), Some(&200));
    world.run(40_000);
    assert!(world.siprec().is_empty());
    assert_eq!(world.alice.byes, 0);
}

#[test]
fn a_recorder_that_asked_may_leave_and_nobody_takes_its_place() {
    let (mut world, call, _) = World::asked(&asking("127.0.0.1"));
    world.carol.bye(world.now());
    world.run(500);
    assert_eq!(world.carol.bye_status, Some(200));
    assert!(world.siprec().is_empty() && world.dave.take_invite().is_none());
    assert_eq!(world.alice.byes, 0);
    world.carol.dialog = None;
    let again = world.carol_asks(&call, None);
    assert_eq!(world.carol.statuses(again), [100, 200]);
}

#[test]
fn a_restarted_control_goes_on_with_a_session_that_the_recorder_opened() {
    let (mut world, ..) = World::asked(&asking("127.0.0.1"));
    let before = world.only_siprec();
    world.restart_control();
    world.run(100);
    let session = world.only_siprec();
    assert_eq!((&session.id, session.state), (&before.id, State::Active));
    world.carol.bye(world.now());
    world.run(200);
    assert!(world.siprec().is_empty() && world.dave.take_invite().is_none());
}
