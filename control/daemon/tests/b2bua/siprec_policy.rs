//! What recorders' failures mean for calls, several recorders at once, and restarts.

use trunkline_control::siprec::session::State;
use trunkline_link::message::Side;
use trunkline_sip::message::{Method, Request};
use trunkline_siprec::metadata::DataMode;

use super::common::{World, sdp};
use super::siprec::{Known, answer, bodies};

/// A route whose recorder `main` (carol) is required, with this policy.
fn required(policy: &str, more: &str) -> String {
    format!(
        "[[recorder]]\nname = \"main\"\nservers = [\"sip:127.0.0.1:5071\"]\nrequired = true\n{more}\
         [[route]]\nnext = \"sip:127.0.0.1:5070\"\nrecorders = [\"main\"]\non_recording_failure = \"{policy}\"\n\
         recording_grace_s = 3\n"
    )
}

#[test]
fn reject_calls_nobody_before_the_recorder_has_accepted() {
    let mut world = World::new(&required("reject", ""));
    let alice = world.invite("sip:bob@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
    world.run(50);
    assert!(world.bob.take_invite().is_none());
    let invite = world.carol.take_invite().expect("carol is asked first");
    let (description, first) = bodies(&invite);
    assert_eq!(
        description.matches("a=inactive").count(),
        2,
        "{description}"
    );
    let now = world.now();
    world
        .carol
        .respond(&invite, 200, Some(&answer(9000, 2, "inactive")), now);
    world.run(50);
    let ringing = world.bob.take_invite().expect("bob is called now");
    world
        .bob
        .respond(&ringing, 200, Some(&sdp("127.0.0.1", 7000)), world.now());
    world.run(50);
    world.alice.ack(alice, world.now());
    world.run(50);
    let told = world
        .carol
        .take_invite()
        .expect("media flows: carol is told");
    let (description, second) = bodies(&told);
    assert_eq!(description.matches("a=sendonly").count(), 2);
    let known = Known::default().after(&[&first, &second]);
    assert_eq!((known.sends("alice"), known.sends("bob")), (1, 1));
    world.recorder_accepts(&told);
    assert!(world.fork().sends(0, Side::Caller));
    world.alice.bye(world.now());
    world.run(1_000);
    assert!(world.b2bua.is_idle());
}

#[test]
fn reject_refuses_a_call_that_no_recorder_takes_with_503_and_a_reason() {
    for deaf in [false, true] {
        let mut world = World::new(&required("reject", ""));
        world.carol.deaf = deaf;
        let alice = world.invite("sip:bob@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
        world.run(50);
        if let Some(invite) = world.carol.take_invite() {
            world.carol.respond(&invite, 603, None, world.now());
        }
        world.run(3_000);
        assert_eq!(world.alice.statuses(alice).last(), Some(&503));
        let reason = world.alice.last_header(alice, "Reason").unwrap();
        assert!(reason.contains("recorder main"), "{reason}");
        assert!(world.bob.take_invite().is_none());
        world.run(40_000);
        assert!(world.b2bua.is_idle() && world.dataplane.forks.is_empty());
    }
}

#[test]
fn an_emergency_call_waits_for_no_recorder() {
    let mut world = World::new(&required("reject", ""));
    world.carol.deaf = true;
    world.invite("sip:112@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
    world.run(50);
    assert!(world.bob.take_invite().is_some());
}

#[test]
fn a_caller_may_give_up_while_recorders_are_asked() {
    let mut world = World::new(&required("reject", ""));
    world.carol.deaf = true;
    let alice = world.invite("sip:bob@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
    world.run(50);
    world.alice.cancel(alice, world.now());
    world.run(500);
    assert_eq!(world.alice.statuses(alice).last(), Some(&487));
    world.run(40_000);
    assert!(world.b2bua.is_idle() && world.bob.take_invite().is_none());
}

#[test]
fn hangup_ends_a_call_whose_required_recorder_stays_lost_and_only_then() {
    for comes_back in [false, true] {
        let more = "answer_timeout_ms = 500\n";
        let text = required("hangup", more).replace("5071\"]", "5071\", \"sip:127.0.0.1:5072\"]");
        let (mut world, _) = World::recorded(&text);
        world.carol.bye(world.now());
        world.dave.deaf = !comes_back;
        world.run(100);
        if let Some(invite) = world.dave.take_invite() {
            world.dave.respond(
                &invite,
                200,
                Some(&answer(9100, 2, "recvonly")),
                world.now(),
            );
        }
        world.run(2_500);
        assert_eq!(world.alice.byes, 0, "within the grace");
        world.run(1_000);
        assert_eq!(world.alice.byes, usize::from(!comes_back));
        assert_eq!(world.bob.byes, usize::from(!comes_back));
    }
}

#[test]
fn by_default_a_call_hears_nothing_of_lost_recorders() {
    let mut world = World::new(&required("continue", ""));
    world.carol.deaf = true;
    world.establish();
    world.run(120_000);
    assert_eq!((world.alice.byes, world.bob.byes), (0, 0));
    assert_eq!(world.only_siprec().state, State::Lost);
}

#[test]
fn several_recorders_record_one_call_each_by_itself() {
    let text = "[[recorder]]\nname = \"main\"\nservers = [\"sip:127.0.0.1:5071\"]\nrequired = true\n\
                [[recorder]]\nname = \"spare\"\nservers = [\"sip:127.0.0.1:5072\"]\n\
                group = \"AAAAAAAAAAAAAAAAAAAAAQ==\"\ncaller = \"\\\"Agent\\\" <sip:agent@example.com>\"\n\
                headers = { \"X-Tenant\" = \"t1\" }\nfrom_uri = \"sip:src@example.com\"\nto_uri = \"sip:srs@example.com\"\n\
                group_extension = \"<a xmlns='urn:a'>1</a>\"\nsession_extension = \"<b xmlns='urn:b'>2</b>\"\n\
                media_address = \"192.0.2.7\"\n\
                [[route]]\nnext = \"sip:127.0.0.1:5070\"\nrecorders = [\"main\", \"spare\"]\n";
    let mut world = World::new(text);
    world.establish();
    let main = world.carol.take_invite().unwrap();
    let spare = world.dave.take_invite().unwrap();
    world
        .carol
        .respond(&main, 200, Some(&answer(9000, 2, "recvonly")), world.now());
    world
        .dave
        .respond(&spare, 200, Some(&answer(9100, 2, "recvonly")), world.now());
    world.run(50);
    assert_eq!(world.siprec().len(), 2);
    assert!(
        world
            .dataplane
            .forks
            .values()
            .all(|fork| fork.sends(0, Side::Callee))
    );
    let headers = &spare.request.headers;
    assert_eq!(headers.get("X-Tenant").as_deref(), Some("t1"));
    assert!(headers.get("From").unwrap().contains("sip:src@example.com"));
    assert!(headers.get("To").unwrap().contains("sip:srs@example.com"));
    let (description, document) = bodies(&spare);
    assert!(description.contains("c=IN IP4 192.0.2.7"), "{description}");
    let mut known = Known::default();
    let told = known.take(&document);
    assert_eq!(told.groups[0].id.as_str(), "AAAAAAAAAAAAAAAAAAAAAQ==");
    assert_eq!(told.groups[0].extensions[0].text, "1");
    assert_eq!(told.sessions[0].extensions[0].text, "2");
    assert_eq!(told.participants[0].names[0].name.as_deref(), Some("Agent"));

    world.dave.bye(world.now());
    world.run(500);
    let states: Vec<State> = world.siprec().iter().map(|one| one.state).collect();
    assert!(
        states.contains(&State::Active) && states.contains(&State::Lost),
        "{states:?}"
    );
    world.alice.bye(world.now());
    world.run(500);
    assert_eq!(world.carol.byes, 1);
    assert!(world.b2bua.is_idle());
}

#[test]
fn without_settings_a_recorder_is_told_what_the_call_and_the_interface_say() {
    let mut world = World::new(super::siprec::ONE);
    world.establish();
    let invite = world.carol.take_invite().unwrap();
    let header = |name: &str| invite.request.headers.get(name).unwrap().into_owned();
    let from = header("From");
    assert!(from.starts_with("<sip:127.0.0.1:5060>;tag="), "{from}");
    assert_eq!(header("To"), "<sip:rec@127.0.0.1:5071>");
    assert!(invite.request.headers.get("X-Tenant").is_none());
    let (description, document) = bodies(&invite);
    assert!(description.contains("c=IN IP4 127.0.0.1"), "{description}");
    let mut known = Known::default();
    let told = known.take(&document);
    assert!(told.groups.is_empty() && told.sessions[0].group.is_none());
    assert!(told.sessions[0].extensions.is_empty());
    let names: Vec<_> = told.participants.iter().map(|one| &one.names[0]).collect();
    assert!(names[0].aor.starts_with("sip:alice@"), "{names:?}");
    assert!(names[1].aor.starts_with("sip:bob@"), "{names:?}");
    assert_eq!(names[0].name.as_deref(), Some("A"));
}

#[test]
fn a_restarted_control_goes_on_with_the_recorder() {
    let (mut world, first) = World::recorded(super::siprec::TWO);
    let before = world.only_siprec();
    world.restart_control();
    world.run(100);
    let session = world.only_siprec();
    assert_eq!((&session.id, session.state), (&before.id, State::Active));
    assert_eq!(session.sip_call_id, before.sip_call_id);
    assert!(world.fork().sends(0, Side::Caller));
    assert!(world.carol.take_invite().is_none() && world.dave.take_invite().is_none());
    // What changes is told in the same dialog, and amends what the recorder knows.
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
    let known = Known::default().after(&[&first, &bodies(&told).1]);
    assert_eq!((known.sends("alice"), known.sends("bob")), (1, 0));
    world.recorder_accepts(&told);
    world.alice.bye(world.now());
    world.run(500);
    assert_eq!(world.carol.byes, 1);
    assert!(world.b2bua.is_idle() && world.dataplane.forks.is_empty());
}

#[test]
fn a_new_dataplane_forks_to_the_recorder_again() {
    let (mut world, _) = World::recorded(super::siprec::ONE);
    let ports = world.fork().media.clone();
    world.restart_dataplane();
    world.run(200);
    let fork = world.fork();
    assert_eq!(fork.media, ports, "the recorder hears from the same ports");
    assert!(fork.sends(0, Side::Caller) && fork.sends(0, Side::Callee));
    assert_eq!(world.only_siprec().state, State::Active);
    assert!(world.carol.take_invite().is_none());
}

#[test]
fn a_refused_offer_is_made_once_more_with_less_and_redirections_are_followed() {
    let mut world = World::new(super::siprec::ONE);
    world.establish();
    let invite = world.carol.take_invite().unwrap();
    world.carol.respond(&invite, 488, None, world.now());
    world.run(50);
    let again = world.carol.take_invite().expect("once more");
    let contact = [("Contact", "<sip:elsewhere@127.0.0.1:5072>")];
    world
        .carol
        .respond_with(&again, 302, None, &contact, world.now());
    world.run(50);
    let invite = world
        .dave
        .take_invite()
        .expect("the redirection is followed");
    assert_eq!(invite.request.uri.as_str(), "sip:elsewhere@127.0.0.1:5072");
    world.dave.respond(
        &invite,
        200,
        Some(&answer(9100, 2, "recvonly")),
        world.now(),
    );
    world.run(50);
    assert_eq!(world.only_siprec().state, State::Active);
}

#[test]
fn a_challenge_is_answered_by_the_password_of_the_server_which_stays_off_the_wire() {
    let text = super::siprec::ONE.replace("rec@", "rec:s3cret@");
    let mut world = World::new(&text);
    world.establish();
    let invite = world.carol.take_invite().unwrap();
    let wire = String::from_utf8_lossy(&invite.request.to_bytes()).into_owned();
    assert!(!wire.contains("s3cret"), "{wire}");
    let challenge = [(
        "WWW-Authenticate",
        "Digest realm=\"r\", nonce=\"n\", qop=\"auth\"",
    )];
    world
        .carol
        .respond_with(&invite, 401, None, &challenge, world.now());
    world.run(50);
    let again = world.carol.take_invite().expect("asked again");
    let credentials = again.request.headers.get("Authorization").unwrap();
    assert!(credentials.contains("username=\"rec\""), "{credentials}");
    world.recorder_accepts(&again);
    assert_eq!(world.only_siprec().state, State::Active);
    assert!(!world.only_siprec().server.contains("s3cret"));
}

#[test]
fn early_media_is_recorded_where_the_recorder_starts_early() {
    let text = "[[recorder]]\nname = \"main\"\nservers = [\"sip:127.0.0.1:5071\"]\nstart = \"early\"\n\
                [[route]]\nnext = \"sip:127.0.0.1:5070\"\nrecorders = [\"main\"]\n";
    let mut world = World::new(text);
    world.invite("sip:bob@127.0.0.1:5060", Some(&sdp("127.0.0.1", 6000)));
    world.run(50);
    let invite = world.bob.take_invite().unwrap();
    assert!(world.carol.take_invite().is_none());
    world
        .bob
        .respond(&invite, 183, Some(&sdp("127.0.0.1", 7000)), world.now());
    world.run(50);
    let told = world
        .carol
        .take_invite()
        .expect("carol is asked with the early media");
    assert_eq!(bodies(&told).0.matches("a=sendonly").count(), 2);
    world.recorder_accepts(&told);
    assert!(world.fork().sends(0, Side::Callee));
    // Nobody answers: the recording session ends with the call.
    world.bob.respond(&invite, 486, None, world.now());
    world.run(1_000);
    assert_eq!(world.carol.byes, 1);
    assert!(world.b2bua.is_idle());
}

#[test]
fn a_transferred_party_is_told_as_one_that_left_and_its_successor_as_one_that_joined() {
    use trunkline_control::api::handle::{TransferMode, TransferOrder};
    let text = "[[route]]\nuser = \"dave\"\nnext = \"sip:127.0.0.1:5072\"\n\
                [[route]]\nnext = \"sip:127.0.0.1:5070\"\nsrs = [\"sip:127.0.0.1:5071\"]\n";
    let (mut world, first) = World::recorded(text);
    let call = world.only_call().id;
    let order = TransferOrder {
        leg: "callee".to_owned(),
        target: "sip:dave@127.0.0.1".to_owned(),
        mode: TransferMode::Blind,
    };
    world.transfer(&call, order).unwrap();
    let invite = world
        .until(2_000, |world| world.dave.take_invite())
        .expect("dave is called");
    world
        .dave
        .respond(&invite, 200, Some(&sdp("127.0.0.1", 7200)), world.now());
    world.run(100);
    if let Some(offer) = world.alice.take_invite() {
        world
            .alice
            .respond(&offer, 200, Some(&sdp("127.0.0.1", 6000)), world.now());
    }
    world.run(300);
    let mut documents = vec![first];
    while let Some(told) = world.until(1_000, |world| world.carol.take_invite()) {
        documents.push(bodies(&told).1);
        world
            .carol
            .respond(&told, 200, Some(&answer(9000, 2, "recvonly")), world.now());
        world.run(100);
    }
    assert!(documents.len() > 1, "carol hears of the transfer");
    let documents: Vec<&str> = documents.iter().map(String::as_str).collect();
    let known = Known::default().after(&documents);
    let state = known.state();
    assert_eq!(
        (state.mode, state.participants.len()),
        (DataMode::Complete, 3)
    );
    let left = known.who("bob");
    let membership = state
        .participant_sessions
        .iter()
        .find(|one| one.participant == left);
    assert!(membership.unwrap().times.until.is_some());
    assert_eq!(
        (
            known.sends("bob"),
            known.sends("dave"),
            known.receives("alice")
        ),
        (0, 1, 1)
    );
}

#[test]
fn a_server_that_was_silent_is_asked_whether_it_is_back_and_used_again() {
    let mut world = World::new(super::siprec::ONE);
    world.carol.deaf = true;
    world.establish();
    world.run(8_000);
    assert_eq!(world.only_siprec().state, State::Lost);
    world.carol.deaf = false;
    let invite = world.until(12_000, |world| world.carol.take_invite());
    let invite = invite.expect("carol is used again before its rest is over");
    let asked = |request: &Request| request.method == Method::Options;
    assert!(world.carol.requests.iter().any(asked));
    world.recorder_accepts(&invite);
    assert_eq!(world.only_siprec().state, State::Active);
}

#[test]
fn a_message_of_the_operator_reaches_the_recorder_in_its_dialog() {
    use trunkline_control::api::handle::RecorderOrder;
    let (mut world, _) = World::recorded(super::siprec::ONE);
    let call = world.only_call().id;
    let message = |method| RecorderOrder::Message {
        method,
        headers: vec![
            ("X-Note".to_owned(), "7".to_owned()),
            ("Content-Type".to_owned(), "application/json".to_owned()),
        ],
        body: b"{}".to_vec(),
    };
    world.order(&call, message(Method::Info)).unwrap();
    let info = world.carol.requests.last().unwrap();
    assert_eq!(
        (info.method.clone(), info.body.as_slice()),
        (Method::Info, &b"{}"[..])
    );
    assert_eq!(info.headers.get("X-Note").as_deref(), Some("7"));
    assert_eq!(
        info.headers.get("Content-Type").as_deref(),
        Some("application/json")
    );
    assert_eq!(
        info.headers.call_id().unwrap(),
        world.only_siprec().sip_call_id
    );
    assert!(world.order("nobody", message(Method::Info)).is_err());
}

#[test]
fn the_operator_starts_a_recorder_of_his_own_in_mid_call() {
    use trunkline_config::{Recorder, SipTarget};
    use trunkline_control::api::handle::{RecorderOrder, RecordingAction, Request as ApiRequest};
    use trunkline_control::siprec::client::Chosen;
    let mut world = World::new("[[route]]\nnext = \"sip:127.0.0.1:5070\"\n");
    world.establish();
    let call = world.only_call().id;
    let target = SipTarget::parse("sip:127.0.0.1:5072").unwrap();
    let recorder = std::sync::Arc::new(Recorder::new("mine", vec![target]));
    let (reply, mut done) = tokio::sync::oneshot::channel();
    world.api(ApiRequest::RecorderOrder {
        call,
        chosen: Chosen::Named("mine".to_owned()),
        order: RecorderOrder::Act {
            action: RecordingAction::Start,
            recorder: Some(recorder),
        },
        reply,
    });
    world.run(50);
    let invite = world.dave.take_invite().expect("dave is asked");
    assert!(
        done.try_recv().is_err(),
        "answered once it holds at the packet"
    );
    world.dave.respond(
        &invite,
        200,
        Some(&answer(9100, 2, "recvonly")),
        world.now(),
    );
    world.run(50);
    assert_eq!(done.try_recv().unwrap().unwrap()[0].instance, "mine");
    assert!(world.fork().sends(0, Side::Caller));
}

#[test]
fn a_restarted_control_asks_no_recorder_that_had_declined_or_was_stopped() {
    use trunkline_control::api::handle::RecordingAction;
    let declines = "[[recorder]]\nname = \"main\"\nservers = [\"sip:127.0.0.1:5071\"]\nskip_failover = \"^603\"\n\
                    [[route]]\nnext = \"sip:127.0.0.1:5070\"\nrecorders = [\"main\"]\n";
    for stopped in [false, true] {
        let mut world = World::new(declines);
        world.establish();
        let invite = world.carol.take_invite().unwrap();
        if stopped {
            world.recorder_accepts(&invite);
            let call = world.only_call().id;
            let acted = world.act_on_recorders(&call, RecordingAction::Stop);
            acted.unwrap();
        } else {
            world.carol.respond(&invite, 603, None, world.now());
        }
        world.run(500);
        assert!(world.siprec().is_empty());
        world.restart_control();
        world.run(60_000);
        assert!(world.carol.take_invite().is_none(), "stopped: {stopped}");
        assert!(world.siprec().is_empty());
        assert_eq!(world.live_calls().len(), 1);
    }
}

#[test]
fn a_change_of_codec_is_told_and_another_media_gets_lines_of_its_own() {
    let (mut world, first) = World::recorded(super::siprec::ONE);
    let pcma = |port: u16| {
        let text = sdp("127.0.0.1", port);
        let text = text.replace("RTP/AVP 0 101", "RTP/AVP 8 101");
        text.replace("a=rtpmap:0 PCMU/8000", "a=rtpmap:8 PCMA/8000")
    };
    let renegotiate = |world: &mut World, alice: &str, bob: &str| {
        let sent = world.alice.reinvite(Some(alice), world.now());
        world.run(50);
        let invite = world.bob.take_invite().unwrap();
        world.bob.respond(&invite, 200, Some(bob), world.now());
        world.run(50);
        world.alice.ack(sent, world.now());
        world.run(50);
    };
    renegotiate(&mut world, &pcma(6000), &pcma(7000));
    let told = world.carol.take_invite().expect("the codec is told");
    let offer = String::from_utf8_lossy(&told.request.body).into_owned();
    assert_eq!(offer.matches("RTP/AVP 8 101").count(), 2, "{offer}");
    assert_eq!(offer.matches("a=rtpmap:8 PCMA/8000").count(), 2, "{offer}");
    let taken = answer(9000, 2, "recvonly").replace("RTP/AVP 0", "RTP/AVP 8");
    world.carol.respond(&told, 200, Some(&taken), world.now());
    world.run(50);
    assert_eq!(
        world.only_siprec().streams[0].codec.as_deref(),
        Some("PCMA")
    );
    assert_eq!(world.fork().legs[&(0, Side::Caller)].payloads[0].pt, 8);

    let video = "m=video 6100 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=sendrecv\r\n";
    let with_video = |text: String| text + video;
    let (alice, bob) = (with_video(pcma(6000)), with_video(pcma(7000)));
    renegotiate(&mut world, &alice, &bob);
    let told = world.carol.take_invite().expect("the video is told");
    let (offer, second) = bodies(&told);
    assert_eq!(offer.matches("m=video").count(), 2, "{offer}");
    assert!(
        offer.contains("a=label:3") && offer.contains("a=label:4"),
        "{offer}"
    );
    assert!(offer.contains("H264/90000"), "{offer}");
    let known = Known::default().after(&[&first, &second]);
    assert_eq!((known.sends("alice"), known.receives("bob")), (2, 2));
    let lines = "m=video 9100 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=label:3\r\na=recvonly\r\n\
                 m=video 9102 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=label:4\r\na=recvonly\r\n";
    let taken = taken + lines;
    world.carol.respond(&told, 200, Some(&taken), world.now());
    world.run(50);
    let fork = world.fork();
    assert!(fork.sends(1, Side::Caller) && fork.sends(1, Side::Callee));
    let streams = world.only_siprec().streams;
    assert_eq!(streams.len(), 4);
    assert_eq!(
        (streams[2].media.as_str(), streams[3].codec.as_deref()),
        ("video", Some("H264"))
    );
}
