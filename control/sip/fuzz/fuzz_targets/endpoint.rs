//! Datagrams and time against a transaction layer whose user refuses everything: no panic, no
//! more transactions than allowed, nothing left when time has passed.
#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use trunkline_sip::message::Response;
use trunkline_sip::transaction::{Config, Endpoint, Event, FlowId, Path, Transport};

fuzz_target!(|bytes: &[u8]| {
    let config = Config { transactions_max: 8, seed: Some(1), ..Config::default() };
    let mut layer = Endpoint::new(config);
    let mut now = Instant::now();
    let address = "192.0.2.1:5060".parse().expect("an address");
    let (flow, local, source) = (FlowId(0), address, address);
    let path = Path { transport: Transport::Udp, flow, local, source };
    for datagram in bytes.split(|byte| *byte == 0xff) {
        layer.handle_datagram(now, path, datagram);
        while let Some(event) = layer.poll_event() {
            if let Event::Request { tx, request, .. } = event {
                let _ = layer.respond(now, tx, Response::to(&request, 404));
            }
        }
        while layer.poll_transmit().is_some() {}
        assert!(layer.transactions().1 <= 16);
        now += Duration::from_millis(300);
        layer.handle_timeout(now);
    }
    layer.handle_timeout(now + Duration::from_secs(100));
    layer.handle_timeout(now + Duration::from_secs(200));
    assert_eq!(layer.transactions(), (0, 0));
});
