//! Every thread, core, queue and ring of the dataplane process, in one place.
//!
//! ```text
//!                 command ring, event ring (dataplane/link, shared memory)
//!   control ================================================== conductor (main thread, cold)
//!                                                               |  ^            |      ^
//!        commands 4,096 (ArrayQueue, worker's bell) ------------+  |            |      |
//!        events  16,384 (ArrayQueue, conductor's bell) ------------+            |      |
//!                            |  ^                                               |      |
//!                            v  |                                               |      |
//!   RTP peers ---- device -- worker-0 .. worker-N (pinned, hot)                 |      |
//!                            |  ^                                               |      |
//!        closed  2 x extents |  | ready extents                                 |      |
//!         (recorder's bell)  v  |                                               |      |
//!                          recorder (cold) <-- commands 4,096 (recorder's bell)-+      |
//!                                          --- notices 16,384 (conductor's bell) ------+
//!
//!   worker's device --- paths to watch 4,096 (its own eventfd) --> routes (cold) <-- the kernel's
//!                   <-- next hops 4,096 -------------------------                    notifications
//! ```
//! Each queue has one producer and one consumer. Counter pages (dataplane/link) have one writer each.
//! A thread that panics takes the process down: control recovers what was captured, and `trunkline
//! up` or systemd start it again.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow, bail};
use crossbeam::queue::ArrayQueue;
use nix::fcntl::{Flock, FlockArg};
use trunkline_config::{Config, Cores, Dtmf, Record, Route, Writer};
use trunkline_device::{Backend, Config as DeviceConfig, Opened, RouteSeat, Routes, UringDevice};
use trunkline_link::attach::Server;
use trunkline_link::counters::{ConductorCounter, CounterWriter, Counters};
use trunkline_link::doorbell::Doorbell;
use trunkline_link::limits::WORKERS_MAX;
use trunkline_link::pool::Pool;
use trunkline_link::shared_map::duplicate;
use trunkline_sn3::Keys;
use trunkline_sn3::file::Way;

use crate::capacity::{
    Capacity, DiskRate, FILES_RESERVED, PortSockets, memory_available, raise_file_limit,
};
use crate::conductor::{Conductor, Parts, RecorderSeat, StopSignal, Timing};
use crate::ports::{PortPool, keeps_out_of};
use crate::recorder::{self, CaptureQueues, RecorderParts, RecorderSettings};
use crate::worker::Worker;
use crate::worker::message::{Bell, Idle, WorkerConfig, WorkerQueues};

/// Commands on their way to one worker.
const WORKER_COMMANDS: usize = 4_096;
/// Reports on their way from one worker.
const WORKER_EVENTS: usize = 16_384;
/// Commands on their way to the recorder.
const RECORDER_COMMANDS: usize = 4_096;
/// Notices on their way from the recorder.
const RECORDER_NOTICES: usize = 16_384;
/// Port pairs bound ahead on each interface.
const WARM_PAIRS: usize = 64;

