//! Receipts: expected = written + lost + dropped, whatever happens on the way.

mod lab;

use lab::*;
use trunkline_engine::{Captured, DropReason, FrameKind, STREAMS_MAX, Side, StreamReceipt};

fn recorded() -> Lab {
    let mut lab = Lab::call();
    lab.engine.start_tap(SESSION, 4).unwrap();
    lab
}

fn hear(lab: &mut Lab, numbers: impl IntoIterator<Item = u16>) {
    for number in numbers {
        lab.rtp(Side::Caller, &Rtp::new(1, number));
        lab.wait(20 * MS);
    }
}

fn receipt(lab: &Lab) -> StreamReceipt {
    lab.receipts()[0]
}

/// Expected, written, lost, dropped, duplicates.
type Counts = (u64, u64, u64, u64, u64);

fn counts(lab: &Lab) -> Counts {
    let receipt = receipt(lab);
    let dropped = receipt.dropped.iter().sum();
    (
        receipt.expected,
        receipt.written,
        receipt.lost,
        dropped,
        receipt.duplicates,
    )
}

#[test]
fn every_kind_of_arrival_is_counted_once() {
    let cases: [(&str, Vec<u16>, Counts); 10] = [
        ("nothing special", (1..=50).collect(), (50, 50, 0, 0, 0)),
        (
            "a wrap",
            (65_500..=65_535).chain(0..14).collect(),
            (50, 50, 0, 0, 0),
        ),
        ("a loss", vec![1, 2, 5, 6], (6, 4, 2, 0, 0)),
        ("duplicates", vec![1, 1, 2, 2, 2, 3], (3, 3, 0, 0, 3)),
        ("reordering", vec![1, 3, 2, 4], (4, 4, 0, 0, 0)),
        ("late at the start", vec![10, 8, 9, 11], (4, 4, 0, 0, 0)),
        (
            "late at the start, one lost",
            vec![10, 7, 9, 11],
            (5, 4, 1, 0, 0),
        ),
        ("a late duplicate", vec![1, 2, 3, 2, 4, 2], (4, 4, 0, 0, 2)),
        (
            "a restart",
            vec![1, 2, 40_000, 40_001, 40_002],
            (5, 5, 0, 0, 0),
        ),
        (
            "one stray",
            vec![1, 2, 40_000, 3, 4, 40_000, 40_000],
            (6, 6, 0, 0, 1),
        ),
    ];
    for (name, numbers, expected) in cases {
        let mut lab = recorded();
        hear(&mut lab, numbers.iter().copied());
        assert_eq!(counts(&lab), expected, "{name}");
        assert_eq!(
            lab.log.frames.len(),
            numbers.len(),
            "{name}: everything is written"
        );
        assert_eq!(receipt(&lab).bytes, 160 * numbers.len() as u64, "{name}");
    }
}

#[test]
fn frames_say_what_their_numbers_are() {
    let mut lab = recorded();
    hear(&mut lab, [65_535, 0, 0, 2, 1]);
    let frames: Vec<_> = lab.log.frames.iter().map(|(_, frame, _)| *frame).collect();
    let extended: Vec<u32> = frames
        .iter()
        .map(|frame| u32::from(frame.sequence_cycles) << 16 | u32::from(frame.sequence))
        .collect();
    let base = extended[0];
    assert_eq!(extended, [base, base + 1, base + 1, base + 3, base + 2]);
    assert_eq!(
        frames.iter().map(|f| f.duplicate).collect::<Vec<_>>(),
        [false, false, true, false, false]
    );
    assert_eq!(
        frames.iter().map(|f| f.late).collect::<Vec<_>>(),
        [false, false, false, false, true]
    );
}

#[test]
fn paused_packets_are_outside_of_everything() {
    let mut lab = recorded();
    hear(&mut lab, 1..=10);
    lab.engine.pause_tap(SESSION).unwrap();
    assert!(lab.engine.pause_tap(SESSION).is_err());
    // Of those during the pause some are lost, too.
    hear(&mut lab, (11..=30).filter(|number| number % 3 != 0));
    lab.engine.resume_tap(SESSION).unwrap();
    assert!(lab.engine.resume_tap(SESSION).is_err());
    hear(&mut lab, [31, 32, 34, 35]);
    assert_eq!(counts(&lab), (15, 14, 1, 0, 0));
    // One that was sent during the pause comes late: it is heard while recording runs.
    hear(&mut lab, [27, 36]);
    assert_eq!(counts(&lab), (17, 16, 1, 0, 0));
    assert_eq!(receipt(&lab).reordered, 1);
    assert_eq!(lab.log.frames.len(), 16);
}

