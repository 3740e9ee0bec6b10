//! Commands that ask a running appliance.

use crate::client::{Client, Target, escape};
use crate::table;
use anyhow::Result;
use serde_json::{Value, json};
use std::process::ExitCode;

#[derive(clap::Args)]
pub(crate) struct ListOptions {
    /// The API's answer, as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(clap::Args)]
pub(crate) struct CallsOptions {
    /// Only calls in this state; `ended` lists those that are over.
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// Most calls listed, 1 to 1000.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    #[command(flatten)]
    list: ListOptions,
}

#[derive(clap::Args)]
pub(crate) struct RecordingsOptions {
    /// Started at or after (RFC 3339).
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Started at or before.
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Beginning of a party's number or name.
    #[arg(long, value_name = "USER")]
    party: Option<String>,
    /// SIP Call-ID of any leg, or Session-ID.
    #[arg(long, value_name = "ID")]
    call_id: Option<String>,
    /// Only recordings of this tenant.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Only recordings with this attribute; may be repeated.
    #[arg(long = "attribute", value_name = "NAME=VALUE")]
    attributes: Vec<String>,
    /// Only recordings in this state.
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// Most recordings listed, 1 to 1000.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    #[command(flatten)]
    list: ListOptions,
}

#[derive(clap::Args)]
pub(crate) struct TransferOptions {
    /// The call's id.
    #[arg(value_name = "ID")]
    call: String,
    /// Who takes the leg's place: a SIP or tel URI, called through the routes.
    #[arg(value_name = "TARGET")]
    to: String,
    /// Whose place: `caller`, `callee` (whoever talks to the caller), or a leg's id.
    #[arg(long, value_name = "LEG", default_value = "callee")]
    leg: String,
    /// TARGET is the id of another call: its callee comes over, its caller is hung up.
    #[arg(long)]
    attended: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(clap::Args)]
pub(crate) struct AuditOptions {
    /// Calls that started at or after (RFC 3339).
    #[arg(long, value_name = "TIME")]
    from: String,
    /// Calls that started at or before.
    #[arg(long, value_name = "TIME")]
    to: String,
    #[command(flatten)]
    list: ListOptions,
}

#[derive(clap::Args)]
pub(crate) struct HangupOptions {
    /// The call's id.
    #[arg(value_name = "ID")]
    call: String,
    #[command(flatten)]
    target: Target,
}

/// What can be done with a call's recording.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Action {
    Start,
    Pause,
    Resume,
    Stop,
    Keep,
}

impl Action {
    const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Stop => "stop",
            Self::Keep => "keep",
        }
    }
}

#[derive(clap::Args)]
pub(crate) struct RecordOptions {
    /// The call's id.
    #[arg(value_name = "ID")]
    call: String,
    /// What to do.
    #[arg(value_name = "ACTION")]
    action: Action,
    /// Which recorder: `all` (without this), `local` (the capture here), or a name.
    #[arg(long, value_name = "NAME")]
    recorder: Option<String>,
    #[command(flatten)]
    target: Target,
}

/// A query from the parameters that are given.
pub(crate) fn query(parameters: &[(&str, Option<&str>)]) -> String {
    let given = parameters
        .iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", escape((*value)?))));
    given.collect::<Vec<_>>().join("&")
}

