//! Project tasks: `cargo xtask ci`, `cargo xtask bench NAME`, `cargo xtask flood`, `cargo xtask
//! soak`, `cargo demo`.
#![forbid(unsafe_code)]

mod bench;
mod ci;
mod command;
mod demo;
mod flood;
mod instructions;
mod soak;
mod systemd;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Project tasks",
    after_help = "Example: cargo xtask ci"
)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what the tests need, then check formatting, lints, licences and run all tests.
    Ci(ci::Options),
    /// Build a benchmark in release and run it alone on this machine.
    Bench(bench::Options),
    /// Count the instructions of a packet in engine and capture, against what was recorded.
    Instructions(instructions::Options),
    /// Throw a million random and mutated messages at a running control beside calls.
    Flood(flood::Options),
    /// Kill either process two hundred times under load, and check every recording.
    Soak(soak::Options),
    /// Build everything and place 20 recorded calls on this machine.
    Demo(demo::Options),
}

fn main() {
    let result = match Arguments::parse().task {
        Task::Ci(options) => ci::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::Instructions(options) => instructions::run(&options),
        Task::Flood(options) => flood::run(&options),
        Task::Soak(options) => soak::run(&options),
        Task::Demo(options) => demo::run(&options),
    };
    if let Err(error) = result {
        eprintln!("xtask: {error:#}");
        std::process::exit(1);
    }
}
