//! The trunkline command: up, check, demo and the operator commands.
#![forbid(unsafe_code)]

mod check;
mod client;
mod deliveries;
mod demo;
mod explain;
mod guard;
mod operate;
mod siprec;
mod table;
mod up;
mod wav;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "trunkline",
    version,
    about = "Media relay and call recording: starts the appliance and talks to a running one.",
    after_help = "Example: trunkline up --config trunkline.toml"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run both processes in the foreground and restart one that dies.
    ///
    /// SIGINT or SIGTERM: new calls get 503, live ones a BYE after `drain_timeout_s`, recordings are
    /// sealed. A second signal stops at once.
    #[command(after_help = "Example: trunkline up --config /etc/trunkline/trunkline.toml")]
    Up(up::Options),
    /// Judge a configuration: exit code 0 when it is good, 1 with all its errors.
    #[command(after_help = "Example: trunkline check trunkline.toml")]
    Check(check::Options),
    /// Place 20 recorded calls on this machine and check what was recorded.
    #[command(after_help = "Example: trunkline demo")]
    Demo(demo::Options),
    /// List live calls, or those that are over.
    #[command(after_help = "Example: trunkline calls --json")]
    Calls(operate::CallsOptions),
    /// List recordings, newest first.
    #[command(
        after_help = "Example: trunkline recordings --party +4930 --from 2026-11-01T00:00:00Z"
    )]
    Recordings(operate::RecordingsOptions),
    /// Show what each worker counts.
    #[command(after_help = "Example: trunkline workers")]
    Workers(operate::ListOptions),
    /// End a call: BYE to both sides.
    #[command(after_help = "Example: trunkline hangup 0193e5c2-7a41-7c11-b2a5-1f0e6c9d8a77")]
    Hangup(operate::HangupOptions),
    /// Connect one party of a call to somebody else; the other one is hung up.
    #[command(
        after_help = "Example: trunkline transfer 0193e5c2-7a41-7c11-b2a5-1f0e6c9d8a77 sip:carol@127.0.0.1"
    )]
    Transfer(operate::TransferOptions),
    /// Start, pause, resume, stop or keep a call's recording.
    #[command(after_help = "Example: trunkline record 0193e5c2-7a41-7c11-b2a5-1f0e6c9d8a77 pause")]
    Record(operate::RecordOptions),
    /// List recording sessions, of calls recorded to others and of others' calls recorded here; or try a
    /// recorder (`probe`).
    #[command(after_help = "Example: trunkline siprec --json")]
    Siprec(siprec::Options),
    /// List calls that should have been recorded and were not, or not whole.
    ///
    /// Exit code 1 when there is one.
    #[command(
        after_help = "Example: trunkline audit --from 2026-11-01T00:00:00Z --to 2026-12-01T00:00:00Z"
    )]
    Audit(operate::AuditOptions),
    /// List what goes to sinks; deliver dead letters again, or drop them.
    #[command(after_help = "Example: trunkline deliveries --state dead")]
    Deliveries(deliveries::Options),
    /// Show how a call went: its messages, its media and its events, in order.
    ///
    /// From a ring in memory that keeps the latest 32 MiB of signalling; a restart empties it.
    #[command(
        after_help = "Example: trunkline explain 0193e5c2-7a41-7c11-b2a5-1f0e6c9d8a77 --pcapng call.pcapng"
    )]
    Explain(explain::Options),
    /// Run a program that ends when its starter does.
    #[command(hide = true, name = guard::COMMAND)]
    Guard(guard::Options),
}

/// The file a command takes without `--config`.
fn default_config() -> PathBuf {
    PathBuf::from("trunkline.toml")
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Up(options) => up::run(&options),
        Command::Check(options) => check::run(&options),
        Command::Demo(options) => demo::run(&options),
        Command::Calls(options) => operate::calls(&options),
        Command::Recordings(options) => operate::recordings(&options),
        Command::Workers(options) => operate::workers(&options),
        Command::Hangup(options) => operate::hangup(&options),
        Command::Transfer(options) => operate::transfer(&options),
        Command::Record(options) => operate::record(&options),
        Command::Siprec(options) => siprec::run(&options),
        Command::Audit(options) => operate::audit(&options),
        Command::Deliveries(options) => deliveries::run(&options),
        Command::Explain(options) => explain::run(&options),
        Command::Guard(options) => guard::run(&options),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("trunkline: {error:#}");
            ExitCode::FAILURE
        }
    }
}
