//! Dialogs: routing, order, glare, forks, snapshots, and the traps other B2BUAs fell into.

mod support;

use support::{Faults, World, address, answer, request};
use trunkline_sip::dialog::{
    Dialog, DialogError, DialogId, DialogState, Effect, Refusal, called_party, calling_party,
};
use trunkline_sip::message::{Message, Method, Request, Response, Uri, parse_datagram};
use trunkline_sip::transaction::{Event, Transport};

fn uri(text: &str) -> Uri {
    text.parse().unwrap()
}

fn tagged_answer(invite: &Request, status: u16, tag: &str) -> Response {
    let mut response = answer(invite, status);
    response.set_to_tag(tag);
    response
}

/// Both sides of a confirmed dialog.
fn pair() -> (Dialog, Dialog) {
    let invite = request(Method::Invite, "c1", 1);
    let mut callee = Dialog::uas(&invite, "b1", &uri("sip:bob@192.0.2.2:5060")).unwrap();
    let ok = callee.response(&invite, 200);
    callee.sent_response(&invite, 200);
    let caller = Dialog::uac(&invite, &ok).unwrap();
    (caller, callee)
}

#[test]
fn both_sides_agree_on_what_the_dialog_is() {
    let (mut caller, mut callee) = pair();
    assert_eq!(caller.id().mirrored(), callee.id());
    assert_eq!(caller.state(), DialogState::Confirmed);
    assert_eq!(callee.state(), DialogState::Confirmed);
    let ack = caller.ack(1);
    assert_eq!(ack.headers.cseq().unwrap().to_string(), "1 ACK");
    assert_eq!(DialogId::of_request(&ack), Some(callee.id()));
    assert_eq!(ack.uri.as_str(), "sip:bob@192.0.2.2:5060");
    let bye = callee.request(Method::Bye).unwrap();
    assert_eq!(DialogId::of_request(&bye), Some(caller.id()));
    assert_eq!(bye.uri.as_str(), "sip:alice@192.0.2.1:5060");
    assert_eq!(
        bye.headers.from_address().unwrap().uri.as_str(),
        "sip:bob@192.0.2.2"
    );
    caller.receive(&bye).unwrap();
    let ok = caller.response(&bye, 200);
    caller.sent_response(&bye, 200);
    assert_eq!(callee.handle_response(&ok), Effect::Ended);
    assert_eq!(caller.state(), DialogState::Terminated);
    assert_eq!(
        caller.request(Method::Info).unwrap_err(),
        DialogError::Terminated
    );
}

#[test]
fn crossed_byes_are_answered_481_never_met_with_silence() {
    let (mut caller, mut callee) = pair();
    let from_caller = caller.request(Method::Bye).unwrap();
    let from_callee = callee.request(Method::Bye).unwrap();
    caller.terminate();
    callee.terminate();
    let refused = Err(Refusal {
        status: 481,
        retry_after_s: None,
    });
    assert_eq!(callee.receive(&from_caller), refused);
    assert_eq!(caller.receive(&from_callee), refused);
}

#[test]
fn a_reinvite_that_crosses_a_bye_is_481_and_the_bye_is_answered() {
    let (mut caller, mut callee) = pair();
    let reinvite = caller.request(Method::Invite).unwrap();
    let bye = callee.request(Method::Bye).unwrap();
    callee.terminate();
    assert_eq!(callee.receive(&reinvite).unwrap_err().status, 481);
    caller.receive(&bye).unwrap();
    callee.handle_response(&caller.response(&bye, 200));
    caller.sent_response(&bye, 200);
    assert_eq!(
        caller.handle_response(&callee.response(&reinvite, 481)),
        Effect::PeerLost
    );
    assert_eq!(caller.state(), DialogState::Terminated);
}