/// Prints a list: as JSON, or the columns that `row` makes of each item.
pub(crate) fn show(
    options: &ListOptions,
    path: &str,
    heading: &[&str],
    row: impl Fn(&Value) -> Vec<String>,
) -> Result<ExitCode> {
    let answer = Client::of(&options.target)?.json("GET", path, None)?;
    if options.json {
        println!("{answer}");
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = vec![heading.iter().map(|title| (*title).to_owned()).collect()];
    rows.extend(answer["items"].as_array().into_iter().flatten().map(row));
    print!("{}", table::layout(&rows));
    if !answer["next"].is_null() {
        println!("... and more: narrow the list, or raise --limit");
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn seconds(ms: &Value) -> String {
    ms.as_u64().map_or("-".to_owned(), |ms| {
        format!("{}.{} s", ms / 1000, ms % 1000 / 100)
    })
}

pub(crate) fn calls(options: &CallsOptions) -> Result<ExitCode> {
    let limit = options.limit.to_string();
    let query = query(&[("limit", Some(&limit)), ("state", options.state.as_deref())]);
    let heading = [
        "ID", "STATE", "CALLER", "CALLEE", "STARTED", "ANSWERED", "ENDED", "BY",
    ];
    show(
        &options.list,
        &format!("/v1/calls?{query}"),
        &heading,
        |call| {
            [
                "id",
                "state",
                "caller",
                "callee",
                "started_at",
                "answered_at",
                "ended_at",
                "ended_by",
            ]
            .map(|key| text(&call[key]))
            .to_vec()
        },
    )
}

/// Adds attributes, each NAME=VALUE, to a query.
fn attributes(mut query: String, attributes: &[String]) -> Result<String> {
    for attribute in attributes {
        let Some((name, value)) = attribute.split_once('=') else {
            anyhow::bail!("--attribute {attribute}: write NAME=VALUE");
        };
        query += &format!("&attr.{}={}", escape(name), escape(value));
    }
    Ok(query)
}

pub(crate) fn recordings(options: &RecordingsOptions) -> Result<ExitCode> {
    let limit = options.limit.to_string();
    let query = query(&[
        ("limit", Some(&limit)),
        ("from", options.from.as_deref()),
        ("to", options.to.as_deref()),
        ("party", options.party.as_deref()),
        ("call_id", options.call_id.as_deref()),
        ("state", options.state.as_deref()),
        ("tenant", options.tenant.as_deref()),
    ]);
    let query = attributes(query, &options.attributes)?;
    let heading = ["ID", "STATE", "VERDICT", "STARTED", "LENGTH", "PARTIES"];
    show(
        &options.list,
        &format!("/v1/recordings?{query}"),
        &heading,
        |recording| {
            let parties = recording["participants"].as_array().into_iter().flatten();
            let parties: Vec<String> = parties.map(|party| text(&party["uri"])).collect();
            vec![
                text(&recording["id"]),
                text(&recording["state"]),
                text(&recording["verdict"]),
                text(&recording["started_at"]),
                seconds(&recording["duration_ms"]),
                parties.join(" "),
            ]
        },
    )
}

pub(crate) fn workers(options: &ListOptions) -> Result<ExitCode> {
    const SHOWN: [&str; 8] = [
        "sessions",
        "recordings",
        "rtp_packets_in",
        "rtp_packets_out",
        "strangers",
        "socket_drops",
        "capture_frames",
        "slots",
    ];
    let mut heading = vec!["WORKER"];
    heading.extend(SHOWN);
    show(options, "/v1/workers", &heading, |worker| {
        let mut row = vec![text(&worker["worker"])];
        row.extend(SHOWN.map(|name| text(&worker["counters"][name])));
        row
    })
}

pub(crate) fn siprec(options: &ListOptions) -> Result<ExitCode> {
    let heading = [
        "ID", "ROLE", "STATE", "INSTANCE", "SERVER", "CALL", "PACKETS", "REVISION",
    ];
    show(options, "/v1/siprec?limit=1000", &heading, |session| {
        let streams = session["streams"].as_array().into_iter().flatten();
        let packets = streams.map(|stream| stream["packets"].to_string());
        let mut row: Vec<String> = ["id", "role", "state", "instance", "server", "call"]
            .map(|key| text(&session[key]))
            .to_vec();
        row.push(packets.collect::<Vec<_>>().join("+"));
        row.push(text(&session["revision"]));
        row
    })
}

pub(crate) fn hangup(options: &HangupOptions) -> Result<ExitCode> {
    let path = format!("/v1/calls/{}", escape(&options.call));
    let call = Client::of(&options.target)?.json("DELETE", &path, None)?;
    println!("{}: {}", text(&call["id"]), text(&call["state"]));
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn transfer(options: &TransferOptions) -> Result<ExitCode> {
    let path = format!("/v1/calls/{}/transfer", escape(&options.call));
    let mode = if options.attended {
        "attended"
    } else {
        "blind"
    };
    let order = json!({ "leg": options.leg, "target": options.to, "mode": mode });
    let call = Client::of(&options.target)?.json("POST", &path, Some(&order))?;
    println!("{}: {}", text(&call["id"]), text(&call["state"]));
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn record(options: &RecordOptions) -> Result<ExitCode> {
    let path = format!("/v1/calls/{}/recording", escape(&options.call));
    let mut order = json!({ "action": options.action.name() });
    if let Some(recorder) = &options.recorder {
        order["recorder"] = json!(recorder);
    }
    let recording = Client::of(&options.target)?.json("POST", &path, Some(&order))?;
    println!("{}: {}", text(&recording["id"]), text(&recording["state"]));
    Ok(ExitCode::SUCCESS)
}

/// Exit code 1 when a call that was to be recorded was not, or not whole.
pub(crate) fn audit(options: &AuditOptions) -> Result<ExitCode> {
    let query = query(&[("from", Some(&options.from)), ("to", Some(&options.to))]);
    let path = format!("/v1/audit?{query}");
    let report = Client::of(&options.list.target)?.json("GET", &path, None)?;
    let exceptions = report["exceptions"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    if options.list.json {
        println!("{report}");
    } else {
        let mut rows = vec![["CALL", "RECORDING", "WHY"].map(str::to_owned).to_vec()];
        rows.extend(exceptions.iter().map(|exception| {
            ["call_id", "recording_id", "why"]
                .map(|key| text(&exception[key]))
                .to_vec()
        }));
        if !exceptions.is_empty() {
            print!("{}", table::layout(&rows));
        }
        println!(
            "{} calls to be recorded: {} complete, {} pending, {} exceptions",
            text(&report["expected"]),
            text(&report["complete"]),
            text(&report["pending"]),
            exceptions.len(),
        );
    }
    Ok(if exceptions.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
