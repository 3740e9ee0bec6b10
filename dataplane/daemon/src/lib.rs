//! The dataplane process as a library: topology, conductor, worker, recorder.
#![forbid(unsafe_code)]

mod capacity;
pub mod conductor;
pub mod ports;
pub mod recorder;
pub mod signals;
pub mod topology;
pub mod worker;
