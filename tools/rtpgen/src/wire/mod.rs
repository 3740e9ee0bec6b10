//! `rtpgen stream` and `rtpgen sink`: RTP without signalling, at wire speed.
//!
//! Where it is allowed (CAP_NET_RAW, IPv4, no loopback) whole frames go by packet socket; plain
//! sockets otherwise. Each packet carries the moment it was meant to be compared with (see
//! [`stamp`]), so that one machine's sink knows the one-way latency.

mod clock;
mod frame;
mod path;
mod report;
pub mod search;
mod sender;
mod sink;
pub mod stamp;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

pub use report::{FlowResult, FlowsReport, GeneratorReport};
pub use sender::{Flow, Sender};
pub use sink::Sink;

use crate::options::{SinkOptions, StreamOptions};

/// Sends flows, until their time is over or `stop` is set.
///
/// # Errors
/// No sockets, no way to the destination, or the ports do not exist (65,535 is the last).
pub fn stream(options: &StreamOptions, stop: &AtomicBool) -> io::Result<FlowsReport> {
    let mut sender = Sender::open(options)?;
    sender.run(options.duration, stop);
    Ok(sender.report())
}

/// Receives flows, until the time is over or `stop` is set.
///
/// # Errors
/// A port cannot be bound.
pub fn sink(options: &SinkOptions, stop: &AtomicBool) -> io::Result<FlowsReport> {
    let mut sink = Sink::open(options)?;
    sink.run(options.duration, stop);
    Ok(sink.report())
}

/// [`stream`], ended by Ctrl-C too.
///
/// # Errors
/// As [`stream`].
pub fn run_stream(options: &StreamOptions) -> io::Result<FlowsReport> {
    stream(options, &interrupted())
}

/// [`sink`], ended by Ctrl-C too.
///
/// # Errors
/// As [`sink`].
pub fn run_sink(options: &SinkOptions) -> io::Result<FlowsReport> {
    sink(options, &interrupted())
}

/// Set by Ctrl-C and SIGTERM; the first call installs the handler.
pub fn interrupted() -> Arc<AtomicBool> {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    Arc::clone(FLAG.get_or_init(|| {
        let flag = Arc::new(AtomicBool::new(false));
        let set = Arc::clone(&flag);
        // Refused only where the process has a handler of its own, which then decides.
        let _ = ctrlc::set_handler(move || {
            set.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        flag
    }))
}

/// The ports of `flows` flows: every second one.
pub(crate) fn ports(first: SocketAddr, flows: u16) -> io::Result<Vec<u16>> {
    (0..u32::from(flows))
        .map(|number| u16::try_from(u32::from(first.port()) + 2 * number).ok())
        .collect::<Option<Vec<u16>>>()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "ports beyond 65535"))
}

#[cfg(test)]
mod tests;
