//! Traps that others fell into, each by its name.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use trunkline_sip::agent::{Agent, AgentConfig, EventKind, Socket};
use trunkline_sip::message::{Method, NameAddr, parse_datagram};
use trunkline_sip::transaction::{Config, FlowId, Path, Transport};

use super::net::{Net, Told, address, none, sdp};

/// Drops the first of each message that begins so, then sees it repeated and the call go on.
fn survives(lost: &[&str]) -> Net {
    let mut net = Net::plain();
    for start in lost {
        net.drop_first.push(((*start).to_owned(), 1));
    }
    net.call(7);
    let callee = net.incoming(1);
    let now = net.now;
    net.agents[1]
        .ring(now, callee, 183, true, &none(), None)
        .unwrap();
    net.until("the PRACK", |_, event| {
        matches!(event.kind, EventKind::ProvisionalAcknowledged { .. }).then_some(())
    });
    let now = net.now;
    net.agents[1]
        .accept(now, callee, &none(), Some(sdp(1, "sendrecv")))
        .unwrap();
    net.until("the ACK", |_, event| {
        matches!(event.kind, EventKind::Acknowledged { .. }).then_some(())
    });
    net.finish(1, callee);
    net
}

#[test]
fn a_lost_invite_prack_or_bye_is_repeated() {
    let net = survives(&["INVITE", "PRACK", "BYE"]);
    assert_eq!(
        (
            net.count(0, "INVITE"),
            net.count(0, "PRACK"),
            net.count(1, "BYE")
        ),
        (2, 2, 2)
    );
}

#[test]
fn a_lost_183_200_or_ack_is_repeated() {
    let net = survives(&["SIP/2.0 183", "ACK", "SIP/2.0 200 OK"]);
    // Once by its own timer, once for the repeated INVITE.
    assert_eq!(net.count(1, "SIP/2.0 183"), 3);
    assert!(net.count(0, "ACK") >= 2);
}

#[test]
fn a_lost_cancel_and_a_lost_487_are_repeated() {
    let mut net = Net::plain();
    net.drop_first.push(("CANCEL".to_owned(), 2));
    net.drop_first.push(("SIP/2.0 487".to_owned(), 2));
    let attempt = net.call(7);
    let callee = net.incoming(1);
    let now = net.now;
    net.agents[1]
        .ring(now, callee, 180, false, &none(), None)
        .unwrap();
    let _ = net.idle(1);
    let now = net.now;
    net.agents[0].cancel(now, attempt, &none()).unwrap();
    let events = net.idle(30);
    assert!(events.iter().any(|(_, event)| {
        matches!(
            event.kind,
            EventKind::Failed {
                status: 487,
                cancelled: true,
                ..
            }
        )
    }));
    assert_eq!(
        (net.count(0, "CANCEL"), net.count(1, "SIP/2.0 487")),
        (3, 3)
    );
    net.at_rest();
}

#[test]
fn a_180_after_the_200_is_not_told() {
    let mut net = Net::plain();
    net.call(7);
    let callee = net.incoming(1);
    let now = net.now;
    net.agents[1]
        .ring(now, callee, 180, false, &none(), None)
        .unwrap();
    net.flush();
    let ringing = net.last(1, "SIP/2.0 180");
    let now = net.now;
    net.agents[1]
        .accept(now, callee, &none(), Some(sdp(1, "sendrecv")))
        .unwrap();
    let _ = net.idle(1);
    assert!(net.inject(1, 0, &ringing).is_empty());
    assert!(net.events().is_empty());
    net.finish(1, callee);
}

#[test]
fn a_stray_ack_is_never_answered_nor_told() {
    let mut net = Net::plain();
    let (_, callee) = net.established();
    let ack = net.last(0, "ACK");
    for text in [
        ack.clone(),
        ack.replace("CSeq: 1 ", "CSeq: 9 "),
        ack.replace("Call-ID: ", "Call-ID: x"),
    ] {
        assert!(net.inject(0, 1, &text).is_empty(), "{text}");
    }
    assert!(net.events().is_empty());
    net.finish(1, callee);
}

