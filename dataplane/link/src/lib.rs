//! Everything that the control and dataplane processes share: regions, rings, commands, events,
//! counters and the extent pool. All inter-process unsafe code of the project lives here, and of
//! this crate only in [`shared_map`], [`pool`] and the doorbells' modules.
//!
//! A peer is trusted with nothing but its own memory: whatever it scribbles over the region, the
//! other end gets an error and goes on with the next attach.

pub mod attach;
pub mod codec;
pub mod counters;
pub mod doorbell;
pub mod limits;
pub mod message;
pub mod pool;
mod prefetch;
pub mod region;
pub mod ring;
pub mod shared_map;

pub use attach::{ControlLink, LinkError, Server};
pub use codec::{CodecError, decode_command, decode_event, encode_command, encode_event};
pub use counters::{
    ConductorCounter, CounterReader, CounterWriter, Counters, RecorderCounter, WorkerCounter,
};
pub use pool::{Extent, ExtentState, Pool, PoolReader};
pub use prefetch::prefetch;

/// CLOCK_MONOTONIC in nanoseconds, the clock of heartbeats and of everything in the dataplane.
///
/// # Errors
/// Those of clock_gettime.
pub fn monotonic_ns() -> std::io::Result<u64> {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)?;
    Ok(now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}
