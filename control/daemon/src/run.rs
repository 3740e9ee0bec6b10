//! The control process: one task owns the B2BUA and its inputs; catalog and API have threads of
//! their own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::mpsc;
use tracing::{error, info, warn};
use trunkline_config::{Config, Dtmf, Sound};
use trunkline_link::counters::ConductorCounter;
use trunkline_sinks::Timestamp;
use trunkline_sinks::catalog::{CatalogHandle, OutboxSinks, Storage};
use trunkline_sinks::cdr::CdrHandle;
use trunkline_sinks::library::{Library, scratch_of};
use trunkline_sinks::verdict::StreamCounts;
use trunkline_sip::message::parse_datagram;
use trunkline_sip::transaction::{Endpoint, Transmit};
use trunkline_sn3::Keys;
use trunkline_sn3::keys::{Rewrapped, rewrap};
use trunkline_sn3::proof::Signer;

use crate::api::events::EventHub;
use crate::api::handle::{ControlHandle, Request};
use crate::api::{ApiContext, ApiServer};
use crate::b2bua::{B2bua, CatalogWrite, Hop, lowest_at};
use crate::callbacks::{Callbacks, Hooks};
use crate::clock::Moment;
use crate::ledger::Told;
use crate::link::{Link, Notice};
use crate::metrics::Metrics;
use crate::recovery::{recount, rescue_pool};
use crate::replay::{News, Replayer};
use crate::resolve::Resolver;
use crate::retention::{self, Retention};
use crate::sounds::{self, Voices};
use crate::stores::{self, Leftovers, Stores};
use crate::trace::Trace;
use crate::transport::{Incoming, TransportCounters, Transports};
use crate::unreachable::{self, Undelivered};

/// SIP messages that may wait for the core.
const INCOMING_MAX: usize = 4096;
/// Looked-up names that may wait.
const LOOKUPS_MAX: usize = 256;
/// Errors of the network that may wait.
const UNDELIVERED_MAX: usize = 256;
/// News of replays that may wait.
const REPLAYS_MAX: usize = 1024;
/// Recounted recordings that may wait.
const RECOUNTS_MAX: usize = 256;
/// After the drain's end: how long BYEs and recordings may take.
const EXIT_PATIENCE: Duration = Duration::from_secs(5);
/// Heartbeat and gauges.
const TICK: Duration = Duration::from_secs(1);

/// After which of the dataplanes' deaths a recording was counted, its number, and its streams.
type Recount = (u64, u64, Vec<StreamCounts>);

/// What parties may hear, in all codecs, or why not.
type Prepared = (Sound, Result<Voices, String>);

/// What was done for the core elsewhere.
struct Answers {
    looked_up: mpsc::Receiver<(u64, Vec<Hop>)>,
    recounted: mpsc::Receiver<Recount>,
    replayed: mpsc::Receiver<News>,
    undelivered: mpsc::Receiver<Undelivered>,
    sounds: mpsc::Receiver<Prepared>,
}

/// Everything the core's task owns.
struct Core {
    config: Arc<Config>,
    b2bua: B2bua,
    transports: Arc<Transports>,
    link: Link,
    catalog: CatalogHandle,
    cdrs: CdrHandle,
    callbacks: Callbacks,
    sinks: OutboxSinks,
    metrics: Arc<Metrics>,
    trace: Trace,
    counters: Arc<TransportCounters>,
    counted: (u64, u64),
    resolver: Resolver,
    lookups: mpsc::Sender<(u64, Vec<Hop>)>,
    replayer: Replayer,
    recounts: mpsc::Sender<Recount>,
    /// Dataplanes that died.
    deaths: u64,
    /// Decrypt what was captured.
    keys: Arc<Keys>,
    /// The catalog was compared with what runs.
    settled: bool,
    /// The lowest number of a recording that this process begins.
    numbers: u64,
}