/// A peer on TLS whose connection broke comes back from another port: its BYE finds the dialog,
/// and our requests take the new connection.
#[test]
fn a_tls_peer_that_connects_anew_from_another_port_is_still_matched() {
    let local = "192.0.2.2:5061".parse().unwrap();
    let socket = Socket {
        transport: Transport::Tls,
        flow: None,
        local,
    };
    let mut config = AgentConfig::new("sips:us@192.0.2.2".parse().unwrap(), socket);
    config.transaction = Config {
        seed: Some(1),
        ..Config::default()
    };
    let mut agent: Agent<()> = Agent::new(config).unwrap();
    let path = |flow: u64, port: u16| Path {
        transport: Transport::Tls,
        flow: FlowId(flow),
        local,
        source: format!("192.0.2.1:{port}").parse().unwrap(),
    };
    let text = |method: &str, cseq: u32, to: &str| {
        format!(
            "{method} sips:us@192.0.2.2 SIP/2.0\r\nVia: SIP/2.0/TLS 192.0.2.1:5061;branch=z9hG4bK{method}{cseq}\r\n\
         Max-Forwards: 70\r\nFrom: <sips:a@192.0.2.1>;tag=a\r\nTo: {to}\r\nCall-ID: c\r\nCSeq: {cseq} {method}\r\n\
         Contact: <sips:a@192.0.2.1:5061>\r\nContent-Length: 0\r\n\r\n"
        )
    };
    let now = std::time::Instant::now();
    let message = |text: &str| parse_datagram(text.as_bytes()).unwrap();
    agent.handle_message(
        now,
        path(7, 40_001),
        message(&text("INVITE", 1, "<sips:us@192.0.2.2>")),
    );
    let dialog = agent.poll_event().unwrap().dialog.unwrap();
    agent
        .accept(now, dialog, &none(), Some(sdp(1, "sendrecv")))
        .unwrap();
    let ok = agent.poll_transmit().unwrap();
    assert_eq!(
        ok.flow,
        Some(FlowId(7)),
        "the answer leaves by the connection of its request"
    );
    let ok = String::from_utf8(ok.bytes.to_vec()).unwrap();
    let to = ok
        .lines()
        .find_map(|line| line.strip_prefix("To: "))
        .unwrap();
    agent.handle_message(now, path(7, 40_001), message(&text("ACK", 1, to)));
    agent.flow_closed(now, FlowId(7), path(7, 40_001).source);
    agent.handle_message(now, path(8, 51_234), message(&text("OPTIONS", 2, to)));
    let answer = agent.poll_transmit().unwrap();
    assert!(answer.bytes.starts_with(b"SIP/2.0 200") && answer.flow == Some(FlowId(8)));
    agent
        .request(now, dialog, Method::Info, &none(), None)
        .unwrap();
    assert_eq!(agent.poll_transmit().unwrap().flow, Some(FlowId(8)));
    agent.handle_message(now, path(9, 51_235), message(&text("BYE", 3, to)));
    let answer = agent.poll_transmit().unwrap();
    assert!(answer.bytes.starts_with(b"SIP/2.0 200") && answer.flow == Some(FlowId(9)));
    assert!(agent.view(dialog).is_err());
}

#[test]
fn to_of_what_we_send_has_neither_a_doubled_tag_nor_a_doubled_port() {
    let mut net = Net::plain();
    let (_, callee) = net.established();
    net.finish(0, net.agents[0].dialogs()[0]);
    let _ = callee;
    for (_, _, text) in &net.wire {
        let to = text.lines().find(|line| line.starts_with("To: ")).unwrap();
        assert!(
            to.matches("tag=").count() <= 1 && to.matches(":5060").count() <= 1,
            "{to}"
        );
        assert!(!text.contains("0.0.0.0"), "{text}");
    }
    assert_eq!(address(1).port(), 5060);
}

