//! The control process: SIP transports, the B2BUA, the API.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use trunkline_config::Config;

#[derive(Parser)]
#[command(
    name = "trunkline-control",
    version,
    about = "Trunkline's control process: SIP, the B2BUA, the API. Usually started by `trunkline up`.",
    after_help = "Example: trunkline-control --config /etc/trunkline/trunkline.toml"
)]
struct Arguments {
    /// The configuration; without it, the defaults.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // A parent that waits for signals may have left them blocked; ours must reach us.
    if let Err(error) = nix::sys::signal::SigSet::empty().thread_set_mask() {
        eprintln!("trunkline-control: signals stay blocked: {error}");
    }
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info")),
        )
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let config = match &arguments.config {
        None => Config::default(),
        Some(path) => match Config::load(path) {
            Ok(config) => config,
            Err(errors) => {
                eprintln!("{errors}");
                return ExitCode::from(1);
            }
        },
    };
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("trunkline-control: {error}");
            return ExitCode::from(1);
        }
    };
    let result = runtime.block_on(trunkline_control::run::run(config));
    // A name that is being looked up must not hold up the exit.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("trunkline-control: {error:#}");
            ExitCode::from(1)
        }
    }
}