#[test]
fn a_reinvite_that_overtakes_the_ack_of_the_first_is_taken() {
    let mut world = World::plain();
    world.drop_first.push(("ACK".into(), 1));
    let invite = request(Method::Invite, "c1", 1);
    let (target, now) = (world.target(0), world.now);
    let client = world.ends[0]
        .send_request(now, invite.clone(), &target)
        .unwrap();
    let (tx, received) = world.until(1, |_, event| match event {
        Event::Request { tx, request, .. } => Some((tx, request)),
        _ => None,
    });
    let tag = world.ends[1].local_tag(tx).unwrap().to_owned();
    let mut callee = Dialog::uas(&received, &tag, &uri("sip:bob@192.0.2.2:5060")).unwrap();
    let now = world.now;
    world.ends[1]
        .respond(now, tx, callee.response(&received, 200))
        .unwrap();
    callee.sent_response(&received, 200);
    let ok = world.until(1, |side, event| match event {
        Event::Response { response, .. } if side == 0 => Some(response),
        _ => None,
    });
    let mut caller = Dialog::uac(&invite, &ok).unwrap();
    let now = world.now;
    world.ends[0]
        .send_ack(now, client, caller.ack(1), &target)
        .unwrap();
    let again = caller.request(Method::Invite).unwrap();
    let second = world.ends[0].send_request(now, again, &target).unwrap();
    let (tx, received) = world.until(1, |_, event| match event {
        Event::Request { tx, request, .. } => Some((tx, request)),
        _ => None,
    });
    callee.receive(&received).unwrap();
    let now = world.now;
    world.ends[1]
        .respond(now, tx, callee.response(&received, 200))
        .unwrap();
    callee.sent_response(&received, 200);
    // The first 2xx is repeated and acknowledged again; then the second.
    let mut acks = Vec::new();
    let end = world.now + std::time::Duration::from_secs(5);
    while let Some(events) = world.step(end) {
        for (side, event) in events {
            match event {
                Event::Response { tx, response, .. } if side == 0 && response.is_success() => {
                    assert_eq!(tx, second);
                    caller.handle_response(&response);
                    let now = world.now;
                    world.ends[0]
                        .send_ack(now, second, caller.ack(2), &target)
                        .unwrap();
                }
                Event::Ack { request, .. } => acks.push(request.headers.cseq().unwrap().number),
                _ => {}
            }
        }
    }
    acks.sort_unstable();
    assert_eq!(acks, [1, 2]);
}

#[test]
fn routes_are_loose_unless_the_first_router_is_strict() {
    let invite = request(Method::Invite, "c1", 1);
    let mut ok = tagged_answer(&invite, 200, "b1");
    ok.headers
        .append("Record-Route", "<sip:p2.example;lr>, <sip:p1.example;lr>");
    let mut dialog = Dialog::uac(&invite, &ok).unwrap();
    let bye = dialog.request(Method::Bye).unwrap();
    assert_eq!(bye.uri.as_str(), "sip:bob@192.0.2.2:5060");
    assert_eq!(
        bye.headers.list("Route"),
        ["<sip:p1.example;lr>", "<sip:p2.example;lr>"]
    );
    assert_eq!(dialog.next_hop().host(), "p1.example");

    ok.headers.set(
        "Record-Route",
        "<sip:p2.example;lr>, <sip:p1.example;x=1?h=2>",
    );
    let mut dialog = Dialog::uac(&invite, &ok).unwrap();
    let info = dialog.request(Method::Info).unwrap();
    assert_eq!(info.uri.as_str(), "sip:p1.example;x=1");
    assert_eq!(
        info.headers.list("Route"),
        ["<sip:p2.example;lr>", "<sip:bob@192.0.2.2:5060>"]
    );
    assert_eq!(dialog.next_hop().host(), "p1.example");
}

#[test]
fn the_callee_keeps_the_record_route_in_its_order_and_copies_it_into_the_answer() {
    let mut invite = request(Method::Invite, "c1", 1);
    invite.headers.append("Record-Route", "<sip:p2.example;lr>");
    invite.headers.append("Record-Route", "<sip:p1.example;lr>");
    let mut dialog = Dialog::uas(&invite, "b1", &uri("sip:bob@192.0.2.2")).unwrap();
    let ok = dialog.response(&invite, 200);
    assert_eq!(ok.headers.list("Record-Route").len(), 2);
    assert_eq!(ok.headers.get("Contact").unwrap(), "<sip:bob@192.0.2.2>");
    let bye = dialog.request(Method::Bye).unwrap();
    assert_eq!(
        bye.headers.list("Route"),
        ["<sip:p2.example;lr>", "<sip:p1.example;lr>"]
    );
}

