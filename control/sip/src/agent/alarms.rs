//! Which of an agent's objects is due when.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use super::types::{AttemptHandle, DialogHandle, SubscriptionHandle};

/// What can be due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Subject {
    Dialog(DialogHandle),
    Attempt(AttemptHandle),
    Subscription(SubscriptionHandle),
}

/// One alarm a subject.
#[derive(Clone, Debug, Default)]
pub(super) struct Alarms {
    order: BTreeSet<(Instant, Subject)>,
    at: HashMap<Subject, Instant>,
}

impl Alarms {
    /// Sets, moves or clears a subject's alarm.
    pub(super) fn set(&mut self, subject: Subject, at: Option<Instant>) {
        let before = match at {
            Some(at) => self.at.insert(subject, at),
            None => self.at.remove(&subject),
        };
        if let Some(before) = before {
            self.order.remove(&(before, subject));
        }
        if let Some(at) = at {
            self.order.insert((at, subject));
        }
    }

    /// The earliest alarm.
    pub(super) fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes one alarm that is due.
    pub(super) fn due(&mut self, now: Instant) -> Option<Subject> {
        let (at, subject) = self.order.first().copied().filter(|(at, _)| *at <= now)?;
        self.order.remove(&(at, subject));
        self.at.remove(&subject);
        Some(subject)
    }
}
