//! `trunkline explain`: how a call went, message by message.

use crate::client::{Client, Target, escape};
use crate::table;
use anyhow::{Context, Result};
use serde_json::Value;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The call's id, or the SIP Call-ID of one of its legs.
    #[arg(value_name = "CALL")]
    call: String,
    /// Writes the signalling to a file that Wireshark opens.
    #[arg(long, value_name = "FILE")]
    pcapng: Option<PathBuf>,
    /// The API's answer, as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}

/// One line: when, whose, what.
fn line(at: &str, who: &str, what: String) -> Vec<String> {
    // The day is in the heading.
    let time = at.split_once('T').map_or(at, |(_, time)| time);
    vec![time.trim_end_matches('Z').to_owned(), who.to_owned(), what]
}

fn lines(answer: &Value) -> Vec<Vec<String>> {
    let items = |name: &str| answer[name].as_array().cloned().unwrap_or_default();
    let mut all: Vec<(String, Vec<String>)> = Vec::new();
    for message in items("sip") {
        let (at, leg) = (text(&message, "at"), text(&message, "leg"));
        let received = message["received"] == true;
        let (peer, arrow) = match received {
            true => (text(&message, "from"), "-->"),
            false => (text(&message, "to"), "<--"),
        };
        let leg = if leg.is_empty() { "sip" } else { leg };
        let what = format!("{peer} {arrow} us  {}", text(&message, "summary"));
        all.push((at.to_owned(), line(at, leg, what)));
    }
    for mark in items("media") {
        let (at, side) = (text(&mark, "at"), text(&mark, "side"));
        let what = format!("{side} {} {}", text(&mark, "event"), text(&mark, "detail"));
        all.push((at.to_owned(), line(at, "media", what.trim().to_owned())));
    }
    for event in items("events") {
        let at = text(&event, "at");
        all.push((
            at.to_owned(),
            line(at, "event", text(&event, "event").to_owned()),
        ));
    }
    all.sort_by(|left, right| left.0.cmp(&right.0));
    all.into_iter().map(|(_, line)| line).collect()
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let client = Client::of(&options.target)?;
    let path = format!("/v1/calls/{}", escape(&options.call));
    let answer = client.json("GET", &format!("{path}/explain"), None)?;
    if let Some(file) = &options.pcapng {
        let bytes = client.bytes(&format!("{path}/pcapng"))?;
        std::fs::write(file, bytes).with_context(|| file.display().to_string())?;
    }
    if options.json {
        println!("{answer}");
        return Ok(ExitCode::SUCCESS);
    }
    let call = &answer["call"];
    if !call.is_null() {
        println!(
            "call {} {} -> {}: {}, started {}",
            text(call, "id"),
            text(call, "caller"),
            text(call, "callee"),
            text(call, "state"),
            text(call, "started_at")
        );
    }
    let lines = lines(&answer);
    if lines.is_empty() {
        println!("nothing of it is in the trace any more");
    }
    print!("{}", table::layout(&lines));
    Ok(ExitCode::SUCCESS)
}
