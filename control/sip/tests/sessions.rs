//! What sits on dialogs: session timers (RFC 4028), reliable provisionals (RFC 3262), transfer
//! notifications (RFC 3515), forks.

mod support;

use std::time::{Duration, Instant};

use support::{World, answer, request};
use trunkline_sip::dialog::{
    Dialog, DialogId, DialogSet, DialogState, Reliability, SessionPolicy, SessionTerms,
    SessionTimer, SubscriptionEnd, TimerAction, TooSmall, parse_sipfrag,
};
use trunkline_sip::message::{Method, Request, Response};
use trunkline_sip::transaction::Event;

fn invite_with(headers: &[(&str, &str)]) -> Request {
    let invite = request(Method::Invite, "c1", 1);
    headers
        .iter()
        .fold(invite, |invite, (name, value)| invite.with(name, value))
}

#[test]
fn both_roles_of_the_refresher_are_agreed_on() {
    let policy = SessionPolicy::default();
    let mut invite = request(Method::Invite, "c1", 1);
    policy.propose(&mut invite, None);
    assert_eq!(invite.headers.get("Session-Expires").unwrap(), "1800");
    let terms = policy.accept(&invite.headers).unwrap().unwrap();
    assert_eq!(
        terms,
        SessionTerms {
            interval_s: 1800,
            we_refresh: false
        }
    );
    let mut ok = answer(&invite, 200);
    policy.confirm(&mut ok, terms, true);
    assert_eq!(ok.headers.get("x").unwrap(), "1800;refresher=uac");
    assert!(ok.headers.list_contains("Require", "timer"));
    let ours = SessionPolicy::agreed(&ok.headers).unwrap();
    assert_eq!(
        ours,
        SessionTerms {
            interval_s: 1800,
            we_refresh: true
        }
    );

    let asked = invite_with(&[
        ("Supported", "timer"),
        ("Session-Expires", "600;refresher=uas"),
    ]);
    let terms = policy.accept(&asked.headers).unwrap().unwrap();
    assert_eq!(
        terms,
        SessionTerms {
            interval_s: 600,
            we_refresh: true
        }
    );
    let mut ok = answer(&asked, 200);
    policy.confirm(&mut ok, terms, true);
    assert!(!SessionPolicy::agreed(&ok.headers).unwrap().we_refresh);
    // A peer without timers: whatever was put there by a proxy, the refreshing is ours.
    let foreign = invite_with(&[("Session-Expires", "600;refresher=uac")]);
    assert!(policy.accept(&foreign.headers).unwrap().unwrap().we_refresh);
    assert_eq!(
        policy.accept(&request(Method::Invite, "c", 1).headers),
        Ok(None)
    );
    assert_eq!(
        SessionPolicy::agreed(&request(Method::Invite, "c", 1).headers),
        None
    );
}

#[test]
fn too_small_an_interval_is_422_and_the_next_try_is_larger() {
    let policy = SessionPolicy {
        interval_s: 1800,
        min_s: 300,
    };
    let small = invite_with(&[("k", "timer"), ("x", "120")]);
    assert_eq!(policy.accept(&small.headers), Err(TooSmall { min_se: 300 }));
    let without = invite_with(&[("x", "120")]);
    assert_eq!(
        policy.accept(&without.headers).unwrap().unwrap().interval_s,
        300
    );
    let refused = Response::to(&small, 422).with("Min-SE", "300");
    let caller = SessionPolicy {
        interval_s: 120,
        min_s: 90,
    };
    let second = caller.after_422(&refused).unwrap();
    assert_eq!(second.interval_s, 300);
    assert_eq!(second.after_422(&refused), None, "no endless retries");
    let mut again = request(Method::Invite, "c1", 2);
    second.propose(&mut again, None);
    assert_eq!(again.headers.get("Min-SE").unwrap(), "300");
    assert!(policy.accept(&again.headers).is_ok());
}

