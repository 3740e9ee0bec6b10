//! The bounded queue of one sink.

use crate::{CallMeta, RecordingChannel};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A callback that may be lost when a sink is too slow.
#[derive(Debug, Clone)]
pub(crate) enum Passing {
    Ringing(Arc<CallMeta>),
    Established(Arc<CallMeta>),
    TransferStarted(Arc<CallMeta>, Arc<str>),
    BridgeStarted(Arc<str>, Arc<str>),
    Begin {
        meta: Arc<CallMeta>,
        sample_rate: u32,
        codec: Arc<str>,
    },
    Pcm {
        call_id: Arc<str>,
        channel: RecordingChannel,
        pcm: Arc<[u8]>,
    },
}

impl Passing {
    const fn is_pcm(&self) -> bool {
        matches!(self, Self::Pcm { .. })
    }
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Passing>,
    pcm_waiting: usize,
    dropped_callbacks: u64,
    dropped_pcm: u64,
    /// Rises when the outbox may hold something new.
    bell: u64,
    stopping: bool,
}

#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    callbacks_max: usize,
    pcm_max: usize,
}

/// What a waiting thread woke up for.
pub(crate) struct Woken {
    pub(crate) bell: u64,
    pub(crate) stopping: bool,
}

impl Queue {
    pub(crate) fn new(callbacks_max: usize, pcm_max: usize) -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            callbacks_max,
            pcm_max,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every critical section leaves it whole, so a poisoned lock is still good.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a callback. A full queue refuses it and counts; of PCM it lets the oldest go instead.
    pub(crate) fn push(&self, passing: Passing) {
        let mut state = self.state();
        if passing.is_pcm() {
            if state.pcm_waiting >= self.pcm_max {
                if let Some(oldest) = state.waiting.iter().position(Passing::is_pcm) {
                    state.waiting.remove(oldest);
                    state.pcm_waiting -= 1;
                }
                state.dropped_pcm += 1;
            }
            state.pcm_waiting += 1;
        } else if state.waiting.len() - state.pcm_waiting >= self.callbacks_max {
            state.dropped_callbacks += 1;
            return;
        }
        state.waiting.push_back(passing);
        drop(state);
        self.changed.notify_one();
    }

    /// The oldest callback.
    pub(crate) fn pop(&self) -> Option<Passing> {
        let mut state = self.state();
        let passing = state.waiting.pop_front()?;
        if passing.is_pcm() {
            state.pcm_waiting -= 1;
        }
        Some(passing)
    }

    pub(crate) fn len(&self) -> usize {
        self.state().waiting.len()
    }

    /// The outbox may hold something new.
    pub(crate) fn ring(&self) {
        self.state().bell += 1;
        self.changed.notify_one();
    }

    pub(crate) fn stop(&self) {
        self.state().stopping = true;
        self.changed.notify_one();
    }

    /// Waits for a callback, a bell other than `heard`, or the end; at most `patience`.
    pub(crate) fn wait(&self, heard: u64, patience: Duration) -> Woken {
        let state = self.state();
        let idle =
            |state: &mut State| state.waiting.is_empty() && state.bell == heard && !state.stopping;
        let (state, _) = self
            .changed
            .wait_timeout_while(state, patience, idle)
            .unwrap_or_else(PoisonError::into_inner);
        Woken {
            bell: state.bell,
            stopping: state.stopping,
        }
    }

    /// Callbacks and PCM pieces dropped.
    pub(crate) fn dropped(&self) -> (u64, u64) {
        let state = self.state();
        (state.dropped_callbacks, state.dropped_pcm)
    }
}
