//! Who is accepted, and where media is sent.

mod lab;

use lab::*;
use trunkline_engine::{Event, LegFlags, MediaKind, Side};

/// Port of the caller that its SDP does not name.
fn caller_elsewhere() -> std::net::SocketAddr {
    address("192.0.2.1:9999")
}

fn nobody_known() -> std::net::SocketAddr {
    address("203.0.113.9:4000")
}

#[test]
fn the_advertised_address_is_accepted_at_once() {
    let mut lab = Lab::call();
    let packet = Rtp::new(1, 10);
    let sent = lab.rtp(Side::Caller, &packet);
    assert_eq!(
        sent,
        [Sent {
            slot: 2,
            to: party(Side::Callee),
            bytes: packet.bytes()
        }]
    );
    let sent = lab.rtp(Side::Callee, &packet);
    assert_eq!(
        sent,
        [Sent {
            slot: 0,
            to: party(Side::Caller),
            bytes: packet.bytes()
        }]
    );
    assert_eq!(lab.strangers(), 0);
    assert_eq!(lab.engine.counters().latched, 0);
}

#[test]
fn a_new_flow_accepts_nobody_before_its_signalling() {
    let mut lab = Lab::bare(MediaKind::Audio);
    lab.talk(Side::Caller, party(Side::Caller), &mut Rtp::new(1, 10), 10);
    lab.arrive(1, address("192.0.2.1:5005"), &sender_report(1, 2, 3, 4));
    assert_eq!(lab.strangers(), 11);
    assert!(lab.log.sent.is_empty());
    lab.arrive(40, party(Side::Caller), &Rtp::new(1, 1).bytes());
    lab.arrive(4000, party(Side::Caller), &Rtp::new(1, 1).bytes());
    assert_eq!(lab.engine.counters().no_flow, 2);
}

#[test]
fn another_port_of_the_same_host_is_learnt_and_loses_nothing() {
    let mut lab = Lab::call();
    let mut stream = Rtp::new(5, 65_534);
    assert_eq!(
        lab.talk(Side::Caller, caller_elsewhere(), &mut stream, 2),
        []
    );
    let sent = lab.talk(Side::Caller, caller_elsewhere(), &mut stream, 1);
    let numbers: Vec<_> = sent
        .iter()
        .map(|sent| Rtp::read(&sent.bytes).sequence)
        .collect();
    assert_eq!(numbers, [65_534, 65_535, 0]);
    assert_eq!(
        lab.talk(Side::Caller, caller_elsewhere(), &mut stream, 1)
            .len(),
        1
    );
    // Media to the caller goes to where its media comes from.
    assert_eq!(
        lab.rtp(Side::Callee, &Rtp::new(6, 1))[0].to,
        caller_elsewhere()
    );
    assert_eq!(lab.strangers(), 0);
    assert_eq!(lab.engine.counters().latched, 1);
    assert!(lab.log.events.contains(&Event::EndpointLearned {
        session: SESSION,
        media: 0,
        side: Side::Caller,
        rtcp: false,
        address: caller_elsewhere(),
    }));
}

#[test]
fn the_signalling_peers_address_may_be_learnt() {
    let mut lab = Lab::call();
    let mut spec = leg(Side::Caller);
    spec.rtp = Some(address("10.0.0.5:4000"));
    lab.update(&spec);
    assert_eq!(
        lab.talk(Side::Caller, caller_elsewhere(), &mut Rtp::new(5, 1), 3)
            .len(),
        3
    );
}

#[test]
fn any_address_is_learnt_with_nat_only() {
    for nat in [false, true] {
        let mut lab = Lab::call();
        let mut spec = leg(Side::Caller);
        spec.flags.nat = nat;
        lab.update(&spec);
        let sent = lab.talk(Side::Caller, nobody_known(), &mut Rtp::new(5, 1), 10);
        assert_eq!(sent.len(), if nat { 10 } else { 0 });
        assert_eq!(lab.strangers(), if nat { 0 } else { 10 });
    }
}

#[test]
fn the_window_ends_after_five_seconds_and_signalling_opens_it_again() {
    let mut lab = Lab::call();
    let mut stream = Rtp::new(5, 1);
    lab.wait(5 * SECOND);
    assert_eq!(
        lab.talk(Side::Caller, caller_elsewhere(), &mut stream, 10),
        []
    );
    assert_eq!(lab.strangers(), 10);
    // Anything but an offer or answer leaves it shut.
    let mut spec = leg(Side::Caller);
    spec.flags.learn = false;
    lab.update(&spec);
    assert_eq!(
        lab.talk(Side::Caller, caller_elsewhere(), &mut stream, 10),
        []
    );
    lab.update(&leg(Side::Caller));
    assert_eq!(
        lab.talk(Side::Caller, caller_elsewhere(), &mut stream, 10)
            .len(),
        10
    );
}

