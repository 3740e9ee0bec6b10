//! Hooks: what a program learns of calls and recordings as they happen.
//!
//! A program registers any number of [`LifecycleSink`]s and [`RecordingSink`]s in a [`Registry`].
//! Each has a thread and a bounded queue of its own ([`Dispatcher`]): one that is slow, blocks or
//! panics harms no call and no other sink. Callbacks that end something (`on_bye`, `on_failed`,
//! `finish_recording`) are kept in an [`Outbox`] until they were made, over restarts too.
//!
//! No storage and no network here: the daemon supplies both.
#![forbid(unsafe_code)]

mod artifact;
mod dispatch;
mod meta;
mod outbox;
mod queue;
mod registry;
mod sink;
mod worker;

pub use artifact::{
    NoPayload, Payload, RecordingArtifact, RecordingChannel, RecordingFormat, RecordingResult,
};
pub use dispatch::{Dispatcher, Limits, SinkCounts};
pub use meta::{CallMeta, Direction, HangupInitiator, HangupMeta};
pub use outbox::{NoOutbox, Outbox, OutboxError, RecordingRef, Terminal, TerminalItem};
pub use registry::{NamedSink, Registry, recording_of_outbox_name, recording_outbox_name};
pub use sink::{FinishError, LifecycleSink, NopLifecycle, NopRecording, RecordingSink};
pub use worker::PAUSE_MAX;
