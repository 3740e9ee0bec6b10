//! One worker's series of segments: extents wait, are written in batches, become durable.

use std::collections::VecDeque;
use std::io;

use trunkline_link::counters::RecorderCounter;
use trunkline_link::pool::Extent;
use trunkline_sn3::chain;
use trunkline_sn3::cipher::{self, DataKey};
use trunkline_sn3::extent::{self, Appender, Seal, extent_flags};
use trunkline_sn3::file::{SegmentFile, SegmentStore};
use trunkline_sn3::layout::{EXTENT_HEADER, UNIT};
use trunkline_sn3::writer::{BATCH_BYTES, SegmentOrigin, SegmentWriter, Staged};

use super::Shared;
use super::message::RecorderNotice;
use super::track::Tip;

/// Between attempts while the disk refuses.
const RETRY_NS: u64 = 250_000_000;
/// How long after the last failure a disk with room is believed.
const TRUST_NS: u64 = 5_000_000_000;
/// How soon the end of a recording is made durable.
const CLOSE_NS: u64 = 50_000_000;
/// Extents that fill a batch.
const BATCH_EXTENTS: usize = BATCH_BYTES / trunkline_sn3::layout::EXTENT_BYTES - 1;
/// Segments that could not be finished and are tried again.
const UNFINISHED_MAX: usize = 8;

/// An extent that is not written yet.
#[derive(Debug)]
struct Waiting {
    source: Source,
    used: u32,
    recording: u64,
    last: bool,
    arrived_ns: u64,
}

#[derive(Debug)]
enum Source {
    Pool(Extent),
    Own(Vec<u8>),
}

impl Waiting {
    fn bytes(&self) -> &[u8] {
        match &self.source {
            Source::Pool(extent) => extent.bytes(),
            Source::Own(bytes) => bytes,
        }
    }
}

/// An extent in the writer's batch, with what it takes to put it back.
#[derive(Debug)]
struct InBatch {
    waiting: Waiting,
    staged: Staged,
    dropped: u32,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Series<F> {
    worker: u16,
    writer: Option<SegmentWriter<F>>,
    unfinished: Vec<SegmentWriter<F>>,
    waiting: VecDeque<Waiting>,
    batch: VecDeque<InBatch>,
    /// Recordings with something to tell at the next durable point.
    touched: Vec<u64>,
    checkpoint_ns: Option<u64>,
    failing_since_ns: Option<u64>,
    retry_ns: u64,
}

impl<F: SegmentFile> Series<F> {
    pub fn new(worker: u16) -> Self {
        Self {
            worker,
            writer: None,
            unfinished: Vec::new(),
            waiting: VecDeque::new(),
            batch: VecDeque::new(),
            touched: Vec::new(),
            checkpoint_ns: None,
            failing_since_ns: None,
            retry_ns: 0,
        }
    }

    /// Takes an extent that the worker closed.
    pub fn accept<S>(&mut self, shared: &mut Shared<S>, mut extent: Extent, now_ns: u64) {
        let meta = extent.meta();
        let used = meta.published;
        if used <= EXTENT_HEADER {
            release(shared, extent);
            return;
        }
        extent.set_full();
        let track = shared.tracks.of(meta.recording);
        track.pending += 1;
        track.next_ordinal = track.next_ordinal.max(meta.ordinal + 1);
        self.push(
            shared,
            Waiting {
                source: Source::Pool(extent),
                used: used as u32,
                recording: meta.recording,
                last: false,
                arrived_ns: now_ns,
            },
        );
        self.checkpoint_by(now_ns + shared.settings.checkpoint_ns);
    }

    fn push<S>(&mut self, shared: &mut Shared<S>, waiting: Waiting) {
        shared.waiting += 1;
        self.waiting.push_back(waiting);
    }

    /// Marks the recording's last extent; where that is written already, an empty one says so.
    pub fn finish_recording<S>(
        &mut self,
        shared: &mut Shared<S>,
        session: u64,
        recording: u64,
        now_ns: u64,
    ) {
        let track = shared.tracks.of(recording);
        track.session = session;
        track.finishing = true;
        self.touched.push(recording);
        self.checkpoint_by(now_ns + CLOSE_NS);
        let own = self
            .waiting
            .iter_mut()
            .rev()
            .find(|waiting| waiting.recording == recording);
        if let Some(waiting) = own {
            waiting.last = true;
            return;
        }
        let ordinal = track.next_ordinal;
        track.next_ordinal += 1;
        track.pending += 1;
        let mut bytes = vec![0u8; UNIT];
        let used = Appender::open(&mut bytes, recording, ordinal, now_ns).used();
        let source = Source::Own(bytes);
        let last = true;
        self.push(
            shared,
            Waiting {
                source,
                used,
                recording,
                last,
                arrived_ns: now_ns,
            },
        );
    }

