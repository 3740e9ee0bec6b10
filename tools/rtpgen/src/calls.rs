//! `rtpgen calls`: places calls at a rate, answers them where asked to, and reports.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use trunkline_sip::message::{Request, Response, Uri};
use trunkline_sip::transaction::Transport;

use crate::call::{
    CallPlan, CalleeHandle, CalleeOutcome, CalleeSlot, Context, Incoming, answer, place, stopped,
};
use crate::media::{Media, MediaTimes};
use crate::options::CallsOptions;
use crate::report::{CallResult, Percentiles, Report};
use crate::sip::Agent;
use crate::sip::dialog::resolve;

/// Places the calls and waits for their end. Builds its own runtime, so it must not be
/// called from within one.
///
/// # Errors
/// The options make no sense, or the sockets cannot be had. Calls that fail are no error here: see
/// [`Report::is_ok`].
pub fn run_calls(options: CallsOptions) -> anyhow::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    let report = runtime.block_on(run(options));
    runtime.shutdown_timeout(Duration::from_secs(1));
    report
}

/// The answering ends that wait for their call, by its number.
type Slots = Arc<Mutex<BTreeMap<u32, CalleeSlot>>>;

async fn run(options: CallsOptions) -> anyhow::Result<Report> {
    let hop = check(&options)?;
    crate::options::raise_file_limit();
    let options = Arc::new(options);
    let media = Arc::new(Media::start().context("the media thread cannot be started")?);
    let (stop_sender, stop) = watch::channel(false);
    let caller_agent = Agent::start(options.local, hop.0 == Transport::Tcp, None)
        .await
        .with_context(|| format!("cannot send SIP from {}", options.local))?;
    let caller = Context {
        options: Arc::clone(&options),
        media: Arc::clone(&media),
        agent: caller_agent,
        stop: stop.clone(),
    };
    let slots = Slots::default();
    if let Some(listen) = options.listen {
        let (incoming, arrivals) = mpsc::unbounded_channel();
        let agent = Agent::start(listen, true, Some(incoming))
            .await
            .with_context(|| format!("cannot listen for SIP on {listen}"))?;
        let callee = Context {
            agent,
            ..caller.clone()
        };
        tokio::spawn(receive(callee, arrivals, Arc::clone(&slots)));
    }
    if options.watch_interrupt {
        tokio::spawn(watch_interrupt(stop_sender));
    }
    let begin = Instant::now();
    let mut results = place_all(&caller, hop, &slots).await;
    results.sort_by_key(|call| call.call);
    let interrupted = *stop.borrow();
    let elapsed_s = begin.elapsed().as_secs_f64();
    let mut report = Report {
        calls: options.calls,
        interrupted,
        elapsed_s,
        results,
        ..Report::default()
    };
    report.sum_up();
    fill_times(&mut report, media.finish());
    Ok(report)
}

/// The options that a library user can get wrong, and where the calls go.
fn check(options: &CallsOptions) -> anyhow::Result<(Transport, SocketAddr)> {
    let rates = [options.rate, options.rate_to.unwrap_or(options.rate)];
    if rates.iter().any(|rate| !(rate.is_finite() && *rate > 0.0)) {
        bail!("the rate must be a number above 0");
    }
    let uri = request_uri(&options.to, 0)?;
    let hop = resolve(&uri, Transport::Udp)
        .with_context(|| format!("{uri}: the host must be an address, the transport udp or tcp"))?;
    if hop.1.is_ipv6() != options.local.is_ipv6() {
        bail!("{} cannot be reached from {}", hop.1, options.local);
    }
    Ok(hop)
}

fn request_uri(to: &str, number: u32) -> anyhow::Result<Uri> {
    let text = to.replace("{n}", &number.to_string());
    let uri: Uri = text
        .parse()
        .with_context(|| format!("{text} is no SIP URI"))?;
    if !uri.is_sip() {
        bail!("{text} is no SIP URI");
    }
    Ok(uri)
}

async fn watch_interrupt(stop: watch::Sender<bool>) {
    if tokio::signal::ctrl_c().await.is_ok() {
        stop.send_replace(true);
    }
    stop.closed().await;
}

