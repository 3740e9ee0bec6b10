//! The load: rtpgen's sender and sink on the load's core, one window at a time.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};
use trunkline_rtpgen::wire::{Flow, Sender, search};
use trunkline_rtpgen::{SinkOptions, StreamOptions};

use crate::place::{Place, Side};

/// What one window showed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Window {
    /// Packets a second that were asked for.
    pub rate: f64,
    /// Packets sent.
    pub sent: u64,
    /// Different packets that came through.
    pub delivered: u64,
    /// The same, a second of sending.
    pub delivered_per_second: f64,
    /// Part that did not come through.
    pub loss: f64,
    /// The generator could not keep the rate, or the sink not take it: what is lost proves nothing.
    pub limited: bool,
    /// From the sender's call to the sink's interface, ms.
    pub latency_p50_ms: f64,
    /// See `latency_p50_ms`.
    pub latency_p99_ms: f64,
    /// See `latency_p50_ms`.
    pub latency_p999_ms: f64,
}

/// Sends `flows` at `rate` for a while, and hears what comes of it. `None` when interrupted.
///
/// # Errors
/// Sender or sink cannot be opened.
pub fn window(
    place: &Place,
    flows: &[Flow],
    rate: f64,
    duration: Duration,
    stop: &AtomicBool,
) -> Result<Option<Window>> {
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            place.enter(Side::Load)?;
            run(place, flows, rate, duration, stop)
        });
        load.join()
            .unwrap_or_else(|_| Err(anyhow!("the load panicked")))
    })
}

fn run(
    place: &Place,
    flows: &[Flow],
    rate: f64,
    duration: Duration,
    stop: &AtomicBool,
) -> Result<Option<Window>> {
    let core = Some(place.core(Side::Load));
    let listen = place.parties().first_heard();
    let count = u16::try_from(flows.len()).context("too many flows")?;
    let stream = StreamOptions {
        flows: count,
        duration,
        rate: Some(rate),
        core,
        local: listen.ip(),
        to: flows.first().context("no flows")?.to,
        ..StreamOptions::default()
    };
    let sink = SinkOptions {
        listen,
        flows: count,
        interface: place.load_interface()?,
        core,
        ..SinkOptions::default()
    };
    let mut sender = Sender::open_flows(&stream, flows.to_vec()).context("the sender")?;
    let (sent, heard) = search::window(&mut sender, &sink, duration, stop).context("the sink")?;
    if sent.interrupted {
        return Ok(None);
    }
    let judged = search::judge(rate, &sent, &heard);
    Ok(Some(Window {
        rate,
        sent: judged.sent,
        delivered: judged.delivered,
        delivered_per_second: judged.delivered as f64 / sent.elapsed_s.max(1e-9),
        loss: judged.loss,
        limited: judged.limited,
        latency_p50_ms: heard.latency_ms.p50,
        latency_p99_ms: heard.latency_ms.p99,
        latency_p999_ms: heard.latency_ms.p99_9,
    }))
}
