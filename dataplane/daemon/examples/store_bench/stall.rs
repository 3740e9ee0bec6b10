//! How long a worker is held up by its own appends while segments are written and the disk is busy,
//! against a worker whose extents go nowhere.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use trunkline_dataplane::recorder::Closed;
use trunkline_link::pool::{Extent, Pool};
use trunkline_sn3::file::Way;

use crate::fill::{Maker, Open, Packets};
use crate::report::Report;
use crate::store::Store;
use crate::{Amounts, Outcome, disk};

const FRAMES_PER_S: u64 = 300_000;
const RECORDINGS: usize = 3_000;
const EXTENTS: usize = 3 * RECORDINGS;

/// Who takes the extents.
enum Behind {
    Nobody(VecDeque<Extent>),
    Recorder(Box<Store>),
}

pub fn run(amounts: &Amounts, directory: &Path, report: &mut Report) -> Outcome<()> {
    let mut memory_p9999 = 0.0;
    for (way, busy, name) in [
        (None, false, "memory only"),
        (None, true, "memory only, disk busy"),
        (Some(Way::Direct), false, "extent writer"),
        (Some(Way::Direct), true, "extent writer, disk busy"),
        (Some(Way::Mapped), true, "mmap writer, disk busy"),
    ] {
        let mut found = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..amounts.rounds.min(3) {
            let other = busy.then(|| disk::Busy::start(directory));
            let stalls = on_own_core(directory, way, amounts.stall_s)?;
            drop(other);
            let at = |quantile: f64| stalls.value_at_quantile(quantile) as f64 / 1e3;
            let figures = [at(0.5), at(0.999), at(0.9999), stalls.max() as f64 / 1e3];
            for (rounds, figure) in found.iter_mut().zip(figures) {
                rounds.push(figure);
            }
        }
        let mut medians = Vec::new();
        for (what, rounds) in ["p50", "p99.9", "p99.99", "max"].into_iter().zip(found) {
            medians.push(report.row("stall", &format!("{name}: {what}"), "us", rounds));
        }
        if busy && way.is_none() {
            memory_p9999 = medians[2];
        } else if busy && memory_p9999 > 0.0 {
            let ratio = medians[2] / memory_p9999;
            let name = format!("{name}: p99.99 against memory only, disk busy");
            report.row("stall", &name, "x", vec![ratio]);
        }
    }
    Ok(())
}

/// Runs it on a thread with the last core to itself, and real-time priority where that is allowed.
fn on_own_core(directory: &Path, way: Option<Way>, seconds: u64) -> Outcome<Histogram<u64>> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let behind = match way {
        None => {
            let (_, tokens) = Pool::create(EXTENTS).map_err(|error| error.to_string())?;
            Behind::Nobody(tokens.into())
        }
        Some(way) => Behind::Recorder(Box::new(Store::start(directory, EXTENTS, |settings| {
            settings.way = way;
        })?)),
    };
    if let Behind::Recorder(store) = &behind {
        while store.queues.ready.len() < EXTENTS {
            store.bell.ring();
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let thread = std::thread::spawn(move || {
        let mut own = CpuSet::new();
        if cores > 1 && own.set(cores - 1).is_ok() {
            let _ = sched_setaffinity(Pid::from_raw(0), &own);
        }
        real_time();
        let mut worker = Worker::new(behind)?;
        worker.run(seconds)?;
        Ok::<_, String>((worker.stalls, worker.behind, worker.open))
    });
    let (stalls, behind, open) = thread.join().map_err(|_| "a thread panicked")??;
    if let Behind::Recorder(store) = behind {
        for one in open {
            let _ = store.queues.closed.push(Closed::Extent(one));
        }
        store.stop()?;
    }
    Ok(stalls)
}

/// So that what is measured is the store, not whoever else wants the core.
fn real_time() {
    let own = format!("{}", nix::unistd::gettid());
    let _ = std::process::Command::new("chrt")
        .args(["--fifo", "--pid", "50", &own])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status();
}

struct Worker {
    filling: Vec<Open>,
    open: Vec<Extent>,
    behind: Behind,
    stalls: Histogram<u64>,
}

impl Worker {
    fn new(behind: Behind) -> Outcome<Self> {
        let mut this = Self {
            filling: Vec::new(),
            open: Vec::new(),
            behind,
            stalls: Histogram::new(3).map_err(|error| error.to_string())?,
        };
        if let Behind::Nobody(spare) = &mut this.behind {
            spare.iter_mut().for_each(Extent::prepare);
        }
        for recording in 0..RECORDINGS {
            let extent = this.take().ok_or("too few extents")?;
            this.filling
                .push(Open::start(extent, recording as u64 + 1, 0));
        }
        Ok(this)
    }

    fn take(&mut self) -> Option<Extent> {
        match &mut self.behind {
            Behind::Nobody(spare) => spare.pop_front(),
            Behind::Recorder(store) => store.queues.ready.pop(),
        }
    }

    fn give(&mut self, full: Extent) {
        match &mut self.behind {
            Behind::Nobody(spare) => spare.push_back(full),
            Behind::Recorder(store) => {
                let _ = store.queues.closed.push(Closed::Extent(full));
            }
        }
    }

    /// Appends at a steady rate, a batch at a time, and times each frame.
    fn run(&mut self, seconds: u64) -> Outcome<()> {
        let packets = Packets::new();
        let mut maker = Maker::default();
        for (place, one) in self.filling.iter_mut().enumerate() {
            for packet in 0..place * 37 % 83 {
                one.append(&mut maker, packets.payload(packet));
            }
        }
        let batches = seconds * FRAMES_PER_S / Packets::BATCH as u64;
        let batch_ns = Packets::BATCH as u64 * 1_000_000_000 / FRAMES_PER_S;
        let mut next = 0;
        let mut due = Instant::now();
        for _ in 0..batches {
            while Instant::now() < due {
                std::hint::spin_loop();
            }
            due += Duration::from_nanos(batch_ns);
            for index in 0..Packets::BATCH {
                let start = Instant::now();
                let payload = packets.payload(index);
                if !self.filling[next].append(&mut maker, payload) {
                    let extent = self
                        .take()
                        .ok_or("no extent is left: the recorder is behind")?;
                    let full = self.filling[next].go_on(&mut maker, extent);
                    self.give(full);
                    self.filling[next].append(&mut maker, payload);
                }
                if index + 1 == Packets::BATCH {
                    let fenced = maker.fence();
                    for back in 0..Packets::BATCH {
                        let place = (next + RECORDINGS - back) % RECORDINGS;
                        self.filling[place].publish(&fenced);
                    }
                    if let Behind::Recorder(store) = &self.behind {
                        store.bell.ring();
                    }
                }
                next = (next + 1) % RECORDINGS;
                self.stalls
                    .saturating_record(start.elapsed().as_nanos() as u64);
            }
        }
        for one in self.filling.drain(..) {
            self.open.push(one.end(&mut maker));
        }
        Ok(())
    }
}