#[test]
fn probation_wants_order_one_ssrc_and_a_negotiated_payload_type() {
    let packet = |ssrc, sequence, pt| Rtp {
        pt,
        ..Rtp::new(ssrc, sequence)
    };
    let cases: [(&str, Vec<Rtp>, usize); 6] = [
        (
            "in order",
            vec![packet(1, 1, 0), packet(1, 2, 0), packet(1, 3, 101)],
            3,
        ),
        (
            "a gap",
            vec![packet(1, 1, 0), packet(1, 2, 0), packet(1, 4, 0)],
            0,
        ),
        (
            "two SSRCs",
            vec![packet(1, 1, 0), packet(2, 2, 0), packet(1, 3, 0)],
            0,
        ),
        (
            "a strange payload type",
            vec![packet(1, 1, 0), packet(1, 2, 0), packet(1, 3, 33)],
            0,
        ),
        (
            "repeated",
            vec![packet(1, 1, 0), packet(1, 1, 0), packet(1, 1, 0)],
            0,
        ),
        (
            "in order after all",
            vec![
                packet(1, 9, 0),
                packet(1, 2, 0),
                packet(1, 3, 0),
                packet(1, 4, 0),
            ],
            3,
        ),
    ];
    for (name, packets, relayed) in cases {
        let mut lab = Lab::call();
        let count = packets.len();
        let sent: usize = packets
            .iter()
            .map(|p| lab.rtp_from(Side::Caller, caller_elsewhere(), p).len())
            .sum();
        assert_eq!(sent, relayed, "{name}");
        lab.housekeeping_until(lab.now_ns + 2 * SECOND);
        assert_eq!(lab.strangers() as usize, count - relayed, "{name}");
    }
}

#[test]
fn whatever_a_stranger_sends_is_counted_as_a_strangers() {
    let mut lab = Lab::call();
    lab.talk(Side::Caller, party(Side::Caller), &mut Rtp::new(1, 1), 3);
    let everything: [&[u8]; 6] = [
        &[],
        &[0x80],
        &Rtp::new(1, 4).bytes(),
        &sender_report(1, 2, 3, 4),
        &[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42],
        &[0xff; 1500],
    ];
    for (index, bytes) in everything.iter().enumerate() {
        for slot in [0, 1] {
            assert_eq!(lab.arrive_cut(slot, nobody_known(), bytes, index == 5), []);
        }
    }
    assert_eq!(lab.strangers(), 12);
    let counters = lab.engine.counters();
    assert_eq!(
        (counters.malformed, counters.truncated, counters.rtcp_in),
        (0, 0, 0)
    );
}

#[test]
fn a_speaking_source_is_not_displaced() {
    let mut lab = Lab::call();
    let (mut own, mut other) = (Rtp::new(1, 1), Rtp::new(2, 1));
    for _ in 0..50 {
        assert_eq!(lab.rtp(Side::Caller, &own).len(), 1);
        assert_eq!(
            lab.rtp_from(Side::Caller, caller_elsewhere(), &other).len(),
            0
        );
        own.advance();
        other.advance();
        lab.wait(20 * MS);
    }
    lab.housekeeping_until(lab.now_ns + 2 * SECOND);
    assert_eq!(lab.strangers(), 50);
}

#[test]
fn two_candidates_do_not_keep_each_other_out() {
    let mut lab = Lab::call();
    let mut spec = leg(Side::Caller);
    spec.flags.nat = true;
    spec.rtp = Some(address("10.0.0.5:4000"));
    lab.update(&spec);
    let (mut own, mut other) = (Rtp::new(1, 1), Rtp::new(2, 1));
    let mut relayed = 0;
    for _ in 0..5 {
        relayed += lab.rtp_from(Side::Caller, caller_elsewhere(), &own).len();
        lab.rtp_from(Side::Caller, nobody_known(), &other);
        own.advance();
        other.advance();
    }
    assert_eq!(relayed, 5, "the first to show three packets wins and stays");
}

#[test]
fn a_source_that_moves_is_followed_when_it_goes_on_after_a_silence() {
    for (silence, ssrc, jump, followed) in [
        (SECOND, 1, 50, true),
        (SECOND, 1, 0, true),
        (SECOND / 2, 1, 25, false),
        (SECOND, 2, 50, false),
        (SECOND, 1, 30_000, false),
    ] {
        let mut lab = Lab::call();
        lab.wait(10 * SECOND);
        let mut stream = Rtp::new(1, 1);
        lab.talk(Side::Caller, party(Side::Caller), &mut stream, 100);
        lab.wait(silence);
        stream.ssrc = ssrc;
        stream.sequence += jump;
        let sent = lab.rtp_from(Side::Caller, nobody_known(), &stream);
        assert_eq!(sent.len(), usize::from(followed), "{silence} {ssrc} {jump}");
        if followed {
            assert_eq!(sent[0].bytes, stream.bytes(), "nothing to renumber");
            assert_eq!(lab.rtp(Side::Callee, &Rtp::new(9, 1))[0].to, nobody_known());
        }
    }
}