/// Runs until SIGTERM or SIGINT have drained it.
///
/// # Errors
/// What keeps it from starting: a busy port, an unusable data directory.
pub async fn run(config: Config, mut hooks: Hooks) -> Result<()> {
    let config = Arc::new(config);
    std::fs::create_dir_all(&config.data_dir)
        .with_context(|| format!("data_dir {}", config.data_dir.display()))?;
    let keys = Arc::new(Keys::load(config.recording.key_file.as_deref())?);
    let sinks = hooks.outbox_sinks(&config.sinks);
    let (stores, left) = stores::open(&config, &keys, sinks.clone())?;
    let Stores { cdrs, catalog } = &stores;
    rewrap_keys(&keys, &config.segments_dir());
    let signer = config.recording.signing_key_file.as_deref();
    let signer = signer.map(Signer::load).transpose()?.map(Arc::new);
    if let Some(signer) = &signer {
        info!(public_key = signer.public_key(), "receipts are signed");
    }
    let library = Arc::new(Library {
        catalog: catalog.handle(),
        segments: config.segments_dir(),
        scratch: scratch_of(&config.data_dir),
        keys: Arc::clone(&keys),
        signer: signer.clone(),
    });
    let added = hooks.add_configured(&config.sinks, &library);
    added.map_err(anyhow::Error::msg)?;
    let artifacts = config.data_dir.join("run/artifacts");
    let callbacks = Callbacks::start(hooks, &library, &config.catalog_file(), &artifacts)?;
    let metrics = Arc::new(Metrics::default());
    let (incoming_sender, incoming) = mpsc::channel(INCOMING_MAX);
    let counters = Arc::new(TransportCounters::default());
    let transports =
        Arc::new(Transports::bind(&config.sip, incoming_sender, Arc::clone(&counters)).await?);
    let events = EventHub::new();
    let trace = Trace::new(config.recording.dtmf == Dtmf::Mask);
    let (handle, requests) = ControlHandle::new();
    let api = ApiServer::start(
        config.control.http,
        ApiContext {
            core: handle,
            events: events.clone(),
            library: Arc::clone(&library),
            metrics: Arc::clone(&metrics),
            trace: trace.clone(),
            data_dir: config.data_dir.clone(),
            token: config.control.token.clone(),
        },
    )?;
    info!(http = %api.address(), "API");
    for listen in &config.sip.listen {
        info!(%listen, "SIP");
    }
    let retention = Retention::start(
        catalog.handle(),
        config.segments_dir(),
        retention::rules(&config),
    )?;
    let (lookups, looked_up) = mpsc::channel(LOOKUPS_MAX);
    let (recounts, recounted) = mpsc::channel(RECOUNTS_MAX);
    let sounds = prepare_sounds(&config);
    let (replays, replayed) = mpsc::channel(REPLAYS_MAX);
    let (unreachable, undelivered) = mpsc::channel(UNDELIVERED_MAX);
    let recorders = !config.recorders.is_empty() || config.routes.iter().any(records_out);
    if recorders && !unreachable::listen(&unreachable) {
        info!(
            "no raw sockets (CAP_NET_RAW): that a recorder's media port is closed is not noticed at once"
        );
    }
    let mut b2bua = new_b2bua(&config, &transports, events, &metrics);
    b2bua.sign_with(signer);
    b2bua.ledger.set_left(left);
    let resolver = Resolver::new(&config.sip)?;
    let core = Core {
        b2bua,
        link: Link::new(config.dataplane_socket()),
        catalog: catalog.handle(),
        cdrs: cdrs.handle(),
        callbacks: callbacks.clone(),
        sinks,
        config,
        transports,
        metrics,
        trace,
        counters,
        counted: (0, 0),
        resolver,
        lookups,
        replayer: Replayer::new(library, replays),
        recounts,
        deaths: 0,
        keys,
        settled: false,
        numbers: lowest_at(Timestamp::now()),
    };
    let answers = Answers {
        looked_up,
        recounted,
        replayed,
        undelivered,
        sounds,
    };
    core.serve(incoming, requests, answers).await;
    if !cdrs.handle().flush(EXIT_PATIENCE) || !catalog.handle().flush(EXIT_PATIENCE) {
        warn!("catalog and call detail records could not be written to the end");
    }
    drop(api);
    // What ended by our own exit is told as far as the sinks are quick.
    drop(callbacks);
    drop(retention);
    drop(stores);
    info!("control ends");
    Ok(())
}

/// Whether a route's calls are recorded to others.
fn records_out(route: &Arc<trunkline_config::Route>) -> bool {
    !route.recorders.list.is_empty()
}

fn new_b2bua(
    config: &Arc<Config>,
    transports: &Arc<Transports>,
    events: EventHub,
    metrics: &Arc<Metrics>,
) -> B2bua {
    let settings = trunkline_sip::transaction::Config {
        server: crate::b2bua::headers::SERVER.to_owned(),
        secret: crate::secret::of(&config.data_dir),
        ..trunkline_sip::transaction::Config::default()
    };
    let fits = config.calls_fitting_ports();
    let calls_max = config.sip.calls_max.unwrap_or(fits);
    info!(calls_max, "at most, until the dataplane says what fits");
    let sockets = Arc::clone(transports);
    B2bua::new(
        Arc::clone(config),
        Endpoint::new(settings),
        Box::new(move |transport, destination| sockets.local_to(transport, destination)),
        events,
        Arc::clone(metrics),
        calls_max,
    )
}

