//! The dataplane's own recorder, started as the topology does, with the bench in place of the workers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use trunkline_dataplane::recorder::{
    self, CaptureQueues, RecorderCommand, RecorderNotice, RecorderParts, RecorderSettings,
};
use trunkline_dataplane::worker::message::Bell;
use trunkline_link::counters::{CounterReader, Counters, RecorderCounter};
use trunkline_link::doorbell::Doorbell;
use trunkline_link::pool::Pool;
use trunkline_sn3::segment;

use crate::Outcome;

pub struct Store {
    pub queues: CaptureQueues,
    pub bell: Arc<Bell>,
    pub notices: Arc<ArrayQueue<RecorderNotice>>,
    commands: Arc<ArrayQueue<RecorderCommand>>,
    counters: CounterReader,
    _pages: Counters,
    thread: JoinHandle<()>,
    segments: PathBuf,
}

fn text(error: std::io::Error) -> String {
    error.to_string()
}

fn bell() -> Outcome<Arc<Bell>> {
    Ok(Arc::new(Bell::new(Doorbell::create().map_err(text)?)))
}

impl Store {
    pub fn start(
        directory: &Path,
        extents: usize,
        change: impl FnOnce(&mut RecorderSettings),
    ) -> Outcome<Self> {
        let (pool, tokens) = Pool::create(extents).map_err(text)?;
        let (pages, writers) = Counters::create(1).map_err(text)?;
        let counters = pages.reader().map_err(text)?;
        let queues = CaptureQueues::new(pool.extents());
        let mut settings = RecorderSettings::new(directory, extents, 1);
        settings.ready_extents = extents;
        change(&mut settings);
        let segments = settings.segments();
        let commands = Arc::new(ArrayQueue::new(4096));
        let notices = Arc::new(ArrayQueue::new(16_384));
        let recorder_bell = bell()?;
        let thread = recorder::spawn(RecorderParts {
            settings,
            queues: vec![queues.clone()],
            extents: tokens,
            commands: commands.clone(),
            notices: notices.clone(),
            bell: recorder_bell.clone(),
            conductor_bell: bell()?,
            counters: writers.recorder,
        })
        .map_err(text)?;
        Ok(Self {
            queues,
            bell: recorder_bell,
            notices,
            commands,
            counters,
            _pages: pages,
            thread,
            segments,
        })
    }

    pub fn count(&self, counter: RecorderCounter) -> u64 {
        self.counters.recorder(counter)
    }

    /// Ends it when everything is written; removes what was written.
    pub fn stop(self) -> Outcome<()> {
        let _ = self.commands.push(RecorderCommand::Stop);
        self.bell.ring();
        while !self.thread.is_finished() {
            while self.notices.pop().is_some() {}
            std::thread::sleep(Duration::from_millis(5));
        }
        let failed = self.count(RecorderCounter::ExtentsFailed);
        let ended = self.thread.join();
        std::fs::remove_dir_all(&self.segments).map_err(text)?;
        match (ended, failed) {
            (Ok(()), 0) => Ok(()),
            (Ok(()), failed) => Err(format!("the disk refused {failed} extents")),
            (Err(_), _) => Err("the recorder panicked".to_owned()),
        }
    }
}

/// The segment files below a directory.
pub fn segment_files(directory: &Path) -> Outcome<Vec<PathBuf>> {
    let listed = segment::list(directory).map_err(text)?;
    Ok(listed.into_iter().map(|(_, path)| path).collect())
}

/// CPU seconds of this process's threads of a name so far.
pub fn thread_cpu_s(name: &str) -> f64 {
    let mut total = 0;
    for entry in std::fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten()
    {
        let path = entry.path();
        let own = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
        if own.trim() == name {
            let spent = std::fs::read_to_string(path.join("schedstat")).unwrap_or_default();
            let first = spent
                .split(' ')
                .next()
                .and_then(|word| word.parse::<u64>().ok());
            total += first.unwrap_or(0);
        }
    }
    total as f64 / 1e9
}
