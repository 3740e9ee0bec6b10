//! The dataplane's own worker on a device of memory: packets are made between its duty cycles, which
//! alone are timed, and what it sends is thrown away.
#![allow(dead_code, reason = "each bench uses a part")]

use std::cell::RefCell;
use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use trunkline_dataplane::recorder::message::{CaptureQueues, Closed};
use trunkline_dataplane::worker::Worker;
use trunkline_dataplane::worker::message::{
    Bell, Idle, MediaInstall, PortInstall, PortSocket, SessionInstall, SocketInstall, TapStart,
    WorkerCommand, WorkerConfig, WorkerQueues,
};
use trunkline_device::{
    Buffer, Counters as DeviceCounters, Device, DeviceError, Pool as BufferPool, Received,
    SlotEvent, Wake,
};
use trunkline_link::counters::{CounterReader, Counters, WorkerCounter};
use trunkline_link::doorbell::Doorbell;
use trunkline_link::message::{CodecId, LegUpdate, MediaKind, Payload, Side, leg_flags};
use trunkline_link::pool::Pool;
use trunkline_sn3::record::ClockTriple;

const BATCH: usize = 64;
const PACKET_BYTES: usize = 172;
const SLOTS: u32 = 4;
const PACKET_NS: u64 = 20_000_000;

/// Makes each flow's next packet when asked, and throws away what is sent.
struct Memory {
    pool: BufferPool,
    ready: Vec<Received>,
    sent: u64,
    flows: u32,
    /// Flows of one session.
    ways: u32,
    next: u32,
    turn: u16,
}

impl Memory {
    fn new(flows: u32, ways: u32) -> Self {
        Self {
            pool: BufferPool::new(2 * BATCH as u32).expect("buffers"),
            ready: Vec::with_capacity(BATCH),
            sent: 0,
            flows,
            ways,
            next: 0,
            turn: 0,
        }
    }

    /// The next batch, before the clock runs.
    fn prepare(&mut self) {
        for _ in 0..BATCH {
            let Some(mut buffer) = self.pool.take() else {
                break;
            };
            let flow = self.next;
            buffer.set_len(PACKET_BYTES);
            buffer[..2].copy_from_slice(&[0x80, 8]);
            buffer[2..4].copy_from_slice(&self.turn.to_be_bytes());
            buffer[4..8].copy_from_slice(&(u32::from(self.turn) * 160).to_be_bytes());
            buffer[8..12].copy_from_slice(&(flow + 1).to_be_bytes());
            buffer[12..].fill(0xd5);
            let side = Side::BOTH[(flow % self.ways) as usize];
            self.ready.push(Received {
                slot: flow / self.ways * SLOTS + 2 * side as u32,
                truncated: false,
                source: party(side),
                buffer,
            });
            self.next += 1;
            if self.next == self.flows {
                self.next = 0;
                self.turn = self.turn.wrapping_add(1);
            }
        }
    }
}

/// The worker's and the bench's hold of one memory.
#[derive(Clone)]
struct Shared(Rc<RefCell<Memory>>);

impl Device for Shared {
    fn install(&mut self, _: u32, _: OwnedFd) -> Result<(), DeviceError> {
        Ok(())
    }

    fn remove(&mut self, _: u32) -> Result<(), DeviceError> {
        Ok(())
    }

    fn pause(&mut self, _: u32) -> bool {
        false
    }

    fn resume(&mut self, _: u32) {}

    fn slot_event(&mut self) -> Option<SlotEvent> {
        None
    }

    fn receive(&mut self, batch: &mut Vec<Received>) -> usize {
        batch.append(&mut self.0.borrow_mut().ready);
        batch.len()
    }

    fn send(&mut self, _: u32, _: &SocketAddr, buffer: Buffer) {
        let mut memory = self.0.borrow_mut();
        memory.sent += 1;
        memory.pool.give(buffer);
    }

    fn send_copy(&mut self, _: u32, _: &SocketAddr, _: &[u8]) {}

    fn recycle(&mut self, buffer: Buffer) {
        self.0.borrow_mut().pool.give(buffer);
    }

    fn flush(&mut self) {}

    fn park(&mut self, _: u64) -> Wake {
        Wake::default()
    }

    fn counters(&self) -> DeviceCounters {
        DeviceCounters {
            sent: self.0.borrow().sent,
            ..DeviceCounters::default()
        }
    }

    fn name(&self) -> &'static str {
        "memory"
    }
}

fn party(side: Side) -> SocketAddr {
    match side {
        Side::Caller => SocketAddr::from(([192, 0, 2, 1], 5004)),
        Side::Callee => SocketAddr::from(([198, 51, 100, 1], 6004)),
    }
}

/// What is recorded of a relay's packets.
pub enum Recording {
    /// Nothing.
    Off,
    /// All, into memory that is taken up again at once.
    Memory,
    /// All, for a recorder at the other end of these queues.
    Recorder(CaptureQueues, Arc<Bell>),
}

/// A worker with its flows, and whoever stands in for the threads around it.
pub struct Relay {
    worker: Worker<Shared>,
    memory: Shared,
    queues: WorkerQueues,
    reader: CounterReader,
    _pages: Counters,
    now_ns: u64,
    cycles_ns: u64,
    /// Somebody else takes what is captured.
    recorder: bool,
}

