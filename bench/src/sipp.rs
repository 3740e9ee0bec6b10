//! SIPp as the load of signalling: a callee that runs, and callers that place so many calls.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::place::{Place, Side};
use crate::process::Process;
use crate::results::Spread;

const CALLER: &str = include_str!("../scenarios/caller.xml");
const CALLEE: &str = include_str!("../scenarios/callee.xml");
/// A call that waits so long for a message has failed.
const PATIENCE_MS: u32 = 8_000;

/// Calls to place.
#[derive(Debug, Clone, Copy)]
pub struct Calls {
    /// How many.
    pub count: u32,
    /// Begun a second.
    pub rate: f64,
    /// Held for so long.
    pub hold: Duration,
    /// Our port.
    pub port: u16,
}

/// What came of them.
#[derive(Debug, Clone, Copy)]
pub struct Placed {
    /// Set up and ended as they should.
    pub good: u32,
    /// Messages sent again: SIPp waited 500 ms in vain.
    pub repeated: u32,
    /// Calls begun a second.
    pub rate: f64,
    /// From INVITE to its 200, ms (SIPp counts whole ones).
    pub setup_p50_ms: f64,
    /// See `setup_p50_ms`.
    pub setup_p99_ms: f64,
}

/// Starts the end that answers.
///
/// # Errors
/// SIPp does not start.
pub fn callee(place: &Place, directory: &Path, port: u16) -> Result<Process> {
    let file = directory.join("callee.xml");
    std::fs::write(&file, CALLEE)?;
    let mut command = sipp(place, &file, port, 40_000);
    command.extend(["-timer_resol".into(), "1".into()]);
    Process::start("the callee", &command, &directory.join("callee.log"))
}

/// Starts calls through `to`; [`finish`] waits for them.
///
/// # Errors
/// SIPp does not start.
pub fn place_calls(
    place: &Place,
    directory: &Path,
    to: SocketAddr,
    calls: Calls,
) -> Result<Process> {
    let file = directory.join("caller.xml");
    std::fs::write(&file, CALLER)?;
    let statistics = directory.join(format!("{}.csv", calls.port));
    if statistics.exists() {
        std::fs::remove_file(&statistics)?;
    }
    // Callers side by side must not share a media port.
    let media_port = 30_000 + 10 * (calls.port % 100);
    let mut command = sipp(place, &file, calls.port, media_port);
    let hold_ms = calls.hold.as_millis();
    let arguments = [
        to.to_string(),
        format!("-r {:.0}", calls.rate),
        format!("-m {}", calls.count),
        format!("-l {}", calls.count),
        format!("-d {hold_ms}"),
        format!("-recv_timeout {PATIENCE_MS}"),
        "-timer_resol 1 -trace_rtt -rtt_freq 1 -trace_stat -fd 1 -stf".to_owned(),
        format!("{}.csv", calls.port),
    ];
    let words = arguments.iter().flat_map(|text| text.split(' '));
    command.extend(words.map(OsString::from));
    let log = directory.join(format!("caller-{}.log", calls.port));
    Process::start("the caller", &command, &log)
}

/// Waits for all calls to end and reads what SIPp wrote. `None` when interrupted.
///
/// # Errors
/// It wrote nothing that can be read.
pub fn finish(
    mut caller: Process,
    directory: &Path,
    calls: Calls,
    stop: &AtomicBool,
) -> Result<Option<Placed>> {
    let status = loop {
        if let Some(status) = caller.ended()? {
            break status;
        }
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    // 1: calls failed, which the statistics tell.
    if !matches!(status.code(), Some(0 | 1)) {
        bail!("SIPp ended ({status}):\n{}", caller.log_end());
    }
    let statistics = directory.join(format!("{}.csv", calls.port));
    let text = std::fs::read_to_string(&statistics)
        .with_context(|| format!("SIPp wrote no statistics:\n{}", caller.log_end()))?;
    let times = directory.join(format!("caller_{}_rtt.csv", caller.id()));
    let times = std::fs::read_to_string(times).unwrap_or_default();
    let (p50, p99) = setup_times(&times);
    let column = |name| last_value(&text, name);
    Ok(Some(Placed {
        good: column("SuccessfulCall(C)").context("no count of calls")? as u32,
        repeated: column("Retransmissions(C)").context("no count of repetitions")? as u32,
        rate: column("CallRate(C)").context("no rate")?,
        setup_p50_ms: p50,
        setup_p99_ms: p99,
    }))
}

fn sipp(place: &Place, scenario: &Path, port: u16, media_port: u16) -> Vec<OsString> {
    let address = place.load_address().to_string();
    let mut command = place.command(Side::Load, "sipp");
    command.extend(["-nostdin", "-sf"].map(OsString::from));
    command.push(scenario.into());
    let numbers = [port.to_string(), media_port.to_string()];
    command.extend(["-i", &address, "-p", &numbers[0], "-mp", &numbers[1]].map(OsString::from));
    command
}

/// A column of the last line of SIPp's statistics.
fn last_value(csv: &str, column: &str) -> Option<f64> {
    let mut lines = csv.lines();
    let index = lines.next()?.split(';').position(|name| name == column)?;
    lines.last()?.split(';').nth(index)?.parse().ok()
}

/// Median and 99 % of `Date_ms;response_time_ms;rtd_no` lines; 0 where there are none.
fn setup_times(csv: &str) -> (f64, f64) {
    let value = |line: &str| line.split(';').nth(1)?.parse::<f64>().ok();
    let mut times: Vec<_> = csv.lines().skip(1).filter_map(value).collect();
    times.sort_by(f64::total_cmp);
    let median = Spread::of(times.iter().copied()).map_or(0.0, |spread| spread.median);
    let late = times.len() * 99 / 100;
    (median, times.get(late).copied().unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sipps_files_are_read() {
        let csv = "StartTime;CallRate(C);SuccessfulCall(C);\na;1;2;\nb;497.5;1000;\n";
        assert_eq!(last_value(csv, "SuccessfulCall(C)"), Some(1000.0));
        assert_eq!(last_value(csv, "CallRate(C)"), Some(497.5));
        assert_eq!(last_value(csv, "Other"), None);
        assert_eq!(last_value("", "Other"), None);
        let times: String = (1..=200).map(|ms| format!("1.0;{ms};1\n")).collect();
        assert_eq!(setup_times(&format!("head\n{times}")), (100.5, 199.0));
        assert_eq!(setup_times("head\n"), (0.0, 0.0));
    }
}
