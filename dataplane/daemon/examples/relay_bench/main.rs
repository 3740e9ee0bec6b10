//! What relaying a packet costs: our devices against a bare epoll + recvmmsg/sendmmsg loop.
//!
//! One thread relays 2,000 one-way G.711 flows between sockets of its own, pinned to a core of its
//! own; a generator on another core sends to it through a veth pair between two network namespaces
//! made for the purpose (or over the loopback where that is not allowed). Rounds of all variants
//! alternate, so that a noisy minute hits all alike. CPU is the scheduler's run time of the relay's
//! threads; packets are what the relay sent.
#![allow(unsafe_code)]

mod generator;
mod measure;
mod network;
mod relay;
mod report;
mod worker;

use std::path::PathBuf;

use clap::Parser;

/// Relay CPU per packet and packets per second.
#[derive(Parser)]
#[command(after_help = "Example: relay_bench --rates 100000,max --rounds 5 --json relay.json")]
struct Arguments {
    /// Flows, one way each.
    #[arg(long, default_value_t = 2000)]
    flows: u32,
    /// Packets per second to offer; `max` = as many as the generator can.
    #[arg(long, default_value = "100000,max", value_delimiter = ',')]
    rates: Vec<String>,
    /// Variants, the first is what the others are compared with.
    #[arg(long, default_value = relay::VARIANTS, value_delimiter = ',')]
    variants: Vec<String>,
    /// Rounds of all variants.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Milliseconds measured in each round, variant and rate.
    #[arg(long, default_value_t = 400)]
    measure_ms: u64,
    /// Core of the relay.
    #[arg(long, default_value_t = 1)]
    core: usize,
    /// Core of the generator.
    #[arg(long, default_value_t = 0)]
    generator_core: usize,
    /// Directory on the disk that recordings go to (removed afterwards).
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    record_to: PathBuf,
    /// Where the results go as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() {
    let arguments = Arguments::parse();
    if let Err(error) = run(&arguments) {
        eprintln!("relay_bench: {error}");
        std::process::exit(1);
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let rates = arguments
        .rates
        .iter()
        .map(|rate| parse_rate(rate))
        .collect::<Result<Vec<_>, _>>()?;
    let variants = arguments
        .variants
        .iter()
        .map(|name| relay::Variant::parse(name))
        .collect::<Result<Vec<_>, _>>()?;
    network::raise_open_files();
    let network = network::Network::build(arguments.generator_core);
    eprintln!("network: {}", network.describe());
    // We only sleep and read: on time.
    network::real_time(0, 20);
    let mut results = report::Results::new(&variants, &rates);
    for round in 0..arguments.rounds {
        for turn in 0..variants.len() {
            // Another order each round, so that none always follows the same one.
            let variant = variants[(turn + round) % variants.len()];
            for rate in &rates {
                let setup = relay::Setup {
                    variant,
                    flows: arguments.flows,
                    core: arguments.core,
                    record_to: arguments.record_to.clone(),
                };
                let sample = measure::run(&network, &setup, *rate, arguments.measure_ms)?;
                eprintln!(
                    "round {round} {:<16} {}",
                    variant.name(),
                    sample.describe(*rate)
                );
                results.add(variant, *rate, sample);
            }
        }
    }
    results.print(&network);
    if let Some(path) = &arguments.json {
        let text = results.json(arguments.flows, arguments.measure_ms, &network);
        std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

/// Packets per second; `None` = no limit.
fn parse_rate(text: &str) -> Result<Option<u64>, String> {
    if text == "max" {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|_| format!("rate {text}: a number or max"))
}
