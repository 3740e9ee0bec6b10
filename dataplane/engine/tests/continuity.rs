//! A change of source is heard as one stream, and reports speak of it as such.

mod lab;

use lab::*;
use trunkline_engine::{Continuity, Event, LegRestore, Side};
use trunkline_rtp::rtcp::{Compound, RtcpPacket};

const OLD: u32 = 0x1111_1111;
const NEW: u32 = 0x2222_2222;

fn moved() -> std::net::SocketAddr {
    address("192.0.2.77:7000")
}

/// The caller speaks for a second, then somebody else speaks for the caller: another address,
/// SSRC, sequence and timestamp.
fn transferred() -> (Lab, Rtp) {
    let mut lab = Lab::call();
    lab.talk(
        Side::Caller,
        party(Side::Caller),
        &mut Rtp::new(OLD, 65_500),
        50,
    );
    let mut spec = leg(Side::Caller);
    spec.rtp = Some(moved());
    lab.update(&spec);
    (
        lab,
        Rtp {
            timestamp: 0xfff0_0000,
            ..Rtp::new(NEW, 9_000)
        },
    )
}

#[test]
fn the_far_end_sees_one_continuous_stream() {
    let (mut lab, mut stream) = transferred();
    // A hole of 400 ms between them, beside the 20 ms until the next packet.
    lab.wait(400 * MS);
    let sent = lab.talk(Side::Caller, moved(), &mut stream, 50);
    let heard: Vec<Rtp> = sent.iter().map(|sent| Rtp::read(&sent.bytes)).collect();
    let last = Rtp::new(OLD, 65_500);
    for (index, packet) in heard.iter().enumerate() {
        let index = index as u32;
        assert_eq!(packet.ssrc, OLD);
        assert_eq!(
            packet.sequence,
            65_500_u16.wrapping_add(50).wrapping_add(index as u16)
        );
        let timestamp = last.timestamp + 49 * 160 + 21 * 160 + index * 160;
        assert_eq!(packet.timestamp, timestamp);
        assert_eq!(packet.payload, stream.payload);
    }
    let changes: Vec<_> = lab
        .log
        .events
        .iter()
        .filter_map(|event| match event {
            Event::SourceChanged {
                side: Side::Caller,
                continuity,
                ..
            } => Some(*continuity),
            _ => None,
        })
        .collect();
    assert_eq!(changes.len(), 1);
    assert_eq!((changes[0].ssrc_in, changes[0].ssrc_out), (NEW, OLD));
    assert_eq!(lab.engine.counters().source_changes, 1);
}

#[test]
fn a_source_that_comes_back_is_continued_once_more() {
    let (mut lab, mut second) = transferred();
    let mut heard = lab.talk(Side::Caller, moved(), &mut second, 10);
    lab.update(&leg(Side::Caller));
    let mut first = Rtp::new(OLD, 20);
    heard.extend(lab.talk(Side::Caller, party(Side::Caller), &mut first, 10));
    let heard: Vec<Rtp> = heard.iter().map(|sent| Rtp::read(&sent.bytes)).collect();
    for pair in heard.windows(2) {
        assert_eq!(pair[1].ssrc, OLD);
        assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1));
        assert_eq!(pair[1].timestamp, pair[0].timestamp.wrapping_add(160));
    }
}

#[test]
fn the_same_stream_from_another_address_passes_unchanged() {
    let mut lab = Lab::call();
    let mut stream = Rtp::new(OLD, 65_500);
    lab.talk(Side::Caller, party(Side::Caller), &mut stream, 50);
    let mut spec = leg(Side::Caller);
    spec.rtp = Some(moved());
    lab.update(&spec);
    let before = stream.clone();
    let sent = lab.talk(Side::Caller, moved(), &mut stream, 2);
    assert_eq!(sent[0].bytes, before.bytes());
    assert_eq!(lab.engine.counters().source_changes, 0);
}

#[test]
fn a_second_ssrc_of_the_same_source_passes_unchanged() {
    let mut lab = Lab::call();
    lab.talk(Side::Caller, party(Side::Caller), &mut Rtp::new(OLD, 1), 10);
    let other = Rtp::new(NEW, 500);
    assert_eq!(lab.rtp(Side::Caller, &other)[0].bytes, other.bytes());
}

