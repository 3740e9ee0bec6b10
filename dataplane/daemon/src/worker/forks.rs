//! Forks as the conductor sees them.

use trunkline_device::Device;
use trunkline_link::message::{FailReason, ForkState, ForkStream};

use super::Worker;
use super::message::WorkerEvent;
use super::translate::{fail_reason, fork_state, link_side};

/// How often a fork reports what it has sent.
const PROGRESS_NS: u64 = 2_000_000_000;
/// Forks that report in one duty cycle.
const PROGRESS_PER_CYCLE: usize = 16;

impl<D: Device> Worker<D> {
    pub(super) fn on_fork_start(
        &mut self,
        now_ns: u64,
        session: u64,
        target: u64,
        unix_offset_ns: u64,
    ) -> Result<(), FailReason> {
        self.engine
            .start_fork(now_ns, session, target, unix_offset_ns)
            .map_err(fail_reason)?;
        let known = |&(_, from, to): &(u64, u64, u64)| (from, to) == (session, target);
        if !self.fork_progress.iter().any(known) {
            self.fork_progress
                .push_back((now_ns + PROGRESS_NS, session, target));
        }
        Ok(())
    }

    pub(super) fn on_fork_state(
        &mut self,
        session: u64,
        target: u64,
        state: ForkState,
    ) -> Result<(), FailReason> {
        self.engine
            .set_fork_state(session, target, fork_state(state))
            .map_err(fail_reason)
    }

    /// Ends a fork; what it has sent is reported a last time.
    pub(super) fn on_fork_stop(&mut self, session: u64, target: u64) -> Result<(), FailReason> {
        self.tell_fork(session, target);
        self.engine.stop_fork(session, target).map_err(fail_reason)
    }

    /// Tells what a fork has sent; false when it is gone.
    pub(super) fn tell_fork(&mut self, session: u64, target: u64) -> bool {
        let mut stats = Vec::new();
        if !self.engine.fork_stats(session, target, &mut stats) {
            return false;
        }
        let streams = stats.iter().map(|way| ForkStream {
            media: way.media,
            side: link_side(way.side),
            packets: way.packets,
            payload_bytes: way.payload_bytes,
            withheld: way.withheld,
        });
        self.reports.tell(WorkerEvent::ForkProgress {
            session,
            target,
            heard_ns: self.engine.fork_heard_ns(target),
            streams: streams.collect(),
        });
        true
    }

    /// A session goes away: what its forks, or the fork into it, have sent is told a last time.
    pub(super) fn tell_forks_of(&mut self, session: u64) {
        let ending: Vec<(u64, u64)> = self
            .fork_progress
            .iter()
            .map(|&(_, from, to)| (from, to))
            .filter(|&(from, to)| from == session || to == session)
            .collect();
        for (from, to) in ending {
            self.tell_fork(from, to);
        }
    }

    /// Every 2 s: what each fork has sent so far.
    pub(super) fn report_fork_progress(&mut self, now_ns: u64) {
        for _ in 0..PROGRESS_PER_CYCLE {
            let due = self
                .fork_progress
                .front()
                .filter(|&&(due_ns, ..)| due_ns <= now_ns);
            let Some(&(_, session, target)) = due else {
                return;
            };
            self.fork_progress.pop_front();
            if self.tell_fork(session, target) {
                self.fork_progress
                    .push_back((now_ns + PROGRESS_NS, session, target));
            }
        }
    }
}