/// Wraps data keys anew that an older master key wraps; in the background, for there may be many.
fn rewrap_keys(keys: &Arc<Keys>, segments: &std::path::Path) {
    let (keys, segments) = (Arc::clone(keys), segments.to_path_buf());
    if !keys.encrypts() || !segments.is_dir() {
        return;
    }
    tokio::task::spawn_blocking(move || match rewrap(&segments, &keys) {
        Ok(done) if done == Rewrapped::default() => {}
        Ok(Rewrapped { keys, unknown }) if unknown > 0 => {
            warn!(
                keys,
                unknown, "data keys wrapped anew; no master key in key_file unwraps the others"
            );
        }
        Ok(done) => info!(
            keys = done.keys,
            "data keys wrapped anew: older master keys can leave key_file"
        ),
        Err(error) => warn!(%error, "data keys are not wrapped anew"),
    });
}

/// Encodes what parties may hear, on a thread of its own.
fn prepare_sounds(config: &Config) -> mpsc::Receiver<Prepared> {
    let wanted = sounds::wanted(config);
    let (sender, receiver) = mpsc::channel(wanted.len().max(1));
    if !wanted.is_empty() {
        tokio::task::spawn_blocking(move || {
            for sound in wanted {
                let voices = sounds::prepare(&sound);
                // The core is gone only when the process ends.
                let _ = sender.blocking_send((sound, voices));
            }
        });
    }
    receiver
}

impl Core {
    async fn serve(
        mut self,
        mut incoming: mpsc::Receiver<Incoming>,
        mut requests: mpsc::Receiver<Request>,
        mut answers: Answers,
    ) {
        let mut signals = Signals::new();
        let mut tick = tokio::time::interval(TICK);
        let mut exit_at: Option<Instant> = None;
        let mut ending = false;
        let mut ready = false;
        loop {
            let due = [self.b2bua.poll_timeout(), exit_at]
                .into_iter()
                .flatten()
                .min();
            tokio::select! {
                Some(message) = incoming.recv() => {
                    self.on_incoming(message);
                    // A burst is worked off before anything is sent.
                    for _ in 0..64 {
                        let Ok(message) = incoming.try_recv() else { break };
                        self.on_incoming(message);
                    }
                }
                notice = self.link.next() => self.on_notice(notice).await,
                Some(request) = requests.recv() => {
                    self.b2bua.on_api_request(request, &Moment::now());
                }
                Some((call, hops)) = answers.looked_up.recv() => {
                    self.b2bua.looked_up(call, &hops, &Moment::now());
                }
                Some((death, number, streams)) = answers.recounted.recv() => {
                    // The next dataplane died as well before this one was counted: that count is to come.
                    if death == self.deaths {
                        self.b2bua.recounted(number, &streams, &Moment::now());
                    }
                }
                Some((sound, voices)) = answers.sounds.recv() => {
                    self.b2bua.prepared(&sound, voices, &Moment::now());
                }
                Some(undelivered) = answers.undelivered.recv() => {
                    self.b2bua.on_undelivered(undelivered, &Moment::now());
                }
                Some(news) = answers.replayed.recv() => {
                    self.b2bua.on_replay(news, &Moment::now());
                }
                () = sleep_until(due) => {}
                _ = tick.tick() => self.tick(),
                () = signals.next() => {
                    if exit_at.is_some() {
                        warn!("second signal: stopping at once");
                        return;
                    }
                    self.b2bua.drain();
                    let drain = Duration::from_secs(u64::from(self.config.drain_timeout_s));
                    info!(calls = self.b2bua.calls_active(), "draining");
                    exit_at = Some(Instant::now() + drain);
                }
            }
            let now = Moment::now();
            self.b2bua.handle_timeout(&now);
            self.flush();
            if !ready && self.b2bua.health().dataplane_up {
                ready = true;
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
                info!("ready");
            }
            if let Some(at) = exit_at {
                if self.b2bua.calls_active() == 0 {
                    self.b2bua.end_persistent(&now);
                    self.flush();
                }
                if self.b2bua.is_idle() {
                    return self.linger().await;
                }
                if now.instant >= at {
                    if ending {
                        warn!(calls = self.b2bua.calls_active(), "calls left at the exit");
                        return;
                    }
                    ending = true;
                    self.b2bua.end_all(&now);
                    self.flush();
                    exit_at = Some(now.instant + EXIT_PATIENCE);
                }
            }
        }
    }

