//! Random and mutated messages: no panic, no growth, and calls go on beside them.

mod support;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use sipx_testkit::{rfc4475, rfc5118};
use support::{World, answer, invite_text, request};
use trunkline_sip::message::{
    Message, Method, StreamDecoder, StreamItem, StreamLimits, parse_datagram,
};
use trunkline_sip::transaction::{Config, Endpoint, Event};

/// Messages to begin with.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = rfc4475::CASES
        .iter()
        .map(|case| case.bytes.to_vec())
        .collect();
    seeds.extend(rfc5118::CASES.iter().map(|case| case.wire().to_vec()));
    for method in ["INVITE", "ACK", "CANCEL", "BYE", "PRACK", "NEW"] {
        seeds.push(
            invite_text("z9hG4bKx", "Require: 100rel\r\nReason: Q.850;cause=16\r\n")
                .replace("INVITE", method)
                .into_bytes(),
        );
    }
    seeds
}

/// One message changed in a few places.
fn mutate(random: &mut StdRng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = seeds.choose(random).unwrap().clone();
    for _ in 0..random.random_range(1..6) {
        if bytes.is_empty() {
            break;
        }
        let at = random.random_range(0..bytes.len());
        match random.random_range(0..7) {
            0 => bytes[at] = random.random(),
            1 => bytes[at] = *b"\r\n \t:;,<>\"\\@%=[]\0".choose(random).unwrap(),
            2 => bytes.truncate(at),
            3 => {
                bytes.insert(at, random.random());
            }
            4 => {
                bytes.remove(at);
            }
            5 => {
                let end = random.random_range(at..=bytes.len().min(at + 60));
                let piece = bytes[at..end].to_vec();
                let to = random.random_range(0..=bytes.len());
                bytes.splice(to..to, piece);
            }
            _ => {
                let other = seeds.choose(random).unwrap();
                let from = random.random_range(0..other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
    bytes
}

/// Reads every typed header there is.
fn read_all(message: &Message) {
    let headers = message.headers();
    let _ = (
        headers.vias(),
        headers.from_address(),
        headers.to_address(),
        headers.contacts(),
    );
    let _ = (
        headers.cseq(),
        headers.rack(),
        headers.rseq(),
        headers.call_id(),
        headers.routes(),
    );
    let _ = (
        headers.max_forwards(),
        headers.expires(),
        headers.retry_after(),
        headers.min_se(),
    );
    let _ = (
        headers.content_type(),
        headers.content_disposition(),
        headers.event(),
    );
    let _ = (
        headers.reasons(),
        headers.replaces(),
        headers.session_expires(),
        headers.allow(),
    );
    let _ = (
        headers.subscription_state(),
        headers.auth_values("Authorization"),
    );
    let _ = (
        headers.address("Refer-To"),
        headers.addresses("P-Asserted-Identity"),
    );
    if let Message::Request(request) = message {
        let uri = &request.uri;
        let _ = (
            uri.user_decoded(),
            uri.headers(),
            uri.host_ip(),
            uri.param("lr"),
        );
        assert!(uri.equivalent(uri) || !uri.is_sip(), "{uri}");
        assert_eq!(uri.to_string().parse().as_ref(), Ok(uri));
    }
}

#[test]
fn what_parses_is_kept_and_read_without_a_panic() {
    let seeds = seeds();
    let mut random = StdRng::seed_from_u64(7);
    let mut good = 0;
    for _ in 0..200_000 {
        let bytes = mutate(&mut random, &seeds);
        match parse_datagram(&bytes) {
            Ok(message) => {
                good += 1;
                read_all(&message);
                let again = message.to_bytes();
                assert_eq!(parse_datagram(&again).unwrap().to_bytes(), again);
            }
            Err(rejected) => {
                if let Some(response) = rejected.response("192.0.2.1:5060".parse().unwrap()) {
                    assert!(parse_datagram(&response.to_bytes()).is_ok());
                }
            }
        }
    }
    assert!(
        good > 40_000,
        "the mutations reach behind the lexer: {good}"
    );
}

#[test]
fn a_stream_of_rubbish_stays_within_its_limits() {
    let seeds = seeds();
    let mut random = StdRng::seed_from_u64(8);
    for _ in 0..300 {
        let limits = StreamLimits {
            header_bytes: 4096,
            body_bytes: 4096,
        };
        let mut decoder = StreamDecoder::new(limits);
        'stream: for _ in 0..40 {
            for piece in mutate(&mut random, &seeds).chunks(random.random_range(1..700)) {
                decoder.push(piece);
                while let Some(item) = decoder.next_item() {
                    if matches!(item, StreamItem::Broken(_)) {
                        break 'stream;
                    }
                }
                assert!(decoder.buffered() <= 8192 + 700, "{}", decoder.buffered());
            }
        }
    }
}

#[test]
fn legitimate_calls_go_on_beside_a_flood_and_nothing_grows() {
    let seeds = seeds();
    let mut random = StdRng::seed_from_u64(9);
    let mut world = World::plain();
    world.ends[1] = Endpoint::new(Config {
        transactions_max: 500,
        seed: Some(3),
        ..Config::default()
    });
    let mut answered = 0;
    for round in 0..40 {
        for _ in 0..20_000 {
            let bytes = mutate(&mut random, &seeds);
            let path = world.path(1);
            let now = world.now;
            world.ends[1].handle_datagram(now, path, &bytes);
            while let Some(event) = world.ends[1].poll_event() {
                // As a user would: everything foreign is refused.
                if let Event::Request { tx, request, .. } = event {
                    let _ = world.ends[1].respond(now, tx, answer(&request, 404));
                }
            }
            while world.ends[1].poll_transmit().is_some() {}
            let (clients, servers) = world.ends[1].transactions();
            assert!(clients + servers <= 1000);
        }
        // Time for the flood's transactions to end, then a call.
        world.run(40);
        let (target, now) = (world.target(0), world.now);
        let invite = request(Method::Invite, &format!("good-{round}"), 1);
        let client = world.ends[0].send_request(now, invite, &target).unwrap();
        let (tx, request) = world.until(40, |side, event| match event {
            Event::Request { tx, request, .. } if side == 1 => Some((tx, request)),
            _ => None,
        });
        let now = world.now;
        world.ends[1]
            .respond(now, tx, answer(&request, 486))
            .unwrap();
        answered += world.until(40, |side, event| match event {
            Event::Response { tx, response, .. } if side == 0 && tx == client => {
                Some(usize::from(response.status == 486))
            }
            _ => None,
        });
        world.wire.clear();
    }
    assert_eq!(answered, 40);
    world.run(100);
    assert_eq!(world.ends[1].transactions(), (0, 0));
    assert_eq!(world.ends[1].poll_timeout(), None);
}
