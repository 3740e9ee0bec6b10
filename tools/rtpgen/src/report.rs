//! What came of a run.

use std::fmt::Write as _;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::media::StreamReport;

/// A distribution.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Percentiles {
    /// Values.
    pub count: u64,
    /// Lowest.
    pub min: f64,
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90 %.
    pub p90: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p99_9: f64,
    /// Highest.
    pub max: f64,
}

impl Percentiles {
    /// Of a histogram of microseconds, in milliseconds.
    #[must_use]
    pub fn milliseconds<C: hdrhistogram::Counter>(histogram: &Histogram<C>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        Self {
            count: histogram.len(),
            min: histogram.min() as f64 / 1000.0,
            mean: histogram.mean() / 1000.0,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: histogram.max() as f64 / 1000.0,
        }
    }
}

/// One end of one call.
#[derive(Debug, Clone, Default, Serialize)]
pub struct EndResult {
    /// RTP packets sent.
    pub sent: u64,
    /// RTP packets that the kernel refused to send.
    pub send_errors: u64,
    /// RTP packets received, duplicates included.
    pub received: u64,
    /// Packets that the other end sent (or, with a foreign far end, that sequence numbers show).
    pub expected: u64,
    /// Expected and never received.
    pub lost: u64,
    /// Received more than once.
    pub duplicates: u64,
    /// Received after a later one.
    pub reordered: u64,
    /// Packets of a payload type that was not agreed.
    pub wrong_payload_type: u64,
    /// Datagrams that were neither RTP nor RTCP.
    pub malformed: u64,
    /// RTCP datagrams received.
    pub rtcp: u64,
    /// RFC 3550 jitter at the end, ms.
    pub jitter_ms: f64,
    /// Its highest value, ms.
    pub jitter_ms_max: f64,
    /// The tone this end was to hear, Hz.
    pub tone_hz: u32,
    /// Tenths of a second in which it heard that tone and nothing else.
    pub tone_right: u64,
    /// Tenths of a second in which it heard something else.
    pub tone_wrong: u64,
    /// A tone heard instead, Hz, 0 = none.
    pub other_tone_hz: u32,
    /// Estimated mean opinion score of what was heard (G.107), 0 = nothing was expected.
    pub mos: f64,
}

impl EndResult {
    /// From this end's stream and, where known, the number of packets its other end sent.
    #[must_use]
    pub fn new(own: &StreamReport, far_sent: Option<u64>, tone_hz: u32) -> Self {
        let heard = &own.received;
        let expected = far_sent.unwrap_or(heard.expected);
        Self {
            sent: own.sent,
            send_errors: own.send_errors,
            received: heard.packets,
            expected,
            mos: if expected == 0 {
                0.0
            } else {
                let lost = expected.saturating_sub(heard.distinct);
                crate::quality::mos(lost as f64 / expected as f64, heard.jitter_ms)
            },
            lost: expected.saturating_sub(heard.distinct),
            duplicates: heard.duplicates,
            reordered: heard.reordered,
            wrong_payload_type: heard.wrong_payload_type,
            malformed: heard.malformed,
            rtcp: heard.rtcp,
            jitter_ms: heard.jitter_ms,
            jitter_ms_max: heard.jitter_ms_max,
            tone_hz,
            tone_right: heard.windows_right,
            tone_wrong: heard.windows_wrong,
            other_tone_hz: heard.wrong_tone_hz,
        }
    }

    /// Whether this end heard its tone, and hardly anything else: one window may be spoiled by each
    /// lost packet.
    #[must_use]
    pub fn heard_right_tone(&self) -> bool {
        self.tone_right > 0 && self.tone_wrong <= self.lost && self.other_tone_hz == 0
    }
}

/// One call.
#[derive(Debug, Clone, Default, Serialize)]
pub struct CallResult {
    /// Its number, from 0.
    pub call: u32,
    /// Whether it was set up, heard right on both ends, and ended as it should.
    pub ok: bool,
    /// Why not; empty when ok.
    pub failure: String,
    /// The final status of the INVITE; 0 = none came.
    pub status: u16,
    /// The calling end's Call-ID.
    pub call_id: String,
    /// INVITE to the first response above 100, ms; 0 = none.
    pub ringing_ms: f64,
    /// INVITE to 200, ms.
    pub setup_ms: f64,
    /// BYE to its answer, ms.
    pub teardown_ms: f64,
    /// Answer to BYE, ms.
    pub duration_ms: f64,
    /// `caller`, `callee`, or `far end` when nobody here did.
    pub ended_by: String,
    /// The calling end.
    pub caller: Option<EndResult>,
    /// The answering end, when it is here.
    pub callee: Option<EndResult>,
}

