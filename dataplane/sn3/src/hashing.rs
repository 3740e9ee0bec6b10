//! Links of the hash chain computed on threads of their own, behind whoever walks through a segment.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};

use crate::chain::{self, Link};
use crate::reader::{ExtentView, SegmentReader};

/// Extents handed over at once, and how many times that may wait.
const BATCH: usize = 64;
const BATCHES_WAITING_MAX: usize = 16;

/// By page: the link that an extent's stands on as written, and what its own is then.
pub(crate) type Hashed = HashMap<u32, (Link, Link)>;

/// Extents, each with the link before its own.
type Batch<'a> = Vec<(ExtentView<'a>, Link)>;
/// What one thread makes of them.
type Links = Vec<(u32, (Link, Link))>;

/// Running threads. Most chains are as written, so that what an extent's link stands on can be taken
/// from the extent before it, and they be hashed side by side.
pub(crate) struct Hashing<'scope, 'a> {
    number: u32,
    /// Links of the extents seen so far, by page.
    stored: HashMap<u32, Link>,
    batch: Batch<'a>,
    batches: SyncSender<Batch<'a>>,
    threads: Vec<ScopedJoinHandle<'scope, Links>>,
}

impl<'scope, 'a: 'scope> Hashing<'scope, 'a> {
    /// Starts a thread a core, one less for who walks.
    pub(crate) fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        reader: &'a SegmentReader,
    ) -> Self {
        let (batches, waiting) = sync_channel(BATCHES_WAITING_MAX);
        let waiting = std::sync::Arc::new(Mutex::new(waiting));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = (1..cores.max(2)).map(|_| {
            let waiting = std::sync::Arc::clone(&waiting);
            scope.spawn(move || hash_all(&waiting))
        });
        Self {
            number: reader.number(),
            stored: HashMap::new(),
            batch: Vec::with_capacity(BATCH),
            batches,
            threads: threads.collect(),
        }
    }

    /// The next whole extent.
    pub(crate) fn take(&mut self, view: &ExtentView<'a>) {
        let header = &view.header;
        let Some(link) = chain::stored(view.bytes, header) else {
            return;
        };
        self.stored.insert(view.page, link);
        let before = match header.ordinal {
            0 => Some(chain::START),
            _ if header.prev_segment == self.number => self.stored.get(&header.prev_page).copied(),
            _ => None,
        };
        self.batch.extend(before.map(|before| (*view, before)));
        if self.batch.len() >= BATCH {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH));
        // A thread that panicked hashes nothing: whoever needs the link computes it.
        let _ = self.batches.send(batch);
    }

    /// All that could be computed.
    pub(crate) fn finish(mut self) -> Hashed {
        self.hand_over();
        drop(self.batches);
        let threads = self.threads.into_iter();
        let hashed = threads.filter_map(|thread| thread.join().ok());
        hashed.flatten().collect()
    }
}

fn hash_all(waiting: &Mutex<Receiver<Batch<'_>>>) -> Links {
    let mut hashed = Vec::new();
    let next = || {
        let waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.recv()
    };
    while let Ok(batch) = next() {
        hashed.extend(batch.iter().map(|(view, before)| {
            let own = chain::link(before, &view.bytes[..view.header.bytes()]);
            (view.page, (*before, own))
        }));
    }
    hashed
}