#[test]
fn forked_provisionals_make_dialogs_of_their_own_each_with_its_contact() {
    let invite = request(Method::Invite, "c1", 1);
    let fork = |tag: &str, contact: &str| {
        let mut response = Response::to(&invite, 183).with("Contact", contact);
        response.set_to_tag(tag);
        Dialog::uac(&invite, &response).unwrap()
    };
    let mut one = fork("x", "<sip:one@198.51.100.1>");
    let mut two = fork("y", "<sip:two@198.51.100.2>");
    assert_ne!(one.id(), two.id());
    assert_eq!(one.state(), DialogState::Early);
    // A PRACK goes to the early Contact of its own fork.
    assert_eq!(
        one.request(Method::Prack).unwrap().uri.as_str(),
        "sip:one@198.51.100.1"
    );
    assert_eq!(
        two.request(Method::Prack).unwrap().uri.as_str(),
        "sip:two@198.51.100.2"
    );
    // The 2xx of one fork fixes its route set and target anew.
    let mut ok = Response::to(&invite, 200)
        .with("Contact", "<sip:moved@198.51.100.3>")
        .with("Record-Route", "<sip:p.example;lr>");
    ok.set_to_tag("x");
    assert_eq!(DialogId::of_response(&ok), Some(one.id()));
    one.handle_response(&ok);
    assert_eq!(
        (one.state(), two.state()),
        (DialogState::Confirmed, DialogState::Early)
    );
    assert_eq!(one.remote_target().as_str(), "sip:moved@198.51.100.3");
    assert_eq!(one.next_hop().host(), "p.example");
    assert!(!one.invite_pending());
}

#[test]
fn what_makes_no_dialog() {
    let invite = request(Method::Invite, "c1", 1);
    let no = |response: Response| Dialog::uac(&invite, &response).unwrap_err();
    assert_eq!(no(answer(&invite, 180)), DialogError::NoDialog, "no tag");
    assert_eq!(no(tagged_answer(&invite, 100, "x")), DialogError::NoDialog);
    assert_eq!(no(tagged_answer(&invite, 404, "x")), DialogError::NoDialog);
    let mut bare = Response::to(&invite, 200);
    bare.set_to_tag("x");
    assert_eq!(no(bare), DialogError::Missing("Contact"));
    let mut silent = invite.clone();
    silent.headers.remove("Contact");
    assert_eq!(
        Dialog::uas(&silent, "b", &uri("sip:b@h")).unwrap_err(),
        DialogError::Missing("Contact")
    );
}

#[test]
fn a_lower_cseq_is_500() {
    let (mut caller, mut callee) = pair();
    let old = caller.request(Method::Info).unwrap();
    let new = caller.request(Method::Info).unwrap();
    callee.receive(&new).unwrap();
    assert_eq!(
        callee.receive(&old),
        Err(Refusal {
            status: 500,
            retry_after_s: None
        })
    );
}

#[test]
fn invites_that_cross_get_491_and_a_second_one_500_with_retry_after() {
    let (mut caller, mut callee) = pair();
    let first = caller.request(Method::Invite).unwrap();
    assert_eq!(
        caller.request(Method::Invite).unwrap_err(),
        DialogError::InvitePending
    );
    let crossing = callee.request(Method::Invite).unwrap();
    assert_eq!(callee.receive(&first).unwrap_err().status, 491);
    assert_eq!(caller.receive(&crossing).unwrap_err().status, 491);
    // Both were refused: both are free again, and nobody's slot stays taken.
    let refusal = callee.response(&first, 491);
    assert_eq!(caller.handle_response(&refusal), Effect::Continue);
    let refusal = caller.response(&crossing, 491);
    callee.handle_response(&refusal);
    let again = caller.request(Method::Invite).unwrap();
    callee.receive(&again).unwrap();
    let mut second = again.clone();
    second.headers.set(
        "CSeq",
        format!("{} INVITE", again.headers.cseq().unwrap().number + 1),
    );
    let refused = callee.receive(&second).unwrap_err();
    assert_eq!(refused.status, 500);
    assert!(refused.retry_after_s.is_some_and(|seconds| seconds <= 10));
    assert_eq!(
        callee.request(Method::Invite).unwrap_err(),
        DialogError::InvitePending
    );
}

#[test]
fn a_failed_modification_frees_its_slot() {
    let (mut caller, mut callee) = pair();
    for status in [488, 500, 491, 408] {
        let again = caller.request(Method::Invite).unwrap();
        callee.receive(&again).unwrap();
        let failure = callee.response(&again, status);
        callee.sent_response(&again, status);
        caller.handle_response(&failure);
        assert_eq!(caller.state(), DialogState::Confirmed);
        assert_eq!(callee.state(), DialogState::Confirmed);
    }
    let lost = caller.request(Method::Invite).unwrap();
    caller.request_ended(&Method::Invite, lost.headers.cseq().unwrap().number);
    assert!(caller.request(Method::Invite).is_ok());
}

