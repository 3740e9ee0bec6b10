//! Forwarding as pure code: sessions, legs, relay, tap, latching and statistics.
//!
//! One [`Engine`] belongs to one worker. It has no clock (every call takes `now_ns`, nanoseconds of
//! CLOCK_MONOTONIC), does no I/O (it acts through [`Actions`]) and, on the accepted path, neither
//! allocates nor hashes: a datagram finds its leg by the index of the socket it came in on.
//!
//! ```text
//!  slot ──► Port ──► flow + side + component
//!            judge the source (latch)      stranger: counted, dropped
//!            rate cap, open (transform), parse
//!            statistics, tap (capture)     as received
//!            forks (copies)                to recorders
//!            mute, what we play, payload mapping, continuity, seal
//!            forward out of the far side's slot to its endpoint
//! ```
#![forbid(unsafe_code)]

mod actions;
mod admission;
mod counters;
mod dial;
mod digits;
mod endpoint;
mod engine;
mod flow;
mod fork;
mod forks;
mod housekeeping;
mod latch;
mod ours;
mod path;
mod play;
mod probation;
mod rate;
mod relay;
mod silence;
mod source;
mod spec;
mod stream;
mod tap;
mod taps;
mod transform;
mod warm;

pub use actions::{Actions, Captured, Event, FrameKind, FrameMeta};
pub use admission::Admission;
pub use counters::Counters;
pub use engine::Engine;
pub use rate::UNREAD_NS;
pub use source::{Companding, Source};
pub use spec::{
    Codec, Continuity, DROP_REASONS, DigitSpec, DropReason, EngineError, FORKS_MAX, ForkState,
    ForkStats, LegFlags, LegRestore, LegSpec, Limits, MEDIA_MAX, MediaKind, MediaSpec,
    PAYLOADS_MAX, PayloadSpec, PlayMode, PlaySpec, PortSlots, SSRCS_MAX, STREAMS_MAX, SessionSpec,
    Side, StreamReceipt, StreamStats, TAIL_ROOM_BYTES, Voice,
};