#[test]
fn a_new_address_in_signalling_is_sent_to_at_once_and_the_old_one_heard_until_it_speaks() {
    let mut lab = Lab::call();
    let mut stream = Rtp::new(1, 1);
    lab.talk(Side::Caller, party(Side::Caller), &mut stream, 5);
    let moved = address("192.0.2.77:7000");
    let mut spec = leg(Side::Caller);
    spec.rtp = Some(moved);
    lab.update(&spec);
    assert_eq!(lab.rtp(Side::Callee, &Rtp::new(9, 1))[0].to, moved);
    assert_eq!(
        lab.talk(Side::Caller, party(Side::Caller), &mut stream, 2)
            .len(),
        2
    );
    assert_eq!(lab.rtp_from(Side::Caller, moved, &Rtp::new(4, 4)).len(), 1);
    lab.wait(6 * SECOND);
    assert_eq!(
        lab.talk(Side::Caller, party(Side::Caller), &mut stream, 2),
        []
    );
    assert_eq!(lab.strangers(), 2);
}

#[test]
fn an_address_that_signalling_gave_up_is_forgotten_after_the_window() {
    let mut lab = Lab::call();
    let mut stream = Rtp::new(1, 1);
    lab.talk(Side::Caller, party(Side::Caller), &mut stream, 5);
    let mut spec = leg(Side::Caller);
    spec.rtp = Some(address("203.0.113.77:7000"));
    lab.update(&spec);
    assert_eq!(
        lab.talk(Side::Caller, party(Side::Caller), &mut stream, 5)
            .len(),
        5
    );
    lab.wait(6 * SECOND);
    // The signalling still comes from there: a party may move its receiver alone.
    assert_eq!(
        lab.talk(Side::Caller, party(Side::Caller), &mut stream, 5)
            .len(),
        5
    );
    assert_eq!(
        lab.rtp(Side::Callee, &Rtp::new(9, 1))[0].to,
        address("203.0.113.77:7000")
    );
    spec.rtp = Some(address("203.0.113.78:7000"));
    spec.signalling = Some("203.0.113.78".parse().unwrap());
    lab.update(&spec);
    assert_eq!(
        lab.talk(Side::Caller, party(Side::Caller), &mut stream, 5)
            .len(),
        5
    );
    lab.wait(6 * SECOND);
    assert_eq!(
        lab.talk(Side::Caller, party(Side::Caller), &mut stream, 5)
            .len(),
        0
    );
}

#[test]
fn hold_keeps_what_was_learnt() {
    let mut lab = Lab::call();
    let mut stream = Rtp::new(1, 1);
    lab.talk(Side::Caller, caller_elsewhere(), &mut stream, 5);
    let held = {
        let mut spec = leg(Side::Caller);
        spec.rtp = None;
        spec.flags = LegFlags {
            learn: true,
            ..LegFlags::default()
        };
        spec
    };
    lab.update(&held);
    assert_eq!(lab.rtp(Side::Callee, &Rtp::new(9, 1)), []);
    assert_eq!(lab.engine.counters().not_sent, 1);
    lab.wait(20 * SECOND);
    lab.update(&leg(Side::Caller));
    assert_eq!(
        lab.rtp(Side::Callee, &Rtp::new(9, 2))[0].to,
        caller_elsewhere()
    );
    assert_eq!(
        lab.talk(Side::Caller, caller_elsewhere(), &mut stream, 1)
            .len(),
        1
    );
}

#[test]
fn rtcp_is_taken_from_the_advertised_port_and_the_learnt_host() {
    let report = sender_report(1, 2, 3, 4);
    let mut lab = Lab::call();
    let sent = lab.arrive(1, address("192.0.2.1:5005"), &report);
    assert_eq!(
        sent[0].to,
        address("198.51.100.1:6005"),
        "the next port by default"
    );
    assert_eq!(sent[0].slot, 3);
    // Another port of a host that has not been heard yet, and another host.
    assert_eq!(lab.arrive(3, address("198.51.100.1:7777"), &report), []);
    assert_eq!(lab.arrive(1, nobody_known(), &report), []);
    assert_eq!(lab.strangers(), 2);
    lab.rtp(Side::Callee, &Rtp::new(3, 3));
    assert_eq!(
        lab.arrive(3, address("198.51.100.1:7777"), &[1, 2, 3]),
        [],
        "not RTCP"
    );
    assert_eq!(
        lab.arrive(3, address("198.51.100.1:7777"), &report).len(),
        1
    );
    assert_eq!(lab.strangers(), 3);
    // From now on that is where the callee's reports go.
    let sent = lab.arrive(1, address("192.0.2.1:5005"), &report);
    assert_eq!(sent[0].to, address("198.51.100.1:7777"));
}