    fn checkpoint_by(&mut self, at_ns: u64) {
        self.checkpoint_ns = Some(self.checkpoint_ns.map_or(at_ns, |due_ns| due_ns.min(at_ns)));
    }

    /// Writes what waits, when enough has gathered, a checkpoint is due, or `now`. True when it wrote.
    pub fn pump<S: SegmentStore<File = F>>(
        &mut self,
        shared: &mut Shared<S>,
        now_ns: u64,
        now: bool,
    ) -> bool {
        if self.failing_since_ns.is_some() && now_ns < self.retry_ns {
            self.give_up(shared, now_ns);
            return false;
        }
        let gathered = self.waiting.len() >= BATCH_EXTENTS
            || self.checkpoint_ns.is_some_and(|due_ns| due_ns <= now_ns)
            // It is time to try again.
            || self.failing_since_ns.is_some();
        if self.waiting.is_empty() || !(gathered || now) {
            return false;
        }
        while !self.waiting.is_empty() {
            if let Err(error) = self.write_batch(shared, now_ns) {
                self.fail(shared, &error, now_ns);
                self.give_up(shared, now_ns);
                return true;
            }
        }
        self.failing_since_ns = None;
        true
    }

    fn write_batch<S: SegmentStore<File = F>>(
        &mut self,
        shared: &mut Shared<S>,
        now_ns: u64,
    ) -> io::Result<()> {
        self.roll(shared, now_ns)?;
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                let clock = shared.clocks.at(now_ns);
                let epoch = shared.clocks.start.utc_ns;
                let origin = SegmentOrigin {
                    worker: self.worker,
                    epoch,
                    clock,
                    flags: 0,
                    cipher: u8::from(shared.keys.is_some()),
                };
                shared.counters.add(RecorderCounter::SegmentsOpened, 1);
                self.writer
                    .insert(SegmentWriter::create(&mut shared.store, &origin)?)
            }
        };
        let chained = shared.settings.hash_chain.then_some(());
        while writer.has_room()
            && let Some(recording) = self.waiting.front().map(|waiting| waiting.recording)
        {
            // Before it leaves the queue: without a key it waits, as for a disk that refuses.
            let key = encryption(shared, recording)?;
            let Some(waiting) = self.waiting.pop_front() else {
                break;
            };
            shared.waiting -= 1;
            let track = shared.tracks.of(waiting.recording);
            let asked = Seal {
                used: waiting.used,
                prev_segment: track.staged.segment,
                prev_page: track.staged.page,
                dropped: track.dropped,
                flags: if waiting.last { extent_flags::LAST } else { 0 },
                // The worker's own log is nobody's evidence.
                previous_link: chained
                    .filter(|()| waiting.recording != 0)
                    .map(|()| track.staged.link),
                encryption: key.as_ref().map(|(key, nonce)| (key, *nonce)),
            };
            let Some(staged) = writer.stage(waiting.bytes(), &asked) else {
                // A worker's extent that is none: its frames are lost, the others are not.
                tracing::error!(recording = waiting.recording, "an extent cannot be sealed");
                drop_extent(shared, &mut self.touched, waiting);
                continue;
            };
            track.staged = Tip {
                segment: writer.number(),
                page: staged.page,
                link: staged.link.unwrap_or(chain::START),
            };
            let dropped = std::mem::take(&mut track.dropped);
            self.batch.push_back(InBatch {
                waiting,
                staged,
                dropped,
            });
        }
        if let Some(keys) = &mut shared.keys {
            keys.sync()?;
        }
        let result = writer.flush();
        if let Some(reason) = writer.take_fallback() {
            tracing::warn!(reason, "segments are written through the page cache");
        }
        let (number, left) = (writer.number(), writer.staged());
        while self.batch.len() > left
            && let Some(done) = self.batch.pop_front()
        {
            self.settle(shared, number, done, now_ns);
        }
        result
    }

    /// An extent is written: its memory is free again.
    fn settle<S>(&mut self, shared: &mut Shared<S>, number: u32, done: InBatch, now_ns: u64) {
        let bytes = done.staged.header.bytes() as u64;
        let track = shared.tracks.of(done.waiting.recording);
        track.written = Tip {
            segment: number,
            page: done.staged.page,
            link: done.staged.link.unwrap_or(chain::START),
        };
        track.extents += 1;
        track.bytes += bytes;
        track.pending -= 1;
        self.touched.push(done.waiting.recording);
        shared.counters.add(RecorderCounter::ExtentsWritten, 1);
        shared.counters.add(RecorderCounter::BytesWritten, bytes);
        let delay_ns = if track.finishing {
            CLOSE_NS
        } else {
            shared.settings.checkpoint_ns
        };
        self.checkpoint_by(now_ns + delay_ns);
        if let Source::Pool(extent) = done.waiting.source {
            release(shared, extent);
        }
    }

    /// Puts a batch that was refused back in front of what waits.
    fn fail<S>(&mut self, shared: &mut Shared<S>, error: &io::Error, now_ns: u64) {
        shared.counters.add(RecorderCounter::WriteErrors, 1);
        if self.failing_since_ns.is_none() {
            tracing::warn!(worker = self.worker, %error, "segment write failed");
            self.failing_since_ns = Some(now_ns);
        }
        self.retry_ns = now_ns + RETRY_NS;
        while let Some(refused) = self.batch.pop_back() {
            let track = shared.tracks.of(refused.waiting.recording);
            track.staged = track.written;
            track.dropped = track.dropped.saturating_add(refused.dropped);
            self.push_front(shared, refused.waiting);
        }
        let Some(mut writer) = self.writer.take() else {
            return;
        };
        writer.discard_staged();
        let space = matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        );
        if space || writer.length() <= UNIT as u64 {
            self.writer = Some(writer);
        } else {
            // The place may be bad, not the disk: go on in another file.
            self.set_aside(writer);
        }
    }

    fn push_front<S>(&mut self, shared: &mut Shared<S>, waiting: Waiting) {
        shared.waiting += 1;
        self.waiting.push_front(waiting);
    }

    fn set_aside(&mut self, writer: SegmentWriter<F>) {
        if self.unfinished.len() == UNFINISHED_MAX {
            let oldest = self.unfinished.remove(0);
            tracing::warn!(
                segment = oldest.number(),
                "left without a footer until the next start"
            );
        }
        self.unfinished.push(writer);
    }

    /// Gives up extents that waited too long, or are too many.
    fn give_up<S>(&mut self, shared: &mut Shared<S>, now_ns: u64) {
        while let Some(oldest) = self.waiting.front() {
            let late = oldest.arrived_ns + shared.settings.disk_wait_ns <= now_ns;
            if !late && shared.waiting <= shared.settings.waiting_max {
                break;
            }
            if let Some(waiting) = self.waiting.pop_front() {
                shared.waiting -= 1;
                drop_extent(shared, &mut self.touched, waiting);
            }
            self.checkpoint_by(now_ns);
        }
    }

    /// Finishes a segment that has reached its size.
    fn roll<S: SegmentStore<File = F>>(
        &mut self,
        shared: &mut Shared<S>,
        now_ns: u64,
    ) -> io::Result<()> {
        let full = |writer: &SegmentWriter<F>| writer.length() >= shared.settings.segment_bytes;
        if !self.writer.as_ref().is_some_and(full) {
            return Ok(());
        }
        self.make_durable(now_ns)?;
        if let Some(mut writer) = self.writer.take()
            && let Err(error) = writer.finish(now_ns)
        {
            shared.counters.add(RecorderCounter::WriteErrors, 1);
            tracing::warn!(segment = writer.number(), %error, "segment not finished yet");
            self.set_aside(writer);
        }
        Ok(())
    }

    /// Makes what was written durable when that is due, and tells. True when it did.
    pub fn checkpoint<S: SegmentStore<File = F>>(
        &mut self,
        shared: &mut Shared<S>,
        now_ns: u64,
        now: bool,
    ) -> bool {
        let due = self
            .checkpoint_ns
            .is_some_and(|due_ns| due_ns <= now_ns || now);
        if !due {
            return false;
        }
        if let Err(error) = self.make_durable(now_ns) {
            self.fail(shared, &error, now_ns);
            let since_ns = self.failing_since_ns.unwrap_or(now_ns);
            if since_ns + shared.settings.disk_wait_ns > now_ns {
                self.checkpoint_ns = Some(now_ns + RETRY_NS);
                return true;
            }
            // Nobody is kept waiting for a disk that may never come back; the alarm is on.
            tracing::error!(%error, "recordings are reported although a sync failed");
        }
        self.checkpoint_ns = None;
        let notices = shared.tracks.report(&mut self.touched);
        if let Some(keys) = &mut shared.keys {
            for notice in &notices {
                if let RecorderNotice::Closed { recording, .. } = notice {
                    keys.forget(*recording);
                }
            }
        }
        shared.notices.extend(notices);
        true
    }

    /// Syncs data, then directories; then finishes what could not be finished before.
    fn make_durable(&mut self, now_ns: u64) -> io::Result<()> {
        for writer in &mut self.unfinished {
            writer.checkpoint_data()?;
        }
        if let Some(writer) = &mut self.writer {
            writer.checkpoint_data()?;
            if let Err(error) = writer.checkpoint_directory(now_ns) {
                // The data is durable and found without a directory; it is tried again.
                tracing::warn!(segment = writer.number(), %error, "directory not written yet");
            }
        }
        self.unfinished
            .retain_mut(|writer| writer.finish(now_ns).is_err());
        Ok(())
    }

    /// When there is something to do without being told, CLOCK_MONOTONIC ns.
    pub fn deadline_ns<S>(&self, shared: &Shared<S>) -> Option<u64> {
        let oldest_ns = self.waiting.front().map(|waiting| waiting.arrived_ns);
        let retry_ns = oldest_ns
            .filter(|_| self.failing_since_ns.is_some())
            .map(|arrived_ns| self.retry_ns.min(arrived_ns + shared.settings.disk_wait_ns));
        retry_ns.into_iter().chain(self.checkpoint_ns).min()
    }

    /// Whether the disk refuses.
    pub const fn is_failing(&self) -> bool {
        self.failing_since_ns.is_some()
    }

    /// The disk has room again and nothing has come for a while that would show it.
    pub fn trust_again(&mut self, now_ns: u64) {
        if self.waiting.is_empty()
            && self.checkpoint_ns.is_none()
            && now_ns >= self.retry_ns + TRUST_NS
        {
            self.failing_since_ns = None;
        }
    }

    /// Nothing waits and everything was told.
    pub fn is_settled(&self) -> bool {
        self.waiting.is_empty() && self.checkpoint_ns.is_none()
    }

    /// The orderly end: all segments get their footers.
    pub fn end(&mut self, now_ns: u64) {
        for writer in self.unfinished.iter_mut().chain(&mut self.writer) {
            if let Err(error) = writer.finish(now_ns) {
                let segment = writer.number();
                tracing::warn!(segment, %error, "left without a footer until the next start");
            }
        }
    }
}

