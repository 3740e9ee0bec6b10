//! Calls recorded to SIPREC servers: carol and dave are the recorders.

use trunkline_control::siprec::session::{Session, State};
use trunkline_link::message::Side;
use trunkline_sip::message::Method;
use trunkline_siprec::journal::Journal;
use trunkline_siprec::metadata::{DataMode, Metadata, Strictness};
use trunkline_siprec::{Id, multipart};

use super::common::{Fork, Received, World, sdp};

const ONE: &str = "[[route]]\nnext = \"sip:127.0.0.1:5070\"\nsrs = [\"sip:rec@127.0.0.1:5071\"]\n";
const TWO: &str = "[[route]]\nnext = \"sip:127.0.0.1:5070\"\n\
                   srs = [\"sip:rec@127.0.0.1:5071\", \"sip:rec@127.0.0.1:5072\"]\n";

/// A recorder's answer to `lines` audio m-lines from `port` on.
fn answer(port: u16, lines: u16, direction: &str) -> String {
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
fn bodies(invite: &Received) -> (String, String) {
    let kind = invite.request.headers.get("Content-Type").unwrap();
    let bodies = multipart::read(&kind, &invite.request.body).unwrap();
    let text = |bytes: Option<Vec<u8>>| String::from_utf8(bytes.unwrap_or_default()).unwrap();
    (text(bodies.sdp), text(bodies.metadata))
}

/// What a recorder knows after the documents that it was sent.
#[derive(Default)]
struct Known {
    journal: Journal,
    cseq: u32,
}

impl Known {
    fn take(&mut self, document: &str) -> &Metadata {
        self.cseq += 1;
        let at = "2026-11-28T00:00:00.000Z";
        self.journal
            .apply(self.cseq, at, document.as_bytes(), Strictness::Strict)
            .unwrap_or_else(|why| panic!("{why:?}: {document}"));
        self.journal.state()
    }

    fn after(mut self, documents: &[&str]) -> Self {
        for document in documents {
            self.take(document);
        }
        self
    }

    fn state(&self) -> &Metadata {
        self.journal.state()
    }

    /// The participant whose address has this user.
    fn who(&self, user: &str) -> Id {
        let named = |aor: &str| aor.contains(&format!(":{user}@"));
        let found = self
            .state()
            .participants
            .iter()
            .find(|one| named(&one.names[0].aor));
        found.unwrap_or_else(|| panic!("no {user}")).id.clone()
    }

    fn sends(&self, user: &str) -> usize {
        self.state()
            .streams_of(&self.who(user))
            .map_or(0, |one| one.send.len())
    }

    fn receives(&self, user: &str) -> usize {
        self.state()
            .streams_of(&self.who(user))
            .map_or(0, |one| one.recv.len())
    }
}

impl World {
    fn siprec(&self) -> Vec<Session> {
        self.b2bua.siprec_sessions()
    }

    fn only_siprec(&self) -> Session {
        let sessions = self.siprec();
        assert_eq!(sessions.len(), 1, "{sessions:?}");
        sessions.into_iter().next().unwrap()
    }

    fn fork(&self) -> &Fork {
        assert_eq!(self.dataplane.forks.len(), 1);
        self.dataplane.forks.values().next().unwrap()
    }

    /// An answered call that carol records.
    fn recorded(text: &str) -> (Self, String) {
        let mut world = Self::new(text);
        world.establish();
        let invite = world.carol.take_invite().expect("carol is asked to record");
        let now = world.now();
        world
            .carol
            .respond(&invite, 200, Some(&answer(9000, 2, "recvonly")), now);
        world.run(50);
        assert_eq!(world.only_siprec().state, State::Active);
        (world, bodies(&invite).1)
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

    let now = world.now();
    world
        .carol
        .respond(&invite, 200, Some(&answer(9000, 2, "recvonly")), now);
    world.run(50);
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
    world
        .carol
        .respond(&told, 200, Some(&answer(9000, 2, "recvonly")), world.now());
    world.run(50);
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