/// Runs the dataplane until it is asked to stop.
///
/// # Errors
/// What keeps it from starting, or from going on.
pub fn run(config: &Config, timing: Timing, stop: &mut impl StopSignal) -> Result<()> {
    let files = raise_file_limit().context("cannot raise the limit of open files")?;
    let cores = choose_cores(&config.dataplane.cores)?;
    check_addresses(config)?;
    let _lock = lock_data_dir(&config.data_dir)?;
    leave_cores_to_workers(&cores);
    let (_routes, mut route_seats) = start_routes(config.dataplane.backend, cores.len());
    let memory = memory_available();
    let fits =
        |sockets: PortSockets| Capacity::of(config, cores.len() as u64, sockets, files, memory);
    // What the workers' devices will say is known once they run.
    let hoped = hope(config, !route_seats.is_empty());
    let mut capacity = fits(hoped);

    let (counters, writers) = Counters::create(cores.len()).context("counter pages")?;
    writers.conductor.set(ConductorCounter::FilesMax, files);
    let (pool, extents) = Pool::create(capacity.extents as usize).context("extent pool")?;
    let socket = config.dataplane_socket();

    let conductor_bell = bell()?;
    let recorder_bell = bell()?;
    let recorder = RecorderSeat {
        commands: Arc::new(ArrayQueue::new(RECORDER_COMMANDS)),
        notices: Arc::new(ArrayQueue::new(RECORDER_NOTICES)),
        bell: recorder_bell.clone(),
    };
    let mut seats = Vec::new();
    for _ in &cores {
        seats.push(WorkerQueues {
            commands: Arc::new(ArrayQueue::new(WORKER_COMMANDS)),
            events: Arc::new(ArrayQueue::new(WORKER_EVENTS)),
            capture: CaptureQueues::new(pool.extents()),
            worker_bell: bell()?,
            conductor_bell: conductor_bell.clone(),
            recorder_bell: recorder_bell.clone(),
        });
    }
    let mut settings = RecorderSettings::new(&config.data_dir, pool.extents(), cores.len());
    settings.way = match config.recording.writer {
        Writer::Extent => Way::Direct,
        Writer::Mmap => Way::Mapped,
    };
    settings.segment_bytes = config.recording.segment_bytes;
    settings.hash_chain = config.recording.hash_chain;
    settings.keys = Keys::load(config.recording.key_file.as_deref())?;
    // Calls that began together close their extents together: one each has to be ready.
    settings.ready_extents = (pool.extents() / (2 * cores.len())).max(1);
    let recorder_thread = recorder::spawn(RecorderParts {
        settings,
        queues: seats.iter().map(|seat| seat.capture.clone()).collect(),
        extents,
        commands: recorder.commands.clone(),
        notices: recorder.notices.clone(),
        bell: recorder_bell,
        conductor_bell: conductor_bell.clone(),
        counters: writers.recorder,
    })
    .context("recorder")?;
    let mut worker_threads = Vec::new();
    let mut without_sockets = hoped == PortSockets::Shared;
    for (number, (core, counters)) in cores.iter().zip(writers.workers).enumerate() {
        let plan = WorkerPlan {
            number: number as u16,
            core: *core,
            slots: capacity.slots_a_worker,
            sockets_max: u32::try_from(files.saturating_sub(FILES_RESERVED)).unwrap_or(u32::MAX),
            backend: config.dataplane.backend,
            idle: config.dataplane.idle,
            mask_events: config.recording.dtmf == Dtmf::Mask,
        };
        let routes = route_seats.pop();
        let (thread, needs_no_sockets) =
            start_worker(plan, routes, seats[number].clone(), counters)?;
        without_sockets &= needs_no_sockets;
        worker_threads.push(thread);
    }
    if hoped == PortSockets::Shared && !without_sockets {
        capacity = fits(PortSockets::InRing);
    }
    check_calls_max(config, &capacity)?;
    writers
        .conductor
        .set(ConductorCounter::CallsMax, capacity.calls());

    // Listening comes last: who can attach finds everything running.
    let server = Server::listen(&socket, counters.file(), pool.file())
        .with_context(|| format!("cannot listen on {}", socket.display()))?;
    let pools = config.interfaces.iter().map(|interface| {
        let (address, ports) = (interface.address, interface.ports);
        PortPool::new(address, ports, WARM_PAIRS, !without_sockets)
    });
    let conductor = Conductor::new(Parts {
        server,
        pools: pools.collect(),
        workers: seats
            .into_iter()
            .map(|seat| (seat, capacity.slots_a_worker))
            .collect(),
        recorder,
        bell: conductor_bell,
        counters: writers.conductor,
        timing,
    });
    capacity.log(without_sockets);
    try_disk(config);
    tracing::info!(socket = %socket.display(), workers = cores.len(), "ready");
    // Without systemd there is nobody to notify.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let recorder_ended = || recorder_thread.is_finished();
    conductor.run(stop, recorder_ended).context("conductor")?;
    for thread in worker_threads.into_iter().chain([recorder_thread]) {
        // Those that did not end in time are left to the end of the process.
        if thread.is_finished() {
            thread.join().map_err(|_| anyhow!("a thread panicked"))?;
        }
    }
    Ok(())
}

/// What holds the ports' datagrams if kernel and rights allow it.
fn hope(config: &Config, frames: bool) -> PortSockets {
    let uring = config.dataplane.backend == trunkline_config::Backend::Uring;
    if !uring || !UringDevice::is_allowed() {
        return PortSockets::Twice;
    }
    let given_away = config.interfaces.iter().find(|interface| {
        let kept = keeps_out_of(interface.ports);
        !kept.unwrap_or(false)
    });
    match given_away {
        Some(interface) => {
            tracing::warn!(
                interface = interface.name,
                ports = %interface.ports,
                "the kernel gives these ports to other programs: a socket holds each; reserve them by net.ipv4.ip_local_reserved_ports to do without"
            );
            PortSockets::InRing
        }
        None if frames => PortSockets::Shared,
        None => PortSockets::InRing,
    }
}

