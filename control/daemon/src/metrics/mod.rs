//! Metrics: what the core counts, and what the dataplane's counter pages say at the scrape.
//!
//! Counters of the dataplane begin at zero with each of its lives; the sums of earlier lives are
//! added here, so that what a scrape sees only rises.

mod encode;

use crate::siprec::session::State;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use trunkline_hooks::SinkCounts;
use trunkline_link::message::DropReason;
use trunkline_link::{ConductorCounter, CounterReader, RecorderCounter, WorkerCounter};
use trunkline_sinks::catalog::Undelivered;
use trunkline_sinks::object::{Receipt, Verdict};

/// Servers and states of recording sessions that are told apart.
const SIPREC_SERIES_MAX: usize = 1000;

/// How a call ended, as `trunkline_calls_total` tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallResult {
    /// It was answered.
    Answered,
    /// The caller gave up.
    Cancelled,
    /// 486, 600.
    Busy,
    /// Another final response of the far side.
    Rejected,
    /// Nobody answered in time.
    NoAnswer,
    /// No route matched.
    NoRoute,
    /// Refused by us: a limit, draining, no dataplane.
    Refused,
    /// Anything else: not acceptable, not reachable, an error.
    Failed,
}

impl CallResult {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 8] = [
        Self::Answered,
        Self::Cancelled,
        Self::Busy,
        Self::Rejected,
        Self::NoAnswer,
        Self::NoRoute,
        Self::Refused,
        Self::Failed,
    ];

    /// The label's value.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Cancelled => "cancelled",
            Self::Busy => "busy",
            Self::Rejected => "rejected",
            Self::NoAnswer => "no_answer",
            Self::NoRoute => "no_route",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// What the core counts. Shared; every method may be called from any thread.
#[derive(Debug, Default)]
pub struct Metrics {
    calls_active: AtomicU64,
    calls: [AtomicU64; CallResult::ALL.len()],
    recordings: [AtomicU64; Verdict::ALL.len()],
    recordings_expected: AtomicU64,
    recordings_active: AtomicU64,
    sources_refused: AtomicU64,
    sources_banned: AtomicU64,
    banned_dropped: AtomicU64,
    messages_malformed: AtomicU64,
    dataplane_restarts: AtomicU64,
    cdrs_dropped: AtomicU64,
    hooks: Mutex<Vec<SinkCounts>>,
    /// Recording sessions by server and state.
    siprec: Mutex<BTreeMap<(String, State), u64>>,
    undelivered: Mutex<Vec<Undelivered>>,
    /// Packets that receipts of finished recordings report as dropped for a reason that no worker
    /// can count itself.
    receipt_dropped: [AtomicU64; DropReason::ALL.len()],
    /// The same with recordings that run, as far as a scrape has seen: what is shown never falls.
    receipt_dropped_seen: [AtomicU64; DropReason::ALL.len()],
    dataplane: Mutex<Dataplane>,
}

/// What a receipt says was dropped for reasons that no worker counts: extents that the disk refused,
/// or that died with a dataplane.
fn dropped_by_receipt(receipt: &Receipt) -> impl Iterator<Item = (DropReason, u64)> {
    [DropReason::Disk, DropReason::Restart]
        .into_iter()
        .map(|reason| {
            let count = |side: &trunkline_sinks::object::Tally| {
                side.dropped_by
                    .get(reason.name())
                    .copied()
                    .unwrap_or_default()
            };
            (reason, count(&receipt.caller) + count(&receipt.callee))
        })
}

/// The attached dataplane's counters and the sums of those before it.
#[derive(Debug, Default)]
struct Dataplane {
    reader: Option<Arc<CounterReader>>,
    workers_before: Vec<u64>,
    conductor_before: Vec<u64>,
    recorder_before: Vec<u64>,
}

impl Metrics {
    /// Sets the number of live calls.
    pub fn set_calls_active(&self, calls: usize) {
        self.calls_active.store(calls as u64, Relaxed);
    }

    /// Counts a call that is over.
    pub fn call_ended(&self, result: CallResult) {
        self.calls[result as usize].fetch_add(1, Relaxed);
    }

    /// Counts a recording that policy or the API asked for.
    pub fn recording_expected(&self) {
        self.recordings_expected.fetch_add(1, Relaxed);
    }

    /// Sets the number of recordings that run.
    pub fn set_recordings_active(&self, recordings: usize) {
        self.recordings_active.store(recordings as u64, Relaxed);
    }

