//! trunkline.toml: its keys, their defaults and their judgement.
//!
//! [`Config::load`] and [`Config::parse`] either give a [`Config`] in which everything is resolved
//! (addresses parsed, patterns compiled, defaults filled in) or every error of the file at once,
//! each with file, line and key. A key that is defined but not built yet is such an error too.
#![forbid(unsafe_code)]

mod error;
mod indication;
mod judge;
mod model;
mod parse;
mod pattern;
mod policy;
mod reader;
mod recorder;
mod retention;
mod route;
mod sink;
mod target;
mod template;

pub use error::{ConfigError, ConfigErrors};
pub use indication::{Announcement, Indication, IndicationMode, Sound, Tone, read_announcement};
pub use ipnet::IpNet;
pub use model::{
    Backend, Cdr, Config, Control, Cores, Dataplane, Dtmf, Idle, Interface, Listen, PortRange,
    Recording, Sip, Transport, Writer,
};
pub use parse::parse_listen;
pub use pattern::{Pattern, normalize_user};
pub use policy::{HeaderPolicy, Preset};
pub use recorder::{
    DEFAULT_NAME as DEFAULT_RECORDER, LOCAL_NAME as LOCAL_RECORDER, OnRecordingFailure, Recorder,
    RecorderPause, RecorderStart, Recorders, Replay, Settings as RecorderSettings,
    check_header as check_recorder_header, check_uri as check_recorder_uri,
};
pub use retention::Retention;
pub use route::{Auth, HeaderMatch, Next, Record, RecordPref, Route, Transfer};
pub use sink::{
    Confirm, Delivery, DirectorySink, FileFormat, Files, ObjectStoreSink, PcmChannel, PcmSink,
    PcmTarget, Secret, Sink, SinkKind, WebhookSink,
};
pub use target::{Host, SipTarget};
pub use template::{NameField, NameTemplate};
