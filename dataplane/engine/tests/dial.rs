//! Digits that we dial (RFC 4733) are heard inside the stream of the other side.

mod lab;

use lab::*;
use trunkline_engine::{DigitSpec, EngineError, FrameKind, LegFlags, Side};
use trunkline_rtp::TelephoneEvent;
use trunkline_rtp::rtcp::{Compound, RtcpPacket};

const VOICE: u32 = 0x1111_1111;

fn digit(event: u8, duration_ms: u16) -> DigitSpec {
    DigitSpec {
        session: SESSION,
        media: 0,
        to: Side::Callee,
        payload_type: 97,
        clock_hz: 8000,
        event,
        duration_ms,
        ssrc: 0xabcd,
    }
}

/// The caller talks while whatever is due is sent; gives all that the callee hears.
fn talk_on(lab: &mut Lab, voice: &mut Rtp, packets: usize) -> Vec<Rtp> {
    let before = lab.log.sent.len();
    for _ in 0..packets {
        let next_ns = lab.now_ns + 20 * MS;
        lab.rtp(Side::Caller, voice);
        voice.advance();
        lab.housekeeping_until(next_ns);
    }
    let heard = lab.log.sent[before..].iter();
    heard
        .filter(|sent| sent.to == party(Side::Callee))
        .map(|sent| Rtp::read(&sent.bytes))
        .collect()
}

fn events(heard: &[Rtp]) -> Vec<(bool, TelephoneEvent)> {
    let events = heard.iter().filter(|one| one.pt == 97);
    events
        .map(|one| (one.marker, TelephoneEvent::parse(&one.payload).unwrap()))
        .collect()
}

fn assert_continuous(heard: &[Rtp]) {
    for pair in heard.windows(2) {
        assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1));
        assert_eq!(pair[1].ssrc, pair[0].ssrc);
    }
}

#[test]
fn a_digit_begins_marked_grows_and_ends_three_times_in_one_unbroken_stream() {
    let mut lab = Lab::call();
    let mut voice = Rtp::new(VOICE, 65_520);
    let mut heard = talk_on(&mut lab, &mut voice, 10);
    let begun = voice.timestamp;
    lab.engine.dial(lab.now_ns, &digit(5, 100)).unwrap();
    heard.extend(talk_on(&mut lab, &mut voice, 20));
    assert_eq!(heard.len(), 30 + 7, "nothing of the voice is lost");
    assert_continuous(&heard);
    let events = events(&heard);
    assert!(events.iter().all(|(_, one)| one.event == 5));
    let durations: Vec<u16> = events.iter().map(|(_, one)| one.duration).collect();
    assert_eq!(durations, [160, 320, 480, 640, 800, 800, 800]);
    let ends: Vec<bool> = events.iter().map(|(_, one)| one.end).collect();
    assert_eq!(ends, [false, false, false, false, true, true, true]);
    let marked: Vec<bool> = events.iter().map(|(marker, _)| *marker).collect();
    assert_eq!(marked, [true, false, false, false, false, false, false]);
    // All packets of an event have the time of its beginning, in the voice's own time.
    let times = heard.iter().filter(|one| one.pt == 97);
    assert!(times.clone().all(|one| one.timestamp == begun));
}

#[test]
fn digits_wait_for_each_other() {
    let mut lab = Lab::call();
    let mut voice = Rtp::new(VOICE, 1);
    talk_on(&mut lab, &mut voice, 5);
    for event in [1, 2, 11] {
        lab.engine.dial(lab.now_ns, &digit(event, 60)).unwrap();
    }
    let heard = talk_on(&mut lab, &mut voice, 60);
    assert_continuous(&heard);
    let events = events(&heard);
    let keys: Vec<u8> = events
        .iter()
        .filter(|(marker, _)| *marker)
        .map(|(_, one)| one.event)
        .collect();
    assert_eq!(keys, [1, 2, 11]);
    assert_eq!(events.iter().filter(|(_, one)| one.end).count(), 9);
    let mut times: Vec<u32> = heard
        .iter()
        .filter(|one| one.pt == 97)
        .map(|one| one.timestamp)
        .collect();
    times.dedup();
    assert_eq!(times.len(), 3, "each has a time of its own");
    assert!(times[1] - times[0] >= 60 * 8 && times[2] - times[1] >= 60 * 8);
}

#[test]
fn what_is_said_in_reports_follows() {
    let mut lab = Lab::call();
    let mut voice = Rtp::new(VOICE, 100);
    talk_on(&mut lab, &mut voice, 5);
    lab.engine.dial(lab.now_ns, &digit(5, 60)).unwrap();
    talk_on(&mut lab, &mut voice, 20);
    // The callee has heard 124 and five events more; the caller is told of its own numbers.
    let report = sender_report(9, 0, VOICE, 124 + 5);
    let sent = lab.arrive(SLOTS[1].rtcp, address("198.51.100.1:6005"), &report);
    let compound = Compound::parse(&sent[0].bytes).unwrap();
    let blocks: Vec<u32> = compound
        .packets()
        .filter_map(|packet| match packet {
            RtcpPacket::SenderReport(report) => report.reports().next(),
            _ => None,
        })
        .map(|block| block.highest())
        .collect();
    assert_eq!(blocks, [124]);
}