    /// Counts a recording that has its verdict, and the packets that only its receipt knows of:
    /// those in extents that the disk refused or that died with a dataplane.
    pub fn recording_finished(&self, verdict: Verdict, receipt: &Receipt) {
        let index = Verdict::ALL
            .iter()
            .position(|one| *one == verdict)
            .unwrap_or_default();
        self.recordings[index].fetch_add(1, Relaxed);
        for (reason, dropped) in dropped_by_receipt(receipt) {
            self.receipt_dropped[reason as usize].fetch_add(dropped, Relaxed);
        }
    }

    /// What receipts of finished recordings say now; to be asked before the running ones are.
    #[must_use]
    pub fn finished_receipts_dropped(&self) -> [u64; DropReason::ALL.len()] {
        std::array::from_fn(|reason| self.receipt_dropped[reason].load(Relaxed))
    }

    /// Adds what the receipts of running recordings say. `finished` was read before them, so a
    /// recording that finished meanwhile is counted once or, until the next scrape, not at all.
    pub fn note_running<'r>(
        &self,
        mut finished: [u64; DropReason::ALL.len()],
        running: impl Iterator<Item = &'r Receipt>,
    ) {
        for (reason, dropped) in running.flat_map(dropped_by_receipt) {
            finished[reason as usize] += dropped;
        }
        for (seen, now) in self.receipt_dropped_seen.iter().zip(finished) {
            seen.fetch_max(now, Relaxed);
        }
    }

    /// Counts a source that is ignored from now on.
    pub fn source_banned(&self) {
        self.sources_banned.fetch_add(1, Relaxed);
    }

    /// Counts a message of a banned source.
    pub fn banned_dropped(&self) {
        self.banned_dropped.fetch_add(1, Relaxed);
    }

    /// Counts a SIP request from a source that is not allowed.
    pub fn source_refused(&self) {
        self.sources_refused.fetch_add(1, Relaxed);
    }

    /// Counts a SIP message that could not be read.
    pub fn message_malformed(&self) {
        self.messages_malformed.fetch_add(1, Relaxed);
    }

    /// Records dropped so far, and what the hooks' sinks have done.
    pub fn set_records(&self, cdrs_dropped: u64, hooks: Vec<SinkCounts>) {
        self.cdrs_dropped.store(cdrs_dropped, Relaxed);
        *self.hooks.lock().unwrap_or_else(PoisonError::into_inner) = hooks;
    }

    /// Sets how many recording sessions each server has in each state. A server that had some stays, with
    /// zero.
    pub fn set_siprec(&self, sessions: impl Iterator<Item = (String, State)>) {
        let mut counts = self.siprec.lock().unwrap_or_else(PoisonError::into_inner);
        counts.values_mut().for_each(|count| *count = 0);
        for key in sessions {
            if counts.len() < SIPREC_SERIES_MAX || counts.contains_key(&key) {
                *counts.entry(key).or_default() += 1;
            }
        }
    }

    /// What waits for sinks and hooks.
    pub fn set_undelivered(&self, undelivered: Vec<Undelivered>) {
        *self
            .undelivered
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = undelivered;
    }

    fn dataplane(&self) -> MutexGuard<'_, Dataplane> {
        // No update can leave it half changed, so a poisoned lock is still good.
        self.dataplane
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A dataplane was attached. `same_process` = it is the one we knew before.
    pub fn dataplane_attached(&self, reader: Arc<CounterReader>, same_process: bool) {
        let mut dataplane = self.dataplane();
        if !same_process && dataplane.reader.is_some() {
            self.dataplane_restarts.fetch_add(1, Relaxed);
            dataplane.retire();
        }
        dataplane.reader = Some(reader);
    }

    /// Snapshot of a worker-by-worker table: for each worker its counters by name.
    #[must_use]
    pub fn workers(&self) -> Vec<Vec<(&'static str, u64)>> {
        let dataplane = self.dataplane();
        let Some(reader) = &dataplane.reader else {
            return Vec::new();
        };
        let counters = |worker| {
            let value = |counter: &WorkerCounter| (counter.name(), reader.worker(worker, *counter));
            WorkerCounter::ALL.iter().map(value).collect()
        };
        (0..reader.workers()).map(counters).collect()
    }

    /// The text of a scrape (OpenMetrics 1.0).
    #[must_use]
    pub fn scrape(self: &Arc<Self>) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Arc::clone(self)));
        let mut text = String::new();
        // Writing into a String cannot fail; an encoder's own error would leave the text short.
        if prometheus_client::encoding::text::encode(&mut text, &registry).is_err() {
            tracing::error!("metrics could not be encoded");
        }
        text
    }
}

/// What dataplanes that are gone had counted.
fn earlier(sums: &[u64], counter: usize) -> u64 {
    sums.get(counter).copied().unwrap_or_default()
}

