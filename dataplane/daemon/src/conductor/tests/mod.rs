//! The conductor in virtual time: a real link and real sockets, the tests play worker and recorder.

mod asking;
mod claiming;
mod pressure;

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crossbeam::queue::ArrayQueue;
use trunkline_config::PortRange;
use trunkline_link::attach::{ControlLink, Server};
use trunkline_link::counters::Counters;
use trunkline_link::doorbell::Doorbell;
use trunkline_link::message::*;
use trunkline_link::pool::Pool;

use super::*;
use crate::recorder::CaptureQueues;
use crate::worker::message::{PortSocket, SocketInstall, WorkerCommand, WorkerEvent};

const SECOND: u64 = 1_000_000_000;
const START: u64 = 1_000 * SECOND;

/// A conductor, its control, and the far ends of its queues.
struct Rig {
    conductor: Conductor,
    control: Option<ControlLink>,
    queues: WorkerQueues,
    recorder: RecorderSeat,
    now_ns: u64,
    address: IpAddr,
    path: PathBuf,
    /// Sockets that the worker holds: session, slot.
    sockets: Vec<(u64, u32, OwnedFd)>,
    /// Commands as the worker got them, in short.
    seen: Vec<String>,
    /// The worker takes no commands.
    deaf: bool,
    request: u64,
    _directory: tempfile::TempDir,
}

fn bell() -> Arc<Bell> {
    Arc::new(Bell::new(Doorbell::create().unwrap()))
}

impl Rig {
    /// One worker, one interface with this many port pairs, a control attached.
    fn new(pairs: u16) -> Self {
        static HOST: AtomicU8 = AtomicU8::new(21);
        let address = crate::ports::test_host(HOST.fetch_add(1, Ordering::Relaxed)).into();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/dataplane.sock");
        let (counters, writers) = Counters::create(1).unwrap();
        let (pool, extents) = Pool::create(4).unwrap();
        let server = Server::listen(&path, counters.file(), pool.file()).unwrap();
        let capture = CaptureQueues::new(4);
        for extent in extents {
            capture.ready.push(extent).unwrap();
        }
        let queues = WorkerQueues {
            commands: Arc::new(ArrayQueue::new(64)),
            events: Arc::new(ArrayQueue::new(64)),
            capture,
            worker_bell: bell(),
            conductor_bell: bell(),
            recorder_bell: bell(),
        };
        let recorder = RecorderSeat {
            commands: Arc::new(ArrayQueue::new(64)),
            notices: Arc::new(ArrayQueue::new(64)),
            bell: bell(),
        };
        let range = PortRange {
            first: 41_000,
            last: 41_000 + 2 * pairs - 1,
        };
        let conductor = Conductor::new(Parts {
            server,
            pools: vec![PortPool::new(address, range, 2, true)],
            workers: vec![(queues.clone(), 64)],
            recorder: recorder.clone(),
            bell: bell(),
            counters: writers.conductor,
            timing: Timing::default(),
        });
        let mut rig = Self {
            conductor,
            control: None,
            queues,
            recorder,
            now_ns: START,
            address,
            path,
            sockets: Vec::new(),
            seen: Vec::new(),
            deaf: false,
            request: 0,
            _directory: directory,
        };
        rig.attach();
        rig
    }

    fn attach(&mut self) {
        let path = self.path.clone();
        let client = std::thread::spawn(move || ControlLink::connect(&path).unwrap());
        let epoch = self.conductor.server.epoch();
        while self.conductor.server.epoch() == epoch {
            self.conductor.turn(self.now_ns).unwrap();
            std::thread::yield_now();
        }
        self.control = Some(client.join().unwrap());
    }

    fn kill_control(&mut self) {
        self.control = None;
        while self.conductor.server.is_attached() {
            self.turn();
        }
    }

    /// One round of everybody.
    fn turn(&mut self) {
        while self.conductor.turn(self.now_ns).unwrap() {}
        if !self.deaf {
            self.work();
            while self.conductor.turn(self.now_ns).unwrap() {}
        }
    }

    fn pass(&mut self, nanoseconds: u64) {
        self.now_ns += nanoseconds;
        self.turn();
    }

    /// Sends a command; events until the conductor has nothing more to say.
    fn ask(&mut self, command: Command) -> Vec<Event> {
        self.request += 1;
        self.control
            .as_mut()
            .unwrap()
            .send(self.request, &command)
            .unwrap();
        self.turn();
        self.events()
    }

    fn events(&mut self) -> Vec<Event> {
        let control = self.control.as_mut().unwrap();
        std::iter::from_fn(|| control.poll_event().unwrap()).collect()
    }