/// Starts the calls at their rate and collects their results.
async fn place_all(
    context: &Context,
    hop: (Transport, SocketAddr),
    slots: &Slots,
) -> Vec<CallResult> {
    let options = &context.options;
    let mut calls = JoinSet::new();
    let begin = tokio::time::Instant::now();
    let mut stop = context.stop.clone();
    for number in 0..options.calls {
        let due = begin + due_after(options, number);
        tokio::select! {
            () = tokio::time::sleep_until(due) => {}
            () = stopped(&mut stop) => break,
        }
        // Checked before the run began; only `{n}` differs.
        let Ok(uri) = request_uri(&options.to, number) else {
            continue;
        };
        let plan = CallPlan::new(number, &context.media, options);
        let callee = options.listen.map(|_| expect_callee(slots, &plan));
        let (context, slots) = (context.clone(), Arc::clone(slots));
        calls.spawn(async move {
            let result = place(context, plan, uri, hop, callee).await;
            lock(&slots).remove(&number);
            result
        });
    }
    let mut results = Vec::new();
    while let Some(joined) = calls.join_next().await {
        // A task that panicked has said so on stderr; it is missing from the results.
        results.extend(joined);
    }
    results
}

/// When a call begins: the time by which the rate, rising evenly from call to call, has made so many.
fn due_after(options: &CallsOptions, number: u32) -> Duration {
    let (from, to) = (options.rate, options.rate_to.unwrap_or(options.rate));
    let (number, last) = (f64::from(number), f64::from(options.calls.max(2) - 1));
    let slope = (to - from) / last;
    // The integral of 1 / (from + slope * n).
    let seconds = if slope.abs() < 1e-9 {
        number / from
    } else {
        ((from + slope * number) / from).ln() / slope
    };
    Duration::from_secs_f64(seconds.max(0.0))
}

/// Makes the line between the two ends of a call.
fn expect_callee(slots: &Slots, plan: &CallPlan) -> CalleeHandle {
    let (hang_up, order) = oneshot::channel();
    let (sender, outcome) = oneshot::channel::<CalleeOutcome>();
    let slot = CalleeSlot {
        plan: plan.clone(),
        hang_up: order,
        outcome: sender,
    };
    lock(slots).insert(plan.number, slot);
    CalleeHandle { hang_up, outcome }
}

/// Takes the calls that arrive. A call is told by the number at the end of the caller's user part;
/// where that does not come through, the longest waiting one is taken.
async fn receive(context: Context, mut arrivals: Incoming, slots: Slots) {
    while let Some((tx, invite, events)) = arrivals.recv().await {
        let number = call_number(&invite, &context.options.from_user);
        let slot = {
            let mut waiting = lock(&slots);
            match number.filter(|number| waiting.contains_key(number)) {
                Some(number) => waiting.remove(&number),
                None => waiting.pop_first().map(|(_, slot)| slot),
            }
        };
        match slot {
            Some(slot) => {
                tokio::spawn(answer(context.clone(), slot, invite, tx, events));
            }
            None => {
                context.agent.respond(tx, Response::to(&invite, 486));
                context
                    .agent
                    .close_call(&invite.headers.call_id().unwrap_or_default());
            }
        }
    }
}

fn call_number(invite: &Request, from_user: &str) -> Option<u32> {
    let from = invite.headers.from_address().ok()?;
    from.uri
        .user_decoded()?
        .strip_prefix(from_user)?
        .parse()
        .ok()
}

fn lock(slots: &Slots) -> std::sync::MutexGuard<'_, BTreeMap<u32, CalleeSlot>> {
    slots.lock().unwrap_or_else(PoisonError::into_inner)
}

fn fill_times(report: &mut Report, media: Option<MediaTimes>) {
    let answered = |call: &&CallResult| call.status == 200;
    let of = |value: fn(&CallResult) -> f64| {
        let values = report
            .results
            .iter()
            .filter(answered)
            .map(value)
            .filter(|value| *value > 0.0);
        distribution(values)
    };
    let (setup, ringing) = (of(|call| call.setup_ms), of(|call| call.ringing_ms));
    let teardown = of(|call| call.teardown_ms);
    (report.setup_ms, report.ringing_ms, report.teardown_ms) = (setup, ringing, teardown);
    let ends = report.results.iter().filter(answered);
    let ends = ends.flat_map(|call| [&call.caller, &call.callee]).flatten();
    let scores = ends.map(|end| end.mos).filter(|mos| *mos > 0.0);
    report.mos = distribution(scores);
    if let Some(media) = media {
        report.jitter_ms = Percentiles::milliseconds(&media.jitter_us);
        report.latency_ms = Percentiles::milliseconds(&media.latency_us);
        report.send_lateness_ms = Percentiles::milliseconds(&media.lateness_us);
    }
}

fn distribution(milliseconds: impl Iterator<Item = f64>) -> Percentiles {
    let mut histogram: Histogram<u64> =
        Histogram::new_with_bounds(1, 600_000_000, 3).expect("the bounds are constant");
    for value in milliseconds {
        histogram.saturating_record(((value * 1000.0).round() as u64).max(1));
    }
    Percentiles::milliseconds(&histogram)
}
