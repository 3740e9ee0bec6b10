//! Extended sequence numbers: wraps, losses, duplicates, late packets and restarts.

use std::collections::HashSet;

use proptest::prelude::*;
use trunkline_rtp::sequence::{DROPOUT_MAX, WINDOW};
use trunkline_rtp::{Arrival, SequenceTracker};

fn feed(tracker: &mut SequenceTracker, numbers: impl IntoIterator<Item = u16>) -> Vec<Arrival> {
    numbers
        .into_iter()
        .map(|number| tracker.observe(number, DROPOUT_MAX).arrival)
        .collect()
}

#[test]
fn a_wrap_is_nothing_special() {
    let mut tracker = SequenceTracker::new(65_533);
    assert_eq!(
        feed(&mut tracker, [65_534, 65_535, 0, 1]),
        [Arrival::Next { gap: 0 }; 4]
    );
    assert_eq!(tracker.highest_reported(), 0x0001_0001);
    assert_eq!(feed(&mut tracker, [65_535]), [Arrival::Duplicate]);
    assert_eq!(tracker.observe(65_531, DROPOUT_MAX).extended, 0x0001_fffb);
}

#[test]
fn late_and_repeated_packets_are_told_apart() {
    let mut tracker = SequenceTracker::new(10);
    assert_eq!(
        feed(&mut tracker, [13, 11, 11, 12, 13, 9, 9]),
        [
            Arrival::Next { gap: 2 },
            Arrival::Late,
            Arrival::Duplicate,
            Arrival::Late,
            Arrival::Duplicate,
            Arrival::Late,
            Arrival::Duplicate,
        ]
    );
}

#[test]
fn a_restart_is_no_loss_of_forty_thousand() {
    let mut tracker = SequenceTracker::new(100);
    feed(&mut tracker, 101..200);
    let arrivals = feed(&mut tracker, [40_000, 40_001, 40_002]);
    assert_eq!(
        arrivals,
        [Arrival::Stray, Arrival::Restart, Arrival::Next { gap: 0 }]
    );
    assert_eq!(
        feed(&mut tracker, [40_000]),
        [Arrival::Duplicate],
        "the stray joined the new run"
    );
    assert_eq!(tracker.highest() & 0xffff, 40_002);
}

#[test]
fn a_restart_a_little_behind_is_found_too() {
    let mut tracker = SequenceTracker::new(100);
    feed(&mut tracker, 101..1000);
    let arrivals = feed(&mut tracker, [500, 501, 502]);
    assert_eq!(
        arrivals,
        [
            Arrival::Duplicate,
            Arrival::Restart,
            Arrival::Next { gap: 0 }
        ]
    );
}

#[test]
fn one_wild_packet_changes_nothing() {
    let mut tracker = SequenceTracker::new(100);
    assert_eq!(
        feed(&mut tracker, [40_000, 101, 40_000, 40_000, 102]),
        [
            Arrival::Stray,
            Arrival::Next { gap: 0 },
            Arrival::Stray,
            Arrival::Duplicate,
            Arrival::Next { gap: 0 },
        ]
    );
}

#[test]
fn a_long_outage_may_be_declared_plausible() {
    let mut tracker = SequenceTracker::new(0);
    assert_eq!(
        tracker.observe(5000, 6000).arrival,
        Arrival::Next { gap: 4999 }
    );
    assert_eq!(
        tracker.observe(4999, DROPOUT_MAX).arrival,
        Arrival::Late,
        "its window was cleared"
    );
}

proptest! {
    /// Against a model that remembers everything: shuffled within 50, lost and repeated packets.
    #[test]
    fn distinct_numbers_are_counted_exactly(
        first in any::<u16>(), seed in prop::collection::vec((any::<bool>(), 0_u64..50, 0_u8..10), 2..800),
    ) {
        let mut arrivals: Vec<(u64, u64)> = Vec::new();
        for (index, (repeat, delay, fate)) in seed.iter().enumerate() {
            let number = index as u64;
            if *fate == 0 && index > 0 {
                continue;
            }
            arrivals.push((number + if index == 0 { 0 } else { *delay }, number));
            if *repeat {
                arrivals.push((number + delay + 20, number));
            }
        }
        arrivals.sort();
        let start = arrivals[0].1;
        let mut seen = HashSet::from([start]);
        let mut highest = start;
        let mut tracker = SequenceTracker::new(first.wrapping_add(start as u16));
        let base = tracker.highest();
        for &(_, number) in &arrivals[1..] {
            let observed = tracker.observe(first.wrapping_add(number as u16), DROPOUT_MAX);
            prop_assert_eq!(observed.extended, base + number - start);
            match observed.arrival {
                Arrival::Next { gap } => {
                    prop_assert!(number > highest);
                    prop_assert_eq!(u64::from(gap), number - highest - 1);
                    highest = number;
                    prop_assert!(seen.insert(number));
                }
                Arrival::Late => prop_assert!(number < highest && seen.insert(number)),
                Arrival::Duplicate => prop_assert!(!seen.insert(number)),
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }

    #[test]
    fn any_numbers_at_all_keep_the_order_of_extended_numbers(
        first in any::<u16>(), numbers in prop::collection::vec(any::<u16>(), 0..2000),
    ) {
        let mut tracker = SequenceTracker::new(first);
        for number in numbers {
            let before = tracker.highest();
            let observed = tracker.observe(number, DROPOUT_MAX);
            prop_assert_eq!(observed.extended as u16, number);
            prop_assert!(tracker.highest() >= before);
            match observed.arrival {
                Arrival::Next { .. } | Arrival::Restart => {
                    prop_assert!(observed.extended > before);
                    prop_assert_eq!(tracker.highest(), observed.extended);
                }
                Arrival::Late => prop_assert!(observed.extended + WINDOW > before),
                Arrival::Duplicate | Arrival::Stray => prop_assert_eq!(tracker.highest(), before),
            }
        }
    }
}
