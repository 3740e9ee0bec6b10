//! Events on their way to the conductor.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

use super::message::WorkerEvent;

/// Reports held while the queue is full; beyond that, those that can be spared are dropped.
const HELD_MAX: usize = 16_384;

/// The worker's end of its event queue.
#[derive(Debug)]
pub(super) struct Reports {
    queue: Arc<ArrayQueue<WorkerEvent>>,
    held: VecDeque<WorkerEvent>,
    sent: bool,
    /// Reports that came to nothing.
    pub(super) dropped: u64,
}

impl Reports {
    pub(super) fn new(queue: Arc<ArrayQueue<WorkerEvent>>) -> Self {
        Self {
            queue,
            held: VecDeque::new(),
            sent: false,
            dropped: 0,
        }
    }

    /// Tells the conductor, later if its queue is full.
    pub(super) fn tell(&mut self, event: WorkerEvent) {
        if self.held.is_empty() {
            match self.queue.push(event) {
                Ok(()) => self.sent = true,
                Err(event) => self.held.push_back(event),
            }
            return;
        }
        let spare = matches!(
            event,
            WorkerEvent::RecordingProgress { .. }
                | WorkerEvent::ForkProgress { .. }
                | WorkerEvent::SessionSilent { .. }
        );
        if spare || self.held.len() >= HELD_MAX {
            self.dropped += 1;
        } else {
            self.held.push_back(event);
        }
    }

    /// Sends what was held. True when anything was sent since the last call.
    pub(super) fn flush(&mut self) -> bool {
        while let Some(event) = self.held.pop_front() {
            if let Err(event) = self.queue.push(event) {
                self.held.push_front(event);
                break;
            }
            self.sent = true;
        }
        std::mem::take(&mut self.sent)
    }

    /// Whether reports wait for room.
    pub(super) fn is_behind(&self) -> bool {
        !self.held.is_empty()
    }
}
