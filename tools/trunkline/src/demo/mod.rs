//! `trunkline demo`: a whole appliance on free loopback ports, 20 real calls through it, and every
//! one of them looked for in what was recorded.

mod place;
mod verify;

use crate::client::{Client, escape};
use crate::guard;
use anyhow::{Context, Result, bail};
use place::Place;
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode, Stdio};
use std::time::{Duration, Instant};
use trunkline_rtpgen::{CallResult, CallsOptions, Hangup, Report, run_calls};

const CALLS: u32 = 20;
const CALLS_PER_SECOND: f64 = 10.0;
const CALL_LENGTH: Duration = Duration::from_secs(3);
const RINGING: Duration = Duration::from_millis(200);
/// The contract gives a recording 5 s after the call's end.
const FINISH_PATIENCE: Duration = Duration::from_secs(10);
const START_PATIENCE: Duration = Duration::from_secs(30);
const STOP_PATIENCE: Duration = Duration::from_secs(30);

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where the data and the sound go [default: a folder beside the program's].
    #[arg(long, value_name = "FOLDER")]
    out: Option<std::path::PathBuf>,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let place = Place::prepare(options.out.as_deref())?;
    println!(
        "demo: an appliance on SIP port {}, its data in {}",
        place.sip_port,
        place.folder.display()
    );
    let mut appliance = Appliance::start(&place)?;
    let outcome = calls_and_recordings(&place, &mut appliance);
    if outcome
        .as_ref()
        .map_or(true, |outcome| !outcome.problems.is_empty())
    {
        eprintln!("demo: the appliance's log is {}", place.log().display());
    }
    let stopped = appliance.stop();
    let outcome = outcome?;
    stopped?;
    for problem in &outcome.problems {
        eprintln!("demo: {problem}");
    }
    println!(
        "demo: {} calls, relayed {} packets, lost {}, recorded {}; WAV in {}",
        outcome.answered,
        outcome.relayed,
        outcome.lost,
        outcome.recorded,
        place.sounds().display()
    );
    Ok(if outcome.problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

struct Outcome {
    answered: u32,
    relayed: u64,
    lost: u64,
    recorded: usize,
    problems: Vec<String>,
}

fn calls_and_recordings(place: &Place, appliance: &mut Appliance) -> Result<Outcome> {
    let client = Client::new(format!("http://127.0.0.1:{}", place.http_port), None);
    appliance.wait_until_ready(&client)?;
    println!(
        "demo: {CALLS} calls of {} s, {CALLS_PER_SECOND} a second, a tone of its own in each direction",
        CALL_LENGTH.as_secs()
    );
    let report = run_calls(CallsOptions {
        to: format!("sip:callee{{n}}@127.0.0.1:{}", place.sip_port),
        listen: Some(([127, 0, 0, 1], place.callee_port).into()),
        calls: CALLS,
        rate: CALLS_PER_SECOND,
        duration: CALL_LENGTH,
        ring: RINGING,
        hangup: Hangup::Alternate,
        rtcp: true,
        ..CallsOptions::default()
    })?;
    println!(
        "demo: {} answered, set up in {:.1} ms (median), jitter {:.2} ms (median)",
        report.answered, report.setup_ms.p50, report.jitter_ms.p50
    );
    let mut problems = problems_of_calls(&report);
    let relayed = relayed_packets(&client)?;
    if relayed < report.rtp.received {
        problems.push(format!(
            "{relayed} packets relayed, but {} arrived",
            report.rtp.received
        ));
    }
    println!("demo: converting and checking the recordings");
    let mut recorded = 0;
    let deadline = Instant::now() + FINISH_PATIENCE;
    for call in report.results.iter().filter(|call| call.status == 200) {
        match check_recording(&client, place, call, deadline) {
            Ok(()) => recorded += 1,
            Err(error) => problems.push(format!("call {}: {error:#}", call.call + 1)),
        }
    }
    if recorded < CALLS as usize && problems.is_empty() {
        problems.push(format!("{recorded} of {CALLS} recordings found"));
    }
    Ok(Outcome {
        answered: report.answered,
        relayed,
        lost: report.rtp.lost,
        recorded,
        problems,
    })
}

fn problems_of_calls(report: &Report) -> Vec<String> {
    let mut problems = Vec::new();
    if report.interrupted {
        problems.push("interrupted".to_owned());
    }
    if report.answered != CALLS {
        problems.push(format!(
            "{} of {CALLS} calls were answered",
            report.answered
        ));
    }
    if report.rtp.lost > 0 {
        problems.push(format!("{} packets were lost", report.rtp.lost));
    }
    let failed = report.results.iter().filter(|call| !call.ok);
    problems.extend(failed.map(|call| format!("call {}: {}", call.call + 1, call.failure)));
    problems
}

/// Packets that left the appliance, by its own count.
fn relayed_packets(client: &Client) -> Result<u64> {
    let text = String::from_utf8(client.bytes("/metrics")?).context("the metrics are no text")?;
    let name = "trunkline_rtp_packets_total{direction=\"out\"} ";
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .context("no packet counter")?;
    value
        .trim()
        .parse()
        .with_context(|| format!("{value:?} is no count"))
}

/// Waits for a call's recording and the files made of it, and holds them against what was sent.
fn check_recording(
    client: &Client,
    place: &Place,
    call: &CallResult,
    deadline: Instant,
) -> Result<()> {
    let recording = finished_recording(client, &call.call_id, deadline)?;
    let id = recording["id"].as_str().context("a recording without id")?;
    let path = format!("/v1/recordings/{id}");
    let about = delivered(place, id, deadline)?;
    let wav = std::fs::read(about.with_extension("wav"))?;
    verify::sound(&wav, call)?;
    if client.bytes(&format!("{path}/wav"))? != wav {
        bail!("the WAV of the API is another than the sink's");
    }
    let sn3 = std::fs::read(about.with_extension("sn3"))?;
    if !sn3.starts_with(b"SN3") {
        bail!("what should be SN3 begins otherwise");
    }
    let receipt = client.json("GET", &format!("{path}/receipt"), None)?;
    verify::receipt(&receipt, call)?;
    if recording["verdict"] != "complete" {
        bail!("verdict {}: {receipt}", recording["verdict"]);
    }
    Ok(())
}

/// The description that the directory sink put beside a recording's files, last of them.
fn delivered(place: &Place, id: &str, deadline: Instant) -> Result<PathBuf> {
    let end = format!("-{id}.json");
    loop {
        let files = std::fs::read_dir(place.sounds());
        let mut paths = files
            .into_iter()
            .flatten()
            .flatten()
            .map(|file| file.path());
        if let Some(found) = paths.find(|path| path.to_string_lossy().ends_with(&end)) {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            bail!("the directory sink has not delivered it");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn finished_recording(client: &Client, call_id: &str, deadline: Instant) -> Result<Value> {
    let path = format!("/v1/recordings?call_id={}", escape(call_id));
    loop {
        let list = client.json("GET", &path, None)?;
        let items = list["items"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        match items {
            [one]
                if matches!(
                    one["state"].as_str(),
                    Some("complete" | "partial" | "failed")
                ) =>
            {
                return Ok(one.clone());
            }
            [_, _, ..] => bail!("{} recordings instead of one", items.len()),
            _ if Instant::now() >= deadline => {
                let state = items
                    .first()
                    .map_or("none", |one| one["state"].as_str().unwrap_or("?"));
                bail!("no finished recording (state: {state})");
            }
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// `trunkline up` as a child that cannot outlive us.
struct Appliance {
    process: Child,
}

impl Appliance {
    fn start(place: &Place) -> Result<Self> {
        let own = std::env::current_exe().context("the own program cannot be found")?;
        let log = File::create(place.log())?;
        let arguments = ["up".into(), "--config".into(), Place::CONFIG.into()];
        let process = guard::command(&own, &arguments)?
            .current_dir(&place.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .env_remove("NOTIFY_SOCKET")
            .spawn()
            .context("the appliance does not start")?;
        Ok(Self { process })
    }

    fn wait_until_ready(&mut self, client: &Client) -> Result<()> {
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait()? {
                bail!("the appliance ended at its start: {status}");
            }
            if matches!(client.ask("GET", "/v1/health", None), Ok((200, _))) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!(
                    "the appliance is not ready after {} s",
                    START_PATIENCE.as_secs()
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends it in order.
    fn stop(&mut self) -> Result<()> {
        let pid = i32::try_from(self.process.id()).context("a process id")?;
        // It may have ended already; its status tells.
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid),
            nix::sys::signal::Signal::SIGTERM,
        );
        let deadline = Instant::now() + STOP_PATIENCE;
        loop {
            match self.process.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("the appliance ended with {status}"),
                None if Instant::now() >= deadline => bail!("the appliance does not end"),
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Writes a file of the demo.
fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| path.display().to_string())
}