#[test]
fn a_receipt_taken_in_a_pause_is_final_for_what_was_before() {
    let mut lab = recorded();
    hear(&mut lab, [1, 2, 4]);
    let before = receipt(&lab);
    lab.engine.pause_tap(SESSION).unwrap();
    assert_eq!(receipt(&lab), before);
    hear(&mut lab, [3]);
    assert_eq!(receipt(&lab), before);
    let mut last = Vec::new();
    lab.engine.stop_tap(SESSION, &mut last).unwrap();
    assert_eq!(last, [before]);
    assert!(!lab.engine.tap_receipts(SESSION, &mut last));
}

#[test]
fn what_capture_refuses_is_dropped_for_its_reason() {
    let mut lab = recorded();
    hear(&mut lab, 1..=5);
    lab.log.refusals = vec![
        Captured::Dropped(DropReason::Limit),
        Captured::Written,
        Captured::Dropped(DropReason::NoExtent),
        Captured::Dropped(DropReason::NoExtent),
    ];
    hear(&mut lab, 6..=12);
    let receipt = receipt(&lab);
    assert_eq!(
        (receipt.expected, receipt.written, receipt.lost),
        (12, 9, 0)
    );
    assert_eq!(receipt.dropped[DropReason::NoExtent as usize], 2);
    assert_eq!(receipt.dropped[DropReason::Limit as usize], 1);
    assert_eq!(lab.log.sent.len(), 12, "relay never suffers");
}

#[test]
fn drops_of_our_sockets_explain_what_is_missing_and_no_more() {
    for (rise, socket, lost) in [(0, 0, 4), (3, 3, 1), (4, 4, 0), (100, 4, 0)] {
        let mut lab = recorded();
        hear(&mut lab, [1, 2, 5, 6, 9]);
        lab.engine.attribute_drops(0, DropReason::Socket, rise);
        // The other side's port has nothing to do with it, nor has the RTCP port.
        lab.engine.attribute_drops(2, DropReason::Socket, 7);
        lab.engine.attribute_drops(1, DropReason::Socket, 7);
        let receipt = receipt(&lab);
        assert_eq!((receipt.dropped[0], receipt.lost), (socket, lost), "{rise}");
        assert_eq!(receipt.expected, 9);
    }
}

#[test]
fn drops_count_for_their_own_interval_only() {
    let mut lab = recorded();
    hear(&mut lab, [1, 2, 4]);
    lab.engine.pause_tap(SESSION).unwrap();
    lab.engine.attribute_drops(0, DropReason::Socket, 50);
    lab.engine.resume_tap(SESSION).unwrap();
    hear(&mut lab, [10, 12]);
    assert_eq!((receipt(&lab).dropped[0], receipt(&lab).lost), (0, 2));
    lab.engine.attribute_drops(0, DropReason::Socket, 1);
    assert_eq!((receipt(&lab).dropped[0], receipt(&lab).lost), (1, 1));
    // What comes late after all was not dropped.
    hear(&mut lab, [11]);
    assert_eq!((receipt(&lab).dropped[0], receipt(&lab).lost), (0, 1));
}

#[test]
fn two_streams_share_their_ports_drops() {
    let mut lab = recorded();
    hear(&mut lab, [1, 3]);
    for number in [1, 4] {
        lab.rtp(Side::Caller, &Rtp::new(2, number));
    }
    lab.engine.attribute_drops(0, DropReason::Socket, 2);
    let receipts = lab.receipts();
    assert_eq!(
        receipts
            .iter()
            .map(|receipt| receipt.dropped[0])
            .sum::<u64>(),
        2
    );
    assert_eq!(receipts.iter().map(|receipt| receipt.lost).sum::<u64>(), 1);
}

#[test]
fn covered_time_is_that_of_the_packets_heard() {
    let seconds = |lab: &Lab| receipt(lab).covered_ns as f64 / 1e9;
    let mut lab = recorded();
    hear(&mut lab, 0..500);
    assert_eq!(seconds(&lab), 10.0);
    // A tenth is lost.
    let mut lab = recorded();
    hear(&mut lab, (0..=500).filter(|number| number % 10 != 5));
    assert!((seconds(&lab) - 9.02).abs() < 0.03, "{}", seconds(&lab));
    // A pause of the sender: the next number, a minute later.
    let mut lab = recorded();
    hear(&mut lab, 0..50);
    lab.rtp(
        Side::Caller,
        &Rtp {
            timestamp: 50 * 160 + 480_000,
            ..Rtp::new(1, 50)
        },
    );
    assert!((seconds(&lab) - 1.02).abs() < 0.001, "{}", seconds(&lab));
    // Our pause.
    let mut lab = recorded();
    hear(&mut lab, 0..50);
    lab.engine.pause_tap(SESSION).unwrap();
    hear(&mut lab, 50..100);
    lab.engine.resume_tap(SESSION).unwrap();
    hear(&mut lab, 100..150);
    assert_eq!(seconds(&lab), 2.0);
    // Duplicates cover nothing more.
    let mut lab = recorded();
    hear(&mut lab, (0..50).flat_map(|number| [number, number]));
    assert_eq!(seconds(&lab), 1.0);
}

