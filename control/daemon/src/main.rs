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
    match trunkline_control::Appliance::new(config).run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("trunkline-control: {error:#}");
            ExitCode::from(1)
        }
    }
}
