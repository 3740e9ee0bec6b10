//! 10,000 recorded two-way calls on one worker, packets injected at the device, segments written by
//! the dataplane's own recorder.

use std::path::Path;
use std::time::Instant;

use trunkline_link::counters::RecorderCounter;

use crate::memory_relay::{Recording, Relay};
use crate::report::Report;
use crate::store::Store;
use crate::{Amounts, Outcome};

const CALLS: u32 = 10_000;
const EXTENTS: usize = 3 * CALLS as usize;
/// Packets a second of all calls.
const PACKETS_PER_S: f64 = CALLS as f64 * 100.0;

pub fn run(amounts: &Amounts, directory: &Path, report: &mut Report) -> Outcome<()> {
    let start_bytes = resident();
    let mut plain = Relay::new(CALLS, 2, Recording::Off)?;
    plain.run(amounts.calls_packets / 4);
    let plain_bytes = resident() - start_bytes;
    let mut relayed = Vec::new();
    for _ in 0..amounts.rounds.min(3) {
        relayed.push(plain.run(amounts.calls_packets / 4));
    }
    drop(plain);

    let before = resident();
    let store = Store::start(directory, EXTENTS, |settings| {
        settings.disk_wait_ns = 60_000_000_000;
        settings.waiting_max = EXTENTS;
    })?;
    let recording = Recording::Recorder(store.queues.clone(), store.bell.clone());
    let mut relay = Relay::new(CALLS, 2, recording)?;
    relay.run(amounts.calls_packets / 4);
    let sent = relay.sent();
    let written = settled(&store);
    let start = Instant::now();
    let mut recorded = Vec::new();
    for _ in 0..amounts.rounds.min(3) {
        recorded.push(relay.run(amounts.calls_packets / 4));
    }
    let media_s = (relay.sent() - sent) as f64 / PACKETS_PER_S;
    let disk = (settled(&store) - written) as f64;
    let wall_s = start.elapsed().as_secs_f64();
    let recorded_bytes = resident() - before;
    let [captured, dropped] = relay.captured();
    if dropped > 0 || captured < relay.sent() {
        return Err(format!(
            "{captured} recorded and {dropped} dropped of {}",
            relay.sent()
        ));
    }
    relay.finish();
    drop(relay);
    store.stop()?;

    let capture: Vec<f64> = recorded.iter().zip(&relayed).map(|(a, b)| a - b).collect();
    report.row(
        "calls",
        "10,000 calls relayed, the worker's time a packet",
        "ns",
        relayed,
    );
    let ns = report.row(
        "calls",
        "10,000 calls recorded, the worker's time a packet",
        "ns",
        recorded,
    );
    let capture = report.row("calls", "capture's own", "ns", capture);
    report.row(
        "calls",
        "of one core at 1,000,000 packets/s",
        "%",
        vec![ns * PACKETS_PER_S / 1e7],
    );
    let rows = [
        (
            "memory of a relayed call",
            "KiB",
            plain_bytes / f64::from(CALLS) / 1024.0,
        ),
        (
            "memory of a recorded call, extents included",
            "KiB",
            recorded_bytes / f64::from(CALLS) / 1024.0,
        ),
        (
            "to the disk for each second of media",
            "MB/s",
            disk / media_s / 1e6,
        ),
        ("to the disk in this run", "MB/s", disk / wall_s / 1e6),
        ("media time over run time", "x", media_s / wall_s),
    ];
    for (name, unit, value) in rows {
        report.row("calls", name, unit, vec![value]);
    }
    report.keep("capture_ns", capture);
    report.keep("call_bytes_per_s", disk / media_s / f64::from(CALLS));
    Ok(())
}

/// Bytes written once the recorder has written all that it was given.
fn settled(store: &Store) -> u64 {
    let mut before = None;
    loop {
        let now = store.count(RecorderCounter::BytesWritten);
        if before == Some(now) {
            return now;
        }
        before = Some(now);
        std::thread::sleep(std::time::Duration::from_millis(400));
    }
}

/// Bytes of resident memory, shared pages included.
fn resident() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: Option<f64> = text.split(' ').nth(1).and_then(|word| word.parse().ok());
    pages.unwrap_or(0.0) * 4096.0
}
