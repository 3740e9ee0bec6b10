//! The recorder: a cold thread that seals the workers' extents and writes them to segments.
//!
//! One turn: take what workers closed, write it in batches of a mebibyte (or what there is when a checkpoint
//! is due), make it durable once a second (sooner when a recording ends), hand free extents back. When the disk refuses, extents wait for a bounded time
//! and are then given up and counted; nothing here ever holds up a worker.
//!
//! Its files: `message` what it is told and tells, `track` what it knows of each recording, `series`
//! one worker's segments.

pub mod message;
mod series;
#[cfg(test)]
mod tests;
mod track;

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::statvfs::statvfs;
use std::os::fd::AsFd;
use trunkline_link::counters::{CounterWriter, RecorderCounter};
use trunkline_link::pool::Extent;
use trunkline_sn3::file::{DirectoryStore, SegmentStore, Way};
use trunkline_sn3::keys::{KeyWriter, Keys};
use trunkline_sn3::record::ClockTriple;
use trunkline_sn3::{chain, recover};

use crate::worker::message::Bell;
pub use message::{CaptureQueues, Closed, DiskDrop, RecorderCommand, RecorderNotice};
use series::Series;
use track::{Tip, Tracks};

/// Pause after a turn that had work, so that what comes next comes in batches.
const NAP: Duration = Duration::from_millis(10);
/// Closed extents taken from one worker in a turn.
const TAKE_MAX: usize = 4096;

/// What the recorder is started with.
#[derive(Debug, Clone)]
pub struct RecorderSettings {
    /// Segments go to `segments/` below it.
    pub data_dir: PathBuf,
    /// How segments are written.
    pub way: Way,
    /// Segments are finished at this size.
    pub segment_bytes: u64,
    /// Extents to keep in each worker's ready queue.
    pub ready_extents: usize,
    /// How long an extent waits for a disk that refuses, ns.
    pub disk_wait_ns: u64,
    /// How many wait at most, over all workers.
    pub waiting_max: usize,
    /// Between durable points, ns.
    pub checkpoint_ns: u64,
    /// Extents are chained by hash.
    pub hash_chain: bool,
    /// Master keys: with one, extents are encrypted.
    pub keys: Keys,
}

impl RecorderSettings {
    /// Size of a segment where the configuration says nothing.
    pub const SEGMENT_BYTES: u64 = 256 << 20;

    /// The usual values for a pool of `extents` shared by `workers`.
    #[must_use]
    pub fn new(data_dir: &Path, extents: usize, workers: usize) -> Self {
        Self {
            data_dir: data_dir.to_path_buf(),
            way: Way::Direct,
            segment_bytes: Self::SEGMENT_BYTES,
            ready_extents: (extents / (4 * workers.max(1))).clamp(1, 4096),
            disk_wait_ns: 2_000_000_000,
            waiting_max: (extents / 4).max(1),
            checkpoint_ns: 1_000_000_000,
            hash_chain: true,
            keys: Keys::none(),
        }
    }

    /// The directory of segments.
    #[must_use]
    pub fn segments(&self) -> PathBuf {
        self.data_dir.join("segments")
    }
}

/// What the recorder is made of, put together by the topology.
pub struct RecorderParts {
    /// Settings.
    pub settings: RecorderSettings,
    /// The workers' queues, by worker number.
    pub queues: Vec<CaptureQueues>,
    /// All extents of the pool.
    pub extents: Vec<Extent>,
    /// From the conductor.
    pub commands: Arc<ArrayQueue<RecorderCommand>>,
    /// To the conductor.
    pub notices: Arc<ArrayQueue<RecorderNotice>>,
    /// Wakes the recorder.
    pub bell: Arc<Bell>,
    /// Wakes the conductor.
    pub conductor_bell: Arc<Bell>,
    /// Its counter page.
    pub counters: CounterWriter,
}

