//! Call set-ups: rate, latency, CPU and memory a call, ours beside Kamailio.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, bail};
use trunkline_rtpgen::wire::search::{Search, Window};

use crate::options::Session;
use crate::place::Rig;
use crate::results::quantity;
use crate::signalling::{Running, System, start};
use crate::sipp::{Calls, Placed, finish, place_calls};

/// The label of all rows: the system has one core, the load the other.
pub const RIG: &str = "signalling";
/// Rows of the runs with idle calls standing.
pub const FEW: &str = "trunkline, few calls standing";
/// See [`FEW`].
pub const MANY: &str = "trunkline, many calls standing";
const FEW_CALLS: u32 = 100;
/// Calls begun a second while the idle ones are set up.
const FILL_RATE: f64 = 400.0;
/// Calls begun a second where CPU a call is measured.
const STEADY_RATE: f64 = 200.0;
const HOLD: Duration = Duration::from_millis(100);
const PROBE_PORT: u16 = 9_071;
const STANDING_PORT: u16 = 9_072;
/// Part of calls that may fail, or need a message sent again.
const BAD_MAX: f64 = 0.001;

/// Measures all systems.
///
/// # Errors
/// A system does not start, or the load cannot be read.
pub fn run(session: &mut Session, many: u32) -> Result<()> {
    session.results.note(format!(
        "Few calls standing: {FEW_CALLS}; many: {many}. Memory is that of control, the messages and events of \
         these calls that it keeps for `explain` and for event streams (bounded) included."
    ));
    if let Some(rig) = session.place.rigs(None).first()
        && *rig == Rig::Inline
    {
        session.place.set_rig(*rig)?;
    }
    for round in 0..session.effort.rounds {
        let mut order = vec![System::Trunkline, System::Kamailio];
        order.rotate_left(round % 2);
        if round == 0 {
            order.push(System::Nobody);
        }
        for system in &order {
            edge(session, round, *system)?;
        }
        let lowest = [System::Trunkline, System::Kamailio]
            .iter()
            .filter_map(|system| {
                session
                    .results
                    .spread((RIG, system.name(), quantity::SETUPS))
            })
            .map(|spread| spread.median)
            .fold(f64::INFINITY, f64::min);
        for system in &order {
            latency(session, round, *system, lowest / 2.0)?;
        }
        for (count, name) in [(FEW_CALLS, FEW), (many, MANY)] {
            standing(session, round, count, name)?;
        }
    }
    Ok(())
}

fn stopped(session: &Session) -> bool {
    session.stop.load(Ordering::Relaxed)
}

fn begin(session: &Session, system: System) -> Result<Running> {
    let stage = session.stage();
    start(stage.place, stage.programs, stage.record_to, system)
}

/// A window of calls at a rate.
fn calls(session: &Session, running: &mut Running, rate: f64) -> Result<Option<Placed>> {
    let calls = Calls {
        count: count(session, rate),
        rate: rate.round().max(1.0),
        hold: HOLD,
        port: PROBE_PORT,
    };
    let directory = running.directory.path().to_owned();
    let caller = place_calls(&session.place, &directory, running.to, calls)?;
    let placed = finish(caller, &directory, calls, &session.stop)?;
    running.check()?;
    Ok(placed)
}

/// The highest rate at which calls neither fail nor wait for a repeated message.
fn edge(session: &mut Session, round: usize, system: System) -> Result<()> {
    if stopped(session) {
        return Ok(());
    }
    let known = session
        .results
        .spread((RIG, system.name(), quantity::SETUPS));
    let search = Search {
        from: known
            .map_or(400.0, |known| (known.median * 0.7).max(20.0))
            .min(session.effort.calls_to),
        to: session.effort.calls_to,
        loss_max: BAD_MAX,
        precision: 0.05,
    };
    let mut running = None;
    let found = search.run(|rate| {
        // Something else on the machine may spoil one window, hardly two.
        let mut last = None;
        for _ in 0..2 {
            let mut current = match running.take() {
                Some(current) => current,
                None => begin(session, system)?,
            };
            let Some(placed) = calls(session, &mut current, rate)? else {
                return Ok(None);
            };
            let window = judge(rate, count(session, rate), placed);
            eprintln!(
                "{:<10} {rate:>6.0} calls/s: {} good, {} messages repeated, {:.0}/s",
                system.name(),
                placed.good,
                placed.repeated,
                placed.rate
            );
            let passed = window.loss <= BAD_MAX && !window.limited;
            last = Some(window);
            if passed {
                running = Some(current);
                break;
            }
        }
        Ok::<_, anyhow::Error>(last)
    })?;
    if !found.interrupted {
        let at = (RIG, system.name(), quantity::SETUPS);
        session.results.add(at, round, found.rate);
        if found.generator_limited {
            session.results.mark_at_least(at);
        }
    }
    Ok(())
}

