//! Session-ID (RFC 7989) and User-to-User (RFC 7433) between the two sides of a call.

use crate::common::{World, sdp};
use trunkline_sip::message::{Headers, Method, NIL_SESSION, SessionId};

const ROUTES: &str = "[[route]]\nuser = \"carol\"\nnext = \"sip:127.0.0.1:5071\"\n\
                      [[route]]\nuser = \"bob\"\nnext = \"sip:127.0.0.1:5070\"\n";
const ALICE: &str = "ab30317f1a784dc48ff824d0d3715d86";
const BOB: &str = "47755a9de7794ba387653f2099600ef2";

fn ends(headers: &Headers) -> (String, String) {
    let id = SessionId::of(headers).expect("a Session-ID");
    assert_eq!(headers.count("Session-ID"), 1);
    (id.local, id.remote)
}

fn pair(local: &str, remote: &str) -> (String, String) {
    (local.to_owned(), remote.to_owned())
}

#[test]
fn both_sides_hear_the_uuid_of_the_other_in_every_message() {
    let mut world = World::new(ROUTES);
    let ours = format!("{ALICE};remote={NIL_SESSION}");
    let headers = [("Session-ID", ours.as_str())];
    let alice = world.invite_with("sip:bob@us", Some(&sdp("127.0.0.1", 6000)), &headers);
    world.run(50);
    let invite = world.bob.take_invite().unwrap();
    assert_eq!(ends(&invite.request.headers), pair(ALICE, NIL_SESSION));
    let answer = sdp("127.0.0.1", 7000);
    world.bob.uuid = Some(BOB);
    for (status, body) in [(180, None), (200, Some(answer.as_str()))] {
        let now = world.now();
        world.bob.respond(&invite, status, body, now);
        world.run(50);
    }
    let heard = world.alice.responses(alice);
    assert_eq!(ends(&heard[0].headers), pair(NIL_SESSION, ALICE), "100");
    assert_eq!(ends(&heard[1].headers), pair(BOB, ALICE), "180");
    assert_eq!(ends(&heard[2].headers), pair(BOB, ALICE), "200");
    world.alice.ack(alice, world.now());
    world.run(50);
    let call = world.only_call();
    assert_eq!(call.session_id.as_deref(), Some(ALICE));
    world.alice.request(Method::Info, &[], world.now());
    world.run(50);
    let info = world.bob.requests.last().unwrap();
    assert_eq!(ends(&info.headers), pair(ALICE, BOB));
    let options = world.alice.request(Method::Options, &[], world.now());
    world.run(50);
    assert_eq!(
        ends(&world.alice.responses(options)[0].headers),
        pair(BOB, ALICE)
    );
    // It holds over a restart of control.
    world.restart_control();
    world.bob.bye(world.now());
    world.run(500);
    let bye = world.alice.requests.last().unwrap();
    assert_eq!(bye.method, Method::Bye);
    assert_eq!(ends(&bye.headers), pair(BOB, ALICE));
}

#[test]
fn an_end_without_a_uuid_gets_one_that_stays() {
    let mut world = World::new(ROUTES);
    world.establish();
    let call = world.only_call();
    let made = call.session_id.expect("one was made for alice");
    assert!(made.len() == 32 && made != NIL_SESSION);
    world.bob.request(Method::Info, &[], world.now());
    world.run(50);
    let info = world.alice.requests.last().unwrap().headers.clone();
    let (of_bob, of_alice) = ends(&info);
    assert_eq!(of_alice, made);
    assert!(of_bob.len() == 32 && of_bob != NIL_SESSION && of_bob != made);
    world.alice.bye(world.now());
    world.run(500);
    let bye = world.bob.requests.last().unwrap();
    assert_eq!(ends(&bye.headers), (made, of_bob));
}

#[test]
fn a_refusal_names_who_asked() {
    let mut world = World::new("[[route]]\nuser = \"1\"\nnext = \"sip:127.0.0.1:5070\"\n");
    let headers = [("Session-ID", ALICE)];
    let alice = world.invite_with("sip:bob@us", Some(&sdp("127.0.0.1", 6000)), &headers);
    world.run(50);
    let refusal = world.alice.responses(alice).last().unwrap().clone();
    assert_eq!(refusal.status, 404);
    assert_eq!(ends(&refusal.headers), pair(NIL_SESSION, ALICE));
}

