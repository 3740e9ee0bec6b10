//! The worker: one pinned thread that owns a device, an engine and the recordings' open extents.
//!
//! ```text
//!   duty cycle:  clock ► receive a batch ► each packet: judge, capture, rewrite, queue ► send
//!                ► at most N commands ► slot events ► housekeeping ► counters ► bells ► park
//! ```
//! The clock is read once a cycle. Nothing between two packets allocates, locks, logs or enters the
//! kernel; commands may allocate.

mod capture;
mod commands;
mod forks;
pub mod message;
mod recordings;
mod reports;
#[cfg(test)]
mod tests;
mod totals;
pub(crate) mod translate;
mod unread;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use trunkline_device::{Admission, Device, Received, SlotEvent, TAIL_ROOM_BYTES};
use trunkline_engine::{Actions, Captured, Engine, Event, FrameMeta, Limits, MediaSpec};
use trunkline_link::counters::CounterWriter;
use trunkline_link::prefetch;

use capture::Capture;
use message::{Idle, WorkerConfig, WorkerEvent, WorkerQueues};
use recordings::Recording;
use reports::Reports;
use translate::worker_event;
use unread::Unread;

/// Packets that came together from which on it pays to fetch what they need, recorded or not.
const FETCH_AHEAD_MIN: usize = 8;
/// Slot events taken in one cycle.
const SLOT_EVENTS_PER_CYCLE: usize = 64;
/// How long a port stays open when its admission changes.
const CLOSING_NS: u64 = 100_000_000;
/// Wait while there is nothing to do by time.
const FOREVER_NS: u64 = 3600 * 1_000_000_000;

/// What a worker knows of a session beside the engine.
#[derive(Debug)]
struct Session {
    media_timeout_ns: u64,
    media: Vec<MediaSpec>,
    /// Its recording that is not stopped.
    recording: Option<u64>,
}

/// One worker. See the module.
pub struct Worker<D: Device> {
    config: WorkerConfig,
    device: D,
    engine: Engine,
    queues: WorkerQueues,
    counters: CounterWriter,
    capture: Capture,
    reports: Reports,
    sessions: HashMap<u64, Session>,
    recordings: HashMap<u64, Recording>,
    /// When recordings report their progress, in order.
    progress: VecDeque<(u64, u64)>,
    /// When forks report what they have sent, in order: moment, session, target.
    fork_progress: VecDeque<(u64, u64, u64)>,
    batch: Vec<Received>,
    unread: Unread,
    totals: totals::Totals,
    /// The conductor was told that extents are short.
    told_short: bool,
    /// It is the last cycle.
    ending: bool,
    ended: bool,
}

impl<D: Device> Worker<D> {
    /// A worker around an open device. All tables are allocated here.
    #[must_use]
    pub fn new(
        config: WorkerConfig,
        device: D,
        queues: WorkerQueues,
        counters: CounterWriter,
    ) -> Self {
        let limits = Limits {
            slots_max: config.slots_max,
            sessions_max: config.sessions_max,
            ..Limits::default()
        };
        let closed = queues.capture.clone();
        let mut capture = Capture::new(config.worker, closed, config.extent_age_ns);
        capture.mask_events = config.mask_events;
        Self {
            device,
            engine: Engine::new(limits),
            capture,
            reports: Reports::new(queues.events.clone()),
            queues,
            counters,
            sessions: HashMap::with_capacity(config.sessions_max as usize),
            recordings: HashMap::with_capacity(config.sessions_max as usize),
            progress: VecDeque::with_capacity(config.sessions_max as usize),
            fork_progress: VecDeque::new(),
            batch: Vec::with_capacity(4096),
            unread: Unread::new(config.slots_max),
            totals: totals::Totals::default(),
            told_short: false,
            ending: false,
            ended: false,
            config,
        }
    }