#[test]
fn the_timer_refreshes_at_half_and_expires_before_the_end() {
    let start = Instant::now();
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    let terms = SessionTerms {
        interval_s: 90,
        we_refresh: true,
    };
    let mut timer = SessionTimer::start(start, terms);
    assert_eq!(timer.poll_timeout(), Some(at(45)));
    assert_eq!(timer.handle_timeout(at(44)), None);
    assert_eq!(timer.handle_timeout(at(45)), Some(TimerAction::Refresh));
    // 491: tried again a little later, and then it works.
    timer.retry(at(45), Duration::from_secs(3));
    assert_eq!(timer.handle_timeout(at(48)), Some(TimerAction::Refresh));
    timer.refreshed(at(49), terms);
    assert_eq!(timer.poll_timeout(), Some(at(94)));
    assert_eq!(timer.handle_timeout(at(94)), Some(TimerAction::Refresh));
    assert_eq!(
        timer.handle_timeout(at(109)),
        Some(TimerAction::Expired),
        "90 - 30 s after 49"
    );
    assert_eq!(timer.poll_timeout(), None);

    let mut waiting = SessionTimer::start(
        start,
        SessionTerms {
            interval_s: 1800,
            we_refresh: false,
        },
    );
    assert_eq!(waiting.poll_timeout(), Some(at(1768)));
    // Our own refresh (a hold, say) extends it too.
    waiting.refreshed(
        at(1000),
        SessionTerms {
            interval_s: 1800,
            we_refresh: true,
        },
    );
    assert_eq!(waiting.poll_timeout(), Some(at(1900)));
    waiting.stop();
    assert_eq!(waiting.handle_timeout(at(100_000)), None);
}

#[test]
fn a_refresh_keeps_interval_and_roles() {
    let policy = SessionPolicy::default();
    let terms = SessionTerms {
        interval_s: 700,
        we_refresh: true,
    };
    let mut refresh = request(Method::Update, "c1", 2);
    policy.propose(&mut refresh, Some(terms));
    assert_eq!(
        refresh.headers.get("Session-Expires").unwrap(),
        "700;refresher=uac"
    );
    let peer = policy.accept(&refresh.headers).unwrap().unwrap();
    assert_eq!(
        peer,
        SessionTerms {
            interval_s: 700,
            we_refresh: false
        }
    );
    let theirs = SessionTerms {
        interval_s: 700,
        we_refresh: false,
    };
    let mut hold = request(Method::Invite, "c1", 3);
    policy.propose(&mut hold, Some(theirs));
    assert_eq!(
        hold.headers.get("Session-Expires").unwrap(),
        "700;refresher=uas"
    );
}

fn reliable(invite: &Request, tag: &str, rseq: u32) -> Response {
    let mut response = answer(invite, 183)
        .with("Require", "100rel")
        .with("RSeq", rseq.to_string());
    response.set_to_tag(tag);
    response
}

#[test]
fn reliable_provisionals_are_taken_in_order_each_once_per_fork() {
    let invite = request(Method::Invite, "c1", 1);
    let first = reliable(&invite, "x", 100);
    let mut dialog = Dialog::uac(&invite, &first).unwrap();
    assert_eq!(dialog.receive_provisional(&first), Reliability::Acknowledge);
    let prack = dialog.prack(&first).unwrap();
    assert_eq!(prack.headers.rack().unwrap().to_string(), "100 1 INVITE");
    assert_eq!(prack.headers.cseq().unwrap().to_string(), "2 PRACK");
    assert_eq!(dialog.receive_provisional(&first), Reliability::Repeated);
    assert_eq!(
        dialog.receive_provisional(&reliable(&invite, "x", 102)),
        Reliability::OutOfOrder
    );
    assert_eq!(
        dialog.receive_provisional(&reliable(&invite, "x", 101)),
        Reliability::Acknowledge
    );
    let mut plain = answer(&invite, 180);
    plain.set_to_tag("x");
    assert_eq!(dialog.receive_provisional(&plain), Reliability::Plain);
    let other = reliable(&invite, "y", 7);
    let mut fork = Dialog::uac(&invite, &other).unwrap();
    assert_eq!(fork.receive_provisional(&other), Reliability::Acknowledge);
    assert!(fork.prack(&plain).is_err(), "nothing to acknowledge");
}

