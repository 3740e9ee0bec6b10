//! The dataplane's own worker and recorder, as the process runs them: sessions are installed by the
//! conductor's commands, recordings go to segments on disk.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use trunkline_dataplane::recorder::message::CaptureQueues;
use trunkline_dataplane::recorder::{self, RecorderCommand, RecorderNotice, RecorderSettings};
use trunkline_dataplane::worker::Worker;
use trunkline_dataplane::worker::message::{
    Bell, Idle, MediaInstall, PortInstall, PortSocket, SessionInstall, SocketInstall, TapStart,
    WorkerCommand, WorkerConfig, WorkerEvent, WorkerQueues,
};
use trunkline_device::{Config, MmsgDevice, RouteSeat, UringDevice};
use trunkline_link::counters::{CounterReader, CounterWriter, Counters, WorkerCounter};
use trunkline_link::doorbell::Doorbell;
use trunkline_link::message::{CodecId, LegUpdate, MediaKind, Payload, Side, leg_flags};
use trunkline_link::pool::Pool;
use trunkline_sn3::record::ClockTriple;

use crate::network::{pin, real_time};
use crate::relay::{Io, Progress};

/// Slots of a session: RTP and RTCP of both sides.
const SLOTS: u32 = 4;
const PATIENCE: Duration = Duration::from_secs(20);

/// What to relay.
pub struct Work {
    /// For each flow: the caller's RTP and RTCP, the callee's RTP and RTCP.
    pub sockets: Vec<[OwnedFd; 4]>,
    /// Ports keep their sockets.
    pub holds: bool,
    pub far: Vec<SocketAddr>,
    pub source: SocketAddr,
    /// Where segments go, when the flows are recorded.
    pub record_to: Option<PathBuf>,
}

/// A worker that relays, and the recorder beside it.
pub struct Running {
    queues: WorkerQueues,
    reader: CounterReader,
    _counters: Counters,
    worker: Option<std::thread::JoinHandle<()>>,
    recorder: Option<Recorder>,
}

struct Recorder {
    thread: std::thread::JoinHandle<()>,
    commands: Arc<ArrayQueue<RecorderCommand>>,
    notices: Arc<ArrayQueue<RecorderNotice>>,
    directory: PathBuf,
}

impl Running {
    /// Starts the threads, installs the sessions, arms the recordings.
    pub fn start(
        io: Io,
        routes: Option<RouteSeat>,
        core: usize,
        work: Work,
        progress: &Arc<Progress>,
    ) -> Result<Self, String> {
        let text = |error: std::io::Error| error.to_string();
        let flows = work.far.len();
        let (counters, writers) = Counters::create(1).map_err(text)?;
        let reader = counters.reader().map_err(text)?;
        let extents = if work.record_to.is_some() {
            6 * flows
        } else {
            1
        };
        let (_, tokens) = Pool::create(extents).map_err(text)?;
        let capture = CaptureQueues::new(extents);
        let queues = WorkerQueues {
            commands: Arc::new(ArrayQueue::new(4096)),
            events: Arc::new(ArrayQueue::new(16_384)),
            capture: capture.clone(),
            worker_bell: bell()?,
            conductor_bell: bell()?,
            recorder_bell: bell()?,
        };
        let recorder = match &work.record_to {
            None => None,
            Some(directory) => {
                let commands = Arc::new(ArrayQueue::new(4096));
                let notices = Arc::new(ArrayQueue::new(16_384));
                let mut settings = RecorderSettings::new(directory, extents, 1);
                settings.ready_extents = extents;
                let thread = recorder::spawn(recorder::RecorderParts {
                    settings,
                    queues: vec![capture],
                    extents: tokens,
                    commands: commands.clone(),
                    notices: notices.clone(),
                    bell: queues.recorder_bell.clone(),
                    conductor_bell: queues.conductor_bell.clone(),
                    counters: writers.recorder,
                })
                .map_err(text)?;
                Some(Recorder {
                    thread,
                    commands,
                    notices,
                    directory: directory.clone(),
                })
            }
        };
        let slots_max = flows as u32 * SLOTS;
        let writer = writers
            .workers
            .into_iter()
            .next()
            .ok_or("no counter page")?;
        let worker = start_worker(
            io,
            routes,
            core,
            slots_max,
            queues.clone(),
            writer,
            progress,
        )?;
        let mut running = Self {
            queues,
            reader,
            _counters: counters,
            worker: Some(worker),
            recorder,
        };
        running.install(work)?;
        Ok(running)
    }

