//! A worker as the conductor sees it: its queues, its slots, its load.

use std::collections::VecDeque;

use crate::worker::message::{WorkerCommand, WorkerEvent, WorkerQueues};

/// Commands held for a worker before link commands are left in their ring.
const HELD_BUSY: usize = 1_024;

/// How long recording starts wait for ready extents.
const STARVED_NS: u64 = 100_000_000;

/// Whose socket a slot holds: interface index and even port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PairKey {
    /// Interface index.
    pub interface: u8,
    /// The pair's even port.
    pub port: u16,
}

/// One worker.
#[derive(Debug)]
pub struct WorkerSeat {
    queues: WorkerQueues,
    held: VecDeque<WorkerCommand>,
    /// Recording starts that the worker has not answered: each takes a ready extent.
    starts: usize,
    /// Since when a start is held because no extent is ready, CLOCK_MONOTONIC ns.
    starved_ns: Option<u64>,
    /// CLOCK_MONOTONIC ns of this turn.
    now_ns: u64,
    free_slots: VecDeque<u32>,
    owners: Vec<Option<PairKey>>,
    /// Sessions on it.
    pub sessions: usize,
    /// It found no ready extent.
    pub extents_short: bool,
    /// It has said that it ended.
    pub ended: bool,
}

impl WorkerSeat {
    /// A worker with an empty device of `slots_max` slots.
    #[must_use]
    pub fn new(queues: WorkerQueues, slots_max: u32) -> Self {
        Self {
            queues,
            held: VecDeque::new(),
            starts: 0,
            starved_ns: None,
            now_ns: 0,
            free_slots: (0..slots_max).collect(),
            owners: vec![None; slots_max as usize],
            sessions: 0,
            extents_short: false,
            ended: false,
        }
    }

    /// A turn begins.
    pub fn begin_turn(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
    }

    /// A recording start was answered.
    pub fn start_answered(&mut self) {
        self.starts = self.starts.saturating_sub(1);
    }

    /// Whether the next command is a recording start that no ready extent is left for. A thousand
    /// starts at once would empty the worker's queue before the recorder looks, and lose the
    /// facts that open a recording; where the pool itself is empty, they go on after a while.
    fn starves(&mut self) -> bool {
        let starts = matches!(
            self.held.front(),
            Some(WorkerCommand::RecordingStart { .. })
        );
        if !starts {
            return false;
        }
        if self.queues.capture.ready.len() > self.starts {
            self.starved_ns = None;
            return false;
        }
        self.queues.recorder_bell.ring();
        let since_ns = *self.starved_ns.get_or_insert(self.now_ns);
        self.now_ns.saturating_sub(since_ns) < STARVED_NS
    }

    /// Sends a command; it is held while the worker's queue is full.
    pub fn send(&mut self, command: WorkerCommand) {
        self.held.push_back(command);
        self.flush();
    }

    /// Sends what is held. `true`: some of it still is.
    pub fn flush(&mut self) -> bool {
        let mut sent = false;
        while !self.starves()
            && let Some(command) = self.held.pop_front()
        {
            let starts = matches!(command, WorkerCommand::RecordingStart { .. });
            if let Err(command) = self.queues.commands.push(command) {
                self.held.push_front(command);
                break;
            }
            self.starts += usize::from(starts);
            sent = true;
        }
        if sent {
            self.queues.worker_bell.ring();
        }
        !self.held.is_empty()
    }

    /// Whether it is so far behind that control has to wait.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.held.len() >= HELD_BUSY
    }

    /// Its next event.
    #[must_use]
    pub fn next_event(&self) -> Option<WorkerEvent> {
        self.queues.events.pop()
    }

    /// Whether events wait.
    #[must_use]
    pub fn has_events(&self) -> bool {
        !self.queues.events.is_empty()
    }

    /// Slots to be had.
    #[must_use]
    pub fn slots_free(&self) -> usize {
        self.free_slots.len()
    }

    /// Two slots for a pair; `None` when the device is full. The oldest free ones come first.
    pub fn take_slots(&mut self, owner: PairKey) -> Option<[u32; 2]> {
        if self.free_slots.len() < 2 {
            return None;
        }
        let slots = [self.free_slots.pop_front()?, self.free_slots.pop_front()?];
        for slot in slots {
            self.owners[slot as usize] = Some(owner);
        }
        Some(slots)
    }

    /// A slot's socket is closed: whose it was.
    pub fn free_slot(&mut self, slot: u32) -> Option<PairKey> {
        let owner = self.owners.get_mut(slot as usize)?.take()?;
        self.free_slots.push_back(slot);
        Some(owner)
    }
}
