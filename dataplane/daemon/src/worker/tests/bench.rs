//! A worker on a bench: both parties, the conductor and the recorder in one place.

use std::fs::File;
use std::net::SocketAddr;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use trunkline_device::{Config, SimDevice, SimNet};
use trunkline_link::counters::{CounterReader, Counters, WorkerCounter};
use trunkline_link::doorbell::Doorbell;
use trunkline_link::message::{
    CodecId, LegUpdate, MediaKind, Payload, RecordingPhase, Side, StreamReceipt, leg_flags,
};
use trunkline_link::pool::{Extent, Pool};
use trunkline_sn3::extent::{ExtentHeader, walk};
use trunkline_sn3::record::ClockTriple;
use trunkline_sn3::{FrameHead, FrameKind};

use crate::recorder::message::{CaptureQueues, Closed};
use crate::worker::Worker;
use crate::worker::message::{
    Bell, Idle, MediaInstall, PortInstall, PortSocket, SessionInstall, SocketInstall, TapStart,
    WorkerCommand, WorkerConfig, WorkerEvent, WorkerQueues,
};

pub(super) const MS: u64 = 1_000_000;
pub(super) const SECOND: u64 = 1_000_000_000;
pub(super) const SESSION: u64 = 41;
pub(super) const RECORDING: u64 = 99;

/// A frame found in an extent, and the extent's ordinal.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) ordinal: u32,
    pub(super) head: FrameHead,
    pub(super) payload: Vec<u8>,
}

pub(super) struct Bench {
    pub(super) worker: Worker<SimDevice>,
    pub(super) net: SimNet,
    pub(super) queues: WorkerQueues,
    pub(super) counters: CounterReader,
    pub(super) _pages: Counters,
    pub(super) now_ns: u64,
    pub(super) request: u64,
    pub(super) frames: Vec<Found>,
    pub(super) finished: Vec<u64>,
    /// Extents that came back, to be made ready again.
    pub(super) idle: Vec<Extent>,
}

pub(super) fn bell() -> Arc<Bell> {
    Arc::new(Bell::new(Doorbell::create().unwrap()))
}

pub(super) fn socket(slot: u32) -> SocketInstall {
    SocketInstall {
        slot,
        socket: PortSocket::Bound(File::open("/dev/null").unwrap().into()),
    }
}

pub(super) fn party(side: Side) -> SocketAddr {
    match side {
        Side::Caller => "192.0.2.1:5004".parse().unwrap(),
        Side::Callee => "198.51.100.1:6004".parse().unwrap(),
    }
}

pub(super) fn rtp(ssrc: u32, sequence: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80, 0];
    bytes.extend(sequence.to_be_bytes());
    bytes.extend((u32::from(sequence) * 160).to_be_bytes());
    bytes.extend(ssrc.to_be_bytes());
    bytes.extend(payload);
    bytes
}

pub(super) fn install(first_slot: u32) -> SessionInstall {
    let port = |slot| PortInstall {
        rtp: socket(slot),
        rtcp: socket(slot + 1),
    };
    let media = MediaInstall {
        kind: MediaKind::Audio,
        ports: [port(first_slot), port(first_slot + 2)],
    };
    SessionInstall {
        session: SESSION,
        media_timeout_ms: 0,
        first_media: 0,
        media: vec![media],
    }
}

pub(super) fn leg(side: Side) -> LegUpdate {
    LegUpdate {
        session: SESSION,
        media: 0,
        side,
        flags: leg_flags::LEARN | leg_flags::MAY_SEND | leg_flags::EXPECT_MEDIA,
        rtp: Some(party(side)),
        rtcp: None,
        signalling: Some(party(side).ip()),
        payloads: vec![Payload {
            pt: 0,
            to_pt: 0,
            codec: CodecId::Pcmu,
            clock_hz: 8000,
        }],
        restore: None,
    }
}

impl Bench {
    pub(super) fn new(extents: usize, events: usize) -> Self {
        let config = Config {
            slots_max: 16,
            ..Config::default()
        };
        let (device, net) = SimDevice::new(&config).unwrap();
        let (_pages, mut writers) = Counters::create(1).unwrap();
        let counters = _pages.reader().unwrap();
        let queues = WorkerQueues {
            commands: Arc::new(ArrayQueue::new(64)),
            events: Arc::new(ArrayQueue::new(events)),
            capture: CaptureQueues::new(64),
            worker_bell: bell(),
            conductor_bell: bell(),
            recorder_bell: bell(),
        };
        let idle = if extents == 0 {
            Vec::new()
        } else {
            Pool::create(extents).unwrap().1
        };
        let worker = Worker::new(
            WorkerConfig::new(0, Idle::Park, 16),
            device,
            queues.clone(),
            writers.workers.remove(0),
        );
        let mut bench = Self {
            worker,
            net,
            queues,
            counters,
            _pages,
            now_ns: 1_000 * SECOND,
            request: 0,
            frames: Vec::new(),
            finished: Vec::new(),
            idle,
        };
        bench.refill();
        bench
    }

    /// A call in progress with a recording.
    pub(super) fn recorded(extents: usize) -> Self {
        let mut bench = Self::new(extents, 1024);
        bench.set_up();
        bench.start_recording();
        bench
    }

