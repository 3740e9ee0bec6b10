//! Sinks that finished recordings are delivered to, each a [`RecordingSink`]: `[[sink]]` in the
//! configuration.
//!
//! What a sink has not got yet waits in the catalog's outbox. A sink that fails is tried again with
//! growing pauses; it harms no call and no other sink, for it has threads of its own.

mod directory;
pub mod files;
mod http;
mod making;
mod object_store;
mod pcm;
mod webhook;

use crate::catalog::{CopyEraser, StoredRecording};
use crate::library::{Entry, Library};
use crate::object::Recording;
use std::sync::Arc;
use std::time::Duration;
use trunkline_config::{Sink, SinkKind};
use trunkline_hooks::{FinishError, RecordingSink, recording_outbox_name};

/// A sink as configured, running.
pub struct Running {
    /// Its name.
    pub name: String,
    /// The sink.
    pub sink: Arc<dyn RecordingSink>,
    /// Deletes what it has made on this machine.
    pub eraser: Option<Arc<dyn CopyEraser>>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.name)
    }
}

/// Makes the sinks of a configuration.
///
/// # Errors
/// One cannot work, with its name.
pub fn build(sinks: &[Sink], library: &Arc<Library>) -> Result<Vec<Running>, String> {
    let build_one = |sink: &Sink| {
        let place = Place {
            name: sink.name.clone(),
            tenant: sink.tenant.clone(),
            library: Arc::clone(library),
        };
        build_one(sink, place).map_err(|why| format!("sink {:?}: {why}", sink.name))
    };
    sinks.iter().map(build_one).collect()
}

fn build_one(sink: &Sink, place: Place) -> Result<Running, String> {
    let name = sink.name.clone();
    let (sink, eraser): (Arc<dyn RecordingSink>, Option<Arc<dyn CopyEraser>>) = match &sink.kind {
        SinkKind::Directory(settings) => {
            let sink = Arc::new(directory::Directory::new(settings, place)?);
            (sink.clone(), settings.delete.then_some(sink))
        }
        SinkKind::ObjectStore(settings) => {
            (Arc::new(object_store::Store::new(settings, place)?), None)
        }
        SinkKind::Webhook(settings) => (Arc::new(webhook::Webhook::new(settings, place)?), None),
        SinkKind::Pcm(settings) => (Arc::new(pcm::Pcm::new(settings, place)?), None),
    };
    Ok(Running { name, sink, eraser })
}

/// Outbox names of the sinks that keep recordings: what they have not got is not deleted by age or
/// quota.
#[must_use]
pub fn keepers(sinks: &[Sink]) -> Vec<String> {
    let keeps =
        |sink: &&Sink| matches!(sink.kind, SinkKind::Directory(_) | SinkKind::ObjectStore(_));
    let names = sinks.iter().filter(keeps);
    names
        .map(|sink| recording_outbox_name(&sink.name))
        .collect()
}

/// What every sink has.
#[derive(Debug)]
struct Place {
    name: String,
    /// Only this tenant's recordings.
    tenant: Option<String>,
    library: Arc<Library>,
}

impl Place {
    /// A recording that is for this sink; `None` when it is deleted, about to be, or another tenant's.
    fn entry(&self, id: &str) -> Result<Option<Entry>, FinishError> {
        let entry = self.library.entry(id).map_err(failed)?;
        Ok(entry.filter(|entry| {
            let recording = &entry.stored.recording;
            self.is_ours(recording) && recording.kept != Some(false)
        }))
    }

    /// A recording that would have been for this sink and is deleted.
    fn deleted(&self, id: &str) -> Result<Option<Recording>, FinishError> {
        let stored = self.library.catalog.recording(id).map_err(failed)?;
        let deleted = stored.filter(StoredRecording::is_deleted);
        Ok(deleted
            .map(|stored| stored.recording)
            .filter(|recording| self.is_ours(recording)))
    }

    fn is_ours(&self, recording: &Recording) -> bool {
        self.tenant.is_none() || self.tenant == recording.tenant
    }
}

fn failed(error: impl std::fmt::Display) -> FinishError {
    FinishError::new(error.to_string())
}

const fn hours(hours: u32) -> Duration {
    Duration::from_secs(hours as u64 * 3600)
}
