//! One measurement: a relay, a rate, a window of time.

use std::time::{Duration, Instant};

use crate::network::Network;
use crate::relay::{Relay, Setup, Variant};

/// Sockets fill, caches warm, the clock settles.
const WARM_UP: Duration = Duration::from_millis(150);

/// What a window showed.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Scheduler run time of the relay's threads, ns, for each packet sent.
    pub cpu_ns_per_packet: f64,
    /// Packets sent, for each second.
    pub packets_per_second: f64,
    /// Part of the offered packets that were not sent.
    pub loss: f64,
    /// Entries into the kernel for each packet, where they are counted.
    pub syscalls_per_packet: Option<f64>,
    /// Run time of the recorder for each packet, ns; beside the relay's.
    pub recorder_ns_per_packet: f64,
    /// Share of the core.
    pub busy: f64,
}

impl Sample {
    pub fn describe(&self, rate: Option<u64>) -> String {
        let rate = rate.map_or("max".to_owned(), |rate| rate.to_string());
        format!(
            "{rate:>7}: {:6.0} ns/packet  {:8.0} packets/s  loss {:6.3} %  {} syscalls/packet  recorder {:4.0} ns  busy {:3.0} %",
            self.cpu_ns_per_packet,
            self.packets_per_second,
            self.loss * 100.0,
            self.syscalls_per_packet
                .map_or("-".to_owned(), |calls| format!("{calls:.2}")),
            self.recorder_ns_per_packet,
            self.busy * 100.0
        )
    }
}

struct Reading {
    at: Instant,
    cpu_ns: u64,
    recorder_ns: u64,
    sent: u64,
    captured: u64,
    calls: Option<u64>,
    offered: u64,
}

/// Starts a relay, loads it, reads it twice, stops it.
pub fn run(
    network: &Network,
    setup: &Setup,
    rate: Option<u64>,
    measure_ms: u64,
) -> Result<Sample, String> {
    let relay = Relay::start(network, setup)?;
    network.generator.go(relay.targets.clone(), rate);
    std::thread::sleep(WARM_UP);
    let referee_before = network.interface_sent();
    let first = read(network, &relay)?;
    let until = Instant::now() + Duration::from_millis(measure_ms);
    while Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
        relay.drain();
    }
    let last = read(network, &relay)?;
    let referee_after = network.interface_sent();
    network.generator.stop();
    std::thread::sleep(Duration::from_millis(20));
    let failed = relay.failed();
    relay.stop()?;
    let sent = (last.sent - first.sent) as f64;
    if sent < 1.0 || failed > 0 {
        return Err(format!(
            "{}: sent {sent}, failed {failed}",
            setup.variant.name()
        ));
    }
    let captured = last.captured - first.captured;
    if matches!(setup.variant, Variant::Record(_)) && (captured as f64 / sent - 1.0).abs() > 0.01 {
        return Err(format!("{sent} sent, {captured} recorded"));
    }
    if let (Some(before), Some(after)) = (referee_before, referee_after) {
        // The two readings are not taken at the same instant: a rough check against a relay that
        // counts what never left.
        let seen = (after - before) as f64;
        if (seen / sent - 1.0).abs() > 0.1 {
            return Err(format!("relay says {sent} sent, its interface {seen}"));
        }
    }
    let seconds = last.at.duration_since(first.at).as_secs_f64();
    let offered = (last.offered - first.offered) as f64;
    let cpu_ns = (last.cpu_ns - first.cpu_ns) as f64;
    Ok(Sample {
        cpu_ns_per_packet: cpu_ns / sent,
        packets_per_second: sent / seconds,
        loss: (1.0 - sent / offered).max(0.0),
        syscalls_per_packet: last
            .calls
            .zip(first.calls)
            .map(|(last, first)| (last - first) as f64 / sent),
        recorder_ns_per_packet: (last.recorder_ns - first.recorder_ns) as f64 / sent,
        busy: cpu_ns / (seconds * 1e9),
    })
}

fn read(network: &Network, relay: &Relay) -> Result<Reading, String> {
    Ok(Reading {
        offered: network.generator.sent(),
        sent: relay.sent(),
        captured: relay.captured(),
        calls: relay.calls(),
        cpu_ns: cpu_ns(|thread, name| thread == relay.thread_id() || name.starts_with("iou-"))?,
        recorder_ns: cpu_ns(|_, name| name == "recorder")?,
        at: Instant::now(),
    })
}

/// Run time of those of our threads that `counts` picks by id and name; the kernel's own threads
/// that work for a ring are among them.
fn cpu_ns(counts: impl Fn(i32, &str) -> bool) -> Result<u64, String> {
    let tasks = std::fs::read_dir("/proc/self/task").map_err(|error| error.to_string())?;
    let mut total = 0;
    for task in tasks.flatten() {
        let path = task.path();
        let thread = task
            .file_name()
            .to_str()
            .and_then(|id| id.parse().ok())
            .unwrap_or(0);
        let name = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
        if counts(thread, name.trim()) {
            let text = std::fs::read_to_string(path.join("schedstat")).unwrap_or_default();
            total += text
                .split_whitespace()
                .next()
                .and_then(|ns| ns.parse().ok())
                .unwrap_or(0_u64);
        }
    }
    Ok(total)
}