#[test]
fn a_side_that_sends_nothing_is_given_a_stream() {
    let mut lab = Lab::call();
    lab.engine.dial(lab.now_ns, &digit(5, 100)).unwrap();
    lab.housekeeping_until(lab.now_ns + SECOND);
    let heard: Vec<Rtp> = lab
        .log
        .sent
        .iter()
        .map(|sent| Rtp::read(&sent.bytes))
        .collect();
    assert_eq!(heard.len(), 7);
    assert_continuous(&heard);
    assert!(heard.iter().all(|one| one.ssrc == 0xabcd && one.pt == 97));
    assert_eq!(lab.engine.next_deadline_ns(), None, "it rests afterwards");
}

#[test]
fn nothing_is_sent_to_who_receives_nothing_and_the_digits_pass() {
    let mut lab = Lab::call();
    let mut spec = leg(Side::Callee);
    spec.flags = LegFlags {
        may_send: false,
        ..spec.flags
    };
    lab.update(&spec);
    lab.engine.dial(lab.now_ns, &digit(5, 100)).unwrap();
    lab.housekeeping_until(lab.now_ns + SECOND);
    assert!(lab.log.sent.is_empty());
    assert_eq!(lab.engine.counters().not_sent, 7);
    assert_eq!(lab.engine.next_deadline_ns(), None);
}

#[test]
fn the_recording_has_it_as_ours_beside_what_was_received() {
    let mut lab = Lab::call();
    lab.engine.start_tap(SESSION, 3).unwrap();
    let mut voice = Rtp::new(VOICE, 1);
    talk_on(&mut lab, &mut voice, 5);
    lab.engine.dial(lab.now_ns, &digit(5, 100)).unwrap();
    talk_on(&mut lab, &mut voice, 20);
    let injected: Vec<_> = lab
        .log
        .frames
        .iter()
        .filter(|(_, meta, _)| meta.kind == FrameKind::Injected)
        .collect();
    assert_eq!(injected.len(), 7);
    for (tap, meta, bytes) in &injected {
        assert_eq!((*tap, meta.side, meta.payload_type), (3, Side::Caller, 97));
        assert!(meta.telephone_event);
        assert_eq!(Rtp::read(bytes).sequence, meta.sequence);
    }
    // The receipt counts what was received, and nothing is missing in it.
    let receipts = lab.receipts();
    assert_eq!(receipts.len(), 1);
    assert_eq!((receipts[0].expected, receipts[0].lost), (25, 0));
}

#[test]
fn nonsense_and_too_many_are_refused_and_a_session_takes_its_digits_along() {
    let mut lab = Lab::call();
    let now_ns = lab.now_ns;
    for (wrong, error) in [
        (
            DigitSpec {
                event: 16,
                ..digit(0, 100)
            },
            EngineError::Invalid,
        ),
        (
            DigitSpec {
                clock_hz: 0,
                ..digit(0, 100)
            },
            EngineError::Invalid,
        ),
        (
            DigitSpec {
                payload_type: 200,
                ..digit(0, 100)
            },
            EngineError::Invalid,
        ),
        (
            DigitSpec {
                media: 3,
                ..digit(0, 100)
            },
            EngineError::NotFound,
        ),
        (
            DigitSpec {
                session: 99,
                ..digit(0, 100)
            },
            EngineError::NotFound,
        ),
    ] {
        assert_eq!(lab.engine.dial(now_ns, &wrong), Err(error), "{wrong:?}");
    }
    let taken = (0..100).take_while(|_| lab.engine.dial(now_ns, &digit(1, 60)).is_ok());
    assert_eq!(taken.count(), 32);
    lab.housekeeping_until(now_ns + 30 * MS);
    lab.engine.remove_session(SESSION).unwrap();
    let sent = lab.log.sent.len();
    lab.housekeeping_until(now_ns + SECOND);
    assert_eq!(lab.log.sent.len(), sent);
}

#[test]
fn a_digit_longer_than_its_field_goes_on_in_segments() {
    let mut lab = Lab::call();
    let mut voice = Rtp::new(VOICE, 0);
    let mut heard = talk_on(&mut lab, &mut voice, 2);
    let begun = voice.timestamp;
    // 48,000 ticks a second: 65,535 are over after 1.37 s.
    let long = DigitSpec {
        clock_hz: 48_000,
        ..digit(5, 3_000)
    };
    lab.engine.dial(lab.now_ns, &long).unwrap();
    heard.extend(talk_on(&mut lab, &mut voice, 170));
    assert_continuous(&heard);
    let mut segments: Vec<(u32, u16, usize)> = Vec::new();
    for packet in heard.iter().filter(|one| one.pt == 97) {
        let event = TelephoneEvent::parse(&packet.payload).unwrap();
        match segments.last_mut() {
            Some((timestamp, duration, ends)) if *timestamp == packet.timestamp => {
                assert!(event.duration >= *duration);
                (*duration, *ends) = (event.duration, *ends + usize::from(event.end));
            }
            _ => {
                assert_eq!(packet.marker, segments.is_empty(), "marked once");
                segments.push((packet.timestamp, event.duration, usize::from(event.end)));
            }
        }
    }
    let max = u32::from(u16::MAX);
    let rest = u16::try_from(144_000 - 2 * max).unwrap();
    let expected = [
        (begun, u16::MAX, 0),
        (begun.wrapping_add(max), u16::MAX, 0),
        (begun.wrapping_add(2 * max), rest, 3),
    ];
    assert_eq!(segments, expected);
}
