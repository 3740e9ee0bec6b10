//! `trunkline demo`: a whole appliance on free loopback ports, 20 real calls through it, and every
//! one of them looked for in what was recorded.

mod appliance;
mod place;
mod siprec;
mod verify;

use crate::client::{Client, escape};
use anyhow::{Context, Result, bail};
use appliance::Appliance;
use place::{Place, Site};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use trunkline_rtpgen::{CallResult, CallsOptions, Hangup, Report, run_calls};

const CALLS_PER_SECOND: f64 = 10.0;
const CALL_LENGTH: Duration = Duration::from_secs(3);
const RINGING: Duration = Duration::from_millis(200);
/// The contract gives a recording 5 s after the call's end.
const FINISH_PATIENCE: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Number of calls, 1 to 40.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=40))]
    calls: u32,
    /// Record the calls at a second appliance over SIPREC too, and compare both recordings.
    #[arg(long)]
    siprec: bool,
    /// Where the data and the sound go [default: a folder beside the program's].
    #[arg(long, value_name = "FOLDER")]
    out: Option<std::path::PathBuf>,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let place = Place::prepare(options.out.as_deref(), options.siprec)?;
    println!(
        "demo: an appliance on SIP port {}, its data in {}",
        place.relay.sip_port,
        place.relay.folder.display()
    );
    if let Some(site) = &place.recorder {
        println!(
            "demo: one that it records to, on SIP port {}",
            site.sip_port
        );
    }
    let mut recorder = place.recorder.as_ref().map(Appliance::start).transpose()?;
    let mut relay = Appliance::start(&place.relay)?;
    let outcome = calls_and_recordings(options, &place, &mut relay, recorder.as_mut());
    if outcome
        .as_ref()
        .map_or(true, |outcome| !outcome.problems.is_empty())
    {
        for site in [Some(&place.relay), place.recorder.as_ref()]
            .into_iter()
            .flatten()
        {
            eprintln!("demo: the appliance's log is {}", site.log().display());
        }
    }
    let stopped = relay.stop();
    let recorder_stopped = recorder.as_mut().map_or(Ok(()), Appliance::stop);
    let outcome = outcome?;
    stopped?;
    recorder_stopped.context("the recorder")?;
    for problem in &outcome.problems {
        eprintln!("demo: {problem}");
    }
    let by_siprec = match &outcome.by_siprec {
        Some(sums) => format!(", by SIPREC {}, WAVs equal {}", sums.recorded, sums.equal),
        None => String::new(),
    };
    println!(
        "demo: {} calls, relayed {} packets, lost {}, recorded {}{by_siprec}; WAV in {}",
        outcome.answered,
        outcome.relayed,
        outcome.lost,
        outcome.recorded,
        place.relay.sounds().display()
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
    by_siprec: Option<BySiprec>,
    problems: Vec<String>,
}

/// What the recorder has.
#[derive(Default)]
struct BySiprec {
    recorded: usize,
    equal: usize,
    /// How the equal ones lie to ours.
    common: Vec<siprec::Common>,
}