#[test]
fn the_wait_after_491_depends_on_who_owns_the_call_id() {
    let (caller, callee) = pair();
    let mut random = rand::rng();
    for _ in 0..200 {
        let owner = caller.glare_delay(&mut random).as_millis();
        assert!((2100..=4000).contains(&owner) && owner % 10 == 0);
        assert!(callee.glare_delay(&mut random).as_millis() <= 2000);
    }
}

#[test]
fn offers_in_update_that_cross_are_491_and_a_second_one_500() {
    let (mut caller, mut callee) = pair();
    let offer = |dialog: &mut Dialog| {
        dialog
            .request(Method::Update)
            .unwrap()
            .with_body("application/sdp", "v=0\r\n")
    };
    let ours = offer(&mut caller);
    let theirs = offer(&mut callee);
    assert_eq!(caller.receive(&theirs).unwrap_err().status, 491);
    assert_eq!(callee.receive(&ours).unwrap_err().status, 491);
    caller.handle_response(&callee.response(&ours, 491));
    callee.handle_response(&caller.response(&theirs, 491));
    let first = offer(&mut caller);
    callee.receive(&first).unwrap();
    let refused = callee.receive(&offer(&mut caller)).unwrap_err();
    assert_eq!(
        (refused.status, refused.retry_after_s.is_some()),
        (500, true)
    );
    callee.sent_response(&first, 200);
    callee.receive(&offer(&mut caller)).unwrap();
    // An UPDATE without offer (session refresh) never collides.
    let refresh = caller.request(Method::Update).unwrap();
    callee.receive(&refresh).unwrap();
}

#[test]
fn the_target_moves_with_a_success_only() {
    let (mut caller, mut callee) = pair();
    caller.set_contact(&uri("sip:alice@198.51.100.5:7000"));
    let again = caller.request(Method::Invite).unwrap();
    callee.receive(&again).unwrap();
    callee.sent_response(&again, 488);
    assert_eq!(callee.remote_target().as_str(), "sip:alice@192.0.2.1:5060");
    caller.handle_response(&callee.response(&again, 488));
    let again = caller.request(Method::Invite).unwrap();
    callee.receive(&again).unwrap();
    callee.sent_response(&again, 200);
    assert_eq!(
        callee.remote_target().as_str(),
        "sip:alice@198.51.100.5:7000"
    );
    callee.set_contact(&uri("sip:bob@203.0.113.8"));
    caller.handle_response(&callee.response(&again, 200));
    assert_eq!(caller.remote_target().as_str(), "sip:bob@203.0.113.8");
}

#[test]
fn a_peer_that_lost_the_dialog_is_noticed() {
    let (mut caller, callee) = pair();
    let info = caller.request(Method::Info).unwrap();
    assert_eq!(
        caller.handle_response(&callee.response(&info, 481)),
        Effect::PeerLost
    );
    let notify = caller.request(Method::Notify).unwrap();
    assert_eq!(
        caller.handle_response(&callee.response(&notify, 481)),
        Effect::Continue
    );
}

#[test]
fn no_doubled_tag_or_port_in_to() {
    let invite = request(Method::Invite, "c1", 1);
    let mut ok = tagged_answer(&invite, 200, "b1");
    ok.set_to_tag("b2");
    assert_eq!(ok.headers.get("To").unwrap(), "<sip:bob@192.0.2.2>;tag=b1");
    let mut dialog = Dialog::uac(&invite, &ok).unwrap();
    let bye = dialog.request(Method::Bye).unwrap();
    assert_eq!(bye.headers.get("To").unwrap(), "<sip:bob@192.0.2.2>;tag=b1");
    assert_eq!(
        bye.headers.get("From").unwrap(),
        "\"Alice\" <sip:alice@192.0.2.1>;tag=a1"
    );
}