#[test]
fn a_lost_prack_and_a_lost_183_are_repeated_and_the_call_goes_on() {
    let mut world = World::plain();
    world.drop_first.push(("SIP/2.0 183".into(), 2));
    world.drop_first.push(("PRACK".into(), 2));
    let invite = invite_with(&[("Supported", "100rel")]);
    let (target, now) = (world.target(0), world.now);
    world.ends[0]
        .send_request(now, invite.clone(), &target)
        .unwrap();
    let mut caller: Option<Dialog> = None;
    let mut invite_tx = None;
    let mut pracks = 0;
    let end = world.now + Duration::from_secs(30);
    while let Some(events) = world.step(end) {
        for (side, event) in events {
            let now = world.now;
            match event {
                Event::Request { tx, request, .. } if request.method == Method::Invite => {
                    invite_tx = Some(tx);
                    world.ends[1]
                        .respond_reliably(now, tx, answer(&request, 183))
                        .unwrap();
                }
                Event::Request { tx, request, .. } => {
                    assert_eq!(request.method, Method::Prack);
                    let rack = request.headers.rack().unwrap();
                    let known = world.ends[1].acknowledge_reliable(invite_tx.unwrap(), rack.rseq);
                    assert!(known);
                    pracks += 1;
                    world.ends[1]
                        .respond(now, tx, Response::to(&request, 200))
                        .unwrap();
                }
                Event::Response { response, .. } if side == 0 && response.status == 183 => {
                    let dialog =
                        caller.get_or_insert_with(|| Dialog::uac(&invite, &response).unwrap());
                    if dialog.receive_provisional(&response) == Reliability::Acknowledge {
                        let prack = dialog.prack(&response).unwrap();
                        let target = world.target(0);
                        world.ends[0].send_request(now, prack, &target).unwrap();
                    }
                }
                Event::NoPrack { .. } => panic!("it was acknowledged"),
                _ => {}
            }
        }
    }
    assert_eq!(pracks, 1);
    assert_eq!(world.count(0, "PRACK"), 3);
}

#[test]
fn a_transfer_tells_its_true_outcome() {
    let invite = request(Method::Invite, "c1", 1);
    let mut ok = answer(&invite, 200);
    ok.set_to_tag("b");
    let mut dialog = Dialog::uac(&invite, &ok).unwrap();
    let ringing = dialog.refer_notify(None, 180, None).unwrap();
    assert_eq!(ringing.headers.get("Event").unwrap(), "refer");
    assert!(
        !ringing
            .headers
            .subscription_state()
            .unwrap()
            .unwrap()
            .is_terminated()
    );
    assert_eq!(parse_sipfrag(&ringing.body), Some(180));
    let done = dialog.refer_notify(Some(7), 486, None).unwrap();
    assert_eq!(
        done.headers.event().unwrap().unwrap().params.get("id"),
        Some("7")
    );
    let state = done.headers.subscription_state().unwrap().unwrap();
    assert_eq!(
        (state.is_terminated(), state.reason.as_deref()),
        (true, Some("noresource"))
    );
    assert_eq!(parse_sipfrag(&done.body), Some(486));
    let bounded = dialog
        .refer_notify(None, 100, Some(SubscriptionEnd::Timeout))
        .unwrap();
    assert!(
        bounded
            .headers
            .subscription_state()
            .unwrap()
            .unwrap()
            .is_terminated()
    );
    for bad in [
        "",
        "SIP/2.0",
        "SIP/2.0 99",
        "SIP/2.0 1000 x",
        "HTTP/1.1 200 OK",
    ] {
        assert_eq!(parse_sipfrag(bad.as_bytes()), None, "{bad}");
    }
}

#[test]
fn a_set_keeps_forks_apart_and_carries_the_users_context() {
    let invite = request(Method::Invite, "c1", 1);
    let mut set = DialogSet::new();
    for (tag, context) in [("x", 1), ("y", 2), ("z", 3)] {
        let mut ringing = answer(&invite, 180);
        ringing.set_to_tag(tag);
        set.insert(Dialog::uac(&invite, &ringing).unwrap(), context);
    }
    let mut ok = answer(&invite, 200);
    ok.set_to_tag("y");
    let (dialog, context) = set.of_response(&ok).unwrap();
    dialog.handle_response(&ok);
    *context *= 10;
    let winner = dialog.id();
    let lost: Vec<i32> = set
        .remove_other_forks(&winner)
        .into_iter()
        .map(|end| end.context)
        .collect();
    assert_eq!(lost, [1, 3]);
    assert_eq!(set.len(), 1);
    let (dialog, context) = set.get(&winner).unwrap();
    assert_eq!((dialog.state(), *context), (DialogState::Confirmed, 20));
    // Replaces of a third party finds the dialog by our tag and the peer's.
    let replaces = winner.mirrored().to_replaces();
    assert_eq!(DialogId::of_replaces(&replaces), winner);
    assert!(set.get(&DialogId::of_replaces(&replaces)).is_some());
    assert_eq!(set.remove(&winner).unwrap().context, 20);
    assert!(set.is_empty());
}