#[test]
fn reports_of_the_new_source_speak_of_the_stream_that_is_heard() {
    let (mut lab, mut stream) = transferred();
    let timestamp = stream.timestamp;
    let sent = lab.talk(Side::Caller, moved(), &mut stream, 3);
    let offset = Rtp::read(&sent[0].bytes).timestamp.wrapping_sub(timestamp);
    let report = sender_report(NEW, timestamp + 77, 5, 6);
    let sent = lab.arrive(1, address("192.0.2.77:7001"), &report);
    assert_eq!(
        sent[0].bytes,
        sender_report(OLD, (timestamp + 77).wrapping_add(offset), 5, 6)
    );
    // A report on something else passes as it is.
    let other = sender_report(77, 1, 2, 3);
    assert_eq!(
        lab.arrive(1, address("192.0.2.77:7001"), &other)[0].bytes,
        other
    );
}

#[test]
fn reports_about_the_stream_reach_its_new_source_in_its_own_numbers() {
    let (mut lab, mut stream) = transferred();
    let sent = lab.talk(Side::Caller, moved(), &mut stream, 10);
    // The callee has heard the last packet; its count has wrapped once.
    let last = Rtp::read(&sent[9].bytes).sequence;
    let highest = 0x0001_0000 | u32::from(last);
    let report = sender_report(99, 1, OLD, highest);
    let sent = lab.arrive(3, address("198.51.100.1:6005"), &report);
    assert_eq!(sent[0].to, address("192.0.2.77:7001"));
    let Some(RtcpPacket::SenderReport(report)) =
        Compound::parse(&sent[0].bytes).unwrap().packets().next()
    else {
        panic!("a sender report")
    };
    let block = report.reports().next().unwrap();
    assert_eq!((report.ssrc(), block.ssrc()), (99, NEW));
    assert_eq!(block.highest(), u32::from(stream.sequence - 1));
}

#[test]
fn what_an_earlier_dataplane_had_in_force_goes_on() {
    let (mut lab, mut stream) = transferred();
    lab.talk(Side::Caller, moved(), &mut stream, 10);
    let continuity = lab
        .log
        .events
        .iter()
        .find_map(|event| match event {
            Event::SourceChanged { continuity, .. } => Some(*continuity),
            _ => None,
        })
        .unwrap();
    let expected = lab.rtp_from(Side::Caller, moved(), &stream)[0]
        .bytes
        .clone();

    let mut lab = Lab::call();
    let mut spec = leg(Side::Caller);
    spec.flags.learn = false;
    spec.restore = Some(LegRestore {
        learned_rtp: Some(moved()),
        learned_rtcp: Some(address("192.0.2.77:9001")),
        continuity: Some(continuity),
    });
    lab.update(&spec);
    // The learned addresses are sent to before anything is heard.
    assert_eq!(lab.rtp(Side::Callee, &Rtp::new(5, 5))[0].to, moved());
    let report = sender_report(5, 1, 2, 3);
    let sent = lab.arrive(3, address("198.51.100.1:6005"), &report);
    assert_eq!(sent[0].to, address("192.0.2.77:9001"));
    assert_eq!(
        lab.rtp_from(Side::Caller, moved(), &stream)[0].bytes,
        expected
    );
    assert_eq!(lab.strangers(), 0);
    let report = sender_report(NEW, 10, 2, 3);
    let sent = lab.arrive(1, address("192.0.2.77:9001"), &report);
    let timestamp = 10_u32.wrapping_add(continuity.timestamp_offset);
    assert_eq!(sent[0].bytes, sender_report(OLD, timestamp, 2, 3));
    let Continuity {
        ssrc_in, ssrc_out, ..
    } = continuity;
    assert_eq!((ssrc_in, ssrc_out), (NEW, OLD));
}

#[test]
fn an_event_under_way_does_not_shift_the_time() {
    let mut lab = Lab::call();
    let mut audio = Rtp::new(OLD, 1);
    lab.talk(Side::Caller, party(Side::Caller), &mut audio, 10);
    // A digit of 200 ms: ten packets that share a timestamp.
    let digit_timestamp = audio.timestamp;
    for _ in 0..10 {
        let packet = Rtp {
            pt: 101,
            timestamp: digit_timestamp,
            payload: vec![5, 10, 0, 160],
            ..audio.clone()
        };
        lab.rtp(Side::Caller, &packet);
        audio.advance();
        lab.wait(20 * MS);
    }
    let mut spec = leg(Side::Caller);
    spec.rtp = Some(moved());
    lab.update(&spec);
    let sent = lab.rtp_from(Side::Caller, moved(), &Rtp::new(NEW, 77));
    assert_eq!(Rtp::read(&sent[0].bytes).timestamp, digit_timestamp + 1600);
}