    /// The worker: confirms everything.
    fn work(&mut self) {
        while let Some(command) = self.queues.commands.pop() {
            match command {
                WorkerCommand::AddSession { request, install } => {
                    self.seen
                        .push(format!("add {} {}", install.session, install.first_media));
                    for port in install.media.into_iter().flat_map(|line| line.ports) {
                        for SocketInstall { slot, socket } in [port.rtp, port.rtcp] {
                            let PortSocket::Bound(socket) = socket else {
                                panic!("{socket:?}: the pool holds sockets")
                            };
                            self.sockets.push((install.session, slot, socket));
                        }
                    }
                    self.report(WorkerEvent::Done { request });
                }
                WorkerCommand::RemoveSession { request, session } => {
                    self.seen.push(format!("remove {session}"));
                    self.report(WorkerEvent::Done { request });
                    for (owner, slot, socket) in std::mem::take(&mut self.sockets) {
                        if owner == session {
                            drop(socket);
                            self.report(WorkerEvent::SlotClosed { slot });
                        } else {
                            self.sockets.push((owner, slot, socket));
                        }
                    }
                }
                WorkerCommand::UpdateLeg { request, .. }
                | WorkerCommand::RecordingFact { request, .. } => {
                    self.report(WorkerEvent::Done { request });
                }
                WorkerCommand::RecordingFinish { request, recording } => {
                    self.seen.push(format!("finish {recording}"));
                    self.report(WorkerEvent::Done { request });
                }
                WorkerCommand::RecordingStart { request, start } => {
                    self.seen.push(format!("start {}", start.recording));
                    self.phase(
                        request,
                        start.session,
                        start.recording,
                        RecordingPhase::Running,
                    );
                }
                WorkerCommand::RecordingStop {
                    request,
                    session,
                    recording,
                } => {
                    self.phase(request, session, recording, RecordingPhase::Stopped);
                }
                WorkerCommand::RecordingPause {
                    request,
                    session,
                    recording,
                } => {
                    self.phase(request, session, recording, RecordingPhase::Paused);
                }
                WorkerCommand::ListSilent { .. } => self.seen.push("silent?".to_owned()),
                other => self.seen.push(format!("{other:?}")),
            }
        }
    }

    fn report(&self, event: WorkerEvent) {
        self.queues.events.push(event).unwrap();
    }

    fn phase(&self, request: u64, session: u64, recording: u64, phase: RecordingPhase) {
        let stream = StreamReceipt {
            side: Side::Callee,
            media: 0,
            ssrc: 5,
            expected: 10,
            written: 10,
            lost: 0,
            dropped: [0; 9],
            duplicates: 0,
            reordered: 0,
            bytes: 1600,
            first_ns: 1,
            last_ns: 2,
            covered_ns: 1,
            first_sequence: 1,
        };
        self.report(WorkerEvent::RecordingState {
            request,
            session,
            recording,
            phase,
            at_mono_ns: 77,
            origin_mono_ns: 70,
            streams: vec![stream],
        });
    }

    fn open(&mut self, session: u64) -> [u16; 2] {
        let events = self.ask(open(session, 1));
        match events.as_slice() {
            [
                Event::SessionOpened {
                    session: opened,
                    ports,
                    ..
                },
            ] if *opened == session => ports[0],
            other => panic!("not opened: {other:?}"),
        }
    }
}

fn open_with(session: u64, ports: Vec<[u16; 2]>) -> Command {
    let media = ports.into_iter().map(|ports| MediaOpen {
        kind: MediaKind::Audio,
        ports,
    });
    Command::SessionOpen(SessionOpen {
        session,
        interface: [0, 0],
        media_timeout_ms: 0,
        beside: 0,
        media: media.collect(),
    })
}

fn open(session: u64, media: usize) -> Command {
    open_with(session, vec![[0, 0]; media])
}

fn start(session: u64, recording: u64) -> Command {
    Command::RecordingStart(RecordingStart {
        session,
        recording,
        origin_mono_ns: 0,
        first_ordinal: 0,
        prev_segment: 0,
        prev_page: 0,
        open_fact: b"{}".to_vec(),
    })
}

fn leg(session: u64, media: u8, rtp: &str) -> Command {
    Command::LegUpdate(LegUpdate {
        session,
        media,
        side: Side::Caller,
        flags: leg_flags::LEARN,
        rtp: Some(rtp.parse().unwrap()),
        rtcp: None,
        signalling: None,
        payloads: Vec::new(),
        restore: None,
    })
}

#[track_caller]
fn assert_failed(events: &[Event], reason: FailReason) {
    assert!(
        matches!(events, [Event::Failed { reason: got, .. }] if *got == reason),
        "{events:?} is not {reason:?}"
    );
}
