//! What recording a packet costs the worker that relays it: the dataplane's own worker on a device
//! of memory, 2,000 one-way G.711 flows, with every packet recorded and without.
//!
//! Nothing but the worker's duty cycle is timed: packets are made and full extents taken away
//! between cycles. Both workers take turns, so that a noisy minute hits both alike.

use std::path::PathBuf;

use clap::Parser;

#[path = "memory_relay/mod.rs"]
mod memory_relay;

use memory_relay::{Recording, Relay};

/// Capture's own cost of a packet.
#[derive(Parser)]
#[command(after_help = "Example: capture_cost --rounds 15 --json capture.json")]
struct Arguments {
    /// Flows, one way each.
    #[arg(long, default_value_t = 2000)]
    flows: u32,
    /// Rounds of both.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Packets of each in a round.
    #[arg(long, default_value_t = 400_000)]
    packets: u64,
    /// Where the results go as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() {
    let arguments = Arguments::parse();
    if let Err(error) = run(&arguments) {
        eprintln!("capture_cost: {error}");
        std::process::exit(1);
    }
}

/// The least, the middle and the greatest of some numbers.
fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [
        values[0],
        values[values.len() / 2],
        values[values.len() - 1],
    ]
}

fn run(arguments: &Arguments) -> Result<(), String> {
    if arguments.rounds == 0 || !(1..=10_000).contains(&arguments.flows) {
        return Err("at least one round, and from 1 to 10000 flows".to_owned());
    }
    let mut plain = Relay::new(arguments.flows, 1, Recording::Off)?;
    let mut recording = Relay::new(arguments.flows, 1, Recording::Memory)?;
    // Every page and table once.
    plain.run(arguments.packets / 4);
    recording.run(arguments.packets / 4);
    let before = recording.captured();
    let sent_before = recording.sent();
    let mut costs = [Vec::new(), Vec::new(), Vec::new()];
    for round in 0..arguments.rounds {
        let mut ns = [0.0; 2];
        for turn in 0..2 {
            let which = (turn + round) % 2;
            let relay = if which == 0 {
                &mut plain
            } else {
                &mut recording
            };
            ns[which] = relay.run(arguments.packets);
        }
        costs[0].push(ns[0]);
        costs[1].push(ns[1]);
        costs[2].push(ns[1] - ns[0]);
    }
    let after = recording.captured();
    let sent = recording.sent() - sent_before;
    if after[0] - before[0] != sent || after[1] > 0 {
        return Err(format!(
            "{sent} relayed, {after:?} since {before:?} recorded"
        ));
    }
    let [plain, recorded, capture] = costs.map(spread);
    println!(
        "worker, ns a packet ({} flows)     least  median  greatest",
        arguments.flows
    );
    for (name, [least, median, greatest]) in [
        ("relayed", plain),
        ("relayed and recorded", recorded),
        ("capture: their difference", capture),
    ] {
        println!("{name:<32} {least:8.1} {median:7.1} {greatest:9.1}");
    }
    if let Some(path) = &arguments.json {
        let json = serde_json::json!({
            "flows": arguments.flows,
            "rounds": arguments.rounds,
            "relay_ns": plain,
            "record_ns": recorded,
            "capture_ns": capture,
        });
        std::fs::write(path, format!("{json:#}\n"))
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}