impl Dataplane {
    fn worker(&self, counter: WorkerCounter) -> u64 {
        let now = self
            .reader
            .as_ref()
            .map_or(0, |reader| reader.workers_total(counter));
        earlier(&self.workers_before, counter as usize) + now
    }

    fn conductor(&self, counter: ConductorCounter) -> u64 {
        let now = self
            .reader
            .as_ref()
            .map_or(0, |reader| reader.conductor(counter));
        earlier(&self.conductor_before, counter as usize) + now
    }

    fn recorder(&self, counter: RecorderCounter) -> u64 {
        let now = self
            .reader
            .as_ref()
            .map_or(0, |reader| reader.recorder(counter));
        earlier(&self.recorder_before, counter as usize) + now
    }

    /// Keeps the sums of a dataplane that is gone.
    fn retire(&mut self) {
        self.workers_before = WorkerCounter::ALL
            .iter()
            .map(|one| self.worker(*one))
            .collect();
        self.conductor_before = ConductorCounter::ALL
            .iter()
            .map(|one| self.conductor(*one))
            .collect();
        self.recorder_before = RecorderCounter::ALL
            .iter()
            .map(|one| self.recorder(*one))
            .collect();
        self.reader = None;
    }

    /// A gauge of the recorder, without earlier lives.
    fn recorder_gauge(&self, counter: RecorderCounter) -> u64 {
        self.reader
            .as_ref()
            .map_or(0, |reader| reader.recorder(counter))
    }

    fn conductor_gauge(&self, counter: ConductorCounter) -> u64 {
        self.reader
            .as_ref()
            .map_or(0, |reader| reader.conductor(counter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use trunkline_link::Counters;

    fn reader(packets_in: u64, disk: u64) -> CounterReader {
        let (counters, writers) = Counters::create(2).unwrap();
        writers.workers[1].add(WorkerCounter::RtpPacketsIn, packets_in);
        writers.workers[0].add(WorkerCounter::CaptureDroppedNoExtent, disk);
        CounterReader::open(counters.file().as_fd().try_clone_to_owned().unwrap()).unwrap()
    }

    #[test]
    fn a_scrape_has_every_name_that_checks_read() {
        let metrics = Arc::new(Metrics::default());
        metrics.set_calls_active(3);
        metrics.call_ended(CallResult::Answered);
        metrics.recording_expected();
        metrics.recording_finished(Verdict::OneWay, &Receipt::default());
        metrics.dataplane_attached(Arc::new(reader(7, 2)), false);
        let text = metrics.scrape();
        for line in [
            "trunkline_calls_active 3",
            "trunkline_calls_total{result=\"answered\"} 1",
            "trunkline_calls_total{result=\"busy\"} 0",
            "trunkline_rtp_packets_total{direction=\"in\"} 7",
            "trunkline_rtp_packets_total{direction=\"out\"} 0",
            "trunkline_rtp_strangers_total 0",
            "trunkline_rtp_socket_drops_total 0",
            "trunkline_capture_dropped_total{reason=\"no_extent\"} 2",
            "trunkline_capture_dropped_total{reason=\"disk\"} 0",
            "trunkline_recordings_total{verdict=\"one_way\"} 1",
            "trunkline_recordings_total{verdict=\"complete\"} 0",
            "trunkline_recordings_expected_total 1",
            "# TYPE trunkline_siprec_sessions gauge",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn counters_rise_over_the_lives_of_dataplanes() {
        let metrics = Arc::new(Metrics::default());
        metrics.dataplane_attached(Arc::new(reader(7, 0)), false);
        metrics.dataplane_attached(Arc::new(reader(8, 0)), true);
        metrics.dataplane_attached(Arc::new(reader(5, 0)), false);
        let text = metrics.scrape();
        assert!(
            text.contains("trunkline_rtp_packets_total{direction=\"in\"} 13"),
            "{text}"
        );
        assert!(
            text.contains("trunkline_dataplane_restarts_total 1"),
            "{text}"
        );
        assert_eq!(metrics.workers().len(), 2);
    }

    #[test]
    fn what_only_a_receipt_knows_is_counted_too() {
        let metrics = Arc::new(Metrics::default());
        let mut receipt = Receipt::default();
        receipt.caller.dropped_by.insert("disk".to_owned(), 4);
        receipt.callee.dropped_by.insert("disk".to_owned(), 5);
        metrics.recording_finished(Verdict::Partial, &receipt);
        let text = metrics.scrape();
        assert!(
            text.contains("trunkline_capture_dropped_total{reason=\"disk\"} 9"),
            "{text}"
        );
    }
}