    /// Runs until it is told to shut down.
    ///
    /// # Errors
    /// There is no clock.
    pub fn run(mut self) -> std::io::Result<()> {
        loop {
            let now_ns = trunkline_link::monotonic_ns()?;
            let busy = self.cycle(now_ns);
            if self.ended {
                return Ok(());
            }
            if busy {
                continue;
            }
            match self.config.idle {
                // A look without a wait: io_uring delivers only to those who enter the kernel.
                Idle::Spin => {
                    self.device.park(0);
                }
                Idle::Park => self.park(now_ns),
            }
        }
    }

    /// One duty cycle; false when there was nothing to do.
    pub fn cycle(&mut self, now_ns: u64) -> bool {
        self.capture.now_ns = now_ns;
        let packets = self.relay(now_ns);
        let commands = self.take_commands(now_ns);
        self.tell_admissions(now_ns);
        let slots = self.take_slot_events();
        if self.ending && !self.ended {
            self.ended = true;
            self.reports.tell(WorkerEvent::Ended);
        }
        self.housekeeping(now_ns);
        let handed_over = self.capture.housekeeping();
        let busy = packets + commands + slots > 0;
        self.totals.count_cycle(commands);
        if self.totals.is_due(now_ns, busy, self.config.idle) {
            self.publish(now_ns);
        }
        self.ring(handed_over);
        busy
    }

    /// Whether it was told to shut down.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Receives a batch, hands each packet to the engine and queues what it forwards.
    fn relay(&mut self, now_ns: u64) -> usize {
        let Self {
            device,
            engine,
            capture,
            reports,
            unread,
            batch,
            ..
        } = self;
        let received = device.receive(batch);
        if received == 0 {
            return 0;
        }
        if capture.recordings() > 0 || received >= FETCH_AHEAD_MIN {
            fetch_ahead(engine, capture, batch);
        }
        for packet in batch.drain(..) {
            let Received {
                slot,
                truncated,
                source,
                mut buffer,
            } = packet;
            let length = buffer.len();
            buffer.set_len(length + TAIL_ROOM_BYTES);
            let mut hands = Hands {
                device,
                capture,
                reports,
                unread,
                forward: None,
            };
            engine.handle_packet(
                now_ns,
                slot,
                source,
                &mut buffer,
                length,
                truncated,
                &mut hands,
            );
            match hands.forward {
                Some(Forward {
                    slot,
                    destination,
                    length,
                }) => {
                    buffer.set_len(length);
                    device.send(slot, &destination, buffer);
                }
                None => device.recycle(buffer),
            }
        }
        capture.publish();
        device.flush();
        received
    }

    /// Tells the device whom ports are open to, where that has changed. Not at once closed: what a
    /// source just learnt sends meanwhile may be judged by what was known before.
    fn tell_admissions(&mut self, now_ns: u64) {
        while let Some(admission) = self.engine.poll_admission() {
            let device = Admission {
                sources: admission.sources,
                closed_from_ns: admission.closed_from_ns.max(now_ns + CLOSING_NS),
                silent_ns: admission.silent_ns,
            };
            self.device.admit(admission.slot, &device);
        }
    }

    fn take_slot_events(&mut self) -> usize {
        let mut taken = 0;
        while taken < SLOT_EVENTS_PER_CYCLE
            && let Some(event) = self.device.slot_event()
        {
            taken += 1;
            self.totals.slots = self.totals.slots.saturating_sub(1);
            self.reports.tell(match event {
                SlotEvent::Closed { slot } => WorkerEvent::SlotClosed { slot },
                SlotEvent::Failed { slot, errno } => WorkerEvent::SlotFailed { slot, errno },
            });
        }
        taken
    }