#[test]
fn a_snapshot_is_small_and_whole() {
    let (mut caller, mut callee) = pair();
    for dialog in [&mut caller, &mut callee] {
        let text = serde_json::to_string(dialog).unwrap();
        assert!(text.len() < 400, "{} bytes", text.len());
        let mut restored: Dialog = serde_json::from_str(&text).unwrap();
        assert_eq!(&restored, dialog);
        assert_eq!(
            restored.request(Method::Bye).unwrap().to_bytes(),
            dialog.request(Method::Bye).unwrap().to_bytes()
        );
    }
    assert!(serde_json::from_str::<Dialog>("{\"i\":\"x\"}").is_err());
}

#[test]
fn a_restored_dialog_is_not_held_up_by_an_invite_that_was_lost_with_the_process() {
    let (mut caller, mut callee) = pair();
    let lost = caller.request(Method::Invite).unwrap();
    callee.receive(&lost).unwrap();
    let again = |dialog: &Dialog| -> Dialog {
        serde_json::from_str(&serde_json::to_string(dialog).unwrap()).unwrap()
    };
    let (mut caller, mut callee) = (again(&caller), again(&callee));
    // The peer repeats its INVITE, which the new process sees for the first time.
    callee.receive(&lost).unwrap();
    callee.sent_response(&lost, 200);
    assert!(caller.request(Method::Invite).is_ok());
    assert!(callee.request(Method::Invite).is_ok());
}

#[test]
fn parties_are_taken_from_the_right_headers() {
    let mut invite = request(Method::Invite, "c1", 1);
    let caller = calling_party(&invite, true).unwrap();
    assert_eq!(
        (caller.user.as_str(), caller.display.as_deref()),
        ("alice", Some("Alice"))
    );
    invite
        .headers
        .append("Remote-Party-ID", "\"R\" <sip:rpid@h>;privacy=full");
    assert!(calling_party(&invite, true).unwrap().private);
    invite
        .headers
        .append("P-Asserted-Identity", "\"A, B\" <sip:+4930@h>, <tel:+4930>");
    let caller = calling_party(&invite, true).unwrap();
    assert_eq!(
        (caller.user.as_str(), caller.display.as_deref()),
        ("+4930", Some("A, B"))
    );
    assert!(!caller.private);
    invite.headers.append("Privacy", "critical;id");
    assert!(calling_party(&invite, true).unwrap().private);
    assert_eq!(calling_party(&invite, false).unwrap().user, "alice");
    assert_eq!(called_party(&invite).user, "bob");
    invite
        .headers
        .append("P-Called-Party-ID", "<sip:dialled@h>");
    assert_eq!(called_party(&invite).user, "dialled");
}

/// What one seeded run of a whole call came to.
#[derive(Debug, Default)]
struct Outcome {
    caller_ended: bool,
    callee_ended: bool,
    established: usize,
    failed: Option<u16>,
}

