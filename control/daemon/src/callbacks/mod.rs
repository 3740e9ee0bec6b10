//! Hooks at work: the sinks of the program that runs us, told of what happens.
//!
//! What passes by is handed to the sinks' queues at once. What ends something goes the long way:
//! record, catalog, outbox; there it stays until it was told.

mod artifact;

pub(crate) use artifact::sample_rate_hz;

use std::io;
use std::path::Path;
use std::sync::Arc;

use trunkline_config::Sink;
use trunkline_hooks::{
    Dispatcher, Limits, RecordingChannel, Registry, SinkCounts, recording_outbox_name,
};
use trunkline_link::pool::PoolReader;
use trunkline_sinks::catalog::{CatalogOutbox, OutboxSinks};
use trunkline_sinks::delivery;
use trunkline_sinks::library::Library;

use crate::ledger::Told;
use crate::tap::{Begin, Output, Tap};

/// The sinks and what they may have waiting.
#[derive(Debug, Clone, Default)]
pub struct Hooks {
    /// The sinks.
    pub registry: Registry,
    /// Their limits.
    pub limits: Limits,
}

impl Hooks {
    /// The names under which ends are kept for the sinks, those of the configuration too. The no-op
    /// sinks keep nothing.
    #[must_use]
    pub fn outbox_sinks(&self, configured: &[Sink]) -> OutboxSinks {
        let configured = configured.iter();
        let names = configured.map(|sink| recording_outbox_name(&sink.name));
        let mut recording = self.registry.recording_outbox_names();
        recording.extend(names);
        OutboxSinks {
            lifecycle: self.registry.lifecycle_outbox_names(),
            recording,
        }
    }

    /// Adds the sinks of the configuration, and has them delete their copies of what is deleted.
    ///
    /// # Errors
    /// A sink cannot work, or its name is taken, in words.
    pub fn add_configured(&mut self, sinks: &[Sink], library: &Arc<Library>) -> Result<(), String> {
        let mut erasers = Vec::new();
        for running in delivery::build(sinks, library)? {
            self.registry.add_recording(&running.name, running.sink)?;
            erasers.extend(running.eraser);
        }
        library.catalog.set_erasers(erasers);
        Ok(())
    }
}

/// The running sinks; clones share them.
#[derive(Clone)]
pub struct Callbacks {
    /// Ends before the sinks do.
    tap: Arc<Tap>,
    dispatcher: Arc<Dispatcher>,
}

/// The tap's sound, on its way to the sinks.
struct Pcm(Arc<Dispatcher>);

impl Output for Pcm {
    fn wants(&self, call_id: &str) -> bool {
        self.0.wants_pcm(call_id)
    }

    fn pcm(&self, call_id: &Arc<str>, channel: RecordingChannel, samples: &[i16]) {
        let bytes: Vec<u8> = samples.iter().flat_map(|one| one.to_le_bytes()).collect();
        self.0.append_pcm(call_id, channel, bytes.into());
    }

    fn done(&self, call_id: &str) {
        self.0.pcm_done(call_id);
    }
}

impl Callbacks {
    /// Starts the sinks' threads. `folder` is for copies of recordings that sinks read.
    ///
    /// # Errors
    /// The folder cannot be made, or a thread not be started.
    pub fn start(
        hooks: Hooks,
        library: &Arc<Library>,
        catalog_file: &Path,
        folder: &Path,
    ) -> io::Result<Self> {
        let catalog = library.catalog.clone();
        let maker = artifact::Maker::new(Arc::clone(library), folder)?;
        let make = Box::new(move |recording: &_| maker.make(recording));
        let outbox = CatalogOutbox::new(catalog_file, hooks.limits.finish_deadline, make);
        let dispatcher = Dispatcher::start(hooks.registry, Arc::new(outbox), hooks.limits)?;
        let dispatcher = Arc::new(dispatcher);
        // Weak: the catalog outlives the sinks.
        let told = Arc::downgrade(&dispatcher);
        catalog.when_ends_are_stored(Box::new(move || {
            if let Some(dispatcher) = told.upgrade() {
                dispatcher.outbox_changed();
            }
        }));
        let tap = Arc::new(Tap::start(Pcm(Arc::clone(&dispatcher)))?);
        Ok(Self { tap, dispatcher })
    }

    /// Tells the sinks of what passes by; records are not for them.
    pub fn tell(&self, told: Told) {
        match told {
            Told::Record(_) => {}
            Told::Ringing(meta) => self.dispatcher.ringing(meta),
            Told::Established(meta) => self.dispatcher.established(meta),
            Told::TransferStarted(meta, target) => {
                self.dispatcher.transfer_started(meta, &target);
            }
            Told::BridgeStarted {
                inbound, outbound, ..
            } => {
                self.dispatcher.bridge_started(&inbound, &outbound);
            }
            Told::RecordingBegun {
                meta,
                number,
                sound,
                from_mono_ns,
            } => {
                let call_id: Arc<str> = meta.call_id.as_str().into();
                self.dispatcher
                    .begin_recording(meta, sound.rate_hz, &sound.codec);
                if self.dispatcher.wants_pcm(&call_id) {
                    self.tap.begin(Begin {
                        number,
                        call_id,
                        rate_hz: sound.rate_hz,
                        from_mono_ns,
                    });
                }
            }
            Told::RecordingEnded { number, at_mono_ns } => self.tap.end(number, at_mono_ns),
        }
    }

    /// A dataplane is attached: that is the memory it captures into.
    pub fn pool(&self, pool: Arc<PoolReader>) {
        self.tap.pool(pool);
    }

    /// What each sink's thread has done.
    #[must_use]
    pub fn counts(&self) -> Vec<SinkCounts> {
        self.dispatcher.counts()
    }
}

/// The sound of a recording that begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sound {
    /// Samples a second of the PCM to come.
    pub rate_hz: u32,
    /// Audio codec of the caller's leg.
    pub codec: String,
}