/// The key of a recording's next extent and the random part of its nonce, where extents are encrypted.
fn encryption<S>(shared: &mut Shared<S>, recording: u64) -> io::Result<Option<(DataKey, u64)>> {
    // The worker's own log holds nothing of anybody.
    let Some(keys) = shared.keys.as_mut().filter(|_| recording != 0) else {
        return Ok(None);
    };
    let goes_on = shared.tracks.of(recording).staged.segment != 0;
    let key = keys.key_of(recording, goes_on)?;
    Ok(Some((key, u64::from_le_bytes(cipher::random()?))))
}

/// Gives an extent's memory back; no recovery takes it for new.
fn release<S>(shared: &mut Shared<S>, mut extent: Extent) {
    extent::clear(extent.bytes_mut());
    extent.set_free();
    shared.free.push(extent);
}

/// Counts an extent that the disk refused for good.
fn drop_extent<S>(shared: &mut Shared<S>, touched: &mut Vec<u64>, waiting: Waiting) {
    let mut counts = Vec::new();
    extent::count_streams(waiting.bytes(), waiting.used, &mut counts);
    let frames = extent::walk(waiting.bytes(), waiting.used).count() as u32;
    let track = shared.tracks.of(waiting.recording);
    track.give_up(&counts, frames);
    track.pending -= 1;
    touched.push(waiting.recording);
    shared.counters.add(RecorderCounter::ExtentsFailed, 1);
    if let Source::Pool(extent) = waiting.source {
        release(shared, extent);
    }
}