    /// The last answers leave before the sockets close.
    async fn linger(&mut self) {
        self.flush();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    fn on_incoming(&mut self, incoming: Incoming) {
        let now = Moment::now();
        let source = match &incoming {
            Incoming::Datagram { path, .. }
            | Incoming::Message { path, .. }
            | Incoming::Rejected { path, .. } => Some(path.source.ip()),
            Incoming::SendFailed { .. } | Incoming::FlowClosed { .. } => None,
        };
        let read = || match &incoming {
            Incoming::Datagram { bytes, .. } => parse_datagram(bytes).ok(),
            Incoming::Message { message, .. } => Some(message.clone()),
            _ => None,
        };
        if source.is_some_and(|source| self.b2bua.ignores(source, read, &now)) {
            return;
        }
        self.trace_incoming(&incoming);
        let endpoint = &mut self.b2bua.endpoint;
        match incoming {
            Incoming::Datagram { path, bytes } => {
                endpoint.handle_datagram(now.instant, path, &bytes);
            }
            Incoming::Message { path, message } => {
                endpoint.handle_message(now.instant, path, message);
            }
            Incoming::Rejected { path, rejected } => {
                endpoint.handle_rejected(now.instant, path, &rejected);
            }
            Incoming::SendFailed { origin } => return self.b2bua.transport_failed(origin, &now),
            Incoming::FlowClosed { flow, remote } => {
                endpoint.flow_closed(now.instant, flow, remote);
            }
        }
        self.b2bua.handle_sip_events(&now);
    }

    fn trace_incoming(&self, incoming: &Incoming) {
        let (path, bytes) = match incoming {
            Incoming::Datagram { path, bytes } => (path, bytes.as_slice().into()),
            Incoming::Message { path, message } => (path, message.to_bytes().into()),
            _ => return,
        };
        self.trace
            .message(path.transport, path.source, path.local, true, bytes);
    }

    fn trace_outgoing(&self, transmit: &Transmit) {
        let (transport, remote) = (transmit.transport, transmit.remote);
        let local = self.transports.local_to(transport, remote);
        let Some((_, local)) = local else { return };
        let bytes = Arc::clone(&transmit.bytes);
        self.trace.message(transport, local, remote, false, bytes);
    }

    fn trace_told(&self, told: &Told) {
        match told {
            Told::TransferStarted(meta, target) => {
                let detail = format!("to {target}");
                self.trace
                    .redirected(&meta.call, "transfer_started", detail);
            }
            Told::BridgeStarted { call, outbound, .. } => {
                let detail = format!("with {outbound}");
                self.trace.redirected(call, "bridged", detail);
            }
            _ => {}
        }
    }

    async fn on_notice(&mut self, notice: Notice) {
        match notice {
            Notice::Attached { new_process } => {
                if let Some(counters) = self.link.counters() {
                    let fits = counters.conductor(ConductorCounter::CallsMax);
                    self.b2bua
                        .set_capacity(u32::try_from(fits).unwrap_or(u32::MAX));
                    self.metrics.dataplane_attached(counters, !new_process);
                }
                if let Some(pool) = self.link.pool() {
                    self.callbacks.pool(pool);
                }
                self.b2bua.attached();
            }
            Notice::Died { pool } => {
                let now = Moment::now();
                error!("the dataplane died");
                self.b2bua.dataplane_died(&now);
                self.flush();
                let segments = self.config.segments_dir();
                let (live, _) = self.b2bua.live();
                let chain = self.config.recording.hash_chain;
                let keys = Keys::clone(&self.keys);
                let rescued = tokio::task::spawn_blocking(move || {
                    rescue_pool(&pool, &segments, &live, chain, keys)
                })
                .await;
                let rescued = rescued.unwrap_or_default();
                self.b2bua.recovered(&rescued, &Moment::now());
                // Reads whole recordings: their calls go on meanwhile.
                let segments = self.config.segments_dir();
                self.deaths += 1;
                let (death, recounts) = (self.deaths, self.recounts.clone());
                let keys = Arc::clone(&self.keys);
                let tell =
                    move |number, streams| recounts.blocking_send((death, number, streams)).is_ok();
                tokio::task::spawn_blocking(move || recount(&segments, rescued, &keys, tell));
            }
            Notice::Events(events) => {
                let now = Moment::now();
                for event in events {
                    if let Some(call) = self.b2bua.call_of(&event) {
                        self.trace.link_event(call, &event, now.mono_ns);
                    }
                    self.b2bua.on_link_event(event, &now);
                }
                self.settle();
            }
            Notice::Overrun => {
                warn!("events of the dataplane were lost; asking for a snapshot");
                self.b2bua.overrun();
            }
            Notice::Beat => {}
        }
    }

    /// Once after the start: what the catalog believes to be running and is not, has ended.
    fn settle(&mut self) {
        if self.settled || !self.b2bua.health().dataplane_up {
            return;
        }
        self.settled = true;
        self.flush();
        let (recordings, calls) = self.b2bua.live();
        let left = Leftovers {
            numbers: self.numbers,
            recordings,
            calls,
            orphans: self.b2bua.ledger.orphans(),
            sinks: self.sinks.clone(),
            keys: Arc::clone(&self.keys),
        };
        let (config, catalog) = (Arc::clone(&self.config), self.catalog.clone());
        let cdrs = self.cdrs.clone();
        tokio::task::spawn_blocking(move || left.settle(&config, &catalog, &cdrs));
    }

    fn flush(&mut self) {
        // Written ahead of what leaves.
        for told in self.b2bua.ledger.take() {
            match told {
                Told::Record(record) => self.cdrs.write(*record),
                other => {
                    self.trace_told(&other);
                    self.callbacks.tell(other);
                }
            }
        }
        while let Some(transmit) = self.b2bua.endpoint.poll_transmit() {
            self.trace_outgoing(&transmit);
            self.transports.send(transmit);
        }
        for (request, command) in self.b2bua.take_commands() {
            self.link.send(request, command);
        }
        for write in self.b2bua.take_writes() {
            match write {
                CatalogWrite::Call(call) => {
                    self.catalog.put_call(call);
                }
                CatalogWrite::Recording(recording) => {
                    let storage = Storage {
                        number: recording.number,
                        last_segment: recording.last_segment,
                        last_page: recording.last_page,
                        extents: recording.extents,
                        bytes: recording.bytes,
                    };
                    self.catalog.put_recording(recording.object, storage);
                }
                CatalogWrite::DiscardUnkept => self.discard_unkept(),
            }
        }
        for order in self.b2bua.take_replays() {
            self.replayer.send(order);
        }
        for lookup in self.b2bua.take_lookups() {
            let (resolver, answers) = (self.resolver.clone(), self.lookups.clone());
            tokio::spawn(async move {
                let hops = resolver.locate(&lookup).await;
                // The core is gone only when the process ends.
                let _ = answers.send((lookup.call, hops)).await;
            });
        }
        self.metrics.set_calls_active(self.b2bua.calls_active());
    }

    /// Off the signalling's thread: it waits for the disk.
    fn discard_unkept(&self) {
        let (catalog, segments) = (self.catalog.clone(), self.config.segments_dir());
        tokio::task::spawn_blocking(move || {
            let _ = catalog.flush(EXIT_PATIENCE);
            let discarded = catalog.discard_unkept();
            if let Err(error) = discarded.and_then(|_| catalog.erase_deleted(&segments)) {
                warn!(%error, "a recording that nobody kept is not erased yet");
            }
        });
    }

    fn tick(&mut self) {
        use std::sync::atomic::Ordering::Relaxed;
        self.link.beat();
        self.b2bua.watch_recordings(&Moment::now());
        self.metrics
            .set_records(self.cdrs.dropped(), self.callbacks.counts());
        self.metrics
            .set_recordings_active(self.b2bua.live().0.len());
        let siprec = self.b2bua.siprec_sessions().into_iter();
        self.metrics
            .set_siprec(siprec.map(|one| (one.server, one.state)));
        let refused = self.counters.not_allowed.load(Relaxed);
        let malformed = {
            let stats = self.b2bua.endpoint.stats();
            stats.malformed_dropped + stats.malformed_answered
        };
        for _ in self.counted.0..refused {
            self.metrics.source_refused();
        }
        for _ in self.counted.1..malformed {
            self.metrics.message_malformed();
        }
        self.counted = (refused, malformed);
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Option<tokio::signal::unix::Signal>,
    interrupt: Option<tokio::signal::unix::Signal>,
}

impl Signals {
    fn new() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        Self {
            terminate: signal(SignalKind::terminate()).ok(),
            interrupt: signal(SignalKind::interrupt()).ok(),
        }
    }

    async fn next(&mut self) {
        async fn one(signal: &mut Option<tokio::signal::unix::Signal>) {
            match signal {
                Some(signal) => {
                    signal.recv().await;
                }
                None => std::future::pending().await,
            }
        }
        tokio::select! {
            () = one(&mut self.terminate) => {}
            () = one(&mut self.interrupt) => {}
        }
    }
}
