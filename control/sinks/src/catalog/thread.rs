//! The catalog's writer thread, and the handle through which everybody else uses the catalog.
//!
//! Writes are whole objects, so of several that wait for one object only the latest is kept: the
//! queue is bounded by the number of objects, and nobody ever waits for the disk. While the disk
//! refuses, they stay waiting; reads see them all the same.

use super::cdrs::{self, CdrFilter};
use super::deliveries::StoredCopy;
use super::filter::{CallFilter, Cursor, Page, RecordingFilter, is_after};
use super::marks::{Decision, Mark, Marks};
use super::store::{self, Catalog, CatalogError, Storage, StoredRecording};
use crate::background;
use crate::cdr::Cdr;
use crate::object::{Call, Recording};
use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use trunkline_sn3::erase::erase_recordings;

/// Objects that may wait; beyond that new ones are refused and counted.
const WAITING_MAX: usize = 200_000;
/// Objects written in one transaction.
const BATCH_MAX: usize = 2_000;
/// The least time between two transactions: a call's changes that come soon after one another are one write.
const COMMIT_EVERY: Duration = Duration::from_millis(50);
/// Pause after a refused transaction.
const RETRY: Duration = Duration::from_millis(500);
/// How long what is erased is waited for to be in the catalog.
const WRITTEN_WITHIN: Duration = Duration::from_secs(2);
/// Idle reader connections kept.
const READERS_MAX: usize = 8;