#[test]
fn reports_are_written_and_not_counted() {
    let mut lab = recorded();
    let report = sender_report(0x0102_0304, 2, 3, 4);
    lab.arrive(1, address("192.0.2.1:5005"), &report);
    assert!(lab.receipts().is_empty());
    let (tap, frame, bytes) = &lab.log.frames[0];
    assert_eq!(
        (*tap, frame.kind, frame.ssrc),
        (4, FrameKind::Rtcp, 0x0102_0304)
    );
    assert_eq!(bytes, &report);
}

#[test]
fn packets_held_on_probation_are_recorded_with_their_own_times() {
    let mut lab = recorded();
    let start = lab.now_ns;
    let elsewhere = address("192.0.2.1:9999");
    lab.talk(Side::Caller, elsewhere, &mut Rtp::new(1, 1), 4);
    let times: Vec<u64> = lab
        .log
        .frames
        .iter()
        .map(|(_, frame, _)| frame.at_ns - start)
        .collect();
    assert_eq!(times, [0, 20 * MS, 40 * MS, 60 * MS]);
    assert_eq!(counts(&lab), (4, 4, 0, 0, 0));
    assert_eq!(receipt(&lab).first_ns, start);
}

#[test]
fn payloads_are_written_without_what_is_around_them() {
    let mut lab = recorded();
    let mut bytes = vec![
        0xb1, 0, 0, 1, 0, 0, 0, 160, 0, 0, 0, 1, 9, 9, 9, 9, 0xbe, 0xde, 0, 1, 1, 2, 3, 4,
    ];
    bytes.extend(*b"audio");
    bytes.extend([0, 0, 3]);
    let sent = lab.arrive(0, party(Side::Caller), &bytes);
    assert_eq!(sent[0].bytes, bytes, "relayed as it is");
    assert_eq!(lab.log.frames[0].2, b"audio");
    assert_eq!(receipt(&lab).bytes, 5);
}

#[test]
fn a_recording_begins_in_mid_stream_without_a_past() {
    let mut lab = Lab::call();
    hear(&mut lab, [1, 2, 9, 10]);
    lab.engine.start_tap(SESSION, 0).unwrap();
    hear(&mut lab, [11, 5, 12, 12]);
    assert_eq!(
        counts(&lab),
        (3, 3, 0, 0, 1),
        "the late one is heard, its neighbours were not due"
    );
    let mut receipts = Vec::new();
    lab.engine.stop_tap(SESSION, &mut receipts).unwrap();
    hear(&mut lab, 13..20);
    lab.engine.start_tap(SESSION, 0).unwrap();
    hear(&mut lab, 20..25);
    assert_eq!(counts(&lab), (5, 5, 0, 0, 0));
}

#[test]
fn a_flood_of_ssrcs_is_summed_up_and_still_adds_up() {
    let mut lab = recorded();
    for ssrc in 0..500 {
        for number in 0..3 {
            lab.rtp(Side::Caller, &Rtp::new(1000 + ssrc, number));
        }
        lab.rtp(Side::Callee, &Rtp::new(9, ssrc as u16));
    }
    let receipts = lab.receipts();
    assert!(receipts.len() <= STREAMS_MAX, "{}", receipts.len());
    let total = |side, count: fn(&StreamReceipt) -> u64| -> u64 {
        receipts
            .iter()
            .filter(|receipt| receipt.side == side)
            .map(count)
            .sum()
    };
    assert_eq!(total(Side::Caller, |receipt| receipt.expected), 1500);
    assert_eq!(total(Side::Caller, |receipt| receipt.written), 1500);
    assert_eq!(total(Side::Callee, |receipt| receipt.written), 500);
    assert_eq!(lab.log.sent.len(), 2000);
}

#[test]
fn an_ssrc_that_was_evicted_is_the_same_stream_when_it_comes_back() {
    let mut lab = recorded();
    for round in 0..3_u16 {
        for ssrc in 1..=6 {
            lab.rtp(Side::Caller, &Rtp::new(ssrc, 100 * round));
            lab.rtp(Side::Caller, &Rtp::new(ssrc, 100 * round + 1));
            lab.wait(MS);
        }
    }
    let receipts = lab.receipts();
    assert_eq!(receipts.len(), 6);
    assert!(
        receipts
            .iter()
            .all(|receipt| (receipt.expected, receipt.written) == (6, 6))
    );
}

#[test]
fn a_long_outage_is_loss_and_a_jump_without_time_is_not() {
    let mut lab = recorded();
    hear(&mut lab, 0..500);
    // Five minutes without network: 15,000 packets.
    lab.wait(300 * SECOND);
    hear(&mut lab, 15_500..15_600);
    assert_eq!(counts(&lab), (15_600, 600, 15_000, 0, 0));
    hear(&mut lab, 40_000..40_100);
    assert_eq!(counts(&lab), (15_700, 700, 15_000, 0, 0));
}
