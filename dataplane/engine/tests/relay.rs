//! What the far end hears of an accepted source.

mod lab;

use lab::*;
use trunkline_engine::{
    Codec, Event, FrameKind, LegFlags, MediaKind, MediaSpec, PayloadSpec, PortSlots, SessionSpec,
    Side, StreamStats,
};

fn stats(lab: &Lab, side: Side) -> Vec<StreamStats> {
    let mut out = Vec::new();
    lab.engine.stream_stats(SESSION, 0, side, &mut out);
    out
}

#[test]
fn duplicates_late_packets_and_restarts_are_relayed_as_they_come() {
    let mut lab = Lab::call();
    let numbers = [10, 11, 11, 13, 12, 40_000, 40_001, 3, 40_002];
    for number in numbers {
        let packet = Rtp::new(1, number);
        assert_eq!(lab.rtp(Side::Caller, &packet)[0].bytes, packet.bytes());
    }
    let stats = stats(&lab, Side::Caller);
    assert_eq!(stats.len(), 1);
    assert_eq!(
        (stats[0].packets, stats[0].duplicates, stats[0].reordered),
        (9, 1, 1)
    );
    assert_eq!(stats[0].lost, 0);
    assert_eq!(stats[0].bytes, 9 * 172);
}

#[test]
fn losses_and_jitter_are_counted_as_rfc_3550_says() {
    let mut lab = Lab::call();
    let mut packet = Rtp::new(1, 65_500);
    for index in 0..1000_u64 {
        if index % 10 != 5 {
            lab.rtp(Side::Caller, &packet);
        }
        packet.advance();
        // Every other packet 5 ms late: a mean deviation of 40 ticks.
        lab.wait(if index % 2 == 0 { 25 * MS } else { 15 * MS });
    }
    let stats = stats(&lab, Side::Caller)[0];
    assert_eq!((stats.packets, stats.lost, stats.duplicates), (900, 100, 0));
    assert_eq!(stats.highest, 65_500 + 999);
    assert!((25..=45).contains(&stats.jitter), "{}", stats.jitter);
    assert_eq!(stats.clock_hz, 8000);
}

#[test]
fn payload_types_are_mapped_both_ways_and_strange_ones_pass() {
    let mut lab = Lab::call();
    let payload = |pt, to_pt| PayloadSpec {
        pt,
        to_pt,
        codec: Codec::Opus,
        clock_hz: 48_000,
    };
    let mut caller = leg(Side::Caller);
    caller.payloads = vec![payload(96, 111)];
    lab.update(&caller);
    let mut callee = leg(Side::Callee);
    callee.payloads = vec![payload(111, 96)];
    lab.update(&callee);
    let packet = |pt| Rtp {
        pt,
        marker: true,
        ..Rtp::new(1, 1)
    };
    let heard = |lab: &mut Lab, side, pt| Rtp::read(&lab.rtp(side, &packet(pt))[0].bytes);
    assert_eq!(
        heard(&mut lab, Side::Caller, 96).bytes(),
        packet(111).bytes()
    );
    assert_eq!(
        heard(&mut lab, Side::Callee, 111).bytes(),
        packet(96).bytes()
    );
    assert_eq!(
        heard(&mut lab, Side::Caller, 13).bytes(),
        packet(13).bytes()
    );
    assert_eq!(lab.engine.counters().unknown_payload, 1);
}

#[test]
fn renegotiation_takes_effect_at_the_packet() {
    let mut lab = Lab::call();
    lab.rtp(Side::Caller, &Rtp::new(1, 1));
    let mut caller = leg(Side::Caller);
    caller.payloads = vec![PayloadSpec {
        pt: 0,
        to_pt: 8,
        codec: Codec::Pcmu,
        clock_hz: 8000,
    }];
    lab.update(&caller);
    assert_eq!(
        Rtp::read(&lab.rtp(Side::Caller, &Rtp::new(1, 2))[0].bytes).pt,
        8
    );
}

#[test]
fn a_muted_side_is_heard_as_silence_and_recorded_as_it_spoke() {
    let mut lab = Lab::call();
    let mut spec = leg(Side::Caller);
    spec.flags.mute = true;
    lab.update(&spec);
    lab.engine.start_tap(SESSION, 3).unwrap();
    let audio = Rtp::new(1, 1);
    let sent = lab.rtp(Side::Caller, &audio);
    assert_eq!(sent[0].bytes[..12], audio.bytes()[..12]);
    assert_eq!(sent[0].bytes[12..], [0xff; 160]);
    let digit = Rtp {
        pt: 101,
        payload: vec![1, 10, 0, 160],
        ..Rtp::new(1, 2)
    };
    assert_eq!(lab.rtp(Side::Caller, &digit), []);
    let counters = *lab.engine.counters();
    assert_eq!((counters.muted, counters.mute_withheld), (1, 1));
    let recorded: Vec<_> = lab
        .log
        .frames
        .iter()
        .map(|(_, _, bytes)| bytes.clone())
        .collect();
    assert_eq!(recorded, [audio.payload, digit.payload]);
    assert_eq!(
        lab.rtp(Side::Callee, &Rtp::new(2, 1))[0].bytes[12..],
        [0x55; 160]
    );
}

