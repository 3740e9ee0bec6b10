//! What recording a packet costs the worker that relays it: the dataplane's own worker on a device
//! of memory, 2,000 one-way G.711 flows, with every packet recorded and without.
//!
//! Nothing but the worker's duty cycle is timed: packets are made and full extents taken away
//! between cycles. Both workers take turns, so that a noisy minute hits both alike.

use std::cell::RefCell;
use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use crossbeam::queue::ArrayQueue;
use trunkline_dataplane::recorder::message::{CaptureQueues, Closed};
use trunkline_dataplane::worker::Worker;
use trunkline_dataplane::worker::message::{
    Bell, Idle, MediaInstall, PortInstall, SessionInstall, SocketInstall, TapStart, WorkerCommand,
    WorkerConfig, WorkerQueues,
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

/// Capture's own cost of a packet.
#[derive(Parser)]
#[command(after_help = "Example: capture_cost --rounds 15 --json capture.json")]
struct Arguments {
    /// Flows, one way each.
    #[arg(long, default_value_t = 2000)]
    flows: u32,
    /// Rounds of both.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Packets of each in a round.
    #[arg(long, default_value_t = 400_000)]
    packets: u64,
    /// Where the results go as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

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
    next: u32,
    turn: u16,
}

impl Memory {
    fn new(flows: u32) -> Self {
        Self {
            pool: BufferPool::new(2 * BATCH as u32).expect("buffers"),
            ready: Vec::with_capacity(BATCH),
            sent: 0,
            flows,
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
            self.ready.push(Received {
                slot: flow * SLOTS,
                truncated: false,
                source: source(),
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

fn source() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 5004))
}

/// A worker with its flows, and whoever stands in for the threads around it.
struct Relay {
    worker: Worker<Shared>,
    memory: Shared,
    queues: WorkerQueues,
    reader: CounterReader,
    _pages: Counters,
    now_ns: u64,
    cycles_ns: u64,
}

impl Relay {
    fn new(flows: u32, records: bool) -> Result<Self, String> {
        let text = |error: std::io::Error| error.to_string();
        let extents = if records { 3 * flows as usize } else { 1 };
        let (_, tokens) = Pool::create(extents).map_err(text)?;
        let (pages, mut writers) = Counters::create(1).map_err(text)?;
        let reader = pages.reader().map_err(text)?;
        let bell = || Doorbell::create().map(|bell| Arc::new(Bell::new(bell)));
        let queues = WorkerQueues {
            commands: Arc::new(ArrayQueue::new(64)),
            events: Arc::new(ArrayQueue::new(65_536)),
            capture: CaptureQueues::new(extents),
            worker_bell: bell().map_err(text)?,
            conductor_bell: bell().map_err(text)?,
            recorder_bell: bell().map_err(text)?,
        };
        for mut extent in tokens {
            extent.prepare();
            let _ = queues.capture.ready.push(extent);
        }
        let memory = Shared(Rc::new(RefCell::new(Memory::new(flows))));
        let config = WorkerConfig::new(0, Idle::Spin, flows * SLOTS);
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
        };
        for flow in 0..flows {
            relay.set_up(flow, records)?;
        }
        Ok(relay)
    }

    fn set_up(&mut self, flow: u32, records: bool) -> Result<(), String> {
        let session = u64::from(flow) + 1;
        let mut commands = vec![WorkerCommand::AddSession {
            request: 0,
            install: Box::new(session_install(session, flow * SLOTS)?),
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
    fn run(&mut self, packets: u64) -> f64 {
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

    /// Packets recorded, and those that a recording lacks.
    fn captured(&mut self) -> [u64; 2] {
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
            socket: file.into(),
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
    let address = match side {
        Side::Caller => source(),
        Side::Callee => SocketAddr::from(([198, 51, 100, 1], 6004)),
    };
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

fn main() {
    let arguments = Arguments::parse();
    if let Err(error) = run(&arguments) {
        eprintln!("capture_cost: {error}");
        std::process::exit(1);
    }
}

/// The least, the middle and the greatest of some numbers.
fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [
        values[0],
        values[values.len() / 2],
        values[values.len() - 1],
    ]
}

fn run(arguments: &Arguments) -> Result<(), String> {
    if arguments.rounds == 0 || !(1..=10_000).contains(&arguments.flows) {
        return Err("at least one round, and from 1 to 10000 flows".to_owned());
    }
    let mut plain = Relay::new(arguments.flows, false)?;
    let mut recording = Relay::new(arguments.flows, true)?;
    // Every page and table once.
    plain.run(arguments.packets / 4);
    recording.run(arguments.packets / 4);
    let before = recording.captured();
    let sent_before = recording.memory.0.borrow().sent;
    let mut costs = [Vec::new(), Vec::new(), Vec::new()];
    for round in 0..arguments.rounds {
        let mut ns = [0.0; 2];
        for turn in 0..2 {
            let which = (turn + round) % 2;
            let relay = if which == 0 {
                &mut plain
            } else {
                &mut recording
            };
            ns[which] = relay.run(arguments.packets);
        }
        costs[0].push(ns[0]);
        costs[1].push(ns[1]);
        costs[2].push(ns[1] - ns[0]);
    }
    let after = recording.captured();
    let sent = recording.memory.0.borrow().sent - sent_before;
    if after[0] - before[0] != sent || after[1] > 0 {
        return Err(format!(
            "{sent} relayed, {after:?} since {before:?} recorded"
        ));
    }
    let [plain, recorded, capture] = costs.map(spread);
    println!(
        "worker, ns a packet ({} flows)     least  median  greatest",
        arguments.flows
    );
    for (name, [least, median, greatest]) in [
        ("relayed", plain),
        ("relayed and recorded", recorded),
        ("capture: their difference", capture),
    ] {
        println!("{name:<32} {least:8.1} {median:7.1} {greatest:9.1}");
    }
    if let Some(path) = &arguments.json {
        let json = serde_json::json!({
            "flows": arguments.flows,
            "rounds": arguments.rounds,
            "relay_ns": plain,
            "record_ns": recorded,
            "capture_ns": capture,
        });
        std::fs::write(path, format!("{json:#}\n"))
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}