/// Starts the recorder's thread; it ends after [`RecorderCommand::Stop`].
///
/// Segments that a crash left without a footer are finished beside it, on a thread of their own.
///
/// # Errors
/// The segments' directory cannot be made, or a thread not started.
pub fn spawn(parts: RecorderParts) -> io::Result<JoinHandle<()>> {
    let store = DirectoryStore::new(&parts.settings.segments(), parts.settings.way)?;
    let directory = store.directory().to_path_buf();
    let keys = parts.settings.keys.clone();
    std::thread::Builder::new()
        .name("segment-repair".into())
        .spawn(move || finish_leftovers(&directory, &keys))?;
    let bell = parts.bell.clone();
    let mut recorder = Recorder::new(parts, store, Clocks::read()?);
    recorder.refill();
    std::thread::Builder::new()
        .name("recorder".into())
        .spawn(move || recorder.run(&bell))
}

fn finish_leftovers(directory: &Path, keys: &Keys) {
    match recover::finish_leftovers(directory, keys) {
        Ok(results) => {
            for (path, result) in results {
                match result {
                    Ok(done) => tracing::info!(path = %path.display(), ?done, "segment recovered"),
                    Err(error) => {
                        tracing::warn!(path = %path.display(), %error, "segment not recovered");
                    }
                }
            }
        }
        Err(error) => tracing::warn!(%error, "segments cannot be listed"),
    }
}

/// Both clocks at the recorder's start.
#[derive(Debug, Clone, Copy, Default)]
struct Clocks {
    start: ClockTriple,
}

impl Clocks {
    fn read() -> io::Result<Self> {
        let utc = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let utc_ns = utc.map_or(0, |since| {
            u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
        });
        Ok(Self {
            start: ClockTriple {
                mono_ns: trunkline_link::monotonic_ns()?,
                utc_ns,
                sync: 0,
            },
        })
    }

    /// Both clocks at `mono_ns`.
    fn at(&self, mono_ns: u64) -> ClockTriple {
        ClockTriple {
            mono_ns,
            utc_ns: self.start.utc_of(mono_ns),
            sync: 0,
        }
    }
}

/// What all series share.
struct Shared<S> {
    store: S,
    settings: RecorderSettings,
    clocks: Clocks,
    tracks: Tracks,
    /// Where extents are encrypted.
    keys: Option<KeyWriter>,
    free: Vec<Extent>,
    notices: VecDeque<RecorderNotice>,
    counters: CounterWriter,
    /// Extents that wait for the disk, over all series.
    waiting: usize,
}

/// The recorder without its thread.
struct Recorder<S: SegmentStore> {
    shared: Shared<S>,
    series: Vec<Series<S::File>>,
    queues: Vec<CaptureQueues>,
    /// Extents whose memory was not touched yet.
    untouched: Vec<Extent>,
    commands: Arc<ArrayQueue<RecorderCommand>>,
    outbox: Arc<ArrayQueue<RecorderNotice>>,
    conductor_bell: Arc<Bell>,
    alarm: bool,
    stopping: bool,
    /// When a stop ends whatever is left, CLOCK_MONOTONIC ns.
    stop_by_ns: Option<u64>,
    next_disk_look_ns: u64,
}

/// What a turn leaves to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// There was work: more is likely.
    Soon,
    /// Nothing before this time, CLOCK_MONOTONIC ns; `None` = until somebody rings.
    At(Option<u64>),
    /// Everything is written after a stop.
    End,
}

