//! What happens by the clock.

use trunkline_link::counters::ConductorCounter;
use trunkline_link::message::{AlarmCode, FailReason};

use super::Conductor;
use super::pending::Wanted;
use super::session::Phase;
use crate::worker::message::WorkerCommand;

const SECOND_NS: u64 = 1_000_000_000;
/// Pairs bound ahead in one turn.
const BINDS_A_TURN: usize = 16;
/// Sessions whose drop counters are read in one turn.
const SWEEP_A_TURN: usize = 128;
/// The ports alarm ends this long after the last cut rest.
const PORTS_CALM_NS: u64 = 30 * SECOND_NS;

impl Conductor {
    /// Does what is due. `true`: there is more to do at once.
    pub(super) fn housekeep(&mut self, now_ns: u64) -> bool {
        if now_ns >= self.next_retry_ns {
            self.retry_openings(now_ns);
        }
        if now_ns >= self.next_second_ns {
            self.next_second_ns = now_ns + SECOND_NS;
            self.every_second(now_ns);
        }
        let mut more = false;
        for pool in &mut self.pools {
            more |= pool.housekeep(now_ns, BINDS_A_TURN);
        }
        let rest = self.sweep.len().saturating_sub(SWEEP_A_TURN);
        for session in self.sweep.split_off(rest) {
            self.report_drops(session);
        }
        more || !self.sweep.is_empty()
    }

    /// When [`Self::housekeep`] is due next, CLOCK_MONOTONIC ns.
    pub(super) fn next_deadline_ns(&self) -> u64 {
        self.next_second_ns.min(self.next_retry_ns)
    }

    fn every_second(&mut self, now_ns: u64) {
        self.server.beat(now_ns);
        if self.watchdog {
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
        }
        if self.sweep.is_empty() {
            self.sweep.extend(self.sessions.keys());
        }
        for waiting in self.pending.overdue(now_ns) {
            tracing::error!(wanted = ?waiting.wanted, "a worker does not answer");
            self.failed(waiting.reply, FailReason::Internal, now_ns);
            // Nobody knows of a session that was refused: it goes when the worker comes round.
            if let Wanted::Session { session } = waiting.wanted
                && self.sessions.contains_key(&session)
            {
                self.remove_session(session, None, now_ns);
            }
        }
        if now_ns.saturating_sub(self.rests_cut_ns) >= PORTS_CALM_NS {
            self.alarm(AlarmCode::PortsShort, false, now_ns);
        }
        self.finish_recordings_left_alone(now_ns);
        self.look_for_orphans(now_ns);
        self.set_gauges();
    }

    /// Control closed a session and never finished its recording.
    fn finish_recordings_left_alone(&mut self, now_ns: u64) {
        let patience = self.timing.left_alone_ns;
        let due = self.recordings.iter().filter(|(_, recording)| {
            let left = recording.left_alone;
            !recording.finishing && left.is_some_and(|since| now_ns >= since + patience)
        });
        let due: Vec<_> = due.map(|(number, _)| *number).collect();
        for recording in due {
            let _ = self.finish_recording(None, recording, now_ns);
        }
    }

    /// Asks workers for silent sessions when there are any that no control claims.
    fn look_for_orphans(&mut self, now_ns: u64) {
        let silent_ns = self.timing.orphan_silence_ns;
        if now_ns < self.next_orphans_ns {
            return;
        }
        self.next_orphans_ns = now_ns + (silent_ns / 12).max(SECOND_NS / 10);
        let mut ask = vec![false; self.workers.len()];
        for session in self.sessions.values() {
            let unclaimed = session
                .unclaimed_ns
                .is_some_and(|since| now_ns >= since + silent_ns);
            if unclaimed && session.phase == Phase::Live {
                ask[session.worker] = true;
            }
        }
        for (worker, _) in ask.into_iter().enumerate().filter(|(_, ask)| *ask) {
            self.workers[worker].send(WorkerCommand::ListSilent { silent_ns });
        }
    }

    /// A worker reports a silent session. It ends if nobody has claimed it for as long; a call on
    /// hold gets the same time as any other for its control to come back.
    pub(super) fn on_silent(&mut self, session: u64, last_packet_ns: u64, now_ns: u64) {
        let silence = self.timing.orphan_silence_ns;
        let Some(entry) = self.sessions.get_mut(&session) else {
            return;
        };
        let Some(unclaimed_ns) = entry.unclaimed_ns else {
            return;
        };
        let since = unclaimed_ns.max(last_packet_ns);
        if entry.phase == Phase::Live && now_ns >= since + silence {
            tracing::info!(
                session,
                "ends: no control claims it and its media is silent"
            );
            entry.orphaned = true;
            self.remove_session(session, None, now_ns);
        }
    }

    /// Control went away: its sessions go on, claimed by nobody.
    pub(super) fn on_detached(&mut self, now_ns: u64) {
        self.left_ns = now_ns;
        self.outbox.forget();
        self.snapshots.clear();
        self.cancel_openings();
        for session in self.sessions.values_mut() {
            session.unclaimed_ns.get_or_insert(now_ns);
        }
    }

    fn set_gauges(&mut self) {
        use ConductorCounter as Counter;
        let (mut pairs, mut free, mut resting, mut used) = (0, 0, 0, 0);
        let (mut cut, mut failed) = (0, 0);
        for counts in self.pools.iter().map(|pool| pool.counts()) {
            pairs += counts.pairs;
            free += counts.free;
            resting += counts.resting;
            used += counts.used;
            cut += counts.rests_cut;
            failed += counts.binds_failed;
        }
        for (counter, value) in [
            (Counter::Sessions, self.sessions.len() as u64),
            (Counter::PortPairs, pairs),
            (Counter::PortPairsFree, free),
            (Counter::PortPairsResting, resting),
            (Counter::PortPairsUsed, used),
            (Counter::PortRestsCut, cut),
            (Counter::PortBindsFailed, failed),
            (Counter::Events, self.outbox.sent),
            (Counter::EventsDropped, self.outbox.dropped),
            (Counter::Draining, u64::from(self.draining)),
        ] {
            self.counters.set(counter, value);
        }
    }
}