fn calls_and_recordings(
    options: &Options,
    place: &Place,
    relay: &mut Appliance,
    recorder: Option<&mut Appliance>,
) -> Result<Outcome> {
    relay.wait_until_ready()?;
    let recorder = match recorder {
        Some(recorder) => {
            recorder.wait_until_ready().context("the recorder")?;
            Some(&*recorder)
        }
        None => None,
    };
    let watched = recorder.map(|_| siprec::Sessions::watch(&relay.client));
    let report = place_calls(options, place);
    let sessions = watched.map(siprec::Sessions::finish).unwrap_or_default();
    let report = report?;
    let mut problems = problems_of_calls(&report);
    let relayed = relayed_packets(&relay.client)?;
    if relayed < report.rtp.received {
        problems.push(format!(
            "{relayed} packets relayed, but {} arrived",
            report.rtp.received
        ));
    }
    println!("demo: converting and checking the recordings");
    let mut recorded = 0;
    let mut by_siprec = recorder.map(|_| BySiprec::default());
    let deadline = Instant::now() + FINISH_PATIENCE;
    for call in report.results.iter().filter(|call| call.status == 200) {
        let number = call.call + 1;
        let checked = check_recording(&relay.client, &place.relay, call, deadline);
        match &checked {
            Ok(_) => recorded += 1,
            Err(error) => problems.push(format!("call {number}: {error:#}")),
        }
        if let (Some(recorder), Some(sums)) = (recorder, &mut by_siprec) {
            let wav = checked.as_deref().unwrap_or_default();
            let session = sessions.get(&call.call_id);
            let found = siprec::recorded(relay, recorder, call, session, deadline);
            if let Err(error) = found.and_then(|found| compare(recorder, &found, wav, sums)) {
                problems.push(format!("call {number}, by SIPREC: {error:#}"));
            }
        }
    }
    if let Some(sums) = &by_siprec {
        tell(sums);
    }
    let all = options.calls as usize;
    let enough = |count: usize| count >= all;
    let complete = enough(recorded) && by_siprec.as_ref().is_none_or(|sums| enough(sums.equal));
    if !complete && problems.is_empty() {
        problems.push(format!("{recorded} of {all} recordings found"));
    }
    Ok(Outcome {
        answered: report.answered,
        relayed,
        lost: report.rtp.lost,
        recorded,
        by_siprec,
        problems,
    })
}

fn place_calls(options: &Options, place: &Place) -> Result<Report> {
    println!(
        "demo: {} calls of {} s, {CALLS_PER_SECOND} a second, a tone of its own in each direction",
        options.calls,
        CALL_LENGTH.as_secs()
    );
    let report = run_calls(CallsOptions {
        to: format!("sip:callee{{n}}@127.0.0.1:{}", place.relay.sip_port),
        listen: Some(([127, 0, 0, 1], place.callee_port).into()),
        calls: options.calls,
        rate: CALLS_PER_SECOND,
        duration: CALL_LENGTH,
        ring: RINGING,
        hangup: Hangup::Alternate,
        rtcp: true,
        marked: true,
        ..CallsOptions::default()
    })?;
    println!(
        "demo: {} answered, set up in {:.1} ms (median), jitter {:.2} ms (median)",
        report.answered, report.setup_ms.p50, report.jitter_ms.p50
    );
    Ok(report)
}

/// Compares the recorder's recording of a call with ours (`wav`, empty when there is none).
fn compare(
    recorder: &Appliance,
    recorded: &siprec::Recorded,
    wav: &[u8],
    sums: &mut BySiprec,
) -> Result<()> {
    sums.recorded += 1;
    if wav.is_empty() {
        bail!("nothing here to compare it with");
    }
    let common = siprec::compare(recorder, recorded, wav)?;
    sums.equal += 1;
    sums.common.push(common);
    Ok(())
}

fn tell(sums: &BySiprec) {
    let median = |of: fn(&siprec::Common) -> f64| {
        let mut values: Vec<f64> = sums.common.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    if let (Some(late), Some(common)) = (median(|one| one.late_ms), median(|one| one.common_ms)) {
        println!(
            "demo: the recorder had a call's sound from {late:.0} ms on, for {common:.0} ms: the same as ours (medians)"
        );
    }
}

fn problems_of_calls(report: &Report) -> Vec<String> {
    let mut problems = Vec::new();
    if report.interrupted {
        problems.push("interrupted".to_owned());
    }
    if report.answered != report.calls {
        problems.push(format!(
            "{} of {} calls were answered",
            report.answered, report.calls
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

/// Waits for a call's recording and the files made of it, and holds them against what was sent. Gives the
/// WAV.
fn check_recording(
    client: &Client,
    site: &Site,
    call: &CallResult,
    deadline: Instant,
) -> Result<Vec<u8>> {
    let query = format!("call_id={}", escape(&call.call_id));
    let recording = client.finished_recording(&query, deadline)?;
    let id = recording["id"].as_str().context("a recording without id")?;
    let path = format!("/v1/recordings/{id}");
    let about = delivered(site, id, deadline)?;
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
    Ok(wav)
}

/// The description that the directory sink put beside a recording's files, last of them.
fn delivered(site: &Site, id: &str, deadline: Instant) -> Result<PathBuf> {
    let end = format!("-{id}.json");
    loop {
        let files = std::fs::read_dir(site.sounds());
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