#[test]
fn an_explicit_rtcp_address_is_used_both_ways() {
    let mut lab = Lab::call();
    let mut spec = leg(Side::Callee);
    spec.rtcp = Some(address("198.51.100.2:9000"));
    lab.update(&spec);
    let report = sender_report(1, 2, 3, 4);
    assert_eq!(
        lab.arrive(1, address("192.0.2.1:5005"), &report)[0].to,
        address("198.51.100.2:9000")
    );
    assert_eq!(
        lab.arrive(3, address("198.51.100.2:9000"), &report).len(),
        1
    );
}

#[test]
fn version_six_and_mapped_version_four_addresses_are_accepted() {
    let mut lab = Lab::call();
    let mut caller = leg(Side::Caller);
    caller.rtp = Some(address("[2001:db8::1]:5004"));
    lab.update(&caller);
    let mut callee = leg(Side::Callee);
    callee.rtp = Some(address("[::ffff:198.51.100.1]:6004"));
    lab.update(&callee);
    let packet = Rtp::new(1, 1);
    let sent = lab.rtp_from(Side::Caller, address("[2001:db8::1]:5004"), &packet);
    assert_eq!(sent[0].to, party(Side::Callee));
    let mapped = address("[::ffff:198.51.100.1]:6004");
    assert_eq!(
        lab.rtp_from(Side::Callee, mapped, &packet)[0].to,
        address("[2001:db8::1]:5004")
    );
    assert_eq!(
        lab.arrive(1, address("[2001:db8::1]:5005"), &sender_report(1, 2, 3, 4))
            .len(),
        1
    );
}

#[test]
fn candidates_without_room_are_strangers_and_room_comes_back() {
    let mut lab = Lab::call();
    let limits = trunkline_engine::Limits {
        slots_max: 64,
        sessions_max: 16,
        probations_max: 1,
    };
    lab.engine = trunkline_engine::Engine::new(limits);
    let media = vec![trunkline_engine::MediaSpec {
        kind: MediaKind::Audio,
        slots: SLOTS,
    }];
    let spec = trunkline_engine::SessionSpec {
        session: SESSION,
        media_timeout_ns: 0,
        media,
    };
    lab.engine.add_session(lab.now_ns, &spec).unwrap();
    for side in Side::BOTH {
        lab.update(&leg(side));
    }
    lab.rtp_from(Side::Caller, caller_elsewhere(), &Rtp::new(1, 1));
    let callee = address("198.51.100.1:9");
    lab.talk(Side::Callee, callee, &mut Rtp::new(2, 1), 3);
    assert_eq!(lab.strangers(), 3);
    lab.housekeeping_until(lab.now_ns + 2 * SECOND);
    assert_eq!(lab.strangers(), 4, "the candidate that sent no more");
    assert_eq!(
        lab.talk(Side::Callee, callee, &mut Rtp::new(2, 50), 3)
            .len(),
        3
    );
    assert_eq!(
        lab.engine.next_deadline_ns().map(|at| at > lab.now_ns),
        Some(true)
    );
    lab.housekeeping_until(lab.now_ns + 2 * SECOND);
    assert_eq!(lab.engine.next_deadline_ns(), None, "nothing to do by time");
}

#[test]
fn datagrams_of_a_fax_are_latched_too() {
    let mut lab = Lab::bare(MediaKind::OpaqueDatagram);
    for side in Side::BOTH {
        lab.update(&leg(side));
    }
    let fax = |number: u16| [&number.to_be_bytes()[..], b"t38"].concat();
    assert_eq!(lab.arrive(0, party(Side::Caller), &fax(0))[0].bytes, fax(0));
    let mut sent = Vec::new();
    for number in 0..4 {
        sent.extend(lab.arrive(2, address("198.51.100.1:9"), &fax(number)));
    }
    assert_eq!(sent.len(), 4);
    assert_eq!(
        lab.arrive(0, party(Side::Caller), &fax(1))[0].to,
        address("198.51.100.1:9")
    );
    assert_eq!(lab.arrive(0, nobody_known(), &fax(1)), []);
    assert_eq!(
        lab.arrive(1, party(Side::Caller), &fax(1)),
        [],
        "no RTCP beside it"
    );
    assert_eq!(lab.strangers(), 2);
    assert_eq!(lab.engine.counters().opaque_in, 6);
    assert_eq!(lab.engine.counters().opaque_out, 6);
}