/// Sums over the ends of all calls.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Totals {
    /// RTP packets sent.
    pub sent: u64,
    /// RTP packets expected.
    pub expected: u64,
    /// RTP packets received.
    pub received: u64,
    /// Lost.
    pub lost: u64,
    /// Duplicates.
    pub duplicates: u64,
    /// Reordered.
    pub reordered: u64,
    /// RTCP datagrams received.
    pub rtcp: u64,
    /// Ends that did not hear their tone.
    pub wrong_ends: u64,
}

/// A run of calls.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Calls asked for.
    pub calls: u32,
    /// Calls begun.
    pub placed: u32,
    /// Calls answered.
    pub answered: u32,
    /// Calls that were right in every way.
    pub ok: u32,
    /// Calls begun that were not.
    pub failed: u32,
    /// Ended by Ctrl-C before its time.
    pub interrupted: bool,
    /// Length of the whole run, s.
    pub elapsed_s: f64,
    /// INVITE to 200.
    pub setup_ms: Percentiles,
    /// INVITE to the first response above 100.
    pub ringing_ms: Percentiles,
    /// BYE to its answer.
    pub teardown_ms: Percentiles,
    /// Estimated mean opinion score of each end that was to hear something, 1 to 4.5.
    pub mos: Percentiles,
    /// Jitter of each stream at its end.
    pub jitter_ms: Percentiles,
    /// RTP from sending to arrival.
    pub latency_ms: Percentiles,
    /// How late RTP left against its schedule: the generator's own share of the jitter.
    pub send_lateness_ms: Percentiles,
    /// Sums.
    pub rtp: Totals,
    /// Each call.
    pub results: Vec<CallResult>,
}

impl Report {
    /// Whether every call asked for was made and was right.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.ok == self.calls
    }

    /// Fills the counts and sums from `results`.
    pub(crate) fn sum_up(&mut self) {
        self.placed = self.results.len() as u32;
        self.answered = self
            .results
            .iter()
            .filter(|call| call.status == 200)
            .count() as u32;
        self.ok = self.results.iter().filter(|call| call.ok).count() as u32;
        self.failed = self.placed - self.ok;
        let mut totals = Totals::default();
        for end in self
            .results
            .iter()
            .flat_map(|call| [&call.caller, &call.callee])
            .flatten()
        {
            totals.sent += end.sent;
            totals.expected += end.expected;
            totals.received += end.received;
            totals.lost += end.lost;
            totals.duplicates += end.duplicates;
            totals.reordered += end.reordered;
            totals.rtcp += end.rtcp;
            totals.wrong_ends += u64::from(!end.heard_right_tone());
        }
        self.rtp = totals;
    }

    /// The report for a terminal.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let rtp = &self.rtp;
        let interrupted = if self.interrupted {
            " (interrupted)"
        } else {
            ""
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "calls      {} asked, {} placed, {} answered, {} ok, {} failed in {:.1} s{interrupted}",
            self.calls, self.placed, self.answered, self.ok, self.failed, self.elapsed_s
        );
        let _ = writeln!(
            text,
            "rtp        {} sent, {} received, {} lost, {} duplicates, {} reordered, {} rtcp, {} ends with a wrong tone",
            rtp.sent,
            rtp.received,
            rtp.lost,
            rtp.duplicates,
            rtp.reordered,
            rtp.rtcp,
            rtp.wrong_ends
        );
        let _ = writeln!(
            text,
            "{:<14} {:>7} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "ms", "count", "min", "p50", "p90", "p99", "p99.9", "max"
        );
        for (name, values) in [
            ("set-up", &self.setup_ms),
            ("ringing", &self.ringing_ms),
            ("teardown", &self.teardown_ms),
            ("jitter", &self.jitter_ms),
            ("latency", &self.latency_ms),
            ("send lateness", &self.send_lateness_ms),
        ] {
            let _ = writeln!(
                text,
                "{name:<14} {:>7} {:>9.3} {:>9.3} {:>9.3} {:>9.3} {:>9.3} {:>9.3}",
                values.count,
                values.min,
                values.p50,
                values.p90,
                values.p99,
                values.p99_9,
                values.max
            );
        }
        let _ = writeln!(
            text,
            "{:<14} {:>7} {:>9.2} {:>9.2} (estimated from loss and jitter: least, median)",
            "mos", self.mos.count, self.mos.min, self.mos.p50
        );
        for call in self.results.iter().filter(|call| !call.ok).take(20) {
            let _ = writeln!(text, "call {}: {}", call.call, call.failure);
        }
        if self.failed > 20 {
            let _ = writeln!(text, "and {} more that failed", self.failed - 20);
        }
        text
    }
}
