//! The conductor: the one cold thread that talks to control. It validates commands, binds sockets,
//! hands sessions to workers, and answers once the worker has confirmed.
//!
//! ```text
//!   control -- ring --> poll_command --> commands.rs --> WorkerCommand --> worker
//!   control <-- ring -- outbox.rs <----- events.rs <---- WorkerEvent <---- worker
//!                                              ^-------- RecorderNotice <- recorder
//! ```
//! Its files: `run` the loop, `commands` what control asks, `open` sessions and their ports,
//! `sources` what is played to parties,
//! `events` what workers and recorder report, `snapshot` what a new control is told, `housekeeping`
//! what happens by the clock.

mod commands;
mod events;
mod housekeeping;
mod open;
mod outbox;
mod pending;
mod recordings;
mod run;
mod session;
mod snapshot;
mod sources;
mod worker_seat;

pub use run::StopSignal;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use trunkline_link::attach::Server;
use trunkline_link::counters::CounterWriter;
use trunkline_link::limits::ORPHAN_SILENCE_S;
use trunkline_link::message::{AlarmCode, Event, FailReason};

use crate::ports::PortPool;
use crate::recorder::{RecorderCommand, RecorderNotice};
use crate::worker::message::{Bell, WorkerQueues};
use open::Opening;
use outbox::Outbox;
use pending::{Pending, ReplyTo, Wanted};
use recordings::Recordings;
use session::Session;
use snapshot::Snapshot;
use sources::Sources;
use worker_seat::{PairKey, WorkerSeat};

/// The recorder as the conductor sees it.
#[derive(Debug, Clone)]
pub struct RecorderSeat {
    /// To it.
    pub commands: Arc<ArrayQueue<RecorderCommand>>,
    /// From it.
    pub notices: Arc<ArrayQueue<RecorderNotice>>,
    /// Wakes it.
    pub bell: Arc<Bell>,
}

/// Times that tests shorten.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Silence after which a session that no control claims ends, ns.
    pub orphan_silence_ns: u64,
    /// After which a recording whose session is gone is finished without control, ns.
    pub left_alone_ns: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            orphan_silence_ns: ORPHAN_SILENCE_S * 1_000_000_000,
            left_alone_ns: 30_000_000_000,
        }
    }
}

/// What the conductor is made of, put together by the topology.
pub struct Parts {
    /// The link.
    pub server: Server,
    /// Port pools by interface index.
    pub pools: Vec<PortPool>,
    /// Each worker's queues and slots.
    pub workers: Vec<(WorkerQueues, u32)>,
    /// The recorder.
    pub recorder: RecorderSeat,
    /// Wakes the conductor.
    pub bell: Arc<Bell>,
    /// Its counter page.
    pub counters: CounterWriter,
    /// Times.
    pub timing: Timing,
}

/// The conductor's state.
pub struct Conductor {
    server: Server,
    outbox: Outbox,
    pools: Vec<PortPool>,
    workers: Vec<WorkerSeat>,
    recorder: RecorderSeat,
    bell: Arc<Bell>,
    counters: CounterWriter,
    timing: Timing,
    sessions: HashMap<u64, Session>,
    recordings: Recordings,
    sources: Sources,
    openings: Vec<Opening>,
    pending: Pending,
    /// Pairs of which one of the two sockets is closed.
    half_closed: HashMap<PairKey, ()>,
    /// Sessions whose drop counters are still to be read in this round.
    sweep: Vec<u64>,
    alarms: Vec<AlarmCode>,
    rests_cut_seen: u64,
    rests_cut_ns: u64,
    draining: bool,
    stopping: bool,
    /// The attached control has asked for a snapshot before.
    snapshot_given: bool,
    /// When the last control went away.
    left_ns: u64,
    snapshots: VecDeque<Snapshot>,
    /// A queue out of here is full.
    full: bool,
    /// systemd wants to hear of us.
    watchdog: bool,
    next_second_ns: u64,
    next_retry_ns: u64,
    next_orphans_ns: u64,
}

impl Conductor {
    /// A conductor with nothing to do yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let workers = parts
            .workers
            .into_iter()
            .map(|(queues, slots)| WorkerSeat::new(queues, slots));
        Self {
            server: parts.server,
            outbox: Outbox::default(),
            pools: parts.pools,
            workers: workers.collect(),
            recorder: parts.recorder,
            bell: parts.bell,
            counters: parts.counters,
            timing: parts.timing,
            sessions: HashMap::new(),
            recordings: Recordings::new(),
            sources: Sources::default(),
            openings: Vec::new(),
            pending: Pending::default(),
            half_closed: HashMap::new(),
            sweep: Vec::new(),
            alarms: Vec::new(),
            rests_cut_seen: 0,
            rests_cut_ns: 0,
            draining: false,
            stopping: false,
            snapshot_given: false,
            left_ns: 0,
            snapshots: VecDeque::new(),
            full: false,
            watchdog: sd_notify::watchdog_enabled().is_some(),
            next_second_ns: 0,
            next_retry_ns: u64::MAX,
            next_orphans_ns: 0,
        }
    }

    /// Sends an event to control.
    fn tell(&mut self, event: Event, now_ns: u64) {
        self.outbox.send(&mut self.server, event, now_ns);
    }

    /// Whether this control still listens, and wants an answer.
    fn listens(&self, reply: ReplyTo) -> bool {
        reply.request != 0 && self.server.is_attached() && reply.epoch == self.server.epoch()
    }

    /// Answers a request that took effect.
    fn done(&mut self, reply: Option<ReplyTo>, now_ns: u64) {
        if let Some(reply) = reply.filter(|reply| self.listens(*reply)) {
            self.tell(
                Event::Done {
                    request: reply.request,
                },
                now_ns,
            );
        }
    }

    /// Answers a request that did not.
    fn failed(&mut self, reply: Option<ReplyTo>, reason: FailReason, now_ns: u64) {
        use trunkline_link::counters::ConductorCounter::CommandsFailed;
        self.counters.add(CommandsFailed, 1);
        if let Some(reply) = reply.filter(|reply| self.listens(*reply)) {
            self.tell(
                Event::Failed {
                    request: reply.request,
                    reason,
                },
                now_ns,
            );
        }
    }

    /// A request number for a worker.
    fn ask(&mut self, reply: Option<ReplyTo>, wanted: Wanted, now_ns: u64) -> u64 {
        self.pending.add(reply, wanted, now_ns)
    }

    /// Raises or clears an alarm; told once each.
    fn alarm(&mut self, code: AlarmCode, active: bool, now_ns: u64) {
        let known = self.alarms.iter().position(|known| *known == code);
        match (known, active) {
            (None, true) => self.alarms.push(code),
            (Some(place), false) => {
                self.alarms.remove(place);
            }
            _ => return,
        }
        if active {
            tracing::warn!(?code, "alarm raised");
        } else {
            tracing::info!(?code, "alarm cleared");
        }
        self.tell(Event::Alarm { code, active }, now_ns);
    }
}

#[cfg(test)]
mod tests;