#[derive(Debug, Clone)]
enum Write {
    Call(Box<Call>),
    Recording(Box<StoredRecording>),
    Storage(Storage),
    /// A leg's final record.
    Cdr(Box<Cdr>),
    /// What was decided about the recording of this id enters its row.
    Marked(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Call(String),
    Recording(u64),
    Storage(u64),
    Cdr(String),
    Marked(String),
}

impl Write {
    fn key(&self) -> Key {
        match self {
            Self::Call(call) => Key::Call(call.id.clone()),
            Self::Recording(stored) => Key::Recording(stored.storage.number),
            Self::Storage(storage) => Key::Storage(storage.number),
            Self::Cdr(cdr) => Key::Cdr(cdr.id.clone()),
            Self::Marked(id) => Key::Marked(id.clone()),
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    /// Waiting writes: order, and the latest content of each.
    order: VecDeque<Key>,
    waiting: HashMap<Key, Write>,
    /// The batch being committed, still shown to readers.
    in_work: Vec<Write>,
    /// Writes accepted, and those committed.
    accepted: u64,
    committed: u64,
    refused: u64,
    /// Who waits for all to be committed.
    flushing: usize,
    stop: bool,
}

impl Queue {
    /// A recording brings its place along, so an older place that waits must not be written after it.
    fn forget_storage(&mut self, number: u64) {
        let key = Key::Storage(number);
        if self.waiting.remove(&key).is_some() {
            self.order.retain(|waiting| *waiting != key);
            self.committed += 1;
        }
    }
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    queue: Mutex<Queue>,
    /// Signalled when there is something to write, and when something was committed.
    changed: Condvar,
    readers: Mutex<Vec<Catalog>>,
    marks: Marks,
    /// Held by whoever erases.
    erasing: Mutex<()>,
    erasers: Mutex<Vec<Arc<dyn CopyEraser>>>,
    told: Mutex<Option<Tell>>,
}

/// Deletes what a sink has made of recordings on this machine.
pub trait CopyEraser: Send + Sync {
    /// Deletes all that the sink has of a recording; nothing is fine too. `copies` is what any sink
    /// said of where it has put the recording.
    ///
    /// # Errors
    /// Something may be left: it is asked again.
    fn erase(&self, recording: &Recording, copies: &[StoredCopy]) -> std::io::Result<()>;
}

impl std::fmt::Debug for dyn CopyEraser {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("CopyEraser")
    }
}

impl Shared {
    fn tell_of_ends(&self) {
        if let Some(tell) = &*lock(&self.told) {
            (tell.0)();
        }
    }
}

/// Called when the outbox may hold something new.
struct Tell(Box<dyn Fn() + Send>);

impl std::fmt::Debug for Tell {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Tell")
    }
}

/// The running writer thread.
#[derive(Debug)]
pub struct CatalogThread {
    handle: CatalogHandle,
    thread: Option<JoinHandle<()>>,
}

/// Access to the catalog from any thread.
#[derive(Debug, Clone)]
pub struct CatalogHandle {
    shared: Arc<Shared>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section leaves its data whole, so a poisoned lock is still good.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl CatalogThread {
    /// Starts the thread on an opened catalog; `path` is that catalog's file.
    ///
    /// # Errors
    /// No thread could be started, or the journal of marks cannot be used.
    pub fn start(mut catalog: Catalog, path: PathBuf) -> Result<Self, CatalogError> {
        let io = |source| CatalogError::Io {
            path: path.clone(),
            source,
        };
        let marks = Marks::open(&path).map_err(io)?;
        marks.restore(&mut catalog)?;
        let shared = Arc::new(Shared {
            path: path.clone(),
            queue: Mutex::default(),
            changed: Condvar::new(),
            readers: Mutex::default(),
            marks,
            erasing: Mutex::default(),
            erasers: Mutex::default(),
            told: Mutex::default(),
        });
        let handle = CatalogHandle {
            shared: Arc::clone(&shared),
        };
        let thread = std::thread::Builder::new()
            .name("catalog".to_owned())
            .spawn(move || write_until_stopped(catalog, &shared))
            .map_err(io)?;
        Ok(Self {
            handle,
            thread: Some(thread),
        })
    }

    /// A handle to use it by.
    #[must_use]
    pub fn handle(&self) -> CatalogHandle {
        self.handle.clone()
    }
}

impl Drop for CatalogThread {
    /// Writes what waits (once more, if the disk refuses) and ends.
    fn drop(&mut self) {
        lock(&self.handle.shared.queue).stop = true;
        self.handle.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported by its own hook.
            let _ = thread.join();
        }
    }
}

fn write_until_stopped(mut catalog: Catalog, shared: &Shared) {
    background::give_way();
    let mut failing = false;
    let mut committed_at = None;
    loop {
        let (batch, stop) = next_batch(shared, committed_at.map(|at| at + COMMIT_EVERY));
        if batch.is_empty() && stop {
            return;
        }
        let count = batch.len() as u64;
        let result = catalog.write(|transaction, sinks| {
            for write in &batch {
                match write {
                    Write::Call(call) => store::put_call(transaction, call)?,
                    Write::Recording(stored) => {
                        let StoredRecording { recording, storage } = &**stored;
                        store::put_recording(transaction, recording, storage, sinks)?;
                    }
                    Write::Cdr(cdr) => cdrs::put_cdr(transaction, cdr, sinks)?,
                    Write::Storage(storage) => store::put_storage(transaction, storage)?,
                    Write::Marked(id) => {
                        let apply = |recording: &mut Recording| shared.marks.apply(recording);
                        store::change_recording(transaction, id, sinks, apply)?;
                    }
                }
            }
            Ok(())
        });
        committed_at = Some(Instant::now());
        match result {
            Ok(()) => {
                if std::mem::take(&mut failing) {
                    tracing::info!("the catalog is written again");
                }
                let mut queue = lock(&shared.queue);
                queue.in_work.clear();
                queue.committed += count;
                drop(queue);
                shared.changed.notify_all();
                let ends = |write: &Write| match write {
                    Write::Cdr(_) => true,
                    Write::Recording(stored) => stored.recording.state.is_final(),
                    _ => false,
                };
                if batch.iter().any(ends) {
                    shared.tell_of_ends();
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::error!(%error, "the catalog cannot be written; trying again until it can");
                }
                put_back(shared, batch);
                if stop {
                    return;
                }
                std::thread::sleep(RETRY);
            }
        }
    }
}

/// Waits for writes, and then until `earliest` unless somebody waits or there are many, and takes a
/// batch; it stays visible in `in_work`.
fn next_batch(shared: &Shared, earliest: Option<Instant>) -> (Vec<Write>, bool) {
    let mut queue = lock(&shared.queue);
    while queue.order.is_empty() && !queue.stop {
        queue = shared
            .changed
            .wait(queue)
            .unwrap_or_else(PoisonError::into_inner);
    }
    while let Some(left) = earliest.and_then(|at| at.checked_duration_since(Instant::now()))
        && !(left.is_zero() || queue.stop || queue.flushing > 0 || queue.order.len() >= BATCH_MAX)
    {
        let waited = shared.changed.wait_timeout(queue, left);
        queue = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
    let mut batch = Vec::new();
    while batch.len() < BATCH_MAX
        && let Some(key) = queue.order.pop_front()
    {
        batch.extend(queue.waiting.remove(&key));
    }
    queue.in_work.clone_from(&batch);
    (batch, queue.stop)
}

/// Returns a refused batch to the queue's front; what came newer for an object replaces it.
fn put_back(shared: &Shared, batch: Vec<Write>) {
    let mut queue = lock(&shared.queue);
    queue.in_work.clear();
    for write in batch.into_iter().rev() {
        let key = write.key();
        if queue.waiting.contains_key(&key) {
            queue.committed += 1;
        } else {
            queue.order.push_front(key.clone());
            queue.waiting.insert(key, write);
        }
    }
}

impl CatalogHandle {
    fn submit(&self, write: Write) -> bool {
        let mut queue = lock(&self.shared.queue);
        let key = write.key();
        if let Key::Recording(number) = key {
            queue.forget_storage(number);
        }
        if let Some(waiting) = queue.waiting.get_mut(&key) {
            *waiting = write;
            return true;
        }
        if queue.waiting.len() >= WAITING_MAX {
            queue.refused += 1;
            if queue.refused == 1 {
                tracing::error!("the catalog's queue is full; segments keep what it misses");
            }
            return false;
        }
        queue.order.push_back(key.clone());
        queue.waiting.insert(key, write);
        queue.accepted += 1;
        // More of them are only waited for, see `next_batch`.
        let matters = matches!(queue.order.len(), 1 | BATCH_MAX);
        drop(queue);
        if matters {
            self.shared.changed.notify_all();
        }
        true
    }

    /// Stores a call. False when too many objects wait: it is not stored.
    pub fn put_call(&self, call: Call) -> bool {
        self.submit(Write::Call(Box::new(call)))
    }

    /// Stores a recording. False when too many objects wait: it is not stored.
    pub fn put_recording(&self, mut recording: Recording, storage: Storage) -> bool {
        self.shared.marks.apply(&mut recording);
        self.submit(Write::Recording(Box::new(StoredRecording {
            recording,
            storage,
        })))
    }

    /// Has `tell` called whenever ends were stored: the outbox may hold something new.
    pub fn when_ends_are_stored(&self, tell: Box<dyn Fn() + Send>) {
        *lock(&self.shared.told) = Some(Tell(tell));
    }

    /// The outbox may hold something new.
    pub(super) fn tell_of_ends(&self) {
        self.shared.tell_of_ends();
    }

    /// A connection to write by, beside the catalog's thread.
    pub(super) fn open_beside(&self) -> Result<Catalog, CatalogError> {
        Catalog::open_beside(&self.shared.path)
    }

    /// Stores a leg's final record. False when too many objects wait: it is not stored.
    pub fn put_cdr(&self, cdr: Cdr) -> bool {
        self.submit(Write::Cdr(Box::new(cdr)))
    }

    /// Lets a decision about a recording hold, on the disk before this returns. Waits for the disk.
    ///
    /// # Errors
    /// It could not be written, and does not hold.
    pub fn decide(&self, id: &str, mark: Mark) -> Result<Decision, CatalogError> {
        // Of what is erased only the catalog knows.
        if !self.shared.marks.knows(id)
            && self
                .recording(id)?
                .is_some_and(|stored| stored.is_deleted())
        {
            return Ok(Decision::Deleted);
        }
        let decided = self.shared.marks.decide(id, mark);
        let decision = decided.map_err(|source| CatalogError::Io {
            path: self.shared.path.clone(),
            source,
        })?;
        if decision == Decision::Done {
            self.submit(Write::Marked(id.to_owned()));
        }
        Ok(decision)
    }

    /// Shows a recording, as somebody else knows it, with what was decided about it.
    pub fn mark(&self, recording: &mut Recording) {
        self.shared.marks.apply(recording);
    }

    /// Who else has something to delete of a deleted recording.
    pub fn set_erasers(&self, erasers: Vec<Arc<dyn CopyEraser>>) {
        *lock(&self.shared.erasers) = erasers;
    }

    /// Erases the extents, and what sinks made on this machine, of all recordings that were deleted and
    /// are not erased yet; gives how many recordings that were. May be repeated.
    ///
    /// # Errors
    /// Those of the disk, and a segment that cannot be read: what was concerned does not count as erased
    /// then, and is tried again when this is called again.
    pub fn erase_deleted(&self, segments: &Path) -> Result<usize, CatalogError> {
        let due = self.erase_extents(segments)?;
        // A directory that hangs delays nobody's extents.
        let mut failed = None;
        let mut erased = 0;
        for (_, id) in &due {
            match self.erase_copies(id) {
                Ok(()) => {
                    self.decide(id, Mark::Erased)?;
                    erased += 1;
                }
                Err(error) => failed = Some(error),
            }
        }
        // While the catalog cannot be written, the marks are what shows recordings as deleted.
        if erased > 0 && self.flush(WRITTEN_WITHIN) {
            self.shared.marks.forget_erased();
        }
        failed.map_or(Ok(erased), Err)
    }

    fn erase_extents(&self, segments: &Path) -> Result<Vec<(u64, String)>, CatalogError> {
        let _turn = lock(&self.shared.erasing);
        let due = self.shared.marks.to_erase();
        if due.is_empty() {
            return Ok(due);
        }
        let numbers = due.iter().map(|(number, _)| *number).collect();
        let erased = erase_recordings(segments, &numbers).map_err(|source| CatalogError::Io {
            path: segments.to_owned(),
            source,
        })?;
        let (recordings, extents, bytes) = (due.len(), erased.extents, erased.bytes);
        tracing::info!(recordings, extents, bytes, "deleted recordings are erased");
        Ok(due)
    }

    fn erase_copies(&self, id: &str) -> Result<(), CatalogError> {
        let erasers = lock(&self.shared.erasers).clone();
        if erasers.is_empty() {
            return Ok(());
        }
        let Some(stored) = self.recording(id)? else {
            return Ok(());
        };
        let copies = self.copies(id)?;
        for eraser in &erasers {
            let erased = eraser.erase(&stored.recording, &copies);
            erased.map_err(|source| CatalogError::Io {
                path: PathBuf::from(id),
                source,
            })?;
        }
        Ok(())
    }

    /// Updates the place of a recording that was stored before.
    pub fn put_storage(&self, storage: Storage) -> bool {
        let mut queue = lock(&self.shared.queue);
        if let Some(Write::Recording(stored)) =
            queue.waiting.get_mut(&Key::Recording(storage.number))
        {
            stored.storage = storage;
            return true;
        }
        drop(queue);
        self.submit(Write::Storage(storage))
    }

    /// Waits until everything submitted before is committed; false when that takes longer.
    #[must_use]
    pub fn flush(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut queue = lock(&self.shared.queue);
        let target = queue.accepted;
        queue.flushing += 1;
        self.shared.changed.notify_all();
        let mut left = deadline.saturating_duration_since(Instant::now());
        while queue.committed < target && !left.is_zero() {
            let waited = self.shared.changed.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
            left = deadline.saturating_duration_since(Instant::now());
        }
        queue.flushing -= 1;
        queue.committed >= target
    }

    /// Objects that were not stored because too many waited.
    #[must_use]
    pub fn refused(&self) -> u64 {
        lock(&self.shared.queue).refused
    }

    pub(super) fn read<T>(
        &self,
        read: impl FnOnce(&Catalog) -> Result<T, CatalogError>,
    ) -> Result<T, CatalogError> {
        let idle = lock(&self.shared.readers).pop();
        let reader = match idle {
            Some(reader) => reader,
            None => Catalog::open_reader(&self.shared.path)?,
        };
        let result = read(&reader);
        let mut readers = lock(&self.shared.readers);
        if result.is_ok() && readers.len() < READERS_MAX {
            readers.push(reader);
        }
        result
    }

    /// Writes not committed yet, oldest first.
    fn uncommitted(&self) -> Vec<Write> {
        let queue = lock(&self.shared.queue);
        let waiting = queue.order.iter().filter_map(|key| queue.waiting.get(key));
        queue.in_work.iter().chain(waiting).cloned().collect()
    }

    /// One call.
    ///
    /// # Errors
    /// It could not be read.
    pub fn call(&self, id: &str) -> Result<Option<Call>, CatalogError> {
        let waiting = self
            .uncommitted()
            .into_iter()
            .rev()
            .find_map(|write| match write {
                Write::Call(call) if call.id == id => Some(*call),
                _ => None,
            });
        match waiting {
            Some(call) => Ok(Some(call)),
            None => self.read(|catalog| catalog.call(id)),
        }
    }

    /// One recording.
    ///
    /// # Errors
    /// It could not be read.
    pub fn recording(&self, id: &str) -> Result<Option<StoredRecording>, CatalogError> {
        let writes = self.uncommitted();
        let waiting = writes
            .iter()
            .enumerate()
            .rev()
            .find_map(|(at, write)| match write {
                Write::Recording(stored) if stored.recording.id == id => Some((at, stored)),
                _ => None,
            });
        let (mut found, newer) = match waiting {
            Some((at, stored)) => (Some((**stored).clone()), &writes[at + 1..]),
            None => (self.read(|catalog| catalog.recording(id))?, &writes[..]),
        };
        for write in newer {
            if let (Some(stored), Write::Storage(storage)) = (&mut found, write)
                && stored.storage.number == storage.number
            {
                stored.storage = *storage;
            }
        }
        if let Some(stored) = &mut found {
            self.mark(&mut stored.recording);
        }
        Ok(found)
    }

    /// A page of calls, newest first.
    ///
    /// # Errors
    /// It could not be read.
    pub fn list_calls(
        &self,
        filter: &CallFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<Call>, CatalogError> {
        let waiting = self
            .uncommitted()
            .into_iter()
            .filter_map(|write| match write {
                Write::Call(call) => Some(*call),
                _ => None,
            });
        let waiting: HashMap<String, Call> = waiting.map(|call| (call.id.clone(), call)).collect();
        // As many more as may turn out to have left the list.
        let stored =
            self.read(|catalog| catalog.list_calls(filter, after, limit + waiting.len()))?;
        let mut calls = stored.items;
        calls.retain(|call| !waiting.contains_key(&call.id));
        calls.extend(waiting.into_values().filter(|call| filter.matches(call)));
        calls.retain(|call| is_after(after, call));
        Ok(Page::cut(calls, limit, stored.next.is_some()))
    }

    /// A page of recordings, newest first.
    ///
    /// # Errors
    /// It could not be read.
    pub fn list_recordings(
        &self,
        filter: &RecordingFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<Recording>, CatalogError> {
        let waiting = self
            .uncommitted()
            .into_iter()
            .filter_map(|write| match write {
                Write::Recording(stored) => Some(stored.recording),
                _ => None,
            });
        let waiting: HashMap<String, Recording> = waiting
            .map(|mut recording| {
                self.mark(&mut recording);
                (recording.id.clone(), recording)
            })
            .collect();
        let stored =
            self.read(|catalog| catalog.list_recordings(filter, after, limit + waiting.len()))?;
        let mut recordings = stored.items;
        recordings.retain(|recording| !waiting.contains_key(&recording.id));
        recordings.extend(
            waiting
                .into_values()
                .filter(|recording| filter.matches(recording)),
        );
        recordings.retain(|recording| is_after(after, recording));
        Ok(Page::cut(recordings, limit, stored.next.is_some()))
    }

    /// A page of final call detail records, newest first.
    ///
    /// # Errors
    /// It could not be read.
    pub fn list_cdrs(
        &self,
        filter: &CdrFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<Cdr>, CatalogError> {
        let waiting = self
            .uncommitted()
            .into_iter()
            .filter_map(|write| match write {
                Write::Cdr(cdr) => Some(*cdr),
                _ => None,
            });
        let waiting: HashMap<String, Cdr> = waiting.map(|cdr| (cdr.id.clone(), cdr)).collect();
        let stored =
            self.read(|catalog| catalog.list_cdrs(filter, after, limit + waiting.len()))?;
        let mut records = stored.items;
        records.retain(|cdr| !waiting.contains_key(&cdr.id));
        records.extend(waiting.into_values().filter(|cdr| filter.matches(cdr)));
        records.retain(|cdr| is_after(after, cdr));
        Ok(Page::cut(records, limit, stored.next.is_some()))
    }
}