#[test]
fn a_party_that_does_not_receive_is_sent_reports_only() {
    let mut lab = Lab::call();
    let mut spec = leg(Side::Callee);
    spec.flags.may_send = false;
    lab.update(&spec);
    assert_eq!(lab.rtp(Side::Caller, &Rtp::new(1, 1)), []);
    assert_eq!(lab.engine.counters().not_sent, 1);
    let sent = lab.arrive(1, address("192.0.2.1:5005"), &sender_report(1, 2, 3, 4));
    assert_eq!(sent.len(), 1);
    lab.update(&leg(Side::Callee));
    assert_eq!(lab.rtp(Side::Caller, &Rtp::new(1, 2)).len(), 1);
}

#[test]
fn one_side_may_multiplex_and_the_other_not() {
    let mut lab = Lab::call();
    let mut spec = leg(Side::Caller);
    spec.flags.rtcp_mux = true;
    lab.update(&spec);
    let report = sender_report(1, 2, 3, 4);
    let sent = lab.arrive(0, party(Side::Caller), &report);
    assert_eq!(sent[0].to, address("198.51.100.1:6005"));
    assert_eq!((sent[0].slot, &sent[0].bytes), (3, &report));
    let sent = lab.arrive(3, address("198.51.100.1:6005"), &report);
    assert_eq!((sent[0].slot, sent[0].to), (0, party(Side::Caller)));
    assert_eq!(lab.engine.counters().rtcp_in, 2);
    assert_eq!(lab.engine.counters().rtp_in, 0);
}

#[test]
fn a_marked_packet_of_a_payload_type_like_rtcp_stays_rtp_without_multiplexing() {
    let mut lab = Lab::call();
    let mut spec = leg(Side::Caller);
    spec.payloads[0].pt = 72;
    lab.update(&spec);
    let packet = Rtp {
        pt: 72,
        marker: true,
        ..Rtp::new(1, 1)
    };
    assert_eq!(packet.bytes()[1], 200);
    assert_eq!(lab.rtp(Side::Caller, &packet).len(), 1);
    assert_eq!(lab.engine.counters().rtp_in, 1);
    // What was not negotiated and looks like RTCP is RTCP, multiplexing or not.
    lab.arrive(0, party(Side::Caller), &[0x80, 201, 0, 1, 0, 0, 0, 1]);
    assert_eq!(lab.engine.counters().rtcp_in, 1);
}

#[test]
fn what_is_neither_is_counted_and_dropped() {
    let mut lab = Lab::call();
    let whole = Rtp::new(1, 1).bytes();
    let garbage: [&[u8]; 5] = [
        &[],
        &[0x80, 0, 1],
        &whole[..11],
        &[0; 40],
        &[0x80, 200, 9, 9],
    ];
    for bytes in garbage {
        assert_eq!(lab.arrive(0, party(Side::Caller), bytes), []);
    }
    assert_eq!(lab.arrive(1, address("192.0.2.1:5005"), &whole), []);
    assert_eq!(lab.engine.counters().malformed, 6);
    assert_eq!(
        lab.arrive_cut(0, party(Side::Caller), &[0x80; 2048], true),
        []
    );
    assert_eq!(lab.engine.counters().truncated, 1);
    assert_eq!(lab.strangers(), 0);
}

#[test]
fn a_port_passes_twenty_thousand_packets_a_second() {
    let mut lab = Lab::call();
    lab.engine.start_tap(SESSION, 0).unwrap();
    let mut packet = Rtp::new(1, 1);
    let mut relayed = 0;
    for _ in 0..40_000 {
        relayed += lab.rtp(Side::Caller, &packet).len();
        packet.advance();
        lab.wait(SECOND / 40_000);
    }
    assert!((19_900..=20_100).contains(&relayed), "{relayed}");
    let capped = lab.engine.counters().rate_capped;
    assert_eq!(relayed as u64 + capped, 40_000);
    let receipt = lab.receipts()[0];
    assert_eq!((receipt.expected, receipt.lost), (40_000, 0));
    assert_eq!(receipt.dropped[6], capped);
    // The other port is not affected.
    assert_eq!(lab.rtp(Side::Callee, &Rtp::new(2, 1)).len(), 1);
}

