//! The benchmark harness: see docs/bench.md. Started by `cargo xtask bench`.
#![forbid(unsafe_code)]

mod aims;
mod bare;
mod bencode;
mod calls;
mod contestant;
mod flat;
mod load;
mod ng;
mod options;
mod place;
mod plot;
mod process;
mod relay;
mod results;
mod sessions;
mod signalling;
mod sipp;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use contestant::Contestant;
use options::{Options, Session};
use place::Rig;
use relay::Bench;
use results::Results;

#[derive(Parser)]
#[command(
    name = "trunkline-bench",
    about = "Measures Trunkline beside others on this machine",
    after_help = "Example: trunkline-bench relay --quick --json relay.json"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Our relay, rtpengine and a bare loop
    Relay(Options),
    /// Relay and capture: SN3 against rtpengine's pcap
    Record(Options),
    /// Relay with a copy of each packet to a recorder, and with the recorder gone
    Siprec(Options),
    /// Call set-ups through our B2BUA, beside Kamailio
    Calls(Options),
    /// Writes README's tables from the recorded results
    Table(TableOptions),
    /// The bare loop itself, as a process
    #[command(hide = true)]
    Bare(bare::Options),
}

#[derive(Args)]
struct TableOptions {
    /// README
    #[arg(long, default_value = "README.md")]
    readme: PathBuf,
    /// Directory of the results
    #[arg(long, default_value = "bench/results")]
    results: PathBuf,
}

/// What README shows, in this order.
const SHOWN: &[&str] = &["relay", "record", "siprec", "calls"];
const RTPENGINE: (&str, &str) = ("rtpengine", "rtpengine-daemon");

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Relay(options) => relay(&options),
        Command::Record(options) => record(&options),
        Command::Siprec(options) => siprec(&options),
        Command::Calls(options) => calls(&options),
        Command::Table(options) => update_table(&options),
        Command::Bare(options) => bare::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn relay(options: &Options) -> Result<()> {
    let mut session = options.begin("relay", &[RTPENGINE])?;
    let contestants = [
        Contestant::Rtpengine,
        Contestant::Trunkline,
        Contestant::Bare,
    ];
    let done = rounds(&mut session, options.rig, &contestants, |bench, rigs| {
        let last = rigs.last().copied().unwrap_or(Rig::Loopback);
        bench.flat(last, options.many, options.most)
    });
    close(session, done)
}

fn record(options: &Options) -> Result<()> {
    let mut session = options.begin("record", &[RTPENGINE])?;
    let contestants = [
        Contestant::RtpengineRecord,
        Contestant::TrunklineRecord,
        Contestant::Trunkline,
    ];
    let done = rounds(&mut session, options.rig, &contestants, |_, _| Ok(()));
    close(session, done)
}

fn siprec(options: &Options) -> Result<()> {
    let mut session = options.begin("siprec", &[])?;
    // The first sets the rate at which latency is measured: all of them bear it.
    let contestants = [
        Contestant::TrunklineFork,
        Contestant::Trunkline,
        Contestant::TrunklineForkGone,
    ];
    let done = rounds(&mut session, options.rig, &contestants, |_, _| Ok(()));
    close(session, done)
}

fn calls(options: &Options) -> Result<()> {
    let mut session =
        options.begin("calls", &[("kamailio", "kamailio"), ("sipp", "sip-tester")])?;
    session.results.method = format!(
        "Calls by SIPp, {}; the system has one core, both ends of the calls the other. Windows of {} s, {} rounds.",
        session.place.describe(),
        session.effort.window.as_secs_f64(),
        session.effort.rounds
    );
    let done = calls::run(&mut session, options.standing);
    close(session, done)
}

/// All rounds in all rigs, then what else there is to measure.
fn rounds(
    session: &mut Session,
    only: Option<Rig>,
    contestants: &[Contestant],
    more: impl FnOnce(&mut Bench<'_>, &[Rig]) -> Result<()>,
) -> Result<()> {
    let rigs = session.place.rigs(only);
    let mut results = session.results.clone();
    let stage = session.stage();
    results.method = format!(
        "{} two-way G.711 calls over a {}, windows of {} s, {} rounds.",
        stage.calls,
        session.place.describe(),
        session.effort.window.as_secs_f64(),
        session.effort.rounds
    );
    let mut bench = Bench {
        stage,
        effort: session.effort,
        stop: &session.stop,
        results: &mut results,
    };
    let mut done = bench.run(&rigs, contestants, contestants[0]);
    if done.is_ok() {
        done = more(&mut bench, &rigs);
    }
    session.results = results;
    done
}

/// What was measured before an error is shown and kept all the same.
fn close(session: Session, done: Result<()>) -> Result<()> {
    let finished = session.finish();
    done.and(finished)
}

fn update_table(options: &TableOptions) -> Result<()> {
    let mut all = Vec::new();
    for name in SHOWN {
        let path = options.results.join(format!("{name}.json"));
        if path.is_file() {
            all.push(Results::load(&path)?);
        }
    }
    table::update_readme(&options.readme, &options.results, &all)
}
