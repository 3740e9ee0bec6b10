//! The dataplane process: conductor, workers and recorder.
#![forbid(unsafe_code)]

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use trunkline_config::Config;
use trunkline_dataplane::conductor::Timing;
use trunkline_dataplane::signals::EndSignals;
use trunkline_dataplane::topology;

/// Trunkline's dataplane: relays and captures media for the control process.
///
/// Usually started by `trunkline up` or its systemd unit. It listens for control on
/// run/dataplane.sock below data_dir; SIGTERM ends it in order (recordings are sealed).
#[derive(Parser)]
#[command(
    name = "trunkline-dataplane",
    version,
    after_help = "Example:\n  trunkline-dataplane --config /etc/trunkline/trunkline.toml\n\n\
                  RUST_LOG sets what is logged to standard error (default: info)."
)]
struct Arguments {
    /// The configuration file (trunkline.toml).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    log_to_stderr();
    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{errors}");
            return ExitCode::FAILURE;
        }
    };
    // Before any thread is started, so that all of them have these signals blocked.
    let ended = EndSignals::block()
        .map_err(anyhow::Error::from)
        .and_then(|mut stop| topology::run(&config, Timing::default(), &mut stop));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