/// More calls than fit would be refused one by one: better not to start.
fn check_calls_max(config: &Config, capacity: &Capacity) -> Result<()> {
    let Some(limit) = config.sip.calls_max else {
        return Ok(());
    };
    if u64::from(limit) > capacity.calls() {
        bail!("sip.calls_max = {limit} does not fit: {}", capacity.room());
    }
    let records = |route: &Arc<Route>| route.record != Record::No;
    if config.routes.iter().any(records) && u64::from(limit) > capacity.calls_by_memory {
        bail!(
            "sip.calls_max = {limit} does not fit: memory has room for {} recorded calls",
            capacity.calls_by_memory
        );
    }
    Ok(())
}

/// Says what the disk takes, without keeping anybody waiting. It may be busy just now, so that nothing is
/// refused for it.
fn try_disk(config: &Config) {
    let (data_dir, calls_max) = (config.data_dir.clone(), config.sip.calls_max);
    let tried = std::thread::Builder::new().name("disk-rate".into());
    let spawned = tried.spawn(move || match DiskRate::measure(&data_dir) {
        Ok(rate) => rate.log(calls_max),
        Err(error) => tracing::warn!(%error, "the disk's rate is not known"),
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, "the disk's rate is not known");
    }
}

/// An address that is not this machine's would refuse every call: better not to start.
fn check_addresses(config: &Config) -> Result<()> {
    for interface in &config.interfaces {
        std::net::UdpSocket::bind((interface.address, 0)).with_context(|| {
            format!(
                "interface {}: cannot use address {}",
                interface.name, interface.address
            )
        })?;
    }
    Ok(())
}

/// The cores of the workers; `None` = not pinned.
fn choose_cores(cores: &Cores) -> Result<Vec<Option<usize>>> {
    let chosen: Vec<_> = match cores {
        Cores::Pinned(cores) => cores.iter().map(|core| Some(usize::from(*core))).collect(),
        Cores::Auto => {
            let all = core_affinity::get_core_ids().unwrap_or_default();
            let mut ids: Vec<_> = all.into_iter().map(|core| core.id).collect();
            ids.sort_unstable();
            // The first core is left to interrupts and the cold threads, where there is another.
            if ids.len() > 1 {
                ids.remove(0);
            }
            ids.truncate(WORKERS_MAX);
            if ids.is_empty() {
                vec![None]
            } else {
                ids.into_iter().map(Some).collect()
            }
        }
    };
    if chosen.is_empty() || chosen.len() > WORKERS_MAX {
        bail!("cores: between 1 and {WORKERS_MAX} workers are possible");
    }
    Ok(chosen)
}

/// One dataplane for each data_dir.
fn lock_data_dir(data_dir: &Path) -> Result<Flock<File>> {
    let directory = data_dir.join("run");
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let path = directory.join("dataplane.lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    // A killed predecessor may take a moment to be gone.
    let mut file = file;
    for _ in 0..100 {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((unlocked, _)) => file = unlocked,
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    bail!("another dataplane uses {}", data_dir.display())
}

fn bell() -> Result<Arc<Bell>> {
    Ok(Arc::new(Bell::new(Doorbell::create().context("eventfd")?)))
}

/// Takes the process down when its thread panics.
struct AbortOnPanic(String);

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(thread = self.0, "panicked; the dataplane ends");
            std::process::abort();
        }
    }
}

/// What one worker is started with.
#[derive(Debug, Clone, Copy)]
struct WorkerPlan {
    number: u16,
    core: Option<usize>,
    slots: u32,
    sockets_max: u32,
    backend: trunkline_config::Backend,
    idle: trunkline_config::Idle,
    mask_events: bool,
}

/// Starts the thread that tells the workers' devices how to send whole frames; none where kernel
/// or rights do not allow frames, or the device sends none.
fn start_routes(
    backend: trunkline_config::Backend,
    workers: usize,
) -> (Option<Routes>, Vec<RouteSeat>) {
    if backend != trunkline_config::Backend::Uring {
        return (None, Vec::new());
    }
    let log = |allowed: Result<(), &str>| match allowed {
        Ok(()) => tracing::info!("sends by packet socket where the route is plain Ethernet"),
        Err(reason) => tracing::info!(reason, "sends by each port's socket"),
    };
    match Routes::start(workers, log) {
        Ok((routes, seats)) => (Some(routes), seats),
        Err(error) => {
            log(Err(&format!(
                "{error}; frames take CAP_NET_RAW and CAP_NET_ADMIN"
            )));
            (None, Vec::new())
        }
    }
}

