//! The thread that writes call detail records.

use super::journal::{Journal, JournalError};
use super::record::{Cdr, RecordKind};
use crate::background;
use crate::catalog::CatalogHandle;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Records that may wait for the disk; beyond that they are dropped and counted.
const WAITING_MAX: usize = 500_000;
/// Records made durable at once.
const BATCH_MAX: usize = 4_096;
/// Pause after a refused write.
const RETRY: Duration = Duration::from_millis(500);
/// The least time between two moments at which what was written is made durable: many small ones
/// would take the disk, and the signalling's core, for themselves.
const SYNC_EVERY: Duration = Duration::from_millis(20);

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Cdr>,
    /// Who waits for all to be durable.
    flushing: usize,
    accepted: u64,
    written: u64,
    dropped: u64,
    stop: bool,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// The running thread. Dropping it writes what waits (once more, if the disk refuses) and ends it.
#[derive(Debug)]
pub struct CdrThread {
    handle: CdrHandle,
    thread: Option<JoinHandle<()>>,
}

/// Gives records to it, from any thread.
#[derive(Debug, Clone, Default)]
pub struct CdrHandle {
    shared: Arc<Shared>,
}

impl CdrThread {
    /// Starts it. Final records go to the catalog once they are durable.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn start(journal: Journal, catalog: CatalogHandle) -> io::Result<Self> {
        let handle = CdrHandle::default();
        let shared = Arc::clone(&handle.shared);
        let thread = std::thread::Builder::new()
            .name("cdr".to_owned())
            .spawn(move || write_until_stopped(journal, &catalog, &shared))?;
        Ok(Self {
            handle,
            thread: Some(thread),
        })
    }

    /// A handle to use it by.
    #[must_use]
    pub fn handle(&self) -> CdrHandle {
        self.handle.clone()
    }
}

impl Drop for CdrThread {
    fn drop(&mut self) {
        self.handle.queue().stop = true;
        self.handle.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported by its own hook.
            let _ = thread.join();
        }
    }
}

impl CdrHandle {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Every critical section leaves it whole, so a poisoned lock is still good.
        self.shared
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a record written. Never waits for the disk.
    pub fn write(&self, record: Cdr) {
        let mut queue = self.queue();
        if queue.waiting.len() >= WAITING_MAX {
            queue.dropped += 1;
            if queue.dropped == 1 {
                tracing::error!("call detail records are dropped: the disk does not take them");
            }
            return;
        }
        let first = queue.waiting.is_empty();
        queue.waiting.push_back(record);
        queue.accepted += 1;
        drop(queue);
        if first {
            self.shared.changed.notify_all();
        }
    }

    /// Waits until everything given before is durable and with the catalog; false when that takes
    /// longer.
    #[must_use]
    pub fn flush(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut queue = self.queue();
        let target = queue.accepted;
        queue.flushing += 1;
        self.shared.changed.notify_all();
        let mut left = deadline.saturating_duration_since(Instant::now());
        while queue.written < target && !left.is_zero() {
            let waited = self.shared.changed.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
            left = deadline.saturating_duration_since(Instant::now());
        }
        queue.flushing -= 1;
        queue.written >= target
    }

    /// Records dropped because too many waited.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.queue().dropped
    }
}

/// What came of a batch.
#[derive(Default)]
struct Worked {
    /// Durable from now on.
    durable: Vec<Cdr>,
    /// Not written, or taken back, in order.
    refused: Option<(JournalError, Vec<Cdr>)>,
}

/// What the thread has written and not made durable yet.
struct Writer {
    journal: Journal,
    written: Vec<Cdr>,
    synced_at: Option<Instant>,
}

impl Writer {
    /// When what was written is to be made durable.
    fn due(&self) -> Option<Instant> {
        let earliest = self.synced_at.map(|at| at + SYNC_EVERY);
        (!self.written.is_empty()).then(|| earliest.unwrap_or_else(Instant::now))
    }

    /// Writes a batch, and makes all durable where that is due.
    fn work(&mut self, mut batch: Vec<Cdr>, at_once: bool) -> Worked {
        let mut worked = Worked::default();
        if self.journal.is_rotation_due() {
            self.sync(&mut worked);
            if let Some((_, refused)) = &mut worked.refused {
                refused.append(&mut batch);
                return worked;
            }
        }
        if let Err(error) = self.journal.write(&mut batch) {
            // What was written before stays written.
            worked.refused = Some((error, batch));
            return worked;
        }
        self.written.append(&mut batch);
        if at_once || self.due().is_some_and(|due| due <= Instant::now()) {
            self.sync(&mut worked);
        }
        worked
    }

    fn sync(&mut self, worked: &mut Worked) {
        let synced = self.journal.sync();
        self.synced_at = Some(Instant::now());
        let mut records = std::mem::take(&mut self.written);
        match synced {
            Ok(()) => worked.durable.append(&mut records),
            Err(error) => worked.refused = Some((error, records)),
        }
    }
}

fn write_until_stopped(journal: Journal, catalog: &CatalogHandle, shared: &Shared) {
    background::give_way();
    let lock = || shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
    let mut writer = Writer {
        journal,
        written: Vec::new(),
        synced_at: None,
    };
    let mut failing = false;
    loop {
        let (batch, at_once, stop) = next_batch(shared, writer.due());
        if batch.is_empty() && writer.written.is_empty() && stop {
            return;
        }
        let worked = writer.work(batch, at_once || stop);
        if !worked.durable.is_empty() {
            let count = worked.durable.len() as u64;
            let finals = worked.durable.into_iter();
            for record in finals.filter(|record| record.record == RecordKind::Final) {
                if !hand_over(catalog, &record, shared) {
                    return;
                }
            }
            lock().written += count;
            shared.changed.notify_all();
        }
        if let Some((error, records)) = worked.refused {
            if !std::mem::replace(&mut failing, true) {
                tracing::error!(%error, "cannot write; trying again until it can be done");
            }
            let mut queue = lock();
            for record in records.into_iter().rev() {
                queue.waiting.push_front(record);
            }
            drop(queue);
            if stop {
                return;
            }
            std::thread::sleep(RETRY);
        } else if std::mem::take(&mut failing) {
            tracing::info!("call detail records are written again");
        }
    }
}

/// Waits for records, or until what was written is due to be made durable; also says whether somebody
/// waits for that, and whether this is the end.
fn next_batch(shared: &Shared, due: Option<Instant>) -> (Vec<Cdr>, bool, bool) {
    let mut queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
    while queue.waiting.is_empty() && !queue.stop {
        let left = due.map(|due| due.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero() || queue.flushing > 0) {
            break;
        }
        queue = match left {
            Some(left) => {
                let waited = shared.changed.wait_timeout(queue, left);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => {
                let waited = shared.changed.wait(queue);
                waited.unwrap_or_else(PoisonError::into_inner)
            }
        };
    }
    let count = queue.waiting.len().min(BATCH_MAX);
    let batch = queue.waiting.drain(..count).collect();
    (batch, queue.flushing > 0, queue.stop)
}

/// The catalog takes it, sooner or later. False at the process's end: the journal keeps it and all
/// that follow for the next one.
fn hand_over(catalog: &CatalogHandle, record: &Cdr, shared: &Shared) -> bool {
    while !catalog.put_cdr(record.clone()) {
        if shared
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .stop
        {
            return false;
        }
        std::thread::sleep(RETRY);
    }
    true
}
