//! `trunkline check F`.

use anyhow::Result;
use std::path::PathBuf;
use std::process::ExitCode;
use trunkline_config::{Config, Cores, Next, Record};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The configuration.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let loaded = Config::load(&options.file);
    match loaded.and_then(|config| config.check_files().map(|()| config)) {
        Ok(config) => {
            println!("{}: good", options.file.display());
            print!("{}", summary(&config));
            Ok(ExitCode::SUCCESS)
        }
        Err(errors) => {
            eprintln!("{errors}");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// What the configuration means, a line a subject.
pub(crate) fn summary(config: &Config) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    let listen: Vec<String> = config.sip.listen.iter().map(ToString::to_string).collect();
    // Writing into a String cannot fail.
    let _ = writeln!(text, "  SIP        {}", listen.join(", "));
    let token = if config.control.token.is_some() {
        ", with a token"
    } else {
        ""
    };
    let _ = writeln!(text, "  API        http://{}{token}", config.control.http);
    for interface in &config.interfaces {
        let name = &interface.name;
        let _ = write!(
            text,
            "  media      {} ports {} ({name})",
            interface.address, interface.ports
        );
        match interface.advertise {
            Some(advertise) => drop(writeln!(text, ", shown as {advertise}")),
            None => text.push('\n'),
        }
    }
    let cores = match &config.dataplane.cores {
        Cores::Auto => "as many workers as fit".to_owned(),
        Cores::Pinned(cores) => format!("workers on cores {cores:?}"),
    };
    let _ = writeln!(
        text,
        "  dataplane  {}, {cores}",
        config.dataplane.backend.name()
    );
    let _ = writeln!(text, "  data       {}", config.data_dir.display());
    for route in &config.routes {
        let next: Vec<String> = route.next.iter().map(|group| together(group)).collect();
        let next = next.join(", then ");
        let recorded = match route.record {
            Record::No => "",
            Record::Yes => ", recorded",
            Record::OnDemand => ", recorded on demand",
            Record::KeepOnDemand => ", recorded, kept on demand",
        };
        let _ = writeln!(text, "  {:<10} to {next}{recorded}", route.name);
    }
    if config.routes.is_empty() {
        let _ = writeln!(text, "  no route: every call gets 404");
    }
    if config.sip.allow.is_empty() {
        let _ = writeln!(text, "  sip.allow is empty: nobody may call");
    }
    text
}

/// The targets that ring at once.
fn together(group: &[Next]) -> String {
    let names: Vec<&str> = group
        .iter()
        .map(|next| match next {
            Next::Target(target) => target.uri.as_str(),
            Next::Request => "the Request-URI's own host",
            Next::Record => "our own recorder",
        })
        .collect();
    names.join(" with ")
}