impl<S: SegmentStore> Recorder<S> {
    fn new(parts: RecorderParts, store: S, clocks: Clocks) -> Self {
        let total = parts.extents.len();
        parts
            .counters
            .set(RecorderCounter::ExtentsTotal, total as u64);
        let keys = parts
            .settings
            .keys
            .encrypts()
            .then(|| KeyWriter::new(&parts.settings.segments(), parts.settings.keys.clone()));
        let series = (0..parts.queues.len())
            .map(|worker| Series::new(worker as u16))
            .collect();
        Self {
            shared: Shared {
                store,
                settings: parts.settings,
                clocks,
                tracks: Tracks::default(),
                keys,
                free: Vec::with_capacity(total),
                notices: VecDeque::new(),
                counters: parts.counters,
                waiting: 0,
            },
            series,
            queues: parts.queues,
            untouched: parts.extents,
            commands: parts.commands,
            outbox: parts.notices,
            conductor_bell: parts.conductor_bell,
            alarm: false,
            stopping: false,
            stop_by_ns: None,
            next_disk_look_ns: 0,
        }
    }

    fn run(mut self, bell: &Bell) {
        loop {
            let now_ns = match trunkline_link::monotonic_ns() {
                Ok(now_ns) => now_ns,
                Err(error) => {
                    tracing::error!(%error, "no clock: the recorder ends");
                    return;
                }
            };
            match self.turn(now_ns) {
                Next::End => return,
                // The bell stays silent meanwhile, so that workers pay for no system call.
                Next::Soon => std::thread::sleep(NAP),
                Next::At(deadline_ns) => self.sleep(bell, now_ns, deadline_ns),
            }
        }
    }

    fn sleep(&self, bell: &Bell, now_ns: u64, deadline_ns: Option<u64>) {
        bell.about_to_sleep();
        let idle = self.commands.is_empty() && self.queues.iter().all(|q| q.closed.is_empty());
        if idle {
            let timeout = match deadline_ns {
                None => PollTimeout::NONE,
                Some(at_ns) => {
                    let timeout_ms = at_ns.saturating_sub(now_ns).div_ceil(1_000_000);
                    PollTimeout::try_from(timeout_ms.max(1)).unwrap_or(PollTimeout::MAX)
                }
            };
            let mut files = [PollFd::new(bell.doorbell().as_fd(), PollFlags::POLLIN)];
            // An interrupted wait is as good as a short one.
            let _ = poll(&mut files, timeout);
        }
        bell.awake();
        bell.doorbell().answer();
    }

    /// One bounded round of work.
    fn turn(&mut self, now_ns: u64) -> Next {
        self.take_commands();
        let mut busy = self.take_closed(now_ns);
        let low = self.shared.free.len() + self.untouched.len() < self.shared.settings.waiting_max;
        for series in &mut self.series {
            busy |= series.pump(&mut self.shared, now_ns, low || self.stopping);
            busy |= series.checkpoint(&mut self.shared, now_ns, self.stopping);
        }
        self.refill();
        self.look_at_disk(now_ns);
        self.raise_alarm();
        self.send_notices();
        if self.stopping {
            let wait_ns = 2 * self.shared.settings.disk_wait_ns;
            let by_ns = *self.stop_by_ns.get_or_insert(now_ns + wait_ns);
            if self.drained() || now_ns >= by_ns {
                self.end(now_ns);
                return Next::End;
            }
        }
        if busy || self.stopping || !self.shared.notices.is_empty() {
            return Next::Soon;
        }
        let deadlines = self
            .series
            .iter()
            .filter_map(|series| series.deadline_ns(&self.shared));
        Next::At(
            deadlines
                .chain(self.alarm.then_some(self.next_disk_look_ns))
                .min(),
        )
    }

    fn take_commands(&mut self) {
        while let Some(command) = self.commands.pop() {
            match command {
                RecorderCommand::Begin {
                    session,
                    recording,
                    first_ordinal,
                    prev_segment,
                    prev_page,
                } => {
                    let prev = self.tip_of(prev_segment, prev_page);
                    self.shared
                        .tracks
                        .begin(session, recording, first_ordinal, prev);
                }
                RecorderCommand::Stop => self.stopping = true,
            }
        }
    }

