//! The transaction layer: RFC 3261 section 17 with RFC 6026, 4320 and 3581.

mod client;
mod congestion;
mod drive;
mod endpoint;
mod keys;
mod machine;
mod receive;
mod server;
mod types;

pub use congestion::StreamLocal;
pub use endpoint::Endpoint;
pub use types::{
    CancelOutcome, ClientTx, Config, Event, FlowId, Path, SendError, ServerTx, Stats, Target,
    Timers, Transmit, Transport, TxId,
};
