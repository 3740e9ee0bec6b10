//! The conductor's loop and its orderly end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use trunkline_link::counters::ConductorCounter;
use trunkline_link::monotonic_ns;

use super::Conductor;
use crate::recorder::RecorderCommand;
use crate::worker::message::WorkerCommand;

/// Between looks at a queue that is full.
const FULL_RETRY_NS: u64 = 1_000_000;
/// How long workers may take to end.
const WORKERS_END_NS: u64 = 5_000_000_000;
/// How long the recorder may take to write what is left.
const RECORDER_END_NS: u64 = 10_000_000_000;

/// What wakes the conductor besides its queues: becomes readable when the process is asked to end.
pub trait StopSignal {
    /// To poll.
    fn as_fd(&self) -> BorrowedFd<'_>;
    /// Whether the end was asked for.
    fn asked(&mut self) -> bool;
}

impl Conductor {
    /// Runs until the stop signal, then ends everything in order: workers hand over their recordings,
    /// the recorder writes them, control hears of it. `recorder_ended` tells when its thread is gone.
    ///
    /// # Errors
    /// Those of the kernel on our own descriptors: nothing sensible can be done then.
    pub fn run(
        mut self,
        stop: &mut impl StopSignal,
        recorder_ended: impl Fn() -> bool,
    ) -> io::Result<()> {
        while !stop.asked() {
            let now_ns = monotonic_ns()?;
            let more = self.turn(now_ns)?;
            self.wait(more, now_ns, Some(stop.as_fd()))?;
        }
        self.end(recorder_ended)
    }

    /// One bounded round of work. `true`: there is more.
    pub(super) fn turn(&mut self, now_ns: u64) -> io::Result<bool> {
        let service = self.server.service(now_ns).map_err(io::Error::other)?;
        self.counters.add(
            ConductorCounter::AttachesRefused,
            u64::from(service.refused),
        );
        if service.detached {
            tracing::info!(sessions = self.sessions.len(), "control went away");
            self.on_detached(now_ns);
        }
        if let Some((epoch, pid)) = service.attached {
            tracing::info!(
                epoch,
                pid,
                sessions = self.sessions.len(),
                "control attached"
            );
            self.counters.add(ConductorCounter::Attaches, 1);
            self.snapshot_given = false;
            self.outbox.begin_attach();
            self.draining = self.stopping;
        }
        for worker in &mut self.workers {
            worker.begin_turn(now_ns);
        }
        let mut more = self.take_events(now_ns);
        more |= self.take_commands(now_ns);
        self.advance_snapshots(now_ns);
        more |= self.housekeep(now_ns);
        self.full = false;
        for worker in &mut self.workers {
            self.full |= worker.flush();
        }
        self.full |= self.outbox.flush(&mut self.server);
        Ok(more || self.can_advance_snapshots())
    }

    /// Sleeps until something comes, a deadline passes, or not at all when there is work.
    fn wait(&mut self, more: bool, now_ns: u64, stop: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let deadline_ns = if self.full {
            now_ns + FULL_RETRY_NS
        } else {
            self.next_deadline_ns()
        };
        self.bell.about_to_sleep();
        let idle = !more
            && self.server.prepare_wait()
            && self.recorder.notices.is_empty()
            && !self.workers.iter().any(|worker| worker.has_events());
        // Behind a full queue there is nothing to do but wait, whatever else has come.
        let sleeps = !more && (idle || self.full);
        let timeout_ns = if sleeps {
            deadline_ns.saturating_sub(now_ns)
        } else {
            0
        };
        // Whole milliseconds, rounded up, so that a deadline is not woken for twice.
        let timeout_ms = i32::try_from(timeout_ns.div_ceil(1_000_000)).unwrap_or(i32::MAX);
        let mut files = vec![
            PollFd::new(self.server.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.bell.doorbell().as_fd(), PollFlags::POLLIN),
        ];
        files.extend(stop.map(|stop| PollFd::new(stop, PollFlags::POLLIN)));
        let timeout = PollTimeout::try_from(timeout_ms).unwrap_or(PollTimeout::MAX);
        match poll(&mut files, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let rung = files[1].any().unwrap_or(false);
        drop(files);
        self.bell.awake();
        if rung {
            self.bell.doorbell().answer();
        }
        Ok(())
    }

    /// The orderly end.
    fn end(mut self, recorder_ended: impl Fn() -> bool) -> io::Result<()> {
        tracing::info!(sessions = self.sessions.len(), "ending");
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        self.stopping = true;
        self.draining = true;
        let sessions: Vec<_> = self.sessions.keys().copied().collect();
        for session in sessions {
            self.report_drops(session);
        }
        for worker in &mut self.workers {
            worker.send(WorkerCommand::Shutdown);
        }
        let all_ended = |this: &Self| this.workers.iter().all(|worker| worker.ended);
        if !self.run_until(WORKERS_END_NS, all_ended)? {
            tracing::error!("a worker does not end");
        }
        let mut stop = Some(RecorderCommand::Stop);
        let stopped = |this: &Self| {
            if let Some(command) = stop.take() {
                stop = this.recorder.commands.push(command).err();
                this.recorder.bell.ring();
            }
            recorder_ended() && this.recorder.notices.is_empty()
        };
        if !self.run_until(RECORDER_END_NS, stopped)? {
            tracing::error!("the recorder does not end");
        }
        // Control reads the last events from the ring, which outlives us.
        self.outbox.flush(&mut self.server);
        Ok(())
    }

    /// Goes on serving until the condition holds (true) or the time is over.
    fn run_until(
        &mut self,
        limit_ns: u64,
        mut done: impl FnMut(&Self) -> bool,
    ) -> io::Result<bool> {
        let deadline_ns = monotonic_ns()? + limit_ns;
        loop {
            let now_ns = monotonic_ns()?;
            self.turn(now_ns)?;
            if done(self) {
                return Ok(true);
            }
            if now_ns >= deadline_ns {
                return Ok(false);
            }
            // The end of a thread rings no bell.
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