/// Calls of a window: long enough that a message sent again shows.
fn count(session: &Session, rate: f64) -> u32 {
    let seconds = 2.0 * session.effort.window.as_secs_f64();
    ((rate * seconds).ceil() as u32).max(20)
}

fn judge(rate: f64, count: u32, placed: Placed) -> Window {
    let bad = u64::from(placed.repeated) + u64::from(count.saturating_sub(placed.good));
    Window {
        rate,
        sent: u64::from(count),
        delivered: u64::from(placed.good),
        loss: bad as f64 / f64::from(count.max(1)),
        // SIPp counts the time until the last call is over, too.
        limited: placed.rate < 0.7 * rate && count > 100,
    }
}

fn latency(session: &mut Session, round: usize, system: System, rate: f64) -> Result<()> {
    if stopped(session) || !rate.is_finite() {
        return Ok(());
    }
    let mut running = begin(session, system)?;
    let before = running.cpu_ns();
    let Some(placed) = calls(session, &mut running, rate)? else {
        return Ok(());
    };
    let spent = running.cpu_ns().saturating_sub(before);
    add_placed(session, round, system.name(), placed, spent);
    Ok(())
}

fn add_placed(session: &mut Session, round: usize, who: &str, placed: Placed, cpu_ns: u64) {
    let mut add = |quantity, value| session.results.add((RIG, who, quantity), round, value);
    add(quantity::SETUP_P50, placed.setup_p50_ms);
    add(quantity::SETUP_P99, placed.setup_p99_ms);
    if cpu_ns > 0 {
        let each = cpu_ns as f64 / 1000.0 / f64::from(placed.good.max(1));
        add(quantity::CALL_CPU, each);
    }
    eprintln!(
        "{who}: set-up p50 {} ms, p99 {} ms",
        placed.setup_p50_ms, placed.setup_p99_ms
    );
}

/// Memory a call of ours, and what a call costs beside calls that stand.
fn standing(session: &mut Session, round: usize, count: u32, name: &str) -> Result<()> {
    if stopped(session) {
        return Ok(());
    }
    let mut running = begin(session, System::Trunkline)?;
    let resident = |running: &Running| running.processes[0].resident_bytes();
    // The first calls bring up what all share.
    calls(session, &mut running, STEADY_RATE)?;
    let before = resident(&running);
    let Some((_caller, up)) = fill(session, &mut running, count)? else {
        return Ok(());
    };
    if up < count {
        session
            .results
            .note(format!("{name}: {up} of {count} calls fit."));
    }
    if name == MANY {
        let grown = resident(&running).saturating_sub(before) as f64 / 1024.0;
        let at = (RIG, name, quantity::MEMORY);
        session.results.add(at, round, grown / f64::from(up.max(1)));
    }
    let cpu = running.cpu_ns();
    let Some(placed) = calls(session, &mut running, STEADY_RATE)? else {
        return Ok(());
    };
    let spent = running.cpu_ns().saturating_sub(cpu);
    add_placed(session, round, name, placed, spent);
    Ok(())
}

/// Sets calls up and lets them stand; gives the caller that holds them, and how many are up.
fn fill(
    session: &Session,
    running: &mut Running,
    count: u32,
) -> Result<Option<(crate::process::Process, u32)>> {
    let seconds = f64::from(count) / FILL_RATE;
    let calls = Calls {
        count,
        rate: FILL_RATE,
        hold: Duration::from_secs_f64(seconds + 120.0),
        port: STANDING_PORT,
    };
    let directory = running.directory.path().to_owned();
    let caller = place_calls(&session.place, &directory, running.to, calls)?;
    let until = std::time::Instant::now() + Duration::from_secs_f64(seconds + 2.0);
    while std::time::Instant::now() < until {
        if stopped(session) {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    running.check()?;
    let up = active_calls(session, running)?;
    Ok(Some((caller, up)))
}

/// What our own metrics say.
fn active_calls(session: &Session, running: &Running) -> Result<u32> {
    let api = SocketAddr::from(([127, 0, 0, 1], crate::signalling::API_PORT));
    let text = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            session.place.enter(crate::place::Side::Relay)?;
            crate::signalling::metrics(api)
        });
        asking
            .join()
            .unwrap_or_else(|_| bail!("the API client panicked"))
    })?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("trunkline_calls_active "));
    match line.and_then(|value| value.trim().parse::<f64>().ok()) {
        Some(active) => Ok(active as u32),
        None => bail!("no count of calls in the metrics of {}", running.to),
    }
}