    fn housekeeping(&mut self, now_ns: u64) {
        if self
            .engine
            .next_deadline_ns()
            .is_some_and(|deadline| now_ns >= deadline)
        {
            let Self {
                device,
                engine,
                capture,
                reports,
                unread,
                ..
            } = self;
            let mut hands = Hands {
                device,
                capture,
                reports,
                unread,
                forward: None,
            };
            engine.handle_timeout(now_ns, &mut hands);
            self.device.flush();
        }
        if self.unread.is_due(now_ns) {
            // Before: a port that is read again is no longer looked at.
            self.take_unread_drops();
            self.unread.read_again(now_ns, &mut self.device);
        }
        self.look_for_shared_drops(now_ns);
        self.report_progress(now_ns);
        self.report_fork_progress(now_ns);
        if self.capture.short != self.told_short {
            self.told_short = self.capture.short;
            self.reports.tell(WorkerEvent::ExtentsShort {
                short: self.told_short,
            });
        }
    }

    /// Wakes those who got something.
    fn ring(&mut self, handed_over: bool) {
        if handed_over {
            self.queues.recorder_bell.ring();
        }
        if self.reports.flush() {
            self.queues.conductor_bell.ring();
        }
    }

    /// Waits for a packet, the doorbell or the next deadline.
    fn park(&mut self, now_ns: u64) {
        let bell = &self.queues.worker_bell;
        bell.about_to_sleep();
        if self.queues.commands.is_empty() {
            let deadline_ns = self.next_deadline_ns(now_ns);
            self.totals.parks += 1;
            self.device
                .park(deadline_ns.saturating_sub(now_ns).min(FOREVER_NS));
        }
        self.queues.worker_bell.awake();
    }

    /// When there is something to do by time.
    fn next_deadline_ns(&self, now_ns: u64) -> u64 {
        let engine = self.engine.next_deadline_ns();
        let capture = self.capture.next_deadline_ns();
        let progress = self.progress.front().map(|&(due_ns, _)| due_ns);
        let forks = self.fork_progress.front().map(|&(due_ns, ..)| due_ns);
        let reports = self.reports.is_behind().then_some(now_ns + 1_000_000);
        let short = self.told_short.then_some(now_ns + 100_000_000);
        let unread = self.unread.next_deadline_ns();
        let kernel = self.kernel_counts_due_ns();
        let deadlines = [
            engine, capture, progress, forks, reports, short, unread, kernel,
        ];
        deadlines.into_iter().flatten().min().unwrap_or(u64::MAX)
    }
}

/// Fetches what the recorded packets of a batch need, before the first is handled. Each pass finds what
/// the one before it has fetched.
fn fetch_ahead(engine: &Engine, capture: &mut Capture, batch: &[Received]) {
    for packet in batch {
        engine.fetch_flow(packet.slot, prefetch);
    }
    let mut taps = std::mem::take(&mut capture.fetching);
    for packet in batch {
        if let Some(tap) = engine.fetch_stream(packet.slot, prefetch) {
            capture.fetch_track(tap);
            taps.push(tap);
        }
    }
    for tap in taps.drain(..) {
        capture.fetch_extent(tap);
    }
    capture.fetching = taps;
}

/// A packet to send in the buffer it came in.
struct Forward {
    slot: u32,
    destination: SocketAddr,
    length: usize,
}

/// What the engine acts through.
struct Hands<'a, D: Device> {
    device: &'a mut D,
    capture: &'a mut Capture,
    reports: &'a mut Reports,
    unread: &'a mut Unread,
    forward: Option<Forward>,
}

impl<D: Device> Actions for Hands<'_, D> {
    #[inline]
    fn forward(&mut self, slot: u32, destination: SocketAddr, length: usize) {
        self.forward = Some(Forward {
            slot,
            destination,
            length,
        });
    }

    fn forward_copy(&mut self, slot: u32, destination: SocketAddr, packet: &[u8]) {
        self.device.send_copy(slot, &destination, packet);
    }

    #[inline]
    fn capture(&mut self, tap: u32, frame: &FrameMeta, bytes: &[u8]) -> Captured {
        self.capture.packet(tap, frame, bytes)
    }

    #[cold]
    fn over_cap(&mut self, slot: u32) {
        self.unread.leave(self.capture.now_ns, slot, self.device);
    }

    #[cold]
    fn event(&mut self, event: Event) {
        self.reports.tell(worker_event(event));
    }
}