    /// The last extent that an earlier dataplane wrote of a recording.
    fn tip_of(&self, segment: u32, page: u32) -> Tip {
        let link = (segment != 0 && self.shared.settings.hash_chain)
            .then(|| self.shared.store.link_of(segment, page))
            .flatten();
        Tip {
            segment,
            page,
            link: link.unwrap_or(chain::START),
        }
    }

    /// Takes what workers closed. True when there was something.
    fn take_closed(&mut self, now_ns: u64) -> bool {
        let mut any = false;
        for (queues, series) in self.queues.iter().zip(&mut self.series) {
            for _ in 0..TAKE_MAX {
                let Some(closed) = queues.closed.pop() else {
                    break;
                };
                any = true;
                match closed {
                    Closed::Extent(extent) => series.accept(&mut self.shared, extent, now_ns),
                    Closed::Finish { session, recording } => {
                        series.finish_recording(&mut self.shared, session, recording, now_ns);
                    }
                }
            }
        }
        any
    }

    /// Fills the workers' ready queues, the emptiest first.
    fn refill(&mut self) {
        let target = self.shared.settings.ready_extents;
        loop {
            let neediest = self.queues.iter().min_by_key(|queues| queues.ready.len());
            let Some(queues) = neediest.filter(|queues| queues.ready.len() < target) else {
                break;
            };
            let extent = self.shared.free.pop().or_else(|| {
                let mut extent = self.untouched.pop()?;
                extent.prepare();
                Some(extent)
            });
            let Some(extent) = extent else { break };
            if let Err(extent) = queues.ready.push(extent) {
                self.shared.free.push(extent);
                break;
            }
        }
        let ready: usize = self.queues.iter().map(|queues| queues.ready.len()).sum();
        let free = ready + self.shared.free.len() + self.untouched.len();
        self.shared
            .counters
            .set(RecorderCounter::ExtentsReady, free as u64);
    }

    fn look_at_disk(&mut self, now_ns: u64) {
        const LOOK_NS: u64 = 1_000_000_000;
        const ROOM: u64 = 4 << 20;
        if now_ns < self.next_disk_look_ns {
            return;
        }
        self.next_disk_look_ns = now_ns + LOOK_NS;
        let Ok(disk) = statvfs(&self.shared.settings.data_dir) else {
            return;
        };
        let free = disk.blocks_available() * disk.fragment_size();
        self.shared
            .counters
            .set(RecorderCounter::DiskFreeBytes, free);
        if free >= ROOM {
            // A disk with room again is believed when nothing waits that could prove it.
            self.series
                .iter_mut()
                .for_each(|series| series.trust_again(now_ns));
        }
    }

    fn raise_alarm(&mut self) {
        let failing = self.series.iter().any(Series::is_failing);
        if failing != self.alarm {
            self.alarm = failing;
            self.shared
                .counters
                .set(RecorderCounter::CaptureFailing, u64::from(failing));
            self.shared
                .notices
                .push_back(RecorderNotice::DiskAlarm { active: failing });
            if failing {
                tracing::error!(
                    "the disk refuses segments: relay goes on, frames wait or are dropped"
                );
            } else {
                tracing::info!("the disk takes segments again");
            }
        }
    }

    fn send_notices(&mut self) {
        let mut sent = false;
        while let Some(notice) = self.shared.notices.pop_front() {
            if let RecorderNotice::Closed { .. } = notice {
                self.shared
                    .counters
                    .add(RecorderCounter::RecordingsClosed, 1);
            }
            if let Err(notice) = self.outbox.push(notice) {
                self.shared.notices.push_front(notice);
                break;
            }
            sent = true;
        }
        if sent {
            self.conductor_bell.ring();
        }
    }

    fn drained(&self) -> bool {
        self.commands.is_empty()
            && self.queues.iter().all(|queues| queues.closed.is_empty())
            && self.series.iter().all(Series::is_settled)
            && self.shared.notices.is_empty()
    }

    fn end(&mut self, now_ns: u64) {
        for series in &mut self.series {
            series.end(now_ns);
        }
    }
}