    /// Packets that left.
    pub fn sent(&self) -> u64 {
        let read = |counter| self.reader.worker(0, counter);
        read(WorkerCounter::RtpPacketsOut).saturating_sub(read(WorkerCounter::SendFailed))
    }

    /// Sends refused, and packets that the recordings lack.
    pub fn failed(&self) -> u64 {
        let read = |counter| self.reader.worker(0, counter);
        read(WorkerCounter::SendFailed)
            + read(WorkerCounter::CaptureDroppedNoExtent)
            + read(WorkerCounter::CaptureDroppedDisk)
    }

    /// Packets recorded.
    pub fn captured(&self) -> u64 {
        self.reader.worker(0, WorkerCounter::CaptureFrames)
    }

    /// Throws away what the worker and the recorder report, as the conductor would take it.
    pub fn drain(&self) {
        while self.queues.events.pop().is_some() {}
        if let Some(recorder) = &self.recorder {
            while recorder.notices.pop().is_some() {}
        }
    }

    fn install(&mut self, work: Work) -> Result<(), String> {
        for (flow, (sockets, far)) in work.sockets.into_iter().zip(&work.far).enumerate() {
            let session = flow as u64 + 1;
            let install = session_install(session, flow as u32 * SLOTS, sockets, work.holds);
            self.command(|request| WorkerCommand::AddSession { request, install })?;
            for (side, address) in [(Side::Caller, work.source), (Side::Callee, *far)] {
                let update = Box::new(leg_update(session, side, address));
                self.command(|request| WorkerCommand::UpdateLeg { request, update })?;
            }
            if let Some(recorder) = &self.recorder {
                let begin = RecorderCommand::Begin {
                    session,
                    recording: session,
                    first_ordinal: 0,
                    prev_segment: 0,
                    prev_page: 0,
                };
                push(&recorder.commands, begin)?;
                self.queues.recorder_bell.ring();
                let start = Box::new(tap_start(session)?);
                self.command(|request| WorkerCommand::RecordingStart { request, start })?;
            }
        }
        Ok(())
    }

    /// Sends a command and waits for its answer.
    fn command(&self, make: impl FnOnce(u64) -> WorkerCommand) -> Result<(), String> {
        push(&self.queues.commands, make(7))?;
        self.queues.worker_bell.ring();
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            match self.queues.events.pop() {
                Some(WorkerEvent::Done { .. }) => return Ok(()),
                Some(WorkerEvent::RecordingState { request: 7, .. }) => return Ok(()),
                Some(WorkerEvent::Failed { reason, .. }) => return Err(format!("{reason:?}")),
                Some(_) => {}
                None => std::thread::sleep(Duration::from_micros(20)),
            }
        }
        Err("the worker does not answer".to_owned())
    }

    /// Ends both threads; the segments are removed.
    pub fn stop(mut self) -> Result<(), String> {
        push(&self.queues.commands, WorkerCommand::Shutdown)?;
        self.queues.worker_bell.ring();
        let joined = self
            .worker
            .take()
            .is_none_or(|thread| thread.join().is_ok());
        if let Some(recorder) = self.recorder.take() {
            push(&recorder.commands, RecorderCommand::Stop)?;
            self.queues.recorder_bell.ring();
            while !recorder.thread.is_finished() {
                while recorder.notices.pop().is_some() {}
                std::thread::sleep(Duration::from_millis(1));
            }
            let _ = std::fs::remove_dir_all(recorder.directory);
        }
        if joined {
            Ok(())
        } else {
            Err("the worker panicked".to_owned())
        }
    }
}

