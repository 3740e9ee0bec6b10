//! `--from` and `--to`: a part of the call.

use crate::WrongUsage;
use anyhow::Result;
use std::path::Path;
use trunkline_audio::{Options, Plan};

#[derive(clap::Args)]
pub(crate) struct Part {
    /// Leave out what lies before this time.
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    from: Option<u64>,
    /// Leave out what lies after this time.
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    to: Option<u64>,
}

/// Seconds, with a fraction if need be, as ms.
fn parse_seconds(text: &str) -> Result<u64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..1e9).contains(&seconds) => Ok((seconds * 1_000.0).round() as u64),
        _ => Err("not a time in seconds".to_owned()),
    }
}

impl Part {
    /// Puts it into the options of a plan.
    pub(crate) fn put_into(&self, options: &mut Options) -> Result<()> {
        options.from_ms = self.from.unwrap_or(0);
        options.to_ms = self.to;
        match self.to {
            Some(to_ms) if to_ms <= options.from_ms => Err(WrongUsage(format!(
                "--from {} is not before --to {}",
                options.from_ms as f64 / 1e3,
                to_ms as f64 / 1e3,
            ))
            .into()),
            _ => Ok(()),
        }
    }

    /// Says so when a part was wanted and the call does not reach it.
    pub(crate) fn check(&self, plan: &Plan, file: &Path) -> Result<()> {
        let from_s = self.from.unwrap_or(0) as f64 / 1e3;
        anyhow::ensure!(
            from_s == 0.0 || plan.samples() > 0,
            "{}: the call ends before --from {from_s}",
            file.display(),
        );
        Ok(())
    }
}
