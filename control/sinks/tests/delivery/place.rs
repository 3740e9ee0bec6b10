//! An appliance's data directory with recordings, and sinks that they go to.

use crate::support::{Script, write_segment};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use trunkline_config::Sink;
use trunkline_hooks::{
    Dispatcher, Limits, RecordingArtifact, RecordingRef, Registry, recording_outbox_name,
};
use trunkline_sinks::Timestamp;
use trunkline_sinks::catalog::{
    Catalog, CatalogHandle, CatalogOutbox, CatalogThread, Delivery, DeliveryFilter, DeliveryState,
    Mark, OutboxSinks, rebuild,
};
use trunkline_sinks::delivery;
use trunkline_sinks::library::{Library, scratch_of};
use trunkline_sn3::Keys;

/// Waits for something, generously.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The sinks of a configuration's text.
pub fn sinks(text: &str) -> Vec<Sink> {
    let config = trunkline_config::Config::parse(text, "test.toml");
    config.unwrap_or_else(|errors| panic!("{errors}")).sinks
}

pub struct Place {
    pub folder: tempfile::TempDir,
    pub dispatcher: Option<Dispatcher>,
    thread: Option<CatalogThread>,
    scripts: Vec<Script>,
}

impl Place {
    /// With so many recordings of so many packets; nothing runs yet.
    pub fn new(recordings: u64, packets: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let start = Timestamp::parse("2026-11-20T10:00:00.000Z").unwrap();
        let script = |number| Script::new(number, start, packets);
        let scripts: Vec<Script> = (1..=recordings).map(script).collect();
        let segments = folder.path().join("segments");
        std::fs::create_dir(&segments).unwrap();
        if recordings > 0 {
            write_segment(&segments, &scripts);
        }
        Self {
            folder,
            dispatcher: None,
            thread: None,
            scripts,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A path as it stands in a configuration.
    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// The id of a recording.
    pub fn id(&self, index: usize) -> &str {
        &self.scripts[index].recording_id
    }

    /// Starts catalog and sinks; for the first time every recording is new to the sinks.
    pub fn start(&mut self, sinks: &[Sink]) {
        self.stop();
        let path = self.path("catalog.sqlite");
        let segments = self.path("segments");
        let (mut catalog, new) = Catalog::open(&path).unwrap();
        let name = |sink: &Sink| recording_outbox_name(&sink.name);
        catalog.set_sinks(OutboxSinks {
            lifecycle: Vec::new(),
            recording: sinks.iter().map(name).collect(),
        });
        if new {
            rebuild(&mut catalog, &segments, &Keys::none()).unwrap();
        }
        let thread = CatalogThread::start(catalog, path.clone()).unwrap();
        let library = Arc::new(Library {
            catalog: thread.handle(),
            segments,
            scratch: scratch_of(self.folder.path()),
            keys: Arc::new(Keys::none()),
            signer: None,
        });
        let mut registry = Registry::empty();
        let mut erasers = Vec::new();
        for running in delivery::build(sinks, &library).unwrap() {
            registry.add_recording(&running.name, running.sink).unwrap();
            erasers.extend(running.eraser);
        }
        thread.handle().set_erasers(erasers);
        let make = |recording: &RecordingRef| Ok(RecordingArtifact::without_payload(recording));
        let outbox = CatalogOutbox::new(&path, Duration::from_secs(30), Box::new(make));
        let limits = Limits {
            stop_patience: Duration::from_millis(100),
            ..Limits::default()
        };
        let dispatcher = Dispatcher::start(registry, Arc::new(outbox), limits).unwrap();
        self.dispatcher = Some(dispatcher);
        self.thread = Some(thread);
    }

    pub fn stop(&mut self) {
        self.dispatcher = None;
        self.thread = None;
    }

    /// Removes the catalog: the next start rebuilds it.
    pub fn forget(&mut self) {
        self.stop();
        for suffix in ["", "-wal", "-shm"] {
            // The others are there only sometimes.
            let _ = std::fs::remove_file(self.path(&format!("catalog.sqlite{suffix}")));
        }
    }

    pub fn catalog(&self) -> CatalogHandle {
        self.thread.as_ref().unwrap().handle()
    }

    pub fn deliveries(&self, state: DeliveryState) -> Vec<Delivery> {
        let filter = DeliveryFilter {
            state: Some(state),
            ..DeliveryFilter::default()
        };
        self.catalog().deliveries(&filter, 1000).unwrap()
    }

    /// Waits until so many deliveries are in a state.
    pub fn wait(&self, state: DeliveryState, count: usize) -> Vec<Delivery> {
        wait_for(
            &format!("{count} deliveries that are {}", state.name()),
            || {
                let found = self.deliveries(state);
                (found.len() >= count).then_some(found)
            },
        )
    }

    /// Deletes a recording as the API does.
    pub fn delete(&self, id: &str) -> Result<usize, String> {
        delete(&self.catalog(), &self.path("segments"), id)
    }
}

/// [`Place::delete`] from anywhere.
pub fn delete(catalog: &CatalogHandle, segments: &Path, id: &str) -> Result<usize, String> {
    let stored = catalog.recording(id).unwrap().unwrap();
    let mark = Mark::Deleted(stored.storage.number, Box::new(stored.recording));
    catalog.decide(id, mark).unwrap();
    let erased = catalog.erase_deleted(segments);
    erased.map_err(|error| error.to_string())
}

/// Names of all files below a folder, sorted; without what is being written.
pub fn files(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap();
                found.push(name.display().to_string());
            }
        }
    }
    found.sort();
    found
}