#[test]
fn a_fifth_ssrc_takes_the_place_of_the_one_idle_longest() {
    let mut lab = Lab::call();
    for ssrc in 1..=4 {
        lab.talk(Side::Caller, party(Side::Caller), &mut Rtp::new(ssrc, 1), 2);
    }
    lab.talk(Side::Caller, party(Side::Caller), &mut Rtp::new(1, 3), 1);
    assert_eq!(lab.engine.counters().ssrc_evicted, 0);
    lab.talk(Side::Caller, party(Side::Caller), &mut Rtp::new(5, 1), 1);
    assert_eq!(lab.engine.counters().ssrc_evicted, 1);
    let mut known: Vec<u32> = stats(&lab, Side::Caller)
        .iter()
        .map(|stream| stream.ssrc)
        .collect();
    known.sort_unstable();
    assert_eq!(known, [1, 3, 4, 5]);
    assert_eq!(lab.log.sent.len(), 10, "all were relayed");
    assert!(
        lab.log
            .sent
            .iter()
            .all(|sent| Rtp::read(&sent.bytes).ssrc <= 5)
    );
}

#[test]
fn video_is_relayed_blind_and_recorded_as_datagrams() {
    let mut lab = Lab::bare(MediaKind::OpaqueRtp);
    for side in Side::BOTH {
        lab.update(&leg(side));
    }
    lab.engine.start_tap(SESSION, 3).unwrap();
    let packet = Rtp {
        pt: 34,
        marker: true,
        ..Rtp::new(9, 1)
    };
    assert_eq!(lab.rtp(Side::Caller, &packet)[0].bytes, packet.bytes());
    let strange = [0x16, 0xfe, 0xff, 0, 1];
    assert_eq!(
        lab.arrive(0, party(Side::Caller), &strange)[0].bytes,
        strange
    );
    let frames = &lab.log.frames;
    assert!(
        frames
            .iter()
            .all(|(tap, frame, _)| (*tap, frame.kind) == (3, FrameKind::Opaque))
    );
    assert_eq!(
        (&frames[0].2, &frames[1].2[..]),
        (&packet.bytes(), &strange[..])
    );
    assert_eq!(frames[0].1.ssrc, 9);
    assert!(lab.receipts().is_empty(), "only audio is in the receipt");
}

#[test]
fn a_silent_side_that_should_send_is_reported_once() {
    let mut lab = Lab::bare(MediaKind::Audio);
    lab.engine.remove_session(SESSION).unwrap();
    let media = vec![MediaSpec {
        kind: MediaKind::Audio,
        slots: SLOTS,
    }];
    let spec = SessionSpec {
        session: SESSION,
        media_timeout_ns: 10 * SECOND,
        media,
    };
    lab.engine.add_session(lab.now_ns, &spec).unwrap();
    assert_eq!(lab.engine.next_deadline_ns(), None);
    lab.update(&leg(Side::Caller));
    let mut silent = leg(Side::Callee);
    silent.flags = LegFlags {
        may_send: true,
        ..LegFlags::default()
    };
    lab.update(&silent);
    let start = lab.now_ns;
    let timeout = Event::MediaTimeout {
        session: SESSION,
        side: Side::Caller,
    };
    let timeouts = |lab: &Lab| {
        lab.log
            .events
            .iter()
            .filter(|event| **event == timeout)
            .count()
    };
    lab.housekeeping_until(start + 9 * SECOND);
    assert_eq!(timeouts(&lab), 0);
    // A report is life.
    lab.arrive(1, address("192.0.2.1:5005"), &sender_report(1, 2, 3, 4));
    lab.housekeeping_until(start + 18 * SECOND);
    assert_eq!(timeouts(&lab), 0);
    lab.housekeeping_until(start + 60 * SECOND);
    assert_eq!(timeouts(&lab), 1);
    lab.rtp(Side::Caller, &Rtp::new(1, 1));
    lab.housekeeping_until(start + 120 * SECOND);
    assert_eq!(timeouts(&lab), 2, "a second silence");
    assert_eq!(lab.engine.counters().media_timeouts, 2);
    assert!(lab.log.events.iter().all(|event| !matches!(
        event,
        Event::MediaTimeout {
            side: Side::Callee,
            ..
        }
    )));
}

