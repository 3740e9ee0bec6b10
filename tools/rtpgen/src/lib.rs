//! SIP and RTP load generation, as a library and as the rtpgen command.
#![forbid(unsafe_code)]

mod call;
mod calls;
pub mod media;
pub mod options;
pub mod quality;
pub mod receiver;
pub mod report;
pub mod rtp;
pub mod sip;
pub mod tone;
pub mod wire;

pub use calls::run_calls;
pub use options::{CallsOptions, Hangup, Io, Lengths, PayloadKind, SinkOptions, StreamOptions};
pub use report::{CallResult, EndResult, Percentiles, Report, Totals};
pub use wire::{FlowResult, FlowsReport, run_sink, run_stream};