/// A whole call: INVITE, 180, 200, ACK, re-INVITE, BYE, over a faulty network.
fn call(seed: u64, faults: Faults, transport: Transport, bye_from: usize) -> (Outcome, World) {
    let mut world = World::new(transport, seed, faults);
    let mut outcome = Outcome::default();
    let invite = request(Method::Invite, &format!("call-{seed}"), 1);
    let (target, now) = (world.target(0), world.now);
    let mut dialogs: [Option<Dialog>; 2] = [None, None];
    let sent = invite.clone();
    let client = world.ends[0].send_request(now, invite, &target).unwrap();
    let end = world.now + std::time::Duration::from_secs(200);
    while let Some(events) = world.step(end) {
        for (side, event) in events {
            let now = world.now;
            let target = world.target(side);
            let dialog = &mut dialogs[side];
            let layer = &mut world.ends[side];
            match event {
                Event::Request { tx, request, .. } => {
                    if dialog.is_none() && request.method == Method::Invite {
                        let tag = layer.local_tag(tx).unwrap().to_owned();
                        let contact = uri("sip:bob@192.0.2.2:5060");
                        *dialog = Some(Dialog::uas(&request, &tag, &contact).unwrap());
                        let ringing = dialog.as_ref().unwrap().response(&request, 180);
                        layer.respond(now, tx, ringing).unwrap();
                    } else if let Some(dialog) = dialog
                        && let Err(refusal) = dialog.receive(&request)
                    {
                        layer
                            .respond(now, tx, dialog.response(&request, refusal.status))
                            .unwrap();
                        continue;
                    }
                    let dialog = dialog.as_mut().expect("no request before the INVITE");
                    layer
                        .respond(now, tx, dialog.response(&request, 200))
                        .unwrap();
                    dialog.sent_response(&request, 200);
                    if request.method == Method::Bye {
                        match side {
                            0 => outcome.caller_ended = true,
                            _ => outcome.callee_ended = true,
                        }
                    }
                }
                Event::Response { tx, response, .. } => {
                    let cseq = response.headers.cseq().unwrap();
                    if tx == client && side == 0 {
                        if response.status >= 300 {
                            outcome.failed = Some(response.status);
                        }
                        if !response.is_success() {
                            continue;
                        }
                        *dialog = Some(Dialog::uac(&sent, &response).unwrap());
                        outcome.established += 1;
                        let ack = dialog.as_ref().unwrap().ack(cseq.number);
                        layer.send_ack(now, tx, ack, &target).unwrap();
                        let again = dialog.as_mut().unwrap().request(Method::Invite).unwrap();
                        layer.send_request(now, again, &target).unwrap();
                        continue;
                    }
                    let known = dialog.as_mut().unwrap();
                    known.handle_response(&response);
                    if cseq.method == Method::Invite && response.is_success() {
                        let ack = known.ack(cseq.number);
                        layer.send_ack(now, tx, ack, &target).unwrap();
                        if bye_from == 0 {
                            let bye = known.request(Method::Bye).unwrap();
                            layer.send_request(now, bye, &target).unwrap();
                        }
                    }
                    if cseq.method == Method::Bye {
                        match side {
                            0 => outcome.caller_ended = true,
                            _ => outcome.callee_ended = true,
                        }
                    }
                }
                Event::Ack { request, .. } if bye_from == 1 => {
                    let second = request.headers.cseq().unwrap().number == 2;
                    let known = dialog.as_mut().unwrap();
                    if second && known.state() == DialogState::Confirmed {
                        let bye = known.request(Method::Bye).unwrap();
                        layer.send_request(now, bye, &target).unwrap();
                    }
                }
                Event::Timeout { .. } => outcome.failed = Some(408),
                _ => {}
            }
        }
    }
    (outcome, world)
}

#[test]
fn a_call_converges_whatever_the_network_does() {
    let faults = [
        Faults {
            loss: 0,
            duplicate: 0,
            jitter_ms: 0,
        },
        Faults {
            loss: 10,
            duplicate: 5,
            jitter_ms: 50,
        },
        Faults {
            loss: 25,
            duplicate: 25,
            jitter_ms: 800,
        },
        Faults {
            loss: 0,
            duplicate: 60,
            jitter_ms: 3000,
        },
    ];
    for (kind, faults) in faults.into_iter().enumerate() {
        for seed in 0..60 {
            for bye_from in [0, 1] {
                let (outcome, world) = call(seed, faults, Transport::Udp, bye_from);
                let label = format!("{kind} {seed} {bye_from}: {outcome:?}");
                assert_eq!(outcome.failed, None, "{label}");
                assert_eq!(outcome.established, 1, "{label}");
                assert!(outcome.caller_ended && outcome.callee_ended, "{label}");
                for end in &world.ends {
                    assert_eq!(end.transactions(), (0, 0), "{label}");
                    assert_eq!(end.poll_timeout(), None, "{label}");
                }
            }
        }
    }
}

#[test]
fn a_call_over_tcp_repeats_nothing() {
    for bye_from in [0, 1] {
        let (outcome, world) = call(1, Faults::default(), Transport::Tcp, bye_from);
        assert!(outcome.caller_ended && outcome.callee_ended);
        // INVITE, ACK, re-INVITE, ACK, BYE and their answers 180, 200, 200, 200.
        assert_eq!(world.wire.len(), 9, "{:?}", world.wire);
    }
}

#[test]
fn all_that_is_sent_parses_and_has_a_length() {
    let (_, world) = call(
        3,
        Faults {
            loss: 10,
            duplicate: 5,
            jitter_ms: 50,
        },
        Transport::Udp,
        0,
    );
    for (_, _, text) in &world.wire {
        let message = parse_datagram(text.as_bytes()).unwrap();
        assert_eq!(
            message.headers().content_length().unwrap(),
            Some(message.body().len() as u32)
        );
        if let Message::Request(request) = &message {
            assert!(request.headers.contains("Max-Forwards"));
            assert!(request.headers.via().unwrap().wants_rport());
        }
    }
    assert!(address(0) != address(1));
}
