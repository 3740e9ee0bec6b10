//! `trunkline siprec probe`: a recording client of its own against a recorder.

mod answer;
mod course;
mod kept;
mod offer;
mod talk;
mod wording;

use super::net;
use super::report::{Finding, Report, Verdict};
use crate::client::{Client, Target};
use anyhow::{Context, Result};
use course::Probe;
use offer::{Sdp, Story, TONES_HZ};
use serde_json::json;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use talk::Talk;
use tokio::sync::watch;
use trunkline_rtpgen::media::{Media, StreamId, StreamReport, StreamSpec};
use trunkline_rtpgen::sip::Agent;
use trunkline_sip::message::Uri;
use trunkline_sip::transaction::Transport;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The recorder. With user and password it answers a digest challenge. A name is looked up as a host
    /// (no SRV); `;transport=tcp` is understood.
    #[arg(value_name = "URI", value_parser = net::sip_uri)]
    recorder: Uri,
    /// The findings at once at the end, as JSON.
    #[arg(long)]
    json: bool,
    /// How long the tones last, before the pause and after it each, s.
    #[arg(long, value_name = "S", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=600))]
    seconds: u16,
    /// The longest wait for an answer, ms.
    #[arg(long, value_name = "MS", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(100..=60_000))]
    timeout_ms: u32,
    /// Address of ours for SIP and media [default: the one that the recorder is reached from].
    #[arg(long, value_name = "ADDRESS")]
    local: Option<IpAddr>,
    /// The recorder's API, where it is a Trunkline: its recording is looked at, channel by channel.
    #[arg(long, value_name = "URL")]
    api: Option<String>,
    /// A file that holds the API's token.
    #[arg(long, value_name = "FILE", requires = "api")]
    token_file: Option<std::path::PathBuf>,
}

pub(super) fn run(options: &Options) -> Result<ExitCode> {
    let shown = options
        .recorder
        .with_user(options.recorder.user_decoded().as_deref());
    let mut head = json!({ "recorder": shown.as_str() });
    if !options.json {
        println!("probe of {shown}");
    }
    let report = match net::resolve(&options.recorder) {
        Ok(hop) => {
            head["address"] = json!(hop.1.to_string());
            let probe = converse(options, hop)?;
            head["server"] = json!(probe.server);
            head["call_id"] = json!(probe.talk.call_id);
            head["session_id"] = json!(probe.story.session_id());
            finish(options, probe)?
        }
        Err(error) => {
            let mut report = Report::new(!options.json);
            let text = format!("{error:#}");
            report.add(Finding::new("reachable", Verdict::Fail, "RFC 3263 4", text));
            report
        }
    };
    report.finish(head);
    Ok(match report.verdict() {
        Verdict::Fail => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    })
}

/// Looks at the recording where that can be had.
fn finish(options: &Options, mut probe: Probe) -> Result<Report> {
    if let (Some(url), true) = (&options.api, probe.stood) {
        let client = Client::of(&Target {
            url: Some(url.clone()),
            token_file: options.token_file.clone(),
            config: None,
        })?;
        let sent = probe.sent.each_ref().map(|one| one.sent);
        for finding in kept::judge(&client, probe.story.session_id(), sent) {
            probe.report.add(finding);
        }
    }
    Ok(probe.report)
}

fn converse(options: &Options, hop: (Transport, SocketAddr)) -> Result<Probe> {
    let local = match options.local {
        Some(local) => local,
        None => net::local_towards(hop.1)?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    let result = runtime.block_on(async {
        let mut probe = begin(options, hop, local).await?;
        probe.run().await;
        Ok(probe)
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn begin(options: &Options, hop: (Transport, SocketAddr), local: IpAddr) -> Result<Probe> {
    let (interrupt, stop) = watch::channel(false);
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            interrupt.send_replace(true);
        }
        interrupt.closed().await;
    });
    let agent = Agent::start(SocketAddr::new(local, 0), hop.0 == Transport::Tcp, None)
        .await
        .with_context(|| format!("cannot send SIP from {local}"))?;
    let media = Arc::new(Media::start().context("the media thread cannot be started")?);
    let streams: [StreamId; 2] = [media.new_id(), media.new_id()];
    let mut addresses = [SocketAddr::new(local, 0); 2];
    for (place, id) in streams.into_iter().enumerate() {
        let spec = StreamSpec {
            address: local,
            port: None,
            send_hz: TONES_HZ[place],
            sound: None,
            expect_hz: None,
            hears: None,
            payload_type: 0,
            expect_payload_type: None,
            rtcp: true,
        };
        let opened = media.open(id, spec).await;
        addresses[place] = opened.with_context(|| format!("no ports for RTP on {local}"))?;
    }
    let patience = Duration::from_millis(u64::from(options.timeout_ms));
    Ok(Probe {
        uri: options.recorder.clone(),
        talk: Talk::new(agent, hop, patience, stop),
        report: Report::new(!options.json),
        media,
        streams,
        sdp: Sdp::new(addresses),
        story: Story::new(local),
        length: Duration::from_secs(u64::from(options.seconds)),
        server: None,
        allows: Vec::new(),
        sent: [StreamReport::default(), StreamReport::default()],
        stood: false,
    })
}