    pub(super) fn set_up(&mut self) {
        let install = Box::new(install(0));
        assert!(matches!(
            self.ask(|request| WorkerCommand::AddSession { request, install }),
            WorkerEvent::Done { .. }
        ));
        for side in Side::BOTH {
            self.update(leg(side));
        }
    }

    pub(super) fn update(&mut self, update: LegUpdate) {
        let update = Box::new(update);
        let answer = self.ask(|request| WorkerCommand::UpdateLeg { request, update });
        assert!(matches!(answer, WorkerEvent::Done { .. }), "{answer:?}");
    }

    pub(super) fn start_recording(&mut self) {
        let start = Box::new(TapStart {
            session: SESSION,
            recording: RECORDING,
            origin_mono_ns: 0,
            first_ordinal: 0,
            clock: ClockTriple {
                mono_ns: self.now_ns - SECOND,
                utc_ns: 5 * SECOND,
                sync: 1,
            },
            open_fact: b"{\"recording_id\":\"r\"}".to_vec(),
        });
        let answer = self.ask(|request| WorkerCommand::RecordingStart { request, start });
        assert_eq!(state(&answer).0, RecordingPhase::Running);
    }

    /// Sends a command and gives its answer.
    pub(super) fn ask(&mut self, command: impl FnOnce(u64) -> WorkerCommand) -> WorkerEvent {
        self.request += 1;
        self.queues.commands.push(command(self.request)).unwrap();
        self.cycle();
        let wanted = self.request;
        self.events()
            .into_iter()
            .find(|event| match event {
                WorkerEvent::Done { request }
                | WorkerEvent::Failed { request, .. }
                | WorkerEvent::RecordingState { request, .. } => *request == wanted,
                _ => false,
            })
            .expect("an answer")
    }

    pub(super) fn events(&mut self) -> Vec<WorkerEvent> {
        std::iter::from_fn(|| self.queues.events.pop()).collect()
    }

    pub(super) fn cycle(&mut self) {
        self.worker.cycle(self.now_ns);
        self.collect();
    }

    /// Plays the recorder: reads what was handed over.
    pub(super) fn collect(&mut self) {
        while let Some(message) = self.queues.capture.closed.pop() {
            match message {
                Closed::Extent(extent) => {
                    self.read(&extent);
                    self.idle.push(extent);
                }
                Closed::Finish { recording, .. } => self.finished.push(recording),
            }
        }
    }

    pub(super) fn read(&mut self, extent: &Extent) {
        let header = ExtentHeader::decode(extent.bytes()).unwrap();
        let meta = extent.meta();
        assert_eq!(
            (header.recording, header.ordinal),
            (meta.recording, meta.ordinal)
        );
        assert_eq!(header.recording, RECORDING);
        let used = extent.published() as u32;
        assert_eq!(
            trunkline_sn3::extent::good_until(extent.bytes(), &header),
            used
        );
        self.frames
            .extend(walk(extent.bytes(), used).map(|frame| Found {
                ordinal: header.ordinal,
                head: frame.head,
                payload: frame.payload.to_vec(),
            }));
    }

    /// Makes all idle extents ready.
    pub(super) fn refill(&mut self) {
        for extent in self.idle.drain(..) {
            self.queues.capture.ready.push(extent).unwrap();
        }
    }

    /// Each side says `count` packets of `length` bytes, 20 ms apart.
    pub(super) fn talk(&mut self, first: u16, count: u16, length: usize) {
        for sequence in first..first + count {
            for side in Side::BOTH {
                let payload = vec![sequence as u8; length];
                let bytes = rtp(1 + side as u32, sequence, &payload);
                self.net.inject(2 * side as u32, party(side), &bytes);
            }
            self.cycle();
            self.now_ns += 20 * MS;
        }
    }

    /// Stops and finishes the recording; gives the final receipts.
    pub(super) fn finish(&mut self) -> Vec<StreamReceipt> {
        let answer = self.ask(|request| WorkerCommand::RecordingStop {
            request,
            session: SESSION,
            recording: RECORDING,
        });
        let (phase, streams) = state(&answer);
        assert_eq!(phase, RecordingPhase::Stopped);
        let recording = RECORDING;
        let done = self.ask(|request| WorkerCommand::RecordingFinish { request, recording });
        assert!(matches!(done, WorkerEvent::Done { .. }));
        streams
    }

    /// A counter once the worker has come to rest.
    pub(super) fn counter(&mut self, counter: WorkerCounter) -> u64 {
        self.cycle();
        self.counters.worker(0, counter)
    }

    pub(super) fn packets(&self) -> Vec<&Found> {
        self.frames
            .iter()
            .filter(|frame| frame.head.kind == FrameKind::Rtp)
            .collect()
    }
}

pub(super) fn state(event: &WorkerEvent) -> (RecordingPhase, Vec<StreamReceipt>) {
    match event {
        WorkerEvent::RecordingState { phase, streams, .. } => {
            for stream in streams {
                let dropped: u64 = stream.dropped.iter().sum();
                assert_eq!(
                    stream.expected,
                    stream.written + stream.lost + dropped,
                    "{stream:?}"
                );
            }
            (*phase, streams.clone())
        }
        other => panic!("{other:?}"),
    }
}
