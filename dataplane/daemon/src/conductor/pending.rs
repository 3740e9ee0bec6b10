//! Requests that a worker has not answered yet.

use std::collections::{BTreeMap, HashMap};

/// Where an answer goes: a control's request, valid for one attach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyTo {
    /// Epoch of the attach.
    pub epoch: u64,
    /// Control's number.
    pub request: u64,
}

/// What the answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// A new session is installed.
    Session { session: u64 },
    /// More m-lines of a session are installed.
    Extension { session: u64 },
    /// A session is gone.
    Removal { session: u64 },
    /// `Done` is passed on.
    Plain,
    /// Capture runs.
    RecordingStart { recording: u64 },
    /// A recording's phase, passed on.
    RecordingPhase,
    /// A recording's rest is handed over; the recorder tells the end.
    RecordingFinish { recording: u64 },
}

/// One of them.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    /// Who wants to know; `None` = nobody (any more).
    pub reply: Option<ReplyTo>,
    /// What for.
    pub wanted: Wanted,
}

/// All of them, by the number that the worker was given.
#[derive(Debug, Default)]
pub struct Pending {
    waiting: HashMap<u64, Waiting>,
    /// CLOCK_MONOTONIC ns at which we stop waiting.
    deadlines: BTreeMap<u64, u64>,
    last: u64,
}

/// How long a worker may take.
const ANSWER_NS: u64 = 5_000_000_000;

impl Pending {
    /// A number for a request to a worker.
    pub fn add(&mut self, reply: Option<ReplyTo>, wanted: Wanted, now_ns: u64) -> u64 {
        self.last += 1;
        self.waiting.insert(self.last, Waiting { reply, wanted });
        self.deadlines.insert(self.last, now_ns + ANSWER_NS);
        self.last
    }

    /// The worker answered.
    pub fn take(&mut self, number: u64) -> Option<Waiting> {
        self.deadlines.remove(&number);
        self.waiting.remove(&number)
    }

    /// Requests overdue, told once; a late answer still finds its entry, without `reply`.
    pub fn overdue(&mut self, now_ns: u64) -> Vec<Waiting> {
        let mut overdue = Vec::new();
        // Numbers and deadlines rise together.
        while let Some((&number, &deadline)) = self.deadlines.first_key_value()
            && deadline <= now_ns
        {
            self.deadlines.remove(&number);
            if let Some(waiting) = self.waiting.get_mut(&number) {
                overdue.push(*waiting);
                waiting.reply = None;
            }
        }
        overdue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overdue_request_is_told_once_and_its_late_answer_is_nobodys() {
        let mut pending = Pending::default();
        let reply = Some(ReplyTo {
            epoch: 1,
            request: 9,
        });
        let first = pending.add(reply, Wanted::Plain, 0);
        let second = pending.add(reply, Wanted::RecordingPhase, 1);
        assert!(pending.overdue(ANSWER_NS - 1).is_empty());
        let overdue = pending.overdue(ANSWER_NS);
        assert_eq!(overdue.len(), 1);
        assert_eq!(overdue[0].reply, reply);
        assert!(pending.overdue(ANSWER_NS).is_empty());
        assert_eq!(pending.take(first).unwrap().reply, None);
        assert_eq!(pending.take(second).unwrap().reply, reply);
        assert!(pending.take(second).is_none());
        assert!(pending.waiting.is_empty());
    }
}
