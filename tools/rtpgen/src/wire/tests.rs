use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use super::search::{Search, Window};
use super::*;
use crate::options::{Io, PayloadKind};

/// A port with `flows * 2` free ones above it, most likely.
fn free(flows: u16) -> SocketAddr {
    for _ in 0..50 {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let port = (socket.local_addr().expect("an address").port() & !1).min(60_000);
        drop(socket);
        let all = |port| UdpSocket::bind(("127.0.0.1", port)).is_ok();
        if (port..port + 2 * flows).all(all) {
            return SocketAddr::new(IpAddr::from([127, 0, 0, 1]), port);
        }
    }
    panic!("no free ports");
}

fn stream_to(to: SocketAddr, flows: u16) -> StreamOptions {
    StreamOptions {
        to,
        flows,
        duration: Duration::from_secs(1),
        rtcp: true,
        ..StreamOptions::default()
    }
}

#[test]
fn what_is_streamed_arrives_at_the_sink() {
    for payload in [PayloadKind::G711, PayloadKind::Opus, PayloadKind::Bytes(20)] {
        let first = free(3);
        let sink_options = SinkOptions {
            listen: first,
            flows: 3,
            ..SinkOptions::default()
        };
        let stop = AtomicBool::new(false);
        let options = StreamOptions {
            payload,
            ..stream_to(first, 3)
        };
        let mut sender = Sender::open(&options).expect("a sender");
        let (sent, heard) =
            search::window(&mut sender, &sink_options, options.duration, &stop).expect("a run");
        assert_eq!((sent.active, heard.active), (3, 3));
        assert_eq!((heard.received, heard.lost), (sent.sent, 0));
        assert!(sent.sent > 100, "{}", sent.sent);
        assert_eq!(heard.latency_ms.count, heard.received);
        let whole = |flow: &FlowResult| flow.rtcp == 1 && flow.malformed == 0;
        assert!(heard.flows.iter().all(whole));
    }
}

#[test]
fn a_dead_target_and_an_interrupt_are_reported() {
    let sent = stream(&stream_to(free(2), 2), &AtomicBool::new(false)).expect("a report");
    assert!(sent.sent + sent.send_errors > 80, "{sent:?}");
    let stopped = stream(&stream_to(free(2), 2), &AtomicBool::new(true)).expect("a report");
    assert!(stopped.interrupted && stopped.sent == 0);
    let text = stopped.to_text();
    assert!(text.contains("interrupted"), "{text}");
}

#[test]
fn a_rate_beyond_the_machine_is_the_generators_limit() {
    let options = StreamOptions {
        rate: Some(1e9),
        io: Io::Socket,
        ..stream_to(free(4), 4)
    };
    let sent = stream(&options, &AtomicBool::new(false)).expect("a report");
    assert!(sent.generator.limited, "{:?}", sent.generator);
}

#[test]
fn ports_beyond_the_last_are_an_error() {
    let first: SocketAddr = "127.0.0.1:65534".parse().expect("an address");
    assert_eq!(ports(first, 1).expect("one port"), [65534]);
    assert!(ports(first, 2).is_err());
}

#[test]
fn a_frame_comes_back_as_it_was_written() {
    let mut bytes = vec![0; frame::HEAD_BYTES + 5];
    let macs = frame::Macs {
        from: [1; 6],
        to: [2; 6],
    };
    let (from, to) = ("192.0.2.1:7".parse(), "192.0.2.2:9000".parse());
    let (from, to) = (from.expect("an address"), to.expect("an address"));
    let head = bytes.first_chunk_mut().expect("a head");
    frame::write_head(head, macs, from, to, 5);
    let sum: u32 = bytes[14..34]
        .chunks(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "IPv4 checksum");
    assert_eq!(frame::read(&bytes), Some((to, &[0; 5][..])));
    assert_eq!(frame::read(&bytes[..bytes.len() - 1]), None);
}

/// A system that delivers so much and no more, and a generator with a limit of its own.
fn found(edge: f64, generator: f64) -> search::Edge {
    let measure = |rate: f64| {
        let delivered = rate.min(edge);
        Ok::<_, ()>(Some(Window {
            rate,
            sent: rate as u64,
            delivered: delivered as u64,
            loss: 1.0 - delivered / rate,
            limited: rate > generator,
        }))
    };
    Search::default().run(measure).expect("an edge")
}

#[test]
fn the_edge_is_found_to_a_twentieth() {
    for edge in [3_000.0, 10_500.0, 160_000.0, 421_000.0] {
        let found = found(edge, 1e9);
        assert!(!found.generator_limited);
        assert!(
            (0.94..=1.0011).contains(&(found.rate / edge)),
            "{edge}: {found:?}"
        );
    }
    let limited = found(1e9, 300_000.0);
    assert!(limited.generator_limited);
    assert!(
        (270_000.0..=300_000.0).contains(&limited.rate),
        "{limited:?}"
    );
}
