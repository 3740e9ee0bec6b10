//! The sinks of a process.

use crate::{LifecycleSink, NopLifecycle, NopRecording, RecordingSink};
use std::fmt;
use std::sync::Arc;

/// Sinks of one kind at most.
const SINKS_MAX: usize = 64;

/// A sink and the name under which its undelivered callbacks survive a restart.
pub struct NamedSink<S: ?Sized> {
    /// Unique among the sinks of its kind, and the same in every run.
    pub name: Arc<str>,
    /// The sink.
    pub sink: Arc<S>,
}

impl<S: ?Sized> Clone for NamedSink<S> {
    fn clone(&self) -> Self {
        Self {
            name: Arc::clone(&self.name),
            sink: Arc::clone(&self.sink),
        }
    }
}

/// Several sinks of each kind; callbacks go to each, in the order of registration.
#[derive(Clone)]
pub struct Registry {
    lifecycle: Vec<NamedSink<dyn LifecycleSink>>,
    recording: Vec<NamedSink<dyn RecordingSink>>,
}

impl Default for Registry {
    /// One no-op sink of each kind, as long as no other is added.
    fn default() -> Self {
        let mut registry = Self::empty();
        registry.lifecycle.push(NamedSink {
            name: NOP.into(),
            sink: Arc::new(NopLifecycle),
        });
        registry.recording.push(NamedSink {
            name: NOP.into(),
            sink: Arc::new(NopRecording),
        });
        registry
    }
}

const NOP: &str = "nop";

impl Registry {
    /// No sink at all.
    #[must_use]
    pub const fn empty() -> Self {
        Self {
            lifecycle: Vec::new(),
            recording: Vec::new(),
        }
    }

    /// Adds a sink that learns how calls go; the default no-op goes.
    ///
    /// # Errors
    /// The name is empty or taken, or there are too many sinks.
    pub fn add_lifecycle(
        &mut self,
        name: &str,
        sink: Arc<dyn LifecycleSink>,
    ) -> Result<(), String> {
        add(&mut self.lifecycle, name, sink)
    }

    /// Adds a sink that takes recordings; the default no-op goes.
    ///
    /// # Errors
    /// The name is empty or taken, or there are too many sinks.
    pub fn add_recording(
        &mut self,
        name: &str,
        sink: Arc<dyn RecordingSink>,
    ) -> Result<(), String> {
        add(&mut self.recording, name, sink)
    }

    /// The sinks that learn how calls go.
    #[must_use]
    pub fn lifecycle(&self) -> &[NamedSink<dyn LifecycleSink>] {
        &self.lifecycle
    }

    /// The sinks that take recordings.
    #[must_use]
    pub fn recording(&self) -> &[NamedSink<dyn RecordingSink>] {
        &self.recording
    }

    /// Names of the lifecycle sinks in the outbox. The no-op sink keeps nothing there.
    #[must_use]
    pub fn lifecycle_outbox_names(&self) -> Vec<String> {
        let working = self.lifecycle.iter().filter(|one| &*one.name != NOP);
        working
            .map(|one| lifecycle_outbox_name(&one.name))
            .collect()
    }

    /// Names of the recording sinks in the outbox. The no-op sink keeps nothing there.
    #[must_use]
    pub fn recording_outbox_names(&self) -> Vec<String> {
        let working = self.recording.iter().filter(|one| &*one.name != NOP);
        working
            .map(|one| recording_outbox_name(&one.name))
            .collect()
    }

    /// Without the no-op sinks: what needs threads and an outbox.
    #[must_use]
    pub(crate) fn working(mut self) -> Self {
        self.lifecycle.retain(|one| &*one.name != NOP);
        self.recording.retain(|one| &*one.name != NOP);
        self
    }
}

/// The two kinds have names of their own in the outbox.
pub(crate) fn lifecycle_outbox_name(name: &str) -> String {
    format!("lifecycle:{name}")
}

/// A recording sink's name in the outbox.
#[must_use]
pub fn recording_outbox_name(name: &str) -> String {
    format!("{RECORDING}{name}")
}

/// The recording sink that a name in the outbox is of.
#[must_use]
pub fn recording_of_outbox_name(name: &str) -> Option<&str> {
    name.strip_prefix(RECORDING)
}

const RECORDING: &str = "recording:";

fn add<S: ?Sized>(sinks: &mut Vec<NamedSink<S>>, name: &str, sink: Arc<S>) -> Result<(), String> {
    if name.is_empty() || name == NOP {
        return Err(format!("{name:?} cannot name a sink"));
    }
    sinks.retain(|one| &*one.name != NOP);
    if sinks.iter().any(|one| &*one.name == name) {
        return Err(format!("a sink named {name:?} is there already"));
    }
    if sinks.len() >= SINKS_MAX {
        return Err(format!("at most {SINKS_MAX} sinks of a kind"));
    }
    sinks.push(NamedSink {
        name: name.into(),
        sink,
    });
    Ok(())
}

impl fmt::Debug for Registry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lifecycle: Vec<&str> = self.lifecycle.iter().map(|one| &*one.name).collect();
        let recording: Vec<&str> = self.recording.iter().map(|one| &*one.name).collect();
        formatter
            .debug_struct("Registry")
            .field("lifecycle", &lifecycle)
            .field("recording", &recording)
            .finish()
    }
}