impl Relay {
    /// A worker with `sessions`, of which `ways` sides (1 or 2) send.
    pub fn new(sessions: u32, ways: u32, recording: Recording) -> Result<Self, String> {
        let text = |error: std::io::Error| error.to_string();
        let (pages, mut writers) = Counters::create(1).map_err(text)?;
        let reader = pages.reader().map_err(text)?;
        let bell = || Doorbell::create().map(|bell| Arc::new(Bell::new(bell)));
        let records = !matches!(recording, Recording::Off);
        let recorder = matches!(recording, Recording::Recorder(..));
        let (capture, recorder_bell) = match recording {
            Recording::Recorder(capture, bell) => (capture, bell),
            Recording::Off => (CaptureQueues::new(1), bell().map_err(text)?),
            Recording::Memory => {
                let extents = 3 * sessions as usize;
                let capture = CaptureQueues::new(extents);
                for mut extent in Pool::create(extents).map_err(text)?.1 {
                    extent.prepare();
                    let _ = capture.ready.push(extent);
                }
                (capture, bell().map_err(text)?)
            }
        };
        let queues = WorkerQueues {
            commands: Arc::new(ArrayQueue::new(64)),
            events: Arc::new(ArrayQueue::new(65_536)),
            capture,
            worker_bell: bell().map_err(text)?,
            conductor_bell: bell().map_err(text)?,
            recorder_bell,
        };
        let memory = Shared(Rc::new(RefCell::new(Memory::new(sessions * ways, ways))));
        let config = WorkerConfig::new(0, Idle::Spin, sessions * SLOTS);
        let worker = Worker::new(
            config,
            memory.clone(),
            queues.clone(),
            writers.workers.remove(0),
        );
        let mut relay = Self {
            worker,
            memory,
            queues,
            reader,
            _pages: pages,
            now_ns: trunkline_link::monotonic_ns().map_err(text)?,
            cycles_ns: 0,
            recorder,
        };
        for session in 0..sessions {
            relay.set_up(session, records)?;
        }
        Ok(relay)
    }

    fn set_up(&mut self, index: u32, records: bool) -> Result<(), String> {
        let session = u64::from(index) + 1;
        let mut commands = vec![WorkerCommand::AddSession {
            request: 0,
            install: Box::new(session_install(session, index * SLOTS)?),
        }];
        for side in Side::BOTH {
            commands.push(WorkerCommand::UpdateLeg {
                request: 0,
                update: Box::new(leg(session, side)),
            });
        }
        if records {
            commands.push(WorkerCommand::RecordingStart {
                request: 0,
                start: Box::new(tap(session, self.now_ns)),
            });
        }
        for command in commands {
            self.queues
                .commands
                .push(command)
                .map_err(|_| "the command queue is full")?;
            self.worker.cycle(self.now_ns);
            while self.queues.events.pop().is_some() {}
        }
        Ok(())
    }

    /// Relays about `packets`; nanoseconds of the worker for each.
    pub fn run(&mut self, packets: u64) -> f64 {
        self.cycles_ns = 0;
        let before = self.memory.0.borrow().sent;
        let flows = u64::from(self.memory.0.borrow().flows);
        while self.memory.0.borrow().sent - before < packets {
            self.memory.0.borrow_mut().prepare();
            let start = Instant::now();
            self.worker.cycle(self.now_ns);
            self.cycles_ns += start.elapsed().as_nanos() as u64;
            self.now_ns += PACKET_NS * BATCH as u64 / flows;
            while self.queues.events.pop().is_some() {}
            if self.recorder {
                self.wait_for_recorder();
                continue;
            }
            while let Some(closed) = self.queues.capture.closed.pop() {
                if let Closed::Extent(mut extent) = closed {
                    extent.prepare();
                    let _ = self.queues.capture.ready.push(extent);
                }
            }
        }
        let sent = self.memory.0.borrow().sent - before;
        self.cycles_ns as f64 / sent as f64
    }

    /// Time does not run ahead of the recorder: it gets what it needs to make memory free.
    fn wait_for_recorder(&self) {
        let (ready, flows) = (&self.queues.capture.ready, self.memory.0.borrow().flows);
        while ready.len() < BATCH.min(flows as usize) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends all recordings.
    pub fn finish(&mut self) {
        let _ = self.queues.commands.push(WorkerCommand::Shutdown);
        while !self.worker.has_ended() {
            self.worker.cycle(self.now_ns);
            while self.queues.events.pop().is_some() {}
        }
        self.queues.recorder_bell.ring();
    }

    /// Packets relayed so far.
    pub fn sent(&self) -> u64 {
        self.memory.0.borrow().sent
    }

    /// Packets recorded, and those that a recording lacks.
    pub fn captured(&mut self) -> [u64; 2] {
        self.now_ns += 1_000_000_000;
        self.worker.cycle(self.now_ns);
        let dropped = trunkline_link::message::DropReason::ALL.map(WorkerCounter::capture_dropped);
        let dropped = dropped.map(|counter| self.reader.worker(0, counter));
        let frames = self.reader.worker(0, WorkerCounter::CaptureFrames);
        [frames, dropped.iter().sum()]
    }
}

fn session_install(session: u64, first: u32) -> Result<SessionInstall, String> {
    let socket = |slot: u32| {
        let file = File::open("/dev/null").map_err(|error| error.to_string())?;
        Ok::<_, String>(SocketInstall {
            slot,
            socket: PortSocket::Bound(file.into()),
        })
    };
    let port = |slot: u32| {
        Ok::<_, String>(PortInstall {
            rtp: socket(slot)?,
            rtcp: socket(slot + 1)?,
        })
    };
    Ok(SessionInstall {
        session,
        media_timeout_ms: 0,
        first_media: 0,
        media: vec![MediaInstall {
            kind: MediaKind::Audio,
            ports: [port(first)?, port(first + 2)?],
        }],
    })
}

fn leg(session: u64, side: Side) -> LegUpdate {
    let address = party(side);
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

fn tap(session: u64, mono_ns: u64) -> TapStart {
    TapStart {
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
    }
}