#[test]
fn many_silent_sessions_are_reported_in_bounded_steps() {
    let mut engine = trunkline_engine::Engine::new(trunkline_engine::Limits {
        slots_max: 4000,
        sessions_max: 1000,
        probations_max: 1,
    });
    let mut log = Log::default();
    for session in 0..1000_u32 {
        let slots = [0, 2].map(|first| {
            let rtp = session * 4 + first;
            PortSlots { rtp, rtcp: rtp + 1 }
        });
        let media = vec![MediaSpec {
            kind: MediaKind::Audio,
            slots,
        }];
        let spec = SessionSpec {
            session: u64::from(session),
            media_timeout_ns: SECOND,
            media,
        };
        engine.add_session(0, &spec).unwrap();
        let mut leg = leg(Side::Caller);
        leg.session = u64::from(session);
        engine.update_leg(0, &leg).unwrap();
    }
    let mut most = 0;
    let mut calls = 0;
    while log.events.len() < 1000 {
        let before = log.events.len();
        engine.handle_timeout(2 * SECOND, &mut log);
        most = most.max(log.events.len() - before);
        calls += 1;
        assert!(calls < 100);
    }
    assert!(most <= 256, "{most} in one call");
}

#[test]
fn tables_refuse_what_does_not_fit_and_forget_what_is_removed() {
    use trunkline_engine::EngineError::{Invalid, NoCapacity, NotFound};
    let mut lab = Lab::call();
    let media = |first| MediaSpec {
        kind: MediaKind::Audio,
        slots: [
            PortSlots {
                rtp: first,
                rtcp: first + 1,
            },
            PortSlots {
                rtp: first + 2,
                rtcp: first + 3,
            },
        ],
    };
    let add = |lab: &mut Lab, session, media: Vec<MediaSpec>| {
        let spec = SessionSpec {
            session,
            media_timeout_ns: 0,
            media,
        };
        lab.engine.add_session(lab.now_ns, &spec)
    };
    assert_eq!(
        add(&mut lab, 8, vec![media(2)]),
        Err(Invalid),
        "slots in use"
    );
    assert_eq!(
        add(&mut lab, 8, vec![media(62)]),
        Err(Invalid),
        "slots out of range"
    );
    assert_eq!(
        add(&mut lab, 8, vec![media(10), media(12)]),
        Err(Invalid),
        "slots named twice"
    );
    assert_eq!(add(&mut lab, 8, vec![]), Err(Invalid));
    assert_eq!(
        add(&mut lab, SESSION, vec![media(10)]),
        Err(Invalid),
        "another first m-line"
    );
    assert_eq!(
        add(&mut lab, SESSION, vec![media(0), media(10)]),
        Ok(()),
        "one more m-line"
    );
    assert_eq!(
        add(&mut lab, SESSION, vec![media(0), media(10)]),
        Ok(()),
        "nothing new"
    );
    for session in 100..115 {
        let slot = if session < 110 {
            20 + 4 * (session as u32 - 100)
        } else {
            0
        };
        let result = add(&mut lab, session, vec![media(slot)]);
        assert_eq!(result, if session < 110 { Ok(()) } else { Err(Invalid) });
    }
    assert_eq!(lab.engine.sessions(), 11);
    let mut wrong = leg(Side::Caller);
    wrong.media = 2;
    assert_eq!(lab.engine.update_leg(0, &wrong), Err(NotFound));
    wrong.media = 0;
    wrong.payloads[0].to_pt = 128;
    assert_eq!(lab.engine.update_leg(0, &wrong), Err(Invalid));
    lab.engine.remove_session(SESSION).unwrap();
    assert_eq!(lab.engine.remove_session(SESSION), Err(NotFound));
    assert_eq!(lab.rtp(Side::Caller, &Rtp::new(1, 1)), []);
    assert_eq!(lab.engine.counters().no_flow, 1);
    assert_eq!(add(&mut lab, 900, vec![media(0), media(10)]), Ok(()));
    assert_eq!(lab.rtp(Side::Caller, &Rtp::new(1, 1)), []);
    assert_eq!(lab.strangers(), 1, "the new session has no signalling yet");
    let small = trunkline_engine::Limits {
        slots_max: 64,
        sessions_max: 1,
        probations_max: 1,
    };
    lab.engine = trunkline_engine::Engine::new(small);
    assert_eq!(add(&mut lab, 1, vec![media(0)]), Ok(()));
    assert_eq!(add(&mut lab, 2, vec![media(4)]), Err(NoCapacity));
}

#[test]
fn a_sessions_last_packet_is_known() {
    let mut lab = Lab::call();
    let added = lab.now_ns;
    assert_eq!(lab.engine.last_packet_ns(SESSION), Some(added));
    lab.wait(3 * SECOND);
    lab.rtp_from(Side::Caller, address("203.0.113.1:1"), &Rtp::new(1, 1));
    assert_eq!(
        lab.engine.last_packet_ns(SESSION),
        Some(added),
        "strangers do not count"
    );
    lab.rtp(Side::Callee, &Rtp::new(1, 1));
    assert_eq!(lab.engine.last_packet_ns(SESSION), Some(lab.now_ns));
    assert_eq!(lab.engine.last_packet_ns(1), None);
}
