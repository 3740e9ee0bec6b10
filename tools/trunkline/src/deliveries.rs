//! `trunkline deliveries`: what goes to sinks, and what was given up.

use crate::client::{Client, escape};
use crate::operate::{ListOptions, query, show, text};
use anyhow::{Context, Result};
use serde_json::Value;
use std::process::ExitCode;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only those that are waiting, done or dead.
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// Only this sink's.
    #[arg(long, value_name = "NAME")]
    sink: Option<String>,
    /// Most deliveries listed, 1 to 1000.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Deliver a dead letter again; `all` = every one that is listed.
    #[arg(long, value_name = "ID", conflicts_with = "drop")]
    retry: Option<String>,
    /// Give a dead letter up for good; `all` = every one that is listed.
    #[arg(long, value_name = "ID")]
    drop: Option<String>,
    #[command(flatten)]
    list: ListOptions,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let order = match (&options.retry, &options.drop) {
        (Some(id), _) => Some(("POST", "/retry", id)),
        (None, Some(id)) => Some(("DELETE", "", id)),
        (None, None) => None,
    };
    let Some((method, suffix, id)) = order else {
        return list(options);
    };
    let client = Client::of(&options.list.target)?;
    let ids = match id.as_str() {
        "all" => dead(&client, options)?,
        one => vec![one.to_owned()],
    };
    for id in &ids {
        let path = format!("/v1/deliveries/{}{suffix}", escape(id));
        let delivery = client.json(method, &path, None)?;
        println!("{id}: {}", text(&delivery["state"]));
    }
    if ids.is_empty() {
        println!("no dead letters");
    }
    Ok(ExitCode::SUCCESS)
}

/// Ids of the dead letters, the oldest first.
fn dead(client: &Client, options: &Options) -> Result<Vec<String>> {
    let path = format!("/v1/deliveries?{}", parameters(options, Some("dead")));
    let answer = client.json("GET", &path, None)?;
    let items = answer["items"].as_array().context("no list came")?;
    Ok(items
        .iter()
        .rev()
        .map(|one| one["id"].to_string())
        .collect())
}

fn parameters(options: &Options, state: Option<&str>) -> String {
    let limit = options.limit.to_string();
    query(&[
        ("limit", Some(&limit)),
        ("state", state),
        ("sink", options.sink.as_deref()),
    ])
}

fn list(options: &Options) -> Result<ExitCode> {
    let heading = ["ID", "SINK", "STATE", "TRIES", "DUE", "RECORDING", "WHY"];
    let parameters = parameters(options, options.state.as_deref());
    let path = format!("/v1/deliveries?{parameters}");
    let row = |one: &Value| {
        let columns = [
            "id",
            "sink",
            "state",
            "attempts",
            "due_at",
            "recording_id",
            "error",
        ];
        columns.map(|name| text(&one[name])).to_vec()
    };
    show(&options.list, &path, &heading, row)
}