/// The messages of whole calls, mutated, against an agent that takes every call and answers
/// everything: no panic, and nothing is left when all was hung up and time has passed.
#[test]
fn mutated_messages_leave_nothing_behind() {
    let mut net = Net::plain();
    let (caller, callee) = net.established();
    let now = net.now;
    net.agents[0]
        .modify(now, caller, &none(), Some(sdp(2, "sendonly")))
        .unwrap();
    net.agents[0].update(now, caller, &none(), None).unwrap();
    net.agents[0]
        .request(now, caller, Method::Info, &none(), None)
        .unwrap();
    let to = NameAddr::new("sip:carol@192.0.2.3".parse().unwrap());
    net.agents[0].refer(now, caller, &to, &none()).unwrap();
    net.run(5, |net, agent, event| {
        take_all(&mut net.agents[agent], net.now, &event)
    });
    assert!(net.agents[1].view(callee).is_ok());
    let seeds: Vec<String> = net.wire.iter().map(|(_, _, text)| text.clone()).collect();
    let mut random = StdRng::seed_from_u64(5);
    let (mut heard, mut calls) = (0, 0);
    for number in 100..20_000 {
        // Another transaction each, half of them of the call, the others of a call of its own.
        let text = &seeds[random.random_range(0..seeds.len())];
        let mut text = text.replace("z9hG4bK", &format!("z9hG4bK{number}"));
        if random.random() {
            text = text.replace("Call-ID: ", &format!("Call-ID: {number}"));
        } else if let Some(at) = text.find("CSeq: ") {
            text.insert_str(at + 6, &number.to_string());
        }
        let mut bytes = text.into_bytes();
        for _ in 0..random.random_range(0..4) {
            let at = random.random_range(0..bytes.len());
            match random.random_range(0..4) {
                0 => bytes[at] = random.random(),
                1 => drop(bytes.drain(at..(at + 9).min(bytes.len()))),
                2 => drop(bytes.splice(at..at, *b"9")),
                _ => bytes.swap(at, 0),
            }
            if bytes.is_empty() {
                break;
            }
        }
        net.deliver(address(0), address(1), &bytes);
        for (agent, event) in net.events() {
            heard += 1;
            calls += usize::from(matches!(event.kind, EventKind::Incoming { .. }));
            take_all(&mut net.agents[agent], net.now, &event);
        }
        while net.agents[1].poll_transmit().is_some() {}
        net.now += std::time::Duration::from_millis(40);
        let now = net.now;
        net.agents[1].handle_timeout(now);
    }
    assert!(
        heard > 1000 && calls > 100,
        "they reach the user: {heard} {calls}"
    );
    for agent in &mut net.agents {
        for dialog in agent.dialogs() {
            let _ = agent.hangup(net.now, dialog, &none());
        }
    }
    net.wire.clear();
    net.at_rest();
}

/// A user that takes on whatever comes.
fn take_all(agent: &mut Agent<u64>, now: std::time::Instant, event: &Told) {
    let Some(dialog) = event.dialog else { return };
    let body = || Some(sdp(1, "sendrecv"));
    let _ = match &event.kind {
        EventKind::Incoming { .. } => {
            let _ = agent.ring(now, dialog, 183, true, &none(), body());
            agent.accept(now, dialog, &none(), None)
        }
        EventKind::Offer { request_handle, .. } => {
            agent.answer(now, *request_handle, 200, &none(), body())
        }
        EventKind::Request { request_handle, .. } => {
            agent.answer(now, *request_handle, 200, &none(), None)
        }
        EventKind::Refer { request_handle, .. } => {
            agent.accept_refer(now, *request_handle).map(|_| ())
        }
        _ => Ok(()),
    };
}