fn start_worker(
    io: Io,
    routes: Option<RouteSeat>,
    core: usize,
    slots_max: u32,
    queues: WorkerQueues,
    counters: CounterWriter,
    progress: &Arc<Progress>,
) -> Result<std::thread::JoinHandle<()>, String> {
    let doorbell = queues.worker_bell.doorbell().as_fd().try_clone_to_owned();
    let doorbell = doorbell.map_err(|error| error.to_string())?;
    let shared = progress.clone();
    let thread = std::thread::spawn(move || {
        pin(core);
        let config = Config {
            slots_max,
            doorbell: Some(doorbell),
            steer: io.steers(),
            routes,
            ..Config::default()
        };
        let settings = WorkerConfig {
            sessions_max: slots_max / SLOTS,
            ..WorkerConfig::new(0, Idle::Park, slots_max)
        };
        shared.ready();
        match io {
            Io::Uring | Io::Steered | Io::Framed => {
                let device = UringDevice::open(&config).expect("io_uring");
                Worker::new(settings, device, queues, counters)
                    .run()
                    .expect("worker");
            }
            Io::Mmsg => {
                let device = MmsgDevice::open(&config).expect("epoll");
                Worker::new(settings, device, queues, counters)
                    .run()
                    .expect("worker");
            }
        }
    });
    progress.wait_ready();
    Ok(thread)
}

/// Lets the recorder run before the generator where they share a core: it has little to do, and
/// a process of its own would find an idle core.
pub fn favour_recorder() {
    for task in std::fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        let thread = task.file_name().to_str().and_then(|id| id.parse().ok());
        if let (true, Some(thread)) = (name.trim() == "recorder", thread) {
            real_time(thread, 11);
        }
    }
}

fn session_install(
    session: u64,
    first: u32,
    sockets: [OwnedFd; 4],
    holds: bool,
) -> Box<SessionInstall> {
    let mut slot = first;
    let mut installs = sockets.map(|socket| {
        slot += 1;
        Some(SocketInstall {
            slot: slot - 1,
            socket: port(socket, holds),
        })
    });
    let mut take = |at: usize| installs[at].take().expect("each socket once");
    let ports = [
        PortInstall {
            rtp: take(0),
            rtcp: take(1),
        },
        PortInstall {
            rtp: take(2),
            rtcp: take(3),
        },
    ];
    let media = vec![MediaInstall {
        kind: MediaKind::Audio,
        ports,
    }];
    Box::new(SessionInstall {
        session,
        media_timeout_ms: 0,
        first_media: 0,
        media,
    })
}

fn port(socket: OwnedFd, holds: bool) -> PortSocket {
    if holds {
        return PortSocket::Bound(socket);
    }
    let address = UdpSocket::from(socket).local_addr().expect("it is bound");
    PortSocket::At(address)
}

fn leg_update(session: u64, side: Side, address: SocketAddr) -> LegUpdate {
    LegUpdate {
        session,
        media: 0,
        side,
        flags: leg_flags::LEARN | leg_flags::MAY_SEND | leg_flags::EXPECT_MEDIA,
        rtp: Some(address),
        rtcp: None,
        signalling: Some(address.ip()),
        payloads: vec![Payload {
            pt: 8,
            to_pt: 8,
            codec: CodecId::Pcma,
            clock_hz: 8000,
        }],
        restore: None,
    }
}

fn tap_start(session: u64) -> Result<TapStart, String> {
    let mono_ns = trunkline_link::monotonic_ns().map_err(|error| error.to_string())?;
    Ok(TapStart {
        session,
        recording: session,
        origin_mono_ns: 0,
        first_ordinal: 0,
        clock: ClockTriple {
            mono_ns,
            utc_ns: 0,
            sync: 0,
        },
        // Of any length: calls do not start all at once, so their extents do not fill all at once.
        open_fact: vec![b' '; (session * 611 % 11_000) as usize],
    })
}

fn bell() -> Result<Arc<Bell>, String> {
    Ok(Arc::new(Bell::new(
        Doorbell::create().map_err(|error| error.to_string())?,
    )))
}

fn push<T>(queue: &ArrayQueue<T>, mut item: T) -> Result<(), String> {
    let start = Instant::now();
    while let Err(back) = queue.push(item) {
        if start.elapsed() > PATIENCE {
            return Err("a queue stays full".to_owned());
        }
        item = back;
        std::thread::yield_now();
    }
    Ok(())
}

/// A directory for segments below `base` that nobody else uses.
pub fn record_directory(base: &Path) -> PathBuf {
    base.join(format!("relay-bench-{}", std::process::id()))
}