#[test]
fn a_route_may_keep_it_to_itself() {
    let mut world = World::new(
        "[[route]]\nnext = \"sip:127.0.0.1:5070\"\nheaders = { drop = [\"Session-ID\"] }\n",
    );
    let headers = [("Session-ID", ALICE)];
    let alice = world.invite_with("sip:bob@us", Some(&sdp("127.0.0.1", 6000)), &headers);
    world.run(50);
    let invite = world.bob.take_invite().unwrap();
    assert!(!invite.request.headers.contains("Session-ID"));
    // No side hears of it later either.
    let answer = sdp("127.0.0.1", 7000);
    world.bob.uuid = Some(BOB);
    world.bob.respond(&invite, 200, Some(&answer), world.now());
    world.run(50);
    world.alice.ack(alice, world.now());
    world.run(50);
    world.bob.request(Method::Info, &[], world.now());
    world.alice.request(Method::Info, &[], world.now());
    world.run(50);
    world.bob.bye(world.now());
    world.run(500);
    let to_alice = world.alice.responses(alice).iter().map(|one| &one.headers);
    let requests = world.alice.requests.iter().chain(&world.bob.requests);
    let heard: Vec<&Headers> = to_alice.chain(requests.map(|one| &one.headers)).collect();
    assert!(heard.len() >= 5);
    assert!(heard.iter().all(|one| !one.contains("Session-ID")));
}

#[test]
fn after_a_transfer_the_party_that_stays_hears_the_newcomers() {
    let mut world = World::new(ROUTES);
    world.establish();
    let alice = world.only_call().session_id.unwrap();
    let to = (
        "Refer-To",
        "<sip:carol@127.0.0.1:5060?User-to-User=3a1f%3Bencoding%3Dhex>",
    );
    world.bob.request(Method::Refer, &[to], world.now());
    world.run(50);
    let invite = world.carol.take_invite().unwrap();
    assert_eq!(ends(&invite.request.headers), pair(&alice, NIL_SESSION));
    let user = invite.request.headers.get("User-to-User");
    assert_eq!(user.as_deref(), Some("3a1f;encoding=hex"));
    let carol = "11112222333344445555666677778888";
    let answer = sdp("127.0.0.1", 7100);
    world.carol.uuid = Some(carol);
    world
        .carol
        .respond(&invite, 200, Some(&answer), world.now());
    world.run(1_000);
    world.carol.request(Method::Info, &[], world.now());
    world.run(50);
    let info = world.alice.requests.last().unwrap();
    assert_eq!(ends(&info.headers), pair(carol, &alice));
}

#[test]
fn user_to_user_crosses_with_the_invite_the_answer_and_the_bye() {
    let mut world = World::new(ROUTES);
    let data = "56a390f3d2b7310023a2;encoding=hex;purpose=isdn-uui;content=isdn-uui";
    let headers = [("User-to-User", data)];
    let alice = world.invite_with("sip:bob@us", Some(&sdp("127.0.0.1", 6000)), &headers);
    world.run(50);
    let invite = world.bob.take_invite().unwrap();
    let of = |headers: &Headers| headers.get("User-to-User").map(|value| value.into_owned());
    assert_eq!(of(&invite.request.headers).as_deref(), Some(data));
    let (answer, back) = (
        sdp("127.0.0.1", 7000),
        [("User-to-User", "0011;encoding=hex")],
    );
    let now = world.now();
    world
        .bob
        .respond_with(&invite, 200, Some(&answer), &back, now);
    world.run(50);
    world.alice.ack(alice, world.now());
    let answered = world.alice.responses(alice).last().unwrap().clone();
    assert_eq!(of(&answered.headers).as_deref(), Some("0011;encoding=hex"));
    world.run(50);
    world
        .bob
        .bye_with(&[("User-to-User", "22;encoding=hex")], world.now());
    world.run(100);
    let bye = world.alice.requests.last().unwrap();
    assert_eq!(bye.method, Method::Bye);
    assert_eq!(of(&bye.headers).as_deref(), Some("22;encoding=hex"));
}
