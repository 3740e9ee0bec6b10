//! From stream receipts to the receipt of a recording, its verdict and its final state.

use crate::object::{Receipt, RecordingState, Role, StreamTally, Tally, Verdict};

/// One stream as the dataplane counted it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamCounts {
    /// Sent by the callee's side (else the caller's).
    pub from_callee: bool,
    /// m-line index.
    pub media: u8,
    /// SSRC as received.
    pub ssrc: u32,
    /// Distinct sequence numbers expected.
    pub expected: u64,
    /// Distinct ones written.
    pub written: u64,
    /// Lost in the network.
    pub lost: u64,
    /// Dropped by us, by the reason's name; reasons may be zero or repeated.
    pub dropped: Vec<(&'static str, u64)>,
    /// Duplicates written.
    pub duplicates: u64,
    /// Arrived after a later one.
    pub reordered: u64,
    /// Payload bytes written.
    pub bytes: u64,
    /// Time covered by its packets.
    pub covered_ms: u64,
    /// Sequence number of the packet heard first, where known.
    pub first_sequence: Option<u16>,
    /// Highest sequence number captured, where known.
    pub last_sequence: Option<u16>,
}

/// Drop reasons that are failures of ours which tear a hole, not mere congestion of a socket.
const FAILURES: [&str; 4] = ["no_extent", "disk", "restart", "limit"];

/// Builds the receipt. `covered_max_ms` is the answered time without pauses and agreed hold, which no
/// side can cover more of, however many streams it sent at once.
#[must_use]
pub fn receipt(streams: &[StreamCounts], covered_max_ms: Option<u64>) -> Receipt {
    let limit = covered_max_ms.unwrap_or(u64::MAX);
    let mut receipt = Receipt::default();
    for stream in streams {
        let mut tally = Tally {
            expected: stream.expected,
            written: stream.written,
            lost: stream.lost,
            duplicates: stream.duplicates,
            reordered: stream.reordered,
            covered_ms: stream.covered_ms.min(limit),
            ..Tally::default()
        };
        for (reason, count) in stream.dropped.iter().filter(|(_, count)| *count > 0) {
            tally.dropped += count;
            *tally.dropped_by.entry((*reason).to_owned()).or_default() += count;
        }
        let side = if stream.from_callee {
            &mut receipt.callee
        } else {
            &mut receipt.caller
        };
        add(side, &tally);
        receipt.streams.push(StreamTally {
            side: if stream.from_callee {
                Role::Callee
            } else {
                Role::Caller
            },
            media: stream.media,
            ssrc: stream.ssrc,
            bytes: stream.bytes,
            tally,
        });
    }
    receipt.caller.covered_ms = receipt.caller.covered_ms.min(limit);
    receipt.callee.covered_ms = receipt.callee.covered_ms.min(limit);
    receipt
}

fn add(sum: &mut Tally, tally: &Tally) {
    sum.expected += tally.expected;
    sum.written += tally.written;
    sum.lost += tally.lost;
    sum.dropped += tally.dropped;
    sum.duplicates += tally.duplicates;
    sum.reordered += tally.reordered;
    sum.covered_ms += tally.covered_ms;
    for (reason, count) in &tally.dropped_by {
        *sum.dropped_by.entry(reason.clone()).or_default() += count;
    }
}

/// The verdict: the first that fits. `failure` = a failure of ours cut the recording short or tore a
/// hole that no counter shows (a crash, a refused write of the last extent). `sides_expected` = how many
/// of the two were to be heard at all.
#[must_use]
pub fn verdict(receipt: &Receipt, failure: bool, sides_expected: usize) -> Verdict {
    let sides = [&receipt.caller, &receipt.callee];
    let torn = sides.iter().any(|side| {
        FAILURES
            .iter()
            .any(|reason| side.dropped_by.get(*reason).is_some_and(|count| *count > 0))
    });
    let heard = sides.iter().filter(|side| side.written > 0).count();
    if failure || torn {
        Verdict::Partial
    } else if heard == 0 {
        Verdict::Silent
    } else if heard < sides_expected {
        Verdict::OneWay
    } else if sides.iter().any(|side| is_degraded(side)) {
        Verdict::Degraded
    } else {
        Verdict::Complete
    }
}