/// Starts a worker's thread: pinned first, so that its memory is its core's, then the device, which
/// belongs to the thread that opens it. Returns once it runs, and whether ports need no sockets there.
fn start_worker(
    plan: WorkerPlan,
    routes: Option<RouteSeat>,
    queues: WorkerQueues,
    counters: CounterWriter,
) -> Result<(JoinHandle<()>, bool)> {
    let (started, starts) = std::sync::mpsc::channel();
    let name = format!("worker-{}", plan.number);
    let thread = std::thread::Builder::new()
        .name(name.clone())
        .spawn(move || {
            let _guard = AbortOnPanic(name);
            match open_worker(plan, routes, queues, counters) {
                Ok((worker, needs_no_sockets)) => {
                    let _ = started.send(Ok(needs_no_sockets));
                    if let Err(error) = worker() {
                        tracing::error!(%error, "a worker cannot go on; the dataplane ends");
                        std::process::abort();
                    }
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                }
            }
        })
        .context("cannot start a thread")?;
    let needs_no_sockets = starts
        .recv()
        .map_err(|_| anyhow!("a worker ended while starting"))??;
    Ok((thread, needs_no_sockets))
}

type RunWorker = Box<dyn FnOnce() -> std::io::Result<()>>;

/// Pins the calling thread, opens its device, and gives back the worker, ready to run, and whether
/// ports need no sockets there.
fn open_worker(
    plan: WorkerPlan,
    routes: Option<RouteSeat>,
    queues: WorkerQueues,
    counters: CounterWriter,
) -> Result<(RunWorker, bool)> {
    if let Some(core) = plan.core {
        let known = core < nix::sched::CpuSet::count();
        if !known || !core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
            bail!("cores: there is no core {core} for a worker");
        }
    }
    let doorbell = duplicate(queues.worker_bell.doorbell()).context("eventfd")?;
    let device = DeviceConfig {
        slots_max: plan.slots,
        sockets_max: plan.sockets_max,
        doorbell: Some(doorbell),
        routes,
        ..Default::default()
    };
    let idle = match plan.idle {
        trunkline_config::Idle::Park => Idle::Park,
        trunkline_config::Idle::Spin => Idle::Spin,
    };
    let worker = WorkerConfig {
        mask_events: plan.mask_events,
        ..WorkerConfig::new(plan.number, idle, plan.slots)
    };
    let backend = match plan.backend {
        trunkline_config::Backend::Uring => Backend::Uring,
        trunkline_config::Backend::Mmsg => Backend::Mmsg,
    };
    let opened = trunkline_device::open(backend, &device)
        .with_context(|| format!("worker {}", plan.number))?;
    let (name, reason) = match &opened {
        Opened::Uring(device) => match device.steered() {
            Ok(()) => ("uring", "one receive socket, steered by BPF".to_owned()),
            Err(reason) => ("uring", format!("a socket a port: {reason}")),
        },
        Opened::Mmsg { reason: None, .. } => ("mmsg", "configured".to_owned()),
        Opened::Mmsg {
            reason: Some(reason),
            ..
        } => ("mmsg", reason.clone()),
    };
    tracing::info!(worker = plan.number, core = ?plan.core, backend = name, reason, "worker");
    Ok(match opened {
        Opened::Uring(device) => {
            let needs_no_sockets = device.needs_no_sockets();
            let worker = Worker::new(worker, device, queues, counters);
            (Box::new(move || worker.run()), needs_no_sockets)
        }
        Opened::Mmsg { device, .. } => {
            let worker = Worker::new(worker, device, queues, counters);
            (Box::new(move || worker.run()), false)
        }
    })
}

/// Keeps the cold threads (this one and those it starts) off the workers' cores, where that leaves
/// any.
fn leave_cores_to_workers(workers: &[Option<usize>]) {
    let mut cold = nix::sched::CpuSet::new();
    let mut any = false;
    for core in core_affinity::get_core_ids().unwrap_or_default() {
        if !workers.contains(&Some(core.id)) {
            any |= cold.set(core.id).is_ok();
        }
    }
    if any {
        let this_thread = nix::unistd::Pid::from_raw(0);
        if let Err(error) = nix::sched::sched_setaffinity(this_thread, &cold) {
            tracing::warn!(%error, "cold threads share the workers' cores");
        }
    }
}
