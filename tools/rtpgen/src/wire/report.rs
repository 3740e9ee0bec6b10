//! What came of a run of flows.

use std::fmt::Write as _;

use serde::Serialize;

use crate::report::Percentiles;

/// One flow.
#[derive(Debug, Clone, Default, Serialize)]
pub struct FlowResult {
    /// The far port (stream) or our own (sink).
    pub port: u16,
    /// RTP packets sent, and refused by the kernel for good.
    pub sent: u64,
    /// See `sent`.
    pub send_errors: u64,
    /// RTP packets received.
    pub received: u64,
    /// Sequence numbers between the first and the last received.
    pub expected: u64,
    /// Of these, those that never came.
    pub lost: u64,
    /// Received again.
    pub duplicates: u64,
    /// Received after a later one.
    pub reordered: u64,
    /// Datagrams that were neither RTP nor RTCP.
    pub malformed: u64,
    /// RTCP datagrams received, or sent by a stream.
    pub rtcp: u64,
    /// RFC 3550 jitter at the end, ms.
    pub jitter_ms: f64,
    /// One-way latency of packets that carry a stamp of this machine's clock, ms.
    pub latency_ms: Percentiles,
}

/// Whether the generator itself was the limit.
#[derive(Debug, Clone, Default, Serialize)]
pub struct GeneratorReport {
    /// Packet socket (`packet`) or UDP sockets (`socket`).
    pub io: &'static str,
    /// Packets a second that the schedule asked for (stream).
    pub scheduled_per_second: f64,
    /// Packets a second that were sent or received.
    pub done_per_second: f64,
    /// Packets that the schedule asked for and that were never made, because we were too late.
    pub skipped: u64,
    /// Times the kernel had no room for a packet; it was offered again.
    pub full: u64,
    /// Packets that the kernel dropped before the sink could take them.
    pub dropped: u64,
    /// Run time of the thread, part of one core.
    pub busy: f64,
    /// True when what the run shows may be the generator's own limit.
    pub limited: bool,
    /// Why, or why not.
    pub proof: String,
}

/// A run of flows.
#[derive(Debug, Clone, Default, Serialize)]
pub struct FlowsReport {
    /// Length of the run, s.
    pub elapsed_s: f64,
    /// Ended by Ctrl-C before its time.
    pub interrupted: bool,
    /// Flows on which anything was sent or received.
    pub active: usize,
    /// RTP packets sent.
    pub sent: u64,
    /// RTP packets refused by the kernel for good.
    pub send_errors: u64,
    /// Of these errors the first, as the kernel words it.
    pub first_error: String,
    /// RTP packets received.
    pub received: u64,
    /// Lost.
    pub lost: u64,
    /// Duplicates.
    pub duplicates: u64,
    /// Reordered.
    pub reordered: u64,
    /// RTCP sent or received.
    pub rtcp: u64,
    /// Jitter of each flow at its end.
    pub jitter_ms: Percentiles,
    /// One-way latency of all packets.
    pub latency_ms: Percentiles,
    /// How late packets left against their schedule.
    pub send_lateness_ms: Percentiles,
    /// Whether the generator was the limit.
    pub generator: GeneratorReport,
    /// Each flow.
    pub flows: Vec<FlowResult>,
}

impl FlowsReport {
    /// Sums up the flows.
    pub(crate) fn sum_up(&mut self) {
        let sum = |of: fn(&FlowResult) -> u64| self.flows.iter().map(of).sum();
        self.active = self
            .flows
            .iter()
            .filter(|flow| flow.sent + flow.received > 0)
            .count();
        (self.sent, self.send_errors) = (sum(|flow| flow.sent), sum(|flow| flow.send_errors));
        (self.received, self.lost) = (sum(|flow| flow.received), sum(|flow| flow.lost));
        (self.duplicates, self.reordered) =
            (sum(|flow| flow.duplicates), sum(|flow| flow.reordered));
        self.rtcp = sum(|flow| flow.rtcp);
    }

    /// The report for a terminal.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let interrupted = if self.interrupted {
            " (interrupted)"
        } else {
            ""
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "flows     {} of {} active in {:.1} s{interrupted}",
            self.active,
            self.flows.len(),
            self.elapsed_s
        );
        let _ = writeln!(
            text,
            "rtp       {} sent, {} received, {} lost, {} duplicates, {} reordered, {} rtcp",
            self.sent, self.received, self.lost, self.duplicates, self.reordered, self.rtcp
        );
        if self.send_errors > 0 {
            let _ = writeln!(
                text,
                "errors    {} packets not sent: {}",
                self.send_errors, self.first_error
            );
        }
        let own = &self.generator;
        let _ = writeln!(
            text,
            "generator {} io, {:.0} packets/s, {:.0} % of a core; {}",
            own.io,
            own.done_per_second,
            own.busy * 100.0,
            own.proof
        );
        let _ = writeln!(
            text,
            "{:<14} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "ms", "count", "p50", "p99", "p99.9", "max"
        );
        for (name, values) in [
            ("latency", &self.latency_ms),
            ("jitter", &self.jitter_ms),
            ("send lateness", &self.send_lateness_ms),
        ] {
            let _ = writeln!(
                text,
                "{name:<14} {:>9} {:>9.3} {:>9.3} {:>9.3} {:>9.3}",
                values.count, values.p50, values.p99, values.p99_9, values.max
            );
        }
        self.write_worst(&mut text);
        text
    }

    /// The flows that lost most.
    fn write_worst(&self, text: &mut String) {
        let mut worst: Vec<_> = self
            .flows
            .iter()
            .filter(|flow| flow.lost + flow.duplicates + flow.reordered > 0)
            .collect();
        worst.sort_by_key(|flow| std::cmp::Reverse(flow.lost));
        if worst.is_empty() {
            return;
        }
        let _ = writeln!(
            text,
            "{:<6} {:>10} {:>8} {:>10} {:>10} {:>10} {:>12}",
            "port", "received", "lost", "duplicates", "reordered", "jitter ms", "latency p99"
        );
        for flow in worst.iter().take(10) {
            let _ = writeln!(
                text,
                "{:<6} {:>10} {:>8} {:>10} {:>10} {:>10.3} {:>12.3}",
                flow.port,
                flow.received,
                flow.lost,
                flow.duplicates,
                flow.reordered,
                flow.jitter_ms,
                flow.latency_ms.p99
            );
        }
        if worst.len() > 10 {
            let _ = writeln!(
                text,
                "and {} flows more (all of them with --json)",
                worst.len() - 10
            );
        }
    }
}