/// Any dropped, or lost over 1 % of expected.
fn is_degraded(side: &Tally) -> bool {
    side.dropped > 0 || side.lost.saturating_mul(100) > side.expected
}

/// The final state. `kept` = at least one extent of the recording is on disk.
#[must_use]
pub const fn final_state(verdict: Verdict, kept: bool) -> RecordingState {
    match (verdict, kept) {
        (_, false) => RecordingState::Failed,
        (Verdict::Partial, true) => RecordingState::Partial,
        (_, true) => RecordingState::Complete,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(
        from_callee: bool,
        written: u64,
        lost: u64,
        dropped: &[(&'static str, u64)],
    ) -> StreamCounts {
        let dropped_sum: u64 = dropped.iter().map(|(_, count)| count).sum();
        StreamCounts {
            from_callee,
            ssrc: 7,
            expected: written + lost + dropped_sum,
            written,
            lost,
            dropped: dropped.to_vec(),
            covered_ms: written * 20,
            bytes: written * 160,
            ..StreamCounts::default()
        }
    }

    fn judged(streams: &[StreamCounts]) -> Verdict {
        verdict(&receipt(streams, None), false, 2)
    }

    #[test]
    fn the_first_verdict_that_fits_is_given() {
        let whole = [stream(false, 1000, 10, &[]), stream(true, 1000, 0, &[])];
        assert_eq!(judged(&whole), Verdict::Complete);
        assert_eq!(judged(&[]), Verdict::Silent);
        assert_eq!(
            judged(&[stream(false, 0, 0, &[("socket", 5)])]),
            Verdict::Silent
        );
        assert_eq!(judged(&[stream(true, 1, 0, &[])]), Verdict::OneWay);
        assert_eq!(
            judged(&[stream(true, 1, 50, &[("socket", 1)])]),
            Verdict::OneWay
        );
        assert_eq!(
            judged(&[stream(false, 989, 11, &[]), stream(true, 1000, 0, &[])]),
            Verdict::Degraded
        );
        let dropped = [
            stream(false, 999, 0, &[("socket", 1)]),
            stream(true, 1000, 0, &[]),
        ];
        assert_eq!(judged(&dropped), Verdict::Degraded);
        for reason in FAILURES {
            assert_eq!(
                judged(&[stream(false, 999, 0, &[(reason, 1)])]),
                Verdict::Partial,
                "{reason}"
            );
        }
        assert_eq!(verdict(&receipt(&whole, None), true, 2), Verdict::Partial);
        let alone = receipt(&[stream(false, 1000, 0, &[])], None);
        assert_eq!(verdict(&alone, false, 1), Verdict::Complete);
    }

    #[test]
    fn exactly_one_percent_lost_is_no_degradation() {
        assert_eq!(
            judged(&[stream(false, 99, 1, &[]), stream(true, 1, 0, &[])]),
            Verdict::Complete
        );
    }

    #[test]
    fn sums_add_up_and_cover_no_more_than_there_was() {
        let streams = [
            stream(false, 100, 1, &[("socket", 2), ("disk", 0), ("socket", 1)]),
            stream(false, 50, 0, &[("disk", 4)]),
            stream(true, 10, 0, &[]),
        ];
        let receipt = receipt(&streams, Some(2500));
        let caller = &receipt.caller;
        assert_eq!(
            (caller.expected, caller.written, caller.lost, caller.dropped),
            (158, 150, 1, 7)
        );
        assert_eq!(
            caller.expected,
            caller.written + caller.lost + caller.dropped
        );
        assert_eq!(caller.dropped_by["socket"], 3);
        assert_eq!(caller.dropped_by["disk"], 4);
        assert_eq!((caller.covered_ms, receipt.callee.covered_ms), (2500, 200));
        assert_eq!(receipt.streams.len(), 3);
        assert!(receipt.streams[2].tally.dropped_by.is_empty());
        let json = serde_json::to_value(&receipt).unwrap();
        assert_eq!(json["streams"][1]["dropped"], 4);
        assert_eq!(json["streams"][2]["side"], "callee");
    }

    #[test]
    fn the_final_state_follows_the_verdict() {
        assert_eq!(final_state(Verdict::Partial, true), RecordingState::Partial);
        assert_eq!(final_state(Verdict::Partial, false), RecordingState::Failed);
        assert_eq!(final_state(Verdict::Silent, true), RecordingState::Complete);
    }
}
