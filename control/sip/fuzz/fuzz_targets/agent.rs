//! Datagrams and time against a user agent that takes every call and answers everything: no
//! panic, and nothing left when all was hung up and time has passed.
#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use trunkline_sip::agent::{Agent, AgentConfig, Body, EventKind, Socket};
use trunkline_sip::message::Headers;
use trunkline_sip::transaction::{FlowId, Path, Transport};

fuzz_target!(|bytes: &[u8]| {
    let local = "192.0.2.2:5060".parse().expect("an address");
    let source = "192.0.2.1:5060".parse().expect("an address");
    let (transport, flow) = (Transport::Udp, FlowId(0));
    let contact = "sip:us@192.0.2.2:5060".parse().expect("a URI");
    let socket = Socket { transport, flow: Some(flow), local };
    let mut config = AgentConfig::new(contact, socket);
    config.transaction.seed = Some(1);
    let mut agent: Agent<()> = Agent::new(config).expect("a Contact");
    let path = Path { transport, flow, local, source };
    let (mut now, none) = (Instant::now(), Headers::new());
    let body = || Some(Body::sdp("v=0\r\nm=audio 9 RTP/AVP 0\r\n"));
    for datagram in bytes.split(|byte| *byte == 0xff) {
        agent.handle_datagram(now, path, datagram);
        while let Some(event) = agent.poll_event() {
            let Some(dialog) = event.dialog else { continue };
            let _ = match event.kind {
                EventKind::Incoming { .. } => {
                    let _ = agent.ring(now, dialog, 183, true, &none, body());
                    agent.accept(now, dialog, &none, None)
                }
                EventKind::Offer { request_handle, .. } => {
                    agent.answer(now, request_handle, 200, &none, body())
                }
                EventKind::Request { request_handle, .. } => {
                    agent.answer(now, request_handle, 200, &none, None)
                }
                EventKind::Refer { request_handle, .. } => {
                    agent.accept_refer(now, request_handle).map(|_| ())
                }
                _ => Ok(()),
            };
        }
        while agent.poll_transmit().is_some() {}
        now += Duration::from_millis(300);
        agent.handle_timeout(now);
    }
    for dialog in agent.dialogs() {
        let _ = agent.hangup(now, dialog, &none);
    }
    for _ in 0..400 {
        now += Duration::from_secs(1);
        agent.handle_timeout(now);
        while agent.poll_transmit().is_some() {}
    }
    assert_eq!(agent.alive(), [0; 4]);
});
